"""Filters that compete for places: they follow planted parts that nobody labelled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cnn_interp.learning.competing_filters import CompetingLayers, CompetingSettings, train_competing
from cnn_interp.learning.interpretable_network import Settings, accuracy, train_layers
from interpretkit.errors import InputError

SIDE, CHANNELS = 10, 12
QUICK = CompetingSettings(filters=4, width=32, epochs=40, batch_size=32, learning_rate=5e-3)


def planted(images: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Return maps of objects with two parts that move against each other, of images without, and the parts' places."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(images, CHANNELS, SIDE, SIDE, generator=generator)
    labels = torch.where(torch.arange(images) % 3 < 2, 0, -1)
    places = torch.randint(1, SIDE - 1, (images, 2, 2), generator=generator)
    for k in range(images):
        if labels[k] == 0:
            for part in range(2):
                row, column = places[k, part]
                maps[k, 2 * part : 2 * part + 2, row - 1 : row + 2, column - 1 : column + 2] += 2.0
    return maps, labels, places.double().numpy()


def tracking(layers: torch.nn.Module, maps: torch.Tensor, places: np.ndarray) -> np.ndarray:
    """Return R² of each filter's strongest position for each part, (filters, parts)."""
    assert callable(layers.filter_maps)
    with torch.no_grad():
        strongest = layers.filter_maps(maps).flatten(2).argmax(2).numpy()
    at = np.stack([strongest // SIDE, strongest % SIDE], axis=2).astype(float)
    found = np.empty((at.shape[1], places.shape[1]))
    for f in range(at.shape[1]):
        for part in range(places.shape[1]):
            left = (places[:, part] - at[:, f]).var(axis=0).sum()
            found[f, part] = 1 - left / places[:, part].var(axis=0).sum()
    return found


@pytest.fixture(scope="module")
def trained() -> CompetingLayers:
    maps, labels, _ = planted(300, 0)
    return train_competing(maps, labels, QUICK)[0]


def test_each_part_has_a_filter_that_follows_it(trained: CompetingLayers) -> None:
    unseen, truth, places = planted(150, 1)
    assert accuracy(trained, unseen, truth) > 0.9
    objects = truth == 0
    best = tracking(trained, unseen[objects], places[objects.numpy()])
    # One filter for each, not one for both.
    assert (best.max(axis=0) > 0.6).all()
    assert best[:, 0].argmax() != best[:, 1].argmax()


def test_shares_of_a_position_sum_to_one_with_the_background() -> None:
    layers = CompetingLayers(CHANNELS, 1, QUICK).eval()
    with torch.no_grad():
        shares = layers.filter_maps(planted(4, 0)[0])
    total = shares.sum(1)
    assert shares.shape == (4, 4, SIDE, SIDE)
    assert bool((total < 1).all())
    assert bool((shares > 0).all())


def test_the_same_seed_gives_the_same_weights() -> None:
    maps, labels, _ = planted(60, 2)
    first, second = (train_competing(maps, labels, replace(QUICK, epochs=2), seed=5)[0] for _ in range(2))
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name]), name


def test_several_categories_and_maps_smaller_than_a_window() -> None:
    maps, labels, _ = planted(60, 3)
    layers, _ = train_competing(maps[:, :, :2, :2], labels + 1, replace(QUICK, epochs=1))
    assert layers(maps).shape == (60, 2)


def test_ordinary_filters_of_the_same_size_follow_less(trained: CompetingLayers) -> None:
    maps, labels, _ = planted(300, 0)
    ordinary, _ = train_layers(maps, labels, Settings(kind="ordinary", filters=3, epochs=15, batch_size=32))
    unseen, truth, places = planted(150, 1)
    objects = truth == 0
    ours, theirs = (
        tracking(one, unseen[objects], places[objects.numpy()]).max(axis=0).mean()
        for one in (trained, ordinary)
    )
    assert ours > theirs + 0.2


@pytest.mark.parametrize(
    "changes",
    [{"filters": 0}, {"window": 0.0}, {"window": 1.5}, {"moved": -1.0}, {"learning_rate": float("inf")}],
)
def test_bad_settings_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(changes))):
        CompetingSettings(**changes)  # type: ignore[arg-type]
