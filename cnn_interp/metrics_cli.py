"""The commands ``dissect`` and ``instability``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.options import Model, Weights
from interpretkit.command import Device, Out, Quiet, Seed, application, command
from interpretkit.errors import InputError

if TYPE_CHECKING:
    from cnn_interp.datasets.concept_images import ConceptImages
    from cnn_interp.datasets.images import Images
    from cnn_interp.datasets.part_images import PartImages
    from cnn_interp.models import Network

app = application("How interpretable the units of a network are.")

Layer = Annotated[
    str,
    typer.Option(
        "--layer",
        metavar="NAME,...",
        help="Layers that give maps; by default the last that gives more than one position.",
    ),
]
COMPOSED, ARTICULATED = "composed", "articulated"
PART_KINDS = ("animal-part", "cub", "pascal-part")


@command(
    app,
    "dissect",
    example=[
        "interpretkit cnn dissect",
        "interpretkit cnn dissect --model resnet50 --layer layer3,layer4 --data broden=broden1_224 --images 10000",
    ],
)
def dissect(
    model: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    layer: Layer = "",
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
    out: Out = Path("dissection"),
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Find the concepts that the units of a network detect, by network dissection.

    Writes units.csv (each unit's best concepts), dissection.npz for each layer, pictures of the clearest detectors and
    report.html. A unit counts as a detector if its IoU with a concept exceeds 0.04.
    """
    if not 0 < share < 1:
        raise InputError(f"--share {share}: expected a share above 0 and below 1")
    _check_data(data, COMPOSED, ("broden",))

    from cnn_interp.metrics.batches import ConceptBatches, held_if_few
    from cnn_interp.metrics.dissection import dissect as measure
    from cnn_interp.metrics.reports import dissection_report, unit_figures
    from cnn_interp.models import load_network
    from interpretkit.caution import no_better, warn_loudly
    from interpretkit.results import run_folder

    concepts, files = load_concepts(data, images, seed)
    network = load_network(model, weights=weights, device=device, seed=seed)
    layers = chosen_layers(network, layer)
    # Random weights need a network that makes them, and say nothing beside random ones.
    compared = baseline and weights != "random" and ":" not in model.removeprefix("timm:")
    arguments = {
        "model": model, "weights": weights, "layer": layers, "data": data, "images": images, "share": share,
        "baseline": compared,
    }  # fmt: skip
    with run_folder(out, command="cnn dissect", arguments=arguments, seed=seed, data=files) as run:
        batches = held_if_few(ConceptBatches(network, concepts))
        found = measure(network.module, layers, batches, concepts.labels, share=share, quiet=quiet)
        random = {}
        if compared:
            untrained = load_network(model, weights="random", device=device, seed=seed)
            random = measure(untrained.module, layers, batches, concepts.labels, share=share, quiet=quiet)
        rows: list[dict[str, object]] = []
        figures = {}
        for name, dissection in found.items():
            rows += [{"layer": name, **row} for row in dissection.units_table()]
            run.save_arrays(f"{name}.npz", **dissection.arrays())
            figures[name] = unit_figures(network, concepts, dissection)
            for category, figure in figures[name].items():
                run.save_figure(f"units/{name}-{category}.png", figure)
        run.save_table("units.csv", rows)
        for name, dissection in found.items():
            run.summary[name] = {
                "unique_detectors": sum(dissection.unique_detectors().values()),
                "by_best_category": sum(dissection.unique_detectors("best").values()),
                "units_that_detect": len({unit for unit, _, _ in dissection.detectors()}),
            }
            if name in random:
                run.summary[name]["unique_detectors_random"] = sum(random[name].unique_detectors().values())
        report = dissection_report(
            found, figures, random, network=network.name, data=_said(concepts), share=share
        )
        warn_loudly(
            (
                line
                for name, each in random.items()
                for line in no_better(
                    f"the number of detectors in {name}",
                    sum(found[name].unique_detectors().values()),
                    "that of random weights",
                    sum(each.unique_detectors().values()),
                )
            ),
            report,
            run.summary,
        )
        report.set_provenance("interpretkit cnn dissect", seed=seed, data=files)
        report.add_next_step(
            "See whether units follow parts of objects.",
            ["interpretkit", "cnn", "instability", "--model", model],
        )
        report.save(run.path("report.html"))
    return {**run.summary, "report": out / "report.html", "out": out}


