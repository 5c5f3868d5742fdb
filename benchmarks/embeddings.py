"""What pretrained potentials add to energy models: relaxed sites, and sites on the ideal lattice.

Run as `interpretkit bench embeddings`; the potentials come with the extra mlip. Describing all sites anew takes more
than an hour of one core; what was described before is read again.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.adsorption import CHEAT, ONE_CLASS
from benchmarks.energy_models import UNRELAXED, Kept, split_rows
from catalysis.data import load_bundled
from catalysis.potentials.embeddings import EMBEDDINGS, embed
from catalysis.structure.sites import Site
from catalysis.structure.user_sites import read_sites
from interpretkit.bench.evidence import Row
from interpretkit.runs.environment import is_installed


def run(
    quick: bool = True, data: Mapping[str, Path] | None = None, seed: int = 0, cache: Path | None = None
) -> list[Row]:
    """Return rows of evidence.

    Parameters
    ----------
    quick
        Only what describing a site costs; else also errors on the data given.
    data
        `"hea-oh"`: folder with `sites.extxyz`, 919 bridge sites relaxed by DFT. `"hea-agirpdptru"`: folder with
        `oh_top.extxyz.gz` and `o_fcc.extxyz.gz`, one class of sites each, on the ideal lattice.
    seed
        Of the folds.
    cache
        Keeps what has been measured.
    """
    names = [name for name, embedding in EMBEDDINGS.items() if is_installed(embedding.package)]
    rows = [_cost(name, load_bundled()[:6]) for name in names]
    if quick:
        return rows
    kept = Kept(cache)
    if data and "hea-oh" in data:
        sites = read_sites(data["hea-oh"] / "sites.extxyz", require_energies=True)
        where = f"*OH on bridges of IrPdPtRhRu, {len(sites)} sites relaxed by DFT"
        for split in ("slab", "facet"):
            rows += _beside_each_other(kept, where, sites, split, names, seed, "relaxed geometry and")
    if data and "hea-agirpdptru" in data:
        for what, (file, published) in ONE_CLASS.items():
            sites = read_sites(data["hea-agirpdptru"] / file, require_energies=True)
            where = f"{what} of AgIrPdPtRu (111), {len(sites)} DFT sites, ideal lattice"
            rows += [
                replace(
                    row,
                    reference=published,
                    source=f"{CHEAT}, graph network",
                    stand_in=True,
                    notes="the reference is of a random test set of a later version of the data",
                )
                if row.name == "mean absolute error"
                else row
                for row in _beside_each_other(kept, where, sites, "slab", names, seed, "ideal slabs and")
            ]
    return rows


def _beside_each_other(
    kept: Kept, where: str, sites: Sequence[Site], split: str, names: Sequence[str], seed: int, known: str
) -> list[Row]:
    """Return rows of a teacher without potentials, with each, and with all of them."""
    rows = split_rows(kept, UNRELAXED, where, sites, split, seed, jobs=0)
    for used in dict.fromkeys([*((name,) for name in names), tuple(names)]):
        if used:
            system = f"teacher, {known} embeddings by {' and '.join(_title(name) for name in used)}"
            rows += split_rows(kept, system, where, sites, split, seed, jobs=0, embeddings=used)
    return rows


def _title(name: str) -> str:
    """Return a potential's name for people: its source up to what is told of it."""
    return re.split(r"[,(]", EMBEDDINGS[name].source)[0].strip()


def _cost(name: str, sites: Sequence[Site]) -> Row:
    """Return what describing a site takes, the first, for which the potential is loaded, apart."""
    with tempfile.TemporaryDirectory() as folder:
        embed(sites[:1], name, folder=folder)
        began = time.process_time()
        embed(sites[1:], name, folder=folder)
        taken = (time.process_time() - began) / len(sites[1:])
    return Row(
        system=f"embeddings by {_title(name)}",
        data=f"bundled, {len(sites) - 1} bridge sites with some 45 metals, each with the adsorbate and without",
        name="processor time to describe a site",
        value=taken,
        unit="s",
        notes="once for each site; the rows are kept by content",
    )
