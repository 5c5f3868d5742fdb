"""Metrics that ask how well a learner predicts the factors from the codes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpretkit.disentanglement.binning import outliers_drawn_in
from interpretkit.disentanglement.columns import Floats, Integers
from interpretkit.disentanglement.importance import concentration
from interpretkit.disentanglement.information import Binning, Discretiser
from interpretkit.disentanglement.inputs import Codes, Factors, check_pair, check_several
from interpretkit.disentanglement.learners import RocCurves, SortedCode, softmax_regression
from interpretkit.disentanglement.score import Measurement, Score, drawn_weights, evaluate, split_rows
from interpretkit.errors import InputError, check_count

# Of standardised numbers, a deviation below this is what rounding leaves.
_ROUNDING = 1e-12
# A leaf of DCI's trees holds at least one in so many of the rows learnt from, and no more than ten need be: larger
# leaves could not tell the values of a factor apart, smaller ones let noise be important.
_LEAVES = 20
_LARGEST_LEAF = 10
_FEW_ROWS = 200
Learner = Literal["extra trees", "gradient boosting"]


def sap(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    discrete: Sequence[bool | None] | bool | None = None,
    penalty: float = 0.01,
    standardise: bool = True,
    resamples: int = 0,
    seed: int = 0,
    bounds: bool = True,
) -> Score:
    """Separated attribute predictability: the gap between the two single codes that predict a factor best.

    A discrete factor is predicted by a linear support vector machine on one code at a time (balanced classes); its
    score is the accuracy on the third of the rows that was held out. A continuous factor is predicted by linear
    regression; its score is R². The two are not comparable: the details give a mean over each kind. Linear
    machines on one code part few classes, hence the low ceilings. Unchanged by the order, the sign, the shift and
    the scale of the codes, and by shift, sign and scale of continuous factors.

    Parameters
    ----------
    codes, factors, discrete, seed, bounds
        As for :func:`~interpretkit.disentanglement.mig`; the seed also draws the held-out rows.
    penalty : float
        The C of the support vector machines.
    standardise : bool
        Whether to scale every code to a standard deviation of 1. Published scores do not, so that the machines'
        penalty knows the scale of the codes; without it the score changes with their scale, though not with a shift.
    resamples : int
        The number of bootstrap resamples of the held-out rows (of all rows for R²), the learners kept.

    Returns
    -------
    Score
        Its details hold the ``score_matrix`` (d, k), the ``gaps`` (k,), ``discrete`` (k,), ``of_discrete`` and
        ``of_continuous``, the means over factors of a kind or None, and ``learner``.

    Raises
    ------
    InputError
        If the arrays are unusable.

    References
    ----------
    A. Kumar, P. Sattigeri and A. Balakrishnan, "Variational inference of disentangled latent concepts from
    unlabeled observations", ICLR 2018.
    """
    if not 0 < penalty < np.inf:
        raise InputError(f"penalty {penalty!r}: expected a finite number above 0")

    def measure(codes: Codes, factors: Factors, rng: np.random.Generator) -> Measurement:
        learn, test = split_rows(rng, len(codes))
        width, k = codes.count, factors.count
        columns = codes.columns if standardise else codes.columns * codes.deviations[:, None]
        correct = np.zeros((len(test), width, k))
        learnt = [_present(levels, learn) for levels in factors.levels]
        for code in range(width):
            sorted_code = SortedCode(columns[code, learn])
            for factor, labels in enumerate(learnt):
                if labels is not None:
                    model = sorted_code.separate(labels.numbers, penalty=penalty)
                    predicted = labels.original[model.predict(columns[code, test][:, None])]
                    correct[:, code, factor] = predicted == labels.all[test]

        def matrix(test_weights: Floats, row_weights: Floats | None) -> Floats:
            scores = np.einsum("n,ndk->dk", test_weights / test_weights.sum(), correct)
            if not factors.discrete.all():
                squared = _squared_correlations(codes.standard, factors.values, row_weights)
                scores = np.where(factors.discrete, scores, squared)
            return scores

        def resample(drawing: np.random.Generator) -> Mapping[str, float]:
            rows = None if factors.discrete.all() else drawn_weights(drawing, len(codes))
            return {"sap": float(_gaps(matrix(drawn_weights(drawing, len(test)), rows)).mean())}

        scores = matrix(np.ones(len(test)), None)
        gaps = _gaps(scores)
        kinds = {"of_discrete": factors.discrete, "of_continuous": ~factors.discrete}
        return Measurement(
            {"sap": float(gaps.mean())},
            {
                "score_matrix": scores,
                "gaps": gaps,
                "discrete": factors.discrete,
                **{name: float(gaps[kind].mean()) if kind.any() else None for name, kind in kinds.items()},
                "learner": f"linear support vector machine (C = {penalty:g}) if discrete, linear regression if not",
                "standardised": standardise,
            },
            resample,
            "held-out rows, with learners kept (for R² all rows)",
            warnings=lambda: [*codes.outliers, *factors.outliers],
            above="a linear machine parts few values of the exact factors, evenly spread, and more of codes whose "
            "values lie otherwise",
        )

    return evaluate(
        measure, *check_pair(codes, factors, discrete), seed=seed, resamples=resamples, bounds=bounds
    )


def dci(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    discrete: Sequence[bool | None] | bool | None = None,
    learner: Learner = "extra trees",
    trees: int | None = None,
    resamples: int = 0,
    seed: int = 0,
    bounds: bool = True,
    threads: int = 1,
) -> Score:
    """DCI: disentanglement, completeness and informativeness, from what a learner finds important.

    Disentanglement is one minus the entropy, to the base of the number of factors, of what a code is important
    for, weighted by the code's share in all importance; completeness the same with codes and factors exchanged.
    Informativeness is the accuracy on held-out rows (R² for a continuous factor), not the error. The score
    depends on the learner, which sees standardised codes with outliers drawn in. Unchanged by shift and scale of
    the codes and of continuous factors; by the order and the sign of the codes up to the learner's own randomness.

    Parameters
    ----------
    codes, factors, discrete, seed, bounds
        As for :func:`~interpretkit.disentanglement.mig`; the seed also draws the held-out third of the rows.
    learner : str
        ``"extra trees"``, extremely randomised trees that look at all codes in every split, fast, with leaves of at
        least ten rows (of a twentieth of the rows learnt from, if that is less); or ``"gradient
        boosting"``, the reference of published scores, some hundred times slower.
    trees : int, optional
        The number of trees, or of boosting rounds; 10 or 100 by default.
    resamples : int
        The number of bootstrap resamples of the rows, with the trees' splits kept and importances computed anew.
        Gradient boosting gets an interval for informativeness alone.
    threads : int
        How many trees are grown at a time; the result does not depend on it.

    Returns
    -------
    Score
        The disentanglement. Its details hold the scores ``completeness`` and ``informativeness``, the
        ``importance`` (d, k), ``informativeness_of_factors`` (k,) and the ``learner``.

    Raises
    ------
    InputError
        If the arrays are unusable, there is only one factor, or the learner is unknown.

    References
    ----------
    C. Eastwood and C. K. I. Williams, "A framework for the quantitative evaluation of disentangled
    representations", ICLR 2018. P. Geurts, D. Ernst and L. Wehenkel, "Extremely randomized trees", Machine
    Learning 63, 3 (2006).
    """
    if learner not in ("extra trees", "gradient boosting"):
        raise InputError(f"learner {learner!r}: expected 'extra trees' or 'gradient boosting'")
    size = check_count("trees", trees if trees is not None else (10 if learner == "extra trees" else 100), 1)
    boosted = learner == "gradient boosting"

    def measure(codes: Codes, factors: Factors, rng: np.random.Generator) -> Measurement:
        learn, test = split_rows(rng, len(codes))
        # Thresholds are drawn from the range of a code, most of them in vain where a few rows set it. Trees work in
        # single precision, and take what is small in absolute terms for constant.
        near = outliers_drawn_in(codes.columns).T.astype(np.float32, order="C")
        seen, asked = near[learn], near[test]
        leaf = min(_LARGEST_LEAF, max(1, round(len(learn) / _LEAVES)))
        importance = np.zeros((codes.count, factors.count))
        right = np.zeros((len(test), factors.count))
        models = []
        state = int(rng.integers(2**31))
        for factor, levels in enumerate(factors.levels):
            target = factors.values[:, factor] if levels is None else levels
            model = _trees(boosted, levels is not None, size, state, threads, leaf)
            with warnings.catch_warnings():
                # Classes of few rows are looked for at the beginning, and told.
                warnings.filterwarnings("ignore", "The number of unique classes")
                model.fit(seen, target[learn])
            predicted = model.predict(asked)
            if levels is None:
                right[:, factor] = (target[test] - predicted) ** 2
            else:
                right[:, factor] = predicted == target[test]
            with np.errstate(invalid="ignore"):
                # Without a split nothing is important, which is a division of zero by zero there.
                importance[:, factor] = np.nan_to_num(model.feature_importances_)
            models.append(model)

        @cache
        def forests() -> list[_Forest]:
            return [
                _Forest(
                    model,
                    seen,
                    factors.values[learn, factor] if levels is None else levels[learn],
                    levels is not None,
                )
                for factor, (model, levels) in enumerate(zip(models, factors.levels, strict=True))
            ]

        def informativeness(weights: Floats) -> Floats:
            means = weights @ right / weights.sum()
            for factor in np.flatnonzero(~factors.discrete):
                values = factors.values[test, factor]
                centre = weights @ values / weights.sum()
                spread = weights @ (values - centre) ** 2 / weights.sum()
                means[factor] = max(0.0, 1 - means[factor] / spread) if spread > 0 else 0.0
            return means

        def resample(drawing: np.random.Generator) -> Mapping[str, float]:
            found = {"informativeness": float(informativeness(drawn_weights(drawing, len(test))).mean())}
            if boosted:
                return found
            weights = drawn_weights(drawing, len(learn))
            again = np.column_stack([forest.importance(weights) for forest in forests()])
            disentanglement, completeness = concentration(again)
            return {"disentanglement": disentanglement, "completeness": completeness, **found}

        def warn() -> list[str]:
            few = len(codes) < _FEW_ROWS
            return (
                list(factors.outliers)
                + [
                    f"{len(codes)} rows are few for a learner: codes of noise get some importance by chance; read the "
                    "score against its floor and ceiling"
                ]
                * few
            )

        disentanglement, completeness = concentration(importance)
        of_factors = informativeness(np.ones(len(test)))
        return Measurement(
            {
                "disentanglement": disentanglement,
                "completeness": completeness,
                "informativeness": float(of_factors.mean()),
            },
            {
                "importance": importance,
                "informativeness_of_factors": of_factors,
                "learner": f"{learner}, {size} {'rounds' if boosted else 'trees'}",
                **({} if boosted else {"rows_per_leaf": leaf}),
            },
            resample,
            "held-out rows, with the learner kept"
            + ("" if boosted else ", and learnt rows, with splits kept"),
            warnings=warn,
            above="importances hang on the learner's chance, and the noise beside the exact factors gets some of them",
        )

    checked = check_pair(codes, factors, discrete)
    check_several(checked[1], "dci")
    return evaluate(measure, *checked, seed=seed, resamples=resamples, bounds=bounds)


def explicitness(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    discrete: Sequence[bool | None] | bool | None = None,
    bins: int = 10,
    binning: Binning = "equal mass",
    rescale: bool = False,
    resamples: int = 0,
    seed: int = 0,
    bounds: bool = True,
) -> Score:
    """Explicitness: how well a linear classifier finds each value of each factor, as area under the ROC curve.

    A softmax regression (slopes penalised as by C = 1) on the standardised codes predicts the factor; the area is
    that of each value against the others on the held-out third of the rows, averaged over values and then over
    factors. Chance is 0.5. Unchanged by the order, the sign, the shift and the scale of the codes, and by rotations
    of standardised codes.

    Parameters
    ----------
    codes, factors, discrete, seed, bounds
        As for :func:`~interpretkit.disentanglement.mig`; the seed also draws the held-out rows.
    bins, binning
        A continuous factor is cut into so many classes, of equally many rows by default.
    rescale : bool
        Whether to return ``2 (area - 0.5)``, as some authors do, so that chance is 0.
    resamples : int
        The number of bootstrap resamples of the held-out rows, with the classifier kept.

    Returns
    -------
    Score
        Its details hold the area ``of_factors`` (k,) and the ``learner``.

    Raises
    ------
    InputError
        If the arrays are unusable.

    References
    ----------
    K. Ridgeway and M. C. Mozer, "Learning deep disentangled embeddings with the F-statistic loss", NeurIPS 2018.
    """
    discretiser = Discretiser(bins, binning)

    def measure(codes: Codes, factors: Factors, rng: np.random.Generator) -> Measurement:
        learn, test = split_rows(rng, len(codes))
        learnt = codes.standard[learn]
        deviation = learnt.std(axis=0)
        centred = codes.standard - learnt.mean(axis=0)
        scaled = np.where(
            deviation > _ROUNDING, centred / np.where(deviation > _ROUNDING, deviation, 1.0), 0.0
        )
        curves = []
        for classes in discretiser.classes(factors):
            labels = _present(classes, learn)
            assert labels is not None
            model = softmax_regression(scaled[learn], labels.numbers)
            logits = model.decide(scaled[test])
            logits = logits - logits.max(axis=1, keepdims=True)
            probabilities = np.exp(logits)
            probabilities /= probabilities.sum(axis=1, keepdims=True)
            curves.append(RocCurves(probabilities, classes[test][:, None] == labels.original))

        def areas(weights: Floats | None) -> Floats:
            found = []
            for curve in curves:
                of_values = curve.areas(weights)
                # A value that the held-out rows lack has no area.
                present = of_values[np.isfinite(of_values)]
                found.append(present.mean() if len(present) else 0.5)
            return 2 * np.array(found) - 1 if rescale else np.array(found)

        of_factors = areas(None)
        return Measurement(
            {"explicitness": float(of_factors.mean())},
            {"of_factors": of_factors, "learner": "softmax regression, C = 1", "rescaled": rescale},
            lambda drawing: {"explicitness": float(areas(drawn_weights(drawing, len(test))).mean())},
            "held-out rows, with the classifier kept",
            (-1.0, 1.0) if rescale else (0.0, 1.0),
            warnings=lambda: [*codes.outliers, *discretiser.factor_warnings(factors)],
            above="a linear classifier finds the values of the exact factors, evenly spread, worse than those of codes "
            "that lie otherwise",
        )

    return evaluate(
        measure, *check_pair(codes, factors, discrete), seed=seed, resamples=resamples, bounds=bounds
    )


@dataclass(frozen=True)
class _Labels:
    """The labels of the rows learnt from, numbered without a gap.

    Attributes
    ----------
    numbers : ndarray of intp, (m,)
        Numbers of the rows learnt from.
    original : ndarray of intp, (c,)
        The label that each number stands for.
    all : ndarray of intp, (n,)
        The labels of all rows, as they were.
    """

    numbers: Integers
    original: Integers
    all: Integers


def _present(labels: Integers | None, rows: Integers) -> _Labels | None:
    if labels is None:
        return None
    original = np.unique(labels[rows])
    return _Labels(np.searchsorted(original, labels[rows]), original, labels)


def _gaps(scores: Floats) -> Floats:
    """Return each column's largest entry less its second largest, (k,); without a second, that is 0."""
    if len(scores) == 1:
        return scores[0]
    two = np.partition(scores, len(scores) - 2, axis=0)[-2:]
    return two[1] - two[0]


