"""Small grey labelled images in memory, shifted as they are trained on, and test images turned and moved."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cnn_interp.images.sets import LabelledImages
from interpretkit.errors import InputError
from interpretkit.training import TensorBatches, numpy_generator, torch_generator
from interpretkit.training.batches import shared_out

# The affine changes of affNIST: degrees, shear, and the scale along either axis.
TURN, SHEAR, SCALES = 20.0, 0.2, (0.8, 1.2)
_CHUNK = 1000


@dataclass(frozen=True, eq=False)
class GreyImages:
    """Grey images with labels, in three parts: to train on, to choose by, to test on.

    Attributes
    ----------
    name : str
        What they are called in tables.
    train, held_out, test : Tensor of uint8, (n, side, side)
        The images; `held_out` was taken from those to train on.
    train_labels, held_out_labels, test_labels : Tensor of int, (n,)
        Their categories.
    categories : tuple of str
        The categories' names.
    """

    name: str
    train: Tensor
    train_labels: Tensor
    held_out: Tensor
    held_out_labels: Tensor
    test: Tensor
    test_labels: Tensor
    categories: tuple[str, ...]

    @property
    def side(self) -> int:
        """Height and width of the images in pixels."""
        return int(self.train.shape[-1])

    def limited(self, train: int) -> GreyImages:
        """Return the set with so many images to train on at most, the first ones."""
        return replace(self, train=self.train[:train], train_labels=self.train_labels[:train])

    def on_canvas(self, side: int) -> GreyImages:
        """Return the set with every image in the middle of a black square of another side."""
        parts = {name: on_canvas(getattr(self, name), side) for name in ("train", "held_out", "test")}
        return replace(self, **parts)


def grey_images(
    found: LabelledImages, *, side: int = 28, held_out: float = 1 / 12, seed: int = 0
) -> GreyImages:
    """Return a labelled set as grey images of one size.

    Parameters
    ----------
    found : LabelledImages
        Such as MNIST; its own split into ``train`` and ``test`` is kept. Of a set without one, a sixth is tested on.
    side : int
        Height and width in pixels; images of another size are resized.
    held_out : float
        The share of the images to train on that is put aside to choose by, of every category alike.
    seed : int
        Seed of the order, and of what is put aside.

    Raises
    ------
    InputError
        If a part would be without a category's images.
    """
    pixels = torch.from_numpy(_grey(found, side))
    labels = torch.from_numpy(np.asarray(found.labels, dtype=np.int64))
    if found.split is not None and {"train", "test"} <= set(found.split.tolist()):
        train, test = (np.flatnonzero(found.split == part) for part in ("train", "test"))
    else:
        test, train = _parted(labels.numpy(), np.arange(len(labels)), 1 / 6, seed, "test")
    aside, train = _parted(labels.numpy(), train, held_out, seed, "held out")
    # The first images of a part are then a fair draw of it.
    train = numpy_generator(seed, "order of images").permutation(train)
    names = found.category_names or tuple(str(number) for number in range(int(labels.max()) + 1))
    for part, rows in (("to train on", train), ("held out", aside)):
        missing = np.setdiff1d(labels[test].unique().numpy(), labels[rows].unique().numpy())
        if len(missing):
            raise InputError(f"{found.name}: no images of category {names[missing[0]]} {part}; expected some")
    return GreyImages(
        found.name,
        pixels[train], labels[train], pixels[aside], labels[aside], pixels[test], labels[test],
        tuple(names),
    )  # fmt: skip


def on_canvas(images: Tensor, side: int) -> Tensor:
    """Return images ``(n, h, w)`` in the middle of black squares, ``(n, side, side)``.

    Raises
    ------
    InputError
        If the square is smaller than the images.
    """
    spare = [side - length for length in images.shape[1:]]
    if min(spare) < 0:
        raise InputError(f"canvas {side}: expected at least the images' side, {max(images.shape[1:])}")
    top, left = spare[0] // 2, spare[1] // 2
    return functional.pad(images, (left, spare[1] - left, top, spare[0] - top))


def shifted(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Return images ``(n, h, w)``, each shifted by up to so many pixels up or down, and left or right, on black."""
    if most == 0:
        return images
    count, height, width = images.shape
    padded = functional.pad(images, (most,) * 4)
    offsets = torch.randint(2 * most + 1, (2, count, 1), generator=generator)
    rows = offsets[0] + torch.arange(height)
    columns = offsets[1] + torch.arange(width)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


