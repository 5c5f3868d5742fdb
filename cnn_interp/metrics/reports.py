"""The reports of a dissection and of a measurement of location instability."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from cnn_interp.datasets.images import Images
from cnn_interp.datasets.part_images import PartImages
from cnn_interp.metrics.dissection import Dissection
from cnn_interp.metrics.location_instability import FEWEST, LocationInstability, Peaks
from cnn_interp.metrics.part_interpretability import PartInterpretability
from cnn_interp.metrics.pictures import (
    comparison_figure,
    detectors_figure,
    followed_part,
    instability_figure,
    tracking_figure,
    unit_figure,
    unit_pictures,
)
from cnn_interp.models import Network
from interpretkit.visualization import Report, heatmap

# Units drawn for each category, and pictures of each.
_SHOWN, _COLUMNS = 5, 4
# If random weights detect more of the concepts, the images are too few.
_CHANCE = 0.1
# Of the tables of location instability.
_COLUMNS_SAY = (
    "Instability of units, of one that always fires at the centre, and at the best constant position; tracking R² of "
    f"the best unit, where {FEWEST} images count, and of the median one."
)
_FORMATS = {
    "instability": ".3f",
    "centre": ".3f",
    "constant": ".3f",
    "best R²": "+.2f",
    "median R²": "+.2f",
}


def unit_figures(network: Network, images: Images, dissection: Dissection) -> dict[str, Figure]:
    """Draw the best detector of each concept in its strongest images, for each category the clearest few."""
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
    strips = unit_pictures(network, images, dissection, units, columns=_COLUMNS)
    return {
        category: unit_figure([(title, strips[unit]) for unit, title in chosen[category].items()])
        for category in dissection.categories
        if category in chosen
    }


def dissection_report(
    dissections: Mapping[str, Dissection],
    figures: Mapping[str, Mapping[str, Figure]],
    baselines: Mapping[str, Dissection],
    *,
    network: str,
    data: str,
    share: float,
) -> Report:
    """Return the report of a dissection.

    Parameters
    ----------
    dissections : mapping
        From layer to its dissection.
    figures : mapping
        From layer to what :func:`unit_figures` gave.
    baselines : mapping
        From layer to the dissection of the same network with random weights; may be empty.
    network, data : str
        What was dissected, and on what.
    share : float
        At which thresholds are exceeded.
    """
    main_layer = max(dissections, key=lambda layer: sum(dissections[layer].unique_detectors().values()))
    main = dissections[main_layer]
    unique, units = sum(main.unique_detectors().values()), {unit for unit, _, _ in main.detectors()}
    baseline = baselines.get(main_layer)
    lead = (
        f"{len(units)} of the {len(main.iou)} units of `{main_layer}` overlap with one of {len(main.concepts)} "
        f"concepts by more than {main.detector_iou:g}; together they detect {unique} different ones."
    )
    if baseline is not None:
        found = sum(baseline.unique_detectors().values())
        lead += f" With random weights the same layer detects {found}: so many come about by chance on these images."
    report = Report(f"{unique} concepts detected by {network}", lead, kicker="interpretkit cnn dissect")
    numbers: dict[str, tuple[str | int | float, str]] = {
        "unique detectors": (unique, "concepts, summed over categories"),
        "counted by best category": (
            sum(main.unique_detectors("best").values()),
            "each unit detects one concept at most",
        ),
        "units that detect": (f"{len(units) / len(main.iou):.0%}", f"of {len(main.iou)}"),
        "median best IoU": (float(np.median(main.best()[1])), "over all units"),
    }
    if baseline is not None:
        numbers["with random weights"] = (
            sum(baseline.unique_detectors().values()),
            "unique detectors of the same layer",
        )
    report.add_numbers(numbers)
    if len(dissections) > 1 or baselines:
        report.add_section(
            "Layers",
            "Unique detectors: how many concepts of a category some unit of the layer detects.",
            table=[
                {
                    "layer": layer,
                    "weights": name,
                    "units": len(found.iou),
                    **found.unique_detectors(),
                    "summed": sum(found.unique_detectors().values()),
                    "best category": sum(found.unique_detectors("best").values()),
                }
                for layer in dissections
                for name, found in (("trained", dissections[layer]), ("random", baselines.get(layer)))
                if found is not None
            ],
        )
    for layer, dissection in dissections.items():
        report.add_section(f"Detectors in {layer}")
        report.add_figures(
            (detectors_figure(dissection), f"How many units of `{layer}` detect each concept.")
        )
        if layer in baselines:
            picture = comparison_figure(dissection, baselines[layer])
            report.add_figures((picture, "The same network, trained and untrained, on the same images."))
            if sum(baselines[layer].unique_detectors().values()) > _CHANCE * len(dissection.concepts):
                report.add_note(
                    "So many units with random weights cannot mean anything: on few images, rare concepts are matched "
                    "by chance. More images (`--images`) leave fewer such detectors.",
                    kind="warning",
                )
        drawn = [
            (figure, f"Best detectors of the category `{category}`.")
            # Pictures of like height beside each other leave no empty halves of frames.
            for category, figure in sorted(
                figures.get(layer, {}).items(), key=lambda item: -item[1].get_figheight()
            )
        ]
        if drawn:
            report.add_figures(*drawn)
        rows = sorted(dissection.units_table(), key=lambda row: -float(str(row["iou"])))
        report.add_table(
            [
                {key: row[key] for key in ("unit", "concept", "category", "iou", "detector", "threshold")}
                for row in rows[:50]
            ],
            "The 50 units with the largest IoU; `units.csv` holds all.",
            formats={"iou": ".3f", "threshold": ".3g"},
        )
    report.add_section(
        "How it is measured",
        "A unit is active where its map, interpolated bilinearly between the centres of the receptive fields, exceeds "
        f"the value that {share:.1%} of all its positions in all images exceed. Its IoU with a concept is the number "
        "of pixels that both cover, over those that either covers, summed over the images that contain the concept's "
        f"category. {data}. Network dissection: Bau and others, CVPR 2017.",
    )
    worst = max(float(found.threshold_error.max()) for found in dissections.values())
    if worst > 0:
        report.add_note(f"The thresholds' share of positions is certain up to {worst:.2g} of all positions.")
    return report


def _best_follower(result: LocationInstability) -> str:
    """Say which unit follows which part best, or why none is named."""
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


def instability_report(
    results: Mapping[str, LocationInstability],
    peaks: Mapping[str, Peaks],
    parts: Mapping[str, PartInterpretability],
    network: Network,
    images: PartImages,
    landmarks: np.ndarray,
    *,
    data: str,
) -> Report:
    """Return the report of a measurement of location instability.

    Parameters
    ----------
    results, peaks : mapping
        From layer to what was found there.
    parts : mapping
        From layer to its part interpretability; empty where the data have no masks.
    network : Network
        The network.
    images : PartImages
        The images.
    landmarks : ndarray of float, (n, parts, 2)
        In pixels of the network's inputs.
    data : str
        What the images are.
    """
    layer = list(results)[-1]
    result = results[layer]
    units, best = result.best_tracking()
    steadier = result.mean_instability < result.mean_constant_centre
    lead = (
        f"The units of `{layer}` keep their distance from parts to {result.mean_instability:.3f} of the diagonal. A "
        f"unit that always fired at the centre would have {result.mean_constant_centre:.3f}, "
        f"{'more' if steadier else 'less'}; so the number says little unless units follow the parts. "
        + _best_follower(result)
    )
    report = Report(
        f"Do units of {network.name} stay with parts?", lead, kicker="interpretkit cnn instability"
    )
    report.add_numbers(
        {
            "location instability": (f"{result.mean_instability:.3f}", "mean of units, parts, categories"),
            "always the centre": (f"{result.mean_constant_centre:.3f}", "what a unit that never moves has"),
            "best constant position": (f"{result.mean_best_constant:.3f}", "chosen on these very images"),
            "best tracking R²": (
                round(result.best_tracking_r2, 2) if result.enough.any() else "too few images",
                f"1 follows, 0 stands still; the best of {result.tracking.shape[2]} units",
            ),
        }
    )
    if parts:
        report.add_numbers(
            {
                "part interpretability": (
                    f"{parts[layer].mean:.3f}",
                    f"parts of another image: {parts[layer].mean_displaced:.3f}",
                )
            }
        )
    report.add_section(
        "Layers",
        table=[
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
        ],
        table_caption=_COLUMNS_SAY
        + (" Part interpretability, and that for the parts of another image." if parts else ""),
        formats=_FORMATS | {"parts": ".3f", "displaced": ".3f"},
    )
    drawn = [(instability_figure(result), "Instability of each unit, mean over categories and parts.")]
    if not np.isnan(best).all():
        hidden = np.isnan(best)[..., None]
        judged = replace(
            result,
            instability=np.where(hidden, np.nan, result.instability),
            tracking=np.where(hidden, np.nan, result.tracking),
        )
        drawn.append(
            (
                tracking_figure(judged),
                f"Each unit with the part that it tracks best, of those that {FEWEST} images show. Low instability is "
                "no tracking.",
            )
        )
    report.add_section(f"Units of {layer}", figures=drawn)
    order = np.argsort(-np.nan_to_num(best, nan=-np.inf), axis=None)[:3]
    figures = []
    for place in order:
        c, p = np.unravel_index(place, best.shape)
        if np.isnan(best[c, p]):
            continue
        category, part, unit = result.category_names[c], result.part_names[p], int(units[c, p])
        title = f"unit {unit} and the {category}'s {part}: R² {best[c, p]:.2f}".replace("-", "−")
        rows = np.flatnonzero(images.categories == c)
        figures.append(
            (
                followed_part(network, images, peaks[layer], landmarks, rows, unit, int(p), title),
                f"Ring: the {part}. Cross: where unit {unit} is strongest. Its strongest images of a {category}.",
            )
        )
    if figures:
        report.add_section("The best followers", figures=figures)
    if not np.isnan(best).all() and best.size > 1:
        rows = np.flatnonzero(~np.isnan(best).all(axis=1))
        columns = np.flatnonzero(~np.isnan(best).all(axis=0))
        report.add_figures(
            (
                heatmap(
                    np.clip(best, -1, 1)[np.ix_(rows, columns)],
                    [result.category_names[row] for row in rows],
                    [result.part_names[column] for column in columns],
                    label="best tracking R² (below −1 as −1)",
                    centre=0,
                ),
                "The R² of the best unit for each part.",
            )
        )
    report.add_section(
        "Parts",
        # Narrower than the table in the file, so that it needs no scrolling.
        table=[
            {
                "category": row["category"],
                "part": row["part"],
                "images": row["images"],
                "instability": row["instability"],
                "centre": row["constant centre"],
                "constant": row["best constant"],
                "best R²": row["best tracking R²"],
                "median R²": row["median tracking R²"],
            }
            for row in result.table()
            if row["images"]
        ],
        table_caption=_COLUMNS_SAY + " `parts.csv` holds more.",
        formats=_FORMATS,
    )
    report.add_section(
        "How it is measured",
        f"For each unit, category and part, over the {result.top} images with the part that excite the unit most: the "
        "standard deviation of the distance between the part and the centre of the receptive field of the strongest "
        "position, over the image's diagonal (Zhang, Wu, Zhu, CVPR 2018). Tracking is 1 − tr Var(p − p̂) ÷ tr Var(p) "
        f"over the same images. {data}.",
    )
    return report
