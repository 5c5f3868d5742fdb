from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from catalysis.checks import class_names, prices_of
from catalysis.models.site_model import SHIPPED, SiteModel
from catalysis.structure.templates import class_templates
from catalysis.studies.conditions import Conditions
from catalysis.studies.design import Target, random_sites, search, site_prices
from catalysis.studies.prices import PRICES_USD_PER_G, price_per_mol
from catalysis.studies.selection import NO_BIAS
from catalysis.vae.network import _affordable
from interpretkit.errors import InputError

ELEMENTS = ("Ir", "Pd", "Pt", "Rh", "Ru")
CLASSES = {("111", "111_bridge"), ("211", "211_edge"), ("211", "211_step"), ("", "bridge")}


@pytest.fixture(scope="module")
def model() -> SiteModel:
    return SiteModel.load(SHIPPED)


@pytest.mark.parametrize(
    ("conditions", "line"),
    [
        (Conditions(facets=("331",)), "facets: .*331"),
        (Conditions(site_classes=("211_ridge",)), "site_classes: .*211_ridge"),
        (Conditions(facets=("111",), site_classes=("211_edge",)), "site_classes: 211_edge is on none"),
        (Conditions(facets=("111", "211"), site_classes=("211_edge",)), "facets: 111 has none"),
        (Conditions(elements=("Pt", "Cu")), "elements: .*Cu"),
        (Conditions(without=("Cu",)), "without: .*Cu"),
        (Conditions(elements=("Pt", "Pd"), without=("Ir",)), "without: Ir is not among"),
        (Conditions(elements=("Pt",), without=("Pt",)), "without: Pt leaves no metal"),
        (Conditions(without=("Ir",), prices={"Ir": 1.0}), "prices: designs hold no Ir"),
        (Conditions(max_price=100.0), "max_price: 100 .* Ru"),
        (Conditions(without=("Ir", "Rh"), max_price=7000.0), "max_price: 7000 USD/mol does nothing"),
        (Conditions(elements=("Pt",), max_price=6500.0), "max_price: 6500 USD/mol does nothing"),
    ],
)
def test_conditions_that_are_unknown_impossible_or_idle_are_refused(
    conditions: Conditions, line: str
) -> None:
    with pytest.raises(InputError, match=line):
        conditions.check(known_elements=ELEMENTS, known_classes=CLASSES)


def test_a_metal_without_a_price_cannot_be_limited() -> None:
    asked = Conditions(max_price=1000.0)
    with pytest.raises(InputError, match="no price of Os is known"):
        asked.check(known_elements=("Os", "Ru"), known_classes=CLASSES)
    Conditions(max_price=1600.0, prices={"Os": 10.0}).check(
        known_elements=("Os", "Ru"), known_classes=CLASSES
    )


def test_the_composition_of_largest_entropy_costs_what_it_may() -> None:
    asked = Conditions(max_price=5000.0)
    shares = asked.composition(ELEMENTS)
    assert price_per_mol(np.array(list(shares.values())), list(shares), PRICES_USD_PER_G) == pytest.approx(
        5000.0
    )
    # At the optimum the logarithms of the shares are linear in the price.
    costs = asked.usd_per_mol(list(shares))
    logs = np.log(list(shares.values()))
    slope, level = np.polyfit(costs, logs, 1)
    np.testing.assert_allclose(logs, level + slope * costs, atol=1e-6)
    assert Conditions(max_price=25000.0).composition(ELEMENTS) == dict.fromkeys(ELEMENTS, 0.2)


def test_random_sites_keep_to_metals_and_price() -> None:
    templates = [class_templates("111", "111_bridge")[0], class_templates("211", "211_edge")[0]]
    asked = Conditions(without=("Ir",), max_price=5000.0)
    drawn = random_sites(templates, asked, ELEMENTS, 200, seed=0)
    assert drawn.elements == ELEMENTS
    assert not (drawn.table == ELEMENTS.index("Ir")).any()
    assert 40 < len(drawn) < 200
    prices = site_prices(drawn, asked)
    assert prices.max() <= 5000
    counts = np.array([drawn.symbols(0).count(e) for e in ELEMENTS])
    assert prices[0] == pytest.approx(price_per_mol(counts / counts.sum(), ELEMENTS, PRICES_USD_PER_G))


