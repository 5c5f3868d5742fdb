"""Rules by which a layer shares its relevance among what it was given, and composites of them, a rule per layer."""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from interpretkit.attribution.affine import AffineMap
from interpretkit.attribution.explained_model import Baseline
from interpretkit.errors import InputError


@dataclass(frozen=True)
class Space:
    """What is known of a layer's input where that is the model's own.

    Attributes
    ----------
    low, high : Tensor, (m, ...)
        The least and the largest values that each number could have.
    own : Tensor of bool, (m, ...)
        Which numbers are inputs; others are constants that stand beside them, such as a padding.
    """

    low: Tensor
    high: Tensor
    own: Tensor


class Rule(ABC):
    """How a convolution, a linear layer or a batch norm shares its relevance among its inputs.

    Rules speak of coefficients, relevance divided by the value that it rests on: so no rule has to divide by a value
    that may be zero. For rules of your own, derive a class and give it :meth:`coefficients`.
    """

    @abstractmethod
    def coefficients(self, step: AffineMap, value: Tensor, coefficients: Tensor) -> Tensor:
        """Return the coefficients of the inputs ``step.x`` from those of the outputs, each of its tensor's shape.

        Parameters
        ----------
        step : AffineMap
            The layer; ``step.apply(x, weight)`` is its linear part.
        value : Tensor
            Its output, bias included.
        coefficients : Tensor
            The outputs' relevance divided by `value`.
        """

    def relevance(self, step: AffineMap, value: Tensor, coefficients: Tensor, space: Space | None) -> Tensor:
        """Return the relevance of ``step.x`` where that is the model's own input."""
        return step.x * self.coefficients(step, value, coefficients)


@dataclass(frozen=True)
class Epsilon(Rule):
    """Share among all contributions as large as they are (Bach et al., 2015); `epsilon` keeps denominators from zero.

    With an `epsilon` of zero a network of layers without biases gets its inputs times their gradients.
    """

    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        _check_epsilon(self.epsilon)

    def coefficients(self, step: AffineMap, value: Tensor, coefficients: Tensor) -> Tensor:
        """Return the coefficients of the inputs; see :meth:`Rule.coefficients`."""
        shares = coefficients * self.kept(value)
        return _pulled_back(step, step.weight, shares)

    def kept(self, value: Tensor) -> Tensor | float:
        """Return which part of an output's relevance its inputs and bias get; `epsilon` absorbs the rest."""
        return 1.0 if self.epsilon == 0 else value / _stabilised(value, self.epsilon)


@dataclass(frozen=True)
class Gamma(Rule):
    """Favour the contributions that have the sign of the output (Montavon et al., 2019).

    These count ``1 + gamma`` times: the positive ones of a positive output, and, so that the rule holds for outputs
    and inputs of either sign, the negative ones of a negative output.
    """

    gamma: float = 0.25
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < math.inf:
            raise InputError(f"gamma {self.gamma}: expected a number of at least 0")
        _check_epsilon(self.epsilon)

    def coefficients(self, step: AffineMap, value: Tensor, coefficients: Tensor) -> Tensor:
        """Return the coefficients of the inputs; see :meth:`Rule.coefficients`."""
        relevance = coefficients * value
        passed = torch.zeros_like(step.x)
        for sign in (1, -1):
            chosen = value > 0 if sign > 0 else value < 0
            if not bool((chosen & (relevance != 0)).any()):
                continue
            whole, back = _contributions(step, sign)
            shares = relevance.masked_fill(~chosen, 0) / _stabilised(value + self.gamma * whole, self.epsilon)
            passed = passed + _pulled_back(step, step.weight, shares) + self.gamma * back(shares)
        return passed


@dataclass(frozen=True)
class AlphaBeta(Rule):
    """Share `alpha` times among the positive contributions less `beta` times among the negative (Bach et al., 2015).

    Biases count as contributions. An output that has contributions of one sign only shares its relevance once among
    those, so that none is lost.
    """

    alpha: float = 2.0
    beta: float = 1.0
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        if not (self.beta >= 0 and math.isclose(self.alpha - self.beta, 1)):
            raise InputError(
                f"alpha {self.alpha}, beta {self.beta}: expected a beta of at least 0, and an alpha of beta + 1"
            )
        _check_epsilon(self.epsilon)

    def coefficients(self, step: AffineMap, value: Tensor, coefficients: Tensor) -> Tensor:
        """Return the coefficients of the inputs; see :meth:`Rule.coefficients`."""
        relevance = coefficients * value
        positive, back = _contributions(step, 1)
        without = positive == 0
        if self.beta == 0 and not bool((without & (relevance != 0)).any()):
            return back(relevance / _stabilised(positive, self.epsilon))
        negative, back_negative = _contributions(step, -1)
        once = torch.ones_like(relevance)
        shares = torch.where(negative == 0, once, self.alpha * once) * relevance
        shares = shares / _stabilised(positive, self.epsilon)
        against = torch.where(without, once, -self.beta * once) * relevance
        against = against / _stabilised(negative, self.epsilon, zero=-1)
        return back(shares.masked_fill(without, 0)) + back_negative(against.masked_fill(negative == 0, 0))


