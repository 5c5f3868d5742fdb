"""Energy models where it is hard: classes and facets left out, few slabs to learn from, embeddings of relaxed sites."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from catalysis.data import load_bundled
from catalysis.energies.teacher import Teacher
from catalysis.energies.training_data import group_folds, slab_groups
from catalysis.models.evaluation import evaluate
from catalysis.models.measurement import Predictions, measure_teacher
from catalysis.structure.sites import Site
from catalysis.structure.user_sites import read_sites
from interpretkit.bench.evidence import Row
from interpretkit.runs.files import write_json

UNRELAXED = "teacher, class and elements only, unrelaxed input"
EMBEDDED = "teacher, relaxed geometry and CHGNet embeddings, relaxed input"
SPLITS = {"slab": "5 folds by slab", "class": "each class left out", "facet": "each facet left out"}
SHARES = (0.1, 0.25, 0.5, 1.0)
"""Of the training slabs, for the learning curve."""


def run(
    quick: bool = True, data: Mapping[str, Path] | None = None, seed: int = 0, cache: Path | None = None
) -> list[Row]:
    """Return rows of evidence.

    Parameters
    ----------
    quick
        Facets left out and the learning curve on 300 of the bundled sites; else on all of them.
    data
        `"hea-oh"`: folder with `sites.extxyz`, 919 DFT-labelled sites of the paper, with embeddings (which need the
        extra mlip) and without: every split, learning curves, and the error that more sites would not take away; if
        `quick`, by slab, and facets without embeddings.
    seed
        Of folds and draws.
    cache
        Keeps what has been measured.
    """
    bundled = load_bundled()
    if quick:
        chosen = np.random.default_rng(seed).permutation(len(bundled))[:300]
        bundled = [bundled[k] for k in np.sort(chosen).tolist()]
    where = f"bundled (CHGNet), {len(bundled)} sites"
    kept = Kept(cache)
    rows = split_rows(kept, UNRELAXED, where, bundled, "facet", seed)
    rows += _learning_curve(kept, UNRELAXED, where, bundled, seed)
    if data and "hea-oh" in data:
        sites = read_sites(data["hea-oh"] / "sites.extxyz", require_energies=True)
        where = f"*OH on IrPdPtRhRu, {len(sites)} DFT sites"
        for split in ("slab",) if quick else SPLITS:
            rows += split_rows(kept, EMBEDDED, where, sites, split, seed, embeddings="chgnet")
        for split in ("slab", "facet") if quick else SPLITS:
            rows += split_rows(kept, UNRELAXED, where, sites, split, seed)
        if not quick:
            for system, options in ((UNRELAXED, {}), (EMBEDDED, {"embeddings": "chgnet"})):
                rows += _learning_curve(kept, system, where, sites, seed, **options)
                rows += _unexplained(kept, system, where, sites, seed, **options)
    return rows


class Kept:
    """What has been measured, by name, in a folder that an interrupted benchmark finds again.

    Parameters
    ----------
    folder
        None to keep nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def __call__(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what `make` gives, or gave before."""
        if self.folder is None:
            return make()
        path = self.folder / f"{''.join(c if c.isalnum() else '-' for c in name)}.json"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(path, make())
        return json.loads(path.read_text(encoding="utf-8"))


def split_rows(
    kept: Kept, system: str, where: str, sites: Sequence[Site], split: str, seed: int, **options: Any
) -> list[Row]:
    """Return the error of a teacher on sites left out, beside the linear baseline, and how its deviations hold.

    Parameters
    ----------
    kept
        Finds again what was measured before.
    system, where
        What is measured, and on what.
    sites
        With energies.
    split
        Of `SPLITS`.
    seed
        Of the folds.
    options
        As for `catalysis.models.evaluation.evaluate`.
    """
    options = {"jobs": 1, **options}
    found = kept(
        f"{system} {where} {split} {seed}",
        lambda: evaluate(sites, split=split, seed=seed, vae=False, **options),
    )
    predictions = found["predictions"]
    errors = np.abs(np.array(predictions["teacher_ev"]) - predictions["true_ev"])
    # Whole groups are drawn: sites of one slab, class or facet err together.
    groups = predictions["fold"] if split != "slab" else slab_groups(sites)
    error = Row(
        system=system,
        data=f"{where}, {SPLITS[split]}",
        name="mean absolute error",
        value=found["mae_ev"],
        unit="eV",
        interval=_interval(errors, np.array(groups), seed),
        baseline=found["baseline_mae_ev"],
        seed=seed,
        notes="baseline: class and contact elements, linear; interval: groups that stand together drawn anew",
    )
    rows = [error]
    for name, key, expected in (
        ("residual over predicted deviation, root mean square", "teacher_rms_z", 1.0),
        ("share within the 68 % interval", "coverage_68", 0.68),
        ("share within the 95 % interval", "coverage_95", 0.95),
    ):
        rows.append(
            Row(
                system=system,
                data=error.data,
                name=name,
                value=found[key],
                reference=expected,
                source="calibrated",
                seed=seed,
            )
        )
    return rows


def _interval(errors: np.ndarray, groups: np.ndarray, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of the mean, by drawing whole groups."""
    index = np.unique(groups, return_inverse=True)[1]
    sums, counts = np.bincount(index, errors), np.bincount(index)
    draws = np.random.default_rng(seed).integers(0, len(counts), (2000, len(counts)))
    low, high = np.quantile(sums[draws].sum(1) / counts[draws].sum(1), [0.025, 0.975])
    return float(low), float(high)


def _learning_curve(
    kept: Kept, system: str, where: str, sites: Sequence[Site], seed: int, **options: Any
) -> list[Row]:
    """Return errors on a fifth of the slabs, learned from growing shares of the others; the mean of two such folds."""
    groups = np.array(slab_groups(sites))
    folds = group_folds(groups.tolist(), 5, seed)
    rows = []
    for share in SHARES:
        parts, counts = [], []
        for fold in range(2):
            test = [sites[k] for k in np.flatnonzero(folds == fold).tolist()]
            slabs = np.unique(groups[folds != fold])
            some = np.random.default_rng(seed).permutation(slabs)[: max(2, round(share * len(slabs)))]
            train = [sites[k] for k in np.flatnonzero(np.isin(groups, some)).tolist()]
            if len(train) < 25:
                continue
            counts.append((len(some), len(train)))
            found = kept(
                f"learning {system} {where} {share} {fold} {seed}",
                lambda train=train, test=test: {
                    name: values.tolist()
                    for name, values in vars(measure_teacher(train, test, seed=seed, **options)).items()
                },
            )
            parts.append(Predictions(**{name: np.array(values, float) for name, values in found.items()}))
        if not parts:
            continue
        errors = Predictions.joined(parts).errors
        assert errors["mae_ev"] is not None
        n_slabs, n_sites = np.mean(counts, axis=0).round().astype(int).tolist()
        rows.append(
            Row(
                system=system,
                data=f"{where}, learned from {n_slabs} slabs ({n_sites} sites)",
                name="mean absolute error",
                value=errors["mae_ev"],
                unit="eV",
                baseline=errors["baseline_mae_ev"],
                seed=seed,
                notes="learning curve: two of five folds by slab",
            )
        )
    return rows


def _unexplained(
    kept: Kept, system: str, where: str, sites: Sequence[Site], seed: int, **options: Any
) -> list[Row]:
    """Return the error that would be left if every kind of effect that the teacher knows were known exactly."""
    found = kept(
        f"unexplained {system} {where} {seed}",
        lambda: Teacher(seed=seed, **options).fit(sites).shares,
    )
    return [
        Row(
            system=system,
            data=f"{where}, learned from all",
            name="mean absolute error that no kind of effect explains",
            value=float(np.sqrt(found["noise"] * 2 / np.pi)),
            unit="eV",
            seed=seed,
            notes="from the share of noise at the largest marginal likelihood, taken as normal: the teacher's error "
            "comes to it as sites grow many, other features may go below",
        )
    ]
