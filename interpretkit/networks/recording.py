"""What the layers of a network give for some inputs, one pass for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from interpretkit.errors import InputError
from interpretkit.networks.instrumentation import find_layer, instrumented


@contextmanager
def recording(module: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Record what layers give in each pass within the block.

    Parameters
    ----------
    module : Module
        Left without hooks afterwards, also after an exception.
    layers : sequence of str
        Dotted names.

    Yields
    ------
    dict
        From a layer's name to its output in the last pass ``(n, ...)``, with its gradient graph if gradients are
        recorded. A layer that runs several times in a pass gives its last output. What follows a layer may work in
        place, as a ReLU does, so the output is kept as a copy where that could be.

    Raises
    ------
    InputError
        If there is no layer of a name, or it gives something other than a tensor.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise InputError(f"layer {name!r}: gives a {type(output).__name__}; expected one tensor")
            outputs[name] = output.clone()

        return hook

    with ExitStack() as stack:
        for name in layers:
            handle = find_layer(module, name).register_forward_hook(keep(name))
            stack.callback(handle.remove)
        yield outputs


def layer_outputs(
    module: nn.Module, inputs: Tensor, layers: Sequence[str], *, seed: int = 0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a network's outputs and those of some of its layers, without gradients.

    The module is in evaluation mode meanwhile and is left as it was found.

    Parameters
    ----------
    module : Module
        The network.
    inputs : Tensor, (n, ...)
        As the network takes them.
    layers : sequence of str
        Dotted names.

    Returns
    -------
    outputs : Tensor
        Outputs of the network, ``(n, classes)``.
    layers : dict
        From name to the layer's output ``(n, ...)``.

    Raises
    ------
    InputError
        See :func:`recording`.
    """
    with instrumented(module, seed), torch.no_grad(), recording(module, layers) as outputs:
        result = module(inputs)
        return result, dict(outputs)


def map_layers(module: nn.Module, inputs: Tensor) -> dict[str, tuple[int, ...]]:
    """Return the layers that give maps, in the order in which they run, with their outputs' shapes.

    Parameters
    ----------
    module : Module
        The network.
    inputs : Tensor, (n, ...)
        As the network takes them.

    Returns
    -------
    dict
        From dotted name to ``(channels, height, width)``. Layers that give ``(height, width, channels)``, as those
        of Swin transformers do, are left out; they are known by their first two sizes, which a square image makes
        equal.
    """
    square = inputs.shape[-2] == inputs.shape[-1]
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                first, second, last = output.shape[1:]
                if square and first == second != last:
                    return
                shapes.pop(name, None)
                shapes[name] = tuple(output.shape[1:])

        return hook

    with instrumented(module, 0), torch.no_grad(), ExitStack() as stack:
        for name, layer in module.named_modules():
            if name:
                stack.callback(layer.register_forward_hook(note(name)).remove)
        module(inputs[:1])
    return shapes
