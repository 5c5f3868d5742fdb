"""Mean activity of a facet's sites as a function of the alloy's composition, from few pools of sites.

Sites are drawn once, their energies predicted once, and any composition near enough reads them again with other
weights: a site whose outer slots hold n_e atoms of element e is worth ∏ c_e^n_e / q(n), where q is the density with
which it was drawn. Several pools count together, each site weighted against the mixture of all of them (the balance
heuristic of Veach & Guibas, SIGGRAPH 1995; Owen & Zhou, J. Am. Stat. Assoc. 95, 135 (2000)). The elements of the
contacts, which matter most, are strata: each combination is weighted with its exact probability, however often it was
drawn. Where the effective number of sites is too small, a pool is drawn for that very composition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import factorial
from typing import NamedTuple, Protocol

import numpy as np
from scipy.special import logsumexp, xlogy

from catalysis.structure.templates import Geometry
from catalysis.studies.activity import Goal

_TRACE = 0.003
"""Every element's least share in a proposal: what a proposal lacks, no weight can bring in."""

_MOST_POOLS = 6
"""So many pools, the nearest, tell the activity of a composition."""

_EVENLY = 0.3
"""This share of a pool's sites goes to the combinations of contacts evenly, the rest by how probable they are."""

_LEAST_OVERLAP = 0.02
"""Pools of which less than this share of the sites would count are not asked."""


class GeometryEnergies(Protocol):
    """Energies of the sites of one geometry, as `catalysis.energies.by_geometry.GeometryPosterior` gives them.

    Attributes
    ----------
    noise_ev
        By how much the energy of a site scatters around any law, in eV.
    """

    noise_ev: float

    def laws(self, table: np.ndarray) -> np.ndarray:
        """Return the energies in eV by laws that may be true, (n, laws), of element numbers by slot (n, slots)."""
        ...


@dataclass(frozen=True, eq=False)
class Surface:
    """A facet as the sites that it offers.

    Attributes
    ----------
    facet
        Its name.
    geometries
        Of its sites.
    per_nm2
        How many sites of each there are, at the templates' lattice constant.
    """

    facet: str
    geometries: tuple[Geometry, ...]
    per_nm2: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """Which share of the facet's sites each geometry is."""
        return self.per_nm2 / self.per_nm2.sum()


class Estimate(NamedTuple):
    """The mean activity of a facet's sites at one composition.

    Attributes
    ----------
    laws
        By each law that the energies may follow, (laws,): their spread is the teacher's uncertainty.
    sampling
        Standard error of their mean from the finite number of sites.
    effective_sites
        How many independent sites the weighted ones are worth, for the geometry with the fewest.
    gradient
        Of the value by the elements' shares, (elements,).
    """

    laws: np.ndarray
    sampling: float
    effective_sites: float
    gradient: np.ndarray

    @property
    def value(self) -> float:
        """The mean activity, 0 to 1: the mean over the laws."""
        return float(self.laws.mean())

    @property
    def teacher(self) -> float:
        """The standard deviation over the laws."""
        return float(self.laws.std())


class _Drawn(NamedTuple):
    """The sites of a pool and geometry, or of several pools together, sorted by stratum."""

    outer: np.ndarray  # atoms of each element outside the contacts, (n, elements)
    laws: np.ndarray  # activities by each law, (n, laws)
    sizes: np.ndarray  # sites in each stratum, (strata,)


class _Strata:
    """The combinations of elements that contacts can hold."""

    def __init__(self, contacts: int, kinds: int) -> None:
        self.combinations = np.array(list(combinations_with_replacement(range(kinds), contacts)))
        self.counts = np.stack([(self.combinations == e).sum(1) for e in range(kinds)], axis=1)
        self.orders = np.array(
            [
                factorial(contacts) / np.prod([factorial(k) for k in Counter(row).values()])
                for row in self.combinations.tolist()
            ]
        )

    def __len__(self) -> int:
        return len(self.combinations)

    def probability(self, composition: np.ndarray) -> np.ndarray:
        return self.orders * np.exp(xlogy(self.counts, composition).sum(1))


