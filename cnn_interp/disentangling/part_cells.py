"""Positions of a layer's maps as vectors in which no direction is louder than another, of images and mirror images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from cnn_interp.disentangling.features import LayerMaps, TrunkFeatures, trunk_features
from cnn_interp.images.sets import Images, Picture
from cnn_interp.networks.network import Network
from cnn_interp.units.positions import UnitGrid
from interpretkit.errors import InputError
from interpretkit.networks.recording import map_layers

Floats = NDArray[np.float64]
# Images are encoded so many at a time.
_IMAGES = 32
# A map with fewer positions along a side is too coarse to say where a part is.
_FINE = 10


@dataclass(frozen=True)
class CellSettings:
    """How cells are encoded.

    Attributes
    ----------
    dimensions : int
        Principal directions kept of each layer, at most.
    ridge : float
        Share of the mean variance of a unit that is added to the variance of each direction, so that what hardly
        varies is not blown up.
    samples : int
        Cells that the directions are learned from, at most.
    """

    dimensions: int = 128
    ridge: float = 0.05
    samples: int = 15_000

    def __post_init__(self) -> None:
        if self.dimensions < 1 or self.samples < 2:
            raise InputError(
                f"dimensions {self.dimensions}, samples {self.samples}: expected at least 1 and 2"
            )
        if not self.ridge > 0:
            raise InputError(f"ridge {self.ridge}: expected more than 0")


@dataclass(frozen=True, eq=False)
class LayerCode:
    """How the responses of one layer are encoded.

    Attributes
    ----------
    layer : str
        Its name.
    mean : ndarray of float, (units,)
        What responses have in the mean.
    projection : ndarray of float, (units, d)
        From what differs from the mean to directions of about variance 1 that do not go together.
    rooted : bool
        Whether the square roots of responses are taken first, as of layers that are nowhere below 0: their few
        large values would otherwise decide alone.
    """

    layer: str
    mean: Floats
    projection: Floats
    rooted: bool


@dataclass(frozen=True, eq=False)
class CellEncoder:
    """From the maps of layers to one vector for each cell of a common grid.

    Attributes
    ----------
    codes : tuple of LayerCode
        One for each layer; their directions stand one after the other in a cell's vector.
    grid : UnitGrid
        The common grid, that of the first layer.
    """

    codes: tuple[LayerCode, ...]
    grid: UnitGrid

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers' names."""
        return tuple(code.layer for code in self.codes)

    @property
    def dimensions(self) -> int:
        """Length of a cell's vector."""
        return sum(code.projection.shape[1] for code in self.codes)

    def encode(self, features: TrunkFeatures, rows: ArrayLike | None = None) -> Tensor:
        """Return the cells of images, ``(n, cells, d)``, the cells counted row by row.

        Parameters
        ----------
        features : TrunkFeatures
            Of the network that the encoder was learned from.
        rows : array_like of int, optional
            Which images; all by default.

        Raises
        ------
        InputError
            If a layer is missing, or has another number of units.
        """
        numbers = np.arange(len(features)) if rows is None else np.asarray(rows)
        height, width = self.grid.field.shape
        found = torch.empty(len(numbers), height * width, self.dimensions)
        first = 0
        for code in self.codes:
            maps = features[code.layer]
            if maps.units != len(code.mean):
                raise InputError(
                    f"layer {code.layer!r}: {maps.units} units; expected {len(code.mean)}, as were encoded"
                )
            projection = torch.from_numpy(code.projection).float()
            mean = torch.from_numpy(code.mean).float()
            last = first + projection.shape[1]
            for start in range(0, len(numbers), _IMAGES):
                cells = layer_cells(maps, numbers[start : start + _IMAGES], self.grid, code.rooted)
                found[start : start + len(cells), :, first:last] = (cells - mean) @ projection
            first = last
        return found

    def units(self, direction: ArrayLike) -> dict[str, Floats]:
        """Return how a direction of cells weighs the units of each layer, ``(units,)`` each."""
        vector = np.asarray(direction, dtype=np.float64)
        ends = np.cumsum([code.projection.shape[1] for code in self.codes])[:-1]
        parts = np.split(vector, ends)
        return {code.layer: code.projection @ part for code, part in zip(self.codes, parts, strict=True)}


