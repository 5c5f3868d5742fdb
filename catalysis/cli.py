"""Inverse design of catalytic sites: from slabs and energies to sites with a wanted energy."""

# Heavy packages are imported inside the commands, so that the list of commands and their help come at once.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalysis.checks import (
    ENERGY_KEY,
    KINDS,
    SUMMARIES,
    check_design,
    check_evaluate,
    check_label,
    check_sites,
    element_names,
    facet_names,
    some_of,
)
from interpretkit.command import Device, Out, Quiet, Seed, application, command
from interpretkit.errors import InputError
from interpretkit.invocation import quoted

if TYPE_CHECKING:
    from catalysis.sites import Site

app = application("Inverse design of catalytic sites.")

BUNDLED = "bundled"

Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="SITES",
        help="Sites with energies: a file or folder that ASE reads, or 'bundled'.",
    ),
]
Structures = Annotated[
    str,
    typer.Argument(
        metavar="SITES", help="A file or folder that ASE reads (extxyz, db, POSCAR, CIF ...), or 'bundled'."
    ),
]
EnergyKey = Annotated[
    str,
    typer.Option("--energy-key", metavar="NAME", help="The entry of a frame's info with the energy in eV."),
]
Facet = Annotated[
    str, typer.Option("--facet", metavar="HKL", help="Facet of all structures; else read from their info.")
]
Kind = Annotated[
    str,
    typer.Option(
        "--kind", metavar="top|bridge|hollow", help="Kind of all sites; else told by the distances."
    ),
]
Kinds = Annotated[
    str,
    typer.Option("--kinds", metavar="KIND,...", help="Sites to find on clean slabs: top, bridge, hollow."),
]
Placed = Annotated[
    str,
    typer.Option("--adsorbate", metavar="NAME", help="What to place on clean slabs, such as OH or CO."),
]
Quick = Annotated[
    bool,
    typer.Option(
        "--quick", help="Train for a few short epochs, to see that everything runs; the VAE will be poor."
    ),
]


def _summary(result: Mapping[str, Any]) -> None:
    """Print a result, and loudly why not to trust it, if there is a reason."""
    from catalysis.trust import print_with_trust

    print_with_trust(result)


def load_sites(
    source: str,
    *,
    energy_key: str,
    facet: str = "",
    kind: str = "",
    require_energies: bool = False,
    find_kinds: Sequence[str] = (),
    find_adsorbate: str = "OH",
) -> list[Site]:
    """Return the sites of a file or folder, or the bundled ones.

    With `find_kinds`, every such site is found on clean slabs.

    Raises
    ------
    InputError
        See `catalysis.sites.read_sites`.
    """
    if source == BUNDLED:
        from catalysis.data import load_bundled

        return load_bundled()
    from catalysis.sites import read_sites

    return read_sites(
        source,
        facet=facet or None,
        kind=kind or None,
        energy_key=energy_key,
        require_energies=require_energies,
        find_kinds=find_kinds,
        find_adsorbate=find_adsorbate,
    )


def load_lost(data: str, source: str, *, energy_key: str, facet: str, kind: str) -> list[Site]:
    """Return the sites that the adsorbate left: of the file or folder given, else those that belong to the data."""
    if source:
        return load_sites(source, energy_key=energy_key, facet=facet, kind=kind)
    if data == BUNDLED:
        from catalysis.data import load_bundled_lost

        return load_bundled_lost()
    return []


def data_files(*sources: str) -> list[Path]:
    """Return the files that a source stands for, whose hashes the manifest keeps."""
    from catalysis.data import BUNDLED as BUNDLED_FILE

    files: list[Path] = []
    for source in sources:
        path = BUNDLED_FILE if source == BUNDLED else Path(source)
        files += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return files


