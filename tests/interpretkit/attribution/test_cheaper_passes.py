"""Lean passes give what plain ones give, whatever a model does to the order of memory."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from interpretkit.attribution import attribute
from interpretkit.networks.cheaper_passes import LeanPasses, input_gradient, lean_layers, leanly
from interpretkit.networks.instrumentation import instrumented


class OldFashioned(nn.Module):
    """Flattens by ``view``, which refuses images whose channels lie next to each other, and changes its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.last = nn.Linear(6 * 8 * 8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        maps = self.norm(self.first(x)).relu_()
        return self.last(maps.view(len(x), -1))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def model() -> OldFashioned:
    torch.manual_seed(0)
    made = OldFashioned().double()
    nn.init.uniform_(made.norm.running_mean)  # type: ignore[arg-type]
    nn.init.uniform_(made.norm.running_var, 0.5, 2)  # type: ignore[arg-type]
    return made.eval()


def test_a_model_that_views_its_maps_is_explained_as_by_hand(model: OldFashioned, images: Tensor) -> None:
    found = attribute(model, images, 1, method="saliency", absolute=False)
    weights, norm = model.last.weight[1].reshape(6, 8, 8), model.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    maps = F.conv2d(2 * images, model.first.weight, model.first.bias, padding=1)
    passed = (maps - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None] > 0
    expected = 2 * F.conv_transpose2d(
        passed * (weights * scale[:, None, None]), model.first.weight, padding=1
    )
    torch.testing.assert_close(found.values, expected.detach())
    assert found.values.is_contiguous()


def test_a_model_is_given_images_in_another_order_only_if_it_does_not_mind(images: Tensor) -> None:
    orders: list[bool] = []

    def noted(x: Tensor) -> Tensor:
        orders.append(x.is_contiguous())
        return x.sum((1, 2, 3))

    plain = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2)).double().eval()
    scripted: Any = torch.jit.trace(plain, images)
    for model, several_as_they_are in ((plain, False), (nn.Sequential(scripted), True)):
        with instrumented(model, 0):
            leanly(noted, images, model)
            assert orders.pop() == several_as_they_are


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 7), (4, 3, 5, 5), (4, 3, 2, 3, 4)])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_normalisation_is_the_same_and_so_is_its_gradient(shape: tuple[int, ...], affine: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    mean, variance, weight, bias = torch.rand(4, 3, generator=generator, dtype=torch.float64) + 0.5
    given = (weight, bias) if affine else (None, None)

    def run() -> tuple[Tensor, Tensor]:
        leaf = x.clone().requires_grad_()
        output = F.batch_norm(leaf, mean, variance, *given)
        return output, torch.autograd.grad((output**3).sum(), leaf)[0]

    plain = run()
    with LeanPasses():
        lean = run()
    assert "Addcmul" in type(lean[0].grad_fn).__name__
    for expected, found in zip(plain, lean, strict=True):
        torch.testing.assert_close(found, expected)


def test_batch_normalisation_in_training_is_left_alone() -> None:
    x = torch.randn(4, 3, 5, 5, requires_grad=True)
    mean = torch.zeros(3)
    with LeanPasses():
        F.batch_norm(x, mean, torch.ones(3), training=True)
    assert bool((mean != 0).all())


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": (2, 3), "stride": (1, 2), "ceil_mode": True},
        {"kernel_size": 3, "stride": 1, "dilation": 2},
        {"kernel_size": 2, "return_indices": True},
    ],
)
@pytest.mark.parametrize("shape", [(1, 3, 11, 14), (3, 11, 14)])
def test_lean_layers_is_the_same_and_so_is_its_gradient(
    options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    # Many equal values, so that the choice among them shows in the gradient.
    x = torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(2)).double()
    layer = nn.MaxPool2d(**options)

    def pooled_and_gradient() -> tuple[Tensor, Tensor]:
        leaf = x.clone().requires_grad_()
        pooled = layer(leaf)
        pooled = pooled[0] if layer.return_indices else pooled
        assert pooled.is_contiguous()
        (gradient,) = torch.autograd.grad((pooled * torch.arange(pooled.numel()).view_as(pooled)).sum(), leaf)
        return pooled, gradient

    plain = pooled_and_gradient()
    with lean_layers(nn.Sequential(layer)):
        lean = pooled_and_gradient()
    assert all(torch.equal(a, b) for a, b in zip(plain, lean, strict=True))


