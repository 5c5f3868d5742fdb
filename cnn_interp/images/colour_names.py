"""The eleven basic colour names, for every colour."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from skimage.color import rgb2lab

from cnn_interp.images.sets import Picture

# Examples of each, red, green and blue from 0 to 255: the focal colour first, then what is named so too.
EXAMPLES: Mapping[str, tuple[tuple[int, int, int], ...]] = MappingProxyType(
    {
        "black": ((0, 0, 0), (22, 22, 24)),
        "blue": ((20, 60, 200), (30, 40, 110), (70, 120, 190), (110, 170, 225)),
        "brown": ((110, 65, 30), (70, 45, 25), (150, 105, 70)),
        "green": ((30, 140, 50), (25, 75, 40), (110, 170, 80), (100, 120, 50), (20, 110, 100)),
        "grey": ((128, 128, 128), (75, 75, 78), (180, 180, 182)),
        "orange": ((240, 125, 20), (215, 100, 40), (245, 170, 100)),
        "pink": ((245, 140, 180), (250, 190, 200), (225, 90, 140)),
        "purple": ((120, 40, 150), (75, 40, 100), (165, 120, 200)),
        "red": ((205, 25, 30), (140, 20, 25), (235, 70, 60)),
        "white": ((255, 255, 255), (228, 228, 230)),
        "yellow": ((250, 220, 40), (240, 225, 130), (205, 175, 40)),
    }
)
NAMES = tuple(EXAMPLES)
_BITS = 6


@cache
def _table() -> NDArray[np.uint8]:
    """Return the number of the name of every colour of six bits a channel, ``(64, 64, 64)``."""
    levels = (np.arange(1 << _BITS) + 0.5) / (1 << _BITS)
    colours = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
    examples = np.array([colour for group in EXAMPLES.values() for colour in group]) / 255
    owner = np.repeat(np.arange(len(NAMES)), [len(group) for group in EXAMPLES.values()])
    nearest = KDTree(rgb2lab(examples[None])[0]).query(rgb2lab(colours).reshape(-1, 3))[1]
    return owner[nearest].reshape(colours.shape[:3]).astype(np.uint8)


def colour_names(picture: Picture) -> NDArray[np.uint8]:
    """Return for each pixel the number of its colour's name in ``NAMES``, ``(h, w)``.

    The name is that of the nearest example in CIELAB; pixels are rounded to six bits a channel. The names are those
    of Berlin and Kay (Basic Color Terms, 1969), the examples this project's own.
    """
    red, green, blue = np.moveaxis(picture >> (8 - _BITS), -1, 0)
    return _table()[red, green, blue]
