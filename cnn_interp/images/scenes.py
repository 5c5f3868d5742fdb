"""Generated scenes: coloured shapes on textured backgrounds, with an exact mask of every thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interpretkit.errors import InputError
from interpretkit.training import numpy_generator

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (214, 48, 49),
    "green": (46, 160, 67),
    "blue": (40, 90, 214),
    "yellow": (240, 205, 40),
    "purple": (142, 60, 180),
    "white": (240, 240, 240),
}
TEXTURES = ("plain", "stripes", "checks", "noise", "gradient")


@dataclass(frozen=True)
class Thing:
    """Something in a scene.

    Attributes
    ----------
    shape : str
        One of ``SHAPES``.
    colour : str
        One of ``COLOURS``.
    row, column : float
        Its centre, px from the image's upper left corner.
    radius : float
        Radius of the circle about it, px.
    """

    shape: str
    colour: str
    row: float
    column: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """An image and what is in it.

    Attributes
    ----------
    image : ndarray of uint8, (size, size, 3)
        The pixels.
    things : tuple of Thing
        In the order in which they were drawn.
    masks : ndarray of bool, (things, size, size)
        Which pixels show each thing.
    texture : str
        The background's.
    """

    image: NDArray[np.uint8]
    things: tuple[Thing, ...]
    masks: NDArray[np.bool_]
    texture: str


def draw_scene(things: Sequence[Thing], texture: str, *, size: int = 48, seed: int = 0) -> Scene:
    """Draw things on a background, later ones over earlier ones.

    Parameters
    ----------
    things : sequence of Thing
        What to draw.
    texture : str
        One of ``TEXTURES``, in greys that no thing has.
    size : int
        The image's side, px.
    seed : int
        Seed of the background's grey, phase and noise.

    Raises
    ------
    InputError
        If a shape, colour or texture is unknown.
    """
    if texture not in TEXTURES:
        raise InputError(f"texture {texture!r}: expected one of {', '.join(TEXTURES)}")
    rows, columns = np.mgrid[:size, :size].astype(np.float64)
    image = np.repeat(_background(texture, rows, columns, seed)[..., None], 3, axis=2)
    masks = np.zeros((len(things), size, size), dtype=bool)
    for number, thing in enumerate(things):
        if thing.colour not in COLOURS:
            raise InputError(f"colour {thing.colour!r}: expected one of {', '.join(COLOURS)}")
        # Within half a pixel of the edge, the colour fades into what lies below.
        cover = np.clip(0.5 - _distance(thing, rows, columns), 0, 1)
        image += cover[..., None] * (np.array(COLOURS[thing.colour], dtype=np.float64) - image)
        masks[:number] &= cover < 0.5
        masks[number] = cover >= 0.5
    return Scene(np.clip(image, 0, 255).round().astype(np.uint8), tuple(things), masks, texture)


def random_scene(
    seed: int,
    index: int = 0,
    *,
    size: int = 48,
    things: tuple[int, int] = (3, 4),
    radius: tuple[float, float] = (4.5, 7.5),
) -> Scene:
    """Return a scene of things that do not touch, with shapes, colours, places and background drawn at random.

    Parameters
    ----------
    seed, index : int
        Seed of a series of scenes, and the place in it.
    size : int
        The image's side, px.
    things : (int, int)
        The fewest and the most things.
    radius : (float, float)
        The smallest and the largest radius, px.

    Raises
    ------
    InputError
        If so many things do not fit.
    """
    generator = numpy_generator(seed, "scene", index)
    count = int(generator.integers(things[0], things[1] + 1))
    placed: list[Thing] = []
    for _ in range(1000):
        if len(placed) == count:
            break
        reach = float(generator.uniform(*radius))
        if 2 * reach + 2 >= size:
            raise InputError(f"radius {reach:.1f} px: expected things that fit into {size} px")
        row, column = generator.uniform(reach + 1, size - reach - 1, 2)
        shape = SHAPES[generator.integers(len(SHAPES))]
        colour = list(COLOURS)[generator.integers(len(COLOURS))]
        if all(
            np.hypot(row - other.row, column - other.column) > reach + other.radius + 1 for other in placed
        ):
            placed.append(Thing(shape, colour, float(row), float(column), reach))
    if len(placed) < count:
        raise InputError(f"{count} things of up to {radius[1]:g} px: do not fit into {size} px")
    texture = TEXTURES[generator.integers(len(TEXTURES))]
    return draw_scene(placed, texture, size=size, seed=int(generator.integers(2**31)))


def _background(
    texture: str, rows: NDArray[np.float64], columns: NDArray[np.float64], seed: int
) -> NDArray[np.float64]:
    """Return greys ``(size, size)`` in 0 … 255."""
    generator = np.random.default_rng(seed)
    grey = generator.uniform(70, 150)
    depth = generator.uniform(15, 35)
    angle = generator.uniform(0, np.pi)
    period = generator.uniform(4, 9)
    phase = generator.uniform(0, 2 * np.pi)
    along = np.cos(angle) * rows + np.sin(angle) * columns
    across = np.cos(angle) * columns - np.sin(angle) * rows
    if texture == "stripes":
        pattern = np.sin(2 * np.pi * along / period + phase)
    elif texture == "checks":
        pattern = np.sign(
            np.sin(2 * np.pi * along / (2 * period) + phase) * np.sin(np.pi * across / period + phase)
        )
    elif texture == "noise":
        pattern = generator.normal(0, 0.7, rows.shape)
    elif texture == "gradient":
        pattern = 2 * (along - along.min()) / np.ptp(along) - 1
    else:
        pattern = np.zeros_like(rows)
    return np.clip(grey + depth * pattern, 0, 255)


def _distance(thing: Thing, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return about how far each pixel ``(size, size)`` lies outside a thing, px; negative within."""
    y, x, r = rows - thing.row, columns - thing.column, thing.radius
    if thing.shape == "circle":
        return np.hypot(x, y) - r
    if thing.shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - r / np.sqrt(2)
    if thing.shape == "triangle":
        # Equilateral, point up: three half planes at half the radius from the centre.
        slope = np.sqrt(3) / 2
        return np.maximum.reduce([y, slope * x - y / 2, -slope * x - y / 2]) - r / 2
    if thing.shape == "cross":
        arm = r / 3.5
        upright = np.maximum(np.abs(x) - arm, np.abs(y) - r)
        level = np.maximum(np.abs(y) - arm, np.abs(x) - r)
        return np.minimum(upright, level)
    raise InputError(f"shape {thing.shape!r}: expected one of {', '.join(SHAPES)}")