def _squared_correlations(codes: Floats, factors: Floats, weights: Floats | None) -> Floats:
    """Return the squared correlation of every code with every factor, (d, k); 0 for a code that never varies.

    Codes and factors have a standard deviation of 1 over all rows, so that what is left of one by rounding, where
    the weighted rows do not vary, is told by its size.
    """
    share = np.full(len(codes), 1 / len(codes)) if weights is None else weights / weights.sum()
    x, y = codes - share @ codes, factors - share @ factors
    covariance = (x * share[:, None]).T @ y
    of_codes, of_factors = share @ x**2, share @ y**2
    vary = np.outer(of_codes > _ROUNDING**2, of_factors > _ROUNDING**2)
    return np.where(vary, covariance**2 / np.where(vary, np.outer(of_codes, of_factors), 1.0), 0.0)


def _trees(boosted: bool, classify: bool, size: int, state: int, threads: int, leaf: int) -> Any:
    from sklearn.ensemble import (
        ExtraTreesClassifier,
        ExtraTreesRegressor,
        GradientBoostingClassifier,
        GradientBoostingRegressor,
    )

    if boosted:
        kind = GradientBoostingClassifier if classify else GradientBoostingRegressor
        return kind(n_estimators=size, random_state=state)
    kind: Any = ExtraTreesClassifier if classify else ExtraTreesRegressor
    # With all codes to choose from in every split, noise gets hardly any importance.
    return kind(
        n_estimators=size,
        max_features=None,
        min_samples_leaf=leaf,
        random_state=state,
        n_jobs=threads if threads > 1 else None,
    )


