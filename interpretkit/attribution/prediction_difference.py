"""Prediction difference analysis: windows of an image, replaced by what their surroundings let expect."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interpretkit.attribution.explained_model import ExplainedModel, Result, prepared
from interpretkit.errors import InputError, check_count
from interpretkit.training.seeds import torch_generator

# More patches tell a covariance of a few hundred numbers little more.
MOST_PATCHES = 20_000
# Added to the covariance, as a share of its mean variance, for patches of smooth images leave it singular.
RIDGE = 1e-3


def prediction_difference(
    explained: ExplainedModel,
    *,
    window: int = 10,
    padding: int = 2,
    stride: int | None = None,
    samples: int = 10,
    reference: Tensor | NDArray[np.floating] | None = None,
    training_examples: int = 1_000_000,
    probabilities: bool = True,
) -> Result:
    """Return how much evidence each window holds (Zintgraf et al., 2017, arXiv:1702.04595).

    A window is replaced by draws from a Gaussian of patches, given the pixels around it. Its evidence is the log2
    odds of the target less those of its mean probability over the draws.

    Parameters
    ----------
    explained : ExplainedModel
        With inputs ``(n, channels, height, width)``. All examples get the same random numbers.
    window : int
        The window's side, in pixels.
    padding : int
        How many pixels around the window its content depends on. At the border the patch is moved inwards.
    stride : int, optional
        How far the window moves; by default half its side. The article's 1 costs many more passes.
    samples : int
        The draws for each window; each costs one forward pass of an example.
    reference : array, (m, channels, height, width), optional
        Images whose patches, wherever they lie, the Gaussian is fitted to, such as some of the training images; of at
        least a patch's size. By default each example's own patches, so that it does not depend on others. Draws are
        kept within the range of the reference's values, channel by channel.
    training_examples : int
        The N of Laplace's correction of a probability, (pN + 1) / (N + classes), which keeps odds finite.
    probabilities : bool
        Whether softmax turns the model's outputs into probabilities first. Without them, for a target that is a
        function and for a single output, the evidence is the score less its mean over the draws.

    Returns
    -------
    Result
        Values ``(n, 1, height, width)``: the mean evidence of the windows that cover a pixel. In the details the
        scores ``(n,)`` and the number of ``windows``.

    Raises
    ------
    InputError
        If an option is out of its range, or a patch does not fit into the images.
    """
    size = explained.space(2)
    for name, value in (("window", window), ("samples", samples), ("training_examples", training_examples)):
        check_count(name, value)
    check_count("padding", padding, 0)
    stride = max(1, window // 2) if stride is None else stride
    check_count("stride", stride)
    if stride > window:
        raise InputError(f"stride {stride}: leaves gaps between windows of {window}; expected at most that")
    side = window + 2 * padding
    if side > min(size):
        raise InputError(
            f"window {window}, padding {padding}: make patches of {side}, larger than the inputs"
        )
    gaussians = _gaussians(explained, side, reference)
    places = list(itertools.product(*(_starts(extent, window, stride) for extent in size)))
    scores = explained.clean_scores(probabilities=probabilities)
    classes = explained.target.classes
    odds = probabilities and classes is not None and classes > 1

    def evidence(score: Tensor) -> Tensor:
        score = score.double().cpu()
        if not odds:
            return score
        corrected = (score * training_examples + 1) / (training_examples + (classes or 0))
        return torch.log2(corrected / (1 - corrected))

    total = torch.zeros(len(explained), *size, dtype=torch.float64)
    sums = torch.zeros(len(places), len(explained), dtype=explained.precise, device=explained.inputs.device)

    # Window by window over the examples, so that its random numbers are drawn once for a pass.
    def work(triples: Tensor) -> None:
        rows = triples // samples % len(explained)
        numbers = triples // (samples * len(explained))
        noises = {int(n): _noise(explained, int(n), samples, window) for n in numbers.unique()}
        images = explained.inputs[rows]
        for image, row, number, draw in zip(images, rows, numbers, triples % samples, strict=True):
            gaussian = gaussians[int(row) if len(gaussians) > 1 else 0]
            noise = noises[int(number)][int(draw)]
            _replace(image, gaussian, places[int(number)], window, padding, noise)
        found = explained.scores(images, rows, probabilities=probabilities).to(explained.precise)
        sums.index_put_((numbers.to(sums.device), rows.to(sums.device)), found, accumulate=True)

    explained.chunks.run(len(places) * len(explained) * samples, work)
    covered = torch.zeros_like(total[0])
    for (top, left), mean in zip(places, sums / samples, strict=True):
        part = (slice(top, top + window), slice(left, left + window))
        total[:, *part] += (evidence(scores) - evidence(mean))[:, None, None]
        covered[part] += 1
    return Result((total / covered)[:, None], {"scores": scores, "windows": len(places)})


class _Gaussian:
    """A normal distribution of patches.

    Parameters
    ----------
    mean : Tensor, (channels, side, side)
    covariance : Tensor, (channels · side · side, channels · side · side)
        In double precision on the CPU, as the mean.
    least, largest : Tensor, (channels,)
        The range that draws are kept in.
    like : Tensor
        A tensor of the device and precision in which draws are made.
    """

    def __init__(
        self, mean: Tensor, covariance: Tensor, least: Tensor, largest: Tensor, like: Tensor
    ) -> None:
        self._shape = mean.shape
        self._covariance = covariance
        self.mean = mean.flatten().to(like)
        self.least, self.largest = (bound[:, None, None].to(like) for bound in (least, largest))
        self._given: dict[tuple[int, int, int], tuple[Tensor, Tensor, Tensor]] = {}

    def inside(self, window: int, down: int, right: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return which numbers of a patch lie in the window, and how these depend on the others and vary besides.

        Returns
        -------
        inside : Tensor of bool, (channels · side · side,)
        slopes : Tensor, (k, channels · side · side − k)
        root : Tensor, (k, k)
            The root of the window's covariance, given the rest.
        """
        key = (window, down, right)
        if key not in self._given:
            mask = torch.zeros(self._shape, dtype=torch.bool)
            mask[:, down : down + window, right : right + window] = True
            mask = mask.flatten()
            own, across = self._covariance[mask][:, mask], self._covariance[mask][:, ~mask]
            around = torch.linalg.cholesky(self._covariance[~mask][:, ~mask])
            slopes = torch.cholesky_solve(across.T, around).T
            rest = own - slopes @ across.T
            root = torch.linalg.cholesky((rest + rest.T) / 2)
            self._given[key] = mask.to(self.mean.device), slopes.to(self.mean), root.to(self.mean)
        return self._given[key]


