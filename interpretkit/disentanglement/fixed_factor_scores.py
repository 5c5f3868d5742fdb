"""Metrics that hold one factor fixed and watch which codes stand still."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from interpretkit.disentanglement.columns import Floats, Integers
from interpretkit.disentanglement.information import Binning, Discretiser
from interpretkit.disentanglement.inputs import Codes, Factors, check_pair, check_several
from interpretkit.disentanglement.learners import softmax_regression
from interpretkit.disentanglement.score import Measurement, Score, evaluate
from interpretkit.errors import InputError, check_count


class Groups:
    """The rows that share a factor's value, to draw from.

    Parameters
    ----------
    classes : ndarray of intp, (n,)
        The number of each row's value.
    name : str
        What errors call the factor.

    Raises
    ------
    InputError
        If no two rows share a value.
    """

    def __init__(self, classes: Integers, name: str = "factor") -> None:
        self.order = np.argsort(classes, kind="stable")
        self.place = np.empty_like(self.order)
        self.place[self.order] = np.arange(len(classes))
        counts = np.bincount(classes)
        self.start = (np.cumsum(counts) - counts)[classes]
        self.size = counts[classes]
        # A row that is alone with its value stands still in every code, whichever factor is fixed.
        self.shared = np.flatnonzero(self.size > 1)
        if len(self.shared) == 0:
            raise InputError(
                f"{name}: no two rows share a value, or a bin; expected values that recur, for rows that share one "
                "are compared"
            )

    def draw(self, rng: np.random.Generator, size: int | tuple[int, ...]) -> Integers:
        """Return rows drawn from those that share their value with others."""
        return self.shared[rng.integers(len(self.shared), size=size)]

    def warnings(self, name: str) -> list[str]:
        """Say how many rows are left out, if they are many."""
        alone = 1 - len(self.shared) / len(self.size)
        if alone <= 0.1:
            return []
        return [f"{name}: {alone:.0%} of the rows share their value with no other and are left out"]

    def companions(self, rng: np.random.Generator, rows: Integers) -> Integers:
        """Return for each of `rows` another row with the same value."""
        size, start = self.size[rows], self.start[rows]
        step = 1 + (rng.random(rows.shape) * (size - 1)).astype(np.intp)
        return self.order[start + (self.place[rows] - start + step) % size]

    def batches(self, rng: np.random.Generator, rows: Integers, batch: int) -> Integers:
        """Return for each of `rows` a batch of rows with its value, drawn with replacement, ``(m, batch)``."""
        size, start = self.size[rows, None], self.start[rows, None]
        return self.order[start + (rng.random((len(rows), batch)) * size).astype(np.intp)]


def beta_vae(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    discrete: Sequence[bool | None] | bool | None = None,
    bins: int = 20,
    binning: Binning = "equal width",
    pairs: int = 64,
    points: int = 10_000,
    standardise: bool = True,
    resamples: int = 0,
    seed: int = 0,
    bounds: bool = True,
) -> Score:
    """BetaVAE score: whether a linear classifier finds the fixed factor from how much each code changes.

    A point is the mean of ``|z1 - z2|`` over pairs that agree in one factor; the classifier (softmax regression,
    C = 1) names that factor, and the score is its accuracy on half as many fresh points. On plain arrays a pair is
    a row drawn at random and another row with the same value of the factor; of a continuous factor, one in the same
    bin. It can be high although factors are missing. Unchanged by the order, the sign, the shift and the scale of
    the codes.

    Parameters
    ----------
    codes, factors, discrete, seed, bounds
        As for :func:`~interpretkit.disentanglement.mig`.
    bins, binning
        How continuous factors are cut.
    pairs : int
        The number of pairs averaged for one point.
    points : int
        The number of points to learn from.
    standardise : bool
        Whether to scale every code to a standard deviation of 1. Published scores do not, so that the classifier's
        penalty knows the scale of the codes; without it the score changes with their scale, though not with a shift.
    resamples : int
        The number of bootstrap resamples of the fresh points, rows and classifier kept.

    Returns
    -------
    Score
        Its details hold ``chance``, ``train_accuracy`` and the ``learner``.

    Raises
    ------
    InputError
        If the arrays are unusable, or there is only one factor.

    References
    ----------
    I. Higgins et al., "β-VAE: learning basic visual concepts with a constrained variational framework", ICLR 2017.
    """
    check_count("pairs", pairs, 1)
    discretiser = Discretiser(bins, binning)
    check_count("points", points, 10)

    def measure(codes: Codes, factors: Factors, rng: np.random.Generator) -> Measurement:
        groups = _groups(factors, discretiser)
        scaled = codes.standard if standardise else codes.standard * codes.deviations
        small = scaled.astype(np.float32, order="C")

        def draw(number: int) -> tuple[Floats, Integers]:
            fixed = np.sort(rng.integers(factors.count, size=number))
            changes = np.empty((number, codes.count))
            for factor, group in enumerate(groups):
                for some in _chunks(np.flatnonzero(fixed == factor), 500):
                    first = group.draw(rng, (len(some), pairs))
                    second = group.companions(rng, first)
                    changes[some] = np.abs(small[first] - small[second]).mean(axis=1)
            return changes, fixed

        changes, fixed = draw(points)
        model = softmax_regression(changes, fixed)
        train_accuracy = float((model.predict(changes) == fixed).mean())
        changes, fixed = draw(max(5, points // 2))
        correct = model.predict(changes) == fixed
        accuracy = float(correct.mean())
        return Measurement(
            {"beta_vae": accuracy},
            {
                "chance": 1 / factors.count,
                "train_accuracy": train_accuracy,
                "learner": "softmax regression, C = 1",
                "pairs": pairs,
                "standardised": standardise,
            },
            lambda drawing: {"beta_vae": float(drawing.binomial(len(correct), accuracy) / len(correct))},
            "points, with rows and classifier kept",
            warnings=lambda: [*codes.outliers, *_group_warnings(groups, factors, discretiser)],
            above="the classifier's chance, and the noise beside the exact factors",
        )

    checked = check_pair(codes, factors, discrete)
    check_several(checked[1], "beta_vae")
    return evaluate(measure, *checked, seed=seed, resamples=resamples, bounds=bounds)


def factor_vae(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    discrete: Sequence[bool | None] | bool | None = None,
    bins: int = 20,
    binning: Binning = "equal width",
    batch: int = 64,
    votes: int = 10_000,
    active_deviation: float = 0.05,
    resamples: int = 0,
    seed: int = 0,
    bounds: bool = True,
) -> Score:
    """FactorVAE score: whether the code that varies least tells which factor was fixed.

    A vote is the code with the least variance, relative to its variance over all rows, in a batch of rows that agree
    in one factor. Each code is then taken to stand for the factor that it was voted for most often, and the score is
    how often that is right for half as many fresh votes. On plain arrays the value is that of a row drawn at random,
    and the batch is drawn with replacement from the rows that have it (for a continuous factor: that are in the same
    bin). Unchanged by the order, the sign and the shift of the codes, by one scale for all, and by a scale for each
    as long as the same codes stay active.

    Parameters
    ----------
    codes, factors, discrete, seed, bounds
        As for :func:`~interpretkit.disentanglement.mig`.
    bins, binning
        How continuous factors are cut.
    batch : int
        The number of rows behind a vote.
    votes : int
        The number of votes to learn from.
    active_deviation : float
        Codes whose standard deviation is below this share of the root mean square of all codes' deviations do not
        vote. The article means the codes that a VAE has given up; those that it uses have a deviation of about 1, that
        of the prior.
    resamples : int
        The number of bootstrap resamples of all votes, rows kept.

    Returns
    -------
    Score
        Its details hold ``chance``, the ``active`` codes (d,), their number ``n_active`` and the table of ``votes``
        (d, k). Without an active code the value is 0.

    Raises
    ------
    InputError
        If the arrays are unusable, or there is only one factor.

    References
    ----------
    H. Kim and A. Mnih, "Disentangling by factorising", ICML 2018.
    """
    check_count("batch", batch, 2)
    check_count("votes", votes, 10)
    discretiser = Discretiser(bins, binning)
    if not 0 <= active_deviation <= 1:
        raise InputError(f"active_deviation {active_deviation!r}: expected a share from 0 to 1")

    def measure(codes: Codes, factors: Factors, rng: np.random.Generator) -> Measurement:
        from scipy.sparse import csr_array

        active = codes.active(active_deviation)
        table = np.zeros((codes.count, factors.count))
        fresh = np.zeros_like(table)
        groups = _groups(factors, discretiser)
        if active.any():
            scaled = codes.standard[:, active]
            moments = np.hstack([scaled, scaled**2])
            numbers = np.flatnonzero(active)

            def fill(counts: Floats, number: int) -> None:
                per_factor = np.bincount(rng.integers(factors.count, size=number), minlength=factors.count)
                for factor, (group, size) in enumerate(zip(groups, per_factor, strict=True)):
                    rows = group.batches(rng, group.draw(rng, size), batch)
                    # Summing over batches is a product with a sparse matrix of ones.
                    ones = csr_array(
                        (np.ones(rows.size), rows.ravel(), np.arange(0, rows.size + 1, batch)),
                        shape=(size, len(codes)),
                    )
                    sums = ones @ moments
                    first, second = np.hsplit(sums, 2)
                    variance = second - first**2 / batch
                    # Codes that stand still are equal, whatever rounding leaves of them: the first one has the vote.
                    variance[variance < 1e-9 * batch] = 0.0
                    np.add.at(counts[:, factor], numbers[variance.argmin(axis=1)], 1)

            fill(table, votes)
            fill(fresh, max(5, votes // 2))

        def accuracy(learnt: Floats, asked: Floats) -> float:
            if asked.sum() == 0:
                return 0.0
            return float(asked[np.arange(len(asked)), learnt.argmax(axis=1)].sum() / asked.sum())

        def redraw(drawing: np.random.Generator, counts: Floats) -> Floats:
            if counts.sum() == 0:
                return counts
            shares = counts.ravel() / counts.sum()
            return drawing.multinomial(int(counts.sum()), shares).reshape(counts.shape).astype(float)

        def warnings() -> list[str]:
            found = _group_warnings(groups, factors, discretiser)
            left_out = np.flatnonzero(codes.varies & ~active)
            if len(left_out):
                found.append(
                    f"codes {', '.join(map(str, left_out))} do not vote: their deviations are below "
                    f"{active_deviation:g} of the codes' root mean square"
                )
            return [*codes.outliers, *found]

        return Measurement(
            {"factor_vae": accuracy(table, fresh)},
            {
                "chance": 1 / factors.count,
                "active": active,
                "n_active": int(active.sum()),
                "votes": table,
                "batch": batch,
            },
            lambda drawing: {"factor_vae": accuracy(redraw(drawing, table), redraw(drawing, fresh))},
            "votes, with rows kept",
            warnings=warnings,
            above="votes are drawn by chance, and the noise beside the exact factors has some of them",
        )

    checked = check_pair(codes, factors, discrete)
    check_several(checked[1], "factor_vae")
    return evaluate(measure, *checked, seed=seed, resamples=resamples, bounds=bounds)


def irs(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    discrete: Sequence[bool | None] | bool | None = None,
    bins: int = 20,
    binning: Binning = "equal width",
    quantile: float = 0.99,
    resamples: int = 0,
    seed: int = 0,
    bounds: bool = True,
) -> Score:
    """Interventional robustness score: how little a code moves while its factor is fixed and others change.

    For every factor and value, the `quantile` of a code's distance from its mean over the rows with that value,
    averaged over the values, relative to the code's largest distance from its mean over all rows. The score is one
    minus that for the factor that suits the code best, averaged over codes weighted by their largest distance.
    Unchanged by the order, the sign and the shift of the codes, and by one scale for all. A code whose largest
    distance is that of a few rows far off is robust for their sake alone, and heavy; the warnings name it.

    Parameters
    ----------
    codes, factors, discrete, seed, bounds
        As for :func:`~interpretkit.disentanglement.mig`.
    bins, binning
        How continuous factors are cut.
    quantile : float
        Which quantile stands for the largest distance within a value; 1 is the article's, 0.99 that of most
        published scores.
    resamples : int
        The number of bootstrap resamples of the rows.

    Returns
    -------
    Score
        Its details hold the ``robustness`` (d, k), ``best_factors`` (d,), and ``largest_deviations`` (d,). Codes
        that never vary are left out; if none varies the value is 0.

    Raises
    ------
    InputError
        If the arrays are unusable.

    References
    ----------
    R. Suter, Đ. Miladinović, B. Schölkopf and S. Bauer, "Robustly disentangled causal mechanisms", ICML 2019.
    """
    discretiser = Discretiser(bins, binning)
    if not 0 < quantile <= 1:
        raise InputError(f"quantile {quantile!r}: expected a share above 0 and up to 1")

    def measure(codes: Codes, factors: Factors, rng: np.random.Generator) -> Measurement:
        classes = discretiser.classes(factors)
        scaled = codes.with_one_scale()

        def robustness(rows: Integers | slice) -> tuple[Floats, Floats]:
            drawn = scaled[rows]
            largest = np.abs(drawn - drawn.mean(axis=0)).max(axis=0)
            within = np.column_stack([_spread_within(drawn, of[rows], quantile) for of in classes])
            moving = largest > 0
            return np.where(
                moving[:, None], 1 - within / np.where(moving, largest, 1.0)[:, None], 0.0
            ), largest

        def value(matrix: Floats, largest: Floats) -> dict[str, float]:
            if largest.sum() == 0:
                return {"irs": 0.0}
            return {"irs": float(np.clip(np.average(matrix.max(axis=1), weights=largest), 0.0, 1.0))}

        matrix, largest = robustness(slice(None))
        return Measurement(
            value(matrix, largest),
            {
                "robustness": matrix,
                # Of factors that are equal but for rounding, the first.
                "best_factors": (matrix >= matrix.max(axis=1, keepdims=True) - 1e-9).argmax(axis=1),
                "largest_deviations": largest * codes.deviations.max(),
                "quantile": quantile,
            },
            lambda drawing: value(*robustness(drawing.integers(len(codes), size=len(codes)))),
            "rows",
            warnings=lambda: [*codes.outliers, *discretiser.factor_warnings(factors)],
            above="the noise beside the exact factors counts, while codes that repeat a factor, or never vary, do not",
        )

    return evaluate(
        measure, *check_pair(codes, factors, discrete), seed=seed, resamples=resamples, bounds=bounds
    )


def _groups(factors: Factors, discretiser: Discretiser) -> list[Groups]:
    classes = discretiser.classes(factors)
    return [Groups(of_factor, f"factors: column {number}") for number, of_factor in enumerate(classes)]


def _group_warnings(groups: Sequence[Groups], factors: Factors, discretiser: Discretiser) -> list[str]:
    alone = [line for number, group in enumerate(groups) for line in group.warnings(f"factor {number}")]
    return [*alone, *discretiser.factor_warnings(factors)]


def _spread_within(codes: Floats, classes: Integers, quantile: float) -> Floats:
    """Return the quantile of the distance from the class's mean, averaged over the classes present, (d,)."""
    order = np.argsort(classes, kind="stable")
    ordered = codes[order]
    counts = np.bincount(classes)
    counts = counts[counts > 0]
    starts = np.cumsum(counts) - counts
    means = np.add.reduceat(ordered, starts, axis=0) / counts[:, None]
    distance = np.ascontiguousarray(np.abs(ordered - np.repeat(means, counts, axis=0)).T)
    total = np.zeros(codes.shape[1])
    for start, count in zip(starts, counts, strict=True):
        position = quantile * (count - 1)
        low = int(position)
        high = min(low + 1, count - 1)
        part = np.partition(distance[:, start : start + count], (low, high), axis=1)
        total += part[:, low] + (position - low) * (part[:, high] - part[:, low])
    return total / len(counts)


def _chunks(rows: Integers, size: int) -> list[Integers]:
    """Return `rows` in pieces, so that what is drawn for one fits into a processor's cache."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
