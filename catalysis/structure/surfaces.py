"""Facets and decorations: slabs of any Miller index, occupied by any composition of metals."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product

import numpy as np
from ase import Atoms

from catalysis.structure.elements import fcc_lattice_constant, require_metal
from interpretkit.errors import InputError

FACETS = ("111", "100", "110", "211", "532")
"""The facets of the platinum-group study; every other Miller index works as well."""

Composition = dict[str, float]


def parse_composition(text: str | Mapping[str, float], where: str = "composition") -> Composition:
    """Return a composition as fractions that sum to one, elements in the order given.

    Parameters
    ----------
    text : str or mapping of str to float
        `"IrPdPtRhRu"` (equal shares), `"Ir20Pd20Pt60"` (proportions), or a mapping of symbol to proportion.
    where : str
        The name of the option, for the error message.

    Raises
    ------
    InputError
        If an element is unknown or repeated, or a proportion is negative, not finite, or all are zero.
    """
    if isinstance(text, Mapping):
        parts = [(str(symbol), float(share)) for symbol, share in text.items()]
    else:
        compact = re.sub(r"[\s,_-]+", "", text)
        found = re.findall(r"([A-Z][a-z]?)(\d*\.?\d*)", compact)
        # A hyphen parts elements; before a number it would be a sign.
        if (
            not found
            or re.search(r"-\s*[\d.]", text)
            or "".join(symbol + share for symbol, share in found) != compact
        ):
            raise InputError(f"{where}: {text!r} is not a composition; expected IrPdPtRhRu or Ir20Pd20Pt60")
        try:
            parts = [(symbol, float(share) if share else 1.0) for symbol, share in found]
        except ValueError:
            raise InputError(f"{where}: {text!r} holds a number that cannot be read") from None
    symbols = [require_metal(symbol, where) for symbol, _ in parts]
    shares = np.array([share for _, share in parts], dtype=float)
    if len(set(symbols)) != len(symbols):
        raise InputError(f"{where}: {text!r} names an element twice")
    if not np.all(np.isfinite(shares)) or np.any(shares < 0) or shares.sum() <= 0:
        raise InputError(
            f"{where}: {text!r} needs proportions that are finite, not negative and not all zero"
        )
    return {symbol: float(share) for symbol, share in zip(symbols, shares / shares.sum(), strict=True)}


def parse_facet(text: str | tuple[int, int, int], where: str = "facet") -> tuple[int, int, int]:
    """Return Miller indices from `"111"`, `"fcc111"`, `"(2,1,1)"`, `"1 -1 0"` or a tuple of three integers.

    Raises
    ------
    InputError
        If the text does not hold three integers, or all are zero.
    """
    if isinstance(text, str):
        body = re.sub(r"^fcc", "", text.strip(), flags=re.IGNORECASE).strip("()[] ")
        found = re.findall(r"-?\d", body) if re.fullmatch(r"(-?\d){3}", body) else re.split(r"[\s,;]+", body)
        try:
            indices = tuple(int(part) for part in found)
        except ValueError:
            indices = ()
    else:
        indices = tuple(int(part) for part in text)
    if len(indices) != 3 or not any(indices):
        raise InputError(f"{where}: {text!r} is not a Miller index; expected 111, fcc211 or (5,3,2)")
    reduced = np.array(indices) // np.gcd.reduce(indices)
    return int(reduced[0]), int(reduced[1]), int(reduced[2])


def facet_name(indices: tuple[int, int, int]) -> str:
    """Return the short name of a facet: `"211"`, or `"10,1,1"` where an index has two digits or a sign."""
    if all(0 <= index <= 9 for index in indices):
        return "".join(map(str, indices))
    return ",".join(map(str, indices))


def read_facet(value: object, where: str = "facet") -> str:
    """Return the short name of a facet in any of the ways in which people and file formats write it.

    Parameters
    ----------
    value : object
        What `parse_facet` reads, `"bcc110"`, `"hcp0001"`, four Miller-Bravais indices such as `"0001"` and `"10-10"`
        (kept as four, so that a hexagonal facet is never taken for a cubic one), an array of indices, or an integer,
        for that is what extxyz makes of `facet=111`. None and empty text stand for an unknown facet.
    where : str
        The name of the option, or file and frame, for the error message.

    Returns
    -------
    str
        As `facet_name`, `"0001"` or `"10-10"`; empty where the facet is unknown.

    Raises
    ------
    InputError
        If it is no Miller index, or an integer that has lost the zeros which told what it was.
    """
    expected = "expected 111, fcc211, (5,3,2) or hcp0001"
    if value is None or (isinstance(value, str) and not value.strip()):
        return ""
    if isinstance(value, bool | np.bool_ | float | np.floating):
        raise InputError(f"{where}: facet is {value!r}; {expected}")
    if isinstance(value, int | np.integer):
        if value == 1:
            raise InputError(
                f"{where}: facet 1 may have been 001 or 0001 (a file's leading zeros are lost); "
                "expected facet=fcc001, bcc001 or hcp0001"
            )
        text = f"{int(value):03d}" if value >= 0 else str(int(value))
    elif isinstance(value, str):
        text = value.strip()
    else:
        text = ",".join(str(index) for index in np.ravel(np.asarray(value)))
    hexagonal = text.lower().startswith("hcp")
    text = re.sub(r"^(fcc|bcc|hcp)", "", text, flags=re.IGNORECASE).strip("()[]{} ")
    compact = re.fullmatch(r"(-?\d){3,4}", text)
    parts = re.findall(r"-?\d", text) if compact else re.split(r"[\s,;]+", text)
    if not all(re.fullmatch(r"[+-]?\d+", part) for part in parts) or len(parts) not in (3, 4):
        raise InputError(f"{where}: facet {value!r} is not a Miller index; {expected}")
    indices = [int(part) for part in parts]
    if len(indices) == 3 and hexagonal:
        indices.insert(2, -indices[0] - indices[1])
    if len(indices) == 3:
        return facet_name(parse_facet((indices[0], indices[1], indices[2]), where))
    h, k, i, m = indices
    if h + k + i != 0 or not any(indices):
        raise InputError(
            f"{where}: facet {value!r} has four indices of which the first three do not sum to zero; "
            "expected 0001, 10-10 or the like"
        )
    divisor = int(np.gcd.reduce(indices))
    reduced = [h // divisor, k // divisor, i // divisor, m // divisor]
    return ("" if all(abs(index) <= 9 for index in reduced) else ",").join(map(str, reduced))


def is_hexagonal(facet: str) -> bool:
    """Tell whether a facet's name, as `read_facet` gives it, has the four indices of a hexagonal crystal."""
    return len(re.findall(r"-?\d+", facet) if "," in facet else re.findall(r"-?\d", facet)) == 4


