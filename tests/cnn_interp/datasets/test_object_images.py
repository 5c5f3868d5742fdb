"""Images with objects in boxes: mosaics of crops, whole images, and splits that keep relatives together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cnn_interp.images.object_images import mosaics, split_by_groups, whole_images
from cnn_interp.images.part_images import PartImages
from cnn_interp.images.sets import Picture
from interpretkit.errors import InputError


def crops(n: int = 60, *, boxes: bool = False) -> PartImages:
    """Return images of one colour each, with a landmark, a third of them negatives."""
    rng = np.random.default_rng(0)
    categories = np.where(np.arange(n) % 3 == 2, -1, np.arange(n) % 3)
    landmarks = rng.uniform(5, 35, size=(n, 2, 2))
    landmarks[categories < 0] = np.nan
    landmarks[rng.random(n) < 0.5] = np.nan

    def load(number: int) -> Picture:
        return np.full((40, 50, 3), number, dtype=np.uint8)

    return PartImages(
        name="crops",
        ids=tuple(map(str, range(n))),
        load=load,
        load_size=lambda number: (40, 50),
        groups=np.arange(n) // 4,
        categories=categories,
        category_names=("one", "other"),
        part_names=("head", "tail"),
        landmarks=landmarks,
        absence_known=False,
        boxes=np.tile([10.0, 20.0, 29.0, 44.0], (n, 1)) if boxes else None,
    )


def test_each_crop_fills_the_box_of_one_object() -> None:
    source = crops()
    found = mosaics(source, seed=3, side=64)
    seen = []
    for index, objects in enumerate(found.objects):
        picture = found.image(index)
        assert picture.shape == (64, 64, 3)
        for box, category, marks in zip(objects.boxes, objects.categories, objects.landmarks, strict=True):
            top, left, bottom, right = box.astype(int)
            inside = picture[top:bottom, left:right]
            number = int(inside[0, 0, 0])
            assert (inside == number).all()
            assert source.categories[number] == category
            expected = (source.landmarks[number] + 0.5) / (40, 50)
            assert np.allclose((marks + 0.5 - box[:2]) / (box[2:] - box[:2]), expected, equal_nan=True)
            seen.append(number)
        assert np.allclose(objects.in_boxes(), (objects.landmarks + 0.5 - objects.boxes[:, None, :2])
                           / (objects.boxes[:, None, 2:] - objects.boxes[:, None, :2]), equal_nan=True)  # fmt: skip
    assert sorted(seen) == np.flatnonzero(source.categories >= 0).tolist()
    assert found.n_objects == len(seen)
    # Cells without an object are about as many as asked for.
    cells = 4 * len(found)
    assert 0.1 < 1 - len(seen) / cells < 0.6
    again = mosaics(source, seed=3, side=64)
    assert np.array_equal(again.image(2), found.image(2))


def test_copies_are_mirrored_with_their_landmarks() -> None:
    plain = crops()

    def load(number: int) -> Picture:
        # The left half of each picture is darker.
        picture = np.full((40, 50, 3), number, dtype=np.uint8)
        picture[:, 25:] += 100
        return picture

    source = replace(plain, load=load)
    found = mosaics(source, seed=3, side=64, copies=3, mirrored=True)
    turned, counts = [], np.zeros(len(source), dtype=int)
    for index, objects in enumerate(found.objects):
        picture = found.image(index)
        for box, marks in zip(objects.boxes.astype(int), objects.in_boxes(), strict=True):
            left, right = (int(picture[box[0], column, 0]) for column in (box[1], box[3] - 1))
            assert abs(left - right) == 100
            number = min(left, right)
            counts[number] += 1
            turned.append(left > right)
            expected = (source.landmarks[number] + 0.5) / (40, 50)
            expected[:, 1] = 1 - expected[:, 1] if turned[-1] else expected[:, 1]
            assert np.allclose(marks, expected, equal_nan=True)
    assert counts.tolist() == np.where(source.categories >= 0, 3, 0).tolist()
    assert 0.3 < np.mean(turned) < 0.7
    with pytest.raises(InputError, match="copies 0"):
        mosaics(source, copies=0)


def test_whole_images_keep_boxes_and_landmarks_in_their_frame() -> None:
    source = crops(boxes=True)
    found = whole_images(source, 100)
    shown = source.categories >= 0
    assert [len(one) for one in found.objects] == shown.astype(int).tolist()
    # From 40 × 50 px to 100 × 100; both ends of a box of pixels lie within it.
    assert np.allclose(found.objects[0].boxes, [[25.0, 40.0, 75.0, 90.0]])
    assert np.allclose(
        found.objects[0].landmarks[0], (source.landmarks[0] + 0.5) * (2.5, 2) - 0.5, equal_nan=True
    )
    assert found.subset([1, 0]).objects[1] is found.objects[0]
    with pytest.raises(InputError, match="has no boxes"):
        whole_images(crops(), 100)


def test_a_split_keeps_relatives_together_and_spreads_categories() -> None:
    source = crops(400)
    parts = split_by_groups(source, (0.6, 0.4), seed=1)
    assert sum(map(len, parts)) == 400
    groups = [set(part.groups.tolist()) for part in parts if part.groups is not None]
    assert not groups[0] & groups[1]
    assert 0.5 < len(parts[0]) / 400 < 0.7
    told = [part.annotated.any(axis=1).mean() for part in parts]
    assert min(told) > 0.1


def test_what_cannot_be_put_together_is_refused() -> None:
    source = crops()
    with pytest.raises(InputError, match="empty"):
        mosaics(source, empty=1.0)
    with pytest.raises(InputError, match="without one for empty cells"):
        mosaics(source.subset(source.categories >= 0))
    only = mosaics(source.subset(source.categories >= 0), empty=0.0, side=64)
    assert only.n_objects == (source.categories >= 0).sum()
