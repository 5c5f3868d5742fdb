"""What relaxation does to a site, in numbers, for energy models that may look at it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from catalysis.structure.elements import arrow_order
from catalysis.structure.sites import Site

RELAXED_FEATURES = (
    "shortest_contact_bond", "mean_contact_bond", "contact_bond_difference", "contact_spread", "height", "offset",
    "tilt_out", "tilt_along", "tilt_sideways", "metal_bonds", "metal_bond_difference", "inner_bond",
)  # fmt: skip
"""Columns of `relaxed_geometry`."""


def relaxed_geometry(sites: Sequence[Site]) -> np.ndarray:
    """Return what relaxation does to the adsorbate and the contacts, shape (n, 12), columns as `RELAXED_FEATURES`.

    In Å: shortest and mean distance of the binding atom from the contacts; on a bridge, how much nearer it is to the
    second contact than to the first (contacts ordered by coordination number, then by `arrow_order`); mean distance
    of the contacts from their centre; height and sideways offset of the binding atom; mean length of the contacts'
    bonds to other metals, and its difference between two contacts; length of the adsorbate's first bond. Without
    unit: direction of that bond along the normal, the contacts' axis (absolute) and sideways (absolute); off a bridge,
    where no axis is better than another, its whole part along the surface, and 0.
    """
    rows = []
    for site in sites:
        bonds, count = site.bonds, site.contacts
        binding = site.adsorbate_positions[0]
        centre = site.positions[:count].mean(0)
        along, sideways, normal = site.frame
        lengths = np.linalg.norm(site.positions[:count] - binding, axis=1)
        around = np.array(
            [
                np.linalg.norm(site.positions[bonds[i]] - site.positions[i], axis=1).mean()
                if bonds[i].any()
                else 0
                for i in range(count)
            ]
        )
        unevenness = difference = 0.0
        if count == 2:
            keys = [(int(bonds[i].sum()), arrow_order(site.symbols[i])) for i in range(2)]
            first, second = (0, 1) if keys[0] <= keys[1] else (1, 0)
            unevenness, difference = lengths[first] - lengths[second], around[first] - around[second]
            if keys[0] == keys[1]:
                unevenness, difference = abs(unevenness), abs(difference)
        direction, inner = np.zeros(3), 0.0
        if len(site.adsorbate_positions) > 1:
            direction = site.adsorbate_positions[1] - binding
            inner = float(np.linalg.norm(direction))
            direction = direction / inner
        offset = binding - centre
        tilt = abs(direction @ along), abs(direction @ sideways)
        rows.append(
            [
                lengths.min(),
                lengths.mean(),
                unevenness,
                np.linalg.norm(site.positions[:count] - centre, axis=1).mean(),
                offset @ normal,
                np.linalg.norm(offset - (offset @ normal) * normal),
                direction @ normal,
                *(tilt if count == 2 else (float(np.hypot(*tilt)), 0.0)),
                around.mean(),
                difference,
                inner,
            ]
        )
    return np.array(rows).reshape(-1, len(RELAXED_FEATURES))
