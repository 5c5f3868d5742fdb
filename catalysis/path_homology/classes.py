"""Living classes in compiled code: their births and deaths, and the values of their cocycles.

The value of the living cocycles at a place, one bit per class, is kept in the array `value` (see `bits`). A
journal per dimension lists the places whose value is not zero, so that a death can mend them. The functions here
are called in compiled code only; `level` is the dimension of the classes.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from catalysis.path_homology.class_sets import holds, nonzero, plus, read, single, write

__all__ = [
    "BEGIN",
    "END",
    "N_BARS",
    "N_LIVE",
    "add_bar",
    "collected",
    "end_youngest",
    "no_classes",
    "open_class",
    "outlive",
    "put",
]

# Rows of `slots[level]`: the slots (bits) in use, oldest class first; the slots that are free, as a stack;
# and, for each slot, how long the journal of the level was when its class was born.
_LIVE, _FREE, _SINCE = 0, 1, 2

# Columns of `counts[level]`: living classes; bars; where the journal of the level begins, and where it ends
# for now. Level p keeps H_p.
N_LIVE, N_BARS, BEGIN, END = 0, 1, 2, 3


@njit
def no_classes(slots, counts):
    """Make all slots free and all counts zero."""
    # Plain loops here and below: assignments that may broadcast take seconds to compile.
    for level in range(3):
        for slot in range(slots.shape[2]):
            slots[level, _FREE, slot] = slot
        for column in range(4):
            counts[level, column] = 0


@njit
def put(level, place, bits, value, journal, counts):
    """Set the value at a place and, unless it is zero, note the place in the journal."""
    write(value, place, bits)
    # Without a branch, which no processor could foresee; so the journal needs one entry to spare.
    entry = counts[level, END]
    journal[entry] = place
    counts[level, END] = entry + nonzero(bits)


@njit
def add_bar(level, birth, death, bars, counts):
    """Note a bar."""
    k = counts[level, N_BARS]
    bars[level, k, 0] = birth
    bars[level, k, 1] = death
    counts[level, N_BARS] = k + 1


@njit
def open_class(level, time, value, slots, births, counts):
    """Open a slot for a new class and return its bit; the caller sees to it that one is free."""
    k = counts[level, N_LIVE]
    slot = slots[level, _FREE, k]
    slots[level, _LIVE, k] = slot
    slots[level, _SINCE, slot] = counts[level, END]
    births[level, slot] = time
    counts[level, N_LIVE] = k + 1
    return single(value, slot)


@njit
def _youngest(level, bits, slots, counts):
    """Return the rank, by age, of the youngest class among `bits`."""
    rank = counts[level, N_LIVE] - 1
    while not holds(bits, slots[level, _LIVE, rank]):
        rank -= 1
    return rank


@njit
def _mend(bits, slot, begin, end, value, journal):
    """Add the dying class to the others in `bits`, wherever it has been written."""
    for entry in range(begin, end):
        place = journal[entry]
        here = read(value, place)
        if holds(here, slot):
            write(value, place, plus(here, bits))


@njit
def _close(level, rank, slots, counts):
    """Take the class of this rank from the list of the living and free its slot."""
    slot = slots[level, _LIVE, rank]
    last = counts[level, N_LIVE] - 1
    for k in range(rank, last):
        slots[level, _LIVE, k] = slots[level, _LIVE, k + 1]
    slots[level, _FREE, last] = slot
    counts[level, N_LIVE] = last
    if last == 0:
        counts[level, END] = counts[level, BEGIN]  # every value is zero again


@njit
def _record(level, birth, death, bars, counts):
    if death > birth:
        add_bar(level, birth, death, bars, counts)


# Counting references to arrays would cost more than all the rest of a death. The compiler proves it needless
# where functions are short; that is why this one is cut into four and has no frame of its own.
@njit(inline="always")
def end_youngest(level, bits, time, value, journal, slots, births, bars, counts):
    """End the youngest class among `bits`, the non-zero value of a new boundary."""
    rank = _youngest(level, bits, slots, counts)
    slot = slots[level, _LIVE, rank]
    _record(level, births[level, slot], time, bars, counts)
    # Only what was written since the class was born can hold its bit.
    _mend(bits, slot, slots[level, _SINCE, slot], counts[level, END], value, journal)
    _close(level, rank, slots, counts)


@njit
def outlive(slots, births, bars, counts):
    """Add an endless bar for each class of dimension 1 or 2 that is left at the end."""
    for level in range(1, 3):
        for k in range(counts[level, N_LIVE]):
            add_bar(level, births[level, slots[level, _LIVE, k]], np.inf, bars, counts)


@njit
def _sorted_into(bars, n_bars, out, at):
    """Append bars to `out` from row `at` on, sorted by birth and then death; return the next free row."""
    for k in range(n_bars):
        birth = bars[k, 0]
        death = bars[k, 1]
        row = at + k
        while row > at and (
            birth < out[row - 1, 0] or (birth == out[row - 1, 0] and death < out[row - 1, 1])
        ):
            out[row, 0] = out[row - 1, 0]
            out[row, 1] = out[row - 1, 1]
            row -= 1
        out[row, 0] = birth
        out[row, 1] = death
    return at + n_bars


@njit
def _longer_if_full(found, n_found, more):
    """Return `found`, or a longer copy of it if `more` rows do not fit."""
    if n_found + more <= len(found):
        return found
    longer = np.empty((2 * (n_found + more), 2))
    for row in range(n_found):
        longer[row, 0] = found[row, 0]
        longer[row, 1] = found[row, 1]
    return longer


@njit
def collected(bars, counts, first, n_bars, found, n_found):
    """Move the bars of one digraph to `found`, from dimension `first` on, and their numbers to `n_bars`.

    Returns the array, which is a longer one if they do not fit, and its next free row.
    """
    more = 0
    for p in range(first, 3):
        more += counts[p, N_BARS]
    found = _longer_if_full(found, n_found, more)
    for p in range(first, len(n_bars)):
        n_bars[p] = counts[p, N_BARS]
        n_found = _sorted_into(bars[p], counts[p, N_BARS], found, n_found)
    return found, n_found
