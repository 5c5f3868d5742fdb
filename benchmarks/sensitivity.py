"""Structural sensitivity: the stability bound, what swaps do to fingerprint and energy, what topology adds.

Run as `interpretkit bench sensitivity --data hea-oh=FOLDER`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from catalysis.data import load_bundled
from catalysis.energies.teacher import Teacher
from catalysis.potentials.calculators import make_calculator
from catalysis.structure.sites import Site
from catalysis.structure.user_sites import read_sites
from catalysis.studies.sensitivity import (
    DIRECTIONS,
    Response,
    agreement,
    all_changes,
    by_potential,
    by_teacher,
    responses,
    stability,
    typical_sites,
)
from catalysis.studies.topology import ablation, associations, bar_features, ideal_copy, slabs_until
from interpretkit.bench.evidence import Row
from interpretkit.runs.progress import track


def run(quick: bool = True, data: Mapping[str, Path] | None = None, seed: int = 0) -> list[Row]:
    """Return rows of evidence.

    Parameters
    ----------
    quick
        Take 200 sites for the ablation and 40 for the bars, three classes for the changes, and ask no potential, which
        takes half an hour and the extra `mlip`.
    data
        `"hea-oh"`: folder with `sites.extxyz`, relaxed sites with DFT energies; else the bundled ones.
    seed
        Of folds, directions and resamples.
    """
    if data and "hea-oh" in data:
        sites = read_sites(data["hea-oh"] / "sites.extxyz")
        where = "*OH sites of the PGH-VAE article, DFT, relaxed"
    else:
        sites = load_bundled()
        where = "bundled sites"
    sites = [site for site in sites if ideal_copy(site) is not None]
    return [
        *_changes(sites, where, quick, seed),
        *_bars(sites, where, quick, seed),
        *_ablation(sites, where, quick, seed),
    ]


def _changes(sites: Sequence[Site], where: str, quick: bool, seed: int) -> list[Row]:
    elements = sorted({symbol for site in sites for symbol in site.symbols})
    chosen = typical_sites(sites)[: 3 if quick else None]
    teacher = Teacher(seed=seed).fit(slabs_until(sites, 300 if quick else len(sites), seed))
    found: list[Response] = []
    for number, site in enumerate(track(chosen, "Sites changed")):
        made = all_changes(site, elements=elements, amplitudes=(0.02, 0.1, 0.3, 0.6), seed=seed + number)
        found += responses(site, made, [by_teacher(teacher)])
    rows = []
    for direction in DIRECTIONS:
        checked = stability(found, direction)
        rows.append(
            Row(
                system=f"stability of path homology, arrows: {direction}",
                data=f"{checked.checked} displacements and strains of {len(chosen)} {where}",
                name="bottleneck distances beyond the largest change of a weight",
                value=float(checked.violated),
                reference=0.0,
                source="stability theorem, Chowdhury & Mémoli, SODA 2018",
                seed=seed,
                notes=f"largest share of the bound that was reached: {checked.tightest:.3f}; "
                f"{checked.rewired} others made or broke a bond, where no bound holds",
            )
        )
    value, low, high = agreement(found, "teacher", seed=seed)
    rows.append(
        Row(
            system="fingerprint directed by elements",
            data=f"swaps of single metals in {len(chosen)} {where}",
            name="rank correlation of the change of the curves with that of the teacher's energy",
            value=value,
            interval=(low, high),
            seed=seed,
            notes="1 would be a fingerprint that answers to elements as the energy does",
        )
    )
    return rows if quick else rows + _potential(chosen, where, seed)


def _potential(chosen: Sequence[Site], where: str, seed: int) -> list[Row]:
    """Ask CHGNet what displacements and strains do, on clusters that are not relaxed."""
    calculator = make_calculator("chgnet")
    found: list[Response] = []
    with tempfile.TemporaryDirectory() as folder:
        source = by_potential("chgnet", calculator, Path(folder) / "energies.jsonl")
        for number, site in enumerate(track(chosen, "Sites changed, CHGNet")):
            made = all_changes(
                site,
                elements=(),
                amplitudes=(0.1,),
                seed=seed + number,
                kinds=("displacement", "strain", "vacancy", "adatom"),
            )
            found += responses(site, made, [source])
    rows = []
    for kind in ("displacement", "strain", "vacancy", "adatom"):
        value, low, high = agreement(found, "chgnet", kind, "geometry", seed=seed)
        energies = [r.energy_ev["chgnet"] for r in found if r.change.kind == kind]
        rows.append(
            Row(
                system="fingerprint of the geometry",
                data=f"each {kind} of {len(chosen)} {where}, clusters in a box, unrelaxed, CHGNet r2scan",
                name="rank correlation of the change of the curves with that of the energy",
                value=value,
                interval=(low, high),
                seed=seed,
                notes=f"{len(energies)} changes; root mean square {np.sqrt(np.mean(np.square(energies))):.3f} eV",
            )
        )
    return rows


def _bars(sites: Sequence[Site], where: str, quick: bool, seed: int) -> list[Row]:
    some = slabs_until(sites, 40 if quick else 400, seed)
    features = bar_features(some)
    told = associations(
        features.values,
        np.array([site.energy_ev for site in some], dtype=float),
        [site.site_class for site in some],
        [site.slab_id for site in some],
        seed=seed,
    )
    rows = []
    for level in ("within", "between"):
        members = [a for a in told if a.level == level]
        if not members:
            continue
        best = members[0]
        rows.append(
            Row(
                system=f"bars against the energy, {level} classes",
                data=f"{len(some)} {where}",
                name="correlation of the kind of bars that goes most surely with the energy",
                value=best.correlation,
                interval=(best.low, best.high),
                seed=seed,
                notes=f"H{features.dimension[best.column]}, {features.zone[best.column]}, "
                f"{features.measure[best.column]}, arrows: {features.direction[best.column]}; q = {best.q:.2g}; "
                f"{sum(a.q <= 0.05 for a in members)} of {len(members)} kinds with q ≤ 0.05",
            )
        )
    return rows


def _ablation(sites: Sequence[Site], where: str, quick: bool, seed: int) -> list[Row]:
    used = slabs_until(sites, 200 if quick else 919, seed)
    rows = []
    for setting in ("unrelaxed", "relaxed"):
        for row in ablation(used, setting=setting, seed=seed):
            alone = row.model == "topology alone"
            rows.append(
                Row(
                    system=f"{row.model}, {setting}",
                    data=f"{len(used)} {where}, 5 folds by slab",
                    name="mean absolute error of Betti curves alone"
                    if alone
                    else "mean absolute error with Betti curves less without",
                    value=row.with_topology_ev if alone else row.difference_ev,
                    unit="eV",
                    interval=None if alone else (row.low_ev, row.high_ev),
                    seed=seed,
                    notes=""
                    if alone
                    else f"without {row.mae_ev:.4f} eV; paired interval by slab; below 0 they help",
                )
            )
    return rows
