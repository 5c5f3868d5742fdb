"""What ``adversarial`` shows: the changes that fool a network, and how they grow through its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cnn_interp.diagnosis.attacks import Attack
from cnn_interp.diagnosis.layer_features import LayerChange
from cnn_interp.diagnosis.reports.page import page
from cnn_interp.diagnosis.reports.pictures import Naming, say, show, verdict
from interpretkit.visualization import Report, colour_of, new_figure, style
from interpretkit.visualization.style import MUTED

# Of several images, so many are drawn.
MOST_SHOWN = 6
TITLES = {"fgsm": "FGSM", "pgd": "PGD", "deepfool": "DeepFool", "minimal": "smallest (L-BFGS)"}


def attack_sheet(attacks: Sequence[Attack], row: int, name: Naming) -> Figure:
    """Draw one image under several attacks: what was added, made visible, and what the network then says."""
    with style():
        figure = new_figure(2.3 * (1 + len(attacks)), 5.4)
        axes = figure.subplots(2, 1 + len(attacks), squeeze=False)
        first = attacks[0]
        show(axes[0, 0], first.originals[row])
        axes[0, 0].set_title("original", fontsize=10)
        say(axes[0, 0], verdict(first.before[row], name))
        axes[1, 0].axis("off")
        for column, attack in enumerate(attacks, start=1):
            top, bottom = axes[:, column]
            show(top, attack.perturbed[row])
            top.set_title(TITLES[attack.method], fontsize=10)
            say(top, verdict(attack.after[row], name), changed=bool(attack.succeeded[row]))
            difference = attack.difference[row]
            largest = max(float(difference.abs().max()), 1e-9)
            show(bottom, 0.5 + difference / (2 * largest))
            say(
                bottom,
                f"change × {0.5 / largest:.3g}\nL2 {float(attack.l2[row]):.3g},"
                f" largest {255 * float(attack.linf[row]):.2g}/255",
            )
    return figure


def layer_change_figure(changes: Mapping[str, LayerChange]) -> Figure:
    """Draw the relative change of each layer under attacks, each beside noise of the same length."""
    with style():
        figure = new_figure(7.2, 4.2)
        axes = figure.subplots()
        layers: tuple[str, ...] = ()
        for index, (method, change) in enumerate(changes.items()):
            layers = change.layers
            places = np.arange(len(layers))
            axes.plot(
                places,
                _geometric(change.perturbed),
                "-o",
                color=colour_of(index),
                markersize=4,
                label=TITLES[method],
            )
            axes.plot(places, _geometric(change.noise), "--", color=colour_of(index), linewidth=1.2)
        axes.plot([], [], "--", color=MUTED, linewidth=1.2, label="noise of the same length")
        axes.set_yscale("log")
        axes.set_xticks(np.arange(len(layers)), layers, rotation=40, ha="right")
        axes.set(ylabel="change / length of representation", title="From the pixels to the output")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def _geometric(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(np.log(np.maximum(values, 1e-12)).mean(0))


def attack_table(
    found: Mapping[str, Attack], changes: Mapping[str, LayerChange], names: Sequence[str], category: Naming
) -> list[dict[str, Any]]:
    """Return a row for each attack on each image.

    Parameters
    ----------
    found : mapping of str to Attack
        By method.
    changes : mapping of str to LayerChange
        What they do to the layers.
    names : sequence of str, (n,)
        Of the images.
    category : callable
        Gives the name of an output.
    """
    return [
        {
            "image": names[row],
            "method": TITLES[name],
            "said": category(int(attack.before[row].argmax())),
            "says then": category(int(attack.after[row].argmax())),
            "probability": float(attack.after[row].max()),
            "fooled": bool(attack.succeeded[row]),
            "L2": float(attack.l2[row]),
            "largest change, of 255": 255 * float(attack.linf[row]),
            "times further than noise, output": float(changes[name].amplification[row, -1]),
            "network runs": int(attack.evaluations[row]),
        }
        for name, attack in found.items()
        for row in range(len(names))
    ]


def adversarial_report(
    found: Mapping[str, Attack],
    rows: Sequence[Mapping[str, Any]],
    sheets: Sequence[Figure],
    through: Figure,
    *,
    network: str,
    names: Sequence[str],
    target: str,
) -> Report:
    """Return the page.

    Parameters
    ----------
    found : mapping of str to Attack
        By method.
    rows : sequence of mappings
        What :func:`attack_table` gave.
    sheets : sequence of Figure
        What :func:`attack_sheet` drew of the first images.
    through : Figure
        What :func:`layer_change_figure` drew.
    network : str
        What was attacked.
    names : sequence of str, (n,)
        Of the images.
    target : str
        What it was led to; empty if it was led away only.
    """
    report = page(
        "adversarial",
        f"{network}: how little fools it",
        f"{len(names)} image{'s' if len(names) > 1 else ''}, attacked in pixels between 0 and 1. What the network "
        "says of itself is what it is led away from" + (f", to “{target}”." if target else "."),
    )
    report.add_numbers(
        {
            f"{TITLES[name]}: fooled": (
                f"{float(attack.succeeded.double().mean()):.0%}",
                f"median L2 {float(attack.l2.median()):.3g}",
            )
            for name, attack in found.items()
        }
    )
    report.add_section(
        "What was changed",
        "Above the image as the network sees it, below what was added, made visible.",
        figures=[
            (sheet, f"{names[row]}: the original and what each attack made of it.")
            for row, sheet in enumerate(sheets)
        ],
    )
    report.add_section(
        "Through the layers",
        "How far each layer's representation moves, over its own length (geometric mean over images). Noise of the "
        "same length fades or stays as it is; a direction that was looked for grows.",
        figures=[(through, "Solid: the attack. Dashed: noise of the same length.")],
    )
    # Narrower than the table in the file, so that it needs no scrolling.
    report.add_section(
        "All attacks",
        table=[
            {
                "image": row["image"],
                "method": row["method"],
                "said": row["said"],
                "then": row["says then"],
                "surely": row["probability"],
                "fooled": row["fooled"],
                "L2": row["L2"],
                "L∞": row["largest change, of 255"],
                "× noise": row["times further than noise, output"],
                "runs": row["network runs"],
            }
            for row in rows[:200]
        ],
        table_caption="How sure the network is of what it says then; the change's length, and its largest value, of "
        "255; how many times further than noise of that length it moves the output; how often the network ran.",
        formats={"surely": ".1%", "L2": ".3g", "L∞": ".2g", "× noise": ".3g"},
    )
    return report
