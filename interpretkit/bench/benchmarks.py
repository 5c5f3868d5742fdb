"""The files of ``benchmarks/``: found, chosen and imported.

A benchmark is any file of that folder which defines ``run(quick, data)`` and returns rows; its docstring's
first line is its title. It may also take ``seed``, ``device``, and ``cache``: a folder that is
kept until it has ended well, so that a long one goes on where it was. Nothing is registered anywhere: to add a
benchmark is to add a file. The folder belongs to the checkout and not to what is installed from it.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interpretkit.errors import InputError
from interpretkit.runs.environment import DISTRIBUTION
from interpretkit.runs.files import here

FOLDER = "benchmarks"


@dataclass(frozen=True)
class Benchmark:
    """One file of the folder.

    Attributes
    ----------
    name : str
        The file's name without its ending.
    path : pathlib.Path
        The file.
    title : str
        The first line of its docstring.
    """

    name: str
    path: Path
    title: str


class GivenData(Mapping[str, Path]):
    """The data that the user gave, from kind to path, which notes the kinds that a benchmark takes from it.

    Attributes
    ----------
    used : set of str
        The kinds found so far.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = dict(paths)
        self.used: set[str] = set()

    def __getitem__(self, kind: str) -> Path:
        path = self._paths[kind]
        self.used.add(kind)
        return path

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def find_folder(start: Path | None = None) -> Path:
    """Return the folder of benchmarks of the checkout around a folder, else of the one that is installed.

    Parameters
    ----------
    start : path, optional
        Where to start looking upwards; the current folder by default.

    Raises
    ------
    InputError
        If there is none.
    """
    installed = Path(__file__).resolve().parents[2]
    start = (start or here() or installed).resolve()
    # The name in pyproject.toml tells the checkout from other projects, whose benchmarks are not to be run.
    for root in (start, *start.parents):
        if (root / FOLDER).is_dir() and _project_name(root / "pyproject.toml") == DISTRIBUTION:
            return root / FOLDER
    if (installed / FOLDER).is_dir() and _project_name(installed / "pyproject.toml") == DISTRIBUTION:
        return installed / FOLDER
    raise InputError(
        f"{FOLDER}/: not found from the current folder upwards, and it is no part of the installed package; "
        f"run the command in a checkout of {DISTRIBUTION}, or install that with pip install -e"
    )


def _project_name(pyproject: Path) -> str | None:
    try:
        return tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_benchmarks(folder: Path) -> list[Benchmark]:
    """Return the benchmarks in a folder, by name; no file is imported to find out."""
    found = []
    for path in sorted(folder.glob("*.py")):
        if path.name.startswith("_"):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            # It fails in one line when it is run; left out, it would be missed by nobody.
            found.append(Benchmark(path.stem, path, "(cannot be read as Python)"))
            continue
        if any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in tree.body):
            title = (ast.get_docstring(tree) or "").partition("\n")[0]
            found.append(Benchmark(path.stem, path, title))
    return found


def choose(benchmarks: Sequence[Benchmark], names: Sequence[str]) -> list[Benchmark]:
    """Return the benchmarks of the names given, in that order; all if none is given.

    Raises
    ------
    InputError
        If a name is unknown, or there is no benchmark at all.
    """
    known = {benchmark.name: benchmark for benchmark in benchmarks}
    if not known:
        raise InputError(f"{FOLDER}/: holds no benchmark; expected a file that defines run(quick, data)")
    for name in names:
        if name not in known:
            raise InputError(f"NAME {name}: no such benchmark; expected one of {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)] if names else list(known.values())


def check_kinds(kinds: Iterable[str], benchmarks: Sequence[Benchmark]) -> None:
    """Refuse kinds of data that no benchmark has as a string in its code: they are slips.

    Parameters
    ----------
    kinds : iterable of str
        The kinds of the data given.
    benchmarks : sequence of Benchmark
        All there are, whether or not they are to be run.

    Raises
    ------
    InputError
        If a kind is unknown.
    """
    for kind in kinds:
        if not any(_mentions(benchmark, kind) for benchmark in benchmarks):
            raise InputError(f"data {kind}: no benchmark takes data of this kind")


def _mentions(benchmark: Benchmark, kind: str) -> bool:
    """Return whether a kind of data is a string in a benchmark's code."""
    try:
        tree = ast.parse(benchmark.path.read_bytes())
    except (SyntaxError, ValueError):
        return False
    return any(isinstance(node, ast.Constant) and node.value == kind for node in ast.walk(tree))


@contextmanager
def imported(benchmark: Benchmark) -> Iterator[Any]:
    """Import a benchmark from its file, and forget it at the end."""
    name, root = f"{FOLDER}.{benchmark.name}", str(benchmark.path.parent.parent)
    spec = importlib.util.spec_from_file_location(name, benchmark.path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{benchmark.path.name} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name, and worker processes import it by name.
    sys.modules[name] = module
    sys.path.insert(0, root)
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(root)
        sys.modules.pop(name, None)


def list_benchmarks() -> dict[str, Any]:
    """Return the names and titles of all benchmarks, under ``benchmarks``."""
    found = find_benchmarks(find_folder())
    return {"benchmarks": [{"name": benchmark.name, "title": benchmark.title} for benchmark in found]}
