"""Networks within wrappers, compiled, checkpointed, quantised: right, or refused in a line."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointFunction, checkpoint

from interpretkit.attribution import METHODS, attribute
from interpretkit.errors import InputError

SEGMENTS = torch.arange(8)[:, None] // 4 * 2 + torch.arange(8)[None] // 4
CHEAP: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 3},
    "smoothgrad": {"samples": 2},
    "patternnet": {"patterns": torch.rand(6, 3, 8, 8)},
    "pattern_attribution": {"patterns": torch.rand(6, 3, 8, 8)},
    "occlusion": {"window": 4, "stride": 3},
    "rise": {"samples": 4, "cells": 3},
    "lime": {"samples": 8, "segments": SEGMENTS},
    "kernel_shap": {"samples": 8, "segments": SEGMENTS},
    "prediction_difference": {"window": 4, "padding": 1, "stride": 4, "samples": 1},
    "meaningful_perturbation": {"iterations": 2, "coarseness": 2, "mask_blur": 1.0, "image_blur": 1.0},
}
OWN = (
    *("saliency", "input_x_gradient", "guided_backprop", "deconvnet", "clear", "deeplift", "lrp", "gradcam"),
    *("gradcam_plus_plus", "layercam", "guided_gradcam", "scorecam", *CHEAP),
)


class Plain(nn.Module):
    """A convolution, a part, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3)
        self.part = nn.Sequential(nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.head = nn.Linear(6, 3)

    def body(self, x: Tensor) -> Tensor:
        return self.part(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.conv(x).relu()).mean((2, 3)))


class Checkpointed(Plain):
    """The same, whose part is computed again on the way back."""

    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant

    def body(self, x: Tensor) -> Tensor:
        return checkpoint(self.part, x, use_reentrant=self.reentrant)  # type: ignore[return-value]


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def explained(model: nn.Module, images: Tensor, method: str, **options: Any) -> Tensor:
    return attribute(model, images, 1, method=method, **CHEAP.get(method, {}) | options).values


@pytest.mark.parametrize("method", OWN)
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_change_nothing(method: str, reentrant: bool, images: Tensor) -> None:
    for some in (images, images[:1]):
        found = explained(Checkpointed(reentrant=reentrant), some, method)
        torch.testing.assert_close(found, explained(Plain(), some, method), rtol=1e-5, atol=1e-8)


def test_checkpoints_are_left_to_others() -> None:
    """Other threads meet them as ever, and so does everybody afterwards."""
    import torch.utils.checkpoint as module

    before = module.CheckpointFunction, module._checkpoint_without_reentrant_generator
    names: list[str] = []

    def elsewhere() -> None:
        x = torch.rand(2, requires_grad=True)
        names.append(type(checkpoint(torch.sin, x, use_reentrant=True).grad_fn).__name__)  # type: ignore[union-attr]

    class Meanwhile(Plain):
        def body(self, x: Tensor) -> Tensor:
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
            return checkpoint(super().body, x, use_reentrant=True)  # type: ignore[return-value]

    attribute(Meanwhile(), torch.rand(1, 3, 8, 8), 1, method="saliency")
    elsewhere()
    assert set(names) == {f"{CheckpointFunction.__name__}Backward"}
    assert before == (module.CheckpointFunction, module._checkpoint_without_reentrant_generator)

    class Fails(Plain):
        def body(self, x: Tensor) -> Tensor:
            return checkpoint(self.fail, x, use_reentrant=False)  # type: ignore[return-value]

        def fail(self, x: Tensor) -> Tensor:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        attribute(Fails(), torch.rand(1, 3, 8, 8), 1, method="saliency")
    assert before == (module.CheckpointFunction, module._checkpoint_without_reentrant_generator)


@pytest.mark.parametrize("method", ["saliency", "guided_backprop", "deeplift", "gradcam", "occlusion"])
@pytest.mark.parametrize("how", ["whole", "part", "in place", "data parallel"])
def test_compiled_and_data_parallel_networks(method: str, how: str, images: Tensor) -> None:
    model: Any = Plain().eval()
    if how == "whole":
        model = torch.compile(model, backend="eager")
    elif how == "part":
        model.part = torch.compile(model.part, backend="eager")
    elif how == "in place":
        model.compile(backend="eager")
    else:
        model = nn.DataParallel(model)
    with torch.no_grad():
        model(images)
    options: dict[str, Any] = {"layer": "part"} if method == "gradcam" else {}
    found = attribute(model, images, 1, method=method, **options)
    expected = attribute(Plain(), images, 1, method=method, **options)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-5, atol=1e-6)
    if method == "gradcam":
        by_default = attribute(model, images, 1, method=method)
        torch.testing.assert_close(by_default.values, expected.values, rtol=1e-5, atol=1e-6)
        assert by_default.layer is not None
        assert "part" in by_default.layer


