"""The one door to the engines: check the input, choose an engine, say which one served."""

from __future__ import annotations

import functools
from types import ModuleType

import numpy as np
import numpy.typing as npt

from catalysis.path_homology.barcodes import Barcodes
from catalysis.path_homology.components import Component, components, united
from catalysis.path_homology.digraph import (
    Digraph,
    check_values,
    checked_field,
    checked_lengths,
    checked_truth,
    shaped_digraph,
)
from catalysis.path_homology.readable import MANY, readable_persistence
from interpretkit.errors import InputError

__all__ = ["betti_numbers", "persistence"]


def persistence(
    n_vertices: int,
    arrows: npt.ArrayLike,
    weights: npt.ArrayLike,
    *,
    max_dim: int = 2,
    regular: bool = True,
    field: int = 2,
    engine: str = "auto",
    max_path_length: int | None = None,
    representatives: bool = False,
) -> Barcodes:
    """Return the persistent path homology (GLMY) of a weighted digraph.

    Arrows enter at their weight, vertices at 0, and a path at the largest weight of its arrows. At each
    threshold t the path homology of the digraph with the arrows of weight <= t is taken; a bar ``[birth,
    death)`` is a class that lives through these thresholds. Ties may come in any order.

    Parameters
    ----------
    n_vertices : int
        Number of vertices; they are ``0 … n_vertices - 1``. Beyond 8192 of them the digraph is taken apart into
        its components, and memory grows with the numbers of vertices and of allowed paths.
    arrows : (m, 2) int array
        Tail and head of each arrow: no loops, no arrow twice. Both directions of a pair may be there.
    weights : (m,) float array
        Weight of each arrow, finite and >= 0 (a distance in Å, say). Bars come in the same unit.
    max_dim : int
        Highest dimension of homology.
    regular : bool
        True: faces with two equal neighbours (…aa…) count as zero, the GLMY convention. False: they
        count as faces that are never allowed.
    field : int
        The prime number of elements of the field of coefficients.
    engine : {"auto", "fast", "readable"}
        ``"auto"`` takes the fastest engine that can do what is asked; the result names it. The fast engine
        needs numba, and serves F_2 up to dimension 2 without representatives.
    max_path_length : int, optional
        Longest paths used: ``max_dim + 1`` (default), which is exact, or ``max_dim``. With ``max_dim``
        nothing kills a class of the highest dimension, whose bars then show the kernel of the boundary
        on Ω. Codes that stop at paths of length 2 report that as their β2.
    representatives : bool
        Also return, for each bar, a cycle that represents it.

    Returns
    -------
    Barcodes
        ``[bars_0 (k, 2), bars_1, …]``, sorted, zero-length bars left out.

    Raises
    ------
    InputError
        If an argument is not as described; the message is one line.

    References
    ----------
    A. Grigor'yan, Y. Lin, Y. Muranov, S.-T. Yau, arXiv 1207.2834. S. Chowdhury, F. Mémoli, SODA 2018,
    arXiv 1701.00565.

    Examples
    --------
    >>> bars = persistence(3, [[0, 1], [1, 2], [2, 0]], [1.0, 1.0, 2.0], max_dim=1)
    >>> bars[1]
    array([[ 2., inf]])
    """
    dim, length = checked_lengths(max_dim, max_path_length)
    p = checked_field(field)
    is_regular = checked_truth(regular, "regular")
    wants_cycles = checked_truth(representatives, "representatives")
    digraph = shaped_digraph(n_vertices, arrows, weights)
    options = {"max_dim": dim, "regular": is_regular, "field": p, "representatives": wants_cycles}
    if digraph[0] > MANY:
        obstacle_to_fast(engine, dim, p, wants_cycles)
        check_values(*digraph)
        parts = components(*digraph[1:])

        def part_of(part: Component) -> Barcodes:
            return _persistence((len(part.vertices), part.arrows, part.weights), engine, length, **options)

        return united(digraph[0], parts, part_of, **options)
    return _persistence(digraph, engine, length, **options)


def _persistence(
    digraph: Digraph,
    engine: str,
    length: int,
    *,
    max_dim: int,
    regular: bool,
    field: int,
    representatives: bool,
) -> Barcodes:
    """Choose an engine for a digraph whose values need not have been looked at."""
    obstacle = obstacle_to_fast(engine, max_dim, field, representatives)
    if not obstacle:
        fast = compiled()
        assert fast is not None
        obstacle = fast.obstacle(digraph[0])
        if not obstacle:
            barcodes = fast.fast_persistence(
                *digraph, max_dim=max_dim, max_path_length=length, regular=regular
            )
            if barcodes is not None:
                return barcodes
            obstacle = "more than 512 classes of one dimension live at once"
    check_values(*digraph)
    if engine == "fast":
        raise InputError(f"engine = 'fast': {obstacle}; engine 'auto' or 'readable' does that")
    return readable_persistence(
        *digraph,
        max_dim=max_dim,
        max_path_length=length,
        regular=regular,
        field=field,
        representatives=representatives,
    )


@functools.cache
def compiled() -> ModuleType | None:
    """Return the module of the fast engine, or None if numba cannot be had."""
    try:
        from catalysis.path_homology import fast
    except ImportError:
        return None
    return fast


def obstacle_to_fast(engine: str, max_dim: int, field: int, representatives: bool) -> str:
    """Say why the fast engine cannot do what is asked, in a few words; an empty string if it can.

    Raises
    ------
    InputError
        If there is no such engine.
    """
    if engine not in ("auto", "fast", "readable"):
        raise InputError(f"engine = {engine!r}: expected 'auto', 'fast' or 'readable'")
    if engine == "readable":
        return "another engine was asked for"
    if max_dim > 2:
        return "it stops at max_dim = 2"
    if field != 2:
        return "it computes over field = 2 only"
    if representatives:
        return "it finds no representatives"
    if compiled() is None:
        return "it needs numba, which cannot be imported"
    return ""


def betti_numbers(
    n_vertices: int,
    arrows: npt.ArrayLike,
    *,
    max_dim: int = 2,
    regular: bool = True,
    field: int = 2,
    engine: str = "auto",
    max_path_length: int | None = None,
) -> npt.NDArray[np.int64]:
    """Return the path Betti numbers β_0 … β_max_dim of a digraph without weights.

    The arguments, and the errors, are those of `persistence`.

    Returns
    -------
    (max_dim + 1,) int array

    Examples
    --------
    >>> betti_numbers(4, [[0, 1], [1, 2], [2, 3], [3, 0]])
    array([1, 1, 0])
    """
    n_arrows = len(np.atleast_1d(np.asarray(arrows, dtype=object)))
    barcodes = persistence(
        n_vertices,
        arrows,
        np.zeros(n_arrows),
        max_dim=max_dim,
        regular=regular,
        field=field,
        engine=engine,
        max_path_length=max_path_length,
    )
    return np.array([len(bars) for bars in barcodes], dtype=np.int64)
