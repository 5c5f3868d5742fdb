from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from catalysis.structure.occupations import occupations
from catalysis.structure.sites import BRIDGE_CLASSES, COMMON, SECOND, Site
from catalysis.structure.templates import (
    N_SLOTS,
    ZONE_CAPACITY,
    Template,
    align,
    class_templates,
    facet_templates,
)
from interpretkit.errors import InputError

# Common neighbours and all other-than-contact neighbours of the pair, counted on relaxed DFT slabs.
COUNTS = {
    "100_bridge": (2, 12), "110_bridge": (2, 10), "111_bridge": (3, 13), "211_edge": (2, 10),
    "211_summit": (3, 11), "211_hill": (2, 13), "211_valley": (3, 14), "532_outer_higher_edge": (2, 9),
    "532_higher_edge": (2, 10), "532_inner_higher_edge": (2, 11), "532_hill1": (2, 13),
    "532_hill2": (2, 12), "532_valley2": (3, 13),
}  # fmt: skip
METALS = {
    "100_bridge": 46, "110_bridge": 44, "211_summit": 44, "211_hill": 49, "211_valley": 51,
    "532_outer_higher_edge": 39, "532_higher_edge": 41, "532_inner_higher_edge": 42, "532_hill1": 49,
    "532_hill2": 46,
}  # fmt: skip
PLATINUM_GROUP = ["Ir", "Pd", "Pt", "Rh", "Ru"]


def template_of(site_class: str) -> Template:
    facet = next(facet for (facet, _), name in BRIDGE_CLASSES.items() if name == site_class)
    return class_templates(facet, site_class)[0]


def shaken(site: Site, rng: np.random.Generator, amplitude: float = 0.12, mirror: bool = False) -> Site:
    """Return the site displaced at random, turned, perhaps mirrored, its contacts swapped, its metals shuffled."""
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    if (np.linalg.det(turn) < 0) != mirror:
        turn[:, 0] *= -1
    count = site.contacts
    order = np.concatenate([rng.permutation(count), count + rng.permutation(len(site) - count)])
    noise = rng.uniform(-amplitude, amplitude, site.positions.shape)
    return replace(
        site,
        symbols=tuple(site.symbols[k] for k in order),
        positions=((site.positions + noise) * 1.02)[order] @ turn.T + 5.0,
        adsorbate_positions=site.adsorbate_positions * 1.02 @ turn.T + 5.0,
        host_indices=(),
    )


def random_symbols(template: Template, rng: np.random.Generator) -> Sequence[str]:
    return [str(s) for s in rng.choice(PLATINUM_GROUP, len(template))]


@pytest.mark.parametrize("site_class", sorted(COUNTS))
def test_slots_of_the_published_classes(site_class: str) -> None:
    template = template_of(site_class)
    common = int((template.zones == COMMON).sum())
    touching = int((template.zones < SECOND).sum()) - 2
    assert (common, touching) == COUNTS[site_class]
    assert len(template) == METALS.get(site_class, len(template))
    assert np.all(np.diff(template.zones) >= 0)


@pytest.mark.parametrize(
    ("site_class", "order"), [("100_bridge", 4), ("110_bridge", 4), ("211_edge", 2), ("532_hill1", 1)]
)
def test_symmetries_are_isometries_that_form_a_group(site_class: str, order: int) -> None:
    template = template_of(site_class)
    assert len(template.permutations) == order
    gaps = np.linalg.norm(template.positions[:, None] - template.positions[None], axis=-1)
    known = {tuple(p) for p in template.permutations}
    for p in template.permutations:
        assert np.allclose(gaps[np.ix_(p, p)], gaps, atol=1e-3)
        assert set(p[: template.contacts]) == set(range(template.contacts))
        assert all(tuple(p[q]) in known for q in template.permutations)
    assert np.array_equal(template.orbits, template.permutations.min(0))


