"""Entropy and mutual information, from counts and from nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma

from interpretkit.disentanglement.binning import bin_warnings, equal_mass_bins, equal_width_bins
from interpretkit.disentanglement.columns import Floats, Integers
from interpretkit.disentanglement.inputs import Codes, Factors, check_codes
from interpretkit.errors import InputError, check_count

Binning = Literal["equal width", "equal mass", "quantile"]
# Estimates of mutual information from counts are too high by about so large a share of a factor's entropy before it
# is said.
_WORTH_SAYING = 0.1


@dataclass(frozen=True)
class Discretiser:
    """How continuous codes, and continuous factors, are cut into bins; information scores depend on it.

    Attributes
    ----------
    bins : int
        The number of bins.
    binning : str
        ``"equal width"`` over each code's range, as most published scores; or ``"equal mass"``, also called
        ``"quantile"``, bins of equally many rows, on which outliers have no effect.
    """

    bins: int = 20
    binning: Binning = "equal width"

    def __post_init__(self) -> None:
        check_count("bins", self.bins, 2)
        if self.binning == "quantile":
            object.__setattr__(self, "binning", "equal mass")
        if self.binning not in ("equal width", "equal mass"):
            raise InputError(
                f"binning {self.binning!r}: expected 'equal width', or 'equal mass' (also called 'quantile')"
            )

    @property
    def equal_mass(self) -> bool:
        """Whether the bins hold equally many rows."""
        return self.binning == "equal mass"

    def cut(self, codes: Codes) -> Integers:
        """Return the bin of each code as ``(d, n)``; of a discrete code the number of its value."""
        cells = (
            equal_mass_bins(codes.standard, self.bins)
            if self.equal_mass
            else equal_width_bins(codes.standard, self.bins, codes.resolution)
        )
        for number, levels in enumerate(codes.levels):
            if levels is not None:
                cells[number] = levels
        return cells

    def classes(self, factors: Factors) -> list[Integers]:
        """Return each factor's classes ``(n,)``, numbered from 0; a continuous factor is cut into bins."""
        return factors.classes(self.bins, equal_mass=self.equal_mass)

    def factor_warnings(self, factors: Factors) -> list[str]:
        """Return what a reader should know of the bins of continuous factors."""
        return [] if self.equal_mass else list(factors.outliers)

    def __str__(self) -> str:
        return f"{self.bins} bins of {self.binning}"


class JointCounts:
    """The joint histograms of every code with every factor, which resampled rows can fill again.

    Parameters
    ----------
    codes : Codes, or array_like of float, (n, d)
        The codes.
    factors : Factors
        The factors of the same rows.
    discretiser : Discretiser
        Cuts the codes and the continuous factors.
    """

    def __init__(self, codes: Codes | ArrayLike, factors: Factors, discretiser: Discretiser) -> None:
        self.codes = check_codes(codes)
        self.factors = factors
        self.discretiser = discretiser
        self.cells = discretiser.cut(self.codes)
        self.classes: Sequence[Integers] = discretiser.classes(factors)
        self.sizes = [int(classes.max()) + 1 for classes in self.classes]
        levels = [int(found.max()) + 1 for found in self.codes.levels if found is not None]
        self.n_cells = max([discretiser.bins, *levels])

    def warnings(self) -> list[str]:
        """Return what a reader should know of the bins, and of what is estimated from so few rows."""
        found = self.discretiser.factor_warnings(self.factors)
        continuous = np.array([levels is None for levels in self.codes.levels])
        if not self.discretiser.equal_mass and continuous.any():
            bins = self.discretiser.bins
            counts = np.array([np.bincount(cells, minlength=self.n_cells)[:bins] for cells in self.cells])
            # Discrete codes are not cut: an even spread stands for them.
            counts[~continuous] = 1
            found = bin_warnings(counts, self.cells, self.codes.columns, "code") + found
        n = len(self.codes)
        # The first order of the bias (Miller and Madow); the codes of noise, the floor, show the whole of it.
        excess = np.array([(self.n_cells - 1) * (size - 1) / (2 * n) for size in self.sizes])
        entropies = np.array([label_entropy(classes) for classes in self.classes])
        shares = excess / entropies
        poor = [str(number) for number, share in enumerate(shares) if share > _WORTH_SAYING]
        if poor:
            found.append(
                f"{n} rows are few for {self.n_cells} bins: mutual information with noise is estimated at more than "
                f"{_WORTH_SAYING:.0%} of the entropy of factor {', '.join(poor)}; read the score against its floor"
            )
        return found

    def mutual_information(self, weights: Floats | None = None) -> tuple[Floats, Floats]:
        """Return the mutual information of codes and factors, and the factors' entropies, in nats.

        Parameters
        ----------
        weights : ndarray of float, (n,), optional
            How often each row counts.

        Returns
        -------
        information : ndarray of float, (d, k)
        entropies : ndarray of float, (k,)
        """
        total = float(len(self.classes[0])) if weights is None else float(weights.sum())
        information = np.empty((len(self.cells), len(self.classes)))
        entropies = np.empty(len(self.classes))
        joint = np.empty_like(self.cells[0])
        for factor, (classes, size) in enumerate(zip(self.classes, self.sizes, strict=True)):
            tables = np.empty((len(self.cells), self.n_cells * size))
            for code, cells in enumerate(self.cells):
                np.multiply(cells, size, out=joint)
                joint += classes
                tables[code] = np.bincount(joint, weights, minlength=self.n_cells * size)
            cubes = tables.reshape(len(self.cells), self.n_cells, size)
            of_factor = _n_log_n(cubes[0].sum(axis=0)).sum()
            of_codes = _n_log_n(cubes.sum(axis=2)).sum(axis=1)
            of_both = _n_log_n(tables).sum(axis=1)
            entropies[factor] = np.log(total) - of_factor / total
            information[:, factor] = np.log(total) + (of_both - of_codes - of_factor) / total
        # What rounding leaves below zero, and above it for a code that never varies, is nothing.
        information[information < 1e-12] = 0.0
        return information, entropies


