"""Codes and factors as plain arrays, checked once and brought into the form that every metric reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpretkit.errors import InputError

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

MIN_ROWS = 20
# A factor is taken for discrete when it has at most so many values, seen so often on average.
MAX_LEVELS = 100
MIN_ROWS_PER_LEVEL = 5


@dataclass(frozen=True)
class Factors:
    """The factors of variation of ``n`` rows.

    Attributes
    ----------
    values : ndarray of float, (n, k)
        The values as given.
    discrete : ndarray of bool, (k,)
        Which factors are discrete.
    levels : tuple of ndarray of intp, (n,), or None
        For a discrete factor the number of each row's value among its sorted values; None for a continuous one.
    """

    values: Floats
    discrete: NDArray[np.bool_]
    levels: tuple[Integers | None, ...]

    @property
    def count(self) -> int:
        """The number of factors, ``k``."""
        return self.values.shape[1]

    def __len__(self) -> int:
        return self.values.shape[0]

    def classes(self, bins: int, *, equal_mass: bool = False) -> list[Integers]:
        """Return a class for every row and factor; a continuous factor is cut into `bins` bins.

        Parameters
        ----------
        bins : int
            The number of bins of a continuous factor.
        equal_mass : bool
            Whether the bins hold equally many rows, rather than being equally wide.

        Returns
        -------
        list of ndarray of intp, (n,)
            One array per factor, its classes numbered from 0 without a gap.
        """
        found = []
        for column, levels in enumerate(self.levels):
            if levels is None:
                cut_into = equal_mass_bins if equal_mass else equal_width_bins
                cut = cut_into(self.values[:, column : column + 1], bins)[0]
                levels = np.searchsorted(np.unique(cut), cut)
            found.append(levels)
        return found

    def as_codes(self) -> Floats:
        """Return the factors as standardised codes ``(n, k)``, a discrete one by the number of its value."""
        exact = np.empty_like(self.values)
        for column, levels in enumerate(self.levels):
            values = self.values[:, column] if levels is None else levels.astype(float)
            exact[:, column] = (values - values.mean()) / values.std()
        return exact


def check_codes(codes: ArrayLike, name: str = "codes") -> Floats:
    """Return codes as a float array ``(n, d)``.

    Raises
    ------
    InputError
        If they are no finite numbers of shape ``(n, d)`` with at least 20 rows.
    """
    array = _numbers(codes, name)
    if array.ndim != 2 or array.shape[1] == 0:
        raise InputError(f"{name}: shape {array.shape}; expected (n, d), a row for each example")
    if len(array) < MIN_ROWS:
        raise InputError(f"{name}: {len(array)} rows; expected at least {MIN_ROWS}")
    _check_finite(array, name)
    return array


def check_factors(factors: ArrayLike, discrete: Sequence[bool] | bool | None = None) -> Factors:
    """Return factors, each known to be discrete or continuous.

    Parameters
    ----------
    factors : array_like of numbers, (n, k)
        The factors of variation.
    discrete : bool or sequence of bool, (k,), optional
        Whether the factors, or each of them, are discrete. Without it a factor is taken for discrete if it has
        at most 100 distinct values, each seen at least 5 times on average.

    Raises
    ------
    InputError
        If the factors are no finite numbers of shape ``(n, k)`` with at least 20 rows, if one of them never
        varies, if one said to be discrete has a value for nearly every row, or if `discrete` does not fit.
    """
    array = check_codes(factors, "factors")
    n, k = array.shape
    said: list[bool | None] = [None] * k
    if isinstance(discrete, (bool, np.bool_)):
        said = [bool(discrete)] * k
    elif discrete is not None:
        said = [bool(value) for value in discrete]
        if len(said) != k:
            raise InputError(f"discrete: {len(said)} values; expected {k}, one for each factor")
    levels: list[Integers | None] = []
    for column, wanted in enumerate(said):
        distinct, numbers = _distinct(array[:, column])
        if len(distinct) < 2:
            raise InputError(
                f"factors: column {column} is {distinct[0]:g} in every row; expected one that varies"
            )
        few = len(distinct) <= min(MAX_LEVELS, n / MIN_ROWS_PER_LEVEL)
        if wanted and len(distinct) > n / 2:
            raise InputError(
                f"factors: column {column} is said to be discrete and has {len(distinct)} values in {n} rows; "
                "expected each value in at least two rows on average"
            )
        is_discrete = few if wanted is None else wanted
        levels.append(numbers() if is_discrete else None)
    return Factors(array, np.array([level is not None for level in levels]), tuple(levels))


def check_pair(
    codes: ArrayLike, factors: ArrayLike | Factors, discrete: Sequence[bool] | bool | None = None
) -> tuple[Floats, Factors]:
    """Return codes ``(n, d)`` and factors of the same rows.

    Raises
    ------
    InputError
        As :func:`check_codes` and :func:`check_factors`, or if the numbers of rows differ.
    """
    checked = check_codes(codes)
    found = factors if isinstance(factors, Factors) else check_factors(factors, discrete)
    if len(checked) != len(found):
        raise InputError(
            f"codes have {len(checked)} rows and factors {len(found)}; expected a row of each per example"
        )
    return checked, found


def check_count(name: str, value: int, least: int) -> int:
    """Return a whole number that is at least `least`.

    Raises
    ------
    InputError
        If it is less, or no whole number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InputError(f"{name} {value!r}: expected a whole number of at least {least}")
    return int(value)


