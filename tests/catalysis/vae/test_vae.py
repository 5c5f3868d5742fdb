from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from catalysis.energies.teacher import Teacher
from catalysis.structure.sites import Site
from catalysis.structure.templates import class_templates
from catalysis.vae.disentangling import OBJECTIVES, Penalty, disentangling
from catalysis.vae.network import PGHVAE
from catalysis.vae.objective import loss_of
from catalysis.vae.report import VAEReport, report
from catalysis.vae.training import train_vae
from interpretkit.errors import InputError
from interpretkit.training import autocast
from interpretkit.variational import BetaVAE

ELEMENTS = ["Ir", "Pd", "Ru"]
CLASSES = {"100_bridge": -0.9, "110_bridge": -1.0, "211_edge": -1.3}
BINDING = {"Ru": -0.3, "Ir": -0.1, "Pd": 0.05}


def planted(n: int, seed: int, adsorbate: str = "OH") -> list[Site]:
    rng = np.random.default_rng(seed)
    sites = []
    for k in range(n):
        name = str(rng.choice(list(CLASSES)))
        template = class_templates(name.split("_")[0], name, adsorbate)[0]
        site = template.decorate([str(s) for s in rng.choice(ELEMENTS, len(template))])
        energy = CLASSES[name] + sum(BINDING[s] for s in site.symbols[:2])
        positions = site.positions + rng.normal(0, 0.03, site.positions.shape)
        sites.append(
            replace(
                site,
                positions=positions,
                site_id=f"{seed}-{k}",
                slab_id=f"slab-{seed}-{k // 2}",
                energy_ev=float(energy + 0.01 * rng.normal()),
            )
        )
    return sites


@pytest.fixture(scope="module")
def train() -> list[Site]:
    return planted(120, 0)


@pytest.fixture(scope="module")
def teacher(train: list[Site]) -> Teacher:
    return Teacher(slot_lengths=(0.7,)).fit(train)


SMALL = {
    "epochs": 14,
    "decorations_per_epoch": 2048,
    "batch_size": 128,
    "hidden": 128,
    "ligand_latent": 96,
    "learning_rate": 4e-3,
}


@pytest.fixture(scope="module")
def trained(train: list[Site], teacher: Teacher) -> tuple[PGHVAE, VAEReport]:
    return train_vae(train, None, teacher, seed=1, **SMALL)


def test_small_network_does_not_collapse(trained: tuple[PGHVAE, VAEReport]) -> None:
    model, kept = trained
    test = planted(80, 5)
    found = report(model, test, np.array([s.energy_ev for s in test], dtype=float))
    assert found.n_sites == 80
    assert found.active_coordination >= 2
    assert found.active_ligand >= 3
    assert found.element_recovery > 0.85
    assert found.class_recovery == 1.0
    assert found.betti_r2 > 0.8
    assert found.mae_ev < 0.05
    assert len(found.kl_ligand) == len(found.variance_ligand) == 96
    assert 5 <= kept.n_sites <= 20


def test_decoded_sites_are_the_encoded_ones(trained: tuple[PGHVAE, VAEReport]) -> None:
    model, _ = trained
    test = planted(40, 6)
    latent = model.encode(model.channels(test))
    found = model.decode_occupations(latent.coordination, latent.ligand)
    decoded = [found.site(row, "OH") for row in range(len(found))]
    same_class = [a.site_class == b.site_class for a, b in zip(test, decoded, strict=True)]
    assert all(same_class)
    assert all(site.adsorbate == "OH" and len(site) == len(test[k]) for k, site in enumerate(decoded))
    again = model.channels(decoded).ligands
    assert (again == model.channels(test).ligands).double().mean() > 0.85
    # Elements in slots are all that the network needs to see: atoms are made only to be shown.
    assert np.array_equal(model.predict_occupations(found), model.predict(decoded))


def test_energy_is_smooth_in_both_latents(trained: tuple[PGHVAE, VAEReport]) -> None:
    model, _ = trained
    latent = model.encode(model.channels(planted(4, 7)))
    double = PGHVAE(model.config).double()
    double.load_state_dict({k: v.double() for k, v in model.state_dict().items()})
    inputs = (
        latent.coordination.detach().double().requires_grad_(),
        latent.ligand.detach().double().requires_grad_(),
    )
    assert torch.autograd.gradcheck(double.energy, inputs, fast_mode=True)
    gradients = torch.autograd.grad(double.energy(*inputs).sum(), inputs)
    assert all(g.abs().sum() > 0 for g in gradients)


def test_channels_are_separate(trained: tuple[PGHVAE, VAEReport]) -> None:
    model, _ = trained
    first, second = planted(1, 8)[0], planted(1, 9)[0]
    other = first.with_elements(["Pd"] * len(first))
    with torch.no_grad():
        a, b, c = (model.encode(model.channels([s])) for s in (first, other, second))
    assert torch.equal(a.coordination, b.coordination)
    assert not torch.allclose(a.ligand, b.ligand)
    assert not torch.allclose(a.coordination, c.coordination)


def test_saved_model_is_the_same(trained: tuple[PGHVAE, VAEReport], tmp_path: Path) -> None:
    model, _ = trained
    model.save(tmp_path / "vae.safetensors")
    loaded = PGHVAE.load(tmp_path / "vae.safetensors")
    test = planted(10, 10)
    assert loaded.config == model.config
    assert np.array_equal(loaded.predict(test), model.predict(test))


