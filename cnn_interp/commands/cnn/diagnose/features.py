"""What moves each layer's features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.commands._loading import SCENE_SIDE, classifier_and_side, layers_in, scenes_as_pixels
from cnn_interp.commands._options import Layers, Model, Weights
from interpretkit.commandline import Column, Device, Finding, Quiet, Seed, command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from cnn_interp.diagnosis.feature_distributions import FactorEffect, VarianceShares


@command(
    out="features",
    example="interpretkit cnn diagnose features --model mobilenet_v2 --side 96 --out features",
)
def features(
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
) -> Finding:
    """Split the variance of each layer's features into shape, viewpoint, colours and size.

    An object in a room is rendered in all combinations of these factors, so that the shares are exact.
    """
    from cnn_interp.diagnosis.feature_distributions import variance_shares
    from cnn_interp.diagnosis.layer_features import OUTPUT, pooled_features, stages
    from interpretkit.disentanglement.datasets import SHAPES3D

    loaded, side = classifier_and_side(network, weights, device, seed, side)
    pixels, factors, images = scenes_as_pixels(side)
    varied = [column for column in range(factors.shape[1]) if len(set(factors[:, column])) > 1]
    factors, names = factors[:, varied], [SHAPES3D.names[column] for column in varied]
    chosen = layers_in(loaded, layers) or list(stages(loaded.module, loaded.normalise(pixels[:1])))
    read = pooled_features(loaded, pixels, [*chosen, OUTPUT], seed=seed, quiet=quiet)
    everything = {"pixels": images.reshape(len(images), -1) / 255, **read}
    shares = {layer: variance_shares(values, factors, names) for layer, values in everything.items()}
    layer = chosen[-1]
    most = max(shares[layer].factors, key=lambda effect: effect.share)

    found = Finding(
        f"{network}: what its features are about",
        f"At {layer} the {_plain(most.name)} makes {most.share:.0%} of the variance of the features, and "
        f"{shares['pixels'].shares[most.name]:.0%} of that of the pixels. {len(pixels)} scenes, all combinations of "
        f"{', '.join(_plain(name) for name in names)}. A feature is taken for the sum of one effect of each "
        "factor; the rest is what factors do together.",
    )
    found.number(
        "share_of_variance",
        {_plain(effect.name): effect.share for effect in shares[layer].factors},
        f"{layer}",
        format=".0%",
        note={
            _plain(effect.name): f"{shares['pixels'].shares[effect.name]:.0%} of the pixels; "
            f"{effect.dimensions} dimension{'s' if effect.dimensions > 1 else ''}"
            for effect in shares[layer].factors
        },
    )
    found.values["shares"] = {name: result.shares for name, result in shares.items()}
    found.section("Shares of the variance").figure(
        "shares.png", _shares_figure(shares), "From the pixels to the output."
    ).table(
        "shares.csv",
        [{"layer": name, **result.shares} for name, result in shares.items()],
        {
            name: Column(
                "share of the variance of the layer's features",
                heading="together, and the rest" if name == "residual" else "",
                format=".1%",
            )
            for name in shares[layer].shares
        },
    )
    examples = {
        name: _examples(images, factors, column)[:, 14:54, 12:52] for column, name in enumerate(names)
    }
    found.section(
        f"Maps of {layer}",
        "The mean feature of each value of a factor, in the plane of the factor's first two principal axes: "
        "neighbours in viewpoint should be neighbours here, and hues, that go round in a circle, a ring.",
    ).figure("maps.png", _factor_maps(shares[layer].factors, examples), "One picture for each value.")
    found.next_step(
        "How well can categories be read off each layer?", "interpretkit cnn diagnose probe --model", network
    )
    return found.arrays(
        "effects.npz",
        **{
            f"{name}.{effect.name}": effect.effects
            for name, result in shares.items()
            for effect in result.factors
            if name != "pixels"
        },
    )


def _plain(name: str) -> str:
    return name.replace("_", " ")


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


def _shares_figure(found: Mapping[str, VarianceShares]) -> Figure:
    """Draw the shares of the factors in the variance of each layer, as stacked bars."""
    import numpy as np

    from interpretkit.visualization import colour_of, new_figure, style

    with style():
        figure = new_figure(7.4, 4.2)
        axes = figure.subplots()
        bottom = np.zeros(len(found))
        names = list(next(iter(found.values())).shares)
        for index, name in enumerate(names):
            heights = np.array([shares.shares[name] for shares in found.values()])
            colour = "#d5dade" if name == "residual" else colour_of(index)
            label = "together, and the rest" if name == "residual" else name.replace("_", " ")
            axes.bar(range(len(found)), heights, bottom=bottom, color=colour, label=label, width=0.75)
            for place, height in enumerate(heights):
                if height > 0.06:
                    axes.text(
                        place,
                        bottom[place] + height / 2,
                        f"{height:.0%}",
                        ha="center",
                        va="center",
                        fontsize=8,
                        color="black" if name == "residual" else "white",
                    )
            bottom += heights
        axes.set_xticks(range(len(found)), list(found), rotation=40, ha="right")
        axes.set(ylabel="share of the variance", title="What moves each layer's features", ylim=(0, 1))
        axes.grid(axis="x", visible=False)
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def _factor_maps(factors: Sequence[FactorEffect], pictures: Mapping[str, NDArray[np.uint8]]) -> Figure:
    """Draw the means of each factor's values in their principal plane, with a picture of each value.

    Parameters
    ----------
    factors : sequence of FactorEffect
        Those with at least three values are drawn.
    pictures : mapping of str to ndarray (v, h, w, 3)
        From a factor's name to a picture of each of its values.
    """
    import numpy as np
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    from interpretkit.visualization import new_figure, style

    drawn = [effect for effect in factors if len(effect.values) >= 3]
    with style():
        columns = min(2, len(drawn))
        lines = -(-len(drawn) // columns)
        figure = new_figure(4.4 * columns, 4.2 * lines)
        places = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes in places[len(drawn) :]:
            axes.axis("off")
        for axes, effect in zip(places, drawn, strict=False):
            x, y = effect.coordinates[:, 0], effect.coordinates[:, 1]
            axes.plot(x, y, "-", color="#c3cad1", linewidth=1)
            for place, picture in enumerate(pictures[effect.name]):
                axes.add_artist(AnnotationBbox(OffsetImage(picture, zoom=0.9), (x[place], y[place]), pad=0.1))
            reach = 1.25 * max(np.abs(effect.coordinates[:, :2]).max(), 1e-9)
            axes.set(
                xlim=(-reach, reach),
                ylim=(-reach, reach),
                title=effect.name.replace("_", " "),
                xlabel=f"first axis ({effect.explained[0]:.0%})",
                ylabel=f"second axis ({effect.explained[1]:.0%})",
            )
            axes.set_aspect("equal")
            axes.tick_params(labelbottom=False, labelleft=False)
    return figure
