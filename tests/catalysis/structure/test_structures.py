"""Sites on slabs that other people build: every crystal, cell, adsorbate and way of writing them down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bcc100, bcc110, fcc100, fcc111, hcp0001, molecule
from ase.cluster import Octahedron
from scipy.sparse.csgraph import connected_components

from catalysis.structure.adsorbates import (
    ADSORBATES,
    Adsorbate,
    adsorbate_name,
    bonded_pairs,
    connected_parts,
    get_adsorbate,
    reached_from,
)
from catalysis.structure.finding import find_sites
from catalysis.structure.surfaces import bare_slab, build_slab, read_facet
from catalysis.structure.templates import align, facet_templates
from catalysis.structure.user_sites import site_from_structure
from interpretkit.errors import InputError

KINDS = ("top", "bridge", "hollow")


def with_atom(slab: Atoms, symbol: str, site: str, height: float, facet: str = "") -> Atoms:
    """Return the slab with an atom on one of ASE's own named sites."""
    atoms = slab.copy()
    add_adsorbate(atoms, symbol, height, site)
    atoms.info = {"facet": facet} if facet else {}
    return atoms


def refusal(atoms: Atoms, **options: str) -> str:
    with pytest.raises(InputError) as caught:
        site_from_structure(atoms, where="here", **options)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("here: ")
    assert "expected" in text
    return text


# --- hollows


@pytest.mark.parametrize(
    ("site", "height", "expected", "contacts"),
    [
        ("ontop", 1.75, "111_top_9", 1),
        ("bridge", 1.30, "111_bridge", 2),
        ("fcc", 1.15, "111_fcc_9-9-9", 3),
        ("hcp", 1.15, "111_hcp_9-9-9", 3),
    ],
)
def test_the_four_sites_of_a_close_packed_facet(
    site: str, height: float, expected: str, contacts: int
) -> None:
    found = site_from_structure(with_atom(fcc111("Pt", (3, 3, 4), vacuum=8), "O", site, height, "111"))
    assert (found.site_class, found.contacts, found.facet) == (expected, contacts, "111")
    assert expected in facet_templates("111")


@pytest.mark.parametrize("facet", ["111", "100", "211", "532", "221"])
def test_reading_finding_and_templates_name_a_class_alike(facet: str) -> None:
    slab = bare_slab(facet, 3.85)
    templates = facet_templates(facet)
    for site in find_sites(slab, kinds=KINDS, adsorbate="O"):
        atoms = slab + Atoms(site.adsorbate_symbols, positions=site.adsorbate_positions)
        atoms.info["facet"] = facet
        again = site_from_structure(atoms)
        assert again.site_class == site.site_class
        assert set(again.host_indices[: again.contacts]) == set(site.host_indices[: site.contacts])
        assert site.site_class in templates


def test_a_class_named_before_hollows_were_told_apart_is_named_anew() -> None:
    atoms = with_atom(fcc111("Pt", (3, 3, 4), vacuum=8), "O", "hcp", 1.15, "111")
    atoms.info["site_class"] = "111_hollow_9-9-9"
    assert site_from_structure(atoms).site_class == "111_hcp_9-9-9"
    atoms.info["site_class"] = "my hollow"
    assert site_from_structure(atoms).site_class == "my hollow"


# --- cells


@pytest.mark.parametrize("size", [(1, 1, 4), (2, 1, 4), (1, 2, 3), (2, 2, 4), (3, 3, 4), (4, 2, 3)])
@pytest.mark.parametrize(("site", "contacts"), [("ontop", 1), ("bridge", 2), ("fcc", 3), ("hcp", 3)])
def test_contacts_of_a_small_cell_are_images(size: tuple[int, int, int], site: str, contacts: int) -> None:
    height = {"ontop": 1.8, "bridge": 1.4}.get(site, 1.2)
    atoms = with_atom(fcc111("Pt", size, vacuum=8), "O", site, height, "111")
    found = site_from_structure(atoms)
    wide = site_from_structure(with_atom(fcc111("Pt", (5, 5, size[2]), vacuum=8), "O", site, height, "111"))
    assert found.contacts == contacts
    assert found.site_class == wide.site_class
    assert len(found) == len(wide)
    np.testing.assert_array_equal(np.bincount(found.zones), np.bincount(wide.zones))
    gaps = np.linalg.norm(found.positions - found.adsorbate_positions[0], axis=1)
    np.testing.assert_allclose(gaps[:contacts], gaps[0], atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1, 4), (2, 1, 4), (2, 2, 3), (3, 3, 3)])
