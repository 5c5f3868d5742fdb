"""Energy models: what a site's class and elements say about its adsorption energy.

Every model fits sites and energies and predicts a mean and a standard deviation. By default the models look at the
class and at the element in each slot of its template only, never at relaxed positions, because a design tool meets
sites that nobody has relaxed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement, product
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, Self

import numpy as np
import safetensors
import safetensors.numpy
from scipy.linalg import cho_solve, cholesky, get_lapack_funcs, solve_triangular
from scipy.optimize import minimize

from catalysis.structure.elements import arrow_order, group_and_period
from catalysis.structure.ordering import first_largest, first_smallest, tolerant_ranks
from catalysis.structure.sites import Site
from catalysis.structure.templates import N_SLOTS, ZONE_CAPACITY, Geometry, Occupations, occupations
from interpretkit.errors import InputError
from interpretkit.runs.files import atomic_path

MIN_SITES = 20
"""Fewer sites than this are refused."""

_GROUP_SCALE, _PERIOD_SCALE = (
    0.8,
    0.5,
)  # how far apart in the periodic table elements stop to resemble each other
_EXACT_LIMIT = 3000  # sites; beyond, that many of them span the model (subset of regressors)
_SEARCH_LIMIT = 1000  # sites that determine the shares of the effects
_CHUNK = 4096
_CN_SCALE = 1.5  # contacts whose coordination numbers differ by less resemble each other
_CN_LANDMARKS = np.arange(3.0, 13.0, 1.5)[:, None] / _CN_SCALE


class Prediction(NamedTuple):
    """Energies in eV: means (n,) and standard deviations (n,)."""

    mean_ev: np.ndarray
    std_ev: np.ndarray


class EnergyModel(Protocol):
    """What trains on sites and predicts their adsorption energies."""

    def fit(self, sites: Sequence[Site], energies_ev: np.ndarray) -> Self:
        """Train, and return the model itself."""
        ...

    def predict(self, sites: Sequence[Site]) -> Prediction:
        """Return mean and standard deviation for each site, in eV."""
        ...


def check_training_data(sites: Sequence[Site], energies_ev: np.ndarray | None) -> np.ndarray:
    """Return the energies, shape (n,), or those that the sites carry if `energies_ev` is None.

    Raises
    ------
    InputError
        For fewer than 20 sites, energies that are missing, not finite or all alike, or several adsorbates.
    """
    if len(sites) < MIN_SITES:
        raise InputError(f"{len(sites)} sites with energies; expected at least {MIN_SITES} to train on")
    if energies_ev is None:
        for number, site in enumerate(sites):
            if site.energy_ev is None:
                raise InputError(
                    f"{site.site_id or f'site {number}'}: no energy; training needs one per site"
                )
        energies_ev = np.array([site.energy_ev for site in sites], dtype=float)
    energies = np.asarray(energies_ev, dtype=float)
    if energies.shape != (len(sites),):
        raise InputError(f"energies: shape {energies.shape}; expected one per site, ({len(sites)},)")
    bad = np.flatnonzero(~np.isfinite(energies))
    if len(bad):
        name = sites[bad[0]].site_id or f"site {bad[0]}"
        raise InputError(f"{name}: energy {energies[bad[0]]}; expected a finite number in eV")
    if np.ptp(energies) < 1e-9:
        raise InputError(f"energies: all are {energies[0]:.4g} eV; expected energies that differ")
    adsorbates = sorted({site.adsorbate for site in sites})
    if len(adsorbates) > 1:
        raise InputError(f"adsorbates: {', '.join(adsorbates)}; expected one for one energy model")
    return energies


class LinearBaseline:
    """Class plus contact elements, linear: the yardstick for every other model.

    Features are the class (one-hot) and the unordered elements of the contacts (one-hot); least squares with a
    ridge of 10⁻³ to make it unique. Unseen classes or pairs fall back on what is seen of the other.
    """

    def __init__(self, ridge: float = 1e-3) -> None:
        self.ridge = ridge

    def fit(self, sites: Sequence[Site], energies_ev: np.ndarray | None = None) -> Self:
        """Train; see `check_training_data` for what is refused."""
        energies = check_training_data(sites, energies_ev)
        self.names = sorted({site.site_class for site in sites}) + sorted(
            {"pair " + site.contact_elements for site in sites}
        )
        x = self._features(sites)
        self.mean = float(energies.mean())
        gram = x.T @ x + self.ridge * np.eye(x.shape[1])
        self.weights = np.linalg.solve(gram, x.T @ (energies - self.mean))
        self.residual = float(np.std(energies - self.mean - x @ self.weights))
        return self

    def predict(self, sites: Sequence[Site]) -> Prediction:
        """Return means and the (constant) residual standard deviation of the training, in eV."""
        mean = self.mean + self._features(sites) @ self.weights
        return Prediction(mean, np.full(len(sites), self.residual))

    def _features(self, sites: Sequence[Site]) -> np.ndarray:
        index = {name: k for k, name in enumerate(self.names)}
        x = np.zeros((len(sites), len(index)))
        for row, site in enumerate(sites):
            for name in (site.site_class, "pair " + site.contact_elements):
                if name in index:
                    x[row, index[name]] = 1.0
        return x


@dataclass(frozen=True, eq=False)
class _Vocabulary:
    """What the features refer to: the classes, elements, pairs, orbits and landmarks seen in training."""

    elements: tuple[str, ...]
    classes: tuple[str, ...]
    class_numbers: np.ndarray  # (classes, 3): contacts, mean and spread of their coordination numbers
    pairs: tuple[str, ...]
    class_pairs: tuple[str, ...]
    orbits: np.ndarray  # (k, 3): class, column, element
    landmarks: np.ndarray  # (r, 6)
    slot_length: float
    relaxed: np.ndarray | None  # (2, 12): mean and standard deviation

    @classmethod
    def of(cls, data: Occupations, slot_length: float, n_landmarks: int = 48) -> _Vocabulary:
        used = [data.geometries[k] for k in np.unique(data.geometry)]
        classes: dict[str, Geometry] = {}
        for geometry in used:
            classes.setdefault(geometry.key, geometry)
        names = tuple(sorted(classes))
        pairs, class_pairs = _contact_names(data)
        orbit_rows = _orbit_rows(data, names)
        descriptors = _distinct_rows(np.concatenate([classes[name].descriptors for name in names]))
        return cls(
            elements=data.elements,
            classes=names,
            class_numbers=np.array([_class_numbers(classes[name]) for name in names]),
            pairs=tuple(sorted(set(pairs))),
            class_pairs=tuple(sorted(set(class_pairs))),
            orbits=np.unique(orbit_rows[:, 1:], axis=0),
            landmarks=_spread_out(descriptors / _descriptor_scales(slot_length), n_landmarks),
            slot_length=slot_length,
            relaxed=None
            if data.relaxed is None
            else np.stack([data.relaxed.mean(0), data.relaxed.std(0) + 1e-3]),
        )


def _descriptor_scales(slot_length: float) -> np.ndarray:
    return slot_length * np.array([1.0, 1.0, 1.0, 1.5, 1.5, 3.0])


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


def _class_numbers(geometry: Geometry) -> np.ndarray:
    numbers = geometry.coordination
    return np.array([2.0 * geometry.contacts, numbers.mean(), np.ptp(numbers)])


RELAXED_FEATURES = (
    "shortest_contact_bond", "mean_contact_bond", "lean", "contact_spread", "height", "offset",
    "tilt_out", "tilt_along", "tilt_sideways", "metal_bonds", "metal_bond_difference", "inner_bond",
)  # fmt: skip
"""Columns of `relaxed_geometry`."""


def relaxed_geometry(sites: Sequence[Site]) -> np.ndarray:
    """Return what relaxation does to the adsorbate and the contacts, shape (n, 12), columns as `RELAXED_FEATURES`.

    In Å: shortest and mean distance of the binding atom from the contacts; on a bridge, how much nearer it is to the
    second contact than to the first (contacts ordered by coordination number, then by `arrow_order`); mean distance
    of the contacts from their centre; height and sideways offset of the binding atom; mean length of the contacts'
    bonds to other metals, and its difference between two contacts; length of the adsorbate's first bond. Without
    unit: direction of that bond along the normal, the contacts' axis (absolute) and sideways (absolute); off a bridge,
    where no axis is better than another, its whole part along the surface, and 0.
    """
    rows = []
    for site in sites:
        bonds, count = site.bonds, site.contacts
        binding = site.adsorbate_positions[0]
        centre = site.positions[:count].mean(0)
        along, sideways, normal = site.frame
        lengths = np.linalg.norm(site.positions[:count] - binding, axis=1)
        around = np.array(
            [
                np.linalg.norm(site.positions[bonds[i]] - site.positions[i], axis=1).mean()
                if bonds[i].any()
                else 0
                for i in range(count)
            ]
        )
        lean = difference = 0.0
        if count == 2:
            keys = [(int(bonds[i].sum()), arrow_order(site.symbols[i])) for i in range(2)]
            first, second = (0, 1) if keys[0] <= keys[1] else (1, 0)
            lean, difference = lengths[first] - lengths[second], around[first] - around[second]
            if keys[0] == keys[1]:
                lean, difference = abs(lean), abs(difference)
        direction, inner = np.zeros(3), 0.0
        if len(site.adsorbate_positions) > 1:
            direction = site.adsorbate_positions[1] - binding
            inner = float(np.linalg.norm(direction))
            direction = direction / inner
        offset = binding - centre
        tilt = abs(direction @ along), abs(direction @ sideways)
        rows.append(
            [
                lengths.min(),
                lengths.mean(),
                lean,
                np.linalg.norm(site.positions[:count] - centre, axis=1).mean(),
                offset @ normal,
                np.linalg.norm(offset - (offset @ normal) * normal),
                direction @ normal,
                *(tilt if count == 2 else (float(np.hypot(*tilt)), 0.0)),
                around.mean(),
                difference,
                inner,
            ]
        )
    return np.array(rows).reshape(-1, len(RELAXED_FEATURES))


def _contact_names(data: Occupations) -> tuple[list[str], list[str]]:
    """Return the contacts' elements of each site, and the same with the class in front."""
    names = np.array([*data.elements, ""])
    pairs = [
        "-".join(sorted(name for name in row if name)) for row in names[data.table[:, : ZONE_CAPACITY[0]]]
    ]
    keys = [data.geometries[k].key for k in data.geometry]
    return pairs, [f"{key} {pair}" for key, pair in zip(keys, pairs, strict=True)]


