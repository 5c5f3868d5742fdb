"""What a result depends on beside its options and data: versions, and the source of the project and of the user."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import platform
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from interpretkit.runs.environment import versions

ENTRY_POINTS = "interpretkit.commands"
# From a user's module to the modules that were imported while it was loaded and first used.
_loaded_by: dict[str, set[str]] = {}


def dependencies() -> dict[str, Any]:
    """Return what tells two states of the installation apart that may give two results.

    Returns
    -------
    dict
        ``versions`` of Python and of what the project is installed with, the ``machine``, and the ``project``: from
        each of its packages to the SHA-256 of its source files.
    """
    return {"versions": versions(), "machine": platform.machine(), "project": _project()}


@contextmanager
def noted_imports(module: str) -> Iterator[None]:
    """Note what is imported during the block as belonging to a user's module, for :func:`code_digest`."""
    before = set(sys.modules)
    try:
        yield
    finally:
        _loaded_by.setdefault(module, set()).update(set(sys.modules) - before)


def code_digest(module: str) -> str:
    """Return the SHA-256 of a user's module and of all that it imports and that is not installed.

    Followed are the imports that its source states, and those noted while it was loaded. Of a module inside a package
    the whole package counts, wherever it is installed, for its parts import one another.

    Parameters
    ----------
    module : str
        The dotted name of a module that has been imported.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    files: dict[str, Path] = dict(_files_of_package(module))
    waiting, seen = [module, *sorted(_loaded_by.get(module, ()))], set(_project())
    while waiting:
        name = waiting.pop()
        top = name.partition(".")[0]
        if name in seen or top in seen:
            continue
        seen.add(name)
        path = _file_of(name)
        if path is None or _is_installed(path):
            continue
        files[name] = path
        waiting += _imported(path, name)
    return _digest(files.items())


def _imported(path: Path, module: str) -> list[str]:
    """Return the names of all modules that a source file may import, relative ones in full."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    # Every step of a dotted name is a module that is imported, and a name imported from one may be another.
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module if path.name == "__init__.py" else module.rpartition(".")[0]
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return sorted({".".join(n.split(".")[:k]) for n in names if n for k in range(1, n.count(".") + 2)})


def _file_of(module: str) -> Path | None:
    """Return the file of a module, loaded or not; None if there is none."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        file = getattr(loaded, "__file__", None)
        return Path(file) if file and Path(file).is_file() else None
    try:
        # Of a module inside a package, only where the package is loaded: else finding it would load that.
        package = module.rpartition(".")[0]
        spec = importlib.util.find_spec(module) if not package or package in sys.modules else None
    except (ImportError, ValueError, AttributeError):
        return None
    origin = spec.origin if spec is not None else None
    return Path(origin) if origin and Path(origin).is_file() else None


def _files_of_package(module: str) -> list[tuple[str, Path]]:
    """Return the source files of the package that a module is in, or of the module itself."""
    top = module.partition(".")[0]
    loaded = sys.modules.get(top)
    folders = [Path(folder) for folder in getattr(loaded, "__path__", None) or ()]
    if not folders:
        file = _file_of(top)
        return [] if file is None else [(file.name, file)]
    return [
        (file.relative_to(folder).as_posix(), file) for folder in folders for file in folder.rglob("*.py")
    ]


@cache
def _project() -> dict[str, str]:
    modules = (entry_point.module for entry_point in metadata.entry_points(group=ENTRY_POINTS))
    own = {__name__.partition(".")[0], *(module.partition(".")[0] for module in modules)}
    found = {}
    for name in sorted(own):
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
        files = [(f.relative_to(folder).as_posix(), f) for folder in folders for f in folder.rglob("*.py")]
        found[name] = _digest(files)
    return found


def _is_installed(path: Path) -> bool:
    """Return whether a file belongs to Python or to an installed package, whose version tells what it is."""
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    homes = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(path.is_relative_to(home) for home in homes)


def _digest(files: Iterable[tuple[str, Path]]) -> str:
    digest = hashlib.sha256()
    for name, path in sorted(files):
        try:
            content = path.read_bytes()
        except OSError:
            continue
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()
