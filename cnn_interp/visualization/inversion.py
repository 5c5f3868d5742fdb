"""What a layer keeps of an image: inversion by optimisation (Mahendran & Vedaldi, CVPR 2015)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnn_interp.images.photographs import Photographs
from cnn_interp.networks.network import Network
from cnn_interp.visualization.fourier import from_spectrum, natural_colours, random_spectrum
from interpretkit.errors import InputError
from interpretkit.networks.fast_passes import run_fast
from interpretkit.networks.instrumentation import instrumented
from interpretkit.networks.truncated import UpTo
from interpretkit.runs.progress import progress
from interpretkit.training import torch_generator

# Inputs are normalised to a variance near 1, in which photographs rarely leave this range; both penalties are
# measured against it, so that their weights mean the same for every network.
_RANGE = 2.5


@dataclass(frozen=True)
class Inversion:
    """Images that give a layer what another image gave it.

    Attributes
    ----------
    images : mapping of str to ndarray of float32, (n, 3, h, w)
        Images of each layer, with values in 0 … 1.
    error : mapping of str to ndarray of float, (n,)
        ‖Φ(x) − Φ₀‖ / ‖Φ₀‖ of each image, as it is here.
    other_photographs : mapping of str to float
        The same, of other photographs in place of x: its mean over pairs of two photographs.
    """

    images: Mapping[str, NDArray[np.float32]]
    error: Mapping[str, NDArray[np.float64]]
    other_photographs: Mapping[str, float]


def invert(
    network: Network,
    inputs: Tensor,
    layers: Sequence[str],
    *,
    steps: int = 200,
    learning_rate: float = 0.03,
    alpha: float = 6.0,
    beta: float = 2.0,
    range_weight: float = 0.1,
    variation_weight: float = 0.1,
    photographs: Photographs | None = None,
    seed: int = 0,
    quiet: bool = True,
) -> Inversion:
    """Reconstruct images from what layers give for them.

    Minimized is ‖Φ(x) − Φ₀‖² / ‖Φ₀‖² + λ_α ‖x‖_α^α + λ_V TV^β, from noise on, by Adam with a falling rate in
    the images' Fourier coefficients; the published work uses gradient descent with momentum in the pixels, which
    needs its rate set by hand for each layer and many more steps. Both penalties are means over pixels, of values
    divided by 2.5 standard deviations of the network's inputs; differences of neighbours are multiplied by the
    root of the images' side.

    Parameters
    ----------
    network : Network
        Left as it was found.
    inputs : Tensor, (n, 3, h, w)
        The images to reconstruct, as the network takes them.
    layers : sequence of str
        Dotted names.
    steps : int
        Number of steps of Adam, for each layer.
    learning_rate : float
        At the beginning, in units of the coefficients.
    alpha, beta : float
        The penalties' powers α and β.
    range_weight, variation_weight : float
        Their weights λ_α and λ_V.
    photographs : Photographs, optional
        Among which other photographs are taken for comparison; by default those that scikit-image brings.
    seed : int
        Seed of the noise.
    quiet : bool
        Show no progress.

    Raises
    ------
    InputError
        If there is no such layer, or it gives nothing but zeros.
    """
    if steps < 1 or not layers:
        raise InputError(f"{steps} steps, {len(layers)} layers: expected at least 1")
    others = photographs if photographs is not None and len(photographs) > 1 else Photographs.bundled()
    images: dict[str, NDArray[np.float32]] = {}
    errors: dict[str, NDArray[np.float64]] = {}
    pairs: dict[str, float] = {}
    with instrumented(network.module, seed), progress("Inverting", steps * len(layers), quiet=quiet) as bar:
        # Made within, because a caller's inference mode would mark the tensor for good.
        given = inputs.detach().to(network.device).clone()
        side = given.shape[-1]
        if given.shape[-2] != side:
            raise InputError(f"inputs: have shape {tuple(given.shape)}; expected square images")
        low, high = (network.normalise(torch.full((1, 3, 1, 1), value)) for value in (0.0, 1.0))
        compared = others.inputs(network, range(min(len(others), 8)))
        for layer in layers:
            until = UpTo(network.module, layer)
            with torch.no_grad():
                wanted = until(given)
                norm = wanted.flatten(1).norm(dim=1)
                if not bool((norm > 0).all()):
                    raise InputError(f"layer {layer!r}: gives nothing but zeros; expected another layer")
                pairs[layer] = _mean_of_pairs(until(compared))
            # A generator of its own, so that a layer's result does not depend on the others asked for.
            noise = random_spectrum(given.shape[1], side, torch_generator(seed, "inversion", layer))
            spectrum = (0.01 * noise).to(given).repeat(len(given), 1, 1, 1, 1).requires_grad_()
            optimizer = torch.optim.Adam([spectrum], lr=learning_rate)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, 0.1 * learning_rate)
            for _ in range(steps):
                x = natural_colours(from_spectrum(spectrum, side))
                differences = (
                    (run_fast(until, x, network.module) - wanted).flatten(1).norm(dim=1) / norm
                ) ** 2
                loss = differences.sum()
                loss = loss + range_weight * ((x / _RANGE).abs() ** alpha).mean((1, 2, 3)).sum()
                loss = loss + variation_weight * total_variation(x / _RANGE, beta).sum() * x.shape[-1]
                (spectrum.grad,) = torch.autograd.grad(loss, spectrum)
                optimizer.step()
                schedule.step()
                bar.advance(note=f"{layer}, error {float(differences.detach().mean().sqrt()):.2f}")
            with torch.no_grad():
                found = natural_colours(from_spectrum(spectrum, side)).clamp(low, high)
                difference = (until(found) - wanted).flatten(1).norm(dim=1) / norm
            images[layer] = network.pixels(found).float().cpu().numpy()
            errors[layer] = difference.double().cpu().numpy()
    return Inversion(images, errors, pairs)


def total_variation(x: Tensor, beta: float) -> Tensor:
    """Return the mean ``(n,)`` over pixels of (Δ_horizontal² + Δ_vertical²)^(β/2) for images ``(n, c, h, w)``."""
    right = x[:, :, :-1, 1:] - x[:, :, :-1, :-1]
    down = x[:, :, 1:, :-1] - x[:, :, :-1, :-1]
    squares = right**2 + down**2
    # A root has no finite slope at zero.
    powers = squares if beta == 2 else (squares + 1e-12) ** (beta / 2)
    return powers.mean((1, 2, 3))


def _mean_of_pairs(features: Tensor) -> float:
    """Return the mean of ‖Φ(b) − Φ(a)‖ / ‖Φ(a)‖ over all pairs of different images."""
    flat = features.flatten(1).double()
    distances = torch.cdist(flat, flat) / flat.norm(dim=1)[:, None]
    n = len(flat)
    return float(distances.sum() / (n * (n - 1)))
