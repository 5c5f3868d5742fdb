"""One geometry, many decorations: the same bars as digraph by digraph."""

import numpy as np
import pytest

from catalysis.path_homology import DigraphTemplate, persistence, persistence_batch, template
from interpretkit.errors import InputError


def random_geometry(seed, n=12):
    rng = np.random.default_rng(seed)
    points = rng.random((n, 3)) * 2
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    pairs = np.argwhere(np.triu(distance < 1.2, 1))
    swap = rng.random(len(pairs)) < 0.5
    pairs[swap] = pairs[swap][:, ::-1]
    return n, pairs, distance[pairs[:, 0], pairs[:, 1]].round(1), rng


@pytest.mark.parametrize(
    "options",
    [{}, {"regular": False}, {"max_dim": 1}, {"max_path_length": 2}, {"field": 3}, {"engine": "readable"}],
)
def test_decorations_are_digraphs(options):
    n, pairs, weights, rng = random_geometry(0)
    geometry = DigraphTemplate(n, pairs, weights, **options)
    ranks = rng.integers(0, 3, (12, n))
    together = geometry.persistence(ranks, n_threads=2)
    assert together.engine == ("readable" if options.keys() & {"field", "engine"} else "fast")
    for row, one in zip(ranks, together, strict=True):
        a, b = pairs.T
        forth, back = row[a] <= row[b], row[b] <= row[a]
        arrows = np.concatenate([pairs[forth], pairs[back][:, ::-1]])
        expected = persistence(n, arrows, np.concatenate([weights[forth], weights[back]]), **options)
        alone = persistence(n, *geometry.digraph(row), **options)
        for bars, again, once_more in zip(one, expected, alone, strict=True):
            np.testing.assert_array_equal(bars, again)
            np.testing.assert_array_equal(bars, once_more)


def as_batch(geometry, ranks):
    """The decorations, written out as digraphs."""
    digraphs = [geometry.digraph(row) for row in ranks]
    offsets = np.concatenate([[0], np.cumsum([len(arrows) for arrows, _ in digraphs])])
    return persistence_batch(
        np.full(len(ranks), geometry.n_vertices),
        offsets,
        np.concatenate([arrows for arrows, _ in digraphs]),
        np.concatenate([weights for _, weights in digraphs]),
    )


def close_packed(n_side, n_layers):
    """Neighbours and distances in a rattled fcc (111) block; and, at 0, distances that are massively tied."""
    k, j, i = (axis.ravel() for axis in np.mgrid[:n_layers, :n_side, :n_side])
    points = np.stack(
        [i + 0.5 * (j % 2) + 0.5 * (k % 3), (j + (k % 3) / 3) * np.sqrt(3) / 2, k * np.sqrt(2 / 3)], axis=1
    )
    points += np.random.default_rng(0).normal(0.0, 0.02, points.shape)
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    pairs = np.argwhere(np.triu(distance < 1.2, 1))
    return len(points), pairs, distance[pairs[:, 0], pairs[:, 1]]


@pytest.mark.parametrize(
    ("seed", "n", "kinds"), [(0, 12, 3), (1, 12, 1), (2, 12, 2), (3, 9, 5), (4, 15, 4), (5, 7, 12)]
)
@pytest.mark.parametrize("tied", [False, True])
def test_tables_give_the_same_bars(monkeypatch, seed, n, kinds, tied):
    monkeypatch.setattr(template, "ENOUGH", 0)
    n, pairs, weights, rng = random_geometry(seed, n)
    if tied:
        weights = np.ceil(weights)
    geometry = DigraphTemplate(n, pairs, weights)
    ranks = rng.integers(0, kinds, (150, n))
    together = geometry.persistence(ranks, n_threads=1)
    assert geometry._geometry is not None
    expected = as_batch(geometry, ranks)
    np.testing.assert_array_equal(together.offsets, expected.offsets)
    np.testing.assert_array_equal(together.bars, expected.bars)


@pytest.mark.parametrize("decimals", [8, 0])
def test_tables_on_a_surface(monkeypatch, decimals):
    monkeypatch.setattr(template, "ENOUGH", 0)
    n, pairs, weights = close_packed(4, 3)
    geometry = DigraphTemplate(n, pairs, weights.round(decimals))
    ranks = np.random.default_rng(1).integers(0, 5, (300, n))
    together, expected = geometry.persistence(ranks, n_threads=2), as_batch(geometry, ranks)
    assert sum(len(one[2]) for one in together) > (30 if decimals else -1)
    np.testing.assert_array_equal(together.offsets, expected.offsets)
    np.testing.assert_array_equal(together.bars, expected.bars)


def test_tables_of_complete_graphs(monkeypatch):
    monkeypatch.setattr(template, "ENOUGH", 0)
    pairs = np.argwhere(np.triu(np.ones((7, 7)), 1))
    rng = np.random.default_rng(2)
    for weights in (rng.random(len(pairs)), np.zeros(len(pairs))):
        geometry = DigraphTemplate(7, pairs, weights)
        ranks = rng.integers(0, 3, (200, 7))
        together, expected = geometry.persistence(ranks), as_batch(geometry, ranks)
        np.testing.assert_array_equal(together.offsets, expected.offsets)
        np.testing.assert_array_equal(together.bars, expected.bars)


