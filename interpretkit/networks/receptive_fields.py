"""Where in the image a unit of a layer looks: the theoretical receptive field, measured exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from interpretkit.errors import InputError
from interpretkit.networks.instrumentation import find_layer, instrumented

# Images for probing differ from the network's own by multiples of this, so that strides up to it divide both
# with the same remainder and padding that depends on the size falls the same way.
_GRID = 64
# A unit that sees all of so long an image is taken to see all of any.
_LONGEST = 4096
_THINNEST = 16
# The stride is measured over so many units, for it may be no whole number where a layer enlarges its input.
_SPAN = 4


@dataclass(frozen=True)
class ReceptiveField:
    """The pixels that the units of a layer depend on. Pairs are vertical, horizontal; a pixel's centre is its index.

    Attributes
    ----------
    layer : str
        The layer's dotted name.
    size : (float, float)
        Size of one unit's field, px; infinite if every unit sees the whole image.
    stride : (float, float)
        From a unit's field to its neighbour's, px.
    start : (float, float)
        The centre of the field of the unit at (0, 0), px; negative where most of it lies in the padding.
    shape : (int, int)
        The layer's map for the inputs given: height, width.
    """

    layer: str
    size: tuple[float, float]
    stride: tuple[float, float]
    start: tuple[float, float]
    shape: tuple[int, int]

    def centres(self, positions: ArrayLike) -> NDArray[np.float64]:
        """Return the centres ``(..., 2)`` in px of the fields of the units at `positions` ``(..., 2)``."""
        return np.asarray(positions, dtype=np.float64) * self.stride + self.start

    def box(self, position: ArrayLike, image: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return a unit's field within an image as ``(top, left, bottom, right)``, the last two exclusive.

        Parameters
        ----------
        position : array_like of int, (2,)
            The unit's row and column.
        image : (int, int)
            Height and width, px.
        """
        corners: list[tuple[int, int]] = []
        for centre, size, length in zip(self.centres(position), self.size, image, strict=True):
            if math.isinf(size):
                corners.append((0, length))
                continue
            first = round(centre - (size - 1) / 2)
            begin = min(max(first, 0), length - 1)
            corners.append((begin, min(max(first + round(size), begin + 1), length)))
        (top, bottom), (left, right) = corners
        return top, left, bottom, right


def receptive_field(module: nn.Module, layer: str, inputs: Tensor) -> ReceptiveField:
    """Measure the theoretical receptive field of a layer's units.

    Pixels are made NaN, which every operation passes on whatever its weights are, and it is seen which units
    become NaN; so the result holds for any code in the forward pass and no list of layer types is needed. Images
    are lengthened until the field of the middle unit lies within. Ways through global pooling, as in
    squeeze-and-excitation, are left out, because through them every unit sees everything.

    Parameters
    ----------
    module : Module
        The network; left as it was found.
    layer : str
        The dotted name of a layer that gives maps. Of one that runs several times in a pass, the last run counts.
    inputs : Tensor, (n, c, h, w)
        An example of what the network takes; only its shape, precision and device matter.

    Returns
    -------
    ReceptiveField
        With an infinite `size`, and centres spread evenly, if every unit sees the whole image, as in transformers.

    Raises
    ------
    InputError
        If there is no such layer, it does not run, or it gives no maps.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.Conv2d(4, 4, 3, 1, 1))
    >>> field = receptive_field(net, "1", torch.zeros(1, 3, 32, 32))
    >>> field.size, field.stride, field.start
    ((7.0, 7.0), (2.0, 2.0), (0.0, 0.0))
    """
    target = find_layer(module, layer)
    example = inputs[:1].detach()
    if example.ndim != 4:
        raise InputError(f"inputs: have shape {tuple(inputs.shape)}; expected (n, channels, height, width)")
    with instrumented(module, 0), torch.no_grad():
        probe = _Probe(module, target, layer, example)
        axes = [_measure(probe, axis) for axis in (0, 1)]
    (h, w), (top, left) = probe.shape, axes
    return ReceptiveField(layer, (top[0], left[0]), (top[1], left[1]), (top[2], left[2]), (h, w))


