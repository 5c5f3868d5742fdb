"""Active sites: what one is, and how it is classified.

A site is the metals that bind the adsorbate (its *contacts*: one for a top, two for a bridge, three or four for a
hollow site), every metal within two bonds of them, and the adsorbate. `catalysis.structure.finding` finds the sites on
clean slabs, `catalysis.structure.user_sites` those in the structures of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from ase import Atoms

from catalysis.structure.elements import BOND_FACTOR, COVALENT_RADIUS
from catalysis.structure.ordering import tolerant_order
from catalysis.structure.reading import ENERGY_KEY
from interpretkit.errors import InputError

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

HCP_OFFSET, FCC_OFFSET = 0.21, 0.38
"""A metal below a hollow makes it hcp nearer to its axis than the first, fcc beyond the second (contact distances)."""

LAYER = (0.4, 1.2)
"""Between which depths the layer below a hollow lies, in distances between contacts."""


@dataclass(frozen=True)
class Site:
    """An active site.

    Attributes
    ----------
    symbols : tuple of str
        Elements of the metals, shape (n,): the contacts first, then by distance to the binding atom.
    positions : ndarray
        Of the metals, in Å, shape (n, 3).
    contacts : int
        How many of them bind the adsorbate.
    adsorbate : str
    adsorbate_symbols : tuple of str
    adsorbate_positions : ndarray
        Its name, elements (m,) and positions (m, 3) in Å, the binding atom first.
    facet, site_class : str
        Facet (empty where unknown) and class, for example `"211"` and `"211_edge"`.
    site_id, slab_id : str
        Sites with the same `slab_id` share atoms.
    energy_ev : float or None
        Adsorption energy in eV, if known.
    host_indices : tuple of int
        The atom of the structure that each metal is an image of, (n,); empty where it was cut from none.
    host : Atoms or None
        That structure, if it is periodic: what lies beyond the site, for models that look there.
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
    host: Atoms | None = field(default=None, repr=False, compare=False)

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
        return self._bonds_of(len(self))

    def _bonds_of(self, count: int) -> np.ndarray:
        """Return which metals the first ones are bonded to, (count, n)."""
        radii = np.array([COVALENT_RADIUS[symbol] for symbol in self.symbols])
        distances = np.linalg.norm(self.positions[:count, None] - self.positions[None], axis=-1)
        bonded = distances <= BOND_FACTOR * (radii[:count, None] + radii[None])
        np.fill_diagonal(bonded, False)
        return bonded

    @property
    def zones(self) -> np.ndarray:
        """The zone of each metal, shape (n,): `CONTACT`, `COMMON`, `SHELL` or `SECOND`."""
        touching = self._bonds_of(self.contacts).sum(0)
        zones = np.full(len(self), SECOND)
        zones[touching >= 1] = SHELL
        if self.contacts > 1:
            zones[touching >= 2] = COMMON
        zones[: self.contacts] = CONTACT
        return zones

    @property
    def coordination_numbers(self) -> tuple[int, ...]:
        """Metal neighbours of each contact, ascending."""
        return tuple(sorted(int(count) for count in self._bonds_of(self.contacts).sum(1)))

    @property
    def frame(self) -> np.ndarray:
        """Right-handed local axes as rows, shape (3, 3): along the contacts, sideways, and the outward normal."""
        return local_frame(self.positions, self.contacts, self._bonds_of(self.contacts))

    def with_elements(self, symbols: Sequence[str], **changes: object) -> Site:
        """Return the same geometry occupied by other metals."""
        if len(symbols) != len(self):
            raise InputError(f"elements: {len(symbols)} given; the site has {len(self)} metals")
        return replace(self, symbols=tuple(symbols), host=None, **changes)  # type: ignore[arg-type]

    @property
    def info(self) -> dict[str, object]:
        """What a file is to say of the site, but for its energy: names, facet, class and number of contacts.

        Without empty entries, for extxyz would read the next entry as the value of an empty one.
        """
        names = ("site_id", "slab_id", "facet", "site_class", "contacts")
        return {name: value for name in names if (value := getattr(self, name)) != ""}

    def to_atoms(self) -> Atoms:
        """Return the site as a cluster: metals, then the adsorbate; the rest in `info`."""
        atoms = Atoms(
            [*self.symbols, *self.adsorbate_symbols],
            positions=np.vstack([self.positions, self.adsorbate_positions]),
            info=self.info,
        )
        if self.energy_ev is not None:
            atoms.info[ENERGY_KEY] = float(self.energy_ev)
        return atoms


@dataclass(frozen=True)
class Environment:
    """The metals around some contacts, contacts first.

    Attributes
    ----------
    symbols : list of str
        Elements, (n,).
    positions : ndarray
        In Å, not wrapped into the cell, (n, 3).
    bonds : ndarray
        Which of them each contact is bonded to, bool, (contacts, n).
    indices : list of int
        Of the atoms that they are images of, (n,).
    """

    symbols: list[str]
    positions: np.ndarray
    bonds: np.ndarray
    indices: list[int]


def ordered_site(
    environment: Environment,
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


def local_frame(positions: np.ndarray, contacts: int, bonds: np.ndarray) -> np.ndarray:
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


def site_class_name(facet: str, kind: str, coordination_numbers: Sequence[int]) -> str:
    """Return the class: the published name where there is one, else facet, kind and coordination numbers.

    A threefold hollow of close-packed metals is `"fcc"` or `"hcp"` where its kind is given so. For example
    `"211_edge"`, `"221_bridge_7-9"`, `"111_top_9"`, `"111_hcp_9-9-9"`, or `"bridge_8-8"` where the facet is unknown.
    """
    numbers = tuple(sorted(coordination_numbers))
    if kind == "bridge" and (facet, numbers) in BRIDGE_CLASSES:
        return BRIDGE_CLASSES[facet, numbers]
    return "_".join(part for part in (facet, kind, "-".join(map(str, numbers))) if part)


def named_kind(positions: np.ndarray, count: int, normal: np.ndarray) -> str:
    """Return the kind that a class is named by: of a threefold hollow `"fcc"` or `"hcp"` where it is one of them.

    A metal of the next layer straight below makes it hcp; if the nearest ones stand aside it is fcc. Both have the same
    coordination numbers. What lies between is neither, for example a hollow of bcc (110).
    """
    if count != 3:
        return KINDS[count]
    depth, offset = depths_below(positions, count, normal)
    layer = offset[(depth > LAYER[0]) & (depth < LAYER[1])]
    if not len(layer):
        return KINDS[count]
    nearest = layer.min()
    return "hcp" if nearest < HCP_OFFSET else "fcc" if nearest > FCC_OFFSET else KINDS[count]


def depths_below(positions: np.ndarray, count: int, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
