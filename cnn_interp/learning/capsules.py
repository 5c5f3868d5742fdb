"""Capsules: vectors whose length says that a thing is there and whose direction says how it looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cnn_interp.learning.grey_images import GreyBatches, GreyImages, as_pixels
from interpretkit.errors import InputError
from interpretkit.training import (
    History,
    fit,
    load_config,
    load_model,
    own_draws,
    resolve_device,
    save_model,
)
from interpretkit.training.distributed import further, parallelize, unwrap
from interpretkit.training.precision import Precision
from interpretkit.training.schedules import one_cycle

PRESENT, ABSENT, DOWN_WEIGHT = 0.9, 0.1, 0.5
RECONSTRUCTION = 5e-4
# How far a dimension is moved in the sheet of perturbed dimensions, as published.
PERTURBATIONS = tuple(step / 20 for step in range(-5, 6))
_TINY = 1e-9
_CHUNK = 500


@dataclass(frozen=True)
class CapsuleConfig:
    """Everything but the weights.

    Attributes
    ----------
    side : int
        Height and width of the images in pixels.
    categories : tuple of str
        The categories' names; each has a capsule.
    stem : tuple of (channels, kernel, stride)
        The convolutions before the primary capsules, each followed by ReLU.
    types, primary_size : int
        Kinds of primary capsules at every position, and numbers in each.
    primary_kernel, primary_stride : int
        The convolution that makes them.
    capsule_size : int
        Numbers in the capsule of a category.
    routings : int
        How often couplings are used: 1 leaves them even.
    decoder : tuple of int
        Units of the hidden layers that draw the image again.
    normalise : bool
        Batch normalisation after each convolution of the stem, which the article does without.
    """

    side: int = 28
    categories: tuple[str, ...] = tuple("0123456789")
    stem: tuple[tuple[int, int, int], ...] = ((256, 9, 1),)
    types: int = 32
    primary_size: int = 8
    primary_kernel: int = 9
    primary_stride: int = 2
    capsule_size: int = 16
    routings: int = 3
    decoder: tuple[int, ...] = (512, 1024)
    normalise: bool = False

    @property
    def grid(self) -> int:
        """Rows and columns of positions at which there are primary capsules."""
        side = self.side
        for _, kernel, stride in (*self.stem, (0, self.primary_kernel, self.primary_stride)):
            side = (side - kernel) // stride + 1
        return side

    @property
    def primary(self) -> int:
        """The number of primary capsules."""
        return self.types * self.grid**2

    def check(self) -> None:
        """Refuse what makes no network.

        Raises
        ------
        InputError
            If the images are too small for the convolutions, or a number is out of range.
        """
        if self.grid < 1:
            raise InputError(f"side {self.side}: too small for the convolutions of this size of network")
        if self.routings < 1:
            raise InputError(f"routings {self.routings}: expected at least 1")
        if len(self.categories) < 2:
            raise InputError(f"categories: {len(self.categories)}; expected at least 2")


SIZES: Mapping[str, CapsuleConfig] = {
    # Small convolutions with batch normalisation in place of the two of 9 × 9: an eighth of the article's parameters.
    "cpu": CapsuleConfig(
        stem=((32, 5, 2), (32, 3, 1), (64, 3, 1)),
        types=8,
        primary_kernel=3,
        primary_stride=2,
        decoder=(256, 512),
        normalise=True,
    ),
    "paper": CapsuleConfig(),
}


class Capsules(NamedTuple):
    """What a capsule network makes of images.

    `vectors`: (n, categories, size), the categories' capsules. `couplings`: (n, categories, primary), how much of every
    primary capsule goes to each category at the last routing; they add up to 1 over the categories.
    """

    vectors: Tensor
    couplings: Tensor

    @property
    def lengths(self) -> Tensor:
        """How sure the network is that each category is there, (n, categories), between 0 and 1."""
        return (self.vectors.square().sum(2) + _TINY).sqrt()


def squash(vectors: Tensor) -> Tensor:
    """Return vectors (..., d) of the same directions with lengths ‖s‖² / (1 + ‖s‖²), below 1."""
    square = vectors.square().sum(-1, keepdim=True)
    return vectors * (square / (1 + square) * (square + _TINY).rsqrt())


def route(primary: Tensor, weights: Tensor, routings: int) -> Capsules:
    """Route primary capsules to those of the categories by agreement.

    Parameters
    ----------
    primary : Tensor, (n, p, a)
        Primary capsules.
    weights : Tensor, (p, a, k, d)
        The matrix with which every primary capsule votes for the capsule of each of k categories.
    routings : int
        How often couplings are used; before the first they are even.

    Returns
    -------
    Capsules

    Notes
    -----
    Gradients flow through the votes of the last routing only: the couplings count as constants, as is usual. In the
    first routing, where all couplings are 1 / k, the votes are summed by one product of matrices and never made.

    References
    ----------
    S. Sabour, N. Frosst and G. E. Hinton, "Dynamic routing between capsules", NeurIPS 2017, procedure 1.
    """
    count, inputs, size = primary.shape
    categories, out = weights.shape[2:]
    even = primary.flatten(1) @ weights.reshape(inputs * size, -1) / categories
    vectors = squash(even.reshape(count, categories, out))
    couplings = primary.new_full((count, categories, inputs), 1 / categories)
    if routings == 1:
        return Capsules(vectors, couplings)
    votes = torch.bmm(primary.transpose(0, 1), weights.reshape(inputs, size, -1))
    votes = votes.reshape(inputs, count, categories, out).permute(1, 2, 0, 3).contiguous()
    with torch.no_grad():
        constant, agreement = votes.detach(), torch.zeros_like(couplings)
        guess = vectors.detach()
        for number in range(1, routings):
            agreement += (constant @ guess[..., None])[..., 0]
            couplings = agreement.softmax(1)
            if number < routings - 1:
                guess = squash((couplings[:, :, None] @ constant)[:, :, 0])
    return Capsules(squash((couplings[:, :, None] @ votes)[:, :, 0]), couplings)


def margin_loss(lengths: Tensor, labels: Tensor) -> Tensor:
    """Return the margin loss of every image (n,), from lengths (n, k) and categories (n,)."""
    present = functional.one_hot(labels, lengths.shape[1]).to(lengths.dtype)
    there = (PRESENT - lengths).clamp(min=0).square()
    not_there = (lengths - ABSENT).clamp(min=0).square()
    return (present * there + DOWN_WEIGHT * (1 - present) * not_there).sum(1)


class CapsuleNetwork(nn.Module):
    """Images to capsules of categories, and capsules back to images.

    Parameters
    ----------
    config : CapsuleConfig
        The shapes.
    """

    kind = "capsules"

    def __init__(self, config: CapsuleConfig) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.stem = _stem(config)
        channels = config.stem[-1][0]
        made = config.types * config.primary_size
        self.to_primary = nn.Conv2d(channels, made, config.primary_kernel, config.primary_stride)
        categories = len(config.categories)
        self.votes = nn.Parameter(
            torch.empty(config.primary, config.primary_size, categories, config.capsule_size)
        )
        # Even couplings of 1 / k over so many votes leave vectors of moderate length.
        nn.init.normal_(self.votes, std=categories / (config.primary * config.primary_size) ** 0.5)
        self.decoder = _decoder(categories * config.capsule_size, config)

    def forward(self, pixels: Tensor) -> Capsules:
        """Return the capsules of pixels between 0 and 1, (n, 1, side, side)."""
        maps = self.to_primary(self.stem(pixels))
        # Lengths and agreements lose too much in lower precision, and cost little.
        with torch.autocast(maps.device.type, enabled=False):
            config = self.config
            maps = maps.float().unflatten(1, (config.types, config.primary_size))
            primary = maps.permute(0, 1, 3, 4, 2).reshape(len(maps), config.primary, config.primary_size)
            return route(squash(primary), self.votes, config.routings)

    def draw(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Return the images (n, side, side), between 0 and 1, that one capsule of each draws.

        Parameters
        ----------
        vectors : Tensor, (n, categories, size)
            The categories' capsules.
        labels : Tensor of int, (n,)
            Whose capsule draws; all others are hidden.
        """
        shown = functional.one_hot(labels, vectors.shape[1])[..., None].to(vectors.dtype)
        return self.decoder((vectors * shown).flatten(1)).unflatten(1, (self.config.side, self.config.side))

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return ``loss`` and its parts, from images (n, side, side) of bytes and their categories."""
        pixels = as_pixels(images)
        capsules = self(pixels)
        margin = margin_loss(capsules.lengths, labels).mean()
        drawn = self.draw(capsules.vectors, labels).float()
        squares = (drawn - pixels[:, 0]).square().sum((1, 2)).mean()
        return {"loss": margin + RECONSTRUCTION * squares, "margin": margin, "reconstruction": squares}

    def scores(self, images: Tensor) -> Tensor:
        """Return how sure the network is of each category, (n, categories), from images (n, side, side) of bytes."""
        return self(as_pixels(images)).lengths

    def decision_parameters(self) -> int:
        """Return how many numbers decide about the category: all but the decoder's."""
        return _count(self) - _count(self.decoder)


