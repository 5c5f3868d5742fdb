"""Errors on sites that a model has not seen."""

from __future__ import annotations

from typing import Annotated

import typer

from catalysis.checks import check_evaluate, check_sites
from catalysis.commands._model_page import warn_of
from catalysis.commands._options import Embeddings, EnergyKey, Facet, Kind, Quick, data_files, load_sites
from catalysis.potentials.embeddings import cost_line, embedding_names
from interpretkit.commandline import Column, Device, Finding, Quiet, Seed, command, one_of
from interpretkit.errors import InputError

_CLASS_COLUMNS = {
    "class": Column("facet, kind, coordination numbers of the contacts"),
    "n": Column("how many sites"),
    "mae_ev": Column("mean absolute error of the teacher", "eV", "teacher", ".3f"),
    "vae_mae_ev": Column("that of the VAE's head", "eV", "head", ".3f"),
    "baseline_mae_ev": Column("that of class and contact elements, linear", "eV", "baseline", ".3f"),
}
_PREDICTION_COLUMNS = {
    "site_id": Column("the site"),
    "slab_id": Column("the slab"),
    "site_class": Column("its class"),
    "true_ev": Column("given energy", "eV"),
    "teacher_ev": Column("predicted by the teacher", "eV"),
    "teacher_std_ev": Column("its standard deviation", "eV"),
    "vae_ev": Column("predicted by the VAE's head", "eV"),
    "baseline_ev": Column("predicted by class and contact elements, linear", "eV"),
}


