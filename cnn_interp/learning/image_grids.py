"""Figures of small grey images in rows and columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from interpretkit.errors import InputError
from interpretkit.visualization import new_figure, style

# Inches of a picture at most, of the whole figure, and of a title.
_PICTURE, _WIDEST, _TITLE = 0.72, 9.0, 0.3
# Pixels between pictures.
_GAP = 2


def image_grid(
    images: ArrayLike,
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    title: str = "",
    label: str = "",
    limits: tuple[float, float] | None = None,
    colours: str = "gray",
) -> Figure:
    """Draw grey images in a grid.

    Parameters
    ----------
    images : array_like, (r, c, h, w)
        The images; a picture with NaN anywhere is left out.
    rows, columns : sequence of str, (r,) and (c,), optional
        What stands beside every row and above every column.
    title : str
        Above the figure.
    label : str
        What the values are, beside a bar of colours; no bar without it.
    limits : (float, float), optional
        The values drawn darkest and brightest; by default the least and the greatest.
    colours : str
        A colour map of matplotlib.

    Raises
    ------
    InputError
        If the shapes do not fit.
    """
    grid = np.asarray(images, dtype=np.float32)
    if grid.ndim != 4 or 0 in grid.shape:
        raise InputError(f"images: shape {grid.shape}; expected (rows, columns, height, width)")
    if (rows and len(rows) != grid.shape[0]) or (columns and len(columns) != grid.shape[1]):
        raise InputError(
            f"{len(rows)} names of rows, {len(columns)} of columns: images of shape {grid.shape}"
        )
    finite = grid[np.isfinite(grid)]
    low, high = limits or (float(finite.min()), float(finite.max()))
    size = min(_PICTURE, _WIDEST / grid.shape[1])
    height, width = grid.shape[2] + _GAP, grid.shape[3] + _GAP
    # One picture of all of them is drawn many times faster than as many pictures.
    mosaic = np.full((grid.shape[0] * height - _GAP, grid.shape[1] * width - _GAP), np.nan, dtype=np.float32)
    for row, column in np.ndindex(grid.shape[:2]):
        top, left = row * height, column * width
        if np.isfinite(grid[row, column]).all():
            mosaic[top : top + grid.shape[2], left : left + grid.shape[3]] = grid[row, column]
    with style():
        beside = 0.09 * max((len(name) for name in rows), default=0)
        figure = new_figure(
            grid.shape[1] * size + beside + (1.0 if label else 0.1),
            grid.shape[0] * size * height / width + (_TITLE if title else 0.05) + (_TITLE if columns else 0),
        )
        axes = figure.subplots()
        drawn = axes.imshow(mosaic, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize=8, labeltop=True, labelbottom=False)
        middle = [(grid.shape[k] - 1) / 2 for k in (2, 3)]
        axes.set_yticks([middle[0] + row * height for row in range(len(rows))], rows)
        axes.set_xticks([middle[1] + column * width for column in range(len(columns))], columns)
        if label:
            bar = figure.colorbar(drawn, ax=axes, pad=0.02, shrink=0.8)
            bar.set_label(label)
            bar.outline.set_visible(False)  # type: ignore[operator]
        if title:
            axes.set_title(title)
    return figure
