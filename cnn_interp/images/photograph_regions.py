"""What is to be seen in the photographs at hand: outlines of objects, parts and materials, drawn by hand.

Points are (x, y) in pixels of the photograph. Later regions lie before earlier ones of the same category; an object
hides the materials behind it unless it has one of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage.filters import sobel
from skimage.segmentation import watershed

from cnn_interp.images.surfaces import photograph

Points = tuple[tuple[float, float], ...]
# How many times finer outlines are drawn, for smooth edges of what is cut out.
_FINER = 4


@dataclass(frozen=True)
class Region:
    """One outline in a photograph.

    Attributes
    ----------
    category : str
        ``object``, ``part`` or ``material``.
    name : str
        What it shows.
    points : tuple of (x, y)
        Corners of a polygon; of an ellipse its centre and its half axes, two points.
    """

    category: str
    name: str
    points: Points


@dataclass(frozen=True)
class Cutout:
    """An object cut out of a photograph.

    Attributes
    ----------
    name : str
        The object.
    picture : ndarray of uint8, (h, w, 3)
        The photograph within the object's box.
    cover : ndarray of uint8, (h, w)
        How much of each pixel it covers, 0 to 255.
    labels : dict
        From category to names and label map: 0 is nothing, k the k-th name.
    """

    name: str
    picture: NDArray[np.uint8]
    cover: NDArray[np.uint8]
    labels: Mapping[str, tuple[tuple[str, ...], NDArray[np.uint8]]]


def _read() -> Mapping[str, tuple[Region, ...]]:
    content = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return MappingProxyType(
        {
            name: tuple(
                Region(category, label, tuple((x, y) for x, y in points))
                for category, label, points in regions
            )
            for name, regions in content.items()
        }
    )


# From photograph to its regions; the file holds for each a list of [category, name, points].
REGIONS = _read()
CATEGORIES = ("object", "part", "material")
# What lies behind all objects.
_BEHIND = ("sky", "water", "wood", "concrete", "grass")
# Objects that are the background of others, and keep the material that is drawn there.
_FURNITURE = ("table", "shelf")
# Objects that stand free enough to be cut out, with what stands on them or in them.
_FREE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "box": (), "camera": (), "cat": (), "cup": ("coffee",), "flag": (), "flower": (), "helmet": (),
        "motorcycle": (), "pagoda": (), "person": (), "plate": ("cup", "spoon", "coffee"), "rocket": (),
        "spoon": (),
    }
)  # fmt: skip


def region_names(category: str) -> tuple[str, ...]:
    """Return the names of all regions of a category, each once, in alphabetical order."""
    return tuple(sorted({r.name for regions in REGIONS.values() for r in regions if r.category == category}))


def _cover(region: Region, height: int, width: int) -> NDArray[np.uint8]:
    """Return how much of each pixel a region covers, 0 to 255."""
    canvas = Image.new("L", (width * _FINER, height * _FINER))
    pen = ImageDraw.Draw(canvas)
    points = [((x + 0.5) * _FINER, (y + 0.5) * _FINER) for x, y in region.points]
    if len(points) == 2:
        (x, y), (across, along) = points[0], region.points[1]
        pen.ellipse(
            (x - across * _FINER, y - along * _FINER, x + across * _FINER, y + along * _FINER), fill=255
        )
    else:
        pen.polygon(points, fill=255)
    return np.asarray(canvas.resize((width, height), Image.Resampling.BOX))


@cache
def label_planes(name: str) -> Mapping[str, tuple[tuple[str, ...], NDArray[np.uint8]]]:
    """Return for each category the names in a photograph, and which of them each pixel shows (from 1; 0 is none)."""
    height, width = photograph(name).shape[:2]
    regions = [(region, _cover(region, height, width) > 127) for region in REGIONS[name]]
    names: dict[str, list[str]] = {category: [] for category in CATEGORIES}
    planes = {category: np.zeros((height, width), dtype=np.uint8) for category in CATEGORIES}
    first = [(r, mask) for r, mask in regions if r.category == "material" and r.name in _BEHIND]
    rest = [(r, mask) for r, mask in regions if r.category != "material"]
    last = [(r, mask) for r, mask in regions if r.category == "material" and r.name not in _BEHIND]
    for region, mask in (*first, *rest, *last):
        known = names[region.category]
        known += [region.name] if region.name not in known else []
        planes[region.category][mask] = known.index(region.name) + 1
        if region.category == "object" and region.name not in _FURNITURE:
            planes["material"][mask] = 0
    return MappingProxyType({category: (tuple(names[category]), planes[category]) for category in CATEGORIES})


@cache
def cutouts() -> Mapping[str, tuple[Cutout, ...]]:
    """Return the objects that stand free enough to be cut out, by name."""
    found: dict[str, list[Cutout]] = {}
    for name, regions in REGIONS.items():
        picture, planes = photograph(name), label_planes(name)
        height, width = picture.shape[:2]
        covers = [(r.name, _cover(r, height, width)) for r in regions if r.category == "object"]
        for wish, company in _FREE.items():
            outlines = [cover for label, cover in covers if label == wish]
            if not outlines:
                continue
            # Outlines of one name that do not touch are several objects.
            joined = np.maximum.reduce(outlines)
            numbered, count = ndimage.label(joined)  # type: ignore[misc]
            for number in range(1, count + 1):
                cover = np.where(numbered == number, joined, 0).astype(np.uint8)
                beside = [c for label, c in covers if label in company]
                cover = np.maximum.reduce([cover, *beside])
                rows, columns = np.flatnonzero(cover.any(axis=1)), np.flatnonzero(cover.any(axis=0))
                box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
                inside = cover[box] > 127
                labels = {
                    category: (known, np.where(inside, plane[box], 0).astype(np.uint8))
                    for category, (known, plane) in planes.items()
                }
                found.setdefault(wish, []).append(Cutout(wish, picture[box], cover[box], labels))
    found["coin"] = _coins()
    found["horse"] = [_horse()]
    return MappingProxyType({name: tuple(pieces) for name, pieces in found.items()})


def _coins() -> list[Cutout]:
    """Cut out coins by flooding the edges of their photograph from what is surely coin or surely not."""
    picture = photograph("coins")
    grey = picture[..., 0]
    markers = np.zeros(grey.shape, dtype=np.int32)
    markers[grey < 30] = 1
    markers[grey > 150] = 2
    filled = ndimage.binary_fill_holes(watershed(sobel(grey), markers) == 2)
    numbered, _ = ndimage.label(filled)  # type: ignore[misc]
    coins = []
    for number, box in enumerate(ndimage.find_objects(numbered), start=1):
        mask = numbered[box] == number
        if mask.sum() > 500:
            plane = mask.astype(np.uint8)
            labels = {"object": (("coin",), plane), "material": (("metal",), plane)}
            coins.append(Cutout("coin", picture[box], 255 * plane, labels))
    return coins


def _horse() -> Cutout:
    """Fill the silhouette of a horse with fur, rounded by shading."""
    silhouette = photograph("horse")[..., 0] < 128
    rows, columns = np.flatnonzero(silhouette.any(axis=1)), np.flatnonzero(silhouette.any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    mask = silhouette[box]
    height, width = mask.shape
    fur = photograph("chelsea")[:95, 50:345]
    tile = np.concatenate([fur, fur[::-1]], axis=0)
    tile = np.concatenate([tile, tile[:, ::-1]], axis=1)
    tiled = np.tile(tile, (height // len(tile) + 1, width // tile.shape[1] + 1, 1))[:height, :width]
    depth = ndimage.distance_transform_edt(mask)
    bright = 0.35 + 0.65 * np.sqrt(np.clip(np.asarray(depth) / 14, 0, 1))
    picture = (tiled * bright[..., None] * (0.85, 0.72, 0.62)).astype(np.uint8)
    down, right = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    parts = np.zeros(mask.shape, dtype=np.uint8)
    parts[mask & (down > 0.6) & (right > 0.12)] = 1
    parts[mask & (right < 0.16) & (down > 0.3)] = 2
    parts[mask & (right > 0.8) & (down < 0.35)] = 3
    whole = mask.astype(np.uint8)
    labels = {
        "object": (("horse",), whole),
        "part": (("leg", "tail", "head"), parts),
        "material": (("fur",), whole),
    }
    return Cutout("horse", picture, 255 * whole, labels)
