"""Methods that change the input and watch the score."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from interpretkit.attribution.blurring import blurred
from interpretkit.attribution.explained_model import Baseline, ExplainedModel, Result
from interpretkit.attribution.segments import segment_fills, segment_labels
from interpretkit.errors import InputError, check_count
from interpretkit.training.seeds import numpy_generator, torch_generator


def occlusion(
    explained: ExplainedModel,
    *,
    window: int | Sequence[int] | None = None,
    stride: int | Sequence[int] | None = None,
    baseline: Baseline = 0.0,
) -> Result:
    """Return how much the score drops when a window is covered (Zeiler and Fergus, 2014, arXiv:1311.2901).

    Parameters
    ----------
    explained : ExplainedModel
        With inputs ``(n, channels, ...)``.
    window : int or sequence of int, optional
        The window's sides; by default a seventh of the input's.
    stride : int or sequence of int, optional
        How far the window moves; by default half its sides. At the far edges windows are cut off.
    baseline : number or array
        What covers; broadcasts to the inputs.

    Returns
    -------
    Result
        Values ``(n, 1, ...)``: the mean drop over the windows that cover a position. In the details the scores
        ``(n,)`` and the number of ``windows``, each of which costs one forward pass of an example.

    Raises
    ------
    InputError
        If the window does not fit into the inputs, or its steps leave gaps.
    """
    size = explained.space()
    sides = _per_axis("window", window if window is not None else [round(s / 7) or 1 for s in size], size)
    steps = _per_axis("stride", stride if stride is not None else [s // 2 or 1 for s in sides], size)
    for side, step, extent in zip(sides, steps, size, strict=True):
        if side > extent:
            raise InputError(f"window {side}: the inputs are {extent} wide; expected at most that")
        if step > side:
            raise InputError(f"stride {step}: leaves gaps between windows of {side}; expected at most that")
    starts = [
        range(0, step * (math.ceil((extent - side) / step) + 1), step)
        for side, step, extent in zip(sides, steps, size, strict=True)
    ]
    windows = [
        tuple(slice(start, start + side) for start, side in zip(corner, sides, strict=True))
        for corner in itertools.product(*starts)
    ]
    cover = explained.baseline(baseline)
    scores = explained.clean_scores()
    total = torch.zeros(len(explained), *size, dtype=explained.precise, device=explained.inputs.device)

    def work(pairs: Tensor) -> None:
        rows, places = pairs // len(windows), [windows[int(p)] for p in pairs % len(windows)]
        images = explained.inputs[rows]
        for image, row, place in zip(images, rows, places, strict=True):
            image[:, *place] = cover[int(row)][:, *place]
        drops = scores[rows] - explained.scores(images, rows).to(explained.precise)
        for row, place, drop in zip(rows, places, drops, strict=True):
            total[int(row)][place] += drop

    explained.chunks.run(len(explained) * len(windows), work)
    covered = torch.zeros_like(total[0])
    for place in windows:
        covered[place] += 1
    return Result((total / covered)[:, None], {"scores": scores, "windows": len(windows)})


def rise(
    explained: ExplainedModel,
    *,
    samples: int = 1000,
    cells: int = 7,
    keep: float = 0.5,
    probabilities: bool = True,
) -> Result:
    """Return RISE (Petsiuk, Das and Saenko, 2018, arXiv:1806.07421): the mean of random masks, weighted by scores.

    Parameters
    ----------
    explained : ExplainedModel
        With inputs ``(n, channels, height, width)``. All examples get the same masks.
    samples : int
        The number of masks, each of which costs one forward pass of an example.
    cells : int
        The masks' coarse grid has so many cells on a side.
    keep : float
        The chance that a cell is left to be seen.
    probabilities : bool
        Whether softmax turns the model's outputs into probabilities first, as in the article.

    Returns
    -------
    Result
        Values ``(n, 1, height, width)``; in the details the scores ``(n,)`` of the whole inputs.

    Raises
    ------
    InputError
        If an option is out of its range or the inputs are not images.
    """
    size = explained.space(2)
    check_count("samples", samples, 1)
    check_count("cells", cells, 1)
    if not 0 < keep < 1:
        raise InputError(f"keep {keep}: expected a chance between 0 and 1")
    scores = explained.clean_scores(probabilities=probabilities)
    total = torch.zeros(len(explained), 1, *size, dtype=explained.precise, device=explained.inputs.device)

    # Sample by sample over the examples, so that each mask is made once for all of them.
    def work(pairs: Tensor) -> None:
        drawn, rows = pairs // len(explained), pairs % len(explained)
        made = {int(s): _smooth_mask(explained, int(s), size, cells, keep) for s in drawn.unique()}
        masks = torch.stack([made[int(s)] for s in drawn])
        images = explained.inputs[rows] * masks.to(explained.inputs.dtype)
        found = explained.scores(images, rows, probabilities=probabilities).to(explained.precise)
        total.index_add_(0, rows.to(total.device), found[:, None, None, None] * masks)

    explained.chunks.run(len(explained) * samples, work)
    return Result(total / (samples * keep), {"scores": scores, "samples": samples})


def lime(
    explained: ExplainedModel,
    *,
    samples: int = 1000,
    segments: NDArray[np.integer] | Tensor | None = None,
    baseline: Baseline | None = None,
    kernel_width: float = 0.25,
    ridge: float = 1.0,
    probabilities: bool = True,
) -> Result:
    """Return LIME (Ribeiro, Singh and Guestrin, 2016, arXiv:1602.04938): a linear model of segments left out.

    Parameters
    ----------
    explained : ExplainedModel
        With inputs ``(n, channels, height, width)``. Examples with equally many segments get the same samples.
    samples : int
        How often segments are left out at random, the first time none; each costs one forward pass of an example.
    segments : array of int, (height, width) or (n, height, width), optional
        The segment of each pixel; by default found by quickshift with kernel 4, distance 200 and ratio 0.2.
    baseline : number or array, optional
        What fills a segment that is left out; broadcasts to the inputs. By default its mean colour, as in the
        article's own implementation.
    kernel_width : float
        Samples count by ``sqrt(exp(-d² / kernel_width²))``, where ``d`` is the cosine distance to the whole image.
    ridge : float
        The penalty on the squares of the linear model's weights.
    probabilities : bool
        Whether softmax turns the model's outputs into probabilities first, as in the article.

    Returns
    -------
    Result
        Values ``(n, 1, height, width)``: the weight of each pixel's segment. In the details the scores ``(n,)``,
        the ``segments`` ``(n, height, width)``, numbered from 0, and ``r2`` ``(n,)``, the linear model's weighted
        coefficient of determination.

    Raises
    ------
    InputError
        If an option is out of its range, the inputs are not images, or the segments have another shape.
    """
    size = explained.space(2)
    check_count("samples", samples, 2)
    if not (kernel_width > 0 and ridge >= 0):
        raise InputError(
            f"kernel_width {kernel_width}, ridge {ridge}: expected a width above 0 and a penalty of at least 0"
        )
    labels = segment_labels(explained, segments)
    choices = [_choices(explained.seed, samples, int(own.max()) + 1) for own in labels]
    fills = segment_fills(explained, labels, baseline)
    scores = explained.clean_scores(probabilities=probabilities)

    def work(pairs: Tensor) -> Tensor:
        rows, drawn = pairs // samples, pairs % samples
        kept = torch.stack(
            [choices[row][sample][labels[row]] for row, sample in zip(rows, drawn, strict=True)]
        )
        images = torch.where(kept[:, None].to(fills.device), explained.inputs[rows], fills[rows])
        return explained.scores(images, rows, probabilities=probabilities).to(explained.precise)

    found = torch.cat(explained.chunks.run(len(explained) * samples, work)).reshape(len(explained), samples)
    maps, r2 = [], []
    for own, chosen, answers in zip(labels, choices, found.double().cpu().numpy(), strict=True):
        weights, fit = _fit(chosen.numpy(), answers, kernel_width, ridge)
        maps.append(torch.from_numpy(weights)[own])
        r2.append(fit)
    values = torch.stack(maps).reshape(len(explained), 1, *size)
    return Result(values, {"scores": scores, "segments": labels, "r2": np.array(r2), "samples": samples})


def meaningful_perturbation(
    explained: ExplainedModel,
    *,
    iterations: int = 300,
    rate: float = 0.1,
    sparsity: float = 1e-4,
    smoothness: float = 1e-2,
    power: float = 3.0,
    coarseness: int = 8,
    mask_blur: float = 5.0,
    image_blur: float = 10.0,
    jitter: int = 4,
    probabilities: bool = True,
) -> Result:
    """Return the smallest smooth region whose blurring takes the score away (Fong and Vedaldi, 2017, arXiv:1704.03296).

    A coarse mask is optimised with Adam: score + sparsity · Σ|1 − m| + smoothness · Σ|∇m|^power.

    Parameters
    ----------
    explained : ExplainedModel
        With inputs ``(n, channels, height, width)``.
    iterations : int
        Number of iterations of the optimisation; each costs a forward and a backward pass.
    rate : float
        Adam's learning rate.
    sparsity, smoothness, power : float
        The weights of the penalties, and the power of the second.
    coarseness : int
        A cell of the mask is so many pixels wide.
    mask_blur, image_blur : float
        Standard deviations, in pixels, of the Gaussians that smooth the upsampled mask and that take the image's
        content away.
    jitter : int
        The image is shifted by up to so many pixels under the mask, anew in each iteration.
    probabilities : bool
        Whether softmax turns the model's outputs into probabilities first, as in the article.

    Returns
    -------
    Result
        Values ``(n, 1, height, width)`` in 0 … 1, one where the content is taken away. In the details the scores
        ``(n,)`` and the ``perturbed_scores`` ``(n,)`` at the end.

    Raises
    ------
    InputError
        If an option is out of its range or the inputs are not images.
    """
    size = explained.space(2)
    check_count("iterations", iterations, 1)
    check_count("coarseness", coarseness, 1)
    check_count("jitter", jitter, 0)
    if min(rate, mask_blur, image_blur) <= 0 or min(sparsity, smoothness) < 0 or power < 1:
        raise InputError(
            "rate, mask_blur, image_blur: expected above 0; sparsity, smoothness at least 0; power at least 1"
        )
    coarse = tuple(math.ceil(extent / coarseness) for extent in size)
    generator = numpy_generator(explained.seed, "meaningful_perturbation")
    shifts = generator.integers(0, jitter + 1, size=(iterations, 2)).tolist()

    def fine(mask: Tensor) -> Tensor:
        upsampled = F.interpolate(mask.clamp(0, 1), tuple(size), mode="bilinear")
        return blurred(upsampled, mask_blur)

    def work(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images = explained.inputs[rows]
        scores = explained.scores(images.clone(), rows, clean=True, probabilities=probabilities)
        soft = blurred(images.to(explained.precise), image_blur)
        mask = torch.full((len(rows), 1, *coarse), 0.5, dtype=explained.precise, device=images.device)
        mask.requires_grad_()
        optimizer = torch.optim.Adam([mask], lr=rate)

        def perturbed(shift: Sequence[int]) -> Tensor:
            keep = fine(mask)
            moved, filling = (image.roll(tuple(shift), (2, 3)) for image in (images, soft))
            return (keep * moved + (1 - keep) * filling).to(images.dtype)

        for shift in shifts:
            score = explained.traced_scores(perturbed(shift), rows, probabilities=probabilities)
            steps = [mask.diff(dim=axis).abs() ** power for axis in (2, 3)]
            penalty = sparsity * (1 - mask).abs().sum() + smoothness * sum(step.sum() for step in steps)
            (of_penalty,) = torch.autograd.grad(penalty, mask)
            mask.grad = explained.differentiate(score, mask, "the inputs") + of_penalty
            optimizer.step()
            with torch.no_grad():
                mask.clamp_(0, 1)
        with torch.no_grad():
            remaining = explained.scores(perturbed((0, 0)), rows, probabilities=probabilities)
            return scores, remaining, 1 - fine(mask)

    scores, remaining, maps = zip(*explained.chunks.run(len(explained), work), strict=True)
    return Result(torch.cat(maps), {"scores": torch.cat(scores), "perturbed_scores": torch.cat(remaining)})


def _per_axis(name: str, value: int | Sequence[int], size: torch.Size) -> list[int]:
    values = [value] * len(size) if isinstance(value, int) else [int(v) for v in value]
    if len(values) != len(size) or min(values) < 1:
        raise InputError(f"{name} {value}: expected one or {len(size)} whole numbers above 0")
    return values


def _smooth_mask(explained: ExplainedModel, sample: int, size: torch.Size, cells: int, keep: float) -> Tensor:
    """Return a mask ``(1, height, width)``: a random grid, enlarged smoothly and cropped at a random place."""
    generator = torch_generator(explained.seed, "rise", sample)
    grid = (torch.rand(1, 1, cells, cells, generator=generator) < keep).to(explained.precise)
    cell = [math.ceil(extent / cells) for extent in size]
    mask = F.interpolate(grid, tuple((cells + 1) * c for c in cell), mode="bilinear")
    down, right = (int(torch.randint(c, (), generator=generator)) for c in cell)
    return mask[0, :, down : down + size[0], right : right + size[1]].to(explained.inputs.device)


def _choices(seed: int, samples: int, count: int) -> Tensor:
    """Return which of the segments each sample keeps ``(samples, count)``; the first keeps all."""
    kept = numpy_generator(seed, "lime").integers(0, 2, size=(samples, count)).astype(bool)
    kept[0] = True
    return torch.from_numpy(kept)


def _fit(
    kept: NDArray[np.bool_], answers: NDArray[np.float64], width: float, ridge: float
) -> tuple[NDArray[np.float64], float]:
    """Return the weights ``(segments,)`` of a weighted ridge regression, and its coefficient of determination."""
    from sklearn.linear_model import Ridge

    # The cosine of a 0/1 vector and the vector of ones is the root of its share of ones.
    distance = 1 - np.sqrt(kept.mean(axis=1))
    weight = np.sqrt(np.exp(-(distance**2) / width**2))
    features = kept.astype(np.float64)
    model = Ridge(alpha=ridge).fit(features, answers, sample_weight=weight)
    return np.asarray(model.coef_), float(model.score(features, answers, sample_weight=weight))
