"""Network dissection: which concepts the units of a layer stand for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cnn_interp.images.concept_images import Concept
from cnn_interp.units.active_regions import SHARE, MapPasses, measure_units
from cnn_interp.units.positions import UnitGrid
from cnn_interp.units.streaming import CAPACITY, Overlaps, ShownConcepts
from interpretkit.errors import InputError

# Inputs (n, channels, height, width) and concepts' numbers (n, k, h, w), in k layers since a pixel can show several.
Batch = tuple[Tensor, Tensor]
Counting = Literal["summed", "best"]
DETECTOR_IOU = 0.04


@dataclass(frozen=True, eq=False)
class Dissection:
    """How well each unit of a layer matches each concept.

    Attributes
    ----------
    layer : str
        The layer's name.
    iou : ndarray of float, (units, concepts)
        Intersection over union of the unit's masks and the concept's.
    concepts : tuple of Concept
        In the order of the columns.
    thresholds : ndarray of float, (units,)
        Above which a unit counts as active: exceeded by a share of its values.
    threshold_error : ndarray of float, (units,)
        How far that share may be from the one asked for, at most; 0 where it is exact.
    top_images : ndarray of int, (units, k)
        The images with the unit's largest values, the largest first.
    top_values : ndarray of float, (units, k)
        Those values.
    concept_area : ndarray of int, (concepts,)
        On how many pixels each concept was seen.
    n_images : int
        How many images were shown.
    grid : UnitGrid
        Where the units look.
    detector_iou : float
        Above which a unit is called a detector.

    References
    ----------
    Bau, Zhou, Khosla, Oliva, Torralba: Network Dissection, CVPR 2017.
    """

    layer: str
    iou: NDArray[np.float64]
    concepts: tuple[Concept, ...]
    thresholds: NDArray[np.float64]
    threshold_error: NDArray[np.float64]
    top_images: NDArray[np.int64]
    top_values: NDArray[np.float64]
    concept_area: NDArray[np.int64]
    n_images: int
    grid: UnitGrid
    detector_iou: float = DETECTOR_IOU

    @property
    def categories(self) -> tuple[str, ...]:
        """The concepts' categories, in the order of their coming."""
        return tuple(dict.fromkeys(concept.category for concept in self.concepts))

    def best(self, category: str | None = None) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the best concept of each unit and its IoU.

        Parameters
        ----------
        category : str, optional
            Only concepts of this category.

        Returns
        -------
        concepts : ndarray of int, (units,)
            Numbers of columns.
        iou : ndarray of float, (units,)
            The largest of the rows.
        """
        allowed = np.array([category is None or c.category == category for c in self.concepts])
        if not allowed.any():
            raise InputError(f"category {category!r}: expected one of {', '.join(self.categories)}")
        columns = np.where(allowed, self.iou, -1.0).argmax(axis=1)
        return columns, self.iou[np.arange(len(self.iou)), columns]

    def detectors(self, counting: Counting = "summed") -> list[tuple[int, int, float]]:
        """Return the units that detect a concept, as unit, number of the concept's column, and IoU.

        Parameters
        ----------
        counting : str
            ``summed``: a unit detects the best concept of each category, if its IoU is large enough; as in the
            article's figure. ``best``: it detects at most the best concept of all.
        """
        if counting == "best":
            kinds: tuple[str | None, ...] = (None,)
        elif counting == "summed":
            kinds = self.categories
        else:
            raise InputError(f"counting {counting!r}: expected summed or best")
        found = []
        for kind in kinds:
            columns, iou = self.best(kind)
            found += [
                (int(unit), int(columns[unit]), float(iou[unit]))
                for unit in np.flatnonzero(iou > self.detector_iou)
            ]
        return sorted(found)

    def unique_detectors(self, counting: Counting = "summed") -> dict[str, int]:
        """Return for each category how many of its concepts some unit detects; their sum is the published number."""
        columns = {column for _, column, _ in self.detectors(counting)}
        counts = Counter(self.concepts[column].category for column in columns)
        return {category: counts[category] for category in self.categories}

    def units_table(self) -> list[dict[str, object]]:
        """Return a row for each unit: its threshold, its best concept, and the best of each category."""
        best, iou = self.best()
        by_category = {category: self.best(category) for category in self.categories}
        return [
            {
                "unit": unit,
                "threshold": float(self.thresholds[unit]),
                "concept": self.concepts[best[unit]].name,
                "category": self.concepts[best[unit]].category,
                "iou": float(iou[unit]),
                "detector": bool(iou[unit] > self.detector_iou),
                **{
                    key: value
                    for category, (columns, values) in by_category.items()
                    for key, value in (
                        (f"best {category}", self.concepts[columns[unit]].name),
                        (f"iou {category}", float(values[unit])),
                    )
                },
            }
            for unit in range(len(self.iou))
        ]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return everything but the names of units as arrays, to be saved."""
        return {
            "iou": self.iou,
            "concept_numbers": np.array([concept.number for concept in self.concepts]),
            "concept_names": np.array([concept.name for concept in self.concepts]),
            "concept_categories": np.array([concept.category for concept in self.concepts]),
            "thresholds": self.thresholds,
            "threshold_error": self.threshold_error,
            "top_images": self.top_images,
            "top_values": self.top_values,
            "concept_area": self.concept_area,
            "centre_of_first_unit": np.array(self.grid.field.start),
            "stride": np.array(self.grid.field.stride),
        }


