"""DeepLIFT: differences from a baseline, passed back through every step of the computation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from interpretkit.attribution.explained_model import Baseline, ExplainedModel, Result
from interpretkit.attribution.function_calls import (
    Call,
    activation_call,
    derivative,
    max_pooling_call,
    product_call,
    pulled_back,
    valued,
    with_backward,
)
from interpretkit.attribution.layer_values import Layer
from interpretkit.errors import InputError


def deeplift(explained: ExplainedModel, *, baseline: Baseline = 0.0) -> Result:
    """Return DeepLIFT by the Rescale rule (Shrikumar, Greenside and Kundaje, 2017, arXiv:1704.02685).

    An activation function passes back the ratio of the differences of its output and its input. A max pooling shares
    its difference between the two places where the input and the baseline were largest, and a product of two signals
    passes each factor's difference times the mean of the other. All other steps pass their gradient, which is right
    for linear ones. The rules are those of function calls, so that modules may be reused and work in place.

    Parameters
    ----------
    explained : ExplainedModel
        With inputs ``(n, ...)``.
    baseline : number or array
        What the inputs are compared with; broadcasts to them.

    Returns
    -------
    Result
        Values of the inputs' shape. In the details the ``scores`` and ``baseline_scores`` ``(n,)``, and the
        ``completeness_gap`` ``(n,)``: the values' sum minus the difference of the two. It vanishes for models whose
        steps are linear or have a rule, which attention and layer normalisation have not.

    Raises
    ------
    InputError
        If the model takes other steps for the baseline than for the inputs.
    """
    start = explained.baseline(baseline)
    # A baseline that is the same for all goes through the model once.
    shared = all(bool(torch.equal(start[:1], other[None])) for other in start[1:])

    def work(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if shared and len(rows) > 1:
            with suppress(_MisfitError):
                return compare(rows, start[:1])
        # Also where the model lays its examples together, so that one does not stand for all.
        return compare(rows, start[rows])

    def compare(rows: Tensor, own: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tape = _Tape()
        with torch.no_grad(), tape:
            start_outputs = explained.outputs(own.clone())
        images = explained.inputs[rows]
        leaf = images.clone().requires_grad_()
        with _Differences(tape):
            outputs = explained.outputs(leaf.clone())
        explained.target.resolve(outputs, rows)
        scores = explained.target.pick(outputs, rows)
        multipliers = explained.differentiate(scores, leaf, "the inputs")
        start_scores = explained.target.pick(start_outputs.expand_as(outputs), rows)
        return scores.detach(), start_scores, multipliers.to(explained.precise) * (images - own)

    parts = explained.chunks.run(len(explained), work, each=2)
    scores, start_scores, values = (
        torch.cat(part).to(explained.precise) for part in zip(*parts, strict=True)
    )
    gap = values.flatten(1).sum(1) - (scores - start_scores)
    return Result(values, {"scores": scores, "baseline_scores": start_scores, "completeness_gap": gap})


def layer_deeplift(explained: ExplainedModel, layer: Layer, start: Tensor) -> Tensor:
    """Return DeepLIFT for a layer's values ``(n, ...)``: multipliers times differences from a baseline's values.

    Parameters
    ----------
    explained : ExplainedModel
        With inputs ``(n, ...)``.
    layer : Layer
        The layer.
    start : Tensor, (n, ...)
        A baseline for each example.
    """

    def work(rows: Tensor) -> Tensor:
        tape = _Tape()
        with torch.no_grad(), tape, layer.read() as output:
            explained.outputs(start[rows].clone())
            before = output().detach()
        # The layer is met within the rules, so that it sees the calls of the model alone.
        with _Differences(tape), layer.read(cut=True) as output:
            outputs = explained.outputs(explained.inputs[rows].clone())
            values = output()
        explained.target.resolve(outputs, rows)
        scores = explained.target.pick(outputs, rows)
        multipliers = explained.differentiate(scores, values, f"layer {layer.name!r}")
        return (multipliers * (values.detach() - before)).to(explained.precise)

    return torch.cat(explained.chunks.run(len(explained), work, each=2))


class _MisfitError(InputError):
    """A step is given something of another shape than for the baseline."""


class _Tape(TorchFunctionMode):
    """Notes what every step with a rule is given, in the order of the calls."""

    def __init__(self) -> None:
        super().__init__()
        self._steps: list[tuple[Callable[..., Any], tuple[Tensor, ...]]] = []
        self._read = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        call = activation_call(func, args, kwargs or {}) or max_pooling_call(func, args, kwargs or {})
        product = product_call(func, args)
        if call is not None:
            self._steps.append((func, (call.x.clone(),)))
        elif product is not None:
            # Only tensors that have the examples' axis can be signals, but weights are small.
            self._steps.append((func, (product[0].clone(), product[1].clone())))
        return func(*args, **(kwargs or {}))

    def next(self, func: Callable[..., Any], given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return what the baseline gave at the step that now follows, and forget it."""
        recorded = None
        if self._read < len(self._steps):
            step, recorded = self._steps[self._read]
            self._steps[self._read] = (step, ())
            fits = all(
                a.shape[1:] == b.shape[1:] and a.shape[:1] in ((1,), b.shape[:1])
                for a, b in zip(recorded, given, strict=False)
            )
            recorded = recorded if step is func and fits else None
        self._read += 1
        if recorded is None:
            raise _MisfitError(
                "model: takes other steps for the baseline than for the inputs; expected a fixed computation"
            )
        return recorded


