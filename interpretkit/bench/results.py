"""The rows of evidence of all benchmarks: kept in ``results.json``, written up in ``results.md``."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from interpretkit.bench.benchmarks import find_benchmarks, find_folder
from interpretkit.bench.evidence import Row
from interpretkit.errors import InputError
from interpretkit.runs.environment import DISTRIBUTION
from interpretkit.runs.files import atomic_path, write_json

JSON = "results.json"
MARKDOWN = "results.md"
FORMAT = "interpretkit-bench"
FORMAT_VERSION = 1
TITLE = "# Results"
# As many rows on the same data have a table of their own.
MANY = 3
# What an entry of results.json must have to be written up, beside its rows.
ENTRY = {"title", "mode", "seed", "device", "data", "date", "seconds", "machine", "versions"}
# Of all versions kept in results.json, those that a reader of the tables asks for first.
SHOWN_VERSIONS = (DISTRIBUTION, "python", "numpy", "scipy", "scikit-learn", "numba", "torch", "torchvision")


def update_results(out: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Put benchmarks' entries in place of their earlier ones in the results of a folder.

    Parameters
    ----------
    out : path
        The folder.
    results : mapping
        From benchmark to its entry, as :func:`read_results` returns.
    """
    known = {benchmark.name for benchmark in find_benchmarks(find_folder())}
    for name, entry in results.items():
        keep_entry(out, name, entry, known)


