"""Fingerprints: which Betti curves tell the class of a site, those of its geometry or those directed by elements.

Run as `interpretkit bench fingerprints --data hea-oh=FOLDER`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from catalysis.data import load_bundled
from catalysis.energies.training_data import group_folds
from catalysis.fingerprints import fingerprints
from catalysis.structure.user_sites import read_sites
from interpretkit.bench.evidence import Row


def run(quick: bool = True, data: Mapping[str, Path] | None = None, seed: int = 0) -> list[Row]:
    """Return rows of evidence.

    Parameters
    ----------
    quick
        Take every fifth of the bundled sites; sites that are given are all taken.
    data
        `"hea-oh"`: folder with `sites.extxyz`, relaxed sites; else the bundled ones on ideal positions.
    seed
        Of the five folds by slab.
    """
    if data and "hea-oh" in data:
        sites = read_sites(data["hea-oh"] / "sites.extxyz")
        where = f"{len(sites)} relaxed *OH sites of the PGH-VAE article, 5 folds by slab"
    else:
        sites = load_bundled()[:: 5 if quick else 1]
        where = f"{len(sites)} bundled sites on ideal positions, 5 folds by slab"
    found = fingerprints(sites)
    classes = np.array(found.site_classes)
    folds = group_folds([site.slab_id for site in sites], 5, seed)
    commonest = float(np.mean(classes == max(set(classes.tolist()), key=classes.tolist().count)))
    rows = []
    for name, curves in (
        ("arrows both ways (coordination channel)", found.coordination),
        ("arrows directed by elements (published fingerprint)", found.path_homology),
    ):
        flat = curves.reshape(len(sites), -1).astype(float)
        right = np.zeros(len(sites), dtype=bool)
        for fold in range(5):
            train, test = folds != fold, folds == fold
            neighbours = KNeighborsClassifier(3).fit(flat[train], classes[train])
            right[test] = neighbours.predict(flat[test]) == classes[test]
        rows.append(
            Row(
                system=f"Betti curves, {name}",
                data=where,
                name="share of sites whose class three nearest neighbours name",
                value=float(right.mean()),
                baseline=commonest,
                seed=seed,
                notes="baseline: the commonest class",
            )
        )
    return rows
