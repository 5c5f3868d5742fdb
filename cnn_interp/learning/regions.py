"""Regions of interest: boxes, what stands for a region of a map, and where to look for objects.

Boxes are edges ``(top, left, bottom, right)`` in pixels of the image, of which the first is 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from interpretkit.errors import InputError
from interpretkit.networks.receptive_fields import ReceptiveField

# Points along each side of a cell at which a map is read.
_POINTS = 2
# A box may grow or shrink so many times in one step of refinement.
_MOST_GROWTH = math.log(4.0)


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Return the intersection over union of boxes ``(..., n, 4)`` with boxes ``(..., m, 4)``, ``(..., n, m)``."""
    a, b = first[..., :, None, :], second[..., None, :, :]
    corner, end = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (end - corner).clamp_min(0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (a, b)]
    return shared / (areas[0] + areas[1] - shared).clamp_min(1e-12)


def suppressed(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    """Return which boxes remain where those are left out that overlap with a better one, in falling order of score.

    Parameters
    ----------
    boxes : Tensor, (n, 4)
        The boxes.
    scores : Tensor, (n,)
        How good they are; of equals the first comes first.
    overlap : float
        A box is left out if its intersection over union with one that remains is larger.

    Returns
    -------
    Tensor of int64, (remaining,)
        Their numbers.
    """
    order = scores.argsort(descending=True, stable=True)
    near = overlaps(boxes[order], boxes[order]) > overlap
    remains = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    for place in range(len(order)):
        if remains[place]:
            remains[place + 1 :] &= ~near[place, place + 1 :]
    return order[remains]


def region_maps(maps: Tensor, boxes: Tensor, grid: int, field: ReceptiveField) -> Tensor:
    """Return what a layer's maps have in the cells of regions (RoIAlign).

    A cell is the mean of the map at two by two points evenly laid within it, interpolated bilinearly between the
    centres of the units' receptive fields; beyond the outermost centres the map goes on with its values there.

    Parameters
    ----------
    maps : Tensor, (regions, channels, h, w)
        The map that each region is cut out of.
    boxes : Tensor, (regions, 4)
        The regions.
    grid : int
        How many cells along each side.
    field : ReceptiveField
        Where the layer's units look.

    Returns
    -------
    Tensor, (regions, channels, grid, grid)

    References
    ----------
    He, Gkioxari, Dollár, Girshick: Mask R-CNN, ICCV 2017.
    """
    rows, columns = (_readers(boxes, axis, grid, field, maps.shape[2 + axis]) for axis in (0, 1))
    # The points form a product, so that reading is one matrix along the rows and one along the columns.
    return torch.einsum("nih,nchw,njw->ncij", rows.to(maps.dtype), maps, columns.to(maps.dtype))


def _readers(boxes: Tensor, axis: int, grid: int, field: ReceptiveField, length: int) -> Tensor:
    """Return the weights ``(regions, grid, positions)`` by which cells read a map along one axis."""
    first, last = boxes[:, axis, None], boxes[:, axis + 2, None]
    inside = (torch.arange(grid * _POINTS, device=boxes.device, dtype=boxes.dtype) + 0.5) / (grid * _POINTS)
    pixels = first + (last - first) * inside - 0.5
    places = ((pixels - field.start[axis]) / field.stride[axis]).clamp(0, length - 1)
    units = torch.arange(length, device=boxes.device, dtype=boxes.dtype)
    weights = (1 - (places[..., None] - units).abs()).clamp_min(0)
    return weights.unflatten(1, (grid, _POINTS)).mean(2)


def sliding_boxes(
    side: int,
    *,
    extents: Sequence[float] = (0.35, 0.5, 0.7, 0.95),
    proportions: Sequence[float] = (0.5, 1.0, 2.0),
    step: float = 0.3,
) -> Tensor:
    """Return boxes of several sizes and shapes at places evenly laid over a square image.

    They look at no image, so that they favour no detector.

    Parameters
    ----------
    side : int
        Height and width of the image, px.
    extents : sequence of float
        Square root of the boxes' areas, as shares of the side.
    proportions : sequence of float
        Heights over widths.
    step : float
        The way from a box to the next, over its own extent along that way, at most.

    Returns
    -------
    Tensor, (boxes, 4)
        All within the image; a box that would be longer than the image is as long as it.
    """
    found = []
    for extent in extents:
        for proportion in proportions:
            height = min(side * extent * math.sqrt(proportion), float(side))
            width = min(side * extent / math.sqrt(proportion), float(side))
            tops, lefts = (
                torch.linspace(0, side - length, 1 + math.ceil((side - length) / (step * length)))
                for length in (height, width)
            )
            corners = torch.cartesian_prod(tops, lefts)
            found.append(torch.cat([corners, corners + torch.tensor([height, width])], 1))
    return torch.cat(found).unique(dim=0)


def jittered(boxes: Tensor, generator: torch.Generator, *, shift: float = 0.2, growth: float = 0.3) -> Tensor:
    """Return boxes ``(n, 4)`` moved and stretched at random.

    Parameters
    ----------
    boxes : Tensor, (n, 4)
        The boxes.
    generator : torch.Generator
        Of the random numbers.
    shift : float
        They move by at most so much of their height and width.
    growth : float
        Height and width change by at most e to this.
    """
    centre, extent = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    draws = 2 * torch.rand(len(boxes), 4, generator=generator) - 1
    centre = centre + shift * draws[:, :2] * extent
    extent = extent * (growth * draws[:, 2:]).exp()
    return torch.cat([centre - extent / 2, centre + extent / 2], 1)


def encoded(boxes: Tensor, targets: Tensor) -> Tensor:
    """Return how far boxes ``(n, 4)`` are from targets: shifts over their extent, and logarithms of growth, (n, 4)."""
    extent, wanted = boxes[:, 2:] - boxes[:, :2], targets[:, 2:] - targets[:, :2]
    shift = (targets[:, :2] + targets[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / 2
    return torch.cat([shift / extent, (wanted / extent).log()], 1)


def decoded(boxes: Tensor, steps: Tensor, side: int) -> Tensor:
    """Return boxes ``(n, 4)`` after the steps that :func:`encoded` gives, cut off at the image's edges."""
    extent = boxes[:, 2:] - boxes[:, :2]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 + steps[:, :2] * extent
    extent = extent * steps[:, 2:].clamp(-_MOST_GROWTH, _MOST_GROWTH).exp()
    moved = torch.cat([centre - extent / 2, centre + extent / 2], 1).clamp(0, side)
    # Something is left of a box that was moved out of the image.
    return torch.cat(
        [
            torch.minimum(moved[:, :2], moved[:, 2:] - 1).clamp_min(0),
            torch.maximum(moved[:, 2:], moved[:, :2].clamp_max(side - 1) + 1),
        ],
        1,
    )


def matched(boxes: Tensor, truths: Tensor) -> tuple[Tensor, Tensor]:
    """Return how much each box overlaps with the truth that it overlaps with most, and which; 0 and −1 of none.

    Raises
    ------
    InputError
        If boxes or truths are not ``(n, 4)``.
    """
    for name, some in (("boxes", boxes), ("truths", truths)):
        if some.ndim != 2 or some.shape[1] != 4:
            raise InputError(f"{name} of shape {tuple(some.shape)}: expected (n, 4)")
    if len(truths) == 0:
        return boxes.new_zeros(len(boxes)), torch.full((len(boxes),), -1, device=boxes.device)
    best, which = overlaps(boxes, truths).max(1)
    return best, which
