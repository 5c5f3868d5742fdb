"""Images in which concepts are labelled by pixel or as a whole, as network dissection asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnn_interp.images.sets import Images

LabelMap = NDArray[np.int32]
# For each category: label maps (h, w), in which 0 is no label, and labels of the whole image.
Concepts = Mapping[str, "tuple[LabelMap | int, ...]"]


@dataclass(frozen=True)
class Concept:
    """A concept that can be labelled.

    Attributes
    ----------
    number : int
        What stands for it in label maps; above 0.
    name : str
        What it is called.
    category : str
        The category that it belongs to (first); ``color``, ``object``, ``part``, ``texture``, ``material``,
        ``scene``, ``shape``.
    """

    number: int
    name: str
    category: str


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ConceptImages(Images):
    """Images with labelled concepts, in the manner of Broden.

    Attributes
    ----------
    labels : tuple of Concept
        All concepts; their numbers need not be dense.
    categories : tuple of str
        The categories in order.
    load_concepts : callable
        From an image's number in the source to its :data:`Concepts`; a category without labels in the image is
        left out or empty.
    map_size : tuple of int
        Height and width of the label maps in pixels; images may be larger.

    References
    ----------
    Bau, Zhou, Khosla, Oliva, Torralba: Network Dissection, CVPR 2017.
    """

    labels: tuple[Concept, ...]
    categories: tuple[str, ...]
    load_concepts: Callable[[int], Concepts] = field(repr=False)
    map_size: tuple[int, int]

    @cached_property
    def by_number(self) -> Mapping[int, Concept]:
        """The concepts by their numbers."""
        return {concept.number: concept for concept in self.labels}

    def concepts(self, index: int) -> Concepts:
        """Return the labels of image `index`: for each category label maps ``(h, w)`` or numbers of the whole image.

        Several maps of one category overlap where a pixel is labelled twice. Categories without labels there are
        empty.
        """
        found = self.load_concepts(self.number(index))
        return {category: tuple(found.get(category, ())) for category in self.categories}

    def label_maps(self, index: int, size: tuple[int, int] | None = None) -> dict[str, LabelMap]:
        """Return the labels of image `index` as maps, those of the whole image at every pixel.

        Parameters
        ----------
        index : int
            The image.
        size : tuple of int, optional
            Height and width that the maps are brought to, nearest pixel; by default `map_size`.

        Returns
        -------
        dict
            From category to int32 ``(k, h, w)``; 0 is no label, and k is 0 where the category has none.
        """
        height, width = size or self.map_size
        maps: dict[str, LabelMap] = {}
        for category, entries in self.concepts(index).items():
            stacked = np.zeros((len(entries), height, width), dtype=np.int32)
            for place, entry in enumerate(entries):
                stacked[place] = entry if isinstance(entry, int) else _nearest(entry, height, width)
            maps[category] = stacked
        return maps

    def masks(self, index: int, size: tuple[int, int] | None = None) -> dict[int, NDArray[np.bool_]]:
        """Return where each concept of image `index` is, from its number to bool ``(h, w)``."""
        masks: dict[int, NDArray[np.bool_]] = {}
        for stacked in self.label_maps(index, size).values():
            for number in np.unique(stacked):
                if number:
                    mask = (stacked == number).any(axis=0)
                    masks[int(number)] = masks[int(number)] | mask if int(number) in masks else mask
        return masks


def _nearest(labels: LabelMap, height: int, width: int) -> LabelMap:
    if labels.shape == (height, width):
        return labels
    picture = Image.fromarray(labels.astype(np.int32))
    return np.asarray(picture.resize((width, height), Image.Resampling.NEAREST))
