"""Calls of functions, seen while a model runs: activations, poolings, products, and gradients of our own for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Functions of each number alone, by which a model bends its signal. Some take the option inplace.
_OUT_OF_PLACE = {
    *(
        F.relu,
        F.relu6,
        F.hardtanh,
        F.elu,
        F.selu,
        F.celu,
        F.leaky_relu,
        F.silu,
        F.mish,
        F.hardswish,
        F.threshold,
    ),
    *(F.hardsigmoid, F.sigmoid, F.tanh, F.softsign, F.tanhshrink, F.gelu, F.softplus, F.logsigmoid, F.prelu),
    *(F.hardshrink, F.softshrink, Tensor.hardshrink, torch.prelu, Tensor.prelu, torch.selu, torch.celu),
    *(torch.relu, torch.sigmoid, torch.tanh, torch.exp, torch.square, torch.abs, torch.sin, torch.cos),
    *(
        Tensor.relu,
        Tensor.sigmoid,
        Tensor.tanh,
        Tensor.exp,
        Tensor.square,
        Tensor.abs,
        Tensor.sin,
        Tensor.cos,
    ),
    *(torch.clamp, torch.clamp_min, torch.clamp_max, Tensor.clamp, Tensor.clamp_min, Tensor.clamp_max),
    *(torch.clip, Tensor.clip),
}
_IN_PLACE: dict[Callable[..., Any], Callable[..., Any]] = {
    F.elu_: F.elu,
    F.selu_: F.selu,
    F.celu_: F.celu,
    F.leaky_relu_: F.leaky_relu,
    F.hardtanh_: F.hardtanh,
    torch.threshold_: F.threshold,
    torch.relu_: torch.relu,
    Tensor.relu_: torch.relu,
    torch.sigmoid_: torch.sigmoid,
    Tensor.sigmoid_: torch.sigmoid,
    torch.tanh_: torch.tanh,
    Tensor.tanh_: torch.tanh,
    torch.exp_: torch.exp,
    Tensor.exp_: torch.exp,
    torch.square_: torch.square,
    Tensor.square_: torch.square,
    torch.abs_: torch.abs,
    Tensor.abs_: torch.abs,
    Tensor.sin_: torch.sin,
    Tensor.cos_: torch.cos,
    torch.clamp_: torch.clamp,
    Tensor.clamp_: torch.clamp,
    Tensor.clamp_min_: torch.clamp_min,
    Tensor.clamp_max_: torch.clamp_max,
    Tensor.clip_: torch.clamp,
}
# Those that may have a parameter for each channel or position.
_NOT_UNIFORM = {
    *(
        F.prelu,
        torch.prelu,
        Tensor.prelu,
        torch.clamp,
        torch.clamp_min,
        torch.clamp_max,
        torch.clip,
        torch.clamp_,
    ),
    *(Tensor.clamp, Tensor.clamp_min, Tensor.clamp_max, Tensor.clip),
    *(Tensor.clamp_, Tensor.clamp_min_, Tensor.clamp_max_, Tensor.clip_),
}
_MAX_POOLINGS = {
    *(F.max_pool1d, F.max_pool2d, F.max_pool3d, torch.max_pool1d, torch.max_pool2d, torch.max_pool3d),
    *(F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
}
_PRODUCTS = {torch.mul, torch.multiply, Tensor.mul, Tensor.multiply, Tensor.__mul__, Tensor.__rmul__}
_IN_PLACE_PRODUCTS = {Tensor.mul_, Tensor.__imul__}


@dataclass(frozen=True)
class Call:
    """A function of one tensor.

    Attributes
    ----------
    x : Tensor
        What it is applied to.
    apply : callable
        The function, not in place.
    inplace : bool
        Whether the model wants the result in `x` itself.
    uniform : bool
        Whether it does the same to every number, wherever that is.
    """

    x: Tensor
    apply: Callable[[Tensor], Tensor]
    inplace: bool = False
    uniform: bool = True

    def give(self, result: Tensor) -> Tensor:
        """Return the result where the model expects it."""
        return self.x.copy_(result) if self.inplace else result


def activation_call(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
    """Return the call of an activation function; None for any other function."""
    if func in _IN_PLACE and _is_signal(args):
        return Call(
            args[0],
            lambda x: _IN_PLACE[func](x, *args[1:], **kwargs),
            inplace=True,
            uniform=func not in _NOT_UNIFORM,
        )
    if func not in _OUT_OF_PLACE:
        return None
    inplace = False
    if inspect.isfunction(func):
        bound = inspect.signature(func).bind(*args, **kwargs)
        inplace = bool(bound.arguments.get("inplace", False))
        if inplace:
            bound.arguments["inplace"] = False
        args, kwargs = bound.args, bound.kwargs
    elif not args and "input" in kwargs:
        args, kwargs = (kwargs["input"],), {name: value for name, value in kwargs.items() if name != "input"}
    if not _is_signal(args):
        return None
    return Call(args[0], lambda x: func(x, *args[1:], **kwargs), inplace, func not in _NOT_UNIFORM)


def max_pooling_call(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
    """Return the call of a max pooling; None for any other function, and for one that gives indices too."""
    if func not in _MAX_POOLINGS or kwargs.get("return_indices") or not _is_signal(args):
        return None
    return Call(args[0], lambda x: func(x, *args[1:], **kwargs))


def product_call(func: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Tensor, Tensor, bool] | None:
    """Return the factors of a product of two tensors and whether the first is to hold it; None otherwise."""
    inplace = func in _IN_PLACE_PRODUCTS
    if not (inplace or func in _PRODUCTS) or len(args) < 2:
        return None
    first, second = args[:2]
    if not (isinstance(first, Tensor) and isinstance(second, Tensor)):
        return None
    return first, second, inplace


class _Valued(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, path: Tensor, value: Tensor) -> Tensor:
        # The same memory, but not as a view, which the model could not change in place.
        return value.data

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, rule: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.rule = rule
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            return ctx.rule(x.detach(), gradients[0]).detach(), None, None


def valued(path: Tensor, value: Tensor) -> Tensor:
    """Return `value`, from which gradients go back the way that `path`, of the same shape, came.

    It is not copied: nobody else may rely on `value` afterwards, for the model may change it in place.
    """
    return _Valued.apply(path, value.detach())  # type: ignore[return-value]


def with_backward(x: Tensor, value: Tensor, rule: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return `value`; a gradient by it goes back to `x` as ``rule(x, gradient)``."""
    return _Backward.apply(x, value.detach(), rule)  # type: ignore[return-value]


def derivative(apply: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the derivative of a function of each number alone."""
    return pulled_back(apply, x, None)


def pulled_back(apply: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor | None) -> Tensor:
    """Return the gradient by `x` that belongs to a gradient by ``apply(x)``, by default one of ones."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        y = apply(leaf)
        return torch.autograd.grad(y, leaf, torch.ones_like(y) if gradient is None else gradient)[0]


def _is_signal(args: tuple[Any, ...]) -> bool:
    return bool(args) and isinstance(args[0], Tensor) and args[0].is_floating_point()
