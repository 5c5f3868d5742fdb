"""Which concepts the positions of a layer are made of, and what they are worth to the network's answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.commands._loading import ARTICULATED, chosen_layers
from cnn_interp.commands._options import Model, Weights
from cnn_interp.commands.cnn.disentangle._one_kind import (
    Category,
    Count,
    OneKind,
    OneKindData,
    check_one_kind,
    load_one_kind,
)
from interpretkit.commandline import Column, Device, Finding, Quiet, Seed, command, listed, one_of, some_of
from interpretkit.commandline.caution import no_better
from interpretkit.errors import InputError
from interpretkit.runs.folder import Run

if TYPE_CHECKING:
    import numpy as np

    from cnn_interp.disentangling.comparison import Scores, Units
    from cnn_interp.disentangling.concept_importance import ConceptImportance
    from cnn_interp.disentangling.concepts import Concepts, SparseSettings
    from cnn_interp.disentangling.features import LayerMaps, TrunkFeatures
    from cnn_interp.images.sets import Images
    from cnn_interp.networks.network import Network

# As `cnn_interp.disentangling.concepts` has them; written here so that wrong options are refused at once.
_NAMES = {"nmf": "NMF", "sae": "a sparse autoencoder", "pca": "PCA", "ica": "ICA"}
_METHODS = {
    "nmf": "non-negative factors, as in CRAFT",
    "sae": "sparse codes of a top-k autoencoder",
    "pca": "principal components, a control",
    "ica": "independent components, a control",
}
_MEASURES = ("removal", "sobol")
_CONCEPTS, _CODES, _ACTIVE = 16, 64, 8
# Images on which importance is measured, concepts of each method that are drawn, and patches of each.
_JUDGED, _SHOWN, _BROWSED, _PATCHES = 8, 8, 24, 8
# If more of the codes than this are dead, the code is too large for the data.
_MANY_DEAD = 0.5
_METHOD_COLUMNS = {
    "method": Column("how concepts were found", words=_NAMES),
    "concepts": Column("how many"),
    "dead": Column("how many are 0 at every position that they were learned from"),
    "unexplained": Column(
        "share of the variance of responses over positions not given back, images learned from", format=".3f"
    ),
    "unexplained, new": Column("the same on other images", heading="new images", format=".3f"),
    "score": Column("mean output for the target", format="+.2f"),
    "rebuilt": Column("that with the layer put together from the concepts alone", format="+.2f"),
    "without": Column("that with all concepts taken out", format="+.2f"),
}
_PLACE_COLUMNS = {
    "units": Column("what was measured"),
    "located by": Column("how the place of a unit in an image is told"),
    "number": Column("how many"),
    "instability": Column("location instability, mean of units and parts; less is steadier", format=".3f"),
    "median R²": Column("tracking R² of the median unit; 1 follows a part, 0 stands still", format="+.2f"),
    "best R²": Column("tracking R² of the best unit on these images", format="+.2f"),
    "chosen R²": Column("tracking R² of the unit that is best on the other half of them", format="+.2f"),
}
_CONCEPT_COLUMNS = {
    "method": Column("how it was found"),
    "concept": Column("its number"),
    "importance": Column("what it is worth to the target, mean over images", format="+.3f"),
    "images": Column("share of the images in which it is seen", format=".0%"),
    "part": Column("the part that it follows best"),
    "R²": Column("how well it follows that part, by its strongest position", format="+.2f"),
}


@command(
    out="concepts",
    example=[
        "interpretkit cnn disentangle concepts",
        "interpretkit cnn disentangle concepts --data images=photos --method nmf --concepts 25 --importance sobol",
        "interpretkit cnn disentangle concepts --data animal-part=animal-part --category cat --target tabby",
    ],
)
def concepts(
    model: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    layer: Annotated[
        str,
        typer.Option(
            "--layer",
            metavar="NAME",
            help="A layer that gives maps; by default the last of several positions.",
        ),
    ] = "",
    data: OneKindData = ARTICULATED,
    category: Category = "",
    images: Count = 120,
    method: Annotated[
        str, typer.Option("--method", metavar="NAME,...", help=f"Of {', '.join(_METHODS)}.")
    ] = ",".join(_METHODS),
    count: Annotated[
        int | None,
        typer.Option(
            "--concepts",
            metavar="N",
            min=1,
            help=f"Of nmf, pca and ica; {_CONCEPTS} by default.",
            show_default=False,
        ),
    ] = None,
    codes: Annotated[
        int | None,
        typer.Option("--codes", metavar="N", min=1, help=f"Of sae; {_CODES} by default.", show_default=False),
    ] = None,
    active: Annotated[
        int | None,
        typer.Option(
            "--active",
            metavar="N",
            min=1,
            help=f"Codes of a position that sae keeps; {_ACTIVE} by default.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", metavar="N", min=1, help="Of sae; 20 by default.", show_default=False),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            "--target",
            metavar="CLASS",
            help="Output to explain; by default the one that most images get.",
            show_default=False,
        ),
    ] = "",
    importance: Annotated[
        str,
        typer.Option(
            "--importance",
            metavar="|".join(_MEASURES),
            help="What an output loses without a concept; or total Sobol indices, which take many more passes.",
        ),
    ] = "removal",
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    *,
    run: Run,
) -> Finding:
    """Take a layer of a network apart into concepts: NMF (CRAFT), a sparse autoencoder, PCA and ICA as controls.

    Each concept is shown by the patches where it is strongest and weighed by what an output loses without it; the
    methods stand beside each other by what they give back and, where parts are annotated, by whether they follow a
    part. Writes concepts.csv, an npz for each method and report.html. A run that was interrupted goes on when it is
    started again.
    """
    check_one_kind(data, category)
    methods = some_of(list(_METHODS), method, "method")
    one_of(_MEASURES, importance, "importance")
    if len(listed(layer)) > 1:
        raise InputError(f"layer {layer!r}: expected one layer")
    _check_used(methods, count, codes, active, epochs)
    from cnn_interp.disentangling.concepts import SparseSettings
    from cnn_interp.disentangling.features import trunk_features
    from cnn_interp.networks.loading import load_network

    kind = load_one_kind(data, category, images, seed)
    network = load_network(model, weights=weights, device=device, seed=seed)
    outputs = network.check_scores()
    name = chosen_layers(network, layer)[0]
    directions = _count(network, name, methods, count)
    wanted = None if not target else network.target(target)
    if wanted is not None and wanted >= outputs:
        raise InputError(f"target {target}: {model} has {outputs} outputs; expected a number below that")
    sparse = SparseSettings(active=active or _ACTIVE, epochs=epochs or 20)
    numbers = {one: (codes or _CODES) if one == "sae" else directions for one in methods}
    with run.kept(network.digest(), files=kind.files, without=["device", "importance", "target"]) as work:
        features = trunk_features(network, kind.images, [name], work / "features", quiet=quiet)
        scores = _scores(network, kind.images, work / "scores.npy", quiet)
        aim = int(_most_frequent(scores)) if wanted is None else wanted
        judged = _judged(scores[:, aim])
        results = [
            _result(
                one, numbers[one], features[name], kind, network, aim, judged, importance, sparse, seed, device, work,
                quiet,
            )
            for one in methods
        ]  # fmt: skip
        found = _headline(results, name, network, aim, len(judged), kind)
        _add_methods(found, results, kind, features, network)
        for result in results:
            _add_concepts(found, result, kind, features[name], importance)
    found.reads(*kind.files)
    found.arrays("scores.npz", scores=scores, images=list(kind.images.ids))
    _add_method(found, results, kind, importance, network, aim)
    return found.next_step(
        "Ask which parts the same layer's filters mix:", "interpretkit cnn disentangle graph --model", model, "--layer",
        name,
    )  # fmt: skip


def _check_used(
    methods: Sequence[str], count: int | None, codes: int | None, active: int | None, epochs: int | None
) -> None:
    """Refuse options that would do nothing."""
    for name, value in {"codes": codes, "active": active, "epochs": epochs}.items():
        if value is not None and "sae" not in methods:
            raise InputError(f"{name} {value}: is for sae, which `method` does not name; leave it out")
    if count is not None and methods == ["sae"]:
        raise InputError(f"count {count}: `method` names sae alone; expected `codes`")


def _count(network: Network, layer: str, methods: Sequence[str], count: int | None) -> int:
    """Return how many concepts are to be found, before images go through the network.

    Raises
    ------
    InputError
        If the layer gives no maps, or more concepts are wanted than it has units.
    """
    import torch

    from interpretkit.networks.recording import map_layers

    blank = torch.zeros(1, 3, network.size, network.size, device=network.device)
    maps = map_layers(network.module, blank)
    if layer not in maps:
        raise InputError(f"layer {layer!r}: gives no maps; expected one that does")
    units = maps[layer][0]
    if count is not None and count > units and methods != ["sae"]:
        raise InputError(
            f"count {count}: layer {layer!r} has {units} units; expected no more concepts than these"
        )
    return min(_CONCEPTS, units) if count is None else count


@dataclass(frozen=True)
class _Result:
    """Concepts by one method, with what they see in all images and what they are worth.

    Attributes
    ----------
    concepts : Concepts
        Them.
    units : Units
        What they see.
    importance : ConceptImportance
        What they are worth to the target.
    unexplained, unexplained_new : float
        Share of the variance not given back on images learned from, and on others; NaN without others.
    """

    concepts: Concepts
    units: Units
    importance: ConceptImportance
    unexplained: float
    unexplained_new: float

    @property
    def method(self) -> str:
        """The method's name."""
        return self.concepts.method


