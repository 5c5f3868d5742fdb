"""Slabs that hold a given site: what a person would calculate, or make, to have it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from ase import Atoms

from catalysis.structure.adsorbates import get_adsorbate, place_adsorbate
from catalysis.structure.finding import find_sites
from catalysis.structure.sites import Site
from catalysis.structure.surfaces import bare_slab, vegard_lattice_constant
from catalysis.structure.templates import LATTICE_CONSTANT, Template, align

_REPEATS = (3.75, 4.5, 5.5)  # lattice constants between periodic images; hollow sites are wider than bridges


@dataclass(frozen=True, eq=False)
class Host:
    """A clean slab and a site of it.

    Attributes
    ----------
    slab : Atoms
        The clean slab; `info["filled_with"]` names the composition that fills the places outside the site.
    site : Site
        In the slab's coordinates, its `host_indices` pointing into it, the adsorbate placed but not relaxed.
    """

    slab: Atoms
    site: Site

    @property
    def with_adsorbate(self) -> Atoms:
        """The slab that carries the adsorbate, with the site's particulars in `info`."""
        atoms = self.slab + Atoms(self.site.adsorbate_symbols, positions=self.site.adsorbate_positions)
        atoms.info.update(self.site.info)
        return atoms


def host_site(
    template: Template, symbols: Sequence[str], *, adsorbate: str = "OH", seed: int = 0, **changes: str
) -> Host:
    """Build a slab whose surface holds a template's site occupied by the given elements.

    The slab is wide enough that every metal of the site is a different atom; the places outside the site are filled
    at random with the site's own composition; the lattice constant follows from it by Vegard's law.

    Parameters
    ----------
    template : Template
        Facet and class.
    symbols : sequence of str
        One element per slot of the template.
    adsorbate : str
        What to place.
    seed : int
        Of the filling.
    **changes : str
        Fields of the site to set, such as `site_id`.
    """
    counts = Counter(symbols)
    composition = {symbol: count / len(symbols) for symbol, count in counts.items()}
    ideal_slab, ideal_site, slots = _ideal_host(template)
    scale = vegard_lattice_constant(composition) / LATTICE_CONSTANT
    slab = ideal_slab.copy()
    slab.set_cell(slab.cell.array * scale, scale_atoms=True)
    generator = np.random.default_rng(seed)
    filling = generator.choice(list(composition), size=len(slab), p=list(composition.values()))
    occupied = [symbols[slot] for slot in slots]
    filling[list(ideal_site.host_indices)] = occupied
    slab.set_chemical_symbols([str(symbol) for symbol in filling])
    slab.info["filled_with"] = "".join(f"{symbol}{count}" for symbol, count in sorted(counts.items()))
    site = replace(ideal_site, symbols=tuple(occupied), positions=ideal_site.positions * scale, **changes)  # type: ignore[arg-type]
    molecule = get_adsorbate(adsorbate)
    placed = place_adsorbate(site.symbols, site.positions, site.contacts, site.frame, molecule)
    if placed is None:  # found on the ideal slab, so the contacts are close enough
        placed = molecule.place(site.adsorbate_positions[0], site.frame[2], site.frame[1])
    site = replace(
        site, adsorbate=molecule.name, adsorbate_symbols=molecule.symbols, adsorbate_positions=placed
    )
    return Host(slab, site)


@cache
def _ideal_host(template: Template) -> tuple[Atoms, Site, np.ndarray]:
    """Return a wide slab, a site of the template's class in it, and the slot of each of the site's metals (n,)."""
    for repeat in _REPEATS:
        slab = bare_slab(template.facet, LATTICE_CONSTANT, min_repeat_angstrom=repeat * LATTICE_CONSTANT)
        for site in find_sites(slab, kinds=(template.site.kind,)):
            if site.site_class == template.site_class and len(site) == len(template):
                alignment = align(site)
                distinct = len(set(site.host_indices)) == len(site)
                # Templates of other adsorbates are other objects with the same slots.
                same = alignment.template is not None and alignment.template.key == template.key
                if same and distinct and np.all(alignment.slots >= 0):
                    return slab, site, alignment.slots
    raise RuntimeError(f"no slab found that holds {template.key} without meeting its periodic image")
