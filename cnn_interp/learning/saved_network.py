"""Interpretable networks in a file: the trained layers, and by which name and weights their trunk is had again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnn_interp.learning.competing_filters import CompetingLayers, CompetingSettings
from cnn_interp.learning.interpretable_network import InterpretableNetwork, PartLayers, Settings
from cnn_interp.networks.checks import check_sum
from cnn_interp.networks.loading import load_network
from cnn_interp.networks.network import Network
from interpretkit.errors import InputError
from interpretkit.training import derive_seed, load_config, load_model, save_model

KIND = "interpretable-network"
OTHER = "other"
"""What the second output of a network for one category is called."""
_LAYERS = {"part-layers": (PartLayers, Settings), "competing": (CompetingLayers, CompetingSettings)}


def weights_digest(network: Network) -> str:
    """Return a hash of a network's weights, and of the code of a user's own, as 64 hexadecimal digits."""
    digest = hashlib.sha256(network.code.encode())
    for name, tensor in network.module.state_dict().items():
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(plain.shape)} {plain.dtype}".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def assembled(trunk: Network, layer: str, layers: nn.Module, categories: Sequence[str]) -> Network:
    """Return a trunk with trained layers on it as a network that every check takes.

    Parameters
    ----------
    trunk : Network
        As the layers were trained on it.
    layer : str
        The layer whose maps they take.
    layers : PartLayers or CompetingLayers
        On the trunk's device.
    categories : sequence of str
        What the outputs are called; of layers for one category, that one.
    """
    names = tuple(categories) if len(categories) > 1 else (*categories, OTHER)
    module = InterpretableNetwork(trunk.module, layer, layers).eval()
    return replace(trunk, module=module, categories=names)


def save_network(
    path: Path | str,
    trunk: Network,
    layer: str,
    layers: nn.Module,
    categories: Sequence[str],
    *,
    loaded_by: str = "",
    weights: str = "pretrained",
    seed: int = 0,
    trained_on: str = "",
) -> None:
    """Write trained layers to a file by which :func:`cnn_interp.networks.load_network` finds the whole network.

    The trunk's weights are not in it: they are had again by the trunk's name, and compared.

    Parameters
    ----------
    path : path
        Ending in ``.safetensors``.
    trunk, layer, layers, categories
        As :func:`assembled` takes them.
    loaded_by : str
        The name that :func:`~cnn_interp.networks.load_network` was given for the trunk; the trunk's own by default.
    weights : str
        What the trunk was loaded with: ``pretrained``, ``random`` or a file.
    seed : int
        Of the training, and of a trunk with random weights.
    trained_on : str
        What the images are called.
    """
    if not isinstance(layers, (PartLayers, CompetingLayers)):
        raise TypeError(
            f"layers of type {type(layers).__name__} are not trained here; expected PartLayers or competing"
        )
    (kind,) = (name for name, (of_kind, _) in _LAYERS.items() if type(layers) is of_kind)
    config = {
        "kind": KIND,
        "layers": kind,
        "channels": layers.channels,
        "settings": asdict(layers.settings),
        "categories": list(categories),
        "trunk": loaded_by or trunk.name,
        "weights": weights if weights in ("pretrained", "random") else str(Path(weights).resolve()),
        "layer": layer,
        "seed": seed,
        "digest": weights_digest(trunk),
        "trained_on": trained_on,
    }
    save_model(path, layers, config)


def layers_of(path: Path | str, device: torch.device | str = "cpu") -> PartLayers | CompetingLayers:
    """Return the trained layers of a file, without their trunk.

    Raises
    ------
    InputError
        If the file is missing, damaged, or of another kind.
    """
    config = load_config(path)
    if config.get("kind") != KIND:
        raise InputError(f"network {str(path)!r}: is of kind {config.get('kind')!r}; expected {KIND}")
    return load_model(path, lambda config: _untrained(config, 0), device)


def _untrained(config: Mapping[str, Any], seed: int) -> PartLayers | CompetingLayers:
    of_kind, settings = _LAYERS[config["layers"]]
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "interpretable layers"))
        return of_kind(config["channels"], len(config["categories"]), settings(**config["settings"]))


def build(path: Path, config: Mapping[str, Any], weights: str, seed: int) -> Network:
    """Return the network of a file, as :data:`cnn_interp.networks.saved.BUILDERS` asks for it.

    Raises
    ------
    InputError
        If the trunk cannot be had, or is no longer as it was; or the file does not fit.
    """
    trained = weights != "random"
    trunk = load_network(
        config["trunk"],
        weights=config["weights"] if trained else "random",
        seed=config["seed"] if trained else seed,
    )
    if trained and weights_digest(trunk) != config["digest"]:
        raise InputError(
            f"network {str(path)!r}: its trunk {config['trunk']} has other weights or code than it was trained on; "
            f"expected those with the SHA-256 {config['digest'][:12]}…"
        )
    categories = config["categories"]
    layers = layers_of(path) if trained else _untrained(config, seed)
    source = f"{path.name} ({check_sum(path)[:12]}) on {trunk.name}, {trunk.source}"
    return replace(
        assembled(trunk, config["layer"], layers, categories),
        name=str(path),
        source=source if trained else "random weights",
    )
