"""What units respond to in images: top patches, deconvnet projections, receptive fields as used."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from cnn_interp.images.photographs import Photographs
from cnn_interp.networks.network import Network
from cnn_interp.units.streaming import LargestValues
from cnn_interp.visualization.activation import activations
from cnn_interp.visualization.deconvnet_projection import project, sufficiency
from cnn_interp.visualization.empirical_fields import empirical_receptive_fields, field_size
from cnn_interp.visualization.systems import (
    Question,
    deconvnet_projections,
    framed,
    receptive_fields,
    top_patches_of_units,
)
from cnn_interp.visualization.top_patches import add_maps, patch_crops, top_patches
from interpretkit.commandline.finding import FigureBlock, Finding, TableBlock
from interpretkit.errors import InputError
from interpretkit.training import torch_generator

# The tests are imported by path, so that the shared networks must be found by hand.
sys.path.insert(0, str(Path(__file__).parent))
from small_networks import SIDE, convolutional, noise_photographs


def naive(maps: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort every image of every channel, one comparison at a time."""
    n, channels, height, width = maps.shape
    values = np.empty((channels, k))
    images, positions = np.empty((channels, k), int), np.empty((channels, k, 2), int)
    for channel in range(channels):
        found = []
        for image in range(n):
            places = [(maps[image, channel, y, x], y, x) for y in range(height) for x in range(width)]
            value, y, x = max(places, key=lambda place: (place[0], -place[1], -place[2]))
            found.append((value, image, y, x))
        found.sort(key=lambda row: (-row[0], row[1]))
        for rank, (value, image, y, x) in enumerate(found[:k]):
            values[channel, rank], images[channel, rank], positions[channel, rank] = value, image, (y, x)
    return values, images, positions


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_the_top_is_exact_also_with_ties(batch: int) -> None:
    # Few levels, so that there are many ties between images and within them.
    maps = np.random.default_rng(0).integers(0, 4, (23, 5, 4, 3)).astype(np.float32)
    kept = LargestValues(5, 6)
    for start in range(0, 23, batch):
        add_maps(kept, torch.from_numpy(maps[start : start + batch]))
    values, images, positions = naive(maps, 6)
    assert np.array_equal(kept.values, values)
    assert np.array_equal(kept.items, images)
    assert np.array_equal(np.stack(np.divmod(kept.places.numpy(), 3), axis=-1), positions)
    assert kept.count == 23


def test_top_patches_of_a_network_are_where_its_activations_are(tmp_path: Path) -> None:
    network, photographs = convolutional(), noise_photographs(9)
    found = top_patches(network, "3", photographs, units=[2, 5], k=4, images_per_forward=4)
    best = activations(network, photographs, "3").numpy()
    for row, unit in enumerate((2, 5)):
        assert np.allclose(found.values[row], np.sort(best[:, unit])[::-1][:4])
        assert found.images[row].tolist() == np.argsort(-best[:, unit])[:4].tolist()
    crops = patch_crops(network, photographs, found)
    # Size 8: the second convolution reaches three pooled pixels, each of two pixels that reach three.
    assert found.field.size == (8, 8)
    assert all(max(crop.shape[:2]) <= 8 for row in crops for crop in row)
    state = tmp_path / "state.npz"
    kept = top_patches(network, "3", photographs, units=[2, 5], k=4, state=state)
    again = top_patches(network, "3", photographs, units=[2, 5], k=4, state=state)
    assert np.array_equal(kept.values, again.values)
    assert np.array_equal(kept.images, found.images)


def test_a_search_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, photographs = convolutional(), noise_photographs(20)
    whole = top_patches(network, "3", photographs, k=4, images_per_forward=1)
    state, searched = tmp_path / "state.npz", []

    def stopping(found: LargestValues, maps: torch.Tensor) -> None:
        if len(searched) == 18:
            raise KeyboardInterrupt
        searched.append(found.count)
        add_maps(found, maps)

    monkeypatch.setattr("cnn_interp.visualization.top_patches.add_maps", stopping)
    with pytest.raises(KeyboardInterrupt):
        top_patches(network, "3", photographs, k=4, images_per_forward=1, state=state)
    searched.clear()
    rest = top_patches(network, "3", photographs, k=4, images_per_forward=1, state=state)
    assert searched == [16, 17, 18, 19]
    for name in ("units", "values", "images", "positions", "boxes"):
        assert np.array_equal(getattr(whole, name), getattr(rest, name)), name
    with pytest.raises(InputError, match="another search"):
        top_patches(network, "3", photographs, k=3, state=state)


