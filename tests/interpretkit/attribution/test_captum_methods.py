"""Methods that come from captum: equal to captum's own where it can explain, and what captum cannot."""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from interpretkit.attribution import METHODS, attribute
from interpretkit.attribution.captum_methods import ENTRIES
from interpretkit.errors import InputError

sys.path.insert(0, str(Path(__file__).parent))
from attribution_networks import ReusedInPlace, images, plain

LAYER, PLACE = "3", (2, 4, 3)


@pytest.fixture
def network() -> nn.Sequential:
    # Average pooling, for captum's DeepLIFT does not share a max pooling rightly.
    layers = list(plain(torch.float64))
    return nn.Sequential(*layers[:2], nn.AvgPool2d(2), *layers[3:]).eval()


def close(found: Tensor, expected: Any) -> None:
    torch.testing.assert_close(found, expected.detach(), rtol=1e-7, atol=1e-11)


BASELINE = 0.1 * images(1).double()
WALK = {"n_steps": 7, "method": "riemann_trapezoid"}
OURS = {"steps": 7, "quadrature": "riemann_trapezoid", "baseline": BASELINE[0].numpy()}


def of_layer(name: str, model: nn.Sequential) -> Any:
    return getattr(captum.attr, name)(model, model[int(LAYER)])


@pytest.mark.parametrize(
    ("method", "options", "captums"),
    [
        ("layer_activation", {}, {}),
        ("layer_gradient_x_activation", {}, {}),
        ("layer_conductance", OURS, {"baselines": BASELINE, **WALK}),
        ("internal_influence", OURS, {"baselines": BASELINE, **WALK}),
        ("layer_integrated_gradients", OURS, {"baselines": BASELINE, **WALK}),
        ("layer_deeplift", {"baselines": BASELINE}, {"baselines": BASELINE}),
        ("layer_deeplift_shap", {"baselines": images(2).double()}, {"baselines": images(2).double()}),
        ("layer_feature_ablation", {"fill": 0.3}, {"layer_baselines": 0.3}),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_layers_as_in_captum(network, method, options, captums):
    inputs = images(2).double()
    if method == "layer_feature_ablation":
        captums = {**captums, "layer_mask": torch.arange(49).reshape(1, 1, 7, 7).expand(1, 8, 7, 7)}
    if method != "layer_activation":
        captums = {**captums, "target": 1}
    expected = of_layer(ENTRIES[method].captum, network).attribute(inputs, **captums)
    found = attribute(network, inputs, 1, method=method, layer=LAYER, upsample=False, **options)
    close(found.values, expected)
    assert found.details["layer"] == LAYER
    shown = attribute(network, inputs, 1, method=method, layer=LAYER, **options).values
    assert shown.shape == (2, 1, 14, 14)


@pytest.mark.parametrize(
    ("method", "options", "captums"),
    [
        ("neuron_gradient", {}, {}),
        ("neuron_integrated_gradients", OURS, {"baselines": BASELINE, **WALK}),
        ("neuron_conductance", OURS, {"baselines": BASELINE, "target": 1, **WALK}),
        ("neuron_deeplift", {"baselines": BASELINE}, {"baselines": BASELINE}),
        ("neuron_deeplift_shap", {"baselines": images(2).double()}, {"baselines": images(2).double()}),
        ("neuron_guided_backprop", {}, {}),
        ("neuron_deconvnet", {}, {}),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_neurons_as_in_captum(network, method, options, captums):
    inputs = images(2).double()
    expected = of_layer(ENTRIES[method].captum, network).attribute(inputs, PLACE, **captums)
    found = attribute(network, inputs, 1, method=method, layer=LAYER, neuron=PLACE, **options)
    close(found.values, expected)
    assert found.details["neuron"] == [list(PLACE)] * 2


@pytest.mark.filterwarnings("ignore")
def test_inputs_as_in_captum(network):
    inputs = images(2).double()
    groups = np.arange(14)[:, None] // 7 * 2 + np.arange(14)[None] // 7
    mask = torch.from_numpy(groups)[None, None].repeat(1, 3, 1, 1)
    for method in ("feature_ablation", "shapley_values"):
        own = getattr(captum.attr, ENTRIES[method].captum)(network)
        expected = own.attribute(inputs, baselines=0.2, target=1, feature_mask=mask)
        found = attribute(network, inputs, 1, method=method, segments=groups, baseline=0.2)
        # captum adds Shapley values up in single precision.
        torch.testing.assert_close(
            found.values.float(), expected[:, :1].detach().float(), rtol=1e-5, atol=1e-7
        )
    baselines = images(3).double()
    expected = captum.attr.DeepLiftShap(network).attribute(inputs, baselines=baselines, target=1)
    close(attribute(network, inputs, 1, method="deeplift_shap", baselines=baselines).values, expected)
    expected = of_layer("NeuronFeatureAblation", network).attribute(
        inputs, PLACE, baselines=0.2, feature_mask=mask
    )
    found = attribute(
        network,
        inputs,
        method="neuron_feature_ablation",
        layer=LAYER,
        neuron=PLACE,
        segments=groups,
        baseline=0.2,
    )
    close(found.values, expected[:, :1])


@pytest.mark.filterwarnings("ignore")
def test_random_ones_as_in_captum_of_a_single_example(network):
    from interpretkit.training.seeds import derive_seed

    inputs, baselines = images(1).double(), 0.3 * images(3).double()
    for method, own, layer in (
        ("gradient_shap", captum.attr.GradientShap(network), {}),
        ("layer_gradient_shap", of_layer("LayerGradientShap", network), {"layer": LAYER, "upsample": False}),
    ):
        seed = derive_seed(5, "captum", method)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.manual_seed(seed % 2**63)
        expected = own.attribute(inputs, baselines=baselines, target=1, n_samples=6, stdevs=0.1)
        found = attribute(
            network, inputs, 1, method=method, samples=6, deviation=0.1, baselines=baselines, seed=5, **layer
        )
        close(found.values, expected)


def test_shapley_values_are_those_of_the_definition():
    table = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    rows = torch.randn(2, 4, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    found = attribute(table, rows, 1, method="shapley_values", baseline=0.5)
    for row, values in zip(rows, found.values, strict=True):
        expected = torch.zeros(4, dtype=torch.double)
        for order in itertools.permutations(range(4)):
            now = torch.full((4,), 0.5, dtype=torch.double)
            before = table(now)[1].detach()
            for feature in order:
                now[feature] = row[feature]
                after = table(now)[1].detach()
                expected[feature] += (after - before) / 24
                before = after
        # captum adds up in single precision.
        torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-7)
    sampled = attribute(table, rows, 1, method="shapley_value_sampling", baseline=0.5, samples=400)
    assert (sampled.values - found.values).abs().max() < 0.2 * found.values.abs().max()
    # Any number of orders shares out the whole difference.
    drop = table(rows)[:, 1].detach() - table(torch.full((4,), 0.5, dtype=torch.double))[1].detach()
    torch.testing.assert_close(sampled.values.sum(1), drop, rtol=1e-5, atol=1e-6)


def test_what_passes_a_layer_sums_to_the_difference():
    """On networks with reused modules, for which captum's DeepLIFT fails."""
    model, inputs = ReusedInPlace().double(), images(2).double()
    base = model.eval()(torch.zeros(1, 3, 14, 14, dtype=torch.double))[:, 1].detach()
    moved = model(inputs)[:, 1].detach() - base
    for layer in ("conv1", "fc"):
        for method in ("layer_deeplift", "layer_conductance", "layer_integrated_gradients"):
            steps = {} if method == "layer_deeplift" else {"steps": 200}
            found = attribute(model, inputs, 1, method=method, layer=layer, upsample=False, **steps)
            tolerance = 1e-8 if method == "layer_deeplift" else 2e-2 * float(moved.abs().max())
            assert (found.values.flatten(1).sum(1) - moved).abs().max() < tolerance
    relevance = attribute(model, inputs, 1, method="layer_lrp", layer="fc", upsample=False).values
    expected = torch.zeros(2, 5, dtype=torch.double)
    expected[:, 1] = model(inputs)[:, 1].detach()
    close(relevance, expected)


def test_neurons_are_chosen_by_strength_or_by_channel():
    model, inputs = plain(torch.float64), images(2).double()
    values = model[:4](inputs).detach()
    found = attribute(model, inputs, method="neuron_gradient", layer="3")
    for row, place in enumerate(found.details["neuron"]):
        assert values[row][tuple(place)] == values[row].max()
    found = attribute(model, inputs, method="neuron_gradient", layer="3", neuron=5)
    for row, place in enumerate(found.details["neuron"]):
        assert place[0] == 5
        assert values[row][tuple(place)] == values[row, 5].max()
    found = attribute(model, inputs, method="neuron_gradient", layer="7", neuron=2)
    close(found.values, attribute(model, inputs, 2, method="saliency", absolute=False).values)
    # Of equals the first, whatever rounding says.
    same = torch.zeros(1, 3, 14, 14, dtype=torch.double)
    assert attribute(
        model[:2], same, lambda o: o.sum((1, 2, 3)), method="neuron_gradient", layer="0"
    ).details["neuron"] == [[int(model[0].bias.argmax()), 0, 0]]  # type: ignore[union-attr, operator]


def test_the_variance_of_a_linear_model_s_gradient_is_zero():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 14 * 14, 2)).double()
    found = attribute(linear, images().double(), 0, method="noise_tunnel", samples=5)
    assert found.values.abs().max() < 1e-12
    squares = attribute(linear, images().double(), 0, method="noise_tunnel", kind="smoothgrad_sq", samples=5)
    close(squares.values, attribute(linear, images().double(), 0, method="saliency").values.square())


def test_features_of_tables():
    table = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    rows = torch.randn(3, 6, dtype=torch.double)
    found = attribute(table, rows, 1, method="feature_ablation", segments=np.array([0, 0, 1, 1, 2, 2]))
    assert found.values.shape == (3, 6)
    assert torch.equal(found.values[:, ::2], found.values[:, 1::2])
    other = rows.clone()
    other[:, :2] = 0
    close(found.values[:, 0], table(rows)[:, 1] - table(other)[:, 1])


def test_every_class_of_captum_is_a_method_or_has_another_name_here():
    known = {entry.captum for entry in ENTRIES.values()}
    here = {
        "IntegratedGradients": "integrated_gradients",
        "DeepLift": "deeplift",
        "InputXGradient": "input_x_gradient",
        "Saliency": "saliency",
        "GuidedBackprop": "guided_backprop",
        "Deconvolution": "deconvnet",
        "GuidedGradCam": "guided_gradcam",
        "Occlusion": "occlusion",
        "Lime": "lime",
        "KernelShap": "kernel_shap",
        "LRP": "lrp",
        "LayerGradCam": "gradcam",
    }
    assert set(here.values()) <= set(METHODS)
    # Language models, bases of classes, and loaders of data are no methods for a network and its inputs.
    others = {"LimeBase", "DataLoaderAttribution"}
    bases = {
        "Attribution",
        "GradientAttribution",
        "PerturbationAttribution",
        "NeuronAttribution",
        "LayerAttribution",
    }
    found = {
        name
        for name in captum.attr.__all__
        if isinstance(getattr(captum.attr, name), type)
        and issubclass(getattr(captum.attr, name), captum.attr.Attribution)
        and "LLM" not in name
    }
    assert found - bases - others == known | set(here)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("gradient_shap", {"samples": 0}, "samples 0: expected a whole number of at least 1"),
        ("gradient_shap", {"deviation": -1.0}, "deviation -1.0: expected"),
        ("gradient_shap", {"baselines": np.zeros((2, 5))}, r"baselines: have shape \(2, 5\)"),
        (
            "layer_conductance",
            {"quadrature": "simpson"},
            "quadrature 'simpson': expected one of gausslegendre",
        ),
        ("layer_conductance", {"layer": "7"}, "which has no places; expected .* or upsample=False"),
        ("feature_permutation", {}, "reference: is missing"),
        ("feature_permutation", {"reference": images(2, 10)}, r"reference: has shape \(2, 3, 10, 10\)"),
        ("shapley_values", {"segments": np.arange(196).reshape(14, 14)}, "are 196; shapley_values tries all"),
        (
            "neuron_gradient",
            {"layer": "3", "neuron": (1, 99, 0)},
            r"neuron \(1, 99, 0\): layer '3' gives \(8, 7, 7\)",
        ),
        ("neuron_gradient", {"layer": "3", "neuron": 8}, "neuron 8: layer '3' gives"),
        ("neuron_gradient", {"neuron": "3"}, "neuron '3': expected a channel, or an index"),
        ("neuron_gradient", {"neuron": True}, "neuron True: expected"),
        ("noise_tunnel", {"kind": "loud"}, "kind 'loud': expected one of vargrad"),
        ("layer_feature_ablation", {"features": "pixels"}, "features 'pixels': expected one of positions"),
        ("layer_feature_ablation", {"fill": np.zeros(5)}, r"fill: has shape \(5,\)"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_a_line(method, options, message):
    with pytest.raises(InputError, match=message) as caught:
        attribute(plain(), images(), 0, method=method, **options)
    assert "\n" not in str(caught.value)


def test_a_recurring_layer_counts_by_its_last_run():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(torch.relu_(self.conv(x))).relu_().mean((2, 3))

    model, inputs = Twice().double(), images(2).double()
    with torch.no_grad():
        last = model.conv(model.conv(inputs).relu())
    found = attribute(model, inputs, 0, method="layer_activation", layer="conv", upsample=False)
    close(found.values, last)
    ablated = attribute(model, inputs, 0, method="layer_feature_ablation", layer="conv", upsample=False)
    close(ablated.values[:, 0], last[:, 0].relu() / 196)


class Colours(nn.Module):
    """Looks for red, against blue, wherever they are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(3)[:, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        red, _, blue = self.conv(x).relu().mean((2, 3)).unbind(1)
        return torch.stack([red - blue, blue - red], 1)


def tinted(channel: int, n: int = 20) -> Tensor:
    found = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(channel)).double()
    found[:, channel] += 1
    return found


def test_tcav_finds_the_concepts_that_matter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(9)).double() + 0.1
    shown = {"red": tinted(0), "blue/../": tinted(2)}
    grey = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(8)).double()
    found = attribute(
        Colours().double(), inputs, 0, method="tcav", layer="conv", concepts=shown, reference=grey
    )
    assert found.details["concepts"] == ["red", "blue/../"]
    np.testing.assert_array_equal(found.details["tcav_scores"], [1.0, 0.0])
    assert (found.details["accuracies"] > 0.9).all()
    assert found.values.shape == (4, 2, 8, 8)
    # Maps are the parts of the sensitivities, here without a change of size.
    close(found.values.sum((2, 3)), found.details["sensitivities"])
    assert not list(tmp_path.iterdir())


def test_tcav_is_the_derivative_along_the_direction():
    from interpretkit.attribution import concepts as ours

    inputs = images(6).double()
    model, shown = plain(torch.float64).eval(), {"one": images(12).double()[:6] + 0.5}
    grey = images(12).double()[6:]
    found = attribute(
        model, inputs, 1, method="tcav", layer="3", concepts=shown, reference=grey, upsample=False
    )
    layer_gradients = captum.attr.LayerGradientXActivation(model, model[3], multiply_by_inputs=False)
    gradients = layer_gradients.attribute(inputs, target=1)
    assert isinstance(gradients, Tensor)
    gradients = gradients.detach().flatten(1)
    values = model[:4](torch.cat([shown["one"], grey])).detach().flatten(1).numpy()
    weights, classes, _ = ours._separated(values, np.repeat([1, 0], 6))
    expected = gradients @ torch.from_numpy(weights[classes.index(1)])
    close(found.values[:, 0], expected)
    assert found.details["tcav_scores"][0] == float((expected > 0).double().mean())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "concepts: are missing"),
        ({"concepts": {"a": images(5)}}, "reference: is missing"),
        (
            {"concepts": {"a": images(2)}, "reference": images(5)},
            "concepts 'a': have shape .*; expected at least 3",
        ),
        ({"concepts": {"a": images(5, 10)}, "reference": images(5)}, "concepts 'a': have shape"),
    ],
)
def test_tcav_refuses_in_a_line_what_it_cannot_learn_from(options, message):
    with pytest.raises(InputError, match=message):
        attribute(plain(), images(), 0, method="tcav", **options)


def test_captum_is_loaded_only_when_it_is_asked():
    code = "import sys, interpretkit.attribution; print('captum' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


class Branches(nn.Module):
    """Its last map is a concatenation, which no module gives; rectified in place afterwards."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(5, 4)
        self.join = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        early = torch.cat([x, x], 1)[:, :3]
        joined = self.join(torch.cat([self.a(early).relu(), self.b(early)], 1))
        return self.head(joined.tanh().mean((2, 3)))


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.takes_layer])
def test_a_function_is_a_layer_like_any_other(method):
    model, inputs = Branches().double(), images(2).double()
    options: dict[str, Any] = {}
    if "reference" in METHODS[method].options:
        options["reference"] = images(4).double()
    if method == "tcav":
        options["concepts"] = {"bright": images(4).double() + 1}
    if "segments" in METHODS[method].options:
        options["segments"] = np.arange(14)[:, None] // 7 * 2 + np.arange(14)[None] // 7
    if method == "guided_gradcam":
        pytest.skip("says where by another method")
    found = attribute(model, inputs, 1, method=method, layer="cat()#2", **options)
    expected = attribute(model, inputs, 1, method=method, layer="join", **options)
    assert found.details["layer"] == "cat()#2"
    assert found.values.abs().sum() > 0
    torch.testing.assert_close(found.values, expected.values, rtol=1e-9, atol=1e-12)
