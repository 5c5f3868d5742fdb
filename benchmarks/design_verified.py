"""Designs relabelled by the potential that labelled the data: hits, bias and order, beside a genetic algorithm's.

Both may ask the teacher for a thousand sites. The likeliest designs of each are put into slabs that nobody has seen,
and their adsorbates are relaxed by CHGNet (extra `mlip`).

Run as `interpretkit bench design_verified`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from catalysis.energies.protocol import Prediction
from catalysis.models.site_model import SHIPPED, SiteModel
from catalysis.potentials.calculators import make_calculator
from catalysis.potentials.labelling import bridge_reference
from catalysis.structure.occupations import Occupations
from catalysis.studies.design import Design, Target, choose, finished, search
from catalysis.studies.peers import genetic
from catalysis.studies.selection import MeanBias, teacher_bias
from catalysis.studies.verification import Verification, mean_of, rank_interval, verify
from interpretkit.bench.evidence import Row, mean_interval
from interpretkit.runs.progress import track

TARGET = Target(0.1, 0.1)
CALLS = 1000
VAE, GENETIC = "PGH-VAE, latent search", "genetic algorithm"


def run(quick: bool = True, data: Mapping[str, Path] | None = None, seed: int = 0) -> list[Row]:
    """Return rows of evidence.

    Parameters
    ----------
    quick
        One seed and two designs of each; else five seeds and four.
    data
        Not used: the shipped model is what is measured.
    seed
        The first seed.
    """
    del data
    model = SiteModel.load(SHIPPED)
    bias = teacher_bias(model.teacher, model.sites.slab_id.tolist())
    calculator = make_calculator("chgnet")
    reference = bridge_reference(calculator, model.adsorbate)
    checked: dict[str, list[Verification]] = {VAE: [], GENETIC: []}
    with tempfile.TemporaryDirectory() as folder:
        for one in track(range(seed, seed + (1 if quick else 5)), "Seeds"):
            for name, designs in _designs(model, bias, 2 if quick else 4, one).items():
                journal = Path(folder) / f"{name.split(',')[0]}-{one}.jsonl"
                checked[name].append(
                    verify(designs, TARGET, calculator, journal=journal, reference_ev=reference, quiet=True)
                )
    return [row for name in checked for row in _rows(name, checked[name], checked[GENETIC], seed)]


def _designs(model: SiteModel, bias: MeanBias, count: int, seed: int) -> dict[str, list[Design]]:
    """Return the likeliest designs of each way of searching, chosen by the rule of the command."""
    templates = [template for template in model.vae.config.templates if template is not None]

    def judge(sites: Occupations) -> Prediction:
        return bias.corrected(model.teacher.predict_occupations(sites))

    found = search(model, TARGET, 100, most_judged=CALLS, n_random=100, bias=bias, seed=seed)
    other = genetic(judge, templates, model.vae.config.elements, TARGET, CALLS, seed=seed)
    asked = {
        VAE: (found.proposals, Prediction(found.proposal_ev, found.proposal_std_ev)),
        GENETIC: (other.sites, other.judged),
    }
    return {name: _best(model, *one, count, seed) for name, one in asked.items()}


def _best(model: SiteModel, sites: Occupations, judged: Prediction, count: int, seed: int) -> list[Design]:
    stays = model.stays(sites)
    rows = np.array(choose(sites, TARGET.probability(*judged) * stays, 100), int)[:count]
    return finished(
        sites[rows],
        Prediction(*(part[rows] for part in judged)),
        model.vae.predict_occupations(sites[rows]),
        stays[rows],
        TARGET,
        model.occupations(),
        adsorbate=model.adsorbate,
        seed=1000 * seed,
    )


def _rows(name: str, found: list[Verification], of_genetic: list[Verification], seed: int) -> list[Row]:
    where = (
        f"the {len(found[0].designs)} likeliest of 100 designs for {TARGET.energy_ev:+.1f} ± {TARGET.window_ev} eV, "
        f"{CALLS} sites asked of the teacher, {len(found)} seeds, CHGNet in new slabs"
    )
    stayed = np.concatenate([one.stayed for one in found])
    energies = np.concatenate([one.energy_ev for one in found])[stayed]
    predicted = np.concatenate([one.predicted_ev for one in found])[stayed]
    deviations = np.concatenate([one.deviation_ev for one in found])[stayed]
    by_seed = [float(one.hits.mean()) for one in found]
    bias, rank = mean_of(energies - predicted), rank_interval(predicted, energies, seed)
    return [
        Row(
            system=name,
            data=where,
            name="share that stays and lies in the window",
            value=float(np.mean(by_seed)),
            interval=mean_interval(by_seed),
            baseline=float(np.mean([one.hits.mean() for one in of_genetic])),
            seed=seed,
            notes=f"{int(stayed.sum())} of {len(stayed)} adsorbates stayed; baseline: genetic algorithm",
        ),
        Row(
            system=name,
            data=where,
            name="mean of CHGNet less teacher (winner's curse if not 0)",
            value=bias.value,
            unit="eV",
            interval=(bias.low, bias.high) if np.isfinite(bias.low) else None,
            seed=seed,
            notes="root mean square residual over deviation "
            f"{np.sqrt(np.mean(((energies - predicted) / deviations) ** 2)):.2f}; rank correlation of both "
            f"{rank.value:.2f} ({rank.low:.2f} to {rank.high:.2f}) among energies so near each other",
        ),
    ]
