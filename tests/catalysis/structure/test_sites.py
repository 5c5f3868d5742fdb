from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.io import write

from catalysis.structure.adsorbates import ADSORBATES
from catalysis.structure.elements import fcc_lattice_constant
from catalysis.structure.finding import find_sites
from catalysis.structure.sites import BRIDGE_CLASSES, COMMON, CONTACT, SHELL, Site, site_class_name
from catalysis.structure.surfaces import bare_slab, build_slab
from catalysis.structure.templates import align
from catalysis.structure.user_sites import read_sites, site_from_structure, write_sites
from interpretkit.errors import InputError

# Class: coordination numbers, common neighbours, shell, metals within two bonds, on the ideal lattice.
IDEAL = {
    "100_bridge": ((8, 8), 2, 10, 46),
    "110_bridge": ((7, 7), 2, 8, 44),
    "111_bridge": ((9, 9), 3, 10, 49),
    "211_edge": ((7, 7), 2, 8, 40),
    "211_summit": ((7, 9), 3, 8, 44),
    "211_hill": ((7, 10), 2, 11, 49),
    "211_valley": ((9, 10), 3, 11, 51),
    "532_outer_higher_edge": ((6, 7), 2, 7, 39),
    "532_higher_edge": ((6, 8), 2, 8, 41),
    "532_inner_higher_edge": ((7, 8), 2, 9, 42),
    "532_hill1": ((7, 10), 2, 11, 49),
    "532_hill2": ((6, 10), 2, 10, 46),
    "532_valley2": ((8, 10), 3, 10, 48),
}


def with_adsorbate(slab: Atoms, site: Site) -> Atoms:
    atoms = slab + Atoms(site.adsorbate_symbols, positions=site.adsorbate_positions)
    atoms.info.update(facet=site.facet, site_id="x")
    return atoms


def signature(sites: list[Site]) -> Counter[tuple[str, tuple[int, ...]]]:
    return Counter((site.site_class, tuple(np.bincount(site.zones, minlength=4).tolist())) for site in sites)


@pytest.mark.parametrize("facet", ["100", "110", "111", "211", "532"])
def test_the_published_classes_are_found(facet: str) -> None:
    found = {site.site_class: site for site in find_sites(bare_slab(facet, 3.85))}
    expected = {name for (face, _), name in BRIDGE_CLASSES.items() if face == facet}
    assert expected <= set(found)
    for name in expected:
        site = found[name]
        zones = site.zones
        counts = (int((zones == COMMON).sum()), int((zones == SHELL).sum()), len(site))
        assert (site.coordination_numbers, *counts) == IDEAL[name]
        assert np.all(zones[: site.contacts] == CONTACT)


@pytest.mark.parametrize("facet", ["111", "100", "211", "310"])
def test_sites_do_not_depend_on_vacuum_repetition_or_order(facet: str) -> None:
    kinds = ("top", "bridge", "hollow")
    base = bare_slab(facet, 3.9)
    expected = signature(find_sites(base, kinds=kinds))
    assert signature(find_sites(bare_slab(facet, 3.9, vacuum_angstrom=15), kinds=kinds)) == expected
    doubled = signature(find_sites(base.repeat((2, 1, 1)), kinds=kinds))
    assert doubled == Counter({key: 2 * count for key, count in expected.items()})
    shuffled = base[np.random.default_rng(0).permutation(len(base))]
    shuffled.info["facet"] = facet
    shuffled.positions += [1.3, -0.7, 0.0]
    shuffled.wrap()
    assert signature(find_sites(shuffled, kinds=kinds)) == expected


def test_flat_facets_have_the_sites_of_the_textbook() -> None:
    slab = fcc111("Pt", (3, 3, 4), vacuum=8)
    slab.info["facet"] = "111"
    counts = Counter(s.site_class for s in find_sites(slab, kinds=("top", "bridge", "hollow")))
    assert counts == {"111_top_9": 9, "111_bridge": 27, "111_fcc_9-9-9": 9, "111_hcp_9-9-9": 9}
    square = find_sites(bare_slab("100", 3.92), kinds=("hollow",))
    assert {site.site_class for site in square} == {"100_hollow_8-8-8-8"}


@pytest.mark.parametrize("facet", ["111", "100", "211", "532"])
@pytest.mark.parametrize("kind", ["top", "bridge", "hollow"])
def test_a_site_is_found_again_in_the_slab_with_its_adsorbate(facet: str, kind: str) -> None:
    slab = build_slab(facet, "IrPdPtRhRu", seed=4)
    for site in find_sites(slab, kinds=(kind,))[::7]:
        atoms = with_adsorbate(slab, site)
        atoms.positions += [3.1, 2.2, 0.4]
        atoms.wrap()
        again = site_from_structure(atoms[np.random.default_rng(1).permutation(len(atoms))], facet=facet)
        assert again.contacts == site.contacts
        assert Counter(again.symbols[: site.contacts]) == Counter(site.symbols[: site.contacts])
        assert Counter(again.symbols) == Counter(site.symbols)
        assert again.adsorbate == "OH"
        assert again.coordination_numbers == site.coordination_numbers
        assert again.site_class == site.site_class


@pytest.mark.parametrize("name", ADSORBATES)
def test_every_adsorbate_is_placed_and_recognised(name: str) -> None:
    slab = bare_slab("111", 3.92)
    site = find_sites(slab, kinds=("hollow",), adsorbate=name)[0]
    again = site_from_structure(with_adsorbate(slab, site))
    assert again.adsorbate == name
    assert again.adsorbate_symbols[0] == site.adsorbate_symbols[0]
    gaps = np.linalg.norm(site.adsorbate_positions[:, None] - site.positions[None], axis=-1)
    assert gaps.min() > 1.3


