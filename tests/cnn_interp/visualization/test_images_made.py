"""Images made for units and from layers: activation maximization, inversion, decoder, plug & play."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cnn_interp.images.photographs import Photographs
from cnn_interp.networks.network import Network
from cnn_interp.visualization.activation_maximization import maximize_activation
from cnn_interp.visualization.decoder import UpConvolutionalDecoder, train_decoder
from cnn_interp.visualization.inversion import invert, total_variation
from cnn_interp.visualization.plug_and_play import generate, train_prior
from interpretkit.errors import InputError

# The tests are imported by path, so that the shared networks must be found by hand.
sys.path.insert(0, str(Path(__file__).parent))
from small_networks import SIDE, colour_classifier, convolutional, noise_photographs


def test_a_planted_colour_is_made() -> None:
    found = maximize_activation(colour_classifier(), [0, 1, 2], steps=100, photographs=noise_photographs(6))
    means = found.images.mean((2, 3))
    assert means.argmax(1).tolist() == [0, 1, 2]
    assert (means.max(1) - np.median(means, 1) > 0.1).all()
    assert found.best_photograph is not None
    assert (found.reached > found.best_photograph).all()
    assert (found.reached > found.noise).all()


def test_reached_is_the_activation_of_the_image_returned() -> None:
    network = colour_classifier()
    found = maximize_activation(network, [3, 4], steps=5)
    logits = network.module(network.normalise(torch.from_numpy(found.images)))
    assert np.allclose(logits.detach().numpy()[[0, 1], [3, 4]], found.reached, atol=1e-5)
    assert np.allclose(found.images * 255, (found.images * 255).round(), atol=1e-4)


def test_same_seed_same_bits_and_the_callers_random_numbers_are_left() -> None:
    network = convolutional()
    torch.manual_seed(7)
    first = maximize_activation(network, [2], layer="3", steps=3)
    after = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(after, torch.rand(1))
    again = maximize_activation(network, [2], layer="3", steps=3)
    other = maximize_activation(network, [2], layer="3", steps=3, seed=1)
    assert np.array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)


def test_diversity_makes_images_differ() -> None:
    def likeness(weight: float) -> float:
        found = maximize_activation(
            convolutional(), [1], layer="3", images_per_channel=3, diversity=weight, steps=60, shift=2.0
        )
        network = convolutional()
        maps = network.module[:4](network.normalise(torch.from_numpy(found.images))).flatten(2)  # type: ignore[index]
        gram = nn.functional.normalize(torch.einsum("ncp,ndp->ncd", maps, maps).flatten(1), dim=1)
        return float((gram @ gram.T).triu(1).sum().detach()) / 3

    assert likeness(50.0) < likeness(0.0) - 0.02


@pytest.mark.parametrize(
    ("channels", "options", "message"),
    [
        ([16], {"layer": "3"}, "unit 16"),
        ([5], {}, "target 5"),
        ([0], {"layer": "nowhere"}, "none of that name"),
        ([0], {"diversity": 1.0}, "diversity"),
        ([], {}, "at least 1"),
        ([0], {"layer": "3", "place": "corner"}, "place"),
    ],
)
def test_maximization_refuses(channels: list[int], options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        maximize_activation(convolutional(), channels, steps=1, **options)


def test_an_invertible_layer_is_inverted_and_a_pooled_one_less_so() -> None:
    network = convolutional()
    inputs = noise_photographs(2).inputs(network, [0, 1])
    found = invert(network, inputs, ["0", "5"], steps=100, photographs=noise_photographs(5, seed=1))
    original = network.pixels(inputs).numpy()
    errors = {layer: np.abs(found.images[layer] - original).mean() for layer in ("0", "5")}
    assert errors["0"] < 0.08 < errors["5"]
    assert (found.error["0"] < 0.3 * found.other_photographs["0"]).all()
    assert (found.error["5"] < 0.6 * found.other_photographs["5"]).all()


def test_a_layers_inversion_does_not_depend_on_the_others() -> None:
    network = convolutional()
    inputs = noise_photographs(1).inputs(network, [0])
    alone = invert(network, inputs, ["3"], steps=3, photographs=noise_photographs(2))
    together = invert(network, inputs, ["0", "3"], steps=3, photographs=noise_photographs(2))
    assert np.array_equal(alone.images["3"], together.images["3"])


def test_total_variation_of_a_step() -> None:
    image = torch.zeros(1, 1, 5, 5)
    image[..., 3:] = 2.0
    # Four of the sixteen differences are 2 high.
    assert float(total_variation(image, 2.0)) == pytest.approx(4 * 4 / 16)
    assert float(total_variation(image, 1.0)) == pytest.approx(4 * 2 / 16, abs=1e-5)


def test_inversion_refuses() -> None:
    dead = Network("dead", nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()), size=SIDE)
    with torch.no_grad():
        dead.module[0].bias.fill_(-100.0)  # type: ignore[union-attr]
    with pytest.raises(InputError, match="nothing but zeros"):
        invert(dead, torch.zeros(1, 3, SIDE, SIDE), ["1"], steps=1)
    with pytest.raises(InputError, match="square"):
        invert(dead, torch.zeros(1, 3, SIDE, 8), ["0"], steps=1)


def test_a_decoder_beats_the_mean_image_on_other_photographs() -> None:
    found = train_decoder(
        convolutional(), "2", noise_photographs(40), images=200, side=16, epochs=6, batch_size=16
    )
    assert found.error < 0.5 * found.mean_image_error
    assert found.originals.shape == found.reconstructions.shape == (8, 3, 16, 16)
    assert not found.model.training


class Scaled(nn.Module):
    """Multiplies its images by a number, in a layer of its own."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.maps = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.maps(images * self.factor).mean((2, 3))


