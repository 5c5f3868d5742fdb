"""Active sites: found on clean slabs, cut out of slabs with an adsorbate, classified, read and written.

A site is the metals that bind the adsorbate (its *contacts*: one for a top, two for a bridge, three or four for a
hollow site), every metal within two bonds of them, and the adsorbate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.geometry import complete_cell
from ase.io import write as ase_write
from ase.neighborlist import neighbor_list
from scipy.spatial import ConvexHull, QhullError

from catalysis.structure.adsorbates import (
    Adsorbate,
    adsorbate_name,
    bond_limits,
    connected_parts,
    get_adsorbate,
    remember_adsorbate,
)
from catalysis.structure.elements import BOND_FACTOR, COVALENT_RADIUS, METALS, bond_cutoff
from catalysis.structure.ordering import first_largest, tolerant_order
from catalysis.structure.reading import (
    ENERGY_KEY,
    describe_entries,
    iterate_structures,
    read_energy,
    read_structures,
)
from catalysis.structure.surfaces import read_facet
from interpretkit.errors import InputError

__all__ = [
    "BRIDGE_CLASSES", "COMMON", "CONTACT", "ENERGY_KEY", "KINDS", "SECOND", "SHELL", "Site", "find_sites", "is_clean",
    "place_adsorbate", "read_sites", "read_structures", "site_class_name", "site_from_structure", "sites_on",
    "without_blanks", "write_sites",
]  # fmt: skip

KINDS = {1: "top", 2: "bridge", 3: "hollow", 4: "hollow"}
"""The kind of a site by its number of contacts."""

BRIDGE_CLASSES: dict[tuple[str, tuple[int, ...]], str] = {
    ("100", (8, 8)): "100_bridge",
    ("110", (7, 7)): "110_bridge",
    ("111", (9, 9)): "111_bridge",
    ("211", (7, 7)): "211_edge",
    ("211", (7, 9)): "211_summit",
    ("211", (7, 10)): "211_hill",
    ("211", (9, 10)): "211_valley",
    ("532", (6, 7)): "532_outer_higher_edge",
    ("532", (6, 8)): "532_higher_edge",
    ("532", (7, 8)): "532_inner_higher_edge",
    ("532", (7, 10)): "532_hill1",
    ("532", (6, 10)): "532_hill2",
    ("532", (8, 10)): "532_valley2",
}
"""The bridge classes of the platinum-group study, by facet and the coordination numbers of the contacts."""

CONTACT, COMMON, SHELL, SECOND = 0, 1, 2, 3
"""Zones: a contact, bonded to all contacts (to at least two of three or four), to one, or two bonds away."""

_RADII = np.array([COVALENT_RADIUS.get(symbol, np.nan) for symbol in chemical_symbols])  # by atomic number
_IS_METAL = np.array([symbol in METALS for symbol in chemical_symbols])
_CLASS_NAMES = frozenset(BRIDGE_CLASSES.values())
_BINDING_LIMIT = 1.40  # A metal binds an atom up to this multiple of the sum of their covalent radii …
_BINDING_SPREAD = 1.22  # … and up to this multiple of the shortest such distance …
_BINDING_SLACK = (
    0.44  # … or this many Å beyond it, if that is less: a large atom in a bridge is near to all around.
)
# No other metal may be nearer to the ball than this multiple of the contacts' distance; a top site must stand
# clear of the metals around, or it is one of the step's hollows.
_CLEARANCE = {1: 1.25, 2: 1.12, 3: 1.12, 4: 1.12}

_ENCLOSING = 1.50  # Metals up to this multiple of the sum of radii may enclose an atom …
_BURIED = 0.30  # … that lies this deep (Å) within their convex hull: it is below the surface, not on it.
# No site of a surface has more metals so near, in multiples of the sum of radii; an atom in a metal's place has nine.
_MOST_CLOSE, _CLOSE = 6, 1.25
_RING_SPREAD = 1.25  # A metal is screened by a ring of others up to this multiple of its own distance …
_RING_DEPTH = 0.50  # … if it lies this much (Å) below the ring …
_RING_GAP = np.deg2rad(150)  # … and the ring leaves no wider gap than this.
_OVERLAP = 0.60  # Two atoms nearer than this multiple of the sum of their radii stand in one place.
_HCP_OFFSET, _FCC_OFFSET = (
    0.21,
    0.38,
)  # of a metal below a hollow from its centre, in distances between contacts
_LAYER = (0.4, 1.2)  # heights of the layer below a hollow, likewise
_EQUAL_STRETCH = 1e-3  # atoms of a molecule that are equally near to the metals, in sums of radii


@dataclass(frozen=True)
class Site:
    """An active site.

    Attributes
    ----------
    symbols
        Elements of the metals, shape (n,): the contacts first, then by distance to the binding atom.
    positions
        Of the metals, in Å, shape (n, 3).
    contacts
        How many of them bind the adsorbate.
    adsorbate, adsorbate_symbols, adsorbate_positions
        Its name, elements (m,) and positions (m, 3) in Å, the binding atom first.
    facet, site_class
        Facet (empty where unknown) and class, for example `"211"` and `"211_edge"`.
    site_id, slab_id
        Sites with the same `slab_id` share atoms.
    energy_ev
        Adsorption energy in eV, if known.
    """

    symbols: tuple[str, ...]
    positions: np.ndarray
    contacts: int
    adsorbate: str
    adsorbate_symbols: tuple[str, ...]
    adsorbate_positions: np.ndarray
    facet: str = ""
    site_class: str = ""
    site_id: str = ""
    slab_id: str = ""
    energy_ev: float | None = None
    host_indices: tuple[int, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        """Return the number of metals."""
        return len(self.symbols)

    @property
    def kind(self) -> str:
        """`"top"`, `"bridge"` or `"hollow"`."""
        return KINDS[self.contacts]

    @property
    def contact_elements(self) -> str:
        """The contacts' elements in alphabetical order, for example `"Pd-Pt"`."""
        return "-".join(sorted(self.symbols[: self.contacts]))

    @property
    def bonds(self) -> np.ndarray:
        """Which metals are bonded, shape (n, n), boolean and symmetric."""
        radii = np.array([COVALENT_RADIUS[symbol] for symbol in self.symbols])
        distances = np.linalg.norm(self.positions[:, None] - self.positions[None], axis=-1)
        bonded = distances <= BOND_FACTOR * (radii[:, None] + radii[None])
        np.fill_diagonal(bonded, False)
        return bonded

    @property
    def zones(self) -> np.ndarray:
        """The zone of each metal, shape (n,): `CONTACT`, `COMMON`, `SHELL` or `SECOND`."""
        touching = self.bonds[:, : self.contacts].sum(1)
        zones = np.full(len(self), SECOND)
        zones[touching >= 1] = SHELL
        if self.contacts > 1:
            zones[touching >= 2] = COMMON
        zones[: self.contacts] = CONTACT
        return zones

    @property
    def coordination_numbers(self) -> tuple[int, ...]:
        """Metal neighbours of each contact, ascending."""
        return tuple(sorted(int(count) for count in self.bonds[: self.contacts].sum(1)))

    @property
    def frame(self) -> np.ndarray:
        """Right-handed local axes as rows, shape (3, 3): along the contacts, sideways, and the outward normal."""
        return _local_frame(self.positions, self.contacts, self.bonds)

    def with_elements(self, symbols: Sequence[str], **changes: object) -> Site:
        """Return the same geometry occupied by other metals."""
        if len(symbols) != len(self):
            raise InputError(f"elements: {len(symbols)} given; the site has {len(self)} metals")
        return replace(self, symbols=tuple(symbols), **changes)  # type: ignore[arg-type]

    def to_atoms(self) -> Atoms:
        """Return the site as a cluster: metals, then the adsorbate; the rest in `info`."""
        atoms = Atoms(
            [*self.symbols, *self.adsorbate_symbols],
            positions=np.vstack([self.positions, self.adsorbate_positions]),
        )
        atoms.info.update(
            without_blanks(
                {
                    "site_id": self.site_id,
                    "slab_id": self.slab_id,
                    "facet": self.facet,
                    "site_class": self.site_class,
                    "contacts": self.contacts,
                }
            )
        )
        if self.energy_ev is not None:
            atoms.info[ENERGY_KEY] = float(self.energy_ev)
        return atoms


