"""Path homology of many digraphs in one call, on all cores, with flat arrays in and out."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from catalysis.path_homology.barcodes import Barcodes
from catalysis.path_homology.digraph import (
    check_values,
    checked_arrows,
    checked_field,
    checked_lengths,
    checked_number,
    checked_truth,
    checked_weights,
)
from catalysis.path_homology.engines import compiled, obstacle_to_fast, persistence
from interpretkit.errors import InputError

__all__ = [
    "BatchBarcodes",
    "as_chunk",
    "in_chunks",
    "joined",
    "persistence_batch",
    "with_replacements",
]

CHUNK = 256
"""How many digraphs a thread takes at a time: enough to hide the cost of a call, few enough to share out."""

Chunk = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class BatchBarcodes(Sequence[Barcodes]):
    """Barcodes of many digraphs in flat arrays, to be read as a sequence of `Barcodes`.

    Attributes
    ----------
    bars : (K, 2) float array
        All bars, digraph by digraph and, within each, dimension by dimension; sorted as in `Barcodes`.
    offsets : (g * dims + 1,) int array
        The bars of dimension p of digraph i are ``bars[offsets[i * dims + p] : offsets[i * dims + p + 1]]``.
    dims : int
        Number of dimensions, ``max_dim + 1``.
    engine : str
        Name of the engine that computed them; ``"fast, readable"`` if a few digraphs needed the second.
    regular : bool
    field : int
        As in `Barcodes`.
    """

    bars: npt.NDArray[np.float64]
    offsets: npt.NDArray[np.int64]
    dims: int
    engine: str
    regular: bool = True
    field: int = 2

    def __len__(self) -> int:
        return (len(self.offsets) - 1) // self.dims

    @overload
    def __getitem__(self, index: int) -> Barcodes: ...
    @overload
    def __getitem__(self, index: slice) -> list[Barcodes]: ...
    def __getitem__(self, index: int | slice) -> Barcodes | list[Barcodes]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = index + len(self) if index < 0 else index
        if not 0 <= i < len(self):
            raise IndexError(f"digraph {index} of {len(self)}")
        at = self.offsets[i * self.dims : (i + 1) * self.dims + 1]
        parts = tuple(self.bars[at[p] : at[p + 1]] for p in range(self.dims))
        return Barcodes(parts, self.engine, self.regular, self.field)

    def __iter__(self) -> Iterator[Barcodes]:
        return (self[i] for i in range(len(self)))

    def betti_curves(self, grid: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Count, for each digraph and dimension, the bars alive at each value of a grid.

        Parameters
        ----------
        grid : (g,) array
            Thresholds; a bar is alive at ``t`` if ``birth <= t < death``.

        Returns
        -------
        (digraphs, dims, g) int array
        """
        thresholds = np.asarray(grid, dtype=np.float64)
        if thresholds.ndim != 1 or np.isnan(thresholds).any():
            raise InputError("grid: expected numbers in one row, without NaN")
        order = np.argsort(thresholds)
        n_rows, width = len(self) * self.dims, len(thresholds)
        # Each bar adds one from the first threshold at or after its birth, and takes it off at its death.
        row = np.repeat(np.arange(n_rows), np.diff(self.offsets)) * (width + 1)
        places = np.searchsorted(thresholds[order], self.bars, side="left")
        change = np.bincount(row + places[:, 0], minlength=n_rows * (width + 1)).astype(np.int64)
        change -= np.bincount(row + places[:, 1], minlength=n_rows * (width + 1))
        alive = np.cumsum(change.reshape(n_rows, width + 1)[:, :width], axis=1)
        curves = np.empty_like(alive)
        curves[:, order] = alive
        return curves.reshape(len(self), self.dims, width)


