from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from catalysis.hosts import host_site
from catalysis.sites import BRIDGE_CLASSES, site_from_structure
from catalysis.templates import align, class_templates


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


def test_another_adsorbate_is_placed() -> None:
    (template,) = class_templates("111", "111_bridge")
    host = host_site(template, ["Pt"] * len(template), adsorbate="OOH")
    assert site_from_structure(host.with_adsorbate).adsorbate == "OOH"
