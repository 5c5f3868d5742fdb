import math

import numpy as np
import pytest
import torch

from cnn_interp.disentangling.comparison import (
    SYSTEMS,
    ComparisonSettings,
    Scores,
    Units,
    chosen_tracking,
    constant_scores,
    detector_scores,
    mean_scores,
    part_scores,
    place_scores,
    units_of,
)
from cnn_interp.disentangling.concepts import SparseSettings
from cnn_interp.disentangling.explanatory_graph import GraphSettings
from cnn_interp.disentangling.features import LayerMaps, TrunkFeatures
from cnn_interp.images.concept_images import Concept
from cnn_interp.metrics.location_instability import location_instability
from cnn_interp.units.positions import UnitGrid
from interpretkit.errors import InputError
from interpretkit.networks.receptive_fields import ReceptiveField

IMAGE, SIDE = (96, 96), 12
GRID = UnitGrid(ReceptiveField("x", (16.0, 16.0), (8.0, 8.0), (3.5, 3.5), (SIDE, SIDE)), IMAGE)
CENTRES = GRID.centres(np.arange(SIDE * SIDE))
SMALL = ComparisonSettings(
    concepts=3,
    codes=6,
    sparse=SparseSettings(active=2, epochs=10),
    graph=GraphSettings(parents=2, rounds=2, iterations=5, still=0.0, nodes_per_filter=1),
)


def bumps(places):
    square = ((CENTRES[None] - places[:, None]) ** 2).sum(axis=2)
    return np.exp(-square / (2 * 7.0**2)).reshape(-1, SIDE, SIDE)


def planted(n=80, seed=0):
    """A layer with four filters for each of two parts, and the parts."""
    rng = np.random.default_rng(seed)
    body = 48 + rng.normal(0, 8, (n, 1, 2))
    parts = body + np.array([[-18, -18], [18, 18]]) + rng.normal(0, 5, (n, 2, 2))
    maps = np.stack([bumps(parts[:, part]) for part in (0, 0, 0, 0, 1, 1, 1, 1)], axis=1)
    # Now and then a filter fires elsewhere.
    for unit in range(8):
        wrong = rng.random(n) < 0.25
        maps[wrong, unit] += 1.3 * bumps(rng.uniform(0, 96, (n, 2)))[wrong]
    layer = LayerMaps("x", maps.astype(np.float32), GRID)
    return TrunkFeatures({"x": layer}, IMAGE, f"planted {seed}"), parts


def units(maps, name="filters"):
    values = torch.as_tensor(maps)
    flat = maps.reshape(*maps.shape[:2], -1)
    readout = {"strongest": (flat.max(axis=2), GRID.centres(flat.argmax(axis=2)))}
    return Units(name, maps.shape[1], lambda numbers: values[torch.as_tensor(numbers)], GRID, readout, 0, 0.0)


def test_every_system_is_measured_and_nodes_follow_parts_better_than_their_filters():
    features, parts = planted()
    found = {
        (row.system, row.readout): row
        for system in units_of(features, "x", SMALL, seed=1)
        for row in place_scores(system, parts, IMAGE)
    }
    assert {system for system, _ in found} == set(SYSTEMS)
    filters, nodes = found["filters", "strongest"], found["graph nodes", "posterior"]
    assert nodes.median_tracking > filters.median_tracking + 0.3
    # Filters that are only drawn to their means do not follow the parts so well: it is the edges that tell.
    assert (
        nodes.median_tracking > found["filters", "centre of gravity, drawn to its mean"].median_tracking + 0.1
    )
    assert nodes.instability < 0.7 * filters.instability
    assert filters.unexplained == 0
    for row in found.values():
        assert 0 <= row.unexplained <= 1
        assert math.isfinite(row.instability + row.median_tracking + row.best_tracking + row.moving)
    assert found["pca", "strongest"].unexplained <= found["nmf", "strongest"].unexplained + 1e-3


def test_filters_scores_are_those_of_the_metrics_room():
    features, parts = planted()
    layer = features["x"]
    system = units_of(features, "x", ComparisonSettings(systems=("filters",)))[0]
    row = place_scores(system, parts, IMAGE, top=30)[0]
    flat = (layer.maps / layer.unit_scale()[:, None, None]).reshape(80, 8, -1)
    expected = location_instability(flat.max(axis=2), GRID.centres(flat.argmax(axis=2)), parts, IMAGE, top=30)
    assert row.instability == pytest.approx(expected.mean_instability, rel=1e-6)
    assert row.best_tracking == pytest.approx(expected.best_tracking()[1].mean(), rel=1e-6)
    assert row.median_tracking == pytest.approx(np.median(expected.tracking[0], axis=1).mean(), rel=1e-6)