def test_affordable_choices_are_the_likeliest_of_all_that_cost_no_more() -> None:
    rng = np.random.default_rng(0)
    logits, costs = rng.normal(0, 1, (40, 5, 3)), np.array([1.0, 4.0, 20.0])
    weights = np.full((40, 5), 0.2)
    weights[:20, 4], weights[:20, :4] = 0.0, 0.25  # a slot that does not count
    choice = _affordable(logits, weights, costs, 5.0)
    every = np.array(np.meshgrid(*[range(3)] * 5, indexing="ij")).reshape(5, -1).T
    for row in range(40):
        spent = costs[choice[row]] @ weights[row]
        assert spent <= 5.0 + 1e-9
        counts = np.flatnonzero(weights[row])
        value = logits[row][counts, choice[row][counts]].sum()
        values = logits[row][counts, every[:, counts]].sum(1)
        # No other choice that costs no more than this one is likelier.
        assert value >= values[costs[every] @ weights[row] <= spent + 1e-9].max() - 1e-9
    free = _affordable(logits, weights, costs, 20.0)
    assert np.array_equal(free, logits.argmax(-1))
    with pytest.raises(InputError, match="max_cost"):
        _affordable(logits, weights, costs, 0.5)


def test_a_search_keeps_to_its_conditions(model: SiteModel) -> None:
    asked = Conditions(facets=("211",), site_classes=("211_edge",), without=("Ir",), max_price=4500.0)
    found = search(
        model, Target(-0.6, 0.3), 5, conditions=asked, n_starts=600, n_random=400, steps=5, bias=NO_BIAS
    )
    for sites in (found.proposals, found.random):
        assert {sites.geometries[k].site_class for k in sites.geometry} == {"211_edge"}
        assert "Ir" not in {symbol for row in range(len(sites)) for symbol in sites.symbols(row)}
        assert site_prices(sites, asked).max() <= 4500
    assert len(found.designs) == 5
    numbers = found.numbers
    assert 0 < numbers["uniqueness"] <= 1
    assert numbers["design_class_coverage"] == 1
    capped = search(
        model,
        Target(-0.6, 0.3),
        5,
        conditions=asked,
        n_starts=600,
        n_random=10,
        steps=5,
        most_judged=7,
        bias=NO_BIAS,
    )
    assert len(capped.proposals) == 7


def test_decoding_within_a_price_changes_only_what_is_too_dear(model: SiteModel) -> None:
    latent = model.latents()
    points = latent.coordination[:60], latent.ligand[:60]
    costs = Conditions().usd_per_mol(model.vae.config.elements)
    free = model.vae.decode_occupations(*points)
    held = model.vae.decode_occupations(*points, costs=costs, max_cost=12_000.0)
    dear = site_prices(free, Conditions()) > 12_000
    assert 5 < dear.sum() < 55
    assert np.array_equal(free.table[~dear], held.table[~dear])
    assert site_prices(held, Conditions()).max() <= 12_000
    assert torch.equal(points[0], latent.coordination[:60])


def test_prices_come_from_words_or_a_table(tmp_path: Path) -> None:
    assert prices_of("Pt=31, Ru=14.5") == {"Pt": 31.0, "Ru": 14.5}
    assert prices_of("") == {}
    table = tmp_path / "prices.csv"
    table.write_text("element,usd_per_g\n# of last week\nPt,31\nRu; 14.5  # rounded\n")
    assert prices_of(str(table)) == {"Pt": 31.0, "Ru": 14.5}
    table.write_text("Pt,31\nPt,32\n")
    with pytest.raises(InputError, match="Pt is named twice"):
        prices_of(str(table))
    table.write_text("metal,price\nPt,cheap\n")
    with pytest.raises(InputError, match=r"prices\.csv, line 2"):
        prices_of(str(table))
    table.write_text("metal,price\n")
    with pytest.raises(InputError, match="holds no price"):
        prices_of(str(table))
    for wrong, line in (("absent.csv", "no such file"), ("Pt:31", "expected an element"), ("Xx=3", "Xx")):
        with pytest.raises(InputError, match=line):
            prices_of(wrong)


def test_classes_are_named_once() -> None:
    assert class_names("111_bridge, 211_edge,111_bridge") == ("111_bridge", "211_edge")
    with pytest.raises(InputError, match="--site-classes"):
        class_names(" , ")