def test_same_seed_same_weights(train: list[Site], teacher: Teacher) -> None:
    options = {**SMALL, "epochs": 1, "decorations_per_epoch": 256}
    first, second, third = (train_vae(train, None, teacher, seed=s, **options)[0] for s in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), third.parameters(), strict=True))


def test_in_half_the_width_losses_and_learning_are_nearly_the_same(
    trained: tuple[PGHVAE, VAEReport], train: list[Site], teacher: Teacher
) -> None:
    model, _ = trained
    channels = model.channels(train)
    energies = torch.tensor([site.energy_ev for site in train], dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    noise = (
        torch.randn(len(train), model.config.coordination_latent, generator=generator),
        torch.randn(len(train), model.config.ligand_latent, generator=generator),
    )
    found = []
    for precision in ("float32", "bfloat16"):
        with torch.no_grad(), autocast(torch.device("cpu"), precision):
            penalty = Penalty(BetaVAE(1.0), model, len(train))
            found.append(loss_of(model, channels, energies, noise, penalty, 0.01))
    for name, exact in found[0].items():
        assert found[1][name].dtype == torch.float32
        assert float(found[1][name]) == pytest.approx(float(exact), rel=0.02, abs=0.03), name
    # Divergences are small differences: they alone need the digits.
    assert float(found[1]["divergence"]) == pytest.approx(float(found[0]["divergence"]), rel=2e-3)
    losses = []
    for precision in ("float32", "bfloat16"):
        small = {**SMALL, "epochs": 3, "decorations_per_epoch": 1024}
        network, _ = train_vae(train, None, teacher, seed=1, precision=precision, **small)
        assert all(weights.dtype == torch.float32 for weights in network.parameters())
        assert network.history is not None
        losses.append(network.history.column("train_loss"))
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    assert losses[1][-1] < 0.9 * losses[1][0]


def test_bad_input_is_refused(trained: tuple[PGHVAE, VAEReport], teacher: Teacher, tmp_path: Path) -> None:
    model, _ = trained
    with pytest.raises(InputError, match="adsorbate O; the model knows OH"):
        model.predict(planted(1, 0, "O"))
    site = planted(1, 0)[0]
    with pytest.raises(InputError, match="element Au is not among Ir, Pd, Ru"):
        model.predict([site.with_elements(["Au"] * len(site))])
    with pytest.raises(InputError, match="expected at least 20"):
        train_vae(planted(5, 0), None, teacher)
    with pytest.raises(InputError, match="teacher: it uses relaxed geometry"):
        train_vae(planted(30, 0), None, Teacher(geometry="relaxed"))
    with pytest.raises(InputError, match="no such file"):
        PGHVAE.load(tmp_path / "missing.safetensors")


def test_classes_without_template_are_learned_but_not_decoded() -> None:
    nameless = [replace(s, facet="", site_class=f"bridge_{s.site_class[4:]}") for s in planted(40, 12)]
    teacher = Teacher(slot_lengths=(0.7,)).fit(nameless)
    model, _ = train_vae(nameless, None, teacher, **{**SMALL, "epochs": 1, "decorations_per_epoch": 256})
    assert np.isfinite(model.predict(nameless)).all()
    latent = model.encode(model.channels(nameless[:2]))
    with pytest.raises(InputError, match="none of its classes has a template"):
        model.decode_occupations(latent.coordination, latent.ligand)


def test_a_disentangling_objective_trains_alike_from_the_same_seed(
    train: list[Site], teacher: Teacher
) -> None:
    few: dict[str, Any] = SMALL | {
        "epochs": 1,
        "decorations_per_epoch": 256,
        "hidden": 32,
        "ligand_latent": 8,
    }
    plain, _ = train_vae(train, None, teacher, seed=2, **few)
    one, _ = train_vae(train, None, teacher, seed=2, objective=disentangling("beta", 1.0), **few)
    # β = 1 is what is trained without an objective.
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), one.parameters(), strict=True))
    for name in OBJECTIVES:
        twice = [
            train_vae(train, None, teacher, seed=2, objective=disentangling(name), **few)[0] for _ in range(2)
        ]
        weights = [torch.cat([w.flatten() for w in model.parameters()]) for model in twice]
        assert torch.equal(*weights), name
        assert not torch.equal(weights[0], torch.cat([w.flatten() for w in plain.parameters()])), name


def test_a_heavier_divergence_leaves_less_of_it(train: list[Site], teacher: Teacher) -> None:
    few: dict[str, Any] = SMALL | {
        "epochs": 3,
        "decorations_per_epoch": 1024,
        "hidden": 32,
        "ligand_latent": 16,
    }
    divergences = []
    for beta in (1.0, 200.0):
        _, kept = train_vae(train, None, teacher, seed=3, objective=disentangling("beta", beta), **few)
        divergences.append(sum(kept.kl_ligand))
    assert divergences[1] < 0.8 * divergences[0]


def test_objectives_are_refused_that_are_none() -> None:
    with pytest.raises(InputError, match="gamma-vae"):
        disentangling("gamma-vae")
    with pytest.raises(InputError, match="beta -1"):
        disentangling("beta", -1.0)
    assert disentangling("factor", 7.0).gamma == 7.0  # type: ignore[attr-defined]
