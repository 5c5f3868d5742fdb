"""Scenes with questions about them, their answers, and what one must look at to give these."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnn_interp.images.scenes import COLOURS, SHAPES, Scene, random_scene
from interpretkit.errors import InputError
from interpretkit.training import numpy_generator

SIZE = 48
RELATIONS = ("left of", "right of", "above", "below")
KINDS = ("colour", "shape", "count", "relation")
COUNTS = ("0", "1", "2", "3", "4")
ANSWERS = (*COLOURS, *SHAPES, *COUNTS, "yes", "no")
PADDING, COVERED = "", "[covered]"
VOCABULARY = (
    PADDING, COVERED, "what", "colour", "shape", "is", "the", "how", "many", "are", "there", "a", "thing",
    "things", "left", "right", "of", "above", "below", *SHAPES, "circles", "squares", "triangles", "crosses",
    *COLOURS,
)  # fmt: skip
LONGEST = 9


@dataclass(frozen=True)
class Question:
    """A question about a scene, with its answer.

    Attributes
    ----------
    kind : str
        ``colour``, ``shape``, ``count`` or ``relation``.
    text : str
        Such as ``what colour is the circle``.
    answer : str
        One of ``ANSWERS``.
    asked : tuple of int
        The things that one must look at to answer.
    """

    kind: str
    text: str
    answer: str
    asked: tuple[int, ...]


def ask(scene: Scene, kind: str, generator: np.random.Generator) -> Question | None:
    """Return a random question of a kind about a scene; None if the scene admits none.

    Parameters
    ----------
    scene : Scene
        What is asked about.
    kind : str
        ``colour`` and ``shape`` of a thing that is alone in its shape or colour; ``count`` of things of a shape or
        colour; ``relation`` to a thing that is alone in its shape, with as many yes as no where the scene allows.
    generator : Generator
        Generator of the choices.
    """
    shapes = [thing.shape for thing in scene.things]
    colours = [thing.colour for thing in scene.things]
    alone = [i for i, shape in enumerate(shapes) if shapes.count(shape) == 1]
    if kind == "colour":
        if not alone:
            return None
        chosen = int(generator.choice(alone))
        return Question(kind, f"what colour is the {shapes[chosen]}", colours[chosen], (chosen,))
    if kind == "shape":
        alone = [i for i, colour in enumerate(colours) if colours.count(colour) == 1]
        if not alone:
            return None
        chosen = int(generator.choice(alone))
        return Question(kind, f"what shape is the {colours[chosen]} thing", shapes[chosen], (chosen,))
    if kind == "count":
        if generator.random() < 0.5:
            wanted = str(generator.choice(SHAPES))
            asked = tuple(i for i, shape in enumerate(shapes) if shape == wanted)
            return Question(kind, f"how many {_plural(wanted)} are there", str(len(asked)), asked)
        wanted = str(generator.choice(list(COLOURS)))
        asked = tuple(i for i, colour in enumerate(colours) if colour == wanted)
        return Question(kind, f"how many {wanted} things are there", str(len(asked)), asked)
    if kind != "relation":
        raise InputError(f"kind of question {kind!r}: expected one of {', '.join(KINDS)}")
    if not alone:
        return None
    reference = int(generator.choice(alone))
    relation = str(generator.choice(RELATIONS))
    others = [shape for shape in SHAPES if shape != shapes[reference]]
    holding = {
        shape: tuple(i for i, s in enumerate(shapes) if s == shape and _stands(scene, i, relation, reference))
        for shape in others
    }
    wanted_yes = bool(generator.random() < 0.5)
    candidates = [shape for shape in others if bool(holding[shape]) == wanted_yes] or others
    shape = str(generator.choice(candidates))
    return Question(
        kind,
        f"is there a {shape} {relation} the {shapes[reference]}",
        "yes" if holding[shape] else "no",
        (reference, *holding[shape]),
    )


def _plural(shape: str) -> str:
    return "crosses" if shape == "cross" else f"{shape}s"


def _stands(scene: Scene, thing: int, relation: str, reference: int) -> bool:
    one, other = scene.things[thing], scene.things[reference]
    return {
        "left of": one.column < other.column,
        "right of": one.column > other.column,
        "above": one.row < other.row,
        "below": one.row > other.row,
    }[relation]


def encode(text: str) -> NDArray[np.int64]:
    """Return the places of a question's words in ``VOCABULARY``, padded, ``(LONGEST,)``.

    Raises
    ------
    InputError
        If a word is unknown or the question is empty or too long.
    """
    words = text.lower().replace("?", " ").replace("color", "colour").split()
    if not 0 < len(words) <= LONGEST:
        raise InputError(f"question {text!r}: has {len(words)} words; expected 1 to {LONGEST}")
    unknown = [word for word in words if word not in VOCABULARY[1:]]
    if unknown:
        raise InputError(
            f"question {text!r}: the word {unknown[0]!r} is not known; expected a question such as 'what colour is "
            "the circle', 'how many red things are there' or 'is there a square left of the triangle'"
        )
    codes = [VOCABULARY.index(word) for word in words]
    return np.array(codes + [0] * (LONGEST - len(codes)), dtype=np.int64)


@dataclass(frozen=True)
class Exam:
    """Scenes, each with some questions.

    Attributes
    ----------
    scenes : tuple of Scene
        The images.
    questions : tuple of Question
        About all of them.
    scene_of : ndarray of int, (questions,)
        The scene that each question is about.
    """

    scenes: tuple[Scene, ...]
    questions: tuple[Question, ...]
    scene_of: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.questions)

    def images(self) -> Tensor:
        """Return the scenes' pixels ``(scenes, 3, size, size)`` in 0 … 1."""
        return as_pixels(np.stack([scene.image for scene in self.scenes]))

    def words(self) -> Tensor:
        """Return the questions' words ``(questions, LONGEST)``."""
        return torch.from_numpy(np.stack([encode(question.text) for question in self.questions]))

    def answers(self) -> Tensor:
        """Return the answers' places in ``ANSWERS``, ``(questions,)``."""
        return torch.tensor([ANSWERS.index(question.answer) for question in self.questions])

    def mask(self, question: int) -> NDArray[np.bool_]:
        """Return which pixels ``(size, size)`` show what a question asks about."""
        scene = self.scenes[self.scene_of[question]]
        return scene.masks[list(self.questions[question].asked)].any(0)