def test_what_is_learned_on_some_images_is_measured_on_others():
    features, parts = planted()
    learned, others = np.arange(40), np.arange(40, 80)
    for system in units_of(features, "x", SMALL, rows=others, learn_rows=learned):
        rows = place_scores(system, parts[others], IMAGE)
        assert all(len(values) == 40 for values, _ in system.readouts.values())
        assert system.maps(others[:3]).shape == (3, system.count, SIDE, SIDE)
        assert rows[0].system == system.system


def test_a_unit_that_stands_still_has_the_constant_row():
    _, parts = planted()
    still = {"strongest": (np.ones((80, 1)), np.full((80, 1, 2), 47.5))}
    system = Units("still", 1, lambda numbers: torch.zeros(len(numbers), 1, SIDE, SIDE), GRID, still, 0, 1.0)
    row, constant = place_scores(system, parts, IMAGE)[0], constant_scores(parts, IMAGE)
    assert row.instability == pytest.approx(constant.instability)
    assert row.constant == pytest.approx(constant.constant)
    assert row.moving == 0
    assert row.median_tracking == pytest.approx(0, abs=1e-9)


def test_the_best_of_many_random_units_is_not_the_best_on_other_images():
    rng = np.random.default_rng(0)
    parts = rng.uniform(0, 96, (60, 1, 2))
    values, positions = np.ones((60, 2000)), rng.uniform(0, 96, (60, 2000, 2))
    best = location_instability(values, positions, parts, IMAGE).tracking.max()
    chosen = chosen_tracking(values, positions, parts, IMAGE)
    assert best > -0.4
    assert chosen < best - 0.3
    positions[:, 7] = parts[:, 0]
    assert chosen_tracking(values, positions, parts, IMAGE) == pytest.approx(1)
    assert math.isnan(chosen_tracking(values[:30], positions[:30], parts[:30], IMAGE))


def test_part_interpretability_and_detectors_of_stored_maps():
    rng = np.random.default_rng(3)
    parts = CENTRES[rng.integers(0, len(CENTRES), (80, 1))]
    # One unit fires at the part in every other image, one at a corner: at fewer positions than 0.5 %, so that a
    # region is where a map is above 0.
    maps = np.zeros((80, 2, SIDE, SIDE), dtype=np.float32)
    at = np.round((parts[:, 0] - 3.5) / 8).astype(int)
    maps[np.arange(0, 80, 2), 0, at[::2, 0], at[::2, 1]] = 1
    maps[::2, 1, -1, -1] = 1
    system = units(maps)
    rows, columns = np.mgrid[:96, :96]
    masks = np.hypot(rows[None] - parts[:, :1, :1], columns[None] - parts[:, :1, 1:]) < 8
    portions = [torch.as_tensor(masks[:50])[:, None], torch.as_tensor(masks[50:])[:, None]]
    row = part_scores(system, np.arange(80), portions, ["head"])
    # The first meets it in half of the images, the second in those in which it happens to be in the corner.
    assert row.part_interpretability == pytest.approx(0.25, abs=0.03)
    assert row.displaced < 0.05
    labels = [mask.int() for mask in portions]
    assert detector_scores(system, np.arange(80), labels, [Concept(1, "head", "part")]).detectors == 1
    with pytest.raises(InputError, match="79"):
        part_scores(system, np.arange(79), portions, ["head"])


def test_means_leave_out_what_was_not_measured():
    rows = [
        Scores("a", "", instability=0.1),
        Scores("a", "", instability=0.3, detectors=4.0),
        Scores("b", ""),
    ]
    first, second = mean_scores(rows)
    assert first.instability == pytest.approx(0.2)
    assert first.detectors == 4
    assert math.isnan(second.instability)


@pytest.mark.parametrize("systems", [(), ("filters", "trees")])
def test_unknown_systems(systems):
    with pytest.raises(InputError, match="systems"):
        ComparisonSettings(systems=systems)
