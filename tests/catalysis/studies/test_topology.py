from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import pearsonr

from catalysis.energies.teacher import Teacher
from catalysis.fingerprints import Bar, all_bars, curves_of
from catalysis.structure.occupations import occupations
from catalysis.structure.sites import Site
from catalysis.structure.templates import class_templates
from catalysis.studies.topology import (
    ablation,
    associations,
    bar_features,
    bar_zone,
    clustered_p,
    ideal_copy,
    slabs_until,
    topology_of,
)
from interpretkit.errors import InputError

ELEMENTS = ("Ir", "Pd", "Pt")


def decorated(count: int, per_slab: int = 3, seed: int = 0) -> list[Site]:
    draws = np.random.default_rng(seed)
    sites = []
    for k in range(count):
        facet, name = (("111", "111_bridge"), ("100", "100_bridge"))[k % 2]
        template = class_templates(facet, name)[0]
        symbols = draws.choice(ELEMENTS, len(template)).tolist()
        sites.append(
            template.decorate(
                symbols,
                facet=facet,
                site_class=name,
                site_id=f"{k}",
                slab_id=f"slab {k // per_slab}",
                energy_ev=0.0,
            )
        )
    return sites


def law(sites: list[Site], noise: float, seed: int) -> np.ndarray:
    value = {"Ir": -0.5, "Pd": 0.1, "Pt": 0.4}
    energies = [sum(value[s] for s in site.symbols[:2]) + 0.3 * (site.facet == "111") for site in sites]
    return np.array(energies) + np.random.default_rng(seed).normal(0, noise, len(sites))


def test_slopes_of_dependent_sites_are_judged_by_their_slabs() -> None:
    draws = np.random.default_rng(0)
    robust, naive = [], []
    for _ in range(400):
        groups = np.repeat(np.arange(20), 6)
        x, y = (draws.normal(size=20)[groups] + 0.5 * draws.normal(size=120) for _ in range(2))
        x, y = x - x.mean(), y - y.mean()
        robust.append(clustered_p(x, y, groups))
        naive.append(pearsonr(x, y)[1])
    # Of what is nothing, one in twenty may be called something; sites taken for independent, more than a third are.
    assert 0.02 < np.mean(np.array(robust) < 0.05) < 0.10
    assert np.mean(np.array(naive) < 0.05) > 0.3
    groups = np.repeat(np.arange(20), 6)
    x = draws.normal(size=120)
    assert clustered_p(x - x.mean(), 2 * (x - x.mean()) + 0.1 * draws.normal(size=120), groups) < 1e-10
    assert np.isnan(clustered_p(x, x, np.zeros(120, int)))


def test_planted_associations_are_found_where_they_were_planted() -> None:
    draws = np.random.default_rng(1)
    classes = np.repeat(np.arange(8), 30)
    slabs = np.arange(240) // 2
    level = np.array([-3.0, -2.0, -1.0, -0.3, 0.4, 1.2, 2.0, 3.0])
    inside = draws.normal(size=240)
    energies = level[classes] + inside
    values = np.column_stack(
        [
            inside + 0.5 * draws.normal(size=240),  # within
            level[classes] + 0.05 * draws.normal(size=240),  # between
            *draws.normal(size=(10, 240)),
            np.ones(240),  # nothing to correlate
        ]
    )
    found = associations(
        values, energies, classes.astype(str).tolist(), slabs.astype(str).tolist(), resamples=100
    )
    significant = {(a.column, a.level) for a in found if a.q < 0.01}
    assert significant == {(0, "within"), (1, "between")}
    first = next(a for a in found if (a.column, a.level) == (0, "within"))
    assert first.low < np.sqrt(0.8) < first.high
    assert not [a for a in found if a.column == 12]
    assert all(a.q >= a.p for a in found)


def test_false_discoveries_are_held_down() -> None:
    draws = np.random.default_rng(2)
    any_found = 0
    for _ in range(60):
        values, energies = draws.normal(size=(90, 12)), draws.normal(size=90)
        classes, slabs = np.arange(90) % 5, np.arange(90) // 3
        found = associations(
            values, energies, classes.astype(str).tolist(), slabs.astype(str).tolist(), resamples=5
        )
        any_found += any(a.q <= 0.05 for a in found)
    # Where all are nothing, in one set of twenty something may be found.
    assert any_found <= 9


def test_an_ideal_copy_has_the_curves_of_its_decorated_template() -> None:
    sites = decorated(4)
    draws = np.random.default_rng(3)
    moved = [replace(s, positions=s.positions + draws.normal(0, 0.06, s.positions.shape)) for s in sites]
    copies = [ideal_copy(site) for site in moved]
    assert all(copies)
    known = [copy for copy in copies if copy is not None]
    for direction in ("geometry", "elements"):
        expected = curves_of(all_bars(sites, direction, n_threads=1))
        assert (curves_of(all_bars(known, direction, n_threads=1)) == expected).all()
    assert [copy.symbols for copy in known] == [site.symbols for site in sites]
    assert ideal_copy(replace(sites[0], facet="", site_class="bridge_9-9")) is None