def test_a_square_hollow_of_a_small_cell_has_four_contacts(size: tuple[int, int, int]) -> None:
    found = site_from_structure(with_atom(fcc100("Cu", size, vacuum=8), "O", "hollow", 0.9, "100"))
    assert (found.contacts, found.site_class) == (4, "100_hollow_8-8-8-8")


def test_a_skewed_cell_of_the_same_lattice_gives_the_same_site() -> None:
    atoms = with_atom(fcc111("Pt", (2, 2, 4), vacuum=8), "O", "fcc", 1.15, "111")
    expected = site_from_structure(atoms)
    a, b, c = atoms.cell.array
    for cell in ([a, b + 3 * a, c], [a - 2 * b, b, c], [a, b, c + 2 * a - b]):
        skewed = atoms.copy()
        skewed.set_cell(cell)
        skewed.wrap()
        found = site_from_structure(skewed)
        assert (found.site_class, found.contact_elements, len(found)) == (
            expected.site_class,
            expected.contact_elements,
            len(expected),
        )


def test_a_slab_is_found_however_its_cell_cuts_and_turns_it() -> None:
    slab = build_slab("211", "IrPdPtRhRu", seed=3)
    slab.pbc = True
    expected = Counter((s.site_class, s.contact_elements) for s in find_sites(slab, kinds=KINDS))
    assert len(expected) > 10
    cut = slab.copy()
    cut.positions += [0, 0, 0.5 * slab.cell.array[2, 2]]
    cut.wrap()
    turned = slab.copy()
    turned.rotate(70, (1, 2, 3), rotate_cell=True)
    exchanged = slab.copy()
    exchanged.set_cell(slab.cell.array[[2, 0, 1]])
    for other in (cut, turned, exchanged):
        assert Counter((s.site_class, s.contact_elements) for s in find_sites(other, kinds=KINDS)) == expected


# --- other crystals


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        (with_atom(hcp0001("Ru", (3, 3, 4), vacuum=8), "O", "fcc", 1.2, "0001"), "0001_fcc_9-9-9"),
        (with_atom(hcp0001("Ru", (3, 3, 4), vacuum=8), "O", "hcp", 1.2, "hcp0001"), "0001_hcp_9-9-9"),
        (with_atom(hcp0001("Ru", (2, 2, 4), vacuum=8), "O", "ontop", 1.8, "0001"), "0001_top_9"),
        (with_atom(bcc110("Fe", (3, 3, 4), vacuum=8), "O", "hollow", 1.05, "bcc110"), "110_hollow_10-10-10"),
        (with_atom(bcc110("Fe", (3, 3, 4), vacuum=8), "O", "ontop", 1.7, "110"), "110_top_10"),
        (with_atom(bcc100("Fe", (3, 3, 4), vacuum=8), "O", "hollow", 0.5, "bcc100"), "100_hollow_9-9-9-9"),
        (with_atom(bcc100("Fe", (3, 3, 4), vacuum=8), "C", "hollow", 0.35, "100"), "100_hollow_9-9-9-9"),
        (with_atom(bcc100("Fe", (1, 1, 4), vacuum=8), "N", "hollow", 0.3, "100"), "100_hollow_9-9-9-9"),
        (with_atom(bcc100("W", (2, 2, 5), vacuum=8), "O", "hollow", 0.6, "100"), "100_hollow_9-9-9-9"),
        (with_atom(bcc100("Fe", (3, 3, 4), vacuum=8), "O", "bridge", 1.1, "100"), "100_bridge_9-9"),
        (with_atom(bcc100("Fe", (3, 3, 4), vacuum=8), "O", "ontop", 1.65, "100"), "100_top_9"),
    ],
)
def test_sites_of_hexagonal_and_body_centred_metals(atoms: Atoms, expected: str) -> None:
    found = site_from_structure(atoms)
    assert found.site_class == expected
    top = atoms.positions[:-1, 2].max()
    np.testing.assert_allclose(found.positions[: found.contacts, 2], top, atol=1e-6)


