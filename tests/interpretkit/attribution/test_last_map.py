"""The layer that class activation maps look at by default, and what is cut there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interpretkit.attribution import attribute
from interpretkit.errors import InputError

CAMS = ("gradcam", "gradcam_plus_plus", "layercam", "scorecam", "guided_gradcam")


class TwoBranches(nn.Module):
    """One branch sees red, another green, and the score is red's but for a hundredth."""

    def __init__(self, *, green_first: bool) -> None:
        super().__init__()
        self.green_first = green_first
        self.red = nn.Conv2d(3, 1, 3, padding=1, bias=False)
        self.green = nn.Conv2d(3, 1, 3, padding=1, bias=False)
        self.head = nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            for channel, conv in enumerate((self.red, self.green)):
                conv.weight.zero_()
                conv.weight[0, channel] = 1 / 9
            self.head.weight.copy_(torch.tensor([[0.01, 1.0] if green_first else [1.0, 0.01]]))

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.red(x).relu(), self.green(x).relu()]
        return self.head(torch.cat(parts[::-1] if self.green_first else parts, 1).mean((2, 3)))


@pytest.mark.parametrize("method", CAMS)
@pytest.mark.parametrize("green_first", [False, True])
def test_branches_are_looked_at_together(method: str, green_first: bool) -> None:
    image = torch.zeros(1, 3, 16, 16)
    image[0, 0, 2:5, 2:5] = 1
    image[0, 1, 11:14, 11:14] = 1
    model = TwoBranches(green_first=green_first)
    found = attribute(model, image, 0, method=method)
    assert found.layer == found.details["layer"] == "cat()"
    assert divmod(int(found.values.sum(1).argmax()), 16) == (3, 3)
    named = attribute(model, image, 0, method=method, layer="cat()")
    assert torch.equal(named.values, found.values)


class Inception(nn.Module):
    """Branches that a module joins."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mixed = nn.ModuleList([nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 3, padding=1)])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.relu(branch(x), inplace=True) for branch in self.mixed], 1)


class Dense(nn.Module):
    """A last norm whose activation is a function in place, as DenseNet ends."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.classifier = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        maps = F.relu(self.features(x), inplace=True)
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(maps, (1, 1)), 1))


def test_the_last_map_of_common_networks() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(2, 3, 8, 8)
    head = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(16, 2))
    joined = nn.Sequential(Inception(), nn.MaxPool2d(2), *head)
    assert attribute(joined, inputs, 0, method="gradcam").layer == "0"
    assert attribute(Dense(), inputs, 0, method="gradcam").layer == "features"
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), *head)
    assert attribute(plain, inputs, 0, method="gradcam").layer == "0"


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "layer4.1"),
        ("densenet121", "features"),
        ("googlenet", "inception5b"),
        ("mobilenet_v3_small", "features.12"),
        ("squeezenet1_1", "classifier.1"),
        ("shufflenet_v2_x0_5", "conv5"),
        ("swin_t", "features.7.1"),
    ],
)
def test_the_last_map_of_torchvisions_networks(name: str, layer: str) -> None:
    import torchvision

    options = {"init_weights": False} if name == "googlenet" else {}
    model = getattr(torchvision.models, name)(weights=None, num_classes=3, **options).double().eval()
    images = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)).double()
    found = attribute(model, images, 1, method="gradcam", upsample=False, rectify=False)
    assert found.layer == layer
    # By hand, from what the layer gives.
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        kept.append(output.clone())
        return kept[-1].clone()

    handle = model.get_submodule(layer).register_forward_hook(keep)
    (gradient,) = torch.autograd.grad(model(images)[0, 1], kept[-1])
    handle.remove()
    maps = kept[-1].detach()
    if name == "swin_t":
        maps, gradient = maps.permute(0, 3, 1, 2), gradient.permute(0, 3, 1, 2)
    expected = (maps * gradient.mean((2, 3), keepdim=True)).sum(1, keepdim=True)
    torch.testing.assert_close(found.values, expected, rtol=1e-9, atol=1e-15)


