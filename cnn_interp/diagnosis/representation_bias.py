"""Representation bias: attributes that a network tells by each other's features though they are not related."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cnn_interp.diagnosis.attacks import Classifier, logits_of
from cnn_interp.networks.network import Network
from interpretkit.disentanglement.datasets import SHAPES3D, render_shapes3d
from interpretkit.errors import InputError
from interpretkit.networks.instrumentation import find_layer
from interpretkit.runs.files import read_table
from interpretkit.training.seeds import numpy_generator, torch_generator

# How two attributes may be related in truth.
KINDS = ("positive", "none", "negative")
# A pair is suspected if it stands out among all pairs by so many robust standard deviations, and by so much cosine.
_OUTLYING, _NOTABLE = 3.5, 0.4
# The divergence of the noise between pairs is never taken for less than this, in nats.
_LEAST_SPREAD = 0.02

Relations = Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class AttributeRelations:
    """How alike are the features that a network tells attributes by.

    Attributes
    ----------
    names : tuple of str, (a,)
        The attributes.
    layer : str
        Where the features are taken from.
    pairs : ndarray of int, (p, 2)
        All pairs of attributes.
    cosines : ndarray, (n, p)
        For each image the cosine between the two attributes' weights.
    fidelity : ndarray, (a,)
        The median over images of the share of an output's variance, under the noise, that its linear model explains.
    """

    names: tuple[str, ...]
    layer: str
    pairs: NDArray[np.intp]
    cosines: NDArray[np.float64]
    fidelity: NDArray[np.float64]

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The mean cosine of each pair as a symmetric matrix ``(a, a)`` with ones on its diagonal."""
        found = np.eye(len(self.names))
        found[self.pairs[:, 0], self.pairs[:, 1]] = found[self.pairs[:, 1], self.pairs[:, 0]] = (
            self.cosines.mean(0)
        )
        return found


@dataclass(frozen=True)
class PairBias:
    """How far the relation of two attributes in a network is from the one given.

    Attributes
    ----------
    first, second : str
        The attributes.
    given : str
        Their relation in truth, one of ``KINDS``.
    cosine : float
        Their mean cosine in the network.
    expected : float
        The mean cosine of the other pairs that are given as related in the same way.
    divergence : float
        Kullback–Leibler divergence of the pair's distribution of cosines from that of those other pairs, in nats.
    outlying : float
        By how many robust standard deviations the divergence exceeds the median over all pairs.
    suspected : bool
        Whether the pair stands out so far that it is to be looked at: a blind spot.
    """

    first: str
    second: str
    given: str
    cosine: float
    expected: float
    divergence: float
    outlying: float
    suspected: bool


