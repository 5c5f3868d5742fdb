import random
from pathlib import Path

import numpy as np
import pytest
import torch

from interpretkit.disentanglement.autoencoders import Autoencoder, AutoencoderConfig, train_autoencoder
from interpretkit.errors import InputError
from interpretkit.variational import (
    DIPVAE,
    AnnealedVAE,
    BetaTCVAE,
    BetaVAE,
    FactorVAE,
    reconstruction_loss,
)

OBJECTIVES = [
    BetaVAE(1),
    AnnealedVAE(gamma=10, capacity=5, steps=20),
    BetaTCVAE(4),
    FactorVAE(5, width=16, depth=3),
    DIPVAE(),
]


def bars(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return images (n, 16, 16) of a white square, and its place (n, 2) in pixels."""
    places = np.random.default_rng(seed).integers(0, 11, size=(n, 2))
    rows = np.arange(16)
    down = (rows >= places[:, :1]) & (rows < places[:, :1] + 6)
    right = (rows >= places[:, 1:]) & (rows < places[:, 1:] + 6)
    return (down[:, :, None] & right[:, None, :]).astype(np.uint8), places


def train(images: np.ndarray, objective, epochs: int = 3, **options) -> Autoencoder:
    settings = {"latent": 4, "batch_size": 16, "device": "cpu", "quiet": True, **options}
    return train_autoencoder(images, objective, epochs=epochs, **settings)


def random_states() -> tuple:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index]  # noqa: NPY002


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.name)
def test_same_seed_same_bits_and_the_callers_generators_are_left_alone(objective):
    images, _ = bars(40)
    before = random_states()
    first = train(images, objective)
    assert random_states() == before
    torch.randn(5)
    second, other = train(images, objective), train(images, objective, seed=1)
    assert np.array_equal(first.codes(images), second.codes(images))
    assert not np.allclose(first.codes(images), other.codes(images))
    assert not first.training


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.name)
def test_resumed_training_ends_with_the_same_bits(objective, tmp_path: Path):
    images, _ = bars(40)
    straight = train(images, objective, epochs=4)
    train(images, objective, epochs=2, checkpoint=tmp_path)
    before = random_states()
    resumed = train(images, objective, epochs=4, checkpoint=tmp_path)
    assert random_states() == before
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert straight.history is not None
    assert resumed.history is not None
    assert resumed.history.column("train_loss") == straight.history.column("train_loss")


def test_codes_of_unseen_places_lie_beside_those_of_their_neighbours():
    images, places = bars(1200)
    seen = places.sum(1) % 2 == 0
    model = train(images[seen], BetaVAE(1), epochs=25, learning_rate=2e-3)
    known, fresh = model.codes(images[seen]), model.codes(images[~seen])
    nearest = np.square(fresh[:, None] - known[None]).sum(2).argmin(1)
    unexplained = (places[~seen] - places[seen][nearest]).var(0) / places[~seen].var(0)
    # Of a neighbour 0.05, of a place drawn at random 2.
    assert (unexplained < 0.3).all()
    drawn = model.images(fresh)
    assert drawn.shape == images[~seen].shape
    # A black image agrees in 86 % of the pixels.
    assert ((drawn > 0.5) == (images[~seen] > 0)).mean() > 0.9


def test_loss_is_the_sum_of_its_parts():
    images, _ = bars(40)
    model = train(images, FactorVAE(5, width=16, depth=3))
    assert model.history is not None
    row = model.history.epochs[0]
    total = row["train_reconstruction"] + row["train_divergence"] + 5 * row["train_total_correlation"]
    assert row["train_loss"] == pytest.approx(total + row["train_critic"], rel=1e-4)


def test_the_same_pictures_in_other_types_give_the_same_codes():
    images, _ = bars(40)
    model = train(images, BetaVAE(4))
    codes = model.codes(images)
    for same in (images.astype(bool), images.astype(np.int64), images.astype(np.float64)):
        assert np.array_equal(model.codes(same), codes)
    in_bytes = train(255 * images, BetaVAE(4))
    assert in_bytes.config.white == 255
    assert np.allclose(in_bytes.codes(255 * images), codes, atol=1e-6)


def test_colours_and_oblong_images(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, size=(20, 32, 16, 3), dtype=np.uint8)
    kept = images.copy()
    for network in ("coarse", "published"):
        model = train(images, None, epochs=1, network=network)
        assert np.array_equal(images, kept)
        codes = model.codes(images)
        assert codes.shape == (20, 4)
        assert model.images(codes).shape == images.shape
        model.save(tmp_path / "model.safetensors")
        loaded = Autoencoder.load(tmp_path / "model.safetensors")
        assert loaded.config == model.config
        assert np.array_equal(loaded.codes(images), codes)


def test_coarse_network_sees_and_draws_squares():
    torch.manual_seed(0)
    model = Autoencoder(AutoencoderConfig(16, 16, latent=3))
    drawn = model.images(np.ones((1, 3)))[0]
    assert np.array_equal(drawn[::4, ::4].repeat(4, 0).repeat(4, 1), drawn)
    images = np.random.default_rng(0).random((1, 16, 16)).astype(np.float32)
    within_squares = images.reshape(1, 4, 4, 4, 4)[:, :, ::-1, :, ::-1].reshape(1, 16, 16)
    assert np.allclose(model.codes(images), model.codes(within_squares), atol=1e-6)
    assert not np.allclose(model.codes(images), model.codes(images[:, ::-1]), atol=1e-4)
    assert model.training  # as it was


def test_loss_of_squares_is_that_of_their_pixels():
    torch.manual_seed(0)
    model = Autoencoder(AutoencoderConfig(16, 16, latent=3))
    pixels = torch.randint(2, (5, 1, 16, 16)).float()
    loss, posterior = model(pixels)
    assert torch.allclose(loss, reconstruction_loss(model.decode(posterior.codes), pixels))
    mean, log_variance = model.encode(pixels)
    assert torch.equal(mean, posterior.mean)
    assert torch.equal(log_variance, posterior.log_variance)


@pytest.mark.parametrize("network", ["coarse", "published"])
@pytest.mark.parametrize("white", [1, 255])
def test_training_sees_what_the_auto_encoder_sees(network, white):
    images = white * bars(30)[0]
    # A single batch, and weights that stay: the loss is that of the auto-encoder returned, but for the draws.
    model = train(images, BetaVAE(0), epochs=1, batch_size=30, learning_rate=1e-12, network=network)
    assert model.history is not None
    pixels = torch.from_numpy(images[:, None] / np.float32(white))
    noise = torch.randn(50, 30, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mean, log_variance = model.encode(pixels)
        draws = mean + (0.5 * log_variance).exp() * noise
        losses = torch.stack([reconstruction_loss(model.decode(codes), pixels) for codes in draws]).mean(1)
    found = model.history.column("train_reconstruction")[0]
    assert abs(found - float(losses.mean())) < 4 * float(losses.std()) + 1e-3


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (np.zeros((4, 16)), {}, r"shape \(n, h, w\)"),
        (np.zeros((4, 16, 20)), {}, "multiples of 16"),
        (np.zeros((4, 16, 16, 2)), {}, "expected 1 or 3"),
        (np.full((4, 16, 16), 2.0), {}, "expected 0.0 to 1.0"),
        (np.full((4, 16, 16), np.nan), {}, "expected 0.0 to 1.0"),
        (np.full((4, 16, 16), 256), {}, "expected 0 to 255"),
        (np.zeros((1, 16, 16)), {}, "at least 2"),
        (np.ma.masked_less(np.eye(16)[None].repeat(4, 0), 0.5), {}, "masked pixels"),
        (np.zeros((4, 16, 16)), {"epochs": 0}, "epochs 0"),
        (np.zeros((4, 16, 16)), {"batch_size": 1}, "batch_size 1"),
        (np.zeros((4, 16, 16)), {"latent": 0}, "latent 0"),
        (np.zeros((4, 16, 16)), {"learning_rate": -1.0}, "learning_rate -1"),
        (np.zeros((4, 16, 16)), {"network": "deep"}, "network 'deep'"),
    ],
)
def test_bad_input_is_refused(images, options, message):
    with pytest.raises(InputError, match=message):
        train(images, BetaVAE(1), **options)


def test_other_images_and_other_codes_are_refused():
    images, _ = bars(20)
    model = train(images, BetaVAE(1), epochs=1)
    with pytest.raises(InputError, match="knows 16 × 16"):
        model.codes(np.zeros((2, 32, 32)))
    with pytest.raises(InputError, match=r"shape \(n, 4\)"):
        model.images(np.zeros((2, 3)))


@pytest.mark.parametrize("other", [BetaVAE(4), FactorVAE(5, width=16, depth=3)])
def test_a_checkpoint_of_another_objective_is_refused(other, tmp_path: Path):
    images, _ = bars(20)
    train(images, BetaVAE(1), epochs=1, checkpoint=tmp_path)
    with pytest.raises(InputError, match="remove it to begin anew"):
        train(images, other, epochs=2, checkpoint=tmp_path)
