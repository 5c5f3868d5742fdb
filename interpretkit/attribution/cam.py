"""Class activation maps: a layer's channels, weighted by what the score makes of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from interpretkit.attribution.instrumentation import LayerTap, tapped
from interpretkit.attribution.problem import Problem, Result
from interpretkit.errors import InputError

# From activations and gradients, (m, channels, ...) each, to a map (m, 1, ...).
Weighting = Callable[[Tensor, Tensor], Tensor]
# From a layer's output to (m, channels, ...), for layers that do not give maps.
Reshape = Callable[[Tensor], Tensor]

_INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


def gradcam(
    problem: Problem, *, rectify: bool = True, upsample: bool = True, reshape: Reshape | None = None
) -> Result:
    """Return Grad-CAM (Selvaraju et al., 2017, arXiv:1610.02391): channels weighted by their mean gradient.

    Parameters
    ----------
    problem : Problem
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

    return _map(problem, weigh, rectify, upsample, reshape)


def gradcam_plus_plus(
    problem: Problem, *, rectify: bool = True, upsample: bool = True, reshape: Reshape | None = None
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

    return _map(problem, weigh, rectify, upsample, reshape)


def layercam(
    problem: Problem, *, rectify: bool = True, upsample: bool = True, reshape: Reshape | None = None
) -> Result:
    """Return Layer-CAM (Jiang et al., 2021, doi:10.1109/TIP.2021.3089943): positions weighted by positive gradients.

    Fit for early layers as well as for the last. Parameters, result and errors are those of :func:`gradcam`.
    """

    def weigh(activations: Tensor, gradients: Tensor) -> Tensor:
        return (gradients.relu() * activations).sum(1, keepdim=True)

    return _map(problem, weigh, rectify, upsample, reshape)


def _map(
    problem: Problem, weigh: Weighting, rectify: bool, upsample: bool, reshape: Reshape | None
) -> Result:
    size = problem.inputs.shape[2:]
    if upsample and len(size) not in _INTERPOLATION:
        raise InputError(
            f"inputs: have shape {tuple(problem.inputs.shape)}; expected (n, channels, height, width)"
        )

    def work(tap: LayerTap, rows: Tensor) -> tuple[Tensor, Tensor]:
        found = problem.layer_gradients(tap, problem.inputs[rows], rows, clean=True)
        # Powers of gradients leave the range of half precision.
        scores, activations, gradients = (tensor.to(problem.precise) for tensor in found)
        if reshape is not None:
            activations, gradients = reshape(activations), reshape(gradients)
        dimensions = activations.ndim - 2
        if dimensions < 1 or (upsample and dimensions != len(size)):
            raise InputError(
                f"layer {tap.name!r}: gives {tuple(activations.shape)}; expected (n, channels, height, width), "
                "or the option reshape"
            )
        found_map = weigh(activations, gradients)
        found_map = found_map.relu() if rectify else found_map
        if upsample:
            found_map = F.interpolate(found_map, tuple(size), mode=_INTERPOLATION[dimensions])
        return scores, found_map

    with tapped(problem.model, problem.layer) as tap:
        parts = problem.chunks.run(len(problem), lambda rows: work(tap, rows))
    scores, maps = zip(*parts, strict=True)
    return Result(torch.cat(maps), {"scores": torch.cat(scores), "layer": tap.name})
