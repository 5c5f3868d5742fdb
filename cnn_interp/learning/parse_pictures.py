"""Parse trees drawn on the image, and precision over recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from cnn_interp.learning.grammar import Grammar, ParseNode
from cnn_interp.metrics.average_precision import DetectionScore
from interpretkit.visualization.style import MUTED, colour_of, new_figure, style

# Lines of cuts, from the first to the deepest; beyond, as the last.
_WIDTHS = (2.6, 1.8, 1.2, 0.8)


@dataclass(frozen=True, eq=False)
class ParsedRegion:
    """A region with its best parse tree.

    Attributes
    ----------
    picture : ndarray of uint8, (h, w, 3)
        The image that it is in.
    box : ndarray of float, (4,)
        Edges: top, left, bottom, right, px.
    tree : ParseNode
        Its best parse tree.
    parts : ndarray of int, (tiles,)
        The part that every rectangle of the grammar would be; as many as there are parts stands for none.
    title : str
        Above the picture.
    """

    picture: NDArray[np.uint8]
    box: NDArray[np.float64]
    tree: ParseNode
    parts: NDArray[np.int64]
    title: str


def parse_figure(regions: Sequence[ParsedRegion], grammar: Grammar, n_parts: int) -> Figure:
    """Draw regions with the cuts of their parse trees, the first cuts thickest, and with a colour for each part.

    Parameters
    ----------
    regions : sequence of ParsedRegion
        At least one.
    grammar : Grammar
        What they were parsed by.
    n_parts : int
        How many parts a category has; tiles of none stay without a colour.
    """
    columns = min(4, len(regions))
    rows = -(-len(regions) // columns)
    with style():
        figure = new_figure(7.4, 7.4 / columns * rows * 1.1 + 0.4)
        grid = np.atleast_2d(figure.subplots(rows, columns)).ravel()
        for axes in grid:
            axes.axis("off")
        for axes, region in zip(grid.tolist(), regions, strict=False):
            axes.imshow(region.picture)
            _draw(axes, region, region.tree, grammar, n_parts, 0)
            height, width = region.picture.shape[:2]
            axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
            axes.set_title(region.title, fontsize=8.5)
        handles = [
            Rectangle((0, 0), 1, 1, color=colour_of(part), alpha=0.6, label=f"part {part}")
            for part in range(n_parts)
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=min(n_parts, 8))
    return figure


def _draw(
    axes: Axes, region: ParsedRegion, node: ParseNode, grammar: Grammar, n_parts: int, depth: int
) -> None:
    """Draw what is cut out below a node first, so that the cuts above lie upon it."""
    for child in node.children:
        _draw(axes, region, child, grammar, n_parts, depth + 1)
    share = grammar.tiles[node.tile] / grammar.side
    corner, extent = region.box[:2], region.box[2:] - region.box[:2]
    top, left = corner + share[:2] * extent - 0.5
    bottom, right = corner + share[2:] * extent - 0.5
    place, width, height = (float(left), float(top)), float(right - left), float(bottom - top)
    part = int(region.parts[node.tile])
    if not node.children and part < n_parts:
        axes.add_patch(Rectangle(place, width, height, color=colour_of(part), alpha=0.42, linewidth=0))
        axes.text(
            float(left + right) / 2,
            float(top + bottom) / 2,
            str(part),
            color="white",
            fontsize=8,
            fontweight="bold",
            ha="center",
            va="center",
        )
    line = _WIDTHS[min(depth, len(_WIDTHS) - 1)]
    axes.add_patch(Rectangle(place, width, height, fill=False, edgecolor="white", linewidth=line))


def precision_figure(scores: Mapping[str, DetectionScore], names: Sequence[str]) -> Figure:
    """Draw precision over recall at an overlap of 0.5, a panel for each category and a line for each detector.

    Parameters
    ----------
    scores : mapping of str to DetectionScore
        From a detector's name to its score, whose overlaps hold 0.5.
    names : sequence of str
        The categories.
    """
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    with style():
        figure = new_figure(7.4, 2.3 * rows + 0.5)
        panels = np.atleast_2d(figure.subplots(rows, columns, sharex=True, sharey=True)).ravel().tolist()
        for axes in panels[len(names) :]:
            axes.axis("off")
        for place, (axes, name) in enumerate(zip(panels, names, strict=False)):
            for number, (who, score) in enumerate(scores.items()):
                at = score.overlaps.index(0.5)
                recall, precision = score.matches[place].curve(at)
                found = score.matches[place].average_precision(at)
                axes.step(
                    recall, precision, where="post", color=colour_of(number), label=f"{who} {found:.2f}"
                )
            axes.set_title(name, fontsize=9.5)
            axes.set(xlim=(0, 1.01), ylim=(0, 1.03))
            axes.legend(loc="lower left", fontsize=7.5)
            if place % columns == 0:
                axes.set_ylabel("precision")
            if place + columns >= len(names):
                axes.set_xlabel("recall")
    return figure


def tracking_figure(values: Mapping[str, NDArray[np.float64]]) -> Figure:
    """Draw how the tracking R² of several kinds of units is spread, beside a place that stands still.

    Parameters
    ----------
    values : mapping of str to ndarray of float, (any,)
        From what follows to its R² for all parts and units; those below −2 are drawn at −2.
    """
    with style():
        figure = new_figure(7.0, 0.5 * len(values) + 1.2)
        axes = figure.subplots()
        for place, (_name, some) in enumerate(values.items()):
            known = np.clip(some[~np.isnan(some)], -2, 1)
            if len(known):
                axes.boxplot(
                    known, positions=[-place], orientation="horizontal", widths=0.55, whis=(0, 100),
                    medianprops={"color": colour_of(1), "linewidth": 2}, boxprops={"color": MUTED},
                    whiskerprops={"color": MUTED}, capprops={"color": MUTED}, manage_ticks=False,
                )  # fmt: skip
        axes.axvline(0, color=colour_of(0), linewidth=1.2, linestyle="--")
        axes.set_yticks([-place for place in range(len(values))], list(values))
        axes.set(xlabel="tracking R² (0: stands still in the box; 1: follows the part)", xlim=(-2.05, 1.02))
    return figure
