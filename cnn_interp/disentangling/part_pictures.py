"""Pictures of part graphs: parsed images with boxes and patterns, what patterns look like, errors by annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter
from numpy.typing import NDArray

from cnn_interp.disentangling.part_baselines import GRAPH, MEAN, Trial, interval, mean_errors
from cnn_interp.disentangling.part_graph import Parses, PartGraph
from cnn_interp.images.sets import Images, resized
from interpretkit.visualization import colour_of, marker_of, new_figure, style
from interpretkit.visualization.style import MUTED

FOUND, TRUE, PATTERN = "#ff3b6b", "#ffd60a", "#56B4E9"
# Patterns drawn in an image: those that say most.
_PATTERNS = 9


def parsed_figure(
    images: Images,
    rows: Sequence[int],
    parses: Parses,
    graph: PartGraph,
    landmarks: NDArray[np.float64] | None = None,
) -> Figure:
    """Draw images with the part's box and centre and the patterns that say most, joined to the centre.

    Parameters
    ----------
    images : Images
        The set.
    rows : sequence of int
        Their numbers in it.
    parses : Parses
        Of these images, in that order.
    graph : PartGraph
        Which parsed them.
    landmarks : ndarray of float, (n, 2), optional
        Row and column where the part is in each, px; drawn as a ring.
    """
    height, width = graph.encoder.grid.image
    columns = min(4, len(rows))
    lines = -(-len(rows) // columns)
    with style():
        figure = new_figure(8.2, 8.2 / columns * lines + 0.2)
        every = np.atleast_2d(figure.subplots(lines, columns, squeeze=False)).ravel().tolist()
        for axes in every:
            axes.axis("off")
        for place, (axes, row) in enumerate(zip(every, rows, strict=False)):
            axes.imshow(images.image(int(row)), extent=(-0.5, width - 0.5, height - 0.5, -0.5))
            strengths = graph.templates[parses.templates[place]].strengths
            centre = parses.places[place]
            for pattern in np.argsort(-strengths, kind="stable")[:_PATTERNS]:
                where = parses.patterns[place, pattern]
                if np.isnan(where).any():
                    continue
                axes.plot(*np.stack([centre, where])[:, ::-1].T, color=PATTERN, linewidth=0.8, alpha=0.8)
                size = 12 + 60 * strengths[pattern] / strengths.max()
                axes.scatter(where[1], where[0], s=size, color=PATTERN, edgecolors="white", linewidths=0.6)
            top, left, bottom, right = parses.boxes[place]
            box = Rectangle(
                (left, top), right - left, bottom - top, fill=False, edgecolor=FOUND, linewidth=1.8
            )
            axes.add_patch(box)
            axes.scatter(
                parses.centres[place, 1], parses.centres[place, 0], s=55, marker="x", color=FOUND, linewidths=2,
                zorder=4,
            )  # fmt: skip
            if landmarks is not None and not np.isnan(landmarks[place]).any():
                axes.scatter(
                    landmarks[place, 1], landmarks[place, 0], s=70, facecolors="none", edgecolors=TRUE,
                    linewidths=1.9, zorder=4,
                )  # fmt: skip
            axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    return figure


def annotated_figure(images: Images, graph: PartGraph, landmarks: NDArray[np.float64]) -> Figure:
    """Draw the images that a graph was grown from, with what was annotated as a ring.

    Parameters
    ----------
    images : Images
        The set.
    graph : PartGraph
        Grown on it.
    landmarks : ndarray of float, (n, 2)
        Row and column of the part in every image of the set, px of inputs.
    """
    shown = [note.image for note in graph.annotations][:12]
    height, width = graph.encoder.grid.image
    columns = min(6, max(len(shown), 3))
    lines = -(-len(shown) // columns)
    with style():
        figure = new_figure(8.2, 8.2 / columns * lines + 0.2)
        every = figure.subplots(lines, columns, squeeze=False).ravel().tolist()
        for axes in every:
            axes.axis("off")
        for axes, row in zip(every, shown, strict=False):
            axes.imshow(images.image(row), extent=(-0.5, width - 0.5, height - 0.5, -0.5))
            axes.scatter(
                landmarks[row, 1], landmarks[row, 0], s=90, facecolors="none", edgecolors=TRUE, linewidths=2.2
            )
    return figure


def pattern_figure(
    images: Images,
    rows: Sequence[int],
    parses: Parses,
    graph: PartGraph,
    template: int = 0,
    *,
    patterns: int = 5,
    columns: int = 8,
) -> Figure:
    """Draw what the patterns of a template that say most look like: patches about them, where they say most.

    Parameters
    ----------
    images : Images
        The set.
    rows : sequence of int
        Numbers of the parsed images in it.
    parses : Parses
        Of these images, in that order.
    graph : PartGraph
        Which parsed them.
    template : int
        Which template.
    patterns, columns : int
        How many patterns, and how many patches of each, at most.
    """
    height, width = graph.encoder.grid.image
    one = graph.templates[template]
    chosen = np.argsort(-one.strengths, kind="stable")[:patterns]
    half = max(2 * max(graph.encoder.grid.field.stride), max(height, width) / 8)
    with style():
        figure = new_figure(8.2, 1.05 * len(chosen) + 0.2)
        grid = figure.subplots(len(chosen), columns, squeeze=False)
        for line, pattern in enumerate(chosen):
            values = np.where(
                np.isnan(parses.patterns[:, pattern, 0]) | (parses.templates != template),
                -np.inf,
                parses.values[:, pattern],
            )
            best = [
                place for place in np.argsort(-values, kind="stable")[:columns] if np.isfinite(values[place])
            ]
            for axes in grid[line]:
                axes.set(xticks=[], yticks=[])
                axes.set_frame_on(False)
            down, across = one.offsets[pattern]
            grid[line, 0].set_ylabel(
                f"{down:+d}, {across:+d}\n{one.strengths[pattern]:.0%}",
                rotation=0,
                ha="right",
                va="center",
                fontsize=9,
            )
            for axes, place in zip(grid[line], best, strict=False):
                picture = resized(images.image(int(rows[place])), height, width)
                row, column = parses.patterns[place, pattern]
                top, left = (
                    int(np.clip(x - half, 0, side - 2 * half)) for x, side in ((row, height), (column, width))
                )
                patch = picture[top : top + int(2 * half), left : left + int(2 * half)]
                # So that all face the way in which the template was laid on them.
                axes.imshow(patch[:, ::-1] if parses.flipped[place] else patch)
    return figure


def error_figure(trials: Mapping[str, Sequence[Trial]] | Sequence[Trial]) -> Figure:
    """Draw the error of each method against the number of annotations, means over draws with their 95 % intervals.

    Parameters
    ----------
    trials : sequence of Trial, or mapping of str to sequence of Trial
        Of one part, or of several by their names, each then in a panel of its own.
    """
    panels = trials if isinstance(trials, Mapping) else {"": trials}
    methods = list(dict.fromkeys(trial.method for some in panels.values() for trial in some))
    with style():
        figure = new_figure(4.2 * max(len(panels), 1) + 0.6, 3.9)
        every = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (name, some) in zip(every, panels.items(), strict=True):
            counts = sorted({trial.annotations for trial in some})
            for number, method in enumerate(methods):
                lines = [mean_errors(some, count).get(method, np.array([np.nan])) for count in counts]
                means = np.array([line.mean() for line in lines])
                colour = MUTED if method == MEAN else colour_of(number)
                axes.plot(
                    counts, means, marker=marker_of(number), color=colour, label=method,
                    linewidth=2.6 if method == GRAPH else 1.4, linestyle="--" if method == MEAN else "-",
                    zorder=3 if method == GRAPH else 2,
                )  # fmt: skip
                ends = [interval(line) for line in lines]
                known = [place for place, end in enumerate(ends) if end is not None]
                if known and method in (GRAPH, MEAN):
                    low, high = np.array([ends[place] for place in known]).T
                    axes.fill_between(
                        np.array(counts)[known], low, high, color=colour, alpha=0.15, linewidth=0
                    )
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(FixedLocator(counts))
            axes.xaxis.set_major_formatter(FixedFormatter([str(count) for count in counts]))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set(xlabel="annotated images", title=name)
        every[0].set(ylabel="distance over the diagonal", ylim=(0, None))
        handles, labels = every[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=3)
    return figure
