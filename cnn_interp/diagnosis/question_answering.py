"""Which regions and which words an answer about an image rests on, in a network that answers questions.

The network is a small one with stacked attention (Yang et al., 2016), trained on generated scenes, whose attended
regions are compared with attributions (Grad-CAM, occlusion of regions and words; Goyal et al., 2016) and with the exact
masks of the things asked about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cnn_interp.images.scenes import COLOURS, SHAPES, Scene, random_scene
from interpretkit.attribution import attribute
from interpretkit.errors import InputError
from interpretkit.networks.instrumentation import instrumented
from interpretkit.runs.progress import track
from interpretkit.training import (
    History,
    TensorBatches,
    derive_seed,
    fit,
    load_model,
    numpy_generator,
    resolve_device,
    save_model,
    torch_generator,
)
from interpretkit.training.schedules import one_cycle

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
# A cell of the map on which attention lies, px.
CELL = 4
COVERED_SHARE = 0.05
# What it costs to look at the whole image, in nats, at the end of the training: without it the network may look
# everywhere and sort out later. It rises from nothing after the first part of the training.
PRICE, FREE = 1.0, 0.3


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
        Of the choices.
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


class Answerer(nn.Module):
    """Answers questions about images by looking at them several times (after stacked attention, Yang et al., 2016).

    Each look gives every place of a 12 × 12 map a weight between 0 and 1, by how well a key made of the place's
    features matches a query made of the question and of what was seen before. It takes in the weighted mean of the
    features, and their weighted sum, for averages cannot be counted.

    Parameters
    ----------
    width : int
        Channels of the image's features and of the question's code.
    looks : int
        How often it looks.
    """

    def __init__(self, width: int = 48, looks: int = 2) -> None:
        super().__init__()
        self.width, self.looks = width, looks
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width // 2, 3, stride=2, padding=1),
            nn.BatchNorm2d(width // 2),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.recognise = nn.Conv2d(width, 1 + len(SHAPES) + len(COLOURS), 1)
        self.embedding = nn.Embedding(len(VOCABULARY), width // 2, padding_idx=0)
        self.reader = nn.Sequential(
            nn.Linear(LONGEST * (width // 2), 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )
        self.value = nn.Sequential(nn.Conv2d(width + 2, width, 1), nn.ReLU())
        self.key = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width + 2, width, 1), nn.ReLU(), nn.Conv2d(width, width, 1))
            for _ in range(looks)
        )
        self.query = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)) for _ in range(looks)
        )
        self.take = nn.ModuleList(nn.Linear(2 * width + 3, width) for _ in range(looks))
        self.head = nn.Sequential(
            nn.Linear(2 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, len(ANSWERS))
        )

    def config(self) -> dict[str, Any]:
        """Return what is needed to build the network again."""
        return {"width": self.width, "looks": self.looks}

    def look(self, features: Tensor, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """Answer several questions about each image.

        Parameters
        ----------
        features : Tensor, (n, width, h, w)
            What the encoder gives for the images.
        embedded : Tensor, (n, q, LONGEST, width / 2)
            The words' embeddings.

        Returns
        -------
        logits : Tensor, (n, q, answers)
        attention : Tensor, (n, q, looks, h, w)
        """
        n, _, height, width = features.shape
        down = torch.linspace(-1, 1, height, device=features.device)[:, None].expand(height, width)
        right = torch.linspace(-1, 1, width, device=features.device)[None].expand(height, width)
        places = torch.stack([down, right]).expand(n, 2, height, width).to(features)
        placed = torch.cat([features, places], 1)
        values = torch.cat([self.value(placed), places], 1).flatten(2).transpose(1, 2)
        question = self.reader(embedded.flatten(2))
        state, maps = question, []
        for key, query, take in zip(self.key, self.query, self.take, strict=True):
            scores = query(state) @ key(placed).flatten(2) / self.width**0.5
            weights = torch.sigmoid(scores - 2)
            total = weights.sum(2, keepdim=True)
            seen = weights @ values
            # What was seen on average and where, and how much of it.
            mean = seen / (total + 0.1)
            state = state + take(torch.cat([mean, seen[..., : self.width] / 10, total / 10], 2)).relu()
            maps.append(weights.unflatten(2, (height, width)))
        return self.head(torch.cat([state, question], 2)), torch.stack(maps, 2)

    def attend(self, images: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``(n, answers)`` and attention ``(n, looks, h, w)`` for images and a question to each."""
        logits, attention = self.look(self.encoder(images), self.embedding(words)[:, None])
        return logits[:, 0], attention[:, 0]

    def forward(self, images: Tensor, words: Tensor) -> Tensor:
        """Return logits ``(n, answers)`` for images ``(n, 3, size, size)`` and questions ``(n, LONGEST)``."""
        return self.attend(images, words)[0]


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


