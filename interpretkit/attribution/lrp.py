"""Layer-wise relevance propagation: the score, shared out backwards among what made it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from interpretkit.attribution.affine import AffineMap
from interpretkit.attribution.explained_model import Baseline, ExplainedModel, Result
from interpretkit.attribution.layer_values import Layer
from interpretkit.attribution.relevance import RelevanceMode, RunningModules, last_layers
from interpretkit.attribution.rules import (
    AlphaBeta,
    Box,
    Composite,
    Epsilon,
    Flat,
    Rule,
    WSquare,
    ZPlus,
)
from interpretkit.errors import InputError

Convolutions = Literal["epsilon", "z_plus", "alpha2_beta1"]
First = Literal["same", "flat", "box", "w_square"]

_EPSILON = 1e-6


def lrp(
    explained: ExplainedModel,
    *,
    rules: Composite | Rule | None = None,
    convolutions: Convolutions = "z_plus",
    first: First | None = None,
    epsilon: float = _EPSILON,
    low: Baseline | None = None,
    high: Baseline | None = None,
) -> Result:
    """Return the relevance of the inputs (Bach et al., 2015, doi:10.1371/journal.pone.0130140).

    Without `rules` a composite of them (Montavon et al., 2019, doi:10.1007/978-3-030-28954-6_10): epsilon for linear
    layers, another for convolutions, a third for the layers that see the inputs themselves. Batch norms are merged
    into the layers before them. Activations and softmaxes pass their relevance on, sums share it as the epsilon rule
    does, a product of two signals gives each half; attention weights and what a norm divides by are taken for
    constants (Ali et al., 2022, arXiv:2202.07304). All other steps share it by their gradient times what they are
    given. What a model does to its inputs before the first layers, such as scaling, passes relevance as it is. The
    rules are those of function calls, so that modules may be reused and work in place.

    Parameters
    ----------
    explained : ExplainedModel
        With inputs ``(n, ...)``.
    rules : Composite or Rule, optional
        A rule for each layer, or one for all; in place of the options that follow, but for `low` and `high`.
    convolutions : {"epsilon", "z_plus", "alpha2_beta1"}
        How convolutions share relevance: among all contributions, among the positive ones, or twice among the
        positive ones less once among the negative ones.
    first : {"same", "flat", "box", "w_square"}, optional
        How the layers do that see the inputs and nothing else: like the others; evenly over what they see; by the
        rule z^B for inputs between `low` and `high`; or by the squares of the weights. By default box for inputs of
        two dimensions of space and more, as images are, and like the others for tables and sequences.
    epsilon : float
        Added to denominators, with their sign.
    low, high : number or array, optional
        The inputs' least and largest values, for box rules; broadcast to the inputs. By default each example's own
        least and largest value of each channel.

    Returns
    -------
    Result
        Values of the inputs' shape. In the details the ``scores`` ``(n,)`` and the ``conservation_gap`` ``(n,)``: the
        values' sum minus the score, which is what biases and `epsilon` have absorbed.

    Raises
    ------
    InputError
        If a rule is unknown, its bounds do not hold the inputs, or the model takes steps that have no rule.
    """
    composite = _composite(explained, rules, convolutions, first, epsilon, low, high)
    bounds = _ends(explained, composite)

    def work(rows: Tensor) -> tuple[Tensor, Tensor]:
        leaf = explained.inputs[rows].clone().requires_grad_()
        scores = propagated(leaf, rows)
        return scores.detach(), explained.differentiate(scores, leaf, "the inputs").to(explained.precise)

    with _Propagation(explained, composite, bounds) as propagated:
        parts = explained.chunks.run(len(explained), work, each=2)
    scores, values = (torch.cat(p) for p in zip(*parts, strict=True))
    scores = scores.to(explained.precise)
    return Result(values, {"scores": scores, "conservation_gap": values.flatten(1).sum(1) - scores})


def layer_relevance(explained: ExplainedModel, layer: Layer, rules: Composite | Rule | None = None) -> Tensor:
    """Return the relevance ``(n, ...)`` of a layer's values, by rules as :func:`lrp` takes them."""
    composite = _composite(explained, rules, "z_plus", None, _EPSILON, None, None)
    bounds = _ends(explained, composite)

    def work(rows: Tensor) -> Tensor:
        leaf = explained.inputs[rows].clone().requires_grad_()
        scores, values = propagated.from_layer(leaf, rows, layer)
        found = explained.differentiate(scores, values, f"layer {layer.name!r}")
        return (found * values.detach()).to(explained.precise)

    with _Propagation(explained, composite, bounds) as propagated:
        return torch.cat(explained.chunks.run(len(explained), work, each=2))


