"""Write down everything that is chosen among equals: run as a script on differently set up processors, compared."""

from __future__ import annotations

import sys

import numpy as np

from catalysis.energies.features import FeatureSpace
from catalysis.structure.finding import find_sites
from catalysis.structure.host_slabs import host_site
from catalysis.structure.occupations import occupations
from catalysis.structure.surfaces import bare_slab
from catalysis.structure.templates import Template, align, facet_templates
from catalysis.structure.user_sites import site_from_structure

FACETS = ("111", "100", "110", "211", "532", "221", "10,1,1", "1,-1,0")


def slabs_and_sites(found: dict[str, np.ndarray]) -> None:
    """Slabs at lattice constants that round differently, and the sites on them."""
    for facet in FACETS:
        for constant in (3.81, 3.923):
            key = f"{facet} {constant}"
            slab = bare_slab(facet, constant, min_repeat_angstrom=2.1 * constant)
            found[f"slab {key}"], found[f"cell {key}"] = slab.positions, slab.cell.array
        sites = find_sites(slab, kinds=("top", "bridge", "hollow"))
        found[f"numbers {facet}"] = np.concatenate([np.array(site.host_indices) for site in sites])
        found[f"names {facet}"] = np.array([site.site_id for site in sites])
        found[f"adsorbates {facet}"] = np.concatenate([site.adsorbate_positions for site in sites])


def template_arrays(found: dict[str, np.ndarray]) -> list[Template]:
    """Slots, symmetries and landmarks of templates."""
    templates = [t for facet in FACETS[:5] for variants in facet_templates(facet).values() for t in variants]
    for template in templates:
        key = f"{template.facet} {template.key}"
        found[f"points {key}"] = template.positions
        found[f"order {key}"] = template.order
        found[f"symmetries {key}"] = template.permutations
    ideal = occupations([template.decorate(["Pt"] * len(template)) for template in templates])
    found["landmarks"] = FeatureSpace.of(ideal, 0.5).landmarks
    return templates


def matched_sites(found: dict[str, np.ndarray], templates: list[Template]) -> None:
    """Slots of sites cut out of slabs."""
    hosts = [
        host_site(template, ["Pt", "Pd", "Ru", "Ir"] * (len(template) // 4) + ["Pt"] * (len(template) % 4))
        for template in templates[::8]
    ]
    sites = [site_from_structure(host.with_adsorbate) for host in hosts]
    found["cut out"] = np.concatenate([np.array(site.symbols) for site in sites])
    found["slots"] = np.concatenate([align(site).slots for site in sites])
    found["table"] = occupations(sites).table


def main() -> None:
    """Write to the file that is named on the command line."""
    found: dict[str, np.ndarray] = {}
    slabs_and_sites(found)
    matched_sites(found, template_arrays(found))
    np.savez(sys.argv[1], allow_pickle=False, **found)


if __name__ == "__main__":
    main()