def without_blanks(info: Mapping[str, object]) -> dict[str, object]:
    """Return the entries that say something: of an empty one, extxyz would read the next entry as its value."""
    return {key: value for key, value in info.items() if value is not None and value != ""}


def site_class_name(facet: str, kind: str, coordination_numbers: Sequence[int]) -> str:
    """Return the class: the published name where there is one, else facet, kind and coordination numbers.

    A threefold hollow of close-packed metals is `"fcc"` or `"hcp"` where its kind is given so. For example
    `"211_edge"`, `"221_bridge_7-9"`, `"111_top_9"`, `"111_hcp_9-9-9"`, or `"bridge_8-8"` where the facet is unknown.
    """
    numbers = tuple(sorted(coordination_numbers))
    if kind == "bridge" and (facet, numbers) in BRIDGE_CLASSES:
        return BRIDGE_CLASSES[facet, numbers]
    return "_".join(part for part in (facet, kind, "-".join(map(str, numbers))) if part)


def find_sites(
    slab: Atoms, *, kinds: Iterable[str] = ("bridge",), adsorbate: str | Adsorbate | Atoms = "OH"
) -> list[Site]:
    """Find the adsorption sites on the upper side of a clean slab and place the adsorbate on each.

    The adsorbate's binding atom is a ball that touches the contacts, pushed outwards from their neighbours; a site
    counts if the ball reaches the vacuum side without touching any other metal but one below the middle of four.

    Parameters
    ----------
    slab
        A clean metal slab, periodic in the plane. Up is the way along the cell vector that leads into the vacuum.
    kinds
        Any of `"top"`, `"bridge"` and `"hollow"`.
    adsorbate
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
    _check_structure(slab, "slab")
    unknown = sorted(set(slab.get_chemical_symbols()) - METALS)
    if unknown:
        raise InputError(f"slab: unknown metal {unknown[0]!r}; expected a clean metal slab")
    if slab.pbc.sum() < 2:
        raise InputError(
            f"slab: pbc is {_pbc_text(slab)}; expected a slab that is periodic in its plane, pbc T T F or T T T"
        )
    facet = read_facet(slab.info.get("facet"), "slab")
    slab_id = str(slab.info.get("slab_id", facet or "slab"))
    positions, up = _upright(slab)
    metals = _Metals(slab, positions)
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
        frame = _local_frame(positions, count, environment.bonds)
        placed = place_adsorbate(symbols, positions, count, frame, molecule)
        if placed is None or frame[2] @ up < 0.2:
            continue
        length = float(np.linalg.norm(positions[:count] - placed[0], axis=1).mean())
        others = positions[count:]
        if count == 4:
            # In a bcc crystal the ball in a square hollow rests on the metal below as well.
            depth, offset = _below(positions, count, frame[2])
            others = others[(offset > _HCP_OFFSET) | (depth < _LAYER[0])]
        if len(others) and np.linalg.norm(others - placed[0], axis=1).min() < _CLEARANCE[count] * length:
            continue
        site = _ordered_site(environment, count, molecule.name, molecule.symbols, placed)
        name = site_class_name(
            facet, _kind_of(positions, count, frame[2]), [int(coordination[index]) for index, _ in contacts]
        )
        number = "-".join(str(index) for index, _ in contacts)
        # In a small cell the same atoms make several sites, by other images: each has a name of its own.
        site_id = f"{slab_id}_{name}_{number}"
        named[site_id] += 1
        if named[site_id] > 1:
            site_id += f".{named[site_id]}"
        sites.append(replace(site, facet=facet, site_class=name, slab_id=slab_id, site_id=site_id))
    return sites


def is_clean(atoms: Atoms) -> bool:
    """Tell whether a structure holds metals and nothing else."""
    return len(atoms) > 0 and all(symbol in METALS for symbol in atoms.get_chemical_symbols())


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
    slab, kinds, adsorbate
        As for `find_sites`.
    label
        Serves as `slab_id` where `info` holds none.
    where
        File and frame, for error messages.

    Raises
    ------
    InputError
        If it has no cell or none of the sites, and as `find_sites`.
    """
    if np.linalg.matrix_rank(slab.cell.array) < 3:
        raise InputError(f"{where}: no cell; expected a slab in a periodic cell with vacuum")
    _check_structure(slab, where)
    named = slab.copy()
    named.info = {"slab_id": label, **slab.info}
    sites = find_sites(named, kinds=kinds, adsorbate=adsorbate)
    if not sites:
        raise InputError(
            f"{where}: no {' or '.join(kinds)} site found; expected a slab with vacuum on one side"
        )
    return sites