def test_a_hexagonal_facet_has_no_template_of_a_cubic_one() -> None:
    for place in ("fcc", "hcp", "ontop"):
        site = site_from_structure(with_atom(hcp0001("Ru", (3, 3, 4), vacuum=8), "O", place, 1.6, "0001"))
        assert align(site).template is None
    cubic = site_from_structure(with_atom(fcc111("Ru", (3, 3, 4), a=3.8, vacuum=8), "O", "fcc", 1.2, "111"))
    found = align(cubic).template
    assert found is not None
    assert found.site_class == "111_fcc_9-9-9"


def test_sites_are_found_on_hexagonal_and_body_centred_slabs() -> None:
    ru = hcp0001("Ru", (3, 3, 4), vacuum=8)
    ru.info = {"facet": "0001"}
    assert Counter(s.site_class for s in find_sites(ru, kinds=KINDS, adsorbate="O")) == {
        "0001_top_9": 9,
        "0001_bridge_9-9": 27,
        "0001_fcc_9-9-9": 9,
        "0001_hcp_9-9-9": 9,
    }
    for build, facet, four in (
        (bcc100, "bcc100", "100_hollow_9-9-9-9"),
        (bcc110, "bcc110", "110_hollow_10-10-10"),
    ):
        slab = build("Fe", (3, 3, 5), vacuum=8)
        slab.info = {"facet": facet}
        sites = find_sites(slab, kinds=KINDS, adsorbate="O")
        counts = Counter(site.site_class for site in sites)
        assert counts[four] == (9 if facet == "bcc100" else 18)
        for site in sites[::3]:
            atoms = slab + Atoms("O", positions=site.adsorbate_positions)
            again = site_from_structure(atoms, facet=facet)
            if site.kind != "bridge":  # the long bridge of bcc (110) is as much a hollow
                assert again.site_class == site.site_class


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("111", "111"), ("fcc211", "211"), ("(5,3,2)", "532"), (" 1 -1 0 ", "1,-1,0"), ("1-10", "1,-1,0"),
        ("-110", "-1,1,0"), (np.int64(-110), "-1,1,0"), (np.int64(10), "010"), (11, "011"), (111, "111"),
        (np.array([1, -1, 0]), "1,-1,0"), ([0, 1, 0], "010"), ((2, 2, 2), "111"), ("10,1,1", "10,1,1"),
        ("0001", "0001"), ("hcp0001", "0001"), ("hcp001", "0001"), ("10-10", "10-10"), (np.array([0, 0, 0, 1]), "0001"),
        ("11-20", "11-20"), ("bcc110", "110"), ("fcc001", "001"), ("", ""), (None, ""), ("  ", ""),
    ],
)  # fmt: skip
def test_facets_as_people_and_formats_write_them(value: object, name: str) -> None:
    assert read_facet(value) == name


@pytest.mark.parametrize("value", [True, 1.5, float("nan"), "1 1", "abc", "000", "1010", (1, 2), 1, "fcc"])
def test_what_is_no_facet_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="expected"):
        read_facet(value, "here")


def test_lost_zeros_of_a_facet_are_asked_for() -> None:
    with pytest.raises(InputError, match=r"001 or 0001.*facet=fcc001, bcc001 or hcp0001"):
        read_facet(np.int64(1))


# --- below the surface, and no structure at all


def test_an_atom_below_the_surface_is_refused() -> None:
    slab = fcc111("Pt", (3, 3, 4), vacuum=8)
    top = slab.positions[:, 2].max()
    spacing = 3.92 / np.sqrt(3)
    octahedral = with_atom(slab, "H", "fcc", -spacing / 2)
    assert "lies below the surface, enclosed by 6 metals" in refusal(octahedral)
    tetrahedral = with_atom(
        slab, "H", "hcp", -spacing / 4
    )  # as far from three metals above as from one below
    assert "below the surface, enclosed by 4 metals" in refusal(tetrahedral)
    under_a_top = with_atom(slab, "H", "ontop", -3 * spacing / 4)
    assert "below the surface" in refusal(under_a_top)
    deep = with_atom(slab, "H", "fcc", -1.5 * spacing)
    assert deep.positions[-1, 2] < top - 3
    refusal(deep)
    inside_iron = with_atom(bcc100("Fe", (3, 3, 5), vacuum=8), "C", "bridge", -1.43)
    refusal(inside_iron)


