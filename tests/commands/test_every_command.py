"""What every command of every front end has in common, asked of each: nothing is registered for it anywhere."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from interpretkit.cli import every_command
from interpretkit.runs.folder import load_manifest

# The tests are imported by path, so that the cases must be found by hand.
sys.path.insert(0, str(Path(__file__).parent))
from cases import CASES, Case, prepare
from pages import MOST_BYTES, View

# Too heavy for a list of commands or a help text to bring along.
HEAVY = ("torch", "matplotlib", "scipy", "sklearn", "skimage", "ase", "numba", "captum", "gudhi", "pandas")


COMMANDS = dict(every_command())


@pytest.fixture
def place(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder, the current one, with small inputs for the command."""
    prepare(tmp_path, words)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_every_command_has_a_case() -> None:
    assert set(CASES) == set(COMMANDS)


def test_help_is_light() -> None:
    """No help brings a heavy package along, so that it comes at once on any machine."""
    script = (
        "import sys\n"
        "from interpretkit.cli import main\n"
        f"for words in {sorted(COMMANDS)!r}:\n"
        "    try: main([*words.split(), '--help'])\n"
        "    except SystemExit as end: assert not end.code, words\n"
        f"    heavy = set({HEAVY!r}) & set(sys.modules)\n"
        "    assert not heavy, (words, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_help_says_what_it_does_with_an_example_that_can_be_typed(
    words: str, run_command: Callable[..., Any]
) -> None:
    entry = COMMANDS[words]
    assert entry.describe().endswith(".")
    ended = run_command(*words.split(), "--help")
    assert ended.code == 0
    assert f"interpretkit {words}" in re.sub(r"\s+", " ", ended.out)
    command = entry.load()
    known = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
    used = re.findall(r"(?<!\S)--[a-z][\w-]*", command.epilog or "")
    assert set(used) <= known
    assert {"--json", "--quiet", "--debug"} <= known


class _Page(HTMLParser):
    """Notes what a page needs from elsewhere, and its pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign: list[str] = []
        self.alts: list[str] = []
        self.headings: list[str] = []
        self.words: list[str] = []
        self.values: list[str] = []
        self.first = ""
        self._within = ""
        self._in_first = False

    def handle_data(self, data: str) -> None:
        if self._within in ("th", "dt"):
            self.headings.append(data)
        if self._within == "value":
            self.values.append(data)
        if self._in_first:
            self.first += data
        if self._within not in ("script", "style"):
            self.words.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in (self._within, "th") or (tag == "dd" and self._within == "value"):
            self._within = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("th", "dt", "script", "style"):
            self._within = tag
        if tag == "dd" and given.get("class") == "value":
            self._within = "value"
        # Title and lead, up to the warnings or the cards.
        if tag == "h1" or tag in ("dl", "nav", "main") or given.get("class") == "alarm":
            self._in_first = tag == "h1"
        if tag == "img":
            self.alts.append(given.get("alt") or "")
        for name in ("src", "href"):
            value = given.get(name) or ""
            if value and not value.startswith(("data:", "#")):
                self.foreign.append(value)


def _run(case: Case, words: str, run_command: Callable[..., Any], *more: str) -> Any:
    return run_command(*words.split(), *case.words, *more, "--json")


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder, one for all workers, in which each command's result is kept once it has been made."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "results-of-commands"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def result(words: str, run_command: Callable[..., Any], place: Path, results: Path) -> Path:
    """Return the result of a command's run on small inputs, made by the first test that asks for it."""
    kept = results / words.replace(" ", "-")
    with (results / f"{kept.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            ended = _run(CASES[words], words, run_command, "--out", "result")
            assert ended.code == 0, ended.err
            # What was printed stands beside the result, for the tests of it.
            Path(f"{kept}.stdout").write_text(ended.out, encoding="utf-8")
            assert not list(place.glob(".result*"))
            shutil.move(place / "result", kept)
    return kept


@pytest.mark.parametrize(
    "words", [words for words, case in sorted(CASES.items()) if case.runs and not case.has_folder]
)
def test_a_run_prints_what_it_found(words: str, run_command: Callable[..., Any], place: Path) -> None:
    ended = _run(CASES[words], words, run_command)
    assert ended.code == 0, ended.err
    assert len(ended.out.splitlines()) == 1
    assert json.loads(ended.out) == ended.found


WITH_RESULTS = [words for words, case in sorted(CASES.items()) if case.runs and case.has_folder]


@pytest.mark.parametrize("words", WITH_RESULTS)
def test_a_run_leaves_a_whole_result(words: str, result: Path) -> None:
    printed = Path(f"{result}.stdout").read_text(encoding="utf-8")
    assert len(printed.splitlines()) == 1
    found = json.loads(printed)
    folder = result
    manifest = load_manifest(folder)
    assert manifest["command"] == words
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert present == {*manifest["files"], "manifest.json"}
    assert "report.html" in present
    assert ">How to go on<" in (folder / "report.html").read_text(encoding="utf-8")
    for name, value in manifest["summary"].items():
        assert found[name] == value
    # What a column or a figure is, in which unit, stands in the manifest.
    assert manifest["described"]["numbers"]
    page = _Page()
    page.feed((folder / "report.html").read_text(encoding="utf-8"))
    assert page.foreign == []
    assert all(page.alts)
    assert len(set(page.alts)) == len(page.alts)
    assert (folder / "report.html").stat().st_size < MOST_BYTES
    # The first lines say what was found: one of the figures on the cards, or what was found out in words.
    cards = [text for text in page.values if any(character.isdigit() for character in text)]
    assert not cards or any(value.removesuffix(" eV") in page.first for value in cards), page.first
    # People read words and numbers, not names of a program's variables.
    assert not [text for text in page.headings if re.search(r"\w_\w|\b(ev|nan)\b", text)]
    assert not re.search(r"\bnan\b", " ".join(page.words))


@pytest.mark.browser
@pytest.mark.parametrize("words", WITH_RESULTS)
def test_its_page_can_be_read_and_worked_by_everybody(
    words: str, result: Path, view: Callable[..., View]
) -> None:
    seen = view(result / "report.html")
    assert seen.faults() == []
    assert seen.unreachable() == []


@pytest.mark.parametrize("words", [words for words, case in sorted(CASES.items()) if case.seeded])
def test_the_same_seed_gives_the_same_numbers(
    words: str, run_command: Callable[..., Any], place: Path, result: Path
) -> None:
    ended = _run(CASES[words], words, run_command, "--out", "second")
    assert ended.code == 0, ended.err
    found = []
    for folder in (result, place / "second"):
        names = [name for name in load_manifest(folder)["files"] if name.endswith(CASES[words].same)]
        assert names
        found.append({name: _content(folder / name) for name in names})
    assert found[0] == found[1]


def _content(path: Path) -> Any:
    """Return what a file holds; of a table without the columns that say how long something took."""
    if path.suffix != ".csv":
        return path.read_bytes()
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if not name.startswith("seconds")} for row in rows]


