"""Make the bundled data set: random slabs, bridge sites of the thirteen classes, *OH energies by CHGNet.

Run as `python -m catalysis.data.build --work FOLDER`; it resumes where it stopped and may run as several processes
with `--shards N --shard I` on the same folder. `--pack` then writes the data set from what the folder holds.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from catalysis.data import BUNDLED, ELEMENTS
from catalysis.potentials.calculators import POTENTIALS, make_calculator
from catalysis.potentials.labelling import (
    bridge_reference,
    label_site,
    potential_energy,
)
from catalysis.structure.finding import find_sites
from catalysis.structure.sites import BRIDGE_CLASSES, Site
from catalysis.structure.surfaces import bare_slab, decorate, vegard_lattice_constant
from interpretkit.runs.files import write_json
from interpretkit.runs.folder import ResumableTable
from interpretkit.runs.progress import track

SLABS_PER_FACET = {"111": 80, "100": 80, "110": 80, "211": 140, "532": 130}
SITES_PER_CLASS_AND_SLAB = {"111": 2, "100": 2, "110": 2, "211": 1, "532": 1}


@dataclass(frozen=True)
class SlabPlan:
    """One slab to label: its name, facet, composition and seed."""

    slab_id: str
    facet: str
    composition: dict[str, float]
    seed: int


def plan(seed: int) -> list[SlabPlan]:
    """Return every slab of the data set, shuffled so that any beginning of the list covers all facets.

    Half of the random slabs are drawn from the equimolar alloy, half from compositions spread evenly over the
    simplex (Dirichlet with unit concentrations); one pure slab of each metal and facet serves as a check.
    """
    generator = np.random.default_rng(seed)
    slabs = [
        SlabPlan(f"{element}-{facet}", facet, {element: 1.0}, 0)
        for facet in SLABS_PER_FACET
        for element in ELEMENTS
    ]
    random_slabs = []
    for facet, count in SLABS_PER_FACET.items():
        for number in range(count):
            if number % 2 == 0:
                shares = np.full(len(ELEMENTS), 1 / len(ELEMENTS))
            else:
                shares = generator.dirichlet(np.ones(len(ELEMENTS)))
            composition = {element: float(share) for element, share in zip(ELEMENTS, shares, strict=True)}
            name = f"{'HEA' if number % 2 == 0 else 'MIX'}-{facet}-{number:03d}"
            random_slabs.append(SlabPlan(name, facet, composition, int(generator.integers(2**31))))
    generator.shuffle(random_slabs)  # type: ignore[arg-type]
    return slabs + random_slabs


def chosen_sites(found: list[Site], per_class: int, seed: int) -> list[Site]:
    """Return up to `per_class` sites of each published class, drawn at random."""
    generator = np.random.default_rng(seed)
    published = set(BRIDGE_CLASSES.values())
    chosen: list[Site] = []
    for name in sorted({site.site_class for site in found} & published):
        members = [site for site in found if site.site_class == name]
        picks = generator.permutation(len(members))[:per_class]
        chosen += [members[int(pick)] for pick in picks]
    return chosen


def label(work: Path, seed: int, shards: int, shard: int, device: str) -> None:
    """Label this shard's slabs and keep each site as one row of `labels-<shard>.jsonl` in `work`."""
    calculator = make_calculator("chgnet", device)
    reference = bridge_reference(calculator)
    with ResumableTable(work / f"labels-{shard}.jsonl", key="slab_id") as table:
        for item in track(plan(seed)[shard::shards], "slabs"):
            if item.slab_id in table:
                continue
            constant = vegard_lattice_constant(item.composition)
            slab = decorate(bare_slab(item.facet, constant), item.composition, item.seed)
            slab.info["slab_id"] = item.slab_id
            slab_energy = potential_energy(calculator, slab)
            per_class = 1 if len(item.composition) == 1 else SITES_PER_CLASS_AND_SLAB[item.facet]
            rows: list[dict[str, Any]] = []
            for site in chosen_sites(find_sites(slab), per_class, item.seed):
                result = label_site(
                    slab, site, calculator, slab_energy_ev=slab_energy, reference_ev=reference
                )
                labelled = result.site
                rows.append(
                    {
                        "site_id": labelled.site_id,
                        "site_class": labelled.site_class,
                        "symbols": list(labelled.symbols),
                        "host_indices": list(labelled.host_indices),
                        "positions": labelled.positions.round(4).tolist(),
                        "adsorbate_positions": labelled.adsorbate_positions.round(4).tolist(),
                        "energy_ev": labelled.energy_ev,
                        "ends_as": result.ends_as,
                        "converged": result.converged,
                        "steps": result.steps,
                        "max_force": result.max_force,
                    }
                )
            table.append(
                {
                    "slab_id": item.slab_id,
                    "facet": item.facet,
                    "lattice_constant": constant,
                    "seed": item.seed,
                    "symbols": slab.get_chemical_symbols(),
                    "cell": slab.cell.array.tolist(),
                    "positions": slab.positions.tolist(),
                    "slab_energy_ev": slab_energy,
                    "reference_ev": reference,
                    "sites": rows,
                }
            )


