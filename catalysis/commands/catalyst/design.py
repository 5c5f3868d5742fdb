"""Sites with a wanted adsorption energy."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalysis.checks import (
    ENERGY_KEY,
    VERIFIER,
    check_design,
    check_sites,
    class_names,
    element_names,
    facet_names,
    known_to,
    prices_of,
)
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
from interpretkit.runs.folder import Run
from interpretkit.runs.formatting import format_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from catalysis.models.site_model import SiteModel
    from catalysis.studies.conditions import Conditions
    from catalysis.studies.design import Design, Search
    from catalysis.studies.verification import Verification

_COLUMNS = {
    "rank": Column("1 for the likeliest"),
    "site_id": Column("the design; opens it in the map above", heading="design"),
    "facet": Column("its facet"),
    "site_class": Column("its class: facet, kind, coordination numbers of the contacts", heading="class"),
    "contacts": Column("elements of the metals that bind the adsorbate"),
    "energy_ev": Column("energy predicted by the teacher", "eV", "energy", "+.3f"),
    "deviation_ev": Column("its standard deviation", "eV", "standard deviation", ".3f"),
    "stays": Column("probability that the adsorbate stays where it is put", format=".2f"),
    "probability": Column("probability that it stays and the energy lies in the window; ranks", format=".2f"),
    "head_energy_ev": Column(
        "energy predicted by the VAE's head, which proposed it", "eV", "energy by the VAE's head", "+.3f"
    ),
    "slots_unlike_nearest_known": Column(
        "in how many slots it differs from its nearest relative in the training data", heading="new slots"
    ),
    "metals": Column("how many metals it has"),
    "composition": Column("of which elements"),
    "usd_per_mol": Column("price of the site's metals per mole of atoms", "USD/mol", "price", ".0f"),
}
_VERIFIED = {
    "rank": Column("of the design"),
    "site_class": Column("its class", heading="class"),
    "contacts": Column("elements of the metals that bind the adsorbate"),
    "predicted_ev": Column("energy predicted by the teacher", "eV", "predicted", "+.3f"),
    "deviation_ev": Column("its standard deviation", "eV", "±", ".3f"),
    "potential_ev": Column("energy by the potential, on the data's zero", "eV", "potential", "+.3f"),
    "difference_ev": Column("potential less teacher", "eV", "difference", "+.3f"),
    "ends_as": Column("the kind of site on which the adsorbate ended", heading="ends as"),
    "stayed": Column("whether it stayed on its site and came to rest"),
    "hit": Column("whether it stayed and its energy lies in the window"),
}


@command(
    out="designs",
    example=[
        "interpretkit catalyst design",
        "interpretkit catalyst design --target-ev -0.3 --window-ev 0.05 --facets 111,211 --elements Pt,Pd,Ir",
        "interpretkit catalyst design --without Ir,Rh --max-price 5000 --verify 20",
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
    site_classes: Annotated[
        str | None,
        typer.Option("--site-classes", metavar="CLASS,...", help="Only of these classes; all by default."),
    ] = None,
    without: Annotated[
        str, typer.Option("--without", metavar="EL,...", help="Metals that no design may hold.")
    ] = "",
    prices: Annotated[
        str,
        typer.Option(
            "--prices",
            metavar="EL=USD,...|FILE",
            help="US dollars per gram, or a table of them (CSV: element, price); rounded ones by default.",
        ),
    ] = "",
    max_price: Annotated[
        float | None,
        typer.Option(
            "--max-price", metavar="USD", help="What the metals of a site may cost, per mole of atoms."
        ),
    ] = None,
    verify: Annotated[
        int,
        typer.Option(
            "--verify", metavar="N", help="Relabel the N likeliest designs with an interatomic potential."
        ),
    ] = 0,
    calculator: Annotated[
        str,
        typer.Option(
            "--calculator", metavar="NAME", help=f"The potential of --verify; {VERIFIER} by default."
        ),
    ] = "",
    quick: Quick = False,
    energy_key: EnergyKey = "adsorption_energy_eV",
    facet: Facet = "",
    kind: Kind = "",
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    *,
    run: Run | None = None,
) -> Finding:
    """Design sites with a wanted adsorption energy.

    With the bundled data the model that ships with the package serves; with --data of your own a model is trained
    first. Writes the sites, slabs that hold them, a table and a report. --verify asks an interatomic potential what it
    thinks of the best; an interrupted verification goes on where it stopped.
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
        verify=verify,
        calculator=calculator,
        max_price=max_price,
    )
    from catalysis.studies.conditions import Conditions

    conditions = Conditions(
        facets=() if facets is None else facet_names(facets),
        site_classes=() if site_classes is None else class_names(site_classes),
        elements=() if elements is None else element_names(elements),
        without=element_names(without) if without else (),
        prices=prices_of(prices),
        max_price=max_price,
    )
    if (known := known_to(data, model_folder)) is not None:
        conditions.check(known_elements=known[0], known_classes=known[1])
    if not model_folder:
        check_sites(data, "--data", energy_key=energy_key, facet=facet, kind=kind)
    elif not Path(model_folder).is_dir():
        raise InputError(f"model {model_folder}: no such folder; expected what `catalyst train` wrote")
    from catalysis.commands._explore import Directions, designs_among_data
    from catalysis.models.site_model import SHIPPED, SiteModel, train_model
    from catalysis.studies.design import Target, check_request, search
    from interpretkit.training import resolve_device

    target = Target(target_ev, window_ev)
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
            conditions=conditions,
        )
        model = train_model(sites, seed=seed, device=chosen_device, quick=quick, quiet=quiet)
    result = search(model, target, n, conditions=conditions, seed=seed, quiet=quiet)
    verified = None
    if verify:
        verified = _verified(
            model,
            result,
            min(verify, len(result.designs)),
            calculator or VERIFIER,
            is_shipped=data == BUNDLED and not model_folder,
            run=run,
            device=chosen_device,
            seed=seed,
            quiet=quiet,
        )

    read = [model_folder] if model_folder else data_files(data)
    found = _headline(model, result, verified).reads(*read, *([prices] if Path(prices).is_file() else []))
    warn_of(found, model.numbers)
    directions = Directions(model.latents(), model.sites.energy_ev)
    found.section(
        "Explore the designs",
        "Every point is a site: choose one on the map, in the table below or by a button, and see it in three "
        "dimensions. Sites of the data are shown in the ideal geometry of their class.",
    ).instrument(designs_among_data(model, result.designs, directions, seed))
    _add_designs(
        found, model, result, _data_note(data == BUNDLED and not model_folder, model.adsorbate), conditions
    )
    if verified is not None:
        _add_verification(found, model, verified, calculator or VERIFIER, seed)
    add_model(found, model, directions=directions)
    found.structures("designs.extxyz", [design.site.to_atoms() for design in result.designs])
    found.structures("slabs.extxyz", [design.host.with_adsorbate for design in result.designs])
    if verified is None:
        found.next_step(
            "Check the designs with an interatomic potential (install the extra mlip), or let --verify do it:",
            "interpretkit catalyst label --out checked",
            Here("slabs.extxyz"),
        )
    elif verified.stayed.sum() >= 4 and not verified.bias.low <= 0 <= verified.bias.high:
        found.next_step(
            f"The potential puts these designs {verified.bias.value:+.3f} eV off; aim as much to the other side:",
            "interpretkit catalyst design --out aimed --target-ev",
            f"{target_ev - verified.bias.value:.3f}",
        )
    found.next_step(
        "Or relax the slabs of `slabs.extxyz` with DFT, and train on what comes out:",
        "interpretkit catalyst train --data my-relaxed-slabs.extxyz --out model",
    )
    return found.next_step(
        "Ask for another energy, on some facets, of some metals:",
        "interpretkit catalyst design --target-ev -0.3 --facets 111,211 --elements Pt,Pd,Ir --out other",
    )


