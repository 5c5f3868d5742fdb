"""Layer-wise relevance propagation: the score, shared out backwards among what made it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from interpretkit.attribution.affine import AffineMap, AffineMode
from interpretkit.attribution.elementwise import Call, product_call, valued, with_backward
from interpretkit.attribution.problem import Baseline, Problem, Result
from interpretkit.errors import InputError

Rule = Literal["epsilon", "z_plus", "alpha2_beta1"]
First = Literal["same", "flat", "box"]

_ALPHAS = {"z_plus": 1.0, "alpha2_beta1": 2.0}
_SCALINGS = {torch.mul, torch.div, Tensor.mul, Tensor.mul_, Tensor.div, Tensor.div_, Tensor.__truediv__}


def lrp(
    problem: Problem,
    *,
    convolutions: Rule = "z_plus",
    first: First = "flat",
    epsilon: float = 1e-6,
    low: Baseline | None = None,
    high: Baseline | None = None,
) -> Result:
    """Return the relevance of the inputs (Bach et al., 2015, doi:10.1371/journal.pone.0130140).

    A composite of rules (Montavon et al., 2019, doi:10.1007/978-3-030-28954-6_10): epsilon for linear layers, another
    for convolutions, a third for the first layer. Batch norms are merged into the layers before them. Activations pass
    their relevance on, sums share it as the epsilon rule does, a product of two signals gives each half, and all other
    steps share it by their gradient times what they are given. The rules are those of function calls, so that modules
    may be reused and work in place.

    Parameters
    ----------
    problem : Problem
        With inputs ``(n, ...)``.
    convolutions : {"epsilon", "z_plus", "alpha2_beta1"}
        How convolutions share relevance: among all contributions, among the positive ones, or twice among the
        positive ones less once among the negative ones.
    first : {"same", "flat", "box"}
        How the first convolution or linear layer does: like the others; evenly over what it sees; or by the rule
        z^B for inputs between `low` and `high`. The last two expect that the inputs pass through that layer alone.
    epsilon : float
        Added to denominators, with their sign.
    low, high : number or array
        The inputs' least and largest values, for ``first="box"``; broadcast to the inputs.

    Returns
    -------
    Result
        Values of the inputs' shape. In the details the ``scores`` ``(n,)`` and the ``conservation_gap`` ``(n,)``: the
        values' sum minus the score, which is what biases and `epsilon` have absorbed.

    Raises
    ------
    InputError
        If a rule is unknown, or its bounds lack or do not hold the inputs.
    """
    if convolutions not in {"epsilon", *_ALPHAS}:
        raise InputError(f"convolutions {convolutions!r}: expected epsilon, z_plus or alpha2_beta1")
    if first not in {"same", "flat", "box"}:
        raise InputError(f"first {first!r}: expected same, flat or box")
    if not 0 <= epsilon < float("inf"):
        raise InputError(f"epsilon {epsilon}: expected a number of at least 0")
    bounds = None if first != "box" else _bounds(problem, low, high)

    def work(rows: Tensor) -> tuple[Tensor, Tensor]:
        images = problem.inputs[rows]
        leaf = images.clone().requires_grad_()
        # The bounds go the same way as the inputs until they meet the first layer.
        own = [] if bounds is None else [_first_input(problem, bound[rows]) for bound in bounds]
        mode = _Relevance(convolutions, first, epsilon, own)
        with mode:
            outputs = problem.outputs(leaf.clone())
        if mode.met == 0:
            raise InputError("model: has no convolution or linear layer; the method expects one that has")
        problem.target.resolve(outputs, rows)
        scores = problem.target.pick(outputs, rows)
        found = problem.differentiate(scores, leaf, "the inputs").to(problem.precise)
        return scores.detach(), found if mode.in_relevances else found * images

    parts = problem.chunks.run(len(problem), work, each=2)
    scores, values = (torch.cat(p) for p in zip(*parts, strict=True))
    scores = scores.to(problem.precise)
    return Result(values, {"scores": scores, "conservation_gap": values.flatten(1).sum(1) - scores})


def _bounds(problem: Problem, low: Baseline | None, high: Baseline | None) -> tuple[Tensor, Tensor]:
    if low is None or high is None:
        raise InputError("first 'box': expected the options low and high, between which all inputs lie")
    least, largest = problem.baseline(low), problem.baseline(high)
    if bool(((problem.inputs < least) | (problem.inputs > largest)).any()):
        raise InputError("low, high: some inputs lie outside; expected bounds that hold all")
    return least, largest


class _FirstInput(AffineMode):
    """Keeps what the first convolution or linear layer is given."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Tensor | None = None

    def affine(self, step: AffineMap, output: Tensor) -> Tensor:
        if self.found is None and step.kind != "batch_norm":
            self.found = step.x.clone()
        return output


def _first_input(problem: Problem, images: Tensor) -> Tensor:
    with torch.no_grad(), _FirstInput() as mode:
        problem.outputs(images.clone())
    return images if mode.found is None else mode.found


