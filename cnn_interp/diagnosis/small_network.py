"""A small convolutional network, trained on the spot for checks that need to train, and images to train it on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from interpretkit.errors import InputError
from interpretkit.training import History, TensorBatches, derive_seed, fit, numpy_generator
from interpretkit.training.schedules import one_cycle

CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


class SmallNetwork(nn.Module):
    """Blocks of convolution, batch normalisation and ReLU, a mean over each quarter of the map and a linear head.

    Every block but the first halves the map by a maximum over 2 × 2 positions.

    Parameters
    ----------
    in_channels : int
        Number of channels of the images, whose pixels lie between 0 and 1.
    outputs : int
        Categories, or attributes.
    widths : sequence of int
        The channels of each block; the blocks are the layers ``blocks.0``, ``blocks.1`` …
    seed : int
        Seed of the weights.
    """

    def __init__(
        self, in_channels: int, outputs: int, widths: Sequence[int] = (16, 32, 64), seed: int = 0
    ) -> None:
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(derive_seed(seed, "small network"))
            channels = (in_channels, *widths)
            self.blocks = nn.ModuleList(
                _block(before, after, halve=number > 0)
                for number, (before, after) in enumerate(pairwise(channels))
            )
            self.head = nn.Linear(4 * widths[-1], outputs)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return outputs ``(n, outputs)`` for pixels ``(n, in_channels, height, width)``."""
        return self.above(pixels - 0.5, 0)

    def below(self, pixels: Tensor, depth: int) -> Tensor:
        """Return what the first `depth` blocks make of pixels."""
        maps = pixels - 0.5
        for block in self.blocks[:depth]:
            maps = block(maps)
        return maps

    def above(self, maps: Tensor, depth: int) -> Tensor:
        """Return the outputs for maps that the first `depth` blocks gave."""
        for block in self.blocks[depth:]:
            maps = block(maps)
        return self.head(functional.adaptive_avg_pool2d(maps, 2).flatten(1))


@dataclass(frozen=True, eq=False)
class Pictures:
    """Small labelled images, split into those to train on and those to test on.

    Attributes
    ----------
    name : str
        What they are called in tables.
    train, test : Tensor, (n, channels, height, width)
        Pixels between 0 and 1.
    train_labels, test_labels : Tensor of int, (n,)
        Their categories.
    categories : tuple of str
        The categories' names.
    """

    name: str
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    categories: tuple[str, ...]

    def limited(self, train: int, test: int) -> Pictures:
        """Return the first images of each category, up to so many a category."""
        rows = [
            _first(labels, count) for labels, count in ((self.train_labels, train), (self.test_labels, test))
        ]
        return Pictures(
            self.name,
            self.train[rows[0]],
            self.train_labels[rows[0]],
            self.test[rows[1]],
            self.test_labels[rows[1]],
            self.categories,
        )


def digits(seed: int = 0) -> Pictures:
    """Return scikit-learn's 1797 handwritten digits, 8 × 8 px drawn out to 16 × 16, two thirds of them for training."""
    from sklearn.datasets import load_digits

    values, targets = (np.asarray(array) for array in load_digits(return_X_y=True))
    pixels = torch.from_numpy(values.reshape(-1, 1, 8, 8) / 16).float()
    pixels = functional.interpolate(pixels, scale_factor=2, mode="bilinear", align_corners=False)
    labels = torch.from_numpy(targets).long()
    order = torch.from_numpy(numpy_generator(seed, "digits").permutation(len(labels)))
    train, test = order[:1200], order[1200:]
    return Pictures(
        "handwritten digits (scikit-learn)",
        pixels[train],
        labels[train],
        pixels[test],
        labels[test],
        tuple(str(digit) for digit in range(10)),
    )


