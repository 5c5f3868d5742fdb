"""The command: images and folders through methods and systems; what it refuses, and what it leaves behind."""

from __future__ import annotations

import importlib
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cnn_interp.images.photographs import Photographs
from cnn_interp.networks.loading import load_network
from cnn_interp.visualization import request, settings, systems
from cnn_interp.visualization.settings import read_settings
from cnn_interp.visualization.sheet import gallery, heat, overlay, percent
from interpretkit import attribution
from interpretkit.attribution import METHODS, attribute
from interpretkit.commandline.groups import Folder
from interpretkit.errors import InputError

# The networks' factories are named on the command line, so their module must be found by its name.
sys.path.insert(0, str(Path(__file__).parent))
import small_networks

app = Folder("cnn_interp.commands.cnn")
CallCommand = Callable[..., tuple[int, dict[str, Any] | None, str]]
COLOURS = "small_networks:colour_classifier"
CONVOLUTIONAL = "small_networks:convolutional"
PAIR = "small_networks:scores_and_maps"
FLAT = "small_networks:linear"


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CallCommand:
    """Return a function that runs the command and gives exit code, JSON and stderr; results are in tmp_path/out."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> tuple[int, dict[str, Any] | None, str]:
        with pytest.raises(SystemExit) as ended:
            app.main(["visualize", *map(str, arguments), "--out", "out", "--device", "cpu", "--json"])
        out, err = capfd.readouterr()
        code = ended.value.code
        return (0 if code is None else int(code)), (json.loads(out) if out.strip() else None), err

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of four images."""
    images = tmp_path / "photos"
    images.mkdir()
    photographs = small_networks.noise_photographs(4)
    for number in range(4):
        photographs.load(number).save(images / f"{number}.png")
    return images


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in ("photos", "bad", "bad.pth"))


def test_one_image_gives_a_sheet_arrays_and_a_report(call: CallCommand, tmp_path: Path, folder: Path) -> None:
    Image.new("RGB", (40, 40), (200, 30, 20)).save(tmp_path / "photos" / "red.png")
    code, found, _ = call(folder / "red.png", "--model", COLOURS, "--method", "gradcam,saliency,occlusion")
    assert code == 0
    assert found is not None
    assert found["n_images"] == 1
    assert found["targets"] == ["red"]
    assert "weights" in found
    out = tmp_path / "out"
    arrays = np.load(out / "arrays" / "000000-red.npz")
    assert {name: arrays[name].shape for name in arrays.files} == {
        "gradcam": (1, 32, 32),
        "saliency": (3, 32, 32),
        "occlusion": (1, 32, 32),
    }
    width, height = Image.open(out / "sheet.png").size
    assert width > 3 * height / 2
    assert "data:image/webp;base64" in (out / "report.html").read_text()
    assert json.loads((out / "manifest.json").read_text())["summary"]["n_images"] == 1
    assert left_behind(tmp_path) == ["out"]


def test_the_target_can_be_named(call: CallCommand, folder: Path) -> None:
    code, found, _ = call(
        folder, "--model", COLOURS, "--method", "saliency", "--target", "Dark", "--limit", "2"
    )
    assert code == 0
    assert found is not None
    assert found["targets"] == ["dark"]
    assert found["n_images"] == 2


def test_methods_take_settings(call: CallCommand, tmp_path: Path, folder: Path) -> None:
    settings = ("occlusion.window=16", "occlusion.baseline=1", "gradcam.rectify=false")
    arguments = [word for setting in settings for word in ("--set", setting)]
    one = ("--model", COLOURS, "--method", "occlusion,gradcam", "--limit", "1")
    code, _, _ = call(folder, *one, *arguments, "--images-per-forward", "3")
    assert code == 0
    arrays = np.load(next((tmp_path / "out" / "arrays").iterdir()))
    network = load_network(COLOURS)
    inputs = Photographs.of_files([next(iter(sorted(folder.iterdir())))]).inputs(network, [0])
    expected = attribute(network.module, inputs, method="occlusion", window=16, baseline=1.0).numpy()[0]
    np.testing.assert_allclose(arrays["occlusion"], expected, rtol=1e-5, atol=1e-6)
    expected = attribute(network.module, inputs, method="gradcam", rectify=False).numpy()[0]
    np.testing.assert_allclose(arrays["gradcam"], expected, rtol=1e-5, atol=1e-6)
    assert arrays["gradcam"].min() < 0


def test_every_setting_is_read_as_its_method_takes_it() -> None:
    for name, method in METHODS.items():
        for option, default in method.options.items():
            if default is not None:
                text = str(default).lower() if isinstance(default, bool) else str(default)
                read = read_settings([f"{name}.{option}={text}"], [name])[name][option]
                assert read == default
                assert type(read) is type(default)