def vegard_lattice_constant(composition: Mapping[str, float]) -> float:
    """Return the composition's mean of the elements' fcc lattice constants, in Å (Vegard's law)."""
    return float(sum(share * fcc_lattice_constant(symbol) for symbol, share in composition.items()))


def decorate(slab: Atoms, composition: Mapping[str, float], seed: int | np.random.Generator) -> Atoms:
    """Return a copy of `slab` whose atoms are drawn independently from a composition."""
    generator = np.random.default_rng(seed)
    symbols = generator.choice(list(composition), size=len(slab), p=list(composition.values()))
    decorated = slab.copy()
    decorated.set_chemical_symbols([str(symbol) for symbol in symbols])
    return decorated


def bare_slab(
    facet: str | tuple[int, int, int],
    lattice_constant: float,
    *,
    min_repeat_angstrom: float = 8.0,
    min_thickness_angstrom: float | None = None,
    vacuum_angstrom: float = 8.0,
    symbol: str = "Pt",
) -> Atoms:
    """Build an ideal fcc slab of any Miller index with as few atoms as the given lengths allow.

    Parameters
    ----------
    facet : str or tuple of int
        Miller indices with respect to the cubic cell.
    lattice_constant : float
        Of the cubic cell, in Å.
    min_repeat_angstrom : float
        The smallest distance between periodic images in the plane.
    min_thickness_angstrom : float, optional
        The smallest distance between the heights of the lowest and the highest atom; by default √3 lattice
        constants, four layers of a (111) slab, enough for every metal within two bonds of a surface site.
    vacuum_angstrom : float
        Empty space above and below.
    symbol : str
        The element of every atom.

    Returns
    -------
    Atoms
        Periodic in the plane, vacuum along z, the surface facing +z, atoms sorted from top to bottom.
    """
    indices = parse_facet(facet)
    for name, value in (("lattice_constant", lattice_constant), ("min_repeat", min_repeat_angstrom)):
        if not (np.isfinite(value) and 0.5 < value < 100):
            raise InputError(f"{name}: {value} Å is out of range; expected a length between 0.5 and 100 Å")
    normal = np.array(indices) @ _PRIMITIVE.T
    # A plane of the cubic lattice has these indices in the primitive basis; there every layer holds one atom.
    normal //= np.gcd.reduce(normal)
    spacing = lattice_constant * _layer_spacing(normal)
    thickness = np.sqrt(3) * lattice_constant if min_thickness_angstrom is None else min_thickness_angstrom
    layers = int(np.ceil(thickness / spacing - 1e-6)) + 1
    in_plane, step = _plane(normal)
    # Everything is chosen in whole numbers; lengths come last, so that no rounding decides between equals.
    edges = _in_plane_supercell(in_plane, min_repeat_angstrom * 2 / lattice_constant)
    vectors = edges @ _PRIMITIVE * (lattice_constant / 2)
    first, second = np.linalg.norm(vectors, axis=1)
    overlap = float(vectors[0] @ vectors[1]) / first
    area = float(np.linalg.norm(np.cross(*vectors)))
    cell = np.diag([first, area / first, (layers - 1) * spacing + 2 * vacuum_angstrom])
    cell[1, 0] = 0.0 if abs(overlap) < 1e-9 * second else overlap
    fractions, heights = _lattice_points(edges, in_plane, step, layers)
    positions = fractions @ cell[:2]
    positions[:, 2] = heights * spacing + vacuum_angstrom
    slab = Atoms([symbol] * len(positions), positions=positions, cell=cell, pbc=(True, True, False))
    slab.info["facet"] = facet_name(indices)
    return slab


