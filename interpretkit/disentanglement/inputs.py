"""Codes and factors as plain arrays, checked once and brought into the form that every metric reads."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpretkit.errors import InputError

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]
Levels = tuple[Integers | None, ...]
# Columns: (d, n) where all are of one type, else an array (n,) for each.
Table = NDArray[Any] | list[NDArray[Any]]

MIN_ROWS = 20
# A factor is taken for discrete when it has at most so many values, seen so often on average.
MAX_LEVELS = 100
MIN_ROWS_PER_LEVEL = 5
# The squares of larger numbers, summed over rows, come near the largest float.
_LARGEST = 1e150
# Numbers are stored in steps, which grow with their size. Of a column whose standard deviation is less than so many
# steps too little is left; below the second, it is worth a word.
_LOST_STEPS = 4
_COARSE_STEPS = 64
# Numbers closer than so many steps to one another differ by rounding alone.
_SAME_STEPS = 2
# Outliers: this share of the rows, the middle one, lies within so small a part of the range.
_MIDDLE = 0.95
_NARROW = 0.25
_COARSE_BINS = 16


@dataclass(frozen=True)
class Codes:
    """The codes of ``n`` rows, centred and scaled one by one.

    Attributes
    ----------
    columns : ndarray of float, (d, n)
        A row per code, with mean 0 and standard deviation 1; zeros for a code that never varies.
    deviations : ndarray of float, (d,)
        The standard deviations of the codes as given; 0 for a code that never varies.
    resolution : ndarray of float, (d,)
        The steps in which the numbers given are stored, in standard deviations.
    levels : tuple of ndarray of intp, (n,), or None
        For a discrete code the number of each row's value among its sorted values; None for a continuous one.
    warnings : tuple of str
        What a reader should know of the numbers given.
    """

    columns: Floats
    deviations: Floats
    resolution: Floats
    levels: Levels
    warnings: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """The number of codes, ``d``."""
        return len(self.columns)

    def __len__(self) -> int:
        return self.columns.shape[1]

    @property
    def standard(self) -> Floats:
        """The codes with mean 0 and standard deviation 1, ``(n, d)``."""
        return self.columns.T

    @property
    def varies(self) -> NDArray[np.bool_]:
        """Which codes vary, ``(d,)``."""
        return self.deviations > 0

    @property
    def relative_deviations(self) -> Floats:
        """The standard deviations relative to the largest, ``(d,)``; zeros if no code varies."""
        largest = self.deviations.max()
        return self.deviations / (largest if largest > 0 else 1.0)

    def active(self, share: float) -> NDArray[np.bool_]:
        """Return which codes vary by at least a share of the root mean square of all codes' deviations, ``(d,)``.

        Codes that never vary are left out of the mean.
        """
        relative = self.relative_deviations
        if not self.varies.any():
            return self.varies
        typical = np.sqrt((relative[self.varies] ** 2).mean())
        # What rounding does to a deviation must not decide.
        return self.varies & (relative >= share * typical * (1 - 1e-9))

    def with_one_scale(self) -> Floats:
        """Return the codes with mean 0 and all divided by the largest standard deviation, ``(n, d)``."""
        return self.standard * self.relative_deviations

    @cached_property
    def outliers(self) -> tuple[str, ...]:
        """A warning for every code whose range is set by a few rows far off."""
        return outlier_warnings(self.columns, "code")


@dataclass(frozen=True)
class Factors:
    """The factors of variation of ``n`` rows.

    Attributes
    ----------
    values : ndarray of float, (n, k)
        The values with mean 0 and standard deviation 1.
    discrete : ndarray of bool, (k,)
        Which factors are discrete.
    levels : tuple of ndarray of intp, (n,), or None
        For a discrete factor the number of each row's value among its sorted values; None for a continuous one.
    resolution : ndarray of float, (k,)
        The steps in which the numbers given are stored, in standard deviations.
    warnings : tuple of str
        What a reader should know of the numbers given.
    """

    values: Floats
    discrete: NDArray[np.bool_]
    levels: Levels
    resolution: Floats
    warnings: tuple[str, ...] = ()
    _classes: dict[tuple[int, bool], list[Integers]] = field(default_factory=dict, compare=False, repr=False)

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
        found = self._classes.get((bins, equal_mass))
        if found is None:
            found = []
            for column, levels in enumerate(self.levels):
                if levels is None:
                    values = self.values[:, column : column + 1]
                    if equal_mass:
                        cut = equal_mass_bins(values, bins)[0]
                    else:
                        cut = equal_width_bins(values, bins, self.resolution[column : column + 1])[0]
                    levels = np.searchsorted(np.unique(cut), cut)
                found.append(levels)
            self._classes[bins, equal_mass] = found
        return found

    @cached_property
    def outliers(self) -> tuple[str, ...]:
        """A warning for every continuous factor whose range is set by a few rows far off."""
        continuous = np.flatnonzero(~self.discrete)
        columns = np.ascontiguousarray(self.values.T[continuous])
        return outlier_warnings(columns, "factor", continuous.tolist())

    def as_codes(self) -> Floats:
        """Return the factors as standardised codes ``(n, k)``, a discrete one by the number of its value."""
        exact = np.empty_like(self.values)
        for column, levels in enumerate(self.levels):
            values = self.values[:, column] if levels is None else levels.astype(float)
            exact[:, column] = (values - values.mean()) / values.std()
        return exact


def check_codes(
    codes: ArrayLike | Codes, name: str = "codes", *, discrete: Sequence[bool] | bool | None = False
) -> Codes:
    """Return codes, centred and scaled.

    Parameters
    ----------
    codes : array_like of numbers, (n, d)
        The codes.
    name : str
        What errors call them.
    discrete : bool or sequence of bool, (d,)
        Whether the codes, or each of them, are discrete.

    Raises
    ------
    InputError
        If they are no finite numbers of shape ``(n, d)`` with at least 20 rows, if they are larger than 1e150, if a
        code said to be discrete has a value for nearly every row, or if every code that varies does so by a few of
        the steps in which its numbers are stored, so that its values are lost.
    """
    if isinstance(codes, Codes):
        return codes
    table = _table(codes, name)
    said = [bool(value) for value in _said(discrete, len(table), "discrete_codes", "code")]
    columns, deviations, steps = _standardised(table, name, overwrite=not any(said))
    lost = steps > 1 / _LOST_STEPS
    warnings = []
    if lost.any():
        if lost.all() or not deviations[~lost].any():
            column = int(lost.argmax())
            raise InputError(f"{name}: {_lost(column, steps[column])}")
        warnings += [f"{name}: {_lost(int(c), steps[c])}; taken for constant" for c in np.flatnonzero(lost)]
        columns[lost], deviations[lost], steps[lost] = 0.0, 0.0, 0.0
    if not deviations.any():
        warnings.append(
            f"{name}: none of the {len(deviations)} codes varies, so that there is nothing to score"
        )
    warnings += _coarse(steps, name)
    levels: list[Integers | None] = [None] * len(columns)
    for column in np.flatnonzero(said).tolist():
        distinct, numbers_of = _distinct(table[column])
        _check_recurring(len(distinct), columns.shape[1], f"{name}: column {column}")
        levels[column] = numbers_of()
    return Codes(columns, deviations, steps, tuple(levels), tuple(warnings))


def standardise(values: Floats, levels: Levels | None = None) -> Codes:
    """Return codes made here, ``(n, d)``, in the form of :func:`check_codes`."""
    columns, deviations, steps = _standardised(
        np.array(values.T, dtype=float, order="C"), "codes", overwrite=True
    )
    return Codes(columns, deviations, steps, (None,) * len(columns) if levels is None else levels)


def check_factors(
    factors: ArrayLike | Factors, discrete: Sequence[bool | None] | bool | None = None
) -> Factors:
    """Return factors, each known to be discrete or continuous.

    Parameters
    ----------
    factors : array_like of numbers, (n, k)
        The factors of variation.
    discrete : bool or sequence of bool, (k,), optional
        Whether the factors, or each of them, are discrete. Without it (or where it is None) a factor is taken for
        discrete if it has at most 100 distinct values, each seen at least 5 times on average.

    Raises
    ------
    InputError
        If the factors are no finite numbers of shape ``(n, k)`` with at least 20 rows or are larger than 1e150, if
        one of them never varies or only by the steps in which its numbers are stored, if one said to be discrete
        has a value for nearly every row, or if `discrete` does not fit.
    """
    if isinstance(factors, Factors):
        return factors
    table = _table(factors, "factors")
    columns, _, steps = _standardised(table, "factors")
    n, k = columns.shape[1], len(columns)
    said = _said(discrete, k, "discrete", "factor")
    levels: list[Integers | None] = []
    warnings = []
    for column, wanted in enumerate(said):
        if steps[column] > 1 / _LOST_STEPS:
            raise InputError(f"factors: {_lost(column, steps[column])}")
        distinct, numbers_of = _distinct(table[column])
        if len(distinct) < 2:
            raise InputError(
                f"factors: column {column} is {distinct[0]:g} in every row; expected one that varies"
            )
        few = len(distinct) <= min(MAX_LEVELS, n / MIN_ROWS_PER_LEVEL)
        if wanted:
            _check_recurring(len(distinct), n, f"factors: column {column}")
        is_discrete = few if wanted is None else wanted
        if wanted is None and not few and len(distinct) <= n / 2 and _whole(distinct):
            warnings.append(
                f"factors: column {column} holds {len(distinct)} whole numbers in {n} rows and is read as "
                "continuous; if they number classes, say that it is discrete"
            )
        levels.append(numbers_of() if is_discrete else None)
    is_discrete = np.array([level is not None for level in levels])
    warnings += _coarse(np.where(is_discrete, 0.0, steps), "factors")
    return Factors(np.ascontiguousarray(columns.T), is_discrete, tuple(levels), steps, tuple(warnings))


def check_pair(
    codes: ArrayLike | Codes,
    factors: ArrayLike | Factors,
    discrete: Sequence[bool | None] | bool | None = None,
    discrete_codes: Sequence[bool] | bool = False,
) -> tuple[Codes, Factors]:
    """Return codes and factors of the same rows.

    Raises
    ------
    InputError
        As :func:`check_codes` and :func:`check_factors`, or if the numbers of rows differ.
    """
    checked = check_codes(codes, discrete=discrete_codes)
    found = check_factors(factors, discrete)
    check_same_rows(checked, found)
    return checked, found


def check_same_rows(codes: Codes, factors: Factors) -> None:
    """Raise an InputError if the numbers of rows differ."""
    if len(codes) != len(factors):
        raise InputError(
            f"codes have {len(codes)} rows and factors {len(factors)}; expected a row of each per example"
        )


def check_several(factors: Factors, metric: str) -> None:
    """Raise an InputError if there is a single factor, in the name of a metric that compares factors."""
    if factors.count < 2:
        raise InputError(f"factors: a single one; {metric} compares factors and expected at least two")


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


def equal_width_bins(values: Floats, bins: int, resolution: Floats | None = None) -> Integers:
    """Number the bins of equal width, over each column's range, that the values fall into.

    A value on the edge of two bins belongs to the upper one, as in a histogram. On the edge is what differs from it
    by rounding: by a millionth of a bin, or by the steps in which the values are stored.

    Parameters
    ----------
    values : ndarray of float, (n, d)
        The columns to cut.
    bins : int
        The number of bins. A column that never varies falls into the first.
    resolution : ndarray of float, (d,), optional
        The steps in which the values of each column are stored.

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
    width = np.where(usable, width, np.inf)
    tolerance = np.full(width.shape, 1e-6)
    if resolution is not None:
        tolerance = np.clip(_SAME_STEPS * resolution[:, None] / width, tolerance, 0.25)
    columns -= low
    columns /= width
    columns += tolerance
    found = columns.astype(np.intp)
    np.minimum(found, bins - 1, out=found)
    return found


