"""Interpretable convolutional networks: two layers of filters on a frozen trunk, each drawn to one part (Zhang 2018).

The trunk is any network up to one of its layers. It stays as it is, so that its maps are computed once; what is trained
are two convolutions on them and a classifier, with the filter loss on both or, to compare, without.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnn_interp.learning.filter_loss import BETA, Centre, FilterLoss, TemplateMask
from interpretkit.errors import InputError
from interpretkit.networks.truncated import UpTo
from interpretkit.training.batches import TensorBatches
from interpretkit.training.distributed import parallelize
from interpretkit.training.loop import History, Loss, fit
from interpretkit.training.precision import Precision
from interpretkit.training.schedules import one_cycle
from interpretkit.training.seeds import seed_everything, torch_generator

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
    warm_up : float
        Share of the epochs in which masks and filter loss come in: masks close from none, and the loss rises from 0.
        None, as published, suits layers that were trained before; with new ones a mask fixes at random where a filter
        looks before it has learned anything.
    window : float
        Side of the window through which maps are seen in training, at random places, as a share of the maps' own; with
        less than 1 a filter cannot count on objects being in the middle.
    epochs, batch_size, learning_rate, weight_decay
        Of the training.
    """

    kind: Kind = "interpretable"
    filters: int = 32
    strength: float = 0.05
    sharpness: float | None = 4.0
    beta: float = BETA
    centre: Centre = "peak"
    learn_beta: bool = False
    all_templates: bool = False
    warm_up: float = 0.0
    window: float = 1.0
    epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 3e-3
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
        check_number("warm_up", self.warm_up, 0, 1)
        check_number("window", self.window, 0, 1, open_below=True)


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

    filter_layer: ClassVar[str] = "second"
    """The name of the layer whose maps are the filters'."""

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


class ReadableLayers(Protocol):
    """Layers on a trunk's maps whose filters are to be read, of whatever kind."""

    filter_layer: ClassVar[str]
    channels: int
    categories: int

    def __call__(self, maps: Tensor) -> Tensor:
        """Return scores ``(images, categories)``."""
        ...

    def filter_maps(self, maps: Tensor) -> Tensor:
        """Return the filters' maps ``(images, filters, h, w)``."""
        ...


class InterpretableNetwork(nn.Module):
    """A frozen trunk with trained layers on it, from images to scores.

    Parameters
    ----------
    trunk : Module
        A network for images.
    layer : str
        The layer at which it ends.
    layers : Module
        What follows: layers of a kind of :class:`ReadableLayers`.

    Notes
    -----
    Layers that tell one category from all else have one score. The network gives two, half of it and the negative of
    that, so that their softmax is the category's probability, as of any other network.
    """

    def __init__(self, trunk: nn.Module, layer: str, layers: nn.Module) -> None:
        super().__init__()
        self.trunk = UpTo(trunk, layer)
        self.layers = layers

    def forward(self, inputs: Tensor) -> Tensor:
        """Return scores (images, categories), or (images, 2), for inputs (images, 3, h, w)."""
        scores = self.layers(self.trunk(inputs))
        return torch.cat([scores / 2, -scores / 2], 1) if scores.shape[1] == 1 else scores


