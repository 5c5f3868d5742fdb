"""Segments of images: the parts that are left out together."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interpretkit.attribution.explained_model import Baseline, ExplainedModel
from interpretkit.errors import InputError
from interpretkit.training.seeds import derive_seed


def segment_labels(explained: ExplainedModel, given: NDArray[np.integer] | Tensor | None) -> Tensor:
    """Return the segments ``(n, height, width)`` of the inputs on the CPU, numbered from 0 without a gap.

    Parameters
    ----------
    explained : ExplainedModel
        With inputs ``(n, channels, height, width)``.
    given : array of int, (height, width) or (n, height, width), optional
        The segment of each pixel; by default found by quickshift with kernel 4, distance 200 and ratio 0.2.

    Raises
    ------
    InputError
        If the segments have another shape or type.
    """
    shape = (len(explained), *explained.inputs.shape[2:])
    if given is None:
        labels = [_quickshift(image.double().cpu().numpy(), explained.seed) for image in explained.inputs]
    else:
        array = np.asarray(given.cpu() if isinstance(given, Tensor) else given)
        if array.shape not in (shape, shape[1:]) or not np.issubdtype(array.dtype, np.integer):
            raise InputError(
                f"segments: have shape {array.shape} and type {array.dtype}; expected whole numbers "
                f"{shape[1:]} or {shape}"
            )
        labels = list(np.broadcast_to(array, shape))
    numbered = [np.unique(own, return_inverse=True)[1].reshape(shape[1:]) for own in labels]
    return torch.from_numpy(np.stack(numbered).astype(np.int64))


def _quickshift(image: NDArray[np.float64], seed: int) -> NDArray[np.integer]:
    from skimage.segmentation import quickshift

    # Quickshift's distances are meant for values from 0 to 1, which normalised inputs are not.
    scaled = (image - image.min()) / (np.ptp(image) or 1.0)
    return quickshift(
        scaled.transpose(1, 2, 0),
        kernel_size=4,
        max_dist=200,
        ratio=0.2,
        convert2lab=len(image) == 3,
        rng=derive_seed(seed, "quickshift") % 2**32,
    )


def segment_fills(explained: ExplainedModel, labels: Tensor, baseline: Baseline | None) -> Tensor:
    """Return what stands in for segments left out ``(n, channels, height, width)``: their mean colour by default.

    Raises
    ------
    InputError
        If a baseline is given that does not broadcast to the inputs.
    """
    if baseline is not None:
        return explained.baseline(baseline)
    return torch.stack(
        [_mean_colours(image, own) for image, own in zip(explained.inputs, labels, strict=True)]
    )


def _mean_colours(image: Tensor, labels: Tensor) -> Tensor:
    """Return an image ``(channels, height, width)`` whose segments have their mean colour."""
    flat = labels.flatten().to(image.device)
    count = torch.bincount(flat)
    precise = torch.promote_types(image.dtype, torch.float32)
    sums = torch.zeros(len(image), len(count), dtype=precise, device=image.device)
    sums.index_add_(1, flat, image.flatten(1).to(precise))
    return (sums / count)[:, flat].reshape(image.shape).to(image.dtype)
