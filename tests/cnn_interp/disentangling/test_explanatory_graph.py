import dataclasses
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch

from cnn_interp.disentangling.explanatory_graph import (
    PUBLISHED,
    GraphSettings,
    crop,
    learn_graph,
    load_graph,
)
from cnn_interp.disentangling.features import LayerMaps, TrunkFeatures, trunk_features
from cnn_interp.images import articulated_images
from cnn_interp.metrics.location_instability import location_instability
from cnn_interp.networks.loading import load_network
from cnn_interp.units.positions import UnitGrid
from interpretkit.errors import InputError
from interpretkit.networks.receptive_fields import ReceptiveField

IMAGE = (224, 224)
SIDE, STRIDE = 14, 16.0
SETTINGS = GraphSettings(parents=2, rounds=2, nodes_per_filter=(1, 2), iterations=8, still=0.0)


def grid(layer, side=SIDE, stride=STRIDE):
    field = ReceptiveField(
        layer, (40.0, 40.0), (stride, stride), ((stride - 1) / 2, (stride - 1) / 2), (side, side)
    )
    return UnitGrid(field, IMAGE)


def bumps(places, width=14.0):
    """Responses (n, h, w) about places (n, 2), px."""
    centres = grid("x").centres(np.arange(SIDE * SIDE))
    square = ((centres[None] - places[:, None]) ** 2).sum(axis=2)
    return np.exp(-square / (2 * width**2)).reshape(-1, SIDE, SIDE)


def planted(n=120, seed=0):
    """Objects that move as a whole, each with a head and a tail that move by themselves as well.

    The higher layer has three filters for each part and one of noise; the lower layer one that answers to head and tail
    alike, in each image to one of them more strongly.
    """
    rng = np.random.default_rng(seed)
    body = 112 + rng.normal(0, 14, (n, 2))
    head = body - (45, 40) + rng.normal(0, 9, (n, 2))
    tail = body - (-40, -45) + rng.normal(0, 9, (n, 2))

    def noise():
        return (0.12 * rng.standard_normal((n, SIDE, SIDE)) - 0.12).clip(0)

    upper = np.stack(
        [*(bumps(part) + noise() for part in (head, head, head, tail, tail, tail)), 6 * noise()], axis=1
    )
    which = rng.random(n)[:, None, None]
    mixed = (0.4 + 0.6 * which) * bumps(head) + (1 - 0.6 * which) * bumps(tail) + noise()
    layers = {
        "upper": LayerMaps("upper", upper.astype(np.float32), grid("upper")),
        "lower": LayerMaps("lower", mixed[:, None].astype(np.float32), grid("lower")),
    }
    return TrunkFeatures(layers, IMAGE, f"planted {seed}"), np.stack([head, tail], axis=1)


def tracked(places, parts):
    found = location_instability(places.values, places.positions, parts, IMAGE)
    return found.tracking[0], found.instability[0]


def peaks(maps):
    flat = maps.maps.reshape(*maps.maps.shape[:2], -1)
    return flat.max(axis=2), maps.grid.centres(flat.argmax(axis=2))


def test_parts_mixed_in_a_filter_come_out_as_nodes():
    features, parts = planted()
    graph = learn_graph(features, ["upper", "lower"], settings=SETTINGS)
    raw = location_instability(*peaks(features["lower"]), parts, IMAGE, top=120)
    # The filter itself jumps from one part to the other.
    assert raw.tracking.max() < 0
    fresh, new_parts = planted(seed=1)
    for maps, where in ((features, parts), (fresh, new_parts)):
        tracking, instability = tracked(graph.locate(maps)["lower"], where)
        # One node for each part, on images that it was learned from and on new ones.
        assert sorted(tracking.argmax(axis=1).tolist()) == [0, 1]
        assert tracking.max(axis=1).min() > 0.85
        assert instability.min(axis=1).max() < 0.4 * raw.instability.min()


def test_parents_are_the_nodes_that_move_alike():
    features, parts = planted()
    graph = learn_graph(features, ["upper", "lower"], settings=SETTINGS)
    head, tail = tracked(graph.locate(features)["lower"], parts)[0].argmax(axis=1)
    lower = graph.last("lower")
    # Filters 0 to 2 of the layer above are the head's, 3 to 5 the tail's, 6 is noise.
    assert sorted(graph.last("upper").filters[lower.parents[head]].tolist()) in ([0, 1], [0, 2], [1, 2])
    assert sorted(graph.last("upper").filters[lower.parents[tail]].tolist()) in ([3, 4], [3, 5], [4, 5])
    # In the second round of the highest layer a filter's parents are the other ones of its part, never itself.
    upper = graph.last("upper")
    found = [sorted(upper.filters[row].tolist()) for row in upper.parents[:6]]
    assert found == [[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4]]