def _result(
    method: str,
    count: int,
    maps: LayerMaps,
    kind: OneKind,
    network: Network,
    target: int,
    judged: Sequence[int],
    importance: str,
    sparse: SparseSettings,
    seed: int,
    device: str,
    work: Path,
    quiet: bool,
) -> _Result:
    """Find concepts, unless an earlier run has, and weigh them."""
    import math

    import numpy as np

    from cnn_interp.disentangling.comparison import concept_units
    from cnn_interp.disentangling.concept_importance import concept_importance
    from cnn_interp.disentangling.concepts import concepts_from, find_concepts
    from interpretkit.runs.files import atomic_path
    from interpretkit.runs.folder import load_arrays

    file = work / f"{method}.npz"
    if file.is_file():
        found = concepts_from(load_arrays(file))
    else:
        found = find_concepts(
            maps, method, count, rows=kind.learned, seed=seed, device=device, sparse=sparse, checkpoint=work / "sae"  # type: ignore[arg-type]
        )  # fmt: skip
        with atomic_path(file) as hidden, hidden.open("wb") as stream:
            np.savez_compressed(stream, **found.arrays())  # type: ignore[arg-type]
    worth = concept_importance(
        network, found, kind.images, target, rows=judged, measure=importance, seed=seed, quiet=quiet  # type: ignore[arg-type]
    )  # fmt: skip
    new = found.unexplained(maps, kind.measured) if len(kind.measured) else math.nan
    return _Result(found, concept_units(found, maps), worth, found.unexplained(maps, kind.learned), new)


