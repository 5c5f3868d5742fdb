"""What a page of the documentation asks its reader to type: fenced blocks, lines of commands, results in comments."""

from __future__ import annotations

import ast
import io
import re
import shlex
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
"""Every page; results.md is written by a program, and named here so that its commands are looked at as well."""

_FENCE = re.compile(r"^```(\w*)\s*$")
_MARKER = re.compile(r"^<!--\s*(not run|command):\s*(.+?)\s*-->$")
_INLINE = re.compile(r"(?<!`)`(interpretkit [^`]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes
    ----------
    page : str
        Its path from the root of the checkout.
    line : int
        Of its first line, counted from 1.
    language : str
        ``"python"``, or ``"shell"`` where the fence names none.
    text : str
        Without the fences.
    left_to : str
        Why, or by what else, it is run elsewhere; empty if it is run here.
    """

    page: str
    line: int
    language: str
    text: str
    left_to: str

    def commands(self) -> Iterator[tuple[int, list[str]]]:
        """Yield each command of a shell block: its line, and its words without the comment."""
        waiting, first = "", 0
        for number, line in enumerate(self.text.splitlines(), start=self.line):
            first = first if waiting else number
            waiting += line
            if waiting.endswith("\\"):
                waiting = waiting[:-1] + " "
                continue
            words = shlex.split(waiting, comments=True)
            waiting = ""
            if words:
                yield first, words


def blocks_of(page: str, text: str) -> list[Block]:
    """Return the fenced blocks of a page, in order.

    Raises
    ------
    ValueError
        If a fence names a language that nothing here can run, or is not closed.
    """
    found: list[Block] = []
    marker, opened, language, lines = "", 0, "", []
    for number, line in enumerate(text.splitlines(), start=1):
        fence = _FENCE.match(line)
        if opened:
            if fence:
                found.append(Block(page, opened + 1, language, "\n".join(lines), marker))
                marker, opened, lines = "", 0, []
            else:
                lines.append(line)
        elif fence:
            opened, language = number, fence[1] or "shell"
            if language not in ("python", "shell"):
                raise ValueError(f"{page}:{number}: a block in {language!r}; expected python or shell")
        elif line.strip():
            matched = _MARKER.match(line.strip())
            marker = f"{matched[1]}: {matched[2]}" if matched else ""
    if opened:
        raise ValueError(f"{page}:{opened}: the block is not closed")
    return found


def inline_commands(text: str) -> list[list[str]]:
    """Return the words of the commands that stand in backquotes in the prose and the tables of a page."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines = [" ".join(line.split()).removesuffix("…").strip() for line in _INLINE.findall(prose)]
    return [shlex.split(line) for line in lines]


def comments_of(text: str) -> dict[int, str]:
    """Return, for each line of Python code that has one, the text of its comment."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


def stated_result(comment: str) -> tuple[str, Any] | None:
    """Return what a comment says that an expression gives: ("value", literal), ("array", array), ("shape", names)."""
    quoted = re.match(r"'[^']*'|\"[^\"]*\"", comment)
    if quoted:
        return "value", ast.literal_eval(quoted[0])
    array = re.match(r"array\((\[.*?\])\)", comment)
    if array:
        return "array", np.array(eval(array[1], {"inf": np.inf, "nan": np.nan}))  # noqa: S307
    truth = re.match(r"(True|False)(?=$|[;:,]\s)", comment)
    if truth:
        return "value", truth[0] == "True"
    number = re.match(r"-?\d+(\.\d+)?(?=$|[;:,]\s)", comment)
    if number:
        return "value", ast.literal_eval(number[0])
    shape = re.match(r"\(((?:\w+, ?)+\w*)\)", comment)
    if shape:
        return "shape", [part for part in re.split(r", ?", shape[1]) if part]
    return None


def check_result(comment: str, value: Any, sizes: dict[str, int]) -> bool:
    """Compare a value with what the comment beside it says; tell whether it says anything.

    Parameters
    ----------
    comment : str
        After the hash.
    value : object
        What the expression gave.
    sizes : dict
        What the names in shapes have stood for so far; added to.
    """
    stated = stated_result(comment)
    if stated is None:
        return False
    kind, expected = stated
    if kind == "value":
        assert value == expected, f"gives {value!r}"
    elif kind == "array":
        assert np.shape(value) == expected.shape, f"has the shape {np.shape(value)}"
        np.testing.assert_allclose(value, expected)
    else:
        shape = tuple(np.shape(value) if isinstance(value, list) else value.shape)
        assert len(shape) == len(expected), f"has the shape {shape}"
        for name, size in zip(expected, shape, strict=True):
            wanted = int(name) if name.isdigit() else sizes.setdefault(name, size)
            assert size == wanted, f"has the shape {shape}; {name} is {wanted}"
    return True


def run_python(block: Block, namespace: dict[str, Any], smaller: Mapping[str, str]) -> int:
    """Run a block statement by statement, and return how many results stated in comments were compared."""
    text = block.text
    for large, small in smaller.items():
        text = text.replace(large, small)
    comments = comments_of(text)
    sizes: dict[str, int] = {}
    compared = 0
    for statement in ast.parse(text).body:
        where = f"{block.page}:{block.line + statement.lineno - 1}"
        name = f"<{where}>"
        try:
            if isinstance(statement, ast.Expr):
                value = eval(compile(ast.Expression(statement.value), name, "eval"), namespace)  # noqa: S307
            else:
                exec(compile(ast.Module([statement], []), name, "exec"), namespace)
                target = statement.targets[0] if isinstance(statement, ast.Assign) else None
                if not isinstance(target, ast.Name):
                    continue
                value = namespace[target.id]
            comment = comments.get(statement.end_lineno or statement.lineno, "")
            compared += check_result(comment, value, sizes)
        except Exception as error:
            error.add_note(f"{where}: {ast.unparse(statement)}")
            raise
    return compared
