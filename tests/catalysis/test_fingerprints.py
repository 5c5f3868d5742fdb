from dataclasses import replace

import numpy as np
import pytest

from catalysis.fingerprints import (
    GRID,
    SUMMARIES,
    all_bars,
    bars_with_atoms,
    coordination_curves,
    fingerprints,
    site_bars,
    site_digraph,
)
from catalysis.structure.elements import arrow_order
from catalysis.structure.sites import Site
from catalysis.structure.templates import class_templates
from interpretkit.errors import InputError

ELEMENTS = ["Ir", "Pd", "Pt", "Rh", "Ru"]


def decorated(facet: str, site_class: str, seed: int, adsorbate: str = "OH") -> Site:
    template = class_templates(facet, site_class, adsorbate)[0]
    return template.decorate(list(np.random.default_rng(seed).choice(ELEMENTS, len(template))))


def relaxed(site: Site, seed: int) -> Site:
    noise = np.random.default_rng(seed).normal(0, 0.05, site.positions.shape)
    return replace(site, positions=site.positions + noise)


def test_arrows_follow_the_elements_and_lead_to_the_binding_atom() -> None:
    site = decorated("211", "211_hill", 0)
    graph = site_digraph(site, "elements")
    n = len(site)
    arrows = {(int(a), int(b)) for a, b in graph.arrows}
    assert graph.labels == (*site.symbols, "O", "H")
    assert {(0, n), (1, n), (n + 1, n)} <= arrows
    assert not any(a == n for a, _ in arrows)
    for i, j in zip(*np.nonzero(site.bonds), strict=True):
        up = arrow_order(site.symbols[i]) <= arrow_order(site.symbols[j])
        assert ((int(i), int(j)) in arrows) == up
    positions = np.vstack([site.positions, site.adsorbate_positions])
    for (a, b), length in zip(graph.arrows, graph.lengths, strict=True):
        assert length == pytest.approx(np.linalg.norm(positions[a] - positions[b]))


def test_arrows_of_a_larger_adsorbate_form_a_tree_towards_the_binding_atom() -> None:
    site = decorated("111", "111_bridge", 0, "OOH")
    n = len(site)
    inner = {(int(a) - n, int(b) - n) for a, b in site_digraph(site).arrows if a >= n}
    assert inner == {(1, 0), (2, 1)}


def test_geometry_curves_ignore_the_elements_and_directed_curves_do_not() -> None:
    sites = [decorated("100", "100_bridge", seed) for seed in range(4)]
    moved = [relaxed(sites[0], 7).with_elements(site.symbols) for site in sites]
    geometry = [site_bars(site, "geometry") for site in moved]
    directed = [site_bars(site, "elements") for site in moved]
    for other in geometry[1:]:
        assert all(np.allclose(a, b) for a, b in zip(geometry[0], other, strict=True))
    assert len({tuple(len(bars) for bars in bars_of) for bars_of in directed}) > 1


def test_curves_start_with_one_component_per_atom_and_end_with_one() -> None:
    site = decorated("211", "211_edge", 1)
    curves = coordination_curves([site])[0]
    assert curves.shape == (3, len(GRID))
    assert curves[0, 0] == len(site) + 2
    assert curves[0, -1] == 1
    assert np.all(np.diff(curves[0]) <= 0)


def test_curves_do_not_depend_on_orientation_or_order_but_on_relaxation() -> None:
    site = relaxed(decorated("532", "532_hill2", 2), 3)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    order = np.array([1, 0, *np.random.default_rng(1).permutation(np.arange(2, len(site)))])
    same = replace(
        site,
        symbols=tuple(site.symbols[k] for k in order),
        positions=site.positions[order] @ turn.T,
        adsorbate_positions=site.adsorbate_positions @ turn.T,
    )
    for directions in ("geometry", "elements"):
        for a, b in zip(site_bars(site, directions), site_bars(same, directions), strict=True):
            assert np.allclose(np.sort(a, 0), np.sort(b, 0), atol=1e-9)
    curves = coordination_curves([site, same, relaxed(site, 9)])
    assert np.array_equal(curves[0], curves[1])
    assert not np.array_equal(curves[0], curves[2])


def test_many_sites_together_give_the_bars_of_each() -> None:
    sites = [relaxed(decorated("532", "532_hill1", k), k) for k in range(3)]
    for directions in ("geometry", "elements"):
        for site, bars in zip(sites, all_bars(sites, directions), strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(bars, site_bars(site, directions), strict=True))


def test_fingerprints_hold_what_was_asked_for() -> None:
    sites = [relaxed(decorated("211", name, k), k) for k, name in enumerate(("211_edge", "211_valley"))]
    found = fingerprints(sites, elements=ELEMENTS, summaries=SUMMARIES, properties=True)
    assert found.coordination.shape == found.path_homology.shape == (2, 3, 40)
    assert found.summaries["entropy"].shape == (2, 3)
    assert found.summaries["silhouette"].shape == (2, 3, 40)
    assert found.summaries["landscape"].shape == (2, 3, 3, 40)
    assert all(np.isfinite(values).all() for values in found.summaries.values())
    assert found.properties is not None
    filled = found.ligands.table >= 0
    assert np.isfinite(found.properties[filled]).all()
    assert np.isnan(found.properties[~filled]).all()
    arrays = found.arrays()
    assert not any(array.dtype == object for array in arrays.values())
    assert len(arrays["site_class"]) == len(found) == 2
    # Entropy of H0: minus the sum of p log p over the finite bars' shares of the total length.
    bars = np.minimum(found.coordination_bars[0][0], GRID[-1])
    lengths = bars[:, 1] - bars[:, 0]
    shares = lengths / lengths.sum()
    assert found.summaries["entropy"][0, 0] == pytest.approx(-(shares * np.log(shares)).sum())


def test_representatives_name_atoms_of_the_site() -> None:
    template = class_templates("110", "110_bridge")[0]
    site = relaxed(template.decorate(list(np.random.default_rng(4).choice(ELEMENTS, len(template)))), 4)
    bars = bars_with_atoms(site, "elements")
    barcodes = site_bars(site, "elements")
    labels = (*site.symbols, *site.adsorbate_symbols)
    assert [sum(bar.dimension == d for bar in bars) for d in range(3)] == [len(b) for b in barcodes]
    assert all(bar.elements == tuple(labels[a] for a in bar.atoms) for bar in bars)
    assert all(len(bar.atoms) >= 3 for bar in bars if bar.dimension == 1)


def test_bad_input_is_refused() -> None:
    site = decorated("100", "100_bridge", 0)
    with pytest.raises(InputError, match="sites: none given"):
        fingerprints([])
    with pytest.raises(InputError, match="summaries: 'image'; expected any of entropy"):
        fingerprints([site], summaries=["image"])
    with pytest.raises(InputError, match="directions: 'up'"):
        site_digraph(site, "up")  # type: ignore[arg-type]
