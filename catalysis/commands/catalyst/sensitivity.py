"""How fingerprint and energy of sites answer to changes of their structure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalysis.checks import check_numbers, check_sites, some_of
from catalysis.commands._options import BUNDLED, ZONES, Data, EnergyKey, Facet, Kind, data_files, load_sites
from interpretkit.commandline import Column, Device, Finding, Quiet, Seed, command
from interpretkit.errors import InputError
from interpretkit.runs.folder import Run
from interpretkit.runs.formatting import format_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from catalysis.structure.sites import Site
    from catalysis.studies.sensitivity import Response, Source
    from catalysis.studies.topology import Ablated, Association, BarFeatures

_KINDS = ("displacement", "strain", "vacancy", "adatom", "swap")
_FEWEST_SITES = 40

_CHANGE_COLUMNS = {
    "change": Column("what was done to a site"),
    "size": Column("how far an atom was moved, or how the surface was strained"),
    "zone": Column(
        "where: the contacts, their common neighbours, the shell, second neighbours, the adsorbate",
        words=ZONES,
    ),
    "changes": Column("how many such changes"),
    "bottleneck_geometry": Column(
        "median bottleneck distance of the barcodes, largest of the dimensions, arrows both ways",
        "Å",
        "bottleneck",
        ".3f",
    ),
    "curves_geometry": Column(
        "median area between the Betti curves, arrows both ways", "bars·Å", "curves", ".2f"
    ),
    "rewired_geometry": Column("share of changes that made or broke an arrow", "", "rewired", ".0%"),
    "bottleneck_elements": Column(
        "the same with arrows directed by elements", "Å", "bottleneck, directed", ".3f"
    ),
    "curves_elements": Column(
        "the same with arrows directed by elements", "bars·Å", "curves, directed", ".2f"
    ),
    "rewired_elements": Column("the same with arrows directed by elements", "", "rewired, directed", ".0%"),
}
_STABILITY_COLUMNS = {
    "direction": Column("of the digraph's arrows: both ways, or directed by elements"),
    "checked": Column("displacements and strains that left the arrows as they are"),
    "violated": Column("of them, those beyond the bound by more than rounding"),
    "tightest": Column("largest share of the bound that was reached", format=".3f"),
    "rewired": Column("displacements and strains that made or broke a bond: no bound"),
    "largest_jump": Column("largest bottleneck distance among those", "Å", "largest jump", ".3f"),
}
_BAR_COLUMNS = {
    "direction": Column("of the digraph's arrows"),
    "dimension": Column("0 components, 1 loops, 2 voids"),
    "zone": Column("zone of the innermost atom on the cycle that carries the bar", words=ZONES),
    "measure": Column("how many bars, their total length (Å), their mean birth (Å)"),
    "level": Column("within classes, or between their means"),
    "correlation": Column("with the energy (Pearson)", format="+.2f"),
    "low": Column(
        "lower end of the 95 % interval, by bootstrap over slabs", heading="95 % from", format="+.2f"
    ),
    "high": Column("upper end", heading="95 % to", format="+.2f"),
    "p": Column("two-sided p, with dependence within slabs", format=".2g"),
    "q": Column("after Benjamini and Hochberg over all rows", format=".2g"),
    "n": Column("sites, or classes"),
}
_ABLATION_COLUMNS = {
    "model": Column("what predicts"),
    "mae_ev": Column("mean absolute error without Betti curves", "eV", "without", ".4f"),
    "with_topology_ev": Column("with them", "eV", "with", ".4f"),
    "difference_ev": Column("with less without", "eV", "difference", "+.4f"),
    "low_ev": Column(
        "lower end of the paired 95 % interval, by bootstrap over slabs", "eV", "95 % from", "+.4f"
    ),
    "high_ev": Column("upper end", "eV", "95 % to", "+.4f"),
    "chosen": Column("folds in which the inner folds gave the curves any weight"),
}


@command(
    out="sensitivity",
    example=[
        "interpretkit catalyst sensitivity",
        "interpretkit catalyst sensitivity --changes displacement,strain --calculator chgnet",
        "interpretkit catalyst sensitivity --data my-sites.extxyz --sites 500",
    ],
)
def sensitivity(
    run: Run,
    data: Data = BUNDLED,
    changes: Annotated[
        str, typer.Option("--changes", metavar="KIND,...", help=f"What to do to sites: {', '.join(_KINDS)}.")
    ] = ",".join(_KINDS),
    amplitudes: Annotated[
        str, typer.Option("--amplitudes", metavar="Å,...", help="How far atoms are moved, in Å.")
    ] = "0.02,0.1,0.3",
    strain: Annotated[
        str, typer.Option("--strain", metavar="SHARE,...", help="How much the surface is strained.")
    ] = "-0.03,0.03",
    calculator: Annotated[
        str,
        typer.Option(
            "--calculator",
            metavar="NAME",
            help="Potential to ask for energies of all changes, such as chgnet or emt; none by default.",
        ),
    ] = "",
    per_class: Annotated[
        int, typer.Option("--per-class", min=1, metavar="N", help="Sites of each class that are changed.")
    ] = 1,
    most: Annotated[
        int,
        typer.Option("--sites", metavar="N", help="Sites, in whole slabs, for the ablation; 0 for all."),
    ] = 240,
    bars: Annotated[
        int,
        typer.Option("--bars", min=0, metavar="N", help="Of them, sites whose bars are located; 0: none."),
    ] = 60,
    energy_key: EnergyKey = "adsorption_energy_eV",
    facet: Facet = "",
    kind: Kind = "",
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> Finding:
    """Measure how fingerprint and energy answer to changes of a site, and what topology tells of the energy.

    One site of each class is displaced, strained, robbed of metals, given one, and redecorated. Checks the stability
    bound of persistent homology on every displacement; correlates bars with the energy; measures by ablation what
    Betti curves add to class and elements.
    """
    check_sites(data, "--data", energy_key=energy_key, facet=facet, kind=kind)
    wanted = some_of(_KINDS, changes, "--changes")
    moved = check_numbers(amplitudes, "--amplitudes", low=0.0, high=2.0)
    strained = check_numbers(strain, "--strain", low=-0.5, high=0.5)
    for option, value, given in (
        ("--amplitudes", "displacement", amplitudes != "0.02,0.1,0.3"),
        ("--strain", "strain", strain != "-0.03,0.03"),
    ):
        if given and value not in wanted:
            raise InputError(f"{option}: no {value} is made; expected {value} among --changes")
    if most and most < _FEWEST_SITES:
        raise InputError(f"--sites {most}: expected 0 for all, or at least {_FEWEST_SITES}")
    if calculator:
        from catalysis.potentials.calculators import get_potential

        get_potential(calculator)
    elif device != "auto":
        raise InputError(f"--device {device}: only a potential runs on it; expected --calculator as well")
    from catalysis.energies.teacher import Teacher
    from catalysis.energies.training_data import check_training_data
    from catalysis.models.site_model import SHIPPED
    from catalysis.studies.sensitivity import all_changes, by_teacher, responses, typical_sites
    from interpretkit.runs.progress import track

    sites = load_sites(data, energy_key=energy_key, facet=facet, kind=kind, require_energies=True)
    check_training_data(sites, None)
    elements = sorted({symbol for site in sites for symbol in site.symbols})
    teacher = (
        Teacher.load(SHIPPED / "teacher.safetensors") if data == BUNDLED else Teacher(seed=seed).fit(sites)
    )
    chosen = typical_sites(sites, per_class)
    found_changes: list[Response] = []

    def measure(sources: Sequence[Source]) -> None:
        for number, site in enumerate(track(chosen, "Sites changed", quiet=quiet)):
            made = all_changes(
                site, elements=elements, amplitudes=moved, strain=strained, seed=seed + number, kinds=wanted
            )
            found_changes.extend(responses(site, made, sources))

    if calculator:
        from catalysis.potentials.calculators import make_calculator
        from catalysis.potentials.labelling import calculator_digest
        from catalysis.studies.sensitivity import by_potential
        from interpretkit.training.device import resolve_device

        potential = make_calculator(calculator, str(resolve_device(device)))
        with run.kept(calculator_digest(potential), files=data_files(data), without=["device"]) as work:
            asked = by_potential(calculator, potential, work / "energies.jsonl", quiet=quiet)
            measure([by_teacher(teacher), asked])
    else:
        measure([by_teacher(teacher)])

    found = Finding(
        "How sites answer to changes",
        f"{len(found_changes)} changes of {len(chosen)} sites, one typical site of each class"
        f"{'' if per_class == 1 else f' and up to {per_class - 1} more'}; {len(sites)} sites with energies.",
    ).reads(*data_files(data))
    _add_changes(found, found_changes, chosen, calculator, seed)
    _add_topology(found, sites, most, bars, seed, quiet)
    found.next_step(
        "Ask a potential for the energies of displacements and strains as well (install the extra mlip):",
        "interpretkit catalyst sensitivity --changes displacement,strain --amplitudes 0.1 --calculator chgnet --data",
        data,
    )
    return found.next_step(
        "See which atoms make the energy of one site:", "interpretkit catalyst explain --data", data
    )


def _add_changes(
    found: Finding, measured: Sequence[Response], chosen: Sequence[Site], calculator: str, seed: int
) -> None:
    """Show what changes did to fingerprint and energy, and how the stability bound fared."""
    from catalysis.studies.sensitivity import DIRECTIONS, agreement, by_kind, stability

    checks = [stability(measured, direction) for direction in DIRECTIONS]
    bounded = sum(check.checked for check in checks)
    if bounded:
        found.number(
            "bound_violations",
            sum(check.violated for check in checks),
            "violations of the stability bound",
            note=f"in {bounded} checks; a single one would be a fault of the engine",
        )
        broken = sum(check.violated for check in checks)
        found.lead += (
            f" The stability bound of persistent homology was broken in {broken} of {bounded} checks of "
            "displacements and strains."
        )
    sources = list(measured[0].energy_ev) if measured else []
    for source in sources:
        value, low, high = agreement(measured, source, seed=seed)
        if value == value:
            found.number(
                f"swap_agreement_{source}",
                value,
                f"fingerprint against energy by {source}, swaps",
                format="+.2f",
                note=f"rank correlation of how much both change, 95 % interval {low:+.2f} … {high:+.2f}",
            )
            found.values[f"swap_agreement_{source}_interval"] = [low, high]
            found.lead += (
                f" The more a swap of metals changes the fingerprint, the more it changes the energy by {source}: "
                f"rank correlation {format_number(value, format='+.2f')}."
                if low > 0
                else f" How much a swap changes the fingerprint does not tell how much it changes the energy by "
                f"{source}: rank correlation {format_number(value, format='+.2f')}."
            )
    rows = by_kind(measured)
    columns = dict(_CHANGE_COLUMNS)
    for source in sources:
        columns[f"{source}_rms_ev"] = Column(
            f"root mean square change of the energy by {source}", "eV", f"{source}, rms", ".3f"
        )
        columns[f"{source}_largest_ev"] = Column(
            f"largest absolute change of the energy by {source}", "eV", f"{source}, largest", ".3f"
        )
    section = found.section(
        "What changes do",
        "Bottleneck distances say how far bars move, areas between Betti curves how many do. Arrows both ways see the "
        "geometry alone; directed by elements, as published, they see swaps as well. The teacher looks at class and "
        "elements, so that it answers to swaps alone"
        + (f"; {calculator} answers to all, on clusters that are not relaxed." if calculator else "."),
    )
    if rows:
        section.figure(
            "changes.png", _changes_figure(measured), "Medians by kind and zone; bars reach the quartiles."
        )
    section.table("changes.csv", rows, columns, "By kind, size and zone.")
    found.table("responses.csv", [_response_row(r) for r in measured])
    if bounded or any(check.rewired for check in checks):
        found.section(
            "The stability bound",
            "Where the arrows stay the same, the bottleneck distance of two barcodes is at most the largest change of "
            "an arrow's weight, in every dimension. It is checked here on every displacement and strain. Where a "
            "bond is made or broken the arrows are others, and the barcode may jump.",
        ).table("stability.csv", [check.__dict__ for check in checks], _STABILITY_COLUMNS, in_terminal=True)


def _response_row(response: Response) -> dict[str, Any]:
    change = response.change
    row: dict[str, Any] = {
        "site_id": response.site_id,
        "site_class": response.site_class,
        "change": change.kind,
        "what": change.what,
        "amplitude": change.amplitude,
        "atom": change.atom,
        "zone": change.zone,
    }
    for direction in response.bottleneck:
        row[f"weight_change_{direction}_angstrom"] = response.weight_change[direction]
        for dimension in range(3):
            row[f"bottleneck_{direction}_{dimension}_angstrom"] = float(
                response.bottleneck[direction][dimension]
            )
            row[f"curves_{direction}_{dimension}_angstrom"] = float(response.curves[direction][dimension])
    return row | {f"{name}_ev": value for name, value in response.energy_ev.items()}


def _changes_figure(measured: Sequence[Response]) -> Figure:
    import numpy as np

    from catalysis.studies.sensitivity import DIRECTIONS, ZONES
    from interpretkit.visualization import colour_of, new_figure, style

    sources = [
        name for name in measured[0].energy_ev if np.isfinite([r.energy_ev[name] for r in measured]).any()
    ]
    kinds = list(dict.fromkeys(response.change.kind for response in measured))
    with style():
        figure = new_figure(11.0, 4.2)
        axes = figure.subplots(1, 2, sharey=True)
        places = [
            (kind, zone)
            for kind in kinds
            for zone in (*ZONES, "")
            if any(r.change.kind == kind and r.change.zone == zone for r in measured)
        ]
        names = [f"{kind}, {zone}" if zone else kind for kind, zone in places]
        panels = (
            (axes[0], [(f"arrows: {d}", lambda r, d=d: float(r.curves[d].sum())) for d in DIRECTIONS]),
            (axes[1], [(name, lambda r, name=name: abs(r.energy_ev[name])) for name in sources]),
        )
        for axis, series in panels:
            for number, (label, value) in enumerate(series):
                height = np.arange(len(places)) + 0.25 * (number - (len(series) - 1) / 2)
                quartiles = np.full((3, len(places)), np.nan)
                for k, (kind, zone) in enumerate(places):
                    values = np.array(
                        [value(r) for r in measured if (r.change.kind, r.change.zone) == (kind, zone)]
                    )
                    values = values[np.isfinite(values)]
                    if len(values):
                        quartiles[:, k] = np.quantile(values, [0.25, 0.5, 0.75])
                axis.errorbar(
                    quartiles[1],
                    height,
                    xerr=[quartiles[1] - quartiles[0], quartiles[2] - quartiles[1]],
                    fmt="o",
                    markersize=4,
                    color=colour_of(number),
                    label=label,
                )
            if series:
                axis.legend()
        axes[0].set_yticks(range(len(places)), names)
        axes[0].invert_yaxis()
        axes[0].set_xlabel("area between Betti curves (bars·Å)")
        axes[0].set_title("The fingerprint's answer")
        axes[1].set_xlabel("absolute change of the energy (eV)")
        axes[1].set_title("The energy's answer")
        if not sources:
            axes[1].text(
                0.5, 0.5, "none of these changes\nwas asked for its energy", ha="center", va="center",
                transform=axes[1].transAxes,
            )  # fmt: skip
        return figure


def _add_topology(
    found: Finding, sites: Sequence[Site], most: int, bars: int, seed: int, quiet: bool
) -> None:
    """Show which bars go with the energy, and what Betti curves add to class and elements."""
    import numpy as np

    from catalysis.studies.topology import ablation, associations, bar_features, ideal_copy, slabs_until

    used = [s for s in slabs_until(sites, most or len(sites), seed) if ideal_copy(s) is not None]
    slabs = {site.slab_id for site in used}
    if bars:
        some = slabs_until(used, bars, seed)
        features = bar_features(some, quiet=quiet)
        told = associations(
            features.values,
            np.array([site.energy_ev for site in some], dtype=float),
            [f"{site.facet} {site.site_class}" for site in some],
            [site.slab_id or site.site_id for site in some],
            seed=seed,
        )
        _add_bars(found, features, told, len(some))
    if len(used) < _FEWEST_SITES or len(slabs) < 5:
        found.section("What topology adds").warning(
            f"{len(used)} sites on {len(slabs)} slabs match a template: too few to measure what topology adds "
            f"(at least {_FEWEST_SITES} sites on 5 slabs)."
        )
        return
    rows = {
        setting: ablation(used, setting=setting, seed=seed, quiet=quiet)
        for setting in ("unrelaxed", "relaxed")
    }
    for setting, ablated in rows.items():
        for row in ablated[:2]:
            name = row.model.split()[0]
            found.number(
                f"topology_adds_{name}_{setting}_ev",
                row.difference_ev,
                f"topology's part in the error, {name}, {setting}",
                unit="eV",
                format="+.4f",
                note=f"95 % interval {row.low_ev:+.4f} … {row.high_ev:+.4f}; below 0 it helps",
                on_card=name == "teacher",
            )
    section = found.section("What topology adds to class and elements", _verdict(rows, len(used), len(slabs)))
    texts = {
        "unrelaxed": "Unrelaxed: class and elements alone, and curves of the ideal sites.",
        "relaxed": "At the given positions: also distances about contacts and adsorbate, and curves of these "
        "positions. Not to be compared with the unrelaxed errors.",
    }
    for setting, ablated in rows.items():
        section.table(
            f"ablation-{setting}.csv",
            [
                {name: value for name, value in row.__dict__.items() if name in _ABLATION_COLUMNS}
                for row in ablated
            ],
            _ABLATION_COLUMNS,
            texts[setting],
            in_terminal=True,
        )


def _verdict(rows: dict[str, list[Ablated]], n_sites: int, n_slabs: int) -> str:
    """Say in words what an ablation gave."""
    pairs = [row for ablated in rows.values() for row in ablated[:2]]
    helps, harms = [row for row in pairs if row.helps], [row for row in pairs if row.harms]
    if helps:
        said = "Topology helps " + ", ".join(
            f"the {row.model} ({row.setting}) by {-row.difference_ev:.4f} eV" for row in helps
        )
        said += "; elsewhere no gain can be told from chance." if len(helps) < len(pairs) else "."
    else:
        said = (
            "Topology adds nothing that can be told from chance: class and elements by slot already tell what Betti "
            "curves tell."
        )
    if harms:
        said += f" It does harm to {', '.join(f'the {row.model} ({row.setting})' for row in harms)}."
    return (
        f"{said}\n\nErrors on slabs that were kept out, five folds, {n_sites} sites on {n_slabs} slabs. How much "
        "weight the curves get, and whether as a linear or a radial kernel, is chosen in inner folds; none is one of "
        "the choices."
    )


def _add_bars(found: Finding, features: BarFeatures, told: Sequence[Association], n_sites: int) -> None:
    significant = [a for a in told if a.q <= 0.05]
    found.number(
        "bars_with_energy",
        len(significant),
        "kinds of bars that go with the energy",
        note=f"of {len(told)} tried, false discoveries held to 5 %",
    )
    rows = [
        {
            "direction": features.direction[a.column],
            "dimension": features.dimension[a.column],
            "zone": features.zone[a.column],
            "measure": features.measure[a.column],
            **{name: value for name, value in a.__dict__.items() if name != "column"},
        }
        for a in told
    ]
    found.section(
        "Which bars go with the energy",
        f"{n_sites} sites. A bar is placed by the innermost atom on a cycle that carries it, one of many such cycles. "
        "Within: what is left when both are taken relative to their class; between: means of classes, which differ in "
        "much besides. A correlation is no cause: the arrows follow the elements, and these make the energy.",
    ).table("bars.csv", rows, _BAR_COLUMNS, "The strongest first.", most=25)
