"""The bundled data set: *OH on bridge sites of IrPdPtRhRu, energies by a universal potential."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from catalysis.structure.sites import Site
from interpretkit.errors import InputError
from interpretkit.runs.folder import load_arrays

ELEMENTS = ("Ir", "Pd", "Pt", "Rh", "Ru")
"""The metals of the bundled slabs."""

BUNDLED = Path(__file__).with_name("bundled.npz")
"""The data set; `bundled.json` beside it tells how it was made."""


def provenance() -> dict[str, Any]:
    """Return how the bundled data set was made: level of theory, what was relaxed, counts, limits."""
    return json.loads(BUNDLED.with_suffix(".json").read_text(encoding="utf-8"))


def load_bundled() -> list[Site]:
    """Return the sites of the bundled data set with their energies (eV relative to the Pt(111) bridge).

    The metals stand on the ideal lattice, the adsorbate is relaxed; `slab_id` groups sites that share atoms.
    """
    return _load_sites("")


def load_bundled_lost() -> list[Site]:
    """Return the bundled sites that the adsorbate left for a top or hollow site or other metals.

    Without energies: where it ended is another site.
    """
    return [replace(site, energy_ev=None) for site in _load_sites("lost_")]


def _load_sites(prefix: str) -> list[Site]:
    arrays = load_arrays(BUNDLED)
    data = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    offsets, numbers = data["metal_offsets"], data["metal_numbers"]
    sites = []
    for k, slab in enumerate(data["slab"]):
        part = slice(int(offsets[k]), int(offsets[k + 1]))
        sites.append(
            Site(
                symbols=tuple(chemical_symbols[number] for number in numbers[part]),
                positions=data["metal_positions"][part].astype(float),
                contacts=2,
                adsorbate="OH",
                adsorbate_symbols=("O", "H"),
                adsorbate_positions=data["adsorbate_positions"][k].astype(float),
                facet=str(arrays["slab_facet"][slab]),
                site_class=str(data["site_class"][k]),
                site_id=str(data["site_id"][k]),
                slab_id=str(arrays["slab_id"][slab]),
                energy_ev=float(data["energy_ev"][k]),
                host_indices=tuple(int(i) for i in data["metal_host"][part]),
            )
        )
    return sites


def load_bundled_slab(slab_id: str) -> Atoms:
    """Return one of the slabs that the bundled sites come from, in the cell and at the positions of its data.

    Raises
    ------
    InputError
        If the data set has no such slab.
    """
    data = load_arrays(BUNDLED)
    found = np.flatnonzero(data["slab_id"] == slab_id)
    if len(found) == 0:
        raise InputError(f"slab_id: {slab_id!r} is not in the bundled data set")
    k = int(found[0])
    part = slice(int(data["slab_offsets"][k]), int(data["slab_offsets"][k + 1]))
    slab = Atoms(
        numbers=data["slab_numbers"][part],
        positions=data["slab_positions"][part],
        cell=data["slab_cell"][k],
        pbc=(True, True, False),
    )
    slab.info.update(facet=str(data["slab_facet"][k]), slab_id=slab_id)
    return slab