def test_units_that_are_not_there_are_refused() -> None:
    with pytest.raises(InputError, match="unit 99"):
        top_patches(convolutional(), "3", noise_photographs(2), units=[99])
    with pytest.raises(InputError, match="maps"):
        top_patches(convolutional(), "7", noise_photographs(2))


def test_a_single_convolution_is_projected_to_its_kernel() -> None:
    network, photographs = convolutional(), noise_photographs(5)
    patches = top_patches(network, "0", photographs, units=[1, 4], k=3)
    projections = project(_rectified(network), photographs, patches)
    convolution = network.module[0]  # type: ignore[index]
    for row, unit in enumerate((1, 4)):
        for rank in range(3):
            if patches.boxes[row, rank][2:].min() < 3 or patches.boxes[row, rank].max() > SIDE - 1:
                continue
            crop = projections.crop(row, rank)
            if crop.shape == (3, 3, 3):
                # Carried back with its value, as the article has it.
                expected = float(patches.values[row, rank]) * convolution.weight[unit].detach().numpy()
                assert np.allclose(crop, expected, atol=1e-6)


def _rectified(network: Network) -> Network:
    # The deconvnet refuses networks without a ReLU; one before the convolution that passes everything changes nothing.
    class Passing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.relu(x.detach())
            return x

    module = nn.Sequential(network.module[0], nn.ReLU())  # type: ignore[index]
    module[0].register_forward_pre_hook(lambda _, args: (Passing()(args[0]),))
    return Network("rectified", module, size=SIDE, resize=SIDE)


def test_projections_stay_within_the_receptive_field_and_follow_the_switches() -> None:
    network, photographs = convolutional(), noise_photographs(6)
    patches = top_patches(network, "3", photographs, units=[0, 7], k=3)
    projections = project(network, photographs, patches)
    for unit, rank in np.ndindex(2, 3):
        top, left, bottom, right = patches.boxes[unit, rank]
        outside = projections.values[unit, rank].copy()
        outside[:, top:bottom, left:right] = 0
        assert np.abs(outside).max() == 0
        assert np.abs(projections.crop(unit, rank)).max() > 0


def test_the_whole_field_would_leave_the_whole_activation() -> None:
    network, photographs = convolutional(), noise_photographs(6)
    patches = top_patches(network, "3", photographs, units=[0, 7], k=3)
    projections = project(network, photographs, patches)
    nearly_all = sufficiency(network, photographs, projections, share=0.999)
    assert np.allclose(nearly_all.projected, 1, atol=0.05)
    with pytest.raises(InputError, match="share"):
        sufficiency(network, photographs, projections, share=1.5)


