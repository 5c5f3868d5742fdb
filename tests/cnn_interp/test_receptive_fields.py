"""Receptive fields against arithmetic, against gradients, and where neither applies."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from interpretkit.errors import InputError
from interpretkit.networks.receptive_fields import receptive_field

# Kernel, stride, padding, dilation of each layer; the last has pooling where the kernel is negative.
STACKS = [
    [(3, 1, 1, 1)],
    [(7, 2, 3, 1), (3, 2, 1, 1), (3, 1, 1, 1)],
    [(11, 4, 2, 1), (-3, 2, 0, 1), (5, 1, 2, 1)],
    [(3, 1, 2, 2), (-2, 2, 0, 1), (3, 1, 4, 4), (-2, 2, 0, 1), (2, 1, 0, 1)],
    [(4, 3, 0, 1), (3, 2, 1, 1)],
]


def build(stack: list[tuple[int, int, int, int]]) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for kernel, stride, padding, dilation in stack:
        if kernel < 0:
            layers += [nn.MaxPool2d(-kernel, stride, padding)]
        else:
            channels = 4 if layers else 3
            layers += [nn.Conv2d(channels, 4, kernel, stride, padding, dilation), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def by_arithmetic(stack: list[tuple[int, int, int, int]]) -> tuple[float, float, float]:
    size, jump, start = 1.0, 1.0, 0.0
    for kernel, stride, padding, dilation in stack:
        reach = (abs(kernel) - 1) * dilation
        start += (reach / 2 - padding) * jump
        size += reach * jump
        jump *= stride
    return size, jump, start


@pytest.mark.parametrize("stack", STACKS)
def test_agrees_with_arithmetic(stack: list[tuple[int, int, int, int]]) -> None:
    module = build(stack)
    field = receptive_field(module, str(len(module) - 1), torch.zeros(1, 3, 96, 96))
    expected = by_arithmetic(stack)
    assert (field.size[0], field.stride[0], field.start[0]) == expected
    assert (field.size[1], field.stride[1], field.start[1]) == expected


def test_the_box_holds_exactly_the_pixels_with_a_gradient() -> None:
    module = nn.Sequential(nn.Conv2d(1, 1, 5, 2, 1), nn.AvgPool2d(3, 2), nn.Conv2d(1, 1, (1, 3)))
    for parameter in module.parameters():
        nn.init.ones_(parameter)
    image = torch.ones(1, 1, 40, 52, requires_grad=True)
    field = receptive_field(module, "2", image)
    maps = module(image)
    assert field.shape == maps.shape[2:]
    for position in ((0, 0), (3, 2), (maps.shape[2] - 1, maps.shape[3] - 1)):
        (gradient,) = torch.autograd.grad(maps[0, 0][position], image, retain_graph=True)
        top, left, bottom, right = field.box(position, (40, 52))
        seen = gradient[0, 0] != 0
        assert bool(seen[top:bottom, left:right].all())
        assert int(seen.sum()) == (bottom - top) * (right - left)


class Gated(nn.Module):
    """A convolution whose maps are scaled by something global, as in squeeze-and-excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.convolution(x)
        return maps * self.pool(maps).sigmoid() + maps.mean((2, 3), keepdim=True)


class OfOneSize(nn.Module):
    """Refuses images of any other size than its own, as transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 8, 8)
        self.mix = nn.Linear(36, 36)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (48, 48):
            raise ValueError("wrong size")
        maps = self.patches(x)
        return self.mix(maps.flatten(2)).reshape_as(maps)


def test_global_gates_are_left_out() -> None:
    module = nn.Sequential(Gated(), nn.Conv2d(4, 4, 3, padding=1))
    assert receptive_field(module, "1", torch.zeros(1, 3, 32, 32)).size == (5, 5)


def test_pooling_to_a_fixed_number_has_the_step_of_the_example() -> None:
    # As torchvision's VGG and AlexNet pool, whose linear layers want as many places from every image.
    module = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.AdaptiveAvgPool2d(4))
    found = receptive_field(module, "1", torch.zeros(1, 3, 32, 32))
    # Places of 4 × 4 outputs, 2 pixels apart, each of which sees 3 pixels.
    assert (found.size, found.stride, found.start) == ((9, 9), (8, 8), (3, 3))
    idle = receptive_field(module, "1", torch.zeros(1, 3, 8, 8))
    assert (idle.size, idle.stride, idle.start) == ((3, 3), (2, 2), (0, 0))


def test_networks_of_one_size() -> None:
    module = nn.Sequential(OfOneSize(), nn.Identity())
    inside = receptive_field(module, "0.patches", torch.zeros(1, 3, 48, 48))
    assert (inside.size, inside.stride, inside.start) == ((8, 8), (8, 8), (3.5, 3.5))
    outside = receptive_field(module, "1", torch.zeros(1, 3, 48, 48))
    assert outside.size == (math.inf, math.inf)
    assert outside.stride == (8, 8)
    assert outside.centres([0, 5]).tolist() == [3.5, 43.5]
    assert outside.box((2, 2), (48, 48)) == (0, 0, 48, 48)


def test_the_last_run_of_a_reused_layer_counts() -> None:
    relu = nn.ReLU(inplace=True)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), relu, nn.Conv2d(4, 4, 5, padding=2), relu)
    assert receptive_field(module, "1", torch.zeros(1, 3, 24, 24)).size == (7, 7)


def test_leaves_the_network_as_it_was() -> None:
    module = build(STACKS[1]).train()
    receptive_field(module, "4", torch.zeros(1, 3, 64, 64))
    assert all(m.training and not m._forward_hooks for m in module.modules())
    assert all(p.requires_grad and p.grad is None for p in module.parameters())


def test_bad_layers_are_refused() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2))
    module(torch.zeros(1, 3, 16, 16))
    with pytest.raises(InputError, match="none of that name"):
        receptive_field(module, "7", torch.zeros(1, 3, 16, 16))
    with pytest.raises(InputError, match="no maps"):
        receptive_field(module, "2", torch.zeros(1, 3, 16, 16))
    with pytest.raises(InputError, match="channels, height, width"):
        receptive_field(module, "0", torch.zeros(3, 16, 16))