def _scores(network: Network, images: Images, file: Path, quiet: bool) -> np.ndarray:
    """Return the network's outputs for all images, ``(n, outputs)``."""
    import numpy as np
    import torch

    from cnn_interp.images.batches import InputBatches
    from interpretkit.networks.instrumentation import instrumented
    from interpretkit.runs.files import atomic_path
    from interpretkit.runs.progress import track

    if file.is_file():
        return np.load(file, allow_pickle=False)
    with instrumented(network.module, 0), torch.no_grad():
        batches = track(InputBatches(network, images), "Asking the network", quiet=quiet)
        found = torch.cat([network.module(inputs).float().cpu() for inputs in batches]).double().numpy()
    with atomic_path(file) as hidden, hidden.open("wb") as stream:
        np.save(stream, found)
    return found


def _most_frequent(scores: np.ndarray) -> int:
    """Return the output that is largest in most images; of equals the one with the larger mean."""
    import numpy as np

    times = np.bincount(scores.argmax(axis=1), minlength=scores.shape[1])
    best = np.flatnonzero(times == times.max())
    return int(best[scores[:, best].mean(axis=0).argmax()])


def _judged(scores: np.ndarray) -> list[int]:
    """Return the images with the largest scores, in their order."""
    import numpy as np

    return sorted(np.argsort(-scores, kind="stable")[:_JUDGED].tolist())


