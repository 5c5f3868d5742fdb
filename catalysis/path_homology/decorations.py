"""The compiled heart of template mode: 64 decorations of one geometry at a time.

Which paths, squares, triangles and equations a decoration has depends on directions only, so that is found for 64
decorations at once, as masks with one bit each: a walk is there if its arrows are. Masks also tell most of what
the sweep of a single digraph has to find out step by step, and leave out what cannot matter:

* A 3-path with no missing face is an equation for the value of its last 2-path, which enters at the same step: the
  value is copied. No class is born, nothing has to be judged.
* A 3-path whose equation follows from others, by a 4-path with the arrows ac, bd and ce, is left out.
* A missing face that one equation has and that never becomes a path is free for ever; the equation is left out. That
  may leave other faces with a single equation, so it is done twice.

What is left, a third of the paths of a close-packed surface, is listed for each decoration, in order, and then
carried out: values of living classes, their births and deaths, and the forest of missing faces, all as in
`catalysis.path_homology.sweep`. A missing face that is joined to ground before it becomes a path has its value by
then, so that this path needs no birth either.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from catalysis.path_homology.class_sets import lowest
from catalysis.path_homology.classes import (
    BEGIN,
    END,
    N_BARS,
    N_LIVE,
    collected,
    end_youngest,
    no_classes,
    open_class,
    outlive,
    put,
)

__all__ = ["LANES", "carry_out"]

LANES = 64
"""Decorations that share a mask: the bits of a word."""

# What may happen to a decoration. The kinds that matter only while classes of dimension 2 live come first. Up to LINK
# the four places of the event are those of values that sum to zero.
TELL = 0  # up to 3: three values are known, and tell that of this place
CLOSE = 4  # all four are known
TIE = 5  # or 6: the first, or second, place may be free; the others are known
LINK = 7  # the first two may be free
TAKE = 8  # the loop of an arrow is killed at once, so its value is that of two others
OPEN = 9  # the loop of an arrow opens a class
JUDGE = 10  # an element of Ω_2: either a class of dimension 1 dies, or one of dimension 2 is born
JUDGE_FREE = 11  # the same, of a 2-path that has been a missing face before, which may be free
KIND_BITS = 4

# What an equation is good for, by four bits: is the first face known? the second? Is the first in the forest?
# the second?
_KIND_OF_FACES = np.array(
    [
        (LINK, TIE + 1 if forest & 2 else TELL + 1, TIE if forest & 1 else TELL, CLOSE)[known]
        for forest in range(4)
        for known in range(4)
    ],
    np.int32,
)

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_TWO = np.uint64(2)
_THREE = np.uint64(3)


@njit
def _directions(pairs, ranks, begin, lanes, there):
    """Fill `there` (2 arrows + 2,): which of the decorations have an arrow, do not have it, all, none."""
    n_arrows = 2 * len(pairs)
    for k in range(len(pairs)):
        a = pairs[k, 0]
        b = pairs[k, 1]
        forth = _ZERO
        back = _ZERO
        for lane in range(lanes):
            rank_a = ranks[begin + lane, a]
            rank_b = ranks[begin + lane, b]
            forth |= np.uint64(rank_a <= rank_b) << np.uint64(lane)
            back |= np.uint64(rank_b <= rank_a) << np.uint64(lane)
        there[2 * k] = forth
        there[2 * k + 1] = back
    everywhere = ~_ZERO >> np.uint64(64 - lanes)
    for arrow in range(n_arrows):
        there[n_arrows + arrow] = everywhere & ~there[arrow]
    there[2 * n_arrows] = everywhere
    there[2 * n_arrows + 1] = _ZERO


@njit
def _count(face, mask, uses):
    """Count an equation that has a face, up to two times."""
    once = uses[face, 0]
    uses[face, 1] |= once & mask
    uses[face, 0] = once | mask


@njit
def _clear(uses):
    for face in range(len(uses)):
        uses[face, 0] = uses[face, 1] = _ZERO


@njit
def _equation_masks(equations, there, told, uses, telling, masks):
    """Find which decorations need which equations, and what these tell of 2-paths.

    Fills `masks` (equations,): whether it is needed; `telling` (equations,): whether it tells the value of a 2-path;
    `told` (2-walks,): whether one does; and `uses` (faces + 1, 2): whether one equation, or more than one, has
    the missing face.
    """
    for walk in range(len(told)):
        told[walk] = _ZERO
    _clear(uses)
    for walk in range(len(equations.arrows)):
        if equations.start[walk] == equations.start[walk + 1]:
            continue
        has = there[equations.arrows[walk, 0]]
        has &= there[equations.arrows[walk, 1]]
        has &= there[equations.arrows[walk, 2]]
        implied = _ZERO
        for k in range(equations.implied_start[walk], equations.implied_start[walk + 1]):
            by = there[equations.implied_by[k, 0]] & there[equations.implied_by[k, 1]]
            implied |= by & there[equations.implied_by[k, 2]] & there[equations.implied_by[k, 3]]
        for row in range(equations.start[walk], equations.start[walk + 1]):
            mask = has & there[equations.given[row, 0]] & there[equations.given[row, 1]]
            path = equations.tells[row]
            if path >= 0:
                new = mask & ~told[path]
                told[path] |= new
                telling[row] = new
                mask &= ~new
            mask &= ~implied
            masks[row] = mask
            if mask != _ZERO:
                _count(equations.faces[row, 0], mask, uses)
                _count(equations.faces[row, 1], mask, uses)


@njit
def _prune(equations, there, before, uses, masks):
    """Leave out equations with a face of their own that never becomes a path; count the others in `uses`."""
    for face in range(len(before)):
        before[face, 1] = before[face, 0] & ~before[face, 1] & there[equations.never[face]]
    _clear(uses)
    for row in range(len(masks)):
        mask = masks[row]
        if mask != _ZERO:
            mask &= ~(before[equations.faces[row, 0], 1] | before[equations.faces[row, 1], 1])
            masks[row] = mask
            _count(equations.faces[row, 0], mask, uses)
            _count(equations.faces[row, 1], mask, uses)


@njit
def _add(mask, event, kind, lists, length):
    """Add an event to the lists of the decorations in a mask."""
    while mask != _ZERO:
        lane = lowest(mask)
        mask &= mask - _ONE
        lists[lane, length[lane]] = event << KIND_BITS | kind
        length[lane] += 1


@njit
def _list(geometry, there, told, telling, masks, known, free, earliest, judged, reached, lists, length):
    """List for each decoration what happens to it, in order.

    Work space are `known` and `free` (faces + 1,): whether the value of a missing face has been told, or it has been
    put into the forest; `earliest` and `judged` (2-walks,): whether the path is the first between its ends,
    before the arrow is; whether it brings an element of Ω_2 that is to be judged; `reached` (ends,): whether a 2-path
    has come that joins them.
    """
    arrows, paths, judgements, equations = geometry
    for face in range(len(known)):
        known[face] = free[face] = _ZERO
    known[len(known) - 1] = ~_ZERO  # a face that is not missing
    for ends in range(len(reached)):
        reached[ends] = _ZERO
    for lane in range(LANES):
        length[lane] = 0
    for step in range(2 * len(arrows.pairs)):
        # How an arrow's loop is killed at once; if it is not, a class is opened.
        by_triangle = _ZERO
        for k in range(arrows.triangle_start[step], arrows.triangle_start[step + 1]):
            mask = there[step] & earliest[arrows.triangle_path[k]]
            by_triangle |= mask
            _add(mask, arrows.triangle_event[k], TAKE, lists, length)
        rest = there[step] & ~by_triangle
        by_bigon = rest & there[step ^ 1] if step & 1 else _ZERO
        _add(by_bigon, arrows.event[step], TAKE, lists, length)
        if not arrows.joins[step >> 1]:
            _add(rest & ~by_bigon, arrows.event[step], OPEN, lists, length)

        for path in range(paths.start[step], paths.start[step + 1]):
            has = there[paths.first[path]] & there[paths.second[path]]
            shortcut = there[paths.shortcut[path]]
            earliest[path] = _ZERO
            if paths.bigon[path]:
                # A bigon that has killed the loop of its arrow has had its use.
                new = has & by_triangle & ~told[path]
            else:
                ends = paths.ends[path]
                earliest[path] = has & ~reached[ends] & ~shortcut
                reached[ends] |= has
                new = has & ~earliest[path] & ~told[path]
            judged[path] = new
            face = paths.face[path]
            if face < len(known) - 1:
                _add(new & known[face], paths.event[path], TELL, lists, length)
                new &= ~known[face]
            for k in range(judgements.start[path], judgements.start[path + 1]):
                against = judgements.against[k]
                mask = new
                if against >= 0:
                    mask &= earliest[against] & ~shortcut
                elif against == -1:
                    mask &= shortcut
                _add(mask & ~free[face], judgements.event[k], JUDGE, lists, length)
                _add(mask & free[face], judgements.event[k], JUDGE_FREE, lists, length)
        for path in range(paths.start[step], paths.start[step + 1]):
            for k in range(equations.told_start[path], equations.told_start[path + 1]):
                row = equations.told_by[k]
                _add(telling[row], row, TELL + equations.tells_column[row], lists, length)
        for path in range(paths.start[step], paths.start[step + 1]):
            face = paths.face[path]
            if face < len(known) - 1:
                has = there[paths.first[path]] & there[paths.second[path]] & ~judged[path]
                _add(has & known[face], paths.event[path], CLOSE, lists, length)
                _add(has & free[face], paths.event[path], TIE + 1, lists, length)

        for row in range(equations.step_start[step], equations.step_start[step + 1]):
            mask = masks[row]
            if mask == _ZERO:
                continue
            x = equations.faces[row, 0]
            y = equations.faces[row, 1]
            known_x = known[x]
            known_y = known[y]
            free_x = free[x]
            free_y = free[y]
            left = mask
            while left != _ZERO:
                lane = lowest(left)
                left &= left - _ONE
                state = (known_x >> lane & _ONE) | (known_y >> lane & _ONE) << _ONE
                state |= (free_x >> lane & _ONE) << _TWO | (free_y >> lane & _ONE) << _THREE
                lists[lane, length[lane]] = row << KIND_BITS | _KIND_OF_FACES[state]
                length[lane] += 1
            neither = mask & ~known_x & ~known_y
            known[x] |= mask & known_y & ~free_x
            known[y] |= mask & known_x & ~free_y
            free[x] |= neither
            free[y] |= neither


@njit
def _sweep(times, places, steps, listed, value, parent, linked, journal, slots, births, bars, counts):
    """Compute the bars of dimensions 1 and 2 of one decoration, from the list of what happens to it.

    Returns
    -------
    bool
        False if more than 64 classes of one dimension live at once; the bars are then incomplete.
    """
    # Unsigned indices spare the compiled code the test for negative ones.
    ground = np.uintp(len(parent) - 1)
    n_linked = 0
    no_classes(slots, counts)
    counts[2, BEGIN] = counts[2, END] = (
        len(times) + 1
    )  # the journal of the arrows has at most so many entries
    complete = True
    for at in range(len(listed)):
        kind = listed[at] & (1 << KIND_BITS) - 1
        # While no class lives all values are zero.
        if kind <= CLOSE and counts[2, N_LIVE] == 0:
            continue
        event = np.uintp(listed[at] >> KIND_BITS)
        first = np.uintp(places[event, 0])
        second = np.uintp(places[event, 1])
        third = np.uintp(places[event, 2])
        level = 2
        if kind <= LINK:
            bits = value[first] ^ value[second] ^ value[third] ^ value[np.uintp(places[event, 3])]
            if kind < CLOSE:
                put(2, np.uintp(places[event, kind]), bits, value, journal, counts)
                continue
            if kind > CLOSE:
                # The values of roots and ground are zero, so they may be added as well.
                x = second if kind == TIE + 1 else first
                up_x = parent[x]
                while up_x >= 0:
                    x = np.uintp(up_x)
                    bits ^= value[x]
                    up_x = parent[x]
                y = ground
                up_y = np.int32(-1)
                if kind == LINK:
                    y = second
                    up_y = parent[y]
                    while up_y >= 0:
                        y = np.uintp(up_y)
                        bits ^= value[y]
                        up_y = parent[y]
                if x != y:
                    # Two trees become one: the smaller hangs from the larger, and never ground from another. The
                    # root keeps the size of its tree, negative.
                    if y == ground or (x != ground and up_y < up_x):
                        x, y = y, x
                    if x != ground:
                        parent[x] = up_x + up_y
                    parent[y] = x
                    linked[n_linked] = y
                    n_linked += 1
                    put(2, y, bits, value, journal, counts)
                    continue
        elif kind == TAKE:
            put(1, first, value[second] ^ value[third], value, journal, counts)
            continue
        elif kind == OPEN:
            if counts[1, N_LIVE] == LANES:
                complete = False
                break
            born = open_class(1, times[steps[event]], value, slots, births, counts)
            put(1, first, born, value, journal, counts)
            continue
        else:
            level = 1
            root = ground
            path = _ZERO
            if kind == JUDGE_FREE:
                root = second
                path = value[root]
                up = parent[root]
                while up >= 0:
                    root = np.uintp(up)
                    path ^= value[root]
                    up = parent[root]
                if root == ground:
                    # The face has been joined to ground, so the path is a sum of others: it brings nothing new.
                    put(2, first, path, value, journal, counts)
                    continue
            arrow = event + np.uintp(1)
            bits = value[np.uintp(places[arrow, 0])] ^ value[np.uintp(places[arrow, 1])]
            bits ^= value[np.uintp(places[arrow, 2])] ^ value[np.uintp(places[arrow, 3])]
            if bits == _ZERO:
                if counts[2, N_LIVE] == LANES:
                    complete = False
                    break
                born = open_class(2, times[steps[event]], value, slots, births, counts)
                put(2, first, born, value, journal, counts)
                path ^= born
            if root != ground:
                parent[root] = ground
                linked[n_linked] = root
                n_linked += 1
                put(2, root, path, value, journal, counts)
        if bits != _ZERO:
            end_youngest(level, bits, times[steps[event]], value, journal, slots, births, bars, counts)
    # Leave all as it was: values zero, and no trees.
    for p in range(1, 3):
        for entry in range(counts[p, BEGIN], counts[p, END]):
            value[journal[entry]] = _ZERO
    for k in range(n_linked):
        above = parent[linked[k]]
        if above != ground:
            parent[above] = -1
        parent[linked[k]] = -1
    if complete:
        outlive(slots, births, bars, counts)
    return complete


@njit
def carry_out(arrows, paths, judgements, equations, places, steps, components, ranks):
    """Compute the bars of dimensions 0 to 2, regular and with 3-paths, of many decorations.

    Parameters
    ----------
    arrows, paths, judgements, equations, places, steps, components
        The tables of a `catalysis.path_homology.geometry.Geometry`.
    ranks : (d, n) float64 array
        One row per decoration.

    Returns
    -------
    bars : (K, 2) float64 array
    counts : (d, 3) int64 array
        As from `catalysis.path_homology.sweep.sweep_digraphs`.
    """
    n_arrows = len(arrows.times)
    n_paths = len(paths.first)
    n_faces = len(equations.never) - 1
    n_equations = len(equations.given)
    ground = n_arrows + n_paths + n_faces
    there = np.empty(2 * n_arrows + 2, np.uint64)
    told = np.empty(n_paths, np.uint64)
    earliest = np.empty(n_paths, np.uint64)
    judged = np.empty(n_paths, np.uint64)
    uses = np.empty((n_faces + 1, 2), np.uint64)
    before = np.empty((n_faces + 1, 2), np.uint64)
    known = np.empty(n_faces + 1, np.uint64)
    free = np.empty(n_faces + 1, np.uint64)
    reached = np.empty(paths.n_ends, np.uint64)
    telling = np.empty(n_equations, np.uint64)
    masks = np.empty(n_equations, np.uint64)
    lists = np.empty((LANES, len(steps) + n_paths), np.int32)
    length = np.empty(LANES, np.int64)
    value = np.zeros(ground + 1, np.uint64)
    parent = np.full(ground + 1, -1, np.int32)
    linked = np.empty(ground + 1, np.int32)
    journal = np.empty(ground + 3, np.int32)
    slots = np.empty((3, 3, LANES), np.int64)
    births = np.empty((3, LANES))
    bars = np.empty((3, n_arrows + n_paths + len(components), 2))
    counts = np.empty((3, 4), np.int64)
    found = np.empty((64 * len(ranks) + 64, 2))
    n_found = 0
    n_bars = np.zeros((len(ranks), 3), np.int64)
    geometry = (arrows, paths, judgements, equations)
    for begin in range(0, len(ranks), LANES):
        lanes = min(LANES, len(ranks) - begin)
        _directions(arrows.pairs, ranks, begin, lanes, there)
        _equation_masks(equations, there, told, uses, telling, masks)
        _prune(equations, there, uses, before, masks)
        _prune(equations, there, before, uses, masks)
        _list(geometry, there, told, telling, masks, known, free, earliest, judged, reached, lists, length)
        for lane in range(lanes):
            listed = lists[lane, : length[lane]]
            complete = _sweep(
                arrows.times,
                places,
                steps,
                listed,
                value,
                parent,
                linked,
                journal,
                slots,
                births,
                bars,
                counts,
            )
            if not complete:
                n_bars[begin + lane, 0] = -1
                continue
            for k in range(len(components)):
                bars[0, k, 0] = components[k, 0]
                bars[0, k, 1] = components[k, 1]
            counts[0, N_BARS] = len(components)
            found, n_found = collected(bars, counts, 0, n_bars[begin + lane], found, n_found)
    return found[:n_found], n_bars
