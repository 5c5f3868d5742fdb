import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cnn_interp.commands import _loading
from cnn_interp.commands.cnn.instability import best_follower
from cnn_interp.images import articulated_images
from cnn_interp.images.batches import landmarks_in_inputs, part_batches
from cnn_interp.metrics.location_instability import find_peaks, location_instability
from cnn_interp.networks.network import Network
from interpretkit.errors import InputError


def small_network():
    """Return a network of two layers that a test can afford; what a user would give as ``module:factory``."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=4, padding=2),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, stride=2, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(12, 4),
        )
    return Network("small", module, size=64)


@pytest.fixture
def own(monkeypatch):
    """Make the small network what is loaded by any name."""
    monkeypatch.setattr("cnn_interp.networks.loading.load_network", lambda name, **_: small_network())


def test_dissect_writes_a_report_and_the_units(own, run_command, tmp_path):
    out = tmp_path / "found"
    result = run_command("cnn", "dissect", "--images", "6", "--out", str(out), "--quiet", "--json")
    assert result.code == 0, result.err
    shown = result.found
    assert set(shown["2"]) >= {"unique_detectors", "by_best_category", "unique_detectors_random"}
    with (out / "units.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["unit"]) for row in rows] == list(range(12))
    detectors = sum(row["detector"] == "True" for row in rows)
    with np.load(out / "2.npz", allow_pickle=False) as arrays:
        assert arrays["iou"].shape[0] == 12
        assert detectors == (arrays["iou"].max(axis=1) > 0.04).sum()
        assert detectors > 0
    page = (out / "report.html").read_text()
    assert "random weights" in page
    assert "data:image/webp" in page
    assert json.loads((out / "manifest.json").read_text())["summary"]["2"] == shown["2"]


def test_instability_writes_a_report_and_the_parts(own, run_command, tmp_path):
    out = tmp_path / "found"
    options = ["--images", "100", "--layer", "0,2", "--top", "22", "--out", str(out), "--quiet", "--json"]
    result = run_command("cnn", "instability", *options)
    assert result.code == 0, result.err
    shown = result.found
    for layer, units in (("0", 8), ("2", 12)):
        assert 0 < shown[layer]["location_instability"] < 0.5
        assert shown[layer]["best_constant"] > 0
        assert 0 <= shown[layer]["part_interpretability"] <= 1
        with np.load(out / f"{layer}.npz", allow_pickle=False) as arrays:
            assert arrays["instability"].shape[2] == units
            judged = arrays["tracking"][arrays["images"] >= 20]
            assert 0 < len(judged) < arrays["images"].size
            assert np.nanmax(judged) == pytest.approx(shown[layer]["best_tracking_r2"])
    assert "always the centre" in (out / "report.html").read_text()


def test_of_few_images_no_follower_is_named(own, run_command, tmp_path):
    out = tmp_path / "found"
    result = run_command(
        "cnn", "instability", "--images", "8", "--out", str(out), "--layer", "2", "--quiet", "--json"
    )
    assert result.code == 0, result.err
    assert result.found["2"]["best_tracking_r2"] is None
    page = (out / "report.html").read_text()
    assert "too few images" in page
    assert "is not to be told" in page
    assert "best follower" not in page.lower()
    with (out / "parts.csv").open() as file:
        assert {row["by unit"] for row in csv.DictReader(file)} == {""}


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("elsewhere", "No unit follows any part"),
        ("still", "no part that 20 images show moves"),
        ("beside", "explains 100% of the movement of the bird's"),
    ],
)
def test_the_lead_names_a_follower_only_if_there_is_one(part, said):
    network = small_network()
    images = articulated_images(24, seed=0, side=64, negatives=0.0, categories=("bird",))
    inputs, _ = part_batches(network, images)
    peaks = find_peaks(network.module, ["2"], inputs)
    landmarks = landmarks_in_inputs(images, network.size)
    landmarks[...] = 30.3 if part == "still" else np.random.default_rng(0).uniform(10, 50, (24, 1, 2))
    # The first unit is where the part is, or mirrored; the others are less so.
    positions = (
        landmarks[:, :1]
        * (np.linspace(-1, -2, 12) if part == "elsewhere" else np.linspace(1, 2, 12))[:, None]
    )
    results = {
        "2": location_instability(
            peaks["2"].values,
            positions,
            landmarks,
            (64, 64),
            category_names=images.category_names,
            part_names=images.part_names,
        )
    }
    words = best_follower(results["2"])
    assert said in words
    assert ("The best follower is unit" in words) == (part == "beside")


def test_all_species_of_birds_are_one_category(tmp_path):
    folder = tmp_path / "birds"
    (folder / "parts").mkdir(parents=True)
    (folder / "images").mkdir()
    numbers = range(1, 7)
    lines = {
        "images.txt": "{0} {0}.png",
        "image_class_labels.txt": "{0} {0}",
        "classes.txt": "{0} species {0}",
        "train_test_split.txt": "{0} 1",
        "bounding_boxes.txt": "{0} 2 2 30 30",
        "parts/part_locs.txt": "{0} 1 9.0 12.0 1",
    }
    for name, line in lines.items():
        (folder / name).write_text("\n".join(line.format(number) for number in numbers) + "\n")
    (folder / "parts" / "parts.txt").write_text("1 beak\n")
    for number in numbers:
        Image.new("RGB", (40, 40)).save(folder / "images" / f"{number}.png")
    found, _ = _loading.load_parts(f"cub={folder}", 5, 0)
    assert found.category_names == ("bird",)
    assert found.categories.tolist() == [0] * 5
    assert found.annotated.all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dissect", "--data", "broden"], "expected composed or broden=PATH"),
        (["dissect", "--data", "broden=nowhere"], "no such file or folder"),
        (["dissect", "--layer", "nothing"], "none of that name"),
        (["instability", "--data", "faces=here"], "expected articulated"),
        (["instability", "--data", "animal-part=nowhere"], "no such file or folder"),
    ],
)
def test_bad_options_are_one_line(own, run_command, arguments, message, tmp_path):
    result = run_command("cnn", *arguments, "--images", "2", "--out", str(tmp_path / "found"))
    assert result.code == 2
    assert message in result.err
    assert not (tmp_path / "found").exists()


def test_the_last_layer_with_a_map_is_the_default():
    assert _loading.chosen_layers(small_network(), "") == ["2"]
    block = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert _loading.chosen_layers(Network("block", block, size=16), "") == ["0.1"]
    assert _loading.chosen_layers(small_network(), "0, 2,0") == ["0", "2"]
    flat = SimpleNamespace(name="flat", module=nn.Flatten(), size=8, device=torch.device("cpu"))
    with pytest.raises(InputError, match="no layer that gives maps"):
        _loading.chosen_layers(flat, "")  # type: ignore[arg-type]


def test_images_are_spread_over_the_data():
    assert _loading.spread(10, 4) == [0, 2, 5, 7]
    assert _loading.spread(3, 9) == [0, 1, 2]
