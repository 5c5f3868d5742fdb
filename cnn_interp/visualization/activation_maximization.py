"""Images that a channel or a class responds to most: activation maximization (Erhan 2009; Simonyan 2014).

Images are parametrized by their Fourier coefficients and decorrelated colours, and are moved, turned and scaled at
random while they are improved (Olah, Mordvintsev, Schubert, "Feature visualization", Distill 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cnn_interp.images.photographs import Photographs
from cnn_interp.networks.network import Network
from cnn_interp.visualization.activation import Place, activations, check_channels, placed
from cnn_interp.visualization.fourier import from_spectrum, natural_colours, random_spectrum
from interpretkit.errors import InputError
from interpretkit.networks.fast_passes import run_fast
from interpretkit.networks.instrumentation import instrumented
from interpretkit.networks.truncated import UpTo
from interpretkit.runs.progress import progress
from interpretkit.training import torch_generator

# The standard deviation of the first coefficients; small, so that the images begin nearly grey.
_SPREAD = 0.01
# So many images of noise, with the spectrum of natural images, tell what no optimisation gives.
_NOISE_IMAGES = 16


@dataclass(frozen=True)
class MaximizedActivation:
    """Images that maximize activations, and what they are to be compared with.

    Attributes
    ----------
    images : ndarray of float32, (n, 3, h, w)
        Values in 0 … 1 on the grid of 8-bit colours; those of one channel one after another.
    channels : ndarray of int, (n,)
        The channel or class of each.
    reached : ndarray of float, (n,)
        The activation of each image as it is here, neither moved nor turned.
    best_photograph : ndarray of float, (n,), or None
        The largest activation of the channel over the photographs.
    best_photograph_index : ndarray of int, (n,), or None
        Which photograph that is.
    noise : ndarray of float, (n,)
        The largest over 16 images of noise whose spectrum and contrast are those of natural images.
    layer : str or None
        The layer; None for classes, whose activations are logits.
    place : str
        What of a map counts.
    history : ndarray of float, (steps, n)
        The activations of the moved and turned images on the way.
    """

    images: NDArray[np.float32]
    channels: NDArray[np.int64]
    reached: NDArray[np.float64]
    best_photograph: NDArray[np.float64] | None
    best_photograph_index: NDArray[np.int64] | None
    noise: NDArray[np.float64]
    layer: str | None
    place: str
    history: NDArray[np.float64]


def maximize_activation(
    network: Network,
    channels: Sequence[int],
    *,
    layer: str | None = None,
    place: Place = "mean",
    images_per_channel: int = 1,
    diversity: float = 0.0,
    steps: int = 256,
    side: int | None = None,
    learning_rate: float = 0.05,
    shift: float = 8.0,
    turn: float = 10.0,
    zoom: float = 0.1,
    photographs: Photographs | None = None,
    seed: int = 0,
    quiet: bool = True,
) -> MaximizedActivation:
    """Make images that maximize the activations of channels or classes, all of them as one batch.

    Parameters
    ----------
    network : Network
        Left as it was found.
    channels : sequence of int
        Channels of the layer, or classes if there is none.
    layer : str, optional
        A dotted name; by default the logits are maximized.
    place : {"mean", "centre", "max"}
        What counts of a map: its mean (the channel), the unit in the middle, or the largest.
    images_per_channel : int
        How many images to make of each.
    diversity : float
        The weight of the mean cosine between the Gram matrices of a layer's maps for the images of one channel;
        more of it makes them differ.
    steps : int
        Number of steps of Adam.
    side : int, optional
        Side of the images, px; the network's own by default.
    learning_rate : float
        Learning rate of Adam, in units of the coefficients.
    shift, turn, zoom : float
        How far the images are moved (px), turned (degrees) and scaled (as a share) at random, to either side.
    photographs : Photographs, optional
        Whose activations to compare with.
    seed : int
        Seed of the first images and the transformations.
    quiet : bool
        Show no progress.

    Raises
    ------
    InputError
        If there is no such layer or channel, or diversity is asked for without maps.
    """
    if len(channels) == 0 or images_per_channel < 1 or steps < 1:
        raise InputError(
            f"{len(channels)} channels, {images_per_channel} images of each, {steps} steps: expected at least 1"
        )
    if diversity and layer is None:
        raise InputError(f"diversity {diversity:g}: needs a layer that gives maps; expected layer=NAME")
    side = network.size if side is None else side
    which = torch.tensor(list(channels)).repeat_interleave(images_per_channel)
    until = UpTo(network.module, layer)
    generator = torch_generator(seed, "activation maximization")
    coefficients = [_SPREAD * random_spectrum(3, side, generator) for _ in range(len(which))]
    history: list[NDArray[np.float64]] = []
    with instrumented(network.module, seed):
        device = network.device
        rows, here = torch.arange(len(which), device=device), which.to(device)
        spectrum = torch.stack(coefficients).to(device).requires_grad_()
        with torch.no_grad():
            check_channels(until(network.normalise(_pixels(spectrum[:1], side))), which, layer)
        optimizer = torch.optim.Adam([spectrum], lr=learning_rate)
        with progress("Maximizing", steps, quiet=quiet) as bar:
            for _ in range(steps):
                moved = _moved(_pixels(spectrum, side), generator, shift=shift, turn=turn, zoom=zoom)
                outputs = run_fast(until, network.normalise(moved), network.module)
                scores = placed(outputs, place)[rows, here]
                loss = -scores.sum()
                if diversity:
                    loss = loss + diversity * _likeness(outputs, images_per_channel)
                (spectrum.grad,) = torch.autograd.grad(loss, spectrum)
                optimizer.step()
                history.append(scores.detach().double().cpu().numpy())
                bar.advance()
        with torch.no_grad():
            images = (_pixels(spectrum, side) * 255).round() / 255
            reached = placed(until(network.normalise(images)), place)[rows, here]
            noise = placed(until(network.normalise(_noise(side, seed).to(device))), place)[:, here].amax(0)
    best = index = None
    if photographs is not None:
        values = activations(network, photographs, layer, place=place)[:, which]
        best, index = values.max(0).values.double().numpy(), values.argmax(0).numpy()
    return MaximizedActivation(
        images=images.float().cpu().numpy(),
        channels=which.numpy(),
        reached=reached.double().cpu().numpy(),
        best_photograph=best,
        best_photograph_index=index,
        noise=noise.double().cpu().numpy(),
        layer=layer,
        place=place,
        history=np.array(history),
    )


def _pixels(spectrum: Tensor, side: int) -> Tensor:
    """Return images ``(n, 3, side, side)`` in 0 … 1 for coefficients ``(n, 3, side, side // 2 + 1, 2)``."""
    return natural_colours(from_spectrum(spectrum, side) / 4).sigmoid()


def _noise(side: int, seed: int) -> Tensor:
    """Return images of noise with the contrast of photographs."""
    generator = torch_generator(seed, "noise images")
    spectrum = torch.stack([random_spectrum(3, side, generator) for _ in range(_NOISE_IMAGES)])
    images = torch.logit(_pixels(1e-4 * spectrum, side))
    images = images / images.std((1, 2, 3), keepdim=True)
    return images.sigmoid()


def _moved(images: Tensor, generator: torch.Generator, *, shift: float, turn: float, zoom: float) -> Tensor:
    """Return images moved, turned and scaled at random, each in its own way, on a grey ground."""
    n, side = len(images), images.shape[-1]
    draws = 2 * torch.rand(n, 4, generator=generator) - 1
    angle, scale = torch.deg2rad(turn * draws[:, 0]), torch.exp(zoom * draws[:, 1])
    cos, sin = angle.cos() * scale, angle.sin() * scale
    move = 2 * shift / side * draws[:, 2:]
    matrices = (
        torch.stack([cos, -sin, move[:, 0], sin, cos, move[:, 1]], 1).reshape(n, 2, 3).to(images.device)
    )
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images - 0.5, grid, align_corners=False) + 0.5


def _likeness(outputs: Tensor, group: int) -> Tensor:
    """Return the mean cosine between the Gram matrices of the maps of images in one group, summed over groups."""
    if outputs.ndim != 4:
        raise InputError(f"diversity: the layer gives outputs of shape {tuple(outputs.shape)}; expected maps")
    flat = outputs.flatten(2)
    gram = F.normalize(torch.einsum("ncp,ndp->ncd", flat, flat).flatten(1), dim=1)
    gram = gram.reshape(-1, group, gram.shape[1])
    cosines = torch.einsum("gad,gbd->gab", gram, gram)
    return (cosines.sum((1, 2)) - group).sum() / max(group * (group - 1), 1)