def dissect(
    module: nn.Module,
    layers: Sequence[str],
    batches: Iterable[Batch],
    concepts: Sequence[Concept],
    *,
    share: float = SHARE,
    detector_iou: float = DETECTOR_IOU,
    top: int = 10,
    capacity: int = CAPACITY,
    quiet: bool = True,
) -> dict[str, Dissection]:
    """Compare the units of layers with labelled concepts.

    A unit is active at a pixel if its map, interpolated bilinearly between the centres of the receptive fields,
    exceeds the unit's threshold there; the threshold is exceeded at `share` of all the map's positions in all images.
    IoU = Σ |active ∩ concept| / Σ |active ∪ concept| over the images that contain the concept's category. The data
    are gone through twice, unless they are so few that the maps can be kept from the first time.

    Parameters
    ----------
    module : Module
        Any network; it is left as it was.
    layers : sequence of str
        Dotted names of layers that give maps.
    batches : iterable of (inputs, labels)
        Can be gone through twice, in the same order. Inputs ``(n, channels, height, width)`` as the network takes
        them; labels, integers ``(n, k, h, w)``, hold numbers of concepts, 0 for none, at any resolution.
    concepts : sequence of Concept
        What the numbers stand for.
    share : float
        At which the thresholds are exceeded.
    detector_iou : float
        Above which a unit is called a detector.
    top : int
        How many of each unit's strongest images to name.
    capacity : int
        Capacity of the sketch of the quantiles, see :class:`UpperQuantiles`.
    quiet : bool
        Whether to show no progress bar.

    Returns
    -------
    dict
        From layer to :class:`Dissection`.

    Raises
    ------
    InputError
        If there is no such layer, no data, a label without a concept, or the data can be gone through only once.

    References
    ----------
    Bau, Zhou, Khosla, Oliva, Torralba: Network Dissection, CVPR 2017.
    """
    passes = MapPasses(module, layers, batches, quiet=quiet)
    return dissect_maps(passes, concepts, share=share, detector_iou=detector_iou, top=top, capacity=capacity)


def dissect_maps(
    passes: MapPasses[Tensor],
    concepts: Sequence[Concept],
    *,
    share: float = SHARE,
    detector_iou: float = DETECTOR_IOU,
    top: int = 10,
    capacity: int = CAPACITY,
) -> dict[str, Dissection]:
    """Compare any maps with labelled concepts: those of layers, or stored ones.

    Parameters
    ----------
    passes : MapPasses
        The maps, with labels beside them.
    concepts, share, detector_iou, top, capacity
        See :func:`dissect`.

    Returns
    -------
    dict
        From what the maps are called to :class:`Dissection`.

    Raises
    ------
    InputError
        As :func:`dissect`.
    """
    concepts = tuple(concepts)
    if not concepts:
        raise InputError("concepts: there are none; expected at least one")
    columns, layers = column_of(concepts), passes.layers
    units = measure_units(passes, share=share, top=top, capacity=capacity)
    n_images = next(iter(units.values())).n_images
    kinds = list(dict.fromkeys(concept.category for concept in concepts))
    category_of = [kinds.index(concept.category) for concept in concepts]
    overlaps = {layer: Overlaps(len(units[layer].thresholds), category_of) for layer in layers}
    seen = 0
    for numbers, maps in passes.again("Comparing units with concepts"):
        seen += len(maps[layers[0]])
        labels = _as_columns(numbers, columns).to(maps[layers[0]].device)
        size = (int(labels.shape[-2]), int(labels.shape[-1]))
        shown = [ShownConcepts.of(image.flatten(1)) for image in labels]
        for layer in layers:
            for image, active, masks in units[layer].image_masks(maps[layer], size):
                overlaps[layer].add(active, masks.flatten(1), shown[image])
    if seen != n_images:
        raise InputError(
            f"batches: {n_images} images the first time, {seen} the second; expected the same each time"
        )
    return {
        layer: Dissection(
            layer=layer,
            iou=overlaps[layer].iou(),
            concepts=concepts,
            thresholds=units[layer].thresholds.double().cpu().numpy(),
            threshold_error=units[layer].threshold_error.cpu().numpy(),
            top_images=units[layer].strongest.items.cpu().numpy(),
            top_values=units[layer].strongest.values.double().cpu().numpy(),
            concept_area=overlaps[layer].concept_area,
            n_images=n_images,
            grid=units[layer].grid,
            detector_iou=detector_iou,
        )
        for layer in layers
    }


def column_of(concepts: Sequence[Concept]) -> NDArray[np.int64]:
    """Return from a concept's number its place among `concepts`, counted from 1; 0 for none, −1 for unknown numbers.

    Raises
    ------
    InputError
        If two concepts have the same number, or one has a number below 1.
    """
    numbers = [concept.number for concept in concepts]
    if len(set(numbers)) != len(numbers) or min(numbers) < 1:
        raise InputError("concepts: their numbers are not distinct, or below 1")
    table = np.full(max(numbers) + 1, -1, dtype=np.int64)
    table[0] = 0
    table[numbers] = np.arange(1, len(numbers) + 1)
    return table


def _as_columns(numbers: Tensor, columns: NDArray[np.int64]) -> Tensor:
    """Turn concepts' numbers into the places of their columns, counted from 1."""
    if numbers.ndim != 4 or numbers.is_floating_point():
        raise InputError(
            f"labels of shape {tuple(numbers.shape)} and {numbers.dtype}; expected whole numbers (n, k, h, w)"
        )
    plain = numbers.cpu().numpy()
    if plain.size and (plain.min() < 0 or plain.max() >= len(columns)):
        raise InputError(f"labels from {plain.min()} to {plain.max()}: expected 0 to {len(columns) - 1}")
    placed = columns[plain]
    if (placed < 0).any():
        raise InputError(f"label {plain[placed < 0][0]}: is the number of no concept")
    return torch.from_numpy(placed)