class _Reached(Exception):
    """The layer has run for the last time."""


class _Probe:
    """Runs a network up to a layer, on images partly NaN."""

    def __init__(self, module: nn.Module, target: nn.Module, layer: str, example: Tensor) -> None:
        self.module, self.target, self.example = module, target, example
        self.runs, self.last = 0, torch.empty(0)
        self.pooling = _Pooling()
        output = self._forward(example, runs=None)
        self.pooling.known = True
        if self.runs == 0:
            raise InputError(f"layer {layer!r}: does not run in the network's forward pass")
        if output.ndim != 4:
            raise InputError(
                f"layer {layer!r}: gives outputs of shape {tuple(output.shape)}, no maps; expected "
                "(n, channels, height, width)"
            )
        self.shape = (int(output.shape[2]), int(output.shape[3]))

    def _forward(self, images: Tensor, runs: int | None) -> Tensor:
        seen = 0

        def keep(_: nn.Module, __: Any, output: Any) -> None:
            nonlocal seen
            if isinstance(output, Tensor):
                seen += 1
                self.last = output.clone()
            if runs is not None and seen == runs:
                raise _Reached

        handle = self.target.register_forward_hook(keep)
        try:
            with self.pooling.again():
                self.module(images)
        except _Reached:
            pass
        finally:
            handle.remove()
        if runs is None:
            self.runs = seen
        return self.last

    def size(self, axis: int) -> int:
        """Return the example's own length along an axis."""
        return int(self.example.shape[2 + axis])

    def is_nan(self, axis: int, length: int, width: int, spans: list[tuple[int, int]]) -> Tensor:
        """Tell which units along an axis ``(len(spans), units)`` see NaN, if the pixels of each span are."""
        shape = (length, width) if axis == 0 else (width, length)
        images = torch.zeros(
            len(spans),
            self.example.shape[1],
            *shape,
            dtype=self.example.dtype,
            device=self.example.device,
        )
        for image, (begin, end) in zip(images, spans, strict=True):
            image.narrow(1 + axis, begin, end - begin).fill_(float("nan"))
        output = self._forward(images, self.runs)
        return output.isnan().any(1).any(2 - axis)


def _measure(probe: _Probe, axis: int) -> tuple[float, float, float]:
    """Return size, stride and start along an axis, in px."""
    own = probe.size(axis)
    other = probe.size(1 - axis)
    # Thin images do, where the network takes them.
    widths = [w for w in (other % _GRID, other % _GRID + _GRID) if _THINNEST <= w < other]
    width = next((w for w in widths if _accepts(probe, axis, own, w)), other)
    length = own % _GRID + 4 * _GRID
    if not _accepts(probe, axis, length, width):
        # Such a network takes images of its own size only.
        found = _search(probe, axis, own, other) if _accepts(probe, axis, own, other) else None
        return found or _evenly(probe, axis)
    while length <= _LONGEST:
        found = _search(probe, axis, length, width)
        if found is not None:
            # In windows of attention, or pooled to a fixed number, units do not follow one another evenly; then
            # the map does not grow with the image by the stride that was measured.
            grown = probe.is_nan(axis, length, width, [(0, 0)]).shape[1] - probe.shape[axis]
            return found if abs(grown * found[1] - (length - own)) <= found[1] else _evenly(probe, axis)
        length = own % _GRID + 2 * (length - own % _GRID)
    return _evenly(probe, axis)


def _accepts(probe: _Probe, axis: int, length: int, width: int) -> bool:
    try:
        units = probe.is_nan(axis, length, width, [(0, 0)])
    except (RuntimeError, ValueError, AssertionError):
        return False
    return units.shape[1] > _SPAN


