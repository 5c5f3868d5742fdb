"""Falsified labels, and how soon a ranking of suspects finds them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpretkit.errors import InputError
from interpretkit.training import numpy_generator


def falsify(
    labels: NDArray[np.integer], classes: int, share: float, *, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Replace some labels by random other ones.

    Parameters
    ----------
    labels : ndarray of int, (n,)
        From 0 to below `classes`.
    classes : int
        At least 2.
    share : float
        Share of the labels that become wrong, in 0 … 1.
    seed : int
        Seed of the choice.

    Returns
    -------
    labels : ndarray of int, (n,)
        A copy, partly wrong.
    falsified : ndarray of bool, (n,)
        Which are.

    Raises
    ------
    InputError
        If an argument is out of range.
    """
    if classes < 2 or not 0 <= share <= 1:
        raise InputError(f"classes {classes}, share {share}: expected at least 2, and 0 to 1")
    generator = numpy_generator(seed, "falsified labels")
    changed = np.array(labels, dtype=np.int64)
    falsified = np.zeros(len(changed), dtype=bool)
    falsified[generator.permutation(len(changed))[: round(share * len(changed))]] = True
    shift = generator.integers(1, classes, int(falsified.sum()))
    changed[falsified] = (changed[falsified] + shift) % classes
    return changed, falsified


def found_by_checking(suspicion: ArrayLike, falsified: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the share of the wrong labels found after checking 1, 2, … examples, the most suspect first, ``(n,)``.

    Raises
    ------
    InputError
        If the lengths differ, or no label is wrong.
    """
    scores = np.asarray(suspicion, dtype=float)
    if scores.shape != falsified.shape or not falsified.any():
        raise InputError(
            f"suspicion {scores.shape}, falsified {falsified.shape}: expected one length, and a wrong label"
        )
    order = np.argsort(-scores, kind="stable")
    return np.cumsum(falsified[order]) / falsified.sum()
