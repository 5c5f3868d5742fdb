"""What numba keeps on the disk is used again as long as no source of it has changed, and never after."""

import ast
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from numba import config, njit

from catalysis.path_homology import fast

FOLDER = Path(fast.__file__).parent


@pytest.mark.parametrize("name", fast.SOURCES)
def test_every_source_counts(tmp_path: Path, name: str) -> None:
    copy = tmp_path / "path_homology"
    shutil.copytree(FOLDER, copy)
    before = fast.digest(copy)
    (copy / "barcodes.py").write_text("")
    assert fast.digest(copy) == before
    with (copy / name).open("a") as file:
        file.write("\n")
    assert fast.digest(copy) != before


def test_the_sources_are_all_files_that_are_compiled() -> None:
    compiled, called = set(), set()
    for path in FOLDER.glob("*.py"):
        imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        modules = {str(node.module) for node in imports}
        if path.name != "fast.py" and any(module.split(".")[0] == "numba" for module in modules):
            compiled.add(path.name)
        if path.name in fast.SOURCES:
            called |= {f"{module.split('.')[-1]}.py" for module in modules if module.startswith("catalysis.")}
    assert compiled == set(fast.SOURCES)
    assert called <= compiled


def sweep_that_answers(answer: int) -> Any:
    module: Any = ModuleType("sweep")
    module.sweep_decorations = njit(lambda n, pairs, times, ranks, max_dim, length, regular, form: answer)
    return module


def test_code_of_other_sources_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))

    def call(sources: str) -> tuple[int, int]:
        _, sweep_decorations, _ = fast.entries(sources)
        answer = sweep_decorations(1, 1, 1, 1, 1, 1, 1, 1)
        return answer, sum(sweep_decorations.stats.cache_hits.values())

    monkeypatch.setattr(fast, "sweep", sweep_that_answers(1))
    assert call("one") == (1, 0)
    monkeypatch.setattr(fast, "sweep", sweep_that_answers(2))
    # numba does not look at what is called, which is why the sources have to be told.
    assert call("one") == (1, 1)
    assert call("other") == (2, 0)
    assert call("other") == (2, 1)
