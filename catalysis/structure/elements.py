"""Properties of the metals: radii that define bonds, lattice constants, and the order that directs arrows."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
from ase.data import atomic_masses, atomic_numbers, reference_states

from interpretkit.errors import InputError

COVALENT_RADIUS: dict[str, float] = {
    "Li": 1.33, "Be": 1.02, "Na": 1.55, "Mg": 1.39, "Al": 1.26, "K": 1.96, "Ca": 1.71, "Sc": 1.48,
    "Ti": 1.36, "V": 1.34, "Cr": 1.22, "Mn": 1.19, "Fe": 1.16, "Co": 1.11, "Ni": 1.10, "Cu": 1.12,
    "Zn": 1.18, "Ga": 1.24, "Y": 1.63, "Zr": 1.54, "Nb": 1.47, "Mo": 1.38, "Tc": 1.28, "Ru": 1.25,
    "Rh": 1.25, "Pd": 1.20, "Ag": 1.28, "Cd": 1.36, "In": 1.42, "Sn": 1.40, "La": 1.80, "Ce": 1.63,
    "Hf": 1.52, "Ta": 1.46, "W": 1.37, "Re": 1.31, "Os": 1.29, "Ir": 1.22, "Pt": 1.23, "Au": 1.24,
    "Tl": 1.44, "Pb": 1.44, "Bi": 1.51,
    "H": 0.32, "He": 0.46, "B": 0.85, "C": 0.75, "N": 0.71, "O": 0.63, "F": 0.64, "Ne": 0.67, "Si": 1.16,
    "P": 1.11, "S": 1.03, "Cl": 0.99, "Ar": 0.96, "Ge": 1.21, "As": 1.21, "Se": 1.16, "Br": 1.14, "Kr": 1.17,
    "Sb": 1.40, "Te": 1.36, "I": 1.33, "Xe": 1.31,
}  # fmt: skip
"""Single-bond covalent radii in Å (Pyykkö & Atsumi, Chem. Eur. J. 15, 186 (2009))."""

PAULING_ELECTRONEGATIVITY: dict[str, float] = {
    "Li": 0.98, "Be": 1.57, "Na": 0.93, "Mg": 1.31, "Al": 1.61, "K": 0.82, "Ca": 1.00, "Sc": 1.36,
    "Ti": 1.54, "V": 1.63, "Cr": 1.66, "Mn": 1.55, "Fe": 1.83, "Co": 1.88, "Ni": 1.91, "Cu": 1.90,
    "Zn": 1.65, "Ga": 1.81, "Y": 1.22, "Zr": 1.33, "Nb": 1.60, "Mo": 2.16, "Tc": 1.90, "Ru": 2.20,
    "Rh": 2.28, "Pd": 2.20, "Ag": 1.93, "Cd": 1.69, "In": 1.78, "Sn": 1.96, "La": 1.10, "Ce": 1.12,
    "Hf": 1.30, "Ta": 1.50, "W": 2.36, "Re": 1.90, "Os": 2.20, "Ir": 2.20, "Pt": 2.28, "Au": 2.54,
    "Tl": 1.62, "Pb": 1.87, "Bi": 2.02,
}  # fmt: skip
"""Pauling electronegativities (CRC Handbook of Chemistry and Physics)."""

METALS: frozenset[str] = frozenset(PAULING_ELECTRONEGATIVITY)
"""The metals that a slab may be made of."""

NON_METALS: frozenset[str] = frozenset(COVALENT_RADIUS) - METALS
"""The elements, half-metals among them, that an adsorbate may be made of."""

BOND_FACTOR = 1.38
"""Two metals are bonded up to this multiple of the sum of their covalent radii (1.15 × 1.2, as in PGH-VAE)."""

_PERIOD_ENDS = (2, 10, 18, 36, 54, 86)


def parse_elements(text: str, where: str) -> tuple[str, ...]:
    """Return the metals of a list such as `"Pt,Pd,Ir"`, `"Pt Pd Ir"` or `"PtPdIr"`, each once, in the order given.

    Raises
    ------
    InputError
        If it names none, or anything that is no metal; `where` names the option.
    """
    expected = "expected metals such as Pt,Pd,Ir or PtPdIr"
    parts = [part for part in re.split(r"[\s,;]+", text.strip()) if part]
    if not parts:
        raise InputError(f"{where}: {text!r} names none; {expected}")
    symbols = []
    for part in parts:
        if not re.fullmatch(r"([A-Z][a-z]?)+", part):
            raise InputError(f"{where}: {part!r} in {text!r}; {expected}")
        symbols += [require_metal(symbol, where) for symbol in re.findall(r"[A-Z][a-z]?", part)]
    return tuple(dict.fromkeys(symbols))


def require_metal(symbol: str, where: str) -> str:
    """Return `symbol` if it is a metal that the toolkit has data for.

    Raises
    ------
    InputError
        If it is not; `where` names the option or file that it came from.
    """
    if symbol not in METALS:
        raise InputError(f"{where}: unknown metal {symbol!r}; expected one of {', '.join(sorted(METALS))}")
    return symbol


@cache
def group_and_period(symbol: str) -> tuple[int, int]:
    """Return the group (1-18) and the period (1-6) of an element; the f-block counts as group 3."""
    number = atomic_numbers[symbol]
    period = 1 + sum(number > end for end in _PERIOD_ENDS)
    position = number - (0, *_PERIOD_ENDS)[period - 1]
    if period == 1:
        return (1 if number == 1 else 18), 1
    if period <= 3:
        return (position if position <= 2 else position + 10), period
    if period <= 5 or position <= 2:
        return position, period
    return (3 if position <= 17 else position - 14), period


@cache
def arrow_order(symbol: str) -> tuple[int, int]:
    """Return the key that directs the arrow between two metals: from the lower to the higher key.

    The key is (group, period), so the filling of the d-band decides first and the row of the table second. For the
    platinum-group metals it gives Ru < Rh < Ir < Pd < Pt, the published order, and it extends to any other metal.
    """
    return group_and_period(symbol)


@cache
def fcc_lattice_constant(symbol: str) -> float:
    """Return the lattice constant (Å) of the fcc crystal with the element's experimental volume per atom.

    Raises
    ------
    InputError
        If ASE holds no fcc, hcp or bcc reference state for the element.
    """
    state = reference_states[atomic_numbers[require_metal(symbol, "element")]] or {}
    structure = state.get("symmetry")
    if structure == "fcc":
        return float(state["a"])
    if structure == "hcp":
        volume = np.sqrt(3) / 4 * state["a"] ** 3 * state["c/a"]
    elif structure == "bcc":
        volume = state["a"] ** 3 / 2
    else:
        raise InputError(f"element {symbol}: no cubic or hexagonal reference state; give lattice_constant")
    return float((4 * volume) ** (1 / 3))


def bond_cutoff(first: str, second: str) -> float:
    """Return the largest distance (Å) at which two metals count as bonded."""
    return BOND_FACTOR * (COVALENT_RADIUS[first] + COVALENT_RADIUS[second])


ELEMENT_PROPERTIES = ("group", "period", "covalent_radius_angstrom", "electronegativity", "mass_amu")
"""Names of the columns of `element_properties`."""


def element_properties(symbols: list[str]) -> np.ndarray:
    """Return the properties of some metals, shape (len(symbols), 5), columns as in `ELEMENT_PROPERTIES`."""
    return np.array(
        [
            [
                *group_and_period(require_metal(symbol, "element")),
                COVALENT_RADIUS[symbol],
                PAULING_ELECTRONEGATIVITY[symbol],
                atomic_masses[atomic_numbers[symbol]],
            ]
            for symbol in symbols
        ],
        dtype=float,
    ).reshape(len(symbols), len(ELEMENT_PROPERTIES))
