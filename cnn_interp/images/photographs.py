"""Photographs to search, to learn from and to compare with: files, data sets, or those that scikit-image brings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cnn_interp.images.files import DEFAULT_PHOTOGRAPH, photograph, read_image
from cnn_interp.images.sets import Images
from cnn_interp.networks.network import Network
from interpretkit.errors import InputError
from interpretkit.training import numpy_generator

# The photographs of scikit-image that show scenes and surfaces of the everyday world.
BUNDLED = (
    "chelsea", "coffee", "astronaut", "rocket", "motorcycle_left", "hubble_deep_field",
    "camera", "coins", "brick", "grass", "gravel", "moon",
)  # fmt: skip


@dataclass(frozen=True)
class Photographs:
    """Photographs in an order, each loaded when it is asked for, so that there may be any number.

    Attributes
    ----------
    names : tuple of str, (n,)
        What they are called.
    load : callable
        From a number below ``n`` to an image.
    source : str
        Where they come from, in a few words.
    """

    names: tuple[str, ...]
    load: Callable[[int], Image.Image]
    source: str = "photographs"

    @classmethod
    def default(cls) -> Photographs:
        """Return the photograph shown where none is named."""
        return cls((DEFAULT_PHOTOGRAPH,), lambda _: photograph(), "scikit-image")

    @classmethod
    def bundled(cls) -> Photographs:
        """Return the twelve photographs that come with scikit-image."""
        return cls(BUNDLED, lambda row: photograph(BUNDLED[row]), "photographs of scikit-image")

    @classmethod
    def of_files(cls, paths: Sequence[Path], *, convert: bool = False) -> Photographs:
        """Return the photographs in files; see :func:`cnn_interp.images.files.read_image`."""
        paths = tuple(paths)
        return cls(tuple(str(path) for path in paths), lambda row: read_image(paths[row], convert=convert))

    @classmethod
    def of_dataset(cls, images: Images) -> Photographs:
        """Return the images of a data set."""
        return cls(images.ids, lambda row: Image.fromarray(images.image(row)), images.name)

    def __len__(self) -> int:
        return len(self.names)

    def digest(self) -> str:
        """Return the SHA-256 of all photographs as they are loaded, in their order; each is loaded once for it."""
        digest = hashlib.sha256()
        for row in range(len(self)):
            image = self.load(row)
            digest.update(repr((image.mode, image.size)).encode() + image.tobytes())
        return digest.hexdigest()

    def subset(self, rows: Sequence[int]) -> Photographs:
        """Return the photographs at `rows` only, in that order."""
        kept = [int(row) for row in rows]
        return Photographs(
            tuple(self.names[row] for row in kept), lambda row: self.load(kept[row]), self.source
        )

    def split(self, held_out: float, seed: int) -> tuple[Photographs, Photographs]:
        """Return two parts, the second with the share `held_out` of the photographs, at least one in each.

        Raises
        ------
        InputError
            If there are fewer than two.
        """
        if len(self) < 2:
            raise InputError(
                f"{self.source}: {len(self)} photograph; expected at least 2, to learn from one and test on the other"
            )
        order = numpy_generator(seed, "split of photographs").permutation(len(self))
        apart = min(max(round(held_out * len(self)), 1), len(self) - 1)
        return self.subset(sorted(order[apart:])), self.subset(sorted(order[:apart]))

    def inputs(self, network: Network, rows: Sequence[int] | NDArray[np.integer]) -> Tensor:
        """Return the network's inputs ``(n, 3, size, size)`` for some of the photographs."""
        return network.prepare([self.load(int(row)) for row in rows])

    def batches(self, network: Network, size: int = 8, start: int = 0) -> Iterator[tuple[range, Tensor]]:
        """Give the numbers of up to `size` photographs and their inputs, from the photograph `start` on."""
        for first in range(start, len(self), size):
            rows = range(first, min(first + size, len(self)))
            yield rows, self.inputs(network, rows)

    def crops(self, count: int, side: int, *, smallest: float = 0.4, seed: int = 0) -> Tensor:
        """Return square pieces of the photographs, as many of each, at random places and half of them mirrored.

        Parameters
        ----------
        count : int
            How many in all.
        side : int
            To which they are scaled, px.
        smallest : float
            The least side of a piece, as a share of the photograph's shorter side; the greatest is all of it.
        seed : int
            Seed of the places.

        Returns
        -------
        Tensor, (count, 3, side, side)
            Values in 0 … 1.
        """
        draw = numpy_generator(seed, "crops")
        pieces = np.empty((count, side, side, 3), dtype=np.uint8)
        # Photograph by photograph, so that each is loaded once.
        for row in range(min(len(self), count)):
            image = self.load(row).convert("RGB")
            for place in range(row, count, len(self)):
                length = min(image.size) * draw.uniform(smallest, 1)
                left, top = (draw.uniform(0, extent - length) for extent in image.size)
                box = (left, top, left + length, top + length)
                piece = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box=box))
                pieces[place] = piece[:, ::-1] if draw.random() < 0.5 else piece
        return torch.from_numpy(pieces).permute(0, 3, 1, 2).float() / 255
