import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from part_planted import IMAGE, grid, planted

from cnn_interp.diagnosis.small_network import SmallNetwork
from cnn_interp.disentangling.features import LayerMaps, TrunkFeatures
from cnn_interp.disentangling.part_cells import (
    CellSettings,
    interpolation,
    layer_cells,
    learn_cells,
    mirror_images,
    mirrored,
    mirrored_features,
    part_cells,
    part_layers,
)
from cnn_interp.images.articulated import articulated_images
from cnn_interp.networks.loading import load_network
from cnn_interp.networks.network import Network
from interpretkit.errors import InputError


def features_of(**layers):
    return TrunkFeatures(layers, IMAGE, "made")


def loud(n=30, seed=0):
    """Units that go together and are of unlike loudness; the last never changes."""
    rng = np.random.default_rng(seed)
    maps = np.einsum("uv,nvhw->nuhw", rng.normal(size=(5, 5)) * [[1], [5], [20], [1], [1]], rng.normal(
        size=(n, 5, 14, 14)))  # fmt: skip
    return np.concatenate([maps, np.full((n, 1, 14, 14), 3.0)], axis=1).astype(np.float32)


def test_directions_are_of_variance_one_and_do_not_go_together():
    features = features_of(a=LayerMaps("a", loud(), grid()))
    encoder = learn_cells(features, ["a"], settings=CellSettings(ridge=1e-9, samples=10**6))
    cells = encoder.encode(features).flatten(0, 1).double()
    assert cells.shape[1] == 6
    assert torch.allclose(cells.mean(dim=0), torch.zeros(6, dtype=torch.float64), atol=1e-3)
    spread = cells.T @ cells / len(cells)
    # Five directions of what changes; the sixth is of the unit that never does.
    assert torch.allclose(spread[:5, :5], torch.eye(5, dtype=torch.float64), atol=2e-2)
    assert spread[5].abs().max() < 1e-6
    # How loud units are changes nothing but signs.
    louder = features_of(a=LayerMaps("a", loud() * np.array([9, 1, 1, 3, 1, 1])[:, None, None], grid()))
    again = learn_cells(louder, ["a"], settings=CellSettings(ridge=1e-9, samples=10**6)).encode(louder)
    few, same = cells[:50], again.flatten(0, 1).double()[:50]
    assert torch.allclose(torch.cdist(few, few), torch.cdist(same, same), atol=2e-2)


def test_roots_are_taken_of_what_is_nowhere_below_zero():
    positive, signed = np.abs(loud()), loud()
    features = features_of(a=LayerMaps("a", positive, grid()), b=LayerMaps("b", signed, grid()))
    encoder = learn_cells(features, ["a", "b"], settings=CellSettings(dimensions=3))
    assert [code.rooted for code in encoder.codes] == [True, False]
    assert encoder.dimensions == 6
    assert [len(weights) for weights in encoder.units(np.ones(6)).values()] == [6, 6]


def test_a_coarser_layer_is_interpolated_at_the_cells():
    fine = grid()
    coarse = grid(7, 32.0)
    # A map that rises by the pixel is the same at any grid.
    ramp = coarse.centres(np.arange(49))[:, 0].reshape(1, 1, 7, 7)
    cells = layer_cells(LayerMaps("c", ramp, coarse), np.array([0]), fine)[0, :, 0].numpy()
    rows = fine.centres(np.arange(196))[:, 0]
    assert np.allclose(cells, np.clip(rows, 15.5, 207.5))
    weights = interpolation(fine, [[20.0, 30.0]])[0].numpy()
    assert weights.sum() == pytest.approx(1)
    assert weights @ fine.centres(np.arange(196)) == pytest.approx((20.0, 30.0))


def test_mirror_images():
    images = articulated_images(3, side=32, negatives=0.0)
    other = mirror_images(images.subset([2, 0]))
    assert np.array_equal(other.image(0), images.image(2)[:, ::-1])
    assert mirrored([[3.0, 0.0]], (32, 40)).tolist() == [[3.0, 39.0]]
    twice = mirrored(mirrored(images.landmarks, (32, 32)), (32, 32))
    assert np.allclose(twice, images.landmarks, equal_nan=True)


def test_the_layers_of_a_network_and_its_cells():
    network = load_network("mobilenet_v2", weights="random", seed=1)
    assert part_layers(network) == ["features.14.conv.0", "features.13"]
    tiny = Network("tiny", SmallNetwork(3, 4, (4, 8, 8, 8)), size=32, resize=32)
    layers = part_layers(tiny)
    images = articulated_images(2, side=64, negatives=0.0)
    cells = part_cells(mirrored_features(tiny, images, layers), layers)
    height, width = cells.shape
    assert cells.vectors.shape[:3] == (2, 2, height * width)
    assert cells.subset([1]).vectors.shape[0] == 1
    assert cells.image == (32, 32)


def test_bad_input_in_one_line():
    features, _, _ = planted(n=6)
    with pytest.raises(InputError, match="0 layers"):
        learn_cells(features[0], [])
    with pytest.raises(InputError, match="layer 'absent'"):
        learn_cells(features[0], ["absent"])
    with pytest.raises(InputError, match="6 images and 5"):
        part_cells((features[0], features[1].subset(np.arange(5))), ["maps"])
    encoder = learn_cells(features[0], ["maps"])
    with pytest.raises(InputError, match="16, as were encoded"):
        encoder.encode(features_of(maps=LayerMaps("maps", loud(), grid())))
    with pytest.raises(InputError, match="dimensions"):
        CellSettings(dimensions=0)
    with pytest.raises(InputError, match="ridge"):
        CellSettings(ridge=0)