class _Forest:
    """A fitted forest whose importances can be computed for rows weighted anew, with its splits kept."""

    def __init__(self, model: Any, codes: NDArray[np.float32], target: np.ndarray, classify: bool) -> None:
        self.width = codes.shape[1]
        self.classify = classify
        self.target = np.searchsorted(np.unique(target), target) if classify else target - target.mean()
        self.classes = int(self.target.max()) + 1 if classify else 0
        self.leaves = model.apply(codes).astype(np.intp)
        self.trees = [estimator.tree_ for estimator in model.estimators_]
        self.ends = [_subtree_ends(tree) for tree in self.trees]

    def importance(self, weights: Floats) -> Floats:
        """Return the mean decrease in impurity by each code, (d,), summing to 1 for every tree that has split."""
        total = np.zeros(self.width)
        for number, tree in enumerate(self.trees):
            impurity = self._impurity(self.leaves[:, number], self.ends[number], weights)
            split = np.flatnonzero(tree.children_left >= 0)
            decrease = (
                impurity[split] - impurity[tree.children_left[split]] - impurity[tree.children_right[split]]
            )
            found = np.bincount(tree.feature[split], np.maximum(decrease, 0.0), minlength=self.width)
            if found.sum() > 0:
                total += found / found.sum()
        return total / len(self.trees)

    def _impurity(self, leaves: Integers, ends: Integers, weights: Floats) -> Floats:
        """Return the impurity of every node times the weight of its rows."""
        nodes = len(ends)
        if self.classify:
            cells = np.bincount(leaves * self.classes + self.target, weights, nodes * self.classes).astype(
                float
            )
            sums = _over_subtrees(cells.reshape(nodes, self.classes), ends)
            weight = sums.sum(axis=1)
            return weight - (sums**2).sum(axis=1) / np.where(weight > 0, weight, 1.0)
        moments = (weights, weights * self.target, weights * self.target**2)
        cells = np.column_stack([np.bincount(leaves, moment, nodes).astype(float) for moment in moments])
        weight, first, second = _over_subtrees(cells, ends).T
        return second - first**2 / np.where(weight > 0, weight, 1.0)


def _subtree_ends(tree: Any) -> Integers:
    """Return the number after the last node of every node's subtree; trees are stored depth first."""
    left, right = tree.children_left.tolist(), tree.children_right.tolist()
    ends = list(range(1, tree.node_count + 1))
    for node in range(tree.node_count - 1, -1, -1):
        if left[node] >= 0:
            ends[node] = max(ends[left[node]], ends[right[node]])
    return np.array(ends)


def _over_subtrees(of_leaves: Floats, ends: Integers) -> Floats:
    """Sum what leaves hold over the subtree of every node, which is a stretch of consecutive nodes."""
    sums = np.zeros((len(ends) + 1, of_leaves.shape[1]))
    np.cumsum(of_leaves, axis=0, out=sums[1:])
    return sums[ends] - sums[:-1]