@pytest.mark.parametrize(
    ("facet", "site_class"),
    [("111", "111_top_9"), ("111", "111_fcc_9-9-9"), ("100", "100_hollow_8-8-8-8"), ("221", None)],
)
def test_other_kinds_and_facets_have_templates(facet: str, site_class: str | None) -> None:
    templates = facet_templates(facet)
    rng = np.random.default_rng(0)
    for name in [site_class] if site_class else sorted(templates):
        for template in templates[name]:
            assert np.all(np.bincount(template.zones, minlength=4) <= ZONE_CAPACITY)
            site = template.decorate(random_symbols(template, rng))
            assert align(shaken(site, rng, 0.05)).template is template


@pytest.mark.parametrize("site_class", sorted(COUNTS))
@pytest.mark.parametrize("mirror", [False, True])
def test_slots_do_not_depend_on_relaxation_orientation_or_order(site_class: str, mirror: bool) -> None:
    template = template_of(site_class)
    rng = np.random.default_rng(len(site_class))
    site = template.decorate(random_symbols(template, rng))
    ideal = occupations([site], PLATINUM_GROUP)
    for _ in range(3):
        moved = shaken(site, rng, mirror=mirror)
        alignment = align(moved)
        assert alignment.template is template
        assert 0 < alignment.rms_angstrom < 0.3
        assert sorted(alignment.slots) == list(range(len(template)))
        assert np.array_equal(occupations([moved], PLATINUM_GROUP).table, ideal.table)


def test_two_decorations_differ() -> None:
    template = template_of("532_hill1")
    first = ["Pt"] * len(template)
    for slot in (0, 1, 10, len(template) - 1):
        second = list(first)
        second[slot] = "Ru"
        table = occupations([template.decorate(first), template.decorate(second)], ["Pt", "Ru"]).table
        assert (table[0] != table[1]).sum() == 1


def test_missing_metals_leave_empty_slots() -> None:
    template = template_of("211_hill")
    site = template.decorate(["Pt"] * len(template))
    kept = [k for k in range(len(site)) if k != len(site) - 1]
    thin = replace(site, symbols=tuple(site.symbols[k] for k in kept), positions=site.positions[kept])
    alignment = align(thin)
    assert alignment.template is template
    (empty,) = set(range(len(template))) - set(alignment.slots)
    left_out = int(np.flatnonzero(template.order == len(site) - 1)[0])
    assert template.orbits[empty] == template.orbits[left_out]
    assert (occupations([thin]).table >= 0).sum() == len(site) - 1


def test_a_site_without_template_goes_by_zone_and_distance_and_says_so() -> None:
    template = template_of("211_edge")
    site = replace(template.decorate(["Pt"] * len(template)), facet="", site_class="bridge_7-7")
    alignment = align(site)
    assert alignment.template is None
    assert np.isnan(alignment.rms_angstrom)
    found = occupations([site, template.decorate(["Pt"] * len(template))])
    assert found.aligned.tolist() == [False, True]
    assert np.array_equal(found.table[0], found.table[1])
    assert found.table.shape == (2, N_SLOTS)


def test_canonical_occupations_are_the_same_for_symmetric_copies() -> None:
    template = template_of("100_bridge")
    rng = np.random.default_rng(1)
    table = rng.integers(0, 5, (40, len(template)))
    canonical = template.canonical(table)
    for p in template.permutations:
        assert np.array_equal(template.canonical(table[:, p]), canonical)
    copies = np.stack([table[:, p] for p in template.permutations], 1)
    assert all(canonical[k].tolist() == min(copies[k].tolist()) for k in range(40))


def test_decorated_templates_come_back_slot_by_slot() -> None:
    template = template_of("532_higher_edge")
    symbols = random_symbols(template, np.random.default_rng(2))
    found = occupations([template.decorate(symbols)], PLATINUM_GROUP)
    assert [PLATINUM_GROUP[k] for k in found.table[0, template.columns]] == list(symbols)


def test_bad_input_is_refused() -> None:
    template = template_of("211_edge")
    with pytest.raises(InputError, match="elements: 1 given; 211_edge has 40 slots"):
        template.decorate(["Pt"])
    with pytest.raises(InputError, match="element Pt is not among Ru"):
        occupations([template.decorate(["Pt"] * len(template))], ["Ru"])
