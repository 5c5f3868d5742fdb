"""What a weighted digraph has to look like before its path homology is taken."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from interpretkit.errors import InputError

__all__ = [
    "check_values",
    "checked_arrows",
    "checked_count",
    "checked_digraph",
    "checked_field",
    "checked_lengths",
    "checked_number",
    "checked_truth",
    "checked_weights",
    "shaped_digraph",
]


MOST_VERTICES = 2**62
Digraph = tuple[int, npt.NDArray[np.int64], npt.NDArray[np.float64]]


def checked_digraph(n_vertices: int, arrows: npt.ArrayLike, weights: npt.ArrayLike) -> Digraph:
    """Return the digraph as ``(n_vertices, arrows (m, 2) int64, weights (m,) float64)``, or refuse it.

    Raises
    ------
    InputError
        If a shape is wrong, an index is out of range, an arrow is a loop or is repeated, or a weight is
        NaN, negative or infinite. The message names the first offender.
    """
    digraph = shaped_digraph(n_vertices, arrows, weights)
    check_values(*digraph)
    return digraph


def shaped_digraph(n_vertices: int, arrows: npt.ArrayLike, weights: npt.ArrayLike) -> Digraph:
    """Return the digraph with types and shapes checked, but values not looked at.

    Raises
    ------
    InputError
        If a type or a shape is wrong.
    """
    n = checked_count(n_vertices)
    pairs = checked_arrows(arrows)
    return n, pairs, checked_weights(weights, len(pairs))


def check_values(
    n: int, pairs: npt.NDArray[np.int64], lengths: npt.NDArray[np.float64], name: str = ""
) -> None:
    """Refuse a digraph of the right shape whose values are wrong; `name` begins the message.

    Raises
    ------
    InputError
        If an index is out of range, an arrow is a loop or is repeated, or a weight is NaN, negative or
        infinite.
    """
    bad = ~(np.isfinite(lengths) & (lengths >= 0))
    if bad.any():
        k = int(np.argmax(bad))
        raise InputError(f"{name}weights[{k}] = {lengths[k]}: expected a finite number >= 0")
    out_of_range = ((pairs < 0) | (pairs >= n)).any(axis=1)
    if out_of_range.any():
        k = int(np.argmax(out_of_range))
        expected = f"vertices from 0 to {n - 1}" if n else "no arrow, as there are no vertices"
        raise InputError(f"{name}arrows[{k}] = {_arrow(pairs[k])}: expected {expected}")
    loops = pairs[:, 0] == pairs[:, 1]
    if loops.any():
        k = int(np.argmax(loops))
        raise InputError(f"{name}arrows[{k}] = {_arrow(pairs[k])}: expected no loop")
    unique, first = np.unique(pairs, axis=0, return_index=True)
    if len(unique) < len(pairs):
        repeated = np.ones(len(pairs), dtype=bool)
        repeated[first] = False
        k = int(np.argmax(repeated))
        raise InputError(f"{name}arrows[{k}] = {_arrow(pairs[k])}: expected each arrow once")


def checked_number(value: Any, name: str, expected: str) -> int:
    """Return a whole number as an int; raise `InputError`, with what was expected, for anything else.

    True and False count as numbers in Python, but whoever gives them means something else.
    """
    if isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name} = {value!r}: expected {expected}")
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(f"{name} = {value!r}: expected {expected}") from None


def checked_truth(value: Any, name: str) -> bool:
    """Return a truth value as a bool; raise `InputError` for anything else, for ``"no"`` would count as true."""
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name} = {value!r}: expected True or False")
    return bool(value)


def checked_count(n_vertices: Any) -> int:
    """Return the number of vertices as an int; raise `InputError` unless it is a whole number >= 0."""
    n = checked_number(n_vertices, "n_vertices", "a whole number")
    if n < 0:
        raise InputError(f"n_vertices = {n}: expected 0 or more")
    if n > MOST_VERTICES:
        raise InputError(
            f"n_vertices = {n}: expected at most {MOST_VERTICES}, for vertices have 64-bit numbers"
        )
    return n


def checked_arrows(arrows: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return arrows as ``(m, 2)`` int64; raise `InputError` for another shape or for no integers."""
    try:
        pairs = np.asarray(arrows)
    except ValueError:
        raise InputError("arrows: expected an array of shape (m, 2), got rows of unequal length") from None
    _refuse_masked(arrows, "arrows")
    if pairs.size == 0 and pairs.ndim <= 2:
        return np.zeros((0, 2), dtype=np.int64)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise InputError(f"arrows: expected an array of shape (m, 2), got shape {pairs.shape}")
    if not np.issubdtype(pairs.dtype, np.integer):
        raise InputError(f"arrows: expected integers, got {pairs.dtype}")
    return pairs.astype(np.int64, copy=False)


def checked_weights(weights: npt.ArrayLike, n_arrows: int) -> npt.NDArray[np.float64]:
    """Return weights as ``(m,)`` float64; raise `InputError` for another shape or for no numbers."""
    _refuse_masked(weights, "weights")
    try:
        given = np.asarray(weights)
        # Texts would be read as numbers, and the imaginary part of complex ones be dropped.
        if given.size and given.dtype.kind not in "iufO":
            raise InputError(f"weights: expected numbers, got {given.dtype}")
        lengths = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("weights: expected numbers") from None
    if lengths.shape != (n_arrows,):
        raise InputError(f"weights: expected shape ({n_arrows},), one per arrow, got shape {lengths.shape}")
    return lengths


def checked_lengths(max_dim: Any, max_path_length: Any) -> tuple[int, int]:
    """Return ``(max_dim, max_path_length)`` as ints, the second filled in with ``max_dim + 1`` if None.

    Raises
    ------
    InputError
        Unless ``max_dim >= 0`` and ``max_path_length`` is ``max_dim`` or ``max_dim + 1``. Longer paths
        would change nothing, shorter ones would leave whole dimensions empty.
    """
    dim = checked_number(max_dim, "max_dim", "a whole number")
    if dim < 0:
        raise InputError(f"max_dim = {dim}: expected 0 or more")
    if max_path_length is None:
        return dim, dim + 1
    length = checked_number(max_path_length, "max_path_length", "a whole number or None")
    if length not in (dim, dim + 1):
        raise InputError(
            f"max_path_length = {length}: expected {dim} or {dim + 1}, given that max_dim = {dim}"
        )
    return dim, length


def checked_field(field: Any) -> int:
    """Return the number of elements of the prime field; raise `InputError` unless it is a prime < 2**31."""
    p = checked_number(field, "field", "a prime number")
    if p == 2:
        return p
    if not 2 < p < 2**31:
        raise InputError(f"field = {p}: expected a prime number from 2 to {2**31 - 1}")
    divisor = 2
    while divisor * divisor <= p:
        if p % divisor == 0:
            raise InputError(f"field = {p}: expected a prime number, and {divisor} divides it")
        divisor += 1
    return p


def _refuse_masked(array: npt.ArrayLike, name: str) -> None:
    if np.ma.is_masked(array):
        raise InputError(f"{name}: some are masked; expected numbers only")


def _arrow(pair: npt.NDArray[np.int64]) -> str:
    return f"{int(pair[0])} -> {int(pair[1])}"
