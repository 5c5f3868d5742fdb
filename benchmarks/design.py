"""Inverse design: how often proposals hit the window, by the teacher and by the potential that labelled the data.

Run as `python -m benchmarks.design [--full]`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from catalysis.models.site_model import SHIPPED, SiteModel
from catalysis.potentials.calculators import make_calculator
from catalysis.potentials.labelling import bridge_reference, label_structures
from catalysis.studies.design import Target, search
from interpretkit.bench.evidence import Row, markdown

TARGETS_EV = (0.1, -0.3, -1.0)
WINDOW_EV = 0.1


def run(quick: bool = True, data: Mapping[str, Path] | None = None, seed: int = 0) -> list[Row]:
    """Return rows of evidence.

    Parameters
    ----------
    quick
        Leave out the interatomic potential, which takes minutes and the extra `mlip`.
    data
        Not used: the shipped model is what is measured.
    seed
        Of the search.
    """
    del data
    model = SiteModel.load(SHIPPED)
    rows = _designs(model, seed)
    if not quick:
        rows += _relabelled(model, seed)
    return rows


def _designs(model: SiteModel, seed: int) -> list[Row]:
    rows = []
    for target_ev in TARGETS_EV:
        found = search(model, Target(target_ev, WINDOW_EV), 100, seed=seed).numbers
        rows.append(
            Row(
                system="inverse design",
                data=f"target {target_ev:+.1f} ± {WINDOW_EV} eV, {found['n_proposals']} proposals before ranking",
                name="share inside the window, by the teacher",
                value=float(found["share_in_window"]),
                baseline=float(found["random_share_in_window"]),
                seed=seed,
                notes="baseline: sites drawn at random, classes and elements equally often",
            )
        )
    return rows


def _relabelled(model: SiteModel, seed: int, n: int = 20) -> list[Row]:
    """Judge designs by the potential that labelled the data, on slabs that it has never seen."""
    calculator = make_calculator("chgnet")
    reference = bridge_reference(calculator, model.adsorbate)
    rows = []
    for target_ev in TARGETS_EV:
        target = Target(target_ev, WINDOW_EV)
        found = search(model, target, n, seed=seed)
        frames = [(d.site.site_id, d.site.site_id, d.host.with_adsorbate) for d in found.designs]
        with tempfile.TemporaryDirectory() as folder:
            _, _, labels = label_structures(
                frames, calculator, reference_ev=reference, journal=Path(folder) / "labels.jsonl"
            )
        energies = np.array([label["energy_ev"] for label in labels])
        stayed = np.array([label["usable"] for label in labels])
        rows.append(
            Row(
                system="inverse design",
                data=f"the {n} likeliest for {target_ev:+.1f} ± {WINDOW_EV} eV, relabelled with CHGNet in new slabs",
                name="share inside the window",
                value=float((target.holds(energies) & stayed).mean()),
                baseline=float(target.holds(found.random_ev).mean()),
                seed=seed,
                notes=f"{int(stayed.sum())} adsorbates stayed on their site; baseline: random sites by the teacher",
            )
        )
    return rows


def main() -> None:
    """Print the rows as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="also relabel designs with CHGNet")
    options = parser.parse_args()
    print(markdown(run(quick=not options.full)))


if __name__ == "__main__":
    main()
