"""Other ways to locate a part from a few annotations on a frozen network, and how well each does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cnn_interp.disentangling.features import TrunkFeatures
from cnn_interp.disentangling.part_cells import PartCells, layer_cells, mirrored
from cnn_interp.disentangling.part_graph import Annotation, PartSettings, expected_position, grow, infer
from interpretkit.errors import InputError
from interpretkit.runs.progress import track
from interpretkit.training.seeds import numpy_generator, torch_generator

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
GRAPH, MEAN = "part graph", "mean position"


@dataclass(frozen=True, eq=False)
class Task:
    """A part to locate.

    Attributes
    ----------
    features : (TrunkFeatures, TrunkFeatures)
        Of the images and of their mirror images.
    cells : PartCells
        Their cells.
    deep : str
        The layer whose whole map stands for an image.
    fine : tuple of str
        The layers whose positions are told apart, at the cells.
    landmarks : ndarray of float, (n, 2)
        Row and column of the part, px; only those of annotated images are looked at.
    pool : ndarray of int
        Images without annotation that may be learned from. The baselines have no use for them.
    """

    features: tuple[TrunkFeatures, TrunkFeatures]
    cells: PartCells
    deep: str
    fine: tuple[str, ...]
    landmarks: Floats
    pool: Integers

    def both(self, annotated: Integers) -> Floats:
        """Return where the part is in annotated images and then in their mirror images, px, ``(2k, 2)``."""
        where = self.landmarks[annotated]
        return np.concatenate([where, mirrored(where, self.cells.image)])

    def maps(self, layers: Sequence[str], rows: Integers, way: int) -> Tensor:
        """Return the responses of images or of mirror images at the cells, ``(m, units, cells)``."""
        grid, features = self.cells.encoder.grid, self.features[way]
        return torch.cat([layer_cells(features[layer], rows, grid) for layer in layers], dim=2).transpose(
            1, 2
        )

    def whole(self, rows: Integers, way: int) -> Tensor:
        """Return the whole map of the deep layer for images or mirror images, as vectors ``(m, units · positions)``."""
        return self.features[way][self.deep].tensor(rows).flatten(1)

    def annotated_whole(self, annotated: Integers) -> Tensor:
        """Return the whole maps of annotated images and then of their mirror images, ``(2k, units · positions)``."""
        return torch.cat([self.whole(annotated, way) for way in (0, 1)])

    def annotated_maps(self, layers: Sequence[str], annotated: Integers) -> Tensor:
        """Return the maps of annotated images and then of their mirror images, ``(2k, units, cells)``."""
        return torch.cat([self.maps(layers, annotated, way) for way in (0, 1)])


Locator = Callable[[Task, Integers, Integers, int], Floats]


@dataclass(frozen=True)
class Trial:
    """One measurement.

    Attributes
    ----------
    method : str
        One of ``METHODS``.
    annotations : int
        How many images were annotated.
    draw : int
        Which draw of them.
    error : float
        Mean distance to the landmark over the diagonal of the image, on images that were not annotated.
    """

    method: str
    annotations: int
    draw: int
    error: float


def mean_position(task: Task, annotated: Integers, rows: Integers, seed: int) -> Floats:
    """Return the mean of the annotated positions, for every image."""
    return np.broadcast_to(task.landmarks[annotated].mean(axis=0), (len(rows), 2)).copy()


def nearest_neighbour(task: Task, annotated: Integers, rows: Integers, seed: int) -> Floats:
    """Return where the part is in the most similar annotated image or mirror image, by the cosine of whole maps."""
    known = torch.nn.functional.normalize(task.annotated_whole(annotated), dim=1)
    like = task.whole(rows, 0) @ known.T
    return task.both(annotated)[like.argmax(dim=1).numpy()]


def ridge(task: Task, annotated: Integers, rows: Integers, seed: int, *, penalty: float = 0.02) -> Floats:
    """Return positions by ridge regression from whole maps, learned from annotated images and their mirror images.

    The penalty is in units of the mean squared length of the centred maps.
    """
    known = task.annotated_whole(annotated).double()
    where = torch.from_numpy(task.both(annotated))
    middle, mean = where.mean(dim=0), known.mean(dim=0)
    known = known - mean
    products = known @ known.T
    size = products.diagonal().mean().clamp_min(1e-12)
    dual = torch.linalg.solve(
        products / size + penalty * torch.eye(len(known), dtype=torch.float64), where - middle
    )
    maps = task.whole(rows, 0).double() - mean
    return (maps @ known.T / size @ dual + middle).numpy()


def linear_probe(
    task: Task,
    annotated: Integers,
    rows: Integers,
    seed: int,
    *,
    inverse_penalty: float = 1e-3,
    sharpness: float = 2.0,
    within: float = 0.75,
) -> Floats:
    """Return positions by logistic regression on single cells: whether the part is there.

    Cells of annotated images and mirror images nearer to the part than `within` cells are examples, all others
    counterexamples; both count alike. The log odds times `sharpness`, with the same expectation of where a part is as a
    part graph has, give a distribution over cells, and its mean is the answer.
    """
    from sklearn.linear_model import LogisticRegression

    known = task.annotated_maps(task.fine, annotated).transpose(1, 2)
    where = task.both(annotated)
    stride = max(task.cells.encoder.grid.field.stride)
    away = np.linalg.norm(task.cells.centres[None] - where[:, None], axis=2)
    labels = away <= np.maximum(within * stride, away.min(axis=1, keepdims=True))
    flat = known.flatten(0, 1)
    mean, scale = flat.mean(dim=0), _scale(flat)
    model = LogisticRegression(C=inverse_penalty, class_weight="balanced", max_iter=100, tol=1e-3)
    model.fit(((flat - mean) / scale).numpy(), labels.ravel())
    weights = torch.from_numpy(model.coef_[0]).float() / scale
    odds = torch.einsum("ncp,c->np", task.maps(task.fine, rows, 0) - mean[:, None], weights)
    return _mean_cell(task, sharpness * odds + _expectation(task, annotated))


def tuned_head(
    task: Task,
    annotated: Integers,
    rows: Integers,
    seed: int,
    *,
    steps: int = 100,
    learning_rate: float = 0.03,
    decay: float = 0.01,
    width: float = 1.0,
) -> Floats:
    """Return positions by a head of the network, a 1 × 1 convolution with a bias for each cell, that is fine-tuned.

    It learns to give each annotated image and mirror image the distribution over cells that a normal density about the
    part has, `width` cells wide, by gradient descent on the cross entropy; its mean is the answer.
    """
    known = task.annotated_maps(task.fine, annotated)
    where = torch.from_numpy(task.both(annotated)).float()
    flat = known.transpose(1, 2).flatten(0, 1)
    mean, scale = flat.mean(dim=0)[:, None], _scale(flat)[:, None]
    known = (known - mean) / scale / len(mean) ** 0.5
    stride = max(task.cells.encoder.grid.field.stride)
    centres = torch.from_numpy(task.cells.centres).float()
    wanted = torch.softmax(-torch.cdist(where, centres).square() / (2 * (width * stride) ** 2), dim=1)
    generator = torch_generator(seed, "tuned head")
    weights = (torch.randn(known.shape[1], generator=generator) * 0.01).requires_grad_()
    bias = torch.zeros(known.shape[2], requires_grad=True)
    optimizer = torch.optim.AdamW([weights, bias], lr=learning_rate, weight_decay=decay)
    for _ in range(steps):
        scores = torch.einsum("ncp,c->np", known, weights) + bias
        loss = -(wanted * torch.log_softmax(scores, dim=1)).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        maps = (task.maps(task.fine, rows, 0) - mean) / scale / len(mean) ** 0.5
        return _mean_cell(task, torch.einsum("ncp,c->np", maps, weights) + bias)


def graph_position(
    task: Task,
    annotated: Integers,
    rows: Integers,
    seed: int,
    *,
    settings: PartSettings | None = None,
) -> Floats:
    """Return positions by a part graph."""
    notes = [
        Annotation(int(row), (float(task.landmarks[row, 0]), float(task.landmarks[row, 1])))
        for row in annotated
    ]
    graph = grow(task.cells, notes, pool=task.pool, settings=settings)
    return infer(graph, task.cells, rows).centres


METHODS: Mapping[str, Locator] = MappingProxyType(
    {
        GRAPH: graph_position,
        MEAN: mean_position,
        "nearest neighbour": nearest_neighbour,
        "ridge regression": ridge,
        "linear probe": linear_probe,
        "fine-tuned head": tuned_head,
    }
)
BASELINES: tuple[str, ...] = tuple(name for name in METHODS if name not in (GRAPH, MEAN))


def locate_trials(
    task: Task,
    candidates: ArrayLike,
    counts: Sequence[int],
    draws: int,
    *,
    groups: ArrayLike | None = None,
    methods: Mapping[str, Locator] = METHODS,
    seed: int = 0,
    name: str = "",
    quiet: bool = True,
) -> list[Trial]:
    """Annotate a few images, locate the part in the others, and do so again and again.

    Parameters
    ----------
    task : Task
        The part.
    candidates : array_like of int
        Images with a landmark; some are annotated, the method is tested on the others.
    counts : sequence of int
        How many to annotate.
    draws : int
        How often.
    groups : array_like of int, (n,), optional
        Relatives among all images; the method is not tested on relatives of annotated images.
    methods : mapping of str to callable
        What to measure.
    seed : int
        Of the draws; all methods have the same.
    name : str
        Sets the draws of one part apart from those of others.
    quiet : bool
        Whether to show no progress bar.

    Returns
    -------
    list of Trial

    Raises
    ------
    InputError
        If there are too few candidates.
    """
    shown = np.asarray(candidates, dtype=np.int64)
    kin = np.arange(len(task.landmarks)) if groups is None else np.asarray(groups)
    if len(shown) <= max(counts):
        raise InputError(
            f"{name or 'part'}: {len(shown)} images show it; expected more than the {max(counts)} to be annotated"
        )
    diagonal = float(np.hypot(*task.cells.image))
    found = []
    plans = [(count, draw) for count in counts for draw in range(draws)]
    for count, draw in track(plans, f"Locating {name}".strip(), quiet=quiet):
        annotated = annotated_images(shown, count, seed, name, draw)
        rows = shown[~np.isin(kin[shown], kin[annotated])]
        if not len(rows):
            raise InputError(f"{name or 'part'}: all images are relatives of those annotated")
        truth = task.landmarks[rows]
        for method, locate in methods.items():
            where = locate(task, annotated, rows, seed)
            error = float(np.linalg.norm(where - truth, axis=1).mean()) / diagonal
            found.append(Trial(method, count, draw, error))
    return found


def annotated_images(candidates: ArrayLike, count: int, seed: int, name: str, draw: int) -> Integers:
    """Return which images are annotated in a draw, ``(count,)``, in rising order; see :func:`locate_trials`."""
    rng = numpy_generator(seed, "annotated", name, count, draw)
    return np.sort(rng.choice(np.asarray(candidates, dtype=np.int64), count, replace=False))


def mean_errors(trials: Sequence[Trial], annotations: int) -> dict[str, Floats]:
    """Return the errors of each method after so many annotations, ``(draws,)``; means over parts of the same draw."""
    table: dict[str, dict[int, list[float]]] = {}
    for trial in trials:
        if trial.annotations == annotations:
            table.setdefault(trial.method, {}).setdefault(trial.draw, []).append(trial.error)
    return {
        method: np.array([np.mean(by_draw[draw]) for draw in sorted(by_draw)], dtype=np.float64)
        for method, by_draw in table.items()
    }


def interval(values: ArrayLike) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean by Student's distribution; None for fewer than two values."""
    known = np.asarray(values, dtype=np.float64)
    if len(known) < 2:
        return None
    from scipy.stats import t

    half = float(t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / len(known) ** 0.5)
    return float(known.mean()) - half, float(known.mean()) + half


def _scale(flat: Tensor) -> Tensor:
    deviation = flat.std(dim=0, correction=0)
    return torch.where(deviation > 1e-6 * deviation.max().clamp_min(1e-30), deviation, torch.ones(()))


def _expectation(task: Task, annotated: Integers) -> Tensor:
    """Return the logarithm of the density of where a part graph expects the part, ``(cells,)``."""
    mean, deviation = expected_position(task.landmarks[annotated], task.cells.image)
    far = (task.cells.centres - mean) / deviation
    return torch.from_numpy(-0.5 * (far**2).sum(axis=1)).float()


def _mean_cell(task: Task, scores: Tensor) -> Floats:
    """Return the mean position of the distribution over cells that scores ``(n, cells)`` give, px."""
    chance = torch.softmax(scores.double(), dim=1)
    return (chance @ torch.from_numpy(task.cells.centres)).numpy()
