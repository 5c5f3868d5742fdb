"""Calls of affine maps, seen while a model runs: convolutions, linear layers, and batch norms merged into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from interpretkit.attribution.function_calls import Call, activation_call

_CONVOLUTIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}


@dataclass(frozen=True)
class AffineMap:
    """A step ``y = apply(x, weight) + bias`` of a model.

    Attributes
    ----------
    kind : {"convolution", "linear", "batch_norm"}
        The last for a batch norm that follows neither of the others.
    x : Tensor, (m, ...)
        What the map is applied to.
    weight : Tensor
        Its first axis is that of the outputs.
    bias : Tensor or None
        Broadcasts to the outputs.
    apply : callable
        The linear part, from `x` and `weight`.
    number : int
        How many convolutions and linear layers have run before.
    merged : bool
        Whether a batch norm is part of it.
    """

    kind: str
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    apply: Callable[[Tensor, Tensor], Tensor]
    number: int
    merged: bool = False

    def per_output(self, numbers: Tensor) -> Tensor:
        """Give numbers ``(outputs,)`` the axes of the weight."""
        return numbers.reshape(-1, *[1] * (self.weight.ndim - 1))


class AffineMode(TorchFunctionMode):
    """While active, lets a rule act on every affine map and every activation function of a model.

    It acts on the calls of the functions, so that reused modules are met each time they run. A batch norm in
    evaluation mode is merged into the convolution or linear layer whose output it takes: the rule sees first the map
    without it, then the two as one, with the same number. The model's weights are not touched.
    """

    def __init__(self) -> None:
        super().__init__()
        self.met = 0
        self._last: tuple[AffineMap, Tensor, Tensor, int] | None = None

    def affine(self, step: AffineMap, output: Tensor) -> Tensor:
        """Return an affine map's output ``(m, ...)``, which may be given another way back."""
        return output

    def activation(self, call: Call) -> Tensor | None:
        """Return an activation's output, not in place; None for the ordinary one."""
        return None

    def other(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call any other function."""
        return func(*args, **kwargs)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS or func is F.linear:
            return self._map(func, args, kwargs)
        if func is F.batch_norm:
            return self._batch_norm(args, kwargs)
        call = activation_call(func, args, kwargs)
        if call is not None:
            result = self.activation(call)
            return func(*args, **kwargs) if result is None else call.give(result)
        return self.other(func, args, kwargs)

    def _map(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        x, weight, bias = given.pop("input"), given.pop("weight"), given.pop("bias", None)
        rest = args[3:]
        convolution = func in _CONVOLUTIONS
        if bias is not None and convolution:
            bias = bias.reshape(-1, *[1] * _CONVOLUTIONS[func])
        step = AffineMap(
            "convolution" if convolution else "linear",
            x,
            weight,
            bias,
            lambda x, weight: func(x, weight, None, *rest, **given),
            self.met,
        )
        output = func(*args, **kwargs)
        self.met += 1
        result = self.affine(step, output)
        self._last = (step, output, result, result._version)
        return result

    def _batch_norm(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
        given: dict[str, Any] = {**dict(zip(names, args, strict=False)), **kwargs}
        x, mean, variance = given["input"], given["running_mean"], given["running_var"]
        last, self._last = self._last, None
        if given.get("training", False) or mean is None or variance is None:
            return F.batch_norm(**given)
        scale = (variance + given.get("eps", 1e-5)).rsqrt()
        if given.get("weight") is not None:
            scale = scale * given["weight"]
        shift = -mean * scale
        if given.get("bias") is not None:
            shift = shift + given["bias"]
        channels = (-1, *[1] * (x.ndim - 2))
        if last is not None and last[2] is x and x._version == last[3]:
            step, output = last[:2]
            bias = shift if step.bias is None else step.bias.flatten() * scale + shift
            merged = AffineMap(
                step.kind,
                step.x,
                step.weight * step.per_output(scale),
                bias.reshape(channels),
                step.apply,
                step.number,
                merged=True,
            )
            given["input"] = output
            return self.affine(merged, F.batch_norm(**given))
        alone = AffineMap(
            "batch_norm",
            x,
            scale.reshape(channels),
            shift.reshape(channels),
            lambda x, weight: x * weight,
            self.met,
        )
        return self.affine(alone, F.batch_norm(**given))
