"""Which alloy composition, and which facet of it, has the largest share of good sites.

Every facet is a set of geometries, so and so many of each per area; a site's slots are filled at random from the
composition, as in a solid solution. `catalysis.studies.composition` gives the mean activity of a facet's sites at any
composition with its gradient. A lattice over all compositions finds where to begin, steps up the gradient find the
optimum of each facet, and plain Monte Carlo with sites of its own confirms it. Prices and mixing entropy come in as
further aims: what no other composition beats in all of them is the Pareto front.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

import moocore
import numpy as np
from scipy.optimize import linprog, minimize
from scipy.special import xlogy

from catalysis.energies.by_geometry import TeacherPosterior
from catalysis.energies.teacher import Teacher
from catalysis.structure.site_counts import sites_per_nm2
from catalysis.structure.surfaces import vegard_lattice_constant
from catalysis.structure.templates import LATTICE_CONSTANT, Template
from catalysis.studies.activity import Goal
from catalysis.studies.composition import ActivityMap, Estimate, GeometryEnergies, Surface
from catalysis.studies.prices import price_per_mol
from interpretkit.errors import InputError
from interpretkit.runs.progress import progress

GAS_CONSTANT = 8.314462618
"""In J/(mol K) (CODATA 2018)."""

_REACH = 0.08  # how far a share may move before the pools are looked at again
_SETTLED = 0.002  # a step shorter than this ends the climb
_FEWEST, _MOST = 4, 12  # steps of a climb: each draws a pool, and all near the optimum tell where it is
_ABSENT = 0.002  # shares below are zero
_LEAST = 1e-4  # at a share of zero the gradient by it cannot be seen


@dataclass(frozen=True)
class Bounds:
    """Between which shares each element must lie.

    Attributes
    ----------
    lower, upper
        Shares, one per element.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def __post_init__(self) -> None:
        low, high = np.array(self.lower), np.array(self.upper)
        if np.any(low < 0) or np.any(high > 1) or np.any(low > high):
            raise InputError("--bounds: expected 0 ≤ lower ≤ upper ≤ 100 at% for each element")
        if low.sum() > 1 + 1e-9 or high.sum() < 1 - 1e-9:
            raise InputError(
                f"--bounds: shares between {100 * low.sum():.4g} and {100 * high.sum():.4g} at% in sum; expected "
                "100 at% to lie between them"
            )

    def allow(self, composition: np.ndarray) -> bool:
        """Tell whether a composition keeps the bounds."""
        return bool(
            np.all(composition >= np.array(self.lower) - 1e-9)
            and np.all(composition <= np.array(self.upper) + 1e-9)
        )

    def nearest(self, composition: np.ndarray) -> np.ndarray:
        """Return the allowed composition nearest to one: the projection onto a box cut by the plane of sum one."""
        low, high = np.array(self.lower), np.array(self.upper)
        ends = -1.0, 2.0
        for _ in range(60):  # bisection of the shift that makes the sum one
            middle = sum(ends) / 2
            ends = (
                (middle, ends[1]) if np.clip(composition + middle, low, high).sum() < 1 else (ends[0], middle)
            )
        return np.clip(composition + sum(ends) / 2, low, high)

    def lattice(self, steps: int) -> np.ndarray:
        """Return a lattice over the allowed compositions, (n, elements), `steps` from one corner to the next.

        Where narrow bounds let too few of its points through, it is made finer, and the corners of what is allowed
        come along.
        """
        kinds = len(self.lower)
        for count in (steps, 2 * steps, 4 * steps):
            points = simplex_lattice(kinds, count)
            kept = points[[self.allow(point) for point in points]]
            if len(kept) >= min(kinds, 3):
                return kept
        return np.unique(np.round([*kept, *self._corners()], 12), axis=0)

    def _corners(self) -> list[np.ndarray]:
        box = list(zip(self.lower, self.upper, strict=True))
        found = []
        for k in range(len(box)):
            for sign in (1, -1):
                wish = np.zeros(len(box))
                wish[k] = sign
                found.append(linprog(wish, A_eq=np.ones((1, len(box))), b_eq=[1.0], bounds=box).x)
        return [*found, np.mean(found, axis=0)]


def simplex_lattice(kinds: int, steps: int) -> np.ndarray:
    """Return all compositions of `kinds` elements whose shares are multiples of 1/steps, (n, kinds)."""
    bars = np.array(list(combinations(range(steps + kinds - 1), kinds - 1))).reshape(-1, kinds - 1)
    edges = np.hstack([np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), steps + kinds - 1)])
    return (np.diff(edges, axis=1) - 1) / steps


class Found(NamedTuple):
    """The mean activity of a facet at a composition."""

    facet: str
    composition: np.ndarray
    estimate: Estimate