def persistence_batch(
    n_vertices: npt.ArrayLike,
    arrow_offsets: npt.ArrayLike,
    arrows: npt.ArrayLike,
    weights: npt.ArrayLike,
    *,
    max_dim: int = 2,
    regular: bool = True,
    field: int = 2,
    engine: str = "auto",
    max_path_length: int | None = None,
    n_threads: int | None = None,
) -> BatchBarcodes:
    """Return the persistent path homology of many weighted digraphs, in their order.

    Parameters
    ----------
    n_vertices : (g,) int array
        Number of vertices of each digraph.
    arrow_offsets : (g + 1,) int array
        Digraph i has the arrows from ``arrow_offsets[i]`` to ``arrow_offsets[i + 1]``.
    arrows : (M, 2) int array
        Tails and heads of all arrows; vertices are counted from 0 in each digraph.
    weights : (M,) float array
        Their weights, finite and >= 0.
    max_dim : int
    regular : bool
    field : int
    engine : str
    max_path_length : int, optional
        As in `persistence`, for all digraphs alike.
    n_threads : int, optional
        Number of threads; by default one per core that this process may use. The fast engine runs them
        side by side; memory grows with the number of threads and the largest digraph, beside the result.

    Returns
    -------
    BatchBarcodes

    Raises
    ------
    InputError
        If an argument is not as described; the message names the first digraph that is wrong.
    """
    dim, length = checked_lengths(max_dim, max_path_length)
    p = checked_field(field)
    regular = checked_truth(regular, "regular")
    counts, offsets = _checked_offsets(n_vertices, arrow_offsets)
    pairs = checked_arrows(arrows)
    lengths = checked_weights(weights, len(pairs))
    if offsets[-1] != len(pairs):
        raise InputError(f"arrow_offsets: expected {len(pairs)}, the number of arrows, at the end")
    obstacle = obstacle_to_fast(engine, dim, p, False)
    fast = compiled() if not obstacle else None
    if obstacle and engine == "fast":
        raise InputError(f"engine = 'fast': {obstacle}; engine 'auto' or 'readable' does that")

    def one(g: int) -> Barcodes:
        part = slice(offsets[g], offsets[g + 1])
        digraph = int(counts[g]), pairs[part], lengths[part]
        check_values(*digraph, name=f"digraph {g}: ")
        try:
            return persistence(
                *digraph, max_dim=dim, max_path_length=length, regular=regular, field=p, engine=engine
            )
        except InputError as error:  # values are fine, so the fast engine alone was wanted, and cannot
            raise InputError(f"digraph {g}: {str(error).removeprefix(f'engine = {engine!r}: ')}") from error

    n = len(counts)
    if fast is None or obstacle or fast.obstacle(int(counts.max(initial=0))):
        found = [one(g) for g in range(n)]
        engines = sorted({name for barcodes in found for name in barcodes.engine.split(", ")}) or ["readable"]
        return joined([as_chunk([barcodes]) for barcodes in found], dim, ", ".join(engines), regular, p)

    flat_pairs, flat_lengths = fast.flat(pairs), fast.flat(lengths)
    in_second = False

    def chunk(start: int, stop: int) -> Chunk:
        nonlocal in_second
        bars, n_bars, bad = fast.sweep_digraphs(
            counts,
            offsets,
            flat_pairs,
            flat_lengths,
            dim,
            length,
            regular,
            start,
            stop,
            fast.ROOM_FOR_64,
        )
        if bad >= 0:
            one(bad)
            raise AssertionError(f"digraph {bad} was refused without a reason")
        crowded = np.flatnonzero(n_bars[:, 0] < 0)
        if len(crowded):
            others = {int(i): one(start + int(i)) for i in crowded}
            in_second |= any(barcodes.engine == "readable" for barcodes in others.values())
            bars, n_bars = with_replacements(bars, n_bars, others)
        return bars, n_bars

    chunks = in_chunks(chunk, n, n_threads)
    return joined(chunks, dim, "fast, readable" if in_second else "fast", regular, p)


def in_chunks(work: Callable[[int, int], Chunk], n: int, n_threads: int | None) -> list[Chunk]:
    """Run ``work(start, stop)`` over 0 … n in chunks, on threads, and return the results in order.

    Raises
    ------
    InputError
        If `n_threads` is less than 1; and whatever `work` raises, of the first chunk that does.
    """
    threads = _cores() if n_threads is None else checked_number(n_threads, "n_threads", "a whole number")
    if threads < 1:
        raise InputError(f"n_threads = {threads}: expected 1 or more")
    # Chunks of one size, no longer than CHUNK, and as many for one thread as for another.
    parts = -(-n // CHUNK)
    parts = -(-parts // threads) * threads if n >= threads else n
    edges = [n * k // parts for k in range(parts + 1)] if parts else [0]
    spans = list(itertools.pairwise(edges))
    if threads == 1 or len(spans) < 2:
        return [work(start, stop) for start, stop in spans]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda span: work(*span), spans))


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def _checked_offsets(
    n_vertices: npt.ArrayLike, arrow_offsets: npt.ArrayLike
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    counts, offsets = np.asarray(n_vertices), np.asarray(arrow_offsets)
    for name, array in (("n_vertices", counts), ("arrow_offsets", offsets)):
        if array.ndim != 1 or not (np.issubdtype(array.dtype, np.integer) or array.size == 0):
            raise InputError(
                f"{name}: expected integers in one row, got {array.dtype} of shape {array.shape}"
            )
    if len(offsets) != len(counts) + 1:
        raise InputError(f"arrow_offsets: expected {len(counts) + 1} numbers, one more than n_vertices")
    if (counts < 0).any():
        g = int(np.argmax(counts < 0))
        raise InputError(f"n_vertices[{g}] = {counts[g]}: expected 0 or more")
    if offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise InputError("arrow_offsets: expected numbers from 0 on that never fall")
    return np.array(counts, dtype=np.int64), np.array(offsets, dtype=np.int64)


def as_chunk(barcodes: Sequence[Barcodes]) -> Chunk:
    """Return barcodes as flat bars and (digraphs, dims) numbers of bars."""
    bars = [bars for one in barcodes for bars in one]
    counts = np.array([[len(part) for part in one] for one in barcodes], dtype=np.int64)
    return np.concatenate(bars), counts


def with_replacements(
    bars: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], replacements: dict[int, Barcodes]
) -> Chunk:
    """Put barcodes into the rows of a chunk that the fast engine has left out."""
    ends = np.cumsum(np.maximum(counts, 0).sum(axis=1))
    parts = []
    done = 0
    for i, barcodes in sorted(replacements.items()):
        parts += [bars[done : ends[i]], *barcodes]
        done = int(ends[i])
        counts[i] = [len(part) for part in barcodes]
    return np.concatenate([*parts, bars[done:]]), counts


def joined(chunks: Sequence[Chunk], max_dim: int, engine: str, regular: bool, field: int) -> BatchBarcodes:
    """Return the chunks, in their order, as one result."""
    bars = np.concatenate([np.zeros((0, 2)), *(part for part, _ in chunks)])
    counts = np.concatenate([np.zeros((0, max_dim + 1), np.int64), *(part for _, part in chunks)])
    offsets = np.concatenate([[0], np.cumsum(counts.ravel())])
    for array in (bars, offsets):
        array.flags.writeable = False
    return BatchBarcodes(bars, offsets, max_dim + 1, engine, regular, field)
