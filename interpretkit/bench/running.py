"""The bench: runs the files of ``benchmarks/``, keeps their rows of evidence, and writes them up for readers.

A benchmark is any file of that folder which defines ``run(quick, data)`` and returns rows; its docstring's
first line is its title. It may also take ``seed`` and ``device``. Nothing is registered anywhere: to add a
benchmark is to add a file. The folder belongs to the checkout and not to what is installed from it.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import math
import os
import platform
import re
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from interpretkit.bench.evidence import Row
from interpretkit.errors import InputError
from interpretkit.runs.dependencies import dependencies
from interpretkit.runs.environment import DISTRIBUTION, versions
from interpretkit.runs.files import atomic_path, here, sha256, write_json
from interpretkit.runs.progress import progress

FOLDER = "benchmarks"
JSON = "results.json"
MARKDOWN = "results.md"
# What an unfinished bench has done so far; it is removed when the bench ends. Unlike the results, it may
# hold paths of this machine, so it stays out of them.
UNFINISHED = ".bench-unfinished.json"
FORMAT = "interpretkit-bench"
FORMAT_VERSION = 1
TITLE = "# Results"
THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
# As many rows on the same data have a table of their own.
MANY = 3
# What an entry of results.json must have to be written up, beside its rows.
ENTRY = {"title", "mode", "seed", "device", "data", "date", "seconds", "machine", "versions"}
# Of all versions kept in results.json, those that a reader of the tables asks for first.
SHOWN_VERSIONS = (DISTRIBUTION, "python", "numpy", "scipy", "scikit-learn", "numba", "torch", "torchvision")


@dataclass(frozen=True)
class Benchmark:
    """One file of the folder.

    Attributes
    ----------
    name : str
        The file's name without its ending.
    path : pathlib.Path
        The file.
    title : str
        The first line of its docstring.
    """

    name: str
    path: Path
    title: str


class GivenData(Mapping[str, Path]):
    """The data that the user gave, from kind to path, which notes the kinds that a benchmark takes from it.

    Attributes
    ----------
    used : set of str
        The kinds found so far.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = dict(paths)
        self.used: set[str] = set()

    def __getitem__(self, kind: str) -> Path:
        path = self._paths[kind]
        self.used.add(kind)
        return path

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


# ------------------------------------------------------------------------------------ finding benchmarks


def find_folder(start: Path | None = None) -> Path:
    """Return the folder of benchmarks of the checkout around a folder, else of the one that is installed.

    Parameters
    ----------
    start : path, optional
        Where to start looking upwards; the current folder by default.

    Raises
    ------
    InputError
        If there is none.
    """
    installed = Path(__file__).resolve().parents[2]
    start = (start or here() or installed).resolve()
    # The name in pyproject.toml tells the checkout from other projects, whose benchmarks are not to be run.
    for root in (start, *start.parents):
        if (root / FOLDER).is_dir() and _project_name(root / "pyproject.toml") == DISTRIBUTION:
            return root / FOLDER
    if (installed / FOLDER).is_dir() and _project_name(installed / "pyproject.toml") == DISTRIBUTION:
        return installed / FOLDER
    raise InputError(
        f"{FOLDER}/: not found from the current folder upwards, and it is no part of the installed package; "
        f"run the command in a checkout of {DISTRIBUTION}, or install that with pip install -e"
    )


def _project_name(pyproject: Path) -> str | None:
    try:
        return tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_benchmarks(folder: Path) -> list[Benchmark]:
    """Return the benchmarks in a folder, by name; no file is imported to find out."""
    found = []
    for path in sorted(folder.glob("*.py")):
        if path.name.startswith("_"):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            # It fails in one line when it is run; left out, it would be missed by nobody.
            found.append(Benchmark(path.stem, path, "(cannot be read as Python)"))
            continue
        if any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in tree.body):
            title = (ast.get_docstring(tree) or "").partition("\n")[0]
            found.append(Benchmark(path.stem, path, title))
    return found


