"""Pictures of trained filters: where they respond in their strongest images, and whether they follow parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cnn_interp.images.batches import resized_to
from cnn_interp.learning.filter_study import FilterTask, TrainedFilters
from cnn_interp.metrics.location_instability import LocationInstability
from cnn_interp.metrics.pictures import outlined, unit_figure
from interpretkit.visualization import colour_of, new_figure, style

# A filter's region is where its map exceeds this share of its largest value there.
_REGION = 0.5
_GAP = 4


def filter_figure(
    task: FilterTask, trained: TrainedFilters, filters: Sequence[tuple[int, str]], *, columns: int = 6
) -> Figure:
    """Draw the test images of its category that excite each filter most, with the region in which it responds.

    Parameters
    ----------
    task : FilterTask
        On which the filters were trained.
    trained : TrainedFilters
        The filters.
    filters : sequence of (int, str)
        Their numbers and titles.
    columns : int
        How many images of each.
    """
    size = task.trunk.size
    rows, cols = (matrix.numpy() for matrix in task.maps.grid.interpolation((size, size)))
    labels = task.labels[task.test]
    strips = []
    for number, title in filters:
        own = np.flatnonzero(labels == trained.of_category[number])
        chosen = own[np.argsort(-trained.peaks.values[own, number], kind="stable")[:columns]]
        with torch.no_grad():
            device = task.trunk.device
            maps = trained.layers.filter_maps(task.maps.tensor(task.test[chosen], device))[:, number]
        tiles: list[NDArray[np.uint8]] = []
        gap = np.full((size, _GAP, 3), 255, dtype=np.uint8)
        for place, values in zip(chosen, maps.float().cpu().numpy(), strict=True):
            spread = rows @ values @ cols.T
            picture = resized_to(task.images.image(int(task.test[place])), size)
            tiles += [outlined(picture, spread > _REGION * max(float(spread.max()), 1e-9)), gap]
        strips.append((title, np.concatenate(tiles[:-1], axis=1)))
    return unit_figure(strips)


def followers_figure(results: Mapping[str, LocationInstability]) -> Figure:
    """Draw how well each filter of several networks follows the part that it follows best, against its instability."""
    with style():
        figure = new_figure(7.2, 4.2)
        axes = figure.subplots()
        low = 0.0
        for index, (name, result) in enumerate(results.items()):
            tracking = np.where(np.isnan(result.tracking), -np.inf, result.tracking)
            flat = tracking.reshape(-1, tracking.shape[2])
            best, units = flat.argmax(axis=0), np.arange(flat.shape[1])
            found = flat[best, units]
            steady = result.instability.reshape(flat.shape)[best, units]
            axes.scatter(steady, found, s=22, alpha=0.7, linewidths=0, color=colour_of(index), label=name)
            known = found[np.isfinite(found)]
            low = min(low, float(np.percentile(known, 5))) if len(known) else low
        some = next(iter(results.values()))
        axes.axvline(
            some.mean_constant_centre, color="0.5", linestyle="--", linewidth=1.2, label="always the centre"
        )
        axes.axhline(0, color="0.5", linewidth=1.0)
        axes.set_ylim(max(low, -3) - 0.1, 1.05)
        axes.set(xlabel="location instability for that part", ylabel="tracking R² of its best part")
        figure.legend(loc="outside lower left", ncols=2)
    return figure


def figures_of(
    rows: Sequence[Mapping[str, object]], names: Sequence[str], column: str
) -> NDArray[np.float64]:
    """Return a column's mean over the rows of each network, ``(names,)``; NaN where there is none."""
    found = np.full(len(names), np.nan)
    for place, name in enumerate(names):
        values = [row[column] for row in rows if row["network"] == name and column in row]
        if values:
            found[place] = float(np.mean(np.array(values, dtype=np.float64)))
    return found
