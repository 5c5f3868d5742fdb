"""What ``directions`` shows: how pure the strongest images of units and of random directions are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from cnn_interp.diagnosis.directions import DirectionComparison
from cnn_interp.diagnosis.reports.page import page
from cnn_interp.diagnosis.reports.pictures import show
from interpretkit.visualization import Report, colour_of, new_figure, style
from interpretkit.visualization.style import INK, MUTED


def purity_figure(
    found: Mapping[str, DirectionComparison], controls: Mapping[str, DirectionComparison]
) -> Figure:
    """Draw how pure the strongest images of units, random directions and a rotated basis are, layer by layer."""
    measure = next(iter(found.values())).measure
    with style():
        figure = new_figure(1.6 + 2.2 * len(found), 4.2)
        axes = figure.subplots()
        for place, (layer, comparison) in enumerate(found.items()):
            groups = {
                "units": comparison.units,
                "random directions": comparison.random,
                "units of a rotated basis": controls[layer].units,
            }
            for index, (label, values) in enumerate(groups.items()):
                drawn = axes.boxplot(
                    values,
                    positions=[place + 0.25 * (index - 1)],
                    widths=0.2,
                    showfliers=False,
                    patch_artist=True,
                    medianprops={"color": INK, "linewidth": 1.8},
                    boxprops={"facecolor": colour_of(index), "edgecolor": colour_of(index)},
                    whiskerprops={"color": colour_of(index)},
                    capprops={"color": colour_of(index)},
                )
                if place == 0:
                    drawn["boxes"][0].set_label(label)
            axes.plot([place - 0.4, place + 0.4], [comparison.chance] * 2, ":", color=MUTED)
        axes.plot([], [], ":", color=MUTED, label="images at random")
        axes.set_xticks(range(len(found)), list(found))
        axes.set(
            ylabel="purity (bits in common)" if measure == "attributes" else "purity (mean cosine)",
            title="Purity of the strongest images",
        )
        axes.grid(axis="x", visible=False)
        figure.legend(loc="outside lower left", ncols=2)
    return figure


def strongest_images(comparison: DirectionComparison, pixels: Tensor, *, kind: str, rows: int = 5) -> Figure:
    """Draw the strongest images of the purest, the middling and the least pure units (or random directions)."""
    units = kind == "units"
    purity, images = (
        (comparison.units, comparison.unit_images) if units else (comparison.random, comparison.random_images)
    )
    order = np.argsort(-purity, kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(rows, len(order))).round().astype(int)]
    columns = images.shape[1]
    with style():
        figure = new_figure(1.6 + 0.85 * columns, 0.95 * len(chosen) + 0.5)
        axes = figure.subplots(len(chosen), columns, squeeze=False)
        for line, row in enumerate(chosen):
            for column, image in enumerate(images[row]):
                show(axes[line, column], pixels[image])
            name = f"unit {comparison.unit_numbers[row]}" if units else f"direction {row}"
            axes[line, 0].set_ylabel(
                f"{name}\n{purity[row]:.2f}", rotation=0, ha="right", va="center", fontsize=11
            )
        title = "Units" if units else "Random directions"
        figure.suptitle(f"{title}, from the purest to the least pure", x=0.01, ha="left", fontsize=13)
    return figure


def direction_table(
    found: Mapping[str, DirectionComparison], controls: Mapping[str, DirectionComparison]
) -> list[dict[str, Any]]:
    """Return a row for each layer: purities, their difference with its interval, and how often a unit is purer."""
    return [
        {
            "layer": layer,
            "units": len(result.units),
            "purity of units": float(result.units.mean()),
            "of random directions": float(result.random.mean()),
            "of images at random": result.chance,
            "difference": result.difference,
            "from": result.interval[0],
            "to": result.interval[1],
            "unit purer than direction": result.superiority,
            "the same, rotated": controls[layer].superiority,
        }
        for layer, result in found.items()
    ]


def directions_report(
    found: Mapping[str, DirectionComparison],
    rows: Sequence[Mapping[str, Any]],
    purity: Figure,
    pixels: Tensor,
    *,
    network: str,
    photographs: bool,
    top: int,
) -> Report:
    """Return the page.

    Parameters
    ----------
    found : mapping of str to DirectionComparison
        By layer; the strongest images of the last are drawn.
    rows : sequence of mappings
        What :func:`direction_table` gave.
    purity : Figure
        What :func:`purity_figure` drew.
    pixels : Tensor, (n, 3, h, w)
        The images, small.
    network : str
        Whose layers they are.
    photographs : bool
        Whether the images were given; else they are rendered scenes.
    top : int
        How many strongest images were compared.
    """
    purer = [layer for layer, result in found.items() if result.interval[0] > 0]
    report = page(
        "directions",
        f"{network}: units against random directions",
        f"In {', '.join(purer) or 'none of the layers do'} the strongest images of units have more in common than "
        f"those of random directions. {len(pixels)} {'images' if photographs else 'rendered scenes'}, {top} strongest.",
    )
    report.add_numbers(
        {
            layer: (
                f"{result.superiority:.0%}",
                "a unit purer than a random direction; 50 % = no difference",
            )
            for layer, result in found.items()
        }
    )
    report.add_section(
        "Purity",
        "Attributes: bits that the images have in common, by the attribute that tells most (size, shape, "
        "viewpoint, colours). Images: the mean cosine between the network's outputs to them. A rotated basis spans "
        "the same space; if units are special, its are not.",
        figures=[(purity, "Boxes: quartiles; whiskers: 1.5 times their distance.")],
        # Narrower than the table in the file, so that it needs no scrolling.
        table=[
            {
                "layer": row["layer"],
                "units": row["units"],
                "purity": row["purity of units"],
                "random": row["of random directions"],
                "chance": row["of images at random"],
                "difference": row["difference"],
                "95 % interval": f"{row['from']:.3f} … {row['to']:.3f}".replace("-", "−"),
                "purer": row["unit purer than direction"],
                "rotated": row["the same, rotated"],
            }
            for row in rows
        ],
        table_caption="The mean purity of units, of random directions and of images drawn at random; how far units "
        "are above directions; how often a unit is purer than a direction, and how often one of a rotated basis is.",
        formats={
            **dict.fromkeys(("purity", "random", "chance"), ".3f"),
            "difference": "+.3f",
            **dict.fromkeys(("purer", "rotated"), ".1%"),
        },
    )
    report.add_section(f"Strongest images in {list(found)[-1]}")
    for kind in ("units", "directions"):
        picture = strongest_images(list(found.values())[-1], pixels, kind=kind)
        report.add_figures((picture, f"{top} strongest images of each; purity beside them."))
    return report