def check(options: Mapping[str, Any]) -> None:
    """Raise InputError for options that cannot be used, as far as can be told without a model."""
    given = {"rules": None, "convolutions": "z_plus", "first": None, "epsilon": _EPSILON, **options}
    rules, convolutions, first, epsilon = (
        given[name] for name in ("rules", "convolutions", "first", "epsilon")
    )
    if rules is not None:
        if not isinstance(rules, (Composite, Rule)):
            raise InputError(
                f"rules: are a {type(rules).__name__}; expected a Composite, or a rule for all layers"
            )
        if convolutions != "z_plus" or first is not None or epsilon != _EPSILON:
            raise InputError("rules: stand in place of convolutions, first and epsilon; expected them alone")
    if convolutions not in get_args(Convolutions):
        raise InputError(f"convolutions {convolutions!r}: expected epsilon, z_plus or alpha2_beta1")
    if first is not None and first not in get_args(First):
        raise InputError(f"first {first!r}: expected same, flat, box or w_square")
    Epsilon(epsilon)


def _composite(
    explained: ExplainedModel,
    rules: Composite | Rule | None,
    convolutions: str,
    first: str | None,
    epsilon: float,
    low: Baseline | None,
    high: Baseline | None,
) -> Composite:
    check({"rules": rules, "convolutions": convolutions, "first": first, "epsilon": epsilon})
    if rules is not None:
        made = rules if isinstance(rules, Composite) else Composite(default=rules)
        made.check(explained.model)
    else:
        if first is None:
            first = "box" if explained.inputs.ndim > 3 else "same"
        by_name: Mapping[str, Rule] = {
            "epsilon": Epsilon(epsilon),
            "z_plus": ZPlus(epsilon),
            "alpha2_beta1": AlphaBeta(2.0, 1.0, epsilon),
            "flat": Flat(),
            "box": Box(low, high, epsilon),
            "w_square": WSquare(),
        }
        made = Composite(
            default=Epsilon(epsilon),
            types={nn.modules.conv._ConvNd: by_name[convolutions]},
            first=None if first == "same" else by_name[first],
        )
    if (low is not None or high is not None) and not made.boxes():
        raise InputError("low, high: no layer has the rule box; expected them with it alone")
    return made


def _ends(explained: ExplainedModel, composite: Composite) -> tuple[Tensor, Tensor]:
    given = [(box.low, box.high) for box in composite.boxes() if box.low is not None and box.high is not None]
    if not given:
        flat = explained.inputs.flatten(2) if explained.inputs.ndim > 2 else explained.inputs[:, None]
        shape = (
            (*explained.inputs.shape[:2], *[1] * (explained.inputs.ndim - 2))
            if explained.inputs.ndim > 2
            else (-1, 1)
        )
        return tuple(  # type: ignore[return-value]
            end(flat, -1).reshape(shape).expand_as(explained.inputs) for end in (torch.amin, torch.amax)
        )
    found = [(explained.baseline(low), explained.baseline(high)) for low, high in given]  # type: ignore[arg-type]
    least, largest = found[0]
    if any(not (torch.equal(least, other[0]) and torch.equal(largest, other[1])) for other in found[1:]):
        raise InputError(
            "rules: box rules have several bounds; expected the same for all, for the inputs are the same"
        )
    # Inputs that were normalised in another precision may pass the bounds by rounding.
    slack = 8 * torch.finfo(explained.inputs.dtype).eps * torch.maximum(least.abs(), largest.abs())
    if bool(((explained.inputs < least - slack) | (explained.inputs > largest + slack)).any()):
        raise InputError("low, high: some inputs lie outside; expected bounds that hold all")
    return least, largest


