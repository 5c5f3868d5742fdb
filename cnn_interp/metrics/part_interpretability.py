"""Part interpretability: how often the active region of a unit is the same part of an object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from cnn_interp.units.active_regions import SHARE, MapPasses, measure_units
from cnn_interp.units.streaming import CAPACITY
from interpretkit.errors import InputError

PART_IOU = 0.2


@dataclass(frozen=True, eq=False)
class PartInterpretability:
    """How often units match parts of objects.

    Attributes
    ----------
    probability : ndarray of float, (categories, parts, units)
        Share of the images of the category with the part in which the unit's active region and the part have an IoU
        above `part_iou`. NaN where no image shows the part.
    displaced : ndarray of float, (categories, parts, units)
        The same with the part where it was in the category's image before: what a unit gains by firing where the part
        often is.
    images : ndarray of int, (categories, parts)
        How many images show the part.
    category_names, part_names : tuple of str
        What the rows and columns are called.
    part_iou : float
        Above which a region matches a part.

    References
    ----------
    Zhang, Wu, Zhu: Interpretable Convolutional Neural Networks, CVPR 2018.
    """

    probability: NDArray[np.float64]
    displaced: NDArray[np.float64]
    images: NDArray[np.int64]
    category_names: tuple[str, ...]
    part_names: tuple[str, ...]
    part_iou: float

    @property
    def unit_interpretability(self) -> NDArray[np.float64]:
        """Each unit's probability for its best part, ``(categories, units)``."""
        return _best_part(self.probability)

    @property
    def mean(self) -> float:
        """The published number: mean over units of the probability for the best part, then over categories."""
        return float(np.nanmean(self.unit_interpretability))

    @property
    def mean_displaced(self) -> float:
        """The same mean with parts where they were in another image."""
        return float(np.nanmean(_best_part(self.displaced)))

    def table(self) -> list[dict[str, object]]:
        """Return a row for each category and part that is shown: how often the best unit and the mean unit match it."""
        rows: list[dict[str, object]] = []
        for c, category in enumerate(self.category_names):
            for p, part in enumerate(self.part_names):
                if self.images[c, p] == 0:
                    continue
                values = self.probability[c, p]
                rows.append(
                    {
                        "category": category,
                        "part": part,
                        "images": int(self.images[c, p]),
                        "best unit": int(values.argmax()),
                        "its probability": float(values.max()),
                        "its probability, displaced": float(self.displaced[c, p, values.argmax()]),
                        "mean over units": float(values.mean()),
                    }
                )
        return rows

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return all numbers as arrays, to be saved."""
        return {
            "probability": self.probability,
            "displaced": self.displaced,
            "images": self.images,
            "category_names": np.array(self.category_names),
            "part_names": np.array(self.part_names),
        }


def part_interpretability(
    module: nn.Module,
    layers: Sequence[str],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    categories: ArrayLike | None = None,
    category_names: Sequence[str] = (),
    part_names: Sequence[str] = (),
    share: float = SHARE,
    part_iou: float = PART_IOU,
    capacity: int = CAPACITY,
    quiet: bool = True,
) -> dict[str, PartInterpretability]:
    """Measure how often the active regions of units are parts of objects.

    A unit's active region in an image is where its map, interpolated as for :func:`dissect`, exceeds the threshold
    that `share` of all its values exceed. A region matches a part if their IoU is above `part_iou`.

    Parameters
    ----------
    module : Module
        Any network; it is left as it was.
    layers : sequence of str
        Dotted names of layers that give maps.
    batches : iterable of (inputs, masks)
        Can be gone through twice, in the same order. Inputs ``(n, channels, height, width)``; masks bool
        ``(n, parts, h, w)`` at any resolution, empty where a part is not to be seen.
    categories : array_like of int, (n,), optional
        The category of each image, in the batches' order; negative for images that count for the thresholds only.
        By default all are of one.
    category_names, part_names : sequence of str, optional
        What they are called; numbers by default.
    share, capacity, quiet
        See :func:`dissect`.
    part_iou : float
        Above which a region matches a part.

    Returns
    -------
    dict
        From layer to :class:`PartInterpretability`.

    Raises
    ------
    InputError
        If there is no such layer, there are no data, they can be gone through only once, shapes do not fit, or no
        part is to be seen.

    References
    ----------
    Zhang, Wu, Zhu: Interpretable Convolutional Neural Networks, CVPR 2018.
    """
    passes = MapPasses(module, layers, batches, quiet=quiet)
    return part_interpretability_of_maps(
        passes, categories=categories, category_names=category_names, part_names=part_names, share=share,
        part_iou=part_iou, capacity=capacity,
    )  # fmt: skip


def part_interpretability_of_maps(
    passes: MapPasses[Tensor],
    *,
    categories: ArrayLike | None = None,
    category_names: Sequence[str] = (),
    part_names: Sequence[str] = (),
    share: float = SHARE,
    part_iou: float = PART_IOU,
    capacity: int = CAPACITY,
) -> dict[str, PartInterpretability]:
    """Measure how often the active regions of any maps are parts of objects: those of layers, or stored ones.

    Parameters
    ----------
    passes : MapPasses
        The maps, with masks of parts beside them.
    categories, category_names, part_names, share, part_iou, capacity
        See :func:`part_interpretability`.

    Returns
    -------
    dict
        From what the maps are called to :class:`PartInterpretability`.

    Raises
    ------
    InputError
        As :func:`part_interpretability`.
    """
    layers = passes.layers
    units = measure_units(passes, share=share, capacity=capacity)
    n_images = next(iter(units.values())).n_images
    kinds = np.zeros(n_images, dtype=np.int64) if categories is None else np.asarray(categories)
    if kinds.shape != (n_images,):
        raise InputError(f"categories of shape {kinds.shape}; expected one for each of {n_images} images")
    n_categories = int(kinds.max(initial=0)) + 1
    names = tuple(category_names) or tuple(map(str, range(n_categories)))
    if len(names) < n_categories:
        raise InputError(f"{len(names)} names of categories; expected {n_categories}")
    hits: dict[str, NDArray[np.float64]] = {}
    displaced: dict[str, NDArray[np.float64]] = {}
    shown = shown_again = np.zeros((len(names), 0))
    before: dict[tuple[int, int], Tensor] = {}
    first = 0
    for masks, maps in passes.again("Comparing units with parts"):
        n, device = len(maps[layers[0]]), maps[layers[0]].device
        _check_masks(masks, n)
        n_parts = masks.shape[1]
        if not hits:
            shown, shown_again = np.zeros((len(names), n_parts)), np.zeros((len(names), n_parts))
            for layer in layers:
                size = (len(names), n_parts, len(units[layer].thresholds))
                hits[layer], displaced[layer] = np.zeros(size), np.zeros(size)
        parts = masks.to(device).flatten(2).float()
        earlier, has_earlier = torch.zeros_like(parts), np.zeros((n, n_parts), dtype=bool)
        seen = (parts.sum(dim=2) > 0).cpu().numpy()
        chosen = kinds[first : first + n]
        for image, kind in enumerate(chosen):
            if kind < 0:
                continue
            for part in np.flatnonzero(seen[image]):
                key = (int(kind), int(part))
                if key in before:
                    earlier[image, part], has_earlier[image, part] = before[key], True
                before[key] = parts[image, part]
            shown[kind] += seen[image]
            shown_again[kind] += has_earlier[image]
        for layer in layers:
            size = (int(masks.shape[-2]), int(masks.shape[-1]))
            for image, active, regions in units[layer].image_masks(maps[layer], size):
                kind, flat, rows = int(chosen[image]), regions.flatten(1).float(), active.cpu().numpy()
                if kind >= 0 and len(rows):
                    hits[layer][kind][:, rows] += _matches(parts[image], flat, part_iou)
                    displaced[layer][kind][:, rows] += _matches(earlier[image], flat, part_iou)
        first += n
    if shown.sum() == 0:
        raise InputError("masks: no part is to be seen in any image; expected at least one")
    called = tuple(part_names) or tuple(map(str, range(shown.shape[1])))
    if len(called) != shown.shape[1]:
        raise InputError(f"{len(called)} names of parts; expected {shown.shape[1]}")
    return {
        layer: PartInterpretability(
            _share(hits[layer], shown),
            _share(displaced[layer], shown_again),
            shown.astype(np.int64),
            names,
            called,
            part_iou,
        )
        for layer in layers
    }


def _matches(parts: Tensor, regions: Tensor, part_iou: float) -> NDArray[np.bool_]:
    """Return which parts ``(parts, pixels)`` match which regions ``(units, pixels)``, ``(parts, units)``."""
    common = parts @ regions.T
    union = parts.sum(dim=1)[:, None] + regions.sum(dim=1)[None] - common
    return (common > part_iou * union).cpu().numpy()


def _share(hits: NDArray[np.float64], images: NDArray[np.float64]) -> NDArray[np.float64]:
    total = np.broadcast_to(images[..., None], hits.shape)
    return np.divide(hits, total, out=np.full(hits.shape, np.nan), where=total > 0)


def _best_part(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest over parts, NaN for a category of which no part is shown."""
    best = np.where(np.isnan(probability), -1.0, probability).max(axis=1)
    return np.where(best < 0, np.nan, best)


def _check_masks(masks: Tensor, images: int) -> None:
    if masks.ndim != 4 or len(masks) != images or masks.dtype != torch.bool:
        raise InputError(
            f"masks of shape {tuple(masks.shape)} and {masks.dtype}; expected bool ({images}, parts, h, w)"
        )
