"""How fast a part is learned from answers: an annotator who knows the truth, and errors on images never asked about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnn_interp.disentangling.part_cells import PartCells
from cnn_interp.disentangling.part_graph import PartGraph, mean_places, score_maps
from cnn_interp.middle_to_end.annotators import Annotator
from cnn_interp.middle_to_end.dialogue import Dialogue
from interpretkit.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """What is known after an answer.

    Attributes
    ----------
    answers : int
        How many were given.
    verdict : str
        The last one.
    image : int
        Of which image.
    shown : int
        How many images were said to show the part.
    templates : int
        How many templates the graph has.
    error : float
        Mean distance to the part over the image's diagonal, on images that are not asked about; before anybody showed
        the part, that of the middle of the image.
    expected : float
        What the graph expects it to be on the images that are left to ask about; NaN where there is nothing to tell.
    """

    answers: int
    verdict: str
    image: int
    shown: int
    templates: int
    error: float
    expected: float


def centre_error(graph: PartGraph | None, cells: PartCells, rows: ArrayLike, positions: ArrayLike) -> float:
    """Return the mean distance from where a graph finds the part to where it is, over the image's diagonal.

    Parameters
    ----------
    graph : PartGraph or None
        None says the middle of every image.
    cells : PartCells
        Of the images.
    rows : array_like of int, (m,)
        Which of them count.
    positions : array_like of float, (n, 2)
        Row and column of the part in all images, px.
    """
    chosen = np.asarray(rows, dtype=np.int64)
    if graph is None:
        found = np.broadcast_to((np.array(cells.image) - 1) / 2, (len(chosen), 2))
    else:
        found = mean_places(score_maps(graph, cells, chosen), cells)[0]
    away = np.linalg.norm(found - np.asarray(positions, dtype=np.float64)[chosen], axis=1)
    return float(away.mean()) / float(np.hypot(*cells.image))


def taught(
    dialogue: Dialogue, annotator: Annotator, answers: int, rows: ArrayLike, positions: ArrayLike
) -> list[Step]:
    """Let an annotator answer, and return what is known after each answer.

    Parameters
    ----------
    dialogue : Dialogue
        Goes on from where it is.
    annotator : callable
        Who answers.
    answers : int
        How many in all, at most: it ends when nothing is left to ask about.
    rows : array_like of int
        Images that show the part and are not asked about: there the error is measured.
    positions : array_like of float, (n, 2)
        Row and column of the part in all images, px.

    Raises
    ------
    InputError
        If an image is asked about that the error is measured on, or there is none to measure on.
    """
    test = np.asarray(rows, dtype=np.int64)
    if not len(test) or np.isin(test, dialogue.candidates).any():
        raise InputError(f"rows: {len(test)} images; expected some, none of which may be asked about")
    steps: list[Step] = []
    while len(dialogue.entries) < answers and dialogue.question is not None:
        answer = annotator(dialogue.question)
        dialogue.answer(answer)
        graph, expected = dialogue.graph, dialogue.expected_error
        steps.append(
            Step(
                len(dialogue.entries), answer.verdict, answer.image, int(dialogue.standing.shown.sum()),
                0 if graph is None else len(graph.templates),
                centre_error(graph, dialogue.cells, test, positions),
                float("nan") if expected is None else expected,
            )
        )  # fmt: skip
    return steps


def falling(errors: ArrayLike) -> Floats:
    """Return the curve that never rises and is nearest to the errors ``(answers,)``, by least squares.

    What one answer changes by chance counts neither for nor against an order of questions.
    """
    from sklearn.isotonic import IsotonicRegression

    curve = np.asarray(errors, dtype=np.float64)
    return np.asarray(IsotonicRegression(increasing=False).fit_transform(np.arange(len(curve)), curve))


def answers_to_reach(errors: ArrayLike, goal: float) -> float:
    """Return after how many answers the :func:`falling` curve of errors is at a goal; infinite if it never is.

    Between two answers the error is taken to fall evenly.

    Parameters
    ----------
    errors : array_like of float, (answers,)
        After 1, 2, 3 … answers.
    goal : float
        The error to reach.
    """
    curve = falling(errors)
    below = np.flatnonzero(curve <= goal + 1e-12)
    if not len(below):
        return float("inf")
    first = int(below[0])
    if first == 0 or curve[first - 1] == curve[first]:
        return first + 1.0
    return first + float((curve[first - 1] - goal) / (curve[first - 1] - curve[first]))
