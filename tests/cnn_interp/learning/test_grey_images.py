"""Grey images: parts that do not overlap, shifts, and affine changes that leave nothing out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cnn_interp.images.digits import bundled_digits
from cnn_interp.learning.grey_images import (
    GreyBatches,
    affine_test,
    grey_images,
    on_canvas,
    shifted,
    sprite_images,
)
from interpretkit.errors import InputError
from interpretkit.training import torch_generator


@pytest.fixture(scope="module")
def digits():
    return grey_images(bundled_digits())


def test_parts_hold_every_image_once(digits) -> None:
    parts = torch.cat([digits.train, digits.held_out, digits.test])
    assert len(parts) == 1797
    whole = np.stack([picture[..., 0] for picture in bundled_digits()])
    key = lambda images: sorted(image.tobytes() for image in np.ascontiguousarray(images))  # noqa: E731
    assert key(parts.numpy()) == key(whole)
    # Every digit is a twelfth and a sixth of what it was, up to one image.
    for digit in range(10):
        counts = [
            int((labels == digit).sum())
            for labels in (digits.train_labels, digits.held_out_labels, digits.test_labels)
        ]
        assert abs(counts[2] - sum(counts) / 6) <= 1
        assert abs(counts[1] - (counts[0] + counts[1]) / 12) <= 1


def test_a_published_split_is_kept(digits) -> None:
    from dataclasses import replace

    found = bundled_digits()
    split = np.array(["test" if row % 3 == 0 else "train" for row in range(len(found))])
    kept = grey_images(replace(found, split=split))
    assert torch.equal(kept.test_labels, torch.from_numpy(found.labels[split == "test"]))
    with pytest.raises(InputError, match="no images of category 3"):
        grey_images(replace(found, split=np.where(found.labels == 3, "test", split)))


def test_shifts_move_and_lose_nothing_but_the_border() -> None:
    image = torch.zeros(200, 9, 9, dtype=torch.uint8)
    image[:, 4, 4] = 7
    moved = shifted(image, 2, torch_generator(0))
    places = (moved == 7).nonzero()[:, 1:] - 4
    assert len(places) == 200
    assert places.min() == -2
    assert places.max() == 2
    # Both directions are drawn by themselves, each of five values evenly: 25 places.
    assert len(torch.unique(places, dim=0)) == 25
    assert torch.equal(shifted(image, 0, torch_generator(0)), image)


def test_batches_depend_on_the_epoch_alone() -> None:
    images = torch.randint(255, (30, 8, 8), dtype=torch.uint8)
    batches = GreyBatches(images, torch.arange(30), 7, shift=1, seed=3)
    batches.set_epoch(4)
    first = [batch["images"] for batch in batches]
    list(batches)
    batches.set_epoch(4)
    assert all(torch.equal(a, b["images"]) for a, b in zip(first, batches, strict=True))
    batches.set_epoch(5)
    assert not torch.equal(first[0], next(iter(batches))["images"])


def test_affine_images_keep_all_of_the_digit(digits) -> None:
    moved = affine_test(digits.test, side=40, seed=0)
    assert moved.shape == (len(digits.test), 40, 40)
    # Nothing is cut off: the ink changes by no more than the product of the scales.
    ratio = moved.float().sum((1, 2)) / digits.test.float().sum((1, 2))
    assert ratio.min() > 0.8**2 * 0.93
    assert ratio.max() < 1.2**2 * 1.07
    # Centres of gravity spread over the square, and the draws are those of the seed.
    rows = torch.arange(40.0)
    centres = (moved.float().sum(2) * rows).sum(1) / moved.float().sum((1, 2))
    assert centres.std() > 2.5
    assert torch.equal(moved, affine_test(digits.test, side=40, seed=0))
    assert not torch.equal(moved, affine_test(digits.test, side=40, seed=1))


def test_an_affine_change_turns_about_the_angle_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from cnn_interp.learning import grey_images as module

    # Turned by a quarter exactly, a bar along x becomes one along y of the same length.
    monkeypatch.setattr(module, "TURN", 0.0)
    monkeypatch.setattr(module, "SHEAR", 0.0)
    monkeypatch.setattr(module, "SCALES", (2.0, 2.0))
    bar = torch.zeros(1, 12, 12, dtype=torch.uint8)
    bar[0, 5:7, 2:10] = 200
    drawn = module.affine_test(bar, side=32)[0]
    there = (drawn > 100).nonzero()
    extent = there.max(0).values - there.min(0).values + 1
    assert extent.tolist() == [4, 16]


def test_canvas_and_sprites() -> None:
    image = torch.ones(1, 3, 3, dtype=torch.uint8)
    assert on_canvas(image, 7)[0, 2:5, 2:5].sum() == 9
    with pytest.raises(InputError, match="canvas 2"):
        on_canvas(image, 2)
    images, factors, names = sprite_images(24, 10, side=32, seed=0)
    assert names == ("shape", "scale", "orientation", "x", "y")
    assert (images.side, len(images.train), len(images.held_out), len(images.test)) == (32, 24, 2, 10)
    np.testing.assert_array_equal(images.test_labels, factors[:, 0])
    with pytest.raises(InputError, match="side 30"):
        sprite_images(4, 4, side=30)
