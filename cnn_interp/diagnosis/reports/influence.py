"""What ``influence`` shows: the training images behind predictions, and the labels to check first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cnn_interp.diagnosis.mislabels import found_by_checking
from cnn_interp.diagnosis.reports.page import page
from cnn_interp.diagnosis.reports.pictures import BAD, GOOD, framed, picture_grid
from cnn_interp.diagnosis.training_audit import TrainingAudit
from interpretkit.caution import no_better
from interpretkit.visualization import Report, colour_of, new_figure, style
from interpretkit.visualization.style import INK, MUTED

# Suspects drawn and listed, and shares of the images after whose check the wrong labels found are counted.
_SUSPECTS, _CHECKED = 16, (0.1, 0.2, 0.3)


def suspects_table(audit: TrainingAudit, categories: Sequence[str]) -> list[dict[str, Any]]:
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


def influence_table(audit: TrainingAudit, categories: Sequence[str]) -> list[dict[str, Any]]:
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


def found_in_first(curve: NDArray[np.floating]) -> dict[float, float]:
    """Return the shares of wrong labels found in the first tenth, two and three tenths of the images checked."""
    return {checked: float(curve[int(checked * len(curve)) - 1]) for checked in _CHECKED}


def explained_sheet(audit: TrainingAudit, categories: Sequence[str]) -> Figure:
    """Draw the test images explained, each with the training images that help and harm it most."""
    count = min(4, len(audit.train) // 2)
    name = [_short(category) for category in categories]

    def captioned(rows: NDArray[np.intp]) -> list[tuple[int, str]]:
        return [(row, name[audit.train.labels[row]]) for row in rows]

    places = range(len(audit.explained))
    return influence_sheet(
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


def suspects_sheet(audit: TrainingAudit, categories: Sequence[str]) -> Figure:
    """Draw the most suspect training images, framed in red where the classifier itself says otherwise."""
    shown = audit.order[:_SUSPECTS].tolist()
    labels, said = ([_short(categories[int(k)]) for k in given] for given in (audit.train.labels, audit.said))
    return picture_grid(
        [audit.train.pictures[row] for row in shown],
        [f"labelled {labels[row]}\nsaid: {said[row]}" for row in shown],
        [BAD if audit.said[row] != audit.train.labels[row] else MUTED for row in shown],
    )


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
            framed(axes[row, 0], picture, caption, INK, size=10)
            for column, (place, text) in enumerate(helpful[row], start=1):
                framed(axes[row, column], pictures[place], text, GOOD, size=10)
            for column, (place, text) in enumerate(harmful[row], start=count + 1):
                framed(axes[row, column], pictures[place], text, BAD, size=10)
        axes[0, 0].set_title("test image", fontsize=12)
        axes[0, 1].set_title("helps most →", fontsize=12, color=GOOD)
        axes[0, count + 1].set_title("harms most →", fontsize=12, color=BAD)
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


def checking_curves(audit: TrainingAudit) -> dict[str, NDArray[np.floating]]:
    """Return the shares of the falsified labels ``(n,)`` found by checking in the order of each ranking."""
    return {
        "self-influence": found_by_checking(audit.suspicion, audit.falsified),
        "loss": found_by_checking(audit.loss, audit.falsified),
        "random order": np.arange(1, len(audit.train) + 1) / len(audit.train),
    }


def warnings(audit: TrainingAudit) -> list[str]:
    """Return what must not be missed: a classifier, or a ranking, no better than what it is held against."""
    frequent = float(np.mean(audit.test.labels == np.bincount(audit.train.labels).argmax()))
    found = no_better("the classifier", audit.accuracy, "the most frequent label", frequent, form=".1%")
    if audit.falsified.any():
        curves = checking_curves(audit)
        first = _CHECKED[0]
        ours, by_loss = (found_in_first(curves[name])[first] for name in ("self-influence", "loss"))
        found += no_better("self-influence", ours, "chance", first, form=".1%")
        found += no_better("self-influence", ours, "the training loss", by_loss, form=".1%")
    return found


def influence_report(
    audit: TrainingAudit,
    suspects: Sequence[Mapping[str, Any]],
    figures: Mapping[str, Figure],
    *,
    described: str,
    leave_out: int,
) -> Report:
    """Return the page.

    Parameters
    ----------
    audit : TrainingAudit
        What was found.
    suspects : sequence of mappings
        What :func:`suspects_table` gave.
    figures : mapping of str to Figure
        What :func:`explained_sheet` and :func:`suspects_sheet` drew, as ``influence`` and ``suspects``; where labels
        were falsified, what :func:`checking_figure` drew, as ``checking``; where images were left out, what
        :func:`retraining_figure` drew, as ``retraining``.
    described : str
        What the classifier was trained on.
    leave_out : int
        How many images were to be left out one by one.
    """
    falsified, n = int(audit.falsified.sum()), len(audit.train)
    report = page(
        "influence",
        "Which training images made these predictions",
        f"A linear classifier on {described} was trained on {n} images and is right on "
        f"{audit.accuracy:.1%} of {len(audit.test)} unseen ones. For the {len(audit.explained)} that it gets most "
        "wrong, the training images that help and harm most are shown below; then the training images whose label "
        "nothing but themselves supports, which are the first to look at for a wrong label.",
    )
    numbers: dict[str, Any] = {"unseen images right": f"{audit.accuracy:.1%}"}
    if audit.correlation is not None:
        numbers["agreement with training again"] = (
            f"{audit.correlation:.3f}",
            f"rank correlation over {leave_out} images left out one by one; 1 is perfect",
        )
    if falsified:
        curves = checking_curves(audit)
        by_loss = found_in_first(curves["loss"])
        for checked, share in found_in_first(curves["self-influence"]).items():
            numbers[f"wrong labels found in the first {checked:.0%}"] = (
                f"{share:.0%}",
                f"{falsified} labels were falsified; by chance {checked:.0%}, by the loss {by_loss[checked]:.0%}",
            )
    report.add_numbers(numbers)
    report.add_section(
        "What helped and what harmed",
        "Green: without this training image the test image's loss would rise most. Red: it would fall most. "
        "The label of each training image stands below it.",
        figures=[(figures["influence"], "The test images of largest loss.")],
    )
    report.add_section(
        "Labels to check first",
        "Ranked by self-influence: how much the loss of a training image would rise were it left out of the "
        "training. Red frames: the classifier itself says otherwise. `suspects.csv` holds the whole ranking.",
        figures=[(figures["suspects"], "The sixteen most suspect training images.")],
        table=suspects[:_SUSPECTS],
    )
    if "checking" in figures:
        report.add_section(
            "Were the falsified labels found?",
            f"{falsified} of {n} labels had been falsified at random.",
            figures=[
                (figures["checking"], "Wrong labels found while checking in the order of each ranking.")
            ],
        )
    if "retraining" in figures:
        report.add_section(
            "Is the prediction true?",
            "Influence is a prediction of what training again without an image would give. Here it was done, to "
            "convergence. Each colour is a test image.",
            figures=[(figures["retraining"], "On the line, the prediction is exact.")],
        )
    return report


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:13]}…"
