"""A sheet of small pictures, to look at a set of images and its annotations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cnn_interp.images.concept_images import ConceptImages
from cnn_interp.images.part_images import PartImages
from cnn_interp.images.sets import Images, LabelledImages
from interpretkit.errors import InputError
from interpretkit.visualization import colour_of, marker_of, new_figure, style

# Inches of a picture, and of the line for its title and of one line of the key.
_PICTURE, _LINE = 1.35, 0.2
_KEY_COLUMNS = 5
_MARK: dict[str, Any] = {"markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.9}


def contact_sheet(
    images: Images,
    indices: Sequence[int] | None = None,
    *,
    columns: int = 6,
    landmarks: bool = True,
    masks: bool = False,
    titles: bool = True,
) -> Figure:
    """Draw some images of a set side by side, with what is annotated.

    Parameters
    ----------
    images : Images
        Images of any kind.
    indices : sequence of int, optional
        Which to draw; by default the first 24.
    columns : int
        Pictures in a row.
    landmarks : bool
        Whether to mark the parts of a :class:`PartImages`, explained in a key below.
    masks : bool
        Whether to tint the parts of a :class:`PartImages` by their masks, or the objects of a
        :class:`ConceptImages`.
    titles : bool
        Whether to write an image's category above it, where there is one.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If there is nothing to draw, or masks are asked for and there are none.
    """
    chosen = list(range(min(len(images), 24))) if indices is None else [int(index) for index in indices]
    if not chosen or columns < 1:
        raise InputError(f"{len(chosen)} images in {columns} columns: expected at least one of each")
    if masks and not (
        isinstance(images, ConceptImages) or (isinstance(images, PartImages) and images.has_masks)
    ):
        raise InputError(f"{images.name}: has no masks to draw")
    parts = isinstance(images, PartImages) and landmarks
    shown = _shown_parts(images, chosen) if parts and isinstance(images, PartImages) else []
    rows = -(-len(chosen) // columns)
    key_lines = -(-len(shown) // _KEY_COLUMNS)
    height = rows * (_PICTURE + (_LINE if titles else 0)) + key_lines * _LINE + (0.1 if shown else 0)
    with style():
        figure = new_figure(columns * _PICTURE, height)
        axes = figure.subplots(rows, columns, squeeze=False)
        for place in axes.ravel():
            place.axis("off")
        for place, index in zip(axes.ravel(), chosen, strict=False):
            picture = images.image(index)
            place.imshow(_tinted(images, index, picture) if masks else picture)
            place.set_xlim(-0.5, picture.shape[1] - 0.5)
            place.set_ylim(picture.shape[0] - 0.5, -0.5)
            if titles:
                place.set_title(_title(images, index), fontsize=7.5, pad=2, fontweight="normal")
            for number, part in enumerate(shown):
                if isinstance(images, PartImages) and images.annotated[index, part]:
                    row, column = images.landmarks[index, part]
                    place.plot(column, row, marker_of(number), color=colour_of(number), **_MARK)
        if shown and isinstance(images, PartImages):
            handles = [
                Line2D(
                    [],
                    [],
                    linestyle="",
                    marker=marker_of(k),
                    color=colour_of(k),
                    label=images.part_names[part],
                )
                for k, part in enumerate(shown)
            ]
            figure.legend(
                handles=handles,
                loc="outside lower center",
                ncols=_KEY_COLUMNS,
                fontsize=7.5,
                handletextpad=0.2,
            )
    return figure


def _shown_parts(images: PartImages, chosen: Sequence[int]) -> list[int]:
    """Return the parts that have a landmark in some image."""
    return np.flatnonzero(images.annotated[chosen].any(axis=0)).tolist()


def _title(images: Images, index: int) -> str:
    if isinstance(images, PartImages):
        category = int(images.categories[index])
        return images.category_names[category] if category >= 0 else "negative"
    if isinstance(images, LabelledImages):
        label = int(images.labels[index])
        return images.category_names[label] if images.category_names else str(label)
    if isinstance(images, ConceptImages):
        found = images.concepts(index).get("object", ())
        numbers = {int(n) for entry in found for n in np.unique(np.asarray(entry)) if n}
        return ", ".join(images.by_number[number].name for number in sorted(numbers))[:28]
    return ""


def _tinted(images: Images, index: int, picture: np.ndarray) -> np.ndarray:
    """Return a picture with its masks laid over it, each in a colour of its own."""
    height, width = picture.shape[:2]
    if isinstance(images, PartImages):
        layers = dict(enumerate(images.masks(index)))
    elif isinstance(images, ConceptImages):
        found = images.masks(index, (height, width))
        layers = {n: mask for n, mask in found.items() if images.by_number[n].category == "object"}
    else:
        layers = {}
    tinted = picture.astype(np.float32)
    for number, mask in layers.items():
        tint = np.array([int(colour_of(number)[k : k + 2], 16) for k in (1, 3, 5)], dtype=np.float32)
        tinted[mask] = 0.45 * tinted[mask] + 0.55 * tint
    return np.rint(tinted).astype(np.uint8)
