from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from catalysis.data import load_bundled
from catalysis.models.site_model import SHIPPED, SiteModel
from catalysis.structure.sites import Site
from catalysis.studies.latent import (
    Codes,
    Factor,
    Probe,
    channel_ablation,
    encode,
    energy_surface,
    information,
    physical_factors,
    probes,
    scores,
    split,
    traverse,
)
from catalysis.vae.network import Latent
from interpretkit.errors import InputError

ROWS = 400
SLABS = [f"slab {k // 4}" for k in range(ROWS)]
TRAIN, TEST = np.arange(280), np.arange(280, ROWS)


@pytest.fixture(scope="module")
def factors() -> list[Factor]:
    draws = np.random.default_rng(0)
    kinds = draws.integers(0, 4, ROWS).astype(float)
    return [
        Factor("height", draws.normal(size=ROWS), None, "", "coordination"),
        Factor("kind", kinds, ("a", "b", "c", "d"), "", "coordination"),
        Factor("filling", draws.normal(size=ROWS), None, "", "ligand"),
    ]


@pytest.fixture(scope="module")
def codes(factors: list[Factor]) -> dict[str, np.ndarray]:
    """Return a channel with a dimension for each of two factors, and one that mixes the third into ten."""
    draws = np.random.default_rng(1)
    height, kind, filling = (factor.values for factor in factors)
    alone = np.column_stack([draws.normal(size=ROWS), 3 * height, kind + 0.05 * draws.normal(size=ROWS)])
    turn = np.linalg.qr(draws.normal(size=(10, 10)))[0]
    mixed = np.column_stack([filling, *draws.normal(size=(9, ROWS))]) @ turn
    return {"coordination": alone, "ligand": mixed}


@pytest.fixture(scope="module")
def found(codes: dict[str, np.ndarray], factors: list[Factor]) -> dict[tuple[str, str], Probe]:
    made = probes(codes, factors, TRAIN, TEST, SLABS, resamples=100)
    return {(probe.channel, probe.factor): probe for probe in made}


def test_a_factor_with_a_dimension_of_its_own_is_found_there(found: dict[tuple[str, str], Probe]) -> None:
    height, kind = found["coordination", "height"], found["coordination", "kind"]
    assert (height.dimension, height.verdict) == (1, "one dimension")
    assert height.skill > 0.99
    assert abs(height.direction[1]) > 0.99  # type: ignore[index]
    assert kind.dimension == 2
    # Four values in a row: a probe that regressed their indicators would miss those in the middle.
    assert min(kind.dimension_skill, kind.skill) > 0.9
    assert kind.verdict == "one dimension"
    assert kind.direction is None


def test_a_factor_spread_over_dimensions_is_a_direction(
    found: dict[tuple[str, str], Probe], codes: dict[str, np.ndarray], factors: list[Factor]
) -> None:
    filling = found["ligand", "filling"]
    assert filling.verdict == "a direction"
    assert filling.skill > 0.98
    assert filling.dimension_skill < 0.75
    given = codes["ligand"]
    read = (given - given.mean(0)) / given.std(0) @ filling.direction
    assert abs(np.corrcoef(read, factors[2].values)[0, 1]) > 0.99


def test_what_is_not_there_is_not_read(found: dict[tuple[str, str], Probe]) -> None:
    for key in (("ligand", "height"), ("ligand", "kind"), ("coordination", "filling")):
        assert found[key].verdict == "not linearly"
        assert found[key].skill < 0.15
        assert found[key].information < 2 * found[key].chance
    for probe in found.values():
        assert probe.low <= probe.skill <= probe.high
        assert probe.control < 0.15


def test_information_is_that_of_the_dimension_and_chance_is_small(
    codes: dict[str, np.ndarray], factors: list[Factor]
) -> None:
    shared, chance = information(codes["coordination"], factors)
    assert shared.shape == (3, 3)
    # Four even kinds, told apart by twenty bins of one dimension but for those that straddle two kinds.
    assert shared[2, 1] > 0.85
    assert shared[[0, 1], 1].max() < chance[1] + 0.05
    assert (chance < 0.25).all()


def test_scores_compare_channels_with_their_own_factors(
    codes: dict[str, np.ndarray], factors: list[Factor]
) -> None:
    table = scores(codes, factors, resamples=0)
    # The ligand channel has one factor alone, which scores that compare factors have no use for.
    assert set(table) == {"coordination", "both"}
    assert table["coordination"]["dci"].value > 0.8
    assert table["both"]["dci"].value < table["both"]["dci"].ceiling


def test_a_collapsed_channel_is_refused(factors: list[Factor]) -> None:
    with pytest.raises(InputError, match="collapsed"):
        probes({"ligand": np.zeros((ROWS, 3))}, factors, TRAIN, TEST, SLABS)


# ---------------------------------------------------------------------------------- a law instead of a network


def law(coordination: torch.Tensor, ligand: torch.Tensor) -> torch.Tensor:
    return 2.0 * coordination[:, 0] + 0.5 * ligand[:, 1]


def coded(seed: int = 2) -> tuple[Any, Codes, np.ndarray]:
    draws = np.random.default_rng(seed)
    parts = {"coordination": draws.normal(size=(ROWS, 2)), "ligand": draws.normal(size=(ROWS, 3))}
    tensors = [torch.as_tensor(part) for part in parts.values()]
    latent = Latent(tensors[0], torch.zeros_like(tensors[0]), tensors[1], torch.zeros_like(tensors[1]))
    codes = Codes(latent, parts, {name: part.var(0) > 0.01 for name, part in parts.items()})
    return SimpleNamespace(energy=law), codes, law(*tensors).numpy()


