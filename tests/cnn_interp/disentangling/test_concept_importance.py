import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from cnn_interp.disentangling.concept_importance import concept_importance
from cnn_interp.disentangling.concepts import Concepts, SparseSettings, find_concepts
from cnn_interp.disentangling.features import trunk_features
from cnn_interp.images.sets import Images
from cnn_interp.networks.network import Network
from interpretkit.errors import InputError

SPARSE = SparseSettings(active=2, epochs=2)


class Linear(nn.Module):
    """A layer of maps, their mean over positions, and a linear head: importance can be worked out by hand."""

    def __init__(self, bend: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.maps = nn.Sequential(nn.Conv2d(3, 6, 4, stride=4), nn.ReLU(inplace=True))
        self.head = nn.Linear(6, 3)
        self.bend = bend
        with torch.no_grad():
            for tensor in self.parameters():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.maps(x).mean(dim=(2, 3))
        return self.head(pooled.square() if self.bend else pooled)


def pictures(n=5):
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)
    return Images(name="noise", ids=tuple(map(str, range(n))), load=lambda number: drawn[number])


def weights(loaded) -> torch.Tensor:
    """Return the head's weights, to be read or changed in place."""
    return loaded.module.get_parameter("head.weight").detach()


def network(bend=False):
    return Network("linear", Linear(bend).eval(), size=16, resize=16)


@pytest.mark.parametrize("method", ["nmf", "sae", "pca"])
def test_of_a_linear_head_a_concept_is_worth_its_code_times_its_direction(method):
    loaded, images = network(), pictures()
    features = trunk_features(loaded, images, ["maps"])
    concepts = find_concepts(features["maps"], method, 4, sparse=SPARSE)
    found = concept_importance(loaded, concepts, images, 2, measure="sobol", designs=256)
    codes = concepts.maps(features["maps"]).mean(dim=(2, 3)).double().numpy()
    head = weights(loaded)[2].double().numpy()
    worth = codes * ((concepts.directions * concepts.scale) @ head)
    assert np.allclose(found.removal, worth, atol=1e-4)
    assert np.allclose(found.score - found.without, worth.sum(axis=1), atol=1e-4)
    # Of a sum of independent uniform terms, the shares of the squares.
    assert found.total is not None
    shares = worth**2 / (worth**2).sum(axis=1, keepdims=True)
    assert np.abs(found.total - shares).max() < 0.05
    left = found.score - found.rebuilt
    whole = (
        features["maps"].maps.mean(axis=(2, 3))
        - (codes @ concepts.directions + concepts.mean) * concepts.scale
    )
    assert np.allclose(left, whole @ head, atol=1e-4)


def test_interaction_counts_for_the_total_index_and_the_order_follows():
    loaded, images = network(bend=True), pictures()
    concepts = find_concepts(trunk_features(loaded, images, ["maps"])["maps"], "nmf", 3)
    found = concept_importance(loaded, concepts, images, 0, measure="sobol", designs=128)
    assert found.total is not None
    # Where terms multiply, total indices sum to more than 1.
    assert found.total.sum(axis=1).max() > 1
    assert np.array_equal(found.order, np.argsort(-found.total.mean(axis=0)))
    again = concept_importance(loaded, concepts, images, 0, measure="sobol", designs=128)
    assert again.total is not None
    assert np.array_equal(again.total, found.total)


def test_a_concept_that_the_output_does_not_see_is_worth_nothing_and_the_network_stays_as_it_was():
    loaded, images = network(), pictures()
    weights(loaded)[1] = 0
    weights(loaded)[1, 0] = 1
    features = trunk_features(loaded, images, ["maps"])
    plain = find_concepts(features["maps"], "nmf", 6)
    # One concept for each unit.
    one_by_one = dataclasses.replace(
        plain, directions=np.eye(6), encoder=type(plain.encoder).of(np.eye(6), plain.mean, {"steps": np.array(60)})
    )  # fmt: skip
    before = {name: tensor.clone() for name, tensor in loaded.module.state_dict().items()}
    loaded.module.train()
    found = concept_importance(loaded, one_by_one, images, 1, rows=[3, 1])
    assert found.removal.shape == (2, 6)
    assert np.allclose(found.removal[:, 1:], 0, atol=1e-6)
    assert (found.removal[:, 0] >= 0).all()
    assert found.total is None
    assert loaded.module.training
    assert not loaded.module.get_submodule("maps")._forward_hooks
    assert all(torch.equal(before[name], tensor) for name, tensor in loaded.module.state_dict().items())


def test_an_output_that_does_not_change_has_no_shares():
    loaded, images = network(), pictures()
    weights(loaded)[1] = 0
    concepts = find_concepts(trunk_features(loaded, images, ["maps"])["maps"], "nmf", 3)
    found = concept_importance(loaded, concepts, images, 1, measure="sobol", designs=8)
    assert found.total is not None
    assert np.isnan(found.total).all()
    assert found.mean.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"category": 7}, "category 7"),
        ({"rows": []}, "no images"),
        ({"measure": "guess"}, "guess"),
        ({"designs": 1}, "designs 1"),
    ],
)
def test_bad_input_in_one_line(change, said):
    loaded, images = network(), pictures()
    concepts: Concepts = find_concepts(trunk_features(loaded, images, ["maps"])["maps"], "nmf", 2)
    with pytest.raises(InputError, match=said) as caught:
        concept_importance(loaded, concepts, images, **({"category": 0} | change))
    assert "\n" not in str(caught.value)
