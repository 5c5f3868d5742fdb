"""The fast engine: compiled by numba at the first call, and kept compiled for later processes."""

from __future__ import annotations

import hashlib
import importlib.resources
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from catalysis.path_homology import decorations, sweep
from catalysis.path_homology.barcodes import Barcodes
from catalysis.path_homology.caching import kept_compiled
from catalysis.path_homology.class_sets import WORDS

__all__ = [
    "ROOM_FOR_64",
    "carry_out",
    "fast_persistence",
    "flat",
    "obstacle",
    "sweep_decorations",
    "sweep_digraphs",
]

MAX_VERTICES = 8192
"""Largest number of vertices that the engine takes."""

ROOM_FOR_64 = np.empty(0, np.uint64)
ROOM_FOR_512 = np.empty((0, WORDS), np.uint64)
"""Forms of the sweep: how many classes of one dimension may live at once."""

SOURCES = ("class_sets.py", "classes.py", "decorations.py", "sweep.py")
"""Files whose code is compiled, beside this one."""


def digest(folder: Traversable) -> str:
    """Return the SHA-256 of `SOURCES` in a folder, as 64 hexadecimal digits."""
    digests = [hashlib.sha256(folder.joinpath(name).read_bytes()).digest() for name in SOURCES]
    return hashlib.sha256(b"".join(digests)).hexdigest()


def entries(sources: str, cache: bool = True) -> tuple[Any, Any, Any]:
    """Return `sweep_digraphs`, `sweep_decorations` and `carry_out`, which may be kept compiled for these sources.

    To know whether kept code is stale, numba looks at the file of the function called and at the values that
    the function takes from around it, but not at what it calls. So the functions below take `sources`.
    """

    @njit(cache=cache, nogil=True)
    def sweep_digraphs(n_vertices, offsets, arrows, weights, max_dim, length, regular, start, stop, form):
        _ = sources
        return sweep.sweep_digraphs(
            n_vertices, offsets, arrows, weights, max_dim, length, regular, start, stop, form
        )

    @njit(cache=cache, nogil=True)
    def sweep_decorations(n, pairs, times, ranks, max_dim, length, regular, form):
        _ = sources
        return sweep.sweep_decorations(n, pairs, times, ranks, max_dim, length, regular, form)

    @njit(cache=cache, nogil=True)
    def carry_out(arrows, paths, judgements, equations, places, steps, components, ranks):
        _ = sources
        return decorations.carry_out(arrows, paths, judgements, equations, places, steps, components, ranks)

    return sweep_digraphs, sweep_decorations, carry_out


sweep_digraphs, sweep_decorations, carry_out = kept_compiled(
    entries, digest(importlib.resources.files("catalysis.path_homology"))
)


def obstacle(n_vertices: int) -> str:
    """Say why the engine cannot take a digraph of this size; an empty string if it can.

    Some tables have an entry of 4 bytes for each pair of vertices; others grow with the number of 2-paths.
    """
    if n_vertices > MAX_VERTICES:
        return f"{n_vertices} vertices are more than the {MAX_VERTICES} that its tables hold"
    return ""


def fast_persistence(
    n_vertices: int,
    arrows: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64],
    *,
    max_dim: int,
    max_path_length: int,
    regular: bool,
) -> Barcodes | None:
    """Return the persistent path homology over F_2 of one digraph, or None if the engine cannot serve.

    The arguments are those of `catalysis.path_homology.persistence`, `max_dim` being at most 2. None means
    either that the input is no weighted digraph, or that more than 512 classes of one dimension live at once.
    """
    # Few digraphs need the wide form of the sweep, so it is tried, and compiled, only when one does.
    for form in (ROOM_FOR_64, ROOM_FOR_512):
        bars, counts, bad = sweep_digraphs(
            np.array([n_vertices]),
            np.array([0, len(arrows)]),
            flat(arrows),
            flat(weights),
            max_dim,
            max_path_length,
            regular,
            0,
            1,
            form,
        )
        if bad >= 0:
            return None
        n_bars = counts[0].tolist()
        if n_bars[0] >= 0:
            parts = []
            at = 0
            for k in n_bars:
                parts.append(bars[at : at + k])
                at += k
            return Barcodes(tuple(parts), "fast", regular, 2)
    return None


def flat(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the array in the one layout that the compiled code takes; a copy only where needed."""
    array = np.ascontiguousarray(array)
    return array if array.flags.writeable else array.copy()
