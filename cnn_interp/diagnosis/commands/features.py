"""The command ``features``: what moves each layer's features."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cnn_interp.diagnosis.commands.loading import SCENE_SIDE, classifier_and_side, layers_in, scenes_as_pixels
from cnn_interp.diagnosis.commands.options import Layers
from cnn_interp.options import Model, Weights
from interpretkit.command import Device, Out, Quiet, Seed, command


def register(app: typer.Typer) -> None:
    """Add the command to a group."""
    command(
        app,
        "features",
        example="interpretkit cnn diagnose features --model mobilenet_v2 --side 96 --out features",
    )(features)


def features(
    out: Out = Path("features"),
    network: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    layers: Layers = "",
    side: Annotated[
        int | None,
        typer.Option(
            "--side", min=32, help=f"Of the scenes, px; {SCENE_SIDE}, or the only one the network takes."
        ),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Split the variance of each layer's features into shape, viewpoint, colours and size.

    An object in a room is rendered in all combinations of these factors, so that the shares are exact.
    """
    from cnn_interp.diagnosis.feature_distributions import variance_shares
    from cnn_interp.diagnosis.layer_features import OUTPUT, pooled_features, stages
    from cnn_interp.diagnosis.reports.features import factor_maps, features_report, shares_figure
    from cnn_interp.diagnosis.reports.page import save_page
    from interpretkit.disentanglement.datasets import SHAPES3D
    from interpretkit.results import run_folder

    loaded, side = classifier_and_side(network, weights, device, seed, side)
    pixels, factors, images = scenes_as_pixels(side)
    varied = [column for column in range(factors.shape[1]) if len(set(factors[:, column])) > 1]
    factors, names = factors[:, varied], [SHAPES3D.names[column] for column in varied]
    chosen = layers_in(loaded, layers) or list(stages(loaded.module, loaded.normalise(pixels[:1])))
    arguments = {"network": network, "weights": weights, "layers": layers, "side": side}
    with run_folder(out, "cnn diagnose features", arguments, seed) as run:
        read = pooled_features(loaded, pixels, [*chosen, OUTPUT], seed=seed, quiet=quiet)
        everything = {"pixels": images.reshape(len(images), -1) / 255, **read}
        found = {layer: variance_shares(values, factors, names) for layer, values in everything.items()}
        run.save_table("shares.csv", [{"layer": layer, **result.shares} for layer, result in found.items()])
        run.save_arrays(
            "effects.npz",
            **{
                f"{layer}.{effect.name}": effect.effects
                for layer, result in found.items()
                for effect in result.factors
                if layer != "pixels"
            },
        )
        examples = {
            name: _examples(images, factors, column)[:, 14:54, 12:52] for column, name in enumerate(names)
        }
        shares, maps = shares_figure(found), factor_maps(found[chosen[-1]].factors, examples)
        run.save_figure("shares.png", shares)
        run.save_figure("maps.png", maps)
        run.summary.update(shares={layer: result.shares for layer, result in found.items()})
        report = features_report(found, chosen[-1], shares, maps, network=network, scenes=len(pixels))
        save_page(report, run, seed=seed)
    return {**run.summary, "out": out}


def _examples(images: Any, factors: Any, column: int) -> Any:
    """Return an image of each value of a factor, the others as near to the middle of their values as they can be."""
    import numpy as np

    # Between two in the middle the later is taken, which for the size is the larger.
    off = np.abs(factors - np.median(factors, axis=0) - 0.1).astype(float)
    off[:, column] = 0
    rows = [
        np.where(factors[:, column] == value, off.sum(1), np.inf).argmin()
        for value in np.unique(factors[:, column])
    ]
    return images[rows]