def test_without_a_channel_the_error_is_what_that_channel_made() -> None:
    vae, codes, energies = coded()
    rows = {
        row.inputs: row for row in channel_ablation(vae, codes, energies, TRAIN, TEST, SLABS, resamples=200)
    }
    assert rows["both"].head_ev == pytest.approx(0, abs=1e-9)
    # The mean absolute value of a normal number is 0.8 of its deviation.
    assert rows["ligand"].head_ev == pytest.approx(2.0 * 0.8, rel=0.15)
    assert rows["coordination"].head_ev == pytest.approx(0.5 * 0.8, rel=0.15)
    assert rows["both"].refitted_ev < 0.1
    assert rows["ligand"].refitted_ev > rows["coordination"].refitted_ev > rows["both"].refitted_ev
    assert rows["coordination"].low_ev > 0
    assert np.isnan(rows["both"].low_ev)


def test_a_surface_of_a_law_of_two_directions_holds_all_of_it() -> None:
    vae, codes, energies = coded()
    surface = energy_surface(vae, codes, energies, size=7)
    assert surface.explained > 0.95
    assert surface.energies_ev.shape == (7, 7)
    # Energy rises along both, and a column is one value of the coordination.
    assert (np.diff(surface.energies_ev, axis=0) > 0).all()
    assert (np.diff(surface.energies_ev, axis=1) > 0).all()
    corner = surface.energies_ev[-1, -1] - surface.energies_ev[-1, 0]
    assert corner == pytest.approx(2.0 * np.ptp(codes.by_channel["coordination"][:, 0]), rel=0.1)
    assert surface.points.std(0) == pytest.approx([1, 1], rel=0.01)


# ------------------------------------------------------------------------------------------------- the real one


@pytest.fixture(scope="module")
def model() -> SiteModel:
    return SiteModel.load(SHIPPED)


@pytest.fixture(scope="module")
def sites() -> list[Site]:
    return load_bundled()[::15]


def test_coordination_lives_in_its_channel_and_elements_in_theirs(
    model: SiteModel, sites: list[Site]
) -> None:
    codes = encode(model.vae, sites)
    factors = [
        f for f in physical_factors(sites) if f.name in ("coordination number", "d electrons, contacts")
    ]
    slabs = [site.slab_id for site in sites]
    train, test, _ = split(sites, [], 0)
    made = {
        (p.channel, p.factor): p for p in probes(codes.by_channel, factors, train, test, slabs, resamples=50)
    }
    assert made["coordination", "coordination number"].skill > 0.8
    assert made["ligand", "coordination number"].skill < 0.5
    assert made["ligand", "d electrons, contacts"].skill > 0.5
    assert made["coordination", "d electrons, contacts"].skill < 0.4


def test_a_traversal_starts_at_the_site_and_moves_one_channel(model: SiteModel, sites: list[Site]) -> None:
    latent = encode(model.vae, sites[:1]).latent
    start = latent.coordination[0], latent.ligand[0]
    energy = float(model.vae.energy(latent.coordination, latent.ligand)[0].detach())
    way = np.eye(len(start[0]))[0]
    moved = traverse(model.vae, start, "coordination", way, 1.0, "coordination 0", steps=5)
    assert moved[2].energy_ev == pytest.approx(energy, abs=1e-5)
    assert moved[2].position == 0
    assert moved[2].changed_slots == 0
    assert moved[2].site.site_class == sites[0].site_class
    # The elements are the other channel's: where the class stays, they stay.
    assert all(step.changed_slots == 0 for step in moved if np.isfinite(step.changed_slots))
    along = traverse(model.vae, start, "ligand", np.eye(len(start[1]))[0], 1.0, "ligand 0", steps=5)
    assert {step.site.site_class for step in along} == {sites[0].site_class}


def test_factors_are_what_they_say() -> None:
    sites = load_bundled()[::120]
    named = {factor.name: factor for factor in physical_factors(sites)}
    labels = named["contact elements"].labels
    assert labels is not None
    for row, site in enumerate(sites):
        assert named["coordination number"].values[row] == np.mean(site.coordination_numbers)
        assert labels[int(named["contact elements"].values[row])] == site.contact_elements
    shares = np.sum([factor.values for name, factor in named.items() if name.endswith("in shell")], axis=0)
    assert shares == pytest.approx(1)
    # A site of platinum alone: group 10 everywhere, no share that varies, and no strain against itself.
    pure = [replace(site, symbols=("Pt",) * len(site)) for site in sites]
    assert not [
        factor for factor in physical_factors(pure) if "shell" in factor.name or "contact" in factor.name
    ]
    stretched = [replace(sites[0], positions=sites[0].positions * f) for f in (1.0, 1.02)]
    strain = {factor.name: factor for factor in physical_factors(stretched)}["strain"].values
    assert np.ptp(strain) == pytest.approx(0.02 / 1.01)


def test_probes_are_measured_on_what_the_network_has_not_seen() -> None:
    sites = load_bundled()[:200]
    seen = [site.site_id for site in sites[:150]]
    train, test, unseen = split(sites, seen)
    assert (train.tolist(), test.tolist(), unseen) == (list(range(150)), list(range(150, 200)), True)
    train, test, unseen = split(sites, [site.site_id for site in sites])
    assert not unseen
    slabs = [site.slab_id for site in sites]
    assert {slabs[k] for k in train}.isdisjoint({slabs[k] for k in test})
    assert split(sites, [])[2]
