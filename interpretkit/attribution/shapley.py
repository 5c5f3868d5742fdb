"""Shapley values of the segments of an image."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interpretkit.attribution.explained_model import Baseline, ExplainedModel, Result
from interpretkit.attribution.segments import segment_fills, segment_labels
from interpretkit.errors import check_count
from interpretkit.training.seeds import numpy_generator


def kernel_shap(
    explained: ExplainedModel,
    *,
    samples: int = 1000,
    segments: NDArray[np.integer] | Tensor | None = None,
    baseline: Baseline | None = None,
    probabilities: bool = True,
) -> Result:
    """Return Kernel SHAP (Lundberg and Lee, 2017, arXiv:1705.07874): Shapley values of segments left out.

    They are the weights of a linear model of the score, fitted with the Shapley kernel under the condition that they
    sum up to what the whole image adds to an image without any segment. Where `samples` suffice for all coalitions
    of segments, all are taken, and the values are exact. Otherwise coalitions are drawn by the kernel, each with its
    complement.

    Parameters
    ----------
    explained : ExplainedModel
        With inputs ``(n, channels, height, width)``. Examples with equally many segments get the same samples.
    samples : int
        How many coalitions are tried, the empty and the whole one not counted; each costs one forward pass of an
        example.
    segments : array of int, (height, width) or (n, height, width), optional
        The segment of each pixel; by default found by quickshift with kernel 4, distance 200 and ratio 0.2.
    baseline : number or array, optional
        What fills a segment that is left out; broadcasts to the inputs. By default its mean colour.
    probabilities : bool
        Whether softmax turns the model's outputs into probabilities first.

    Returns
    -------
    Result
        Values ``(n, 1, height, width)``: the Shapley value of each pixel's segment. In the details the ``scores`` and
        ``baseline_scores`` ``(n,)``, whose difference the segments' values add up to, the ``segments``
        ``(n, height, width)``, numbered from 0, and the number of ``samples`` taken of each image.

    Raises
    ------
    InputError
        If there are fewer than 2 samples, the inputs are not images, or the segments have another shape.
    """
    size = explained.space(2)
    check_count("samples", samples, 2)
    labels = segment_labels(explained, segments)
    drawn = [_coalitions(explained.seed, samples, int(own.max()) + 1) for own in labels]
    fills = segment_fills(explained, labels, baseline)
    scores = explained.clean_scores(probabilities=probabilities)
    # First of each image the coalition without any segment.
    starts = np.cumsum([0, *(len(kept) + 1 for kept, _ in drawn)])
    whose = np.repeat(np.arange(len(explained)), np.diff(starts))

    def work(numbers: Tensor) -> Tensor:
        rows = torch.from_numpy(whose)[numbers]
        kept = torch.stack(
            [
                _shown(drawn[int(row)][0], int(number - starts[int(row)]) - 1, labels[row])
                for number, row in zip(numbers, rows, strict=True)
            ]
        )
        images = torch.where(kept[:, None].to(fills.device), explained.inputs[rows], fills[rows])
        return explained.scores(images, rows, probabilities=probabilities).to(explained.precise)

    found = torch.cat(explained.chunks.run(int(starts[-1]), work))
    maps = []
    for row, (kept, weights) in enumerate(drawn):
        answers = found[starts[row] : starts[row + 1]].double().cpu().numpy()
        shares = _solve(kept, weights, answers[1:] - answers[0], float(scores[row]) - answers[0])
        maps.append(torch.from_numpy(shares)[labels[row]])
    values = torch.stack(maps).reshape(len(explained), 1, *size)
    details = {
        "scores": scores,
        "baseline_scores": found[torch.from_numpy(starts[:-1]).to(found.device)],
        "segments": labels,
        "samples": np.array([len(kept) for kept, _ in drawn]),
    }
    return Result(values, details)


def _shown(kept: NDArray[np.bool_], sample: int, labels: Tensor) -> Tensor:
    """Return the pixels ``(height, width)`` that a sample shows; none for sample -1."""
    if sample < 0:
        return torch.zeros_like(labels, dtype=torch.bool)
    return torch.from_numpy(kept[sample])[labels]


def _coalitions(seed: int, samples: int, count: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return coalitions ``(m, count)`` of segments, neither empty nor whole, and their weights ``(m,)``."""
    if count == 1:
        return np.zeros((0, 1), dtype=bool), np.zeros(0)
    sizes = np.arange(1, count)
    # All coalitions of a size together, by the Shapley kernel.
    chances = (count - 1) / (sizes * (count - sizes))
    if 2**count - 2 <= samples:
        kept = np.array(list(itertools.product([False, True], repeat=count))[1:-1])
        each = chances / [math.comb(count, int(size)) for size in sizes]
        return kept, each[kept.sum(axis=1) - 1]
    generator = numpy_generator(seed, "kernel_shap", count)
    pairs = samples // 2
    chosen = generator.choice(sizes, size=pairs, p=chances / chances.sum())
    ranks = generator.random((pairs, count)).argsort(axis=1).argsort(axis=1)
    kept = ranks < chosen[:, None]
    return np.concatenate([kept, ~kept]), np.ones(2 * pairs)


def _solve(
    kept: NDArray[np.bool_], weights: NDArray[np.float64], gains: NDArray[np.float64], total: float
) -> NDArray[np.float64]:
    """Return the values ``(count,)`` that fit the coalitions' gains ``(m,)`` best and sum up to the total."""
    members = kept.astype(np.float64)
    # The condition takes the last value out of the fit.
    features = members[:, :-1] - members[:, -1:]
    root = np.sqrt(weights)
    # The shortest solution, where there are fewer coalitions than segments.
    first = np.linalg.lstsq(root[:, None] * features, root * (gains - members[:, -1] * total), rcond=None)[0]
    return np.append(first, total - first.sum()).astype(np.float64)