def _verified(
    model: SiteModel,
    result: Search,
    count: int,
    name: str,
    *,
    is_shipped: bool,
    run: Run | None,
    device: str,
    seed: int,
    quiet: bool,
) -> Verification:
    """Let a potential judge the likeliest designs."""
    from catalysis.potentials.calculators import make_calculator
    from catalysis.potentials.labelling import bridge_reference, calculator_digest
    from catalysis.studies.verification import known_hosts, verify

    potential = make_calculator(name, device)
    # The shipped data's zero is known, and the same to the potential that made them.
    same_zero = is_shipped and name == VERIFIER
    known = None if same_zero else known_hosts(model, count, seed)
    reference = bridge_reference(potential, model.adsorbate) if same_zero else 0.0
    designs = result.designs[:count]
    told = [(design.site.site_class, design.site.symbols) for design in designs]
    with ExitStack() as held:
        if run is None:
            work = Path(held.enter_context(TemporaryDirectory()))
        else:
            # What is labelled depends on the designs, by whatever words they were asked for.
            work = held.enter_context(run.kept(calculator_digest(potential), told, without=["device", "n"]))
        return verify(
            designs,
            result.target,
            potential,
            journal=work / "labels.jsonl",
            reference_ev=reference,
            known=known,
            quiet=quiet,
        )