@pytest.mark.parametrize("height", [0.9, 0.5, 0.1, 0.0])
def test_an_atom_in_the_plane_of_its_contacts_is_on_the_surface(height: float) -> None:
    found = site_from_structure(with_atom(fcc100("Ni", (3, 3, 4), a=3.6, vacuum=8), "C", "hollow", height))
    assert found.contacts == 4
    assert found.kind == "hollow"


def test_atoms_in_one_place_are_refused() -> None:
    slab = fcc111("Pt", (3, 3, 4), vacuum=8)
    atoms = with_atom(slab, "O", "fcc", 1.15)
    twice = atoms + Atoms("Pt", positions=[atoms.positions[0] + [0, 0, 0.01]])
    assert "atoms 0 (Pt) and 37 (Pt) are 0.01 Å apart" in refusal(twice)
    across = atoms + Atoms("Pt", positions=[atoms.positions[0] + atoms.cell.array[0] + [0.1, 0, 0]])
    assert "0.10 Å apart" in refusal(across)
    near = with_atom(slab, "H", "ontop", 0.62)
    assert "(Pt) and 36 (H) are 0.62 Å apart" in refusal(near)
    narrow = atoms.copy()
    narrow.set_cell([[0.5, 0, 0], *atoms.cell.array[1:]])
    refusal(narrow)
    large = fcc111("Pt", (11, 11, 4), vacuum=8) + Atoms("O", positions=[[0, 0, 24.0]])
    large.positions[7] = large.positions[9] + [0.2, 0, 0]
    assert "atoms 7 (Pt) and 9 (Pt) are 0.20 Å apart" in refusal(large)
    with pytest.raises(InputError, match="Å apart"):
        find_sites(slab + Atoms("Pt", positions=[slab.positions[3]]))


def test_a_structure_without_places_or_volume_is_refused() -> None:
    slab = fcc111("Pt", (2, 2, 3), vacuum=8)
    lost = slab.copy()
    lost.positions[2, 1] = np.nan
    with pytest.raises(InputError, match="not finite"):
        find_sites(lost)
    with pytest.raises(InputError, match="no atoms"):
        find_sites(Atoms())
    atoms = with_atom(slab, "O", "fcc", 1.15)
    endless = atoms.copy()
    endless.set_cell(np.diag([np.inf, 5.0, 20.0]))
    assert "cell that is not finite" in refusal(endless)
    flat = atoms.copy()
    flat.set_cell(np.array([[1, 0, 0], [2, 0, 0], [0, 0, 1]]) @ atoms.cell.array)
    flat.pbc = True
    assert "not independent" in refusal(flat)
    missing = atoms.copy()
    missing.set_cell(np.zeros((3, 3)))
    missing.pbc = True
    assert "pbc is T T T, but a cell vector is missing" in refusal(missing)
    foreign = atoms + Atoms("Og", positions=[[0, 0, 30.0]])
    assert "no data of the element 'Og'" in refusal(foreign)


def test_a_cell_without_periodicity_is_asked_about() -> None:
    atoms = with_atom(fcc111("Pt", (3, 3, 4), vacuum=8), "O", "fcc", 1.15, "111")
    atoms.pbc = False
    assert "a cell, but pbc is F F F; expected pbc T T F or T T T" in refusal(atoms)
    assert "pbc is F F F" in refusal(atoms, kind="hollow")
    with pytest.raises(InputError, match="pbc is F F F"):
        find_sites(atoms[:-1])
    atoms.set_cell(None)
    assert "no cell and no periodicity" in refusal(atoms)
    with pytest.raises(InputError, match="pbc is F F F"):
        find_sites(atoms[:-1])


