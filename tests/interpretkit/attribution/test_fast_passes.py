"""Fast passes give what plain ones give, whatever a model does to the order of memory."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from interpretkit.attribution import attribute
from interpretkit.networks.fast_passes import FastPasses, fast_layers, input_gradient


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


def seen_orders(model: nn.Module, images: Tensor) -> list[bool]:
    """Return whether the first layer has met images with the channels next to each other, pass by pass."""
    orders: list[bool] = []
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    kind = type(first)

    class Noting(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            # By the object, so that nothing is called that could be noticed.
            with torch._C.DisableTorchFunction():
                orders.append(not input.is_contiguous())
            return super().forward(input)

    first.__class__ = Noting
    try:
        attribute(model, images, 1, method="saliency")
    finally:
        first.__class__ = kind
    return orders


def test_several_images_have_their_channels_next_to_each_other_where_it_is_harmless(
    model: OldFashioned, images: Tensor
) -> None:
    # First as they are, then otherwise, to compare.
    assert seen_orders(model, images) == [False, True, True]
    assert seen_orders(model, images[:1]) == [False]
    assert seen_orders(nn.Sequential(model, Strided()), images) == [False, True, False]


class Strided(nn.Module):
    """Looks at how its numbers lie in memory."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.stride(0)


class Writes(nn.Module):
    """Takes the mean out of its maps, by a view of them."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how = how
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.last = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.first(x)
        if self.how == "view":
            flat = maps.view(len(x), 6, -1)
            flat -= flat.mean(2, keepdim=True)
        elif self.how == "reshape":
            maps.reshape(len(x), 6, -1).sub_(maps.mean((2, 3)).unsqueeze(2))
        elif self.how == "flatten":
            maps.flatten(2)[:, :2].mul_(3)
        elif self.how == "contiguous":
            maps.contiguous().mul_(3)
        elif self.how == "base":
            flat = maps.flatten(2)
            maps.mul_(3)
            return self.last(flat.tanh().square().mean(2))
        else:
            maps = _Scaled.apply(maps)
        return self.last(maps.tanh().square().mean((2, 3)))


class _Scaled(torch.autograd.Function):
    """A function of somebody's, whose way back expects its gradient in one stretch of memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return (gradients[0].as_strided((gradients[0].numel(),), (1,)) * 2).view(gradients[0].shape)


