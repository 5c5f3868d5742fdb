"""The teacher's posterior for one geometry after the other: thirty times as fast, and with draws of whole energy laws.

In one geometry few of the teacher's thousands of features vary, and those that do are products of what fills a few
slots. They are written as a linear map of a short vector of such products, so that mean and variance need matrices of
some hundred columns, and a draw of the teacher's weights, made once, gives an energy of every site of every geometry.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from typing import NamedTuple, Self

import numpy as np

from catalysis.energies.features import ZONE_NAMES
from catalysis.energies.gaussian_process import AdditiveGaussianProcess, missing_variance
from catalysis.energies.protocol import Prediction
from catalysis.energies.teacher import Teacher
from catalysis.structure.occupations import Occupations
from catalysis.structure.templates import N_SLOTS, Geometry
from interpretkit.errors import InputError

_CHUNK = 4096
_NEGLIGIBLE = 1e-5
"""Directions with a posterior variance below this, relative to the noise, are left out."""


_NONE = np.zeros((0, 0))


class TeacherPosterior:
    """A teacher's posterior over energy laws, of which each geometry gets its part.

    Parameters
    ----------
    teacher
        Trained, with `geometry="ideal"`.
    draws
        How many laws to draw, in pairs on either side of the mean. A law is an energy for every site there is: sites
        that share effects share errors, which means and deviations of single sites do not tell.
    seed
        Of the draws.

    Raises
    ------
    InputError
        If the teacher is untrained or looks at relaxed geometry.
    """

    def __init__(self, teacher: Teacher, *, draws: int = 0, seed: int = 0) -> None:
        if not teacher.members:
            raise InputError("energy model: not trained; call fit first")
        if teacher.geometry != "ideal":
            raise InputError(
                "energy model: it uses relaxed geometry; expected one of class and elements alone"
            )
        self.teacher = teacher
        generator = np.random.default_rng(seed)
        self.members = [_Posterior(member) for member in teacher.members]
        count = len(self.members)
        self.laws = [
            np.concatenate([member.drawn(generator) for _ in range(k, -(-draws // 2), count)] or [_NONE])
            for k, member in enumerate(self.members)
        ]

    def of(self, geometry: Geometry, elements: Sequence[str]) -> GeometryPosterior:
        """Return the posterior for the sites of one geometry, their elements numbered as in `elements`."""
        return GeometryPosterior(self, geometry, elements)


class _Posterior:
    """The posterior of a member's weights: their covariance is I − told toldᵀ + rest restᵀ."""

    def __init__(self, member: AdditiveGaussianProcess) -> None:
        self.member, self.weights = member, member.weights
        self.told = (member.explained @ member.basis).T  # (D, sites of the basis)
        self.rest = None if member.left is None else (member.left @ member.basis).T

    def covariance(self, weighted: np.ndarray) -> np.ndarray:
        """Return the covariance of the energies along some directions (m, D), shape (m, m)."""
        varies = np.any(weighted, axis=0)
        weighted = weighted[:, varies]
        narrow = weighted.astype(np.float32)
        told = (narrow @ self.told[varies]).astype(float)
        found = weighted @ weighted.T - told @ told.T
        if self.rest is not None:
            rest = (narrow @ self.rest[varies]).astype(float)
            found += rest @ rest.T
        return found

    def drawn(self, generator: np.random.Generator) -> np.ndarray:
        """Return a pair of draws from the posterior, (2, D): a draw of the prior, corrected by what the data say.

        As offsets from the mean of the weights, one the negative of the other.
        """
        member = self.member
        prior = generator.standard_normal(len(self.weights))
        seen = member.basis @ prior.astype(np.float32)
        noise = generator.standard_normal(len(seen)).astype(np.float32)
        if self.rest is None:
            seen += np.float32(np.sqrt(member.noise)) * noise
        found = prior - self.told @ (member.explained @ seen)
        if self.rest is not None:
            found = found + self.rest @ noise
        return np.stack([found, -found])


