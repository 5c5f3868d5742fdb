"""Pictures of articulated objects whose parts are annotated exactly, drawn on real backgrounds."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter

from cnn_interp.images.articulated_objects import BLUEPRINTS, LEAST_TURN, PART_NAMES, TURNS, Piece
from cnn_interp.images.drawing import (
    Capsule,
    Ellipse,
    Floats,
    Placement,
    Polygon,
    Shape,
    Window,
    shade,
    window_of,
)
from cnn_interp.images.part_images import Masks, PartImages, box_of
from cnn_interp.images.sets import Picture
from cnn_interp.images.surfaces import patch, photograph, surface
from interpretkit.errors import InputError
from interpretkit.runs.progress import track
from interpretkit.training.seeds import numpy_generator

CATEGORIES = tuple(BLUEPRINTS)
# A part has a landmark where so much of it is to be seen, and at least so many pixels at a side of 128.
VISIBLE_SHARE = 0.3
_VISIBLE_PIXELS = 6
# An occluder that would hide more of the object is left out.
_HIDDEN_AT_MOST = 0.45

_GROUNDS = (
    "brick",
    "grass",
    "gravel",
    "wood",
    "concrete",
    "lawn",
    "water",
    "moon",
    "planks",
    "petals",
    "foliage",
)
_WALLS = (
    "sky", "dusk", "evening", "stars", "studio", "bokeh", "brick", "leaves", "foliage", "shelves", "tissue",
    "retina", "planks", "fur", "suit", "roof", "water", "glaze",
)  # fmt: skip
_SCENES = (
    "china",
    "flower",
    "coffee",
    "motorcycle_left",
    "rocket",
    "chelsea",
    "ihc",
    "hubble_deep_field",
    "coins",
)


@dataclass(frozen=True)
class Recipe:
    """What determines every image of a set, together with its number.

    Attributes
    ----------
    seed : int
        Seed of all random draws.
    side : int
        Height and width of the images in pixels.
    categories : tuple of str
        The objects drawn.
    negatives : float
        Share of images without an object, 0 to 1.
    occlusion : float
        Share of objects that something stands before.
    """

    seed: int
    side: int
    categories: tuple[str, ...]
    negatives: float
    occlusion: float

    @property
    def part_names(self) -> tuple[str, ...]:
        """All parts of the categories, each once."""
        return tuple(dict.fromkeys(part for category in self.categories for part in PART_NAMES[category]))

    def category_of(self, number: int) -> int:
        """Return the category of image `number`, −1 for a negative; negatives and categories are spread evenly."""
        before = int(np.floor(number * self.negatives))
        if int(np.floor((number + 1) * self.negatives)) > before:
            return -1
        block, place = divmod(number - before, len(self.categories))
        order = numpy_generator(self.seed, "articulated-order", block).permutation(len(self.categories))
        return int(order[place])


@dataclass(frozen=True)
class Scene:
    """Where everything of one image is, before it is painted.

    Attributes
    ----------
    category : int
        −1 for a negative.
    placement : Placement
        From the object's coordinates to the image.
    pieces : tuple of (Piece, Window)
        The object, from the farthest to the nearest.
    behind, before : tuple of Window
        Distractors and occluders.
    parts : ndarray of int8, (side, side)
        Which part each pixel shows, counted from 1; 0 is none.
    landmarks : ndarray of float, (parts, 2)
        As in :class:`PartImages`.
    """

    category: int
    placement: Placement
    pieces: tuple[tuple[Piece, Window], ...]
    behind: tuple[Window, ...]
    before: tuple[Window, ...]
    parts: NDArray[np.int8]
    landmarks: NDArray[np.float64]


def articulated_images(
    n: int,
    *,
    seed: int = 0,
    side: int = 128,
    categories: Sequence[str] = CATEGORIES,
    negatives: float = 0.2,
    occlusion: float = 0.3,
    quiet: bool = True,
) -> PartImages:
    """Draw objects with moving parts on real backgrounds, with exact landmarks and masks.

    Pose, proportions, scale, place, rotation, mirroring, pattern, colour, light and background of every object are
    drawn independently of its category, so that only the parts tell categories apart. Negatives show shapes of the
    same paint that are no parts of anything. Image i of a seed is the same whatever `n` is. Images are drawn when
    they are asked for; ``stack(side)`` draws all at once.

    Parameters
    ----------
    n : int
        How many images.
    seed : int
        At least 0. Sets with different seeds are unrelated: draw training and test images with two of them.
    side : int
        Height and width in pixels, at least 32.
    categories : sequence of str
        Which objects to draw; see ``CATEGORIES``.
    negatives : float
        Share of images without an object, 0 to 1.
    occlusion : float
        How often something stands before an object, 0 to 1; it hides 45 % of it at most.
    quiet : bool
        Whether to show no progress bar while the scenes are laid out, some 5 ms each.

    Returns
    -------
    PartImages
        ``landmarks`` are the centres of gravity of whole parts, where at least 30 % of the part is to be seen;
        ``masks`` what is to be seen of them.

    Raises
    ------
    InputError
        If a number is out of range or a category is not known.
    """
    unknown = [name for name in categories if name not in BLUEPRINTS]
    if unknown or not categories or len(set(categories)) < len(categories):
        raise InputError(
            f"categories {', '.join(categories) or 'none'}: expected different ones of {', '.join(CATEGORIES)}"
        )
    if n < 1 or seed < 0 or side < 32:
        raise InputError(f"n {n}, seed {seed}, side {side}: expected at least 1, 0 and 32")
    for option, share in (("negatives", negatives), ("occlusion", occlusion)):
        if not 0 <= share <= 1:
            raise InputError(f"{option} {share}: expected 0 to 1")
    recipe = Recipe(seed, side, tuple(categories), negatives, occlusion)
    landmarks = np.empty((n, len(recipe.part_names), 2))
    boxes = np.empty((n, 4))
    numbers = np.empty(n, dtype=np.intp)
    for number in track(range(n), "Laying out scenes", quiet=quiet):
        scene = compose(recipe, number)
        numbers[number], landmarks[number] = scene.category, scene.landmarks
        boxes[number] = box_of(scene.parts > 0)
    return PartImages(
        name="articulated objects",
        ids=tuple(f"{seed}/{number}" for number in range(n)),
        load=partial(paint, recipe),
        load_size=partial(_size, recipe),
        categories=numbers,
        category_names=recipe.categories,
        part_names=recipe.part_names,
        landmarks=landmarks,
        absence_known=True,
        boxes=boxes,
        load_masks=partial(_masks, recipe),
    )


def _size(recipe: Recipe, number: int) -> tuple[int, int]:
    return recipe.side, recipe.side


def _masks(recipe: Recipe, number: int) -> Masks:
    parts = compose(recipe, number).parts
    return parts[None] == np.arange(1, len(recipe.part_names) + 1, dtype=np.int8)[:, None, None]


# -------------------------------------------------------------------------------------------- composing


@lru_cache(maxsize=16)
def compose(recipe: Recipe, number: int) -> Scene:
    """Return where everything of image `number` is."""
    rng = numpy_generator(recipe.seed, "articulated-scene", number)
    side = recipe.side
    category = recipe.category_of(number)
    n_loose = int(rng.integers(3, 8)) if category < 0 else int(rng.integers(0, 4))
    behind = tuple(_loose(rng, side) for _ in range(n_loose))
    if category < 0:
        still = Placement(np.eye(2) * 0.4 * side, np.full(2, 0.5 * side), 0.4 * side)
        empty = np.full((len(recipe.part_names), 2), np.nan)
        return Scene(category, still, (), behind, (), np.zeros((side, side), dtype=np.int8), empty)
    name = recipe.categories[category]
    placement, pieces = pose(name, side, rng)
    numbers = {part: place for place, part in enumerate(recipe.part_names)}
    parts = np.zeros((side, side), dtype=np.int8)
    for piece, window in pieces:
        image, cut = window.within(side, side)
        parts[image][window.distance[cut] <= 0] = numbers[piece.part] + 1
    before = _occluders(recipe, parts, rng)
    for window in before:
        image, cut = window.within(side, side)
        parts[image][window.distance[cut] <= 0] = 0
    seen = np.bincount(parts.ravel(), minlength=len(numbers) + 1)[1:]
    landmarks = np.full((len(numbers), 2), np.nan)
    for part in PART_NAMES[name]:
        size, centre = _whole([window for piece, window in pieces if piece.part == part])
        visible = int(seen[numbers[part]])
        within = np.all((centre >= -0.5) & (centre <= side - 0.5))
        if within and visible >= max(VISIBLE_SHARE * size, _VISIBLE_PIXELS * (side / 128) ** 2):
            landmarks[numbers[part]] = centre
    return Scene(category, placement, pieces, behind, before, parts, landmarks)


def _whole(windows: Sequence[Window]) -> tuple[int, NDArray[np.float64]]:
    """Return how many pixels a union covers, in the image or not, and their centre of gravity (row, column)."""
    top, left = min(w.top for w in windows), min(w.left for w in windows)
    bottom = max(w.top + w.distance.shape[0] for w in windows)
    right = max(w.left + w.distance.shape[1] for w in windows)
    mask = np.zeros((bottom - top, right - left), dtype=bool)
    for window in windows:
        row, column = window.top - top, window.left - left
        height, width = window.distance.shape
        mask[row : row + height, column : column + width] |= window.distance <= 0
    by_row, by_column = np.count_nonzero(mask, axis=1), np.count_nonzero(mask, axis=0)
    size = int(by_row.sum())
    centre = np.array([by_row @ np.arange(top, bottom), by_column @ np.arange(left, right)]) / max(size, 1)
    return size, centre


def pose(
    category: str, side: int, rng: np.random.Generator, *, size: tuple[float, float] = (0.5, 0.95)
) -> tuple[Placement, tuple[tuple[Piece, Window], ...]]:
    """Return an object of a category in a random pose, its greatest extent within `size` of the image's side."""
    drawn = BLUEPRINTS[category](rng)
    placement = _place(drawn, TURNS.get(category, LEAST_TURN), side, size, rng)
    pieces = []
    for piece in drawn:
        shapes = [shape.placed(placement) for shape in piece.shapes]
        pieces.append((piece, window_of(shapes, blend=piece.blend * placement.scale)))
    return placement, tuple(pieces)