def _n_log_n(counts: Floats) -> Floats:
    return counts * np.log(np.where(counts > 0, counts, 1.0))


def label_entropy(labels: Integers) -> float:
    """Return the entropy of labels ``(n,)``, numbered from 0, in nats."""
    counts = np.bincount(labels).astype(float)
    return float(np.log(len(labels)) - _n_log_n(counts).sum() / len(labels))


def neighbour_information_of_labels(
    sorted_values: Floats, sorted_labels: Integers, neighbours: int
) -> Floats:
    """Return each row's share in the mutual information of a number and a label.

    Ross's estimator for one dimension: the distance to the k-th neighbour with the same label is compared with
    the number of rows within it. In one dimension the neighbours of a row stand beside it in sorted order,
    so that sorting takes the place of a search tree.

    Parameters
    ----------
    sorted_values : ndarray of float, (n,)
        The numbers, ascending; equal ones must have been told apart by noise before.
    sorted_labels : ndarray of intp, (n,)
        The labels, in the same order.
    neighbours : int
        The k of the k-th neighbour; a label with fewer rows uses all of them.

    Returns
    -------
    ndarray of float, (m,)
        The terms, in nats, whose mean is the estimate. Labels with a single row are left out.

    References
    ----------
    B. C. Ross, "Mutual information between discrete and continuous data sets", PLoS ONE 9, e87357 (2014).
    """
    order = np.argsort(sorted_labels, kind="stable")
    counts = np.bincount(sorted_labels)
    radius = np.full(len(order), np.nan)
    within = np.zeros(len(order))
    same = np.zeros(len(order))
    start = 0
    for count in counts:
        rows = order[start : start + count]
        start += count
        if count < 2:
            continue
        k = min(neighbours, count - 1)
        own = sorted_values[rows]
        # The k nearest and the row itself are k + 1 consecutive rows; the best of the k + 1 such windows is
        # the one whose farther end is nearest.
        padded = np.concatenate([np.full(k, -np.inf), own, np.full(k, np.inf)])
        nearest = np.full(count, np.inf)
        for shift in range(k + 1):
            below, above = padded[shift : shift + count], padded[shift + k : shift + k + count]
            np.minimum(nearest, np.maximum(own - below, above - own), out=nearest)
        radius[rows] = _just_below(nearest, own)
        within[rows] = k
        same[rows] = count
    kept = same > 0
    values = sorted_values[kept]
    radius, within, same = radius[kept], within[kept], same[kept]
    inside = np.searchsorted(values, values + radius, "right") - np.searchsorted(
        values, values - radius, "left"
    )
    return digamma(len(values)) + digamma(within) - digamma(same) - digamma(np.maximum(inside, 1))


def _just_below(distance: Floats, values: Floats) -> Floats:
    """Return distances a little shorter than given, so that no sum with `values` rounds up to the neighbour."""
    rounding = 4 * np.finfo(float).eps
    return np.maximum(distance - rounding * (distance + np.abs(values)), 0.0)


def neighbour_information_of_values(first: Floats, second: Floats, neighbours: int) -> Floats:
    """Return each row's share in the mutual information of two numbers.

    Parameters
    ----------
    first, second : ndarray of float, (n,)
        The numbers, on comparable scales; equal ones must have been told apart by noise before.
    neighbours : int
        The k of the k-th neighbour.

    Returns
    -------
    ndarray of float, (n,)
        The terms, in nats, whose mean is the estimate.

    References
    ----------
    A. Kraskov, H. Stögbauer and P. Grassberger, "Estimating mutual information", Physical Review E 69, 066138
    (2004), the first estimator.
    """
    from scipy.spatial import KDTree

    points = np.column_stack([first, second])
    k = min(neighbours, len(points) - 1)
    distance, _ = KDTree(points).query(points, k=k + 1, p=np.inf)
    radius = _just_below(np.asarray(distance)[:, -1], np.abs(points).max(axis=1))
    terms = np.full(len(points), digamma(len(points)) + digamma(k))
    for values in (first, second):
        ascending = np.sort(values)
        inside = np.searchsorted(ascending, values + radius, "right") - np.searchsorted(
            ascending, values - radius, "left"
        )
        terms -= digamma(np.maximum(inside, 1))
    return terms
