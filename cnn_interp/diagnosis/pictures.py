"""What the pictures of several checks are made of: images, what a network says of them, frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from interpretkit.visualization import new_figure, style
from interpretkit.visualization.style import INK

GOOD, BAD = "#009E73", "#D55E00"

Naming = Callable[[int], str]


def show(axes: Axes, picture: Tensor) -> None:
    """Draw pixels ``(1 or 3, h, w)`` with values in 0 … 1, without a frame."""
    values = picture.clamp(0, 1).permute(1, 2, 0).numpy()
    grey = values.shape[2] == 1
    drawn: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1} if grey else {}
    axes.imshow(values[..., 0] if grey else values, interpolation="nearest", **drawn)
    bare(axes)


def say(axes: Axes, text: str, *, changed: bool = False) -> None:
    """Write a line below a picture, in red if the network says something else there."""
    axes.set_xlabel(text, fontsize=9, color=BAD if changed else INK)


def verdict(probabilities: Tensor, name: Naming) -> str:
    """Return the most probable category of probabilities ``(c,)`` and how probable it is."""
    best = int(probabilities.argmax())
    called = name(best)
    return f"{called if len(called) < 22 else called[:20] + '…'} ({float(probabilities[best]):.0%})"


def picture_grid(
    pictures: Sequence[NDArray[np.uint8]],
    captions: Sequence[str],
    colours: Sequence[str],
    *,
    columns: int = 6,
) -> Figure:
    """Draw pictures in rows, each in a frame of its colour with a caption below."""
    rows = -(-len(pictures) // columns)
    with style():
        figure = new_figure(1.35 * columns, 1.75 * rows)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes[len(pictures) :]:
            axis.axis("off")
        for axis, picture, caption, colour in zip(axes, pictures, captions, colours, strict=False):
            framed(axis, picture, caption, colour)
    return figure


def framed(axis: Axes, picture: NDArray[np.uint8], caption: str, colour: str, size: float = 8) -> None:
    """Draw a picture in a frame of a colour, with a caption of a font size below."""
    axis.imshow(
        picture, cmap="gray", interpolation="nearest" if max(picture.shape[:2]) < 64 else "antialiased"
    )
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    axis.spines[:].set_visible(True)
    axis.spines[:].set_color(colour)
    axis.spines[:].set_linewidth(2)
    axis.set_xlabel(caption, fontsize=size, labelpad=3)


def bare(axis: Axes) -> None:
    """Take ticks, grid and frame away."""
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
