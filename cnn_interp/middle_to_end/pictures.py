"""Pictures of dialogues: what is asked, how the error fell, and what was asked about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from cnn_interp.disentangling.part_graph import Annotation, Parses
from cnn_interp.disentangling.part_pictures import FOUND, TRUE
from cnn_interp.images.sets import Images
from cnn_interp.middle_to_end.simulation import Step
from interpretkit.visualization import colour_of, marker_of, new_figure, style
from interpretkit.visualization.style import MUTED

# Of all that was asked, so many images are shown.
SHOWN = 24


def question_figure(images: Images, row: int, parse: Parses | None, image: tuple[int, int]) -> Figure:
    """Draw the image that is asked about with the box that the graph proposes, on axes in px of the network's input.

    Parameters
    ----------
    images : Images
        The set.
    row : int
        The image's number in it.
    parse : Parses or None
        What the graph makes of this image alone; None draws no box.
    image : (int, int)
        Height and width of inputs, px.
    """
    height, width = image
    with style():
        figure = new_figure(5.6, 5.6 * height / width)
        axes = figure.subplots()
        axes.imshow(images.image(row), extent=(-0.5, width - 0.5, height - 0.5, -0.5))
        if parse is not None:
            top, left, bottom, right = parse.boxes[0]
            axes.add_patch(
                Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=FOUND, linewidth=2.2)
            )
            axes.scatter(*parse.centres[0, ::-1], s=90, marker="x", color=FOUND, linewidths=2.4)
        axes.set(xlabel="column, px", ylabel="row, px", xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        axes.grid(color="white", alpha=0.35, linewidth=0.6)
    return figure


def curve_figure(curves: Mapping[str, Sequence[Step]]) -> Figure:
    """Draw the error after each answer for one or more orders of questions, and what the first expected it to be."""
    with style():
        figure = new_figure(6.4, 3.8)
        axes = figure.subplots()
        for number, (name, steps) in enumerate(curves.items()):
            counts = [step.answers for step in steps]
            axes.plot(
                counts, [step.error for step in steps], marker=marker_of(number), color=colour_of(number),
                label=name, linewidth=2.4 if number == 0 else 1.4,
            )  # fmt: skip
            if number == 0:
                axes.plot(
                    counts, [step.expected for step in steps], color=MUTED, linestyle="--", linewidth=1.4,
                    label=f"{name}, expected",
                )  # fmt: skip
        axes.set(xlabel="answers", ylabel="distance over the diagonal", ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside lower left", ncols=3)
    return figure


def asked_figure(images: Images, notes: Sequence[Annotation], image: tuple[int, int]) -> Figure:
    """Draw the images that were asked about in the order of the answers, the part ringed where it is said to be."""
    height, width = image
    shown = notes[:SHOWN]
    columns = min(8, max(len(shown), 4))
    lines = max(-(-len(shown) // columns), 1)
    with style():
        figure = new_figure(8.2, 8.2 / columns * lines * 1.15 + 0.2)
        every = figure.subplots(lines, columns, squeeze=False).ravel().tolist()
        for axes in every:
            axes.axis("off")
        for number, (axes, note) in enumerate(zip(every, shown, strict=False), start=1):
            axes.imshow(images.image(note.image), extent=(-0.5, width - 0.5, height - 0.5, -0.5))
            said = "absent" if note.position is None else f"template {note.template}"
            axes.set_title(f"{number}: {said}", fontsize=8)
            if note.position is not None:
                axes.scatter(
                    note.position[1], note.position[0], s=60, facecolors="none", edgecolors=TRUE, linewidths=2
                )
    return figure