def _place(
    pieces: Sequence[Piece], turn: float, side: int, size: tuple[float, float], rng: np.random.Generator
) -> Placement:
    """Turn, mirror, stretch and scale an object, and put it where it has room (but for a few pixels)."""
    angle = np.deg2rad(rng.uniform(-turn, turn))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.diag([rng.uniform(0.85, 1.1) * (1 if rng.random() < 0.5 else -1), 1.0])
    rough = Placement(matrix, np.zeros(2), 1.0)
    bounds = np.array([shape.placed(rough).bounds() for piece in pieces for shape in piece.shapes])
    low, high = bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)
    scale = side * rng.uniform(*size) / float((high - low).max())
    room = side - scale * (high - low)
    middle = scale * (low + high) / 2
    offset = side / 2 - middle + rng.uniform(-0.5, 0.5, size=2) * (room + 0.06 * side)
    return Placement(matrix * scale, offset - 0.5, scale)


def _loose(rng: np.random.Generator, side: int, size: tuple[float, float] = (0.05, 0.2)) -> Window:
    """Return a shape that is no part of anything."""
    x, y = rng.uniform(0, side, size=2)
    radius = side * rng.uniform(*size)
    angle = rng.uniform(0, 2 * np.pi)
    along = (float(np.cos(angle)), float(np.sin(angle)))
    shape: Shape
    kind = rng.integers(3)
    if kind == 0:
        length = radius * rng.uniform(0, 4)
        end = (x + length * along[0], y + length * along[1])
        shape = Capsule((x, y), end, radius * rng.uniform(0.3, 0.8), radius * rng.uniform(0.2, 0.6))
    elif kind == 1:
        ratio = rng.uniform(0.3, 1)
        shape = Ellipse(
            (x, y),
            (radius * along[0], radius * along[1]),
            (-ratio * radius * along[1], ratio * radius * along[0]),
        )
    else:
        corners = int(rng.integers(3, 6))
        angles = angle + (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
        reach = radius * rng.uniform(0.6, 1.4, corners)
        points = np.column_stack([x + reach * np.cos(angles), y + reach * np.sin(angles)])
        shape = Polygon(tuple((float(a), float(b)) for a, b in points), 0.02 * side)
    return window_of([shape])


def _occluders(recipe: Recipe, parts: NDArray[np.int8], rng: np.random.Generator) -> tuple[Window, ...]:
    """Return at most one shape before the object, at a random point of it."""
    wanted = rng.random() < recipe.occlusion
    rows, columns = np.nonzero(parts)
    place = rng.integers(max(len(rows), 1))
    window = _loose(rng, recipe.side, (0.1, 0.24))
    if not wanted or len(rows) == 0:
        return ()
    middle_row, middle_column = window.centre()
    moved = Window(
        window.top + round(rows[place] - middle_row),
        window.left + round(columns[place] - middle_column),
        window.distance,
    )
    image, cut = moved.within(recipe.side, recipe.side)
    hidden = np.count_nonzero(parts[image][moved.distance[cut] <= 0])
    return (moved,) if hidden <= _HIDDEN_AT_MOST * len(rows) else ()


# --------------------------------------------------------------------------------------------- painting


@dataclass(frozen=True)
class Paint:
    """Two colours and a pattern between them.

    Attributes
    ----------
    first, second : ndarray of float32, (3,)
        Red, green and blue, 0 to 1.
    pattern : str
        One of the patterns, or "" for the first colour alone.
    frequency, turn : float
        Pixels of the pattern per unit of the object, and the angle in radians.
    gloss : float
        Strength of the highlight.
    """

    first: NDArray[np.float32]
    second: NDArray[np.float32]
    pattern: str = ""
    frequency: float = 100.0
    turn: float = 0.0
    gloss: float = 0.0


@dataclass(frozen=True)
class Light:
    """The light of one image: unit vector to it (right, down, to the viewer), and the brightness without it."""

    direction: NDArray[np.float64]
    ambient: float


# A page shows patch after patch of few images.
@lru_cache(maxsize=64)
def paint(recipe: Recipe, number: int) -> Picture:
    """Return image `number`, uint8 ``(side, side, 3)``."""
    scene = compose(recipe, number)
    rng = numpy_generator(recipe.seed, "articulated-paint", number)
    side = recipe.side
    canvas = _background(side, rng)
    light = random_light(rng)
    for window in scene.behind:
        _shape_shadow(canvas, window, light)
        _lay(canvas, window, _loose_paint(rng), scene.placement, light, flat=rng.uniform(0.1, 0.7))
    if scene.pieces:
        paint_object(canvas, scene.pieces, scene.placement, scene.parts > 0, light, rng)
    for window in scene.before:
        _shape_shadow(canvas, window, light)
        _lay(canvas, window, _loose_paint(rng), scene.placement, light, flat=rng.uniform(0.2, 0.8))
    return develop(canvas, rng)


def random_light(rng: np.random.Generator) -> Light:
    """Return a light from above."""
    azimuth, height = rng.uniform(0.15, 0.85) * np.pi, rng.uniform(0.35, 0.9)
    direction = np.array([np.cos(azimuth), -np.sin(azimuth), height]) / np.hypot(1, height)
    return Light(direction, float(rng.uniform(0.42, 0.65)))


def paint_object(
    canvas: Floats,
    pieces: Sequence[tuple[Piece, Window]],
    placement: Placement,
    silhouette: NDArray[np.bool_],
    light: Light,
    rng: np.random.Generator,
) -> None:
    """Paint an object in random colours upon a canvas ``(side, side, 3)``, with its shadow behind it."""
    side = len(canvas)
    cast_shadow(canvas, silhouette, light)
    paints = _paints(rng)
    solid = np.zeros((side, side), dtype=np.float32)
    for piece, window in pieces:
        image, cut = window.within(side, side)
        near = (1 - window.distance[cut] / np.float32(0.05 * placement.scale)).clip(0, 1)
        canvas[image] *= (1 - 0.35 * near * solid[image])[..., None]
        _lay(canvas, window, paints[piece.paint], placement, light, flat=piece.flat, dim=piece.dim)
        solid[image] = np.maximum(solid[image], (0.5 - window.distance[cut]).clip(0, 1))


def cast_shadow(canvas: Floats, silhouette: NDArray[np.bool_], light: Light, strength: float = 0.5) -> None:
    """Darken a canvas ``(side, side, 3)`` behind a silhouette, on the side away from the light."""
    side = len(canvas)
    right, down = -light.direction[:2] * 0.06 * side
    # A blurred shadow needs no fine pixels.
    small = (side // 4, side // 4)
    dark = Image.fromarray(silhouette.astype(np.uint8) * 255).resize(small, Image.Resampling.BOX)
    shift = (1, 0, -right / 4, 0, 1, -down / 4)
    dark = dark.transform(small, Image.Transform.AFFINE, shift, resample=Image.Resampling.BILINEAR)
    dark = dark.filter(ImageFilter.GaussianBlur(0.025 * side / 4))
    dark = dark.resize((side, side), Image.Resampling.BILINEAR)
    canvas *= (1 - np.asarray(dark, dtype=np.float32) * np.float32(strength / 255))[..., None]


def _background(side: int, rng: np.random.Generator) -> Floats:
    """Return a wall over a ground, one surface, or a piece of a whole photograph, ``(side, side, 3)``, 0 to 1."""
    kind = rng.random()
    if kind < 0.25:
        canvas = patch(photograph(str(rng.choice(_SCENES))), side, side, rng, zoom=(0.3, 0.8)) / np.float32(
            255
        )
    elif kind < 0.5:
        canvas = _tinted(patch(surface(str(rng.choice((*_GROUNDS, *_WALLS)))), side, side, rng), rng)
    else:
        wall = _tinted(patch(surface(str(rng.choice(_WALLS))), side, side, rng), rng)
        ground = _tinted(patch(surface(str(rng.choice(_GROUNDS))), side, side, rng), rng)
        rows = np.arange(side, dtype=np.float32)[:, None]
        columns = np.arange(side, dtype=np.float32)[None]
        horizon = side * rng.uniform(0.4, 0.8) + np.tan(np.deg2rad(rng.uniform(-4, 4))) * (columns - side / 2)
        share = ((rows - horizon) / np.float32(rng.uniform(1, 0.04 * side)) + 0.5).clip(0, 1)[..., None]
        # Nearer ground is a little darker, which gives depth.
        ground *= 1 - 0.25 * (rows / side)[..., None]
        canvas = wall + share.astype(np.float32) * (ground - wall)
    if rng.random() < 0.4:
        sigma = side * rng.uniform(0.004, 0.014)
        canvas = gaussian_filter(canvas, (sigma, sigma, 0))
    # Pictures of objects are exposed for the object; backgrounds keep within the middle tones.
    spread = np.float32(rng.uniform(0.6, 0.95))
    return np.ascontiguousarray(0.5 + spread * (canvas - 0.5), dtype=np.float32)


def _tinted(picture: Picture, rng: np.random.Generator) -> Floats:
    """Return a piece as 0 to 1 with its colours changed; grey surfaces are coloured."""
    colours = picture * np.float32(1 / 255)
    grey = colours.mean(axis=2, keepdims=True)
    if float(np.abs(colours - grey).max()) < 0.02 or rng.random() < 0.25:
        tint = _colour(rng, saturation=(0.05, 0.6), value=(0.6, 1.0))
        return (grey * tint / max(float(tint.mean()), 1e-3)).clip(0, 1).astype(np.float32)
    return (colours * rng.uniform(0.8, 1.2, size=3).astype(np.float32)).clip(0, 1)


def _colour(
    rng: np.random.Generator, *, saturation: tuple[float, float], value: tuple[float, float]
) -> NDArray[np.float32]:
    hsv = (rng.uniform(), rng.uniform(*saturation), rng.uniform(*value))
    return np.array(colorsys.hsv_to_rgb(*hsv), dtype=np.float32)


def _paints(rng: np.random.Generator) -> dict[str, Paint]:
    """Return the colours of one object."""
    first = _colour(rng, saturation=(0.1, 0.85), value=(0.4, 1.0))
    other = _colour(rng, saturation=(0.05, 0.85), value=(0.2, 1.0))
    shadow = first * np.float32(rng.uniform(0.25, 0.6))
    pattern = str(rng.choice(["", *patterns()]))
    frequency, turn = rng.uniform(60, 220), rng.uniform(0, np.pi)
    gloss = float(rng.choice([0.0, rng.uniform(0.1, 0.5)]))
    grey = np.float32(rng.uniform(0.5, 0.85)) * np.array([0.97, 1.0, 1.03], dtype=np.float32)
    dark = np.float32(rng.uniform(0.08, 0.22)) * rng.uniform(0.8, 1.2, 3).astype(np.float32)
    glass = _colour(rng, saturation=(0.05, 0.4), value=(0.3, 0.9))
    bulb = np.array([1.0, 0.97, rng.uniform(0.6, 0.95)], dtype=np.float32)
    return {
        "skin": Paint(first, other if rng.random() < 0.5 else shadow, pattern, frequency, turn, gloss),
        "second": Paint(other, other * np.float32(0.7), "grain", frequency, turn, gloss),
        "dark": Paint(dark, dark, gloss=0.2),
        "metal": Paint(grey, 0.8 * grey, "grain", 150.0, turn, 0.5),
        "glass": Paint(glass, np.minimum(1.3 * glass, 1), "clouds", 60.0, turn, 0.4),
        "light": Paint(bulb, bulb, gloss=0.3),
    }


def _loose_paint(rng: np.random.Generator) -> Paint:
    """Return a paint as objects have it."""
    paints = _paints(rng)
    return paints[str(rng.choice(["skin", "skin", "skin", "second", "second", "metal", "dark"]))]


def _lay(
    canvas: Floats,
    window: Window,
    colours: Paint,
    placement: Placement,
    light: Light,
    *,
    flat: float,
    dim: float = 1.0,
) -> None:
    """Paint a shape upon the canvas."""
    image, cut = window.within(*canvas.shape[:2])
    distance = window.distance[cut]
    if distance.size < 4 or min(distance.shape) < 2:
        return
    lit = shade(window.distance, light.direction, ambient=light.ambient, gloss=colours.gloss, flat=flat)[cut]
    x, y = placement.back(window.columns[:, cut[1]], window.rows[cut[0]])
    if colours.pattern:
        cosine, sine = np.float32(np.cos(colours.turn)), np.float32(np.sin(colours.turn))
        grain = patterns()[colours.pattern]
        period = len(grain)
        right = ((cosine * x + sine * y) * np.float32(colours.frequency)).astype(np.int32) % period
        down = ((cosine * y - sine * x) * np.float32(colours.frequency)).astype(np.int32) % period
        share = grain[down, right][..., None]
        body = colours.first + share * (colours.second - colours.first)
    else:
        body = np.broadcast_to(colours.first, (*distance.shape, 3))
    cover = (np.float32(0.5) - distance).clip(0, 1)[..., None]
    body = (body * (lit * np.float32(dim))[..., None]).clip(0, 1)
    canvas[image] += cover * (body - canvas[image])


def _shape_shadow(canvas: Floats, window: Window, light: Light) -> None:
    """Darken what lies behind a shape, on the side away from the light."""
    reach = 0.03 * len(canvas)
    moved = Window(
        window.top + round(-light.direction[1] * reach),
        window.left + round(-light.direction[0] * reach),
        window.distance,
    )
    image, cut = moved.within(*canvas.shape[:2])
    canvas[image] *= (1 - 0.4 * (0.5 - moved.distance[cut] / np.float32(reach)).clip(0, 1))[..., None]


def develop(canvas: Floats, rng: np.random.Generator) -> Picture:
    """Expose, tint and grain a canvas as a camera does."""
    gain = rng.uniform(0.92, 1.22) * rng.uniform(0.95, 1.05, size=3)
    exposed = (canvas * gain.astype(np.float32)).clip(0, 1) ** np.float32(rng.uniform(0.8, 1.2))
    grain = rng.standard_normal(exposed.shape[:2], dtype=np.float32) * np.float32(rng.uniform(0, 0.018))
    exposed += grain[..., None]
    return (exposed * 255 + np.float32(0.5)).clip(0, 255).astype(np.uint8)


@cache
def patterns() -> Mapping[str, Floats]:
    """Return patterns that repeat without a seam, 0 to 1, each ``(256, 256)`` or larger."""
    rng = numpy_generator(0, "articulated-patterns")
    period = 256
    rows, columns = np.mgrid[:period, :period].astype(np.float32) * np.float32(2 * np.pi / period)

    def noise(sigma: float) -> Floats:
        smooth = gaussian_filter(rng.standard_normal((period, period)), sigma, mode="wrap")
        return (smooth / smooth.std()).astype(np.float32)

    def edged(values: Floats, sharpness: float) -> Floats:
        return (0.5 + sharpness * values).clip(0, 1)

    patterns = {
        "stripes": edged(np.sin(9 * rows + 0.8 * noise(9)), 2.0),
        "bands": edged(np.sin(5 * columns), 8.0),
        "spots": edged(noise(5) - 0.8, 3.0),
        "patches": edged(noise(13), 5.0),
        "checks": edged(np.sin(6 * rows) * np.sin(6 * columns), 6.0),
        "clouds": edged(noise(16), 0.25),
        "grain": edged(noise(1.5), 0.2),
    }
    for name in ("fur", "gravel", "grass", "brick"):
        grey = surface(name).mean(axis=2)
        grey = (grey - grey.min()) / np.float32(grey.max() - grey.min())
        tile = np.concatenate([grey, grey[::-1]])
        tile = np.concatenate([tile, tile[:, ::-1]], axis=1)
        least = min(tile.shape)
        patterns[name] = (1 - tile[:least, :least]).astype(np.float32)
    return patterns
