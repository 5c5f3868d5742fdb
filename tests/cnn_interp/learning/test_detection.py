"""Detectors on maps with planted objects: parses that sum up, parts that are followed, trainings that go on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cnn_interp.disentangling.features import LayerMaps
from cnn_interp.images.object_images import ObjectImages, Objects
from cnn_interp.learning import detection
from cnn_interp.learning.detection import (
    Detector,
    MappedImages,
    ParsingHead,
    Settings,
    asked_of_parts,
    draw_regions,
    load_detector,
    train_head,
    train_refiner,
)
from cnn_interp.learning.head_comparison import NODES, TRUNK, Comparison, compare, train_detectors
from cnn_interp.units.positions import UnitGrid
from interpretkit.errors import InputError
from interpretkit.networks.receptive_fields import ReceptiveField

SIDE, CELLS, CHANNELS = 160, 16, 8
SETTINGS = Settings(grid=5, parts=3, width=32, epochs=5, batch_size=32, learning_rate=8e-3)


def planted(n: int, seed: int) -> MappedImages:
    """Return maps of objects of two categories: a body, and two parts of the category's own that move within it."""
    rng = np.random.default_rng(seed)
    maps = 0.1 * rng.normal(size=(n, CHANNELS, CELLS, CELLS)).astype(np.float32)
    objects = []
    for number in range(n):
        height, width = rng.integers(7, 13, size=2)
        top, left = rng.integers(0, CELLS - height + 1), rng.integers(0, CELLS - width + 1)
        kind = int(rng.integers(2))
        maps[number, 0, top : top + height, left : left + width] += 2.0
        marks = np.empty((2, 2))
        for part in range(2):
            row, column = top + rng.integers(1, height - 1), left + rng.integers(1, width - 1)
            channel = 1 + 2 * kind + part
            maps[number, channel, row - 1 : row + 2, column - 1 : column + 2] += 2.0
            marks[part] = row * 10 + 4.5, column * 10 + 4.5
        box = np.array([[top, left, top + height, left + width]]) * 10.0
        shown = number % 6 != 5
        if not shown:
            maps[number] = 0.1 * rng.normal(size=maps.shape[1:])
        rows = slice(0, int(shown))
        objects.append(Objects(box[rows], np.array([kind])[rows], marks[None][rows]))
    field = ReceptiveField("layer", (10.0, 10.0), (10.0, 10.0), (4.5, 4.5), (CELLS, CELLS))
    images = ObjectImages(
        name="planted",
        ids=tuple(map(str, range(n))),
        load=lambda number: np.zeros((SIDE, SIDE, 3), dtype=np.uint8),
        objects=tuple(objects),
        category_names=("one", "other"),
        part_names=("first", "second"),
        side=SIDE,
    )
    return MappedImages(LayerMaps("layer", maps, UnitGrid(field, (SIDE, SIDE))), images)


@pytest.fixture(scope="module")
def compared() -> Comparison:
    detectors, histories = train_detectors(planted(60, 0), SETTINGS)
    return compare(detectors, planted(60, 1), histories=histories)


@pytest.fixture(scope="module")
def head() -> ParsingHead:
    torch.manual_seed(0)
    made = ParsingHead(CHANNELS, 2, SETTINGS)
    with torch.no_grad():
        made.responses.weight.mul_(30)
        made.price.add_(0.3 * torch.randn_like(made.price))
    return made.eval()


def test_planted_objects_are_found_and_their_parts_followed(compared: Comparison) -> None:
    assert compared.recall > 0.95
    for score in compared.scores.values():
        assert score.mean(0.5) > 0.2
    nodes = compared.tracking[NODES]
    assert nodes.enough.all()
    # Of three nodes of a category that nobody labelled, each part has one of its own.
    units, best = nodes.best_tracking()
    assert (best > 0.6).all()
    assert (units[:, 0] != units[:, 1]).all()
    assert 2 <= compared.used <= 25


def test_an_untrained_head_finds_nothing(compared: Comparison) -> None:
    torch.manual_seed(1)
    untrained = Detector(CHANNELS, ("one", "other"), SETTINGS)
    untrained.refiner.load_state_dict(compared.detectors["parsing"].refiner.state_dict())
    found = compare({"parsing": untrained.eval()}, planted(30, 1))
    assert found.scores["parsing"].mean(0.5) < 0.1
    assert TRUNK in found.tracking


def test_the_score_is_the_sum_of_the_trees_tiles_whatever_they_are_called(head: ParsingHead) -> None:
    cells = torch.randn(6, CHANNELS, 5, 5, generator=torch.Generator().manual_seed(1))
    scores = head(cells).detach()
    offset = head.state_dict()["place.bias"]
    for category in range(2):
        found = head.explain(cells, torch.full((6,), category))
        for row in range(6):
            tiles = list(found.parses.tree(row).leaves())
            by_part = sum(float(found.scores[row, found.parts[row, tile], tile]) for tile in tiles)
            bias = float(offset[category] - offset[-1])
            by_place = float(found.place[row, tiles].sum()) + bias
            assert by_part == pytest.approx(float(found.parses.scores[row]), abs=1e-4)
            odds = float(scores[row, category] - scores[row, -1])
            assert by_part + by_place == pytest.approx(odds, abs=1e-3)
            # What is told from places is the same for all parses: that of the region as one tile.
            assert by_place == pytest.approx(float(found.place[row, -1]) + bias, abs=1e-3)


