"""Very many sites: fingerprint, energy, uncertainty, selection."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalysis.checks import ENERGY_KEY, check_model, check_sites, check_window, facet_names
from catalysis.commands._model_page import warn_of
from catalysis.commands._options import (
    BUNDLED,
    Data,
    Embeddings,
    EnergyKey,
    Facet,
    FittedModel,
    Kind,
    data_files,
)
from catalysis.commands._teacher import load_teacher
from catalysis.potentials.embeddings import cost_line, embedding_names, get_embedding
from interpretkit.commandline import Column, Finding, Here, Quiet, Seed, command, listed
from interpretkit.errors import InputError
from interpretkit.runs.folder import Run
from interpretkit.runs.formatting import format_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from catalysis.energies.teacher import Teacher
    from catalysis.structure.sites import Site
    from catalysis.structure.templates import Template
    from catalysis.studies.screen import Screened
    from interpretkit.visualization.instruments import StructureExplorer

_N = 50_000
_MOST = (
    10**10
)  # a block of so many is two million sites; a hundred times as many would fill a worker's memory
_LEAST = 0.5
_SHOWN = 100  # of the likeliest sites
_ROWS = "sites.parquet"


@command(
    out="screened",
    example=[
        "interpretkit catalyst screen",
        "interpretkit catalyst screen --n 1000000 --composition Pt80Ru20 --facets 111",
        "interpretkit catalyst screen --n 1000000 --shards 4 --shard 0 --out part-0",
        "interpretkit catalyst screen --merge part-0,part-1,part-2,part-3",
    ],
)
def screen(
    run: Run,
    n: Annotated[int, typer.Option("--n", metavar="N", help="How many sites to draw.")] = _N,
    composition: Annotated[
        str,
        typer.Option(
            "--composition", metavar="ALLOY", help="Such as Pt80Ru20; else the model's metals alike."
        ),
    ] = "",
    facets: Annotated[
        str | None, typer.Option("--facets", metavar="HKL,...", help="Only these facets; all by default.")
    ] = None,
    target_ev: Annotated[
        float, typer.Option("--target-ev", metavar="EV", help="The wanted adsorption energy in eV.")
    ] = 0.1,
    window_ev: Annotated[
        float, typer.Option("--window-ev", metavar="EV", help="How far from it an energy may be, in eV.")
    ] = 0.1,
    least: Annotated[
        float,
        typer.Option(
            "--least", metavar="P", help="Select sites that lie in the window with this probability."
        ),
    ] = _LEAST,
    keep: Annotated[
        str, typer.Option("--keep", metavar="selected|all", help="Which sites' rows are written.")
    ] = "selected",
    shards: Annotated[
        int, typer.Option("--shards", metavar="S", help="Part the work into so many commands.")
    ] = 1,
    shard: Annotated[int, typer.Option("--shard", metavar="I", help="Which of them this is, from 0.")] = 0,
    merge: Annotated[
        str,
        typer.Option("--merge", metavar="DIR,...", help="Reduce the results of all shards; draw nothing."),
    ] = "",
    frames: Annotated[
        str,
        typer.Option("--frames", metavar="SITES", help="Screen these sites of your own; draw none."),
    ] = "",
    embeddings: Embeddings = "",
    workers: Annotated[
        int, typer.Option("--workers", metavar="W", help="Local processes; 0 for one per core.")
    ] = 0,
    dask: Annotated[
        str,
        typer.Option(
            "--dask", metavar="ADDRESS", help="Scheduler of a Dask cluster that does it (extra dask)."
        ),
    ] = "",
    data: Data = BUNDLED,
    model_folder: FittedModel = "",
    energy_key: EnergyKey = "adsorption_energy_eV",
    facet: Facet = "",
    kind: Kind = "",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> Finding:
    """Screen very many sites: fingerprint, energy, uncertainty, selection.

    Draws sites of an alloy, or reads your own, and judges each by the teacher. A command that was killed goes on
    where it stopped; shards run anywhere and are merged. Writes a Parquet file, the likeliest sites and a report.
    """
    check_window(target_ev, window_ev)
    _check(
        n=n, least=least, keep=keep, shards=shards, shard=shard, workers=workers, dask=dask,
        composition=composition, facets=facets, merge=merge, frames=frames,
    )  # fmt: skip
    reading = {"--facet": facet, "--kind": kind, "--energy-key": energy_key != ENERGY_KEY and energy_key}
    potentials = embedding_names(embeddings)
    if potentials and not frames:
        raise InputError("--embeddings: sites that are drawn have no places of atoms; expected --frames")
    if potentials and (model_folder or data == BUNDLED):
        raise InputError("--embeddings: nothing is trained; expected --data with sites of your own")
    if merge:
        _check_unused(
            "--merge: nothing is drawn or judged",
            {"--model": model_folder, "--data": data != BUNDLED and data, **reading},
        )
        return _merged(run, [Path(part) for part in listed(merge)])
    if frames:
        check_sites(frames, "--frames", energy_key=energy_key, facet=facet, kind=kind)
        reading = {}
    check_model(data, model_folder, facets=facets, elements=None, training=reading)
    if not model_folder:
        check_sites(data, "--data", energy_key=energy_key if not frames else ENERGY_KEY)
    if potentials:
        _check_first(frames, energy_key=energy_key, facet=facet, kind=kind)
        if not quiet:
            typer.echo(cost_line(potentials), err=True)
    teacher, numbers, read = load_teacher(
        data,
        model_folder,
        energy_key=energy_key,
        facet=facet,
        kind=kind,
        seed=seed,
        embeddings=potentials,
        quiet=quiet,
    )
    if frames:
        return _of_frames(
            run, frames, teacher, target_ev, window_ev, least, energy_key=energy_key, facet=facet, kind=kind,
            quiet=quiet,
        ).reads(*read, *data_files(frames))  # fmt: skip
    from catalysis.structure.surfaces import parse_composition
    from catalysis.studies.activity import Target
    from catalysis.studies.optimize import known_templates
    from catalysis.studies.screen import do_blocks, prepared, reduced
    from interpretkit.runs.progress import progress

    known = known_templates(teacher)
    wanted = list(known) if facets is None else list(facet_names(facets))
    for name in wanted:
        if name not in known:
            raise InputError(
                f"--facets: the model knows no facet {name}; expected some of {', '.join(known)}"
            )
    templates = [template for name in wanted for template in known[name]]
    alloy = parse_composition(composition or dict.fromkeys(teacher.elements, 1.0), "--composition")
    with progress("Tabulating the teacher", len(templates), quiet=quiet) as bar:
        ready = prepared(
            teacher, templates, alloy, Target(target_ev, window_ev), n,
            least_probability=least, keep="all" if keep == "all" else "selected", seed=seed, advance=bar.advance,
        )  # fmt: skip
    blocks = ready.plan.blocks(shards, shard)
    # What is done depends neither on who does it nor on how it is shared out.
    with run.kept(ready.plan.text(), without=("workers", "dask", "shards", "shard")) as work:
        with progress("Blocks of sites", len(blocks), quiet=quiet) as bar, _cluster(dask) as client:
            do_blocks(
                ready, blocks, work, workers=workers or len(_cores()), client=client, advance=bar.advance
            )
        if shards > 1:
            for number in blocks:
                name = f"block-{number:06d}.parquet"
                (work / name).replace(run.path(name))
        result = reduced([work if shards == 1 else run.folder], run.path(_ROWS), whole=shards == 1)
    found = _headline(result, teacher, templates, part=(shard, shards)).reads(*read)
    warn_of(found, numbers)
    if shards > 1:
        return found.next_step(
            "When all shards are done, reduce them:",
            "interpretkit catalyst screen --out merged --merge",
            ",".join(f"part-{k}" for k in range(shards)),
        )
    return _go_on(found, target_ev)


def _check(**given: Any) -> None:
    """Refuse numbers and names that cannot be, and options that would do nothing."""
    if not 1 <= given["n"] <= _MOST:
        raise InputError(f"--n: {given['n']}; expected at least 1 and at most {_MOST}")
    if not 0 < given["least"] <= 1:
        raise InputError(f"--least: {given['least']}; expected a probability above 0, up to 1")
    if given["keep"] not in ("selected", "all"):
        raise InputError(f"--keep {given['keep']}: expected selected or all")
    if given["shards"] < 1:
        raise InputError(f"--shards: {given['shards']}; expected at least 1")
    if not 0 <= given["shard"] < given["shards"]:
        raise InputError(f"--shard: {given['shard']}; expected 0 to {given['shards'] - 1}")
    if given["workers"] < 0:
        raise InputError(f"--workers: {given['workers']}; expected 0 (one per core) or more")
    if given["dask"] and given["workers"]:
        raise InputError("--workers and --dask: expected one of them, local processes or a cluster")
    if given["merge"] and given["frames"]:
        raise InputError("--merge and --frames: expected one of them")
    if given["composition"]:
        from catalysis.structure.surfaces import parse_composition

        parse_composition(given["composition"], "--composition")
    if given["facets"] is not None:
        facet_names(given["facets"])
    drawing = {
        "--n": given["n"] != _N and given["n"],
        "--composition": given["composition"],
        "--facets": given["facets"],
        "--keep": given["keep"] != "selected" and given["keep"],
        "--shards": given["shards"] > 1 and given["shards"],
        "--dask": given["dask"],
        "--workers": given["workers"],
    }
    if given["frames"]:
        _check_unused("--frames: nothing is drawn", drawing)
    if given["merge"]:
        _check_unused("--merge: nothing is drawn", drawing)
        if not listed(given["merge"]):
            raise InputError(
                f"--merge {given['merge']!r}: names none; expected folders such as part-0,part-1"
            )
        for part in listed(given["merge"]):
            if not Path(part).is_dir():
                raise InputError(
                    f"--merge {part}: no such folder; expected what `catalyst screen --shards` wrote"
                )
    if given["dask"]:
        from interpretkit.runs.environment import is_installed

        if not is_installed("distributed"):
            raise InputError("--dask: dask.distributed is not installed; expected the extra dask")


def _check_unused(why: str, options: dict[str, Any]) -> None:
    for option, value in options.items():
        if value:
            raise InputError(f"{why}; expected no {option}")


def _cores() -> Sequence[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)


def _cluster(address: str) -> Any:
    """Return a context that gives a client of a Dask cluster, or None."""
    import contextlib

    if not address:
        return contextlib.nullcontext()
    import socket

    from distributed import Client
    from distributed.comm.addressing import get_address_host_port

    try:
        # A client that finds nobody goes on trying behind the scenes, and complains at the end.
        socket.create_connection(get_address_host_port(address), timeout=20).close()
        return Client(address, timeout=20, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--dask {address}: no scheduler there ({error}); expected tcp://HOST:PORT"
        ) from error


def _merged(run: Run, folders: list[Path]) -> Finding:
    from catalysis.studies.screen import reduced

    result = reduced(folders, run.path(_ROWS))
    return _go_on(_headline(result, None, _templates_of(result)).reads(*folders), result.plan.target_ev)


def _templates_of(result: Screened) -> list[Template]:
    from catalysis.structure.templates import facet_templates

    found = []
    for facet, key in result.plan.templates:
        found += [t for templates in facet_templates(facet).values() for t in templates if t.key == key]
    return found


def _go_on(found: Finding, target_ev: float) -> Finding:
    found.next_step(
        "Check the likeliest with an interatomic potential (install the extra mlip):",
        "interpretkit catalyst label --out checked",
        Here("likeliest.extxyz"),
    )
    return found.next_step(
        "Ask which composition has the most such sites:",
        "interpretkit catalyst optimize --out optimum --target-ev",
        f"{target_ev:g}",
    )


def _headline(
    result: Screened, teacher: Teacher | None, templates: Sequence[Template], part: tuple[int, int] = (0, 1)
) -> Finding:
    import numpy as np

    from catalysis.fingerprints import GRID
    from catalysis.structure.site_counts import sites_per_nm2
    from catalysis.studies.composition import composition_text
    from catalysis.studies.screen import HISTOGRAM_EV, likeliest, symbols_of
    from interpretkit.visualization import heatmap

    plan = result.plan
    drawn, selected = int(result.drawn.sum()), int(result.selected.sum())
    name = composition_text(np.array(plan.shares), plan.elements)
    of_shard = f", shard {part[0]} of {part[1]}" if part[1] > 1 else ""
    found = Finding(
        f"{format_number(drawn)} sites of {name} screened",
        f"{format_number(selected)} of them lie within {plan.target_ev:+.2f} ± {plan.window_ev:.2f} eV with a "
        f"probability of at least {plan.least_probability:g}; of all, {result.expected.sum() / drawn:.2%} are expected "
        f"there. Drawn from {len(plan.templates)} class{'es' * (len(plan.templates) != 1)}{of_shard}, "
        "each equally often.",
    )
    found.number("n_sites", drawn, "sites screened")
    found.number(
        "n_distinct",
        int(result.distinct.sum()),
        "distinct sites",
        note="symmetric copies of a block counted once",
    )
    found.number(
        "n_selected",
        selected,
        "sites selected",
        note=f"of those drawn; in the window with a probability of at least {plan.least_probability:g}",
    )
    found.number("n_rows", result.kept, "rows written", note=f"distinct sites in `{_ROWS}`", on_card=False)
    found.number(
        "share_in_window",
        float(result.expected.sum() / drawn),
        "expected share in the window",
        format=".2%",
        note="of the sites drawn",
    )
    share, error = result.shares()
    rows = []
    for k, template in enumerate(templates):
        density = sites_per_nm2(template.facet, template.site.kind).get(template.key, float("nan"))
        rows.append(
            {
                "facet": template.facet,
                "class": template.key,
                "drawn": int(result.drawn[k]),
                "distinct": int(result.distinct[k]),
                "selected": int(result.selected[k]),
                "share": float(share[k]),
                "share_error": float(error[k]),
                "per_nm2": density,
            }
        )
    columns = {
        "facet": Column("where it is"),
        "class": Column("facet, kind, coordination numbers of the contacts"),
        "drawn": Column("how many sites were drawn"),
        "distinct": Column("of them, symmetric copies of a block counted once"),
        "selected": Column("how many of the drawn are selected"),
        "share": Column("expected share in the window", format=".2%"),
        "share_error": Column("its standard error from the number of sites, at most", "", "±", ".2%"),
        "per_nm2": Column("sites of the class on its facet", "1/nm²", "density", ".1f"),
    }
    found.section("By class").table("classes.csv", rows, columns, in_terminal=True)
    # Bins that hold nothing at either end say nothing.
    filled = np.flatnonzero(result.histogram.sum(0))
    span = slice(int(filled[0]), int(filled[-1]) + 1)
    density = result.histogram[:, span] / np.maximum(result.drawn, 1)[:, None]
    found.section("Energies").figure(
        "energies.png",
        heatmap(
            100 * density,
            [key for _, key in plan.templates],
            [f"{edge:+.2f}" if k % 4 == 0 else "" for k, edge in enumerate(HISTOGRAM_EV[:-1][span])],
            label="sites (%)",
            annotate=False,
        ),
        "Energies of the sites of each class, in bins of 0.05 eV by their lower edges (eV); the outermost hold what is "
        "beyond.",
    )
    found.arrays(
        "summary.npz",
        classes=[key for _, key in plan.templates],
        energy_edges_ev=HISTOGRAM_EV,
        histogram=result.histogram,
        grid_angstrom=GRID,
        mean_curves=result.curves,
        mean_curves_selected=result.curves_selected,
        expected_in_window=result.expected,
    )
    _add_likeliest(found, result, templates, likeliest(result, _SHOWN), symbols_of)
    adsorbate = teacher.adsorbate if teacher is not None else templates[0].site.adsorbate if templates else ""
    found.values["adsorbate"] = adsorbate
    found.section(
        "What the file holds",
        f"`{_ROWS}` is a Parquet file with a row for each distinct site that was kept: `template` (its number in the "
        "table by class, from 0), `occupation` (a byte for each slot of the template, pointing to the elements in "
        f"alphabetical order: {', '.join(plan.elements)}), `copies`, `energy_ev`, `deviation_ev`, `probability`, and "
        "`betti_curves` "
        "(β0, β1, β2 at 40 thresholds each, directed by elements).",
    )
    return found


def _add_likeliest(
    found: Finding, result: Screened, templates: Sequence[Template], best: Any, symbols_of: Any
) -> None:
    rows: list[dict[str, Any]] = []
    sites = []
    for rank, row in enumerate(best.to_pylist(), start=1):
        template = templates[row["template"]]
        site = template.decorate(
            symbols_of(row["occupation"], result.plan),
            site_id=f"screened-{rank:03d}",
            slab_id=f"screened-{rank:03d}",
        )
        sites.append(site)
        rows.append(
            {
                "site_id": site.site_id,
                "rank": rank,
                "facet": template.facet,
                "class": template.key,
                "contacts": site.contact_elements,
                "energy_ev": row["energy_ev"],
                "deviation_ev": row["deviation_ev"],
                "probability": row["probability"],
                "copies": row["copies"],
                "composition": "".join(f"{s}{site.symbols.count(s)}" for s in sorted(set(site.symbols))),
            }
        )
    columns = {
        "site_id": Column("the site; opens it in the map above", heading="site"),
        "rank": Column("1 for the likeliest"),
        "facet": Column("where it is"),
        "class": Column("facet, kind, coordination numbers of the contacts"),
        "contacts": Column("elements of the metals that bind the adsorbate"),
        "energy_ev": Column("energy predicted by the teacher", "eV", "energy", "+.3f"),
        "deviation_ev": Column("its standard deviation", "eV", "±", ".3f"),
        "probability": Column("of lying in the window", format=".3f"),
        "copies": Column("how often it was drawn"),
        "composition": Column("of which elements"),
    }
    section = found.section("The likeliest", "Of the sites written, those likeliest to lie in the window.")
    if sites:
        section.instrument(_explorer(sites, rows))
        found.structures("likeliest.extxyz", [site.to_atoms() for site in sites])
    section.table("likeliest.csv", rows, columns, most=20, opens=bool(sites))
    if not sites:
        section.warning("No site was selected. Widen the window, lower --least, or draw more sites.")


def _explorer(sites: Sequence[Site], rows: Sequence[dict[str, Any]]) -> StructureExplorer:
    from catalysis.commands._explore import energy_property, share_properties
    from catalysis.exploring import explorer_of
    from interpretkit.visualization.instruments import Property

    properties = {
        "energy_ev": energy_property([row["energy_ev"] for row in rows], "energy, predicted"),
        "deviation_ev": Property("its standard deviation", [row["deviation_ev"] for row in rows], "eV"),
        "probability": Property("probability of the window", [row["probability"] for row in rows]),
        **share_properties(sites),
    }
    return explorer_of(
        sites, properties, x="energy_ev", y="probability", colour="contact_elements", file="likeliest"
    )


def _check_first(frames: str, *, energy_key: str, facet: str, kind: str) -> None:
    """Refuse frames of which the first is no site, before the sites to learn from are described, which takes long."""
    if frames == BUNDLED:
        return
    from catalysis.structure.reading import iterate_structures
    from catalysis.structure.user_sites import site_from_structure

    first = next(iter(iterate_structures(frames, energy_key=energy_key)), None)
    if first is None:
        raise InputError(f"--frames {frames}: none read; expected at least one site")
    site_from_structure(
        first.atoms, where=first.where, facet=facet or None, kind=kind or None, energy_key=energy_key
    )


def _looks_at(teacher: Teacher) -> str:
    if not teacher.embeddings:
        return "The teacher judges class and elements, not relaxed positions."
    sources = " and ".join(get_embedding(name).source for name in teacher.embeddings)
    return f"The teacher looks at places of atoms, through {sources}."


def _of_frames(
    run: Run,
    frames: str,
    teacher: Teacher,
    target_ev: float,
    window_ev: float,
    least: float,
    *,
    energy_key: str,
    facet: str,
    kind: str,
    quiet: bool,
) -> Finding:
    import time
    from dataclasses import replace

    import numpy as np

    from catalysis.exploring import different_names
    from catalysis.studies.activity import Target
    from catalysis.studies.frames import screen_frames
    from catalysis.studies.screen import digest_of
    from interpretkit.runs.progress import progress

    if frames == BUNDLED:
        from catalysis.data import load_bundled

        source = load_bundled()
    else:
        from catalysis.structure.reading import iterate_structures

        source = iterate_structures(frames, energy_key=energy_key)
    target = Target(target_ev, window_ev)
    began = time.perf_counter()
    with (
        run.kept(digest_of(teacher), files=data_files(frames), without=("least",)) as work,
        progress("Sites", None, quiet=quiet) as bar,
    ):
        screened = screen_frames(
            source, teacher, target, run.path(_ROWS), facet=facet, kind=kind, energy_key=energy_key,
            shown=_SHOWN, kept=work, advance=bar.advance,
        )  # fmt: skip
    taken = time.perf_counter() - began
    table = screened.table
    probability = table["probability"].to_numpy()
    chosen = np.flatnonzero(probability >= least)
    order = chosen[np.argsort(-probability[chosen], kind="stable")]
    matched = table["matched"].to_numpy(zero_copy_only=False)
    found = Finding(
        f"{format_number(len(table))} sites of your own screened",
        f"{format_number(len(chosen))} of them lie within {target_ev:+.2f} ± {window_ev:.2f} eV with a probability of "
        f"at least {least:g}; of all, {probability.mean():.2%} are expected there. "
        f"{_looks_at(teacher)}",
    )
    found.number("n_sites", len(table), "sites screened")
    found.number(
        "n_selected",
        len(chosen),
        "sites selected",
        note=f"in the window with a probability of at least {least:g}",
    )
    found.number("share_in_window", float(probability.mean()), "expected share in the window", format=".2%")
    found.number("ms_per_site", 1e3 * taken / len(table), "time per site", unit="ms", on_card=False)
    if not matched.all():
        found.warn(
            f"{int((~matched).sum())} sites match no template: their slots go by distance, and their energies are "
            "less sure than said"
        )
    columns = {
        "site_id": Column("the site; opens it in the map above", heading="site"),
        "slab_id": Column("its slab"),
        "facet": Column("where it is"),
        "site_class": Column("its class", heading="class"),
        "contacts": Column("elements of the metals that bind the adsorbate"),
        "given_ev": Column("the energy that the frame holds", "eV", "given", "+.3f"),
        "energy_ev": Column("energy predicted by the teacher", "eV", "energy", "+.3f"),
        "deviation_ev": Column("its standard deviation", "eV", "±", ".3f"),
        "probability": Column("of lying in the window", format=".3f"),
        "matched": Column("whether it was matched to a template"),
    }
    rows = table.take(order).to_pylist()
    for row, name in zip(rows, different_names([row["site_id"] for row in rows]), strict=True):
        row["site_id"] = name
    section = found.section(
        "Selected sites",
        f"`{_ROWS}` holds all sites with their Betti curves; here are those selected, the likeliest first.",
    )
    # Both are in the order of probability, so that the sites are those of the first rows.
    sites = [site for (_, site), _ in zip(screened.likeliest, rows, strict=False)]
    if sites:
        sites = [replace(site, site_id=row["site_id"]) for site, row in zip(sites, rows, strict=False)]
        section.instrument(_explorer(sites, rows[: len(sites)]))
        found.structures("likeliest.extxyz", [site.to_atoms() for site in sites])
    section.table("selected.csv", rows, columns, most=50, opens=bool(sites))
    if not rows:
        section.warning("No site was selected. Widen the window, or lower --least.")
    return found.next_step(
        "Design sites with that energy:",
        "interpretkit catalyst design --out designs --target-ev",
        f"{target_ev:g}",
        "--window-ev",
        f"{window_ev:g}",
    )
