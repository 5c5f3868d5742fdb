"""Templates: the ideal geometry of each site class, its symmetry, and which slot of it each metal of a site fills.

A relaxed site is a distorted copy of an ideal one. Matched against it, a neighbour gets the same slot whatever the
relaxation, so that "the element in slot 7" means the same place for every site of a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from catalysis.structure.finding import find_sites
from catalysis.structure.ordering import first_smallest, tolerant_order, tolerant_ranks
from catalysis.structure.sites import SECOND, Site
from catalysis.structure.surfaces import bare_slab, facet_name, is_hexagonal, parse_facet
from interpretkit.errors import InputError

LATTICE_CONSTANT = 3.85
"""Lattice constant (Å) of the templates: the mean of Ru, Rh, Pd, Ir and Pt."""

ZONE_CAPACITY = (4, 12, 18, 50)
"""Slots kept for contacts, common neighbours, shell and second neighbours in an array that holds every class."""

ZONE_OFFSET = (0, 4, 16, 34)
"""Where each zone's slots begin in such an array."""

N_SLOTS = sum(ZONE_CAPACITY)

_ANCHOR_HEIGHT = 1.5  # Å above the contacts: a stand-in for the binding atom, the same for every adsorbate
_EQUAL = 2e-3  # Å: lengths and coordinates of ideal geometries that differ by less are equal
_SAME = 0.10  # Å: points of an ideal geometry that coincide
_REFINED = 0.5  # Å: more than a rigid motion takes off the distance of a start that is right but for a tilt
_MAX_RMS = 0.75  # Å: beyond this a site is no distorted copy of its template


@dataclass(frozen=True, eq=False)
class Geometry:
    """What models need to know of a template: plain arrays, the slots in the template's order.

    Attributes
    ----------
    key : str
        Class and variant.
    columns, orbits : ndarray
        The slots' columns in an array of `N_SLOTS` columns, and the columns of their orbits, both (n,).
    zones : ndarray
        Shape (n,).
    descriptors : ndarray
        Shape (n, 6), in Å but for the last: distances to the nearest and the farthest contact, distance to a point
        1.5 Å above the contacts, height above them, distance from the normal; the coordination number (0 for
        second neighbours, whose surroundings are cut off).
    touching : ndarray
        Which slots are bonded to each contact, shape (contacts, n).
    permutations : ndarray
        Symmetries as in `Template`, shape (g, n).
    facet, site_class : str
    variant : int
        Where the template is to be found.
    """

    key: str
    columns: np.ndarray
    orbits: np.ndarray
    zones: np.ndarray
    descriptors: np.ndarray
    touching: np.ndarray
    permutations: np.ndarray
    facet: str
    site_class: str
    variant: int

    @property
    def contacts(self) -> int:
        """How many slots bind the adsorbate."""
        return len(self.touching)

    @property
    def coordination(self) -> np.ndarray:
        """Coordination numbers of the contacts, shape (contacts,)."""
        return self.touching.sum(1)

    def template(self, adsorbate: str) -> Template:
        """Return the template with an adsorbate on it.

        Raises
        ------
        InputError
            If the facet is unknown or has no such class.
        """
        found = find_template(self.facet, self.site_class, self.variant, adsorbate)
        if found is None:
            raise InputError(
                f"{self.key}: has no template; expected a class that `find_sites` gives on its facet"
            )
        return found


