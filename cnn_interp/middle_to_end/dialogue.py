"""A part taught by questions and answers: the dialogue itself, which knows no terminal, no page and no truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from cnn_interp.disentangling.part_cells import PartCells
from cnn_interp.disentangling.part_graph import (
    Annotation,
    Answer,
    Parses,
    PartGraph,
    PartSettings,
    annotation_of,
    check_answer,
    grow,
    infer,
    mean_places,
    merged,
    score_maps,
)
from cnn_interp.middle_to_end.journal import Entry, Log, Memory, standing_entries
from cnn_interp.middle_to_end.selection import Likeness, Selection, Standing, chances_shown
from interpretkit.errors import InputError
from interpretkit.training.seeds import numpy_generator

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
# The graph is learned from so many images without annotation, so that a question comes at once; of these each is as
# likely as this to show the part, for what is learned from an image without it is wrong.
LEARNED_FROM, _LIKELY = 60, 0.5


class StaleAnswer(InputError):
    """An answer to a question that is not the one being asked."""


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked.

    Attributes
    ----------
    number : int
        Which entry of the dialogue its answer will be; it changes with everything that is said.
    image : int
        The image.
    parse : Parses, optional
        What the graph makes of it, for one image; None as long as nobody showed the part.
    chance : float
        How likely the image shows the part, as far as that can be told.
    worth : float
        What the answer is expected to be worth, over that of the image that is worth the most; 1 if it is this one.
    """

    number: int
    image: int
    parse: Parses | None
    chance: float
    worth: float


