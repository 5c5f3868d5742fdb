"""Sites as Betti curves and elements by slot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalysis.checks import KINDS, SUMMARIES, check_sites, some_of
from catalysis.commands._options import (
    EnergyKey,
    Facet,
    Kind,
    Kinds,
    Placed,
    Structures,
    data_files,
    load_sites,
)
from interpretkit.commandline import Column, Finding, Here, command
from interpretkit.runs.formatting import format_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from catalysis.fingerprints import Fingerprints
    from catalysis.structure.sites import Site

_BAR_COLUMNS = {
    "dimension": Column("0 components, 1 loops, 2 voids"),
    "birth_angstrom": Column("threshold at which it appears", "Å", "birth", ".3f"),
    "death_angstrom": Column("threshold at which it is gone", "Å", "death", ".3f"),
    "atoms": Column("atoms on a cycle that carries it"),
    "elements": Column("their elements"),
}
_CLASS_COLUMNS = {
    "class": Column("facet, kind, coordination numbers of the contacts"),
    "sites": Column("how many"),
    "metals": Column("metals of a site, mean", format=".1f"),
    **{f"mean β{k}": Column(f"Betti number {k}, mean over the thresholds", format=".2f") for k in range(3)},
}


@command(
    out="fingerprints",
    example=[
        "interpretkit catalyst fingerprint bundled --out fingerprints",
        "interpretkit catalyst fingerprint my-slabs/ --facet 111 --summaries entropy,landscape",
        "interpretkit catalyst fingerprint clean-slab.cif --kinds hollow --adsorbate O",
    ],
)
def fingerprint(
    structures: Structures,
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
) -> Finding:
    """Turn sites into fingerprints: Betti curves by persistent path homology, and elements by slot.

    On clean slabs every site of the kinds named is found. Writes fingerprints.npz: the coordination channel (Betti
    curves of the geometry), the published curves (arrows directed by elements), and the ligand channel; bars.csv lists
    every bar of the first site with the atoms on a cycle that carries it.
    """
    check_sites(structures, "SITES", energy_key=energy_key, facet=facet, kind=kind)
    wanted = some_of(SUMMARIES, summaries, "--summaries", or_none=True)
    found_kinds = some_of(KINDS, kinds, "--kinds")
    from catalysis.structure.adsorbates import get_adsorbate

    get_adsorbate(adsorbate, "--adsorbate")
    from catalysis.fingerprints import bars_with_atoms, fingerprints

    sites = load_sites(
        structures,
        energy_key=energy_key,
        facet=facet,
        kind=kind,
        find_kinds=found_kinds,
        find_adsorbate=adsorbate,
    )
    prints = fingerprints(sites, summaries=tuple(wanted), properties=properties)
    classes = sorted(set(prints.site_classes))

    found = Finding(
        f"Fingerprints of {format_number(len(sites))} site{'s' * (len(sites) != 1)}",
        f"{format_number(len(sites))} sites of {format_number(len(classes))} class{'es' * (len(classes) != 1)} "
        "as Betti curves and elements by slot. " + _topology_text(prints),
    ).reads(*data_files(structures))
    found.number("n_sites", len(sites), "sites").number("n_classes", len(classes), "classes")
    found.number(
        "n_aligned",
        int(prints.ligands.aligned.sum()),
        "matched to a template",
        note="the others go by zone and rank of distance",
    )
    _add_examples(found, sites, prints, classes[:4])
    found.section("By class").table(
        "classes.csv",
        _by_class(sites, prints, classes),
        _CLASS_COLUMNS,
        "Betti numbers averaged over the thresholds.",
    )
    bars = [
        {
            "dimension": bar.dimension,
            "birth_angstrom": bar.birth_angstrom,
            "death_angstrom": bar.death_angstrom,
            "atoms": " ".join(map(str, bar.atoms)),
            "elements": " ".join(bar.elements),
        }
        for bar in bars_with_atoms(sites[0])
    ]
    found.section(f"Bars of {prints.site_ids[0]}").table("bars.csv", bars, _BAR_COLUMNS, most=40)
    found.arrays("fingerprints.npz", **prints.arrays())
    return found.next_step(
        "Read the arrays:",
        "python -c 'import sys, numpy; print(*numpy.load(sys.argv[1]))'",
        Here("fingerprints.npz"),
    )


def _topology_text(prints: Fingerprints) -> str:
    """Return in a sentence how many sites have loops or voids at any threshold."""
    loops, voids = ((prints.coordination[:, k] > 0).any(axis=1) for k in (1, 2))
    if not loops.any() and not voids.any():
        return "None has a loop (β1) or a void (β2) at any threshold: components merge, and that is all."
    return f"{int(loops.sum())} have a loop (β1) at some threshold, and {int(voids.sum())} a void (β2)."


def _add_examples(
    found: Finding, sites: Sequence[Site], prints: Fingerprints, classes: Sequence[str]
) -> None:
    """Show a site of each class with its barcode and Betti curves."""
    from catalysis.figures import barcode_sheet
    from catalysis.fingerprints import bars_with_atoms

    section = found.section(
        "From structure to fingerprint",
        "A site is a digraph whose arrows are bonds weighted by their length. As the threshold grows, components "
        "merge (β0), loops open and close (β1), voids appear (β2).",
    )
    for number, name in enumerate(classes, start=1):
        index = prints.site_classes.index(name)
        sheet = barcode_sheet(
            sites[index], bars_with_atoms(sites[index]), prints.grid, prints.coordination[index]
        )
        caption = f"Site {prints.site_ids[index]} ({name}): seen from above, barcode, Betti curves."
        section.figure(f"site-{number}.png", sheet, caption)


def _by_class(sites: Sequence[Site], prints: Fingerprints, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each class: how many sites, and their mean Betti numbers."""
    import numpy as np

    names = np.array(prints.site_classes)
    rows = []
    for name in classes:
        members = np.flatnonzero(names == name)
        mean = prints.coordination[members].mean((0, 2))
        rows.append(
            {
                "class": name,
                "sites": len(members),
                "metals": float(np.mean([len(sites[k]) for k in members.tolist()])),
                **{f"mean β{dimension}": float(mean[dimension]) for dimension in range(3)},
            }
        )
    return rows
