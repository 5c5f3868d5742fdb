"""What every method must keep."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from interpretkit.attribution import METHODS, Attribution, attribute
from interpretkit.errors import InputError

# The tests are imported by path, so that the shared networks must be found by hand.
sys.path.insert(0, str(Path(__file__).parent))
from attribution_networks import Functional, LooksAt, NotInPlace, ReusedInPlace, images, plain

SEGMENTS = np.arange(14)[:, None] // 4 * 4 + np.arange(14)[None] // 4
# Fewer samples than the defaults, and segments that fit the small images.
CHEAP = {
    "integrated_gradients": {"steps": 6},
    "smoothgrad": {"samples": 4},
    "patternnet": {"patterns": images(24)},
    "pattern_attribution": {"patterns": images(24)},
    "occlusion": {"window": 5, "stride": 4},
    "rise": {"samples": 12, "cells": 4},
    "lime": {"samples": 30, "segments": SEGMENTS},
    "kernel_shap": {"samples": 40, "segments": SEGMENTS},
    "prediction_difference": {"window": 4, "padding": 1, "stride": 4, "samples": 2},
    "meaningful_perturbation": {"iterations": 4, "coarseness": 3, "mask_blur": 1.0, "image_blur": 2.0},
    "gradient_shap": {"samples": 4},
    "deeplift_shap": {"baselines": images(2)},
    "noise_tunnel": {"samples": 4},
    "feature_ablation": {"segments": SEGMENTS},
    "feature_permutation": {"segments": SEGMENTS, "reference": images(6), "samples": 2},
    "shapley_value_sampling": {"segments": SEGMENTS, "samples": 2},
    "shapley_values": {"segments": SEGMENTS // 8},
    "layer_gradient_shap": {"samples": 4, "deviation": 0.1},
    "layer_feature_ablation": {"features": "channels"},
    "layer_feature_permutation": {"features": "channels", "reference": images(6), "samples": 2},
    "layer_deeplift_shap": {"baselines": images(2)},
    "tcav": {"concepts": {"one": images(6) + 0.3}, "reference": images(6)},
    "neuron_gradient_shap": {"samples": 4},
    "neuron_feature_ablation": {"segments": SEGMENTS},
    "neuron_deeplift_shap": {"baselines": images(2)},
}
for _name in ("layer_conductance", "internal_influence", "layer_integrated_gradients"):
    CHEAP[_name] = {"steps": 4}
for _name in ("neuron_integrated_gradients", "neuron_conductance"):
    CHEAP[_name] = {"steps": 4}
NEURONS = {name for name in METHODS if name.startswith("neuron_")}
for _name in NEURONS:
    # The strongest may be another in another precision.
    CHEAP[_name] = {"neuron": (1, 4, 4)} | CHEAP.get(_name, {})
RECTIFIED = {
    *("guided_backprop", "deconvnet", "clear", "guided_gradcam"),
    *("neuron_guided_backprop", "neuron_deconvnet"),
}
WITHOUT_GRADIENT = {
    *("scorecam", "occlusion", "rise", "lime", "kernel_shap", "prediction_difference"),
    *("feature_ablation", "feature_permutation", "shapley_value_sampling", "shapley_values"),
    *("layer_activation", "layer_feature_ablation", "layer_feature_permutation"),
    # The neuron has a gradient, whatever the score has.
    *NEURONS - {"neuron_conductance"},
}
RANDOM = {
    *("smoothgrad", "rise", "lime", "kernel_shap", "prediction_difference", "meaningful_perturbation"),
    *(
        "gradient_shap",
        "noise_tunnel",
        "feature_permutation",
        "shapley_value_sampling",
        "layer_gradient_shap",
    ),
    *("layer_feature_permutation", "neuron_gradient_shap"),
}

every_method = pytest.mark.parametrize("method", list(METHODS))


def explain(
    model: nn.Module, inputs: Tensor | np.ndarray, target=None, *, method: str, **options
) -> Attribution:
    return attribute(model, inputs, target, method=method, **CHEAP.get(method, {}) | options)


class State:
    """All that may not change in a model."""

    def __init__(self, model: nn.Module) -> None:
        self.flags = {name: module.training for name, module in model.named_modules()}
        self.parameters = {
            name: (
                p.requires_grad,
                p.data_ptr(),
                p.detach().clone(),
                None if p.grad is None else p.grad.clone(),
            )
            for name, p in model.named_parameters()
        }
        self.buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        self.attributes = {name: set(vars(module)) for name, module in model.named_modules()}
        self.hooks = {
            (name, kind): len(hooks)
            for name, module in model.named_modules()
            for kind, hooks in vars(module).items()
            if kind.endswith("_hooks")
        }
        self.random = torch.get_rng_state()
        self.grad_mode = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def assert_same(self, model: nn.Module) -> None:
        other = State(model)
        assert other.flags == self.flags
        assert other.attributes == self.attributes
        assert other.hooks == self.hooks
        assert other.grad_mode == self.grad_mode
        assert torch.equal(other.random, self.random)
        assert other.buffers.keys() == self.buffers.keys()
        for name, buffer in self.buffers.items():
            assert torch.equal(other.buffers[name], buffer), name
        for name, (requires, address, value, grad) in self.parameters.items():
            now = other.parameters[name]
            assert now[:2] == (requires, address), name
            assert torch.equal(now[2], value), name
            assert (now[3] is None) == (grad is None), name
            if grad is not None and now[3] is not None:
                assert torch.equal(now[3], grad), name


@pytest.fixture
def model() -> ReusedInPlace:
    """A model as one finds it: partly frozen, partly training, with gradients of the caller's, a hook of his too."""
    model = ReusedInPlace()
    model.block1.eval()
    model.conv1.requires_grad_(False)
    model(images()).sum().backward()
    model.fc.register_forward_hook(lambda *_: None)
    return model


