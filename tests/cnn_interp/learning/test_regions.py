"""Boxes and what maps have in them, against plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from cnn_interp.learning import regions
from cnn_interp.metrics.average_precision import box_overlaps
from interpretkit.errors import InputError
from interpretkit.networks.receptive_fields import ReceptiveField

FIELD = ReceptiveField("layer", (35.0, 35.0), (16.0, 16.0), (3.0, 7.0), (9, 11))


def boxes(n: int, seed: int, side: float = 100.0) -> torch.Tensor:
    corners = torch.rand(n, 2, 2, generator=torch.Generator().manual_seed(seed)) * side
    low, high = corners.amin(1), corners.amax(1) + 1
    return torch.cat([low, high], 1)


def test_cells_are_means_of_bilinear_readings() -> None:
    maps = torch.randn(3, 4, 9, 11, generator=torch.Generator().manual_seed(0))
    some = boxes(3, 1, 150)
    found = regions.region_maps(maps, some, 5, FIELD)
    for n, (top, left, bottom, right) in enumerate(some.tolist()):
        for i, j in ((0, 0), (2, 4), (4, 1)):
            # Two by two points of the cell, as positions of the map, as grid_sample takes them.
            rows = [top + (i + s) * (bottom - top) / 5 - 0.5 for s in (0.25, 0.75)]
            columns = [left + (j + s) * (right - left) / 5 - 0.5 for s in (0.25, 0.75)]
            at = [[((c - 7) / 16 / 5 - 1, (r - 3) / 16 / 4 - 1) for c in columns] for r in rows]
            read = functional.grid_sample(
                maps[n : n + 1], torch.tensor([at]), align_corners=True, padding_mode="border"
            )
            torch.testing.assert_close(found[n, :, i, j], read.mean((0, 2, 3)), atol=1e-5, rtol=1e-5)


def test_overlaps_are_those_of_the_metric() -> None:
    first, second = boxes(20, 0), boxes(30, 1)
    expected = box_overlaps(first.double().numpy(), second.double().numpy())
    torch.testing.assert_close(
        regions.overlaps(first, second).double(), torch.from_numpy(expected), atol=1e-5, rtol=0
    )
    best, which = regions.matched(first, second)
    assert np.array_equal(which.numpy(), expected.argmax(1))
    assert best.numpy() == pytest.approx(expected.max(1), abs=1e-5)
    none, nowhere = regions.matched(first, torch.zeros(0, 4))
    assert float(none.max()) == 0
    assert int(nowhere.max()) == -1
    with pytest.raises(InputError, match="expected"):
        regions.matched(first, torch.zeros(4))


def test_suppression_keeps_the_best_of_each_heap() -> None:
    heap = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60], [0, 0, 9, 10]])
    kept = regions.suppressed(heap, torch.tensor([0.2, 0.9, 0.5, 0.3]), 0.5)
    assert kept.tolist() == [1, 2]
    some, scores = boxes(60, 3), torch.rand(60, generator=torch.Generator().manual_seed(1))
    kept = regions.suppressed(some, scores, 0.4)
    shared = regions.overlaps(some[kept], some[kept]).fill_diagonal_(0)
    assert float(shared.max()) <= 0.4
    # What was left out overlaps with something surer that remained.
    for left_out in set(range(60)) - set(kept.tolist()):
        near = kept[regions.overlaps(some[left_out : left_out + 1], some[kept])[0] > 0.4]
        assert float(scores[near].max()) >= float(scores[left_out])


def test_steps_lead_to_their_target() -> None:
    start, goal = boxes(40, 5).clamp(5, 95), boxes(40, 6).clamp(5, 95)
    start[:, 2:] = torch.maximum(start[:, 2:], start[:, :2] + 30)
    goal[:, 2:] = torch.maximum(goal[:, 2:], goal[:, :2] + 30)
    torch.testing.assert_close(
        regions.decoded(start, regions.encoded(start, goal), 200), goal, atol=1e-3, rtol=0
    )
    wild = regions.decoded(start, torch.full((40, 4), 50.0), 200)
    assert bool((wild[:, 2:] > wild[:, :2]).all())
    assert float(wild.min()) >= 0
    assert float(wild.max()) <= 200


def test_sliding_boxes_are_in_the_image_and_near_everything_large() -> None:
    slid = regions.sliding_boxes(224)
    assert float(slid.min()) >= 0
    assert float(slid.max()) <= 224
    rng = np.random.default_rng(0)
    extent = 224 * rng.uniform(0.35, 0.95, 300)
    ratio = np.sqrt(rng.uniform(0.5, 2.0, 300))
    sizes = np.minimum(np.stack([extent * ratio, extent / ratio], 1), 224)
    corners = rng.uniform(size=(300, 2)) * (224 - sizes)
    truths = torch.from_numpy(np.concatenate([corners, corners + sizes], 1)).float()
    assert float((regions.matched(truths, slid)[0] >= 0.5).double().mean()) > 0.98


def test_jittered_boxes_are_as_told() -> None:
    start = boxes(200, 9)
    moved = regions.jittered(start, torch.Generator().manual_seed(0), shift=0.1, growth=0.2)
    steps = regions.encoded(start, moved)
    assert float(steps[:, :2].abs().max()) <= 0.1 + 1e-4
    assert float(steps[:, 2:].abs().max()) <= 0.2 + 1e-4
    assert float(steps.std()) > 0.02
