"""Adversarial perturbations in the space of pixels: FGSM, PGD, DeepFool, and the smallest by box-constrained L-BFGS.

Pixels lie between 0 and 1, and so do those of every perturbed image, exactly. Sizes of perturbations are measured on
that scale. A network's own normalisation is inside, not around, what is attacked.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import Bounds, minimize
from torch import Tensor
from torch.nn import functional

from cnn_interp.diagnosis.attacks import (
    HALVINGS,
    Attack,
    AttackedImages,
    Classes,
    Classifier,
    across,
    logits_of,
)
from interpretkit.errors import InputError, check_count
from interpretkit.training.seeds import torch_generator

Norm = Literal["linf", "l2"]

# A bracket for the weight of a perturbation's length is looked for in so many steps of this factor.
_BRACKETING, _FACTOR = 20, 2.0


def fgsm(
    model: Classifier,
    pixels: Tensor,
    labels: Classes = None,
    *,
    epsilon: float,
    targets: Classes = None,
    images_per_forward: int = 16,
    seed: int = 0,
) -> Attack:
    """Take one step along the sign of the loss's gradient (Goodfellow et al. 2015, arXiv 1412.6572).

    Parameters
    ----------
    model : Network or Module
        What is attacked. It is left as it was.
    pixels : Tensor, (n, channels, height, width)
        Values in 0 … 1.
    labels : array of int, (n,), optional
        What the images show; by default what the network says.
    epsilon : float
        The change of each value.
    targets : array of int, (n,), optional
        Classes to lead to, against the gradient of their loss.
    images_per_forward : int
        How many images go through the network at a time.
    seed : int
        For models that draw random numbers.

    Returns
    -------
    Attack

    Raises
    ------
    InputError
        If the pixels, classes or epsilon cannot be used.
    """
    _positive("epsilon", epsilon)
    with logits_of(model, pixels, seed) as (logits, images):
        attacked = AttackedImages(logits, images, labels, targets, images_per_forward)
        moved = []
        for rows in attacked.batches:
            clean = images[rows]
            _, gradient = attacked.loss_gradient(clean, rows)
            moved.append((clean + epsilon * gradient.sign()).clamp(0, 1))
        return attacked.attack("fgsm", torch.cat(moved), evaluations=2)


def pgd(
    model: Classifier,
    pixels: Tensor,
    labels: Classes = None,
    *,
    epsilon: float,
    norm: Norm = "linf",
    steps: int = 20,
    step_size: float | None = None,
    random_start: bool = True,
    targets: Classes = None,
    images_per_forward: int = 16,
    seed: int = 0,
) -> Attack:
    """Climb the loss within a ball about each image (projected gradient descent; Madry et al. 2018, arXiv 1706.06083).

    Parameters
    ----------
    model, pixels, labels, targets, images_per_forward
        See :func:`fgsm`.
    epsilon : float
        The ball's radius.
    norm : {"linf", "l2"}
        The norm that makes the ball.
    steps : int
        How many steps to take.
    step_size : float, optional
        The length of each, in that norm; ``2.5 epsilon / steps`` by default.
    random_start : bool
        Start at a random point of the ball, the same for all images, and not at the image.
    seed : int
        Seed of the start.

    Returns
    -------
    Attack
        With the image of the largest loss on each path.

    Raises
    ------
    InputError
        If an argument cannot be used.
    """
    _positive("epsilon", epsilon)
    check_count("steps", steps)
    if norm not in ("linf", "l2"):
        raise InputError(f"norm {norm!r}: expected linf or l2")
    size = 2.5 * epsilon / steps if step_size is None else step_size
    _positive("step_size", size)
    with logits_of(model, pixels, seed) as (logits, images):
        attacked = AttackedImages(logits, images, labels, targets, images_per_forward)
        start = torch.zeros_like(images[:1])
        if random_start:
            start = _point_in_ball(images[:1], epsilon, norm, seed)
        found = []
        for rows in attacked.batches:
            clean = images[rows]
            moved = _within(clean + start, clean, epsilon, norm)
            best, largest = clean, torch.full((len(clean),), -torch.inf, device=clean.device)
            for _ in range(steps):
                loss, gradient = attacked.loss_gradient(moved, rows)
                better = loss > largest
                best = torch.where(across(better), moved, best)
                largest = torch.where(better, loss, largest)
                direction = gradient.sign() if norm == "linf" else _unit(gradient)
                moved = _within(moved + size * direction, clean, epsilon, norm)
            with torch.no_grad():
                better = attacked.loss(moved, rows) > largest
            found.append(torch.where(across(better), moved, best))
        return attacked.attack("pgd", torch.cat(found), evaluations=steps + 3)


def deepfool(
    model: Classifier,
    pixels: Tensor,
    labels: Classes = None,
    *,
    classes: int = 10,
    overshoot: float = 0.02,
    steps: int = 50,
    images_per_forward: int = 16,
    seed: int = 0,
) -> Attack:
    """Find a short perturbation by linearising the classes' borders (Moosavi-Dezfooli et al. 2016, arXiv 1511.04599).

    Each step goes to the nearest border as the gradients see it. At the end the way back to the original is halved
    until the border is met, which undoes the overshoot. An image that the network had wrong stays as it is.

    Parameters
    ----------
    model, pixels, labels, images_per_forward, seed
        See :func:`fgsm`.
    classes : int
        Borders are looked for with so many classes, the likeliest but for the label.
    overshoot : float
        The share by which each step is lengthened, so that borders are crossed.
    steps : int
        How many at most.

    Returns
    -------
    Attack

    Raises
    ------
    InputError
        If an argument cannot be used.
    """
    for name, value in (("classes", classes), ("steps", steps)):
        check_count(name, value)
    if overshoot < 0:
        raise InputError(f"overshoot {overshoot}: expected a share of at least 0")
    with logits_of(model, pixels, seed) as (logits, images):
        attacked = AttackedImages(logits, images, labels, None, images_per_forward)
        found, counts = [], []
        for rows in attacked.batches:
            clean = images[rows]
            total = torch.zeros_like(clean)
            count = torch.zeros(len(clean), dtype=torch.long, device=clean.device)
            for _ in range(steps):
                moved = (clean + (1 + overshoot) * total).clamp(0, 1)
                active = (~attacked.won(moved, rows)).nonzero()[:, 0]
                count += 1
                if not len(active):
                    break
                total[active] += attacked.step_to_border(moved[active], rows[active], classes)
                count[active] += 1 + classes
            moved = (clean + (1 + overshoot) * total).clamp(0, 1)
            found.append(attacked.shorten(moved, rows))
            counts.append(count + HALVINGS + 2)
        return attacked.attack("deepfool", torch.cat(found), evaluations=torch.cat(counts))


def minimal_perturbation(
    model: Classifier,
    pixels: Tensor,
    labels: Classes = None,
    *,
    targets: Classes = None,
    candidates: int = 1,
    search_steps: int = 4,
    iterations: int = 15,
    seed: int = 0,
) -> Attack:
    r"""Find a smallest perturbation by box-constrained L-BFGS (Szegedy et al. 2014, arXiv 1312.6199).

    For an image x and a class t, c‖r‖² + loss(x + r, t) is minimised over r with x + r in the box [0, 1], and the
    largest weight c is looked for whose minimum still takes the network to t. Where any other class will do, the loss
    is that of t against the label alone, for the other classes do not matter to their border. At the end the way back
    to the original is halved until the border is met. For a linear network the length is the distance to the border,
    \|margin\| / ‖w‖, as long as the box does not matter. The images are worked on one by one.

    Parameters
    ----------
    model, pixels, labels, seed
        See :func:`fgsm`.
    targets : array of int, (n,), optional
        Classes to lead to; by default those whose borders are nearest, as the gradients at the image see it.
    candidates : int
        Of the nearest borders, so many are tried and the shortest perturbation is kept.
    search_steps : int
        Halvings of the bracket for c, on a logarithmic scale, once it has been found in steps of a factor of 2.
    iterations : int
        Number of iterations of L-BFGS for each c, and no more evaluations than twice as many.

    Returns
    -------
    Attack
        Where no c gave a success, the image is returned unchanged.

    Raises
    ------
    InputError
        If an argument cannot be used.
    """
    for name, value in (
        ("candidates", candidates),
        ("search_steps", search_steps),
        ("iterations", iterations),
    ):
        check_count(name, value)
    with logits_of(model, pixels, seed) as (logits, images):
        attacked = AttackedImages(logits, images, labels, targets, 16)
        found, counts = [], []
        for row in range(len(images)):
            rows = torch.tensor([row], device=images.device)
            if bool(attacked.won(images[rows], rows)):
                found.append(images[rows])
                counts.append(1)
                continue
            given = attacked.targets
            wanted = attacked.nearest_classes(rows, candidates) if given is None else given[rows]
            best, count = images[rows], 2 if given is not None else 3 + max(10, candidates)
            for target in wanted.tolist():
                search = _Search(attacked, rows, target, iterations)
                moved = search.run(search_steps)
                count += search.evaluations + HALVINGS
                if moved is None:
                    continue
                moved = attacked.shorten(moved, rows)
                if not bool(attacked.won(best, rows)) or _length(moved - images[rows]) < _length(
                    best - images[rows]
                ):
                    best = moved
            found.append(best)
            counts.append(count)
        return attacked.attack("minimal", torch.cat(found), evaluations=torch.tensor(counts))


class _Search:
    """The search for the largest weight c at which the minimum of c‖r‖² + loss(x + r, t) is classified as t."""

    def __init__(self, attacked: AttackedImages, rows: Tensor, target: int, iterations: int) -> None:
        self.attacked = attacked
        self.rows = rows
        self.image = attacked.images[rows]
        self.target = torch.tensor([target], device=self.image.device)
        self.iterations = iterations
        self.evaluations = 0
        flat = self.image.flatten().double().cpu().numpy()
        self.bounds = Bounds(-flat, 1 - flat)  # type: ignore[arg-type]

    def run(self, steps: int) -> Tensor | None:
        """Return the image ``(1, ...)`` of the shortest success, or None."""
        weight, start = self.first_guess()
        best: Tensor | None = None
        low, high = 0.0, np.inf
        for _ in range(_BRACKETING):
            moved, change = self.minimum(weight, start)
            if moved is None:
                high = weight
            else:
                low = weight
                if best is None or _length(moved - self.image) < _length(best - self.image):
                    best, start = moved, change
            if low > 0 and np.isfinite(high):
                break
            weight *= _FACTOR if moved is not None else 1 / _FACTOR
        if best is None or not np.isfinite(high):
            return best
        for _ in range(steps):
            middle = float(np.sqrt(low * high))
            moved, change = self.minimum(middle, start)
            if moved is None:
                high = middle
                continue
            low = middle
            if _length(moved - self.image) < _length(best - self.image):
                best, start = moved, change
        return best

    def first_guess(self) -> tuple[float, NDArray[np.float64]]:
        """Return the weight and the change that would be right if the network were linear."""
        leaf = self.image.detach().requires_grad_()
        outputs = self.attacked.logits(leaf)
        margin = outputs[0, self.target] - outputs[0].detach().max()
        (gradient,) = torch.autograd.grad(outputs[0, self.target] - outputs[0, outputs[0].argmax()], leaf)
        slope = gradient.flatten().double().cpu().numpy()
        square = max(float(slope @ slope), 1e-12)
        size = abs(float(margin.detach())) + 1e-6
        self.evaluations += 1
        # At the border the slope of the loss is half that of the margin, and the change is margin / slope.
        return square / (4 * size), slope * (size / square)

    def minimum(self, weight: float, start: NDArray[np.float64]) -> tuple[Tensor | None, NDArray[np.float64]]:
        """Minimise for one weight; return the image if it is classified as the target, and the change."""

        def value(change: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            moved = self.moved(change).requires_grad_()
            loss = self.loss(moved)
            (gradient,) = torch.autograd.grad(loss, moved)
            self.evaluations += 1
            slope = gradient.flatten().double().cpu().numpy()
            return float(loss.detach()) + weight * float(change @ change), slope + 2 * weight * change

        found = minimize(
            value,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=self.bounds,
            options={"maxiter": self.iterations, "maxfun": 2 * self.iterations},
        ).x
        moved = self.moved(found)
        self.evaluations += 1
        return (moved if bool(self.attacked.won(moved, self.rows)) else None), found

    def loss(self, moved: Tensor) -> Tensor:
        """Return the loss of the target: among all classes if it was asked for, else against the label alone."""
        outputs = self.attacked.logits(moved)
        if self.attacked.targets is not None:
            return functional.cross_entropy(outputs, self.target)
        label = self.attacked.labels[self.rows]
        return functional.softplus(outputs[0, label] - outputs[0, self.target]).sum()

    def moved(self, change: NDArray[np.float64]) -> Tensor:
        """Return the image with a change; clamped because rounding could leave the box."""
        step = torch.from_numpy(change).to(self.image).reshape(self.image.shape)
        return (self.image + step).clamp(0, 1)


def _within(moved: Tensor, clean: Tensor, epsilon: float, norm: Norm) -> Tensor:
    """Return the nearest images within the ball about the originals and within the box."""
    if norm == "linf":
        return moved.clamp((clean - epsilon).clamp_min(0), (clean + epsilon).clamp_max(1))
    change = moved - clean
    lengths = change.flatten(1).norm(dim=1)
    # The original is in the box, so that going back into it only shortens a change.
    return (clean + across((epsilon / lengths.clamp_min(1e-12)).clamp_max(1)) * change).clamp(0, 1)


def _point_in_ball(like: Tensor, epsilon: float, norm: Norm, seed: int) -> Tensor:
    generator = torch_generator(seed, "start")
    if norm == "linf":
        point = torch.rand(like.shape, generator=generator) * 2 - 1
    else:
        direction = _unit(torch.randn(like.shape, generator=generator))
        point = direction * torch.rand(1, generator=generator) ** (1 / like[0].numel())
    return epsilon * point.to(like)


def _unit(values: Tensor) -> Tensor:
    return values / across(values.flatten(1).norm(dim=1).clamp_min(1e-12))


def _length(change: Tensor) -> float:
    return float(change.norm())


def _positive(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise InputError(f"{name} {value}: expected a finite number above 0")
