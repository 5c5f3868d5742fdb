"""Shapes drawn by their signed distances: smooth edges, exact masks, and a rounded look by shading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]
# Rows a window has beyond its shape, so that edges and soft shadows find room.
_MARGIN = 5


@dataclass(frozen=True)
class Placement:
    """A map from an object's coordinates (x to the right, y down) to rows and columns of an image.

    Attributes
    ----------
    matrix : ndarray of float, (2, 2)
        Applied to (x, y); gives (column, row).
    offset : ndarray of float, (2,)
        Column and row of the object's origin.
    scale : float
        Pixels per unit, for radii.
    """

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]
    scale: float

    def point(self, point: ArrayLike) -> NDArray[np.float64]:
        """Return column and row of points (x, y), ``(..., 2)``."""
        return np.asarray(point, dtype=np.float64) @ self.matrix.T + self.offset

    def back(self, columns: Floats, rows: Floats) -> tuple[Floats, Floats]:
        """Return x and y of pixels."""
        inverse = np.linalg.inv(self.matrix).astype(np.float32)
        right, down = columns - np.float32(self.offset[0]), rows - np.float32(self.offset[1])
        return inverse[0, 0] * right + inverse[0, 1] * down, inverse[1, 0] * right + inverse[1, 1] * down


class Shape(Protocol):
    """An outline."""

    def placed(self, placement: Placement) -> Shape:
        """Return the shape in the pixels of an image."""
        ...

    def bounds(self) -> tuple[float, float, float, float]:
        """Return least column, least row, greatest column, greatest row."""
        ...

    def distance(self, columns: Floats, rows: Floats) -> Floats:
        """Return about how far pixels are outside the outline, below 0 within it."""
        ...


@dataclass(frozen=True)
class Capsule:
    """A limb: two circles and what is between them; both ends may be the same point.

    Attributes
    ----------
    start, end : tuple of float
        The circles' centres (x, y).
    radius, end_radius : float
        Their radii.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    radius: float
    end_radius: float

    def placed(self, placement: Placement) -> Capsule:
        """Return the shape in the pixels of an image."""
        start, end = placement.point((self.start, self.end))
        scale = placement.scale
        return Capsule(tuple(start), tuple(end), self.radius * scale, self.end_radius * scale)

    def bounds(self) -> tuple[float, float, float, float]:
        """Return least column, least row, greatest column, greatest row."""
        (x, y), (u, v), r, s = self.start, self.end, self.radius, self.end_radius
        return min(x - r, u - s), min(y - r, v - s), max(x + r, u + s), max(y + r, v + s)

    def distance(self, columns: Floats, rows: Floats) -> Floats:
        """Return about how far pixels are outside the outline, below 0 within it."""
        along_x, along_y = self.end[0] - self.start[0], self.end[1] - self.start[1]
        right, down = columns - np.float32(self.start[0]), rows - np.float32(self.start[1])
        length = along_x**2 + along_y**2
        if length < 1e-9:
            return np.hypot(right, down) - np.float32(max(self.radius, self.end_radius))
        share = (right * np.float32(along_x / length) + down * np.float32(along_y / length)).clip(0, 1)
        away = np.hypot(right - share * np.float32(along_x), down - share * np.float32(along_y))
        return away - (np.float32(self.radius) + share * np.float32(self.end_radius - self.radius))


@dataclass(frozen=True)
class Ellipse:
    """An ellipse.

    Attributes
    ----------
    centre : tuple of float
        (x, y).
    across, along : tuple of float
        Its half axes as vectors at right angles; placing may skew them.
    """

    centre: tuple[float, float]
    across: tuple[float, float]
    along: tuple[float, float]

    def placed(self, placement: Placement) -> Ellipse:
        """Return the shape in the pixels of an image."""
        centre = placement.point(self.centre)
        across, along = np.array((self.across, self.along)) @ placement.matrix.T
        return Ellipse(tuple(centre), tuple(across), tuple(along))

    def bounds(self) -> tuple[float, float, float, float]:
        """Return least column, least row, greatest column, greatest row."""
        half = np.hypot(self.across, self.along)
        return (
            self.centre[0] - half[0],
            self.centre[1] - half[1],
            self.centre[0] + half[0],
            self.centre[1] + half[1],
        )

    def distance(self, columns: Floats, rows: Floats) -> Floats:
        """Return about how far pixels are outside the outline, below 0 within it."""
        inverse = np.linalg.inv(np.array((self.across, self.along)).T).astype(np.float32)
        right, down = columns - np.float32(self.centre[0]), rows - np.float32(self.centre[1])
        u = inverse[0, 0] * right + inverse[0, 1] * down
        v = inverse[1, 0] * right + inverse[1, 1] * down
        radius = np.hypot(u, v)
        # The first step of Newton's method to the outline.
        slope_x, slope_y = inverse[0, 0] * u + inverse[1, 0] * v, inverse[0, 1] * u + inverse[1, 1] * v
        near = radius * (radius - 1) / np.maximum(np.hypot(slope_x, slope_y), np.float32(1e-6))
        # Towards the centre that step has a crease along the long axis, which shading would show.
        deep = (radius - 1) * np.float32(min(np.hypot(*self.across), np.hypot(*self.along)))
        share = ((radius - np.float32(0.5)) / np.float32(0.4)).clip(0, 1)
        return deep + share * (near - deep)


