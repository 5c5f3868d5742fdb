"""Random digraphs against linear algebra done from the definition, and against gudhi."""

from itertools import pairwise, product

import gudhi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalysis.path_homology import persistence

ENGINES = ["readable", "fast"]
CASES = [
    (engine, regular, field)
    for engine, field in [("readable", 2), ("readable", 3), ("fast", 2)]
    for regular in (True, False)
]


@st.composite
def digraphs(draw, max_vertices=5):
    """Draw a digraph with few distinct weights: ties, bigons, isolated vertices, empty and complete ones."""
    n = draw(st.integers(0, max_vertices))
    pairs = [(a, b) for a in range(n) for b in range(n) if a != b]
    arrows = [pair for pair in pairs if draw(st.booleans())] if draw(st.integers(0, 5)) else pairs
    weights = [draw(st.integers(0, 4)) for _ in arrows]
    return n, np.array(arrows, dtype=int).reshape(-1, 2), np.array(weights, dtype=float)


def kernel(matrix, p):
    """Return a basis of the kernel of `matrix` over F_p, as columns."""
    m = np.array(matrix, dtype=np.int64) % p
    rows, cols = m.shape
    pivots = []
    for col in range(cols):
        rest = [r for r in range(len(pivots), rows) if m[r, col]]
        if not rest:
            continue
        r = len(pivots)
        m[[r, rest[0]]] = m[[rest[0], r]]
        m[r] = m[r] * pow(int(m[r, col]), -1, p) % p
        for other in range(rows):
            if other != r:
                m[other] = (m[other] - m[other, col] * m[r]) % p
        pivots.append(col)
    free = [col for col in range(cols) if col not in pivots]
    basis = np.zeros((cols, len(free)), dtype=np.int64)
    for k, col in enumerate(free):
        basis[col, k] = 1
        for r, pivot in enumerate(pivots):
            basis[pivot, k] = -m[r, col] % p
    return basis


def rank(matrix, p):
    return matrix.shape[1] - kernel(matrix, p).shape[1]


class ByDefinition:
    """Cycles and boundaries of one digraph, as columns over all sequences of vertices."""

    def __init__(self, n, arrows, weights, regular, p):
        self.n, self.regular, self.p = n, regular, p
        self.weight = dict(zip(map(tuple, arrows.tolist()), weights.tolist(), strict=True))
        self.sequences = [list(product(range(n), repeat=d + 1)) for d in range(4)]
        self.place = [{s: i for i, s in enumerate(level)} for level in self.sequences]

    def allowed(self, d, t):
        def is_allowed(s):
            return all(self.weight.get(step, np.inf) <= t for step in pairwise(s))

        return [i for i, s in enumerate(self.sequences[d]) if is_allowed(s)]

    def boundary(self, d, t):
        """Return the boundary of the allowed d-paths at t: (all sequences one shorter, paths)."""
        paths = self.allowed(d, t)
        matrix = np.zeros((len(self.sequences[d - 1]) if d else 0, len(paths)), dtype=np.int64)
        for k, i in enumerate(paths):
            s = self.sequences[d][i]
            for q in range(d + 1 if d else 0):
                face = s[:q] + s[q + 1 :]
                irregular = any(a == b for a, b in pairwise(face))
                if not (self.regular and irregular):
                    matrix[self.place[d - 1][face], k] += (-1) ** q
        return matrix

    def cycles(self, d, t):
        inside = kernel(self.boundary(d, t), self.p)
        everywhere = np.zeros((len(self.sequences[d]), inside.shape[1]), dtype=np.int64)
        everywhere[self.allowed(d, t)] = inside
        return everywhere

    def boundaries(self, d, t):
        whole = self.boundary(d + 1, t)
        stray = np.delete(whole, self.allowed(d, t), axis=0)
        return whole @ kernel(stray, self.p) % self.p

    def persistent_betti(self, d, s, t):
        """Return the rank of H_d at s in H_d at t: cycles at s, modulo those that bound at t."""
        cycles, bounds = self.cycles(d, s), self.boundaries(d, t)
        return rank(np.hstack([cycles, bounds]), self.p) - rank(bounds, self.p)

    def betti_by_ranks(self, d, t):
        """Return β_d at t as |A_d| − rk D_d − (rk D_{d+1} − rk N_{d+1})."""
        upper = self.boundary(d + 1, t)
        stray = np.delete(upper, self.allowed(d, t), axis=0)
        here = rank(self.boundary(d, t), self.p) if d else 0
        return len(self.allowed(d, t)) - here - rank(upper, self.p) + rank(stray, self.p)


