"""Images for network dissection, composed of real textures, materials, objects and colours with exact labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnn_interp.images import colour_names
from cnn_interp.images.articulated import cast_shadow, develop, paint_object, patterns, pose, random_light
from cnn_interp.images.concept_images import Concept, ConceptImages, Concepts
from cnn_interp.images.drawing import Capsule, Ellipse, Floats, Polygon, Shape, Window, window_of
from cnn_interp.images.photograph_regions import REGIONS, Cutout, cutouts, label_planes, region_names
from cnn_interp.images.sets import Picture
from cnn_interp.images.surfaces import patch, photograph, surface
from interpretkit.errors import InputError
from interpretkit.training.seeds import numpy_generator

CATEGORIES = ("color", "object", "part", "material", "texture", "shape")
# What each surface of a photograph shows.
_MATERIALS: Mapping[str, str] = MappingProxyType(
    {
        "brick": "brick", "grass": "grass", "lawn": "grass", "gravel": "gravel", "wood": "wood", "planks": "wood",
        "fur": "fur", "foliage": "foliage", "leaves": "foliage", "sky": "sky", "dusk": "sky", "water": "water",
        "concrete": "concrete", "suit": "fabric", "moon": "rock", "glaze": "ceramic",
    }
)  # fmt: skip
_TEXTURES: Mapping[str, str] = MappingProxyType(
    {
        "petals": "petalled", "stars": "starry", "tissue": "marbled", "retina": "veined", "print": "printed",
        "handwriting": "handwritten", "roof": "tiled",
    }
)  # fmt: skip
_PATTERNS: Mapping[str, str] = MappingProxyType(
    {"stripes": "striped", "bands": "striped", "spots": "dotted", "patches": "blotchy", "checks": "chequered"}
)
_PLAIN = ("studio", "bokeh", "evening")
# Drawn objects, and which of their parts are concepts.
_DRAWN: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "aeroplane": {"wing": "wing", "tail": "tail", "engine": "engine"},
        "bird": {"wing": "wing", "tail": "tail", "head": "head", "beak": "beak", "legs": "leg"},
        "car": {"front wheel": "wheel", "rear wheel": "wheel", "headlight": "headlight"},
        "excavator": {"bucket": "bucket", "tracks": "tracks"},
        "fish": {"head": "head", "tail": "tail", "fins": "fin"},
        "lamp": {"shade": "shade"},
        "quadruped": {"head": "head", "tail": "tail", "front legs": "leg", "hind legs": "leg"},
        "scissors": {"blades": "blade", "handles": "handle"},
    }
)
SHAPES = ("arrow", "circle", "crescent", "cross", "ring", "square", "star", "triangle")
# Share of images that are a piece of a photograph as it is, with its objects in their places.
_IN_CONTEXT = 0.35


@cache
def concepts() -> tuple[Concept, ...]:
    """Return all concepts, numbered from 1 in the order of ``CATEGORIES`` and by name within each."""
    parts = {*region_names("part"), "leg", "tail", "head"}
    parts |= {name for parts_of in _DRAWN.values() for name in parts_of.values()}
    names = {
        "color": colour_names.NAMES,
        "object": sorted({*region_names("object"), "coin", "horse", *_DRAWN}),
        "part": sorted(parts),
        "material": sorted({*region_names("material"), *_MATERIALS.values()}),
        "texture": sorted({*_TEXTURES.values(), *_PATTERNS.values()}),
        "shape": SHAPES,
    }
    pairs = [(category, name) for category in CATEGORIES for name in names[category]]
    return tuple(Concept(number, name, category) for number, (category, name) in enumerate(pairs, start=1))


@cache
def _numbers() -> Mapping[tuple[str, str], int]:
    return {(concept.category, concept.name): concept.number for concept in concepts()}


@dataclass(frozen=True)
class _Sheet:
    """An image that is being composed: colours ``(side, side, 3)``, and a label map for each category."""

    canvas: Floats
    labels: dict[str, NDArray[np.int32]] = field(default_factory=dict)

    def put(self, category: str, name: str, mask: NDArray[np.bool_]) -> None:
        """Label pixels, whatever they were before."""
        self.labels[category][mask] = _numbers()[category, name]

    def clear(self, mask: NDArray[np.bool_]) -> None:
        """Take all labels from pixels, since something stands before what they showed."""
        for plane in self.labels.values():
            plane[mask] = 0


def composed_concepts(n: int = 600, *, seed: int = 0, side: int = 224) -> ConceptImages:
    """Compose images of about a hundred concepts with exact labels by pixel, for network dissection without a download.

    About a third are pieces of photographs with hand-drawn outlines of what they show; the rest are real surfaces and
    patterns, upon which objects cut out of photographs, drawn objects and plain shapes stand. Everything is
    placed, turned, scaled, mirrored, lit and tinted at random. Image i of a seed is the same whatever `n` is, and
    images are composed when asked for.

    The set stands in for Broden where that cannot be had: the photographs are few (nine scenes and a dozen
    surfaces), so that counts of detectors may be compared between networks on it, but not with published ones.

    Parameters
    ----------
    n : int
        How many images.
    seed : int
        At least 0.
    side : int
        Height and width in pixels, at least 64.

    Returns
    -------
    ConceptImages
        Categories color (the eleven basic names of every pixel), object, part, material, texture and shape, all as
        maps of the images' size.

    Raises
    ------
    InputError
        If a number is out of range.
    """
    if n < 1 or seed < 0 or side < 64:
        raise InputError(f"n {n}, seed {seed}, side {side}: expected at least 1, 0 and 64")
    return ConceptImages(
        name="composed concepts",
        ids=tuple(f"{seed}/{number}" for number in range(n)),
        load=partial(_picture, seed, side),
        load_size=partial(_size, side),
        labels=concepts(),
        categories=CATEGORIES,
        load_concepts=partial(_labels, seed, side),
        map_size=(side, side),
    )


def _size(side: int, number: int) -> tuple[int, int]:
    return side, side


def _picture(seed: int, side: int, number: int) -> Picture:
    return _compose(seed, side, number)[0].copy()


def _labels(seed: int, side: int, number: int) -> Concepts:
    picture, labels = _compose(seed, side, number)
    first = _numbers()["color", colour_names.NAMES[0]]
    found = {category: (plane.copy(),) for category, plane in labels.items() if plane.any()}
    return {"color": (colour_names.colour_names(picture).astype(np.int32) + first,), **found}


@lru_cache(maxsize=8)
def _compose(seed: int, side: int, number: int) -> tuple[Picture, dict[str, NDArray[np.int32]]]:
    rng = numpy_generator(seed, "composed", number)
    labels = {category: np.zeros((side, side), dtype=np.int32) for category in CATEGORIES[1:]}
    sheet = _Sheet(np.zeros((side, side, 3), dtype=np.float32), labels)
    if rng.random() < _IN_CONTEXT:
        _piece_of_photograph(sheet, rng)
    else:
        _surfaces(sheet, rng)
        for _ in range(int(rng.integers(0, 3))):
            _shape(sheet, rng)
        for _ in range(int(rng.integers(1, 4))):
            if rng.random() < 0.6:
                _cut_out(sheet, rng)
            else:
                _drawn_object(sheet, rng)
    return develop(sheet.canvas, rng), sheet.labels


def _piece_of_photograph(sheet: _Sheet, rng: np.random.Generator) -> None:
    """Fill the sheet with a square piece of a photograph, with its labels."""
    side = len(sheet.canvas)
    name = str(rng.choice(list(REGIONS)))
    picture = photograph(name)
    extent = min(picture.shape[:2]) * rng.uniform(0.45, 1.0)
    top = rng.uniform(0, picture.shape[0] - extent)
    left = rng.uniform(0, picture.shape[1] - extent)
    box = (left, top, left + extent, top + extent)
    step = 1 if rng.random() < 0.5 else -1
    size = (side, side)
    colours = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR, box=box)
    sheet.canvas[:] = _jittered(np.asarray(colours)[:, ::step], rng)
    for category, (names, plane) in label_planes(name).items():
        cut = np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.NEAREST, box=box))[:, ::step]
        for place, label in enumerate(names, start=1):
            sheet.put(category, label, cut == place)


def _surfaces(sheet: _Sheet, rng: np.random.Generator) -> None:
    """Fill the sheet with one to three surfaces, parted by straight or wavy lines."""
    side = len(sheet.canvas)
    count = int(rng.choice([1, 2, 3], p=[0.25, 0.5, 0.25]))
    angle = rng.uniform(0, np.pi)
    rows, columns = np.mgrid[:side, :side].astype(np.float32) / side - np.float32(0.5)
    across = np.cos(angle) * columns + np.sin(angle) * rows
    along = np.cos(angle) * rows - np.sin(angle) * columns
    wave = rng.choice([0.0, rng.uniform(0.01, 0.05)]) * np.sin(rng.uniform(8, 20) * along + rng.uniform(0, 6))
    place = across + wave
    cuts = np.sort(rng.uniform(-0.35, 0.35, size=count - 1))
    region = np.searchsorted(cuts, place) if count > 1 else np.zeros((side, side), dtype=int)
    for number in range(count):
        mask = region == number
        if not mask.any():
            continue
        colours, category, name = _surface(side, rng)
        np.copyto(sheet.canvas, colours, where=mask[..., None])
        if name:
            sheet.put(category, name, mask)


def _surface(side: int, rng: np.random.Generator) -> tuple[Floats, str, str]:
    """Return a surface ``(side, side, 3)`` with its category and its name."""
    kind = rng.random()
    if kind < 0.2:
        pattern = str(rng.choice(list(_PATTERNS)))
        return _patterned(pattern, side, rng), "texture", _PATTERNS[pattern]
    if kind < 0.42:
        source = str(rng.choice(list(_TEXTURES)))
        category, name = "texture", _TEXTURES[source]
    elif kind < 0.9:
        source = str(rng.choice(list(_MATERIALS)))
        category, name = "material", _MATERIALS[source]
    else:
        source, category, name = str(rng.choice(_PLAIN)), "", ""
    piece = patch(surface(source), side, side, rng, zoom=(0.45, 1.0))
    if rng.random() < 0.25:
        piece = np.rot90(piece) if source not in ("sky", "dusk", "water", "print", "handwriting") else piece
    return _levelled(piece, rng), category, name


def _patterned(pattern: str, side: int, rng: np.random.Generator) -> Floats:
    """Return a pattern in two colours, turned and scaled, ``(side, side, 3)``."""
    grain = patterns()[pattern]
    zoom, turn = rng.uniform(0.6, 2.2) * 224 / side, rng.uniform(0, np.pi)
    rows, columns = np.mgrid[:side, :side] * zoom
    right = (np.cos(turn) * columns + np.sin(turn) * rows + rng.uniform(0, 256)).astype(int) % grain.shape[1]
    down = (np.cos(turn) * rows - np.sin(turn) * columns + rng.uniform(0, 256)).astype(int) % grain.shape[0]
    share = grain[down, right][..., None]
    first = rng.uniform(0.2, 0.8, size=3).astype(np.float32)
    second = (first + rng.choice([-1, 1], size=3) * rng.uniform(0.08, 0.4, size=3)).astype(np.float32)
    light = np.linspace(rng.uniform(0.7, 1.1), rng.uniform(0.7, 1.1), side, dtype=np.float32)
    return ((first + share * (second - first)) * light[:, None, None]).clip(0, 1)


def _jittered(piece: Picture, rng: np.random.Generator) -> Floats:
    """Return a piece as 0 to 1 with its contrast, brightness and tint changed.

    Strongly, lest contrast or brightness alone tell concepts apart: any filter could then find them.
    """
    contrast, shift = rng.uniform(0.55, 1.2), rng.uniform(-0.12, 0.12)
    tint = rng.uniform(0.82, 1.18, size=3)
    # (x / 255 − 0.5) · contrast + 0.5 + shift, times the tint.
    slope = (contrast / 255 * tint).astype(np.float32)
    return (piece * slope + ((0.5 * (1 - contrast) + shift) * tint).astype(np.float32)).clip(0, 1)


def _levelled(piece: Picture, rng: np.random.Generator) -> Floats:
    """Return a surface as 0 to 1 with a mean and a contrast drawn at random, and a random tint."""
    grey = piece.mean(axis=2)
    mean, spread = rng.uniform(0.3, 0.7), rng.uniform(0.07, 0.19)
    slope = min(spread * 255 / max(float(grey.std()), 4.0), 4.0) / 255
    tint = rng.uniform(0.8, 1.2, size=3)
    colours = (piece - np.float32(grey.mean())) * np.float32(slope) + np.float32(mean)
    return (colours * tint.astype(np.float32)).clip(0, 1)


def _cut_out(sheet: _Sheet, rng: np.random.Generator) -> None:
    """Put an object cut out of a photograph upon the sheet."""
    name = str(rng.choice(list(cutouts())))
    pieces = cutouts()[name]
    piece = pieces[int(rng.integers(len(pieces)))]
    side = len(sheet.canvas)
    low, high = (0.15, 0.4) if name == "coin" else (0.3, 0.85)
    colours, cover, labels = _warped(piece, side, rng.uniform(low, high) * side, rng)
    inside = cover > 127
    cast_shadow(sheet.canvas, inside, random_light(rng), 0.35)
    rows, columns = np.flatnonzero(cover.any(axis=1)), np.flatnonzero(cover.any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    share = (cover[box] * np.float32(1 / 255))[..., None]
    sheet.canvas[box] += share * (_jittered(colours[box], rng) - sheet.canvas[box])
    sheet.clear(inside)
    for category, (names, plane) in labels.items():
        for place, label in enumerate(names, start=1):
            sheet.put(category, label, inside & (plane == place))


def _warped(
    piece: Cutout, side: int, extent: float, rng: np.random.Generator
) -> tuple[Picture, NDArray[np.uint8], dict[str, tuple[tuple[str, ...], NDArray[np.uint8]]]]:
    """Scale, turn, mirror and place a cut-out on a square."""
    height, width = piece.cover.shape
    scale = extent / max(height, width)
    size = (max(round(width * scale), 2), max(round(height * scale), 2))
    angle = np.deg2rad(rng.uniform(-20, 20))
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    mirror = 1 if rng.random() < 0.5 else -1
    # An object may leave the image by a quarter of its extent.
    reach = max(side / 2 - extent / 4, 0)
    x, y = side / 2 + rng.uniform(-reach, reach, size=2)
    # From the pixels of the image to those of the piece.
    a, b, d, e = mirror * cosine, mirror * sine, -sine, cosine
    coefficients = (a, b, size[0] / 2 - a * x - b * y, d, e, size[1] / 2 - d * x - e * y)

    def warp(plane: NDArray[np.uint8], smooth: bool) -> NDArray[np.uint8]:
        way = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
        small = Image.fromarray(plane).resize(size, way)
        moved = small.transform((side, side), Image.Transform.AFFINE, coefficients, resample=way)
        return np.asarray(moved)

    labels = {category: (names, warp(plane, False)) for category, (names, plane) in piece.labels.items()}
    return warp(piece.picture, True), warp(piece.cover, True), labels


def _drawn_object(sheet: _Sheet, rng: np.random.Generator) -> None:
    """Draw an articulated object upon the sheet."""
    side = len(sheet.canvas)
    name = str(rng.choice(list(_DRAWN)))
    placement, pieces = pose(name, side, rng, size=(0.3, 0.75))
    silhouette = np.zeros((side, side), dtype=bool)
    owner = np.zeros((side, side), dtype=np.int32)
    for piece, window in pieces:
        image, cut = window.within(side, side)
        inside = window.distance[cut] <= 0
        silhouette[image] |= inside
        part = _DRAWN[name].get(piece.part)
        owner[image][inside] = _numbers()["part", part] if part else 0
    paint_object(sheet.canvas, pieces, placement, silhouette, random_light(rng), rng)
    sheet.clear(silhouette)
    sheet.put("object", name, silhouette)
    sheet.labels["part"][silhouette] = owner[silhouette]


def _shape(sheet: _Sheet, rng: np.random.Generator) -> None:
    """Put a flat shape of one colour upon the sheet."""
    side = len(sheet.canvas)
    name = str(rng.choice(SHAPES))
    radius = side * rng.uniform(0.07, 0.2)
    x, y = rng.uniform(0.6 * radius, side - 0.6 * radius, size=2)
    window = _outline(name, (float(x), float(y)), float(radius), rng.uniform(0, 360))
    image, cut = window.within(side, side)
    distance = window.distance[cut]
    mask = np.zeros((side, side), dtype=bool)
    mask[image] = distance <= 0
    cast_shadow(sheet.canvas, mask, random_light(rng), 0.25)
    cover = (np.float32(0.5) - distance).clip(0, 1)[..., None]
    colour = rng.uniform(0, 1, size=3).astype(np.float32)
    sheet.canvas[image] += cover * (colour - sheet.canvas[image])
    sheet.clear(mask)
    sheet.put("shape", name, mask)


def _outline(name: str, centre: tuple[float, float], radius: float, degrees: float) -> Window:
    """Return the signed distances to a shape."""

    def corner(angle: float, reach: float) -> tuple[float, float]:
        turned = np.deg2rad(angle + degrees)
        return float(centre[0] + reach * np.cos(turned)), float(centre[1] + reach * np.sin(turned))

    def bar(angle: float, start: float, end: float, half: float) -> Shape:
        side_on = np.deg2rad(angle + degrees + 90)
        shift = half * np.array([np.cos(side_on), np.sin(side_on)])
        near, far = np.array(corner(angle, start)), np.array(corner(angle, end))
        points = (near + shift, far + shift, far - shift, near - shift)
        return Polygon(tuple((float(a), float(b)) for a, b in points))

    disc = Capsule(centre, centre, radius, radius)
    match name:
        case "circle":
            return window_of([disc])
        case "square":
            return window_of([Polygon(tuple(corner(a, radius) for a in (45, 135, 225, 315)))])
        case "triangle":
            return window_of([Polygon(tuple(corner(a, radius) for a in (0, 120, 240)))])
        case "star":
            points = [corner(36 * k, radius if k % 2 == 0 else 0.42 * radius) for k in range(10)]
            return window_of([Polygon(tuple(points))])
        case "cross":
            return window_of(
                [bar(0, -radius, radius, 0.28 * radius), bar(90, -radius, radius, 0.28 * radius)]
            )
        case "arrow":
            head = Polygon((corner(0, radius), corner(110, 0.75 * radius), corner(250, 0.75 * radius)))
            return window_of([head, bar(0, -radius, 0.1 * radius, 0.2 * radius)])
        case "ring":
            whole = window_of([disc])
            band = np.abs(whole.distance + np.float32(0.25 * radius)) - np.float32(0.22 * radius)
            return Window(whole.top, whole.left, band.astype(np.float32))
        case "crescent":
            whole = window_of([disc])
            bite = Ellipse(corner(0, 0.45 * radius), (0.85 * radius, 0.0), (0.0, 0.85 * radius))
            columns, rows = np.meshgrid(whole.columns[0], whole.rows[:, 0])
            return Window(whole.top, whole.left, np.maximum(whole.distance, -bite.distance(columns, rows)))
        case _:
            raise InputError(f"shape {name}: expected one of {', '.join(SHAPES)}")