def test_a_cluster_says_that_it_is_one() -> None:
    particle = Octahedron("Pt", 5, 1)
    particle.set_cell(None)
    particle.pbc = False
    face = particle.positions[np.argsort(particle.positions @ [1, 1, 1])[-7:]].mean(0)
    middle = particle.positions[np.linalg.norm(particle.positions - face, axis=1).argmin()]
    atoms = particle + Atoms("O", positions=[middle + 1.8 / np.sqrt(3)])
    assert "no cell and no periodicity" in refusal(atoms)
    atoms.info["contacts"] = 1
    found = site_from_structure(atoms)
    assert (found.contacts, found.coordination_numbers) == (1, (9,))
    atoms.info = {}
    assert site_from_structure(atoms, kind="top").site_class == "top_9"
    slab = build_slab("211", "IrPdPtRhRu", seed=0)
    for site in find_sites(slab, kinds=KINDS)[::9]:
        again = site_from_structure(site.to_atoms())
        assert (again.site_class, again.contacts, len(again)) == (site.site_class, site.contacts, len(site))
        np.testing.assert_array_equal(again.zones, site.zones)


# --- energies


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("-1.2 eV", "'-1.2 eV'"), ("-1.2", "'-1.2'"), ([1, 2], r"\[1, 2\]"), (np.array([0.5]), r"\[0.5\]"),
        (True, "True"), (np.bool_(False), "False"), (float("nan"), "nan"), (float("inf"), "inf"), (1j, "1j"),
        ({"eV": 1.0}, r"\{'eV': 1.0\}"), (np.float64("nan"), "nan"),
    ],
)  # fmt: skip
def test_an_energy_of_the_wrong_kind_is_named(value: object, shown: str) -> None:
    atoms = with_atom(fcc111("Pt", (3, 3, 4), vacuum=8), "O", "fcc", 1.15)
    atoms.info["e_ads"] = value
    with pytest.raises(
        InputError, match=rf"here: e_ads is {shown}; expected a finite energy in eV"
    ) as caught:
        site_from_structure(atoms, where="here", energy_key="e_ads")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [-1, -0.5, np.float32(0.25), np.int64(2), np.array(0.125)])
def test_an_energy_may_be_any_real_number(value: float) -> None:
    atoms = with_atom(fcc111("Pt", (3, 3, 4), vacuum=8), "O", "fcc", 1.15)
    atoms.info["e_ads"] = value
    assert site_from_structure(atoms, energy_key="e_ads").energy_ev == float(value)


# --- adsorbates

MOLECULES = (
    "CH3",
    "NH3",
    "CO2",
    "COOH",
    "O2",
    "N2",
    "Cl",
    "CH3OH",
    "C2H4",
    "SO2",
    "HCOO",
    "NO2",
    "Br",
    "CH4",
    "CH3CN",
)


@pytest.mark.parametrize("name", MOLECULES)
@pytest.mark.parametrize("facet", ["111", "100"])
def test_any_molecule_is_placed_and_read_by_its_name(name: str, facet: str) -> None:
    slab = bare_slab(facet, 3.92)
    (site,) = find_sites(slab, kinds=("top",), adsorbate=name)[:1]
    assert site.adsorbate == name
    atoms = slab + Atoms(site.adsorbate_symbols, positions=site.adsorbate_positions)
    atoms.positions += [4.4, 5.5, 0.3]
    atoms.wrap()
    shuffled = atoms[np.random.default_rng(2).permutation(len(atoms))]
    shuffled.info = {"facet": facet}
    again = site_from_structure(shuffled)
    assert (again.adsorbate, again.adsorbate_symbols[0]) == (name, site.adsorbate_symbols[0])
    assert (again.site_class, again.contacts) == (site.site_class, 1)
    assert Counter(again.adsorbate_symbols) == Counter(site.adsorbate_symbols)


@pytest.mark.parametrize("name", ADSORBATES)
def test_common_adsorbates_are_told_apart_by_their_bonds(name: str) -> None:
    adsorbate = ADSORBATES[name]
    placed = adsorbate.place(np.zeros(3), np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0]))
    assert adsorbate_name(adsorbate.symbols, placed) == name
    gaps = np.linalg.norm(placed[:, None] - placed[None], axis=-1) + 9 * np.eye(len(placed))
    assert gaps.min() > 0.7
    assert np.all(placed[1:, 2] > 0.25)


def test_isomers_have_names_of_their_own() -> None:
    assert get_adsorbate("CHO").name != get_adsorbate("COH").name
    assert get_adsorbate("COOH").name != get_adsorbate("HCOO").name
    assert get_adsorbate("CH2OH").name != get_adsorbate("CH3O").name


