"""The command ``influence``: the training images behind predictions, and labels that are probably wrong."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.diagnosis.commands.loading import check_folders, read_labelled
from cnn_interp.options import Model
from interpretkit.command import Device, Out, Quiet, Seed, command
from interpretkit.errors import InputError

if TYPE_CHECKING:
    from cnn_interp.diagnosis.training_audit import LabelledImages

DIGITS_FOR_TRAINING = 600


def register(app: typer.Typer) -> None:
    """Add the command to a group."""
    command(
        app,
        "influence",
        example=[
            "interpretkit cnn diagnose influence --out influence",
            "interpretkit cnn diagnose influence my-images/ --model mobilenet_v2 --out influence",
        ],
    )(influence)


def influence(
    images: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER", help="Training images, a subfolder for each label.", show_default=False
        ),
    ] = None,
    out: Out = Path("influence"),
    network: Model = "mobilenet_v2",
    test: Annotated[
        Path | None,
        typer.Option("--test", metavar="FOLDER", help="Test images; else a fifth of the training images."),
    ] = None,
    flip: Annotated[
        float | None,
        typer.Option(
            "--flip",
            metavar="SHARE",
            help="Labels to falsify, to see whether they are found; 0.1 for digits.",
        ),
    ] = None,
    l2: Annotated[float, typer.Option("--l2", help="Penalty on the head's weights.")] = 0.01,
    questions: Annotated[
        int,
        typer.Option("--questions", metavar="N", min=1, help="Test images explained: those of most loss."),
    ] = 5,
    leave_out: Annotated[
        int,
        typer.Option(
            "--leave-out", metavar="N", min=0, help="Training images left out one by one, as a check."
        ),
    ] = 40,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Find the training images that made predictions what they are, and those that are probably mislabelled.

    A linear classifier is trained on a pretrained network's features, and influence functions tell what it would say
    without each training image. Without a folder, on scikit-learn's digits, a tenth of them falsely labelled.
    """
    share = (0.1 if images is None else 0.0) if flip is None else flip
    if not 0 <= share < 0.5:
        raise InputError(f"--flip {share}: expected a share of 0 to below 0.5")
    if not (l2 > 0 and math.isfinite(l2)):
        raise InputError(f"--l2 {l2}: expected a finite number above 0")
    if images is None and test is not None:
        raise InputError(f"--test {test}: needs a folder of training images")
    check_folders(images, test)

    from cnn_interp.diagnosis.reports import influence as shown
    from cnn_interp.diagnosis.reports.page import save_page
    from cnn_interp.diagnosis.training_audit import audit_training
    from interpretkit.results import run_folder
    from interpretkit.training import resolve_device

    resolve_device(device)
    files = [path for path in (images, test) if path is not None]
    arguments = {
        "images": images, "network": network, "test": test, "flip": share, "l2": l2, "questions": questions,
        "leave_out": leave_out,
    }  # fmt: skip
    with run_folder(out, "cnn diagnose influence", arguments, seed, files) as run:
        if images is None:
            known, unseen, categories = _digits(seed)
            described = "the pixels of handwritten digits"
        else:
            known, unseen, categories = _folders(images, test, network, device, seed, quiet)
            described = f"{network}'s features"
        audit = audit_training(
            known,
            unseen,
            classes=len(categories),
            flip=share,
            l2=l2,
            questions=questions,
            leave_out=leave_out,
            seed=seed,
            quiet=quiet,
        )
        suspects = shown.suspects_table(audit, categories)
        run.save_table("suspects.csv", suspects)
        run.save_table("influences.csv", shown.influence_table(audit, categories))
        run.save_arrays(
            "influence.npz",
            values=audit.influence.values,
            test=audit.explained,
            self_influence=audit.suspicion,
            loss=audit.loss,
            labels=audit.train.labels,
        )
        figures = {
            "influence": shown.explained_sheet(audit, categories),
            "suspects": shown.suspects_sheet(audit, categories),
        }
        if audit.falsified.any():
            curves = shown.checking_curves(audit)
            figures["checking"] = shown.checking_figure(curves)
            for checked, found in shown.found_in_first(curves["self-influence"]).items():
                run.summary[f"found_in_{checked:.0%}"] = found
        if audit.correlation is not None:
            figures["retraining"] = shown.retraining_figure(
                audit.predicted, audit.measured, audit.correlation
            )
        for name, figure in figures.items():
            run.save_figure(f"{name}.png", figure)
        report = shown.influence_report(audit, suspects, figures, described=described, leave_out=leave_out)
        if images is None:
            report.add_next_step(
                "Look through images of your own, a subfolder for each label:",
                "interpretkit cnn diagnose influence my-images/ --out influence",
            )
        save_page(report, run, seed=seed, warnings=shown.warnings(audit))
        run.summary.update(
            n_train=len(audit.train), n_test=len(audit.test), accuracy=audit.accuracy,
            residual=audit.influence.residual, rank_correlation=audit.correlation,
            most_suspect=suspects[0]["image"],
        )  # fmt: skip
    return {**run.summary, "out": out}


def _digits(seed: int) -> tuple[LabelledImages, LabelledImages, tuple[str, ...]]:
    """Return handwritten digits to train and to test on, and what the labels are called."""
    import numpy as np
    from sklearn.datasets import load_digits

    from cnn_interp.diagnosis.training_audit import LabelledImages
    from interpretkit.training import numpy_generator

    digits: Any = load_digits()
    order = numpy_generator(seed, "digits").permutation(len(digits.target))
    pictures = (255 - digits.images * 255 / 16).astype(np.uint8)
    every = LabelledImages(
        digits.data / 16, digits.target, [f"digit {row}" for row in range(len(order))], pictures
    )
    first, second = order[:DIGITS_FOR_TRAINING], order[DIGITS_FOR_TRAINING:]
    return every.rows(first), every.rows(second), tuple(str(n) for n in range(10))


def _folders(
    images: Path, test: Path | None, network: str, device: str, seed: int, quiet: bool
) -> tuple[LabelledImages, LabelledImages, tuple[str, ...]]:
    """Return images to train and to test on, the latter held out if not given, and what the labels are called."""
    from dataclasses import replace

    import numpy as np

    from interpretkit.training import numpy_generator

    every, categories = read_labelled(images, network, device, quiet)
    if test is None:
        order = numpy_generator(seed, "held out").permutation(len(every))
        count = len(every) // 5
        if count < 1 or len(set(every.labels[order[count:]].tolist())) < len(categories):
            raise InputError(f"{images}: {len(every)} images; expected at least 5, and several of each label")
        return every.rows(np.sort(order[count:])), every.rows(order[:count]), categories
    unseen, test_categories = read_labelled(test, network, device, quiet)
    unknown = [name for name in test_categories if name not in categories]
    if unknown:
        raise InputError(
            f"{test}: the label {unknown[0]!r} is not in {images}; expected {', '.join(categories)}"
        )
    place = np.array([categories.index(name) for name in test_categories])
    return every, replace(unseen, labels=place[unseen.labels]), categories
