"""Screening: time per site on one core, against the number of sites, and of users' own frames.

Run as `interpretkit bench screen`.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from catalysis.data import load_bundled
from catalysis.energies.teacher import Teacher
from catalysis.models.site_model import SHIPPED
from catalysis.structure.templates import Template
from catalysis.structure.user_sites import write_sites
from catalysis.studies.activity import Target
from catalysis.studies.frames import screen_frames, sites_of
from catalysis.studies.optimize import known_templates
from catalysis.studies.screen import do_blocks, prepared, reduced
from interpretkit.bench.evidence import Row

TARGET = Target(0.1, 0.1)
_MILLION_MINUTES = 5.0


def run(quick: bool = True, data: Mapping[str, Path] | None = None, seed: int = 0) -> list[Row]:
    """Return rows of evidence.

    Parameters
    ----------
    quick
        Up to 50 000 sites and some hundred frames; else up to a million and several thousand.
    data
        `"hea-oh"`: folder with `sites.extxyz`, whose frames are read; else the bundled sites are written and read.
    seed
        Of the sites.
    """
    teacher = Teacher.load(SHIPPED / "teacher.safetensors")
    templates = [template for some in known_templates(teacher).values() for template in some]
    alloy = dict.fromkeys(teacher.elements, 1 / len(teacher.elements))
    _warm(teacher, templates[:1], alloy)
    rows = []
    per_site: list[tuple[int, float]] = []
    for n in (10_000, 50_000) if quick else (10_000, 100_000, 1_000_000):
        begin = time.process_time()
        ready = prepared(teacher, templates, alloy, TARGET, n, seed=seed)
        made = time.process_time() - begin
        with tempfile.TemporaryDirectory() as place:
            begin = time.process_time()
            do_blocks(ready, ready.plan.blocks(), Path(place) / "blocks")
            blocks = time.process_time() - begin
            begin = time.process_time()
            found = reduced([Path(place) / "blocks"], Path(place) / "sites.parquet")
            merged = time.process_time() - begin
        per_site.append((n, (blocks + merged) / n))
        rows.append(
            Row(
                system="screen",
                data=f"{n} sites of {len(templates)} classes, {len(teacher.elements)} metals",
                name="processor time per site, one core",
                value=1e6 * (blocks + merged) / n,
                unit="µs",
                seed=seed,
                notes=f"fingerprint, energy, deviation, selection, reduction; {found.kept} rows kept; before it "
                f"{made:.1f} s to tabulate the teacher",
            )
        )
    n, cost = per_site[-1]
    rows.append(
        Row(
            system="screen",
            data=f"from the rate of {n} sites on one core, two cores",
            name="time for a million sites",
            value=1e6 * cost / 2 / 60,
            unit="min",
            reference=_MILLION_MINUTES,
            source="the project's bar",
            seed=seed,
            stand_in=True,
            notes="processor time of one core, halved for two: blocks share nothing. At the same rate 10⁹ sites take "
            f"{1e9 * cost / 3600:.0f} core-hours",
        )
    )
    rows.append(
        Row(
            system="screen",
            data=f"after {n} sites in one process",
            name="largest memory",
            value=_memory_gb(),
            unit="GB",
            reference=2.0,
            source="the project's bar, for all processes",
            seed=seed,
            notes="of one process; a second worker holds as much again",
        )
    )
    rows.append(_frames(teacher, quick, data or {}, seed))
    return rows


def _warm(teacher: Teacher, templates: list[Template], alloy: Mapping[str, float]) -> None:
    """Compile what is compiled when it is first called, before the clock runs."""
    with tempfile.TemporaryDirectory() as place:
        ready = prepared(teacher, templates, alloy, TARGET, 256)
        do_blocks(ready, ready.plan.blocks(), Path(place) / "blocks")
        reduced([Path(place) / "blocks"], Path(place) / "sites.parquet")


def _frames(teacher: Teacher, quick: bool, data: Mapping[str, Path], seed: int) -> Row:
    with tempfile.TemporaryDirectory() as place:
        if "hea-oh" in data:
            source, where = data["hea-oh"] / "sites.extxyz", "relaxed *OH sites of the PGH-VAE article"
        else:
            source, where = Path(place) / "frames.extxyz", "bundled sites written as frames"
            write_sites(source, load_bundled()[:: 3 if quick else 1])
        # Compiled code is there before the clock runs.
        screen_frames(iter(load_bundled()[:30]), teacher, TARGET, Path(place) / "first.parquet")
        begin = time.process_time()
        sites = sites_of(str(source), facet="", kind="", energy_key="adsorption_energy_eV")
        table = screen_frames(sites, teacher, TARGET, Path(place) / "sites.parquet")
        taken = time.process_time() - begin
    return Row(
        system="screen --frames",
        data=f"{len(table)} {where}",
        name="processor time per frame",
        value=1e3 * taken / len(table),
        unit="ms",
        reference=3.0,
        source="the project's bar",
        seed=seed,
        notes="read, matched, fingerprinted, judged, written, on one core",
    )


def _memory_gb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)