def test_a_molecule_that_nobody_knows_is_named_by_hill_and_placed_as_it_was_met() -> None:
    slab = bare_slab("111", 3.92)
    site = find_sites(slab, kinds=("top",), adsorbate="O")[0]
    foot = site.adsorbate_positions[0]
    # Sulfate on one oxygen.
    centre = foot + np.array([0, 0, 1.5])
    ring = [centre + np.array([1.4 * np.cos(t), 1.4 * np.sin(t), 0.5]) for t in np.deg2rad([0, 120, 240])]
    atoms = slab + Atoms("OSO3", positions=[foot, centre, *ring])
    found = site_from_structure(atoms, facet="111")
    assert (found.adsorbate, found.adsorbate_symbols[0], found.site_class) == ("O4S", "O", "111_top_9")
    again = find_sites(slab, kinds=("top",), adsorbate="O4S")[0]
    assert bonded_pairs(again.adsorbate_symbols, again.adsorbate_positions) == {("O", "S"): 4}


def test_the_nearest_atom_binds_whatever_the_name() -> None:
    slab = bare_slab("111", 3.92)
    site = find_sites(slab, kinds=("top",), adsorbate="CO")[0]
    foot, up = site.adsorbate_positions
    assert site_from_structure(slab + Atoms("CO", positions=[foot, up])).adsorbate_symbols == ("C", "O")
    turned = site_from_structure(slab + Atoms("CO", positions=[up, foot]))
    assert (turned.adsorbate, turned.adsorbate_symbols) == ("CO", ("O", "C"))


def test_a_molecule_of_ones_own() -> None:
    slab = bare_slab("111", 3.92)
    pyridine = molecule("C5H5N")
    nitrogen = pyridine.get_chemical_symbols().index("N")
    for adsorbate in (pyridine, Adsorbate.from_atoms(pyridine, binding=nitrogen), "C5H5N"):
        site = find_sites(slab, kinds=("top",), adsorbate=adsorbate)[0]
        assert (site.adsorbate, site.adsorbate_symbols[0], len(site.adsorbate_symbols)) == ("C5H5N", "N", 11)
        gaps = np.linalg.norm(site.adsorbate_positions[:, None] - site.positions[None], axis=-1)
        assert gaps.min(1).argmin() == 0


