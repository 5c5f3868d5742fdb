"""Units against random directions: whose strongest images have more in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpretkit.errors import InputError
from interpretkit.training.seeds import numpy_generator

# Permutations that chance is measured by, and resamples that an interval is made of.
_CHANCE_SETS, _RESAMPLES = 500, 2000


@dataclass(frozen=True)
class DirectionComparison:
    """How pure the strongest images of units and of random directions are.

    Attributes
    ----------
    measure : str
        ``attributes`` or ``similarity``.
    units : ndarray, (u,)
        The purity of each living unit's strongest images, in bits or as a mean cosine.
    random : ndarray, (r,)
        That of each random direction's.
    unit_numbers : ndarray of int, (u,)
        Which features the units are; those with fewer positive deviations than strongest images are left out.
    unit_images : ndarray of int, (u, k)
        The strongest images of each unit, the strongest first.
    random_images : ndarray of int, (r, k)
        Those of each random direction.
    attributes : ndarray of int, (u,)
        The attribute that a unit's strongest images agree on most; -1 throughout if images were compared instead.
    chance : float
        The mean purity of as many images drawn at random.
    difference : float
        The mean purity of units less that of random directions.
    interval : (float, float)
        Its 95 % interval, over resamples of units and directions.
    superiority : float
        The probability that a unit is purer than a random direction, ties counted half; 0.5 if there is no difference.
    superiority_interval : (float, float)
        Its 95 % interval.
    """

    measure: str
    units: NDArray[np.float64]
    random: NDArray[np.float64]
    unit_numbers: NDArray[np.intp]
    unit_images: NDArray[np.intp]
    random_images: NDArray[np.intp]
    attributes: NDArray[np.intp]
    chance: float
    difference: float
    interval: tuple[float, float]
    superiority: float
    superiority_interval: tuple[float, float]


def compare_directions(
    features: ArrayLike,
    *,
    attributes: ArrayLike | None = None,
    reference: ArrayLike | None = None,
    top: int = 9,
    directions: int = 256,
    seed: int = 0,
) -> DirectionComparison:
    """Compare units with random directions of their space (Szegedy et al. 2014, arXiv 1312.6199, section 3).

    Parameters
    ----------
    features : array_like of float, (n, d)
        What the d units of a layer give for n images.
    attributes : array_like of int, (n,) or (n, a), optional
        Categories or other attributes of the images. A set's purity is then what its images have in common, in bits:
        the divergence of an attribute's distribution within the set from that over all images, for the attribute of
        which it is largest. Images that all show something rare are purer than those that all lack it.
    reference : array_like of float, (n, e), optional
        Instead of attributes, features of another layer or network, in which images that look alike lie near to
        each other. A set's purity is then the mean cosine between its images, the mean of all images subtracted.
    top : int
        The number k of strongest images of a set.
    directions : int
        How many random directions, normal and of unit length.
    seed : int
        Seed of the directions, of chance, and of the intervals.

    Returns
    -------
    DirectionComparison

    Raises
    ------
    InputError
        If the arrays do not fit together, there are too few images, no unit is alive, or not just one of `attributes`
        and `reference` is given.
    """
    x = _matrix("features", features)
    if (attributes is None) == (reference is None):
        raise InputError("attributes, reference: expected just one of them")
    if not 2 <= top <= len(x) // 2:
        raise InputError(f"top {top}: expected 2 to {len(x) // 2}, half of the {len(x)} images")
    if directions < 2:
        raise InputError(f"directions {directions}: expected at least 2")
    measure = (
        _AttributePurity(attributes, len(x)) if attributes is not None else _Similarity(reference, len(x))
    )
    rng = numpy_generator(seed, "directions")
    vectors = rng.standard_normal((x.shape[1], directions))
    vectors /= np.linalg.norm(vectors, axis=0)
    unit_images, alive = _strongest(x, top)
    random_images, _ = _strongest(x @ vectors, top)
    if not alive.any():
        raise InputError(f"features: no unit deviates upwards on {top} images; expected living units")
    numbers = np.flatnonzero(alive)
    unit_images = unit_images[alive]
    units, which = measure(unit_images)
    random, _ = measure(random_images)
    by_chance = np.stack([rng.choice(len(x), top, replace=False) for _ in range(_CHANCE_SETS)])
    wins = (units[:, None] > random) + 0.5 * (units[:, None] == random)
    # How often each unit and each direction is drawn, as shares of a resample.
    drawn, others = (
        rng.multinomial(size, np.full(size, 1 / size), _RESAMPLES) / size
        for size in (len(units), len(random))
    )
    differences = drawn @ units - others @ random
    superiorities = ((drawn @ wins) * others).sum(1)
    return DirectionComparison(
        measure=measure.name,
        units=units,
        random=random,
        unit_numbers=numbers,
        unit_images=unit_images,
        random_images=random_images,
        attributes=which,
        chance=float(measure(by_chance)[0].mean()),
        difference=float(units.mean() - random.mean()),
        interval=_middle(differences),
        superiority=float(wins.mean()),
        superiority_interval=_middle(superiorities),
    )


def rotated(features: ArrayLike, seed: int = 0) -> NDArray[np.float64]:
    """Return features ``(n, d)`` in a random orthonormal basis: the same space, in which no unit is special.

    A control for :func:`compare_directions`, which should find no difference afterwards.
    """
    x = _matrix("features", features)
    basis, triangle = np.linalg.qr(
        numpy_generator(seed, "rotation").standard_normal((x.shape[1], x.shape[1]))
    )
    return x @ (basis * np.sign(np.diag(triangle)))


class _AttributePurity:
    """What sets of images have in common, by the attribute that tells most."""

    name = "attributes"

    def __init__(self, attributes: ArrayLike, count: int) -> None:
        given = np.asarray(attributes)
        given = given[:, None] if given.ndim == 1 else given
        if given.ndim != 2 or len(given) != count or given.dtype.kind not in "iub":
            raise InputError(
                f"attributes: {given.dtype} of shape {given.shape}; expected whole numbers of shape ({count},) or "
                f"({count}, a)"
            )
        self.columns = [np.unique(column, return_inverse=True)[1] for column in given.T]
        self.shares = [np.bincount(column) / count for column in self.columns]
        if all(len(share) < 2 for share in self.shares):
            raise InputError("attributes: all images have the same; expected some that vary")

    def __call__(self, sets: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        bits = np.stack(
            [
                _divergence(column[sets], share)
                for column, share in zip(self.columns, self.shares, strict=True)
            ]
        )
        return bits.max(0), bits.argmax(0)


class _Similarity:
    """The mean cosine between the images of a set, in a space given for that."""

    name = "similarity"

    def __init__(self, reference: ArrayLike | None, count: int) -> None:
        given = _matrix("reference", reference)
        if len(given) != count:
            raise InputError(f"reference: {len(given)} rows; expected {count}, one for each image")
        centred = given - given.mean(0)
        self.unit = centred / np.linalg.norm(centred, axis=1, keepdims=True).clip(1e-12)

    def __call__(self, sets: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        k = sets.shape[1]
        members = self.unit[sets]
        # The square of the sum holds every pair twice, and every image with itself once.
        square = (members.sum(1) ** 2).sum(1)
        own = (members**2).sum((1, 2))
        return (square - own) / (k * (k - 1)), np.full(len(sets), -1)


def _strongest(responses: NDArray[np.float64], top: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the strongest images of each column ``(d, k)``, and whether it has as many above its lowest value."""
    order = np.argsort(-responses, axis=0, kind="stable")[:top]
    last = np.take_along_axis(responses, order[-1:], axis=0)[0]
    # Where a rectified unit is silent on all but a few images, the order of the others would be that of the files.
    return order.T, last > responses.min(0)


def _divergence(values: NDArray[np.intp], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the divergence of each row of ``(s, k)`` from the shares of the values ``(v,)``, ``(s,)``, in bits."""
    within = np.stack([(values == value).mean(1) for value in range(len(shares))], axis=1)
    return (within * np.log2(np.where(within > 0, within, 1) / np.where(within > 0, shares, 1))).sum(1)


def _middle(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _matrix(name: str, given: ArrayLike | None) -> NDArray[np.float64]:
    array = np.asarray(given, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] < 1 or not np.isfinite(array).all():
        raise InputError(f"{name}: shape {array.shape}; expected finite numbers of shape (n, d)")
    return array
