"""Commands that are offered to be copied mean to a shell what they mean to us."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from interpretkit.runs.invocation import quoted
from interpretkit.visualization import Report

HOSTILE = [
    "a$(touch ran).npz",
    "a`touch ran`.npz",
    "a;touch ran;b",
    "a'b\"c d",
    "*",
    "~",
    "",
    "a\nb\tc",
    "a\x1b[2Jb'\\",
    "caf\udce9.png",
    "tabby, tabby cat",
    "!history",
]


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
def test_a_shell_reads_the_words_back(tmp_path: Path) -> None:
    line = quoted(*HOSTILE)
    assert line.isprintable()
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"], cwd=tmp_path, capture_output=True, check=True
    )
    words = done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]
    assert words == HOSTILE
    assert list(tmp_path.iterdir()) == []


def test_a_report_offers_quoted_lines() -> None:
    report = Report("Title").add_next_step("Go on:", ["interpretkit", "scores", Path(HOSTILE[0])])
    report.set_provenance(["interpretkit", "scores", Path(HOSTILE[0])])
    page = report.html()
    assert page.count("interpretkit scores &#39;a$(touch ran).npz&#39;") == 2


def test_no_line_is_put_together_from_what_somebody_gave() -> None:
    """Lines in the source may be plain texts, or words; a text with a value in it would not be quoted."""
    root = Path(__file__).parents[2]
    files = [
        f for package in ("interpretkit", "catalysis", "cnn_interp") for f in (root / package).rglob("*.py")
    ]
    assert len(files) > 100
    for file in files:
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                place = {"add_next_step": 1, "set_provenance": 0}.get(node.func.attr)
                if place is not None and "report" in ast.unparse(node.func.value):
                    line = node.args[place]
                    said = f"{file.name}: {ast.unparse(line)}"
                    assert not isinstance(line, (ast.JoinedStr, ast.BinOp)) or "numpy.load" in said, said
            # A line in a result or handed on by a name of its own.
            if isinstance(node, ast.JoinedStr):
                first = node.values[0]
                text = str(first.value) if isinstance(first, ast.Constant) else ""
                starts = bool(re.match("interpretkit (catalyst|cnn|scores|bench|weights) ", text))
                assert not starts or file.name == "page.py", f"{file.name}: {ast.unparse(node)}"
