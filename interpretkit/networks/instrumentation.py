"""Everything that is done to a user's model while it is explained, in one place that undoes it."""

from __future__ import annotations

import difflib
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint

from interpretkit.errors import InputError
from interpretkit.networks.memory_order import NoticedError, untouched_state
from interpretkit.training.seeds import derive_seed

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Modules whose weights are not all in this process, by the names of their classes; to import them takes long.
_SPREAD = {"FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine"}


@contextmanager
def instrumented(model: nn.Module, seed: int) -> Iterator[None]:
    """Prepare a model for explanation, and put it back as it was, also after an exception.

    Within the block every module is in evaluation mode and every parameter frozen, gradients are recorded
    whatever the caller's mode is, and the global random numbers follow `seed`. Afterwards the ``training`` and
    ``requires_grad`` flags, the buffers and the states of the random generators are those found. No ``.grad`` is
    written: gradients are to be asked for with :func:`torch.autograd.grad`.

    What stands between a network and whoever watches it is set aside meanwhile: activations are kept instead of
    computed again (``torch.utils.checkpoint``), what ``torch.compile`` has compiled runs as it was written, and
    ``DataParallel`` uses one device.

    Parameters
    ----------
    model : Module
        Neither copied nor replaced. It may not be used by another thread meanwhile.
    seed : int
        For models that draw random numbers even in evaluation mode.

    Raises
    ------
    InputError
        If the model was built under ``torch.inference_mode``, which bars gradients for good, has layers that get
        their shape only when they run for the first time, or is spread over several processes.
    """
    parameters = list(model.parameters())
    _check_parameters(model, [*parameters, *model.buffers()])
    # The flags are set one by one, because a module's own train() may do more than set its flag.
    training = [module for module in model.modules() if module.training]
    # Frozen weights let convolutions forget their inputs, which halves the memory.
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    kinds = {parameter.device.type for parameter in parameters}
    devices = range(torch.cuda.device_count()) if "cuda" in kinds else ()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.random.fork_rng(devices))
        try:
            for module in training:
                module.training = False
            for parameter in trainable:
                parameter.requires_grad_(False)
            # The generators of other devices are left alone where they are not asked: to seed them takes longer.
            seeded = torch.default_generator if kinds <= {"cpu"} else torch
            seeded.manual_seed(derive_seed(seed, "model"))
            with untouched_state(model), _kept_activations(), _not_compiled(model), _one_device(model):
                yield
        finally:
            for module in training:
                module.training = True
            for parameter in trainable:
                parameter.requires_grad_(True)


def _check_parameters(model: nn.Module, tensors: list[Tensor]) -> None:
    if any(isinstance(tensor, (UninitializedParameter, UninitializedBuffer)) for tensor in tensors):
        raise InputError("model: has lazy layers that have no shape yet; expected one that has run once")
    if any(tensor.is_inference() for tensor in tensors):
        raise InputError("model: built under torch.inference_mode; expected one that gradients can pass")
    for module in model.modules():
        if any(kind.__name__ in _SPREAD for kind in type(module).__mro__):
            raise InputError(
                f"model: {type(module).__name__} spreads its weights over processes; expected the whole network in one"
            )


class _KeptActivations:
    """Lets checkpointed parts of a model run as if they were not, in the threads that ask for it.

    What they compute is the same. A second computation in the backward pass would escape those who watch the first,
    and torch's older kind of checkpoint bars gradients by anything but leaves.
    """

    _NAMES = ("CheckpointFunction", "_checkpoint_without_reentrant_generator")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: Counter[int] = Counter()
        self._found: dict[str, Any] = {}

    @contextmanager
    def __call__(self) -> Iterator[None]:
        # Another version of torch may call them otherwise; then checkpoints are met as they are.
        if not all(hasattr(checkpoint, name) for name in self._NAMES):
            yield
            return
        me = threading.get_ident()
        with self._lock:
            if not self._threads:
                self._replace()
            self._threads[me] += 1
        try:
            yield
        finally:
            with self._lock:
                self._threads[me] -= 1
                self._threads += Counter()
                if not self._threads:
                    for name, found in self._found.items():
                        setattr(checkpoint, name, found)

    def _replace(self) -> None:
        self._found = {name: getattr(checkpoint, name) for name in self._NAMES}
        function, generator = self._found.values()
        threads = self._threads

        class Plain(function):
            @classmethod
            def apply(cls, run: Callable[..., Any], preserve: bool, *arguments: Any) -> Any:
                if threading.get_ident() in threads:
                    return run(*arguments)
                return function.apply(run, preserve, *arguments)

        def plain(*arguments: Any, **options: Any) -> Iterator[None]:
            if threading.get_ident() in threads:
                yield
            else:
                yield from generator(*arguments, **options)

        for name, other in zip(self._NAMES, (Plain, plain), strict=True):
            setattr(checkpoint, name, other)


