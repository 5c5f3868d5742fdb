"""Nothing is chosen by rounding: the same choices on every processor, and with positions that are a little off."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from catalysis.fingerprints import site_bars, site_digraph
from catalysis.structure import templates
from catalysis.structure.finding import find_sites
from catalysis.structure.occupations import occupations
from catalysis.structure.ordering import first_largest, first_smallest, merged, tolerant_order, tolerant_ranks
from catalysis.structure.surfaces import bare_slab, build_slab
from catalysis.structure.templates import align, facet_templates
from catalysis.studies.design import choose, random_occupations

CHOICES = Path(__file__).with_name("choices.py")
"""A script that writes down everything that is chosen among equals."""

SETTINGS = {
    "as it is": {},
    "Haswell": {"OPENBLAS_CORETYPE": "Haswell"},
    "Zen, two threads": {"OPENBLAS_CORETYPE": "Zen", "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"},
    "SkylakeX": {"OPENBLAS_CORETYPE": "SkylakeX", "OPENBLAS_NUM_THREADS": "1"},
}


def test_equal_numbers_share_a_rank_and_place_decides() -> None:
    values = np.array([2.0, 1.0 + 1e-12, 3.0, 1.0, 2.0 - 1e-9])
    assert tolerant_ranks(values).tolist() == [1, 0, 2, 0, 1]
    assert tolerant_order(values).tolist() == [1, 3, 0, 4, 2]
    assert tolerant_order(values, np.array([0, 1, 0, 0, -1.0])).tolist() == [3, 1, 4, 0, 2]
    assert first_smallest(values) == 1
    assert first_largest(np.array([1.0, 3 - 1e-9, 3.0])) == 1
    assert merged(values)[[0, 4]].tolist() == [2.0 - 0.5e-9] * 2
    assert tolerant_ranks(np.array([np.inf, 1.0, np.inf])).tolist() == [1, 0, 1]
    assert tolerant_ranks(np.zeros((0,))).shape == (0,)


@settings(max_examples=50, deadline=None)
@given(
    grid=st.lists(st.integers(-40, 40), min_size=1, max_size=30),
    offset=st.floats(-1e3, 1e3),
    seed=st.integers(0, 99),
)
def test_noise_below_the_tolerance_changes_no_order(grid: list[int], offset: float, seed: int) -> None:
    # Any offset: a grid that numbers are rounded to would have a boundary somewhere.
    values = np.array(grid) * 0.01 + offset
    noisy = values + np.random.default_rng(seed).uniform(-1e-6, 1e-6, len(values))
    assert np.array_equal(tolerant_order(values), tolerant_order(noisy))
    assert np.array_equal(np.unique(np.array(grid), return_inverse=True)[1], tolerant_ranks(noisy))
    assert (first_smallest(noisy), first_largest(noisy)) == (int(np.argmin(grid)), int(np.argmax(grid)))


def _runnable(core: str) -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return ("avx512f" if core == "SkylakeX" else "avx2") in flags


def test_every_processor_chooses_alike(tmp_path: Path) -> None:
    started = {}
    for name, variables in SETTINGS.items():
        if "OPENBLAS_CORETYPE" in variables and not _runnable(variables["OPENBLAS_CORETYPE"]):
            continue
        clean = {key: value for key, value in os.environ.items() if key != "OPENBLAS_CORETYPE"}
        root = str(CHOICES.parents[2])
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        target = tmp_path / f"{len(started)}.npz"
        started[name] = (
            target,
            subprocess.Popen(
                [sys.executable, str(CHOICES), str(target)], env={**clean, "PYTHONPATH": path, **variables}
            ),
        )
    found = {}
    for name, (target, process) in started.items():
        assert process.wait(timeout=300) == 0, name
        with np.load(target) as arrays:
            found[name] = dict(arrays)
    first = found["as it is"]
    assert len(first) > 100
    for name, other in found.items():
        assert other.keys() == first.keys()
        for key, expected in first.items():
            if expected.dtype.kind == "f":
                assert other[key].shape == expected.shape, (name, key)
                assert np.abs(other[key] - expected).max() < 1e-6, (name, key)
            else:
                assert np.array_equal(other[key], expected), (name, key)


def noisy(slab: Atoms, amplitude: float, seed: int) -> Atoms:
    moved = slab.copy()
    moved.positions += np.random.default_rng(seed).uniform(-amplitude, amplitude, slab.positions.shape)
    return moved


@pytest.mark.parametrize("facet", ["111", "100", "211", "532"])
@pytest.mark.parametrize("amplitude", [1e-12, 1e-9])
def test_sites_and_templates_do_not_depend_on_the_last_digits(
    facet: str, amplitude: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    slab = bare_slab(facet, 3.85)
    kinds = ("top", "bridge", "hollow")
    moved = noisy(slab, amplitude, seed=5)
    for before, after in zip(find_sites(slab, kinds=kinds), find_sites(moved, kinds=kinds), strict=True):
        assert before.site_id == after.site_id
        assert before.host_indices == after.host_indices
        assert np.abs(before.adsorbate_positions - after.adsorbate_positions).max() < 1e-5
    expected = facet_templates(facet)
    monkeypatch.setattr(templates, "bare_slab", lambda *_: moved)
    found = templates._facet_templates.__wrapped__(facet, "OH")
    assert list(found) == list(expected)
    for name, variants in expected.items():
        for before, after in zip(variants, found[name], strict=True):
            assert np.array_equal(before.order, after.order)
            assert np.array_equal(before.permutations, after.permutations)
            assert np.array_equal(before.zones, after.zones)
            assert np.abs(before.positions - after.positions).max() < 1e-6


def test_bonds_of_equal_length_enter_the_filtration_together() -> None:
    slab = build_slab("111", "PtPdRu", seed=1)
    for before, after in zip(find_sites(slab)[:4], find_sites(noisy(slab, 1e-9, seed=2))[:4], strict=True):
        steps = [np.unique(site_digraph(site).lengths, return_inverse=True)[1] for site in (before, after)]
        assert np.array_equal(steps[0], steps[1])
        bars = [site_bars(site) for site in (before, after)]
        for dimension in range(3):
            assert bars[0][dimension].shape == bars[1][dimension].shape
            assert np.all(np.diff(bars[1][dimension], axis=1) > 1e-7)


def test_designs_of_equal_probability_are_chosen_by_place() -> None:
    drawn = random_occupations([facet_templates("111")["111_bridge"][0]], {"Pt": 0.5, "Ru": 0.5}, 40, seed=0)
    even = np.full(40, 0.7)
    uneven = even + np.random.default_rng(0).uniform(-1e-12, 1e-12, 40)
    assert choose(drawn, even, 10) == choose(drawn, uneven, 10)


@pytest.mark.parametrize("facet", ["111", "100", "532"])
def test_a_template_is_the_same_from_every_side(facet: str) -> None:
    rng = np.random.default_rng(3)
    for variants in facet_templates(facet).values():
        for template in variants:
            site = template.decorate([str(s) for s in rng.choice(["Pt", "Pd", "Ru"], len(template))])
            turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
            count = site.contacts
            order = np.concatenate([rng.permutation(count), count + rng.permutation(len(site) - count)])
            turned = replace(
                site,
                symbols=tuple(site.symbols[k] for k in order),
                positions=site.positions[order] @ turn.T + rng.normal(size=3),
                adsorbate_positions=site.adsorbate_positions @ turn.T,
            )
            again = templates.template_of(turned, template.variant)
            assert np.array_equal(again.zones, template.zones)
            assert np.array_equal(again.permutations, template.permutations)
            mirrored = 1.0 if np.linalg.det(turn) > 0 else -1.0
            gaps = [np.abs(again.positions * [1, m, 1] - template.positions).max() for m in (1.0, -1.0)]
            assert gaps[0 if mirrored > 0 else 1] < 1e-6 or min(gaps) < 1e-6
            names = sorted(set(site.symbols))
            tables = [occupations([one], names).table for one in (site, turned)]
            assert np.array_equal(tables[0], tables[1])
            # Without a facet there is no template, and still the same slot for the same place.
            lone = [occupations([replace(one, facet="")], names).table for one in (site, turned)]
            assert np.array_equal(lone[0], lone[1])
            assert align(turned).rms_angstrom < 1e-6
