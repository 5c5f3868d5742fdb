"""A network that ends at one of its layers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from interpretkit.errors import InputError
from interpretkit.networks.instrumentation import find_layer


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