@every_method
def test_leaves_the_model_and_the_inputs_as_they_were(method, model):
    inputs = images()
    before, copy = State(model), inputs.clone()
    found = explain(model, inputs, method=method)
    before.assert_same(model)
    assert torch.equal(inputs, copy)
    assert inputs.grad is None
    assert not inputs.requires_grad
    assert not found.values.requires_grad
    assert found.values.shape in {inputs.shape, (3, 1, 14, 14)}
    assert found.values.isfinite().all()
    assert found.values.abs().sum() > 0


@every_method
@pytest.mark.parametrize("when", [1, 2])
def test_leaves_the_model_as_it_was_after_an_exception(method, model, when):
    calls: Iterator[int] = iter(range(1, 1000))

    def fail(*_: object) -> None:
        if next(calls) >= when:
            raise ZeroDivisionError

    model.fc.register_forward_hook(fail)
    before = State(model)
    with pytest.raises(ZeroDivisionError):
        explain(model, images(), method=method, images_per_forward=1)
    before.assert_same(model)


@every_method
def test_leaves_the_model_as_it_was_after_bad_input(method, model):
    before = State(model)
    with pytest.raises(InputError, match="target 5: the model gives 5 outputs; expected 0 to 4"):
        explain(model, images(), 5, method=method)
    before.assert_same(model)


@every_method
@pytest.mark.parametrize("make", [plain, ReusedInPlace])
def test_a_batch_gives_what_single_examples_give(method, make):
    model, inputs = make().double(), images().double()
    batch = explain(model, inputs, [0, 3, 1], method=method, images_per_forward=5)
    for row, target in enumerate([0, 3, 1]):
        single = explain(model, inputs[row : row + 1], target, method=method)
        torch.testing.assert_close(batch.values[row : row + 1], single.values, rtol=1e-9, atol=1e-11)
        for name, value in batch.details.items():
            if isinstance(value, Tensor):
                torch.testing.assert_close(value[row : row + 1], single.details[name], rtol=1e-9, atol=1e-11)


@every_method
def test_the_largest_output_is_the_default_target(method, model):
    inputs = images()
    with torch.no_grad():
        largest = model.eval()(inputs).argmax(1)
    found = explain(model, inputs, method=method)
    assert found.target is not None
    assert found.target.tolist() == largest.tolist()
    for same in (largest, largest.numpy(), largest.tolist()):
        assert torch.equal(explain(model, inputs, same, method=method).values, found.values)


@every_method
def test_a_function_chooses_the_score(method):
    model, inputs = plain(), images()
    # A function sees the outputs as they are, so that the others must see them so too.
    raw = {"probabilities": False} if "probabilities" in METHODS[method].options else {}
    chosen = explain(model, inputs, lambda outputs: outputs[:, 2], method=method, **raw)
    assert chosen.target is None
    assert torch.equal(chosen.values, explain(model, inputs, 2, method=method, **raw).values)
    with pytest.raises(InputError, match="target: the function gave"):
        explain(model, inputs, lambda outputs: outputs, method=method)


@every_method
@pytest.mark.parametrize("make", [ReusedInPlace, Functional])
def test_the_same_seed_gives_the_same_bits(method, make):
    model, inputs = make(), images()
    first = explain(model, inputs, 1, method=method, seed=3)
    torch.rand(5)
    assert torch.equal(explain(model, inputs, 1, method=method, seed=3).values, first.values)
    if method in RANDOM:
        assert not torch.equal(explain(model, inputs, 1, method=method, seed=4).values, first.values)