class OrdinaryNetwork(nn.Module):
    """The same convolutions with an ordinary head, which has as many parameters as the votes of the capsules.

    Parameters
    ----------
    config : CapsuleConfig
        Of the capsule network to stand beside.
    """

    kind = "ordinary"

    def __init__(self, config: CapsuleConfig) -> None:
        super().__init__()
        config.check()
        self.config = config
        made, categories = config.types * config.primary_size, len(config.categories)
        flat = made * config.grid**2
        votes = config.primary * config.primary_size * categories * config.capsule_size
        units = max(1, round((votes - categories) / (flat + categories + 1)))
        self.layers = nn.Sequential(
            _stem(config),
            nn.Conv2d(config.stem[-1][0], made, config.primary_kernel, config.primary_stride),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(flat, units),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(units, categories),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (n, categories) of pixels between 0 and 1, (n, 1, side, side)."""
        return self.layers(pixels)

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return ``loss``, the cross-entropy in nats, from images (n, side, side) of bytes and their categories."""
        return {"loss": functional.cross_entropy(self(as_pixels(images)).float(), labels)}

    def scores(self, images: Tensor) -> Tensor:
        """Return the probability of each category, (n, categories), from images (n, side, side) of bytes."""
        return self(as_pixels(images)).float().softmax(1)

    def decision_parameters(self) -> int:
        """Return how many numbers decide about the category: all."""
        return _count(self)


Network = CapsuleNetwork | OrdinaryNetwork
_KINDS: Mapping[str, type[CapsuleNetwork] | type[OrdinaryNetwork]] = {
    "capsules": CapsuleNetwork,
    "ordinary": OrdinaryNetwork,
}


@dataclass(frozen=True)
class Schedule:
    """How a network is trained.

    Attributes
    ----------
    epochs : int
        How often to go through the images.
    batch_size : int
        Images in a batch.
    learning_rate : float
        The largest learning rate of Adam; it rises in the first third and falls to almost nothing.
    shift : int
        By how many pixels images are shifted at random.
    patience : int or None
        Stop after so many epochs without a smaller loss on what is held out.
    precision : {"auto", "float32", "bfloat16"}
        Of the convolutions; routing is always done in single precision.
    """

    epochs: int = 24
    batch_size: int = 128
    learning_rate: float = 3e-3
    shift: int = 2
    patience: int | None = None
    precision: Precision = "float32"

    def check(self) -> None:
        """Refuse what cannot be trained by.

        Raises
        ------
        InputError
            If a number is out of range.
        """
        if self.epochs < 1 or self.batch_size < 2:
            raise InputError(f"epochs {self.epochs}, batch_size {self.batch_size}: expected at least 1 and 2")
        if not 0 < self.learning_rate < float("inf"):
            raise InputError(f"learning_rate {self.learning_rate!r}: expected a number above 0")
        if self.shift < 0:
            raise InputError(f"shift {self.shift}: expected at least 0 pixels")


def train_network(
    kind: str,
    config: CapsuleConfig,
    images: GreyImages,
    schedule: Schedule | None = None,
    *,
    seed: int = 0,
    device: str | torch.device = "auto",
    checkpoint: Path | str | None = None,
    quiet: bool = False,
) -> tuple[Network, History]:
    """Train a capsule network, or the ordinary one that stands beside it, alike in all but the loss.

    Parameters
    ----------
    kind : {"capsules", "ordinary"}
        Which network.
    config : CapsuleConfig
        Its shapes.
    images : GreyImages
        The images. The epoch is chosen by the loss on what is held out; the test images are not looked at.
    schedule : Schedule, optional
        How to train.
    seed : int
        Seed of the weights, the order and the shifts. The same seed gives the same bits on a CPU.
    device : str or torch.device
        As for :func:`~interpretkit.training.resolve_device`.
    checkpoint : path, optional
        A folder in which the state is kept after every epoch, and from which training is resumed.
    quiet : bool
        Show no progress.

    Returns
    -------
    network, History
        The network with the weights of the best epoch, in evaluation mode.

    Raises
    ------
    InputError
        If an option cannot be used, or the checkpoint is of another training.
    """
    schedule = schedule or Schedule()
    schedule.check()
    if kind not in _KINDS:
        raise InputError(f"kind {kind!r}: expected one of {', '.join(_KINDS)}")
    if images.side != config.side or len(images.categories) != len(config.categories):
        raise InputError(
            f"images of side {images.side} in {len(images.categories)} categories: expected {config.side} px and "
            f"{len(config.categories)}, as the network has"
        )
    where = resolve_device(device)
    with own_draws(seed, "capsules", *further(), device=where):
        network = _KINDS[kind](config).to(where)
        if where.type == "cpu":
            # Batches in this order of memory are convolved faster.
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        batches = GreyBatches(
            images.train, images.train_labels, schedule.batch_size, shift=schedule.shift, seed=seed
        )
        trained = parallelize(_Trained(network))
        optimizer = torch.optim.Adam(
            trained.parameters(), lr=schedule.learning_rate, fused=where.type != "mps"
        )
        history = fit(
            trained,
            batches,
            lambda model, batch: model(batch["images"], batch["labels"]),
            optimizer=optimizer,
            epochs=schedule.epochs,
            scheduler=one_cycle(optimizer, schedule.learning_rate, schedule.epochs * len(batches)),
            scheduler_steps="batch",
            validate=lambda model: _validated(unwrap(model), images),
            monitor="held_out_loss",
            patience=schedule.patience,
            precision=schedule.precision,
            checkpoint=checkpoint,
            description="Capsules" if kind == "capsules" else "Ordinary network",
            quiet=quiet,
        )
    return network, history


class _Trained(nn.Module):
    """What is called in training: the losses of a batch, so that gradients are averaged over processes."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def get_extra_state(self) -> str:
        """Return what a checkpoint must share with the training that goes on from it."""
        return f"{self.network.kind} {self.network.config!r}"

    def set_extra_state(self, state: str) -> None:
        """Refuse the state of another training, which may have weights of the same shapes."""
        if state != self.get_extra_state():
            raise RuntimeError(f"{state}, not {self.get_extra_state()}")

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss and its parts."""
        return self.network.losses(images, labels)


def _validated(trained: nn.Module, images: GreyImages) -> dict[str, float]:
    assert isinstance(trained, _Trained)
    network, total, wrong = trained.network, 0.0, 0
    where = next(network.parameters()).device
    chunks = zip(images.held_out.split(_CHUNK), images.held_out_labels.split(_CHUNK), strict=True)
    for pixels, labels in chunks:
        pixels, labels = pixels.to(where), labels.to(where)
        scores = network.scores(pixels)
        wrong += int((scores.argmax(1) != labels).sum())
        if isinstance(network, CapsuleNetwork):
            total += float(margin_loss(scores, labels).sum())
        else:
            total += float(functional.nll_loss((scores + _TINY).log(), labels, reduction="sum"))
    count = len(images.held_out)
    return {"held_out_loss": total / count, "held_out_error": wrong / count}


@torch.no_grad()
def predict(network: Network, images: Tensor) -> NDArray[np.float32]:
    """Return how sure a network is of each category, (n, categories), from images (n, side, side) of bytes."""
    where = next(network.parameters()).device
    found = [network.scores(chunk.to(where)).float().cpu() for chunk in images.split(_CHUNK)]
    return torch.cat(found).numpy() if found else np.empty((0, len(network.config.categories)), np.float32)


def error_rate(network: Network, images: Tensor, labels: Tensor) -> float:
    """Return the share of images (n, side, side) that a network takes for another category."""
    return float(np.mean(predict(network, images).argmax(1) != labels.numpy()))


@dataclass(frozen=True, eq=False)
class PerturbedSheet:
    """What capsules draw when one of their numbers is moved.

    Attributes
    ----------
    images : ndarray of uint8, (n, side, side)
        The images read.
    labels, read : ndarray of int, (n,)
        Their categories, and what the network took them for.
    drawn : ndarray of float, (n, side, side)
        What the capsules draw as they are.
    moved : ndarray of float, (n, size, steps, side, side)
        What they draw when a number is moved by each of `steps`.
    steps : tuple of float
        By how much.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.intp]
    read: NDArray[np.intp]
    drawn: NDArray[np.float32]
    moved: NDArray[np.float32]
    steps: tuple[float, ...]

    def change(self) -> NDArray[np.float64]:
        """Return how much each number changes the drawing, (n, size): mean absolute change per step to the ends."""
        ends = self.moved[:, :, [0, -1]] - self.drawn[:, None, None]
        return np.abs(ends).mean((2, 3, 4)).astype(float)


@torch.no_grad()
def perturbed_sheet(
    network: CapsuleNetwork, images: Tensor, labels: Tensor, steps: tuple[float, ...] = PERTURBATIONS
) -> PerturbedSheet:
    """Return what the capsule of the category that was read draws when each of its numbers is moved.

    Parameters
    ----------
    network : CapsuleNetwork
        A trained network.
    images : Tensor of uint8, (n, side, side)
        Some images.
    labels : Tensor of int, (n,)
        Their categories.
    steps : tuple of float
        By how much a number is moved; −0.25 … 0.25 in steps of 0.05, as published.
    """
    where = next(network.parameters()).device
    capsules = network(as_pixels(images.to(where)))
    read = capsules.lengths.argmax(1)
    count, _, size = capsules.vectors.shape
    moves = torch.eye(size, device=where)[:, None] * torch.tensor(steps, device=where)[:, None]
    moved = []
    for row in range(count):
        own = capsules.vectors[row].expand(size, len(steps), -1, -1).clone()
        own[:, :, read[row]] += moves
        drawn = network.draw(own.flatten(0, 1), read[row].expand(size * len(steps)))
        moved.append(drawn.unflatten(0, (size, len(steps))))
    return PerturbedSheet(
        images.numpy(),
        labels.numpy(),
        read.cpu().numpy(),
        network.draw(capsules.vectors, read).cpu().numpy(),
        torch.stack(moved).cpu().numpy(),
        steps,
    )


@torch.no_grad()
def coupling_maps(network: CapsuleNetwork, images: Tensor) -> NDArray[np.float32]:
    """Return where the votes for each category come from, (n, categories, grid, grid).

    That is, at every position, the mean over the types of how much of the primary capsules goes to the category,
    weighted by their lengths: 1 where all that is there votes for it.
    """
    where = next(network.parameters()).device
    config, found = network.config, []
    for chunk in images.split(_CHUNK):
        pixels = as_pixels(chunk.to(where))
        couplings = network(pixels).couplings.unflatten(2, (config.types, config.grid, config.grid))
        maps = network.to_primary(network.stem(pixels)).unflatten(1, (config.types, config.primary_size))
        lengths = squash(maps.movedim(2, -1)).square().sum(-1).sqrt()[:, None]
        found.append(((couplings * lengths).sum(2) / (lengths.sum(2) + _TINY)).cpu())
    return torch.cat(found).numpy()


def coupling_entropy(network: CapsuleNetwork, images: Tensor) -> float:
    """Return the mean entropy of the couplings of a primary capsule, in nats; log of the categories if all is even."""
    where = next(network.parameters()).device
    total, count = 0.0, 0
    with torch.no_grad():
        for chunk in images.split(_CHUNK):
            couplings = network(as_pixels(chunk.to(where))).couplings
            entropy = -(couplings * (couplings + _TINY).log()).sum(1)
            total += float(entropy.sum())
            count += entropy.numel()
    return total / count


def save_network(path: Path | str, network: Network, about: Mapping[str, Any], *, half: bool = False) -> None:
    """Write a network as safetensors; `about` says in plain values how it was trained."""
    config = {"kind": network.kind, "config": asdict(network.config), "about": dict(about)}
    save_model(path, network, config, half=half)


def load_network(path: Path | str, device: str | torch.device = "cpu") -> tuple[Network, dict[str, Any]]:
    """Return the network that :func:`save_network` wrote, in evaluation mode, and how it was trained.

    Raises
    ------
    InputError
        If the file cannot be used.
    """
    content = load_config(path)
    if content.get("kind") not in _KINDS:
        raise InputError(f"{path}: not a capsule network; expected a file of cnn train capsnet")

    def build(config: dict[str, Any]) -> Network:
        plain = dict(config["config"])
        plain["categories"] = tuple(plain["categories"])
        plain["stem"] = tuple(tuple(layer) for layer in plain["stem"])
        plain["decoder"] = tuple(plain["decoder"])
        return _KINDS[config["kind"]](CapsuleConfig(**plain))

    return load_model(path, build, resolve_device(device)), dict(content.get("about", {}))


def trained_examples() -> dict[str, tuple[Network, dict[str, Any]]]:
    """Return the networks that come along, trained alike on MNIST by the size for a CPU, and how they were trained.

    Returns
    -------
    dict
        ``capsules`` with three routings and ``ordinary``, on the CPU.
    """
    here = Path(__file__)
    return {
        "capsules": load_network(here.with_name("capsnet-example.safetensors")),
        "ordinary": load_network(here.with_name("capsnet-example-ordinary.safetensors")),
    }


def _stem(config: CapsuleConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    before = 1
    for channels, kernel, stride in config.stem:
        layers.append(nn.Conv2d(before, channels, kernel, stride, bias=not config.normalise))
        if config.normalise:
            layers.append(nn.BatchNorm2d(channels))
        layers.append(nn.ReLU())
        before = channels
    return nn.Sequential(*layers)


def _decoder(inputs: int, config: CapsuleConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    for units in config.decoder:
        layers += [nn.Linear(inputs, units), nn.ReLU()]
        inputs = units
    return nn.Sequential(*layers, nn.Linear(inputs, config.side**2), nn.Sigmoid())


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
