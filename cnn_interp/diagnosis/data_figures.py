"""Pictures of the checks that go back to the training data and to questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from interpretkit.visualization import colour_of, new_figure, style
from interpretkit.visualization.style import INK, MUTED

GOOD, BAD = "#009E73", "#D55E00"
HEAT = "inferno"


def influence_sheet(
    pictures: Sequence[NDArray[np.uint8]],
    tests: Sequence[tuple[NDArray[np.uint8], str]],
    helpful: Sequence[Sequence[tuple[int, str]]],
    harmful: Sequence[Sequence[tuple[int, str]]],
) -> Figure:
    """Draw test images, each with the training images that help and harm it most.

    Parameters
    ----------
    pictures : sequence of ndarray of uint8, (h, w) or (h, w, 3)
        The training images.
    tests : sequence of (picture, caption)
        The test images.
    helpful, harmful : sequence of sequences of (place, caption)
        For each test image, training images by their place in `pictures`.
    """
    count = len(helpful[0])
    with style():
        figure = new_figure(1.25 * (2 * count + 1) + 0.4, 1.65 * len(tests) + 0.5)
        axes = figure.subplots(len(tests), 2 * count + 1, squeeze=False)
        for row, (picture, caption) in enumerate(tests):
            _picture(axes[row, 0], picture, caption, INK, size=10)
            for column, (place, text) in enumerate(helpful[row], start=1):
                _picture(axes[row, column], pictures[place], text, GOOD, size=10)
            for column, (place, text) in enumerate(harmful[row], start=count + 1):
                _picture(axes[row, column], pictures[place], text, BAD, size=10)
        axes[0, 0].set_title("test image", fontsize=12)
        axes[0, 1].set_title("helps most →", fontsize=12, color=GOOD)
        axes[0, count + 1].set_title("harms most →", fontsize=12, color=BAD)
    return figure


def picture_grid(
    pictures: Sequence[NDArray[np.uint8]],
    captions: Sequence[str],
    colours: Sequence[str],
    *,
    columns: int = 6,
) -> Figure:
    """Draw pictures in rows, each in a frame of its colour with a caption below."""
    rows = -(-len(pictures) // columns)
    with style():
        figure = new_figure(1.35 * columns, 1.75 * rows)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes[len(pictures) :]:
            axis.axis("off")
        for axis, picture, caption, colour in zip(axes, pictures, captions, colours, strict=False):
            _picture(axis, picture, caption, colour)
    return figure


def retraining_figure(
    predicted: NDArray[np.floating], measured: NDArray[np.floating], correlation: float
) -> Figure:
    """Draw the predicted against the measured changes of test losses when training examples are left out."""
    with style():
        figure = new_figure(4.8, 4.4)
        axes = figure.subplots()
        for row in range(len(predicted)):
            axes.plot(predicted[row], measured[row], "o", color=colour_of(row), markersize=3.5, alpha=0.7)
        low = float(min(predicted.min(), measured.min()))
        high = float(max(predicted.max(), measured.max()))
        axes.plot([low, high], [low, high], color=MUTED, linewidth=1, zorder=0)
        axes.set(
            xlabel="change of the test loss, predicted",
            ylabel="measured by training again",
            title=f"Left out one at a time (rank correlation {correlation:.3f})",
        )
        axes.ticklabel_format(style="sci", scilimits=(-3, 3))
    return figure


def checking_figure(curves: Mapping[str, NDArray[np.floating]]) -> Figure:
    """Draw the share of wrong labels found against the share of the training images checked.

    Parameters
    ----------
    curves : mapping of str to ndarray of float, (n,)
        Found after checking 1, 2, … images.
    """
    with style():
        figure = new_figure(4.8, 4.4)
        axes = figure.subplots()
        for number, (name, curve) in enumerate(curves.items()):
            checked = np.arange(1, len(curve) + 1) / len(curve)
            line = ":" if name == "random order" else "-"
            axes.plot(checked, curve, line, color=MUTED if line == ":" else colour_of(number), label=name)
        axes.set(
            xlabel="share of the training images checked",
            ylabel="share of the wrong labels found",
            title="Wrong labels found",
            xlim=(0, 0.5),
            ylim=(0, 1.02),
        )
        axes.legend(loc="lower right")
    return figure


def regret_figure(curves: Mapping[str, NDArray[np.floating]], highlighted: str) -> Figure:
    """Draw what explorers found, or the regret that they gathered, against the questions asked.

    Parameters
    ----------
    curves : mapping of str to ndarray of float, (budget,)
        By explorer.
    highlighted : str
        The one that is drawn thick.
    """
    with style():
        figure = new_figure(5.0, 4.2)
        axes = figure.subplots()
        for number, (name, curve) in enumerate(curves.items()):
            axes.plot(
                np.arange(1, len(curve) + 1),
                curve,
                color=colour_of(number),
                linewidth=2.6 if name == highlighted else 1.4,
                label=name.replace("_", "-"),
            )
        axes.set(xlabel="questions asked", ylabel="errors missed so far", title="Cumulative regret")
        axes.legend()
    return figure


def parts_figure(table: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the parts of a partition: how often each was asked about, and how often the network was wrong."""
    rows = [row for row in table if row["asked"]][:12]
    with style():
        figure = new_figure(5.4, max(4.2, 0.9 + 0.34 * len(rows)))
        axes = figure.subplots()
        places = np.arange(len(rows))[::-1]
        asked = np.array([row["asked"] for row in rows], dtype=float)
        wrong = np.array([row["wrong"] for row in rows], dtype=float)
        axes.barh(places, asked, color="#d5dade", label="right")
        axes.barh(places, wrong, color=BAD, label="wrong and sure of it")
        axes.set_yticks(places, [str(row["pattern"]) for row in rows])
        axes.set(xlabel="questions asked", title="Where the questions went")
        axes.grid(visible=False, axis="y")
        axes.legend(loc="lower right")
    return figure


