"""Which concepts the units of a network detect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cnn_interp.commands._loading import COMPOSED, chosen_layers, load_concepts
from cnn_interp.commands._options import Model, UnitLayers, Weights
from cnn_interp.networks.checks import is_edit
from interpretkit.commandline import Column, Device, Finding, Quiet, Seed, command, kind_and_path
from interpretkit.commandline.caution import no_better
from interpretkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

    from cnn_interp.images.sets import Images
    from cnn_interp.metrics.dissection import Dissection
    from cnn_interp.networks.network import Network
    from interpretkit.visualization.instruments import Item

# Units drawn for each category, and pictures of each.
_SHOWN, _PICTURES = 5, 4
# If random weights detect more of the concepts, the images are too few.
_CHANCE = 0.1
_UNIT_COLUMNS = {
    "layer": Column("the layer"),
    "unit": Column("number of the unit in its layer"),
    "concept": Column("the concept that the unit overlaps with most"),
    "category": Column("the concept's category"),
    "iou": Column("overlap with the concept, intersection over union", heading="IoU", format=".3f"),
    "detector": Column("whether that is enough for a detector"),
    "threshold": Column("activation above which the unit counts as active", format=".3g"),
}


@command(
    out="dissection",
    example=[
        "interpretkit cnn dissect",
        "interpretkit cnn dissect --model resnet50 --layer layer3,layer4 --data broden=broden1_224 --images 10000",
    ],
)
def dissect(
    model: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    layer: UnitLayers = "",
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="KIND=PATH",
            help="Images with labelled concepts: broden=FOLDER, or 'composed', which the project makes itself.",
        ),
    ] = COMPOSED,
    images: Annotated[
        int, typer.Option("--images", metavar="N", min=1, help="How many images, spread over the data.")
    ] = 300,
    share: Annotated[
        float, typer.Option("--share", help="A unit is active where so few of its values are larger.")
    ] = 0.005,
    baseline: Annotated[
        bool,
        typer.Option("--baseline/--no-baseline", help="Dissect the network with random weights as well."),
    ] = True,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> Finding:
    """Find the concepts that the units of a network detect, by network dissection.

    Writes units.csv (each unit's best concepts), dissection.npz for each layer, pictures of the clearest detectors and
    report.html. A unit counts as a detector if its IoU with a concept exceeds 0.04.
    """
    if not 0 < share < 1:
        raise InputError(f"share {share}: expected a share between 0 and 1")
    kind_and_path(data, ["broden"], "data", words=[COMPOSED])
    from cnn_interp.images.batches import ConceptBatches, held_if_few
    from cnn_interp.metrics.dissection import dissect as measure
    from cnn_interp.networks.loading import load_network

    concepts, files = load_concepts(data, images, seed)
    network = load_network(model, weights=weights, device=device, seed=seed)
    layers = chosen_layers(network, layer)
    batches = held_if_few(ConceptBatches(network, concepts))
    dissections = measure(network.module, layers, batches, concepts.labels, share=share, quiet=quiet)
    random: dict[str, Dissection] = {}
    # Random weights need a network that makes them, and say nothing beside random ones.
    own = ":" in model.removeprefix("timm:") or is_edit(model)
    if baseline and weights != "random" and not own:
        untrained = load_network(model, weights="random", device=device, seed=seed)
        random = measure(untrained.module, layers, batches, concepts.labels, share=share, quiet=quiet)

    found = _headline(dissections, random, network.name).reads(*files)
    if len(dissections) > 1 or random:
        found.section(
            "Layers", "Unique detectors: how many concepts of a category some unit of the layer detects."
        ).table("layers.csv", _layers(dissections, random))
    for name, dissection in dissections.items():
        _add_layer(found, name, dissection, random.get(name), network, concepts)
        found.arrays(f"{name}.npz", **dissection.arrays())
    found.table(
        "units.csv",
        [
            {"layer": name, **row}
            for name, dissection in dissections.items()
            for row in dissection.units_table()
        ],
        _UNIT_COLUMNS,
    )
    measured = found.section(
        "How it is measured",
        "A unit is active where its map, interpolated bilinearly between the centres of the receptive fields, exceeds "
        f"the value that {share:.1%} of all its positions in all images exceed. Its IoU with a concept is the number "
        "of pixels that both cover, over those that either covers, summed over the images that contain the concept's "
        f"category. Data: {concepts.name}, {len(concepts)} images. Network dissection: Bau and others, CVPR 2017.",
    )
    worst = max(float(dissection.threshold_error.max()) for dissection in dissections.values())
    if worst > 0:
        measured.note(f"The thresholds' share of positions is certain up to {worst:.2g} of all positions.")
    return found.next_step(
        "See whether units follow parts of objects:", "interpretkit cnn instability --model", model
    )


def _headline(
    dissections: Mapping[str, Dissection], random: Mapping[str, Dissection], network: str
) -> Finding:
    """Begin with the layer whose units detect most concepts."""
    import numpy as np

    main_layer = max(dissections, key=lambda layer: sum(dissections[layer].unique_detectors().values()))
    main, baseline = dissections[main_layer], random.get(main_layer)
    unique, units = sum(main.unique_detectors().values()), {unit for unit, _, _ in main.detectors()}
    lead = (
        f"{len(units)} of the {len(main.iou)} units of `{main_layer}` overlap with one of {len(main.concepts)} "
        f"concepts by more than {main.detector_iou:g}; together they detect {unique} different ones."
    )
    by_chance = None if baseline is None else sum(baseline.unique_detectors().values())
    if by_chance is not None:
        lead += f" With random weights the same layer detects {by_chance}: so many come about by chance here."
    found = Finding(f"{unique} concepts detected by {network}", lead)
    found.number("unique_detectors", unique, note="concepts, summed over categories")
    found.number(
        "by_best_category",
        sum(main.unique_detectors("best").values()),
        "counted by best category",
        note="each unit detects one concept at most",
    )
    found.number(
        "share_that_detects",
        len(units) / len(main.iou),
        "units that detect",
        format=".0%",
        note=f"of {len(main.iou)}",
    )
    found.number(
        "median_best_iou", float(np.median(main.best()[1])), "median best IoU", note="over all units"
    )
    if by_chance is not None:
        found.number(
            "unique_detectors_random",
            by_chance,
            "with random weights",
            note="unique detectors of the same layer",
        )
    for name, dissection in dissections.items():
        found.values[name] = {
            "unique_detectors": sum(dissection.unique_detectors().values()),
            "by_best_category": sum(dissection.unique_detectors("best").values()),
            "units_that_detect": len({unit for unit, _, _ in dissection.detectors()}),
        }
        if name in random:
            found.values[name]["unique_detectors_random"] = sum(random[name].unique_detectors().values())
    for name, untrained in random.items():
        trained_count = sum(dissections[name].unique_detectors().values())
        random_count = sum(untrained.unique_detectors().values())
        found.warn(
            *no_better(
                f"the number of detectors in {name}", trained_count, "that of random weights", random_count
            )
        )
    if by_chance is not None and by_chance > _CHANCE * len(main.concepts):
        found.warn(
            f"With random weights the layer already detects {by_chance} of {len(main.concepts)} concepts, for on few "
            "images rare concepts are matched by chance. A larger number of --images leaves fewer such detectors."
        )
    return found


def _layers(
    dissections: Mapping[str, Dissection], random: Mapping[str, Dissection]
) -> list[dict[str, object]]:
    """Return a row for each layer, trained and untrained."""
    return [
        {
            "layer": layer,
            "weights": name,
            "units": len(found.iou),
            **found.unique_detectors(),
            "summed": sum(found.unique_detectors().values()),
            "best category": sum(found.unique_detectors("best").values()),
        }
        for layer in dissections
        for name, found in (("trained", dissections[layer]), ("random", random.get(layer)))
        if found is not None
    ]


def _add_layer(
    found: Finding,
    layer: str,
    dissection: Dissection,
    random: Dissection | None,
    network: Network,
    images: Images,
) -> None:
    """Show what the units of a layer detect."""
    from cnn_interp.metrics.pictures import comparison_figure, detectors_figure
    from interpretkit.visualization.instruments import Gallery

    section = found.section(f"Detectors in {layer}")
    if dissection.detectors():
        section.figure(
            f"{layer}.png", detectors_figure(dissection), f"How many units of `{layer}` detect each concept."
        )
    else:
        section.note("No unit detects a concept: no overlap exceeds the threshold.")
    if random is not None:
        section.figure(
            f"{layer}-random.png",
            comparison_figure(dissection, random),
            f"The units of `{layer}`, trained and untrained, on the same images.",
        )
    drawn, items = _unit_figures(network, images, dissection)
    if items:
        section.text(
            "The clearest detectors: the images in which each is strongest, outlined where it is active."
        ).instrument(
            Gallery(items, placeholder="a concept", side=26, label=f"Detectors in {layer}, to browse")
        )
    for category, figure in drawn.items():
        section.figure(f"units/{layer}-{category}.png", figure, on_page=False)
    rows = sorted(dissection.units_table(), key=lambda row: -float(str(row["iou"])))
    section.table(
        None,
        rows[:50],
        _UNIT_COLUMNS,
        "The 50 units with the largest IoU; `units.csv` holds all.",
        shown=[name for name in _UNIT_COLUMNS if name != "layer"],
    )


def _unit_figures(
    network: Network, images: Images, dissection: Dissection
) -> tuple[dict[str, Figure], list[Item]]:
    """Draw the best detector of each concept in its strongest images, for each category the clearest few."""
    from cnn_interp.metrics.pictures import unit_figure, unit_pictures
    from interpretkit.visualization.instruments import Item

    best: dict[int, tuple[float, int]] = {}
    for unit, column, iou in dissection.detectors():
        best[column] = max(best.get(column, (0.0, 0)), (iou, unit))
    chosen: dict[str, dict[int, str]] = {}
    for column, (iou, unit) in sorted(best.items(), key=lambda item: -item[1][0]):
        concept = dissection.concepts[column]
        some = chosen.setdefault(concept.category, {})
        if len(some) < _SHOWN and unit not in some:
            some[unit] = f"unit {unit}: {concept.name}, IoU {iou:.2f}"
    units = sorted({unit for some in chosen.values() for unit in some})
    strips = unit_pictures(network, images, dissection, units, columns=_PICTURES)
    figures = {
        category: unit_figure([(title, strips[unit]) for unit, title in chosen[category].items()])
        for category in dissection.categories
        if category in chosen
    }
    items = [
        Item(
            f"unit {unit}: {concept.name}",
            strips[unit],
            concept.category,
            concept.category,
            {"IoU": round(iou, 4)},
        )
        for column, (iou, unit) in sorted(best.items(), key=lambda item: -item[1][0])
        if unit in strips
        for concept in (dissection.concepts[column],)
    ]
    return figures, items