class GeometryPosterior:
    """Energies of the sites of one geometry; see `TeacherPosterior.of`.

    Occupations are arrays of element numbers, one column for each of the geometry's slots, in their order.

    Attributes
    ----------
    noise_ev
        What of the predictive deviation no law explains: it differs from site to site, in eV.
    """

    def __init__(self, posterior: TeacherPosterior, geometry: Geometry, elements: Sequence[str]) -> None:
        teacher = posterior.teacher
        self.geometry = geometry
        self.elements = tuple(elements)
        self._mean_ev, self._scale_ev = teacher.mean, teacher.std
        self._calibration = teacher.calibration_of(geometry)
        self._noise = float(np.mean([member.noise for member in teacher.members]))
        self.noise_ev = float(teacher.std * self._calibration * np.sqrt(self._noise))
        self._orbit_of_slots()
        self._posterior: TeacherPosterior | None = posterior
        self._deviation: _Deviation | None = None
        weighted = [self._maps(member)[0] for member in teacher.members]
        self._means = np.stack([x @ m.weights for x, m in zip(weighted, teacher.members, strict=True)])
        self._coefficients = self._means.mean(0)
        laws = [
            mean + self._calibration * (x @ offsets.T).T
            for mean, x, offsets in zip(self._means, weighted, posterior.laws, strict=True)
            if offsets.size
        ]
        self._laws = np.concatenate(laws).astype(np.float32) if laws else None

    def prepared(self) -> Self:
        """Return itself, ready to predict and free of what it was made from: what is sent to another process."""
        if self._deviation is None:
            assert self._posterior is not None
            self._deviation = self._deviations(self._posterior)
        self._posterior = None
        return self

    # ------------------------------------------------------------------------- the short vector of products

    def _orbit_of_slots(self) -> None:
        """Fix the columns of the short vector."""
        geometry, kinds = self.geometry, len(self.elements)
        contacts = geometry.contacts
        outer = np.arange(contacts, len(geometry.columns))
        orbits, first, which = np.unique(geometry.orbits[outer], return_index=True, return_inverse=True)
        self._representatives = outer[first]
        member = np.zeros((len(outer), len(orbits)), np.float32)
        member[np.arange(len(outer)), which] = 1.0
        self._membership = member  # (slots outside the contacts, orbits)
        beyond = geometry.zones[outer] > 0
        near = [np.asarray(touched[outer] & beyond) for touched in geometry.touching]
        self._near = [np.flatnonzero((near[a][:, None] & (member > 0)).any(0)) for a in range(contacts)]
        self._near_membership = [member * near[a][:, None] for a in range(contacts)]
        self._neighbours = np.flatnonzero((np.any(near, axis=0)[:, None] & (member > 0)).any(0))
        self._zone_membership = np.stack(
            [
                (geometry.zones[outer] == zone) / max(1, int((geometry.zones == zone).sum()))
                for zone in ZONE_NAMES
            ],
            axis=1,
        ).astype(np.float32)
        self._combinations = np.array(list(product(range(kinds), repeat=contacts)))
        self._powers = kinds ** np.arange(contacts)[::-1]
        at = np.cumsum(
            [0, len(self._combinations), len(orbits) * kinds, kinds * len(self._neighbours) * kinds]
        )
        self._together, self._alone, self._beside = (slice(a, b) for a, b in pairwise(at))
        self._crowd_at = int(at[-1])

    def _products(self, table: np.ndarray) -> np.ndarray:
        """Return the short vectors, shape (n, m), float32."""
        n, contacts, kinds = len(table), self.geometry.contacts, len(self.elements)
        found = np.zeros((n, self._crowd_at + self._crowd_width), np.float32)
        rows = np.arange(n)
        found[rows, table[:, :contacts] @ self._powers] = 1.0
        outer = table[:, contacts:]
        filled = [(outer == element).astype(np.float32) for element in range(kinds)]
        orbits = np.stack([one @ self._membership for one in filled], axis=2)  # (n, orbits, elements)
        found[:, self._alone] = orbits.reshape(n, -1)
        at_contact = [table[:, a] for a in range(contacts)]
        beside = found[:, self._beside].reshape(n, kinds, len(self._neighbours), kinds)
        for a in range(contacts):
            around = np.stack([one @ self._near_membership[a][:, self._neighbours] for one in filled], axis=2)
            beside[rows, at_contact[a]] += around
        found[:, self._beside] = beside.reshape(n, -1)
        shares = np.stack([one @ self._zone_membership for one in filled], axis=2)  # (n, zones, elements)
        places = shares @ self._places
        i, j = self._triangle
        crowd = (places[:, :, i] * places[:, :, j]).reshape(n, 1, -1)
        held = self._own[table[:, :contacts]].sum(1)
        found[:, self._crowd_at :] = (held[:, :, None] * crowd).reshape(n, -1)
        return found

    # ----------------------------------------------------------------- what the teacher's features are of it

    def _maps(self, member: AdditiveGaussianProcess) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the linear map to a member's weighted features, (m, D), and to each block without weights."""
        geometry, kinds = self.geometry, len(self.elements)
        own, places, _ = member.space.of_elements(self.elements)
        self._own, self._places = own[:-1], places[:-1]
        self._triangle = np.triu_indices(places.shape[1])
        self._crowd_width = own.shape[1] * len(ZONE_NAMES) * len(self._triangle[0])
        contacts, columns = geometry.contacts, geometry.columns
        probes: list[tuple[list[int], list[int]]] = [([], [])]
        probes += [(list(range(contacts)), list(row)) for row in self._combinations.tolist()]
        probes += [([slot], [e]) for slot in self._representatives.tolist() for e in range(kinds)]
        beside = []
        for first in range(kinds):
            for orbit in self._neighbours.tolist():
                contact = next(a for a in range(contacts) if orbit in self._near[a])
                slot = contacts + int(np.flatnonzero(self._near_membership[contact][:, orbit])[0])
                beside += [([contact, slot], [first, e]) for e in range(kinds)]
        probes += beside
        table = np.full((len(probes), N_SLOTS), -1, np.int16)
        for row, (slots, elements) in enumerate(probes):
            table[row, columns[slots]] = elements
        data = Occupations(
            (geometry,), np.zeros(len(table), int), self.elements, table, np.ones(len(table), bool)
        )
        blocks = member.space.features(data)
        length = self._crowd_at + self._crowd_width
        raw, weighted = {}, []
        for k, name in enumerate(member.blocks):
            block = blocks[name].astype(float)
            mapped = np.zeros((length, block.shape[1]))
            mapped[self._together] = block[1:][self._together]
            mapped[self._alone] = block[1:][self._alone] - block[0]
            if name == "contact_neighbour":
                mapped[self._beside] = block[1:][self._beside]
            elif name == "contact_crowd":
                mapped[self._crowd_at :] = np.eye(self._crowd_width)
            raw[name] = mapped
            weighted.append(mapped * np.sqrt(member.prior[k] * member.scales[k]))
        return np.concatenate(weighted, axis=1), raw

    def _deviations(self, posterior: TeacherPosterior) -> _Deviation:
        """Return what standard deviations need: a root of the covariance, and how large each kind of effect is.

        A site that has much less of a kind of effect than training sites had is less sure.
        """
        covariance = np.zeros((len(self._coefficients),) * 2)
        of_contacts = np.zeros(len(self._combinations))
        kinds: list[_Kind] = []
        members = posterior.teacher.members
        for member, weights in zip(members, posterior.members, strict=True):
            weighted, maps = self._maps(member)
            covariance += weights.covariance(weighted) / len(members)
            for k, name in enumerate(member.blocks):
                prior, scale = float(member.prior[k]) / len(members), float(member.scales[k])
                mapped = maps[name]
                if not mapped[self._together.stop :].any():
                    squares = (mapped[self._together] ** 2).sum(1)
                    of_contacts += missing_variance(name, squares, prior, scale)
                elif scale > 0 and name == "contact_crowd":
                    kinds.append(_Kind(name, slice(self._crowd_at, None), None, prior, scale))
                elif scale > 0:
                    kinds.append(_kind(name, mapped, prior, scale))
        apart = (self._means - self._coefficients) / np.sqrt(len(members))
        covariance += apart.T @ apart
        root = _root(covariance, _NEGLIGIBLE * self._noise).astype(np.float32)
        return _Deviation(root, of_contacts, tuple(kinds))

    # -------------------------------------------------------------------------------------------- energies

    def predict(self, table: np.ndarray) -> Prediction:
        """Return mean and standard deviation in eV for occupations (n, slots), as `Teacher.predict_occupations`."""
        parts = [self._predicted(table[start : start + _CHUNK]) for start in range(0, len(table), _CHUNK)]
        if not parts:
            return Prediction(np.zeros(0), np.zeros(0))
        mean, std = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Prediction(mean, std)

    def laws(self, table: np.ndarray) -> np.ndarray:
        """Return the energies in eV by each drawn law, without the noise of single sites, shape (n, draws).

        Raises
        ------
        InputError
            If no laws were drawn.
        """
        if self._laws is None:
            raise InputError("draws: 0; expected a posterior with drawn laws")
        values = np.empty((len(table), len(self._laws)), np.float32)
        for start in range(0, len(table), _CHUNK):
            values[start : start + _CHUNK] = self._products(table[start : start + _CHUNK]) @ self._laws.T
        return self._mean_ev + self._scale_ev * values

    def _predicted(self, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._deviation is None:
            self.prepared()
        deviation = self._deviation
        assert deviation is not None
        vectors = self._products(table)
        mean = vectors.astype(float) @ self._coefficients
        variance = _squares(vectors @ deviation.root) + self._noise
        variance += deviation.of_contacts[table[:, : self.geometry.contacts] @ self._powers]
        for kind in deviation.kinds:
            part = vectors[:, kind.columns]
            squares = _squares(part if kind.root is None else part @ kind.root)
            variance += missing_variance(kind.name, squares, kind.prior, kind.scale)
        std = self._calibration * np.sqrt(variance)
        return self._mean_ev + self._scale_ev * mean, self._scale_ev * std


class _Deviation(NamedTuple):
    """What the standard deviations of a geometry's sites are computed from."""

    root: np.ndarray  # (m, r)
    of_contacts: np.ndarray  # what unfamiliar contacts add to the variance, by combination
    kinds: tuple[_Kind, ...]


class _Kind(NamedTuple):
    """A kind of effect whose size differs between the sites of a geometry: the squared length of a linear map."""

    name: str  # of the block of features
    columns: slice  # of the short vectors
    root: np.ndarray | None  # the map; None where the columns are the features themselves
    prior: float
    scale: float


def _kind(name: str, mapped: np.ndarray, prior: float, scale: float) -> _Kind:
    """Return a kind of effect by its features (m, D), mostly zero, for each column of the short vectors."""
    rows, columns = np.flatnonzero(mapped.any(1)), np.flatnonzero(mapped.any(0))
    span = slice(int(rows[0]), int(rows[-1]) + 1)
    inner = mapped[span][:, columns]
    if inner.shape[1] > inner.shape[0]:
        inner = _root(inner @ inner.T, 1e-9)
    return _Kind(name, span, inner.astype(np.float32), prior, scale)


def _root(matrix: np.ndarray, negligible: float) -> np.ndarray:
    """Return R (m, r) with R Rᵀ the positive semidefinite matrix but for negligible directions."""
    values, vectors = np.linalg.eigh(matrix)
    kept = values > negligible
    return vectors[:, kept] * np.sqrt(values[kept])


def _squares(x: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", x, x, dtype=np.float64)