_kept_activations = _KeptActivations()


@contextmanager
def _not_compiled(model: nn.Module) -> Iterator[None]:
    """Run what torch.compile has compiled as it was written, for compiled code cannot be watched.

    Raises
    ------
    InputError
        If this version of torch cannot, and the model holds compiled modules.
    """
    # Who has compiled anything has loaded it; to load it takes seconds.
    if "torch._dynamo" not in sys.modules:
        yield
    elif hasattr(torch.compiler, "set_stance"):
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        for module in model.modules():
            if hasattr(module, "_orig_mod") or vars(module).get("_compiled_call_impl") is not None:
                raise InputError(
                    "model: is compiled by torch.compile; expected the module that it was made from"
                )
        yield


@contextmanager
def _one_device(model: nn.Module) -> Iterator[None]:
    """Let data-parallel modules use the first of their devices, for others run in threads that are not watched."""
    spread = [module for module in model.modules() if isinstance(module, nn.DataParallel)]
    devices = [module.device_ids for module in spread]
    try:
        for module in spread:
            module.device_ids = module.device_ids[:1]
        yield
    finally:
        for module, own in zip(spread, devices, strict=True):
            module.device_ids = own


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """Return the module of a dotted name, such as ``layer4.1.conv2``.

    Raises
    ------
    InputError
        If there is none; the nearest names are listed.
    """
    # Of what is wrapped the names without the wrapper's are known as well.
    for whole in (name, f"module.{name}", f"_orig_mod.{name}") if name else ():
        with suppress(AttributeError):
            return model.get_submodule(whole)
    modules = {key: module for key, module in model.named_modules(remove_duplicate=False) if key}
    nearest = difflib.get_close_matches(str(name), modules, n=5, cutoff=0.4)
    kind = "the nearest are" if nearest else "there are"
    some = nearest or [*list(modules)[:8], *(["…"] if len(modules) > 8 else [])]
    raise InputError(
        f"layer {name!r}: the model has none of that name; {kind} {', '.join(some) or 'no layers'}"
    )


def check_outputs(outputs: Any, examples: int) -> None:
    """Raise InputError unless a model has given a tensor with a row for each example."""
    if not isinstance(outputs, Tensor):
        raise InputError(
            f"model: gives a {type(outputs).__name__}; expected one tensor (wrap it in a module that returns "
            "its logits)"
        )
    if outputs.ndim == 0 or len(outputs) != examples:
        raise InputError(
            f"model: gives outputs of shape {tuple(outputs.shape)} for {examples} images; "
            "expected a row for each"
        )


