"""InfoGAN: a generator whose codes can be told again from its images, and so come to stand for what varies in them.

A generator draws images from noise, a categorical code and continuous codes. A critic tells them from real images,
and on the same trunk a second head tells the codes: log Q(c|x) + H(c), in nats, is a lower bound of the mutual
information of codes and images, which generator and head both raise. The head then reads the codes of real images too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from cnn_interp.learning.grey_images import GreyBatches, as_pixels
from interpretkit.errors import InputError
from interpretkit.training import (
    History,
    fit,
    load_config,
    load_model,
    own_draws,
    resolve_device,
    save_model,
    torch_generator,
)
from interpretkit.training.distributed import further, parallelize, unwrap
from interpretkit.training.precision import Precision
from interpretkit.variational import gaussian_log_density

_CHUNK = 500
# Images drawn after each epoch, to see how far the codes can be told.
_BOUND_ON = 300
_LEAK = 0.1
# Standard deviations that the head may give: between these logs of variances.
_LOG_VARIANCES = (-8.0, 2.0)
# The entropy of a code spread evenly over −1 … 1, in nats.
CONTINUOUS_ENTROPY = math.log(2)


@dataclass(frozen=True)
class InfoGANConfig:
    """Everything but the weights.

    Attributes
    ----------
    side : int
        Height and width of the images in pixels, a multiple of 4.
    categories : int
        Values of the categorical code.
    continuous : int
        Continuous codes, each spread evenly over −1 … 1.
    noise : int
        Numbers of noise that no head tells.
    width : int
        Channels of the convolutions next to the image; twice as many deeper.
    units : int
        Units of the linear layers.
    """

    side: int = 28
    categories: int = 10
    continuous: int = 2
    noise: int = 62
    width: int = 64
    units: int = 1024

    @property
    def inputs(self) -> int:
        """Numbers that the generator draws from."""
        return self.noise + self.categories + self.continuous

    def check(self) -> None:
        """Refuse what makes no network.

        Raises
        ------
        InputError
            If a number is out of range.
        """
        if self.side < 8 or self.side % 4:
            raise InputError(f"side {self.side}: expected a multiple of 4, at least 8")
        if self.categories < 2:
            raise InputError(f"categories {self.categories}: expected at least 2")
        if self.continuous < 0 or self.noise < 1:
            raise InputError(f"continuous {self.continuous}, noise {self.noise}: expected at least 0 and 1")


# The networks of the article, and networks of a quarter of their widths.
SIZES: Mapping[str, Mapping[str, int]] = {
    "cpu": {"width": 16, "units": 256},
    "paper": {"width": 64, "units": 1024},
}


# Sprites differ in shape and in four more ways. With more noise, that alone would do to draw them all.
SPRITE_CODES: Mapping[str, int] = {"categories": 3, "continuous": 4, "noise": 2}


class Codes(NamedTuple):
    """What images are drawn from.

    `category`: (n,) whole numbers. `continuous`: (n, c) between −1 and 1. `noise`: (n, m), standard normal.
    """

    category: Tensor
    continuous: Tensor
    noise: Tensor


class Told(NamedTuple):
    """What the head tells of images.

    `logits`: (n, k), of the categories. `mean`, `log_variance`: (n, c), Gaussians of the continuous codes.
    """

    logits: Tensor
    mean: Tensor
    log_variance: Tensor


class Generator(nn.Module):
    """Codes to images.

    Parameters
    ----------
    config : InfoGANConfig
        The shapes.
    """

    def __init__(self, config: InfoGANConfig) -> None:
        super().__init__()
        self.config = config
        width, quarter = config.width, config.side // 4
        self.layers = nn.Sequential(
            nn.Linear(config.inputs, config.units, bias=False),
            nn.BatchNorm1d(config.units),
            nn.ReLU(),
            nn.Linear(config.units, 2 * width * quarter**2, bias=False),
            nn.BatchNorm1d(2 * width * quarter**2),
            nn.ReLU(),
            nn.Unflatten(1, (2 * width, quarter, quarter)),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, 1, 4, 2, 1),
            nn.Sigmoid(),
        )

    def forward(self, codes: Codes) -> Tensor:
        """Return pixels between 0 and 1, (n, 1, side, side)."""
        known = functional.one_hot(codes.category, self.config.categories).to(codes.noise.dtype)
        return self.layers(torch.cat([codes.noise, known, codes.continuous], 1))


class Critic(nn.Module):
    """Images to a logit, positive for real ones, and to the codes that they seem to be drawn from.

    Parameters
    ----------
    config : InfoGANConfig
        The shapes.

    Notes
    -----
    Batch normalisation, as in the article, sees batches of real and of drawn images apart. That is what keeps the
    generator from drawing one image for each value of the code: such batches have no variance. Spectral normalisation
    in its place let it, and the noise had no effect. The statistics that are kept are those of real images.
    """

    def __init__(self, config: InfoGANConfig) -> None:
        super().__init__()
        self.config = config
        width, quarter = config.width, config.side // 4
        self.trunk = nn.Sequential(
            nn.Conv2d(1, width, 4, 2, 1),
            nn.LeakyReLU(_LEAK),
            nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(_LEAK),
            nn.Flatten(),
            nn.Linear(2 * width * quarter**2, config.units, bias=False),
            nn.BatchNorm1d(config.units),
            nn.LeakyReLU(_LEAK),
        )
        self.judge = nn.Linear(config.units, 1)
        self.head = nn.Sequential(
            nn.Linear(config.units, 128),
            nn.LeakyReLU(_LEAK),
            nn.Linear(128, config.categories + config.continuous),
        )
        # Learned beside the rest, which it does not move: how far off the told continuous codes are.
        self.spread = nn.Linear(config.units, config.continuous)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Told]:
        """Return logits (n,) and what is told of the codes, from pixels (n, 1, side, side)."""
        features = self.trunk(pixels)
        sizes = [self.config.categories, self.config.continuous]
        logits, mean = self.head(features).float().split(sizes, 1)
        spread = self.spread(features.detach()).float()
        told = Told(logits, mean, spread.clamp(*_LOG_VARIANCES))
        return self.judge(features)[:, 0].float(), told


class InfoGAN(nn.Module):
    """Generator and critic.

    Parameters
    ----------
    config : InfoGANConfig
        The shapes.
    """

    def __init__(self, config: InfoGANConfig) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.generator = Generator(config)
        self.critic = Critic(config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def codes(self, count: int, generator: torch.Generator | None = None) -> Codes:
        """Return codes drawn at random; from torch's global generator by default."""
        config = self.config
        where = self.device if generator is None else generator.device
        category = torch.randint(config.categories, (count,), generator=generator, device=where)
        continuous = 2 * torch.rand(count, config.continuous, generator=generator, device=where) - 1
        noise = torch.randn(count, config.noise, generator=generator, device=where)
        return Codes(*(part.to(self.device) for part in (category, continuous, noise)))

    @torch.no_grad()
    def draw(self, codes: Codes) -> Tensor:
        """Return images (n, side, side) of bytes, 0 … 255, on the CPU."""
        found = []
        for rows in torch.arange(len(codes.category)).split(_CHUNK):
            part = Codes(*(tensor[rows.to(tensor.device)].to(self.device) for tensor in codes))
            found.append((255 * self.generator(part)[:, 0].float()).round().to(torch.uint8).cpu())
        return torch.cat(found)

    @torch.no_grad()
    def tell(self, images: Tensor) -> Told:
        """Return what the head tells of images (n, side, side) of bytes, real or drawn, on the CPU.

        Raises
        ------
        InputError
            If the images are of another size.
        """
        if images.ndim != 3 or tuple(images.shape[1:]) != (self.config.side,) * 2:
            raise InputError(
                f"images: shape {tuple(images.shape)}; the network knows {self.config.side} × {self.config.side} px"
            )
        found = [self.critic(as_pixels(chunk.to(self.device)))[1] for chunk in images.split(_CHUNK)]
        return Told(*(torch.cat(parts).cpu() for parts in zip(*found, strict=True)))


