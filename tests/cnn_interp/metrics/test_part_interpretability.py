import numpy as np
import pytest
import torch
from torch import nn

from cnn_interp.metrics.part_interpretability import part_interpretability
from interpretkit.errors import InputError


class Showing(nn.Module):
    """A layer whose map is the image itself."""

    def __init__(self):
        super().__init__()
        self.units = nn.Identity()

    def forward(self, x):
        return self.units(x).amax(dim=(2, 3))


def boxes(n, side=16, seed=0, size=4):
    """Return masks ``(n, 1, side, side)`` of squares at random places."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((n, 1, side, side), dtype=bool)
    for mask in masks:
        top, left = rng.integers(0, side - size, 2)
        mask[0, top : top + size, left : left + size] = True
    return torch.from_numpy(masks)


def measure(images, masks, *, size=3, share=1 / 16, **options):
    batches = list(zip(images.split(size), masks.split(size), strict=True))
    return part_interpretability(Showing(), ["units"], batches, share=share, **options)["units"]


def test_a_unit_that_is_a_part_always_matches_it():
    head, tail = boxes(40, seed=1), boxes(40, seed=2)
    images = torch.cat([head, torch.zeros_like(head)], dim=1).float()
    found = measure(images, torch.cat([head, tail], dim=1), part_names=["head", "tail"])
    assert found.probability[0, 0].tolist() == [1, 0]
    assert found.unit_interpretability.tolist() == [[1, 0]]
    assert found.mean == 0.5
    # The head is somewhere else in each image, so being where it was before is of little use.
    assert found.displaced[0, 0, 0] < 0.3
    assert found.probability[0, 1, 0] < 0.3
    assert found.images.tolist() == [[40, 40]]


def test_a_unit_where_the_part_always_is_gains_nothing_by_it():
    mask = boxes(1, seed=3).expand(12, -1, -1, -1)
    found = measure(mask.float(), mask)
    assert found.probability[0, 0, 0] == 1
    assert found.displaced[0, 0, 0] == 1


def test_hand_computed():
    # In three images the unit covers 2, 1 and 0 of the part's 4 pixels, and 2 pixels beside it: IoU 2/6, 1/7, 0/6.
    masks = torch.zeros(4, 1, 4, 4, dtype=torch.bool)
    masks[:3, 0, 0] = True
    images = torch.zeros(4, 1, 4, 4)
    images[:3, 0, 3, :2] = 1
    images[0, 0, 0, :2] = 1
    images[1, 0, 0, 0] = 1
    images[1, 0, 3, 2] = 1
    images[3] = 1  # not counted, for it does not show the part
    found = measure(images, masks, share=0.9)
    assert found.images.tolist() == [[3]]
    assert found.probability[0, 0, 0] == pytest.approx(1 / 3)
    strict = measure(images, masks, share=0.9, part_iou=0.1)
    assert strict.probability[0, 0, 0] == pytest.approx(2 / 3)
    # IoU must exceed the limit: 2/6 does not exceed itself.
    assert measure(images, masks, share=0.9, part_iou=2 / 6).probability[0, 0, 0] == 0


def test_categories_are_measured_apart():
    masks = boxes(20, seed=4)
    images = masks.float()
    images[10:] = images[10:].flip(0).roll((5, 7), (2, 3))
    categories = np.repeat([0, 1, -1], [10, 8, 2])
    found = measure(
        images, masks, categories=categories, category_names=["cat", "dog", "cow"], part_names=["head"]
    )
    assert found.images.tolist() == [[10], [8], [0]]
    assert found.probability[0, 0, 0] == 1
    assert found.probability[1, 0, 0] < 0.5
    assert np.isnan(found.probability[2, 0, 0])
    assert found.mean == pytest.approx((1 + found.probability[1, 0, 0]) / 2)
    assert [row["category"] for row in found.table()] == ["cat", "dog"]


def test_batches_do_not_matter():
    masks = torch.cat([boxes(11, seed=5), boxes(11, seed=6)], dim=1)
    images = torch.rand(11, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    results = [measure(images, masks, size=size, share=0.2).arrays() for size in (1, 4, 11)]
    for result in results[1:]:
        for name, array in results[0].items():
            assert np.array_equal(array, result[name], equal_nan=array.dtype.kind == "f"), name


def test_bad_input_is_refused():
    masks = boxes(4)
    images = masks.float()
    with pytest.raises(InputError, match="no part is to be seen"):
        measure(images, torch.zeros_like(masks))
    with pytest.raises(InputError, match="expected bool"):
        measure(images, masks.float())
    with pytest.raises(InputError, match="one for each of 4 images"):
        measure(images, masks, categories=[0, 1])
    with pytest.raises(InputError, match="names of categories"):
        measure(images, masks, categories=[0, 1, 2, 0], category_names=["cat"])
    with pytest.raises(InputError, match="names of parts"):
        measure(images, masks, part_names=["head", "tail"])
    with pytest.raises(InputError, match="only once"):
        part_interpretability(Showing(), ["units"], zip(images.split(2), masks.split(2), strict=True))
