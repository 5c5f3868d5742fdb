"""The command ``probe``: what a linear classifier reads off each layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cnn_interp.diagnosis.commands.loading import (
    check_small_data,
    classifier_and_side,
    layers_in,
    small_pictures,
)
from cnn_interp.diagnosis.commands.options import Layers, SmallData
from cnn_interp.options import Model, Weights
from interpretkit.command import Device, Out, Quiet, Seed, command

# Of the images as the network sees them by default, and as they are classified without a network, px.
_SIDE, _PIXELS_SIDE = 64, 8


def register(app: typer.Typer) -> None:
    """Add the command to a group."""
    command(
        app,
        "probe",
        example=[
            "interpretkit cnn diagnose probe --model mobilenet_v2",
            "interpretkit cnn diagnose probe --data cifar10=cifar10.npz --images 1000",
        ],
    )(probe)


def probe(
    out: Out = Path("probe"),
    network: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    data: SmallData = "digits",
    count: Annotated[int, typer.Option("--images", min=40, help="How many images of the data to use.")] = 500,
    side: Annotated[
        int | None,
        typer.Option(
            "--side", min=16, help=f"Their side for the network, px; {_SIDE}, or the only one it takes."
        ),
    ] = None,
    layers: Layers = "",
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Read categories off each layer of a trained network by a linear classifier, on data it was not made for.

    A cheap companion to transferability: nothing but the classifier is trained.
    """
    check_small_data(data)

    from cnn_interp.diagnosis.layer_features import OUTPUT, pooled_features, resize, stages
    from cnn_interp.diagnosis.reports.page import save_page
    from cnn_interp.diagnosis.reports.probe import probe_figure, probe_report, probe_table
    from cnn_interp.diagnosis.transferability import linear_probes
    from interpretkit.caution import no_better
    from interpretkit.results import run_folder

    pictures, files = small_pictures(data)
    some = pictures.limited(max(4, count // len(pictures.categories)), 1)
    loaded, side = classifier_and_side(network, weights, device, seed, side, _SIDE)
    pixels = resize(some.train.expand(-1, 3, -1, -1), side)
    chosen = layers_in(loaded, layers) or list(stages(loaded.module, loaded.normalise(pixels[:1])))
    arguments = {
        "network": network, "weights": weights, "data": data, "images": count, "side": side, "layers": layers,
    }  # fmt: skip
    with run_folder(out, "cnn diagnose probe", arguments, seed, files) as run:
        features = {"pixels": resize(some.train, _PIXELS_SIDE).flatten(1).numpy()}
        features |= pooled_features(loaded, pixels, [*chosen, OUTPUT], seed=seed, quiet=quiet)
        found = linear_probes(features, some.train_labels.numpy(), seed=seed)
        run.save_table("probes.csv", probe_table(found))
        figure = probe_figure(found)
        run.save_figure("probes.png", figure)
        best = max(found, key=lambda result: result.accuracy)
        run.summary.update(
            accuracies={result.layer: result.accuracy for result in found},
            best=best.layer,
            chance=best.chance,
        )
        images = f"{len(pixels)} images of {pictures.name}"
        report = probe_report(found, figure, network=network, images=images)
        of_layers = max((result for result in found if result.layer != "pixels"), key=lambda r: r.accuracy)
        reached = of_layers.accuracy
        warnings = no_better("the best layer", reached, "the pixels", found[0].accuracy, form=".1%")
        warnings += no_better("the best layer", reached, "the most frequent label", best.chance, form=".1%")
        save_page(report, run, seed=seed, files=files, warnings=warnings)
    return {**run.summary, "out": out}
