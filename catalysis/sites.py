"""Active sites: found on clean slabs, cut out of slabs with an adsorbate, classified, read and written.

A site is the metals that bind the adsorbate (its *contacts*: one for a top, two for a bridge, three or four for a
hollow site), every metal within two bonds of them, and the adsorbate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read as ase_read
from ase.io import write as ase_write
from ase.neighborlist import neighbor_list

from catalysis.adsorbates import BOND_REACH, Adsorbate, get_adsorbate, recognise_adsorbate
from catalysis.elements import BOND_FACTOR, COVALENT_RADIUS, METALS, bond_cutoff
from catalysis.ordering import LENGTH_TOLERANCE, first_smallest, tolerant_order
from catalysis.surfaces import facet_name, parse_facet
from interpretkit.errors import InputError

ENERGY_KEY = "adsorption_energy_eV"
"""Where a frame's adsorption energy is looked for, in `info`."""

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

_NOT_STRUCTURES = frozenset({".json", ".csv", ".txt", ".md", ".html", ".png", ".npz"})
_CLASS_NAMES = frozenset(BRIDGE_CLASSES.values())
_BINDING_LIMIT = 1.40  # A metal binds an atom up to this multiple of the sum of their covalent radii …
_BINDING_SPREAD = 1.22  # … and up to this multiple of the shortest such distance.
# No other metal may be nearer to the ball than this multiple of the contacts' distance; a top site must stand
# clear of the metals around, or it is one of the step's hollows.
_CLEARANCE = {1: 1.25, 2: 1.12, 3: 1.12, 4: 1.12}


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
            site_id=self.site_id,
            slab_id=self.slab_id,
            facet=self.facet,
            site_class=self.site_class,
            contacts=self.contacts,
        )
        if self.energy_ev is not None:
            atoms.info[ENERGY_KEY] = float(self.energy_ev)
        return atoms


def site_class_name(facet: str, kind: str, coordination_numbers: Sequence[int]) -> str:
    """Return the class: the published name where there is one, else facet, kind and coordination numbers.

    For example `"211_edge"`, `"221_bridge_7-9"`, `"111_top_9"`, or `"bridge_8-8"` where the facet is unknown.
    """
    numbers = tuple(sorted(coordination_numbers))
    if kind == "bridge" and (facet, numbers) in BRIDGE_CLASSES:
        return BRIDGE_CLASSES[facet, numbers]
    return "_".join(part for part in (facet, kind, "-".join(map(str, numbers))) if part)