def alive(bars, s, t):
    return int(((bars[:, 0] <= s) & (bars[:, 1] > t)).sum())


@pytest.mark.parametrize(("engine", "regular", "field"), CASES)
@given(digraph=digraphs())
@settings(max_examples=25, deadline=None)
def test_rank_formula_at_every_threshold(engine, regular, field, digraph):
    n, arrows, weights = digraph
    bars = persistence(n, arrows, weights, regular=regular, field=field, engine=engine)
    oracle = ByDefinition(n, arrows, weights, regular, field)
    for t in np.unique([0.0, *weights]):
        assert [alive(b, t, t) for b in bars] == [oracle.betti_by_ranks(d, t) for d in range(3)]


@pytest.mark.parametrize(("engine", "regular", "field"), CASES)
@given(digraph=digraphs(max_vertices=4))
@settings(max_examples=15, deadline=None)
def test_births_and_deaths_are_paired_as_the_maps_demand(engine, regular, field, digraph):
    n, arrows, weights = digraph
    bars = persistence(n, arrows, weights, regular=regular, field=field, engine=engine)
    oracle = ByDefinition(n, arrows, weights, regular, field)
    times = np.unique([0.0, *weights])
    for i, s in enumerate(times):
        for t in times[i:]:
            for d in range(3):
                assert alive(bars[d], s, t) == oracle.persistent_betti(d, s, t)


@pytest.mark.parametrize(("engine", "regular", "field"), CASES)
@given(digraph=digraphs(max_vertices=7), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_neither_the_order_of_arrows_nor_the_names_of_vertices_matter(engine, regular, field, digraph, seed):
    n, arrows, weights = digraph
    rng = np.random.default_rng(seed)
    names, order = rng.permutation(n), rng.permutation(len(arrows))
    renamed = names[arrows][order] if len(arrows) else arrows
    one = persistence(n, arrows, weights, regular=regular, field=field, engine=engine)
    other = persistence(n, renamed, weights[order], regular=regular, field=field, engine=engine)
    for bars, again in zip(one, other, strict=True):
        np.testing.assert_array_equal(bars, again)


def cone_complex(n, arrows, weights):
    """Return a simplicial filtration with the same H0 and H1 as regular path homology over F_2.

    A midpoint on every arrow makes the digraph a graph; each bigon, triangle and square, which together
    span Ω_2 at every threshold, is filled by a cone at the time of its latest arrow.
    """
    tree = gudhi.SimplexTree()
    number = {pair: n + k for k, pair in enumerate(map(tuple, arrows.tolist()))}
    weight = dict(zip(number, weights.tolist(), strict=True))
    for v in range(n):
        tree.insert([v], 0.0)
    for (a, b), mid in number.items():
        tree.insert([a, mid], weight[a, b])
        tree.insert([mid, b], weight[a, b])
    cells = [((a, b), (b, a)) for a, b in number if a < b and (b, a) in number]
    two_paths = [((a, b), (c, d)) for a, b in number for c, d in number if b == c and a != d]
    cells += [(ab, bc, (ab[0], bc[1])) for ab, bc in two_paths if (ab[0], bc[1]) in number]
    cells += [
        (*one, *two)
        for one in two_paths
        for two in two_paths
        if one < two and one[0][0] == two[0][0] and one[1][1] == two[1][1]
    ]
    for apex, cell in enumerate(cells, start=n + len(number)):
        time = max(weight[arrow] for arrow in cell)
        for arrow in cell:
            for end in arrow:
                tree.insert([apex, end, number[arrow]], time)
    return tree


@pytest.mark.parametrize("engine", ENGINES)
@given(digraph=digraphs(max_vertices=6))
@settings(max_examples=40, deadline=None)
def test_gudhi_agrees_on_components_and_loops(engine, digraph):
    n, arrows, weights = digraph
    bars = persistence(n, arrows, weights, max_dim=1, engine=engine)
    tree = cone_complex(n, arrows, weights)
    tree.compute_persistence(homology_coeff_field=2, min_persistence=0, persistence_dim_max=True)
    for d in range(2):
        theirs = np.asarray(tree.persistence_intervals_in_dimension(d)).reshape(-1, 2)
        theirs = theirs[theirs[:, 1] > theirs[:, 0]]
        order = np.lexsort((theirs[:, 1], theirs[:, 0]))
        np.testing.assert_array_equal(bars[d], theirs[order])
