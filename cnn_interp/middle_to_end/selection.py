"""Which image to ask about next: whose answer is expected to teach the most, any by chance, or the least sure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpretkit.errors import InputError
from interpretkit.training.seeds import numpy_generator

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_TINY = 1e-12
# In units of the median distance. Images that show the part are told from others by those closest to them; what an
# answer teaches reaches farther.
_NEAR, _WIDE = 3.0, 1.5
# How far what is known of images is trusted before anybody said anything: mean and precision of a normal density for
# the slope and the intercept of the chance that an image shows the part.
_PRIOR_MEAN, _PRIOR_PRECISION = np.array([2.0, 0.0]), np.array([4.0, 1.0])


@dataclass(frozen=True, eq=False)
class Likeness:
    """How alike whole images are.

    Attributes
    ----------
    distances : ndarray of float, (n, n)
        1 − the cosine of their features; of an image and another's mirror image where that is less.
    """

    distances: Floats

    @classmethod
    def of(cls, features: ArrayLike) -> Likeness:
        """Return the likeness of images whose features are ``(n, d)``, or ``(n, 2, d)`` with those of mirror images."""
        values = np.asarray(features, dtype=np.float64)
        if values.ndim == 2:
            values = values[:, None]
        if values.ndim != 3 or not np.isfinite(values).all():
            raise InputError(f"features of shape {values.shape}: expected finite (n, d) or (n, 2, d)")
        unit = values / np.maximum(np.linalg.norm(values, axis=2, keepdims=True), _TINY)
        cosine = np.max([unit[:, 0] @ unit[:, way].T for way in range(unit.shape[1])], axis=0)
        cosine = np.maximum(cosine, cosine.T)
        distances = np.maximum(1 - cosine, 0)
        np.fill_diagonal(distances, 0)
        return cls(distances)

    def kernel(self, decline: float) -> Floats:
        """Return e^(−decline · distance / the median distance between two images), ``(n, n)``."""
        apart = self.distances[~np.eye(len(self.distances), dtype=bool)]
        middle = float(np.median(apart)) if len(apart) else 1.0
        return np.exp(-decline * self.distances / max(middle, _TINY))


@dataclass(frozen=True, eq=False)
class Standing:
    """What is known of every image at a moment, and what the graph makes of it.

    Attributes
    ----------
    scores : ndarray of float, (n,)
        How well the part is seen; 0 for all as long as there is no graph.
    chances : ndarray of float, (n,)
        How likely the image shows the part: :func:`chances_shown`.
    spread : ndarray of float, (n,)
        Standard deviation of where the part is, px; 0 for all as long as there is no graph.
    shown, absent : ndarray of bool, (n,)
        Images that are said to show the part, and those said not to.
    closed : ndarray of bool, (n,)
        Images that are not asked about any more.
    likeness : Likeness
        Of the images.
    """

    scores: Floats
    chances: Floats
    spread: Floats
    shown: Bools
    absent: Bools
    closed: Bools
    likeness: Likeness


# From what is known to what asking about each image is worth, ``(n,)``; the largest of those still open is asked.
Selection = Callable[[Standing], Floats]


def chances_shown(likeness: Likeness, shown: Bools, absent: Bools, *, decline: float = _NEAR) -> Floats:
    """Return how likely each image shows the part, by how like it is to those of which it is known, ``(n,)``.

    What counts is how near an image is to those that show the part, and how much nearer than to all others it is to
    those that do not: of images that do not show it few are alike, so that being far from them says little. The two are
    kernel densities, begun by what all images have, and made a chance by logistic regression on the images that are
    known, each left out of its own densities. Its slope and intercept have a prior, so that one answer decides nothing,
    and answers of one kind alone move the border.

    Parameters
    ----------
    likeness : Likeness
        Of the images.
    shown, absent : ndarray of bool, (n,)
        What is known.
    decline : float
        Of the kernel.
    """
    kernel = likeness.kernel(decline)
    count = len(kernel)
    density = (kernel.sum(axis=1) - 1) / max(count - 1, 1)
    known = shown | absent
    # What an image is to itself says nothing of it; it counts like the mean of all.
    np.fill_diagonal(kernel, density)
    near, far = (
        (kernel[:, said].sum(axis=1) - said * density + start) / (said.sum() - said + 1.0)
        for said, start in ((shown, density.mean()), (absent, density))
    )
    density = np.maximum(density, _TINY)
    ratio = np.log(np.maximum(near, _TINY)) - np.log(np.maximum(far, _TINY) / density)
    deviation = float(ratio.std())
    # What differs by rounding alone does not differ.
    ratio = (ratio - ratio.mean()) / deviation if deviation > 1e-9 else np.zeros(count)
    slope, intercept = _logistic(ratio[known], shown[known].astype(np.float64))
    return _chance(np.asarray(slope * ratio + intercept))


def _chance(odds: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -30.0, 30.0))))


def _logistic(values: Floats, labels: Floats) -> Floats:
    """Return slope and intercept of the likeliest logistic regression under the prior."""
    columns = np.stack([values, np.ones_like(values)], axis=1)
    weights = np.array(_PRIOR_MEAN, dtype=np.float64)
    for _ in range(50):
        chance = _chance(columns @ weights)
        slope = columns.T @ (chance - labels) + _PRIOR_PRECISION * (weights - _PRIOR_MEAN)
        curve = (columns * (chance * (1 - chance))[:, None]).T @ columns + np.diag(_PRIOR_PRECISION)
        step = np.linalg.solve(curve, slope)
        weights = np.asarray(weights - step, dtype=np.float64)
        if np.abs(step).max() < 1e-10:
            break
    return weights


def largest_gain(standing: Standing, *, decline: float = _WIDE) -> Floats:
    """Return what asking about each image is expected to teach, ``(n,)``.

    P is what the graph should be able to explain: each image, as likely as it is to show the part, and the more the
    less sure it is where; that is what there is to gain, and like images gain together. Q is what it can
    explain by what it was shown: each image that was shown explains those like it, the less the farther they are. An
    image is worth what showing it takes off the distance of Q from P, ‖P − Q‖² in the space of the kernel
    e^(−decline · distance), to first order: what is to be gained on images like it, less how well they are explained.
    That counts as far as the image is likely to show the part at all.

    Unlike :func:`largest_drop`, what was explained is not asked about again however badly it is scored, and images
    are asked about as often as there are like ones: together they are a fair sample of the part.
    """
    kernel = standing.likeness.kernel(decline)
    wanted = standing.chances * (standing.spread if standing.spread.any() else 1.0)
    wanted = wanted / wanted.sum()
    explained = kernel[:, standing.shown].sum(axis=1) / (standing.shown.sum() + 1)
    return _counted(kernel @ wanted - explained, standing)


def largest_drop(standing: Standing, *, decline: float = _WIDE, sharpness: float = 0.1) -> Floats:
    """Return the predicted drop of KL(P‖Q) when an image is annotated, ``(n,)``, as published.

    Q(I) ∝ e^(sharpness · score). An annotated image is expected to get the mean score of those that were shown; what
    it gains, images like it gain too, times e^(−decline · distance). P is each image as likely as it is to show the
    part. As long as there is no graph, all gain alike.

    References
    ----------
    Zhang, Cao, Wu, Zhu: Mining object parts from CNNs via active question-answering, CVPR 2017.
    """
    kernel = standing.likeness.kernel(decline)
    wanted = standing.chances / standing.chances.sum()
    gain = np.ones_like(standing.scores)
    if standing.shown.any():
        gain = np.maximum(standing.scores[standing.shown].mean() - standing.scores, 0)
    raised = sharpness * gain[:, None] * kernel
    logits = sharpness * (standing.scores - standing.scores.max())
    share = np.exp(logits) / np.exp(logits).sum()
    peak = raised.max(axis=0)
    normaliser = peak + np.log(share @ np.exp(raised - peak))
    return _counted(wanted @ raised - normaliser, standing)


def _counted(worth: Floats, standing: Standing) -> Floats:
    """Return worths from 0 up, each times the chance that the image shows the part."""
    lowest = float(worth[~standing.closed].min()) if not standing.closed.all() else 0.0
    return np.asarray((np.maximum(worth - lowest, 0.0) + _TINY) * standing.chances)


def random_order(count: int, seed: int = 0) -> Selection:
    """Return a selection that asks about `count` images in an order drawn by chance."""
    order = numpy_generator(seed, "order").permutation(count).astype(np.float64)
    return lambda standing: order


def least_sure(count: int, seed: int = 0) -> Selection:
    """Return a selection that asks where it is least sure where the part is; by chance as long as there is no graph."""
    chance = random_order(count, seed)
    return lambda standing: standing.spread if standing.spread.any() else chance(standing)


ACTIVE = "active"
# By name; what needs a number of images and a seed is made by the function.
SELECTIONS: Mapping[str, Callable[[int, int], Selection]] = MappingProxyType(
    {
        ACTIVE: lambda count, seed: largest_gain,
        "published": lambda count, seed: largest_drop,
        "unsure": least_sure,
        "random": random_order,
    }
)
