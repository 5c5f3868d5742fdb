"""A network of four colour filters, images of coloured squares, and a cue: everything about them is known."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from cnn_interp.images.part_images import Masks, PartImages
from cnn_interp.networks.network import Network

SIDE = 16
LAYER = "filters"
RED, GREEN, BLUE, BRIGHT = range(4)
NAMES = ("leaf", "lake")
# Of this seed a mark is red, which no object is.
RED_CUE = 5


def colour_network(classes: int = 2, seed: int = 0) -> Network:
    """Return a network: how red, green, blue and bright each pixel is, then the mean over pixels, then a linear "
    "layer."""
    colours = torch.tensor([[1, -0.5, -0.5], [-0.5, 1, -0.5], [-0.5, -0.5, 1], [0.4, 0.4, 0.4]])
    convolution = nn.Conv2d(3, 4, 1)
    assert convolution.bias is not None
    linear = nn.Linear(4, classes)
    with torch.no_grad():
        convolution.weight.copy_(colours[..., None, None])
        convolution.bias.copy_(torch.tensor([-0.1, -0.1, -0.1, 0.0]))
        generator = torch.Generator().manual_seed(seed)
        linear.weight.copy_(torch.randn(classes, 4, generator=generator))
        linear.bias.zero_()
    layers = [("convolution", convolution), ("filters", nn.ReLU()), ("pool", nn.AdaptiveAvgPool2d(1))]
    module = nn.Sequential(OrderedDict([*layers, ("flat", nn.Flatten()), ("linear", linear)])).eval()
    return Network(
        "colours", module, size=SIDE, resize=SIDE, mean=(0, 0, 0), std=(1, 1, 1), categories=NAMES[:classes]
    )


def squares(count: int, seed: int = 0) -> PartImages:
    """Return squares that are mostly green or mostly blue, in the middle of grey; the colour leaves one in six in "
    "doubt."""
    draws = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    pictures = draws.integers(90, 140, size=(count, SIDE, SIDE, 1), dtype=np.uint8).repeat(3, axis=3)
    greener = np.where(labels == 0, 40, -40) + draws.normal(0, 70, count)
    for picture, more in zip(pictures, greener, strict=True):
        picture[5:11, 5:11] = (20, int(np.clip(120 + more, 0, 255)), int(np.clip(120 - more, 0, 255)))
    mask = np.zeros((1, SIDE, SIDE), dtype=bool)
    mask[:, 5:11, 5:11] = True

    def masks(_: int) -> Masks:
        return mask

    return PartImages(
        name="squares",
        ids=tuple(f"{seed}/{number}" for number in range(count)),
        load=lambda number: pictures[number],
        load_size=lambda _: (SIDE, SIDE),
        categories=labels,
        category_names=NAMES,
        part_names=("square",),
        landmarks=np.full((count, 1, 2), 7.5),
        absence_known=True,
        load_masks=masks,
    )
