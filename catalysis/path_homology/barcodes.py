"""Barcodes: what an engine returns, one array of bars per dimension."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

__all__ = ["Barcodes", "Cycle", "sorted_bars"]

Bars = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cycle:
    """A chain of allowed paths that represents the class of one bar: it is a cycle from the birth on.

    Attributes
    ----------
    paths : (k, p + 1) int array
        The allowed p-paths of the chain, vertex by vertex.
    coefficients : (k,) int array
        Their coefficients in the field, from 1 to ``field - 1``.
    """

    paths: npt.NDArray[np.int64]
    coefficients: npt.NDArray[np.int64]

    @property
    def vertices(self) -> npt.NDArray[np.int64]:
        """The vertices on the chain, each once, ascending: (v,) int array."""
        return np.unique(self.paths)

    @property
    def arrows(self) -> npt.NDArray[np.int64]:
        """The arrows on the chain, each once, in lexicographic order: (a, 2) int array."""
        steps = [self.paths[:, i : i + 2] for i in range(self.paths.shape[1] - 1)]
        if not steps:
            return np.zeros((0, 2), dtype=np.int64)
        return np.unique(np.concatenate(steps), axis=0)


@dataclass(frozen=True, eq=False)
class Barcodes(Sequence[Bars]):
    """Bars of every dimension, to be read as a sequence: ``barcodes[p]`` is a ``(k, 2)`` float array.

    A bar is half-open, ``[birth, death)``; the death of a class that never dies is ``inf``. Bars of zero
    length are left out. Within a dimension the bars are sorted by birth, then by death.

    Attributes
    ----------
    bars : tuple of (k, 2) float arrays
        One array per dimension; read-only.
    engine : str
        Name of the engine that computed them, ``"readable"`` or ``"fast"``; both if the components of a large
        digraph needed both.
    regular : bool
        Whether irregular faces (two equal neighbours) count as zero, which is the GLMY convention.
    field : int
        Number of elements of the field of coefficients.
    representatives : tuple of tuples of `Cycle`, or None
        ``representatives[p][i]`` carries bar ``bars[p][i]``; None if they were not asked for.
    """

    bars: tuple[Bars, ...]
    engine: str
    regular: bool = True
    field: int = 2
    representatives: tuple[tuple[Cycle, ...], ...] | None = None

    def __post_init__(self) -> None:
        for bars in self.bars:
            bars.flags.writeable = False

    def __len__(self) -> int:
        return len(self.bars)

    @overload
    def __getitem__(self, index: int) -> Bars: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Bars, ...]: ...
    def __getitem__(self, index: int | slice) -> Bars | tuple[Bars, ...]:
        return self.bars[index]

    def __iter__(self) -> Iterator[Bars]:
        return iter(self.bars)

    def __repr__(self) -> str:
        counts = ", ".join(f"H{p}: {len(bars)}" for p, bars in enumerate(self.bars))
        kind = "regular" if self.regular else "non-regular"
        return f"Barcodes({counts}; {kind}, F_{self.field}, engine={self.engine!r})"


def sorted_bars(bars: Sequence[tuple[float, float]] | Bars) -> tuple[Bars, npt.NDArray[np.intp]]:
    """Return bars as a ``(k, 2)`` float array sorted by birth, then death, and the order that sorts them."""
    table = np.array(bars, dtype=np.float64).reshape(-1, 2)
    order = np.lexsort((table[:, 1], table[:, 0]))
    return table[order], order
