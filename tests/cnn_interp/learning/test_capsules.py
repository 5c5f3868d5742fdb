"""Capsules against plain definitions of routing and loss; trainings that go on where they were killed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cnn_interp.learning.capsules import (
    PERTURBATIONS,
    SIZES,
    CapsuleConfig,
    CapsuleNetwork,
    OrdinaryNetwork,
    Schedule,
    coupling_entropy,
    coupling_maps,
    load_network,
    margin_loss,
    perturbed_sheet,
    predict,
    route,
    save_network,
    squash,
    train_network,
)
from cnn_interp.learning.grey_images import GreyImages
from interpretkit.errors import InputError

TINY = CapsuleConfig(
    side=12,
    categories=("up", "left"),
    stem=((6, 3, 2),),
    types=2,
    primary_size=4,
    primary_kernel=3,
    primary_stride=2,
    capsule_size=6,
    decoder=(16,),
    normalise=True,
)


def bars(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images of a bar that stands or lies, at a random place."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(count, 12, 12, dtype=torch.uint8)
    labels = torch.randint(2, (count,), generator=generator)
    for row, label in enumerate(labels):
        at, start = torch.randint(2, 9, (2,), generator=generator).tolist()
        start = min(start, 5)
        if label:
            images[row, at, start : start + 6] = 255
        else:
            images[row, start : start + 6, at] = 255
    return images, labels


@pytest.fixture(scope="module")
def images() -> GreyImages:
    pixels, labels = bars(260)
    return GreyImages(
        "bars",
        pixels[:160],
        labels[:160],
        pixels[160:200],
        labels[160:200],
        pixels[200:],
        labels[200:],
        ("up", "left"),
    )


def plain_route(primary: np.ndarray, weights: np.ndarray, routings: int) -> tuple[np.ndarray, np.ndarray]:
    """Procedure 1 of the article, one image and one number at a time."""
    votes = np.einsum("pa,pakd->pkd", primary, weights)
    agreement, couplings, vectors = np.zeros(votes.shape[:2]), np.empty(0), np.empty(0)
    for _ in range(routings):
        couplings = np.exp(agreement) / np.exp(agreement).sum(1, keepdims=True)
        total = np.einsum("pk,pkd->kd", couplings, votes)
        square = (total**2).sum(1, keepdims=True)
        vectors = square / (1 + square) * total / np.sqrt(square)
        agreement = agreement + np.einsum("pkd,kd->pk", votes, vectors)
    return vectors, couplings


@pytest.mark.parametrize("routings", [1, 2, 3, 5])
def test_routing_is_that_of_the_article(routings: int) -> None:
    draws = np.random.default_rng(0)
    primary, weights = draws.normal(size=(3, 7, 4)), draws.normal(size=(7, 4, 5, 6))
    found = route(torch.from_numpy(primary), torch.from_numpy(weights), routings)
    for row in range(3):
        vectors, couplings = plain_route(primary[row], weights, routings)
        np.testing.assert_allclose(found.vectors[row], vectors, atol=1e-7)
        np.testing.assert_allclose(found.couplings[row], couplings.T, atol=1e-10)
    np.testing.assert_allclose(found.couplings.sum(1), 1, atol=1e-12)


def test_routing_finds_the_votes_that_agree() -> None:
    # Ten capsules vote alike for the first category, and each otherwise for the second.
    draws = torch.Generator().manual_seed(0)
    votes = torch.randn(10, 1, 2, 8, generator=draws)
    votes[:, 0, 0] = torch.randn(8, generator=draws)
    found = route(torch.ones(1, 10, 1), votes, 3)
    assert found.couplings[0, 0].mean() > 0.8
    assert found.lengths[0, 0] > found.lengths[0, 1]


def test_gradients_flow_through_the_last_routing_alone() -> None:
    draws = torch.Generator().manual_seed(0)
    primary = torch.randn(2, 6, 3, generator=draws, dtype=torch.float64).requires_grad_()
    weights = torch.randn(6, 3, 4, 5, generator=draws, dtype=torch.float64)
    found = route(primary, weights, 3)
    (gradient,) = torch.autograd.grad(found.vectors.square().sum(), primary)
    votes = torch.einsum("npa,pakd->npkd", primary, weights)
    held = squash(torch.einsum("nkp,npkd->nkd", found.couplings, votes))
    (expected,) = torch.autograd.grad(held.square().sum(), primary)
    torch.testing.assert_close(gradient, expected)


def test_squash_keeps_directions_and_shortens() -> None:
    vectors = torch.tensor([[3.0, 4.0], [0.03, 0.04], [0.0, 0.0]], requires_grad=True)
    short = squash(vectors)
    torch.testing.assert_close(short[0], torch.tensor([0.6, 0.8]) * 25 / 26)
    torch.testing.assert_close(short[1].norm(), torch.tensor(0.0025 / 1.0025), rtol=1e-3, atol=0)
    short.sum().backward()
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()


def test_margin_loss_by_hand() -> None:
    lengths = torch.tensor([[0.95, 0.3, 0.05], [0.5, 0.1, 0.9]])
    # (0.3 − 0.1)² / 2; then (0.9 − 0.1)² of the right one and (0.5 − 0.1)² / 2 + (0.9 − 0.1)² / 2 of the others.
    expected = torch.tensor([0.5 * 0.04, 0.64 + 0.5 * 0.16 + 0.5 * 0.64])
    torch.testing.assert_close(margin_loss(lengths, torch.tensor([0, 1])), expected)


def test_the_published_network_has_the_published_size() -> None:
    network = CapsuleNetwork(SIZES["paper"])
    assert network.config.primary == 1152
    # 9 · 9 · 256 + 256; 9 · 9 · 256 · 256 + 256; 1152 · 8 · 160; and the decoder of 160, 512, 1024 and 784 units.
    assert network.decision_parameters() == 20_992 + 5_308_672 + 1_474_560
    assert sum(p.numel() for p in network.parameters()) - network.decision_parameters() == 1_411_344


@pytest.mark.parametrize("size", sorted(SIZES))
def test_the_ordinary_network_has_as_many_parameters(size: str) -> None:
    one, other = CapsuleNetwork(SIZES[size]), OrdinaryNetwork(SIZES[size])
    assert abs(one.decision_parameters() / other.decision_parameters() - 1) < 0.005


@pytest.mark.parametrize("kind", ["capsules", "ordinary"])
def test_training_learns_and_goes_on_where_it_was_killed(
    kind: str, images: GreyImages, tmp_path: Path
) -> None:
    schedule = Schedule(epochs=6, batch_size=16, learning_rate=2e-2, shift=1)
    network, history = train_network(kind, TINY, images, schedule, seed=0, device="cpu", quiet=True)
    error = (predict(network, images.test).argmax(1) != images.test_labels.numpy()).mean()
    assert error < 0.15
    assert history.best_epoch is not None
    state = torch.get_rng_state()

    class Killed(Exception):
        pass

    calls = 0
    losses = type(network).losses

    def failing(self, *arguments):
        nonlocal calls
        calls += 1
        if calls == 35:  # within the fourth epoch
            raise Killed
        return losses(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(network), "losses", failing)
        with pytest.raises(Killed):
            train_network(kind, TINY, images, schedule, seed=0, device="cpu", checkpoint=tmp_path, quiet=True)
    again, _ = train_network(
        kind, TINY, images, schedule, seed=0, device="cpu", checkpoint=tmp_path, quiet=True
    )
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    # A training draws from generators of its own.
    assert torch.equal(state, torch.get_rng_state())
    if kind == "capsules":
        with pytest.raises(InputError, match="another model"):
            train_network(
                kind,
                replace(TINY, routings=1),
                images,
                schedule,
                device="cpu",
                checkpoint=tmp_path,
                quiet=True,
            )


def test_sheet_couplings_and_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = CapsuleNetwork(TINY).eval()
    # Larger votes, which an untrained network would not agree about else.
    torch.nn.init.normal_(network.votes, std=40.0)
    pixels, labels = bars(5)
    sheet = perturbed_sheet(network, pixels, labels)
    assert PERTURBATIONS == (-0.25, -0.2, -0.15, -0.1, -0.05, 0.0, 0.05, 0.1, 0.15, 0.2, 0.25)
    assert sheet.moved.shape == (5, 6, 11, 12, 12)
    # Moved by nothing, every number leaves the drawing as it is.
    np.testing.assert_allclose(sheet.moved[:, :, 5], np.repeat(sheet.drawn[:, None], 6, 1), atol=1e-6)
    # By hand: the third number of the second image's capsule, moved by 0.25.
    with torch.no_grad():
        vectors = network(pixels[1:2, None].float() / 255).vectors
        vectors[0, sheet.read[1], 2] += 0.25
        by_hand = network.draw(vectors, torch.tensor([sheet.read[1]]))[0].numpy()
    np.testing.assert_allclose(sheet.moved[1, 2, -1], by_hand, atol=1e-6)
    assert sheet.change().shape == (5, 6)
    maps = coupling_maps(network, pixels)
    assert maps.shape == (5, 2, TINY.grid, TINY.grid)
    np.testing.assert_allclose(maps.sum(1), 1, atol=1e-4)
    even = CapsuleNetwork(replace(TINY, routings=1)).eval()
    assert coupling_entropy(even, pixels) == pytest.approx(np.log(2), abs=1e-6)
    assert coupling_entropy(network, pixels) < 0.98 * np.log(2)

    save_network(tmp_path / "capsules.safetensors", network, {"data": "bars"})
    loaded, about = load_network(tmp_path / "capsules.safetensors")
    assert about == {"data": "bars"}
    assert loaded.config == TINY
    np.testing.assert_array_equal(predict(loaded, pixels), predict(network, pixels))


def test_refusals(images: GreyImages) -> None:
    with pytest.raises(InputError, match="too small"):
        CapsuleNetwork(replace(TINY, side=5))
    with pytest.raises(InputError, match="routings 0"):
        CapsuleNetwork(replace(TINY, routings=0))
    with pytest.raises(InputError, match="kind 'magic'"):
        train_network("magic", TINY, images)
    with pytest.raises(InputError, match="images of side 12"):
        train_network("capsules", SIZES["cpu"], images)
    with pytest.raises(InputError, match="learning_rate"):
        train_network("capsules", TINY, images, Schedule(learning_rate=0))
