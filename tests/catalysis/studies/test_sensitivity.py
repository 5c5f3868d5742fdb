from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from catalysis.fingerprints import SiteDigraph, site_bars, site_digraph
from catalysis.path_homology import persistence
from catalysis.structure.sites import Site
from catalysis.structure.templates import class_templates
from catalysis.studies.sensitivity import (
    DIRECTIONS,
    ROUNDING,
    Response,
    adatoms,
    agreement,
    all_changes,
    bottleneck,
    by_potential,
    displacements,
    responses,
    slab_resamples,
    stability,
    strains,
    swaps,
    typical_sites,
    vacancies,
    weight_change,
)
from interpretkit.errors import InputError


def pure(facet: str = "111", name: str = "111_bridge", symbol: str = "Pt") -> Site:
    template = class_templates(facet, name)[0]
    return template.decorate(
        [symbol] * len(template), facet=facet, site_class=name, site_id="one", slab_id="s"
    )


def relaxed(site: Site, seed: int) -> Site:
    draws = np.random.default_rng(seed)
    return replace(
        site,
        symbols=tuple(draws.choice(["Ir", "Pd", "Pt", "Ru"], len(site)).tolist()),
        positions=site.positions + draws.normal(0, 0.05, site.positions.shape),
    )


@pytest.mark.parametrize("regular", [True, False])
def test_no_barcode_of_a_random_digraph_moves_more_than_its_weights(regular: bool) -> None:
    shares = []
    for seed in range(30):
        draws = np.random.default_rng(seed)
        arrows = np.array([(a, b) for a in range(8) for b in range(8) if a != b and draws.random() < 0.5])
        weights = draws.uniform(1, 3, len(arrows))
        moved = weights + draws.uniform(-0.2, 0.2, len(arrows))
        bars = [persistence(8, arrows, w, regular=regular) for w in (weights, moved)]
        limit = float(np.abs(moved - weights).max())
        distances = bottleneck(*bars)
        assert (distances <= limit + ROUNDING).all()
        shares.append(distances.max() / limit)
    # The bound is no vague one: it is nearly reached.
    assert max(shares) > 0.9


def test_the_bound_is_reached_where_all_weights_grow_alike() -> None:
    arrows = np.array([[0, 1], [1, 2], [2, 3], [3, 0]])
    for change in (0.05, 0.4):
        distances = bottleneck(
            persistence(4, arrows, np.full(4, 2.0)), persistence(4, arrows, np.full(4, 2.0 + change))
        )
        # Components die and the loop is born that much later; there are no voids.
        assert distances == pytest.approx([change, change, 0.0])


def test_a_broken_bond_has_no_bound() -> None:
    arrows = np.array([[0, 1], [1, 2], [2, 0]])
    whole = SiteDigraph(("Pt",) * 3, arrows, np.full(3, 2.5))
    broken = SiteDigraph(("Pt",) * 3, arrows[:2], np.full(2, 2.5))
    assert weight_change(whole, broken) == float("inf")
    assert weight_change(whole, replace(whole, lengths=np.array([2.5, 2.7, 2.4]))) == pytest.approx(0.2)
    # The loop is gone, whatever the lengths of the bonds that are left.
    assert (
        bottleneck(persistence(3, arrows, whole.lengths), persistence(3, arrows[:2], broken.lengths))[1] > 0.5
    )


def test_displacements_keep_the_bound_and_move_one_atom() -> None:
    site = relaxed(pure("211", "211_edge"), 0)
    made = displacements(site, [0.05, 0.5], directions=2, seed=3)
    assert len(made) == (len(site) + 2) * 2 * 2
    for change in made[::7]:
        before = np.vstack([site.positions, site.adsorbate_positions])
        after = np.vstack([change.site.positions, change.site.adsorbate_positions])
        moved = np.linalg.norm(after - before, axis=1)
        assert np.flatnonzero(moved > 0).tolist() == [change.atom]
        assert moved.max() == pytest.approx(change.amplitude)
    # The same way for every amplitude.
    first, larger = made[0].site.positions - site.positions, made[2].site.positions - site.positions
    assert larger == pytest.approx(10 * first)
    found = responses(site, made[::3], n_threads=1)
    for response in found:
        for direction in DIRECTIONS:
            assert response.excess(direction) <= ROUNDING
            if response.is_bounded(direction):
                # Equal lengths enter together, which takes up to a millionth of an ångström.
                assert response.weight_change[direction] <= response.change.amplitude + 1e-5
    for direction in DIRECTIONS:
        checked = stability(found, direction)
        assert checked.violated == 0
        assert checked.checked + checked.rewired == len(found)
        assert 0.5 < checked.tightest <= 1 + 1e-9


