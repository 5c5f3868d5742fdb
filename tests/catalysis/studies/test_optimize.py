from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

# Its neighbour is no package, so it is found by its name.
sys.path.insert(0, str(Path(__file__).parent))
from planted import BEST, ELEMENTS, PlantedLaw, planted, planted_share, surface

from catalysis.structure.site_counts import sites_per_nm2
from catalysis.structure.templates import Geometry
from catalysis.studies.activity import BOLTZMANN_EV, Goal, Target
from catalysis.studies.composition import ActivityMap, Surface, composition_text
from catalysis.studies.optimize import (
    Bounds,
    Optimization,
    mixing_entropy,
    optimize,
    pareto_front,
    simplex_lattice,
    ternary_section,
)
from catalysis.studies.prices import price_per_mol
from interpretkit.errors import InputError

GOAL = Goal(Target(0.1, 0.1))


@pytest.fixture(scope="module")
def found() -> Optimization:
    surfaces, energies = planted()
    return optimize(surfaces, energies, ELEMENTS, GOAL, sites=8192, seed=3)


def test_the_planted_optimum_is_found_on_the_right_facet(found: Optimization) -> None:
    assert found.best.facet == "111"
    assert np.abs(found.best.composition - BEST).max() < 0.02
    assert found.best.composition.sum() == pytest.approx(1.0)


def test_plain_monte_carlo_agrees_at_the_optimum_and_both_with_the_truth(found: Optimization) -> None:
    best = found.best
    true = planted_share(best.composition)
    # Four standard errors: the seed is fixed, but the test shall not hang on it.
    assert abs(best.confirmed.value - true) < 4 * best.confirmed.sampling
    together = np.hypot(best.confirmed.sampling, best.estimate.sampling)
    assert abs(best.confirmed.value - best.estimate.value) < 4 * together
    other = found.activity.plain(1, best.composition, 8192, seed=77)
    assert abs(other.value - true) < 4 * other.sampling
    assert other.value != best.confirmed.value


def test_errors_told_are_the_errors_made() -> None:
    surfaces, energies = [surface("111", "111_bridge")], planted()[1][1:]
    away = np.array([0.35, 0.62, 0.03])
    z = []
    for seed in range(60):
        activity = ActivityMap(surfaces, energies, ELEMENTS, GOAL, sites=1500, seed=seed)
        pool = activity.draw(np.array([0.4, 0.55, 0.05]))
        estimate = activity.from_pools(0, away, [pool])
        z.append((estimate.value - planted_share(away)) / estimate.sampling)
    assert abs(np.mean(z)) < 0.5
    assert 0.75 < np.sqrt(np.mean(np.square(z))) < 1.35


def test_two_pools_tell_more_than_either_and_the_gradient_is_that_of_the_value() -> None:
    surfaces, energies = [surface("111", "111_bridge")], planted()[1][1:]
    activity = ActivityMap(surfaces, energies, ELEMENTS, GOAL, sites=2000, seed=0)
    pools = [activity.draw(np.array(shares)) for shares in ([0.45, 0.5, 0.05], [0.35, 0.6, 0.05])]
    point = np.array([0.41, 0.55, 0.04])
    single = [activity.from_pools(0, point, [pool]).effective_sites for pool in pools]
    both = activity.from_pools(0, point, pools)
    assert both.effective_sites > max(single)
    for k in range(3):
        step = np.zeros(3)
        step[k] = 1e-5
        ahead, behind = (activity.from_pools(0, point + s * step, pools).laws.mean() for s in (1, -1))
        # The value is not normalised away from sum one, so each share has a derivative of its own.
        assert both.gradient[k] == pytest.approx((ahead - behind) / 2e-5, rel=2e-2, abs=2e-3)


def test_far_from_every_pool_a_new_one_is_drawn_and_near_one_none() -> None:
    surfaces, energies = planted()
    activity = ActivityMap(surfaces, energies, ELEMENTS, GOAL, sites=400, seed=0)
    activity.at(1, np.array([0.4, 0.6, 0.0]))
    calls = activity.calls
    assert len(activity.proposals) == 1
    activity.at(1, np.array([0.39, 0.61, 0.0]))
    assert (len(activity.proposals), activity.calls) == (1, calls)
    far = activity.at(1, np.array([0.1, 0.2, 0.7]))
    assert len(activity.proposals) == 2
    assert far.effective_sites > 0.2 * 400