def _headline(
    results: Sequence[_Result], layer: str, network: Network, target: int, judged: int, kind: OneKind
) -> Finding:
    """Say what the concepts give back, and which is worth most."""
    first = results[0]
    best = int(first.importance.order[0])
    aim = network.category(target)
    found = Finding(
        f"Concepts of {layer} in {network.name}",
        f"From {len(kind.learned)} images of {kind.category}. {_sentence(_METHODS[first.method])}: "
        f"{len(first.concepts)} concepts leave {first.unexplained:.0%} of the variance of the layer's responses. Of "
        f"them concept {best} is worth most to “{aim}”: without it the output falls by "
        f"{float(first.importance.removal[:, best].mean()):.2f} of {float(first.importance.score.mean()):.2f} on "
        f"average, in the {judged} images where that output is largest.",
    )
    found.number(
        "unexplained", {one.method: one.unexplained for one in results}, "variance not given back", format=".1%",
        note=_METHODS, words=_NAMES,
    )  # fmt: skip
    for one in results:
        if one.method == "sae":
            dead = int(one.concepts.dead.sum())
            found.number("dead_codes", dead, "dead sparse codes", note=f"of {len(one.concepts)}")
            if dead > _MANY_DEAD * len(one.concepts):
                found.warn(
                    f"{dead} of {len(one.concepts)} sparse codes are never used: fewer --codes or more --epochs and "
                    "--images leave fewer such."
                )
    found.number("target", aim, on_card=False)
    found.values["results"] = {
        one.method: {
            "concepts": len(one.concepts),
            "dead": int(one.concepts.dead.sum()),
            "unexplained": one.unexplained,
            "unexplained_new": one.unexplained_new,
            "most_important": one.importance.order[:5].tolist(),
            "score": float(one.importance.score.mean()),
            "rebuilt": float(one.importance.rebuilt.mean()),
        }
        for one in results
    }
    return found


def _sentence(text: str) -> str:
    """Return a text that begins with a capital; names within it stay as they are."""
    return text[:1].upper() + text[1:]


def _add_methods(
    found: Finding,
    results: Sequence[_Result],
    kind: OneKind,
    features: TrunkFeatures,
    network: Network,
) -> None:
    """Set the methods beside each other: what they give back, and whether they follow parts."""
    section = found.section(
        "The methods beside each other",
        "Principal components give back the most that so many directions can; they are the control for what concepts "
        "lose in order to be readable. Rebuilt is what the network answers when it is given the concepts alone.",
    )
    rows = [
        {
            "method": one.method,
            "concepts": len(one.concepts),
            "dead": int(one.concepts.dead.sum()),
            "unexplained": one.unexplained,
            "unexplained, new": one.unexplained_new,
            "score": float(one.importance.score.mean()),
            "rebuilt": float(one.importance.rebuilt.mean()),
            "without": float(one.importance.without.mean()),
        }
        for one in results
    ]
    section.table("methods.csv", rows, _METHOD_COLUMNS, in_terminal=True)
    for one in results:
        found.warn(
            *no_better(
                f"what {one.method} leaves", one.unexplained, "what the mean of the layer leaves", 1.0,
                lower_is_better=True,
            )
        )  # fmt: skip
    if kind.parts is None or not len(kind.shown_parts):
        return
    from cnn_interp.disentangling.comparison import CENTRE, constant_scores, filter_units, place_scores

    layer = results[0].concepts.layer
    landmarks, image = kind.landmarks(network), features.image
    measured = [_of_rows(one.units, kind.measured) for one in results]
    measured.append(filter_units(features[layer], kind.measured, kind.learned))
    scores = [row for units in measured for row in place_scores(units, landmarks, image)]
    scores = [row for row in scores if row.readout in ("strongest", CENTRE)]
    scores.append(constant_scores(landmarks, image))
    found.section(
        "Do they follow parts?",
        f"On {len(kind.measured)} images that nothing was learned from, beside the layer's own filters and a unit that "
        "is always in the middle. The best of many units is best by chance in part; the last column is of the unit "
        "chosen on the other half of these images.",
    ).table("places.csv", [_place_row(row) for row in scores], _PLACE_COLUMNS)
    found.values["places"] = [_place_row(row) for row in scores]


def _of_rows(units: Units, rows: np.ndarray) -> Units:
    """Return what units see in some of the images."""
    readouts = {name: (values[rows], where[rows]) for name, (values, where) in units.readouts.items()}
    return replace(units, readouts=readouts)


def _place_row(row: Scores) -> dict[str, object]:
    return {
        "units": row.system,
        "located by": row.readout,
        "number": row.units,
        "instability": row.instability,
        "median R²": row.median_tracking,
        "best R²": row.best_tracking,
        "chosen R²": row.chosen_tracking,
    }


