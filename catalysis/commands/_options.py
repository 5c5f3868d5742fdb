"""Options that several commands share, and the sites that they name."""

# Heavy packages are imported inside the functions, so that the list of commands and their help come at once.

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catalysis.checks import BUNDLED
from catalysis.potentials.embeddings import EMBEDDINGS

if TYPE_CHECKING:
    from catalysis.structure.sites import Site

# What people call the zones of a site.
ZONES = {
    "contact": "contacts",
    "common": "common neighbours",
    "shell": "shell",
    "second": "second neighbours",
}

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
Embeddings = Annotated[
    str,
    typer.Option(
        "--embeddings",
        metavar=",".join(EMBEDDINGS),
        help="Potentials, one or several, whose vectors of atoms at the given positions the teacher looks at too.",
    ),
]
FittedModel = Annotated[
    str,
    typer.Option("--model", metavar="DIR", help="What `catalyst train` wrote; else fitted to --data."),
]
TrainedModel = Annotated[
    str,
    typer.Option("--model", metavar="DIR", help="What `catalyst train` wrote; else trained on --data."),
]
Quick = Annotated[
    bool,
    typer.Option(
        "--quick", help="Train for a few short epochs, to see that everything runs; the VAE will be poor."
    ),
]


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
        See `catalysis.structure.user_sites.read_sites`.
    """
    if source == BUNDLED:
        from catalysis.data import load_bundled

        return load_bundled()
    from catalysis.structure.user_sites import read_sites

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
