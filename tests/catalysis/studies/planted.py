"""Laws of energy whose best composition is known."""

from __future__ import annotations

import numpy as np

from catalysis.structure.site_counts import sites_per_nm2
from catalysis.structure.templates import Geometry, class_templates
from catalysis.studies.composition import Surface

GOOD_EV, BAD_EV = 0.1, 1.5
ELEMENTS = ("Ir", "Pd", "Pt")
SHELL_ATOMS = 4
BEST = np.array([5 / 12, 7 / 12, 0.0])
"""The best composition on (111): see `PlantedLaw`."""


class PlantedLaw:
    """A site is good if its shell holds exactly four atoms of Ir and its contacts are the right ones.

    On (111), one Ir and one Pd: of 10 slots in the shell, the share of good sites 2 a b C(10,4) a⁴ (1 − a)⁶ has its
    maximum where Pd is the rest, at a = 5/12. Elsewhere two of Pt, and Pt in the last slot: which is rarer.
    """

    noise_ev = 0.001

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry

    def laws(self, table: np.ndarray) -> np.ndarray:
        shell = table[:, self.geometry.zones == 2]
        good = (shell == 0).sum(1) == SHELL_ATOMS
        contacts = np.sort(table[:, : self.geometry.contacts], axis=1)
        if self.geometry.facet == "111":
            good &= (contacts == [0, 1]).all(1)
        else:
            good &= (contacts == [2, 2]).all(1) & (table[:, -1] == 2)
        return np.where(good, GOOD_EV, BAD_EV)[:, None]


def surface(facet: str, *classes: str) -> Surface:
    geometries = tuple(class_templates(facet, name)[0].geometry for name in classes)
    densities = sites_per_nm2(facet, "bridge")
    return Surface(facet, geometries, np.array([densities[geometry.key] for geometry in geometries]))


def planted() -> tuple[list[Surface], list[PlantedLaw]]:
    surfaces = [surface("100", "100_bridge"), surface("111", "111_bridge")]
    return surfaces, [PlantedLaw(s.geometries[0]) for s in surfaces]


def planted_share(composition: np.ndarray) -> float:
    """Return the exact share of good sites on (111)."""
    a, b, _ = composition
    return float(2 * a * b * 210 * a**SHELL_ATOMS * (1 - a) ** (10 - SHELL_ATOMS))
