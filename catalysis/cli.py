"""Inverse design of catalytic sites: from slabs and energies to sites with a wanted energy."""

# Heavy packages are imported inside the commands, so that the list of commands and their help come at once.

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interpretkit.command import Device, Out, Quiet, application, command
from interpretkit.errors import InputError

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


def load_sites(
    source: str,
    *,
    energy_key: str,
    facet: str = "",
    kind: str = "",
    require_energies: bool = False,
) -> list[Site]:
    """Return the sites of a file or folder, or the bundled ones.

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
    )


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
    kinds: Annotated[
        str,
        typer.Option(
            "--kinds", metavar="KIND,...", help="Sites to find on clean slabs: top, bridge, hollow."
        ),
    ] = "bridge",
    adsorbate: Annotated[
        str,
        typer.Option("--adsorbate", metavar="NAME", help="What to place on clean slabs, such as OH or CO."),
    ] = "OH",
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
    interrupted goes on where it stopped when it is started again.
    """
    from catalysis.labelling import LEVELS_OF_THEORY, bridge_reference, label_structures, make_calculator
    from catalysis.sites import read_structures
    from interpretkit.results import run_folder
    from interpretkit.training.device import resolve_device

    if structures == BUNDLED:
        raise InputError("SITES: 'bundled' is labelled already; expected a file or folder of slabs")
    frames = list(read_structures(structures))
    if facet:
        for _, _, atoms in frames:
            atoms.info["facet"] = facet
    arguments = {
        "sites": structures, "calculator": calculator, "kinds": kinds, "adsorbate": adsorbate,
        "facet": facet, "absolute": absolute, "free": free,
    }  # fmt: skip
    with run_folder(out, command="catalyst label", arguments=arguments, data=data_files(structures)) as run:
        potential = make_calculator(calculator, str(resolve_device(device)))
        reference = 0.0 if absolute else bridge_reference(potential, adsorbate)
        atoms, rows = label_structures(
            frames,
            potential,
            kinds=tuple(kind.strip() for kind in kinds.split(",")),
            adsorbate=adsorbate,
            reference_ev=reference,
            hold_bridge=not free,
            journal=out.with_name(f".{out.name}.labels.jsonl"),
            quiet=quiet,
        )
        from ase.io import write

        usable = [frame for frame, row in zip(atoms, rows, strict=True) if row["usable"]]
        if not usable:
            raise InputError(
                f"SITES: none of {len(rows)} adsorbates stayed on its site; expected at least one (see --free)"
            )
        write(run.path("sites.extxyz"), usable)
        run.save_table("labels.csv", rows)
        run.summary.update(
            n_structures=len(frames),
            n_labelled=len(rows),
            n_usable=len(usable),
            reference_ev=reference,
            level_of_theory=LEVELS_OF_THEORY[calculator],
        )
    out.with_name(f".{out.name}.labels.jsonl").unlink(missing_ok=True)
    return {**run.summary, "out": out, "next": f"interpretkit catalyst train --data {out / 'sites.extxyz'}"}


@command(
    app,
    "fingerprint",
    example=[
        "interpretkit catalyst fingerprint bundled --out fingerprints",
        "interpretkit catalyst fingerprint my-slabs/ --facet 111 --summaries entropy,landscape",
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
    energy_key: EnergyKey = "adsorption_energy_eV",
) -> dict[str, Any]:
    """Turn sites into fingerprints: Betti curves by persistent path homology, and elements by slot.

    Writes fingerprints.npz: the coordination channel (Betti curves of the geometry), the published curves
    (arrows directed by elements), and the ligand channel; bars.csv lists every bar of the first site with the
    atoms on a cycle that carries it.
    """
    import numpy as np

    from catalysis.figures import barcode_sheet
    from catalysis.fingerprints import bars_with_atoms, fingerprints
    from interpretkit.results import run_folder
    from interpretkit.visualization.report import Report

    sites = load_sites(structures, energy_key=energy_key, facet=facet, kind=kind)
    arguments = {
        "sites": structures,
        "facet": facet,
        "kind": kind,
        "summaries": summaries,
        "properties": properties,
    }
    files = data_files(structures)
    with run_folder(out, command="catalyst fingerprint", arguments=arguments, data=files) as run:
        found = fingerprints(
            sites,
            summaries=tuple(name.strip() for name in summaries.split(",") if name.strip()),
            properties=properties,
        )
        run.save_arrays("fingerprints.npz", **found.arrays())
        classes = sorted(set(found.site_classes))
        rows = []
        for name in classes:
            members = np.flatnonzero(np.array(found.site_classes) == name)
            mean = found.coordination[members].mean((0, 2))
            rows.append(
                {
                    "class": name,
                    "sites": len(members),
                    "metals": float(np.mean([len(sites[k]) for k in members])),
                    **{f"mean β{d}": float(mean[d]) for d in range(3)},
                }
            )
        report = Report(
            "Fingerprints of sites",
            f"{len(sites)} sites of {len(classes)} classes as Betti curves and elements by slot.",
        )
        aligned = int(found.ligands.aligned.sum())
        report.add_numbers(
            {
                "sites": len(sites),
                "classes": len(classes),
                "matched to a template": (aligned, "the others go by zone and rank of distance"),
            }
        )
        report.add_section(
            "From structure to fingerprint",
            "A site is a digraph whose arrows are bonds weighted by their length. As the threshold grows, components "
            "merge (β0), loops open and close (β1), voids appear (β2).",
        )
        for name in classes[:4]:
            index = found.site_classes.index(name)
            site = sites[index]
            bars = bars_with_atoms(site)
            figure = barcode_sheet(site, bars, found.grid, found.coordination[index])
            report.add_figures(
                (figure, f"Site {found.site_ids[index]}: seen from above, barcode, Betti curves.")
            )
            if name == classes[0]:
                run.save_table(
                    "bars.csv",
                    [
                        {
                            "dimension": bar.dimension,
                            "birth_angstrom": bar.birth_angstrom,
                            "death_angstrom": bar.death_angstrom,
                            "atoms": " ".join(map(str, bar.atoms)),
                            "elements": " ".join(bar.elements),
                        }
                        for bar in bars
                    ],
                )
        report.add_section(
            "By class", table=rows, table_caption="Betti numbers averaged over the thresholds."
        )
        report.add_next_step(
            "Read the arrays in Python:", f"numpy.load('{out / 'fingerprints.npz'}')['coordination']"
        )
        report.set_provenance(f"interpretkit catalyst fingerprint {structures}", data=files)
        report.save(run.path("report.html"))
        run.summary.update(n_sites=len(sites), n_classes=len(classes), n_aligned=aligned)
    return {**run.summary, "out": out}
