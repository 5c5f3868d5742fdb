"""Which metals bind an adsorbate, and which stand around them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from scipy.spatial import ConvexHull, QhullError

from catalysis.structure.elements import BOND_FACTOR, COVALENT_RADIUS
from catalysis.structure.ordering import tolerant_order
from catalysis.structure.periodicity import Lattice
from catalysis.structure.refusal import RADII
from catalysis.structure.sites import Environment
from interpretkit.errors import InputError

BINDING_LIMIT = 1.40
"""A metal binds an atom up to this multiple of the sum of their covalent radii …"""
_BINDING_SPREAD = 1.22  # … and up to this multiple of the shortest such distance …
# … or this many Å beyond it, if that is less: a large atom in a bridge is near to all around.
_BINDING_SLACK = 0.44
_ENCLOSING = 1.50  # Metals up to this multiple of the sum of radii may enclose an atom …
_BURIED = 0.30  # … that lies this deep (Å) within their convex hull: it is below the surface, not on it.
# No site of a surface has more metals so near, in multiples of the sum of radii; an atom in a metal's place has nine.
_MOST_CLOSE, _CLOSE = 6, 1.25
_RING_SPREAD = 1.25  # A metal is screened by a ring of others up to this multiple of its own distance …
_RING_DEPTH = 0.50  # … if it lies this much (Å) below the ring …
_RING_GAP = np.deg2rad(150)  # … and the ring leaves no wider gap than this.
_EQUAL_STRETCH = 1e-3  # atoms of a molecule that are equally near to the metals, in sums of radii


class Surroundings:
    """The metals around a molecule, every periodic image by itself."""

    def __init__(self, atoms: Atoms, is_metal: np.ndarray, lattice: Lattice, molecule: np.ndarray) -> None:
        own = np.flatnonzero(is_metal)
        radii = RADII[atoms.numbers[own]]
        centre = (molecule.min(0) + molecule.max(0)) / 2
        size = float(np.linalg.norm(molecule - centre, axis=1).max())
        widest = RADII[atoms.numbers[~is_metal]].max()
        # As far as two bonds from the farthest contact.
        reach = size + _ENCLOSING * (radii.max() + widest) + 2 * BOND_FACTOR * 2 * radii.max()
        member, offsets = lattice.images(atoms.positions[own] - centre, reach)
        self.positions = offsets + centre
        self.radii = radii[member]
        self.indices = own[member]
        self.numbers = atoms.numbers[self.indices]

    def binding_first(self, symbols: Sequence[str], positions: np.ndarray) -> list[int]:
        """Return the order of a molecule's atoms: the binding one first, the others as they are.

        The one nearest to a metal binds, measured in bond lengths: the hydrogen of *OH can be as near as its oxygen.
        Of equally near ones the heaviest element binds, then the one with the next metal nearer.
        """
        if len(symbols) == 1:
            return [0]
        own = np.array([COVALENT_RADIUS[symbol] for symbol in symbols])
        gaps = np.linalg.norm(positions[:, None] - self.positions[None], axis=-1) / (
            own[:, None] + self.radii[None]
        )
        nearest = np.sort(gaps, axis=1)[:, :4]
        equal = np.flatnonzero(nearest[:, 0] <= nearest[:, 0].min() + _EQUAL_STRETCH)
        best = equal[0]
        if len(equal) > 1:
            keys = (-own[equal], *nearest[equal].T, *positions[equal].T)
            best = equal[tolerant_order(*keys, tolerance=_EQUAL_STRETCH)[0]]
        return [int(best), *[i for i in range(len(symbols)) if i != best]]

    def contacts_of(
        self, point: np.ndarray, symbol: str, name: str, count: int | None, at_least: int, where: str
    ) -> np.ndarray:
        """Return which metals bind an atom at `point`, nearest first."""
        offsets = self.positions - point
        distances = np.linalg.norm(offsets, axis=1)
        stretches = distances / (self.radii + COVALENT_RADIUS[symbol])
        if not np.any(stretches <= BINDING_LIMIT):
            gap = f"{distances.min():.2f} Å" if len(distances) else "far"
            raise InputError(
                f"{where}: the adsorbate {name} is {gap} from the nearest metal; "
                "expected an adsorbate bound to the surface"
            )
        enclosing = stretches <= _ENCLOSING
        if _buried_depth(offsets[enclosing]) > _BURIED:
            atom = name if name == symbol else f"{symbol} of {name}"
            raise InputError(
                f"{where}: the {atom} lies below the surface, enclosed by {int(enclosing.sum())} metals; "
                "expected the adsorbate on the surface"
            )
        close = int((stretches <= _CLOSE).sum())
        if close > _MOST_CLOSE:
            atom = name if name == symbol else f"{symbol} of {name}"
            raise InputError(
                f"{where}: the {atom} lies within the surface, among {close} metals; "
                "expected the adsorbate on the surface"
            )
        wide = np.flatnonzero(stretches <= BINDING_LIMIT)
        wide = wide[~_screened(offsets[wide], distances[wide])]
        wide = wide[tolerant_order(distances[wide], *self.positions[wide].T)]
        shortest = distances[wide].min()
        limit = min(_BINDING_SPREAD * shortest, shortest + _BINDING_SLACK)
        near = int((distances[wide] <= limit).sum())
        wanted = min(max(near, at_least), 4) if count is None else count
        if len(wide) < wanted:
            # Contacts that are told, not found, may be farther away.
            wide = tolerant_order(distances, *self.positions.T)
        if len(wide) < wanted:
            raise InputError(f"{where}: {len(wide)} metals; expected at least {wanted} to bind the adsorbate")
        return wide[:wanted]

    def environment(self, contacts: np.ndarray) -> tuple[Environment, list[int]]:
        """Return the contacts with every metal within two bonds of them, and the contacts' coordination numbers."""
        first = self._bonded(contacts)
        shell = np.flatnonzero(first.any(0))
        second = self._bonded(shell).any(0)
        others = np.logical_or(first.any(0), second)
        others[contacts] = False
        members = np.concatenate([contacts, np.flatnonzero(others)])
        environment = Environment(
            [chemical_symbols[number] for number in self.numbers[members].tolist()],
            self.positions[members],
            first[:, members],
            self.indices[members].tolist(),
        )
        return environment, first.sum(1).tolist()

    def _bonded(self, members: np.ndarray) -> np.ndarray:
        gaps = self.positions[members][:, None] - self.positions[None]
        cutoffs = BOND_FACTOR * (self.radii[members][:, None] + self.radii[None])
        bonded = np.less_equal(np.einsum("ijk,ijk->ij", gaps, gaps), cutoffs**2)
        bonded &= members[:, None] != np.arange(len(self.positions))
        return bonded


