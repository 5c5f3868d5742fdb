"""Filters that compete for the places of an object, so that each follows a part of its own, without any part labelled.

The published filter loss rewards a filter that always fires at the same place as much as one that follows a part. Here
the filters of a layer and a background share out every position by a softmax, and objects are seen through windows at
random places. A filter shall be gathered at one place, be seen in every object, go with the object when that is moved
or mirrored, and look for something other than the rest. The category is told from what each of them found.

References
----------
W.-C. Hung et al., "SCOPS: Self-supervised co-part segmentation", CVPR 2019, and R. van der Klis et al., "PDiscoNet:
Semantically consistent part discovery for fine-grained recognition", ICCV 2023, for losses of this kind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnn_interp.learning.interpretable_network import (
    WindowBatches,
    check_labels,
    check_number,
    fit_layers,
    measure_scale,
    task_loss,
)
from interpretkit.training.batches import TensorBatches
from interpretkit.training.distributed import parallelize
from interpretkit.training.loop import History
from interpretkit.training.precision import Precision
from interpretkit.training.seeds import seed_everything

# Positions along each side that a part takes.
PART = 3


@dataclass(frozen=True)
class CompetingSettings:
    """How competing filters are made and trained.

    Attributes
    ----------
    filters : int
        How many.
    width : int
        Of the embedding in which they look for their part.
    window : float
        Side of the window through which maps are seen in training, as a share of the maps' own.
    gathered : float
        Weight of the spread of a filter about its centre of gravity, over that of an even one.
    present : float
        Weight of what a filter lacks to fill three by three positions in each object.
    moved : float
        Weight of the squared difference of the filters between two windows of one object, one of them mirrored.
    different : float
        Weight of the squared likeness of what different filters found.
    reading : float
        A filter's map says how much of it lies within a square about each position; this is the square's side as a
        share of the map's. At 0 it is the share of the position alone.
    epochs, batch_size, learning_rate, weight_decay
        Of the training.
    """

    filters: int = 6
    width: int = 64
    window: float = 0.7
    gathered: float = 1.0
    present: float = 1.0
    moved: float = 20.0
    different: float = 0.3
    reading: float = 0.5
    epochs: int = 60
    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        for name in ("filters", "width", "epochs", "batch_size"):
            check_number(name, getattr(self, name), 1)
        for name in ("gathered", "present", "moved", "different", "weight_decay"):
            check_number(name, getattr(self, name), 0)
        check_number("window", self.window, 0, 1, open_below=True)
        check_number("reading", self.reading, 0, 1)
        check_number("learning_rate", self.learning_rate, 0, open_below=True)


class Gathering(nn.Module):
    """Brings maps to their means over a square about each position: strongest is where most of a filter is.

    A part takes several positions, and the strongest one of them jumps. Beyond the map's edge there is nothing.

    Parameters
    ----------
    share : float
        Side of the square as a share of the map's, rounded down to an odd number of positions.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, maps: Tensor) -> Tensor:
        """Return means ``(n, filters, h, w)`` of maps ``(n, filters, h, w)``."""
        sides = [2 * int(self.share * side / 2) + 1 for side in maps.shape[2:]]
        return functional.avg_pool2d(maps, sides, 1, [side // 2 for side in sides])


class CompetingLayers(nn.Module):
    """Filters that share out the positions of a trunk's maps, and a classifier on what each of them found.

    Parameters
    ----------
    channels : int
        Of the trunk's maps.
    categories : int
        How many categories are told apart; with one, that one from all else.
    settings : CompetingSettings
        How the layers are made.
    """

    filter_layer: ClassVar[str] = "filters"
    """The name of the layer whose maps are the filters'."""

    def __init__(self, channels: int, categories: int, settings: CompetingSettings) -> None:
        super().__init__()
        self.channels, self.categories, self.settings = channels, categories, settings
        self.scale = nn.BatchNorm2d(channels, affine=False)
        self.embedding = nn.Conv2d(channels, settings.width, 1)
        # One more than there are filters: the background.
        self.claims = nn.Conv2d(settings.width, settings.filters + 1, 3, padding=1)
        self.parts = nn.Softmax(1)
        self.filters = Gathering(settings.reading)
        self.looks = nn.Parameter(torch.ones(settings.filters, settings.width))
        self.classifier = nn.Linear(settings.width, categories)

    def forward(self, maps: Tensor) -> Tensor:
        """Return scores (images, categories) for the trunk's maps (images, channels, h, w)."""
        found = self.found(maps)
        self.filters(
            found.shares
        )  # not needed for the scores; that it runs lets it be read like any other layer
        return found.scores

    def filter_maps(self, maps: Tensor) -> Tensor:
        """Return each filter's mean share of the square about every position, (images, filters, h, w), from 0 to 1."""
        return self.filters(self.found(maps).shares)

    def found(self, maps: Tensor) -> Found:
        """Return all that is found in maps."""
        embedded = self.embedding(self.scale(maps))
        shares = self.parts(self.claims(functional.relu(embedded)))[:, : self.settings.filters]
        total = shares.sum((2, 3))[..., None].clamp_min(1e-3)
        vectors = torch.einsum("nkhw,nchw->nkc", shares, embedded) / total
        by_filter = self.classifier(functional.relu(vectors * self.looks))  # (images, filters, categories)
        # A part that is not to be seen says nothing.
        scores = (by_filter * shares.amax((2, 3))[..., None]).sum(1) / math.sqrt(self.settings.filters)
        return Found(scores, shares, vectors)


class Found(NamedTuple):
    """What competing filters found: scores (n, categories), shares (n, filters, h, w), vectors (n, filters, width)."""

    scores: Tensor
    shares: Tensor
    vectors: Tensor


def train_competing(
    maps: Tensor,
    labels: Tensor,
    settings: CompetingSettings | None = None,
    *,
    categories: int | None = None,
    validation: tuple[Tensor, Tensor] | None = None,
    patience: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
    checkpoint: Path | None = None,
    quiet: bool = True,
) -> tuple[CompetingLayers, History]:
    """Train competing filters on a trunk's maps.

    Parameters
    ----------
    maps, labels, categories, validation, patience, seed, device, precision, checkpoint, quiet
        As in :func:`~cnn_interp.learning.interpretable_network.train_layers`.
    settings : CompetingSettings, optional
        How.

    Returns
    -------
    CompetingLayers
        In evaluation mode.
    History
        ``train_loss``, ``train_task`` and the four parts of what is asked of the filters, unweighted.

    Raises
    ------
    InputError
        As `train_layers`.
    """
    settings = settings or CompetingSettings()
    count = check_labels(maps, labels, categories)
    seed_everything(seed)
    layers = CompetingLayers(maps.shape[1], count, settings)
    measure_scale(layers.scale, maps)
    layers.to(device)
    batches = WindowBatches(
        TensorBatches({"maps": maps, "labels": labels}, settings.batch_size, seed=seed), settings.window, seed
    )
    history = fit_layers(
        parallelize(_Trained(layers)),
        layers,
        batches,
        _loss,
        settings,
        validation=validation,
        patience=patience,
        precision=precision,
        checkpoint=checkpoint,
        description="Training competing filters",
        quiet=quiet,
        clip_norm=5.0,
    )
    return layers.eval(), history


class _Trained(nn.Module):
    """Layers with what is asked of them."""

    def __init__(self, layers: CompetingLayers) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the losses of a batch."""
        layers, settings, labels = self.layers, self.layers.settings, batch["labels"]
        (height, width), (one, other) = batch["size"], batch["corners"]
        layers.scale.eval()

        def window(maps: Tensor, corner: tuple[int, int]) -> Tensor:
            return maps[:, :, corner[0] : corner[0] + height, corner[1] : corner[1] + width].float()

        found = layers.found(window(batch["maps"], one))
        task = task_loss(found.scores, labels)
        objects = labels >= 0
        if not bool(objects.any()):
            return {"loss": task, "task": task.detach()}
        shares = found.shares[objects].float()
        second = layers.found(window(batch["maps"][objects], other).flip(3)).shares.flip(3)
        # Where both windows look.
        top, left = (max(a, b) for a, b in zip(one, other, strict=True))
        bottom, right = min(one[0], other[0]) + height, min(one[1], other[1]) + width

        def shared(part: Tensor, corner: tuple[int, int]) -> Tensor:
            return part[:, :, top - corner[0] : bottom - corner[0], left - corner[1] : right - corner[1]]

        both = shared(shares, one), shared(second, other)
        moved = (both[0] - both[1]).square().sum(1).mean() if both[0].numel() else task.new_zeros(())
        asked = {
            "gathered": spread(shares).mean() / ((height**2 + width**2) / 12),
            "present": (
                1 - functional.avg_pool2d(shares, (min(PART, height), min(PART, width)), 1).amax((2, 3))
            ).mean(),
            "moved": moved,
            "different": likeness(found.vectors[objects].float()),
        }
        total = task + sum(getattr(settings, name) * value for name, value in asked.items())
        return {"loss": total, "task": task.detach(), **{key: value.detach() for key, value in asked.items()}}


def _loss(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    return model(batch)


def spread(shares: Tensor) -> Tensor:
    """Return the mean squared distance from the centre of gravity, in positions, (n, filters)."""
    rows = torch.arange(shares.shape[2], device=shares.device, dtype=shares.dtype)
    columns = torch.arange(shares.shape[3], device=shares.device, dtype=shares.dtype)
    by_row, by_column = shares.sum(3), shares.sum(2)
    total = by_row.sum(2).clamp_min(1e-3)

    def variance(amount: Tensor, places: Tensor) -> Tensor:
        mean = (amount @ places) / total
        return (amount * (places - mean[..., None]).square()).sum(2) / total

    return variance(by_row, rows) + variance(by_column, columns)


def likeness(vectors: Tensor) -> Tensor:
    """Return the mean squared positive cosine between what different filters found, a scalar."""
    filters = vectors.shape[1]
    if filters == 1:
        return vectors.new_zeros(())
    unit = functional.normalize(vectors, dim=2)
    cosines = unit @ unit.transpose(1, 2) - torch.eye(filters, device=vectors.device, dtype=vectors.dtype)
    return cosines.clamp_min(0).square().sum((1, 2)).mean() / (filters * (filters - 1))
