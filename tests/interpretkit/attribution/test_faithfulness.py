"""Checks of attributions: that they tell good ones from bad ones, and known facts of the literature."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from interpretkit.attribution import attribute
from interpretkit.attribution.faithfulness import (
    deletion,
    energy_inside,
    insertion,
    pointing_game,
    weight_randomization,
)
from interpretkit.errors import InputError

# The tests are imported by path, so that the shared networks must be found by hand.
sys.path.insert(0, str(Path(__file__).parent))
from attribution_networks import LooksAt, ReusedInPlace, images, plain


def bright(n: int = 3) -> Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def linear(size: int = 6) -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(size**2, 3)).double()
    return model, images(4, size)[:, :1].double()


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_curves_of_a_linear_model_are_cumulative_sums(baseline):
    model, inputs = linear()
    weights = model[1].weight[1].detach().reshape(1, 6, 6)  # type: ignore[union-attr, operator, index]
    values = weights * (inputs - baseline)
    parts = values.flatten(1).sort(descending=True).values.numpy()
    start = model(torch.full_like(inputs, baseline))[:, 1].detach().numpy()[:, None]
    rising = start + np.concatenate([np.zeros((4, 1)), parts.cumsum(axis=1)], axis=1)
    options = {"steps": 36, "baseline": baseline, "probabilities": False, "images_per_forward": 5}
    found = insertion(model, inputs, values, 1, **options)
    np.testing.assert_allclose(found.scores, rising, atol=1e-12)
    np.testing.assert_allclose(found.shares, np.arange(37) / 36)
    np.testing.assert_allclose(found.areas, (rising[:, :-1] + rising[:, 1:]).sum(axis=1) / 72)
    falling = deletion(model, inputs, values.numpy(), 1, **options)
    np.testing.assert_allclose(falling.scores, rising[:, -1:] - rising + start, atol=1e-12)
    # No other order does better, and the reverse one worst.
    for other in (-values, torch.rand(4, 6, 6)):
        assert (insertion(model, inputs, other, 1, **options).areas < found.areas).all()
        assert (deletion(model, inputs, other, 1, **options).areas > falling.areas).all()


def test_curves_rank_attributions_of_a_network_that_looks_at_a_region():
    model, inputs = LooksAt(), bright()
    good = attribute(model, inputs, 1, method="input_x_gradient")
    bad = good.values.roll(8, 2)
    for where in ("deletion", "insertion"):
        curve = deletion if where == "deletion" else insertion
        areas = [curve(model, inputs, found, 1, steps=16, baseline=0.0).areas for found in (good, bad)]
        if where == "deletion":
            assert (areas[0] < 0.9 * areas[1]).all()
        else:
            assert (areas[0] > 1.1 * areas[1]).all()


def test_curves_take_the_attributions_target_and_leave_the_model():
    model, inputs = ReusedInPlace(), images()
    found = attribute(model, inputs, [0, 4, 2], method="gradcam")
    sizes: list[int] = []
    model.fc.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    curve = deletion(model, inputs, found, steps=7, images_per_forward=4)
    assert max(sizes) <= 4
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    same = deletion(model, inputs, found.values, [0, 4, 2], steps=7)
    np.testing.assert_allclose(curve.scores, same.scores, rtol=1e-5)
    probabilities = model.eval()(inputs).softmax(1)[torch.arange(3), torch.tensor([0, 4, 2])].detach()
    np.testing.assert_allclose(curve.scores[:, 0], probabilities, rtol=1e-5)
    np.testing.assert_array_equal(
        curve.scores, deletion(model, inputs, found, steps=7, images_per_forward=4).scores
    )
    blurred = insertion(model, inputs, found, steps=7)
    np.testing.assert_allclose(blurred.scores[:, -1], probabilities, rtol=1e-5)
    assert not np.allclose(blurred.scores[:, 0], deletion(model, inputs, found, steps=7).scores[:, -1])


def test_an_images_curve_does_not_depend_on_the_batch():
    model, inputs = plain(torch.float64), images().double()
    flat = torch.zeros(3, 14, 14)  # all ties
    together = deletion(model, inputs, flat, 1, steps=9).scores
    for row in range(3):
        alone = deletion(model, inputs[row : row + 1], flat[row : row + 1], 1, steps=9).scores
        np.testing.assert_allclose(together[row], alone[0], rtol=1e-10)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (torch.zeros(3, 13, 14), {}, r"attribution: has values \(3, 13, 14\); expected those of the inputs"),
        (torch.zeros(14, 14), {}, r"attribution: has values of shape \(14, 14\)"),
        (torch.full((3, 14, 14), float("nan")), {}, "attribution: holds NaN"),
        (torch.zeros(3, 14, 14), {"steps": 0}, "steps 0"),
        (torch.zeros(3, 14, 14), {"steps": 1000}, "steps 1000: the images have 196 pixels"),
        (torch.zeros(3, 14, 14), {"baseline": "noise"}, "baseline 'noise'"),
    ],
)
def test_curves_refuse_bad_input(values, options, message):
    with pytest.raises(InputError, match=message):
        deletion(plain(), images(), values, 0, **options)


def test_pointing_game_by_hand():
    values = np.zeros((4, 9, 9))
    masks = np.zeros((4, 9, 9), dtype=bool)
    masks[:, 2:4, 2:4] = True
    values[0, 3, 2] = 1  # within
    values[1, 6, 3] = 1  # three pixels off
    values[2, 0, 3] = values[2, 8, 8] = 1  # one of two maxima two pixels off
    found = pointing_game(values, masks, tolerance=0)
    assert found.hits.tolist() == [1, 0, 0, pytest.approx(4 / 81)]
    assert found.chances.tolist() == pytest.approx([4 / 81] * 4)
    found = pointing_game(torch.from_numpy(values), torch.from_numpy(masks), tolerance=2)
    assert found.hits.tolist()[:3] == [1, 0, 0.5]
    assert found.hits[3] == pytest.approx(found.chances[3])  # a constant map hits by chance
    assert pointing_game(values, masks, tolerance=3).hits.tolist()[:3] == [1, 1, 0.5]
    assert found.accuracy == pytest.approx(found.hits.mean())
    with pytest.raises(InputError, match="masks: have shape"):
        pointing_game(values, masks[:, :5])
    with pytest.raises(InputError, match="masks: that of example 0 is empty"):
        pointing_game(values, masks & False)
    with pytest.raises(InputError, match="tolerance -1"):
        pointing_game(values, masks, tolerance=-1)


def test_the_region_that_a_network_looks_at_is_pointed_to():
    model, inputs = LooksAt(), bright()
    masks = np.zeros((3, 16, 16), dtype=bool)
    masks[:, 8:, 8:] = True
    found = attribute(model, inputs, 1, method="input_x_gradient")
    assert pointing_game(found, masks, tolerance=0).accuracy == 1
    np.testing.assert_allclose(energy_inside(found, masks), 1)
    wrong = found.values.roll(8, 3)
    assert pointing_game(wrong, masks, tolerance=0).accuracy == 0
    np.testing.assert_allclose(energy_inside(wrong, masks), 0)
    np.testing.assert_allclose(energy_inside(-found.values.abs(), masks), 0.25)


def sanity_network() -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for width in (3, 12, 12, 12, 12):
        layers += [nn.Conv2d(width, 12, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(192, 5))


def test_guided_backprop_hardly_feels_the_upper_layers():
    """The finding of Adebayo et al. (2018): gradients change with the weights, guided ones much less."""
    model, inputs = sanity_network(), images(4, 24)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain_ones = weight_randomization(model, inputs, 1, method="saliency")
    guided = weight_randomization(model, inputs, 1, method="guided_backprop")
    assert plain_ones.layers == ("12", "8", "6", "4", "2", "0")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    for found in (plain_ones, guided):
        assert found.rank_correlations.shape == (6, 4)
    upper = slice(1, 4)
    assert guided.absolute_rank_correlations[upper].mean() > 0.4
    assert plain_ones.absolute_rank_correlations[upper].mean() < 0.35
    assert guided.similarities[upper].mean() > plain_ones.similarities[upper].mean()


def test_what_ignores_the_weights_is_found_out():
    """An upsampled map of one channel of ones: the same whatever the weights above it are."""

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.shape = nn.Identity()
            self.fc = nn.Linear(3 * 14 * 14, 5)
            self.unused = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x.flatten(1))

    found = weight_randomization(Fixed(), images(), 0, method="saliency", layers=["unused", "fc"])
    np.testing.assert_allclose(found.rank_correlations[0], 1)
    np.testing.assert_allclose(found.similarities[0], 1)
    assert np.abs(found.rank_correlations[1]).max() < 0.2
    one = weight_randomization(
        Fixed(), images(), 0, method="saliency", layers=["fc", "unused"], cascading=False
    )
    np.testing.assert_allclose(one.rank_correlations, found.rank_correlations[::-1])


def test_the_same_seed_randomises_the_same_way():
    model, inputs = plain(), images()
    random = torch.get_rng_state()
    first = weight_randomization(model, inputs, method="saliency", seed=1)
    again = weight_randomization(model, inputs, method="saliency", seed=1)
    other = weight_randomization(model, inputs, method="saliency", seed=2)
    assert torch.equal(torch.get_rng_state(), random)
    np.testing.assert_array_equal(first.rank_correlations, again.rank_correlations)
    assert not np.array_equal(first.rank_correlations, other.rank_correlations)


def test_weight_randomization_refuses_bad_input():
    with pytest.raises(InputError, match="method 'gradient'"):
        weight_randomization(plain(), images(), method="gradient")
    with pytest.raises(InputError, match="layer '9'"):
        weight_randomization(plain(), images(), method="saliency", layers=["9"])
    with pytest.raises(InputError, match="layer '1': has no parameters"):
        weight_randomization(plain(), images(), method="saliency", layers=["1"])
    with pytest.raises(InputError, match="none of its layers holds parameters"):
        weight_randomization(nn.Sequential(nn.ReLU(), nn.Flatten()), images(), 0, method="saliency")
