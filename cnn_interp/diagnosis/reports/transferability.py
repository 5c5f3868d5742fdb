"""What ``transferability`` shows: what is lost by copying layers."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from cnn_interp.diagnosis.reports.page import page
from cnn_interp.diagnosis.transferability import TREATMENTS, Transfer
from interpretkit.visualization import Report, colour_of, new_figure, style
from interpretkit.visualization.style import MUTED


def transfer_figure(found: Transfer) -> Figure:
    """Draw the accuracy on B against the number of copied layers."""
    with style():
        figure = new_figure(6.2, 4.2)
        axes = figure.subplots()
        depths = np.arange(1, found.depths + 1)
        axes.axhline(found.base, color=MUTED, linestyle=":", label="B trained as a whole")
        for index, treatment in enumerate(TREATMENTS):
            colour = colour_of(0 if treatment.startswith("B") else 1)
            dashes = "--" if treatment.endswith("+") else "-"
            axes.plot(
                depths, found.curve(treatment), dashes, marker="os^D"[index], color=colour, label=treatment
            )
            for depth in depths:
                values = found.accuracies(treatment, int(depth))
                axes.plot([depth] * len(values), values, ".", color=colour, alpha=0.35, markersize=4)
        axes.set_xticks(depths)
        axes.set(xlabel="layers copied", ylabel="accuracy on B", title="What is lost by copying layers")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def transferability_report(found: Transfer, figure: Figure, *, data: str, repeats: int) -> Report:
    """Return the page.

    Parameters
    ----------
    found : Transfer
        The accuracies.
    figure : Figure
        What :func:`transfer_figure` drew.
    data : str
        What the images are.
    repeats : int
        How often the categories were split.
    """
    curves = {treatment: found.curve(treatment).tolist() for treatment in TREATMENTS}
    last = {treatment: f"{curve[-1]:.1%}" for treatment, curve in curves.items()}
    report = page(
        "transferability",
        "How general is each layer?",
        f"A network of {found.depths} layers, trained on half of the categories of {data}; its first "
        "layers copied into a network for the other half.",
    )
    report.add_numbers(
        {
            "trained on B": (f"{found.base:.1%}", f"{found.test_images} test images, {repeats} splits"),
            "all layers from A": (last["AnB"], "frozen; only the head learns"),
            "all layers from B": (last["BnB"], "frozen; only the head learns"),
            "from A, tuned": (last["AnB+"], "the copied layers go on learning"),
        }
    )
    report.add_section(
        "Accuracy against the number of layers copied",
        "AnB: copied from the network of A and frozen. BnB: from that of B. With a plus they go on learning. AnB "
        "below BnB tells that features were made for A; BnB below the line, that layers had been fitted to each "
        "other. Pale dots are single splits: the distance between them is what chance does.",
        figures=[(figure, "Means over splits of the categories.")],
        table={"layers copied": [n + 1 for n in range(found.depths)], **curves},
        formats=dict.fromkeys(TREATMENTS, ".3f"),
    )
    report.add_section(
        "The halves",
        table=[
            {"split": n + 1, "A": ", ".join(a), "B": ", ".join(b)}
            for n, (a, b) in enumerate(zip(found.categories_a, found.categories_b, strict=True))
        ],
    )
    return report