class Transformer(nn.Module):
    """A vision transformer of two blocks.

    Parameters
    ----------
    prefix : int
        Tokens before those of places; the first is read in the end, if there are any, else the mean.
    by_hand : bool
        Whether attention is written out, as timm does, rather than torch's module.
    columns : bool
        Whether places become tokens column by column.
    """

    def __init__(
        self, prefix: int, *, by_hand: bool = False, columns: bool = False, mean: bool = False
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.columns, self.mean = columns, mean
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.prefix = nn.Parameter(torch.randn(1, prefix, 8)) if prefix else None
        self.places = nn.Parameter(torch.randn(1, prefix + 6, 8))
        self.blocks = nn.Sequential(*(Block(by_hand=by_hand) for _ in range(2)))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.patch(x)
        tokens = (maps.transpose(2, 3) if self.columns else maps).flatten(2).transpose(1, 2)
        if self.prefix is not None:
            tokens = torch.cat([self.prefix.expand(len(x), -1, -1), tokens], dim=1)
        tokens = self.norm(self.blocks(tokens + self.places))
        if self.prefix is not None and not self.mean:
            return self.head(tokens[:, 0])
        return self.head(tokens[:, 0 if self.prefix is None else self.prefix.shape[1] :].mean(1))


class Block(nn.Module):
    def __init__(self, *, by_hand: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.attention = None if by_hand else nn.MultiheadAttention(8, 2, batch_first=True)
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        if self.attention is not None:
            y = self.attention(y, y, y, need_weights=False)[0]
        else:
            q, k, v = self.qkv(y).chunk(3, -1)
            y = self.proj(F.scaled_dot_product_attention(q, k, v))
        x = x + y
        return x + self.mlp(self.norm2(x))


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize(
    ("prefix", "mean", "layer"),
    [
        (1, False, "blocks.1.norm1"),
        (3, False, "blocks.1.norm1"),
        (0, True, "blocks.1"),
        (1, True, "blocks.1"),
    ],
)
@pytest.mark.parametrize("method", ["gradcam", "layercam", "scorecam"])
def test_the_tokens_of_transformers_are_laid_out(
    by_hand: bool, prefix: int, mean: bool, layer: str, method: str
) -> None:
    model = Transformer(prefix, by_hand=by_hand, mean=mean).double()
    # Two rows of three patches.
    images = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(1)).double()

    def laid_out(tokens: Tensor) -> Tensor:
        return tokens[:, prefix:].transpose(1, 2).unflatten(2, (2, 3))

    found = attribute(model, images, 1, method=method, upsample=False, rectify=False)
    assert found.layer == layer
    assert found.values.shape == (2, 1, 2, 3)
    assert found.values.abs().amax() > 1e-6
    named = attribute(
        model, images, 1, method=method, layer=layer, reshape=laid_out, upsample=False, rectify=False
    )
    torch.testing.assert_close(found.values, named.values, rtol=1e-12, atol=0)


def test_what_cannot_be_told_is_asked_for() -> None:
    inputs = torch.randn(1, 3, 8, 12)

    class Apart(nn.Module):
        """Two maps that are pooled each for itself."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.a(x).mean((2, 3)), self.b(x).amax((2, 3))], 1)

    class ClassTokenLast(Transformer):
        """Somebody's own order of tokens: they are turned round."""

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.patch(x).flatten(2).transpose(1, 2).flip(1)
            return self.head(self.norm(self.blocks(torch.cat([tokens, tokens[:, :1]], 1)))[:, -1])

    for model in (Apart(), Transformer(1, columns=True), nn.Sequential(nn.Flatten(), nn.Linear(288, 2))):
        for method in CAMS[:4]:
            with pytest.raises(
                InputError, match="layer: the model has no convolution to take by default"
            ) as caught:
                attribute(model, inputs, 0, method=method)
            assert "expected a layer's name" in str(caught.value)
            assert "\n" not in str(caught.value)
    found = attribute(Apart(), inputs, 0, method="gradcam", layer="a")
    assert found.layer == "a"


class Peculiar(nn.Module):
    """A network whose layer ``here`` hands its output on in some peculiar way."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how = how
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.here = {
            "in place": nn.ReLU(inplace=True),
            "identity": nn.Identity(),
            "view": Transposed(),
            "part": Part(),
        }.get(how, nn.Conv2d(6, 6, 1))
        self.last = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)
        if self.how == "in place":
            # The result is not taken, but it is in the input.
            self.here(maps)
            return self.last((maps * maps).mean((2, 3)))
        if self.how == "identity":
            same = self.here(maps)
            return self.last(
                F.conv2d(same, torch.ones(6, 1, 3, 3).to(x), groups=6).mean((2, 3)) * maps.amax((2, 3))
            )
        if self.how == "part":
            self.here(maps)
            return self.last(maps.square().mean((2, 3)))
        given = self.here(maps)
        if self.how == "twice":
            given = self.here(given.tanh())
        if self.how == "changed":
            given.mul_(given.detach().sigmoid() + 1)
        if self.how == "changed by a view":
            given[:, :2] *= 3
        return self.last(given.square().mean((2, 3)))


class Transposed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(2, 3)


class Part(nn.Module):
    """Changes a part of its input in place and gives that part."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2].mul_(2)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    "how", ["in place", "identity", "view", "twice", "changed", "changed by a view", "part"]
)
def test_gradients_at_layers_are_those_of_autograd(how: str, count: int) -> None:
    model = Peculiar(how).double().eval()
    images = torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(0)).double()
    kept: list[tuple[Tensor, Tensor]] = []

    def keep(_: nn.Module, given: tuple[Tensor], output: Tensor) -> Tensor | None:
        if output is given[0]:
            kept.append((output, output.detach().clone()))
            return None
        kept.append((output.clone(), output.detach().clone()))
        # What follows may change what it gets in place.
        return kept[-1][0].clone()

    handle = model.here.register_forward_hook(keep)
    scores = model(images.clone().requires_grad_().clone())[:, 1].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(scores, kept[-1][0], allow_unused=True)
    if gradient is None:
        with pytest.raises(InputError, match="no gradient passes from the score to layer 'here'"):
            attribute(model, images, 1, method="gradcam", layer="here")
        return
    expected = (kept[-1][1] * gradient.mean((2, 3), keepdim=True)).sum(1, keepdim=True)
    found = attribute(model, images, 1, method="gradcam", layer="here", upsample=False, rectify=False)
    torch.testing.assert_close(found.values, expected, rtol=1e-11, atol=1e-14)


