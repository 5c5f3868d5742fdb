"""A model, inputs and targets, and the questions that methods ask of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from interpretkit.attribution.target import TargetScores
from interpretkit.errors import InputError
from interpretkit.networks.batching import Chunks
from interpretkit.networks.instrumentation import LayerTap, check_outputs
from interpretkit.networks.memory_order import Watch, in_channels_last

# What inputs are replaced by where they are taken away: a number, or values that broadcast to one or all inputs.
Baseline = float | ArrayLike | Tensor


@dataclass(frozen=True)
class Result:
    """What a method found: values ``(n, ...)``, and how they came about."""

    values: Tensor
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ExplainedModel:
    """A model whose outputs for some inputs are to be explained.

    Attributes
    ----------
    model : Module
        Within :func:`~interpretkit.networks.instrumentation.instrumented`.
    inputs : Tensor, (n, ...)
        On the model's device and of its precision.
    target : TargetScores
        Which output is explained.
    chunks : Chunks
        How many images go through the model at once.
    seed : int
        Seed of all randomness. What is drawn must not depend on an example's place in the batch.
    layer : str or None
        The layer that was asked for.
    any_order : bool
        Whether the model is known to take images in any order of memory; then a pass may raise
        :class:`~interpretkit.networks.memory_order.NoticedError`.
    """

    model: nn.Module
    inputs: Tensor
    target: TargetScores
    chunks: Chunks
    seed: int
    layer: str | None = None
    any_order: bool = False

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def precise(self) -> torch.dtype:
        """The precision in which sums are kept: that of the inputs, but at least single."""
        return torch.promote_types(self.inputs.dtype, torch.float32)

    def space(self, dimensions: int | None = None) -> torch.Size:
        """Return the inputs' extents after example and channel.

        Raises
        ------
        InputError
            If there are none, or not as many as `dimensions`.
        """
        size = self.inputs.shape[2:]
        if len(size) != dimensions if dimensions else not size:
            raise InputError(
                f"inputs: have shape {tuple(self.inputs.shape)}; expected (n, channels, height, width)"
            )
        return size

    def scores(
        self, images: Tensor, rows: Tensor, *, clean: bool = False, probabilities: bool = False
    ) -> Tensor:
        """Return the score ``(m,)`` of each image ``(m, ...)``, without gradients.

        Parameters
        ----------
        images : Tensor, (m, ...)
            Inputs, perturbed or not.
        rows : Tensor of int, (m,)
            The example that each belongs to.
        clean : bool
            Whether they are the unperturbed inputs, which settle the targets.
        probabilities : bool
            Whether the outputs are logits whose softmax is to be scored. Outputs that a function scores, and
            single ones, are left as they are.
        """
        with torch.no_grad():
            return self.traced_scores(images, rows, clean=clean, probabilities=probabilities)

    def clean_scores(self, *, probabilities: bool = False) -> Tensor:
        """Return the scores ``(n,)`` of the inputs as they are, and settle the targets by them."""

        def work(rows: Tensor) -> Tensor:
            return self.scores(self.inputs[rows], rows, clean=True, probabilities=probabilities)

        return torch.cat(self.chunks.run(len(self), work)).to(self.precise)

    def gradients(
        self,
        images: Tensor,
        rows: Tensor,
        *,
        clean: bool = False,
        check: Callable[[Tensor], None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return scores ``(m,)`` and their gradients ``(m, ...)`` by the images; see :meth:`scores`.

        With `check` the scores are looked at before they are differentiated.

        Raises
        ------
        InputError
            If the scores do not depend on the images in a way that can be differentiated.
        """
        leaf = images.detach().requires_grad_()
        # A copy, because the model may change its input in place, which a leaf forbids.
        scores = self.traced_scores(leaf.clone(), rows, clean=clean)
        if check is not None:
            check(scores)
        return scores.detach(), self.differentiate(scores, leaf, "the inputs")

    def layer_gradients(
        self, tap: LayerTap, images: Tensor, rows: Tensor, *, clean: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores ``(m,)``, a layer's activations and the scores' gradients by them; see :meth:`scores`.

        Raises
        ------
        InputError
            If the layer does not run, or the scores do not depend on it.
        """
        scores, activations = self._tapped(tap, images, rows, clean)
        gradients = self.differentiate(scores, activations, f"layer {tap.name!r}")
        # Others than the model may mind the order of memory.
        return scores.detach(), activations.detach().contiguous(), gradients.contiguous()

    def layer_activations(
        self, tap: LayerTap, images: Tensor, rows: Tensor, *, clean: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return scores ``(m,)`` and a layer's activations, without gradients; see :meth:`scores`.

        Raises
        ------
        InputError
            If the layer does not run.
        """
        with torch.no_grad():
            scores, activations = self._tapped(tap, images, rows, clean)
        return scores, activations.detach().contiguous()

    def _tapped(self, tap: LayerTap, images: Tensor, rows: Tensor, clean: bool) -> tuple[Tensor, Tensor]:
        tap.clear()
        # A copy, because the model may change its input in place.
        scores = self.traced_scores(images.clone(), rows, clean=clean)
        if tap.activation is None:
            raise InputError(f"layer {tap.name!r}: does not run in the model's forward pass")
        return scores, tap.activation

    def baseline(self, value: Baseline) -> Tensor:
        """Return a baseline in the inputs' shape ``(n, ...)``.

        Raises
        ------
        InputError
            If it does not broadcast to the inputs, or is not finite.
        """
        given = torch.as_tensor(value if isinstance(value, Tensor) else np.asarray(value))
        given = given.detach().to(self.inputs.device, self.inputs.dtype)
        try:
            baseline = given.expand_as(self.inputs)
        except RuntimeError as error:
            raise InputError(
                f"baseline: has shape {tuple(given.shape)}; expected a number, or an array that broadcasts to "
                f"{tuple(self.inputs.shape)}"
            ) from error
        if not bool(given.isfinite().all()):
            raise InputError("baseline: holds NaN or infinite values; expected finite ones")
        return baseline

    def traced_scores(
        self, images: Tensor, rows: Tensor, *, clean: bool = False, probabilities: bool = False
    ) -> Tensor:
        """Return scores ``(m,)`` that remember how they came about; see :meth:`scores`."""
        outputs = self.outputs(images)
        if clean:
            self.target.resolve(outputs, rows)
        if probabilities and self.target.function is None and outputs.ndim == 2 and outputs.shape[1] > 1:
            outputs = outputs.softmax(1)
        return self.target.pick(outputs, rows)

    def outputs(self, images: Tensor) -> Tensor:
        """Return what the model gives for images ``(m, ...)``: a tensor with a row for each.

        Raises
        ------
        InputError
            If it gives anything else.
        """
        outputs = self._run_in_any_order(images) if self.any_order else self.model(images)
        check_outputs(outputs, len(images))
        return outputs

    def _run_in_any_order(self, images: Tensor) -> Any:
        # Of a single image nothing would be won.
        given = in_channels_last(images) if len(images) > 1 else images
        with Watch(self.model, given) as watch:
            outputs = self.model(given)
        watch.check(outputs)
        # Others than the model may mind.
        return outputs.contiguous() if isinstance(outputs, Tensor) else outputs

    @staticmethod
    def differentiate(scores: Tensor, leaf: Tensor, by: str, *, again: bool = False) -> Tensor:
        """Return the gradient of each score ``(m,)`` by its own part of a leaf ``(m, ...)``.

        With `again` the computation is kept for another.

        Raises
        ------
        InputError
            If there is no path between them; `by` says what the leaf is.
        """
        gradient = None
        if scores.requires_grad:
            # Each score depends on its own image alone, so the sum's gradient holds the gradients of all.
            (gradient,) = torch.autograd.grad(scores.sum(), leaf, allow_unused=True, retain_graph=again)
        if gradient is None:
            raise InputError(
                f"target: no gradient passes from the score to {by}; expected a differentiable path"
            )
        return gradient


def prepared(
    model: nn.Module, inputs: Tensor | NDArray[np.floating], name: str = "inputs"
) -> tuple[Tensor, torch.device]:
    """Return the inputs ``(n, ...)`` as the model takes them, and the device on which they were given.

    Errors call them by `name`.

    Raises
    ------
    InputError
        If they are not finite floating-point numbers, or there are none.
    """
    if not isinstance(inputs, (Tensor, np.ndarray)):
        raise InputError(f"{name}: are a {type(inputs).__name__}; expected a tensor or array (n, ...)")
    if isinstance(inputs, np.ndarray):
        if inputs.dtype.kind not in "fiub":
            raise InputError(f"{name}: are of type {inputs.dtype}; expected floating-point numbers")
        # A copy, for torch shares no memory that is read-only or walked backwards.
        inputs = torch.from_numpy(np.array(inputs))
    given = inputs.detach()
    if given.ndim < 2 or len(given) == 0:
        raise InputError(f"{name}: have shape {tuple(given.shape)}; expected (n, ...) with n of at least 1")
    if not given.is_floating_point():
        raise InputError(f"{name}: are of type {given.dtype}; expected floating-point numbers")
    # The sum is finite only if all are, and at once told; it may also overflow.
    if not given.sum().isfinite():
        finite = given.isfinite().flatten(1).all(1)
        if not bool(finite.all()):
            row = int((~finite).nonzero()[0])
            raise InputError(f"{name}: example {row} holds NaN or infinite values; expected finite ones")
    weights = next((p for p in model.parameters() if p.is_floating_point()), None)
    copied = given.clone() if weights is None else given.to(weights.device, weights.dtype, copy=True)
    return copied, given.device
