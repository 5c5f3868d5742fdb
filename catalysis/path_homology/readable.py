"""The readable engine: persistent path homology of a digraph in plain Python, in any dimension.

It follows the definitions and takes no short cut that hides them, so it serves as the reference for the
fast engine. Sources: Grigor'yan, Lin, Muranov, Yau, "Homologies of path complexes and digraphs"
(arXiv 1207.2834); Chowdhury and Mémoli, "Persistent path homology of directed networks" (SODA 2018,
arXiv 1701.00565).

The words used here:

* A p-path is *allowed* if each of its p steps is an arrow. It enters at the largest weight of its arrows;
  a vertex enters at 0. The face of an allowed path need not be allowed.
* Ω_p(t) holds the chains of allowed p-paths of time <= t whose boundary consists of allowed
  (p-1)-paths of time <= t. A chain that is in Ω_p(t) stays there as t grows.
* Homology is taken of Ω, and bars say when its classes are born and when they die.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catalysis.path_homology.barcodes import Barcodes, Cycle, sorted_bars
from catalysis.path_homology.sparse_columns import Column, Columns, columns_over

__all__ = ["MANY", "readable_persistence"]

MANY = 8192
"""Beyond so many vertices a digraph is taken apart, and columns are sparse: memory stays linear in its size."""

Path = tuple[int, ...]


@dataclass(frozen=True)
class _AllowedPaths:
    """Allowed p-paths in order of entry, with their times and their places in that order."""

    paths: list[Path]
    times: list[float]
    place: dict[Path, int]


@dataclass(frozen=True)
class _OmegaElement:
    """A chain of Ω_p: when it enters, the chain over p-paths, its boundary over (p-1)-paths."""

    entry: float
    chain: Column
    boundary: Column


def readable_persistence(
    n_vertices: int,
    arrows: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64],
    *,
    max_dim: int,
    max_path_length: int,
    regular: bool,
    field: int,
    representatives: bool,
) -> Barcodes:
    """Return the persistent path homology of a checked digraph.

    The arguments are those of `catalysis.path_homology.persistence`, which checks them. `max_dim` may be
    any number; time and memory grow with the number of allowed paths.
    """
    columns = columns_over(field, sparse=n_vertices + len(arrows) > MANY)
    weight = {(int(a), int(b)): float(w) for (a, b), w in zip(arrows, weights, strict=True)}

    # Dimension 0: every vertex is a chain of Ω_0, is there from the start, and is a cycle.
    allowed = _in_order([((v,), 0.0) for v in range(n_vertices)])
    omega = [_OmegaElement(0.0, columns.column([(v, 1)]), columns.column([])) for v in range(n_vertices)]
    cycles: dict[int, Column] = {v: columns.column([(v, 1)]) for v in range(n_vertices)}

    all_bars: list[npt.NDArray[np.float64]] = []
    all_cycles: list[tuple[Cycle, ...]] = []
    for p in range(max_dim + 1):
        # Classes of dimension p are born with the cycles of Ω_p and die as boundaries of Ω_{p+1}.
        longer = _allowed_paths(allowed, weight) if p < max_path_length else _in_order([])
        longer_omega = _omega_basis(longer, allowed, columns, regular, chains=p < max_dim)
        deaths, longer_cycles = _reduced(
            longer_omega, omega, cycles, columns, only_deaths=p == max_dim, track=representatives
        )
        bars: list[tuple[float, float]] = []
        chains: list[Column] = []
        for k in cycles:
            death, boundary = deaths.get(k, (float("inf"), None))
            if death > omega[k].entry:
                bars.append((omega[k].entry, death))
                chains.append(cycles[k] if boundary is None else boundary)
        table, order = sorted_bars(bars)
        all_bars.append(table)
        if representatives:
            all_cycles.append(tuple(_cycle(chains[i], omega, allowed, columns) for i in order))
        allowed, omega, cycles = longer, longer_omega, longer_cycles

    return Barcodes(
        tuple(all_bars), "readable", regular, field, tuple(all_cycles) if representatives else None
    )


def _in_order(timed: list[tuple[Path, float]]) -> _AllowedPaths:
    timed.sort(key=lambda item: item[1])
    paths = [path for path, _ in timed]
    return _AllowedPaths(
        paths, [time for _, time in timed], {path: place for place, path in enumerate(paths)}
    )


def _allowed_paths(shorter: _AllowedPaths, weight: dict[tuple[int, int], float]) -> _AllowedPaths:
    """Return the allowed p-paths, each an allowed (p-1)-path with one more arrow."""
    following: dict[int, list[tuple[int, float]]] = {}
    for (a, b), w in weight.items():
        following.setdefault(a, []).append((b, w))
    return _in_order(
        [
            ((*path, b), max(time, w))
            for path, time in zip(shorter.paths, shorter.times, strict=True)
            for b, w in following.get(path[-1], ())
        ]
    )


def _faces(path: Path, regular: bool) -> list[tuple[Path, int]]:
    """Return the faces of an allowed path with their signs; a regular boundary leaves out those with …aa… ."""
    faces = []
    sign = 1
    for q in range(len(path)):
        # Steps are arrows and no arrow is a loop, so only the two beside the vertex left out can be equal.
        repeated = 0 < q < len(path) - 1 and path[q - 1] == path[q + 1]
        if not (regular and repeated):
            faces.append((path[:q] + path[q + 1 :], sign))
        sign = -sign
    return faces


def _omega_basis(
    allowed: _AllowedPaths, faces: _AllowedPaths, columns: Columns, regular: bool, *, chains: bool
) -> list[_OmegaElement]:
    """Return a basis of Ω_p in order of entry, such that its elements of entry <= t span Ω_p(t).

    The columns are the boundaries of the allowed p-paths, ordered by the time of the path; the rows are
    the (p-1)-paths, ordered by the time at which they become allowed, those that never do being last.
    A column is reduced, by earlier columns, until the last row in it that is not allowed yet when the
    path enters (its pivot) is the pivot of no earlier column. The chain then enters Ω with its pivot: when
    the path enters if no such row is left, and never if the pivot never becomes allowed.

    Why this is a basis of every Ω_p(t): a combination of the chains has the latest of their paths in it and
    the latest of their pivots in its boundary, as both are distinct; so it is in Ω_p(t) only if each is.

    Without `chains` the chains themselves are left empty: of the longest paths only boundaries are needed.
    """
    rows = dict(faces.place)
    nothing = columns.column([])
    pivots: dict[int, tuple[Column, Column]] = {}
    elements: list[_OmegaElement] = []
    for place, (path, time) in enumerate(zip(allowed.paths, allowed.times, strict=True)):
        boundary = columns.column(
            [(rows.setdefault(face, len(rows)), sign) for face, sign in _faces(path, regular)]
        )
        chain = columns.column([(place, 1)]) if chains else nothing
        first_later = bisect_right(faces.times, time)
        boundary, chain = columns.reduced(boundary, chain, pivots, first_later)
        low = columns.low(boundary)
        if low >= first_later:
            pivots[low] = boundary, chain
        if low < len(faces.paths):
            entry = time if low < first_later else faces.times[low]
            elements.append(_OmegaElement(entry, chain, boundary))
    elements.sort(key=lambda element: element.entry)
    return elements


def _coordinates(omega: list[_OmegaElement], columns: Columns) -> Callable[[Column], Column]:
    """Return a function that writes a chain of Ω over the basis `omega`, given over allowed paths."""
    nothing = columns.column([])
    pivots = {
        columns.low(element.chain): (element.chain, columns.column([(k, -1)]))
        for k, element in enumerate(omega)
    }

    def coordinates(chain: Column) -> Column:
        rest, found = columns.reduced(chain, nothing, pivots)
        assert columns.low(rest) < 0, "not a chain of Ω"
        return found

    return coordinates


def _reduced(
    omega: list[_OmegaElement],
    faces: list[_OmegaElement],
    face_cycles: dict[int, Column],
    columns: Columns,
    *,
    only_deaths: bool,
    track: bool,
) -> tuple[dict[int, tuple[float, Column]], dict[int, Column]]:
    """Reduce the boundary from Ω_p to Ω_{p-1}, both in order of entry.

    `face_cycles` has a key for each element of Ω_{p-1} that gives birth to a cycle. Returned are the deaths,
    ``{element of Ω_{p-1}: (time, boundary that kills its class)}``, and the cycles born in Ω_p,
    ``{element: cycle}``; both chains are written over the bases of Ω. Without `track` the cycles are left
    empty; with `only_deaths` they are left out, and the reduction ends when every class is dead.
    """
    coordinates = _coordinates(faces, columns)
    pivots: dict[int, tuple[Column, Column]] = {}
    deaths: dict[int, tuple[float, Column]] = {}
    cycles: dict[int, Column] = {}
    for k, element in enumerate(omega):
        if len(deaths) == len(face_cycles):
            if only_deaths:
                break
            if not track:
                cycles[k] = columns.column([])
                continue
        boundary = coordinates(element.boundary)
        chain = columns.column([(k, 1)]) if track else columns.column([])
        boundary, chain = columns.reduced(boundary, chain, pivots)
        low = columns.low(boundary)
        if low < 0:
            cycles[k] = chain
        else:
            pivots[low] = boundary, chain
            deaths[low] = element.entry, boundary
    return deaths, cycles


def _cycle(chain: Column, omega: list[_OmegaElement], allowed: _AllowedPaths, columns: Columns) -> Cycle:
    """Write a chain over the basis of Ω as a chain of allowed paths."""
    total = columns.column([])
    for k, coefficient in columns.entries(chain):
        total = columns.minus(total, -coefficient, omega[k].chain)
    entries = list(columns.entries(total))
    paths = [allowed.paths[place] for place, _ in entries]
    return Cycle(
        np.array(paths, dtype=np.int64), np.array([coefficient for _, coefficient in entries], dtype=np.int64)
    )
