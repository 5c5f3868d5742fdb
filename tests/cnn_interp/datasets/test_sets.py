"""What all sets share: slices, lengths, sheets."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from cnn_interp.images import (
    Images,
    LabelledImages,
    PartImages,
    articulated_images,
    composed_concepts,
    contact_sheet,
)
from cnn_interp.images.part_images import box_of, centre_of
from interpretkit.errors import InputError


def shade_of(number: int) -> np.ndarray:
    return np.full((4, 6, 3), 10 * number, dtype=np.uint8)


@pytest.fixture
def images() -> LabelledImages:
    return LabelledImages(
        name="shades",
        ids=tuple("abcde"),
        load=shade_of,
        labels=np.array([0, 1, 0, 1, 2]),
        split=np.array(["train", "test", "train", "test", "test"]),
    )


def test_subsets_of_subsets(images: LabelledImages) -> None:
    tested = images.subset(images.split == "test")
    assert tested.ids == ("b", "d", "e")
    assert tested.labels.tolist() == [1, 1, 2]
    last = tested.subset([2, -3])
    assert last.ids == ("e", "b")
    assert last.image(0)[0, 0, 0] == 40
    assert last.split is not None
    assert last.split.tolist() == ["test", "test"]
    assert len(images.subset([])) == 0
    assert [int(picture[0, 0, 0]) for picture in tested] == [10, 30, 40]
    assert images.size(0) == (4, 6)
    assert images.stack(3).shape == (5, 3, 3, 3)


@pytest.mark.parametrize("indices", [[5], [-6], [True, False], [0.5], [[0]]])
def test_wrong_indices_are_refused(images: LabelledImages, indices: list) -> None:
    with pytest.raises(InputError, match="whole numbers below 5"):
        images.subset(indices)


def test_single_images_out_of_range(images: LabelledImages) -> None:
    assert images.image(-1)[0, 0, 0] == 40
    with pytest.raises(IndexError, match="image 5 of 5"):
        images.image(5)


def test_wrong_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="2 entries in labels"):
        LabelledImages(name="x", ids=("a",), load=shade_of, labels=np.array([0, 1]))
    with pytest.raises(InputError, match=r"landmarks of shape \(1, 3, 2\)"):
        PartImages(
            name="x",
            ids=("a",),
            load=shade_of,
            categories=np.array([0]),
            category_names=("one",),
            part_names=("head", "tail"),
            landmarks=np.zeros((1, 3, 2)),
            absence_known=True,
        )


def test_sets_go_to_other_processes(images: LabelledImages) -> None:
    parts = articulated_images(3, side=48)
    for given in (images, parts):
        # As multiprocessing sends objects; the bytes are made in the same line and come from no file.
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(given)).image(1), given.image(1))  # noqa: S301


def test_boxes_and_centres() -> None:
    mask = np.zeros((10, 12), dtype=bool)
    mask[2:5, 3:11] = True
    assert box_of(mask).tolist() == [2, 3, 4, 10]
    assert centre_of(mask).tolist() == [3, 6.5]
    assert np.isnan(box_of(mask & False)).all()


def test_contact_sheets(images: LabelledImages) -> None:
    parts = articulated_images(8, side=48)
    sheet = contact_sheet(parts, columns=3, masks=True)
    drawn = [axes for axes in sheet.axes if axes.images]
    assert len(drawn) == 8
    for axes, index in zip(drawn, range(8), strict=True):
        assert len(axes.lines) == parts.annotated[index].sum()
        category = parts.categories[index]
        assert axes.get_title(loc="left") == (parts.category_names[category] if category >= 0 else "negative")
    first = int(np.flatnonzero(parts.categories >= 0)[0])
    marked = {tuple(np.asarray(line.get_xydata())[0, ::-1]) for line in drawn[first].lines}
    assert marked == {tuple(point) for point in parts.landmarks[first][parts.annotated[first]]}
    assert len(contact_sheet(images, [0, 3]).axes) == 6
    assert contact_sheet(composed_concepts(2, side=64), masks=True).axes[0].images
    with pytest.raises(InputError, match="no masks"):
        contact_sheet(images, masks=True)
    with pytest.raises(InputError, match="0 images"):
        contact_sheet(Images(name="none", ids=(), load=shade_of))