def train_layers(
    maps: Tensor,
    labels: Tensor,
    settings: Settings | None = None,
    *,
    categories: int | None = None,
    validation: tuple[Tensor, Tensor] | None = None,
    patience: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
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
        Maps and labels of other images, whose accuracy and loss stand in the history.
    patience : int, optional
        Stop after so many epochs without a smaller loss on them, and keep the best epoch's weights; by default all
        epochs are done.
    seed : int
        Of weights and batches.
    device : str or torch.device
        Where to train.
    precision : {"auto", "float32", "bfloat16"}
        Of the layers; see :func:`interpretkit.training.precision.autocast`. The filter loss is in single precision.
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
        ``accuracy`` and ``task`` (the loss of the scores) on the images kept aside.

    Raises
    ------
    InputError
        If shapes do not fit, labels are out of range, there is one kind of images only, or `patience` has no
        validation.
    """
    settings = settings or Settings()
    count = check_labels(maps, labels, categories)
    seed_everything(seed)
    layers = PartLayers(maps.shape[1], count, settings)
    measure_scale(layers.scale, maps)
    layers.to(device)
    height, width = window_size(maps.shape[2], maps.shape[3], settings.window)
    losses = nn.ModuleList(
        FilterLoss(
            settings.filters, height, width, categories=count, beta=settings.beta,
            all_templates=settings.all_templates,
        )
        for _ in LAYERS
    ).to(device)  # fmt: skip
    history = fit_layers(
        parallelize(_Trained(layers, losses)),
        layers,
        WindowBatches(
            TensorBatches({"maps": maps, "labels": labels}, settings.batch_size, seed=seed),
            settings.window,
            seed,
        ),
        _loss,
        settings,
        validation=validation,
        patience=patience,
        precision=precision,
        checkpoint=checkpoint,
        description=f"Training {settings.kind} layers",
        quiet=quiet,
    )
    for mask in (layers.first_mask, layers.second_mask):
        if isinstance(mask, TemplateMask):
            mask.closed = 1.0
    return layers.eval(), history


class CountedBatches(Protocol):
    """Batches of which it is known how many an epoch has."""

    def __len__(self) -> int:
        """Return how many."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """Give those of an epoch."""
        ...


class HowToTrain(Protocol):
    """The settings that the training of all kinds of layers has."""

    @property
    def epochs(self) -> int:
        """How many."""
        ...

    @property
    def learning_rate(self) -> float:
        """The highest."""
        ...

    @property
    def weight_decay(self) -> float:
        """Of the weights."""
        ...


def fit_layers(
    model: nn.Module,
    layers: nn.Module,
    batches: CountedBatches,
    loss: Loss,
    settings: HowToTrain,
    *,
    validation: tuple[Tensor, Tensor] | None,
    patience: int | None,
    precision: Precision,
    checkpoint: Path | None,
    description: str,
    quiet: bool,
    clip_norm: float | None = None,
) -> History:
    """Train layers, within a model that computes their losses, by AdamW with one cycle of the learning rate."""
    if patience is not None and validation is None:
        raise InputError(f"patience {patience}: expected images kept aside, to see when to stop")
    optimizer = torch.optim.AdamW(
        layers.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )

    def validate(_: nn.Module) -> dict[str, float]:
        assert validation is not None
        scores = _scores(layers, validation[0])
        return {
            "accuracy": accuracy(layers, *validation, scores=scores),
            "task": float(task_loss(scores, validation[1])),
        }

    return fit(
        model,
        batches,
        loss,
        optimizer=optimizer,
        epochs=settings.epochs,
        scheduler=one_cycle(optimizer, settings.learning_rate, settings.epochs * len(batches), rise=0.1),
        scheduler_steps="batch",
        validate=None if validation is None else validate,
        monitor=None if patience is None else "task",
        patience=patience,
        clip_norm=clip_norm,
        checkpoint=checkpoint,
        precision=precision,
        description=description,
        quiet=quiet,
    )


def task_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of scores ``(n, categories)``; of one category, with all others labelled −1."""
    if scores.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(scores[:, 0], (labels == 0).to(scores.dtype))
    return functional.cross_entropy(scores, labels)


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
def accuracy(layers: nn.Module, maps: Tensor, labels: Tensor, *, scores: Tensor | None = None) -> float:
    """Return the share of images whose category is told rightly; their scores need not be computed twice."""
    scores = _scores(layers, maps) if scores is None else scores
    told = torch.where(scores[:, 0] > 0, 0, -1) if scores.shape[1] == 1 else scores.argmax(1)
    return float((told == labels).double().mean())


@torch.no_grad()
def _scores(layers: nn.Module, maps: Tensor) -> Tensor:
    device = next(layers.parameters()).device
    return torch.cat([layers(part.float().to(device)).cpu() for part in maps.split(256)])


class _Trained(nn.Module):
    """Layers with their losses and what these remember, so that a checkpoint holds both."""

    def __init__(self, layers: PartLayers, losses: nn.ModuleList) -> None:
        super().__init__()
        self.layers, self.losses = layers, losses

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the losses of a batch."""
        layers, labels, settings = self.layers, batch["labels"], self.layers.settings
        layers.scale.eval()
        # Masks close, and the loss rises, over the first epochs.
        entered = min(1.0, batch["epoch"] / (settings.warm_up * settings.epochs + 1))
        for mask in (layers.first_mask, layers.second_mask):
            if isinstance(mask, TemplateMask):
                mask.closed = entered
        (height, width), ((top, left), _) = batch["size"], batch["corners"]
        seen = batch["maps"][:, :, top : top + height, left : left + width]
        scores, *responses = layers.responses(seen.float())
        task = task_loss(scores, labels)
        if settings.kind == "ordinary":
            return {"loss": task, "task": task.detach()}
        total, nats = task, torch.zeros((), device=task.device)
        for maps, loss in zip(responses, self.losses, strict=True):
            weight = maps.detach().amax((2, 3)).mean()
            if settings.sharpness is not None:
                level = 2 * maps.shape[2] * maps.shape[3] * settings.sharpness
                maps, weight = maps * (level / weight.clamp_min(1e-12)), torch.ones_like(weight)
            value = loss(maps, labels) / maps.shape[1]
            # By the epoch, as published, but from the one on in which the loss has come in.
            since = max(1.0, batch["epoch"] - settings.warm_up * settings.epochs)
            weight = weight * entered * settings.strength / since
            total, nats = total + weight * value, nats + value.detach()
        return {"loss": total, "task": task.detach(), "filters": nats}


class WindowBatches:
    """Batches that know their epoch, from 1, and the corners of two windows for each; an epoch's are always the same.

    Parameters
    ----------
    batches : TensorBatches
        With ``maps``.
    window : float
        Side of a window as a share of the maps'.
    seed : int
        Of the windows' places.
    """

    def __init__(self, batches: TensorBatches, window: float, seed: int) -> None:
        self.batches, self.window, self.seed = batches, window, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0."""
        self.epoch = epoch
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        generator = torch_generator(self.seed, "windows", self.epoch)
        height, width = self.batches.tensors["maps"].shape[2:]
        size = window_size(height, width, self.window)
        for batch in self.batches:
            corners = [
                tuple(
                    int(torch.randint(side - part + 1, (), generator=generator))
                    for side, part in zip((height, width), size, strict=True)
                )
                for _ in range(2)
            ]
            yield batch | {"size": size, "corners": corners, "epoch": self.epoch + 1}


def window_size(height: int, width: int, share: float) -> tuple[int, int]:
    """Return height and width of a window that takes a share of a map's sides."""
    return max(1, round(share * height)), max(1, round(share * width))


def _loss(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    return model(batch)
