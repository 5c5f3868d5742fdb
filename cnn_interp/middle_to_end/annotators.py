"""Who answers when nobody sits there: annotators that know the truth, one of whom errs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnn_interp.disentangling.part_graph import Answer, PartTemplate
from cnn_interp.middle_to_end.dialogue import Dialogue, Question
from interpretkit.errors import InputError
from interpretkit.training.seeds import numpy_generator

Floats = NDArray[np.float64]
# A found centre that is nearer to the truth, over the image's diagonal, is called right. Of a part that takes a
# quarter of the image's sides its box then has 72 % of the true one in common with it, or more.
NEAR_ENOUGH = 0.03

# From a question to its answer.
Annotator = Callable[[Question], Answer]


@dataclass(frozen=True, eq=False)
class Truth:
    """Where a part is.

    Attributes
    ----------
    positions : ndarray of float, (n, 2)
        Row and column of its centre in every image, px; NaN where it is not to be seen.
    sizes : ndarray of float, (n, 2), optional
        Height and width, px; NaN where they are not known.
    looks : ndarray of int, (n,), optional
        Which of several ways it looks; by default there is one.
    flipped : ndarray of bool, (n,), optional
        Which way round it is, for graphs whose templates face one way.
    """

    positions: Floats
    sizes: Floats | None = None
    looks: NDArray[np.integer] | None = None
    flipped: NDArray[np.bool_] | None = None

    def position(self, image: int) -> tuple[float, float] | None:
        """Return where the part is in an image."""
        row, column = self.positions[image]
        return None if np.isnan(row) else (float(row), float(column))

    def size(self, image: int) -> tuple[float, float] | None:
        """Return how large the part is in an image, where it is known."""
        if self.sizes is None or np.isnan(self.sizes[image]).any():
            return None
        return float(self.sizes[image, 0]), float(self.sizes[image, 1])


class TrueAnnotator:
    """Answers by the truth, as a person does who sees a box and says whether it will do.

    Parameters
    ----------
    dialogue : Dialogue
        Whose questions are answered; which template stands for which look is told from what was said in it.
    truth : Truth
        Where the part is.
    near_enough : float
        How far from the truth a centre may be, over the image's diagonal, to be called right.
    """

    def __init__(self, dialogue: Dialogue, truth: Truth, *, near_enough: float = NEAR_ENOUGH) -> None:
        if len(truth.positions) != len(dialogue.cells):
            raise InputError(f"truth of {len(truth.positions)} images: expected {len(dialogue.cells)}")
        self._dialogue = dialogue
        self._truth = truth
        self._near_enough = near_enough

    def __call__(self, question: Question) -> Answer:
        """Return the answer."""
        image, parse, truth = question.image, question.parse, self._truth
        position, size = truth.position(image), truth.size(image)
        if position is None:
            return Answer(image, "absent")
        if parse is None:
            return Answer(image, "new template", position, size)
        graph = self._dialogue.graph
        assert graph is not None
        look = self._look(image)
        templates = [number for number, one in enumerate(graph.templates) if self._look_of(one) == look]
        if not templates:
            return Answer(image, "new template", position, size)
        template = int(parse.templates[0])
        if template not in templates:
            return Answer(image, "wrong template", position, size, templates[0])
        if self._dialogue.settings.facing == "either" and truth.flipped is not None:
            turned = self._turned(graph.templates[template]) != bool(parse.flipped[0])
            if turned != bool(truth.flipped[image]):
                return Answer(image, "flipped", position, size)
        away = float(np.hypot(*(parse.centres[0] - position))) / float(np.hypot(*self._dialogue.cells.image))
        if away <= self._near_enough:
            return Answer(image, "right")
        return Answer(image, "wrong box", position, size)

    def _look(self, image: int) -> int:
        return 0 if self._truth.looks is None else int(self._truth.looks[image])

    def _look_of(self, template: PartTemplate) -> int:
        """Return the look that most images have in which a template was shown."""
        looks = [self._look(image) for image, _ in template.annotated]
        return max(sorted(set(looks)), key=looks.count)

    def _turned(self, template: PartTemplate) -> bool:
        """Return whether the part is flipped in images that the template has as they are."""
        assert self._truth.flipped is not None
        turned = [bool(self._truth.flipped[image]) != flipped for image, flipped in template.annotated]
        return sum(turned) * 2 > len(turned)


class ErringAnnotator:
    """Answers as another does, but for some answers that are wrong.

    A wrong answer says that a part that is there is not, puts its box anywhere, or calls right what is far off; of an
    image without the part it says that it is somewhere.

    Parameters
    ----------
    annotator : callable
        Who answers else.
    dialogue : Dialogue
        Whose questions are answered.
    rate : float
        Share of answers that are wrong, 0 to 1.
    seed : int
        Of which they are, and how wrong.
    """

    def __init__(self, annotator: Annotator, dialogue: Dialogue, rate: float, seed: int = 0) -> None:
        if not 0 <= rate <= 1:
            raise InputError(f"rate {rate}: expected 0 to 1")
        self._annotator = annotator
        self._dialogue = dialogue
        self._rate = rate
        self._seed = seed

    def __call__(self, question: Question) -> Answer:
        """Return the answer."""
        true = self._annotator(question)
        rng = numpy_generator(self._seed, "error", question.number)
        if rng.random() >= self._rate:
            return true
        anywhere = rng.random(2) * (np.array(self._dialogue.cells.image) - 1)
        place = (float(anywhere[0]), float(anywhere[1]))
        begins = question.parse is None
        ways: list[Answer] = [
            Answer(question.image, "new template" if begins else "wrong box", place, true.size)
        ]
        if true.verdict != "absent":
            ways.append(Answer(question.image, "absent"))
        if not begins and true.verdict != "right":
            ways.append(Answer(question.image, "right"))
        return ways[int(rng.integers(len(ways)))]