@command(
    app,
    "label",
    example=[
        "interpretkit catalyst label slabs/ --out labelled",
        "interpretkit catalyst label clean-slab.cif --kinds bridge,hollow --adsorbate O --out labelled",
    ],
)
def label(
    structures: Structures,
    out: Out = Path("labelled"),
    calculator: Annotated[
        str, typer.Option("--calculator", metavar="chgnet|emt", help="The interatomic potential.")
    ] = "chgnet",
    kinds: Kinds = "bridge",
    adsorbate: Placed = "OH",
    facet: Facet = "",
    absolute: Annotated[
        bool,
        typer.Option("--absolute", help="Keep E(slab+adsorbate) - E(slab) instead of subtracting Pt(111)."),
    ] = False,
    free: Annotated[
        bool,
        typer.Option("--free", help="Let the adsorbate leave the plane midway between two bridge metals."),
    ] = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Label slabs with adsorption energies from an interatomic potential.

    On clean slabs every site is found and labelled; on slabs with an adsorbate, its site. The metals are held
    fixed and the adsorbate is relaxed. Energies are relative to the (111) bridge of platinum. A run that is
    interrupted goes on where it stopped when it is started again. CHGNet comes with the extra mlip; emt, which knows a
    few metals and serves for trials, is always there.
    """
    check_label(structures, calculator, kinds)
    from catalysis.adsorbates import get_adsorbate
    from catalysis.labelling import (
        LEVELS_OF_THEORY,
        bridge_reference,
        calculator_digest,
        label_structures,
        make_calculator,
    )
    from catalysis.sites import read_structures
    from interpretkit.results import kept_until_done, run_folder
    from interpretkit.training.device import resolve_device

    if structures == BUNDLED:
        raise InputError("SITES: 'bundled' is labelled already; expected a file or folder of slabs")
    get_adsorbate(adsorbate, "--adsorbate")
    frames = list(read_structures(structures))
    if facet:
        for _, _, atoms in frames:
            atoms.info["facet"] = facet
    arguments = {
        "sites": structures, "calculator": calculator, "kinds": kinds, "adsorbate": adsorbate,
        "facet": facet, "absolute": absolute, "free": free,
    }  # fmt: skip
    files = data_files(structures)
    where = resolve_device(device)
    potential = make_calculator(calculator, str(where))
    same = [arguments, where.type, calculator_digest(potential)]
    with (
        run_folder(out, command="catalyst label", arguments=arguments, data=files) as run,
        kept_until_done(out, same, files) as work,
    ):
        references: dict[str, float] = {}

        def reference(name: str) -> float:
            # Of the adsorbate that a slab carries, whatever would be placed on clean ones.
            if name not in references:
                references[name] = 0.0 if absolute else bridge_reference(potential, name)
            return references[name]

        atoms, starts, rows = label_structures(
            frames,
            potential,
            kinds=some_of(KINDS, kinds, "--kinds"),
            adsorbate=adsorbate,
            reference_ev=reference,
            hold_bridge=not free,
            journal=work / "labels.jsonl",
            quiet=quiet,
        )
        from ase.io import write

        usable = [frame for frame, row in zip(atoms, rows, strict=True) if row["usable"]]
        if not usable:
            raise InputError(
                f"SITES: none of {len(rows)} adsorbates stayed on its site; expected at least one (see --free)"
            )
        write(run.path("sites.extxyz"), usable)
        lost = [
            original
            for original, row in zip(starts, rows, strict=True)
            if row["converged"] and not row["usable"]
        ]
        if lost:
            write(run.path("lost.extxyz"), lost)
        run.save_table("labels.csv", rows)
        run.summary.update(
            n_structures=len(frames),
            n_labelled=len(rows),
            n_usable=len(usable),
            reference_ev={row["adsorbate"]: row["reference_ev"] for row in rows},
            level_of_theory=LEVELS_OF_THEORY[calculator],
        )
        if not all(frame.info.get("facet") for frame in usable):
            run.summary["warnings"] = [
                "no facet is known of some slabs: give --facet or info['facet'], for without it a site matches no "
                "template and no slab can be designed"
            ]
    onwards = ["interpretkit", "catalyst", "train", "--data", out / "sites.extxyz"]
    if lost:
        onwards += ["--lost", out / "lost.extxyz"]
    return {**run.summary, "out": out, "next": quoted(*onwards)}


@command(
    app,
    "fingerprint",
    example=[
        "interpretkit catalyst fingerprint bundled --out fingerprints",
        "interpretkit catalyst fingerprint my-slabs/ --facet 111 --summaries entropy,landscape",
        "interpretkit catalyst fingerprint clean-slab.cif --kinds hollow --adsorbate O",
    ],
)
def fingerprint(
    structures: Structures,
    out: Out = Path("fingerprints"),
    facet: Facet = "",
    kind: Kind = "",
    summaries: Annotated[
        str,
        typer.Option(
            "--summaries", metavar="NAME,...", help="Also: entropy, silhouette, landscape (by gudhi)."
        ),
    ] = "",
    properties: Annotated[
        bool, typer.Option("--properties", help="Also the elements' properties in every slot.")
    ] = False,
    kinds: Kinds = "bridge",
    adsorbate: Placed = "OH",
    energy_key: EnergyKey = "adsorption_energy_eV",
) -> dict[str, Any]:
    """Turn sites into fingerprints: Betti curves by persistent path homology, and elements by slot.

    On clean slabs every site of the kinds named is found. Writes fingerprints.npz: the coordination channel (Betti
    curves of the geometry), the published curves (arrows directed by elements), and the ligand channel; bars.csv lists
    every bar of the first site with the atoms on a cycle that carries it.
    """
    check_sites(structures, "SITES", energy_key=energy_key, facet=facet, kind=kind)
    some_of(SUMMARIES, summaries, "--summaries", or_none=True)
    found_kinds = some_of(KINDS, kinds, "--kinds")
    from catalysis.adsorbates import get_adsorbate

    get_adsorbate(adsorbate, "--adsorbate")
    from catalysis.fingerprints import fingerprints
    from catalysis.reports import bar_table, fingerprint_report
    from interpretkit.results import run_folder

    sites = load_sites(
        structures,
        energy_key=energy_key,
        facet=facet,
        kind=kind,
        find_kinds=found_kinds,
        find_adsorbate=adsorbate,
    )
    arguments = {
        "sites": structures, "facet": facet, "kind": kind, "summaries": summaries, "properties": properties,
        "kinds": kinds, "adsorbate": adsorbate,
    }  # fmt: skip
    files = data_files(structures)
    with run_folder(out, command="catalyst fingerprint", arguments=arguments, data=files) as run:
        found = fingerprints(
            sites,
            summaries=tuple(name.strip() for name in summaries.split(",") if name.strip()),
            properties=properties,
        )
        run.save_arrays("fingerprints.npz", **found.arrays())
        run.save_table("bars.csv", bar_table(sites[0]))
        report = fingerprint_report(
            sites,
            found,
            command=quoted("interpretkit", "catalyst", "fingerprint", structures),
            data=files,
            out=out,
        )
        report.save(run.path("report.html"))
        run.summary.update(
            n_sites=len(sites),
            n_classes=len(set(found.site_classes)),
            n_aligned=int(found.ligands.aligned.sum()),
        )
    return {**run.summary, "out": out}


@command(
    app,
    "train",
    example=[
        "interpretkit catalyst train --out model",
        "interpretkit catalyst train --data my-sites.extxyz --energy-key E_ads --out model",
    ],
    summary=_summary,
)
def train(
    data: Data = BUNDLED,
    out: Out = Path("model"),
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
) -> dict[str, Any]:
    """Train the energy model and the PGH-VAE on sites with energies.

    A share of the slabs is kept out of both to measure them. The folder serves `design --model`.
    """
    _check_share(held_out, "--held-out")
    check_sites(data, "--data", energy_key=energy_key, facet=facet, kind=kind)
    if lost:
        check_sites(lost, "--lost")
    from catalysis.model import train_model
    from catalysis.reports import train_report
    from catalysis.trust import trust_warnings
    from interpretkit.results import run_folder

    sites = load_sites(data, energy_key=energy_key, facet=facet, kind=kind, require_energies=True)
    left = load_lost(data, lost, energy_key=energy_key, facet=facet, kind=kind)
    arguments = {
        "data": data, "lost": lost, "held_out": held_out, "quick": quick, "energy_key": energy_key,
        "facet": facet, "kind": kind,
    }  # fmt: skip
    files = data_files(data, *([lost] if lost else []))
    with run_folder(out, command="catalyst train", arguments=arguments, seed=seed, data=files) as run:
        model = train_model(
            sites, left, held_out_share=held_out, seed=seed, device=device, quick=quick, quiet=quiet
        )
        model.save(run)
        report = train_report(
            model, quoted("interpretkit", "catalyst", "train", "--data", data), seed, files, out
        )
        report.save(run.path("report.html"))
        run.summary.update({**model.numbers, "trust": trust_warnings(model.numbers)})
    return {**run.summary, "out": out, "next": quoted("interpretkit", "catalyst", "design", "--model", out)}


@command(
    app,
    "evaluate",
    example=[
        "interpretkit catalyst evaluate --train a.extxyz --test b.extxyz --json",
        "interpretkit catalyst evaluate --train my-sites.extxyz --folds 5 --group-by slab_id",
    ],
    summary=_summary,
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
    jobs: Annotated[
        int, typer.Option("--jobs", metavar="N", help="Folds computed at the same time; 0: one per core.")
    ] = 0,
    quick: Quick = False,
    out: Out = Path("evaluation"),
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Measure teacher, VAE head and baseline on sites that they have not seen.

    Gives mae_ev (the teacher, which ranks designs), vae_mae_ev (the VAE's head), baseline_mae_ev (class and
    contact elements, linear), rmse_ev, r2, n_train, n_test and per_class.
    """
    if geometry not in ("ideal", "relaxed"):
        raise InputError(f"--geometry: {geometry!r}; expected ideal or relaxed")
    check_evaluate(test_sites, folds=folds, group_by=group_by, jobs=jobs)
    check_sites(train_sites, "--train", energy_key=energy_key, facet=facet, kind=kind)
    if test_sites:
        check_sites(test_sites, "--test")
    from catalysis.evaluation import evaluate as measure
    from catalysis.reports import evaluation_report
    from interpretkit.results import run_folder
    from interpretkit.training import resolve_device

    chosen_device = str(resolve_device(device))
    options = {"energy_key": energy_key, "facet": facet, "kind": kind, "require_energies": True}
    learned = load_sites(train_sites, **options)
    unseen = load_sites(test_sites, **options) if test_sites else None
    sources = [train_sites, *([test_sites] if test_sites else [])]
    arguments = {
        "train": train_sites, "test": test_sites, "folds": folds, "group_by": group_by, "geometry": geometry,
        "quick": quick, **options,
    }  # fmt: skip
    files = data_files(*sources)
    with run_folder(out, command="catalyst evaluate", arguments=arguments, seed=seed, data=files) as run:
        found = measure(
            learned,
            unseen,
            folds=folds,
            group_by=group_by,
            geometry="relaxed" if geometry == "relaxed" else "ideal",
            seed=seed,
            quick=quick,
            jobs=jobs,
            device=chosen_device,
            quiet=quiet,
        )
        predictions = found.pop("predictions")
        run.save_table("predictions.csv", predictions)
        report = evaluation_report(
            found,
            predictions,
            split="a test set of their own" if test_sites else f"{folds} folds by {group_by}",
            command=quoted(
                "interpretkit",
                "catalyst",
                "evaluate",
                "--train",
                train_sites,
                *(["--test", test_sites] if test_sites else ["--folds", folds, "--group-by", group_by]),
            ),
            seed=seed,
            data=files,
        )
        report.save(run.path("report.html"))
        run.summary.update(found)
    return {**found, "out": out}


@command(
    app,
    "design",
    example=[
        "interpretkit catalyst design",
        "interpretkit catalyst design --target-ev -0.3 --window-ev 0.05 --facets 111,211 --elements Pt,Pd,Ir",
        "interpretkit catalyst design --data my-sites.extxyz --target-ev 0.2",
    ],
    summary=_summary,
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
    out: Out = Path("designs"),
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Design sites with a wanted adsorption energy.

    With the bundled data the model that ships with the package serves; with --data of your own a model is trained
    first. Writes the sites, slabs that hold them, a table and a report.
    """
    check_design(
        data, model_folder, target_ev=target_ev, window_ev=window_ev, n=n, facets=facets, elements=elements,
        training={
            "--quick": quick, "--facet": facet, "--kind": kind,
            "--energy-key": energy_key != ENERGY_KEY and energy_key,
        },
    )  # fmt: skip
    if not model_folder:
        check_sites(data, "--data", energy_key=energy_key, facet=facet, kind=kind)
    from catalysis.design import Target, check_request, search
    from catalysis.model import SHIPPED, SiteModel, train_model
    from catalysis.reports import design_report, design_table
    from catalysis.sites import write_sites
    from catalysis.trust import trust_warnings
    from interpretkit.results import run_folder
    from interpretkit.training import resolve_device

    target = Target(target_ev, window_ev)
    chosen_device = str(resolve_device(device))
    arguments = {
        "data": data, "target_ev": target_ev, "window_ev": window_ev, "n": n, "model": model_folder,
        "facets": facets, "elements": elements, "quick": quick, "energy_key": energy_key, "facet": facet,
        "kind": kind,
    }  # fmt: skip
    files = [Path(model_folder)] if model_folder else data_files(data)
    with run_folder(
        out, command="catalyst design", arguments=arguments, seed=seed, data=_existing(files)
    ) as run:
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
                facets=() if facets is None else facet_names(facets),
                elements=() if elements is None else element_names(elements),
            )
            model = train_model(sites, seed=seed, device=chosen_device, quick=quick, quiet=quiet)
        found = search(
            model,
            target,
            n,
            facets=() if facets is None else facet_names(facets),
            elements=() if elements is None else element_names(elements),
            seed=seed,
            quiet=quiet,
        )
        write_sites(run.path("designs.extxyz"), [item.site for item in found.designs])
        from ase.io import write

        write(run.path("slabs.extxyz"), [item.host.with_adsorbate for item in found.designs])
        run.save_table("designs.csv", design_table(found.designs))
        is_bundled = data == BUNDLED and not model_folder
        report = design_report(
            model,
            found,
            data_note=_data_note(is_bundled, model.adsorbate),
            command=quoted(
                "interpretkit",
                "catalyst",
                "design",
                "--target-ev",
                target_ev,
                "--window-ev",
                window_ev,
                "--n",
                n,
            ),
            seed=seed,
            data=files,
            out=out,
        )
        report.save(run.path("report.html"))
        run.summary.update(
            {
                **found.numbers,
                "mae_ev": model.numbers["mae_ev"],
                "baseline_mae_ev": model.numbers["baseline_mae_ev"],
                "warnings": model.numbers.get("warnings", []),
                "trust": trust_warnings(model.numbers),
            }
        )
    return {**run.summary, "out": out, "report": out / "report.html"}


def _data_note(is_bundled: bool, adsorbate: str) -> str:
    if not is_bundled:
        return f"Energies of *{adsorbate} are those of the data that the model was trained on."
    from catalysis.data import provenance

    told = provenance()
    return (
        f"The bundled energies: {told['level_of_theory']}; relaxed: {told['relaxed']}; held: {told['held']}. "
        f"Zero is the (111) bridge of platinum. {told['limits']}"
    )


def _existing(files: list[Path]) -> list[Path]:
    for file in files:
        if not file.exists():
            raise InputError(f"--model or --data: no file or folder {file}")
    return files


def _check_positive(value: int, option: str) -> None:
    if value < 1:
        raise InputError(f"{option}: {value}; expected at least 1")


def _check_share(value: float, option: str) -> None:
    if not 0 < value < 1:
        raise InputError(f"{option}: {value}; expected a share between 0 and 1")
