"""Network dissection: concepts that units of a trained network detect, beside the same network with random weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from cnn_interp.images.batches import ConceptBatches, held_if_few
from cnn_interp.images.broden import read_broden
from cnn_interp.images.composed import composed_concepts
from cnn_interp.images.concept_images import ConceptImages
from cnn_interp.metrics.dissection import Batch, Dissection, dissect
from cnn_interp.networks.loading import load_network
from interpretkit.bench.evidence import Row

NETWORK = "mobilenet_v2"
LAYERS = ("features.14", "features.17", "features.18")
PUBLISHED = "Bau and others, Network Dissection, CVPR 2017: AlexNet, ImageNet 61 and random 2"
BAR = "docs/metrics.md, dissection"
RANDOM_DRAWS = 3
OTHERS = (
    "MobileNetV2 stands in for AlexNet; AlexNet's 61 detectors with ImageNet's weights and 2 with random ones were "
    "counted on Broden's 63 305 images of 1197 concepts"
)


def run(
    quick: bool = True, data: Mapping[str, Path] | None = None, seed: int = 0, device: str = "cpu"
) -> list[Row]:
    """Return the rows of evidence on network dissection.

    Parameters
    ----------
    quick : bool
        200 images of the composed set, else 2000; 1000 images of Broden, else all; one draw of random weights,
        else three.
    data : mapping of str to path, optional
        ``broden``, a folder in Broden's format; the composed concepts are dissected anyway.
    seed : int
        Of the composed images, and the first of the random weights.
    device : str
        Where to compute.
    """
    composed = composed_concepts(200 if quick else 2000, seed=seed)
    n_draws = 1 if quick else RANDOM_DRAWS
    rows = compare(
        composed, f"{len(composed)} composed images, {len(composed.labels)} concepts", seed, n_draws, device
    )
    if data and "broden" in data:
        broden = read_broden(data["broden"])
        if quick:
            broden = broden.subset(np.linspace(0, len(broden) - 1, min(1000, len(broden))).astype(np.intp))
        rows += compare(
            broden, f"{len(broden)} images of Broden, {len(broden.labels)} concepts", seed, n_draws, device
        )
    return rows


def compare(images: ConceptImages, described: str, seed: int, n_draws: int, device: str) -> list[Row]:
    """Dissect the network with trained and with several draws of random weights."""
    network = load_network(NETWORK, device=device, seed=seed)
    batches = held_if_few(ConceptBatches(network, images))
    trained = dissected(images, batches, "pretrained", seed, device)
    draws = [dissected(images, batches, "random", seed + draw, device) for draw in range(n_draws)]
    rows = []
    for layer in LAYERS:
        counts = [unique(draw[layer]) for draw in draws]
        random = float(np.mean(counts))
        shown = ", ".join(map(str, counts))
        note = f"{OTHERS}; baseline: random weights, seeds {seed} to {seed + n_draws - 1}: {shown}"
        common = {"data": described, "seed": seed}
        rows += [
            Row(
                system=f"{NETWORK} {layer}, ImageNet",
                name="unique detectors, summed over categories",
                value=unique(trained[layer]),
                baseline=random,
                reference=61,
                source=PUBLISHED,
                stand_in=True,
                notes=note,
                **common,
            ),
            Row(
                system=f"{NETWORK} {layer}, ImageNet",
                name="unique detectors, best category of each unit",
                value=sum(trained[layer].unique_detectors("best").values()),
                baseline=float(
                    np.mean([sum(draw[layer].unique_detectors("best").values()) for draw in draws])
                ),
                notes="baseline: mean of random weights",
                **common,
            ),
            Row(
                system=f"{NETWORK} {layer}",
                name="unique detectors, trained over random weights",
                value=unique(trained[layer]) / max(random, 1.0),
                reference=5.0,
                source=BAR,
                notes="fewer images leave more to chance: random units match rare concepts in a few images",
                **common,
            ),
        ]
    return rows


def dissected(
    images: ConceptImages, batches: Iterable[Batch], weights: str, seed: int, device: str
) -> Mapping[str, Dissection]:
    """Return the dissection of all layers with some weights."""
    network = load_network(NETWORK, weights=weights, device=device, seed=seed)
    return dissect(network.module, LAYERS, batches, images.labels)


def unique(dissection: Dissection) -> int:
    """Return the number of unique detectors, summed over categories."""
    return sum(dissection.unique_detectors().values())
