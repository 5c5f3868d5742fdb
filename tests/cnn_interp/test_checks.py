"""What is said of networks and weights before torch is loaded is what torchvision and torch say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cnn_interp.networks.checks import check_network, check_weights, torchvision_networks
from cnn_interp.networks.loading import load_network
from cnn_interp.networks.weights import read_state_dict
from interpretkit.errors import InputError


def test_the_networks_read_from_the_source_are_torchvisions() -> None:
    from torchvision.models import get_model_weights, list_models

    known = torchvision_networks()
    assert set(known) == set(list_models())
    for name, network in known.items():
        members = list(get_model_weights(name))
        assert list(network.weights) == [member.name for member in members]
        if members:
            preset = getattr(members[0].transforms, "func", members[0].transforms)
            assert (not network.task) == (preset.__name__ == "ImageClassification"), name


@pytest.mark.parametrize(
    "name",
    [
        "resnet1800",
        "",
        "fasterrcnn_resnet50_fpn",
        "deeplabv3_resnet50",
        "resnet18@NONE",
        "no_such_module:net",
    ],
)
def test_both_checks_refuse_the_same(name: str) -> None:
    with pytest.raises(InputError) as early:
        check_network(name)
    with pytest.raises(InputError) as late:
        load_network(name, weights="random")
    assert str(early.value).partition(" (")[0] == str(late.value).partition(" (")[0]


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50@IMAGENET1K_V2", "timm:resnet18", "json:loads", "efficientnet_lite0"]
)
def test_networks_that_may_be_had_pass(name: str) -> None:
    check_network(name)


def test_a_module_of_the_current_folder_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "net.py").write_text("raise RuntimeError('not to be imported')")
    check_network("my_package.net:network")


def test_weights_are_looked_at_by_their_form(tmp_path: Path) -> None:
    state = torch.nn.Linear(50, 50).state_dict()
    good = {
        "zip.pth": lambda path: torch.save(state, path),
        "old.pth": lambda path: torch.save(state, path, _use_new_zipfile_serialization=False),
        "safe.safetensors": lambda path: save_file(state, path),
    }
    for name, save in good.items():
        path = tmp_path / name
        save(path)
        check_weights(str(path))
        whole = path.read_bytes()
        damaged = {"cut": whole[: len(whole) // 2], "empty": b"", "other": b"not weights at all" * 9}
        if name == "zip.pth":
            place = whole.index(state["weight"].numpy().tobytes()) + 400
            damaged["flipped"] = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        for kind, content in damaged.items():
            if (name, kind) == ("old.pth", "cut"):
                continue  # nothing at its beginning tells
            path.write_bytes(content)
            with pytest.raises(InputError, match="cannot be read"):
                check_weights(str(path))
            with pytest.raises(InputError):
                read_state_dict(path)
    named = tmp_path / "net-0123abcd.pth"
    torch.save(state, named)
    with pytest.raises(InputError, match="its name says 0123abcd"):
        check_weights(str(named))
    for missing in (tmp_path, tmp_path / "none.pth"):
        with pytest.raises(InputError, match=r"no such file|is a folder"):
            check_weights(str(missing))


def test_the_command_refuses_them_without_torch(tmp_path: Path) -> None:
    (tmp_path / "damaged.pth").write_bytes(b"PK\x03\x04 and no more")
    code = (
        "import sys\n"
        "from interpretkit.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules, 'numpy' in sys.modules)\n"
    )
    for words in (
        ["--weights", "damaged.pth"],
        ["--model", "resnet1800"],
        ["--model", "maskrcnn_resnet50_fpn"],
    ):
        for command in (["visualize"], ["dissect"], ["instability"], ["layers"], ["diagnose", "features"]):
            done = subprocess.run(
                [sys.executable, "-c", code, "cnn", *command, *words],
                cwd=tmp_path, capture_output=True, text=True, check=True,
            )  # fmt: skip
            assert done.stdout.split() == ["2", "False", "False"], done.stderr
            assert len(done.stderr.splitlines()) == 1
