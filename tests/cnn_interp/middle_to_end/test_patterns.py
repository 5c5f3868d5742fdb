"""Patterns of a layer: what the layer gives without them, and what they add to the outputs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from edited_networks import LAYER, colour_network, squares

from cnn_interp.disentangling.features import TrunkFeatures, trunk_features
from cnn_interp.middle_to_end.patterns import (
    KINDS,
    ConceptPatterns,
    Nodes,
    Patterns,
    find_patterns,
    patterns_from,
)
from interpretkit.errors import InputError

NETWORK = colour_network()


@pytest.fixture(scope="module")
def features() -> TrunkFeatures:
    return trunk_features(NETWORK, squares(12), [LAYER])


@pytest.fixture(scope="module")
def found(features: TrunkFeatures) -> dict[str, Patterns]:
    counts = {"filters": 1, "concepts": 3, "nodes": 2}
    return {kind: find_patterns(features, LAYER, kind, count=counts[kind]) for kind in KINDS}


def head(values: Tensor) -> Tensor:
    assert isinstance(NETWORK.module, nn.Sequential)
    return NETWORK.module[4](values.mean(dim=(2, 3)))


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_pattern_adds_is_what_goes_with_it(
    kind: str, features: TrunkFeatures, found: dict[str, Patterns]
) -> None:
    """Above the layer all is linear, so that the first order is exact: an oracle for every kind."""
    patterns = found[kind]
    values = features[LAYER].tensor().requires_grad_()
    outputs = head(values)
    (gradient,) = torch.autograd.grad(outputs[:, 1].sum(), values)
    with torch.no_grad():
        pull = patterns.pull(values, gradient).sum(dim=(2, 3))
        for number in range(len(patterns)):
            fall = outputs[:, 1] - head(patterns.without(values, [number]))[:, 1]
            torch.testing.assert_close(pull[:, number], fall, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_saved_does_the_same(kind: str, features: TrunkFeatures, found: dict[str, Patterns]) -> None:
    patterns, values = found[kind], features[LAYER].tensor()
    again = patterns_from(patterns.description(), patterns.tensors())
    assert len(again) == len(patterns)
    assert torch.equal(again.without(values, [1]), patterns.without(values, [1]))
    assert torch.equal(again.maps(values), patterns.maps(values))
    missing = {name: one for name, one in patterns.tensors().items() if name != "rest"}
    with pytest.raises(InputError, match="damaged"):
        patterns_from(patterns.description(), missing)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_changes_without_anything_taken_out(
    kind: str, features: TrunkFeatures, found: dict[str, Patterns]
) -> None:
    values = features[LAYER].tensor()
    torch.testing.assert_close(found[kind].without(values, []), values, atol=1e-6, rtol=0)


def test_a_filter_is_at_its_mean_and_the_others_stay(
    features: TrunkFeatures, found: dict[str, Patterns]
) -> None:
    values = features[LAYER].tensor()
    left = found["filters"].without(values, [2])
    torch.testing.assert_close(left[:, 2], values[:, 2].mean().expand_as(left[:, 2]))
    assert torch.equal(left[:, [0, 1, 3]], values[:, [0, 1, 3]])
    zero = find_patterns(features, LAYER, "filters", towards="zero").without(values, [2])
    assert not zero[:, 2].any()


def test_no_linear_function_tells_where_concepts_were(
    features: TrunkFeatures, found: dict[str, Patterns]
) -> None:
    """Concepts that are not at right angles are taken out together, and a second time changes nothing."""
    patterns = found["concepts"]
    assert isinstance(patterns, ConceptPatterns)
    directions = torch.from_numpy(patterns.concepts.directions).float()
    assert abs(float(directions[0] @ directions[1])) > 1e-3
    left = patterns.without(features[LAYER].tensor(), [0, 1])
    scaled = (left - patterns.rest[:, None, None]) / torch.from_numpy(patterns.concepts.scale).float()[
        :, None, None
    ]
    seen = torch.einsum("kd,ndhw->nkhw", directions, scaled)
    assert float(seen[:, :2].abs().max()) < 1e-4
    assert float(seen[:, 2].abs().max()) > 0.1
    torch.testing.assert_close(patterns.without(left, [0, 1]), left, atol=1e-5, rtol=0)


def test_a_node_is_taken_out_about_its_place_only(
    features: TrunkFeatures, found: dict[str, Patterns]
) -> None:
    patterns, values = found["nodes"], features[LAYER].tensor()
    assert isinstance(patterns, Nodes)
    node = int(np.flatnonzero(patterns.level.filters == 1)[0])
    changed = (patterns.without(values, [node]) - values).abs()
    assert not changed[:, [0, 2, 3]].any()
    places = patterns.graph.locate(features)[patterns.level.name].positions[:, node]
    far = np.hypot(*np.moveaxis(features[LAYER].positions[None] - places[:, None], 2, 0))
    flat = changed[:, 1].flatten(1)
    assert float(flat[torch.from_numpy(far > 4 * patterns.level.deviations[node])].sum()) <= 1e-2 * float(
        flat.sum()
    )


def test_maps_of_another_layer_are_refused(found: dict[str, Patterns]) -> None:
    for patterns in found.values():
        with pytest.raises(InputError, match="expected maps of 4 units"):
            patterns.without(torch.zeros(1, 5, 16, 16), [0])