@dataclass(frozen=True)
class ZPlus(Rule):
    """Share among the positive contributions only: :class:`AlphaBeta` with an alpha of 1 and a beta of 0."""

    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        _check_epsilon(self.epsilon)

    def coefficients(self, step: AffineMap, value: Tensor, coefficients: Tensor) -> Tensor:
        """Return the coefficients of the inputs; see :meth:`Rule.coefficients`."""
        return AlphaBeta(1.0, 0.0, self.epsilon).coefficients(step, value, coefficients)


class _Spread(Rule):
    """Share by the weights alone, whatever the inputs are."""

    @abstractmethod
    def _weights(self, step: AffineMap) -> Tensor:
        """Return how much each input counts for each output, in the shape of the layer's weights."""

    def coefficients(self, step: AffineMap, value: Tensor, coefficients: Tensor) -> Tensor:
        """Return the coefficients of the inputs; those that are zero get none, for relevance must rest on a value."""
        active = ~_negligible(step.x)
        found = self._spread(step, value * coefficients, active.to(step.x.dtype))
        return torch.where(active, found / step.x.masked_fill(~active, 1), 0)

    def relevance(self, step: AffineMap, value: Tensor, coefficients: Tensor, space: Space | None) -> Tensor:
        """Return the relevance of the model's inputs; see :meth:`Rule.relevance`."""
        own = torch.ones_like(step.x) if space is None else space.own.to(step.x.dtype)
        return self._spread(step, value * coefficients, own)

    def _spread(self, step: AffineMap, relevance: Tensor, seen: Tensor) -> Tensor:
        total, back = _linear(step, [(seen, self._weights(step))])
        return seen * back[0](_ratio(relevance, total))


@dataclass(frozen=True)
class Flat(_Spread):
    """Share evenly among all that an output sees (Lapuschkin et al., 2019, doi:10.1038/s41467-019-08987-4).

    In a hidden layer among the inputs that are not zero.
    """

    def _weights(self, step: AffineMap) -> Tensor:
        return torch.ones_like(step.weight)


@dataclass(frozen=True)
class WSquare(_Spread):
    """Share by the squares of the weights (Montavon et al., 2017, doi:10.1016/j.patcog.2016.11.008).

    In a hidden layer among the inputs that are not zero.
    """

    def _weights(self, step: AffineMap) -> Tensor:
        return step.weight.square()


@dataclass(frozen=True, eq=False)
class Box(Rule):
    """Share by the rule z^B, for inputs that lie in a box (Montavon et al., 2017, doi:10.1016/j.patcog.2016.11.008).

    For layers that see the model's inputs themselves. Each contribution is counted from the corner of the box that
    speaks against the output, biases are left out. An output to which no input adds anything from there shares by
    the squares of its weights.

    Parameters
    ----------
    low, high : number or array, optional
        The inputs' least and largest values, broadcast to the inputs: for images normalised by a mean and a standard
        deviation those of black and white. By default each example's own least and largest value of each channel.
    epsilon : float
        Added to denominators.
    """

    low: Baseline | None = None
    high: Baseline | None = None
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise InputError("low, high: one of them lacks; expected both bounds of the box, or none")
        _check_epsilon(self.epsilon)

    def coefficients(self, step: AffineMap, value: Tensor, coefficients: Tensor) -> Tensor:
        """Raise InputError: nobody knows the box of a hidden layer."""
        raise _not_an_input_layer()

    def relevance(self, step: AffineMap, value: Tensor, coefficients: Tensor, space: Space | None) -> Tensor:
        """Return the relevance of the model's inputs; see :meth:`Rule.relevance`."""
        if space is None:
            raise _not_an_input_layer()
        relevance = value * coefficients
        # The inputs lie in the box but for rounding, so that no contribution is below zero.
        above, below = (step.x - space.low).clamp(min=0), (step.x - space.high).clamp(max=0)
        total, back = _linear(step, [(above, step.weight.clamp(min=0)), (below, step.weight.clamp(max=0))])
        nothing = total <= torch.finfo(total.dtype).tiny
        shares = (relevance / _stabilised(total, self.epsilon)).masked_fill(nothing, 0)
        passed = above * back[0](shares) + below * back[1](shares)
        lost = relevance.masked_fill(~nothing, 0)
        if bool((lost != 0).any()):
            passed = passed + WSquare()._spread(step, lost, space.own.to(step.x.dtype))
        return passed