class ActivityMap:
    """The mean activity of facets over compositions; see the module's text.

    Parameters
    ----------
    surfaces
        The facets.
    energies
        For each geometry, in the order of the facets' geometries one after the other, its energies; they number the
        elements as `elements` does.
    elements
        The alloy's.
    goal
        What is wanted.
    sites
        How many a pool draws for each geometry.
    least_effective
        With fewer effective sites than this share of `sites`, a composition gets a pool of its own.
    seed
        Of the draws.

    Attributes
    ----------
    calls
        How many sites the energies have been asked for.
    proposals
        The compositions that pools were drawn for.
    """

    def __init__(
        self,
        surfaces: Sequence[Surface],
        energies: Sequence[GeometryEnergies],
        elements: Sequence[str],
        goal: Goal,
        *,
        sites: int = 512,
        least_effective: float = 0.2,
        seed: int = 0,
    ) -> None:
        self.surfaces = tuple(surfaces)
        self.elements = tuple(elements)
        self.goal = goal
        self.sites, self.least_effective = sites, least_effective
        self.calls = 0
        self.proposals: list[np.ndarray] = []
        self._seed = seed
        self._energies = list(energies)
        self._geometries = [geometry for surface in surfaces for geometry in surface.geometries]
        self._strata = [_Strata(geometry.contacts, len(elements)) for geometry in self._geometries]
        self._outer = max(len(g.columns) - g.contacts for g in self._geometries)
        self._pools: dict[tuple[int, int], _Drawn] = {}  # by pool and geometry
        self._sizes: list[int] = []
        self._pooled: dict[tuple[int, tuple[int, ...]], tuple[_Drawn, np.ndarray, np.ndarray]] = {}

    # -------------------------------------------------------------------------------------------- drawing

    def draw(self, composition: np.ndarray, sites: int | None = None) -> int:
        """Make a pool for a composition; return its number. Its sites are drawn when a facet asks for them."""
        proposal = np.maximum(composition, _TRACE)
        self.proposals.append(proposal / proposal.sum())
        self._sizes.append(self.sites if sites is None else sites)
        return len(self.proposals) - 1

    def _drawn(self, pool: int, geometry: int) -> _Drawn:
        if (pool, geometry) not in self._pools:
            strata, proposal = self._strata[geometry], self.proposals[pool]
            shares = (1 - _EVENLY) * strata.probability(proposal) + _EVENLY / len(strata)
            sizes = np.maximum(4, np.rint(self._sizes[pool] * shares).astype(int))
            contacts = np.repeat(strata.combinations, sizes, axis=0)
            generator = np.random.default_rng([self._seed, pool, geometry])
            contacts = generator.permuted(contacts, axis=1)
            table = drawn_sites(self._geometries[geometry], contacts, proposal, generator)
            self._pools[pool, geometry] = self._judged(geometry, table, sizes)
        return self._pools[pool, geometry]

    def _judged(self, geometry: int, table: np.ndarray, sizes: np.ndarray) -> _Drawn:
        energies = self._energies[geometry]
        laws = energies.laws(table)
        self.calls += len(table)
        outer = table[:, self._geometries[geometry].contacts :]
        counts = np.stack([(outer == e).sum(1) for e in range(len(self.elements))], axis=1)
        return _Drawn(counts.astype(float), self.goal(laws, energies.noise_ev).astype(np.float32), sizes)

    def _near(self, composition: np.ndarray) -> list[int]:
        """Return the pools that tell something of a composition, the nearest first."""
        if not self.proposals:
            return []
        # The share of a pool's sites that count is 1 / ∑ c²/q, to the power of the slots.
        overlap = -self._outer * np.log((composition**2 / np.array(self.proposals)).sum(1))
        order = np.argsort(-overlap, kind="stable")[:_MOST_POOLS]
        return [int(k) for k in order if overlap[k] > np.log(_LEAST_OVERLAP)]

    def _together(self, geometry: int, pools: tuple[int, ...]) -> tuple[_Drawn, np.ndarray, np.ndarray]:
        """Return the sites of some pools, the log density with which each was drawn, and its mean activity."""
        key = (geometry, pools)
        if key not in self._pooled:
            parts = [self._drawn(pool, geometry) for pool in pools]
            strata = np.concatenate([np.repeat(np.arange(len(part.sizes)), part.sizes) for part in parts])
            order = np.argsort(strata, kind="stable")
            outer = np.concatenate([part.outer for part in parts])[order]
            laws = np.concatenate([part.laws for part in parts])[order]
            sizes = np.array([part.sizes for part in parts])
            logs = outer @ np.log(np.array([self.proposals[pool] for pool in pools])).T
            logs += np.log(sizes / sizes.sum(0)).T[strata[order]]
            together = _Drawn(outer, laws, sizes.sum(0))
            if len(self._pooled) > 400:
                self._pooled.clear()
            self._pooled[key] = together, logsumexp(logs, axis=1), laws.mean(1, dtype=float)
        return self._pooled[key]

    # ----------------------------------------------------------------------------------------- estimating

    def at(self, facet: int, composition: np.ndarray, *, sites: int | None = None) -> Estimate:
        """Return the mean activity of a facet's sites, drawing a pool if the others tell too little of it.

        Parameters
        ----------
        facet
            Its number among the surfaces.
        composition
            Shares by element, (elements,), that sum to one.
        sites
            As many effective sites, times `least_effective`, are wanted; as many are drawn. By default the map's.
        """
        wanted = self.least_effective * (self.sites if sites is None else sites)
        pools = tuple(sorted(self._near(composition)))
        found = self._estimate(facet, composition, pools) if pools else None
        if found is None or found.effective_sites < wanted:
            new = self.draw(composition, sites)
            pools = tuple(sorted({*pools, new}))
            found = self._estimate(facet, composition, pools)
        return found

    def from_pools(self, facet: int, composition: np.ndarray, pools: Sequence[int]) -> Estimate:
        """Return the mean activity as some pools tell it: a smooth function of the composition near them."""
        return self._estimate(facet, composition, tuple(sorted(pools)))

    def near(self, composition: np.ndarray) -> list[int]:
        """Return the numbers of the pools that tell something of a composition, the nearest first."""
        return self._near(composition)

    def _members(self, facet: int) -> range:
        begin = sum(len(surface.geometries) for surface in self.surfaces[:facet])
        return range(begin, begin + len(self.surfaces[facet].geometries))

    def _estimate(self, facet: int, composition: np.ndarray, pools: tuple[int, ...]) -> Estimate:
        return self._over_geometries(
            facet, [self._of_geometry(k, composition, pools) for k in self._members(facet)]
        )

    def _over_geometries(self, facet: int, parts: Sequence[Estimate]) -> Estimate:
        shares = self.surfaces[facet].shares
        return Estimate(
            shares @ np.array([part.laws for part in parts]),
            float(np.sqrt(shares**2 @ np.array([part.sampling for part in parts]) ** 2)),
            min(part.effective_sites for part in parts),
            shares @ np.array([part.gradient for part in parts]),
        )

    def _of_geometry(self, geometry: int, composition: np.ndarray, pools: tuple[int, ...]) -> Estimate:
        strata = self._strata[geometry]
        drawn, density, values = self._together(geometry, pools)
        probability = strata.probability(composition)
        present = composition > 0
        logs = drawn.outer[:, present] @ np.log(composition[present]) - density
        logs[drawn.outer[:, ~present].any(1)] = -np.inf
        begin = np.cumsum(drawn.sizes) - drawn.sizes
        peak = np.maximum.reduceat(logs, begin)
        # A stratum none of whose sites can occur is told by their plain mean.
        peak, logs = (
            np.where(np.isfinite(peak), peak, 0.0),
            np.where(np.repeat(np.isfinite(peak), drawn.sizes), logs, 0.0),
        )
        weights = np.exp(logs - np.repeat(peak, drawn.sizes))
        weights /= np.repeat(np.add.reduceat(weights, begin), drawn.sizes)
        means = np.add.reduceat(weights * values, begin)
        off = weights * (values - np.repeat(means, drawn.sizes))
        in_sum = np.repeat(probability, drawn.sizes)
        inverse = np.where(present, 1 / np.where(present, composition, 1.0), 0.0)
        gradient = (probability * means) @ strata.counts + (in_sum * off) @ drawn.outer
        return Estimate(
            (in_sum * weights).astype(np.float32) @ drawn.laws,
            float(np.sqrt(((in_sum * off) ** 2).sum())),
            float(1 / (probability**2 * np.add.reduceat(weights**2, begin)).sum()),
            gradient * inverse,
        )

    def plain(self, facet: int, composition: np.ndarray, sites: int, seed: int) -> Estimate:
        """Return the mean activity by plain Monte Carlo: `sites` for each geometry, every slot from the composition."""
        parts = []
        for number, k in enumerate(self._members(facet)):
            generator = np.random.default_rng([self._seed, 1 + seed, number, 2**31])
            shape = self._geometries[k]
            contacts = elements_drawn(composition, (sites, shape.contacts), generator)
            table = drawn_sites(shape, contacts, composition, generator)
            laws = self._judged(k, table, np.array([sites])).laws.astype(float)
            error = float(laws.mean(1).std() / np.sqrt(sites))
            parts.append(Estimate(laws.mean(0), error, float(sites), np.full(len(self.elements), np.nan)))
        return self._over_geometries(facet, parts)