class Contacts(PlantedLaw):
    """Good are two equal contacts, whatever surrounds them: the strata tell it without any error."""

    def laws(self, table: np.ndarray) -> np.ndarray:
        energies = np.where(table[:, 0] == table[:, 1], 0.1, 2.0)
        return np.column_stack([energies, energies + 0.15])


def test_what_contacts_alone_decide_is_exact_at_every_composition() -> None:
    one = surface("111", "111_bridge")
    activity = ActivityMap([one], [Contacts(one.geometries[0])], ELEMENTS, GOAL, sites=64, seed=0)
    for shares in ([0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]):
        estimate = activity.at(0, np.array(shares))
        # The second law lies outside the window: half of the laws say none.
        assert estimate.laws == pytest.approx([np.square(shares).sum(), 0.0], abs=1e-4)
        assert estimate.teacher == pytest.approx(np.square(shares).sum() / 2, abs=1e-4)
        assert estimate.sampling == pytest.approx(0.0, abs=1e-6)


def test_classes_count_by_how_many_sites_a_facet_offers() -> None:
    geometries = surface("211", "211_edge", "211_summit")
    weighted = Surface("211", geometries.geometries, np.array([1.0, 3.0]))

    class Good(PlantedLaw):
        def __init__(self, geometry: Geometry, energy_ev: float) -> None:
            super().__init__(geometry)
            self.energy_ev = energy_ev

        def laws(self, table: np.ndarray) -> np.ndarray:
            return np.full((len(table), 1), self.energy_ev)

    energies = [Good(weighted.geometries[0], 0.1), Good(weighted.geometries[1], 3.0)]
    activity = ActivityMap([weighted], energies, ELEMENTS, GOAL, sites=64)
    assert activity.at(0, np.full(3, 1 / 3)).value == pytest.approx(0.25)


def test_sites_per_area_are_those_of_the_lattice() -> None:
    # On (111) an atom has an area of √3/4 a², and there are three bridges per atom; on (100) a²/2 and two.
    constant = 4.0
    assert sites_per_nm2("111", "bridge", constant)["111_bridge"] == pytest.approx(
        3 / (np.sqrt(3) / 4 * 0.16)
    )
    assert sites_per_nm2("100", "bridge", constant)["100_bridge"] == pytest.approx(2 / 0.08)
    # Twice as many hollows as atoms on (111), half of them above an atom.
    hollows = sites_per_nm2("111", "hollow", constant)
    assert sum(hollows.values()) == pytest.approx(2 / (np.sqrt(3) / 4 * 0.16))
    assert len(set(np.round(list(hollows.values()), 9))) == 1


def test_the_same_seed_gives_the_same_and_another_another() -> None:
    surfaces, energies = planted()
    runs = [
        optimize(surfaces[1:], energies[1:], ELEMENTS, GOAL, sites=256, seed=seed).best for seed in (1, 1, 2)
    ]
    assert np.array_equal(runs[0].composition, runs[1].composition)
    assert runs[0].confirmed.value == runs[1].confirmed.value
    assert runs[0].confirmed.value != runs[2].confirmed.value


def test_bounds_hold(found: Optimization) -> None:
    bounds = Bounds((0.0, 0.0, 0.1), (0.3, 1.0, 1.0))
    surfaces, energies = planted()
    held = optimize(surfaces[1:], energies[1:], ELEMENTS, GOAL, bounds=bounds, sites=2048, seed=0)
    assert bounds.allow(held.best.composition)
    assert all(bounds.allow(one.composition) for one in held.evaluated)
    # Within them the optimum lies in the corner: as much Ir, as little Pt as may be.
    assert held.best.composition == pytest.approx([0.3, 0.6, 0.1], abs=0.02)
    assert held.best.estimate.value < found.best.estimate.value
    narrow = Bounds((0.31, 0.31, 0.31), (0.36, 0.36, 0.36))
    points = narrow.lattice(5)
    assert len(points) >= 3
    assert all(narrow.allow(point) for point in points)


@pytest.mark.parametrize(
    ("lower", "upper"),
    [((0.5, 0.6), (1, 1)), ((0, 0), (0.3, 0.4)), ((0.4, 0), (0.2, 1)), ((-0.1, 0), (1, 1))],
)
def test_bounds_that_nothing_keeps_are_refused(lower: tuple[float, ...], upper: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="--bounds"):
        Bounds(lower, upper)


