"""Filters, graph nodes, concepts and sparse codes of one layer: where they are, what they show, what they keep."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from cnn_interp.disentangling.comparison import (
    CENTRE,
    DRAWN_IN,
    FILTERS,
    NODES,
    POSTERIOR,
    STRONGEST,
    ComparisonSettings,
    Scores,
    constant_scores,
    detector_scores,
    mean_scores,
    part_scores,
    place_scores,
    units_of,
)
from cnn_interp.disentangling.concepts import SparseSettings
from cnn_interp.disentangling.explanatory_graph import GraphSettings
from cnn_interp.disentangling.features import TrunkFeatures, trunk_features
from cnn_interp.disentangling.part_localization import ANNOTATED_MEAN, few_annotations
from cnn_interp.images.animal_part import read_animal_part
from cnn_interp.images.articulated import articulated_images
from cnn_interp.images.batches import ConceptBatches, PartMaskBatches, landmarks_in_inputs
from cnn_interp.images.composed import composed_concepts
from cnn_interp.images.concept_images import Concept
from cnn_interp.images.part_images import PartImages
from cnn_interp.images.sets import Images
from cnn_interp.networks.loading import load_network
from interpretkit.bench.evidence import Row, mean_interval
from interpretkit.runs.files import dump_json, write_json
from interpretkit.runs.progress import track

NETWORK = "mobilenet_v2"
KIND = "animal-part"
# What the graph is to reach, and where a number of it comes from.
RATIO = 0.7
BAR = "the bar set for this benchmark"
ANNOTATED, DRAWS = 3, 5
CHOSEN_ON = ("cat", "dog")
CHOSEN = f"settings of the graph chosen on {' and '.join(CHOSEN_ON)} with seed 0"
# Changes when what is kept of a system changes.
_FORMAT = 1
# From so many images without a landmark a system is learned; from fewer, from all images of the category.
_ENOUGH = 50
Known = dict[str, Any]
Set = TypeVar("Set", bound=Images)


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes
    ----------
    layers : tuple of str
        The layers of the tables.
    beside : tuple of str
        Layers of which filters and nodes alone are compared, and on animal-part alone.
    graph_layers : tuple of str
        Those of the graph, from the highest to the lowest.
    drawn : int
        Articulated objects of each category.
    categories : tuple of str
        Which.
    composed : int
        Images with labelled concepts.
    seeds : int
        How many.
    settings : ComparisonSettings
        Of the systems.
    """

    layers: tuple[str, ...]
    beside: tuple[str, ...]
    graph_layers: tuple[str, ...]
    drawn: int
    categories: tuple[str, ...]
    composed: int
    seeds: int
    settings: ComparisonSettings


QUICK = Size(
    ("features.18",),
    (),
    ("features.18",),
    80,
    ("quadruped", "bird"),
    60,
    1,
    ComparisonSettings(
        concepts=16,
        codes=64,
        positions=3_000,
        sparse=SparseSettings(active=8, epochs=5),
        graph=GraphSettings(rounds=3, iterations=4),
    ),
)
FULL = Size(
    ("features.13",),
    ("features.18",),
    ("features.18", "features.16", "features.13"),
    100,
    ("quadruped", "bird"),
    150,
    3,
    ComparisonSettings(positions=6_000),
)