def _gaussians(
    explained: ExplainedModel, side: int, reference: Tensor | NDArray[np.floating] | None
) -> list[_Gaussian]:
    """Return one Gaussian for all examples, or one for each."""
    if reference is None:
        return [_fit(explained, image[None], side) for image in explained.inputs]
    images, _ = prepared(explained.model, reference, "reference")
    if images.ndim != 4 or images.shape[1] != explained.inputs.shape[1] or min(images.shape[2:]) < side:
        raise InputError(
            f"reference: has shape {tuple(images.shape)}; expected (m, {explained.inputs.shape[1]}, height, width) "
            f"of at least {side} on a side"
        )
    return [_fit(explained, images, side)]


def _fit(explained: ExplainedModel, images: Tensor, side: int) -> _Gaussian:
    # In double precision, which not every device has.
    images = images.cpu().double()
    channels = images.shape[1]
    grids = [torch.arange(extent - side + 1) for extent in images.shape[2:]]
    corners = torch.cartesian_prod(torch.arange(len(images)), *grids)
    # Evenly over all images and places.
    chosen = torch.linspace(0, len(corners) - 1, min(len(corners), MOST_PATCHES)).long()
    unfolded = images.unfold(2, side, 1).unfold(3, side, 1)
    mean = torch.zeros(channels * side**2, dtype=images.dtype)
    products = torch.zeros(len(mean), len(mean), dtype=images.dtype)
    # A common shift keeps the squares small.
    shift = images.mean((0, 2, 3)).repeat_interleave(side**2)
    for part in corners[chosen].split(2000):
        number, top, left = part.T
        patches = unfolded[number, :, top, left].flatten(1) - shift
        mean += patches.sum(0)
        products += patches.T @ patches
    mean /= len(chosen)
    covariance = products / len(chosen) - torch.outer(mean, mean)
    variance = covariance.diagonal().mean().clamp(min=1e-12)
    covariance.diagonal().add_(RIDGE * variance)
    bounds = images.amin((0, 2, 3)), images.amax((0, 2, 3))
    like = torch.empty(0, dtype=explained.precise, device=explained.inputs.device)
    return _Gaussian((mean + shift).reshape(channels, side, side), covariance, *bounds, like)


def _starts(extent: int, window: int, stride: int) -> list[int]:
    """Return where windows start so that they cover the whole extent, the last one at its end."""
    return sorted({*range(0, extent - window, stride), extent - window})


def _noise(explained: ExplainedModel, number: int, samples: int, window: int) -> Tensor:
    # Drawn on the CPU, so that it is the same on every device.
    generator = torch_generator(explained.seed, "prediction_difference", number)
    numbers = explained.inputs.shape[1] * window**2
    drawn = torch.randn(samples, numbers, generator=generator, dtype=torch.float64)
    return drawn.to(explained.inputs.device, explained.precise)


def _replace(
    image: Tensor, gaussian: _Gaussian, place: tuple[int, ...], window: int, padding: int, noise: Tensor
) -> None:
    """Replace a window of an image ``(channels, height, width)`` by a draw, given what is around it."""
    side = window + 2 * padding
    corner = [
        min(max(start - padding, 0), extent - side)
        for start, extent in zip(place, image.shape[1:], strict=True)
    ]
    patch = image[:, corner[0] : corner[0] + side, corner[1] : corner[1] + side]
    inside, slopes, root = gaussian.inside(window, place[0] - corner[0], place[1] - corner[1])
    away = (patch.flatten().to(gaussian.mean.dtype) - gaussian.mean)[~inside]
    drawn = gaussian.mean[inside] + slopes @ away + root @ noise
    drawn = drawn.reshape(len(image), window, window).clamp(gaussian.least, gaussian.largest)
    image[:, place[0] : place[0] + window, place[1] : place[1] + window] = drawn.to(image.dtype)
