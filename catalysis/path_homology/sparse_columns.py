"""Sparse columns over a prime field, for reductions from left to right.

A column is a linear combination of rows ``0, 1, 2, …``. Two kinds of column share one small interface:
over F_2 a Python integer is a column, its bits being the coefficients; over F_p a dictionary is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

__all__ = ["BitColumns", "Column", "Columns", "ModularColumns", "Pivots", "columns_over"]

Column = Any  # an int (F_2) or a dict from row to coefficient (F_p); only `Columns` looks inside
Pivots = Mapping[int, tuple[Column, Column]]
"""From a row to a column whose last row it is, and to the companion of that column."""


class Columns(Protocol):
    """What a reduction has to be able to do with columns. No method changes its arguments."""

    def column(self, entries: Iterable[tuple[int, int]]) -> Column:
        """Make a column from (row, coefficient) pairs; coefficients of one row add up."""
        ...

    def low(self, column: Column) -> int:
        """Return the last row with a coefficient, or -1 if the column is zero."""
        ...

    def reduced(
        self, column: Column, companion: Column, pivots: Pivots, first: int = 0
    ) -> tuple[Column, Column]:
        """Subtract pivots until the last row of `column` is before `first` or has no pivot.

        Whatever is subtracted from `column`, the same multiple of the pivot's companion is subtracted from
        `companion`; so it keeps account of what has been done.
        """
        ...

    def minus(self, column: Column, factor: int, other: Column) -> Column:
        """Return ``column - factor * other``."""
        ...

    def entries(self, column: Column) -> Iterator[tuple[int, int]]:
        """Yield (row, coefficient) pairs, ascending in row, coefficients from 1 to p - 1."""
        ...


class BitColumns:
    """Columns over F_2 as Python integers: bit ``r`` is the coefficient of row ``r``."""

    def column(self, entries: Iterable[tuple[int, int]]) -> int:
        """Make a column from (row, coefficient) pairs; coefficients of one row add up."""
        bits = 0
        for row, coefficient in entries:
            if coefficient & 1:
                bits ^= 1 << row
        return bits

    def low(self, column: int) -> int:
        """Return the last row with a coefficient, or -1 if the column is zero."""
        return column.bit_length() - 1

    def reduced(self, column: int, companion: int, pivots: Pivots, first: int = 0) -> tuple[int, int]:
        """Subtract pivots until the last row of `column` is before `first` or has no pivot."""
        while (low := column.bit_length() - 1) >= first and low in pivots:
            pivot, its_companion = pivots[low]
            column ^= pivot
            companion ^= its_companion
        return column, companion

    def minus(self, column: int, factor: int, other: int) -> int:
        """Return ``column - factor * other``."""
        return column ^ other if factor & 1 else column

    def entries(self, column: int) -> Iterator[tuple[int, int]]:
        """Yield (row, coefficient) pairs, ascending in row."""
        while column:
            last = column & -column
            yield last.bit_length() - 1, 1
            column ^= last


class ModularColumns:
    """Columns over F_p as dictionaries from row to coefficient, zeros left out.

    Parameters
    ----------
    p : int
        A prime number.
    """

    def __init__(self, p: int) -> None:
        self.p = p

    def column(self, entries: Iterable[tuple[int, int]]) -> dict[int, int]:
        """Make a column from (row, coefficient) pairs; coefficients of one row add up."""
        total: dict[int, int] = {}
        for row, coefficient in entries:
            total[row] = (total.get(row, 0) + coefficient) % self.p
        return {row: coefficient for row, coefficient in total.items() if coefficient}

    def low(self, column: dict[int, int]) -> int:
        """Return the last row with a coefficient, or -1 if the column is zero."""
        return max(column, default=-1)

    def reduced(
        self, column: dict[int, int], companion: dict[int, int], pivots: Pivots, first: int = 0
    ) -> tuple[dict[int, int], dict[int, int]]:
        """Subtract pivots until the last row of `column` is before `first` or has no pivot."""
        while (low := self.low(column)) >= first and low in pivots:
            pivot, its_companion = pivots[low]
            factor = column[low] * pow(pivot[low], -1, self.p) % self.p
            column = self.minus(column, factor, pivot)
            companion = self.minus(companion, factor, its_companion)
        return column, companion

    def minus(self, column: dict[int, int], factor: int, other: dict[int, int]) -> dict[int, int]:
        """Return ``column - factor * other``."""
        difference = dict(column)
        for row, coefficient in other.items():
            value = (difference.get(row, 0) - factor * coefficient) % self.p
            if value:
                difference[row] = value
            else:
                difference.pop(row, None)
        return difference

    def entries(self, column: dict[int, int]) -> Iterator[tuple[int, int]]:
        """Yield (row, coefficient) pairs, ascending in row, coefficients from 1 to p - 1."""
        yield from sorted(column.items())


def columns_over(field: int, *, sparse: bool = False) -> Columns:
    """Return the columns over the field with `field` elements, a prime number.

    A bit column is as long as its last row, however few rows are in it; with `sparse` its memory grows with the
    number of its coefficients alone.
    """
    return BitColumns() if field == 2 and not sparse else ModularColumns(field)
