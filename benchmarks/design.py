"""Inverse design at equal numbers of questions to the teacher: latent search, genetic algorithm, ranked sampling.

Each may ask the teacher for as many sites; of what each has asked for, the same rule chooses the designs. The genetic
algorithm's settings were chosen at a target that is not measured here, -0.3 eV. What the potential behind the data says
of the designs is measured by `design_verified`.

Run as `interpretkit bench design`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catalysis.energies.protocol import Prediction
from catalysis.models.site_model import SHIPPED, SiteModel
from catalysis.structure.occupations import Occupations
from catalysis.studies.design import Target, choose, diversity, search
from catalysis.studies.peers import Genetics, genetic, ranked_sampling
from catalysis.studies.selection import MeanBias, teacher_bias
from interpretkit.bench.evidence import Row, mean_interval
from interpretkit.runs.progress import track

WINDOW_EV = 0.1
N = 100
VAE, GENETIC, NICHES, RANKED = (
    "PGH-VAE, latent search",
    "genetic algorithm",
    "genetic algorithm, a niche per class",
    "teacher-ranked random sites",
)
_ALL = (VAE, GENETIC, NICHES, RANKED)


@dataclass(frozen=True, eq=False)
class _Run:
    """One way of searching, one seed: what is told of its designs."""

    hits: int
    difference: float
    kinds: float
    classes: int
    entropy: float
    probability: float


def run(quick: bool = True, data: Mapping[str, Path] | None = None, seed: int = 0) -> list[Row]:
    """Return rows of evidence.

    Parameters
    ----------
    quick
        Two seeds and one target; else five seeds and two.
    data
        Not used: the shipped model is what is measured.
    seed
        The first seed.
    """
    del data
    model = SiteModel.load(SHIPPED)
    bias = teacher_bias(model.teacher, model.sites.slab_id.tolist())
    seeds = list(range(seed, seed + (2 if quick else 5)))
    rows = _proposals(model, bias, quick, seed)
    budgets = (300,) if quick else (300, 1000)
    for target_ev in (0.1,) if quick else (0.1, -1.0):
        target = Target(target_ev, WINDOW_EV)
        told = f"target {target_ev:+.1f} ± {WINDOW_EV} eV"
        found = {calls: {name: [] for name in _ALL} for calls in budgets}
        for one in track(seeds, told):
            for calls, runs in _searches(model, bias, target, budgets, one).items():
                for name, run_of in runs.items():
                    found[calls][name].append(run_of)
        for calls in budgets:
            rows += _compared(found[calls], f"{told}, {calls} sites asked of the teacher", seed)
    return rows


def _proposals(model: SiteModel, bias: MeanBias, quick: bool, seed: int) -> list[Row]:
    """What the latent search proposes before anything is ranked."""
    rows = []
    for target_ev in (0.1,) if quick else (0.1, -0.3, -1.0):
        found = search(model, Target(target_ev, WINDOW_EV), N, seed=seed, bias=bias).numbers
        rows.append(
            Row(
                system="PGH-VAE, proposals before ranking",
                data=f"target {target_ev:+.1f} ± {WINDOW_EV} eV, {found['n_proposals']} proposals",
                name="share inside the window, by the teacher",
                value=float(found["share_in_window"]),
                baseline=float(found["random_share_in_window"]),
                seed=seed,
                notes="baseline: sites drawn at random, classes and elements equally often. All decoded sites exist "
                f"on their facets; {found['uniqueness']:.1%} are distinct, {found['novelty']:.1%} of these are new",
            )
        )
    return rows


def _searches(
    model: SiteModel, bias: MeanBias, target: Target, budgets: Sequence[int], seed: int
) -> dict[int, dict[str, _Run]]:
    """Search in each way with the largest of the budgets: what was asked for first is what a smaller one asks for."""
    elements = model.vae.config.elements
    templates = [template for template in model.vae.config.templates if template is not None]
    most = max(budgets)

    def judge(sites: Occupations) -> Prediction:
        return bias.corrected(model.teacher.predict_occupations(sites))

    found = search(model, target, N, most_judged=most, n_random=100, bias=bias, seed=seed)
    asked = {VAE: (found.proposals, Prediction(found.proposal_ev, found.proposal_std_ev))}
    for name, settings in ((GENETIC, Genetics()), (NICHES, Genetics(niches=True))):
        one = genetic(judge, templates, elements, target, most, settings, seed=seed)
        asked[name] = one.sites, one.judged
    drawn = ranked_sampling(judge, templates, elements, most, seed=seed)
    # Any of them serve a smaller budget.
    mixed = np.random.default_rng(seed).permutation(len(drawn.sites))
    asked[RANKED] = drawn.sites[mixed], Prediction(*(part[mixed] for part in drawn.judged))
    return {
        calls: {
            name: _chosen(model, target, sites[:calls], Prediction(*(part[:calls] for part in judged)))
            for name, (sites, judged) in asked.items()
        }
        for calls in budgets
    }


def _chosen(model: SiteModel, target: Target, sites: Occupations, judged: Prediction) -> _Run:
    """Choose designs from all that was asked for, by the rule of the command."""
    stays = model.stays(sites)
    probability = target.probability(*judged) * stays
    rows = np.array(choose(sites, probability, N), int)
    told = diversity(sites[rows])
    return _Run(
        int(target.holds(judged.mean_ev[rows]).sum()),
        told["mean_difference"],
        told["kinds"],
        int(told["classes"]),
        told["composition_entropy"],
        float(probability[rows].mean()),
    )


def _compared(found: Mapping[str, Sequence[_Run]], told: str, seed: int) -> list[Row]:
    rows = []
    where = f"{told}, {len(found[VAE])} seeds"
    for name, runs in found.items():
        hits, differences = [float(one.hits) for one in runs], [one.difference for one in runs]
        entropy = np.mean([one.entropy for one in runs])
        probability = np.mean([one.probability for one in runs])
        shared = {"system": name, "data": where, "seed": seed}
        rows.append(
            Row(
                **shared,
                name=f"hits of {N} designs, by the teacher",
                value=float(np.mean(hits)),
                interval=mean_interval(hits),
                baseline=float(np.mean([one.hits for one in found[GENETIC]])),
                notes=f"mean probability that all is as wanted {probability:.2f}; baseline: genetic algorithm",
            )
        )
        rows.append(
            Row(
                **shared,
                name="share of slots in which two designs of a class differ",
                value=float(np.mean(differences)),
                interval=mean_interval(differences),
                baseline=float(np.mean([one.difference for one in found[GENETIC]])),
                notes=f"{np.mean([one.classes for one in runs]):.1f} classes; "
                f"{np.mean([one.kinds for one in runs]):.1f} effective pairs of class and contacts; entropy of the "
                f"elements {entropy:.2f} of its largest; baseline: genetic algorithm",
            )
        )
    return rows
