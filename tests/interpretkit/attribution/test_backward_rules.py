"""DeepLIFT, relevance propagation and patterns, checked by captum, by identities, and by hand."""

import sys
from pathlib import Path
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr._utils.lrp_rules import EpsilonRule
from torch import Tensor, nn

from interpretkit.attribution import attribute, fit_patterns
from interpretkit.errors import InputError

# The tests are imported by path, so that the shared networks must be found by hand.
sys.path.insert(0, str(Path(__file__).parent))
from attribution_networks import NotInPlace, ReusedInPlace, images, plain

TARGETS = torch.tensor([3, 0, 2])


def assert_exact(found: Tensor, expected: Tensor) -> None:
    """Equal up to the order of summation in double precision."""
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def stock(network: str, size: int = 40) -> tuple[nn.Module, Tensor]:
    """A network of torchvision's as it stands, with statistics of its own."""
    import torchvision

    torch.manual_seed(0)
    model = getattr(torchvision.models, network)(weights=None, num_classes=5).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images(8, size).double())
    return model, images(2, size).double()


def smooth() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.ELU(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 8, 3),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(128, 9),
        nn.Tanh(),
        nn.Linear(9, 5),
    )


def averaging() -> nn.Sequential:
    # captum's values for a max pooling do not sum up to the difference of the scores.
    layers = list(plain())
    return nn.Sequential(*layers[:2], nn.AvgPool2d(2), *layers[3:])


