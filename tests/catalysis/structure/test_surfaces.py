from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalysis.structure.elements import arrow_order, bond_cutoff, fcc_lattice_constant, group_and_period
from catalysis.structure.surfaces import (
    FACETS,
    bare_slab,
    build_slab,
    decorate,
    facet_name,
    parse_composition,
    parse_facet,
    vegard_lattice_constant,
)
from interpretkit.errors import InputError


def test_compositions_are_read_as_people_write_them() -> None:
    assert parse_composition("IrPdPtRhRu") == pytest.approx(
        dict.fromkeys(("Ir", "Pd", "Pt", "Rh", "Ru"), 0.2)
    )
    assert parse_composition("Ir20Pd20Pt60") == pytest.approx({"Ir": 0.2, "Pd": 0.2, "Pt": 0.6})
    assert parse_composition("Pt0.75-Ni0.25") == pytest.approx({"Pt": 0.75, "Ni": 0.25})
    assert parse_composition({"Pt": 3, "Cu": 1}) == pytest.approx({"Pt": 0.75, "Cu": 0.25})


@pytest.mark.parametrize("text", ["", "Xx", "pt", "PtPt", "Pt0", "Pt-1x", "Pt80Ru-20", "Pt1.2.3", "O"])
def test_a_bad_composition_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"^--composition") as caught:
        parse_composition(text, where="--composition")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        ("111", (1, 1, 1)),
        ("fcc211", (2, 1, 1)),
        ("(5,3,2)", (5, 3, 2)),
        ("1-10", (1, -1, 0)),
        ("2 2 2", (1, 1, 1)),
    ],
)
def test_facets_are_read_as_people_write_them(text: str, indices: tuple[int, int, int]) -> None:
    assert parse_facet(text) == indices
    assert parse_facet(facet_name(indices)) == indices


@pytest.mark.parametrize("text", ["", "11", "000", "abc", "(1,2)", "1111"])
def test_a_bad_facet_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="Miller"):
        parse_facet(text)


@pytest.mark.parametrize("facet", [*FACETS, "310", "221", "(7,5,3)"])
def test_a_slab_has_the_density_and_the_spacing_of_its_facet(facet: str) -> None:
    constant = 3.9
    slab = bare_slab(facet, constant)
    assert slab.pbc.tolist() == [True, True, False]
    indices = np.array(parse_facet(facet))
    heights = np.unique(slab.positions[:, 2].round(3))
    # The spacing of the (hkl) planes of an fcc lattice: a / |hkl|, halved where the indices have mixed parity.
    spacing = constant / np.linalg.norm(indices) / (1 if np.all(indices % 2) else 2)
    assert np.diff(heights) == pytest.approx(spacing, abs=2e-3)
    area = np.linalg.norm(np.cross(*slab.cell.array[:2]))
    assert len(slab) / len(heights) == pytest.approx(area * spacing / (constant**3 / 4))
    distances = slab.get_all_distances(mic=True)[np.triu_indices(len(slab), 1)]
    assert distances.min() == pytest.approx(constant / np.sqrt(2), abs=1e-6)


@pytest.mark.parametrize("indices", [(5, 3, 2), (3, 5, 2), (-5, 3, 2), (9, 3, 1), (1, 9, 3)])
def test_a_chiral_facet_has_its_own_handedness(indices: tuple[int, int, int]) -> None:
    constant = 4.0
    slab = bare_slab(indices, constant, min_thickness_angstrom=12.0)
    middle = int(np.abs(slab.positions[:, 2] - slab.positions[:, 2].mean()).argmin())
    gaps = slab.get_distances(middle, range(len(slab)), mic=True, vector=True)
    around = gaps[np.abs(np.linalg.norm(gaps, axis=1) - constant / np.sqrt(2)) < 1e-6]
    half = [v for v in product((-1, 0, 1), repeat=3) if sum(map(abs, v)) == 2]
    cubic = np.array(half) * constant / 2
    assert len(around) == len(cubic) == 12
    # No two neighbours have the same height on such a facet, so heights tell which is which.
    heights = cubic @ indices / np.linalg.norm(indices)
    order = np.argsort(heights), np.argsort(around[:, 2])
    assert np.diff(np.sort(heights)).min() > 0.05
    rotation, *_ = np.linalg.lstsq(cubic[order[0]], around[order[1]], rcond=None)
    assert rotation.T @ rotation == pytest.approx(np.eye(3), abs=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1.0)