@dataclass(frozen=True, eq=False)
class Optimum:
    """The best composition of a facet.

    Attributes
    ----------
    facet, composition
        Which; shares by element.
    estimate
        There, from the pools that found it.
    confirmed
        There, by plain Monte Carlo with sites of its own: the maximum of an estimate is biased upwards, this is not.
    equimolar
        At equal shares.
    per_nm2
        How many sites the facet offers per nm², at the lattice constant of the composition (Vegard's law).
    """

    facet: str
    composition: np.ndarray
    estimate: Estimate
    confirmed: Estimate
    equimolar: Estimate
    per_nm2: float

    @property
    def gain(self) -> float:
        """How much more than at equal shares, by the confirmed value."""
        return self.confirmed.value - self.equimolar.value

    @property
    def gain_teacher(self) -> float:
        """The gain's standard deviation over the teacher's posterior: both ends under the same law."""
        return float(np.std(self.confirmed.laws - self.equimolar.laws))


@dataclass(frozen=True, eq=False)
class Optimization:
    """What `optimize` found.

    Attributes
    ----------
    elements
        In whose order compositions are.
    goal
        What was wanted.
    optima
        One per facet, the best first.
    evaluated
        Every composition and facet whose activity was estimated on the lattice, or is an optimum.
    activity
        The map that they were estimated with, for more compositions.
    bounds
        Of the compositions.
    """

    elements: tuple[str, ...]
    goal: Goal
    optima: list[Optimum]
    evaluated: list[Found]
    activity: ActivityMap = field(repr=False)
    bounds: Bounds

    @property
    def best(self) -> Optimum:
        """The best composition and facet."""
        return self.optima[0]

    @property
    def facets(self) -> tuple[str, ...]:
        """The facets, in the order of the activity map."""
        return tuple(surface.facet for surface in self.activity.surfaces)

    def at(self, facet: str, composition: np.ndarray) -> Estimate:
        """Return the mean activity of a facet at any composition."""
        return self.activity.at(self.facets.index(facet), composition)

    def best_facet(self, composition: np.ndarray) -> tuple[Found, float]:
        """Return the best facet of a composition, and the share of the teacher's laws under which it is the best."""
        found = [Found(facet, composition, self.at(facet, composition)) for facet in self.facets]
        first = int(np.argmax([one.estimate.value for one in found]))
        laws = np.array([one.estimate.laws for one in found])
        sure = float((laws.argmax(0) == first).mean()) if laws.size else float("nan")
        return found[first], sure


def surfaces_of(
    teacher: Teacher, elements: Sequence[str], *, facets: Sequence[str] = (), draws: int = 64, seed: int = 0
) -> tuple[list[Surface], list[GeometryEnergies]]:
    """Return the facets whose sites a teacher knows, and the energies of their geometries.

    Parameters
    ----------
    teacher
        Trained; the classes of its training sites count as the sites of their facets.
    elements
        The alloy's, in whose order occupations number them.
    facets
        Only these; all that the teacher knows by default.
    draws, seed
        As for `catalysis.energies.by_geometry.TeacherPosterior`.

    Raises
    ------
    InputError
        If an element or a facet is not among what the teacher has seen, or no facet has an ideal slab.
    """
    seen = set(teacher.elements)
    for element in elements:
        if element not in seen:
            raise InputError(
                f"--elements: the model does not know {element}; expected some of {', '.join(sorted(seen))}"
            )
    known = known_templates(teacher)
    for facet in facets:
        if facet not in known:
            raise InputError(
                f"--facets: the model knows no facet {facet}; expected some of {', '.join(known) or 'none'}"
            )
    if not known:
        raise InputError(
            "the sites lie on no known facet; expected a facet in the data (info['facet'] or --facet)"
        )
    posterior = TeacherPosterior(teacher, draws=draws, seed=seed)
    surfaces, energies = [], []
    for facet, templates in known.items():
        if facets and facet not in facets:
            continue
        densities = {
            k: v for kind in {t.site.kind for t in templates} for k, v in sites_per_nm2(facet, kind).items()
        }
        templates = [template for template in templates if densities.get(template.key)]
        if not templates:
            continue
        geometries = tuple(template.geometry for template in templates)
        surfaces.append(Surface(facet, geometries, np.array([densities[t.key] for t in templates])))
        energies += [posterior.of(geometry, elements) for geometry in geometries]
    if not surfaces:
        raise InputError(
            "no ideal slab has a site like those of the data; expected classes that `find_sites` gives"
        )
    return surfaces, energies