def test_every_method_of_attribution_has_a_name_here() -> None:
    able = [name for name, method in METHODS.items() if not method.requires]
    asked = request.check_request(",".join(able), "", "")
    assert asked.attributions == tuple(able)
    for name in set(METHODS) - set(able):
        with pytest.raises(InputError, match=f"method {name}: needs .*, which only Python gives it"):
            request.check_request(name, "", "")


def test_the_table_of_methods_says_what_the_methods_say() -> None:
    """Where this fails: python -m cnn_interp.visualization.settings"""
    assert settings.known_methods() == json.loads(json.dumps(settings.make_table()))


@pytest.mark.parametrize("option", list(settings.RANGES))
def test_what_is_out_of_range_the_methods_refuse_as_well(option: str) -> None:
    least, strictly, most = settings.RANGES[option]
    wrong = [least if strictly else least - 1, *([most] if math.isfinite(most) else [])]
    network = load_network(COLOURS)
    inputs = Photographs.bundled().inputs(network, [0])
    owners = [name for name, method in METHODS.items() if option in method.options]
    assert owners
    for name in owners:
        for value in wrong:
            number = f"{value:g}"
            with pytest.raises(InputError, match=f"{name}.{option}={re.escape(number)}"):
                read_settings([f"{name}.{option}={number}"], [name])
            kind = (
                int
                if "int" in settings.known_methods()["attributions"][name]["options"][option]["kinds"]
                else float
            )
            chosen: dict[str, Any] = {option: kind(value)}
            with pytest.raises(InputError):
                attribute(network.module, inputs, 0, method=name, **chosen)


