"""Detection by parsing regions with an And-Or grammar, beside a plain head; whether parse nodes stay with parts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from cnn_interp.images.articulated import articulated_images
from cnn_interp.images.object_images import ObjectImages, mosaics, split_by_groups, whole_images
from cnn_interp.images.part_images import PartImages
from cnn_interp.images.reading import read_annotated
from cnn_interp.learning.detection import MappedImages, Settings, map_images
from cnn_interp.learning.head_comparison import (
    NODES,
    PLAIN,
    TRUNK,
    Comparison,
    compare,
    pairs,
    train_detectors,
)
from cnn_interp.networks.loading import load_network
from cnn_interp.networks.network import Network
from interpretkit.bench.evidence import Row, mean_interval
from interpretkit.runs.files import write_json
from interpretkit.training import resolve_device

NETWORK, LAYER, KIND = "mobilenet_v2", "features.13", "animal-part"
CATEGORIES = ("quadruped", "bird", "person", "car")
# Points of average precision by which the parsing head may be below the plain one.
BAR, SOURCE = -0.01, "the bar set for this benchmark"
ARTICLE = "Wu and others report 'comparable performance' for R-FCN on PASCAL VOC, without a bar"


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes
    ----------
    train, test : int
        Drawn images.
    crops : (int, int)
        Crops of photographs to train and to test on, put together by fours with images without an object.
    seeds : int
        How many trainings.
    epochs : int
        Of the heads.
    """

    train: int
    test: int
    crops: tuple[int, int]
    seeds: int
    epochs: int