def build_slab(
    facet: str | tuple[int, int, int],
    composition: str | Mapping[str, float],
    *,
    seed: int = 0,
    lattice_constant: float | None = None,
    min_repeat_angstrom: float = 8.0,
    min_thickness_angstrom: float | None = None,
    vacuum_angstrom: float = 8.0,
) -> Atoms:
    """Build an ideal slab occupied at random by a composition.

    Parameters
    ----------
    facet : str or tuple of int
    composition : str or mapping of str to float
        As `parse_facet` and `parse_composition` read them.
    seed : int
        Of the random occupation.
    lattice_constant : float, optional
        In Å; Vegard's law by default.
    min_repeat_angstrom : float
    min_thickness_angstrom : float, optional
    vacuum_angstrom : float
        As for `bare_slab`.

    Returns
    -------
    Atoms
        See `bare_slab`; `info` holds the facet and the seed.
    """
    shares = parse_composition(composition)
    constant = vegard_lattice_constant(shares) if lattice_constant is None else lattice_constant
    slab = bare_slab(
        facet,
        constant,
        min_repeat_angstrom=min_repeat_angstrom,
        min_thickness_angstrom=min_thickness_angstrom,
        vacuum_angstrom=vacuum_angstrom,
    )
    slab = decorate(slab, shares, seed)
    slab.info["seed"] = seed
    return slab


_PRIMITIVE = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
"""The primitive vectors of the fcc lattice as rows, in units of half its lattice constant."""

_GRAM = _PRIMITIVE @ _PRIMITIVE.T  # their inner products, in units of a quarter of its square


def _layer_spacing(normal: np.ndarray) -> float:
    """Return the distance of lattice planes with the given primitive indices, in lattice constants."""
    return 0.5 / float(np.sqrt(normal @ np.linalg.inv(_GRAM) @ normal))


