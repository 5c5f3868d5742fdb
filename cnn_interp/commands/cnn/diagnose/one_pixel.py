"""Images on which a network is fooled by one pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.commands._loading import (
    check_given,
    check_small_data,
    classifier,
    images_as_pixels,
    small_pictures,
)
from cnn_interp.commands._options import Convert, Images, Model, SmallData, Weights
from interpretkit.commandline import Column, Device, Finding, Quiet, Seed, command
from interpretkit.runs.formatting import format_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cnn_interp.diagnosis.attacks import Attack
    from cnn_interp.diagnosis.pictures import Naming
    from cnn_interp.diagnosis.small_network import Pictures, SmallNetwork

_COLUMNS = {
    "image": Column("the image attacked"),
    "label": Column("its label, or what the network says of it where there is none"),
    "says then": Column("what the network says of the changed image"),
    "probability": Column("how sure it is of that", format=".1%"),
    "fooled": Column("whether it was right before and is not then"),
    "right before": Column("whether it was right before"),
    "network runs": Column("how often the network ran"),
}


@command(
    out="one-pixel",
    example=[
        "interpretkit cnn diagnose one-pixel",
        "interpretkit cnn diagnose one-pixel --data cifar10=cifar10.npz --population 400 --generations 75",
        "interpretkit cnn diagnose one-pixel cat.jpg --model mobilenet_v2 --population 60 --generations 5",
    ],
)
def one_pixel(
    images: Images = None,
    network: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    data: SmallData = "digits",
    test_images: Annotated[
        int, typer.Option("--test-images", min=1, help="Images of the data to attack.")
    ] = 40,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Of the small network's training.")] = 6,
    pixels_changed: Annotated[int, typer.Option("--pixels", min=1, help="How many pixels may change.")] = 1,
    population: Annotated[
        int, typer.Option("--population", min=5, help="Of the evolution; 400 in the article.")
    ] = 100,
    generations: Annotated[
        int, typer.Option("--generations", min=1, help="Of the evolution; 75 in the article.")
    ] = 20,
    convert: Convert = False,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> Finding:
    """Fool a network by one pixel, found by differential evolution.

    With images, the named network is attacked on them. Without, a small network is trained on small images, where a
    pixel weighs more, and attacked on test images that it has right.
    """
    check_given(images, convert)
    if not images:
        check_small_data(data)
    from cnn_interp.diagnosis.one_pixel import one_pixel as attack_by_pixel
    from cnn_interp.diagnosis.small_network import binomial_interval

    accuracy: float | None = None
    model: Any = None
    if images:
        model = classifier(network, weights, device, seed)
        pixels, names, files = images_as_pixels(model, images, convert)
        labels, category, attacked = None, model.category, network
    else:
        pictures, files = small_pictures(data)
        pixels, labels = pictures.test[:test_images], pictures.test_labels[:test_images]
        names = [f"test image {row}" for row in range(len(pixels))]
        category, attacked = pictures.categories.__getitem__, f"a small network on {pictures.name}"
        model, accuracy = _trained(pictures, epochs, seed, device, quiet)
    attack = attack_by_pixel(
        model,
        pixels,
        labels,
        pixels_changed=pixels_changed,
        population=population,
        generations=generations,
        images_per_forward=32 if images else 128,
        seed=seed,
        quiet=quiet,
    )
    fair = int(attack.fair.sum())
    rate = attack.success_rate if fair else None
    interval = binomial_interval(attack.success_rate, fair) if fair else None

    found = Finding(
        f"{'One pixel' if pixels_changed == 1 else f'Up to {pixels_changed} pixels'} against {attacked}",
        (
            f"{format_number(rate, format='.0%')} of the images that it had right ({fair}) are fooled. "
            if fair
            else "It had no image right, so that there was none to be fooled. "
        )
        + "The place and the colour are found by differential evolution, from the network's outputs alone.",
    ).reads(*files)
    found.number(
        "success_rate",
        rate,
        "fooled",
        format=".0%",
        note=f"of {fair} image{'s' * (fair != 1)} that it had right",
    )
    found.number("interval", interval, "95 % interval of fooled", format=".0%")
    found.number("accuracy", accuracy, "accuracy", format=".1%", note="on all test images")
    found.number(
        "runs_per_image",
        int(attack.evaluations.double().mean()),
        "network runs per image",
        note="with early stop",
    )
    found.values["attacked"] = fair
    found.section(
        "The images", "Those that were enough, the changed pixel circled; if none was, some that withstood."
    ).figure("attacks.png", _sheet(attack, category), "Label before → after, with probabilities.")
    found.section(
        "All attacks",
        "For comparison: of a residual network with 92.3 % on CIFAR-10, Su and others fooled 34 % of the images "
        "with a population of 400 and 75 generations.",
    ).table("attacks.csv", _rows(attack, names, category), _COLUMNS, most=200)
    found.next_step(
        "Change every pixel by a little instead:",
        "interpretkit cnn diagnose adversarial --model",
        network,
        *(images or ())[:1],
    )
    return found.arrays("attacks.npz", originals=attack.originals.numpy(), perturbed=attack.perturbed.numpy())


def _trained(
    pictures: Pictures, epochs: int, seed: int, device: str, quiet: bool
) -> tuple[SmallNetwork, float]:
    """Return a small network trained on pictures, and its accuracy on those to test on."""
    from cnn_interp.diagnosis.small_network import SmallNetwork, accuracy, train_network
    from interpretkit.training import resolve_device

    model = SmallNetwork(pictures.train.shape[1], len(pictures.categories), seed=seed)
    model.to(resolve_device(device))
    train_network(model, pictures.train, pictures.train_labels, epochs=epochs, seed=seed, quiet=quiet)
    return model, accuracy(model, pictures.test, pictures.test_labels)


def _sheet(attack: Attack, name: Naming, most: int = 15) -> Figure:
    """Draw images that one pixel was enough for, the pixel circled; without any, some that withstood."""
    import numpy as np
    from matplotlib.patches import Circle

    from cnn_interp.diagnosis.pictures import say, show, verdict
    from interpretkit.visualization import new_figure, style

    shown = np.flatnonzero((attack.succeeded & attack.fair).numpy())
    withstood = not len(shown)
    shown = (np.flatnonzero(attack.fair.numpy()) if withstood else shown)[:most]
    columns = 5
    lines = max(1, -(-len(shown) // columns))
    with style():
        figure = new_figure(2.1 * columns, 2.6 * lines)
        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for place in axes:
            place.axis("off")
        for place, row in zip(axes, shown, strict=False):
            place.axis("on")
            show(place, attack.perturbed[row])
            for down, right in attack.difference[row].abs().amax(0).nonzero().tolist():
                radius = 0.09 * attack.perturbed.shape[-1]
                place.add_patch(Circle((right, down), radius, fill=False, color="#E69F00", linewidth=1.6))
            before, after = (verdict(values[row], name) for values in (attack.before, attack.after))
            say(place, f"{before}\n→ {after}", changed=not withstood)
    return figure


def _rows(attack: Attack, names: list[str], category: Naming) -> list[dict[str, Any]]:
    """Return a row for each image."""
    return [
        {
            "image": names[row],
            "label": category(int(attack.labels[row])),
            "says then": category(int(attack.after[row].argmax())),
            "probability": float(attack.after[row].max()),
            "fooled": bool(attack.succeeded[row] & attack.fair[row]),
            "right before": bool(attack.fair[row]),
            "network runs": int(attack.evaluations[row]),
        }
        for row in range(len(names))
    ]