def find_sites(slab: Atoms, *, kinds: Iterable[str] = ("bridge",), adsorbate: str = "OH") -> list[Site]:
    """Find the adsorption sites on the upper side of a clean slab and place the adsorbate on each.

    The adsorbate's binding atom is a ball that touches the contacts, pushed outwards from their neighbours; a site
    counts if the ball reaches the vacuum side without touching any other metal.

    Parameters
    ----------
    slab
        A clean metal slab, periodic in the plane, vacuum along z.
    kinds
        Any of `"top"`, `"bridge"` and `"hollow"`.
    adsorbate
        A name of `catalysis.adsorbates.ADSORBATES`.

    Returns
    -------
    list of Site
        In the order of the contacts' indices; `host_indices` gives each metal's index in `slab`.

    Raises
    ------
    InputError
        For an unknown kind, adsorbate or metal.
    """
    wanted = set(kinds)
    if not wanted or not wanted <= set(KINDS.values()):
        raise InputError(f"kinds: {sorted(wanted)}; expected any of top, bridge, hollow")
    molecule = get_adsorbate(adsorbate)
    metals = _Metals(slab, where="slab")
    if molecule.symbols[0] in METALS:
        raise InputError(f"adsorbate: {adsorbate!r} is a metal")
    facet = _read_facet(slab, None)
    middle = (metals.positions[:, 2].min() + metals.positions[:, 2].max()) / 2
    coordination = metals.coordination
    exposed = [
        i for i in range(len(metals)) if coordination[i] < 12 and metals.positions[i, 2] > middle - 1e-6
    ]
    sites = []
    for contacts in metals.contact_sets(exposed, wanted):
        environment = metals.environment(contacts)
        positions, symbols = environment.positions, environment.symbols
        count = len(contacts)
        frame = _local_frame(positions, count, environment.bonds)
        placed = place_adsorbate(symbols, positions, count, frame, molecule)
        if placed is None:
            continue
        length = float(np.linalg.norm(positions[:count] - placed[0], axis=1).mean())
        others = np.linalg.norm(positions[count:] - placed[0], axis=1)
        if frame[2, 2] < 0.2 or (len(others) and others.min() < _CLEARANCE[count] * length):
            continue
        kind = KINDS[count]
        if kind == "hollow" and count == 3:
            # fcc and hcp hollows share their coordination numbers; a metal straight below makes it hcp.
            below = positions[count:] - positions[:count].mean(0)
            lateral = np.linalg.norm(below - np.outer(below @ frame[2], frame[2]), axis=1)
            kind = "hcp" if np.any((lateral < 0.5) & (below @ frame[2] > -3.2)) else "fcc"
        site = _ordered_site(
            environment,
            count,
            molecule.name,
            molecule.symbols,
            placed,
        )
        name = site_class_name(facet, kind, [int(coordination[index]) for index, _ in contacts])
        number = "-".join(str(index) for index, _ in contacts)
        slab_id = str(slab.info.get("slab_id", facet or "slab"))
        sites.append(
            replace(site, facet=facet, site_class=name, slab_id=slab_id, site_id=f"{slab_id}_{name}_{number}")
        )
    return sites


def place_adsorbate(
    symbols: Sequence[str], positions: np.ndarray, contacts: int, frame: np.ndarray, adsorbate: Adsorbate
) -> np.ndarray | None:
    """Place an adsorbate on its contacts, pushed outwards along the normal to its usual bond length.

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
    return adsorbate.place(centre + frame[2] * np.sqrt(length**2 - reach**2), frame[2], frame[1])


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
        Metals and one adsorbate, recognised by its atoms. `info` may hold `facet`, `site_class`, `site_id`,
        `slab_id`, `contacts` and the energy.
    facet
        Overrides `info["facet"]`.
    kind
        `"top"`, `"bridge"` or `"hollow"` fixes the number of contacts (1, 2, 3); by default every metal within
        binding distance is a contact, and a class of `BRIDGE_CLASSES` in `info` means two.
    energy_key
        The entry of `info` with the adsorption energy in eV.
    where
        File and frame, for error messages.

    Raises
    ------
    InputError
        For a structure without metals or adsorbate, an unknown adsorbate, positions or energies that are not finite.
    """
    if len(atoms) == 0:
        raise InputError(f"{where}: no atoms; expected a slab or a cluster with an adsorbate")
    if not np.all(np.isfinite(atoms.positions)):
        raise InputError(f"{where}: positions that are not finite")
    symbols = atoms.get_chemical_symbols()
    is_metal = np.array([symbol in METALS for symbol in symbols])
    if not is_metal.any():
        raise InputError(f"{where}: no metal atoms; expected a metal slab with an adsorbate")
    if is_metal.all():
        raise InputError(f"{where}: no adsorbate; expected one of the known adsorbates on the slab")
    metals = _Metals(atoms[is_metal], where=where)
    molecule_positions, molecule_symbols = _whole_molecule(atoms[~is_metal], where)
    # The hydrogen of *OH can be as near to a metal as its oxygen; measured in bond lengths it is not.
    stretches = [
        metals.stretches(position, symbol).min()
        for position, symbol in zip(molecule_positions, molecule_symbols, strict=True)
    ]
    binding = first_smallest(np.array(stretches))
    order = [binding, *[i for i in range(len(stretches)) if i != binding]]
    molecule_positions = molecule_positions[order]
    molecule_symbols = [molecule_symbols[i] for i in order]
    molecule = recognise_adsorbate(molecule_symbols, molecule_positions, where)
    info = atoms.info
    count = _contact_count(info, kind, where)
    contacts = metals.contacts_of(molecule_positions[0], molecule_symbols[0], count, where)
    environment = metals.environment(contacts)
    site = _ordered_site(
        environment, len(contacts), molecule.name, tuple(molecule_symbols), molecule_positions
    )
    facet_text = _read_facet(atoms, facet)
    coordination = [int(metals.coordination[index]) for index, _ in contacts]
    named = str(info.get("site_class", "")) or site_class_name(facet_text, site.kind, coordination)
    energy = info.get(energy_key)
    if energy is not None:
        energy = float(energy)
        if not np.isfinite(energy):
            raise InputError(f"{where}: {energy_key} is {energy}; expected a finite energy in eV")
    return replace(
        site,
        facet=facet_text,
        site_class=named,
        site_id=str(info.get("site_id", "")),
        slab_id=str(info.get("slab_id", "")),
        energy_ev=energy,
    )


