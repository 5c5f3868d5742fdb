from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from catalysis.data import load_bundled
from catalysis.energies.teacher import Teacher
from catalysis.models.site_model import SHIPPED, SiteModel
from catalysis.structure.sites import Site
from catalysis.structure.templates import class_templates
from catalysis.studies.atoms import (
    ExpectedEnergy,
    attribute_teacher,
    attribute_vae,
    mean_occupation,
    mean_over_slabs,
    rank_correlation,
    slots_of,
    substituted_by_teacher,
    training_influence,
)
from catalysis.studies.sensitivity import typical_sites
from interpretkit.errors import InputError

ELEMENTS = ("Ir", "Pd", "Pt", "Ru")
BINDING = {"Ru": -0.4, "Ir": -0.2, "Pd": 0.1, "Pt": 0.2}


def planted(count: int, seed: int) -> list[Site]:
    draws = np.random.default_rng(seed)
    sites = []
    for k in range(count):
        facet, name = (("111", "111_bridge"), ("100", "100_bridge"), ("211", "211_edge"))[k % 3]
        template = class_templates(facet, name)[0]
        symbols = draws.choice(ELEMENTS, len(template)).tolist()
        site = template.decorate(
            symbols, facet=facet, site_class=name, site_id=f"{k}", slab_id=f"slab {k // 3}"
        )
        common = [BINDING[s] for s, zone in zip(site.symbols, site.zones, strict=True) if zone == 1]
        pair = 0.2 if site.symbols[0] == site.symbols[1] else 0.0
        energy = sum(BINDING[s] for s in site.symbols[:2]) + 0.3 * sum(common) + pair
        sites.append(replace(site, energy_ev=energy + 0.01 * draws.normal()))
    return sites


@pytest.fixture(scope="module")
def sites() -> list[Site]:
    return planted(120, 0)


@pytest.fixture(scope="module")
def teacher(sites: list[Site]) -> Teacher:
    return Teacher(slot_lengths=(0.7,)).fit(sites)


@pytest.fixture(scope="module")
def shipped() -> SiteModel:
    return SiteModel.load(SHIPPED)


@pytest.fixture(scope="module")
def bundled() -> list[Site]:
    return typical_sites(load_bundled()[::7])


SHARES = np.array([0.4, 0.3, 0.2, 0.1])


def test_every_slot_knows_its_atom(sites: list[Site]) -> None:
    draws = np.random.default_rng(1)
    for site in sites[:6]:
        order = [*draws.permutation(2), *(2 + draws.permutation(len(site) - 2))]
        turned = replace(
            site,
            symbols=tuple(site.symbols[k] for k in order),
            positions=site.positions[order],
            host_indices=(),
        )
        slots = slots_of(turned, ELEMENTS)
        assert sorted(slots.atoms.tolist()) == list(range(len(site)))
        named = [ELEMENTS[k] for k in slots.elements]
        assert named == [turned.symbols[k] for k in slots.atoms]
        assert slots.to_atoms(np.arange(len(slots.atoms), dtype=float), len(site))[
            slots.atoms
        ] == pytest.approx(np.arange(len(slots.atoms)))


def test_the_expected_energy_of_one_occupation_is_the_prediction(teacher: Teacher, sites: list[Site]) -> None:
    for site in sites[:6]:
        slots = slots_of(site, teacher.elements)
        shares = torch.as_tensor(np.eye(len(ELEMENTS) + 1)[slots.elements])[None]
        model = ExpectedEnergy(teacher, slots.geometry, teacher.elements)
        assert float(model(shares)[0]) == pytest.approx(teacher.predict([site]).mean_ev[0], abs=1e-5)


def test_the_expected_energy_of_a_mixture_is_the_mean_over_random_occupations(
    teacher: Teacher, sites: list[Site]
) -> None:
    site = sites[1]
    slots = slots_of(site, teacher.elements)
    mean = np.tile(np.append(SHARES, 0.0), (len(slots.atoms), 1))
    model = ExpectedEnergy(teacher, slots.geometry, teacher.elements)
    expected = float(model(torch.as_tensor(mean)[None])[0])
    draws = np.random.default_rng(2)
    random = [site.with_elements(draws.choice(ELEMENTS, len(site), p=SHARES).tolist()) for _ in range(4000)]
    energies = teacher.predict_mean(teacher.occupations(random))
    assert abs(energies.mean() - expected) < 4 * energies.std() / np.sqrt(len(energies))


