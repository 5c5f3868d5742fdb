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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnn_interp.learning.interpretable_network import accuracy, check_labels, check_number, measure_scale
from interpretkit.training.batches import TensorBatches
from interpretkit.training.loop import History, fit
from interpretkit.training.schedules import one_cycle
from interpretkit.training.seeds import seed_everything, torch_generator


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
    epochs, batch_size, learning_rate, weight_decay
        Of the training.
    """

    filters: int = 8
    width: int = 64
    window: float = 0.7
    gathered: float = 1.0
    present: float = 1.0
    moved: float = 5.0
    different: float = 0.3
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        for name in ("filters", "width", "epochs", "batch_size"):
            check_number(name, getattr(self, name), 1)
        for name in ("gathered", "present", "moved", "different", "weight_decay"):
            check_number(name, getattr(self, name), 0)
        check_number("window", self.window, 0, 1, open_below=True)
        check_number("learning_rate", self.learning_rate, 0, open_below=True)


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

    def __init__(self, channels: int, categories: int, settings: CompetingSettings) -> None:
        super().__init__()
        self.channels, self.categories, self.settings = channels, categories, settings
        self.scale = nn.BatchNorm2d(channels, affine=False)
        self.embedding = nn.Conv2d(channels, settings.width, 1)
        # One more than there are filters: the background.
        self.claims = nn.Conv2d(settings.width, settings.filters + 1, 3, padding=1)
        self.parts = nn.Softmax(1)
        self.looks = nn.Parameter(torch.ones(settings.filters, settings.width))
        self.classifier = nn.Linear(settings.width, categories)

    def forward(self, maps: Tensor) -> Tensor:
        """Return scores (images, categories) for the trunk's maps (images, channels, h, w)."""
        return self.found(maps).scores

    def filter_maps(self, maps: Tensor) -> Tensor:
        """Return each filter's share of every position, (images, filters, h, w), from 0 to 1."""
        return self.found(maps).shares

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
    seed: int = 0,
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
    quiet: bool = True,
) -> tuple[CompetingLayers, History]:
    """Train competing filters on a trunk's maps.

    Parameters
    ----------
    maps, labels, categories, validation, seed, device, checkpoint, quiet
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
    batches = _Windows(
        TensorBatches({"maps": maps, "labels": labels}, settings.batch_size, seed=seed), settings, seed
    )
    optimizer = torch.optim.AdamW(
        layers.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    history = fit(
        layers,
        batches,
        _loss,
        optimizer=optimizer,
        epochs=settings.epochs,
        scheduler=one_cycle(optimizer, settings.learning_rate, settings.epochs * len(batches), rise=0.1),
        scheduler_steps="batch",
        validate=None if validation is None else lambda _: {"accuracy": accuracy(layers, *validation)},
        clip_norm=5.0,
        checkpoint=checkpoint,
        precision="float32",
        description="Training competing filters",
        quiet=quiet,
    )
    return layers, history


class _Windows:
    """Batches with the corners of two windows for each; an epoch's are always the same."""

    def __init__(self, batches: TensorBatches, settings: CompetingSettings, seed: int) -> None:
        self.batches, self.settings, self.seed = batches, settings, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        generator = torch_generator(self.seed, "windows", self.epoch)
        height, width = self.batches.tensors["maps"].shape[2:]
        size = tuple(max(1, round(self.settings.window * side)) for side in (height, width))
        for batch in self.batches:
            corners = [
                tuple(
                    int(torch.randint(side - part + 1, (), generator=generator))
                    for side, part in zip((height, width), size, strict=True)
                )
                for _ in range(2)
            ]
            yield batch | {"size": size, "corners": corners}


def _loss(layers: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    assert isinstance(layers, CompetingLayers)
    settings, labels = layers.settings, batch["labels"]
    (height, width), (one, other) = batch["size"], batch["corners"]
    layers.scale.eval()

    def window(maps: Tensor, corner: tuple[int, int]) -> Tensor:
        return maps[:, :, corner[0] : corner[0] + height, corner[1] : corner[1] + width].float()

    found = layers.found(window(batch["maps"], one))
    if layers.categories == 1:
        task = functional.binary_cross_entropy_with_logits(found.scores[:, 0], (labels == 0).float())
    else:
        task = functional.cross_entropy(found.scores, labels)
    objects = labels >= 0
    if not bool(objects.any()):
        return {"loss": task, "task": task.detach()}
    shares = found.shares[objects]
    second = layers.filter_maps(window(batch["maps"][objects], other).flip(3)).flip(3)
    # Where both windows look.
    top, left = (max(a, b) for a, b in zip(one, other, strict=True))
    bottom, right = min(one[0], other[0]) + height, min(one[1], other[1]) + width

    def shared(part: Tensor, corner: tuple[int, int]) -> Tensor:
        return part[:, :, top - corner[0] : bottom - corner[0], left - corner[1] : right - corner[1]]

    both = shared(shares, one), shared(second, other)
    moved = (both[0] - both[1]).square().sum(1).mean() if both[0].numel() else task.new_zeros(())
    asked = {
        "gathered": spread(shares).mean() / ((height**2 + width**2) / 12),
        "present": (1 - functional.avg_pool2d(shares, min(3, height, width), 1).amax((2, 3))).mean(),
        "moved": moved,
        "different": likeness(found.vectors[objects]),
    }
    total = task + sum(getattr(settings, name) * value for name, value in asked.items())
    return {"loss": total, "task": task.detach(), **{name: value.detach() for name, value in asked.items()}}


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
