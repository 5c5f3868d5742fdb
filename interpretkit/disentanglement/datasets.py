"""Images with known factors: rendered here, or read from the published files of dSprites and Shapes3D."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpretkit.errors import InputError

Images = NDArray[np.uint8]
SIDE = 64
# So many images are worked on at a time, which keeps the working arrays small.
_CHUNK = 256


@dataclass(frozen=True)
class FactorGrid:
    """Factors of variation and the values that they take; every combination is one image.

    Attributes
    ----------
    names : tuple of str, (k,)
        The factors.
    values : tuple of tuple of float
        The values of each.
    """

    names: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many values each factor has, ``(k,)``."""
        return tuple(len(values) for values in self.values)

    def __len__(self) -> int:
        return int(np.prod(self.sizes))

    def draw(self, rows: int, seed: int = 0) -> NDArray[np.intp]:
        """Return the numbers of independently and evenly drawn values, ``(rows, k)``."""
        rng = np.random.default_rng(seed)
        return np.column_stack([rng.integers(size, size=rows) for size in self.sizes])

    def at(self, index: ArrayLike) -> NDArray[np.intp]:
        """Return the numbers of the values ``(rows, k)`` at places `index` ``(rows,)`` of the whole grid."""
        return np.column_stack(np.unravel_index(np.asarray(index, dtype=np.intp), self.sizes))

    def values_of(self, factors: ArrayLike) -> NDArray[np.float64]:
        """Return the values ``(rows, k)`` that numbers of values ``(rows, k)`` stand for."""
        numbers = self.check(factors)
        return np.column_stack([np.array(v)[numbers[:, i]] for i, v in enumerate(self.values)])

    def check(self, factors: ArrayLike) -> NDArray[np.intp]:
        """Return numbers of values as an integer array ``(rows, k)``.

        Raises
        ------
        InputError
            If the shape does not fit, or a number is none of its factor's.
        """
        array = np.asarray(factors)
        if array.ndim != 2 or array.shape[1] != len(self.names) or array.dtype.kind not in "iu":
            raise InputError(
                f"factors: {array.dtype} of shape {array.shape}; expected whole numbers of shape "
                f"(n, {len(self.names)}): {', '.join(self.names)}"
            )
        for column, (name, size) in enumerate(zip(self.names, self.sizes, strict=True)):
            wrong = (array[:, column] < 0) | (array[:, column] >= size)
            if wrong.any():
                raise InputError(f"factors: {name} {array[wrong, column][0]}; expected 0 to {size - 1}")
        return array.astype(np.intp)


def _even(low: float, high: float, size: int) -> tuple[float, ...]:
    return tuple(np.linspace(low, high, size).tolist())


SPRITES = FactorGrid(
    ("shape", "scale", "orientation", "x", "y"),
    # As in dSprites the last orientation is a full turn, the same image as the first.
    ((1.0, 2.0, 3.0), _even(0.5, 1, 6), _even(0, 2 * np.pi, 40), _even(0, 1, 32), _even(0, 1, 32)),
)
SHAPES3D = FactorGrid(
    ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation"),
    (
        _even(0, 0.9, 10),
        _even(0, 0.9, 10),
        _even(0, 0.9, 10),
        _even(0.75, 1.25, 8),
        (0.0, 1.0, 2.0, 3.0),
        _even(-30, 30, 15),
    ),
)


