"""What concepts of a layer are worth to a network's output: what it loses when a concept is taken out of the layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnn_interp.disentangling.concepts import Concepts
from cnn_interp.images.batches import network_inputs
from cnn_interp.images.sets import Images
from cnn_interp.networks.network import Network
from interpretkit.errors import InputError
from interpretkit.networks.instrumentation import instrumented, put_in_place, watched
from interpretkit.runs.progress import track

Measure = Literal["removal", "sobol"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
Floats = NDArray[np.float64]
# So many variants of an image go through the network at once.
_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class ConceptImportance:
    """What each concept is worth to one output of a network, before any softmax.

    Attributes
    ----------
    category : int
        The output.
    removal : ndarray of float, (n, concepts)
        By how much the output falls in each image when the concept is taken out of the layer, all others staying.
    total : ndarray of float, (n, concepts), or None
        Total Sobol index: the share of the output's variance that goes when all but this concept are known, each being
        weakened at random to between nothing and all of itself; None if it was not asked for. Rows are NaN where the
        output does not change.
    score : ndarray of float, (n,)
        The output.
    without : ndarray of float, (n,)
        The output when all concepts are taken out, so that only what they leave over is left.
    rebuilt : ndarray of float, (n,)
        The output when the layer is put together from the concepts alone.
    """

    category: int
    removal: Floats
    total: Floats | None
    score: Floats
    without: Floats
    rebuilt: Floats

    @property
    def mean(self) -> Floats:
        """Mean over images of the total index where there is one, else of the fall, ``(concepts,)``."""
        values = self.removal if self.total is None else self.total
        known = ~np.isnan(values)
        count = known.sum(axis=0)
        return np.where(known, values, 0.0).sum(axis=0) / np.maximum(count, 1)

    @property
    def order(self) -> NDArray[np.int64]:
        """The concepts' numbers, the most important first."""
        return np.argsort(-self.mean, kind="stable")


def concept_importance(
    network: Network,
    concepts: Concepts,
    images: Images,
    category: int,
    *,
    rows: Sequence[int] | None = None,
    measure: Measure = "removal",
    designs: int = 16,
    seed: int = 0,
    quiet: bool = True,
) -> ConceptImportance:
    """Measure what each concept of a layer is worth to an output of the network.

    The layer's output x is replaced by x − Σ (1 − m_k) c_k d_k, c the concept's codes at every position, d its
    direction in the scale of the responses and m between 0 (taken out) and 1 (left); what the concepts do not explain
    stays. The rest of the network then runs on it.

    Parameters
    ----------
    network : Network
        Stays as it is.
    concepts : Concepts
        Of one of its layers.
    images : Images
        On which to measure, resized as :func:`trunk_features` does.
    category : int
        The output.
    rows : sequence of int, optional
        Which images; all by default.
    measure : str
        ``removal``: each concept is taken out by itself, one pass for each concept and image. ``sobol``: the total
        indices as well, as CRAFT has them, which see what concepts do together; `designs` times as many passes.
    designs : int
        Of Sobol's quasi-random weakenings, a power of two at best.
    seed : int
        Of these, and for networks that draw random numbers even in evaluation mode.
    quiet : bool
        Whether to show no progress bar.

    Raises
    ------
    InputError
        If there are no images or no such output, or `measure` or `designs` cannot be used.

    References
    ----------
    Fel and others: CRAFT, CVPR 2023; Jansen 1999, for the estimator of the total index.
    """
    if measure not in MEASURES:
        raise InputError(f"measure {measure!r}: expected one of {', '.join(MEASURES)}")
    if designs < 2:
        raise InputError(f"designs {designs}: expected at least 2")
    numbers = range(len(images)) if rows is None else rows
    if not len(numbers):
        raise InputError(f"{images.name}: no images to measure on; expected at least one")
    count = len(concepts)
    ones = np.ones((1, count))
    first = np.concatenate([ones, 1 - np.eye(count), np.zeros((1, count))])
    masks = first if measure == "removal" else np.concatenate([first, _designs(count, designs, seed)])
    swap = _Weakened(concepts)
    outputs = np.empty((len(numbers), len(masks)))
    rebuilt = np.empty(len(numbers))
    with (
        instrumented(network.module, seed),
        torch.no_grad(),
        watched(network.module, concepts.layer, swap, passes=True),
    ):
        for place, number in enumerate(track(numbers, "Taking concepts out", quiet=quiet)):
            inputs = network_inputs(network, images, [int(number)])
            for start in range(0, len(masks), _AT_ONCE):
                swap.masks = torch.as_tensor(masks[start : start + _AT_ONCE], dtype=torch.float32)
                outputs[place, start : start + len(swap.masks)] = _scores(
                    network, inputs, len(swap.masks), category
                )
            swap.masks = None
            rebuilt[place] = _scores(network, inputs, 1, category)[0]
    removal = outputs[:, :1] - outputs[:, 1 : count + 1]
    total = None if measure == "removal" else _totals(outputs[:, count + 2 :], count, designs)
    return ConceptImportance(category, removal, total, outputs[:, 0], outputs[:, count + 1], rebuilt)


