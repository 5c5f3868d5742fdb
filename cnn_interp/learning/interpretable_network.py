"""Interpretable convolutional networks: two layers of filters on a frozen trunk, each drawn to one part (Zhang 2018).

The trunk is any network up to one of its layers. It stays as it is, so that its maps are computed once; what is trained
are two convolutions on them and a classifier, with the filter loss on both or, to compare, without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnn_interp.learning.filter_loss import BETA, Centre, FilterLoss, TemplateMask
from interpretkit.errors import InputError
from interpretkit.networks.truncated import UpTo
from interpretkit.training.batches import TensorBatches
from interpretkit.training.loop import History, fit
from interpretkit.training.schedules import one_cycle
from interpretkit.training.seeds import seed_everything

Kind = Literal["interpretable", "ordinary"]
LAYERS = ("first", "second")
"""The names of the layers whose filters are to be read."""


@dataclass(frozen=True)
class Settings:
    """How the layers are made and trained.

    Attributes
    ----------
    kind : {"interpretable", "ordinary"}
        With masks and filter loss, or without both: the same network otherwise.
    filters : int
        Of each of the two layers.
    strength : float
        Of the filter loss, in the mean over filters, divided by the epoch.
    sharpness : float, optional
        The loss has a gradient only where responses are large enough to tell templates apart; this scales them for the
        loss so that tr(x T) of a mean map with a single spot would have this value. None takes them as they are and
        multiplies the weight by their mean strongest response, as published, which fits VGG's top layer with responses
        in the hundreds.
    beta, centre, learn_beta : float, str, bool
        Of the masks; see :class:`~cnn_interp.learning.filter_loss.TemplateMask`. The released code has
        ``centroid`` and learns β.
    all_templates : bool
        See :class:`~cnn_interp.learning.filter_loss.FilterLoss`.
    epochs, batch_size, learning_rate, weight_decay
        Of the training.
    """

    kind: Kind = "interpretable"
    filters: int = 64
    strength: float = 0.05
    sharpness: float | None = 4.0
    beta: float = BETA
    centre: Centre = "peak"
    learn_beta: bool = False
    all_templates: bool = False
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"kind {self.kind!r}: expected one of {', '.join(get_args(Kind))}")
        for name in ("filters", "epochs", "batch_size"):
            check_number(name, getattr(self, name), 1)
        for name in ("strength", "weight_decay"):
            check_number(name, getattr(self, name), 0)
        for name in ("learning_rate", "sharpness", "beta"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), 0, open_below=True)


def check_number(
    name: str, value: float, least: float, most: float = math.inf, *, open_below: bool = False
) -> None:
    """Refuse a number that is not finite or out of bounds.

    Raises
    ------
    InputError
        In one line that names it, its value and what was expected.
    """
    if math.isfinite(value) and (value > least if open_below else value >= least) and value <= most:
        return
    bound = f"above {least:g}" if open_below else f"of at least {least:g}"
    upper = "" if math.isinf(most) else f" and at most {most:g}"
    raise InputError(f"{name} {value!r}: expected a number {bound}{upper}")


class PartLayers(nn.Module):
    """Two convolutions of 3 × 3 with filters to be read, and a classifier on their strongest responses.

    Parameters
    ----------
    channels : int
        Of the trunk's maps.
    categories : int
        How many categories the classifier tells apart; with one, it tells that one from all else.
    settings : Settings
        How the layers are made.
    """

    def __init__(self, channels: int, categories: int, settings: Settings) -> None:
        super().__init__()
        self.channels, self.categories, self.settings = channels, categories, settings
        filters = settings.filters
        # Trunks differ in the scale of their maps.
        self.scale = nn.BatchNorm2d(channels, affine=False)
        self.first_convolution = nn.Conv2d(channels, filters, 3, padding=1)
        self.second_convolution = nn.Conv2d(filters, filters, 3, padding=1)
        # What a filter responds to before its mask is what is read, so that it is a layer with a name.
        self.first, self.second = nn.ReLU(), nn.ReLU()
        self.first_mask, self.second_mask = (
            TemplateMask(filters, beta=settings.beta, centre=settings.centre, learn_beta=settings.learn_beta)
            if settings.kind == "interpretable"
            else nn.Identity()
            for _ in LAYERS
        )
        self.classifier = nn.Linear(filters, categories)

    def forward(self, maps: Tensor) -> Tensor:
        """Return scores (images, categories) for the trunk's maps (images, channels, h, w)."""
        return self.responses(maps)[0]

    def filter_maps(self, maps: Tensor) -> Tensor:
        """Return the responses of the second layer's filters before masks, (images, filters, h, w)."""
        return self.responses(maps)[2]

    def responses(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the scores, and the responses of both layers before masks, (images, filters, h, w)."""
        first = self.first(self.first_convolution(self.scale(maps)))
        second = self.second(self.second_convolution(self.first_mask(first)))
        pooled = self.second_mask(second).amax((2, 3))
        return self.classifier(pooled), first, second


class InterpretableNetwork(nn.Module):
    """A frozen trunk with trained layers on it, from images to scores.

    Parameters
    ----------
    trunk : Module
        A network for images.
    layer : str
        The layer at which it ends.
    layers : PartLayers
        What follows.
    """

    def __init__(self, trunk: nn.Module, layer: str, layers: PartLayers) -> None:
        super().__init__()
        self.trunk = UpTo(trunk, layer)
        self.layers = layers

    def forward(self, inputs: Tensor) -> Tensor:
        """Return scores (images, categories) for inputs (images, 3, h, w)."""
        return self.layers(self.trunk(inputs))


def train_layers(
    maps: Tensor,
    labels: Tensor,
    settings: Settings | None = None,
    *,
    categories: int | None = None,
    validation: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
    quiet: bool = True,
) -> tuple[PartLayers, History]:
    """Train layers on a trunk's maps.

    Parameters
    ----------
    maps : Tensor, (images, channels, h, w)
        As the trunk gives them; may be in half precision.
    labels : Tensor of int, (images,)
        The images' categories from 0; −1 for images of none, which only a network of one category can use.
    settings : Settings, optional
        How; by default as published.
    categories : int, optional
        How many there are; by default as many as the labels name.
    validation : (Tensor, Tensor), optional
        Maps and labels of other images, whose accuracy chooses the epoch.
    seed : int
        Of weights and batches.
    device : str or torch.device
        Where to train.
    checkpoint : path, optional
        A folder to go on from; see :func:`interpretkit.training.loop.fit`.
    quiet : bool
        Whether to show no progress bar.

    Returns
    -------
    PartLayers
        In evaluation mode.
    History
        The figures of every epoch: ``train_loss``, ``train_task``, ``train_filters`` (the filter loss in nats), and
        ``accuracy`` on the images kept aside.

    Raises
    ------
    InputError
        If shapes do not fit, labels are out of range, or there is one kind of images only.
    """
    settings = settings or Settings()
    if maps.ndim != 4 or len(maps) != len(labels):
        raise InputError(
            f"maps of shape {tuple(maps.shape)}, {len(labels)} labels: expected (images, channels, h, w), a label each"
        )
    known = sorted(set(labels.tolist()))
    count = max(known, default=-1) + 1 if categories is None else categories
    if len(known) < 2:
        raise InputError(
            f"labels: {known[0] if known else 'none'} only; expected images of at least two kinds"
        )
    if count < 1 or known[-1] >= count or known[0] < -1 or (known[0] == -1 and count > 1):
        raise InputError(
            f"labels {known[0]} to {known[-1]}: expected 0 to {count - 1}, or −1 and 0 for one category and all else"
        )
    seed_everything(seed)
    layers = PartLayers(maps.shape[1], count, settings)
    with torch.no_grad():
        layers.scale.train()
        layers.scale.momentum = None  # the mean of all batches
        for part in maps.split(256):
            layers.scale(part.float())
    layers.to(device)
    height, width = maps.shape[2:]
    losses = nn.ModuleList(
        FilterLoss(
            settings.filters, height, width, categories=count, beta=settings.beta,
            all_templates=settings.all_templates,
        )
        for _ in LAYERS
    ).to(device)  # fmt: skip
    model = _Trained(layers, losses)
    batches = TensorBatches({"maps": maps, "labels": labels}, settings.batch_size, seed=seed)
    optimizer = torch.optim.AdamW(
        layers.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    history = fit(
        model,
        _Counted(batches),
        _loss,
        optimizer=optimizer,
        epochs=settings.epochs,
        scheduler=one_cycle(optimizer, settings.learning_rate, settings.epochs * len(batches), rise=0.1),
        scheduler_steps="batch",
        validate=None if validation is None else lambda _: {"accuracy": accuracy(layers, *validation)},
        checkpoint=checkpoint,
        precision="float32",
        description=f"Training {settings.kind} layers",
        quiet=quiet,
    )
    layers.eval()
    return layers, history


def check_labels(maps: Tensor, labels: Tensor, categories: int | None) -> int:
    """Return how many categories there are.

    Raises
    ------
    InputError
        If shapes do not fit, labels are out of range, or there is one kind of images only.
    """
    if maps.ndim != 4 or len(maps) != len(labels):
        raise InputError(
            f"maps of shape {tuple(maps.shape)}, {len(labels)} labels: expected (images, channels, h, w), a label each"
        )
    known = sorted(set(labels.tolist()))
    count = max(known, default=-1) + 1 if categories is None else categories
    if len(known) < 2:
        raise InputError(
            f"labels: {known[0] if known else 'none'} only; expected images of at least two kinds"
        )
    if count < 1 or known[-1] >= count or known[0] < -1 or (known[0] == -1 and count > 1):
        raise InputError(
            f"labels {known[0]} to {known[-1]}: expected 0 to {count - 1}, or −1 and 0 for one category and all else"
        )
    return count


@torch.no_grad()
def measure_scale(scale: nn.BatchNorm2d, maps: Tensor) -> None:
    """Let a normalisation take mean and variance of all maps; after that it is to be in evaluation mode."""
    scale.train()
    scale.momentum = None  # the mean of all batches
    for part in maps.split(256):
        scale(part.float())
    scale.eval()


@torch.no_grad()
def accuracy(layers: nn.Module, maps: Tensor, labels: Tensor) -> float:
    """Return the share of images whose category is told rightly."""
    device = next(layers.parameters()).device
    scores = torch.cat([layers(part.float().to(device)).cpu() for part in maps.split(256)])
    told = torch.where(scores[:, 0] > 0, 0, -1) if scores.shape[1] == 1 else scores.argmax(1)
    return float((told == labels).double().mean())


class _Trained(nn.Module):
    """Layers with what their losses remember, so that a checkpoint holds both."""

    def __init__(self, layers: PartLayers, losses: nn.ModuleList) -> None:
        super().__init__()
        self.layers, self.losses = layers, losses


class _Counted:
    """Batches that know their epoch, from 1."""

    def __init__(self, batches: TensorBatches) -> None:
        self.batches = batches
        self.epoch = 1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch + 1
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Any:
        return (batch | {"epoch": self.epoch} for batch in self.batches)


def _loss(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    assert isinstance(model, _Trained)
    layers, labels = model.layers, batch["labels"]
    layers.scale.eval()
    scores, *responses = layers.responses(batch["maps"].float())
    if layers.categories == 1:
        task = functional.binary_cross_entropy_with_logits(scores[:, 0], (labels == 0).float())
    else:
        task = functional.cross_entropy(scores, labels)
    if layers.settings.kind == "ordinary":
        return {"loss": task, "task": task.detach()}
    total, nats = task, torch.zeros((), device=task.device)
    for maps, loss in zip(responses, model.losses, strict=True):
        weight = maps.detach().amax((2, 3)).mean()
        if layers.settings.sharpness is not None:
            level = 2 * maps.shape[2] * maps.shape[3] * layers.settings.sharpness
            maps, weight = maps * (level / weight.clamp_min(1e-12)), torch.ones_like(weight)
        value = loss(maps, labels) / maps.shape[1]
        weight = weight * layers.settings.strength / batch["epoch"]
        total, nats = total + weight * value, nats + value.detach()
    return {"loss": total, "task": task.detach(), "filters": nats}
