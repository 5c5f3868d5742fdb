"""Every method on small random networks, beside calculations that share nothing with it.

``INTERPRETKIT_RANDOM_NETWORKS=500`` makes it so many networks instead of a few.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interpretkit.attribution import METHODS, attribute
from interpretkit.errors import InputError
from interpretkit.training.seeds import torch_generator

# The tests are imported by path, so that the networks must be found by hand.
sys.path.insert(0, str(Path(__file__).parent))
from random_networks import CLASSES, SIZE, RandomNetwork, Rectified, Rectify

NETWORKS = int(os.environ.get("INTERPRETKIT_RANDOM_NETWORKS", "12"))
SEGMENTS = torch.arange(SIZE)[:, None] // 4 * 2 + torch.arange(SIZE)[None] // 4
TARGETS = (1, 3)
# Those that are compared with themselves on the network written plainly.
OF_RULES: Mapping[str, dict[str, Any]] = {
    "deeplift": {},
    "lrp": {"convolutions": "epsilon", "first": "same"},
    "patternnet": {},
    "pattern_attribution": {},
}
# Those that ask for nothing but scores.
OF_SCORES: Mapping[str, dict[str, Any]] = {
    "occlusion": {"window": 4, "stride": 3},
    "rise": {"samples": 6, "cells": 3},
    "lime": {"samples": 10, "segments": SEGMENTS},
    "kernel_shap": {"samples": 20, "segments": SEGMENTS},
    "prediction_difference": {"window": 4, "padding": 1, "stride": 4, "samples": 1},
    "feature_ablation": {"segments": SEGMENTS},
    "shapley_values": {"segments": SEGMENTS // 2},
}


class _Guided(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0].clamp(min=0) * (x > 0)


class _Deconvolved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].clamp(min=0)


class _Untouched(nn.Module):
    """A model whose functions nobody can see, nor change."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            return self.model(x.contiguous())