def place_adsorbate(
    symbols: Sequence[str], positions: np.ndarray, contacts: int, frame: np.ndarray, adsorbate: Adsorbate
) -> np.ndarray | None:
    """Place an adsorbate on its contacts, pushed outwards along the normal to its usual bond length.

    A molecule other than the common ones is turned about the normal, if need be, so that its binding atom is the one
    that is nearest to the metals.

    Parameters
    ----------
    symbols, positions
        The metals, contacts first; positions (n, 3) in Å.
    contacts
        How many bind.
    frame
        See `Site.frame`.
    adsorbate
        What to place.

    Returns
    -------
    ndarray or None
        Positions (m, 3) in Å; None if the contacts are too far apart to bind it.
    """
    length = float(np.mean([adsorbate.bond_length(symbol, contacts) for symbol in symbols[:contacts]]))
    centre = positions[:contacts].mean(0)
    reach = float(np.linalg.norm(positions[:contacts] - centre, axis=1).mean())
    if length <= reach:
        return None
    anchor = centre + frame[2] * np.sqrt(length**2 - reach**2)
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
        margins.append(
            min(nearest[1:].min() - nearest[0], 0.15)
        )  # beyond that, the first way to stand is the best
    return tries[first_largest(np.array(margins))]


def site_from_structure(
    atoms: Atoms,
    *,
    facet: str | None = None,
    kind: str | None = None,
    energy_key: str = ENERGY_KEY,
    where: str = "structure",
) -> Site:
    """Cut the site out of a slab, or a cluster, that carries one adsorbate.

    Parameters
    ----------
    atoms
        Metals and one molecule of non-metals. `info` may hold `facet`, `site_class`, `site_id`, `slab_id`,
        `contacts` and the energy. A finite cluster has no cell, and says by `contacts`, `site_class` or `kind` that
        it is meant as one.
    facet
        Overrides `info["facet"]`.
    kind
        `"top"`, `"bridge"` or `"hollow"` fixes the number of contacts (1, 2, 3 or 4); by default every metal within
        binding distance is a contact, and a class of `BRIDGE_CLASSES` in `info` means two.
    energy_key
        The entry of `info` with the adsorption energy in eV.
    where
        File and frame, for error messages.

    Returns
    -------
    Site
        Contacts are counted by periodic image: in a small cell they may be images of one atom.

    Raises
    ------
    InputError
        For a structure without metals or adsorbate, with several adsorbates, with one that lies below the surface or
        is not bound to it, with atoms that have no place or stand in one place, without periodicity, and for an energy
        that is no finite number.
    """
    lattice = _check_structure(atoms, where)
    is_metal = _IS_METAL[atoms.numbers]
    if not is_metal.any():
        raise InputError(f"{where}: no metal atoms; expected a metal slab with an adsorbate")
    if is_metal.all():
        raise InputError(
            f"{where}: no adsorbate; expected one on the slab (`catalyst label` finds sites on clean slabs)"
        )
    info = atoms.info
    if not atoms.pbc.any() and kind is None and not ("contacts" in info or info.get("site_class")):
        raise InputError(
            f"{where}: no cell and no periodicity; expected a slab with its cell and pbc, or, for a finite cluster, "
            "contacts=1 (2, 3, 4) in its info or --kind"
        )
    molecule_symbols, molecule_positions = _whole_molecule(atoms, is_metal, lattice, where)
    count, at_least = _contact_count(info, kind, where)
    around = _Surroundings(atoms, is_metal, lattice, molecule_positions)
    order = around.binding_first(molecule_symbols, molecule_positions)
    molecule_positions = molecule_positions[order]
    molecule_symbols = tuple(molecule_symbols[i] for i in order)
    name = adsorbate_name(molecule_symbols, molecule_positions)
    contacts = around.contacts_of(molecule_positions[0], molecule_symbols[0], name, count, at_least, where)
    remember_adsorbate(name, molecule_symbols, molecule_positions)
    environment, coordination = around.environment(contacts)
    site = _ordered_site(environment, len(contacts), name, molecule_symbols, molecule_positions)
    facet_text = read_facet(
        info.get("facet") if facet is None else facet, where if facet is None else "facet"
    )
    found_kind = KINDS[len(contacts)]
    if len(contacts) == 3:
        normal = _local_frame(environment.positions, 3, environment.bonds)[2]
        found_kind = _kind_of(environment.positions, 3, normal)
    found = site_class_name(facet_text, found_kind, coordination)
    named = str(info.get("site_class", ""))
    if named == site_class_name(facet_text, "hollow", coordination):
        named = ""  # written before fcc and hcp hollows were told apart
    return replace(
        site,
        facet=facet_text,
        site_class=named or found,
        site_id=str(info.get("site_id", "")),
        slab_id=str(info.get("slab_id", "")),
        energy_ev=read_energy(info, energy_key, where),
    )