class GreyBatches(TensorBatches):
    """Shuffled batches of grey images, shifted at random; what an epoch holds depends on the seed and its number alone.

    Where several processes train together, each has its share of every batch.

    Parameters
    ----------
    images : Tensor of uint8, (n, h, w)
        The images.
    labels : Tensor of int, (n,)
        Their categories.
    batch_size : int
        Images in a batch, over all processes.
    shift : int
        By how many pixels they are shifted at most.
    seed : int
        Seed of the order and the shifts.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, batch_size: int, *, shift: int = 0, seed: int = 0
    ) -> None:
        super().__init__({"images": images, "labels": labels}, batch_size, seed=seed)
        self.shift = shift

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        generator = torch_generator(self.seed, "shifts", self._epoch)
        images, labels = self.tensors["images"], self.tensors["labels"]
        for rows in self.rows():
            # Shifted before they are shared out, so that together the processes see what one alone would.
            moved = shifted(images[rows], self.shift, generator)
            yield {"images": shared_out(moved), "labels": shared_out(labels[rows])}


def as_pixels(images: Tensor) -> Tensor:
    """Return grey images ``(n, h, w)`` of 0 … 255 as pixels ``(n, 1, h, w)`` between 0 and 1."""
    return images[:, None].float() / 255


def affine_test(images: Tensor, *, side: int = 40, seed: int = 0) -> Tensor:
    """Return images turned, sheared, scaled and placed on a larger black square, as those of affNIST were.

    Every image is turned by up to 20 degrees, sheared by up to 0.2, scaled by 0.8 … 1.2 along either axis, and placed
    anywhere such that nothing of it leaves the square; all evenly distributed. These are not affNIST's own images.

    Parameters
    ----------
    images : Tensor of uint8, (n, h, w)
        Such as the test images of MNIST.
    side : int
        Height and width of the square.
    seed : int
        Seed of the changes; the same on every machine.

    Returns
    -------
    Tensor of uint8, (n, side, side)
    """
    return torch.cat(
        [
            _affine(chunk, side, numpy_generator(seed, "affine", number))
            for number, chunk in enumerate(images.split(_CHUNK))
        ]
    )


def _affine(images: Tensor, side: int, draws: np.random.Generator) -> Tensor:
    count, height, width = images.shape
    turn = np.deg2rad(draws.uniform(-TURN, TURN, count))
    shear = draws.uniform(-SHEAR, SHEAR, count)
    scale = draws.uniform(*SCALES, (2, count))
    cosine, sine = np.cos(turn), np.sin(turn)
    # Columns and rows of where a point (x, y) goes: scaled, sheared along x, turned.
    matrix = np.empty((count, 2, 2))
    matrix[:, 0, 0], matrix[:, 0, 1] = cosine * scale[0], (cosine * shear - sine) * scale[1]
    matrix[:, 1, 0], matrix[:, 1, 1] = sine * scale[0], (sine * shear + cosine) * scale[1]
    low, high = _boxes(images)
    corners = np.stack(
        [np.stack([(low, high)[i][:, 0], (low, high)[j][:, 1]], 1) for i in (0, 1) for j in (0, 1)], 1
    )
    moved = np.einsum("nab,ncb->nca", matrix, corners)
    lowest, highest = -moved.min(1), side - moved.max(1)
    # What does not fit at all is put in the middle.
    start = np.minimum(lowest, (lowest + highest) / 2)
    place = start + draws.uniform(size=(count, 2)) * np.clip(highest - lowest, 0, None)
    inverse = np.linalg.inv(matrix)
    centres = np.arange(side) + 0.5
    x, y = np.meshgrid(centres, centres)
    target = np.stack([x.ravel(), y.ravel()], 1)[None] - place[:, None]
    source = np.einsum("nab,npb->npa", inverse, target)
    grid = torch.from_numpy((2 * source / [width, height] - 1).reshape(count, side, side, 2)).float()
    drawn = functional.grid_sample(images[:, None].float(), grid, mode="bilinear", align_corners=False)
    return drawn[:, 0].round().clamp(0, 255).to(torch.uint8)


def _boxes(images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and greatest x and y of what is not black, in pixels from the top left corner, ``(n, 2)``."""
    found = []
    for dimension in (1, 2):
        any_there = (images > 0).any(dimension).numpy()
        # A wholly black image has its whole square for a box.
        any_there[~any_there.any(1)] = True
        length = any_there.shape[1]
        found.append((any_there.argmax(1), length - any_there[:, ::-1].argmax(1)))
    low, high = (np.stack([axis[end] for axis in found], 1).astype(float) for end in (0, 1))
    return low, high


