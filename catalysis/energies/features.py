"""Features of occupied templates: a block of columns for each kind of effect that elements in slots may have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from catalysis.potentials.embeddings import get_embedding
from catalysis.structure.elements import group_and_period
from catalysis.structure.occupations import Occupations
from catalysis.structure.ordering import first_largest, first_smallest, tolerant_ranks
from catalysis.structure.templates import N_SLOTS, ZONE_CAPACITY, Geometry

BLOCKS = (
    "class", "class_likeness", "contact", "contact_likeness", "contact_cn", "pair", "class_pair",
    "orbit_contact", "orbit", "common", "shell", "second", "contact_neighbour", "contact_crowd",
)  # fmt: skip
"""The kinds of effects whose shares of the variance the teacher learns."""

RELAXED_BLOCKS = ("relaxed", "relaxed_squares", "relaxed_contact")
"""Those that join them where relaxed geometry is used."""

ZONE_NAMES = {1: "common", 2: "shell", 3: "second"}
"""The block of each zone beyond the contacts."""

# How far apart in the periodic table elements stop to resemble each other: groups, periods.
_GROUP_AND_PERIOD_SCALE = np.array([0.8, 0.5])
_VARIES = 1.1e-4  # deviations of a potential's numbers, with the 1e-4 below: less is rounding
_CN_SCALE = 1.5  # contacts whose coordination numbers differ by less resemble each other
_CN_LANDMARKS = np.arange(3.0, 13.0, 1.5)[:, None] / _CN_SCALE
_DESCRIPTOR_SCALES = np.array([1.0, 1.0, 1.0, 1.5, 1.5, 3.0])  # of `Geometry.descriptors`, in slot lengths


@dataclass(frozen=True, eq=False)
class FeatureSpace:
    """What the features refer to: the classes, elements, pairs and slots that training holds.

    Attributes
    ----------
    elements, classes : tuple of str
        Metals, and keys of classes.
    class_coordination : ndarray
        Per class: twice the number of contacts, mean and spread of their coordination numbers, (classes, 3).
    pairs, class_pairs : tuple of str
        Elements of all contacts together; the same with the class in front.
    orbits : ndarray
        Class, lowest column of the orbit, and element of every occupied orbit, (k, 3).
    landmarks : ndarray
        Slots that stand for all others, as scaled descriptors, (r, 6).
    slot_length : float
        In Å: slots closer than this have nearly the same effect.
    relaxed : ndarray or None
        Mean and standard deviation of each number of the relaxed geometry, (2, 12).
    embedding : str
        The potential that describes sites besides, of `catalysis.potentials.embeddings.EMBEDDINGS`; empty for none.
    embedded : ndarray or None
        Mean and standard deviation of each number of its rows, (2, width).
    """

    elements: tuple[str, ...]
    classes: tuple[str, ...]
    class_coordination: np.ndarray
    pairs: tuple[str, ...]
    class_pairs: tuple[str, ...]
    orbits: np.ndarray
    landmarks: np.ndarray
    slot_length: float
    relaxed: np.ndarray | None
    embedding: str
    embedded: np.ndarray | None

    @classmethod
    def of(
        cls, data: Occupations, slot_length: float, embedding: str = "", n_landmarks: int = 48
    ) -> FeatureSpace:
        """Return the space that some sites span, with up to `n_landmarks` slots that stand for all."""
        classes: dict[str, Geometry] = {}
        for k in np.unique(data.geometry):
            classes.setdefault(data.geometries[k].key, data.geometries[k])
        names = tuple(sorted(classes))
        descriptors = _distinct_rows(np.concatenate([classes[name].descriptors for name in names]))
        return cls(
            elements=data.elements,
            classes=names,
            class_coordination=np.array([_contact_coordination(classes[name]) for name in names]),
            pairs=tuple(sorted(set(data.contact_elements))),
            class_pairs=tuple(sorted(set(_class_pairs(data)))),
            orbits=np.unique(_orbit_rows(data, names)[:, 1:], axis=0),
            landmarks=_spread_out(descriptors / (slot_length * _DESCRIPTOR_SCALES), n_landmarks),
            slot_length=slot_length,
            relaxed=None if data.relaxed is None else _spread(data.relaxed, 1e-3),
            embedding=embedding,
            embedded=_spread(data.embedded[embedding], 1e-4) if embedding else None,
        )

    def of_elements(self, elements: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what is known of elements.

        Returns
        -------
        one_hot : ndarray
            (elements + 1, known elements), float32, the last row of zeros for an empty slot.
        periodic_table : ndarray
            Features whose inner products tell how near elements are in the periodic table, likewise.
        lookup : ndarray
            Index of each element among the known ones, their number for an unknown one, (elements,).
        """
        kinds = len(self.elements)
        lookup = np.array([self.elements.index(e) if e in self.elements else kinds for e in elements])
        own = np.concatenate([np.eye(kinds), np.zeros((1, kinds))])[lookup]
        table = _embedding(_places_in_table(elements), _places_in_table(self.elements))
        own, table = (
            np.concatenate([part, np.zeros((1, part.shape[1]))]).astype(np.float32) for part in (own, table)
        )
        return own, table, lookup

    @property
    def embedded_blocks(self) -> dict[str, slice]:
        """The kinds of effects that join the others where a potential describes sites, and their columns in its rows.

        Those that are the same for all sites, as the differences between contacts where there is one, are left out.
        """
        if self.embedded is None:
            return {}
        deviations = self.embedded[1]
        return {
            f"{self.embedding}_{name}": columns
            for name, columns in get_embedding(self.embedding).blocks.items()
            if deviations[columns].max() > _VARIES
        }

    def of_class(self, geometry: Geometry) -> np.ndarray:
        """Return features whose inner products tell how alike the coordination of classes is, (rank,)."""
        point = _contact_coordination(geometry)[None]
        return _embedding(point / _CN_SCALE, self.class_coordination / _CN_SCALE)[0]

    def of_slots(self, geometry: Geometry) -> np.ndarray:
        """Return features whose inner products tell how alike the places of slots are, (slots, rank)."""
        return _embedding(geometry.descriptors / (self.slot_length * _DESCRIPTOR_SCALES), self.landmarks)

    @staticmethod
    def of_coordination(geometry: Geometry) -> np.ndarray:
        """Return features whose inner products tell how alike contacts are in coordination, (contacts, rank)."""
        return _embedding(geometry.coordination[:, None] / _CN_SCALE, _CN_LANDMARKS)

    def features(self, data: Occupations) -> dict[str, np.ndarray]:
        """Return one block of features per kind of effect, each (n, width), float32.

        `class` and `class_likeness`: the class, and how alike its coordination is to that of the known ones.
        `contact`, `contact_likeness`: elements of the contacts, one by one, also by place in the periodic table.
        `contact_cn`: element times coordination number of each contact. `pair`, `class_pair`: all contacts' elements
        together. `orbit_contact`, `orbit`: element in each symmetry-distinct slot of the class. `common`, `shell`,
        `second`: elements of that zone by place in the periodic table and place around the site, shared between
        classes. `contact_neighbour`: element of a contact times elements and places of its neighbours.
        `contact_crowd`: the same times products of the mean elements of a zone, for what many neighbours do is not
        the sum of what each does. With relaxed geometry, `relaxed`, `relaxed_squares`, `relaxed_contact`: its numbers,
        their products, and times the contacts' elements. With a potential's
        embedding, `embedded_blocks`.
        """
        n, kinds = len(data), len(self.elements)
        own, table, lookup = self.of_elements(data.elements)
        rank_cn = _embedding(_CN_LANDMARKS, _CN_LANDMARKS).shape[1]
        rank_slot = _embedding(self.landmarks, self.landmarks).shape[1]
        known_classes = self.class_coordination / _CN_SCALE
        rank_class = _embedding(known_classes, known_classes).shape[1]
        t = table.shape[1]
        blocks = {
            "class": np.zeros((n, len(self.classes)), np.float32),
            "class_likeness": np.zeros((n, rank_class), np.float32),
            "contact_cn": np.zeros((n, kinds * rank_cn), np.float32),
            "common": np.zeros((n, rank_slot * t), np.float32),
            "shell": np.zeros((n, rank_slot * t), np.float32),
            "second": np.zeros((n, rank_slot * t), np.float32),
            "contact_neighbour": np.zeros((n, kinds * rank_slot * t), np.float32),
            "contact_crowd": np.zeros((n, kinds * len(ZONE_NAMES) * (t * (t + 1) // 2)), np.float32),
        }
        i, j = np.triu_indices(t)
        for rows, geometry in data.by_geometry():
            if geometry.key in self.classes:
                blocks["class"][rows, self.classes.index(geometry.key)] = 1.0
            blocks["class_likeness"][rows] = self.of_class(geometry)
            slots = self.of_slots(geometry).astype(np.float32)
            elements = data.table[np.ix_(rows, geometry.columns)]
            places = table[elements]  # (rows, slots, t)
            for zone, name in ZONE_NAMES.items():
                members = geometry.zones == zone
                if members.any():
                    block = np.tensordot(places[:, members], slots[members], (1, 0))
                    blocks[name][rows] = block.reshape(len(rows), -1)
            numbers = self.of_coordination(geometry).astype(np.float32)
            by_number = np.zeros((len(rows), kinds, rank_cn), np.float32)
            by_neighbour = np.zeros((len(rows), kinds, t * rank_slot), np.float32)
            for contact in range(geometry.contacts):
                element = own[elements[:, contact]]  # (rows, kinds)
                by_number += element[:, :, None] * numbers[contact]
                near = geometry.touching[contact] & (geometry.zones > 0)
                around = np.tensordot(places[:, near], slots[near], (1, 0)).reshape(len(rows), 1, -1)
                by_neighbour += element[:, :, None] * around
            crowd = zone_means(places, geometry)
            contact_elements = own[elements[:, : geometry.contacts]].sum(1)
            crowd = (crowd[:, :, i] * crowd[:, :, j]).reshape(len(rows), 1, -1)
            blocks["contact_crowd"][rows] = (contact_elements[:, :, None] * crowd).reshape(len(rows), -1)
            blocks["contact_cn"][rows] = by_number.reshape(len(rows), -1)
            blocks["contact_neighbour"][rows] = by_neighbour.reshape(len(rows), -1)
        blocks["contact"] = own[data.table[:, : ZONE_CAPACITY[0]]].sum(1)
        blocks["contact_likeness"] = table[data.table[:, : ZONE_CAPACITY[0]]].sum(1)
        blocks["pair"] = _one_hot(data.contact_elements, self.pairs)
        blocks["class_pair"] = _one_hot(_class_pairs(data), self.class_pairs)
        blocks["orbit_contact"], blocks["orbit"] = self._orbit_features(data, lookup)
        if self.relaxed is not None and data.relaxed is not None:
            # Cut off, so that a site far from all others is not extrapolated to by squares.
            z = np.clip((data.relaxed - self.relaxed[0]) / self.relaxed[1], -4, 4).astype(np.float32)
            i, j = np.triu_indices(z.shape[1])
            blocks["relaxed"] = z
            blocks["relaxed_squares"] = z[:, i] * z[:, j]
            blocks["relaxed_contact"] = (blocks["contact"][:, :, None] * z[:, None]).reshape(n, -1)
        if self.embedded is not None:
            z = np.clip((data.embedded[self.embedding] - self.embedded[0]) / self.embedded[1], -6, 6)
            blocks |= {
                name: z[:, columns].astype(np.float32) for name, columns in self.embedded_blocks.items()
            }
        return blocks

    def _orbit_features(self, data: Occupations, lookup: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how many slots of each known orbit hold its element: of contacts, and of the others."""
        kinds = len(self.elements)
        rows = _orbit_rows(data, self.classes)
        codes = (rows[:, 1] * N_SLOTS + rows[:, 2]) * (kinds + 1) + lookup[rows[:, 3]]
        known = (self.orbits[:, 0] * N_SLOTS + self.orbits[:, 1]) * (kinds + 1) + self.orbits[:, 2]
        place = np.clip(np.searchsorted(known, codes), 0, len(known) - 1)
        seen = known[place] == codes
        counts = np.zeros((len(data), len(known)), np.float32)
        np.add.at(counts, (rows[seen, 0], place[seen]), 1.0)
        is_contact = self.orbits[:, 1] < ZONE_CAPACITY[0]
        return counts[:, is_contact], counts[:, ~is_contact]


def _spread(rows: np.ndarray, least: float) -> np.ndarray:
    """Return mean and standard deviation of each column, (2, k), the latter with a little added."""
    return np.stack([rows.mean(0), rows.std(0) + least])


def zone_means(of_slots: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Return the mean over the slots of each zone beyond the contacts, from (n, slots, k) to (n, 3, k)."""
    return np.stack(
        [
            of_slots[:, geometry.zones == zone].sum(1) / max(1, int((geometry.zones == zone).sum()))
            for zone in ZONE_NAMES
        ],
        axis=1,
    )


def _one_hot(names: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """Return one-hot rows (n, known), float32, zeros for an unknown name."""
    index = {name: k for k, name in enumerate(known)}
    codes = np.array([index.get(name, len(known)) for name in names], int)
    return np.eye(len(known) + 1, len(known), dtype=np.float32)[codes]


def _class_pairs(data: Occupations) -> list[str]:
    """Return the class and the elements of the contacts together, one per site."""
    keys = [data.geometries[k].key for k in data.geometry]
    return [f"{key} {pair}" for key, pair in zip(keys, data.contact_elements, strict=True)]


def _orbit_rows(data: Occupations, classes: Sequence[str]) -> np.ndarray:
    """Return site, class, column of the orbit and element of every metal whose class is known, shape (k, 4)."""
    index = {name: k for k, name in enumerate(classes)}
    parts = []
    for rows, geometry in data.by_geometry():
        if geometry.key not in index:
            continue
        elements = data.table[np.ix_(rows, geometry.columns)]
        sites = np.broadcast_to(rows[:, None], elements.shape)
        columns = np.broadcast_to(geometry.orbits[None], elements.shape)
        filled = elements >= 0
        part = np.stack([sites[filled], np.full(filled.sum(), index[geometry.key]), columns[filled]], 1)
        parts.append(np.column_stack([part, elements[filled]]))
    return np.concatenate(parts) if parts else np.zeros((0, 4), int)


def _contact_coordination(geometry: Geometry) -> np.ndarray:
    numbers = geometry.coordination
    return np.array([2.0 * geometry.contacts, numbers.mean(), np.ptp(numbers)])


def _places_in_table(elements: Sequence[str]) -> np.ndarray:
    places = np.array([group_and_period(e) for e in elements], float).reshape(-1, 2)
    return places / _GROUP_AND_PERIOD_SCALE


def _likeness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return exp(−½ squared distance), shape (len(a), len(b))."""
    return np.exp(-0.5 * ((a[:, None] - b[None]) ** 2).sum(-1))


def _embedding(points: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Return features whose inner products are the likeness of points, as seen from the landmarks."""
    values, vectors = np.linalg.eigh(_likeness(landmarks, landmarks))
    kept = values > 1e-6
    return _likeness(points, landmarks) @ (vectors[:, kept] / np.sqrt(values[kept]))


def _spread_out(points: np.ndarray, count: int) -> np.ndarray:
    """Return up to `count` of the points, each the farthest from those before (k-centre greedy)."""
    chosen = [first_smallest(np.linalg.norm(points - points.mean(0), axis=1))]
    gap = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < count and gap.max() > 0.05:
        chosen.append(first_largest(gap))
        gap = np.minimum(gap, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return points[chosen]


def _distinct_rows(rows: np.ndarray) -> np.ndarray:
    """Return the rows (n, k) that differ by more than 0.002 in some column, in ascending order."""
    ranks = np.stack([tolerant_ranks(column, 2e-3) for column in rows.T], axis=1)
    return rows[np.unique(ranks, axis=0, return_index=True)[1]]
