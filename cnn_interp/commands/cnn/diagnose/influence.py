"""The training images behind predictions, and labels that are probably wrong."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.commands._loading import check_folders, read_labelled
from cnn_interp.commands._options import Model
from interpretkit.commandline import Column, Device, Finding, Quiet, Seed, command
from interpretkit.commandline.caution import no_better
from interpretkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from cnn_interp.diagnosis.training_audit import LabelledFeatures, TrainingAudit
    from interpretkit.visualization.instruments import Gallery

DIGITS_FOR_TRAINING = 600
# Suspects drawn and listed, and shares of the images after whose check the wrong labels found are counted.
_SUSPECTS, _BROWSED, _CHECKED = 16, 48, (0.1, 0.2, 0.3)
_SUSPECT_COLUMNS = {
    "image": Column("the training image"),
    "label": Column("its label"),
    "predicted": Column("what the classifier says of it"),
    "self-influence": Column("how much its loss would rise were it left out of the training", "nats"),
    "loss": Column("its loss", "nats"),
    "falsified": Column("whether its label was falsified"),
}
_INFLUENCE_COLUMNS = {
    "test image": Column("the test image explained"),
    "effect": Column("whether the training image helps or harms"),
    "training image": Column("the training image"),
    "label": Column("its label"),
    "change of the test loss without it": Column("how the test image's loss would change without it", "nats"),
}


@command(
    out="influence",
    example=[
        "interpretkit cnn diagnose influence --out influence",
        "interpretkit cnn diagnose influence my-images/ --model mobilenet_v2 --out influence",
    ],
)
def influence(
    images: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER", help="Training images, a subfolder for each label.", show_default=False
        ),
    ] = None,
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
) -> Finding:
    """Find the training images that made predictions what they are, and those that are probably mislabelled.

    A linear classifier is trained on a pretrained network's features, and influence functions tell what it would say
    without each training image. Without a folder, on scikit-learn's digits, a tenth of them falsely labelled.
    """
    share = (0.1 if images is None else 0.0) if flip is None else flip
    if not 0 <= share < 0.5:
        raise InputError(f"flip {share}: expected a share of 0 to below 0.5")
    if not (l2 > 0 and math.isfinite(l2)):
        raise InputError(f"l2 {l2}: expected a finite number above 0")
    if images is None and test is not None:
        raise InputError(f"test {test}: needs a folder of training images")
    check_folders(images, test)
    from cnn_interp.diagnosis.training_audit import audit_training
    from interpretkit.training import resolve_device

    resolve_device(device)
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
    falsified, n = int(audit.falsified.sum()), len(audit.train)
    suspects = _suspects(audit, categories)

    found = Finding(
        "Which training images made these predictions",
        f"A linear classifier on {described} was trained on {n} images and is right on "
        f"{audit.accuracy:.1%} of {len(audit.test)} unseen ones. For the {len(audit.explained)} that it gets most "
        "wrong, the training images that help and harm most are shown below; then the training images whose label "
        "nothing but themselves supports, which are the first to look at for a wrong label.",
    ).reads(*(path for path in (images, test) if path is not None))
    found.number("accuracy", audit.accuracy, "unseen images right", format=".1%")
    if audit.correlation is not None:
        found.number(
            "rank_correlation",
            audit.correlation,
            "agreement with training again",
            format=".3f",
            note=f"rank correlation over {leave_out} images left out one by one; 1 is perfect",
        )
    found.warn(*_warnings(audit))
    found.number("most_suspect", suspects[0]["image"], "most suspect label", on_card=False)
    found.values.update(n_train=n, n_test=len(audit.test), residual=audit.influence.residual)
    found.section(
        "What helped and what harmed",
        "Green: without this training image the test image's loss would rise most. Orange: it would fall most. "
        "The label of each training image stands below it.",
    ).figure("influence.png", _explained_sheet(audit, categories), "The test images of largest loss.")
    found.section(
        "Labels to check first",
        "Ranked by self-influence: how much the loss of a training image would rise were it left out of the "
        "training. The picture in the folder frames those orange of which the classifier itself says otherwise.",
    ).instrument(_browsed(audit, categories, suspects)).figure(
        "suspects.png",
        _suspects_sheet(audit, categories),
        "The sixteen most suspect training images.",
        on_page=False,
    ).table("suspects.csv", suspects, _SUSPECT_COLUMNS, most=_SUSPECTS)
    if falsified:
        _add_checking(found, audit, falsified)
    if audit.correlation is not None:
        found.section(
            "Is the prediction true?",
            "Influence is a prediction of what training again without an image would give. Here it was done, to "
            "convergence. Each colour is a test image.",
        ).figure(
            "retraining.png",
            _retraining_figure(audit.predicted, audit.measured, audit.correlation),
            "On the line, the prediction is exact.",
        )
    if images is None:
        found.next_step(
            "Look through images of your own, a subfolder for each label:",
            "interpretkit cnn diagnose influence my-images/ --out influence",
        )
    else:
        found.next_step(
            "See whether labels that are known to be wrong would be found among these images:",
            "interpretkit cnn diagnose influence",
            images,
            "--model",
            network,
            *(("--test", test) if test is not None else ()),
            "--flip",
            "0.1",
        )
    found.table("influences.csv", _influences(audit, categories), _INFLUENCE_COLUMNS)
    return found.arrays(
        "influence.npz",
        values=audit.influence.values,
        test=audit.explained,
        self_influence=audit.suspicion,
        loss=audit.loss,
        labels=audit.train.labels,
    )


def _add_checking(found: Finding, audit: TrainingAudit, falsified: int) -> None:
    """Say how soon the falsified labels are found by checking in the order of suspicion."""
    curves = _checking_curves(audit)
    by_loss = _found_in_first(curves["loss"])
    for checked, share in _found_in_first(curves["self-influence"]).items():
        found.number(
            f"found_in_{checked:.0%}",
            share,
            f"wrong labels found in the first {checked:.0%}",
            format=".0%",
            note=f"{falsified} labels were falsified; by chance {checked:.0%}, by the loss {by_loss[checked]:.0%}",
        )
    found.section(
        "Were the falsified labels found?",
        f"{falsified} of {len(audit.train)} labels had been falsified at random.",
    ).figure(
        "checking.png",
        _checking_figure(curves),
        "Wrong labels found while checking in the order of each ranking.",
    )


def _warnings(audit: TrainingAudit) -> list[str]:
    """Return what must not be missed: a classifier, or a ranking, no better than what it is held against."""
    import numpy as np

    frequent = float(np.mean(audit.test.labels == np.bincount(audit.train.labels).argmax()))
    found = no_better("the classifier", audit.accuracy, "the most frequent label", frequent, form=".1%")
    if audit.falsified.any():
        curves = _checking_curves(audit)
        first = _CHECKED[0]
        ours, by_loss = (_found_in_first(curves[name])[first] for name in ("self-influence", "loss"))
        found += no_better("self-influence", ours, "chance", first, form=".1%")
        found += no_better("self-influence", ours, "the training loss", by_loss, form=".1%")
    return found


def _digits(seed: int) -> tuple[LabelledFeatures, LabelledFeatures, tuple[str, ...]]:
    """Return handwritten digits to train and to test on, and what the labels are called."""
    import numpy as np
    from sklearn.datasets import load_digits

    from cnn_interp.diagnosis.training_audit import LabelledFeatures
    from interpretkit.training import numpy_generator

    digits: Any = load_digits()
    order = numpy_generator(seed, "digits").permutation(len(digits.target))
    pictures = (255 - digits.images * 255 / 16).astype(np.uint8)
    every = LabelledFeatures(
        digits.data / 16, digits.target, [f"digit {row}" for row in range(len(order))], pictures
    )
    first, second = order[:DIGITS_FOR_TRAINING], order[DIGITS_FOR_TRAINING:]
    return every.rows(first), every.rows(second), tuple(str(n) for n in range(10))


def _folders(
    images: Path, test: Path | None, network: str, device: str, seed: int, quiet: bool
) -> tuple[LabelledFeatures, LabelledFeatures, tuple[str, ...]]:
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


def _suspects(audit: TrainingAudit, categories: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each training image, the most suspect first."""
    return [
        {
            "image": audit.train.names[row],
            "label": categories[int(audit.train.labels[row])],
            "predicted": categories[int(audit.said[row])],
            "self-influence": float(audit.suspicion[row]),
            "loss": float(audit.loss[row]),
            **({"falsified": bool(audit.falsified[row])} if audit.falsified.any() else {}),
        }
        for row in audit.order
    ]


