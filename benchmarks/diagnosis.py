"""Questioning a network: adversarial images, one pixel, units and directions, transfer, features, bias."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cnn_interp.diagnosis.adversarial import deepfool, minimal_perturbation, pgd
from cnn_interp.diagnosis.directions import compare_directions, rotated
from cnn_interp.diagnosis.feature_distributions import render_scenes, variance_shares
from cnn_interp.diagnosis.layer_features import (
    OUTPUT,
    layer_change,
    photographs_as_pixels,
    pooled_features,
    resize,
    stages,
)
from cnn_interp.diagnosis.one_pixel import one_pixel
from cnn_interp.diagnosis.representation_bias import (
    SCENE_ATTRIBUTES,
    attribute_scenes,
    find_bias,
    mine_relations,
)
from cnn_interp.diagnosis.small_network import (
    Pictures,
    SmallNetwork,
    accuracy,
    binomial_interval,
    digits,
    predict,
    read_cifar10,
    train_network,
)
from cnn_interp.diagnosis.transferability import TREATMENTS, linear_probes, transfer
from cnn_interp.images.files import photograph
from cnn_interp.images.jpeg_archive import read_jpeg_archive
from cnn_interp.networks.loading import load_network
from cnn_interp.networks.network import Network
from interpretkit.bench.evidence import Row
from interpretkit.disentanglement.datasets import SHAPES3D

PHOTOGRAPHS = ("chelsea", "coffee", "rocket", "astronaut", "motorcycle_left")
PLANTED = ("warm wall", "round")
SU = "Su, Vargas and Sakurai 2019 (arXiv 1710.08864), ResNet on CIFAR-10, untargeted"
HALF = "docs/diagnosis.md: one half, no difference"


def run(quick: bool = True, data: Mapping[str, Path] | None = None, seed: int = 0) -> Iterator[Row]:
    """Yield the rows of evidence on the checks that question a network.

    Parameters
    ----------
    quick : bool
        Fewer images, shorter trainings and smaller populations than the articles'; each row says which.
    data : mapping of str to path, optional
        ``imagenet-sample`` and ``cifar10``, npz files of JPEGs. Without them scikit-image's photographs, rendered
        scenes and scikit-learn's digits serve.
    seed : int
        Of all randomness.
    """
    given = data or {}
    network = load_network()
    yield from adversarial(network, given, quick, seed)
    yield from pixel(given, quick, seed)
    yield from units(network, given, quick, seed)
    yield from transferred(given, quick, seed)
    yield from factors(network, seed)
    yield from bias(quick, seed)


def photographs(network: Network, data: Mapping[str, Path], count: int) -> tuple[Tensor, Tensor, str]:
    """Return photographs as pixels, their labels, and what they are; only those that the network has right."""
    if "imagenet-sample" in data:
        images = read_jpeg_archive(data["imagenet-sample"])
        # Two of three are right at the first guess, so that twice as many are looked at.
        places = np.linspace(0, len(images) - 1, 2 * count).round().astype(int)
        pixels = photographs_as_pixels(
            network, [Image.fromarray(images.image(int(place))) for place in places]
        )
        labels = torch.from_numpy(images.labels[places])
        right = predicted(network, pixels) == labels
        chosen = right.nonzero()[:count, 0]
        return (
            pixels[chosen],
            labels[chosen],
            f"{len(chosen)} ImageNet photographs that the network has right",
        )
    pixels = photographs_as_pixels(network, [photograph(name) for name in PHOTOGRAPHS])
    return pixels, predicted(network, pixels), f"{len(PHOTOGRAPHS)} photographs of scikit-image, own labels"


def predicted(network: Network, pixels: Tensor) -> Tensor:
    """Return the network's categories of pixels ``(n,)``."""
    outputs = pooled_features(network, pixels, [OUTPUT])[OUTPUT]
    return torch.from_numpy(outputs.argmax(1))


