"""Template mode: one geometry, thousands of decorations."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from catalysis.path_homology.barcodes import Barcodes
from catalysis.path_homology.batch import BatchBarcodes, Chunk, as_chunk, in_chunks, joined, with_replacements
from catalysis.path_homology.digraph import checked_digraph, checked_field, checked_lengths, checked_truth
from catalysis.path_homology.engines import compiled, obstacle_to_fast, persistence
from catalysis.path_homology.geometry import MOST_ARROWS, MOST_WALKS, Geometry, n_walks, tables
from interpretkit.errors import InputError

__all__ = ["DigraphTemplate"]

ENOUGH = 1000
"""How many decorations repay the making of tables."""

_EXACT = 2**53


class DigraphTemplate:
    """A weighted graph whose edges get their directions from ranks that change: one site, many decorations.

    Each edge becomes the arrow from the vertex of lower rank to that of higher rank, or both arrows if the
    ranks are equal. What the geometry fixes (checks, order of entry, sizes) is done once. After the first thousand
    decorations the walks along all possible arrows are tabulated as well, which makes the rest faster; that is for
    regular homology up to dimension 2, with paths of length 3, and for graphs of some hundred vertices.

    Parameters
    ----------
    n_vertices : int
        Number of vertices.
    pairs : (q, 2) int array
        Pairs of neighbours, each once, in either order.
    weights : (q,) float array
        Weight of each pair, finite and >= 0 (a distance in Å, say).
    max_dim : int
    regular : bool
    field : int
    engine : str
    max_path_length : int, optional
        As in `persistence`.

    Raises
    ------
    InputError
        If an argument is not as described.

    Examples
    --------
    >>> triangle = DigraphTemplate(3, [[0, 1], [1, 2], [2, 0]], [1.0, 1.0, 1.0], max_dim=1)
    >>> [len(bars) for bars in triangle.persistence([[1, 2, 3], [1, 1, 1]])[0]]
    [3, 0]
    """

    def __init__(
        self,
        n_vertices: int,
        pairs: npt.ArrayLike,
        weights: npt.ArrayLike,
        *,
        max_dim: int = 2,
        regular: bool = True,
        field: int = 2,
        engine: str = "auto",
        max_path_length: int | None = None,
    ) -> None:
        self.max_dim, self.max_path_length = checked_lengths(max_dim, max_path_length)
        self.field = checked_field(field)
        self.regular = checked_truth(regular, "regular")
        self.n_vertices, edges, lengths = checked_digraph(n_vertices, pairs, weights)
        ends = np.sort(edges, axis=1)
        _, first = np.unique(ends, axis=0, return_index=True)
        if len(first) < len(ends):
            k = int(np.setdiff1d(np.arange(len(ends)), first)[0])
            raise InputError(f"pairs[{k}] = {edges[k].tolist()}: expected each pair once, in one order")
        order = np.argsort(lengths, kind="stable")
        self.pairs = np.ascontiguousarray(ends[order])
        self.weights = np.array(lengths[order])
        for array in (self.pairs, self.weights):
            array.flags.writeable = False
        self._engine = engine
        self._obstacle = obstacle_to_fast(engine, self.max_dim, self.field, False)
        fast = compiled()
        if fast is not None:
            self._obstacle = self._obstacle or fast.obstacle(self.n_vertices)
        self._n_seen = 0
        self._geometry: Geometry | None = None
        if self._obstacle and engine == "fast":
            raise InputError(f"engine = 'fast': {self._obstacle}; engine 'auto' or 'readable' does that")

    def digraph(self, ranks: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return the arrows (m, 2) and weights (m,) of one decoration, given by its ranks (n_vertices,)."""
        (row,) = self._checked_ranks(ranks[np.newaxis] if isinstance(ranks, np.ndarray) else [ranks])
        tail, head = row[self.pairs[:, 0]], row[self.pairs[:, 1]]
        forth, back = tail <= head, head <= tail
        arrows = np.concatenate([self.pairs[forth], self.pairs[back][:, ::-1]])
        return arrows, np.concatenate([self.weights[forth], self.weights[back]])

    def persistence(self, ranks: npt.ArrayLike, *, n_threads: int | None = None) -> BatchBarcodes:
        """Return the persistent path homology of every decoration, in their order.

        Parameters
        ----------
        ranks : (d, n_vertices) array of numbers
            One row per decoration.
        n_threads : int, optional
            Number of threads; by default one per core that this process may use.

        Returns
        -------
        BatchBarcodes

        Raises
        ------
        InputError
            If the ranks are of another shape, or a rank is NaN.
        """
        rows = self._checked_ranks(ranks)
        fast = compiled()
        if self._obstacle or fast is None:
            found = [self._one(row) for row in rows]
            engines = sorted({name for one in found for name in one.engine.split(", ")}) or ["readable"]
            chunks = [as_chunk([one]) for one in found]
            return joined(chunks, self.max_dim, ", ".join(engines), self.regular, self.field)
        pairs, times = fast.flat(self.pairs), fast.flat(self.weights)
        self._n_seen += len(rows)
        if self._geometry is None and self._n_seen >= ENOUGH and self._exact_and_small():
            self._geometry = tables(self.n_vertices, self.pairs, self.weights)
        geometry = self._geometry
        in_second = False

        def chunk(start: int, stop: int) -> Chunk:
            nonlocal in_second
            part = np.array(rows[start:stop], dtype=np.float64, order="C")
            if geometry is not None:
                bars, counts = fast.carry_out(*geometry, part)
            else:
                bars, counts, _ = fast.sweep_decorations(
                    self.n_vertices,
                    pairs,
                    times,
                    part,
                    self.max_dim,
                    self.max_path_length,
                    self.regular,
                    fast.ROOM_FOR_64,
                )
            crowded = np.flatnonzero(counts[:, 0] < 0)
            if len(crowded):
                others = {int(i): self._one(part[i]) for i in crowded}
                in_second |= any(barcodes.engine == "readable" for barcodes in others.values())
                bars, counts = with_replacements(bars, counts, others)
            return bars, counts

        chunks = in_chunks(chunk, len(rows), n_threads)
        engine = "fast, readable" if in_second else "fast"
        return joined(chunks, self.max_dim, engine, self.regular, self.field)

    def _exact_and_small(self) -> bool:
        """Return whether the tables serve what is asked, and are not too large."""
        if not (self.regular and self.max_dim == 2 and self.max_path_length == 3):
            return False
        return n_walks(self.n_vertices, self.pairs) + self.n_vertices**2 <= MOST_WALKS and (
            2 * len(self.pairs) <= MOST_ARROWS
        )

    def _checked_ranks(self, ranks: Any) -> npt.NDArray[np.generic]:
        rows = np.asarray(ranks)
        if rows.ndim != 2 or rows.shape[1] != self.n_vertices:
            raise InputError(f"ranks: expected {self.n_vertices} numbers a row, got shape {rows.shape}")
        if np.ma.is_masked(ranks):
            raise InputError("ranks: some are masked; expected numbers only")
        if rows.dtype.kind == "f" and np.isnan(rows).any():
            raise InputError("ranks: expected numbers, got a NaN")
        if not rows.size or (
            rows.dtype.kind in "iuf" and rows.dtype.itemsize <= 8 and _are_exact(rows, ranks)
        ):
            return rows
        if rows.dtype.kind not in "iufO":
            raise InputError(f"ranks: expected numbers, got {rows.dtype}")
        # Only their order counts: whole numbers take the places of what double precision would round.
        exact = rows if isinstance(ranks, np.ndarray) else np.array(ranks, dtype=object)
        if exact.dtype.kind != "O":
            return np.searchsorted(np.unique(exact), exact)
        values = exact.ravel().tolist()
        if not all(_is_real(value) for value in values):
            raise InputError("ranks: expected numbers, got something else among them")
        places = {value: place for place, value in enumerate(sorted(set(values)))}
        return np.array([places[value] for value in values]).reshape(exact.shape)

    def _one(self, row: npt.NDArray[np.generic]) -> Barcodes:
        """Compute one decoration on its own, by the engine that can."""
        return persistence(
            self.n_vertices,
            *self.digraph(row),
            max_dim=self.max_dim,
            max_path_length=self.max_path_length,
            regular=self.regular,
            field=self.field,
            engine=self._engine,
        )


def _are_exact(rows: npt.NDArray[Any], given: Any) -> bool:
    """Return whether numbers are what they were given as, and stay so in double precision."""
    if rows.dtype.kind == "f":
        # An array is what it is; a list of large integers has been rounded on the way into one.
        return isinstance(given, np.ndarray) or not (np.abs(rows[np.isfinite(rows)]) >= _EXACT).any()
    return bool((rows <= _EXACT).all() and (rows >= -_EXACT).all())


def _is_real(value: object) -> bool:
    # NumPy's own scalars are among them, and so are the fractions of the standard library; NaN has no order.
    return isinstance(value, Real) and not isinstance(value, (bool, np.bool_)) and value == value
