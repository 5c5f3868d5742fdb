from pathlib import Path

import pytest
import torch

from interpretkit.errors import InputError
from interpretkit.training import load_config, load_model, save_model


def build(config):
    return torch.nn.Linear(config["inputs"], config["outputs"])


def test_a_model_comes_back_with_weights_and_configuration(tmp_path: Path):
    model = build({"inputs": 3, "outputs": 2})
    path = tmp_path / "model.safetensors"
    save_model(path, model, {"inputs": 3, "outputs": 2, "note": "Größe"})
    assert load_config(path)["note"] == "Größe"
    again = load_model(path, build)
    assert torch.equal(model.weight, again.weight)
    assert not again.training
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_half_precision_halves_the_file_and_comes_back_in_full(tmp_path: Path):
    model = build({"inputs": 300, "outputs": 200})
    for name, half in (("full", False), ("half", True)):
        save_model(tmp_path / name, model, {"inputs": 300, "outputs": 200}, half=half)
    sizes = [(tmp_path / name).stat().st_size for name in ("half", "full")]
    assert sizes[0] == pytest.approx(sizes[1] / 2, rel=0.02)
    again = load_model(tmp_path / "half", build)
    assert again.weight.dtype == torch.float32
    torch.testing.assert_close(again.weight, model.weight, rtol=1e-3, atol=1e-6)


def test_tied_weights_stay_tied(tmp_path: Path):
    def tied(config):
        first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        second.weight = first.weight
        return torch.nn.Sequential(first, second)

    model = tied({})
    save_model(tmp_path / "m.safetensors", model, {})
    again = load_model(tmp_path / "m.safetensors", tied)
    assert again[1].weight is again[0].weight
    assert torch.equal(again.state_dict()["0.weight"], model.state_dict()["0.weight"])


def test_files_that_are_no_models_are_refused(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(InputError, match="no such file"):
        load_model(path, build)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read"):
        load_model(path, build)
    save_model(path, torch.nn.Linear(3, 2), {"inputs": 4, "outputs": 2})
    with pytest.raises(InputError, match="do not fit"):
        load_model(path, build)


def test_a_failed_save_leaves_the_earlier_file(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    save_model(path, torch.nn.Linear(3, 2), {"inputs": 3, "outputs": 2})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="uninitialized"):
        save_model(path, torch.nn.LazyLinear(2), {})
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
