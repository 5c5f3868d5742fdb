"""A network's score of a category as a linear function of filters' responses, in the neighbourhood of each image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cnn_interp.disentangling.features import LayerMaps
from interpretkit.errors import InputError
from interpretkit.runs.progress import progress

Floats = NDArray[np.float64]
# From the maps of a layer (n, filters, h, w) to the scores of a category (n,), above 0 for what is of the category.
ScoreOfMaps = Callable[[Tensor], Tensor]
# So many images go through what is above the layer at once.
_IMAGES = 32
# Shorter gradients are none.
SHORTEST = 1e-12


@dataclass(frozen=True, eq=False)
class LinearPieces:
    """What a network makes of the maps of a layer, for each image as a linear function of the filters' responses.

    In the neighbourhood of an image its score is g·x + b. Scores and biases are divided by the length of g, which
    changes no sign.

    Attributes
    ----------
    responses : ndarray of float, (n, filters)
        x: each filter's response, summed over positions and divided by its scale.
    gradients : ndarray of float, (n, filters)
        g: of the score by x, of length 1; zero where the score does not change.
    scores : ndarray of float, (n,)
        Divided by the lengths.
    lengths : ndarray of float, (n,)
        Of the gradients before; 1 where there is none.
    scale : ndarray of float, (filters,)
        Each filter's mean absolute response, by which responses were divided; 1 for one that is never active.
    """

    responses: Floats
    gradients: Floats
    scores: Floats
    lengths: Floats
    scale: Floats

    def __post_init__(self) -> None:
        n, filters = self.responses.shape
        shapes = [self.gradients.shape, self.scores.shape, self.lengths.shape, self.scale.shape]
        if shapes != [(n, filters), (n,), (n,), (filters,)]:
            raise InputError(
                f"responses ({n}, {filters}): gradients, scores, lengths and scale are of shapes {shapes}"
            )

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def biases(self) -> Floats:
        """Return b of each image, ``(n,)``, so that g·x + b is its score."""
        return self.scores - (self.gradients * self.responses).sum(axis=1)

    @property
    def contributions(self) -> Floats:
        """What each filter adds to the score by the image's own gradient, ``(n, filters)``."""
        return self.gradients * self.responses

    def subset(self, rows: ArrayLike) -> LinearPieces:
        """Return those of some images, in that order."""
        chosen = np.asarray(rows)
        return replace(
            self,
            responses=self.responses[chosen],
            gradients=self.gradients[chosen],
            scores=self.scores[chosen],
            lengths=self.lengths[chosen],
        )


def linear_pieces(
    score: ScoreOfMaps,
    maps: LayerMaps,
    rows: ArrayLike | None = None,
    *,
    scale: ArrayLike | None = None,
    device: torch.device | str = "cpu",
    quiet: bool = True,
) -> LinearPieces:
    """Return a network's score as a linear function of the filters' responses, in the neighbourhood of each image.

    Parameters
    ----------
    score : callable
        From maps ``(n, filters, h, w)`` to scores ``(n,)``, above 0 for what is of the category; before any softmax.
    maps : LayerMaps
        Of the images.
    rows : array_like of int, optional
        Which images; all by default.
    scale : array_like of float, (filters,), optional
        As it was for the images that a tree was learned from; by default each filter's mean over these images.
    device : torch.device or str
        Where to compute.
    quiet : bool
        Whether to show no progress bar.

    Raises
    ------
    InputError
        If there are no images, or scores are not finite or of another shape.
    """
    chosen = np.arange(len(maps)) if rows is None else np.asarray(rows)
    if not len(chosen):
        raise InputError("rows: there are none; expected at least one image")
    positions = maps.shape[0] * maps.shape[1]
    sums, sizes = np.empty((len(chosen), maps.units)), np.zeros(maps.units)
    slopes, scores = np.empty_like(sums), np.empty(len(chosen))
    with progress("Linear pieces", len(chosen), quiet=quiet) as bar:
        for start in range(0, len(chosen), _IMAGES):
            some = slice(start, start + _IMAGES)
            values = maps.tensor(chosen[some], device).requires_grad_()
            with torch.enable_grad():
                found = score(values)
            if found.shape != (len(values),) or not bool(torch.isfinite(found).all()):
                raise InputError(
                    f"score: gives values of shape {tuple(found.shape)} for {len(values)} images, or not finite ones; "
                    "expected a finite one for each"
                )
            # Scores that depend on no map have no gradient at all.
            gradient = (
                torch.autograd.grad(found.sum(), values, allow_unused=True)[0]
                if found.requires_grad
                else None
            )
            gradient = torch.zeros_like(values) if gradient is None else gradient
            plain = values.detach().double()
            sums[some] = plain.sum(dim=(2, 3)).cpu().numpy()
            sizes += plain.abs().sum(dim=(0, 2, 3)).cpu().numpy()
            slopes[some] = gradient.double().sum(dim=(2, 3)).cpu().numpy() / positions
            scores[some] = found.detach().double().cpu().numpy()
            bar.advance(len(values))
    if scale is None:
        mean = sizes / (len(chosen) * positions)
        divisor = np.where(mean > 0, mean, 1.0)
    else:
        divisor = np.asarray(scale, dtype=np.float64)
    slopes *= divisor
    lengths = np.linalg.norm(slopes, axis=1)
    lengths = np.where(lengths > SHORTEST, lengths, 1.0)
    return LinearPieces(sums / divisor, slopes / lengths[:, None], scores / lengths, lengths, divisor)
