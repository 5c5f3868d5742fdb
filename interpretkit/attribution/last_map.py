"""The layer that class activation maps look at by default: the last that holds places."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from interpretkit.errors import InputError
from interpretkit.networks.instrumentation import check_outputs
from interpretkit.networks.memory_order import untouched_state

# From a layer's output to maps (m, channels, ...).
Layout = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LastMap:
    """Where a model's last map is.

    Attributes
    ----------
    layer : str
        A dotted name; or, where no module gives the map, a function's, such as ``cat()``, with the number of its call
        if there are several: ``cat()#3``.
    layout : callable or None
        What brings the layer's output to ``(m, channels, ...)``; None if it is so.
    """

    layer: str
    layout: Layout | None = None


def _named(*spaces: Any, names: str) -> set[Any]:
    return {getattr(space, name) for name in names.split() for space in spaces if hasattr(space, name)}


# What takes places together, or draws them out, and adds nothing that a map could show.
_POOLS = _named(
    torch,
    F,
    Tensor,
    names="avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d max_pool2d_with_indices lp_pool2d "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d interpolate",
)
# What hands numbers on, or moves them about.
_MOVES = _named(
    torch,
    F,
    Tensor,
    names="dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout clone contiguous to float double "
    "detach __getitem__ narrow expand expand_as view view_as reshape flatten unflatten permute transpose movedim "
    "swapaxes moveaxis swapdims squeeze unsqueeze",
)
_TRANSPOSES = _named(torch, Tensor, names="transpose swapaxes swapdims")
_PERMUTES = _named(torch, Tensor, names="permute")
# Functions of each number alone, which belong to the layer before them.
_ELEMENTWISE = _named(
    torch,
    F,
    Tensor,
    names="relu relu6 elu selu celu gelu silu mish leaky_relu prelu softplus softsign sigmoid tanh logsigmoid "
    "hardsigmoid hardswish hardtanh hardshrink softshrink tanhshrink threshold abs square exp clamp clamp_min relu_ "
    "relu6_ elu_ selu_ celu_ leaky_relu_ hardtanh_ sigmoid_ tanh_ abs_ square_ exp_ clamp_ mul div add sub mul_ div_ "
    "add_ sub_ __mul__ __rmul__ __add__ __radd__ __truediv__ __sub__ __rsub__ __imul__ __iadd__ __isub__ __itruediv__",
)
_WEIGHS = _named(
    torch,
    F,
    Tensor,
    names="conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear bilinear matmul mm bmm "
    "addmm baddbmm einsum __matmul__ multi_head_attention_forward scaled_dot_product_attention",
)
# Functions whose results are maps whatever their extents are.
_SPATIAL = _named(
    torch,
    F,
    Tensor,
    names="conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d batch_norm instance_norm "
    "avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d max_pool2d_with_indices lp_pool2d "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d interpolate",
)
_NORMS = {F.layer_norm} | _named(F, torch, names="rms_norm")
_JOINS = {torch.cat, torch.concat, torch.concatenate}
_ACTIVATIONS = (
    *(
        nn.ReLU,
        nn.ReLU6,
        nn.ELU,
        nn.SELU,
        nn.CELU,
        nn.GELU,
        nn.SiLU,
        nn.Mish,
        nn.LeakyReLU,
        nn.PReLU,
        nn.Softplus,
    ),
    *(nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softsign),
)
# By default an attempt to lay out tokens is made if so many at most belong to no place.
_MOST_PREFIX_TOKENS = 32


@dataclass(frozen=True)
class _Event:
    """Something that has been given: by a function, then `module` is None, or by a module."""

    func: Callable[..., Any] | None
    name: str
    number: int
    module: nn.Module | None
    node: Any
    tensor: Tensor
    layout: Layout | None
    is_map: bool


# Of a model, by its structure and the inputs' shape.
_FOUND: weakref.WeakKeyDictionary[nn.Module, dict[Hashable, LastMap]] = weakref.WeakKeyDictionary()


def last_map(model: nn.Module, images: Tensor) -> LastMap:
    """Return where the last map of a model is through which all passes that makes its outputs.

    A pass of one image is recorded, and its graph is searched. Poolings, and what moves numbers about, are taken off;
    activations belong to the module before them. The tokens of transformers are laid out as maps if it can be seen
    how the places of a map have become tokens. Where only a class token is read in the end, the last tokens of places
    are those that the last attention takes.

    Parameters
    ----------
    model : Module
        Within :func:`~interpretkit.networks.instrumentation.instrumented`.
    images : Tensor, (n, channels, ...)
        The first is used. The answer is kept for others of its shape, as long as the modules are the same.

    Raises
    ------
    InputError
        If there is none, or it cannot be told.
    """
    structure = tuple((name, type(module)) for name, module in model.named_modules())
    key = structure, images.shape[1:], images.dtype
    found = _FOUND.setdefault(model, {})
    if key not in found:
        found[key] = _searched(model, images[:1])
    return found[key]


def _searched(model: nn.Module, image: Tensor) -> LastMap:
    leaf = image.detach().clone().requires_grad_()
    with torch.enable_grad():
        given = leaf.clone()
    with untouched_state(model), torch.enable_grad(), ExitStack() as stack:
        record = _Record(leaf, {id(module): name for name, module in model.named_modules()})
        for module in model.modules():
            # Scripted modules take no hooks.
            if not isinstance(module, torch.jit.ScriptModule):
                stack.callback(module.register_forward_hook(record.hook).remove)
        stack.enter_context(record)
        outputs = model(given)
    hidden = any(
        isinstance(module, torch.jit.ScriptModule) and any(weight.ndim > 2 for weight in module.parameters())
        for module in model.modules()
    )
    check_outputs(outputs, 1)
    if hidden or not record.events:
        raise _untold(record)
    # What gradients do not reach is searched as far as they do.
    return _Search(record, leaf, outputs if outputs.requires_grad else record.events[-1].tensor).result()


def _untold(record: _Record) -> InputError:
    names = [
        event.name for event in record.events if event.module is not None and event.is_map and event.name
    ]
    some = list(dict.fromkeys(reversed(names)))[:3]
    such = f", such as {' or '.join(some)}" if some else ""
    return InputError(
        "layer: the model has no convolution to take by default, or another layer with a map through which the whole "
        f"score passes; expected a layer's name{such}"
    )


class _Record(TorchFunctionMode):
    """Notes what functions and modules give in a pass of one image, and how places have become tokens."""

    def __init__(self, leaf: Tensor, names: dict[int, str]) -> None:
        super().__init__()
        self.events: list[_Event] = []
        self.runs: dict[int, int] = {}
        self.calls: dict[str, int] = {}
        # Layers with weights that have given a sequence of places whose order cannot be told, by event's number.
        self.untold: list[_Event] = []
        self._names = names
        self._space = leaf.shape[2:]
        self._dimensions = leaf.ndim
        self._maps: list[Tensor] = []
        # The extents of all that are maps for certain.
        self._extents = {leaf.shape[2:]}
        self._channels_last = False
        # Whether rows stand for columns at present.
        self._turned = False
        # From the number of tokens to that of the first that has a place; None if it is not the same for all.
        self._offsets: dict[int, int | None] = {}
        self._grid: torch.Size | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(getattr(func, "__name__", ""))
        self.calls[name] = self.calls.get(name, 0) + 1
        if func in _JOINS and isinstance(result, Tensor) and result.ndim == 3:
            self._join(args, kwargs or {}, result)
        if isinstance(result, Tensor) and result.ndim == 4 and _turns(func, args, kwargs or {}):
            self._turned = not self._turned
        if isinstance(result, Tensor):
            self._note(func, f"{name}()", self.calls[name], None, result)
        return result

    def hook(self, module: nn.Module, _: Any, output: Any) -> None:
        """Note what a module gives."""
        self.runs[id(module)] = self.runs.get(id(module), 0) + 1
        if isinstance(output, Tensor):
            self._note(None, self._names.get(id(module), ""), self.runs[id(module)], module, output)

    def _note(
        self, func: Callable[..., Any] | None, name: str, number: int, module: nn.Module | None, given: Tensor
    ) -> None:
        node = given.grad_fn
        if node is None or not given.is_floating_point() or not given.ndim or given.shape[0] != 1:
            return
        # Without a mode, for what is looked at here is nobody's business.
        with torch._C.DisableTorchFunction():
            layout, is_map = self._layout(func, given)
        event = _Event(func, name, number, module, node, given, layout, is_map)
        self.events.append(event)
        if not is_map and module is not None and self._may_hold_places(module, given):
            self.untold.append(event)

    def _may_hold_places(self, module: nn.Module, given: Tensor) -> bool:
        weighted = any(True for _ in module.parameters(recurse=False))
        return weighted and given.ndim >= 3 and given.shape[1] > 1 and given.shape[2:].numel() > 1

    def _layout(self, func: Callable[..., Any] | None, given: Tensor) -> tuple[Layout | None, bool]:
        """Return what makes maps of what is given, and whether it can be told that there are any."""
        if given.ndim == self._dimensions and given.ndim > 2:
            if func in _SPATIAL:
                self._extents.add(given.shape[2:])
            if self._dimensions != 4:
                return None, given.shape[2:] in self._extents and given[0, 0].numel() > 1
            first, second, third = given.shape[1:]
            as_usual, as_last = self._fits(second, third), self._fits(first, second)
            if func is not None and as_last and self._maps and not self._turned:
                old = self._maps[-1]
                if old.shape[1:] == (third, first, second) and torch.equal(old.permute(0, 2, 3, 1), given):
                    self._channels_last = True
            if self._turned:
                return None, False
            known = given.shape[2:] in self._extents
            if self._channels_last and known == (given.shape[1:3] in self._extents):
                known = as_usual
                if as_usual == as_last:
                    return None, False
            elif not self._channels_last:
                known = known or as_usual
            if known and second * third > 1:
                self._maps.append(given.detach())
                return None, True
            if self._channels_last and not known:
                return _from_channels_last, first * second > 1
            return None, False
        if given.ndim == 3 and self._dimensions == 4:
            return self._token_layout(func, given)
        return None, False

    def _fits(self, height: int, width: int) -> bool:
        """Return whether the extents are the image's by one stride, but for what borders add."""
        tall, wide = self._space
        return abs(height * wide - width * tall) <= 2 * max(tall, wide)

    def _token_layout(self, func: Callable[..., Any] | None, given: Tensor) -> tuple[Layout | None, bool]:
        _, count, width = given.shape
        if func is not None and self._maps:
            old = self._maps[-1]
            same = old.shape[1] == width and old[0, 0].numel() == count > 1
            if same and torch.equal(old.flatten(2).transpose(1, 2), given):
                self._offsets, self._grid = {count: 0}, old.shape[2:]
        offset = self._offsets.get(count)
        if offset is None or self._grid is None:
            return None, False
        return partial(_from_tokens, offset=offset, grid=self._grid), True

    def _join(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> None:
        parts = args[0] if args else kwargs.get("tensors", ())
        axis = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
        if axis not in (1, -2) or not all(isinstance(part, Tensor) for part in parts):
            return
        lengths = [part.shape[1] for part in parts]
        with_places = [place for place, length in enumerate(lengths) if length in self._offsets]
        others = sum(lengths) - sum(lengths[place] for place in with_places)
        if len(with_places) != 1 or others > _MOST_PREFIX_TOKENS:
            self._offsets[result.shape[1]] = None
            return
        (place,) = with_places
        own = self._offsets[lengths[place]]
        offset = None if own is None else own + sum(lengths[:place])
        known = self._offsets.get(result.shape[1], offset)
        self._offsets[result.shape[1]] = offset if known == offset else None


class _Search:
    """Finds the last map in what was recorded.

    Parameters
    ----------
    record : _Record
    leaf : Tensor
        The input.
    outputs : Tensor
        What the model gave.
    """

    def __init__(self, record: _Record, leaf: Tensor, outputs: Tensor) -> None:
        self._record = record
        self._outputs = outputs
        self._leaf = leaf
        self._source = leaf.view_as(leaf).grad_fn.next_functions[0][0]  # type: ignore[union-attr]
        self._all = self._behind(outputs.grad_fn, None)
        self._weighs = {event.node for event in record.events if event.func in _WEIGHS}

    def result(self) -> LastMap:
        """Return the last map.

        Raises
        ------
        InputError
            If it cannot be told.
        """
        number, event = self._last_passage()
        if event is None:
            raise _untold(self._record)
        found = self._tokens_before_the_end(number) or self._named(number, event)
        # Layers further on whose places cannot be told may be meant.
        chosen = found[0]
        later = {id(e) for e in self._record.events[chosen + 1 :]}
        if any(id(e) in later and e.node in self._all for e in self._record.untold):
            raise _untold(self._record)
        return found[1]

    def _last_passage(self) -> tuple[int, _Event | None]:
        """Return the last map that all passes through, poolings taken off."""
        tried: dict[Any, bool] = {}
        for number in range(len(self._record.events) - 1, -1, -1):
            event = self._record.events[number]
            if event.func is None or not event.is_map or self._adds_nothing(event):
                continue
            if event.node not in tried:
                tried[event.node] = self._dominates(event.node)
            if tried[event.node] and self._moves(event):
                return number, event
        return -1, None

    def _adds_nothing(self, event: _Event) -> bool:
        """Return whether an event is but another form of a map before it."""
        if event.func in _POOLS:
            return True
        if event.func in _MOVES:
            before = {step for step, _ in event.node.next_functions}
            return any(other.node in before and other.is_map for other in self._record.events)
        return event.layout is not None and event.func in _NORMS

    def _dominates(self, node: Any) -> bool:
        behind = self._behind(self._outputs.grad_fn, node)
        weighed = not self._weighs.isdisjoint(self._behind(node, None))
        return weighed and node in self._all and self._source not in behind

    def _moves(self, event: _Event) -> bool:
        """Return whether a change of the places' values changes the outputs."""
        if event.layout is None:
            return True
        return bool((event.layout(self._gradient(event.tensor, ())) != 0).any())

    def _gradient(self, tensor: Tensor, stopped: Iterable[Tensor]) -> Tensor:
        """Return the gradient of a mixture of all outputs by a tensor, nothing passing through those stopped."""
        mixture = torch.cos(torch.arange(1.0, self._outputs.numel() + 1, dtype=torch.float64))
        direction = mixture.to(self._outputs).reshape(self._outputs.shape)
        handles = [other.register_hook(torch.zeros_like) for other in stopped]
        try:
            found = torch.autograd.grad(
                self._outputs, tensor, direction, retain_graph=True, allow_unused=True
            )[0]
        finally:
            for handle in handles:
                handle.remove()
        return torch.zeros_like(tensor) if found is None else found

    def _behind(self, node: Any, closed: Any) -> set[Any]:
        """Return the steps that a step depends on, itself included, by ways that avoid another."""
        seen: set[Any] = set()
        waiting = [node]
        while waiting:
            step = waiting.pop()
            if step is None or step is closed or step in seen:
                continue
            seen.add(step)
            waiting.extend(following for following, _ in step.next_functions)
        return seen

    def _tokens_before_the_end(self, number: int) -> tuple[int, LastMap] | None:
        """Return a later layer of tokens that all places pass through, if the last passage is one of tokens."""
        passage = self._record.events[number]
        if passage.layout is None or passage.tensor.ndim != 3:
            return None
        best = None
        for later in range(number + 1, len(self._record.events)):
            event = self._record.events[later]
            if event.module is None or event.layout is None or event.tensor.shape != passage.tensor.shape:
                continue
            if event.node is passage.node or not event.name or self._run_again(event):
                continue
            own = self._gradient(event.tensor, ())
            if not bool((event.layout(own) != 0).any()):
                continue
            others = self._gradient(passage.tensor, [event.tensor])
            assert passage.layout is not None
            if not bool((passage.layout(others) != 0).any()) and self._is_not_only_a_norm(later):
                best = later, LastMap(event.name, event.layout)
        return best

    def _is_not_only_a_norm(self, number: int) -> bool:
        """Return whether more than a norm and poolings follows: else the last block is before them."""
        return any(
            event.func in _WEIGHS and event.tensor.ndim >= 3 and event.tensor.shape[1] > 1
            for event in self._record.events[number + 1 :]
        )

    def _run_again(self, event: _Event) -> bool:
        return event.number != self._record.runs[id(event.module)]

    def _named(self, number: int, event: _Event) -> tuple[int, LastMap]:
        """Return the name of the module that gives a map, or the one before an activation; else the function's."""
        node, func = event.node, event.func
        while True:
            named = self._module_of(node, event)
            if named is not None:
                return number, LastMap(named.name, named.layout)
            steps = [step for step, _ in node.next_functions if step is not None]
            if func not in _ELEMENTWISE or len(steps) != 1:
                break
            (node,) = steps
            makers = [e for e in self._record.events if e.node is node and e.func is not None]
            if not makers or makers[0].tensor.shape != event.tensor.shape:
                break
            func = makers[0].func
        calls = self._record.calls[event.name.removesuffix("()")]
        name = event.name if calls == 1 else f"{event.name}#{event.number}"
        return number, LastMap(name, event.layout)

    def _module_of(self, node: Any, event: _Event) -> _Event | None:
        given = [
            e
            for e in self._record.events
            if e.module is not None
            and e.node is node
            and e.name
            and e.is_map
            and e.tensor.shape == event.tensor.shape
            and not self._run_again(e)
            and not isinstance(e.module, _ACTIVATIONS)
        ]
        # The smallest part that has parts of its own: a block rather than its last layer, or the stage that it ends.
        blocks = [e for e in given if any(True for _ in e.module.children())]  # type: ignore[union-attr]
        return next(iter(blocks or given), None)


def _turns(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether a function makes rows of the columns of maps ``(n, channels, height, width)``."""
    given = [*args[1:], *kwargs.values()]
    if func in _TRANSPOSES:
        return sorted(axis % 4 for axis in given if isinstance(axis, int)) == [2, 3]
    if func in _PERMUTES:
        axes = given[0] if len(given) == 1 else given
        order = [axis % 4 for axis in axes] if isinstance(axes, (tuple, list, torch.Size)) else []
        return len(order) == 4 and order.index(3) < order.index(2) and order[1] == 1
    return func == Tensor.mT.__get__  # type: ignore[attr-defined]


def _from_channels_last(maps: Tensor) -> Tensor:
    return maps.permute(0, 3, 1, 2)


def _from_tokens(tokens: Tensor, *, offset: int, grid: torch.Size) -> Tensor:
    placed = tokens[:, offset : offset + grid.numel()]
    return placed.transpose(1, 2).unflatten(2, tuple(grid))
