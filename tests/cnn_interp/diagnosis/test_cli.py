"""Every check from the command line, on a tiny network of the user's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from interpretkit.commandline.groups import Folder
from interpretkit.runs.folder import load_arrays, load_manifest

Run = Callable[..., tuple[int, dict[str, Any] | None, str]]

TINY = """
from cnn_interp.diagnosis.small_network import SmallNetwork
from cnn_interp.networks.network import Network

def network():
    names = ("dot", "stripe", "blank", "noise")
    return Network("tiny", SmallNetwork(3, 4, (4, 8, 8, 8)), size=32, resize=32, categories=names)

class Two(SmallNetwork):
    def forward(self, pixels):
        return super().forward(pixels), pixels

def two():
    return Network("two", Two(3, 4, (4, 8)), size=32, resize=32)
"""
OWN = ("--model", "tiny:network")

STRICT = """
from cnn_interp.diagnosis.small_network import SmallNetwork
from cnn_interp.networks.network import Network

class Strict(SmallNetwork):
    def forward(self, pixels):
        assert pixels.shape[-1] == 40, "only 40"
        return super().forward(pixels)

def network():
    return Network("strict", Strict(3, 4, (4, 8, 8, 8)), size=40, resize=40)
"""


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a check and gives exit code, JSON of the last line of stdout, and stderr."""
    (tmp_path / "tiny.py").write_text(TINY)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> tuple[int, dict[str, Any] | None, str]:
        with pytest.raises(SystemExit) as ended:
            Folder("cnn_interp.commands.cnn.diagnose").main(
                [*map(str, arguments), "--json"], prog_name="interpretkit cnn diagnose"
            )
        out, err = capfd.readouterr()
        assert len(out.splitlines()) <= 1
        code = ended.value.code
        return (0 if code is None else int(code)), (json.loads(out) if out.strip() else None), err

    return call


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        pixels = rng.integers(256, size=(40, 44, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((60, 50)).save(folder / f"{number}.png")
    return folder


def whole(folder: Path, *files: str) -> None:
    """Check that a result is complete and can be looked at."""
    manifest = load_manifest(folder)
    assert {"report.html", *files} <= set(manifest["files"])
    page = (folder / "report.html").read_text()
    assert 'src="data:image/webp;base64' in page
    assert "interpretkit cnn diagnose" in page
    assert not list(folder.parent.glob(f".{folder.name}*"))


def test_adversarial(run: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, found, _ = run(
        "adversarial",
        photos / "0.png",
        photos / "1.png",
        *OWN,
        "--epsilon",
        "4",
        "--steps",
        "3",
        "--out",
        out,
    )
    assert code == 0
    assert found is not None
    assert found["images"] == 2
    assert set(found["fooled"]) == {"fgsm", "pgd", "deepfool", "minimal"}
    whole(out, "attacks.csv", "attacks.npz", "attacks.png", "layers.png")
    arrays = load_arrays(out / "attacks.npz")
    for name in ("fgsm", "pgd"):
        assert np.abs(arrays[name] - arrays["originals"]).max() <= 4 / 255 + 1e-6
        assert arrays[name].min() >= 0
        assert arrays[name].max() <= 1
    assert len((out / "attacks.csv").read_text().splitlines()) == 9


def test_adversarial_with_a_target_repeats(run: Run, photos: Path, tmp_path: Path) -> None:
    tables = []
    for name in ("first", "second"):
        code, _, _ = run("adversarial", photos / "0.png", *OWN, "--target", "stripe", "--method", "pgd,minimal",
                         "--out", tmp_path / name)  # fmt: skip
        assert code == 0
        tables.append((tmp_path / name / "attacks.csv").read_text())
    assert tables[0] == tables[1]
    assert "stripe" in tables[0]


def test_one_pixel_on_images_and_on_digits(run: Run, photos: Path, tmp_path: Path) -> None:
    few = ("--population", "6", "--generations", "1")
    code, found, _ = run("one-pixel", photos, *OWN, *few, "--out", tmp_path / "photos-out")
    assert code == 0
    assert found is not None
    assert found["attacked"] == 4
    arrays = load_arrays(tmp_path / "photos-out" / "attacks.npz")
    changed = (arrays["originals"] != arrays["perturbed"]).any(axis=1).sum((1, 2))
    assert changed.max() <= 1
    code, found, _ = run(
        "one-pixel", *few, "--test-images", "6", "--epochs", "1", "--out", tmp_path / "digits"
    )
    assert code == 0
    assert found is not None
    assert 0 <= found["attacked"] <= 6
    whole(tmp_path / "digits", "attacks.csv", "attacks.png")


def test_networks_of_one_size_are_shown_images_of_that_size(run: Run, tmp_path: Path) -> None:
    (tmp_path / "strict.py").write_text(STRICT)
    for check in (["directions", "--directions", "20"], ["features"], ["probe", "--images", "40"]):
        code, found, err = run(*check, "--model", "strict:network", "--out", tmp_path / check[0])
        assert code == 0, err
        assert found is not None
    code, _, err = run("probe", "--model", "strict:network", "--side", "32", "--out", tmp_path / "small")
    assert code == 2
    assert "32 × 32 px" in err
    assert "only 40" in err


def test_directions_features_and_probe(run: Run, tmp_path: Path) -> None:
    code, found, _ = run("directions", *OWN, "--directions", "20", "--out", tmp_path / "directions")
    assert code == 0
    assert found is not None
    assert list(found["superiority"]) == [f"blocks.{n}" for n in range(4)]
    whole(tmp_path / "directions", "directions.csv", "directions.npz", "purity.png")
    code, found, _ = run("features", *OWN, "--side", "32", "--out", tmp_path / "features")
    assert code == 0
    assert found is not None
    for shares in found["shares"].values():
        assert sum(shares.values()) == pytest.approx(1)
        assert min(shares.values()) > -1e-9
    assert list(found["shares"]) == ["pixels", *(f"blocks.{n}" for n in range(4)), "output"]
    whole(tmp_path / "features", "shares.csv", "shares.png", "maps.png")
    code, found, _ = run("probe", *OWN, "--images", "80", "--side", "16", "--out", tmp_path / "probe")
    assert code == 0
    assert found is not None
    assert found["chance"] == pytest.approx(0.1)
    assert found["accuracies"]["pixels"] > 0.5
    whole(tmp_path / "probe", "probes.csv", "probes.png")


def test_transferability(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, found, _ = run("transferability", "--train-images", "10", "--epochs", "1", "--repeats", "1",
                         "--widths", "4,8", "--out", out)  # fmt: skip
    assert code == 0
    assert found is not None
    assert len(found["AnB"]) == 2
    whole(out, "accuracies.csv", "transfer.png")
    assert len((out / "accuracies.csv").read_text().splitlines()) == 1 + 1 + 2 * 4


def test_bias_of_a_users_network(run: Run, photos: Path, tmp_path: Path) -> None:
    for number in range(6):
        (photos / f"again-{number}.png").write_bytes((photos / f"{number % 4}.png").read_bytes())
    (tmp_path / "relations.csv").write_text("first,second,relation\ndot,stripe,positive\n")
    code, found, _ = run("bias", photos, *OWN, "--categories", "dot,stripe,blank,noise", "--layer", "blocks.1",
                         "--relations", "relations.csv", "--out", tmp_path / "out")  # fmt: skip
    assert code == 0
    assert found is not None
    assert set(found["suspected"]) == {"tiny:network"}
    whole(tmp_path / "out", "pairs.csv", "relations.npz", "relations.png")
    assert len((tmp_path / "out" / "pairs.csv").read_text().splitlines()) == 7


def test_what_is_unfinished_does_not_stop_a_run_with_other_arguments(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cnn_interp.diagnosis import transferability

    few = (
        "transferability",
        "--train-images",
        "10",
        "--repeats",
        "1",
        "--widths",
        "4",
        "--out",
        tmp_path / "out",
    )

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(transferability._Work, "treated", interrupted)
        assert run(*few, "--epochs", "1")[0] == 130
    assert not (tmp_path / "out").exists()
    assert len(list(tmp_path.glob(".out.unfinished-*"))) == 1
    assert run(*few, "--epochs", "2")[0] == 0
    assert run(*few, "--epochs", "1")[0] == 0
    assert not list(tmp_path.glob(".out*"))


def test_bad_input_gets_one_line_and_leaves_nothing(run: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "note.txt").write_text("no image")
    Image.new("CMYK", (40, 40)).save(tmp_path / "print.jpg")
    np.savez(tmp_path / "odd.npz", a=np.arange(3))
    image = photos / "0.png"

    def refused(*arguments: str | Path, mentions: str) -> None:
        code, found, err = run(*arguments, "--out", out)
        assert code == 2, err
        assert found is None
        assert len([line for line in err.splitlines() if not line.startswith("loading ")]) == 1
        assert mentions in err
        assert not out.exists()
        assert not list(tmp_path.glob(".out*"))

    refused("adversarial", tmp_path / "missing.png", *OWN, mentions="no such file")
    refused("adversarial", tmp_path / "note.txt", *OWN, mentions="not an image")
    refused("adversarial", tmp_path / "print.jpg", *OWN, mentions="--convert")
    refused("adversarial", image, *OWN, "--method", "magic", mentions="--method")
    refused("adversarial", image, *OWN, "--epsilon", "0", mentions="--epsilon")
    refused("adversarial", image, *OWN, "--epsilon", "1e9", mentions="--epsilon")
    refused("adversarial", image, *OWN, "--target", "moon", mentions="moon")
    refused("adversarial", image, *OWN, "--target", "dot", "--method", "deepfool", mentions="deepfool")
    refused("adversarial", image, *OWN, "--layer", "moon", mentions="moon")
    refused("adversarial", image, "--model", "tiny:moon", mentions="moon")
    refused("one-pixel", image, *OWN, "--population", "2", mentions="--population")
    refused("one-pixel", "--data", "moon", mentions="--data")
    refused("one-pixel", "--data", f"cifar10={tmp_path / 'odd.npz'}", mentions="jpeg")
    refused("directions", photos, *OWN, mentions="at least 18")
    refused("transferability", "--widths", "eight", mentions="--widths")
    refused("bias", image, *OWN, "--categories", "dot", mentions="--categories")
    refused("bias", image, *OWN, "--categories", "dot,stripe,moon", mentions="moon")
    refused("bias", image, *OWN, "--categories", "dot,stripe,blank", mentions="expected at least 10")
    refused("adversarial", image, "--model", "tiny:two", mentions="gives a tuple")
    refused("one-pixel", image, *OWN, "--pixels", "5000", mentions="1024 pixels")
    refused("transferability", "--widths", "4,4,4,4,4,4", mentions="at most 5")
    code, _, err = run("transferability", "--out", ".")
    assert code == 2
    assert "--out ." in err
    refused("bias", "--relations", tmp_path / "missing.csv", mentions="no such file")
    refused("features", *OWN, "--no-such-option", mentions="--no-such-option")