def test_shapley_values_are_those_of_random_orders(teacher: Teacher, sites: list[Site]) -> None:
    """Beside a pure metal a coalition is one site, so that orders can be walked with the teacher's own predictions."""
    site = sites[2]
    pure = np.array([0.0, 1.0, 0.0, 0.0])
    found = attribute_teacher(teacher, site, pure)
    draws = np.random.default_rng(3)
    orders, count = 150, len(site)
    walked, steps = [], []
    for _ in range(orders):
        order = draws.permutation(count)
        symbols = ["Pd"] * count
        walked.append(site.with_elements(symbols))
        for atom in order:
            symbols[atom] = site.symbols[atom]
            walked.append(site.with_elements(symbols))
        steps.append(order)
    energies = teacher.predict_mean(teacher.occupations(walked)).reshape(orders, count + 1)
    gains = np.zeros((orders, count))
    for row, order in enumerate(steps):
        gains[row, order] = np.diff(energies[row])
    error = gains.std(0) / np.sqrt(orders)
    assert (np.abs(gains.mean(0) - found.values_ev) < 4.5 * error + 1e-5).all()
    # A metal that is what it is compared with has no part in it.
    same = np.array([symbol == "Pd" for symbol in site.symbols])
    assert np.abs(found.values_ev[same]).max() < 1e-9


def test_attributions_are_complete_and_find_the_planted_atoms(teacher: Teacher, sites: list[Site]) -> None:
    for site in sites[:9]:
        found = attribute_teacher(teacher, site, SHARES)
        assert abs(found.gap_ev) < 1e-9
        assert found.values_ev.sum() == pytest.approx(found.energy_ev - found.baseline_ev, abs=1e-9)
        second = np.abs(found.values_ev[site.zones == 3])
        assert second.max() < 0.03
    values, laws = [], []
    mean = sum(share * BINDING[e] for e, share in zip(ELEMENTS, SHARES, strict=True))
    for site in sites[:30]:
        found = attribute_teacher(teacher, site, SHARES)
        common = np.flatnonzero(site.zones == 1)
        values += found.values_ev[common].tolist()
        laws += [0.3 * (BINDING[site.symbols[k]] - mean) for k in common.tolist()]
    assert np.corrcoef(values, laws)[0, 1] > 0.97
    assert np.polyfit(laws, values, 1)[0] == pytest.approx(1, abs=0.15)


def test_attributions_turn_with_the_site(teacher: Teacher, sites: list[Site]) -> None:
    site = sites[4]
    order = [1, 0, *range(2, len(site))]
    turned = replace(
        site, symbols=tuple(site.symbols[k] for k in order), positions=site.positions[order], host_indices=()
    )
    assert attribute_teacher(teacher, turned, SHARES).values_ev == pytest.approx(
        attribute_teacher(teacher, site, SHARES).values_ev[order], abs=1e-6
    )


def test_a_substitution_is_what_is_lost_by_it(teacher: Teacher, sites: list[Site]) -> None:
    site = sites[0]
    found = substituted_by_teacher(teacher, site, SHARES)
    own = teacher.predict([site]).mean_ev[0]
    for atom in (0, 3, 20):
        others = [
            site.with_elements([*site.symbols[:atom], element, *site.symbols[atom + 1 :]])
            for element in ELEMENTS
        ]
        expected = own - teacher.predict(others).mean_ev @ SHARES
        assert found[atom] == pytest.approx(expected, abs=1e-5)


def test_attributions_rank_atoms_as_substitutions_do(shipped: SiteModel, bundled: list[Site]) -> None:
    shares = mean_occupation(bundled, shipped.teacher.elements)
    assert shares.sum() == pytest.approx(1)
    ranks, of_head = [], []
    for site in bundled[:3]:
        teacher = attribute_teacher(shipped.teacher, site, shares)
        head = attribute_vae(shipped.vae, site, shares)
        changes = substituted_by_teacher(shipped.teacher, site, shares)
        ranks.append(rank_correlation(teacher.values_ev, changes))
        of_head.append(rank_correlation(head.values_ev, changes))
        assert abs(head.gap_ev) < 1e-4
        assert head.energy_ev == pytest.approx(shipped.vae.predict([site])[0], abs=1e-5)
    assert np.mean(ranks) > 0.9
    assert np.mean(of_head) > 0.6