class Oracle:
    """What methods must give, calculated from a network that runs as plain as can be."""

    def __init__(self, network: RandomNetwork, x: Tensor) -> None:
        self.network, self.x = network, x
        self.targets = torch.tensor(TARGETS[: len(x)])
        self.plain = network.plain().requires_grad_(False)

    def gradient(self, x: Tensor, targets: Tensor, rectify: Rectify = F.relu) -> Tensor:
        model = self.network.plain(rectify).requires_grad_(False)
        leaf = x.clone().requires_grad_()
        scores = model(leaf).gather(1, targets[:, None])
        return torch.autograd.grad(scores.sum(), leaf)[0]

    def saliency(self) -> Tensor:
        return self.gradient(self.x, self.targets).abs()

    def input_x_gradient(self) -> Tensor:
        return self.gradient(self.x, self.targets) * self.x

    def guided_backprop(self) -> Tensor:
        return self.gradient(self.x, self.targets, _Guided.apply)  # type: ignore[arg-type]

    def deconvnet(self) -> Tensor:
        return self.gradient(self.x, self.targets, _Deconvolved.apply)  # type: ignore[arg-type]

    def integrated_gradients(self, steps: int) -> Tensor:
        places, weights = np.polynomial.legendre.leggauss(steps)
        total = torch.zeros_like(self.x)
        for place, weight in zip(places, weights, strict=True):
            total += weight / 2 * self.gradient((1 + place) / 2 * self.x, self.targets)
        return total * self.x

    def smoothgrad(self, samples: int) -> Tensor:
        flat = self.x.flatten(1)
        deviation = 0.15 * (flat.amax(1) - flat.amin(1))[:, None, None, None]
        total = torch.zeros_like(self.x)
        for k in range(samples):
            noise = torch.randn(self.x.shape[1:], generator=torch_generator(0, "smoothgrad", k))
            total += self.gradient(self.x + deviation * noise.double(), self.targets)
        return total / samples

    def clear(self, classes: int) -> Tensor:
        """The target's deconvolved response, where no rival's is stronger."""
        values = []
        for row, target in enumerate(self.targets.tolist()):
            image = self.x[row : row + 1]
            rivals = [k for k in self.plain(image)[0].argsort(descending=True).tolist() if k != target]
            responses = [
                self.gradient(image, torch.tensor([k]), _Deconvolved.apply).sum(1).clamp(min=0)  # type: ignore[arg-type]
                for k in [target, *rivals[:classes]]
            ]
            own, others = responses[0], torch.stack(responses[1:]).amax(0)
            values.append(torch.where(own >= others, own, 0))
        return torch.stack(values)

    def at(self, layer: str) -> tuple[Tensor, Tensor]:
        """The last output of a layer, and the scores' gradients by it."""
        kept: list[Tensor] = []

        def keep(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            kept.append(output.detach().requires_grad_())
            return kept[-1].clone()

        handle = self.plain.get_submodule(layer).register_forward_hook(keep)
        scores = self.plain(self.x.clone()).gather(1, self.targets[:, None])
        handle.remove()
        return kept[-1].detach(), torch.autograd.grad(scores.sum(), kept[-1])[0]

    def enlarged(self, maps: Tensor) -> Tensor:
        return F.interpolate(maps.relu(), (SIZE, SIZE), mode="bilinear")

    def gradcam(self, layer: str) -> Tensor:
        maps, gradients = self.at(layer)
        return self.enlarged((maps * gradients.mean((2, 3), keepdim=True)).sum(1, keepdim=True))

    def layercam(self, layer: str) -> Tensor:
        maps, gradients = self.at(layer)
        return self.enlarged((maps * gradients.relu()).sum(1, keepdim=True))

    def gradcam_plus_plus(self, layer: str) -> Tensor:
        maps, gradients = self.at(layer)
        below = 2 * gradients**2 + maps.relu().sum((2, 3), keepdim=True) * gradients**3
        shares = torch.where(below != 0, gradients**2 / below, 0)
        weights = (shares * gradients.relu()).sum((2, 3), keepdim=True)
        return self.enlarged((weights * maps).sum(1, keepdim=True))

    def guided_gradcam(self, layer: str) -> Tensor:
        return self.guided_backprop() * self.gradcam(layer)

    def scorecam(self, layer: str) -> Tensor:
        maps, _ = self.at(layer)
        masks = F.interpolate(maps, (SIZE, SIZE), mode="bilinear")
        masks = masks - masks.amin((2, 3), keepdim=True)
        masks = masks / masks.amax((2, 3), keepdim=True).clamp(min=1e-300)
        shown = (self.x[:, None] * masks[:, :, None]).flatten(0, 1)
        scores = self.plain(shown).gather(1, self.targets.repeat_interleave(maps.shape[1])[:, None])
        scores = scores.view(len(self.x), -1)
        constant = maps.amax((2, 3)) == maps.amin((2, 3))
        weights = scores.masked_fill(constant, -torch.inf).softmax(1).nan_to_num(0.0)
        return self.enlarged((weights[:, :, None, None] * maps).sum(1, keepdim=True))


def differs(found: Tensor, expected: Tensor) -> bool:
    room = 1e-9 * float(expected.abs().amax()) + 1e-13
    return found.shape != expected.shape or not bool(((found - expected).abs() <= room).all())


def wrong_methods(seed: int, count: int) -> tuple[list[str], list[str]]:
    """Return the methods that are wrong on a network, and those that refuse it."""
    network = RandomNetwork(seed).train(seed % 2 == 0)
    x = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)).double()
    more = torch.randn(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed + 1)).double()
    x, oracle = x[:count], Oracle(network, x[:count])
    targets = oracle.targets
    untouched = _Untouched(oracle.plain)
    layers = [name for name, module in oracle.plain.named_modules() if isinstance(module, nn.Conv2d)]
    layer = layers[seed % len(layers)]
    wrong: list[str] = []
    refused: list[str] = []

    def check(name: str, expected: Callable[[], Tensor], method: str, **options: Any) -> None:
        try:
            found = attribute(network, x, targets, method=method, **options)
        except InputError as error:
            refused.append(f"{name}: {error}")
            return
        scores = oracle.plain(x)
        if "probabilities" in METHODS[method].options and options.get("probabilities", method != "scorecam"):
            scores = scores.softmax(1)
        scores = scores.gather(1, targets[:, None])[:, 0]
        if differs(found.values, expected()) or differs(found.details["scores"], scores):
            wrong.append(name)

    check("saliency", oracle.saliency, "saliency")
    check("input_x_gradient", oracle.input_x_gradient, "input_x_gradient")
    check("integrated_gradients", lambda: oracle.integrated_gradients(3), "integrated_gradients", steps=3)
    check("smoothgrad", lambda: oracle.smoothgrad(2), "smoothgrad", samples=2)
    check("guided_backprop", oracle.guided_backprop, "guided_backprop")
    check("deconvnet", oracle.deconvnet, "deconvnet")
    check("clear", lambda: oracle.clear(2), "clear", classes=2)
    for method in ("gradcam", "gradcam_plus_plus", "layercam", "guided_gradcam", "scorecam"):
        by_hand = getattr(oracle, method)
        check(f"{method} {layer}", lambda by_hand=by_hand: by_hand(layer), method, layer=layer)
        # What follows the last convolution is an activation and poolings.
        if oracle.at("last")[0][0, 0].numel() > 1:
            check(method, lambda by_hand=by_hand: by_hand("last"), method)
    # Of layers that are rectified piece by piece the patterns are others.
    piecemeal = any(isinstance(step, Rectified) and step.choice(10) == 5 for step in network.steps)
    for method, options in OF_RULES.items():
        if "pattern" in method and piecemeal:
            continue
        own = options | ({"patterns": more} if "pattern" in method else {})

        def plainly(method: str = method, own: dict[str, Any] = own) -> Tensor:
            return attribute(oracle.plain, x, targets, method=method, **own).values

        check(method, plainly, method, **own)
    for method, options in OF_SCORES.items():

        def by_scores(method: str = method, options: dict[str, Any] = options) -> Tensor:
            return attribute(untouched, x, targets, method=method, **options).values

        check(method, by_scores, method, **options)
    check(
        "meaningful_perturbation",
        lambda: (
            attribute(
                oracle.plain,
                x,
                targets,
                method="meaningful_perturbation",
                iterations=2,
                coarseness=2,
                mask_blur=1.0,
                image_blur=1.0,
            ).values
        ),
        "meaningful_perturbation",
        iterations=2,
        coarseness=2,
        mask_blur=1.0,
        image_blur=1.0,
    )
    return wrong, refused


@pytest.mark.parametrize("seed", range(NETWORKS))
@pytest.mark.parametrize("count", [1, 2])
def test_methods_give_what_is_calculated_by_hand(seed: int, count: int) -> None:
    wrong, refused = wrong_methods(seed, count)
    assert not wrong
    assert not [line for line in refused if "\n" in line]


@pytest.mark.parametrize("seed", range(60))
def test_the_networks_are_the_same_however_they_are_written(seed: int) -> None:
    network = RandomNetwork(seed).eval()
    x = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)).double()

    def run(model: nn.Module) -> tuple[Tensor, Tensor]:
        leaf = x.clone().requires_grad_()
        outputs = model(leaf.clone())
        assert outputs.shape == (2, CLASSES)
        outputs[:, 1].sum().backward()
        assert leaf.grad is not None
        return outputs.detach(), leaf.grad

    torch.testing.assert_close(run(network), run(network.plain()), rtol=1e-9, atol=1e-12)
