import numpy as np
import pytest
import torch
from torch import nn

from cnn_interp.metrics.location_instability import FEWEST, find_peaks, location_instability
from interpretkit.errors import InputError

IMAGE = (60, 80)  # a diagonal of 100


def landmarks_of(n=50, parts=2, seed=0):
    return np.random.default_rng(seed).uniform((0, 0), IMAGE, size=(n, parts, 2))


def test_a_unit_on_the_landmark_is_steady_and_follows_it():
    landmarks = landmarks_of()
    found = location_instability(np.ones((50, 1)), landmarks[:, :1], landmarks, IMAGE)
    assert found.instability[0, 0, 0] == pytest.approx(0, abs=1e-12)
    assert found.tracking[0, 0, 0] == pytest.approx(1)
    # The other part is elsewhere: following one is no news of the other.
    assert found.instability[0, 1, 0] > 0.1
    assert found.tracking[0, 1, 0] < 0


def test_a_unit_at_a_fixed_offset_follows_the_part_as_well():
    landmarks = landmarks_of(parts=1)
    found = location_instability(np.ones((50, 1)), landmarks + np.array([7, -3]), landmarks, IMAGE)
    assert found.instability[0, 0, 0] == pytest.approx(0, abs=1e-12)
    assert found.tracking[0, 0, 0] == pytest.approx(1)


def test_a_unit_that_never_moves_is_the_constant():
    landmarks = landmarks_of(parts=1)
    middle = np.array([29.5, 39.5])
    found = location_instability(
        np.ones((50, 1)), np.broadcast_to(middle, (50, 1, 2)), landmarks, IMAGE, top=50
    )
    expected = np.std(np.hypot(*(landmarks[:, 0] - middle).T), ddof=1) / 100
    assert found.instability[0, 0, 0] == pytest.approx(expected, rel=1e-12)
    assert found.constant_centre[0, 0, 0] == pytest.approx(expected, rel=1e-12)
    assert found.tracking[0, 0, 0] == pytest.approx(0, abs=1e-12)
    assert found.mean_instability == pytest.approx(expected)
    assert found.mean_constant_centre == pytest.approx(expected)


def test_no_constant_position_beats_the_best():
    landmarks = landmarks_of(parts=1, seed=3)
    rows, columns = np.meshgrid(np.linspace(0, 59, 60), np.linspace(0, 79, 80), indexing="ij")
    places = np.stack([rows.ravel(), columns.ravel()], axis=1)
    everywhere = np.linalg.norm(landmarks - places, axis=2).std(axis=0, ddof=1).min() / 100
    found = location_instability(np.ones((50, 1)), landmarks, landmarks, IMAGE)
    assert found.mean_best_constant <= everywhere + 1e-9
    assert found.mean_best_constant == pytest.approx(everywhere, abs=2e-3)


def test_hand_computed():
    # Distances 3, 4 and 5 on a diagonal of 5: standard deviation 1 ÷ 5.
    landmarks = np.array([[[0.0, 3.0]], [[4.0, 0.0]], [[3.0, 4.0]]])
    found = location_instability(np.ones((3, 1)), np.zeros((3, 1, 2)), landmarks, (3, 4))
    assert found.instability[0, 0, 0] == pytest.approx(0.2)
    # Offsets are half of the landmarks, so a quarter of their variance is left.
    half = location_instability(np.ones((3, 1)), landmarks / 2, landmarks, (3, 4))
    assert half.tracking[0, 0, 0] == pytest.approx(0.75)
    # Mirrored, they are twice as far: four times the variance.
    mirrored = location_instability(np.ones((3, 1)), -landmarks, landmarks, (3, 4))
    assert mirrored.tracking[0, 0, 0] == pytest.approx(-3)


def test_only_the_strongest_images_that_show_the_part_count():
    landmarks = landmarks_of(parts=1)
    landmarks[40:] = np.nan
    values = np.arange(50.0)[:, None]
    places = landmarks.copy()
    places[:35] = 0  # wrong where the unit is weak
    found = location_instability(values, places, landmarks, IMAGE, top=5)
    assert found.images.tolist() == [[40]]
    assert found.instability[0, 0, 0] == pytest.approx(0, abs=1e-12)
    assert location_instability(values, places, landmarks, IMAGE, top=6).instability[0, 0, 0] > 0.01


def test_categories_are_measured_apart():
    landmarks = landmarks_of(parts=1)
    categories = np.repeat([0, 1, -1], [20, 25, 5])
    places = landmarks.copy()
    places[20:] = 0
    found = location_instability(
        np.ones((50, 1)),
        places,
        landmarks,
        IMAGE,
        categories=categories,
        category_names=["cat", "dog", "cow"],
        part_names=["head"],
    )
    assert found.images.tolist() == [[20], [25], [0]]
    assert found.instability[0, 0, 0] == pytest.approx(0, abs=1e-12)
    alone = location_instability(np.ones((25, 1)), places[20:45], landmarks[20:45], IMAGE)
    assert found.instability[1, 0, 0] == alone.instability[0, 0, 0]
    assert np.isnan(found.instability[2, 0, 0])
    # A category without landmarks takes no part in the mean.
    assert found.mean_instability == pytest.approx(alone.instability[0, 0, 0] / 2)
    assert [row["category"] for row in found.table()] == ["cat", "dog", "cow"]
    units, best = found.best_tracking()
    assert best[0, 0] == pytest.approx(1)
    assert units.shape == (3, 1)
    assert np.isnan(best[2, 0])