def _grey(found: LabelledImages, side: int) -> np.ndarray:
    """Return the images as ``(n, side, side)`` in bytes: the mean of the colours, so that grey stays."""
    pixels = np.empty((len(found), side, side), dtype=np.uint8)
    for start in range(0, len(found), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(found)))
        chunk = found.subset(rows)
        if found.size(int(rows[0])) == (side, side):
            coloured = np.stack([chunk.image(row) for row in range(len(chunk))])
        else:
            coloured = chunk.stack(side)
        pixels[rows] = coloured.astype(np.uint16).sum(3) // 3
    return pixels


def _parted(
    labels: np.ndarray, rows: np.ndarray, share: float, seed: int, purpose: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return a share of every category's rows, drawn at random, and the rest, both in order."""
    draws = numpy_generator(seed, purpose)
    aside = []
    for category in np.unique(labels[rows]):
        own = rows[labels[rows] == category]
        aside.append(draws.permutation(own)[: math.ceil(share * len(own))])
    taken = np.sort(np.concatenate(aside))
    return taken, np.setdiff1d(rows, taken)


def sprite_images(
    train: int, test: int, *, side: int = 32, seed: int = 0
) -> tuple[GreyImages, np.ndarray, tuple[str, ...]]:
    """Return rendered sprites of random factors, labelled by their shape, and the factors of the test images.

    Parameters
    ----------
    train, test : int
        How many to train on, and to test on; a twelfth more is held out.
    side : int
        Height and width in pixels, a divisor of 64: sprites are drawn at 64 px, and squares of pixels averaged.
    seed : int
        Seed of the factors.

    Returns
    -------
    GreyImages, ndarray of int (test, 5), tuple of str (5,)
        Images, factors and their names.

    Raises
    ------
    InputError
        If the side does not divide 64.
    """
    from interpretkit.disentanglement.datasets import SIDE, SPRITES, render_sprites

    if side < 1 or SIDE % side:
        raise InputError(f"side {side}: expected a divisor of {SIDE}")
    factors = SPRITES.draw(train + train // 12 + test, seed)
    pixels = torch.from_numpy(render_sprites(factors))[:, None].float()
    small = (255 * functional.avg_pool2d(pixels, SIDE // side))[:, 0].round().to(torch.uint8)
    labels = torch.from_numpy(factors[:, 0].astype(np.int64))
    parts = small.split([train, train // 12, test])
    of_parts = labels.split([train, train // 12, test])
    images = GreyImages(
        "rendered sprites",
        parts[0], of_parts[0], parts[1], of_parts[1], parts[2], of_parts[2],
        ("square", "ellipse", "heart"),
    )  # fmt: skip
    return images, factors[-test:], SPRITES.names
