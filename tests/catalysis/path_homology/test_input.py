"""What is not a weighted digraph is refused in one clear line."""

import numpy as np
import pytest

from catalysis.path_homology import (
    DigraphTemplate,
    betti_curves,
    betti_numbers,
    persistence,
    persistence_batch,
)
from interpretkit.errors import InputError

PATH = np.array([[0, 1], [1, 2]])
ENGINES = ["auto", "fast", "readable"]

BAD_DIGRAPHS = {
    "NaN weight": (3, PATH, [1.0, np.nan], r"weights\[1\] = nan"),
    "negative weight": (3, PATH, [-0.5, 1.0], r"weights\[0\] = -0.5"),
    "infinite weight": (3, PATH, [1.0, np.inf], r"weights\[1\] = inf"),
    "loop": (3, [[0, 1], [2, 2]], [1.0, 1.0], r"arrows\[1\] = 2 -> 2: expected no loop"),
    "repeated arrow": (3, [[0, 1], [1, 0], [0, 1]], [1.0, 1.0, 2.0], r"arrows\[2\] = 0 -> 1: .*once"),
    "index too large": (3, [[0, 1], [1, 3]], [1.0, 1.0], r"arrows\[1\] = 1 -> 3: .*from 0 to 2"),
    "negative index": (3, [[0, 1], [-1, 2]], [1.0, 1.0], r"arrows\[1\] = -1 -> 2"),
    "arrows but no vertex": (0, [[0, 1]], [1.0], r"arrows\[0\] = 0 -> 1: .*no vertices"),
    "arrows of three": (3, [[0, 1, 2]], [1.0], r"arrows: expected an array of shape \(m, 2\)"),
    "flat arrows": (3, [0, 1], [1.0], r"arrows: expected an array of shape \(m, 2\)"),
    "ragged arrows": (3, [[0, 1], [2]], [1.0, 1.0], "arrows: expected"),
    "arrows as floats": (3, PATH + 0.5, [1.0, 1.0], "arrows: expected integers"),
    "too few weights": (3, PATH, [1.0], r"weights: expected shape \(2,\)"),
    "weights in a table": (3, PATH, [[1.0, 2.0]], r"weights: expected shape \(2,\)"),
    "weights in words": (3, PATH, ["near", "far"], "weights: expected numbers"),
    "weights as numbers in quotes": (3, PATH, ["1.0", "2.0"], "weights: expected numbers"),
    "complex weights": (3, PATH, [1.0, 1j], "weights: expected numbers"),
    "weights that are truths": (3, PATH, [True, True], "weights: expected numbers"),
    "masked weights": (3, PATH, np.ma.array([1.0, 2.0], mask=[False, True]), "weights: some are masked"),
    "masked arrows": (
        3,
        np.ma.array(PATH, mask=np.array([[False, True], [False, False]])),
        [1.0, 2.0],
        "arrows: some are masked",
    ),
    "True vertices": (True, np.zeros((0, 2), int), [], "n_vertices = True"),
    "vertices beyond counting": (10**30, np.zeros((0, 2), int), [], "n_vertices = 10+: expected at most"),
    "negative number of vertices": (-1, np.zeros((0, 2), int), [], "n_vertices = -1"),
    "fractional number of vertices": (2.5, PATH, [1.0, 1.0], "n_vertices = 2.5"),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", BAD_DIGRAPHS)
def test_bad_digraph(case, engine):
    n, arrows, weights, message = BAD_DIGRAPHS[case]
    with pytest.raises(InputError, match=message) as caught:
        persistence(n, arrows, weights, engine=engine)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"field": 4}, "field = 4: .*2 divides it"),
        ({"field": 1}, "field = 1"),
        ({"field": -3}, "field = -3"),
        ({"field": 2.5}, "field = 2.5"),
        ({"field": 2**61 - 1}, "field = "),
        ({"max_dim": -1}, "max_dim = -1"),
        ({"max_dim": 1.5}, "max_dim = 1.5"),
        ({"max_path_length": 1}, "max_path_length = 1: expected 2 or 3"),
        ({"max_path_length": 4}, "max_path_length = 4: expected 2 or 3"),
        ({"max_path_length": "long"}, "max_path_length = 'long'"),
        ({"engine": "slow"}, "engine = 'slow'"),
        ({"engine": None}, "engine = None"),
        ({"regular": "no"}, "regular = 'no': expected True or False"),
        ({"regular": 1}, "regular = 1: expected True or False"),
        ({"regular": None}, "regular = None"),
        ({"representatives": "no"}, "representatives = 'no': expected True or False"),
        ({"max_dim": True}, "max_dim = True: expected a whole number"),
        ({"max_dim": "2"}, "max_dim = '2': expected a whole number"),
        ({"max_path_length": True, "max_dim": 0}, "max_path_length = True"),
        ({"field": True}, "field = True: expected a prime number"),
    ],
)
def test_bad_option(option, message):
    with pytest.raises(InputError, match=message) as caught:
        persistence(3, PATH, [1.0, 1.0], **option)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", [{"regular": "no"}, {"max_dim": True}, {"field": 9}, {"engine": "slow"}])
def test_batches_and_templates_refuse_too(option):
    with pytest.raises(InputError, match=next(iter(option))):
        persistence_batch([3], [0, 2], PATH, [1.0, 1.0], **option)
    with pytest.raises(InputError, match=next(iter(option))):
        DigraphTemplate(3, PATH, [1.0, 1.0], **option)


def test_threads_are_a_number():
    for threads in (0, True, "2", 1.5):
        with pytest.raises(InputError, match="n_threads"):
            persistence_batch([3], [0, 2], PATH, [1.0, 1.0], n_threads=threads)  # type: ignore[arg-type]


def test_betti_numbers_refuses_too():
    with pytest.raises(InputError, match="expected no loop"):
        betti_numbers(3, [[1, 1]])


@pytest.mark.parametrize(
    ("bars", "grid", "message"),
    [
        ([np.zeros((2, 2))], [[0.0, 1.0]], "grid: expected shape"),
        ([np.zeros((2, 2))], [0.0, np.nan], "grid: .*NaN"),
        ([np.zeros((2, 2))], ["a"], "grid: expected numbers"),
        ([np.zeros((2, 3))], [0.0], r"barcodes\[0\]: expected shape"),
    ],
)
def test_bad_curves(bars, grid, message):
    with pytest.raises(InputError, match=message):
        betti_curves(bars, grid)


def test_input_is_left_as_it_was_and_bars_are_read_only():
    arrows, weights = PATH.copy(), np.array([2.0, 1.0])
    barcodes = persistence(3, arrows, weights)
    np.testing.assert_array_equal(arrows, PATH)
    np.testing.assert_array_equal(weights, [2.0, 1.0])
    assert arrows.flags.writeable
    assert weights.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        barcodes[0][0, 0] = 1.0