def partly_silent() -> tuple[Network, Photographs]:
    """Return a network whose unit 0 is silent in all, and unit 1 in one of three images: those without red."""
    network = convolutional()
    first, second = network.module[0], network.module[3]  # type: ignore[index]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    with torch.no_grad():
        for convolution in (first, second):
            convolution.weight.zero_()
            convolution.bias.zero_()  # type: ignore[union-attr]
        first.weight[0, 0, 1, 1] = 1
        second.weight[1, 0, 1, 1] = 1
        second.bias[0] = -1  # type: ignore[index]
    noise = np.random.default_rng(0).integers(128, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    noise[2, ..., 0] = 0
    pictures = [Image.fromarray(picture) for picture in noise]
    return network, Photographs(("a", "b", "c"), lambda row: pictures[row], "noise")


@pytest.mark.parametrize("layer", ["3", "4"])
def test_silent_units_project_to_nothing_and_have_no_share(layer: str) -> None:
    network, photographs = partly_silent()
    patches = top_patches(network, layer, photographs, units=[0, 1], k=3)
    assert patches.silent.tolist() == [[True] * 3, [False, False, True]]
    projections = project(network, photographs, patches)
    assert (np.abs(projections.values).max((2, 3, 4)) > 0).tolist() == (~patches.silent).tolist()
    found = sufficiency(network, photographs, projections)
    for shares in (found.projected, found.random, found.centred):
        assert (np.isnan(shares) == patches.silent).all()


def test_silent_images_do_not_count_in_a_field() -> None:
    network, photographs = partly_silent()
    patches = top_patches(network, "3", photographs, units=[0, 1], k=3)
    found = empirical_receptive_fields(network, photographs, patches, occluder=3, stride=1)
    loud = replace(
        patches,
        units=patches.units[1:],
        values=patches.values[1:, :2],
        images=patches.images[1:, :2],
        positions=patches.positions[1:, :2],
        boxes=patches.boxes[1:, :2],
    )
    alone = empirical_receptive_fields(network, photographs, loud, occluder=3, stride=1)
    # There is something that could have been averaged in.
    assert found.discrepancy[1, 2].max() > 0
    assert np.array_equal(found.maps[1], alone.maps[0], equal_nan=True)
    assert np.isnan(found.sizes[0])
    assert np.isnan(found.maps[0]).all()
    assert found.sizes[1] == alone.sizes[0] > 0


def shown_by(
    system: Callable[[Question, Finding], None], question: Question
) -> tuple[list[dict[str, Any]], dict[str, Any], Figure]:
    """Return the rows, the summary and the picture that a system adds."""
    found = Finding("")
    system(question, found)
    (table,), (picture,), (summary,) = (
        found.blocks(TableBlock),
        found.blocks(FigureBlock),
        found.values.values(),
    )
    return table.rows, summary, picture.figure


def test_the_systems_say_which_units_are_silent() -> None:
    network, photographs = partly_silent()
    question = Question(network, photographs.subset([0]), photographs, [0], "4", [0, 1])
    rows, summary, figure = shown_by(deconvnet_projections, question)
    assert rows[0]["left by projection"] is None
    assert 0 <= rows[1]["left by projection"] <= 1.5
    assert summary["left_by_projection"] == rows[1]["left by projection"]
    titles = [axes.get_xlabel() + axes.get_title() for axes in figure.axes]
    assert sum("silent" in title for title in titles) == 4
    assert not any("nan" in title for title in titles)
    rows, summary, _ = shown_by(receptive_fields, question)
    assert rows[0]["used (px)"] is None
    assert summary["used_px"] == rows[1]["used (px)"]
    nothing = replace(question, units=[0])
    assert shown_by(deconvnet_projections, nothing)[1]["left_by_projection"] is None
    assert shown_by(receptive_fields, nothing)[1]["used_px"] is None


class Patches(nn.Module):
    """Cuts images into pieces and goes on with vectors, as vision transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, 6, 16, stride=16)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.projection(images).flatten(2).mean(2)


def test_without_a_layer_of_the_size_wanted_the_largest_map_serves() -> None:
    photographs = noise_photographs(3)
    # Pieces of half the image's side are fewer than an eighth of it asks for.
    for network, expected in (
        (Network("patches", Patches().eval(), size=SIDE, resize=SIDE), "projection"),
        (Network("whole", nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).eval(), size=SIDE, resize=SIDE), "1"),
    ):
        question = Question(network, photographs.subset([0]), photographs, [0])
        assert question.middle_layer == expected
        assert shown_by(top_patches_of_units, question)[1]["layer"] == expected
    flat = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 2, 1), nn.Flatten())
    question = Question(Network("flat", flat, size=SIDE, resize=SIDE), photographs, photographs, [0])
    with pytest.raises(InputError, match="expected `layer` to name one"):
        _ = question.middle_layer


def test_a_saved_search_belongs_to_its_photographs_and_weights(tmp_path: Path) -> None:
    network, photographs, state = convolutional(), noise_photographs(6), tmp_path / "state.npz"
    first = photographs.subset([0, 1, 2, 5])
    kept = top_patches(network, "3", first, units=[1], k=2, state=state)
    # As many, and the same last one.
    others = photographs.subset([3, 4, 2, 5])
    with pytest.raises(InputError, match="another search"):
        top_patches(network, "3", others, units=[1], k=2, state=state)
    with pytest.raises(InputError, match="another search"):
        top_patches(convolutional(seed=1), "3", first, units=[1], k=2, state=state)
    with pytest.raises(InputError, match="another search"):
        top_patches(replace(network, mean=(0.0, 0.0, 0.0)), "3", first, units=[1], k=2, state=state)
    again = top_patches(convolutional(), "3", first, units=[1], k=2, state=state)
    assert np.array_equal(again.values, kept.values)


def planted(used: int) -> Network:
    """Return a network whose one unit could see 9 × 9 pixels and uses `used` × `used`."""
    module = nn.Sequential(nn.Conv2d(3, 1, 9, padding=4), nn.ReLU())
    convolution = module[0]
    assert isinstance(convolution, nn.Conv2d)
    edge = (9 - used) // 2
    with torch.no_grad():
        convolution.weight.zero_()
        convolution.weight[:, :, edge : 9 - edge, edge : 9 - edge] = 0.1
        convolution.bias.fill_(10.0)  # type: ignore[union-attr]
    return Network("planted", module.eval(), size=SIDE, resize=SIDE)


@pytest.mark.parametrize("used", [3, 5, 9])
def test_the_field_that_is_used_is_found(used: int) -> None:
    network, photographs = planted(used), noise_photographs(24)
    patches = top_patches(network, "0", photographs, units=[0], k=24)
    found = empirical_receptive_fields(network, photographs, patches, occluder=1, stride=1)
    assert found.theoretical.size == (9, 9)
    assert found.sizes[0] == pytest.approx(used, abs=0.6)
    assert found.ratios[0] == pytest.approx(used / 9, abs=0.07)


def test_nothing_changes_outside_the_theoretical_field() -> None:
    network, photographs = convolutional(), noise_photographs(4)
    patches = top_patches(network, "3", photographs, units=[3], k=2)
    found = empirical_receptive_fields(network, photographs, patches, occluder=3, stride=1)
    for rank in range(2):
        top, left, bottom, right = patches.boxes[0, rank]
        change = found.discrepancy[0, rank].copy()
        assert change[top:bottom, left:right].max() > 0
        # A pixel beyond the field changes only with an occluder that reaches into it.
        change[max(top - 2, 0) : bottom + 2, max(left - 2, 0) : right + 2] = 0
        assert change.max() == 0


class Pooling(nn.Module):
    """Multiplies maps by the mean of all of them, as squeeze-and-excitation does."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps * maps.mean((1, 2, 3), keepdim=True)


class OfOneSize(nn.Module):
    """Refuses images of another size than 32 px."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[-1] != SIDE:
            raise ValueError("expected 32 px")
        return images


class Uneven(nn.Module):
    """Tells columns of the image from each other by their place."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps + torch.arange(maps.shape[-1])


@pytest.mark.parametrize(
    ("middle", "widest"), [(nn.Identity(), 12), (Pooling(), SIDE), (OfOneSize(), SIDE), (Uneven(), SIDE)]
)
def test_only_the_surroundings_are_run_where_they_tell_the_activation(middle: nn.Module, widest: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            middle, nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1)
        )
    network, photographs = Network("striding", module.eval(), size=SIDE, resize=SIDE), noise_photographs(4)
    patches = top_patches(network, "3", photographs, units=range(4), k=2)
    shapes: list[torch.Size] = []
    handle = module.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    found = empirical_receptive_fields(network, photographs, patches, occluder=3, stride=2)
    handle.remove()
    # Single images are tried out; several at once are occluded.
    assert max(shape[-1] for shape in shapes if shape[0] > 1) == widest
    colours = torch.rand(3, 3, 3, generator=torch_generator(0, "occluder"))
    with torch.no_grad():
        for unit, rank in np.ndindex(4, 2):
            image = photographs.inputs(network, [int(patches.images[unit, rank])])
            row, column = patches.positions[unit, rank]
            clean = module(image)[0, unit, row, column]
            top, left, bottom, right = patches.boxes[unit, rank].tolist()
            total, count = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
            for y in range(0, SIDE - 2, 2):
                for x in range(0, SIDE - 2, 2):
                    if y + 3 <= top or y >= bottom or x + 3 <= left or x >= right:
                        continue
                    covered = image.clone()
                    covered[0, :, y : y + 3, x : x + 3] = network.normalise(colours[None])[0]
                    change = abs(float(module(covered)[0, unit, row, column] - clean))
                    total[y : y + 3, x : x + 3] += change
                    count[y : y + 3, x : x + 3] += 1
            expected = total / np.maximum(count, 1)
            assert np.allclose(found.discrepancy[unit, rank], expected, rtol=1e-4, atol=1e-5)