def pack(work: Path, seed: int, target: Path = BUNDLED) -> dict[str, Any]:
    """Write the data set and its provenance from every labelled slab in `work`; return the provenance."""
    slabs: list[dict[str, Any]] = []
    for file in sorted(work.glob("labels-*.jsonl")):
        with ResumableTable(file, key="slab_id") as table:
            slabs += table.rows
    order = {item.slab_id: number for number, item in enumerate(plan(seed))}
    slabs.sort(key=lambda slab: order[slab["slab_id"]])
    rows = [(number, site) for number, slab in enumerate(slabs) for site in slab["sites"]]
    fate = [_fate(site) for _, site in rows]
    fates = Counter(fate)
    kept = [row for row, how in zip(rows, fate, strict=True) if how == "bridge"]
    # What did not converge is neither a bridge nor anything else.
    lost = [row for row, how in zip(rows, fate, strict=True) if how not in ("bridge", "not converged")]
    slab_sizes = [len(slab["symbols"]) for slab in slabs]
    arrays = _site_arrays(kept) | {f"lost_{name}": array for name, array in _site_arrays(lost).items()}
    np.savez_compressed(
        target,
        allow_pickle=False,
        **arrays,
        slab_id=np.array([slab["slab_id"] for slab in slabs]),
        slab_facet=np.array([slab["facet"] for slab in slabs]),
        slab_lattice_constant=np.array([slab["lattice_constant"] for slab in slabs]),
        slab_offsets=np.concatenate([[0], np.cumsum(slab_sizes)]).astype(np.int32),
        slab_numbers=np.concatenate([_numbers(slab["symbols"]) for slab in slabs]),
        slab_cell=np.array([slab["cell"] for slab in slabs], dtype=float),
        slab_positions=np.concatenate([np.array(slab["positions"], dtype=float) for slab in slabs]),
    )
    pure = {
        element: round(
            float(
                np.mean(
                    [
                        site["energy_ev"]
                        for slab in slabs
                        if slab["slab_id"] == f"{element}-111"
                        for site in slab["sites"]
                    ]
                )
            ),
            3,
        )
        for element in ELEMENTS
    }
    if not pure["Ru"] < min(pure["Rh"], pure["Ir"]) <= max(pure["Rh"], pure["Ir"]) < pure["Pd"] < pure["Pt"]:
        raise ValueError(f"pure metals bind in an order that DFT does not give: {pure}")
    provenance = {
        "made_on": date.today().isoformat(),
        "seed": seed,
        "level_of_theory": POTENTIALS["chgnet"].level_of_theory,
        "reference": "E(slab + OH) - E(slab), less the same on the (111) bridge of platinum",
        "reference_ev": slabs[0]["reference_ev"],
        "relaxed": "the adsorbate alone, from the better of two orientations, O held midway between the two metals",
        "held": "all metals, on the ideal fcc lattice with Vegard's lattice constant of the slab's nominal composition",
        "max_force_ev_per_angstrom": 0.05,
        "slabs": len(slabs),
        "random_slabs": sum("-" in s["slab_id"] and s["slab_id"][:3] in {"HEA", "MIX"} for s in slabs),
        "sites_labelled": len(rows),
        "sites_kept": len(kept),
        "fates": dict(fates),
        "sites_per_class": dict(sorted(Counter(site["site_class"] for _, site in kept).items())),
        "pure_metal_111_bridge_ev": pure,
        "limits": (
            "A universal potential at unrelaxed metal positions: trends and differences, not DFT energies. "
            "Sites that the adsorbate left, or where it did not settle, are missing; most are on (111), on the "
            "summit and valley of (211) and the valley of (532)."
        ),
    }
    write_json(target.with_suffix(".json"), provenance)
    return provenance


def _site_arrays(rows: list[tuple[int, dict[str, Any]]]) -> dict[str, np.ndarray]:
    """Return sites, each with the number of its slab, as flat arrays."""
    sites = [site for _, site in rows]
    sizes = [len(site["symbols"]) for site in sites]
    return {
        "site_id": np.array([site["site_id"] for site in sites]),
        "site_class": np.array([site["site_class"] for site in sites]),
        "slab": np.array([number for number, _ in rows], dtype=np.int32),
        "energy_ev": np.array([site["energy_ev"] for site in sites], dtype=np.float32),
        "metal_offsets": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32),
        "metal_numbers": np.concatenate([_numbers(site["symbols"]) for site in sites]),
        "metal_positions": np.concatenate([np.array(s["positions"], dtype=np.float32) for s in sites]),
        "metal_host": np.concatenate([np.array(s["host_indices"], dtype=np.uint8) for s in sites]),
        "adsorbate_positions": np.array([s["adsorbate_positions"] for s in sites], dtype=np.float32),
    }


def _fate(row: dict[str, Any]) -> str:
    """Return what became of a labelled site; one whose adsorbate is nearer to other metals has moved."""
    if not row["converged"]:
        return "not converged"
    gaps = np.linalg.norm(np.array(row["positions"]) - row["adsorbate_positions"][0], axis=1)
    moved = row["ends_as"] == "bridge" and gaps[:2].max() > gaps[2:].min()
    return "moved" if moved else row["ends_as"]


def _numbers(symbols: list[str]) -> np.ndarray:
    return np.array([atomic_numbers[symbol] for symbol in symbols], dtype=np.uint8)


def main() -> None:
    """Read the command line of the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of the labels, kept between runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--shard", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pack", action="store_true", help="write the data set from the labels instead")
    options = parser.parse_args()
    if options.pack:
        print(pack(options.work, options.seed))
    else:
        label(options.work, options.seed, options.shards, options.shard, options.device)


if __name__ == "__main__":
    main()
