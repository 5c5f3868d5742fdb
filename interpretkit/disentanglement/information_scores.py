"""Metrics that are read off the mutual information of every code with every factor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from interpretkit.disentanglement.columns import Floats, Integers
from interpretkit.disentanglement.importance import concentration
from interpretkit.disentanglement.information import (
    Binning,
    Discretiser,
    JointCounts,
    label_entropy,
    neighbour_information_of_labels,
    neighbour_information_of_values,
)
from interpretkit.disentanglement.inputs import Codes, Factors, check_pair, check_several, standardise
from interpretkit.disentanglement.learners import softmax_regression
from interpretkit.disentanglement.score import Measurement, Score, drawn_weights, evaluate
from interpretkit.errors import InputError, check_count


def mig(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    discrete: Sequence[bool | None] | bool | None = None,
    discrete_codes: Sequence[bool] | bool = False,
    bins: int = 20,
    binning: Binning = "equal width",
    resamples: int = 0,
    seed: int = 0,
    bounds: bool = True,
) -> Score:
    """Mutual information gap: how far the best code of each factor is ahead of the second best.

    The mean over factors of ``(I_1 - I_2) / H``, where ``I_1`` and ``I_2`` are the largest and the second
    largest mutual information of the factor with a code, and ``H`` is the factor's entropy. Unchanged by the
    order, the sign and the scale of the codes.

    Parameters
    ----------
    codes : array_like of float, (n, d)
        The codes, such as a VAE's posterior means.
    factors : array_like, (n, k)
        The factors of variation of the same rows.
    discrete : bool or sequence of bool, (k,), optional
        Which factors are discrete; inferred by default, see
        :func:`~interpretkit.disentanglement.inputs.check_factors`.
    discrete_codes : bool or sequence of bool, (d,)
        Whether the codes, or each of them, are discrete, such as those of a quantised latent space: each value is
        then a class of its own, and order and scale of the values mean nothing.
    bins, binning
        How continuous codes and factors are discretised; the score changes with them. See
        :class:`~interpretkit.disentanglement.information.Discretiser`.
    resamples : int
        The number of bootstrap resamples of the rows for the interval; 0 for none.
    seed : int
        The seed of the noise codes and the resamples.
    bounds : bool
        Whether to find ceiling and floor.

    Returns
    -------
    Score
        Its details hold ``mutual_information`` (d, k) and ``entropies`` (k,) in nats, the ``gaps`` (k,), the
        ``best_codes`` (k,) and the ``discretiser``.

    Raises
    ------
    InputError
        If the arrays are unusable.

    References
    ----------
    R. T. Q. Chen, X. Li, R. Grosse and D. Duvenaud, "Isolating sources of disentanglement in variational
    autoencoders", NeurIPS 2018.
    """

    def gaps(information: Floats, entropies: Floats) -> Floats:
        first, second = _two_largest(information)
        return (first - second) / entropies

    def describe(information: Floats, entropies: Floats) -> dict[str, object]:
        return {"gaps": gaps(information, entropies), "best_codes": np.array(_first_largest(information.T))}

    def value(information: Floats, entropies: Floats) -> dict[str, float]:
        return {"mig": float(gaps(information, entropies).mean())}

    measure = _of_counts(value, describe, Discretiser(bins, binning), _OTHER_BINS)
    checked = check_pair(codes, factors, discrete, discrete_codes)
    return evaluate(measure, *checked, seed=seed, resamples=resamples, bounds=bounds)


def dcimig(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    discrete: Sequence[bool | None] | bool | None = None,
    discrete_codes: Sequence[bool] | bool = False,
    bins: int = 10,
    binning: Binning = "equal width",
    resamples: int = 0,
    seed: int = 0,
    bounds: bool = True,
) -> Score:
    """DCIMIG: how much each factor owns of a code that prefers it.

    A code belongs to the factor that it tells most about, and its gap is what it tells about that factor more
    than about the next. The score is the sum over factors of the largest gap of a code of theirs, over the sum
    of the factors' entropies. Unchanged by the order, the sign and the scale of the codes.

    Parameters
    ----------
    codes, factors, discrete, discrete_codes, bins, binning, resamples, seed, bounds
        As for :func:`mig`; the reference uses 10 bins.

    Returns
    -------
    Score
        Its details hold ``mutual_information`` (d, k) and ``entropies`` (k,) in nats, the ``gaps`` (k,) and the
        ``discretiser``.

    Raises
    ------
    InputError
        If the arrays are unusable, or there is only one factor.

    References
    ----------
    A. Sepliarskaia, J. Kiseleva and M. de Rijke, "How to not measure disentanglement", arXiv:1910.05587.
    """

    def gaps(information: Floats) -> Floats:
        first, second = _two_largest(information.T)
        of_factors = np.zeros(information.shape[1])
        np.maximum.at(of_factors, _first_largest(information), first - second)
        return of_factors

    def describe(information: Floats, entropies: Floats) -> dict[str, object]:
        return {"gaps": gaps(information)}

    def value(information: Floats, entropies: Floats) -> dict[str, float]:
        return {"dcimig": float(gaps(information).sum() / entropies.sum())}

    measure = _of_counts(value, describe, Discretiser(bins, binning), _OTHER_BINS)
    checked = check_pair(codes, factors, discrete, discrete_codes)
    check_several(checked[1], "dcimig")
    return evaluate(measure, *checked, seed=seed, resamples=resamples, bounds=bounds)


def modularity(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    discrete: Sequence[bool | None] | bool | None = None,
    discrete_codes: Sequence[bool] | bool = False,
    bins: int = 20,
    binning: Binning = "equal width",
    resamples: int = 0,
    seed: int = 0,
    bounds: bool = True,
) -> Score:
    """Modularity: whether each code tells about one factor alone.

    The mean over codes of ``1 - sum of the other squared informations / (largest squared information * (k - 1))``.
    Codes of noise count like all others, and a code that tells nothing at all counts 0. Unchanged by the order,
    the sign and the scale of the codes.

    Parameters
    ----------
    codes, factors, discrete, discrete_codes, bins, binning, resamples, seed, bounds
        As for :func:`mig`.

    Returns
    -------
    Score
        Its details hold ``mutual_information`` (d, k) in nats, the modularity ``of_codes`` (d,) and the
        ``discretiser``.

    Raises
    ------
    InputError
        If the arrays are unusable, or there is only one factor.

    References
    ----------
    K. Ridgeway and M. C. Mozer, "Learning deep disentangled embeddings with the F-statistic loss", NeurIPS 2018.
    """

    def of_codes(information: Floats) -> Floats:
        squares = information**2
        largest = squares.max(axis=1)
        others = squares.sum(axis=1) - largest
        told = largest > 0
        share = others / np.where(told, largest, 1.0) / (information.shape[1] - 1)
        return np.where(told, 1 - share, 0.0)

    def describe(information: Floats, entropies: Floats) -> dict[str, object]:
        return {"of_codes": of_codes(information)}

    def value(information: Floats, entropies: Floats) -> dict[str, float]:
        return {"modularity": float(of_codes(information).mean())}

    measure = _of_counts(value, describe, Discretiser(bins, binning), _NOISE_COUNTS)
    checked = check_pair(codes, factors, discrete, discrete_codes)
    check_several(checked[1], "modularity")
    return evaluate(measure, *checked, seed=seed, resamples=resamples, bounds=bounds)


def med(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    discrete: Sequence[bool | None] | bool | None = None,
    discrete_codes: Sequence[bool] | bool = False,
    bins: int = 20,
    binning: Binning = "equal width",
    resamples: int = 0,
    seed: int = 0,
    bounds: bool = True,
) -> Score:
    """MED: DCI's disentanglement and completeness, of mutual information instead of a learner's importances.

    The importance of a code for a factor is their mutual information over the factor's entropy. Nothing is
    trained, so that the score depends on the discretiser alone. Unchanged by the order, the sign and the scale
    of the codes.

    Parameters
    ----------
    codes, factors, discrete, discrete_codes, bins, binning, resamples, seed, bounds
        As for :func:`mig`.

    Returns
    -------
    Score
        The disentanglement. Its details hold the score ``completeness``, the normalised ``importance`` (d, k)
        and the ``discretiser``.

    Raises
    ------
    InputError
        If the arrays are unusable, or there is only one factor.

    References
    ----------
    J. Cao, R. Nai, Q. Yang, J. Huang and Y. Gao, "An empirical study on disentanglement of negative-free
    contrastive learning", NeurIPS 2022.
    """

    def describe(information: Floats, entropies: Floats) -> dict[str, object]:
        return {"importance": information / entropies}

    def value(information: Floats, entropies: Floats) -> dict[str, float]:
        disentanglement, completeness = concentration(information / entropies)
        return {"disentanglement": disentanglement, "completeness": completeness}

    measure = _of_counts(value, describe, Discretiser(bins, binning), _OTHER_BINS)
    checked = check_pair(codes, factors, discrete, discrete_codes)
    check_several(checked[1], "med")
    return evaluate(measure, *checked, seed=seed, resamples=resamples, bounds=bounds)


def infomec(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    discrete: Sequence[bool | None] | bool | None = None,
    discrete_codes: Sequence[bool] | bool = False,
    neighbours: int = 10,
    active_range: float = 1 / 20,
    bins: int = 20,
    binning: Binning = "equal width",
    resamples: int = 0,
    seed: int = 0,
    bounds: bool = True,
) -> Score:
    """InfoMEC: modularity, explicitness and compactness from nearest-neighbour mutual information.

    InfoM and InfoC ask how much of the normalised mutual information of a code (a factor) belongs to one factor
    (one code), rescaled so that an even spread gives 0. InfoE is ``1 - H(factor | codes) / H(factor)``, where the
    conditional entropy is the mean log loss of an unpenalised softmax regression on the rows that it was fitted
    to; for a continuous factor it is the R² of a linear regression. No code is discretised. Unchanged by the
    order and the sign of the codes, and by one scale for all; inactive codes are found by comparing ranges.

    Parameters
    ----------
    codes, factors, discrete, discrete_codes, resamples, seed, bounds
        As for :func:`mig`. Discrete codes are counted instead, and enter the regression of InfoE as one column for
        each of their values. The interval of InfoM and InfoC weighs the rows' own terms of the estimate, with
        neighbours kept; that of InfoE the rows' log losses, with the regression kept.
    neighbours : int
        The k of the estimator's k-th nearest neighbour.
    active_range : float
        A continuous code counts for InfoM and InfoC if its range is larger than this share of the largest range.
    bins, binning
        How continuous factors are cut for the entropy that their mutual information is divided by.

    Returns
    -------
    Score
        InfoM. Its details hold the scores ``infoe`` and ``infoc``, the ``normalised_information`` (d, k), the
        ``active`` codes (d,) and the InfoE ``explicitness_of_factors`` (k,).

    Raises
    ------
    InputError
        If the arrays are unusable, or there is only one factor.

    Notes
    -----
    An active code whose estimates are all zero or below counts 0 in InfoM.

    References
    ----------
    K. Hsu, W. Dorrell, J. C. R. Whittington, J. Wu and C. Finn, "Disentanglement via latent quantization",
    NeurIPS 2023.
    """
    check_count("neighbours", neighbours, 1)
    if not 0 <= active_range < 1:
        raise InputError(f"active_range {active_range!r}: expected a share of at least 0 and below 1")

    discretiser = Discretiser(bins, binning)

    def measure(codes: Codes, factors: Factors, rng: np.random.Generator) -> Measurement:
        ranges = np.ptp(codes.columns, axis=1) * codes.relative_deviations
        counted = np.array([levels is not None for levels in codes.levels])
        largest = ranges[~counted].max(initial=0.0)
        active = codes.varies & (counted | (ranges > largest * active_range))
        terms, entropies = _neighbour_terms(codes, factors, neighbours, discretiser, rng)
        losses, nulls = _log_losses(codes, factors)

        def warnings() -> list[str]:
            found = [*codes.outliers, *discretiser.factor_warnings(factors)]
            pruned = np.flatnonzero(codes.varies & ~active)
            if len(pruned):
                found.append(
                    f"codes {', '.join(map(str, pruned))} count for neither InfoM nor InfoC: their ranges are below "
                    f"{active_range:g} of the largest"
                )
            return found

        def values(weights: Floats | None) -> dict[str, float]:
            share = np.full(len(codes), 1 / len(codes)) if weights is None else weights / weights.sum()
            normalised = np.maximum(np.einsum("n,dkn->dk", share, terms), 0.0) / entropies
            explicitness = 1 - (share @ losses) / (share @ nulls)
            kept = normalised[active]
            return {
                "infom": _largest_share(kept),
                "infoe": float(np.clip(explicitness, 0, 1).mean()),
                "infoc": _largest_share(kept.T),
            }

        normalised = np.maximum(terms.mean(axis=2), 0.0) / entropies
        return Measurement(
            values(None),
            {
                "normalised_information": normalised,
                "active": active,
                "explicitness_of_factors": np.clip(1 - losses.mean(axis=0) / nulls.mean(axis=0), 0, 1),
                "neighbours": neighbours,
            },
            lambda drawing: values(drawn_weights(drawing, len(codes))),
            "rows, with neighbours and regressions kept",
            warnings=warnings,
            above="the noise beside the exact factors counts in InfoM and InfoC, while codes that are pruned, or that "
            "repeat one another, do not",
        )

    checked = check_pair(codes, factors, discrete, discrete_codes)
    check_several(checked[1], "infomec")
    return evaluate(measure, *checked, seed=seed, resamples=resamples, bounds=bounds)


_Value = Callable[[Floats, Floats], dict[str, float]]
_Describe = Callable[[Floats, Floats], Mapping[str, object]]


def _of_counts(
    value: _Value, describe: _Describe, discretiser: Discretiser, above: str
) -> Callable[[Codes, Factors, np.random.Generator], Measurement]:
    """Return the measure that counts codes and factors together and calls `value` on their information."""

    def measure(codes: Codes, factors: Factors, rng: np.random.Generator) -> Measurement:
        counts = JointCounts(codes, factors, discretiser)
        information, entropies = counts.mutual_information()
        return Measurement(
            value(information, entropies),
            {
                "mutual_information": information,
                "entropies": entropies,
                "discretiser": str(discretiser),
                **describe(information, entropies),
            },
            lambda drawing: value(*counts.mutual_information(drawn_weights(drawing, len(codes)))),
            "rows, with bins kept",
            warnings=counts.warnings,
            above=above,
        )

    return measure


# How codes can score above the exact factors beside noise.
_OTHER_BINS = (
    "bins of equal width part the exact factors, evenly spread, worse than codes whose values lie otherwise"
)
_NOISE_COUNTS = "the noise beside the exact factors counts; codes that repeat or mix factors may do better"


def _first_largest(rows: Floats) -> list[int]:
    """Return the place of each row's largest entry; of those that are equal but for rounding, the first."""
    near = rows >= rows.max(axis=1, keepdims=True) * (1 - 1e-9)
    return near.argmax(axis=1).tolist()