QUICK = Size(60, 60, (100, 80), 1, 3)
FULL = Size(400, 150, (1200, 400), 3, 5)


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
        60 drawn images to train on and 60 to test on, one seed of three epochs, instead of 400 and 150, three seeds
        of five epochs.
    data : mapping of str to path, optional
        ``animal-part``, its folder: mosaics of its crops as well, of which relatives are kept apart.
    seed : int
        The first seed of the trainings, and that of what is drawn.
    device : str
        Where to compute.
    cache : path, optional
        A folder in which maps, trainings and figures are kept, and from which one goes on.
    """
    size = QUICK if quick else FULL
    where = resolve_device(device)
    network = load_network(NETWORK, device=where, seed=seed)
    rows = set_rows(network, "articulated", *drawn_images(size, seed), size, seed, where, cache)
    if data and KIND in data:
        train, test = photographs(data[KIND], size, seed)
        rows += set_rows(network, KIND, train, test, size, seed, where, cache)
    return rows


def drawn_images(size: Size, seed: int) -> tuple[ObjectImages, ObjectImages]:
    """Return drawn images to train and to test on; no settings were chosen on these seeds."""
    train, test = (
        whole_images(articulated_images(n, seed=1000 + 2 * seed + part, side=224, categories=CATEGORIES), 224)
        for part, n in enumerate((size.train, size.test))
    )
    return held(train), held(test)


def photographs(folder: Path, size: Size, seed: int) -> tuple[ObjectImages, ObjectImages]:
    """Return mosaics to train and to test on, of different photographs; annotated crops are among those tested on."""
    train, test = split_by_groups(read_annotated(KIND, folder), (0.5, 0.5), seed=seed)
    return (
        held(mosaics(some(train, size.crops[0], seed), seed=seed, mirrored=True)),
        held(mosaics(some(test, size.crops[1], seed), seed=seed)),
    )


def some(images: PartImages, count: int, seed: int) -> PartImages:
    """Return so many crops, those with annotated parts first, and all negatives."""
    rng = np.random.default_rng(seed)
    crops = rng.permutation(np.flatnonzero(images.categories >= 0))
    told = images.annotated[crops].any(axis=1)
    chosen = np.concatenate([crops[told], crops[~told]])[:count]
    return images.subset(np.sort(np.concatenate([chosen, np.flatnonzero(images.categories < 0)])))


def held(images: ObjectImages) -> ObjectImages:
    """Return the set with its pictures kept in memory."""
    return dataclasses.replace(images, load=lru_cache(maxsize=1000)(images.load))


def set_rows(
    network: Network,
    kind: str,
    train: ObjectImages,
    test: ObjectImages,
    size: Size,
    seed: int,
    device: torch.device,
    cache: Path | None,
) -> list[Row]:
    """Train and measure on one set of images, for every seed, and return its rows."""
    settings = Settings(epochs=size.epochs)
    home = None if cache is None else cache / kind
    maps: list[MappedImages] = []
    figures = []
    for one in range(seed, seed + size.seeds):
        kept = None if home is None else home / f"seed-{one}.json"
        if kept is not None and kept.is_file():
            found = json.loads(kept.read_text(encoding="utf-8"))
            if found["settings"] == asdict(settings):
                figures.append(found)
                continue
        if not maps:
            maps = [
                map_images(network, images, LAYER, None if home is None else home / "maps")
                for images in (train, test)
            ]
        detectors, _ = train_detectors(
            maps[0], settings, seed=one, device=device, folder=None if home is None else home / f"seed-{one}"
        )
        figures.append(measured(compare(detectors, maps[1])) | {"settings": asdict(settings)})
        if kept is not None:
            write_json(kept, figures[-1])
    told = f"{train.name}, {len(train)} training and {len(test)} test images with {test.n_objects} objects"
    return rows_of(figures, told, seed)


def measured(found: Comparison) -> dict[str, object]:
    """Return the figures of one seed."""
    figures: dict[str, object] = {
        "recall": found.recall,
        "proposed": found.proposed,
        "tiles": found.used,
        "constant": found.tracking[NODES].mean_best_constant,
    }
    for kind, score in found.scores.items():
        figures[f"{kind} AP50"], figures[f"{kind} AP"] = score.mean(0.5), score.mean()
        figures[f"{kind} draws"] = score.draws(0.5).tolist()
    for name, one in found.tracking.items():
        values = pairs(one)
        figures[f"{name} best"] = one.best_tracking_r2
        figures[f"{name} best of parts"] = float(np.nanmean(one.best_tracking()[1]))
        figures[f"{name} median"] = float(np.nanmedian(values)) if values.size else float("nan")
        figures[f"{name} instability"] = one.mean_instability
    return figures


def rows_of(figures: list[dict[str, object]], told: str, seed: int) -> list[Row]:
    """Return the rows of one set of images from the figures of its seeds."""

    def values(name: str) -> np.ndarray:
        return np.array([found[name] for found in figures], dtype=float)

    def mean(name: str) -> float:
        return float(values(name).mean())

    system = f"parsing head on {NETWORK} {LAYER}"
    common = {"data": told, "seed": seed}
    trainings = f"mean of {len(figures)} trainings" if len(figures) > 1 else "one training"
    differences = np.mean(
        [values("parsing draws")[i] - values("plain draws")[i] for i in range(len(figures))], 0
    )
    low, high = np.quantile(differences, [0.025, 0.975])
    rows = [
        Row(
            system=system, name="AP at overlap 0.5", value=mean("parsing AP50"), baseline=mean("plain AP50"),
            interval=mean_interval(values("parsing AP50")),
            notes=f"{trainings}; baseline: the plain head on the same boxes and features", **common,
        ),
        Row(
            system=system, name="AP over overlaps 0.5 to 0.95", value=mean("parsing AP"),
            baseline=mean("plain AP"), interval=mean_interval(values("parsing AP")),
            notes=f"{trainings}; baseline: the plain head", **common,
        ),
        Row(
            system=system, name="difference of AP at overlap 0.5, parsing less plain",
            value=mean("parsing AP50") - mean("plain AP50"), interval=(float(low), float(high)), reference=BAR,
            source=SOURCE, notes=f"{trainings}; interval over test images drawn anew, the same for both; {ARTICLE}",
            **common,
        ),
        Row(
            system="proposed boxes", name="recall at overlap 0.5", value=mean("recall"),
            notes=f"{mean('proposed'):.0f} an image: sliding boxes after one step of regression, for both heads",
            **common,
        ),
        Row(
            system=system, name="tiles of a best parse", value=mean("tiles"), notes="in true boxes", **common
        ),
    ]  # fmt: skip
    for measure, what in (
        ("best", "tracking R² of the best"),
        ("best of parts", "tracking R² by part, of the best, mean"),
        ("median", "tracking R² of the median"),
    ):
        rows += [
            Row(
                system=who, name=what, value=mean(f"{name} {measure}"),
                baseline=mean(f"{TRUNK} {measure}") if name != TRUNK else 0.0,
                interval=mean_interval(values(f"{name} {measure}")) if name != TRUNK else None,
                notes="in true boxes; baseline: a place that stands still in the box" if name == TRUNK
                else f"{trainings}, in true boxes; baseline: the trunk's filters on the same objects; a place that "
                "stands still in the box has 0", **common,
            )
            for who, name in (
                (f"parse nodes, {system}", NODES),
                (f"filters of the plain head, {LAYER}", PLAIN),
                (f"filters of the trunk, {LAYER}", TRUNK),
            )
        ]  # fmt: skip
    rows.append(
        Row(
            system=f"parse nodes, {system}", name="location instability", value=mean(f"{NODES} instability"),
            baseline=mean("constant"), reference=mean(f"{TRUNK} instability"),
            source="the trunk's filters on the same objects",
            notes=f"{trainings}; baseline: the best constant place in the box", **common,
        )
    )  # fmt: skip
    return rows