@dataclass(frozen=True, eq=False)
class Template:
    """The ideal geometry of a site class.

    Attributes
    ----------
    facet, site_class : str
        As in `catalysis.structure.sites.Site`.
    variant : int
        0, 1, …: inequivalent geometries that share the class's name.
    site : Site
        The ideal site, occupied by one element.
    order : ndarray
        `order[k]` is the index within `site` of the metal in slot k, shape (n,). Slots are sorted by zone, then
        by distance to a point 1.5 Å above the contacts.
    positions : ndarray
        Of the slots in the local frame, in Å, shape (n, 3); origin at the centre of the contacts, z outwards.
    zones : ndarray
        Zone of each slot, shape (n,).
    permutations : ndarray
        Symmetries, shape (g, n): each isometry that keeps contacts and outward normal takes slot k to slot
        `permutations[i, k]`. The identity comes first.
    orbits : ndarray
        Which slots are equivalent, shape (n,): the lowest slot of each orbit stands for it.
    """

    facet: str
    site_class: str
    variant: int
    site: Site
    order: np.ndarray
    positions: np.ndarray
    zones: np.ndarray
    permutations: np.ndarray
    orbits: np.ndarray

    def __len__(self) -> int:
        """Return the number of slots."""
        return len(self.order)

    @property
    def key(self) -> str:
        """Class and variant, for example `"211_edge"` or `"532_bridge_7-9#1"`."""
        return self.site_class + (f"#{self.variant}" if self.variant else "")

    @property
    def contacts(self) -> int:
        """How many slots bind the adsorbate; they are the first ones."""
        return self.site.contacts

    @property
    def columns(self) -> np.ndarray:
        """The column of each slot in an array of `N_SLOTS` columns that holds every class, shape (n,)."""
        return zone_columns(self.zones)

    @property
    def bonds(self) -> np.ndarray:
        """Which slots are bonded, shape (n, n)."""
        return self.site.bonds[np.ix_(self.order, self.order)]

    @cached_property
    def geometry(self) -> Geometry:
        """The arrays by which models know the template; slots beyond a zone's capacity are left out."""
        points, bonds = self.positions, self.bonds
        gaps = cdist(points, points[: self.contacts])
        coordination = np.where(self.zones == SECOND, 0, bonds.sum(1))
        descriptors = np.column_stack(
            [
                gaps.min(1),
                gaps.max(1),
                np.linalg.norm(points - [0.0, 0.0, _ANCHOR_HEIGHT], axis=1),
                points[:, 2],
                np.linalg.norm(points[:, :2], axis=1),
                coordination,
            ]
        )
        columns = self.columns
        kept = columns >= 0
        return Geometry(
            self.key,
            columns[kept],
            columns[self.orbits][kept],
            self.zones[kept],
            descriptors[kept],
            bonds[: self.contacts, kept],
            self.permutations if kept.all() else np.arange(kept.sum())[None],
            self.facet,
            self.site_class,
            self.variant,
        )

    def decorate(self, symbols: Sequence[str], **changes: object) -> Site:
        """Return the ideal site with the given elements, one per slot.

        Raises
        ------
        InputError
            If the number of elements is not the number of slots.
        """
        if len(symbols) != len(self):
            raise InputError(f"elements: {len(symbols)} given; {self.key} has {len(self)} slots")
        by_index = [""] * len(self)
        for slot, index in enumerate(self.order):
            by_index[index] = str(symbols[slot])
        return self.site.with_elements(by_index, **changes)

    def canonical(self, occupation: np.ndarray) -> np.ndarray:
        """Return, of all symmetric copies of occupations, the lexicographically smallest.

        Parameters
        ----------
        occupation : ndarray
            Integers, one per slot, shape (n,) or (batch, n).

        Returns
        -------
        ndarray
            Same shape and type.
        """
        return smallest_copy(occupation, self.permutations)


@dataclass(frozen=True, eq=False)
class Alignment:
    """A site matched to a template.

    Attributes
    ----------
    template : Template or None
        None where there is none for the site; then slots go by zone and rank of distance.
    slots : ndarray
        Slot of each of the site's metals, shape (n,), -1 for a metal that the template lacks.
    columns : ndarray
        Column of each metal in an array of `N_SLOTS` columns, shape (n,), -1 likewise.
    rms_angstrom : float
        Root mean square distance between metals and slots after the best rigid motion; NaN without template.
    """

    template: Template | None
    slots: np.ndarray
    columns: np.ndarray
    rms_angstrom: float


