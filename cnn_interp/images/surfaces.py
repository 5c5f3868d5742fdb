"""Real photographs and surfaces at hand without a download, from scikit-image, scikit-learn and matplotlib."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import sklearn.datasets
from PIL import Image

from cnn_interp.images import files
from cnn_interp.images.sets import Picture

# Surfaces cut from the photographs: photograph, first row, first column, last row, last column (excluded).
SURFACES: dict[str, tuple[str, int, int, int, int]] = {
    "brick": ("brick", 0, 0, 512, 512),
    "grass": ("grass", 0, 0, 512, 512),
    "gravel": ("gravel", 0, 0, 512, 512),
    "wood": ("coffee", 60, 475, 395, 598),
    "fur": ("chelsea", 0, 50, 95, 345),
    "petals": ("flower", 120, 205, 320, 410),
    "foliage": ("china", 345, 5, 425, 300),
    "leaves": ("china", 310, 380, 425, 560),
    "sky": ("china", 5, 320, 150, 620),
    "dusk": ("rocket", 10, 250, 300, 300),
    "evening": ("rocket", 10, 465, 340, 550),
    "water": ("china", 222, 350, 300, 530),
    "stars": ("hubble_deep_field", 0, 0, 872, 1000),
    "concrete": ("motorcycle_left", 415, 40, 495, 300),
    "suit": ("astronaut", 300, 40, 500, 150),
    "tissue": ("ihc", 0, 0, 512, 512),
    "retina": ("retina", 350, 350, 1050, 1050),
    "moon": ("moon", 0, 0, 512, 512),
    "lawn": ("camera", 290, 310, 500, 500),
    "studio": ("hopper", 10, 375, 290, 505),
    "roof": ("china", 244, 80, 285, 340),
    "planks": ("motorcycle_left", 5, 105, 95, 170),
    "shelves": ("motorcycle_left", 0, 345, 250, 735),
    "print": ("page", 40, 5, 186, 380),
    "handwriting": ("text", 0, 0, 172, 448),
    "coins": ("coins", 0, 0, 303, 384),
    "glaze": ("coffee", 290, 110, 370, 330),
    "bokeh": ("flower", 10, 10, 380, 160),
}


@cache
def photograph(name: str) -> Picture:
    """Return a photograph of scikit-image by its file's name, or ``china``, ``flower``, ``hopper``.

    ``china`` and ``flower`` come with scikit-learn, ``hopper`` (Grace Hopper) with matplotlib. The array belongs to
    all callers and cannot be written to.

    Returns
    -------
    ndarray of uint8, (h, w, 3)
    """
    if name in ("china", "flower"):
        picture = np.asarray(sklearn.datasets.load_sample_image(f"{name}.jpg"), dtype=np.uint8).copy()
    else:
        hopper = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
        picture = np.array(files.read_image(hopper) if name == "hopper" else files.photograph(name))
    picture.flags.writeable = False
    return picture


@cache
def surface(name: str) -> Picture:
    """Return one of ``SURFACES``, uint8 ``(h, w, 3)``; it cannot be written to."""
    source, top, left, bottom, right = SURFACES[name]
    return photograph(source)[top:bottom, left:right]


def patch(
    picture: Picture,
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    zoom: tuple[float, float] = (0.35, 1),
) -> Picture:
    """Return a random piece of a picture at a given size, mirrored at random.

    Parameters
    ----------
    picture : ndarray of uint8, (h, w, 3)
        What to cut from.
    height, width : int
        Size of the piece returned.
    rng : numpy.random.Generator
        Decides on place, size and mirroring.
    zoom : tuple of float
        Least and greatest share of the largest piece of these proportions.
    """
    share = rng.uniform(*zoom)
    scale = min(picture.shape[0] / height, picture.shape[1] / width) * share
    top = rng.uniform(0, picture.shape[0] - height * scale)
    left = rng.uniform(0, picture.shape[1] - width * scale)
    box = (left, top, left + width * scale, top + height * scale)
    # Reducing by whole factors first makes resizing large pieces several times faster.
    piece = Image.fromarray(picture).resize(
        (width, height), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0
    )
    return np.asarray(piece)[:, :: 1 if rng.random() < 0.5 else -1]
