"""Sites with energies to train on: what is refused, and how relatives are kept on one side of a split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from catalysis.structure.sites import Site
from interpretkit.errors import InputError

MIN_SITES = 20
"""Fewer sites than this are refused."""


def check_training_data(sites: Sequence[Site], energies_ev: np.ndarray | None) -> np.ndarray:
    """Return the energies, shape (n,), or those that the sites carry if `energies_ev` is None.

    Raises
    ------
    InputError
        For fewer than 20 sites, energies that are missing, not finite or all alike, or several adsorbates.
    """
    if len(sites) < MIN_SITES:
        raise InputError(f"{len(sites)} sites with energies; expected at least {MIN_SITES} to train on")
    if energies_ev is None:
        for number, site in enumerate(sites):
            if site.energy_ev is None:
                raise InputError(
                    f"{site.site_id or f'site {number}'}: no energy; training needs one per site"
                )
        energies_ev = np.array([site.energy_ev for site in sites], dtype=float)
    energies = np.asarray(energies_ev, dtype=float)
    if energies.shape != (len(sites),):
        raise InputError(f"energies: shape {energies.shape}; expected one per site, ({len(sites)},)")
    bad = np.flatnonzero(~np.isfinite(energies))
    if len(bad):
        name = sites[bad[0]].site_id or f"site {bad[0]}"
        raise InputError(f"{name}: energy {energies[bad[0]]}; expected a finite number in eV")
    if np.ptp(energies) < 1e-9:
        raise InputError(f"energies: all are {energies[0]:.4g} eV; expected energies that differ")
    adsorbates = sorted({site.adsorbate for site in sites})
    if len(adsorbates) > 1:
        raise InputError(f"adsorbates: {', '.join(adsorbates)}; expected one for one energy model")
    return energies


def slab_groups(sites: Sequence[Site]) -> list[str]:
    """Return the slab of each site, (n,): relatives, for they share atoms. A site without `slab_id` stands alone."""
    return [site.slab_id or f"site {k}" for k, site in enumerate(sites)]


def group_folds(groups: Sequence[str], n_folds: int, seed: int) -> np.ndarray:
    """Return a fold number for each item, shape (n,): a group is never split, folds are of nearly equal size.

    Groups are shuffled, then handed out, the largest first, each to the fold that is smallest so far.
    """
    names, index, sizes = np.unique(np.asarray(groups, dtype=str), return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    load, fold = np.zeros(n_folds, int), np.zeros(len(names), int)
    for name in order:
        fold[name] = load.argmin()
        load[fold[name]] += sizes[name]
    return fold[index]
