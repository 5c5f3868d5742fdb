"""Sets of living classes in compiled code: one word for most digraphs, eight for those with many classes.

The sets of a digraph are kept in an array of uint64, one row of words per place. If the array has one
dimension, a set is a single word; if it has two, a set is a tuple of eight words, and numba compiles the sweep
once more for these. The functions here are the only ones that see the difference. They exist in compiled
code only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

__all__ = [
    "WORDS",
    "capacity",
    "holds",
    "lowest",
    "nonzero",
    "nothing",
    "plus",
    "read",
    "room",
    "single",
    "write",
]

WORDS = 8
"""Words of a set in the wide form; the functions below spell them out, which is what makes them fast."""

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_EMPTY = (_ZERO,) * WORDS
_ONLY_COMPILED = TypeError("called from Python; expected a call from code that numba compiles")


# What follows declares names and meanings; the overloads below are what numba compiles in their place. Called from
# Python they say so.


def capacity(sets: Any) -> int:
    """Return how many classes of one dimension may live at once."""
    raise _ONLY_COMPILED


def room(sets: Any, places: Any) -> Any:
    """Return an array of the same form, not cleared, with this many places."""
    raise _ONLY_COMPILED


def nothing(sets: Any) -> Any:
    """Return the empty set."""
    raise _ONLY_COMPILED


def single(sets: Any, slot: Any) -> Any:
    """Return the set that holds one slot."""
    raise _ONLY_COMPILED


def read(sets: Any, place: Any) -> Any:
    """Return the set at a place."""
    raise _ONLY_COMPILED


def write(sets: Any, place: Any, bits: Any) -> None:
    """Put a set at a place."""
    raise _ONLY_COMPILED


def plus(one: Any, other: Any) -> Any:
    """Return the sum over F_2: what is in one of the sets and not in both."""
    raise _ONLY_COMPILED


def nonzero(bits: Any) -> bool:
    """Return whether a set holds anything."""
    raise _ONLY_COMPILED


def holds(bits: Any, slot: Any) -> bool:
    """Return whether a set holds a slot."""
    raise _ONLY_COMPILED


def lowest(word: Any) -> Any:
    """Return the place of the lowest bit of one word, which is not zero."""
    raise _ONLY_COMPILED


# numba wants the parameters below bare, named as above.


@overload(capacity)
def _capacity(sets):
    if sets.ndim == 1:
        return lambda sets: 64
    return lambda sets: 64 * WORDS


@overload(room)
def _room(sets, places):
    if sets.ndim == 1:
        return lambda sets, places: np.empty(places, np.uint64)
    return lambda sets, places: np.empty((places, WORDS), np.uint64)


@overload(nothing)
def _nothing(sets):
    if sets.ndim == 1:
        return lambda sets: _ZERO
    return lambda sets: _EMPTY


@overload(single)
def _single(sets, slot):
    if sets.ndim == 1:
        return lambda sets, slot: _ONE << np.uint64(slot)

    def wide(sets, slot):
        bit = _ONE << np.uint64(slot & 63)
        k = slot >> 6
        return (
            bit if k == 0 else _ZERO,
            bit if k == 1 else _ZERO,
            bit if k == 2 else _ZERO,
            bit if k == 3 else _ZERO,
            bit if k == 4 else _ZERO,
            bit if k == 5 else _ZERO,
            bit if k == 6 else _ZERO,
            bit if k == 7 else _ZERO,
        )

    return wide


@overload(read)
def _read(sets, place):
    if sets.ndim == 1:
        return lambda sets, place: sets[place]

    def wide(sets, place):
        return (
            sets[place, 0],
            sets[place, 1],
            sets[place, 2],
            sets[place, 3],
            sets[place, 4],
            sets[place, 5],
            sets[place, 6],
            sets[place, 7],
        )

    return wide


@overload(write)
def _write(sets, place, bits):
    if sets.ndim == 1:

        def narrow(sets, place, bits):
            sets[place] = bits

        return narrow

    def wide(sets, place, bits):
        sets[place, 0] = bits[0]
        sets[place, 1] = bits[1]
        sets[place, 2] = bits[2]
        sets[place, 3] = bits[3]
        sets[place, 4] = bits[4]
        sets[place, 5] = bits[5]
        sets[place, 6] = bits[6]
        sets[place, 7] = bits[7]

    return wide


@overload(plus)
def _plus(one, other):
    if isinstance(one, types.Integer):
        return lambda one, other: one ^ other

    def wide(one, other):
        return (
            one[0] ^ other[0],
            one[1] ^ other[1],
            one[2] ^ other[2],
            one[3] ^ other[3],
            one[4] ^ other[4],
            one[5] ^ other[5],
            one[6] ^ other[6],
            one[7] ^ other[7],
        )

    return wide


@overload(nonzero)
def _nonzero(bits):
    if isinstance(bits, types.Integer):
        return lambda bits: bits != _ZERO

    def wide(bits):
        one = bits[0] | bits[1] | bits[2] | bits[3]
        other = bits[4] | bits[5] | bits[6] | bits[7]
        return (one | other) != _ZERO

    return wide


@overload(holds)
def _holds(bits, slot):
    if isinstance(bits, types.Integer):
        return lambda bits, slot: (bits >> np.uint64(slot)) & _ONE != _ZERO
    return lambda bits, slot: (bits[slot >> 6] >> np.uint64(slot & 63)) & _ONE != _ZERO


@intrinsic
def _cttz(typingctx, word):
    def code(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), code


_trailing_zeros: Any = _cttz


@overload(lowest)
def _lowest(word):
    return lambda word: _trailing_zeros(word)
