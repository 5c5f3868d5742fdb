from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from catalysis.structure.host_slabs import host_site
from catalysis.structure.sites import BRIDGE_CLASSES
from catalysis.structure.templates import align, class_templates, facet_templates
from catalysis.structure.user_sites import site_from_structure


@pytest.mark.parametrize(("facet", "name"), [(facet, name) for (facet, _), name in BRIDGE_CLASSES.items()])
def test_a_slab_holds_the_site_that_was_asked_for(facet: str, name: str) -> None:
    (template,) = class_templates(facet, name)
    symbols = [str(s) for s in np.random.default_rng(1).choice(["Pt", "Pd", "Ru"], size=len(template))]
    host = host_site(template, symbols, site_id="design-1")
    assert host.site.site_id == "design-1"
    assert [host.slab[i].symbol for i in host.site.host_indices] == list(host.site.symbols)
    # Cut out of the slab again, from nothing but the structure, it is the same site in the same slots.
    again = site_from_structure(host.with_adsorbate)
    assert again.site_class == name
    assert Counter(again.symbols) == Counter(symbols)
    alignment = align(again)
    found = [""] * len(template)
    for symbol, slot in zip(again.symbols, alignment.slots, strict=True):
        found[slot] = symbol
    numbers = {"Pt": 0, "Pd": 1, "Ru": 2}
    first, second = (
        template.canonical(np.array([numbers[symbol] for symbol in some])) for some in (found, symbols)
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("facet", ["111", "100", "211"])
def test_every_kind_of_site_finds_a_slab_wide_enough(facet: str) -> None:
    for templates in facet_templates(facet).values():
        for template in templates:
            host = host_site(template, ["Pt"] * len(template))
            assert len(set(host.site.host_indices)) == len(template)


def test_another_adsorbate_is_placed() -> None:
    for name in ("OH", "OOH", "O"):
        (template,) = class_templates("100", "100_hollow_8-8-8-8", name)
        host = host_site(template, ["Pt"] * len(template), adsorbate=name)
        assert site_from_structure(host.with_adsorbate).adsorbate == name