class _Propagation:
    """Runs a model with rules for its layers."""

    def __init__(
        self, explained: ExplainedModel, composite: Composite, bounds: tuple[Tensor, Tensor]
    ) -> None:
        self._problem = explained
        self._composite = composite
        self._bounds = bounds
        self._stack = ExitStack()
        self._running: RunningModules | None = None
        self._last: frozenset[int] | None = None

    def __enter__(self) -> _Propagation:
        if self._composite.asks_modules:
            self._running = RunningModules(self._problem.model)
            for undo in self._running.watched():
                self._stack.callback(undo)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, leaf: Tensor, rows: Tensor) -> Tensor:
        """Return the scores ``(m,)`` of inputs, by which the leaf's gradient is its relevance."""
        self._find_last(leaf, rows)
        return self._scored(*self._pass(leaf, rows), rows)

    def from_layer(self, leaf: Tensor, rows: Tensor, layer: Layer) -> tuple[Tensor, Tensor]:
        """Return scores ``(m,)`` and a layer's values, by which their gradient is relevance divided by them."""
        self._find_last(leaf, rows)
        outputs, mode, values = self._pass_to(layer, leaf, rows)
        return self._scored(outputs, mode, rows), values

    def _find_last(self, leaf: Tensor, rows: Tensor) -> None:
        """Find which layers come last, if a rule asks for it; that is known after a pass only."""
        if self._last is None and self._composite.last is not None:
            self._last = frozenset()
            outputs, _ = self._pass(leaf[:1], rows[:1], numbering=True)
            self._last = last_layers(outputs)

    def _scored(self, outputs: Tensor, mode: RelevanceMode, rows: Tensor) -> Tensor:
        if mode.met == 0:
            raise InputError("model: has no convolution or linear layer; the method expects one that has")
        with mode:
            outputs = mode.leave(outputs)
            self._problem.target.resolve(outputs, rows)
            return self._problem.target.pick(outputs, rows)

    def _pass(self, leaf: Tensor, rows: Tensor, *, numbering: bool = False) -> tuple[Tensor, RelevanceMode]:
        mode, entry = self._begun(leaf, rows, numbering)
        with mode:
            return self._problem.outputs(entry), mode

    def _pass_to(self, layer: Layer, leaf: Tensor, rows: Tensor) -> tuple[Tensor, RelevanceMode, Tensor]:
        mode, entry = self._begun(leaf, rows, numbering=False)
        # The layer is met within the rules, so that it sees the calls of the model alone.
        with mode, layer.read(cut=True) as output:
            return self._problem.outputs(entry), mode, output()

    def _begun(self, leaf: Tensor, rows: Tensor, numbering: bool) -> tuple[RelevanceMode, Tensor]:
        chosen: dict[int, Rule] = {}
        running = self._running
        if running is not None:
            running.clear()

        def choose(step: AffineMap, of_inputs: bool) -> Rule:
            # A merged batch norm is part of the layer before it.
            if step.merged and step.number in chosen:
                return chosen[step.number]
            modules = {} if running is None else running.of(step)
            is_last = step.kind != "batch_norm" and step.number in (self._last or ())
            rule = self._composite.choose(step, modules, of_inputs=of_inputs, is_last=is_last)
            if step.kind != "batch_norm":
                chosen[step.number] = rule
            return rule

        mode = RelevanceMode(choose, numbering=numbering)
        low, high = (bound[rows] for bound in self._bounds)
        return mode, mode.enter(leaf, low, high)
