"""The one-pixel attack: differential evolution over a pixel's place and colour."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import differential_evolution
from torch import Tensor

from cnn_interp.diagnosis.attacks import Attack, AttackedImages, Classes, Classifier, logits_of
from interpretkit.errors import InputError, check_count
from interpretkit.runs.progress import track
from interpretkit.training.seeds import numpy_generator


def one_pixel(
    model: Classifier,
    pixels: Tensor,
    labels: Classes = None,
    *,
    targets: Classes = None,
    pixels_changed: int = 1,
    population: int = 400,
    generations: int = 75,
    images_per_forward: int = 128,
    seed: int = 0,
    quiet: bool = True,
) -> Attack:
    """Change one pixel, or a few, so that the network errs (Su, Vargas and Sakurai 2019, arXiv 1710.08864).

    Each candidate holds the place and the colour of the pixels to be changed. Differential evolution without
    crossover (factor 0.5) lowers the label's probability, or raises the target's, by nothing but the network's
    outputs, and stops with the first success. As in the article the first places are even over the image and the first
    colours normal, with mean 128 and standard deviation 127 of 255.

    Parameters
    ----------
    model : Network or Module
        What is attacked. It is left as it was.
    pixels : Tensor, (n, channels, height, width)
        Values in 0 … 1.
    labels : array of int, (n,), optional
        What the images show; by default what the network says.
    targets : array of int, (n,), optional
        Classes to lead to.
    pixels_changed : int
        How many pixels may change.
    population, generations : int
        Population and generations of the evolution; the network is run on up to ``population * (generations + 1)``
        versions of each image.
    images_per_forward : int
        How many versions go through the network at a time.
    seed : int
        Seed of the evolution; an image meets the same random numbers whatever others are attacked.
    quiet : bool
        Show no progress.

    Returns
    -------
    Attack
        Changed colours have 8 bits, so that the images can be saved as they are. An image that the network had wrong
        stays as it is; one that withstood carries the best change that was found.

    Raises
    ------
    InputError
        If an argument cannot be used.
    """
    for name, value in (
        ("pixels_changed", pixels_changed),
        ("population", population),
        ("generations", generations),
    ):
        check_count(name, value)
    with logits_of(model, pixels, seed) as (logits, images):
        height, width = images.shape[-2:]
        if pixels_changed > height * width:
            raise InputError(
                f"pixels_changed {pixels_changed}: images have {height * width} pixels; expected no more"
            )
        attacked = AttackedImages(logits, images, labels, targets, images_per_forward)
        found, counts = [], []
        for row in track(range(len(images)), "Changing one pixel", quiet=quiet):
            rows = torch.tensor([row], device=images.device)
            if bool(attacked.won(images[rows], rows)):
                found.append(images[rows])
                counts.append(1)
                continue
            evolution = _Evolution(attacked, row, pixels_changed, images_per_forward)
            found.append(evolution.run(max(population, 5), generations, seed))
            counts.append(evolution.evaluations)
        return attacked.attack("one pixel", torch.cat(found), evaluations=torch.tensor(counts))


class _Evolution:
    """Differential evolution for one image; a candidate is row, column and colours of each pixel, all in 0 … 1."""

    def __init__(
        self, attacked: AttackedImages, row: int, pixels_changed: int, images_per_forward: int
    ) -> None:
        self.attacked = attacked
        self.image = attacked.images[row]
        self.targeted = attacked.targets is not None
        self.wanted = int((attacked.labels if attacked.targets is None else attacked.targets)[row])
        self.pixels_changed = pixels_changed
        self.images_per_forward = images_per_forward
        self.evaluations = 0
        self.success: NDArray[np.float64] | None = None

    def run(self, population: int, generations: int, seed: int) -> Tensor:
        """Return the image ``(1, channels, height, width)`` with the best change."""
        rng = numpy_generator(seed, "one pixel")
        length = 2 + len(self.image)
        start = rng.normal(128 / 255, 127 / 255, (population, self.pixels_changed, length)).clip(0, 1)
        start[..., :2] = rng.uniform(size=(population, self.pixels_changed, 2))
        # Apart, because SciPy's type stubs know neither a population as `init` nor the older name of `rng`.
        beginning: dict[str, Any] = {"init": start.reshape(population, -1), "seed": rng}
        found = differential_evolution(
            self.energies,
            [(0.0, 1.0)] * (self.pixels_changed * length),
            maxiter=generations,
            mutation=0.5,
            recombination=1.0,
            strategy="rand1bin",
            updating="deferred",
            vectorized=True,
            polish=False,
            tol=0.0,
            callback=lambda *_, **__: self.success is not None,
            **beginning,
        )
        best = found.x if self.success is None else self.success
        return self.changed(best[None])

    def energies(self, candidates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what is to be made small for candidates ``(parameters, s)``, ``(s,)``, and note a success."""
        rows = candidates.T
        if self.success is not None:
            # The callback ends the evolution only after a generation; until then nothing more needs to be asked.
            return np.zeros(len(rows))
        values = []
        for start in range(0, len(rows), self.images_per_forward):
            some = rows[start : start + self.images_per_forward]
            with torch.no_grad():
                outputs = self.attacked.logits(self.changed(some))
            self.evaluations += len(some)
            probability = outputs.softmax(1)[:, self.wanted].double().cpu().numpy()
            values.append(-probability if self.targeted else probability)
            won = ((outputs.argmax(1) == self.wanted) == self.targeted).cpu().numpy()
            if won.any() and self.success is None:
                self.success = some[np.where(won, values[-1], np.inf).argmin()].copy()
        return np.concatenate(values)

    def changed(self, candidates: NDArray[np.float64]) -> Tensor:
        """Return the image with the changes of candidates ``(s, parameters)``, ``(s, channels, height, width)``."""
        channels, height, width = self.image.shape
        values = torch.from_numpy(candidates).reshape(len(candidates), self.pixels_changed, 2 + channels)
        down = (values[..., 0] * height).long().clamp_max(height - 1)
        right = (values[..., 1] * width).long().clamp_max(width - 1)
        colours = ((values[..., 2:] * 255).round() / 255).to(self.image)
        images = self.image.repeat(len(candidates), 1, 1, 1)
        numbers = torch.arange(len(candidates))
        for pixel in range(self.pixels_changed):
            images[numbers, :, down[:, pixel], right[:, pixel]] = colours[:, pixel]
        return images
