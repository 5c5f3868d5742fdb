"""Pictures and pages of the checks that question a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray
from torch import Tensor

from cnn_interp.diagnosis.attacks import Attack
from cnn_interp.diagnosis.directions import DirectionComparison
from cnn_interp.diagnosis.feature_distributions import FactorEffect, VarianceShares
from cnn_interp.diagnosis.layer_features import LayerChange
from cnn_interp.diagnosis.representation_bias import AttributeRelations, PairBias
from cnn_interp.diagnosis.transferability import TREATMENTS, Probe, Transfer
from interpretkit.visualization import colour_of, heatmap, new_figure, style
from interpretkit.visualization.style import INK, MUTED

# Of several images, so many are drawn.
MOST_SHOWN = 6
TITLES = {
    "fgsm": "FGSM", "pgd": "PGD", "deepfool": "DeepFool", "minimal": "smallest (L-BFGS)", "one pixel": "one pixel",
}  # fmt: skip

Naming = Callable[[int], str]


def attack_sheet(attacks: Sequence[Attack], row: int, name: Naming) -> Figure:
    """Draw one image under several attacks: what was added, made visible, and what the network then says."""
    with style():
        figure = new_figure(2.3 * (1 + len(attacks)), 5.4)
        axes = figure.subplots(2, 1 + len(attacks), squeeze=False)
        first = attacks[0]
        _show(axes[0, 0], first.originals[row])
        axes[0, 0].set_title("original", fontsize=10)
        _say(axes[0, 0], _verdict(first.before[row], name))
        axes[1, 0].axis("off")
        for column, attack in enumerate(attacks, start=1):
            top, bottom = axes[:, column]
            _show(top, attack.perturbed[row])
            top.set_title(TITLES[attack.method], fontsize=10)
            _say(top, _verdict(attack.after[row], name), changed=bool(attack.succeeded[row]))
            difference = attack.difference[row]
            largest = max(float(difference.abs().max()), 1e-9)
            _show(bottom, 0.5 + difference / (2 * largest))
            _say(
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
            _show(place, attack.perturbed[row])
            for down, right in attack.difference[row].abs().amax(0).nonzero().tolist():
                radius = 0.09 * attack.perturbed.shape[-1]
                place.add_patch(Circle((right, down), radius, fill=False, color="#E69F00", linewidth=1.6))
            before, after = (_verdict(values[row], name) for values in (attack.before, attack.after))
            _say(place, f"{before}\n→ {after}", changed=not withstood)
    return figure


def purity_figure(
    found: Mapping[str, DirectionComparison], controls: Mapping[str, DirectionComparison]
) -> Figure:
    """Draw how pure the strongest images of units, random directions and a rotated basis are, layer by layer."""
    measure = next(iter(found.values())).measure
    with style():
        figure = new_figure(1.6 + 2.2 * len(found), 4.2)
        axes = figure.subplots()
        for place, (layer, comparison) in enumerate(found.items()):
            groups = {
                "units": comparison.units,
                "random directions": comparison.random,
                "units of a rotated basis": controls[layer].units,
            }
            for index, (label, values) in enumerate(groups.items()):
                drawn = axes.boxplot(
                    values,
                    positions=[place + 0.25 * (index - 1)],
                    widths=0.2,
                    showfliers=False,
                    patch_artist=True,
                    medianprops={"color": INK, "linewidth": 1.8},
                    boxprops={"facecolor": colour_of(index), "edgecolor": colour_of(index)},
                    whiskerprops={"color": colour_of(index)},
                    capprops={"color": colour_of(index)},
                )
                if place == 0:
                    drawn["boxes"][0].set_label(label)
            axes.plot([place - 0.4, place + 0.4], [comparison.chance] * 2, ":", color=MUTED)
        axes.plot([], [], ":", color=MUTED, label="images at random")
        axes.set_xticks(range(len(found)), list(found))
        axes.set(
            ylabel="purity (bits in common)" if measure == "attributes" else "purity (mean cosine)",
            title="Purity of the strongest images",
        )
        axes.grid(axis="x", visible=False)
        figure.legend(loc="outside lower left", ncols=2)
    return figure


def strongest_images(comparison: DirectionComparison, pixels: Tensor, *, kind: str, rows: int = 5) -> Figure:
    """Draw the strongest images of the purest, the middling and the least pure units (or random directions)."""
    units = kind == "units"
    purity, images = (
        (comparison.units, comparison.unit_images) if units else (comparison.random, comparison.random_images)
    )
    order = np.argsort(-purity, kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(rows, len(order))).round().astype(int)]
    columns = images.shape[1]
    with style():
        figure = new_figure(1.6 + 0.85 * columns, 0.95 * len(chosen) + 0.5)
        axes = figure.subplots(len(chosen), columns, squeeze=False)
        for line, row in enumerate(chosen):
            for column, image in enumerate(images[row]):
                _show(axes[line, column], pixels[image])
            name = f"unit {comparison.unit_numbers[row]}" if units else f"direction {row}"
            axes[line, 0].set_ylabel(
                f"{name}\n{purity[row]:.2f}", rotation=0, ha="right", va="center", fontsize=11
            )
        title = "Units" if units else "Random directions"
        figure.suptitle(f"{title}, from the purest to the least pure", x=0.01, ha="left", fontsize=13)
    return figure


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


def shares_figure(found: Mapping[str, VarianceShares]) -> Figure:
    """Draw the shares of the factors in the variance of each layer, as stacked bars."""
    with style():
        figure = new_figure(7.4, 4.2)
        axes = figure.subplots()
        bottom = np.zeros(len(found))
        names = list(next(iter(found.values())).shares)
        for index, name in enumerate(names):
            heights = np.array([shares.shares[name] for shares in found.values()])
            colour = "#d5dade" if name == "residual" else colour_of(index)
            label = "together, and the rest" if name == "residual" else name.replace("_", " ")
            axes.bar(range(len(found)), heights, bottom=bottom, color=colour, label=label, width=0.75)
            for place, height in enumerate(heights):
                if height > 0.06:
                    axes.text(
                        place,
                        bottom[place] + height / 2,
                        f"{height:.0%}",
                        ha="center",
                        va="center",
                        fontsize=8,
                        color="black" if name == "residual" else "white",
                    )
            bottom += heights
        axes.set_xticks(range(len(found)), list(found), rotation=40, ha="right")
        axes.set(ylabel="share of the variance", title="What moves each layer's features", ylim=(0, 1))
        axes.grid(axis="x", visible=False)
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def factor_maps(factors: Sequence[FactorEffect], pictures: Mapping[str, NDArray[np.uint8]]) -> Figure:
    """Draw the means of each factor's values in their principal plane, with a picture of each value.

    Parameters
    ----------
    factors : sequence of FactorEffect
        Those with at least three values are drawn.
    pictures : mapping of str to ndarray (v, h, w, 3)
        From a factor's name to a picture of each of its values.
    """
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    drawn = [effect for effect in factors if len(effect.values) >= 3]
    with style():
        columns = min(2, len(drawn))
        lines = -(-len(drawn) // columns)
        figure = new_figure(4.4 * columns, 4.2 * lines)
        places = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes in places[len(drawn) :]:
            axes.axis("off")
        for axes, effect in zip(places, drawn, strict=False):
            x, y = effect.coordinates[:, 0], effect.coordinates[:, 1]
            axes.plot(x, y, "-", color="#c3cad1", linewidth=1)
            for place, picture in enumerate(pictures[effect.name]):
                axes.add_artist(AnnotationBbox(OffsetImage(picture, zoom=0.9), (x[place], y[place]), pad=0.1))
            reach = 1.25 * max(np.abs(effect.coordinates[:, :2]).max(), 1e-9)
            axes.set(
                xlim=(-reach, reach),
                ylim=(-reach, reach),
                title=effect.name.replace("_", " "),
                xlabel=f"first axis ({effect.explained[0]:.0%})",
                ylabel=f"second axis ({effect.explained[1]:.0%})",
            )
            axes.set_aspect("equal")
            axes.tick_params(labelbottom=False, labelleft=False)
    return figure


def relation_figure(mined: AttributeRelations, title: str) -> Figure:
    """Draw the mean cosines between attributes as a matrix."""
    matrix = mined.matrix
    np.fill_diagonal(matrix, np.nan)
    return heatmap(matrix, mined.names, mined.names, label="mean cosine", centre=0, title=title)


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


def _show(axes: Axes, picture: Tensor) -> None:
    values = picture.clamp(0, 1).permute(1, 2, 0).numpy()
    grey = values.shape[2] == 1
    drawn: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1} if grey else {}
    axes.imshow(values[..., 0] if grey else values, interpolation="nearest", **drawn)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _say(axes: Axes, text: str, *, changed: bool = False) -> None:
    axes.set_xlabel(text, fontsize=9, color="#D55E00" if changed else "#26303a")


def _verdict(probabilities: Tensor, name: Naming) -> str:
    best = int(probabilities.argmax())
    called = name(best)
    return f"{called if len(called) < 22 else called[:20] + '…'} ({float(probabilities[best]):.0%})"


def _geometric(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(np.log(np.maximum(values, 1e-12)).mean(0))
