"""Attacks on images in the space of pixels: the network opened for them, what they ask of it, and their result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cnn_interp.networks.network import Network
from interpretkit.errors import InputError, check_count
from interpretkit.networks.instrumentation import instrumented

# A network that normalises by itself, or a module that takes pixels between 0 and 1 as they are.
Classifier = Network | nn.Module
Logits = Callable[[Tensor], Tensor]
Classes = Tensor | NDArray[np.integer] | Sequence[int] | None

# Halvings of the way back to the original: the perturbation found is at most 1 part in 4096 longer than it need be.
HALVINGS = 12


@dataclass(frozen=True)
class Attack:
    """Images, what an attack made of them, and what the network says to both.

    Attributes
    ----------
    method : str
        The attack.
    originals, perturbed : Tensor, (n, channels, height, width)
        Pixels between 0 and 1, on the CPU.
    labels : Tensor of int, (n,)
        The classes that the attack was to lead away from.
    targets : Tensor of int, (n,), or None
        The classes that it was to lead to; None where any other class would do.
    before, after : Tensor, (n, classes)
        The network's probabilities for the originals and for the perturbed images.
    evaluations : Tensor of int, (n,)
        How often the network was run on a version of each image.
    """

    method: str
    originals: Tensor
    perturbed: Tensor
    labels: Tensor
    targets: Tensor | None
    before: Tensor
    after: Tensor
    evaluations: Tensor

    @property
    def difference(self) -> Tensor:
        """What was added to the originals, ``(n, channels, height, width)``."""
        return self.perturbed - self.originals

    @property
    def l2(self) -> Tensor:
        """The Euclidean length of each perturbation, ``(n,)``."""
        return self.difference.flatten(1).norm(dim=1)

    @property
    def linf(self) -> Tensor:
        """The largest change of a value in each image, ``(n,)``."""
        return self.difference.flatten(1).abs().amax(1)

    @property
    def fair(self) -> Tensor:
        """Whether the network gave the label before, so that there was something to attack; bool ``(n,)``."""
        return self.before.argmax(1) == self.labels

    @property
    def succeeded(self) -> Tensor:
        """Whether the network was led away from the label (or to the target), bool ``(n,)``."""
        found = self.after.argmax(1)
        return found != self.labels if self.targets is None else found == self.targets

    @property
    def success_rate(self) -> float:
        """The share of successes among the images that the network had right; NaN if there were none."""
        fair = self.fair
        return float(self.succeeded[fair].double().mean()) if bool(fair.any()) else float("nan")


@contextmanager
def logits_of(model: Classifier, pixels: Tensor, seed: int = 0) -> Iterator[tuple[Logits, Tensor]]:
    """Open a network for attacks: evaluation mode, frozen, put back as it was at the end.

    Parameters
    ----------
    model : Network or Module
        A module takes pixels as they are.
    pixels : Tensor, (n, channels, height, width)
        The images.
    seed : int
        For models that draw random numbers even in evaluation mode.

    Yields
    ------
    logits, pixels
        A function from pixels to outputs ``(n, classes)``, and the pixels on the network's device.

    Raises
    ------
    InputError
        If the pixels are no batch of images, or leave 0 … 1, or the network does not give a row of scores per image.
    """
    if pixels.ndim != 4 or not len(pixels) or not pixels.is_floating_point():
        raise InputError(
            f"pixels: {str(pixels.dtype).removeprefix('torch.')} of shape {tuple(pixels.shape)}; expected floats of "
            "shape (n, channels, height, width)"
        )
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):
        raise InputError(f"pixels: between {low:.3g} and {high:.3g}; expected values in 0 … 1")
    module = model.module if isinstance(model, Network) else model
    first = next(module.parameters(), None)
    pixels = pixels.detach().to(pixels.device if first is None else first.device)

    def logits(images: Tensor) -> Tensor:
        # A copy, because the model may change its input in place.
        found = module(model.normalise(images) if isinstance(model, Network) else images.clone())
        if not isinstance(found, Tensor) or found.ndim != 2 or found.shape[1] < 2:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                f"model: gives {shape}; expected scores of shape (n, classes) of at least 2 classes"
            )
        return found

    with instrumented(module, seed):
        yield logits, pixels


class AttackedImages:
    """Images with the classes to lead away from and to, and a network opened by :func:`logits_of`."""

    def __init__(
        self, logits: Logits, images: Tensor, labels: Classes, targets: Classes, images_per_forward: int
    ) -> None:
        check_count("images_per_forward", images_per_forward)
        self.logits = logits
        self.images = images
        self.batches = torch.arange(len(images), device=images.device).split(images_per_forward)
        with torch.no_grad():
            self.clean = torch.cat([logits(images[rows]) for rows in self.batches])
        self.classes = range(self.clean.shape[1])
        own = self.clean.argmax(1)
        self.labels = own if labels is None else self._classes("labels", labels)
        self.targets = None if targets is None else self._classes("targets", targets)

    def _classes(self, name: str, given: Tensor | NDArray[np.integer] | Sequence[int]) -> Tensor:
        found = torch.as_tensor(given if isinstance(given, Tensor) else np.asarray(given))
        count = len(self.classes)
        if found.shape != (len(self.images),) or found.is_floating_point() or found.dtype == torch.bool:
            raise InputError(
                f"{name}: {str(found.dtype).removeprefix('torch.')} of shape {tuple(found.shape)}; expected "
                f"{len(self.images)} whole numbers, one for each image"
            )
        if int(found.min()) < 0 or int(found.max()) >= count:
            raise InputError(f"{name}: {int(found.min())} to {int(found.max())}; expected 0 to {count - 1}")
        return found.to(self.images.device, torch.long)

    def loss(self, images: Tensor, rows: Tensor) -> Tensor:
        """Return what an attack makes large, ``(m,)``: the label's loss, or the negative of the target's."""
        outputs = self.logits(images)
        if self.targets is None:
            return functional.cross_entropy(outputs, self.labels[rows], reduction="none")
        return -functional.cross_entropy(outputs, self.targets[rows], reduction="none")

    def loss_gradient(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return :meth:`loss` and its gradient by the images."""
        leaf = images.detach().requires_grad_()
        loss = self.loss(leaf, rows)
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        return loss.detach(), gradient

    def won(self, images: Tensor, rows: Tensor) -> Tensor:
        """Return whether the images are classified as the attack would have it, bool ``(m,)``."""
        with torch.no_grad():
            found = self.logits(images).argmax(1)
        return found != self.labels[rows] if self.targets is None else found == self.targets[rows]

    def borders(self, images: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return classes ``(m, k)``, their margins ``(m, k)`` to the label, and the margins' gradients (m, k, ...)."""
        leaf = images.detach().requires_grad_()
        outputs = self.logits(leaf)
        labels = self.labels[rows]
        ranked = outputs.detach().scatter(1, labels[:, None], -torch.inf)
        classes = ranked.topk(min(count, outputs.shape[1] - 1), dim=1).indices
        margins = outputs.gather(1, classes) - outputs.gather(1, labels[:, None])
        last = margins.shape[1] - 1
        gradients = [
            torch.autograd.grad(margins[:, k].sum(), leaf, retain_graph=k < last)[0] for k in range(last + 1)
        ]
        return classes, margins.detach(), torch.stack(gradients, dim=1)

    def step_to_border(self, images: Tensor, rows: Tensor, count: int) -> Tensor:
        """Return the step ``(m, ...)`` to the nearest border, were the network linear."""
        _, margins, gradients = self.borders(images, rows, count)
        lengths = gradients.flatten(2).norm(dim=2).clamp_min(1e-12)
        nearest = (margins.abs() / lengths).argmin(1)
        index = torch.arange(len(images), device=images.device)
        # A little more than the distance, for at the border itself rounding decides.
        size = (margins[index, nearest].abs() + 1e-4) / lengths[index, nearest].square()
        return across(size) * gradients[index, nearest]

    def nearest_classes(self, rows: Tensor, count: int) -> Tensor:
        """Return the classes with the nearest borders at one image, as its gradients see it, ``(count,)``."""
        classes, margins, gradients = self.borders(self.images[rows], rows, max(10, count))
        distance = margins.abs() / gradients.flatten(2).norm(dim=2).clamp_min(1e-12)
        return classes[0, distance[0].argsort(stable=True)[:count]]

    def shorten(self, moved: Tensor, rows: Tensor) -> Tensor:
        """Halve the way back to the originals until the border is met; failures stay as they are."""
        clean = self.images[rows]
        success = self.won(moved, rows)
        low, high = torch.zeros(len(rows), device=clean.device), torch.ones(len(rows), device=clean.device)
        # What the network had wrong anyway needs no perturbation.
        high = torch.where(self.won(clean, rows), low, high)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            reached = self.won((clean + across(middle) * (moved - clean)).clamp(0, 1), rows)
            low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
        short = (clean + across(high) * (moved - clean)).clamp(0, 1)
        return torch.where(across(success), short, moved)

    def attack(self, method: str, perturbed: Tensor, evaluations: int | Tensor) -> Attack:
        """Return the result, with what the network says to it."""
        with torch.no_grad():
            after = torch.cat([self.logits(perturbed[rows]) for rows in self.batches])
        count = torch.as_tensor(evaluations).cpu().expand(len(perturbed)).clone()
        return Attack(
            method=method,
            originals=self.images.cpu(),
            perturbed=perturbed.detach().cpu(),
            labels=self.labels.cpu(),
            targets=None if self.targets is None else self.targets.cpu(),
            before=self.clean.softmax(1).cpu(),
            after=after.softmax(1).cpu(),
            evaluations=count,
        )


def across(values: Tensor) -> Tensor:
    """Return values ``(n,)`` as ``(n, 1, 1, 1)``."""
    return values[:, None, None, None]