class _Relevance(AffineMode):
    """Gives every step a way back on which gradients are relevance divided by the value it belongs to.

    In these terms relevance is shared by the gradient wherever no rule says otherwise, and no rule has to divide by
    a value that may be zero. Below a first layer with a rule of its own they are relevance itself.
    """

    def __init__(self, convolutions: str, first: str, epsilon: float, bounds: list[Tensor]) -> None:
        super().__init__()
        self.in_relevances = False
        self._convolutions = convolutions
        self._first = first
        self._epsilon = epsilon
        self._bounds = bounds

    def affine(self, step: AffineMap, output: Tensor) -> Tensor:
        if not step.x.requires_grad:
            return output
        own_rule = step.number == 0 and step.kind != "batch_norm" and self._first != "same"
        if own_rule:
            self.in_relevances = True
            value = output.detach()
            if self._first == "flat":
                return with_backward(step.x, output, _flat(step, value))
            return with_backward(step.x, output, _box(step, value, self._epsilon, *self._bounds))
        if step.kind == "batch_norm" and step.number == 0 and self._first != "same":
            return valued(step.x, output)
        if step.kind == "convolution" and self._convolutions != "epsilon":
            alpha = _ALPHAS[self._convolutions]
            return with_backward(step.x, output, _alpha_beta(step, output.detach(), self._epsilon, alpha))
        if self._epsilon == 0:
            return output
        value = output.detach()
        return valued(output * (value / _stabilised(value, self._epsilon)), value)

    def activation(self, call: Call) -> Tensor | None:
        if not call.x.requires_grad:
            return None
        x = call.x.detach()
        y = call.apply(x)
        if self._first != "same" and self.met == 0:
            return valued(call.x, y)
        # Where nothing comes in there is nothing to pass on.
        small = x.abs() <= torch.finfo(x.dtype).eps ** 2
        ratio = (y / x.masked_fill(small, 1)).masked_fill_(small, 0)
        return valued(call.x * ratio, y)

    def other(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._first != "same" and self.met == 0 and func in _SCALINGS:
            return self._scaled(func, args, kwargs)
        product = product_call(func, args)
        if product is not None:
            first, second, inplace = product
            if first.requires_grad and second.requires_grad:
                a, b = first.detach().clone(), second.detach()
                result = valued((first * b + a * second) / 2, a * b)
                return first.copy_(result) if inplace else result
        return func(*args, **kwargs)

    def _scaled(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Scale the inputs by a constant, before the first layer: relevance stays what it is."""
        x = args[0]
        if isinstance(x, Tensor) and x.requires_grad:
            result = func(x.detach().clone(), *args[1:], **kwargs)
            if result.shape == x.shape and not result.requires_grad:
                kept = valued(x, result)
                return x.copy_(kept) if func in {Tensor.mul_, Tensor.div_} else kept
        return func(*args, **kwargs)


def _stabilised(numbers: Tensor, epsilon: float) -> Tensor:
    """Return numbers moved away from zero."""
    least = max(epsilon, torch.finfo(numbers.dtype).tiny)
    return numbers + torch.where(numbers < 0, -least, least).to(numbers.dtype)


def _flat(step: AffineMap, value: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    def rule(x: Tensor, gradient: Tensor) -> Tensor:
        leaf = torch.ones_like(x).requires_grad_()
        seen = step.apply(leaf, torch.ones_like(step.weight))
        return torch.autograd.grad(seen, leaf, gradient * value / seen.detach().clamp(min=1))[0]

    return rule


def _box(
    step: AffineMap, value: Tensor, epsilon: float, low: Tensor, high: Tensor
) -> Callable[[Tensor, Tensor], Tensor]:
    def rule(x: Tensor, gradient: Tensor) -> Tensor:
        given = [tensor.detach().requires_grad_() for tensor in (x, low, high)]
        weights = (step.weight, -step.weight.clamp(min=0), -step.weight.clamp(max=0))
        total = sum(
            (step.apply(leaf, weight) for leaf, weight in zip(given, weights, strict=True)),
            torch.zeros_like(value),
        )
        shares = gradient * value / _stabilised(total.detach(), epsilon)
        found = torch.autograd.grad(total, given, shares)
        return sum((a.detach() * b for a, b in zip(given, found, strict=True)), torch.zeros_like(x))

    return rule


def _alpha_beta(
    step: AffineMap, value: Tensor, epsilon: float, alpha: float
) -> Callable[[Tensor, Tensor], Tensor]:
    def rule(x: Tensor, gradient: Tensor) -> Tensor:
        relevance = gradient * value
        signs = [1.0, -1.0] if bool((x < 0).any()) else [1.0]
        positive, negative = step.weight.clamp(min=0), step.weight.clamp(max=0)
        parts = [(sign * (sign * x).relu()).detach().requires_grad_() for sign in signs]
        passed = [torch.zeros_like(x) for _ in signs]
        # The contributions above zero, then those below it.
        for share, weights in ((alpha, (positive, negative)), (1 - alpha, (negative, positive))):
            if share == 0:
                continue
            total = sum(
                (step.apply(part, weight) for part, weight in zip(parts, weights, strict=False)),
                torch.zeros_like(value),
            )
            whole = total.detach()
            if step.bias is not None:
                whole = whole + (step.bias.clamp(min=0) if share > 0 else step.bias.clamp(max=0))
            sign = 1.0 if share > 0 else -1.0
            least = sign * max(epsilon, torch.finfo(value.dtype).tiny)
            found = torch.autograd.grad(total, parts, share * relevance / (whole + least))
            passed = [a + b for a, b in zip(passed, found, strict=True)]
        return passed[0] if len(passed) == 1 else torch.where(x > 0, *passed)

    return rule
