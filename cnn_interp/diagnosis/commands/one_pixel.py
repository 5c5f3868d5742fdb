"""The command ``one-pixel``: images on which a network is fooled by one pixel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.diagnosis.commands.loading import (
    check_given,
    check_small_data,
    classifier,
    images_as_pixels,
    small_pictures,
)
from cnn_interp.diagnosis.commands.options import Images, SmallData
from cnn_interp.options import Convert, Model, Weights
from interpretkit.command import Device, Out, Quiet, Seed, command

if TYPE_CHECKING:
    from cnn_interp.diagnosis.small_network import Pictures, SmallNetwork


def register(app: typer.Typer) -> None:
    """Add the command to a group."""
    command(
        app,
        "one-pixel",
        example=[
            "interpretkit cnn diagnose one-pixel",
            "interpretkit cnn diagnose one-pixel --data cifar10=cifar10.npz --population 400 --generations 75",
            "interpretkit cnn diagnose one-pixel cat.jpg --model mobilenet_v2 --population 60 --generations 5",
        ],
    )(one_pixel)


def one_pixel(
    images: Images = None,
    out: Out = Path("one-pixel"),
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
) -> dict[str, Any]:
    """Fool a network by one pixel, found by differential evolution.

    With images, the named network is attacked on them. Without, a small network is trained on small images, where a
    pixel weighs more, and attacked on test images that it has right.
    """
    check_given(images, convert)
    if not images:
        check_small_data(data)

    from cnn_interp.diagnosis.one_pixel import one_pixel as attack_by_pixel
    from cnn_interp.diagnosis.reports import one_pixel as shown
    from cnn_interp.diagnosis.reports.page import save_page
    from cnn_interp.diagnosis.small_network import binomial_interval
    from interpretkit.results import run_folder

    arguments = {
        "images": [str(path) for path in images or ()], "network": network, "weights": weights, "data": data,
        "test_images": test_images, "epochs": epochs, "pixels": pixels_changed, "population": population,
        "generations": generations, "convert": convert,
    }  # fmt: skip
    accuracy: float | None = None
    pictures: Pictures | None = None
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
    with run_folder(out, "cnn diagnose one-pixel", arguments, seed, files) as run:
        if pictures is not None:
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
        rows = shown.one_pixel_table(attack, names, category)
        sheet = shown.one_pixel_sheet(attack, category)
        run.save_table("attacks.csv", rows)
        run.save_arrays("attacks.npz", originals=attack.originals.numpy(), perturbed=attack.perturbed.numpy())
        run.save_figure("attacks.png", sheet)
        fair, rate = int(attack.fair.sum()), attack.success_rate
        interval = binomial_interval(rate, fair) if fair else (float("nan"), float("nan"))
        run.summary.update(success_rate=rate, interval=interval, attacked=fair, accuracy=accuracy)
        report = shown.one_pixel_report(
            attack,
            rows,
            sheet,
            attacked=attacked,
            pixels_changed=pixels_changed,
            interval=interval,
            accuracy=accuracy,
        )
        save_page(report, run, seed=seed, files=files)
    return {**run.summary, "out": out}


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