def _headline(model: SiteModel, result: Search, verified: Verification | None) -> Finding:
    """Begin with how many designs lie in the window, beside what chance would give."""
    import numpy as np

    numbers, target = result.numbers, result.target
    found = Finding(
        f"{numbers['n_designs']} sites designed for *{model.adsorbate} at {target.energy_ev:+.2f} eV",
        f"{numbers['designs_in_window']} of them lie within {target.energy_ev:+.2f} ± {target.window_ev:.2f} eV by the "
        f"energy model that ranked them. Before any ranking {numbers['share_in_window']:.0%} of what the latent space "
        f"of a PGH-VAE proposed did, and {numbers['random_share_in_window']:.2%} of sites drawn at random.",
    )
    found.number(
        "designs_in_window",
        numbers["designs_in_window"],
        "designs in the window",
        note=f"of {numbers['n_designs']}, by the teacher's mean; it did the ranking",
    )
    if verified is not None:
        found.number(
            "verified_hits",
            int(verified.hits.sum()),
            "verified",
            note=f"of the {len(verified.designs)} likeliest, by the potential: in the window, and the adsorbate stayed",
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


def _add_designs(
    found: Finding, model: SiteModel, result: Search, data_note: str, conditions: Conditions
) -> None:
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
    from catalysis.studies.design import site_prices

    prices = site_prices(result.chosen, conditions)
    priced = bool(np.isfinite(prices).all())
    difference = numbers["design_mean_difference"]
    apart = (
        f"; two designs of one class differ in {difference:.0%} of their slots on average"
        if np.isfinite(difference)
        else ""
    )
    every = found.section(
        "All designs",
        f"{numbers['design_classes']} of {result.n_classes} classes and {numbers['design_contact_pairs']} pairs of "
        f"contact elements{apart}. None is in the training data. Of {numbers['n_decoded']} points decoded "
        f"{numbers['uniqueness']:.0%} were distinct sites, and {numbers['novelty']:.0%} of these new.",
    )
    columns = {name: column for name, column in _COLUMNS.items() if priced or name != "usd_per_mol"}
    every.table(
        "designs.csv",
        design_rows(designs, prices if priced else None),
        columns,
        shown=["site_id", *(name for name in columns if name != "site_id")],
        opens=True,
    )
    if priced:
        metals = conditions.allowed(result.chosen.elements)
        costs = ", ".join(
            f"{e} {format_number(round(usd))}"
            for e, usd in zip(metals, conditions.usd_per_mol(metals), strict=True)
        )
        every.note(
            f"Prices in USD/mol: {costs}. By default rounded means of 2024; give your own with `--prices`."
        )
    every.note(
        "Choosing by prediction favours what the teacher errs upon. Judged without the slab that each belongs to, the "
        f"sites of the data lie {numbers['bias_ev']:+.3f} ± {numbers['bias_deviation_ev']:.3f} eV from a prediction of "
        f"{target.energy_ev:+.2f} eV; that has been taken off. What remains is the error of an extrapolation, since "
        "designs are unlike the data by intent: `--verify` measures it."
    )


def _add_verification(found: Finding, model: SiteModel, verified: Verification, name: str, seed: int) -> None:
    """Show both energies of the designs that a potential judged, their bias and their order."""
    import numpy as np

    from catalysis.potentials.calculators import get_potential
    from interpretkit.visualization import parity

    stayed, bias, order = verified.stayed, verified.bias, verified.rank_correlation(seed)
    count, level = len(verified.designs), get_potential(name).level_of_theory
    section = found.section(
        "What a potential says",
        f"{level}: the adsorbates of the {count} likeliest designs were relaxed on slabs that were held. "
        f"{int(stayed.sum())} stayed on their site; {int(verified.hits.sum())} of all {count} lie in the window.",
    )
    shift = verified.shift
    if np.isfinite(shift.low):
        section.note(
            f"Its zero lies {shift.value:+.3f} eV ({shift.low:+.3f} to {shift.high:+.3f}) from that of the data, by "
            "sites of the data put into slabs like the designs; that is taken off."
        )
    numbers = {
        "verified_bias_ev": ("potential less teacher, mean", bias, "+.3f"),
        "verified_rank_correlation": ("rank correlation of both", order, ".2f"),
    }
    for key, (label, interval, form) in numbers.items():
        if np.isfinite(interval.value):
            told = (
                f"{interval.low:{form}} to {interval.high:{form}}"
                if np.isfinite(interval.low)
                else "of so few, without an interval"
            )
            found.number(
                key,
                interval.value,
                label,
                unit="eV" if "ev" in key.split("_") else "",
                format=form,
                note=told,
            )
    found.values.update(
        verified_bias_interval_ev=[bias.low, bias.high],
        verified_rank_interval=[order.low, order.high],
        verified_spread=verified.spread,
        verified_shift_ev=shift.value,
        verified_stayed=int(stayed.sum()),
    )
    if stayed.sum() >= 2:
        section.figure(
            "verified.png",
            parity(
                verified.energy_ev[stayed],
                verified.predicted_ev[stayed],
                groups=[d.site.facet for d, kept in zip(verified.designs, stayed, strict=True) if kept],
                uncertainty=verified.deviation_ev[stayed],
                quantity=f"*{model.adsorbate} energy",
                title="Teacher against potential, designs by facet",
            ),
            "Predicted energy against the potential's, for the designs that kept their adsorbate.",
        )
    if stayed.sum() >= 4 and not bias.low <= 0 <= bias.high:
        section.warning(
            f"The designs lie {bias.value:+.3f} eV ({bias.low:+.3f} to {bias.high:+.3f}) from where the teacher puts "
            "them: what was chosen is what it errs upon, or unlike what it has seen."
        )
    rows = [
        {
            "rank": rank,
            "site_class": design.site.site_class,
            "contacts": design.site.contact_elements,
            "predicted_ev": design.energy_ev,
            "deviation_ev": design.deviation_ev,
            "potential_ev": float(energy),
            "difference_ev": float(energy) - design.energy_ev,
            "ends_as": ends,
            "stayed": bool(kept),
            "hit": bool(hit),
        }
        for rank, (design, energy, ends, kept, hit) in enumerate(
            zip(
                verified.designs,
                verified.energy_ev,
                verified.ends_as,
                stayed,
                verified.hits,
                strict=True,
            ),
            start=1,
        )
    ]
    section.table("verified.csv", rows, _VERIFIED, most=100)
    found.structures("verified.extxyz", verified.frames)


def design_rows(designs: Sequence[Design], prices: np.ndarray | None = None) -> list[dict[str, Any]]:
    """Return one row per design: what it is, what is predicted, how new it is, what it costs if that is known."""
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
                **({} if prices is None else {"usd_per_mol": float(prices[rank - 1])}),
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