def test_a_violation_would_be_seen() -> None:
    site = pure()
    one = responses(site, displacements(site, [0.1])[:1], n_threads=1)[0]
    forged = replace(one, bottleneck={d: np.array([0.0, 0.5, 0.0]) for d in DIRECTIONS})
    assert stability([one], "geometry").violated == 0
    assert stability([one, forged], "geometry").violated == 1


def test_strain_stretches_the_plane_and_nothing_else() -> None:
    site = pure()
    along, sideways, normal = site.frame
    for change in strains(site, [0.02, -0.05]):
        moved = (change.site.positions - site.positions) @ normal
        assert moved == pytest.approx(0, abs=1e-9)
        stretched = 1 + change.amplitude if change.what in ("along", "biaxial") else 1.0
        gaps = [np.diff(s.positions[:2] @ along)[0] for s in (site, change.site)]
        assert gaps[1] == pytest.approx(stretched * gaps[0])
        widths = [np.ptp(s.positions @ sideways) for s in (site, change.site)]
        assert widths[1] / widths[0] == pytest.approx(1.0 if change.what == "along" else 1 + change.amplitude)
        assert change.site.adsorbate_positions == pytest.approx(site.adsorbate_positions)
        assert change.site.positions[:2].mean(0) == pytest.approx(site.positions[:2].mean(0))


def test_vacancies_spare_the_contacts_and_keep_the_rest() -> None:
    site = relaxed(pure(), 1)
    made = vacancies(site)
    assert [change.atom for change in made] == list(range(2, len(site)))
    assert made[0].site.symbols == site.symbols[:2] + site.symbols[3:]
    assert made[0].site.positions == pytest.approx(np.delete(site.positions, 2, axis=0))
    assert {change.zone for change in made} == {"common", "shell", "second"}


@pytest.mark.parametrize(
    ("facet", "name", "neighbours"), [("111", "111_bridge", 3), ("100", "100_bridge", 4)]
)
def test_adatoms_rest_in_the_hollows_and_leave_the_adsorbate_alone(
    facet: str, name: str, neighbours: int
) -> None:
    site = pure(facet, name)
    length = np.linalg.norm(site.positions[0] - site.positions[1])
    made = adatoms(site, "Pd", most=4)
    assert len(made) == 4
    top = (site.positions @ site.frame[2]).max()
    for change in made:
        assert change.site.symbols == (*site.symbols, "Pd")
        place = change.site.positions[-1]
        gaps = np.sort(np.linalg.norm(site.positions - place, axis=1))
        assert gaps[:neighbours] == pytest.approx(length, abs=2e-3)
        assert gaps[neighbours] > 1.1 * length
        assert place @ site.frame[2] > top + 1.0
        assert change.site.contacts == 2
        # Palladium and oxygen bind at some 2 Å; three are none.
        assert np.linalg.norm(site.adsorbate_positions - place, axis=1).min() > 2.3


def test_swaps_try_every_element_everywhere_and_move_nothing() -> None:
    site = pure()
    made = swaps(site, ["Pd", "Pt", "Ru"])
    assert len(made) == 2 * len(site)
    assert {change.what for change in made} == {"Pt → Pd", "Pt → Ru"}
    assert all(np.array_equal(change.site.positions, site.positions) for change in made)
    # Arrows both ways see no element; radii of the platinum metals break no bond.
    found = responses(site, made[:20], n_threads=1)
    assert all(response.bottleneck["geometry"].max() == 0 for response in found)