def train_answerer(
    *,
    scenes: int = 3000,
    per_scene: int = 10,
    epochs: int = 8,
    seed: int = 0,
    device: str = "auto",
    checkpoint: Path | str | None = None,
    quiet: bool = False,
) -> tuple[Answerer, History]:
    """Train a network to answer questions about generated scenes.

    Parameters
    ----------
    scenes, per_scene : int
        The training scenes, and the questions about each.
    epochs : int
        How often each is seen.
    seed : int
        Of scenes, questions, weights and order.
    device : str
        See :func:`interpretkit.training.resolve_device`.
    checkpoint : path, optional
        A folder in which the state of the training is kept, and from which it goes on.
    quiet : bool
        Show no progress.
    """
    exam = make_exam(scenes, per_scene=per_scene, seed=derive_seed(seed, "training"), things=(1, 4))
    held_out = make_exam(200, per_scene=8, seed=derive_seed(seed, "validation"))
    where = resolve_device(device)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "answerer"))
        model = Answerer().to(where)
    words, answers = _by_scene(exam)
    batches = TensorBatches(
        {"images": exam.images(), "words": words, "answers": answers, **_things(exam.scenes)},
        8,
        seed=derive_seed(seed, "order"),
    )
    generator = torch_generator(seed, "covered words")
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    scheduler = one_cycle(optimizer, 3e-3, epochs * len(batches), rise=0.2)

    def loss(module: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert isinstance(module, Answerer)
        words, wanted = batch["words"], batch["answers"]
        features = module.encoder(batch["images"])
        # Now and then a word is covered, so that a question with a covered word is nothing new when words are
        # covered to measure what they are worth.
        covered = (torch.rand(words.shape, generator=generator) < COVERED_SHARE).to(words.device) & (
            words != 0
        )
        words = words.masked_fill(covered, VOCABULARY.index(COVERED))
        logits, attention = module.look(features, module.embedding(words))
        there = wanted >= 0
        done = scheduler.last_epoch / (epochs * len(batches))
        price = PRICE * max(0.0, (done - FREE) / (1 - FREE))
        answering = F.cross_entropy(logits[there], wanted[there])
        return {
            "loss": answering
            + recognition_loss(module.recognise(features), batch)
            + price * attention[there].mean(),
            "accuracy": (logits.argmax(2) == wanted)[there].float().mean(),
        }

    history = fit(
        model,
        batches,
        loss,
        optimizer=optimizer,
        epochs=epochs,
        scheduler=scheduler,
        scheduler_steps="batch",
        validate=lambda module: {
            "accuracy": float((_answer(module, held_out) == held_out.answers()).float().mean())
        },
        clip_norm=1.0,
        precision="float32",
        checkpoint=checkpoint,
        description="Learning to answer",
        quiet=quiet,
    )
    return model, history


def recognition_loss(found: Tensor, wanted: Mapping[str, Tensor]) -> Tensor:
    """Return how badly things are recognised where they stand, whatever is asked.

    As in networks whose encoder was trained to detect objects first (Anderson et al., 2018), features are taught what
    and where things are; which of them to look at is left to the answers.

    Parameters
    ----------
    found : Tensor, (n, 1 + shapes + colours, h, w)
        Logits of a centre, of the shapes and of the colours.
    wanted : mapping of str to Tensor, (n, h, w)
        ``centres`` 0 or 1; ``shapes`` and ``colours`` their places, -1 on the background.
    """
    centre, shape, colour = found.split([1, len(SHAPES), len(COLOURS)], 1)
    return (
        F.binary_cross_entropy_with_logits(centre[:, 0], wanted["centres"], pos_weight=torch.tensor(5.0))
        + F.cross_entropy(shape, wanted["shapes"], ignore_index=-1)
        + F.cross_entropy(colour, wanted["colours"], ignore_index=-1)
    )


def _things(scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """Return which cell of the map holds a centre, a shape, a colour, each ``(scenes, h, w)``."""
    side = len(scenes[0].image) // CELL
    shape = (len(scenes), side, side)
    centres, shapes, colours = np.zeros(shape, np.float32), np.full(shape, -1), np.full(shape, -1)
    for number, scene in enumerate(scenes):
        for thing, mask in zip(scene.things, scene.masks, strict=True):
            cells = mask.reshape(side, CELL, side, CELL).mean((1, 3)) >= 0.3
            shapes[number][cells] = SHAPES.index(thing.shape)
            colours[number][cells] = list(COLOURS).index(thing.colour)
            centres[number, int(thing.row // CELL), int(thing.column // CELL)] = 1
    return {
        "centres": torch.from_numpy(centres),
        "shapes": torch.from_numpy(shapes),
        "colours": torch.from_numpy(colours),
    }


def _by_scene(exam: Exam) -> tuple[Tensor, Tensor]:
    """Return questions ``(scenes, q, LONGEST)`` and answers ``(scenes, q)`` by scene; -1 where there is none."""
    most = int(np.bincount(exam.scene_of, minlength=len(exam.scenes)).max())
    words = torch.zeros(len(exam.scenes), most, LONGEST, dtype=torch.long)
    answers = torch.full((len(exam.scenes), most), -1)
    place = np.zeros(len(exam.scenes), dtype=int)
    for scene, question, answer in zip(exam.scene_of, exam.words(), exam.answers(), strict=True):
        words[scene, place[scene]] = question
        answers[scene, place[scene]] = answer
        place[scene] += 1
    return words, answers


def _answer(model: nn.Module, exam: Exam) -> Tensor:
    """Return the places of the answers in ``ANSWERS``, ``(questions,)``."""
    device = next(model.parameters()).device
    images, words, rows = exam.images(), exam.words(), torch.from_numpy(exam.scene_of)
    with torch.no_grad():
        found = [
            model(images[scene].to(device), text.to(device)).argmax(1).cpu()
            for scene, text in zip(rows.split(256), words.split(256), strict=True)
        ]
    return torch.cat(found)


def save_answerer(path: Path | str, model: Answerer) -> None:
    """Write a trained network to one file (safetensors)."""
    save_model(path, model, {"kind": "answerer", **model.config()})


def load_answerer(path: Path | str, device: str = "auto") -> Answerer:
    """Return the network that :func:`save_answerer` wrote.

    Raises
    ------
    InputError
        If the file is missing, damaged or of another model.
    """

    def build(config: dict[str, Any]) -> Answerer:
        if config.get("kind") != "answerer":
            raise InputError(f"{path}: holds another model; expected one that answers questions")
        return Answerer(int(config["width"]), int(config["looks"]))

    return load_model(path, build, resolve_device(device))


def answer(model: Answerer, image: NDArray[np.uint8], question: str) -> tuple[str, float]:
    """Return a network's answer about an image ``(size, size, 3)``, and its probability.

    Raises
    ------
    InputError
        If a word of the question is unknown.
    """
    words = torch.from_numpy(encode(question))[None]
    device = next(model.parameters()).device
    with instrumented(model, 0), torch.no_grad():
        chances = model(as_pixels(image[None]).to(device), words.to(device)).softmax(1)[0]
    return ANSWERS[int(chances.argmax())], float(chances.max())


def answers(model: Answerer, exam: Exam) -> NDArray[np.int64]:
    """Return a network's answers as places in ``ANSWERS``, ``(questions,)``."""
    with instrumented(model, 0):
        return _answer(model, exam).numpy()


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
