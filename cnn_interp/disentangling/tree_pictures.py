"""Pictures of a decision tree: its shape and modes, how well its levels speak for the network, the way of one image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike, NDArray

from cnn_interp.diagnosis.pictures import bare
from cnn_interp.disentangling.contributions import FilterParts, part_sums
from cnn_interp.disentangling.decision_tree import DecisionTree
from cnn_interp.disentangling.features import LayerMaps
from cnn_interp.disentangling.linear_pieces import LinearPieces
from cnn_interp.disentangling.tree_fidelity import Fidelity
from cnn_interp.metrics.pictures import outlined
from interpretkit.visualization import colour_of, new_figure, style
from interpretkit.visualization.style import INK, MUTED

Picture = NDArray[np.uint8]
# Filters named beside a node, and nodes with pictures.
_FILTERS, _MODES, _PICTURES = 4, 6, 6


def shown_modes(tree: DecisionTree, most: int = _MODES, least: int = 4) -> list[int]:
    """Return nodes to show: the largest of the second level; if that has few, its largest divided further."""
    nodes = list(tree.second_level)[:most]
    while len(nodes) < min(least, most):
        divisible = [node for node in nodes if tree.children[node]]
        if not divisible:
            break
        largest = max(divisible, key=lambda node: (len(tree.images(node)), -node))
        place = nodes.index(largest)
        nodes[place : place + 1] = sorted(
            tree.children[largest], key=lambda node: (-len(tree.images(node)), node)
        )
    return nodes


def told_of_node(tree: DecisionTree, node: int, responses: ArrayLike, parts: FilterParts | None) -> str:
    """Return in words what a node's score rests on: its parts, or else its filters."""
    own = tree.images(node)
    added = tree.rationale(node, np.asarray(responses)[own])
    total = float(np.abs(added).sum()) or 1.0
    if parts is not None:
        sums = part_sums(added, parts.of_filters)
        said = sorted(sums.items(), key=lambda item: -abs(item[1]))[:_FILTERS]
        return ", ".join(f"{name} {value / total:+.0%}" for name, value in said)
    largest = np.argsort(-np.abs(added), kind="stable")[:_FILTERS]
    return ", ".join(f"filter {number} {added[number] / total:+.1%}" for number in largest)


def tree_figure(
    tree: DecisionTree,
    pieces: LinearPieces,
    picture: Callable[[int], Picture],
    parts: FilterParts | None = None,
) -> Figure:
    """Draw a tree, and below it the images that are most like each of its general modes.

    Parameters
    ----------
    tree : DecisionTree
        The tree.
    pieces : LinearPieces
        Of the images it was learned from.
    picture : callable
        From such an image's number to a picture.
    parts : FilterParts, optional
        Of the filters, to say what a mode rests on.
    """
    modes = shown_modes(tree)
    colours = {node: colour_of(place) for place, node in enumerate(modes)}
    with style():
        figure = new_figure(8.4, 3.0 + 1.75 * len(modes))
        heights = [3.0, *[1.75] * len(modes)]
        above, *below = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[
            :, 0
        ].tolist()
        _draw_tree(above.subplots(), tree, colours)
        for part_of_figure, node in zip(below, modes, strict=True):
            own = tree.images(node)
            length = float(np.linalg.norm(tree.weights[node])) or 1.0
            nearest = own[np.argsort(-(pieces.gradients[own] @ tree.weights[node]) / length, kind="stable")]
            for column, axes in enumerate(part_of_figure.subplots(1, _PICTURES)):
                bare(axes)
                if column < len(nearest):
                    axes.imshow(picture(int(nearest[column])))
            part_of_figure.suptitle(
                f"node {node}, level {tree.levels[node]}, {len(own)} image{'s' * (len(own) > 1)}: "
                f"{told_of_node(tree, node, pieces.responses, parts)}",
                x=0.01,
                ha="left",
                fontsize=9.5,
                color=colours[node],
            )
    return figure


def _draw_tree(axes: Axes, tree: DecisionTree, colours: Mapping[int, str]) -> None:
    """Draw nodes over their images, as high as they have images."""
    order: list[int] = []
    open_nodes = [tree.root]
    while open_nodes:
        node = open_nodes.pop()
        below = tree.children[node]
        if below:
            open_nodes += sorted(below, key=lambda child: (len(tree.images(child)), -child))
        else:
            order.append(node)
    x, y = np.zeros(len(tree)), np.ones(len(tree))
    x[order] = np.arange(len(order))
    colour = [MUTED] * len(tree)
    for node in range(len(tree)):
        if tree.children[node]:
            x[node] = x[list(tree.children[node])].mean()
            y[node] = len(tree.images(node))
    # The root may be as large as its only child, and stands above it all the same.
    y[tree.root] = max(y[tree.root], y[list(tree.children[tree.root])].max() * 1.4)
    for node in range(tree.root, -1, -1):
        parent = int(tree.parents[node])
        colour[node] = colours.get(node, colour[parent] if parent >= 0 else MUTED)
    lines, shades = [], []
    for node, parent in enumerate(tree.parents.tolist()):
        if parent >= 0:
            lines.append([(x[node], y[node]), (x[node], y[parent]), (x[parent], y[parent])])
            shades.append(colour[node])
    axes.add_collection(LineCollection(lines, colors=shades, linewidths=0.9))
    marked = [tree.root, *colours]
    axes.scatter(x[marked], y[marked], s=26, color=[colour[node] for node in marked], zorder=3)
    for node in colours:
        axes.annotate(
            str(node),
            (x[node], y[node]),
            xytext=(4, 3),
            textcoords="offset points",
            fontsize=9,
            color=colour[node],
        )
    axes.set_yscale("log", base=2)
    axes.set(xlim=(-1, len(order)), ylim=(0.8, y.max() * 1.5), ylabel="images of the node")
    axes.set_xticks([])
    axes.grid(visible=False)
    modes = len(tree.children[tree.root])
    axes.set_title(f"{tree.leaves} images merged to {modes} decision mode{'s' * (modes != 1)}")


