"""Location instability, position tracking and part interpretability of ordinary networks, beside constant positions."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from cnn_interp.images.articulated import articulated_images
from cnn_interp.images.batches import landmarks_in_inputs, part_batches
from cnn_interp.images.part_images import PartImages
from cnn_interp.images.reading import read_parts
from cnn_interp.metrics.location_instability import (
    TOP,
    LocationInstability,
    Peaks,
    find_peaks,
    location_instability,
)
from cnn_interp.metrics.part_interpretability import part_interpretability
from cnn_interp.networks.loading import load_network
from cnn_interp.networks.network import Network
from interpretkit.bench.evidence import Row

# Layers with maps of 14 × 14 and 7 × 7.
LAYERS: Mapping[str, tuple[str, ...]] = {
    "mobilenet_v2": ("features.13", "features.18"),
    "efficientnet_lite0": ("_blocks.10", "_swish"),
}
KINDS = ("animal-part", "cub", "pascal-part")
CATEGORIES = ("quadruped", "bird", "person", "car")
BAR = "docs/metrics.md, location instability"
# What MobileNetV2 is expected to have on animal-part.
EXPECTED = {"features.13": 0.160, "features.18": 0.132}
ICNN = "Zhang, Wu, Zhu, Interpretable CNNs, CVPR 2018"
# Ordinary networks there, mean of AlexNet, VGG-16, VGG-M and VGG-S, and of part interpretability VGG-16's.
PUBLISHED = {"animal-part": 0.1455, "cub": 0.14575, "pascal-part": 0.13975}
PUBLISHED_PARTS = 0.495


@dataclass(frozen=True)
class Measured:
    """What was found of a layer."""

    result: LocationInstability
    even: float


def run(
    quick: bool = True, data: Mapping[str, Path] | None = None, seed: int = 0, device: str = "cpu"
) -> list[Row]:
    """Return the rows of evidence on where units of ordinary networks fire.

    Parameters
    ----------
    quick : bool
        200 generated images instead of 1200, and of data given at most 1000 images, evenly spread.
    data : mapping of str to path, optional
        ``animal-part``, ``cub``, ``pascal-part``: their folders; without any, generated images of articulated objects.
    seed : int
        Of the generated images and of random weights.
    device : str
        Where to compute.
    """
    given = {kind: data[kind] for kind in KINDS if data and kind in data}
    if not given:
        count = 200 if quick else 1200
        drawn = articulated_images(count, seed=seed, side=224, negatives=0.0, categories=CATEGORIES)
        return compare("articulated", drawn, seed, device)
    rows = []
    for kind, path in given.items():
        images = read_parts(kind, path)
        if quick and len(images) > 1000:
            images = images.subset(np.linspace(0, len(images) - 1, 1000).astype(np.intp))
        rows += compare(kind, images, seed, device)
    return rows


def compare(kind: str, images: PartImages, seed: int, device: str) -> list[Row]:
    """Measure all networks that are installed, with trained weights and, as a baseline of tracking, random ones."""
    rows: list[Row] = []
    described = f"{images.name}, {len(images)} images"
    for name, layers in LAYERS.items():
        if name == "efficientnet_lite0" and not importlib.util.find_spec("efficientnet_lite_pytorch"):
            continue
        network = load_network(name, device=device, seed=seed)
        inputs, with_masks = part_batches(network, images)
        trained = measure(network, layers, images, inputs)
        random = measure(
            load_network(name, weights="random", device=device, seed=seed), layers, images, inputs
        )
        for layer in layers:
            system = f"{name} {layer}, ImageNet"
            rows += location_rows(kind, system, layer, described, trained[layer], random[layer], seed)
        if images.has_masks:
            found = part_interpretability(network.module, layers, with_masks, categories=images.categories)
            rows += [
                Row(
                    system=f"{name} {layer}, ImageNet",
                    data=described,
                    name="part interpretability, mean over units",
                    value=found[layer].mean,
                    baseline=found[layer].mean_displaced,
                    reference=PUBLISHED_PARTS,
                    source=f"{ICNN}: VGG-16 for one category, VOC",
                    stand_in=True,
                    seed=seed,
                    notes="another network, trained for 1000 categories, on other images, and over all images with the "
                    "part, of which a unit is active in few; baseline: parts where another image has them",
                )
                for layer in layers
            ]
    return rows


def measure(
    network: Network, layers: tuple[str, ...], images: PartImages, inputs: Iterable[Tensor]
) -> dict[str, Measured]:
    """Return the location instability of each layer, and its mean if units were laid evenly over the image."""
    peaks = find_peaks(network.module, layers, inputs)
    landmarks = landmarks_in_inputs(images, network.size)
    found = {}
    for layer, peak in peaks.items():
        result = location_instability(
            peak.values,
            peak.positions,
            landmarks,
            peak.grid.image,
            categories=images.categories,
            category_names=images.category_names,
            part_names=images.part_names,
        )
        even = location_instability(
            peak.values, evenly(peak), landmarks, peak.grid.image, categories=images.categories
        )
        found[layer] = Measured(result, even.mean_instability)
    return found


def evenly(peak: Peaks) -> np.ndarray:
    """Return the strongest positions ``(n, units, 2)`` if the map's positions shared out the image, px."""
    shape = np.array(peak.grid.field.shape)
    stride = np.array(peak.grid.image) / shape
    return (np.stack(np.divmod(peak.places, shape[1]), axis=-1) + 0.5) * stride - 0.5


def location_rows(
    kind: str, system: str, layer: str, described: str, trained: Measured, random: Measured, seed: int
) -> list[Row]:
    """Return the rows of one layer."""
    result = trained.result
    expected = EXPECTED.get(layer) if kind == "animal-part" and system.startswith("mobilenet_v2") else None
    common = {"system": system, "data": described, "seed": seed}
    rows = [
        Row(
            name="location instability",
            value=result.mean_instability,
            baseline=result.mean_constant_centre,
            reference=PUBLISHED.get(kind, PUBLISHED["animal-part"]) if expected is None else expected,
            source=BAR
            if expected is not None
            else f"{ICNN}: ordinary networks of one category, mean of four",
            stand_in=expected is None,
            notes=f"top {TOP} images of each unit; baseline: a unit that always fires at the centre; with the units "
            f"laid evenly over the image {trained.even:.4f}; random weights {random.result.mean_instability:.4f}"
            + ("" if expected is not None else "; another network, not trained for one category"),
            **common,
        ),
        Row(
            name="location instability of the best constant position",
            value=result.mean_best_constant,
            notes="chosen on the images it is measured on",
            **common,
        ),
    ]
    best = result.best_tracking()[1]
    beside = random.result.best_tracking()[1]
    for c, category in enumerate(result.category_names):
        shown = np.flatnonzero(~np.isnan(best[c]))
        if len(shown) == 0 or len(result.category_names) > 20:
            continue
        # The head where there is one, as the part that most categories have.
        head = [p for p in shown if result.part_names[p] == "head"]
        p = int(head[0] if head else shown[best[c, shown].argmax()])
        rows.append(
            Row(
                name=f"best tracking R² of the {category}'s {result.part_names[p]}",
                value=float(best[c, p]),
                baseline=None if np.isnan(beside[c, p]) else float(beside[c, p]),
                notes="the best unit on these very images; 1 follows the part, 0 stands still; baseline: the best unit "
                "with random weights",
                **common,
            )
        )
    return rows
