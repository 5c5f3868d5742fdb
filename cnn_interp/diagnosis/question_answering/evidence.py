"""Which regions and which words an answer rests on, compared with the exact masks of the things asked about.

Regions are those that the network attends to, or those to which an attribution method (Grad-CAM, occlusion) traces the
answer back; words are covered, or traced back by the gradient (Goyal et al., 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cnn_interp.diagnosis.question_answering.answerer import CELL, Answerer
from cnn_interp.diagnosis.question_answering.exam import COVERED, LONGEST, VOCABULARY, Exam
from interpretkit.attribution import attribute
from interpretkit.errors import InputError
from interpretkit.networks.instrumentation import instrumented
from interpretkit.runs.progress import track


class WithQuestion(nn.Module):
    """A network of images alone: an answerer that is asked the same question each time.

    Parameters
    ----------
    answerer : Answerer
        Not copied.
    words : Tensor of int, (LONGEST,)
        The question.
    """

    def __init__(self, answerer: Answerer, words: Tensor) -> None:
        super().__init__()
        self.answerer = answerer
        self.words = words

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(n, answers)``."""
        return self.answerer(images, self.words.to(images.device).expand(len(images), -1))


def attended_regions(
    model: Answerer, exam: Exam, rows: Sequence[int] | NDArray[np.integer]
) -> NDArray[np.float64]:
    """Return where a network looks, by its own attention.

    Parameters
    ----------
    model : Answerer
        The network.
    exam : Exam
        Its questions.
    rows : sequence of int, (r,)
        Which of them.

    Returns
    -------
    ndarray of float, (r, looks, size, size)
        One over all looks and pixels in sum, for a look may be closed; the same everywhere if all are.
    """
    device = next(model.parameters()).device
    rows = np.asarray(rows)
    images, words = exam.images(), exam.words()
    with instrumented(model, 0), torch.no_grad():
        _, attention = model.attend(images[exam.scene_of[rows]].to(device), words[rows].to(device))
    maps = attention.double().cpu().numpy()
    total = maps.sum((1, 2, 3), keepdims=True)
    maps = np.where(total > 0, maps / np.where(total > 0, total, 1), 1 / maps[0].size)
    return maps.repeat(CELL, 2).repeat(CELL, 3) / CELL**2


def attributed_regions(
    model: Answerer,
    exam: Exam,
    rows: Sequence[int] | NDArray[np.integer],
    *,
    method: str = "gradcam",
    quiet: bool = True,
    **options: Any,
) -> NDArray[np.float64]:
    """Return which regions made a network's answers, by a method of :func:`interpretkit.attribution.attribute`.

    Parameters
    ----------
    model : Answerer
        The network.
    exam : Exam
        Its questions.
    rows : sequence of int, (r,)
        Which of them.
    method : str
        Such as ``gradcam``, which explains by the encoder's last layer, ``occlusion`` or ``guided_backprop``.
    quiet : bool
        Show no progress.
    **options
        The method's own.

    Returns
    -------
    ndarray of float, (r, size, size)
        What speaks for the answer given; what speaks against it is set to zero.
    """
    device = next(model.parameters()).device
    rows = np.asarray(rows)
    images, words = exam.images(), exam.words()
    # Images that are asked the same question go through the network together.
    together: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        together.setdefault(exam.questions[int(row)].text, []).append(place)
    found = np.zeros((len(rows), *images.shape[2:]))
    if method.startswith(("gradcam", "layercam")):
        options = {"layer": f"answerer.encoder.{len(model.encoder) - 1}", **options}
    for places in track(together.values(), f"Regions by {method}", quiet=quiet):
        asked = WithQuestion(model, words[rows[places[0]]].to(device))
        values = attribute(
            asked, images[exam.scene_of[rows[places]]].to(device), method=method, **options
        ).numpy()
        found[places] = np.clip(values, 0, None).sum(1)
    return found


