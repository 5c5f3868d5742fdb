"""Metrics that need no factors: agreement between models, and dependence between codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from interpretkit.disentanglement.columns import Floats
from interpretkit.disentanglement.inputs import (
    Codes,
    Factors,
    check_codes,
    check_factors,
    check_same_rows,
    standardise,
)
from interpretkit.disentanglement.score import (
    Measurement,
    Score,
    bootstrap_intervals,
    check_resamples,
    evaluate,
    noise_codes,
)
from interpretkit.errors import InputError, check_count

Similarity = Literal["spearman", "lasso"]
# The least share of variance that codes are taken to have, given the others.
_LEAST_SHARE = 1e-12


def udr(
    models: Sequence[ArrayLike | Codes] | np.ndarray,
    *,
    similarity: Similarity = "spearman",
    active_deviation: float = 0.05,
    resamples: int = 0,
    seed: int = 0,
    bounds: bool = True,
) -> Score:
    """Unsupervised disentanglement ranking: whether models trained alike find the same codes.

    Two models agree if the matrix of similarities between their codes is a permutation up to sign: over the active
    codes of both, the mean of the squared largest similarity over the sum of the similarities, by rows and by
    columns. The score is the mean over pairs of models. Unchanged by the order, the sign and the shift of each model's
    codes, by one scale for all codes of a model, and by a scale for each as long as the same codes stay active; with
    rank correlations also by any map that keeps the order of an active code.

    Parameters
    ----------
    models : sequence of array_like of float, (n, d)
        The codes that each of two or more models gives to the same rows.
    similarity : str
        ``"spearman"``, the absolute rank correlation; or ``"lasso"``, the absolute slopes of a lasso from one
        model's codes to the other's (penalty 0.1, codes standardised).
    active_deviation : float
        Codes whose standard deviation is below this share of the root mean square of their model's are left out, in
        place of the article's threshold on their divergence from the prior, which plain arrays do not hold.
    resamples : int
        The number of bootstrap resamples of the rows, the same for all models.
    seed : int
        The seed of the noise codes and the resamples.
    bounds : bool
        Whether to find ceiling and floor: the ceiling with every model's codes those of the first in another order
        and with other signs, the floor with Gaussian noise for all.

    Returns
    -------
    Score
        Its details hold the score ``of_pairs`` (m, m), the number of active codes ``n_active`` (m,), and the
        ``similarity``.

    Raises
    ------
    InputError
        If there are fewer than two models, or their rows differ in number.

    References
    ----------
    S. Duan, L. Matthey, A. Saraiva, N. Watters, C. P. Burgess, A. Lerchner and I. Higgins, "Unsupervised model
    selection for variational disentangled representation learning", ICLR 2020.
    """
    if similarity not in ("spearman", "lasso"):
        raise InputError(f"similarity {similarity!r}: expected 'spearman' or 'lasso'")
    if not 0 <= active_deviation <= 1:
        raise InputError(f"active_deviation {active_deviation!r}: expected a share from 0 to 1")
    check_resamples(resamples)
    check_count("seed", seed, 0)
    checked = [check_codes(codes, f"models[{number}]") for number, codes in enumerate(models)]
    if len(checked) < 2:
        raise InputError(
            f"models: {len(checked)}; udr compares models and expected at least two arrays (n, d)"
        )
    lengths = {len(codes) for codes in checked}
    if len(lengths) > 1:
        raise InputError(f"models: numbers of rows {sorted(lengths)}; expected codes of the same rows")
    rows = lengths.pop()

    active = [codes.active(active_deviation) for codes in checked]

    def agreement(arrays: Sequence[Floats]) -> tuple[float, Floats, list[int]]:
        prepared = []
        for codes in arrays:
            seen = _ranks(codes.T).T if similarity == "spearman" and codes.size else codes
            # Resampled rows may leave nothing of a code's variation.
            again = standardise(seen) if codes.size else None
            prepared.append(again.standard[:, again.varies] if again is not None else codes)
        pairs = np.full((len(arrays), len(arrays)), np.nan)
        for i, first in enumerate(prepared):
            for j, second in enumerate(prepared):
                if j > i:
                    if similarity == "spearman":
                        pairs[i, j] = pairs[j, i] = _agreement(np.abs(first.T @ second) / rows)
                    else:
                        pairs[i, j] = _agreement(_lasso_slopes(first, second))
                        pairs[j, i] = _agreement(_lasso_slopes(second, first))
        return float(np.nanmean(pairs)), pairs, [codes.shape[1] for codes in prepared]

    def resample(drawing: np.random.Generator) -> dict[str, float]:
        drawn = drawing.integers(rows, size=rows)
        return {"udr": agreement([codes[drawn] for codes in kept])[0]}

    kept = [codes.standard[:, used] for codes, used in zip(checked, active, strict=True)]
    value, pairs, n_active = agreement(kept)
    measured = Measurement({"udr": value}, {}, resample, "rows, the same for all models")
    ceiling = floor = float("nan")
    if bounds:
        rng = np.random.default_rng([seed, 0])
        first = kept[0]
        shuffled = [
            first[:, rng.permutation(first.shape[1])] * rng.choice([-1.0, 1.0], size=first.shape[1])
            for _ in checked
        ]
        ceiling = agreement(shuffled)[0]
        noise = [noise_codes(rows, codes.count, seed + 1 + number) for number, codes in enumerate(checked)]
        floor = agreement(noise)[0]
    left_out = [
        f"models[{number}]: codes {', '.join(map(str, places))} are left out: their deviations are below "
        f"{active_deviation:g} of the model's root mean square"
        for number, (codes, used) in enumerate(zip(checked, active, strict=True))
        if len(places := np.flatnonzero(codes.varies & ~used))
    ]
    details = {
        "part": "udr",
        "of_pairs": pairs,
        "n_active": n_active,
        "similarity": similarity,
        "warnings": (*(line for codes in checked for line in codes.warnings), *left_out),
    }
    if resamples:
        details |= {"resamples": resamples, "resampled": measured.resampled}
    return Score(value, ceiling, floor, bootstrap_intervals(measured, resamples, seed).get("udr"), details)


def tc(
    codes: ArrayLike,
    factors: ArrayLike | None = None,
    *,
    discrete: Sequence[bool | None] | bool | None = None,
    resamples: int = 0,
    seed: int = 0,
    bounds: bool = True,
) -> Score:
    """Total correlation of the codes as if they were Gaussian: 0 for uncorrelated codes, and the lower the better.

    ``½ (Σ log Σ_ii − log det Σ)`` of the covariance Σ of the codes, in nats. It says nothing about factors: the codes
    of noise are as good as the exact factors, which serve for the ceiling nonetheless. Unchanged by the order, the
    sign, the shift and the scale of the codes.

    Parameters
    ----------
    codes : array_like of float, (n, d)
        The codes; more rows than codes.
    factors : array_like, (n, k), optional
        The factors, for the ceiling alone.
    discrete, seed, bounds
        As for :func:`~interpretkit.disentanglement.mig`.
    resamples : int
        The number of bootstrap resamples of the rows.

    Returns
    -------
    Score
        Its details hold the ``correlation`` of the codes that vary (c, c) and their number ``n_active``.

    Raises
    ------
    InputError
        If the arrays are unusable, or there are no more rows than codes that vary, which then determine one another.

    Notes
    -----
    Codes that never vary are left out. Codes that determine one another have an infinite total correlation; their
    share of variance is taken to be at least 1e-12, so that the value stays finite, and the warnings say so. Of n rows
    of d independent codes the estimate is about d (d − 1) / (4 n), which the floor shows.

    References
    ----------
    S. Watanabe, "Information theoretical analysis of multivariate correlation", IBM Journal of Research and
    Development 4, 66 (1960).
    """

    def measure(codes: Codes, factors: Factors, rng: np.random.Generator) -> Measurement:
        varying = codes.columns[codes.varies]

        def correlation(rows: np.ndarray) -> Floats:
            drawn = varying[:, rows]
            drawn = drawn[np.ptp(drawn, axis=1) > 0]
            return np.atleast_2d(np.corrcoef(drawn)) if len(drawn) else np.ones((0, 0))

        def value(matrix: Floats) -> dict[str, float]:
            eigenvalues = np.linalg.eigvalsh(matrix) if matrix.size else np.ones(1)
            return {"tc": max(0.0, -0.5 * float(np.log(np.maximum(eigenvalues, _LEAST_SHARE)).sum()))}

        matrix = varying @ varying.T / len(codes)

        def warnings() -> list[str]:
            dependent = int((np.linalg.eigvalsh(matrix) < _LEAST_SHARE).sum()) if matrix.size else 0
            found = list(codes.outliers)
            if dependent:
                found.append(
                    f"{dependent} of {len(matrix)} codes follow from the others: their total correlation is infinite, "
                    "and the value no more than a sign of it"
                )
            return found

        return Measurement(
            value(matrix),
            {"correlation": matrix, "n_active": len(matrix)},
            lambda drawing: value(correlation(drawing.integers(len(codes), size=len(codes)))),
            "rows",
            (0.0, np.inf),
            warnings=warnings,
        )

    checked = check_codes(codes)
    if checked.varies.sum() >= len(checked):
        raise InputError(
            f"codes: {len(checked)} rows of {checked.varies.sum()} codes; tc expected more rows than codes"
        )
    if factors is not None:
        known = check_factors(factors, discrete)
        check_same_rows(checked, known)
        return evaluate(measure, checked, known, seed=seed, resamples=resamples, bounds=bounds)
    # Without factors there is no ceiling; the floor needs none.
    d = checked.count
    unknown = Factors(checked.standard, np.zeros(d, dtype=bool), (None,) * d, np.zeros(d))
    score = evaluate(measure, checked, unknown, seed=seed, resamples=resamples, bounds=False)
    if not bounds:
        return score
    noise = standardise(noise_codes(len(checked), d, seed))
    floor = measure(noise, unknown, np.random.default_rng(seed)).values["tc"]
    return Score(score.value, score.ceiling, floor, score.interval, score.details)


def _agreement(similarity: Floats) -> float:
    """Return the agreement of two models from the similarities (a, b) of their codes."""
    if similarity.size == 0:
        return 0.0
    total = 0.0
    for matrix in (similarity, similarity.T):
        sums = matrix.sum(axis=0)
        total += float((matrix.max(axis=0) ** 2 / np.where(sums > 0, sums, 1.0)).sum())
    return total / sum(similarity.shape)


def _ranks(columns: Floats) -> Floats:
    """Return the ranks within each row ``(d, n)``, from 1; equal values share the mean of theirs."""
    from scipy.stats import rankdata

    return rankdata(columns, axis=1)


def _lasso_slopes(inputs: Floats, targets: Floats) -> Floats:
    """Return the absolute slopes (a, b) of lassos from all codes of one model to each code of another."""
    from sklearn.linear_model import Lasso

    slopes = np.zeros((inputs.shape[1], targets.shape[1]))
    for column in range(targets.shape[1] if inputs.size else 0):
        slopes[:, column] = np.abs(Lasso(alpha=0.1).fit(inputs, targets[:, column]).coef_)
    return slopes
