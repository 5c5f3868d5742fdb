"""Cells whose periodic images are told apart, also where a cell is so small that an atom is its own neighbour."""

# `ase.geometry` knows the nearest image only, and ASE's neighbour lists take ten times as long for a slab of 50 atoms.

from __future__ import annotations

from itertools import product

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell


class Lattice:
    """A cell and its inverse, to tell periodic images apart."""

    def __init__(self, atoms: Atoms) -> None:
        self.pbc = atoms.pbc
        self.periodic = bool(self.pbc.any())
        with np.errstate(invalid="ignore", divide="ignore"):  # vectors that are not independent
            self.cell = complete_cell(atoms.cell.array)
        lengths = np.sqrt((self.cell**2).sum(1))
        volume = abs(np.linalg.det(self.cell)) / lengths.prod()
        self.has_volume = bool(np.isfinite(volume) and volume > 1e-6)
        if self.has_volume:
            self.inverse = np.linalg.inv(self.cell)

    def shifts(self, reach: float) -> np.ndarray:
        """Return the multiples (k, 3) of the cell vectors that lead to images within `reach` of a point.

        The point is the origin, the images are of another in the middle cell around it.
        """
        # The lengths of the columns of the inverse are the reciprocal heights of the cell.
        limits = np.floor(reach * np.sqrt((self.inverse**2).sum(0)) + 0.5).astype(int) * self.pbc
        return np.array(list(product(*(range(-n, n + 1) for n in limits.tolist()))), dtype=float)

    def centred(self, offsets: np.ndarray) -> np.ndarray:
        """Return the images of some points (…, 3) that lie in the middle cell around the origin."""
        if not self.periodic:
            return offsets
        return offsets - (np.rint(offsets @ self.inverse) * self.pbc) @ self.cell

    def images(self, offsets: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
        """Return whose image it is (k,) and where (k, 3), for each within `reach` (Å) of the origin."""
        if not self.periodic:
            return np.arange(len(offsets)), offsets
        images = self.centred(offsets)[:, None] + self.shifts(reach) @ self.cell
        member, image = np.nonzero(np.einsum("ijk,ijk->ij", images, images) <= reach**2)
        return member, images[member, image]