def _plane(normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two vectors that span the lattice plane, (2, 3), and one that leads to the next plane outwards, (3,).

    All are whole numbers in the primitive basis. The two are right-handed as seen from outside, and canonical.
    """
    h, k, m = (int(index) for index in normal)
    if k == m == 0:
        in_plane, step = np.array([[0, 1, 0], [0, 0, 1]]), np.array([h, 0, 0])
    else:
        common, p, q = _bezout(k, m)
        in_plane = np.array([[0, m // common, -k // common], [common, -p * h, -q * h]])
        _, r, s = _bezout(h, common)
        step = np.array([r, s * p, s * q])
    if np.cross(*in_plane) @ normal < 0:
        in_plane = in_plane[::-1]
    return _canonical_basis(in_plane), step


def _bezout(a: int, b: int) -> tuple[int, int, int]:
    """Return the greatest common divisor g > 0 of two integers, and x, y with x a + y b = g."""
    x, y, next_x, next_y = 1, 0, 0, 1
    while b:
        quotient = a // b
        a, b = b, a - quotient * b
        x, y, next_x, next_y = next_x, next_y, x - quotient * next_x, y - quotient * next_y
    return (a, x, y) if a > 0 else (-a, -x, -y)


def _reduced(basis: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Return a basis of two shortest vectors of a planar lattice (Lagrange-Gauss) and their squared lengths.

    Rows are whole numbers in the primitive basis, shape (2, 3); squares are in units of a quarter of the squared
    lattice constant. Handedness is kept.
    """
    first, second = basis
    while True:
        square, other = int(first @ _GRAM @ first), int(second @ _GRAM @ second)
        if square > other:
            first, second, square, other = second, -first, other, square
        overlap = int(first @ _GRAM @ second)
        if 2 * abs(overlap) <= square:
            return np.array([first, second]), square, other
        second = second - (2 * overlap + square) // (2 * square) * first


def _canonical_basis(basis: np.ndarray) -> np.ndarray:
    """Return the one basis that stands for a planar lattice, of the same handedness, shape (2, 3).

    Of all bases of two shortest vectors: one with an angle up to 90° if there is any, and of these the one whose
    Cartesian components are the largest in lexicographic order.
    """
    reduced, *shortest = _reduced(basis)
    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    found = []
    for (a, b), (c, d) in product(steps, repeat=2):
        if a * d - b * c == 1:
            pair = np.array([[a, b], [c, d]]) @ reduced
            squares = pair @ _GRAM @ pair.T
            if [squares[0, 0], squares[1, 1]] == shortest:
                found.append(
                    (bool(squares[0, 1] < 0), tuple((-pair @ _PRIMITIVE).ravel().tolist()), pair.tolist())
                )
    return np.array(min(found)[2])


def _in_plane_supercell(in_plane: np.ndarray, min_repeat: float) -> np.ndarray:
    """Return the vectors of the smallest supercell whose shortest lattice vector is long enough, shape (2, 3).

    Among supercells of equal area the most compact one is taken, then the one with the first canonical basis.
    `min_repeat` is in units of half the lattice constant, the vectors are whole numbers in the primitive basis.
    """
    needed = (min_repeat - 1e-6) ** 2
    unit = float(np.sqrt(np.linalg.det(in_plane @ _GRAM @ in_plane.T)))
    # No planar lattice is denser than the hexagonal one; a square one is always long enough at twice its area.
    smallest = max(1, int(np.sqrt(3) / 2 * needed / unit))
    for area in range(smallest, 2 * int(np.ceil(min_repeat**2 / unit)) + 5):
        fits: list[tuple[int, int, np.ndarray]] = []
        for rows in (row for row in range(1, area + 1) if area % row == 0):
            for shear in range(area // rows):
                lattice, first, second = _reduced(np.array([[rows, shear], [0, area // rows]]) @ in_plane)
                if first >= needed:
                    fits.append((first + second, second, lattice))
        if fits:
            best = min(fit[:2] for fit in fits)
            bases = [_canonical_basis(lattice) for *size, lattice in fits if tuple(size) == best]
            return max(bases, key=lambda basis: (basis @ _PRIMITIVE).ravel().tolist())
    raise InputError(f"min_repeat: no supercell found for {min_repeat} half lattice constants")


def _lattice_points(
    edges: np.ndarray, in_plane: np.ndarray, step: np.ndarray, layers: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return every lattice point of a supercell, from the top layer down: fractions along the edges, layer's number.

    Shapes (n, 2) and (n,); the lowest layer is number 0.
    """
    gram = edges @ _GRAM @ edges.T
    adjugate = np.array([[gram[1, 1], -gram[0, 1]], [-gram[1, 0], gram[0, 0]]])
    volume = int(gram[0, 0] * gram[1, 1] - gram[0, 1] ** 2)
    plane = in_plane @ _GRAM @ in_plane.T
    area = round(float(np.sqrt(volume / (plane[0, 0] * plane[1, 1] - plane[0, 1] ** 2))))

    def fractions(points: np.ndarray) -> np.ndarray:
        return points @ _GRAM @ edges.T @ adjugate.T % volume

    i, j = np.divmod(np.arange(area**2), area)
    cell = np.unique(fractions(i[:, None] * in_plane[0] + j[:, None] * in_plane[1]), axis=0)
    found, numbers = [], []
    for depth in range(layers):
        layer = (cell + fractions(-depth * step)) % volume
        found.append(layer[np.lexsort((layer[:, 0], layer[:, 1]))])
        numbers += [layers - 1 - depth] * len(cell)
    return np.concatenate(found) / volume, np.array(numbers)
