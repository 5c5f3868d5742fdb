"""Relevance is conserved, whatever way a network takes from its inputs to its score."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interpretkit.attribution import attribute
from interpretkit.attribution.rules import (
    AlphaBeta,
    Box,
    Composite,
    Epsilon,
    Flat,
    Gamma,
    Pass,
    Rule,
    WSquare,
    ZPlus,
)
from interpretkit.errors import InputError

DOUBLE = torch.double


def inputs(n: int = 2, size: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def gap(model: nn.Module, given: Tensor, target: int = 0, **options: Any) -> float:
    found = attribute(model.double(), given, target, method="lrp", **options)
    assert found.values.isfinite().all()
    assert found.values.abs().sum() > 0
    scores = found.details["scores"]
    # The sum itself is looked at, not what the method says of it.
    return float(((found.values.flatten(1).sum(1) - scores).abs() / scores.abs().clamp(min=1e-3)).max())


class Built(nn.Module):
    """A network without biases, from a function of its parts."""

    def __init__(self, forward: Callable[["Built", Tensor], Tensor], seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.a = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.b = nn.Conv2d(3, 4, 1, bias=False)
        self.c = nn.Conv2d(7, 4, 3, padding=1, bias=False)
        self.d = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.rgb = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2, bias=False)
        self.down = nn.Conv2d(4, 4, 2, stride=2, bias=False)
        self.head = nn.Linear(4, 2, bias=False)
        self.wide = nn.Linear(3 * 36, 4, bias=False)
        self.unused = nn.Conv2d(3, 4, 1, bias=False)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def pooled(m: Built, h: Tensor) -> Tensor:
    return m.head(h.relu().mean((2, 3)))


def written(m: Built, x: Tensor) -> Tensor:
    ground = torch.zeros(len(x), 3, 8, 8, dtype=x.dtype)
    ground[:, :, 1:-1, 1:-1] = x
    return pooled(m, m.a(ground))


def scaled_through_a_view(m: Built, x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 0].mul_(2).sub_(0.5)
    return pooled(m, m.a(x))


def overwritten(m: Built, x: Tensor) -> Tensor:
    x = x.clone()
    x[:, :1] = m.rgb(x.clone())[:, :1]
    return pooled(m, m.a(x))


def unused_branch(m: Built, x: Tensor) -> Tensor:
    m.unused(x).relu()
    return pooled(m, m.a(x))


def gated(m: Built, x: Tensor) -> Tensor:
    h = m.a(x).relu()
    return pooled(m, h * m.d(h).sigmoid())


def in_place(m: Built, x: Tensor) -> Tensor:
    h = m.a(x)
    kept = h.clone()
    h.relu_()
    g = m.d(h)
    g += kept
    return pooled(m, g)


def recurrent(m: Built, x: Tensor) -> Tensor:
    h = m.a(x).relu()
    for _ in range(3):
        h = (m.d(h) + h).relu()
    return pooled(m, h)


WAYS: dict[str, Callable[[Built, Tensor], Tensor]] = {
    "one stem": lambda m, x: pooled(m, m.a(x)),
    "two stems": lambda m, x: pooled(m, m.a(x) + m.b(x)),
    "skip by concatenation": lambda m, x: pooled(m, m.c(torch.cat([m.a(x).relu(), x], 1))),
    "skip by addition": lambda m, x: pooled(m, m.a((x + m.rgb(x)).relu())),
    "skip by a linear layer": lambda m, x: m.head(m.a(x).relu().mean((2, 3)) + m.wide(x.flatten(1))),
    "stem of a part": lambda m, x: pooled(m, m.a(x) + m.b(x.flip(3))[:, :, :6] * 2),
    "patches of channels": lambda m, x: pooled(m, m.a(torch.stack(x.unbind(1)[::-1], 1))),
    "pooled inputs": lambda m, x: pooled(m, m.a(F.avg_pool2d(x, 2))),
    "scaled inputs": lambda m, x: pooled(m, m.a((x - 0.3) / 0.2)),
    "scaled from the left": lambda m, x: pooled(m, m.a(0.3 - 2.0 * x)),
    "scaled in place": lambda m, x: pooled(m, m.a(x.clone().sub_(0.3).div_(0.2))),
    "scaled through a view": scaled_through_a_view,
    "clamped": lambda m, x: pooled(m, m.a(x.clamp(-0.5, 0.5))),
    "squared": lambda m, x: pooled(m, m.a(x.square())),
    "product with the inputs": lambda m, x: pooled(m, m.a(x * m.rgb(x).sigmoid())),
    "centred by its mean": lambda m, x: pooled(m, m.a(x - x.mean((2, 3), keepdim=True))),
    "written into a buffer": written,
    "partly overwritten": overwritten,
    "coordinates beside": lambda m, x: pooled(
        m, m.c(torch.cat([x, torch.zeros(len(x), 4, 6, 6, dtype=x.dtype)], 1))
    ),
    "unused branch": unused_branch,
    "gate": gated,
    "in place": in_place,
    "reused": recurrent,
    "down and up": lambda m, x: pooled(m, m.up(m.down(m.a(x).relu()).relu()) + m.b(x)),
    "max pooling": lambda m, x: pooled(m, m.d(F.max_pool2d(m.a(x).relu(), 2))),
    "interpolation": lambda m, x: pooled(
        m, m.d(F.interpolate(m.a(x).relu(), scale_factor=2, mode="bilinear"))
    ),
    "functions": lambda m, x: torch.matmul(F.conv2d(x, m.a.weight).relu().amax((2, 3)), m.head.weight.T),
    "divided by a norm": lambda m, x: m.head(F.normalize(m.a(x).relu().mean((2, 3)), dim=1)),
    "divided by itself": lambda m, x: pooled(m, m.a(x) / (1 + m.a(x).abs().sum(1, keepdim=True))),
}

RULES: dict[str, Composite | Rule | None] = {
    "default": None,
    "epsilon": Epsilon(0.0),
    "gamma": Gamma(0.5, 0.0),
    "z_plus": ZPlus(0.0),
    "alpha_beta": AlphaBeta(2.0, 1.0, 0.0),
    "flat": Composite(default=Epsilon(0.0), first=Flat()),
    "w_square": Composite(default=ZPlus(0.0), first=WSquare()),
    "box": Composite(default=Gamma(0.25, 0.0), first=Box(epsilon=0.0), last=Epsilon(0.0)),
    "flat everywhere": Flat(),
    "w_square everywhere": WSquare(),
}


@pytest.mark.parametrize("rules", ["default", "gamma", "alpha_beta", "box", "flat", "w_square everywhere"])
@pytest.mark.parametrize("way", WAYS)
def test_relevance_is_conserved_on_every_way(way, rules):
    model = Built(WAYS[way])
    options: dict[str, Any] = {"epsilon": 0.0} if RULES[rules] is None else {"rules": RULES[rules]}
    assert gap(model, inputs(), **options) < 1e-8


@pytest.mark.parametrize("way", [way for way in WAYS if "scaled" not in way and "divided" not in way])
def test_epsilon_zero_is_input_times_gradient_where_steps_are_homogeneous(way):
    if way in {"gate", "squared", "product with the inputs", "clamped"}:
        pytest.skip("not homogeneous of degree one")
    model = Built(WAYS[way]).double()
    found = attribute(model, inputs(), 1, method="lrp", rules=Epsilon(0.0))
    expected = attribute(model, inputs(), 1, method="input_x_gradient")
    torch.testing.assert_close(found.values, expected.values, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rules", RULES)
def test_the_order_in_which_stems_are_called_changes_nothing(rules):
    options: dict[str, Any] = {} if RULES[rules] is None else {"rules": RULES[rules]}
    first = Built(lambda m, x: pooled(m, m.a(x) + m.b(x))).double()
    second = Built(lambda m, x: pooled(m, sum([m.b(x), m.a(x)]))).double()  # type: ignore[arg-type]
    a, b = (attribute(m, inputs(), 1, method="lrp", **options).values for m in (first, second))
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)


def test_parts_that_no_layer_uses_get_nothing():
    table = nn.Sequential(nn.Linear(6, 10, bias=False), nn.ReLU(), nn.Linear(10, 3, bias=False)).double()
    with torch.no_grad():
        table[0].weight[:, :2] = 0  # type: ignore[index]
    rows = torch.randn(4, 6, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
    for options in ({}, {"rules": WSquare()}, {"rules": Gamma()}, {"rules": Composite(first=Box())}):
        values = attribute(table, rows, 0, method="lrp", **options).values  # type: ignore[arg-type]
        assert (values[:, :2] == 0).all()
        assert (values[:, 2:].abs().sum(1) > 0).all()
    model = Built(lambda m, x: pooled(m, m.a(x[:, :, :3]) + 0 * m.unused(x).detach()[:, :, :3])).double()
    values = attribute(model, inputs(), 0, method="lrp").values
    assert (values[:, :, 3:] == 0).all()


def test_tables_get_the_epsilon_rule_and_images_the_box():
    table = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3)).double()
    rows = torch.randn(4, 6, dtype=DOUBLE)
    expected = attribute(table, rows, 1, method="lrp", rules=Epsilon())
    assert torch.equal(attribute(table, rows, 1, method="lrp").values, expected.values)
    model, given = Built(WAYS["two stems"]).double(), inputs()
    low, high = given.amin((2, 3), keepdim=True), given.amax((2, 3), keepdim=True)
    boxed = attribute(model, given, 1, method="lrp", first="box", low=low, high=high)
    assert torch.equal(attribute(model, given, 1, method="lrp").values, boxed.values)


def test_box_by_hand():
    layer = nn.Conv2d(2, 1, 1, bias=False).double()
    with torch.no_grad():
        layer.weight[:] = torch.tensor([2.0, -1.0]).reshape(1, 2, 1, 1)
    x = torch.tensor([0.5, 0.2], dtype=DOUBLE).reshape(1, 2, 1, 1)
    model = nn.Sequential(layer, nn.Flatten())
    found = attribute(model, x, 0, method="lrp", rules=Composite(first=Box(0.0, 1.0, epsilon=0.0)))
    # From the corner (0, 1): 2 · 0.5 and −1 · (0.2 − 1), of a score of 0.8.
    expected = 0.8 * torch.tensor([1.0, 0.8], dtype=DOUBLE) / 1.8
    torch.testing.assert_close(found.values.flatten(), expected, rtol=1e-12, atol=0)


def test_gamma_by_hand():
    torch.manual_seed(3)
    layer = nn.Linear(5, 3).double()
    x = torch.randn(1, 5, dtype=DOUBLE)
    parts = (layer.weight * x).detach()
    bias = layer.bias.detach()
    for target in range(3):
        own, score = parts[target], float(parts[target].sum() + bias[target])
        sign = 1 if score > 0 else -1
        favoured = own + 0.7 * (own * sign).clamp(min=0) * sign
        total = favoured.sum() + bias[target] + 0.7 * (bias[target] * sign).clamp(min=0) * sign
        found = attribute(layer, x, target, method="lrp", rules=Gamma(0.7, 0.0))
        torch.testing.assert_close(found.values[0], score * favoured / total, rtol=1e-10, atol=1e-14)


def test_gamma_goes_from_epsilon_to_the_positive_contributions():
    model, given = Built(WAYS["reused"]).double(), inputs()
    small = attribute(model, given, 1, method="lrp", rules=Gamma(0.0, 0.0)).values
    torch.testing.assert_close(
        small, attribute(model, given, 1, method="lrp", rules=Epsilon(0.0)).values, rtol=1e-8, atol=1e-12
    )
    relu = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten()).double()
    target = int(relu(given[:1]).argmax())
    large = attribute(relu, given[:1], target, method="lrp", rules=Gamma(1e9, 0.0)).values
    plus = attribute(relu, given[:1], target, method="lrp", rules=ZPlus(0.0)).values
    torch.testing.assert_close(large, plus, rtol=1e-6, atol=1e-9)


def test_rules_are_chosen_by_name_place_and_type():
    model, given = Built(WAYS["reused"]).double(), inputs()

    def values(rules: Composite | Rule) -> Tensor:
        return attribute(model, given, 1, method="lrp", rules=rules).values

    base = Composite(default=Epsilon(0.0))
    assert torch.equal(values(base), values(Epsilon(0.0)))
    for same in (
        Composite(default=Epsilon(0.0), names={"d": ZPlus(0.0)}),
        Composite(default=ZPlus(0.0), names={"[ah]*": Epsilon(0.0)}),
        Composite(default=ZPlus(0.0), first=Epsilon(0.0), last=Epsilon(0.0)),
        Composite(types={nn.Linear: Epsilon(0.0), nn.Conv2d: ZPlus(0.0)}, first=Epsilon(0.0)),
    ):
        torch.testing.assert_close(
            values(same), values(Composite(default=Epsilon(0.0), names={"d": ZPlus(0.0)})), rtol=1e-12, atol=0
        )
    assert not torch.allclose(values(base), values(Composite(default=Epsilon(0.0), names={"d": ZPlus(0.0)})))
    # A name comes before a place, a place before a type.
    assert torch.equal(
        values(Composite(default=Epsilon(0.0), names={"a": Epsilon(0.0)}, first=Flat())), values(base)
    )
    assert torch.equal(
        values(Composite(default=Epsilon(0.0), first=Epsilon(0.0), types={nn.Conv2d: Epsilon(0.0)})),
        values(base),
    )


def test_every_last_layer_is_one():
    model = Built(lambda m, x: m.head(m.a(x).relu().mean((2, 3))) + m.wide(x.flatten(1))[:, :2]).double()
    given = inputs()
    found = attribute(model, given, 0, method="lrp", rules=Composite(default=Epsilon(0.0), last=ZPlus(0.0)))
    named = Composite(default=Epsilon(0.0), names={"head": ZPlus(0.0), "wide": ZPlus(0.0)})
    expected = attribute(model, given, 0, method="lrp", rules=named)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-12, atol=0)


def test_rules_of_ones_own():
    class Doubled(Rule):
        def coefficients(self, step: Any, value: Tensor, coefficients: Tensor) -> Tensor:
            return 2 * Epsilon(0.0).coefficients(step, value, coefficients)

    model, given = Built(WAYS["one stem"]).double(), inputs()
    found = attribute(model, given, 0, method="lrp", rules=Composite(Epsilon(0.0), names={"head": Doubled()}))
    expected = attribute(model, given, 0, method="lrp", rules=Epsilon(0.0))
    torch.testing.assert_close(found.values, 2 * expected.values, rtol=1e-12, atol=0)


def test_pass_leaves_relevance_in_its_place():
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 2)).double()
    x = torch.randn(2, 5, dtype=DOUBLE)
    found = attribute(model, x, 0, method="lrp", rules=Composite(Epsilon(0.0), first=Pass()))
    hidden = model[0](x).detach()
    torch.testing.assert_close(found.values, hidden * model[1].weight[0].detach(), rtol=1e-12, atol=0)  # type: ignore[union-attr, index, operator]
    with pytest.raises(InputError, match=r"Pass is asked of a layer from \(5,\) to \(2,\)"):
        attribute(model, x, 0, method="lrp", rules=Pass())


class Attending(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.embed = nn.Linear(3, 8, bias=False)
        self.norm = nn.LayerNorm(8)
        self.mixed = nn.MultiheadAttention(8, 2, bias=False, batch_first=True)
        self.q, self.k, self.v = (nn.Linear(8, 8, bias=False) for _ in range(3))
        self.head = nn.Linear(8, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x.flatten(2).transpose(1, 2))
        n = self.norm(h)
        if self.kind == "module":
            h = h + self.mixed(n, n, n, need_weights=False)[0]
        elif self.kind == "fused":
            h = h + F.scaled_dot_product_attention(self.q(n), self.k(n), self.v(n))
        elif self.kind == "by hand":
            weights = (self.q(n) @ self.k(n).transpose(1, 2) / 8**0.5).softmax(-1)
            h = h + F.dropout(weights, 0.1, self.training) @ self.v(n)
        else:
            weights = torch.einsum("nic,njc->nij", self.q(n), self.k(n)).softmax(-1)
            h = h + torch.einsum("nij,njc->nic", weights, self.v(n))
        return self.head(h.mean(1))


@pytest.mark.parametrize("kind", ["module", "fused", "by hand", "einsum"])
def test_attention_conserves_relevance(kind):
    model = Attending(kind)
    for rules in (Epsilon(0.0), Gamma(0.1, 0.0)):
        assert gap(model, inputs(), rules=rules) < 1e-8


@pytest.mark.parametrize("kind", ["module", "fused", "by hand", "einsum"])
def test_attention_weights_are_taken_for_constants(kind):
    model = Attending(kind).double()
    x = inputs(1)
    found = attribute(model, x, 1, method="lrp", rules=Epsilon(0.0))
    with torch.no_grad():
        h = model.embed(x.flatten(2).transpose(1, 2))
        n = model.norm(h)
        if kind == "module":
            weights = model.mixed(n, n, n, average_attn_weights=False)[1]
        else:
            weights = (model.q(n) @ model.k(n).transpose(1, 2) / (1 if kind == "einsum" else 8**0.5)).softmax(
                -1
            )
        spread = (h.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    leaf = x.clone().requires_grad_()
    h = model.embed(leaf.flatten(2).transpose(1, 2))
    n = (h - h.mean(-1, keepdim=True)) / spread
    if kind == "module":
        values = F.linear(n, model.mixed.in_proj_weight[16:]).unflatten(2, (2, 4)).transpose(1, 2)
        h = h + model.mixed.out_proj((weights @ values).transpose(1, 2).flatten(2))
    else:
        h = h + weights @ model.v(n)
    (gradient,) = torch.autograd.grad(model.head(h.mean(1))[0, 1], leaf)
    torch.testing.assert_close(found.values, x * gradient, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm([4, 6, 6]), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.RMSNorm(6)]
)
def test_norms_conserve_relevance(norm):
    model = Built(lambda m, x: pooled(m, m.a(x) + m.d(m.norm(m.b(x)))))  # type: ignore[operator]
    model.norm = norm
    assert gap(model, inputs(), rules=Epsilon(0.0)) < 1e-8


def test_recurrent_layers_are_refused_in_a_line():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTM(3, 4, batch_first=True)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.cell(x)[0][:, -1])

    with pytest.raises(InputError, match="runs lstm, for which relevance propagation has no rule"):
        attribute(Recurrent(), torch.randn(2, 5, 3), 0, method="lrp")


def test_a_function_of_the_outputs_is_propagated_too():
    model, given = Built(WAYS["one stem"]).double(), inputs()
    found = attribute(
        model, given, lambda outputs: outputs.softmax(1)[:, 1], method="lrp", rules=Epsilon(0.0)
    )
    probability = model(given).softmax(1)[:, 1].detach()
    torch.testing.assert_close(found.values.sum((1, 2, 3)), probability, rtol=1e-8, atol=0)


def test_biases_absorb_what_the_rule_gives_them():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    x = torch.randn(3, 4, dtype=DOUBLE)
    found = attribute(model, x, 0, method="lrp", rules=Epsilon(0.0))
    first, last = model[0], model[2]
    hidden = first(x).detach()
    coefficients = last.weight[0].detach() * (hidden > 0)  # type: ignore[union-attr, index]
    absorbed = last.bias.detach()[0] + coefficients @ first.bias.detach()  # type: ignore[union-attr, index, operator]
    torch.testing.assert_close(found.details["conservation_gap"], -absorbed, rtol=1e-9, atol=1e-12)


class Random(nn.Module):
    """A network of random steps: stems anywhere, skips, concatenations, sums, reused layers, without biases."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = random.Random(seed)
        torch.manual_seed(seed)
        self.layers = nn.ModuleDict()
        self.steps: list[tuple[str, tuple[int, ...], str]] = []
        widths = [3]
        for number in range(draw.randint(4, 9)):
            kind = draw.choice(
                ["conv", "conv", "reuse", "add", "cat", "relu", "pool", "gate", "norm", "view"]
            )
            one, other, name = draw.randrange(len(widths)), draw.randrange(len(widths)), ""
            if kind == "reuse":
                fitting = [n for n, layer in self.layers.items() if layer.in_channels == widths[one]]
                if not fitting:
                    kind = "conv"
                else:
                    name = draw.choice(fitting)
            if kind == "conv":
                name = str(number)
                self.layers[name] = nn.Conv2d(widths[one], draw.randint(2, 4), 3, padding=1, bias=False)
            elif kind in {"add", "gate"}:
                same = [n for n, width in enumerate(widths) if width == widths[one]]
                other = draw.choice(same)
            self.steps.append((kind, (one, other), name))
            widths.append(
                self.layers[name].out_channels  # type: ignore[arg-type]
                if name
                else widths[one] + widths[other]
                if kind == "cat"
                else widths[one]
            )
        self.head = nn.Linear(sum(widths[-2:]), 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for kind, (one, other), name in self.steps:
            a, b = found[one], found[other]
            if kind in {"conv", "reuse"}:
                found.append(self.layers[name](a))
            elif kind == "add":
                found.append(a + b)
            elif kind == "cat":
                found.append(torch.cat([a, b], 1))
            elif kind == "relu":
                found.append(F.leaky_relu(a, 0.1))
            elif kind == "pool":
                found.append(F.avg_pool2d(a, 3, stride=1, padding=1))
            elif kind == "gate":
                found.append(a * b.sigmoid())
            elif kind == "norm":
                found.append(a / (1 + a.square().sum(1, keepdim=True)).sqrt())
            else:
                found.append(a.transpose(2, 3).flip(3))
        return self.head(torch.cat([found[-2].mean((2, 3)), found[-1].amax((2, 3))], 1))


@pytest.mark.parametrize("seed", range(32))
def test_random_networks_conserve_relevance(seed):
    model, given = Random(seed).double(), inputs(seed=seed)
    if not len(model.layers):
        pytest.skip("no layer")
    for rules in ("gamma", "box"):
        found = attribute(model, given, 1, method="lrp", rules=RULES[rules])
        sizes = found.values.abs().flatten(1).sum(1).clamp(min=1e-6)
        lost = (found.values.flatten(1).sum(1) - found.details["scores"]).abs()
        assert (lost < 1e-8 * sizes.clamp(min=1)).all(), (rules, lost)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("epsilon", "rules: are a str; expected a Composite"),
        (Composite(names={"head2": ZPlus()}), "no layer is called 'head2'; the nearest are head"),
        (Composite(names={"d": Box()}), "Box is asked of a layer that sees other than the model's inputs"),
        (Composite(first=Box(0.0, 1.0)), "low, high: some inputs lie outside"),
        (
            Composite(first=Box(-9.0, 9.0), names={"a": Box(-8.0, 9.0)}),
            "box rules have several bounds",
        ),
    ],
)
def test_rules_that_do_not_fit_are_refused_in_a_line(rules, message):
    with pytest.raises(InputError, match=message) as caught:
        attribute(Built(WAYS["reused"]).double(), inputs(), 0, method="lrp", rules=rules)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Epsilon(-1.0), "epsilon -1.0: expected"),
        (lambda: Gamma(-0.5), "gamma -0.5: expected"),
        (lambda: AlphaBeta(2.0, 2.0), "alpha 2.0, beta 2.0: expected"),
        (lambda: Box(low=0.0), "low, high: one of them lacks"),
        (lambda: Composite(default="epsilon"), "default has a str; expected a rule"),  # type: ignore[arg-type]
        (lambda: Composite(types={"conv": ZPlus()}), "types has 'conv'; expected a class"),  # type: ignore[dict-item]
    ],
)
def test_rules_that_make_no_sense_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
    with pytest.raises(InputError, match="stand in place of convolutions, first and epsilon"):
        attribute(Built(WAYS["one stem"]).double(), inputs(), 0, method="lrp", rules=Epsilon(), first="flat")