def drawn_sites(
    geometry: Geometry, contacts: np.ndarray, composition: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Return sites with given contacts whose other slots are drawn from a composition, (n, slots), uint8.

    Parameters
    ----------
    geometry
        Of the sites.
    contacts
        Element numbers, (n, contacts).
    composition
        Shares by element, (elements,).
    generator
        Of the draws.
    """
    outer = len(geometry.columns) - geometry.contacts
    return np.hstack(
        [contacts.astype(np.uint8), elements_drawn(composition, (len(contacts), outer), generator)]
    )


def elements_drawn(
    composition: np.ndarray, shape: tuple[int, ...], generator: np.random.Generator
) -> np.ndarray:
    """Return element numbers drawn independently from a composition, uint8."""
    edges = np.cumsum(composition)[:-1]
    found = np.zeros(shape, np.uint8)
    draws = generator.random(shape, dtype=np.float32)
    for edge in edges.astype(np.float32):
        found += draws >= edge
    return found


def composition_text(composition: np.ndarray, elements: Sequence[str]) -> str:
    """Return a composition such as `Ir20Pd80`, in whole atomic percent that sum to 100, absent elements left out."""
    percent = np.floor(100 * composition + 1e-9).astype(int)
    rest = 100 * composition - percent
    for k in np.argsort(-rest, kind="stable")[: 100 - int(percent.sum())]:
        percent[k] += 1
    return "".join(f"{e}{p}" for e, p in zip(elements, percent.tolist(), strict=True) if p)


def shares_of(composition: Mapping[str, float], elements: Sequence[str]) -> np.ndarray:
    """Return a composition's shares in the order of some elements, (elements,)."""
    return np.array([composition.get(element, 0.0) for element in elements])
