"""From a wanted energy to sites that have it.

The latent space of the PGH-VAE is searched for points whose predicted energy lies in the window; they are decoded
into a class and an element for every slot, that is, into sites that exist on their facet. What proposed a site does
not judge it: the teacher, a separate energy model with an uncertainty, ranks the proposals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from scipy.stats import norm

from catalysis.hosts import Host, host_site
from catalysis.sites import Site
from catalysis.templates import Template
from interpretkit.errors import InputError


@dataclass(frozen=True)
class Target:
    """A window of wanted energies, in eV."""

    energy_ev: float
    window_ev: float

    def __post_init__(self) -> None:
        if not np.isfinite(self.energy_ev):
            raise InputError(f"--target-ev: {self.energy_ev}; expected a finite energy in eV")
        if not (np.isfinite(self.window_ev) and self.window_ev > 0):
            raise InputError(f"--window-ev: {self.window_ev}; expected a half-width above 0 eV")

    @property
    def low(self) -> float:
        """The lower edge in eV."""
        return self.energy_ev - self.window_ev

    @property
    def high(self) -> float:
        """The upper edge in eV."""
        return self.energy_ev + self.window_ev

    def holds(self, energies: np.ndarray) -> np.ndarray:
        """Tell which energies (n,) lie in the window."""
        return (energies >= self.low) & (energies <= self.high)

    def probability(self, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
        """Return the probability (n,) that normally distributed energies lie in the window."""
        deviation = np.maximum(deviation, 1e-6)
        return norm.cdf((self.high - mean) / deviation) - norm.cdf((self.low - mean) / deviation)


class EnergyJudge(Protocol):
    """What ranks the proposals: see `catalysis.energies`."""

    def predict(self, sites: Sequence[Site]) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation (n,), (n,) in eV."""
        ...


