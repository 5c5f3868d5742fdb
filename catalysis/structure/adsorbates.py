"""Adsorbates: any one molecule, recognised by its atoms and bonds and named by its formula; how it is placed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from ase import Atoms

from catalysis.structure.elements import COVALENT_RADIUS, METALS, NON_METALS
from catalysis.structure.ordering import first_largest, tolerant_order
from interpretkit.errors import InputError

BOND_REACH = 1.3
"""Two atoms of an adsorbate are bonded up to this multiple of the sum of their covalent radii …"""

BOND_SLACK = 0.28
"""… or, which matters for H2, up to this many Å beyond the sum."""

_BOND_STRETCH = {1: 1.07, 2: 1.16, 3: 1.15, 4: 1.20}
_SUNKEN = (
    0.4  # Å above a square of metals that is too wide to touch: where hydrogen sits on (100) of Ni, Cu and Pd
)
_LOOSE = 1.35  # so many usual bond lengths may the metals be away; beyond, it is no hollow for this atom
# No atom of a molecule placed by rule stands lower than this above the binding atom.
_SMALLEST_RISE = np.deg2rad(25)
_VALENCE = {"B": 3, "C": 4, "Si": 4, "Ge": 4, "N": 3, "P": 5, "As": 5, "O": 2, "S": 4, "Se": 4, "Te": 4}
_USUAL_NAMES = {"SH2": "H2S", "H2CO": "CH2O", "H3CNH2": "CH3NH2", "CH3CH2OH": "C2H5OH"}
_LONE_PAIRS = ("N", "P", "As", "S", "Se", "Te", "O")


@dataclass(frozen=True)
class Adsorbate:
    """A molecule on a surface.

    Attributes
    ----------
    name : str
        For example `"OH"`.
    symbols : tuple of str
        The elements, binding atom first, shape (m,).
    offsets : tuple of tuple of float
        Positions relative to the binding atom in Å, shape (m, 2) or (m, 3): sideways (perpendicular to the axis of a
        bridge), along the outward normal of the site and, where it is given, along the axis of the bridge.
    """

    name: str
    symbols: tuple[str, ...]
    offsets: tuple[tuple[float, ...], ...]

    @classmethod
    def from_atoms(cls, atoms: Atoms, *, binding: int | None = None, where: str = "adsorbate") -> Adsorbate:
        """Return the molecule of a structure, turned so that it stands on its binding atom.

        Parameters
        ----------
        atoms : Atoms
            One molecule, without a surface.
        binding : int, optional
            Index of the atom that binds to the metals; by default the one with most free valences, then a lone pair.
        where : str
            The name of the option or file, for the error message.

        Raises
        ------
        InputError
            If the atoms are no molecule.
        """
        symbols = atoms.get_chemical_symbols()
        positions = atoms.get_positions()
        unknown = sorted(set(symbols) - NON_METALS)
        if not symbols or unknown or not np.all(np.isfinite(positions)):
            found = f"holds {unknown[0]}" if unknown else "has no atoms, or atoms without a place"
            raise InputError(f"{where}: it {found}; expected one molecule of non-metals")
        bonds = _bonds(symbols, positions)
        if len(connected_parts(bonds)) > 1:
            raise InputError(f"{where}: its atoms are not one molecule; expected one")
        first = _binding_atom(symbols, bonds) if binding is None else binding
        if not 0 <= first < len(symbols):
            raise InputError(f"{where}: binding atom {binding}; expected 0 to {len(symbols) - 1}")
        order = [first, *[i for i in range(len(symbols)) if i != first]]
        symbols = [symbols[i] for i in order]
        offsets = _standing(positions[order] - positions[first], symbols)
        name = adsorbate_name(symbols, positions[order])
        return cls(name, tuple(symbols), tuple(tuple(float(x) for x in row) for row in offsets))

    @property
    def is_common(self) -> bool:
        """Whether it is one of `ADSORBATES`, whose geometry is known to suit every site."""
        return ADSORBATES.get(self.name) == self

    def place(self, anchor: np.ndarray, normal: np.ndarray, sideways: np.ndarray) -> np.ndarray:
        """Return positions (m, 3) in Å with the binding atom at `anchor` and the rest in the given frame."""
        axes = np.array([sideways, normal, np.cross(sideways, normal)])
        return anchor + np.array([np.asarray(offset) @ axes[: len(offset)] for offset in self.offsets])

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
        Adsorbate("F", ("F",), ((0.0, 0.0),)),
        Adsorbate("Cl", ("Cl",), ((0.0, 0.0),)),
        Adsorbate("Br", ("Br",), ((0.0, 0.0),)),
        Adsorbate("I", ("I",), ((0.0, 0.0),)),
        Adsorbate("P", ("P",), ((0.0, 0.0),)),
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
        Adsorbate("H2", ("H", "H"), ((0.0, 0.0), (0.0, 0.75))),
        Adsorbate("O2", ("O", "O"), ((0.0, 0.0), (0.70, 1.05))),
        Adsorbate("N2", ("N", "N"), ((0.0, 0.0), (0.0, 1.12))),
        Adsorbate("CN", ("C", "N"), ((0.0, 0.0), (0.0, 1.17))),
        Adsorbate("SH", ("S", "H"), ((0.0, 0.0), (1.08, 0.82))),
        Adsorbate("NNH", ("N", "N", "H"), ((0.0, 0.0), (0.0, 1.20), (0.88, 1.72))),
        Adsorbate("NH3", ("N", "H", "H", "H"),
                  ((0.0, 0.0), (0.94, 0.38, 0.0), (-0.47, 0.38, 0.814), (-0.47, 0.38, -0.814))),
        Adsorbate("CH2", ("C", "H", "H"), ((0.0, 0.0), (0.90, 0.62), (-0.90, 0.62))),
        Adsorbate("CH3", ("C", "H", "H", "H"),
                  ((0.0, 0.0), (1.02, 0.40, 0.0), (-0.51, 0.40, 0.883), (-0.51, 0.40, -0.883))),
        Adsorbate("CO2", ("C", "O", "O"), ((0.0, 0.0), (1.08, 0.60), (-1.08, 0.60))),
        Adsorbate("COOH", ("C", "O", "O", "H"), ((0.0, 0.0), (1.05, 0.63), (-1.08, 0.78), (-0.95, 1.75))),
        Adsorbate("HCOO", ("O", "C", "O", "H"), ((0.0, 0.0), (0.65, 1.10), (1.87, 1.28), (0.13, 2.07))),
        Adsorbate("CHOH", ("C", "O", "H", "H"), ((0.0, 0.0), (1.00, 0.86), (-0.95, 0.55), (0.80, 1.81))),
        Adsorbate("CH2OH", ("C", "O", "H", "H", "H"),
                  ((0.0, 0.0), (0.92, 1.08), (-0.62, 0.32, 0.84), (-0.62, 0.32, -0.84), (0.55, 1.98))),
        Adsorbate("CH3O", ("O", "C", "H", "H", "H"),
                  ((0.0, 0.0), (0.0, 1.42), (1.03, 1.80, 0.0), (-0.515, 1.80, 0.892), (-0.515, 1.80, -0.892))),
    )
}  # fmt: skip
"""Common adsorbates by their names. Any other molecule is read as well; see `get_adsorbate` for placing it."""

# Molecules that were read and that nobody has a geometry of, as they were first met.
_SEEN: dict[str, Adsorbate] = {}


def get_adsorbate(name: str | Adsorbate | Atoms, where: str = "adsorbate") -> Adsorbate:
    """Return an adsorbate that can be placed.

    Parameters
    ----------
    name : str or Adsorbate or Atoms
        One of `ADSORBATES` (an asterisk is ignored); a molecule that `ase.build.molecule` knows, or a formula that
        fits just one of them; a file that holds one molecule; the name of a molecule that was read before; or the
        molecule itself.
    where : str
        Names the option, for the error message.

    Raises
    ------
    InputError
        If no geometry is known for it.
    """
    if isinstance(name, Adsorbate):
        return name
    if isinstance(name, Atoms):
        return Adsorbate.from_atoms(name, where=where)
    clean = name.strip().strip("*")
    if clean in ADSORBATES:
        return ADSORBATES[clean]
    if Path(clean).suffix and Path(clean).is_file():
        from catalysis.structure.reading import read_structures

        frames = [atoms for _, _, atoms in read_structures(clean)]
        if len(frames) != 1:
            raise InputError(f"{where}: {clean} holds {len(frames)} structures; expected one molecule")
        return Adsorbate.from_atoms(frames[0], where=f"{where} {clean}")
    found = _from_library(clean)
    if found is not None:
        return found
    if clean in _SEEN:
        return _SEEN[clean]
    if clean in METALS:
        raise InputError(f"{where}: {clean!r} is a metal; expected a molecule of non-metals")
    raise InputError(
        f"{where}: unknown adsorbate {name!r}; expected one of {', '.join(ADSORBATES)}, a molecule of "
        "ase.build.molecule, or a file that holds one"
    )


def bonded_pairs(symbols: Sequence[str], positions: np.ndarray) -> Counter[tuple[str, ...]]:
    """Return how often each pair of elements is bonded within a molecule.

    Parameters
    ----------
    symbols : sequence of str
    positions : ndarray
        Elements (m,) and positions (m, 3) in Å.
    """
    first, second = np.nonzero(np.triu(_bonds(symbols, positions)))
    pairs = [sorted((symbols[i], symbols[j])) for i, j in zip(first.tolist(), second.tolist(), strict=True)]
    return Counter(tuple(pair) for pair in pairs)


def adsorbate_name(symbols: Sequence[str], positions: np.ndarray) -> str:
    """Return the name of a molecule: the usual one where its atoms and bonds are known, else its formula (Hill).

    Parameters
    ----------
    symbols : sequence of str
    positions : ndarray
        Elements (m,) and positions (m, 3) in Å, in any order.
    """
    if len(symbols) == 1:
        return symbols[0]
    pairs = bonded_pairs(symbols, positions)
    key = _key(symbols, pairs)
    return _common_names().get(key) or _library_names().get(key) or _formula(symbols)


def remember_adsorbate(name: str, symbols: Sequence[str], positions: np.ndarray) -> None:
    """Keep the geometry of a molecule that was read and that none is known of, so that it can be placed elsewhere.

    Parameters
    ----------
    name : str
        As `adsorbate_name` gives it.
    symbols : sequence of str
    positions : ndarray
        Elements (m,) and positions (m, 3) in Å, the binding atom first.
    """
    if name not in ADSORBATES and name not in _SEEN:
        offsets = _standing(np.asarray(positions) - positions[0], symbols)
        _SEEN[name] = Adsorbate(name, tuple(symbols), tuple(tuple(float(x) for x in row) for row in offsets))


def bond_limits(radii: np.ndarray) -> np.ndarray:
    """Return up to which distance (Å) each two of some non-metals are bonded, shape (n, n), given their radii (n,)."""
    sums = radii[:, None] + radii[None]
    return np.maximum(BOND_REACH * sums, sums + BOND_SLACK)


def connected_parts(bonds: np.ndarray) -> list[list[int]]:
    """Return which atoms belong together, each part ascending, given who is bonded to whom, shape (n, n)."""
    left, parts = set(range(len(bonds))), []
    for first in range(len(bonds)):
        if first in left:
            parts.append(sorted(atom for atom, _ in reached_from(first, bonds)))
            left -= set(parts[-1])
    return parts


def reached_from(first: int, bonds: np.ndarray) -> list[tuple[int, int]]:
    """Return the atoms bonded to one, directly or by others, nearest first, each with the atom that leads to it.

    Breadth first; the first atom leads to itself. Molecules are small: a sparse matrix takes longer to make.
    """
    symmetric = bonds | bonds.T
    order, before = [first], {first: first}
    for atom in order:
        for other in np.flatnonzero(symmetric[atom]).tolist():
            if other not in before:
                before[other] = atom
                order.append(other)
    return [(atom, before[atom]) for atom in order]


def _bonds(symbols: Sequence[str], positions: np.ndarray) -> np.ndarray:
    radii = np.array([COVALENT_RADIUS[symbol] for symbol in symbols])
    gaps = np.linalg.norm(np.asarray(positions)[:, None] - np.asarray(positions)[None], axis=-1)
    bonds = np.less_equal(gaps, bond_limits(radii))
    np.fill_diagonal(bonds, False)
    return bonds


def _key(symbols: Sequence[str], pairs: Counter[tuple[str, ...]]) -> tuple[object, ...]:
    return tuple(sorted(Counter(symbols).items())), tuple(sorted(pairs.items()))


def _formula(symbols: Sequence[str]) -> str:
    return Atoms(list(symbols)).get_chemical_formula(mode="hill")


@cache
def _common_names() -> dict[tuple[object, ...], str]:
    x, y, z = np.eye(3)
    placed = {name: adsorbate.place(0 * x, z, y) for name, adsorbate in ADSORBATES.items()}
    return {
        _key(ADSORBATES[name].symbols, bonded_pairs(ADSORBATES[name].symbols, positions)): name
        for name, positions in placed.items()
    }


@cache
def _library() -> dict[str, Atoms]:
    """Return the molecules of ASE whose elements an adsorbate may be made of, by name."""
    from ase.build import molecule
    from ase.collections import g2

    found = {str(name): molecule(str(name)) for name in g2.names}
    return {name: atoms for name, atoms in found.items() if set(atoms.get_chemical_symbols()) <= NON_METALS}


@cache
def _library_names() -> dict[tuple[object, ...], str]:
    """Return names by atoms and bonds: those of ASE that are formulas and belong to no other molecule."""
    names: dict[tuple[object, ...], list[str]] = {}
    for name, atoms in _library().items():
        symbols = atoms.get_chemical_symbols()
        key = _key(symbols, bonded_pairs(symbols, atoms.positions))
        name = _USUAL_NAMES.get(name, name)
        names.setdefault(key, []).append(name if _counts(name) == Counter(symbols) else _formula(symbols))
    return {key: found[0] for key, found in names.items() if len(set(found)) == 1}


def _counts(text: str) -> Counter[str] | None:
    """Return how many atoms of each element a formula such as `"CH3OH"` has, None if it is no formula."""
    if not re.fullmatch(r"([A-Z][a-z]?\d*)+", text):
        return None
    counts: Counter[str] = Counter()
    for symbol, number in re.findall(r"([A-Z][a-z]?)(\d*)", text):
        counts[symbol] += int(number or 1)
    return counts


@cache
def _from_library(name: str) -> Adsorbate | None:
    """Return the molecule of that name, or the only one of that formula, from ASE's collection."""
    library = _library()
    name = {usual: other for other, usual in _USUAL_NAMES.items()}.get(name, name)
    names = [name] if name in library else []
    if not names and (counts := _counts(name)) is not None:
        names = [other for other, atoms in library.items() if Counter(atoms.get_chemical_symbols()) == counts]
    if len(names) != 1:
        return None
    found = Adsorbate.from_atoms(library[names[0]], where=f"adsorbate {name}")
    return ADSORBATES.get(found.name, found)


