"""The score of a category as a function of a layer's maps: a network's own, or a head trained on a frozen trunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from cnn_interp.disentangling.features import LayerMaps
from cnn_interp.networks.network import Network
from interpretkit.errors import InputError
from interpretkit.networks.recording import layer_outputs
from interpretkit.networks.truncated import From
from interpretkit.training import TensorBatches, derive_seed, fit
from interpretkit.training.schedules import one_cycle

_IMAGES = 64


class Margin(nn.Module):
    """How far the largest of some outputs of a network is above the largest of all others.

    It is above 0 exactly if the network's answer is one of them. Of a network with one output it is that output.

    Parameters
    ----------
    module : Module
        From inputs to outputs ``(n, outputs)``, before any softmax.
    targets : sequence of int
        The outputs that stand for the category.

    Raises
    ------
    InputError
        If there are none; when called, if the network has no such output, or no other.
    """

    def __init__(self, module: nn.Module, targets: Sequence[int]) -> None:
        super().__init__()
        if not targets or len(set(targets)) < len(targets) or min(targets) < 0:
            raise InputError(f"targets {list(targets)}: expected different outputs, counted from 0")
        self.module = module
        self.targets = list(targets)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return margins ``(n,)`` for inputs ``(n, ...)``."""
        outputs = self.module(inputs)
        if not isinstance(outputs, Tensor) or outputs.ndim != 2:
            raise InputError("network: expected one tensor of scores, (images, categories)")
        count = outputs.shape[1]
        if max(self.targets) >= count:
            raise InputError(
                f"target {max(self.targets)}: the network has no such output; expected 0 to {count - 1}"
            )
        if count == 1:
            return outputs[:, 0]
        own = torch.zeros(count, dtype=torch.bool, device=outputs.device)
        own[self.targets] = True
        if bool(own.all()):
            raise InputError(f"targets {self.targets}: are all outputs; expected at least one other")
        return outputs[:, own].amax(dim=1) - outputs[:, ~own].amax(dim=1)


def own_score(network: Network, layer: str, targets: Sequence[int], inputs: Tensor) -> Margin:
    """Return a network's own score of some of its outputs, as a function of the maps of a layer.

    Whoever calls it does so within :func:`~interpretkit.networks.instrumentation.instrumented`.

    Parameters
    ----------
    network : Network
        Stays as it is.
    layer : str
        The layer's dotted name.
    targets : sequence of int
        See :class:`Margin`.
    inputs : Tensor, (n, 3, size, size)
        A few images as the network takes them, on which it is seen that the outputs follow from the layer's maps.

    Raises
    ------
    InputError
        If there is no such layer or output, or the outputs depend on more than the layer.
    """
    blank = network.normalise(torch.full((1, 3, network.size, network.size), 0.5))
    above = From(network.module, layer, blank)
    with torch.no_grad():
        outputs, maps = layer_outputs(network.module, inputs, [layer])
        if not isinstance(outputs, Tensor):
            raise InputError(f"network {network.name!r}: expected one tensor of scores, (images, categories)")
        above.expect_the_same(maps[layer], outputs)
        score = Margin(above, targets)
        score(maps[layer][:1])
    return score


class CategoryHead(nn.Module):
    """Three linear layers with ReLUs between them, from the maps of a layer to the score of a category.

    It sees the mean response of each filter over the map, as most networks' own heads do.

    Parameters
    ----------
    filters : int
        Of the layer.
    hidden : int
        Width of the layers between.
    seed : int
        Of the weights.
    """

    def __init__(self, filters: int, hidden: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(filters))
        self.register_buffer("deviation", torch.ones(filters))
        with torch.random.fork_rng([]):
            torch.manual_seed(derive_seed(seed, "category head"))
            self.layers = nn.Sequential(
                nn.Linear(filters, hidden),
                nn.ReLU(),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Linear(hidden, 1),
            )

    def forward(self, maps: Tensor) -> Tensor:
        """Return scores ``(n,)`` for maps ``(n, filters, h, w)``; above 0 is of the category."""
        return self.above(maps.mean(dim=(2, 3)))

    def above(self, means: Tensor) -> Tensor:
        """Return scores ``(n,)`` for mean responses ``(n, filters)``."""
        return self.layers((means - self.mean) / self.deviation)[:, 0]


