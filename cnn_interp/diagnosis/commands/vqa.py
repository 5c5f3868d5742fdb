"""The command ``vqa``: which regions and which words answers about images rest on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.diagnosis.commands.loading import check_answerer, check_given
from interpretkit.command import Device, Out, Quiet, Seed, command
from interpretkit.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from cnn_interp.diagnosis.question_answering import Answerer, Exam


def register(app: typer.Typer) -> None:
    """Add the command to a group."""
    command(
        app,
        "vqa",
        example=[
            "interpretkit cnn diagnose vqa --out vqa",
            "interpretkit cnn diagnose vqa --answerer vqa/answerer.safetensors --image scene.png "
            '--question "what colour is the circle"',
        ],
    )(vqa)


def vqa(
    out: Out = Path("vqa"),
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
) -> dict[str, Any]:
    """Show which regions and which words answers about images rest on.

    A small network with attention is trained on generated scenes of coloured shapes, and its attention, Grad-CAM and
    occlusion are compared with exact masks of what was asked about.
    """
    if (image is None) != (not question):
        raise InputError("--image and --question: one is given without the other; expected both")
    if image is not None:
        check_given([image], True)
    if model is not None:
        check_answerer(model)

    import numpy as np

    from cnn_interp.diagnosis import question_answering as qa
    from cnn_interp.diagnosis.reports.page import save_page
    from cnn_interp.diagnosis.reports.vqa import vqa_report
    from interpretkit.caution import no_better
    from interpretkit.results import run_folder

    for text in question or ():
        qa.encode(text)
    files = [path for path in (model, image) if path is not None]
    arguments = {
        "model": model, "image": image, "question": list(question or ()), "scenes": scenes, "epochs": epochs,
        "questions": questions,
    }  # fmt: skip
    with run_folder(out, "cnn diagnose vqa", arguments, seed, files) as run:
        picture = None if image is None else _square_picture(image, qa.SIZE)
        if model is None:
            answerer, history = qa.train_answerer(
                scenes=scenes, epochs=epochs, seed=seed, device=device, quiet=quiet
            )
            qa.save_answerer(run.path("answerer.safetensors"), answerer)
            run.save_table("training.csv", history.epochs)
        else:
            answerer = qa.load_answerer(model, device)
        exam = qa.make_exam(-(-questions // 8), seed=seed + 1_000_003)
        rows = np.arange(min(questions, len(exam)))
        truth = exam.answers().numpy()[rows]
        given = qa.answers(answerer, exam)[rows]
        prior = qa.prior_answers(qa.make_exam(1000, seed=seed + 2_000_003), exam)[rows]
        kinds = np.array([exam.questions[row].kind for row in rows])
        accuracy, by_prior = float((given == truth).mean()), float((prior == truth).mean())
        accuracies = [
            {
                "kind": kind,
                "questions": int((kinds == kind).sum()),
                "right": float((given == truth)[kinds == kind].mean()),
                "without the image": float((prior == truth)[kinds == kind].mean()),
            }
            for kind in qa.KINDS
            if (kinds == kind).any()
        ]
        attention = qa.attended_regions(answerer, exam, rows).sum(1)
        maps = {"attention": attention}
        for method in ("gradcam", "guided_backprop"):
            maps[method] = qa.attributed_regions(answerer, exam, rows, method=method, quiet=quiet)
        regions = _regions(exam, rows, kinds, maps)
        run.save_table("localization.csv", regions)
        run.save_table("accuracy.csv", accuracies)
        if picture is None:
            sheets = _examples(answerer, exam, rows, kinds, given, truth)
        else:
            answers = _answers(answerer, picture, question or [])
            run.summary.update({text: said for text, (said, _) in answers.items()})
            sheets = [sheet for _, sheet in answers.values()]
        for number, sheet in enumerate(sheets):
            run.save_figure(f"question-{number}.png", sheet)
        overall = qa.localization(exam, rows, attention)
        report = vqa_report(
            accuracies,
            regions,
            overall,
            sheets,
            accuracy=accuracy,
            by_prior=by_prior,
            questions=len(rows),
            answerer=out / "answerer.safetensors" if model is None else model,
        )
        warnings = no_better("the network", accuracy, "answering without the image", by_prior, form=".1%")
        warnings += no_better(
            "the attention", overall.pointing, "pointing at any thing", overall.by_any_thing, form=".1%"
        )
        save_page(report, run, seed=seed, files=files, warnings=warnings)
        run.summary.update(
            accuracy=accuracy, accuracy_without_image=by_prior, attention_points_at_it=overall.pointing,
            any_thing=overall.by_any_thing, random_pixel=overall.by_chance,
        )  # fmt: skip
    return {**run.summary, "out": out}


def _regions(
    exam: Exam, rows: NDArray[np.intp], kinds: NDArray[np.str_], maps: dict[str, NDArray[np.floating]]
) -> list[dict[str, Any]]:
    """Return for each map and kind of question how well the map points at what was asked about."""
    from cnn_interp.diagnosis import question_answering as qa

    table: list[dict[str, Any]] = []
    for name, found in maps.items():
        for kind in qa.KINDS:
            chosen = kinds == kind
            if not any(exam.questions[row].asked for row in rows[chosen]):
                continue
            result = qa.localization(exam, rows[chosen], found[chosen])
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
) -> list[Figure]:
    """Draw two right answers of each kind about something in the image, and two wrong ones."""
    import numpy as np

    from cnn_interp.diagnosis import question_answering as qa
    from cnn_interp.diagnosis.reports.vqa import explained_answer

    sheets = []
    asks = np.array([bool(exam.questions[row].asked) for row in rows])
    for number, kind in enumerate(qa.KINDS):
        right = rows[(kinds == kind) & (given == truth) & asks]
        if not len(right):
            continue
        # The first of each of two scenes.
        _, firsts = np.unique(exam.scene_of[right], return_index=True)
        for row in right[firsts[2 * number :][:2]]:
            sheets.append(explained_answer(answerer, exam, int(row), qa.ANSWERS[given[row]], True))
    for row in rows[given != truth][:2]:
        title = f"{qa.ANSWERS[given[row]]} (true: {qa.ANSWERS[truth[row]]})"
        sheets.append(explained_answer(answerer, exam, int(row), title, False))
    return sheets


def _answers(
    answerer: Answerer, picture: NDArray[np.uint8], questions: list[str]
) -> dict[str, tuple[str, Figure]]:
    """Return from each question about a picture to its answer and a drawing of what that rests on."""
    import numpy as np

    from cnn_interp.diagnosis import question_answering as qa
    from cnn_interp.diagnosis.reports.vqa import explained_answer

    found = {}
    scene = qa.Scene(picture, (), np.zeros((0, qa.SIZE, qa.SIZE), dtype=bool), "")
    for text in questions:
        own = qa.Exam((scene,), (qa.Question("own", text, "yes", ()),), np.zeros(1, dtype=np.int64))
        said, chance = qa.answer(answerer, picture, text)
        found[text] = said, explained_answer(answerer, own, 0, f"{said} ({chance:.0%})", None)
    return found


def _square_picture(path: Path, size: int) -> NDArray[np.uint8]:
    import numpy as np
    from PIL import ImageOps

    from cnn_interp.images import read_image

    # A copy, for what Pillow lends cannot be written to, which torch warns of.
    return np.array(ImageOps.fit(read_image(path, convert=True), (size, size)), dtype=np.uint8)
