from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from catalysis.data import ELEMENTS, load_bundled, load_bundled_lost, load_bundled_slab, provenance
from catalysis.data.build import chosen_sites, plan
from catalysis.structure.finding import find_sites
from catalysis.structure.sites import BRIDGE_CLASSES, Site
from interpretkit.errors import InputError


@pytest.fixture(scope="module")
def bundled() -> list[Site]:
    return load_bundled()


def test_the_bundled_data_are_as_large_as_promised(bundled: list[Site]) -> None:
    told = provenance()
    assert len(bundled) == told["sites_kept"] >= 1500
    random_slabs = {site.slab_id for site in bundled if site.slab_id.startswith(("HEA", "MIX"))}
    assert len(random_slabs) >= 400
    assert {site.site_class for site in bundled} == set(BRIDGE_CLASSES.values())
    assert len({site.site_id for site in bundled}) == len(bundled)
    assert sum(told["fates"].values()) == told["sites_labelled"]


def test_every_bundled_site_is_sound(bundled: list[Site]) -> None:
    for site in bundled:
        assert site.energy_ev is not None
        assert -3 < site.energy_ev < 1
        assert set(site.symbols) <= set(ELEMENTS)
        gaps = np.linalg.norm(site.positions - site.adsorbate_positions[0], axis=1)
        # Held midway between the contacts, at a bond length from them and from nothing else.
        assert gaps[0] == pytest.approx(gaps[1], abs=2e-3)
        assert 1.85 < gaps[0] < 2.4
        assert gaps[2] > 1.12 * gaps[0]
        assert 0.9 < np.linalg.norm(site.adsorbate_positions[1] - site.adsorbate_positions[0]) < 1.1


def test_the_pure_metals_bind_in_the_order_of_dft(bundled: list[Site]) -> None:
    energy = {
        element: next(s.energy_ev for s in bundled if s.slab_id == f"{element}-111") or 0.0
        for element in ELEMENTS
    }
    assert energy["Ru"] < energy["Rh"] < energy["Pd"] < energy["Pt"]
    assert energy["Ru"] < energy["Ir"] < energy["Pd"]
    assert energy["Pt"] == pytest.approx(0.0, abs=0.02)


def test_every_bundled_site_lies_in_the_cell_that_its_slab_carries(bundled: list[Site]) -> None:
    sites = [*bundled, *load_bundled_lost()]
    slabs = {name: load_bundled_slab(name) for name in sorted({site.slab_id for site in sites})[::5]}
    checked = [site for site in sites if site.slab_id in slabs]
    assert len(checked) > 300
    for site in checked:
        slab = slabs[site.slab_id]
        host = list(site.host_indices)
        assert [slab.symbols[i] for i in host] == list(site.symbols)
        # Each metal of the site is a periodic image of the slab's atom.
        steps = (site.positions - slab.positions[host]) @ np.linalg.inv(slab.cell.array)
        assert np.abs((steps - np.rint(steps)) @ slab.cell.array).max() < 2e-4
        assert np.abs(steps[:, 2]).max() < 1e-4


def test_a_bundled_site_stands_in_its_slab(bundled: list[Site]) -> None:
    for site in bundled[::200]:
        slab = load_bundled_slab(site.slab_id)
        assert [slab[i].symbol for i in site.host_indices] == list(site.symbols)
        found = {other.site_id: other for other in find_sites(slab)}
        assert Counter(found[site.site_id].symbols) == Counter(site.symbols)
    with pytest.raises(InputError, match="slab_id"):
        load_bundled_slab("nowhere")


def test_the_plan_can_be_repeated_and_covers_every_class() -> None:
    assert plan(0) == plan(0)
    assert plan(0) != plan(1)
    slabs = plan(0)
    assert len({slab.slab_id for slab in slabs}) == len(slabs)
    picked = chosen_sites(find_sites(load_bundled_slab("Pt-532")), 1, seed=0)
    assert len(picked) == len({site.site_class for site in picked}) == 6
