"""Choosing among equals: numbers that agree within a tolerance count as equal, and a rule decides between them.

Symmetric structures are full of distances that are equal but for rounding, and rounding differs from processor to
processor. Wherever something is sorted or chosen by such numbers, the functions here compare them with a tolerance
first, then by a second key, and at last by place.
"""

from __future__ import annotations

import numpy as np

LENGTH_TOLERANCE = 1e-4
"""Lengths in Å that differ by less count as equal."""


def tolerant_ranks(values: np.ndarray, tolerance: float = LENGTH_TOLERANCE) -> np.ndarray:
    """Return ranks of numbers, equal for numbers that are equal within a tolerance.

    Parameters
    ----------
    values : ndarray
        Any shape.
    tolerance : float
        Neighbours in ascending order that differ by less have one rank. Unlike rounding to a grid, this has no
        fixed boundaries that a number could lie on.

    Returns
    -------
    ndarray
        Integers from 0, of the same shape.
    """
    flat = np.asarray(values, dtype=float).ravel()
    order = flat.argsort(kind="stable")
    ascending = flat[order]
    ranks = np.zeros(len(flat), dtype=int)
    if len(flat) > 1:
        with np.errstate(
            invalid="ignore"
        ):  # infinite neighbours are equal, though their difference is no number
            steps = ascending[1:] - ascending[:-1] > tolerance
        ranks[order[1:]] = steps.cumsum()
    return ranks.reshape(np.shape(values))


def tolerant_order(*keys: np.ndarray, tolerance: float = LENGTH_TOLERANCE) -> np.ndarray:
    """Return the order of items by several keys, each within a tolerance, the first key first, and then by place.

    Parameters
    ----------
    *keys : ndarray
        Shape (n,) each, at least one.
    tolerance : float
        As for `tolerant_ranks`.

    Returns
    -------
    ndarray
        Indices, shape (n,).
    """
    return np.lexsort([tolerant_ranks(key, tolerance) for key in reversed(keys)])


def first_smallest(values: np.ndarray, tolerance: float = LENGTH_TOLERANCE) -> int:
    """Return the first place (in flat order) of a number that exceeds the smallest by no more than a tolerance."""
    flat = np.asarray(values, dtype=float).ravel()
    return int(np.argmax(flat <= flat.min() + tolerance))


def first_largest(values: np.ndarray, tolerance: float = LENGTH_TOLERANCE) -> int:
    """Return the first place (in flat order) of a number that the largest exceeds by no more than a tolerance."""
    return first_smallest(-np.asarray(values, dtype=float), tolerance)


def merged(values: np.ndarray, tolerance: float = LENGTH_TOLERANCE) -> np.ndarray:
    """Return numbers of which those equal within a tolerance are replaced by their mean, the same shape."""
    ranks = tolerant_ranks(values, tolerance).ravel()
    flat = np.asarray(values, dtype=float).ravel()
    means = np.bincount(ranks, weights=flat) / np.bincount(ranks)
    return means[ranks].reshape(np.shape(values))
