"""Images without their detail."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def blurred(images: Tensor, deviation: float, radius: int | None = None) -> Tensor:
    """Return images ``(m, channels, height, width)`` smoothed by a Gaussian, the border repeated outwards.

    Parameters
    ----------
    images : Tensor, (m, channels, height, width)
        What is smoothed.
    deviation : float
        The Gaussian's standard deviation, in pixels.
    radius : int, optional
        How far it reaches, in pixels; by default three standard deviations.
    """
    radius = math.ceil(3 * deviation) if radius is None else radius
    places = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-(places**2) / (2 * deviation**2))
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, -1)
    padded = F.pad(images, (radius, radius, radius, radius), mode="replicate")
    across = F.conv2d(padded, kernel, groups=images.shape[1])
    return F.conv2d(across, kernel.transpose(2, 3), groups=images.shape[1])
