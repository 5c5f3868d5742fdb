import dataclasses

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from cnn_interp.disentangling.concepts import METHODS, SparseSettings, concepts_from, find_concepts
from cnn_interp.disentangling.features import LayerMaps
from cnn_interp.units.positions import UnitGrid
from interpretkit.errors import InputError
from interpretkit.networks.receptive_fields import ReceptiveField

FAST = SparseSettings(active=2, epochs=60, batch_size=256, learning_rate=1e-2)


def layer(maps):
    field = ReceptiveField("x", (8.0, 8.0), (8.0, 8.0), (3.5, 3.5), maps.shape[2:])
    return LayerMaps("x", maps.astype(np.float32), UnitGrid(field, (32, 32)))


def planted(n=60, concepts=5, units=12, active=0.15, seed=0):
    """Maps that are sparse non-negative codes times directions, and the directions (concepts, units)."""
    rng = np.random.default_rng(seed)
    directions = rng.random((concepts, units)) * (rng.random((concepts, units)) < 0.4)
    directions[np.arange(concepts), np.arange(concepts) % units] = 1
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    codes = rng.gamma(2, 1, (n, concepts, 4, 4)) * (rng.random((n, concepts, 4, 4)) < active)
    return layer(np.einsum("nkhw,ku->nuhw", codes, directions)), directions, codes


def learned(method, features, count=5, **more):
    return find_concepts(features, method, count, scale=np.ones(features.units), sparse=FAST, **more)


@pytest.mark.parametrize("method", ["nmf", "sae", "ica"])
def test_planted_concepts_are_found(method):
    features, directions, codes = planted()
    # Sparse codes may be more than the concepts are.
    found = learned(method, features, 8 if method == "sae" else 5)
    likeness = np.abs(
        directions @ (found.directions / np.linalg.norm(found.directions, axis=1, keepdims=True)).T
    )
    assert likeness.max(axis=1).min() > 0.9
    # Each planted concept has one of its own.
    assert len(set(likeness.argmax(axis=1))) == 5
    maps = found.maps(features).numpy()
    for concept, place in enumerate(likeness.argmax(axis=1)):
        assert np.corrcoef(maps[:, place].ravel(), codes[:, concept].ravel())[0, 1] > 0.9
    assert found.unexplained(features) < 0.1


def test_principal_components_leave_the_least():
    features, _, _ = planted()
    found = learned("pca", features, 3)
    x = features.maps.transpose(0, 2, 3, 1).reshape(-1, 12)
    values = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
    assert found.unexplained(features) == pytest.approx(values[3:].sum() / values.sum(), rel=1e-3)
    for method in ("nmf", "ica"):
        assert learned(method, features, 3).unexplained(features) > found.unexplained(features) - 1e-4
    assert learned("pca", features, 12).unexplained(features) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_and_images_alone_the_same_as_together(method):
    features, _, _ = planted(seed=3)
    first, again = (learned(method, features, seed=4) for _ in range(2))
    assert np.array_equal(first.directions, again.directions)
    whole = first.maps(features)
    assert whole.shape == (60, 5, 4, 4)
    assert torch.allclose(first.maps(features, [7, 2]), whole[[7, 2]], atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_scaled_units_change_nothing_when_the_scale_is_theirs(method):
    features, _, _ = planted(seed=5)
    factors = np.linspace(0.5, 20, 12)
    scaled = layer(features.maps * factors[:, None, None])
    plain = find_concepts(features, method, 5, sparse=FAST)
    other = find_concepts(scaled, method, 5, sparse=FAST)
    assert np.allclose(plain.scale * factors, other.scale, rtol=1e-4)
    assert plain.unexplained(features) == pytest.approx(other.unexplained(scaled), abs=0.02)


def test_codes_of_non_negative_factors_are_the_least_squares():
    features, _, _ = planted()
    found = learned("nmf", features)
    maps = found.maps(features, slice(0, 5)).permute(0, 2, 3, 1).reshape(-1, 5).numpy()
    x = features.maps[:5].transpose(0, 2, 3, 1).reshape(-1, 12)
    for codes, row in zip(maps, x, strict=True):
        best = nnls(found.directions.T, row.astype(float))[1]
        assert np.linalg.norm(found.directions.T @ codes - row) <= best + 0.02 * max(
            np.linalg.norm(row), 1e-6
        )


def test_a_position_has_no_more_sparse_codes_than_asked_for():
    features, _, _ = planted()
    found = learned("sae", features, 20)
    codes = found.maps(features)
    assert int((codes > 0).sum(dim=1).max()) <= 2
    assert bool((codes >= 0).all())
    assert np.allclose(np.linalg.norm(found.directions, axis=1), 1)
    assert found.dead.tolist() == (codes.amax(dim=(0, 2, 3)) == 0).tolist()


def test_dead_codes_are_revived():
    features, _, _ = planted(n=60, concepts=40, units=24, active=0.05)

    without = dataclasses.replace(FAST, revival=0.0, epochs=30)
    with_ = dataclasses.replace(FAST, revival=0.1, epochs=30, patience=5)
    revived, left = (
        find_concepts(features, "sae", 60, scale=np.ones(24), sparse=settings).dead.sum()
        for settings in (with_, without)
    )
    assert revived < left


def test_components_are_skewed_upwards():
    features, _, _ = planted()
    for method in ("pca", "ica"):
        codes = learned(method, features).maps(features).double().transpose(0, 1).flatten(1)
        assert bool((((codes - codes.mean(dim=1, keepdim=True)) ** 3).mean(dim=1) >= -1e-6).all())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "svd"}, "method 'svd'"),
        ({"count": 13}, "count 13"),
        ({"count": 0}, "count 0"),
        ({"rows": []}, "rows"),
        # Of 12 units that five directions make up.
        ({"method": "ica", "count": 6}, "5 directions"),
    ],
)
def test_bad_input_in_one_line(change, said):
    features, _, _ = planted()
    with pytest.raises(InputError, match=said) as caught:
        find_concepts(features, **({"method": "nmf", "count": 3} | change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_read_back_they_give_the_same(method, tmp_path):
    features, _, _ = planted()
    found = learned(method, features)
    np.savez(tmp_path / "concepts.npz", **found.arrays())  # type: ignore[arg-type]
    with np.load(tmp_path / "concepts.npz", allow_pickle=False) as file:
        again = concepts_from(dict(file))
    assert torch.allclose(again.maps(features), found.maps(features), atol=1e-5)
    assert again.unexplained(features) == pytest.approx(found.unexplained(features), abs=1e-6)
    with pytest.raises(InputError, match="no concepts"):
        concepts_from({name: array for name, array in found.arrays().items() if name != "method"})
