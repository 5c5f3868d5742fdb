"""What the tests of several rooms share."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # The cores are taken by the workers; a library's threads on top would only be in their way.
    for library in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")

from interpretkit.cli import main

# The tests are imported by path, so that what they share must be found by hand.
sys.path.insert(0, str(Path(__file__).parent))
from pages import browser, view

__all__ = ["browser", "view"]


@pytest.fixture(autouse=True, scope="session")
def nothing_kept_between_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what commands cache out of the folder of whoever runs the tests, and what is there out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERPRETKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def load_benchmark() -> Iterator[Callable[[str], ModuleType]]:
    """Give a function that imports a file of ``benchmarks/`` by its name, for as long as a test module runs."""
    loaded = []

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"{name}_benchmark", BENCHMARKS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # A dataclass looks its module up.
        sys.modules[spec.name] = module
        loaded.append(spec.name)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in loaded:
        del sys.modules[name]


class Ended(NamedTuple):
    """How a command ended: its exit code, the object that it printed under ``--json``, and what it complained of."""

    code: int
    found: Any
    err: str
    out: str


@pytest.fixture
def run_command(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Give a function that runs a command line, without the program's name, as a shell would."""

    def run(*words: str | Path | float) -> Ended:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        out, err = capfd.readouterr()
        code = ended.value.code
        found = json.loads(out) if "--json" in words and out.strip() else None
        return Ended(0 if code is None else int(code), found, err, out)

    return run