def test_parts_are_told_from_cells_alone_and_places_from_their_surroundings(head: ParsingHead) -> None:
    generator = torch.Generator().manual_seed(4)
    cells, other = (
        torch.randn(2, CHANNELS, 5, 5, generator=generator),
        torch.randn(2, CHANNELS, generator=generator),
    )
    changed = cells.clone()
    changed[:, :, 2, 2] = other
    with torch.no_grad():
        first, second = (head.embedded(some) for some in (cells, changed))
        parts = (head.part_maps(first) != head.part_maps(second)).flatten(0, 2).any(0)
        places = (head.surroundings(first) != head.surroundings(second)).flatten(0, 1).any(0)
    middle = torch.zeros(5, 5, dtype=torch.bool)
    middle[2, 2] = True
    assert torch.equal(parts, middle)
    assert places.all()  # two convolutions of 3 × 3 reach two cells far


def test_the_gradient_of_the_parts_reaches_the_kinds_and_cells_of_the_parse_alone(head: ParsingHead) -> None:
    cells = torch.randn(4, CHANNELS, 5, 5, generator=torch.Generator().manual_seed(2))
    embedded = head.embedded(cells).detach()
    maps = head.part_maps(embedded).detach().requires_grad_()
    head.scores(embedded, maps)[:, 0].sum().backward()
    assert maps.grad is not None
    found = head.explain(cells, torch.zeros(4, dtype=torch.long))
    expected = torch.zeros(4, head.kinds, 25)
    for row in range(4):
        for tile in found.parses.tree(row).leaves():
            held = torch.from_numpy(head.grammar.cells[tile]).float()
            expected[row, found.parts[row, tile]] += held / 5
    torch.testing.assert_close(maps.grad[:, 0].flatten(2), expected)
    assert float(maps.grad[:, 1].abs().max()) == 0


def test_parts_that_move_with_the_object_lack_nothing_there() -> None:
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(5, 3, 8, 8, generator=generator)
    box = torch.tensor([[10.0, 20.0, 90.0, 100.0]]).expand(5, 4)
    assert float(asked_of_parts(shares, shares, box, box)["moved"]) == pytest.approx(0, abs=1e-10)
    # The other region is the upper half: what it has in its rows lies in every other row of the first.
    half = box.clone()
    half[:, 2] = 50
    others = shares.clone()
    others[:, :, 0::2] = others[:, :, 1::2] = shares[:, :, :4]
    assert float(asked_of_parts(shares, others, box, half)["moved"]) < 0.3 * float(
        asked_of_parts(shares, others, box, box)["moved"]
    )
    spot = torch.zeros(1, 1, 8, 8)
    spot[..., 2:4, 5:7] = 1
    full = asked_of_parts(spot, spot, box[:1], box[:1])
    assert float(full["present"]) == pytest.approx(0)
    assert float(full["gathered"]) < 0.1
    even = asked_of_parts(torch.full((1, 1, 8, 8), 0.5), spot, box[:1], box[:1])
    assert float(even["gathered"]) == pytest.approx(1, abs=0.05)
    assert float(even["present"]) == pytest.approx(0.5)


def test_a_resumed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    data = planted(20, 3)
    refiner = train_refiner(data, 5, epochs=2)
    regions = draw_regions(data, refiner, 5)
    settings = replace(SETTINGS, epochs=3, folded=0.4)
    whole, history = train_head(regions, 2, settings, checkpoint=tmp_path / "whole")
    assert len(history.epochs) == 3

    class Killed(Exception):
        pass

    # Killed when the second epoch's figures have been kept: batches are asked for the third.
    class Dying(detection._Phases):
        def set_epoch(self, epoch: int) -> None:
            if epoch == 2:
                raise Killed
            super().set_epoch(epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detection, "_Phases", Dying)
        with pytest.raises(Killed):
            train_head(regions, 2, settings, checkpoint=tmp_path / "parts")
    resumed, again = train_head(regions, 2, settings, checkpoint=tmp_path / "parts")
    assert len(again.epochs) == 3
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_detector_is_saved_and_loaded(tmp_path: Path, compared: Comparison) -> None:
    cells = torch.randn(3, CHANNELS, 5, 5)
    for kind, detector in compared.detectors.items():
        path = tmp_path / f"{kind}.safetensors"
        detector.save(path)
        loaded = load_detector(path)
        assert isinstance(loaded, Detector)
        assert loaded.category_names == ("one", "other")
        assert loaded.layer == "layer"
        torch.testing.assert_close(loaded.head(cells), detector.head(cells))
        torch.testing.assert_close(loaded.refiner(cells), detector.refiner(cells))
    with pytest.raises(InputError, match="no such file"):
        load_detector(tmp_path / "absent.safetensors")


def test_wrong_settings_and_empty_images_are_refused() -> None:
    with pytest.raises(InputError, match="kind 'flat'"):
        Settings(kind="flat")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="folded"):
        Settings(folded=1.5)
    data = planted(6, 0)
    none = replace(
        data.images,
        objects=tuple(Objects(o.boxes[:0], o.categories[:0], o.landmarks[:0]) for o in data.images.objects),
    )
    with pytest.raises(InputError, match="shows no objects"):
        train_refiner(MappedImages(data.maps, none), 5)