def test_deviations_and_homes_are_those_planted():
    features, parts = planted(400)
    graph = learn_graph(
        features, ["upper"], settings=dataclasses.replace(SETTINGS, rounds=1, nodes_per_filter=1)
    )
    nodes = graph.last("upper")
    assert np.abs(nodes.homes[0] - parts[:, 0].mean(axis=0)).max() < 6
    assert np.abs(nodes.homes[3] - parts[:, 1].mean(axis=0)).max() < 6
    # Objects move by 14 px, parts by 9, and a response is 14 px wide: 22 px, of which the background takes the tails.
    assert 14 < nodes.deviations[0] < 26
    assert nodes.parents.shape == (7, 0)
    assert (nodes.explained <= 1 + 1e-6).all()


def test_as_published_a_node_is_at_a_position_of_the_map_near_its_expected_place():
    features, _ = planted()
    settings = dataclasses.replace(PUBLISHED, nodes_per_filter=2, parents=2)
    graph = learn_graph(features, ["upper", "lower"], settings=settings)
    places = graph.locate(features)["lower"]
    seen = places.values > 0
    assert np.allclose(places.positions[seen], features["lower"].grid.centres(places.cells)[seen], atol=1e-3)
    assert np.abs(places.positions - places.expected)[seen].max() <= 0.15 * 224 + 1e-3
    assert np.array_equal(places.positions[~seen], places.expected[~seen])


def test_the_same_seed_gives_the_same_graph_and_another_another():
    features, _ = planted()
    first, again, other = (
        learn_graph(features, ["upper", "lower"], settings=SETTINGS, seed=s) for s in (3, 3, 4)
    )
    for a, b in zip(first.levels, again.levels, strict=True):
        assert np.array_equal(a.means, b.means)
        assert np.array_equal(a.parents, b.parents)
    assert not np.array_equal(first.last("lower").means, other.last("lower").means)


def test_moving_every_object_moves_the_nodes():
    features, _ = planted()
    moved = {
        name: dataclasses.replace(maps, maps=np.roll(maps.maps, (0, 1), axis=(2, 3)))
        for name, maps in features.layers.items()
    }
    graph = learn_graph(features, ["upper"], settings=dataclasses.replace(SETTINGS, nodes_per_filter=1))
    shifted = learn_graph(
        dataclasses.replace(features, layers=moved), ["upper"],
        settings=dataclasses.replace(SETTINGS, nodes_per_filter=1),
    )  # fmt: skip
    assert np.abs(shifted.last("upper").homes[:6] - graph.last("upper").homes[:6] - [0, 16]).max() < 2


def test_resumed_learning_ends_with_the_same_graph(tmp_path, monkeypatch):
    features, _ = planted()
    whole = learn_graph(features, ["upper", "lower"], settings=SETTINGS)
    from cnn_interp.disentangling import explanatory_graph

    learned, calls = explanatory_graph._learned, []

    def counted(*arguments):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(arguments)
        return learned(*arguments)

    monkeypatch.setattr(explanatory_graph, "_learned", counted)
    with pytest.raises(KeyboardInterrupt):
        learn_graph(features, ["upper", "lower"], settings=SETTINGS, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["level-00.npz"]
    monkeypatch.setattr(explanatory_graph, "_learned", learned)
    resumed = learn_graph(features, ["upper", "lower"], settings=SETTINGS, folder=tmp_path)
    for a, b in zip(whole.levels, resumed.levels, strict=True):
        assert np.array_equal(a.means, b.means)
        assert np.array_equal(a.parents, b.parents)
    # Other settings, seeds or images never meet what was kept.
    monkeypatch.setattr(explanatory_graph, "_learned", counted)
    changes: list[dict[str, Any]] = [
        {"seed": 1},
        {"rows": np.arange(100)},
        {"scale_rows": np.arange(50)},
    ]
    for change in changes:
        with pytest.raises(KeyboardInterrupt):
            learn_graph(features, ["upper", "lower"], settings=SETTINGS, folder=tmp_path, **change)


def test_saved_and_loaded_it_locates_the_same(tmp_path):
    features, _ = planted()
    graph = learn_graph(features, ["upper", "lower"], settings=SETTINGS, seed=2)
    graph.save(tmp_path / "graph")
    loaded = load_graph(tmp_path / "graph")
    assert loaded.settings == graph.settings
    for name, places in graph.locate(features).items():
        assert np.array_equal(loaded.locate(features)[name].positions, places.positions)
    read = nx.read_graphml(tmp_path / "graph" / "graph.graphml")
    assert read.number_of_nodes() == sum(map(len, graph.levels)) == 7 + 7 + 2
    assert read.number_of_edges() == sum(level.parents.size for level in graph.levels) == 14 + 4
    lower = graph.last("lower")
    assert read.nodes["lower/1"]["row"] == pytest.approx(lower.homes[1, 0])
    assert set(read.predecessors("lower/1")) == {f"upper/{parent}" for parent in lower.parents[1]}


def test_a_damaged_folder_is_told_in_one_line(tmp_path):
    features, _ = planted(20)
    learn_graph(features, ["upper"], settings=dataclasses.replace(SETTINGS, nodes_per_filter=1)).save(
        tmp_path
    )
    (tmp_path / "level-01.npz").write_bytes(b"PK")
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match=str(folder)) as caught:
            load_graph(folder)
        assert "\n" not in str(caught.value)


