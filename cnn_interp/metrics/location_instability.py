"""Location instability: whether a unit fires at the same distance from a part of an object in image after image.

The published measure rewards a unit that never moves: one that always fires at the middle of a crop is as stable as
the best interpretable networks. So the values of constant positions stand beside it in every result, and so does the
tracking of the part, which only a unit that follows the part can have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from torch import Tensor, nn

from cnn_interp.units.active_regions import expect_size, layer_maps
from cnn_interp.units.positions import UnitGrid, strongest_places, unit_grids
from interpretkit.errors import InputError

TOP = 100
# On how many images a unit must be judged before it may be called the best follower. Of 768 units that fire at random,
# the best R² for five parts is 1.0 on 2 images, 0.8 on 5, 0.5 on 10, 0.1 on 20 and below 0 on 50.
FEWEST = 20
# A part whose variance is below this share of the squared diagonal stands still.
_STILL = 1e-12
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Peaks:
    """Where the units of a layer are strongest in each image.

    Attributes
    ----------
    layer : str
        The layer's name.
    values : ndarray of float, (n, units)
        The strongest values.
    places : ndarray of int, (n, units)
        Where on the map they are, counted row by row; of equals, the first.
    grid : UnitGrid
        Where the units look.
    """

    layer: str
    values: Floats
    places: NDArray[np.int64]
    grid: UnitGrid

    @property
    def positions(self) -> Floats:
        """Row and column of the centre of the strongest position's receptive field, px, ``(n, units, 2)``."""
        return self.grid.centres(self.places)


