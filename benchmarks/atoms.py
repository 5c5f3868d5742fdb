"""Attribution to atoms: teacher and VAE head against substitutions of single atoms, by the teacher and by CHGNet.

Run as `interpretkit bench atoms`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from catalysis.data import load_bundled
from catalysis.energies.teacher import Teacher
from catalysis.energies.training_data import slab_groups
from catalysis.models.site_model import SHIPPED, SiteModel
from catalysis.potentials.calculators import make_calculator
from catalysis.structure.sites import SECOND, Site
from catalysis.studies.atoms import (
    AtomAttribution,
    attribute_teacher,
    attribute_vae,
    mean_occupation,
    mean_over_slabs,
    rank_correlation,
    substituted_by_teacher,
    substitution_sites,
    substitutions,
    training_influence,
)
from catalysis.studies.sensitivity import by_potential, typical_sites
from interpretkit.bench.evidence import Row
from interpretkit.runs.progress import track

BAR = 0.9
BY_POTENTIAL = 4
"""So many sites are asked about by the potential, one of every third class."""


def run(quick: bool = True, data: Mapping[str, Path] | None = None, seed: int = 0) -> list[Row]:
    """Return rows of evidence.

    Parameters
    ----------
    quick
        One site of each class, and leave out the interatomic potential, which takes minutes and the extra `mlip`.
    data
        Not used: the shipped model is what is explained.
    seed
        Of the resamples and of the planted wrong labels.
    """
    del data
    model, sites = SiteModel.load(SHIPPED), load_bundled()
    shares = mean_occupation(sites, model.teacher.elements)
    checked = typical_sites(sites, 1 if quick else 8)
    every = [
        (
            attribute_teacher(model.teacher, site, shares),
            attribute_vae(model.vae, site, shares),
            substituted_by_teacher(model.teacher, site, shares),
        )
        for site in track(checked, "Sites explained")
    ]
    rows = _against_the_teacher(checked, every, seed)
    rows.append(_wrong_labels(sites, seed))
    return rows if quick else rows + _against_chgnet(model, checked, shares, seed)


def _against_the_teacher(
    checked: Sequence[Site],
    every: Sequence[tuple[AtomAttribution, AtomAttribution, np.ndarray]],
    seed: int,
) -> list[Row]:
    slabs = slab_groups(checked)
    where = f"{len(checked)} bundled sites of 13 classes"
    rows = []
    for name, part, bar in (
        ("teacher, Shapley values", 0, BAR),
        ("VAE's head, integrated gradients", 1, None),
    ):
        found = [(head if part else teacher, changes) for teacher, head, changes in every]
        values = [rank_correlation(one.values_ev, changes) for one, changes in found]
        mean, low, high = mean_over_slabs(values, slabs, seed=seed)
        rows.append(
            Row(
                system=name,
                data=where,
                name="rank correlation of attributions with single substitutions by the teacher",
                value=mean,
                interval=(low, high),
                reference=bar,
                source="bar set by the project" if bar else "",
                seed=seed,
                notes="over all metals of a site, mean over sites",
            )
        )
        rows.append(
            Row(
                system=name,
                data=where,
                name="largest gap of completeness",
                value=max(abs(one.gap_ev) for one, _ in found),
                unit="eV",
                notes="sum of the values less energy minus that of the mean occupation",
            )
        )
    return rows


def _against_chgnet(model: SiteModel, checked: Sequence[Site], shares: np.ndarray, seed: int) -> list[Row]:
    """Replace single metals near the adsorbate and ask the potential that made the labels, nothing relaxed."""
    some = checked[:: 3 * len(checked) // 13][:BY_POTENTIAL]
    calculator = make_calculator("chgnet")
    elements = model.teacher.elements
    values: dict[str, list[float]] = {"teacher, Shapley values": [], "VAE's head, integrated gradients": []}
    with tempfile.TemporaryDirectory() as folder:
        source = by_potential("chgnet", calculator, Path(folder) / "energies.jsonl")
        for site in track(some, "Substitutions by CHGNet"):
            near = np.flatnonzero(site.zones < SECOND)
            table = np.array(substitution_sites(site, elements), dtype=object).reshape(
                len(site), len(elements)
            )
            energies = np.zeros(table.shape)
            energies[near] = source.energies(table[near].ravel().tolist()).reshape(len(near), -1)
            changes = substitutions(energies.ravel(), site, elements, shares)[near]
            for name, found in (
                ("teacher, Shapley values", attribute_teacher(model.teacher, site, shares)),
                ("VAE's head, integrated gradients", attribute_vae(model.vae, site, shares)),
            ):
                values[name].append(rank_correlation(found.values_ev[near], changes))
    rows = []
    for name, correlations in values.items():
        mean, low, high = mean_over_slabs(correlations, slab_groups(some), seed=seed)
        rows.append(
            Row(
                system=name,
                data=f"{len(some)} bundled sites, contacts and their neighbours, clusters in a box, unrelaxed",
                name="rank correlation of attributions with single substitutions by CHGNet",
                value=mean,
                interval=(low, high),
                seed=seed,
                notes="as it comes; the labels were of relaxed adsorbates on slabs",
            )
        )
    return rows


def _wrong_labels(sites: Sequence[Site], seed: int) -> Row:
    """Spoil labels and see whether they are the ones that disagree with all other slabs."""
    some = list(sites[::4])
    draws = np.random.default_rng(seed)
    energies = np.array([site.energy_ev for site in some], dtype=float)
    wrong = draws.choice(len(some), 20, replace=False)
    energies[wrong] += draws.choice([-0.3, 0.3], 20)
    teacher = Teacher(seed=seed).fit(some, energies)
    found = training_influence(teacher, slab_groups(some), [])
    first = np.argsort(-np.abs(found.scores), kind="stable")[: len(wrong)]
    return Row(
        system="labels that disagree with all other slabs",
        data=f"{len(some)} bundled sites, 20 labels moved by 0.3 eV",
        name="share of the wrong labels among the 20 that look most wrong",
        value=float(np.isin(first, wrong).mean()),
        baseline=20 / len(some),
        seed=seed,
        notes="baseline: chance",
    )
