"""What the latent space of a PGH-VAE holds, and where."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalysis.checks import ENERGY_KEY, check_sites
from catalysis.commands._model_page import warn_of
from catalysis.commands._options import (
    BUNDLED,
    Data,
    EnergyKey,
    Facet,
    Kind,
    Quick,
    TrainedModel,
    data_files,
    load_sites,
)
from interpretkit.commandline import Column, Device, Finding, Here, Quiet, Seed, command
from interpretkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from matplotlib.figure import Figure

    from catalysis.models.site_model import SiteModel
    from catalysis.structure.sites import Site
    from catalysis.studies.latent import Codes, Factor, Probe, Step, Surface
    from interpretkit.disentanglement.table import ScoreTable

_MOST_DIMENSIONS = 16  # columns of a heat map
_MOST_TRAVERSALS = 6

_PROBE_COLUMNS = {
    "channel": Column("of the latent space"),
    "factor": Column("physical quantity"),
    "skill": Column("of a linear probe on the channel, on unseen slabs; 0 chance, 1 perfect", format=".2f"),
    "low": Column(
        "lower end of its 95 % interval, by bootstrap over slabs", heading="95 % from", format=".2f"
    ),
    "high": Column("upper end", heading="95 % to", format=".2f"),
    "control": Column("largest skill of the same probe for shuffled values", format=".2f"),
    "dimension": Column("the one dimension that tells most"),
    "dimension_skill": Column("its skill alone", heading="alone", format=".2f"),
    "information": Column("its mutual information with the factor, over the factor's entropy", format=".2f"),
    "chance": Column("the largest that any dimension has with shuffled values", format=".2f"),
    "verdict": Column("what carries the factor: one dimension, a direction, or nothing linear"),
}
_PROBE_FIRST = ("channel", "factor", "verdict")
_SCORE_COLUMNS = {
    "codes": Column("which channel, on the factors that belong to it; or both, on all"),
    "metric": Column("score"),
    "part": Column("of the metric"),
    "value": Column("of these codes", format=".3f", between=("floor", "ceiling")),
    "low": Column("lower end of the 95 % interval", heading="95 % from", format=".3f"),
    "high": Column("upper end", heading="95 % to", format=".3f"),
    "floor": Column("of noise", format=".3f"),
    "ceiling": Column("of the exact factors", format=".3f"),
}
_ABLATION_COLUMNS = {
    "inputs": Column("the channels that are left"),
    "head_ev": Column("error of the network's own head, the other channel at its mean", "eV", "head", ".3f"),
    "refitted_ev": Column("of a kernel regression fitted anew on what is left", "eV", "refitted", ".3f"),
    "low_ev": Column("that less the one of both, lower end of the 95 % interval", "eV", "95 % from", "+.3f"),
    "high_ev": Column("upper end", "eV", "95 % to", "+.3f"),
}
_STEP_COLUMNS = {
    "traversal": Column("channel, and the dimension or direction that is moved along"),
    "position": Column("from the start, in standard deviations of the codes", format="+.2f"),
    "site_class": Column("class of the likeliest site", heading="class"),
    "coordination": Column("coordination numbers of its contacts"),
    "contacts": Column("elements of its contacts"),
    "changed_slots": Column("share of slots with another element than at the start", format=".0%"),
    "energy_ev": Column("energy of the head at that point", "eV", "energy", "+.3f"),
}


@command(
    out="latent",
    example=[
        "interpretkit catalyst latent",
        "interpretkit catalyst latent --model model --data my-sites.extxyz",
    ],
)
def latent(
    data: Data = BUNDLED,
    model_folder: TrainedModel = "",
    quick: Quick = False,
    energy_key: EnergyKey = ENERGY_KEY,
    facet: Facet = "",
    kind: Kind = "",
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> Finding:
    """Read the latent space: which dimension or direction of which channel carries which physical quantity.

    With the bundled data the model that ships with the package is read; with --data of your own a model is trained
    first, unless --model names one. Probes are measured on slabs that the network has not seen, beside controls.
    """
    check_sites(data, "--data", energy_key=energy_key, facet=facet, kind=kind)
    if model_folder and not Path(model_folder).is_dir():
        raise InputError(f"--model {model_folder}: no such folder; expected what `catalyst train` wrote")
    if quick and (model_folder or data == BUNDLED):
        raise InputError("--quick: nothing is trained; expected --data with sites of your own and no --model")
    import numpy as np

    from catalysis.energies.training_data import check_training_data, slab_groups
    from catalysis.models.site_model import SHIPPED, SiteModel, train_model
    from catalysis.studies.latent import (
        channel_ablation,
        encode,
        energy_surface,
        physical_factors,
        probes,
        scores,
        split,
    )
    from interpretkit.runs.progress import progress
    from interpretkit.training import resolve_device

    where = str(resolve_device(device))
    sites = load_sites(data, energy_key=energy_key, facet=facet, kind=kind, require_energies=True)
    energies = check_training_data(sites, None)
    if model_folder or data == BUNDLED:
        model = SiteModel.load(model_folder or SHIPPED, where)
    else:
        model = train_model(sites, seed=seed, device=where, quick=quick, quiet=quiet)
    codes = encode(model.vae, sites)
    factors = physical_factors(sites, energies)
    train, test, unseen = split(sites, model.sites.site_id[~model.sites.held_out].tolist(), seed)
    slabs = slab_groups(sites)
    varying = {name: given for name, given in codes.by_channel.items() if given[train].std(0).max() > 1e-6}
    with progress("Reading the latent space", 4, quiet=quiet) as bar:
        bar.stage("probes")
        found_probes = probes(varying, factors, train, test, slabs, seed=seed)
        bar.advance()
        bar.stage("scores")
        found_scores = scores(varying, factors, seed=seed)
        bar.advance()
        bar.stage("one channel alone")
        ablated = channel_ablation(model.vae, codes, energies, train, test, slabs, seed=seed)
        bar.advance()
        bar.stage("surface and traversals")
        surface = energy_surface(model.vae, codes, energies)
        steps = _traversals(model, codes, found_probes, factors, energies)
        bar.advance()

    found = Finding(
        "What the latent space holds",
        f"What {len(model.vae.config.classes)} classes and {', '.join(model.vae.config.elements)} have become in "
        f"{codes.by_channel['coordination'].shape[1]} coordination and {codes.by_channel['ligand'].shape[1]} ligand "
        f"dimensions; probes learned on {len(train)} sites and measured on {len(test)} of other slabs.",
    ).reads(*data_files(data), *([model_folder] if model_folder else []))
    warn_of(found, model.numbers)
    if not unseen:
        found.warn("The network has seen the sites that the probes are measured on; skills may be too large.")
    for name in codes.by_channel:
        if name not in varying:
            found.warn(f"The {name} channel does not vary over these sites: nothing can be read from it.")
        found.number(
            f"active_{name}", int(codes.active[name].sum()), f"active dimensions, {name}", on_card=False
        )
    _add_explorer(found, sites, energies, codes, factors, seed)
    _add_probes(found, found_probes, factors)
    _add_information(found, varying, factors, found_probes, seed)
    _add_scores(found, found_scores)
    both = ablated[-1]
    section = found.section(
        "With one channel alone",
        "The head: the network's own, with the other channel at its mean. Refitted: a kernel regression that is given "
        "the remaining channel alone, which tells what is in it. On unseen slabs; the intervals are of the difference "
        "to both channels, slab by slab.",
    ).table("channels.csv", [row.__dict__ for row in ablated], _ABLATION_COLUMNS, in_terminal=True)
    for row in ablated:
        found.number(
            f"refitted_{row.inputs}_ev", row.refitted_ev, f"energy from {row.inputs}", unit="eV", format=".3f",
            note="mean absolute error on unseen slabs", on_card=row is not both,
        )  # fmt: skip
    section.figure(
        "surface.png",
        _surface_figure(surface, energies),
        "The head's energy over the directions of both channels that go most with the energy; points are sites, "
        "coloured by their given energies.",
    ).text(f"The two directions hold {surface.explained:.0%} of the head's energies (R²).")
    found.values["surface_r2"] = surface.explained
    _add_traversals(found, steps)
    found.arrays(
        "latent.npz",
        site_id=np.array([site.site_id for site in sites]),
        **{f"codes_{name}": given for name, given in codes.by_channel.items()},
        **{f"factor {factor.name}": factor.values for factor in factors},
        **{
            f"direction {probe.channel} {probe.factor}": probe.direction
            for probe in found_probes
            if probe.direction is not None
        },
        surface_ev=surface.energies_ev,
        surface_coordination=surface.coordination,
        surface_ligand=surface.ligand,
    )
    found.structures("traversals.extxyz", [step.site.to_atoms() for step in steps])
    found.next_step("Score the codes by other metrics:", "interpretkit scores --help")
    return found.next_step(
        "Fingerprint the sites of the traversals:",
        "interpretkit catalyst fingerprint",
        Here("traversals.extxyz"),
    )


def _add_explorer(
    found: Finding,
    sites: Sequence[Site],
    energies: np.ndarray,
    codes: Codes,
    factors: Sequence[Factor],
    seed: int,
) -> None:
    """Let a reader walk through the latent space: a map of its directions, each site in three dimensions."""
    import numpy as np

    from catalysis.commands._explore import MOST_SITES, Directions, energy_property, latent_properties
    from catalysis.exploring import explorer_of
    from interpretkit.visualization.instruments import Property

    rows = np.sort(np.random.default_rng(seed).permutation(len(sites))[:MOST_SITES])
    directions = Directions(codes.latent, energies)
    kept = [sites[row] for row in rows]
    properties = {
        "energy_ev": energy_property(energies[rows].tolist()),
        **latent_properties({channel: flat[rows] for channel, flat in directions.flat.items()}),
        **{
            "factor_" + "_".join(factor.name.split()): Property(factor.name, factor.values[rows].tolist())
            for factor in factors
            if factor.name not in ("energy", "class", "facet", "contact elements")
        },
    }
    flat, last = next(iter(directions.flat), ""), next(reversed(directions.flat), "")
    found.section(
        "Explore the latent space",
        "Each point is a site, placed by the directions of a channel that go most with the energy (partial least "
        "squares), or by any factor.",
    ).instrument(
        explorer_of(
            kept,
            properties,
            x=f"{flat}_1" if flat else "energy_ev",
            # A channel that holds geometry alone has few different points: the first of each says more.
            y=f"{last}_1" if last != flat else f"{flat}_2" if flat else "energy_ev",
            colour="energy_ev",
            file="latent",
        )
    )


def _add_probes(found: Finding, probes: Sequence[Probe], factors: Sequence[Factor]) -> None:
    """Show what can be read from which channel, and what carries it."""
    from catalysis.studies.latent import best_probe, rows_of

    names = [factor.name for factor in factors]
    best = [best_probe(probes, name) for name in names]
    counts = {
        verdict: sum(p.verdict == verdict for p in best)
        for verdict in ("one dimension", "a direction", "not linearly")
    }
    found.number(
        "carried_by_one_dimension",
        counts["one dimension"],
        "factors in one dimension",
        note=f"of {len(best)}",
    )
    found.number("carried_by_a_direction", counts["a direction"], "in a direction of several")
    found.number("not_readable", counts["not linearly"], "not linearly readable")
    strong = max(best, key=lambda probe: probe.skill)
    found.lead = (
        f"Of {len(best)} physical factors {counts['one dimension']} stand in one latent dimension each, "
        f"{counts['a direction']} in a direction of several, and {counts['not linearly']} cannot be read linearly; "
        f"read best is the {strong.factor}, with a skill of {strong.skill:.2f} in the {strong.channel} channel. "
    ) + found.lead
    crossed = [
        probe
        for probe, factor in ((p, f) for p in probes for f in factors if f.name == p.factor)
        if factor.belongs and factor.belongs != probe.channel and probe.is_readable
    ]
    found.values["readable_in_the_other_channel"] = [f"{p.factor} in {p.channel}" for p in crossed]
    told = [
        "Skill is the share of what chance leaves open (R² of a quantity; of labels, one less the error over that of "
        "the commonest label). A factor counts as readable from a skill of 0.3 on, if its interval lies above the "
        "control. One dimension carries it if that alone tells 0.8 of what the channel tells.",
    ]
    if crossed:
        told.append(
            "Readable in the channel that it does not belong to: "
            + ", ".join(f"{p.factor} ({p.channel}, {p.skill:.2f})" for p in crossed)
            + "."
        )
    section = found.section("What can be read", "\n\n".join(told))
    section.figure(
        "probes.png",
        _probes_figure(probes, names),
        "Skill of linear probes by channel, with intervals; hollow: the best single dimension; grey: the control.",
    )
    # The verdict first, and the numbers that it comes from behind it.
    order = [*_PROBE_FIRST, *(name for name in _PROBE_COLUMNS if name not in _PROBE_FIRST)]
    section.table("probes.csv", rows_of(probes), _PROBE_COLUMNS, shown=order)


def _probes_figure(probes: Sequence[Probe], names: Sequence[str]) -> Figure:
    from interpretkit.visualization import COLOURS, colour_of, new_figure, style

    channels = list(dict.fromkeys(probe.channel for probe in probes))
    with style():
        figure = new_figure(7.6, 0.42 * len(names) + 1.4)
        axis = figure.subplots()
        for number, channel in enumerate(channels):
            members = [probe for probe in probes if probe.channel == channel]
            height = [names.index(p.factor) + 0.28 * (number - (len(channels) - 1) / 2) for p in members]
            skill = [p.skill for p in members]
            axis.errorbar(
                skill,
                height,
                xerr=[
                    [max(0.0, p.skill - p.low) for p in members],
                    [max(0.0, p.high - p.skill) for p in members],
                ],
                fmt="o",
                color=colour_of(number),
                label=f"{channel} channel",
            )
            axis.plot(
                [p.dimension_skill for p in members],
                height,
                "o",
                mfc="white",
                color=colour_of(number),
                label=f"{channel}, best dimension",
            )
            axis.plot(
                [p.control for p in members],
                height,
                "|",
                color=COLOURS[6],
                label=None if number else "control",
            )
        axis.set_yticks(range(len(names)), list(names))
        axis.invert_yaxis()
        axis.set_xlim(-0.2, 1.02)
        axis.set_xlabel("skill on unseen slabs (0 chance, 1 perfect)")
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return figure


def _add_information(
    found: Finding,
    codes: Mapping[str, np.ndarray],
    factors: Sequence[Factor],
    probes: Sequence[Probe],
    seed: int,
) -> None:
    """Show the mutual information of dimensions and factors, of a wide channel the dimensions that tell most."""
    import numpy as np

    from catalysis.studies.latent import information
    from interpretkit.visualization import heatmap

    section = found.section(
        "Dimensions and factors",
        "Mutual information over the factor's entropy, counted in 20 bins of equally many sites; what shuffled values "
        "give by chance is in the table above.",
    )
    rows = []
    for channel, given in codes.items():
        varies = np.flatnonzero(given.std(0) > 1e-6)
        shared, _ = information(given[:, varies], factors, seed=seed)
        order = np.sort(np.argsort(-shared.max(1), kind="stable")[:_MOST_DIMENSIONS])
        section.figure(
            f"information-{channel}.png",
            heatmap(
                shared[order].T,
                [factor.name for factor in factors],
                [str(varies[k]) for k in order],
                label="mutual information / entropy",
                title=f"{channel} channel, by dimension",
            ),
            f"What dimensions of the {channel} channel tell of the factors"
            + (f" (the {len(order)} of {len(varies)} that tell most)." if len(order) < len(varies) else "."),
        )
        rows += [
            {
                "channel": channel,
                "dimension": int(dimension),
                **dict(zip([f.name for f in factors], row, strict=True)),
            }
            for dimension, row in zip(varies, shared.tolist(), strict=True)
        ]
    found.table("information.csv", rows)


def _add_scores(found: Finding, tables: Mapping[str, ScoreTable]) -> None:
    rows = [
        {"codes": name, **{key: row[key] for key in _SCORE_COLUMNS if key != "codes"}}
        for name, table in tables.items()
        for row in table.rows()
    ]
    from interpretkit.disentanglement.table import TITLES

    columns = _SCORE_COLUMNS | {"metric": Column("score", words=TITLES)}
    section = found.section(
        "Disentanglement",
        "The usual scores on physical factors, each between its floor (noise) and its ceiling (the exact factors). "
        "Factors that follow from each other, as the coordination number from the class, lower the ceiling.",
    ).table("scores.csv", rows, columns)
    warnings = {line for table in tables.values() for line in table.warnings()}
    for line in sorted(warnings):
        section.note(line)
    for name, table in tables.items():
        score = table["dci"]
        found.number(
            f"dci_{name}",
            score.value,
            f"DCI disentanglement, {name}",
            format=".2f",
            note=f"floor {score.floor:.2f}, ceiling {score.ceiling:.2f}",
            on_card=name != "both",
        )


def _surface_figure(surface: Surface, energies: np.ndarray) -> Figure:
    from interpretkit.visualization import new_figure, style

    with style():
        figure = new_figure(6.2, 4.6)
        axis = figure.subplots()
        low, high = float(energies.min()), float(energies.max())
        filled = axis.contourf(
            surface.coordination,
            surface.ligand,
            surface.energies_ev.clip(low, high),
            levels=24,
            alpha=0.75,
            vmin=low,
            vmax=high,
        )
        axis.scatter(
            *surface.points.T, c=energies, s=9, vmin=low, vmax=high, edgecolors="white", linewidths=0.3
        )
        figure.colorbar(filled, ax=axis, label="adsorption energy (eV)")
        axis.set_xlabel("coordination: direction that goes with the energy (σ)")
        axis.set_ylabel("ligands: direction that goes with it (σ)")
        axis.grid(False)
        return figure


def _traversals(
    model: SiteModel, codes: Codes, probes: Sequence[Probe], factors: Sequence[Factor], energies: np.ndarray
) -> list[Step]:
    """Decode traversals from the site in the middle of the energies, along what carries the factors best."""
    import numpy as np

    from catalysis.studies.latent import best_probe, traverse

    if not any(model.vae.config.templates):
        return []
    start = int(np.argmin(np.abs(energies - np.median(energies))))
    beginning = codes.latent.coordination[start], codes.latent.ligand[start]
    chosen: dict[str, tuple[str, np.ndarray]] = {}
    for factor in factors:
        probe = best_probe(probes, factor.name)
        given = codes.by_channel[probe.channel]
        if probe.verdict == "one dimension":
            name = f"{probe.channel} {probe.dimension}"
            way = np.eye(given.shape[1])[probe.dimension]
        elif probe.verdict == "a direction" and probe.direction is not None:
            name, way = f"{probe.channel}, {probe.factor}", probe.direction * given.std(0)
        else:
            continue
        if name not in chosen and len(chosen) < _MOST_TRAVERSALS:
            chosen[name] = probe.channel, way / np.linalg.norm(way)
    steps: list[Step] = []
    for name, (channel, way) in chosen.items():
        spread = float((codes.by_channel[channel] @ way).std())
        kind = "coordination" if channel == "coordination" else "ligand"
        steps += traverse(model.vae, beginning, kind, way, spread, name)
    return steps


def _add_traversals(found: Finding, steps: Sequence[Step]) -> None:
    if not steps:
        found.section("Traversals").note("None: no class has a template, or no factor is readable.")
        return
    from catalysis.commands._explore import energy_property
    from catalysis.exploring import explorer_of
    from catalysis.figures import site_gallery
    from interpretkit.visualization.instruments import Property

    section = found.section(
        "Traversals",
        "Points along one dimension or direction, all else held at the site with the median energy, decoded to the "
        "likeliest site: ideal geometry, likeliest element in each slot.",
    )
    section.figure("traversals.png", _traversal_figure(steps), "The head's energy along each traversal.")
    names = list(dict.fromkeys(step.name for step in steps))
    section.instrument(
        explorer_of(
            [step.site for step in steps],
            {
                "position": Property("position along it", [step.position for step in steps], "σ"),
                "energy_ev": energy_property([step.energy_ev for step in steps], "energy by the head"),
                "traversal": Property("traversal", [step.name for step in steps]),
                "changed_slots": Property("slots that changed", [step.changed_slots for step in steps]),
            },
            x="position",
            y="energy_ev",
            colour="traversal",
            groups=[step.name for step in steps],
            names=[f"{step.name}, {step.position:+.1f} σ" for step in steps],
            file="traversals",
        )
    ).text("Show one traversal alone, and go along it with the arrows.")
    for number, name in enumerate(names[:2], start=1):
        some = [step for step in steps if step.name == name][::2]
        section.figure(
            f"traversal-{number}.png",
            site_gallery(
                [step.site for step in some],
                [
                    f"{step.position:+.1f} σ: {step.site.site_class}\n"
                    f"{step.site.contact_elements}, {step.energy_ev:+.2f} eV"
                    for step in some
                ],
                columns=5,
            ),
            f"Decoded sites along {name}, seen from above and from the side.",
            on_page=False,
        )
    section.table("traversals.csv", [_step_row(step) for step in steps], _STEP_COLUMNS)


def _step_row(step: Step) -> dict[str, Any]:
    site: Site = step.site
    return {
        "traversal": step.name,
        "position": step.position,
        "site_class": site.site_class,
        "coordination": "-".join(map(str, site.coordination_numbers)),
        "contacts": site.contact_elements,
        "changed_slots": step.changed_slots,
        "energy_ev": step.energy_ev,
    }


def _traversal_figure(steps: Sequence[Step]) -> Figure:
    from interpretkit.visualization import colour_of, new_figure, style

    with style():
        figure = new_figure(7.0, 3.8)
        axis = figure.subplots()
        for number, name in enumerate(dict.fromkeys(step.name for step in steps)):
            some = [step for step in steps if step.name == name]
            axis.plot(
                [s.position for s in some],
                [s.energy_ev for s in some],
                "o-",
                color=colour_of(number),
                label=name,
            )
        axis.set_xlabel("position along the traversal (standard deviations)")
        axis.set_ylabel("energy of the head (eV)")
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return figure