def adversarial(network: Network, data: Mapping[str, Path], quick: bool, seed: int) -> Iterator[Row]:
    """Attack a pretrained network, and follow perturbations through its layers."""
    pixels, labels, on = photographs(network, data, 8 if quick else 100)
    steps = 5 if quick else 20
    for part in (1, 2, 8):
        attack = pgd(network, pixels, labels, epsilon=part / 255, steps=steps, seed=seed)
        yield Row(
            system="mobilenet_v2, PGD",
            data=on,
            name=f"fooled within {part}/255 of every value",
            value=attack.success_rate,
            interval=binomial_interval(attack.success_rate, int(attack.fair.sum())),
            baseline=_fooled_by_noise(network, attack.originals, attack.l2, labels, seed),
            seed=seed,
            notes=f"{steps} steps; the baseline is noise of the same Euclidean length",
        )
    quick_way = deepfool(network, pixels, labels, seed=seed)
    few = 2 if quick else 20
    halvings, iterations = (2, 10) if quick else (4, 15)
    smallest = minimal_perturbation(
        network, pixels[:few], labels[:few], search_steps=halvings, iterations=iterations, seed=seed
    )
    for name, attack in (("DeepFool", quick_way), ("L-BFGS (Szegedy)", smallest)):
        yield Row(
            system=f"mobilenet_v2, {name}",
            data=on if attack is quick_way else f"the first {few} of them",
            name="median length of the smallest perturbation, L2 of pixels in 0 … 1",
            value=float(attack.l2.median()),
            baseline=None if attack is quick_way else float(quick_way.l2[:few].median()),
            seed=seed,
            notes=f"{attack.success_rate:.0%} fooled; "
            f"{float(attack.evaluations.double().mean()):.0f} network runs an image"
            + (
                ""
                if attack is quick_way
                else f", {iterations} iterations for each of its weights; the baseline is DeepFool on the same images"
            ),
        )
    change = layer_change(network, quick_way, seed=seed)
    logs = np.log(change.amplification)
    for place in (len(change.layers) // 2, len(change.layers) - 2, len(change.layers) - 1):
        middle, half = logs[:, place].mean(), 1.96 * logs[:, place].std(ddof=1) / np.sqrt(len(logs))
        yield Row(
            system="mobilenet_v2, DeepFool",
            data=on,
            name=f"times further than noise of the same length, {change.layers[place]}",
            value=float(np.exp(middle)),
            interval=(float(np.exp(middle - half)), float(np.exp(middle + half))),
            baseline=1.0,
            seed=seed,
            notes="geometric mean",
        )


def _fooled_by_noise(network: Network, clean: Tensor, lengths: Tensor, labels: Tensor, seed: int) -> float:
    from cnn_interp.diagnosis.layer_features import noise_of_length

    noisy = clean + noise_of_length(clean, lengths, seed)
    return float((predicted(network, noisy) != labels).double().mean())


def small_pictures(data: Mapping[str, Path]) -> Pictures:
    """Return CIFAR-10 if it is given, else handwritten digits."""
    return read_cifar10(data["cifar10"]) if "cifar10" in data else digits()


def pixel(data: Mapping[str, Path], quick: bool, seed: int) -> Iterator[Row]:
    """Attack a small network, trained here, by one pixel."""
    pictures = small_pictures(data)
    trained_on = pictures.limited(300 if quick else 10**6, 10**6)
    model = SmallNetwork(pictures.train.shape[1], len(pictures.categories), (16, 32, 64), seed=seed)
    train_network(model, trained_on.train, trained_on.train_labels, epochs=4 if quick else 15, seed=seed)
    share = accuracy(model, pictures.test, pictures.test_labels)
    right = (predict(model, pictures.test).argmax(1) == pictures.test_labels).nonzero()[:, 0]
    generator = torch.Generator().manual_seed(seed)
    chosen = right[torch.randperm(len(right), generator=generator)[: 20 if quick else 100]]
    population, generations = (100, 15) if quick else (400, 75)
    attack = one_pixel(
        model,
        pictures.test[chosen],
        pictures.test_labels[chosen],
        population=population,
        generations=generations,
        seed=seed,
    )
    yield Row(
        system="small network trained here, one pixel",
        data=f"{len(chosen)} test images that it has right, {pictures.name}",
        name="fooled",
        value=attack.success_rate,
        interval=binomial_interval(attack.success_rate, len(chosen)),
        reference=0.34,
        source=SU,
        seed=seed,
        stand_in=True,
        notes=f"{len(trained_on.train)} training images, accuracy {share:.3f} in place of 0.923; "
        f"population {population}, {generations} generations in place of 400 and 75",
    )


def units(network: Network, data: Mapping[str, Path], quick: bool, seed: int) -> Iterator[Row]:
    """Compare units with random directions, and with units of a rotated basis."""
    if "imagenet-sample" in data:
        images = read_jpeg_archive(data["imagenet-sample"])
        places = np.linspace(0, len(images) - 1, 200 if quick else 1000).round().astype(int)
        pixels = photographs_as_pixels(
            network, [Image.fromarray(images.image(int(place))) for place in places]
        )
        on, against = f"{len(places)} ImageNet photographs, likeness by the network's outputs", "reference"
        scenes = None
    else:
        rendered, scenes = render_scenes()
        pixels = resize(torch.from_numpy(rendered).permute(0, 3, 1, 2).float() / 255, 96)
        on, against = f"{len(rendered)} rendered scenes, attributes in common", "attributes"
    layers = stages(network.module, network.normalise(pixels[:1]), most=3)
    features = pooled_features(network, pixels, [*layers, OUTPUT])
    judged = features[OUTPUT] if scenes is None else scenes
    for layer in layers:
        found = compare_directions(features[layer], seed=seed, **{against: judged})  # type: ignore[arg-type]
        control = compare_directions(rotated(features[layer], seed), seed=seed, **{against: judged})  # type: ignore[arg-type]
        yield Row(
            system=f"mobilenet_v2, {layer}",
            data=on,
            name="probability that a unit's 9 strongest images are purer than a random direction's",
            value=found.superiority,
            interval=found.superiority_interval,
            baseline=control.superiority,
            reference=0.5,
            source=HALF,
            seed=seed,
            notes="the baseline is the same layer in a randomly rotated basis",
        )


def transferred(data: Mapping[str, Path], quick: bool, seed: int) -> Iterator[Row]:
    """Copy layers between halves of the categories, and read categories off a pretrained network's layers."""
    pictures = small_pictures(data).limited(100 if quick else 1000, 10**6)
    widths = (8, 16, 32) if quick else (16, 32, 64, 64)
    epochs, repeats = (12, 1) if quick else (20, 4)
    found = transfer(pictures, widths=widths, epochs=epochs, repeats=repeats, seed=seed)
    yield Row(
        system=f"network of {len(widths)} layers",
        data=f"half of the categories of {pictures.name}",
        name="accuracy, trained as a whole",
        value=found.base,
        seed=seed,
        notes=f"{repeats} split{'s' if repeats > 1 else ''} of the categories, {len(pictures.train)} training images, "
        f"{epochs} epochs",
    )
    for treatment in TREATMENTS:
        for depth in (1, len(widths)):
            values = found.accuracies(treatment, depth)
            yield Row(
                system=f"network of {len(widths)} layers, {treatment}",
                data=f"half of the categories of {pictures.name}",
                name=f"accuracy, {depth} layer{'s' if depth > 1 else ''} copied",
                value=float(values.mean()),
                baseline=found.base,
                seed=seed,
                notes=f"single splits {values.min():.3f} to {values.max():.3f}; the baseline is trained as a whole",
            )


def factors(network: Network, seed: int) -> Iterator[Row]:
    """Split the variance of a pretrained network's features into controlled factors, and probe its layers."""
    images, numbers = render_scenes()
    varied = [column for column in range(numbers.shape[1]) if len(np.unique(numbers[:, column])) > 1]
    names = [SHAPES3D.names[column] for column in varied]
    pixels = resize(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, 96)
    layers = stages(network.module, network.normalise(pixels[:1]), most=4)
    features = pooled_features(network, pixels, layers)
    in_pixels = variance_shares(images.reshape(len(images), -1) / 255.0, numbers[:, varied], names).shares
    for layer in (layers[1], layers[-1]):
        shares = variance_shares(features[layer], numbers[:, varied], names).shares
        for name in (*names, "residual"):
            yield Row(
                system=f"mobilenet_v2, {layer}",
                data=f"{len(images)} rendered scenes, all combinations",
                name=f"share of the variance: {name.replace('_', ' ')}",
                value=shares[name],
                baseline=in_pixels[name],
                notes="the baseline is the share in the pixels",
            )
    some = digits().limited(40, 1)
    shown = resize(some.train.expand(-1, 3, -1, -1), 64)
    probed = {"pixels": resize(some.train, 8).flatten(1).numpy(), **pooled_features(network, shown, layers)}
    probes = linear_probes(probed, some.train_labels.numpy(), seed=seed)
    for probe in probes[1:]:
        yield Row(
            system=f"mobilenet_v2, {probe.layer}, linear probe",
            data=f"{len(shown)} handwritten digits (scikit-learn), four folds",
            name="accuracy",
            value=probe.accuracy,
            interval=probe.interval,
            baseline=probes[0].accuracy,
            seed=seed,
            notes="the baseline is a linear classifier of the pixels",
        )


def bias(quick: bool, seed: int) -> Iterator[Row]:
    """Look for a planted bias, and for one where none was planted."""
    outputs = {name: number for number, name in enumerate(SCENE_ATTRIBUTES)}
    pixels = attribute_scenes(150, seed=seed + 100)[0]
    repeats = 2 if quick else 10
    first, planted, unplanted, false = 0, [], [], {"biased": 0, "control": 0}
    for repeat in range(repeats):
        for name, pair in (("biased", PLANTED), ("control", None)):
            scenes, present = attribute_scenes(800, bias=pair, seed=seed + repeat)
            model = SmallNetwork(3, len(outputs), (8, 16, 16), seed=seed + repeat)
            train_network(model, scenes, present, epochs=10, seed=seed + repeat)
            found = find_bias(mine_relations(model, pixels, outputs, "blocks.1", seed=seed))
            own = next(each for each in found if {each.first, each.second} == set(PLANTED))
            false[name] += sum(each.suspected for each in found if each is not own)
            if name == "biased":
                first += own is found[0] and own.suspected
                planted.append(own.divergence)
            else:
                false[name] += own.suspected
                unplanted.append(own.divergence)
    on = f"{repeats} networks trained on 800 rendered scenes, round things always before warm walls"
    yield Row(
        system="representation bias",
        data=on,
        name="planted pair suspected, and the most divergent of 15",
        value=first / repeats,
        interval=binomial_interval(first / repeats, repeats),
        baseline=1 / 15,
        seed=seed,
        notes="the baseline is chance",
    )
    yield Row(
        system="representation bias",
        data=on,
        name="mean divergence of the planted pair",
        value=float(np.mean(planted)),
        unit="nats",
        baseline=float(np.mean(unplanted)),
        seed=seed,
        notes="the baseline is the same pair in networks trained on scenes with independent attributes",
    )
    yield Row(
        system="representation bias",
        data=on,
        name="other pairs suspected, per network",
        value=false["biased"] / repeats,
        baseline=false["control"] / repeats,
        reference=0.0,
        source="none was planted",
        seed=seed,
        notes="the baseline is all pairs of networks trained on scenes with independent attributes",
    )