def known_templates(teacher: Teacher) -> dict[str, list[Template]]:
    """Return the templates that a teacher's training sites were matched to, by facet, both in order."""
    found: dict[str, dict[str, Template]] = {}
    for k in np.unique(teacher.data.geometry[teacher.data.aligned]).tolist():
        template = teacher.data.geometries[k].template(teacher.adsorbate)
        if template is not None:
            found.setdefault(template.facet, {})[template.key] = template
    return {facet: [found[facet][key] for key in sorted(found[facet])] for facet in sorted(found)}


def optimize(
    surfaces: Sequence[Surface],
    energies: Sequence[GeometryEnergies],
    elements: Sequence[str],
    goal: Goal,
    *,
    bounds: Bounds | None = None,
    steps: int = 5,
    sites: int = 4096,
    starts: int = 2,
    seed: int = 0,
    quiet: bool = True,
) -> Optimization:
    """Find the composition with the largest mean activity, facet by facet.

    Parameters
    ----------
    surfaces, energies, elements
        As `surfaces_of` gives them.
    goal
        What is wanted.
    bounds
        Of the shares; anything by default.
    steps
        Of the lattice that the search begins with, from one pure element to the next.
    sites
        How many are drawn for each geometry near the optimum, and to confirm it; on the lattice an eighth.
    starts
        From how many points of the lattice each facet's climb begins.
    seed
        Of everything random.
    quiet
        No progress bar.

    Raises
    ------
    InputError
        For fewer than two elements, or too few sites.
    """
    kinds = len(elements)
    if kinds < 2:
        raise InputError(
            f"--elements: {', '.join(elements)}; expected at least two, or there is nothing to choose"
        )
    if sites < 64:
        raise InputError(f"--sites: {sites}; expected at least 64")
    bounds = bounds or Bounds((0.0,) * kinds, (1.0,) * kinds)
    activity = ActivityMap(surfaces, energies, elements, goal, sites=max(64, sites // 8), seed=seed)
    points = bounds.lattice(steps)
    equimolar = np.full(kinds, 1 / kinds)
    evaluated, optima = [], []
    with progress("Compositions", len(points) + 3 * len(surfaces), quiet=quiet) as bar:
        for point in points:
            evaluated += [Found(s.facet, point, activity.at(k, point)) for k, s in enumerate(surfaces)]
            bar.advance()
        for k, surface in enumerate(surfaces):
            ranked = sorted(
                (found for found in evaluated if found.facet == surface.facet),
                key=lambda found: -found.estimate.value,
            )
            tops = [
                _climb(activity, k, start.composition, bounds, activity.sites)
                for start in _apart(ranked, starts, 0.9 / steps)
            ]
            bar.advance()
            best = max(tops, key=lambda top: activity.at(k, top).value)
            top = _whole(_climb(activity, k, best, bounds, sites), bounds)
            bar.advance()
            estimate = activity.at(k, top, sites=sites)
            constant = vegard_lattice_constant(dict(zip(elements, top.tolist(), strict=True)))
            optima.append(
                Optimum(
                    surface.facet,
                    top,
                    estimate,
                    activity.plain(k, top, sites, seed),
                    activity.at(k, equimolar, sites=sites),
                    float(surface.per_nm2.sum() * (LATTICE_CONSTANT / constant) ** 2),
                )
            )
            evaluated.append(Found(surface.facet, top, estimate))
            bar.advance()
    optima.sort(key=lambda optimum: -optimum.confirmed.value)
    return Optimization(tuple(elements), goal, optima, evaluated, activity, bounds)


def _apart(ranked: Sequence[Found], count: int, gap: float) -> list[Found]:
    """Return up to `count` of the first that differ from each other by more than a gap in some share."""
    chosen: list[Found] = []
    for found in ranked:
        if len(chosen) == count:
            break
        if all(np.abs(found.composition - other.composition).max() > 1.5 * gap for other in chosen):
            chosen.append(found)
    return chosen


def _climb(activity: ActivityMap, facet: int, start: np.ndarray, bounds: Bounds, sites: int) -> np.ndarray:
    """Return the composition to which steps up the gradient lead, a pool of sites being drawn before each."""
    lower, upper = np.array(bounds.lower), np.array(bounds.upper)
    point = bounds.nearest(start)
    for number in range(_MOST):
        activity.draw(point, sites)
        pools = activity.near(point)
        low = np.maximum(np.maximum(lower, point - _REACH), np.minimum(_LEAST, upper))
        high = np.maximum(np.minimum(upper, point + _REACH), low)

        def loss(composition: np.ndarray, pools: Sequence[int] = pools) -> tuple[float, np.ndarray]:
            found = activity.from_pools(facet, composition, pools)
            return -found.value, -found.gradient

        found = minimize(
            loss,
            np.clip(point, low, high),
            jac=True,
            method="SLSQP",
            bounds=list(zip(low, high, strict=True)),
            constraints={"type": "eq", "fun": lambda c: c.sum() - 1, "jac": np.ones_like},
            options={"maxiter": 40, "ftol": 1e-9},
        )
        there = bounds.nearest(found.x)
        moved = np.abs(there - point).max()
        point = there
        if moved < _SETTLED and number + 1 >= _FEWEST:
            break
    return point


def _whole(composition: np.ndarray, bounds: Bounds) -> np.ndarray:
    """Return a composition without traces of elements that need not be there."""
    kept = np.where(composition < _ABSENT, np.minimum(composition, np.array(bounds.lower)), composition)
    return bounds.nearest(kept / kept.sum())


# ------------------------------------------------------------------------------------------ several aims


def mixing_entropy(composition: np.ndarray) -> float:
    """Return the ideal entropy of mixing in units of the gas constant."""
    return float(-xlogy(composition, composition).sum())


class Compromise(NamedTuple):
    """A composition on the Pareto front, on its best facet."""

    found: Found
    price: float  # US dollars per mole of atoms; NaN without prices
    entropy: float  # in units of the gas constant


def pareto_front(
    optimization: Optimization,
    usd_per_g: Mapping[str, float] | None,
    *,
    rounds: int = 1,
    step: float = 0.05,
    advance: Callable[[], None] = lambda: None,
) -> tuple[list[Compromise], list[Compromise]]:
    """Return the compositions that none beats in activity, price and mixing entropy at once, and all compared.

    Parameters
    ----------
    optimization
        What was evaluated so far; each composition counts with its best facet.
    usd_per_g
        Prices by element; None leaves the price out.
    rounds
        How often the neighbours of the front are looked at as well.
    step
        How much of one element a neighbour has less, and of another more.
    advance
        Called after each composition.

    Returns
    -------
    front, compared
        The front in order of falling activity.
    """
    elements = optimization.elements

    def judged(found: Found) -> Compromise:
        price = float("nan") if usd_per_g is None else price_per_mol(found.composition, elements, usd_per_g)
        return Compromise(found, price, mixing_entropy(found.composition))

    best: dict[tuple[float, ...], Found] = {}
    for found in optimization.evaluated:
        key = tuple(np.round(found.composition, 6).tolist())
        if key not in best or found.estimate.value > best[key].estimate.value:
            best[key] = found
    compared = [judged(found) for found in best.values()]
    front = _undominated(compared)
    for _ in range(rounds):
        for member in front:
            for point in _neighbours(member.found.composition, step, optimization.bounds):
                key = tuple(np.round(point, 6).tolist())
                if key not in best:
                    best[key] = optimization.best_facet(point)[0]
                    compared.append(judged(best[key]))
                advance()
        front = _undominated(compared)
    front.sort(key=lambda one: -one.found.estimate.value)
    return front, compared


def _undominated(compared: Sequence[Compromise]) -> list[Compromise]:
    aims = np.array([[one.found.estimate.value, one.entropy, one.price] for one in compared])
    if np.isnan(aims[:, 2]).any():
        aims = aims[:, :2]
    kept = moocore.is_nondominated(aims, maximise=[True, True, False][: aims.shape[1]], keep_weakly=False)
    return [one for one, stays in zip(compared, kept, strict=True) if stays]


def _neighbours(composition: np.ndarray, step: float, bounds: Bounds) -> list[np.ndarray]:
    found = []
    for giver in np.flatnonzero(composition >= step - 1e-9):
        for taker in range(len(composition)):
            if taker != giver:
                point = composition.copy()
                point[giver] -= step
                point[taker] += step
                point = np.clip(point, 0.0, 1.0)
                if bounds.allow(point):
                    found.append(point)
    return found


# --------------------------------------------------------------------------------------------------- maps


def ternary_section(
    optimization: Optimization,
    composition: np.ndarray,
    steps: int,
    *,
    advance: Callable[[], None] = lambda: None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the activity of every facet over three elements, the others held at a composition's shares.

    Parameters
    ----------
    optimization
        Of at least three elements.
    composition
        The section goes through it.
    steps
        From one corner to the next.
    advance
        Called after each point.

    Returns
    -------
    which
        The three elements of which the composition has the most, (3,).
    shares
        Their shares of what the three have together, (n, 3).
    values
        (facets, n), NaN where the bounds forbid a composition.
    """
    which = np.sort(np.argsort(-composition, kind="stable")[:3])
    lattice = simplex_lattice(3, steps)
    together = composition[which].sum()
    values = np.full((len(optimization.facets), len(lattice)), np.nan)
    for k, share in enumerate(lattice):
        point = composition.copy()
        point[which] = share * together
        if optimization.bounds.allow(point):
            values[:, k] = [optimization.at(facet, point).value for facet in optimization.facets]
        advance()
    return which, lattice, values
