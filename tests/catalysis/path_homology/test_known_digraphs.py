"""Digraphs whose path homology is known by hand or from the literature."""

import math

import numpy as np
import pytest

from catalysis.path_homology import betti_numbers, persistence

ENGINES = ["readable", "fast"]
ARROW_FREE = np.zeros((0, 2), dtype=int)


def cycle(n, first=0):
    return [(first + i, first + (i + 1) % n) for i in range(n)]


def both_ways(arrows):
    return [*arrows, *((b, a) for a, b in arrows)]


def complete(n):
    return [(a, b) for a in range(n) for b in range(n) if a != b]


def layers(*sizes):
    starts = np.cumsum([0, *sizes])
    return [
        (a, b)
        for k in range(len(sizes) - 1)
        for a in range(starts[k], starts[k + 1])
        for b in range(starts[k + 1], starts[k + 2])
    ]


def to_all(source, targets):
    return [(source, b) for b in targets]


def from_all(sources, target):
    return [(a, target) for a in sources]


def words(text):
    """Read arrows such as "ab bd"; letters count from a, digits from 0."""
    return [tuple(ord(x) - (97 if x.isalpha() else 48) for x in word) for word in text.split()]


SQUARE_ON_A_RING = words("01 21 03 23")
FROM_1803_07497 = words("12 13 14 15 26 27 36 38 47 49 58 59 60 70 80 90")

# name: (vertices, arrows, regular Betti numbers, non-regular ones or None where they are the same)
KNOWN = {
    "no vertex": (0, ARROW_FREE, (0, 0, 0), None),
    "three vertices, no arrow": (3, ARROW_FREE, (3, 0, 0), None),
    "arrow": (2, words("ab"), (1, 0, 0), None),
    "transitive triangle": (3, words("ab bc ac"), (1, 0, 0), None),
    "transitive T4": (4, words("ab ac ad bc bd cd"), (1, 0, 0), None),
    "complete K3": (3, complete(3), (1, 0, 0), None),
    "complete K4": (4, complete(4), (1, 0, 0), None),
    **{f"cycle C{n}": (n, cycle(n), (1, 1, 0), None) for n in (3, 4, 5, 6, 11)},
    "bigon": (2, words("ab ba"), (1, 0, 0), (1, 1, 0)),
    "commuting square": (4, words("ab bd ac cd"), (1, 0, 0), None),
    "alternating square": (4, words("01 21 23 30"), (1, 1, 0), None),
    "long way and short way": (4, words("01 12 23 03"), (1, 1, 0), None),
    "C4 both ways": (4, both_ways(cycle(4)), (1, 0, 0), (1, 1, 0)),
    "C5 both ways": (5, both_ways(cycle(5)), (1, 1, 0), (1, 2, 1)),
    "C3, one arrow both ways": (3, words("ab bc ca ba"), (1, 0, 0), (1, 1, 0)),
    "two C3, one vertex shared": (5, words("ab bc ca cd de ec"), (1, 2, 0), None),
    "two C3, one arrow shared": (4, words("ab bc ca bd da"), (1, 1, 0), None),
    "two C3 apart": (6, cycle(3) + cycle(3, first=3), (2, 2, 0), None),
    "cone over C3": (4, cycle(3) + to_all(3, range(3)), (1, 0, 0), None),
    "C3 with two sources": (5, cycle(3) + to_all(3, range(3)) + to_all(4, range(3)), (1, 0, 1), None),
    "C3 with two sinks": (5, cycle(3) + from_all(range(3), 3) + from_all(range(3), 4), (1, 0, 1), None),
    "C3, a source and a sink": (5, cycle(3) + to_all(3, range(3)) + from_all(range(3), 4), (1, 0, 0), None),
    "octahedron": (
        6,
        SQUARE_ON_A_RING + to_all(4, range(4)) + to_all(5, range(4)),
        (1, 0, 1),
        None,
    ),
    "layers 2, 2, 2": (6, layers(2, 2, 2), (1, 0, 1), None),
    "layers 3, 3, 3": (9, layers(3, 3, 3), (1, 0, 8), None),
    "cube": (8, words("ab ac bd cd ef eg gh fh ae bf cg dh"), (1, 0, 0), None),
    "arXiv 1803.07497, theorem 6.1": (10, FROM_1803_07497, (1, 0, 0), None),
    "multisquare": (5, words("ab ac ad be ce de"), (1, 0, 0), None),
    "six vertices, two components": (6, np.array(words("12 34 32 52 51")) - 1, (2, 0, 0), None),
}


