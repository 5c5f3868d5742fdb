"""Energies of adsorption from an interatomic potential."""

from __future__ import annotations

from typing import Annotated

import typer

from catalysis.checks import KINDS, check_label, some_of
from catalysis.commands._options import BUNDLED, Facet, Kinds, Placed, Structures, data_files
from catalysis.potentials.calculators import POTENTIALS
from interpretkit.commandline import Column, Device, Finding, Here, Quiet, command
from interpretkit.errors import InputError
from interpretkit.runs.folder import Run
from interpretkit.runs.formatting import format_number

_COLUMNS = {
    "site_id": Column("the site"),
    "slab_id": Column("the slab"),
    "site_class": Column("its class: facet, kind, coordination numbers of the contacts"),
    "adsorbate": Column("what was put there"),
    "energy_ev": Column("adsorption energy", "eV", "energy", "+.3f"),
    "reference_ev": Column("what was subtracted", "eV", "reference", ".3f"),
    "usable": Column("whether the adsorbate stayed on its site"),
    "converged": Column("whether the relaxation ended"),
}


@command(
    out="labelled",
    example=[
        "interpretkit catalyst label slabs/ --out labelled",
        "interpretkit catalyst label clean-slab.cif --kinds bridge,hollow --adsorbate O --out labelled",
    ],
)
def label(
    structures: Structures,
    calculator: Annotated[
        str, typer.Option("--calculator", metavar="|".join(POTENTIALS), help="The interatomic potential.")
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
    *,
    run: Run,
) -> Finding:
    """Label slabs with adsorption energies from an interatomic potential.

    On clean slabs every site is found and labelled; on slabs with an adsorbate, its site. The metals are held
    fixed and the adsorbate is relaxed. Energies are relative to the (111) bridge of platinum. A run that is
    interrupted goes on where it stopped when it is started again. CHGNet comes with the extra mlip; emt, which knows a
    few metals and serves for trials, is always there.
    """
    check_label(structures, calculator, kinds)
    if structures == BUNDLED:
        raise InputError("SITES: 'bundled' is labelled already; expected a file or folder of slabs")
    from catalysis.potentials.calculators import get_potential
    from catalysis.potentials.labelling import (
        bridge_reference,
        calculator_digest,
        label_structures,
    )
    from catalysis.structure.adsorbates import get_adsorbate
    from catalysis.structure.reading import read_structures
    from interpretkit.training.device import resolve_device

    get_adsorbate(adsorbate, "--adsorbate")
    frames = list(read_structures(structures))
    if facet:
        for _, _, atoms in frames:
            atoms.info["facet"] = facet
    files = data_files(structures)
    where = resolve_device(device)
    potential = get_potential(calculator).make(str(where))
    references: dict[str, float] = {}

    def reference(name: str) -> float:
        # Of the adsorbate that a slab carries, whatever would be placed on clean ones.
        if name not in references:
            references[name] = 0.0 if absolute else bridge_reference(potential, name)
        return references[name]

    with run.kept(where.type, calculator_digest(potential), files=files, without=["device"]) as work:
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
    usable = [frame for frame, row in zip(atoms, rows, strict=True) if row["usable"]]
    if not usable:
        raise InputError(
            f"SITES: none of {len(rows)} adsorbates stayed on its site; expected at least one (see --free)"
        )
    lost = [start for start, row in zip(starts, rows, strict=True) if row["converged"] and not row["usable"]]

    energies = [row["energy_ev"] for row in rows if row["usable"]]
    lowest, highest = (format_number(bound, format="+.3f") for bound in (min(energies), max(energies)))
    found = Finding(
        f"{len(usable)} labelled site{'s' * (len(usable) != 1)}",
        f"{len(usable)} of {len(rows)} adsorbates stayed on their sites, with energies of {lowest} to {highest} eV. By "
        f"{get_potential(calculator).level_of_theory}. The metals were held, the adsorbate was relaxed; "
        + (
            "energies are E(slab + adsorbate) − E(slab)."
            if absolute
            else "zero is the (111) bridge of platinum."
        )
        + " They show trends; they are not DFT.",
    ).reads(*files)
    found.number("n_usable", len(usable), "sites with an energy", note=f"of {len(rows)} labelled")
    found.number("n_labelled", len(rows), "labelled", on_card=False)
    found.number("n_structures", len(frames), "structures read")
    found.number("n_lost", len(lost), "left their site", note="what designs should avoid")
    found.values.update(
        reference_ev={row["adsorbate"]: row["reference_ev"] for row in rows},
        level_of_theory=get_potential(calculator).level_of_theory,
    )
    if not all(frame.info.get("facet") for frame in usable):
        found.warn(
            "no facet is known of some slabs: give --facet or info['facet'], for without it a site matches no "
            "template and no slab can be designed"
        )
    found.section("Labels").table("labels.csv", rows, _COLUMNS, most=200)
    found.structures("sites.extxyz", usable)
    if lost:
        found.structures("lost.extxyz", lost)
    onwards = [Here("sites.extxyz"), *(["--lost", Here("lost.extxyz")] if lost else [])]
    return found.next_step("Train a model on them:", "interpretkit catalyst train --data", *onwards)
