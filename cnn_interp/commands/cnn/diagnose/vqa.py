"""Which regions and which words answers about images rest on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.commands._loading import check_given, check_trained
from interpretkit.commandline import Column, Device, Finding, Here, Quiet, Seed, command
from interpretkit.commandline.caution import no_better
from interpretkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from cnn_interp.diagnosis.question_answering.answerer import Answerer
    from cnn_interp.diagnosis.question_answering.exam import Exam
    from interpretkit.visualization.instruments import MappedImage

_ANSWERER = "answerer.safetensors"
_HEAT = "inferno"
_ACCURACY_COLUMNS = {
    "kind": Column("kind of question"),
    "questions": Column("how many were asked"),
    "right": Column("share answered rightly", format=".1%"),
    "without the image": Column("share of the most frequent answer to the same words", format=".1%"),
}
_REGION_COLUMNS = {
    "map": Column(
        "what was laid over the image",
        words={"gradcam": "Grad-CAM", "guided_backprop": "guided backpropagation"},
    ),
    "kind": Column("kind of question"),
    "questions": Column("how many ask about something in the image"),
    "points at it": Column("how often the largest value lies on what was asked about", format=".1%"),
    "any thing": Column("how often pointing at any thing would hit", format=".1%"),
    "random pixel": Column("how often a random pixel would", format=".1%"),
    "mass on it": Column("share of the map's sum on it", format=".1%"),
    "area": Column("its share of the image", format=".1%"),
}


@command(
    out="vqa",
    example=[
        "interpretkit cnn diagnose vqa --out vqa",
        "interpretkit cnn diagnose vqa --answerer vqa/answerer.safetensors --image scene.png "
        '--question "what colour is the circle"',
    ],
)
def vqa(
    model: Annotated[
        Path | None,
        typer.Option(
            "--answerer",
            metavar="FILE",
            help="A network that this command trained before.",
            show_default=False,
        ),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            "--image", metavar="FILE", help="A picture of coloured shapes to ask about.", show_default=False
        ),
    ] = None,
    question: Annotated[
        list[str] | None,
        typer.Option(
            "--question",
            metavar="TEXT",
            help="What to ask about the image; may be repeated.",
            show_default=False,
        ),
    ] = None,
    scenes: Annotated[int, typer.Option("--scenes", min=8, help="Training scenes.")] = 3000,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Of the training.")] = 8,
    questions: Annotated[
        int, typer.Option("--questions", metavar="N", min=8, help="Questions about new scenes, to measure.")
    ] = 400,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> Finding:
    """Show which regions and which words answers about images rest on.

    A small network with attention is trained on generated scenes of coloured shapes, and its attention, Grad-CAM and
    occlusion are compared with exact masks of what was asked about.
    """
    if (image is None) != (not question):
        raise InputError("image and --question: one is given without the other; expected both")
    if image is not None:
        check_given([image], True)
    if model is not None:
        check_trained(model)
    import numpy as np

    from cnn_interp.diagnosis.question_answering.answerer import (
        answers,
        load_answerer,
        save_answerer,
        train_answerer,
    )
    from cnn_interp.diagnosis.question_answering.evidence import (
        attended_regions,
        attributed_regions,
        localization,
    )
    from cnn_interp.diagnosis.question_answering.exam import SIZE, encode, make_exam, prior_answers
    from interpretkit.visualization.instruments import MapViewer

    for text in question or ():
        encode(text)
    picture = None if image is None else _square_picture(image, SIZE)
    history = None
    if model is None:
        answerer, history = train_answerer(
            scenes=scenes, epochs=epochs, seed=seed, device=device, quiet=quiet
        )
    else:
        answerer = load_answerer(model, device)
    exam = make_exam(-(-questions // 8), seed=seed + 1_000_003)
    rows = np.arange(min(questions, len(exam)))
    truth = exam.answers().numpy()[rows]
    given = answers(answerer, exam)[rows]
    prior = prior_answers(make_exam(1000, seed=seed + 2_000_003), exam)[rows]
    kinds = np.array([exam.questions[row].kind for row in rows])
    accuracy, by_prior = float((given == truth).mean()), float((prior == truth).mean())
    attention = attended_regions(answerer, exam, rows).sum(1)
    maps = {"attention": attention}
    for method in ("gradcam", "guided_backprop"):
        maps[method] = attributed_regions(answerer, exam, rows, method=method, quiet=quiet)
    overall = localization(exam, rows, attention)

    found = Finding(
        "Where it looked, and which words it heard",
        f"The network answers {accuracy:.1%} of {len(rows)} questions about new scenes; without the image, the "
        f"most frequent answer to the same words is right in {by_prior:.1%}. Its attention is largest on what "
        f"was asked about in {overall.pointing:.1%}; pointing at any thing in the scene would hit "
        f"in {overall.by_any_thing:.1%}, at a random pixel in {overall.by_chance:.1%}.",
    ).reads(*(path for path in (model, image) if path is not None))
    if picture is not None:
        answers = _answers(answerer, picture, question or [])
        for text, (said, _) in answers.items():
            found.number(text, said, f"“{text}”")
        explained = [one for _, one in answers.values()]
    else:
        explained = _examples(answerer, exam, rows, kinds, given, truth)
    found.number("accuracy", accuracy, "right", format=".1%", note=f"without the image {by_prior:.1%}")
    found.number(
        "attention_points_at_it",
        overall.pointing,
        "attention points at it",
        format=".1%",
        note=f"any thing {overall.by_any_thing:.1%}, random pixel {overall.by_chance:.1%}",
    )
    found.number(
        "attention_mass",
        overall.mass,
        "attention's mass on it",
        format=".1%",
        note=f"its area {overall.area:.1%}",
    )
    found.values.update(
        accuracy_without_image=by_prior, any_thing=overall.by_any_thing, random_pixel=overall.by_chance
    )
    found.warn(
        *no_better("the network", accuracy, "answering without the image", by_prior, form=".1%"),
        *no_better(
            "the attention", overall.pointing, "pointing at any thing", overall.by_any_thing, form=".1%"
        ),
    )
    shown = found.section(
        "Questions",
        "White outlines: what was asked about; the network is not told. It looks twice, drawn on one scale: of a "
        "look that stays dark it makes no use. The deeper a word's shade, the more the answer's "
        "probability falls when it is covered.",
    )
    if explained:
        images = [replace(one.mapped, name=f"{k}. {one.mapped.name}") for k, one in enumerate(explained, 1)]
        shown.instrument(
            MapViewer(images, of_what="answer", by_what="rests on", label="Where answers about images rest")
        )
    for number, one in enumerate(explained):
        alt = f"{one.mapped.name} {one.mapped.note} The image, and the regions that the answer rests on"
        shown.figure(f"question-{number}.png", one.sheet, alt=alt)
    found.section("Answers").table("accuracy.csv", _accuracies(kinds, given, truth, prior), _ACCURACY_COLUMNS)
    found.section(
        "Regions",
        "Over the questions about something in the image. A map points at what its largest value lies on.",
    ).table("localization.csv", _regions(exam, rows, kinds, maps), _REGION_COLUMNS)
    found.next_step(
        "Ask about a picture of your own:",
        "interpretkit cnn diagnose vqa --answerer",
        Here(_ANSWERER) if model is None else model,
        *("--image", "scene.png", "--question", "how many red things are there"),
    )
    if history is not None:
        found.file(_ANSWERER, lambda path: save_answerer(path, answerer))
        found.table("training.csv", history.epochs)
    return found


def _accuracies(
    kinds: NDArray[np.str_], given: NDArray[np.int64], truth: NDArray[np.int64], prior: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """Return for each kind of question how many answers are right, with and without the image."""
    from cnn_interp.diagnosis.question_answering.exam import KINDS

    return [
        {
            "kind": kind,
            "questions": int((kinds == kind).sum()),
            "right": float((given == truth)[kinds == kind].mean()),
            "without the image": float((prior == truth)[kinds == kind].mean()),
        }
        for kind in KINDS
        if (kinds == kind).any()
    ]


def _regions(
    exam: Exam, rows: NDArray[np.intp], kinds: NDArray[np.str_], maps: dict[str, NDArray[np.floating]]
) -> list[dict[str, Any]]:
    """Return for each map and kind of question how well the map points at what was asked about."""
    from cnn_interp.diagnosis.question_answering.evidence import localization
    from cnn_interp.diagnosis.question_answering.exam import KINDS

    table: list[dict[str, Any]] = []
    for name, found in maps.items():
        for kind in KINDS:
            chosen = kinds == kind
            if not any(exam.questions[row].asked for row in rows[chosen]):
                continue
            result = localization(exam, rows[chosen], found[chosen])
            table.append(
                {
                    "map": name,
                    "kind": kind,
                    "questions": result.count,
                    "points at it": result.pointing,
                    "any thing": result.by_any_thing,
                    "random pixel": result.by_chance,
                    "mass on it": result.mass,
                    "area": result.area,
                }
            )
    return table


def _examples(
    answerer: Answerer,
    exam: Exam,
    rows: NDArray[np.intp],
    kinds: NDArray[np.str_],
    given: NDArray[np.int64],
    truth: NDArray[np.int64],
) -> list[_Explained]:
    """Draw two right answers of each kind about something in the image, and two wrong ones."""
    import numpy as np

    from cnn_interp.diagnosis.question_answering.exam import ANSWERS, KINDS

    sheets = []
    asks = np.array([bool(exam.questions[row].asked) for row in rows])
    for number, kind in enumerate(KINDS):
        right = rows[(kinds == kind) & (given == truth) & asks]
        if not len(right):
            continue
        # The first of each of two scenes.
        _, firsts = np.unique(exam.scene_of[right], return_index=True)
        for row in right[firsts[2 * number :][:2]]:
            sheets.append(_explained_answer(answerer, exam, int(row), ANSWERS[given[row]], True))
    for row in rows[given != truth][:2]:
        title = f"{ANSWERS[given[row]]} (true: {ANSWERS[truth[row]]})"
        sheets.append(_explained_answer(answerer, exam, int(row), title, False))
    return sheets


def _answers(
    answerer: Answerer, picture: NDArray[np.uint8], questions: list[str]
) -> dict[str, tuple[str, _Explained]]:
    """Return from each question about a picture to its answer and a drawing of what that rests on."""
    import numpy as np

    from cnn_interp.diagnosis.question_answering.answerer import answer
    from cnn_interp.diagnosis.question_answering.exam import SIZE, Exam, Question
    from cnn_interp.images.scenes import Scene

    found = {}
    scene = Scene(picture, (), np.zeros((0, SIZE, SIZE), dtype=bool), "")
    for text in questions:
        own = Exam((scene,), (Question("own", text, "yes", ()),), np.zeros(1, dtype=np.int64))
        said, chance = answer(answerer, picture, text)
        found[text] = said, _explained_answer(answerer, own, 0, f"{said} ({chance:.0%})", None)
    return found


def _square_picture(path: Path, size: int) -> NDArray[np.uint8]:
    import numpy as np
    from PIL import ImageOps

    from cnn_interp.images.files import read_image

    # A copy, for what Pillow lends cannot be written to, which torch warns of.
    return np.array(ImageOps.fit(read_image(path, convert=True), (size, size)), dtype=np.uint8)


@dataclass(frozen=True)
class _Explained:
    """An answer with what it rests on: a drawing, and the image with its maps."""

    sheet: Figure
    mapped: MappedImage


def _explained_answer(answerer: Answerer, exam: Exam, row: int, title: str, right: bool | None) -> _Explained:
    """Draw a question of an exam with the network's looks, Grad-CAM, occlusion and the words that mattered."""
    from PIL import Image

    from cnn_interp.diagnosis.question_answering.evidence import (
        attended_regions,
        attributed_regions,
        word_importance,
    )
    from interpretkit.visualization.instruments import Map, MappedImage

    looks = attended_regions(answerer, exam, [row])[0]
    maps = {f"look {number + 1}": look for number, look in enumerate(looks)}
    for method, name in (("gradcam", "Grad-CAM"), ("occlusion", "occlusion")):
        maps[name] = attributed_regions(answerer, exam, [row], method=method)[0]
    words = exam.questions[row].text.replace("?", "").split()
    importance = word_importance(answerer, exam, [row])[0][: len(words)]
    scene = exam.scenes[exam.scene_of[row]]
    mask = exam.mask(row) if exam.questions[row].asked else None
    sheet = _question_sheet(scene.image, mask, maps, words, importance, title, right=right)
    # Drawn larger, pixel by pixel, for scenes are small.
    picture = Image.fromarray(scene.image)
    picture = picture.resize((picture.width * 4, picture.height * 4), Image.Resampling.NEAREST)
    layers = [
        Map(values / top, title, name, top, signed=False, meaning=f"(largest value of the map; {name})")
        for name, values in maps.items()
        for top in (float(values.max()) or 1.0,)
    ]
    return _Explained(sheet, MappedImage(exam.questions[row].text, picture, layers, note=f"Answer: {title}."))


def _question_sheet(
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
        Importance of the words.
    title : str
        The answer.
    right : bool or None
        Whether it is right, where this is known.
    """
    import numpy as np

    from cnn_interp.diagnosis.pictures import bare
    from interpretkit.visualization import new_figure, style

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
    import numpy as np
    from matplotlib.patches import Rectangle

    from cnn_interp.diagnosis.pictures import BAD, GOOD
    from interpretkit.visualization.style import INK

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
    import numpy as np

    return np.asarray(matplotlib.colormaps[_HEAT](values))[..., :3]


def _outline(axis: Axes, mask: NDArray[np.bool_] | None) -> None:
    if mask is not None and mask.any():
        axis.contour(mask, levels=[0.5], colors="white", linewidths=1.2)