def test_the_normal_points_into_the_vacuum_and_the_ball_touches_both_metals() -> None:
    for site in find_sites(bare_slab("211", 3.9)):
        gaps = np.linalg.norm(site.positions - site.adsorbate_positions[0], axis=1)
        assert gaps[0] == pytest.approx(gaps[1], abs=1e-6)
        assert gaps[2:].min() > 1.1 * gaps[0]
        assert np.linalg.det(site.frame) == pytest.approx(1.0)


def test_files_of_every_format_give_the_same_site(tmp_path: Path) -> None:
    slab = build_slab("111", "PtPd", seed=0)
    atoms = with_adsorbate(slab, find_sites(slab)[3])
    expected = site_from_structure(atoms, facet="111")
    for name in ("a.extxyz", "b.cif", "POSCAR", "c.db", "d.traj"):
        write(tmp_path / name, atoms)
        (site,) = read_sites(tmp_path / name, facet="111")
        assert (site.symbols[:2], site.site_class, len(site)) == (
            expected.symbols[:2],
            expected.site_class,
            len(expected),
        )
    assert len(read_sites(tmp_path, facet="111")) == 5


def test_sites_survive_writing_and_reading(tmp_path: Path) -> None:
    sites = [
        site.with_elements(site.symbols, energy_ev=0.1 * k, slab_id="s")
        for k, site in enumerate(find_sites(build_slab("532", "IrPdPtRhRu", seed=1))[:6])
    ]
    write_sites(tmp_path / "sites.extxyz", sites)
    again = read_sites(tmp_path / "sites.extxyz", require_energies=True)
    for first, second in zip(sites, again, strict=True):
        assert first.symbols == second.symbols
        assert first.site_class == second.site_class
        assert (first.energy_ev, first.slab_id) == (second.energy_ev, second.slab_id)
        np.testing.assert_allclose(first.positions, second.positions, atol=1e-6)
        np.testing.assert_array_equal(first.zones, second.zones)


def test_names_of_classes() -> None:
    assert site_class_name("211", "bridge", (10, 9)) == "211_valley"
    assert site_class_name("221", "bridge", (9, 7)) == "221_bridge_7-9"
    assert site_class_name("", "top", (9,)) == "top_9"


def refused(atoms: Atoms, match: str, **options: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        site_from_structure(atoms, where="here", **options)
    assert "\n" not in str(caught.value)


def test_structures_that_are_no_sites_are_refused() -> None:
    slab = bare_slab("111", 3.92)
    atoms = with_adsorbate(slab, find_sites(slab)[0])
    refused(Atoms(), "no atoms")
    refused(slab, "no adsorbate")
    refused(Atoms("OH", positions=[[0, 0, 0], [0, 0, 1]]), "no metal")
    refused(atoms + Atoms("Og", positions=[atoms.positions[-1] + [0, 0, 1.0]]), "no data of the element")
    refused(atoms + Atoms("O", positions=[[0, 0, 1.0]]), "exactly one adsorbate")
    refused(slab + Atoms("O", positions=[slab.positions[0] + [0, 0, 5.0]]), "bound to the surface")
    refused(atoms, "expected top, bridge or hollow", kind="side")
    far = atoms.copy()
    far.positions[0] = np.nan
    refused(far, "not finite")
    nan = atoms.copy()
    nan.info["adsorption_energy_eV"] = float("nan")
    refused(nan, "finite energy")
    with pytest.raises(InputError, match="unknown adsorbate"):
        find_sites(slab, adsorbate="XY")
    with pytest.raises(InputError, match="kinds"):
        find_sites(slab, kinds=("edge",))
    with pytest.raises(InputError, match="unknown metal"):
        find_sites(bulk("NaCl", "rocksalt", a=5.6))


def test_files_that_hold_no_sites_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_sites(tmp_path / "missing.extxyz")
    (tmp_path / "empty.extxyz").touch()
    with pytest.raises(InputError, match="empty file"):
        read_sites(tmp_path / "empty.extxyz")
    (tmp_path / "words.extxyz").write_text("these are words\nand more words\n")
    with pytest.raises(InputError, match=r"words\.extxyz") as caught:
        read_sites(tmp_path / "words.extxyz")
    assert "\n" not in str(caught.value)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="empty folder"):
        read_sites(tmp_path / "folder")
    slab = bare_slab("111", 3.92)
    write(tmp_path / "bare.extxyz", with_adsorbate(slab, find_sites(slab)[0]))
    with pytest.raises(InputError, match="--energy-key"):
        read_sites(tmp_path / "bare.extxyz", require_energies=True)


@pytest.mark.parametrize("metal", ["Ni", "Cu", "Pd", "Ag"])
def test_hydrogen_sits_in_the_hollows_of_a_square_face(metal: str) -> None:
    slab = bare_slab("100", fcc_lattice_constant(metal), symbol=metal)
    hydrogen = find_sites(slab, kinds=("hollow",), adsorbate="H")
    oxygen = find_sites(slab, kinds=("hollow",), adsorbate="O")
    assert [site.site_class for site in hydrogen] == [site.site_class for site in oxygen]
    site = hydrogen[0]
    # In the middle of four, above them, and no nearer to the metal below.
    gaps = np.sort(np.linalg.norm(site.positions - site.adsorbate_positions[0], axis=1))
    assert np.ptp(gaps[:4]) < 1e-6
    assert gaps[4] > gaps[3] + 0.2
    back = site_from_structure(slab + Atoms("H", positions=site.adsorbate_positions), facet="100")
    assert back.site_class == site.site_class
    assert align(back).template is not None
