"""A small network with stacked attention that answers questions about images, and its training (Yang et al., 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cnn_interp.diagnosis.question_answering.exam import (
    ANSWERS,
    COVERED,
    LONGEST,
    VOCABULARY,
    Exam,
    as_pixels,
    encode,
    make_exam,
)
from cnn_interp.images.scenes import COLOURS, SHAPES, Scene
from interpretkit.errors import InputError
from interpretkit.networks.instrumentation import instrumented
from interpretkit.training import (
    History,
    TensorBatches,
    derive_seed,
    fit,
    load_model,
    resolve_device,
    save_model,
    torch_generator,
)
from interpretkit.training.schedules import one_cycle

# A cell of the map on which attention lies, px.
CELL = 4
COVERED_SHARE = 0.05
# What it costs to look at the whole image, in nats, at the end of the training: without it the network may look
# everywhere and sort out later. It rises from nothing after the first part of the training.
PRICE, FREE = 1.0, 0.3


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
        Seed of scenes, questions, weights and order.
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
