"""The adsorbates that the toolkit recognises and places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from catalysis.elements import COVALENT_RADIUS
from interpretkit.errors import InputError

BOND_REACH = 1.3
"""Two atoms of an adsorbate are bonded up to this multiple of the sum of their covalent radii."""

_BOND_STRETCH = {1: 1.07, 2: 1.16, 3: 1.15, 4: 1.20}


@dataclass(frozen=True)
class Adsorbate:
    """A small molecule on a surface.

    Attributes
    ----------
    name
        For example `"OH"`.
    symbols
        The elements, binding atom first, shape (m,).
    offsets
        Positions relative to the binding atom in Å, shape (m, 2): sideways (perpendicular to the axis of a
        bridge) and along the outward normal of the site.
    """

    name: str
    symbols: tuple[str, ...]
    offsets: tuple[tuple[float, float], ...]

    def place(self, anchor: np.ndarray, normal: np.ndarray, sideways: np.ndarray) -> np.ndarray:
        """Return positions (m, 3) in Å with the binding atom at `anchor` and the rest in the given frame."""
        return anchor + np.array([side * sideways + up * normal for side, up in self.offsets])

    def bond_length(self, metal: str, contacts: int) -> float:
        """Return a usual distance (Å) of the binding atom from a metal at a site with so many contacts."""
        return _BOND_STRETCH[contacts] * (COVALENT_RADIUS[metal] + COVALENT_RADIUS[self.symbols[0]])


ADSORBATES: dict[str, Adsorbate] = {
    adsorbate.name: adsorbate
    for adsorbate in (
        Adsorbate("H", ("H",), ((0.0, 0.0),)),
        Adsorbate("C", ("C",), ((0.0, 0.0),)),
        Adsorbate("N", ("N",), ((0.0, 0.0),)),
        Adsorbate("O", ("O",), ((0.0, 0.0),)),
        Adsorbate("S", ("S",), ((0.0, 0.0),)),
        Adsorbate("OH", ("O", "H"), ((0.0, 0.0), (0.86, 0.46))),
        Adsorbate("OOH", ("O", "O", "H"), ((0.0, 0.0), (0.72, 1.25), (0.05, 1.95))),
        Adsorbate("H2O", ("O", "H", "H"), ((0.0, 0.0), (0.77, 0.59), (-0.77, 0.59))),
        Adsorbate("CO", ("C", "O"), ((0.0, 0.0), (0.0, 1.16))),
        Adsorbate("NO", ("N", "O"), ((0.0, 0.0), (0.0, 1.18))),
        Adsorbate("NH", ("N", "H"), ((0.0, 0.0), (0.0, 1.02))),
        Adsorbate("NH2", ("N", "H", "H"), ((0.0, 0.0), (0.81, 0.62), (-0.81, 0.62))),
        Adsorbate("CH", ("C", "H"), ((0.0, 0.0), (0.0, 1.10))),
        Adsorbate("CHO", ("C", "O", "H"), ((0.0, 0.0), (0.95, 0.77), (-0.95, 0.55))),
        Adsorbate("COH", ("C", "O", "H"), ((0.0, 0.0), (0.0, 1.34), (0.90, 1.66))),
    )
}
"""Every adsorbate by its name."""


def get_adsorbate(name: str, where: str = "adsorbate") -> Adsorbate:
    """Return the adsorbate of that name (an asterisk is ignored).

    Raises
    ------
    InputError
        If it is unknown; `where` names the option.
    """
    clean = name.strip().strip("*")
    if clean not in ADSORBATES:
        raise InputError(f"{where}: unknown adsorbate {name!r}; expected one of {', '.join(ADSORBATES)}")
    return ADSORBATES[clean]


def bonded_pairs(symbols: Sequence[str], positions: np.ndarray) -> Counter[tuple[str, ...]]:
    """Return how often each pair of elements is bonded within a molecule.

    Parameters
    ----------
    symbols, positions
        Elements (m,) and positions (m, 3) in Å.
    """
    pairs: Counter[tuple[str, ...]] = Counter()
    for i, j in combinations(range(len(symbols)), 2):
        reach = BOND_REACH * (COVALENT_RADIUS[symbols[i]] + COVALENT_RADIUS[symbols[j]])
        if np.linalg.norm(positions[i] - positions[j]) <= reach:
            pairs[tuple(sorted((symbols[i], symbols[j])))] += 1
    return pairs


def recognise_adsorbate(symbols: list[str], positions: np.ndarray, where: str) -> Adsorbate:
    """Return the adsorbate made of the given atoms: the same elements, bonds and binding atom.

    Parameters
    ----------
    symbols, positions
        Elements (m,) and positions (m, 3) in Å, the binding atom first.
    where
        The file and frame, for the error message.

    Raises
    ------
    InputError
        If there is none.
    """
    bonds = bonded_pairs(symbols, positions)
    for adsorbate in ADSORBATES.values():
        same_atoms = Counter(adsorbate.symbols) == Counter(symbols) and adsorbate.symbols[0] == symbols[0]
        if same_atoms and bonded_pairs(adsorbate.symbols, adsorbate.place(*np.eye(3))) == bonds:
            return adsorbate
    formula = "".join(symbols)
    raise InputError(f"{where}: unknown adsorbate {formula!r}; expected one of {', '.join(ADSORBATES)}")
