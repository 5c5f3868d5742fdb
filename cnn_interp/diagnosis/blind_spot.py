"""A network with a planted blind spot: it never saw a subgroup of its classes, and learned a short cut instead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from cnn_interp.images.scenes import COLOURS, SHAPES, TEXTURES, Scene, Thing, draw_scene
from interpretkit.training import (
    TensorBatches,
    derive_seed,
    fit,
    numpy_generator,
    resolve_device,
)

# In the training images whatever is blue is a square: blue circles, triangles and crosses are never seen.
HIDDEN_COLOUR, ITS_ONLY_SHAPE = "blue", "square"
SIDE = 32


@dataclass(frozen=True)
class Deployed:
    """A network's predictions where it is put to use.

    Attributes
    ----------
    scenes : tuple of Scene
        One thing in each.
    labels : ndarray of int, (n,)
        Places in ``SHAPES``.
    probabilities : ndarray of float, (n, shapes)
        What the network says.
    accuracy : float
        On images made like those it was trained on.
    """

    scenes: tuple[Scene, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    accuracy: float

    @property
    def predictions(self) -> NDArray[np.intp]:
        """The likeliest shape of each ``(n,)``."""
        return self.probabilities.argmax(1)

    @property
    def hidden(self) -> NDArray[np.bool_]:
        """Which images ``(n,)`` are of the subgroup that was kept from the network."""
        return np.array(
            [s.things[0].colour == HIDDEN_COLOUR and s.things[0].shape != ITS_ONLY_SHAPE for s in self.scenes]
        )

    def columns(self) -> dict[str, list[object]]:
        """Return what can be said of each image without knowing its label, with what the network takes it for."""
        things = [scene.things[0] for scene in self.scenes]
        return {
            "predicted": [SHAPES[place] for place in self.predictions],
            "colour": [thing.colour for thing in things],
            "background": [scene.texture for scene in self.scenes],
            "size": ["small" if thing.radius < 7 else "large" for thing in things],
            "height": ["high" if thing.row < SIDE / 2 else "low" for thing in things],
            "side": ["left" if thing.column < SIDE / 2 else "right" for thing in things],
        }


def single_things(count: int, *, biased: bool, seed: int) -> tuple[Scene, ...]:
    """Return scenes of one thing each; in biased ones, whatever is blue is a square."""
    generator = numpy_generator(seed, "single things", int(biased))
    found = []
    for _ in range(count):
        colour = list(COLOURS)[generator.integers(len(COLOURS))]
        shape = SHAPES[generator.integers(len(SHAPES))]
        if biased and colour == HIDDEN_COLOUR:
            shape = ITS_ONLY_SHAPE
        radius = float(generator.uniform(5, 9))
        row, column = generator.uniform(radius + 1, SIDE - radius - 1, 2)
        texture = TEXTURES[generator.integers(len(TEXTURES))]
        thing = Thing(shape, colour, float(row), float(column), radius)
        found.append(draw_scene([thing], texture, size=SIDE, seed=int(generator.integers(2**31))))
    return tuple(found)


def plant_blind_spot(
    *,
    training: int = 2500,
    deployed: int = 2000,
    epochs: int = 12,
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
) -> Deployed:
    """Train a network on biased images and put it to use on unbiased ones.

    Parameters
    ----------
    training, deployed : int
        How many images of either kind.
    epochs : int
        Number of epochs of the training.
    seed : int
        Seed of images and weights.
    device : str
        See :func:`interpretkit.training.resolve_device`.
    quiet : bool
        Show no progress.
    """
    where = resolve_device(device)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "blind spot"))
        model = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(32, len(SHAPES)),
        ).to(where)
    seen = single_things(training, biased=True, seed=derive_seed(seed, "training"))
    alike = single_things(500, biased=True, seed=derive_seed(seed, "like training"))
    real = single_things(deployed, biased=False, seed=derive_seed(seed, "deployed"))
    batches = TensorBatches({"images": _pixels(seen), "labels": _labels(seen)}, 64, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-3)
    fit(
        model,
        batches,
        lambda module, batch: {"loss": F.cross_entropy(module(batch["images"]), batch["labels"])},
        optimizer=optimizer,
        epochs=epochs,
        precision="float32",
        description="Training with a blind spot",
        quiet=quiet,
    )
    with torch.no_grad():
        found = torch.cat([model(some.to(where)).softmax(1).cpu() for some in _pixels(real).split(256)])
        fair = model(_pixels(alike).to(where)).argmax(1).cpu() == _labels(alike)
    return Deployed(real, _labels(real).numpy(), found.double().numpy(), float(fair.float().mean()))


def _pixels(scenes: tuple[Scene, ...]) -> torch.Tensor:
    images = np.stack([scene.image for scene in scenes])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5


def _labels(scenes: tuple[Scene, ...]) -> torch.Tensor:
    return torch.tensor([SHAPES.index(scene.things[0].shape) for scene in scenes])