def test_unknown_changes_are_refused_and_known_ones_can_be_chosen() -> None:
    site = pure()
    with pytest.raises(InputError, match="melting"):
        all_changes(site, elements=["Pt"], kinds=["melting"])
    kinds = {change.kind for change in all_changes(site, elements=["Pd"], kinds=["strain", "adatom"])}
    assert kinds == {"strain", "adatom"}
    assert responses(site, []) == []


_ONE_SWAP = swaps(pure(), ["Pd"])[0]


def made_up(kind: str, area: float, energy: float, slab: str) -> Response:
    change = replace(_ONE_SWAP, kind=kind)
    return Response(
        "x", "c", slab, change, dict.fromkeys(DIRECTIONS, 0.0), {d: np.zeros(3) for d in DIRECTIONS},
        {d: np.array([area, 0.0, 0.0]) for d in DIRECTIONS}, {"teacher": energy},
    )  # fmt: skip


def test_agreement_finds_a_planted_order_and_nothing_in_noise() -> None:
    draws = np.random.default_rng(0)
    areas = draws.uniform(0, 1, 60)
    slabs = [f"{k % 12}" for k in range(60)]
    # The energy falls as far as the curves move: its size is what counts.
    ordered = [made_up("swap", a, -a, s) for a, s in zip(areas, slabs, strict=True)]
    value, low, high = agreement(ordered, "teacher", resamples=100)
    assert (value, low, high) == pytest.approx((1.0, 1.0, 1.0))
    shuffled = draws.permutation(areas)
    noise = [made_up("swap", a, e, s) for a, e, s in zip(areas, shuffled, slabs, strict=True)]
    value, low, high = agreement(noise, "teacher", resamples=200)
    assert low < 0 < high
    assert np.isnan(agreement(ordered, "chgnet")[0])
    assert np.isnan(agreement(ordered, "teacher", "vacancy")[0])


def test_resamples_draw_whole_slabs() -> None:
    slabs = ["a", "b", "a", "c", "c", "c"]
    for rows in slab_resamples(slabs, 20, seed=1):
        counts = np.bincount(rows, minlength=6)
        assert counts[0] == counts[2]
        assert counts[3] == counts[4] == counts[5]
        assert counts[0] + counts[1] + counts[3] == 3


class _Broken(Calculator):
    implemented_properties = ["energy"]  # noqa: RUF012 (ASE's own way)

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("asked again")


def test_a_potential_answers_to_all_changes_and_is_not_asked_twice(tmp_path: Path) -> None:
    site = pure(symbol="Pd")
    made = [*displacements(site, [0.1])[:2], *strains(site, [0.01])[:1]]
    journal = tmp_path / "energies.jsonl"
    sites = [site, *(change.site for change in made)]
    first = by_potential("lj", LennardJones(rc=6.0), journal).energies(sites)
    again = by_potential("lj", _Broken(), journal).energies(sites)
    assert first.tolist() == again.tolist()
    assert len(set(first.tolist())) == 4
    # Turning a site turns nothing else.
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = replace(
        site, positions=site.positions @ turn, adsorbate_positions=site.adsorbate_positions @ turn
    )
    other = by_potential("lj", LennardJones(rc=6.0), tmp_path / "b.jsonl").energies([turned])
    assert other[0] == pytest.approx(first[0])


def test_a_metal_that_a_potential_lacks_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"calculator: .*EMT.*Ir; expected"):
        by_potential("emt", EMT(), tmp_path / "e.jsonl").energies([pure(symbol="Ir")])


def test_typical_sites_are_those_in_the_middle_of_their_class() -> None:
    sites = [replace(pure(), site_id=f"{k}", energy_ev=e) for k, e in enumerate([0.0, 0.9, 0.2, 0.3, -1.0])]
    other = replace(pure("100", "100_bridge"), site_id="x", energy_ev=5.0)
    assert [site.site_id for site in typical_sites([*sites, other])] == ["x", "2"]
    assert [site.site_id for site in typical_sites(sites, per_class=2)] == ["2", "3"]


def test_barcodes_of_the_fingerprint_are_those_compared() -> None:
    site = relaxed(pure(), 5)
    graph = site_digraph(site, "elements")
    bars = persistence(len(graph.labels), graph.arrows, graph.lengths)
    assert bottleneck(bars, site_bars(site, "elements")).max() == 0
