"""A function that returns a Finding is a command: files, page, manifest and terminal come from the house."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.io import read

from interpretkit.commandline.finding import Column, Finding, Here
from interpretkit.commandline.groups import Folder
from interpretkit.commandline.writing import save
from interpretkit.runs.folder import load_arrays, load_manifest

Run = Callable[..., tuple[int, str, str]]

MEASURE = '''
"""Not the help."""
from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from interpretkit.commandline import Column, Finding, Here, Quiet, Seed, command
from interpretkit.errors import InputError
from interpretkit.runs.folder import Run


def helper() -> None:
    """Not a command."""


@command(out="measured", example="interpretkit toy measure FILE --times 3")
def measure(
    file: Annotated[Path, typer.Argument(help="What to measure.")],
    times: Annotated[int, typer.Option("--times", help="How often.")] = 2,
    seed: Seed = 0,
    quiet: Quiet = False,
    *,
    run: Run,
) -> Finding:
    """Measure a file.

    As often as is asked for.

    Raises
    ------
    InputError
        Never shown.
    """
    import numpy as np
    from ase.build import molecule

    from interpretkit.visualization import new_figure, style

    if times > 5:
        raise InputError(f"times: {times}; expected at most 5")
    with run.kept("version 1") as kept:
        before = (kept / "done").read_text() if (kept / "done").exists() else "nothing"
        (kept / "done").write_text("half")
        if times == 5:
            raise RuntimeError("broke in the middle")
    draws = np.random.default_rng(seed).normal(size=times)
    found = Finding("Measured", f"A file of {file.stat().st_size} bytes.").reads(file)
    found.number("mean_ev", draws.mean(), "mean energy", unit="eV", note="of the draws", format="+.3f")
    found.number("share", 0.25, "share kept", format=".0%")
    found.number("by_layer", {"a": 1.5, "b": 2.0}, "by layer")
    found.values["before"] = before
    with style():
        figure = new_figure(3, 2)
        figure.subplots().plot(draws)
    part = found.section("Draws", "One after the other.")
    part.figure("draws.png", figure, "The draws.", alt="A line through the draws")
    part.table(
        "draws.csv",
        [{"energy_ev": value, "number": k} for k, value in enumerate(draws)],
        {"energy_ev": Column("what was drawn", "eV", "energy", "+.2f")},
        most=2,
        in_terminal=True,
    )
    part.note("A note.")
    found.arrays("draws.npz", draws=draws)
    found.structures("molecule.extxyz", [molecule("H2O")])
    found.table("apart/more.csv", [{"a": 1}])
    found.file("words.txt", lambda path: path.write_text("words"))
    found.next_step("Again:", "interpretkit toy measure", Here("words.txt"), "--times", "3 $(x)")
    if times == 4:
        found.warn("Four is too many.")
        found.exit_code = 1
    return found
'''
PLAIN = '''
from interpretkit.commandline.command import command
from interpretkit.commandline.finding import Finding


@command(example="interpretkit toy say-so")
def say_so() -> Finding:
    """Say so."""
    print("printed by a library")
    return Finding("So").number("so", "yes")
'''


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Give a function that runs a front end of two commands, one of them in a group, and gives code, out, err."""
    package = tmp_path / "toyfrontend"
    (package / "inner_group").mkdir(parents=True)
    (package / "__init__.py").write_text('"""Commands for play."""')
    (package / "inner_group" / "__init__.py").write_text('"""A group of one."""')
    (package / "measure.py").write_text(MEASURE)
    (package / "_private.py").write_text("raise ImportError")
    (package / "inner_group" / "say_so.py").write_text(PLAIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()

    def call(*words: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            Folder("toyfrontend", "toy").main([str(word) for word in words], prog_name="interpretkit toy")
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    yield call
    for name in [name for name in sys.modules if name.startswith("toyfrontend")]:
        del sys.modules[name]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.txt"
    path.write_text("12345")
    return path


def test_a_folder_is_a_group_and_a_file_a_command(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for words in ("Commands for play.", "measure", "Measure a file.", "inner-group", "A group of one."):
        assert words in out
    assert "private" not in out
    # Nothing was imported to show it.
    assert "toyfrontend.measure" not in sys.modules
    code, out, _ = run("inner-group", "say-so", "--help")
    assert code == 0
    assert "interpretkit toy say-so" in out
    assert "--out" not in out


def test_help_is_the_docstring_without_its_sections(run: Run) -> None:
    _, out, _ = run("measure", "--help")
    assert "As often as is asked for." in out
    assert "Never shown" not in out
    assert "measured" in out
    assert "--run" not in out


def test_everything_found_is_written(run: Run, file: Path, tmp_path: Path) -> None:
    code, out, err = run("measure", file, "--out", "x", "--seed", 3, "--json")
    assert code == 0, err
    answer = json.loads(out)
    mean = np.random.default_rng(3).normal(size=2).mean()
    assert answer == {
        "mean_ev": pytest.approx(mean), "share": 0.25, "by_layer": {"a": 1.5, "b": 2.0}, "before": "nothing",
        "warnings": [], "out": "x", "report": "x/report.html",
    }  # fmt: skip
    manifest = load_manifest(tmp_path / "x")
    assert manifest["command"] == "toy measure"
    assert manifest["arguments"] == {"file": str(file), "times": 2}
    assert manifest["seed"] == 3
    assert manifest["data"][0]["bytes"] == 5
    assert set(manifest["files"]) == {
        "draws.png", "draws.csv", "draws.npz", "molecule.extxyz", "apart/more.csv", "words.txt", "report.html",
    }  # fmt: skip
    assert manifest["described"]["numbers"]["mean_ev"] == {"label": "mean energy", "unit": "eV"}
    assert manifest["described"]["tables"]["draws.csv"] == {
        "energy_ev": {"meaning": "what was drawn", "unit": "eV"}
    }
    assert load_arrays(tmp_path / "x" / "draws.npz")["draws"].shape == (2,)
    assert len(read(tmp_path / "x" / "molecule.extxyz")) == 3
    html = (tmp_path / "x" / "report.html").read_text()
    for words in (
        "Measured", "mean energy", "eV", "energy (eV)", 'title="what was drawn"', 'alt="A line through the draws"',
        "25%", "A note.",
    ):  # fmt: skip
        assert words in html
    # What the page offers to copy is one word to a shell.
    assert "interpretkit toy measure x/words.txt --times &#39;3 $(x)&#39;" in html


def test_a_person_reads_figures_with_units_and_where_the_page_is(run: Run, file: Path) -> None:
    code, out, err = run("measure", file)
    assert code == 0, err
    assert "mean energy" in out
    assert "eV" in out
    assert "report: measured/report.html" in out
    assert "energy (eV)" in out
    assert "Again:" in out
    assert run("measure", file, "--quiet")[1] == ""


def test_a_warning_is_seen_everywhere_and_the_exit_code_is_the_findings(run: Run, file: Path) -> None:
    code, out, _ = run("measure", file, "--times", 4, "--out", "x")
    assert code == 1
    assert "WARNING Four is too many." in out
    html = Path("x/report.html").read_text()
    assert html.index("Four is too many.") < html.index('<h2 id="section-1"')
    code, out, _ = run("measure", file, "--times", 4, "--out", "x", "--json")
    assert code == 1
    assert json.loads(out)["warnings"] == ["Four is too many."]


def test_a_refusal_names_the_option_and_leaves_nothing(run: Run, file: Path, tmp_path: Path) -> None:
    code, out, err = run("measure", file, "--times", 9)
    assert (code, out) == (2, "")
    assert err == "Error: --times: 9; expected at most 5\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.txt", "toyfrontend"]


def test_what_is_kept_is_found_by_the_same_work_alone(run: Run, file: Path) -> None:
    assert run("measure", file, "--times", 5)[0] == 1
    kept = list(Path.cwd().glob(".measured.unfinished-*"))
    assert len(kept) == 1
    # Another number of times is other work.
    assert json.loads(run("measure", file, "--times", 3, "--json")[1])["before"] == "nothing"


def test_a_command_without_a_folder_writes_none(run: Run, tmp_path: Path) -> None:
    code, out, err = run("inner-group", "say-so", "--json")
    assert code == 0
    assert json.loads(out) == {"so": "yes", "warnings": []}
    assert "printed by a library" in err
    assert "yes" in run("inner-group", "say-so")[1]


def test_two_things_under_one_name_are_a_mistake(tmp_path: Path) -> None:
    found = Finding("Twice").arrays("x.npz", a=[1])
    found.table("x.npz", [{"a": 1}])
    with pytest.raises(ValueError, match="written twice"):
        save(found, tmp_path / "x", "toy")
    assert not (tmp_path / "x").exists()


def test_a_finding_is_saved_from_python(tmp_path: Path) -> None:
    found = Finding("From Python")
    found.section("S").table(None, [{"a": 1.0}], {"a": Column("one")}, "Only on the page.")
    save(found, tmp_path / "x", "toy thing", {"n": 1}, seed=4)
    manifest: dict[str, Any] = load_manifest(tmp_path / "x")
    assert (manifest["command"], manifest["seed"]) == ("toy thing", 4)
    assert set(manifest["files"]) == {"report.html"}


def test_next_steps_quote_what_they_are_given() -> None:
    found = Finding("x").next_step("Go:", "interpretkit scores", "a$(touch b).npz", Here())
    assert found.next_steps[0].line("my out") == "interpretkit scores 'a$(touch b).npz' 'my out'"
