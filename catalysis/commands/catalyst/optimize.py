"""The composition and the facet with the largest share of good sites."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalysis.checks import (
    ENERGY_KEY,
    bounds_of,
    check_model,
    check_sites,
    check_window,
    element_names,
    facet_names,
    prices_of,
)
from catalysis.commands._model_page import warn_of
from catalysis.commands._options import BUNDLED, Data, EnergyKey, Facet, FittedModel, Kind
from catalysis.commands._teacher import load_teacher
from interpretkit.commandline import Column, Finding, Quiet, Seed, command, one_of
from interpretkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from catalysis.studies.optimize import Optimization

_WINDOW_EV, _TEMPERATURE_K = 0.1, 300.0
_NOTHING = 1e-4  # a mean activity below this is none
_STEPS = 12  # of the ternary map, from one corner to the next


@command(
    out="optimum",
    example=[
        "interpretkit catalyst optimize",
        "interpretkit catalyst optimize --elements Pt,Pd,Ru --facets 111,211 --bounds Pt=0-60",
        "interpretkit catalyst optimize --activity sabatier --target-ev -0.2",
    ],
)
def optimize(
    data: Data = BUNDLED,
    target_ev: Annotated[
        float,
        typer.Option("--target-ev", metavar="EV", help="The best adsorption energy in eV."),
    ] = 0.1,
    window_ev: Annotated[
        float,
        typer.Option("--window-ev", metavar="EV", help="How far from it a good site's energy may be, in eV."),
    ] = _WINDOW_EV,
    activity: Annotated[
        str,
        typer.Option(
            "--activity",
            metavar="NAME",
            help="What is to be large: the share of sites in the window, or with sabatier the rate on a volcano.",
        ),
    ] = "window",
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="K", help="Of the volcano, in kelvins.")
    ] = _TEMPERATURE_K,
    elements: Annotated[
        str | None,
        typer.Option("--elements", metavar="EL,...", help="The alloy's metals; all that the model knows."),
    ] = None,
    facets: Annotated[
        str | None, typer.Option("--facets", metavar="HKL,...", help="Only these facets; all by default.")
    ] = None,
    bounds: Annotated[
        str,
        typer.Option("--bounds", metavar="EL=LOW-HIGH,...", help="At% that an element must lie between."),
    ] = "",
    prices: Annotated[
        str,
        typer.Option(
            "--prices",
            metavar="EL=USD,...|FILE",
            help="US dollars per gram, or a table of them (CSV: element, price), for the compromises.",
        ),
    ] = "",
    sites: Annotated[
        int, typer.Option("--sites", metavar="N", help="Sites drawn per class around each optimum.")
    ] = 8192,
    model_folder: FittedModel = "",
    energy_key: EnergyKey = "adsorption_energy_eV",
    facet: Facet = "",
    kind: Kind = "",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> Finding:
    """Find the composition and the facet with the largest share of good sites.

    Sites are drawn from a composition, their energies predicted by the teacher, and read again with other weights for
    every composition near it. Writes the best composition of each facet, the best facet of each composition,
    compromises with price and mixing entropy, maps and a report.
    """
    check_window(target_ev, window_ev)
    from catalysis.studies.activity import ACTIVITIES, Goal, Target

    looked_up = ACTIVITIES[one_of(list(ACTIVITIES), activity, "--activity")]
    if window_ev != _WINDOW_EV and not looked_up.uses_window:
        raise InputError(f"--window-ev {window_ev}: {activity} has no window; expected --activity window")
    if temperature != _TEMPERATURE_K and not looked_up.uses_temperature:
        raise InputError(f"--temperature {temperature}: {activity} has none; expected --activity sabatier")
    limits, given_prices = bounds_of(bounds), prices_of(prices)
    if sites < 64:
        raise InputError(f"--sites: {sites}; expected at least 64")
    check_model(
        data,
        model_folder,
        facets=facets,
        elements=elements,
        training={"--facet": facet, "--kind": kind, "--energy-key": energy_key != ENERGY_KEY and energy_key},
    )
    if not model_folder:
        check_sites(data, "--data", energy_key=energy_key, facet=facet, kind=kind)
    if elements is not None:
        _check_alloy(element_names(elements), limits, given_prices)
    from catalysis.studies.optimize import (
        Bounds,
        pareto_front,
        surfaces_of,
        ternary_section,
    )
    from catalysis.studies.optimize import optimize as search
    from catalysis.studies.prices import PRICES_USD_PER_G
    from interpretkit.runs.progress import progress

    goal = Goal(Target(target_ev, window_ev), activity, temperature)
    teacher, numbers, read = load_teacher(
        data, model_folder, energy_key=energy_key, facet=facet, kind=kind, seed=seed
    )
    metals = teacher.elements if elements is None else element_names(elements)
    _check_alloy(metals, limits, given_prices)
    allowed = Bounds(
        tuple(limits.get(metal, (0.0, 1.0))[0] for metal in metals),
        tuple(limits.get(metal, (0.0, 1.0))[1] for metal in metals),
    )
    surfaces, energies = surfaces_of(
        teacher, metals, facets=() if facets is None else facet_names(facets), seed=seed
    )
    result = search(surfaces, energies, metals, goal, bounds=allowed, sites=sites, seed=seed, quiet=quiet)
    table = {**PRICES_USD_PER_G, **given_prices}
    unpriced = [metal for metal in metals if metal not in table]
    with progress("Compromises and maps", None, quiet=quiet) as bar:
        bar.stage("compromises")
        front, compared = pareto_front(result, None if unpriced else table, advance=bar.advance)
        bar.stage("maps")
        section = (
            ternary_section(result, result.best.composition, _STEPS, advance=bar.advance)
            if len(metals) > 2
            else None
        )

    found = _headline(result, teacher.adsorbate).reads(*read)
    warn_of(found, numbers)
    none = [one.facet for one in result.optima if one.confirmed.value < _NOTHING]
    if none:
        found.warn(f"No composition has good sites on {', '.join(none)}: what is said of them is noise")
    _add_facets(found, result)
    _add_compositions(found, result)
    _add_map(found, result, section)
    _add_compromises(found, result, front, compared, unpriced, table)
    _add_method(found, result, numbers)
    found.next_step(
        "Design sites of the best composition's facet:",
        "interpretkit catalyst design --out designs --facets",
        result.best.facet,
        "--target-ev",
        f"{target_ev:g}",
    )
    return found.next_step(
        "Ask again within limits, of fewer metals, or for a volcano:",
        "interpretkit catalyst optimize --elements Pt,Pd,Ru --bounds Pt=0-60 --activity sabatier --out other",
    )


def _check_alloy(
    metals: Sequence[str], limits: Mapping[str, tuple[float, float]], prices: Mapping[str, float]
) -> None:
    """Refuse an alloy of one metal, and bounds and prices of metals that are not in it."""
    if len(metals) < 2:
        raise InputError(
            f"--elements {', '.join(metals)}: expected at least two, or there is nothing to choose"
        )
    for option, named in (("--bounds", limits), ("--prices", prices)):
        for metal in named:
            if metal not in metals:
                raise InputError(
                    f"{option}: {metal} is not in the alloy; expected some of {', '.join(metals)}"
                )


def _percent(result: Optimization) -> str:
    """Return how activities are written."""
    if result.goal.activity != "window":
        return ".3g"
    return ".1%" if result.best.confirmed.value >= 0.1 else ".2%"


def _headline(result: Optimization, adsorbate: str) -> Finding:
    from catalysis.studies.composition import composition_text

    best, goal, form = result.best, result.goal, _percent(result)
    name = composition_text(best.composition, result.elements)
    wanted = (
        f"within {goal.target.energy_ev:+.2f} ± {goal.target.window_ev:.2f} eV"
        if goal.activity == "window"
        else f"near {goal.target.energy_ev:+.2f} eV at {goal.temperature_k:g} K"
    )
    found = Finding(
        "The best composition and facet",
        f"{name} on ({best.facet}): of all alloys of {', '.join(result.elements)} it has the largest "
        f"{goal.name}, {best.confirmed.value:{form}}, *{adsorbate} {wanted}, as the teacher sees it.",
    )
    found.number("best_composition", name, "best composition", note=f"on the facet {best.facet}")
    found.number("best_facet", best.facet, "best facet", on_card=False)
    found.number(
        "activity",
        best.confirmed.value,
        goal.name,
        format=form,
        note=f"± {best.confirmed.sampling:{form}} from the sites, ± {best.confirmed.teacher:{form}} from the teacher",
    )
    found.number(
        "gain",
        best.gain,
        "gain over equal shares",
        format="+" + form,
        note=f"± {best.gain_teacher:{form}} from the teacher; equal shares have {best.equimolar.value:{form}} there",
    )
    found.number("teacher_calls", result.activity.calls, "sites judged by the teacher")
    found.values.update(
        {
            "composition": dict(zip(result.elements, best.composition.tolist(), strict=True)),
            "activity_sampling": best.confirmed.sampling,
            "activity_teacher": best.confirmed.teacher,
            "equimolar": best.equimolar.value,
            "adsorbate": adsorbate,
        }
    )
    return found


def _element_columns(result: Optimization) -> dict[str, Column]:
    return {f"{e}_at_percent": Column("share of the metal", "at%", e, ".1f") for e in result.elements}


def _shares(result: Optimization, composition: np.ndarray) -> dict[str, float]:
    return {
        f"{e}_at_percent": 100 * share for e, share in zip(result.elements, composition.tolist(), strict=True)
    }


def _add_facets(found: Finding, result: Optimization) -> None:
    """Show the best composition of each facet."""
    from catalysis.studies.composition import composition_text

    form = _percent(result)
    rows = [
        {
            "facet": one.facet,
            "composition": composition_text(one.composition, result.elements),
            **_shares(result, one.composition),
            "activity": one.confirmed.value,
            "sampling": one.confirmed.sampling,
            "teacher": one.confirmed.teacher,
            "equimolar": one.equimolar.value,
            "gain": one.gain,
            "gain_teacher": one.gain_teacher,
            "activity_while_searching": one.estimate.value,
            "good_per_nm2": one.confirmed.value * one.per_nm2,
        }
        for one in result.optima
    ]
    columns = {
        "facet": Column("its name"),
        "composition": Column("in at%"),
        **_element_columns(result),
        "activity": Column(f"{result.goal.name}, by plain Monte Carlo with sites of its own", format=form),
        "sampling": Column("standard error from the number of sites", "", "± sites", form),
        "teacher": Column("standard deviation over the teacher's laws", "", "± teacher", form),
        "equimolar": Column("the same at equal shares", "", "equal shares", form),
        "gain": Column("how much more than at equal shares", format="+" + form),
        "gain_teacher": Column("its standard deviation over the teacher's laws", "", "± gain", form),
        "activity_while_searching": Column("by the pools that found it", "", "searching", form),
        "good_per_nm2": Column(
            "the activity times the number of sites per area", "1/nm²", "good sites", ".2f"
        ),
    }
    shown = ["facet", "composition", "activity", "sampling", "teacher", "gain", "good_per_nm2"]
    found.section(
        "The best composition of each facet",
        "A facet is taken for the sites that the teacher knows on it, as many of each class as there are per area. The "
        "value is that "
        "of plain Monte Carlo at the optimum, with sites that had no part in finding it.",
    ).table("optima.csv", rows, columns, shown=shown, in_terminal=True)


def _add_compositions(found: Finding, result: Optimization) -> None:
    """Show the best facet of some compositions, and a map of facets over compositions."""
    import numpy as np

    from catalysis.studies.composition import composition_text
    from interpretkit.visualization import heatmap

    kinds = len(result.elements)
    form = _percent(result)
    shown = {"equal shares": np.full(kinds, 1 / kinds)}
    shown |= {f"best of {one.facet}": one.composition for one in result.optima}
    shown |= {f"pure {e}": np.eye(kinds)[k] for k, e in enumerate(result.elements)}
    rows, values = [], []
    for name, composition in shown.items():
        best, sure = result.best_facet(composition)
        values.append([result.at(one, composition).value for one in result.facets])
        rows.append(
            {
                "which": name,
                "composition": composition_text(composition, result.elements),
                "best_facet": best.facet if best.estimate.value >= _NOTHING else "none",
                "activity": best.estimate.value,
                "sampling": best.estimate.sampling,
                "sure": sure,
                "within_bounds": result.bounds.allow(composition),
            }
        )
    columns = {
        "which": Column("what composition it is"),
        "composition": Column("in at%"),
        "best_facet": Column("with the largest value", "", "best facet"),
        "activity": Column(result.goal.name, format=form),
        "sampling": Column("standard error from the number of sites", "", "± sites", form),
        "sure": Column("share of the teacher's laws under which that facet is the best", format=".0%"),
        "within_bounds": Column("whether --bounds allows it", "", "allowed"),
    }
    found.section(
        "The best facet of each composition",
        "Equal shares, the optimum of each facet, and the pure metals.",
    ).table("facets.csv", rows, columns).figure(
        "facets.png",
        heatmap(
            100 * np.array(values),
            [f"{row['which']}: {row['composition']}" for row in rows],
            list(result.facets),
            label=f"{result.goal.name} (%)",
        ),
        "Every facet at every composition of the table.",
    )


def _add_map(
    found: Finding, result: Optimization, section: tuple[np.ndarray, np.ndarray, np.ndarray] | None
) -> None:
    """Show the activity of each facet over two or three elements."""
    import numpy as np

    from catalysis.figures import composition_lines, ternary_maps

    best = result.best.composition
    titles = [f"({one})" for one in result.facets]
    if section is None:
        shares = np.linspace(0, 1, 41)
        points = [np.array([share, 1 - share]) for share in shares]
        kept = np.array([result.bounds.allow(point) for point in points])
        values = np.array(
            [
                [result.at(one, point).value for point, stays in zip(points, kept, strict=True) if stays]
                for one in result.facets
            ]
        )
        figure = composition_lines(
            shares[kept], values, titles, element=result.elements[0], label=result.goal.name
        )
        found.section("Over all compositions").figure("map.png", figure, "Each facet over the two metals.")
        found.arrays("map.npz", shares=shares[kept], values=values, facets=list(result.facets))
        return
    which, lattice, values = section
    names = [result.elements[k] for k in which]
    together = best[which].sum()
    others = [
        f"{e} {100 * share:.1f}"
        for k, (e, share) in enumerate(zip(result.elements, best.tolist(), strict=True))
        if k not in which and share > 0
    ]
    held = f", with {', '.join(others)} at% held" if others else ""
    found.section(
        "Over three metals",
        f"{', '.join(names)} share {100 * together:.0f} at%{held}; the ring is the best composition.",
    ).figure(
        "map.png",
        ternary_maps(lattice, values, names, titles, label=result.goal.name, marked=best[which] / together),
        f"The {result.goal.name} of each facet over {', '.join(names)}.",
    )
    found.arrays(
        "map.npz", elements=names, shares=lattice * together, values=values, facets=list(result.facets)
    )


def _add_compromises(
    found: Finding,
    result: Optimization,
    front: Sequence[Any],
    compared: Sequence[Any],
    unpriced: Sequence[str],
    prices: Mapping[str, float],
) -> None:
    """Show the Pareto front."""
    import numpy as np

    from catalysis.figures import pareto_figure
    from catalysis.studies.composition import composition_text

    form = _percent(result)
    rows = [
        {
            "composition": composition_text(one.found.composition, result.elements),
            **_shares(result, one.found.composition),
            "facet": one.found.facet,
            "activity": one.found.estimate.value,
            "sampling": one.found.estimate.sampling,
            "teacher": one.found.estimate.teacher,
            **({} if unpriced else {"usd_per_mol": one.price}),
            "entropy_r": one.entropy,
        }
        for one in front
    ]
    columns = {
        "composition": Column("in at%"),
        **_element_columns(result),
        "facet": Column("the best one of that composition"),
        "activity": Column(result.goal.name, format=form),
        "sampling": Column("standard error from the number of sites", "", "± sites", form),
        "teacher": Column("standard deviation over the teacher's laws", "", "± teacher", form),
        "usd_per_mol": Column("price of the metals", "USD/mol", "price", ".0f"),
        "entropy_r": Column("ideal entropy of mixing", "R", "mixing entropy", ".2f"),
    }
    aims = "activity and mixing entropy" if unpriced else "activity, price and mixing entropy"
    section = found.section(
        "Compromises",
        f"The Pareto front: no composition looked at beats one of these in {aims} at once. {len(compared)} were "
        "compared, each on its best facet.",
    )
    shown = ["composition", "facet", "activity", "sampling", "teacher", "usd_per_mol", "entropy_r"]
    section.table(
        "pareto.csv",
        rows,
        columns,
        shown=[name for name in shown if not (unpriced and name == "usd_per_mol")],
        most=25,
    )
    if unpriced:
        section.note(
            f"No price is known of {', '.join(unpriced)}; give it with --prices, in US dollars per gram."
        )
    else:

        def points(some: Sequence[Any]) -> np.ndarray:
            return np.array([[one.price, one.found.estimate.value, one.entropy] for one in some])

        section.figure(
            "pareto.png",
            pareto_figure(
                points(compared),
                points(front),
                label=result.goal.name,
                price_label="price of the metals (USD/mol)",
                colour_label="mixing entropy (R)",
            ),
            "Activity over price; the colour of the front is the entropy of mixing.",
        )
        told = ", ".join(f"{e} {prices[e]:g}" for e in result.elements)
        section.note(
            f"Prices in USD/g: {told}. By default rounded means of 2024; give your own with --prices."
        )


def _add_method(found: Finding, result: Optimization, numbers: Mapping[str, Any]) -> None:
    activity = result.activity
    error = (
        f" On slabs that it had not seen its error was {numbers['mae_ev']:.3f} eV."
        if "mae_ev" in numbers
        else ""
    )
    found.section(
        "How far to trust it",
        f"{activity.calls} sites were judged, in {len(activity.proposals)} pools, each drawn from one composition and "
        "read again for every composition near it; where the effective number of sites was too small, a new pool was "
        f"drawn. At the best composition {result.best.estimate.effective_sites:.0f} sites count.{error}\n\n"
        "The teacher's uncertainty is that of laws drawn from its posterior: each gives an energy for every site, so "
        "that errors which sites share stay shared. The scatter of single sites around a law is part of the activity. "
        "Not part of it: that metals may segregate, order, or dissolve, that surfaces relax and reconstruct, and that "
        "the energies the teacher learned from are those of its data.",
    )