@pytest.mark.parametrize(("n", "pairs"), [(0, []), (3, []), (3, [[0, 2]]), (4, [[0, 1], [1, 2], [2, 3]])])
def test_tables_of_little(monkeypatch, n, pairs):
    monkeypatch.setattr(template, "ENOUGH", 0)
    geometry = DigraphTemplate(n, np.reshape(pairs, (-1, 2)).astype(int), np.ones(len(pairs)))
    ranks = np.zeros((3, n))
    together = geometry.persistence(ranks)
    for one in together:
        for bars, again in zip(one, persistence(n, *geometry.digraph(ranks[0])), strict=True):
            np.testing.assert_array_equal(bars, again)


def test_tables_are_made_after_enough_decorations(monkeypatch):
    n, pairs, weights, rng = random_geometry(0)
    monkeypatch.setattr(template, "ENOUGH", 30)
    geometry = DigraphTemplate(n, pairs, weights)
    ranks = rng.integers(0, 3, (20, n))
    first = geometry.persistence(ranks)
    assert geometry._geometry is None
    second = geometry.persistence(ranks)
    assert geometry._geometry is not None
    np.testing.assert_array_equal(first.bars, second.bars)
    for other in (
        DigraphTemplate(n, pairs, weights, regular=False),
        DigraphTemplate(n, pairs, weights, max_dim=1),
        DigraphTemplate(n, pairs, weights, max_path_length=2),
    ):
        other.persistence(np.concatenate([ranks, ranks]))
        assert other._geometry is None


def test_components_do_not_depend_on_the_decoration():
    n, pairs, weights, rng = random_geometry(1)
    together = DigraphTemplate(n, pairs, weights).persistence(rng.random((50, n)))
    for one in together:
        np.testing.assert_array_equal(one[0], together[0][0])


@pytest.mark.parametrize("enough", [0, 2000])
def test_more_living_classes_than_a_word_holds(monkeypatch, enough):
    monkeypatch.setattr(template, "ENOUGH", enough)
    # 70 squares, each with alternating directions, which no square of Ω_2 fills.
    corners = 4 * np.arange(70)[:, None, None] + np.array([[0, 1], [1, 2], [2, 3], [3, 0]])
    squares = DigraphTemplate(280, corners.reshape(-1, 2), np.ones(280))
    crowded, filled = [0, 1] * 140, [0, 1, 2, 1] * 70
    for one, loops in zip(squares.persistence([filled, crowded, filled]), (0, 70, 0), strict=True):
        assert len(one[1]) == loops


def test_no_decoration():
    n, pairs, weights, _ = random_geometry(2)
    assert len(DigraphTemplate(n, pairs, weights).persistence(np.zeros((0, n)))) == 0


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ([0, 1], r"ranks: expected 3 numbers a row, got shape \(2,\)"),
        ([[0, 1]], r"ranks: expected 3 numbers a row, got shape \(1, 2\)"),
        ([[0.0, 1.0, np.nan]], "ranks: .*NaN"),
        ([["a", "b", "c"]], "ranks: expected numbers"),
    ],
)
def test_bad_ranks(ranks, message):
    geometry = DigraphTemplate(3, [[0, 1], [1, 2]], [1.0, 1.0])
    with pytest.raises(InputError, match=message):
        geometry.persistence(ranks)


@pytest.mark.parametrize(
    ("pairs", "options", "message"),
    [
        ([[0, 1], [1, 0]], {}, r"pairs\[1\] = \[1, 0\]: expected each pair once"),
        ([[0, 1], [2, 2]], {}, "expected no loop"),
        ([[0, 1], [1, 2]], {"engine": "fast", "field": 3}, "field = 2 only"),
        ([[0, 1], [1, 2]], {"max_dim": -1}, "max_dim"),
    ],
)
def test_bad_templates(pairs, options, message):
    with pytest.raises(InputError, match=message):
        DigraphTemplate(3, pairs, [1.0, 1.0], **options)


HUGE = 2**53


@pytest.mark.parametrize("engine", ["auto", "readable"])
@pytest.mark.parametrize(
    "ranks",
    [
        np.array([[HUGE, HUGE + 1, HUGE + 2]]),
        np.array([[2**63, 2**63 + 1, 2**63 + 2]], dtype=np.uint64),
        np.array([[-HUGE - 2, -HUGE - 1, -HUGE]]),
        [[HUGE, HUGE + 1, HUGE + 2]],
        [[HUGE, HUGE + 1, HUGE + 2.0]],
        [[10**30, 10**30 + 1, 10**30 + 2]],
        [[-1, 0, 2**63]],
        np.array([[10**30, 10**30 + 1, 10**30 + 2]], dtype=object),
        1 + np.arange(3, dtype=np.longdouble)[np.newaxis] * np.finfo(np.longdouble).eps,
    ],
    ids=range(9),
)
def test_ranks_are_told_apart_however_large(ranks, engine):
    """Ascending ranks make a triangle without a loop; two that fell together would give an arrow back."""
    triangle = DigraphTemplate(3, [[0, 1], [1, 2], [2, 0]], [1.0, 1.0, 1.0], max_dim=1, engine=engine)
    assert len(triangle.digraph(ranks[0])[0]) == 3
    expected = triangle.persistence([[1, 2, 3]])[0]
    (found,) = triangle.persistence(ranks)
    for bars, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(bars, wanted)


@pytest.mark.parametrize(
    "ranks", [[[1, "2", 3]], [[1, None, 3]], [[1, 2j, 3]], [[True, False, True]], [["a", "b", "c"]]]
)
def test_ranks_that_are_no_numbers_are_refused(ranks):
    triangle = DigraphTemplate(3, [[0, 1], [1, 2], [2, 0]], [1.0, 1.0, 1.0], max_dim=1)
    with pytest.raises(InputError, match="ranks: expected numbers"):
        triangle.persistence(ranks)
