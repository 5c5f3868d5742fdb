"""A Gaussian process whose covariance is a sum over kinds of effects, in the space of its features."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement, permutations
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import cho_solve, cholesky, get_lapack_funcs, solve_triangular
from scipy.optimize import minimize

from catalysis.energies.features import (
    BLOCKS,
    RELAXED_BLOCKS,
    ZONE_NAMES,
    FeatureSpace,
    zone_means,
)
from catalysis.structure.occupations import Occupations
from catalysis.structure.templates import ZONE_CAPACITY, Geometry

CHUNK = 4096
"""So many sites go through the features at a time, to bound the memory."""


class AdditiveGaussianProcess:
    """Gaussian process that is a sum over the kinds of effects in `catalysis.energies.features.BLOCKS`.

    That is, a Bayesian linear model: each block of features has a prior variance, found by marginal likelihood.
    Energies are standardised.

    Parameters
    ----------
    slot_length : float
        In Å: slots closer than this have nearly the same effect.
    embedding : str
        A potential whose description of sites joins, by name; empty for none.

    Attributes
    ----------
    prior : ndarray
        Variance of each block, (blocks,).
    noise : float
        Variance of what no block explains.
    """

    def __init__(self, slot_length: float, embedding: str = "") -> None:
        self.slot_length = slot_length
        self.embedding = embedding

    def fit(self, data: Occupations, y: np.ndarray, search: np.ndarray, basis: np.ndarray) -> None:
        """Fix the features by the sites `basis`, and their prior variances by the sites `search`."""
        self.learn_space(data[basis])
        blocks = self.space.features(data[search])
        grams = np.stack([blocks[name].astype(float) @ blocks[name].T for name in self.blocks])
        traces = np.trace(grams, axis1=1, axis2=2) / len(search)
        self.scales = np.where(traces > 1e-9, 1 / np.maximum(traces, 1e-9), 0.0)
        shares = _variance_shares(grams * self.scales[:, None, None], y[search])
        self.prior, self.noise = shares[:-1], float(shares[-1])

    def learn_space(self, data: Occupations) -> None:
        """Fix what the features refer to."""
        self.space = FeatureSpace.of(data, self.slot_length, self.embedding)
        self.blocks = (
            *BLOCKS,
            *(() if data.relaxed is None else RELAXED_BLOCKS),
            *self.space.embedded_blocks,
        )

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
            for start in range(0, len(data), CHUNK):
                rows = slice(start, start + CHUNK)
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

    def left_out(self, y: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what the sites of the basis would be predicted to be without those of their own group, in closed form.

        Parameters
        ----------
        y : ndarray
            Standardised energies of the basis, (n,).
        groups : ndarray
            Which of them are left out together, (n,).

        Returns
        -------
        mean, variance : ndarray
            (n,) each, the variance with the noise.
        """
        points = self.basis.astype(float)
        gram = points @ points.T
        gram[np.diag_indices(len(gram))] += self.noise
        inverse = cho_solve((cholesky(gram, lower=True), True), np.eye(len(gram)))
        solution = inverse @ y
        mean, variance = np.empty(len(y)), np.empty(len(y))
        for group in np.unique(groups):
            rows = np.flatnonzero(groups == group)
            block = np.linalg.inv(inverse[np.ix_(rows, rows)])
            mean[rows], variance[rows] = y[rows] - block @ solution[rows], np.diag(block)
        return mean, variance

    def restore(self, data: Occupations, solution: np.ndarray, left: np.ndarray) -> None:
        """Take up the posterior of a subset of regressors, `data` being its basis."""
        points = self.design(data)[0].astype(float)
        self.solution, self.left = solution, left
        self.explained = _explained_by(points @ points.T)
        self.weights = points.T @ solution
        self.basis = points.astype(np.float32)

    def design(self, data: Occupations) -> tuple[np.ndarray, np.ndarray]:
        """Return the weighted features (n, D), and the variance that unseen classes or elements add (n,)."""
        blocks = self.space.features(data)
        self.widths = {name: blocks[name].shape[1] for name in self.blocks}
        strength = self.prior * self.scales
        parts, missing, embedded = [], np.zeros(len(data)), self.space.embedded_blocks
        for k, name in enumerate(self.blocks):
            block = blocks[name]
            # Of a potential's features a site in the middle of all has little, and lacks nothing.
            if name not in embedded:
                missing += missing_variance(name, _squares(block), self.prior[k], self.scales[k])
            parts.append(block * np.float32(np.sqrt(strength[k])))
        return np.concatenate(parts, axis=1), missing

    def effects(self, geometry: Geometry, elements: Sequence[str]) -> SlotEffects:
        """Return the posterior mean for one geometry as tables over elements, in standardised units."""
        space, kinds = self.space, len(self.space.elements)
        weights, at = {}, 0
        widths = self.widths
        for k, name in enumerate(self.blocks):
            strength = np.sqrt(self.prior[k] * self.scales[k])
            weights[name] = self.weights[at : at + widths[name]] * strength
            at += widths[name]
        own, table, _ = space.of_elements(elements)
        slots = space.of_slots(geometry)
        numbers = space.of_coordination(geometry)
        rank, t = slots.shape[1], table.shape[1]
        constant = float(space.of_class(geometry) @ weights["class_likeness"])
        if geometry.key in space.classes:
            constant += weights["class"][space.classes.index(geometry.key)]
        single = np.zeros((len(geometry.columns), len(elements) + 1))
        for zone, name in ZONE_NAMES.items():
            members = geometry.zones == zone
            single[members] = slots[members] @ (table @ weights[name].reshape(t, rank)).T
        by_number = weights["contact_cn"].reshape(kinds, -1)
        for contact in range(geometry.contacts):
            single[contact] += own @ (weights["contact"] + by_number @ numbers[contact])
            single[contact] += table @ weights["contact_likeness"]
        if geometry.key in space.classes:
            number = space.classes.index(geometry.key)
            of_orbit = np.zeros(len(space.orbits))
            is_contact = space.orbits[:, 1] < ZONE_CAPACITY[0]
            of_orbit[is_contact], of_orbit[~is_contact] = weights["orbit_contact"], weights["orbit"]
            names = [space.elements[k] for k in space.orbits[:, 2]]
            index = {element: k for k, element in enumerate(elements)}
            for (class_number, column, _), element, weight in zip(space.orbits, names, of_orbit, strict=True):
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
        together = np.zeros((len(elements) + 1,) * geometry.contacts)
        for combination in combinations_with_replacement(range(len(elements)), geometry.contacts):
            pair = "-".join(sorted(elements[k] for k in combination))
            value = 0.0
            if pair in space.pairs:
                value += weights["pair"][space.pairs.index(pair)]
            if (name := f"{geometry.key} {pair}") in space.class_pairs:
                value += weights["class_pair"][space.class_pairs.index(name)]
            for order in permutations(combination):
                together[order] = value
        i, j = np.triu_indices(t)
        products = np.zeros((kinds, len(ZONE_NAMES), t, t))
        products[:, :, i, j] = weights["contact_crowd"].reshape(kinds, len(ZONE_NAMES), -1)
        crowd = np.einsum("ek,kzij,ai,bj->ezab", own, products, table, table, optimize=True)
        return SlotEffects(constant, single, double, together, crowd)

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


