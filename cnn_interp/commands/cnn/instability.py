"""Whether units stay with parts of objects."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from cnn_interp.commands._loading import ARTICULATED, PART_KINDS, chosen_layers, load_parts
from cnn_interp.commands._options import Model, UnitLayers, Weights
from interpretkit.commandline import Column, Device, Finding, Quiet, Seed, command, kind_and_path
from interpretkit.commandline.caution import no_better

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from cnn_interp.images.part_images import PartImages
    from cnn_interp.metrics.location_instability import LocationInstability, Peaks
    from cnn_interp.metrics.part_interpretability import PartInterpretability
    from cnn_interp.networks.network import Network

_LAYER_COLUMNS = {
    "layer": Column("the layer"),
    "instability": Column("location instability, mean of units, parts and categories", format=".3f"),
    "centre": Column("that of a unit that always fires at the centre", format=".3f"),
    "constant": Column("that at the best constant position", format=".3f"),
    "best R²": Column("tracking R² of the best unit; 1 follows a part, 0 stands still", format="+.2f"),
    "median R²": Column("tracking R² of the median unit", format="+.2f"),
    "parts": Column("part interpretability", format=".3f"),
    "displaced": Column("part interpretability for the parts of another image", format=".3f"),
}
_PART_COLUMNS = {
    "category": Column("the category"),
    "part": Column("the part"),
    "images": Column("how many images show it"),
    "instability": Column("location instability, mean of units", format=".3f"),
    "constant centre": Column(
        "that of a unit that always fires at the centre", heading="centre", format=".3f"
    ),
    "best constant": Column("that at the best constant position", heading="constant", format=".3f"),
    "best tracking R²": Column("tracking R² of the best unit", heading="best R²", format="+.2f"),
    "median tracking R²": Column("tracking R² of the median unit", heading="median R²", format="+.2f"),
}


@command(
    out="instability",
    example=[
        "interpretkit cnn instability",
        "interpretkit cnn instability --layer features.13,features.18 --data animal-part=animal-part --images 3000",
    ],
)
def instability(
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
    images: Annotated[
        int, typer.Option("--images", metavar="N", min=2, help="How many images, spread over the data.")
    ] = 400,
    top: Annotated[
        int, typer.Option("--top", metavar="N", min=2, help="How many images count for each unit and part.")
    ] = 100,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> Finding:
    """Measure whether units stay with parts of objects: location instability beside constant positions and tracking.

    Writes parts.csv, units.csv, instability.npz for each layer and report.html; where the parts have masks, their part
    interpretability as well.
    """
    kind_and_path(data, PART_KINDS, "data", words=[ARTICULATED])
    from cnn_interp.images.batches import landmarks_in_inputs, part_batches
    from cnn_interp.metrics.location_instability import find_peaks, location_instability
    from cnn_interp.metrics.part_interpretability import part_interpretability
    from cnn_interp.networks.loading import load_network

    chosen, files = load_parts(data, images, seed)
    network = load_network(model, weights=weights, device=device, seed=seed)
    layers = chosen_layers(network, layer)
    inputs, with_masks = part_batches(network, chosen)
    peaks = find_peaks(network.module, layers, inputs, quiet=quiet)
    landmarks = landmarks_in_inputs(chosen, network.size)
    results = {
        name: location_instability(
            peak.values,
            peak.positions,
            landmarks,
            peak.grid.image,
            categories=chosen.categories,
            category_names=chosen.category_names,
            part_names=chosen.part_names,
            top=top,
        )
        for name, peak in peaks.items()
    }
    parts: dict[str, PartInterpretability] = {}
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

    last = list(results)[-1]
    found = _headline(last, results[last], parts.get(last), network.name).reads(*files)
    for name, result in results.items():
        found.values[name] = {
            "location_instability": result.mean_instability,
            "constant_centre": result.mean_constant_centre,
            "best_constant": result.mean_best_constant,
            "best_tracking_r2": result.best_tracking_r2,
            **({"part_interpretability": parts[name].mean} if name in parts else {}),
        }
        still = "that of a unit which never moves"
        found.warn(
            *no_better(
                f"the location instability of {name}",
                result.mean_instability,
                still,
                result.mean_constant_centre,
                lower_is_better=True,
            ),
            *no_better(f"the best tracking R² of {name}", result.best_tracking_r2, still, 0.0),
        )
        found.arrays(f"{name}.npz", **result.arrays())
        if name in parts:
            found.arrays(f"{name}-parts.npz", **parts[name].arrays())
    found.section("Layers").table("layers.csv", _layers(results, parts), _LAYER_COLUMNS)
    _add_units(found, last, results[last], peaks[last], network, chosen, landmarks)
    found.section("Parts").table(
        None,
        [row for row in results[last].table() if row["images"]],
        _PART_COLUMNS,
        f"Of `{last}`; `parts.csv` holds more.",
        shown=list(_PART_COLUMNS),
    )
    found.section(
        "How it is measured",
        f"For each unit, category and part, over the {results[last].top} images with the part that excite the unit "
        "most: the standard deviation of the distance between the part and the centre of the receptive field of the "
        "strongest position, over the image's diagonal (Zhang, Wu, Zhu, CVPR 2018). Tracking is "
        f"1 − tr Var(p − p̂) ÷ tr Var(p) over the same images. Data: {chosen.name}, {len(chosen)} images.",
    )
    layer_column = {"layer": Column("the layer")}
    found.table(
        "parts.csv",
        [{"layer": name, **row} for name, result in results.items() for row in result.table()],
        layer_column | _PART_COLUMNS,
    )
    found.table(
        "units.csv",
        [{"layer": name, **row} for name, result in results.items() for row in result.units_table()],
        layer_column,
    )
    return found.next_step("See which concepts the units detect:", "interpretkit cnn dissect --model", model)


def _headline(
    layer: str, result: LocationInstability, parts: PartInterpretability | None, network: str
) -> Finding:
    steadier = result.mean_instability < result.mean_constant_centre
    found = Finding(
        f"Do units of {network} stay with parts?",
        f"The units of `{layer}` keep their distance from parts to {result.mean_instability:.3f} of the diagonal. A "
        f"unit that always fired at the centre would have {result.mean_constant_centre:.3f}, "
        f"{'more' if steadier else 'less'}; so the number says little unless units follow the parts. "
        + best_follower(result),
    )
    found.number(
        "location_instability",
        result.mean_instability,
        format=".3f",
        note="mean of units, parts, categories",
    )
    found.number(
        "constant_centre",
        result.mean_constant_centre,
        "always the centre",
        format=".3f",
        note="what a unit that never moves has",
    )
    found.number(
        "best_constant",
        result.mean_best_constant,
        "best constant position",
        format=".3f",
        note="chosen on these very images",
    )
    found.number(
        "best_tracking_r2",
        round(result.best_tracking_r2, 2) if result.enough.any() else "too few images",
        "best tracking R²",
        note=f"1 follows, 0 stands still; the best of {result.tracking.shape[2]} units",
    )
    if parts is not None:
        found.number(
            "part_interpretability",
            parts.mean,
            format=".3f",
            note=f"parts of another image: {parts.mean_displaced:.3f}",
        )
    return found


def best_follower(result: LocationInstability) -> str:
    """Say which unit follows which part best, or why none is named."""
    import numpy as np

    from cnn_interp.metrics.location_instability import FEWEST

    units, best = result.best_tracking()
    if not result.enough.any():
        return (
            f"Which unit follows which part is not to be told: no part counts in {FEWEST} images of one category, and "
            "in fewer some of many units explains any movement by chance."
        )
    if np.isnan(best).all():
        return f"Which unit follows which part is not to be told: no part that {FEWEST} images show moves."
    c, p = np.unravel_index(np.nanargmax(best), best.shape)
    which = f"{result.category_names[c]}'s {result.part_names[p]}"
    if best[c, p] <= 0:
        return (
            f"No unit follows any part: even the best, unit {units[c, p]}, explains nothing of the movement of the "
            f"{which}."
        )
    return f"The best follower is unit {units[c, p]}: it explains {best[c, p]:.0%} of the movement of the {which}."


def _layers(
    results: Mapping[str, LocationInstability], parts: Mapping[str, PartInterpretability]
) -> list[dict[str, object]]:
    """Return a row for each layer."""
    return [
        {
            "layer": name,
            "instability": found.mean_instability,
            "centre": found.mean_constant_centre,
            "constant": found.mean_best_constant,
            "best R²": found.best_tracking_r2,
            "median R²": found.median_tracking_r2,
            **({"parts": parts[name].mean, "displaced": parts[name].mean_displaced} if parts else {}),
        }
        for name, found in results.items()
    ]


def _add_units(
    found: Finding,
    layer: str,
    result: LocationInstability,
    peaks: Peaks,
    network: Network,
    images: PartImages,
    landmarks: np.ndarray,
) -> None:
    """Show how steady the units of a layer are, and which follow a part."""
    import numpy as np

    from cnn_interp.metrics.location_instability import FEWEST
    from cnn_interp.metrics.pictures import followed_part, instability_figure, tracking_figure
    from interpretkit.visualization import heatmap

    units, best = result.best_tracking()
    section = found.section(f"Units of {layer}")
    section.figure(
        "instability.png",
        instability_figure(result),
        "Instability of each unit, mean over categories and parts.",
    )
    if np.isnan(best).all():
        return
    hidden = np.isnan(best)[..., None]
    judged = replace(
        result,
        instability=np.where(hidden, np.nan, result.instability),
        tracking=np.where(hidden, np.nan, result.tracking),
    )
    section.figure(
        "tracking.png",
        tracking_figure(judged),
        f"Each unit with the part that it tracks best, of those that {FEWEST} images show. Low instability is "
        "no tracking.",
    )
    followers = found.section("The best followers")
    for place in np.argsort(-np.nan_to_num(best, nan=-np.inf), axis=None, kind="stable")[:3]:
        c, p = np.unravel_index(place, best.shape)
        if np.isnan(best[c, p]):
            continue
        category, part, unit = result.category_names[c], result.part_names[p], int(units[c, p])
        title = f"unit {unit} and the {category}'s {part}: R² {best[c, p]:.2f}".replace("-", "−")
        rows = np.flatnonzero(images.categories == c)
        followers.figure(
            f"follower-{category}-{part}.png".replace(" ", "-"),
            followed_part(network, images, peaks, landmarks, rows, unit, int(p), title),
            f"Ring: the {part}. Cross: where unit {unit} is strongest. Its strongest images of a {category}.",
        )
    if best.size > 1:
        rows = np.flatnonzero(~np.isnan(best).all(axis=1))
        columns = np.flatnonzero(~np.isnan(best).all(axis=0))
        followers.figure(
            "best-r2.png",
            heatmap(
                np.clip(best, -1, 1)[np.ix_(rows, columns)],
                [result.category_names[row] for row in rows],
                [result.part_names[column] for column in columns],
                label="best tracking R² (below −1 as −1)",
                centre=0,
            ),
            "The R² of the best unit for each part.",
        )