@dataclass(frozen=True)
class Pass(Rule):
    """Leave each number's relevance where it is, as in layers whose outputs have their inputs' shape."""

    def coefficients(self, step: AffineMap, value: Tensor, coefficients: Tensor) -> Tensor:
        """Return the coefficients of the inputs; see :meth:`Rule.coefficients`."""
        small = _negligible(step.x)
        return torch.where(
            small, 0, self.relevance(step, value, coefficients, None) / step.x.masked_fill(small, 1)
        )

    def relevance(self, step: AffineMap, value: Tensor, coefficients: Tensor, space: Space | None) -> Tensor:
        """Return the relevance of the model's inputs; see :meth:`Rule.relevance`."""
        if value.shape != step.x.shape:
            raise InputError(
                f"rules: Pass is asked of a layer from {tuple(step.x.shape[1:])} to {tuple(value.shape[1:])}; "
                "expected one whose outputs have its inputs' shape"
            )
        return value * coefficients


@dataclass(frozen=True)
class Composite:
    """A rule for every layer.

    The first that fits of a layer's name, its place, its type, and else the default.

    Attributes
    ----------
    default : Rule
        Rule of all layers that nothing else names.
    types : mapping of a module's class to a rule
        The first class that fits counts. ``nn.Linear``, ``nn.Conv2d`` and so on also fit calls of these functions in
        modules of other classes.
    names : mapping of str to a rule
        Layers' dotted names, or patterns such as ``"features.1*"``. The first that fits counts.
    first : Rule, optional
        Rule of every layer that sees the model's inputs and nothing else: all stems, however they are called. What a
        model does to its inputs before, such as scaling, cropping or changing their shape, does not count as a layer.
    last : Rule, optional
        Rule of every layer from whose outputs the scores come without another layer between.

    Examples
    --------
    >>> from torch import nn
    >>> Composite(
    ...     types={nn.Conv2d: Gamma(0.25)}, names={"features.0": Flat()}, last=Epsilon(0.0)
    ... ).default
    Epsilon(epsilon=1e-06)
    """

    default: Rule = field(default_factory=Epsilon)
    types: Mapping[type[nn.Module], Rule] = field(default_factory=dict)
    names: Mapping[str, Rule] = field(default_factory=dict)
    first: Rule | None = None
    last: Rule | None = None

    def __post_init__(self) -> None:
        for where, rule in self._placed():
            if not isinstance(rule, Rule):
                raise InputError(
                    f"rules: {where} has a {type(rule).__name__}; expected a rule, such as Epsilon()"
                )
        for kind in self.types:
            if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
                raise InputError(f"rules: types has {kind!r}; expected a class of modules, such as nn.Conv2d")

    def _placed(self) -> list[tuple[str, Rule]]:
        places = [("default", self.default), ("first", self.first), ("last", self.last)]
        kinds = [(f"types {getattr(kind, '__name__', kind)}", rule) for kind, rule in self.types.items()]
        names = [(f"names {name!r}", rule) for name, rule in self.names.items()]
        return [(where, rule) for where, rule in (*places, *kinds, *names) if rule is not None]

    @property
    def asks_modules(self) -> bool:
        """Whether it must be known which module a layer is."""
        return bool(self.names) or any(kind not in _STANDARD for kind in self.types)

    def boxes(self) -> list[Box]:
        """Return its box rules."""
        return [rule for _, rule in self._placed() if isinstance(rule, Box)]

    def check(self, model: nn.Module) -> None:
        """Raise InputError if a name fits no module of a model."""
        known = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
        for pattern in self.names:
            if not any(fnmatchcase(name, pattern) for name in known):
                near = difflib.get_close_matches(pattern, known, n=5, cutoff=0.4) or known[:8]
                raise InputError(
                    f"rules: no layer is called {pattern!r}; the nearest are {', '.join(near) or 'none'}"
                )

    def choose(
        self, step: AffineMap, modules: Mapping[str, nn.Module], *, of_inputs: bool, is_last: bool
    ) -> Rule:
        """Return the rule of a layer, which may go by several names."""
        for pattern, rule in self.names.items():
            if any(fnmatchcase(name, pattern) for name in modules):
                return rule
        if of_inputs and self.first is not None:
            return self.first
        if is_last and self.last is not None:
            return self.last
        standard = _standard(step)
        for kind, rule in self.types.items():
            if issubclass(standard, kind) or any(isinstance(module, kind) for module in modules.values()):
                return rule
        return self.default