@pytest.mark.parametrize(
    ("name", "match"),
    [("XY", "unknown adsorbate 'XY'"), ("Pt", "is a metal"), ("", "unknown"), (molecule("NaCl"), "holds Na")],
)
def test_what_cannot_be_placed_is_refused(name: str | Atoms, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        find_sites(bare_slab("111", 3.92), adsorbate=name)
    assert "\n" not in str(caught.value)


def test_several_molecules_are_named_and_refused() -> None:
    slab = fcc111("Pt", (3, 3, 4), vacuum=8)
    atoms = with_atom(slab, "O", "fcc", 1.15)
    atoms += Atoms("OH", positions=atoms.positions[-1] + np.array([[0, 5.0, 0], [0, 5.6, 0.8]]))
    assert "2 separate molecules of non-metals (1 HO, 1 O); expected exactly one adsorbate" in refusal(atoms)
    oxide = slab.copy()
    oxide.symbols[::2] = "O"
    assert "oxides, hydrides, carbides and the like are not supported" in refusal(oxide)
    chain = fcc111("Pt", (1, 2, 4), vacuum=8)
    row = chain.positions[-1] + np.array([[0.0, 0, 2], [1.386, 0, 2.3]])
    assert "bonded to its own periodic images" in refusal(chain + Atoms("O2", positions=row))


# --- whatever is chosen among equals


def chelate() -> Atoms:
    """Return CO2 that stands on both of its oxygens, each over an atom of its own."""
    slab = fcc100("Pt", (3, 3, 3), vacuum=8)
    x, y, z = slab.positions[-1]
    places = [[x + 1.386, y, z + 2.6], [x + 0.286, y, z + 2.0], [x + 2.486, y, z + 2.0]]
    return slab + Atoms("CO2", positions=places)


def signature(atoms: Atoms) -> tuple[object, ...]:
    site = site_from_structure(atoms)
    return site.site_class, site.contact_elements, site.symbols, site.host_indices, site.adsorbate_symbols


@pytest.mark.parametrize(
    "build",
    [
        lambda: with_atom(fcc111("Pt", (2, 2, 4), vacuum=8), "O", "fcc", 1.15, "111"),
        lambda: with_atom(fcc111("Pt", (1, 1, 4), vacuum=8), "O", "hcp", 1.15, "111"),
        lambda: with_atom(fcc100("Pt", (2, 2, 4), vacuum=8), "O", "hollow", 0.9, "100"),
        lambda: with_atom(bcc100("Fe", (2, 2, 4), vacuum=8), "O", "hollow", 0.5, "100"),
        chelate,
    ],
)
def test_noise_of_rounding_changes_no_choice(build: Callable[[], Atoms]) -> None:
    atoms = build()
    expected = signature(atoms)
    generator = np.random.default_rng(0)
    for _ in range(12):
        noisy = atoms.copy()
        noisy.positions += generator.uniform(-1e-10, 1e-10, noisy.positions.shape)
        assert signature(noisy) == expected


def test_noise_of_rounding_changes_no_site_that_is_found() -> None:
    slab = bare_slab("211", 3.85)

    def found(atoms: Atoms) -> list[tuple[object, ...]]:
        return [
            (s.site_id, s.site_class, s.host_indices, *np.round(s.adsorbate_positions, 5).ravel())
            for s in find_sites(atoms, kinds=KINDS)
        ]

    expected = found(slab)
    generator = np.random.default_rng(1)
    for _ in range(4):
        noisy = slab.copy()
        noisy.positions += generator.uniform(-1e-10, 1e-10, noisy.positions.shape)
        again = found(noisy)
        assert [row[:3] for row in again] == [row[:3] for row in expected]
        np.testing.assert_allclose(
            np.array([row[3:] for row in again], float),
            np.array([row[3:] for row in expected], float),
            atol=2e-5,
        )


@pytest.mark.parametrize("seed", range(8))
def test_class_and_contacts_do_not_depend_on_how_a_structure_is_written(seed: int) -> None:
    generator = np.random.default_rng(seed)
    facet = str(generator.choice(["111", "100", "110", "211", "532"]))
    slab = build_slab(facet, "IrPdPtRhRu", seed=seed)
    sites = find_sites(slab, kinds=KINDS, adsorbate=str(generator.choice(["O", "OH", "CO", "NH3"])))
    site = sites[int(generator.integers(len(sites)))]
    atoms = slab + Atoms(site.adsorbate_symbols, positions=site.adsorbate_positions)
    atoms.positions += generator.normal(0, 0.03, atoms.positions.shape)
    atoms.info = {"facet": facet}
    expected = site_from_structure(atoms)
    for periodic in (atoms.pbc, True):
        other = atoms.copy()
        other.pbc = periodic
        other.positions += generator.uniform(-9, 9, 3)
        other.wrap()
        other = other[generator.permutation(len(other))]
        other.rotate(float(generator.uniform(0, 360)), generator.normal(size=3), rotate_cell=True)
        found = site_from_structure(other)
        assert (found.site_class, found.contact_elements) == (expected.site_class, expected.contact_elements)
        assert Counter(found.symbols) == Counter(expected.symbols)
        np.testing.assert_array_equal(np.bincount(found.zones), np.bincount(expected.zones))
        assert found.adsorbate == expected.adsorbate


def test_parts_of_a_molecule_are_those_of_a_graph_library() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 5, 12):
        for _ in range(20):
            bonds = np.triu(rng.random((size, size)) < 1.2 / size, 1)
            number, labels = connected_components(bonds, directed=False)
            expected = sorted(np.flatnonzero(labels == k).tolist() for k in range(number))
            assert sorted(connected_parts(bonds | bonds.T)) == expected
            # One direction of a bond will do.
            assert sorted(connected_parts(bonds)) == expected
            told = reached_from(0, bonds)
            assert told[0] == (0, 0)
            assert sorted(atom for atom, _ in told) == next(part for part in expected if 0 in part)
            assert all((bonds | bonds.T)[atom, before] for atom, before in told[1:])
