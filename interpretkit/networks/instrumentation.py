"""Everything that is done to a user's model while it is explained, in one place that undoes it."""

from __future__ import annotations

import difflib
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin
from torch.utils import checkpoint
from torch.utils.hooks import RemovableHandle

from interpretkit.attribution.memory_order import untouched_state
from interpretkit.errors import InputError
from interpretkit.training.seeds import derive_seed

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Of the convolutions in the order in which they were registered, so many are taken for candidates to run last.
LIKELY_LAST = 6
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
    if any(isinstance(tensor, UninitializedTensorMixin) for tensor in tensors):
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
    if name:
        with suppress(AttributeError):
            return model.get_submodule(name)
    modules = {key: module for key, module in model.named_modules(remove_duplicate=False) if key}
    nearest = difflib.get_close_matches(str(name), modules, n=5, cutoff=0.4)
    kind = "the nearest are" if nearest else "there are"
    some = nearest or [*list(modules)[:8], *(["…"] if len(modules) > 8 else [])]
    raise InputError(
        f"layer {name!r}: the model has none of that name; {kind} {', '.join(some) or 'no layers'}"
    )


class LayerTap:
    """Cuts the computation at a layer's output, so that gradients start there.

    The output is replaced by a copy of a leaf. What follows may change the copy in place, as a ReLU does, and the
    kept activation stays that of the layer. Nothing below the layer takes part in the backward pass. Of a layer
    that runs several times in a pass, the last run counts.

    Parameters
    ----------
    cut : iterable of str
        The layers to cut at, of those that are watched.

    Attributes
    ----------
    cut : set of str
        The same; may be changed between passes.
    name : str or None
        The last layer that was cut at in a forward pass.
    activation : Tensor or None
        Its output, a leaf.
    last : str or None
        The last layer that was met, cut at or not.
    """

    def __init__(self, cut: Iterable[str]) -> None:
        self.cut = set(cut)
        self.clear()

    def clear(self) -> None:
        """Forget the last pass."""
        self.name: str | None = None
        self.last: str | None = None
        self.activation: Tensor | None = None

    def watch(self, name: str, module: nn.Module, *, maps_only: bool) -> RemovableHandle:
        """Watch a layer until the handle is removed; with `maps_only` it is not met unless it gives a map."""

        def hook(module: nn.Module, arguments: Any, output: Any) -> Tensor | None:
            if not isinstance(output, Tensor):
                raise InputError(f"layer {name!r}: gives a {type(output).__name__}; expected one tensor")
            if maps_only and output[0, 0].numel() < 2:
                return None
            self.last = name
            if name not in self.cut:
                return None
            kept = output.detach()
            # Others may hold what a layer gives, but for a convolution's output, which is new.
            kept = kept if isinstance(module, CONVOLUTIONS) else kept.clone()
            self.name, self.activation = name, kept.requires_grad_()
            return self.activation.clone()

        return module.register_forward_hook(hook)


@contextmanager
def tapped(model: nn.Module, layer: str | None) -> Iterator[LayerTap]:
    """Tap a layer; without a name all convolutions are watched, and those cut at that may be the last to run.

    Raises
    ------
    InputError
        If the model has no layer of that name, or no convolution.
    """
    if layer is not None:
        chosen = [(layer, find_layer(model, layer))]
    else:
        chosen = [
            (name, module) for name, module in model.named_modules() if isinstance(module, CONVOLUTIONS)
        ]
        if not chosen:
            raise InputError(
                "layer: the model has no convolution to take by default; expected a layer's name"
            )
    # Only a pass tells the order, and a second one costs more than a few cuts; but early maps are large to copy.
    tap = LayerTap(name for name, _ in chosen[-LIKELY_LAST:])
    with ExitStack() as stack:
        for name, module in chosen:
            stack.callback(tap.watch(name, module, maps_only=layer is None).remove)
        yield tap