@settings(max_examples=30, deadline=None)
@given(
    indices=st.tuples(*[st.integers(-7, 7)] * 3).filter(any),
    constant=st.floats(3.3, 4.4),
    nudge=st.floats(-1e-9, 1e-9),
)
def test_a_slab_does_not_depend_on_the_last_digits_of_its_lattice_constant(
    indices: tuple[int, int, int], constant: float, nudge: float
) -> None:
    # Thickness and distance of images are multiples of the constant, so every choice is one among equals.
    first, second = (
        bare_slab(indices, a, min_repeat_angstrom=2 * a, min_thickness_angstrom=a)
        for a in (constant, constant + nudge)
    )
    assert len(first) == len(second)
    assert np.abs(first.positions - second.positions).max() < 1e-6
    assert np.abs(first.cell.array - second.cell.array).max() < 1e-6


@settings(max_examples=25, deadline=None)
@given(repeat=st.floats(5.0, 14.0), constant=st.floats(3.4, 4.3), facet=st.sampled_from([*FACETS, "321"]))
def test_periodic_images_keep_their_distance(repeat: float, constant: float, facet: str) -> None:
    slab = bare_slab(facet, constant, min_repeat_angstrom=repeat)
    steps = np.array([(i, j) for i in range(-3, 4) for j in range(-3, 4) if (i, j) != (0, 0)])
    assert np.linalg.norm(steps @ slab.cell.array[:2], axis=1).min() >= repeat - 1e-5


def test_occupation_follows_the_composition_and_the_seed() -> None:
    slab = bare_slab("111", 3.9, min_repeat_angstrom=40)
    shares = parse_composition("Ir10Pt90")
    symbols = decorate(slab, shares, seed=1).get_chemical_symbols()
    assert symbols.count("Ir") / len(symbols) == pytest.approx(0.1, abs=0.03)
    assert symbols == decorate(slab, shares, seed=1).get_chemical_symbols()
    assert symbols != decorate(slab, shares, seed=2).get_chemical_symbols()
    assert build_slab("111", "Pt", seed=3).get_chemical_symbols() == ["Pt"] * len(build_slab("111", "Pt"))


def test_lattice_constants_conserve_the_volume_of_the_crystal() -> None:
    assert fcc_lattice_constant("Pt") == pytest.approx(3.92)
    # hcp Ru: a = 2.70 Å, c/a = 1.584; two atoms in √3/2 a²c.
    volume = np.sqrt(3) / 2 * 2.70**3 * 1.584 / 2
    assert fcc_lattice_constant("Ru") == pytest.approx((4 * volume) ** (1 / 3), abs=1e-3)
    assert vegard_lattice_constant({"Pt": 0.5, "Pd": 0.5}) == pytest.approx((3.92 + 3.89) / 2)


def test_arrow_order_is_the_published_one_and_reaches_other_metals() -> None:
    assert sorted(("Pt", "Ir", "Pd", "Ru", "Rh"), key=arrow_order) == ["Ru", "Rh", "Ir", "Pd", "Pt"]
    known = {
        "Fe": (8, 4),
        "Cu": (11, 4),
        "Au": (11, 6),
        "Al": (13, 3),
        "La": (3, 6),
        "Hf": (4, 6),
        "Li": (1, 2),
    }
    assert {symbol: group_and_period(symbol) for symbol in known} == known


@pytest.mark.parametrize("symbol", ["Cu", "Ni", "Ag", "Au", "Pt", "Al", "Co", "Ir"])
def test_the_bond_cutoff_lies_between_first_and_second_neighbours(symbol: str) -> None:
    constant = fcc_lattice_constant(symbol)
    assert 1.1 * constant / np.sqrt(2) < bond_cutoff(symbol, symbol) < 0.95 * constant
