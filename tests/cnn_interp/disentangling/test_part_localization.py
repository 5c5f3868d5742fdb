import numpy as np
import pytest

from cnn_interp.disentangling.part_localization import (
    ANNOTATED_MEAN,
    constant_parts,
    few_annotations,
    locate_parts,
    normalised_error,
)
from interpretkit.errors import InputError

IMAGE = (60, 80)  # a diagonal of 100


def planted(n=50, units=40, seed=0):
    """Parts, and units of which 3 follows the first part and 7 the second, at an offset; the others go anywhere."""
    rng = np.random.default_rng(seed)
    parts = rng.uniform((0, 0), IMAGE, (n, 2, 2))
    positions = rng.uniform((0, 0), IMAGE, (n, units, 2))
    positions[:, 3] = parts[:, 0] + (4, -2)
    positions[:, 7] = parts[:, 1] - (1, 5)
    return positions, parts


def test_units_that_follow_are_found_from_three_annotations():
    positions, parts = planted()
    found = locate_parts(positions, parts, [0, 1, 2], units=1)
    assert found.units[:, 0].tolist() == [3, 7]
    assert np.allclose(found.offsets[:, 0], [[-4, 2], [1, 5]])
    assert np.allclose(found.positions, parts)
    assert normalised_error(found.positions, parts, IMAGE, np.arange(3, 50)) == pytest.approx(
        [0, 0], abs=1e-9
    )


def test_only_annotated_landmarks_are_looked_at():
    positions, parts = planted()
    hidden = parts.copy()
    hidden[3:] = 1e6
    assert np.array_equal(
        locate_parts(positions, parts, [0, 1, 2]).positions,
        locate_parts(positions, hidden, [0, 1, 2]).positions,
    )


def test_a_part_without_annotation_is_not_located():
    positions, parts = planted()
    parts[:3, 1] = np.nan
    found = locate_parts(positions, parts, [0, 1, 2])
    assert np.isnan(found.positions[:, 1]).all()
    assert (found.units[1] == -1).all()
    assert np.isfinite(found.positions[:, 0]).all()
    with pytest.raises(InputError, match="annotated"):
        locate_parts(positions, np.full_like(parts, np.nan), [0, 1])


def test_a_unit_that_is_not_seen_has_no_say():
    positions, parts = planted()
    positions[:, 5] = parts[:, 0]
    values = np.ones(positions.shape[:2])
    values[20:, 5] = 0
    positions[20:, 5] = 0
    found = locate_parts(positions, parts, [0, 1, 2, 4], values=values, units=2)
    assert set(found.units[0]) == {3, 5}
    assert np.allclose(found.positions[20:, 0], parts[20:, 0])


def test_many_noisy_units_together_are_better_than_one():
    rng = np.random.default_rng(1)
    parts = rng.uniform((0, 0), IMAGE, (80, 1, 2))
    positions = parts + rng.normal(0, 6, (80, 30, 2))
    errors = [
        normalised_error(
            locate_parts(positions, parts, np.arange(5), units=k).positions, parts, IMAGE, np.arange(5, 80)
        )[0]
        for k in (1, 10)
    ]
    assert errors[1] < 0.6 * errors[0]


def test_the_constant_is_the_mean_of_what_is_annotated():
    _, parts = planted()
    parts[1, 0] = np.nan
    found = constant_parts(parts, [0, 1, 2])
    assert np.allclose(found[9, 0], (parts[0, 0] + parts[2, 0]) / 2)
    assert np.allclose(found[9, 1], parts[:3, 1].mean(axis=0))


def test_errors_by_hand():
    parts = np.array([[[0.0, 0.0]], [[3.0, 4.0]], [[np.nan, np.nan]]])
    # Distances 0 and 5 over a diagonal of 100; the third is not annotated.
    assert normalised_error(np.zeros((3, 1, 2)), parts, IMAGE, [0, 1, 2])[0] == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"positions": np.zeros((50, 3))}, "positions"),
        ({"landmarks": np.zeros((49, 2, 2))}, "landmarks"),
        ({"annotated": []}, "annotated"),
        ({"units": 0}, "units 0"),
        ({"values": np.ones((50, 2))}, "values"),
    ],
)
def test_bad_input_in_one_line(change, said):
    positions, parts = planted()
    with pytest.raises(InputError, match=said) as caught:
        locate_parts(**({"positions": positions, "landmarks": parts, "annotated": [0, 1]} | change))
    assert "\n" not in str(caught.value)


def test_after_few_annotations_units_that_follow_a_part_beat_the_mean_of_the_annotated():
    rng = np.random.default_rng(0)
    parts = rng.uniform(20, 200, (60, 2, 2))
    parts[:50, 1] = np.nan
    followers = parts[:, [0]] + np.array([5.0, -9.0]) + rng.normal(0, 4, (60, 12, 2))
    wandering = rng.uniform(0, 224, (60, 30, 2))
    readouts = {
        "follow": (np.ones((60, 42)), np.concatenate([followers, wandering], axis=1)),
        "wander": (np.ones((60, 30)), wandering),
    }
    found = [few_annotations(readouts, parts[:, :1], (224, 224), draw=draw) for draw in range(6)]
    mean = {name: np.mean([one[name] for one in found]) for name in found[0]}
    assert set(mean) == {"follow", "wander", ANNOTATED_MEAN}
    assert mean["follow"] < 0.3 * mean[ANNOTATED_MEAN]
    assert mean["wander"] > 0.8 * mean[ANNOTATED_MEAN]
    assert few_annotations(readouts, parts[:, :1], (224, 224), draw=3) == found[3]
    # Ten images show the second part: enough for three annotations, not for six.
    only = {"follow": (np.ones((60, 36)), np.nan_to_num(parts[:, [1]]).repeat(36, axis=1))}
    assert few_annotations(only, parts[:, [1]], (224, 224), annotated=3)["follow"] < 0.01
    assert few_annotations(only, parts[:, [1]], (224, 224), annotated=6) == {}
