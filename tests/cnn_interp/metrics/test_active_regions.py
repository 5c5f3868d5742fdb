"""Going through a network's maps: once, twice, with and without keeping them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cnn_interp.units.active_regions import MapPasses, layer_maps, measure_units
from interpretkit.errors import InputError
from interpretkit.networks.recording import layer_outputs


class Counting(nn.Module):
    """A small network that counts the images it is given."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.images = 0

    def forward(self, images: Tensor) -> Tensor:
        self.images += len(images)
        # Fails unless the order in memory is looked after.
        return self.body(images).view(len(images), -1).sum(1)


def batches(n: int = 23, size: int = 9) -> list[tuple[Tensor, Tensor]]:
    images = torch.randn(n, 3, 12, 10, generator=torch.Generator().manual_seed(1))
    return list(zip(images.split(size), torch.arange(n).split(size), strict=True))


LAYERS = ("body.0", "body.2")


def test_maps_are_those_of_one_pass_over_all_images() -> None:
    module, given = Counting(), batches()
    together = layer_outputs(module, torch.cat([inputs for inputs, _ in given]), LAYERS)[1]
    found = list(layer_maps(module, LAYERS, given, "", quiet=True))
    for layer in LAYERS:
        maps = torch.cat([maps[layer] for _, _, maps in found])
        assert torch.allclose(maps, together[layer], rtol=1e-5, atol=1e-6)
        assert maps.is_contiguous()


@pytest.mark.parametrize(("kept_bytes", "passes"), [(1 << 20, 1), (0, 2), (20_000, 2)])
def test_the_network_runs_again_unless_little_is_kept(kept_bytes: int, passes: int) -> None:
    module = Counting()
    twice = MapPasses(module, LAYERS, batches(), kept_bytes=kept_bytes)
    first = [(beside, maps) for _, beside, maps in twice.first("")]
    again = list(twice.again(""))
    # Before the first pass a few images tell whether the network minds another order of memory.
    assert 23 * passes <= module.images <= 23 * passes + 4
    assert len(first) == len(again) == 3
    for (beside, maps), (same_beside, same_maps) in zip(first, again, strict=True):
        assert torch.equal(beside, same_beside)
        assert all(torch.equal(maps[layer], same_maps[layer]) for layer in LAYERS)


def test_a_pass_left_early_keeps_nothing() -> None:
    module = Counting()
    twice = MapPasses(module, LAYERS, batches())
    for _ in twice.first(""):
        break
    assert len(list(twice.again(""))) == 3


def test_thresholds_do_not_depend_on_what_is_kept() -> None:
    found = [
        measure_units(MapPasses(Counting(), LAYERS, batches(), kept_bytes=kept), share=0.1)
        for kept in (0, 1 << 20)
    ]
    for layer in LAYERS:
        assert torch.equal(found[0][layer].thresholds, found[1][layer].thresholds)
        above = [
            (maps[layer] > found[0][layer].thresholds[:, None, None]).float().mean((2, 3)).numpy()
            for _, _, maps in layer_maps(Counting(), LAYERS, batches(), "", quiet=True)
        ]
        assert np.allclose(np.concatenate(above).mean(0), 0.1, atol=0.001)


def test_what_can_be_gone_through_only_once_is_refused() -> None:
    with pytest.raises(InputError, match="only once"):
        MapPasses(Counting(), LAYERS, iter(batches()))