def read_sites(
    path: str | Path,
    *,
    facet: str | None = None,
    kind: str | None = None,
    energy_key: str = ENERGY_KEY,
    require_energies: bool = False,
    find_kinds: Sequence[str] = (),
    find_adsorbate: str | Adsorbate | Atoms = "OH",
) -> list[Site]:
    """Read sites from any file that ASE reads, or from every such file of a folder.

    Parameters
    ----------
    path
        As for `catalysis.structure.reading.iterate_structures`: one site per structure, of a relaxation the last
        step. Where `info` holds no `site_id` and `slab_id`, the names of folder, file and row serve.
    facet, kind, energy_key
        As for `site_from_structure`.
    require_energies
        Refuse frames without an energy.
    find_kinds, find_adsorbate
        With kinds, every such site is found on slabs without adsorbate, as by `find_sites`; without, they are refused.

    Raises
    ------
    InputError
        If the path is missing, empty or unreadable, or a frame is no site; the message names file and frame.
    """
    sites: list[Site] = []
    for found in iterate_structures(path, energy_key=energy_key):
        where, atoms = found.where, found.atoms
        if find_kinds and is_clean(atoms):
            slab = atoms.copy()
            if facet is not None:
                slab.info["facet"] = facet
            sites += sites_on(slab, found.slab, kinds=find_kinds, adsorbate=find_adsorbate, where=where)
            continue
        site = site_from_structure(atoms, facet=facet, kind=kind, energy_key=energy_key, where=where)
        if require_energies and site.energy_ev is None:
            raise InputError(
                f"{where}: no energy; expected info[{energy_key!r}] in eV (--energy-key): {describe_entries(atoms)}"
            )
        sites.append(replace(site, site_id=site.site_id or found.label, slab_id=site.slab_id or found.slab))
    return sites