def read_cifar10(path: Path | str) -> Pictures:
    """Return CIFAR-10, or a part of it, from an npz of JPEGs.

    Parameters
    ----------
    path : path
        As :func:`cnn_interp.images.jpeg_archive.read_jpeg_archive` reads it, with a split into ``train`` and
        ``test``.

    Raises
    ------
    InputError
        If the file cannot be read, has no such split or one category only, or its images differ in size.
    """
    from cnn_interp.images.jpeg_archive import read_jpeg_archive

    images = read_jpeg_archive(path)
    if images.split is None or not {"train", "test"} <= set(images.split):
        raise InputError(f"{path}: has no parts 'train' and 'test'; expected train_jpeg, test_jpeg …")
    arrays = list(images)
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1 or max(arrays[0].shape) > 64:
        raise InputError(f"{path}: images of shapes {sorted(shapes)[:3]}; expected one size of at most 64 px")
    pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255
    labels = torch.from_numpy(images.labels).long()
    train, test = (torch.from_numpy(images.split == part) for part in ("train", "test"))
    count = int(labels.max()) + 1
    if count < 2:
        raise InputError(f"{path}: one category only; expected labels of two or more")
    names = images.category_names or (CIFAR10 if count == 10 else tuple(map(str, range(count))))
    if len(names) < count:
        raise InputError(f"{path}: {len(names)} names for labels up to {count - 1}; expected {count}")
    return Pictures(
        f"{Path(path).stem} ({int(train.sum())} + {int(test.sum())})",
        pixels[train],
        labels[train],
        pixels[test],
        labels[test],
        names,
    )


def train_network(
    model: SmallNetwork,
    inputs: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    learning_rate: float = 0.01,
    batch_size: int = 32,
    trained_from: int = 0,
    seed: int = 0,
    checkpoint: Path | None = None,
    description: str = "Training",
    quiet: bool = True,
) -> History:
    """Train a small network in place, with Adam and a learning rate that rises and falls once.

    Parameters
    ----------
    model : SmallNetwork
        The network.
    inputs : Tensor, (n, ...)
        Pixels, or with `trained_from` what the first blocks make of them.
    labels : Tensor, (n,) of int or (n, a) of float
        Categories, or attributes that are 0 or 1, each with an output of its own.
    epochs : int
        How often each image is shown.
    learning_rate : float
        At its highest.
    batch_size : int
        Images in a batch.
    trained_from : int
        The blocks below this one are frozen and left out.
    seed : int
        Seed of the order of the images.
    checkpoint : path, optional
        See :func:`interpretkit.training.fit`.
    description : str
        What the progress bar says.
    quiet : bool
        Show no progress.

    Returns
    -------
    History
    """
    weights = [*model.blocks[trained_from:].parameters(), *model.head.parameters()]
    batches = TensorBatches({"x": inputs, "y": labels}, batch_size, seed=derive_seed(seed, "order"))
    optimizer = torch.optim.Adam(weights, lr=learning_rate)
    scheduler = one_cycle(optimizer, learning_rate, epochs * len(batches))

    def loss(module: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert isinstance(module, SmallNetwork)
        outputs = module.above(batch["x"] - 0.5 if trained_from == 0 else batch["x"], trained_from)
        if batch["y"].ndim == 1:
            return {"loss": functional.cross_entropy(outputs, batch["y"])}
        return {"loss": functional.binary_cross_entropy_with_logits(outputs, batch["y"])}

    return fit(
        model,
        batches,
        loss,
        optimizer=optimizer,
        scheduler=scheduler,
        scheduler_steps="batch",
        epochs=epochs,
        precision="float32",
        checkpoint=checkpoint,
        description=description,
        quiet=quiet,
    )


def predict(model: nn.Module, pixels: Tensor, images_per_forward: int = 256) -> Tensor:
    """Return outputs ``(n, outputs)`` of a network in evaluation mode, without gradients, on the CPU."""
    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad():
        return torch.cat([model(some.to(device)).cpu() for some in pixels.split(images_per_forward)])


def accuracy(model: nn.Module, pixels: Tensor, labels: Tensor) -> float:
    """Return the share of images whose largest output is their label."""
    return float((predict(model, pixels).argmax(1) == labels).double().mean())


def binomial_interval(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval for a share found among `count` images."""
    from scipy.stats import binomtest

    interval = binomtest(round(share * count), count).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def _block(before: int, after: int, *, halve: bool) -> nn.Sequential:
    layers = [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*([nn.MaxPool2d(2)] if halve else []), *layers)


def _first(labels: Tensor, count: int) -> Tensor:
    numbers: NDArray[np.intp] = labels.numpy()
    rows = [np.flatnonzero(numbers == category)[:count] for category in np.unique(numbers)]
    return torch.from_numpy(np.sort(np.concatenate(rows)))
