"""What the metals of a site or an alloy cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ase.data import atomic_masses, atomic_numbers

PRICES_USD_PER_G: Mapping[str, float] = {
    "Ag": 0.9, "Al": 0.0025, "Au": 77.0, "Co": 0.03, "Cu": 0.009, "Fe": 0.0004, "Ir": 150.0, "Mo": 0.05,
    "Ni": 0.017, "Pd": 32.0, "Pt": 31.0, "Rh": 148.0, "Ru": 14.0, "W": 0.04,
}  # fmt: skip
"""Prices in US dollars per gram: rounded means of market prices of 2024. A place to start from; give your own."""


def usd_per_mol(elements: Sequence[str], usd_per_g: Mapping[str, float]) -> np.ndarray:
    """Return the price of a mole of each metal in US dollars, (elements,); NaN where none is known."""
    return np.array([atomic_masses[atomic_numbers[e]] * usd_per_g.get(e, float("nan")) for e in elements])


def price_per_mol(composition: np.ndarray, elements: Sequence[str], usd_per_g: Mapping[str, float]) -> float:
    """Return the price of an alloy's metals in US dollars per mole of atoms."""
    return float(composition @ usd_per_mol(elements, usd_per_g))
