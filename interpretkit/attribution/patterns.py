"""PatternNet and PatternAttribution: what a layer's neurons respond to, rather than what they cancel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpretkit.attribution.affine import AffineMap, AffineMode
from interpretkit.attribution.explained_model import ExplainedModel, Result, prepared
from interpretkit.attribution.function_calls import Call, valued
from interpretkit.attribution.target import TargetScores
from interpretkit.errors import InputError
from interpretkit.networks.batching import Chunks
from interpretkit.networks.instrumentation import instrumented

Images = Tensor | NDArray[np.floating]


@dataclass(frozen=True)
class Patterns:
    """The signal directions of a model's neurons.

    Attributes
    ----------
    directions : tuple of Tensor
        Directions of each convolution and linear layer, in the order in which they run and as often as they run: of the
        weight's shape. A neuron's direction and its weight, that of a following batch norm included, have the inner
        product 1; the direction is zero where the neuron's output told nothing.
    merged : tuple of bool
        Whether a batch norm was merged into the layer.
    """

    directions: tuple[Tensor, ...]
    merged: tuple[bool, ...]


def fit_patterns(
    model: nn.Module,
    batches: Images | Iterable[Images],
    *,
    seed: int = 0,
    images_per_forward: int | None = None,
) -> Patterns:
    """Estimate the signal directions of a model's neurons (Kindermans et al., 2018, arXiv:1705.05598).

    Neurons of a layer whose whole output a rectifier takes at once get the estimator of two components, whose
    expectations run over the positive outputs: ``(E₊[xy] − E₊[x] E[y]) / (wᵀE₊[xy] − wᵀE₊[x] E[y])``; all others the
    linear one, the covariance of input and output by the output's variance.

    Parameters
    ----------
    model : Module
        As for :func:`~interpretkit.attribution.api.attribute`; left as it was.
    batches : Tensor or ndarray ``(n, ...)``, or iterable of them
        Inputs of the kind that the model was trained on; many, for each neuron needs some that make it fire.
    seed : int
        For models that draw random numbers even in evaluation mode.
    images_per_forward : int, optional
        The most images that go through the model at once; by default 8 on a CPU, 64 elsewhere.

    Returns
    -------
    Patterns
        To be given to the methods ``patternnet`` and ``pattern_attribution`` as the option ``patterns``.

    Raises
    ------
    InputError
        If there are no inputs, the inputs cannot be used, or the model has no convolution or linear layer.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 5))
    >>> patterns = fit_patterns(model, (torch.rand(10, 3, 8, 8) for _ in range(3)))
    >>> patterns.directions[0].shape
    torch.Size([5, 192])
    """
    sums: list[_Sums] = []
    with instrumented(model, seed):
        for batch in [batches] if isinstance(batches, (Tensor, np.ndarray)) else batches:
            images, _ = prepared(model, batch, "batches")
            explained = ExplainedModel(
                model,
                images,
                TargetScores(None, len(images)),
                Chunks(images_per_forward, images.device),
                seed,
            )
            sums = _added(sums, _gather(explained))
    return _patterns(sums)


def patternnet(explained: ExplainedModel, *, patterns: Patterns | Images | None = None) -> Result:
    """Return PatternNet (Kindermans et al., 2018, arXiv:1705.05598): the signal that made the score.

    The score is passed back with each layer's signal directions in place of its weights. On a linear model that is
    the direction itself times the score.

    Parameters
    ----------
    explained : ExplainedModel
        With inputs ``(n, ...)``.
    patterns : Patterns, Tensor or ndarray
        What :func:`fit_patterns` gives, or inputs ``(m, ...)`` to fit on now.

    Returns
    -------
    Result
        Values of the inputs' shape; in the details the scores ``(n,)``.

    Raises
    ------
    InputError
        If there are no patterns, or they do not belong to the model.
    """

    def replaced(weight: Tensor, direction: Tensor) -> Tensor:
        return direction

    return _passed_back(explained, patterns, replaced)


def pattern_attribution(explained: ExplainedModel, *, patterns: Patterns | Images | None = None) -> Result:
    """Return PatternAttribution (Kindermans et al., 2018, arXiv:1705.05598): what each input adds to the signal.

    The score is passed back with weights multiplied by the layer's signal directions. Parameters, result and errors
    are those of :func:`patternnet`.
    """

    def replaced(weight: Tensor, direction: Tensor) -> Tensor:
        return weight * direction

    return _passed_back(explained, patterns, replaced)


def _passed_back(
    explained: ExplainedModel,
    patterns: Patterns | Images | None,
    replaced: Callable[[Tensor, Tensor], Tensor],
) -> Result:
    if patterns is None:
        raise InputError("patterns: are missing; expected what fit_patterns gives, or inputs to fit them on")
    if not isinstance(patterns, Patterns):
        images, _ = prepared(explained.model, patterns, "patterns")
        patterns = _patterns(_gather(replace(explained, inputs=images)))
    fitted = patterns

    def work(rows: Tensor) -> tuple[Tensor, Tensor]:
        leaf = explained.inputs[rows].clone().requires_grad_()
        mode = _PatternWay(fitted, replaced)
        with mode:
            outputs = explained.outputs(leaf.clone())
        if mode.met != len(fitted.directions):
            raise _other_model()
        explained.target.resolve(outputs, rows)
        scores = explained.target.pick(outputs, rows)
        way = explained.differentiate(scores, leaf, "the inputs")
        amounts = scores.detach().reshape(-1, *[1] * (leaf.ndim - 1))
        return scores.detach(), amounts * way

    scores, values = zip(*explained.chunks.run(len(explained), work), strict=True)
    return Result(torch.cat(values), {"scores": torch.cat(scores)})


def _other_model() -> InputError:
    return InputError("patterns: were fitted to another model; expected those of fit_patterns on this one")


class _PatternWay(AffineMode):
    """Passes gradients back through other weights than signals go forward."""

    def __init__(self, patterns: Patterns, replaced: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self._patterns = patterns
        self._replaced = replaced

    def affine(self, step: AffineMap, output: Tensor) -> Tensor:
        if not step.x.requires_grad:
            return output
        if step.kind == "batch_norm":
            # Each neuron has a single input, which is all signal.
            direction = torch.where(step.weight == 0, 0, 1 / step.weight)
            return valued(step.apply(step.x, self._replaced(step.weight, direction)), output)
        if step.number >= len(self._patterns.directions):
            raise _other_model()
        direction = self._patterns.directions[step.number]
        if direction.shape != step.weight.shape:
            raise _other_model()
        if self._patterns.merged[step.number] != step.merged:
            return output
        weight = self._replaced(step.weight, direction.to(step.weight.device, step.weight.dtype))
        return valued(step.apply(step.x, weight), output)


@dataclass(frozen=True)
class _Sums:
    """Over the positions that count: of the inputs and their products with the outputs, as large as the weight."""

    weight: Tensor
    merged: bool
    rectified: bool
    products: Tensor
    inputs: Tensor
    counted: Tensor
    outputs: Tensor
    squares: Tensor
    positions: int

    def __add__(self, other: _Sums) -> _Sums:
        if self.weight.shape != other.weight.shape or self.rectified != other.rectified:
            raise InputError("model: takes other steps for other inputs; expected a fixed computation")
        return replace(
            self,
            products=self.products + other.products,
            inputs=self.inputs + other.inputs,
            counted=self.counted + other.counted,
            outputs=self.outputs + other.outputs,
            squares=self.squares + other.squares,
            positions=self.positions + other.positions,
        )

    def direction(self) -> Tensor:
        """Return the neurons' signal directions, of the weight's shape."""

        def each(numbers: Tensor) -> Tensor:
            return numbers.reshape(-1, *[1] * (self.weight.ndim - 1))

        counted = each(self.counted.clamp(min=1))
        covariance = self.products / counted - self.inputs / counted * each(self.outputs / self.positions)
        explained = (self.weight * covariance).flatten(1).sum(1)
        # Where the output hardly varies the ratio would be noise.
        least = 1e-6 * self.squares / self.positions
        known = each((explained > least) & (self.counted > 1))
        return torch.where(known, covariance / each(explained).masked_fill(~known, 1), 0)


def _gather(explained: ExplainedModel) -> list[_Sums]:
    """Return the sums over the inputs, for each layer that runs."""

    def work(rows: Tensor) -> list[_Sums]:
        mode = _Statistics(explained.precise)
        with torch.no_grad(), mode:
            explained.outputs(explained.inputs[rows])
        mode.finish()
        return mode.sums

    sums: list[_Sums] = []
    for part in explained.chunks.run(len(explained), work):
        sums = _added(sums, part)
    return sums


def _added(sums: list[_Sums], more: list[_Sums]) -> list[_Sums]:
    if sums and len(sums) != len(more):
        raise InputError("model: takes other steps for other inputs; expected a fixed computation")
    return [a + b for a, b in zip(sums, more, strict=True)] if sums else more


def _patterns(sums: list[_Sums]) -> Patterns:
    if not sums:
        raise InputError(
            "patterns: nothing to fit; expected inputs, and a model with a convolution or linear layer"
        )
    return Patterns(tuple(own.direction() for own in sums), tuple(own.merged for own in sums))


def _is_the_same(x: Tensor, output: Tensor) -> bool:
    """Return whether a tensor holds the numbers of another, be it as a view of another shape."""
    return x is output or (
        x.numel() == output.numel()
        and x.data_ptr() == output.data_ptr()
        and x.untyped_storage().data_ptr() == output.untyped_storage().data_ptr()
    )


class _Statistics(AffineMode):
    """Sums up what goes into each layer and comes out of it, one layer at a time."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.sums: list[_Sums] = []
        self._dtype = dtype
        self._open: tuple[AffineMap, Tensor, Tensor, int, bool] | None = None

    def affine(self, step: AffineMap, output: Tensor) -> Tensor:
        if step.kind == "batch_norm":
            return output
        if step.merged:
            # In place of the layer without it.
            self._open = None
        self.finish()
        # Copies, for the model may change both before it is known whether a rectifier follows.
        given = replace(step, x=step.x.detach().to(self._dtype, copy=True))
        self._open = given, output.to(self._dtype, copy=True), output, output._version, False
        return output

    def activation(self, call: Call) -> None:
        if self._open is not None:
            step, values, output, version, _ = self._open
            if _is_the_same(call.x, output) and output._version == version:
                kept = call.apply(call.x[:1])
                # A rectifier gives nothing where nothing above zero comes in.
                rectifies = bool((kept[call.x[:1] <= 0] == 0).all())
                self._open = step, values, output, version, rectifies

    def finish(self) -> None:
        """Add the sums of the last layer that ran."""
        if self._open is None:
            return
        step, y, _, _, rectified = self._open
        self._open = None
        channel = 1 if step.kind == "convolution" else y.ndim - 1
        others = [axis for axis in range(y.ndim) if axis != channel]
        counts = (y > 0).to(y.dtype) if rectified else torch.ones_like(y)
        weight = step.weight.to(y.dtype)
        # The gradient by the weight of Σ g · y is the sum over positions of g times what the weight meets there.
        with torch.enable_grad():
            leaf = weight.detach().requires_grad_()
            applied = step.apply(step.x, leaf)
            (products,) = torch.autograd.grad(applied, leaf, counts * y, retain_graph=True)
            (inputs,) = torch.autograd.grad(applied, leaf, counts)
        self.sums.append(
            _Sums(
                weight.detach(),
                step.merged,
                rectified,
                products,
                inputs,
                counts.sum(others),
                y.sum(others),
                (y * y).sum(others),
                y.numel() // y.shape[channel],
            )
        )
