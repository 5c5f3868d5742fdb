"""Filters, nodes of an explanatory graph, concepts and sparse codes of one layer, measured alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cnn_interp.disentangling.concepts import METHODS, Concepts, Method, SparseSettings, find_concepts
from cnn_interp.disentangling.explanatory_graph import (
    ExplanatoryGraph,
    GraphSettings,
    NodePlaces,
    learn_graph,
)
from cnn_interp.disentangling.features import LayerMaps, TrunkFeatures
from cnn_interp.images.concept_images import Concept
from cnn_interp.metrics.dissection import dissect_maps
from cnn_interp.metrics.location_instability import FEWEST, TOP, location_instability
from cnn_interp.metrics.part_interpretability import part_interpretability_of_maps
from cnn_interp.units.active_regions import StoredMaps
from cnn_interp.units.positions import UnitGrid
from interpretkit.errors import InputError
from interpretkit.runs.progress import track

Floats = NDArray[np.float64]
FILTERS, NODES, CONSTANT = "filters", "graph nodes", "constant"
SYSTEMS: tuple[str, ...] = (FILTERS, NODES, *METHODS)
# How the place of a unit is told; the last is the control of what a graph's parents are good for.
STRONGEST, POSTERIOR = "strongest", "posterior"
CENTRE, DRAWN_IN = "centre of gravity", "centre of gravity, drawn to its mean"
# So many values of units' maps are made at once, about 64 MB.
_VALUES_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class ComparisonSettings:
    """What is compared.

    Attributes
    ----------
    systems : tuple of str
        Of ``SYSTEMS``.
    concepts : int
        How many concepts ``nmf``, ``pca`` and ``ica`` find.
    codes : int
        How many codes the sparse autoencoder has.
    positions : int
        From how many positions they are learned, at most.
    sparse : SparseSettings
        Of the autoencoder.
    graph : GraphSettings
        Of the graph.
    """

    systems: tuple[str, ...] = SYSTEMS
    concepts: int = 64
    codes: int = 256
    positions: int = 20_000
    sparse: SparseSettings = field(default_factory=SparseSettings)
    graph: GraphSettings = field(default_factory=GraphSettings)

    def __post_init__(self) -> None:
        unknown = [name for name in self.systems if name not in SYSTEMS]
        if unknown or not self.systems:
            raise InputError(
                f"systems {', '.join(self.systems) or 'none'}: expected some of {', '.join(SYSTEMS)}"
            )


@dataclass(frozen=True, eq=False)
class Units:
    """What a system sees in images.

    Attributes
    ----------
    system : str
        Its name.
    count : int
        How many units it has.
    maps : callable
        From images' numbers to the units' maps ``(m, units, h, w)``.
    grid : UnitGrid
        Where the maps' positions are.
    readouts : mapping of str to (values, positions)
        From how a unit's place is told to how strong each unit is in each image ``(n, units)`` and its row and column
        ``(n, units, 2)``, px.
    dead : int
        How many units are never seen.
    unexplained : float
        Which share of the variance of the layer's responses the units do not give back.
    """

    system: str
    count: int
    maps: Callable[[NDArray[np.int64]], Tensor]
    grid: UnitGrid
    readouts: Mapping[str, tuple[Floats, Floats]]
    dead: int
    unexplained: float


@dataclass(frozen=True)
class Scores:
    """One row of the table. What was not measured is NaN.

    Attributes
    ----------
    system, readout : str
        What was measured, and how the place of a unit is told.
    units, dead : float
        How many, and how many are never seen.
    instability : float
        Mean over units and pairs of category and part; less is steadier.
    constant : float
        The same, on the same images, for a unit that is always in the middle.
    median_tracking, best_tracking : float
        R² of the median unit and of the best one, means over pairs.
    chosen_tracking : float
        R² of the unit that is best on one half of the images, on the other half, the mean of both ways; the best of
        many units on the same images is best by chance in part.
    moving : float
        Spread of the units' places over that of the parts, the median unit's, mean over pairs: 0 stands still.
    part_interpretability, displaced : float
        Mean over units; and with parts where they were in another image.
    detectors : float
        Unique detectors of network dissection, summed over categories.
    unexplained : float
        Which share of the variance of responses is not given back.
    """

    system: str
    readout: str
    units: float = math.nan
    dead: float = math.nan
    instability: float = math.nan
    constant: float = math.nan
    median_tracking: float = math.nan
    best_tracking: float = math.nan
    chosen_tracking: float = math.nan
    moving: float = math.nan
    part_interpretability: float = math.nan
    displaced: float = math.nan
    detectors: float = math.nan
    unexplained: float = math.nan


def units_of(
    features: TrunkFeatures,
    layer: str,
    settings: ComparisonSettings,
    *,
    graph_layers: Sequence[str] = (),
    rows: ArrayLike | None = None,
    scale_rows: ArrayLike | None = None,
    learn_rows: ArrayLike | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    folder: Path | None = None,
    quiet: bool = True,
) -> list[Units]:
    """Learn every system from images of one kind and return what it sees in images.

    Parameters
    ----------
    features : TrunkFeatures
        Of all images.
    layer : str
        Whose responses are taken apart.
    settings : ComparisonSettings
        What is compared.
    graph_layers : sequence of str
        Layers of the graph from the highest to the lowest; `layer` must be one of them. By default `layer` alone.
    rows : array_like of int, optional
        Images to look at; all by default.
    scale_rows : array_like of int, optional
        Images on which responses have their standard deviation; `rows` by default.
    learn_rows : array_like of int, optional
        Images to learn from; `rows` by default.
    seed : int
        Of all random numbers.
    device : str or torch.device
        Where to compute.
    folder : path, optional
        Where the graph's levels are kept, to go on from.
    quiet : bool
        Whether to show no progress bar.
    """
    numbers = np.arange(len(features)) if rows is None else np.asarray(rows)
    learned = numbers if learn_rows is None else np.asarray(learn_rows)
    maps = features[layer]
    scale = maps.unit_scale(learned if scale_rows is None else scale_rows)
    found = []
    for system in track(settings.systems, "Learning systems", quiet=quiet):
        if system == FILTERS:
            share = settings.graph.evidence
            found.append(filter_units(maps, numbers, learned, scale=scale, share=share))
        elif system == NODES:
            layers = tuple(graph_layers) or (layer,)
            if layer not in layers:
                raise InputError(f"layer {layer!r}: expected one of the graph's, {', '.join(layers)}")
            graph = learn_graph(
                features, layers, rows=learned, scale_rows=scale_rows, settings=settings.graph, seed=seed,
                device=device, folder=folder,
            )  # fmt: skip
            found.append(node_units(graph, layer, features, numbers, device=device))
        else:
            method: Method = system  # type: ignore[assignment]
            count = settings.codes if method == "sae" else min(settings.concepts, maps.units)
            concepts = find_concepts(
                maps, method, count, rows=learned, scale=scale, positions=settings.positions, seed=seed,
                device=device, sparse=settings.sparse,
            )  # fmt: skip
            found.append(concept_units(concepts, maps, numbers))
    return found


def place_scores(
    units: Units,
    landmarks: ArrayLike,
    image: tuple[int, int],
    *,
    part_names: Sequence[str] = (),
    top: int = TOP,
) -> list[Scores]:
    """Measure where units are against where parts are, for each readout.

    Parameters
    ----------
    units : Units
        Of images of one category.
    landmarks : array_like of float, (n, parts, 2)
        Of the parts, NaN where there is none, px.
    image : (int, int)
        Height and width, px.
    part_names : sequence of str, optional
        What the parts are called.
    top : int
        See :func:`location_instability`.
    """
    parts = np.asarray(landmarks, dtype=np.float64)
    found = []
    for readout, (values, positions) in units.readouts.items():
        measured = location_instability(values, positions, parts, image, part_names=part_names, top=top)
        best = measured.best_tracking()[1][0]
        found.append(
            Scores(
                units.system,
                readout,
                units=units.count,
                dead=units.dead,
                instability=measured.mean_instability,
                constant=measured.mean_constant_centre,
                median_tracking=_mean(_median(row) for row in measured.tracking[0]),
                best_tracking=_mean(best),
                chosen_tracking=_mean(
                    chosen_tracking(values, positions, parts[:, [part]], image, top=top)
                    for part in range(parts.shape[1])
                ),
                moving=_moving(values, positions, parts, top),
                unexplained=units.unexplained,
            )
        )
    return found


def chosen_tracking(
    values: Floats, positions: Floats, landmarks: Floats, image: tuple[int, int], *, top: int = TOP
) -> float:
    """Return the R² of the unit that is best on one half of the images, on the other half; the mean of both ways.

    Parameters
    ----------
    values, positions : ndarray of float, (n, units) and (n, units, 2)
        How strong and where units are.
    landmarks : ndarray of float, (n, 1, 2)
        Of one part.
    image : (int, int)
        Height and width, px.
    top : int
        How many images count for each unit, at most, of both halves together.

    Returns
    -------
    float
        NaN if a half shows the part in fewer than ``FEWEST`` images.
    """
    shown = np.flatnonzero(~np.isnan(landmarks[:, 0]).any(axis=1))
    # Relatives follow each other, so that halves are in one piece.
    halves = shown[: len(shown) // 2], shown[len(shown) // 2 :]
    if min(map(len, halves)) < FEWEST:
        return math.nan
    tracking = [
        location_instability(
            values[half], positions[half], landmarks[half], image, top=max(top // 2, 2)
        ).tracking[0, 0]
        for half in halves
    ]
    if not all(np.isfinite(values).any() for values in tracking):
        return math.nan
    return float(np.mean([tracking[1][np.nanargmax(tracking[0])], tracking[0][np.nanargmax(tracking[1])]]))


def constant_scores(landmarks: ArrayLike, image: tuple[int, int]) -> Scores:
    """Return the row of a unit that always fires in the middle of the image."""
    parts = np.asarray(landmarks, dtype=np.float64)
    middle = np.broadcast_to((np.array(image) - 1) / 2, (len(parts), 1, 2))
    measured = location_instability(np.ones((len(parts), 1)), middle, parts, image, top=max(len(parts), 2))
    level = measured.mean_instability
    return Scores(
        CONSTANT, "centre of the image", units=1, instability=level, constant=level, median_tracking=0.0,
        best_tracking=0.0, chosen_tracking=0.0, moving=0.0,
    )  # fmt: skip


def part_scores(
    units: Units, numbers: ArrayLike, masks: Sequence[Tensor], part_names: Sequence[str]
) -> Scores:
    """Measure part interpretability.

    Parameters
    ----------
    units : Units
        Of images of one category.
    numbers : array_like of int, (m,)
        The images, as the units' maps take them.
    masks : sequence of Tensor
        Bool, in portions ``(…, parts, h, w)`` that together have m images.
    part_names : sequence of str
        What the parts are called.
    """
    batches = _portions(np.asarray(numbers), masks)
    stored = StoredMaps({units.system: units.maps}, {units.system: units.grid}, batches)
    found = part_interpretability_of_maps(stored, part_names=part_names)[units.system]
    return Scores(
        units.system, "", units=units.count, part_interpretability=found.mean, displaced=found.mean_displaced
    )


def detector_scores(
    units: Units, numbers: ArrayLike, labels: Sequence[Tensor], concepts: Sequence[Concept]
) -> Scores:
    """Count the unique detectors of network dissection.

    Parameters
    ----------
    units : Units
        Of images with labelled concepts.
    numbers : array_like of int, (m,)
        The images, as the units' maps take them.
    labels : sequence of Tensor
        Numbers of concepts, in portions ``(…, k, h, w)`` that together have m images.
    concepts : sequence of Concept
        What the numbers stand for.
    """
    batches = _portions(np.asarray(numbers), labels)
    stored = StoredMaps({units.system: units.maps}, {units.system: units.grid}, batches)
    found = dissect_maps(stored, concepts)[units.system]
    return Scores(units.system, "", units=units.count, detectors=sum(found.unique_detectors().values()))


def mean_scores(scores: Iterable[Scores]) -> list[Scores]:
    """Return the means over categories, or any other repetition, of rows with the same system and readout."""
    groups: dict[tuple[str, str], list[Scores]] = {}
    for row in scores:
        groups.setdefault((row.system, row.readout), []).append(row)
    numbers = [entry.name for entry in fields(Scores) if entry.name not in ("system", "readout")]
    return [
        replace(rows[0], **{name: _mean(getattr(row, name) for row in rows) for name in numbers})
        for rows in groups.values()
    ]


# -------------------------------------------------------------------------------------------------------------- systems


def filter_units(
    maps: LayerMaps,
    rows: ArrayLike | None = None,
    learn_rows: ArrayLike | None = None,
    *,
    scale: ArrayLike | None = None,
    share: float = 0.4,
) -> Units:
    """Return what the filters of a layer see in images.

    Besides by their strongest positions, they are located by the centre of gravity of what is above 0; and, as a
    control of what a graph's edges are good for, by that centre drawn to its mean.

    Parameters
    ----------
    maps : LayerMaps
        Of all images.
    rows : array_like of int, optional
        Images to look at; all by default.
    learn_rows : array_like of int, optional
        Images over which that mean is taken; `rows` by default.
    scale : array_like of float, (units,), optional
        What responses are divided by; by default their standard deviation over the images to learn from.
    share : float
        How far a centre is from its mean after it was drawn to it: the weight that a node gives to its own responses.
    """
    numbers = np.arange(len(maps)) if rows is None else np.asarray(rows)
    learned = numbers if learn_rows is None else np.asarray(learn_rows)
    divisor = maps.unit_scale(learned) if scale is None else np.asarray(scale, dtype=np.float64)

    def make(some: NDArray[np.int64]) -> Tensor:
        return maps.normalised(divisor, some)

    readouts = _readouts(make, numbers, maps.grid, maps.units)
    # What a node is without any parent: between where the filter is on average, and where it is in this image.
    values, centres = readouts[CENTRE]
    strength, known = _readouts(make, learned, maps.grid, maps.units)[CENTRE]
    weight = strength.sum(axis=0)[:, None]
    home = (strength[..., None] * known).sum(axis=0) / np.where(weight > 0, weight, 1.0)
    home = np.where(weight > 0, home, known.mean(axis=0))
    readouts[DRAWN_IN] = values, home + share * (centres - home)
    return Units(
        FILTERS, maps.units, make, maps.grid, readouts, _dead(make, numbers, maps.grid, maps.units), 0.0
    )


def concept_units(concepts: Concepts, maps: LayerMaps, rows: ArrayLike | None = None) -> Units:
    """Return what concepts see in images.

    Parameters
    ----------
    concepts : Concepts
        Of the layer.
    maps : LayerMaps
        Of all images.
    rows : array_like of int, optional
        Images to look at; all by default.
    """
    numbers = np.arange(len(maps)) if rows is None else np.asarray(rows)

    def make(some: NDArray[np.int64]) -> Tensor:
        return concepts.maps(maps, some)

    left = concepts.unexplained(maps, numbers)
    readouts = _readouts(make, numbers, maps.grid, len(concepts))
    return Units(concepts.method, len(concepts), make, maps.grid, readouts, int(concepts.dead.sum()), left)


def node_units(
    graph: ExplanatoryGraph,
    layer: str,
    features: TrunkFeatures,
    rows: ArrayLike | None = None,
    *,
    device: str | torch.device = "cpu",
) -> Units:
    """Return what the nodes of a graph's layer see in images.

    Parameters
    ----------
    graph : ExplanatoryGraph
        Learned from images of the same network.
    layer : str
        One of its layers.
    features : TrunkFeatures
        Of all images.
    rows : array_like of int, optional
        Images to look at; all by default.
    device : str or torch.device
        Where to compute.
    """
    numbers = np.arange(len(features)) if rows is None else np.asarray(rows)
    level = graph.last(layer)
    names = dict.fromkeys(one.layer for one in graph.levels)
    only = replace(features, layers={name: features[name] for name in names}).subset(numbers)
    places = graph.locate(only, device=device)[level.name]
    where = {int(number): place for place, number in enumerate(numbers)}

    def make(some: NDArray[np.int64]) -> Tensor:
        return graph.node_maps(level, only, places, [where[int(number)] for number in some])

    cells = level.grid.centres(places.cells)
    readouts = {STRONGEST: (places.values, cells), POSTERIOR: (places.values, places.positions)}
    left = _left_over(make, features[level.layer], level.scale, level.filters, numbers)
    return Units(NODES, len(level), make, level.grid, readouts, _never(places), left)


def _never(places: NodePlaces) -> int:
    return int((places.values.max(axis=0) <= 0).sum())


def _left_over(
    make: Callable[[NDArray[np.int64]], Tensor],
    maps: LayerMaps,
    scale: Floats,
    filters: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> float:
    """Return which share of the variance of the responses above 0 no node explains."""
    left, squares, count = 0.0, 0.0, 0
    total = torch.zeros(maps.units, dtype=torch.float64)
    index = torch.as_tensor(filters)
    for some in _some(rows, len(filters), maps.grid):
        responses = maps.normalised(scale, some)
        given = torch.zeros_like(responses).index_add_(1, index, make(some))
        left += float((responses - given).double().square().sum())
        squares += float(responses.double().square().sum())
        total += responses.double().sum(dim=(0, 2, 3))
        count += len(some) * responses.shape[2] * responses.shape[3]
    return left / max(squares - float(total.square().sum()) / count, np.finfo(float).tiny)


def _readouts(
    make: Callable[[NDArray[np.int64]], Tensor], rows: NDArray[np.int64], grid: UnitGrid, units: int
) -> dict[str, tuple[Floats, Floats]]:
    """Return where units are by their strongest position, and by the centre of gravity of what is above 0."""
    values, strongest, centres = [], [], []
    positions = torch.as_tensor(grid.centres(np.arange(grid.field.shape[0] * grid.field.shape[1])))
    for some in _some(rows, units, grid):
        flat = make(some).flatten(2)
        largest = flat.amax(dim=2, keepdim=True)
        # The first of equals.
        place = (flat == largest).int().argmax(dim=2)
        weights = flat.clamp_min(0).double()
        total = weights.sum(dim=2, keepdim=True)
        centre = weights @ positions / total.clamp_min(1e-12)
        values.append(largest[..., 0].double().numpy())
        strongest.append(grid.centres(place.numpy()))
        centres.append(torch.where(total > 0, centre, positions.mean(dim=0)).numpy())
    strength = np.concatenate(values)
    return {
        STRONGEST: (strength, np.concatenate(strongest)),
        CENTRE: (strength, np.concatenate(centres)),
    }


def _dead(
    make: Callable[[NDArray[np.int64]], Tensor], rows: NDArray[np.int64], grid: UnitGrid, units: int
) -> int:
    seen = torch.zeros(units, dtype=torch.bool)
    for some in _some(rows, units, grid):
        seen |= (make(some) > 0).any(dim=3).any(dim=2).any(dim=0)
    return int((~seen).sum())


def _some(rows: NDArray[np.int64], units: int, grid: UnitGrid) -> Iterator[NDArray[np.int64]]:
    """Give images in portions whose maps take little memory."""
    at_once = max(1, _VALUES_AT_ONCE // (units * grid.field.shape[0] * grid.field.shape[1]))
    return (rows[first : first + at_once] for first in range(0, len(rows), at_once))


def _portions(numbers: NDArray[np.int64], beside: Sequence[Tensor]) -> list[tuple[NDArray[np.int64], Tensor]]:
    if sum(map(len, beside)) != len(numbers):
        raise InputError(f"{sum(map(len, beside))} images beside {len(numbers)} numbers; expected as many")
    ends = np.cumsum([len(part) for part in beside])
    return [
        (numbers[end - len(part) : end], part) for end, part in zip(ends, beside, strict=True) if len(part)
    ]


def _moving(values: Floats, positions: Floats, landmarks: Floats, top: int) -> float:
    """Return the spread of the median unit's places over that of the part, in its strongest images; mean over parts."""
    found = []
    for part in range(landmarks.shape[1]):
        shown = np.flatnonzero(~np.isnan(landmarks[:, part]).any(axis=1))
        if len(shown) < 2:
            continue
        chosen = shown[np.argsort(-values[shown], axis=0, kind="stable")[:top]]
        where = np.take_along_axis(positions, chosen[..., None], axis=0).var(axis=0, ddof=1).sum(axis=1)
        spread = landmarks[chosen, part].var(axis=0, ddof=1).sum(axis=1)
        found.append(_median(np.sqrt(where / np.maximum(spread, np.finfo(float).tiny))))
    return _mean(found)


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _median(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else math.nan
