"""Variational auto-encoders that learn disentangled codes of images, trained by the core's loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from interpretkit.errors import InputError
from interpretkit.training import (
    History,
    TensorBatches,
    derive_seed,
    fit,
    load_model,
    own_draws,
    resolve_device,
    save_model,
)
from interpretkit.variational import (
    BetaTCVAE,
    FactorVAE,
    Objective,
    Posterior,
    State,
    draw_codes,
    reconstruction_loss,
)

Network = Literal["coarse", "published"]

_CHUNK = 512  # images at a time outside training
_SQUARE = 4  # side in pixels of what the coarse network sees as one


@dataclass(frozen=True)
class AutoencoderConfig:
    """Everything but the weights.

    Attributes
    ----------
    height, width : int
        Height and width of the images, in pixels; multiples of 16.
    channels : int
        1 (grey) or 3 (colours).
    latent : int
        The number of codes.
    network : {"coarse", "published"}
        ``published``: four convolutions and two linear layers on either side, as in Locatello et al. (2019).
        ``coarse``: two hidden linear layers on either side, which see and draw squares of 4 × 4 pixels; some
        twenty-five times as fast on a CPU.
    white : int
        The value of a white pixel in images of whole numbers.
    """

    height: int = 64
    width: int = 64
    channels: int = 1
    latent: int = 10
    network: Network = "coarse"
    white: int = 255


class Autoencoder(nn.Module):
    """Images to Gaussian codes and back.

    Parameters
    ----------
    config : AutoencoderConfig
        The shapes.

    Raises
    ------
    InputError
        If a shape cannot be served.
    """

    history: History | None = None
    """How the training went; not saved."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        if config.network not in get_args(Network):
            raise InputError(f"network {config.network!r}: expected one of {', '.join(get_args(Network))}")
        if config.latent < 1:
            raise InputError(f"latent {config.latent}: expected at least 1")
        sides = (config.height, config.width)
        if min(sides) < 16 or any(side % 16 for side in sides):
            raise InputError(f"images of {sides[0]} × {sides[1]} pixels: expected multiples of 16")
        if config.channels not in (1, 3):
            raise InputError(f"images of {config.channels} channels: expected 1 or 3")
        self.config = config
        self.square = _SQUARE if config.network == "coarse" else 1
        build = _coarse if config.network == "coarse" else _published
        self.encoder, self.decoder = build(config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and logarithms of variances (n, d) of pixels between 0 and 1, (n, channels, h, w)."""
        return self._encode(self.squares(pixels))

    def decode(self, codes: Tensor) -> Tensor:
        """Return the logits of the pixels, (n, channels, h, w), from codes (n, d)."""
        return self.decoder(codes).repeat_interleave(self.square, 2).repeat_interleave(self.square, 3)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Posterior]:
        """Return −log p(x|z) in nats, (n,), and the posterior with its draw z, of pixels (n, channels, h, w)."""
        return self.evidence(self.squares(pixels))

    def squares(self, pixels: Tensor) -> Tensor:
        """Return what the networks see of pixels (n, channels, h, w): the means of their squares."""
        return pixels if self.square == 1 else functional.avg_pool2d(pixels, self.square)

    def evidence(self, squares: Tensor) -> tuple[Tensor, Posterior]:
        """Return what a call of the auto-encoder does, from squares (n, channels, h', w') instead of pixels."""
        mean, log_variance = self._encode(squares)
        codes = draw_codes(mean, log_variance)
        # The pixels of a square share a logit, and the cross-entropy is linear in them: their mean will do.
        loss = self.square**2 * reconstruction_loss(self.decoder(codes), squares)
        return loss, Posterior(mean, log_variance, codes)

    @torch.no_grad()
    def codes(self, images: ArrayLike) -> NDArray[np.float32]:
        """Return the posterior means of images, (n, d).

        Parameters
        ----------
        images : array_like, (n, h, w) or (n, h, w, 3)
            As in training: bool, whole numbers of the same range, or numbers between 0 and 1.

        Raises
        ------
        InputError
            If the images are of another shape or range.
        """
        pixels = _pixel_tensor(images)
        shape = (self.config.channels, self.config.height, self.config.width)
        if tuple(pixels.shape[1:]) != shape:
            raise InputError(
                f"images: {_described(pixels)}; the auto-encoder knows {shape[1]} × {shape[2]} pixels "
                f"of {shape[0]} channels"
            )
        found = []
        with self._at_rest():
            for chunk in pixels.split(_CHUNK):
                found.append(self.encode(_as_shares(chunk.to(self.device), self.config.white))[0].cpu())
        return torch.cat(found).numpy()

    @torch.no_grad()
    def images(self, codes: ArrayLike) -> NDArray[np.float32]:
        """Return the images that codes stand for, pixels between 0 and 1, (n, h, w) or (n, h, w, 3).

        Parameters
        ----------
        codes : array_like of float, (n, d)
            Such as the posterior means of :meth:`codes` with one column changed.

        Raises
        ------
        InputError
            If the codes are not finite or of another width.
        """
        array = np.asarray(codes, dtype=np.float32)
        if array.ndim != 2 or array.shape[1] != self.config.latent or not np.isfinite(array).all():
            raise InputError(
                f"codes: shape {array.shape}; expected finite numbers of shape (n, {self.config.latent})"
            )
        found = []
        with self._at_rest():
            for chunk in torch.from_numpy(array).split(_CHUNK):
                found.append(torch.sigmoid(self.decode(chunk.to(self.device))).cpu())
        drawn = torch.cat(found).permute(0, 2, 3, 1).numpy()
        return drawn[..., 0] if self.config.channels == 1 else drawn

    def save(self, path: Path | str) -> None:
        """Write weights and configuration to a ``.safetensors`` file."""
        save_model(path, self, asdict(self.config))

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str = "cpu") -> Autoencoder:
        """Return the auto-encoder that :meth:`save` wrote, in evaluation mode.

        Raises
        ------
        InputError
            If the file cannot be used.
        """
        return load_model(path, lambda config: cls(AutoencoderConfig(**config)), resolve_device(device))

    def _encode(self, squares: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(squares).chunk(2, dim=1)
        return mean, log_variance

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)


def train_autoencoder(
    images: ArrayLike,
    objective: Objective | None = None,
    *,
    latent: int = 10,
    network: Network = "coarse",
    epochs: int = 20,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
    device: str | torch.device = "auto",
    checkpoint: Path | str | None = None,
    quiet: bool = False,
) -> Autoencoder:
    """Train an auto-encoder on images, by Adam.

    Parameters
    ----------
    images : array_like, (n, h, w) or (n, h, w, 3)
        Bool, whole numbers (0 and 1, or 0 to 255), or numbers between 0 and 1; sides are multiples of 16.
    objective : Objective, optional
        Such as ``BetaVAE(4)``, ``BetaTCVAE(6)`` (the default) or ``FactorVAE(35)``; see
        :mod:`~interpretkit.variational`.
    latent : int
        The number of codes.
    network : {"coarse", "published"}
        See :class:`AutoencoderConfig`.
    epochs : int
        How many times to go through the images.
    batch_size : int
        Images in a batch.
    learning_rate : float
        Learning rate of the auto-encoder; the articles have 1e-4 with hundreds of thousands of steps.
    seed : int
        Seed of the weights, the order of the images and the draws. The same seed gives the same bits on a CPU.
    device : str or torch.device
        As for :func:`~interpretkit.training.resolve_device`.
    checkpoint : path, optional
        A folder in which the state is kept after every epoch, and from which training is resumed.
    quiet : bool
        Show no progress.

    Returns
    -------
    Autoencoder
        In evaluation mode; its ``history`` holds the loss and its parts through the epochs, in nats per image.

    Raises
    ------
    InputError
        If the images or an option cannot be used, or the checkpoint is of another training.
    NonFiniteLossError
        If the loss becomes infinite or NaN.
    """
    objective = BetaTCVAE() if objective is None else objective
    pixels = _pixel_tensor(images)
    if len(pixels) < 2:
        raise InputError(f"images: {len(pixels)}; expected at least 2")
    if epochs < 1 or batch_size < 2:
        raise InputError(
            f"epochs {epochs}, batch_size {batch_size}: expected at least 1 epoch and 2 images in a batch"
        )
    if not 0 < learning_rate < np.inf:
        raise InputError(f"learning_rate {learning_rate!r}: expected a number above 0")
    config = AutoencoderConfig(
        height=pixels.shape[2],
        width=pixels.shape[3],
        channels=pixels.shape[1],
        latent=latent,
        network=network,
        white=1 if pixels.dtype == torch.uint8 and int(pixels.max()) <= 1 else 255,
    )
    where = resolve_device(device)
    with own_draws(seed, "autoencoder", device=where):
        trained = _Trained(Autoencoder(config), objective, len(pixels)).to(where)
        seen = _seen_once(trained.autoencoder, pixels)
        history = fit(
            trained,
            TensorBatches({"images": seen}, batch_size, seed=derive_seed(seed, "batches")),
            lambda model, batch: model(batch["images"]),
            optimizer=torch.optim.Adam(
                # One pass over the weights halves the time of a step of small networks.
                trained.parameter_groups(learning_rate),
                lr=learning_rate,
                fused=where.type != "mps",
            ),
            epochs=epochs,
            # The networks are small, and the densities of the codes lose what lower precision rounds.
            precision="float32",
            checkpoint=checkpoint,
            description=objective.name,
            quiet=quiet,
        )
    model = trained.autoencoder
    model.history = history
    return model


class _Trained(nn.Module):
    """What :func:`~interpretkit.training.fit` trains: an auto-encoder, the critic if any, and the count of steps."""

    step: Tensor

    def __init__(self, autoencoder: Autoencoder, objective: Objective, n_images: int) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.objective = objective
        self.n_images = n_images
        self.critic = objective.critic(autoencoder.config.latent)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return what Adam takes: one optimiser for both networks, each with its own settings."""
        groups: list[dict[str, Any]] = [{"params": list(self.autoencoder.parameters()), "lr": learning_rate}]
        if isinstance(self.objective, FactorVAE) and self.critic is not None:
            rate = self.objective.learning_rate
            groups.append({"params": list(self.critic.parameters()), "lr": rate, "betas": (0.5, 0.9)})
        return groups

    def get_extra_state(self) -> str:
        """Return what a checkpoint must share with the training that goes on from it."""
        return f"{self.objective!r} on {self.n_images} images, {self.autoencoder.config!r}"

    def set_extra_state(self, state: str) -> None:
        """Refuse the state of another training, which may have weights of the same shapes."""
        if state != self.get_extra_state():
            raise RuntimeError(f"{state}, not {self.get_extra_state()}")

    def forward(self, seen: Tensor) -> Mapping[str, Tensor]:
        """Return the loss and its parts in nats per image, from what :func:`_seen_once` gives of images."""
        losses, posterior = self.autoencoder.evidence(_as_shares(seen, self.autoencoder.config.white))
        loss = losses.mean()
        parts = self.objective.penalty(posterior, State(int(self.step), self.n_images, self.critic))
        self.step += 1
        reported = {name: value.detach() for name, value in parts.items() if name != "penalty"}
        return {"loss": loss + parts["penalty"], "reconstruction": loss.detach(), **reported}


def _coarse(config: AutoencoderConfig) -> tuple[nn.Module, nn.Module]:
    shape = (config.channels, config.height // _SQUARE, config.width // _SQUARE)
    units, hidden = int(np.prod(shape)), 128
    encoder = nn.Sequential(
        nn.Flatten(),
        nn.Linear(units, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 2 * config.latent),
    )
    decoder = nn.Sequential(
        nn.Linear(config.latent, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, units),
        nn.Unflatten(1, shape),
    )
    return encoder, decoder


def _published(config: AutoencoderConfig) -> tuple[nn.Module, nn.Module]:
    shape = (64, config.height // 16, config.width // 16)
    units, hidden = int(np.prod(shape)), 256
    down, up = [], []
    for before, after in ((config.channels, 32), (32, 32), (32, 64), (64, 64)):
        down += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.ReLU()]
    for before, after in ((64, 64), (64, 32), (32, 32), (32, config.channels)):
        up += [nn.ReLU(), nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)]
    encoder = nn.Sequential(
        *down, nn.Flatten(), nn.Linear(units, hidden), nn.ReLU(), nn.Linear(hidden, 2 * config.latent)
    )
    decoder = nn.Sequential(
        nn.Linear(config.latent, hidden),
        nn.ReLU(),
        nn.Linear(hidden, units),
        nn.Unflatten(1, shape),
        *up,
    )
    return encoder, decoder


def _pixel_tensor(images: ArrayLike) -> Tensor:
    """Return images as a tensor (n, channels, h, w) of uint8, or of float32 between 0 and 1."""
    if np.ma.is_masked(images):
        raise InputError("images: an array with masked pixels; expected none, such as from images.filled(0)")
    array = np.asarray(images)
    if array.ndim not in (3, 4) or 0 in array.shape or array.dtype.kind not in "buif":
        raise InputError(
            f"images: {array.dtype} of shape {array.shape}; expected numbers of shape (n, h, w) or (n, h, w, 3)"
        )
    whole = array.dtype.kind in "bui"
    least, most = (0, 255) if whole else (0.0, 1.0)
    # Written so that NaN fails too.
    if not (array.min() >= least and array.max() <= most):
        raise InputError(
            f"images: {array.dtype} from {array.min()} to {array.max()}; expected {least} to {most}"
        )
    array = array.astype(np.uint8 if whole else np.float32, copy=False)
    # Copied only where the layout asks for it: data sets of images are large.
    array = np.ascontiguousarray(array[:, None] if array.ndim == 3 else np.moveaxis(array, 3, 1))
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _seen_once(autoencoder: Autoencoder, pixels: Tensor) -> Tensor:
    """Return the squares of all images (n, channels, h', w'), or the pixels as they are if those are seen.

    Squares take a quarter of the memory that pixels of a byte take, and a step a tenth to a quarter less time than
    if every batch were averaged anew.
    """
    if autoencoder.square == 1:
        return pixels
    white = autoencoder.config.white
    return torch.cat([autoencoder.squares(_as_shares(chunk, white)) for chunk in pixels.split(_CHUNK)])


def _as_shares(pixels: Tensor, white: int) -> Tensor:
    """Return pixels as shares of white, float32."""
    return pixels.float() / white if pixels.dtype == torch.uint8 else pixels


def _described(pixels: Tensor) -> str:
    channels, height, width = pixels.shape[1:]
    return f"{height} × {width} pixels of {channels} channels"