@pytest.mark.parametrize("factor", [2.0**40, 2.0**-40])
def test_a_decoder_does_not_mind_the_scale_of_a_layer(factor: float) -> None:
    def decoded(factor: float) -> tuple[float, np.ndarray]:
        network = Network("scaled", Scaled(factor).eval(), size=SIDE, resize=SIDE)
        found = train_decoder(network, "maps", noise_photographs(12), images=60, side=16, epochs=3)
        # The decoder takes what the layer gives, whatever it was trained on.
        inputs = network.normalise(torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)))
        with torch.no_grad():
            return found.error, found.model(inputs * factor).numpy()

    error, images = decoded(factor)
    expected_error, expected_images = decoded(1.0)
    assert error == pytest.approx(expected_error, rel=1e-4)
    assert np.allclose(images, expected_images, atol=1e-4)
    assert np.ptp(images) > 0.2


def test_decoders_refuse_before_all_images_have_run() -> None:
    class Tokens(nn.Module):
        runs = 0

        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            self.runs += 1
            return maps.flatten(2)

    tokens = Tokens()
    network = Network("tokens", nn.Sequential(tokens, nn.Flatten()).eval(), size=SIDE, resize=SIDE)
    with pytest.raises(InputError, match="gives outputs of shape"):
        train_decoder(network, "0", noise_photographs(6), images=40, side=16, epochs=1)
    assert tokens.runs == 1
    endless = Network("endless", Scaled(float("inf")).eval(), size=SIDE, resize=SIDE)
    with pytest.raises(InputError, match="not finite"):
        train_decoder(endless, "maps", noise_photographs(6), images=40, side=16, epochs=1)


@pytest.mark.parametrize(("height", "side"), [(1, 16), (7, 64), (14, 33), (28, 28), (32, 16)])
def test_decoders_reach_any_side(height: int, side: int) -> None:
    assert UpConvolutionalDecoder(4, height, side)(torch.zeros(2, 4, height, height)).shape == (
        2,
        3,
        side,
        side,
    )


def test_learning_and_testing_photographs_are_not_the_same() -> None:
    photographs = noise_photographs(10)
    train, test = photographs.split(0.3, seed=4)
    assert len(test) == 3
    assert sorted([*train.names, *test.names]) == sorted(photographs.names)
    with pytest.raises(InputError, match="at least 3"):
        train_decoder(convolutional(), "2", noise_photographs(2))


def test_the_prior_removes_noise_and_keeps_images_real() -> None:
    prior = train_prior(noise_photographs(30), pieces=200, side=16, epochs=10)
    assert prior.error < 0.4 * prior.noise_error
    assert prior.distance < prior.noise_error
    found = generate(colour_classifier(), [0, 2], prior, steps=40, prior_step=0.3, class_step=0.5)
    start = 1 / 5
    assert (found.probability > start + 0.2).all()
    assert (found.distance < found.distance_without_prior).all()
    assert found.images.mean((2, 3)).argmax(1).tolist() == [0, 2]


def test_plug_and_play_refuses() -> None:
    with pytest.raises(InputError, match="multiple of 4"):
        train_prior(side=30)
    prior = train_prior(noise_photographs(3), pieces=8, side=8, epochs=1)
    with pytest.raises(InputError, match="target"):
        generate(colour_classifier(), [5], prior, steps=1)


def test_crops_are_spread_over_photographs_and_repeat() -> None:
    photographs = Photographs.bundled().subset([0, 1])
    crops = photographs.crops(5, 24, seed=3)
    assert crops.shape == (5, 3, 24, 24)
    assert float(crops.min()) >= 0
    assert float(crops.max()) <= 1
    assert torch.equal(crops, photographs.crops(5, 24, seed=3))
    assert not torch.equal(crops, photographs.crops(5, 24, seed=4))
