"""The commands end with a report and true numbers, and say in one line what was wrong with their input."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnn_interp.diagnosis.question_answering.answerer import Answerer, save_answerer
from interpretkit.commandline.groups import Folder

Run = Callable[..., tuple[int, dict[str, Any] | None, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command and gives exit code, JSON of the last line of stdout, and stderr."""

    def call(*arguments: str | Path) -> tuple[int, dict[str, Any] | None, str]:
        with pytest.raises(SystemExit) as ended:
            Folder("cnn_interp.commands.cnn.diagnose").main([str(a) for a in arguments])
        out, err = capfd.readouterr()
        code = ended.value.code
        shown = json.loads(out) if out.strip().startswith("{") else None
        return (0 if code is None else int(code)), shown, err

    return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return images of two labels, dark and light, of which one dark one lies among the light."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for label, grey in (("dark", 40), ("light", 210)):
        (folder / label).mkdir()
        for number in range(12):
            pixels = np.clip(generator.normal(grey, 12, (48, 48, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    pixels = np.clip(generator.normal(40, 12, (48, 48, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "light" / "wrong.png")
    return folder


def assert_report(out: Path) -> None:
    assert 'src="data:image/webp;base64' in (out / "report.html").read_text()
    assert json.loads((out / "manifest.json").read_text())["files"]


def test_influence_of_digits(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, found, _ = run(
        "influence", "--out", out, "--leave-out", "12", "--questions", "2", "--quiet", "--json"
    )
    assert code == 0
    assert found is not None
    assert found["rank_correlation"] > 0.9
    assert found["found_in_20%"] > 0.9
    rows = list(csv.DictReader((out / "suspects.csv").open()))
    assert [row["falsified"] for row in rows[:10]].count("True") >= 8
    assert_report(out)


def test_a_users_mislabelled_image_is_the_first_suspect(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--model", "mobilenet_v3_small", "--leave-out", "0", "--questions", "2", "--quiet", "--json")
    # The test images are the training images, so that the wrong one is not held out.
    from unittest.mock import patch

    from cnn_interp.networks import loading as models

    load = models.load_network
    with patch.object(models, "load_network", lambda name, **kw: load(name, weights="random", **kw)):
        code, found, err = run("influence", folder, "--test", folder, "--out", out, *options)
    assert code == 0, err
    assert found is not None
    assert found["most_suspect"] == "light/wrong.png"
    assert found["n_train"] == found["n_test"] == 25
    assert_report(out)


def predictions(path: Path, *, labels: bool) -> Path:
    generator = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "predicted", "confidence", "label", "weather", "time"])
        for number in range(300):
            weather, time = generator.choice(["sun", "rain"]), generator.choice(["day", "night"])
            truth = "bus" if weather == "rain" and time == "night" else "car"
            writer.writerow(
                [f"{number}.jpg", "car", generator.uniform(0.6, 1), truth if labels else "", weather, time]
            )
    return path


def test_unknown_unknowns_of_a_table(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    table = predictions(tmp_path / "p.csv", labels=True)
    code, found, _ = run(
        "unknown-unknowns", "--table", table, "--budget", "40", "--out", out, "--quiet", "--json"
    )
    assert code == 0
    assert found is not None
    assert "weather is rain" in found["worst_part"] or "time is night" in found["worst_part"]
    assert found["errors_found"] > 1.3 * found["errors_at_random"]
    assert not any("AT RANDOM" in line for line in found.get("warnings", []))
    assert_report(out)


def test_a_table_without_labels_gives_what_to_label(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    table = predictions(tmp_path / "p.csv", labels=False)
    code, found, _ = run(
        "unknown-unknowns", "--table", table, "--budget", "20", "--out", out, "--quiet", "--json"
    )
    assert code == 0
    assert found is not None
    rows = list(csv.DictReader((out / "to-label.csv").open()))
    assert len(rows) == found["n_to_label"] == 20
    assert len({row["part"] for row in rows}) == found["n_parts"]


def test_rules_on_digits(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, found, _ = run("rules", "--out", out, "--quiet", "--json")
    assert code == 0
    assert found is not None
    assert found["student"] > found["plain"]
    assert found["warnings"] == []
    assert found["n_labelled"] == 30
    assert_report(out)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "answerer.safetensors"
    save_answerer(path, Answerer(width=16))
    return path


def test_questions_about_a_users_picture(run: Run, folder: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, found, err = run(
        "vqa", "--answerer", model, "--image", folder / "dark" / "0.png", "--question", "what colour is the circle",
        "--questions", "40", "--out", out, "--quiet", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert found is not None
    assert found["what colour is the circle"]
    # Untrained, it knows no more than the words tell.
    assert found["accuracy"] < 0.5
    assert any("NO BETTER THAN ANSWERING WITHOUT THE IMAGE" in line for line in found["warnings"])
    assert 'class="alarm"' in (out / "report.html").read_text()
    assert_report(out)


def test_few_questions_lack_some_kinds(run: Run, model: Path, tmp_path: Path) -> None:
    code, found, err = run(
        "vqa", "--answerer", model, "--questions", "8", "--out", tmp_path / "run", "--quiet", "--json"
    )
    assert code == 0, err
    assert found is not None
    assert "Warning" not in err
    assert "nan" not in (tmp_path / "run" / "accuracy.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["influence", "absent"], "absent"),
        (["influence", "--flip", "0.7"], "--flip 0.7: expected a share"),
        (["influence", "--l2", "0"], "--l2 0"),
        (["influence", "--l2", "inf"], "--l2 inf"),
        (["unknown-unknowns", "--table", "absent.csv"], "absent.csv"),
        (["unknown-unknowns", "--threshold", "2"], "--threshold 2"),
        (["rules", "--rule", "no hole -> 12"], "no category '12'"),
        (["rules", "--strength", "0"], "--strength 0"),
        (["rules", "--strength", "nan"], "--strength nan"),
        (["rules", "--images", "here"], "needs --attributes"),
        (["vqa", "--question", "what is it"], "expected both"),
        (["vqa", "--image", "x.png", "--question", "who are you"], "'who' is not known"),
        (["vqa", "--answerer", "absent.safetensors"], "absent.safetensors: no such file"),
        (["vqa", "--epochs", "0"], "--epochs"),
    ],
)
def test_bad_input_is_told_in_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64)).save("x.png")
    out = tmp_path / "run"
    code, _, err = run(*arguments, "--out", out)
    assert code == 2
    assert message in err
    assert len([line for line in err.splitlines() if not line.startswith("loading ")]) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("predicted,label\ncat,cat\n", "no column 'confidence'"),
        ("predicted,confidence,sky\ncat,high,blue\n", "line 2 has the confidence 'high'"),
        ("predicted,confidence,sky\ncat,1.5,blue\n", "line 2 has the confidence 1.5"),
        ("predicted,confidence\ncat,0.9\n", "expected attributes"),
        ("predicted,confidence,sky\ncat,0.2,blue\n", "no prediction is so sure"),
        ("", "holds no rows"),
    ],
)
def test_tables_that_cannot_be_used(run: Run, tmp_path: Path, content: str, message: str) -> None:
    table = tmp_path / "p.csv"
    table.write_text(content)
    code, _, err = run("unknown-unknowns", "--table", table, "--out", tmp_path / "run")
    assert code == 2
    assert message in err
    assert len([line for line in err.splitlines() if not line.startswith("loading ")]) == 1