def smallest_copy(occupation: np.ndarray, permutations: np.ndarray) -> np.ndarray:
    """Return the lexicographically smallest of the permuted copies of each row, shapes (…, n) and (g, n)."""
    table = np.atleast_2d(occupation)
    best = table
    rows = np.arange(len(table))
    for permutation in permutations[1:]:
        other = table[:, permutation]
        differs = other != best
        first = differs.argmax(1)
        smaller = differs.any(1) & (other[rows, first] < best[rows, first])
        best = np.where(smaller[:, None], other, best)
    return best.reshape(np.shape(occupation))


def zone_columns(zones: np.ndarray) -> np.ndarray:
    """Return columns for metals sorted within their zones: a block per zone, -1 beyond a zone's capacity."""
    columns = np.full(len(zones), -1)
    for zone, (offset, capacity) in enumerate(zip(ZONE_OFFSET, ZONE_CAPACITY, strict=True)):
        members = np.flatnonzero(zones == zone)[:capacity]
        columns[members] = offset + np.arange(len(members))
    return columns


def facet_templates(facet: str, adsorbate: str = "OH") -> dict[str, tuple[Template, ...]]:
    """Return the templates of every class on a facet, by the name of the class.

    Parameters
    ----------
    facet : str
        For example `"211"`.
    adsorbate : str
        Placed on the ideal sites; the slots do not depend on it.

    Returns
    -------
    dict
        From class to its inequivalent geometries, in the order in which they are found on the ideal slab.

    Raises
    ------
    InputError
        For a facet or an adsorbate that cannot be read.
    """
    return dict(_facet_templates(facet_name(parse_facet(facet)), adsorbate))


@cache
def _facet_templates(name: str, adsorbate: str) -> dict[str, tuple[Template, ...]]:
    slab = bare_slab(name, LATTICE_CONSTANT)
    found: dict[str, list[Template]] = {}
    for site in find_sites(slab, kinds=("top", "bridge", "hollow"), adsorbate=adsorbate):
        known = found.setdefault(site.site_class, [])
        if not any(len(t) == len(site) and _match(site, t)[1] < _SAME for t in known):
            known.append(template_of(site, len(known)))
    return {site_class: tuple(templates) for site_class, templates in found.items()}


def class_templates(facet: str, site_class: str, adsorbate: str = "OH") -> tuple[Template, ...]:
    """Return the templates of one class: empty where the facet is unknown or has no such class."""
    if not facet or is_hexagonal(facet):
        return ()
    return _facet_templates(facet_name(parse_facet(facet)), adsorbate).get(site_class, ())


def find_template(facet: str, site_class: str, variant: int, adsorbate: str = "OH") -> Template | None:
    """Return one template of a class, None where the facet is unknown or has no such class or variant."""
    found = class_templates(facet, site_class, adsorbate)
    return found[variant] if variant < len(found) else None


def align(site: Site) -> Alignment:
    """Match a site, relaxed or not, against the template of its class.

    The normal and each possible reference neighbour fix the rotations and mirror images to try; for each, metals
    and slots are assigned to each other (Hungarian method) and the rigid motion is refined.

    Parameters
    ----------
    site : Site
        Its `facet` and `site_class` choose the template.

    Returns
    -------
    Alignment
        Where the template has symmetries the slots are determined up to one of `Template.permutations`.
    """
    best: tuple[np.ndarray, float, Template] | None = None
    for template in class_templates(site.facet, site.site_class):
        if template.contacts != site.contacts:
            continue
        slots, rms = _match(site, template)
        # An unmatched metal says more against a variant than a little strain.
        score = rms + 0.2 * abs(len(template) - len(site))
        if rms < _MAX_RMS and (best is None or score < best[1] - _EQUAL):
            best = slots, score, template
    if best is None:
        return _ranked(site)
    slots, score, template = best
    rms = score - 0.2 * abs(len(template) - len(site))
    columns = np.where(slots >= 0, template.columns[slots], -1)
    return Alignment(template, slots, columns, rms)


