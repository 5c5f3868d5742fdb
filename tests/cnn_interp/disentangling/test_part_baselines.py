import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from part_planted import IMAGE, grid, planted

from cnn_interp.disentangling.features import LayerMaps, TrunkFeatures
from cnn_interp.disentangling.part_baselines import (
    BASELINES,
    GRAPH,
    MEAN,
    METHODS,
    Task,
    Trial,
    annotated_images,
    interval,
    locate_trials,
    mean_errors,
    nearest_neighbour,
    ridge,
)
from cnn_interp.disentangling.part_cells import part_cells
from interpretkit.errors import InputError


def planted_task(n=60, seed=0, noise=0.1):
    features, part, _ = planted(n=n, seed=seed, noise=noise)
    return Task(features, part_cells(features, ["maps"]), "maps", ("maps",), part, np.arange(n // 2, n))


def test_every_method_looks_at_annotated_landmarks_alone():
    task = planted_task()
    given, rows = np.array([0, 4, 9]), np.arange(10, 30)
    hidden = np.full_like(task.landmarks, np.nan)
    hidden[given] = task.landmarks[given]
    blind = Task(task.features, task.cells, task.deep, task.fine, hidden, task.pool)
    for name, locate in METHODS.items():
        found = locate(task, given, rows, 0)
        assert found.shape == (20, 2), name
        assert np.array_equal(found, locate(blind, given, rows, 0)), name


def test_methods_that_look_at_cells_find_a_planted_part():
    trials = []
    for seed in range(2):
        task = planted_task(seed=seed)
        trials += locate_trials(task, np.arange(30), [5], 2, seed=seed, name=f"part {seed}")
    errors = {name: values.mean() for name, values in mean_errors(trials, 5).items()}
    for name, share in (("linear probe", 0.7), ("fine-tuned head", 0.85), (GRAPH, 0.4)):
        assert errors[name] < share * errors[MEAN], name
    assert set(errors) == {GRAPH, MEAN, *BASELINES}


def test_ridge_regression_recovers_what_is_linear_and_symmetric():
    rng = np.random.default_rng(0)
    where = rng.uniform(40, 180, (40, 2))
    # Units whose maps say the position; that of the column turns over in the mirror image.
    values = np.ones((40, 3, 14, 14))
    values[:, 0], values[:, 1] = where[:, 0, None, None] / 100, where[:, 1, None, None] / 100
    other = values.copy()
    other[:, 1] = 2.23 - other[:, 1]
    both = tuple(
        TrunkFeatures({"maps": LayerMaps("maps", maps.astype(np.float32), grid())}, IMAGE, "x")
        for maps in (values, other)
    )
    task = Task(
        (both[0], both[1]), part_cells((both[0], both[1]), ["maps"]), "maps", ("maps",), where, np.arange(0)
    )
    found = ridge(task, np.arange(10), np.arange(10, 40), 0, penalty=1e-7)
    assert np.abs(found - where[10:]).max() < 0.1
    nearest = nearest_neighbour(task, np.arange(40), np.arange(40), 0)
    assert np.abs(nearest - where).max() < 2


def test_trials_draw_alike_for_all_methods_and_never_test_on_relatives():
    task = planted_task(n=20)
    seen = []

    def spy(task, annotated, rows, seed):
        seen.append((tuple(annotated), tuple(rows)))
        return np.zeros((len(rows), 2))

    groups = np.arange(20) // 2
    locate_trials(task, np.arange(16), [1, 3], 3, groups=groups, methods={"a": spy, "b": spy}, name="x")
    assert len(seen) == 12
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        assert first == second
    assert len({annotated for annotated, _ in seen}) > 3
    for annotated, rows in seen:
        assert not set(groups[list(annotated)]) & set(groups[list(rows)])
        assert set(rows) <= set(range(16))
    again = annotated_images(np.arange(16), 3, 0, "x", 1)
    assert tuple(again) in {annotated for annotated, _ in seen}


def test_means_and_intervals_by_hand():
    trials = [
        Trial("a", 3, 0, 0.1), Trial("a", 3, 1, 0.2), Trial("a", 3, 0, 0.3), Trial("a", 3, 1, 0.4),
        Trial("a", 5, 0, 9.0),
    ]  # fmt: skip
    # Draw 0 has 0.1 and 0.3 (two parts), draw 1 has 0.2 and 0.4.
    assert mean_errors(trials, 3)["a"] == pytest.approx([0.2, 0.3])
    assert mean_errors(trials, 4) == {}
    # t(0.975, 1) = 12.706, and the deviation of the mean 0.05.
    assert interval([0.2, 0.3]) == pytest.approx((0.25 - 0.6353, 0.25 + 0.6353), abs=1e-4)
    assert interval([0.2]) is None


def test_too_few_images():
    task = planted_task(n=10)
    with pytest.raises(InputError, match="3 images show it"):
        locate_trials(task, np.arange(3), [3], 1, name="head")
    with pytest.raises(InputError, match="relatives"):
        locate_trials(task, np.arange(5), [2], 1, groups=np.zeros(10), name="head")
