"""Interpretable CNNs: filters that each mean one part, trained on a frozen network beside ordinary ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.commands._loading import (
    ARTICULATED,
    FOLDERS,
    PART_KINDS,
    folders_as_parts,
    spread,
)
from cnn_interp.commands._options import Model, Weights
from interpretkit.commandline import (
    Column,
    Device,
    Finding,
    Here,
    Quiet,
    Seed,
    command,
    kind_and_path,
    listed,
    one_of,
)
from interpretkit.commandline.caution import no_better
from interpretkit.errors import InputError
from interpretkit.runs.folder import Run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cnn_interp.images.part_images import PartImages
    from cnn_interp.learning.filter_study import FilterTask, TrainedFilters
    from cnn_interp.networks.network import Network

# Without a choice, of the drawn objects one is told from pictures that show parts of nothing.
_DRAWN = "quadruped"
_LOSSES = ("published", "released", "competing")
_WITH_TEMPLATES = ("published", "released")
# Filters and followers drawn.
_SHOWN, _FOLLOWERS = 6, 3
# What an interpretable network may cost in accuracy.
_COST = 0.02
# The network that comes along, and what it is called in tables.
_EXAMPLE_FILE, EXAMPLE = "icnn-example.safetensors", "example"
_NETWORK_COLUMNS = {
    "network": Column("what was trained"),
    "seed": Column("of the training"),
    "accuracy": Column("share of test images told rightly", format=".1%"),
    "filters": Column("filters that respond in some test image of a category"),
    "silent": Column("filters that respond in none; not measured, for what is silent never moves"),
    "instability": Column("location instability, mean of filters, parts and categories", format=".3f"),
    "own category": Column("the same, each filter on images of its own category alone", format=".3f"),
    "centre": Column("that of a filter that always fires at the centre", format=".3f"),
    "constant": Column("that at the best constant position", format=".3f"),
    "best R²": Column(
        "tracking R² of the best filter, mean of parts: 1 follows, 0 stands still", format="+.2f"
    ),
    "chosen R²": Column(
        "the same of the filter that was best on the images learned from: no luck in it", format="+.2f"
    ),
    "median R²": Column("tracking R² of the median filter and part", format="+.2f"),
    "parts": Column("part interpretability", format=".3f"),
    "displaced": Column("part interpretability for the parts of another image", format=".3f"),
}
# Of these, what people see; the file holds all.
_SHOWN_COLUMNS = (
    "network",
    "seed",
    "accuracy",
    "instability",
    "centre",
    "best R²",
    "chosen R²",
    "median R²",
    "parts",
)
_FILTER_COLUMNS = {
    "network": Column("what was trained"),
    "seed": Column("of the training"),
    "filter": Column("number of the filter"),
    "of": Column("the category whose training images excite it most"),
    "response": Column("its mean strongest response in test images of that category", format=".3g"),
    "part": Column("the part that it follows best"),
    "R²": Column("tracking R² for that part", format="+.2f"),
    "instability": Column("location instability for that part", format=".3f"),
}


@command(
    out="icnn",
    example=[
        "interpretkit cnn train icnn",
        "interpretkit cnn train icnn --example",
        "interpretkit cnn train icnn --data animal-part=animal-part --category cat --loss published --seeds 3",
        "interpretkit cnn train icnn --data folders=pictures --model resnet18 --layer layer3",
    ],
)
def icnn(
    model: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    layer: Annotated[
        str,
        typer.Option(
            "--layer",
            metavar="NAME",
            help="The layer that filters are trained on; by default the deepest with ten positions along each side.",
        ),
    ] = "",
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="KIND=PATH",
            help=f"Images: {', '.join(PART_KINDS)} =FOLDER, folders=FOLDER with a subfolder for each category, or "
            "'articulated', which the project draws itself.",
        ),
    ] = ARTICULATED,
    category: Annotated[
        str,
        typer.Option(
            "--category",
            metavar="NAME,...|all",
            help="One category is told from everything else, several from each other; by default the first of images "
            "with parts, and all folders.",
        ),
    ] = "",
    loss: Annotated[
        str,
        typer.Option(
            "--loss",
            metavar="|".join(_LOSSES),
            help="The filter loss as in the article, as in its released code, or filters that compete for places.",
        ),
    ] = "competing",
    filters: Annotated[
        int | None, typer.Option("--filters", metavar="N", min=1, help="Filters of a layer; by the loss.")
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option("--beta", metavar="X", help="How fast templates fall off; 4 as published."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", metavar="N", min=1, help="Epochs of training; by the loss.")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience",
            metavar="N",
            min=1,
            help="Stop after so many epochs without a smaller loss on a fifth of the images that is kept aside; by "
            "default all epochs are done.",
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", min=1, help="Train so many networks of each kind.")
    ] = 1,
    images: Annotated[
        int, typer.Option("--images", metavar="N", min=8, help="How many images, spread over the data.")
    ] = 280,
    window: Annotated[
        float,
        typer.Option(
            "--window",
            metavar="SHARE",
            help="See images through a window of this share of their sides at a random place, so that objects are "
            "off the centre; 1 sees them whole.",
        ),
    ] = 1.0,
    example: Annotated[
        bool, typer.Option("--example", help="Train nothing: show the network that comes along.")
    ] = False,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    *,
    run: Run,
) -> Finding:
    """Train filters that each mean one part of an object, on a frozen network, beside ordinary ones.

    Half of the images is trained on and the other half tells whether filters follow parts or stand still: location
    instability beside constant positions, tracking of parts, part interpretability, accuracy. Writes
    network.safetensors and ordinary.safetensors, which --model of cnn visualize, dissect, instability and disentangle
    takes, networks.csv, filters.csv and report.html. A run that is interrupted goes on where it stopped.
    """
    given = {
        "model": model != "mobilenet_v2", "weights": weights != "pretrained", "layer": layer, "filters": filters,
        "loss": loss != "competing", "beta": beta, "epochs": epochs, "patience": patience, "seeds": seeds > 1,
    }  # fmt: skip
    idle = [name for name, value in given.items() if value]
    if example and idle:
        raise InputError(f"{idle[0]}: nothing is trained with --example; expected one or the other")
    one_of(_LOSSES, loss, "loss")
    if beta is not None and loss not in _WITH_TEMPLATES:
        raise InputError(
            f"beta {beta}: competing filters have no templates; expected it with --loss published"
        )
    if beta is not None and not 0 < beta < float("inf"):
        raise InputError(f"beta {beta}: expected a number above 0")
    if not 0 < window <= 1:
        raise InputError(f"window {window}: expected above 0, and at most 1")
    if len(listed(layer)) > 1:
        raise InputError(f"layer {layer!r}: expected one layer")
    kind, folder = kind_and_path(data, [*PART_KINDS, FOLDERS], "data", words=[ARTICULATED])
    from functools import partial
    from pathlib import Path

    import cnn_interp.learning
    from cnn_interp.disentangling.part_cells import part_layers
    from cnn_interp.learning.filter_study import (
        ReadAlike,
        filter_task,
        measure_filters,
        read_alike,
        settings_of,
        train_filters,
    )
    from cnn_interp.learning.saved_network import layers_of, save_network
    from cnn_interp.networks.loading import load_network
    from interpretkit.networks.instrumentation import find_layer
    from interpretkit.training import load_config, resolve_device

    where = resolve_device(device)
    shown = Path(cnn_interp.learning.__file__).with_name(_EXAMPLE_FILE)
    if example:
        config = load_config(shown)
        model, weights, layer = config["trunk"], config["weights"], config["layer"]
        category = category or ",".join(config["categories"])
    # The example was trained on drawn objects of seed 0.
    chosen, names, files = _images(kind, folder, category, images, seed + 1 if example else seed)
    trunk = load_network(model, weights=weights, device=where, seed=seed)
    if layer:
        find_layer(trunk.module, layer)
    name = layer or part_layers(trunk)[0]
    chosen = chosen if window == 1 else chosen.shifted(window, trunk.size, seed=seed)
    trained: list[TrainedFilters] = []
    with run.kept(trunk.digest(), where.type, files=files, without=["device", "seeds"]) as work:
        task = filter_task(
            chosen, trunk, name, names, folder=work / "maps", validation=patience is not None, seed=seed, quiet=quiet
        )  # fmt: skip
        if example:
            trained.append(measure_filters(task, layers_of(shown, where), EXAMPLE, quiet=quiet))
        for number in range(0 if example else seeds):
            for variant in ("ordinary", loss):
                settings = settings_of(
                    variant,
                    # Competing filters have another head: a number of theirs is none of the ordinary ones'.
                    filters=filters if variant == loss or loss in _WITH_TEMPLATES else None,
                    epochs=epochs,
                    beta=beta if variant == loss else None,
                )
                trained.append(
                    train_filters(
                        task,
                        variant,
                        settings,
                        seed=seed + number,
                        patience=patience,
                        checkpoint=work / f"{variant}-{seed + number}",
                        quiet=quiet,
                    )
                )
                if variant == "ordinary" and loss == "competing":
                    trained.append(read_alike(task, trained[-1], quiet=quiet))
    main = EXAMPLE if example else loss
    rows = [one.row() for one in trained]
    found = _headline(task, rows, main, trunk).reads(*files)
    found.section("Networks", _said(main)).table(
        "networks.csv", rows, _NETWORK_COLUMNS, f"On {len(task.test)} test images.", in_terminal=True,
        shown=[column for column in _SHOWN_COLUMNS if any(column in row for row in rows)],
    )  # fmt: skip
    first = {one.variant: one for one in reversed(trained)}
    _add_filters(found, task, first, main)
    found.table("filters.csv", [row for one in trained for row in _filter_rows(one, task)], _FILTER_COLUMNS)
    _add_method(found, task, name, main)
    for variant, file in ((loss, "network.safetensors"), ("ordinary", "ordinary.safetensors")):
        kept = first.get(variant)
        if kept is not None and not isinstance(kept.layers, ReadAlike):
            found.file(
                file,
                partial(
                    save_network,
                    trunk=trunk,
                    layer=name,
                    layers=kept.layers,
                    categories=task.categories,
                    loaded_by=model,
                    weights=weights,
                    seed=seed,
                    trained_on=chosen.name,
                ),
            )
    saved: str | Path | Here = shown if example else Here("network.safetensors")
    at = ("--layer", f"layers.{first[main].layers.filter_layer}")
    found.next_step(
        "See where filters fire in other images:", "interpretkit cnn instability --model", saved, *at
    )
    found.next_step("See which concepts they detect:", "interpretkit cnn dissect --model", saved, *at)
    if example:
        return found.next_step("Train filters of your own:", "interpretkit cnn train icnn")
    return found.next_step("See what the network looks at:", "interpretkit cnn visualize --model", saved)


def _images(
    kind: str, folder: Path | None, category: str, count: int, seed: int
) -> tuple[PartImages, list[str], list[Path]]:
    """Return images, the categories to be told, and the files that say what the images are."""
    import numpy as np

    from cnn_interp.disentangling.category_score import category_rows
    from cnn_interp.images.articulated import CATEGORIES, articulated_images
    from cnn_interp.images.reading import read_parts

    names = listed(category)
    if folder is None:
        names = list(CATEGORIES) if names == ["all"] else names or [_DRAWN]
        _check_known(names, CATEGORIES, "the drawn objects")
        drawn = articulated_images(
            count, seed=seed, side=224, negatives=0.5 if len(names) == 1 else 0.0, categories=names
        )
        return drawn, names, []
    found = folders_as_parts(folder) if kind == FOLDERS else read_parts(
        kind, folder, unannotated=True, negatives=True
    )  # fmt: skip
    every = list(found.category_names)
    if not names:
        names = every if kind == FOLDERS else every[:1]
    names = every if names == ["all"] else names
    _check_known(names, every, found.name)
    numbers = [every.index(name) for name in names]
    if len(names) == 1:
        rows = category_rows(found.categories, numbers[0], count)
    else:
        parts = []
        for number in numbers:
            own = np.flatnonzero(found.categories == number)
            parts.append(own[spread(len(own), max(count // len(numbers), 4))])
        rows = np.sort(np.concatenate(parts))
    return found.subset(rows), names, [folder / "landmarks.csv"] if kind == "animal-part" else []


def _check_known(names: Sequence[str], known: Sequence[str], of: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            f"category {unknown[0]!r}: {of} have none of that name; expected some of {', '.join(known[:20])}"
        )
    if len(set(names)) < len(names):
        raise InputError(f"category {','.join(names)!r}: expected each once")


def _headline(task: FilterTask, rows: Sequence[Mapping[str, Any]], main: str, trunk: Network) -> Finding:
    """Begin with whether the filters follow parts, at which price."""
    import numpy as np

    from cnn_interp.learning.pictures import figures_of

    def mean(column: str, of: str = main) -> float:
        return float(figures_of(rows, [of], column)[0])

    def text(value: float, form: str) -> str:
        return "none" if np.isnan(value) else f"{value:{form}}".replace("-", "−")

    whose = (
        " and ".join(task.categories) if len(task.categories) < 4 else f"{len(task.categories)} categories"
    )
    measured = not np.isnan(mean("instability"))
    beside = any(row["network"] == "ordinary" for row in rows)
    title = f"Filters for parts of {whose}, on {trunk.name}"
    lead = f"They tell {mean('accuracy'):.1%} of {len(task.test)} test images rightly"
    lead += f", ordinary filters {mean('accuracy', 'ordinary'):.1%}. " if beside else ". "
    if measured:
        best = mean("best R²")
        lead += (
            f"Their distance from parts varies by {mean('instability'):.3f} of the diagonal"
            + (f", that of ordinary filters by {mean('instability', 'ordinary'):.3f}" if beside else "")
            + f", and by {mean('centre'):.3f} for a filter that always fires at the centre: steadiness alone is no "
            f"understanding. The best filter of each part explains {text(best, '.0%')} of the part's movement"
            + (f", of ordinary filters {text(mean('best R²', 'ordinary'), '.0%')}." if beside else ".")
        )
    else:
        lead += (
            "No part is annotated in these images, so that whether filters follow parts is not to be told."
        )
    found = Finding(title, lead)
    found.number(
        "accuracy", mean("accuracy"), format=".1%", note=_beside(mean("accuracy", "ordinary"), ".1%")
    )
    if measured:
        ratio = mean("instability") / mean("instability", "ordinary")
        found.number("location_instability", mean("instability"), format=".3f",
                     note=_beside(mean("instability", "ordinary"), ".3f"))  # fmt: skip
        found.number("constant_centre", mean("centre"), "always the centre", format=".3f",
                     note="what a filter that never moves has")  # fmt: skip
        found.number("best_tracking_r2", mean("best R²"), "best tracking R²", format="+.2f",
                     note=_beside(mean("best R²", "ordinary"), "+.2f"))  # fmt: skip
        found.number("median_tracking_r2", mean("median R²"), "median tracking R²", format="+.2f",
                     note=_beside(mean("median R²", "ordinary"), "+.2f"))  # fmt: skip
        if beside:
            found.values["instability_ratio"] = ratio
    if not np.isnan(mean("parts")):
        found.number("part_interpretability", mean("parts"), format=".3f",
                     note=_beside(mean("parts", "ordinary"), ".3f"))  # fmt: skip
    found.values.update(
        layer=task.maps.layer, categories=list(task.categories), networks=[dict(row) for row in rows],
        n_train=len(task.learn), n_test=len(task.test),
    )  # fmt: skip
    if beside:
        lost = mean("accuracy", "ordinary") - mean("accuracy")
        if lost > _COST:
            found.warn(f"The filters cost {100 * lost:.1f} points of accuracy beside ordinary ones.")
    if beside and measured:
        found.warn(
            *no_better("the location instability", mean("instability"), "that of ordinary filters",
                       mean("instability", "ordinary"), lower_is_better=True),
            *no_better("the best tracking R²", mean("best R²"), "that of ordinary filters",
                       mean("best R²", "ordinary")),
        )  # fmt: skip
    if measured:
        found.warn(
            *no_better("the best tracking R²", mean("best R²"), "that of a filter which stands still", 0.0)
        )
    return found


def _beside(value: float, form: str) -> str:
    return "" if value != value else f"ordinary filters: {value:{form}}".replace("-", "−")


def _said(main: str) -> str:
    """Return what the rows of the table are."""
    told = {
        "ordinary": "`ordinary` filters have neither masks nor filter loss.",
        "published": "`published` is the filter loss of the article.",
        "released": "`released` has its masks at the centre of gravity, and a width that each filter learns.",
        "competing": "`competing` filters share out every place with a background and are asked to be gathered, to be "
        "seen in each object, to move with it, and to differ; their maps say how much of them lies about each place. "
        "`read alike` are the ordinary filters with maps read in the same way: what that alone brings.",
        "example": "`example` is the network that comes along.",
    }
    return " ".join(
        told[name] for name in dict.fromkeys(("ordinary", main)) if (name, main) != ("ordinary", "example")
    )


def _filter_rows(trained: TrainedFilters, task: FilterTask) -> list[dict[str, Any]]:
    """Return a row for each filter, with the part that it follows best."""
    import numpy as np

    labels = task.labels[task.test]
    # Numbers of the filters that were measured.
    place = np.cumsum(trained.alive) - 1
    rows = []
    for number, alive in enumerate(trained.alive):
        own = int(trained.of_category[number])
        row: dict[str, Any] = {
            "network": trained.variant, "seed": trained.seed, "filter": number, "of": task.categories[own],
            "response": float(trained.peaks.values[labels == own, number].mean()),
        }  # fmt: skip
        if alive and trained.location is not None:
            result, unit = trained.location, int(place[number])
            tracking = np.where(result.enough[own], result.tracking[own, :, unit], np.nan)
            if np.isfinite(tracking).any():
                part = int(np.nanargmax(tracking))
                row |= {
                    "part": result.part_names[part],
                    "R²": float(tracking[part]),
                    "instability": float(result.instability[own, part, unit]),
                }
        rows.append(row)
    return rows


def _add_filters(found: Finding, task: FilterTask, first: Mapping[str, TrainedFilters], main: str) -> None:
    """Show the filters in their strongest images, and the best followers with the part."""
    import numpy as np

    from cnn_interp.images.batches import landmarks_in_inputs
    from cnn_interp.learning.pictures import filter_figure, followers_figure
    from cnn_interp.metrics.pictures import followed_part

    trained = first[main]
    rows = [row for row in _filter_rows(trained, task) if trained.alive[row["filter"]]]
    # The best followers first; where nothing is annotated, those that respond most.
    rows.sort(key=lambda row: (-row.get("R²", -np.inf), -row["response"]))
    section = found.section("Filters")
    if rows:
        titles = []
        for row in rows[:_SHOWN]:
            follows = f": {row['part']}, R² {row['R²']:+.2f}".replace("-", "−") if "R²" in row else ""
            titles.append((row["filter"], f"filter {row['filter']}{follows}"))
        section.figure(
            "filters.png",
            filter_figure(task, trained, titles),
            "Where filters respond, in the test images that excite each most: above half of its largest value there.",
        )
        section.table(
            None, rows, _FILTER_COLUMNS, "Of the first seed; `filters.csv` holds all.", most=30,
            shown=["filter", "of", "response", *(("part", "R²", "instability") if trained.location else ())],
        )  # fmt: skip
    measured = {name: one.location for name, one in first.items() if one.location is not None}
    if main not in measured:
        return
    section.figure(
        "following.png",
        followers_figure({name: measured[name] for name in sorted(measured, key=lambda name: name != main)}),
        "Each filter with the part that it follows best. To the left is steady, above is following; a filter that "
        "never moves stands at the dashed line, with R² 0.",
    )
    images = task.images.subset(task.test)
    landmarks = landmarks_in_inputs(images, task.trunk.size)
    labels = task.labels[task.test]
    shown = set()
    for row in rows:
        key = (row["of"], row.get("part"))
        if len(shown) == _FOLLOWERS or "R²" not in row or key in shown or row["R²"] <= 0:
            continue
        shown.add(key)
        part, number = images.part_names.index(row["part"]), row["filter"]
        own = np.flatnonzero(labels == task.categories.index(row["of"]))
        section.figure(
            f"follower-{row['of']}-{row['part']}.png".replace(" ", "-"),
            followed_part(
                task.trunk, images, trained.peaks, landmarks, own, number, part,
                f"filter {number} and the {row['of']}'s {row['part']}: R² {row['R²']:.2f}",
            ),
            f"Ring: the {row['part']} of a {row['of']}. Cross: where filter {number} is strongest.",
        )  # fmt: skip


def _add_method(found: Finding, task: FilterTask, layer: str, main: str) -> None:
    """Say how it was done."""
    whole = {
        "published": "Two new convolutions of 3 × 3 on the frozen layer, a mask on each that lets through what is near "
        "the map's strongest position, and −MI between maps and templates as the loss of each filter (Zhang, Wu, Zhu, "
        "Interpretable convolutional neural networks, CVPR 2018).",
        "released": "Two new convolutions of 3 × 3 on the frozen layer, a mask on each about the map's centre of "
        "gravity with a width that each filter learns, and −MI between maps and templates as the loss of each filter, "
        "as in the code that was released with Zhang, Wu, Zhu, CVPR 2018.",
    }
    text = whole.get(
        main,
        "An embedding of the frozen layer, and filters that share out every position with a background by a softmax. "
        "Seen through two windows at random places, one mirrored, a filter shall be gathered, be seen in every object, "
        "move with it, and differ from the others; a filter's map is its mean share of a square of half the map's side "
        "about each position.",
    )
    found.section(
        "How it is measured",
        f"{text} Layer `{layer}` of {task.trunk.name} stays as it is. Half of the groups of related images of each "
        "category was trained on, all figures are of the other half. Location instability: standard deviation of the "
        "distance between part and strongest position over the diagonal, on the 100 images that excite a filter most. "
        f"Tracking: 1 − tr Var(p − p̂) ÷ tr Var(p). Data: {task.images.name}, {len(task.learn)} images to learn from, "
        f"{len(task.test)} to test on.",
    )