def choose(benchmarks: Sequence[Benchmark], names: Sequence[str]) -> list[Benchmark]:
    """Return the benchmarks of the names given, in that order; all if none is given.

    Raises
    ------
    InputError
        If a name is unknown, or there is no benchmark at all.
    """
    known = {benchmark.name: benchmark for benchmark in benchmarks}
    if not known:
        raise InputError(f"{FOLDER}/: holds no benchmark; expected a file that defines run(quick, data)")
    for name in names:
        if name not in known:
            raise InputError(f"NAME {name}: no such benchmark; expected one of {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)] if names else list(known.values())


def check_kinds(kinds: Iterable[str], benchmarks: Sequence[Benchmark]) -> None:
    """Refuse kinds of data that no benchmark has as a string in its code: they are slips.

    Parameters
    ----------
    kinds : iterable of str
        The kinds of the data given.
    benchmarks : sequence of Benchmark
        All there are, whether or not they are to be run.

    Raises
    ------
    InputError
        If a kind is unknown.
    """
    for kind in kinds:
        if not any(_mentions(benchmark, kind) for benchmark in benchmarks):
            raise InputError(f"data {kind}: no benchmark takes data of this kind")


def _mentions(benchmark: Benchmark, kind: str) -> bool:
    """Return whether a kind of data is a string in a benchmark's code."""
    try:
        tree = ast.parse(benchmark.path.read_bytes())
    except (SyntaxError, ValueError):
        return False
    return any(isinstance(node, ast.Constant) and node.value == kind for node in ast.walk(tree))


# ------------------------------------------------------------------------------------ running benchmarks


@contextmanager
def _imported(benchmark: Benchmark) -> Iterator[Any]:
    """Import a benchmark from its file, and forget it at the end."""
    name, root = f"{FOLDER}.{benchmark.name}", str(benchmark.path.parent.parent)
    spec = importlib.util.spec_from_file_location(name, benchmark.path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{benchmark.path.name} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name, and worker processes import it by name.
    sys.modules[name] = module
    sys.path.insert(0, root)
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(root)
        sys.modules.pop(name, None)


def run_benchmark(
    benchmark: Benchmark, *, quick: bool, data: Mapping[str, Path], seed: int = 0, device: str = "auto"
) -> dict[str, Any]:
    """Run one benchmark.

    Parameters
    ----------
    benchmark : Benchmark
        Which.
    quick : bool
        Whether to run its short form.
    data : mapping of str to path
        The user's data by kind.
    seed, device
        Handed on to a benchmark that takes them.

    Returns
    -------
    dict
        What ``results.json`` keeps of it: ``title``, ``mode``, ``seed``, ``device`` (both None unless the
        benchmark takes them), ``data`` (the kinds it used), ``date``, ``seconds``, ``machine``, ``versions``
        and ``rows``.

    Raises
    ------
    TypeError
        If the benchmark returns something other than rows.
    Exception
        Whatever the benchmark raises.
    """
    given = GivenData(data)
    machine = _machine()
    started = time.perf_counter()
    with _imported(benchmark) as module:
        run: Callable[..., Any] = module.run
        takes = inspect.signature(run).parameters
        options = {name: value for name, value in {"seed": seed, "device": device}.items() if name in takes}
        rows = list(run(quick=quick, data=given, **options))
    wrong = next((row for row in rows if not isinstance(row, Row)), None)
    if wrong is not None:
        raise TypeError(f"run() returned a {type(wrong).__name__} among its rows; expected rows of evidence")
    return {
        "title": benchmark.title,
        "mode": "quick" if quick else "full",
        "seed": options.get("seed"),
        "device": options.get("device"),
        "data": sorted(given.used),
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(time.perf_counter() - started, 1),
        "machine": machine,
        "versions": versions(),
        "rows": [row.to_dict() for row in rows],
    }


def _machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = [f"{cores} {'core' if cores == 1 else 'cores'}", f"{platform.system()} {platform.machine()}"]
    # Limits on threads and the load change every time measured; a reader cannot guess them.
    parts += [f"{name}={os.environ[name]}" for name in THREAD_LIMITS if os.environ.get(name)]
    if hasattr(os, "getloadavg"):
        parts.append(f"load {os.getloadavg()[0]:.1f} before")
    return ", ".join(parts)


def check_call(
    names: Sequence[str], data: Mapping[str, Path]
) -> tuple[Path, list[Benchmark], list[Benchmark]]:
    """Return the folder of benchmarks, all of them, and those chosen.

    Raises
    ------
    InputError
        If there is no benchmark of a name, or none takes data of a kind.
    """
    folder = find_folder()
    benchmarks = find_benchmarks(folder)
    chosen = choose(benchmarks, names)
    check_kinds(data, benchmarks)
    return folder, benchmarks, chosen


def update(out: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
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
        _keep(out, name, entry, known)


def write_results(path: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Write entries by benchmark as ``results.json``."""
    write_json(path, {"format": FORMAT, "format_version": FORMAT_VERSION, "benchmarks": results})


def bench(
    names: Sequence[str] = (),
    *,
    quick: bool = False,
    data: Mapping[str, Path] = MappingProxyType({}),
    out: Path,
    fresh: bool = False,
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
) -> dict[str, Any]:
    """Run benchmarks, and write their rows beside those that are there already.

    The rows of a benchmark are written when it ends. A bench that was interrupted goes on when it is called
    again in the same way; a benchmark whose file has changed since is run anew, and all of them where data, a version
    or the project's own source has changed.

    Parameters
    ----------
    names : sequence of str
        Which benchmarks; all if empty.
    quick : bool
        Run their short forms.
    data : mapping of str to path
        Where the data sets are that the user has, by their kinds.
    out : path
        The folder for ``results.json`` and ``results.md``.
    fresh : bool
        Run also what an interrupted bench has done.
    seed : int
        Seed of the benchmarks that take one.
    device : str
        Where those compute that take a device.
    quiet : bool
        Show only what fails.

    Returns
    -------
    dict
        ``out``, ``n_rows`` (of the benchmarks that have ended well, now or before the interruption),
        ``ran``, ``resumed``, ``failed`` (lists of names) and ``files``.

    Raises
    ------
    InputError
        If a name, a kind of data or the output folder cannot be used.
    """
    folder, benchmarks, chosen = check_call(names, data)
    paths = {kind: Path(path).resolve() for kind, path in data.items()}
    out = Path(out)
    known = {benchmark.name for benchmark in benchmarks}
    prepare(out)
    call = {
        "names": [benchmark.name for benchmark in chosen],
        "quick": quick,
        "data": {kind: str(path) for kind, path in sorted(paths.items())},
        "seed": seed,
        "device": device,
        "contents": {kind: sha256(path) for kind, path in sorted(paths.items())},
        "dependencies": dependencies(),
        "helpers": {p.name: sha256(p) for p in sorted(folder.glob("*.py")) if p.stem not in known},
    }
    done = {} if fresh else _done_before(out, call)
    kept = read_results(out)
    resumed = [b.name for b in chosen if b.name in kept and done.get(b.name) == sha256(b.path)]
    done = {name: done[name] for name in resumed}
    if resumed and not quiet:
        _say(f"going on where the bench was interrupted; done already: {', '.join(resumed)}")
    waiting = [benchmark for benchmark in chosen if benchmark.name not in resumed]
    ran: list[str] = []
    failed: list[str] = []
    with progress("Benchmarks", total=len(waiting), quiet=quiet) as bar:
        for benchmark in waiting:
            bar.update(description=benchmark.name)
            digest = sha256(benchmark.path)
            try:
                entry = run_benchmark(benchmark, quick=quick, data=paths, seed=seed, device=device)
            # Whatever a benchmark may raise, hours of others must not be lost by it: it is named at once and
            # in the summary, its rows of before are marked, and the command ends with 1.
            except Exception as error:  # noqa: BLE001
                failed.append(benchmark.name)
                _say(f"benchmark {benchmark.name} failed: {type(error).__name__}: {error}")
                _mark_failed(out, benchmark.name, error, known)
            else:
                ran.append(benchmark.name)
                done[benchmark.name] = digest
                _keep(out, benchmark.name, entry, known)
                write_json(out / UNFINISHED, {"call": call, "done": done})
                if not quiet:
                    _say(f"{benchmark.name}: {len(entry['rows'])} rows in {entry['seconds']:.0f} s")
            bar.advance()
    (out / UNFINISHED).unlink(missing_ok=True)
    results = read_results(out)
    unused = set(paths).difference(*(results[name]["data"] for name in [*resumed, *ran]))
    if unused and not failed and not quiet:
        _say(f"data that no benchmark of this call has taken: {', '.join(sorted(unused))}")
    return {
        "out": out,
        "n_rows": sum(len(results[name]["rows"]) for name in [*resumed, *ran]),
        "ran": ran,
        "resumed": resumed,
        "failed": failed,
        "files": [JSON, MARKDOWN] if results else [],
    }


def _say(line: str) -> None:
    print(" ".join(line.split()), file=sys.stderr, flush=True)


# ----------------------------------------------------------------------------------- keeping the results


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


def _done_before(out: Path, call: Mapping[str, Any]) -> dict[str, str]:
    """Return what an interrupted bench of the same call has done, from name to the file's hash."""
    try:
        content = json.loads((out / UNFINISHED).read_text(encoding="utf-8"))
        return dict(content["done"]) if content["call"] == call else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _keep(out: Path, name: str, entry: Mapping[str, Any], known: set[str]) -> None:
    """Put a benchmark's entry in place of its earlier one, and write both files."""
    # Read again, for another bench may have ended meanwhile.
    results = {**read_results(out), name: entry}
    gone = sorted(set(results) - known)
    if gone:
        _say(f"rows dropped, since their benchmark is no longer there: {', '.join(gone)}")
    results = {name: results[name] for name in sorted(results) if name in known}
    write_results(out / JSON, results)
    with atomic_path(out / MARKDOWN) as hidden:
        hidden.write_text(page(results), encoding="utf-8")


def _mark_failed(out: Path, name: str, error: Exception, known: set[str]) -> None:
    """Note beside earlier rows that the benchmark has failed since; without such rows there is no place."""
    entry = read_results(out).get(name)
    if entry is not None:
        # The message may name paths of this machine; the kind of error is enough for a reader.
        failure = {"date": datetime.now(UTC).date().isoformat(), "error": type(error).__name__}
        _keep(out, name, {**entry, "failed_since": failure}, known)


# ----------------------------------------------------------------------------------------- the write-up


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
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


def list_benchmarks() -> dict[str, Any]:
    """Return the names and titles of all benchmarks, under ``benchmarks``."""
    found = find_benchmarks(find_folder())
    return {"benchmarks": [{"name": benchmark.name, "title": benchmark.title} for benchmark in found]}
