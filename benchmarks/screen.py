"""Screening: time per site against the number of sites, memory of all processes, and frames of one's own.

Run as `interpretkit bench screen`.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catalysis.data import load_bundled
from catalysis.energies.teacher import Teacher
from catalysis.models.site_model import SHIPPED
from catalysis.structure.reading import iterate_structures
from catalysis.structure.templates import Template
from catalysis.structure.user_sites import write_sites
from catalysis.studies.activity import Target
from catalysis.studies.frames import screen_frames
from catalysis.studies.optimize import known_templates
from catalysis.studies.screen import do_blocks, prepared, reduced
from interpretkit.bench.evidence import Row

TARGET = Target(0.1, 0.1)
_MILLION_MINUTES, _MILLION_GB = 5.0, 2.0
_FRAME_MS = 3.0
_BAR = "the project's bar"


def run(quick: bool = True, data: Mapping[str, Path] | None = None, seed: int = 0) -> list[Row]:
    """Return rows of evidence.

    Parameters
    ----------
    quick
        Up to 20 000 sites and a thousand frames; else up to ten million and twenty thousand.
    data
        `"hea-oh"`: folder with `sites.extxyz`, whose frames are read as well.
    seed
        Of the sites.
    """
    teacher = Teacher.load(SHIPPED / "teacher.safetensors")
    templates = [template for some in known_templates(teacher).values() for template in some]
    alloy = dict.fromkeys(teacher.elements, 1 / len(teacher.elements))
    _warm(teacher, templates[:1], alloy)
    drawn = f"sites of {len(templates)} classes, {len(teacher.elements)} metals"
    rows = []
    for n in (10_000,) if quick else (10_000, 50_000):
        begin = time.process_time()
        ready = prepared(teacher, templates, alloy, TARGET, n, seed=seed)
        made = time.process_time() - begin
        with tempfile.TemporaryDirectory() as place:
            begin = time.process_time()
            do_blocks(ready, ready.plan.blocks(), Path(place) / "blocks")
            found = reduced([Path(place) / "blocks"], Path(place) / "sites.parquet")
            taken = time.process_time() - begin
        rows.append(
            Row(
                system="screen",
                data=f"{n} {drawn}",
                name="processor time per site, one process",
                value=1e6 * taken / n,
                unit="µs",
                seed=seed,
                notes=f"fingerprint, energy, deviation, selection, reduction; {found.kept} rows kept; before it "
                f"{made:.1f} s to tabulate the teacher",
            )
        )
    for n in (20_000,) if quick else (1_000_000, 10_000_000):
        rows += _command_rows(n, drawn, seed)
    if data and "hea-oh" in data:
        what = "relaxed *OH sites of the PGH-VAE article"
        rows.append(_frames_row(teacher, data["hea-oh"] / "sites.extxyz", what, seed))
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "frames.extxyz"
        count = 1_000 if quick else 20_000
        write_many_frames(file, count, seed)
        rows += _frames_command_rows(file, count, seed)
    return rows


@dataclass(frozen=True)
class Spent:
    """What a command took with all its processes.

    Attributes
    ----------
    wall_s, processor_s
        In seconds.
    own_gb, resident_gb
        The largest memory of all processes together in 10⁹ bytes: pages that several share counted once, and as often
        as they are shared; None where the system does not tell.
    """

    wall_s: float
    processor_s: float
    own_gb: float | None
    resident_gb: float | None


def spent_by(*words: str) -> Spent:
    """Run a command of the toolkit in a process of its own and return what it took.

    Raises
    ------
    subprocess.CalledProcessError
        If it fails.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    command = [sys.executable, "-m", "interpretkit", *words, "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    most = np.zeros(2)
    while process.poll() is None:
        now = np.array([_memory_kb(pid) for pid in _family(process.pid)])
        most = np.maximum(most, now.sum(0))
        time.sleep(0.5)
    wall = time.perf_counter() - begin
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    own, resident = (kb * 1024 / 1e9 or None for kb in most.tolist())
    return Spent(wall, processor, own, resident)


def _family(pid: int) -> list[int]:
    """Return a process and all that descend from it, as /proc tells."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = entry.read_text()
        except OSError:  # it has ended meanwhile
            continue
        parents.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(entry.parent.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def _memory_kb(pid: int) -> tuple[int, int]:
    """Return a process's proportional and resident memory in 1024 bytes; 0 where /proc does not tell."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0, 0
    told = {line.split(":")[0]: line.split()[1] for line in lines[1:]}
    return int(told.get("Pss", 0)), int(told.get("Rss", 0))


def _command_rows(n: int, drawn: str, seed: int) -> list[Row]:
    """Return what the command takes for n sites with two local processes."""
    with tempfile.TemporaryDirectory() as place:
        spent = spent_by(
            "catalyst", "screen", "--n", str(n), "--workers", "2", "--seed", str(seed),
            "--out", str(Path(place) / "screened"),
        )  # fmt: skip
    million = n == 1_000_000
    where = f"{n} {drawn}, two processes"
    rows = [
        Row(
            system="catalyst screen",
            data=where,
            name="time from start to report",
            value=spent.wall_s / 60,
            unit="min",
            reference=_MILLION_MINUTES if million else None,
            source=_BAR if million else "",
            seed=seed,
            notes=f"{1e6 * spent.processor_s / n:.0f} µs of processor time a site, everything counted; at that rate "
            f"10⁹ sites take {1e3 * spent.processor_s / n / 3.6 * 1e3:.0f} core-hours",
        )
    ]
    if spent.own_gb is not None and spent.resident_gb is not None:
        rows.append(
            Row(
                system="catalyst screen",
                data=where,
                name="largest memory of all processes together",
                value=spent.resident_gb,
                unit="GB",
                reference=_MILLION_GB,
                source=_BAR,
                seed=seed,
                notes=f"sum of resident sets, shared pages counted in each; {spent.own_gb:.2f} GB with those counted "
                "once",
            )
        )
    return rows


def write_many_frames(file: Path, count: int, seed: int) -> None:
    """Write so many frames without names: bundled sites in turn, each with elements drawn anew, as extxyz."""
    sites = load_bundled()
    elements = np.array(sorted({symbol for site in sites for symbol in site.symbols}))
    generator = np.random.default_rng(seed)
    write_sites(file, sites)
    frames = list(_frames_of(file.read_text(encoding="utf-8").splitlines()))
    with file.open("w", encoding="utf-8") as stream:
        for k in range(count):
            (number, comment, *atoms), site = frames[k % len(frames)], sites[k % len(frames)]
            drawn = elements[generator.integers(0, len(elements), len(site))]
            metals = [f"{symbol:<8}{line[8:]}" for symbol, line in zip(drawn, atoms, strict=False)]
            # Nor do they name a slab: that each stands on one of its own is for the reader to find out.
            comment = comment.replace(f"site_id={site.site_id} slab_id={site.slab_id} ", "")
            lines = [number, comment, *metals, *atoms[len(site) :]]
            stream.write("\n".join(lines) + "\n")


def _frames_of(lines: list[str]) -> Iterator[list[str]]:
    at = 0
    while at < len(lines):
        size = int(lines[at]) + 2
        yield lines[at : at + size]
        at += size


def _frames_command_rows(file: Path, count: int, seed: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as place:
        spent = spent_by("catalyst", "screen", "--frames", str(file), "--out", str(Path(place) / "screened"))
    where = f"{count} frames in one file of {file.stat().st_size / 1e6:.0f} MB, generated"
    rows = [
        Row(
            system="catalyst screen --frames",
            data=where,
            name="processor time per frame",
            value=1e3 * spent.processor_s / count,
            unit="ms",
            reference=_FRAME_MS,
            source=_BAR,
            seed=seed,
            notes="the whole command: start, reading, matching, fingerprint, energy, report; "
            f"{spent.wall_s / 60:.1f} min",
        )
    ]
    if spent.resident_gb is not None:
        rows.append(
            Row(
                system="catalyst screen --frames",
                data=where,
                name="largest memory",
                value=spent.resident_gb,
                unit="GB",
                seed=seed,
                notes="of which the libraries and the teacher take most; a thousand frames at a time are held",
            )
        )
    return rows


def _warm(teacher: Teacher, templates: list[Template], alloy: Mapping[str, float]) -> None:
    """Compile what is compiled when it is first called, before the clock runs."""
    with tempfile.TemporaryDirectory() as place:
        ready = prepared(teacher, templates, alloy, TARGET, 256)
        do_blocks(ready, ready.plan.blocks(), Path(place) / "blocks")
        reduced([Path(place) / "blocks"], Path(place) / "sites.parquet")


def _frames_row(teacher: Teacher, file: Path, what: str, seed: int) -> Row:
    with tempfile.TemporaryDirectory() as place:
        # Compiled code is there before the clock runs.
        screen_frames(load_bundled()[:30], teacher, TARGET, Path(place) / "first.parquet")
        begin = time.process_time()
        table = screen_frames(iterate_structures(file), teacher, TARGET, Path(place) / "sites.parquet").table
        taken = time.process_time() - begin
    return Row(
        system="screen --frames",
        data=f"{len(table)} {what}",
        name="processor time per frame",
        value=1e3 * taken / len(table),
        unit="ms",
        reference=_FRAME_MS,
        source=_BAR,
        seed=seed,
        notes="read, matched, fingerprinted, judged, written",
    )
