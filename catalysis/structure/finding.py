"""Adsorption sites on clean slabs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell
from ase.neighborlist import neighbor_list

from catalysis.structure.adsorbates import Adsorbate, get_adsorbate, place_adsorbate
from catalysis.structure.elements import METALS, bond_cutoff
from catalysis.structure.ordering import first_largest
from catalysis.structure.refusal import check_structure, pbc_text
from catalysis.structure.sites import (
    HCP_OFFSET,
    KINDS,
    LAYER,
    Environment,
    Site,
    depths_below,
    local_frame,
    named_kind,
    ordered_site,
    site_class_name,
)
from catalysis.structure.surfaces import read_facet
from interpretkit.errors import InputError

# No other metal may be nearer to the ball than this multiple of the contacts' distance; a top site must stand
# clear of the metals around, or it is one of the step's hollows.
_CLEARANCE = {1: 1.25, 2: 1.12, 3: 1.12, 4: 1.12}


def find_sites(
    slab: Atoms, *, kinds: Iterable[str] = ("bridge",), adsorbate: str | Adsorbate | Atoms = "OH"
) -> list[Site]:
    """Find the adsorption sites on the upper side of a clean slab and place the adsorbate on each.

    The adsorbate's binding atom is a ball that touches the contacts, pushed outwards from their neighbours; a site
    counts if the ball reaches the vacuum side without touching any other metal but one below the middle of four.

    Parameters
    ----------
    slab : Atoms
        A clean metal slab, periodic in the plane. Up is the way along the cell vector that leads into the vacuum.
    kinds : iterable of str
        Any of `"top"`, `"bridge"` and `"hollow"`.
    adsorbate : str or Adsorbate or Atoms
        What `catalysis.structure.adsorbates.get_adsorbate` reads: a name, or a molecule.

    Returns
    -------
    list of Site
        In the order of the contacts' indices; `host_indices` gives each metal's index in `slab`.

    Raises
    ------
    InputError
        For an unknown kind, adsorbate or metal, and for a slab that is none: without atoms or periodicity, with atoms
        that have no place or stand in one place.
    """
    wanted = set(kinds)
    if not wanted or not wanted <= set(KINDS.values()):
        raise InputError(f"kinds: {sorted(wanted)}; expected any of top, bridge, hollow")
    molecule = get_adsorbate(adsorbate)
    check_structure(slab, "slab")
    unknown = sorted(set(slab.get_chemical_symbols()) - METALS)
    if unknown:
        raise InputError(f"slab: unknown metal {unknown[0]!r}; expected a clean metal slab")
    if slab.pbc.sum() < 2:
        raise InputError(
            f"slab: pbc is {pbc_text(slab)}; expected a slab that is periodic in its plane, pbc T T F or T T T"
        )
    facet = read_facet(slab.info.get("facet"), "slab")
    slab_id = str(slab.info.get("slab_id", facet or "slab"))
    positions, up = _upright(slab)
    metals = SlabMetals(slab, positions)
    heights = positions @ up
    middle = (heights.min() + heights.max()) / 2
    coordination = metals.coordination
    exposed = [i for i in range(len(metals)) if coordination[i] < 12 and heights[i] > middle - 1e-6]
    sites = []
    named: Counter[str] = Counter()
    for contacts in metals.contact_sets(exposed, wanted):
        environment = metals.environment(contacts)
        positions, symbols = environment.positions, environment.symbols
        count = len(contacts)
        frame = local_frame(positions, count, environment.bonds)
        placed = place_adsorbate(symbols, positions, count, frame, molecule)
        if placed is None or frame[2] @ up < 0.2:
            continue
        length = float(np.linalg.norm(positions[:count] - placed[0], axis=1).mean())
        others = positions[count:]
        if count == 4:
            # In a bcc crystal the ball in a square hollow rests on the metal below as well.
            depth, offset = depths_below(positions, count, frame[2])
            others = others[(offset > HCP_OFFSET) | (depth < LAYER[0])]
        if len(others) and np.linalg.norm(others - placed[0], axis=1).min() < _CLEARANCE[count] * length:
            continue
        site = ordered_site(environment, count, molecule.name, molecule.symbols, placed)
        name = site_class_name(
            facet, named_kind(positions, count, frame[2]), [int(coordination[index]) for index, _ in contacts]
        )
        number = "-".join(str(index) for index, _ in contacts)
        # In a small cell the same atoms make several sites, by other images: each has a name of its own.
        site_id = f"{slab_id}_{name}_{number}"
        named[site_id] += 1
        if named[site_id] > 1:
            site_id += f".{named[site_id]}"
        sites.append(replace(site, facet=facet, site_class=name, slab_id=slab_id, site_id=site_id, host=slab))
    return sites


def sites_on(
    slab: Atoms,
    label: str,
    *,
    kinds: Sequence[str],
    adsorbate: str | Adsorbate | Atoms = "OH",
    where: str = "slab",
) -> list[Site]:
    """Find the sites on a clean slab that somebody else made, as `find_sites` does.

    Parameters
    ----------
    slab : Atoms
    kinds : sequence of str
    adsorbate : str or Adsorbate or Atoms
        As for `find_sites`.
    label : str
        Serves as `slab_id` where `info` holds none.
    where : str
        File and frame, for error messages.

    Raises
    ------
    InputError
        If it has no cell or none of the sites, and as `find_sites`.
    """
    if np.linalg.matrix_rank(slab.cell.array) < 3:
        raise InputError(f"{where}: no cell; expected a slab in a periodic cell with vacuum")
    check_structure(slab, where)
    named = slab.copy()
    named.info = {"slab_id": label, **slab.info}
    sites = find_sites(named, kinds=kinds, adsorbate=adsorbate)
    if not sites:
        raise InputError(
            f"{where}: no {' or '.join(kinds)} site found; expected a slab with vacuum on one side"
        )
    return sites


def is_clean(atoms: Atoms) -> bool:
    """Tell whether a structure holds metals and nothing else."""
    return len(atoms) > 0 and all(symbol in METALS for symbol in atoms.get_chemical_symbols())


Image = tuple[int, tuple[int, int, int]]
"""A periodic image: the index of the atom, and how many cell vectors away it stands."""


class SlabMetals:
    """The metals of a slab with their periodic bonds."""

    def __init__(self, atoms: Atoms, positions: np.ndarray) -> None:
        self.symbols = atoms.get_chemical_symbols()
        self.cell = np.asarray(atoms.cell.array)
        self.positions = positions
        lengths = {(a, b): bond_cutoff(a, b) for a in set(self.symbols) for b in set(self.symbols) if a <= b}
        clean = Atoms(atoms.numbers, positions=positions, cell=atoms.cell, pbc=atoms.pbc)
        i, j, shift = neighbor_list("ijS", clean, lengths)
        order = np.lexsort((shift[:, 2], shift[:, 1], shift[:, 0], j, i))
        self.neighbours: list[list[Image]] = [[] for _ in self.symbols]
        for a, b, s in zip(i[order].tolist(), j[order].tolist(), shift[order].tolist(), strict=True):
            self.neighbours[a].append((b, (s[0], s[1], s[2])))

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def coordination(self) -> np.ndarray:
        """Metal neighbours of each metal, (n,)."""
        return np.array([len(n) for n in self.neighbours])

    def position(self, image: Image) -> np.ndarray:
        """Where a periodic image stands, in Å, (3,)."""
        return self.positions[image[0]] + np.array(image[1]) @ self.cell

    def around(self, image: Image) -> list[Image]:
        """Return the images that a periodic image is bonded to."""
        base = image[1]
        return [
            (index, (base[0] + s[0], base[1] + s[1], base[2] + s[2]))
            for index, s in self.neighbours[image[0]]
        ]

    def environment(self, contacts: Sequence[Image]) -> Environment:
        """Return the contacts and every metal within two bonds of them."""
        found: dict[Image, None] = dict.fromkeys(contacts)
        front = list(contacts)
        for _ in range(2):
            front = [n for image in front for n in self.around(image)]
            found.update(dict.fromkeys(front))
        images = list(found)
        number = {image: k for k, image in enumerate(images)}
        bonds = np.zeros((len(contacts), len(images)), dtype=bool)
        for k, image in enumerate(contacts):
            bonds[k, [number[neighbour] for neighbour in self.around(image)]] = True
        return Environment(
            [self.symbols[index] for index, _ in images],
            np.array([self.position(image) for image in images]),
            bonds,
            [index for index, _ in images],
        )

    def contact_sets(self, exposed: Sequence[int], kinds: set[str]) -> list[list[Image]]:
        """Return candidates for sites among the exposed metals: single ones, bonded pairs, triangles, squares."""
        home: tuple[int, int, int] = (0, 0, 0)
        allowed = set(exposed)
        sets: list[list[Image]] = []
        if "top" in kinds:
            sets.extend([(i, home)] for i in exposed)
        seen: set[tuple[Image, ...]] = set()

        def add(images: Sequence[Image]) -> None:
            key = _translation_key(images)
            if key not in seen:
                seen.add(key)
                sets.append(list(images))

        around = {i: [n for n in self.around((i, home)) if n[0] in allowed] for i in exposed}
        if "bridge" in kinds:
            for i in exposed:
                for other in around[i]:
                    add([(i, home), other])
        if "hollow" in kinds:
            for i in exposed:
                for a, b in combinations(around[i], 2):
                    if b in self.around(a):
                        add([(i, home), a, b])
                        continue
                    # A square: two neighbours that are not bonded to each other share a second metal.
                    for fourth in self.around(a):
                        if (
                            fourth != (i, home)
                            and fourth[0] in allowed
                            and fourth in self.around(b)
                            and fourth not in around[i]
                            and self._is_square((i, home), a, b, fourth)
                        ):
                            add([(i, home), a, b, fourth])
        return sets

    def _is_square(self, first: Image, a: Image, b: Image, opposite: Image) -> bool:
        corner = self.position(first)
        across, diagonal = self.position(opposite) - corner, self.position(a) - self.position(b)
        centre_gap = np.linalg.norm(
            (self.position(opposite) + corner - self.position(a) - self.position(b)) / 2
        )
        lengths = np.linalg.norm(across), np.linalg.norm(diagonal)
        return bool(centre_gap < 0.5 and 0.8 < lengths[0] / lengths[1] < 1.25)


def _translation_key(images: Sequence[Image]) -> tuple[Image, ...]:
    """Return a key that is the same for all lattice translations and orders of some images."""
    keys = []
    for _, origin in images:
        moved = [(i, (s[0] - origin[0], s[1] - origin[1], s[2] - origin[2])) for i, s in images]
        keys.append(tuple(sorted(moved)))
    return min(keys)


def _upright(slab: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Return positions of a slab that is not split by its cell (n, 3), and the unit vector that leads upwards (3,).

    The vacuum lies along the direction without periodicity, else along the one with the widest gap.
    """
    cell = complete_cell(slab.cell.array)
    fractions = slab.positions @ np.linalg.inv(cell)
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    starts, gaps = [], []
    for k in range(3):
        places = np.sort(fractions[:, k] % 1)
        between = np.diff(places, append=places[0] + 1)
        widest = first_largest(between * heights[k])
        starts.append(places[(widest + 1) % len(places)])
        gaps.append(between[widest] * heights[k])
    free = np.flatnonzero(~slab.pbc)
    axis = int(free[0]) if len(free) else (2, 0, 1)[first_largest(np.array(gaps)[[2, 0, 1]])]
    up = np.cross(cell[axis - 2], cell[axis - 1])
    up *= np.sign(up @ cell[axis]) / np.linalg.norm(up)
    positions = slab.positions.copy()
    if slab.pbc[axis]:
        below = np.floor(fractions[:, axis] - starts[axis] + 1e-9)
        positions -= (below - below.max())[:, None] * cell[axis]
    return positions, up
