"""No run is lost by what its streams, its file names or its current folder are like."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from interpretkit.runs.folder import load_manifest
from interpretkit.runs.streams import harmless, printable

# A command of the real command line, which talks on both streams in the middle of its work.
TINY = """
import contextlib, os, shutil, sys
from pathlib import Path
from interpretkit import cli
from interpretkit.commandline import Finding, Quiet, command
from interpretkit.commandline.groups import commands_in
from interpretkit.commandline.command import as_command
from interpretkit.runs.progress import track

@command(out="out", example="interpretkit tiny FILE")
def tiny(file: str, leave: bool = False, quiet: Quiet = False) -> Finding:
    "Write down what a file is called."
    for part in track(range(3), "Working … on ✓", quiet=quiet):
        print(f"half of it – {file} ×", file=sys.stderr, flush=True)
        with contextlib.suppress(OSError):  # as compiled code would
            os.write(2, b"a library complains\\n")
    if leave:
        shutil.rmtree(os.getcwd())
    found = Finding("Tiny").reads(*([file] if Path(file).exists() else []))
    found.number("file", file).number("mark", "Å ✓ …")
    found.table("names.csv", [{"file": file, "mark": "Å ✓"}])
    found.arrays(f"arrays/{Path(file).stem}.npz", **{file: [1.0]})
    return found.file("text.txt", lambda path: path.write_text("text"))

cli.Root.deferred = lambda self, others=cli.Root.deferred: [*others(self), as_command(tiny, "tiny")]
cli.main()
"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="descriptors and names of POSIX")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.py"
    path.write_text(TINY)
    (tmp_path / "here").mkdir()
    return path


def shell(script: Path, line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash in which TINY stands for the command."""
    line = line.replace("TINY", f"{sys.executable} {script} tiny")
    return subprocess.run(
        ["bash", "-c", line],
        cwd=script.parent / "here",
        env={**os.environ, **environment},
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("TINY name 2>&-", 0),
        ("TINY name --json 2>&-", 0),
        ("TINY name >&-", 0),
        ("TINY name --json >&-", 0),
        ("TINY name --json >&- 2>&- <&-", 0),
        ("TINY name 2> >(true)", 0),
        ("TINY name --json 2> >(true)", 0),
        ("TINY name 2> /dev/full", 0),
        ("TINY name > >(true); exit ${PIPESTATUS[0]}", None),
        ("TINY name --json > >(exec <&-; sleep 0.1)", None),
        ("TINY name --json > /dev/full", 1),
        ("TINY name > /dev/full", 1),
    ],
)
def test_closed_and_full_streams_lose_nothing(script: Path, line: str, code: int | None) -> None:
    done = shell(script, line)
    if code is not None:
        assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    if "/dev/full" in line and code == 1:
        assert done.stderr.splitlines()[-1] == (
            b"Error: stdout cannot be written to (No space left on device); the result itself is whole, in out"
        )
    out = script.parent / "here" / "out"
    assert load_manifest(out)["summary"]["file"] == "name"
    # What a library writes to a closed descriptor must not end in a file of the result.
    for file in out.rglob("*"):
        assert file.is_dir() or b"complains" not in file.read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii", "ascii:strict", "utf-8", "cp437"])
@pytest.mark.parametrize("json_", [False, True])
def test_every_encoding_takes_what_is_printed(script: Path, encoding: str, json_: bool) -> None:
    done = shell(script, "TINY nåme" + " --json" * json_, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert load_manifest(script.parent / "here" / "out")["summary"]["file"] == "nåme"
    if json_:
        assert json.loads(done.stdout)["mark"] == "Å ✓ …"
    else:
        shown = done.stdout.decode(encoding.partition(":")[0])
        assert ("Å" if encoding != "ascii" and "strict" not in encoding else "A") in shown
        assert "…" in shown or "..." in shown


def test_a_name_that_is_not_utf_8_is_spelled_out_everywhere(script: Path) -> None:
    name = b"caf\xe9.png"
    folder = script.parent / "here"
    (Path(os.fsdecode(os.fsencode(folder) + b"/" + name))).write_bytes(b"an image")
    done = shell(script, "TINY $'caf\\xe9.png' --json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["file"] == r"caf\xe9.png"
    out = folder / "out"
    manifest = load_manifest(out)
    assert manifest["arguments"]["file"] == manifest["summary"]["file"] == r"caf\xe9.png"
    assert manifest["data"][0]["path"] == r"caf\xe9.png"
    assert r"caf\xe9.png" in (out / "names.csv").read_text(encoding="utf-8")
    assert (out / "arrays" / "caf%E9.npz").is_file()
    # The result is known again as one, so that it can be replaced.
    assert shell(script, "TINY $'caf\\xe9.png'").returncode == 0


def test_a_name_that_is_too_long_is_cut(script: Path) -> None:
    # As long as a file may be called; what a run adds to it would be too much.
    name = "ä" * 120 + ".png"
    assert shell(script, f"TINY {name}").returncode == 0
    (file,) = (script.parent / "here" / "out" / "arrays").iterdir()
    assert file.suffix == ".npz"
    assert file.stem in "ä" * 120


def test_a_deleted_current_folder_loses_nothing(script: Path) -> None:
    out = script.parent / "elsewhere"
    gone = 'mkdir gone; cd gone; rmdir "$PWD"; '
    done = shell(script, f"{gone} TINY name --out {out} --json")
    assert done.returncode == 0, done.stderr
    assert load_manifest(out)["summary"]["file"] == "name"
    done = shell(script, f"{gone} TINY name --out here")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert b"the current folder is gone" in line
    # It may also go while the command is at work.
    done = shell(script, f"mkdir gone; cd gone; TINY name --leave --out {out}")
    assert done.returncode == 0, done.stderr


def test_texts_for_files_and_terminals() -> None:
    assert printable("caf\udce9 \ud800 ä ✓") == r"caf\xe9 \ud800 ä ✓"
    assert harmless("a\x1b[2Jb\x9bc\td") == "a\\x1b[2Jb\\x9bc\td"
