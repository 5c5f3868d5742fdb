"""Methods that read the gradient of the score by the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from interpretkit.attribution.explained_model import Baseline, ExplainedModel, Result
from interpretkit.attribution.rectifiers import RectifiedGradients, check_rectified
from interpretkit.errors import InputError, check_count
from interpretkit.training.seeds import torch_generator


def saliency(explained: ExplainedModel, *, absolute: bool = True) -> Result:
    """Return the gradient's size (Simonyan, Vedaldi and Zisserman, 2014, arXiv:1312.6034).

    Parameters
    ----------
    explained : ExplainedModel
        With inputs ``(n, ...)``.
    absolute : bool
        Whether the sign is dropped.

    Returns
    -------
    Result
        Values of the inputs' shape; in the details the scores ``(n,)``.
    """
    result = _clean_gradients(explained, lambda images, gradients: gradients)
    return Result(result.values.abs(), result.details) if absolute else result


def input_x_gradient(explained: ExplainedModel) -> Result:
    """Return the input times its gradient (Shrikumar et al., 2016, arXiv:1605.01713).

    Returns
    -------
    Result
        Values of the inputs' shape; in the details the scores ``(n,)``.
    """
    return _clean_gradients(explained, lambda images, gradients: images * gradients)


def guided_backprop(explained: ExplainedModel) -> Result:
    """Return the gradient, with what is negative stopped at every ReLU (Springenberg et al., 2015, arXiv:1412.6806).

    Returns
    -------
    Result
        Values of the inputs' shape; in the details the scores ``(n,)``.

    Raises
    ------
    InputError
        If the model applies no ReLU or ReLU6.
    """
    return _rectified(explained, guided=True)


def deconvnet(explained: ExplainedModel) -> Result:
    """Return the signal of a deconvolutional network (Zeiler and Fergus, 2014, arXiv:1311.2901).

    The backward signal passes each ReLU where it is positive itself, whatever the forward signal was.

    Returns
    -------
    Result
        Values of the inputs' shape; in the details the scores ``(n,)``.

    Raises
    ------
    InputError
        If the model applies no ReLU or ReLU6.
    """
    return _rectified(explained, guided=False)


def integrated_gradients(
    explained: ExplainedModel,
    *,
    steps: int = 50,
    baseline: Baseline = 0.0,
    rule: Literal["gauss-legendre", "midpoint"] = "gauss-legendre",
) -> Result:
    """Return the gradient's integral on the way from a baseline (Sundararajan, Taly and Yan, 2017, arXiv:1703.01365).

    Parameters
    ----------
    explained : ExplainedModel
        With inputs ``(n, ...)``.
    steps : int
        How many gradients make up the integral.
    baseline : number or array
        Where the way starts; broadcasts to the inputs.
    rule : {"gauss-legendre", "midpoint"}
        How the integral is approximated.

    Returns
    -------
    Result
        Values of the inputs' shape. In the details the ``scores`` and ``baseline_scores`` ``(n,)``, and the
        ``completeness_gap`` ``(n,)``: the values' sum minus the difference of the two, which vanishes as `steps`
        grows.

    Raises
    ------
    InputError
        If `steps` is below 1 or the rule is unknown.
    """
    start = explained.baseline(baseline)
    places, weights = (
        torch.from_numpy(array).to(explained.inputs.device, explained.precise)
        for array in _quadrature(steps, rule)
    )
    scores = explained.clean_scores()
    start_scores = torch.cat(
        explained.chunks.run(
            len(explained), lambda rows: explained.scores(start[rows], rows).to(explained.precise)
        )
    )
    total = torch.zeros_like(explained.inputs, dtype=explained.precise)

    def add(pairs: Tensor) -> None:
        rows, step = pairs // steps, pairs % steps
        place = _like(places[step], explained.inputs)
        images = start[rows] + place.to(start.dtype) * (explained.inputs[rows] - start[rows])
        _, gradients = explained.gradients(images, rows)
        weight = _like(weights[step], explained.inputs)
        total.index_add_(0, rows.to(total.device), weight * gradients.to(total.dtype))

    explained.chunks.run(len(explained) * steps, add)
    values = total * (explained.inputs - start)
    gap = values.flatten(1).sum(1) - (scores - start_scores)
    return Result(
        values, {"scores": scores, "baseline_scores": start_scores, "completeness_gap": gap, "steps": steps}
    )


def smoothgrad(
    explained: ExplainedModel, *, samples: int = 50, noise: float = 0.15, absolute: bool = False
) -> Result:
    """Return the mean gradient of noisy copies of the input (Smilkov et al., 2017, arXiv:1706.03825).

    Parameters
    ----------
    explained : ExplainedModel
        With inputs ``(n, ...)``.
    samples : int
        The number of noisy copies. All examples get the same noise, each on its own scale.
    noise : float
        The noise's standard deviation, as a share of the input's range of values.
    absolute : bool
        Whether the mean is one of absolute gradients.

    Returns
    -------
    Result
        Values of the inputs' shape; in the details the scores ``(n,)`` of the inputs without noise.

    Raises
    ------
    InputError
        If there is no sample, or the noise is negative.
    """
    check_count("samples", samples)
    if not 0 <= noise < float("inf"):
        raise InputError(f"noise {noise}: expected a share of the input's range, at least 0")
    scores = explained.clean_scores()
    flat = explained.inputs.flatten(1)
    deviation = _like(noise * (flat.amax(1) - flat.amin(1)), explained.inputs)
    total = torch.zeros_like(explained.inputs, dtype=explained.precise)

    # Sample by sample over the examples, so that a pass needs few of the noises at once.
    def add(pairs: Tensor) -> None:
        sample, rows = pairs // len(explained), pairs % len(explained)
        drawn = {int(s): _noise(explained, int(s)) for s in sample.unique()}
        noises = torch.stack([drawn[int(s)] for s in sample])
        _, gradients = explained.gradients(explained.inputs[rows] + deviation[rows] * noises, rows)
        gradients = gradients.abs() if absolute else gradients
        total.index_add_(0, rows.to(total.device), gradients.to(total.dtype))

    explained.chunks.run(len(explained) * samples, add)
    return Result(total / samples, {"scores": scores, "samples": samples})


def clear(explained: ExplainedModel, *, classes: int = 5, guided: bool = False) -> Result:
    """Return CLEAR (Kumar, Wong and Taylor, 2017, arXiv:1704.04133): where which class has the strongest response.

    The response of a class at a position is the positive part of its deconvolved signal, summed over the channels.
    The target competes with the classes of the largest outputs.

    Parameters
    ----------
    explained : ExplainedModel
        With inputs ``(n, channels, ...)``.
    classes : int
        How many classes compete with the target, itself not counted.
    guided : bool
        Whether guided backpropagation makes the responses rather than the deconvolutional network.

    Returns
    -------
    Result
        Values ``(n, 1, ...)``: the target's response where it is the strongest, else zero. In the details the scores
        ``(n,)``; the ``dominant_class`` ``(n, ...)``, -1 where nothing responds, and -2 for a target that is a
        function; and the ``dominant_strength`` ``(n, ...)``, its response.

    Raises
    ------
    InputError
        If the model applies no ReLU or ReLU6, or its outputs are not ``(n, classes)``.
    """
    check_count("classes", classes)
    explained.space()

    def work(rows: Tensor) -> tuple[Tensor, ...]:
        leaf = explained.inputs[rows].clone().requires_grad_()
        outputs = explained.outputs(leaf.clone())
        check_rectified(outputs)
        explained.target.resolve(outputs, rows)
        scores = explained.target.pick(outputs, rows)
        outputs = outputs[:, None] if outputs.ndim == 1 else outputs
        if outputs.ndim != 2:
            raise InputError(f"model: gives outputs {tuple(outputs.shape)}; expected (n, classes)")
        indices = explained.target.indices
        own = torch.full((len(rows),), -2) if indices is None else torch.from_numpy(indices)[rows]
        own = own.to(outputs.device)
        names, responses = [own], []
        order = outputs.detach().argsort(dim=1, descending=True, stable=True)
        # The target is asked for by itself, the others by their rank.
        rivals = torch.stack([line[line != mine][:classes] for line, mine in zip(order, own, strict=True)])
        wanted = [scores, *(outputs.gather(1, rivals[:, [k]])[:, 0] for k in range(rivals.shape[1]))]
        names += list(rivals.T)
        for number, score in enumerate(wanted):
            gradient = explained.differentiate(score, leaf, "the inputs", again=number + 1 < len(wanted))
            responses.append(gradient.to(explained.precise).sum(1).clamp(min=0))
        strength, winner = torch.stack(responses).max(0)
        places = torch.arange(len(rows), device=winner.device).reshape(-1, *[1] * (winner.ndim - 1))
        numbers = torch.stack(names)[winner, places]
        numbers = numbers.masked_fill(strength == 0, -1)
        values = torch.where(winner == 0, strength, 0)[:, None]
        return scores.detach(), values, numbers, strength

    with RectifiedGradients(guided) as rectifiers:
        parts = explained.chunks.run(len(explained), work)
    _check_met(rectifiers)
    scores, values, numbers, strength = (torch.cat(part) for part in zip(*parts, strict=True))
    return Result(values, {"scores": scores, "dominant_class": numbers, "dominant_strength": strength})


def _clean_gradients(
    explained: ExplainedModel,
    combine: Callable[[Tensor, Tensor], Tensor],
    check: Callable[[Tensor], None] | None = None,
) -> Result:
    """Apply `combine` to the inputs and their gradients; a single pass settles the targets as well.

    The scores are checked before they are differentiated.
    """

    def work(rows: Tensor) -> tuple[Tensor, Tensor]:
        images = explained.inputs[rows]
        scores, gradients = explained.gradients(images, rows, clean=True, check=check)
        return scores, combine(images, gradients)

    scores, values = zip(*explained.chunks.run(len(explained), work), strict=True)
    return Result(torch.cat(values), {"scores": torch.cat(scores)})


def _rectified(explained: ExplainedModel, *, guided: bool) -> Result:
    with RectifiedGradients(guided) as rectifiers:
        result = _clean_gradients(explained, lambda images, gradients: gradients, check_rectified)
    _check_met(rectifiers)
    return result


def _check_met(rectifiers: RectifiedGradients) -> None:
    if not rectifiers.met:
        raise InputError("model: applies no ReLU or ReLU6; the method expects one that does")


def _quadrature(steps: int, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """Return places in 0 … 1 and their weights, ``(steps,)`` each."""
    check_count("steps", steps)
    if rule == "midpoint":
        return (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)
    if rule == "gauss-legendre":
        places, weights = np.polynomial.legendre.leggauss(steps)
        return (1 + places) / 2, weights / 2
    raise InputError(f"rule {rule!r}: expected gauss-legendre or midpoint")


def _noise(explained: ExplainedModel, sample: int) -> Tensor:
    # Drawn on the CPU, so that it is the same on every device.
    generator = torch_generator(explained.seed, "smoothgrad", sample)
    shape = explained.inputs.shape[1:]
    return torch.randn(shape, generator=generator).to(explained.inputs.device, explained.inputs.dtype)


def _like(numbers: Tensor, images: Tensor) -> Tensor:
    """Give numbers ``(m,)`` the axes of images ``(m, ...)``."""
    return numbers.reshape(-1, *[1] * (images.ndim - 1))
