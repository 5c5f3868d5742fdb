"""Pictures: heat laid over photographs, rows of images, and the sheet that compares methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from interpretkit.attribution.titles import method_title
from interpretkit.visualization import new_figure, style
from interpretkit.visualization.style import INK, MUTED

# Methods that speak of single pixels leave speckles, which an eye cannot read; so far they are blurred when drawn.
BLUR = 0.014
# The strongest hundredth of the pixels would otherwise leave all the others pale.
BRIGHTEST = 99.0
# What these give are gradients and signals of pixels, no shares of the output.
UNSIGNED = (
    "saliency", "guided_backprop", "deconvnet", "smoothgrad", "patternnet", "noise_tunnel", "neuron_gradient",
    "neuron_guided_backprop", "neuron_deconvnet",
)  # fmt: skip
_WARM = np.array([0.84, 0.10, 0.05])
_COLD = np.array([0.02, 0.30, 0.70])


@dataclass(frozen=True)
class Explained:
    """An image with what methods say about it.

    Attributes
    ----------
    name : str
        Name of the image.
    pixels : ndarray of float, (h, w, 3)
        What the network saw, in 0 … 1.
    target : str
        Name of the output that is explained.
    probability : float
        Probability of that output.
    values : mapping of str to ndarray of float, (c, h, w)
        The attribution of each method.
    note : str
        A second line about the image, such as what the network took it for.
    """

    name: str
    pixels: NDArray[np.floating]
    target: str
    probability: float
    values: Mapping[str, NDArray[np.floating]]
    note: str = ""


def heat(values: ArrayLike, *, signed: bool = True) -> NDArray[np.float64]:
    """Return an attribution ``(c, h, w)`` as heat ``(h, w)`` in −1 … 1: summed, blurred a little, and scaled.

    If it is not `signed`, only the size of the values counts, as with gradients, whose sign says which way a pixel
    would have to change.
    """
    return scaled_heat(values, signed=signed)[0]


def scaled_heat(values: ArrayLike, *, signed: bool = True) -> tuple[NDArray[np.float64], float]:
    """Return the same, and what 1 stands for: of the blurred map, what a hundredth of the pixels exceeds."""
    given = np.asarray(values, dtype=np.float64)
    summed = (given if signed else np.abs(given)).sum(0)
    blurred = gaussian_filter(summed, BLUR * summed.shape[1]) if len(given) > 1 else summed
    strong = float(np.percentile(np.abs(blurred), BRIGHTEST)) or float(np.abs(blurred).max())
    return (np.clip(blurred / strong, -1, 1), strong) if strong > 0 else (np.zeros_like(blurred), 0.0)


def overlay(pixels: ArrayLike, warmth: ArrayLike) -> NDArray[np.float64]:
    """Return a picture ``(h, w, 3)``, greyed, with heat ``(h, w)`` over it: red for, blue against."""
    image, signed = np.asarray(pixels, dtype=np.float64), np.asarray(warmth, dtype=np.float64)
    grey = (image @ [0.299, 0.587, 0.114])[..., None].repeat(3, 2)
    ground = 0.25 + 0.75 * grey
    cover = 0.88 * np.abs(signed)[..., None] ** 1.1
    colour = np.where(signed[..., None] > 0, _WARM, _COLD)
    return np.clip(ground * (1 - cover) + colour * cover, 0, 1)


def comparison_sheet(rows: Sequence[Explained], *, title: str = "") -> Figure:
    """Draw images with a column for each method.

    Parameters
    ----------
    rows : sequence of Explained
        All with the same methods.
    title : str
        Above the sheet.
    """
    methods = list(rows[0].values)
    # As wide as a page, where the letters can still be read, unless the pictures would be too small.
    side = min(max(10.5 / (len(methods) + 1), 1.5), 2.6)
    with style():
        figure = new_figure(side * (len(methods) + 1), (side + 0.42) * len(rows) + (0.5 if title else 0.2))
        axes = figure.subplots(len(rows), len(methods) + 1, squeeze=False)
        for line, row in zip(axes, rows, strict=True):
            _picture(line[0], row.pixels)
            line[0].set_xlabel(
                _shortened(row.target, int(11 * side)) + f"  {percent(row.probability)}",
                fontsize=9.5,
                color=INK,
                labelpad=4,
            )
            if row.note:
                line[0].annotate(
                    _shortened(row.note, int(15 * side)), (0.5, 0), (0, -17), xycoords="axes fraction",
                    textcoords="offset points", ha="center", va="top", fontsize=8, color=MUTED,
                )  # fmt: skip
            for cell, method in zip(line[1:], methods, strict=True):
                _picture(cell, overlay(row.pixels, heat(row.values[method], signed=method not in UNSIGNED)))
        for cell, name in zip(axes[0], ["image", *methods], strict=True):
            cell.set_title(method_title(name), loc="center", fontsize=10)
        if title:
            figure.suptitle(title, fontsize=12.5, fontweight="bold", color=INK, x=0.012, ha="left")
    return figure


def gallery(
    rows: Mapping[str, Sequence[tuple[ArrayLike, str]]], *, side: float = 1.7, title: str = ""
) -> Figure:
    """Draw rows of pictures, each with a line under it.

    Parameters
    ----------
    rows : mapping of str to sequence of (picture, text)
        The name of each row, and its pictures ``(h, w, 3)`` in 0 … 1 or ``(h, w)``, drawn in viridis. Rows of a
        single picture stand side by side.
    side : float
        Side of a picture, inches.
    title : str
        Above them.
    """
    widest = max(len(pictures) for pictures in rows.values())
    if widest == 1 and len(rows) > 1:
        return _side_by_side({name: pictures[0] for name, pictures in rows.items()}, side, title)
    with style():
        figure = new_figure(side * widest + 1.2, (side + 0.4) * len(rows) + (0.45 if title else 0.1))
        axes = figure.subplots(len(rows), widest, squeeze=False)
        for line, (name, pictures) in zip(axes, rows.items(), strict=True):
            for cell in line[len(pictures) :]:
                cell.set_axis_off()
            for cell, (picture, text) in zip(line, pictures, strict=False):
                _picture(cell, picture)
                cell.set_xlabel(text, fontsize=8.5, color=INK, labelpad=3)
            line[0].set_ylabel(
                name,
                fontsize=9.5,
                rotation=0,
                ha="right",
                va="center",
                labelpad=8,
                color=INK,
                fontweight="bold",
            )
        if title:
            figure.suptitle(title, fontsize=12, fontweight="bold", color=INK, x=0.012, ha="left")
    return figure


def _side_by_side(pictures: Mapping[str, tuple[ArrayLike, str]], side: float, title: str) -> Figure:
    with style():
        figure = new_figure((side + 0.3) * len(pictures), side + 0.9 + (0.45 if title else 0))
        axes = figure.subplots(1, len(pictures), squeeze=False)[0]
        for cell, (name, (picture, text)) in zip(axes, pictures.items(), strict=True):
            _picture(cell, picture)
            cell.set_title(name.replace("\n", " "), loc="center", fontsize=9.5)
            cell.set_xlabel(text, fontsize=8.5, color=INK, labelpad=3)
        if title:
            figure.suptitle(title, fontsize=12, fontweight="bold", color=INK, x=0.012, ha="left")
    return figure


def relief(projection: ArrayLike) -> NDArray[np.float64]:
    """Return a projection ``(3, h, w)`` as a picture ``(h, w, 3)`` about grey, the strongest pixels at the ends."""
    picture = np.asarray(projection, dtype=np.float64).transpose(1, 2, 0)
    strong = float(np.percentile(np.abs(picture), 99.5)) or 1.0
    return np.clip(0.5 + 0.5 * picture / strong, 0, 1)


def _picture(axes: Axes, picture: ArrayLike) -> None:
    axes.imshow(np.clip(np.asarray(picture), 0, None), interpolation="bilinear")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def percent(share: float) -> str:
    """Return a probability in words of few digits, never as 0 % or 100 % unless it is."""
    if 0.005 <= share < 0.995 or share in (0, 1):
        return f"{share:.0%}"
    return "<0.01%" if share < 0.0001 else ">99.99%" if share >= 0.9999 else f"{share:.2%}"


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
