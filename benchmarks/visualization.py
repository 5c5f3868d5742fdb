"""Visualization of a trained network: activations reached, inversions, decoders, generation, fields, projections."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from cnn_interp.images.photographs import Photographs
from cnn_interp.images.reading import read
from cnn_interp.networks.loading import load_network
from cnn_interp.networks.network import Network
from cnn_interp.visualization.activation_maximization import maximize_activation
from cnn_interp.visualization.decoder import train_decoder
from cnn_interp.visualization.deconvnet_projection import project, sufficiency
from cnn_interp.visualization.empirical_fields import empirical_receptive_fields
from cnn_interp.visualization.inversion import invert
from cnn_interp.visualization.plug_and_play import generate, train_prior
from cnn_interp.visualization.top_patches import UnitPatches, top_patches
from interpretkit.bench.evidence import Row
from interpretkit.training import numpy_generator

BUNDLED_NOTE = "twelve photographs of scikit-image stand in for photographs of ImageNet's classes"
# Zebra, espresso, goldfish, lighthouse: one each of animal, food, fish and building.
CLASSES = (340, 967, 1, 437)


def run(
    quick: bool = True, data: Mapping[str, Path] | None = None, *, seed: int = 0, device: str = "auto"
) -> Iterator[Row]:
    """Yield the rows of evidence on the visualization systems.

    Parameters
    ----------
    quick : bool
        Fewer steps, images and units.
    data : mapping of str to path, optional
        ``imagenet-sample``, an npz of JPEGs; else the photographs that come with scikit-image.
    seed : int
        Of all randomness.
    device : str
        Where to compute.
    """
    network = load_network("mobilenet_v2", device=device)
    path = (data or {}).get("imagenet-sample")
    if path is None:
        photographs = Photographs.bundled()
        on, note = "12 photographs of scikit-image", BUNDLED_NOTE
    else:
        everything = Photographs.of_dataset(read("imagenet-sample", path))
        count = 160 if quick else len(everything)
        order = numpy_generator(seed, "photographs").permutation(len(everything))[:count]
        photographs = everything.subset(sorted(order))
        on, note = f"{len(photographs)} ImageNet sample photographs", ""
    yield from maximization(network, photographs, on, note, quick, seed)
    yield from inversions(network, photographs, on, note, quick, seed)
    yield from decoders(network, photographs, on, note, quick, seed)
    yield from plug_and_play(network, photographs, on, note, quick, seed)
    yield from units(network, photographs, on, note, quick, seed)


def maximization(
    network: Network, photographs: Photographs, on: str, note: str, quick: bool, seed: int
) -> Iterator[Row]:
    """Compare the activations of images made with those of the best photographs."""
    steps = 48 if quick else 256
    asked = (("classes", None, CLASSES), ("channels of features.13", "features.13", (3, 20, 50, 77)))
    for what, layer, channels in asked:
        found = maximize_activation(
            network, channels, layer=layer, steps=steps, photographs=photographs, seed=seed
        )
        assert found.best_photograph is not None
        yield Row(
            system="activation maximization, mobilenet_v2",
            data=f"{len(channels)} {what}; best of {on}",
            name=f"mean {'logit' if layer is None else 'activation'} reached",
            value=float(found.reached.mean()),
            baseline=float(found.best_photograph.mean()),
            seed=seed,
            stand_in=bool(note),
            notes=f"{steps} steps; the baseline is the best photograph of each, noise of a natural spectrum reaches "
            f"{found.noise.mean():.2g}" + (f"; {note}" if note else ""),
        )


def inversions(
    network: Network, photographs: Photographs, on: str, note: str, quick: bool, seed: int
) -> Iterator[Row]:
    """Invert layers, and compare the error with that of other photographs."""
    rows = range(1 if quick else 8)
    steps = 100 if quick else 300
    layers = ("features.3", "features.10", "features.17")
    found = invert(
        network, photographs.inputs(network, rows), layers, steps=steps, photographs=photographs, seed=seed
    )
    for layer in layers:
        yield Row(
            system=f"inversion of {layer}, mobilenet_v2",
            data=f"{len(rows)} of {on}",
            name="error of the layer's output, relative to its norm",
            value=float(found.error[layer].mean()),
            baseline=found.other_photographs[layer],
            seed=seed,
            stand_in=bool(note),
            notes=f"{steps} steps; the baseline is another photograph" + (f"; {note}" if note else ""),
        )


def decoders(
    network: Network, photographs: Photographs, on: str, note: str, quick: bool, seed: int
) -> Iterator[Row]:
    """Train decoders, and test them on photographs that they have not seen."""
    for layer in ("features.6", "features.17"):
        started = time.perf_counter()
        found = train_decoder(
            network,
            layer,
            photographs,
            images=192 if quick else 2000,
            epochs=6 if quick else 20,
            seed=seed,
        )
        yield Row(
            system=f"up-convolutional decoder of {layer}, mobilenet_v2",
            data=f"{found.n_held_out} pieces of held-out photographs, of {on}",
            name="mean square error of pixels in 0 … 1",
            value=found.error,
            baseline=found.mean_image_error,
            seed=seed,
            stand_in=bool(note),
            notes=f"trained on {found.n_train} pieces in {time.perf_counter() - started:.0f} s; the baseline is the "
            "mean of the training pieces" + (f"; {note}" if note else ""),
        )


def plug_and_play(
    network: Network, photographs: Photographs, on: str, note: str, quick: bool, seed: int
) -> Iterator[Row]:
    """Generate with and without the prior."""
    prior = train_prior(photographs, epochs=4 if quick else 20, device=network.device, seed=seed)
    steps = 60 if quick else 200
    found = generate(network, CLASSES[:2] if quick else CLASSES, prior, steps=steps, seed=seed)
    common = {
        "system": "plug & play generation, mobilenet_v2",
        "data": f"{len(found.targets)} classes; prior of {on}",
        "seed": seed,
        "stand_in": bool(note),
    }
    ending = f"; {note}" if note else ""
    yield Row(
        **common,
        name="mean square error of the prior on held-out pieces",
        value=prior.error,
        baseline=prior.noise_error,
        notes="the baseline is the noise itself" + ending,
    )
    yield Row(
        **common,
        name="mean probability of the class",
        value=float(found.probability.mean()),
        baseline=float(found.probability_without_prior.mean()),
        notes=f"{steps} steps; the baseline is the walk without the prior" + ending,
    )
    yield Row(
        **common,
        name="mean square distance of an image from its restoration by the prior",
        value=float(found.distance.mean()),
        baseline=float(found.distance_without_prior.mean()),
        notes=f"photographs have {prior.distance:.2g}; the baseline is the walk without the prior" + ending,
    )


def units(
    network: Network, photographs: Photographs, on: str, note: str, quick: bool, seed: int
) -> Iterator[Row]:
    """Search for patches, project them back, and measure receptive fields."""
    ending = f"; {note}" if note else ""
    layer = "features.6"
    started = time.perf_counter()
    found = top_patches(network, layer, photographs, units=range(8), k=5, seed=seed)
    seconds = time.perf_counter() - started
    common = {"seed": seed, "stand_in": bool(note)}
    yield Row(
        **common,
        system=f"top patches of {layer}, mobilenet_v2",
        data=on,
        name="photographs searched in a second, all channels at once",
        value=len(photographs) / seconds,
        unit="1/s",
        notes=f"on {network.device.type}, reading and scaling included" + ending,
    )
    projections = project(network, photographs, found, seed=seed)
    left = sufficiency(network, photographs, projections, seed=seed)
    yield Row(
        **common,
        system=f"deconvnet projections of {layer}, mobilenet_v2",
        data=f"the 5 strongest patches of 8 units, {on}",
        name=f"share of the activation left by the {left.share:.0%} of the pixels projected to",
        value=float(np.nanmean(left.projected)),
        baseline=float(np.nanmean(left.random)),
        notes=f"the baseline is blots at random within the field; its middle leaves {np.nanmean(left.centred):.2f}"
        + ending,
    )
    for name in ("features.3", "features.6"):
        patches = found if name == layer else top_patches(network, name, photographs, units=range(8), k=5)
        few = _first(patches, 2 if quick else 8, 3 if quick else 5)
        fields = empirical_receptive_fields(network, photographs, few, seed=seed)
        theoretical = fields.theoretical.size[0]
        yield Row(
            **common,
            system=f"empirical receptive fields of {name}, mobilenet_v2",
            data=f"{len(few.units)} units, top {few.images.shape[1]} of {on}",
            name="side of the field that is used",
            value=float(np.nanmean(fields.sizes)),
            unit="px",
            baseline=theoretical,
            notes=f"the baseline is the theoretical field; the mean ratio is {np.nanmean(fields.ratios):.2f}; the "
            f"occluder of {fields.occluder} px is the least that can be measured" + ending,
        )


def _first(patches: UnitPatches, count: int, k: int) -> UnitPatches:
    few = np.s_[:count, :k]
    return UnitPatches(
        patches.layer, patches.units[:count], patches.values[few], patches.images[few], patches.positions[few],
        patches.boxes[few], patches.field, patches.n_images,
    )  # fmt: skip