@dataclass(frozen=True, eq=False)
class LocationInstability:
    """How steadily units keep their distance from parts, beside positions that never change.

    Numbers are NaN where fewer than two images show the part; tracking also where the part does not move.

    Attributes
    ----------
    instability : ndarray of float, (categories, parts, units)
        Standard deviation (n − 1) of the distance between the part and the unit's strongest position over the images of
        the category that show the part and excite the unit most; as a share of the image's diagonal. Less is steadier.
    constant_centre : ndarray of float, (categories, parts, units)
        The same, on the same images, for a position that is always the middle of the image.
    best_constant : ndarray of float, (categories, parts)
        The same for the best of all constant positions, over all images of the category that show the part.
    tracking : ndarray of float, (categories, parts, units)
        R² = 1 − tr Var(p − p̂) ÷ tr Var(p) over the same images, p the part and p̂ the strongest position: 1 for a unit
        that follows the part, 0 for one that stands still, negative for one that moves otherwise.
    images : ndarray of int, (categories, parts)
        How many images show the part.
    category_names, part_names : tuple of str
        What the rows and columns are called.
    top : int
        How many images count for each unit, at most.

    References
    ----------
    Zhang, Wu, Zhu: Interpretable Convolutional Neural Networks, CVPR 2018, for the instability alone.
    """

    instability: Floats
    constant_centre: Floats
    best_constant: Floats
    tracking: Floats
    images: NDArray[np.int64]
    category_names: tuple[str, ...]
    part_names: tuple[str, ...]
    top: int

    @property
    def mean_instability(self) -> float:
        """The published number: mean over parts, then over units, then over categories."""
        return _mean(self.instability)

    @property
    def mean_constant_centre(self) -> float:
        """The same mean for the middle of the image."""
        return _mean(self.constant_centre)

    @property
    def mean_best_constant(self) -> float:
        """The same mean for the best constant positions."""
        return _mean(self.best_constant)

    @property
    def enough(self) -> NDArray[np.bool_]:
        """Which pairs have images enough, at least ``FEWEST``, to say which unit follows, ``(categories, parts)``."""
        return np.minimum(self.images, self.top) >= FEWEST

    @property
    def best_tracking_r2(self) -> float:
        """The R² of the unit that follows some part best; NaN if no pair has images enough, or no part moves."""
        best = self.best_tracking()[1]
        return float(np.nanmax(best)) if np.isfinite(best).any() else float("nan")

    @property
    def median_tracking_r2(self) -> float:
        """The median R² of all units and pairs; NaN if no part moves."""
        return _median(self.tracking)

    def best_tracking(self) -> tuple[NDArray[np.int64], Floats]:
        """Return for each category and part the unit that follows it best, and its R²; ``(categories, parts)`` each.

        The R² is NaN, and the unit −1, where fewer than ``FEWEST`` images count: the best of many units follows
        anything there by chance.
        """
        usable = self.enough[..., None] & ~np.isnan(self.tracking)
        values = np.where(usable, self.tracking, -np.inf)
        units = np.where(usable.any(axis=2), values.argmax(axis=2), -1)
        return units, np.where(units < 0, np.nan, values.max(axis=2))

    def table(self) -> list[dict[str, object]]:
        """Return a row for each category and part: units, constants, and tracking."""
        units, best = self.best_tracking()
        return [
            {
                "category": category,
                "part": part,
                "images": int(self.images[c, p]),
                "instability": float(self.instability[c, p].mean()),
                "steadiest unit": float(self.instability[c, p].min()),
                "constant centre": float(self.constant_centre[c, p].mean()),
                "best constant": float(self.best_constant[c, p]),
                "best tracking R²": float(best[c, p]),
                "by unit": int(units[c, p]) if units[c, p] >= 0 else None,
                "median tracking R²": _median(self.tracking[c, p]),
            }
            for c, category in enumerate(self.category_names)
            for p, part in enumerate(self.part_names)
        ]

    def units_table(self) -> list[dict[str, object]]:
        """Return a row for each unit, category and part that enough images show."""
        return [
            {
                "unit": unit,
                "category": category,
                "part": part,
                "images": min(int(self.images[c, p]), self.top),
                "instability": float(self.instability[c, p, unit]),
                "constant centre": float(self.constant_centre[c, p, unit]),
                "tracking R²": float(self.tracking[c, p, unit]),
            }
            for unit in range(self.instability.shape[2])
            for c, category in enumerate(self.category_names)
            for p, part in enumerate(self.part_names)
            if self.images[c, p] > 1
        ]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return all numbers as arrays, to be saved."""
        return {
            "instability": self.instability,
            "constant_centre": self.constant_centre,
            "best_constant": self.best_constant,
            "tracking": self.tracking,
            "images": self.images,
            "category_names": np.array(self.category_names),
            "part_names": np.array(self.part_names),
        }


def find_peaks(
    module: nn.Module, layers: Sequence[str], batches: Iterable[Tensor], *, quiet: bool = True
) -> dict[str, Peaks]:
    """Return where the units of layers are strongest in each image.

    Parameters
    ----------
    module : Module
        Any network; it is left as it was.
    layers : sequence of str
        Dotted names of layers that give maps.
    batches : iterable of Tensor
        Inputs ``(n, channels, height, width)``, all of one size.
    quiet : bool
        Whether to show no progress bar.

    Raises
    ------
    InputError
        If there is no such layer, it gives no map, or there are no images.
    """
    values: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    places: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    grids: dict[str, UnitGrid] = {}
    pairs = ((inputs, inputs) for inputs in batches)
    for inputs, _, maps in layer_maps(module, layers, pairs, "Finding strongest positions", quiet=quiet):
        grids = grids or unit_grids(module, layers, inputs)
        expect_size(inputs, grids)
        for layer in layers:
            value, place = strongest_places(maps[layer])
            values[layer].append(value.cpu())
            places[layer].append(place.cpu())
    if not grids:
        raise InputError("batches: there are none; expected at least one image")
    return {
        layer: Peaks(
            layer=layer,
            values=torch.cat(values[layer]).double().numpy(),
            places=torch.cat(places[layer]).numpy(),
            grid=grids[layer],
        )
        for layer in layers
    }


def location_instability(
    values: ArrayLike,
    positions: ArrayLike,
    landmarks: ArrayLike,
    image: tuple[int, int],
    *,
    categories: ArrayLike | None = None,
    category_names: Sequence[str] = (),
    part_names: Sequence[str] = (),
    top: int = TOP,
) -> LocationInstability:
    """Measure how steadily units keep their distance from parts.

    Parameters
    ----------
    values : array_like of float, (n, units)
        How strong each unit is in each image, by which its images are chosen.
    positions : array_like of float, (n, units, 2)
        Row and column where it is strongest, px; as in :class:`Peaks`.
    landmarks : array_like of float, (n, parts, 2)
        Row and column of each part, px in the same frame; NaN where it is not to be seen or not annotated.
    image : (int, int)
        Height and width of the images, px.
    categories : array_like of int, (n,), optional
        The category of each image, each measured by itself; negative for images to leave out. By default one.
    category_names, part_names : sequence of str, optional
        What they are called; numbers by default.
    top : int
        How many images count for each unit, at most: those of the category, with the part, that excite it most.
        Of equally strong ones, the earlier.

    Raises
    ------
    InputError
        If shapes do not fit, `top` is below 2, or no part is annotated in two images.

    References
    ----------
    Zhang, Wu, Zhu: Interpretable Convolutional Neural Networks, CVPR 2018. The tracking is this project's.
    """
    strength, places, parts = (np.asarray(a, dtype=np.float64) for a in (values, positions, landmarks))
    n = len(strength)
    if strength.ndim != 2 or places.shape != (*strength.shape, 2) or parts.shape != (n, *parts.shape[1:2], 2):
        raise InputError(
            f"values {strength.shape}, positions {places.shape}, landmarks {parts.shape}; expected (n, units), "
            "(n, units, 2) and (n, parts, 2)"
        )
    if top < 2:
        raise InputError(f"top {top}: expected at least 2 images")
    kinds = np.zeros(n, dtype=np.int64) if categories is None else np.asarray(categories)
    if kinds.shape != (n,):
        raise InputError(f"categories of shape {kinds.shape}; expected ({n},)")
    names = tuple(category_names) or tuple(map(str, range(int(kinds.max(initial=0)) + 1)))
    called = tuple(part_names) or tuple(map(str, range(parts.shape[1])))
    if len(called) != parts.shape[1] or kinds.max(initial=0) >= len(names):
        raise InputError(
            f"{len(called)} names of parts, {len(names)} of categories; expected one for each of "
            f"{parts.shape[1]} and {kinds.max(initial=0) + 1}"
        )
    diagonal = float(np.hypot(*image))
    middle = (np.array(image) - 1) / 2
    shape = (len(names), len(called), strength.shape[1])
    instability, centre, tracking = (np.full(shape, np.nan) for _ in range(3))
    best_constant = np.full(shape[:2], np.nan)
    counts = np.zeros(shape[:2], dtype=np.int64)
    for c in range(shape[0]):
        for p in range(shape[1]):
            shown = np.flatnonzero((kinds == c) & ~np.isnan(parts[:, p]).any(axis=1))
            counts[c, p] = len(shown)
            if len(shown) < 2:
                continue
            part = parts[shown, p]
            best_constant[c, p] = _best_constant(part, middle) / diagonal
            # (top, units), numbers of images among those shown.
            chosen = np.argsort(-strength[shown], axis=0, kind="stable")[:top]
            p_k = part[chosen]
            found = np.take_along_axis(places[shown], chosen[..., None], axis=0)
            offset = p_k - found
            instability[c, p] = np.linalg.norm(offset, axis=2).std(axis=0, ddof=1) / diagonal
            centre[c, p] = np.linalg.norm(p_k - middle, axis=2).std(axis=0, ddof=1) / diagonal
            spread = p_k.var(axis=0, ddof=1).sum(axis=1)
            moved = offset.var(axis=0, ddof=1).sum(axis=1)
            # Of landmarks that coincide, rounding leaves a spread of nearly nothing.
            np.divide(moved, spread, out=tracking[c, p], where=spread > _STILL * diagonal**2)
            tracking[c, p] = 1 - tracking[c, p]
    if counts.max(initial=0) < 2:
        raise InputError("landmarks: no part is annotated in two images of a category; expected at least one")
    return LocationInstability(instability, centre, best_constant, tracking, counts, names, called, top)


def _best_constant(part: Floats, middle: Floats) -> float:
    """Return the least standard deviation of the distance of landmarks ``(n, 2)`` to one position, px."""
    extent = 2 * middle
    steps = np.stack(np.meshgrid(*(np.linspace(0, side, 15) for side in extent), indexing="ij"), -1)
    starts = steps.reshape(-1, 2)
    spreads = np.linalg.norm(part[:, None] - starts, axis=2).std(axis=0, ddof=1)
    found = minimize(
        lambda place: np.linalg.norm(part - place, axis=1).std(ddof=1),
        starts[spreads.argmin()],
        method="Nelder-Mead",
        bounds=[(0.0, float(side)) for side in extent],
    )
    return min(float(found.fun), float(spreads.min()))


def _median(values: Floats) -> float:
    """Return the median of all numbers that are not NaN; NaN if there are none."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if known.size else float("nan")


def _mean(values: Floats) -> float:
    """Return the mean of ``(categories, parts, ...)`` within each category, then over them; NaN pairs are left out."""
    pairs = values.reshape(*values.shape[:2], -1).mean(axis=2)
    return float(np.mean([row[~np.isnan(row)].mean() for row in pairs if not np.isnan(row).all()]))