def render_sprites(factors: ArrayLike) -> Images:
    """Draw a white square, ellipse or heart on black, with the factors of dSprites.

    The factors, and their numbers of values, are those of the published images; the outlines are this project's
    own. A pixel is white if its centre is inside.

    Parameters
    ----------
    factors : array_like of int, (n, 5)
        Numbers of the values of shape, scale, orientation, x and y; see ``SPRITES``.

    Returns
    -------
    ndarray of uint8, (n, 64, 64)
        0 or 1.

    Raises
    ------
    InputError
        If a number is out of range.
    """
    numbers = SPRITES.check(factors)
    values = SPRITES.values_of(numbers).astype(np.float32)
    images = np.empty((len(numbers), SIDE, SIDE), dtype=np.uint8)
    centres = np.arange(SIDE, dtype=np.float32) + 0.5
    outlines = (_in_square, _in_ellipse, _in_heart)
    for number, inside in enumerate(outlines):
        for rows in _chunks(np.flatnonzero(numbers[:, 0] == number)):
            _, scale, angle, x, y = (column[:, None, None] for column in values[rows].T)
            # Every sprite stays within the image at every scale and angle: a margin of 16 pixels holds its radius.
            right = (centres[None, None, :] - (16 + 32 * x)) / (14 * scale)
            down = (centres[None, :, None] - (16 + 32 * y)) / (14 * scale)
            cosine, sine = np.cos(angle), np.sin(angle)
            images[rows] = inside(cosine * right + sine * down, cosine * down - sine * right)
    return images


