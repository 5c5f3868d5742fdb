"""A network that ends at one of its layers, or begins at one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from interpretkit.errors import InputError
from interpretkit.networks.instrumentation import find_layer, watched


class _Reached(Exception):
    """The layer has run for the last time; the rest of the pass is not needed."""


class UpTo(nn.Module):
    """A network whose output is that of a layer; what follows the layer is not computed.

    Parameters
    ----------
    module : Module
        The network; it is used as it is, and hooked only while it runs.
    layer : str or None
        The dotted name of the layer; None for the network's own output.

    Raises
    ------
    InputError
        If there is no such layer; when called, if it does not run or gives no single tensor.

    Notes
    -----
    Of a layer that runs several times in a pass, the last run counts. The first call finds out how many there are
    and computes the whole network; later calls stop at the last.
    """

    def __init__(self, module: nn.Module, layer: str | None) -> None:
        super().__init__()
        self.module = module
        self.layer = layer
        # In a list, so that it is not registered a second time.
        self._target = [] if layer is None else [find_layer(module, layer)]
        self._runs: int | None = None
        # Not by train(), which would set the flags of the user's modules as well.
        self.training = module.training

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the layer's output ``(n, ...)`` for inputs ``(n, ...)``."""
        if not self._target:
            return self.module(inputs)
        found: list[Tensor] = []

        def keep(_: nn.Module, __: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise InputError(
                    f"layer {self.layer!r}: gives a {type(output).__name__}; expected one tensor"
                )
            # A copy, for what follows may work in place, unless the pass ends here.
            last = len(found) + 1 == self._runs
            found.append(output if last else output.clone())
            if last:
                raise _Reached

        handle = self._target[0].register_forward_hook(keep)
        try:
            self.module(inputs)
        except _Reached:
            pass
        finally:
            handle.remove()
        if not found:
            raise InputError(f"layer {self.layer!r}: does not run in the network's forward pass")
        self._runs = len(found)
        return found[-1]


class From(nn.Module):
    """A network that begins at one of its layers: its inputs are what the layer gives.

    What comes before the layer runs for one example only, whose output is then replaced.

    Parameters
    ----------
    module : Module
        The network; it is used as it is, and hooked only while it runs.
    layer : str
        The dotted name of the layer.
    example : Tensor, (1, ...)
        Any input of the network.

    Raises
    ------
    InputError
        If there is no such layer; when called, if it runs several times in a pass, or gives values of another shape.

    Notes
    -----
    It gives what the network gives only where everything that the output depends on passes through the layer;
    what goes around it is the example's. :meth:`expect_the_same` finds out.
    """

    def __init__(self, module: nn.Module, layer: str, example: Tensor) -> None:
        super().__init__()
        self.module = module
        self.layer = layer
        find_layer(module, layer)
        # A buffer would be part of the network's state.
        self._example = [example[:1].detach()]
        self.training = module.training

    def forward(self, values: Tensor) -> Tensor:
        """Return the network's output ``(n, ...)`` for values ``(n, ...)`` of the layer."""
        runs = 0

        def meet(output: Any, _: Any) -> Tensor:
            nonlocal runs
            runs += 1
            if runs > 1:
                raise InputError(
                    f"layer {self.layer!r}: runs several times in a pass; expected one that runs once"
                )
            if not isinstance(output, Tensor) or output.shape[1:] != values.shape[1:]:
                shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else type(output).__name__
                raise InputError(
                    f"layer {self.layer!r}: values of shape {tuple(values.shape[1:])}; expected {shape}"
                )
            return values.clone()

        with watched(self.module, self.layer, meet):
            found = self.module(self._example[0])
        if not runs:
            raise InputError(f"layer {self.layer!r}: does not run in the network's forward pass")
        return found

    def expect_the_same(self, values: Tensor, outputs: Tensor, *, tolerance: float = 1e-3) -> None:
        """Raise InputError unless the network's outputs ``(n, ...)`` follow from the layer's values ``(n, ...)``.

        Parameters
        ----------
        values, outputs : Tensor
            What the layer and the network give for the same inputs, such as differ from the example.
        tolerance : float
            By how much they may differ, over the largest output.
        """
        with torch.no_grad():
            found = self(values)
        same = found.shape == outputs.shape
        if not same or float((found - outputs).abs().max()) > tolerance * max(
            float(outputs.abs().max()), 1e-6
        ):
            raise InputError(
                f"layer {self.layer!r}: the outputs depend on what goes around it; expected a layer that "
                "everything passes through, such as the end of a block"
            )