def test_topology_that_makes_the_energy_is_found_and_noise_is_not() -> None:
    sites = decorated(96)
    draws = np.random.default_rng(4)
    topology = draws.normal(size=(96, 3))
    plain = law(sites, 0.02, 5)
    planted = ablation(sites, plain + 0.3 * topology[:, 0], topology=topology, folds=3, resamples=200)
    for row in planted[:2]:
        assert row.helps
        assert row.with_topology_ev < 0.5 * row.mae_ev
        assert row.chosen == row.folds
    nothing = ablation(sites, plain, topology=topology, folds=3, resamples=200)
    for row in nothing[:2]:
        assert not row.helps
        assert abs(row.difference_ev) < 0.01
    # Alone it knows nothing of such energies.
    assert nothing[2].with_topology_ev > 3 * nothing[0].mae_ev


def test_curves_tell_the_facet_and_constant_ones_change_nothing() -> None:
    sites = decorated(60)
    curves = topology_of(sites)
    assert curves.shape == (60, 240)
    by_facet = {site.facet: curves[k, :120] for k, site in enumerate(sites)}
    assert not np.array_equal(by_facet["111"], by_facet["100"])
    rows = ablation(sites, law(sites, 0.02, 6), topology=np.ones((60, 5)), folds=3, resamples=50)
    for row in rows[:2]:
        assert row.difference_ev == 0
        assert row.chosen == 0


def test_without_topology_the_teacher_is_the_teacher() -> None:
    from catalysis.studies.topology import _Known

    sites = decorated(60)
    energies = law(sites, 0.05, 7)
    train, test = np.arange(40), np.arange(40, 60)
    teacher = Teacher().fit(sites[:40], energies[:40])
    members = [member.design(occupations(sites))[0].astype(float) for member in teacher.members]
    known = _Known(
        [m @ m.T for m in members], [(m.noise,) for m in teacher.members], energies, train, np.arange(40) % 4
    )
    mean, used = known.predict(test, [])
    assert not used
    assert mean == pytest.approx(teacher.predict(sites[40:]).mean_ev, abs=1e-4)


def test_the_settings_are_refused_that_are_none() -> None:
    sites = decorated(40)
    with pytest.raises(InputError, match="molten"):
        ablation(sites, law(sites, 0.1, 0), setting="molten")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="slab_id"):
        ablation([replace(s, slab_id="one") for s in sites], law(sites, 0.1, 0))
    lost = [replace(s, facet="", site_class="bridge") for s in sites]
    with pytest.raises(InputError, match="matches no template"):
        ablation(lost, law(sites, 0.1, 0), folds=3)


def test_bars_lie_where_their_innermost_atom_does() -> None:
    site = decorated(1)[0]
    zones = site.zones.tolist()
    far, near = zones.index(3), zones.index(2)
    assert bar_zone(site, Bar(1, 2.0, 3.0, (far, near), ("Pt", "Pt"))) == "shell"
    assert bar_zone(site, Bar(1, 2.0, 3.0, (far, 0), ("Pt", "Pt"))) == "contact"
    assert bar_zone(site, Bar(0, 0.0, 1.0, (len(site) + 1,), ("H",))) == "adsorbate"


def test_bars_are_counted_once_and_their_lengths_add_up() -> None:
    sites = decorated(4)
    draws = np.random.default_rng(8)
    moved = [replace(s, positions=s.positions + draws.normal(0, 0.08, s.positions.shape)) for s in sites]
    found = bar_features(moved, ("geometry",), shortest=0.01)
    assert set(found.measure) <= {"bars", "length", "birth"}
    for dimension in (0, 1):
        bars = [b[dimension] for b in all_bars(moved, "geometry", n_threads=1)]
        finite = [b[np.isfinite(b[:, 1]) & (b[:, 1] - b[:, 0] >= 0.01)] for b in bars]
        columns = [k for k in range(len(found.zone)) if found.dimension[k] == dimension]
        counted = found.values[:, [k for k in columns if found.measure[k] == "bars"]].sum(1)
        # Kinds of which all sites have as many are left out.
        assert (counted <= [len(b) for b in finite]).all()
        # … so that lengths add up but for what no site differs in, the adsorbate's own bond.
        lengths = found.values[:, [k for k in columns if found.measure[k] == "length"]].sum(1)
        expected = np.array([np.ptp(b, axis=1).sum() for b in finite])
        assert lengths - lengths[0] == pytest.approx(expected - expected[0], abs=1e-6)


def test_slabs_are_taken_whole() -> None:
    sites = decorated(60, per_slab=4)
    some = slabs_until(sites, 10, 0)
    assert len(some) == 12
    assert {site.slab_id for site in some}.isdisjoint({s.slab_id for s in sites if s not in some})
    assert slabs_until(sites, 1000, 0) == sites
