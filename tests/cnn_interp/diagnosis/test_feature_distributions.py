from __future__ import annotations

import itertools

import numpy as np
import pytest

from cnn_interp.diagnosis.feature_distributions import SCENE_LEVELS, render_scenes, variance_shares
from interpretkit.disentanglement.datasets import SHAPES3D
from interpretkit.errors import InputError

NAMES = ("category", "viewpoint", "colour")
SIZES = (4, 5, 3)


@pytest.fixture
def factors() -> np.ndarray:
    return np.array(list(itertools.product(*map(range, SIZES))))


def effects(size: int, variance: float, seed: int, d: int = 8, rank: int = 8) -> np.ndarray:
    """Return centred effects ``(size, d)`` of a given variance."""
    rng = np.random.default_rng(seed)
    found = rng.standard_normal((size, min(rank, d))) @ rng.standard_normal((min(rank, d), d))
    found -= found.mean(0)
    return found * np.sqrt(variance / (found**2).sum(1).mean())


def test_planted_shares_are_found_exactly(factors: np.ndarray) -> None:
    planted = [
        effects(size, v, seed) for seed, (size, v) in enumerate(zip(SIZES, (5.0, 3.0, 2.0), strict=True))
    ]
    features = 7 + sum(effect[factors[:, i]] for i, effect in enumerate(planted))
    found = variance_shares(features, factors, NAMES)
    np.testing.assert_allclose(list(found.shares.values()), [0.5, 0.3, 0.2, 0], atol=1e-12)
    assert tuple(found.shares) == (*NAMES, "residual")
    assert found.total == pytest.approx(10)
    for effect, known in zip(found.factors, planted, strict=True):
        np.testing.assert_allclose(effect.effects, known, atol=1e-12)


def test_what_two_factors_do_together_is_residual(factors: np.ndarray) -> None:
    # An interaction without main effects: category × viewpoint, doubly centred.
    rng = np.random.default_rng(4)
    both = rng.standard_normal((SIZES[0], SIZES[1], 6))
    both -= both.mean(0) + both.mean(1, keepdims=True) - both.mean((0, 1))
    both *= np.sqrt(1.5 / (both**2).sum(-1).mean())
    features = both[factors[:, 0], factors[:, 1]] + effects(SIZES[2], 0.5, 5, d=6)[factors[:, 2]]
    found = variance_shares(features, factors)
    np.testing.assert_allclose(list(found.shares.values()), [0, 0, 0.25, 0.75], atol=1e-12)


def test_shares_do_not_depend_on_scale_offset_rotation_or_order(factors: np.ndarray) -> None:
    rng = np.random.default_rng(6)
    features = rng.standard_normal((len(factors), 8))
    base = variance_shares(features, factors)
    turn = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    order = rng.permutation(len(factors))
    other = variance_shares(3 * features[order] @ turn - 5, factors[order] * 10 + 2)
    np.testing.assert_allclose(list(base.shares.values()), list(other.shares.values()), atol=1e-12)
    for first, second in zip(base.factors, other.factors, strict=True):
        np.testing.assert_allclose(first.explained, second.explained, atol=1e-12)
        np.testing.assert_allclose(np.abs(first.coordinates), np.abs(second.coordinates / 3), atol=1e-9)


def test_one_factor_may_be_uneven() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    features = np.array([[1.0], [1], [1], [4], [4], [-11]])
    found = variance_shares(features, labels, ["category"])
    assert found.shares["category"] == pytest.approx(1)
    features[:3, 0] += [1, 0, -1]
    between = (3 * 1 + 2 * 16 + 121) / 6
    assert variance_shares(features, labels).shares["factor 0"] == pytest.approx(between / (between + 2 / 6))


def test_the_map_of_a_factor_shows_its_shape(factors: np.ndarray) -> None:
    # A circle of viewpoints in a plane of an eight-dimensional space.
    rng = np.random.default_rng(7)
    plane = np.linalg.qr(rng.standard_normal((8, 2)))[0]
    angle = 2 * np.pi * factors[:, 1] / SIZES[1]
    features = np.stack([np.cos(angle), np.sin(angle)], axis=1) @ plane.T
    viewpoint = variance_shares(features, factors, NAMES).factors[1]
    assert viewpoint.dimensions == 2
    np.testing.assert_allclose(np.linalg.norm(viewpoint.coordinates[:, :2], axis=1), 1)
    np.testing.assert_allclose(viewpoint.explained[:2], 0.5)
    # Distances between the means are those between their coordinates.
    gap = np.linalg.norm(viewpoint.effects[0] - viewpoint.effects[2])
    assert np.linalg.norm(viewpoint.coordinates[0] - viewpoint.coordinates[2]) == pytest.approx(gap)


def test_scenes_show_all_combinations() -> None:
    images, factors = render_scenes({"shape": 4, "orientation": 3, "object_hue": 2})
    assert images.shape == (24, 64, 64, 3)
    assert len(np.unique(factors, axis=0)) == 24
    assert len(np.unique(images.reshape(24, -1), axis=0)) == 24
    shares = variance_shares(images.reshape(24, -1).astype(float), factors, SHAPES3D.names).shares
    assert shares["object_hue"] > 0.1
    assert shares["floor_hue"] == pytest.approx(0, abs=1e-12)
    assert np.prod(list(SCENE_LEVELS.values())) == 480


def test_bad_input_is_refused(factors: np.ndarray) -> None:
    x = np.random.default_rng(0).standard_normal((len(factors), 3))
    with pytest.raises(InputError, match="viewpoint and colour are not crossed"):
        variance_shares(x[:-1], factors[:-1, 1:], NAMES[1:])
    with pytest.raises(InputError, match="not crossed"):
        variance_shares(x, factors[:, [0, 0]])
    with pytest.raises(InputError, match="do not vary"):
        variance_shares(np.ones_like(x), factors)
    with pytest.raises(InputError, match="features"):
        variance_shares(x * np.nan, factors)
    with pytest.raises(InputError, match="factors: float"):
        variance_shares(x, factors / 2)
    with pytest.raises(InputError, match="names"):
        variance_shares(x, factors, ["category"])
    with pytest.raises(InputError, match="no factor 'moon'"):
        render_scenes({"moon": 2})
    with pytest.raises(InputError, match="9 of shape"):
        render_scenes({"shape": 9})
