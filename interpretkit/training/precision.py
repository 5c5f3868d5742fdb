"""In which precision to compute."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import torch

from interpretkit.errors import InputError

Precision = Literal["auto", "float32", "bfloat16"]


def autocast(device: torch.device, precision: Precision = "float32") -> AbstractContextManager[Any]:
    """Return a context in which a model's forward pass runs in a precision.

    Parameters
    ----------
    device : torch.device
        Where the model is.
    precision : {"auto", "float32", "bfloat16"}
        ``auto`` takes bfloat16 on a CUDA GPU that computes in it, and float32 elsewhere: few CPUs gain by
        less. bfloat16 has the range of float32, so that the loss needs no scaling; of its three digits a training
        may want more, which is why nothing takes it unasked.

    Raises
    ------
    InputError
        If the precision is unknown.
    """
    if precision not in get_args(Precision):
        raise InputError(f"precision {precision!r}: expected one of {', '.join(get_args(Precision))}")
    if precision == "auto":
        precision = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
