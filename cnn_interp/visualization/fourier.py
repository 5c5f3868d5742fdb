"""Images by their Fourier coefficients, each scaled so that all have the size that they have in natural images."""

from __future__ import annotations

import torch
from torch import Tensor

# Square root of the covariance of the red, green and blue of natural images (Olah et al., "Feature visualization",
# Distill 2017), its longest column 1 long.
_COLOURS = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
_COLOURS = _COLOURS / _COLOURS.norm(dim=0).max()


def random_spectrum(channels: int, side: int, generator: torch.Generator) -> Tensor:
    """Return coefficients ``(channels, side, side // 2 + 1, 2)``, normal with a deviation of 1."""
    return torch.randn(channels, side, side // 2 + 1, 2, generator=generator)


def from_spectrum(spectrum: Tensor, side: int) -> Tensor:
    """Return images ``(n, c, side, side)`` for coefficients ``(n, c, side, side // 2 + 1, 2)``.

    Steps of one length in the coefficients move images in smooth and coarse ways rather than in speckles, as steps
    of pixels do: a coefficient is multiplied by the inverse of its frequency, which is how the amplitudes of natural
    images fall.
    """
    vertical = torch.fft.fftfreq(side, device=spectrum.device)[:, None]
    horizontal = torch.fft.rfftfreq(side, device=spectrum.device)[None]
    frequency = (vertical**2 + horizontal**2).sqrt().clamp(min=1 / side)
    scaled = torch.view_as_complex(spectrum.contiguous()) * (side / frequency)
    return torch.fft.irfft2(scaled, s=(side, side))


def natural_colours(images: Tensor) -> Tensor:
    """Return images ``(n, 3, h, w)`` whose channels, if they were independent, vary together as colours do."""
    return torch.einsum("nchw,dc->ndhw", images, _COLOURS.to(images))