def read_sites(
    path: str | Path,
    *,
    facet: str | None = None,
    kind: str | None = None,
    energy_key: str = ENERGY_KEY,
    require_energies: bool = False,
) -> list[Site]:
    """Read sites from any file that ASE reads, or from every such file of a folder.

    Parameters
    ----------
    path
        extxyz, ASE db, POSCAR/CONTCAR, CIF …, one site per frame; or a folder of such files (hidden files and
        `manifest.json` are passed over), where a file's name serves as `slab_id` if its frames hold none.
    facet, kind, energy_key
        As for `site_from_structure`.
    require_energies
        Refuse frames without an energy.

    Raises
    ------
    InputError
        If the path is missing, empty or unreadable, or a frame is no site; the message names file and frame.
    """
    sites: list[Site] = []
    for where, label, atoms in read_structures(path):
        site = site_from_structure(atoms, facet=facet, kind=kind, energy_key=energy_key, where=where)
        if require_energies and site.energy_ev is None:
            raise InputError(f"{where}: no energy; expected info[{energy_key!r}] in eV (--energy-key)")
        sites.append(replace(site, site_id=site.site_id or label, slab_id=site.slab_id or label))
    return sites


def read_structures(path: str | Path) -> Iterator[tuple[str, str, Atoms]]:
    """Yield every structure of a file that ASE reads, or of a folder of such files.

    Parameters
    ----------
    path
        As for `read_sites`.

    Yields
    ------
    tuple
        Where it is from (for messages), a short label (file's name, or folder's for POSCAR and CONTCAR, and the
        frame's number where there are several), and the structure.

    Raises
    ------
    InputError
        If the path is missing, empty or unreadable.
    """
    source = Path(path)
    if not source.exists():
        raise InputError(f"{source}: no such file or folder; expected structures that ASE reads")
    files = [source]
    if source.is_dir():
        files = sorted(p for p in source.rglob("*") if p.is_file() and not p.name.startswith("."))
        files = [p for p in files if p.suffix not in _NOT_STRUCTURES]
        if not files:
            raise InputError(f"{source}: an empty folder; expected structures that ASE reads")
    for file in files:
        frames = _read_frames(file)
        name = file.parent.name if file.stem.upper() in {"POSCAR", "CONTCAR"} else file.stem
        for number, atoms in enumerate(frames):
            several = len(frames) > 1
            yield (
                f"{file}, frame {number}" if several else str(file),
                f"{name}:{number}" if several else name,
                atoms,
            )


def write_sites(path: str | Path, sites: Sequence[Site]) -> None:
    """Write sites as clusters into one file (extxyz by suffix); `read_sites` gives them back."""
    ase_write(str(path), [site.to_atoms() for site in sites])


@dataclass(frozen=True)
class _Environment:
    """The metals around some contacts: contacts first, positions unwrapped."""

    symbols: list[str]
    positions: np.ndarray
    bonds: np.ndarray
    indices: list[int]


_Image = tuple[int, tuple[int, int, int]]