@pytest.mark.parametrize("make", [averaging, NotInPlace, smooth])
@pytest.mark.filterwarnings("ignore:Setting")
@pytest.mark.filterwarnings("ignore:Input Tensor")
def test_deeplift_agrees_with_captum(make):
    model, inputs = make().double().eval(), images().double()
    for baseline in (torch.zeros_like(inputs), 0.5 * images(3).double().flip(0)):
        expected, gap = captum.attr.DeepLift(model).attribute(
            inputs, baseline, TARGETS, return_convergence_delta=True
        )
        found = attribute(model, inputs, TARGETS, method="deeplift", baseline=baseline)
        assert_exact(found.values, expected.detach())
        torch.testing.assert_close(found.details["completeness_gap"], gap.detach(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("baseline", [0.0, "other"])
def test_deeplift_sums_to_the_difference_on_stock_networks(network, baseline):
    model, inputs = stock(network)
    given = images(2, 40).flip(0).double() * 0.7 if baseline == "other" else baseline
    found = attribute(model, inputs, 1, method="deeplift", baseline=given)
    moved = found.details["scores"] - found.details["baseline_scores"]
    assert moved.abs().min() > 1e-9
    assert found.details["completeness_gap"].abs().max() < 1e-6 * moved.abs().max()


def test_deeplift_sums_to_the_difference_where_signals_are_multiplied():
    """Squeeze and excitation, with hard activations in place."""
    model, inputs = stock("mobilenet_v3_small")
    found = attribute(model, inputs, 1, method="deeplift")
    moved = found.details["scores"] - found.details["baseline_scores"]
    assert found.details["completeness_gap"].abs().max() < 1e-6 * moved.abs().max()


def test_deeplift_shares_overlapping_poolings():
    class Pooled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.max_pool2d(x, 3, stride=1, padding=1).square().sum((2, 3))

    inputs = images(4).double()
    found = attribute(Pooled(), inputs, 0, method="deeplift", baseline=images(4).double().flip(0))
    assert found.details["completeness_gap"].abs().max() < 1e-9


def test_deeplift_shares_a_pooling_by_hand():
    inputs = images(4).double()
    start = images(4).double().flip(0)
    found = attribute(
        nn.Sequential(nn.MaxPool2d(2), nn.Flatten()), inputs, 10, method="deeplift", baseline=start
    )
    # Output 10 is the window in row 1, column 3.
    for image, other, values in zip(inputs, start, found.values, strict=True):
        expected = torch.zeros_like(image)
        window, reference = image[0, 2:4, 6:8], other[0, 2:4, 6:8]
        top = torch.maximum(window.max(), reference.max())
        for share, place in (
            (top - reference.max(), int(window.argmax())),
            (window.max() - top, int(reference.argmax())),
        ):
            expected[0, 2 + place // 2, 6 + place % 2] += share
        assert_exact(values, expected)


def test_deeplift_refuses_a_computation_that_depends_on_the_input():
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.relu() if x.abs().sum() > 0 else torch.tanh(x)).sum((2, 3))

    with pytest.raises(InputError, match="takes other steps for the baseline"):
        attribute(Branching(), images(), 0, method="deeplift")


class Rows(nn.Flatten):
    """A module of another class, for captum refuses the ordinary one."""


@pytest.mark.parametrize("epsilon", [1e-9, 1e-2])
@pytest.mark.filterwarnings("ignore:Setting")
def test_lrp_agrees_with_captum(epsilon):
    model, inputs = plain(torch.float64), images().double()
    model = nn.Sequential(*list(model)[:6], Rows(), model[7])
    for module in (model[0], model[3], model[7]):
        module.rule = EpsilonRule(epsilon)  # type: ignore[assignment]
    for module in (model[2], model[5], model[6]):
        module.rule = EpsilonRule(1e-30)  # type: ignore[assignment]
    found = attribute(
        model, inputs, TARGETS, method="lrp", convolutions="epsilon", first="same", epsilon=epsilon
    )
    expected = captum.attr.LRP(model).attribute(inputs, target=TARGETS)
    assert isinstance(expected, Tensor)
    # captum divides relevance by small numbers on the way.
    torch.testing.assert_close(found.values, expected.detach(), rtol=1e-6, atol=1e-10)


def test_lrp_without_epsilon_is_input_times_gradient():
    model, inputs = ReusedInPlace().double(), images().double()
    found = attribute(model, inputs, 1, method="lrp", convolutions="epsilon", first="same", epsilon=0.0)
    assert_exact(found.values, attribute(model, inputs, 1, method="input_x_gradient").values)


RULES: list[dict[str, Any]] = [
    {"convolutions": convolutions, "first": first}
    for convolutions in ("epsilon", "z_plus", "alpha2_beta1")
    for first in ("same", "flat", "box")
]


def without_biases(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
                module.bias.zero_()
            if isinstance(module, nn.BatchNorm2d):
                assert module.bias is not None
                assert module.running_mean is not None
                module.bias.zero_()
                module.running_mean.zero_()
    return model


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: "-".join(rules.values()))
def test_lrp_conserves_relevance_where_no_bias_absorbs_it(rules):
    model = without_biases(plain(torch.float64))
    inputs = images().double()
    bounds: dict[str, Any] = {"low": -5, "high": 5} if rules["first"] == "box" else {}
    found = attribute(model, inputs, TARGETS, method="lrp", epsilon=0.0, **rules, **bounds)
    assert found.details["scores"].abs().min() > 1e-4
    assert found.details["conservation_gap"].abs().max() < 1e-10


@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("convolutions", ["epsilon", "z_plus"])
def test_lrp_conserves_relevance_on_stock_networks(network, convolutions):
    model, inputs = stock(network)
    without_biases(model)
    found = attribute(model, inputs, 1, method="lrp", convolutions=convolutions, epsilon=1e-12)
    assert found.values.abs().sum() > 0
    scores = found.details["scores"]
    assert found.details["conservation_gap"].abs().max() < 1e-5 * scores.abs().max()


def test_lrp_tells_what_biases_absorbed():
    found = attribute(plain(torch.float64), images().double(), 1, method="lrp", first="same")
    gap = found.values.sum((1, 2, 3)) - found.details["scores"]
    assert gap.abs().min() > 1e-3
    assert_exact(found.details["conservation_gap"], gap)


def test_lrp_by_hand():
    """Each rule on two layers, neuron by neuron."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten()).double()
    inputs = torch.randn(1, 2, 1, 1, generator=torch.Generator().manual_seed(3)).double()
    first, second = model[0], model[2]
    x = inputs[0, :, 0, 0]
    a = first(inputs)[0, :, 0, 0].detach()  # type: ignore[operator]
    hidden = a.relu()
    w1, b1 = first.weight[:, :, 0, 0].detach(), first.bias.detach()  # type: ignore[union-attr, index, operator]
    w2, b2 = second.weight[:, :, 0, 0].detach(), second.bias.detach()  # type: ignore[union-attr, index, operator]
    final = (w2 @ hidden + b2).relu()
    target = int(final.argmax())
    assert final[target] > 0.01
    parts = w2[target] * hidden
    plus = final[target] * parts.clamp(min=0) / (parts.clamp(min=0).sum() + b2[target].clamp(min=0))
    below = parts.clamp(max=0).sum() + b2[target].clamp(max=0)
    # Without a negative contribution all goes to the positive ones, once.
    both = 2 * plus - final[target] * parts.clamp(max=0) / below if below < 0 else plus
    for convolutions, relevance in (
        ("epsilon", final[target] * parts / (parts.sum() + b2[target])),
        ("z_plus", plus),
        ("alpha2_beta1", both),
    ):
        own = w1 * x
        low, high = -3.0, 4.0
        box = own - w1.clamp(min=0) * low - w1.clamp(max=0) * high
        up, down = own.clamp(min=0), own.clamp(max=0)
        up_sum = up.sum(1) + b1.clamp(min=0)
        down_sum = down.sum(1) + b1.clamp(max=0)
        same = {
            "epsilon": own / (own.sum(1) + b1)[:, None],
            "z_plus": up / up_sum[:, None],
            "alpha2_beta1": torch.where(
                (up_sum > 0)[:, None] & (down_sum < 0)[:, None],
                2 * up / up_sum[:, None] - down / down_sum[:, None],
                torch.where((up_sum > 0)[:, None], up / up_sum[:, None], down / down_sum[:, None]),
            ),
        }[convolutions]
        rules: list[tuple[str, Tensor, dict[str, Any]]] = [
            ("same", same, {}),
            ("flat", torch.full_like(own, 0.5), {}),
            ("box", box / box.sum(1, keepdim=True), {"low": low, "high": high}),
        ]
        for rule, shares, options in rules:
            found = attribute(
                model,
                inputs,
                target,
                method="lrp",
                convolutions=convolutions,
                first=rule,
                epsilon=0.0,
                **options,
            )
            expected = (relevance[:, None] * torch.where(shares.isnan(), 0, shares)).sum(0)
            torch.testing.assert_close(found.values[0, :, 0, 0], expected, rtol=1e-8, atol=1e-12)


def test_lrp_sees_batch_norms_as_part_of_the_layer_before():
    class Merged(nn.Module):
        def __init__(self, model: ReusedInPlace) -> None:
            super().__init__()
            self.steps = nn.ModuleList()
            pairs = [(model.conv1, model.bn1), tuple(model.block1), tuple(model.block2)]
            for conv, norm in pairs:
                self.steps.append(nn.utils.fusion.fuse_conv_bn_eval(conv.eval(), norm.eval()))  # type: ignore[arg-type, type-var]
            self.fc = model.fc

        def forward(self, x: Tensor) -> Tensor:
            x = self.steps[0](x).relu()
            for step in list(self.steps)[1:]:
                x = (step(x) + x).relu()
            return self.fc(x.mean((2, 3)))

    model, inputs = ReusedInPlace().double(), images().double()
    for rules in RULES:
        bounds: dict[str, Any] = {"low": -6, "high": 6} if rules["first"] == "box" else {}
        found = attribute(model, inputs, TARGETS, method="lrp", **rules, **bounds)
        expected = attribute(
            Merged(ReusedInPlace().double()), inputs, TARGETS, method="lrp", **rules, **bounds
        )
        torch.testing.assert_close(found.values, expected.values, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("first", ["flat", "box"])
def test_lrp_passes_relevance_through_the_scaling_of_inputs(first):
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = plain(torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.sub(0.5).div(0.2))

    inputs = torch.rand(2, 3, 14, 14, generator=torch.Generator().manual_seed(0)).double()
    bounds: dict[str, Any] = {"low": 0.0, "high": 1.0} if first == "box" else {}
    found = attribute(Scaled(), inputs, 1, method="lrp", first=first, **bounds)
    bounds = {"low": -2.5, "high": 2.5} if first == "box" else {}
    expected = attribute(Scaled().inner, (inputs - 0.5) / 0.2, 1, method="lrp", first=first, **bounds)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"convolutions": "gamma"}, "convolutions 'gamma': expected"),
        ({"first": "w2"}, "first 'w2': expected"),
        ({"epsilon": -1.0}, "epsilon -1.0: expected"),
        ({"first": "box", "low": 0}, "low, high: one of them lacks"),
        ({"first": "flat", "low": 0, "high": 1}, "no layer has the rule box"),
        ({"first": "box", "low": 0, "high": 1}, "some inputs lie outside"),
    ],
)
def test_lrp_refuses_rules_that_it_lacks(options, message):
    with pytest.raises(InputError, match=message):
        attribute(plain(), images(), method="lrp", **options)


def toy(count: int = 4000) -> tuple[Tensor, Tensor, Tensor]:
    """The toy of Kindermans et al.: a signal and a distractor, each along a direction of its own."""
    generator = np.random.default_rng(0)
    signal = torch.tensor([1.0, 0.0], dtype=torch.float64)
    distractor = torch.tensor([1.0, 1.0], dtype=torch.float64)
    y = torch.from_numpy(generator.uniform(-1, 1, count))
    noise = torch.from_numpy(generator.standard_normal(count))
    return y[:, None] * signal + noise[:, None] * distractor, y, signal


def test_patterns_find_the_signal_and_not_what_the_weights_cancel():
    inputs, y, signal = toy()
    model = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        # The least squares solution must cancel the distractor, so that it points elsewhere than the signal.
        weights = torch.linalg.lstsq(inputs, y[:, None]).solution[:, 0]
        model.weight[0] = weights
    torch.testing.assert_close(weights, torch.tensor([1.0, -1.0], dtype=torch.float64), rtol=0, atol=1e-9)
    patterns = fit_patterns(model, inputs)
    expected = torch.linalg.lstsq(y[:, None], inputs - inputs.mean(0)).solution[0]
    torch.testing.assert_close(patterns.directions[0][0], signal, rtol=0, atol=0.05)
    torch.testing.assert_close(patterns.directions[0][0], expected, rtol=0, atol=0.02)
    found = attribute(model, inputs[:5], 0, method="patternnet", patterns=patterns)
    assert_exact(found.values, y[:5, None] * patterns.directions[0])
    found = attribute(model, inputs[:5], 0, method="pattern_attribution", patterns=patterns)
    assert_exact(found.values.sum(1), y[:5])
    # Nearly all of it goes to the first input, though both weights are as large.
    assert (found.values[:, 1].abs() < 0.05 * found.values[:, 0].abs()).all()


def test_patterns_of_rectified_neurons_follow_the_formula():
    inputs, _, _ = toy()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    patterns = fit_patterns(model, (batch for batch in inputs.split(300)), images_per_forward=77)
    linear = model[0]
    y = linear(inputs).detach()  # type: ignore[operator]
    weights = linear.weight.detach()  # type: ignore[union-attr]
    for neuron in range(3):
        on = y[:, neuron] > 0
        products = (inputs[on] * y[on, neuron, None]).mean(0)
        difference = products - inputs[on].mean(0) * y[:, neuron].mean()
        expected = difference / (weights[neuron] @ difference)
        assert_exact(patterns.directions[0][neuron], expected)
    hidden = y.relu()
    out = model[2](hidden).detach()[:, 0]  # type: ignore[operator]
    covariance = ((hidden - hidden.mean(0)) * (out - out.mean())[:, None]).mean(0)
    torch.testing.assert_close(
        patterns.directions[1][0], covariance / out.var(unbiased=False), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("groups", [1, 3])
def test_patterns_of_convolutions_are_those_of_their_patches(groups):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=groups), nn.BatchNorm2d(6), nn.ReLU(inplace=True)
    ).double()
    with torch.no_grad():
        model.train()(images(16).double())
    inputs = images(16).double()
    patterns = fit_patterns(nn.Sequential(*model, nn.Flatten()), inputs, images_per_forward=5)
    assert patterns.merged == (True,)
    model.eval()
    y = model[1](model[0](inputs)).detach().permute(0, 2, 3, 1).reshape(-1, 6)
    patches = F.unfold(inputs, 3, stride=2, padding=1).transpose(1, 2).reshape(-1, 3, 9)
    for neuron in range(6):
        seen = patches if groups == 1 else patches[:, [neuron // 2]]
        seen = seen.flatten(1)
        on = y[:, neuron] > 0
        difference = (seen[on] * y[on, neuron, None]).mean(0) - seen[on].mean(0) * y[:, neuron].mean()
        direction = patterns.directions[0][neuron].flatten()
        cosine = F.cosine_similarity(direction, difference, dim=0)
        assert cosine > 1 - 1e-12
        norm = model[1]
        scale = norm.weight[neuron] / (norm.running_var[neuron] + norm.eps).sqrt()  # type: ignore[operator, index]
        weight = scale * model[0].weight[neuron].flatten()  # type: ignore[union-attr, index, operator]
        assert float((weight * direction).sum().detach()) == pytest.approx(1)


@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v2"])
def test_patterns_on_stock_networks(network):
    model, inputs = stock(network)
    patterns = fit_patterns(model, images(6, 40).double())
    convolutions = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(patterns.directions) == len(convolutions)
    for method in ("patternnet", "pattern_attribution"):
        found = attribute(model, inputs, 1, method=method, patterns=patterns)
        assert found.values.isfinite().all()
        assert found.values.abs().sum() > 0


def test_patterns_are_the_same_given_ready_or_as_images():
    model, inputs = ReusedInPlace().double(), images().double()
    batch = images(24).double()
    patterns = fit_patterns(model, [batch[:10].numpy(), batch[10:]])
    ready = attribute(model, inputs, 1, method="patternnet", patterns=patterns).values
    assert_exact(attribute(model, inputs, 1, method="patternnet", patterns=batch).values, ready)
    with pytest.raises(InputError, match="patterns: are missing"):
        attribute(model, inputs, 1, method="patternnet")
    with pytest.raises(InputError, match="patterns: were fitted to another model"):
        attribute(plain(torch.float64), inputs, 1, method="pattern_attribution", patterns=patterns)
    with pytest.raises(InputError, match="patterns: are a str; expected a tensor or array"):
        attribute(model, inputs, 1, method="patternnet", patterns="mine")
    with pytest.raises(InputError, match="batches: example 0 holds NaN"):
        fit_patterns(model, [batch * float("nan")])
    with pytest.raises(InputError, match="patterns: nothing to fit"):
        fit_patterns(model, [])


def test_fitting_patterns_leaves_the_model_as_it_was():
    model = ReusedInPlace()
    model.conv1.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    with torch.inference_mode():
        fit_patterns(model, images(8))
    assert model.training
    assert not model.conv1.weight.requires_grad
    assert model.fc.weight.requires_grad
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