def _in_square(right: NDArray[np.float32], down: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.maximum(np.abs(right), np.abs(down)) <= 0.75


def _in_ellipse(right: NDArray[np.float32], down: NDArray[np.float32]) -> NDArray[np.bool_]:
    return right**2 + (down / 0.55) ** 2 <= 1


def _in_heart(right: NDArray[np.float32], down: NDArray[np.float32]) -> NDArray[np.bool_]:
    x, y = 1.25 * right, 0.15 - 1.25 * down
    return (x**2 + y**2 - 1) ** 3 - x**2 * y**3 <= 0


def render_shapes3d(factors: ArrayLike) -> Images:
    """Draw a cube, cylinder, ball or capsule in a square room, with the factors of Shapes3D.

    The factors, and their numbers of values, are those of the published images; the scene is this project's own: rays
    are cast from a camera that looks at the middle of the room and is turned about it by the orientation, and
    surfaces are shaded by the angle to a fixed light.

    Parameters
    ----------
    factors : array_like of int, (n, 6)
        Numbers of the values of floor hue, wall hue, object hue, scale, shape and orientation; see ``SHAPES3D``.

    Returns
    -------
    ndarray of uint8, (n, 64, 64, 3)
        Red, green and blue.

    Raises
    ------
    InputError
        If a number is out of range.
    """
    numbers = SHAPES3D.check(factors)
    # Hues change no geometry, so that few different scenes have to be cast.
    scenes, scene_of = np.unique(numbers[:, 3:], axis=0, return_inverse=True)
    surfaces = np.empty((len(scenes), SIDE, SIDE), dtype=np.uint8)
    shades = np.empty((len(scenes), SIDE, SIDE), dtype=np.float32)
    for row, (scale, shape, orientation) in enumerate(scenes):
        surfaces[row], shades[row] = _cast(
            SHAPES3D.values[3][scale], int(shape), np.deg2rad(SHAPES3D.values[5][orientation])
        )
    palette = _hues(np.array(SHAPES3D.values[0]))
    images = np.empty((len(numbers), SIDE, SIDE, 3), dtype=np.uint8)
    for rows in _chunks(np.arange(len(numbers))):
        scene = scene_of[rows]
        colours = palette[numbers[rows, :3]]
        painted = colours[np.arange(len(rows))[:, None, None], surfaces[scene]]
        images[rows] = np.rint(255 * shades[scene][..., None] * painted).astype(np.uint8)
    return images


Points = NDArray[np.float64]
_FLOOR, _WALL, _OBJECT = 0, 1, 2
_ROOM = 5.0
_LIGHT = np.array([0.35, 0.8, 0.5]) / np.linalg.norm([0.35, 0.8, 0.5])


def _cast(scale: float, shape: int, angle: float) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return what each pixel shows and how brightly, both (64, 64), with y pointing upwards."""
    grid = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    right, up = np.meshgrid(grid, -grid)
    camera = np.array([4.5 * np.sin(angle), 3.2, 4.5 * np.cos(angle)])
    forward = np.array([0.0, 0.9, 0.0]) - camera
    forward /= np.linalg.norm(forward)
    sideways = np.cross(forward, [0.0, 1.0, 0.0])
    sideways /= np.linalg.norm(sideways)
    upward = np.cross(sideways, forward)
    rays = forward + 0.62 * (right[..., None] * sideways + up[..., None] * upward)
    rays = (rays / np.linalg.norm(rays, axis=-1, keepdims=True)).reshape(-1, 3)

    with np.errstate(divide="ignore", invalid="ignore"):
        to_floor = np.where(rays[:, 1] < 0, -camera[1] / rays[:, 1], np.inf)
        walls = [(np.sign(rays[:, axis]) * _ROOM - camera[axis]) / rays[:, axis] for axis in (0, 2)]
    walls = [np.where(np.isfinite(distance), distance, np.inf) for distance in walls]
    to_wall = np.minimum(*walls)
    distance, normal = _OBJECTS[shape](camera, rays, scale)

    surface = np.where(to_floor < to_wall, _FLOOR, _WALL)
    shade = np.where(surface == _FLOOR, 0.95, np.where(walls[0] < walls[1], 0.7, 0.82))
    seen = distance < np.minimum(to_floor, to_wall)
    surface = np.where(seen, _OBJECT, surface)
    lit = 0.45 + 0.55 * np.clip(normal @ _LIGHT, 0, 1)
    shade = np.where(seen, lit, shade)
    return surface.reshape(SIDE, SIDE).astype(np.uint8), shade.reshape(SIDE, SIDE).astype(np.float32)


def _ball(camera: Points, rays: Points, radius: float, height: float | None = None) -> tuple[Points, Points]:
    """Return the distances (r,) to a ball that stands on the floor, or whose centre is so high, and normals (r, 3)."""
    centre = np.array([0.0, radius if height is None else height, 0.0])
    offset = camera - centre
    b = rays @ offset
    root = b**2 - (offset @ offset - radius**2)
    distance = np.where(root >= 0, -b - np.sqrt(np.maximum(root, 0)), np.inf)
    hit = camera + np.where(np.isfinite(distance), distance, 0.0)[:, None] * rays
    return distance, (hit - centre) / radius


def _tube(camera: Points, rays: Points, radius: float, low: float, high: float) -> tuple[Points, Points]:
    """Return the distances to the side of an upright cylinder between two heights, and the normals."""
    a = rays[:, 0] ** 2 + rays[:, 2] ** 2
    b = rays[:, 0] * camera[0] + rays[:, 2] * camera[2]
    root = b**2 - a * (camera[0] ** 2 + camera[2] ** 2 - radius**2)
    distance = np.where(root >= 0, (-b - np.sqrt(np.maximum(root, 0))) / np.maximum(a, 1e-12), np.inf)
    hit = camera + np.where(np.isfinite(distance), distance, 0.0)[:, None] * rays
    outside = (hit[:, 1] < low) | (hit[:, 1] > high)
    return np.where(outside, np.inf, distance), hit * [1 / radius, 0, 1 / radius]


def _cube(camera: Points, rays: Points, scale: float) -> tuple[Points, Points]:
    half = 0.85 * scale
    low, high = np.array([-half, 0, -half]), np.array([half, 2 * half, half])
    safe = np.where(rays == 0, 1e-12, rays)
    first, second = (low - camera) / safe, (high - camera) / safe
    enter = np.minimum(first, second)
    axis = enter.argmax(axis=1)
    distance = enter.max(axis=1)
    missed = distance > np.maximum(first, second).min(axis=1)
    normal = np.zeros_like(rays)
    rows = np.arange(len(rays))
    normal[rows, axis] = -np.sign(safe[rows, axis])
    return np.where(missed, np.inf, distance), normal


def _cylinder(camera: Points, rays: Points, scale: float) -> tuple[Points, Points]:
    radius, height = 0.85 * scale, 1.7 * scale
    side, normal = _tube(camera, rays, radius, 0.0, height)
    with np.errstate(divide="ignore"):
        lid = np.where(rays[:, 1] < 0, (height - camera[1]) / rays[:, 1], np.inf)
    hit = camera + np.where(np.isfinite(lid), lid, 0.0)[:, None] * rays
    lid = np.where(hit[:, 0] ** 2 + hit[:, 2] ** 2 <= radius**2, lid, np.inf)
    normal = np.where((lid < side)[:, None], np.array([0.0, 1.0, 0.0]), normal)
    return np.minimum(side, lid), normal


def _sphere(camera: Points, rays: Points, scale: float) -> tuple[Points, Points]:
    return _ball(camera, rays, scale)


def _capsule(camera: Points, rays: Points, scale: float) -> tuple[Points, Points]:
    radius, height = 0.65 * scale, 2.3 * scale
    found = [
        _tube(camera, rays, radius, radius, height - radius),
        _ball(camera, rays, radius, radius),
        _ball(camera, rays, radius, height - radius),
    ]
    distances = np.stack([distance for distance, _ in found])
    nearest = distances.argmin(axis=0)
    normals = np.stack([normal for _, normal in found])
    rows = np.arange(len(rays))
    return distances[nearest, rows], normals[nearest, rows]


_OBJECTS: tuple[Callable[[Points, Points, float], tuple[Points, Points]], ...] = (
    _cube,
    _cylinder,
    _sphere,
    _capsule,
)


def _hues(hues: Points) -> NDArray[np.float32]:
    """Return full colours of hues (c,) between 0 and 1, (c, 3)."""
    offset = np.array([0.0, 4.0, 2.0])
    wheel = np.abs((hues[:, None] * 6 + offset) % 6 - 3) - 1
    return np.clip(wheel, 0, 1).astype(np.float32)


@dataclass(frozen=True)
class FactorImages:
    """Images with the factors that made them.

    Attributes
    ----------
    images : ndarray of uint8, (n, 64, 64) or (n, 64, 64, 3)
        The images.
    factors : ndarray of intp, (n, k)
        The number of each factor's value.
    values : ndarray of float, (n, k)
        The values.
    names : tuple of str, (k,)
        The factors.
    """

    images: Images
    factors: NDArray[np.intp]
    values: NDArray[np.float64]
    names: tuple[str, ...]


def read_dsprites(path: Path | str, rows: ArrayLike | None = None) -> FactorImages:
    """Read the published ``dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz``.

    Parameters
    ----------
    path : path
        The file. Its pickled ``metadata`` is left alone.
    rows : array_like of int, (n,), optional
        Which images to read, ascending; all (3 GB) by default. Images are read in a stream, so that few need little
        memory.

    Returns
    -------
    FactorImages
        With the factors of ``SPRITES``; the colour, which never varies, is left out.

    Raises
    ------
    InputError
        If the file is missing, damaged, or holds something else.
    """
    path = _existing(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for name in ("imgs", "latents_classes", "latents_values"):
                if f"{name}.npy" not in archive.namelist():
                    raise InputError(
                        f"{path}: has no array {name!r}; expected the published file of dSprites"
                    )
            classes = _rows_of_member(archive, "latents_classes", rows)
            values = _rows_of_member(archive, "latents_values", rows)
            images = _rows_of_member(archive, "imgs", rows)
    except InputError as error:
        raise InputError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error
    except (
        OSError,
        ValueError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        SyntaxError,
        tokenize.TokenError,
    ) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); expected the published file of dSprites"
        ) from error
    if (
        images.shape[1:] != (SIDE, SIDE)
        or classes.ndim != 2
        or classes.shape[1] != 6
        or classes.shape != values.shape
    ):
        raise InputError(
            f"{path}: images {images.shape} and classes {classes.shape}; expected (n, 64, 64) and (n, 6)"
        )
    return FactorImages(images.astype(np.uint8), classes[:, 1:].astype(np.intp), values[:, 1:], SPRITES.names)


def read_shapes3d(path: Path | str, rows: ArrayLike | None = None) -> FactorImages:
    """Read the published ``3dshapes.h5``; the package h5py must be installed.

    Parameters
    ----------
    path : path
        The file.
    rows : array_like of int, (n,), optional
        Which images to read, ascending; all (6 GB) by default.

    Returns
    -------
    FactorImages
        With the factors of ``SHAPES3D``.

    Raises
    ------
    InputError
        If the file is missing, damaged, or holds something else, or if h5py is missing.
    """
    path = _existing(path)
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path}: reading an .h5 file needs the package h5py; to install it: pip install h5py"
        ) from error
    try:
        with h5py.File(path, "r") as opened:
            file: Any = opened  # h5py's own types do not tell arrays from groups
            for name in ("images", "labels"):
                if name not in file:
                    raise InputError(
                        f"{path}: has no array {name!r}; expected the published file of Shapes3D"
                    )
            wanted = _ascending(rows, len(file["labels"]))
            values = np.asarray(file["labels"][()], dtype=float)[wanted]
            pieces: list[Any] = []
            for chunk in _chunks(wanted, 4096):
                low, high = int(chunk[0]), int(chunk[-1]) + 1
                # Reading a dense stretch whole is far faster than picking rows out of it.
                dense = len(chunk) > (high - low) / 16
                pieces.append(file["images"][low:high][chunk - low] if dense else file["images"][chunk])
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error}); expected the published file of Shapes3D"
        ) from error
    images = np.concatenate(pieces) if pieces else np.empty((0, SIDE, SIDE, 3), dtype=np.uint8)
    if images.shape[1:] != (SIDE, SIDE, 3) or values.ndim != 2 or values.shape[1] != 6:
        raise InputError(
            f"{path}: images {images.shape} and labels {values.shape}; expected (n, 64, 64, 3) and (n, 6)"
        )
    factors = np.column_stack(
        [np.abs(values[:, [i]] - np.array(known)).argmin(axis=1) for i, known in enumerate(SHAPES3D.values)]
    )
    return FactorImages(images, factors, values, SHAPES3D.names)


def _existing(path: Path | str) -> Path:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    return path


def _ascending(rows: ArrayLike | None, count: int) -> NDArray[np.intp]:
    if rows is None:
        return np.arange(count)
    wanted = np.asarray(rows, dtype=np.intp)
    if wanted.ndim != 1 or (np.diff(wanted) <= 0).any() or (wanted < 0).any() or (wanted >= count).any():
        raise InputError(f"rows: expected ascending numbers from 0 to {count - 1}, each once")
    return wanted


def _rows_of_member(archive: zipfile.ZipFile, name: str, rows: ArrayLike | None) -> NDArray[Any]:
    """Return rows of one array of an .npz file, reading it in a stream; Python objects are refused."""
    with archive.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise InputError(f"array {name!r} has format {version}; expected 1.0 or 2.0")
        shape, by_column, dtype = read_header(member)
        if dtype.hasobject or by_column or not shape:
            raise InputError(
                f"array {name!r} of {dtype} and shape {shape}: expected plain numbers, row by row"
            )
        wanted = _ascending(rows, shape[0])
        row_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        found = np.empty((len(wanted), *shape[1:]), dtype=dtype)
        step, filled = 4096, 0
        for start in range(0, shape[0], step):
            count = min(step, shape[0] - start)
            content = member.read(count * row_bytes)
            if len(content) < count * row_bytes:
                raise InputError(f"array {name!r} ends early; the file is damaged")
            last = int(np.searchsorted(wanted, start + count))
            if last > filled:
                block = np.frombuffer(content, dtype).reshape(count, *shape[1:])
                found[filled:last] = block[wanted[filled:last] - start]
                filled = last
            if filled == len(wanted) and rows is not None:
                break
        return found


def _chunks(rows: NDArray[np.intp], size: int = _CHUNK) -> list[NDArray[np.intp]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
