import json
from dataclasses import replace
from typing import Self

import numpy as np
import pytest

import catalysis.models.measurement
from catalysis.energies.baseline import LinearBaseline
from catalysis.energies.teacher import Teacher
from catalysis.models.evaluation import evaluate
from catalysis.models.trust import coverage
from catalysis.structure.sites import Site
from catalysis.structure.templates import class_templates
from interpretkit.errors import InputError

BINDING = {"Ru": -0.3, "Pt": 0.1}


def planted(n: int, seed: int) -> list[Site]:
    rng = np.random.default_rng(seed)
    sites = []
    for k in range(n):
        name = ("100_bridge", "211_edge")[k % 2]
        template = class_templates(name[:3], name)[0]
        site = template.decorate([str(s) for s in rng.choice(list(BINDING), len(template))])
        energy = 0.4 * (k % 2) + sum(BINDING[s] for s in site.symbols[:2]) + 0.01 * rng.normal()
        sites.append(
            replace(site, site_id=f"{seed}-{k}", slab_id=f"slab-{seed}-{k // 4}", energy_ev=float(energy))
        )
    return sites


class Spy(Teacher):
    """Records what it is fitted on and asked for."""

    seen: list[tuple[set[str], set[str]]]

    def fit(self, sites, energies_ev=None, groups=None) -> Self:
        self.fitted = {site.slab_id for site in sites}
        return super().fit(sites, energies_ev, groups)

    def predict(self, sites):
        type(self).seen.append((self.fitted, {site.slab_id for site in sites}))
        return super().predict(sites)


@pytest.fixture(scope="module")
def sites() -> list[Site]:
    return planted(60, 0)


def test_cross_validation_by_slab_never_shows_the_test_slabs(
    sites: list[Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    Spy.seen = []
    monkeypatch.setattr(catalysis.models.measurement, "Teacher", Spy)
    found = evaluate(sites, folds=2, quick=True)
    assert len(Spy.seen) == 2
    assert all(not fitted & asked for fitted, asked in Spy.seen)
    assert set().union(*(asked for _, asked in Spy.seen)) == {site.slab_id for site in sites}
    assert found["n_test"] == 60
    assert found["n_train"] == 30
    predictions = found["predictions"]
    assert predictions["site_id"] == [site.site_id for site in sites]
    assert predictions["true_ev"] == pytest.approx([site.energy_ev for site in sites])
    error = np.abs(np.array(predictions["teacher_ev"]) - np.array(predictions["true_ev"]))
    assert found["mae_ev"] == pytest.approx(error.mean())
    assert found["mae_ev"] < 0.05
    assert found["r2"] > 0.9
    assert sum(entry["n"] for entry in found["per_class"].values()) == 60
    assert {"active_coordination", "active_ligand", "element_recovery", "betti_r2"} <= set(found["vae"])
    assert json.loads(json.dumps(found)) == found


def test_energies_of_the_test_sites_change_no_prediction(sites: list[Site]) -> None:
    test = planted(12, 1)
    wrong = [replace(site, energy_ev=5.0 - k) for k, site in enumerate(test)]
    first, second = (evaluate(sites, other, quick=True)["predictions"] for other in (test, wrong))
    for name in ("teacher_ev", "teacher_std_ev", "vae_ev", "baseline_ev"):
        assert first[name] == second[name]
    assert first["true_ev"] != second["true_ev"]


def test_baseline_is_the_linear_one_and_shared_slabs_are_reported(sites: list[Site]) -> None:
    found = evaluate(sites[:40], sites[38:], quick=True)
    expected = LinearBaseline().fit(sites[:40]).predict(sites[38:]).mean_ev
    assert found["predictions"]["baseline_ev"] == pytest.approx(expected.tolist())
    assert found["n_train"] == 40
    assert len(found["warnings"]) == 1
    assert "slab_id" in found["warnings"][0]


def test_unknown_elements_are_left_out_of_the_networks_numbers(sites: list[Site]) -> None:
    test = planted(6, 2)
    test[0] = replace(test[0].with_elements(["Au"] * len(test[0])), energy_ev=0.0)
    found = evaluate(sites, test, quick=True)
    assert found["predictions"]["vae_ev"][0] is None
    assert found["predictions"]["teacher_ev"][0] is not None
    assert found["vae_mae_ev"] is not None
    assert "1 test sites" in found["warnings"][0]


def test_classes_and_facets_are_left_out_one_after_the_other(
    sites: list[Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    Spy.seen = []
    monkeypatch.setattr(catalysis.models.measurement, "Teacher", Spy)
    for split, attribute in (("class", "site_class"), ("facet", "facet")):
        found = evaluate(sites, split=split, vae=False)
        folds = np.array(found["predictions"]["fold"])
        values = np.array([getattr(site, attribute) for site in sites])
        assert all(len(set(values[folds == fold])) == 1 for fold in range(2))
        assert set(folds.tolist()) == {0, 1}
        assert found["vae_mae_ev"] is None
        assert found["warnings"] == []
        assert "VAE" not in found["inputs"]
        # Contacts carry over to another class, its own level does not, nor do deviations learned of one class.
        assert found["mae_ev"] > 0.1
        assert "INTERVALS ARE TOO NARROW" in " ".join(found["trust"])
    one = [site for site in sites if site.facet == "100"]
    with pytest.raises(
        InputError, match="split class: all sites are 100_bridge; expected sites of at least two"
    ):
        evaluate(one, split="class")
    with pytest.raises(InputError, match="split facet: all sites are 100; expected"):
        evaluate(one, split="facet")
    with pytest.raises(InputError, match="split: 'moon'; expected one of slab, class, facet"):
        evaluate(sites, split="moon")


def test_coverage_counts_what_lies_within_the_intervals() -> None:
    draws = np.random.default_rng(0).normal(size=20_000)
    for share in (0.68, 0.95):
        assert coverage(0.2 * draws, np.full(20_000, 0.2), share) == pytest.approx(share, abs=0.015)
    assert coverage(draws, np.full(20_000, 0.5), 0.68) < 0.45
    assert np.isnan(coverage(np.zeros(0), np.zeros(0), 0.68))


def test_bad_input_is_refused(sites: list[Site]) -> None:
    with pytest.raises(InputError, match="group_by colour"):
        evaluate(sites, group_by="colour")
    with pytest.raises(InputError, match="folds 99: expected 2 to 15"):
        evaluate(sites, folds=99)
    with pytest.raises(InputError, match="test sites: none given"):
        evaluate(sites, [])
    with pytest.raises(InputError, match="no energy; expected one to measure on"):
        evaluate(sites, [replace(sites[0], energy_ev=None)])
    with pytest.raises(InputError, match="expected at least 20"):
        evaluate(sites[:10])
