"""The activation of a channel or a class, one number for each image."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from cnn_interp.images.photographs import Photographs
from cnn_interp.networks.network import Network
from interpretkit.errors import InputError
from interpretkit.networks.fast_passes import run_fast
from interpretkit.networks.instrumentation import instrumented
from interpretkit.networks.truncated import UpTo

# Of a channel's map: its mean, the unit in the middle, or the largest.
Place = Literal["mean", "centre", "max"]


def check_channels(outputs: Tensor, channels: Tensor, layer: str | None) -> None:
    """Raise InputError unless outputs ``(n, c, ...)`` have all of the channels ``(m,)``."""
    what = "the network" if layer is None else f"layer {layer!r}"
    if outputs.ndim not in (2, 4):
        raise InputError(
            f"{what}: gives outputs of shape {tuple(outputs.shape)}; expected (n, channels) or "
            "(n, channels, height, width)"
        )
    for channel in channels.tolist():
        if not 0 <= channel < outputs.shape[1]:
            kind = "target" if layer is None else "unit"
            raise InputError(
                f"{kind} {channel}: {what} has {outputs.shape[1]} of them; expected 0 to {outputs.shape[1] - 1}"
            )


def placed(outputs: Tensor, place: Place) -> Tensor:
    """Return one activation ``(n, c)`` for each image and channel of outputs ``(n, c)`` or ``(n, c, h, w)``.

    Raises
    ------
    InputError
        If `place` is none of mean, centre and max.
    """
    if place not in get_args(Place):
        raise InputError(f"place {place!r}: expected one of {', '.join(get_args(Place))}")
    if outputs.ndim == 2:
        return outputs
    if place == "mean":
        return outputs.mean((2, 3))
    if place == "max":
        return outputs.amax((2, 3))
    return outputs[:, :, outputs.shape[2] // 2, outputs.shape[3] // 2]


def activations(
    network: Network,
    photographs: Photographs,
    layer: str | None,
    *,
    place: Place = "max",
    images_per_forward: int = 8,
) -> Tensor:
    """Return the activations ``(n, c)`` of all channels of a layer on photographs.

    Parameters
    ----------
    network : Network
        Left as it was found.
    photographs : Photographs
        Streamed.
    layer : str or None
        A dotted name; None for the logits.
    place : {"mean", "centre", "max"}
        What of a map counts.
    images_per_forward : int
        How many go through the network at once.
    """
    until = UpTo(network.module, layer)
    with instrumented(network.module, 0), torch.no_grad():
        found = [
            placed(run_fast(until, inputs, network.module), place).cpu()
            for _, inputs in photographs.batches(network, images_per_forward)
        ]
    return torch.cat(found)
