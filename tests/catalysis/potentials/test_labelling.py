from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from catalysis.potentials.calculators import make_calculator
from catalysis.potentials.labelling import ends_as, label_site, potential_energy, relax_adsorbate
from catalysis.structure.elements import fcc_lattice_constant
from catalysis.structure.finding import find_sites
from catalysis.structure.surfaces import bare_slab
from catalysis.structure.user_sites import site_from_structure
from interpretkit.errors import InputError


class Springs(Calculator):
    """A planted potential: every adsorbate atom is tied to a point."""

    implemented_properties = ("energy", "forces")  # type: ignore[assignment]

    def __init__(self, targets: np.ndarray, stiffness: float = 7.0) -> None:
        super().__init__()
        self.targets, self.stiffness = targets, stiffness

    def calculate(self, atoms=None, properties=None, system_changes=all_changes) -> None:  # type: ignore[no-untyped-def]
        super().calculate(atoms, properties, system_changes)
        assert atoms is not None
        stretch = atoms.positions[-len(self.targets) :] - self.targets
        forces = np.zeros((len(atoms), 3))
        forces[-len(self.targets) :] = -self.stiffness * stretch
        self.results = {"energy": self.stiffness / 2 * float((stretch**2).sum()), "forces": forces}


def test_the_planted_minimum_is_found() -> None:
    slab = bare_slab("111", 3.92)
    site = find_sites(slab)[0]
    target = site.adsorbate_positions + np.array([[0.1, -0.2, 0.15], [0.2, 0.1, -0.3]])
    relaxed = relax_adsorbate(slab, site, Springs(target), hold_bridge=False, max_force=0.01)
    assert relaxed.converged
    np.testing.assert_allclose(relaxed.positions, target, atol=0.01)


def test_a_held_bridge_stays_equally_far_from_both_metals() -> None:
    slab = bare_slab("111", 3.92)
    site = find_sites(slab)[0]
    along = site.frame[0]
    relaxed = relax_adsorbate(slab, site, Springs(site.adsorbate_positions + 0.4 * along + [0, 0, 0.2]))
    gaps = np.linalg.norm(site.positions[:2] - relaxed.positions[0], axis=1)
    assert gaps[0] == pytest.approx(gaps[1], abs=1e-6)
    assert relaxed.positions[0, 2] == pytest.approx(site.adsorbate_positions[0, 2] + 0.2, abs=0.02)


def test_the_better_orientation_is_taken() -> None:
    slab = bare_slab("111", 3.92)
    site = find_sites(slab)[0]
    _, sideways, _ = site.frame
    offset = site.adsorbate_positions[1] - site.adsorbate_positions[0]
    mirrored = site.adsorbate_positions.copy()
    mirrored[1] = mirrored[0] + offset - 2 * sideways * (offset @ sideways)
    label = label_site(slab, site, Springs(mirrored), slab_energy_ev=-3.0, reference_ev=1.0)
    np.testing.assert_allclose(label.site.adsorbate_positions, mirrored, atol=0.02)
    assert label.site.energy_ev == pytest.approx(2.0, abs=1e-3)
    assert label.steps == 1


def test_where_an_adsorbate_ends_is_told() -> None:
    slab = bare_slab("111", 3.92)
    bridge = find_sites(slab)[0]
    start = bridge.adsorbate_positions
    hollow = find_sites(slab, kinds=("hollow",))[0].adsorbate_positions
    top = find_sites(slab, kinds=("top",))[0].adsorbate_positions
    assert ends_as(slab, bridge, start) == "bridge"
    assert ends_as(slab, bridge, hollow) == "hollow"
    assert ends_as(slab, bridge, top) == "top"
    assert ends_as(slab, bridge, start + np.array([0, 0, 3.0])) == "desorbed"
    assert ends_as(slab, bridge, start + np.array([[0, 0, 0], [0, 0, 1.0]])) == "broken"


def test_what_counts_as_bound_is_what_reading_takes_for_bound() -> None:
    slab = bare_slab("100", 3.6, symbol="Cu")
    (hollow, *_) = find_sites(slab, kinds=("hollow",), adsorbate="H")
    up = hollow.frame[2]
    seen = set()
    for height in np.arange(-1.5, 2.6, 0.25):
        moved = hollow.adsorbate_positions + height * up
        told = ends_as(slab, hollow, moved)
        seen.add(told)
        frame = slab + Atoms("H", positions=moved)
        try:
            read = site_from_structure(frame, kind="hollow")
        except InputError:
            assert told != "hollow"
        else:
            assert told != "desorbed"
            assert read.kind == "hollow"
    assert {"hollow", "desorbed"} <= seen


def test_a_potential_that_lacks_an_element_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="Ru"):
        potential_energy(make_calculator("emt"), bare_slab("111", 3.8, symbol="Ru"))


def test_unknown_calculators_are_refused() -> None:
    with pytest.raises(InputError, match="calculator"):
        make_calculator("dft")


def test_effective_medium_theory_labels_a_site() -> None:
    calculator = make_calculator("emt")
    slab = bare_slab("111", fcc_lattice_constant("Pt"), symbol="Pt")
    site = find_sites(slab, adsorbate="O")[0]
    slab_energy = potential_energy(calculator, slab)
    label = label_site(slab, site, calculator, slab_energy_ev=slab_energy)
    assert label.converged
    assert label.max_force <= 0.05


def test_chgnet_orders_the_pure_metals() -> None:
    pytest.importorskip("chgnet", reason="the extra mlip is not installed")
    calculator = make_calculator("chgnet")
    energies = {}
    for symbol in ("Pt", "Pd", "Ru"):
        slab = bare_slab("111", fcc_lattice_constant(symbol), symbol=symbol, min_repeat_angstrom=5.0)
        site = find_sites(slab)[0]
        base = potential_energy(calculator, slab)
        label = label_site(slab, site, calculator, slab_energy_ev=base)
        assert label.site.energy_ev is not None
        energies[symbol] = label.site.energy_ev
    assert energies["Ru"] < energies["Pd"] < energies["Pt"]