@dataclass(frozen=True)
class Parts:
    """Images with parts, by category, as features.

    Attributes
    ----------
    images : PartImages
        The set.
    features : TrunkFeatures
        Of all of it.
    landmarks : ndarray of float, (n, parts, 2)
        In pixels of the inputs.
    masks : Tensor, optional
        Of the parts, bool ``(n, parts, h, w)``.
    """

    images: PartImages
    features: TrunkFeatures
    landmarks: np.ndarray
    masks: Tensor | None

    @property
    def scale_rows(self) -> np.ndarray | None:
        """Images without any object; None if there are none."""
        without = np.flatnonzero(self.images.categories < 0)
        return without if len(without) else None

    def rows(self, category: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the images of a category to measure on, and others of it to learn from.

        One learns from images without a landmark; of a set that has landmarks everywhere, from the second half.
        """
        rows = np.flatnonzero(self.images.categories == category)
        shown = np.asarray(~np.isnan(self.landmarks[rows][..., 0]).all(axis=1))
        if np.sum(~shown) >= _ENOUGH:
            return rows[shown], rows[~shown]
        half = len(rows) // 2
        return rows[:half], rows[half:]


def run(
    quick: bool = True,
    data: Mapping[str, Path] | None = None,
    seed: int = 0,
    device: str = "cpu",
    cache: Path | None = None,
) -> list[Row]:
    """Return the rows of evidence.

    Every system learns from images of a category other than those it is measured on.

    Parameters
    ----------
    quick : bool
        One layer, one seed, few images and units.
    data : mapping of str to path, optional
        ``animal-part``, its folder: places of units are then measured there. Part interpretability needs masks, and
        is measured on drawn objects anyway; unique detectors on composed images.
    seed : int
        The first seed.
    device : str
        Where to compute.
    cache : path, optional
        A folder in which features, graphs and scores are kept, and from which one goes on.
    """
    size = QUICK if quick else FULL
    network = load_network(NETWORK, device=device, seed=seed)
    drawn = held(
        articulated_images(
            size.drawn * len(size.categories),
            seed=seed,
            side=network.size,
            negatives=0.0,
            categories=size.categories,
        )
    )
    sets = {"articulated objects": drawn}
    if data and KIND in data:
        sets[KIND] = spread(read_animal_part(data[KIND]), 120 if quick else None)
    composed = held(composed_concepts(size.composed, seed=seed))
    labels = [found for _, found in ConceptBatches(network, composed)]
    seen = trunk_features(network, composed, size.graph_layers, cache)
    by_set = {
        name: Parts(
            images,
            trunk_features(network, images, size.graph_layers, cache),
            landmarks_in_inputs(images, network.size),
            torch.cat([found for _, found in PartMaskBatches(network, images)]) if images.has_masks else None,
        )
        for name, images in sets.items()
    }
    rows: list[Row] = []
    seeds = range(seed, seed + size.seeds)
    for layer in (*size.layers, *size.beside):
        whole = layer in size.layers
        systems = size.settings.systems if whole else (FILTERS, NODES)
        for name, parts in by_set.items():
            if not whole and name != KIND:
                continue
            categories = parts.images.category_names
            measured = [
                [
                    measure_category(parts, place, systems, layer, size, number, device, cache)
                    for place in range(len(categories))
                ]
                for number in track(seeds, f"{name}, {layer}", quiet=False)
            ]
            tables = [mean_scores(row for scores, _ in found for row in scores) for found in measured]
            said = f"{name}, {sum(len(parts.rows(place)[0]) for place in range(len(categories)))} images"
            rows += bar_rows(tables, layer, said, seed, name == KIND)
            if name == KIND:
                others = [place for place, category in enumerate(categories) if category not in CHOSEN_ON]
                apart = [
                    mean_scores(row for place in others for row in found[place][0]) for found in measured
                ]
                names = " and ".join(categories[place] for place in others)
                rows += bar_rows(apart, layer, f"{name}, {names} alone", seed, False)
            rows += table_rows(tables, layer, said, seed, size)
            rows += localization_rows(
                [[errors for _, errors in found] for found in measured], layer, said, seed
            )
        if not whole:
            continue
        detectors = [
            measure_detectors(seen, labels, composed.labels, layer, size, number, device, cache)
            for number in seeds
        ]
        rows += table_rows(detectors, layer, f"{len(composed)} composed images", seed, size)
    return rows


def held(images: Set) -> Set:
    """Return a set whose pictures are kept, for they are drawn anew whenever they are asked for."""
    return replace(images, load=functools.cache(images.load))


def spread(images: PartImages, each: int | None) -> PartImages:
    """Return at most so many images of each category, evenly spread; half of them without a landmark."""
    if each is None:
        return images
    chosen: list[int] = []
    for category in np.unique(images.categories):
        rows = np.flatnonzero(images.categories == category)
        shown = images.annotated[rows].any(axis=1)
        for some in (rows[shown], rows[~shown]):
            if len(some):
                chosen += some[
                    np.unique(np.linspace(0, len(some) - 1, min(each // 2, len(some))).astype(int))
                ].tolist()
    return images.subset(np.sort(chosen))


def upto(layers: Sequence[str], layer: str) -> tuple[str, ...]:
    """Return the graph's layers down to one."""
    return tuple(layers[: list(layers).index(layer) + 1])


def measure_category(
    parts: Parts,
    category: int,
    systems: Sequence[str],
    layer: str,
    size: Size,
    seed: int,
    device: str,
    cache: Path | None,
) -> tuple[list[Scores], dict[str, list[float]]]:
    """Return the scores of some systems on a category, and the errors of locating its parts."""
    rows, _ = parts.rows(category)
    landmarks = parts.landmarks[rows]
    scores = [constant_scores(landmarks[:, shown_parts(landmarks)], parts.features.image)]
    errors: dict[str, list[float]] = {}
    for system in systems:
        found, located = measure_system(parts, category, system, layer, size, seed, device, cache)
        scores += found
        # The mean of the annotated is the same whatever the system.
        errors |= located
    return scores, errors


def shown_parts(landmarks: np.ndarray) -> np.ndarray:
    """Return the parts that two images or more show."""
    return np.flatnonzero(np.sum(~np.isnan(landmarks[..., 0]), axis=0) > 1)


def measure_system(
    parts: Parts,
    category: int,
    system: str,
    layer: str,
    size: Size,
    seed: int,
    device: str,
    cache: Path | None,
) -> tuple[list[Scores], dict[str, list[float]]]:
    """Return the scores of one system on one category, and the errors of locating parts by it."""
    rows, learned = parts.rows(category)
    image = parts.features.image
    name = parts.images.category_names[category]
    graph_layers, settings = upto(size.graph_layers, layer), replace(size.settings, systems=(system,))

    def measure() -> Known:
        landmarks = parts.landmarks[rows]
        landmarks = landmarks[:, shown_parts(landmarks)]
        units = units_of(
            parts.features, layer, settings, graph_layers=graph_layers, rows=rows, learn_rows=learned,
            scale_rows=parts.scale_rows, seed=seed, device=device, folder=graph_folder(cache, name, seed),
        )[0]  # fmt: skip
        scores = place_scores(units, landmarks, image)
        if parts.masks is not None:
            scores.append(part_scores(units, rows, [parts.masks[rows]], parts.images.part_names))
        errors: dict[str, list[float]] = {}
        if system in (FILTERS, NODES):
            for draw in range(DRAWS):
                named = {f"{system}, {readout}": found for readout, found in units.readouts.items()}
                drawn = few_annotations(
                    named, landmarks, image, annotated=ANNOTATED, seed=seed, name=name, draw=draw
                )
                for what, error in drawn.items():
                    errors.setdefault(what, []).append(error)
        return {"scores": [asdict(row) for row in scores], "errors": errors}

    told = [parts.features.key, rows, learned, parts.scale_rows, layer, graph_layers, settings, seed]
    return _read_scores(_kept(cache, told, measure))


def measure_detectors(
    features: TrunkFeatures,
    labels: Sequence[Tensor],
    concepts: Sequence[Concept],
    layer: str,
    size: Size,
    seed: int,
    device: str,
    cache: Path | None,
) -> list[Scores]:
    """Return how many unique detectors each system has."""
    graph_layers = upto(size.graph_layers, layer)
    scores = []
    for system in size.settings.systems:
        settings = replace(size.settings, systems=(system,))

        def measure(settings: ComparisonSettings = settings) -> Known:
            units = units_of(
                features, layer, settings, graph_layers=graph_layers, seed=seed, device=device,
                folder=graph_folder(cache, "composed", seed),
            )[0]  # fmt: skip
            found = detector_scores(units, np.arange(len(features)), labels, concepts)
            return {"scores": [asdict(found)], "errors": {}}

        told = ["detectors", features.key, layer, graph_layers, settings, seed]
        scores += _read_scores(_kept(cache, told, measure))[0]
    return scores


def graph_folder(cache: Path | None, name: str, seed: int) -> Path | None:
    """Return where a graph is kept."""
    return None if cache is None else cache / "graphs" / f"{name}-{seed}"


def _kept(cache: Path | None, told: object, measure: Callable[[], Known]) -> Known:
    """Return what was kept under what it depends on, else measure it and keep it."""
    if cache is None:
        return measure()
    name = hashlib.sha256(dump_json([_FORMAT, told]).encode()).hexdigest()[:24]
    file = cache / "scores" / f"{name}.json"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, measure())
    return json.loads(file.read_text(encoding="utf-8"))