def _ranked(site: Site) -> Alignment:
    """Give slots by zone, then by distance, as in a template."""
    own = template_of(site)
    slots, columns = np.empty(len(site), int), np.empty(len(site), int)
    slots[own.order] = np.arange(len(site))
    columns[own.order] = own.columns
    return Alignment(None, slots, columns, float("nan"))


def _local(site: Site) -> np.ndarray:
    """Return the metals' positions in the site's local frame, origin at the centre of the contacts."""
    return (site.positions - site.positions[: site.contacts].mean(0)) @ site.frame.T


def template_of(site: Site, variant: int = 0) -> Template:
    """Return a site as the template of its class, or where there is none as its own."""
    positions, zones = _local(site), site.zones
    turned, order = _canonical_pose(positions, zones, site.contacts)
    points = turned[order]
    permutations = _symmetries(points, site.contacts)
    orbits = permutations.min(0)
    return Template(
        facet=site.facet,
        site_class=site.site_class,
        variant=variant,
        site=replace(site, site_id="", slab_id=""),
        order=order,
        positions=points,
        zones=zones[order],
        permutations=permutations,
        orbits=orbits,
    )


def _canonical_pose(positions: np.ndarray, zones: np.ndarray, contacts: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a site's points turned about the normal into the one pose that stands for all, and their order.

    Slots go by zone, then by distance to the anchor above the contacts, then by place. Place depends on where the
    axes point, so each contact off the axis (of a top site, each of the nearest neighbours off the axis) is tried on
    the first axis, as are mirror images; the pose whose sorted points come first counts. Poses that a symmetry turns
    into each other are equal, whichever is taken.
    """
    distances = tolerant_ranks(np.linalg.norm(positions - [0.0, 0.0, _ANCHOR_HEIGHT], axis=1), _EQUAL)
    radius = np.linalg.norm(positions[:, :2], axis=1)
    off_axis = np.flatnonzero(radius > 0.5)
    if contacts > 1 and np.any(off_axis < contacts):
        off_axis = off_axis[off_axis < contacts]
    elif len(off_axis):
        nearest = zones[off_axis] * (distances.max() + 1) + distances[off_axis]
        off_axis = off_axis[nearest == nearest.min()]
    angles = np.arctan2(positions[off_axis, 1], positions[off_axis, 0]) if len(off_axis) else np.zeros(1)
    poses, turns = [], []
    for angle in angles:
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        for mirror in (1.0, -1.0):
            turns.append(turn)
            poses.append(positions @ turn.T * [1.0, mirror, 1.0])
    # Ranks over all poses together: equal coordinates get equal numbers, and comparing them is exact.
    ranks = np.stack([tolerant_ranks(axis, _EQUAL) for axis in np.moveaxis(np.array(poses), 2, 0)], axis=2)
    orders = [np.lexsort((x, y, z, distances, zones)) for x, y, z in ranks.transpose(0, 2, 1)]
    sorted_points = [pose[order].ravel().tolist() for pose, order in zip(ranks, orders, strict=True)]
    best = min(range(len(poses)), key=sorted_points.__getitem__)
    return positions @ turns[best].T, orders[best]


def _motions(source: np.ndarray, target: np.ndarray, contacts: int) -> list[np.ndarray]:
    """Return the 3×3 matrices about z, proper and improper, that may turn `source` onto `target`.

    A reference point of `target` (a contact off the axis, or else the nearest point off the axis) must come from
    one of the points of `source` that could play its part.
    """
    pool = slice(0, contacts) if contacts > 1 else slice(None)
    radius = np.linalg.norm(target[pool, :2], axis=1)
    off_axis = np.flatnonzero(radius > 0.5)
    if not len(off_axis):
        return [np.eye(3), np.diag([1.0, -1.0, 1.0])]
    nearest = first_smallest(np.linalg.norm(target[pool][off_axis], axis=1), _EQUAL)
    reference = target[pool][off_axis[nearest]]
    angle = np.arctan2(reference[1], reference[0])
    near = source[pool]
    # Relaxation moves a contact by tenths of an Å; a square hollow's contacts differ more, so all of them count.
    fits = np.linalg.norm(near[:, :2], axis=1) > 0.3
    if contacts == 1:
        fits &= np.linalg.norm(near - near[0], axis=1) < np.linalg.norm(reference) + 0.6
    motions = []
    for mirror in (1.0, -1.0):
        for point in near[fits]:
            turn = angle - np.arctan2(mirror * point[1], point[0])
            c, s = np.cos(turn), np.sin(turn)
            motions.append(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([1.0, mirror, 1.0]))
    return motions


def _symmetries(points: np.ndarray, contacts: int) -> np.ndarray:
    found = {tuple(range(len(points)))}
    for motion in _motions(points, points, contacts):
        gaps = cdist(points @ motion.T, points)
        images = gaps.argmin(1)
        if (
            gaps.min(1).max() < _SAME
            and len(set(images)) == len(points)
            and images[:contacts].max() < contacts
        ):
            found.add(tuple(int(i) for i in images))
    return np.array(sorted(found))


def _match(site: Site, template: Template) -> tuple[np.ndarray, float]:
    """Return the slot of each metal (-1: none) and the root mean square distance in Å."""
    source, target = _local(site), template.positions
    forbidden = np.zeros((len(source), len(target)))
    forbidden[: site.contacts, template.contacts :] = 1e3
    forbidden[site.contacts :, : template.contacts] = 1e3
    best: tuple[float, np.ndarray] | None = None
    starts = source @ np.array(_motions(source, target, site.contacts)).transpose(0, 2, 1)
    # How far the metals are from their nearest slots: no assignment of the same start is better.
    gaps = ((starts[:, :, None] - target) ** 2).sum(-1).min(2)
    bounds = np.sqrt(np.sort(gaps, axis=1)[:, : min(len(source), len(target))].mean(1))
    for start in tolerant_order(bounds, tolerance=_EQUAL).tolist():
        if best is not None and bounds[start] > best[0] + _REFINED:
            break
        moved = starts[start]
        rows, columns = _assign(moved, target, forbidden)
        for _ in range(2):
            moved = _superpose(moved, moved[rows], target[columns])
            again = _assign(moved, target, forbidden)
            settled = np.array_equal(again[0], rows) and np.array_equal(again[1], columns)
            rows, columns = again
            if settled:
                break
        rms = float(np.sqrt(((moved[rows] - target[columns]) ** 2).sum(1).mean()))
        if best is None or rms < best[0] - _EQUAL / 10:
            slots = np.full(len(source), -1)
            slots[rows] = columns
            best = rms, slots
    if best is None:  # pragma: no cover - _motions never returns an empty list for a site with neighbours
        return np.full(len(source), -1), float("inf")
    rms, slots = best
    # Symmetric copies fit equally well; the one that comes first stands for all.
    copies = np.where(slots >= 0, template.permutations[:, slots], -1)
    return np.array(min(copies.tolist())), rms


def _assign(moved: np.ndarray, target: np.ndarray, forbidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cost = cdist(moved, target, "sqeuclidean") + forbidden
    nearest = cost.argmin(1)
    if len(set(nearest)) == len(nearest):  # everybody's nearest slot is free: already the best assignment
        return np.arange(len(nearest)), nearest
    rows, columns = linear_sum_assignment(cost)
    return rows, columns


def _superpose(points: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return `points` after the rigid motion that takes `source` nearest to `target` (Kabsch)."""
    a, b = source.mean(0), target.mean(0)
    u, _, v = np.linalg.svd((source - a).T @ (target - b))
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ v))])
    return (points - a) @ (u @ sign @ v) + b
