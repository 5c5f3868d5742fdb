"""Betti curves: how many bars are alive at each value of a grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from interpretkit.errors import InputError

__all__ = ["betti_curves"]


def betti_curves(barcodes: Sequence[npt.ArrayLike], grid: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Count the bars that are alive at each value of a grid.

    Parameters
    ----------
    barcodes : Barcodes, or a sequence of (k, 2) arrays
        Half-open bars ``[birth, death)``, one array per dimension.
    grid : (g,) array
        Thresholds, in the unit of the weights. A class counts at ``t`` if ``birth <= t < death``, so
        an arrow of weight ``t`` is part of the digraph at ``t``.

    Returns
    -------
    (dims, g) int array

    Raises
    ------
    InputError
        If the grid is not one-dimensional or holds a NaN, or bars are not of shape (k, 2).
    """
    try:
        thresholds = np.asarray(grid, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("grid: expected numbers") from None
    if thresholds.ndim != 1:
        raise InputError(f"grid: expected shape (g,), got shape {thresholds.shape}")
    if np.isnan(thresholds).any():
        raise InputError("grid: expected numbers, got a NaN")
    curves = np.zeros((len(barcodes), len(thresholds)), dtype=np.int64)
    for p, bars in enumerate(barcodes):
        table = np.asarray(bars, dtype=np.float64)
        if table.size == 0:
            continue
        if table.ndim != 2 or table.shape[1] != 2:
            raise InputError(f"barcodes[{p}]: expected shape (k, 2), got shape {table.shape}")
        born = np.searchsorted(np.sort(table[:, 0]), thresholds, side="right")
        died = np.searchsorted(np.sort(table[:, 1]), thresholds, side="right")
        curves[p] = born - died
    return curves