@dataclass(frozen=True, eq=False)
class PartCells:
    """The cells of images and of their mirror images.

    Attributes
    ----------
    vectors : Tensor, (n, 2, cells, d)
        Of each image as it is, and mirrored.
    encoder : CellEncoder
        Which made them.
    """

    vectors: Tensor
    encoder: CellEncoder

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def image(self) -> tuple[int, int]:
        """Height and width of the images, px."""
        return self.encoder.grid.image

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return self.encoder.grid.field.shape

    @property
    def centres(self) -> Floats:
        """Row and column of the cells of an image, px, ``(cells, 2)``."""
        return self.encoder.grid.centres(np.arange(self.shape[0] * self.shape[1]))

    def subset(self, rows: ArrayLike) -> PartCells:
        """Return the cells of some images."""
        return replace(self, vectors=self.vectors[torch.as_tensor(np.asarray(rows))])


def mirrored(positions: ArrayLike, image: tuple[int, int]) -> Floats:
    """Return where positions ``(..., 2)`` (row, column, px) of an image are in its mirror image, and the reverse."""
    found = np.array(positions, dtype=np.float64)
    found[..., 1] = image[1] - 1 - found[..., 1]
    return found


def mirror_images(images: Images) -> Images:
    """Return the mirror images of a set, without what is annotated."""
    return Images(
        name=f"{images.name}, mirrored",
        ids=images.ids,
        load=_Mirror(images.load),
        load_size=images.load_size,
        source=images.source,
    )


@dataclass(frozen=True)
class _Mirror:
    load: Callable[[int], Picture]

    def __call__(self, number: int) -> Picture:
        return np.ascontiguousarray(self.load(number)[:, ::-1])


def mirrored_features(
    network: Network,
    images: Images,
    layers: Sequence[str],
    folder: Path | str | None = None,
    *,
    quiet: bool = True,
) -> tuple[TrunkFeatures, TrunkFeatures]:
    """Return the maps of layers for images and for their mirror images; see :func:`trunk_features`."""
    plain = trunk_features(network, images, layers, folder, precision="float16", quiet=quiet)
    other = trunk_features(network, mirror_images(images), layers, folder, precision="float16", quiet=quiet)
    return plain, other


def part_layers(network: Network) -> list[str]:
    """Return the layers in which parts are looked for if nobody says others.

    They are the two deepest that still say where something is: the last whose map has at least ten positions along
    each side, and before it the last of another number of units. For networks that have none, the last layer with
    more than one position.
    """
    blank = torch.zeros(1, 3, network.size, network.size, device=network.device)
    shapes = map_layers(network.module, blank)
    fine = [name for name, shape in shapes.items() if min(shape[1:]) >= _FINE]
    if not fine:
        fine = [name for name, shape in shapes.items() if min(shape[1:]) > 1][-1:]
    if not fine:
        raise InputError(f"network {network.name!r}: has no layer that gives maps")
    # What follows a convolution in place (a normalisation, a rectifier) is part of the block that bears its name.
    last = _block(network.module, fine, len(fine) - 1)
    others = [place for place, name in enumerate(fine) if shapes[name][0] != shapes[last][0]]
    chosen = [last]
    if others and shapes[fine[others[-1]]][1:] == shapes[last][1:]:
        chosen.append(_block(network.module, fine, others[-1]))
    return chosen


def _block(module: nn.Module, names: Sequence[str], place: int) -> str:
    """Return the layer at a place, or for a sequence of blocks its last one, by which people know it."""
    name = names[place]
    layer = module.get_submodule(name)
    return f"{name}.{list(layer._modules)[-1]}" if type(layer) is nn.Sequential and len(layer) else name