def test_the_network_is_left_as_it_was(shipped: SiteModel, bundled: list[Site]) -> None:
    before = {name: value.clone() for name, value in shipped.vae.state_dict().items()}
    shares = mean_occupation(bundled, shipped.vae.config.elements)
    shipped.vae.train()
    attribute_vae(shipped.vae, bundled[0], shares)
    assert shipped.vae.training
    shipped.vae.eval()
    assert all(torch.equal(before[name], value) for name, value in shipped.vae.state_dict().items())
    assert all(weight.grad is None for weight in shipped.vae.parameters())


def test_shares_and_elements_are_refused_that_are_none(teacher: Teacher, sites: list[Site]) -> None:
    for wrong in (np.ones(4), np.ones(3) / 3, np.array([1.5, -0.5, 0, 0])):
        with pytest.raises(InputError, match="shares"):
            attribute_teacher(teacher, sites[0], wrong)
    with pytest.raises(InputError, match="Au"):
        attribute_teacher(teacher, sites[0].with_elements(["Au"] * len(sites[0])), SHARES)


def test_influence_is_what_the_posterior_says_without_the_slab(teacher: Teacher, sites: list[Site]) -> None:
    slabs = [site.slab_id for site in sites]
    questions = planted(3, 9)
    found = training_influence(teacher, slabs, questions)
    assert found.counts.sum() == len(sites)
    asked = teacher.occupations(questions)
    member = teacher.members[0]
    y = (teacher.energies - teacher.mean) / teacher.std
    whole = teacher.mean + teacher.std * member.predict(asked)[0]
    for number in (0, 7, 20):
        kept = np.flatnonzero(np.array(slabs) != found.slabs[number])
        other = Teacher(slot_lengths=(0.7,))
        other.members = [type(member)(member.slot_length)]
        for name in ("space", "blocks", "scales", "prior", "noise"):
            setattr(other.members[0], name, getattr(member, name))
        other.members[0].condition(teacher.data[kept], y[kept], np.arange(len(kept)))
        left = teacher.mean + teacher.std * other.members[0].predict(asked)[0]
        assert found.changes_ev[:, number] == pytest.approx(whole - left, abs=1e-5)
        own = np.flatnonzero(np.array(slabs) == found.slabs[number])
        without = teacher.mean + teacher.std * other.members[0].predict(teacher.data[own])[0]
        assert found.residual_ev[own] == pytest.approx(teacher.energies[own] - without, abs=1e-5)


def test_a_wrong_label_looks_wrong(sites: list[Site]) -> None:
    energies = np.array([site.energy_ev for site in sites], dtype=float)
    energies[17] += 0.6
    teacher = Teacher(slot_lengths=(0.7,)).fit(sites, energies)
    found = training_influence(teacher, [site.slab_id for site in sites], [])
    assert np.argmax(np.abs(found.scores)) == 17
    assert found.residual_ev[17] > 0.3
    # The others are where the teacher expects them.
    assert np.sqrt(np.mean(np.delete(found.scores, 17) ** 2)) < 1.5


def test_influence_needs_the_slabs_of_its_training_sites(teacher: Teacher, sites: list[Site]) -> None:
    with pytest.raises(InputError, match="slabs"):
        training_influence(teacher, ["a", "b"], [])
    with pytest.raises(InputError, match="at least two"):
        training_influence(teacher, ["a"] * len(sites), [])


def test_means_over_slabs_have_an_interval_that_holds_them() -> None:
    values = [0.8, 0.9, 1.0, float("nan"), 0.7]
    mean, low, high = mean_over_slabs(values, ["a", "a", "b", "c", "d"], resamples=200)
    assert mean == pytest.approx(0.85)
    assert low < mean < high
    assert np.isnan(mean_over_slabs([float("nan")], ["a"])[0])
    assert np.isnan(rank_correlation(np.ones(3), np.arange(3)))