def equal_mass_bins(values: Floats, bins: int) -> Integers:
    """Number the bins that hold equally many rows; equal values share a bin.

    Parameters and result are those of :func:`equal_width_bins`.
    """
    found = np.empty(values.shape[::-1], dtype=np.intp)
    for column in range(values.shape[1]):
        distinct, inverse, counts = np.unique(values[:, column], return_inverse=True, return_counts=True)
        # Twice the number of rows below the middle of each value, so that nothing is rounded.
        middle = 2 * np.cumsum(counts) - counts
        of_distinct = np.minimum(middle * bins // (2 * len(values)), bins - 1)
        found[column] = of_distinct[inverse] if len(distinct) > 1 else 0
    return found


def outliers_drawn_in(columns: Floats) -> Floats:
    """Return columns ``(d, n)`` in which what lies far off is drawn in, with the middle of every one alike.

    The middle 95 % of the values are scaled to the range from 0 to 1; what lies beyond −1 or 2 is put there. A column
    whose middle values are equal keeps all others where they are.
    """
    n = columns.shape[1]
    beyond = max(1, int(np.ceil((1 - _MIDDLE) / 2 * n)))
    middle = np.partition(columns, (beyond, n - 1 - beyond), axis=1)
    low, high = middle[:, [beyond]], middle[:, [n - 1 - beyond]]
    span = high - low
    flat = span <= 0
    drawn = np.clip((columns - low) / np.where(flat, 1.0, span), -1.0, 2.0)
    return np.where(flat, columns, drawn)


def outlier_warnings(columns: Floats, kind: str, names: Sequence[int] | None = None) -> tuple[str, ...]:
    """Return a warning for every row of ``(d, n)`` whose range is set by a few values far off."""
    if len(columns) == 0:
        return ()
    # Cut coarsely, which is fast, few look as if they could be concerned.
    cells = equal_width_bins(columns.T, _COARSE_BINS)
    counts = np.array([np.bincount(cell, minlength=_COARSE_BINS) for cell in cells])
    suspects = np.flatnonzero(_middle_spans(counts)[1] < _NARROW * _COARSE_BINS + 2)
    columns = columns[suspects]
    n = columns.shape[1]
    beyond = max(1, int(np.ceil((1 - _MIDDLE) / 2 * n)))
    last = n - 1 - beyond
    ranges = np.ptp(columns, axis=1)
    middle = np.partition(columns, (beyond, last), axis=1)
    spans = middle[:, last] - middle[:, beyond]
    warnings = []
    for number in np.flatnonzero((ranges > 0) & (spans < _NARROW * ranges)).tolist():
        inside = middle[number, beyond : last + 1]
        # Where they are one value, the few others are what the code has to tell.
        if len(np.unique(inside)) > 1:
            place = int(suspects[number])
            name = names[place] if names is not None else place
            share = spans[number] / ranges[number]
            warnings.append(
                f"{kind} {name}: {100 * _MIDDLE:.0f} % of the rows lie within {_percent(share)} of its range, "
                "which a few rows far off set"
            )
    return tuple(warnings)


def bin_warnings(counts: Integers, cells: Integers, columns: Floats, kind: str) -> list[str]:
    """Return a warning for every column of which nearly all rows fall into few bins of equal width.

    Parameters
    ----------
    counts : ndarray of intp, (d, bins)
        How many rows fall into each bin.
    cells : ndarray of intp, (d, n)
        Every column's bins, numbered from 0.
    columns : ndarray of float, (d, n)
        The values.
    kind : str
        What the columns are.
    """
    warnings = []
    bins = counts.shape[1]
    firsts, spans = _middle_spans(counts)
    for number in np.flatnonzero(spans <= _NARROW * bins).tolist():
        first, spanned = firsts[number], spans[number]
        inside = columns[number, (cells[number] >= first) & (cells[number] < first + spanned)]
        # A code of few values has nothing to lose within so few bins.
        if len(np.unique(inside)) > spanned:
            warnings.append(
                f"{kind} {number}: {100 * _MIDDLE:.0f} % of the rows fall into {spanned} of {bins} bins of equal "
                "width, for a few rows lie far off; bins of equal mass do not mind them"
            )
    return warnings


def _middle_spans(counts: Integers) -> tuple[Integers, Integers]:
    """Return the first of the bins that hold the middle rows, and over how many bins they stretch, both (d,)."""
    beyond = (1 - _MIDDLE) / 2
    below = np.cumsum(counts, axis=1)
    below = below / below[:, -1:]
    first = (below <= beyond).sum(axis=1)
    last = (below < 1 - beyond - 1e-12).sum(axis=1)
    return first, last - first + 1


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _lost(column: int, steps: float) -> str:
    return (
        f"column {column} varies by {1 / steps:.2g} of the steps in which numbers of its size are stored: its values "
        "were rounded away; subtract an offset before they are stored"
    )


def _coarse(steps: Floats, name: str) -> list[str]:
    return [
        f"{name}: column {column} is stored in steps of {steps[column]:.2g} of its standard deviation; subtract an "
        "offset before it is stored, or store it in double precision"
        for column in np.flatnonzero((steps > 1 / _COARSE_STEPS) & (steps <= 1 / _LOST_STEPS))
    ]


def _check_recurring(n_values: int, rows: int, name: str) -> None:
    if n_values > rows / 2:
        raise InputError(
            f"{name} is said to be discrete and has {n_values} values in {rows} rows; "
            "expected each value in at least two rows on average"
        )


def _said(
    discrete: Sequence[bool | None] | bool | None, count: int, option: str, kind: str
) -> list[bool | None]:
    """Return what was said of each column; whole numbers could be meant as places or as truth, and are refused."""
    if discrete is None or isinstance(discrete, (bool, np.bool_)):
        return [None if discrete is None else bool(discrete)] * count
    expected = f"expected True or False for all, or one of them for each {kind}, such as [True, False]"
    if isinstance(discrete, (str, bytes)) or not hasattr(discrete, "__iter__"):
        raise InputError(f"{option} {discrete!r}: {expected}")
    said: list[bool | None] = []
    for value in np.asarray(discrete).tolist() if hasattr(discrete, "dtype") else discrete:
        if value is not None and not isinstance(value, (bool, np.bool_)):
            raise InputError(f"{option}: holds {value!r}; {expected}")
        said.append(None if value is None else bool(value))
    if len(said) != count:
        raise InputError(f"{option}: {len(said)} values; expected {count}, one for each {kind}")
    return said


def _whole(values: NDArray[Any]) -> bool:
    return values.dtype.kind in "iub" or bool((values == np.rint(values)).all())


def _distinct(values: NDArray[Any]) -> tuple[NDArray[Any], Callable[[], Integers]]:
    """Return the distinct values, ascending, and a function that numbers each row's value among them.

    Whole numbers are compared as such, whatever their size; other numbers that differ by rounding are the same.
    """
    low, high = values.min(), values.max()
    if values.dtype.kind == "b":
        values, low, high = values.astype(np.intp), int(low), int(high)
    whole = values.dtype.kind in "iu"
    if float(high) - float(low) < 4 * len(values) and (whole or (values == np.rint(values)).all()):
        # Whole numbers of a small range need no sorting.
        shifted = (_differences(values, low) if whole else values - low).astype(np.intp)
        present = np.bincount(shifted) > 0
        return np.flatnonzero(present) + float(low), lambda: (np.cumsum(present) - 1)[shifted]
    distinct = np.unique(values)
    if whole:
        return distinct, lambda: np.searchsorted(distinct, values)
    step = _SAME_STEPS * np.spacing(np.maximum(np.abs(low), np.abs(high)))
    new = np.ones(len(distinct), dtype=bool)
    new[1:] = np.diff(distinct) > step
    first = distinct[new]
    return first, lambda: np.searchsorted(first, values, "right") - 1


def _differences(values: NDArray[Any], low: Any) -> NDArray[np.uint64]:
    """Return whole numbers less the smallest of them, exactly: the difference may exceed a signed number's range."""
    wide = np.int64 if values.dtype.kind == "i" else np.uint64
    with np.errstate(over="ignore"):
        return values.astype(wide, copy=False).view(np.uint64) - np.asarray(low, dtype=wide).view(np.uint64)


def _standardised(table: Table, name: str, *, overwrite: bool = False) -> tuple[Floats, Floats, Floats]:
    """Return columns with mean 0 and deviation 1 (d, n), their deviations, and the steps of storage in deviations."""
    if isinstance(table, np.ndarray):
        return _standardised_alike(table, name, 0, overwrite)
    found = [_standardised_alike(column[None, :], name, number) for number, column in enumerate(table)]
    columns, deviations, steps = zip(*found, strict=True)
    return np.concatenate(columns), np.concatenate(deviations), np.concatenate(steps)


def _standardised_alike(
    given: NDArray[Any], name: str, number: int, overwrite: bool = False
) -> tuple[Floats, Floats, Floats]:
    """Return what :func:`_standardised` does, of columns of one type (d, n); errors count them from `number`."""
    low, high = given.min(axis=1), given.max(axis=1)
    if given.dtype.kind == "b":
        columns, step = given.astype(float), np.zeros(len(given))
    elif given.dtype.kind in "iu":
        if low.min() >= -(2**53) and high.max() <= 2**53:
            columns = given.astype(float)
        else:
            # Differences of whole numbers are exact, however large the numbers.
            columns = np.array(
                [_differences(column, low[row]) for row, column in enumerate(given)], dtype=float
            )
        step = np.zeros(len(given))
    else:
        largest = np.maximum(np.abs(low), np.abs(high))
        if not (largest.astype(float) <= _LARGEST).all():
            _refuse_large(given, name, number)
        step = np.spacing(largest).astype(float)
        columns = given.astype(np.result_type(given.dtype, np.float64), order="C", copy=not overwrite)
        columns -= columns.mean(axis=1, keepdims=True)
    # The mean of large numbers is rounded; that of what is left is not.
    columns -= columns.mean(axis=1, keepdims=True)
    still = low == high
    reach = np.maximum(columns.max(axis=1), -columns.min(axis=1))
    # Squares of what is very small or very large would be lost.
    reach = np.where((reach > 1e-100) & (reach < 1e100), 1.0, np.where(still, 1.0, reach))
    if (reach != 1).any():
        columns /= reach[:, None]
    deviations = np.sqrt(np.einsum("dn,dn->d", columns, columns) / columns.shape[1])
    columns /= np.where(still, np.inf, deviations)[:, None]
    deviations = np.where(still, 0.0, deviations * reach)
    steps = np.where(still, 0.0, step / np.where(still, 1.0, deviations))
    return columns.astype(float, copy=False), deviations.astype(float), steps.astype(float)


def _refuse_large(given: NDArray[Any], name: str, number: int) -> None:
    """Say which of the columns (d, n) holds NaN, infinity, or what is too large."""
    finite = np.isfinite(given)
    bad = ~finite if not finite.all() else np.abs(given) > _LARGEST
    column, row = (int(index[0]) for index in np.nonzero(bad))
    expected = "finite numbers" if not finite.all() else f"numbers of at most {_LARGEST:g}"
    value: Any = given[column, row]
    raise InputError(f"{name}: {value} in row {row}, column {number + column}; expected {expected}")


def _table(values: Any, name: str) -> Table:
    """Return the columns of numbers, of at least 20 rows."""
    array = _as_array(values, name)
    shape = (len(array[0]) if array else 0, len(array)) if isinstance(array, list) else array.shape
    if len(shape) != 2 or shape[1] == 0:
        raise InputError(f"{name}: shape {shape}; expected (n, d), a row for each example")
    if shape[0] < MIN_ROWS:
        raise InputError(f"{name}: {shape[0]} rows; expected at least {MIN_ROWS}")
    if not isinstance(array, list) and array.dtype.kind != "O":
        # A copy, so that it may be written to.
        return np.array(array.T, order="C")
    columns = [
        _of_objects(column, name, number) if column.dtype.kind == "O" else column
        for number, column in enumerate(array if isinstance(array, list) else array.T)
    ]
    alike = len({column.dtype for column in columns}) == 1
    return np.stack(columns) if alike else columns


def _as_array(values: Any, name: str) -> Table:
    """Return an array (n, d), or for a table of named columns a list of one array each; numbers or objects."""
    if hasattr(values, "iloc") and hasattr(values, "columns"):
        columns = [values.iloc[:, number].to_numpy() for number in range(values.shape[1])]
        for number, column in enumerate(columns):
            _check_kind(column, f"{name}: column {number}, {values.columns[number]!r},")
        return columns
    if hasattr(values, "detach") and hasattr(values, "cpu"):
        values = values.detach().cpu()
        if "bfloat16" in str(values.dtype):
            values = values.float()
    if isinstance(values, (list, tuple)) and any(isinstance(row, np.ma.MaskedArray) for row in values):
        values = np.ma.array(values)
    if isinstance(values, np.ma.MaskedArray):
        masked = np.argwhere(np.ma.getmaskarray(values))
        if len(masked):
            place = ", ".join(f"{axis} {at}" for axis, at in zip(("row", "column"), masked[0], strict=False))
            raise InputError(
                f"{name}: {len(masked)} masked values, the first in {place}; expected none: leave such rows out"
            )
        values = values.data
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        problem = "rows of different lengths" if "inhomogeneous" in str(error) else str(error).splitlines()[0]
        raise InputError(f"{name}: {problem}; expected an array of shape (n, d)") from error
    if array.dtype.kind == "f" and isinstance(values, (list, tuple)) and (np.abs(array) >= 2.0**53).any():
        # A list of whole numbers and fractions has become floats, in which large whole numbers fall together.
        array = np.asarray(values, dtype=object)
    _check_kind(array, f"{name}:")
    return array


def _check_kind(array: NDArray[Any], name: str) -> None:
    if array.dtype.kind in "biufO":
        return
    hint = {
        "U": "; np.unique(labels, return_inverse=True) numbers labels",
        "S": "; np.unique(labels, return_inverse=True) numbers labels",
        "M": ", such as seconds",
        "m": ", such as seconds",
        "c": " that are real",
    }.get(array.dtype.kind, "")
    raise InputError(f"{name} an array of {array.dtype}; expected numbers{hint}")


def _of_objects(column: NDArray[Any], name: str, number: int) -> NDArray[Any]:
    """Return Python objects (n,) as numbers: whole ones exactly, others in double precision."""
    for row, value in enumerate(column):
        if not isinstance(value, (numbers.Real, Decimal, np.bool_)):
            raise InputError(f"{name}: {value!r} in row {row}, column {number}; expected numbers")
    if all(isinstance(value, (numbers.Integral, np.bool_)) for value in column):
        whole = [int(value) for value in column]
        low, high = min(whole), max(whole)
        for kind in (np.int64, np.uint64):
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return np.array(whole, dtype=kind)
        raise InputError(
            f"{name}: column {number} ranges from {low} to {high}; expected whole numbers of 64 bits"
        )
    found = np.array([float(value) for value in column])
    for row, value in enumerate(column):
        if isinstance(value, numbers.Integral) and abs(int(value)) > 2**53 and int(found[row]) != int(value):
            raise InputError(
                f"{name}: {value} in row {row}, column {number} is rounded beside fractions; expected whole numbers "
                "alone"
            )
    return found
