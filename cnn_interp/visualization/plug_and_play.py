"""Images of a class drawn with a prior that knows what images look like: plug & play generation (Nguyen, CVPR 2017).

The prior is a denoising autoencoder R of pixels, trained on the spot: R(x) − x is in proportion to the slope of the
log-density of (slightly blurred) images (Alain & Bengio 2014), so that

    x ← x + ε₁ (R(x) − x) + ε₂ ∂ log p(c | x) / ∂x + noise

walks towards images that are both likely and of the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cnn_interp.images.photographs import Photographs
from cnn_interp.networks.network import Network
from interpretkit.errors import InputError
from interpretkit.networks.fast_passes import run_fast
from interpretkit.networks.instrumentation import instrumented
from interpretkit.runs.progress import progress
from interpretkit.training import TensorBatches, derive_seed, fit, torch_generator
from interpretkit.training.schedules import one_cycle


class DenoisingAutoencoder(nn.Module):
    """From noisy images ``(n, 3, h, w)``, values about 0 … 1, to clean ones.

    It finds the noise, which is then taken away, from maps of the images' own side and of a quarter of it.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.LeakyReLU(0.1))
        self.coarse = nn.Sequential(
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(2 * width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Upsample(scale_factor=4, mode="bilinear"),
        )
        self.noise = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(width, 3, 3, padding=1)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the images without their noise; their sides must be multiples of 4."""
        fine = self.fine(images - 0.5)
        return images - self.noise(torch.cat([fine, self.coarse(fine)], 1))


@dataclass(frozen=True)
class Prior:
    """A denoising autoencoder and how well it restores photographs that it has not seen.

    Attributes
    ----------
    model : DenoisingAutoencoder
        In evaluation mode.
    noise : float
        The standard deviation that it was trained to remove, of values in 0 … 1.
    error : float
        Mean square error of held-out images restored from that noise.
    noise_error : float
        The same of the noisy images themselves.
    distance : float
        ‖R(x) − x‖² per pixel of held-out images without noise: what a realistic image has.
    """

    model: DenoisingAutoencoder
    noise: float
    error: float
    noise_error: float
    distance: float


@dataclass(frozen=True)
class Generated:
    """Images of classes, drawn with and without a prior.

    Attributes
    ----------
    images, without_prior : ndarray of float32, (n, 3, h, w)
        On the grid of 8-bit colours.
    targets : ndarray of int, (n,)
        The classes.
    probability, probability_without_prior : ndarray of float, (n,)
        Probability and probability without prior of the class, for the images as they are here.
    distance, distance_without_prior : ndarray of float, (n,)
        ‖R(x) − x‖² per pixel: the less, the more realistic by the prior's lights. Of photographs it is
        ``prior.distance``.
    prior : Prior
        The prior.
    """

    images: NDArray[np.float32]
    without_prior: NDArray[np.float32]
    targets: NDArray[np.int64]
    probability: NDArray[np.float64]
    probability_without_prior: NDArray[np.float64]
    distance: NDArray[np.float64]
    distance_without_prior: NDArray[np.float64]
    prior: Prior


def train_prior(
    photographs: Photographs | None = None,
    *,
    noise: float = 0.1,
    pieces: int = 600,
    side: int = 48,
    held_out: float = 0.2,
    epochs: int = 8,
    batch_size: int = 32,
    learning_rate: float = 3e-3,
    device: torch.device | str = "cpu",
    seed: int = 0,
    quiet: bool = True,
) -> Prior:
    """Train a denoising autoencoder on pieces of photographs, and test it on pieces of others.

    Parameters
    ----------
    photographs : Photographs, optional
        By default those that scikit-image brings.
    noise : float
        The standard deviation of the noise to remove, of values in 0 … 1.
    pieces, side : int
        How many pieces in all, and their side in px.
    held_out : float
        The share of photographs to test on.
    epochs, batch_size, learning_rate
        Number of epochs, batch size and learning rate of Adam.
    device : torch.device or str
        Where to train.
    seed : int
        Seed of the pieces, the weights, the order and the noise.
    quiet : bool
        Show no progress.

    Raises
    ------
    InputError
        If the noise is not above 0, the side no multiple of 4, or there are fewer than two photographs.
    """
    if noise <= 0 or side % 4:
        raise InputError(f"noise {noise:g}, side {side}: expected noise above 0 and a multiple of 4 px")
    train, test = (photographs or Photographs.bundled()).split(held_out, seed)
    pixels = train.crops(max(round(pieces * (1 - held_out)), 2), side, smallest=0.3, seed=seed)
    unseen = test.crops(max(round(pieces * held_out), 2), side, smallest=0.3, seed=seed + 1)
    generator = torch_generator(seed, "noise of the prior")
    noisy = unseen + noise * torch.randn(unseen.shape, generator=torch_generator(seed, "noise of the test"))
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "prior"))
        model = DenoisingAutoencoder().to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)

        def loss(net: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            clean = batch["pixels"]
            added = noise * torch.randn(clean.shape, generator=generator).to(clean.device)
            return {"loss": F.mse_loss(net(clean + added), clean)}

        fit(
            model,
            TensorBatches({"pixels": pixels}, batch_size, seed=seed),
            loss,
            optimizer=optimizer,
            epochs=epochs,
            scheduler=one_cycle(optimizer, learning_rate, epochs * -(-len(pixels) // batch_size)),
            scheduler_steps="batch",
            precision="float32",
            description="Training the prior",
            quiet=quiet,
        )
    with torch.no_grad():
        restored = model(noisy.to(device)).cpu()
        kept = model(unseen.to(device)).cpu()
    return Prior(
        model=model,
        noise=noise,
        error=float((restored - unseen).double().square().mean()),
        noise_error=float((noisy - unseen).double().square().mean()),
        distance=float((kept - unseen).double().square().mean()),
    )


def generate(
    network: Network,
    targets: Sequence[int],
    prior: Prior,
    *,
    steps: int = 120,
    prior_step: float = 0.5,
    class_step: float = 8.0,
    noise: float = 0.005,
    seed: int = 0,
    quiet: bool = True,
) -> Generated:
    """Draw an image of each class with a prior, and one without from the same beginning.

    Parameters
    ----------
    network : Network
        That tells p(c | x); left as it was found.
    targets : sequence of int
        The classes.
    prior : Prior
        See :func:`train_prior`; on the network's device.
    steps : int
        Number of steps of the walk.
    prior_step : float
        ε₁.
    class_step : float
        ε₂: how far an image moves in a step by the slope of log p(c | x), as a Euclidean distance; the slope is
        scaled to this length, because its own falls by many orders of magnitude as the class becomes likely.
    noise : float
        The standard deviation of the noise of a step.
    seed : int
        Seed of the beginning and the noise.
    quiet : bool
        Show no progress.

    Raises
    ------
    InputError
        If the network has no such class, or its images' side is no multiple of 4.
    """
    if len(targets) == 0 or steps < 1:
        raise InputError(f"{len(targets)} targets, {steps} steps: expected at least 1")
    if network.size % 4:
        raise InputError(f"{network.name}: takes images of {network.size} px; expected a multiple of 4")
    classes = torch.tensor(list(targets))
    results: list[tuple[Tensor, Tensor, Tensor]] = []
    with (
        instrumented(network.module, seed),
        instrumented(prior.model, seed),
        progress("Generating", 2 * steps, quiet=quiet) as bar,
    ):
        for first_step in (prior_step, 0.0):
            generator = torch_generator(seed, "plug and play")
            shape = (len(classes), 3, network.size, network.size)
            x = 0.5 + prior.noise * torch.randn(shape, generator=generator)
            x, rows, which = (
                x.to(network.device),
                torch.arange(len(classes), device=network.device),
                classes.to(network.device),
            )
            for step in range(steps):
                leaf = x.detach().requires_grad_()
                outputs = run_fast(network.module, network.normalise(leaf), network.module)
                if step == 0 and not 0 <= int(classes.min()) <= int(classes.max()) < outputs.shape[1]:
                    raise InputError(
                        f"target {classes.tolist()}: {network.name} has {outputs.shape[1]} outputs; expected "
                        f"0 to {outputs.shape[1] - 1}"
                    )
                (slope,) = torch.autograd.grad(outputs.log_softmax(1)[rows, which].sum(), leaf)
                length = slope.flatten(1).norm(dim=1).clamp(min=1e-20)[:, None, None, None]
                with torch.no_grad():
                    x = x + class_step * slope / length
                    if first_step:
                        x = x + first_step * (prior.model(leaf) - leaf)
                    x = x + noise * torch.randn(shape, generator=generator).to(x)
                    x = x.clamp(0, 1)
                bar.advance()
            with torch.no_grad():
                images = (x * 255).round() / 255
                probabilities = network.module(network.normalise(images)).softmax(1)[rows, which]
                distance = (prior.model(images) - images).double().square().mean((1, 2, 3))
            results.append((images.float().cpu(), probabilities.double().cpu(), distance.cpu()))
    (images, probability, distance), (plain, plain_probability, plain_distance) = results
    return Generated(
        images=images.numpy(),
        without_prior=plain.numpy(),
        targets=classes.numpy(),
        probability=probability.numpy(),
        probability_without_prior=plain_probability.numpy(),
        distance=distance.numpy(),
        distance_without_prior=plain_distance.numpy(),
        prior=prior,
    )
