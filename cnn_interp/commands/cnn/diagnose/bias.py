"""Attributes that a network tells by each other's features though they are not related."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.commands._loading import check_given, classifier, images_as_pixels
from cnn_interp.commands._options import Convert, Images, Model, Weights
from interpretkit.commandline import Column, Device, Finding, Quiet, Seed, command, listed
from interpretkit.errors import InputError
from interpretkit.runs.files import read_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from cnn_interp.diagnosis.representation_bias import AttributeRelations, PairBias

FEWEST_IMAGES = 10
_COLUMNS = {
    "network": Column("the network asked"),
    "first": Column("the first attribute of the pair"),
    "second": Column("the second"),
    "given": Column("how they are given to be related"),
    "cosine": Column("mean cosine between the attributes' weights", format="+.2f"),
    "cosine of such pairs": Column(
        "mean cosine of all pairs given as so related", heading="such pairs", format="+.2f"
    ),
    "divergence": Column("divergence of the pair's cosines from those of such pairs", "nats", format=".2f"),
    "outlying": Column("how many robust standard deviations that is outside", format=".1f"),
    "suspected": Column("whether the pair is suspected"),
}


@command(
    out="bias",
    example=[
        "interpretkit cnn diagnose bias",
        'interpretkit cnn diagnose bias photos/ --categories "tabby,Egyptian cat,remote control,keypad" '
        "--layer features.13 --relations relations.csv",
    ],
)
def bias(
    images: Images = None,
    network: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    categories: Annotated[
        str,
        typer.Option(
            "--categories", metavar="NAME,...", help="Outputs of the network to relate; three or more."
        ),
    ] = "",
    layer: Annotated[
        str, typer.Option("--layer", metavar="NAME", help="The layer whose features are looked at.")
    ] = "",
    relations: Annotated[
        str,
        typer.Option(
            "--relations", metavar="FILE", help="CSV: first, second, relation (positive, none or negative)."
        ),
    ] = "",
    epochs: Annotated[
        int, typer.Option("--epochs", min=1, help="Of the small networks, without images.")
    ] = 10,
    convert: Convert = False,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> Finding:
    """Find attributes that a network tells by each other's features though they are not related.

    With images, outputs of the named network are related. Without, two small networks are trained on rendered scenes:
    one in which round things stand before warm walls, and one in which they stand anywhere.
    """
    named = list(dict.fromkeys(listed(categories)))
    if images and len(named) < 3:
        raise InputError(f"categories {categories!r}: expected at least three names of the network's outputs")
    check_given(images, convert)
    if not images and named:
        raise InputError(
            f"categories {categories}: are those of a network shown images; expected images with it"
        )
    if relations:
        read_table(Path(relations), "first", "second", "relation")
    from cnn_interp.diagnosis.layer_features import stages
    from cnn_interp.diagnosis.representation_bias import (
        SCENE_ATTRIBUTES,
        attribute_scenes,
        find_bias,
        mine_relations,
        read_relations,
    )

    given = read_relations(relations) if relations else {}
    files = [Path(relations)] if relations else []
    networks: dict[str, Any] = {}
    if images:
        loaded = classifier(network, weights, device, seed)
        networks[network] = loaded
        outputs = {name: loaded.target(name) for name in named}
        pixels, _, found_files = images_as_pixels(loaded, images, convert)
        if len(pixels) < FEWEST_IMAGES:
            raise InputError(
                f"IMAGE: {len(pixels)} images; expected at least {FEWEST_IMAGES}, for distributions are compared"
            )
        files += found_files
        every = stages(loaded.module, loaded.normalise(pixels[:1]))
        layer = layer or every[max(0, len(every) - 3)]
    else:
        outputs = {name: number for number, name in enumerate(SCENE_ATTRIBUTES)}
        pixels = attribute_scenes(150, seed=seed + 1)[0]
        layer = layer or "blocks.1"
        networks = _small_networks(epochs, seed, device, quiet)
    mined = {name: mine_relations(each, pixels, outputs, layer, seed=seed) for name, each in networks.items()}
    pairs = {name: find_bias(each, given) for name, each in mined.items()}
    suspected = {name: [_called(pair) for pair in some if pair.suspected] for name, some in pairs.items()}

    found = Finding(
        "Which attributes does the network mix up?",
        "; ".join(
            f"{name}: {', '.join(some) or 'no pair stands out'} (the largest divergence is "
            f"{pairs[name][0].divergence:.2f} nats)"
            for name, some in suspected.items()
        )
        + ".",
    ).reads(*files)
    found.number(
        "largest_divergence",
        {name: some[0].divergence for name, some in pairs.items()},
        "most divergent pair",
        unit="nats",
        format=".2f",
        note={name: f"{_called(some[0])}, cosine {some[0].cosine:.2f}" for name, some in pairs.items()},
    )
    found.number("suspected", suspected, "suspected pairs", on_card=False)
    found.values["layer"] = layer
    found.section(
        "Relations in the network",
        "For each image an attribute's output is modelled as linear in the features of "
        f"`{layer}`; two attributes are related as far as their weights point the same way."
        + (
            ""
            if images
            else " The biased network was trained where round things always stand before warm walls; "
            "the control was not. Both are asked about scenes in which all attributes are independent."
        ),
    ).figure("relations.png", _relation_figure(mined), "Mean cosine over the images.")
    distributions = found.section(
        "Distributions",
        "A pair is compared with all others that are given as related in the same way. It is suspected if its "
        "divergence is far outside what the other pairs show, and its cosine differs by more than 0.4.",
    )
    for name, some in pairs.items():
        file = f"cosines-{list(pairs).index(name) + 1}.png"
        distributions.figure(
            file,
            _cosine_figure(mined[name], some, f"Cosines: {name}"),
            f"The three most divergent pairs of {name}.",
        )
    # Columns of which all rows hold the same are left out, so that the table needs no scrolling.
    left_out = {"network"} if len(pairs) < 2 else set()
    if all(pair.given == "none" for some in pairs.values() for pair in some):
        left_out.add("given")
    distributions.table(
        "pairs.csv",
        _rows(pairs),
        _COLUMNS,
        shown=[name for name in _COLUMNS if name not in left_out],
        most=200,
    )
    if images:
        found.next_step(
            "See what the network looks at in them:", "interpretkit cnn visualize --model", network, *images
        )
    else:
        found.next_step(
            "Relate classes of a pretrained network, shown many images of your own:",
            "interpretkit cnn diagnose bias --model mobilenet_v2 --categories",
            "tabby,beagle,goldfish",
            "my-images/",
        )
    return found.arrays(
        "relations.npz",
        pairs=next(iter(mined.values())).pairs,
        **{f"{name}.cosines": each.cosines for name, each in mined.items()},
    )


def _small_networks(epochs: int, seed: int, device: str, quiet: bool) -> dict[str, Any]:
    """Return a network trained where round things stand before warm walls, and one trained where they do not."""
    from cnn_interp.diagnosis.representation_bias import SCENE_ATTRIBUTES, attribute_scenes
    from cnn_interp.diagnosis.small_network import SmallNetwork, train_network
    from interpretkit.training import resolve_device

    networks: dict[str, Any] = {}
    for name, pair in (("biased", ("warm wall", "round")), ("control", None)):
        scenes, present = attribute_scenes(800, bias=pair, seed=seed)
        model = SmallNetwork(3, len(SCENE_ATTRIBUTES), (8, 16, 16), seed=seed).to(resolve_device(device))
        train_network(
            model,
            scenes,
            present,
            epochs=epochs,
            seed=seed,
            description=f"Training: {name}",
            quiet=quiet,
        )
        networks[name] = model
    return networks


def _relation_figure(mined: Mapping[str, AttributeRelations]) -> Figure:
    """Draw the mean cosines between attributes, networks side by side on one scale, for they are compared."""
    import numpy as np

    from interpretkit.visualization import heatmap
    from interpretkit.visualization.style import INK

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


def _cosine_figure(mined: AttributeRelations, pairs: Sequence[PairBias], title: str) -> Figure:
    """Draw the distributions of the cosines of the most divergent pairs over those of all others."""
    import numpy as np

    from interpretkit.visualization import colour_of, new_figure, style

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


def _rows(found: Mapping[str, Sequence[PairBias]]) -> list[dict[str, Any]]:
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


def _called(pair: PairBias) -> str:
    return f"{pair.first} – {pair.second}"
