"""Small random networks, each written twice: with all the habits that break attribution, and as plain as can be."""

from __future__ import annotations

import copy
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

SIZE = 8
CLASSES = 4
Rectify = Callable[[Tensor], Tensor]


class Step(nn.Module, ABC):
    """A step of a network on maps ``(n, channels, height, width)``, given contiguous and returned so.

    ``written`` is the network as somebody has written it, ``plain`` the same function out of place, without views.
    ``keeps`` says whether the way back needs what the step gives, so that nobody may write into it.
    """

    keeps = False

    def __init__(self, draw: random.Random, channels: int) -> None:
        super().__init__()
        self.draw = draw.randrange(1 << 30)
        self.out = channels

    def choice(self, count: int, salt: int = 0) -> int:
        return random.Random(self.draw + salt).randrange(count)

    @abstractmethod
    def written(self, h: Tensor, x: Tensor) -> Tensor: ...

    @abstractmethod
    def plain(self, h: Tensor, x: Tensor, rectify: Rectify) -> Tensor: ...


class Convolve(Step):
    def __init__(self, draw: random.Random, channels: int) -> None:
        super().__init__(draw, channels)
        self.out = draw.choice([4, 6])
        groups = draw.choice([1, 1, 2])
        stride, kernel = draw.choice([(1, 3), (1, 1), (2, 3), (2, 1), (1, 3)])
        mode: Any = draw.choice(["zeros", "zeros", "replicate"])
        self.conv = nn.Conv2d(
            channels, self.out, kernel, stride, kernel // 2, groups=groups, padding_mode=mode
        )
        self.norm = nn.BatchNorm2d(self.out) if draw.random() < 0.5 else nn.Identity()

    def written(self, h: Tensor, x: Tensor) -> Tensor:
        return self.norm(self.conv(h))

    def plain(self, h: Tensor, x: Tensor, rectify: Rectify) -> Tensor:
        return self.norm(self.conv(h))


class Rectified(Step):
    keeps = True

    def __init__(self, draw: random.Random, channels: int) -> None:
        super().__init__(draw, channels)
        self.relu = nn.ReLU()
        self.inplace = nn.ReLU(inplace=True)

    def written(self, h: Tensor, x: Tensor) -> Tensor:
        form = self.choice(10)
        if form == 0:
            return self.relu(h)
        if form == 1:
            return self.inplace(h)
        if form == 2:
            return F.relu(h, inplace=True)
        if form == 3:
            return torch.relu(input=h)
        if form == 4:
            h.view(len(h), h.shape[1], -1).relu_()
            return h
        if form == 5:
            half = h.shape[1] // 2
            h[:, :half].relu_()
            return torch.cat([h[:, :half], F.relu(h[:, half:])], 1)
        if form == 6:
            self.inplace(h)
            return h
        if form == 7:
            torch.relu_(h.flatten(1))
            return h
        if form == 8:
            return h.relu()
        return h.relu_()

    def plain(self, h: Tensor, x: Tensor, rectify: Rectify) -> Tensor:
        return rectify(h)


class Bent(Step):
    keeps = True

    def written(self, h: Tensor, x: Tensor) -> Tensor:
        forms = (
            lambda h: F.leaky_relu(h, 0.2, True),
            lambda h: F.elu_(h),
            lambda h: F.silu(h, inplace=True),
            lambda h: h.tanh_(),
            lambda h: F.hardtanh(h, -1.0, 1.5, inplace=True),
            lambda h: h.view(-1).sigmoid_().view_as(h),
            lambda h: F.gelu(h),
            lambda h: h.view(len(h), -1).clamp_(-1, 1).view(h.shape),
        )
        return forms[self.choice(len(forms))](h)

    def plain(self, h: Tensor, x: Tensor, rectify: Rectify) -> Tensor:
        forms = (
            lambda h: F.leaky_relu(h, 0.2),
            lambda h: F.elu(h),
            lambda h: F.silu(h),
            lambda h: torch.tanh(h),
            lambda h: F.hardtanh(h, -1.0, 1.5),
            lambda h: torch.sigmoid(h),
            lambda h: F.gelu(h),
            lambda h: torch.clamp(h, -1, 1),
        )
        return forms[self.choice(len(forms))](h)