def accuracy_figure(accuracies: Mapping[str, float]) -> Figure:
    """Draw accuracies, each with its distance from the first; the last but one is the student, the last the teacher."""
    with style():
        figure = new_figure(5.6, 0.9 + 0.5 * len(accuracies))
        axes = figure.subplots()
        places = np.arange(len(accuracies))[::-1]
        values = np.array(list(accuracies.values()))
        colours = [MUTED] * (len(values) - 2) + [colour_of(0), colour_of(4)]
        axes.hlines(places, values[0], values, colors=colours, linewidth=3)
        axes.scatter(values, places, s=90, color=colours, zorder=3)
        for place, value in zip(places, values, strict=True):
            axes.annotate(f"{value:.1%}", (value, place), (0, 9), textcoords="offset points", ha="center")
        axes.set_yticks(places, list(accuracies))
        margin = 0.25 * max(float(np.ptp(values)), 0.02)
        axes.set(xlim=(values.min() - margin, values.max() + margin), ylim=(-0.5, len(values) - 0.3))
        axes.set(xlabel="accuracy on unseen examples")
        axes.grid(visible=False, axis="y")
    return figure


def question_sheet(
    image: NDArray[np.uint8],
    outline: NDArray[np.bool_] | None,
    maps: Mapping[str, NDArray[np.floating]],
    words: Sequence[str],
    importance: NDArray[np.floating],
    title: str,
    *,
    right: bool | None,
) -> Figure:
    """Draw a question: the image, the maps laid over it, the words shaded by what they matter to the answer.

    Parameters
    ----------
    image : ndarray of uint8, (h, w, 3)
        What is asked about.
    outline : ndarray of bool, (h, w), or None
        The things asked about.
    maps : mapping of str to ndarray of float, (h, w)
        Not negative.
    words : sequence of str, (q,)
        The question.
    importance : ndarray of float, (q,)
        Of the words.
    title : str
        The answer.
    right : bool or None
        Whether it is right, where this is known.
    """
    with style():
        figure = new_figure(1.75 * (1 + len(maps)), 2.75)
        grid = figure.add_gridspec(2, 1 + len(maps), height_ratios=[0.22, 1])
        line = figure.add_subplot(grid[0, :])
        _words(line, words, importance, title, right)
        axis = figure.add_subplot(grid[1, 0])
        axis.imshow(image)
        _bare(axis)
        _outline(axis, outline)
        axis.set_xlabel("image", fontsize=9)
        grey = np.repeat(image.mean(2, keepdims=True), 3, axis=2) / 255
        for column, (name, values) in enumerate(maps.items(), start=1):
            axis = figure.add_subplot(grid[1, column])
            # Looks share a scale, for one of them may be as good as closed.
            together = (
                [v for n, v in maps.items() if n.startswith("look")] if name.startswith("look") else [values]
            )
            top = max(float(v.max()) for v in together)
            shares = (values / top if top > 0 else np.zeros_like(values))[..., None]
            heat = _coloured(shares[..., 0])
            axis.imshow(np.clip((1 - 0.75 * shares) * 0.6 * grey + 0.75 * shares * heat + 0.1, 0, 1))
            _bare(axis)
            _outline(axis, outline)
            axis.set_xlabel(name, fontsize=9)
    return figure


def _words(
    axis: Axes, words: Sequence[str], importance: NDArray[np.floating], title: str, right: bool | None
) -> None:
    axis.axis("off")
    axis.set(xlim=(0, 1), ylim=(0, 1))
    top = max(float(np.nanmax(importance)), 1e-9)
    x, step = 0.0, 0.0105
    for word, value in zip(words, importance, strict=False):
        width = step * (len(word) + 1.6)
        depth = float(np.clip(value / top, 0, 1)) if np.isfinite(value) else 0.0
        axis.add_patch(
            Rectangle((x, 0.1), width - 0.004, 0.8, color="#E69F00", alpha=0.08 + 0.72 * depth, linewidth=0)
        )
        axis.text(x + (width - 0.004) / 2, 0.5, word, ha="center", va="center", fontsize=10.5)
        x += width
    colour = INK if right is None else GOOD if right else BAD
    axis.text(x + 0.015, 0.5, f"→ {title}", va="center", fontsize=11.5, weight="bold", color=colour)


def _coloured(values: NDArray[np.floating]) -> NDArray[np.floating]:
    import matplotlib

    return np.asarray(matplotlib.colormaps[HEAT](values))[..., :3]


def _outline(axis: Axes, mask: NDArray[np.bool_] | None) -> None:
    if mask is not None and mask.any():
        axis.contour(mask, levels=[0.5], colors="white", linewidths=1.2)


def _bare(axis: Axes) -> None:
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)


def _picture(axis: Axes, picture: NDArray[np.uint8], caption: str, colour: str, size: float = 8) -> None:
    axis.imshow(
        picture, cmap="gray", interpolation="nearest" if max(picture.shape[:2]) < 64 else "antialiased"
    )
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    axis.spines[:].set_visible(True)
    axis.spines[:].set_color(colour)
    axis.spines[:].set_linewidth(2)
    axis.set_xlabel(caption, fontsize=size, labelpad=3)
