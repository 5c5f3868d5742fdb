"""Codes and factors, checked once and brought into the form that every metric reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpretkit.disentanglement.binning import equal_mass_bins, equal_width_bins, outlier_warnings
from interpretkit.disentanglement.columns import (
    Floats,
    Integers,
    as_columns,
    distinct_values,
    standardised_columns,
)
from interpretkit.errors import InputError

Levels = tuple[Integers | None, ...]
# A factor is taken for discrete when it has at most so many values, seen so often on average.
MAX_LEVELS = 100
MIN_ROWS_PER_LEVEL = 5
# Numbers are stored in steps, which grow with their size. Of a column whose standard deviation is less than so many
# steps too little is left; below the second, it is worth a word.
_LOST_STEPS = 4
_COARSE_STEPS = 64


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
    table = as_columns(codes, name)
    said = [bool(value) for value in _said(discrete, len(table), "discrete_codes", "code")]
    columns, deviations, steps = standardised_columns(table, name, overwrite=not any(said))
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
        distinct, numbers_of = distinct_values(table[column])
        _check_recurring(len(distinct), columns.shape[1], f"{name}: column {column}")
        levels[column] = numbers_of()
    return Codes(columns, deviations, steps, tuple(levels), tuple(warnings))


def standardise(values: Floats, levels: Levels | None = None) -> Codes:
    """Return codes made here, ``(n, d)``, in the form of :func:`check_codes`."""
    columns, deviations, steps = standardised_columns(
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
    table = as_columns(factors, "factors")
    columns, _, steps = standardised_columns(table, "factors")
    n, k = columns.shape[1], len(columns)
    said = _said(discrete, k, "discrete", "factor")
    levels: list[Integers | None] = []
    warnings = []
    for column, wanted in enumerate(said):
        if steps[column] > 1 / _LOST_STEPS:
            raise InputError(f"factors: {_lost(column, steps[column])}")
        distinct, numbers_of = distinct_values(table[column])
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
