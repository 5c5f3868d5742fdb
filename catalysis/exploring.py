"""Sites as a page shows them to be explored: on a map of their properties, and in three dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from catalysis.figures import adsorbate_bonds, element_colour
from catalysis.structure.elements import COVALENT_RADIUS
from catalysis.structure.reading import ENERGY_KEY
from catalysis.structure.sites import Site
from interpretkit.visualization.instruments import AtomValues, Property, Structure, StructureExplorer

# In covalent radii: atoms touch, and what lies behind them is seen.
_DRAWN_RADIUS = 0.75
WEAKEST, STRONGEST = "Weakest binding", "Strongest binding"


def explorer_of(
    sites: Sequence[Site],
    properties: Mapping[str, Property],
    *,
    x: str,
    y: str,
    colour: str,
    groups: Sequence[str] | None = None,
    marked: str = "",
    names: Sequence[str] | None = None,
    atom_values: Mapping[str, AtomValues] | None = None,
    first: str = "",
    file: str = "sites",
) -> StructureExplorer:
    """Return sites to be explored; their class, facet and contacts are properties of their own.

    Parameters
    ----------
    sites
        The sites, (n,).
    properties
        More that is known of them, by the name that it has in a saved file.
    x, y, colour, groups, marked, atom_values, first, file
        See :class:`~interpretkit.visualization.instruments.StructureExplorer`.
    names
        What the sites are called; their own names by default, each with a number where it comes again.
    """
    own = {
        "site_class": Property("class", [site.site_class or None for site in sites]),
        "facet": Property("facet", [site.facet or None for site in sites]),
        "contact_elements": Property("contact elements", [site.contact_elements for site in sites]),
    }
    structures = [
        Structure(
            symbols=[*site.symbols, *site.adsorbate_symbols],
            positions=site.to_atoms().positions,
            host_size=len(site),
            # Sideways is up, so that the normal looks the reader in the eye.
            frame=_right_up_towards(site),
            highlighted=range(site.contacts),
            bonds=adsorbate_bonds(site),
            info={**site.info, **({} if site.energy_ev is None else {ENERGY_KEY: site.energy_ev})},
        )
        for site in sites
    ]
    symbols = {symbol for one in structures for symbol in one.symbols}
    return StructureExplorer(
        different_names(names if names is not None else [site.site_id or "site" for site in sites]),
        {**properties, **{key: one for key, one in own.items() if any(one.values) and key not in properties}},
        structures,
        element_colours={symbol: element_colour(symbol) for symbol in symbols},
        radii={symbol: _DRAWN_RADIUS * COVALENT_RADIUS[symbol] for symbol in symbols},
        x=x,
        y=y,
        colour=colour,
        groups=groups if groups is not None else ["site"] * len(sites),
        marked=marked,
        atom_values=atom_values,
        first=first,
        file=file,
        label="Map of sites, each linked to its structure",
    )


def _right_up_towards(site: Site) -> np.ndarray:
    _, sideways, normal = site.frame
    return np.array([np.cross(sideways, normal), sideways, normal])


def different_names(names: Sequence[str]) -> list[str]:
    """Return names of which each occurs once: where one comes again it gets a number."""
    seen: dict[str, int] = {}
    told = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        told.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return told
