"""Filters on a frozen trunk beside ordinary ones: halves, what is measured, and the trained network as a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cnn_interp.images.batches import InputBatches, landmarks_in_inputs
from cnn_interp.images.part_images import PartImages
from cnn_interp.learning.competing_filters import (
    CompetingLayers,
    CompetingSettings,
    Gathering,
    train_competing,
)
from cnn_interp.learning.filter_study import (
    FilterTask,
    ReadAlike,
    TrainedFilters,
    filter_task,
    halves,
    measure_filters,
    read_alike,
    settings_of,
    train_filters,
)
from cnn_interp.learning.interpretable_network import PartLayers, Settings
from cnn_interp.learning.saved_network import assembled, save_network
from cnn_interp.metrics.location_instability import find_peaks, location_instability
from cnn_interp.networks.loading import load_network
from cnn_interp.networks.network import Network
from interpretkit.errors import InputError
from interpretkit.training.checkpoints import load_config

SIDE = 48
OWN = """
import torch
from cnn_interp.networks.network import Network

def network():
    torch.manual_seed(FACTOR)
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.ReLU(), torch.nn.AvgPool2d(4),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(6, 2),
    )
    return Network("own", layers, size=48, resize=48, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""


def drawn(images: int = 80) -> PartImages:
    """Return noise with a red spot somewhere; every second image has a green spot two places beside it as well."""
    draws = np.random.default_rng(0)
    landmarks = draws.integers(6, SIDE - 14, size=(images, 1, 2)).astype(float)
    categories = np.arange(images) % 2 - 1
    pictures = draws.integers(0, 60, size=(images, SIDE, SIDE, 3), dtype=np.uint8)
    for picture, (at,), category in zip(pictures, landmarks.astype(int), categories, strict=True):
        picture[at[0] - 4 : at[0] + 5, at[1] - 4 : at[1] + 5, 0] = 255
        if category == 0:
            picture[at[0] - 4 : at[0] + 5, at[1] + 4 : at[1] + 13, 1] = 255
    return PartImages(
        name="spots", ids=tuple(map(str, range(images))), load=pictures.__getitem__, categories=categories,
        category_names=("pair",), part_names=("red",), absence_known=True,
        landmarks=np.where(categories[:, None, None] == 0, landmarks, np.nan),
        groups=np.arange(images) // 4,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("own")
    (place / "spot_network.py").write_text(OWN.replace("FACTOR", "3"))
    return place


@pytest.fixture(scope="module")
def trunk(folder: Path) -> Network:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        return load_network("spot_network:network")


@pytest.fixture(scope="module")
def task(trunk: Network) -> FilterTask:
    return filter_task(drawn(), trunk, "2", ["pair"])


QUICK = CompetingSettings(filters=3, width=16, epochs=6, batch_size=16)


@pytest.fixture(scope="module")
def trained(task: FilterTask) -> TrainedFilters:
    return train_filters(task, "competing", QUICK)


def test_halves_keep_relatives_together_and_categories_alike() -> None:
    labels = np.repeat([0, 1, -1], (60, 30, 30))
    groups = np.arange(120) // 5
    learn, validate, test = halves(labels, groups, seed=1, validation=True)
    assert sorted(np.concatenate([learn, validate, test])) == list(range(120))
    for one, other in ((learn, test), (learn, validate), (validate, test)):
        assert not set(groups[one]) & set(groups[other])
    for label in (0, 1, -1):
        share = (labels[test] == label).sum() / (labels == label).sum()
        assert 0.3 < share < 0.7
    with pytest.raises(InputError, match="category 1"):
        halves(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2]))


def test_one_category_is_told_from_everything_else_and_several_from_each_other(trunk: Network) -> None:
    images = replace(drawn(), categories=np.arange(80) % 4 - 1, category_names=("a", "b", "c"))
    one = filter_task(images, trunk, "2", ["b"])
    assert set(one.labels[images.categories == 1]) == {0}
    assert set(one.labels[images.categories != 1]) == {-1}
    several = filter_task(images, trunk, "2", ["c", "a"])
    assert len(several.images) == 40
    assert several.images.categories[several.labels == 0].tolist() == [2] * 20
    with pytest.raises(InputError, match="moon"):
        filter_task(images, trunk, "2", ["moon"])


