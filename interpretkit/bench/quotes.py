"""Numbers that the documentation quotes from the bench: taken from its results, never typed.

A page holds a number between two comments, which no reader sees::

    The error is <!-- result: teacher-dft -->0.058<!-- /result --> eV.

``quotes.toml``, beside the results, says what stands for the name::

    [teacher-dft]
    benchmark = "adsorption"
    system = "teacher, class and elements only"
    measured = "mean absolute error"
    show = "{value:.3f}"

``interpretkit bench`` brings the pages up to date, and so does ``python -m interpretkit.bench.quotes docs``.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interpretkit.errors import InputError
from interpretkit.runs.files import atomic_path

QUOTES = "quotes.toml"
_QUOTED = re.compile(r"(<!-- result: ([\w-]+) -->)(.*?)(<!-- /result -->)", re.DOTALL)
_FIELDS = {"benchmark", "system", "measured", "data", "show"}


def read_quotes(path: Path | str) -> dict[str, dict[str, str]]:
    """Return what the names in the pages stand for.

    Parameters
    ----------
    path : path
        A file with a table for each name: ``benchmark`` and ``system`` of a row, how its ``measured`` and, where there
        are several, its ``data`` begin, and how to ``show`` it: a format of ``value``, ``baseline``, ``reference``,
        ``ratio``, ``low`` and ``high`` (the ends of the interval) and ``half`` (of its width).

    Raises
    ------
    InputError
        If it cannot be read, or an entry lacks something or has too much.
    """
    path = Path(path)
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected quotes (TOML)") from error
    for name, entry in found.items():
        if not isinstance(entry, dict) or not (_FIELDS - {"data"} <= set(entry) <= _FIELDS):
            raise InputError(
                f"{path}: [{name}]; expected {', '.join(sorted(_FIELDS))} (data may be left out)"
            )
    return found


def quoted(entry: Mapping[str, str], results: Mapping[str, Mapping[str, Any]], name: str = "") -> str:
    """Return a number as a page shows it.

    Parameters
    ----------
    entry : mapping
        One of :func:`read_quotes`.
    results : mapping
        From benchmark to its entry, as :func:`interpretkit.bench.results.read_results` returns.
    name : str
        For error messages.

    Raises
    ------
    InputError
        Unless exactly one row fits, with all that is to be shown.
    """
    rows = [
        row
        for row in results.get(entry["benchmark"], {}).get("rows", [])
        if row["system"] == entry["system"]
        and row["name"].startswith(entry["measured"])
        and row["data"].startswith(entry.get("data", ""))
    ]
    # A name may be the beginning of another.
    rows = [row for row in rows if row["name"] == entry["measured"]] or rows
    if len(rows) != 1:
        raise InputError(f"{QUOTES}: [{name}] fits {len(rows)} rows of {entry['benchmark']}; expected one")
    row = rows[0]
    low, high = row["interval"] or (None, None)
    half = None if low is None or high is None else (high - low) / 2
    values = {key: row[key] for key in ("value", "baseline", "reference", "ratio")}
    values |= {"low": low, "high": high, "half": half}
    try:
        shown = entry["show"].format(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{QUOTES}: [{name}] cannot be shown as {entry['show']!r} ({error})") from error
    return re.sub(r"(?<=\d)%", " %", re.sub(r"(?<![\d\w])-(?=\d)", "−", shown))


def refresh(
    text: str, quotes: Mapping[str, Mapping[str, str]], results: Mapping[str, Mapping[str, Any]]
) -> str:
    """Return a page with the numbers that it quotes brought up to date.

    Raises
    ------
    InputError
        If it quotes what `quotes` does not have, and as :func:`quoted`.
    """

    def replaced(match: re.Match[str]) -> str:
        name = match[2]
        if name not in quotes:
            raise InputError(f"{QUOTES}: has no [{name}], which a page quotes")
        return f"{match[1]}{quoted(quotes[name], results, name)}{match[4]}"

    return _QUOTED.sub(replaced, text)


def names_in(text: str) -> list[str]:
    """Return the names of what a page quotes, in order."""
    return [match[2] for match in _QUOTED.finditer(text)]


def pages_of(folder: Path | str) -> list[Path]:
    """Return the pages that may quote results: those of a folder, and the README above it."""
    folder = Path(folder)
    return [path for path in (folder.parent / "README.md", *sorted(folder.glob("*.md"))) if path.is_file()]


def refresh_pages(folder: Path | str, results: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """Bring the pages of a folder with a ``quotes.toml`` up to date, and return those that changed.

    Raises
    ------
    InputError
        As :func:`refresh`; nothing is written then.
    """
    quotes = read_quotes(Path(folder) / QUOTES)
    changed = {}
    for path in pages_of(folder):
        text = path.read_text(encoding="utf-8")
        fresh = refresh(text, quotes, results)
        if fresh != text:
            changed[path] = fresh
    for path, fresh in changed.items():
        with atomic_path(path) as hidden:
            hidden.write_text(fresh, encoding="utf-8")
    return list(changed)


def _main(folder: str) -> None:
    from interpretkit.bench.results import read_results

    try:
        changed = refresh_pages(folder, read_results(Path(folder)))
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    print("\n".join(map(str, changed)) or "nothing to change")


if __name__ == "__main__":
    _main(sys.argv[1] if len(sys.argv) > 1 else "docs")