_NORMS = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CONVOLUTIONS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
_TRANSPOSED = {3: nn.ConvTranspose1d, 4: nn.ConvTranspose2d, 5: nn.ConvTranspose3d}
_STANDARD = {nn.Linear, *_NORMS, *_CONVOLUTIONS.values(), *_TRANSPOSED.values(), nn.modules.conv._ConvNd}


def _standard(step: AffineMap) -> type[nn.Module]:
    """Return the class of torch's own that does what a step does."""
    if step.kind == "batch_norm":
        return _NORMS[min(max(step.x.ndim - 2, 0), 3)]
    if step.kind == "linear":
        return nn.Linear
    return (_TRANSPOSED if step.kind == "transposed" else _CONVOLUTIONS)[step.weight.ndim]


def _check_epsilon(epsilon: float) -> None:
    if isinstance(epsilon, bool) or not isinstance(epsilon, (int, float)) or not 0 <= epsilon < math.inf:
        raise InputError(f"epsilon {epsilon}: expected a number of at least 0")


def _not_an_input_layer() -> InputError:
    return InputError(
        "rules: Box is asked of a layer that sees other than the model's inputs; expected another rule for it"
    )


def _negligible(x: Tensor) -> Tensor:
    """Return where nothing comes in on which relevance could rest."""
    return x.abs() <= torch.finfo(x.dtype).eps ** 2


def _stabilised(numbers: Tensor, epsilon: float, *, zero: int = 1) -> Tensor:
    """Return numbers moved away from zero, zeros to the side of the sign `zero`."""
    least = max(epsilon, torch.finfo(numbers.dtype).tiny)
    down = numbers < 0 if zero > 0 else numbers <= 0
    # In the numbers' own precision, for the least may vanish in another.
    moved = torch.full_like(numbers, least)
    return numbers + torch.where(down, -moved, moved)


def _ratio(numbers: Tensor, by: Tensor) -> Tensor:
    """Return a ratio, zero where the second is."""
    nothing = by == 0
    return (numbers / by.masked_fill(nothing, 1)).masked_fill(nothing, 0)


def _linear(
    step: AffineMap, terms: list[tuple[Tensor, Tensor]]
) -> tuple[Tensor, list[Callable[[Tensor], Tensor]]]:
    """Return the sum of the step's linear part over terms of inputs and weights, and each term's way back."""
    with torch.enable_grad():
        leaves = [x.detach().clone().requires_grad_() for x, _ in terms]
        parts = [step.apply(leaf, weight.detach()) for leaf, (_, weight) in zip(leaves, terms, strict=True)]

    def back(part: Tensor, leaf: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda shares: torch.autograd.grad(part, leaf, shares, retain_graph=True)[0]

    total = parts[0].detach()
    for part in parts[1:]:
        total = total + part.detach()
    return total, [back(part, leaf) for part, leaf in zip(parts, leaves, strict=True)]


def _pulled_back(step: AffineMap, weight: Tensor, shares: Tensor) -> Tensor:
    return _linear(step, [(step.x, weight)])[1][0](shares)


def _contributions(step: AffineMap, sign: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return the sum of each output's contributions of a sign, bias included, and their way back to coefficients."""
    positive, negative = step.weight.clamp(min=0), step.weight.clamp(max=0)
    above = step.x.clamp(min=0)
    both = bool((step.x < 0).any())
    terms = [(above, positive if sign > 0 else negative)]
    if both:
        terms.append((step.x.clamp(max=0), negative if sign > 0 else positive))
    total, ways = _linear(step, terms)
    if step.bias is not None:
        total = total + (step.bias.clamp(min=0) if sign > 0 else step.bias.clamp(max=0))

    def back(shares: Tensor) -> Tensor:
        found = [way(shares) for way in ways]
        return torch.where(step.x > 0, *found) if both else found[0]

    return total, back
