"""What ``interpretkit doctor`` finds out about machine and installation, and how to mend what is missing."""

from __future__ import annotations

import importlib
import platform
import re
import sys
from pathlib import Path
from typing import Any

from interpretkit.commandline.front_ends import front_ends as installed_front_ends
from interpretkit.commandline.groups import commands_in
from interpretkit.commandline.lazy import find_module
from interpretkit.runs.environment import DISTRIBUTION, installed_version, requirements

# With which torch hub ends the names of files: part of their check sums.
_CHECK_SUM = re.compile(r"-[0-9a-f]{8}$")
# What an extra is for, for people who wonder whether they want it.
_PURPOSES = {
    "mlip": "energies by a machine-learned potential",
    "web": "the web page",
    "offline": "pretrained weights that come as packages",
    "dask": "screening on a cluster",
    "test": "the tests",
    "docs": "building the documentation",
}


def examine() -> dict[str, Any]:
    """Look at the installation and the machine.

    Returns
    -------
    dict
        ``ok`` (whether everything needed is there), ``python``, ``interpretkit``, ``packages`` (a list of
        name, wanted, installed, extra, install), ``imports`` (torch and torchvision: whether they load, and
        the error if not), ``device``, ``weights``, ``front_ends``, and ``advice``: a line for each thing to
        mend.
    """
    packages = _packages()
    imports = {name: _try_import(name) for name in ("torch", "torchvision")}
    device = _device() if imports["torch"]["loads"] else None
    weights = _weights() if imports["torch"]["loads"] else None
    front_ends = _front_ends()
    missing = [p for p in packages if p["installed"] is None]
    advice = [
        f"{p['name']} is missing: in the checkout, {p['install']}" for p in missing if p["extra"] is None
    ]
    for name, finding in imports.items():
        if installed_version(name) is not None and not finding["loads"]:
            advice.append(
                f"{name} is installed but does not load ({finding['error']}): install a torch and a "
                "torchvision of one release, with one CUDA version or none"
            )
    advice += [
        f"the front end {f['name']!r} names the module {f['module']!r}, which is missing: reinstall it"
        for f in front_ends
        if not f["found"]
    ]
    ok = not advice
    for extra in dict.fromkeys(p["extra"] for p in missing if p["extra"] is not None):
        names = ", ".join(p["name"] for p in missing if p["extra"] == extra)
        command = next(p["install"] for p in missing if p["extra"] == extra)
        advice.append(f"for {_PURPOSES.get(extra, extra)} ({names}): in the checkout, {command}")
    if weights is not None and not weights["files"]:
        by_command = any(
            command.name == "weights" for end in front_ends for command in commands_in(end["module"])
        )
        advice.append(
            f"no pretrained weights in {weights['folder']}: "
            + ("see interpretkit weights list, or " if by_command else "")
            + "put a file of torchvision's there, under the name that torchvision gives it"
        )
    return {
        "ok": ok,
        "python": platform.python_version(),
        "interpretkit": installed_version(DISTRIBUTION),
        "packages": packages,
        "imports": imports,
        "device": device,
        "weights": weights,
        "front_ends": front_ends,
        "advice": advice,
    }


def _packages() -> list[dict[str, Any]]:
    return [
        {
            "name": requirement.name,
            "wanted": requirement.specifier,
            "installed": installed_version(requirement.name),
            "extra": requirement.extra,
            "install": requirement.install_command,
        }
        for requirement in requirements()
    ]


def _try_import(name: str) -> dict[str, Any]:
    try:
        importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:  # compiled parts fail in each of these ways
        return {"loads": False, "error": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}
    return {"loads": True, "error": None}


def _device() -> dict[str, Any]:
    import torch

    from interpretkit.training.device import describe_device, resolve_device

    device = resolve_device("auto")
    return {"kind": str(device), "name": describe_device(device), "threads": torch.get_num_threads()}


def _weights() -> dict[str, Any]:
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    files = sorted(path.name for path in folder.glob("*.pth")) if folder.is_dir() else []
    return {
        "folder": str(folder),
        "files": [{"model": _CHECK_SUM.sub("", Path(file).stem), "file": file} for file in files],
    }


def _front_ends() -> list[dict[str, Any]]:
    # Found, not imported: a broken front end must not keep anybody from finding out what is wrong.
    return [
        {
            "name": entry_point.name,
            "module": entry_point.module,
            "found": entry_point.module in sys.modules or find_module(entry_point.module) is not None,
        }
        for entry_point in installed_front_ends()
    ]
