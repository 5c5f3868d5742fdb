"""Interpretable layers on a trunk's maps, planted and compared with ordinary ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cnn_interp.learning.filter_loss import TemplateMask
from cnn_interp.learning.interpretable_network import (
    InterpretableNetwork,
    PartLayers,
    Settings,
    accuracy,
    train_layers,
)
from interpretkit.errors import InputError

SIDE, CHANNELS = 8, 6


def planted(images: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return maps of objects, two spots at a fixed distance in channels 0 and 1, and of images with one of them."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(images, CHANNELS, SIDE, SIDE, generator=generator) * 0.4
    labels = torch.where(torch.arange(images) % 2 == 0, 0, -1)
    rows = torch.randint(1, SIDE - 1, (images,), generator=generator)
    columns = torch.randint(1, SIDE - 3, (images,), generator=generator)
    for k in range(images):
        maps[k, 0, rows[k], columns[k]] += 3
        if labels[k] == 0:
            maps[k, 1, rows[k], columns[k] + 2] += 3
    return maps, labels


QUICK = Settings(filters=8, epochs=12, batch_size=32, learning_rate=5e-3)


@pytest.mark.parametrize("kind", ["interpretable", "ordinary"])
def test_both_kinds_learn_what_tells_objects_apart(kind: str) -> None:
    layers, history = train_layers(*planted(256, 0), replace(QUICK, kind=kind))
    assert accuracy(layers, *planted(128, 1)) > 0.9
    assert len(history.epochs) == 12
    assert not layers.training
    assert ("train_filters" in history.epochs[0]) == (kind == "interpretable")


def test_the_loss_gathers_responses_around_their_peak() -> None:
    def share_within_template(strength: float) -> float:
        layers, _ = train_layers(*planted(256, 0), replace(QUICK, strength=strength))
        with torch.no_grad():
            first = layers.responses(planted(64, 2)[0][::2])[1]
        alive = first.sum((2, 3)) > 0
        return float((TemplateMask(8)(first).sum((2, 3)) / first.sum((2, 3)).clamp_min(1e-9))[alive].mean())

    assert share_within_template(0.3) > 1.3 * share_within_template(0.0)


def test_a_resumed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    data = planted(96, 3)
    whole, _ = train_layers(*data, replace(QUICK, epochs=4))

    class Interrupted(Exception):
        pass

    calls = 0

    def stop(*_: object, **__: object) -> float:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Interrupted
        return 0.5

    settings = replace(QUICK, epochs=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnn_interp.learning.interpretable_network.accuracy", stop)
        with pytest.raises(Interrupted):
            train_layers(*data, settings, validation=data, checkpoint=tmp_path)
    resumed, history = train_layers(*data, settings, checkpoint=tmp_path)
    assert len(history.epochs) == 4
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_several_categories() -> None:
    maps, labels = planted(200, 4)
    maps, labels = (
        torch.cat([maps, torch.rand(100, CHANNELS, SIDE, SIDE) * 0.4]),
        torch.cat([labels + 1, torch.full((100,), 2)]),
    )
    layers, _ = train_layers(maps, labels, replace(QUICK, epochs=8))
    assert layers.categories == 3
    assert accuracy(layers, maps, labels) > 0.8


def test_the_whole_network_gives_what_its_parts_give() -> None:
    trunk = torch.nn.Sequential(
        torch.nn.Conv2d(3, CHANNELS, 3, stride=2, padding=1), torch.nn.ReLU(), torch.nn.Flatten()
    )
    layers = PartLayers(CHANNELS, 2, Settings(filters=4)).eval()
    network = InterpretableNetwork(trunk.eval(), "1", layers).eval()
    images = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(network(images), layers(trunk[1](trunk[0](images))))


@pytest.mark.parametrize(
    ("labels", "categories", "message"),
    [
        ([0, 0, 0, 0], None, "0 only"),
        ([0, 1, -1, 0], None, "−1 and 0 for one category"),
        ([0, 3, 1, 0], 3, "labels 0 to 3"),
        ([0, 1], None, "2 labels"),
    ],
)
def test_bad_labels_are_refused(labels: list[int], categories: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train_layers(torch.rand(4, 2, 3, 3), torch.tensor(labels), categories=categories)


@pytest.mark.parametrize(
    "changes",
    [{"kind": "other"}, {"filters": 0}, {"strength": -1.0}, {"learning_rate": float("nan")}, {"epochs": 0}],
)
def test_bad_settings_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(changes))):
        Settings(**changes)  # type: ignore[arg-type]