def _add_concepts(found: Finding, result: _Result, kind: OneKind, maps: LayerMaps, importance: str) -> None:
    """Show the concepts of a method as patches, the most important first, and keep all of them."""
    import numpy as np

    from cnn_interp.disentangling.pictures import strips_figure, unit_strips
    from interpretkit.visualization.instruments import Gallery, Item

    worth, method = result.importance.mean, result.method
    values, positions = result.units.readouts["strongest"]
    seen = np.flatnonzero(values.max(axis=0) > 0).tolist()
    chosen = [int(number) for number in result.importance.order if number in seen][:_BROWSED]
    section = found.section(f"Concepts by {_NAMES[method]}", f"{_sentence(_METHODS[method])}.")
    if chosen:
        strips = unit_strips(values, positions, maps.grid, kind.images, chosen, count=_PATCHES)
        titles = [f"concept {number}\n{worth[number]:+.2f}".replace("-", "−") for number in chosen]
        section.figure(
            f"{method}-patches.png",
            strips_figure(list(zip(titles, strips, strict=True))[:_SHOWN]),
            f"Each row: a concept where it is strongest, the most important first; below its number its importance "
            f"({'total Sobol index' if importance == 'sobol' else 'fall of the output without it'}).",
            alt=f"Patches of the concepts that {method} finds.",
            on_page=False,
        )
        section.text(
            "Each where it is strongest; its importance is the "
            + ("total Sobol index." if importance == "sobol" else "fall of the output without it.")
        ).instrument(
            Gallery(
                [
                    Item(
                        f"{method} concept {number}",
                        strip,
                        numbers={
                            "importance": round(float(worth[number]), 4),
                            "share of images": round(float((values[:, number] > 0).mean()), 3),
                        },
                    )
                    for number, strip in zip(chosen, strips, strict=True)
                ],
                placeholder="a number",
                side=26,
                label=f"Concepts by {method}, to browse",
            )
        )
    found.arrays(
        f"{method}.npz",
        **result.concepts.arrays(),
        importance=result.importance.removal,
        values=values,
        positions=positions,
        **({} if result.importance.total is None else {"sobol": result.importance.total}),
    )


def _concept_rows(
    result: _Result, kind: OneKind, landmarks: np.ndarray | None, image: tuple[int, int]
) -> list[dict[str, Any]]:
    """Return a row for each concept of a method."""
    import numpy as np

    from cnn_interp.metrics.location_instability import location_instability

    values, positions = result.units.readouts["strongest"]
    tracking = None
    if landmarks is not None and landmarks.shape[1]:
        rows = kind.measured
        tracking = location_instability(values[rows], positions[rows], landmarks, image).tracking[0]
    found = []
    for number in range(len(result.concepts)):
        row: dict[str, Any] = {
            "method": result.method,
            "concept": number,
            "importance": float(result.importance.mean[number]),
            "images": float((values[:, number] > 0).mean()),
        }
        if tracking is not None:
            known = not np.isnan(tracking[:, number]).all()
            part = int(np.nanargmax(tracking[:, number])) if known else 0
            row |= {"part": kind.part_names[part] if known else None, "R²": float(tracking[part, number])}
        found.append(row)
    return found


def _add_method(
    found: Finding, results: Sequence[_Result], kind: OneKind, importance: str, network: Network, target: int
) -> None:
    """Weigh all concepts in one figure and one table, and say how."""
    from cnn_interp.disentangling.pictures import importance_figure

    label = "total Sobol index" if importance == "sobol" else "fall of the output"
    landmarks = None if kind.parts is None else kind.landmarks(network)
    rows = [
        row for one in results for row in _concept_rows(one, kind, landmarks, (network.size, network.size))
    ]
    section = found.section(f"What concepts are worth to “{network.category(target)}”")
    section.figure(
        "importance.png",
        importance_figure({one.method: one.importance.mean for one in results}, label),
        f"Mean over {len(results[0].importance.score)} images.",
    )
    section.table(
        "concepts.csv", sorted(rows, key=lambda row: -row["importance"]), _CONCEPT_COLUMNS,
        "The 30 most important; the file holds all.", most=30,
    )  # fmt: skip
    measured = (
        "the total Sobol index of weakening it, as CRAFT has it" if importance == "sobol" else "the fall of the output "
        "when it is taken out of the layer and all else stays"
    )  # fmt: skip
    found.section(
        "How it is measured",
        "Responses are divided by their standard deviation. Non-negative factors see what is above 0 alone. A sparse "
        "autoencoder keeps the largest codes of each position; codes that fall silent are trained on what the others "
        "leave. Principal and independent components are turned so that they are skewed upwards. The importance of a "
        f"concept is {measured}. Data: {kind.images.name}, {len(kind.images)} images. Fel and others, CVPR 2023 "
        "(CRAFT); Gao and others, 2024 (top-k codes).",
    ).text(
        "The npz of a method holds its directions (concepts, units), its mean and the scale that responses are divided "
        "by: responses ÷ scale ≈ mean + codes · directions. `concepts_from` reads it back."
    )
