"""Whether units mean more than random directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.commands._loading import (
    check_given,
    classifier,
    classifier_and_side,
    images_as_pixels,
    layers_in,
    scenes_as_pixels,
)
from cnn_interp.commands._options import Convert, Images, Layers, Model, Weights
from interpretkit.commandline import Column, Device, Finding, Quiet, Seed, command
from interpretkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.figure import Figure
    from torch import Tensor

    from cnn_interp.diagnosis.directions import DirectionComparison

# Of images as they are drawn, px.
_DRAWN_SIDE = 64
_COLUMNS = {
    "layer": Column("the layer"),
    "units": Column("how many units were compared"),
    "purity of units": Column("mean purity of the units' strongest images", heading="purity", format=".3f"),
    "of random directions": Column("that of random directions", heading="random", format=".3f"),
    "of images at random": Column("that of images drawn at random", heading="chance", format=".3f"),
    "difference": Column("how far units are above directions", format="+.3f"),
    "from": Column("lower end of the 95 % interval of the difference", heading="95 % from", format="+.3f"),
    "to": Column("upper end of the 95 % interval of the difference", heading="95 % to", format="+.3f"),
    "unit purer than direction": Column(
        "how often a unit is purer than a direction; half is no difference", heading="purer", format=".1%"
    ),
    "the same, rotated": Column("the same of a unit of a rotated basis", heading="rotated", format=".1%"),
}


@command(
    out="directions",
    example=[
        "interpretkit cnn diagnose directions --layer features.7,features.18",
        "interpretkit cnn diagnose directions photos/ --model resnet50",
    ],
)
def directions(
    images: Images = None,
    network: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    layers: Layers = "",
    top: Annotated[int, typer.Option("--top", min=2, help="Strongest images of a direction.")] = 9,
    count: Annotated[int, typer.Option("--directions", min=2, help="How many random directions.")] = 256,
    convert: Convert = False,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> Finding:
    """Ask whether single units mean more than random directions of their layer.

    The strongest images of each unit are compared with those of random directions: by how far they agree on a known
    attribute (scenes rendered here, without images), or by how alike the network's outputs to them are (with images).
    A rotated basis is the control.
    """
    given = len(check_given(images, convert))
    if images and given < 2 * top:
        raise InputError(f"IMAGE: {given} images; expected at least {2 * top}, twice --top")
    from cnn_interp.diagnosis.directions import compare_directions, rotated
    from cnn_interp.diagnosis.layer_features import OUTPUT, pooled_features, resize, stages

    files: list[Path] = []
    factors = None
    if images:
        loaded = classifier(network, weights, device, seed)
        pixels, _, files = images_as_pixels(loaded, images, convert)
    else:
        loaded, side = classifier_and_side(network, weights, device, seed, None)
        pixels, factors, _ = scenes_as_pixels(side)
    if len(pixels) < 2 * top:
        raise InputError(f"top {top}: there are {len(pixels)} scenes; expected at most half as many")
    chosen = layers_in(loaded, layers) or list(stages(loaded.module, loaded.normalise(pixels[:1]), most=4))
    wanted = [*chosen, OUTPUT] if images else chosen
    features = pooled_features(loaded, pixels, wanted, seed=seed, quiet=quiet)
    options: dict[str, Any] = {"top": top, "directions": count, "seed": seed}
    options |= {"reference": features[OUTPUT]} if images else {"attributes": factors}
    compared = {layer: compare_directions(features[layer], **options) for layer in chosen}
    controls = {layer: compare_directions(rotated(features[layer], seed), **options) for layer in chosen}

    purer = [layer for layer, result in compared.items() if result.interval[0] > 0]
    where = f"{len(purer)} of {len(compared)} layers ({', '.join(purer)})" if purer else "no layer"
    found = Finding(
        f"{network}: units against random directions",
        f"In {where} the strongest images of units have more in common than those of random directions; in "
        f"{chosen[-1]} a unit is the purer one in {compared[chosen[-1]].superiority:.0%} of comparisons (50 % by "
        f"chance). {len(pixels)} {'images' if images else 'rendered scenes'}, {top} strongest.",
    ).reads(*files)
    found.number(
        "superiority",
        {layer: result.superiority for layer, result in compared.items()},
        "a unit purer than a random direction",
        format=".0%",
        note="50 % = no difference",
    )
    found.values.update(
        rotated={layer: result.superiority for layer, result in controls.items()}, images=len(pixels)
    )
    found.section(
        "Purity",
        "Attributes: bits that the images have in common, by the attribute that tells most (size, shape, "
        "viewpoint, colours). Images: the mean cosine between the network's outputs to them. A rotated basis spans "
        "the same space; if units are special, its are not.",
    ).figure(
        "purity.png",
        _purity_figure(compared, controls),
        "Boxes: quartiles; whiskers: 1.5 times their distance.",
    ).table("directions.csv", _rows(compared, controls), _COLUMNS)
    strongest = found.section(f"Strongest images in {list(compared)[-1]}")
    small = resize(pixels, min(_DRAWN_SIDE, pixels.shape[-1]))
    for kind in ("units", "directions"):
        picture = _strongest_images(list(compared.values())[-1], small, kind=kind)
        strongest.figure(
            f"strongest-{kind}.png", picture, f"{top} strongest images of {kind}; purity beside them."
        )
    found.next_step("See which concepts the units detect:", "interpretkit cnn dissect --model", network)
    return found.arrays(
        "directions.npz",
        **{f"{layer}.units": result.units for layer, result in compared.items()},
        **{f"{layer}.random": result.random for layer, result in compared.items()},
        **{f"{layer}.unit_images": result.unit_images for layer, result in compared.items()},
    )


def _purity_figure(
    found: Mapping[str, DirectionComparison], controls: Mapping[str, DirectionComparison]
) -> Figure:
    """Draw how pure the strongest images of units, random directions and a rotated basis are, layer by layer."""
    from interpretkit.visualization import colour_of, new_figure, style
    from interpretkit.visualization.style import INK, MUTED

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


def _strongest_images(comparison: DirectionComparison, pixels: Tensor, *, kind: str, rows: int = 5) -> Figure:
    """Draw the strongest images of the purest, the middling and the least pure units (or random directions)."""
    import numpy as np

    from cnn_interp.diagnosis.pictures import show
    from interpretkit.visualization import new_figure, style

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
                show(axes[line, column], pixels[image])
            name = f"unit {comparison.unit_numbers[row]}" if units else f"direction {row}"
            axes[line, 0].set_ylabel(
                f"{name}\n{purity[row]:.2f}", rotation=0, ha="right", va="center", fontsize=11
            )
        title = "Units" if units else "Random directions"
        figure.suptitle(f"{title}, from the purest to the least pure", x=0.01, ha="left", fontsize=13)
    return figure


def _rows(
    found: Mapping[str, DirectionComparison], controls: Mapping[str, DirectionComparison]
) -> list[dict[str, Any]]:
    """Return a row for each layer: purities, their difference with its interval, and how often a unit is purer."""
    return [
        {
            "layer": layer,
            "units": len(result.units),
            "purity of units": float(result.units.mean()),
            "of random directions": float(result.random.mean()),
            "of images at random": result.chance,
            "difference": result.difference,
            "from": result.interval[0],
            "to": result.interval[1],
            "unit purer than direction": result.superiority,
            "the same, rotated": controls[layer].superiority,
        }
        for layer, result in found.items()
    ]