@every_method
def test_frozen_models_and_callers_without_gradients(method):
    inputs = images()
    expected = explain(ReusedInPlace(), inputs, 1, method=method).values
    assert torch.equal(
        explain(ReusedInPlace().requires_grad_(False), inputs, 1, method=method).values, expected
    )
    with torch.no_grad():
        assert torch.equal(explain(ReusedInPlace(), inputs, 1, method=method).values, expected)
    model = ReusedInPlace()
    with torch.inference_mode():
        found = explain(model, inputs.clone(), 1, method=method).values
    assert torch.equal(found, expected)
    array = inputs.numpy()[::-1].copy()[::-1]
    array.flags.writeable = False
    assert torch.equal(explain(ReusedInPlace(), array, 1, method=method).values, expected)


@every_method
def test_in_place_and_reused_modules_give_what_others_give(method):
    inputs = images().double()
    found = explain(ReusedInPlace().double(), inputs, 1, method=method)
    expected = explain(NotInPlace().double(), inputs, 1, method=method)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-9, atol=1e-12)


@every_method
def test_the_memory_knob_changes_nothing(method):
    model, inputs = ReusedInPlace().double(), images().double()
    expected = explain(model, inputs, method=method, images_per_forward=64)
    sizes: list[int] = []
    model.fc.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    for limit in (1, 2, 7):
        sizes.clear()
        found = explain(model, inputs, method=method, images_per_forward=limit)
        assert max(sizes) <= limit
        torch.testing.assert_close(found.values, expected.values, rtol=1e-9, atol=1e-12)


@every_method
def test_fewer_images_when_memory_runs_out(method):
    model, inputs = plain().double(), images(5).double()
    expected = explain(model, inputs, method=method)

    def refuse(_: nn.Module, given: tuple[Tensor]) -> None:
        if len(given[0]) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    model[0].register_forward_pre_hook(refuse)
    found = explain(model, inputs, method=method, images_per_forward=16)
    assert found.details["images_per_forward"] <= 2
    torch.testing.assert_close(found.values, expected.values, rtol=1e-9, atol=1e-12)


@every_method
def test_precisions_agree(method):
    double = explain(plain(torch.float64), images(dtype=torch.float64), 1, method=method).values
    single = explain(plain(), images(dtype=torch.float64), 1, method=method).values
    assert (double.dtype, single.dtype) == (torch.float64, torch.float32)
    scale = double.abs().max()
    assert (single - double).abs().max() < 1e-3 * scale
    half = explain(plain(torch.bfloat16), images(), 1, method=method).values
    assert half.dtype == torch.float32
    correlation = torch.corrcoef(torch.stack([half.flatten().double(), double.flatten()]))[0, 1]
    assert correlation > 0.9


