"""How well teacher and PGH-VAE predict sites that they have not seen, beside the linear baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal
from warnings import warn as tell

import joblib
import numpy as np

from catalysis.energies.training_data import check_training_data, group_folds
from catalysis.models.measurement import Predictions, measure, measure_teacher, vae_numbers
from catalysis.models.trust import trust_warnings
from catalysis.potentials.embeddings import embed, embedding_names, get_embedding
from catalysis.structure.sites import Site
from catalysis.vae.report import VAEReport
from catalysis.vae.training import one_class_note
from interpretkit.errors import InputError
from interpretkit.runs.progress import progress

GROUPINGS = ("slab_id", "site_id", "site_class", "facet")
"""What may be kept together in a split."""

INPUTS = {
    "ideal": "teacher: class and elements by slot (ideal geometry); VAE: also the Betti curves of the given positions",
    "relaxed": "teacher: class, elements by slot and the given relaxed geometry; VAE: class, elements by slot and "
    "the Betti curves of the given positions",
}
"""What the models are told about a site."""

SPLITS: Mapping[str, str] = {"slab": "", "class": "site_class", "facet": "facet"}
"""How a cross-validation splits, and by which attribute one value after the other is left out."""


def evaluate(
    train_sites: Sequence[Site],
    test_sites: Sequence[Site] | None = None,
    *,
    folds: int = 5,
    group_by: str = "slab_id",
    split: str = "slab",
    seed: int = 0,
    geometry: Literal["ideal", "relaxed"] = "ideal",
    embeddings: str | Sequence[str] = (),
    vae: bool = True,
    quick: bool = False,
    jobs: int = 1,
    device: str = "cpu",
    quiet: bool = True,
) -> dict[str, Any]:
    """Train on some sites and measure on others, or in turn on each fold of one set of sites.

    Everything is fitted on the training side alone: the baseline, the teacher with its hyper-parameters, and the
    VAE with the epoch that it stops at (chosen by slabs split off from the training side).

    Parameters
    ----------
    train_sites : sequence of Site
        Sites with energies, at least 20.
    test_sites : sequence of Site, optional
        Sites with energies to measure on; None for cross-validation.
    folds : int
    group_by : str
        Of the cross-validation: how many, and which attribute of a site (`GROUPINGS`) is never split.
    split : {"slab", "class", "facet"}
        In place of such folds, leave out one class or facet after the other: how far what is learned of some carries to
        another.
    seed : int
        Of folds, teacher and VAE.
    geometry : {"ideal", "relaxed"}
        What the measured teacher looks at (see `catalysis.energies.teacher.Teacher`). Decorations for the VAE are
        labelled by a teacher of ideal geometry in any case.
    embeddings : str or sequence of str
        Of `catalysis.potentials.embeddings.EMBEDDINGS`, for the measured teacher, which then looks at the given
        positions.
    vae : bool
        Whether to measure the VAE, whose training takes most of the time.
    quick : bool
        Train the VAE for a few short epochs, for tests.
    jobs : int
        Folds computed at the same time, each in a process of its own; 0 for as many as there are cores (on a GPU, 1).
    device : str
        For the VAE.
    quiet : bool
        Show no progress bar.

    Returns
    -------
    dict
        Plain numbers, lists and strings, ready for JSON. `mae_ev`, `rmse_ev`, `r2`: of the teacher; `vae_mae_ev`: of
        the VAE's energy head; `baseline_mae_ev`: of `LinearBaseline`; `n_train` (in cross-validation the mean),
        `n_test`; `per_class`: `n` and the three errors by class; `vae`: active dimensions of both latents (the
        smallest over the folds), recoveries and R² of the Betti curves on the test sites; `teacher_rms_z`: root mean
        square of residual over predicted deviation, 1 if calibrated; `coverage_68`, `coverage_95`: the shares of
        residuals within what should hold 68 and 95 %; `inputs`; `warnings`; `trust`: why not to trust
        the predictions, if there is a reason (`catalysis.models.trust.trust_warnings`); `predictions`: by site,
        `site_id`, `site_class`, `fold`, `true_ev`, `teacher_ev`, `teacher_std_ev`, `vae_ev` and `baseline_ev`.
        Numbers that cannot be computed are None.

    Raises
    ------
    InputError
        For missing energies, too few sites or groups, an unknown `group_by`; before anything is trained.
    """
    if geometry not in INPUTS:
        raise InputError(f"geometry: {geometry!r}; expected ideal or relaxed")
    names = embedding_names(embeddings)
    warnings: list[str] = []
    check_training_data(train_sites, None)
    if split not in SPLITS:
        raise InputError(f"split: {split!r}; expected one of {', '.join(SPLITS)}")
    if test_sites is None:
        if SPLITS[split]:
            splits = left_out_one_by_one(train_sites, split)
            folds = int(splits.max()) + 1
        else:
            splits = _splits(train_sites, folds, group_by, seed)
        sites = list(train_sites)
        tasks = [
            ([sites[i] for i in np.flatnonzero(splits != f)], [sites[i] for i in np.flatnonzero(splits == f)])
            for f in range(folds)
        ]
        order = np.concatenate([np.flatnonzero(splits == f) for f in range(folds)])
    else:
        if not len(test_sites):
            raise InputError("test sites: none given; expected at least one with an energy")
        for number, site in enumerate(test_sites):
            if site.energy_ev is None or not np.isfinite(site.energy_ev):
                raise InputError(
                    f"{site.site_id or f'test site {number}'}: no energy; expected one to measure on"
                )
        shared = {s.slab_id for s in train_sites if s.slab_id} & {s.slab_id for s in test_sites}
        if shared:
            warnings.append(
                f"{len(shared)} slab_id occur in both training and test (such as {min(shared)}): "
                "sites of one slab share atoms, so the errors may be too small"
            )
        tasks = [(list(train_sites), list(test_sites))]
        order = np.arange(len(test_sites))
    for train, _ in tasks:  # before the first of them is trained
        check_training_data(train, None)
    if note := one_class_note(train_sites):
        warnings.append(note)
        tell(note, stacklevel=2)
    options: dict[str, Any] = {
        "geometry": geometry, "embeddings": names, "seed": seed,
    }  # fmt: skip
    for name in names:  # once, before the folds ask for them
        embed([*train_sites, *(test_sites or ())], name, device=device, jobs=jobs, quiet=quiet)
    if vae:
        options |= {"quick": quick, "device": device}
    parts = _run(tasks, options, jobs, quiet, vae)

    back = np.argsort(order)
    found = Predictions.joined([predictions for predictions, _ in parts])[back]
    fold = np.concatenate([np.full(len(test), f) for f, (_, test) in enumerate(tasks)])[back]
    every = [site for _, test in tasks for site in test]
    measured = [every[i] for i in back.tolist()]
    unknown = int(np.isnan(found.vae_ev).sum()) if vae else 0
    if unknown:
        warnings.append(
            f"{unknown} test sites hold elements that training did not: left out of the VAE's numbers"
        )
    classes = np.array([site.site_class for site in measured])
    numbers = {
        **found.numbers,
        "n_train": round(float(np.mean([len(train) for train, _ in tasks]))),
        "per_class": {
            str(name): {"n": int((classes == name).sum()), **found[classes == name].errors}
            for name in np.unique(classes)
        },
        "vae": vae_numbers([report for _, report in parts]),
        "inputs": _inputs(geometry, names, vae),
        "warnings": warnings,
    }
    return {
        **numbers,
        "trust": trust_warnings(numbers),
        "predictions": {
            "site_id": [site.site_id for site in measured],
            "site_class": classes.tolist(),
            "fold": fold.tolist(),
            **{
                name: [None if np.isnan(v) else v for v in values.tolist()]
                for name, values in vars(found).items()
            },
        },
    }


def _splits(sites: Sequence[Site], folds: int, group_by: str, seed: int) -> np.ndarray:
    if group_by not in GROUPINGS:
        raise InputError(f"group_by {group_by}: expected one of {', '.join(GROUPINGS)}")
    groups = [str(getattr(site, group_by)) or f"site {k}" for k, site in enumerate(sites)]
    count = len(set(groups))
    if count < 2:
        raise InputError(
            f"group_by {group_by}: all sites have {group_by} {groups[0]!r}; expected at least two"
        )
    if not 2 <= folds <= count:
        raise InputError(f"folds {folds}: expected 2 to {count}, the number of different {group_by}")
    return group_folds(groups, folds, seed)


def left_out_one_by_one(sites: Sequence[Site], split: str) -> np.ndarray:
    """Return a fold number for each site, (n,), one for each class or facet.

    Parameters
    ----------
    sites : sequence of Site
    split : {"class", "facet"}

    Raises
    ------
    InputError
        If all sites are of one.
    """
    names = np.array([str(getattr(site, SPLITS[split])) for site in sites])
    kinds, found = np.unique(names, return_inverse=True)
    if len(kinds) < 2:
        what = kinds[0] or "of unknown facet"
        raise InputError(
            f"split {split}: all sites are {what}; expected sites of at least two, or split slab"
        )
    return found


def _inputs(geometry: str, embeddings: Sequence[str], vae: bool) -> str:
    told = INPUTS["relaxed" if embeddings else geometry]
    if embeddings:
        sources = " and ".join(get_embedding(name).source for name in embeddings)
        told = told.replace("relaxed geometry", f"geometry, embeddings by {sources}", 1)
    return told if vae else told.partition("; VAE:")[0]


def _run(
    tasks: Sequence[tuple[list[Site], list[Site]]], options: dict[str, Any], jobs: int, quiet: bool, vae: bool
) -> list[tuple[Predictions, VAEReport | None]]:
    """Measure on every fold, several at the same time if there are jobs for it."""
    if jobs == 0:
        jobs = joblib.cpu_count() if options.get("device", "cpu") == "cpu" else 1
    if jobs > 1 and len(tasks) > 1:
        found: Any = joblib.Parallel(n_jobs=min(jobs, len(tasks)))(
            joblib.delayed(_in_one_thread)(*task, options, vae) for task in tasks
        )
        return found
    parts = []
    with progress("Evaluating", len(tasks), quiet=quiet) as bar:
        for task in tasks:
            parts.append(_measure(*task, options, vae))
            bar.advance()
    return parts


def _in_one_thread(
    train: list[Site], test: list[Site], options: dict[str, Any], vae: bool
) -> tuple[Predictions, VAEReport | None]:
    from interpretkit.training import set_threads

    set_threads(1)
    return _measure(train, test, options, vae)


def _measure(
    train: list[Site], test: list[Site], options: dict[str, Any], vae: bool
) -> tuple[Predictions, VAEReport | None]:
    if not vae:
        return measure_teacher(train, test, **options), None
    return measure(train, test, **options)[:2]  # the networks stay where they were trained
