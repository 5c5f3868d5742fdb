"""What the stages of a network make of images: pooled features, and how far a perturbation moves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cnn_interp.diagnosis.attacks import Attack, Classifier
from cnn_interp.networks.network import Network
from interpretkit.errors import InputError
from interpretkit.networks.recording import layer_outputs, map_layers
from interpretkit.runs.progress import track
from interpretkit.training.seeds import torch_generator

Features = NDArray[np.float32]
# The name under which a network's outputs stand beside those of its layers.
OUTPUT = "output"


def stages(module: nn.Module, inputs: Tensor, most: int = 8) -> tuple[str, ...]:
    """Return the names of a network's stages, from its input to its output.

    Parameters
    ----------
    module : Module
        The network.
    inputs : Tensor, (n, ...)
        As the network takes them; the first is run.
    most : int
        How many at most, evenly spread, the last one always among them.

    Returns
    -------
    tuple of str
        Of the layers that give maps, those of the outermost level of nesting with at least four, in the order in
        which they run. In torchvision's networks that are their blocks.

    Raises
    ------
    InputError
        If no layer gives maps.
    """
    names = list(map_layers(module, inputs))
    if not names:
        raise InputError("layers: no layer of the network gives maps; expected a convolutional network")
    levels = sorted({name.count(".") for name in names})
    by_level = {level: [name for name in names if name.count(".") == level] for level in levels}
    large_enough = [level for level in levels if len(by_level[level]) >= 4]
    chosen = by_level[large_enough[0]] if large_enough else max(by_level.values(), key=len)
    places = np.linspace(0, len(chosen) - 1, min(most, len(chosen))).round().astype(int)
    return tuple(chosen[place] for place in places)


def pooled_features(
    network: Classifier,
    pixels: Tensor,
    layers: Sequence[str],
    *,
    images_per_forward: int = 16,
    seed: int = 0,
    quiet: bool = True,
) -> dict[str, Features]:
    """Return the mean over positions of what layers give for images: maps, or tokens ``(n, places, channels)``.

    The mean is linear, so that a direction's response to a pooled feature is its mean response over the image.

    Parameters
    ----------
    network : Network or Module
        A module takes pixels as they are.
    pixels : Tensor, (n, channels, height, width)
        Values in 0 … 1.
    layers : sequence of str
        Dotted names; ``output`` stands for the network's outputs unless a layer is called so.
    images_per_forward : int
        How many images go through the network at a time.
    seed : int
        For networks that draw random numbers.
    quiet : bool
        Show no progress.

    Returns
    -------
    dict
        From layer to float32 ``(n, channels)``.

    Raises
    ------
    InputError
        If there is no layer of a name.
    """
    parts: dict[str, list[Features]] = {name: [] for name in layers}
    for some in track(pixels.split(images_per_forward), "Running the network", quiet=quiet):
        for name, values in _outputs(network, some, layers, seed).items():
            if values.ndim == 3:  # tokens (n, places, channels)
                values = values.transpose(1, 2)
            pooled = values.flatten(2).mean(2) if values.ndim > 2 else values
            parts[name].append(pooled.float().cpu().numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


@dataclass(frozen=True)
class LayerChange:
    """How far a perturbation, and noise of the same length, move what each layer gives.

    Attributes
    ----------
    layers : tuple of str, (k,)
        From the input to the output; the first is ``pixels`` and the last ``output``.
    perturbed : ndarray, (n, k)
        The Euclidean distance of the perturbed image's representation from the original's, over the length of the
        original's.
    noise : ndarray, (n, k)
        The same for noise of the same length as the perturbation.
    """

    layers: tuple[str, ...]
    perturbed: NDArray[np.float64]
    noise: NDArray[np.float64]

    @property
    def amplification(self) -> NDArray[np.float64]:
        """How much further the perturbation moves each layer than noise does, ``(n, k)``; 1 at the pixels."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.perturbed / self.noise