def test_size_of_a_map() -> None:
    change = np.zeros((20, 20))
    change[5:12, 3:10] = 1.0
    change[0, 0] = 0.05
    assert field_size(change) == 7
    assert field_size(np.zeros((4, 4))) == 0


def test_an_occluder_of_nothing_is_refused() -> None:
    photographs = noise_photographs(1)
    patches = top_patches(convolutional(), "3", photographs, units=[3], k=1)
    with pytest.raises(InputError, match="occluder"):
        empirical_receptive_fields(convolutional(), photographs, patches, occluder=0)


def test_a_patch_at_the_border_is_framed_where_it_was() -> None:
    network, photographs = planted(9), noise_photographs(3)
    patches = top_patches(network, "0", photographs, units=[0], k=1)
    # As if the strongest place had been the corner: of the 9 × 9 pixels, 5 × 5 lie within the image.
    corner = replace(
        patches,
        positions=np.zeros((1, 1, 2), dtype=np.int64),
        boxes=np.array([[[0, 0, 5, 5]]], dtype=np.int64),
    )
    frame = framed(np.zeros((5, 5, 3)), corner, 0, 0)
    assert frame.shape == (9, 9, 3)
    assert (frame[4:, 4:] == 0).all()
    assert int((frame[..., 0] == 0).sum()) == 25
