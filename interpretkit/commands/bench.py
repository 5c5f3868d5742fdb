"""The claims of the project, measured anew."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from interpretkit.commandline import Column, Device, Finding, Here, Quiet, Seed, command, kinds_and_paths
from interpretkit.runs.folder import Run

_COLUMNS = {
    "system": Column("what was measured"),
    "data": Column("on which data"),
    "name": Column("which quantity", heading="measured"),
    "unit": Column("its unit"),
    "value": Column("its value"),
    "baseline": Column("the same of a simple method, or of the one replaced"),
    "reference": Column("the published number, or the bar that the project set itself"),
    "ratio": Column("value over reference", format=".3g"),
    "source": Column("where the reference comes from"),
    "notes": Column("what to know before comparing"),
}


@command(
    out="evidence",
    example=[
        "interpretkit bench --list",
        "interpretkit bench path_homology disentanglement --quick",
        "interpretkit bench --data hea-oh=FOLDER dsprites=FILE.npz --out evidence --json",
        "interpretkit bench path_homology --update docs",
    ],
)
def bench(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Which benchmarks; all by default.")
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="Only list the benchmarks there are.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repetitions and smaller data.")] = False,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND=PATH", help="Data of your own, such as hea-oh=FOLDER; more of them may follow."
        ),
    ] = None,
    update: Annotated[
        Path | None,
        typer.Option(
            "--update",
            metavar="DIR",
            help="Also put the rows in place of their earlier ones in the results.json and results.md of a folder.",
        ),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    *,
    run: Run,
) -> Finding:
    """Measure the claims of the project anew: rows of evidence, in results.json and results.md.

    Rows of benchmarks that are not run stay as they are in an earlier result. An interrupted bench goes on when it is
    called again in the same way. If a benchmark fails, the others go on, and the exit code is 1.
    """
    from interpretkit.bench.quotes import QUOTES, refresh_pages
    from interpretkit.bench.results import (
        JSON,
        MARKDOWN,
        prepare,
        read_results,
        results_page,
        update_results,
        write_results,
    )
    from interpretkit.bench.running import bench, check_call

    if listing:
        return _listing()
    wanted, paths = names_and_data(names or (), data or ())
    check_call(wanted, paths)
    if update is not None:
        prepare(update)
    with run.kept(without=["update"]) as work:
        earlier = run.out / JSON
        if earlier.is_file() and not (work / JSON).exists():
            shutil.copyfile(earlier, work / JSON)
        done = bench(wanted, quick=quick, data=paths, out=work, seed=seed, device=device, quiet=quiet)
        results = read_results(work)
    if update is not None:
        update_results(update, {name: results[name] for name in [*done["resumed"], *done["ran"]]})
        if (update / QUOTES).is_file():
            refresh_pages(update, read_results(update))

    measured = [*done["resumed"], *done["ran"]]
    found = Finding(
        f"{done['n_rows']} rows of evidence",
        f"Of {len(measured)} benchmark{'s' * (len(measured) != 1)}, {'in short' if quick else 'at full size'}. "
        "Each row stands beside a baseline and, where there is one, the published number.",
    )
    found.number("n_rows", done["n_rows"], "rows").number("ran", done["ran"], "measured", on_card=False)
    found.number("resumed", done["resumed"], "done before the interruption", on_card=False)
    found.number("failed", done["failed"], "failed", on_card=False)
    for name in measured:
        found.section(name, results[name]["title"]).table(None, _rows(results[name]), _COLUMNS)
    for name in done["failed"]:
        found.warn(f"The benchmark {name} failed; its earlier rows, if there are any, are marked.")
    found.file(JSON, lambda path: write_results(path, results))
    found.file(MARKDOWN, lambda path: _write_text(path, results_page(results)))
    found.exit_code = 1 if done["failed"] else 0
    return found.next_step("Read all rows:", "less", Here(MARKDOWN))


def names_and_data(names: Sequence[str], data: Sequence[str]) -> tuple[list[str], dict[str, Path]]:
    """Return the names of benchmarks, and the data by kind; those that follow the first arrive among the names."""
    following = [name for name in names if "=" in name]
    return [name for name in names if "=" not in name], kinds_and_paths([*data, *following], (), "data")


def _listing() -> Finding:
    from interpretkit.bench.benchmarks import list_benchmarks

    listed = list_benchmarks()["benchmarks"]
    found = Finding(f"{len(listed)} benchmarks")
    found.values["benchmarks"] = listed
    columns = {"name": Column("as it is called"), "title": Column("what it measures")}
    found.section("Benchmarks").table(None, listed, columns, in_terminal=True)
    found.transient = True
    return found


def _rows(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a benchmark with the columns that any of them fills."""
    rows = [{name: row.get(name) for name in _COLUMNS} for row in entry["rows"]]
    filled = [name for name in _COLUMNS if any(row[name] not in (None, "") for row in rows)]
    return [{name: row[name] for name in filled} for row in rows]


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
