"""Benchmarks run one after another; a bench that is interrupted goes on where it was."""

from __future__ import annotations

import inspect
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from interpretkit.bench.benchmarks import (
    Benchmark,
    GivenData,
    check_kinds,
    choose,
    find_benchmarks,
    find_folder,
    imported,
)
from interpretkit.bench.evidence import Row
from interpretkit.bench.results import JSON, MARKDOWN, keep_entry, mark_failed, prepare, read_results, say
from interpretkit.runs.dependencies import dependencies
from interpretkit.runs.environment import versions
from interpretkit.runs.files import sha256, write_json
from interpretkit.runs.progress import progress

# What an unfinished bench has done so far; it is removed when the bench ends. Unlike the results, it may
# hold paths of this machine, so it stays out of them.
UNFINISHED = ".bench-unfinished.json"
THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def run_benchmark(
    benchmark: Benchmark,
    *,
    quick: bool,
    data: Mapping[str, Path],
    seed: int = 0,
    device: str = "auto",
    cache: Path | None = None,
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
    cache : path, optional
        A folder, handed on to a benchmark that takes one, in which it keeps what it has measured and goes on from it.

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
    with imported(benchmark) as module:
        run: Callable[..., Any] = module.run
        takes = inspect.signature(run).parameters
        known = {"seed": seed, "device": device, "cache": cache}
        options = {name: value for name, value in known.items() if name in takes}
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
        say(f"going on where the bench was interrupted; done already: {', '.join(resumed)}")
    waiting = [benchmark for benchmark in chosen if benchmark.name not in resumed]
    ran: list[str] = []
    failed: list[str] = []
    with progress("Benchmarks", total=len(waiting), quiet=quiet) as bar:
        for benchmark in waiting:
            bar.update(description=benchmark.name)
            digest = sha256(benchmark.path)
            cache = out / f".{benchmark.name}-{digest[:12]}"
            try:
                entry = run_benchmark(
                    benchmark, quick=quick, data=paths, seed=seed, device=device, cache=cache
                )
            # Whatever a benchmark may raise, hours of others must not be lost by it: it is named at once and
            # in the summary, its rows of before are marked, and the command ends with 1.
            except Exception as error:  # noqa: BLE001
                failed.append(benchmark.name)
                say(f"benchmark {benchmark.name} failed: {type(error).__name__}: {error}")
                mark_failed(out, benchmark.name, error, known)
            else:
                ran.append(benchmark.name)
                done[benchmark.name] = digest
                keep_entry(out, benchmark.name, entry, known)
                write_json(out / UNFINISHED, {"call": call, "done": done})
                shutil.rmtree(cache, ignore_errors=True)
                if not quiet:
                    say(f"{benchmark.name}: {len(entry['rows'])} rows in {entry['seconds']:.0f} s")
            bar.advance()
    (out / UNFINISHED).unlink(missing_ok=True)
    results = read_results(out)
    unused = set(paths).difference(*(results[name]["data"] for name in [*resumed, *ran]))
    if unused and not failed and not quiet:
        say(f"data that no benchmark of this call has taken: {', '.join(sorted(unused))}")
    return {
        "out": out,
        "n_rows": sum(len(results[name]["rows"]) for name in [*resumed, *ran]),
        "ran": ran,
        "resumed": resumed,
        "failed": failed,
        "files": [JSON, MARKDOWN] if results else [],
    }


def _done_before(out: Path, call: Mapping[str, Any]) -> dict[str, str]:
    """Return what an interrupted bench of the same call has done, from name to the file's hash."""
    try:
        content = json.loads((out / UNFINISHED).read_text(encoding="utf-8"))
        return dict(content["done"]) if content["call"] == call else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
