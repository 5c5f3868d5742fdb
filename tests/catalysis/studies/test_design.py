from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from catalysis.energies.protocol import Prediction
from catalysis.structure.occupations import Occupations, filled, joined
from catalysis.structure.templates import Template, class_templates
from catalysis.studies.design import (
    Target,
    choose,
    distinct,
    diversity,
    finished,
    random_occupations,
)
from interpretkit.errors import InputError


def template(facet: str = "111", name: str = "111_bridge") -> Template:
    return class_templates(facet, name)[0]


ELEMENTS = ["Ir", "Pd", "Pt", "Ru"]


def pure(symbol: str, **changes: int) -> Occupations:
    """Return a site of one metal, but for the slots that hold another."""
    contents = [ELEMENTS.index(symbol)] * len(template())
    for other, slot in changes.items():
        contents[slot] = ELEMENTS.index(other)
    return filled([template().geometry], np.zeros(1, int), ELEMENTS, np.array(contents))


@pytest.mark.parametrize(
    ("energy", "window"), [(float("nan"), 0.1), (0.1, 0.0), (0.1, -1.0), (0.1, float("inf"))]
)
def test_absurd_targets_are_refused(energy: float, window: float) -> None:
    with pytest.raises(InputError, match=r"^--"):
        Target(energy, window)


def test_the_probability_of_a_window_is_that_of_a_normal_distribution() -> None:
    target = Target(0.1, 0.1)
    one_sigma = target.probability(np.array([0.1]), np.array([0.1]))
    assert one_sigma == pytest.approx(0.6827, abs=1e-4)
    draws = np.random.default_rng(0).normal(0.3, 0.2, 200_000)
    expected = target.probability(np.array([0.3]), np.array([0.2]))
    assert target.holds(draws).mean() == pytest.approx(expected, abs=0.005)


def test_random_sites_cover_the_templates_and_follow_the_composition() -> None:
    templates = [template(), template("211", "211_edge")]
    drawn = random_occupations(templates, {"Pt": 0.8, "Ru": 0.2}, 200, seed=0)
    assert Counter(drawn.geometries[k].key for k in drawn.geometry) == {"111_bridge": 100, "211_edge": 100}
    symbols = [symbol for row in range(200) for symbol in drawn.symbols(row)]
    assert len(symbols) == 100 * sum(len(t) for t in templates)
    assert symbols.count("Ru") / len(symbols) == pytest.approx(0.2, abs=0.02)
    again = random_occupations(templates, {"Pt": 0.8, "Ru": 0.2}, 200, seed=0)
    assert np.array_equal(drawn.table, again.table)


def test_symmetric_copies_count_once_and_known_sites_not_at_all() -> None:
    # The two contacts of a (111) bridge are equivalent.
    first, second, last = pure("Pt", Ru=0), pure("Pt", Ru=1), pure("Pt", Ru=len(template()) - 1)
    none = pure("Pt")[:0]
    assert distinct(joined([first, second, pure("Pd")]), none).tolist() == [0, 2]
    assert distinct(joined([first, second, last]), none).tolist() == [0, 2]
    assert distinct(joined([first, second, pure("Pd")]), pure("Pd")).tolist() == [0]
    assert distinct(first, second).tolist() == []


def test_choosing_keeps_the_likeliest_but_not_all_alike() -> None:
    near_copies = joined([pure("Pt", Ru=slot) for slot in range(10, 20)])
    others = random_occupations([template()], {"Pt": 0.5, "Ir": 0.5}, 10, seed=1).with_elements(ELEMENTS)
    candidates = joined([near_copies, others])
    probability = np.r_[np.linspace(0.99, 0.9, 10), np.linspace(0.5, 0.4, 10)]
    chosen = choose(candidates, probability, 5, min_difference=3)
    assert chosen[0] == 0
    assert sum(index < 10 for index in chosen) == 1
    assert len(chosen) == 5
    kinds = Counter(others[np.array(choose(others, probability[10:], 4))].contact_elements)
    assert max(kinds.values()) <= 4
    some = diversity(candidates[np.array(chosen)])
    assert some["mean_difference"] > diversity(near_copies)["mean_difference"] > 0


def test_a_finished_design_stands_in_a_slab_and_knows_its_nearest_relative() -> None:
    target = Target(0.0, 0.1)
    chosen = joined([pure("Pt", Ru=0), pure("Pd")])
    judged = Prediction(np.array([0.0, 0.5]), np.array([0.05, 0.05]))
    designs = finished(
        chosen,
        judged,
        np.array([0.1, 0.2]),
        np.ones(2),
        target,
        pure("Pt", Ru=1, Ir=20),
        adsorbate="OH",
        seed=0,
    )
    assert [d.nearest_known for d in designs] == [1, len(template())]
    assert designs[0].probability > 0.9 > designs[1].probability
    assert Counter(designs[0].site.symbols) == Counter(chosen.symbols(0))
    assert designs[0].site.energy_ev is None
    assert designs[0].host.slab[designs[0].site.host_indices[0]].symbol == designs[0].site.symbols[0]