def test_what_is_measured_on_kept_maps_is_what_the_whole_network_does(
    task: FilterTask, trained: TrainedFilters
) -> None:
    """From images through trunk and layers, by the hooks of every other check."""
    network = assembled(task.trunk, "2", trained.layers, task.categories)
    images = task.images.subset(task.test)
    peaks = find_peaks(network.module, ["layers.filters"], InputBatches(network, images))["layers.filters"]
    whole = location_instability(
        peaks.values, peaks.positions, landmarks_in_inputs(images, network.size), (SIDE, SIDE),
        categories=task.labels[task.test], category_names=("pair",), part_names=("red",),
    )  # fmt: skip
    assert trained.location is not None
    assert trained.alive.all()
    # Maps are kept in half precision.
    np.testing.assert_allclose(peaks.values, trained.peaks.values, atol=2e-3)
    assert trained.location.mean_constant_centre == pytest.approx(whole.mean_constant_centre, abs=1e-6)
    assert (peaks.places == trained.peaks.places).mean() > 0.95
    logits = torch.cat([network.module(batch) for batch in InputBatches(network, images)])
    told = np.where(logits[:, 0].detach() > logits[:, 1].detach(), 0, -1)
    assert (told == task.labels[task.test]).mean() == pytest.approx(trained.accuracy, abs=0.03)


def test_filters_that_never_respond_do_not_pass_for_steady(task: FilterTask) -> None:
    torch.manual_seed(0)
    layers = PartLayers(6, 1, Settings(kind="ordinary", filters=4)).eval()
    with torch.no_grad():
        layers.second_convolution.weight.abs_()
        layers.second_convolution.weight[1] = 0
        layers.second_convolution.bias.fill_(0.1)  # type: ignore[union-attr]
        layers.second_convolution.bias[1] = -1.0  # type: ignore[index]
    found = measure_filters(task, layers, "ordinary")
    assert found.alive.tolist() == [True, False, True, True]
    assert found.location is not None
    assert found.location.instability.shape == (1, 1, 3)
    assert found.row()["silent"] == 1
    assert found.own_instability == pytest.approx(found.location.mean_instability)


def test_without_annotated_parts_accuracy_is_measured_alone(trunk: Network) -> None:
    bare = replace(drawn(40), part_names=(), landmarks=np.empty((40, 0, 2)))
    found = train_filters(
        filter_task(bare, trunk, "2", ["pair"]), "ordinary", Settings(kind="ordinary", filters=4, epochs=1)
    )
    assert found.location is None
    assert "instability" not in found.row()
    assert 0 <= found.accuracy <= 1


@pytest.mark.parametrize("variant", ["published", "released", "competing"])
def test_variants_differ_in_what_they_are_named_for(variant: str) -> None:
    settings = settings_of(variant, filters=5, epochs=3)
    assert (settings.filters, settings.epochs) == (5, 3)
    if isinstance(settings, Settings):
        assert settings.kind == "interpretable"
        assert (settings.centre, settings.learn_beta) == (
            ("centroid", True) if variant == "released" else ("peak", False)
        )
    else:
        bare = settings_of("unasked", filters=5, epochs=3)
        assert isinstance(bare, CompetingSettings)
        assert (
            replace(
                bare,
                **{name: getattr(settings, name) for name in ("gathered", "present", "moved", "different")},
            )
            == settings
        )