@command(
    out="evaluation",
    example=[
        "interpretkit catalyst evaluate --train a.extxyz --test b.extxyz --json",
        "interpretkit catalyst evaluate --train my-sites.extxyz --folds 5 --group-by slab_id",
        "interpretkit catalyst evaluate --train my-sites.extxyz --split class --teacher-only",
        "interpretkit catalyst evaluate --train relaxed.extxyz --embeddings chgnet,sevennet --teacher-only",
    ],
)
def evaluate(
    train_sites: Annotated[
        str, typer.Option("--train", metavar="SITES", help="Sites with energies to learn from.")
    ],
    test_sites: Annotated[
        str, typer.Option("--test", metavar="SITES", help="Sites with energies to measure on; else by folds.")
    ] = "",
    folds: Annotated[int, typer.Option("--folds", metavar="K", help="Folds of the cross-validation.")] = 5,
    group_by: Annotated[
        str,
        typer.Option(
            "--group-by", metavar="NAME", help="What no fold splits: slab_id, site_id, site_class, facet."
        ),
    ] = "slab_id",
    energy_key: EnergyKey = "adsorption_energy_eV",
    facet: Facet = "",
    kind: Kind = "",
    geometry: Annotated[
        str,
        typer.Option(
            "--geometry",
            metavar="ideal|relaxed",
            help="What the teacher may see: class and elements, or distances of the relaxed site as well.",
        ),
    ] = "ideal",
    split: Annotated[
        str,
        typer.Option(
            "--split",
            metavar="slab|class|facet",
            help="What folds leave out: slabs, K parts of them; or one class or facet after the other.",
        ),
    ] = "slab",
    embeddings: Embeddings = "",
    teacher_only: Annotated[
        bool,
        typer.Option("--teacher-only", help="Leave out the VAE, whose training takes most of the time."),
    ] = False,
    jobs: Annotated[
        int, typer.Option("--jobs", metavar="N", help="Folds computed at the same time; 0: one per core.")
    ] = 0,
    quick: Quick = False,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> Finding:
    """Measure teacher, VAE head and baseline on sites that they have not seen.

    Gives mae_ev (the teacher, which ranks designs), vae_mae_ev (the VAE's head), baseline_mae_ev (class and
    contact elements, linear), rmse_ev, r2, teacher_rms_z, coverage_68 and coverage_95 (how the teacher's deviations
    hold), n_train, n_test and per_class. Embeddings need sites whose places came about in one way, all on the ideal
    lattice or all relaxed by one method, and the extra mlip; they are computed once and kept.
    """
    one_of(("ideal", "relaxed"), geometry, "geometry")
    one_of(("slab", "class", "facet"), split, "split")
    check_evaluate(test_sites, folds=folds, group_by=group_by, split=split, jobs=jobs)
    potentials = embedding_names(embeddings)
    if teacher_only and quick:
        raise InputError(
            "--quick: shortens the VAE's training, which --teacher-only leaves out; expected one of them"
        )
    check_sites(train_sites, "--train", energy_key=energy_key, facet=facet, kind=kind)
    if test_sites:
        check_sites(test_sites, "--test")
    from catalysis.models.evaluation import evaluate as measure
    from interpretkit.training import resolve_device
    from interpretkit.visualization import parity

    chosen_device = str(resolve_device(device))
    options = {"energy_key": energy_key, "facet": facet, "kind": kind}
    learned = load_sites(train_sites, require_energies=True, **options)
    unseen = load_sites(test_sites, require_energies=True, **options) if test_sites else None
    if potentials and not quiet:
        typer.echo(cost_line(potentials, len(learned) + len(unseen or ())), err=True)
    measured = measure(
        learned,
        unseen,
        folds=folds,
        group_by=group_by,
        split=split,
        geometry="relaxed" if geometry == "relaxed" else "ideal",
        embeddings=potentials,
        vae=not teacher_only,
        seed=seed,
        quick=quick,
        jobs=jobs,
        device=chosen_device,
        quiet=quiet,
    )
    predictions = measured.pop("predictions")
    left_out = {"vae_mae_ev", "vae_ev"} if teacher_only else set()

    how = (
        f"one {split} after the other left out"
        if split != "slab"
        else f"{folds} folds by {group_by.removesuffix('_id').replace('_', ' ')}"
    )
    how = "a test set of their own" if test_sites else how
    found = Finding(
        "Errors on unseen sites",
        f"The teacher errs by {measured['mae_ev']:.3f} eV on average, class and contact elements alone by "
        f"{measured['baseline_mae_ev']:.3f} eV. {measured['n_test']} sites: {how}.",
    )
    found.reads(*data_files(train_sites, *([test_sites] if test_sites else [])))
    warn_of(found, measured)
    found.number(
        "mae_ev",
        measured["mae_ev"],
        "teacher",
        unit="eV",
        format=".3f",
        note="mean absolute error; ranks designs",
    )
    if not teacher_only:
        found.number(
            "vae_mae_ev",
            measured["vae_mae_ev"],
            "head of the VAE",
            unit="eV",
            format=".3f",
            note="mean absolute error; proposes designs",
        )
    found.number(
        "baseline_mae_ev",
        measured["baseline_mae_ev"],
        "baseline",
        unit="eV",
        format=".3f",
        note="class and contact elements, linear",
    )
    found.number(
        "teacher_rms_z",
        measured["teacher_rms_z"],
        "residual over predicted deviation",
        format=".2f",
        note="root mean square, 1 if the intervals are right",
    )
    for share in (68, 95):
        found.number(
            f"coverage_{share}",
            measured[f"coverage_{share}"],
            f"within {share} % intervals",
            format=".0%",
            note=f"of the teacher; {share} % if the intervals are right",
            on_card=False,
        )
    known = {*found.numbers, "warnings", "trust"}
    found.values.update({name: value for name, value in measured.items() if name not in known})
    found.section("Teacher against given energies", f"Inputs: {measured['inputs']}.").figure(
        "parity.png",
        parity(
            predictions["true_ev"],
            predictions["teacher_ev"],
            groups=[name.split("_")[0] for name in predictions["site_class"]],
            uncertainty=predictions["teacher_std_ev"],
        ),
        "Predicted against given energy, with residuals; bars are one standard deviation.",
    ).table(
        "classes.csv",
        [{"class": name, **row} for name, row in measured["per_class"].items()],
        {name: column for name, column in _CLASS_COLUMNS.items() if name not in left_out},
        "Mean absolute errors by class.",
    )
    given = {"--energy-key": energy_key, "--facet": facet, "--kind": kind}
    found.next_step(
        "Train a model to design with on all of them:",
        "interpretkit catalyst train --out model --data",
        train_sites,
        *(word for option, value in given.items() if value for word in (option, value)),
    )
    names = list(predictions)
    return found.table(
        "predictions.csv",
        [dict(zip(names, row, strict=True)) for row in zip(*predictions.values(), strict=True)],
        {name: column for name, column in _PREDICTION_COLUMNS.items() if name not in left_out},
    )
