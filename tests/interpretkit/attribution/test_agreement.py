"""Values checked from outside: by captum, by identities, and by hand."""

import math
import sys
from pathlib import Path

import captum.attr
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interpretkit.attribution import attribute
from interpretkit.errors import InputError

# The tests are imported by path, so that the shared networks must be found by hand.
sys.path.insert(0, str(Path(__file__).parent))
from attribution_networks import Functional, NotInPlace, ReusedInPlace, images, plain

TARGETS = torch.tensor([3, 0, 2])


def assert_exact(found: Tensor, expected: Tensor) -> None:
    """Equal up to the order of summation in double precision."""
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("make", [plain, NotInPlace])
@pytest.mark.parametrize(
    ("method", "peer"),
    [
        ("saliency", captum.attr.Saliency),
        ("input_x_gradient", captum.attr.InputXGradient),
        ("guided_backprop", captum.attr.GuidedBackprop),
        ("deconvnet", captum.attr.Deconvolution),
    ],
)
@pytest.mark.filterwarnings("ignore:Setting")
@pytest.mark.filterwarnings("ignore:Input Tensor")
def test_gradients_agree_with_captum(make, method, peer):
    model, inputs = make().double().eval(), images().double()
    found = attribute(model, inputs, TARGETS, method=method).values
    assert_exact(found, peer(model).attribute(inputs.clone().requires_grad_(), target=TARGETS).detach())


@pytest.mark.parametrize(
    ("rule", "peers_rule"), [("gauss-legendre", "gausslegendre"), ("midpoint", "riemann_middle")]
)
def test_integrated_gradients_agree_with_captum(rule, peers_rule):
    model, inputs = plain(torch.float64), images().double()
    baseline = torch.full_like(inputs, 0.3)
    expected, gap = captum.attr.IntegratedGradients(model).attribute(
        inputs, baseline, TARGETS, n_steps=20, method=peers_rule, return_convergence_delta=True
    )
    for given in (0.3, baseline, baseline[0], baseline[:1].numpy(), np.float64(0.3)):
        found = attribute(
            model, inputs, TARGETS, method="integrated_gradients", steps=20, baseline=given, rule=rule
        )
        # captum rounds its steps to single precision.
        torch.testing.assert_close(found.values, expected, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(found.details["completeness_gap"], gap, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("layer", "number"), [("3", 3), ("0", 0), ("4", 4), (None, 3)])
def test_gradcam_agrees_with_captum(layer, number):
    model, inputs = plain(torch.float64), images().double()
    peer = captum.attr.LayerGradCam(model, model[number])
    expected = peer.attribute(inputs, TARGETS, relu_attributions=True)
    assert isinstance(expected, Tensor)
    found = attribute(model, inputs, TARGETS, method="gradcam", layer=layer, upsample=False)
    assert_exact(found.values, expected.detach())
    assert found.details["layer"] == str(number)
    enlarged = captum.attr.LayerAttribution.interpolate(expected, (14, 14), "bilinear").detach()
    assert_exact(attribute(model, inputs, TARGETS, method="gradcam", layer=layer).values, enlarged)


def test_guided_gradcam_agrees_with_captum():
    model, inputs = plain(torch.float64), images().double()
    peer = captum.attr.GuidedGradCam(model, model[3])
    expected = peer.attribute(inputs, TARGETS, interpolate_mode="bilinear")
    assert isinstance(expected, Tensor)
    found = attribute(model, inputs, TARGETS, method="guided_gradcam", layer="3")
    assert_exact(found.values, expected.detach())
    assert found.values.abs().sum() > 0


@pytest.mark.parametrize(("window", "stride"), [(5, 4), (4, 4), (3, 1), ((5, 2), (3, 2))])
def test_occlusion_agrees_with_captum(window, stride):
    model, inputs = plain(), images()
    sides, steps = ((w, w) if isinstance(w, int) else w for w in (window, stride))
    expected = captum.attr.Occlusion(model).attribute(
        inputs, (3, *sides), (3, *steps), baselines=0.2, target=TARGETS, perturbations_per_eval=8
    )
    found = attribute(model, inputs, TARGETS, method="occlusion", window=window, stride=stride, baseline=0.2)
    torch.testing.assert_close(found.values.expand_as(inputs), expected, rtol=1e-4, atol=1e-7)


def test_occlusion_costs_a_forward_for_each_window():
    model, seen = plain(), []
    model[0].register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    found = attribute(model, images(2, 56), 0, method="occlusion")
    # Windows of 8 by steps of 4: 13 × 13, beside the pass without any.
    assert found.details["windows"] == 169
    assert sum(seen) == 2 * 170


@pytest.mark.parametrize("make", [plain, ReusedInPlace])
def test_integrated_gradients_are_complete(make):
    model, inputs = make().double(), images().double()
    gaps = []
    for steps in (8, 64, 512):
        found = attribute(model, inputs, method="integrated_gradients", steps=steps)
        moved = found.details["scores"] - found.details["baseline_scores"]
        gap = found.values.sum((1, 2, 3)) - moved
        assert_exact(found.details["completeness_gap"], gap)
        gaps.append(gap.abs().max().item() / moved.abs().max().item())
    # The kinks of the ReLUs are met one by one, so that the gap falls with the steps' first power.
    assert gaps[2] < 3e-3
    assert gaps[2] < gaps[1] < gaps[0]


@pytest.mark.parametrize("rule", ["gauss-legendre", "midpoint"])
def test_integrated_gradients_are_exact_where_their_rule_is(rule):
    class Quadratic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 5, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).square().mean((2, 3))

    found = attribute(Quadratic(), images().double(), method="integrated_gradients", steps=1, rule=rule)
    assert found.details["scores"].min() > 0.1
    assert found.details["completeness_gap"].abs().max() < 1e-14