def make_exam(
    scenes: int, *, per_scene: int = 8, seed: int = 0, size: int = SIZE, things: tuple[int, int] = (3, 4)
) -> Exam:
    """Generate scenes and questions about them, the kinds in turn.

    Parameters
    ----------
    scenes : int
        How many.
    per_scene : int
        Questions about each; of the kinds in turn.
    seed : int
        Scenes of unlike seeds are unrelated.
    size : int
        The images' side, px.
    """
    if scenes < 1 or per_scene < 1:
        raise InputError(f"{scenes} scenes, {per_scene} questions each: expected at least 1 of either")
    made: list[Scene] = []
    questions: list[Question] = []
    of: list[int] = []
    for index in range(scenes):
        scene = random_scene(seed, index, size=size, things=things)
        generator = numpy_generator(seed, "questions", index)
        made.append(scene)
        for number in range(per_scene):
            for kind in (KINDS[(index + number) % len(KINDS)], "count"):
                question = ask(scene, kind, generator)
                if question is not None:
                    questions.append(question)
                    of.append(index)
                    break
    return Exam(tuple(made), tuple(questions), np.array(of))


def as_pixels(images: NDArray[np.uint8]) -> Tensor:
    """Return images ``(n, size, size, 3)`` as the network takes them, ``(n, 3, size, size)`` in 0 … 1."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255


def prior_answers(learned: Exam, asked: Exam) -> NDArray[np.int64]:
    """Return the answers that need no image: the most frequent one to the same words in another exam.

    Parameters
    ----------
    learned : Exam
        Whose answers are counted.
    asked : Exam
        The questions.

    Returns
    -------
    ndarray of int, (questions,)
        Places in ``ANSWERS``; for words never seen, the most frequent answer to any question of that kind.
    """
    counts: dict[str, NDArray[np.int64]] = {}
    for question in learned.questions:
        for key in (question.text, question.kind):
            counts.setdefault(key, np.zeros(len(ANSWERS), dtype=np.int64))[
                ANSWERS.index(question.answer)
            ] += 1
    nothing = np.zeros(len(ANSWERS), dtype=np.int64)
    return np.array(
        [int(counts.get(q.text, counts.get(q.kind, nothing)).argmax()) for q in asked.questions],
        dtype=np.int64,
    )