def _two_largest(information: Floats) -> tuple[Floats, Floats]:
    """Return the largest and second largest of each column; without a second, that is 0."""
    if len(information) == 1:
        return information[0], np.zeros(information.shape[1])
    two = np.partition(information, len(information) - 2, axis=0)[-2:]
    return two[1], two[0]


def _largest_share(rows: Floats) -> float:
    """Return the mean over rows of the largest entry over their sum, 0 for an even spread and 1 for a single one."""
    if rows.size == 0:
        return 0.0
    if rows.shape[1] == 1:
        return 1.0
    sums = rows.sum(axis=1)
    even = 1 / rows.shape[1]
    share = np.where(sums > 0, rows.max(axis=1) / np.where(sums > 0, sums, 1.0), 0.0)
    return float(np.clip((share.mean() - even) / (1 - even), 0.0, 1.0))


def _neighbour_terms(
    codes: Codes, factors: Factors, neighbours: int, discretiser: Discretiser, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return the rows' terms of the mutual information (d, k, n), and the factors' entropies (k,)."""
    n = len(codes)
    terms = np.zeros((codes.count, factors.count, n))
    classes = discretiser.classes(factors)
    entropies = np.array([label_entropy(of_factor) for of_factor in classes])
    # A distance of zero between equal values would make the estimate infinite. The codes share what tells their
    # equal values apart, so that their order does not matter.
    exact = factors.as_codes()
    blurred_factors = exact + 1e-10 * rng.standard_normal(exact.shape)
    blur = 1e-10 * rng.standard_normal(n)
    for code in np.flatnonzero(codes.varies):
        cells = codes.levels[code]
        if cells is not None:
            for factor, levels in enumerate(factors.levels):
                if levels is None:
                    terms[code, factor] = _terms_of_labels(blurred_factors[:, factor], cells, neighbours)
                else:
                    terms[code, factor] = _terms_of_counts(cells, levels)
            continue
        blurred = codes.columns[code] + blur
        order = np.argsort(blurred)
        for factor, levels in enumerate(factors.levels):
            if levels is None:
                terms[code, factor] = neighbour_information_of_values(
                    blurred, blurred_factors[:, factor], neighbours
                )
            else:
                terms[code, factor] = _terms_of_labels(blurred, levels, neighbours, order)
    return terms, entropies


def _terms_of_labels(
    values: Floats, labels: Integers, neighbours: int, order: Integers | None = None
) -> Floats:
    """Return each row's term of the mutual information of a number and a label, (n,)."""
    order = np.argsort(values) if order is None else order
    found = neighbour_information_of_labels(values[order], labels[order], neighbours)
    # Labels with a single row give no term; the others stand for them.
    counted = (np.bincount(labels) > 1)[labels[order]]
    terms = np.empty(len(values))
    terms[order] = np.where(counted, 0.0, found.mean() if len(found) else 0.0)
    terms[order[counted]] = found
    return terms


def _terms_of_counts(first: Integers, second: Integers) -> Floats:
    """Return each row's term of the mutual information of two labels, (n,), whose mean it is."""
    size = int(second.max()) + 1
    joint = first * size + second
    together = np.bincount(joint)[joint]
    return np.log(together * len(first) / (np.bincount(first)[first] * np.bincount(second)[second]))


def _log_losses(codes: Codes, factors: Factors) -> tuple[Floats, Floats]:
    """Return each row's loss given the codes, and given nothing, (n, k): log losses, or squared errors."""
    inputs = codes.standard
    if any(levels is not None for levels in codes.levels):
        # A discrete code tells by which value it has: a column for each, all but the last.
        inputs = np.column_stack(
            [
                column if levels is None else levels[:, None] == np.arange(levels.max())
                for column, levels in zip(codes.columns, codes.levels, strict=True)
            ]
        ).astype(float)
        inputs = standardise(inputs).standard
    losses = np.empty((len(codes), factors.count))
    nulls = np.empty_like(losses)
    for factor, levels in enumerate(factors.levels):
        if levels is None:
            values = factors.values[:, factor]
            solution = np.linalg.lstsq(inputs, values, rcond=None)[0]
            losses[:, factor] = (values - inputs @ solution) ** 2
            nulls[:, factor] = values**2
        else:
            model = softmax_regression(inputs, levels, penalty=0.0)
            losses[:, factor] = model.log_loss(inputs, levels)
            nulls[:, factor] = -np.log(np.bincount(levels)[levels] / len(levels))
    return losses, nulls
