"""One geometry, many decorations: the same bars as digraph by digraph."""

import numpy as np
import pytest

from catalysis.path_homology import DigraphTemplate, persistence
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
    template = DigraphTemplate(n, pairs, weights, **options)
    ranks = rng.integers(0, 3, (12, n))
    together = template.persistence(ranks, n_threads=2)
    assert together.engine == ("readable" if options.keys() & {"field", "engine"} else "fast")
    for row, one in zip(ranks, together, strict=True):
        a, b = pairs.T
        forth, back = row[a] <= row[b], row[b] <= row[a]
        arrows = np.concatenate([pairs[forth], pairs[back][:, ::-1]])
        expected = persistence(n, arrows, np.concatenate([weights[forth], weights[back]]), **options)
        alone = persistence(n, *template.digraph(row), **options)
        for bars, again, once_more in zip(one, expected, alone, strict=True):
            np.testing.assert_array_equal(bars, again)
            np.testing.assert_array_equal(bars, once_more)


def test_components_do_not_depend_on_the_decoration():
    n, pairs, weights, rng = random_geometry(1)
    together = DigraphTemplate(n, pairs, weights).persistence(rng.random((50, n)))
    for one in together:
        np.testing.assert_array_equal(one[0], together[0][0])


def test_more_living_classes_than_a_word_holds():
    # 70 squares, each with alternating directions, which no square of Ω_2 fills.
    corners = 4 * np.arange(70)[:, None, None] + np.array([[0, 1], [1, 2], [2, 3], [3, 0]])
    template = DigraphTemplate(280, corners.reshape(-1, 2), np.ones(280))
    (one,) = template.persistence([[0, 1] * 140])
    assert len(one[1]) == 70


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
    template = DigraphTemplate(3, [[0, 1], [1, 2]], [1.0, 1.0])
    with pytest.raises(InputError, match=message):
        template.persistence(ranks)


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