def equal_width_bins(values: Floats, bins: int) -> Integers:
    """Number the bins of equal width, over each column's range, that the values fall into.

    Parameters
    ----------
    values : ndarray of float, (n, d)
        The columns to cut.
    bins : int
        The number of bins. A column that never varies falls into the first.

    Returns
    -------
    ndarray of intp, (d, n)
        A row per column, for the counts that follow go through one column at a time.
    """
    columns = np.array(values.T, order="C")
    low = columns.min(axis=1, keepdims=True)
    width = (columns.max(axis=1, keepdims=True) - low) / bins
    # The difference may underflow, or overflow for values near the largest float: then there is no range to cut.
    usable = np.isfinite(width) & (width > 0)
    columns -= low
    columns /= np.where(usable, width, np.inf)
    found = columns.astype(np.intp)
    # Levels that are evenly spaced may lie on an edge, and rounding must not part them from it: there the edges
    # themselves decide, as they do in a histogram.
    on_edge = np.abs(columns - np.rint(columns)) < 1e-6
    on_edge &= (found > 0) | (columns > 0.5)
    on_edge &= columns < bins - 0.5
    for row in np.flatnonzero(on_edge.any(axis=1) & usable[:, 0]):
        doubtful = values[on_edge[row], row]
        edges = np.linspace(values[:, row].min(), values[:, row].max(), bins + 1)
        found[row, on_edge[row]] = np.searchsorted(edges, doubtful, "right") - 1
    np.minimum(found, bins - 1, out=found)
    return found


def equal_mass_bins(values: Floats, bins: int) -> Integers:
    """Number the bins that hold equally many rows; equal values share a bin.

    Parameters and result are those of :func:`equal_width_bins`.
    """
    found = np.empty(values.shape[::-1], dtype=np.intp)
    for column in range(values.shape[1]):
        distinct, inverse, counts = np.unique(values[:, column], return_inverse=True, return_counts=True)
        middle = (np.cumsum(counts) - counts / 2) / len(values)
        of_distinct = np.minimum((middle * bins).astype(np.intp), bins - 1)
        found[column] = of_distinct[inverse] if len(distinct) > 1 else 0
    return found


def _distinct(values: Floats) -> tuple[Floats, Callable[[], Integers]]:
    """Return the distinct values, ascending, and a function that numbers each row's value among them."""
    low, high = values.min(), values.max()
    if high - low < 4 * len(values) and (values == np.rint(values)).all():
        # Whole numbers of a small range need no sorting.
        shifted = (values - low).astype(np.intp)
        present = np.bincount(shifted) > 0
        return np.flatnonzero(present) + low, lambda: (np.cumsum(present) - 1)[shifted]
    distinct = np.unique(values)
    return distinct, lambda: np.searchsorted(distinct, values)


def _numbers(values: ArrayLike, name: str) -> Floats:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name}: rows of different lengths; expected an array of shape (n, d)") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name}: an array of {array.dtype}; expected numbers")
    return np.array(array, dtype=float)


def _check_finite(array: Floats, name: str) -> None:
    if not np.isfinite(array).all():
        row, column = (int(index[0]) for index in np.nonzero(~np.isfinite(array)))
        value: Any = array[row, column]
        raise InputError(f"{name}: {value} in row {row}, column {column}; expected finite numbers")
