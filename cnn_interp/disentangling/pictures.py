"""Pictures of graphs and concepts: patches side by side, nodes with their parents in images, layers with edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from numpy.typing import NDArray

from cnn_interp.disentangling.explanatory_graph import (
    ExplanatoryGraph,
    LayerNodes,
    NodePlaces,
    Patch,
    crop,
    patch_box,
)
from cnn_interp.images.batches import resized_to
from cnn_interp.images.sets import Images, Picture
from cnn_interp.units.positions import UnitGrid
from interpretkit.visualization import colour_of, marker_of, new_figure, style
from interpretkit.visualization.style import MUTED

Floats = NDArray[np.float64]
_GAP = 4


def side_by_side(pictures: Sequence[Picture], count: int, side: int) -> Picture:
    """Return pictures ``(side, side, 3)`` as one strip of `count` places; those that are missing stay white."""
    strip = np.full((side, count * (side + _GAP) - _GAP, 3), 255, dtype=np.uint8)
    for place, picture in enumerate(pictures[:count]):
        left = place * (side + _GAP)
        strip[:, left : left + side] = picture
    return strip


def node_strips(
    graph: ExplanatoryGraph,
    level: LayerNodes,
    places: NodePlaces,
    images: Images,
    nodes: Sequence[int],
    *,
    count: int = 8,
    side: int = 64,
) -> list[Picture]:
    """Return for each node the patches of the images in which it is seen most strongly, side by side."""
    found = graph.patches(level, places, nodes, count=count)
    return [
        side_by_side([crop(images, patch, graph.image, side) for patch in some], count, side)
        for some in found
    ]


def unit_strips(
    values: Floats,
    positions: Floats,
    grid: UnitGrid,
    images: Images,
    units: Sequence[int],
    *,
    count: int = 8,
    side: int = 64,
) -> list[Picture]:
    """Return for each unit the patches of the images in which it is strongest, side by side.

    Parameters
    ----------
    values, positions : ndarray of float, (n, units) and (n, units, 2)
        How strong each unit is in each image, and where, px.
    grid : UnitGrid
        Of the layer.
    images : Images
        The set.
    units : sequence of int
        Their numbers.
    count, side : int
        Patches of each, and their height and width, px.
    """
    strips = []
    for unit in units:
        best = [row for row in np.argsort(-values[:, unit], kind="stable")[:count] if values[row, unit] > 0]
        where = positions[:, unit]
        patches = [
            Patch(
                int(unit), int(row), float(values[row, unit]), (float(where[row, 0]), float(where[row, 1])),
                patch_box(grid, where[row]),
            )
            for row in best
        ]  # fmt: skip
        strips.append(side_by_side([crop(images, patch, grid.image, side) for patch in patches], count, side))
    return strips


def importance_figure(found: Mapping[str, Floats], label: str) -> Figure:
    """Draw how important concepts are, sorted, a line for each method with its concepts' numbers at the first few."""
    with style():
        figure = new_figure(7.2, 3.4)
        axes = figure.subplots()
        for place, (method, values) in enumerate(found.items()):
            order = np.argsort(-values, kind="stable")
            axes.plot(
                np.arange(len(order)) + 1, values[order], marker_of(place), linestyle="-", color=colour_of(place),
                markersize=4, label=method,
            )  # fmt: skip
        axes.axhline(0, color=MUTED, linewidth=1)
        axes.set(xlabel="concepts, the most important first", ylabel=label)
        figure.legend(loc="outside lower left", ncols=4)
    return figure


def strips_figure(rows: Sequence[tuple[str, Picture]]) -> Figure:
    """Draw strips of pictures ``(side, width, 3)``, all of one side, under each other with their titles to the left."""
    side, width = rows[0][1].shape[0], max(strip.shape[1] for _, strip in rows)
    whole = np.full((len(rows) * (side + _GAP) - _GAP, width, 3), 255, dtype=np.uint8)
    for place, (_, strip) in enumerate(rows):
        top = place * (side + _GAP)
        whole[top : top + side, : strip.shape[1]] = strip
    with style():
        figure = new_figure(1.4 + 0.75 * width / side, 0.75 * whole.shape[0] / side)
        axes = figure.subplots()
        axes.imshow(whole)
        axes.set_xticks([])
        axes.set_yticks(
            [(place + 0.5) * (side + _GAP) for place in range(len(rows))], [title for title, _ in rows]
        )
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


def parents_figure(
    graph: ExplanatoryGraph,
    level: LayerNodes,
    places: Mapping[str, NodePlaces],
    images: Images,
    nodes: Sequence[int],
    *,
    count: int = 5,
) -> Figure:
    """Draw nodes in the images where they are seen most strongly, joined to their parents in the layer above."""
    above = graph.levels[graph.levels.index(level) - 1]
    here, there = places[level.name], places[above.name]
    with style():
        figure = new_figure(1.3 + 1.55 * count, 1.6 * len(nodes))
        grid = figure.subplots(len(nodes), count, squeeze=False)
        for line, node in enumerate(nodes):
            best = [
                image
                for image in np.argsort(-here.values[:, node], kind="stable")[:count]
                if here.values[image, node] > 0
            ]
            for axes in grid[line]:
                axes.axis("off")
            for axes, image in zip(grid[line], best, strict=False):
                axes.imshow(resized_to(images.image(int(image)), graph.image[0]))
                place, around = here.positions[image, node], there.positions[image, level.parents[node]]
                axes.add_collection(
                    LineCollection(
                        [(one[::-1], place[::-1]) for one in around],
                        colors="white",
                        linewidths=0.7,
                        alpha=0.8,
                    )
                )
                axes.scatter(around[:, 1], around[:, 0], s=9, color=colour_of(5), linewidths=0, zorder=3)
                axes.scatter(
                    place[1],
                    place[0],
                    s=55,
                    facecolors="none",
                    edgecolors="#ff3b6b",
                    linewidths=1.9,
                    zorder=4,
                )
                axes.set(xlim=(-0.5, graph.image[1] - 0.5), ylim=(graph.image[0] - 0.5, -0.5))
            grid[line, 0].text(
                -0.06, 0.5, f"node {node}\nfilter {level.filters[node]}", transform=grid[line, 0].transAxes,
                rotation=0, ha="right", va="center", fontsize=9,
            )  # fmt: skip
    return figure


