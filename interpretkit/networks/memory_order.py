"""Networks that do not notice in which order their images lie in memory, and how they are known."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
import torch.nn.modules.module as nn_module
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# What a function does that matters here: look at a shape; give what lies in new memory, or in that of its arguments,
# whatever the order is; give the one or the other, as the order has it; change its first argument.
Kind = Literal["look", "give", "order", "change"]

_LOOKS = "dim ndimension numel size __len__ is_floating_point is_complex"
_SEEN = "shape ndim dtype device requires_grad is_cuda is_cpu is_mps"
_GIVES = (
    "relu relu6 elu selu celu gelu silu mish leaky_relu prelu softplus softsign sigmoid tanh logsigmoid hardsigmoid "
    "hardswish hardtanh hardshrink softshrink tanhshrink threshold softmax log_softmax softmin "
    "abs absolute add addcmul addcdiv sub subtract mul multiply div divide true_divide neg negative pow exp expm1 log "
    "log1p log2 sqrt rsqrt square reciprocal sin cos erf clamp clamp_min clamp_max clip maximum minimum where lerp "
    "sign floor ceil round nan_to_num "
    "__add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ __rtruediv__ __rdiv__ __div__ __neg__ __pow__ "
    "__rpow__ __matmul__ __rmatmul__ __abs__ gt lt ge le eq ne __gt__ __lt__ __ge__ __le__ __eq__ __ne__ "
    "sum mean amax amin prod var std norm logsumexp cumsum var_mean std_mean "
    "matmul mm bmm addmm baddbmm "
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear bilinear "
    "avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d max_pool2d_with_indices "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d lp_pool1d lp_pool2d layer_norm group_norm rms_norm local_response_norm normalize "
    "interpolate upsample pad constant_pad_nd grid_sample affine_grid unfold fold glu "
    "cat concat concatenate hstack vstack dstack stack repeat repeat_interleave tile roll flip clone "
    "zeros ones full arange linspace eye tensor zeros_like ones_like full_like new_zeros new_ones new_full "
    "float double half bfloat16 type type_as to detach requires_grad_ _set_grad_enabled "
    "__getitem__ chunk split tensor_split unsafe_chunk unsafe_split unbind narrow select movedim moveaxis swapaxes "
    "swapdims transpose permute t unsqueeze squeeze unflatten expand expand_as broadcast_to diagonal"
)
_SEEN_AS_VIEWS = "T mT"
_ORDERS = (
    "reshape reshape_as view view_as flatten ravel contiguous pixel_shuffle pixel_unshuffle channel_shuffle"
)
_CHANGES = (
    "relu_ relu6_ elu_ selu_ celu_ silu_ leaky_relu_ sigmoid_ tanh_ hardtanh_ threshold_ softmax_ "
    "abs_ add_ addcmul_ addcdiv_ sub_ subtract_ mul_ multiply_ div_ divide_ neg_ pow_ exp_ sqrt_ rsqrt_ square_ "
    "clamp_ clamp_min_ clamp_max_ copy_ zero_ fill_ masked_fill_ "
    "__iadd__ __isub__ __imul__ __itruediv__ __idiv__ __ipow__ __setitem__"
)
# Where the option inplace stands among the arguments.
_MAY_CHANGE = {
    F.relu: 1,
    F.relu6: 1,
    F.selu: 1,
    F.silu: 1,
    F.mish: 1,
    F.hardswish: 1,
    F.hardsigmoid: 1,
    F.elu: 2,
    F.celu: 2,
    F.leaky_relu: 2,
    F.hardtanh: 3,
    F.threshold: 3,
}
# Where the option training stands, and what it is if it is not given.
_MAY_DRAW = {
    F.dropout: (2, True),
    F.dropout1d: (2, True),
    F.dropout2d: (2, True),
    F.dropout3d: (2, True),
    F.alpha_dropout: (2, False),
    F.feature_alpha_dropout: (2, False),
    torch.dropout: (2, True),
}
_SPACES: tuple[Any, ...] = (torch, Tensor, F)


def _functions(names: str) -> Iterator[Any]:
    for name in names.split():
        for space in _SPACES:
            if hasattr(space, name):
                yield getattr(space, name)


def _kinds() -> dict[Any, Kind]:
    kinds: dict[Any, Kind] = {}
    tables: tuple[tuple[Kind, str], ...] = (
        ("look", _LOOKS),
        ("give", _GIVES),
        ("order", _ORDERS),
        ("change", _CHANGES),
    )
    for kind, names in tables:
        kinds |= dict.fromkeys(_functions(names), kind)
    for kind, names in (("look", _SEEN), ("give", _SEEN_AS_VIEWS)):
        for name in names.split():
            kinds[getattr(Tensor, name).__get__] = cast("Kind", kind)
    kinds |= dict.fromkeys(_MAY_DRAW, "give")
    kinds[F.batch_norm] = kinds[torch.batch_norm] = "give"
    return kinds


_KINDS = _kinds()
# A model's decisions: from its structure and the images' kind to whether it does not notice.
_DECISIONS: weakref.WeakKeyDictionary[nn.Module, dict[Hashable, bool]] = weakref.WeakKeyDictionary()
# What a model may raise that minds the order, having run well without.
_COMPLAINTS = (RuntimeError, ValueError, TypeError, AssertionError, IndexError)


# Of the functions that the order decides on, those that look for it even where the shape stays.
_COPIES = {Tensor.contiguous, F.pixel_shuffle, F.pixel_unshuffle, F.channel_shuffle}


@dataclass
class _Memory:
    """What tensors that are views of each other have in common.

    Attributes
    ----------
    version : int
        How often it has been changed.
    as_order_has_it : bool
        Whether in another order some that are views would be copies, or the reverse.
    """

    version: int
    as_order_has_it: bool = False


class NoticedError(RuntimeError):
    """A model did something of which it is not known that another order of memory makes no difference to it."""


class Watch(TorchFunctionMode):
    """While active, raises :class:`NoticedError` as soon as a model could notice the order of memory.

    Only functions on a list may be called, on nothing but what they have given, the model's own tensors, and its
    input; so code that cannot be watched is found out by what it gives. Where the order decides whether a function
    gives a copy or a view, nobody may write into either any more.

    Parameters
    ----------
    model : Module
        What is watched.
    inputs : Tensor
        What it is given.

    Attributes
    ----------
    noticed : str or None
        The first function that is not harmless, also where the model has caught the error.
    """

    def __init__(self, model: nn.Module, inputs: Tensor) -> None:
        super().__init__()
        self.noticed: str | None = None
        self._own = {id(tensor): tensor for tensor in _tensors_of(model)}
        # From a tensor's identity to itself and its memory.
        self._known: dict[int, tuple[weakref.ref[Tensor], _Memory]] = {}
        self._note(inputs, _Memory(inputs._version))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        kind = _KINDS.get(func)
        if kind is None:
            raise self._found(func)
        if kind == "look":
            return func(*args, **given)
        tensors = list(_tensors((*args, *given.values())))
        if not all(self._is_known(tensor) for tensor in tensors) or _is_special(func, args, given):
            raise self._found(func)
        changes = kind == "change" or (
            func in _MAY_CHANGE and _option(args, given, _MAY_CHANGE[func], "inplace")
        )
        if changes:
            memory = self._memory(args[0]) if args and tensors[0] is args[0] else None
            if memory is None or memory.as_order_has_it:
                raise self._found(func)
            result = func(*args, **given)
            memory.version = args[0]._version
            return result
        result = func(*args, **given)
        places = {tensor.untyped_storage().data_ptr(): tensor for tensor in tensors}
        for tensor in _tensors((result,)):
            if any(tensor is other for other in tensors):
                continue
            source = places.get(tensor.untyped_storage().data_ptr())
            memory = None if source is None else self._memory(source)
            # Views of the model's own tensors are theirs, which nobody may change.
            memory = _Memory(tensor._version, source is not None) if memory is None else memory
            self._note(tensor, memory)
            # Of the same shape it is a view in any order.
            if kind == "order" and (source is None or source.shape != tensor.shape or func in _COPIES):
                memory.as_order_has_it = True
        if kind == "order" and (func in _COPIES or result.shape != tensors[0].shape):
            memory = self._memory(tensors[0])
            if memory is not None:
                memory.as_order_has_it = True
        return result

    def check(self, output: Any) -> None:
        """Raise NoticedError unless what the model gives has been seen to come about."""
        if self.noticed is None and isinstance(output, Tensor) and not self._is_known(output):
            self.noticed = "an output of unknown origin"
        if self.noticed is not None:
            raise NoticedError(self.noticed)

    def _found(self, func: Callable[..., Any]) -> NoticedError:
        self.noticed = self.noticed or str(getattr(func, "__name__", func))
        return NoticedError(self.noticed)

    def _note(self, tensor: Tensor, memory: _Memory) -> None:
        self._known[id(tensor)] = weakref.ref(tensor), memory

    def _memory(self, tensor: Tensor) -> _Memory | None:
        found = self._known.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor else None

    def _is_known(self, tensor: Tensor) -> bool:
        if type(tensor) not in (Tensor, nn.Parameter):
            return False
        if id(tensor) in self._own:
            return True
        memory = self._memory(tensor)
        if memory is None or memory.version != tensor._version:
            return False
        step = tensor.grad_fn
        # A function of the user's own, which is passed back by code that is not watched.
        return not isinstance(step, torch.autograd.function.BackwardCFunction) or _is_ours(step)


def indifferent(model: nn.Module, images: Tensor, passes: Callable[[], AbstractContextManager[Any]]) -> bool:
    """Return whether a model is known not to notice the order of its images ``(n, channels, height, width)`` in memory.

    It is asked for convolutional networks on a CPU, of single or double precision, without anybody's hooks. They run
    twice on two images: as they are, and watched (:class:`Watch`) with the channels next to each other; both must
    give the same. The answer is kept as long as the model is, and as its modules are of the same classes.

    Parameters
    ----------
    model : Module
        Within :func:`~interpretkit.networks.instrumentation.instrumented`.
    images : Tensor, (n, channels, height, width)
        Two at least.
    passes : callable
        Gives the context within which the model runs with the channels next to each other.
    """
    if len(images) < 2:
        return False
    return decided(model, images, "order", lambda: _gives_the_same(model, images[:2].detach(), passes))


def decided(model: nn.Module, images: Tensor, what: str, decide: Callable[[], bool]) -> bool:
    """Return whether something is harmless to a model given such images; decided once for a structure.

    It is not for anything but images on a CPU of single or double precision, nor where hooks or borrowed code make
    the model more than its classes.
    """
    if images.ndim != 4 or images.device.type != "cpu" or type(images) is not Tensor:
        return False
    if images.dtype not in (torch.float32, torch.float64):
        return False
    structure = plain_structure(model)
    if structure is None:
        return False
    key = what, structure, images.shape[1:], images.dtype
    decisions = _DECISIONS.setdefault(model, {})
    if key not in decisions:
        decisions[key] = decide()
    return decisions[key]


def forget(model: nn.Module, images: Tensor) -> None:
    """Hold from now on that nothing is harmless to a model of this structure given such images."""
    structure = plain_structure(model)
    for what in ("order", "layers"):
        _DECISIONS.setdefault(model, {})[what, structure, images.shape[1:], images.dtype] = False


def plain_structure(model: nn.Module) -> Hashable | None:
    """Return what a model is made of; None if hooks, compiled or borrowed code make it more than its classes."""
    if any(vars(nn_module)[name] for name in _GLOBAL_HOOKS):
        return None
    parts: list[Hashable] = []
    convolutional = False
    for name, module in model.named_modules():
        state = vars(module)
        if isinstance(module, torch.jit.ScriptModule) or any(state.get(kind) for kind in _HOOKS):
            return None
        if state.get("_compiled_call_impl") is not None or "forward" in state:
            return None
        for parameter in state["_parameters"].values():
            if parameter is not None and (
                type(parameter) is not nn.Parameter or parameter.device.type != "cpu"
            ):
                return None
        convolutional = convolutional or isinstance(module, nn.Conv2d)
        parts.append((name, type(module), type(module).forward))
    return tuple(parts) if convolutional else None


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = tuple(
    name
    for name in ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")
    if name in vars(nn_module)
)


def _gives_the_same(
    model: nn.Module, images: Tensor, passes: Callable[[], AbstractContextManager[Any]]
) -> bool:
    def fast() -> Any:
        # Differentiable, for it is the steps that are differentiated which are other ones.
        with torch.enable_grad():
            given = in_channels_last(images.clone().requires_grad_().clone())
            with passes(), Watch(model, given) as watch:
                found = model(given)
            watch.check(found)
        return found

    return compared(model, images, fast)


def compared(model: nn.Module, images: Tensor, run: Callable[[], Any]) -> bool:
    """Return whether another way to run a model on some images gives what the model gives, but for rounding.

    The random numbers and the model's buffers are left as they were.
    """
    with untouched_state(model):
        with torch.no_grad():
            expected = model(images.clone())
        try:
            found = run()
        except _COMPLAINTS:
            return False
    if not (isinstance(expected, Tensor) and isinstance(found, Tensor) and expected.shape == found.shape):
        return False
    return agree(expected, found.detach())


def agree(expected: Tensor, found: Tensor) -> bool:
    """Return whether two outputs of the same shape are equal but for rounding; not if any is not finite."""
    if not expected.is_floating_point() or not expected.numel():
        return torch.equal(expected, found)
    room = 1e4 * torch.finfo(expected.dtype).eps * expected.abs().amax()
    return bool(((found - expected).abs() <= room).all())


@contextmanager
def untouched_state(model: nn.Module) -> Iterator[None]:
    """Put a model's buffers and the processor's random numbers back afterwards."""
    buffers = [
        (module, name, buffer, buffer._version, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    random = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(random)
        with torch.no_grad():
            for module, name, buffer, version, before in buffers:
                # The buffers of scripted modules cannot be exchanged.
                if not isinstance(module, torch.jit.ScriptModule):
                    module._buffers[name] = buffer
                if buffer._version != version:
                    buffer.copy_(before)


def in_channels_last(images: Tensor) -> Tensor:
    """Return images ``(n, channels, height, width)`` with the channels next to each other in memory."""
    return images.contiguous(memory_format=torch.channels_last)


def _is_special(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether a function on the list is asked for something that is not harmless."""
    if kwargs.get("out") is not None or kwargs.get("memory_format") is not None:
        return True
    if any(isinstance(value, torch.memory_format) for value in args) or torch.is_autocast_enabled("cpu"):
        return True
    if func in _MAY_DRAW:
        place, default = _MAY_DRAW[func]
        name = "train" if func is torch.dropout else "training"
        return bool(_option(args, kwargs, place, name, default))
    if func is F.batch_norm or func is torch.batch_norm:
        return bool(_option(args, kwargs, 5, "training"))
    if func in (Tensor.view, Tensor.to, Tensor.type):
        # A view of the bits, and devices.
        return func is Tensor.view and any(
            isinstance(value, torch.dtype) for value in (*args, *kwargs.values())
        )
    return False


def _option(
    args: tuple[Any, ...], kwargs: dict[str, Any], place: int, name: str, default: object = False
) -> object:
    return args[place] if len(args) > place else kwargs.get(name, default)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


def _tensors_of(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        state = vars(module)
        yield from _tensors(state["_parameters"].values())
        yield from _tensors(state["_buffers"].values())
        yield from _tensors(state.values())


def _is_ours(step: object) -> bool:
    return getattr(type(step), "_forward_cls", type(step)).__module__.startswith("interpretkit.")
