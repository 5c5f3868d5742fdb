"""What captum is given for a model: a stand-in that answers for it, and random numbers of its own.

captum never sees the model. The stand-in gives the scores and a layer's values of any number of images, which pass the
model some at a time, and their gradients. So captum's methods bound the memory, choose the target, name layers and
leave the model as all methods do.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interpretkit.attribution.explained_model import ExplainedModel
from interpretkit.attribution.layer_values import Layer
from interpretkit.training.seeds import derive_seed

# What captum reckons with, whatever the model's own precision: the same numbers are drawn for all.
DOUBLE = torch.float64


class _ScoresOfInputs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: Tensor, ask: Callable[[Tensor, bool], tuple[Tensor, Tensor | None]]
    ) -> Tensor:
        scores, gradients = ask(images, ctx.needs_input_grad[0])
        ctx.save_for_backward(*([] if gradients is None else [gradients]))
        return scores

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, None]:
        (gradients,) = ctx.saved_tensors
        return given[0].reshape(-1, *[1] * (gradients.ndim - 1)) * gradients, None


class _ValuesOfLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, stand_in: StandIn) -> Tensor:
        ctx.stand_in = stand_in
        ctx.save_for_backward(images)
        return stand_in.values(images)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, None]:
        (images,) = ctx.saved_tensors
        return ctx.stand_in.pulled_back(images, given[0]), None


class _ScoresOfLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, images: Tensor, stand_in: StandIn) -> Tensor:
        scores, gradients = stand_in.scores_at(images, values, ctx.needs_input_grad[0])
        ctx.save_for_backward(*([] if gradients is None else [gradients]))
        return scores

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, None, None]:
        (gradients,) = ctx.saved_tensors
        return given[0].reshape(-1, *[1] * (gradients.ndim - 1)) * gradients, None, None


class StandIn(nn.Module):
    """What captum is given for a model: from images ``(m, ...)`` in double precision to scores ``(m,)``.

    Parameters
    ----------
    explained : ExplainedModel
        The model to be explained, of one example, to which all images belong.
    layer : Layer, optional
        The layer that stands in the attribute `layer`, where captum may read and replace its values.

    Attributes
    ----------
    remembers : bool
        Whether an image that was asked for before is not asked for again.
    differentiates : bool
        Whether gradients by the layer's values are going to be asked for.
    """

    def __init__(self, explained: ExplainedModel, layer: Layer | None = None) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self._problem = explained
        self._layer = layer
        self._known: tuple[Tensor, Tensor, Tensor, Tensor | None] | None = None
        self._answers: dict[bytes, Tensor] = {}
        self.remembers = False
        self.differentiates = False

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores ``(m,)`` of images ``(m, ...)``."""
        if self._layer is None:
            return _ScoresOfInputs.apply(images, self._scores)  # type: ignore[return-value]
        values = self.layer(_ValuesOfLayer.apply(images, self))
        return _ScoresOfLayer.apply(values, images.detach(), self)  # type: ignore[return-value]

    def _each(self, count: int, work: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            parts = self._problem.chunks.run(count, work)
        return tuple(torch.cat(part).to(DOUBLE) for part in zip(*parts, strict=True))

    def _plain(self, images: Tensor, places: Tensor) -> Tensor:
        return images[places].detach().to(self._problem.inputs.dtype)

    def _scores(self, images: Tensor, with_gradients: bool) -> tuple[Tensor, Tensor | None]:
        explained = self._problem
        if with_gradients:
            found = self._each(
                len(images),
                lambda rows: explained.gradients(self._plain(images, rows), torch.zeros_like(rows)),
            )
            return found[0], found[1]
        if not self.remembers:
            return self._asked(images), None
        keys = [image.cpu().numpy().tobytes() for image in images.detach()]
        new = [place for place, key in enumerate(keys) if key not in self._answers]
        new = list({keys[place]: place for place in new}.values())
        if new:
            self._answers |= {keys[p]: s for p, s in zip(new, self._asked(images[new]), strict=True)}
        return torch.stack([self._answers[key] for key in keys]), None

    def _asked(self, images: Tensor) -> Tensor:
        explained = self._problem
        (scores,) = self._each(
            len(images), lambda rows: (explained.scores(self._plain(images, rows), torch.zeros_like(rows)),)
        )
        return scores

    def values(self, images: Tensor) -> Tensor:
        """Return the layer's values for images, and keep the scores, which captum is going to ask for."""
        explained, layer = self._problem, self._layer
        assert layer is not None

        def work(rows: Tensor) -> tuple[Tensor, ...]:
            with layer.read(cut=True) as output:
                scores = explained.traced_scores(self._plain(images, rows), torch.zeros_like(rows))
                values = output()
            if not self.differentiates:
                return values.detach(), scores.detach()
            gradients = explained.differentiate(scores, values, f"layer {layer.name!r}")
            return values.detach(), scores.detach(), gradients

        # What replaces the layer's values asks for the same image again and again.
        alike = len(images) > 1 and bool((images == images[:1]).all())
        found = self._each(1 if alike else len(images), work)
        values, scores, *gradients = (part.expand(len(images), *part.shape[1:]) for part in found)
        self._known = (images.detach().clone(), values, scores, gradients[0] if gradients else None)
        return values.clone()

    def pulled_back(self, images: Tensor, given: Tensor) -> Tensor:
        """Return the gradient by images that belongs to one by the layer's values."""
        explained, layer = self._problem, self._layer
        assert layer is not None

        def work(rows: Tensor) -> tuple[Tensor, ...]:
            leaf = self._plain(images, rows).requires_grad_()
            with layer.read() as output:
                explained.outputs(leaf.clone())
                values = output()
            weighted = (values * given[rows].to(values.dtype)).flatten(1).sum(1)
            return (explained.differentiate(weighted, leaf, "the inputs"),)

        return self._each(len(images), work)[0]

    def scores_at(self, images: Tensor, values: Tensor, with_gradients: bool) -> tuple[Tensor, Tensor | None]:
        """Return scores where the layer has these values, and their gradients by them."""
        explained, layer, known = self._problem, self._layer, self._known
        assert layer is not None
        asked_before = known is not None and _same(known[0], images) and _same(known[1], values)
        if known is not None and asked_before and (known[3] is not None or not with_gradients):
            return known[2], known[3]

        def work(rows: Tensor) -> tuple[Tensor, ...]:
            leaf = values[rows].detach().to(explained.inputs.dtype).requires_grad_(with_gradients)
            with layer.read(replaced_by=leaf):
                scores = explained.traced_scores(self._plain(images, rows), torch.zeros_like(rows))
            if not with_gradients:
                return (scores.detach(),)
            return scores.detach(), explained.differentiate(scores, leaf, f"layer {layer.name!r}")

        found = self._each(len(images), work)
        return found[0], found[1] if with_gradients else None


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


@contextmanager
def as_drawn_anew(seed: int, name: str) -> Iterator[None]:
    """Give captum the same random numbers for every example, and leave those of others where they were."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    torch_state = torch.get_rng_state()
    own = derive_seed(seed, "captum", name)
    try:
        np.random.seed(own % 2**32)  # noqa: NPY002
        random.seed(own)
        torch.default_generator.manual_seed(own % 2**63)
        with warnings.catch_warnings():
            # Of what captum sets up for itself.
            warnings.filterwarnings("ignore", module=r"captum\.")
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)
        torch.set_rng_state(torch_state)