@pytest.mark.parametrize("how", ["view", "reshape", "flatten", "contiguous", "base", "function"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_networks_that_mind_the_order_of_memory_are_explained_as_they_are(
    how: str, count: int, images: Tensor
) -> None:
    model, some = Writes(how).double().eval(), images[:count]
    leaf = some.clone().requires_grad_()
    scores = model(leaf)[:, 1]
    (expected,) = torch.autograd.grad(scores.sum(), leaf)
    found = attribute(model, some, 1, method="saliency", absolute=False)
    torch.testing.assert_close(found.values, expected, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(found.details["scores"], scores.detach(), rtol=1e-12, atol=1e-15)
    # A single image in the company of its own copies.
    gap = attribute(model, some[:1], 1, method="integrated_gradients").details["completeness_gap"]
    assert gap.abs().max() < (1e-6 if how != "function" else 1)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("mean", (2, 1, 8, 10)), ("halves", (2, 6, 8, 10)), ("five", (2, 3, 6, 8)), ("as", (2, 3, 8, 10))],
)
def test_views_that_need_one_stretch_of_memory(name: str, shape: tuple[int, ...]) -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(shape[1], 6, 3, padding=1)
            self.deep = nn.Conv3d(1, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            if name == "halves":
                return (x[:, :3].view(len(x), -1) - x[:, 3:].view(len(x), -1))[:, :4]
            maps = self.conv(x).relu()
            if name == "mean":
                return maps.mean(2).view(len(x), -1)[:, :4]
            if name == "five":
                return self.deep(maps.view(len(x), 1, *maps.shape[1:])).mean((3, 4)).flatten(1)[:, :4]
            return maps.view_as(maps.new_empty(len(x), maps[0].numel()))[:, 3:7]

    model, images = Viewing().double(), torch.rand(shape, dtype=torch.float64)
    leaf = images.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    for some, truth in ((images, expected), (images[:1], expected[:1])):
        found = attribute(model, some, 1, method="saliency", absolute=False)
        torch.testing.assert_close(found.values, truth, rtol=1e-12, atol=1e-15)
        assert attribute(model, some, 1, method="occlusion").values.isfinite().all()


def test_hooks_and_layers_that_are_changed_later_are_met() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    model, images = model.double().eval(), torch.rand(3, 3, 8, 8, dtype=torch.float64)

    def agrees() -> None:
        leaf = images.clone().requires_grad_()
        (expected,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
        found = attribute(model, images, 1, method="saliency", absolute=False)
        torch.testing.assert_close(found.values, expected, rtol=1e-12, atol=1e-15)

    agrees()

    def centre(_: nn.Module, __: Any, maps: Tensor) -> None:
        maps.flatten(2).sub_(maps.detach().mean((2, 3)).unsqueeze(2))

    handle = model[0].register_forward_hook(centre)
    agrees()
    handle.remove()
    agrees()
    model[1] = Sorted()
    agrees()
    Sorted.forward = lambda self, x: x.flatten(2).mul_(2).view(x.shape) + x  # type: ignore[method-assign,assignment]
    agrees()


class Sorted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).sort(2).values.view(x.shape)


def test_a_network_that_goes_another_way_for_some_images_is_explained_as_it_is() -> None:
    """Though the way that it first went is harmless."""

    class Turns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 4, 3).double()
            self.writes = False

        def forward(self, x: Tensor) -> Tensor:
            maps = self.conv(x)
            if self.writes:
                maps.flatten(2)[..., 0] *= 5
            return maps.tanh().mean((2, 3))

    model, images = Turns(), torch.rand(2, 3, 6, 6, dtype=torch.float64)
    for writes in (False, True, False):
        model.writes = writes
        leaf = images.clone().requires_grad_()
        (expected,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
        found = attribute(model, images, 1, method="saliency", absolute=False)
        torch.testing.assert_close(found.values, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_scripted_modules_get_images_in_the_usual_order(images: Tensor) -> None:
    convolution = nn.Conv2d(3, 2, 3).double().eval()

    class Ordered(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch._C.DisableTorchFunction():
                assert x.is_contiguous()
            return x.mean((2, 3))

    scripted: Any = torch.jit.trace(nn.Conv2d(3, 3, 3).double().eval(), images)
    attribute(nn.Sequential(convolution, Ordered()), images[:1], 1, method="saliency")
    found = attribute(nn.Sequential(scripted, Ordered()), images, 1, method="saliency")
    assert found.values.abs().sum() > 0


def test_the_layers_of_a_single_image_may_be_changed_in_place() -> None:
    """A convolution with a stride that a ReLU in place follows, as AlexNet begins."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 5, 2), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten())
    image = torch.rand(1, 3, 15, 15)
    leaf = image.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    found = attribute(model, image, 1, method="saliency", absolute=False).values
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    model.requires_grad_(False)
    with fast_layers(model):
        maps = model[:2](image.clone().requires_grad_())
    assert maps.is_contiguous()
    assert maps._base is None


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
    with FastPasses():
        fast = run()
    assert "Addcmul" in type(fast[0].grad_fn).__name__
    for expected, found in zip(plain, fast, strict=True):
        torch.testing.assert_close(found, expected)


def test_batch_normalisation_in_training_is_left_alone() -> None:
    x = torch.randn(4, 3, 5, 5, requires_grad=True)
    mean = torch.zeros(3)
    with FastPasses():
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
def test_fast_layers_is_the_same_and_so_is_its_gradient(
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
    with fast_layers(nn.Sequential(layer)):
        fast = pooled_and_gradient()
    assert all(torch.equal(a, b) for a, b in zip(plain, fast, strict=True))


def test_fast_layers_leaves_nothing_behind() -> None:
    layer = nn.MaxPool2d(2)
    replaced = nn.MaxPool2d(2)
    replaced.forward = own = lambda x: x  # type: ignore[assignment,method-assign]
    with suppress(RuntimeError), fast_layers(nn.Sequential(layer, layer, replaced)):
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
    with fast_layers(stem) if count == 1 else FastPasses():
        fast = maps_and_gradient()
    assert "FastStem" in fast[2]
    torch.testing.assert_close(fast[:2], plain[:2])
    assert fast[0].is_contiguous()
    # Weights that are learnt need a gradient of their own.
    stem.requires_grad_()
    with FastPasses():
        assert "FastStem" not in maps_and_gradient()[2]


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
    with fast_layers(layer):
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
    with fast_layers(layer):
        found = layer(x)
    assert "FastStem" not in type(found.grad_fn).__name__
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

    with FastPasses(), fast_layers(model):
        fast = gradients()
    torch.testing.assert_close(fast, gradients())


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
