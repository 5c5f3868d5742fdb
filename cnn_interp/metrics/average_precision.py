"""Average precision of detectors: the area below precision over recall, at one overlap or the mean over several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpretkit.errors import InputError
from interpretkit.training.seeds import numpy_generator

Floats = NDArray[np.float64]
# Those of COCO.
OVERLAPS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of one image with their categories, and with scores if they were detected.

    Attributes
    ----------
    boxes : ndarray of float, (n, 4)
        Edges: top, left, bottom, right.
    categories : ndarray of int, (n,)
        Numbers of categories.
    scores : ndarray of float, (n,)
        How sure the detector is; anything for true boxes.
    """

    boxes: Floats
    categories: NDArray[np.int64]
    scores: Floats

    @classmethod
    def of(cls, boxes: ArrayLike, categories: ArrayLike, scores: ArrayLike | None = None) -> Boxes:
        """Return boxes from whatever arrays hold them.

        Raises
        ------
        InputError
            If there is not one category and one score for each box.
        """
        edges = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        kinds = np.asarray(categories, dtype=np.int64).reshape(-1)
        sure = np.ones(len(edges)) if scores is None else np.asarray(scores, dtype=np.float64).reshape(-1)
        if not len(edges) == len(kinds) == len(sure):
            raise InputError(
                f"boxes: {len(edges)} with {len(kinds)} categories and {len(sure)} scores; expected one each"
            )
        return cls(edges, kinds, sure)


@dataclass(frozen=True, eq=False)
class Matches:
    """What became of the detections of one category, over all images.

    Attributes
    ----------
    scores : ndarray of float, (detections,)
        Of the detections.
    image : ndarray of int, (detections,)
        The image that each is of.
    right : ndarray of bool, (overlaps, detections)
        Whether it is the best one yet of a true box, at each overlap.
    truths : ndarray of int, (images,)
        How many true boxes each image has.
    """

    scores: Floats
    image: NDArray[np.int64]
    right: NDArray[np.bool_]
    truths: NDArray[np.int64]

    def curve(self, at: int = 0, weights: ArrayLike | None = None) -> tuple[Floats, Floats]:
        """Return recall and precision after each detection, the surest first.

        Parameters
        ----------
        at : int
            The place of the overlap.
        weights : array_like of float, (images,), optional
            How often each image counts; once by default.
        """
        order = np.argsort(-self.scores, kind="stable")
        times = np.ones(len(self.truths)) if weights is None else np.asarray(weights, dtype=np.float64)
        each = times[self.image[order]]
        hits = np.cumsum(each * self.right[at][order])
        total = float(times @ self.truths)
        recall = np.full(len(hits), np.nan)
        np.divide(hits, total, out=recall, where=total > 0)
        told = np.cumsum(each)
        precision = np.ones(len(hits))
        np.divide(hits, told, out=precision, where=told > 0)
        return recall, precision

    def average_precision(self, at: int = 0, weights: ArrayLike | None = None) -> float:
        """Return the area below the largest precision at this recall or more; NaN if there is nothing to find."""
        recall, precision = self.curve(at, weights)
        times = np.ones(len(self.truths)) if weights is None else np.asarray(weights, dtype=np.float64)
        if float(times @ self.truths) == 0:
            return float("nan")
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


@dataclass(frozen=True, eq=False)
class DetectionScore:
    """How well objects were detected.

    Attributes
    ----------
    matches : tuple of Matches
        For each category.
    overlaps : tuple of float
        At which boxes count as found.
    """

    matches: tuple[Matches, ...]
    overlaps: tuple[float, ...]

    def by_category(self, overlap: float | None = None, weights: ArrayLike | None = None) -> Floats:
        """Return the average precision of each category, at one overlap or the mean over all; NaN where nothing is."""
        places = range(len(self.overlaps)) if overlap is None else [self.overlaps.index(overlap)]
        found = [[one.average_precision(at, weights) for at in places] for one in self.matches]
        return np.array(found, dtype=np.float64).mean(axis=1)

    def mean(self, overlap: float | None = None, weights: ArrayLike | None = None) -> float:
        """Return the mean over the categories of which there is something to find."""
        found = self.by_category(overlap, weights)
        known = found[~np.isnan(found)]
        return float(known.mean()) if known.size else float("nan")

    def draws(self, overlap: float | None = 0.5, *, n: int = 400, seed: int = 0) -> Floats:
        """Return the mean on `n` sets of images drawn from these with replacement, ``(n,)``.

        The same seed draws the same images, so that the draws of two detectors may be taken from each other.
        """
        count = len(self.matches[0].truths)
        rng = numpy_generator(seed, "average-precision")
        weights = rng.multinomial(count, np.full(count, 1 / count), size=n)
        return np.array([self.mean(overlap, row) for row in weights])


def detection_score(
    found: Sequence[Boxes], truths: Sequence[Boxes], categories: int, *, overlaps: Sequence[float] = OVERLAPS
) -> DetectionScore:
    """Match detections with true boxes.

    Of each image and category, the surest detection first, each takes the true box that it overlaps with most among
    those that are still free, if that is at least the overlap asked for; all others are wrong. The average precision is
    the whole area below the curve ("all points"), not a mean over eleven of them.

    Parameters
    ----------
    found, truths : sequence of Boxes
        What was detected in each image, and what is there.
    categories : int
        How many there are.
    overlaps : sequence of float
        Intersections over union at which a box counts as found.

    Raises
    ------
    InputError
        If numbers do not fit.

    References
    ----------
    Everingham et al., The PASCAL visual object classes challenge, IJCV 2010 (from 2010 on); Lin et al., Microsoft COCO,
    ECCV 2014, for the overlaps.
    """
    if len(found) != len(truths) or not truths:
        raise InputError(
            f"found: of {len(found)} images, truths of {len(truths)}; expected the same, at least one"
        )
    matches = []
    for category in range(categories):
        scores, image, right, counts = [], [], [], []
        for number, (guess, truth) in enumerate(zip(found, truths, strict=True)):
            mine = np.flatnonzero(guess.categories == category)
            mine = mine[np.argsort(-guess.scores[mine], kind="stable")]
            theirs = truth.boxes[truth.categories == category]
            counts.append(len(theirs))
            scores.append(guess.scores[mine])
            image.append(np.full(len(mine), number))
            right.append(_matched(box_overlaps(guess.boxes[mine], theirs), overlaps))
        matches.append(
            Matches(
                np.concatenate(scores),
                np.concatenate(image),
                np.concatenate(right, axis=1),
                np.array(counts, dtype=np.int64),
            )
        )
    return DetectionScore(tuple(matches), tuple(overlaps))


def box_overlaps(first: Floats, second: Floats) -> Floats:
    """Return the intersection over union of boxes ``(n, 4)`` with boxes ``(m, 4)``, ``(n, m)``."""
    a, b = first[:, None], second[None]
    shared = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(
        -1
    )
    areas = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    return np.divide(shared, areas, out=np.zeros_like(shared), where=areas > 0)


def _matched(shared: Floats, overlaps: Sequence[float]) -> NDArray[np.bool_]:
    """Return which detections (rows, surest first) get a true box (columns), ``(overlaps, detections)``."""
    right = np.zeros((len(overlaps), len(shared)), dtype=bool)
    if shared.shape[1] == 0:
        return right
    for place, least in enumerate(overlaps):
        free = np.ones(shared.shape[1], dtype=bool)
        for row, values in enumerate(shared):
            best = int(np.argmax(np.where(free, values, -1.0)))
            if free[best] and values[best] >= least:
                right[place, row], free[best] = True, False
    return right