def write_sites(path: str | Path, sites: Sequence[Site]) -> None:
    """Write sites as clusters into one file (extxyz by suffix); `read_sites` gives them back."""
    ase_write(str(path), [site.to_atoms() for site in sites])


@dataclass(frozen=True)
class _Environment:
    """The metals around some contacts: contacts first, positions unwrapped, bonds of the contacts as the first rows."""

    symbols: list[str]
    positions: np.ndarray
    bonds: np.ndarray
    indices: list[int]


_Image = tuple[int, tuple[int, int, int]]


class _Metals:
    """The metals of a slab with their periodic bonds."""

    def __init__(self, atoms: Atoms, positions: np.ndarray) -> None:
        self.symbols = atoms.get_chemical_symbols()
        self.cell = np.asarray(atoms.cell.array)
        self.positions = positions
        lengths = {(a, b): bond_cutoff(a, b) for a in set(self.symbols) for b in set(self.symbols) if a <= b}
        clean = Atoms(atoms.numbers, positions=positions, cell=atoms.cell, pbc=atoms.pbc)
        i, j, shift = neighbor_list("ijS", clean, lengths)
        order = np.lexsort((shift[:, 2], shift[:, 1], shift[:, 0], j, i))
        self.neighbours: list[list[_Image]] = [[] for _ in self.symbols]
        for a, b, s in zip(i[order].tolist(), j[order].tolist(), shift[order].tolist(), strict=True):
            self.neighbours[a].append((b, (s[0], s[1], s[2])))

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def coordination(self) -> np.ndarray:
        return np.array([len(n) for n in self.neighbours])

    def position(self, image: _Image) -> np.ndarray:
        return self.positions[image[0]] + np.array(image[1]) @ self.cell

    def around(self, image: _Image) -> list[_Image]:
        base = image[1]
        return [
            (index, (base[0] + s[0], base[1] + s[1], base[2] + s[2]))
            for index, s in self.neighbours[image[0]]
        ]

    def environment(self, contacts: Sequence[_Image]) -> _Environment:
        """Return the contacts and every metal within two bonds of them."""
        found: dict[_Image, None] = dict.fromkeys(contacts)
        front = list(contacts)
        for _ in range(2):
            front = [n for image in front for n in self.around(image)]
            found.update(dict.fromkeys(front))
        images = list(found)
        number = {image: k for k, image in enumerate(images)}
        bonds = np.zeros((len(contacts), len(images)), dtype=bool)
        for k, image in enumerate(contacts):
            bonds[k, [number[neighbour] for neighbour in self.around(image)]] = True
        return _Environment(
            [self.symbols[index] for index, _ in images],
            np.array([self.position(image) for image in images]),
            bonds,
            [index for index, _ in images],
        )

    def contact_sets(self, exposed: Sequence[int], kinds: set[str]) -> list[list[_Image]]:
        """Return candidates for sites among the exposed metals: single ones, bonded pairs, triangles, squares."""
        home: tuple[int, int, int] = (0, 0, 0)
        allowed = set(exposed)
        sets: list[list[_Image]] = []
        if "top" in kinds:
            sets.extend([(i, home)] for i in exposed)
        seen: set[tuple[_Image, ...]] = set()

        def add(images: Sequence[_Image]) -> None:
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

    def _is_square(self, first: _Image, a: _Image, b: _Image, opposite: _Image) -> bool:
        corner = self.position(first)
        across, diagonal = self.position(opposite) - corner, self.position(a) - self.position(b)
        centre_gap = np.linalg.norm(
            (self.position(opposite) + corner - self.position(a) - self.position(b)) / 2
        )
        lengths = np.linalg.norm(across), np.linalg.norm(diagonal)
        return bool(centre_gap < 0.5 and 0.8 < lengths[0] / lengths[1] < 1.25)