def _read_scores(found: Known) -> tuple[list[Scores], dict[str, list[float]]]:
    """Return scores and errors of which NaN may have become null."""

    def number(value: Any) -> Any:
        return math.nan if value is None else value

    scores = [Scores(**{name: number(value) for name, value in row.items()}) for row in found["scores"]]
    return scores, {what: [number(value) for value in some] for what, some in found["errors"].items()}


# (attribute of Scores, what it is called, attribute of the baseline or its value, what the baseline is)
MEASURES: tuple[tuple[str, str, str | None, str], ...] = (
    ("instability", "location instability", "constant", "a unit that is always in the middle"),
    ("median_tracking", "tracking R² of the median unit", None, "0 stands still"),
    ("best_tracking", "tracking R² of the best unit", None, "chosen on the images it is measured on"),
    ("chosen_tracking", "tracking R² of the unit best on other images", None, "halves, both ways"),
    ("moving", "spread of places over that of parts", None, "0 stands still"),
    ("part_interpretability", "part interpretability", "displaced", "parts where another image has them"),
    ("detectors", "unique detectors", None, "summed over categories"),
    (
        "unexplained",
        "share of variance not given back",
        None,
        "of scaled responses; for nodes, of those above 0",
    ),
)


def table_rows(tables: Sequence[Sequence[Scores]], layer: str, data: str, seed: int, size: Size) -> list[Row]:
    """Return a row for each system and measure, with its interval over seeds."""
    rows = []
    for place, first in enumerate(tables[0]):
        across = [table[place] for table in tables]
        units = f"{first.units:g} unit{'s' * (first.units != 1)}" + (
            f", {np.mean([row.dead for row in across]):.3g} never seen" if first.dead > 0 else ""
        )
        readout = f", {first.readout}" if first.readout else ""
        for name, said, baseline, note in MEASURES:
            # What the readout does not change is told once.
            if name == "unexplained" and first.readout not in (STRONGEST, ""):
                continue
            values = [getattr(row, name) for row in across]
            if np.isnan(values).all():
                continue
            beside = (
                None if baseline is None else float(np.nanmean([getattr(row, baseline) for row in across]))
            )
            rows.append(
                Row(
                    system=f"{NETWORK} {layer}: {first.system}{readout if name != 'unexplained' else ''}",
                    data=data,
                    name=said,
                    value=float(np.nanmean(values)),
                    interval=mean_interval(values),
                    baseline=beside,
                    seed=seed,
                    notes=f"{units}; {size.seeds} seed{'s' * (size.seeds > 1)}; "
                    + (f"baseline: {note}" if baseline else note),
                )
            )
    return rows


