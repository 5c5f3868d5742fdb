"""Patterns against brute force, the bandit against chance, and a planted blind spot."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cnn_interp.diagnosis.blind_spot import plant_blind_spot, single_things
from cnn_interp.diagnosis.unknown_unknowns import (
    Partition,
    Pattern,
    binary_attributes,
    explore,
    frequent_patterns,
    part_table,
    partition,
    utilities,
)
from interpretkit.errors import InputError


def test_frequent_patterns_are_those_of_brute_force() -> None:
    attributes = np.random.default_rng(0).random((60, 6)) < 0.5
    found = frequent_patterns(attributes, support=0.15, longest=3)
    expected: dict[bytes, tuple[int, ...]] = {}
    for length in (1, 2, 3):
        for places in itertools.combinations(range(6), length):
            rows = attributes[:, list(places)].all(1)
            if rows.sum() >= 9:
                expected.setdefault(rows.tobytes(), places)
    assert {p.rows.tobytes(): p.attributes for p in found if p.attributes} == expected
    assert np.logical_or.reduce([p.rows for p in found]).all()


def test_what_no_pattern_holds_is_held_by_everything() -> None:
    attributes = np.zeros((5, 2), dtype=bool)
    found = frequent_patterns(attributes, support=0.5)
    assert [p.attributes for p in found] == [()]
    assert found[0].describe(("a", "b")) == "everything"


def test_categories_become_attributes() -> None:
    attributes, names = binary_attributes({"colour": ["red", "blue", "red"], "large": [True, False, True]})
    assert names == ("colour is blue", "colour is red", "large")
    np.testing.assert_array_equal(attributes, [[0, 1, 1], [1, 0, 0], [0, 1, 1]])


def test_a_partition_has_every_example_once_and_follows_the_clusters() -> None:
    colours = np.repeat(["red", "blue", "green"], 30)
    attributes, names = binary_attributes(
        {"colour": colours.tolist(), "noise": np.random.default_rng(0).integers(0, 2, 90).tolist()}
    )
    confidence = np.repeat([0.7, 0.8, 0.95], 30)
    found = partition(attributes, confidence, frequent_patterns(attributes, support=0.05))
    assert found.sizes().sum() == 90
    for number, pattern in enumerate(found.patterns):
        assert pattern.rows[found.part == number].all()
    # Confidence goes with the colour alone, so that each part is of one colour.
    for number in range(len(found.patterns)):
        assert len(set(colours[found.part == number])) == 1
    assert {p.describe(names).split(" and ")[0] for p in found.patterns} == {
        "colour is red", "colour is blue", "colour is green",
    }  # fmt: skip


def three_parts() -> tuple[Partition, np.ndarray]:
    """Return 300 examples in three parts; the network errs in four fifths of the last."""
    part = np.repeat([0, 1, 2], 100)
    patterns = tuple(Pattern((number,), part == number) for number in range(3))
    wrong = (part == 2) & (np.arange(300) % 5 != 0)
    return Partition(patterns, part), wrong


def test_the_bandit_finds_the_part_with_the_errors() -> None:
    parts, wrong = three_parts()
    predictions = np.zeros(300, dtype=int)
    best = utilities(wrong)
    regrets = {}
    for explorer in ("bandit", "epsilon_greedy", "random"):
        runs = [
            explore(parts, predictions, lambda row: int(wrong[row]), budget=60, explorer=explorer, seed=seed)
            for seed in range(5)
        ]
        regrets[explorer] = np.mean([run.regret(best)[-1] for run in runs])
        for run in runs:
            assert len(set(run.queries.tolist())) == 60
            assert (run.wrong == wrong[run.queries]).all()
            assert (np.diff(run.regret(best)) >= -1e-12).all()
    assert regrets["bandit"] < 0.5 * regrets["random"]
    table = part_table(parts, ("a", "b", "c"), runs[0], np.full(300, 0.9))
    assert table[0]["pattern"] == "c"


def test_a_part_that_is_used_up_is_left() -> None:
    parts, wrong = three_parts()
    found = explore(parts, np.zeros(300, dtype=int), lambda row: int(wrong[row]), budget=300)
    assert sorted(found.queries.tolist()) == list(range(300))
    assert found.regret(utilities(wrong))[-1] == pytest.approx(0)


def test_costs_lower_the_utility() -> None:
    parts, wrong = three_parts()
    cost = np.arange(300.0)
    found = explore(
        parts, np.zeros(300, dtype=int), lambda row: int(wrong[row]), budget=10, gamma=0.01, cost=cost, seed=4
    )
    np.testing.assert_allclose(found.utility, found.wrong - 0.01 * cost[found.queries])
    same = explore(
        parts, np.zeros(300, dtype=int), lambda row: int(wrong[row]), budget=10, gamma=0.01, cost=cost, seed=4
    )
    np.testing.assert_array_equal(found.queries, same.queries)


def test_uncertainty_asks_about_the_least_sure() -> None:
    parts, wrong = three_parts()
    confidence = np.random.default_rng(0).random(300)
    found = explore(
        parts, np.zeros(300, dtype=int), lambda row: int(wrong[row]), budget=5, explorer="uncertainty",
        confidence=confidence,
    )  # fmt: skip
    np.testing.assert_array_equal(found.queries, np.argsort(confidence)[:5])


def test_biased_scenes_hide_a_subgroup() -> None:
    biased = [scene.things[0] for scene in single_things(200, biased=True, seed=0)]
    assert {thing.shape for thing in biased if thing.colour == "blue"} == {"square"}
    fair = [scene.things[0] for scene in single_things(200, biased=False, seed=0)]
    assert len({thing.shape for thing in fair if thing.colour == "blue"}) == 4


def test_a_planted_blind_spot_is_found() -> None:
    deployed = plant_blind_spot(training=600, deployed=700, epochs=8, seed=1, device="cpu", quiet=True)
    assert deployed.accuracy > 0.85
    confidence = deployed.probabilities.max(1)
    sure = np.flatnonzero(confidence >= 0.65)
    wrong = (deployed.predictions != deployed.labels)[sure]
    # The network is sure of what it never saw, and wrong.
    assert wrong[deployed.hidden[sure]].mean() > 0.7
    columns = {name: [values[row] for row in sure] for name, values in deployed.columns().items()}
    attributes, names = binary_attributes(columns)
    parts = partition(attributes, confidence[sure], frequent_patterns(attributes, support=0.04))
    budget = 80
    predictions, labels = deployed.predictions[sure], deployed.labels[sure]
    found = {
        explorer: explore(
            parts, predictions, lambda row: int(labels[row]), budget=budget, explorer=explorer, seed=0
        )
        for explorer in ("bandit", "random")
    }
    assert found["bandit"].wrong.sum() > 2 * found["random"].wrong.sum()
    worst = part_table(parts, names, found["bandit"], confidence[sure])[0]
    assert "colour is blue" in str(worst["pattern"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"explorer": "oracle"}, "explorer 'oracle'"),
        ({"budget": 301}, "budget 301: expected 1 to 300"),
        ({"discount": 0.0}, "discount 0"),
        ({"explorer": "uncertainty"}, "confidence: none given"),
    ],
)
def test_bad_arguments(options: dict, message: str) -> None:
    parts, wrong = three_parts()
    with pytest.raises(InputError, match=message):
        explore(parts, np.zeros(300, dtype=int), lambda row: int(wrong[row]), **{"budget": 5, **options})
    with pytest.raises(InputError, match="support 0"):
        frequent_patterns(np.ones((3, 2), dtype=bool), support=0)
    with pytest.raises(InputError, match="weights"):
        partition(np.ones((3, 1), dtype=bool), np.ones(3), [], weights={"size": 1})
