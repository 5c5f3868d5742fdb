"""How many sites of each geometry a facet offers."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np

from catalysis.structure.finding import find_sites
from catalysis.structure.surfaces import bare_slab
from catalysis.structure.templates import LATTICE_CONSTANT, align


@cache
def _counted(facet: str, kind: str) -> tuple[dict[str, int], float]:
    slab = bare_slab(facet, LATTICE_CONSTANT)
    found: Counter[str] = Counter()
    for site in find_sites(slab, kinds=(kind,)):
        template = align(site).template
        if template is not None:
            found[template.key] += 1
    area = float(np.linalg.norm(np.cross(*slab.cell.array[:2])))
    return dict(found), area / 100


def sites_per_nm2(
    facet: str, kind: str, lattice_constant_angstrom: float = LATTICE_CONSTANT
) -> dict[str, float]:
    """Return how many sites of each geometry there are per nm² of an ideal facet.

    Parameters
    ----------
    facet
        Its name, such as `"211"`.
    kind
        `"top"`, `"bridge"` or `"hollow"`.
    lattice_constant_angstrom
        In Å; the density goes with its inverse square.

    Returns
    -------
    dict
        From the key of a template to its density, in the order of the keys.
    """
    counts, area = _counted(facet, kind)
    scale = (LATTICE_CONSTANT / lattice_constant_angstrom) ** 2
    return {key: scale * count / area for key, count in sorted(counts.items())}
