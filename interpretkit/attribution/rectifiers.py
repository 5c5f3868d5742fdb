"""Other rules for the gradient of a ReLU, wherever and however the model applies it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_OUT_OF_PLACE = {torch.relu, Tensor.relu}
_IN_PLACE = {torch.relu_, Tensor.relu_}
_INFINITY = float("inf")


class _Ungated(torch.autograd.Function):
    """A ReLU, capped or not, that passes back positive gradients, whatever it passed forward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cap: float, inplace: bool) -> Tensor:
        if inplace:
            ctx.mark_dirty(x)
            return x.clamp_(0, cap)
        return x.clamp(0, cap)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0].clamp(min=0), None, None


class RectifiedGradients(TorchFunctionMode):
    """While active, every ReLU and ReLU6 passes back only gradients that are positive.

    It acts on the calls of the functions, so that modules, functions, reused and in-place ones are all met, and
    the model is not touched. Code compiled by TorchScript is out of its reach.

    Parameters
    ----------
    guided : bool
        Whether the gradient must also pass the ReLU's own gate: guided backpropagation rather than the
        deconvolutional network.

    Attributes
    ----------
    met : int
        How many ReLUs have run.
    """

    def __init__(self, guided: bool) -> None:
        super().__init__()
        self.guided = guided
        self.met = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        call = _rectifier_call(func, args, kwargs or {})
        if call is not None:
            self.met += 1
            if not self.guided:
                return _Ungated.apply(*call)
        output = func(*args, **(kwargs or {}))
        if call is not None and output.requires_grad:
            # A hook of the tensor stays at this step of the computation, though the tensor be changed later.
            output.register_hook(lambda gradient: gradient.clamp(min=0))
        return output


def _rectifier_call(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, float, bool] | None:
    """Return a ReLU's input, its cap, and whether it works in place; None for any other function."""
    if func in _OUT_OF_PLACE or func in _IN_PLACE:
        return args[0], _INFINITY, func in _IN_PLACE
    if func is F.relu or func is F.relu6:
        given = dict(zip(("input", "inplace"), args, strict=False)) | kwargs
        return given["input"], 6.0 if func is F.relu6 else _INFINITY, bool(given.get("inplace", False))
    if func is F.hardtanh:  # what the module ReLU6 calls
        given = dict(zip(("input", "min_val", "max_val", "inplace"), args, strict=False)) | kwargs
        if given.get("min_val", -1.0) == 0:
            return given["input"], float(given.get("max_val", 1.0)), bool(given.get("inplace", False))
    return None