def test_moving_everything_or_another_unit_of_length_changes_nothing():
    rng = np.random.default_rng(5)
    landmarks, places = landmarks_of(), rng.uniform(0, 60, (50, 3, 2))
    values = rng.random((50, 3))
    plain = location_instability(values, places, landmarks, IMAGE, top=20)
    moved = location_instability(values, places + 11, landmarks + 11, IMAGE, top=20)
    doubled = location_instability(values, 2 * places, 2 * landmarks, (120, 160), top=20)
    for other in (moved, doubled):
        assert np.allclose(other.instability, plain.instability, rtol=1e-10)
        assert np.allclose(other.tracking, plain.tracking, rtol=1e-10)


def noise(n, units=400, top=100):
    rng = np.random.default_rng(n)
    places, landmarks = rng.normal(30, 8, (n, units, 2)), rng.normal(30, 8, (n, 5, 2))
    return location_instability(rng.random((n, units)), places, landmarks, IMAGE, top=top)


def test_of_few_images_no_unit_is_called_a_follower():
    # Of units that fire anywhere, one always seems to follow.
    assert np.nanmax(noise(4).tracking) > 0.8
    for found in (noise(4), noise(FEWEST - 1), noise(200, top=FEWEST - 1)):
        units, best = found.best_tracking()
        assert np.isnan(best).all()
        assert (units == -1).all()
        assert np.isnan(found.best_tracking_r2)
        assert not found.enough.any()
        table = found.table()
        assert all(row["by unit"] is None for row in table)
        assert np.isnan([float(str(row["best tracking R²"])) for row in table]).all()
    enough = noise(FEWEST)
    assert enough.best_tracking_r2 == enough.tracking.max() < 0.25
    assert noise(50).best_tracking_r2 < 0


def test_a_part_that_stands_still_is_not_followed():
    rng = np.random.default_rng(0)
    # Not representable exactly, so that their variance is not zero to the bit.
    landmarks = np.tile([10.1, 20.7], (30, 1, 1))
    found = location_instability(rng.random((30, 4)), rng.uniform(0, 60, (30, 4, 2)), landmarks, IMAGE)
    assert found.enough.all()
    assert np.isnan(found.tracking).all()
    assert np.isnan(found.best_tracking_r2)
    assert np.isnan(found.median_tracking_r2)
    assert found.instability.min() > 0


class Brightest(nn.Module):
    """A layer whose map is the image, pooled by a stride, and nothing learned."""

    def __init__(self, stride):
        super().__init__()
        self.pool = nn.AvgPool2d(stride)

    def forward(self, x):
        return self.pool(x).amax(dim=(2, 3))


def test_peaks_are_found_at_receptive_field_centres():
    images = torch.zeros(6, 3, 12, 12)
    places = np.array([[0, 0], [1, 2], [2, 1], [0, 2], [1, 1], [2, 2]])
    for image, (row, column) in zip(images, places, strict=True):
        image[1, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 1 + row
        image[2] = 1
    peaks = find_peaks(Brightest(4), ["pool"], images.split(4))["pool"]
    assert peaks.positions[:, 1].tolist() == (4 * places + 1.5).tolist()
    assert peaks.values[:, 1].tolist() == (1 + places[:, 0]).tolist()
    # Of equals, the first.
    assert peaks.places[:, 0].tolist() == [0] * 6
    assert peaks.places[:, 2].tolist() == [0] * 6
    landmarks = (4 * places + 3.0)[:, None]
    found = location_instability(peaks.values, peaks.positions, landmarks, peaks.grid.image)
    assert found.instability[0, 0, 1] == pytest.approx(0, abs=1e-12)
    assert found.tracking[0, 0, 1] == pytest.approx(1)
    assert found.tracking[0, 0, 0] == pytest.approx(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": np.zeros((50, 2, 2))}, "expected"),
        ({"landmarks": np.zeros((49, 2, 2))}, "expected"),
        ({"landmarks": np.full((50, 2, 2), np.nan)}, "no part is annotated"),
        ({"categories": np.zeros(49, dtype=int)}, "categories of shape"),
        ({"part_names": ["head"]}, "1 names of parts"),
        ({"top": 1}, "at least 2"),
    ],
)
def test_bad_input_is_refused(change, message):
    landmarks = landmarks_of()
    given = {"values": np.ones((50, 1)), "positions": landmarks[:, :1], "landmarks": landmarks, **change}
    with pytest.raises(InputError, match=message):
        location_instability(
            given.pop("values"), given.pop("positions"), given.pop("landmarks"), IMAGE, **given
        )


def test_peaks_need_images_of_one_size():
    with pytest.raises(InputError, match="expected at least one image"):
        find_peaks(Brightest(2), ["pool"], [])
    with pytest.raises(InputError, match="expected one size"):
        find_peaks(Brightest(2), ["pool"], [torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 6, 8)])