def _influences(audit: TrainingAudit, categories: Sequence[str]) -> list[dict[str, Any]]:
    """Return for each test image explained the five training images that help and that harm it most."""
    removal = audit.influence.removal
    return [
        {
            "test image": audit.test.names[test],
            "effect": effect,
            "training image": audit.train.names[row],
            "label": categories[int(audit.train.labels[row])],
            "change of the test loss without it": float(removal[place, row]),
        }
        for place, test in enumerate(audit.explained)
        for effect, rows in (
            ("helps", audit.influence.most_helpful(place, 5)),
            ("harms", audit.influence.most_harmful(place, 5)),
        )
        for row in rows
    ]


def _found_in_first(curve: NDArray[np.floating]) -> dict[float, float]:
    """Return the shares of wrong labels found in the first tenth, two and three tenths of the images checked."""
    return {checked: float(curve[int(checked * len(curve)) - 1]) for checked in _CHECKED}


def _checking_curves(audit: TrainingAudit) -> dict[str, NDArray[np.floating]]:
    """Return the shares of the falsified labels ``(n,)`` found by checking in the order of each ranking."""
    import numpy as np

    from cnn_interp.diagnosis.mislabels import found_by_checking

    return {
        "self-influence": found_by_checking(audit.suspicion, audit.falsified),
        "loss": found_by_checking(audit.loss, audit.falsified),
        "random order": np.arange(1, len(audit.train) + 1) / len(audit.train),
    }