class _Weakened:
    """Takes the place of a layer's output: with concepts weakened image by image, or from concepts alone."""

    def __init__(self, concepts: Concepts) -> None:
        self.concepts = concepts
        self.masks: Tensor | None = None
        self.scale = torch.as_tensor(concepts.scale, dtype=torch.float32)
        self.directions = torch.as_tensor(concepts.directions, dtype=torch.float32)
        self.mean = torch.as_tensor(concepts.mean, dtype=torch.float32)

    def __call__(self, output: Any, given: Any) -> Tensor:
        layer = self.concepts.layer
        if not isinstance(output, Tensor) or output.ndim != 4 or output.shape[1] != len(self.scale):
            raise InputError(
                f"layer {layer!r}: gives no maps of {len(self.scale)} units; expected those of the concepts"
            )
        maps = output.detach().float().cpu()
        # The variants are of one image, so that one of them is encoded.
        x = maps[:1].permute(0, 2, 3, 1).flatten(0, 2) / self.scale
        codes = self.concepts.encoder(x)
        if self.masks is None:
            flat = (self.mean + codes @ self.directions)[None]
        else:
            weak = codes[None] * (1 - self.masks[:, None])
            flat = x[None] - weak @ self.directions
        value = (flat * self.scale).unflatten(1, maps.shape[2:]).permute(0, 3, 1, 2)
        return put_in_place(output, value.to(output), given, layer)


def _scores(network: Network, inputs: Tensor, variants: int, category: int) -> Floats:
    outputs = network.module(inputs.expand(variants, -1, -1, -1).contiguous())
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or not 0 <= category < outputs.shape[1]:
        raise InputError(f"category {category}: the network gives no such output")
    return outputs[:, category].double().cpu().numpy()


def _designs(count: int, designs: int, seed: int) -> Floats:
    """Return two designs A and B, and A with each column from B, ``((2 + concepts) · designs, concepts)``."""
    from scipy.stats.qmc import Sobol

    from interpretkit.training.seeds import numpy_generator

    drawn = Sobol(2 * count, rng=numpy_generator(seed, "sobol")).random_base2(int(np.ceil(np.log2(designs))))
    drawn = drawn[:designs]
    a, b = drawn[:, :count], drawn[:, count:]
    mixed = []
    for column in range(count):
        one = a.copy()
        one[:, column] = b[:, column]
        mixed.append(one)
    return np.concatenate([a, b, *mixed])


def _totals(outputs: Floats, count: int, designs: int) -> Floats:
    """Return total indices by Jansen's estimator, ``(n, concepts)``."""
    n = len(outputs)
    blocks = outputs.reshape(n, 2 + count, designs)
    variance = blocks[:, :2].reshape(n, -1).var(axis=1)
    lost = ((blocks[:, :1] - blocks[:, 2:]) ** 2).mean(axis=2) / 2
    # What rounding leaves of an output that does not change is no variance.
    still = variance <= 1e-10 * np.maximum((blocks[:, :2] ** 2).mean(axis=(1, 2)), np.finfo(float).tiny)
    return np.where(still[:, None], np.nan, lost / np.where(still, 1.0, variance)[:, None])
