"""Images and a frozen network made ready to be asked about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from cnn_interp.disentangling.part_cells import PartCells, mirrored_features, part_cells
from cnn_interp.disentangling.part_graph import PartSettings
from cnn_interp.images.sets import Images, Picture
from cnn_interp.middle_to_end.dialogue import Dialogue
from cnn_interp.middle_to_end.journal import Log
from cnn_interp.middle_to_end.selection import ACTIVE, SELECTIONS
from cnn_interp.networks.network import Network
from interpretkit.errors import InputError


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a dialogue about a part needs of images and network.

    Attributes
    ----------
    images : Images
        The set.
    cells : PartCells
        Of all its images.
    features : ndarray of float, (n, 2, d)
        The deepest map's mean over positions, for images and mirror images.
    candidates : ndarray of int
        Images that may be asked about.
    key : str
        Hash of the network, its weights and the images.
    """

    images: Images
    cells: PartCells
    features: NDArray[np.float64]
    candidates: NDArray[np.int64]
    key: str

    def encode(self, network: Network, picture: Picture) -> PartCells:
        """Return the cells of a picture ``(h, w, 3)`` that is none of the images.

        Parameters
        ----------
        network : Network
            The one that the lesson was prepared with.
        picture : ndarray of uint8, (h, w, 3)
            Red, green and blue.
        """
        one = Images(name="picture", ids=("picture",), load=lambda number: picture)
        encoder = self.cells.encoder
        both = mirrored_features(network, one, encoder.layers)
        return PartCells(torch.stack([encoder.encode(features) for features in both], dim=1), encoder)

    def dialogue(
        self,
        part: str,
        *,
        order: str = ACTIVE,
        log: Log | None = None,
        settings: PartSettings | None = None,
        seed: int = 0,
    ) -> Dialogue:
        """Return a dialogue about a part.

        Parameters
        ----------
        part : str
            What the part is called.
        order : str
            One of ``SELECTIONS``: what is asked next.
        log, settings, seed
            See :class:`Dialogue`.

        Raises
        ------
        InputError
            If there is no such order.
        """
        if order not in SELECTIONS:
            raise InputError(f"order {order!r}: expected one of {', '.join(SELECTIONS)}")
        select = SELECTIONS[order](len(self.candidates), seed)
        return Dialogue(
            self.cells, self.features, part=part, selection=select, log=log, settings=settings,
            candidates=self.candidates, seed=seed,
        )  # fmt: skip


def prepare_lesson(
    network: Network,
    images: Images,
    layers: Sequence[str],
    deep: str,
    folder: Path | str | None = None,
    *,
    candidates: ArrayLike | None = None,
    quiet: bool = True,
) -> Lesson:
    """Return images made ready to be asked about.

    Parameters
    ----------
    network : Network
        Stays as it is.
    images : Images
        Any set.
    layers : sequence of str
        Whose cells are looked at; see :func:`cnn_interp.disentangling.part_cells.part_layers`.
    deep : str
        The layer by which images are alike.
    folder : path, optional
        Where maps are kept.
    candidates : array_like of int, optional
        Images that may be asked about, and from which cells are learned; all by default.
    quiet : bool
        Whether to show no progress bar.
    """
    chosen = (
        np.arange(len(images)) if candidates is None else np.unique(np.asarray(candidates, dtype=np.int64))
    )
    plain, other = mirrored_features(
        network, images, list(dict.fromkeys([*layers, deep])), folder, quiet=quiet
    )
    cells = part_cells((plain, other), layers, learn_rows=chosen)
    whole = np.stack([one[deep].tensor().mean(dim=(2, 3)).double().numpy() for one in (plain, other)], axis=1)
    return Lesson(images, cells, whole, chosen, plain.key)
