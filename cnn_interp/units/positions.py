"""A layer's map laid over the image: where its units look, and what it is between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from interpretkit.networks.receptive_fields import ReceptiveField, receptive_field


@dataclass(frozen=True)
class UnitGrid:
    """Where in the image the positions of a layer's map are: at the centres of their receptive fields.

    Attributes
    ----------
    field : ReceptiveField
        Receptive field of the layer's units. Where every unit sees the whole image, as in transformers, it lays them
        evenly over it.
    image : (int, int)
        Height and width of the image, px.
    """

    field: ReceptiveField
    image: tuple[int, int]

    def centres(self, places: ArrayLike) -> NDArray[np.float64]:
        """Return rows and columns ``(..., 2)``, px, of positions that are counted row by row, ``(...)``."""
        return self.field.centres(np.stack(np.divmod(np.asarray(places), self.field.shape[1]), axis=-1))

    def interpolation(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the matrices that bring a map to another size by bilinear interpolation between the centres.

        Beyond the outermost centres the map goes on with their values.

        Parameters
        ----------
        size : (int, int)
            Height and width wanted; the pixels are those of the whole image at this size.

        Returns
        -------
        rows : Tensor, (height, map height)
        columns : Tensor, (width, map width)
            So that ``rows @ map @ columns.T`` is ``(height, width)``.
        """
        return self._along(0, size[0]), self._along(1, size[1])

    def _along(self, axis: int, size: int) -> Tensor:
        """Return the matrix ``(size, positions)`` of linear interpolation along an axis."""
        positions, length = self.field.shape[axis], self.image[axis]
        pixels = (np.arange(size) + 0.5) * length / size - 0.5
        where = np.clip((pixels - self.field.start[axis]) / self.field.stride[axis], 0, positions - 1)
        lower = np.minimum(where.astype(int), max(positions - 2, 0))
        upper = np.minimum(lower + 1, positions - 1)
        matrix = np.zeros((size, positions))
        matrix[np.arange(size), lower] += 1 - (where - lower)
        matrix[np.arange(size), upper] += where - lower
        return torch.from_numpy(matrix).float()


def unit_grids(module: nn.Module, layers: Sequence[str], inputs: Tensor) -> dict[str, UnitGrid]:
    """Return where the units of layers look.

    Parameters
    ----------
    module : Module
        Left as it was.
    layers : sequence of str
        Dotted names of layers that give maps ``(n, units, h, w)``.
    inputs : Tensor, (n, channels, height, width)
        As the network takes them; only their shape, precision and device matter.

    Raises
    ------
    InputError
        If there is no layer of a name, or it gives no map.
    """
    image = (int(inputs.shape[-2]), int(inputs.shape[-1]))
    return {layer: UnitGrid(receptive_field(module, layer, inputs), image) for layer in layers}


def strongest_places(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest value of each map and where it is.

    Parameters
    ----------
    maps : Tensor, (n, units, h, w)
        Without NaN.

    Returns
    -------
    values : Tensor, (n, units)
        The largest values.
    places : Tensor of int64, (n, units)
        Their positions counted row by row, as :meth:`UnitGrid.centres` takes them; of equal values the first.
    """
    flat = maps.flatten(2)
    largest = flat.amax(dim=2, keepdim=True)
    # The first of equals, on every device.
    return largest[..., 0], (flat == largest).int().argmax(dim=2)
