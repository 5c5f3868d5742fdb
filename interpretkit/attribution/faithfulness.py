"""Whether attributions tell the truth about a model: checks that an attribution can fail."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from interpretkit.attribution.api import METHODS, Attribution, attribute
from interpretkit.attribution.blurring import blurred
from interpretkit.attribution.explained_model import Baseline, ExplainedModel, prepared
from interpretkit.attribution.target import Target, TargetScores
from interpretkit.errors import InputError, check_count
from interpretkit.networks.batching import Chunks
from interpretkit.networks.instrumentation import find_layer, instrumented
from interpretkit.runs.progress import track
from interpretkit.training.seeds import numpy_generator, torch_generator

# An attribution, or its values (n, channels, height, width) or (n, height, width).
Values = Attribution | Tensor | NDArray[np.floating]
# The blur of the article on deletion and insertion: a Gaussian of 5 pixels within 11 × 11 of them.
BLUR_DEVIATION = 5.0
BLUR_RADIUS = 5


@dataclass(frozen=True)
class Curve:
    """A score as a function of how much of an image has been taken away or put back.

    Attributes
    ----------
    shares : ndarray, (steps + 1,)
        The share of the image's pixels, from 0 to 1.
    scores : ndarray, (n, steps + 1)
        The score of each image.
    areas : ndarray, (n,)
        The area under each image's curve.
    """

    shares: NDArray[np.float64]
    scores: NDArray[np.float64]
    areas: NDArray[np.float64]


@dataclass(frozen=True)
class PointingGame:
    """How often attributions are largest where they should be.

    Attributes
    ----------
    hits : ndarray, (n,)
        1 for a hit, 0 for a miss; where several pixels are the largest, the share of them that hit.
    chances : ndarray, (n,)
        The share of the image's pixels that would be a hit.
    accuracy : float
        The mean of the hits.
    """

    hits: NDArray[np.float64]
    chances: NDArray[np.float64]
    accuracy: float


@dataclass(frozen=True)
class WeightRandomization:
    """How alike attributions stay while a model's layers are randomised.

    Attributes
    ----------
    layers : tuple of str
        The layers, in the order in which they were randomised.
    rank_correlations : ndarray, (layers, n)
        Spearman's correlation of the values with those of the untouched model; 0 where either are constant.
    absolute_rank_correlations : ndarray, (layers, n)
        The same of absolute values.
    similarities : ndarray, (layers, n)
        The structural similarity (SSIM) of absolute values, summed over the channels and scaled to 0 … 1.
    """

    layers: tuple[str, ...]
    rank_correlations: NDArray[np.float64]
    absolute_rank_correlations: NDArray[np.float64]
    similarities: NDArray[np.float64]


def deletion(
    model: nn.Module,
    inputs: Tensor | NDArray[np.floating],
    attribution: Values,
    target: Target = None,
    *,
    steps: int = 50,
    baseline: Baseline | Literal["blur"] = 0.0,
    probabilities: bool = True,
    seed: int = 0,
    images_per_forward: int | None = None,
) -> Curve:
    """Return how the score falls as pixels are taken away, the largest first (Petsiuk et al., 2018, arXiv:1806.07421).

    Parameters
    ----------
    model : Module
        As for :func:`~interpretkit.attribution.api.attribute`; left as it was.
    inputs : Tensor or ndarray of float, (n, channels, height, width)
        The images that were explained.
    attribution : Attribution, Tensor or ndarray
        What explains them; values of several channels are summed. Pixels of equal value come in random order.
    target : Target
        The output; by default the attribution's, else each example's largest.
    steps : int
        In so many equal steps; each costs one forward pass of an example.
    baseline : number, array or "blur"
        What pixels are replaced by; broadcasts to the inputs. "blur" is the image without its detail.
    probabilities : bool
        Whether softmax turns the model's outputs into probabilities first.
    seed : int
        The same seed gives the same bits on a CPU.
    images_per_forward : int, optional
        The most images that go through the model at once; by default 8 on a CPU, 64 elsewhere.

    Returns
    -------
    Curve
        The smaller its area, the better the attribution.

    Raises
    ------
    InputError
        If the attribution does not fit the inputs, or an option is out of its range.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    >>> images = torch.rand(3, 1, 8, 8)
    >>> found = attribute(model, images, method="input_x_gradient")
    >>> deletion(model, images, found, steps=8).scores.shape
    (3, 9)
    """
    return _curve(
        model, inputs, attribution, target, steps, baseline, probabilities, seed, images_per_forward, False
    )


def insertion(
    model: nn.Module,
    inputs: Tensor | NDArray[np.floating],
    attribution: Values,
    target: Target = None,
    *,
    steps: int = 50,
    baseline: Baseline | Literal["blur"] = "blur",
    probabilities: bool = True,
    seed: int = 0,
    images_per_forward: int | None = None,
) -> Curve:
    """Return how the score rises as pixels are put back, the largest first (Petsiuk et al., 2018, arXiv:1806.07421).

    Parameters, result and errors are those of :func:`deletion`; but the larger the area, the better the attribution,
    and by default pixels are put back into the blurred image.
    """
    return _curve(
        model, inputs, attribution, target, steps, baseline, probabilities, seed, images_per_forward, True
    )


def pointing_game(attribution: Values, masks: ArrayLike | Tensor, *, tolerance: float = 15.0) -> PointingGame:
    """Return how often attributions are largest on the object (Zhang et al., 2018, doi:10.1007/s11263-017-1059-x).

    Parameters
    ----------
    attribution : Attribution, Tensor or ndarray
        Values ``(n, channels, height, width)``, summed over the channels, or ``(n, height, width)``.
    masks : array of bool, (n, height, width)
        Where the object is.
    tolerance : float
        A pixel hits if it lies within so many pixels of the mask.

    Raises
    ------
    InputError
        If the masks have another shape, one is empty, or the tolerance is negative.
    """
    from scipy.ndimage import distance_transform_edt

    values = _maps(attribution)
    given = _masks(masks, values.shape)
    if not 0 <= tolerance < float("inf"):
        raise InputError(f"tolerance {tolerance}: expected a number of pixels of at least 0")
    hits, chances = [], []
    for own, mask in zip(values, given, strict=True):
        near = np.asarray(distance_transform_edt(~mask)) <= tolerance
        hits.append(near[own == own.max()].mean())
        chances.append(near.mean())
    return PointingGame(np.array(hits), np.array(chances), float(np.mean(hits)))


def energy_inside(attribution: Values, masks: ArrayLike | Tensor) -> NDArray[np.float64]:
    """Return the share ``(n,)`` of an attribution's positive part within a mask (Wang et al., 2020, arXiv:1910.01279).

    Parameters
    ----------
    attribution : Attribution, Tensor or ndarray
        Values ``(n, channels, height, width)``, summed over the channels, or ``(n, height, width)``.
    masks : array of bool, (n, height, width)
        Where the object is.

    Returns
    -------
    ndarray, (n,)
        In 0 … 1; where no value is positive, the share of the pixels that the mask holds.

    Raises
    ------
    InputError
        If the masks have another shape, or one is empty.
    """
    values = np.maximum(_maps(attribution), 0)
    given = _masks(masks, values.shape)
    values[values.sum((1, 2)) == 0] = 1
    return np.where(given, values, 0).sum((1, 2)) / values.sum((1, 2))


def weight_randomization(
    model: nn.Module,
    inputs: Tensor | NDArray[np.floating],
    target: Target = None,
    *,
    method: str,
    layers: Sequence[str] | None = None,
    cascading: bool = True,
    seed: int = 0,
    quiet: bool = True,
    **options: Any,
) -> WeightRandomization:
    """Return how alike attributions stay while layers are randomised (Adebayo et al., 2018, arXiv:1810.03292).

    What tells of a model must change with its weights. Each parameter is replaced by normal numbers of its own mean
    and standard deviation, in a copy of the model; the target stays that of the untouched model.

    Parameters
    ----------
    model : Module
        As for :func:`~interpretkit.attribution.api.attribute`; neither changed nor run in training mode.
    inputs : Tensor or ndarray of float, (n, channels, height, width)
        What is explained.
    target : Target
        The output to explain; by default each example's largest.
    method : str
        A name in ``METHODS``.
    layers : sequence of str, optional
        The layers to randomise, by dotted names, in this order; by default all that hold parameters of their own, from
        the last that was registered to the first.
    cascading : bool
        Whether the layers before stay randomised, rather than one layer at a time.
    seed : int
        The same seed gives the same bits on a CPU.
    quiet : bool
        Whether no progress is shown.
    **options
        What :func:`~interpretkit.attribution.api.attribute` takes besides: the method's options, ``layer`` and
        ``images_per_forward``.

    Returns
    -------
    WeightRandomization
        Of a method that passes, the correlations fall towards zero.

    Raises
    ------
    InputError
        If the method, an option, a layer or the inputs cannot be used.
    """
    if method not in METHODS:
        raise InputError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    first = attribute(model, inputs, target, method=method, seed=seed, **options)
    same_target = target if first.target is None else first.target
    names = _parametrised(model) if layers is None else list(layers)
    for name in names:
        if not list(find_layer(model, name).parameters()):
            raise InputError(f"layer {name!r}: has no parameters; expected layers that have")
    expected = first.numpy()
    rows = []
    copied = copy.deepcopy(model)
    for name in track(names, "Randomising layers", quiet=quiet):
        if not cascading:
            copied = copy.deepcopy(model)
        _randomise(find_layer(copied, name), seed, name)
        found = attribute(copied, inputs, same_target, method=method, seed=seed, **options).numpy()
        rows.append([_alike(a, b) for a, b in zip(expected, found, strict=True)])
    table = np.array(rows).reshape(len(names), len(expected), 3)
    return WeightRandomization(tuple(names), table[..., 0], table[..., 1], table[..., 2])


def _curve(
    model: nn.Module,
    inputs: Tensor | NDArray[np.floating],
    attribution: Values,
    target: Target,
    steps: int,
    baseline: Baseline | Literal["blur"],
    probabilities: bool,
    seed: int,
    images_per_forward: int | None,
    inserting: bool,
) -> Curve:
    check_count("steps", steps)
    values = _maps(attribution)
    if target is None and isinstance(attribution, Attribution) and attribution.target is not None:
        target = attribution.target
    with instrumented(model, seed):
        images, _ = prepared(model, inputs)
        explained = ExplainedModel(
            model,
            images,
            TargetScores(target, len(images)),
            Chunks(images_per_forward, images.device),
            seed,
        )
        size = explained.space(2)
        if values.shape != (len(images), *size):
            raise InputError(
                f"attribution: has values {values.shape}; expected those of the inputs, {(len(images), *size)}"
            )
        if steps > size.numel():
            raise InputError(f"steps {steps}: the images have {size.numel()} pixels; expected at most that")
        if isinstance(baseline, str):
            if baseline != "blur":
                raise InputError(f"baseline {baseline!r}: expected a number, an array or blur")
            without = blurred(images.to(explained.precise), BLUR_DEVIATION, BLUR_RADIUS).to(images.dtype)
        else:
            without = explained.baseline(baseline)
        ranks = torch.from_numpy(_ranks(values, seed))
        # At step k the first of so many pixels have been taken.
        taken = torch.linspace(0, size.numel(), steps + 1, dtype=torch.float64).round().long()
        explained.clean_scores(probabilities=probabilities)

        def work(pairs: Tensor) -> Tensor:
            rows, step = pairs // (steps + 1), pairs % (steps + 1)
            chosen = (ranks[rows] < taken[step][:, None, None])[:, None].to(images.device)
            keep = chosen if inserting else ~chosen
            shown = torch.where(keep, images[rows], without[rows])
            return explained.scores(shown, rows, probabilities=probabilities).to(explained.precise)

        found = torch.cat(explained.chunks.run(len(images) * (steps + 1), work))
    from scipy.integrate import trapezoid

    scores = found.double().cpu().numpy().reshape(len(values), steps + 1)
    shares = taken.numpy() / size.numel()
    return Curve(shares, scores, np.asarray(trapezoid(scores, shares, axis=1)))


def _maps(attribution: Values) -> NDArray[np.float64]:
    """Return values ``(n, height, width)``, those of several channels summed."""
    values = attribution.values if isinstance(attribution, Attribution) else attribution
    array = np.asarray(values.detach().cpu().double() if isinstance(values, Tensor) else values)
    if array.ndim not in {3, 4} or array.dtype.kind not in "fiub" or not array.size:
        raise InputError(
            f"attribution: has values of shape {array.shape}; expected (n, channels, height, width) or "
            "(n, height, width)"
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise InputError("attribution: holds NaN or infinite values; expected finite ones")
    return array.sum(axis=1) if array.ndim == 4 else array


def _masks(masks: ArrayLike | Tensor, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    array = np.asarray(masks.cpu() if isinstance(masks, Tensor) else masks).astype(bool)
    if array.shape != shape:
        raise InputError(f"masks: have shape {array.shape}; expected {shape}")
    empty = np.flatnonzero(~array.any((1, 2)))
    if len(empty):
        raise InputError(f"masks: that of example {empty[0]} is empty; expected at least a pixel in each")
    return array


def _ranks(values: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """Return each pixel's rank ``(n, height, width)``, 0 for the largest value."""
    flat = values.reshape(len(values), -1)
    # The same for all examples, so that none depends on the others.
    ties = numpy_generator(seed, "ties").permutation(flat.shape[1])
    order = np.stack([np.lexsort((ties, -own)) for own in flat])
    return order.argsort(axis=1).reshape(values.shape)


