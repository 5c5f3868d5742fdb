"""A network that ends at a layer gives what the layer gives, and stops there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from interpretkit.errors import InputError
from interpretkit.networks.recording import layer_outputs
from interpretkit.networks.truncated import From, UpTo


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return x


@pytest.mark.parametrize("layer", ["0", "1", "2"])
def test_gives_what_the_layer_gives(layer: str) -> None:
    relu = nn.ReLU(inplace=True)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 5, 3), relu, nn.Flatten())
    x = torch.randn(2, 3, 9, 9)
    _, expected = layer_outputs(module, x, [layer])
    until = UpTo(module, layer)
    for _ in range(2):
        assert torch.equal(until(x), expected[layer])
    assert not any(m._forward_hooks for m in module.modules())


def test_what_follows_the_layer_is_not_computed_again() -> None:
    after = Counting()
    until = UpTo(nn.Sequential(nn.Identity(), after), "0")
    for _ in range(5):
        until(torch.ones(1, 2))
    assert after.runs == 1


def test_without_a_layer_it_is_the_network() -> None:
    module = nn.Linear(3, 2)
    x = torch.randn(4, 3)
    assert torch.equal(UpTo(module, None)(x), module(x))


def test_layers_that_do_not_run_are_refused() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spare = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(InputError, match="does not run"):
        UpTo(Idle(), "spare")(torch.ones(1, 2))


def test_flags_of_the_users_modules_stay() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
    network.train()
    network[1].eval()
    assert UpTo(network, "2").training
    assert [module.training for module in network] == [True, False, True]


def test_a_network_that_begins_at_a_layer_gives_what_the_network_gives() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(125, 2)
    ).eval()
    x = torch.randn(6, 3, 9, 9)
    for layer in ("0", "1", "2"):
        outputs, found = layer_outputs(module, x, [layer])
        above = From(module, layer, torch.zeros(1, 3, 9, 9))
        assert torch.allclose(above(found[layer]), outputs, atol=1e-6)
        above.expect_the_same(found[layer], outputs)
        values = found[layer].clone().requires_grad_()
        (slope,) = torch.autograd.grad(above(values).sum(), values)
        assert slope.shape == values.shape
        assert torch.equal(values, found[layer])
    assert not any(m._forward_hooks for m in module.modules())
    with pytest.raises(InputError, match="of shape"):
        From(module, "2", x)(torch.zeros(2, 5, 4, 4))


def test_a_layer_that_something_goes_around_is_refused() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return (self.other(self.one(x)) + x).mean(dim=(2, 3))

    module, x = Around(), torch.randn(3, 3, 4, 4)
    outputs, found = layer_outputs(module, x, ["one"])
    with pytest.raises(InputError, match="goes around"):
        From(module, "one", x).expect_the_same(found["one"], outputs)
    twice = nn.Sequential(module.one, module.one, nn.Flatten())
    with pytest.raises(InputError, match="several times"):
        From(twice, "0", x)(found["one"])