@dataclass(frozen=True)
class Polygon:
    """A polygon, its corners rounded outwards.

    Attributes
    ----------
    points : tuple of (x, y)
        The corners in order.
    rounding : float
        By how much it is grown.
    """

    points: tuple[tuple[float, float], ...]
    rounding: float = 0.0

    def placed(self, placement: Placement) -> Polygon:
        """Return the shape in the pixels of an image."""
        points = placement.point(self.points)
        return Polygon(tuple((x, y) for x, y in points), self.rounding * placement.scale)

    def bounds(self) -> tuple[float, float, float, float]:
        """Return least column, least row, greatest column, greatest row."""
        points = np.array(self.points)
        low, high = points.min(axis=0) - self.rounding, points.max(axis=0) + self.rounding
        return low[0], low[1], high[0], high[1]

    def distance(self, columns: Floats, rows: Floats) -> Floats:
        """Return how far pixels are outside the outline, below 0 within it."""
        square = np.full(columns.shape, np.inf, dtype=np.float32)
        inside = np.zeros(columns.shape, dtype=bool)
        x0, y0 = self.points[-1]
        for x1, y1 in self.points:
            along_x, along_y = x1 - x0, y1 - y0
            right, down = columns - np.float32(x0), rows - np.float32(y0)
            length = max(along_x**2 + along_y**2, 1e-9)
            share = ((right * np.float32(along_x) + down * np.float32(along_y)) / np.float32(length)).clip(
                0, 1
            )
            away = (right - share * np.float32(along_x)) ** 2 + (down - share * np.float32(along_y)) ** 2
            np.minimum(square, away, out=square)
            if y0 != y1:
                crosses = (rows >= min(y0, y1)) & (rows < max(y0, y1))
                inside ^= crosses & (columns < np.float32(x0) + down * np.float32(along_x / along_y))
            x0, y0 = x1, y1
        away = np.sqrt(square)
        return np.where(inside, -away, away) - np.float32(self.rounding)


@dataclass(frozen=True)
class Window:
    """Signed distances of a group of shapes in the part of the plane that they need.

    Attributes
    ----------
    top, left : int
        Row and column of the first pixel; may lie outside the image.
    distance : ndarray of float32, (h, w)
        How far pixels are outside, below 0 within.
    """

    top: int
    left: int
    distance: Floats

    @property
    def columns(self) -> Floats:
        """Columns of the window's pixels, ``(1, w)``."""
        return np.arange(self.left, self.left + self.distance.shape[1], dtype=np.float32)[None]

    @property
    def rows(self) -> Floats:
        """Rows of the window's pixels, ``(h, 1)``."""
        return np.arange(self.top, self.top + self.distance.shape[0], dtype=np.float32)[:, None]

    def within(self, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return slices of the image and of the window where they meet."""
        bottom, right = self.top + self.distance.shape[0], self.left + self.distance.shape[1]
        rows = slice(min(max(self.top, 0), height), min(max(bottom, 0), height))
        columns = slice(min(max(self.left, 0), width), min(max(right, 0), width))
        return (rows, columns), (
            slice(rows.start - self.top, rows.stop - self.top),
            slice(columns.start - self.left, columns.stop - self.left),
        )

    def centre(self) -> tuple[float, float]:
        """Return row and column of the centre of gravity of what is within, also where it leaves the image."""
        cover = np.clip(0.5 - self.distance, 0, 1)
        total = max(float(cover.sum()), 1e-9)
        return float((cover * self.rows).sum()) / total, float((cover * self.columns).sum()) / total


def window_of(shapes: Sequence[Shape], *, blend: float = 0.0) -> Window:
    """Return the signed distance to the union of shapes that are placed already.

    Parameters
    ----------
    shapes : sequence of Shape
        At least one.
    blend : float
        Over so many pixels the shapes melt into each other.
    """
    bounds = np.array([shape.bounds() for shape in shapes])
    left, top = np.floor(bounds[:, :2].min(axis=0)).astype(int) - _MARGIN
    right, bottom = np.ceil(bounds[:, 2:].max(axis=0)).astype(int) + _MARGIN
    columns, rows = np.meshgrid(
        np.arange(left, right + 1, dtype=np.float32), np.arange(top, bottom + 1, dtype=np.float32)
    )
    distance = shapes[0].distance(columns, rows)
    for shape in shapes[1:]:
        other = shape.distance(columns, rows)
        if blend > 0:
            near = np.maximum(np.float32(blend) - np.abs(distance - other), 0)
            distance = np.minimum(distance, other) - near * near * np.float32(0.25 / blend)
        else:
            distance = np.minimum(distance, other)
    return Window(int(top), int(left), distance)


def shade(
    distance: Floats, light: NDArray[np.float64], *, ambient: float, gloss: float, flat: float
) -> Floats:
    """Return the brightness of a rounded body whose outline is given, ``(h, w)``.

    Parameters
    ----------
    distance : ndarray of float32, (h, w)
        Signed distances.
    light : ndarray of float, (3,)
        Unit vector to the light: to the right, down, to the viewer.
    ambient : float
        Brightness where no light falls.
    gloss : float
        Strength of the highlight.
    flat : float
        0 is as round as can be, 1 is flat.

    References
    ----------
    Lambert's cosine law, with a highlight as in Phong: Illumination for computer generated pictures, 1975.
    """
    depth = max(-float(distance.min()), 1.0)
    rise = (1 + distance / np.float32(depth)).clip(0, 1) * np.float32(1 - flat)
    slope_y, slope_x = np.gradient(distance)
    upright = np.sqrt(np.maximum(1 - rise * rise, 0.0))
    facing = slope_x * rise * np.float32(light[0]) + slope_y * rise * np.float32(light[1])
    facing = np.maximum(facing + upright * np.float32(light[2]), 0)
    brightness = np.float32(ambient) + np.float32(1 - ambient) * facing
    if gloss > 0:
        brightness = brightness + np.float32(gloss) * facing**24
    # A thin dark rim tells touching bodies apart.
    rimmed = brightness * (np.float32(0.72) + np.float32(0.28) * (-distance / 1.6).clip(0, 1))
    return rimmed.astype(np.float32)