def test_wrong_options_are_refused_without_torch(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "note.png").write_text("no image")
    code = (
        "import sys\n"
        "from interpretkit.cli import main\n"
        "try: main(['cnn', 'visualize', *sys.argv[1:]])\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)\n"
    )
    for words in (
        ["--method", "gradcamm"],
        ["--method", "occlusion", "--set", "occlusion.window=0"],
        ["--method", "occlusion", "--set", "occlusion.window=nan"],
        ["--method", "rise", "--set", "rise.keep=1"],
        ["--method", "occlusion", "--set", "occlusion.window=2", "--set", "occlusion.window=3"],
        ["--unit", "3"],
        ["--layer", "x", "--method", "saliency"],
        ["--limit", "3"],
        ["--images-per-forward", "3", "--method", "top_patches"],
        ["missing.png"],
        ["note.png"],
        ["--out", "note.png"],
        ["--out", "note.png/out"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["2", "False"], (words, done.stderr)
        assert len(done.stderr.splitlines()) == 1


def test_systems_of_units(call: CallCommand, tmp_path: Path, folder: Path) -> None:
    names = "top_patches,deconvnet_projection,receptive_fields"
    code, found, err = call(
        folder, "--model", CONVOLUTIONAL, "--method", names, "--layer", "3", "--unit", "1,4"
    )
    assert code == 0, err
    assert found is not None
    assert found["top_patches"]["units"] == [1, 4]
    assert 0 < found["receptive_fields"]["used_px"] < 40
    for name in names.split(","):
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 1000
        assert np.load(tmp_path / "out" / f"{name}.npz").files
    assert "Receptive fields" in (tmp_path / "out" / "report.html").read_text()


def test_an_interrupted_folder_goes_on(
    call: CallCommand, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (folder, "--model", COLOURS, "--method", "saliency")
    done: list[int] = []
    attribute = attribution.attribute

    def failing(*args: Any, **options: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return attribute(*args, **options)

    monkeypatch.setattr(attribution, "attribute", failing)
    code, _, _ = call(*arguments)
    assert code == 130
    assert not (tmp_path / "out").exists()

    def counting(*args: Any, **options: Any) -> Any:
        done.append(1)
        return attribute(*args, **options)

    monkeypatch.setattr(attribution, "attribute", counting)
    code, found, _ = call(*arguments)
    assert code == 0
    assert found is not None
    assert found["n_images"] == 4
    assert len(done) == 4
    assert len(list((tmp_path / "out" / "arrays").iterdir())) == 4
    assert left_behind(tmp_path) == ["out"]


NETWORK = """
import torch
from pathlib import Path
from torch import nn
from my_parts import SIGN
HIDDEN = torch.load("hidden.pt", weights_only=True)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.plain = torch.load("plain.pt", weights_only=True)
        self.layer = nn.Conv2d(3, 2, 3)
        self.layer.load_state_dict(torch.load("weights.pt", weights_only=True))
    def forward(self, x):
        return SIGN * self.plain * HIDDEN * self.layer(x).mean((2, 3))

def net():
    return Net()
"""


@pytest.mark.parametrize(
    "changed", ["weights.pt", "plain.pt", "hidden.pt", "my_parts.py", "my_net.py", "1.png"]
)
def test_a_run_never_mixes_two_networks(
    call: CallCommand, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """Stopped after two of four images, then called again with something else behind the same names."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "my_net.py").write_text(NETWORK)
    (tmp_path / "my_parts.py").write_text("SIGN = 1.0\n")
    torch.manual_seed(0)
    torch.save(torch.nn.Conv2d(3, 2, 3).state_dict(), tmp_path / "weights.pt")
    for name in ("plain.pt", "hidden.pt"):
        torch.save(torch.tensor(1.0), tmp_path / name)
    attribute, done = attribution.attribute, []

    def stopping(*args: Any, **options: Any) -> Any:
        done.append(1)
        if len(done) == 3:
            raise KeyboardInterrupt
        return attribute(*args, **options)

    def run() -> int:
        for name in ("my_net", "my_parts"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return call(folder, "--model", "my_net:net", "--method", "input_x_gradient", "--target", "0")[0]

    monkeypatch.setattr(attribution, "attribute", stopping)
    assert run() == 130
    assert [name.partition("-")[0] for name in left_behind(tmp_path) if name.startswith(".")] == [
        ".out.unfinished"
    ]
    if changed == "my_parts.py":
        (tmp_path / changed).write_text("SIGN = 2.0\n")
    elif changed == "my_net.py":
        (tmp_path / changed).write_text(NETWORK.replace("return SIGN", "return 3 * SIGN"))
    elif changed == "1.png":
        small_networks.noise_photographs(9).load(8).save(folder / changed)
    elif changed == "weights.pt":
        torch.save(torch.nn.Conv2d(3, 2, 3).state_dict(), tmp_path / changed)
    else:
        torch.save(torch.tensor(5.0), tmp_path / changed)
    assert run() == 0
    assert len(done) == 3 + 4
    assert [name for name in left_behind(tmp_path) if name.startswith(".")] == []
    sys.modules.pop("my_net")
    network = load_network("my_net:net")
    for number, path in enumerate(sorted(folder.iterdir())):
        inputs = Photographs.of_files([path]).inputs(network, [0])
        expected = attribute(network.module, inputs, 0, method="input_x_gradient").numpy()[0]
        (file,) = (tmp_path / "out" / "arrays").glob(f"{number:06d}-*.npz")
        np.testing.assert_allclose(np.load(file)["input_x_gradient"], expected, rtol=1e-4, atol=1e-6)
    for name in ("my_net", "my_parts"):
        sys.modules.pop(name, None)


def test_an_interrupted_run_of_systems_alone_leaves_nothing(
    call: CallCommand, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def interrupted(*_: object) -> None:
        seen.append(left_behind(tmp_path))
        raise KeyboardInterrupt

    monkeypatch.setitem(systems.SYSTEMS, "inversion", interrupted)
    code, _, _ = call(folder, "--model", COLOURS, "--method", "inversion")
    assert code == 130
    assert [name.partition("-")[0] for name in seen[0]] == [".out.partial"]
    assert left_behind(tmp_path) == []


def save_bad_images(folder: Path) -> None:
    folder.mkdir()
    (folder / "text.png").write_text("not an image")
    (folder / "empty.png").write_bytes(b"")
    Image.new("RGB", (1, 1)).save(folder / "pixel.png")
    Image.new("CMYK", (40, 40)).save(folder / "cmyk.jpg")
    Image.new("I;16", (40, 40)).save(folder / "deep.png")
    Image.new("RGBA", (40, 40), (0, 0, 0, 100)).save(folder / "alpha.png")


@pytest.mark.parametrize("name", ["text.png", "empty.png", "pixel.png", "cmyk.jpg", "deep.png", "alpha.png"])
def test_bad_images_are_refused_in_one_line(
    call: CallCommand, tmp_path: Path, folder: Path, name: str
) -> None:
    save_bad_images(tmp_path / "bad")
    # Also after good ones, of which nothing may be left.
    code, found, err = call(folder, tmp_path / "bad" / name, "--model", COLOURS, "--method", "saliency")
    assert code == 2
    assert found is None
    assert len([line for line in err.splitlines() if not line.startswith("loading ")]) == 1
    assert name in err
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("name", ["cmyk.jpg", "deep.png", "alpha.png"])
def test_odd_images_can_be_converted(call: CallCommand, tmp_path: Path, name: str) -> None:
    save_bad_images(tmp_path / "bad")
    code, _, err = call(tmp_path / "bad" / name, "--model", COLOURS, "--method", "saliency", "--convert")
    assert code == 0, err


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        (("--method", "gradcamm"), "gradcam"),
        (("--method", ","), "--method"),
        (("--method", "gradcam", "--layer", "nowhere"), "nowhere"),
        (("--method", "saliency", "--layer", "0"), "--layer"),
        (("--method", "saliency", "--target", "5"), "0 to 4"),
        (("--method", "saliency", "--target", "-1"), "target"),
        (("--method", "saliency", "--target", "purple"), "purple"),
        (("--method", "saliency", "--unit", "3"), "--unit"),
        (("--method", "top_patches", "--layer", "0", "--unit", "one"), "--unit"),
        (("--method", "top_patches", "--layer", "0", "--unit", "99"), "unit 99"),
        (("--method", "activation_maximization", "--unit", "1"), "--layer"),
        (("--method", "occlusion", "--set", "occlusion"), "METHOD.OPTION=VALUE"),
        (("--method", "occlusion", "--set", "lime.samples=9"), "lime does not run"),
        (("--method", "occlusion", "--set", "occlusion.windoww=9"), "did you mean window?"),
        (("--method", "occlusion", "--set", "occlusion.window=nine"), "a whole number"),
        (("--method", "occlusion", "--set", "occlusion.window=-9"), "window"),
        (("--method", "gradcam", "--set", "gradcam.reshape=x"), "no such option"),
        (("--method", "gradcam", "--set", "gradcam.rectify=maybe"), "true or false"),
        (("--method", "gradcam", "--images-per-forward", "0"), "--images-per-forward"),
        (("--weights", "bad.pth"), "bad.pth"),
        (("--model", "resnet1800"), "resnet1800"),
        (("missing.png",), "missing.png"),
        (("--limit", "0"), "--limit"),
        (("--model", PAIR), "gives a tuple"),
        (("--model", FLAT, "--method", "inversion"), "expected --layer to name one"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    call: CallCommand, tmp_path: Path, folder: Path, arguments: tuple[str, ...], mentions: str
) -> None:
    (tmp_path / "bad.pth").write_bytes(b"damaged")
    images = () if arguments[0].endswith(".png") else (folder,)
    code, found, err = call("--model", COLOURS, *images, *arguments)
    assert code == 2
    assert found is None
    assert len([line for line in err.splitlines() if not line.startswith("loading ")]) == 1
    assert mentions in err
    assert left_behind(tmp_path) == []


def test_layers_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app.main(["layers", "--model", CONVOLUTIONAL, "--device", "cpu", "--json"])
    assert not ended.value.code
    found = json.loads(capfd.readouterr().out)["layers"]
    assert [row["layer"] for row in found] == ["0", "1", "2", "3", "4", "5"]
    assert found[3] == {"layer": "3", "type": "Conv2d", "channels": 16, "height": 16, "width": 16}


def test_heat_keeps_signs_and_scale() -> None:
    values = np.zeros((1, 20, 20))
    values[0, 4:8, 4:8], values[0, 12:16, 12:16] = 3.0, -1.5
    warmth = heat(values)
    assert warmth[5, 5] == 1
    assert warmth[13, 13] == pytest.approx(-0.5)
    assert heat(values, signed=False)[13, 13] == pytest.approx(0.5)
    assert not heat(np.zeros((3, 20, 20))).any()
    picture = overlay(np.full((20, 20, 3), 0.5), warmth)
    assert picture[5, 5, 0] > picture[5, 5, 2]
    assert picture[13, 13, 2] > picture[13, 13, 0]
    assert np.ptp(picture[0, 0]) < 1e-9


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0, "0%"),
        (1e-9, "<0.01%"),
        (0.001, "0.10%"),
        (0.714, "71%"),
        (0.999, "99.90%"),
        (1 - 1e-9, ">99.99%"),
        (1, "100%"),
    ],
)
def test_a_small_probability_is_not_called_none(share: float, said: str) -> None:
    assert percent(share) == said


def test_single_pictures_stand_side_by_side() -> None:
    picture = np.zeros((4, 4, 3))
    figure = gallery({"made": [(picture, "zebra")], "best": [(picture, "1.3")]})
    width, height = figure.get_size_inches()
    assert width > height
    assert [axes.get_title() for axes in figure.axes] == ["made", "best"]
    assert len(gallery({"a": [(picture, "")] * 3, "b": [(picture, "")]}).axes) == 6
