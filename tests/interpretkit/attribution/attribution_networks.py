"""Small networks for the tests, with the habits that break attribution elsewhere."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def plain(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """A CNN that every library can explain: each module used once, nothing in place."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 5),
    ).to(dtype)


class ReusedInPlace(nn.Module):
    """Two residual blocks as in torchvision's ResNet: one in-place ReLU runs five times; dropout and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.block1 = nn.ModuleList([nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)])
        self.block2 = nn.ModuleList([nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)])
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(6, 5)
        # Statistics that are not the initial ones, so that evaluation mode can be told from training.
        with torch.no_grad():
            self.train()(torch.randn(8, 3, 14, 14))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        for block in (self.block1, self.block2):
            identity = x
            for module in block:
                x = module(x)
            x += identity
            x = self.relu(x)
        return self.fc(self.dropout(x.mean((2, 3))))


class Functional(nn.Module):
    """ReLUs as functions, one of them in place on the very input, and noise even in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x.add_(0.1)
        x = F.relu(self.conv(x))
        x = F.relu(self.conv(x[:, :3]), inplace=True)
        x = torch.relu_(self.conv(x[:, 3:]))
        return self.fc(F.dropout(x, 0.1, training=True).mean((2, 3)))


class NotInPlace(nn.Module):
    """The function of ReusedInPlace, written so that each step has a module and a tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.same = ReusedInPlace()
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relus[0](self.same.bn1(self.same.conv1(x)))
        for block, relu in zip((self.same.block1, self.same.block2), list(self.relus)[1:], strict=True):
            x = relu(block[1](block[0](x)) + x)
        return self.same.fc(x.mean((2, 3)))


class LooksAt(nn.Module):
    """Scores class 1 by the bright pixels of the lower right quarter, and sees nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([[0.0, 0, 0], [1, 1, 1]])[:, :, None, None])
            # Above the mean colour, so that pixels replaced by it count as taken away.
            self.conv.bias.copy_(torch.tensor([0, -1.8]))  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.zeros_like(x)
        half = x.shape[-1] // 2
        seen[..., half:, half:] = 1
        return F.relu(self.conv(x * seen)).mean((2, 3)) * 40


def images(n: int = 3, size: int = 14, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(n, 3, size, size, generator=generator).to(dtype)
