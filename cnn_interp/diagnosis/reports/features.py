"""What ``features`` shows: what moves each layer's features, and maps of the factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cnn_interp.diagnosis.feature_distributions import FactorEffect, VarianceShares
from cnn_interp.diagnosis.reports.page import page
from interpretkit.visualization import Report, colour_of, new_figure, style


def shares_figure(found: Mapping[str, VarianceShares]) -> Figure:
    """Draw the shares of the factors in the variance of each layer, as stacked bars."""
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


def factor_maps(factors: Sequence[FactorEffect], pictures: Mapping[str, NDArray[np.uint8]]) -> Figure:
    """Draw the means of each factor's values in their principal plane, with a picture of each value.

    Parameters
    ----------
    factors : sequence of FactorEffect
        Those with at least three values are drawn.
    pictures : mapping of str to ndarray (v, h, w, 3)
        From a factor's name to a picture of each of its values.
    """
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

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


def features_report(
    found: Mapping[str, VarianceShares],
    layer: str,
    shares: Figure,
    maps: Figure,
    *,
    network: str,
    scenes: int,
) -> Report:
    """Return the page.

    Parameters
    ----------
    found : mapping of str to VarianceShares
        Of the ``pixels``, the layers and the output.
    layer : str
        The layer that is shown in full.
    shares : Figure
        What :func:`shares_figure` drew.
    maps : Figure
        What :func:`factor_maps` drew of the layer.
    network : str
        Whose layers they are.
    scenes : int
        How many there were.
    """
    factors = found[layer].factors
    names = {name: name.replace("_", " ") for name in found[layer].shares}
    report = page(
        "features",
        f"{network}: what its features are about",
        f"{scenes} scenes, all combinations of {', '.join(names[effect.name] for effect in factors)}. A "
        "feature is taken for the sum of one effect of each factor; the rest is what factors do together.",
    )
    report.add_numbers(
        {
            names[effect.name]: (
                f"{effect.share:.0%}",
                f"of {layer}; {found['pixels'].shares[effect.name]:.0%} of the pixels; "
                f"{effect.dimensions} dimension{'s' if effect.dimensions > 1 else ''}",
            )
            for effect in factors
        }
    )
    report.add_section(
        "Shares of the variance",
        figures=[(shares, "From the pixels to the output.")],
        table=[
            {"layer": name, **{names[factor]: share for factor, share in result.shares.items()}}
            for name, result in found.items()
        ],
        formats=dict.fromkeys(names.values(), ".3f"),
    )
    report.add_section(
        f"Maps of {layer}",
        "The mean feature of each value of a factor, in the plane of the factor's first two principal axes: "
        "neighbours in viewpoint should be neighbours here, and hues, that go round in a circle, a ring.",
        figures=[(maps, "One picture for each value.")],
    )
    return report