def bar_rows(tables: Sequence[Sequence[Scores]], layer: str, data: str, seed: int, chosen: bool) -> list[Row]:
    """Return the rows that compare nodes with filters, seed by seed.

    Filters by their strongest positions are what the bar is set against. Filters by their centres of gravity, and by
    these drawn to their means as far as nodes are, tell how much of a gain any smoother readout would bring.
    """
    nodes = [_row(table, NODES, POSTERIOR) for table in tables]
    moving = f"nodes move by {np.mean([row.moving for row in nodes]):.2f} of the parts' spread"
    note = CHOSEN if chosen else "settings not chosen on these images"
    common = {"system": f"{NETWORK} {layer}: graph nodes", "data": data, "seed": seed}
    rows = []
    for readout, said in ((STRONGEST, ""), (CENTRE, f", by {CENTRE}"), (DRAWN_IN, f", by {DRAWN_IN}")):
        filters = [_row(table, FILTERS, readout) for table in tables]
        ratios = [a.instability / b.instability for a, b in zip(nodes, filters, strict=True)]
        still = float(np.mean([a.constant / b.instability for a, b in zip(nodes, filters, strict=True)]))
        # The bar is set for the first alone.
        bar = {"reference": RATIO, "source": BAR} if readout == STRONGEST else {}
        rows.append(
            Row(
                name=f"location instability over that of filters{said}", value=float(np.mean(ratios)),
                interval=mean_interval(ratios), baseline=still, **bar,
                notes=f"baseline: a unit that is always in the middle; {moving}; {note}", **common,
            )
        )  # fmt: skip
        for name, unit in (
            ("median_tracking", "the median unit"),
            ("best_tracking", "the best unit"),
            ("chosen_tracking", "the unit best on other images"),
        ):
            gains = [getattr(a, name) - getattr(b, name) for a, b in zip(nodes, filters, strict=True)]
            if not np.isnan(gains).any():
                rows.append(
                    Row(
                        name=f"tracking R² of {unit}, gain over filters{said}", value=float(np.mean(gains)),
                        interval=mean_interval(gains), baseline=0.0, notes=f"expected above 0; {note}", **common,
                    )
                )  # fmt: skip
    return rows


def _row(table: Sequence[Scores], system: str, readout: str) -> Scores:
    return next(row for row in table if (row.system, row.readout) == (system, readout))


def localization_rows(
    errors: Sequence[Sequence[Mapping[str, Sequence[float]]]], layer: str, data: str, seed: int
) -> list[Row]:
    """Return the errors of locating parts after a few annotations, beside the mean of those annotated.

    `errors` holds, for each seed and category, a list over draws for each way of locating.
    """

    def by_seed(what: str) -> list[float]:
        return [float(np.mean([value for one in found for value in one.get(what, [])])) for found in errors]

    return [
        Row(
            system=f"{NETWORK} {layer}: {what}",
            data=data,
            name=f"error of parts located from {ANNOTATED} annotations",
            value=float(np.mean(by_seed(what))),
            interval=mean_interval(by_seed(what)),
            baseline=float(np.mean(by_seed(ANNOTATED_MEAN))),
            seed=seed,
            notes=f"mean distance over the diagonal, other images, {DRAWS} draws for each seed, category and part; "
            "baseline: mean of the annotated landmarks",
        )
        for what in dict.fromkeys(name for found in errors for one in found for name in one)
        if what != ANNOTATED_MEAN
    ]
