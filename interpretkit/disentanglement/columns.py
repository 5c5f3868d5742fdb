"""Whatever is given for numbers, as columns: arrays, data frames and masked arrays, checked and standardised."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpretkit.errors import InputError

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]
# Columns: (d, n) where all are of one type, else an array (n,) for each.
Table = NDArray[Any] | list[NDArray[Any]]

MIN_ROWS = 20
# The squares of larger numbers, summed over rows, come near the largest float.
_LARGEST = 1e150
# Numbers closer than so many steps to one another differ by rounding alone.
SAME_STEPS = 2


def distinct_values(values: NDArray[Any]) -> tuple[NDArray[Any], Callable[[], Integers]]:
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
    step = SAME_STEPS * np.spacing(np.maximum(np.abs(low), np.abs(high)))
    new = np.ones(len(distinct), dtype=bool)
    new[1:] = np.diff(distinct) > step
    first = distinct[new]
    return first, lambda: np.searchsorted(first, values, "right") - 1


def _differences(values: NDArray[Any], low: Any) -> NDArray[np.uint64]:
    """Return whole numbers less the smallest of them, exactly: the difference may exceed a signed number's range."""
    wide = np.int64 if values.dtype.kind == "i" else np.uint64
    with np.errstate(over="ignore"):
        return values.astype(wide, copy=False).view(np.uint64) - np.asarray(low, dtype=wide).view(np.uint64)


def standardised_columns(
    table: Table, name: str, *, overwrite: bool = False
) -> tuple[Floats, Floats, Floats]:
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


def as_columns(values: Any, name: str) -> Table:
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