@pytest.mark.parametrize("words", sorted(CASES))
def test_a_wrong_option_is_refused_in_one_line_at_once(
    words: str, run_command: Callable[..., Any], place: Path
) -> None:
    case = CASES[words]
    before = sorted(place.iterdir())
    for wrong, mentioned in (("--no-such-option", "--no-such-option"), *case.refused):
        started = time.perf_counter()
        out = ["--out", "result"] if case.has_folder else []
        ended = run_command(*words.split(), *wrong.split(), *out)
        assert ended.code == 2, (wrong, ended.err, ended.out)
        lines = [line for line in ended.err.splitlines() if not line.startswith("loading ")]
        assert len(lines) == 1, ended.err
        assert lines[0].startswith("Error: ")
        assert mentioned in lines[0]
        assert ended.out == ""
        # A generous bound for a busy machine: nothing is trained or measured before it is refused.
        assert time.perf_counter() - started < 20
        assert sorted(place.iterdir()) == before


@pytest.mark.parametrize("words", [words for words, case in sorted(CASES.items()) if case.file])
@pytest.mark.parametrize("content", [b"", b"\x00\xff not what was expected \x80", None])
def test_a_damaged_file_is_refused_in_one_line(
    words: str, content: bytes | None, run_command: Callable[..., Any], place: Path
) -> None:
    case = CASES[words]
    path = place / f"damaged{case.suffix}"
    if content is not None:
        path.write_bytes(content)
    before = sorted(place.iterdir())
    ended = run_command(*words.split(), *case.file.replace("FILE", path.name).split(), "--out", "result")
    assert ended.code == 2, ended.err
    lines = [line for line in ended.err.splitlines() if not line.startswith("loading ")]
    assert len(lines) == 1, ended.err
    assert path.name in lines[0]
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize(
    "words", [words for words, case in sorted(CASES.items()) if case.has_folder and case.runs]
)
def test_a_result_is_never_written_over_what_is_not_one(
    words: str, run_command: Callable[..., Any], place: Path
) -> None:
    (place / "mine").mkdir()
    (place / "mine" / "thesis.txt").write_text("years of work")
    ended = _run(CASES[words], words, run_command, "--out", "mine")
    assert ended.code == 2
    assert (place / "mine" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("words", ["nosuch", "cnn visualise", "cnn diagnose nosuch"])
def test_an_unknown_command_is_refused_in_one_line(words: str, run_command: Callable[..., Any]) -> None:
    ended = run_command(*words.split())
    assert ended.code == 2
    assert len(ended.err.strip().splitlines()) == 1