class ThroughViews(Step):
    """Writes into a map by a view of it."""

    def written(self, h: Tensor, x: Tensor) -> Tensor:
        form = self.choice(7)
        if form == 0:
            flat = h.view(len(h), h.shape[1], -1)
            flat -= flat.mean(2, keepdim=True)
        elif form == 1:
            h.flatten(2).mul_(1.3)
        elif form == 2:
            h[:, 0] *= 2
        elif form == 3:
            h.permute(0, 2, 3, 1).add_(0.1)
        elif form == 4:
            rows = h.reshape(len(h), -1)
            rows += 0.2
        elif form == 5:
            h[..., 0, :] = h[..., -1, :]
        else:
            first, second = h.chunk(2, 1)[0].detach(), h.contiguous()
            second.sub_(0.05 * first.mean((1, 2, 3), keepdim=True))
        return h

    def plain(self, h: Tensor, x: Tensor, rectify: Rectify) -> Tensor:
        form = self.choice(7)
        if form == 0:
            return h - h.mean((2, 3), keepdim=True)
        if form == 1:
            return h * 1.3
        if form == 2:
            return torch.cat([h[:, :1] * 2, h[:, 1:]], 1)
        if form == 3:
            return h + 0.1
        if form == 4:
            return h + 0.2
        if form == 5:
            return torch.cat([h[..., -1:, :], h[..., 1:, :]], 2)
        return h - 0.05 * h[:, : -(-h.shape[1] // 2)].detach().mean((1, 2, 3), keepdim=True)


class Residual(Step):
    keeps = True

    def __init__(self, draw: random.Random, channels: int) -> None:
        super().__init__(draw, channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        # The same module, and the same weights, several times in a pass.
        self.times = draw.choice([1, 1, 2])

    def written(self, h: Tensor, x: Tensor) -> Tensor:
        for _ in range(self.times):
            kept = h
            h = self.norm(self.conv(h))
            if self.choice(2):
                h += kept
            else:
                torch.Tensor.add_(h, kept)
            h = self.relu(h)
        return h

    def plain(self, h: Tensor, x: Tensor, rectify: Rectify) -> Tensor:
        for _ in range(self.times):
            h = rectify(self.norm(self.conv(h)) + h)
        return h


class Branches(Step):
    def __init__(self, draw: random.Random, channels: int) -> None:
        super().__init__(draw, channels)
        self.a = nn.Conv2d(channels, 2, 3, padding=1)
        self.b = nn.Conv2d(channels, 2, 1)
        self.c = nn.Conv2d(channels, 2, 1)
        self.out = 6

    def written(self, h: Tensor, x: Tensor) -> Tensor:
        parts = [self.b(h).relu_(), F.relu(self.a(h), inplace=True)]
        parts.insert(self.choice(3), F.avg_pool2d(self.c(h), 3, 1, 1))
        return torch.cat(parts, 1)

    def plain(self, h: Tensor, x: Tensor, rectify: Rectify) -> Tensor:
        parts = [rectify(self.b(h)), rectify(self.a(h))]
        parts.insert(self.choice(3), F.avg_pool2d(self.c(h), 3, 1, 1))
        return torch.cat(parts, 1)


class Shuffle(Step):
    def written(self, h: Tensor, x: Tensor) -> Tensor:
        n, channels, height, width = h.shape
        form = self.choice(3)
        if form == 0:
            split = h.view(n, 2, channels // 2, height, width)
            return split.transpose(1, 2).contiguous().view(n, -1, height, width)
        if form == 1:
            return h.unflatten(1, (2, -1)).transpose(1, 2).reshape(h.shape)
        return torch.cat([h[:, k::2] for k in range(2)], 1)[:, self._order(channels)]

    @staticmethod
    def _order(channels: int) -> list[int]:
        # Undoes the sorting into even and odd, and interleaves the halves.
        even_odd = [*range(0, channels, 2), *range(1, channels, 2)]
        wanted = [k // 2 + (k % 2) * (channels // 2) for k in range(channels)]
        return [even_odd.index(w) for w in wanted]

    def plain(self, h: Tensor, x: Tensor, rectify: Rectify) -> Tensor:
        half = h.shape[1] // 2
        return torch.cat([h[:, [k, half + k]] for k in range(half)], 1)


class Pool(Step):
    def written(self, h: Tensor, x: Tensor) -> Tensor:
        return self.plain(h, x, F.relu)

    def plain(self, h: Tensor, x: Tensor, rectify: Rectify) -> Tensor:
        forms: tuple[Callable[[Tensor], Tensor], ...] = (
            nn.MaxPool2d(2, ceil_mode=True),
            lambda h: F.max_pool2d(h, 3, 1, 1),
            nn.AvgPool2d(2, ceil_mode=True),
            nn.AdaptiveAvgPool2d(3),
            lambda h: F.interpolate(h, scale_factor=2.0, mode="nearest"),
        )
        return forms[self.choice(len(forms))](h)


class Excite(Step):
    def __init__(self, draw: random.Random, channels: int) -> None:
        super().__init__(draw, channels)
        self.fc = nn.Linear(channels, channels)

    def written(self, h: Tensor, x: Tensor) -> Tensor:
        weights = self.fc(h.mean((2, 3))).sigmoid_()
        form = self.choice(3)
        if form == 0:
            return h.mul_(weights[:, :, None, None])
        if form == 1:
            return h * weights.view(len(h), -1, 1, 1).expand_as(h)
        h *= weights.unsqueeze(-1).unsqueeze(-1)
        return h

    def plain(self, h: Tensor, x: Tensor, rectify: Rectify) -> Tensor:
        return h * torch.sigmoid(self.fc(h.mean((2, 3))))[:, :, None, None]


class Checkpointed(Step):
    keeps = True

    def __init__(self, draw: random.Random, channels: int) -> None:
        super().__init__(draw, channels)
        self.part = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True))

    def written(self, h: Tensor, x: Tensor) -> Tensor:
        return checkpoint(self.part, h, use_reentrant=bool(self.choice(2)))  # type: ignore[return-value]

    def plain(self, h: Tensor, x: Tensor, rectify: Rectify) -> Tensor:
        return rectify(self.part[0](h))


class Attend(Step):
    """Tokens that attend to each other, by torch's module or by hand."""

    def __init__(self, draw: random.Random, channels: int) -> None:
        super().__init__(draw, channels)
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.back = nn.Linear(channels, channels)

    @staticmethod
    def _flat(h: Tensor) -> Tensor:
        # Brings the gradient back in one stretch: of a single example in the order of tokens, torch's own layers
        # before have given wrong ones.
        return h.reshape(len(h), -1)

    def written(self, h: Tensor, x: Tensor) -> Tensor:
        n, channels, height, width = h.shape
        tokens = self._flat(h).view(n, channels, -1).transpose(1, 2)
        q, k, v = self.qkv(self.norm(tokens)).view(n, -1, 3, channels).unbind(2)
        weights = torch.baddbmm(q.new_zeros(1, 1, 1), q, k.transpose(1, 2)).div_(channels**0.5).softmax(-1)
        found = self.back(weights @ v)
        found += tokens
        return (
            found.transpose(1, 2)
            .reshape(n, channels, height, width)
            .clone(memory_format=torch.contiguous_format)
        )

    def plain(self, h: Tensor, x: Tensor, rectify: Rectify) -> Tensor:
        tokens = self._flat(h).unflatten(1, (h.shape[1], -1)).transpose(1, 2)
        q, k, v = self.qkv(self.norm(tokens)).chunk(3, 2)
        weights = (torch.bmm(q, k.transpose(1, 2)) / h.shape[1] ** 0.5).softmax(-1)
        found = self.back(torch.matmul(weights, v)) + tokens
        return found.transpose(1, 2).reshape(h.shape).contiguous()


class FromTheInput(Step):
    """The input again: a second stem, or a skip."""

    def __init__(self, draw: random.Random, channels: int) -> None:
        super().__init__(draw, channels)
        self.kind = draw.randrange(2)
        self.out = channels if self.kind else channels + 4
        self.stem = nn.Conv2d(3, channels if self.kind else 4, 1, bias=bool(self.kind))

    def written(self, h: Tensor, x: Tensor) -> Tensor:
        small = F.adaptive_avg_pool2d(x, h.shape[2:])  # type: ignore[arg-type]
        if self.kind:
            h += self.stem(small)
            return h
        return torch.cat([h, self.stem(small)], dim=1)

    def plain(self, h: Tensor, x: Tensor, rectify: Rectify) -> Tensor:
        small = F.adaptive_avg_pool2d(x, h.shape[2:])  # type: ignore[arg-type]
        return h + self.stem(small) if self.kind else torch.cat([h, self.stem(small)], 1)


class _Swish(torch.autograd.Function):
    """As memory-saving activations are written: with a backward pass of their own."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return (gradient.reshape(len(x), -1) * (s * (1 + x * (1 - s))).view(len(x), -1)).view(x.shape)


class Odd(Step):
    """Dropout in evaluation mode, stopped gradients, functions of one's own, other orders of memory."""

    def __init__(self, draw: random.Random, channels: int) -> None:
        super().__init__(draw, channels)
        self.drop = nn.Dropout2d(0.5, inplace=True)

    def written(self, h: Tensor, x: Tensor) -> Tensor:
        form = self.choice(5)
        if form == 0:
            return F.dropout(self.drop(h), 0.3, self.training, True).mul_(1.1)
        if form == 1:
            return h + 0.5 * h.detach()
        if form == 2:
            return _Swish.apply(h)  # type: ignore[return-value]
        if form == 3:
            # Reads the memory itself.
            strides = h.stride()
            return h.as_strided(h.shape, strides) + h.is_contiguous() * 0.1
        turned = h.transpose(2, 3).contiguous()
        turned.view(-1).mul_(0.7)
        return turned.transpose(2, 3).contiguous()

    def plain(self, h: Tensor, x: Tensor, rectify: Rectify) -> Tensor:
        form = self.choice(5)
        if form == 0:
            return h * 1.1
        if form == 1:
            return h + 0.5 * h.detach()
        if form == 2:
            return _Swish.apply(h)  # type: ignore[return-value]
        if form == 3:
            return h + 0.1
        return h * 0.7


STEPS: tuple[type[Step], ...] = (
    *(
        Convolve,
        Convolve,
        Rectified,
        Rectified,
        Rectified,
        Bent,
        ThroughViews,
        ThroughViews,
        Residual,
        Branches,
    ),
    *(Shuffle, Pool, Excite, Checkpointed, Attend, FromTheInput, Odd),
)


class RandomNetwork(nn.Module):
    """A network of a stem, some random steps and a head, from images ``(n, 3, 8, 8)`` to ``(n, 4)``.

    Parameters
    ----------
    seed : int
        The same seed gives the same network.

    Attributes
    ----------
    plainly : bool
        Whether it runs as plain as can be.
    rectify : callable
        The ReLU of plain runs.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = random.Random(seed)
        torch.manual_seed(seed)
        self.plainly = False
        self.rectify: Rectify = F.relu
        self.stem = nn.Conv2d(3, 4, 3, draw.choice([1, 1, 2]), 1)
        self.relu = nn.ReLU(inplace=draw.random() < 0.5)
        steps: list[Step] = []
        channels = 4
        for _ in range(draw.randint(1, 5)):
            step = draw.choice(STEPS)(draw, channels)
            steps.append(step)
            channels = step.out
        self.steps = nn.ModuleList(steps)
        # So that the last map is a convolution's with its activation, whatever the steps have been.
        self.last = nn.Conv2d(channels, 6, 3, padding=1)
        self.head_form = draw.randrange(5)
        self.pool = nn.AdaptiveAvgPool2d(2 if self.head_form == 2 else 1)
        self.fc = nn.Linear(24 if self.head_form == 2 else 6, CLASSES)
        self.double()
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.copy_(0.2 * torch.randn(module.num_features, generator=generator))
                module.running_var.copy_(0.5 + torch.rand(module.num_features, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        h = self.rectify(self.stem(x)) if self.plainly else self.relu(self.stem(x))
        kept = True
        for step in self.steps:
            assert isinstance(step, Step)
            h = step.plain(h, x, self.rectify) if self.plainly else step.written(h.clone() if kept else h, x)
            kept = step.keeps
        return self._head(self.last(h))

    def _head(self, h: Tensor) -> Tensor:
        if self.plainly:
            h = self.rectify(h)
            if self.head_form == 2:
                return self.fc(F.adaptive_avg_pool2d(h, 2).flatten(1))
            return self.fc(h.amax((2, 3)) if self.head_form == 4 else h.mean((2, 3))) * 1.5
        h = self.relu(h) if self.head_form % 2 else F.relu(h, inplace=True)
        if self.head_form == 0:
            found = self.fc(h.view(len(h), 6, -1).mean(2))
        elif self.head_form == 1:
            found = self.fc(self.pool(h).view(len(h), -1))
        elif self.head_form == 2:
            return self.fc(torch.flatten(self.pool(h), 1))
        elif self.head_form == 3:
            found = self.fc(h.permute(0, 2, 3, 1).reshape(len(h), -1, 6).mean(1))
        else:
            found = self.fc(h.amax((2, 3)))
        found *= 1.5
        return found

    def plain(self, rectify: Rectify = F.relu) -> RandomNetwork:
        """Return a copy that runs as plain as can be, in evaluation mode."""
        other = copy.deepcopy(self).eval()
        other.plainly = True
        other.rectify = rectify
        return other
