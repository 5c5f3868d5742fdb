"""How concentrated a matrix of importances is along its rows and columns."""

from __future__ import annotations

import numpy as np

from interpretkit.disentanglement.columns import Floats


def concentration(importance: Floats) -> tuple[float, float]:
    """Return DCI's disentanglement and completeness of a matrix of importances.

    Disentanglement is the mean over codes, weighted by their share in all importance, of one minus the entropy of
    what a code is important for, to the base of the number of factors. Completeness is the same with codes and
    factors exchanged. Codes without any importance have no weight.

    Parameters
    ----------
    importance : ndarray of float, (d, k)
        How important each code is for each factor; not negative.

    Returns
    -------
    disentanglement, completeness : float
        Both 0 where nothing is important.
    """
    return float(_weighted(importance)), float(_weighted(importance.T))


def _weighted(rows: Floats) -> float:
    total = rows.sum()
    if total <= 0:
        return 0.0
    if rows.shape[1] == 1:
        return 1.0
    sums = rows.sum(axis=1, keepdims=True)
    shares = rows / np.where(sums > 0, sums, 1.0)
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=1) / np.log(rows.shape[1])
    return float(np.clip((sums[:, 0] / total * (1 - entropy)).sum(), 0.0, 1.0))
