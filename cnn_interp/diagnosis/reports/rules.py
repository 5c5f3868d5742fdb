"""What ``rules`` shows: what logic rules bring where labels are few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cnn_interp.diagnosis.logic_rules import Verdict
from cnn_interp.diagnosis.reports.page import page
from interpretkit.visualization import Report, colour_of, new_figure, style
from interpretkit.visualization.style import MUTED


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


def rules_report(
    verdict: Verdict,
    bars: Figure,
    by_category: Sequence[Mapping[str, Any]],
    *,
    described: str,
    labelled: int,
    unlabelled: int,
    unseen: int,
) -> Report:
    """Return the page.

    Parameters
    ----------
    verdict : Verdict
        The accuracies, and how often each rule holds.
    bars : Figure
        What :func:`accuracy_figure` drew of them.
    by_category : sequence of mappings
        The accuracies on each category.
    described : str
        What the network was trained on.
    labelled, unlabelled, unseen : int
        How many images it saw with and without a label, and was tested on.
    """
    gain = 100 * (verdict.student - verdict.plain)
    report = page(
        "rules",
        f"{len(verdict.rules)} rules, {labelled} labels",
        f"A network on {described} saw {labelled} labels and {unlabelled} images without any. Labels alone "
        f"bring it to {verdict.plain:.1%} on {unseen} unseen images; with the rules the student reaches "
        f"{verdict.student:.1%} ({gain:+.1f} points) without being shown the attributes any more, and its teacher "
        f"{verdict.teacher:.1%}.",
    )
    report.add_section("What the rules bring", figures=[(bars, "Accuracy on unseen images.")])
    report.add_section(
        "The rules",
        "How many unseen images a rule says anything about, and how often it is right then. A rule that seldom "
        "holds does harm; lower its confidence after the `@`.",
        table=verdict.rules,
        formats={"applies to": ".1%", "holds": ".1%"},
    )
    report.add_section("By category", table=by_category, formats={"labels alone": ".1%", "student": ".1%"})
    return report