class LayerTap:
    """Cuts the computation at a layer's output, so that gradients start there.

    The output is replaced by a copy of a leaf. What follows may change the copy in place, as a ReLU does, and the
    kept activation stays that of the layer. Nothing below the layer takes part in the backward pass. Of a layer
    that runs several times in a pass, the last run counts. Without gradients the model is only listened to.

    Parameters
    ----------
    name : str
        The layer's.

    Attributes
    ----------
    name : str
        The same.
    activation : Tensor or None
        The layer's output in the last pass, a leaf.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.clear()

    def clear(self) -> None:
        """Forget the last pass."""
        self.activation: Tensor | None = None

    def cut(self, output: Any, given: Any, *, new: bool = False) -> Tensor | None:
        """Keep an output, and return what takes its place; None if it stays.

        Parameters
        ----------
        output : Tensor
            Output of the layer.
        given : nested tuples, lists and dicts
            What the layer was given.
        new : bool
            Whether nobody else holds the output, once it is replaced.
        """
        if not isinstance(output, Tensor):
            raise InputError(f"layer {self.name!r}: gives a {type(output).__name__}; expected one tensor")
        if not output.is_floating_point():
            raise InputError(
                f"layer {self.name!r}: gives numbers of type {output.dtype}; expected floating-point ones"
            )
        replaces = torch.is_grad_enabled()
        kept = output.detach() if new and replaces else output.detach().clone()
        self.activation = kept
        if not replaces:
            return None
        return put_in_place(output, kept.requires_grad_(), given, self.name)


# From what a layer gave, and what it was given, to what takes its place; None if it stays.
Meet = Callable[[Any, Any], Tensor | None]


class _Calls(TorchFunctionMode):
    """Meets the calls of a function; with a number, that call alone."""

    def __init__(self, function: str, number: int | None, meet: Meet) -> None:
        super().__init__()
        self._function = function
        self._number = number
        self._meet = meet
        self._calls = 0
        self._runs = True

    def begin(self, *_: Any) -> None:
        """Count from the first call again: the model begins."""
        self._calls = 0
        self._runs = True

    def end(self, *_: Any) -> None:
        """Let all calls pass: the model has ended."""
        self._runs = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if not self._runs or getattr(func, "__name__", None) != self._function:
            return output
        self._calls += 1
        if self._number not in (None, self._calls):
            return output
        replaced = self._meet(output, (args, kwargs or {}))
        return output if replaced is None else replaced


@contextmanager
def watched(model: nn.Module, name: str, meet: Meet, *, passes: bool = False) -> Iterator[None]:
    """Meet what a layer gives in the block; the layer may be a function, such as ``cat()`` or ``cat()#3``.

    Parameters
    ----------
    model : Module
        The model.
    name : str
        The layer's dotted name, or a function's with the number of its call if it is one of several.
    meet : callable
        Is given the output and what the layer was given; what it returns takes the output's place.
    passes : bool
        Whether the block makes several passes of the model: then the calls of a function count anew in each, and
        those between them not at all.

    Raises
    ------
    InputError
        If the model has no layer of that name.
    """
    function, marked, number = name.partition("()")
    with ExitStack() as stack:
        # Else layers of transformers may run in one piece, without their parts.
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        if marked and function.isidentifier() and re.fullmatch(r"(#\d+)?", number):
            mode = _Calls(function, int(number[1:]) if number else None, meet)
            if passes:
                mode.end()
                stack.callback(model.register_forward_pre_hook(mode.begin).remove)
                stack.callback(model.register_forward_hook(mode.end, always_call=True).remove)
            stack.enter_context(mode)
        else:
            module = find_layer(model, name)
            if isinstance(module, torch.jit.ScriptModule):
                raise InputError(f"layer {name!r}: is compiled by TorchScript; expected a layer that is not")

            def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> Tensor | None:
                return meet(output, (args, kwargs))

            stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        yield


@contextmanager
def tapped(model: nn.Module, layer: str) -> Iterator[LayerTap]:
    """Tap a layer, or a function, by a name as :func:`watched` takes it, in each of the block's passes.

    Raises
    ------
    InputError
        If the model has no layer of that name.
    """
    tap = LayerTap(layer)
    module = dict(model.named_modules(remove_duplicate=False)).get(layer)
    # A convolution's output is new, unless somebody has had it before.
    new = (
        module is not None
        and type(module) in CONVOLUTIONS
        and not module._forward_hooks
        and "forward" not in vars(module)
    )
    with watched(model, layer, partial(tap.cut, new=new), passes=True):
        yield tap


def put_in_place(output: Tensor, value: Tensor, given: Any, layer: str) -> Tensor:
    """Return what takes the place of a layer's output, with other values, for what follows to change as it likes.

    Parameters
    ----------
    output : Tensor
        What the layer gave.
    value : Tensor
        The other values; they stay as they are.
    given : nested tuples, lists and dicts
        What the layer was given.
    layer : str
        Its name, for errors.

    Raises
    ------
    InputError
        If the output is one of the layer's inputs, which others know by that name, and cannot be written to.
    """
    if not any(output is tensor for tensor in tensors_in(given)):
        return value.clone()
    try:
        return output.copy_(value)
    except NoticedError:
        raise
    except RuntimeError as error:
        raise InputError(
            f"layer {layer!r}: gives back its own input, which cannot be written to; expected another layer"
        ) from error


def tensors_in(given: Any) -> Iterator[Tensor]:
    """Give the tensors in nested tuples, lists and dicts, in order."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, dict):
        for value in given.values():
            yield from tensors_in(value)
    elif isinstance(given, (list, tuple)):
        for value in given:
            yield from tensors_in(value)