def test_competing_filters_resumed_end_with_the_same_weights(
    task: FilterTask, trained: TrainedFilters, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    calls = 0

    def dying(*_: object, **__: object) -> float:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Killed
        return 0.5

    rows = torch.from_numpy(task.learn)
    data = torch.from_numpy(np.array(task.maps.maps))[rows], torch.from_numpy(task.labels)[rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnn_interp.learning.interpretable_network.accuracy", dying)
        with pytest.raises(Killed):
            train_competing(*data, QUICK, validation=data, checkpoint=tmp_path)
    resumed, history = train_competing(*data, QUICK, checkpoint=tmp_path)
    assert len(history.epochs) == 6
    for name, weight in trained.layers.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_patience_keeps_the_weights_of_the_best_epoch(trunk: Network) -> None:
    some = filter_task(drawn(), trunk, "2", ["pair"], validation=True)
    assert len(some.validate)
    found = train_filters(some, "competing", replace(QUICK, learning_rate=0.1, epochs=12), patience=2)
    tasks = found.history.column("task")
    assert found.history.best == pytest.approx(min(tasks))
    assert found.history.stopped in ("patience", "epochs")
    with pytest.raises(InputError, match="patience 2"):
        train_filters(filter_task(drawn(), trunk, "2", ["pair"]), "competing", QUICK, patience=2)


def test_a_saved_network_gives_what_was_trained(
    task: FilterTask, trained: TrainedFilters, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "spots.safetensors"
    save_network(path, task.trunk, "2", trained.layers, task.categories, loaded_by="spot_network:network")
    assert {"trunk", "weights", "layer", "seed", "digest"} <= load_config(path).keys()
    assert path.stat().st_size < 60_000
    monkeypatch.syspath_prepend(folder)
    loaded = load_network(str(path))
    assert loaded.categories == ("pair", "other")
    assert loaded.check_scores() == 2
    inputs = torch.rand(5, 3, SIDE, SIDE)
    mine = assembled(task.trunk, "2", trained.layers, task.categories).module
    with torch.no_grad():
        torch.testing.assert_close(loaded.module(inputs), mine(inputs))
        # The softmax of the two outputs is the category's probability.
        torch.testing.assert_close(
            mine(inputs).softmax(1)[:, 0], trained.layers(mine.get_submodule("trunk")(inputs))[:, 0].sigmoid()
        )
    random = load_network(str(path), weights="random", seed=1)
    names = [name for name, _ in random.module.layers.named_parameters()]  # type: ignore[union-attr]
    assert names == [name for name, _ in trained.layers.named_parameters()]
    with torch.no_grad():
        assert not torch.allclose(random.module(inputs), mine(inputs))


def test_a_trunk_that_has_changed_is_refused(
    task: FilterTask, trained: TrainedFilters, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spot_network_b.py").write_text(OWN.replace("FACTOR", "3"))
    monkeypatch.syspath_prepend(tmp_path)
    other = load_network("spot_network_b:network")
    path = tmp_path / "spots.safetensors"
    save_network(path, other, "2", trained.layers, task.categories, loaded_by="spot_network:network")
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(InputError, match="other weights or code"):
        load_network(str(path))


@pytest.mark.parametrize(
    ("name", "said"), [("absent.safetensors", "no such file"), ("wrong.safetensors", "wrong")]
)
def test_files_that_are_no_networks_are_refused(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=said):
        load_network(str(tmp_path / name))


def test_windows_at_random_places_take_landmarks_along() -> None:
    images = drawn(30)
    pictures = np.zeros((30, SIDE, SIDE, 3), dtype=np.uint8)
    for picture, (at,) in zip(pictures, np.nan_to_num(images.landmarks).astype(int), strict=True):
        picture[at[0], at[1]] = 255
    moved = replace(images, load=pictures.__getitem__).shifted(0.5, 96, seed=4)
    again = replace(images, load=pictures.__getitem__).shifted(0.5, 96, seed=4)
    np.testing.assert_array_equal(moved.landmarks, again.landmarks)
    seen = np.flatnonzero(moved.annotated[:, 0])
    # A quarter of the windows shows the part, about.
    assert 0 < len(seen) < 15
    for index in seen:
        bright = moved.image(int(index)).astype(float)[..., 0]
        rows, columns = np.nonzero(bright > 0.5 * bright.max())
        # Twice 2 pixels of 4: a window of 24 px became 96.
        assert np.abs(np.array([rows.mean(), columns.mean()]) - moved.landmarks[index, 0]).max() <= 1.0
    assert len({tuple(place) for place in moved.landmarks[seen, 0]}) == len(seen)
    with pytest.raises(InputError, match="share 0"):
        images.shifted(0.0)


def test_the_trained_network_is_taken_by_every_check(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_command: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(folder)
    small = ("--images", "40", "--epochs", "1", "--layer", "2")
    ended = run_command(
        "cnn", "train", "icnn", "--model", "spot_network:network", *small, "--out", "made", "--json"
    )
    assert ended.code == 0, ended.err
    assert {row["network"] for row in json.loads(ended.out)["networks"]} == {
        "ordinary",
        "read alike",
        "competing",
    }
    network = ("--model", "made/network.safetensors")
    at = ("--layer", "layers.filters")
    for number, words in enumerate(
        (
            ("visualize", *network, "--method", "saliency"),
            ("dissect", *network, *at, "--images", "4", "--no-baseline"),
            ("instability", "--model", "made/ordinary.safetensors", "--images", "6", "--top", "4"),
            ("disentangle", "parts", *network, *at, "--images", "8", "--annotations", "1", "--no-baselines"),
        )
    ):  # fmt: skip
        ended = run_command("cnn", *words, "--out", f"taken-{number}", "--quiet")
        assert ended.code == 0, (words, ended.err)


def test_maps_pass_open_masks_as_they_are() -> None:
    layers = PartLayers(6, 1, Settings(filters=4)).eval()
    maps = torch.rand(2, 6, 5, 5)
    closed = layers(maps)
    for mask in (layers.first_mask, layers.second_mask):
        mask.closed = 0.0  # type: ignore[assignment]
    plain = PartLayers(6, 1, Settings(kind="ordinary", filters=4)).eval()
    plain.load_state_dict(layers.state_dict(), strict=False)
    with torch.no_grad():
        torch.testing.assert_close(layers(maps), plain(maps))
        assert not torch.allclose(closed, plain(maps))


def test_gathered_maps_say_how_much_lies_about_each_place(task: FilterTask) -> None:
    maps = torch.zeros(1, 2, 9, 9)
    maps[0, 0, 4, 4], maps[0, 1, 0, 8] = 1.0, 1.0
    gathered = Gathering(0.4)(maps)  # three of nine
    assert gathered[0, 0, 3:6, 3:6].tolist() == [[pytest.approx(1 / 9)] * 3] * 3
    assert float(gathered[0, 0].sum()) == pytest.approx(1)
    assert float(gathered[0, 1].sum()) == pytest.approx(4 / 9)  # the rest lies beyond the edge
    torch.testing.assert_close(Gathering(0.0)(maps), maps)
    torch.manual_seed(0)
    layers = PartLayers(6, 1, Settings(kind="ordinary", filters=3)).eval()
    plain = measure_filters(task, layers, "ordinary")
    same = measure_filters(task, ReadAlike(layers, 0.0).eval(), "read alike")
    np.testing.assert_array_equal(same.peaks.places, plain.peaks.places)
    assert same.accuracy == plain.accuracy
    assert (read_alike(task, plain).peaks.places != plain.peaks.places).any()


def test_filter_maps_are_what_the_layer_of_their_name_gives() -> None:
    torch.manual_seed(0)
    maps = torch.rand(2, 6, 7, 7)
    for layers in (CompetingLayers(6, 1, QUICK).eval(), PartLayers(6, 1, Settings(filters=3)).eval()):
        given: list[torch.Tensor] = []
        handle = getattr(layers, layers.filter_layer).register_forward_hook(
            lambda *found, to=given: to.append(found[2])
        )
        with torch.no_grad():
            layers(maps)
            handle.remove()
            torch.testing.assert_close(given[0], layers.filter_maps(maps))
