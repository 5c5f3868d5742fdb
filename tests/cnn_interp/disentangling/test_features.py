import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cnn_interp.disentangling import features
from cnn_interp.disentangling.features import trunk_features
from cnn_interp.images.batches import network_inputs
from cnn_interp.images.sets import Images
from cnn_interp.networks.network import Network
from cnn_interp.units.positions import unit_grids
from interpretkit.errors import InputError
from interpretkit.networks.receptive_fields import receptive_field
from interpretkit.networks.recording import layer_outputs

LAYERS = ["0", "2"]


def small_network(seed=0):
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 5, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    return Network("small", module, size=32)


def pictures(n=21, seed=0):
    stack = np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    return Images(name="noise", ids=tuple(map(str, range(n))), load=lambda i: stack[i])


def untouched(network):
    def refuse(*_):
        raise AssertionError("the network ran")

    network.module.register_forward_pre_hook(refuse)
    return network


@pytest.mark.parametrize("folder", [None, "cache"])
def test_maps_are_the_layers_own(tmp_path, folder):
    network, images = small_network(), pictures()
    found = trunk_features(network, images, LAYERS, folder and tmp_path / folder)
    _, expected = layer_outputs(network.module, network_inputs(network, images, range(21)), LAYERS)
    for layer in LAYERS:
        assert np.allclose(found[layer].maps, expected[layer].numpy(), atol=1e-6)
        field = receptive_field(network.module, layer, torch.zeros(1, 3, 32, 32))
        assert found[layer].grid.field == field
        assert found[layer].positions[1].tolist() == field.centres([0, 1]).tolist()
    assert found.image == (32, 32)


def test_what_is_kept_is_not_computed_again_and_only_what_is_missing_is(tmp_path):
    images = pictures()
    first = trunk_features(small_network(), images, ["0"], tmp_path)
    again = trunk_features(untouched(small_network()), images, ["0"], tmp_path)
    assert np.array_equal(first["0"].maps, again["0"].maps)
    assert again["0"].grid == first["0"].grid
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("0-*.npy")}
    both = trunk_features(small_network(), images, LAYERS, tmp_path)
    assert both["2"].units == 5
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("0-*.npy")} == before


def test_where_units_look_is_measured_once_for_a_network_and_anew_for_another(monkeypatch):
    asked = []

    def counted(module, layers, inputs):
        asked.append(tuple(layers))
        return unit_grids(module, layers, inputs)

    monkeypatch.setattr(features, "_MEASURED", {})
    monkeypatch.setattr(features, "unit_grids", counted)
    for seed in (0, 1):
        trunk_features(small_network(), pictures(seed=seed), ["0"])
    trunk_features(small_network(), pictures(seed=2), LAYERS)
    assert asked == [("0",), ("2",)]
    wider = small_network()
    first = next(wider.module.children())
    assert isinstance(first, nn.Conv2d)
    first.dilation, first.padding = (3, 3), (3, 3)
    found = trunk_features(wider, pictures(), ["0"])["0"].grid.field
    assert found == receptive_field(wider.module, "0", torch.zeros(1, 3, 32, 32))
    assert found.size == (7, 7)
    assert len(asked) == 3


@pytest.mark.parametrize("what", ["weights", "pixels", "normalisation", "number"])
def test_whatever_changes_the_maps_changes_the_key(tmp_path, what):
    network, images = small_network(), pictures()
    first = trunk_features(network, images, ["0"], tmp_path)
    if what == "weights":
        with torch.no_grad():
            network.module.get_parameter("2.bias")[0] += 1e-3
    elif what == "pixels":
        changed = np.stack([images.image(i) for i in range(21)])
        changed[20, 31, 31, 2] ^= 1
        images = dataclasses.replace(images, load=lambda i: changed[i])
    elif what == "normalisation":
        network = dataclasses.replace(network, mean=(0.0, 0.0, 0.0))
    else:
        images = images.subset(np.arange(20))
    assert trunk_features(network, images, ["0"], tmp_path).key != first.key


def test_a_damaged_file_is_computed_anew(tmp_path):
    images = pictures()
    first = trunk_features(small_network(), images, ["0"], tmp_path)
    expected = np.array(first["0"].maps)
    file = next(tmp_path.rglob("0-*.npy"))
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[: len(content) // 2])
    assert np.array_equal(trunk_features(small_network(), images, ["0"], tmp_path)["0"].maps, expected)


def test_a_failed_pass_leaves_no_maps(tmp_path):
    images = pictures()

    def broken(index):
        if index == 20:
            raise InputError("picture 20: damaged")
        return images.image(index)

    calls = iter([*range(21), 20])
    bad = dataclasses.replace(images, load=lambda i: images.image(i) if next(calls) == i else broken(20))
    with pytest.raises(InputError, match="damaged"):
        trunk_features(small_network(), bad, ["0"], tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_half_precision_has_three_digits(tmp_path):
    images = pictures()
    full = trunk_features(small_network(), images, ["0"], tmp_path)["0"]
    half = trunk_features(small_network(), images, ["0"], tmp_path, precision="float16")["0"]
    assert half.maps.dtype == np.float16
    assert np.allclose(half.tensor(), full.tensor(), rtol=1e-3, atol=1e-3)


def test_normalised_responses_have_unit_spread_and_none_below_zero():
    found = trunk_features(small_network(), pictures(), LAYERS)["2"]
    rows = np.array([3, 5, 8])
    scale = found.unit_scale(rows)
    assert np.allclose(scale, found.maps[rows].std(axis=(0, 2, 3)), rtol=1e-5)
    assert np.allclose(scale, found.unit_scale(np.isin(np.arange(21), rows)))
    expected = np.maximum(found.maps[[7, 1]], 0) / scale[:, None, None]
    assert np.allclose(found.normalised(scale, [7, 1]), expected, rtol=1e-5)
    assert np.allclose(found.normalised(scale, [7, 1], slice(2, 4)), expected[:, 2:4], rtol=1e-5)


def test_a_unit_that_never_changes_is_divided_by_one():
    network = small_network()
    with torch.no_grad():
        network.module.get_parameter("2.weight")[1] = 0
        network.module.get_parameter("2.bias")[1] = 0.7
    assert trunk_features(network, pictures(), ["2"])["2"].unit_scale()[1] == 1


def test_subset_keeps_order():
    found = trunk_features(small_network(), pictures(), LAYERS)
    some = found.subset([4, 2])
    assert len(some) == 2
    assert np.array_equal(some["0"].maps, found["0"].maps[[4, 2]])
    assert some.key != found.key


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layers": []}, "layers"),
        ({"layers": ["9"]}, "9"),
        ({"layers": ["4"]}, "4"),
        ({"precision": "int8"}, "precision 'int8'"),
        ({"images": pictures().subset(np.arange(0))}, "no images"),
    ],
)
def test_bad_input_in_one_line(tmp_path, change, said):
    given = {"images": pictures(), "layers": ["0"], "folder": tmp_path} | change
    with pytest.raises(InputError, match=said) as caught:
        trunk_features(small_network(), **given)
    assert "\n" not in str(caught.value)
    assert not list(Path(tmp_path).rglob("*.npy"))