def _orbit_rows(data: Occupations, classes: Sequence[str]) -> np.ndarray:
    """Return site, class, orbit column and element of every metal whose class is known, shape (k, 4)."""
    index = {name: k for k, name in enumerate(classes)}
    parts = []
    for number, geometry in enumerate(data.geometries):
        rows = np.flatnonzero(data.geometry == number)
        if not len(rows) or geometry.key not in index:
            continue
        elements = data.table[np.ix_(rows, geometry.columns)]
        sites = np.broadcast_to(rows[:, None], elements.shape)
        columns = np.broadcast_to(geometry.orbits[None], elements.shape)
        filled = elements >= 0
        part = np.stack([sites[filled], np.full(filled.sum(), index[geometry.key]), columns[filled]], 1)
        parts.append(np.column_stack([part, elements[filled]]))
    return np.concatenate(parts) if parts else np.zeros((0, 4), int)


def _likeness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return exp(−½ squared distance), shape (len(a), len(b))."""
    return np.exp(-0.5 * ((a[:, None] - b[None]) ** 2).sum(-1))


def _embedding(points: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Return features whose inner products are the likeness of points, as seen from the landmarks."""
    values, vectors = np.linalg.eigh(_likeness(landmarks, landmarks))
    kept = values > 1e-6
    return _likeness(points, landmarks) @ (vectors[:, kept] / np.sqrt(values[kept]))


