"""Passes through a convolutional network that cost less on a CPU and give the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from interpretkit.networks.batching import out_of_memory
from interpretkit.networks.memory_order import compared, decided, forget, in_channels_last, indifferent

T = TypeVar("T")

# Up to so many channels of images.
FEW_CHANNELS = 4
_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_BATCH_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")


def run_fast(function: Callable[[Tensor], T], images: Tensor, model: nn.Module) -> T:
    """Return what a function of a model, or of its first layers, gives for images ``(n, channels, height, width)``.

    Convolutions of several images are cheaper on a CPU with the channels next to each other in memory. They get them
    so if the model is known not to notice (:func:`~interpretkit.networks.memory_order.indifferent`); models with
    hooks are not.

    Parameters
    ----------
    function : callable
        Runs the model, or a part of it.
    images : Tensor, (n, channels, height, width)
        What it is given.
    model : Module
        Within :func:`~interpretkit.networks.instrumentation.instrumented`.
    """
    if indifferent(model, images, FastPasses):
        try:
            with FastPasses():
                return function(in_channels_last(images))
        except RuntimeError as error:
            if out_of_memory(error):
                raise
        # The model minds after all, or it fails in any order.
        forget(model, images)
    return function(images)


@contextmanager
def fast_passes(model: nn.Module, images: Tensor, *, single: bool) -> Iterator[bool]:
    """Make a model's passes cheaper within the block, where it is known that they give the same.

    Parameters
    ----------
    model : Module
        Within :func:`~interpretkit.networks.instrumentation.instrumented`.
    images : Tensor, (n, channels, height, width)
        What it will be given, perturbed or not.
    single : bool
        Whether a single image goes through the model, once. It gains by :func:`fast_layers`, others by
        :class:`FastPasses`.

    Yields
    ------
    bool
        Whether images may have their channels next to each other in memory.
    """
    if single:
        with fast_layers(model) if _gains_by_layers(model, images) else nullcontext():
            yield False
        return
    several = images if len(images) > 1 else torch.cat([images, 0.5 * images])
    if indifferent(model, several, FastPasses):
        with FastPasses():
            yield True
    else:
        yield False


class FastPasses(TorchFunctionMode):
    """While active, networks in evaluation mode take images in any order of memory, and differentiate fast.

    For those alone that are known not to notice: see :mod:`interpretkit.networks.memory_order`.
    ``Tensor.view`` of what has its channels last copies it where it must, as ``reshape`` does. Batch normalisation by
    kept statistics is one multiplication and addition if it is to be differentiated: its own backward pass
    prepares for gradients of its parameters, which nobody asks for. The first convolution is differentiated as
    :class:`_FastStem` says. All act on the calls of the functions; the model is not touched.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func is F.batch_norm:
            normalised = _as_affine(**(dict(zip(_BATCH_NORM, args, strict=False)) | given))
            if normalised is not None:
                return normalised
        elif func is F.conv2d:
            convolved = _as_stem(**(dict(zip(_CONVOLUTION, args, strict=False)) | given))
            if convolved is not None:
                return convolved
        elif func is Tensor.view and _has_channels_last(args[0]):
            try:
                return func(*args, **given)
            except RuntimeError:
                # Not one stretch of memory in this order.
                args = (args[0].contiguous(), *args[1:])
        return func(*args, **given)


@contextmanager
def fast_layers(model: nn.Module) -> Iterator[None]:
    """While active, the layers of a model that are slow for a single image on a CPU are faster, and give the same.

    Maximum pooling is faster with the channels last, the change of order and back included, and so is the first
    convolution, which is differentiated as :class:`_FastStem` says. Convolutions of single pixels with a stride look at
    no others. ``interpretkit bench attribution`` times them beside torch's own.
    """
    with ExitStack() as stack:
        for module in model.modules():
            fast = _fast_forward(module)
            if fast is not None and "forward" not in vars(module):
                # Of the instance, so that the hooks of others see what they always see.
                module.forward = partial(fast, module)
                stack.callback(delattr, module, "forward")
        yield


def _gains_by_layers(model: nn.Module, image: Tensor) -> bool:
    """Return whether some of a model's layers may be replaced by faster ones for an image ``(1, ...)``."""
    if not any(_fast_forward(module) for module in model.modules()):
        return False

    def fast() -> Any:
        with torch.enable_grad(), fast_layers(model):
            return model(image.clone().requires_grad_().clone())

    return decided(model, image, "layers", lambda: compared(model, image, fast))


def _fast_forward(layer: nn.Module) -> Callable[..., Any] | None:
    """Return what to call in place of a layer's own ``forward``, from the layer and its input; None for most."""
    # Classes derived from these may do something else.
    if type(layer) is nn.MaxPool2d:
        return _pool
    if type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and layer.stride != (1, 1):
        if layer.in_channels <= FEW_CHANNELS:
            return _convolve_image
        if layer.kernel_size == (1, 1) and layer.padding == (0, 0):
            return _convolve_some
    return None


def _convolve_image(layer: nn.Conv2d, input: Tensor) -> Tensor:
    convolved = _as_stem(
        input, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups
    )
    return nn.Conv2d.forward(layer, input) if convolved is None else convolved


def _convolve_some(layer: nn.Conv2d, input: Tensor) -> Tensor:
    """Apply a convolution of single pixels to those alone that its stride does not skip.

    Torch looks at the others as well, above all for the gradient.
    """
    if input.ndim != 4 or input.device.type != "cpu" or not input.is_contiguous():
        return nn.Conv2d.forward(layer, input)
    down, across = layer.stride
    return F.conv2d(input[:, :, ::down, ::across], layer.weight, layer.bias, groups=layer.groups)


