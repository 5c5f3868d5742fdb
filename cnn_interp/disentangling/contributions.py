"""What filters and parts contribute to a score, held against their removal; which part a filter belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from cnn_interp.disentangling.features import LayerMaps
from cnn_interp.disentangling.linear_pieces import Floats, ScoreOfMaps
from interpretkit.runs.progress import track

Integers = NDArray[np.int64]
ELSEWHERE = "elsewhere"
_IMAGES = 32
# Of one image's maps, each time with other filters removed, this many go through at once.
_REMOVED = 128


def score_drops(
    score: ScoreOfMaps,
    maps: LayerMaps,
    rows: ArrayLike,
    groups: ArrayLike,
    *,
    device: torch.device | str = "cpu",
    quiet: bool = True,
) -> Floats:
    """Return by how much the network's score drops if the maps of groups of filters are set to 0, ``(m, groups)``.

    Parameters
    ----------
    score : callable
        As in :func:`linear_pieces`.
    maps : LayerMaps
        Of the images.
    rows : array_like of int, (m,)
        Which images.
    groups : array_like of bool, (groups, filters)
        Which filters are removed together; a unit matrix for each alone.
    device : torch.device or str
        Where to compute.
    quiet : bool
        Whether to show no progress bar.
    """
    numbers = np.asarray(rows)
    kept = torch.as_tensor(~np.asarray(groups, dtype=bool), dtype=torch.float32, device=device)
    found = np.empty((len(numbers), len(kept)))
    for place, number in enumerate(track(numbers.tolist(), "Removing filters", quiet=quiet)):
        values = maps.tensor([number], device)
        with torch.no_grad():
            before = score(values)
            # Filters that are silent in the image change nothing.
            silent = (values == 0).all(dim=3).all(dim=2)[0].cpu().numpy()
            moves = np.flatnonzero((np.asarray(groups, dtype=bool) & ~silent).any(axis=1))
            found[place] = 0.0
            for start in range(0, len(moves), _REMOVED):
                some = moves[start : start + _REMOVED]
                after = score(values * kept[some][:, :, None, None])
                found[place, some] = (before - after).double().cpu().numpy()
    return found


def contribution_fitness(contributions: ArrayLike, drops: ArrayLike) -> float:
    """Return how far filters' contributions have the distribution of the drops of the score without each filter.

    Parameters
    ----------
    contributions, drops : array_like of float, (n, filters)
        In the same unit.

    Returns
    -------
    float
        Mean over images of Σ min(ρ̂, |Δ|)/Σ max(ρ̂, |Δ|), where ρ̂ is the part of ρ that has the sign of Δ; 1 is perfect.
    """
    rho, delta = (np.asarray(a, dtype=np.float64) for a in (contributions, drops))
    told = np.maximum(rho * np.sign(delta), 0)
    both = np.minimum(told, np.abs(delta)).sum(axis=1)
    either = np.maximum(told, np.abs(delta)).sum(axis=1)
    return float(np.mean(np.divide(both, either, out=np.ones_like(both), where=either > 0)))


def part_errors(contributions: ArrayLike, drops: ArrayLike, scores: ArrayLike) -> Floats:
    """Return the error of parts' contributions: mean |Aρ − Δ| over the mean absolute score, ``(parts,)``.

    Parameters
    ----------
    contributions, drops : array_like of float, (n, parts)
        What the filters of each part add to the score, and by how much it drops without them.
    scores : array_like of float, (n,)
        The network's.
    """
    away = np.abs(np.asarray(contributions) - np.asarray(drops)).mean(axis=0)
    return away / max(float(np.abs(np.asarray(scores)).mean()), np.finfo(float).tiny)


@dataclass(frozen=True, eq=False)
class FilterParts:
    """Which part of the object each filter belongs to.

    Attributes
    ----------
    names : tuple of str, (parts,)
        Of the parts, ``elsewhere`` last.
    numbers : ndarray of int, (filters,)
        Of each filter's part.
    """

    names: tuple[str, ...]
    numbers: Integers

    @property
    def groups(self) -> NDArray[np.bool_]:
        """A, ``(parts, filters)``: which filters belong to each part."""
        return np.arange(len(self.names))[:, None] == self.numbers

    @property
    def of_filters(self) -> list[str]:
        """The part of each filter."""
        return [self.names[number] for number in self.numbers]


def filter_parts(
    maps: LayerMaps,
    rows: ArrayLike,
    landmarks: ArrayLike,
    part_names: Sequence[str],
    image: tuple[int, int],
    *,
    reach: float = 0.15,
) -> FilterParts:
    """Assign each filter to the part that it is most often strongest at.

    Parameters
    ----------
    maps : LayerMaps
        Of all images.
    rows : array_like of int
        The images that count.
    landmarks : array_like of float, (n, parts, 2)
        Of the parts in all images, px; NaN where there is none.
    part_names : sequence of str, (parts,)
        What they are called.
    image : (int, int)
        Height and width, px.
    reach : float
        How far from a part's landmark its filters are strongest, as a share of the diagonal; filters that are farther
        from any in most images are ``elsewhere``.

    Notes
    -----
    Each image has a vote for the nearest part, by the filter's largest response in it. Images count that show all parts
    if there are at least ten of them, for of a part without a landmark nobody may say how near it is.
    """
    parts = np.asarray(landmarks, dtype=np.float64)
    numbers = np.asarray(rows)
    numbers = np.flatnonzero(numbers) if numbers.dtype == bool else numbers
    shown: NDArray[np.bool_] = np.logical_not(np.isnan(parts).any(axis=2))
    seldom = shown[numbers].sum(axis=0) == 0
    complete = numbers[(shown[numbers] | seldom).all(axis=1)]
    counted = complete if len(complete) >= 10 else numbers[shown[numbers].any(axis=1)]
    votes = np.zeros((maps.units, len(part_names) + 1))
    places = maps.positions
    diagonal = float(np.hypot(*image))
    for start in range(0, len(counted), _IMAGES):
        some = counted[start : start + _IMAGES]
        flat = maps.tensor(some).flatten(2)
        values, where = flat.max(dim=2)
        positions = places[where.numpy()]
        away = np.linalg.norm(positions[:, :, None] - parts[some][:, None], axis=3) / diagonal
        away = np.concatenate([np.nan_to_num(away, nan=np.inf), np.full((*away.shape[:2], 1), reach)], axis=2)
        nearest = away.argmin(axis=2)
        for row, strength in enumerate(values.clamp_min(0).double().numpy()):
            votes[np.arange(maps.units), nearest[row]] += strength
    # A filter without any response belongs nowhere.
    numbers_of = np.where(votes.sum(axis=1) > 0, votes.argmax(axis=1), len(part_names))
    return FilterParts((*part_names, ELSEWHERE), numbers_of.astype(np.int64))


def part_sums(contributions: ArrayLike, parts: Sequence[str]) -> Mapping[str, float]:
    """Return what the filters of each part contribute together, by the part's name, of contributions ``(filters,)``."""
    found: dict[str, float] = {}
    for name, amount in zip(parts, np.asarray(contributions).tolist(), strict=True):
        found[name] = found.get(name, 0.0) + amount
    return found