def _search(probe: _Probe, axis: int, length: int, width: int) -> tuple[float, float, float] | None:
    """Find where the middle unit's field begins and ends; None if it reaches a border of the image."""

    def seen(spans: list[tuple[int, int]]) -> Tensor:
        return probe.is_nan(axis, length, width, spans)

    units = int(seen([(0, 0)]).shape[1])
    middle = (units - _SPAN) // 2
    # One pass tells of an image that is too short; the search would take a score of them.
    if bool(seen([(0, 1), (length - 1, length)])[:, middle].any()):
        return None
    # First pixel of the middle unit's field, first pixel of a later unit's, last pixel of the middle unit's.
    wanted: list[tuple[int, Callable[[int], tuple[int, int]]]] = [
        (middle, lambda y: (0, y + 1)),
        (middle + _SPAN, lambda y: (0, y + 1)),
        (middle, lambda y: (length - 1 - y, length)),
    ]
    # The smallest y for which the span reaches the field; NaN only ever spreads, so halving finds it.
    low, high = [0] * len(wanted), [length - 1] * len(wanted)
    while any(lo < hi for lo, hi in zip(low, high, strict=True)):
        tried = [(lo + hi) // 2 for lo, hi in zip(low, high, strict=True)]
        hits = seen([span(y) for (_, span), y in zip(wanted, tried, strict=True)])
        for row, (unit, _) in enumerate(wanted):
            if hits[row, unit]:
                high[row] = tried[row]
            else:
                low[row] = min(tried[row] + 1, high[row])
    first, later, last = low[0], low[1], length - 1 - low[2]
    stride = (later - first) / _SPAN
    return float(last - first + 1), stride, (first + last) / 2 - middle * stride


def _evenly(probe: _Probe, axis: int) -> tuple[float, float, float]:
    stride = probe.size(axis) / probe.shape[axis]
    return math.inf, stride, (stride - 1) / 2


class _Pooling(TorchFunctionMode):
    """Keeps NaN out of pooling over a whole map, and adaptive pooling as it is for the example.

    Pooling to a fixed number of places has another stride for every size of image; for longer ones its steps are
    as long as for the example.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[int, int] | None] = []
        self.known = False
        self.calls = 0

    def again(self) -> _Pooling:
        """Count the calls of another pass."""
        self.calls = 0
        return self

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        output = None
        if func in _ADAPTIVE and args[0].ndim == 4:
            if not self.known:
                output = func(*args, **(kwargs or {}))
                self.steps.append(_steps(args[0], output))
            elif self.calls < len(self.steps) and (step := self.steps[self.calls]) is not None:
                output = _ADAPTIVE[func](args[0], step)
            self.calls += 1
        if output is None:
            output = func(*args, **(kwargs or {}))
        if (
            self.known
            and func in _POOLING
            and isinstance(output, Tensor)
            and args
            and _is_global(args[0], output)
        ):
            return output.nan_to_num()
        return output


def _steps(given: Tensor, output: Tensor) -> tuple[int, int] | None:
    """Return how many places adaptive pooling joins; None if to one place, or unevenly."""
    pairs = list(zip(given.shape[-2:], output.shape[-2:], strict=True))
    if output.shape[-2:].numel() == 1 or any(before % after for before, after in pairs):
        return None
    return pairs[0][0] // pairs[0][1], pairs[1][0] // pairs[1][1]


_ADAPTIVE = {F.adaptive_avg_pool2d: F.avg_pool2d, F.adaptive_max_pool2d: F.max_pool2d}
_POOLING = {
    F.adaptive_avg_pool2d,
    F.adaptive_max_pool2d,
    F.avg_pool2d,
    torch.mean,
    Tensor.mean,
    torch.amax,
    Tensor.amax,
}


def _is_global(given: Tensor, output: Tensor) -> bool:
    whole = given.ndim == 4 and given.shape[-2:].numel() > 1
    return whole and (output.ndim == 2 or (output.ndim == 4 and output.shape[-2:].numel() == 1))