def write_results(path: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Write entries by benchmark as ``results.json``."""
    write_json(path, {"format": FORMAT, "format_version": FORMAT_VERSION, "benchmarks": results})


def say(line: str) -> None:
    """Print one line on stderr."""
    print(" ".join(line.split()), file=sys.stderr, flush=True)


def prepare(out: Path) -> None:
    """Make the folder, and refuse one in which files that are not the bench's would be lost."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out {out}: {error.strerror}; expected a folder that can be written to") from error
    if not os.access(out, os.W_OK):
        raise InputError(f"out {out}: cannot be written to; expected a folder that can")
    read_results(out)
    page = out / MARKDOWN
    if page.exists() and not page.read_text(encoding="utf-8", errors="replace").startswith(TITLE + "\n"):
        raise InputError(f"out {out}: its {MARKDOWN} was not written by the bench; move it away")


def read_results(out: Path) -> dict[str, dict[str, Any]]:
    """Return what a folder's ``results.json`` keeps, by benchmark; nothing if there is no such file.

    Raises
    ------
    InputError
        If the file holds something else.
    """
    path = out / JSON
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT or content["format_version"] > FORMAT_VERSION:
            raise ValueError(f"expected {FORMAT}, version {FORMAT_VERSION} at most")
        for entry in content["benchmarks"].values():
            _rows_of(entry)
            missing = ENTRY - set(entry)
            if missing:
                raise ValueError(f"no {min(missing)} in an entry")
        return content["benchmarks"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read as results of the bench ({error}); move it away") from error


def _rows_of(entry: Mapping[str, Any]) -> list[Row]:
    """Return an entry's rows, with NaN where JSON has null for what is no finite number."""
    rows = []
    for content in entry["rows"]:
        interval = content["interval"]
        broken = interval is not None and None in interval
        value = math.nan if content["value"] is None else content["value"]
        rows.append(Row.from_dict({**content, "value": value, "interval": None if broken else interval}))
    return rows


def keep_entry(out: Path, name: str, entry: Mapping[str, Any], known: set[str]) -> None:
    """Put a benchmark's entry in place of its earlier one, and write both files."""
    # Read again, for another bench may have ended meanwhile.
    results = {**read_results(out), name: entry}
    gone = sorted(set(results) - known)
    if gone:
        say(f"rows dropped, since their benchmark is no longer there: {', '.join(gone)}")
    results = {name: results[name] for name in sorted(results) if name in known}
    write_results(out / JSON, results)
    with atomic_path(out / MARKDOWN) as hidden:
        hidden.write_text(results_page(results), encoding="utf-8")


def mark_failed(out: Path, name: str, error: Exception, known: set[str]) -> None:
    """Note beside earlier rows that the benchmark has failed since; without such rows there is no place."""
    entry = read_results(out).get(name)
    if entry is not None:
        # The message may name paths of this machine; the kind of error is enough for a reader.
        failure = {"date": datetime.now(UTC).date().isoformat(), "error": type(error).__name__}
        keep_entry(out, name, {**entry, "failed_since": failure}, known)


def results_page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the results as Markdown.

    Parameters
    ----------
    results : mapping
        From benchmark to its entry, as :func:`read_results` returns.
    """
    lines = [
        TITLE,
        "",
        f"Written by `interpretkit bench`, never by hand; the same rows, with all versions, are in `{JSON}`.",
        "Under each benchmark stands the command that made its rows. *Quick* is its short form: fewer repetitions",
        "and smaller data. Data that the command does not name are drawn or bundled by the benchmark itself.",
        "",
        "- **baseline**: the same measure for a simple method or the one replaced, as the notes say.",
        "- **reference**: the published number, or the bar that the project set itself; the source says which.",
        "- **ratio**: value over reference. Whether more or less is better depends on what is measured.",
        "- **†**: other data or another system stands in for those of the reference, so the two numbers may be",
        "  compared only with the reservation in the note.",
        "",
        "Times hold for the machine named, under the load and the limits on threads given with it.",
        "",
        "| benchmark | rows | stand-ins | mode | date |",
        "|---|---:|---:|---|---|",
    ]
    for name, entry in results.items():
        rows = _rows_of(entry)
        stand_ins = sum(row.stand_in for row in rows)
        failed = ", has failed since" if entry.get("failed_since") else ""
        cells = (f"[{name}](#{name})", len(rows), stand_ins, entry["mode"] + failed, entry["date"])
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    for name, entry in results.items():
        lines += ["", *_section(name, entry)]
    return "\n".join(lines) + "\n"


def _section(name: str, entry: Mapping[str, Any]) -> list[str]:
    rows = _rows_of(entry)
    shown = [f"{v} {entry['versions'][v]}" for v in SHOWN_VERSIONS if v in entry["versions"]]
    lines = [f"## {name}", "", entry["title"], "", f"`{_command(name, entry)}`", ""]
    about = [f"{entry['date']}, {entry['mode']}, {entry['seconds']:.0f} s on {entry['machine']}"]
    about.append(f"data given: {', '.join(entry['data']) or 'none'}")
    same_seed = len({row.seed for row in rows}) <= 1
    if rows and same_seed and rows[0].seed is not None:
        about.append(f"seed {rows[0].seed}")
    lines += ["; ".join(about) + ".  ", ", ".join(shown) + "."]
    if entry.get("failed_since"):
        failure = entry["failed_since"]
        lines += [
            "",
            f"**Run again on {failure['date']}, it failed ({failure['error']}); the rows are older.**",
        ]
    stand_ins = sum(row.stand_in for row in rows)
    if stand_ins:
        lines += ["", f"**Stand-ins: {stand_ins} of {len(rows)} rows, marked †.**"]
    if not rows:
        return [*lines, "", "No rows."]
    sources = _numbered(row.source for row in rows)
    notes = _numbered(row.notes for row in rows)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.data, []).append(row)
    # Many rows on the same data: a table of their own under its name. The rest share one, with a column for it.
    tables = [(f"**Data: {_plain(data)}**", group) for data, group in groups.items() if len(group) >= MANY]
    rest = [row for row in rows if len(groups[row.data]) < MANY]
    for caption, group in tables:
        lines += ["", caption, ""]
        lines += _table(group, sources, notes, with_data=False, with_seed=not same_seed)
    if rest:
        lines += ["", *(["**Other data**", ""] if tables else [])]
        lines += _table(rest, sources, notes, with_data=True, with_seed=not same_seed)
    if sources:
        lines += ["", "Sources:", "", *(f"- [{i}] {_plain(text)}" for text, i in sources.items())]
    if notes:
        lines += ["", "Notes:", "", *(f"- ({_letters(i)}) {_plain(text)}" for text, i in notes.items())]
    return lines


def _command(name: str, entry: Mapping[str, Any]) -> str:
    """Return the command line that makes an entry's rows."""
    words = ["interpretkit bench", name]
    words += ["--quick"] if entry["mode"] == "quick" else []
    words += [f"--data {kind}=PATH" for kind in entry["data"]]
    words += [f"--seed {entry['seed']}"] if entry["seed"] else []
    words += [f"--device {entry['device']}"] if entry["device"] not in (None, "auto") else []
    return " ".join(words)


def _numbered(texts: Iterable[str]) -> dict[str, int]:
    """Return the distinct texts that are not empty, with numbers from 1 in the order of their coming."""
    return {text: i for i, text in enumerate(dict.fromkeys(text for text in texts if text), start=1)}


def _letters(number: int) -> str:
    """Return a, b, …, z, aa, ab, … for 1, 2, …."""
    letters = ""
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return letters


def _table(
    rows: Sequence[Row],
    sources: Mapping[str, int],
    notes: Mapping[str, int],
    *,
    with_data: bool,
    with_seed: bool,
) -> list[str]:
    """Return rows as the lines of a table; a column that no row fills is left out."""
    columns: dict[str, list[str]] = {
        "system": [row.system + (" †" if row.stand_in else "") for row in rows],
        "data": [row.data if with_data else "" for row in rows],
        "measured": [f"{row.name}, {row.unit}" if row.unit else row.name for row in rows],
        "value": [_number(row.value) for row in rows],
        "95 % interval": [
            "" if row.interval is None else f"{_number(row.interval[0])} … {_number(row.interval[1])}"
            for row in rows
        ],
        "baseline": [_number(row.baseline) for row in rows],
        "reference": [_number(row.reference) for row in rows],
        "ratio": ["" if row.ratio is None else _number(row.ratio, 3) for row in rows],
        "source": [f"[{sources[row.source]}]" if row.source else "" for row in rows],
        "seed": [str(row.seed) if with_seed and row.seed is not None else "" for row in rows],
        "note": [f"({_letters(notes[row.notes])})" if row.notes else "" for row in rows],
    }
    filled = {name: column for name, column in columns.items() if any(column)}
    right = {"value", "95 % interval", "baseline", "reference", "ratio", "seed"}
    return [
        "| " + " | ".join(filled) + " |",
        "|" + "|".join("---:" if name in right else "---" for name in filled) + "|",
        *("| " + " | ".join(map(_plain, cells)) + " |" for cells in zip(*filled.values(), strict=True)),
    ]


def _number(value: float | None, digits: int = 4) -> str:
    """Return a number with so many digits that count, without a power of ten where people read it easily."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return "undefined"
    if value == int(value) and abs(value) < 1e9:
        return _grouped(f"{int(value):,}")
    if 10**digits <= abs(value) < 1e9:
        return _grouped(f"{value:,.0f}")
    return f"{value:.{digits}g}" if abs(value) >= 1e-3 else f"{value:.2g}"


def _grouped(number: str) -> str:
    """Part thousands by a space at which no line is broken."""
    return number.replace(",", "\u00a0")


def _plain(text: str) -> str:
    """Keep a text on its line and within its cell; an asterisk as in *OH must not turn into emphasis."""
    text = re.sub(r"[ \t\r\n]+", " ", text).strip(" ")
    for character in "\\|*<":
        text = text.replace(character, "\\" + character)
    return text