def test_on_a_linear_model_everything_is_the_weight():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 4)).double()
    inputs = images(2, 6).double()
    weights = model[1].weight[2].detach().reshape(1, 3, 6, 6)  # type: ignore[union-attr]
    expected = {
        "saliency": weights.abs().expand_as(inputs),
        "smoothgrad": weights.expand_as(inputs),
        "input_x_gradient": weights * inputs,
        "integrated_gradients": weights * inputs,
    }
    for method, values in expected.items():
        assert_exact(attribute(model, inputs, 2, method=method).values, values)
    found = attribute(model, inputs, 2, method="integrated_gradients", steps=1).details["completeness_gap"]
    assert found.abs().max() < 1e-13
    dropped = attribute(model, inputs, 2, method="occlusion", window=1, stride=1)
    assert_exact(dropped.values, (weights * inputs).sum(1, keepdim=True))


def test_lime_recovers_a_linear_model_of_segments():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 4)).double()
    inputs = images(2, 6).double()
    segments = np.arange(6)[:, None] // 2 * 3 + np.arange(6)[None] // 2 + 10
    found = attribute(
        model, inputs, 1, method="lime", segments=segments, samples=200, ridge=0.0, probabilities=False
    )
    weights = model[1].weight[1].detach().reshape(3, 6, 6)  # type: ignore[union-attr]
    for row, image in enumerate(inputs):
        for number in np.unique(segments):
            inside = torch.from_numpy(segments == number)
            fill = image[:, inside].mean(1, keepdim=True)
            drop = (weights[:, inside] * (image[:, inside] - fill)).sum()
            assert_exact(found.values[row, 0][inside], drop.expand(4))
    assert found.details["r2"] == pytest.approx([1, 1])
    assert found.details["segments"].unique().tolist() == list(range(9))


def test_lime_finds_segments_by_quickshift():
    inputs = torch.zeros(1, 3, 64, 64)
    inputs[:, 0, :, 32:] = 1
    inputs[:, 1, 32:] = 1
    inputs += 0.02 * images(1, 64)
    segments = attribute(plain(), inputs, 0, method="lime", samples=10).details["segments"][0]
    corners = [set(part.unique().tolist()) for half in segments.split(32) for part in half.split(32, 1)]
    assert len(set.union(*corners)) == sum(map(len, corners))


