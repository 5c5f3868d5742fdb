"""What the geometry of a template fixes for all its decorations, as tables for `catalysis.path_homology.decorations`.

A decoration chooses directions; the geometry has all arrows that could be chosen. They are numbered in order of
weight, two for each pair of neighbours: ``2k`` leads forth along pair k, ``2k + 1`` back. A *walk* is a path along
such arrows: a p-path of every decoration that has its arrows. Its *step* is the last of its arrows. Walks are
numbered by step, so all decorations go through the same list of events, each leaving out what it does not have.

A class of dimension 2 has a value on each 2-path, and each 3-path is an equation: the values on its faces, abc, bcd,
abd and acd, sum to zero. The last two may be missing as paths of the decoration. They have a value then, too, but
one that is free: until the equations tie it, or the face becomes an allowed path.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import DisjointSet

__all__ = [
    "MOST_ARROWS",
    "MOST_WALKS",
    "Arrows",
    "Equations",
    "Geometry",
    "Judgements",
    "Paths",
    "n_walks",
    "tables",
]

Ints = npt.NDArray[np.int32]
Shorts = npt.NDArray[np.uint16]
Longs = npt.NDArray[np.int64]

MOST_ARROWS = 16_000
"""Largest number of arrows, and their opposites, that have a number of 16 bits."""

MOST_WALKS = 4_000_000
"""Largest number of walks of four arrows for which tables are made; they take some 100 bytes for each at first."""


class Arrows(NamedTuple):
    """The arrows that decorations choose from, and how the loops that they close are killed at once.

    In masks an arrow stands for the decorations that have it. Beside the arrows there are, as numbers, their
    opposites (``n + arrow``: the decorations that do not have it), all decorations (``2 n``) and none (``2 n + 1``).

    Attributes
    ----------
    pairs : (q, 2) int array
        Pairs of neighbours in order of weight.
    times : (2 q,) float array
        Weights of the arrows.
    joins : (q,) bool array
        Whether the pair joins two components.
    event : (2 q,) int array
        The places of the arrow and its opposite: its loop opens a class, or the bigon kills it.
    triangle_start : (2 q + 1,) int array
    triangle_path, triangle_event : (k,) int arrays
        For each arrow, from one start to the next, the earlier 2-walks between its ends, and the places of the
        arrow and the two of the walk: the triangle kills the loop.
    """

    pairs: Ints
    times: npt.NDArray[np.float64]
    joins: npt.NDArray[np.bool_]
    event: Ints
    triangle_start: Ints
    triangle_path: Ints
    triangle_event: Ints


class Paths(NamedTuple):
    """The 2-walks abc, in order; of one step, those back and forth (bigons) come first.

    Attributes
    ----------
    start : (arrows + 1,) int array
        The walks of each step.
    first, second : (w,) int arrows
        The arrows ab and bc.
    ends : (w,) int array
        Number of the pair of vertices a and c.
    shortcut : (w,) int array
        The arrow ac if it is earlier, else the number of none.
    bigon : (w,) bool array
        Whether a is c.
    face : (w,) int array
        The missing face that the walk was before its step; the number of faces if it is none.
    event : (w,) int array
        The places of the walk and of this face.
    n_ends : int
    """

    start: Ints
    first: Shorts
    second: Shorts
    ends: Ints
    shortcut: Shorts
    bigon: npt.NDArray[np.bool_]
    face: Ints
    event: Ints
    n_ends: int


class Judgements(NamedTuple):
    """The elements of Ω_2 that a 2-walk may bring.

    Attributes
    ----------
    start : (2-walks + 1,) int array
        The elements of each 2-walk.
    against : (k,) int array
        The earlier 2-walk with which it makes a square; -1 if it makes a triangle, -2 if it is a bigon.
    event : (k,) int array
        The places of the walk and of its face; the event after it has those of the arrows of the boundary.
    """

    start: Ints
    against: Ints
    event: Ints


class Equations(NamedTuple):
    """The 3-walks abcd, in order, and the equations that they bring, depending on the arrows ac and bd.

    Attributes
    ----------
    step_start : (arrows + 1,) int array
        The equations of each step.
    start : (w + 1,) int array
        The equations of each 3-walk. They are events 0, 1, …: the places of abd, acd, abc and bcd.
    arrows : (w, 3) int array
        The arrows of a 3-walk.
    implied_start : (w + 1,) int array
    implied_by : (k, 4) int array
        A 3-walk is implied by others, and needed no more, if one of these sets of arrows is there as well.
    given : (r, 2) int array
        Arrows, or their opposites, on which the form of the equation depends.
    faces : (r, 2) int array
        The faces abd and acd if they are missing, else the number of faces.
    tells, tells_column : (r,) int arrays
        The last 2-walk of an equation without missing faces, whose value it tells, and which of the four
        places is its; -1 for others.
    told_start : (2-walks + 1,) int array
    told_by : (t,) int array
        The equations that tell the value of each 2-walk.
    never : (faces + 1,) int array
        The decorations in which a face never becomes an allowed path: the opposite of an arrow, all, or none.
    """

    step_start: Ints
    start: Ints
    arrows: Shorts
    implied_start: Ints
    implied_by: Shorts
    given: Shorts
    faces: Ints
    tells: Ints
    tells_column: Ints
    told_start: Ints
    told_by: Ints
    never: Shorts


class Geometry(NamedTuple):
    """All tables of a geometry.

    Places, where values are kept, are those of the arrows, the 2-walks and the missing faces, one after the other.
    The last one is ground, whose value is zero; columns of places that are not needed hold it.

    Attributes
    ----------
    arrows : Arrows
    paths : Paths
    judgements : Judgements
    equations : Equations
    places : (k, 4) int array
        The places that events are about.
    steps : (k,) int array
        Their steps.
    components : (c, 2) float array
        The bars of dimension 0, which are the same for all decorations.
    """

    arrows: Arrows
    paths: Paths
    judgements: Judgements
    equations: Equations
    places: Ints
    steps: Ints
    components: npt.NDArray[np.float64]


class _Walks:
    """Walks along arrows, to be found by their arrows.

    Parameters
    ----------
    arrows : (w, p) int array
        Arrows of each walk.
    n_arrows : int
    """

    def __init__(self, arrows: Longs, n_arrows: int) -> None:
        self.arrows = arrows
        self.step = arrows.max(axis=1, initial=-1)
        self._base = n_arrows
        keys = self._keys(arrows.T)
        self._order = np.argsort(keys)
        self._sorted = keys[self._order]

    def __len__(self) -> int:
        return len(self.arrows)

    def _keys(self, arrows: npt.NDArray[np.int64] | tuple[Longs, ...]) -> Longs:
        keys = arrows[0]
        for following in arrows[1:]:
            keys = keys * self._base + following
        return keys

    def find(self, *arrows: Longs) -> Longs:
        """Return the numbers of the walks along these arrows, all of which exist."""
        return self._order[np.searchsorted(self._sorted, self._keys(arrows))]


class _Events:
    """A list of events in the making.

    Parameters
    ----------
    ground : int
        What fills the columns of places that an event does not need.
    """

    def __init__(self, ground: int) -> None:
        self._ground = ground
        self._places: list[Longs] = []
        self._steps: list[Longs] = []
        self._count = 0

    def add(self, step: Longs, *places: Longs) -> Ints:
        """Add events, and return their numbers."""
        table = np.full((len(step), 4), self._ground)
        for column, values in enumerate(places):
            table[:, column] = values
        self._places.append(table)
        self._steps.append(step)
        self._count += len(step)
        return _ints(np.arange(self._count - len(step), self._count))

    def tables(self) -> tuple[Ints, Ints]:
        """Return the places and the steps of all events."""
        return _ints(np.concatenate(self._places)), _ints(np.concatenate(self._steps))


def n_walks(n_vertices: int, pairs: Longs) -> int:
    """Return how many walks of four arrows a graph has, which tells how large its tables are."""
    ends = np.concatenate([pairs, pairs[:, ::-1]])
    count = np.ones(n_vertices)
    for _ in range(4):
        count = np.bincount(ends[:, 0], weights=count[ends[:, 1]], minlength=n_vertices)
    return int(count.sum())


def tables(n_vertices: int, pairs: Longs, weights: npt.NDArray[np.float64]) -> Geometry:
    """Make the tables of a geometry.

    Parameters
    ----------
    n_vertices : int
    pairs : (q, 2) int array
        Pairs of neighbours in order of weight, each once.
    weights : (q,) float array
        Their weights, ascending.

    Returns
    -------
    Geometry
    """
    n, n_arrows = n_vertices, 2 * len(pairs)
    everywhere, nowhere = 2 * n_arrows, 2 * n_arrows + 1
    tail, head = pairs.reshape(-1), pairs[:, ::-1].reshape(-1)
    arrow = np.full((n, n), -1)
    arrow[tail, head] = np.arange(n_arrows)

    # 2-walks abc. The first of two bigons comes before all others of its step; none but the second may tell it.
    i, j = _extended(np.arange(n_arrows)[:, np.newaxis], tail, head, n).T
    order = np.lexsort((i, np.minimum(i, j), tail[i] != head[j], np.maximum(i, j)))
    two = _Walks(np.stack([i, j], axis=1)[order], n_arrows)
    i, j = two.arrows.T
    a, c = tail[i], head[j]

    # 3-walks abcd.
    longer = _extended(two.arrows, tail, head, n)
    order = np.lexsort((*longer.T[::-1], *np.sort(longer, axis=1).T))
    three = _Walks(longer[order], n_arrows)
    tied, implied_by = _implied(three, tail, head, arrow)

    equations = _equations(n, two, three, tail, head, arrow)
    walk, missing, allowed, given, keys = equations
    faces, number = np.unique(keys[missing], return_inverse=True)
    n_faces = len(faces)
    ground = n_arrows + len(two) + n_faces
    face = np.full(keys.shape, n_faces)
    face[missing] = number
    place = np.where(allowed >= 0, n_arrows + allowed, ground)
    place[missing] = n_arrows + len(two) + number
    known = n_arrows + np.stack(
        [two.find(*three.arrows[walk, :2].T), two.find(*three.arrows[walk, 1:].T)], axis=1
    )

    events = _Events(ground)
    step = three.step[walk]
    four = np.column_stack([place, known])
    events.add(step, *four.T)

    # An equation without missing faces tells the value of the last of its faces.
    telling = np.flatnonzero(~missing.any(axis=1))
    column = np.full(len(walk), -1)
    column[telling] = np.where(four == ground, -1, four)[telling].argmax(axis=1)
    tells = np.full(len(walk), -1)
    tells[telling] = four[telling, column[telling]] - n_arrows
    told_by = telling[np.argsort(tells[telling], kind="stable")]

    # Which missing face a 2-walk was before its step: abd or acd, by the arrow that came first.
    own_key = np.where(j > i, _first_face(i, c, n), _last_face(a, j, n, n_arrows))
    at = np.minimum(np.searchsorted(faces, own_key), max(n_faces - 1, 0))
    was = np.where(faces[at] == own_key, at, n_faces) if n_faces else np.zeros(len(two), np.int64)
    as_path, as_face = n_arrows + np.arange(len(two)), n_arrows + len(two) + was
    entered = events.add(two.step, as_path, as_face)

    shortcut = np.where(a == c, -1, arrow[a, c])
    earlier = (shortcut >= 0) & (shortcut < two.step)
    path, against = _against(a * n + c, (a == c), (a == c) & (i < j), earlier)
    square, triangle = against >= 0, against == -1
    other = np.full((2, len(path)), ground)
    other[:, square] = i[against[square]], j[against[square]]
    other[0, triangle] = shortcut[path[triangle]]
    element = np.stack([as_path[path], as_face[path], i[path], i[path]])
    boundary = np.stack([i[path], j[path], *other])
    judged = events.add(np.repeat(two.step[path], 2), *np.stack([element, boundary], axis=2).reshape(4, -1))[
        ::2
    ]

    numbers = np.arange(n_arrows)
    arrow_event = events.add(numbers, numbers, numbers ^ 1)
    between = np.flatnonzero((a != c) & (arrow[a, c] > two.step))
    between = between[np.argsort(arrow[a, c][between], kind="stable")]
    closing = arrow[a, c][between]
    triangles = events.add(closing, closing, i[between], j[between])

    places, steps = events.tables()
    sets = DisjointSet(range(n))
    joins = np.array([sets.merge(int(u), int(v)) for u, v in pairs], dtype=np.bool_)
    deaths = np.concatenate([weights[joins & (weights > 0)], np.full(sets.n_subsets, np.inf)])
    ends, ends_number = np.unique(a * n + c, return_inverse=True)
    return Geometry(
        Arrows(
            _ints(pairs),
            np.repeat(weights, 2),
            joins,
            arrow_event,
            _starts(closing, n_arrows),
            _ints(between),
            triangles,
        ),
        Paths(
            _starts(two.step, n_arrows),
            _shorts(i),
            _shorts(j),
            _ints(ends_number),
            _shorts(np.where(earlier, shortcut, nowhere)),
            a == c,
            _ints(was),
            entered,
            len(ends),
        ),
        Judgements(_starts(path, len(two)), _ints(against), judged),
        Equations(
            _starts(step, n_arrows),
            _starts(walk, len(three)),
            _shorts(three.arrows),
            _starts(tied, len(three)),
            _shorts(np.where(implied_by >= 0, implied_by, everywhere)),
            _shorts(given),
            _ints(face),
            _ints(tells),
            _ints(column),
            _starts(tells[told_by], len(two)),
            _ints(told_by),
            _shorts(np.append(_never(faces, n, tail, head, arrow), nowhere)),
        ),
        places,
        steps,
        np.column_stack([np.zeros(len(deaths)), deaths]),
    )


def _extended(walks: Longs, tail: Longs, head: Longs, n: int) -> Longs:
    """Return the walks with one arrow more: (w', p + 1)."""
    leaving = np.bincount(tail, minlength=n)
    by_tail = np.argsort(tail, kind="stable")
    start = np.cumsum(leaving) - leaving
    end = head[walks[:, -1]]
    owner, nth = _repeated(leaving[end])
    return np.column_stack([walks[owner], by_tail[start[end[owner]] + nth]])


def _repeated(counts: Longs) -> tuple[Longs, Longs]:
    """Return each index as often as its count, and how often it has been there before."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner]


def _first_face(first: Longs, d: Longs, n: int) -> Longs:
    """Return a key of the face abd of abcd, by the arrow ab."""
    return first * n + d


def _last_face(a: Longs, last: Longs, n: int, n_arrows: int) -> Longs:
    """Return a key of the face acd of abcd, by the arrow cd."""
    return n_arrows * n + a * n_arrows + last


def _equations(
    n: int, two: _Walks, three: _Walks, tail: Longs, head: Longs, arrow: Longs
) -> tuple[Longs, npt.NDArray[np.bool_], Longs, Longs, Longs]:
    """Return the equations of the 3-walks.

    Returns
    -------
    walk : (r,) int array
    missing : (r, 2) bool array
        Whether the faces abd and acd are missing.
    allowed : (r, 2) int array
        The 2-walks that they are, if they are allowed; -1 if not, or if they are irregular and count as zero.
    given : (r, 2) int array
        The arrows that must be there, or not be there, for this.
    keys : (r, 2) int array
        Keys of the faces.
    """
    n_arrows = len(tail)
    first, middle, last = three.arrows.T
    a, b, c, d = tail[first], tail[middle], tail[last], head[last]
    shortcut = np.stack([arrow[b, d], arrow[a, c]], axis=1)
    keys = np.stack([_first_face(first, d, n), _last_face(a, last, n, n_arrows)], axis=1)
    irregular = np.stack([b == d, a == c], axis=1)
    # A face that never becomes a path in any decoration, and that only one 3-walk has, ties nothing together.
    kept = np.ones(len(three), np.bool_)
    number = np.unique(keys, return_inverse=True)[1].reshape(keys.shape)
    while True:
        uses = np.bincount(number[kept[:, np.newaxis] & ~irregular], minlength=number.size)
        alone = kept & ((shortcut < 0) & ~irregular & (uses[number] == 1)).any(axis=1)
        if not alone.any():
            break
        kept &= ~alone

    earlier = (shortcut >= 0) & (shortcut < three.step[:, np.newaxis]) & ~irregular
    parts = []
    for missing_first in (False, True):
        for missing_last in (False, True):
            missing = np.array([missing_first, missing_last])
            possible = np.where(missing, ~irregular, irregular | earlier).all(axis=1)
            walk = np.flatnonzero(kept & possible)
            depends = np.where(missing, n_arrows + shortcut[walk], shortcut[walk])
            given = np.where(earlier[walk], depends, 2 * n_arrows)
            parts.append((walk, np.broadcast_to(missing, given.shape), given))
    walk, missing, given = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(walk, kind="stable")
    walk, missing, given = walk[order], missing[order], given[order]
    allowed = np.full(given.shape, -1)
    bd, ac = (~missing & ~irregular[walk]).T
    allowed[bd, 0] = two.find(first[walk[bd]], shortcut[walk[bd], 0])
    allowed[ac, 1] = two.find(shortcut[walk[ac], 1], last[walk[ac]])
    return walk, missing, allowed, given, keys[walk]


def _never(faces: Longs, n: int, tail: Longs, head: Longs, arrow: Longs) -> Longs:
    """Return in which decorations these faces, given by key, never become allowed paths."""
    n_arrows = len(tail)
    is_first = faces < n * n_arrows
    missing = np.full(len(faces), -1)
    ab, d = np.divmod(faces[is_first], n)
    missing[is_first] = arrow[head[ab], d]
    a, cd = np.divmod(faces[~is_first] - n * n_arrows, max(n_arrows, 1))
    missing[~is_first] = arrow[a, tail[cd]]
    return np.where(missing >= 0, n_arrows + missing, 2 * n_arrows)


def _implied(three: _Walks, tail: Longs, head: Longs, arrow: Longs) -> tuple[Longs, Longs]:
    """Return which 3-walks are implied by others: (k,) 3-walks, ascending, and (k, 4) arrows, or -1.

    A 4-path abcde with the arrows ac, bd and ce, all there, makes the equations of its faces sum to zero. So the
    last of them follows from the others. The arrows returned are those that are not on that face itself.
    """
    first, middle, last = three.arrows.T
    ac, bd = arrow[tail[first], tail[last]], arrow[tail[middle], head[last]]
    irregular_c, irregular_d = tail[first] == tail[last], tail[middle] == head[last]
    begun = np.flatnonzero(((ac >= 0) | irregular_c) & ((bd >= 0) | irregular_d))
    longer = _extended(np.column_stack([begun, three.arrows[begun]]), tail, head, len(arrow))
    walk, i, j, k, m = longer.T
    ac, bd, ce = ac[walk], bd[walk], arrow[tail[k], head[m]]
    kept = (ce >= 0) | (tail[k] == head[m])
    walk, i, j, k, m, ac, bd, ce = (column[kept] for column in (walk, i, j, k, m, ac, bd, ce))
    latest = np.maximum(walk, three.find(j, k, m))
    for there, face in ((ac >= 0, (ac, k, m)), (bd >= 0, (i, bd, m)), (ce >= 0, (i, j, ce))):
        latest[there] = np.maximum(latest[there], three.find(*(column[there] for column in face)))
    needed = np.stack([i, j, k, m, ac, bd, ce], axis=1)
    for own in three.arrows[latest].T:
        needed[needed == own[:, np.newaxis]] = -1
    needed = -np.sort(-needed, axis=1)[:, :4]
    order = np.argsort(latest, kind="stable")
    return latest[order], needed[order]


def _against(
    ends: Longs,
    bigon: npt.NDArray[np.bool_],
    first_bigon: npt.NDArray[np.bool_],
    triangle: npt.NDArray[np.bool_],
) -> tuple[Longs, Longs]:
    """Return the elements of Ω_2 that 2-walks may bring: the 2-walk, ascending, and what with, as in `Judgements`."""
    # Earlier walks with the same ends are those before it in its group, for the order is stable.
    order = np.argsort(ends, kind="stable")
    nth = np.empty(len(ends), np.int64)
    nth[order] = np.arange(len(ends))
    begin = np.searchsorted(ends[order], ends)
    square, k = _repeated(np.where(bigon, 0, nth - begin))
    triangles, bigons = np.flatnonzero(triangle), np.flatnonzero(first_bigon)
    path = np.concatenate([square, triangles, bigons])
    against = np.concatenate(
        [order[begin[square] + k], np.full(len(triangles), -1), np.full(len(bigons), -2)]
    )
    by_path = np.argsort(path, kind="stable")
    return path[by_path], against[by_path]


def _starts(sorted_owners: Longs, n: int) -> Ints:
    """Return where the entries of each of n owners start, and, last, where all end."""
    return _ints(np.searchsorted(sorted_owners, np.arange(n + 1)))


def _ints(values: Longs) -> Ints:
    return np.ascontiguousarray(values, dtype=np.int32)


def _shorts(values: Longs) -> Shorts:
    """Return numbers of arrows in the form that leaves most of the processor's cache to the rest."""
    return np.ascontiguousarray(values, dtype=np.uint16)