def test_lean_layers_leaves_nothing_behind() -> None:
    layer = nn.MaxPool2d(2)
    replaced = nn.MaxPool2d(2)
    replaced.forward = own = lambda x: x  # type: ignore[assignment,method-assign]
    with suppress(RuntimeError), lean_layers(nn.Sequential(layer, layer, replaced)):
        assert "forward" in vars(layer)
        assert replaced.forward is own
        raise RuntimeError
    assert "forward" not in vars(layer)
    assert replaced.forward is own


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [
        ((7, 7), 2, (3, 3), (20, 21)),
        ((3, 3), 2, (1, 1), (9, 8)),
        ((3, 5), 2, (0, 2), (12, 11)),
        ((11, 11), 4, (2, 2), (31, 33)),
        ((4, 4), 4, (0, 0), (14, 13)),
        ((1, 1), 2, (0, 0), (5, 6)),
        ((2, 2), 3, (1, 0), (10, 11)),
    ],
)
def test_the_input_gradient_of_a_convolution_with_a_stride_is_that_of_torch(
    kernel: tuple[int, int], stride: int, padding: tuple[int, int], size: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 3, *size, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 3, *kernel, generator=generator, dtype=torch.float64)
    maps = F.conv2d(x, weight, stride=stride, padding=padding)
    gradient = torch.randn(maps.shape, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad(maps, x, gradient)
    torch.testing.assert_close(input_gradient(gradient, weight, stride, padding, size), expected)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_the_first_convolution_is_the_same_and_so_is_its_gradient(count: int, bias: bool) -> None:
    torch.manual_seed(4)
    stem = nn.Conv2d(3, 8, (5, 4), 2, (2, 1), bias=bias).requires_grad_(False)
    x = torch.randn(count, 3, 17, 18)
    direction = torch.randn(count, 8, 9, 9)

    def maps_and_gradient() -> tuple[Tensor, Tensor, str]:
        leaf = x.clone().requires_grad_()
        maps = stem(leaf)
        (gradient,) = torch.autograd.grad(maps, leaf, direction)
        return maps.detach(), gradient, type(maps.grad_fn).__name__

    plain = maps_and_gradient()
    with lean_layers(stem) if count == 1 else LeanPasses():
        lean = maps_and_gradient()
    assert "LeanStem" in lean[2]
    torch.testing.assert_close(lean[:2], plain[:2])
    assert lean[0].is_contiguous()
    # Weights that are learnt need a gradient of their own.
    stem.requires_grad_()
    with LeanPasses():
        assert "LeanStem" not in maps_and_gradient()[2]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("stride", [2, (3, 1), (1, 2)])
def test_convolutions_of_single_pixels_are_the_same_and_so_is_their_gradient(
    groups: int, stride: int | tuple[int, int]
) -> None:
    torch.manual_seed(7)
    layer = nn.Conv2d(8, 6, 1, stride, groups=groups).double().requires_grad_(False)
    x = torch.randn(1, 8, 7, 10, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(layer(x).shape, dtype=torch.float64)
    expected = torch.autograd.grad(layer(x), x, direction)
    with lean_layers(layer):
        maps = layer(x)
        assert "forward" in vars(layer)
        torch.testing.assert_close(torch.autograd.grad(maps, x, direction), expected)
    torch.testing.assert_close(maps, layer(x))


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 1},
        {"stride": (2, 1)},
        {"stride": 2, "dilation": 2},
        {"stride": 2, "padding": 1, "padding_mode": "reflect"},
        {"stride": 1, "padding": "same"},
    ],
)
def test_other_convolutions_are_left_to_torch(options: dict[str, Any]) -> None:
    layer = nn.Conv2d(3, 4, 3, **options).requires_grad_(False)
    x = torch.randn(1, 3, 9, 9, requires_grad=True)
    expected = layer(x)
    with lean_layers(layer):
        found = layer(x)
    assert "LeanStem" not in type(found.grad_fn).__name__
    assert torch.equal(found, expected)


def test_gradients_of_weights_are_vectorised_over_examples() -> None:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2))
    model.requires_grad_(False)
    x = torch.randn(4, 3, 14, 14)

    def loss(head: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(model, head, (image[None],)).logsumexp(1).sum()

    def gradients() -> Tensor:
        return vmap(grad(loss), in_dims=(None, 0))({"3.weight": model.get_parameter("3.weight")}, x)[
            "3.weight"
        ]

    with LeanPasses(), lean_layers(model):
        lean = gradients()
    torch.testing.assert_close(lean, gradients())


def test_precision_chosen_by_torch_is_left_alone(images: Tensor) -> None:
    class Mixed(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(input).float()

    torch.manual_seed(6)
    model = Mixed(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 2))
    for some in (images[:1].float(), images.float()):
        found = attribute(model, some, 0, method="saliency", absolute=False).values
        leaf = some.clone().requires_grad_()
        (expected,) = torch.autograd.grad(model(leaf)[:, 0].sum(), leaf)
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.01)
