"""Which pixels a unit's strongest activation stands for: deconvnet projections (Zeiler & Fergus, ECCV 2014)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from cnn_interp.images.photographs import Photographs
from cnn_interp.networks.network import Network
from cnn_interp.visualization.top_patches import UnitPatches
from interpretkit.attribution import attribute
from interpretkit.errors import InputError
from interpretkit.networks.instrumentation import instrumented
from interpretkit.networks.truncated import UpTo
from interpretkit.training import numpy_generator

# Projections are speckled; what is left of an image must hang together for a network to see it, px.
_BLUR = 4.0


@dataclass(frozen=True)
class Projections:
    """The strongest activations of units, each projected back to the pixels.

    Attributes
    ----------
    patches : UnitPatches
        The activations.
    values : ndarray of float32, (u, k, 3, h, w)
        Their projections in the network's inputs; zero outside the receptive fields, and of silent units.
    """

    patches: UnitPatches
    values: NDArray[np.float32]

    def crop(self, unit: int, place: int) -> NDArray[np.float32]:
        """Return a projection ``(3, h, w)``, cut to the receptive field."""
        top, left, bottom, right = self.patches.boxes[unit, place]
        return self.values[unit, place, :, top:bottom, left:right]


@dataclass(frozen=True)
class Sufficiency:
    """How much of an activation is left if most of the image is taken away.

    Attributes
    ----------
    projected, random, centred : ndarray of float, (u, k)
        The activation as a share of the whole image's, with only the pixels left that the projection holds to be
        strongest; as many in blots at random within the receptive field; or the receptive field's middle. NaN where
        the activation is not above zero.
    share : float
        Which share of the image's part of the receptive field was left.
    """

    projected: NDArray[np.float64]
    random: NDArray[np.float64]
    centred: NDArray[np.float64]
    share: float


def project(
    network: Network,
    photographs: Photographs,
    patches: UnitPatches,
    *,
    images_per_forward: int = 8,
    seed: int = 0,
) -> Projections:
    """Project the strongest activations of units back to the pixels by the deconvolutional network.

    All other activations of the layer are set to zero, and the one is carried back with its value: through
    max-pooling by its switches, through a ReLU if it is positive, through a convolution by its transpose. One that is
    not above zero has nothing to carry back, and its projection is zero.

    Parameters
    ----------
    network : Network
        With ReLUs; left as it was found.
    photographs : Photographs
        Those that were searched.
    patches : UnitPatches
        What :func:`~cnn_interp.visualization.top_patches.top_patches` found in them.
    images_per_forward : int
        How many go through the network at once.
    seed : int
        For networks that draw random numbers even in evaluation mode.

    Raises
    ------
    InputError
        If the layer comes after no ReLU.
    """
    until = UpTo(network.module, patches.layer)
    values = np.zeros((*patches.images.shape, 3, network.size, network.size), dtype=np.float32)
    for row, (unit, images, places) in enumerate(
        zip(patches.units, patches.images, patches.positions, strict=True)
    ):
        loud = ~patches.silent[row]
        # Activations at one place go together, for a score may not tell examples apart.
        for place in np.unique(places[loud], axis=0):
            columns = np.flatnonzero((places == place).all(1) & loud)
            found = attribute(
                until,
                photographs.inputs(network, images[columns]),
                partial(_at, channel=int(unit), row=int(place[0]), column=int(place[1])),
                method="deconvnet",
                seed=seed,
                images_per_forward=images_per_forward,
            )
            # What is carried back is linear in the activation, once the signs are known.
            values[row, columns] = found.numpy() * patches.values[row, columns, None, None, None]
    return Projections(patches, values)


def _at(maps: Tensor, channel: int, row: int, column: int) -> Tensor:
    return maps[:, channel, row, column]


def sufficiency(
    network: Network, photographs: Photographs, projections: Projections, *, share: float = 0.3, seed: int = 0
) -> Sufficiency:
    """Test projections: leave only the pixels that they point to, and see how much of the activation is left.

    Parameters
    ----------
    network : Network
        Left as it was found.
    photographs : Photographs
        Those that were searched.
    projections : Projections
        What :func:`project` returned.
    share : float
        Which share of the receptive field's part of the image to leave; the rest becomes the mean colour of all
        images, which the network sees as zero.
    seed : int
        Seed of the random blots.

    Raises
    ------
    InputError
        If `share` is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise InputError(f"share {share:g}: expected a number between 0 and 1")
    patches = projections.patches
    until = UpTo(network.module, patches.layer)
    draw = numpy_generator(seed, "blots")
    kept = np.full((3, *patches.images.shape), np.nan)
    with instrumented(network.module, seed), torch.no_grad():
        for unit, place in np.argwhere(~patches.silent).tolist():
            image = photographs.inputs(network, [int(patches.images[unit, place])])
            top, left, bottom, right = patches.boxes[unit, place]
            inside = np.zeros(image.shape[2:], dtype=bool)
            inside[top:bottom, left:right] = True
            strength = gaussian_filter(np.abs(projections.values[unit, place]).sum(0), _BLUR)
            blots = gaussian_filter(draw.standard_normal(inside.shape), 2 * _BLUR)
            y, x = np.indices(inside.shape)
            middle = -np.maximum(
                np.abs(y - (top + bottom - 1) / 2) / (bottom - top),
                np.abs(x - (left + right - 1) / 2) / (right - left),
            )
            masks = [_strongest(map_, inside, share) for map_ in (strength, blots, middle)]
            masked = image * torch.from_numpy(np.stack(masks)).to(image)[:, None]
            row, column = patches.positions[unit, place]
            maps = (
                until(torch.cat([image, masked]))[:, patches.units[unit], row, column].double().cpu().numpy()
            )
            kept[:, unit, place] = maps[1:] / maps[0]
    return Sufficiency(projected=kept[0], random=kept[1], centred=kept[2], share=share)


def _strongest(values: NDArray[np.floating], inside: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """Return the share of the pixels inside whose values are largest."""
    count = max(round(share * int(inside.sum())), 1)
    order = np.argsort(np.where(inside, -values, np.inf), axis=None, kind="stable")
    mask = np.zeros(inside.size, dtype=bool)
    mask[order[:count]] = True
    return mask.reshape(inside.shape)