@every_method
def test_the_values_lie_where_the_network_looks(method):
    inputs = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    fitted = {"patterns": torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(1))}
    options = {
        "patternnet": fitted,
        "pattern_attribution": fitted,
        "occlusion": {"window": 4, "stride": 2},
        "rise": {"samples": 1000, "cells": 4},
        "lime": {"segments": (np.arange(32)[:, None] // 8 * 4 + np.arange(32)[None] // 8), "samples": 200},
        "kernel_shap": {
            "segments": (np.arange(32)[:, None] // 8 * 4 + np.arange(32)[None] // 8),
            "samples": 200,
        },
        "prediction_difference": {"window": 4, "padding": 1, "stride": 4, "samples": 4},
        "meaningful_perturbation": {"iterations": 60, "coarseness": 4, "mask_blur": 1.0, "sparsity": 1e-2},
    }
    cells = np.arange(32)[:, None] // 8 * 4 + np.arange(32)[None] // 8
    reference = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    given = options.get(method, {})
    known = METHODS[method].options
    if method not in options and "segments" in known:
        quarters = np.arange(32)[:, None] // 16 * 2 + np.arange(32)[None] // 16
        given["segments"] = quarters if method == "shapley_values" else cells
    if "reference" in known and "samples" in known and method not in options:
        given["reference"] = reference
        if METHODS[method].takes_layer:
            given["samples"] = 4
    if "neuron" in known:
        given["neuron"] = 1  # at its strongest place
    if method == "tcav":
        given["concepts"], given["reference"] = {"bright": reference + 0.5}, reference
    if method == "layer_activation":
        pytest.skip("says what there is, whatever the score makes of it")
    if method in {"layer_feature_ablation", "layer_feature_permutation"}:
        pytest.skip("takes a pass for each of a thousand places")
    values = attribute(LooksAt(), inputs, 1, method=method, **given).values.abs().sum(1)
    if method == "rise":  # random masks see every place
        values = values - values.amin((1, 2), keepdim=True)
    inside = values[:, 16:, 16:].mean((1, 2))
    outside = (values.sum((1, 2)) - values[:, 16:, 16:].sum((1, 2))) / (32 * 32 - 16 * 16)
    assert (inside > 2 * outside).all(), (inside, outside)
    pointed = values.flatten(1).argmax(1)
    assert (pointed // 32 >= 15).all()
    assert (pointed % 32 >= 15).all()


@every_method
def test_bad_input_is_refused_in_a_line(method):
    model, inputs = plain(), images()
    broken = inputs.clone()
    broken[1, 0, 3, 3] = float("nan")
    not_finite = plain()
    with torch.no_grad():
        not_finite[-1].bias.fill_(float("inf"))  # type: ignore[union-attr]
    cases = [
        (model, broken, None, {}, "inputs: example 1 holds NaN or infinite values"),
        (model, inputs.long(), None, {}, "inputs: are of type torch.int64"),
        (model, inputs[:0], None, {}, "inputs: have shape"),
        (model, inputs.numpy().astype(str), None, {}, "inputs: are of type <U"),
        (model, [1.0], None, {}, "inputs: are a list"),
        (model, inputs, -1, {}, "target -1"),
        (model, inputs, 9, {}, "target 9: the model gives 5 outputs"),
        (model, inputs, [0, 1], {}, r"target: has shape \(2,\) for 3 examples"),
        (model, inputs, [0, [1], 2], {}, "target .*: expected"),
        (model, inputs, 1.5, {}, "target 1.5: expected"),
        (model, inputs, True, {}, "target True: expected"),
        (model, inputs, 0, {"layer": model[0]}, "layer: is a Conv2d; expected a dotted name"),
        (model, inputs, 0, {"strength": 3}, "option 'strength': "),
        (model, inputs, 0, {"images_per_forward": 0}, "images_per_forward 0"),
        (model.forward, inputs, 0, {}, "model: is a method"),
        (model[:4], inputs, 0, {}, "target: the model's outputs have shape"),
        (not_finite, inputs, 0, {}, "model: its score for example 0 is NaN or infinite"),
    ]
    for made, given, target, options, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            explain(made, given, target, method=method, **options)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


@every_method
def test_wrong_layers_are_refused(method):
    if METHODS[method].takes_layer:
        with pytest.raises(InputError, match=r"layer 'block1.7'.*nearest are.*block1\.[01]"):
            explain(ReusedInPlace(), images(), layer="block1.7", method=method)
    else:
        with pytest.raises(InputError, match=f"layer 'conv1': {method} takes none; expected one of gradcam"):
            explain(ReusedInPlace(), images(), layer="conv1", method=method)


@every_method
def test_saved_and_read_again(method, tmp_path):
    from interpretkit.runs.folder import load_arrays, load_manifest

    found = explain(plain(), images(), method=method)
    found.save(tmp_path / "out")
    arrays = load_arrays(tmp_path / "out" / "attribution.npz")
    np.testing.assert_array_equal(arrays["values"], found.numpy())
    np.testing.assert_array_equal(arrays["target"], found.target)
    np.testing.assert_array_equal(arrays["scores"], found.details["scores"])
    assert load_manifest(tmp_path / "out")["arguments"]["method"] == method
    assert load_manifest(tmp_path / "out")["seed"] == 0
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        found.save(tmp_path / "taken")


@every_method
def test_models_that_cannot_be_differentiated_or_rectified(method):
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = plain()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x).round().detach() + 0.5

    without_relu = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(4 * 144, 5))
    if method in WITHOUT_GRADIENT:
        assert explain(Detached(), images(), 0, method=method).values.isfinite().all()
    else:
        with pytest.raises(InputError, match=r"no gradient passes from the score|differentiable"):
            explain(Detached(), images(), 0, method=method)
    if method in RECTIFIED:
        with pytest.raises(InputError, match="applies no ReLU"):
            explain(without_relu, images(), 0, method=method)
    else:
        assert explain(without_relu, images(), 0, method=method).values.isfinite().all()


def test_unknown_method():
    with pytest.raises(InputError, match="method 'saliencey': expected one of saliency, input_x_gradient"):
        attribute(plain(), images(), method="saliencey")
