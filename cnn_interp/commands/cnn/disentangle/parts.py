"""Parts of objects, located from a few annotations by And-Or graphs on a network that stays as it is."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.commands._loading import ARTICULATED, PART_KINDS, chosen_layers, spread
from cnn_interp.commands._options import Model, UnitLayers, Weights
from interpretkit.commandline import Column, Device, Finding, Quiet, Seed, command, kind_and_path, listed
from interpretkit.commandline.caution import no_better
from interpretkit.errors import InputError
from interpretkit.runs.folder import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from cnn_interp.disentangling.part_baselines import Trial
    from cnn_interp.disentangling.part_graph import Parses, PartGraph
    from cnn_interp.images.part_images import PartImages

# Of the drawn objects, what is located if nobody says: parts that look unlike each other.
_CATEGORY, _PARTS = "quadruped", ("head", "front legs")
# Of other data, so many parts.
_MOST = 2
# With fewer families of images, none is kept apart from its relatives.
_FAMILIES = 6
# Pictures kept in memory, since each is asked for several times: about 100 MB.
_HELD = 600
# Parsed images shown.
_SHOWN = 8
_ERROR_COLUMNS = {
    "part": Column("the part"),
    "method": Column("how it is located"),
    "annotations": Column("how many images were annotated"),
    "error": Column(
        "mean distance to the part over the diagonal of the object's box, mean of draws", format=".3f"
    ),
    "low": Column("lower end of the 95 % interval over draws", heading="95 % from", format=".3f"),
    "high": Column("upper end of it", heading="95 % to", format=".3f"),
    "against mean": Column("error over that of the mean position", heading="over mean", format=".2f"),
}
_TRIAL_COLUMNS = {
    "part": Column("the part"),
    "method": Column("how it is located"),
    "annotations": Column("how many images were annotated"),
    "draw": Column("which draw of them"),
    "error": Column("mean distance to the part over the diagonal of the object's box"),
}
_PARSE_COLUMNS = {
    "part": Column("the part"),
    "image": Column("the image"),
    "annotated": Column("whether it was annotated"),
    "row": Column("row of the part's centre", "px"),
    "column": Column("column of the part's centre", "px"),
    "top": Column("first row of its box", "px"),
    "left": Column("first column of its box", "px"),
    "bottom": Column("last row of its box", "px"),
    "right": Column("last column of its box", "px"),
    "score": Column("how well it is seen: log of the sum of exp(score) over all parses", format=".2f"),
    "spread": Column("standard deviation of the centre over all parses", "px", format=".1f"),
    "template": Column("the best parse's template"),
    "error": Column(
        "distance to the annotated centre over the diagonal; empty where none is annotated", format=".3f"
    ),
}
_PATTERN_COLUMNS = {
    "part": Column("the part"),
    "template": Column("the template"),
    "down": Column("how far below the part", "cells"),
    "across": Column("how far to the right of it", "cells"),
    "strength": Column("how much the pattern says, of all patterns of its template", format=".1%"),
    "units": Column("the units that say most in it, with their weights against the largest"),
}


@command(
    out="parts",
    example=[
        "interpretkit cnn disentangle parts",
        "interpretkit cnn disentangle parts --data animal-part=animal-part --category cat --images 400",
    ],
)
def parts(
    run: Run,
    model: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    layer: UnitLayers = "",
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="KIND=PATH",
            help=f"Images with annotated parts: {', '.join(PART_KINDS)} =FOLDER, or 'articulated', which the project "
            "draws itself.",
        ),
    ] = ARTICULATED,
    category: Annotated[
        str, typer.Option("--category", metavar="NAME", help="Kind of object; by default the data's first.")
    ] = "",
    part: Annotated[
        str,
        typer.Option(
            "--part", metavar="NAME,...", help="Parts to locate; by default two that most images show."
        ),
    ] = "",
    annotations: Annotated[
        str, typer.Option("--annotations", metavar="N,...", help="How many images are annotated.")
    ] = "1,3",
    draws: Annotated[
        int, typer.Option("--draws", metavar="N", min=1, help="How often they are drawn anew.")
    ] = 3,
    images: Annotated[
        int, typer.Option("--images", metavar="N", min=4, help="How many images, spread over the data.")
    ] = 140,
    baselines: Annotated[
        bool,
        typer.Option("--baselines/--no-baselines", help="Locate the parts by other methods as well."),
    ] = True,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> Finding:
    """Grow And-Or graphs of parts from a few annotations, and locate the parts in other images.

    The network stays as it is. Writes errors.csv (every method, number of annotations and draw), parses.csv (box,
    centre and score in every image), patterns.csv, the graph of each part (part.npz, part.json, part.graphml) and
    report.html.
    """
    counts = _counts(annotations)
    kind, path = kind_and_path(data, PART_KINDS, "data", words=[ARTICULATED])
    import numpy as np

    from cnn_interp.disentangling import part_baselines as located
    from cnn_interp.disentangling.part_cells import mirrored_features, part_cells, part_layers
    from cnn_interp.disentangling.part_graph import Annotation, grow, infer
    from cnn_interp.images.batches import landmarks_in_inputs
    from cnn_interp.networks.loading import load_network

    chosen, files = _images(kind, path, category, images, seed)
    names = _named_parts(chosen, listed(part) or (_PARTS if path is None and not category else ()))
    network = load_network(model, weights=weights, device=device, seed=seed)
    fine = chosen_layers(network, layer) if layer else part_layers(network)
    deep = chosen_layers(network, "")[0]
    landmarks = landmarks_in_inputs(chosen, network.size)
    kin = _relatives(chosen)
    pool, rest = _set_aside(chosen, kin)
    methods = dict(located.METHODS)
    if not baselines:
        methods = {name: methods[name] for name in (located.GRAPH, located.MEAN)}
    trials: dict[str, list[Trial]] = {}
    grown: dict[str, tuple[PartGraph, Parses, np.ndarray]] = {}
    with run.kept(
        network.digest(), files=files, without=["device", "part", "annotations", "draws", "baselines"]
    ) as work:
        features = mirrored_features(network, chosen, list(dict.fromkeys([*fine, deep])), work, quiet=quiet)
        cells = part_cells(features, fine, learn_rows=pool if len(pool) else None)
        for name in names:
            where = landmarks[:, chosen.part_names.index(name)]
            shown = rest[~np.isnan(where[rest]).any(axis=1)]
            task = located.Task(features, cells, deep, tuple(fine), where, pool)
            trials[name] = located.locate_trials(
                task,
                shown,
                counts,
                draws,
                groups=kin,
                methods=methods,
                seed=seed,
                name=name,
                quiet=quiet,
            )
            first = located.annotated_images(shown, max(counts), seed, name, 0)
            sizes = _sizes(chosen, name, first, network.size)
            notes = [
                Annotation(int(row), (float(where[row, 0]), float(where[row, 1])), size)
                for row, size in zip(first, sizes, strict=True)
            ]
            graph = grow(cells, notes, part=name, pool=pool)
            grown[name] = graph, infer(graph, cells), where
    found = _finding(chosen, network.name, fine, names, counts, draws, trials, grown, rest, files)
    if chosen.groups is not None and kin is not chosen.groups:
        found.warn(
            "Images of one photograph may be annotated and tested on: there are too few to keep them apart."
        )
    return found


def _counts(text: str) -> list[int]:
    numbers = listed(text)
    if not numbers or not all(number.isdigit() and int(number) > 0 for number in numbers):
        raise InputError(f"annotations {text!r}: expected whole numbers above 0, such as 1,3,5")
    return sorted({int(number) for number in numbers})


def _images(
    kind: str, path: Path | None, category: str, count: int, seed: int
) -> tuple[PartImages, list[Path]]:
    """Return images of one kind of object, cut out by their boxes, and the files that say what they are."""
    if path is None:
        from cnn_interp.images.articulated import articulated_images

        drawn = articulated_images(
            count, seed=seed, side=224, negatives=0.0, occlusion=0.0, categories=(category or _CATEGORY,)
        )
        return _held(drawn.cropped()), []
    import numpy as np

    from cnn_interp.images.reading import read_parts

    found = read_parts(kind, path, unannotated=True)
    # As far as there are any, so many images with annotated parts as without: these are learned from, those tested on.
    found = found.of_category(category or found.category_names[0])
    told = np.flatnonzero(found.annotated.any(axis=1))
    untold = np.flatnonzero(~found.annotated.any(axis=1))
    most = max(count - len(untold), count // 2)
    few = told[spread(len(told), most)]
    rows = np.sort(np.concatenate([few, untold[spread(len(untold), count - len(few))]]))
    return _held(found.subset(rows)), [path / "landmarks.csv"] if kind == "animal-part" else []


def _held(images: PartImages) -> PartImages:
    """Return the set with its pictures kept in memory once they were made."""
    return replace(images, load=lru_cache(maxsize=_HELD)(images.load))


def _named_parts(images: PartImages, wanted: Sequence[str]) -> list[str]:
    """Return the parts to locate: those wanted, else those that most images show."""
    import numpy as np

    unknown = [name for name in wanted if name not in images.part_names]
    if unknown:
        raise InputError(f"part {unknown[0]!r}: expected some of {', '.join(images.part_names)}")
    if wanted:
        return list(dict.fromkeys(wanted))
    often = np.argsort(-images.annotated.sum(axis=0), kind="stable")[:_MOST]
    return [images.part_names[place] for place in sorted(often)]


def _relatives(images: PartImages) -> np.ndarray:
    """Return the number of each image's relatives; its own where there are too few families to keep apart."""
    import numpy as np

    told = images.annotated.any(axis=1)
    if images.groups is None or len(np.unique(images.groups[told])) < _FAMILIES:
        return np.arange(len(images))
    return images.groups


