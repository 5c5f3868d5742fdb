"""Where parts are, told by units that follow them, after a few annotations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpretkit.errors import InputError
from interpretkit.training.seeds import numpy_generator

Floats = NDArray[np.float64]
ANNOTATED_MEAN = "mean of the annotated"
# How many annotated images' worth of trust an offset of 0 has, in choosing units.
_PRIOR = 1.0


@dataclass(frozen=True, eq=False)
class LocatedParts:
    """Parts located by units.

    Attributes
    ----------
    positions : ndarray of float, (n, parts, 2)
        Row and column of every part in every image, px; NaN for a part without an annotation.
    units : ndarray of int, (parts, k)
        The units that tell where a part is, the best first; −1 for a part without an annotation.
    offsets : ndarray of float, (parts, k, 2)
        From each of these units to the part, px.
    """

    positions: Floats
    units: NDArray[np.int64]
    offsets: Floats


def locate_parts(
    positions: ArrayLike,
    landmarks: ArrayLike,
    annotated: ArrayLike,
    *,
    values: ArrayLike | None = None,
    units: int = 10,
) -> LocatedParts:
    """Assign units to parts by a few annotated images, and locate the parts in all images.

    A unit's offset from a part is its mean over the annotated images. The units whose offset varies least, and is
    small, are chosen: of many units some keep any offset in few images by chance, and one that is near the part anyway
    is the likelier to follow it. The part is where they say on average, each weighted by the inverse of its misfit.

    Parameters
    ----------
    positions : array_like of float, (n, units, 2)
        Row and column of each unit in each image, px.
    landmarks : array_like of float, (n, parts, 2)
        Of the parts, px; only those of `annotated` are looked at.
    annotated : array_like of int, (m,)
        The annotated images, at least one.
    values : array_like of float, (n, units), optional
        How strongly units are seen; where one is not (0), it has no say, unless none of those chosen is seen.
    units : int
        How many units tell where a part is, at most.

    Raises
    ------
    InputError
        If shapes do not fit, or no part is annotated.
    """
    where, parts = (np.asarray(a, dtype=np.float64) for a in (positions, landmarks))
    given = np.asarray(annotated)
    n = len(where)
    if where.ndim != 3 or where.shape[2] != 2 or parts.shape != (n, *parts.shape[1:2], 2):
        raise InputError(
            f"positions {where.shape}, landmarks {parts.shape}; expected (n, units, 2) and (n, parts, 2)"
        )
    seen: NDArray[np.bool_] = np.ones(where.shape[:2], bool) if values is None else np.greater(values, 0)
    if seen.shape != where.shape[:2]:
        raise InputError(f"values of shape {seen.shape}; expected {where.shape[:2]}")
    if units < 1:
        raise InputError(f"units {units}: expected at least 1")
    if given.ndim != 1 or given.dtype.kind not in "iu" or not len(given):
        raise InputError(f"annotated: {len(given) if given.ndim else 0} images; expected the numbers of some")
    known: NDArray[np.bool_] = np.logical_not(np.isnan(parts[given]).any(axis=2))
    if not known.any():
        raise InputError("annotated: none of these images shows a part; expected at least one landmark")
    count = min(units, where.shape[1])
    found = np.full(parts.shape, np.nan)
    chosen = np.full((parts.shape[1], count), -1, dtype=np.int64)
    offsets = np.full((parts.shape[1], count, 2), np.nan)
    for part in range(parts.shape[1]):
        rows = given[known[:, part]]
        if not len(rows):
            continue
        away = parts[rows, part][:, None] - where[rows]
        mean = away.mean(axis=0)
        spread = ((away - mean) ** 2).sum(axis=(0, 2))
        misfit = (spread + _PRIOR * (mean**2).sum(axis=1)) / len(rows)
        # Units that are seldom seen in the annotated images are known by little.
        misfit /= np.maximum(seen[rows].mean(axis=0), 0.5 / len(rows)) ** 2
        best = np.argsort(misfit, kind="stable")[:count]
        weight = 1 / np.maximum(misfit[best], 1.0)
        say = weight * seen[:, best]
        say = np.where(say.sum(axis=1, keepdims=True) > 0, say, weight)
        found[:, part] = ((where[:, best] + mean[best]) * say[..., None]).sum(axis=1) / say.sum(
            axis=1, keepdims=True
        )
        chosen[part], offsets[part] = best, mean[best]
    return LocatedParts(found, chosen, offsets)


def constant_parts(landmarks: ArrayLike, annotated: ArrayLike) -> Floats:
    """Return the mean of the annotated landmarks for every image, ``(n, parts, 2)``: what any locator must beat."""
    parts, given = np.asarray(landmarks, dtype=np.float64), np.asarray(annotated)
    found = np.full(parts.shape[1:], np.nan)
    for part in range(parts.shape[1]):
        rows = given[~np.isnan(parts[given, part]).any(axis=1)]
        if len(rows):
            found[part] = parts[rows, part].mean(axis=0)
    return np.broadcast_to(found, parts.shape)


def normalised_error(
    found: ArrayLike, landmarks: ArrayLike, image: tuple[int, int], rows: ArrayLike
) -> Floats:
    """Return the mean distance to the landmarks over the image's diagonal, ``(parts,)``.

    Parameters
    ----------
    found, landmarks : array_like of float, (n, parts, 2)
        Where parts were found and where they are, px.
    image : (int, int)
        Height and width, px.
    rows : array_like of int
        The images that count, none of them annotated; those with a landmark do.
    """
    away = np.linalg.norm((np.asarray(found) - np.asarray(landmarks))[np.asarray(rows)], axis=2)
    known = ~np.isnan(away)
    total = np.where(known, away, 0.0).sum(axis=0)
    count = known.sum(axis=0)
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0) / float(np.hypot(*image))


def few_annotations(
    readouts: Mapping[str, tuple[ArrayLike, ArrayLike]],
    landmarks: ArrayLike,
    image: tuple[int, int],
    *,
    annotated: int = 3,
    seed: int = 0,
    name: str = "",
    draw: int = 0,
) -> dict[str, float]:
    """Return the errors of parts located after a few annotations that are drawn at random, mean over parts.

    Parameters
    ----------
    readouts : mapping of str to (values, positions)
        From what tells places to how strong its units are ``(n, units)`` and where ``(n, units, 2)``, px.
    landmarks : array_like of float, (n, parts, 2)
        Of the parts, px; NaN where there is none.
    image : (int, int)
        Height and width, px.
    annotated : int
        How many images with the part are annotated. A part that fewer than twice as many show is left out.
    seed, name, draw
        By which those are drawn.

    Returns
    -------
    dict
        From readout to :func:`normalised_error` on the other images; under ``ANNOTATED_MEAN`` that of the mean of the
        annotated landmarks. Empty if no part counts.
    """
    parts = np.asarray(landmarks, dtype=np.float64)
    rng = numpy_generator(seed, "annotations", name, draw)
    errors: dict[str, list[float]] = {}
    for part in range(parts.shape[1]):
        one = parts[:, [part]]
        shown = np.flatnonzero(~np.isnan(one[:, 0]).any(axis=1))
        if len(shown) < 2 * annotated:
            continue
        given = rng.choice(shown, annotated, replace=False)
        others = np.setdiff1d(shown, given)
        for readout, (values, positions) in readouts.items():
            placed = locate_parts(positions, one, given, values=values).positions
            errors.setdefault(readout, []).append(float(normalised_error(placed, one, image, others)[0]))
        still = normalised_error(constant_parts(one, given), one, image, others)
        errors.setdefault(ANNOTATED_MEAN, []).append(float(still[0]))
    return {what: float(np.mean(values)) for what, values in errors.items()}
