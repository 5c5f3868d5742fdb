"""What can be said of a network's name and its weights before torch is loaded, which takes seconds.

The names are read from torchvision's source files; nothing of it is imported.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from interpretkit.commandline.lazy import find_module
from interpretkit.errors import InputError
from interpretkit.runs.files import here, sha256

# What the description of an edit of a network is called.
EDIT = "edit.json"
STATE_DICT = "expected a state dict (.pth, .pt, .safetensors)"
# Of torchvision's packages, those whose networks do something else than to classify images.
_OTHER_TASKS = ("detection", "segmentation", "video", "optical_flow")
# How a file begins that torch wrote before it wrote zip archives: a pickle of this number.
_LEGACY = re.compile(rb"\x80.\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e")


@dataclass(frozen=True)
class KnownNetwork:
    """A network of torchvision.

    Attributes
    ----------
    task : str
        The package it is in; empty for the classifiers.
    weights : tuple of str
        What the weights that there are for it are called.
    """

    task: str
    weights: tuple[str, ...]


def is_edit(name: str) -> bool:
    """Tell whether a network's name is the path of an edit, as ``interpretkit cnn edit`` writes it."""
    return Path(name).name == EDIT


def is_saved(name: str) -> bool:
    """Return whether a network's name is that of a file in which a trained one was saved."""
    return name.endswith(".safetensors")


def check_network(name: str) -> None:
    """Refuse a network that cannot be had, as far as that can be told by its name.

    Raises
    ------
    InputError
        If torchvision has none of that name, or no such weights for it; or a user's module does not exist; or a
        file is damaged.
    """
    if name == "":
        raise InputError("network '': expected a name, such as mobilenet_v2, or package.module:factory")
    if is_edit(name):
        return  # whether it is there is seen when it is read, for a line may make it before
    if is_saved(name):
        # A line may name what the line before it is going to make.
        if Path(name).exists():
            check_file(Path(name))
        return
    package, colon, _ = name.partition(":")
    if colon:
        if package != "timm" and not _exists(package):
            raise InputError(
                f"network {name!r}: {package} cannot be imported (ModuleNotFoundError: No module named {package!r}); "
                "expected package.module:factory, a function without arguments that returns a network"
            )
        return
    known = torchvision_networks()
    base, at, variant = name.partition("@")
    if not known or name == "efficientnet_lite0":
        return  # torchvision is missing, or has another form: whoever loads the network will find out
    if base not in known:
        near = difflib.get_close_matches(base, known, n=5, cutoff=0.5)
        hint = (
            f"the nearest are {', '.join(near)}"
            if near
            else "expected a name such as mobilenet_v2 or resnet50"
        )
        raise InputError(f"network {base!r}: torchvision has none of that name; {hint}")
    if known[base].task:
        raise InputError(f"network {name!r}: does not classify images; expected a network that does")
    members = known[base].weights
    if at and members and variant not in members:
        raise InputError(
            f"weights {variant!r}: {base} has none of that name; expected one of {', '.join(members)}"
        )


def check_weights(weights: str) -> None:
    """Refuse weights that are neither ``pretrained`` nor ``random`` nor a file that :func:`check_file` lets pass."""
    if weights not in ("pretrained", "random"):
        check_file(Path(weights))


def check_file(path: Path) -> None:
    """Refuse a file of weights that is missing or damaged, as far as its form tells.

    Raises
    ------
    InputError
        If there is no such file, it is of another form, ends early, or does not have a check sum that it states.
    """
    if path.is_dir():
        raise InputError(f"weights {path}: is a folder; {STATE_DICT}")
    if not path.is_file():
        raise InputError(f"weights {path}: no such file; {STATE_DICT}")
    check_sum(path)
    try:
        found = _damage(path)
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        found = str(error) or type(error).__name__
    if found:
        raise InputError(f"weights {path}: cannot be read ({found}); {STATE_DICT} without code")


def check_sum(path: Path) -> str:
    """Return a file's SHA-256, after comparing it with the eight digits in its name, if it has such.

    Raises
    ------
    InputError
        If they differ.
    """
    digest = sha256(path)
    stated = re.search(r"-([0-9a-f]{8,64})\.[a-z]+$", path.name)
    if stated and not digest.startswith(stated[1]):
        raise InputError(
            f"{path}: its SHA-256 begins with {digest[:8]}, its name says {stated[1]}; the file is damaged, "
            "expected the one that torchvision publishes"
        )
    return digest


@cache
def torchvision_networks() -> Mapping[str, KnownNetwork]:
    """Return torchvision's networks by name, read from its source; empty where that cannot be had."""
    spec = find_module("torchvision.models")
    found: dict[str, KnownNetwork] = {}
    for folder in map(Path, (spec and spec.submodule_search_locations) or ()):
        for file in sorted(folder.rglob("*.py")):
            source = file.read_text(encoding="utf-8", errors="replace")
            if "@register_model(" in source:
                package = file.parent.name if file.parent != folder else ""
                found |= _registered(ast.parse(source), package if package in _OTHER_TASKS else "")
    return found


def _registered(tree: ast.Module, task: str) -> dict[str, KnownNetwork]:
    members = {
        node.name: tuple(
            target.id
            for line in node.body
            if isinstance(line, ast.Assign)
            for target in line.targets
            if isinstance(target, ast.Name) and target.id != "DEFAULT"
        )
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
    found = {}
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for call in node.decorator_list:
            if (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Name)
                and call.func.id == "register_model"
            ):
                named = [*call.args, *(word.value for word in call.keywords if word.arg == "name")]
                name = next((str(word.value) for word in named if isinstance(word, ast.Constant)), node.name)
                own = [a for a in node.args.kwonlyargs if a.arg == "weights" and a.annotation is not None]
                # Of quantized networks, the first class is that of their own weights.
                classes = re.findall(r"\w+Weights\b", ast.unparse(own[0].annotation)) if own else []  # type: ignore[arg-type]
                found[name] = KnownNetwork(task, members.get(classes[0], ()) if classes else ())
    return found


def _exists(package: str) -> bool:
    """Return whether a module can be found, also in the current folder, without importing anything."""
    if find_module(package) is not None:
        return True
    folder = here()
    if folder is None:
        return False
    place = folder.joinpath(*package.split("."))
    return place.is_dir() or any(place.parent.glob(f"{place.name}.*"))


def _damage(path: Path) -> str:
    """Return what is wrong with a file of weights; empty if nothing is to be seen."""
    with path.open("rb") as file:
        start = file.read(32)
        if not start:
            return "it is empty"
        if path.suffix == ".safetensors":
            return _safetensors_damage(start, file.read(), path.stat().st_size)
        if start.startswith(b"PK"):
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
                if not any(name.endswith("data.pkl") for name in names):
                    return "it is an archive of something else"
                broken = archive.testzip()
            return f"its part {broken!r} is damaged" if broken else ""
    return "" if _LEGACY.match(start) else "it is no file of torch's"


def _safetensors_damage(start: bytes, rest: bytes, size: int) -> str:
    if size < 8:
        return "it ends early"
    (length,) = struct.unpack("<Q", start[:8])
    if length > size - 8:
        return "it ends within its header, or is no safetensors file"
    header = json.loads((start[8:] + rest)[:length])
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    expected = 8 + length + max(ends, default=0)
    return "" if expected == size else f"it has {size} bytes, its header says {expected}"
