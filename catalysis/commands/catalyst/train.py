"""A model of your own sites."""

from __future__ import annotations

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
from interpretkit.runs.folder import Run


@command(
    out="model",
    example=[
        "interpretkit catalyst train --out model",
        "interpretkit catalyst train --data my-sites.extxyz --energy-key E_ads --out model",
    ],
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
    check_sites(data, "--data", energy_key=energy_key, facet=facet, kind=kind)
    if lost:
        check_sites(lost, "--lost")
    from catalysis.models.site_model import train_model

    sites = load_sites(data, energy_key=energy_key, facet=facet, kind=kind, require_energies=True)
    left = load_lost(data, lost, energy_key=energy_key, facet=facet, kind=kind)
    model = train_model(
        sites, left, held_out_share=held_out, seed=seed, device=device, quick=quick, quiet=quiet
    )
    model.save(run)

    found = Finding(
        "A model of adsorption sites",
        f"{len(model.sites)} sites with *{model.adsorbate} energies, {len(model.vae.config.classes)} classes, "
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