class Dialogue:
    """Asks about images one by one, and grows the graph of a part from the answers.

    All that is said goes into the log before anything is made of it; a dialogue that is given a log with entries goes
    on from them. Whoever calls from several threads holds a lock.

    Parameters
    ----------
    cells : PartCells
        Of all images.
    features : array_like of float, (n, d) or (n, 2, d)
        What stands for whole images, and for their mirror images: by it images are alike.
    part : str
        What the part is called.
    selection : callable
        What to ask next; see :mod:`cnn_interp.middle_to_end.selection`.
    log : Log, optional
        Where entries go; by default they are kept in memory.
    settings : PartSettings, optional
        How the graph is grown.
    candidates : array_like of int, optional
        Images that may be asked about; all by default.
    learned_from : int
        From how many of the candidates the graph learns without annotation, at most: of those that are likely to show
        the part.
    seed : int
        Of which these are.
    """

    def __init__(
        self,
        cells: PartCells,
        features: ArrayLike,
        *,
        part: str,
        selection: Selection,
        log: Log | None = None,
        settings: PartSettings | None = None,
        candidates: ArrayLike | None = None,
        learned_from: int = LEARNED_FROM,
        seed: int = 0,
    ) -> None:
        self.cells = cells
        self.part = part
        self.settings = settings or PartSettings()
        self.candidates = (
            np.arange(len(cells)) if candidates is None else np.unique(np.asarray(candidates, dtype=np.int64))
        )
        if not len(self.candidates):
            raise InputError("candidates: there are none; expected at least one image to ask about")
        # A fair sample of those that are likely to show the part, whichever these are at the moment.
        self._sample = numpy_generator(seed, "learned from").permutation(len(self.candidates))
        self._learned_from = learned_from
        self.pool = self.candidates[:0]
        self.likeness = Likeness.of(np.asarray(features)[self.candidates])
        self._selection = selection
        self._log = Memory() if log is None else log
        self._place = {int(image): place for place, image in enumerate(self.candidates)}
        for entry in self._log.entries:
            if entry.image not in self._place:
                raise InputError(f"entry {entry.number}: image {entry.image} is none that may be asked about")
        self._refresh()

    # ------------------------------------------------------------------------------------------ what is known

    @property
    def entries(self) -> list[Entry]:
        """What was said and not taken back."""
        return list(self._standing_entries)

    @property
    def log(self) -> Sequence[Entry]:
        """All that was said, and taken back."""
        return tuple(self._log.entries)

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        """What is known of images, by image."""
        return self._annotations

    @property
    def graph(self) -> PartGraph | None:
        """The part's graph; None as long as nobody showed the part."""
        return self._graph

    @property
    def question(self) -> Question | None:
        """What is asked now; None when nothing is left to ask about."""
        return self._question

    @property
    def standing(self) -> Standing:
        """What the graph makes of the candidates."""
        return self._standing

    @property
    def worth(self) -> Floats:
        """What asking about each candidate is worth, ``(n,)``; minus infinity for those that are closed."""
        return self._worth

    @property
    def expected_error(self) -> float | None:
        """How far off the graph expects to be, over the image's diagonal.

        The mean, over candidates that nobody annotated, each as likely as it is to show the part, of the standard
        deviation of where the part is. None as long as there is no graph, or nothing is left.
        """
        left = ~self._standing.shown & ~self._standing.absent
        weights = self._standing.chances * left
        if self._graph is None or not weights.sum() > 0:
            return None
        diagonal = float(np.hypot(*self.cells.image))
        return float(weights @ self._standing.spread / weights.sum()) / diagonal

    # ------------------------------------------------------------------------------------------ what is said

    def answer(self, answer: Answer, number: int | None = None) -> Question | None:
        """Take an answer to the question, and return the next one.

        Parameters
        ----------
        answer : Answer
            To the question's parse. Before there is a graph it is ``new template`` or ``absent``.
        number : int, optional
            Which question it answers.

        Raises
        ------
        StaleAnswer
            If another question is being asked.
        InputError
            If the answer does not fit the question; then nothing was taken.
        """
        question = self._asked(answer.image, number)
        note = self._noted(question, answer)
        self._say(Entry(question.number, "answer", question.image, answer, note, self.expected_error))
        return self._question

    def skip(self, number: int | None = None) -> Question | None:
        """Say nothing of the image that is asked about, and return the next question."""
        question = self._asked(None, number)
        self._say(Entry(question.number, "skip", question.image, expected=self.expected_error))
        return self._question

    def undo(self, number: int | None = None) -> Question | None:
        """Take back the last thing that was said, and return the question again.

        Raises
        ------
        StaleAnswer
            If `number` is not that of what would come next.
        InputError
            If nothing was said.
        """
        if number is not None and number != len(self._log.entries):
            raise StaleAnswer(f"number {number}: the dialogue is at {len(self._log.entries)}")
        if not self._standing_entries:
            raise InputError("undo: nothing was said yet; expected an answer to take back")
        self._say(Entry(len(self._log.entries), "undo", self._standing_entries[-1].image))
        return self._question

    def _asked(self, image: int | None, number: int | None) -> Question:
        if self._question is None:
            raise InputError("answer: nothing is asked; expected a question, or an answer to be taken back")
        if number is not None and number != self._question.number:
            raise StaleAnswer(f"number {number}: the question is {self._question.number} now")
        if image is not None and image != self._question.image:
            raise StaleAnswer(f"image {image}: the question is about {self._question.image}")
        return self._question

    def _noted(self, question: Question, answer: Answer) -> Annotation:
        """Return what an answer says of its image, having seen that it can be said."""
        parse, count = question.parse, 0 if self._graph is None else len(self._graph.templates)
        for name, pair, lowest in (("position", answer.position, 0.0), ("size", answer.size, 1.0)):
            if pair is None:
                continue
            most = np.array(self.cells.image) - (1 - lowest)
            if not (
                np.isfinite(pair).all()
                and (np.array(pair) >= lowest).all()
                and (np.array(pair) <= most).all()
            ):
                raise InputError(
                    f"{name} {pair}: expected {lowest:g} to {most[0]:g} and {lowest:g} to {most[1]:g}"
                )
        if parse is None:
            if answer.verdict == "absent":
                return Annotation(answer.image, None)
            if answer.verdict != "new template":
                raise InputError(
                    f"verdict {answer.verdict!r}: nothing is found yet; expected 'new template' or 'absent'"
                )
            return Annotation(answer.image, answer.position, answer.size, 0, None)
        check_answer(answer, count, self.settings.facing)
        return annotation_of(answer, parse, count, self.settings.facing)

    def _say(self, entry: Entry) -> None:
        self._log.append(entry)
        self._refresh(again=entry.image if entry.act == "undo" else None)

    # ------------------------------------------------------------------------------------------ what follows

    def _refresh(self, again: int | None = None) -> None:
        """Make the state that the log says: graph, what it makes of the images, and what to ask next."""
        log = self._log.entries
        if again is None and log and log[-1].act == "undo":
            again = log[-1].image
        self._standing_entries = standing_entries(log)
        notes: tuple[Annotation, ...] = ()
        for entry in self._standing_entries:
            if entry.annotation is not None:
                notes = merged(notes, [entry.annotation])
        self._annotations = notes
        shown, absent = (np.zeros(len(self.candidates), dtype=bool) for _ in range(2))
        for note in notes:
            (shown if note.position else absent)[self._place[note.image]] = True
        chances = chances_shown(self.likeness, shown, absent)
        likely = self._sample[chances[self._sample] >= _LIKELY]
        self.pool = np.sort(self.candidates[likely[: self._learned_from]])
        self._graph = None
        if any(note.position for note in notes):
            self._graph = grow(self.cells, notes, part=self.part, pool=self.pool, settings=self.settings)
        self._standing = self._stand(chances, shown, absent)
        self._worth = np.where(self._standing.closed, -np.inf, self._selection(self._standing))
        if self._standing.closed.all():
            self._question = None
            return
        place = int(self._worth.argmax()) if again is None else self._place[again]
        image = int(self.candidates[place])
        parse = None if self._graph is None else infer(self._graph, self.cells, [image])
        best = float(self._worth.max())
        self._question = Question(
            len(log), image, parse, float(self._standing.chances[place]),
            1.0 if again is None or best <= 0 else float(self._worth[place]) / best,
        )  # fmt: skip

    def _stand(self, chances: Floats, shown: Bools, absent: Bools) -> Standing:
        closed = np.zeros(len(self.candidates), dtype=bool)
        for entry in self._standing_entries:
            closed[self._place[entry.image]] = True
        scores, spread = np.zeros(len(closed)), np.zeros(len(closed))
        if self._graph is not None:
            maps = score_maps(self._graph, self.cells, self.candidates)
            scores = torch.logsumexp(maps.flatten(1), dim=1).double().numpy()
            spread = mean_places(maps, self.cells)[1]
        return Standing(scores, chances, spread, shown, absent, closed, self.likeness)
