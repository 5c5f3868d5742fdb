"""Structures that are none, and why: atoms without a place or in one place, cells that cannot be, unknown elements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.neighborlist import neighbor_list

from catalysis.structure.elements import COVALENT_RADIUS
from catalysis.structure.periodicity import Lattice
from interpretkit.errors import InputError

RADII = np.array([COVALENT_RADIUS.get(symbol, np.nan) for symbol in chemical_symbols])
"""Covalent radii in Å by atomic number, NaN where there are no data of the element."""

_OVERLAP = 0.60  # Two atoms nearer than this multiple of the sum of their radii stand in one place.


def check_structure(atoms: Atoms, where: str) -> Lattice:
    """Refuse what is no structure: atoms without a place or in one place, cells that cannot be, unknown elements.

    Raises
    ------
    InputError
        For any of these, and for a cell without periodicity, which might be meant as a slab or as a cluster.
    """
    if len(atoms) == 0:
        raise InputError(f"{where}: no atoms; expected a slab or a cluster with an adsorbate")
    cell, pbc = atoms.cell.array, atoms.pbc
    if not np.all(np.isfinite(atoms.positions)):
        raise InputError(f"{where}: positions that are not finite; expected numbers in Å")
    if not np.all(np.isfinite(cell)):
        raise InputError(f"{where}: a cell that is not finite; expected lengths in Å")
    missing = ~cell.any(1)
    if not pbc.any() and not missing.all():
        raise InputError(
            f"{where}: a cell, but pbc is F F F; expected pbc T T F or T T T for a slab, "
            "or no cell for a finite cluster"
        )
    if np.any(pbc & missing):
        raise InputError(
            f"{where}: pbc is {pbc_text(atoms)}, but a cell vector is missing; expected one for each T"
        )
    lattice = Lattice(atoms)
    if not lattice.has_volume:
        raise InputError(f"{where}: the cell vectors are not independent; expected a cell with a volume")
    if np.isnan(RADII[atoms.numbers]).any():
        unknown = chemical_symbols[int(atoms.numbers[np.isnan(RADII[atoms.numbers])][0])]
        raise InputError(
            f"{where}: no data of the element {unknown!r}; expected metals and non-metals of common use"
        )
    _refuse_overlaps(atoms, lattice, where)
    return lattice


def _refuse_overlaps(atoms: Atoms, lattice: Lattice, where: str) -> None:
    radii = RADII[atoms.numbers]
    if len(atoms) > 400:  # all pairs at once would take much memory
        clean = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        first, second, apart = neighbor_list("ijd", clean, _OVERLAP * radii)
        _refuse_pairs(first, second, apart, atoms.get_chemical_symbols(), where)
        return
    limits = _OVERLAP * (radii[:, None] + radii[None])
    gaps = lattice.centred(atoms.positions[:, None] - atoms.positions[None])
    for shift in lattice.shifts(float(limits.max())) @ lattice.cell if lattice.periodic else np.zeros((1, 3)):
        at_home = not shift.any()
        moved = gaps if at_home else gaps + shift
        squares = np.einsum("ijk,ijk->ij", moved, moved)
        if at_home:
            np.fill_diagonal(squares, np.inf)
        first, second = np.nonzero(squares < limits**2)
        if len(first):
            distances = np.sqrt(squares[first, second])
            _refuse_pairs(first, second, distances, atoms.get_chemical_symbols(), where)


def _refuse_pairs(
    first: np.ndarray, second: np.ndarray, distances: np.ndarray, symbols: Sequence[str], where: str
) -> None:
    if not len(first):
        return
    pairs: list[tuple[int, int, float]] = list(
        zip(first.tolist(), second.tolist(), distances.tolist(), strict=True)
    )
    i, j, distance = min(pairs)
    raise InputError(
        f"{where}: atoms {i} ({symbols[i]}) and {j} ({symbols[j]}) are {distance:.2f} Å apart; "
        f"expected at least {_OVERLAP * (COVALENT_RADIUS[symbols[i]] + COVALENT_RADIUS[symbols[j]]):.2f} Å"
    )


def pbc_text(atoms: Atoms) -> str:
    """Return the periodicity as ASE writes it, for example `"T T F"`."""
    return " ".join("FT"[int(periodic)] for periodic in atoms.pbc)