def _set_aside(images: PartImages, kin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return images to learn from without their annotation, and the rest: those with annotated parts.

    Where nearly all are annotated, half of them is set aside, relatives together.
    """
    import numpy as np

    told = images.annotated.any(axis=1)
    free, rest = np.flatnonzero(~told), np.flatnonzero(told)
    if len(free) >= len(images) / 4:
        return free, rest
    aside = np.unique(kin[rest], return_inverse=True)[1] % 2 == 1
    return np.sort(np.concatenate([free, rest[aside]])), rest[~aside]


def _sizes(images: PartImages, part: str, rows: np.ndarray, side: int) -> list[tuple[float, float] | None]:
    """Return height and width of a part in images, px of inputs, where its mask tells."""
    from cnn_interp.images.part_images import box_of

    found: list[tuple[float, float] | None] = []
    number = images.part_names.index(part)
    for row in rows:
        mask = images.masks(int(row))[number] if images.has_masks else None
        if mask is None or not mask.any():
            found.append(None)
            continue
        top, left, bottom, right = box_of(mask)
        height, width = mask.shape
        found.append((float(bottom - top + 1) * side / height, float(right - left + 1) * side / width))
    return found


def _finding(
    images: PartImages,
    network: str,
    layers: Sequence[str],
    names: Sequence[str],
    counts: Sequence[int],
    draws: int,
    trials: dict[str, list[Trial]],
    grown: dict[str, tuple[PartGraph, Parses, np.ndarray]],
    rest: np.ndarray,
    files: Sequence[Path],
) -> Finding:
    import numpy as np

    from cnn_interp.disentangling.part_baselines import BASELINES, GRAPH, MEAN, mean_errors
    from cnn_interp.disentangling.part_graph import FILES
    from cnn_interp.disentangling.part_pictures import (
        annotated_figure,
        error_figure,
        parsed_figure,
        pattern_figure,
    )

    most = max(counts)
    every = [trial for name in names for trial in trials[name]]
    errors = {method: float(values.mean()) for method, values in mean_errors(every, most).items()}
    best = min((method for method in BASELINES if method in errors), key=lambda m: errors[m], default=None)
    said = f"{most} annotated image{'s' * (most > 1)}"
    beside = "" if best is None else f", the best other method ({best}) to {errors[best]:.3f}"
    found = Finding(
        f"{' and '.join(names)} of {images.category_names[int(images.categories[0])]}, from {said}",
        f"And-Or graphs grown on {network} from {said} locate {' and '.join(names)} in other images to "
        f"{errors[GRAPH]:.3f} of the object's diagonal{beside}; always saying the mean of the annotated positions to "
        f"{errors[MEAN]:.3f}.",
    ).reads(*files)
    note = f"mean of {len(names)} part{'s' * (len(names) > 1)} and {draws} draw{'s' * (draws > 1)}"
    found.number("error", errors[GRAPH], "part graph", format=".3f", note=note)
    found.number(
        "mean_position", errors[MEAN], "mean position", format=".3f", note="what never looks at the image has"
    )
    if best is not None:
        found.number("best_baseline", errors[best], "best baseline", format=".3f", note=best)
    found.values.update(
        annotations=most,
        errors=errors,
        parts={
            name: {m: float(v.mean()) for m, v in mean_errors(trials[name], most).items()} for name in names
        },
    )
    found.warn(
        *no_better("the part graph", errors[GRAPH], "the mean position", errors[MEAN], lower_is_better=True)
    )
    if best is not None:
        found.warn(*no_better("the part graph", errors[GRAPH], best, errors[best], lower_is_better=True))
    section = found.section("How far off")
    section.table(
        "errors-summary.csv",
        _summary(trials, counts),
        _ERROR_COLUMNS,
        f"Mean distance over the diagonal of the object's box, on images that were not annotated; {draws} draws.",
        shown=["part", "method", "annotations", "error", "low", "high", "against mean"],
        in_terminal=len(names) * len(counts) * len(errors) <= 40,
    )
    if len(counts) > 1:
        section.figure(
            "errors.png",
            error_figure(trials),
            "Error against the number of annotated images. Bands: 95 % intervals over draws.",
        )
    parse_rows: list[dict[str, Any]] = []
    pattern_rows: list[dict[str, Any]] = []
    for name in names:
        graph, parses, where = grown[name]
        annotated = {note.image for note in graph.annotations}
        others = [int(row) for row in rest if int(row) not in annotated and not np.isnan(where[row]).any()]
        shown = [others[place] for place in spread(len(others), _SHOWN)]
        part = found.section(
            name,
            f"Grown from {said}, and then from {sum(t.parsed for t in graph.templates)} images that nobody annotated, "
            "those in which it was found most surely.",
        )
        stem = name.replace(" ", "-")
        part.figure(
            f"{stem}-annotated.png",
            annotated_figure(images, graph, where),
            f"Where the {name} was annotated (ring).",
        ).figure(
            f"{stem}-parsed.png",
            parsed_figure(images, shown, parses.subset(shown), graph, where[shown]),
            f"Images that were not annotated, evenly spread. Cross and box: where the graph finds the {name}. Ring: "
            "where it is. Dots: the patterns that say most, the larger the more, where they are found.",
        ).figure(
            f"{stem}-patterns.png",
            pattern_figure(images, range(len(images)), parses, graph),
            f"The patterns of the {name} that say most: how far from it (down, right, in cells), how much each "
            "says, and the places where it is clearest.",
        )
        parse_rows += _parse_rows(name, images, graph, parses, where)
        pattern_rows += _pattern_rows(name, graph)
        for file in FILES:
            found.file(f"{stem}/{file}", graph.write)
    found.section(
        "How it works",
        f"Layers {', '.join(f'`{one}`' for one in layers)} of {network}, frozen. A part (OR) has templates, a template "
        "(AND) has patterns at places about the part, a pattern (OR) is at the best of a few cells; there weighted "
        "units say how well it is seen. Patterns are the mean of what annotated images and their mirror images have "
        "about the part, after what all cells share is taken away; then images without annotation are parsed, and the "
        "surest half is learned from. Zhang, Cao, Wu, Zhu, AAAI 2017, with learned weights in place of single units. "
        f"Data: {images.name}, {len(images)} images.",
    ).table(
        None,
        [row for row in pattern_rows if row["part"] == names[0]][:12],
        _PATTERN_COLUMNS,
        f"Patterns of the {names[0]}; `patterns.csv` holds all.",
    )
    trial_rows = [
        {"part": name, "method": t.method, "annotations": t.annotations, "draw": t.draw, "error": t.error}
        for name in names
        for t in trials[name]
    ]
    found.table("errors.csv", trial_rows, _TRIAL_COLUMNS)
    found.table("parses.csv", parse_rows, _PARSE_COLUMNS)
    found.table("patterns.csv", pattern_rows, _PATTERN_COLUMNS)
    return found.next_step(
        "See how much more annotations bring:",
        "interpretkit cnn disentangle parts --annotations",
        ",".join(map(str, sorted({*counts, most + 2, 2 * most + 2}))),
    )


def _summary(trials: dict[str, list[Trial]], counts: Sequence[int]) -> list[dict[str, Any]]:
    """Return a row for each part, number of annotations and method."""
    from cnn_interp.disentangling.part_baselines import MEAN, interval, mean_errors

    rows = []
    for name, some in trials.items():
        for count in counts:
            errors = mean_errors(some, count)
            still = float(errors[MEAN].mean())
            for method, values in sorted(errors.items(), key=lambda item: float(item[1].mean())):
                ends = interval(values) or ("", "")
                rows.append(
                    {
                        "part": name, "method": method, "annotations": count, "error": float(values.mean()),
                        "low": ends[0], "high": ends[1], "against mean": float(values.mean()) / still,
                    }
                )  # fmt: skip
    return rows


def _parse_rows(
    part: str, images: PartImages, graph: PartGraph, parses: Parses, where: np.ndarray
) -> list[dict[str, Any]]:
    """Return a row for each image: where the part was found."""
    import numpy as np

    annotated = {note.image for note in graph.annotations}
    diagonal = float(np.hypot(*graph.encoder.grid.image))
    away = np.linalg.norm(parses.centres - where, axis=1) / diagonal
    names = ("top", "left", "bottom", "right")
    return [
        {
            "part": part, "image": images.ids[row], "annotated": row in annotated,
            "row": float(parses.centres[row, 0]), "column": float(parses.centres[row, 1]),
            **dict(zip(names, map(float, parses.boxes[row]), strict=True)),
            "score": float(parses.scores[row]), "spread": float(parses.spread[row]),
            "template": int(parses.templates[row]), "error": "" if np.isnan(away[row]) else float(away[row]),
        }
        for row in range(len(parses))
    ]  # fmt: skip


def _pattern_rows(part: str, graph: PartGraph) -> list[dict[str, Any]]:
    """Return a row for each pattern, those that say most first."""
    rows = []
    for number, template in enumerate(graph.templates):
        order = sorted(range(len(template.offsets)), key=lambda pattern: -template.strengths[pattern])
        for pattern in order:
            units = graph.units(number, pattern)
            rows.append(
                {
                    "part": part, "template": number, "down": int(template.offsets[pattern, 0]),
                    "across": int(template.offsets[pattern, 1]), "strength": float(template.strengths[pattern]),
                    "units": ", ".join(f"{layer}/{unit} {weight:+.2f}" for layer, unit, weight in units),
                }
            )  # fmt: skip
    return rows
