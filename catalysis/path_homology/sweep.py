"""The compiled heart of the fast engine: one sweep over the arrows of a digraph, in order of weight.

The sweep computes regular or non-regular persistent path homology over F_2 in dimensions 0 to 2. It uses
the bases of Ω_2 and Ω_3 that the shape of the boundary gives, and never builds a matrix:

* Ω_2. The face ac of a 2-path abc is the only one that may be missing. So abc is in Ω_2 once the arrow ac
  is there (a triangle), and abc − ab'c is as soon as both paths are there, b' being the earliest middle
  from a to c (a square). In the regular case aba is in Ω_2 as it is (a bigon), for aa counts as zero.
* Ω_3. Of the faces of a 3-path abcd, only abd and acd may be missing. Read the missing faces as nodes and
  the 3-path as an edge from acd to abd. A node becomes ground when its face becomes an allowed path; the
  chains in Ω_3 are the cycles of this graph relative to ground. A forest grows with the sweep, and
  each 3-path (or grounding) that closes a cycle is one new element of Ω_3.

Instead of reducing columns, the sweep keeps the value of every living cocycle on the chains that it may
meet again, one bit per living class: on arrows for H1, on 2-paths and along the forest for H2. A new
element of Ω is judged by the value of its boundary. If that is zero, the element gives birth to a class;
otherwise the youngest class in it dies, and the other cocycles are mended by adding the dying one.
These are the annotations of Dey, Fan and Wang (SoCG 2014), and the algorithm is that of persistent
cohomology (de Silva, Morozov, Vejdemo-Johansson 2011). Almost all classes of a real structure die as they
are born, so the values are nearly always zero, and few classes live at once.

Arrows of one weight are taken one after the other. That refines the filtration, and since bars of no
length are dropped, it does not change the result.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from catalysis.path_homology.class_sets import capacity, nonzero, nothing, plus, read, room, write
from catalysis.path_homology.classes import (
    BEGIN,
    END,
    N_LIVE,
    add_bar,
    collected,
    end_youngest,
    no_classes,
    open_class,
    outlive,
    put,
)

__all__ = ["sweep_decorations", "sweep_digraphs"]

# Marks, in the table of 2-paths between two vertices, that an arrow joins them.
_JOINED = 1 << 30


@njit
def _sweep(n, tail, head, time, max_dim, length, regular, form, bars, counts):
    """Compute the bars of one digraph.

    Parameters
    ----------
    n : int
        Number of vertices.
    tail, head : (m,) int32 arrays
        The arrows, in order of weight.
    time : (m,) float64 array
        Their weights, ascending.
    max_dim : int
        Highest dimension of homology, 0 to 2.
    length : int
        Longest paths used: `max_dim` or `max_dim` + 1.
    regular : bool
        Whether faces with two equal neighbours count as zero.
    form : (0,) or (0, 8) uint64 array
        With two axes, there is room for 512 living classes of one dimension instead of 64.
    bars : (3, >= number of 2-paths + n + 1, 2) float64 array
        Receives birth and death of each bar, by dimension, in no order.
    counts : (3, 4) int64 array
        Receives the number of bars of dimension p in ``counts[p, 1]``.

    Returns
    -------
    bool
        False if more classes of one dimension live at once than a value can hold; the bars are then
        incomplete.
    """
    m = len(tail)
    exact2 = length == 3
    max_live = capacity(form)
    slots = np.empty((3, 3, max_live), np.int64)
    births = np.empty((3, max_live))
    no_classes(slots, counts)
    counts[2, BEGIN] = counts[2, END] = m + 1  # the journal of the arrows has at most m entries

    out_start = np.zeros(n + 1, np.int64)
    in_start = np.zeros(n + 1, np.int64)
    for k in range(m):
        out_start[tail[k] + 1] += 1
        in_start[head[k] + 1] += 1
    degree = 0
    for v in range(n):
        degree = max(degree, out_start[v + 1], in_start[v + 1])
        out_start[v + 1] += out_start[v]
        in_start[v + 1] += in_start[v]
    out_end = out_start.copy()
    in_end = in_start.copy()
    out_arrow = np.empty(m, np.int32)
    in_arrow = np.empty(m, np.int32)
    for k in range(m):
        out_arrow[out_end[tail[k]]] = k
        out_end[tail[k]] += 1
        in_arrow[in_end[head[k]]] = k
        in_end[head[k]] += 1

    # A 2-path abc has two places, which are nodes of the forest as well: one is found from the arrow ab and
    # the vertex c, one from the arrow bc and the vertex a. The first stands for it as the face abd of
    # abcd, the second as the face acd. Such a face is met only if the two vertices that it may not join are
    # joined by an arrow or a 2-path; these pairs are numbered, from either end. Ground is the last place.
    pairs = n * n if exact2 else 0
    number_to = np.empty(pairs, np.int32)
    number_from = np.empty(pairs, np.int32)
    # How many 2-paths, in the end, lead from a to c, if ac never is an arrow. Where there is just one, abc, a
    # face that lacks ac is met by a single 3-path and never becomes ground: a leaf of the forest for ever.
    # Such 3-paths are on no cycle and are left out, about half of all.
    middles = np.zeros(pairs, np.int32)
    by_first = np.zeros(m if exact2 else 0, np.int64)
    by_last = np.zeros(m if exact2 else 0, np.int64)
    n_places = 0
    if exact2:
        to = np.zeros(n, np.int64)
        come = np.zeros(n, np.int64)
        for k in range(m):
            pair = tail[k] * n + head[k]
            middles[pair] = _JOINED
            number_to[pair] = to[tail[k]]
            number_from[pair] = come[head[k]]
            to[tail[k]] += 1
            come[head[k]] += 1
        for k in range(m):
            for at in range(in_start[tail[k]], in_end[tail[k]]):
                a = tail[in_arrow[at]]
                pair = a * n + head[k]
                if middles[pair] == 0:
                    number_to[pair] = to[a]
                    number_from[pair] = come[head[k]]
                    to[a] += 1
                    come[head[k]] += 1
                middles[pair] += 1
        if regular:
            for v in range(n):
                middles[v * n + v] = 0
        for k in range(m):
            by_first[k] = n_places
            n_places += np.int64(to[head[k]])
        for k in range(m):
            by_last[k] = n_places
            n_places += np.int64(come[tail[k]])
    ground = n_places
    above = np.uintp(ground)
    on_arrow = ground + 1
    parent = np.full(ground + 1, -1, np.int32)
    journal = np.empty(on_arrow + m + 2, np.int32)
    value = room(form, on_arrow + m)
    zero = nothing(form)
    write(value, ground, zero)
    arrow_at = np.full(n * n if length >= 2 else 0, -1, np.int32)
    first_at = np.full(n * n if length >= 2 else 0, -1, np.int32)
    for v in range(n):  # the arrows that have come so far end here; they come in order of weight
        out_end[v] = out_start[v]
        in_end[v] = in_start[v]
    steps = np.empty(((3 * degree * degree if exact2 else 0) + 2 * degree + 1, 4), np.int32)
    component = np.arange(n)

    for k in range(m):
        u = np.int64(tail[k])
        v = np.int64(head[k])
        now = time[k]
        tree_u = u
        while component[tree_u] != tree_u:
            component[tree_u] = component[component[tree_u]]
            tree_u = component[tree_u]
        tree_v = v
        while component[tree_v] != tree_v:
            component[tree_v] = component[component[tree_v]]
            tree_v = component[tree_v]
        joins = tree_u != tree_v
        if joins:
            component[tree_u] = tree_v
            if now > 0 and length > 0:
                add_bar(0, 0.0, now, bars, counts)
        if max_dim == 0:
            continue
        if length == 1:
            if not joins:
                add_bar(1, now, np.inf, bars, counts)
            continue

        # The arrow uv. If a 2-path u b v is there already, the triangle that it makes kills, at once, the
        # loop that the arrow closes; so does, in the regular case, the bigon with vu. Then no class is
        # opened: the value of the arrow is the one that makes that boundary vanish.
        late = np.int64(first_at[u * n + v])
        back = np.int64(arrow_at[v * n + u])
        bits = zero
        if not joins:
            if late >= 0:
                bits = plus(
                    read(value, on_arrow + late), read(value, on_arrow + arrow_at[head[late] * n + v])
                )
            elif regular and back >= 0:
                bits = read(value, on_arrow + back)
            else:
                if counts[1, N_LIVE] == max_live:
                    return False
                bits = open_class(1, now, value, slots, births, counts)
        put(1, on_arrow + k, bits, value, journal, counts)
        arrow_at[u * n + v] = k
        out_end[u] += 1
        in_end[v] += 1

        # The new 2-paths: uvx and xuv, the arrow being the first and the last one in turn.
        n_new = 0
        for at in range(out_start[v], out_end[v]):
            steps[n_new, 0] = k
            steps[n_new, 1] = out_arrow[at]
            n_new += 1
        for at in range(in_start[u], in_end[u]):
            steps[n_new, 0] = in_arrow[at]
            steps[n_new, 1] = k
            n_new += 1
        for at in range(n_new):
            i = np.int64(steps[at, 0])
            j = np.int64(steps[at, 1])
            a = np.int64(tail[i])
            c = np.int64(head[j])
            bits = plus(read(value, on_arrow + i), read(value, on_arrow + j))
            path = zero  # the value on the 2-path abc
            judged = True  # whether it brings an element of Ω_2 whose boundary is to be judged by `bits`
            if regular and a == c:
                if i == k:
                    # The bigon uvu; unless a triangle has killed the loop of uv, this one has.
                    judged = late >= 0
                elif exact2:
                    # The bigon vuv comes after uvu, and the 3-path uvuv makes the two equal at once.
                    judged = False
                    x = np.uintp(by_first[j] + number_to[v * n + u])
                    while x != above:
                        path = plus(path, read(value, x))
                        x = np.uintp(parent[x])
                else:
                    bits = zero
            else:
                shortcut = np.int64(arrow_at[a * n + c])
                if shortcut >= 0:
                    bits = plus(bits, read(value, on_arrow + shortcut))
                else:
                    other = np.int64(first_at[a * n + c])
                    if other >= 0:
                        bits = plus(bits, read(value, on_arrow + other))
                        bits = plus(bits, read(value, on_arrow + arrow_at[head[other] * n + c]))
                    else:
                        # The first path from a to c. Other paths are measured against it, so its value is
                        # zero, and stays so: the arrow ac, if it comes, is spent on the triangle abc.
                        first_at[a * n + c] = i
                        judged = False
            if judged:
                if nonzero(bits):
                    end_youngest(1, bits, now, value, journal, slots, births, bars, counts)
                elif exact2:
                    if counts[2, N_LIVE] == max_live:
                        return False
                    path = open_class(2, now, value, slots, births, counts)
                elif max_dim == 2:
                    add_bar(2, now, np.inf, bars, counts)
            if not exact2:
                continue

            # The face abc is allowed from now on: both its places are joined to ground, at its value. If one
            # was so already, through other 3-paths, that closes a cycle: an element of Ω_3.
            b = np.int64(head[i])
            first_place = by_first[i] + number_to[b * n + c]
            for place in (first_place, by_last[j] + number_from[a * n + b]):
                x = np.uintp(place)
                up_x = parent[x]
                bits = path
                while up_x >= 0:
                    bits = plus(bits, read(value, x))
                    x = np.uintp(up_x)
                    up_x = parent[x]
                if x != above:
                    parent[x] = ground
                    put(2, x, bits, value, journal, counts)
                elif nonzero(bits):
                    end_youngest(2, bits, now, value, journal, slots, births, bars, counts)
                    path = zero  # the death may have changed it: read it again
                    x = np.uintp(first_place)
                    while x != above:
                        path = plus(path, read(value, x))
                        x = np.uintp(parent[x])
        if not exact2:
            continue

        # The new 3-paths abcd, the arrow being the first, the middle and the last one in turn. Kept are the
        # places of their faces: those that may be missing, abd and acd, then abc and bcd.
        n_new = 0
        first_k = by_first[k]
        last_k = by_last[k]
        path_uv = number_to[u * n + v]
        for at in range(out_start[v], out_end[v]):
            j = np.int64(out_arrow[at])
            c = np.int64(head[j])
            if middles[u * n + c] == 1:
                continue
            first_j = by_first[j]
            from_u = number_from[u * n + c]
            face_uvc = first_k + number_to[v * n + c]
            for beyond in range(out_start[c], out_end[c]):
                last = np.int64(out_arrow[beyond])
                d = np.int64(head[last])
                steps[n_new, 0] = ground if regular and d == v else first_k + number_to[v * n + d]
                steps[n_new, 1] = ground if regular and c == u else by_last[last] + from_u
                steps[n_new, 2] = face_uvc
                steps[n_new, 3] = first_j + number_to[c * n + d]
                # In the regular case abab only makes two bigons equal, see above: not kept.
                n_new += middles[v * n + d] != 1 and not (regular and d == v and c == u)
        for at in range(in_start[u], in_end[u]):
            i = np.int64(in_arrow[at])
            a = np.int64(tail[i])
            if middles[a * n + v] == 1:
                continue
            first_i = by_first[i]
            from_a = number_from[a * n + v]
            face_auv = first_i + path_uv
            for beyond in range(out_start[v], out_end[v]):
                last = np.int64(out_arrow[beyond])
                d = np.int64(head[last])
                steps[n_new, 0] = ground if regular and d == u else first_i + number_to[u * n + d]
                steps[n_new, 1] = ground if regular and a == v else by_last[last] + from_a
                steps[n_new, 2] = face_auv
                steps[n_new, 3] = first_k + number_to[v * n + d]
                n_new += middles[u * n + d] != 1 and not (regular and d == u and a == v)
        for at in range(in_start[u], in_end[u]):
            j = np.int64(in_arrow[at])
            b = np.int64(tail[j])
            if middles[b * n + v] == 1:
                continue
            to_v = number_to[b * n + v]
            to_u = number_to[b * n + u]
            face_buv = by_first[j] + path_uv
            for beyond in range(in_start[b], in_end[b]):
                i = np.int64(in_arrow[beyond])
                a = np.int64(tail[i])
                first_i = by_first[i]
                steps[n_new, 0] = ground if regular and b == v else first_i + to_v
                steps[n_new, 1] = ground if regular and a == u else last_k + number_from[a * n + u]
                steps[n_new, 2] = first_i + to_u
                steps[n_new, 3] = face_buv
                n_new += middles[a * n + u] != 1 and i != k  # uvuv has been met already
        for at in range(n_new):
            # Unsigned indices spare the compiled code the test for negative ones.
            x = np.uintp(steps[at, 0])
            y = np.uintp(steps[at, 1])
            up_x = parent[x]
            up_y = parent[y]
            bits = zero
            if counts[2, N_LIVE] == 0:
                # No class lives, every value is zero: only the forest grows.
                while up_x >= 0:
                    x = np.uintp(up_x)
                    up_x = parent[x]
                while up_y >= 0:
                    y = np.uintp(up_y)
                    up_y = parent[y]
                if x == y:
                    continue
            else:
                while up_x >= 0:
                    bits = plus(bits, read(value, x))
                    x = np.uintp(up_x)
                    up_x = parent[x]
                while up_y >= 0:
                    bits = plus(bits, read(value, y))
                    y = np.uintp(up_y)
                    up_y = parent[y]
                for side in range(2, 4):
                    z = np.uintp(steps[at, side])
                    while z != above:
                        bits = plus(bits, read(value, z))
                        z = np.uintp(parent[z])
                if x == y:
                    if nonzero(bits):
                        end_youngest(2, bits, now, value, journal, slots, births, bars, counts)
                    continue
            # Two trees become one: the smaller hangs from the larger, and never ground from another. The root
            # keeps the size of its tree, negative.
            if y == above or (x != above and up_y < up_x):
                x, y = y, x
            if x != above:
                parent[x] = up_x + up_y
            parent[y] = x
            put(2, y, bits, value, journal, counts)

    for v in range(n):
        if component[v] == v or length == 0:
            add_bar(0, 0.0, np.inf, bars, counts)
    outlive(slots, births, bars, counts)
    return True


@njit
def sweep_digraphs(n_vertices, offsets, arrows, weights, max_dim, length, regular, start, stop, form):
    """Compute the bars of the digraphs from `start` to `stop` of a batch, one after the other.

    Parameters
    ----------
    n_vertices : (g,) int64 array
    offsets : (g + 1,) int64 array
        Digraph i has the arrows from ``offsets[i]`` to ``offsets[i + 1]``.
    arrows : (M, 2) int64 array
    weights : (M,) float64 array
    max_dim, length : int
    regular : bool
        As in `_sweep`.
    start, stop : int
        Which digraphs to take.
    form : (0,) or (0, 8) uint64 array
        As in `_sweep`.

    Returns
    -------
    bars : (K, 2) float64 array
        Bars of all digraphs, of dimension 0, 1, … within each.
    counts : (stop - start, max_dim + 1) int64 array
        Numbers of bars; -1 at the head of a row whose digraph has too many living classes for this engine.
    bad : int
        The first digraph that is no weighted digraph, or -1. The bars are then incomplete.
    """
    n_most = m_most = bars_most = 0
    for g in range(start, stop):
        n = n_vertices[g]
        m = offsets[g + 1] - offsets[g]
        n_most = max(n_most, n)
        m_most = max(m_most, m)
    seen = np.empty(n_most * n_most, np.uint8)
    tails = np.empty(m_most, np.int32)
    heads = np.empty(m_most, np.int32)
    times = np.empty(m_most)
    degree = np.empty((2, n_most), np.int64)
    bars = np.empty((3, bars_most, 2))
    counts = np.empty((3, 4), np.int64)
    found = np.empty((64 * (stop - start) + 64, 2))
    n_found = 0
    n_bars = np.zeros((stop - start, max_dim + 1), np.int64)

    for g in range(start, stop):
        n = n_vertices[g]
        base = offsets[g]
        m = offsets[g + 1] - base
        for v in range(n):
            degree[0, v] = 0
            degree[1, v] = 0
        for k in range(base, base + m):
            a = arrows[k, 0]
            b = arrows[k, 1]
            # A NaN fails every comparison, so these are written to be true for what is good.
            if not (0 <= a < n and 0 <= b < n and a != b and 0.0 <= weights[k] < np.inf):
                return found[:0], n_bars, g
            degree[0, a] += 1
            degree[1, b] += 1
        needed = n + m
        for v in range(n):
            needed += degree[0, v] * degree[1, v]
        if needed > bars_most:
            bars_most = needed
            bars = np.empty((3, bars_most, 2))
        order = np.argsort(weights[base : base + m])
        for pair in range(n * n):
            seen[pair] = 0
        for k in range(m):
            a = arrows[base + order[k], 0]
            b = arrows[base + order[k], 1]
            if seen[a * n + b]:
                return found[:0], n_bars, g
            seen[a * n + b] = 1
            tails[k] = a
            heads[k] = b
            times[k] = weights[base + order[k]]
        complete = _sweep(n, tails[:m], heads[:m], times[:m], max_dim, length, regular, form, bars, counts)
        if not complete:
            n_bars[g - start, 0] = -1
            continue
        found, n_found = collected(bars, counts, 0, n_bars[g - start], found, n_found)
    return found[:n_found], n_bars, -1


@njit
def sweep_decorations(n, pairs, times, ranks, max_dim, length, regular, form):
    """Compute the bars of many digraphs that differ only in the directions of their arrows.

    Parameters
    ----------
    n : int
        Number of vertices.
    pairs : (q, 2) int64 array
        Pairs of neighbours, in order of weight.
    times : (q,) float64 array
        Their weights, ascending.
    ranks : (d, n) float64 array
        One row per decoration: the arrow of a pair goes from lower to higher rank, both ways if equal.
    max_dim, length, regular, form
        As in `sweep_digraphs`.

    Returns
    -------
    bars, counts, bad
        As from `sweep_digraphs`; nothing is ever bad.
    """
    q = len(pairs)
    tails = np.empty(2 * q, np.int32)
    heads = np.empty(2 * q, np.int32)
    arrow_times = np.empty(2 * q)
    degree = np.zeros(n, np.int64)
    for k in range(q):
        degree[pairs[k, 0]] += 1
        degree[pairs[k, 1]] += 1
    most = n + 2 * q  # no dimension has more bars than this
    for v in range(n):
        most += degree[v] * degree[v]
    bars = np.empty((3, most, 2))
    counts = np.empty((3, 4), np.int64)
    found = np.empty((64 * len(ranks) + 64, 2))
    n_found = 0
    n_bars = np.zeros((len(ranks), max_dim + 1), np.int64)
    for g in range(len(ranks)):
        m = 0
        for k in range(q):
            a = pairs[k, 0]
            b = pairs[k, 1]
            rank_a = ranks[g, a]
            rank_b = ranks[g, b]
            if rank_a <= rank_b:
                tails[m] = a
                heads[m] = b
                arrow_times[m] = times[k]
                m += 1
            if rank_b <= rank_a:
                tails[m] = b
                heads[m] = a
                arrow_times[m] = times[k]
                m += 1
        complete = _sweep(
            n, tails[:m], heads[:m], arrow_times[:m], max_dim, length, regular, form, bars, counts
        )
        if not complete:
            n_bars[g, 0] = -1
            continue
        found, n_found = collected(bars, counts, 0, n_bars[g], found, n_found)
    return found[:n_found], n_bars, -1