class SlotEffects(NamedTuple):
    """The mean of a linear model for one geometry: what each slot's element adds, alone and with a contact's.

    The last element index stands for an empty slot.

    Attributes
    ----------
    constant : float
        What the class adds.
    single : ndarray
        What an element in a slot adds, (slots, elements + 1).
    double : ndarray
        What it adds beside a contact's element, (contact's element, element, slot).
    together : ndarray
        What the contacts add together, one axis of elements + 1 per contact.
    crowd : ndarray
        What the mean composition of a zone adds, (contact's element, zone, element, element).
    """

    constant: float
    single: np.ndarray
    double: np.ndarray
    together: np.ndarray
    crowd: np.ndarray

    def __call__(self, occupation: np.ndarray, geometry: Geometry) -> np.ndarray:
        """Return the mean for occupations (n, slots), shape (n,)."""
        slots = np.arange(occupation.shape[1])
        mean = self.constant + self.single[slots, occupation].sum(1)
        for contact in range(geometry.contacts):
            near = np.flatnonzero(geometry.touching[contact] & (geometry.zones > 0))
            mean += self.double[occupation[:, [contact]], occupation[:, near], near].sum(1)
        filled = np.eye(len(self.crowd))[occupation]  # (n, slots, elements + 1)
        shares = zone_means(filled, geometry)
        contacts = filled[:, : geometry.contacts].sum(1)
        mean += np.einsum("ne,nza,nzb,ezab->n", contacts, shares, shares, self.crowd, optimize=True)
        return mean + self.together[tuple(occupation[:, : geometry.contacts].T)]


def missing_variance(name: str, squares: np.ndarray, prior: float, scale: float) -> np.ndarray:
    """Return the variance of a kind of effect that its features leave out, (n,).

    Features refer to what training held. Of what it did not hold they have little or nothing, so that their posterior
    would be surest of what is least known.

    Parameters
    ----------
    name : str
        Of the block of features.
    squares : ndarray
        Squared lengths of its rows, (n,).
    prior, scale : float
        Its variance, and one over its mean squared length in training.
    """
    if scale == 0:
        return np.zeros_like(squares)
    if name == "class_likeness":
        # A class is wholly like itself; the known classes tell `squares` of that, the rest is its own.
        return prior * scale * np.maximum(0.0, 1.0 - squares)
    # Mean squares are one in training: less than half of it means that something here was never seen there.
    return prior * np.maximum(0.0, 0.5 - squares * scale) * 2


def _inverse_factor(factor: np.ndarray) -> np.ndarray:
    return solve_triangular(factor, np.eye(len(factor)), lower=True).astype(np.float32)


def _explained_by(gram: np.ndarray) -> np.ndarray:
    gram = gram.copy()
    gram[np.diag_indices(len(gram))] += 1e-5 * np.trace(gram) / len(gram)
    return _inverse_factor(cholesky(gram, lower=True))


def _squares(x: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", x, x, dtype=np.float64)


def _variance_shares(grams: np.ndarray, y: np.ndarray) -> np.ndarray:
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
