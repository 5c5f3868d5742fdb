"""What ``bias`` shows: how networks relate attributes, and the pairs that stand out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cnn_interp.diagnosis.reports.page import page
from cnn_interp.diagnosis.representation_bias import AttributeRelations, PairBias
from interpretkit.visualization import Report, colour_of, heatmap, new_figure, style
from interpretkit.visualization.style import INK


def relation_figure(mined: Mapping[str, AttributeRelations]) -> Figure:
    """Draw the mean cosines between attributes, networks side by side on one scale, for they are compared."""
    names = next(iter(mined.values())).names
    gap = np.full((len(names), 1), np.nan)
    blocks, columns = [], []
    for relations in mined.values():
        # Nothing is added, so that no zero keeps a sign.
        matrix = relations.matrix.round(2) + 0.0
        np.fill_diagonal(matrix, np.nan)
        blocks += [matrix, gap]
        columns += [*names, ""]
    figure = heatmap(np.hstack(blocks[:-1]), names, columns[:-1], label="mean cosine", centre=0)
    for number, network in enumerate(mined):
        middle = number * (len(names) + 1) + (len(names) - 1) / 2
        figure.axes[0].text(middle, -0.7, f"Relations: {network}", ha="center", fontsize=12, color=INK)
    return figure


def cosine_figure(mined: AttributeRelations, pairs: Sequence[PairBias], title: str) -> Figure:
    """Draw the distributions of the cosines of the most divergent pairs over those of all others."""
    shown = [pair for pair in pairs if np.isfinite(pair.divergence)][:3]
    columns = {
        frozenset((mined.names[first], mined.names[second])): column
        for column, (first, second) in enumerate(mined.pairs)
    }
    chosen = [columns[frozenset((pair.first, pair.second))] for pair in shown]
    rest = np.delete(mined.cosines, chosen, axis=1).ravel()
    bins = np.linspace(-1, 1, 41).tolist()
    with style():
        figure = new_figure(6.0, 3.9)
        axes = figure.subplots()
        if len(rest):
            axes.hist(rest, bins=bins, density=True, color="#d5dade", label="all other pairs")
        for index, (column, pair) in enumerate(zip(chosen, shown, strict=True)):
            label = f"{pair.first} – {pair.second} ({pair.divergence:.2f})"
            axes.hist(
                mined.cosines[:, column],
                bins=bins,
                density=True,
                histtype="step",
                linewidth=1.8,
                color=colour_of(index),
                label=label,
            )
        axes.set(xlabel="cosine between the attributes' weights", ylabel="density", title=title)
        figure.legend(loc="outside lower left", title="divergence in brackets, nats")
    return figure


def bias_table(found: Mapping[str, Sequence[PairBias]]) -> list[dict[str, Any]]:
    """Return a row for each pair of attributes in each network."""
    return [
        {
            "network": name,
            "first": pair.first,
            "second": pair.second,
            "given": pair.given,
            "cosine": pair.cosine,
            "cosine of such pairs": pair.expected,
            "divergence": pair.divergence,
            "outlying": pair.outlying,
            "suspected": pair.suspected,
        }
        for name, pairs in found.items()
        for pair in pairs
    ]


def suspected_pairs(found: Mapping[str, Sequence[PairBias]]) -> dict[str, list[str]]:
    """Return what the suspected pairs of each network are called."""
    return {name: [_called(pair) for pair in pairs if pair.suspected] for name, pairs in found.items()}


def bias_report(
    mined: Mapping[str, AttributeRelations],
    found: Mapping[str, Sequence[PairBias]],
    relations: Figure,
    *,
    layer: str,
    photographs: bool,
) -> Report:
    """Return the page.

    Parameters
    ----------
    mined : mapping of str to AttributeRelations
        By network.
    found : mapping of str to sequence of PairBias
        By network, the most divergent first.
    relations : Figure
        What :func:`relation_figure` drew.
    layer : str
        Whose features were looked at.
    photographs : bool
        Whether the images were given; else they are rendered scenes.
    """
    report = page(
        "bias",
        "Which attributes does the network mix up?",
        "; ".join(
            f"{name}: {', '.join(pairs) or 'no pair stands out'}"
            for name, pairs in suspected_pairs(found).items()
        )
        + ".",
    )
    report.add_numbers(
        {
            f"{name}: most divergent pair": (
                f"{pairs[0].divergence:.2f} nats",
                f"{_called(pairs[0])}, cosine {pairs[0].cosine:.2f}",
            )
            for name, pairs in found.items()
        }
    )
    report.add_section(
        "Relations in the network",
        "For each image an attribute's output is modelled as linear in the features of "
        f"`{layer}`; two attributes are related as far as their weights point the same way."
        + (
            ""
            if photographs
            else " The biased network was trained where round things always stand before warm walls; "
            "the control was not. Both are asked about scenes in which all attributes are independent."
        ),
        figures=[(relations, "Mean cosine over the images.")],
    )
    # Columns of which all rows hold the same are left out, so that the table needs no scrolling.
    related = any(pair.given != "none" for pairs in found.values() for pair in pairs)
    rows = [
        {
            **({"network": name} if len(found) > 1 else {}),
            "pair": _called(pair),
            **({"given": pair.given} if related else {}),
            "cosine": pair.cosine,
            "such pairs": pair.expected,
            "divergence": pair.divergence,
            "outlying": pair.outlying,
            "suspected": pair.suspected,
        }
        for name, pairs in found.items()
        for pair in pairs
    ]
    report.add_section(
        "Distributions",
        "A pair is compared with all others that are given as related in the same way. It is suspected if its "
        "divergence is far outside what the other pairs show, and its cosine differs by more than 0.4.",
        figures=[
            (cosine_figure(mined[name], pairs, f"Cosines: {name}"), "The three most divergent pairs.")
            for name, pairs in found.items()
        ],
        table=rows[:200],
        table_caption=("The relation given; the" if related else "The")
        + " mean cosine of the pair and of all pairs given as so related; the divergence from them in nats, and how "
        "many robust standard deviations that is outside.",
        formats={"cosine": "+.2f", "such pairs": "+.2f", "divergence": ".2f", "outlying": ".1f"},
    )
    return report


def _called(pair: PairBias) -> str:
    return f"{pair.first} – {pair.second}"
