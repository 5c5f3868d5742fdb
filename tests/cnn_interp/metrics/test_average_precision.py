"""Average precision against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cnn_interp.metrics.average_precision import Boxes, box_overlaps, detection_score
from interpretkit.errors import InputError

TRUTHS = [
    Boxes.of([[0, 0, 10, 10], [20, 20, 30, 30]], [0, 0]),
    Boxes.of([[0, 0, 10, 10]], [0]),
    Boxes.of([[5, 5, 15, 15]], [1]),
]
FOUND = [
    # Right; the same box again, which is wrong; the other one, shifted to an overlap of 0.6.
    Boxes.of([[0, 0, 10, 10], [0, 0, 10, 9], [20, 22.5, 30, 32.5]], [0, 0, 0], [0.9, 0.8, 0.6]),
    # Too little overlap at any threshold.
    Boxes.of([[0, 6, 10, 16]], [0], [0.7]),
    # The right place, but of the other category; then the right one.
    Boxes.of([[5, 5, 15, 15], [5, 5, 15, 15]], [0, 1], [0.5, 0.4]),
]


def test_hand_worked_values() -> None:
    score = detection_score(FOUND, TRUTHS, 2)
    # In order: right 1/1, wrong, wrong, right 2/4, wrong; recall 1/3, 2/3 of three.
    assert score.by_category(0.5) == pytest.approx([1 / 3 * 1 + 1 / 3 * 0.5, 1.0])
    assert score.mean(0.5) == pytest.approx(0.75)
    # The shifted box counts up to 0.6, three of ten overlaps; beyond, the first third of recall is left.
    expected = 0.3 * 0.5 + 0.7 * (1 / 3)
    assert score.by_category() == pytest.approx([expected, 1.0])
    recall, precision = score.matches[0].curve()
    assert recall == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert precision == pytest.approx([1, 1 / 2, 1 / 3, 1 / 2, 2 / 5])


def test_precision_is_the_largest_at_this_recall_or_more() -> None:
    truths = [Boxes.of([[0, 0, 1, 1], [2, 2, 3, 3]], [0, 0])]
    found = [Boxes.of([[5, 5, 6, 6], [0, 0, 1, 1], [2, 2, 3, 3]], [0, 0, 0], [0.9, 0.8, 0.7])]
    # Precision 0, 1/2, 2/3 at recall 0, 1/2, 1: the envelope is 2/3 throughout.
    assert detection_score(found, truths, 1).mean(0.5) == pytest.approx(2 / 3)


def test_weights_are_images_counted_so_often() -> None:
    score = detection_score(FOUND, TRUTHS, 2)
    repeated = [0, 0, 1, 2, 2, 2]
    again = detection_score([FOUND[i] for i in repeated], [TRUTHS[i] for i in repeated], 2)
    weights = np.bincount(repeated)
    assert score.by_category(0.5, weights) == pytest.approx(again.by_category(0.5))
    assert score.by_category(None, weights) == pytest.approx(again.by_category())


def test_what_is_nowhere_counts_for_nothing() -> None:
    score = detection_score(FOUND, TRUTHS, 3)
    assert np.isnan(score.by_category(0.5)[2])
    assert score.mean(0.5) == pytest.approx(0.75)
    draws = score.draws(n=50, seed=1)
    assert np.array_equal(draws, score.draws(n=50, seed=1))
    assert draws.min() >= 0
    assert draws.max() <= 1
    assert draws.std() > 0


def test_perfect_and_empty() -> None:
    perfect = [Boxes.of(t.boxes, t.categories) for t in TRUTHS]
    assert detection_score(perfect, TRUTHS, 2).mean() == pytest.approx(1.0)
    empty = [Boxes.of(np.zeros((0, 4)), []) for _ in TRUTHS]
    assert detection_score(empty, TRUTHS, 2).mean() == 0


def test_overlaps() -> None:
    first = np.array([[0.0, 0, 10, 10], [0, 0, 0, 0]])
    assert box_overlaps(
        first, np.array([[0.0, 5, 10, 15], [0, 0, 10, 10], [10, 0, 20, 10]])
    ) == pytest.approx(np.array([[1 / 3, 1, 0], [0, 0, 0]]))


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="expected one each"):
        Boxes.of([[0, 0, 1, 1]], [0, 1])
    with pytest.raises(InputError, match="at least one"):
        detection_score([], [], 1)
