"""The learners that metrics are defined by, each exact and fast enough to be run hundreds of times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interpretkit.disentanglement.columns import Floats, Integers


@dataclass(frozen=True)
class LinearClassifier:
    """Classes by the largest of several linear functions.

    Attributes
    ----------
    slopes : ndarray of float, (d, c)
        One column per class.
    offsets : ndarray of float, (c,)
        The functions' values at zero.
    """

    slopes: NDArray[np.floating]
    offsets: NDArray[np.floating]

    def decide(self, codes: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the linear functions' values, ``(n, c)``."""
        return codes @ self.slopes + self.offsets

    def predict(self, codes: NDArray[np.floating]) -> Integers:
        """Return the class of each row of `codes` ``(n, d)``."""
        return self.decide(codes).argmax(axis=1)

    def log_loss(self, codes: NDArray[np.floating], labels: Integers) -> Floats:
        """Return the negative log probability of each row's label ``(n,)`` under a softmax, in nats."""
        logits = self.decide(codes).astype(float)
        logits -= logits.max(axis=1, keepdims=True)
        return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]


def softmax_regression(
    codes: Floats,
    labels: Integers,
    *,
    penalty: float = 1.0,
    max_iterations: int = 100,
    tolerance: float = 1e-4,
) -> LinearClassifier:
    """Fit a multinomial logistic regression.

    Minimises the mean log loss plus ``penalty / (2 n)`` times the sum of the squared slopes, which is the objective
    of scikit-learn's ``LogisticRegression`` with ``C = 1 / penalty``, in single precision and without its copies.

    Parameters
    ----------
    codes : ndarray of float, (n, d)
        The codes, standardised or nearly so.
    labels : ndarray of intp, (n,)
        The classes, numbered from 0.
    penalty : float
        The weight of the squared slopes; 0 for none.
    max_iterations : int
        At most so many steps of L-BFGS.
    tolerance : float
        The steps end when no entry of the gradient is larger.
    """
    from scipy.optimize import minimize

    rows, width = codes.shape
    classes = int(labels.max()) + 1
    inputs = np.hstack([codes, np.ones((rows, 1))])
    # The sum of the logits of the labels is linear in the weights, so that nothing is looked up row by row.
    fixed = np.column_stack([np.bincount(labels, column, minlength=classes) for column in inputs.T])
    # A class to a row, and few enough columns for a processor's cache: sums over classes are then sums of vectors.
    blocks = [
        (np.ascontiguousarray(block.T), block)
        for block in np.array_split(inputs.astype(np.float32), max(1, round(rows / 2000)))
    ]

    def objective(parameters: Floats) -> tuple[float, Floats]:
        weights = parameters.reshape(classes, width + 1)
        single = weights.astype(np.float32)
        loss = -float((fixed * weights).sum())
        gradient = -fixed
        for across, along in blocks:
            logits = single @ across
            highest = logits.max(axis=0)
            logits -= highest
            np.exp(logits, out=logits)
            sums = logits.sum(axis=0)
            loss += float(np.log(sums).sum(dtype=float) + highest.sum(dtype=float))
            logits /= sums
            gradient += logits @ along
        slopes = weights[:, :-1]
        gradient[:, :-1] += penalty * slopes
        return (loss + 0.5 * penalty * float((slopes**2).sum())) / rows, gradient.ravel() / rows

    found = minimize(
        objective,
        np.zeros(classes * (width + 1)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iterations, "gtol": tolerance, "ftol": 1e-9, "maxls": 30},
    )
    weights = found.x.reshape(classes, width + 1).T
    return LinearClassifier(weights[:-1], weights[-1])


