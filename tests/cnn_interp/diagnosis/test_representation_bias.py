from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cnn_interp.diagnosis.representation_bias import (
    SCENE_ATTRIBUTES,
    AttributeRelations,
    attribute_scenes,
    find_bias,
    mine_relations,
    read_relations,
)
from cnn_interp.diagnosis.small_network import SmallNetwork, predict, train_network
from interpretkit.errors import InputError

ALL = {name: index for index, name in enumerate(SCENE_ATTRIBUTES)}
PLANTED = ("warm wall", "round")


@pytest.fixture(scope="module")
def networks() -> dict[str, SmallNetwork]:
    """Return a network trained on scenes in which round things stand before warm walls, and one trained on any."""
    found = {}
    for name, bias in (("biased", PLANTED), ("control", None)):
        model = SmallNetwork(3, len(ALL), (8, 16, 16))
        pixels, present = attribute_scenes(500, bias=bias, side=16)
        train_network(model, pixels, present, epochs=10)
        found[name] = model
    return found


def test_a_planted_bias_is_found_and_the_control_has_none(networks: dict[str, SmallNetwork]) -> None:
    pixels, present = attribute_scenes(120, side=16, seed=9)
    ranked = {
        name: find_bias(mine_relations(model, pixels, ALL, "blocks.1")) for name, model in networks.items()
    }
    worst = ranked["biased"][0]
    assert {worst.first, worst.second} == set(PLANTED)
    assert worst.suspected
    assert worst.cosine > 0.4
    assert worst.divergence > 2 * ranked["biased"][1].divergence
    # In the control that pair is like the others.
    same = next(pair for pair in ranked["control"] if {pair.first, pair.second} == set(PLANTED))
    assert not same.suspected
    assert abs(same.cosine) < 0.3
    assert worst.divergence > 3 * same.divergence
    # What is mined is what the networks do: on images without the bias, only the biased one takes walls for shapes.
    right = {
        name: float(
            ((predict(model, pixels)[:, ALL["round"]] > 0) == present[:, ALL["round"]].bool()).double().mean()
        )
        for name, model in networks.items()
    }
    assert right["control"] > right["biased"] + 0.15


class Known(nn.Module):
    """Three attributes, linear in the feature: the first two the same, the third orthogonal to them."""

    def __init__(self) -> None:
        super().__init__()
        self.feature = nn.Identity()
        weight = torch.zeros(4, 12)
        weight[0, :4] = weight[1, :4] = torch.tensor([1.0, 2.0, 3.0, 4.0])
        weight[2, 6], weight[3, :4] = 5.0, -weight[0, :4]
        self.weight = nn.Parameter(weight)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.feature(pixels).flatten(1) @ self.weight.T


def test_weights_of_a_linear_network_are_its_own() -> None:
    model = Known().train()
    pixels = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mined = mine_relations(model, pixels, {"a": 0, "b": 1, "c": 2, "d": 3}, "feature")
    expected = np.array([[1, 1, 0, -1], [1, 1, 0, -1], [0, 0, 1, 0], [-1, -1, 0, 1]])
    np.testing.assert_allclose(mined.matrix, expected, atol=1e-6)
    np.testing.assert_allclose(mined.fidelity, 1, atol=1e-5)
    assert model.training
    assert not model.feature._forward_hooks
    assert model.weight.requires_grad
    assert model.weight.grad is None