def _explained_sheet(audit: TrainingAudit, categories: Sequence[str]) -> Figure:
    """Draw the test images explained, each with the training images that help and harm it most."""
    count = min(4, len(audit.train) // 2)
    name = [_short(category) for category in categories]

    def captioned(rows: NDArray[np.intp]) -> list[tuple[int, str]]:
        return [(row, name[audit.train.labels[row]]) for row in rows]

    places = range(len(audit.explained))
    return _influence_sheet(
        audit.train.pictures,
        [
            (
                audit.test.pictures[row],
                f"{name[audit.test.labels[row]]}\nsaid: {name[audit.test_said[row]]}",
            )
            for row in audit.explained
        ],
        [captioned(audit.influence.most_helpful(place, count)) for place in places],
        [captioned(audit.influence.most_harmful(place, count)) for place in places],
    )


def _browsed(audit: TrainingAudit, categories: Sequence[str], suspects: Sequence[dict[str, Any]]) -> Gallery:
    """Return the most suspect training images to be browsed, searched by their labels, and sorted."""
    from interpretkit.visualization.instruments import Gallery, Item

    items = []
    for rank, (row, told) in enumerate(zip(audit.order[:_BROWSED].tolist(), suspects, strict=False), start=1):
        label, said = (categories[int(k)] for k in (audit.train.labels[row], audit.said[row]))
        items.append(
            Item(
                f"{rank}. {told['image']}",
                audit.train.pictures[row],
                f"labelled {label}, said {said}",
                "the classifier says otherwise" if label != said else "the classifier agrees",
                {"self-influence": told["self-influence"], "loss": told["loss"]},
            )
        )
    return Gallery(items, placeholder="a label", side=9, label="The most suspect training images, to browse")


def _suspects_sheet(audit: TrainingAudit, categories: Sequence[str]) -> Figure:
    """Draw the most suspect training images, framed in orange where the classifier itself says otherwise."""
    from cnn_interp.diagnosis.pictures import BAD, picture_grid
    from interpretkit.visualization.style import MUTED

    shown = audit.order[:_SUSPECTS].tolist()
    labels, said = ([_short(categories[int(k)]) for k in given] for given in (audit.train.labels, audit.said))
    return picture_grid(
        [audit.train.pictures[row] for row in shown],
        [f"labelled {labels[row]}\nsaid: {said[row]}" for row in shown],
        [BAD if audit.said[row] != audit.train.labels[row] else MUTED for row in shown],
    )


def _influence_sheet(
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
    from cnn_interp.diagnosis.pictures import BAD, GOOD, framed
    from interpretkit.visualization import new_figure, style
    from interpretkit.visualization.style import INK

    count = len(helpful[0])
    with style():
        figure = new_figure(1.25 * (2 * count + 1) + 0.4, 1.65 * len(tests) + 0.5)
        axes = figure.subplots(len(tests), 2 * count + 1, squeeze=False)
        for row, (picture, caption) in enumerate(tests):
            framed(axes[row, 0], picture, caption, INK, size=10)
            for column, (place, text) in enumerate(helpful[row], start=1):
                framed(axes[row, column], pictures[place], text, GOOD, size=10)
            for column, (place, text) in enumerate(harmful[row], start=count + 1):
                framed(axes[row, column], pictures[place], text, BAD, size=10)
        axes[0, 0].set_title("test image", fontsize=12)
        axes[0, 1].set_title("helps most →", fontsize=12, color=GOOD)
        axes[0, count + 1].set_title("harms most →", fontsize=12, color=BAD)
    return figure


def _retraining_figure(
    predicted: NDArray[np.floating], measured: NDArray[np.floating], correlation: float
) -> Figure:
    """Draw the predicted against the measured changes of test losses when training examples are left out."""
    from interpretkit.visualization import colour_of, new_figure, style
    from interpretkit.visualization.style import MUTED

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


def _checking_figure(curves: Mapping[str, NDArray[np.floating]]) -> Figure:
    """Draw the share of wrong labels found against the share of the training images checked.

    Parameters
    ----------
    curves : mapping of str to ndarray of float, (n,)
        Found after checking 1, 2, … images.
    """
    import numpy as np

    from interpretkit.visualization import colour_of, new_figure, style
    from interpretkit.visualization.style import MUTED

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


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:13]}…"
