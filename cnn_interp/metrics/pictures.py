"""Pictures of units: where they are active in their strongest images, and where parts and strongest positions are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from skimage.segmentation import find_boundaries

from cnn_interp.images.batches import BATCH, network_inputs, resized_to
from cnn_interp.images.sets import Images
from cnn_interp.metrics.dissection import Dissection
from cnn_interp.metrics.location_instability import LocationInstability, Peaks
from cnn_interp.networks.network import Network
from interpretkit.networks.recording import layer_outputs
from interpretkit.visualization import colour_of, new_figure, style

OUTLINE = (255, 214, 10)
# What lies outside a unit's mask keeps this much of its brightness.
DIMMED = 0.35
_GAP = 4


def outlined(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return a picture ``(h, w, 3)`` that is dimmed outside a mask ``(h, w)``, whose outline is drawn."""
    shown = np.where(mask[..., None], picture, picture * DIMMED + 255 * (1 - DIMMED) * 0.15).astype(np.uint8)
    shown[find_boundaries(mask, mode="thick")] = OUTLINE
    return shown


def unit_pictures(
    network: Network, images: Images, dissection: Dissection, units: Sequence[int], *, columns: int = 6
) -> dict[int, NDArray[np.uint8]]:
    """Return the strongest images of some units, side by side, with the regions in which they are active.

    Parameters
    ----------
    network : Network
        The one that was dissected.
    images : Images
        Those it was dissected on.
    dissection : Dissection
        Dissection of one layer.
    units : sequence of int
        Their numbers.
    columns : int
        How many images of each.

    Returns
    -------
    dict
        From unit to its strip, uint8 ``(side, width, 3)``.
    """
    shown = {unit: dissection.top_images[unit, :columns].tolist() for unit in units}
    wanted = sorted({image for some in shown.values() for image in some})
    rows, cols = (matrix.numpy() for matrix in dissection.grid.interpolation((network.size, network.size)))
    maps: dict[tuple[int, int], NDArray[np.float32]] = {}
    for start in range(0, len(wanted), BATCH):
        some = wanted[start : start + BATCH]
        inputs = network_inputs(network, images, some)
        output = layer_outputs(network.module, inputs, [dissection.layer])[1][dissection.layer].float().cpu()
        for place, image in enumerate(some):
            for unit in units:
                if image in shown[unit]:
                    maps[unit, image] = output[place, unit].numpy()
    pictures = {image: resized_to(images.image(image), network.size) for image in wanted}
    gap = np.full((network.size, _GAP, 3), 255, dtype=np.uint8)
    strips = {}
    for unit in units:
        tiles: list[NDArray[np.uint8]] = []
        for image in shown[unit]:
            mask = rows @ maps[unit, image] @ cols.T > dissection.thresholds[unit]
            tiles += [outlined(pictures[image], mask), gap]
        strips[unit] = np.concatenate(tiles[:-1], axis=1)
    return strips


def unit_figure(pictures: Sequence[tuple[str, NDArray[np.uint8]]]) -> Figure:
    """Draw strips of images ``(h, w, 3)`` under each other, each with its title."""
    tallest = max(strip.shape[0] / strip.shape[1] for _, strip in pictures)
    with style():
        figure = new_figure(5.4, (5.4 * tallest + 0.32) * len(pictures))
        every = np.atleast_1d(figure.subplots(len(pictures), 1)).tolist()
        for axes, (title, strip) in zip(every, pictures, strict=True):
            axes.imshow(strip)
            axes.set_title(title, fontsize=10.5, fontweight="normal", pad=3)
            axes.axis("off")
    return figure


def detectors_figure(dissection: Dissection, *, most: int = 40) -> Figure:
    """Draw how many units detect each concept, by category, the most frequent first."""
    counts: dict[int, int] = {}
    for _, column, _ in dissection.detectors():
        counts[column] = counts.get(column, 0) + 1
    unique = dissection.unique_detectors()
    order = sorted(
        counts,
        key=lambda column: (
            dissection.categories.index(dissection.concepts[column].category),
            -counts[column],
        ),
    )
    left_out = len(order) - most
    if left_out > 0:
        kept = set(sorted(order, key=lambda column: -counts[column])[:most])
        order = [column for column in order if column in kept]
    with style():
        figure = new_figure(max(5.4, 1.6 + 0.24 * len(order)), 3.9)
        axes = figure.subplots()
        handles = []
        for index, category in enumerate(dissection.categories):
            places = [p for p, c in enumerate(order) if dissection.concepts[c].category == category]
            axes.bar(
                places,
                [counts[order[place]] for place in places],
                color=colour_of(index),
            )
            among = sum(concept.category == category for concept in dissection.concepts)
            # By a patch of its own, for a category none of whose concepts is drawn has no bar to take the colour from.
            handles.append(
                Patch(color=colour_of(index), label=f"{category}: {unique[category]} of {among} concepts")
            )
        names = [dissection.concepts[column].name for column in order]
        axes.set_xticks(range(len(order)), names, rotation=60, ha="right", rotation_mode="anchor")
        axes.grid(axis="x", visible=False)
        axes.set(ylabel="units that detect it")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        if left_out > 0:
            axes.set_title(f"the {most} most frequent", fontsize=10, fontweight="normal")
        figure.legend(handles=handles, loc="outside lower left", ncols=3)
    return figure


