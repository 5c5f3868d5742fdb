"""What ``one-pixel`` shows: the images that one pixel was enough for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from cnn_interp.diagnosis.attacks import Attack
from cnn_interp.diagnosis.reports.page import page
from cnn_interp.diagnosis.reports.pictures import Naming, say, show, verdict
from interpretkit.visualization import Report, new_figure, style


def one_pixel_sheet(attack: Attack, name: Naming, most: int = 15) -> Figure:
    """Draw images that one pixel was enough for, the pixel circled; without any, some that withstood."""
    shown = np.flatnonzero((attack.succeeded & attack.fair).numpy())
    withstood = not len(shown)
    shown = (np.flatnonzero(attack.fair.numpy()) if withstood else shown)[:most]
    columns = 5
    lines = max(1, -(-len(shown) // columns))
    with style():
        figure = new_figure(2.1 * columns, 2.6 * lines)
        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for place in axes:
            place.axis("off")
        for place, row in zip(axes, shown, strict=False):
            place.axis("on")
            show(place, attack.perturbed[row])
            for down, right in attack.difference[row].abs().amax(0).nonzero().tolist():
                radius = 0.09 * attack.perturbed.shape[-1]
                place.add_patch(Circle((right, down), radius, fill=False, color="#E69F00", linewidth=1.6))
            before, after = (verdict(values[row], name) for values in (attack.before, attack.after))
            say(place, f"{before}\n→ {after}", changed=not withstood)
    return figure


def one_pixel_table(attack: Attack, names: Sequence[str], category: Naming) -> list[dict[str, Any]]:
    """Return a row for each image."""
    return [
        {
            "image": names[row],
            "label": category(int(attack.labels[row])),
            "says then": category(int(attack.after[row].argmax())),
            "probability": float(attack.after[row].max()),
            "fooled": bool(attack.succeeded[row] & attack.fair[row]),
            "right before": bool(attack.fair[row]),
            "network runs": int(attack.evaluations[row]),
        }
        for row in range(len(names))
    ]


def one_pixel_report(
    attack: Attack,
    rows: Sequence[Mapping[str, Any]],
    sheet: Figure,
    *,
    attacked: str,
    pixels_changed: int,
    interval: tuple[float, float],
    accuracy: float | None,
) -> Report:
    """Return the page.

    Parameters
    ----------
    attack : Attack
        What was found.
    rows : sequence of mappings
        What :func:`one_pixel_table` gave.
    sheet : Figure
        What :func:`one_pixel_sheet` drew.
    attacked : str
        What was attacked.
    pixels_changed : int
        How many pixels could change.
    interval : (float, float)
        The 95 % interval of the share of images fooled.
    accuracy : float or None
        Of the network on test images, where it is known.
    """
    fair = int(attack.fair.sum())
    plural = "pixel" if pixels_changed == 1 else f"{pixels_changed} pixels"
    report = page(
        "one-pixel",
        f"{'One' if pixels_changed == 1 else 'Up to'} {plural} against {attacked}",
        "The place and the colour are found by differential evolution, from the network's outputs alone.",
    )
    report.add_numbers(
        {
            "fooled": (f"{attack.success_rate:.0%}" if fair else "–", f"of {fair} images that it had right"),
            "95 % interval": f"{interval[0]:.0%} … {interval[1]:.0%}" if fair else "–",
            "accuracy": (f"{accuracy:.1%}" if accuracy is not None else "–", "on all test images"),
            "network runs per image": (int(attack.evaluations.double().mean()), "with early stop"),
        }
    )
    report.add_section(
        "The images",
        "Those that were enough, the changed pixel circled; if none was, some that withstood.",
        figures=[(sheet, "Label before → after, with probabilities.")],
    )
    report.add_section(
        "All attacks",
        "For comparison: of a residual network with 92.3 % on CIFAR-10, Su and others fooled 34 % of the images "
        "with a population of 400 and 75 generations.",
        table=rows[:200],
    )
    return report
