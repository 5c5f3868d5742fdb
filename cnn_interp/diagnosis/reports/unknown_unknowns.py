"""What ``unknown-unknowns`` shows: where a network is wrong and sure of it, or which images to label first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cnn_interp.diagnosis.reports.page import page
from cnn_interp.diagnosis.reports.pictures import BAD
from interpretkit.visualization import Report, colour_of, new_figure, style

_TITLE = "Where the network is wrong and sure of it"


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


def labelling_report(to_label: Sequence[Mapping[str, Any]], *, sure: int, parts: int) -> Report:
    """Return the page for predictions without labels.

    Parameters
    ----------
    to_label : sequence of mappings
        The images to label first, with their parts.
    sure, parts : int
        How many sure predictions there are, and into how many parts they fall.
    """
    report = page(
        "unknown-unknowns",
        _TITLE,
        f"The table holds no labels yet. {sure} sure predictions fall into {parts} parts; "
        "label the images below, spread evenly over the parts, and run the command again.",
    )
    return report.add_section("Images to label first", table=to_label[:40])


def unknown_unknowns_report(
    rows: Sequence[Mapping[str, Any]],
    errors: Mapping[str, int],
    parts: Figure,
    regret: Figure,
    *,
    threshold: float,
    asked: int,
    wrong: NDArray[np.bool_],
) -> Report:
    """Return the page for predictions with labels.

    Parameters
    ----------
    rows : sequence of mappings
        The parts, the worst first.
    errors : mapping of str to int
        How many each explorer found.
    parts : Figure
        What :func:`parts_figure` drew.
    regret : Figure
        What :func:`regret_figure` drew.
    threshold : float
        At least so sure are the predictions.
    asked : int
        How many questions each explorer asked.
    wrong : ndarray of bool, (n,)
        Which sure predictions are wrong.
    """
    report = page(
        "unknown-unknowns",
        _TITLE,
        f"The network is at least {threshold:.0%} sure of {len(wrong)} predictions, and wrong in "
        f"{wrong.mean():.1%} of them. With {asked} questions the bandit found {errors['bandit']} errors, "
        f"asking at random {errors['random']}. Most lie where {rows[0]['pattern']}.",
    )
    report.add_numbers(
        {
            "errors found": (errors["bandit"], f"of {int(wrong.sum())}, with {asked} questions"),
            "at random": errors["random"],
            "by uncertainty": (errors["uncertainty"], "the least sure of the sure first"),
            "ε-greedy": errors["epsilon_greedy"],
        }
    )
    report.add_section(
        "Where the errors lie",
        "Each part is described by attributes that its images share and that are known without their labels.",
        figures=[
            (parts, "The bandit's questions by part."),
            (regret, "Errors that somebody who knows them all would have found by then, less those found."),
        ],
        table=rows,
        formats={"share wrong": ".0%", "mean confidence": ".3f"},
    )
    return report
