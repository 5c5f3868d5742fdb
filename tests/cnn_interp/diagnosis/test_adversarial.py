from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cnn_interp.diagnosis.adversarial import (
    deepfool,
    fgsm,
    minimal_perturbation,
    pgd,
)
from cnn_interp.diagnosis.attacks import Attack, Classifier
from cnn_interp.diagnosis.layer_features import layer_change, noise_of_length, stages
from cnn_interp.diagnosis.one_pixel import one_pixel
from cnn_interp.networks.network import Network
from interpretkit.errors import InputError

SIDE = 6


class Linear(nn.Module):
    """Two or more classes, linear in the pixels."""

    def __init__(self, classes: int = 2, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(classes, 3 * SIDE**2, generator=generator))

    def forward(self, pixels: Tensor) -> Tensor:
        # Grey is on the border, so that there is room on all sides.
        return (pixels - 0.5).flatten(1) @ self.weight.T


class Convolutional(nn.Module):
    """A small network with everything that an attack could leave changed."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.features = nn.Sequential(
                nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 3),
                nn.ReLU(inplace=True), nn.Dropout(0.5),
            )  # fmt: skip
            self.head = nn.Linear(8 * 16, 4)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.features(pixels).flatten(1))


def images(n: int = 5, seed: int = 1, low: float = 0.45, high: float = 0.55) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(n, 3, SIDE, SIDE, generator=generator)


def distances(model: Linear, pixels: Tensor) -> Tensor:
    """Return the distances from each image to the border of every other class."""
    outputs = model(pixels).detach()
    labels = outputs.argmax(1)
    found = []
    for row, label in enumerate(labels.tolist()):
        others = [k for k in range(outputs.shape[1]) if k != label]
        margins = outputs[row, label] - outputs[row, others]
        found.append(margins / (model.weight[label] - model.weight[others]).detach().norm(dim=1))
    return torch.stack(found)


ATTACKS = {
    "fgsm": lambda m, x, **o: fgsm(m, x, epsilon=0.03, **o),
    "pgd": lambda m, x, **o: pgd(m, x, epsilon=0.03, steps=5, **o),
    "pgd l2": lambda m, x, **o: pgd(m, x, epsilon=0.5, norm="l2", steps=5, **o),
    "deepfool": lambda m, x, **o: deepfool(m, x, classes=3, **o),
    "minimal": lambda m, x, **o: minimal_perturbation(m, x, search_steps=2, iterations=8, **o),
    "one pixel": lambda m, x, **o: one_pixel(m, x, population=12, generations=3, **o),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_stays_in_the_box_keeps_the_network_and_repeats(name: str) -> None:
    model = Convolutional()
    model.train()
    next(model.parameters()).requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    x = images(4, low=0.0, high=1.0)
    random = torch.get_rng_state()
    with torch.no_grad():
        first = ATTACKS[name](model, x)
    second = ATTACKS[name](model, x)
    assert torch.equal(first.perturbed, second.perturbed)
    assert torch.equal(random, torch.get_rng_state())
    assert float(first.perturbed.min()) >= 0
    assert float(first.perturbed.max()) <= 1
    assert torch.equal(first.originals, x)
    assert all(module.training for module in model.modules())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    # What is said of the perturbed images is what the network says to them.
    model.eval()
    assert torch.equal(first.after.argmax(1), model(first.perturbed).argmax(1))
    assert torch.equal(first.labels, model(x).argmax(1))


@pytest.mark.parametrize("name", ATTACKS)
def test_an_image_is_attacked_alike_alone_and_among_others(name: str) -> None:
    model = Convolutional().eval()
    x = images(3, low=0.2, high=0.8)
    together = ATTACKS[name](model, x)
    alone = ATTACKS[name](model, x[1:2])
    torch.testing.assert_close(together.perturbed[1:2], alone.perturbed, atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", ATTACKS)
def test_images_that_the_network_has_wrong_count_neither_way(name: str) -> None:
    model = Linear()
    x = images()
    wrong = 1 - model(x).argmax(1)
    found = ATTACKS[name](model, x, labels=wrong)
    assert not found.fair.any()
    assert math.isnan(found.success_rate)
    if name in ("deepfool", "minimal", "one pixel"):
        assert torch.equal(found.perturbed, x)


def test_fgsm_is_its_closed_form() -> None:
    model = Linear(3)
    x = images(low=0.0, high=1.0)
    labels = torch.tensor([0, 1, 2, 0, 1])
    probabilities = model(x).softmax(1)
    # The gradient of the cross entropy of a linear model is (p - onehot) W.
    gradient = (probabilities - functional.one_hot(labels, 3)) @ model.weight
    step = 0.02 * gradient.sign().reshape(x.shape)
    torch.testing.assert_close(fgsm(model, x, labels, epsilon=0.02).perturbed, (x + step).clamp(0, 1))
    to = torch.tensor([1, 2, 0, 2, 0])
    gradient = (probabilities - functional.one_hot(to, 3)) @ model.weight
    step = -0.02 * gradient.sign().reshape(x.shape)
    found = fgsm(model, x, labels, epsilon=0.02, targets=to)
    torch.testing.assert_close(found.perturbed, (x + step).clamp(0, 1))


def test_pgd_in_one_step_is_fgsm_and_many_steps_reach_the_corner_of_a_linear_model() -> None:
    model = Linear()
    x = images()
    one = pgd(model, x, epsilon=0.02, steps=1, step_size=0.02, random_start=False)
    torch.testing.assert_close(one.perturbed, fgsm(model, x, epsilon=0.02).perturbed)
    many = pgd(model, x, epsilon=0.02, steps=20, random_start=True)
    # From wherever it starts, the worst point of a cube for a linear model is the same corner.
    torch.testing.assert_close(many.perturbed, one.perturbed)


@pytest.mark.parametrize("epsilon", [0.01, 0.2, 3.0])
def test_pgd_keeps_to_its_ball(epsilon: float) -> None:
    x = images(low=0.0, high=1.0)
    cube = pgd(Convolutional(), x, epsilon=epsilon, steps=6)
    assert float(cube.linf.max()) <= epsilon + 1e-6
    ball = pgd(Convolutional(), x, epsilon=epsilon, norm="l2", steps=6)
    assert float(ball.l2.max()) <= epsilon * (1 + 1e-5)


def test_pgd_in_the_l2_ball_goes_against_a_linear_models_weights() -> None:
    model = Linear()
    x = images()
    found = pgd(model, x, epsilon=0.1, norm="l2", steps=30, random_start=False)
    normal = (model.weight[1] - model.weight[0]).detach()
    sign = 1 - 2 * found.labels.float()
    expected = 0.1 * sign[:, None] * normal / normal.norm()
    torch.testing.assert_close(found.difference.flatten(1), expected, atol=1e-5, rtol=0)
    started = pgd(model, x, epsilon=0.1, norm="l2", steps=30).difference.flatten(1)
    assert bool((functional.cosine_similarity(started, expected) > 0.98).all())


def test_a_larger_ball_never_lowers_the_loss_of_a_linear_model() -> None:
    model = Linear(4)
    x = images(8)
    rates = [pgd(model, x, epsilon=epsilon, steps=10).success_rate for epsilon in (1e-4, 1e-2, 1e-1)]
    assert rates == sorted(rates)
    assert rates[-1] == 1.0


@pytest.mark.parametrize("classes", [2, 5])
def test_the_smallest_perturbation_of_a_linear_model_is_the_distance_to_its_border(classes: int) -> None:
    model = Linear(classes)
    x = images()
    expected = distances(model, x).amin(1)
    quick = deepfool(model, x)
    assert quick.succeeded.all()
    np.testing.assert_allclose(quick.l2, expected, rtol=1e-3)
    smallest = minimal_perturbation(model, x, candidates=2, iterations=60)
    assert smallest.succeeded.all()
    np.testing.assert_allclose(smallest.l2, expected, rtol=1e-3)


def test_the_box_makes_the_smallest_perturbation_longer() -> None:
    model = Linear()
    with torch.no_grad():
        model.weight.zero_()
        model.weight[1, :3] = torch.tensor([-1.0, -3.0, 2.0])
    x = torch.full((1, 3, SIDE, SIDE), 0.5)
    x[0, 0, 0, :3] = torch.tensor([0.55, 0.05, 0.02])
    # The margin is -0.05 + 1.35 - 0.96 = 0.34. Freely the third value would go down by 2 · 0.34 / 14 = 0.049, but it
    # has only 0.02; the first two must do the rest, along (1, 3).
    expected = math.hypot(0.02, (0.34 - 2 * 0.02) / math.sqrt(10))
    assert expected > 1.04 * 0.34 / math.sqrt(14)
    found = minimal_perturbation(model, x, search_steps=14, iterations=60)
    assert float(found.l2[0]) == pytest.approx(expected, rel=2e-3)
    assert float(found.perturbed[0, 0, 0, 2]) == pytest.approx(0, abs=1e-4)


def test_the_smallest_perturbation_goes_to_a_wanted_class() -> None:
    model = Linear(4)
    x = images(3)
    to = (model(x).argmax(1) + 1) % 4
    found = minimal_perturbation(model, x, targets=to)
    assert torch.equal(found.after.argmax(1), to)
    free = minimal_perturbation(model, x, candidates=3)
    assert bool((free.l2 <= found.l2 * 1.001).all())


class Watching(nn.Module):
    """Says class 1 if the pixel at (2, 4) is redder than it is blue by 0.9."""

    def forward(self, pixels: Tensor) -> Tensor:
        score = 40 * (pixels[:, 0, 2, 4] - pixels[:, 2, 2, 4] - 0.9)
        return torch.stack([torch.zeros_like(score), score], dim=1)


def test_the_one_pixel_that_decides_is_found() -> None:
    x = torch.full((2, 3, SIDE, SIDE), 0.5)
    x[1, 1] = 0.25
    found = one_pixel(Watching(), x, population=100, generations=40)
    assert found.succeeded.all()
    changed = found.difference.abs().amax(1) > 0
    for row in range(2):
        assert changed[row].nonzero().tolist() == [[2, 4]]
    # The evolution stops with its first success, long before its last generation.
    assert bool((found.evaluations < 100 * 41).all())
    colours = found.perturbed[:, :, 2, 4] * 255
    torch.testing.assert_close(colours, colours.round())


def test_a_network_that_one_pixel_cannot_move_withstands() -> None:
    class Mean(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            mean = pixels.mean((1, 2, 3))
            return torch.stack([0.5 - mean, mean - 0.5], dim=1)

    x = torch.full((1, 3, SIDE, SIDE), 0.45)
    found = one_pixel(Mean(), x, population=20, generations=5)
    assert not found.succeeded.any()
    assert int(found.evaluations[0]) == 20 * 6
    assert int((found.difference.abs().amax(1) > 0).sum()) <= 1
    # One of 36 pixels moves the mean by up to 0.55/36; eight move it past the border.
    assert one_pixel(Mean(), x, pixels_changed=8, population=60, generations=30).succeeded.all()


def test_several_pixels_change_at_most() -> None:
    found = one_pixel(Convolutional(), images(2), pixels_changed=3, population=8, generations=2)
    assert int((found.difference.abs().amax(1) > 0).sum((1, 2)).max()) <= 3


def test_noise_has_the_length_asked_for_within_the_box() -> None:
    x = images(3, low=0.0, high=1.0)
    lengths = torch.tensor([0.0, 0.3, 2.0])
    noise = noise_of_length(x, lengths)
    torch.testing.assert_close(noise.flatten(1).norm(dim=1), lengths, atol=1e-5, rtol=1e-5)
    assert float((x + noise).min()) >= 0
    assert float((x + noise).max()) <= 1


def test_the_change_of_layers_is_that_of_their_outputs() -> None:
    model = Convolutional().eval()
    x = images(3)
    attack = fgsm(model, x, epsilon=0.01)
    change = layer_change(model, attack, ["features.0", "head"])
    assert change.layers == ("pixels", "features.0", "head", "output")
    np.testing.assert_allclose(change.perturbed[:, 2], change.perturbed[:, 3])
    before, after = (model.features[0](images).flatten(1) for images in (x, attack.perturbed))
    expected = ((after - before).norm(dim=1) / before.norm(dim=1)).detach()
    np.testing.assert_allclose(change.perturbed[:, 1], expected, rtol=1e-4)
    np.testing.assert_allclose(change.amplification[:, 0], 1, rtol=1e-4)
    # Adversarial directions move the outputs of a network further than noise of the same length.
    assert change.amplification[:, 3].mean() > 2


def test_stages_are_the_outermost_layers_in_the_order_of_running() -> None:
    model = Convolutional()
    assert stages(model, images(1)) == tuple(f"features.{i}" for i in range(6))
    assert stages(model, images(1), most=2) == ("features.0", "features.5")


def test_a_networks_normalisation_is_inside() -> None:
    module = Linear()
    network = Network("linear", module, size=SIDE, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    x = images(2)
    plain = nn.Sequential(_Normalising(network), module)
    for epsilon in (0.01, 0.05):
        torch.testing.assert_close(
            fgsm(network, x, epsilon=epsilon).perturbed, fgsm(plain, x, epsilon=epsilon).perturbed
        )


class _Normalising(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.normalise = network.normalise

    def forward(self, pixels: Tensor) -> Tensor:
        return self.normalise(pixels)


def test_bad_input_is_refused_in_one_line() -> None:
    model, x = Linear(), images(2)

    def refused(mentions: str, model: Classifier, pixels: Tensor, **options: object) -> None:
        with pytest.raises(InputError, match=mentions) as caught:
            fgsm(model, pixels, **{"epsilon": 0.1, **options})  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)

    refused("0 … 1", model, 2 * x)
    refused("0 … 1", model, torch.full_like(x, torch.nan))
    refused("shape", model, x[0])
    refused("epsilon", model, x, epsilon=0.0)
    refused("labels", model, x, labels=[0])
    refused("0 to 1", model, x, labels=[0, 7])
    refused("targets", model, x, targets=torch.tensor([0.5, 1.0]))
    refused("at least 1", model, x, images_per_forward=0)
    refused("scores", nn.Flatten(0), x)
    with pytest.raises(InputError, match="norm"):
        pgd(model, x, epsilon=0.1, norm="l7")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="steps"):
        pgd(model, x, epsilon=0.1, steps=0)


def test_a_network_is_put_back_after_an_exception() -> None:
    model = Convolutional()
    model.train()
    model.head = nn.Linear(7, 4)
    for attack in ATTACKS.values():
        with pytest.raises(RuntimeError):
            attack(model, images(1))
        assert all(module.training for module in model.modules())
        assert all(parameter.requires_grad for parameter in model.parameters())


def test_success_of_a_targeted_attack_is_the_target() -> None:
    x = images(2)
    after = torch.tensor([[0.1, 0.7, 0.2], [0.1, 0.2, 0.7]])
    before = torch.tensor([[0.8, 0.1, 0.1], [0.8, 0.1, 0.1]])
    zero = torch.zeros(2, dtype=torch.long)
    attack = Attack("x", x, x, zero, torch.tensor([1, 1]), before, after, zero)
    assert attack.succeeded.tolist() == [True, False]
    assert attack.success_rate == 0.5
