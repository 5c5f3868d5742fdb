"""Many digraphs in one call: the same bars as one by one, in order, whatever the number of threads."""

import numpy as np
import pytest

from catalysis.path_homology import batch, betti_curves, persistence, persistence_batch
from catalysis.path_homology import engines as engine_choice
from interpretkit.errors import InputError


def random_digraphs(count, seed=0, most=9):
    rng = np.random.default_rng(seed)
    digraphs = []
    for _ in range(count):
        n = int(rng.integers(0, most))
        there = rng.random((n, n)) < rng.random()
        np.fill_diagonal(there, False)
        arrows = np.argwhere(there)
        digraphs.append((n, arrows, rng.integers(0, 6, len(arrows)) / 2))
    return digraphs


def flattened(digraphs):
    n_vertices = np.array([n for n, _, _ in digraphs], dtype=int)
    offsets = np.concatenate([[0], np.cumsum([len(arrows) for _, arrows, _ in digraphs])]).astype(int)
    arrows = np.concatenate([np.zeros((0, 2), int), *(arrows for _, arrows, _ in digraphs)])
    weights = np.concatenate([np.zeros(0), *(weights for _, _, weights in digraphs)])
    return n_vertices, offsets, arrows, weights


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("options", [{}, {"regular": False, "max_path_length": 2}, {"max_dim": 1}])
def test_a_batch_is_its_digraphs_one_by_one(threads, options, monkeypatch):
    monkeypatch.setattr(batch, "CHUNK", 7)
    digraphs = random_digraphs(60)
    whole = persistence_batch(*flattened(digraphs), n_threads=threads, **options)
    assert len(whole) == 60
    assert whole.engine == "fast"
    for one, digraph in zip(whole, digraphs, strict=True):
        for bars, again in zip(one, persistence(*digraph, **options), strict=True):
            np.testing.assert_array_equal(bars, again)


def test_the_readable_engine_takes_batches_too(monkeypatch):
    digraphs = random_digraphs(5, seed=1)
    fast = persistence_batch(*flattened(digraphs))
    readable = persistence_batch(*flattened(digraphs), engine="readable")
    modular = persistence_batch(*flattened(digraphs), field=3)
    monkeypatch.setattr(engine_choice, "compiled", lambda: None)
    np.testing.assert_array_equal(readable.bars, fast.bars)
    np.testing.assert_array_equal(readable.offsets, fast.offsets)
    assert (fast.engine, readable.engine, modular.engine) == ("fast", "readable", "readable")


def test_a_digraph_with_many_living_classes_is_put_in_its_place():
    def loops(count):
        arrows = [(3 * i + k, 3 * i + (k + 1) % 3) for i in range(count) for k in range(3)]
        return 3 * count, np.array(arrows), np.ones(3 * count)

    digraphs = [*random_digraphs(4), loops(100), *random_digraphs(3, seed=2), loops(520)]
    whole = persistence_batch(*flattened(digraphs))
    assert whole.engine == "fast, readable"
    # Each directed triangle is a component and a loop, which live for ever.
    assert [len(bars) for bars in whole[-1]] == [3 * 520, 520, 0]
    assert np.isinf(whole[-1][1][:, 1]).all()
    for one, digraph in zip(whole[:-1], digraphs[:-1], strict=True):
        for bars, again in zip(one, persistence(*digraph), strict=True):
            np.testing.assert_array_equal(bars, again)
    with pytest.raises(InputError, match=r"digraph 8: more than 512 classes"):
        persistence_batch(*flattened(digraphs), engine="fast")


def test_empty_batches():
    nothing = persistence_batch([], [0], np.zeros((0, 2), int), [])
    assert len(nothing) == 0
    assert nothing.betti_curves([0.0, 1.0]).shape == (0, 3, 2)
    isolated = persistence_batch([2, 0], [0, 0, 0], np.zeros((0, 2), int), [])
    assert [len(bars) for bars in isolated[0]] == [2, 0, 0]
    assert [len(bars) for bars in isolated[-1]] == [0, 0, 0]


def test_reading_a_batch():
    digraphs = random_digraphs(6)
    whole = persistence_batch(*flattened(digraphs))
    assert len(whole[1:4]) == 3
    np.testing.assert_array_equal(whole[-1][0], whole[5][0])
    with pytest.raises(IndexError):
        whole[6]
    with pytest.raises(ValueError, match="read-only"):
        whole.bars[0, 0] = 1.0


def test_curves_of_a_batch():
    digraphs = random_digraphs(40, seed=3)
    whole = persistence_batch(*flattened(digraphs))
    grid = [2.0, 0.0, 0.5, 0.25, 1.0, 9.0, -1.0, 0.5]
    expected = np.stack([betti_curves(one, grid) for one in whole])
    np.testing.assert_array_equal(whole.betti_curves(grid), expected)
    with pytest.raises(InputError, match="grid"):
        whole.betti_curves([np.nan])


PAIR = np.array([[0, 1], [1, 0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([2, 2], [0, 1], PAIR, [1.0, 1.0]), "arrow_offsets: expected 3 numbers"),
        (([2, 2], [0, 1, 1], PAIR, [1.0, 1.0]), "arrow_offsets: expected 2, the number of arrows"),
        (([2, 2], [0, 3, 2], PAIR, [1.0, 1.0]), "arrow_offsets: .*never fall"),
        (([2, 2], [1, 1, 2], PAIR, [1.0, 1.0]), "arrow_offsets: .*from 0"),
        (([2, -2], [0, 1, 2], PAIR, [1.0, 1.0]), r"n_vertices\[1\] = -2"),
        (([2, 2.5], [0, 1, 2], PAIR, [1.0, 1.0]), "n_vertices: expected integers"),
        (([2, 2], [0, 1, 2], PAIR, [1.0, np.nan]), r"digraph 1: weights\[0\] = nan"),
        (([2, 1], [0, 1, 2], PAIR, [1.0, 1.0]), r"digraph 1: arrows\[0\] = 1 -> 0: .*from 0 to 0"),
        (([2, 2], [0, 0, 2], [[0, 1], [0, 1]], [1.0, 1.0]), r"digraph 1: arrows\[1\] = 0 -> 1: .*once"),
    ],
)
@pytest.mark.parametrize("engine", ["auto", "fast", "readable"])
def test_bad_batches(arguments, message, engine):
    with pytest.raises(InputError, match=message) as caught:
        persistence_batch(*arguments, engine=engine)
    assert "\n" not in str(caught.value)


def test_bad_number_of_threads():
    with pytest.raises(InputError, match="n_threads = 0"):
        persistence_batch([2], [0, 2], PAIR, [1.0, 1.0], n_threads=0)