def test_under_noise_the_mean_gradient_is_the_best_linear_fit() -> None:
    class Squares(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.feature = nn.Identity()

        def forward(self, pixels: Tensor) -> Tensor:
            x = self.feature(pixels).flatten(1)
            return torch.stack([(x**2).sum(1), (x**3).sum(1), x.sum(1)], dim=1)

    pixels = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    mined = mine_relations(Squares(), pixels, {"a": 0, "b": 1, "c": 2}, "feature", noise=1e-3)
    x = pixels.flatten(1).double()
    slopes = [2 * x, 3 * x**2, torch.ones_like(x)]
    for column, (i, j) in enumerate(mined.pairs):
        cosine = torch.nn.functional.cosine_similarity(slopes[i], slopes[j])
        np.testing.assert_allclose(mined.cosines[:, column], cosine, atol=1e-4)
    assert mined.fidelity.min() > 0.999


def relations(planted: float) -> AttributeRelations:
    rng = np.random.default_rng(0)
    names = tuple("abcde")
    pairs = np.array([(i, j) for i in range(5) for j in range(i)])[:, ::-1]
    cosines = 0.05 * rng.standard_normal((200, len(pairs)))
    cosines[:, 4] += planted
    return AttributeRelations(names, "layer", pairs, cosines.clip(-1, 1), np.ones(5))


def test_only_a_pair_that_stands_out_is_suspected() -> None:
    assert not any(pair.suspected for pair in find_bias(relations(0.0)))
    for planted in (0.5, -0.5):
        found = find_bias(relations(planted))
        assert [pair.suspected for pair in found] == [True] + [False] * 9
        assert found[0].cosine == pytest.approx(planted, abs=0.02)
        assert (found[0].first, found[0].second) == ("b", "d")


def test_a_relation_that_is_given_is_no_bias() -> None:
    mined = relations(0.5)
    # Of its kind it is the only one, so that there is nothing to compare it with.
    alone = find_bias(mined, {("d", "b"): "positive"})
    assert not any(pair.suspected for pair in alone)
    assert np.isnan(alone[-1].divergence)
    assert alone[-1].given == "positive"
    # A pair that is said to be related, like two that are, but is not in the network, stands out.
    cosines = mined.cosines.copy()
    cosines[:, [0, 1]] += 0.5
    missing = AttributeRelations(mined.names, "layer", mined.pairs, cosines, mined.fidelity)
    positive = {
        ("a", "b"): "positive",
        ("a", "c"): "positive",
        ("b", "d"): "positive",
        ("d", "e"): "positive",
    }
    first = find_bias(missing, positive)[0]
    assert (first.first, first.second) == ("d", "e")
    assert first.suspected


def test_scenes_have_the_bias_asked_for() -> None:
    pixels, present = attribute_scenes(400, bias=PLANTED, side=8)
    assert pixels.shape == (400, 3, 8, 8)
    assert 0 <= float(pixels.min()) <= float(pixels.max()) <= 1
    wall, shape = (present[:, ALL[name]] for name in PLANTED)
    assert torch.equal(wall, shape)
    half = attribute_scenes(400, bias=PLANTED, strength=0.5, side=8)[1]
    assert float((half[:, ALL["warm wall"]] == half[:, ALL["round"]]).double().mean()) == pytest.approx(
        0.75, abs=0.07
    )
    free = np.corrcoef(attribute_scenes(400, side=8)[1].T.numpy())
    assert np.abs(free - np.eye(6)).max() < 0.2


def test_relations_are_read(tmp_path: Path) -> None:
    file = tmp_path / "relations.csv"
    file.write_text("first,second,relation\na,b,positive\nb,c,negative\n")
    assert read_relations(file) == {("a", "b"): "positive", ("b", "c"): "negative"}
    file.write_text("first,second,relation\na,b,maybe\n")
    with pytest.raises(InputError, match="'maybe'"):
        read_relations(file)
    file.write_text("first,second\na,b\n")
    with pytest.raises(InputError, match="no column 'relation'"):
        read_relations(file)
    with pytest.raises(InputError, match="no such file"):
        read_relations(tmp_path / "missing.csv")


def test_bad_input_is_refused() -> None:
    model, pixels = Known(), torch.rand(2, 3, 2, 2)
    three = {"a": 0, "b": 1, "c": 2}
    with pytest.raises(InputError, match="at least 3"):
        mine_relations(model, pixels, {"a": 0, "b": 1}, "feature")
    with pytest.raises(InputError, match="output 9"):
        mine_relations(model, pixels, three | {"d": 9}, "feature")
    with pytest.raises(InputError, match="'moon'"):
        mine_relations(model, pixels, three, "moon")
    with pytest.raises(InputError, match="noise"):
        mine_relations(model, pixels, three, "feature", noise=0)
    with pytest.raises(InputError, match="no attribute 'z'"):
        find_bias(relations(0), {("a", "z"): "none"})
    with pytest.raises(InputError, match="'often'"):
        find_bias(relations(0), {("a", "b"): "often"})
    with pytest.raises(InputError, match="bias 'moon'"):
        attribute_scenes(3, bias=("moon", "round"))
    assert not model.feature._forward_hooks
