from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor, nn

from cnn_interp.diagnosis.directions import compare_directions, rotated
from cnn_interp.diagnosis.layer_features import pooled_features
from interpretkit.errors import InputError

CONCEPTS = 24


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, np.ndarray]:
    """Return noisy features whose units each tell one group of images, and the images' groups."""
    rng = np.random.default_rng(0)
    groups = np.arange(600) % CONCEPTS
    return np.eye(CONCEPTS)[groups] + 0.25 * rng.standard_normal((600, CONCEPTS)), groups


@pytest.mark.parametrize("kind", ["attributes", "reference"])
def test_units_that_are_concepts_beat_random_directions(planted, kind: str) -> None:
    features, groups = planted
    given: dict[str, Any] = (
        {"attributes": groups} if kind == "attributes" else {"reference": np.eye(CONCEPTS)[groups]}
    )
    found = compare_directions(features, directions=200, **given)
    assert found.interval[0] > 0
    assert found.superiority_interval[0] > 0.8
    assert found.units.mean() > found.random.mean() > found.chance
    if kind == "attributes":
        # A unit's strongest images are nearly all of its group; agreement on one of 24 groups is worth log2 24 bits.
        assert found.units.mean() > 0.9 * np.log2(CONCEPTS)
        assert found.units.max() <= np.log2(CONCEPTS) + 1e-9
        assert (found.attributes == 0).all()
    else:
        assert (found.attributes == -1).all()


def test_after_a_rotation_no_unit_is_special(planted) -> None:
    features, groups = planted
    inside = 0
    for seed in range(6):
        turned = rotated(features, seed=seed)
        # A rotation keeps the space: distances between images are as they were.
        np.testing.assert_allclose(
            np.linalg.norm(turned[0] - turned[1:9], axis=1),
            np.linalg.norm(features[0] - features[1:9], axis=1),
        )
        found = compare_directions(turned, attributes=groups, directions=200, seed=seed)
        inside += found.interval[0] <= 0 <= found.interval[1]
        assert abs(found.superiority - 0.5) < 0.2
    assert inside >= 4


def test_purity_of_known_sets() -> None:
    # Two units; the strongest images of the first have one value, those of the second half and half.
    attribute = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    features = np.zeros((8, 2))
    features[:4, 0] = [4, 3, 2, 1]
    features[[0, 1, 4, 5], 1] = [4, 3, 2, 1]
    found = compare_directions(features, attributes=attribute, top=4, directions=10)
    np.testing.assert_allclose(found.units, [1, 0], atol=1e-12)
    assert found.unit_images.tolist() == [[0, 1, 2, 3], [0, 1, 4, 5]]


def test_sharing_something_rare_tells_more_than_lacking_it() -> None:
    attribute = np.array([1, 1, 0, 0, 0, 0, 0, 0])
    features = np.zeros((8, 2))
    features[:2, 0] = [2, 1]
    features[2:4, 1] = [2, 1]
    found = compare_directions(features, attributes=attribute, top=2, directions=10)
    np.testing.assert_allclose(found.units, [np.log2(4), np.log2(4 / 3)])


def test_similarity_is_the_mean_over_pairs() -> None:
    rng = np.random.default_rng(1)
    features, reference = rng.standard_normal((30, 5)), rng.standard_normal((30, 7))
    found = compare_directions(features, reference=reference, top=4, directions=10)
    centred = reference - reference.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    for purity, rows in zip(found.units, found.unit_images, strict=True):
        pairs = [unit[a] @ unit[b] for i, a in enumerate(rows) for b in rows[i + 1 :]]
        assert purity == pytest.approx(np.mean(pairs))


def test_chance_is_that_of_random_images() -> None:
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((400, 60))
    found = compare_directions(noise, attributes=rng.integers(4, size=(400, 3)), directions=300)
    assert found.units.mean() == pytest.approx(found.chance, abs=0.05)
    assert found.random.mean() == pytest.approx(found.chance, abs=0.05)


def test_superiority_is_mann_whitneys_statistic() -> None:
    rng = np.random.default_rng(5)
    features, labels = rng.standard_normal((80, 12)), rng.integers(3, size=80)
    found = compare_directions(features, attributes=labels, top=6, directions=30)
    u = mannwhitneyu(found.units, found.random).statistic
    assert found.superiority == pytest.approx(u / (len(found.units) * 30))
    assert found.superiority_interval[0] < found.superiority < found.superiority_interval[1]


def test_dead_units_are_left_out() -> None:
    rng = np.random.default_rng(3)
    features = np.maximum(rng.standard_normal((40, 4)), 0)
    features[:, 1] = 0
    features[3:, 2] = 0
    found = compare_directions(features, attributes=rng.integers(3, size=40), top=5, directions=10)
    assert found.unit_numbers.tolist() == [0, 3]


def test_the_same_seed_gives_the_same_result(planted) -> None:
    features, groups = planted
    first, second = (compare_directions(features, attributes=groups, directions=20) for _ in range(2))
    assert first.interval == second.interval
    np.testing.assert_array_equal(first.random, second.random)


def test_bad_input_is_refused() -> None:
    x, y = np.random.default_rng(0).standard_normal((20, 3)), np.arange(20) % 2
    for mentions, options in {
        "just one": {},
        "just one ": {"attributes": y, "reference": x},
        "top 15": {"attributes": y, "top": 15},
        "directions 1": {"attributes": y, "directions": 1},
        "attributes: float": {"attributes": y / 2},
        "all images have the same": {"attributes": np.zeros(20, dtype=int)},
        "reference: 3 rows": {"reference": x[:3]},
    }.items():
        with pytest.raises(InputError, match=mentions.strip()):
            compare_directions(x, **options)
    with pytest.raises(InputError, match="features"):
        compare_directions(x * np.nan, attributes=y)
    with pytest.raises(InputError, match="no unit"):
        compare_directions(np.zeros((20, 3)), attributes=y, top=2)


def test_tokens_are_pooled_over_their_places() -> None:
    class Tokens(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(2).transpose(1, 2)

    module = nn.Sequential(nn.Conv2d(3, 5, 1), Tokens())
    pixels = torch.rand(2, 3, 4, 4)
    found = pooled_features(module, pixels, ["0", "1"])
    assert found["1"].shape == (2, 5)
    np.testing.assert_allclose(found["1"], found["0"], rtol=1e-5)