def train_head(
    maps: LayerMaps,
    rows: ArrayLike,
    labels: ArrayLike,
    *,
    hidden: int = 64,
    epochs: int = 30,
    learning_rate: float = 1e-3,
    decay: float = 0.05,
    seed: int = 0,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    quiet: bool = True,
) -> CategoryHead:
    """Train a head to tell a category on the maps of a frozen network, with AdamW.

    Parameters
    ----------
    maps : LayerMaps
        Of all images.
    rows : array_like of int, (m,)
        Those to train on.
    labels : array_like of bool, (m,)
        Which of them are of the category.
    hidden, epochs, learning_rate, decay
        Of the head and its training; the learning rate is the highest, the decay that of the weights.
    seed : int
        Of weights and order.
    device : torch.device or str
        Where to train.
    checkpoint : path, optional
        See :func:`interpretkit.training.fit`.
    quiet : bool
        Whether to show no progress bar.

    Raises
    ------
    InputError
        If the images are all of the category, or none is.
    """
    numbers = np.asarray(rows)
    targets: NDArray[np.bool_] = np.asarray(labels, dtype=bool)
    if targets.all() or not targets.any():
        raise InputError(f"labels: all {bool(targets.any())}; expected images of the category and others")
    means = torch.cat(
        [
            maps.tensor(numbers[start : start + _IMAGES]).mean(dim=(2, 3))
            for start in range(0, len(numbers), _IMAGES)
        ]
    )
    head = CategoryHead(maps.units, hidden, seed)
    with torch.no_grad():
        head.mean.copy_(means.mean(dim=0))
        # What hardly varies tells nothing, and shall not be blown up.
        deviation = means.std(dim=0)
        head.deviation.copy_(deviation.clamp_min(0.1 * float(deviation.mean()) + 1e-6))
    head.to(device).train()
    values = torch.from_numpy(targets).float()
    batches = TensorBatches({"x": means, "y": values}, 32, seed=derive_seed(seed, "order"))
    optimizer = torch.optim.AdamW(head.parameters(), lr=learning_rate, weight_decay=decay)

    def loss(module: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert isinstance(module, CategoryHead)
        return {"loss": functional.binary_cross_entropy_with_logits(module.above(batch["x"]), batch["y"])}

    fit(
        head,
        batches,
        loss,
        optimizer=optimizer,
        scheduler=one_cycle(optimizer, learning_rate, epochs * len(batches)),
        scheduler_steps="batch",
        epochs=epochs,
        precision="float32",
        checkpoint=checkpoint,
        description="Training the head",
        quiet=quiet,
    )
    for parameter in head.parameters():
        parameter.requires_grad_(False)
    return head.eval()


def category_rows(categories: ArrayLike, category: int, most: int | None = None) -> NDArray[np.int64]:
    """Return the numbers of the images of a category and of others to tell it from.

    Parameters
    ----------
    categories : array_like of int, (n,)
        Of all images; −1 for those of none. If there are such, they are the others; else all other categories are.
    category : int
        Which.
    most : int, optional
        How many images in all, at most; half of them of the category, evenly spread over the set.
    """
    known = np.asarray(categories)
    others = known == -1 if (known == -1).any() else known != category
    found = []
    for chosen in (np.flatnonzero(known == category), np.flatnonzero(others)):
        count = len(chosen) if most is None else min(len(chosen), most // 2)
        found.append(chosen[np.arange(count) * len(chosen) // max(count, 1)])
    return np.sort(np.concatenate(found)).astype(np.int64)


def split(
    labels: ArrayLike, groups: ArrayLike | None = None, *, held_out: float = 0.4, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of images to learn from and of those to test on, relatives on one side.

    Parameters
    ----------
    labels : array_like of bool, (n,)
        Which images are of the category; the same share of these and of the others is held out.
    groups : array_like of int, (n,), optional
        Images with the same number are relatives.
    held_out : float
        Share of groups to test on.
    seed : int
        Of the draw.

    Raises
    ------
    InputError
        If images of the category, or the others, are of one group only.
    """
    from sklearn.model_selection import GroupShuffleSplit

    of_category: NDArray[np.bool_] = np.asarray(labels, dtype=bool)
    relatives = np.arange(len(of_category)) if groups is None else np.asarray(groups)
    learn, test = [], []
    for wanted in (True, False):
        rows = np.flatnonzero(of_category == wanted)
        if len(np.unique(relatives[rows])) < 2:
            which = "of the category" if wanted else "of anything else"
            raise InputError(
                f"images {which}: {len(rows)}, or all relatives of each other; expected two that are none"
            )
        drawn = GroupShuffleSplit(1, test_size=held_out, random_state=derive_seed(seed, "held out") % 2**32)
        one, other = next(drawn.split(rows, groups=relatives[rows]))
        learn.append(rows[one])
        test.append(rows[other])
    return np.sort(np.concatenate(learn)), np.sort(np.concatenate(test))