class _Differences(TorchFunctionMode):
    """Gives the steps of a model the rules of DeepLIFT, against what a tape holds of the baseline."""

    def __init__(self, tape: _Tape) -> None:
        super().__init__()
        self._tape = tape

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        activation = activation_call(func, args, kwargs)
        if activation is not None:
            (reference,) = self._tape.next(func, (activation.x,))
            if activation.x.requires_grad:
                return activation.give(_rescaled(activation, reference))
        pooling = None if activation else max_pooling_call(func, args, kwargs)
        if pooling is not None:
            (reference,) = self._tape.next(func, (pooling.x,))
            if pooling.x.requires_grad:
                return _pooled(pooling, reference)
        product = None if activation or pooling else product_call(func, args)
        if product is not None:
            first, second, inplace = product
            references = self._tape.next(func, (first, second))
            if first.requires_grad and second.requires_grad:
                means = [((a.detach() + b) / 2) for a, b in zip((first, second), references, strict=True)]
                result = valued(first * means[1] + means[0] * second, first.detach() * second.detach())
                return first.copy_(result) if inplace else result
        return func(*args, **kwargs)


def _negligible(difference: Tensor) -> Tensor:
    """Return where a difference is so small that a ratio by it is noise."""
    return difference.abs() < torch.finfo(difference.dtype).eps ** (2 / 3)


def _rescaled(call: Call, reference: Tensor) -> Tensor:
    x = call.x.detach()
    with torch.no_grad():
        y = call.apply(x)
        difference = x - reference
        small = _negligible(difference)
        ratio = (y - call.apply(reference)).div_(difference.masked_fill_(small, 1))
        if bool(small.any()):
            if call.uniform:
                ratio[small] = derivative(call.apply, x[small])
            else:
                ratio = torch.where(small, derivative(call.apply, x), ratio)
    return valued(call.x * ratio, y)


def _pooled(call: Call, reference: Tensor) -> Tensor:
    def rule(x: Tensor, gradient: Tensor) -> Tensor:
        other = reference.expand_as(x)
        y, y_other = call.apply(x).detach(), call.apply(other)
        larger = torch.maximum(y, y_other)
        # What the output gains above the baseline's comes from the input's largest, what it loses from the baseline's.
        share = pulled_back(call.apply, x, gradient * (larger - y_other))
        share = share + pulled_back(call.apply, other, gradient * (y - larger))
        difference = x - other
        small = _negligible(difference)
        return torch.where(
            small, pulled_back(call.apply, x, gradient), share / difference.masked_fill(small, 1)
        )

    return with_backward(call.x, call.apply(call.x.detach()), rule)