def levels_figure(levels: Sequence[Fidelity], accuracy: float, majority: float) -> Figure:
    """Draw agreement and accuracy of each level, with the network's accuracy and what a constant answer agrees by."""
    with style():
        figure = new_figure(6.4, 3.9)
        axes = figure.subplots()
        where = [level.level for level in levels]
        axes.plot(
            where, [level.agreement for level in levels], "o-", markersize=4, label="agrees with the network"
        )
        if not np.isnan(levels[0].accuracy):
            axes.plot(where, [level.accuracy for level in levels], "s--", markersize=4, label="is right")
            axes.axhline(accuracy, color=INK, linewidth=1.1, linestyle="-.", label="the network is right")
        axes.axhline(majority, color=MUTED, linewidth=1.1, linestyle=":", label="always the same answer")
        axes.set(xlabel="level (1 the root, 2 the most general modes)", ylabel="share of test images")
        if len(where) > 12:
            axes.set_xscale("log")
            ticks = [level for level in (1, 2, 3, 5, 10, 20, 50, 100, 200) if level <= where[-1]]
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.minorticks_off()
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        figure.legend(loc="outside lower left", ncols=2)
    return figure


def way_figure(
    picture: Picture,
    maps: LayerMaps,
    row: int,
    contributions: ArrayLike,
    parts: Mapping[str, tuple[float, float, float]],
    title: str,
) -> Figure:
    """Draw what one image's score rests on: where its strongest filters are, and what they and parts contribute.

    Parameters
    ----------
    picture : ndarray of uint8, (side, side, 3)
        The image.
    maps : LayerMaps
        Of it and others.
    row : int
        Its number there.
    contributions : array_like of float, (filters,)
        By the node of the second level.
    parts : mapping of str to (float, float, float)
        What each part contributes by that node and by the leaf, and the drop of the network's score without it; may be
        empty.
    title : str
        Above it.
    """
    added = np.asarray(contributions, dtype=np.float64)
    largest = np.argsort(-np.abs(added), kind="stable")[:5]
    rows, columns = (matrix.numpy() for matrix in maps.grid.interpolation(picture.shape[:2]))
    values = maps.tensor([row])[0].numpy()
    with style():
        figure = new_figure(8.4, 2.3 + (2.4 if parts else 0.0))
        shares = [2.3, 2.4][: 1 + bool(parts)]
        above, *below = figure.subfigures(len(shares), 1, squeeze=False, height_ratios=shares)[:, 0].tolist()
        pictures = above.subplots(1, 1 + len(largest))
        pictures[0].imshow(picture)
        bare(pictures[0])
        pictures[0].set_title("image", fontsize=9.5, fontweight="normal", pad=3)
        total = float(np.abs(added).sum()) or 1.0
        for axes, number in zip(pictures[1:], largest.tolist(), strict=True):
            heat = rows @ values[number] @ columns.T
            active = heat > 0.5 * heat.max() if heat.max() > 0 else np.zeros(heat.shape, dtype=bool)
            axes.imshow(outlined(picture, active))
            bare(axes)
            axes.set_title(
                f"{number}: {added[number] / total:+.1%}", fontsize=9.5, fontweight="normal", pad=3
            )
        above.suptitle(title, x=0.01, ha="left", fontsize=12)
        if below:
            _draw_parts(below[0].subplots(), parts)
    return figure


def _draw_parts(axes: Axes, parts: Mapping[str, tuple[float, float, float]]) -> None:
    names = list(parts)
    amounts = np.array([parts[name] for name in names])
    places = np.arange(len(names))
    for offset, (label, colour) in enumerate(
        (("second level", colour_of(0)), ("leaf", colour_of(4)), ("score's drop without it", colour_of(1)))
    ):
        axes.bar(places + 0.27 * (offset - 1), amounts[:, offset], 0.25, color=colour, label=label)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xticks(places, names)
    axes.set(ylabel="contribution to the score")
    axes.grid(axis="x", visible=False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
