"""Filters, graph nodes, concepts and sparse codes of one layer, by where they are, what they show and what they keep.

Run as `python -m benchmarks.disentangling [--full] [--animal-part FOLDER] [--cache FOLDER]`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnn_interp.disentangling.comparison import (
    FILTERS,
    NODES,
    ComparisonSettings,
    Scores,
    Units,
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
from cnn_interp.disentangling.part_localization import constant_parts, locate_parts, normalised_error
from cnn_interp.images.animal_part import read_animal_part
from cnn_interp.images.articulated import articulated_images
from cnn_interp.images.batches import ConceptBatches, PartMaskBatches, landmarks_in_inputs
from cnn_interp.images.composed import composed_concepts
from cnn_interp.images.part_images import PartImages
from cnn_interp.networks.loading import load_network
from interpretkit.bench.evidence import Row, markdown, mean_interval
from interpretkit.runs.progress import track
from interpretkit.training.seeds import numpy_generator

NETWORK = "mobilenet_v2"
KIND = "animal-part"
# What the graph is to reach, and where a number of it comes from.
RATIO = 0.7
BAR = "the bar set for this benchmark"
ANNOTATED, DRAWS = 3, 5
CHOSEN = "settings of the graph chosen on cat and dog with seed 0"


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes
    ----------
    layers : tuple of str
        The layers of the tables.
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
    graph_layers: tuple[str, ...]
    drawn: int
    categories: tuple[str, ...]
    composed: int
    seeds: int
    settings: ComparisonSettings


QUICK = Size(
    ("features.18",),
    ("features.18",),
    50,
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
    ("features.18", "features.13"),
    ("features.18", "features.16", "features.13"),
    150,
    ("quadruped", "bird", "person", "car"),
    400,
    3,
    ComparisonSettings(positions=10_000),
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
    scale_rows : ndarray of int, optional
        Images without any object.
    """

    images: PartImages
    features: TrunkFeatures
    landmarks: np.ndarray
    scale_rows: np.ndarray | None

    def rows(self, category: int) -> np.ndarray:
        """Return the images of a category."""
        return np.flatnonzero(self.images.categories == category)


def run(
    quick: bool = True,
    data: Mapping[str, Path] | None = None,
    seed: int = 0,
    device: str = "cpu",
    cache: Path | None = None,
) -> list[Row]:
    """Return the rows of evidence.

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
        A folder in which features and graphs are kept, and from which one goes on.
    """
    size = QUICK if quick else FULL
    network = load_network(NETWORK, device=device, seed=seed)
    drawn = articulated_images(
        size.drawn * len(size.categories),
        seed=seed,
        side=network.size,
        negatives=0.0,
        categories=size.categories,
    )
    sets = {"articulated objects": drawn}
    if data and KIND in data:
        sets[KIND] = spread(read_animal_part(data[KIND]), 60 if quick else None)
    masks = torch.cat([found for _, found in PartMaskBatches(network, drawn)])
    composed = composed_concepts(size.composed, seed=seed)
    labels = [found for _, found in ConceptBatches(network, composed)]
    seen = trunk_features(network, composed, size.graph_layers, cache)
    by_set = {}
    for name, images in sets.items():
        without = np.flatnonzero(images.categories < 0)
        by_set[name] = Parts(
            images,
            trunk_features(network, images, size.graph_layers, cache),
            landmarks_in_inputs(images, network.size),
            without if len(without) else None,
        )
    rows: list[Row] = []
    seeds = range(seed, seed + size.seeds)
    for layer in size.layers:
        for name, parts in by_set.items():
            tables, located = [], []
            for number in track(seeds, f"{name}, {layer}", quiet=False):
                measured, errors = measure_parts(
                    parts, layer, size, number, device, masks if name != KIND else None, cache
                )
                tables.append(measured)
                located.append(errors)
            said = f"{name}, {int((parts.images.categories >= 0).sum())} images"
            rows += bar_rows(tables, layer, said, seed, name == KIND)
            rows += table_rows(tables, layer, said, seed, size)
            rows += localization_rows(located, layer, said, seed)
        detectors = []
        for number in seeds:
            numbers = np.arange(len(composed))
            units = units_of(
                seen, layer, size.settings, graph_layers=upto(size.graph_layers, layer), seed=number, device=device,
                folder=graph_folder(cache, "composed", number),
            )  # fmt: skip
            detectors.append([detector_scores(found, numbers, labels, composed.labels) for found in units])
        rows += table_rows(detectors, layer, f"{len(composed)} composed images", seed, size)
    return rows


def spread(images: PartImages, each: int | None) -> PartImages:
    """Return at most so many images of each category, evenly spread, those with landmarks first."""
    if each is None:
        return images
    chosen: list[int] = []
    for category in np.unique(images.categories):
        rows = np.flatnonzero(images.categories == category)
        shown = rows[images.annotated[rows].any(axis=1)]
        rows = shown if len(shown) else rows
        chosen += rows[np.unique(np.linspace(0, len(rows) - 1, min(each, len(rows))).astype(int))].tolist()
    return images.subset(np.array(chosen))


def upto(layers: Sequence[str], layer: str) -> tuple[str, ...]:
    """Return the graph's layers down to one."""
    return tuple(layers[: list(layers).index(layer) + 1])


def graph_folder(cache: Path | None, name: str, seed: int) -> Path | None:
    """Return where a graph is kept."""
    return None if cache is None else cache / "graphs" / f"{name}-{seed}"