def _binding_atom(symbols: Sequence[str], bonds: np.ndarray) -> int:
    """Return the atom that binds: with the most free valences, then with a lone pair, then the first.

    A saturated carbon cannot bind; of CH4, a hydrogen is nearest to the surface.
    """
    free = [_VALENCE.get(symbol, 1) - int(bonds[i].sum()) for i, symbol in enumerate(symbols)]
    able = [i for i, s in enumerate(symbols) if free[i] > 0 or s in _LONE_PAIRS or s not in _VALENCE]

    def rank(i: int) -> tuple[int, int, int]:
        symbol = symbols[i]
        pairs = _LONE_PAIRS.index(symbol) if symbol in _LONE_PAIRS else len(_LONE_PAIRS) + (symbol == "H")
        return (min(-free[i], 0), pairs, i)

    return min(able or range(len(symbols)), key=rank)


def _standing(positions: np.ndarray, symbols: Sequence[str]) -> np.ndarray:
    """Return a molecule that stands on its first atom, shape (m, 3): sideways, up, along.

    The centre of the other atoms is turned upwards if none of them hangs low then, else the widest empty cone is
    turned downwards. Atoms that still hang low are lifted, keeping their distance from the binding atom, unless that
    would make or break bonds.
    """
    if len(positions) == 1:
        return np.zeros((1, 3))
    offsets = positions - positions[0]
    lengths = np.linalg.norm(offsets, axis=1)
    directions = offsets[1:] / lengths[1:, None]
    centre = offsets[1:].mean(0)
    up = centre / max(float(np.linalg.norm(centre)), 1e-9)
    if (directions @ up).min() < np.sin(_SMALLEST_RISE):
        candidates = np.vstack([*_sphere(500), *directions, np.linalg.svd(directions)[2]])
        candidates = np.vstack([candidates, -candidates])
        lowest = (candidates @ directions.T).min(1)
        # Of the directions that keep everything equally high, the one nearest to the centre of the molecule.
        up = candidates[tolerant_order(-lowest, -(candidates @ centre), tolerance=1e-6)[0]]
    heights = offsets @ up
    flat = offsets - np.outer(heights, up)
    widths = np.linalg.norm(flat, axis=1)
    far = int(tolerant_order(-widths)[0])
    if widths[far] < 1e-3:
        return np.column_stack([0 * widths, heights, 0 * widths])
    sideways = flat[far] / widths[far]
    standing = np.column_stack([flat @ sideways, heights, flat @ np.cross(sideways, up)])
    lifted = np.maximum(heights, np.sin(_SMALLEST_RISE) * lengths)
    scale = np.sqrt(np.maximum(lengths**2 - lifted**2, 0.0)) / np.maximum(widths, 1e-6)
    raised = standing * scale[:, None]
    raised[:, 1] = lifted
    same = np.all(widths[lifted > heights] > 1e-3) and np.array_equal(
        _bonds(symbols, raised), _bonds(symbols, standing)
    )
    return raised if same else standing