class _Surroundings:
    """The metals around a molecule, every periodic image by itself."""

    def __init__(self, atoms: Atoms, is_metal: np.ndarray, lattice: _Lattice, molecule: np.ndarray) -> None:
        own = np.flatnonzero(is_metal)
        radii = _RADII[atoms.numbers[own]]
        centre = (molecule.min(0) + molecule.max(0)) / 2
        size = float(np.linalg.norm(molecule - centre, axis=1).max())
        widest = _RADII[atoms.numbers[~is_metal]].max()
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
        if not np.any(stretches <= _BINDING_LIMIT):
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
        wide = np.flatnonzero(stretches <= _BINDING_LIMIT)
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

    def environment(self, contacts: np.ndarray) -> tuple[_Environment, list[int]]:
        """Return the contacts with every metal within two bonds of them, and the contacts' coordination numbers."""
        first = self._bonded(contacts)
        shell = np.flatnonzero(first.any(0))
        second = self._bonded(shell).any(0)
        others = np.logical_or(first.any(0), second)
        others[contacts] = False
        members = np.concatenate([contacts, np.flatnonzero(others)])
        environment = _Environment(
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


class _Lattice:
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


def _below(positions: np.ndarray, count: int, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return depth and offset of the other metals from the middle of a hollow, in distances between contacts."""
    corners = positions[:count]
    spacing = np.mean([np.linalg.norm(corners[k] - corners[k - 1]) for k in range(count)])
    if count == 4:  # in whatever order they come, a corner's shortest distance is an edge
        gaps = np.linalg.norm(corners[:, None] - corners[None], axis=-1)
        spacing = np.sort(gaps, axis=1)[:, 1].mean()
    aside = positions[count:] - corners.mean(0)
    depth = -(aside @ normal)
    offset = np.linalg.norm(aside + depth[:, None] * normal, axis=1)
    return depth / spacing, offset / spacing


def _kind_of(positions: np.ndarray, count: int, normal: np.ndarray) -> str:
    """Return the kind that a class is named by: of a threefold hollow `"fcc"` or `"hcp"` where it is one of them.

    A metal of the next layer straight below makes it hcp; if the nearest ones stand aside it is fcc. Both have the same
    coordination numbers. What lies between is neither, for example a hollow of bcc (110).
    """
    if count != 3:
        return KINDS[count]
    depth, offset = _below(positions, count, normal)
    layer = offset[(depth > _LAYER[0]) & (depth < _LAYER[1])]
    if not len(layer):
        return KINDS[count]
    nearest = layer.min()
    return "hcp" if nearest < _HCP_OFFSET else "fcc" if nearest > _FCC_OFFSET else KINDS[count]


def _translation_key(images: Sequence[_Image]) -> tuple[_Image, ...]:
    """Return a key that is the same for all lattice translations and orders of some images."""
    keys = []
    for _, origin in images:
        moved = [(i, (s[0] - origin[0], s[1] - origin[1], s[2] - origin[2])) for i, s in images]
        keys.append(tuple(sorted(moved)))
    return min(keys)


def _local_frame(positions: np.ndarray, contacts: int, bonds: np.ndarray) -> np.ndarray:
    """Return axes as rows: along the contacts, sideways, outward normal (away from the contacts' neighbours)."""
    normal = np.zeros(3)
    for i in range(contacts):
        directions = positions[bonds[i]] - positions[i]
        normal -= (directions / np.linalg.norm(directions, axis=1, keepdims=True)).sum(0)
    axis = np.array([1.0, 0.0, 0.0])
    if contacts == 2:
        axis = positions[1] - positions[0]
        axis /= np.linalg.norm(axis)
        normal -= axis * (normal @ axis)
    elif contacts >= 3:
        # Towards a contact: triangles and squares have no longest direction that rounding would not choose.
        axis = positions[0] - positions[:contacts].mean(0)
        _, _, plane = np.linalg.svd(positions[:contacts] - positions[:contacts].mean(0))
        normal = plane[2] * np.sign(plane[2] @ normal or 1.0)
    if np.linalg.norm(normal) < 1e-6:
        normal = np.array([0.0, 0.0, 1.0])
    normal = normal / np.linalg.norm(normal)
    axis = axis - normal * (axis @ normal)
    if np.linalg.norm(axis) < 1e-6:
        axis = np.array([0.0, 1.0, 0.0]) - normal * normal[1]
    axis = axis / np.linalg.norm(axis)
    return np.array([axis, np.cross(normal, axis), normal])


def _ordered_site(
    environment: _Environment,
    contacts: int,
    adsorbate: str,
    adsorbate_symbols: tuple[str, ...],
    adsorbate_positions: np.ndarray,
) -> Site:
    """Order the metals: contacts first, then by distance to the binding atom, then by place."""
    distances = np.linalg.norm(environment.positions - adsorbate_positions[0], axis=1)
    distances[:contacts] -= 100.0
    order = tolerant_order(distances, *environment.positions.T[::-1], tolerance=1e-3)
    return Site(
        symbols=tuple(environment.symbols[k] for k in order),
        positions=environment.positions[order],
        contacts=contacts,
        adsorbate=adsorbate,
        adsorbate_symbols=adsorbate_symbols,
        adsorbate_positions=np.asarray(adsorbate_positions, dtype=float),
        host_indices=tuple(environment.indices[k] for k in order),
    )


def _pbc_text(atoms: Atoms) -> str:
    return " ".join("FT"[int(periodic)] for periodic in atoms.pbc)


def _check_structure(atoms: Atoms, where: str) -> _Lattice:
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
            f"{where}: pbc is {_pbc_text(atoms)}, but a cell vector is missing; expected one for each T"
        )
    lattice = _Lattice(atoms)
    if not lattice.has_volume:
        raise InputError(f"{where}: the cell vectors are not independent; expected a cell with a volume")
    if np.isnan(_RADII[atoms.numbers]).any():
        unknown = chemical_symbols[int(atoms.numbers[np.isnan(_RADII[atoms.numbers])][0])]
        raise InputError(
            f"{where}: no data of the element {unknown!r}; expected metals and non-metals of common use"
        )
    _refuse_overlaps(atoms, lattice, where)
    return lattice


def _refuse_overlaps(atoms: Atoms, lattice: _Lattice, where: str) -> None:
    radii = _RADII[atoms.numbers]
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


def _whole_molecule(
    atoms: Atoms, is_metal: np.ndarray, lattice: _Lattice, where: str
) -> tuple[list[str], np.ndarray]:
    """Return symbols and positions of the one adsorbate, put together across periodic boundaries."""
    members = np.flatnonzero(~is_metal)
    names = [chemical_symbols[number] for number in atoms.numbers[members].tolist()]
    positions = atoms.positions[members].copy()
    if len(members) == 1:
        return names, positions
    radii = _RADII[atoms.numbers[members]]
    limits = bond_limits(radii)
    own = np.arange(len(names))
    # From the first to the second, every image of it within reach.
    shifts = lattice.shifts(float(limits.max())) if lattice.periodic else np.zeros((1, 3))
    gaps = lattice.centred(positions[None] - positions[:, None])[:, :, None] + shifts @ lattice.cell
    lengths = np.sqrt(np.einsum("ijkl,ijkl->ijk", gaps, gaps))
    bonded = lengths <= limits[:, :, None]
    # An atom is no neighbour of itself, but may be one of its images.
    bonded[own, own, np.flatnonzero(~shifts.any(1))[0]] = False
    endless = bool(np.any(bonded.sum(-1) > 1) or np.any(bonded[own, own]))
    gaps = np.take_along_axis(gaps, lengths.argmin(-1)[:, :, None, None], axis=2)[:, :, 0]
    bonds = bonded.any(-1)
    np.fill_diagonal(bonds, False)
    parts = connected_parts(bonds)
    if len(parts) > 1:
        raise InputError(f"{where}: {_several(atoms, names, parts)}")
    joined, front = {0}, [0]
    while front:
        i = front.pop()
        for j in np.flatnonzero(bonds[i]).tolist():
            if j not in joined:
                positions[j] = positions[i] + gaps[i, j]
                joined.add(j)
                front.append(j)
    if endless or np.abs(positions[None] - positions[:, None] - gaps)[bonds].max() > 1e-3:
        raise InputError(
            f"{where}: {Atoms(names).get_chemical_formula()} is bonded to its own periodic images; "
            "expected one molecule as adsorbate"
        )
    return names, positions


def _several(atoms: Atoms, names: Sequence[str], parts: Sequence[Sequence[int]]) -> str:
    """Return what is wrong with an adsorbate of several parts."""
    formulas = Counter(Atoms([names[i] for i in part]).get_chemical_formula() for part in parts)
    listed = ", ".join(f"{number} {name}" for name, number in sorted(formulas.items()))
    text = f"{len(parts)} separate molecules of non-metals ({listed}); expected exactly one adsorbate"
    if 4 * len(names) > len(atoms):
        text += " on a metal (oxides, hydrides, carbides and the like are not supported)"
    return text


def _contact_count(info: Mapping[str, object], kind: str | None, where: str) -> tuple[int | None, int]:
    """Return the number of contacts if it is told, and else the least number."""
    if kind is not None:
        counts: dict[str, tuple[int | None, int]] = {"top": (1, 1), "bridge": (2, 2), "hollow": (None, 3)}
        if kind not in counts:
            raise InputError(f"kind: {kind!r}; expected top, bridge or hollow")
        return counts[kind]
    if "contacts" in info:
        count = info["contacts"]
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or int(count) not in KINDS:
            raise InputError(f"{where}: contacts is {count!r}; expected 1 to 4")
        return int(count), 1
    return (2 if str(info.get("site_class", "")) in _CLASS_NAMES else None), 1
