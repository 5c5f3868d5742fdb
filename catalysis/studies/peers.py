"""Other ways to find sites with a wanted energy, by asking the teacher alone: to compare the latent search with.

Each may ask the teacher for a given number of distinct sites, and gives back all that it asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from catalysis.energies.protocol import Prediction
from catalysis.structure.occupations import Occupations, filled, joined
from catalysis.structure.templates import N_SLOTS, Geometry, Template
from catalysis.studies.activity import Target
from catalysis.studies.design import distinct, random_occupations

Judge = Callable[[Occupations], Prediction]
"""From occupations to means and deviations in eV, such as `Teacher.predict_occupations`."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What a way of searching asked for.

    Attributes
    ----------
    sites : Occupations
        Distinct sites up to symmetry, in the order in which they were asked for, (k,).
    judged : Prediction
        What the teacher said of them, (k,) each.
    n_made : int
        How many sites were made, with those that were known already.
    """

    sites: Occupations
    judged: Prediction
    n_made: int


def ranked_sampling(
    judge: Judge, templates: Sequence[Template], elements: Sequence[str], calls: int, *, seed: int = 0
) -> Asked:
    """Draw sites at random, every template and every element equally often, and let the teacher judge them.

    Parameters
    ----------
    judge
        The teacher.
    templates, elements
        What sites are made of.
    calls
        How many distinct sites it may judge.
    seed
        Of the draws.
    """
    share = dict.fromkeys(elements, 1 / len(elements))
    drawn = random_occupations(templates, share, calls, seed)
    drawn = drawn[distinct(drawn, drawn[:0])].canonical()
    return Asked(drawn, judge(drawn), calls)


@dataclass(frozen=True)
class Genetics:
    """Settings of `genetic`.

    Attributes
    ----------
    population
        Sites that live at a time.
    tournament
        Of so many drawn from the population the best becomes a parent.
    crossover
        Probability that a child has two parents; each of its genes comes from either.
    mutations
        How many slots of a child change on average.
    other_class
        Probability that a child changes its class.
    niches
        Whether every class keeps its share of the population, so that no class takes all.
    """

    population: int = 50
    tournament: int = 3
    crossover: float = 0.9
    mutations: float = 4.0
    other_class: float = 0.05
    niches: bool = False


def fitness(judged: Prediction, target: Target) -> np.ndarray:
    """Return how good sites are, (n,): probability of the window, less how far (in half-widths) the mean is outside.

    So that the search is led to the window from wherever it begins.
    """
    outside = np.maximum(np.abs(judged.mean_ev - target.energy_ev) - target.window_ev, 0) / target.window_ev
    return target.probability(*judged) - outside


def genetic(
    judge: Judge,
    templates: Sequence[Template],
    elements: Sequence[str],
    target: Target,
    calls: int,
    settings: Genetics | None = None,
    *,
    seed: int = 0,
) -> Asked:
    """Search by a genetic algorithm with integer genes: the class, and the element in each slot.

    Slots of different classes lie in the same columns of zones, so that classes can be crossed. Parents are chosen by
    tournament, children come by uniform crossover and mutation, the best of both generations live on (μ + λ); no two of
    them are alike, and a site that was judged is not asked for again.

    Parameters
    ----------
    judge
        The teacher.
    templates, elements
        What sites are made of.
    target
        The window.
    calls
        How many distinct sites the teacher may judge.
    settings
        Of the algorithm.
    seed
        Of all that is random.
    """
    own = settings or Genetics()
    rng = np.random.default_rng(seed)
    geometries = [template.geometry for template in templates]
    kinds, kept = len(elements), min(own.population, calls)
    classes, genes = rng.integers(0, len(templates), kept), rng.integers(0, kinds, (kept, N_SLOTS))
    if own.niches:
        classes = np.arange(kept) % len(templates)
    parts: list[Occupations] = []
    means: list[np.ndarray] = []
    deviations: list[np.ndarray] = []
    known: dict[tuple[int, bytes], float] = {}
    made = 0

    def asked() -> int:
        return sum(len(part) for part in parts)

    def values(classes: np.ndarray, genes: np.ndarray) -> np.ndarray:
        """Judge those that are new while it may, and return the fitness of all; those never judged are the worst."""
        nonlocal made
        sites = _occupied(geometries, elements, classes, genes)
        made += len(sites)
        keys = [(int(k), row.tobytes()) for k, row in zip(sites.geometry, sites.table, strict=True)]
        first = {key: row for row, key in reversed(list(enumerate(keys))) if key not in known}
        rows = np.sort(np.array(list(first.values()), dtype=int))[: calls - asked()]
        if len(rows):
            new = sites[rows]
            judged = judge(new)
            parts.append(new)
            means.append(judged.mean_ev)
            deviations.append(judged.std_ev)
            for row, value in zip(rows.tolist(), fitness(judged, target).tolist(), strict=True):
                known[keys[row]] = value
        return np.array([known.get(key, -np.inf) for key in keys])

    worth = values(classes, genes)
    idle = 0
    while asked() < calls and idle < 200:
        before = asked()
        rounds = (2, kept, own.tournament)
        parents = rng.integers(0, kept, rounds)
        best = np.take_along_axis(parents, worth[parents].argmax(-1)[..., None], -1)[..., 0]
        crossed = rng.random(kept) < own.crossover
        from_second = (rng.random((kept, N_SLOTS)) < 0.5) & crossed[:, None]
        child = np.where(from_second, genes[best[1]], genes[best[0]])
        kind = np.where((rng.random(kept) < 0.5) & crossed, classes[best[1]], classes[best[0]])
        slots = np.array([len(geometry.columns) for geometry in geometries])[kind]
        changed = rng.random((kept, N_SLOTS)) < (own.mutations / slots)[:, None]
        child = np.where(changed, rng.integers(0, kinds, child.shape), child)
        moved = rng.random(kept) < own.other_class
        kind = np.where(moved, rng.integers(0, len(templates), kept), kind)
        of_children = values(kind, child)
        classes, genes = np.concatenate([classes, kind]), np.concatenate([genes, child])
        worth = np.concatenate([worth, of_children])
        alive = _survivors(_occupied(geometries, elements, classes, genes), worth, kept, own.niches)
        classes, genes, worth = classes[alive], genes[alive], worth[alive]
        idle = idle + 1 if asked() == before else 0
    return Asked(joined(parts), Prediction(np.concatenate(means), np.concatenate(deviations)), made)


def _occupied(
    geometries: Sequence[Geometry], elements: Sequence[str], classes: np.ndarray, genes: np.ndarray
) -> Occupations:
    """Return the sites that genes (n, N_SLOTS) of some classes (n,) stand for."""
    contents = [row[geometries[k].columns] for k, row in zip(classes.tolist(), genes, strict=True)]
    return filled(geometries, classes, elements, np.concatenate(contents)).canonical()


def _survivors(sites: Occupations, worth: np.ndarray, count: int, niches: bool) -> np.ndarray:
    """Return the best of distinct sites, filled up with the best of their copies where there are too few."""
    order = np.argsort(-worth, kind="stable")
    first = np.unique(
        np.column_stack([sites.geometry[order], sites.table[order]]), axis=0, return_index=True
    )[1]
    is_first = np.zeros(len(order), dtype=bool)
    is_first[first] = True
    if not niches:
        return np.concatenate([order[is_first], order[~is_first]])[:count]
    # The best of every class, then the second best of every class, and so on.
    rank = np.zeros(len(order), dtype=int)
    seen: dict[int, int] = {}
    for place, kind in enumerate(sites.geometry[order].tolist()):
        if is_first[place]:
            rank[place] = seen.get(kind, 0)
            seen[kind] = rank[place] + 1
        else:
            rank[place] = len(order)
    return order[np.argsort(rank, kind="stable")][:count]