def test_data_parallel_modules_use_one_device_meanwhile(images: Tensor) -> None:
    """As they are left, for other devices' threads cannot be watched."""
    model = nn.DataParallel(Plain())
    model.device_ids = [0, 1]
    seen: list[list[int]] = []
    model.forward = lambda x: seen.append(list(model.device_ids)) or model.module(x)  # type: ignore[method-assign,func-returns-value]
    attribute(model, images, 1, method="saliency")
    assert set(map(tuple, seen)) == {(0,)}
    assert model.device_ids == [0, 1]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript(images: Tensor) -> None:
    plain = Plain().eval()
    whole: Any = torch.jit.script(plain)
    partly = copy.deepcopy(plain)
    partly.part = torch.jit.trace(plain.part, torch.rand(2, 6, 6, 6))  # type: ignore[assignment]
    for model in (whole, partly):
        for method in ("saliency", "integrated_gradients", "occlusion", "rise"):
            expected = explained(plain, images, method)
            torch.testing.assert_close(explained(model, images, method), expected, rtol=1e-4, atol=1e-7)
        for method in ("guided_backprop", "deconvnet", "clear", "guided_gradcam", "deeplift", "lrp"):
            with pytest.raises(InputError, match=r"is compiled by TorchScript.*expected the module"):
                explained(model, images, method)
        for method in ("gradcam", "scorecam"):
            with pytest.raises(InputError, match="expected"):
                explained(model, images, method)
    with pytest.raises(InputError, match="layer 'part': is compiled by TorchScript"):
        explained(partly, images, "gradcam", layer="part")
    torch.testing.assert_close(
        explained(partly, images, "gradcam", layer="conv"), explained(plain, images, "gradcam", layer="conv")
    )


@torch.jit.script
def _scripted(x: Tensor) -> Tensor:
    return x.relu()


def test_rectifiers_in_compiled_functions_are_not_passed_over(images: Tensor) -> None:
    class Hidden(Plain):
        def body(self, x: Tensor) -> Tensor:
            return _scripted(self.part[0](x))

    for method in ("guided_backprop", "deconvnet", "clear"):
        with pytest.raises(InputError, match="model: holds compiled code"):
            explained(Hidden(), images, method)
    assert explained(Hidden(), images, "saliency").isfinite().all()

    class Recurrent(Plain):
        """Torch's own network of rectifiers in one piece."""

        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(6, 6, nonlinearity="relu", batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(self.conv(x).relu().flatten(2).transpose(1, 2))[0].mean(1))

    with pytest.raises(InputError, match="model: holds compiled code"):
        explained(Recurrent(), images, "guided_backprop")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantised_networks(images: Tensor) -> None:
    model = torch.ao.quantization.quantize_dynamic(Plain().eval(), {nn.Linear})
    for method in ("saliency", "integrated_gradients", "gradcam", "guided_backprop", "lrp"):
        with pytest.raises(InputError, match=r"layer 'head' is quantized.*such as occlusion"):
            explained(model, images, method)
    assert explained(model, images, "occlusion").abs().sum() > 0


def test_other_networks_that_are_refused(images: Tensor) -> None:
    class FullyShardedDataParallel(Plain):
        """By its name, as torch's own takes a group of processes to build."""

    class Pair(Plain):
        def forward(self, x: Tensor) -> Any:
            return {"logits": super().forward(x)}

    lazy = nn.Sequential(
        nn.LazyConv2d(4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    batch = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), *list(lazy)[1:])
    for model, message in (
        (FullyShardedDataParallel(), "spreads its weights over processes"),
        (Pair(), "model: gives a dict; expected one tensor"),
        (lazy, "model: has lazy layers"),
        (batch, "its layer '1' normalises by the statistics of the batch"),
    ):
        for method in ("saliency", "gradcam", "occlusion"):
            with pytest.raises(InputError, match=message) as caught:
                explained(model, images, method)
            assert "\n" not in str(caught.value)
    # One example alone is what it is.
    leaf = images[:1].clone().requires_grad_()
    (expected,) = torch.autograd.grad(batch.eval()(leaf)[0, 1], leaf)
    torch.testing.assert_close(explained(batch, images[:1], "saliency", absolute=False), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["saliency", "guided_backprop", "gradcam", "deeplift", "occlusion"])
def test_models_of_half_precision(dtype: torch.dtype, method: str, images: Tensor) -> None:
    found = explained(Plain().to(dtype), images, method)
    assert found.dtype == torch.float32
    both = torch.stack([found.flatten(), explained(Plain(), images, method).flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.9


def test_what_a_model_notes_in_its_buffers_is_put_back(images: Tensor) -> None:
    class Counts(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("passes", torch.zeros(()))
            self.register_buffer("latest", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            assert isinstance(self.passes, Tensor)
            self.passes.add_(1)
            self.latest = x.detach().mean((1, 2, 3))
            return super().forward(x)

    model = Counts()
    latest = model.latest
    for method in METHODS:
        if method in OWN:
            explained(model, images, method)
    assert isinstance(model.passes, Tensor)
    assert model.passes.item() == 0
    assert model.latest is latest


def test_models_that_differentiate_within_are_not_explained_by_another_function(images: Tensor) -> None:
    """A rule for gradients would change what they compute."""

    class Force(Plain):
        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                x = x if x.requires_grad else x.detach().requires_grad_()
                energy = -F.relu(self.conv(x)).square().sum()
                (slope,) = torch.autograd.grad(energy, x, create_graph=True)
            return slope.mean((2, 3))

    leaf = images.clone().requires_grad_()
    (expected,) = torch.autograd.grad(Force()(leaf)[:, 1].sum(), leaf)
    torch.testing.assert_close(explained(Force(), images, "saliency", absolute=False), expected)
    with pytest.raises(InputError, match="model: gives another output while its functions are watched"):
        explained(Force(), images, "deconvnet")