def _sphere(count: int) -> np.ndarray:
    """Return directions spread evenly over a sphere (a Fibonacci lattice), shape (count, 3)."""
    k = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * k / count), np.pi * (1 + np.sqrt(5)) * k
    return np.column_stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)])


def place_adsorbate(
    symbols: Sequence[str], positions: np.ndarray, contacts: int, frame: np.ndarray, adsorbate: Adsorbate
) -> np.ndarray | None:
    """Place an adsorbate on its contacts, pushed outwards along the normal to its usual bond length.

    An atom so small that it would fall through a square of metals stays in its middle, a little above them: hydrogen
    in the hollows of (100). A molecule other than the common ones is turned about the normal, if need be, so that its
    binding atom is the one that is nearest to the metals.

    Parameters
    ----------
    symbols : sequence of str
    positions : ndarray
        The metals, contacts first; positions (n, 3) in Å.
    contacts : int
        How many bind.
    frame : ndarray
        See `Site.frame`.
    adsorbate : Adsorbate
        What to place.

    Returns
    -------
    ndarray or None
        Positions (m, 3) in Å; None if the contacts are too far apart to bind it.
    """
    length = float(np.mean([adsorbate.bond_length(symbol, contacts) for symbol in symbols[:contacts]]))
    centre = positions[:contacts].mean(0)
    reach = float(np.linalg.norm(positions[:contacts] - centre, axis=1).mean())
    height = np.sqrt(max(length**2 - reach**2, 0.0))
    if length <= reach:
        if contacts != 4 or reach > _LOOSE * length:
            return None
        height = _SUNKEN
    anchor = centre + frame[2] * height
    placed = adsorbate.place(anchor, frame[2], frame[1])
    if adsorbate.is_common or len(placed) == 1:
        return placed
    radii = np.array([COVALENT_RADIUS[symbol] for symbol in symbols])
    own = np.array([COVALENT_RADIUS[symbol] for symbol in adsorbate.symbols])
    turns = np.deg2rad(np.arange(0, 360, 15))
    tries = [adsorbate.place(anchor, frame[2], np.cos(t) * frame[1] + np.sin(t) * frame[0]) for t in turns]
    margins = []
    for points in tries:
        gaps = np.linalg.norm(points[:, None] - positions[None], axis=-1) / (own[:, None] + radii[None])
        nearest = gaps.min(1)
        # Beyond that, the first way to stand is the best.
        margins.append(min(nearest[1:].min() - nearest[0], 0.15))
    return tries[first_largest(np.array(margins))]
