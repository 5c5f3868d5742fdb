"""An edit of a network: saved, shared, undone, and applied to no other network; the network given stays as it is."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from edited_networks import BLUE, GREEN, LAYER, colour_network, squares

from cnn_interp.disentangling.features import trunk_features
from cnn_interp.images.batches import network_inputs
from cnn_interp.middle_to_end.network_edit import Base, LinearLayer, NetworkEdit, last_linear, load_edit
from cnn_interp.middle_to_end.patterns import find_patterns
from cnn_interp.networks import load_network
from cnn_interp.networks.network import Network
from interpretkit.errors import InputError
from interpretkit.networks.replaced import with_replaced

MODEL = "edited_networks:colour_network"


@pytest.fixture
def edit() -> NetworkEdit:
    network = load_network(MODEL)
    maps = trunk_features(network, squares(8), [LAYER])
    return NetworkEdit(Base.of(network, MODEL), find_patterns(maps, LAYER, "filters"))


def outputs(network: Network) -> torch.Tensor:
    with torch.no_grad():
        return network.module(network_inputs(network, squares(6, seed=3), range(6)))


def test_the_edit_does_what_setting_the_filter_does_and_leaves_the_network(edit: NetworkEdit) -> None:
    network = load_network(MODEL)
    before, state = outputs(network), {k: v.clone() for k, v in network.module.state_dict().items()}
    edited = edit.said(f"drop {BLUE}", f"rename {GREEN} leaf").apply(network)
    assert isinstance(network.module, nn.Sequential)
    with torch.no_grad():
        values = network.module[:2](network_inputs(network, squares(6, seed=3), range(6)))
        values[:, BLUE] = edit.patterns.rest[BLUE]
        expected = network.module[2:](values)
    torch.testing.assert_close(outputs(edited), expected)
    assert not torch.equal(expected, before)
    assert torch.equal(outputs(network), before)
    assert all(torch.equal(state[name], tensor) for name, tensor in network.module.state_dict().items())
    assert not any(module._forward_hooks for module in network.module.modules())
    # Undone, it is the network again; to the bit.
    assert torch.equal(outputs(edit.said(f"drop {BLUE}").undone().apply(network)), before)
    with pytest.raises(InputError, match="none to take back"):
        edit.undone()


def test_what_was_saved_is_the_same_network_wherever_a_network_is_loaded(
    edit: NetworkEdit, tmp_path: Path
) -> None:
    network = load_network(MODEL)
    refit = LinearLayer("linear", torch.eye(2, 4), torch.ones(2))
    said = replace(edit.said(f"drop {BLUE} {GREEN}"), refit=refit)
    said.save(tmp_path)
    again = load_edit(tmp_path)
    assert again.answers == said.answers
    assert torch.equal(outputs(again.apply(network)), outputs(said.apply(network)))
    loaded = load_network(str(tmp_path / "edit.json"))
    assert torch.equal(outputs(loaded), outputs(said.apply(network)))
    # Two edits of one network are two networks, though they have their weights in common.
    edit.said(f"drop {BLUE}").save(tmp_path / "other")
    assert load_network(str(tmp_path / "other" / "edit.json")).digest() != loaded.digest()


def test_another_network_is_refused_in_one_line(edit: NetworkEdit) -> None:
    with pytest.raises(InputError, match="is not the one that the edit was made for") as raised:
        edit.said("drop 0").apply(colour_network(seed=1))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ({"format": "other"}, "cannot be read as an edit"),
        ({"format_version": 9}, "format version 9"),
        ({"answers": ["drop 77"]}, "no pattern '77'"),
        ({"answers": ["drop 1"]}, "does not follow from the answers"),
        ({"patterns": {"kind": "spots"}}, "damaged"),
        ({"network": []}, "cannot be read as an edit"),
    ],
)
def test_a_damaged_edit_is_refused(
    damage: dict[str, object], complaint: str, edit: NetworkEdit, tmp_path: Path
) -> None:
    edit.said("drop 0").save(tmp_path)
    file = tmp_path / "edit.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(InputError, match=complaint):
        load_edit(tmp_path)


def test_files_of_two_edits_are_not_taken_for_one(edit: NetworkEdit, tmp_path: Path) -> None:
    edit.save(tmp_path / "one")
    maps = trunk_features(colour_network(), squares(9, seed=4), [LAYER])
    other = NetworkEdit(edit.base, find_patterns(maps, LAYER, "filters"))
    other.save(tmp_path / "two")
    (tmp_path / "one" / "edit.safetensors").write_bytes((tmp_path / "two" / "edit.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"is not the file that edit\.json was written with"):
        load_edit(tmp_path / "one")
    (tmp_path / "two" / "edit.safetensors").unlink()
    with pytest.raises(InputError, match="expected both files"):
        load_edit(tmp_path / "two")
    with pytest.raises(InputError, match=r"no edit\.json there"):
        load_edit(tmp_path)


def test_last_linear_is_the_one_that_gives_the_outputs() -> None:
    assert last_linear(colour_network()) == "linear"
    squashed = nn.Sequential(*colour_network().module.children(), nn.Softmax(dim=1))
    with pytest.raises(InputError, match="do not come from a linear layer"):
        last_linear(Network("squashed", squashed, size=16, resize=16))


# ------------------------------------------------------------------------------------------------- replaced modules


class Twice(nn.Module):
    """Has one layer under two names, and keeps a list of hooks of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.inner = nn.Sequential(nn.ReLU(), self.first)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(self.first(x))


def test_a_layer_is_replaced_under_all_its_names_and_weights_are_shared() -> None:
    module, x = Twice().eval(), torch.randn(2, 3)
    before = module(x)
    other = with_replaced(module, {"first": nn.Identity()})
    assert torch.equal(other(x), x.relu())
    assert torch.equal(module(x), before)
    kept = with_replaced(module, {"inner.0": nn.Identity()})
    assert kept.first is module.first  # type: ignore[union-attr]
    assert torch.equal(kept(x), module.first(module.first(x)))
    # A hook of one is none of the other's.
    seen: list[int] = []
    other.register_forward_hook(lambda *_: seen.append(1))
    module(x)
    assert not seen


def test_what_cannot_be_replaced_is_refused() -> None:
    with pytest.raises(InputError, match="replaced twice"):
        with_replaced(Twice(), {"first": nn.Identity(), "inner.1": nn.Identity()})
    with pytest.raises(InputError, match="the model has none of that name"):
        with_replaced(Twice(), {"absent": nn.Identity()})
    scripted = nn.Sequential(torch.jit.script(nn.ReLU()), nn.ReLU())
    with pytest.raises(InputError, match="TorchScript"):
        with_replaced(scripted, {"1": nn.Identity()})


def test_rest_is_the_mean_of_the_images(edit: NetworkEdit) -> None:
    maps = trunk_features(colour_network(), squares(8), [LAYER])[LAYER].maps
    np.testing.assert_allclose(edit.patterns.rest.numpy(), maps.mean(axis=(0, 2, 3)), rtol=1e-5)
