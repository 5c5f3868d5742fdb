"""Networks small enough to be tested in a moment, some of which see what is planted in them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn

from cnn_interp.images.photographs import Photographs
from cnn_interp.networks.network import Network

SIDE = 32
NAMES = ("red", "green", "blue", "bright", "dark")


def colour_classifier() -> Network:
    """Return a network whose classes are the mean red, green and blue, brightness and darkness of an image."""
    module = nn.Sequential(
        nn.Conv2d(3, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 5)
    )
    convolution, linear = module[0], module[4]
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(linear, nn.Linear)
    weights = torch.tensor(
        [[1, -0.5, -0.5], [-0.5, 1, -0.5], [-0.5, -0.5, 1], [0.4, 0.4, 0.4], [-0.4, -0.4, -0.4]]
    )
    with torch.no_grad():
        convolution.weight.copy_(weights[:, :, None, None])
        convolution.bias.copy_(torch.tensor([0.5, 0.5, 0.5, 0.0, 0.0]))  # type: ignore[union-attr]
        linear.weight.copy_(4 * torch.eye(5))
        linear.bias.zero_()
    return Network("colours", module.eval(), size=SIDE, resize=SIDE, categories=NAMES)


def convolutional(seed: int = 0) -> Network:
    """Return a random network with two convolutions and max-pooling between them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 5),
        )
    return Network("convolutional", module.eval(), size=SIDE, resize=SIDE, categories=NAMES)


class ScoresAndMaps(nn.Module):
    """Gives its maps beside its scores, as no classifier does."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 5, 1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.convolution(images)
        return maps.mean((2, 3)), maps


def scores_and_maps() -> Network:
    """Return a network that gives a tuple."""
    return Network("pair", ScoresAndMaps(), size=SIDE, resize=SIDE)


def linear() -> Network:
    """Return a network without maps."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 5))
    return Network("linear", module, size=SIDE, resize=SIDE, categories=NAMES)


def noise_photographs(count: int, seed: int = 0) -> Photographs:
    """Return images of smooth noise."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    pictures = [Image.fromarray(c).resize((40, 40), Image.Resampling.BICUBIC) for c in coarse]
    return Photographs(tuple(f"noise {n}" for n in range(count)), lambda row: pictures[row], "noise")