def comparison_figure(pretrained: Dissection, random: Dissection) -> Figure:
    """Draw the unique detectors of each category with trained and with random weights."""
    with style():
        figure = new_figure(9.6, 3.0)
        axes = figure.subplots()
        places = np.arange(len(pretrained.categories))
        for offset, (name, dissection) in enumerate(
            {"trained": pretrained, "random weights": random}.items()
        ):
            counts = list(dissection.unique_detectors().values())
            bars = axes.bar(
                places + 0.4 * (offset - 0.5),
                counts,
                0.38,
                color=colour_of(0 if offset == 0 else 7),
                label=f"{name}: {sum(counts)}",
            )
            axes.bar_label(bars, fontsize=9)
        axes.set_xticks(places, pretrained.categories)
        axes.set(ylabel="unique detectors")
        axes.grid(axis="x", visible=False)
        axes.legend()
    return figure


def instability_figure(result: LocationInstability) -> Figure:
    """Draw how the units' instability is distributed, with the constant positions as lines."""
    with np.errstate(invalid="ignore"):
        by_unit = np.nanmean(result.instability, axis=(0, 1))
    with style():
        figure = new_figure(5.4, 3.9)
        axes = figure.subplots()
        # All from zero, for units that agree up to rounding leave no range to divide.
        span = (0, float(np.nanmax(by_unit)) or 1.0)
        axes.hist(by_unit, bins=40, range=span, color=colour_of(0), alpha=0.75, label=f"{len(by_unit)} units")
        lines = {
            "mean of the units": (result.mean_instability, colour_of(0), "-"),
            "always the centre": (result.mean_constant_centre, colour_of(1), "-"),
            "best constant position": (result.mean_best_constant, colour_of(1), "--"),
        }
        for name, (value, colour, dashes) in lines.items():
            axes.axvline(value, color=colour, linestyle=dashes, label=f"{name}: {value:.3f}")
        axes.set(xlabel="location instability (share of the diagonal)", ylabel="units")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(left=0)
        axes.grid(axis="x", visible=False)
        figure.legend(loc="outside lower left", ncols=2)
    return figure


def tracking_figure(result: LocationInstability) -> Figure:
    """Draw each unit's tracking of its best part against its instability for that part."""
    shown = ~np.isnan(result.instability).all(axis=2)
    tracking, instability = result.tracking[shown], result.instability[shown]
    best = np.where(np.isnan(tracking), -np.inf, tracking).argmax(axis=0)
    units = np.arange(tracking.shape[1])
    with style():
        figure = new_figure(5.4, 3.9)
        axes = figure.subplots()
        axes.scatter(instability[best, units], tracking[best, units], s=9, alpha=0.55, linewidths=0)
        axes.axhline(0, color=colour_of(1), linewidth=1.2, label="stands still: R² 0")
        axes.axhline(1, color=colour_of(2), linewidth=1.2, label="follows the part: R² 1")
        low = float(np.nanpercentile(tracking[best, units], 1))
        axes.set_ylim(max(low, -4) - 0.1, 1.1)
        axes.set(xlabel="location instability for that part", ylabel="tracking R² of the unit's best part")
        figure.legend(loc="outside lower left", ncols=2)
    return figure


def landmark_figure(
    pictures: Sequence[NDArray[np.uint8]],
    landmarks: NDArray[np.float64],
    positions: NDArray[np.float64],
    title: str,
) -> Figure:
    """Draw pictures with the part's landmark as a ring and the unit's strongest position as a cross, joined by a line.

    Parameters
    ----------
    pictures : sequence of ndarray, (h, w, 3)
        The pictures.
    landmarks, positions : ndarray of float, (n, 2)
        Row and column in each, px.
    title : str
        Above them.
    """
    columns = min(6, len(pictures))
    rows = -(-len(pictures) // columns)
    with style():
        figure = new_figure(7.2, 7.2 / columns * rows + 0.5)
        grid = np.atleast_2d(figure.subplots(rows, columns)).ravel()
        for axes in grid:
            axes.axis("off")
        for axes, picture, part, found in zip(grid.tolist(), pictures, landmarks, positions, strict=False):
            axes.imshow(picture)
            axes.plot(*np.stack([part, found])[:, ::-1].T, color="white", linewidth=1.1)
            axes.scatter(
                part[1], part[0], s=60, facecolors="none", edgecolors="#ffd60a", linewidths=1.8, zorder=3
            )
            axes.scatter(found[1], found[0], s=45, marker="x", color="#ff3b6b", linewidths=1.9, zorder=3)
        figure.suptitle(title, x=0.01, ha="left", fontsize=14)
    return figure


def followed_part(
    network: Network,
    images: Images,
    peaks: Peaks,
    landmarks: NDArray[np.float64],
    rows: NDArray[np.intp],
    unit: int,
    part: int,
    title: str,
    *,
    most: int = 12,
) -> Figure:
    """Draw a unit's strongest images among `rows` that show a part, with the part and the strongest position."""
    shown = rows[~np.isnan(landmarks[rows, part]).any(axis=1)]
    strongest = shown[np.argsort(-peaks.values[shown, unit], kind="stable")[:most]]
    pictures = [resized_to(images.image(int(row)), network.size) for row in strongest]
    return landmark_figure(pictures, landmarks[strongest, part], peaks.positions[strongest, unit], title)
