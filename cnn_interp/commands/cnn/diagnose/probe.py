"""What a linear classifier reads off each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cnn_interp.commands._loading import check_small_data, classifier_and_side, layers_in, small_pictures
from cnn_interp.commands._options import Layers, Model, SmallData, Weights
from interpretkit.commandline import Column, Device, Finding, Quiet, Seed, command
from interpretkit.commandline.caution import no_better

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from cnn_interp.diagnosis.transferability import Probe

# Of the images as the network sees them by default, and as they are classified without a network, px.
_SIDE, _PIXELS_SIDE = 64, 8
_COLUMNS = {
    "layer": Column("the layer whose output is classified; pixels are the images themselves"),
    "accuracy": Column("share of images classified rightly, cross-validated", format=".1%"),
    "from": Column("lower end of the 95 % interval of the accuracy", heading="95 % from", format=".1%"),
    "to": Column("upper end of the 95 % interval of the accuracy", heading="95 % to", format=".1%"),
    "features": Column("how many values an image has there"),
}


@command(
    out="probe",
    example=[
        "interpretkit cnn diagnose probe --model mobilenet_v2",
        "interpretkit cnn diagnose probe --data cifar10=cifar10.npz --images 1000",
    ],
)
def probe(
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
) -> Finding:
    """Read categories off each layer of a trained network by a linear classifier, on data it was not made for.

    A cheap companion to transferability: nothing but the classifier is trained.
    """
    check_small_data(data)
    from cnn_interp.diagnosis.layer_features import OUTPUT, pooled_features, resize, stages
    from cnn_interp.diagnosis.transferability import linear_probes

    pictures, files = small_pictures(data)
    some = pictures.limited(max(4, count // len(pictures.categories)), 1)
    loaded, side = classifier_and_side(network, weights, device, seed, side, _SIDE)
    pixels = resize(some.train.expand(-1, 3, -1, -1), side)
    chosen = layers_in(loaded, layers) or list(stages(loaded.module, loaded.normalise(pixels[:1])))
    features = {"pixels": resize(some.train, _PIXELS_SIDE).flatten(1).numpy()}
    features |= pooled_features(loaded, pixels, [*chosen, OUTPUT], seed=seed, quiet=quiet)
    probes = linear_probes(features, some.train_labels.numpy(), seed=seed, quiet=quiet)

    best = max(probes, key=lambda result: result.accuracy)
    found = Finding(
        f"What a linear classifier reads off {network}",
        f"Best at {best.layer}: {best.accuracy:.1%} right, by the pixels alone {probes[0].accuracy:.1%}, by chance "
        f"{best.chance:.1%}. {len(pixels)} images of {pictures.name}, four-fold cross-validation. Features "
        "are means over positions; `pixels` are the images themselves at 8\u00a0×\u00a08.",
    ).reads(*files)
    found.number("best", best.layer, "best layer", note=f"{best.accuracy:.1%}")
    found.number("pixels", probes[0].accuracy, note="without any network", format=".1%")
    found.number("output", probes[-1].accuracy, note="the network's own categories", format=".1%")
    found.number("chance", best.chance, format=".1%")
    of_layers = max(result.accuracy for result in probes if result.layer != "pixels")
    found.warn(
        *no_better("the best layer", of_layers, "the pixels", probes[0].accuracy, form=".1%"),
        *no_better("the best layer", of_layers, "the most frequent label", best.chance, form=".1%"),
    )
    found.values["accuracies"] = {result.layer: result.accuracy for result in probes}
    by_layer = found.section("Layer by layer")
    by_layer.figure("probes.png", _figure(probes), "Bars: 95 % intervals.")
    rows = [
        {
            "layer": result.layer,
            "accuracy": result.accuracy,
            "from": result.interval[0],
            "to": result.interval[1],
            "features": result.width,
        }
        for result in probes
    ]
    by_layer.table("probes.csv", rows, _COLUMNS)
    return found.next_step(
        "What moves each layer's features?", "interpretkit cnn diagnose features --model", network
    )


def _figure(probes: Sequence[Probe]) -> Figure:
    """Draw the accuracy of a linear classifier on each layer."""
    import numpy as np

    from interpretkit.visualization import colour_of, new_figure, style
    from interpretkit.visualization.style import MUTED

    with style():
        figure = new_figure(6.6, 3.9)
        axes = figure.subplots()
        places = np.arange(len(probes))
        shares = np.array([probe.accuracy for probe in probes])
        bars = np.abs(np.array([probe.interval for probe in probes]).T - shares)
        axes.errorbar(places, shares, yerr=bars, fmt="-o", color=colour_of(0), capsize=3)
        axes.axhline(probes[0].chance, color=MUTED, linestyle=":", label="the most frequent label")
        axes.set_xticks(places, [probe.layer for probe in probes], rotation=40, ha="right")
        axes.set(ylabel="accuracy, cross-validated", title="What a linear classifier reads off each layer")
        axes.legend()
    return figure
