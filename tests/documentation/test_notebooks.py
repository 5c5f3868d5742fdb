"""Tutorials are offered as notebooks: they hold what their pages hold, and run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

# Its neighbours are no package, so they are found by their names.
sys.path.insert(0, str(Path(__file__).parent))
from blocks import ROOT, blocks_of

TUTORIALS = sorted(path.name for path in (ROOT / "docs").glob("tutorial-*.md"))
pytest.importorskip("mkdocs", reason="the extra docs is not installed")


def notebook_of(page: str, text: str | None = None) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "docs" / "hooks" / "notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    text = (ROOT / "docs" / page).read_text(encoding="utf-8") if text is None else text
    return hook.notebook_of(text)


@pytest.mark.parametrize("page", TUTORIALS)
def test_a_notebook_holds_every_block_of_its_page_in_order(page: str) -> None:
    nbformat = pytest.importorskip("nbformat")
    notebook = notebook_of(page)
    nbformat.validate(nbformat.from_dict(notebook))
    code = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    said = []
    for block in blocks_of(f"docs/{page}", (ROOT / "docs" / page).read_text(encoding="utf-8")):
        if block.language == "python":
            said.append(block.text.rstrip())
        else:
            said.append("\n".join("!{interpretkit} " + " ".join(words[1:]) for _, words in block.commands()))
    # The first cell says which Python the commands are of; quotes of a shell are no words of a command.
    plain = [text.replace("'", "").replace('"', "") for text in code[1:]]
    assert plain == [text.replace("'", "").replace('"', "") for text in said]
    prose = "".join(cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    assert "<!--" not in prose
    assert ".md)" not in prose


def test_the_shortest_of_them_runs(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    text = (ROOT / "docs" / "tutorial-codes.md").read_text(encoding="utf-8")
    assert "--bootstrap 100" in text
    notebook = nbformat.from_dict(notebook_of("", text.replace("--bootstrap 100", "--bootstrap 2")))
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    values = [
        output["data"]["text/plain"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]
    assert values == ["True", "True"]
    assert (tmp_path / "scores" / "report.html").is_file()
