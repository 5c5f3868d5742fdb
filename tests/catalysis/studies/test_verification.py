from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes

from catalysis.energies.protocol import Prediction
from catalysis.models.site_model import SHIPPED, SiteModel
from catalysis.structure.elements import METALS
from catalysis.structure.templates import class_templates
from catalysis.studies.activity import Target
from catalysis.studies.design import Design, distinct, finished, random_occupations
from catalysis.studies.peers import Genetics, fitness, genetic, ranked_sampling
from catalysis.studies.selection import NO_BIAS, mean_bias, teacher_bias
from catalysis.studies.verification import known_hosts, mean_of, rank_interval, verify
from interpretkit.errors import InputError

ELEMENTS = ("Ir", "Pd", "Pt", "Rh", "Ru")


@pytest.fixture(scope="module")
def model() -> SiteModel:
    return SiteModel.load(SHIPPED)


class Springs(Calculator):
    """Holds an adsorbate where it is put; binds it more weakly by 0.1 eV per platinum atom that touches it."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (as ASE declares it)

    def __init__(self, zero_ev: float = 0.0) -> None:
        super().__init__()
        self.zero_ev = zero_ev

    def calculate(self, atoms=None, properties=None, system_changes=all_changes) -> None:  # type: ignore[no-untyped-def]
        super().calculate(atoms, properties, system_changes)
        assert atoms is not None
        symbols = np.array(atoms.get_chemical_symbols())
        energy, forces = 0.0, np.zeros((len(atoms), 3))
        metal = np.array([symbol in METALS for symbol in symbols])
        if not metal.all():
            binding = int(np.flatnonzero(~metal)[0])
            gaps = atoms.get_distances(binding, np.flatnonzero(metal), mic=True)
            nearest = np.argsort(gaps)[:2]
            energy = self.zero_ev + 0.1 * int((symbols[metal][nearest] == "Pt").sum())
        self.results = {"energy": energy, "forces": forces}


def designs(model: SiteModel, n: int, predicted: np.ndarray) -> list[Design]:
    template = class_templates("111", "111_bridge")[0]
    sites = random_occupations([template], dict.fromkeys(ELEMENTS, 0.2), n, seed=3)
    return finished(
        sites,
        Prediction(predicted, np.full(n, 0.05)),
        np.zeros(n),
        np.ones(n),
        Target(0.1, 0.06),
        model.occupations(),
        adsorbate="OH",
        seed=0,
    )


def test_a_potential_tells_hits_bias_and_order(model: SiteModel, tmp_path: Path) -> None:
    some = designs(model, 8, np.zeros(8))
    contacts = np.array([d.site.contact_elements.count("Pt") for d in some])
    true = 0.1 * contacts
    shifted = designs(model, 8, true + 0.03)
    found = verify(shifted, Target(0.1, 0.06), Springs(), journal=tmp_path / "a.jsonl", quiet=True)
    np.testing.assert_allclose(found.energy_ev, true, atol=1e-9)
    assert found.stayed.all()
    assert found.hits.tolist() == (contacts == 1).tolist()
    assert found.bias.value == pytest.approx(-0.03)
    assert found.bias.low == pytest.approx(-0.03)
    assert found.spread == pytest.approx(0.0, abs=1e-6)
    assert found.rank_correlation().value == pytest.approx(1.0)
    assert found.frames[0].info["adsorption_energy_eV"] == pytest.approx(true[0])
    # What is in the journal is not asked for again.
    again = verify(shifted, Target(0.1, 0.06), Springs(9.0), journal=tmp_path / "a.jsonl", quiet=True)
    np.testing.assert_array_equal(again.energy_ev, found.energy_ev)


def test_the_zero_of_a_potential_is_told_by_known_sites(model: SiteModel, tmp_path: Path) -> None:
    hosts, energies = known_hosts(model, 5, seed=1)
    assert len(hosts) == len(energies) == 5
    # Each host holds the very site of the data.
    table = {round(float(e), 6) for e in model.sites.energy_ev}
    assert {round(float(e), 6) for e in energies} <= table
    truth = np.array([0.1 * host.site.contact_elements.count("Pt") for host in hosts])
    some = designs(model, 6, np.zeros(6))
    found = verify(
        some,
        Target(0.1, 0.06),
        Springs(3.0),
        journal=tmp_path / "b.jsonl",
        known=(hosts, truth - 0.5),
        quiet=True,
    )
    assert found.shift.value == pytest.approx(3.5)
    contacts = np.array([d.site.contact_elements.count("Pt") for d in some])
    np.testing.assert_allclose(found.energy_ev, 0.1 * contacts - 0.5, atol=1e-9)
    with pytest.raises(InputError, match="designs: none"):
        verify([], Target(0.1, 0.06), Springs(), journal=tmp_path / "c.jsonl")


def test_intervals_cover_what_they_should() -> None:
    rng = np.random.default_rng(0)
    covered = [
        abs((found := mean_of(rng.normal(1, 2, 8))).value - 1) <= (found.high - found.low) / 2
        for _ in range(400)
    ]
    assert 0.91 < np.mean(covered) < 0.985
    x = rng.normal(size=40)
    found = rank_interval(x, x + rng.normal(0, 0.5, 40))
    assert found.low < found.value < found.high <= 1
    assert found.low > 0.5
    assert np.isnan(rank_interval(x, np.zeros(40)).value)
    assert np.isnan(rank_interval(x[:3], x[:3]).value)
    few = rank_interval(x[:6], x[:6])
    assert few.value == pytest.approx(1)
    assert np.isnan(few.low)


def test_a_planted_bias_is_found_and_none_where_there_is_none() -> None:
    slabs = np.repeat(np.arange(50), 20).astype(str).tolist()
    ends, middles, none = [], [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        predicted, noise = rng.normal(-0.8, 0.35, 1000), rng.normal(0, 0.05, 1000)
        steep = mean_bias(predicted, 0.06 * (predicted + 0.8) / 0.35 + noise, np.full(1000, 0.05), slabs)
        ends.append(steep.at(-0.1)[0])
        middles.append(steep.at(-0.8)[0])
        none.append(
            mean_bias(predicted, noise, np.full(1000, 0.05), slabs).at(np.array([-1.2, -0.8, -0.1]))[0]
        )
    assert np.mean(ends) == pytest.approx(0.12, abs=0.02)
    assert np.mean(middles) == pytest.approx(0.0, abs=0.01)
    assert np.abs(np.mean(none, axis=0)).max() < 0.005


def test_residuals_that_go_together_by_slab_tell_less() -> None:
    rng = np.random.default_rng(1)
    predicted = np.repeat(rng.normal(-0.8, 0.35, 30), 30)
    slabs = np.repeat(np.arange(30), 30).astype(str).tolist()
    common = np.repeat(rng.normal(0, 0.05, 30), 30) + rng.normal(0, 0.02, 900)
    alone = rng.normal(0, 0.054, 900)
    wide = mean_bias(predicted, common, np.full(900, 0.054), slabs).at(-0.8)[1]
    narrow = mean_bias(predicted, alone, np.full(900, 0.054), slabs).at(-0.8)[1]
    assert wide > 2 * narrow
    with pytest.raises(InputError, match="predicted_ev"):
        mean_bias(predicted[:5], common[:5], np.ones(5), slabs[:5])


def test_a_correction_moves_the_mean_and_widens_the_deviation(model: SiteModel) -> None:
    bias = teacher_bias(model.teacher, model.sites.slab_id.tolist())
    assert bias.n == len(model.sites)
    value, unsure = bias.at(0.1)
    assert abs(value) < 0.03 > unsure > 0
    told = bias.corrected(Prediction(np.array([0.1]), np.array([0.03])))
    assert told.mean_ev[0] == pytest.approx(0.1 + value)
    assert told.std_ev[0] == pytest.approx(np.hypot(0.03, unsure))
    assert teacher_bias(model.teacher, ["one"] * len(model.sites)) is NO_BIAS


def test_a_genetic_algorithm_keeps_to_its_calls_and_finds_what_chance_does_not(model: SiteModel) -> None:
    templates = [class_templates("111", "111_bridge")[0], class_templates("211", "211_edge")[0]]
    target, judge = Target(-0.3, 0.05), model.teacher.predict_occupations
    for settings in (Genetics(population=30), Genetics(population=30, niches=True)):
        found = genetic(judge, templates, ELEMENTS, target, 240, settings, seed=0)
        assert len(found.sites) == len(found.judged.mean_ev) == 240
        assert len(distinct(found.sites, found.sites[:0])) == 240
        np.testing.assert_allclose(judge(found.sites).mean_ev, found.judged.mean_ev, atol=1e-9)
        last = target.holds(found.judged.mean_ev[-80:]).mean()
        drawn = ranked_sampling(judge, templates, ELEMENTS, 240, seed=0)
        assert last > 0.3 + target.holds(drawn.judged.mean_ev).mean()
        if settings.niches:
            assert set(found.sites.geometry[-80:].tolist()) == {0, 1}
    again = genetic(judge, templates, ELEMENTS, target, 240, Genetics(population=30), seed=0)
    first = genetic(judge, templates, ELEMENTS, target, 240, Genetics(population=30), seed=0)
    assert np.array_equal(again.sites.table, first.sites.table)


def test_fitness_leads_to_the_window_from_afar() -> None:
    means = np.array([-2.0, -1.0, 0.0, 0.1])
    values = fitness(Prediction(means, np.full(4, 0.05)), Target(0.1, 0.1))
    assert (np.diff(values) > 0).all()
    assert values[-1] == pytest.approx(0.9545, abs=1e-3)