def _parametrised(model: nn.Module) -> list[str]:
    """Return the modules that hold parameters of their own, from the last that was registered to the first."""
    names = [
        name
        for name, module in model.named_modules()
        if name and next(module.parameters(False), None) is not None
    ]
    if not names:
        raise InputError("model: none of its layers holds parameters; expected some to randomise")
    return names[::-1]


def _randomise(module: nn.Module, seed: int, name: str) -> None:
    generator = torch_generator(seed, "weight_randomization", name)
    with torch.no_grad():
        for parameter in module.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            values = parameter.detach().float()
            deviation = values.std(unbiased=False)
            parameter.copy_(values.mean() + deviation * drawn.to(parameter.device))


def _alike(expected: NDArray[np.floating], found: NDArray[np.floating]) -> tuple[float, float, float]:
    """Return rank correlation, that of absolute values, and SSIM of two attributions ``(channels, height, width)``."""
    from scipy.stats import spearmanr
    from skimage.metrics import structural_similarity

    def correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
        return float(spearmanr(a.ravel(), b.ravel())[0]) if np.ptp(a) and np.ptp(b) else 0.0  # type: ignore[arg-type]

    absolute = np.abs(expected), np.abs(found)
    scaled = []
    for values in absolute:
        summed = values.sum(axis=0).astype(np.float64)
        summed -= summed.min()
        scaled.append(summed / (summed.max() or 1))
    side = min(7, *scaled[0].shape)
    similarity = structural_similarity(*scaled, win_size=side - (side + 1) % 2, data_range=1.0)
    return correlation(expected, found), correlation(*absolute), float(similarity)  # type: ignore[arg-type]
