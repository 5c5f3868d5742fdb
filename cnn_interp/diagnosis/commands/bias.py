"""The command ``bias``: attributes that a network tells by each other's features though they are not related."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cnn_interp.diagnosis.commands.loading import check_given, classifier, images_as_pixels, read_table
from cnn_interp.diagnosis.commands.options import Images, split
from cnn_interp.options import Convert, Model, Weights
from interpretkit.command import Device, Out, Quiet, Seed, command
from interpretkit.errors import InputError

FEWEST_IMAGES = 10


def register(app: typer.Typer) -> None:
    """Add the command to a group."""
    command(
        app,
        "bias",
        example=[
            "interpretkit cnn diagnose bias",
            'interpretkit cnn diagnose bias photos/ --categories "tabby,Egyptian cat,remote control,keypad" '
            "--layer features.13 --relations relations.csv",
        ],
    )(bias)


def bias(
    images: Images = None,
    out: Out = Path("bias"),
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
) -> dict[str, Any]:
    """Find attributes that a network tells by each other's features though they are not related.

    With images, outputs of the named network are related. Without, two small networks are trained on rendered scenes:
    one in which round things stand before warm walls, and one in which they stand anywhere.
    """
    named = split(categories)
    if images and len(set(named)) < 3:
        raise InputError(
            f"--categories {categories!r}: expected at least three names of the network's outputs"
        )
    check_given(images, convert)
    if not images and named:
        raise InputError(
            f"--categories {categories}: are those of a network shown images; expected images with it"
        )
    if relations:
        read_table(Path(relations), "first", "second", "relation")

    from cnn_interp.diagnosis.layer_features import stages
    from cnn_interp.diagnosis.reports import bias as shown
    from cnn_interp.diagnosis.reports.page import save_page
    from cnn_interp.diagnosis.representation_bias import (
        SCENE_ATTRIBUTES,
        attribute_scenes,
        find_bias,
        mine_relations,
        read_relations,
    )
    from interpretkit.results import run_folder

    arguments = {
        "images": [str(path) for path in images or ()], "network": network, "weights": weights,
        "categories": categories, "layer": layer, "relations": relations, "epochs": epochs, "convert": convert,
    }  # fmt: skip
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
    with run_folder(out, "cnn diagnose bias", arguments, seed, files) as run:
        if not images:
            networks = _small_networks(epochs, seed, device, quiet)
        mined = {
            name: mine_relations(each, pixels, outputs, layer, seed=seed) for name, each in networks.items()
        }
        found = {name: find_bias(each, given) for name, each in mined.items()}
        run.save_table("pairs.csv", shown.bias_table(found))
        run.save_arrays(
            "relations.npz",
            pairs=next(iter(mined.values())).pairs,
            **{f"{name}.cosines": each.cosines for name, each in mined.items()},
        )
        matrices = shown.relation_figure(mined)
        run.save_figure("relations.png", matrices)
        run.summary.update(
            suspected=shown.suspected_pairs(found),
            largest_divergence={name: pairs[0].divergence for name, pairs in found.items()},
            layer=layer,
        )
        report = shown.bias_report(mined, found, matrices, layer=layer, photographs=bool(images))
        save_page(report, run, seed=seed, files=files)
    return {**run.summary, "out": out}


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
