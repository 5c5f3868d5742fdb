"""What ``vqa`` shows: where a network looked for its answers, and which words they rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from cnn_interp.diagnosis import question_answering as qa
from cnn_interp.diagnosis.reports.page import page
from cnn_interp.diagnosis.reports.pictures import BAD, GOOD, bare
from interpretkit.visualization import Report, new_figure, style
from interpretkit.visualization.style import INK

HEAT = "inferno"


def explained_answer(
    answerer: qa.Answerer, exam: qa.Exam, row: int, title: str, right: bool | None
) -> Figure:
    """Draw a question of an exam with the network's looks, Grad-CAM, occlusion and the words that mattered."""
    looks = qa.attended_regions(answerer, exam, [row])[0]
    maps = {f"look {number + 1}": look for number, look in enumerate(looks)}
    for method, name in (("gradcam", "Grad-CAM"), ("occlusion", "occlusion")):
        maps[name] = qa.attributed_regions(answerer, exam, [row], method=method)[0]
    words = exam.questions[row].text.replace("?", "").split()
    importance = qa.word_importance(answerer, exam, [row])[0][: len(words)]
    scene = exam.scenes[exam.scene_of[row]]
    mask = exam.mask(row) if exam.questions[row].asked else None
    return question_sheet(scene.image, mask, maps, words, importance, title, right=right)


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
        bare(axis)
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
            bare(axis)
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
    return np.asarray(matplotlib.colormaps[HEAT](values))[..., :3]


def _outline(axis: Axes, mask: NDArray[np.bool_] | None) -> None:
    if mask is not None and mask.any():
        axis.contour(mask, levels=[0.5], colors="white", linewidths=1.2)


def vqa_report(
    accuracies: Sequence[Mapping[str, Any]],
    regions: Sequence[Mapping[str, Any]],
    overall: qa.Localization,
    sheets: Sequence[Figure],
    *,
    accuracy: float,
    by_prior: float,
    questions: int,
    answerer: Path,
) -> Report:
    """Return the page.

    Parameters
    ----------
    accuracies, regions : sequence of mappings
        By kind of question, and by map and kind.
    overall : Localization
        Of the attention, over all kinds.
    sheets : sequence of Figure
        What :func:`explained_answer` drew.
    accuracy, by_prior : float
        Of the network, and of the most frequent answer to the same words.
    questions : int
        How many were asked.
    answerer : pathlib.Path
        The trained network's file.
    """
    report = page(
        "vqa",
        "Where it looked, and which words it heard",
        f"The network answers {accuracy:.1%} of {questions} questions about new scenes; without the image, the "
        f"most frequent answer to the same words is right in {by_prior:.1%}. Its attention is largest on what "
        f"was asked about in {overall.pointing:.1%}; pointing at any thing in the scene would hit "
        f"in {overall.by_any_thing:.1%}, at a random pixel in {overall.by_chance:.1%}.",
    )
    report.add_numbers(
        {
            "right": (f"{accuracy:.1%}", f"without the image {by_prior:.1%}"),
            "attention points at it": (
                f"{overall.pointing:.1%}",
                f"any thing {overall.by_any_thing:.1%}, random pixel {overall.by_chance:.1%}",
            ),
            "attention's mass on it": (f"{overall.mass:.1%}", f"its area {overall.area:.1%}"),
        }
    )
    report.add_section(
        "Questions",
        "White outlines: what was asked about; the network is not told. It looks twice, drawn on one scale: of a "
        "look that stays dark it makes no use. The deeper a word's shade, the more the answer's "
        "probability falls when it is covered.",
    )
    for sheet in sheets:
        report.add_figures((sheet, "", "A question, the image, and the regions that the answer rests on"))
    report.add_section("Answers", table=accuracies, formats={"right": ".1%", "without the image": ".1%"})
    report.add_section(
        "Regions",
        "Over the questions about something in the image. A map points at what its largest value lies on.",
        table=regions,
        formats=dict.fromkeys(("points at it", "any thing", "random pixel", "mass on it", "area"), ".1%"),
    )
    report.add_next_step(
        "Ask about a picture of your own:",
        [
            "interpretkit",
            "cnn",
            "diagnose",
            "vqa",
            "--answerer",
            answerer,
            "--image",
            "scene.png",
            "--question",
            "how many red things are there",
        ],
    )
    return report