def _periodic_table(elements: Sequence[str]) -> np.ndarray:
    return np.array([group_and_period(e) for e in elements], float).reshape(-1, 2) / [
        _GROUP_SCALE,
        _PERIOD_SCALE,
    ]


def _element_features(
    elements: Sequence[str], known: _Vocabulary
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return one-hot and periodic-table features, both with a row of zeros (empty slot), and known indices."""
    kinds = len(known.elements)
    lookup = np.array([known.elements.index(e) if e in known.elements else kinds for e in elements])
    own = np.concatenate([np.eye(kinds), np.zeros((1, kinds))])[lookup]
    table = _embedding(_periodic_table(elements), _periodic_table(known.elements))
    own, table = (
        np.concatenate([part, np.zeros((1, part.shape[1]))]).astype(np.float32) for part in (own, table)
    )
    return own, table, lookup


def _class_likeness(geometry: Geometry, known: _Vocabulary) -> np.ndarray:
    return _embedding(_class_numbers(geometry)[None] / _CN_SCALE, known.class_numbers / _CN_SCALE)[0]


_ZONE_NAMES = {1: "common", 2: "shell", 3: "second"}


def _features(data: Occupations, known: _Vocabulary) -> dict[str, np.ndarray]:
    """Return one block of features per kind of effect, each (n, width), float32.

    `class` and `class_likeness`: the class, and how alike its coordination is to that of the known ones. `contact`,
    `contact_likeness`: elements of the contacts, one by one, also by place in the periodic table. `contact_cn`:
    element times coordination number of each contact. `pair`, `class_pair`: all contacts' elements together.
    `orbit_contact`, `orbit`: element in each symmetry-distinct slot of the class. `common`, `shell`, `second`:
    elements of that zone by place in the periodic table and place around the site, shared between classes.
    `contact_neighbour`: element of a contact times elements and places of its neighbours. `contact_crowd`: the same
    times products of the mean elements of a zone, for what many neighbours do is not the sum of what each does. With
    relaxed geometry, `relaxed`, `relaxed_squares`, `relaxed_contact`: its numbers, their products, and times the
    contacts' elements.
    """
    n, kinds = len(data), len(known.elements)
    own, table, lookup = _element_features(data.elements, known)
    classes = {name: k for k, name in enumerate(known.classes)}
    scales = _descriptor_scales(known.slot_length)
    rank_cn = _embedding(_CN_LANDMARKS, _CN_LANDMARKS).shape[1]
    rank_slot = _embedding(known.landmarks, known.landmarks).shape[1]
    rank_class = _embedding(known.class_numbers / _CN_SCALE, known.class_numbers / _CN_SCALE).shape[1]
    t = table.shape[1]
    blocks = {
        "class": np.zeros((n, len(classes)), np.float32),
        "class_likeness": np.zeros((n, rank_class), np.float32),
        "contact_cn": np.zeros((n, kinds * rank_cn), np.float32),
        "common": np.zeros((n, rank_slot * t), np.float32),
        "shell": np.zeros((n, rank_slot * t), np.float32),
        "second": np.zeros((n, rank_slot * t), np.float32),
        "contact_neighbour": np.zeros((n, kinds * rank_slot * t), np.float32),
        "contact_crowd": np.zeros((n, kinds * len(_ZONE_NAMES) * (t * (t + 1) // 2)), np.float32),
    }
    i, j = np.triu_indices(t)
    for number, geometry in enumerate(data.geometries):
        rows = np.flatnonzero(data.geometry == number)
        if not len(rows):
            continue
        if geometry.key in classes:
            blocks["class"][rows, classes[geometry.key]] = 1.0
        blocks["class_likeness"][rows] = _class_likeness(geometry, known)
        slots = _embedding(geometry.descriptors / scales, known.landmarks).astype(np.float32)
        elements = data.table[np.ix_(rows, geometry.columns)]
        places = table[elements]  # (rows, slots, t)
        for zone, name in _ZONE_NAMES.items():
            members = geometry.zones == zone
            if members.any():
                block = np.tensordot(places[:, members], slots[members], (1, 0))
                blocks[name][rows] = block.reshape(len(rows), -1)
        numbers = _embedding(geometry.coordination[:, None] / _CN_SCALE, _CN_LANDMARKS).astype(np.float32)
        by_number = np.zeros((len(rows), kinds, rank_cn), np.float32)
        by_neighbour = np.zeros((len(rows), kinds, t * rank_slot), np.float32)
        for contact in range(geometry.contacts):
            element = own[elements[:, contact]]  # (rows, kinds)
            by_number += element[:, :, None] * numbers[contact]
            near = geometry.touching[contact] & (geometry.zones > 0)
            around = np.tensordot(places[:, near], slots[near], (1, 0)).reshape(len(rows), 1, -1)
            by_neighbour += element[:, :, None] * around
        crowd = np.stack(
            [
                places[:, geometry.zones == zone].sum(1) / max(1, int((geometry.zones == zone).sum()))
                for zone in _ZONE_NAMES
            ],
            axis=1,
        )
        contact_elements = own[elements[:, : geometry.contacts]].sum(1)
        crowd = (crowd[:, :, i] * crowd[:, :, j]).reshape(len(rows), 1, -1)
        blocks["contact_crowd"][rows] = (contact_elements[:, :, None] * crowd).reshape(len(rows), -1)
        blocks["contact_cn"][rows] = by_number.reshape(len(rows), -1)
        blocks["contact_neighbour"][rows] = by_neighbour.reshape(len(rows), -1)
    blocks["contact"] = own[data.table[:, : ZONE_CAPACITY[0]]].sum(1)
    blocks["contact_likeness"] = table[data.table[:, : ZONE_CAPACITY[0]]].sum(1)
    pairs, class_pairs = _contact_names(data)
    blocks["pair"] = _one_hot(pairs, known.pairs)
    blocks["class_pair"] = _one_hot(class_pairs, known.class_pairs)
    at_contacts, elsewhere = _orbit_features(data, known, lookup)
    blocks["orbit_contact"], blocks["orbit"] = at_contacts, elsewhere
    if known.relaxed is not None and data.relaxed is not None:
        # Cut off, so that a site far from all others is not extrapolated to by squares.
        z = np.clip((data.relaxed - known.relaxed[0]) / known.relaxed[1], -4, 4).astype(np.float32)
        i, j = np.triu_indices(z.shape[1])
        blocks["relaxed"] = z
        blocks["relaxed_squares"] = z[:, i] * z[:, j]
        blocks["relaxed_contact"] = (blocks["contact"][:, :, None] * z[:, None]).reshape(n, -1)
    return blocks


def _one_hot(names: Sequence[str], known: Sequence[str]) -> np.ndarray:
    index = {name: k for k, name in enumerate(known)}
    x = np.zeros((len(names), len(known)), np.float32)
    for row, name in enumerate(names):
        if name in index:
            x[row, index[name]] = 1.0
    return x


def _orbit_features(
    data: Occupations, known: _Vocabulary, lookup: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    kinds = len(known.elements)
    rows = _orbit_rows(data, known.classes)
    element = lookup[rows[:, 3]]
    codes = (rows[:, 1] * N_SLOTS + rows[:, 2]) * (kinds + 1) + element
    vocabulary = (known.orbits[:, 0] * N_SLOTS + known.orbits[:, 1]) * (kinds + 1) + known.orbits[:, 2]
    place = np.clip(np.searchsorted(vocabulary, codes), 0, len(vocabulary) - 1)
    seen = vocabulary[place] == codes
    counts = np.zeros((len(data), len(vocabulary)), np.float32)
    np.add.at(counts, (rows[seen, 0], place[seen]), 1.0)
    is_contact = known.orbits[:, 1] < ZONE_CAPACITY[0]
    return counts[:, is_contact], counts[:, ~is_contact]


BLOCKS = (
    "class", "class_likeness", "contact", "contact_likeness", "contact_cn", "pair", "class_pair",
    "orbit_contact", "orbit", "common", "shell", "second", "contact_neighbour", "contact_crowd",
)  # fmt: skip
"""The kinds of effects whose shares of the variance the teacher learns."""

RELAXED_BLOCKS = ("relaxed", "relaxed_squares", "relaxed_contact")
"""Those that join them where relaxed geometry is used."""


class _Effects(NamedTuple):
    """The mean of a linear model for one geometry: what each slot's element adds, alone and with a contact's.

    The last element index stands for an empty slot.
    """

    constant: float
    single: np.ndarray  # (slots, elements + 1)
    double: np.ndarray  # (contact's element, element, slot)
    together: np.ndarray  # one axis of elements + 1 per contact
    crowd: np.ndarray  # (contact's element, zone, element, element)

    def __call__(self, occupation: np.ndarray, geometry: Geometry) -> np.ndarray:
        """Return the mean for occupations (n, slots), shape (n,)."""
        slots = np.arange(occupation.shape[1])
        mean = self.constant + self.single[slots, occupation].sum(1)
        for contact in range(geometry.contacts):
            near = np.flatnonzero(geometry.touching[contact] & (geometry.zones > 0))
            mean += self.double[occupation[:, [contact]], occupation[:, near], near].sum(1)
        filled = np.eye(len(self.crowd))[occupation]  # (n, slots, elements + 1)
        shares = np.stack(
            [
                filled[:, geometry.zones == zone].sum(1) / max(1, int((geometry.zones == zone).sum()))
                for zone in _ZONE_NAMES
            ],
            axis=1,
        )
        contacts = filled[:, : geometry.contacts].sum(1)
        mean += np.einsum("ne,nza,nzb,ezab->n", contacts, shares, shares, self.crowd, optimize=True)
        return mean + self.together[tuple(occupation[:, : geometry.contacts].T)]


class _Member:
    """Bayesian linear model: blocks of features with a prior variance each, found by marginal likelihood."""

    def __init__(self, slot_length: float) -> None:
        self.slot_length = slot_length

    def fit(self, data: Occupations, y: np.ndarray, search: np.ndarray, basis: np.ndarray) -> None:
        """Fix the features by the sites `basis`, and their prior variances by the sites `search`."""
        self.learn_names(data[basis])
        blocks = _features(data[search], self.known)
        grams = np.stack([blocks[name].astype(float) @ blocks[name].T for name in self.blocks])
        traces = np.trace(grams, axis1=1, axis2=2) / len(search)
        self.scales = np.where(traces > 1e-9, 1 / np.maximum(traces, 1e-9), 0.0)
        shares = _shares(grams * self.scales[:, None, None], y[search])
        self.prior, self.noise = shares[:-1], float(shares[-1])

    def learn_names(self, data: Occupations) -> None:
        """Fix what the features refer to."""
        self.known = _Vocabulary.of(data, self.slot_length)
        self.blocks = BLOCKS if data.relaxed is None else (*BLOCKS, *RELAXED_BLOCKS)

    def condition(self, data: Occupations, y: np.ndarray, basis: np.ndarray) -> None:
        """Compute the posterior, spanned by the sites `basis` of `data`."""
        points = self.design(data[basis])[0].astype(float)
        gram = points @ points.T
        if len(basis) == len(data):
            gram[np.diag_indices(len(gram))] += self.noise
            factor = cholesky(gram, lower=True)
            self.solution = cho_solve((factor, True), y[basis])
            self.explained, self.left = _inverse_factor(factor), None
        else:
            # Subset of regressors: every site counts, the basis spans the solution.
            total = self.noise * gram
            right = np.zeros(len(basis))
            narrow = points.astype(np.float32)
            for start in range(0, len(data), _CHUNK):
                rows = slice(start, start + _CHUNK)
                cross = (self.design(data[rows])[0] @ narrow.T).astype(float)
                total += cross.T @ cross
                right += cross.T @ y[rows]
            total[np.diag_indices(len(total))] += 1e-8 * len(data) * np.trace(gram) / len(gram)
            factor = cholesky(total, lower=True)
            self.solution = cho_solve((factor, True), right)
            self.explained = _explained_by(gram)
            self.left = np.float32(np.sqrt(self.noise)) * _inverse_factor(factor)
        self.weights = points.T @ self.solution
        self.basis = points.astype(np.float32)

    def restore(self, data: Occupations, solution: np.ndarray, left: np.ndarray) -> None:
        """Take up the posterior of a subset of regressors, `data` being its basis."""
        points = self.design(data)[0].astype(float)
        self.solution, self.left = solution, left
        self.explained = _explained_by(points @ points.T)
        self.weights = points.T @ solution
        self.basis = points.astype(np.float32)

    def design(self, data: Occupations) -> tuple[np.ndarray, np.ndarray]:
        """Return the weighted features (n, D), and the variance that unseen classes or elements add (n,)."""
        blocks = _features(data, self.known)
        self.widths = {name: blocks[name].shape[1] for name in self.blocks}
        strength = self.prior * self.scales
        parts, missing = [], np.zeros(len(data))
        for k, name in enumerate(self.blocks):
            block = blocks[name]
            # A block's mean square is 1/scale in training: less means something here was never seen there.
            size = _squares(block) * self.scales[k]
            missing += self.prior[k] * np.maximum(0.0, 0.5 - size) * 2 * (self.scales[k] > 0)
            parts.append(block * np.float32(np.sqrt(strength[k])))
        return np.concatenate(parts, axis=1), missing

    def effects(self, geometry: Geometry, elements: Sequence[str]) -> _Effects:
        """Return the posterior mean for one geometry as tables over elements, in standardised units."""
        known, kinds = self.known, len(self.known.elements)
        weights, at = {}, 0
        widths = self.widths
        for k, name in enumerate(self.blocks):
            strength = np.sqrt(self.prior[k] * self.scales[k])
            weights[name] = self.weights[at : at + widths[name]] * strength
            at += widths[name]
        own, table, _ = _element_features(elements, known)
        slots = _embedding(geometry.descriptors / _descriptor_scales(known.slot_length), known.landmarks)
        numbers = _embedding(geometry.coordination[:, None] / _CN_SCALE, _CN_LANDMARKS)
        rank, t = slots.shape[1], table.shape[1]
        constant = float(_class_likeness(geometry, known) @ weights["class_likeness"])
        if geometry.key in known.classes:
            constant += weights["class"][known.classes.index(geometry.key)]
        single = np.zeros((len(geometry.columns), len(elements) + 1))
        for zone, name in _ZONE_NAMES.items():
            members = geometry.zones == zone
            single[members] = slots[members] @ (table @ weights[name].reshape(t, rank)).T
        by_number = weights["contact_cn"].reshape(kinds, -1)
        for contact in range(geometry.contacts):
            single[contact] += own @ (weights["contact"] + by_number @ numbers[contact])
            single[contact] += table @ weights["contact_likeness"]
        if geometry.key in known.classes:
            number = known.classes.index(geometry.key)
            of_orbit = np.zeros(len(known.orbits))
            is_contact = known.orbits[:, 1] < ZONE_CAPACITY[0]
            of_orbit[is_contact], of_orbit[~is_contact] = weights["orbit_contact"], weights["orbit"]
            names = [known.elements[k] for k in known.orbits[:, 2]]
            index = {element: k for k, element in enumerate(elements)}
            for (class_number, column, _), element, weight in zip(known.orbits, names, of_orbit, strict=True):
                if class_number == number and element in index:
                    single[geometry.orbits == column, index[element]] += weight
        double = np.einsum(
            "af,ftr,bt,sr->abs",
            own,
            weights["contact_neighbour"].reshape(kinds, t, rank),
            table,
            slots,
            optimize=True,
        )
        together = {}
        for combination in combinations_with_replacement(range(len(elements)), geometry.contacts):
            pair = "-".join(sorted(elements[k] for k in combination))
            value = 0.0
            if pair in known.pairs:
                value += weights["pair"][known.pairs.index(pair)]
            if (name := f"{geometry.key} {pair}") in known.class_pairs:
                value += weights["class_pair"][known.class_pairs.index(name)]
            together[combination] = value
        code = np.zeros((len(elements) + 1,) * geometry.contacts)
        for order in product(range(len(elements)), repeat=geometry.contacts):
            code[order] = together[tuple(sorted(order))]
        i, j = np.triu_indices(t)
        products = np.zeros((kinds, len(_ZONE_NAMES), t, t))
        products[:, :, i, j] = weights["contact_crowd"].reshape(kinds, len(_ZONE_NAMES), -1)
        crowd = np.einsum("ek,kzij,ai,bj->ezab", own, products, table, table, optimize=True)
        return _Effects(constant, single, double, code, crowd)

    def predict(self, data: Occupations) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and variance (without noise) in units of the standardised energies."""
        x, missing = self.design(data)
        mean = x @ self.weights
        cross = x @ self.basis.T
        # Sums of squares of what the basis explains: a full inverse would cancel digits that float32 lacks.
        variance = _squares(x) - _squares(cross @ self.explained.T)
        if self.left is not None:
            variance += _squares(cross @ self.left.T)
        return mean, np.maximum(variance, 0.0) + missing


def _inverse_factor(factor: np.ndarray) -> np.ndarray:
    return solve_triangular(factor, np.eye(len(factor)), lower=True).astype(np.float32)


def _explained_by(gram: np.ndarray) -> np.ndarray:
    gram = gram.copy()
    gram[np.diag_indices(len(gram))] += 1e-5 * np.trace(gram) / len(gram)
    return _inverse_factor(cholesky(gram, lower=True))


def _squares(x: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", x, x, dtype=np.float64)


def _shares(grams: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return prior variances of the blocks and the noise's (last) that maximise the marginal likelihood."""
    count, n = len(grams), len(y)
    potri: Any = get_lapack_funcs("potri", dtype=float)

    def objective(log_std: np.ndarray) -> tuple[float, np.ndarray]:
        shares = np.exp(2 * log_std)
        covariance = np.tensordot(shares[:-1], grams, 1)
        covariance[np.diag_indices(n)] += shares[-1]
        factor = cholesky(covariance, lower=True)
        solved = cho_solve((factor, True), y)
        value = 0.5 * y @ solved + np.log(np.diag(factor)).sum()
        lower, info = potri(factor, lower=True)  # a third of the work of solving for the identity
        if info:
            raise np.linalg.LinAlgError(f"potri: {info}")
        slope = np.tril(lower) + np.tril(lower, -1).T - np.outer(solved, solved)
        gradient = np.append(
            (grams.reshape(count, -1) @ slope.ravel()) * shares[:-1], np.trace(slope) * shares[-1]
        )
        # A weak prior keeps effects that the data say nothing of from drifting.
        return value + 0.02 * ((log_std + 2) ** 2).sum(), gradient + 0.04 * (log_std + 2)

    start = np.full(count + 1, -1.5)
    bounds = [(-7.0, 3.0)] * count + [(-3.0, 1.0)]
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60})
    return np.exp(2 * found.x)


def group_folds(groups: Sequence[str], n_folds: int, seed: int) -> np.ndarray:
    """Return a fold number for each item, shape (n,): a group is never split, folds are of nearly equal size.

    Groups are shuffled, then handed out, the largest first, each to the fold that is smallest so far.
    """
    names, index, sizes = np.unique(np.asarray(groups, dtype=str), return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    load, fold = np.zeros(n_folds, int), np.zeros(len(names), int)
    for name in order:
        fold[name] = load.argmin()
        load[fold[name]] += sizes[name]
    return fold[index]


def _some(data: Occupations, count: int, generator: np.random.Generator) -> np.ndarray:
    """Return up to `count` sites at random, ascending, among them up to ten of every geometry."""
    order = generator.permutation(len(data))
    if len(data) <= count:
        return np.sort(order)
    by_geometry = np.argsort(data.geometry[order], kind="stable")
    sizes = np.unique(data.geometry[order], return_counts=True)[1]
    rank = np.empty(len(order), int)
    rank[by_geometry] = np.concatenate([np.arange(size) for size in sizes])
    return np.sort(order[np.argsort(np.maximum(rank, 10), kind="stable")[:count]])


class Teacher:
    """Ensemble of Bayesian linear models of class and elements, with a calibrated uncertainty.

    Each member is a Gaussian process whose covariance is a sum over the kinds of effects in `BLOCKS`; how much of
    the variance each explains is found by marginal likelihood, so that effects which the data do not support
    vanish. Effects of a slot are tied between symmetric slots of a class, and softly between similar slots of
    different classes and between elements near each other in the periodic table. The members differ in how
    finely they tell slots apart. The ensemble's variance is the members' mean variance plus the spread of their
    means, and is rescaled so that residuals of predictions for held-out groups, within the training sites, have
    the predicted size.

    A class or element that training did not hold is predicted from those alike, with a wider uncertainty; another
    adsorbate is refused.

    Parameters
    ----------
    slot_lengths
        In Å, one per member: slots closer than this have nearly the same effect.
    seed
        Of the folds that calibrate the uncertainty, and of the subsets taken of many sites.
    geometry
        `"ideal"`: class and elements only. `"relaxed"`: also `relaxed_geometry`, for sites that have been relaxed
        (with the same method as the training sites); such a model cannot judge ideal sites.

    Notes
    -----
    Up to 3000 sites the posterior is exact; of more, 3000 span the solution to which all contribute (subset of
    regressors; Quiñonero-Candela & Rasmussen, J. Mach. Learn. Res. 6, 1939 (2005)). Beyond 1000 sites, so many
    chosen at random determine the shares of the effects.

    Betti curves were tried as one more kind of effect; on 919 relaxed *OH sites they left the error as it was, since
    class and elements by slot already tell what they tell.
    """

    def __init__(
        self,
        slot_lengths: Sequence[float] = (0.5, 1.0),
        seed: int = 0,
        geometry: Literal["ideal", "relaxed"] = "ideal",
    ) -> None:
        if geometry not in ("ideal", "relaxed"):
            raise InputError(f"geometry: {geometry!r}; expected 'ideal' or 'relaxed'")
        self.slot_lengths = tuple(float(length) for length in slot_lengths)
        self.seed = seed
        self.geometry = geometry
        self.members: list[_Member] = []

    def fit(
        self,
        sites: Sequence[Site],
        energies_ev: np.ndarray | None = None,
        groups: Sequence[str] | None = None,
    ) -> Self:
        """Train.

        Parameters
        ----------
        sites
            At least 20, with one adsorbate.
        energies_ev
            Shape (n,); by default the sites' own.
        groups
            Sites of one group are never on both sides of a split; by default the `slab_id`.

        Raises
        ------
        InputError
            As `check_training_data`.
        """
        energies = check_training_data(sites, energies_ev)
        names = [site.slab_id or str(k) for k, site in enumerate(sites)] if groups is None else list(groups)
        self.adsorbate = sites[0].adsorbate
        self._train(self.occupations(sites), energies, np.asarray(names, dtype=str))
        return self

    def occupations(self, sites: Sequence[Site]) -> Occupations:
        """Return what the model looks at: elements by slot, and the relaxed geometry if it uses that."""
        data = occupations(sites)
        return data if self.geometry == "ideal" else replace(data, relaxed=relaxed_geometry(sites))

    def _train(self, data: Occupations, energies: np.ndarray, groups: np.ndarray) -> None:
        generator = np.random.default_rng(self.seed)
        self.data, self.energies, self.groups = data, energies, groups
        self.mean, self.std = float(energies.mean()), float(energies.std())
        y = (energies - self.mean) / self.std
        search = _some(data, _SEARCH_LIMIT, generator)
        self.basis = _some(data, _EXACT_LIMIT, generator)
        self.members = [_Member(length) for length in self.slot_lengths]
        for member in self.members:
            member.fit(data, y, search, self.basis)
        self.calibration = self._calibrate(data, y, groups)
        for member in self.members:
            member.condition(data, y, self.basis)

    def _calibrate(self, data: Occupations, y: np.ndarray, groups: np.ndarray) -> float:
        """Return the factor on the standard deviation that held-out groups ask for."""
        count = min(5, len(np.unique(groups)))
        if count < 2:
            return 1.0
        if len(y) > _EXACT_LIMIT:  # enough to know one number
            some = self.basis
            data, y, groups = data[some], y[some], groups[some]
        folds = group_folds(groups.tolist(), count, self.seed)
        ratios = np.zeros(len(y))
        for fold in range(count):
            train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            for member in self.members:
                member.condition(data[train], y[train], np.arange(len(train)))
            mean, std = self._combined(data[test], calibration=1.0)
            ratios[test] = ((y[test] - mean) / std) ** 2
        return float(np.sqrt(ratios.mean()))

    def _combined(self, data: Occupations, calibration: float) -> tuple[np.ndarray, np.ndarray]:
        means, variances = zip(*(member.predict(data) for member in self.members), strict=True)
        noise = np.mean([member.noise for member in self.members])
        variance = np.mean(variances, axis=0) + np.var(means, axis=0) + noise
        return np.mean(means, axis=0), calibration * np.sqrt(variance)

    def predict(self, sites: Sequence[Site]) -> Prediction:
        """Return mean and standard deviation for each site, in eV.

        Raises
        ------
        InputError
            If the model is untrained, or a site holds another adsorbate than those that it was trained on.
        """
        if not self.members:
            raise InputError("energy model: not trained; call fit first")
        for site in sites:
            if site.adsorbate != self.adsorbate:
                raise InputError(
                    f"{site.site_id or 'site'}: adsorbate {site.adsorbate}; the energy model knows {self.adsorbate}"
                )
        if not len(sites):
            return Prediction(np.zeros(0), np.zeros(0))
        return self.predict_occupations(self.occupations(sites))

    def predict_occupations(self, data: Occupations) -> Prediction:
        """Return mean and standard deviation in eV for occupations of templates.

        Raises
        ------
        InputError
            If the model uses relaxed geometry and `data` holds none.
        """
        self._require_geometry(data)
        parts = [
            self._combined(data[start : start + _CHUNK], self.calibration)
            for start in range(0, len(data), _CHUNK)
        ]
        mean, std = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Prediction(self.mean + self.std * mean, self.std * std)

    def predict_mean(self, data: Occupations) -> np.ndarray:
        """Return the means alone, in eV, shape (n,): for ideal geometry a hundred times as fast."""
        self._require_geometry(data)
        if self.geometry == "relaxed":
            return self.predict_occupations(data).mean_ev
        mean = np.zeros(len(data))
        for number, geometry in enumerate(data.geometries):
            rows = np.flatnonzero(data.geometry == number)
            if not len(rows):
                continue
            effects = [member.effects(geometry, data.elements) for member in self.members]
            effect = _Effects(*(np.mean(np.array(part), axis=0) for part in zip(*effects, strict=True)))
            for part in np.array_split(rows, len(rows) // _CHUNK + 1):
                mean[part] = effect(data.table[part[:, None], geometry.columns[None]], geometry)
        return self.mean + self.std * mean

    def _require_geometry(self, data: Occupations) -> None:
        if self.geometry == "relaxed" and data.relaxed is None:
            raise InputError("energy model: it uses relaxed geometry; expected sites, or Occupations.relaxed")

    @property
    def shares(self) -> dict[str, float]:
        """Prior variance of each kind of effect, and of the noise, in eV², averaged over the members."""
        values = np.mean([np.append(member.prior, member.noise) for member in self.members], axis=0)
        return {
            name: float(v * self.std**2)
            for name, v in zip((*self.members[0].blocks, "noise"), values, strict=True)
        }

    def save(self, path: str | Path) -> None:
        """Write the model to one safetensors file: the occupations that span it and what was learned from them.

        About 120 kB for a thousand sites; beyond 3000 sites, some 70 MB.
        """
        if not self.members:
            raise InputError("energy model: not trained; call fit first")
        data = self.data[self.basis]
        arrays: dict[str, np.ndarray] = {
            "table": data.table.astype(np.int8),
            "geometry": data.geometry.astype(np.int32),
            "aligned": data.aligned.astype(np.uint8),
            "energies_ev": self.energies[self.basis],
        }
        if data.relaxed is not None:
            arrays["relaxed"] = data.relaxed
        for k, geometry in enumerate(self.data.geometries):
            arrays[f"geometry.{k}.columns"] = geometry.columns.astype(np.int32)
            arrays[f"geometry.{k}.orbits"] = geometry.orbits.astype(np.int32)
            arrays[f"geometry.{k}.zones"] = geometry.zones.astype(np.int32)
            arrays[f"geometry.{k}.descriptors"] = geometry.descriptors
            arrays[f"geometry.{k}.touching"] = geometry.touching.astype(np.uint8)
            arrays[f"geometry.{k}.permutations"] = geometry.permutations.astype(np.int16)
        for k, member in enumerate(self.members):
            arrays[f"member.{k}.prior"] = member.prior
            arrays[f"member.{k}.scales"] = member.scales
            if member.left is not None:
                arrays[f"member.{k}.solution"], arrays[f"member.{k}.left"] = member.solution, member.left
        config = {
            "slot_lengths": self.slot_lengths,
            "seed": self.seed,
            "geometry": self.geometry,
            "adsorbate": self.adsorbate,
            "elements": self.data.elements,
            "geometries": [(g.key, g.facet, g.site_class, g.variant) for g in self.data.geometries],
            "blocks": self.members[0].blocks,
            "noise": [member.noise for member in self.members],
            "mean": self.mean,
            "std": self.std,
            "calibration": self.calibration,
        }
        metadata = {"format": _FORMAT, "config": json.dumps(config)}
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        with atomic_path(path) as hidden:
            safetensors.numpy.save_file(arrays, str(hidden), metadata)

    @classmethod
    def load(cls, path: str | Path) -> Teacher:
        """Read a model that `save` wrote.

        Raises
        ------
        InputError
            If the file is missing, damaged, or something else.
        """
        arrays, config = _read(Path(path))
        model = cls(config["slot_lengths"], config["seed"], config["geometry"])
        geometries = tuple(
            Geometry(
                key=key,
                columns=arrays[f"geometry.{k}.columns"].astype(int),
                orbits=arrays[f"geometry.{k}.orbits"].astype(int),
                zones=arrays[f"geometry.{k}.zones"].astype(int),
                descriptors=arrays[f"geometry.{k}.descriptors"],
                touching=arrays[f"geometry.{k}.touching"].astype(bool),
                permutations=arrays[f"geometry.{k}.permutations"].astype(int),
                facet=facet,
                site_class=site_class,
                variant=variant,
            )
            for k, (key, facet, site_class, variant) in enumerate(config["geometries"])
        )
        model.data = Occupations(
            geometries,
            arrays["geometry"].astype(int),
            tuple(config["elements"]),
            arrays["table"].astype(np.int16),
            arrays["aligned"].astype(bool),
            arrays.get("relaxed"),
        )
        model.energies = arrays["energies_ev"]
        model.basis = np.arange(len(model.energies))
        model.adsorbate = config["adsorbate"]
        model.mean, model.std, model.calibration = config["mean"], config["std"], config["calibration"]
        y = (model.energies - model.mean) / model.std
        for k, (length, noise) in enumerate(zip(model.slot_lengths, config["noise"], strict=True)):
            member = _Member(length)
            member.learn_names(model.data)
            if tuple(config.get("blocks", ())) != member.blocks:
                raise InputError(f"{path}: knows other kinds of effects; expected a teacher trained anew")
            member.prior, member.scales = arrays[f"member.{k}.prior"], arrays[f"member.{k}.scales"]
            member.noise = noise
            if f"member.{k}.left" in arrays:
                member.restore(model.data, arrays[f"member.{k}.solution"], arrays[f"member.{k}.left"])
            else:
                member.condition(model.data, y, model.basis)
            model.members.append(member)
        return model


_FORMAT = "interpretkit-teacher"


def _read(path: Path) -> tuple[dict[str, np.ndarray], Mapping[str, Any]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a trained teacher (.safetensors)")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected a trained teacher") from error
    if metadata.get("format") != _FORMAT:
        raise InputError(f"{path}: not a teacher; expected 'format': '{_FORMAT}' in its header")
    return arrays, json.loads(metadata["config"])
