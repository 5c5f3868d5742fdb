"""The latent space: what each channel holds and where, the energy from one channel, what disentangling costs.

Run as `interpretkit bench latent`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from catalysis.data import load_bundled
from catalysis.energies.teacher import Teacher
from catalysis.energies.training_data import group_folds, slab_groups
from catalysis.models.site_model import SHIPPED, SiteModel
from catalysis.studies.latent import (
    best_probe,
    channel_ablation,
    encode,
    energy_surface,
    physical_factors,
    probes,
    scores,
    split,
)
from catalysis.vae.disentangling import disentangling
from catalysis.vae.training import train_vae
from interpretkit.bench.evidence import Row
from interpretkit.runs.progress import track

OBJECTIVES = {
    "plain VAE": None,
    "β-VAE, β = 4": ("beta", 4.0),
    "β-TCVAE, β = 6": ("beta-tc", 6.0),
    "FactorVAE, γ = 10": ("factor", 10.0),
}
TRAINING: dict[str, Any] = {"epochs": 15, "decorations_per_epoch": 4096}


def run(quick: bool = True, data: Mapping[str, Path] | None = None, seed: int = 0) -> list[Row]:
    """Return rows of evidence.

    Parameters
    ----------
    quick
        Leave out the trainings that tell what disentangling costs.
    data
        Not used: the shipped model is what is read.
    seed
        Of probes, scores and trainings.
    """
    del data
    return [*_shipped(seed), *([] if quick else _price(seed))]


def _shipped(seed: int) -> list[Row]:
    model, sites = SiteModel.load(SHIPPED), load_bundled()
    energies = np.array([site.energy_ev for site in sites], dtype=float)
    codes, factors, slabs = encode(model.vae, sites), physical_factors(sites), slab_groups(sites)
    train, test, _ = split(sites, model.sites.site_id[~model.sites.held_out].tolist(), seed)
    where = f"bundled sites, probes learned on {len(train)}, measured on {len(test)} of slabs unseen by the network"
    found = probes(codes.by_channel, factors, train, test, slabs, seed=seed)
    rows = []
    for factor in factors:
        probe = best_probe(found, factor.name)
        other = max(
            (p.skill for p in found if p.factor == factor.name and p is not probe), default=float("nan")
        )
        rows.append(
            Row(
                system=f"{factor.name}, from the {probe.channel} channel",
                data=where,
                name="skill of a linear probe (1 perfect, 0 chance)",
                value=probe.skill,
                interval=(probe.low, probe.high),
                baseline=probe.control,
                seed=seed,
                notes=f"carried by {probe.verdict}; best dimension alone {probe.dimension_skill:.2f}; other channel "
                f"{other:.2f}; baseline: shuffled values",
            )
        )
    for name, table in scores(codes.by_channel, factors, seed=seed).items():
        score = table["dci"]
        rows.append(
            Row(
                system=f"shipped PGH-VAE, {name}",
                data=f"{len(sites)} bundled sites, physical factors",
                name="DCI disentanglement",
                value=score.value,
                interval=score.interval,
                baseline=score.floor,
                seed=seed,
                notes=f"ceiling {score.ceiling:.2f}; baseline: noise",
            )
        )
    for row in channel_ablation(model.vae, codes, energies, train, test, slabs, seed=seed):
        rows.append(
            Row(
                system=f"energy from {row.inputs}",
                data=where,
                name="mean absolute error, regression refitted on these codes",
                value=row.refitted_ev,
                unit="eV",
                baseline=float(np.abs(energies[test] - energies[train].mean()).mean()),
                seed=seed,
                notes=f"the network's own head, the other channel at its mean: {row.head_ev:.3f} eV; baseline: the "
                "mean energy",
            )
        )
    rows.append(
        Row(
            system="one direction of each channel",
            data=f"{len(sites)} bundled sites",
            name="R² of the head's energies",
            value=energy_surface(model.vae, codes, energies).explained,
            notes="the directions in which the codes covary with the energy",
        )
    )
    return rows


def _price(seed: int) -> list[Row]:
    """Train alike with and without pressure on the dimensions, and measure error and disentanglement."""
    sites = load_bundled()
    slabs = slab_groups(sites)
    held_out = group_folds(slabs, 5, seed) == 0
    learned = [site for site, out in zip(sites, held_out, strict=True) if not out]
    unseen = [site for site, out in zip(sites, held_out, strict=True) if out]
    true = np.array([site.energy_ev for site in unseen], dtype=float)
    teacher = Teacher(seed=seed).fit(learned)
    factors = physical_factors(sites)
    rows, plain = [], float("nan")
    for name, asked in track(OBJECTIVES.items(), "Trainings", total=len(OBJECTIVES)):
        objective = None if asked is None else disentangling(*asked)
        vae, _ = train_vae(learned, None, teacher, objective=objective, seed=seed, **TRAINING)
        error = float(np.abs(vae.predict(unseen) - true).mean())
        plain = error if asked is None else plain
        codes = encode(vae, sites)
        varying = {name: given for name, given in codes.by_channel.items() if given.std(0).max() > 1e-6}
        tables = scores(varying, factors, resamples=0, seed=seed)
        told = ", ".join(f"{channel} {table['dci'].value:.2f}" for channel, table in tables.items())
        active = ", ".join(f"{int(active.sum())} {channel}" for channel, active in codes.active.items())
        rows.append(
            Row(
                system=name,
                data=f"bundled sites, {TRAINING['epochs']} epochs, {len(unseen)} sites of unseen slabs",
                name="mean absolute error of the VAE's head",
                value=error,
                unit="eV",
                baseline=plain,
                seed=seed,
                notes=f"DCI disentanglement: {told}; active dimensions: {active}; baseline: plain VAE",
            )
        )
    return rows