def test_an_alloy_of_one_metal_is_refused() -> None:
    surfaces, energies = planted()
    with pytest.raises(InputError, match="at least two"):
        optimize(surfaces, energies, ("Pt",), GOAL)


def test_no_composition_compared_beats_one_of_the_front(found: Optimization) -> None:
    prices = {"Ir": 150.0, "Pd": 32.0, "Pt": 31.0}
    front, compared = pareto_front(found, prices, rounds=1)

    def aims(one: object) -> np.ndarray:
        return np.array([one.found.estimate.value, -one.price, one.entropy])  # type: ignore[attr-defined]

    for member in front:
        for other in compared:
            better = aims(other) - aims(member)
            assert not (np.all(better >= 0) and np.any(better > 0))
    for other in compared:
        if not any(other is member for member in front):
            better = [aims(member) - aims(other) for member in front]
            assert any(np.all(b >= 0) for b in better)
    without, _ = pareto_front(found, None, rounds=0)
    assert all(np.isnan(one.price) for one in without)
    cheapest = min(compared, key=lambda one: one.price)
    assert any(np.array_equal(cheapest.found.composition, one.found.composition) for one in front)


def test_prices_and_entropies_are_those_of_the_textbook() -> None:
    assert price_per_mol(np.array([0.5, 0.5]), ("Pt", "Cu"), {"Pt": 10.0, "Cu": 0.0}) == pytest.approx(
        975.42, abs=0.1
    )
    assert mixing_entropy(np.full(5, 0.2)) == pytest.approx(np.log(5))
    assert mixing_entropy(np.array([1.0, 0.0])) == 0.0


def test_the_best_facet_of_a_composition_is_the_one_with_the_largest_value(found: Optimization) -> None:
    best, _ = found.best_facet(np.array([0.3, 0.0, 0.7]))
    assert best.facet == "100"  # two Pt at the contacts
    best, sure = found.best_facet(BEST)
    assert (best.facet, sure) == ("111", 1.0)


def test_a_section_goes_through_its_composition_and_leaves_out_what_bounds_forbid(
    found: Optimization,
) -> None:
    which, shares, values = ternary_section(found, BEST, 4)
    assert which.tolist() == [0, 1, 2]
    assert values.shape == (2, 15)
    at = int(np.flatnonzero((shares == [0.5, 0.5, 0.0]).all(1))[0])
    assert values[1, at] == pytest.approx(planted_share(np.array([0.5, 0.5, 0.0])), abs=0.02)


@pytest.mark.parametrize("mean", [-0.2, 0.1, 0.13, 0.9])
@pytest.mark.parametrize("deviation", [0.004, 0.03, 0.2])
def test_the_expected_rate_on_a_volcano_is_its_integral(mean: float, deviation: float) -> None:
    goal = Goal(Target(0.1, 0.1), "sabatier", 300.0)
    width = BOLTZMANN_EV * 300

    def rate(energy: float) -> float:
        return np.exp(-abs(energy - 0.1) / width) * norm.pdf(energy, mean, deviation)

    expected, _ = quad(rate, 0.1 - 40 * width, 0.1 + 40 * width, points=[0.1], limit=400)
    assert goal(np.array([mean]), deviation)[0] == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_goals_that_are_none_are_refused() -> None:
    with pytest.raises(InputError, match="--activity"):
        Goal(Target(0, 1), "magic")
    with pytest.raises(InputError, match="--temperature"):
        Goal(Target(0, 1), "sabatier", 0.0)


def test_a_lattice_holds_every_composition_of_its_steps_once() -> None:
    points = simplex_lattice(3, 4)
    assert len(points) == 15
    assert len(np.unique(points, axis=0)) == 15
    assert points.sum(1) == pytest.approx(1.0)
    assert simplex_lattice(2, 1).tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_compositions_are_written_in_whole_percents_that_sum_to_hundred() -> None:
    assert composition_text(np.array([1 / 3, 1 / 3, 1 / 3]), ELEMENTS) == "Ir34Pd33Pt33"
    assert composition_text(np.array([0.0, 0.996, 0.004]), ELEMENTS) == "Pd100"
