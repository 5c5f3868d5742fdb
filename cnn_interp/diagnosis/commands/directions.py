"""The command ``directions``: whether units mean more than random directions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cnn_interp.diagnosis.commands.loading import (
    check_given,
    classifier,
    classifier_and_side,
    images_as_pixels,
    layers_in,
    scenes_as_pixels,
)
from cnn_interp.diagnosis.commands.options import Images, Layers
from cnn_interp.options import Convert, Model, Weights
from interpretkit.command import Device, Out, Quiet, Seed, command
from interpretkit.errors import InputError

# Of the rendered scenes as networks are shown them, and of images as they are drawn, px.
_DRAWN_SIDE = 64


def register(app: typer.Typer) -> None:
    """Add the command to a group."""
    command(
        app,
        "directions",
        example=[
            "interpretkit cnn diagnose directions --layer features.7,features.18",
            "interpretkit cnn diagnose directions photos/ --model resnet50",
        ],
    )(directions)


def directions(
    images: Images = None,
    out: Out = Path("directions"),
    network: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    layers: Layers = "",
    top: Annotated[int, typer.Option("--top", min=2, help="Strongest images of a direction.")] = 9,
    count: Annotated[int, typer.Option("--directions", min=2, help="How many random directions.")] = 256,
    convert: Convert = False,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Ask whether single units mean more than random directions of their layer.

    The strongest images of each unit are compared with those of random directions: by how far they agree on a known
    attribute (scenes rendered here, without images), or by how alike the network's outputs to them are (with images).
    A rotated basis is the control.
    """
    if images and len(check_given(images, convert)) < 2 * top:
        raise InputError(
            f"IMAGE: {len(check_given(images, convert))} images; expected at least {2 * top}, twice --top"
        )

    from cnn_interp.diagnosis.directions import compare_directions, rotated
    from cnn_interp.diagnosis.layer_features import OUTPUT, pooled_features, resize, stages
    from cnn_interp.diagnosis.reports import directions as shown
    from cnn_interp.diagnosis.reports.page import save_page
    from interpretkit.results import run_folder

    arguments = {
        "images": [str(path) for path in images or ()], "network": network, "weights": weights, "layers": layers,
        "top": top, "directions": count, "convert": convert,
    }  # fmt: skip
    files: list[Path] = []
    factors = None
    if images:
        loaded = classifier(network, weights, device, seed)
        pixels, _, files = images_as_pixels(loaded, images, convert)
    else:
        loaded, side = classifier_and_side(network, weights, device, seed, None)
        pixels, factors, _ = scenes_as_pixels(side)
    if len(pixels) < 2 * top:
        raise InputError(f"IMAGE: {len(pixels)} images; expected at least {2 * top}, twice --top")
    chosen = layers_in(loaded, layers) or list(stages(loaded.module, loaded.normalise(pixels[:1]), most=4))
    with run_folder(out, "cnn diagnose directions", arguments, seed, files) as run:
        wanted = [*chosen, OUTPUT] if images else chosen
        features = pooled_features(loaded, pixels, wanted, seed=seed, quiet=quiet)
        options: dict[str, Any] = {"top": top, "directions": count, "seed": seed}
        options |= {"reference": features[OUTPUT]} if images else {"attributes": factors}
        found = {layer: compare_directions(features[layer], **options) for layer in chosen}
        controls = {layer: compare_directions(rotated(features[layer], seed), **options) for layer in chosen}
        rows = shown.direction_table(found, controls)
        run.save_table("directions.csv", rows)
        run.save_arrays(
            "directions.npz",
            **{f"{layer}.units": result.units for layer, result in found.items()},
            **{f"{layer}.random": result.random for layer, result in found.items()},
            **{f"{layer}.unit_images": result.unit_images for layer, result in found.items()},
        )
        figure = shown.purity_figure(found, controls)
        run.save_figure("purity.png", figure)
        run.summary.update(
            images=len(pixels),
            superiority={layer: result.superiority for layer, result in found.items()},
            rotated={layer: result.superiority for layer, result in controls.items()},
        )
        small = resize(pixels, min(_DRAWN_SIDE, pixels.shape[-1]))
        report = shown.directions_report(
            found, rows, figure, small, network=network, photographs=bool(images), top=top
        )
        save_page(report, run, seed=seed, files=files)
    return {**run.summary, "out": out}
