"""Large digraphs by their components: path homology of a disjoint union is the sum of that of its parts.

The fast engine's tables grow with the square of the number of vertices, which few arrows do not make use of. So a
digraph with many vertices is taken apart first; a vertex without arrows is an endless bar, and is never looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catalysis.path_homology.barcodes import Barcodes, Cycle, sorted_bars

__all__ = ["Component", "components", "united"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Component:
    """A part of a digraph that is connected, directions aside.

    Attributes
    ----------
    vertices : (n,) int array
        Its vertices in the whole digraph, ascending.
    arrows : (m, 2) int array
        Its arrows between places in `vertices`.
    weights : (m,) float array
        Their weights.
    """

    vertices: Ints
    arrows: Ints
    weights: npt.NDArray[np.float64]


def components(arrows: Ints, weights: npt.NDArray[np.float64]) -> list[Component]:
    """Return the components of a checked digraph that have arrows; memory is linear in the number of arrows."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    vertices, ends = np.unique(arrows, return_inverse=True)
    ends = ends.reshape(-1, 2)
    n = len(vertices)
    joined = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(n, n))
    count, label = connected_components(joined, directed=False)
    by_label = np.argsort(label, kind="stable")
    sizes = np.bincount(label, minlength=count)
    starts = np.cumsum(sizes) - sizes
    place = np.empty(n, np.int64)
    place[by_label] = np.arange(n) - np.repeat(starts, sizes)
    of_arrow = label[ends[:, 0]]
    order = np.argsort(of_arrow, kind="stable")
    edges = np.concatenate([[0], np.cumsum(np.bincount(of_arrow, minlength=count))])
    found = []
    for k in range(count):
        rows = order[edges[k] : edges[k + 1]]
        own = vertices[by_label[starts[k] : starts[k] + sizes[k]]]
        found.append(Component(own, place[ends[rows]], weights[rows]))
    return found


def united(
    n_vertices: int,
    parts: list[Component],
    compute: Callable[[Component], Barcodes],
    *,
    max_dim: int,
    regular: bool,
    field: int,
    representatives: bool,
) -> Barcodes:
    """Return the barcodes of a digraph from those of its components.

    Parameters
    ----------
    n_vertices : int
        Of the whole digraph; those in no component have no arrow.
    parts : list of Component
        The components.
    compute : callable
        Returns the barcodes of one component.
    max_dim : int
    regular : bool
    field : int
    representatives : bool
        As in `catalysis.path_homology.persistence`.
    """
    found = [compute(part) for part in parts]
    alone = np.ones(n_vertices, dtype=np.bool_)
    for part in parts:
        alone[part.vertices] = False
    lonely = np.flatnonzero(alone)
    bars: list[npt.NDArray[np.float64]] = []
    cycles: list[tuple[Cycle, ...]] = []
    for p in range(max_dim + 1):
        tables = [barcodes[p] for barcodes in found]
        if p == 0:
            tables.append(np.column_stack([np.zeros(len(lonely)), np.full(len(lonely), np.inf)]))
        table, order = sorted_bars(np.concatenate([np.zeros((0, 2)), *tables]))
        bars.append(table)
        if representatives:
            chains = [
                Cycle(part.vertices[cycle.paths], cycle.coefficients)
                for part, barcodes in zip(parts, found, strict=True)
                for cycle in (barcodes.representatives or ())[p]
            ]
            if p == 0:
                chains += [Cycle(np.array([[v]], np.int64), np.ones(1, np.int64)) for v in lonely]
            cycles.append(tuple(chains[k] for k in order))
    engines = sorted({barcodes.engine for barcodes in found}) or ["readable"]
    return Barcodes(
        tuple(bars), ", ".join(engines), regular, field, tuple(cycles) if representatives else None
    )