def layers_figure(
    graph: ExplanatoryGraph,
    levels: Sequence[LayerNodes],
    places: Mapping[str, NodePlaces],
    images: Images,
    nodes: Sequence[int],
    *,
    most: int = 8,
    side: int = 48,
) -> Figure:
    """Draw nodes of the last level with the parents that they share most, and theirs, as patches joined by edges.

    Parameters
    ----------
    graph : ExplanatoryGraph
        The graph.
    levels : sequence of LayerNodes
        That follow each other in it, from above downwards.
    places : mapping of str to NodePlaces
        As :meth:`ExplanatoryGraph.locate` returns them.
    images : Images
        Those that were located in.
    nodes : sequence of int
        Of the last level.
    most : int
        So many nodes of each level above are drawn at most.
    side : int
        Of a patch, px.
    """
    shown = [list(nodes)]
    for level in levels[:0:-1]:
        shown.insert(0, _shared_parents(level.parents[shown[0]], most))
    width = max(map(len, shown))
    with style():
        figure = new_figure(1.2 + 0.95 * width, 0.4 + 1.5 * len(levels))
        axes = figure.subplots()
        axes.axis("off")
        axes.set(xlim=(-0.6, width - 0.4), ylim=(-len(levels) + 0.45, 0.55))

        def across(number: int, place: int) -> float:
            return (place + 0.5) * width / len(shown[number]) - 0.5

        for number, level in enumerate(levels):
            strips = graph.patches(level, places[level.name], shown[number], count=1)
            axes.text(-0.62, -number + 0.42, level.name, ha="left", va="bottom", fontsize=9, color=MUTED)
            for place, (node, patches) in enumerate(zip(shown[number], strips, strict=True)):
                here = (across(number, place), -number)
                if number:
                    above = {parent: k for k, parent in enumerate(shown[number - 1])}
                    joined = [above[parent] for parent in level.parents[node].tolist() if parent in above]
                    axes.add_collection(
                        LineCollection(
                            [(here, (across(number - 1, k), 1 - number)) for k in joined],
                            colors=colour_of(place % 6), linewidths=1.2, alpha=0.7, zorder=1,
                        )
                    )  # fmt: skip
                if patches:
                    box = OffsetImage(crop(images, patches[0], graph.image, side), zoom=1.0)
                    axes.add_artist(AnnotationBbox(box, here, pad=0.1, frameon=True))
    return figure


def _shared_parents(parents: NDArray[np.int64], most: int) -> list[int]:
    """Return so many of the parents ``(nodes, parents)``: those that most nodes share, in turn for each node."""
    numbers, times = np.unique(parents, return_counts=True)
    often = dict(zip(numbers.tolist(), times.tolist(), strict=True))
    # Of parents that are shared alike, the earlier.
    waiting = [sorted(row, key=lambda parent: (-often[parent], parent)) for row in parents.tolist()]
    chosen: list[int] = []
    while len(chosen) < min(most, len(numbers)):
        for row in waiting:
            chosen += [parent for parent in row if parent not in chosen][:1]
    return sorted(chosen[:most])


def tracking_boxes(
    measured: Mapping[str, Mapping[str, Floats]], label: str, line: float, name: str
) -> Figure:
    """Draw how values of units are distributed, for each layer and each way of telling where they are.

    Parameters
    ----------
    measured : mapping of str to mapping of str to ndarray
        From layer to what was measured of its units, by system and readout; NaN counts as not measured.
    label : str
        What is measured.
    line : float
        What a unit that stands still has.
    name : str
        What that line is called.
    """
    readouts = list(dict.fromkeys(readout for found in measured.values() for readout in found))
    with style():
        figure = new_figure(7.6, 0.9 + 0.34 * len(readouts) * len(measured))
        axes = figure.subplots()
        ticks, names = [], []
        for row, (layer, found) in enumerate(measured.items()):
            for place, readout in enumerate(found):
                height = -(row * (len(readouts) + 1) + place)
                values = found[readout][~np.isnan(found[readout])]
                axes.boxplot(
                    values, positions=[height], orientation="horizontal", widths=0.6, showfliers=False,
                    patch_artist=True, whis=(5, 95), medianprops={"color": "black"},
                    boxprops={"facecolor": colour_of(readouts.index(readout)), "alpha": 0.75},
                )  # fmt: skip
                ticks.append(height)
                names.append(f"{layer}: {readout}" if len(measured) > 1 else readout)
        axes.axvline(line, color=MUTED, linestyle="--", linewidth=1.4, label=name)
        axes.set_yticks(ticks, names, fontsize=9)
        axes.set(xlabel=label)
        axes.grid(axis="y", visible=False)
        figure.legend(loc="outside lower left")
    return figure