def mine_relations(
    model: Classifier,
    pixels: Tensor,
    attributes: Mapping[str, int],
    layer: str,
    *,
    noise: float = 0.1,
    samples: int = 4,
    images_per_forward: int = 16,
    seed: int = 0,
) -> AttributeRelations:
    """Mine the relations between attributes from a network (Zhang, Wang and Zhu 2018, arXiv 1710.10577).

    For each image and attribute the output is modelled as linear in a layer's feature, y ≈ v · x, about the image: v is
    the mean gradient under normal noise, which for such noise is the best linear fit. Two attributes are related in the
    network as far as their v point the same way.

    Parameters
    ----------
    model : Network or Module
        With an output for each attribute. It is left as it was.
    pixels : Tensor, (n, channels, height, width)
        Values in 0 … 1.
    attributes : mapping of str to int
        From each attribute's name to its output.
    layer : str
        Dotted name of a layer with something nonlinear above it.
    noise : float
        Standard deviation of the noise, as a share of that of the image's own feature.
    samples : int
        Draws of the noise; each is used with both signs.
    images_per_forward : int
        How many images go through the network at a time.
    seed : int
        Seed of the noise.

    Returns
    -------
    AttributeRelations

    Raises
    ------
    InputError
        If an argument cannot be used, or an output does not depend on the layer.
    """
    names = tuple(attributes)
    if len(names) < 3:
        raise InputError(f"attributes: {len(names)}; expected at least 3, for pairs are compared with others")
    if not (np.isfinite(noise) and noise > 0):
        raise InputError(f"noise {noise}: expected a finite share above 0")
    for name, value in (("samples", samples), ("images_per_forward", images_per_forward)):
        if value < 1:
            raise InputError(f"{name} {value}: expected at least 1")
    pairs = np.array(list(combinations(range(len(names)), 2)), dtype=np.intp)
    cosines, fidelities = [], []
    module = model.module if isinstance(model, Network) else model
    with logits_of(model, pixels, seed) as (logits, images), _noisy(module, layer) as tap:
        for some in images.split(images_per_forward):
            weights, fidelity = _linear_models(
                logits, some, tap, list(attributes.values()), noise, samples, seed
            )
            unit = weights / weights.norm(dim=2, keepdim=True).clamp_min(1e-20)
            cosines.append((unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(2).T.cpu().numpy())
            fidelities.append(fidelity.T.cpu().numpy())
    found = np.concatenate(cosines).astype(np.float64).clip(-1, 1)
    return AttributeRelations(
        names, layer, pairs, found, np.median(np.concatenate(fidelities), axis=0).astype(np.float64)
    )


def find_bias(mined: AttributeRelations, given: Relations | None = None, *, bins: int = 20) -> list[PairBias]:
    """Compare mined relations with given ones, pair by pair.

    A pair's cosines over the images are compared with those of all other pairs that are given as related in the same
    way, which tell what the network makes of such a relation.

    Parameters
    ----------
    mined : AttributeRelations
        Relations of a network's attributes, as :func:`mine_relations` returns them.
    given : mapping of (str, str) to str, optional
        From pairs of names, in any order, to ``positive``, ``none`` or ``negative``; ``none`` for pairs left out.
    bins : int
        Number of bins of the distributions, over -1 … 1.

    Returns
    -------
    list of PairBias
        By falling divergence; pairs that are the only ones of their kind come last, their divergence NaN.

    Raises
    ------
    InputError
        If a relation or an attribute is unknown, or `bins` is below 2.
    """
    if bins < 2:
        raise InputError(f"bins {bins}: expected at least 2")
    kinds = _kinds(mined, given or {})
    edges = np.linspace(-1, 1, bins + 1)
    counts = np.stack([np.histogram(column, edges)[0] for column in mined.cosines.T]).astype(float)
    means = mined.cosines.mean(0)
    divergence, expected = np.full(len(kinds), np.nan), np.full(len(kinds), np.nan)
    for pair, kind in enumerate(kinds):
        others = [other for other in range(len(kinds)) if other != pair and kinds[other] == kind]
        if not others:
            continue
        # Half an image in every bin keeps the divergence finite.
        own = (counts[pair] + 0.5) / (counts[pair] + 0.5).sum()
        theirs = counts[others].mean(0) + 0.5
        divergence[pair] = float((own * np.log(own / (theirs / theirs.sum()))).sum())
        expected[pair] = means[others].mean()
    known = divergence[np.isfinite(divergence)]
    middle = float(np.median(known)) if len(known) else np.nan
    spread = max(1.4826 * float(np.median(np.abs(known - middle))), _LEAST_SPREAD) if len(known) else np.nan
    found = []
    for pair, (first, second) in enumerate(mined.pairs):
        outlying = (divergence[pair] - middle) / spread
        notable = abs(means[pair] - expected[pair]) > _NOTABLE
        found.append(
            PairBias(
                first=mined.names[first],
                second=mined.names[second],
                given=kinds[pair],
                cosine=float(means[pair]),
                expected=float(expected[pair]),
                divergence=float(divergence[pair]),
                outlying=float(outlying),
                suspected=bool(outlying > _OUTLYING and notable),
            )
        )
    return sorted(found, key=lambda pair: -pair.divergence if np.isfinite(pair.divergence) else float("inf"))


def read_relations(path: Path | str) -> dict[tuple[str, str], str]:
    """Read given relations from a CSV file with the columns ``first``, ``second`` and ``relation``.

    Raises
    ------
    InputError
        If the file is missing, lacks a column, or has a relation that is not one of ``KINDS``.
    """
    found = {}
    for row in read_table(path, "first", "second", "relation"):
        if row["relation"] not in KINDS:
            raise InputError(f"{path}: relation {row['relation']!r}; expected one of {', '.join(KINDS)}")
        found[row["first"], row["second"]] = row["relation"]
    return found


# ------------------------------------------------------------------------------- scenes to plant a bias in

SCENE_ATTRIBUTES = ("large", "round", "turned right", "warm object", "warm wall", "warm floor")


def attribute_scenes(
    count: int, *, bias: tuple[str, str] | None = None, strength: float = 1.0, side: int = 32, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Render scenes with six attributes that are independent, but for two that may be made to go together.

    Parameters
    ----------
    count : int
        How many images.
    bias : (str, str), optional
        Two of ``SCENE_ATTRIBUTES``; the second is given the value of the first.
    strength : float
        The share of the images in which it is.
    side : int
        Side of the images, px.
    seed : int
        Seed of the draw.

    Returns
    -------
    pixels : Tensor, (count, 3, side, side)
        Values in 0 … 1.
    attributes : Tensor of float, (count, 6)
        0 or 1.

    Raises
    ------
    InputError
        If an attribute is unknown or an argument out of range.
    """
    if count < 1 or not 0 <= strength <= 1:
        raise InputError(f"count {count}, strength {strength}: expected at least 1, and a share in 0 … 1")
    for name in bias or ():
        if name not in SCENE_ATTRIBUTES:
            raise InputError(f"bias {name!r}: expected two of {', '.join(SCENE_ATTRIBUTES)}")
    rng = numpy_generator(seed, "scenes")
    present = rng.integers(2, size=(count, len(SCENE_ATTRIBUTES)))
    if bias is not None:
        first, second = (SCENE_ATTRIBUTES.index(name) for name in bias)
        forced = rng.uniform(size=count) < strength
        present[forced, second] = present[forced, first]
    columns: dict[str, NDArray[np.integer]] = dict(zip(SCENE_ATTRIBUTES, present.T, strict=True))
    # Hues 0 … 9 go once round the colour wheel: red and yellow are warm, cyan and blue are not.
    warm, cold = np.array([0, 1, 9]), np.array([4, 5, 6])
    drawn = {
        f"{surface}_hue": np.where(
            columns[f"warm {surface}"], rng.choice(warm, count), rng.choice(cold, count)
        )
        for surface in ("floor", "wall", "object")
    }
    drawn["scale"] = np.where(columns["large"], rng.choice([6, 7], count), rng.choice([0, 1], count))
    drawn["shape"] = np.where(columns["round"], rng.choice([2, 3], count), rng.choice([0, 1], count))
    drawn["orientation"] = np.where(
        columns["turned right"], rng.choice([12, 14], count), rng.choice([0, 2], count)
    )
    images = render_shapes3d(np.column_stack([drawn[name] for name in SHAPES3D.names]))
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    pixels = torch.nn.functional.interpolate(pixels, (side, side), mode="area")
    return pixels, torch.from_numpy(present).float()


class _Tap:
    """Adds noise to a layer's output and keeps what came of it as a leaf."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget the noise and the last pass."""
        self.noise: Tensor | None = None
        self.leaf: Tensor | None = None


@contextmanager
def _noisy(module: nn.Module, layer: str) -> Any:
    tap = _Tap()

    def hook(_: nn.Module, __: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise InputError(f"layer {layer!r}: gives a {type(output).__name__}; expected one tensor")
        kept = output.detach()
        tap.leaf = (kept if tap.noise is None else kept + tap.noise).requires_grad_()
        # What follows may work in place, which a leaf forbids.
        return tap.leaf.clone()

    handle = find_layer(module, layer).register_forward_hook(hook)
    try:
        yield tap
    finally:
        handle.remove()


def _linear_models(
    logits: Any, images: Tensor, tap: _Tap, outputs: Sequence[int], noise: float, samples: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Return weights ``(a, n, features)`` of the outputs' linear models, and how well they fit, ``(a, n)``."""
    tap.clear()
    with torch.no_grad():
        clean = logits(images)
    if tap.leaf is None:
        raise InputError("layer: does not run in the network's forward pass")
    absent = [output for output in outputs if not 0 <= output < clean.shape[1]]
    if absent:
        raise InputError(f"attributes: output {absent[0]}; the network has 0 to {clean.shape[1] - 1}")
    feature = tap.leaf.detach()
    scale = noise * feature.flatten(1).std(dim=1)
    generator = torch_generator(seed, "noise")
    weights = torch.zeros(len(outputs), *feature.shape, device=feature.device)
    steps, changes = [], []
    for _ in range(samples):
        draw = torch.randn(feature.shape[1:], generator=generator).to(feature)
        for sign in (1, -1):
            tap.noise = sign * scale.reshape(-1, *[1] * (feature.ndim - 1)) * draw
            found = logits(images)
            for row, output in enumerate(outputs):
                (gradient,) = torch.autograd.grad(
                    found[:, output].sum(), tap.leaf, retain_graph=row < len(outputs) - 1, allow_unused=True
                )
                if gradient is None:
                    raise InputError(f"layer: output {output} does not depend on it; expected a layer below")
                weights[row] += gradient / (2 * samples)
            steps.append(tap.noise)
            changes.append((found.detach() - clean)[:, list(outputs)].T)
    weights = weights.flatten(2)
    predicted = torch.stack([(weights * step.flatten(1)).sum(2) for step in steps])
    observed = torch.stack(changes)
    centred = observed - observed.mean(0)
    off = (centred - (predicted - predicted.mean(0))).square().sum(0)
    return weights, 1 - off / centred.square().sum(0).clamp_min(1e-20)


def _kinds(mined: AttributeRelations, given: Relations) -> list[str]:
    for pair, kind in given.items():
        unknown = [name for name in pair if name not in mined.names]
        if unknown:
            raise InputError(
                f"relations: no attribute {unknown[0]!r}; expected some of {', '.join(mined.names)}"
            )
        if kind not in KINDS:
            raise InputError(f"relations: {kind!r}; expected one of {', '.join(KINDS)}")
    either = {frozenset(pair): kind for pair, kind in given.items()}
    return [either.get(frozenset(mined.names[i] for i in pair), "none") for pair in mined.pairs]