def _as_stem(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    """Return what ``F.conv2d`` would, or None where it had better do so itself.

    That is also under torch's transformations of functions, which derivatives of one's own stand in the way of, and
    where torch chooses the precision of each function.
    """
    if weight.shape[1] > FEW_CHANNELS or groups != 1 or input.ndim != 4 or isinstance(padding, str):
        return None
    if input.device.type != "cpu" or input.dtype != torch.float32 or weight.requires_grad:
        return None
    if torch._C._are_functorch_transforms_active() or torch.is_autocast_enabled("cpu"):
        return None
    step, margin, spread = (
        (n, n) if isinstance(n, int) else tuple(n) * (2 // len(n)) for n in (stride, padding, dilation)
    )
    if step[0] != step[1] or step[0] == 1 or spread != (1, 1):
        return None
    if bias is not None and bias.requires_grad:
        return None
    if not (input.requires_grad and torch.is_grad_enabled()):
        return None if len(input) > 1 else _convolved(input, weight, bias, step[0], margin)
    return cast("Tensor", _FastStem.apply(input, weight, bias, step[0], margin))


def _convolved(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: tuple[int, ...]
) -> Tensor:
    if len(x) > 1 or not x.is_contiguous():
        return F.conv2d(x, weight, bias, stride, padding)
    maps = F.conv2d(x.contiguous(memory_format=torch.channels_last), weight, bias, stride, padding)
    # The change of order as that of a matrix, for torch is slow with that of a map; into memory of its own, for what
    # follows may change it in place, which is barred for views that are made here.
    found = maps.new_empty(maps.shape)
    found.view(maps.shape[1], -1).copy_(maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).T)
    return found


class _FastStem(torch.autograd.Function):
    """A convolution of few channels with a stride, as networks begin with, whose input gradient takes less time.

    The gradient of an image of three channels leaves most of a processor's lanes idle. The pixels that lie a stride
    apart share their weights: taken for channels of a smaller image, their gradients are an ordinary convolution.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: tuple[int, int]
    ) -> Tensor:
        ctx.shape, ctx.stride, ctx.padding = x.shape[2:], stride, padding
        ctx.save_for_backward(weight)
        return _convolved(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        return input_gradient(gradients[0], weight, ctx.stride, ctx.padding, ctx.shape), *[None] * 4


def input_gradient(
    gradient: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Return the gradient by the input of a convolution with a stride.

    Parameters
    ----------
    gradient : Tensor, (n, out, rows, columns)
        By the convolution's output.
    weight : Tensor, (out, channels, kernel height, kernel width)
        The convolution's.
    stride : int
        In both directions.
    padding : tuple of int, (2,)
        Zeros before and after the rows, and the columns.
    size : tuple of int, (2,)
        The input's height and width.

    Returns
    -------
    Tensor, (n, channels, height, width)
    """
    out, channels, height, width = weight.shape
    taps = [-(-height // stride), -(-width // stride)]
    filled = F.pad(weight, (0, stride * taps[1] - width, 0, stride * taps[0] - height))
    split = filled.reshape(out, channels, taps[0], stride, taps[1], stride)
    kernel = split.permute(1, 3, 5, 0, 2, 4).flip(4, 5).reshape(channels * stride**2, out, *taps)
    spaced = F.conv2d(gradient, kernel, padding=(taps[0] - 1, taps[1] - 1))
    found = F.pixel_shuffle(spaced, stride)
    found = found[..., padding[0] : padding[0] + size[0], padding[1] : padding[1] + size[1]]
    # What no window reaches has no gradient.
    return F.pad(found, (0, size[1] - found.shape[3], 0, size[0] - found.shape[2])).contiguous()


def _pool(layer: nn.MaxPool2d, input: Tensor) -> Any:
    plain = (
        input.ndim == 4 and input.device.type == "cpu" and input.is_contiguous() and input.is_floating_point()
    )
    if not plain or layer.return_indices or torch._C._are_functorch_transforms_active():
        return nn.MaxPool2d.forward(layer, input)
    stride = layer.kernel_size if layer.stride is None else layer.stride
    return _FastPool.apply(input, (layer.kernel_size, stride, layer.padding, layer.dilation, layer.ceil_mode))


class _FastPool(torch.autograd.Function):
    """Pools with the channels last, but passes the gradient on in the usual order, which what precedes it takes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, how: tuple[Any, ...]) -> Tensor:
        pooled, indices = F.max_pool2d(
            x.contiguous(memory_format=torch.channels_last), *how, return_indices=True
        )
        ctx.how = how
        ctx.save_for_backward(x, indices)
        return pooled.contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x, indices = ctx.saved_tensors
        size, stride, padding, dilation, ceil_mode = ctx.how
        backward = torch.ops.aten.max_pool2d_with_indices_backward
        pairs = [[n, n] if isinstance(n, int) else list(n) for n in (size, stride, padding, dilation)]
        return backward(gradients[0].contiguous(), x, *pairs, ceil_mode, indices.contiguous()), None


def _has_channels_last(x: Tensor) -> bool:
    return x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def _as_affine(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    """Return what ``F.batch_norm`` would, or None where it had better do so itself."""
    if training or running_mean is None or running_var is None:
        return None
    if not input.requires_grad or len(input) < 2 or input.device.type != "cpu":
        return None
    parts = [part for part in (running_mean, running_var, weight, bias) if part is not None]
    if any(part.requires_grad or part.dtype != input.dtype for part in parts):
        return None
    scale = (running_var + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -running_mean * scale
    shift = shift if bias is None else shift + bias
    shape = (1, -1, *[1] * (input.ndim - 2))
    return torch.addcmul(shift.reshape(shape), input, scale.reshape(shape))