def measure_parts(
    parts: Parts,
    layer: str,
    size: Size,
    seed: int,
    device: str,
    masks: Tensor | None,
    cache: Path | None,
) -> tuple[list[Scores], dict[str, list[float]]]:
    """Return the table of one seed, means over categories, and the errors of locating parts."""
    scores: list[Scores] = []
    errors: dict[str, list[float]] = {}
    image = parts.features.image
    for category, name in enumerate(parts.images.category_names):
        rows = parts.rows(category)
        landmarks = parts.landmarks[rows]
        shown = np.flatnonzero(np.sum(~np.isnan(landmarks[..., 0]), axis=0) > 1)
        landmarks = landmarks[:, shown]
        units = units_of(
            parts.features, layer, size.settings, graph_layers=upto(size.graph_layers, layer), rows=rows,
            scale_rows=parts.scale_rows, seed=seed, device=device, folder=graph_folder(cache, name, seed),
        )  # fmt: skip
        scores.append(constant_scores(landmarks, image))
        for found in units:
            scores += place_scores(found, landmarks, image)
            if masks is not None:
                scores.append(part_scores(found, rows, [masks[rows]], parts.images.part_names))
            if found.system in (FILTERS, NODES):
                for draw in range(DRAWS):
                    for what, error in location_errors(found, landmarks, image, seed, name, draw).items():
                        errors.setdefault(what, []).append(error)
    return mean_scores(scores), errors


def location_errors(
    units: Units, landmarks: np.ndarray, image: tuple[int, int], seed: int, name: str, draw: int
) -> dict[str, float]:
    """Return the errors of parts located after a few annotations, mean over parts."""
    rng = numpy_generator(seed, "annotations", name, draw)
    found = {}
    per_part: dict[str, list[float]] = {}
    for part in range(landmarks.shape[1]):
        one = landmarks[:, [part]]
        shown = np.flatnonzero(~np.isnan(one[:, 0]).any(axis=1))
        if len(shown) < 2 * ANNOTATED:
            continue
        given = rng.choice(shown, ANNOTATED, replace=False)
        others = np.setdiff1d(shown, given)
        for readout, (values, positions) in units.readouts.items():
            placed = locate_parts(positions, one, given, values=values).positions
            per_part.setdefault(f"{units.system}, {readout}", []).append(
                float(normalised_error(placed, one, image, others)[0])
            )
        still = normalised_error(constant_parts(one, given), one, image, others)
        per_part.setdefault("mean of the annotated", []).append(float(still[0]))
    for what, values in per_part.items():
        found[what] = float(np.mean(values))
    return found


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
            if name == "unexplained" and first.readout not in ("strongest", ""):
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
    """Return the rows that compare nodes with filters, seed by seed."""
    pairs = [
        (
            next(row for row in table if row.system == FILTERS and row.readout == "strongest"),
            next(row for row in table if row.system == NODES and row.readout == "posterior"),
        )
        for table in tables
    ]
    constant = float(np.mean([nodes.constant / filters.instability for filters, nodes in pairs]))
    common = {"system": f"{NETWORK} {layer}: graph nodes", "data": data, "seed": seed}
    note = CHOSEN if chosen else "settings chosen on animal-part, not here"
    ratios = [nodes.instability / filters.instability for filters, nodes in pairs]
    rows = [
        Row(
            name="location instability over that of filters",
            value=float(np.mean(ratios)),
            interval=mean_interval(ratios),
            baseline=constant,
            reference=RATIO,
            source=BAR,
            notes=f"baseline: a unit that is always in the middle; nodes move by "
            f"{np.mean([nodes.moving for _, nodes in pairs]):.2f} of the parts' spread; {note}",
            **common,
        )
    ]
    for name, said in (
        ("median_tracking", "tracking R² of the median unit, gain over filters"),
        ("best_tracking", "tracking R² of the best unit, gain over filters"),
        ("chosen_tracking", "tracking R² of the unit best on other images, gain over filters"),
    ):
        gains = [getattr(nodes, name) - getattr(filters, name) for filters, nodes in pairs]
        if not np.isnan(gains).any():
            rows.append(
                Row(
                    name=said, value=float(np.mean(gains)), interval=mean_interval(gains), baseline=0.0,
                    notes=f"expected above 0; {note}", **common,
                )
            )  # fmt: skip
    return rows


def localization_rows(
    errors: Sequence[Mapping[str, Sequence[float]]], layer: str, data: str, seed: int
) -> list[Row]:
    """Return the errors of locating parts after a few annotations, beside the mean of those annotated."""
    still = [float(np.mean(found["mean of the annotated"])) for found in errors]
    return [
        Row(
            system=f"{NETWORK} {layer}: {what}",
            data=data,
            name=f"error of parts located from {ANNOTATED} annotations",
            value=float(np.mean([np.mean(found[what]) for found in errors])),
            interval=mean_interval([float(np.mean(found[what])) for found in errors]),
            baseline=float(np.mean(still)),
            seed=seed,
            notes=f"mean distance over the diagonal, other images, {DRAWS} draws for each seed, category and part; "
            "baseline: mean of the annotated landmarks",
        )
        for what in errors[0]
        if what != "mean of the annotated"
    ]


def main() -> None:
    """Print the rows as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="all layers, images and seeds")
    parser.add_argument("--animal-part", type=Path, help="the folder of animal-part")
    parser.add_argument("--cache", type=Path, help="a folder in which features and graphs are kept")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    options = parser.parse_args()
    data = {KIND: options.animal_part} if options.animal_part else None
    print(markdown(run(not options.full, data, options.seed, options.device, options.cache)))


if __name__ == "__main__":
    main()