def word_importance(
    model: Answerer,
    exam: Exam,
    rows: Sequence[int] | NDArray[np.integer],
    *,
    method: str = "cover",
) -> NDArray[np.float64]:
    """Return how much each word of a question matters to the answer given (Goyal et al., 2016, arXiv:1608.08974).

    Parameters
    ----------
    model : Answerer
        The network.
    exam : Exam
        Its questions.
    rows : sequence of int, (r,)
        Which of them.
    method : {"cover", "gradient"}
        The drop of the answer's log-probability when the word is covered, or the gradient of that by the word's
        embedding times the embedding.

    Returns
    -------
    ndarray of float, (r, LONGEST)
        NaN where there is no word.

    Raises
    ------
    InputError
        If the method is unknown.
    """
    if method not in ("cover", "gradient"):
        raise InputError(f"method {method!r}: expected cover or gradient")
    device = next(model.parameters()).device
    rows = np.asarray(rows)
    words = exam.words()[rows].to(device)
    with instrumented(model, 0):
        with torch.no_grad():
            features = model.encoder(exam.images()[exam.scene_of[rows]].to(device))
        embedded = model.embedding(words).detach().requires_grad_()
        whole = model.look(features, embedded[:, None])[0][:, 0].log_softmax(1)
        given = whole.argmax(1, keepdim=True)
        scores = whole.gather(1, given)[:, 0]
        if method == "gradient":
            (gradient,) = torch.autograd.grad(scores.sum(), embedded)
            found = (gradient * embedded).sum(2).detach()
        else:
            found = torch.zeros(words.shape, device=device)
            with torch.no_grad():
                for place in range(LONGEST):
                    covered = words.clone()
                    covered[:, place] = VOCABULARY.index(COVERED)
                    logits = model.look(features, model.embedding(covered)[:, None])[0][:, 0]
                    found[:, place] = scores - logits.log_softmax(1).gather(1, given)[:, 0]
    values = found.detach().double().cpu().numpy()
    values[words.cpu().numpy() == 0] = np.nan
    return values


@dataclass(frozen=True)
class Localization:
    """How well maps show what was asked about, over some questions.

    Attributes
    ----------
    pointing : float
        Share of the maps whose largest value lies on the asked things, or within 2 px of them.
    mass : float
        Mean share of a map's sum that lies on them.
    by_chance : float
        Mean share of the image within 2 px of the asked things: the pointing of a random pixel.
    by_any_thing : float
        The pointing of somebody who sees all things but does not know which was asked about.
    area : float
        Mean share of the image that the asked things take: the mass of a map without features.
    count : int
        Questions.
    """

    pointing: float
    mass: float
    by_chance: float
    by_any_thing: float
    area: float
    count: int


# A cell of the attention is 4 px wide, so that its middle may lie so far beside a thing that it covers.
TOLERANCE = 2


def localization(
    exam: Exam, rows: Sequence[int] | NDArray[np.integer], maps: NDArray[np.floating]
) -> Localization:
    """Compare maps with the exact masks of the asked things.

    Parameters
    ----------
    exam : Exam
        The questions.
    rows : sequence of int, (r,)
        Which of them; those that ask about nothing in the image (``how many``, none) are left out.
    maps : ndarray of float, (r, size, size)
        Not negative.

    Raises
    ------
    InputError
        If none of the questions asks about a thing.
    """
    from scipy.ndimage import distance_transform_edt

    hits, masses, near, anything, area = [], [], [], [], []
    for row, given in zip(rows, maps, strict=True):
        asked = exam.questions[row].asked
        if not asked:
            continue
        scene = exam.scenes[exam.scene_of[row]]
        mask = exam.mask(row)
        wide = np.asarray(distance_transform_edt(~mask)) <= TOLERANCE
        # Of equal largest values, as within a cell of the attention, the middle counts.
        top = np.argwhere(given == given.max())
        centre = top[np.argmin(np.square(top - top.mean(0)).sum(1))]
        hits.append(bool(wide[tuple(centre)]) and bool(given.max() > given.min()))
        total = float(given.sum())
        masses.append(float(given[mask].sum()) / total if total > 0 else 0.0)
        near.append(float(wide.mean()))
        anything.append(len(asked) / len(scene.things))
        area.append(float(mask.mean()))
    if not hits:
        raise InputError("questions: none asks about a thing in its image; expected some that do")
    return Localization(
        *(float(np.mean(values)) for values in (hits, masses, near, anything, area)), count=len(hits)
    )