class Contrast(nn.Module):
    """Two images to the code that they were drawn from in common, as all others were drawn anew.

    To be told which, each code must change images in a way of its own. The bound of the information does not ask for
    that: it is as large where two codes stand for mixtures of two things.

    Parameters
    ----------
    config : InfoGANConfig
        The shapes.

    References
    ----------
    Z. Lin, K. Thekumparampil, G. Fanti and S. Oh, "InfoGAN-CR and ModelCentrality: Self-supervised model training and
    selection for disentangling GANs", ICML 2020.
    """

    def __init__(self, config: InfoGANConfig) -> None:
        super().__init__()
        width, quarter = config.width, config.side // 4
        self.layers = nn.Sequential(
            nn.Conv2d(2, width, 4, 2, 1),
            nn.LeakyReLU(_LEAK),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.LeakyReLU(_LEAK),
            nn.Flatten(),
            nn.Linear(2 * width * quarter**2, config.units),
            nn.LeakyReLU(_LEAK),
            nn.Linear(config.units, 1 + config.continuous),
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return logits (n, 1 + c) of the categorical code and each continuous one, for pixels (n, 1, side, side)."""
        return self.layers(torch.cat([first, second], 1)).float()


def paired_codes(model: InfoGAN, count: int) -> tuple[Codes, Codes, Tensor]:
    """Return codes of pairs of images with one code in common, and which: 0 the category, i the i-th continuous."""
    first, second = model.codes(count), model.codes(count)
    shared = torch.randint(1 + model.config.continuous, (count,), device=first.category.device)
    category = torch.where(shared == 0, first.category, second.category)
    common = shared[:, None] == torch.arange(1, 1 + model.config.continuous, device=shared.device)
    continuous = torch.where(common, first.continuous, second.continuous)
    return first, Codes(category, continuous, second.noise), shared


def code_log_density(codes: Codes, told: Told) -> tuple[Tensor, Tensor]:
    """Return log Q of the categorical code, (n,), and of each continuous code, (n, c), in nats."""
    category = -functional.cross_entropy(told.logits, codes.category, reduction="none")
    return category, gaussian_log_density(codes.continuous, told.mean, told.log_variance)


class Information(NamedTuple):
    """Lower bounds of the mutual information of codes and images, in nats, and the entropies that bound it above.

    `category`: of the categorical code, at most `category_entropy`. `continuous`: of each continuous code. A continuous
    code holds ever more information the better it can be told, so that its entropy, log 2, is no upper bound.
    """

    category: float
    category_entropy: float
    continuous: tuple[float, ...]
    continuous_entropy: float


@torch.no_grad()
def information(model: InfoGAN, *, count: int = 5000, seed: int = 0) -> Information:
    """Return the bound E log Q(c|x) + H(c) on images drawn anew.

    Parameters
    ----------
    model : InfoGAN
        Trained.
    count : int
        How many images are drawn.
    seed : int
        Seed of their codes.
    """
    codes = model.codes(count, torch_generator(seed, "information"))
    critic, was_training = model.critic, model.critic.training
    categories, continuous = [], []
    try:
        # As in training, drawn images are normalised by their own statistics, which leave no trace.
        critic.train()
        for rows in torch.arange(count).split(_CHUNK):
            part = Codes(*(tensor[rows.to(tensor.device)] for tensor in codes))
            passing = {name: buffer.clone() for name, buffer in critic.named_buffers()}
            _, told = functional_call(critic, passing, (model.generator(part),))
            for found, values in zip((categories, continuous), code_log_density(part, told), strict=True):
                found.append(values.cpu())
    finally:
        critic.train(was_training)
    entropy = math.log(model.config.categories)
    return Information(
        float(torch.cat(categories).mean()) + entropy,
        entropy,
        tuple((torch.cat(continuous).mean(0) + CONTINUOUS_ENTROPY).tolist()),
        CONTINUOUS_ENTROPY,
    )


@dataclass(frozen=True)
class Schedule:
    """How an InfoGAN is trained.

    Attributes
    ----------
    epochs : int
        How often to go through the images. The article has 5000 batches of 128, which is 11 passes of MNIST.
    batch_size : int
        Images in a batch.
    generator_rate, critic_rate : float
        Learning rates of Adam, as published.
    weight, continuous_weight : float
        λ of the information, of the categorical code and of the continuous ones.
    smoothing : float
        How far the critic's answer to real images stays below 1 (one-sided label smoothing); the article has none.
    affine : float
        How strongly every image, real or drawn, is turned (by up to 20 degrees times this), sheared (0.3), scaled (0.2
        more or less) and shifted (by a tenth of its side) at random before the critic sees it. A code that must be told
        from images so changed cannot stand for slant or place; at 0, as in the article, it may.
    pairing : float
        Weight of the information that the categories told of two such changes of one real image hold of each other.
        The article has none: a code may then stand for anything in drawn images, and is read from real ones by luck.
        Needs `affine`, without which the two are the same image.
    contrast : float
        Weight of telling which one code two drawn images have in common; see :class:`Contrast`. The article has none,
        and nothing in it keeps two continuous codes from standing for mixtures of the same two things.
    precision : {"auto", "float32", "bfloat16"}
        Of the networks; the losses are computed in single precision.
    """

    epochs: int = 11
    batch_size: int = 128
    generator_rate: float = 1e-3
    critic_rate: float = 2e-4
    weight: float = 1.0
    continuous_weight: float = 1.0
    smoothing: float = 0.0
    affine: float = 0.5
    pairing: float = 1.0
    contrast: float = 0.0
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
        for name in ("generator_rate", "critic_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} {getattr(self, name)!r}: expected a number above 0")
        for name in ("weight", "continuous_weight", "pairing", "contrast"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} {getattr(self, name)!r}: expected a number of at least 0")
        if not 0 <= self.smoothing < 0.5:
            raise InputError(f"smoothing {self.smoothing!r}: expected 0 to 0.5")
        if not 0 <= self.affine <= 2:
            raise InputError(f"affine {self.affine!r}: expected 0 to 2")
        if self.pairing and not self.affine:
            raise InputError(f"pairing {self.pairing!r}: expected 0 without affine changes")


def sprite_schedule(**chosen: Any) -> Schedule:
    """Return how an InfoGAN is trained on images whose place, size and turn are what codes shall come to stand for.

    The critic sees such images as they are: a code that must be told from images moved, scaled and turned at random
    can stand for none of the three. Continuous codes weigh ten times as much, since four of them stand for more than
    the category does.

    Parameters
    ----------
    chosen
        What else is chosen of :class:`Schedule`.
    """
    return Schedule(**{"affine": 0.0, "pairing": 0.0, "continuous_weight": 10.0, **chosen})


def train_infogan(
    images: Tensor,
    config: InfoGANConfig,
    schedule: Schedule | None = None,
    *,
    seed: int = 0,
    device: str | torch.device = "auto",
    checkpoint: Path | str | None = None,
    quiet: bool = False,
) -> tuple[InfoGAN, History]:
    """Train an InfoGAN on images; no label is looked at.

    Parameters
    ----------
    images : Tensor of uint8, (n, side, side)
        Grey images.
    config : InfoGANConfig
        The shapes.
    schedule : Schedule, optional
        How to train.
    seed : int
        Seed of the weights, the order and all draws. The same seed gives the same bits on a CPU.
    device : str or torch.device
        As for :func:`~interpretkit.training.resolve_device`.
    checkpoint : path, optional
        A folder in which the state is kept after every epoch, and from which training is resumed.
    quiet : bool
        Show no progress.

    Returns
    -------
    InfoGAN, History
        In evaluation mode, with the losses through the epochs in nats.

    Raises
    ------
    InputError
        If the images or an option cannot be used, or the checkpoint is of another training.

    Notes
    -----
    Both players move in the same step, each by a loss in which the other's weights are constants, with one Adam of two
    groups.

    References
    ----------
    X. Chen, Y. Duan, R. Houthooft, J. Schulman, I. Sutskever and P. Abbeel, "InfoGAN: Interpretable representation
    learning by information maximizing generative adversarial nets", NeurIPS 2016.
    """
    schedule = schedule or Schedule()
    schedule.check()
    if images.dtype != torch.uint8 or images.ndim != 3 or images.shape[1:] != (config.side, config.side):
        raise InputError(
            f"images: {images.dtype} of shape {tuple(images.shape)}; expected bytes of shape "
            f"(n, {config.side}, {config.side})"
        )
    if len(images) < schedule.batch_size:
        raise InputError(f"images: {len(images)}; expected at least a batch of {schedule.batch_size}")
    where = resolve_device(device)
    with own_draws(seed, "infogan", *further(), device=where):
        model = InfoGAN(config).to(where)
        batches = _WholeBatches(
            images,
            torch.zeros(len(images), dtype=torch.uint8),
            schedule.batch_size,
            seed=seed,
        )
        player = _Trained(model, schedule).to(where)
        trained = parallelize(player)
        optimizer = torch.optim.Adam(
            [
                {"params": list(model.generator.parameters()), "lr": schedule.generator_rate},
                {"params": list(model.critic.parameters()), "lr": schedule.critic_rate},
                *(
                    [{"params": list(player.contrast.parameters()), "lr": schedule.generator_rate}]
                    if player.contrast
                    else []
                ),
            ],
            betas=(0.5, 0.999),
            fused=where.type != "mps",
        )
        history = fit(
            trained,
            batches,
            lambda player, batch: player(batch["images"]),
            optimizer=optimizer,
            epochs=schedule.epochs,
            validate=lambda player: _bounds(unwrap(player)),
            precision=schedule.precision,
            checkpoint=checkpoint,
            description="InfoGAN",
            quiet=quiet,
        )
    return model, history


class _WholeBatches(GreyBatches):
    """Batches of one size only; what is left over comes in another epoch."""

    def __len__(self) -> int:
        return self.n // self.batch_size

    def __iter__(self) -> Any:
        for number, batch in enumerate(super().__iter__()):
            if number < len(self):
                yield batch


class _Trained(nn.Module):
    """Both players' losses, added: the other's weights are constants in each, so that gradients never mix."""

    def __init__(self, model: InfoGAN, schedule: Schedule) -> None:
        super().__init__()
        self.model = model
        self.schedule = schedule
        self.contrast = Contrast(model.config) if schedule.contrast else None

    def get_extra_state(self) -> str:
        """Return what a checkpoint must share with the training that goes on from it."""
        plain = {name: value for name, value in asdict(self.schedule).items() if name != "epochs"}
        return f"{self.model.config!r} {plain!r}"

    def set_extra_state(self, state: str) -> None:
        """Refuse the state of another training, which may have weights of the same shapes."""
        if state != self.get_extra_state():
            raise RuntimeError(f"{state}, not {self.get_extra_state()}")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return ``loss``, which is the sum of the two, and its parts, from real images (n, side, side) of bytes."""
        model, schedule = self.model, self.schedule
        critic = model.critic
        pixels = as_pixels(images)
        codes = model.codes(len(images))
        drawn = model.generator(codes)
        if schedule.affine:
            grids = random_affine_grids(2 * len(images), pixels, schedule.affine).chunk(2)
            pixels, drawn = (
                functional.grid_sample(some.float(), grid, align_corners=False)
                for some, grid in zip((pixels, drawn), grids, strict=True)
            )
        real, read = critic(pixels)
        # Drawn images leave no trace in the statistics with which real ones will be read.
        passing = {name: buffer.clone() for name, buffer in critic.named_buffers()}
        seen, told = functional_call(critic, passing, (drawn.detach(),))
        right = schedule.smoothing * functional.softplus(real) + (
            1 - schedule.smoothing
        ) * functional.softplus(-real)
        judged = right.mean() + functional.softplus(seen).mean()
        missed = self._missed(codes, told)
        fixed = {name: weight.detach() for name, weight in critic.named_parameters()}
        passing = {name: buffer.clone() for name, buffer in critic.named_buffers()}
        fooled, told = functional_call(critic, {**fixed, **passing}, (drawn,))
        drawing = functional.softplus(-fooled).mean()
        losses = {"critic": judged, "generator": drawing, "missed_information": missed}
        loss = judged + missed + drawing + self._missed(codes, told)
        if schedule.pairing:
            grids = random_affine_grids(len(images), pixels, schedule.affine)
            again = functional.grid_sample(as_pixels(images).float(), grids, align_corners=False)
            passing = {name: buffer.clone() for name, buffer in critic.named_buffers()}
            _, other = functional_call(critic, passing, (again,))
            losses["missed_pairing"] = -paired_information(read.logits, other.logits)
            loss = loss + schedule.pairing * losses["missed_pairing"]
        if self.contrast is not None:
            first, second, shared = paired_codes(model, len(images) // 2)
            seen = self.contrast(model.generator(first), model.generator(second))
            losses["missed_contrast"] = functional.cross_entropy(seen, shared)
            loss = loss + schedule.contrast * losses["missed_contrast"]
        return {"loss": loss, **losses}

    def _missed(self, codes: Codes, told: Told) -> Tensor:
        """Return −E log Q, weighted; continuous codes as Gaussians of variance 1."""
        schedule = self.schedule
        unit = Told(told.logits, told.mean, torch.zeros_like(told.log_variance))
        category, continuous = code_log_density(codes, unit)
        missed = -(schedule.weight * category.mean() + schedule.continuous_weight * continuous.sum(1).mean())
        _, spread = code_log_density(codes, Told(told.logits, told.mean.detach(), told.log_variance))
        # Worth nothing to either player: it moves the spreads alone, and leaves the loss as it is.
        return missed + (spread.detach() - spread).sum(1).mean()


def paired_information(first: Tensor, second: Tensor) -> Tensor:
    """Return the mutual information of the categories told of two views of the same images, in nats: a scalar.

    It is largest, log k, where both views are told alike, surely, and all k categories equally often.

    Parameters
    ----------
    first, second : Tensor, (n, k)
        Logits. A row of the one and the same row of the other belong to one image.

    References
    ----------
    X. Ji, J. F. Henriques and A. Vedaldi, "Invariant information clustering for unsupervised image classification and
    segmentation", ICCV 2019.
    """
    joint = first.softmax(1).T @ second.softmax(1) / len(first)
    joint = ((joint + joint.T) / 2).clamp_min(torch.finfo(joint.dtype).tiny)
    alone = joint.sum(1).log()
    return (joint * (joint.log() - alone[:, None] - alone[None])).sum()


def random_affine_grids(count: int, like: Tensor, strength: float) -> Tensor:
    """Return where random affine changes take their pixels from, (count, h, w, 2), for ``grid_sample``.

    Parameters
    ----------
    count : int
        How many.
    like : Tensor, (n, c, h, w)
        Gives the size of the images, and the device.
    strength : float
        See :class:`Schedule`.
    """
    turn, shear, wide, high, right, down = strength * (2 * torch.rand(6, count, device=like.device) - 1)
    turn, shear, wide, high = math.radians(20) * turn, 0.3 * shear, 1 + 0.2 * wide, 1 + 0.2 * high
    cosine, sine = turn.cos(), turn.sin()
    first = torch.stack([cosine * wide, (cosine * shear - sine) * high, 0.2 * right], 1)
    second = torch.stack([sine * wide, (sine * shear + cosine) * high, 0.2 * down], 1)
    shape = [count, 1, *like.shape[2:]]
    return functional.affine_grid(torch.stack([first, second], 1), shape, align_corners=False)


def _bounds(trained: nn.Module) -> dict[str, float]:
    assert isinstance(trained, _Trained)
    found = information(trained.model, count=_BOUND_ON)
    return {"category_information": found.category, "continuous_information": sum(found.continuous)}


# ------------------------------------------------------------------------------------------ what codes stand for


@dataclass(frozen=True, eq=False)
class Assignment:
    """Which category of the code stands for which label.

    Attributes
    ----------
    counts : ndarray of int, (codes, labels)
        How many images have each code and label.
    label_of : ndarray of int, (codes,)
        The label of each code; −1 for a code that is left over.
    accuracy : float
        The share of the images whose code stands for their label.
    """

    counts: NDArray[np.intp]
    label_of: NDArray[np.intp]
    accuracy: float

    def merged(self) -> list[int]:
        """Return the labels that no code holds mainly: most images with their code have another label."""
        held = set(self.counts.argmax(1)[self.counts.sum(1) > 0].tolist())
        return [label for label in range(self.counts.shape[1]) if label not in held]

    def read(self, codes: ArrayLike, labels: ArrayLike) -> float:
        """Return the share of other images (m,) whose code stands for their label."""
        return float(np.mean(self.label_of[np.asarray(codes, dtype=np.intp)] == np.asarray(labels)))


def best_assignment(codes: ArrayLike, labels: ArrayLike, n_codes: int, n_labels: int) -> Assignment:
    """Return the pairs of codes and labels, each used once, with which most images are right.

    Parameters
    ----------
    codes, labels : array_like of int, (n,)
        Of the same images.
    n_codes, n_labels : int
        How many there are of each.

    Raises
    ------
    InputError
        If the two differ in length or there is no image.

    References
    ----------
    H. W. Kuhn, "The Hungarian method for the assignment problem", 1955; here by scipy.
    """
    from scipy.optimize import linear_sum_assignment

    first, second = np.asarray(codes, dtype=np.intp), np.asarray(labels, dtype=np.intp)
    if first.shape != second.shape or first.ndim != 1 or len(first) == 0:
        raise InputError(f"codes {first.shape}, labels {second.shape}: expected as many, and at least one")
    counts = np.zeros((n_codes, n_labels), dtype=np.intp)
    np.add.at(counts, (first, second), 1)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    label_of = np.full(n_codes, -1, dtype=np.intp)
    label_of[rows] = columns
    return Assignment(counts, label_of, float(counts[rows, columns].sum() / len(first)))


@dataclass(frozen=True, eq=False)
class Coverage:
    """Which categories an independent classifier sees in drawn images.

    Attributes
    ----------
    shares : ndarray of float, (labels,)
        The share of the images that it takes for each.
    expected : ndarray of float, (labels,)
        The shares in the data.
    sure : float
        The share of the images of which it is at least 90 % sure.
    by_code : ndarray of float, (codes, labels)
        The shares among the images of each category of the code.
    """

    shares: NDArray[np.float64]
    expected: NDArray[np.float64]
    sure: float
    by_code: NDArray[np.float64]

    @property
    def covered(self) -> int:
        """How many categories are drawn at least a tenth as often as they stand in the data."""
        return int(np.sum((self.shares >= self.expected / 10) & (self.expected > 0)))

    @property
    def divergence(self) -> float:
        """The divergence of the shares drawn from those in the data, in nats."""
        there = self.shares > 0
        with np.errstate(divide="ignore"):
            return float(np.sum(self.shares[there] * np.log(self.shares[there] / self.expected[there])))

    @property
    def purity(self) -> float:
        """The mean over the codes of the share of the category that most of their images are taken for."""
        return float(self.by_code.max(1).mean())


def mode_coverage(
    model: InfoGAN, probabilities: Any, labels: ArrayLike, *, count: int = 10_000, seed: int = 0
) -> Coverage:
    """Count the categories that a generator draws, by a classifier that had no part in its training.

    Parameters
    ----------
    model : InfoGAN
        Trained.
    probabilities : callable
        From images (n, side, side) of bytes to probabilities (n, labels).
    labels : array_like of int, (m,)
        Those of the data, whose shares are expected.
    count : int
        How many images are drawn.
    seed : int
        Seed of their codes.
    """
    codes = model.codes(count, torch_generator(seed, "coverage"))
    seen = np.asarray(probabilities(model.draw(codes)))
    taken, category = seen.argmax(1), codes.category.cpu().numpy()
    by_code = np.zeros((model.config.categories, seen.shape[1]))
    np.add.at(by_code, (category, taken), 1)
    given = np.bincount(np.asarray(labels, dtype=np.intp), minlength=seen.shape[1])
    return Coverage(
        np.bincount(taken, minlength=seen.shape[1]) / count,
        given / given.sum(),
        float(np.mean(seen.max(1) >= 0.9)),
        by_code / by_code.sum(1, keepdims=True).clip(min=1),
    )


def code_columns(told: Told) -> tuple[NDArray[np.float64], list[bool]]:
    """Return codes of images as columns (n, 1 + c), the category and the means, and which of them are discrete."""
    category = told.logits.argmax(1).double()[:, None]
    columns = torch.cat([category, told.mean.double()], 1).numpy()
    return columns, [True] + [False] * told.mean.shape[1]


def traversals(
    model: InfoGAN,
    *,
    steps: ArrayLike = (-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2),
    rows: int = 5,
    seed: int = 0,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return what is drawn when one code changes and the noise stays.

    Parameters
    ----------
    model : InfoGAN
        Trained.
    steps : array_like of float, (s,)
        Values of a continuous code; beyond −1 … 1 the generator has not been trained.
    rows : int
        Draws of the noise.
    seed : int
        Seed of them.

    Returns
    -------
    ndarray of uint8, (rows, categories, side, side)
        Every category with the same noise, continuous codes at 0.
    ndarray of uint8, (continuous, categories, s, side, side)
        Every continuous code through its steps, for every category, with the same noise.
    """
    config = model.config
    values = torch.as_tensor(np.asarray(steps, dtype=np.float32))
    side, kinds, count = config.side, config.categories, len(values)
    noise = torch.randn(rows, config.noise, generator=torch_generator(seed, "traversals"))
    by_category = model.draw(
        Codes(
            torch.arange(kinds).repeat(rows),
            torch.zeros(rows * kinds, config.continuous),
            noise.repeat_interleave(kinds, 0),
        )
    )
    moved = []
    for code in range(config.continuous):
        continuous = torch.zeros(kinds * count, config.continuous)
        continuous[:, code] = values.repeat(kinds)
        category = torch.arange(kinds).repeat_interleave(count)
        moved.append(model.draw(Codes(category, continuous, noise[:1].expand(kinds * count, -1))))
    by_code = torch.stack(moved).numpy() if moved else np.empty((0, kinds * count, side, side), np.uint8)
    return (
        by_category.numpy().reshape(rows, kinds, side, side),
        by_code.reshape(config.continuous, kinds, count, side, side),
    )


def save_infogan(path: Path | str, model: InfoGAN, about: Mapping[str, Any], *, half: bool = False) -> None:
    """Write an InfoGAN as safetensors; `about` says in plain values how it was trained."""
    save_model(
        path, model, {"kind": "infogan", "config": asdict(model.config), "about": dict(about)}, half=half
    )


def trained_example(device: str | torch.device = "cpu") -> tuple[InfoGAN, dict[str, Any]]:
    """Return the InfoGAN that comes along, trained on MNIST by the size for a CPU, and how it was trained."""
    return load_infogan(Path(__file__).with_name("infogan-example.safetensors"), device)


def load_infogan(path: Path | str, device: str | torch.device = "cpu") -> tuple[InfoGAN, dict[str, Any]]:
    """Return the InfoGAN that :func:`save_infogan` wrote, in evaluation mode, and how it was trained.

    Raises
    ------
    InputError
        If the file cannot be used.
    """
    content = load_config(path)
    if content.get("kind") != "infogan":
        raise InputError(f"{path}: not an InfoGAN; expected a file of cnn train infogan")
    model = load_model(
        path, lambda config: InfoGAN(InfoGANConfig(**config["config"])), resolve_device(device)
    )
    return model, dict(content.get("about", {}))