@pytest.mark.parametrize(
    ("engine", "field"), [("fast", 2), ("readable", 2), ("readable", 3), ("readable", 5)]
)
@pytest.mark.parametrize("name", KNOWN)
def test_betti_numbers(name, engine, field):
    n, arrows, regular, irregular = KNOWN[name]
    assert tuple(betti_numbers(n, arrows, engine=engine, field=field)) == regular
    got = betti_numbers(n, arrows, engine=engine, field=field, regular=False)
    assert tuple(got) == (irregular or regular)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("n", [3, 4, 5, 8, 11])
def test_cycle_network_has_one_loop_until_half_way_round(engine, n):
    arrows = complete(n)
    distance = [(b - a) % n for a, b in arrows]
    bars = persistence(n, arrows, distance, engine=engine, max_dim=1)
    np.testing.assert_array_equal(bars[0], [[0, 1]] * (n - 1) + [[0, math.inf]])
    np.testing.assert_array_equal(bars[1], [[1, math.ceil(n / 2)]])


@pytest.mark.parametrize("engine", ENGINES)
def test_an_arrow_may_close_a_triangle_later_than_its_path(engine):
    # a→b→c at 1 and 2, then the loop closes by c→a at 3; the arrow a→c comes last. No square helps.
    bars = persistence(3, words("ab bc ca ac"), [1, 2, 3, 5], engine=engine)
    np.testing.assert_array_equal(bars[1], [[3, 5]])
    # The regular bigon a⇄c and the triangle abc come at the same time: two loops die, one is born.
    assert len(bars[2]) == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_hollow_sphere_is_filled(engine):
    # Two sources over C3 enclose a class of dimension 2, until arrows join one source to the other.
    arrows = cycle(3) + to_all(3, range(3)) + to_all(4, range(3))
    weights = [1.0] * 3 + [2.0] * 3 + [4.0] * 3
    np.testing.assert_array_equal(persistence(5, arrows, weights, engine=engine)[2], [[4, math.inf]])
    filled = persistence(5, [*arrows, (3, 4)], [*weights, 7.0], engine=engine)
    np.testing.assert_array_equal(filled[2], [[4, 7]])


@pytest.mark.parametrize("engine", ENGINES)
def test_without_paths_of_length_three_nothing_kills_a_class_of_dimension_two(engine):
    # Ω_2 of T4 has four triangles with one relation between their boundaries; abcd would kill it.
    arrows = words("ab ac ad bc bd cd")
    assert tuple(betti_numbers(4, arrows, engine=engine, max_path_length=2)) == (1, 0, 1)
    assert tuple(betti_numbers(4, arrows, engine=engine, max_path_length=3)) == (1, 0, 0)


def test_dimension_three():
    assert tuple(betti_numbers(8, layers(2, 2, 2, 2), max_dim=3)) == (1, 0, 0, 1)
    assert tuple(betti_numbers(5, complete(5), max_dim=3)) == (1, 0, 0, 0)
    assert tuple(betti_numbers(8, layers(2, 2, 2, 2), max_dim=3, field=3)) == (1, 0, 0, 1)


def test_lower_dimensions_do_not_depend_on_the_highest():
    arrows = cycle(3) + to_all(3, range(3)) + to_all(4, range(3))
    weights = np.arange(len(arrows), dtype=float)
    whole = persistence(5, arrows, weights, max_dim=3)
    for dim in range(3):
        part = persistence(5, arrows, weights, max_dim=dim)
        assert len(part) == dim + 1
        for p in range(dim + 1):
            np.testing.assert_array_equal(part[p], whole[p])
