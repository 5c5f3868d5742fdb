"""Other rules for the gradient of a ReLU, wherever and however the model applies it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from interpretkit.errors import InputError

_OUT_OF_PLACE = {torch.relu, Tensor.relu}
_IN_PLACE = {torch.relu_, Tensor.relu_}
_INFINITY = float("inf")
# Steps that only code leaves that calls no function of Python's.
_OUT_OF_REACH = {"ReluBackward0", "DifferentiableGraphBackward", "CompiledFunctionBackward"}


class _Rectified(torch.autograd.Function):
    """A ReLU, capped or not, that passes back positive gradients: where it is open itself, or everywhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cap: float, guided: bool, inplace: bool) -> Tensor:
        ctx.guided = guided
        if guided:
            ctx.save_for_backward(x > 0 if cap == _INFINITY else (x > 0) & (x < cap))
        if inplace:
            ctx.mark_dirty(x)
            return x.clamp_(0, cap)
        return x.clamp(0, cap)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        passed = gradients[0].clamp(min=0)
        if ctx.guided:
            passed = torch.where(ctx.saved_tensors[0], passed, 0)
        return passed, None, None, None


class RectifiedGradients(TorchFunctionMode):
    """While active, every ReLU and ReLU6 passes back only gradients that are positive.

    It acts on the calls of the functions, so that modules, functions, reused and in-place ones are all met, and
    the model is not touched. Compiled code is out of its reach: see :func:`check_rectified`.

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
        if call is None:
            return func(*args, **(kwargs or {}))
        self.met += 1
        x, cap, inplace = call
        if inplace and x._base is not None:
            # A step of the view alone would be lost where the model goes on with what it is a view of.
            output = x.copy_(self._rectified(x, cap, False))
        else:
            output = self._rectified(x, cap, inplace)
        return output

    def _rectified(self, x: Tensor, cap: float, inplace: bool) -> Tensor:
        if not x.requires_grad:
            return x.clamp_(0, cap) if inplace else x.clamp(0, cap)
        return _Rectified.apply(x, cap, self.guided, inplace)  # type: ignore[return-value]


def check_rectified(output: Tensor) -> None:
    """Raise InputError if a ReLU has a part in an output that was out of the reach of :class:`RectifiedGradients`."""
    seen: set[Any] = set()
    waiting = [output.grad_fn]
    while waiting:
        step = waiting.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        capped = step.name() == "HardtanhBackward0" and getattr(step, "_saved_min_val", None) == 0
        if capped or step.name() in _OUT_OF_REACH:
            raise InputError(
                f"model: holds compiled code ({step.name()}), whose ReLUs the method cannot reach; expected the code "
                "that it was made from, or a method such as integrated_gradients"
            )
        waiting.extend(following for following, _ in step.next_functions)


def _rectifier_call(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, float, bool] | None:
    """Return a ReLU's input, its cap, and whether it works in place; None for any other function."""
    if func in _OUT_OF_PLACE or func in _IN_PLACE:
        return args[0] if args else kwargs["input"], _INFINITY, func in _IN_PLACE
    if func is F.relu or func is F.relu6:
        given = dict(zip(("input", "inplace"), args, strict=False)) | kwargs
        return given["input"], 6.0 if func is F.relu6 else _INFINITY, bool(given.get("inplace", False))
    if func is F.hardtanh or func is F.hardtanh_:  # the one is what the module ReLU6 calls
        given = dict(zip(("input", "min_val", "max_val", "inplace"), args, strict=False)) | kwargs
        if given.get("min_val", -1.0) == 0:
            inplace = func is F.hardtanh_ or bool(given.get("inplace", False))
            return given["input"], float(given.get("max_val", 1.0)), inplace
    return None