def layer_change(
    model: Classifier,
    attack: Attack,
    layers: Sequence[str] | None = None,
    *,
    images_per_forward: int = 16,
    seed: int = 0,
) -> LayerChange:
    """Compare what an attack and random noise of the same length do to the layers of a network.

    Parameters
    ----------
    model : Network or Module
        The network that was attacked.
    attack : Attack
        Originals and perturbed images.
    layers : sequence of str, optional
        Dotted names; :func:`stages` by default.
    images_per_forward : int
        How many images go through the network at a time.
    seed : int
        Seed of the noise, which is normal, has one direction for all images, and leaves every value within 0 … 1.

    Returns
    -------
    LayerChange

    Raises
    ------
    InputError
        If there is no layer of a name.
    """
    clean, perturbed = attack.originals, attack.perturbed
    noisy = clean + noise_of_length(clean, attack.l2, seed)
    if layers is None:
        module, inputs = _module_and_inputs(model, clean[:1])
        layers = stages(module, inputs)
    names = ("pixels", *layers, OUTPUT)
    found: dict[str, list[Tensor]] = {"perturbed": [], "noise": []}
    for rows in torch.arange(len(clean)).split(images_per_forward):
        original = _representations(model, clean[rows], layers, seed)
        lengths = torch.stack([original[name].norm(dim=1) for name in names], dim=1).clamp_min(1e-12)
        for kind, images in (("perturbed", perturbed), ("noise", noisy)):
            moved = _representations(model, images[rows], layers, seed)
            distances = [(moved[name] - original[name]).norm(dim=1) for name in names]
            found[kind].append(torch.stack(distances, dim=1) / lengths)
    return LayerChange(names, *(torch.cat(found[kind]).numpy() for kind in ("perturbed", "noise")))


def noise_of_length(pixels: Tensor, lengths: Tensor, seed: int = 0) -> Tensor:
    """Return normal noise of given Euclidean lengths that keeps images within 0 … 1.

    Parameters
    ----------
    pixels : Tensor, (n, channels, height, width)
        Values in 0 … 1.
    lengths : Tensor, (n,)
        The lengths of the noise after the images have been clipped. Longer ones than the box has room for in the
        noise's direction are cut to what there is.
    seed : int
        Seed of the noise.

    Returns
    -------
    Tensor, (n, channels, height, width)
    """
    direction = torch.randn(pixels[:1].shape, generator=torch_generator(seed, "noise")).to(pixels)
    direction = direction / direction.norm()
    low, high = torch.zeros_like(lengths), lengths.clone()

    def noise(scale: Tensor) -> Tensor:
        return (pixels + scale[:, None, None, None] * direction).clamp(0, 1) - pixels

    # Clipping takes some of the length away, so that the scale must be looked for; length grows with it.
    for _ in range(20):
        short = noise(high).flatten(1).norm(dim=1) < lengths
        high = torch.where(short, 2 * high, high)
    for _ in range(40):
        middle = (low + high) / 2
        short = noise(middle).flatten(1).norm(dim=1) < lengths
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return noise(high)


def photographs_as_pixels(network: Network, images: Sequence[object]) -> Tensor:
    """Return what a network sees of PIL images, as pixels ``(n, 3, size, size)`` with values in 0 … 1."""
    return network.pixels(network.prepare(images)).clamp(0, 1)  # type: ignore[arg-type]


def resize(pixels: Tensor, side: int) -> Tensor:
    """Return pixels at another size ``(n, channels, side, side)``, bilinear; values stay within 0 … 1."""
    if pixels.shape[-2:] == (side, side):
        return pixels
    return functional.interpolate(
        pixels, (side, side), mode="bilinear", align_corners=False, antialias=True
    ).clamp(0, 1)


def _module_and_inputs(model: Classifier, pixels: Tensor) -> tuple[nn.Module, Tensor]:
    if isinstance(model, Network):
        return model.module, model.normalise(pixels)
    first = next(model.parameters(), None)
    return model, (pixels if first is None else pixels.to(first.device))


def _outputs(model: Classifier, pixels: Tensor, layers: Sequence[str], seed: int) -> Mapping[str, Tensor]:
    module, inputs = _module_and_inputs(model, pixels)
    known = {name for name, _ in module.named_modules()}
    wanted = [name for name in layers if name != OUTPUT or OUTPUT in known]
    result, found = layer_outputs(module, inputs, wanted, seed=seed)
    return found if len(wanted) == len(layers) else {**found, OUTPUT: result}


def _representations(
    model: Classifier, pixels: Tensor, layers: Sequence[str], seed: int
) -> dict[str, Tensor]:
    """Return the pixels, the layers' outputs and the network's, each ``(n, values)`` in double precision."""
    module, inputs = _module_and_inputs(model, pixels)
    result, found = layer_outputs(module, inputs, layers, seed=seed)
    everything = {"pixels": pixels, **found, OUTPUT: result}
    return {name: values.flatten(1).double().cpu() for name, values in everything.items()}
