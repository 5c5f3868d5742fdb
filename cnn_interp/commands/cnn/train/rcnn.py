"""Detectors whose regions are parsed by an And-Or grammar, so that a parse tree explains every box."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.commands._loading import ARTICULATED, check_trained, chosen_layers
from cnn_interp.commands._options import Model, Weights
from interpretkit.commandline import Column, Device, Finding, Quiet, Seed, command, kind_and_path
from interpretkit.commandline.caution import no_better
from interpretkit.errors import InputError
from interpretkit.runs.folder import Run
from interpretkit.runs.formatting import format_number

if TYPE_CHECKING:
    from cnn_interp.images.object_images import ObjectImages
    from cnn_interp.images.part_images import PartImages
    from cnn_interp.learning.detection import Detector
    from cnn_interp.learning.head_comparison import Comparison
    from cnn_interp.networks.network import Network

_KINDS = ("animal-part", "cub")
# What is drawn if no data are given: objects with parts that move.
_CATEGORIES = ("quadruped", "bird", "person", "car")
# Of the images given, so many are tested on.
_TESTED = 0.35
# Pictures kept in memory, since each is asked for several times: about 100 MB.
_HELD = 600
# Positions along each side of a map that says where something is.
_FINE = 10
# Of the cells of mosaics, so many show no object, if there are images without any.
_EMPTY = 0.35
# With fewer families of images, none is kept apart from its relatives.
_FAMILIES = 6
_EXAMPLE_FILE = "rcnn-example.safetensors"
# Parsed objects shown, and the most detections in the table.
_SHOWN, _MOST = 12, 2000
_HEADS = {"parsing": "parsing head", "plain": "plain head"}
_SCORE_COLUMNS = {
    "category": Column("the category; the mean of all in the last row"),
    "head": Column("what scores the boxes"),
    "objects": Column("how many test images show"),
    "AP50": Column("average precision at an overlap of 0.5", format=".3f"),
    "AP": Column("mean of those at overlaps of 0.5, 0.55 … 0.95", format=".3f"),
    "low": Column(
        "lower end of the 95 % interval of AP50, over images drawn anew", heading="95 % from", format=".3f"
    ),
    "high": Column("upper end of it", heading="95 % to", format=".3f"),
}
_TRACKING_COLUMNS = {
    "what": Column("what follows"),
    "units": Column("how many there are, for each category"),
    "best R²": Column("tracking R² of the one that follows some part best", format="+.2f"),
    "median R²": Column("of the median one and part", format="+.2f"),
    "instability": Column("location instability, mean", format=".3f"),
}
_PART_COLUMNS = {
    "category": Column("the category"),
    "part": Column("the part"),
    "images": Column("how many test objects show it"),
    "parse nodes": Column("tracking R² of the best parse node", format="+.2f"),
    "filters of the trunk": Column("of the trunk's best filter", format="+.2f"),
    "filters of the plain head": Column("of the plain head's best filter", format="+.2f"),
}
_DETECTION_COLUMNS = {
    "image": Column("the image"),
    "head": Column("what scored the box"),
    "category": Column("as what it was detected"),
    "score": Column("probability that the head gives it", format=".3f"),
    "top": Column("first row of the box", "px"),
    "left": Column("first column of it", "px"),
    "bottom": Column("row at which it ends", "px"),
    "right": Column("column at which it ends", "px"),
}


@command(
    out="rcnn",
    example=[
        "interpretkit cnn train rcnn",
        "interpretkit cnn train rcnn --example",
        "interpretkit cnn train rcnn --data animal-part=animal-part --images 3000 --epochs 10",
    ],
)
def rcnn(
    run: Run,
    model: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    layer: Annotated[
        str,
        typer.Option(
            "--layer", metavar="NAME", help="Where the trunk ends; by default its last layer with a fine map."
        ),
    ] = "",
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="KIND=PATH",
            help="Images to detect in: animal-part=FOLDER (its crops in mosaics), cub=FOLDER, or 'articulated', which "
            "the project draws itself.",
        ),
    ] = ARTICULATED,
    images: Annotated[
        int,
        typer.Option(
            "--images", metavar="N", min=12, help="How many images, or crops; about a third are tested on."
        ),
    ] = 240,
    parts: Annotated[
        int | None,
        typer.Option(
            "--parts", metavar="N", min=1, max=32, help="Kinds of parts of each category; 6 by default."
        ),
    ] = None,
    grid: Annotated[
        int | None,
        typer.Option(
            "--grid", metavar="N", min=2, max=12, help="Cells along each side of a region; 6 by default."
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", metavar="N", min=1, help="Of the heads' training; 6 by default."),
    ] = None,
    plain: Annotated[
        bool | None, typer.Option("--plain/--no-plain", help="Train the plain head as well, to compare.")
    ] = None,
    detector: Annotated[
        Path | None,
        typer.Option(
            "--detector", metavar="FILE", help="Train nothing: show a parsing detector trained before."
        ),
    ] = None,
    example: Annotated[
        bool,
        typer.Option(
            "--example", help="Train nothing: show the detector that comes along, trained on drawn objects."
        ),
    ] = False,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> Finding:
    """Train an R-CNN that explains every box by a parse tree of its region, beside a plain head on the same features.

    Writes average-precision.csv, tracking.csv (whether parse nodes and filters follow parts), detections.csv, the
    detectors (parsing.safetensors, plain.safetensors), parse trees drawn on images, and report.html.
    """
    kind, path = kind_and_path(data, _KINDS, "data", words=[ARTICULATED])
    asked = {"parts": parts, "grid": grid, "epochs": epochs, "plain": plain}
    idle = [name for name, value in asked.items() if value is not None]
    if example and detector is not None:
        raise InputError("detector: not with --example; expected one or the other")
    if (example or detector is not None) and (idle or layer):
        raise InputError(
            f"{(idle or ['layer'])[0]}: nothing is trained with --{'example' if example else 'detector'}; leave it out"
        )
    if example:
        import cnn_interp.learning

        detector = Path(cnn_interp.learning.__file__).with_name(_EXAMPLE_FILE)
    if detector is not None:
        check_trained(detector)
    from cnn_interp.networks.loading import load_network

    network = load_network(model, weights=weights, device=device, seed=seed)
    layers = []
    if detector is None:
        layers = chosen_layers(network, layer) if layer else [_trunk_end(network)]
        if len(layers) > 1:
            raise InputError(
                f"layer {layer!r}: names {len(layers)} layers; expected one, where the trunk ends"
            )
    from cnn_interp.learning.detection import Settings, load_detector, map_images
    from cnn_interp.learning.head_comparison import compare, train_detectors
    from interpretkit.training import resolve_device

    settings = Settings(parts=parts or 6, grid=grid or 6, epochs=epochs or 6)
    shown = None
    if detector is not None:
        shown = load_detector(detector)
        layers, settings = [shown.layer], shown.settings
    train, test, files, apart = _images(kind, path, images, seed)
    if shown is not None:
        _check_fits(shown, str(detector), network.name, test)
        files = [*files, *([] if example or detector is None else [detector])]
    kinds = ["parsing"] if plain is False else ["parsing", "plain"]
    with run.kept(network.digest(), files=files, without=["device", "plain"]) as work:
        histories = {}
        if shown is None:
            learned = map_images(network, train, layers[0], work / "train", quiet=quiet)
            detectors, histories = train_detectors(
                learned,
                settings,
                kinds=kinds,
                seed=seed,
                device=resolve_device(device),
                folder=work,
                trunk=network.name,
                quiet=quiet,
            )
        else:
            detectors = {"parsing": shown}
        tested = map_images(network, test, layers[0], work / "test", quiet=quiet)
        measured = compare(detectors, tested, histories=histories, quiet=quiet)
        found = _finding(measured, train, test, network.name, layers[0], settings)
        _add_parses(found, measured, tested)
    if not apart:
        found.warn(
            "Images of one photograph may be trained and tested on: there are too few to keep them apart."
        )
    return found.reads(*files)


def _check_fits(shown: Detector, file: str, network: str, test: ObjectImages) -> None:
    """Refuse a detector that was trained for another trunk, for other categories, or has no grammar."""
    if shown.settings.kind != "parsing":
        raise InputError(f"detector {file}: has a plain head; expected one that parses")
    if shown.trunk != network:
        raise InputError(
            f"detector {file}: was trained on {shown.trunk}, not on {network}; expected its own trunk"
        )
    if shown.category_names != test.category_names:
        raise InputError(
            f"detector {file}: detects {', '.join(shown.category_names)}; the data show "
            f"{', '.join(test.category_names)}"
        )


def _trunk_end(network: Network) -> str:
    """Return the last stage or block whose map still says where something is."""
    import torch

    from cnn_interp.disentangling.part_cells import part_layers
    from interpretkit.networks.recording import map_layers

    blank = torch.zeros(1, 3, network.size, network.size, device=network.device)
    # Not a layer within a block, which may be far wider than what leaves the block.
    blocks = [
        name
        for name, shape in map_layers(network.module, blank).items()
        if name.count(".") <= 1 and min(shape[1:]) >= _FINE
    ]
    return blocks[-1] if blocks else part_layers(network)[0]


def _images(
    kind: str, path: Path | None, count: int, seed: int
) -> tuple[ObjectImages, ObjectImages, list[Path], bool]:
    """Return images to train and to test on, the files that say what they are, and whether no relatives are in both."""
    from cnn_interp.images.object_images import mosaics, split_by_groups, whole_images

    if path is None:
        from cnn_interp.images.articulated import articulated_images

        n_test = round(_TESTED * count)
        train, test = (
            whole_images(articulated_images(n, seed=one, side=224, categories=_CATEGORIES), 224)
            for n, one in ((count - n_test, 2 * seed), (n_test, 2 * seed + 1))
        )
        return _held(train), _held(test), [], True
    import numpy as np

    from cnn_interp.images.reading import read_annotated

    every = read_annotated(kind, path)
    shown = every.categories >= 0
    apart = every.groups is None or len(np.unique(every.groups[shown])) >= _FAMILIES
    if not apart:
        every = replace(every, groups=None)
    parts = split_by_groups(every, (1 - _TESTED, _TESTED), seed=seed)
    sizes = (count - round(_TESTED * count), round(_TESTED * count))
    chosen = [
        _spread(part, size, np.random.default_rng(seed)) for part, size in zip(parts, sizes, strict=True)
    ]
    if every.boxes is None:
        train, test = (
            mosaics(some, seed=seed, empty=_EMPTY if (some.categories < 0).any() else 0.0, mirrored=learned)
            for some, learned in zip(chosen, (True, False), strict=True)
        )
    else:
        train, test = (whole_images(some, 224) for some in chosen)
    return _held(train), _held(test), [path / "landmarks.csv"] if kind == "animal-part" else [], apart


def _spread(images: PartImages, count: int, rng: Any) -> PartImages:
    """Return so many images of a set; those with annotated parts come first, since there may be few."""
    import numpy as np

    told = np.asarray(images.annotated.any(axis=1))
    mixed = rng.permutation(len(images))
    order = np.concatenate([mixed[told[mixed]], mixed[~told[mixed]]])
    if count < len(images):
        # Half of them at most, so that negatives and other objects are seen as well.
        first = order[: min(int(told.sum()), count // 2)]
        others = mixed[~np.isin(mixed, first)][: count - len(first)]
        order = np.concatenate([first, others])
    return images.subset(np.sort(order))


def _held(images: ObjectImages) -> ObjectImages:
    """Return the set with its pictures kept in memory once they were made."""
    return replace(images, load=lru_cache(maxsize=_HELD)(images.load))


def _finding(
    measured: Comparison,
    train: ObjectImages,
    test: ObjectImages,
    network: str,
    layer: str,
    settings: Any,
) -> Finding:
    from cnn_interp.learning.parse_pictures import precision_figure

    ap = {kind: score.mean(0.5) for kind, score in measured.scores.items()}
    beside = f", the plain head {ap['plain']:.3f}" if "plain" in ap else ""
    found = Finding(
        f"Objects detected by parsing regions of {network}",
        f"Average precision at an overlap of 0.5: the parsing head {ap['parsing']:.3f}{beside}, on "
        f"{test.n_objects} objects in {len(test)} test images. A box is explained by its parse tree, "
        f"{measured.used:.1f} tiles on average.",
    )
    found.number("ap50", ap["parsing"], "AP at overlap 0.5", format=".3f", note="parsing head")
    if "plain" in ap:
        found.number("plain_ap50", ap["plain"], "plain head", format=".3f", note="same boxes, same features")
    found.values.update(
        ap={kind: score.mean() for kind, score in measured.scores.items()},
        by_category={
            kind: dict(zip(test.category_names, score.by_category(0.5).tolist(), strict=True))
            for kind, score in measured.scores.items()
        },
        recall=measured.recall,
        proposed=measured.proposed,
        tiles=measured.used,
        nodes=measured.parsing.grammar.n_nodes(),
    )
    if "plain" in ap:
        found.warn(
            *no_better("the parsing head's AP", ap["parsing"], "0.9 of the plain head's", 0.9 * ap["plain"])
        )
    section = found.section("How well it detects")
    section.figure(
        "precision.png",
        precision_figure(
            {_HEADS[kind]: score for kind, score in measured.scores.items()}, test.category_names
        ),
        "Precision over recall at an overlap of 0.5; in the legend the area below.",
    )
    section.table(
        "average-precision.csv",
        _score_rows(measured, test),
        _SCORE_COLUMNS,
        f"{measured.proposed:.0f} proposed boxes an image, by which {measured.recall:.1%} of the objects are met with "
        "an overlap of 0.5 or more. The intervals are of the images tested on, of one training.",
        in_terminal=True,
    )
    _add_tracking(found, measured)
    counts = measured.parsing.grammar.n_nodes()
    found.section(
        "How it works",
        f"The trunk is {network} up to `{layer}`, frozen. Boxes that slide over the image in twelve sizes and shapes "
        "are moved and stretched by one step of regression, trained once and the same for both heads, which only score "
        f"the boxes that come out of it. A box's map, {settings.grid} × {settings.grid} cells, is parsed for each "
        "category: "
        "an OR node takes a rectangle as one tile or cuts it in two (the largest counts), an AND node is the sum of "
        f"both halves. The grammar has {counts['or']} OR, {counts['and']} AND and {counts['terminal']} terminal nodes, "
        f"shared among {format_number(measured.parsing.grammar.n_trees(), digits=3)} parse trees. Parts are learned "
        "without labels. "
        + (
            f"Training: {len(train)} images with {train.n_objects} objects of {train.name}. "
            if measured.histories
            else "It was trained before. "
        )
        + "After Wu and others, Towards "
        "interpretable R-CNN by unfolding latent structures, 2017.",
    )
    for kind, detector in measured.detectors.items():
        found.file(f"{kind}.safetensors", detector.save)
    found.table("detections.csv", _detection_rows(measured, test), _DETECTION_COLUMNS)
    histories = {kind: history.epochs for kind, history in measured.histories.items()}
    found.values.update(settings=asdict(settings), training=histories)
    return found.next_step(
        "See whether the trunk's filters follow parts by themselves:",
        "interpretkit cnn instability --layer",
        layer,
    )


def _add_tracking(found: Finding, measured: Comparison) -> None:
    """Say whether parse nodes and filters stay with parts, where parts are annotated."""
    import numpy as np

    from cnn_interp.learning.head_comparison import NODES, PLAIN, TRUNK, pairs
    from cnn_interp.learning.parse_pictures import tracking_figure

    if not measured.tracking:
        found.warn("No part is annotated in two of the test objects: nothing is said of what follows parts.")
        return
    best = {name: one.best_tracking_r2 for name, one in measured.tracking.items()}
    median = {
        name: float(np.nanmedian(values)) if (values := pairs(one)).size else float("nan")
        for name, one in measured.tracking.items()
    }
    found.number(
        "best_r2", best[NODES], "best parse node", format=".2f", note="tracking R²; 1 follows a part"
    )
    found.number(
        "median_r2", median[NODES], "median parse node", format=".2f", note="0 stands still in the box"
    )
    found.number("filter_best_r2", best[TRUNK], "trunk's best filter", format=".2f", note="tracking R²")
    found.number("filter_median_r2", median[TRUNK], "trunk's median filter", format=".2f", note="tracking R²")
    found.values.update(best_tracking=best, median_tracking=median)
    found.warn(*no_better("the median parse node's R²", median[NODES], "that of the filters", median[TRUNK]))
    found.warn(*no_better("the best parse node's R²", best[NODES], "that of the filters", best[TRUNK]))
    section = found.section(
        "Whether parse nodes stay with parts",
        "In the true boxes of the test objects, their category given. A parse node is a part of a category; it is "
        "where its strongest tile is. A filter is where it responds most in the same box. Places are told within the "
        "box, so that what stands still there has an R² of 0; a unit that moves otherwise than the part is below.",
    )
    told = {name: pairs(one) for name, one in measured.tracking.items()}
    if any(values.size for values in told.values()):
        section.figure(
            "tracking.png",
            tracking_figure(told),
            "Tracking R² of all pairs of a unit and a part of which enough objects are tested on: least, quartiles, "
            "largest; below −2 drawn there.",
        )
    else:
        section.note(
            "No part is seen in enough test objects: what follows a part is not to be told from so few."
        )
    rows: list[dict[str, Any]] = [
        {
            "what": name, "units": one.tracking.shape[2], "best R²": best[name], "median R²": median[name],
            "instability": one.mean_instability,
        }
        for name, one in measured.tracking.items()
    ]  # fmt: skip
    constant = measured.tracking[NODES].mean_best_constant
    rows.append(
        {"what": "best constant place", "units": 1, "best R²": 0.0, "median R²": 0.0, "instability": constant}
    )
    section.table("tracking.csv", rows, _TRACKING_COLUMNS, in_terminal=True)
    nodes = measured.tracking[NODES]
    section.table(
        "parts.csv",
        [
            {
                "category": category, "part": part, "images": int(nodes.images[c, p]),
                **{
                    name: float(measured.tracking[name].best_tracking()[1][c, p])
                    for name in (NODES, TRUNK, PLAIN) if name in measured.tracking
                },
            }
            for c, category in enumerate(nodes.category_names)
            for p, part in enumerate(nodes.part_names)
            if nodes.enough[c, p]
        ],
        _PART_COLUMNS,
    )  # fmt: skip


def _score_rows(measured: Comparison, test: ObjectImages) -> list[dict[str, Any]]:
    """Return a row for each category and head, and one of the mean."""
    import numpy as np

    objects = [
        sum(int((one.categories == c).sum()) for one in test.objects) for c in range(len(test.category_names))
    ]
    rows: list[dict[str, Any]] = []
    for kind, score in measured.scores.items():
        at, every = score.by_category(0.5), score.by_category()
        rows += [
            {"category": name, "head": _HEADS[kind], "objects": n, "AP50": float(a), "AP": float(e)}
            for name, n, a, e in zip(test.category_names, objects, at, every, strict=True)
        ]
    rows.sort(key=lambda row: test.category_names.index(row["category"]))
    for kind, score in measured.scores.items():
        low, high = np.nanquantile(score.draws(0.5), [0.025, 0.975])
        rows.append(
            {
                "category": "mean", "head": _HEADS[kind], "objects": sum(objects), "AP50": score.mean(0.5),
                "AP": score.mean(), "low": float(low), "high": float(high),
            }
        )  # fmt: skip
    return rows


def _detection_rows(measured: Comparison, test: ObjectImages) -> list[dict[str, Any]]:
    names = ("top", "left", "bottom", "right")
    rows = [
        {
            "image": test.ids[number], "head": _HEADS[kind], "category": test.category_names[int(category)],
            "score": float(score), **dict(zip(names, map(float, box), strict=True)),
        }
        for kind, some in measured.found.items()
        for number, one in enumerate(some)
        for box, category, score in zip(one.boxes, one.categories, one.scores, strict=True)
    ]  # fmt: skip
    # The surest of each head, if there are very many.
    return sorted(rows, key=lambda row: (row["head"], -float(str(row["score"]))))[
        : _MOST * len(measured.found)
    ]


def _add_parses(found: Finding, measured: Comparison, tested: Any) -> None:
    """Draw the parse trees of the surest detection of some images, of every category in turn."""
    import torch

    from cnn_interp.learning.parse_pictures import ParsedRegion, parse_figure

    head, images = measured.parsing, tested.images
    sure = [
        (float(one.scores[0]), number, int(one.categories[0]))
        for number, one in enumerate(measured.found["parsing"])
        if len(one.scores)
    ]
    order: dict[int, list[tuple[float, int, int]]] = {}
    for entry in sorted(sure, key=lambda entry: (-entry[0], entry[1])):
        order.setdefault(entry[2], []).append(entry)
    turns = [some[turn] for turn in range(_SHOWN) for _, some in sorted(order.items()) if turn < len(some)]
    regions, rows = [], []
    for score, number, category in turns[:_SHOWN]:
        box = measured.found["parsing"][number].boxes[0]
        cells = tested.cells(torch.tensor([number]), torch.from_numpy(box).float()[None], head.settings.grid)
        parsed = head.explain(cells, torch.tensor([category]))
        tree, parts = parsed.parses.tree(0), parsed.parts[0].numpy()
        name = images.category_names[category]
        regions.append(ParsedRegion(images.image(number), box, tree, parts, f"{name}, {score:.2f}"))
        edges = head.grammar.tiles / head.grammar.side
        for tile in tree.leaves():
            part = int(parts[tile])
            rows.append(
                {
                    "image": images.ids[number], "category": name,
                    "part": part if part < head.kinds - 1 else "none",
                    "by part": float(parsed.scores[0, part, tile]), "by place": float(parsed.place[0, tile]),
                    **{
                        edge: float(box[at % 2] + edges[tile, at] * (box[2 + at % 2] - box[at % 2]))
                        for at, edge in enumerate(("top", "left", "bottom", "right"))
                    },
                }
            )  # fmt: skip
    if not regions:
        return
    columns = {
        "image": Column("the image"),
        "category": Column("as what its surest box was detected"),
        "part": Column("the part that the tile is"),
        "by part": Column("what the tile adds to the score by looking like that part", format="+.2f"),
        "by place": Column("what its cells add by what they are at their place", format="+.2f"),
        "top": Column("first row of the tile", "px", format=".0f"),
        "left": Column("first column", "px", format=".0f"),
        "bottom": Column("row at which it ends", "px", format=".0f"),
        "right": Column("column at which it ends", "px", format=".0f"),
    }
    section = found.section(
        "Parse trees",
        "The surest box of an image, with its best parse tree: the first cut is the thickest line, later ones are "
        "thinner. Tiles are coloured by the part that they were taken for; tiles of no part are left clear. Numbers of "
        "parts mean something within a category only.",
    )
    section.figure(
        "parses.png", parse_figure(regions, head.grammar, head.kinds - 1), "Parse trees on test images."
    )
    section.table("tiles.csv", rows, columns, "What each tile adds to the score of its box.", most=12)