def test_images_located_in_portions_are_located_alike(monkeypatch):
    features, _ = planted(30)
    graph = learn_graph(features, ["upper", "lower"], settings=SETTINGS)
    whole = graph.locate(features)
    monkeypatch.setattr("cnn_interp.disentangling.explanatory_graph._RESPONSES_AT_ONCE", 7 * SIDE * SIDE * 8)
    for name, places in graph.locate(features).items():
        assert np.allclose(places.positions, whole[name].positions, atol=1e-3)
        assert np.array_equal(places.cells, whole[name].cells)
        assert len(places.values) == 30


def test_parts_of_articulated_objects_mixed_in_a_filter_come_out_as_nodes():
    # What a filter would give that answers to head and tail alike, by the exact masks of drawn objects.
    images = articulated_images(150, seed=2, side=112, negatives=0.0, categories=["quadruped"], occlusion=0.0)
    names = list(images.part_names)
    mixed = [names.index("head"), names.index("tail")]
    # Those that face one way: the halves of a mirrored set would be parts of their own.
    head, tail = np.moveaxis(images.landmarks[:, mixed, 1], 1, 0)
    images = images.subset(np.flatnonzero(head < tail - 20))
    n, parts = len(images), len(names)
    masks = np.stack([images.masks(row) for row in range(n)])
    cells = masks.reshape(n, parts, SIDE, 8, SIDE, 8).mean(axis=(3, 5))
    rng = np.random.default_rng(0)
    lower = (cells[:, mixed] * rng.uniform(0.4, 1, (n, 2, 1, 1))).max(axis=1, keepdims=True)
    upper = np.repeat(cells, 2, axis=1) * rng.uniform(0.5, 1, (n, 2 * parts, SIDE, SIDE))
    layers = {
        "upper": LayerMaps("upper", upper.astype(np.float32), grid("upper")),
        "lower": LayerMaps("lower", lower.astype(np.float32), grid("lower")),
    }
    features = TrunkFeatures(layers, IMAGE, "articulated")
    landmarks = 2 * images.landmarks[:, mixed] + 0.5
    graph = learn_graph(features, ["upper", "lower"], settings=SETTINGS)
    tracking = tracked(graph.locate(features)["lower"], landmarks)[0]
    raw = location_instability(*peaks(features["lower"]), landmarks, IMAGE)
    assert raw.tracking.max() < 0.3
    assert sorted(tracking.argmax(axis=1).tolist()) == [0, 1]
    assert tracking.max(axis=1).min() > 0.85


def test_node_maps_share_out_the_filters_responses():
    features, _ = planted(30)
    graph = learn_graph(features, ["upper", "lower"], settings=SETTINGS)
    places = graph.locate(features)["lower"]
    level = graph.last("lower")
    maps = graph.node_maps(level, features, places, np.arange(30))
    responses = features["lower"].normalised(level.scale)
    assert maps.shape == (30, 2, SIDE, SIDE)
    assert bool((maps >= 0).all())
    assert bool((maps.sum(dim=1, keepdim=True) <= responses + 1e-4).all())
    assert float(maps.sum() / responses.sum()) > 0.7
    one = graph.node_maps(level, features, places, [4, 2], [1])
    assert torch.allclose(one, maps[[4, 2]][:, [1]], atol=1e-6)


