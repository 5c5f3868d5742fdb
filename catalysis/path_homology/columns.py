"""Sparse columns over a prime field, for reductions from left to right.

A column is a linear combination of rows ``0, 1, 2, …``. Two kinds of column share one small interface:
over F_2 a Python integer is a column, its bits being the coefficients; over F_p a dictionary is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

__all__ = ["BitColumns", "Column", "Columns", "ModularColumns", "columns_over"]

Column = Any  # an int (F_2) or a dict from row to coefficient (F_p); only `Columns` looks inside


class Columns(Protocol):
    """What a reduction has to be able to do with columns. No method changes its arguments."""

    def column(self, entries: Iterable[tuple[int, int]]) -> Column:
        """Make a column from (row, coefficient) pairs; coefficients of one row add up."""
        ...

    def low(self, column: Column) -> int:
        """Return the last row with a coefficient, or -1 if the column is zero."""
        ...

    def ratio(self, column: Column, pivot: Column, row: int) -> int:
        """Return the multiple of `pivot` that cancels `row` of `column` when subtracted."""
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

    def ratio(self, column: int, pivot: int, row: int) -> int:
        """Return the multiple of `pivot` that cancels `row` of `column` when subtracted."""
        return column >> row & 1

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

    def ratio(self, column: dict[int, int], pivot: dict[int, int], row: int) -> int:
        """Return the multiple of `pivot` that cancels `row` of `column` when subtracted."""
        return column.get(row, 0) * pow(pivot[row], -1, self.p) % self.p

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


def columns_over(field: int) -> Columns:
    """Return the columns over the field with `field` elements, a prime number."""
    return BitColumns() if field == 2 else ModularColumns(field)
