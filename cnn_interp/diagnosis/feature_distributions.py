"""How a layer's features vary with category, viewpoint, colour and other factors: shares of variance, and maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpretkit.disentanglement.datasets import SHAPES3D, render_shapes3d
from interpretkit.errors import InputError

# A factor's means span as many dimensions as hold this share of their variance.
_SPANNED = 0.95
# Of each factor of the rendered scenes, so many evenly spread values.
SCENE_LEVELS = {"scale": 2, "shape": 4, "orientation": 5, "object_hue": 4, "wall_hue": 3, "floor_hue": 1}


@dataclass(frozen=True)
class FactorEffect:
    """What one factor does to features.

    Attributes
    ----------
    name : str
        The factor.
    values : ndarray of int, (v,)
        Its values, ascending.
    effects : ndarray, (v, d)
        The mean feature of the images with each value, less the mean of all.
    share : float
        The share of the features' variance that these means make up.
    coordinates : ndarray, (v, c)
        The means on their own principal axes, the first with the largest variance; c is at most 3.
    explained : ndarray, (c,)
        The share of the means' variance on each of these axes.
    dimensions : int
        How many axes hold 95 % of it.
    """

    name: str
    values: NDArray[np.int64]
    effects: NDArray[np.float64]
    share: float
    coordinates: NDArray[np.float64]
    explained: NDArray[np.float64]
    dimensions: int


@dataclass(frozen=True)
class VarianceShares:
    """The variance of features as a sum over factors.

    Attributes
    ----------
    factors : tuple of FactorEffect
        In the order given.
    residual : float
        The share that no factor makes up by itself: what they do together, and what differs between images of the
        same factors. All shares and the residual add up to 1.
    total : float
        The variance of the features, summed over them.
    """

    factors: tuple[FactorEffect, ...]
    residual: float
    total: float

    @property
    def shares(self) -> dict[str, float]:
        """From each factor's name, and ``residual``, to its share."""
        return {effect.name: effect.share for effect in self.factors} | {"residual": self.residual}


def variance_shares(
    features: ArrayLike, factors: ArrayLike, names: Sequence[str] | None = None
) -> VarianceShares:
    """Split the variance of features among the factors that were varied (Aubry and Russell 2015, arXiv 1506.01151).

    A feature is taken for the sum of the mean over all images, of a mean effect of each factor's value, and of a
    residual. With images for all combinations of values the parts are uncorrelated, and their variances add up exactly.

    Parameters
    ----------
    features : array_like of float, (n, d)
        Features of a layer.
    factors : array_like of int, (n,) or (n, k)
        Numbers of the values, such as the categories of photographs, or the factors of rendered images.
    names : sequence of str, (k,), optional
        What the factors are called.

    Returns
    -------
    VarianceShares

    Raises
    ------
    InputError
        If the arrays do not fit together, the features do not vary, or two factors go together, so that their shares
        cannot be told apart: each two of them must be crossed, all combinations in proportion.
    """
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) < 2 or not np.isfinite(x).all():
        raise InputError(f"features: shape {x.shape}; expected finite numbers of shape (n, d), n at least 2")
    given = np.asarray(factors)
    given = given[:, None] if given.ndim == 1 else given
    if given.ndim != 2 or len(given) != len(x) or given.dtype.kind not in "iub" or not given.shape[1]:
        raise InputError(
            f"factors: {given.dtype} of shape {given.shape}; expected whole numbers of shape ({len(x)}, k)"
        )
    called = tuple(names) if names is not None else tuple(f"factor {i}" for i in range(given.shape[1]))
    if len(called) != given.shape[1]:
        raise InputError(f"names: {len(called)} for {given.shape[1]} factors")
    coded = [np.unique(column, return_inverse=True) for column in given.T]
    _check_crossed([codes for _, codes in coded], called)
    centred = x - x.mean(0)
    total = float((centred**2).sum()) / len(x)
    if total <= 0:
        raise InputError("features: do not vary; expected features of different images")
    found = []
    for name, (values, codes) in zip(called, coded, strict=True):
        counts = np.bincount(codes)
        sums = np.zeros((len(values), x.shape[1]))
        np.add.at(sums, codes, centred)
        effects = sums / counts[:, None]
        found.append(_effect(name, values.astype(np.int64), effects, counts / len(x), total))
    residual = 1 - sum(effect.share for effect in found)
    return VarianceShares(tuple(found), float(residual), total)


def render_scenes(levels: dict[str, int] | None = None) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Render an object in a room in all combinations of shape, viewpoint, colours and size.

    Parameters
    ----------
    levels : dict of str to int, optional
        How many values of each factor of :data:`interpretkit.disentanglement.datasets.SHAPES3D` to show, evenly
        spread; :data:`SCENE_LEVELS` by default (480 images).

    Returns
    -------
    images : ndarray of uint8, (n, 64, 64, 3)
        One for each combination.
    factors : ndarray of intp, (n, 6)
        Numbers of the values shown, in the order of ``SHAPES3D.names``.

    Raises
    ------
    InputError
        If a factor is unknown, or has fewer values.
    """
    wanted = dict(SCENE_LEVELS if levels is None else levels)
    unknown = set(wanted) - set(SHAPES3D.names)
    if unknown:
        raise InputError(
            f"levels: no factor {sorted(unknown)[0]!r}; expected some of {', '.join(SHAPES3D.names)}"
        )
    shown = []
    for name, size in zip(SHAPES3D.names, SHAPES3D.sizes, strict=True):
        count = wanted.get(name, 1)
        if not 1 <= count <= size:
            raise InputError(f"levels: {count} of {name}; expected 1 to {size}")
        # Hues go round in a circle, whose ends are neighbours; all others are spread from end to end.
        places = (
            (np.arange(count) + 0.5) * (size / count) if "hue" in name else np.linspace(0, size - 1, count)
        )
        shown.append(np.floor(places).astype(np.intp))
    grid = np.stack(np.meshgrid(*shown, indexing="ij"), axis=-1).reshape(-1, len(shown))
    return render_shapes3d(grid), grid


def _effect(
    name: str,
    values: NDArray[np.int64],
    effects: NDArray[np.float64],
    weights: NDArray[np.float64],
    total: float,
) -> FactorEffect:
    _, singular, axes = np.linalg.svd(effects * np.sqrt(weights)[:, None], full_matrices=False)
    variances = singular**2
    variance = float(variances.sum())
    explained = variances / variance if variance > 0 else np.zeros_like(variances)
    kept = min(3, len(explained))
    # An axis has no direction of its own; the largest of its entries is made positive, so that maps repeat.
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])
    coordinates = effects @ (axes * signs[:, None]).T
    return FactorEffect(
        name=name,
        values=values,
        effects=effects,
        share=variance / total,
        coordinates=coordinates[:, :kept],
        explained=explained[:kept],
        dimensions=int(np.searchsorted(np.cumsum(explained), _SPANNED - 1e-12) + 1) if variance > 0 else 0,
    )


def _check_crossed(coded: Sequence[NDArray[np.intp]], names: Sequence[str]) -> None:
    for first in range(len(coded)):
        for second in range(first):
            table = np.zeros((coded[first].max() + 1, coded[second].max() + 1))
            np.add.at(table, (coded[first], coded[second]), 1)
            expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
            if not np.allclose(table, expected, atol=1e-6):
                raise InputError(
                    f"factors: {names[second]} and {names[first]} are not crossed; expected all combinations of their "
                    "values in proportion"
                )