def test_layers_that_give_no_single_tensor_are_refused() -> None:
    class Several(nn.Module):
        def __init__(self, kind: str) -> None:
            super().__init__()
            self.kind = kind

        def forward(self, x: Tensor) -> Any:
            return {"tuple": (x, x), "dict": {"a": x}, "bool": x > 0}[self.kind]

    class Around(nn.Module):
        def __init__(self, kind: str) -> None:
            super().__init__()
            self.conv, self.several = nn.Conv2d(3, 2, 3), Several(kind)

        def forward(self, x: Tensor) -> Tensor:
            maps = self.conv(x)
            self.several(maps)
            return maps.mean((2, 3))

    for kind, message in (
        ("tuple", "layer 'several': gives a tuple; expected one tensor"),
        ("dict", "layer 'several': gives a dict; expected one tensor"),
        ("bool", r"layer 'several': gives numbers of type torch\.bool; expected floating-point ones"),
    ):
        with pytest.raises(InputError, match=message):
            attribute(Around(kind), torch.rand(1, 3, 6, 6), 0, method="gradcam", layer="several")


def test_a_layer_within_a_transformer_of_torchs_own_runs() -> None:
    """Frozen, torch would run it in one piece."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.patch = nn.Conv2d(3, 8, 4, 4)
            one = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.encoder = nn.TransformerEncoder(one, 2)
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.encoder(self.patch(x).flatten(2).transpose(1, 2)).mean(1))

    model, images = Encoder().double().eval(), torch.randn(2, 3, 8, 12, dtype=torch.float64)
    kept: list[Tensor] = []
    norm = model.get_submodule("encoder.layers.1.norm1")
    handle = norm.register_forward_hook(lambda *found: kept.append(found[2]))
    (gradient,) = torch.autograd.grad(model(images)[:, 1].sum(), kept[-1])
    handle.remove()
    expected = (kept[-1].detach() * gradient.mean(1, keepdim=True)).sum(2).reshape(2, 1, 2, 3)
    model.requires_grad_(False)
    found = attribute(
        model,
        images,
        1,
        method="gradcam",
        layer="encoder.layers.1.norm1",
        reshape=lambda tokens: tokens.transpose(1, 2).unflatten(2, (2, 3)),
        upsample=False,
        rectify=False,
    )
    torch.testing.assert_close(found.values, expected, rtol=1e-9, atol=1e-14)
    assert torch.backends.mha.get_fastpath_enabled()