class SortedCode:
    """One code, sorted once, so that linear support vector machines on it cost a few look-ups a step.

    Parameters
    ----------
    values : ndarray of float, (n,)
        The code.
    """

    def __init__(self, values: Floats) -> None:
        self.order = np.argsort(values, kind="stable")
        self.ascending = values[self.order]
        ones = np.ones_like(self.ascending)
        self.moments = np.stack([ones, self.ascending, self.ascending**2])
        self.totals = _running_sums(self.moments)

    def separate(
        self, labels: Integers, *, penalty: float = 0.01, max_steps: int = 60, tolerance: float = 1e-9
    ) -> LinearClassifier:
        """Fit linear support vector machines, each of one class against the others.

        The problem is that of scikit-learn's ``LinearSVC(C=penalty, class_weight="balanced")`` on a single
        feature: squared hinge loss, offset penalised like the slope, rows of a class weighted by the inverse of
        its frequency where it is the positive one. In one dimension the rows within the margin are those on one
        side of a threshold, so that Newton's method needs only running sums of 1, x and x² over the sorted rows.

        Parameters
        ----------
        labels : ndarray of intp, (n,)
            The classes, numbered from 0 without a gap.
        penalty : float
            The C of the support vector machine.
        max_steps, tolerance
            Newton's method ends after so many steps, or when no entry of the gradient is larger.

        Returns
        -------
        LinearClassifier
            With slopes ``(1, c)``.
        """
        rows = len(labels)
        sorted_labels = labels[self.order]
        counts = np.bincount(labels)
        by_class = np.argsort(sorted_labels, kind="stable")
        keys = sorted_labels[by_class] * (rows + 1) + by_class
        own_sums = _running_sums(self.moments[:, by_class])
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        ends = starts + counts
        balance = rows / (len(counts) * counts)
        chosen = np.arange(len(counts))
        against = np.ones(len(counts))
        if len(counts) == 2:
            # Two classes are one problem, in which both are weighted.
            chosen, against = chosen[1:], balance[:1]
        for_class = balance[chosen]
        start, end = starts[chosen], ends[chosen]
        own_total = own_sums[:, end] - own_sums[:, start]

        def below(threshold: Floats) -> tuple[Floats, Floats]:
            """Return the sums over all rows, and over the class's own, with values below a threshold, (3, c)."""
            position = np.searchsorted(self.ascending, threshold)
            own = np.searchsorted(keys, chosen * (rows + 1) + position)
            return self.totals[:, position], own_sums[:, own] - own_sums[:, start]

        def active(slope: Floats, offset: Floats) -> tuple[Floats, Floats]:
            """Return the sums over the class's rows within the margin, and over the others', (3, c)."""
            safe = np.where(slope == 0, 1e-300, slope)
            with np.errstate(over="ignore"):
                upper, lower = (1 - offset) / safe, (-1 - offset) / safe
            up = safe > 0
            own = below(upper)[1]
            positive = np.where(up, own, own_total - own)
            every, own = below(lower)
            others = every - own
            negative = np.where(up, self.totals[:, -1:] - own_total - others, others)
            return positive, negative

        def objective(slope: Floats, offset: Floats) -> tuple[Floats, Floats, Floats]:
            positive, negative = active(slope, offset)
            loss = (
                0.5 * (slope**2 + offset**2)
                + penalty * for_class * _squares(positive, slope, offset - 1)
                + penalty * against * _squares(negative, slope, offset + 1)
            )
            return loss, positive, negative

        slope, offset = np.zeros(len(chosen)), np.zeros(len(chosen))
        loss, positive, negative = objective(slope, offset)
        for _ in range(max_steps):
            first = penalty * for_class * positive
            second = penalty * against * negative
            n, sx, sxx = 2 * (first + second)
            gradient_slope = slope + sxx * slope + sx * offset + 2 * (second[1] - first[1])
            gradient_offset = offset + sx * slope + n * offset + 2 * (second[0] - first[0])
            if max(np.abs(gradient_slope).max(), np.abs(gradient_offset).max()) < tolerance * max(
                1.0, penalty * rows
            ):
                break
            determinant = (1 + sxx) * (1 + n) - sx**2
            step_slope = ((1 + n) * gradient_slope - sx * gradient_offset) / determinant
            step_offset = ((1 + sxx) * gradient_offset - sx * gradient_slope) / determinant
            length = np.ones(len(chosen))
            tried = slope - step_slope, offset - step_offset
            found = objective(*tried)
            for _ in range(30):
                worse = found[0] > loss * (1 + 1e-12) + 1e-15
                if not worse.any():
                    break
                length = np.where(worse, length / 2, length)
                tried = slope - length * step_slope, offset - length * step_offset
                found = objective(*tried)
            slope, offset = tried
            loss, positive, negative = found
        if len(counts) == 2:
            slope, offset = np.concatenate([-slope, slope]), np.concatenate([-offset, offset])
        return LinearClassifier(slope[None, :], offset)


def _squares(sums: Floats, slope: Floats, shift: Floats) -> Floats:
    """Return the sum of ``(slope x + shift)²`` from the sums of 1, x and x²."""
    return sums[0] * shift**2 + 2 * sums[1] * slope * shift + sums[2] * slope**2


def _running_sums(values: Floats) -> Floats:
    """Return sums over the first 0, 1, … columns, (r, n + 1)."""
    sums = np.zeros((len(values), values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


def area_under_curve(scores: Floats, positive: NDArray[np.bool_], weights: Floats | None = None) -> Floats:
    """Return the area under the ROC curve of each column.

    Parameters
    ----------
    scores : ndarray of float, (n, c)
        A column per classifier.
    positive : ndarray of bool, (n, c)
        Which rows each should score high.
    weights : ndarray of float, (n,), optional
        How often each row counts.

    Returns
    -------
    ndarray of float, (c,)
        The probability that a positive row is scored above a negative one, half of it for equal scores; NaN where
        a column lacks either.
    """
    return RocCurves(scores, positive).areas(weights)


class RocCurves:
    """ROC curves whose rows can be weighted anew without sorting again; see :func:`area_under_curve`."""

    def __init__(self, scores: Floats, positive: NDArray[np.bool_]) -> None:
        columns = np.ascontiguousarray(scores.T)
        self.order = np.argsort(columns, axis=1)
        ordered = np.take_along_axis(columns, self.order, axis=1)
        self.positive = np.take_along_axis(np.ascontiguousarray(positive.T), self.order, axis=1)
        # Equal scores share the middle of the ranks that they take.
        self.new = np.ones(ordered.shape, dtype=bool)
        self.new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        self.tied = np.flatnonzero((~self.new).any(axis=1))

    def areas(self, weights: Floats | None = None) -> Floats:
        """Return the area under each curve, ``(c,)``, the rows weighted by `weights` ``(n,)``."""
        weight = np.ones(self.order.shape) if weights is None else weights[self.order]
        negative = np.where(self.positive, 0.0, weight)
        below = np.cumsum(negative, axis=1)
        middle = below - 0.5 * negative
        for row in self.tied:
            group = np.cumsum(self.new[row]) - 1
            sums = np.bincount(group, negative[row])
            middle[row] = (np.cumsum(sums) - 0.5 * sums)[group]
        positive = weight - negative
        wins = (positive * middle).sum(axis=1)
        possible = positive.sum(axis=1) * below[:, -1]
        return np.where(possible > 0, wins / np.where(possible > 0, possible, 1.0), np.nan)
