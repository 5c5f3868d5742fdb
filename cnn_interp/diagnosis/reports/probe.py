"""What ``probe`` shows: how much a linear classifier reads off each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cnn_interp.diagnosis.reports.page import page
from cnn_interp.diagnosis.transferability import Probe
from interpretkit.visualization import Report, colour_of, new_figure, style
from interpretkit.visualization.style import MUTED


def probe_figure(probes: Sequence[Probe]) -> Figure:
    """Draw the accuracy of a linear classifier on each layer."""
    with style():
        figure = new_figure(6.6, 3.9)
        axes = figure.subplots()
        places = np.arange(len(probes))
        shares = np.array([probe.accuracy for probe in probes])
        bars = np.abs(np.array([probe.interval for probe in probes]).T - shares)
        axes.errorbar(places, shares, yerr=bars, fmt="-o", color=colour_of(0), capsize=3)
        axes.axhline(probes[0].chance, color=MUTED, linestyle=":", label="the most frequent label")
        axes.set_xticks(places, [probe.layer for probe in probes], rotation=40, ha="right")
        axes.set(ylabel="accuracy, cross-validated", title="What a linear classifier reads off each layer")
        axes.legend()
    return figure


def probe_table(probes: Sequence[Probe]) -> list[dict[str, Any]]:
    """Return a row for each layer."""
    return [
        {
            "layer": result.layer,
            "accuracy": result.accuracy,
            "from": result.interval[0],
            "to": result.interval[1],
            "features": result.width,
        }
        for result in probes
    ]


def probe_report(probes: Sequence[Probe], figure: Figure, *, network: str, images: str) -> Report:
    """Return the page.

    Parameters
    ----------
    probes : sequence of Probe
        Of the pixels, the layers and the output, in this order.
    figure : Figure
        What :func:`probe_figure` drew.
    network : str
        Whose layers they are.
    images : str
        How many images of what were classified.
    """
    best = max(probes, key=lambda result: result.accuracy)
    report = page(
        "probe",
        f"What a linear classifier reads off {network}",
        f"{images}, four-fold cross-validation. Features are means over positions; "
        "`pixels` are the images themselves at 8\u00a0×\u00a08.",
    )
    report.add_numbers(
        {
            "best layer": (best.layer, f"{best.accuracy:.1%}"),
            "pixels": (f"{probes[0].accuracy:.1%}", "without any network"),
            "output": (f"{probes[-1].accuracy:.1%}", "the network's own categories"),
            "chance": f"{best.chance:.1%}",
        }
    )
    report.add_section(
        "Layer by layer", figures=[(figure, "Bars: 95 % intervals.")], table=probe_table(probes)
    )
    return report