def test_patches_show_where_a_node_is_strongest():
    features, _ = planted(30)
    graph = learn_graph(features, ["upper", "lower"], settings=SETTINGS)
    places = graph.locate(features)["lower"]
    patches = graph.patches(graph.last("lower"), places, [1, 0], count=5)
    assert [len(some) for some in patches] == [5, 5]
    values = [patch.value for patch in patches[0]]
    assert values == sorted(places.values[:, 1], reverse=True)[:5]
    for patch in patches[0]:
        top, _, bottom, _ = patch.box
        assert patch.node == 1
        # The field of 40 px, about the place.
        assert bottom - top <= 40
        assert abs((top + bottom - 1) / 2 - patch.position[0]) <= 1 or top == 0 or bottom == 224
    large = graph.patches(graph.last("lower"), places, [0], count=1, side=80)[0][0].box
    assert max(large[2] - large[0], large[3] - large[1]) == 80


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layers": []}, "layers"),
        ({"layers": ["upper", "upper"]}, "layers"),
        ({"layers": ["other"]}, "other"),
        ({"rows": [3]}, "rows: 1 images"),
        ({"rows": [200]}, "rows"),
        ({"settings": GraphSettings(nodes_per_filter=(1, 2, 3))}, "nodes_per_filter"),
    ],
)
def test_bad_input_in_one_line(change, said):
    features, _ = planted(20)
    with pytest.raises(InputError, match=said) as caught:
        learn_graph(features, **({"layers": ["upper", "lower"]} | change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [{"parents": 0}, {"evidence": 1.5}, {"spread": 0.0}, {"place": "middle"}, {"nodes_per_filter": ()}, {"still": -1}],
)  # fmt: skip
def test_settings_out_of_range(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        GraphSettings(**wrong)


def test_images_of_another_frame_are_refused():
    features, _ = planted(20)
    graph = learn_graph(features, ["upper"], settings=dataclasses.replace(SETTINGS, nodes_per_filter=1))
    small = {"upper": dataclasses.replace(features["upper"], maps=features["upper"].maps[..., :7, :7])}
    with pytest.raises(InputError, match="upper"):
        graph.locate(dataclasses.replace(features, layers=small))


def test_a_layer_that_is_silent_is_refused_and_a_silent_filter_is_not():
    features, _ = planted(20)
    silent = features["upper"].maps.copy()
    silent[:, 1] = -1
    some = dataclasses.replace(features, layers={"upper": LayerMaps("upper", silent, grid("upper"))})
    graph = learn_graph(some, ["upper"], settings=dataclasses.replace(SETTINGS, nodes_per_filter=1))
    places = graph.locate(some)["upper"]
    assert (places.values[:, 1] == 0).all()
    assert np.isfinite(places.positions).all()
    none = {"upper": LayerMaps("upper", -np.abs(silent), grid("upper"))}
    with pytest.raises(InputError, match="above 0"):
        learn_graph(dataclasses.replace(features, layers=none), ["upper"])


def test_parts_of_drawn_objects_in_a_network():
    images = articulated_images(40, seed=5, side=96, negatives=0.0, categories=["bird"], occlusion=0.0)
    network = load_network("mobilenet_v2", weights="random", seed=1)
    network = dataclasses.replace(network, size=96, resize=96)
    layers = ["features.13", "features.10"]
    features = trunk_features(network, images, layers)
    graph = learn_graph(features, layers, settings=GraphSettings(rounds=2, iterations=4))
    places = graph.locate(features)
    assert list(places) == ["features.13 round 1", "features.13", "features.10"]
    level, found = graph.last("features.10"), places["features.10"]
    assert level.parents.shape == (2 * 64, 15)
    patch = graph.patches(level, found, [0], count=1)[0][0]
    assert crop(images, patch, (96, 96), side=24).shape == (24, 24, 3)
    raw = location_instability(*peaks(features["features.10"]), images.landmarks, (96, 96))
    nodes = location_instability(found.values, found.positions, images.landmarks, (96, 96))
    # Even of random weights, nodes are steadier than filters, whose strongest positions are anywhere.
    assert nodes.mean_instability < raw.mean_instability
    assert nodes.median_tracking_r2 > raw.median_tracking_r2