class _Metals:
    """The metals of a structure with their periodic bonds."""

    def __init__(self, atoms: Atoms, where: str) -> None:
        self.symbols = atoms.get_chemical_symbols()
        for symbol in set(self.symbols):
            if symbol not in METALS:
                raise InputError(f"{where}: unknown metal {symbol!r}")
        self.cell = np.asarray(atoms.cell.array)
        self.pbc = atoms.pbc & (np.linalg.norm(self.cell, axis=1) > 0)
        if self.pbc.all() and np.linalg.matrix_rank(self.cell) < 3:
            raise InputError(f"{where}: the cell vectors are not independent")
        self.positions = atoms.positions.copy()
        if len(atoms) > 1:
            lengths = {
                (a, b): bond_cutoff(a, b) for a in set(self.symbols) for b in set(self.symbols) if a <= b
            }
            clean = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=self.pbc)
            i, j, shift = neighbor_list("ijS", clean, lengths)
        else:
            i, j, shift = np.zeros(0, int), np.zeros(0, int), np.zeros((0, 3), int)
        self.neighbours: list[list[_Image]] = [[] for _ in self.symbols]
        for a, b, s in zip(i, j, shift, strict=True):
            self.neighbours[a].append((int(b), (int(s[0]), int(s[1]), int(s[2]))))
        for (
            around
        ) in self.neighbours:  # ASE's order depends on which side of a bin's edge an atom is rounded to
            around.sort()

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
        bonds = np.zeros((len(images), len(images)), dtype=bool)
        for image, k in number.items():
            for neighbour in self.around(image):
                if neighbour in number:
                    bonds[k, number[neighbour]] = True
        return _Environment(
            [self.symbols[index] for index, _ in images],
            np.array([self.position(image) for image in images]),
            bonds,
            [index for index, _ in images],
        )

    def stretches(self, point: np.ndarray, symbol: str) -> np.ndarray:
        """Return each metal's distance from an atom at `point`, in sums of covalent radii, shape (n,)."""
        radii = np.array([COVALENT_RADIUS[s] for s in self.symbols]) + COVALENT_RADIUS[symbol]
        return np.linalg.norm(self._nearest(point)[0], axis=1) / radii

    def _nearest(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        offsets = self.positions - point
        shifts = _nearby_shifts(self.pbc)
        images = offsets[:, None] + (shifts @ self.cell)[None]
        lengths = np.linalg.norm(images, axis=-1)
        best = (lengths <= lengths.min(1, keepdims=True) + LENGTH_TOLERANCE).argmax(1)
        return images[np.arange(len(images)), best], shifts[best]

    def contacts_of(self, point: np.ndarray, symbol: str, count: int | None, where: str) -> list[_Image]:
        """Return the metals that bind an atom at `point`, nearest first."""
        offsets, shifts = self._nearest(point)
        distances = np.linalg.norm(offsets, axis=1)
        order = tolerant_order(distances)
        if count is None:
            reach = np.array([COVALENT_RADIUS[s] for s in self.symbols]) + COVALENT_RADIUS[symbol]
            near = distances <= np.minimum(_BINDING_LIMIT * reach, _BINDING_SPREAD * distances[order[0]])
            if not near.any():
                raise InputError(
                    f"{where}: the adsorbate is {distances.min():.2f} Å from the nearest metal; "
                    "expected an adsorbate bound to the surface"
                )
            count = min(int(near.sum()), 4)
        if len(order) < count:
            raise InputError(f"{where}: {len(order)} metals; expected at least {count} to bind the adsorbate")
        return [(int(i), (int(shifts[i][0]), int(shifts[i][1]), int(shifts[i][2]))) for i in order[:count]]

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


def _translation_key(images: Sequence[_Image]) -> tuple[_Image, ...]:
    """Return a key that is the same for all lattice translations and orders of some images."""
    keys = []
    for _, origin in images:
        moved = [(i, (s[0] - origin[0], s[1] - origin[1], s[2] - origin[2])) for i, s in images]
        keys.append(tuple(sorted(moved)))
    return min(keys)


def _nearby_shifts(pbc: np.ndarray) -> np.ndarray:
    ranges = [range(-2, 3) if periodic else range(1) for periodic in pbc]
    return np.array([(a, b, c) for a in ranges[0] for b in ranges[1] for c in ranges[2]])


def _local_frame(positions: np.ndarray, contacts: int, bonds: np.ndarray) -> np.ndarray:
    """Return axes as rows: along the contacts, sideways, outward normal (away from the contacts' neighbours)."""
    normal = np.zeros(3)
    for i in range(contacts):
        directions = positions[bonds[i]] - positions[i]
        normal -= (directions / np.linalg.norm(directions, axis=1, keepdims=True)).sum(0)
    if contacts == 2:
        axis = positions[1] - positions[0]
        axis /= np.linalg.norm(axis)
        normal -= axis * (normal @ axis)
    elif contacts >= 3:
        _, _, plane = np.linalg.svd(positions[:contacts] - positions[:contacts].mean(0))
        normal = plane[2] * np.sign(plane[2] @ normal or 1.0)
        # Towards a contact: triangles and squares have no longest direction that rounding would not choose.
        axis = positions[0] - positions[:contacts].mean(0)
    else:
        axis = np.array([1.0, 0.0, 0.0])
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


def _whole_molecule(atoms: Atoms, where: str) -> tuple[np.ndarray, list[str]]:
    """Return positions and symbols of the one adsorbate, put together across periodic boundaries."""
    symbols = atoms.get_chemical_symbols()
    unknown = [symbol for symbol in symbols if symbol not in COVALENT_RADIUS]
    if unknown:
        raise InputError(f"{where}: unknown element {unknown[0]!r}; expected metals and a known adsorbate")
    cell, shifts = np.asarray(atoms.cell.array), _nearby_shifts(atoms.pbc)
    positions = atoms.positions.copy()
    joined, front = {0}, [0]
    while front:
        i = front.pop()
        for j in set(range(len(symbols))) - joined:
            images = positions[j] + shifts @ cell
            gaps = np.linalg.norm(images - positions[i], axis=1)
            if gaps.min() <= BOND_REACH * (COVALENT_RADIUS[symbols[i]] + COVALENT_RADIUS[symbols[j]]):
                positions[j] = images[gaps.argmin()]
                joined.add(j)
                front.append(j)
    if len(joined) != len(symbols):
        raise InputError(
            f"{where}: the atoms {''.join(symbols)} are not one molecule; expected exactly one adsorbate"
        )
    return positions, symbols


def _contact_count(info: dict, kind: str | None, where: str) -> int | None:
    if kind is not None:
        counts = {"top": 1, "bridge": 2, "hollow": 3}
        if kind not in counts:
            raise InputError(f"kind: {kind!r}; expected top, bridge or hollow")
        return counts[kind]
    if "contacts" in info:
        count = int(info["contacts"])
        if count not in KINDS:
            raise InputError(f"{where}: contacts is {count}; expected 1 to 4")
        return count
    return 2 if str(info.get("site_class", "")) in _CLASS_NAMES else None


def _read_facet(atoms: Atoms, facet: str | None) -> str:
    text = facet if facet is not None else str(atoms.info.get("facet", ""))
    return facet_name(parse_facet(text)) if text else ""


def _read_frames(file: Path) -> list[Atoms]:
    """Read every frame of a file; an ASE db's key-value pairs come into `info`."""
    if file.stat().st_size == 0:
        raise InputError(f"{file}: an empty file; expected structures that ASE reads")
    try:
        if file.suffix == ".db":
            from ase.db import connect

            frames = []
            for row in connect(str(file)).select():
                atoms = row.toatoms()
                atoms.info.update(row.key_value_pairs)
                frames.append(atoms)
        else:
            frames = ase_read(str(file), index=":")
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  (ASE's readers raise whatever their parsers raise)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{file}: not a structure that ASE reads ({reason[:160]})") from None
    if not isinstance(frames, list) or not frames:
        raise InputError(f"{file}: no structures; expected at least one frame")
    return frames
