"""Sites with a wanted adsorption energy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalysis.checks import ENERGY_KEY, check_design, check_sites, element_names, facet_names
from catalysis.commands._model_page import add_model, warn_of
from catalysis.commands._options import (
    BUNDLED,
    Data,
    EnergyKey,
    Facet,
    Kind,
    Quick,
    data_files,
    load_sites,
)
from interpretkit.commandline import Column, Device, Finding, Here, Quiet, Seed, command
from interpretkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from catalysis.models.site_model import SiteModel
    from catalysis.studies.design import Design, Search

_COLUMNS = {
    "rank": Column("1 for the likeliest"),
    "site_id": Column("the design"),
    "facet": Column("its facet"),
    "site_class": Column("its class: facet, kind, coordination numbers of the contacts", heading="class"),
    "contacts": Column("elements of the metals that bind the adsorbate"),
    "energy_ev": Column("energy predicted by the teacher", "eV", "energy", "+.3f"),
    "deviation_ev": Column("its standard deviation", "eV", "±", ".3f"),
    "stays": Column("probability that the adsorbate stays where it is put", format=".2f"),
    "probability": Column("probability that it stays and the energy lies in the window; ranks", format=".2f"),
    "head_energy_ev": Column("energy predicted by the VAE's head, which proposed it", "eV", "head", "+.3f"),
    "slots_unlike_nearest_known": Column(
        "in how many slots it differs from its nearest relative in the training data", heading="new slots"
    ),
    "metals": Column("how many metals it has"),
    "composition": Column("of which elements"),
}


@command(
    out="designs",
    example=[
        "interpretkit catalyst design",
        "interpretkit catalyst design --target-ev -0.3 --window-ev 0.05 --facets 111,211 --elements Pt,Pd,Ir",
        "interpretkit catalyst design --data my-sites.extxyz --target-ev 0.2",
    ],
)
def design(
    data: Data = BUNDLED,
    target_ev: Annotated[
        float, typer.Option("--target-ev", metavar="EV", help="The wanted adsorption energy in eV.")
    ] = 0.1,
    window_ev: Annotated[
        float, typer.Option("--window-ev", metavar="EV", help="How far from it an energy may be, in eV.")
    ] = 0.1,
    n: Annotated[int, typer.Option("--n", metavar="N", help="How many designs.")] = 100,
    model_folder: Annotated[
        str,
        typer.Option("--model", metavar="DIR", help="What `catalyst train` wrote; else trained on --data."),
    ] = "",
    facets: Annotated[
        str | None, typer.Option("--facets", metavar="HKL,...", help="Only on these facets; all by default.")
    ] = None,
    elements: Annotated[
        str | None,
        typer.Option(
            "--elements", metavar="EL,...", help="Only of these metals, Pt,Pd,Ir or PtPdIr; all by default."
        ),
    ] = None,
    quick: Quick = False,
    energy_key: EnergyKey = "adsorption_energy_eV",
    facet: Facet = "",
    kind: Kind = "",
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> Finding:
    """Design sites with a wanted adsorption energy.

    With the bundled data the model that ships with the package serves; with --data of your own a model is trained
    first. Writes the sites, slabs that hold them, a table and a report.
    """
    check_design(
        data,
        model_folder,
        target_ev=target_ev,
        window_ev=window_ev,
        n=n,
        facets=facets,
        elements=elements,
        training={
            "--quick": quick,
            "--facet": facet,
            "--kind": kind,
            "--energy-key": energy_key != ENERGY_KEY and energy_key,
        },
    )
    if not model_folder:
        check_sites(data, "--data", energy_key=energy_key, facet=facet, kind=kind)
    elif not Path(model_folder).is_dir():
        raise InputError(f"model {model_folder}: no such folder; expected what `catalyst train` wrote")
    from catalysis.models.site_model import SHIPPED, SiteModel, train_model
    from catalysis.studies.design import Target, check_request, search
    from interpretkit.training import resolve_device

    target = Target(target_ev, window_ev)
    on_facets = () if facets is None else facet_names(facets)
    of_elements = () if elements is None else element_names(elements)
    chosen_device = str(resolve_device(device))
    if model_folder or data == BUNDLED:
        model = SiteModel.load(model_folder or SHIPPED, chosen_device)
    else:
        sites = load_sites(data, energy_key=energy_key, facet=facet, kind=kind, require_energies=True)
        check_request(
            target,
            n,
            energies_ev=[site.energy_ev for site in sites if site.energy_ev is not None],
            known_elements={symbol for site in sites for symbol in site.symbols},
            known_classes={(site.facet, site.site_class) for site in sites},
            facets=on_facets,
            elements=of_elements,
        )
        model = train_model(sites, seed=seed, device=chosen_device, quick=quick, quiet=quiet)
    result = search(model, target, n, facets=on_facets, elements=of_elements, seed=seed, quiet=quiet)

    found = _headline(model, result).reads(*([model_folder] if model_folder else data_files(data)))
    warn_of(found, model.numbers)
    _add_designs(found, model, result, _data_note(data == BUNDLED and not model_folder, model.adsorbate))
    add_model(found, model)
    found.structures("designs.extxyz", [design.site.to_atoms() for design in result.designs])
    found.structures("slabs.extxyz", [design.host.with_adsorbate for design in result.designs])
    found.next_step(
        "Check the designs with an interatomic potential (install the extra mlip):",
        "interpretkit catalyst label --out checked",
        Here("slabs.extxyz"),
    )
    found.next_step(
        "Or relax the slabs of `slabs.extxyz` with DFT, and train on what comes out:",
        "interpretkit catalyst train --data my-relaxed-slabs.extxyz --out model",
    )
    return found.next_step(
        "Ask for another energy, on some facets, of some metals:",
        "interpretkit catalyst design --target-ev -0.3 --facets 111,211 --elements Pt,Pd,Ir --out other",
    )


def _headline(model: SiteModel, result: Search) -> Finding:
    """Begin with how many designs lie in the window, beside what chance would give."""
    import numpy as np

    numbers, target = result.numbers, result.target
    found = Finding(
        "Designed sites",
        f"{numbers['n_designs']} sites whose *{model.adsorbate} energy should be "
        f"{target.energy_ev:+.2f} ± {target.window_ev:.2f} eV, decoded from the latent space of a PGH-VAE and ranked "
        "by a separate energy model.",
    )
    found.number(
        "designs_in_window",
        numbers["designs_in_window"],
        "designs in the window",
        note=f"of {numbers['n_designs']}, by the teacher's mean; it did the ranking",
    )
    found.number(
        "share_in_window",
        numbers["share_in_window"],
        "proposals in the window",
        format=".0%",
        note=f"of {numbers['n_proposals']} new sites, before any ranking",
    )
    often = f"; proposals are {numbers['enrichment']:.0f} times as often in it"
    found.number(
        "random_share_in_window",
        numbers["random_share_in_window"],
        "random sites in the window",
        format=".2%",
        note=f"of {numbers['n_random']}" + (often if np.isfinite(numbers["enrichment"]) else ""),
    )
    found.number(
        "mae_ev",
        model.numbers["mae_ev"],
        "error of the teacher",
        unit="eV",
        format=".3f",
        note=f"on unseen slabs; class and contacts alone {model.numbers['baseline_mae_ev']:.3f} eV",
    )
    found.values.update({name: value for name, value in numbers.items() if name not in found.numbers})
    found.values["baseline_mae_ev"] = model.numbers["baseline_mae_ev"]
    return found


def _add_designs(found: Finding, model: SiteModel, result: Search, data_note: str) -> None:
    """Show the likeliest designs, where their energies lie, and all of them."""
    import numpy as np

    from catalysis.figures import site_gallery
    from interpretkit.visualization import distributions

    numbers, target, designs = result.numbers, result.target, result.designs
    likeliest = found.section(
        "The likeliest",
        "Metals carry their symbols, the two with a dark rim bind the adsorbate, deeper ones are paler. The energy "
        "is the teacher's prediction with its standard deviation.",
    )
    few = designs[:8]
    likeliest.figure(
        "designs.png",
        site_gallery(
            [design.site for design in few],
            [
                f"{d.site.site_class}, {d.site.contact_elements}\n{d.energy_ev:+.2f} ± {d.deviation_ev:.2f} eV"
                for d in few
            ],
        ),
        f"The first {len(few)} designs, seen from above and from the side.",
    )
    if numbers["designs_in_window"] < numbers["n_designs"]:
        likeliest.warning(
            f"{numbers['n_designs'] - numbers['designs_in_window']} designs lie outside the window: the search found "
            "no better ones. Widen the window, or allow more facets and elements."
        )
    likeliest.note(data_note)
    found.section(
        "Where the energies lie",
        "The window, the data, sites drawn at random, what the latent search proposed, and what was chosen.",
    ).figure(
        "energies.png",
        distributions(
            {
                "data": model.sites.energy_ev,
                "random sites": result.random_ev,
                "proposals": result.proposal_ev,
                "designs": np.array([design.energy_ev for design in designs]),
            },
            window=(target.low, target.high),
            quantity=f"*{model.adsorbate} energy",
            title="Energies by the teacher; the data's as given",
        ),
        "Distributions of energies with the wanted window.",
    )
    found.section(
        "All designs",
        f"{numbers['design_classes']} classes and {numbers['design_contact_pairs']} pairs of contact elements; two "
        f"designs of one class differ in {numbers['design_mean_difference']:.0%} of their slots on average. None is in "
        "the training data.",
    ).table("designs.csv", design_rows(designs), _COLUMNS)


def design_rows(designs: Sequence[Design]) -> list[dict[str, Any]]:
    """Return one row per design: what it is, what is predicted, how new it is."""
    rows = []
    for rank, design in enumerate(designs, start=1):
        site = design.site
        symbols = sorted(set(site.symbols))
        rows.append(
            {
                "rank": rank,
                "site_id": site.site_id,
                "facet": site.facet,
                "site_class": site.site_class,
                "contacts": site.contact_elements,
                "energy_ev": design.energy_ev,
                "deviation_ev": design.deviation_ev,
                "stays": design.stays,
                "probability": design.probability,
                "head_energy_ev": design.head_energy_ev,
                "slots_unlike_nearest_known": design.nearest_known,
                "metals": len(site),
                "composition": "".join(f"{symbol}{site.symbols.count(symbol)}" for symbol in symbols),
            }
        )
    return rows


def _data_note(is_bundled: bool, adsorbate: str) -> str:
    if not is_bundled:
        return f"Energies of *{adsorbate} are those of the data that the model was trained on."
    from catalysis.data import provenance

    told = provenance()
    return (
        f"The bundled energies: {told['level_of_theory']}; relaxed: {told['relaxed']}; held: {told['held']}. "
        f"Zero is the (111) bridge of platinum. {told['limits']}"
    )