@dataclass(frozen=True, eq=False)
class Occupation:
    """An occupied template: a site before it stands anywhere.

    Attributes
    ----------
    template
        Facet, class and slots.
    symbols
        One element per slot.
    """

    template: Template
    symbols: tuple[str, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """The same for occupations that a symmetry of the site turns into each other."""
        names = sorted(set(self.symbols))
        codes = np.array([names.index(symbol) for symbol in self.symbols])
        best = self.template.canonical(codes)
        return (self.template.facet, self.template.key, *(names[code] for code in best))

    @property
    def site(self) -> Site:
        """The ideal site."""
        return self.template.decorate(self.symbols)


@dataclass(frozen=True, eq=False)
class Design:
    """A designed site.

    Attributes
    ----------
    occupation
        Template and elements.
    host
        A slab that holds the site.
    energy_ev, deviation_ev
        The teacher's prediction and its standard deviation.
    probability
        Of the energy lying in the window.
    head_energy_ev
        What the VAE's own head predicts for the site.
    nearest_known
        How many slots differ from the most similar site of the training data on the same class.
    """

    occupation: Occupation
    host: Host
    energy_ev: float
    deviation_ev: float
    probability: float
    head_energy_ev: float
    nearest_known: int

    @property
    def site(self) -> Site:
        """The site in its slab, with the predicted energy left out: it is no measurement."""
        return self.host.site


def random_occupations(
    templates: Sequence[Template], composition: Mapping[str, float], n: int, seed: int
) -> list[Occupation]:
    """Draw sites at random: every template equally often, every slot from the composition.

    Parameters
    ----------
    templates
        To draw from.
    composition
        Fractions by element.
    n
        How many.
    seed
        Of the draws.
    """
    generator = np.random.default_rng(seed)
    elements, shares = list(composition), list(composition.values())
    drawn = []
    for k in range(n):
        template = templates[k % len(templates)]
        symbols = generator.choice(elements, size=len(template), p=shares)
        drawn.append(Occupation(template, tuple(str(symbol) for symbol in symbols)))
    return drawn


def distinct(occupations: Sequence[Occupation], known: set[tuple[str, ...]]) -> list[int]:
    """Return the indices of the first of each kind of occupation that is not among the `known` keys."""
    seen = set(known)
    kept = []
    for index, occupation in enumerate(occupations):
        key = occupation.key
        if key not in seen:
            seen.add(key)
            kept.append(index)
    return kept


def choose(
    occupations: Sequence[Occupation],
    probability: np.ndarray,
    n: int,
    *,
    max_share: float = 0.25,
    min_difference: int = 2,
) -> list[int]:
    """Choose the likeliest sites so that they are not all alike.

    Parameters
    ----------
    occupations, probability
        The candidates and their probability (n,) of lying in the window.
    n
        How many to choose.
    max_share
        No pair of class and contact elements makes up more than this share, while others are left.
    min_difference
        Two designs of one class differ in at least so many slots.

    Returns
    -------
    list of int
        Indices, likeliest first.
    """
    order = np.argsort(-probability, kind="stable")
    limit = max(1, int(np.ceil(max_share * n)))
    chosen: list[int] = []
    passed_over: list[int] = []
    kinds: Counter[tuple[str, str]] = Counter()
    for index in order:
        if len(chosen) == n:
            break
        occupation = occupations[index]
        near = any(
            occupations[other].template is occupation.template
            and _difference(occupations[other], occupation) < min_difference
            for other in chosen
        )
        if near:
            continue
        kind = (occupation.template.key, _contacts(occupation))
        if kinds[kind] >= limit:
            passed_over.append(int(index))
            continue
        kinds[kind] += 1
        chosen.append(int(index))
    chosen += passed_over[: n - len(chosen)]
    return sorted(chosen, key=lambda index: -probability[index])


def finished(
    chosen: Sequence[Occupation],
    judged: tuple[np.ndarray, np.ndarray],
    head_energies: np.ndarray,
    target: Target,
    known: Sequence[Occupation],
    *,
    adsorbate: str,
    seed: int,
) -> list[Design]:
    """Put chosen occupations into slabs and add up what is known of each.

    Parameters
    ----------
    chosen
        In order of rank.
    judged
        Mean and standard deviation of the teacher, (n,) each.
    head_energies
        Of the VAE's head, (n,).
    target
        The window.
    known
        The training data as occupations.
    adsorbate
        To place.
    seed
        Of what fills the slabs outside the sites.
    """
    mean, deviation = judged
    probability = target.probability(mean, deviation)
    by_template: dict[str, list[Occupation]] = {}
    for occupation in known:
        by_template.setdefault(occupation.template.key, []).append(occupation)
    designs = []
    for rank, occupation in enumerate(chosen):
        host = host_site(
            occupation.template,
            occupation.symbols,
            adsorbate=adsorbate,
            seed=seed + rank,
            site_id=f"design-{rank + 1:03d}",
            slab_id=f"design-{rank + 1:03d}",
        )
        relatives = by_template.get(occupation.template.key, [])
        nearest = min(
            (_difference(other, occupation) for other in relatives), default=len(occupation.symbols)
        )
        designs.append(
            Design(
                occupation,
                Host(host.slab, replace(host.site, energy_ev=None)),
                float(mean[rank]),
                float(deviation[rank]),
                float(probability[rank]),
                float(head_energies[rank]),
                nearest,
            )
        )
    return designs


def diversity(occupations: Sequence[Occupation]) -> dict[str, float]:
    """Return how different some sites are.

    Returns
    -------
    dict
        `classes` and `contact_pairs` that occur; `mean_difference`: mean share of slots in which two sites of one
        class differ, 0 to 1 (NaN if no class has two).
    """
    differences = [
        _difference(a, b) / len(a.symbols)
        for k, a in enumerate(occupations)
        for b in occupations[:k]
        if a.template is b.template
    ]
    return {
        "classes": len({o.template.key for o in occupations}),
        "contact_pairs": len({_contacts(o) for o in occupations}),
        "mean_difference": float(np.mean(differences)) if differences else float("nan"),
    }


def _contacts(occupation: Occupation) -> str:
    return "-".join(sorted(occupation.symbols[: occupation.template.contacts]))


def _difference(first: Occupation, second: Occupation) -> int:
    """Return in how many slots two occupations of one template differ, up to its symmetries."""
    a, b = np.array(first.symbols), np.array(second.symbols)
    return int((a[first.template.permutations] != b).sum(1).min())