def test_rise_finds_the_weights_of_a_linear_model():
    # The mean over many masks of M (a · M) is a Gram matrix of the masks times a; its peak is a's.
    model = nn.Sequential(nn.Flatten(), nn.Linear(16 * 16, 1, bias=False)).double()
    with torch.no_grad():
        model[1].weight.zero_()  # type: ignore[union-attr]
        model[1].weight[0, 5 * 16 + 11] = 1  # type: ignore[union-attr]
    found = attribute(model, torch.ones(1, 1, 16, 16).double(), 0, method="rise", samples=1500, cells=8)
    row, column = divmod(int(found.values.argmax()), 16)
    assert math.hypot(row - 5, column - 11) <= 2
    # Far from the weight the mask is independent of the score, whose mean is that of a mask's value.
    assert found.values[0, 0, 12:, :5].mean() == pytest.approx(0.5, abs=0.06)


class LinearHead(nn.Module):
    """Global average pooling and a linear layer on a convolution: the case of CAM (Zhou et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).mean((2, 3)))


def test_cams_by_hand():
    model, inputs = LinearHead().double(), images().double()
    maps = model.conv(inputs).detach()
    positions = maps[0, 0].numel()
    weights = model.fc.weight[1].detach()[None, :, None, None]
    gradients = weights / positions

    def found(method: str, rectify: bool = True) -> Tensor:
        return attribute(model, inputs, 1, method=method, upsample=False, rectify=rectify).values

    cam = (weights * maps).sum(1, keepdim=True) / positions
    assert_exact(found("gradcam", rectify=False), cam)
    assert_exact(found("gradcam"), cam.relu())
    assert_exact(found("layercam"), (gradients.relu() * maps).sum(1, keepdim=True).relu())
    sums = maps.relu().sum((2, 3), keepdim=True)
    shares = gradients**2 / (2 * gradients**2 + gradients**3 * sums)
    plus = (positions * shares * gradients.relu() * maps).sum(1, keepdim=True).relu()
    assert_exact(found("gradcam_plus_plus"), plus)


def test_the_activation_is_the_layers_even_if_changed_in_place_later():
    inputs = images().double()
    for name in ("bn1", "block2.1", "block2.0"):
        found = attribute(ReusedInPlace().double(), inputs, 1, method="gradcam", layer=name, rectify=False)
        expected = attribute(
            NotInPlace().double(), inputs, 1, method="gradcam", layer=f"same.{name}", rectify=False
        )
        assert_exact(found.values, expected.values)


def test_of_a_reused_layer_the_last_run_counts():
    inputs = images().double()
    reused = attribute(ReusedInPlace().double(), inputs, 1, method="gradcam", layer="relu")
    single = attribute(NotInPlace().double(), inputs, 1, method="gradcam", layer="relus.2")
    assert_exact(reused.values, single.values)


@pytest.mark.parametrize("method", ["saliency", "guided_backprop", "deconvnet", "gradcam", "layercam"])
@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v2"])
def test_stock_networks_of_torchvision(method, network):
    """As they stand, and with nothing done in place."""
    import torchvision

    torch.manual_seed(0)
    model = getattr(torchvision.models, network)(weights=None, num_classes=5).double()
    inputs = images(2, 40).double()
    found = attribute(model, inputs, 1, method=method)
    assert model.training
    assert found.values.abs().sum() > 0
    for module in model.modules():
        if isinstance(module, (nn.ReLU, nn.ReLU6)):
            module.inplace = False
    assert_exact(found.values, attribute(model, inputs, 1, method=method).values)


def test_the_default_layer_is_the_last_convolution_to_run_over_a_map():
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.classify = nn.Conv2d(4, 3, 1)
            self.last = nn.Conv2d(4, 4, 3)
            self.first = nn.Conv2d(3, 4, 3)
            self.never = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.last(self.first(x).relu()).relu()
            return self.classify(x.mean((2, 3), keepdim=True)).flatten(1)

    found = attribute(Backwards(), images(), method="gradcam")
    assert found.details["layer"] == "last"
    assert torch.equal(found.values, attribute(Backwards(), images(), method="gradcam", layer="last").values)
    with pytest.raises(InputError, match="layer 'never': does not run"):
        attribute(Backwards(), images(), method="gradcam", layer="never")
    with pytest.raises(InputError, match="no convolution to take by default"):
        attribute(nn.Sequential(nn.Flatten(), nn.Linear(588, 2)), images(), method="gradcam")


@pytest.mark.parametrize("last", range(9))
def test_the_default_layer_is_found_wherever_it_was_registered(last):
    class Rotated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.steps = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(9))

        def forward(self, x: Tensor) -> Tensor:
            for step in [*self.steps[last + 1 :], *self.steps[: last + 1]]:
                x = step(x).relu()
            return x.mean((2, 3))

    model, inputs = Rotated().double(), images(4).double()
    found = attribute(model, inputs, 1, method="gradcam", rectify=False, images_per_forward=2)
    assert found.details["layer"] == f"steps.{last}"
    named = attribute(model, inputs, 1, method="gradcam", layer=f"steps.{last}", rectify=False)
    assert_exact(found.values, named.values)


def test_gradcam_costs_the_backward_pass_of_the_head_only():
    model, visited = plain(), []
    model[0].register_forward_hook(lambda *found: visited.append(found[2].requires_grad))
    attribute(model, images(), method="gradcam", layer="3")
    assert visited == [False]  # one forward pass, and no graph below the layer
    # By default the layer is looked for once.
    visited.clear()
    attribute(model, images(), method="gradcam")
    attribute(model, images(), method="gradcam")
    assert visited == [True, False, False]


def test_layers_of_tokens_are_reshaped():
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = plain(torch.float64)[0]
            self.tokens = nn.Identity()
            self.fc = nn.Linear(6, 4).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.tokens(self.conv(x).flatten(2).transpose(1, 2)).relu().mean(1))

    model, inputs = Tokens(), images().double()
    with pytest.raises(InputError, match=r"layer 'tokens': gives \(3, 196, 6\); expected .* option reshape"):
        attribute(model, inputs, 1, method="gradcam", layer="tokens")
    found = attribute(
        model,
        inputs,
        1,
        method="gradcam",
        layer="tokens",
        reshape=lambda tokens: tokens.transpose(1, 2).unflatten(2, (14, 14)),
    )
    assert_exact(found.values, attribute(model, inputs, 1, method="gradcam", layer="conv").values)


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
def test_rectifiers_of_every_kind_are_met(method):
    """The same function, written in seven ways."""
    forms = [
        nn.ReLU(),
        nn.ReLU(inplace=True),
        F.relu,
        lambda x: F.relu(x, inplace=True),
        torch.relu,
        lambda x: x.relu(),
        lambda x: x.relu_(),
        lambda x: torch.relu_(x.view_as(x)),
    ]

    class Form(nn.Module):
        def __init__(self, relu) -> None:
            super().__init__()
            self.same = plain(torch.float64)
            self.relu = relu

        def forward(self, x: Tensor) -> Tensor:
            for module in self.same:  # type: ignore[union-attr]
                x = self.relu(x) if isinstance(module, nn.ReLU) else module(x)
            return x

    inputs = images().double()
    values = [attribute(Form(form), inputs, 1, method=method).values for form in forms]
    for other in values[1:]:
        assert torch.equal(other, values[0])


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
@pytest.mark.parametrize("form", ["whole", "part", "slices", "keyword"])
def test_rectifiers_that_write_through_views_are_met(method, form):
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same = plain(torch.float64)

        def relu(self, x: Tensor) -> Tensor:
            if form == "whole":
                x.view(len(x), -1).relu_()
            elif form == "part":
                x[:, :3].relu_()
                return torch.cat([x[:, :3], F.relu(x[:, 3:])], 1)
            elif form == "slices":
                for row in range(x.shape[2]):
                    x[:, :, row] = F.relu(x[:, :, row].clone(), inplace=True)
            else:
                return torch.relu(input=x)
            return x

        def forward(self, x: Tensor) -> Tensor:
            for module in self.same:  # type: ignore[union-attr]
                x = self.relu(x) if isinstance(module, nn.ReLU) else module(x)
            return x

    inputs = images().double()
    for some in (inputs, inputs[:1]):
        expected = attribute(plain(torch.float64), some, 1, method=method).values
        assert_exact(attribute(Views(), some, 1, method=method).values, expected)


def test_guided_backprop_of_a_capped_relu():
    """What reaches the cap passes nothing back, as the ReLU6 of MobileNet has it."""
    for relu in (nn.ReLU6(), nn.ReLU6(inplace=True), F.relu6):

        class Capped(nn.Module):
            def forward(self, x: Tensor, relu=relu) -> Tensor:
                return relu(x * torch.tensor([1.0, 1, 1, -1])) @ torch.tensor(
                    [[1.0, -1], [1, 1], [1, 1], [1, 1]]
                )

        inputs = torch.tensor([[2.0, 7.0, -1.0, -3.0]])
        assert attribute(Capped(), inputs, 0, method="guided_backprop").values.tolist() == [[1, 0, 0, -1]]
        assert attribute(Capped(), inputs, 1, method="guided_backprop").values.tolist() == [[0, 0, 0, -1]]
        assert attribute(Capped(), inputs, 1, method="deconvnet").values.tolist() == [[0, 1, 1, -1]]


def test_meaningful_perturbation_takes_the_score_away():
    model = plain(torch.float64)
    found = attribute(
        model, 2 * images(2, 32).double(), method="meaningful_perturbation", iterations=40, coarseness=4
    )
    assert (found.details["perturbed_scores"] < found.details["scores"]).all()
    assert ((found.values >= 0) & (found.values <= 1)).all()


def test_models_of_one_output():
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same = plain()

        def forward(self, x: Tensor) -> Tensor:
            return self.same(x)[:, 0]

    found = attribute(Single(), images(), method="saliency")
    assert torch.equal(found.values, attribute(plain(), images(), 0, method="saliency").values)


def test_models_with_tuples_are_refused():
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    with pytest.raises(InputError, match="model: gives a tuple; expected one tensor"):
        attribute(Pair(), images(), method="saliency")


def test_a_model_built_in_inference_mode_is_refused():
    with torch.inference_mode():
        model = Functional()
    with pytest.raises(InputError, match=r"built under torch\.inference_mode"):
        attribute(model, images(), method="saliency")


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("integrated_gradients", {"steps": 0}, "steps 0: expected a whole number of at least 1"),
        ("integrated_gradients", {"steps": 2.5}, "steps 2.5: expected a whole number"),
        ("integrated_gradients", {"rule": "simpson"}, "rule 'simpson': expected"),
        ("integrated_gradients", {"baseline": np.ones(5)}, r"baseline: has shape \(5,\)"),
        ("integrated_gradients", {"baseline": float("nan")}, "baseline: holds NaN"),
        ("smoothgrad", {"samples": 0}, "samples 0: expected a whole number"),
        ("smoothgrad", {"noise": -0.1}, "noise -0.1: expected"),
        ("occlusion", {"window": 15}, "window 15: the inputs are 14 wide"),
        ("occlusion", {"window": 3, "stride": 4}, "stride 4: leaves gaps"),
        ("occlusion", {"window": (3, 3, 3)}, "window .*: expected one or 2 whole numbers"),
        ("rise", {"keep": 1.0}, "keep 1.0: expected"),
        ("rise", {"samples": 0}, "samples 0: expected"),
        ("lime", {"samples": 1}, "samples 1: expected"),
        ("lime", {"segments": np.zeros((3, 3), int)}, "segments: have shape"),
        ("lime", {"kernel_width": 0.0}, "kernel_width 0.0"),
        ("meaningful_perturbation", {"coarseness": 0}, "coarseness 0: expected"),
        ("meaningful_perturbation", {"rate": 0.0}, "rate, mask_blur, image_blur: expected above 0"),
    ],
)
def test_options_out_of_range(method, options, message):
    with pytest.raises(InputError, match=message):
        attribute(plain(), images(), 0, method=method, **options)
