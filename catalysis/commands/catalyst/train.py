"""A model of your own sites."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from catalysis.checks import check_share, check_sites
from catalysis.commands._model_page import add_model, warn_of
from catalysis.commands._options import (
    BUNDLED,
    Data,
    EnergyKey,
    Facet,
    Kind,
    Quick,
    data_files,
    load_lost,
    load_sites,
)
from interpretkit.commandline import Device, Finding, Here, Quiet, Seed, command
from interpretkit.commandline.options import one_of
from interpretkit.errors import InputError
from interpretkit.runs.folder import Run


@command(
    out="model",
    example=[
        "interpretkit catalyst train --out model",
        "interpretkit catalyst train --data my-sites.extxyz --energy-key E_ads --out model",
    ],
    together=True,
)
def train(
    data: Data = BUNDLED,
    lost: Annotated[
        str,
        typer.Option(
            "--lost", metavar="SITES", help="Sites that the adsorbate left: what designs should avoid."
        ),
    ] = "",
    held_out: Annotated[
        float,
        typer.Option(
            "--held-out", metavar="SHARE", help="Share of the sites, in whole slabs, to measure on."
        ),
    ] = 0.2,
    disentangle: Annotated[
        str,
        typer.Option(
            "--disentangle",
            metavar="beta|beta-tc|factor",
            help="Press for latent dimensions that stand for one thing each; it costs accuracy.",
        ),
    ] = "",
    strength: Annotated[
        float | None,
        typer.Option(
            "--strength", metavar="NUMBER", help="How hard: β, or FactorVAE's γ; as published by default."
        ),
    ] = None,
    quick: Quick = False,
    energy_key: EnergyKey = "adsorption_energy_eV",
    facet: Facet = "",
    kind: Kind = "",
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    *,
    run: Run,
) -> Finding:
    """Train the energy model and the PGH-VAE on sites with energies.

    A share of the slabs is kept out of both to measure them. The folder serves `design --model`.
    """
    check_share(held_out, "--held-out")
    if disentangle:
        one_of(("beta", "beta-tc", "factor"), disentangle, "--disentangle")
    elif strength is not None:
        raise InputError(f"--strength {strength}: presses for nothing; expected --disentangle as well")
    if strength is not None and not (math.isfinite(strength) and strength >= 0):
        raise InputError(f"--strength {strength}: expected a number of at least 0")
    check_sites(data, "--data", energy_key=energy_key, facet=facet, kind=kind)
    if lost:
        check_sites(lost, "--lost")
    from catalysis.models.site_model import train_model
    from catalysis.vae.disentangling import disentangling

    sites = load_sites(data, energy_key=energy_key, facet=facet, kind=kind, require_energies=True)
    left = load_lost(data, lost, energy_key=energy_key, facet=facet, kind=kind)
    model = train_model(
        sites,
        left,
        held_out_share=held_out,
        seed=seed,
        device=device,
        objective=disentangling(disentangle, strength) if disentangle else None,
        quick=quick,
        quiet=quiet,
    )
    model.save(run)

    found = Finding(
        f"A model of *{model.adsorbate} on {len(model.vae.config.classes)} classes of sites",
        f"On slabs that it has not seen it errs by {model.numbers['mae_ev']:.3f} eV on average; class and contact "
        f"elements alone by {model.numbers['baseline_mae_ev']:.3f} eV. Trained on {len(model.sites)} sites with "
        f"*{model.adsorbate} energies, {len(model.vae.config.classes)} classes, "
        f"metals {', '.join(model.vae.config.elements)}.",
    ).reads(*data_files(data, *([lost] if lost else [])))
    warn_of(found, model.numbers)
    add_model(found, model, cards=True)
    found.values.update({name: value for name, value in model.numbers.items() if name != "warnings"})
    return found.next_step(
        "Design sites with an energy of your choice:",
        "interpretkit catalyst design --target-ev 0.1 --out designs --model",
        Here(),
    )
