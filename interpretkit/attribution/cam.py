"""Class activation maps: a layer's channels, weighted by what the score makes of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from interpretkit.attribution.explained_model import ExplainedModel, Result
from interpretkit.attribution.gradients import guided_backprop
from interpretkit.attribution.last_map import last_map
from interpretkit.errors import InputError
from interpretkit.networks.instrumentation import LayerTap, tapped

# From activations and gradients, (m, channels, ...) each, to a map (m, 1, ...).
Weighting = Callable[[Tensor, Tensor], Tensor]
# From a layer's output to (m, channels, ...), for layers that do not give maps.
Reshape = Callable[[Tensor], Tensor]

_INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


def gradcam(
    explained: ExplainedModel, *, rectify: bool = True, upsample: bool = True, reshape: Reshape | None = None
) -> Result:
    """Return Grad-CAM (Selvaraju et al., 2017, arXiv:1610.02391): channels weighted by their mean gradient.

    Parameters
    ----------
    explained : ExplainedModel
        With inputs ``(n, channels, height, width)``, or of one or three dimensions of space, and the layer's name.
    rectify : bool
        Whether what speaks against the target is set to zero.
    upsample : bool
        Whether the map is brought from the layer's resolution to the inputs', linearly.
    reshape : callable, optional
        For layers that give tokens: from their output to ``(m, channels, height, width)``.

    Returns
    -------
    Result
        Values ``(n, 1, height, width)``; in the details the scores ``(n,)`` and the ``layer`` taken.

    Raises
    ------
    InputError
        If the layer is not in the model, does not run, or does not give maps.
    """

    def weigh(activations: Tensor, gradients: Tensor) -> Tensor:
        space = tuple(range(2, activations.ndim))
        return (gradients.mean(space, keepdim=True) * activations).sum(1, keepdim=True)

    return _map(explained, weigh, rectify, upsample, reshape)


def gradcam_plus_plus(
    explained: ExplainedModel, *, rectify: bool = True, upsample: bool = True, reshape: Reshape | None = None
) -> Result:
    """Return Grad-CAM++ (Chattopadhay et al., 2018, arXiv:1710.11063): positions weighted by higher derivatives.

    As in the article, those of the exponential of the score, whose feature maps are rectified: in the weights a
    negative activation counts as zero. Parameters, result and errors are those of :func:`gradcam`.
    """

    def weigh(activations: Tensor, gradients: Tensor) -> Tensor:
        space = tuple(range(2, activations.ndim))
        cubes = activations.relu().sum(space, keepdim=True) * gradients**3
        denominator = 2 * gradients**2 + cubes
        shares = torch.where(denominator != 0, gradients**2 / denominator, torch.zeros_like(gradients))
        return ((shares * gradients.relu()).sum(space, keepdim=True) * activations).sum(1, keepdim=True)

    return _map(explained, weigh, rectify, upsample, reshape)


def layercam(
    explained: ExplainedModel, *, rectify: bool = True, upsample: bool = True, reshape: Reshape | None = None
) -> Result:
    """Return Layer-CAM (Jiang et al., 2021, doi:10.1109/TIP.2021.3089943): positions weighted by positive gradients.

    Fit for early layers as well as for the last. Parameters, result and errors are those of :func:`gradcam`.
    """

    def weigh(activations: Tensor, gradients: Tensor) -> Tensor:
        return (gradients.relu() * activations).sum(1, keepdim=True)

    return _map(explained, weigh, rectify, upsample, reshape)


def guided_gradcam(explained: ExplainedModel, *, reshape: Reshape | None = None) -> Result:
    """Return guided Grad-CAM (Selvaraju et al., 2017, arXiv:1610.02391): guided backpropagation where Grad-CAM looks.

    Parameters
    ----------
    explained : ExplainedModel
        With inputs ``(n, channels, height, width)``, or of one or three dimensions of space, and the layer's name.
    reshape : callable, optional
        For layers that give tokens: from their output to ``(m, channels, height, width)``.

    Returns
    -------
    Result
        Values of the inputs' shape, the product of both; in the details the scores ``(n,)`` and the ``layer`` taken.

    Raises
    ------
    InputError
        If the layer is not in the model, does not run, or does not give maps; or the model applies no ReLU or ReLU6.
    """
    where = gradcam(explained, reshape=reshape)
    what = guided_backprop(explained)
    return Result(what.values.to(explained.precise) * where.values, where.details)


def scorecam(
    explained: ExplainedModel,
    *,
    rectify: bool = True,
    upsample: bool = True,
    reshape: Reshape | None = None,
    probabilities: bool = False,
) -> Result:
    """Return Score-CAM (Wang et al., 2020, arXiv:1910.01279): channels weighted by the score of what they show.

    Each channel, enlarged and scaled to 0 … 1, masks the input; the scores of the masked inputs, by softmax over the
    channels, are the weights. A channel that is the same everywhere shows nothing and gets none. No gradient is asked
    for. Each channel of the layer costs one forward pass of an example.

    Parameters
    ----------
    explained : ExplainedModel
        With inputs ``(n, channels, height, width)``, or of one or three dimensions of space, and the layer's name.
    rectify : bool
        Whether what speaks against the target is set to zero.
    upsample : bool
        Whether the map is brought from the layer's resolution to the inputs', linearly.
    reshape : callable, optional
        For layers that give tokens: from their output to ``(m, channels, height, width)``.
    probabilities : bool
        Whether softmax turns the model's outputs into probabilities first. Their differences are small, so that the
        weights are then nearly the same.

    Returns
    -------
    Result
        Values ``(n, 1, height, width)``; in the details the scores ``(n,)``, the ``layer`` taken and the
        ``weights`` ``(n, channels)``.

    Raises
    ------
    InputError
        If the layer is not in the model, does not run, or does not give maps.
    """
    size = explained.inputs.shape[2:]
    if len(size) not in _INTERPOLATION:
        raise InputError(
            f"inputs: have shape {tuple(explained.inputs.shape)}; expected (n, channels, height, width)"
        )

    def look(tap: LayerTap, rows: Tensor) -> tuple[Tensor, Tensor]:
        scores, activations = explained.layer_activations(tap, explained.inputs[rows], rows, clean=True)
        return scores, _as_maps(tap, activations.to(explained.precise), reshape, len(size))

    layer, reshape = _where(explained, reshape)
    # The masked inputs go through the model as it is, without the tap.
    with tapped(explained.model, layer) as tap:
        parts = explained.chunks.run(len(explained), lambda rows: look(tap, rows))
    scores, activations = (torch.cat(part) for part in zip(*parts, strict=True))
    if probabilities:
        scores = explained.clean_scores(probabilities=True)
    channels = activations.shape[1]

    def work(pairs: Tensor) -> Tensor:
        rows, chosen = pairs // channels, pairs % channels
        masks = _enlarged(activations[rows, chosen][:, None], size)
        places = tuple(range(1, masks.ndim))
        masks = masks - masks.amin(places, keepdim=True)
        masks = masks / masks.amax(places, keepdim=True).clamp(min=torch.finfo(masks.dtype).tiny)
        images = explained.inputs[rows] * masks.to(explained.inputs.dtype)
        return explained.scores(images, rows, probabilities=probabilities).to(explained.precise)

    found = torch.cat(explained.chunks.run(len(explained) * channels, work)).reshape(len(explained), channels)
    flat = activations.flatten(2)
    shows = flat.amax(2) > flat.amin(2)
    weights = found.masked_fill(~shows, float("-inf")).softmax(1).masked_fill(~shows, 0)
    found_map = (weights.reshape(*weights.shape, *[1] * len(size)) * activations).sum(1, keepdim=True)
    found_map = found_map.relu() if rectify else found_map
    values = _enlarged(found_map, size) if upsample else found_map
    return Result(values, {"scores": scores, "layer": tap.name, "weights": weights})


def _map(
    explained: ExplainedModel, weigh: Weighting, rectify: bool, upsample: bool, reshape: Reshape | None
) -> Result:
    size = explained.inputs.shape[2:]
    if upsample and len(size) not in _INTERPOLATION:
        raise InputError(
            f"inputs: have shape {tuple(explained.inputs.shape)}; expected (n, channels, height, width)"
        )

    def work(tap: LayerTap, rows: Tensor) -> tuple[Tensor, Tensor]:
        found = explained.layer_gradients(tap, explained.inputs[rows], rows, clean=True)
        # Powers of gradients leave the range of half precision.
        scores, activations, gradients = (tensor.to(explained.precise) for tensor in found)
        activations = _as_maps(tap, activations, reshape, len(size) if upsample else None)
        gradients = gradients if reshape is None else reshape(gradients)
        found_map = weigh(activations, gradients)
        found_map = found_map.relu() if rectify else found_map
        if upsample:
            found_map = _enlarged(found_map, size)
        return scores, found_map

    layer, reshape = _where(explained, reshape)
    with tapped(explained.model, layer) as tap:
        parts = explained.chunks.run(len(explained), lambda rows: work(tap, rows))
    scores, maps = zip(*parts, strict=True)
    return Result(torch.cat(maps), {"scores": torch.cat(scores), "layer": tap.name})


def _where(explained: ExplainedModel, reshape: Reshape | None) -> tuple[str, Reshape | None]:
    """Return the layer to look at, by default the last that holds places, and what brings its output to maps."""
    if explained.layer is not None:
        return explained.layer, reshape
    found = last_map(explained.model, explained.inputs)
    return found.layer, found.layout if reshape is None else reshape


def _as_maps(tap: LayerTap, activations: Tensor, reshape: Reshape | None, dimensions: int | None) -> Tensor:
    """Return activations ``(m, channels, ...)``, of so many dimensions of space if that matters."""
    activations = activations if reshape is None else reshape(activations)
    found = activations.ndim - 2
    if found < 1 or (dimensions is not None and found != dimensions):
        raise InputError(
            f"layer {tap.name!r}: gives {tuple(activations.shape)}; expected (n, channels, height, width), "
            "or the option reshape"
        )
    return activations


def _enlarged(maps: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(maps, tuple(size), mode=_INTERPOLATION[len(size)])
