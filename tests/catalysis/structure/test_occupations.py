"""Elements in slots say the same of a site as its atoms do."""

from __future__ import annotations

import numpy as np
import pytest

from catalysis.structure.occupations import Occupations, filled, joined, occupations
from catalysis.structure.templates import Template, class_templates
from interpretkit.errors import InputError

ELEMENTS = ["Ir", "Pd", "Pt", "Ru"]
TEMPLATES = [class_templates(facet, name)[0] for facet, name in (("111", "111_bridge"), ("211", "211_hill"))]


def drawn(n: int, seed: int = 0, templates: list[Template] = TEMPLATES) -> Occupations:
    rng = np.random.default_rng(seed)
    which = rng.integers(0, len(templates), n)
    geometries = [template.geometry for template in templates]
    slots = sum(len(templates[k]) for k in which)
    return filled(geometries, which, ELEMENTS, rng.integers(0, len(ELEMENTS), slots))


def test_sites_made_of_them_are_read_as_the_same() -> None:
    data = drawn(20)
    sites = [data.site(row, "OH") for row in range(20)]
    again = occupations(sites, ELEMENTS)
    assert again.aligned.all()
    assert np.array_equal(again.table, data.canonical().table)
    assert [g.key for g in (again.geometries[k] for k in again.geometry)] == [
        data.geometries[k].key for k in data.geometry
    ]
    assert data.contact_elements == [site.contact_elements for site in sites]
    assert data.site(3, "O").adsorbate == "O"
    for row, site in enumerate(sites):
        template = TEMPLATES[data.geometry[row]]
        assert tuple(site.symbols[k] for k in template.order) == data.symbols(row)


def test_symmetric_copies_are_one_and_nothing_else_is() -> None:
    data = drawn(12, templates=TEMPLATES[:1])
    geometry = data.geometries[0]
    for permutation in geometry.permutations:
        table = data.table.copy()
        table[:, geometry.columns] = data.table[:, geometry.columns[permutation]]
        copy = Occupations(data.geometries, data.geometry, data.elements, table, data.aligned)
        assert np.array_equal(copy.canonical().table, data.canonical().table)
        assert all(joined([data, copy]).differences(row, np.array([12 + row]))[0] == 0 for row in range(12))
    assert len(np.unique(data.canonical().table, axis=0)) == 12
    assert data.canonical().canonical().table.tolist() == data.canonical().table.tolist()


def test_differences_count_slots_in_either_direction() -> None:
    data = drawn(8, templates=TEMPLATES[1:])
    every = np.array([data.differences(row, np.arange(8)) for row in range(8)])
    assert np.array_equal(every, every.T)
    assert np.all(every.diagonal() == 0)
    one = data.table.copy()
    column = data.geometries[0].columns[-1]
    one[:, column] = (one[:, column] + 1) % len(ELEMENTS)
    changed = Occupations(data.geometries, data.geometry, data.elements, one, data.aligned)
    assert all(joined([data, changed]).differences(row, np.array([8 + row]))[0] == 1 for row in range(8))
    assert data.differences(0, np.zeros(0, int)).shape == (0,)


def test_joined_geometries_are_counted_once() -> None:
    data = drawn(10)
    both = joined([data[5:], data[:5], filled([], np.zeros(0, int), ELEMENTS, np.zeros(0, int))])
    assert len(both) == 10
    assert len(both.geometries) == 2
    assert np.array_equal(both.table[5:], data.table[:5])
    assert sorted(row for rows, _ in both.by_geometry() for row in rows.tolist()) == list(range(10))


def test_without_a_template_there_are_no_atoms() -> None:
    site = drawn(1).site(0, "OH")
    nameless = occupations([type(site)(**{**vars(site), "facet": "", "site_class": "bridge_9-9"})])
    with pytest.raises(InputError, match="bridge_9-9: has no template"):
        nameless.site(0, "OH")