def learn_cells(
    features: TrunkFeatures,
    layers: Sequence[str],
    rows: ArrayLike | None = None,
    settings: CellSettings | None = None,
) -> CellEncoder:
    """Learn to encode the cells of layers from images without any annotation.

    Units of a layer go together, and some are loud; so a few annotated cells compared by their responses are compared
    by what all cells share. Principal directions of the cells of unannotated images, each brought to about variance
    1, take that away: what a cell then has in common with the annotated ones is what tells them from others. It is
    linear discriminant analysis whose covariance costs no annotation.

    Parameters
    ----------
    features : TrunkFeatures
        Maps of the layers.
    layers : sequence of str
        The first gives the common grid; the maps of others are interpolated at its positions.
    rows : array_like of int, optional
        Images to learn from; all by default.
    settings : CellSettings, optional
        How.

    Raises
    ------
    InputError
        If there are no layers or images.
    """
    settings = settings or CellSettings()
    names = list(dict.fromkeys(layers))
    numbers = np.arange(len(features)) if rows is None else np.asarray(rows)
    if not names or not len(numbers):
        raise InputError(f"{len(names)} layers, {len(numbers)} images: expected at least one of each")
    grid = features[names[0]].grid
    codes = []
    for name in names:
        maps = features[name]
        rooted = all(
            maps.maps[numbers[start : start + _IMAGES]].min() >= 0
            for start in range(0, len(numbers), _IMAGES)
        )
        # Every so many cells, for neighbours say the same.
        every = max(1, -(-len(numbers) * int(np.prod(grid.field.shape)) // settings.samples))
        some = torch.cat(
            [
                layer_cells(maps, numbers[start : start + _IMAGES], grid, rooted).flatten(0, 1)[::every]
                for start in range(0, len(numbers), _IMAGES)
            ]
        ).double()
        mean, deviation = some.mean(dim=0), some.std(dim=0, correction=0)
        # A unit that never changes says nothing, whatever it divides by.
        scale = torch.where(deviation > 1e-6 * deviation.max().clamp_min(1e-30), deviation, torch.inf)
        standard = (some - mean) / scale
        variances, directions = torch.linalg.eigh(standard.T @ standard / len(standard))
        variances, directions = variances.flip(0), directions.flip(1)
        kept = min(settings.dimensions, len(variances))
        level = settings.ridge * float(variances.clamp_min(0).mean()) + 1e-12
        gain = (variances[:kept].clamp_min(0) + level).rsqrt()
        # The sign of a direction is nobody's; the largest weight is positive.
        chosen = directions[:, :kept]
        largest = chosen.gather(0, chosen.abs().argmax(dim=0, keepdim=True))
        projection = chosen * torch.where(largest < 0, -1.0, 1.0) * gain / scale[:, None]
        codes.append(LayerCode(name, mean.numpy(), projection.numpy(), bool(rooted)))
    return CellEncoder(tuple(codes), grid)


def part_cells(
    features: tuple[TrunkFeatures, TrunkFeatures],
    layers: Sequence[str],
    *,
    rows: ArrayLike | None = None,
    learn_rows: ArrayLike | None = None,
    settings: CellSettings | None = None,
) -> PartCells:
    """Return the cells of images and of their mirror images.

    Parameters
    ----------
    features : (TrunkFeatures, TrunkFeatures)
        As :func:`mirrored_features` returns them.
    layers : sequence of str
        See :func:`learn_cells`.
    rows : array_like of int, optional
        Which images; all by default.
    learn_rows : array_like of int, optional
        Images from which the encoder is learned; those of `rows` by default.
    settings : CellSettings, optional
        How cells are encoded.
    """
    plain, other = features
    if len(plain) != len(other):
        raise InputError(f"features: {len(plain)} images and {len(other)} mirror images; expected as many")
    encoder = learn_cells(plain, layers, rows if learn_rows is None else learn_rows, settings)
    return PartCells(torch.stack([encoder.encode(one, rows) for one in (plain, other)], dim=1), encoder)


def interpolation(grid: UnitGrid, positions: ArrayLike) -> Tensor:
    """Return the weights of a grid's positions in points between them, bilinear, ``(points, positions)``.

    Beyond the outermost centres a point has the value at the border.

    Parameters
    ----------
    grid : UnitGrid
        Of the map.
    positions : array_like of float, (points, 2)
        Row and column, px.
    """
    points = np.asarray(positions, dtype=np.float64).reshape(-1, 2)
    rows, columns = (_along(grid, axis, points[:, axis]) for axis in (0, 1))
    return (rows[:, :, None] * columns[:, None, :]).flatten(1)


def _along(grid: UnitGrid, axis: int, where: Floats) -> Tensor:
    """Return the matrix ``(points, positions)`` of linear interpolation along an axis."""
    count = grid.field.shape[axis]
    place = np.clip((where - grid.field.start[axis]) / grid.field.stride[axis], 0, count - 1)
    lower = np.minimum(place.astype(int), max(count - 2, 0))
    upper = np.minimum(lower + 1, count - 1)
    matrix = np.zeros((len(where), count))
    matrix[np.arange(len(where)), lower] += 1 - (place - lower)
    matrix[np.arange(len(where)), upper] += place - lower
    return torch.from_numpy(matrix).float()


def layer_cells(maps: LayerMaps, rows: NDArray[np.integer], grid: UnitGrid, rooted: bool = False) -> Tensor:
    """Return a layer's responses, or their square roots, at the positions of a grid, ``(n, cells, units)``."""
    values = maps.tensor(rows)
    if (maps.grid.field.start, maps.grid.field.stride, maps.shape) != (
        grid.field.start, grid.field.stride, grid.field.shape,
    ):  # fmt: skip
        corner = grid.field.shape[1]
        centres = grid.centres(np.arange(grid.field.shape[0] * corner))
        down, across = (
            _along(maps.grid, axis, centres[:: corner if axis == 0 else 1][: grid.field.shape[axis], axis])
            for axis in (0, 1)
        )
        values = down @ values @ across.T
    values = values.flatten(2).transpose(1, 2)
    return values.clamp_min(0).sqrt() if rooted else values