@command(
    app,
    "instability",
    example=[
        "interpretkit cnn instability",
        "interpretkit cnn instability --layer features.13,features.18 --data animal-part=animal-part --images 3000",
    ],
)
def instability(
    model: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    layer: Layer = "",
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="KIND=PATH",
            help=f"Images with annotated parts: {', '.join(PART_KINDS)} =FOLDER, or 'articulated', which the project "
            "draws itself.",
        ),
    ] = ARTICULATED,
    images: Annotated[
        int, typer.Option("--images", metavar="N", min=2, help="How many images, spread over the data.")
    ] = 400,
    top: Annotated[
        int, typer.Option("--top", metavar="N", min=2, help="How many images count for each unit and part.")
    ] = 100,
    out: Out = Path("instability"),
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Measure whether units stay with parts of objects: location instability beside constant positions and tracking.

    Writes parts.csv, units.csv, instability.npz for each layer and report.html; where the parts have masks, their part
    interpretability as well.
    """
    _check_data(data, ARTICULATED, PART_KINDS)

    from cnn_interp.metrics.batches import landmarks_in_inputs, part_batches
    from cnn_interp.metrics.location_instability import find_peaks, location_instability
    from cnn_interp.metrics.part_interpretability import part_interpretability
    from cnn_interp.metrics.reports import instability_report
    from cnn_interp.models import load_network
    from interpretkit.caution import no_better, warn_loudly
    from interpretkit.results import run_folder

    chosen, files = load_parts(data, images, seed)
    network = load_network(model, weights=weights, device=device, seed=seed)
    layers = chosen_layers(network, layer)
    arguments = {
        "model": model, "weights": weights, "layer": layers, "data": data, "images": images, "top": top,
    }  # fmt: skip
    with run_folder(out, command="cnn instability", arguments=arguments, seed=seed, data=files) as run:
        inputs, with_masks = part_batches(network, chosen)
        peaks = find_peaks(network.module, layers, inputs, quiet=quiet)
        landmarks = landmarks_in_inputs(chosen, network.size)
        results = {
            name: location_instability(
                found.values,
                found.positions,
                landmarks,
                found.grid.image,
                categories=chosen.categories,
                category_names=chosen.category_names,
                part_names=chosen.part_names,
                top=top,
            )
            for name, found in peaks.items()
        }
        parts = {}
        if chosen.has_masks:
            parts = part_interpretability(
                network.module,
                layers,
                with_masks,
                categories=chosen.categories,
                category_names=chosen.category_names,
                part_names=chosen.part_names,
                quiet=quiet,
            )
        shown: list[dict[str, object]] = []
        units: list[dict[str, object]] = []
        for name, result in results.items():
            shown += [{"layer": name, **row} for row in result.table()]
            units += [{"layer": name, **row} for row in result.units_table()]
            run.save_arrays(f"{name}.npz", **result.arrays())
            if name in parts:
                run.save_arrays(f"{name}-parts.npz", **parts[name].arrays())
            run.summary[name] = {
                "location_instability": result.mean_instability,
                "constant_centre": result.mean_constant_centre,
                "best_constant": result.mean_best_constant,
                "best_tracking_r2": result.best_tracking_r2,
                **({"part_interpretability": parts[name].mean} if name in parts else {}),
            }
        run.save_table("parts.csv", shown)
        run.save_table("units.csv", units)
        report = instability_report(results, peaks, parts, network, chosen, landmarks, data=_said(chosen))
        warnings = []
        for name, result in results.items():
            warnings += no_better(
                f"the location instability of {name}",
                result.mean_instability,
                "that of a unit which never moves",
                result.mean_constant_centre,
                lower_is_better=True,
            )
            warnings += no_better(
                f"the best tracking R² of {name}",
                result.best_tracking_r2,
                "that of a unit which never moves",
                0.0,
            )
        warn_loudly(warnings, report, run.summary)
        report.set_provenance("interpretkit cnn instability", seed=seed, data=files)
        report.add_next_step(
            "See which concepts the units detect.", ["interpretkit", "cnn", "dissect", "--model", model]
        )
        report.save(run.path("report.html"))
    return {**run.summary, "report": out / "report.html", "out": out}


def _check_data(data: str, own: str, kinds: Sequence[str]) -> None:
    """Refuse an option ``--data`` that names no kind of data, or a folder that is not there."""
    kind, equals, path = data.partition("=")
    if data == own:
        return
    if kind not in kinds or not equals or not path:
        kinds_said = (
            f"{kinds[0]}=FOLDER or {own}"
            if len(kinds) == 1
            else f"{own}, or KIND=FOLDER with {', '.join(kinds)}"
        )
        raise InputError(f"--data {data}: expected {kinds_said}")
    if not Path(path).is_dir():
        raise InputError(f"--data {data}: no such folder; expected the folder of the data set")


def load_concepts(data: str, images: int, seed: int) -> tuple[ConceptImages, list[Path]]:
    """Return images with labelled concepts, and the files that say what they are.

    Raises
    ------
    InputError
        If the option is neither ``composed`` nor ``broden=FOLDER``, or the folder is not as expected.
    """
    if data == COMPOSED:
        from cnn_interp.datasets.composed import composed_concepts

        return composed_concepts(images, seed=seed), []
    kind, _, path = data.partition("=")
    if kind != "broden" or not path:
        raise InputError(f"--data {data}: expected broden=FOLDER or {COMPOSED}")
    from cnn_interp.datasets.broden import read_broden

    found = read_broden(path)
    return found.subset(spread(len(found), images)), [Path(path) / "index.csv", Path(path) / "label.csv"]


def load_parts(data: str, images: int, seed: int) -> tuple[PartImages, list[Path]]:
    """Return images with annotated parts as the networks see them, and the files that say what they are.

    Raises
    ------
    InputError
        If the option is neither ``articulated`` nor ``KIND=FOLDER``, or the folder is not as expected.
    """
    if data == ARTICULATED:
        from cnn_interp.datasets.articulated import articulated_images

        drawn = articulated_images(
            images, seed=seed, side=224, negatives=0.0, categories=("quadruped", "bird", "person", "car")
        )
        return drawn, []
    kind, _, path = data.partition("=")
    if kind not in PART_KINDS or not path:
        raise InputError(
            f"--data {data}: expected {ARTICULATED}, or KIND=FOLDER with {', '.join(PART_KINDS)}"
        )
    from cnn_interp.datasets.reading import read_parts

    found = read_parts(kind, path)
    files = [Path(path) / "landmarks.csv"] if kind == "animal-part" else []
    return found.subset(spread(len(found), images)), files


def spread(total: int, wanted: int) -> list[int]:
    """Return so many of the numbers 0 … total − 1, evenly spread; all if there are no more."""
    return [place * total // wanted for place in range(wanted)] if wanted < total else list(range(total))


def chosen_layers(network: Network, text: str) -> list[str]:
    """Return the layers that a list of names gives, or the last layer whose map has more than one position."""
    import torch

    from cnn_interp.activations import map_layers
    from interpretkit.attribution.instrumentation import find_layer

    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        find_layer(network.module, name)
    if names:
        return list(dict.fromkeys(names))
    blank = torch.zeros(1, 3, network.size, network.size, device=network.device)
    maps = [name for name, shape in map_layers(network.module, blank).items() if shape[1] * shape[2] > 1]
    if not maps:
        raise InputError(f"--model {network.name}: has no layer that gives maps")
    # Of a row of blocks, the last: it gives the same, and bears the name that people know it by.
    last = network.module.get_submodule(maps[-1])
    if isinstance(last, torch.nn.Sequential) and len(last):
        return [f"{maps[-1]}.{list(last._modules)[-1]}"]
    return [maps[-1]]


def _said(images: Images) -> str:
    return f"Data: {images.name}, {len(images)} images"
