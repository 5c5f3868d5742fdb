"""A layer's values in the course of a model's pass: to be read, to be replaced, and to be shown as a map."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interpretkit.attribution.explained_model import ExplainedModel
from interpretkit.attribution.last_map import last_map
from interpretkit.attribution.target import TargetScores
from interpretkit.errors import InputError
from interpretkit.networks.instrumentation import put_in_place, watched

# The index of a neuron in a layer's output, without the examples' axis; or the channel.
Neuron = int | Sequence[int] | None
# From a layer's output to (m, channels, ...), for layers that do not give maps.
Reshape = Callable[[Tensor], Tensor]

_INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}
# Values within so much of the largest count as equally large.
_TIE = 1e-4


@dataclass(frozen=True)
class Layer:
    """A layer of a model, or a function that it calls, of whose runs in a pass the last one counts.

    Attributes
    ----------
    name : str
        A dotted name; or a function's, such as ``cat()``, with the number of its call if it is one of several.
    model : Module
        The model.
    runs : int
        How often it runs in a pass; with a number that call alone is a run.
    layout : callable or None
        What brings its values to ``(m, channels, ...)``, where that is known.
    """

    name: str
    model: nn.Module
    runs: int
    layout: Reshape | None = None

    @contextmanager
    def read(self, *, replaced_by: Tensor | None = None, cut: bool = False) -> Iterator[Callable[[], Tensor]]:
        """Let a pass be made in the block, and give what returns the layer's output in it.

        The output may be replaced by other values, or `cut`: replaced by a leaf with the same, where gradients start.
        What follows in the model may work in place on a copy.
        """
        found: list[Tensor] = []
        met = 0

        def meet(output: Any, given: Any) -> Tensor | None:
            nonlocal met
            met += 1
            if met % self.runs:
                return None
            if not isinstance(output, Tensor) or not output.is_floating_point():
                raise InputError(
                    f"layer {self.name!r}: gives no tensor of floating-point numbers; expected one"
                )
            if replaced_by is None and not cut:
                # A copy, for the model may change its own.
                found[:] = [output.clone()]
                return None
            put = output.detach().clone().requires_grad_() if replaced_by is None else replaced_by
            found[:] = [put]
            return put_in_place(output, put, given, self.name)

        with watched(self.model, self.name, meet):
            yield lambda: found[0] if found else _never(self.name)


def _never(name: str) -> Tensor:
    raise InputError(f"layer {name!r}: does not run in the model's forward pass")


def settled_layer(explained: ExplainedModel) -> Layer:
    """Return the layer that was asked for; by default the last that holds places.

    Raises
    ------
    InputError
        If there is none, or it does not run, or gives anything but a tensor with a row for each example.
    """
    name, layout = explained.layer, None
    if name is None:
        found = last_map(explained.model, explained.inputs)
        name, layout = found.layer, found.layout
    outputs: list[Any] = []

    def meet(output: Any, given: Any) -> None:
        outputs.append(output.shape if isinstance(output, Tensor) else type(output).__name__)

    first = torch.zeros(1, dtype=torch.long)
    with watched(explained.model, name, meet):
        explained.scores(explained.inputs[first].clone(), first)
    if not outputs:
        _never(name)
    last = outputs[-1]
    if not isinstance(last, torch.Size) or len(last) < 2 or last[0] != 1:
        shown = tuple(last) if isinstance(last, torch.Size) else f"a {last}"
        raise InputError(f"layer {name!r}: gives {shown} for an example; expected one tensor (1, ...)")
    return Layer(name, explained.model, len(outputs), layout)


def as_places(
    values: Tensor, layer: Layer, size: Sequence[int], reshape: Reshape | None, *, upsample: bool
) -> Tensor:
    """Return a layer's values ``(m, ...)`` as maps ``(m, 1, ...)`` of the inputs' size, summed over channels.

    Without `upsample` they are returned as they are.

    Raises
    ------
    InputError
        If they have no places.
    """
    if not upsample:
        return values if reshape is None else reshape(values)
    reshape = reshape or layer.layout
    values = values if reshape is None else reshape(values)
    if values.ndim != 2 + len(size) or len(size) not in _INTERPOLATION:
        raise InputError(
            f"layer {layer.name!r}: gives {tuple(values.shape)}, which has no places; expected (n, channels, height, "
            "width), the option reshape, or upsample=False"
        )
    return F.interpolate(values.sum(1, keepdim=True), tuple(size), mode=_INTERPOLATION[len(size)])


def chosen_neuron(values: Tensor, neuron: Neuron, layer: str) -> tuple[int, ...]:
    """Return the index of a neuron in a layer's values ``(...)`` of one example.

    Parameters
    ----------
    values : Tensor
        Without the examples' axis.
    neuron : None, int or sequence of int
        The whole index; a channel, of which the strongest place is taken; or None for the strongest neuron.
    layer : str
        Its name, for errors.
    """
    shape = tuple(values.shape)
    if neuron is not None and not isinstance(neuron, int):
        index = tuple(int(place) for place in neuron)
        if len(index) != len(shape) or any(not 0 <= i < n for i, n in zip(index, shape, strict=False)):
            raise InputError(f"neuron {index}: layer {layer!r} gives {shape}; expected an index into that")
        return index
    if neuron is not None and not 0 <= neuron < shape[0]:
        raise InputError(f"neuron {neuron}: layer {layer!r} gives {shape}; expected 0 to {shape[0] - 1}")
    searched = values if neuron is None else values[neuron]
    flat = searched.flatten()
    # Of those that are equally strong but for rounding, the first.
    strong = flat >= flat.max() - _TIE * flat.abs().max()
    place = torch.unravel_index(strong.nonzero()[0, 0], searched.shape) if searched.ndim else ()
    index = tuple(int(i) for i in place)
    return index if neuron is None else (neuron, *index)


def check_neuron(neuron: Neuron) -> None:
    """Raise InputError unless a neuron is None, an index or several."""
    whole = [neuron] if isinstance(neuron, int) else [] if neuron is None else neuron
    if (
        isinstance(whole, str)
        or not isinstance(whole, Sequence)
        or not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in whole)
    ):
        raise InputError(f"neuron {neuron!r}: expected a channel, or an index such as (3, 5, 5)")


class NeuronOf(nn.Module):
    """A model whose output ``(m,)`` is that of one of its neurons."""

    def __init__(self, model: nn.Module, layer: Layer, neuron: tuple[int, ...]) -> None:
        super().__init__()
        self.model = model
        self._layer = layer
        self._neuron = neuron

    def forward(self, x: Tensor) -> Tensor:
        """Return the neuron's values ``(m,)`` for inputs ``(m, ...)``."""
        with self._layer.read() as output:
            self.model(x)
            return output()[(slice(None), *self._neuron)]


def of_neuron(explained: ExplainedModel, row: int, layer: Layer, neuron: tuple[int, ...]) -> ExplainedModel:
    """Return the model with the value of an example's neuron to be explained in place of its score."""
    wrapped = NeuronOf(explained.model, layer, neuron)
    wrapped.training = False
    target = TargetScores(lambda outputs: outputs, 1)
    # What is known of the model's passes is not known of those of another.
    own = {"model": wrapped, "inputs": explained.inputs[row : row + 1], "target": target, "layer": None}
    return replace(explained, **own, any_order=False)


def of_example(explained: ExplainedModel, row: int) -> ExplainedModel:
    """Return the model to be explained for one example, whose target has been settled."""
    indices = explained.target.indices
    target = explained.target.function if indices is None else int(indices[row])
    return replace(explained, inputs=explained.inputs[row : row + 1], target=TargetScores(target, 1))