def _buried_depth(offsets: np.ndarray) -> float:
    """Return how deep (Å) the origin lies within the convex hull of some points, 0 or less if it lies outside."""
    if len(offsets) < 4:
        return 0.0
    outwards = -(offsets / np.linalg.norm(offsets, axis=1, keepdims=True)).sum(0)
    size = float(np.linalg.norm(outwards))
    if size > 1e-6 and (offsets @ outwards).max() <= _BURIED * size:
        return 0.0  # all lie on one side
    try:
        return float(-ConvexHull(offsets).equations[:, 3].max())
    except QhullError:  # the points lie in one plane
        return 0.0


def _screened(offsets: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Return which metals lie behind a ring of others, seen from the binding atom at the origin, shape (n,).

    In a square hollow of a bcc crystal the metal below is as near as the four around it, and sometimes nearer.
    """
    screened = np.zeros(len(offsets), dtype=bool)
    if len(offsets) < 4:
        return screened
    directions = offsets / distances[:, None]
    for k in range(len(offsets)):
        ring = (distances <= _RING_SPREAD * distances[k]) & (np.arange(len(offsets)) != k)
        axis = directions[ring].sum(0)
        size = np.linalg.norm(axis)
        if ring.sum() < 3 or size < 1e-6:
            continue
        axis /= size
        depths = offsets @ axis
        if depths[k] < depths[ring].mean() + _RING_DEPTH:
            continue
        across = np.cross(axis, np.eye(3)[np.abs(axis).argmin()])
        across /= np.linalg.norm(across)
        aside = offsets[ring] - offsets[k]
        angles = np.sort(np.arctan2(aside @ np.cross(axis, across), aside @ across))
        gaps = np.diff(angles, append=angles[0] + 2 * np.pi)
        screened[k] = bool(gaps.max() < _RING_GAP)
    return screened
