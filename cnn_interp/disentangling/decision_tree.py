"""The decision tree of a network: which filters its score of a category rests on, from the common to the particular."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnn_interp.disentangling.contributions import Integers, part_sums
from cnn_interp.disentangling.linear_pieces import SHORTEST, Floats, LinearPieces
from interpretkit.errors import InputError
from interpretkit.runs.arrays import load_npz
from interpretkit.runs.files import atomic_path, dump_json
from interpretkit.runs.progress import progress

if TYPE_CHECKING:
    from networkx import DiGraph

_FORMAT = 1
# So many mergers between two states that are kept.
_MERGERS = 20
# Pairs of nodes by other images go through in portions of so many values.
_VALUES_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class TreeSettings:
    """How a tree is learned.

    Attributes
    ----------
    neighbours : int or None
        A node may merge with so many nodes whose gradients are most like its own, and with those it is such a one
        of; None for all.
    least_likeness : float
        Nodes merge if the cosine between their mean gradients is at least this. What has less in common has no common
        rationale, and log E alone would not mind; −1 gives the published rule.
    penalty : float
        Of each filter of a rationale, times the square root of the number of images.
    node_cost : float
        By how much log E rises for each node less in the second level.
    tolerance : float or None
        A filter enters or leaves a rationale if that lowers the objective by more than this share of it. By default
        by more than 2 ln(filters)/images, which is what the best of so many filters of mere noise would lower it by;
        0 gives the published objective, whose rationales fit few images to the last digit and new ones the worse.
    """

    neighbours: int | None = 10
    least_likeness: float = 0.5
    penalty: float = 1e-6
    node_cost: float = 1.0
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if self.neighbours is not None and self.neighbours < 1:
            raise InputError(f"neighbours {self.neighbours}: expected at least 1, or None for all")
        if not -1 <= self.least_likeness <= 1:
            raise InputError(f"least_likeness {self.least_likeness}: expected a cosine, −1 to 1")
        for name in ("penalty", "node_cost", "tolerance"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise InputError(f"{name} {value}: expected at least 0")

    def least_gain(self, filters: int, images: int) -> float:
        """Return by which share of the objective a filter must lower it to enter or leave."""
        return 2 * np.log(max(filters, 2)) / images if self.tolerance is None else self.tolerance


@dataclass(frozen=True, eq=False)
class DecisionTree:
    """Decision modes of a network, each a linear function of few filters' responses, in a tree.

    Nodes are numbered: first the leaves, one for each image, then what was merged, in that order; the root is the
    last. The second level are the root's children, which are the most general modes.

    Attributes
    ----------
    parents : ndarray of int, (nodes,)
        Of each node; −1 for the root.
    weights : ndarray of float, (nodes, filters)
        w = α ∘ ḡ: what a unit of each filter's response adds to the score; its rationale. 0 where α is 0.
    biases : ndarray of float, (nodes,)
        So that a node's score is w·x + b.
    gradients : ndarray of float, (nodes, filters)
        ḡ: the mean gradient of its images, of length 1.
    errors : ndarray of float, (nodes,)
        Root mean squared difference between w·x + b and the scores of its images.
    scale : ndarray of float, (filters,)
        As in :class:`LinearPieces`.
    gains : ndarray of float, (mergers,)
        By how much each merger raised log E, in their order.
    settings : TreeSettings
        How it was learned.
    """

    parents: Integers
    weights: Floats
    biases: Floats
    gradients: Floats
    errors: Floats
    scale: Floats
    gains: Floats
    settings: TreeSettings

    def __len__(self) -> int:
        return len(self.parents)

    @property
    def root(self) -> int:
        """The root's number."""
        return len(self.parents) - 1

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """The numbers of each node's children, in order."""
        found: list[list[int]] = [[] for _ in self.parents]
        for node, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                found[parent].append(node)
        return tuple(map(tuple, found))

    @cached_property
    def levels(self) -> Integers:
        """The level of each node, ``(nodes,)``: 1 for the root, 2 for its children."""
        found = np.ones(len(self), dtype=np.int64)
        # Parents have larger numbers than their children.
        for node in range(self.root - 1, -1, -1):
            found[node] = found[self.parents[node]] + 1
        return found

    @property
    def leaves(self) -> int:
        """How many leaves there are."""
        return int(sum(not below for below in self.children))

    @property
    def depth(self) -> int:
        """The deepest level."""
        return int(self.levels.max())

    @property
    def second_level(self) -> tuple[int, ...]:
        """The most general decision modes: those of most images first."""
        return tuple(sorted(self.children[self.root], key=lambda node: (-len(self.images(node)), node)))

    def images(self, node: int) -> Integers:
        """Return the leaves below a node, which are the numbers of its images."""
        found, open_nodes = [], [node]
        while open_nodes:
            some = open_nodes.pop()
            if self.children[some]:
                open_nodes += self.children[some]
            else:
                found.append(some)
        return np.sort(np.array(found, dtype=np.int64))

    def descend(self, gradients: ArrayLike) -> Integers:
        """Return the way of images through the tree: from a node to the child whose rationale is most like g.

        Parameters
        ----------
        gradients : array_like of float, (n, filters)
            As in :class:`LinearPieces`.

        Returns
        -------
        ndarray of int, (n, depth)
            The node at each level, the root first; below its leaf an image stays at the leaf.
        """
        g = np.asarray(gradients, dtype=np.float64)
        if g.ndim != 2 or g.shape[1] != self.weights.shape[1]:
            raise InputError(f"gradients of shape {g.shape}; expected (n, {self.weights.shape[1]})")
        lengths = np.linalg.norm(self.weights, axis=1)
        # A node without a rationale is like nothing.
        similarity = np.where(
            lengths > 0, g @ self.weights.T / np.maximum(lengths, np.finfo(float).tiny), -np.inf
        )
        way = np.full((len(g), self.depth), self.root, dtype=np.int64)
        for level in range(1, self.depth):
            way[:, level] = way[:, level - 1]
            for node in np.unique(way[:, level - 1]):
                below = self.children[node]
                if below:
                    rows = np.flatnonzero(way[:, level - 1] == node)
                    nearest = similarity[np.ix_(rows, below)].argmax(axis=1)
                    way[rows, level] = np.array(below)[nearest]
        return way

    def scores(self, responses: ArrayLike, nodes: ArrayLike) -> Floats:
        """Return the scores ``(n,)`` that nodes ``(n,)`` give for responses ``(n, filters)``."""
        return self.contributions(responses, nodes).sum(axis=1) + self.biases[np.asarray(nodes)]

    def contributions(self, responses: ArrayLike, nodes: ArrayLike) -> Floats:
        """Return ρ = w ∘ x ``(n, filters)``: what each filter adds to the scores that nodes ``(n,)`` give."""
        return self.weights[np.asarray(nodes)] * np.asarray(responses, dtype=np.float64)

    def rationale(self, node: int, responses: ArrayLike) -> Floats:
        """Return what each filter adds to a node's score on average over images ``(n, filters)``."""
        return self.weights[node] * np.asarray(responses, dtype=np.float64).mean(axis=0)

    def to_networkx(
        self,
        image_names: Sequence[str] | None = None,
        filter_parts: Sequence[str] | None = None,
        responses: ArrayLike | None = None,
        *,
        filters: int = 10,
    ) -> DiGraph:
        """Return the tree as networkx has it, with edges from parents to children.

        Parameters
        ----------
        image_names : sequence of str, (leaves,), optional
            What the images are called.
        filter_parts : sequence of str, (filters,), optional
            To which part each filter belongs.
        responses : array_like of float, (leaves, filters), optional
            Of the images: nodes are then given the filters and parts that contribute most.
        filters : int
            How many filters a node names.
        """
        from networkx import DiGraph

        graph = DiGraph(nodes=len(self), leaves=self.leaves, depth=self.depth)
        x = None if responses is None else np.asarray(responses, dtype=np.float64)
        for node in range(len(self)):
            own = self.images(node)
            told: dict[str, Any] = {
                "level": int(self.levels[node]),
                "images": len(own),
                "bias": float(self.biases[node]),
                "error": float(self.errors[node]),
                "filters_used": int(np.count_nonzero(self.weights[node])),
            }
            if not self.children[node] and image_names is not None:
                told["image"] = image_names[node]
            if x is not None:
                added = self.rationale(node, x[own])
                largest = np.argsort(-np.abs(added), kind="stable")[:filters]
                told["filters"] = " ".join(f"{number}:{added[number]:+.4g}" for number in largest)
                if filter_parts is not None:
                    for part, amount in part_sums(added, filter_parts).items():
                        told[f"part {part}"] = amount
            graph.add_node(node, **told)
        graph.add_edges_from(
            (parent, node) for node, parent in enumerate(self.parents.tolist()) if parent >= 0
        )
        return graph

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all that :func:`load_tree` needs, as an npz holds it."""
        return {
            "format": np.array(_FORMAT),
            "settings": np.array(dump_json(asdict(self.settings))),
            "parents": self.parents, "weights": self.weights, "biases": self.biases, "gradients": self.gradients,
            "errors": self.errors, "scale": self.scale, "gains": self.gains,
        }  # fmt: skip

    def save(self, path: Path | str) -> None:
        """Write the tree as an npz, atomically."""
        with atomic_path(path) as hidden, hidden.open("wb") as file:
            np.savez_compressed(file, **self.arrays())  # type: ignore[arg-type]


def load_tree(path: Path | str) -> DecisionTree:
    """Return a tree that :meth:`DecisionTree.save` wrote.

    Raises
    ------
    InputError
        If the file is missing, damaged, or holds something else.
    """
    found = load_npz(Path(path))
    expected = ("format", "settings", "parents", "weights", "biases", "gradients", "errors", "scale", "gains")
    missing = [name for name in expected if name not in found]
    if missing:
        raise InputError(f"{path}: has no array {missing[0]!r}; expected the decision tree of a network")
    if int(found["format"]) != _FORMAT:
        raise InputError(f"{path}: format {int(found['format'])}; this release reads {_FORMAT}")
    return DecisionTree(
        found["parents"], found["weights"], found["biases"], found["gradients"], found["errors"], found["scale"],
        found["gains"], TreeSettings(**json.loads(str(found["settings"]))),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Rationale:
    """A linear function of few filters' responses, fitted to scores.

    Attributes
    ----------
    weights : ndarray of float, (filters,)
        α ∘ ḡ.
    bias : float
        b.
    fitted : ndarray of float, (n,)
        Its scores of the images.
    error : float
        Root mean squared difference from theirs.
    """

    weights: Floats
    bias: float
    fitted: Floats
    error: float


def fit_rationale(
    gradient: Floats, responses: Floats, scores: Floats, *, penalty: float, tolerance: float
) -> Rationale:
    """Choose which filters of a mean gradient count, and the bias, so that the images' scores come out.

    It minimises mean (w·x + b − y)² + penalty · (number of filters) with w = α ∘ ḡ, where each entry of α is 0 or 1. It
    begins with all filters, and puts in or takes out the one that lowers the objective most, as long as that pays.

    Parameters
    ----------
    gradient : ndarray of float, (filters,)
        ḡ.
    responses, scores : ndarray of float, (n, filters) and (n,)
        Of the images.
    penalty : float
        Of each filter.
    tolerance : float
        What does not lower the objective by more than this share of it is left.
    """
    mean, level = responses.mean(axis=0), float(scores.mean())
    moved = gradient * (responses - mean)
    n = len(scores)
    squares = np.einsum("nf,nf->f", moved, moved) / n
    counts = gradient != 0
    # Whether each filter that counts is in (1, and may leave) or out (−1, and may enter).
    state = np.where(counts, 1.0, 0.0)
    left = scores - level - moved.sum(axis=1)
    slope = left @ moved / n
    objective = float(left @ left) / n + penalty * float(counts.sum())
    # A filter may come back once it has left, but the objective falls at every step, so that it ends.
    while True:
        change = np.where(counts, 2 * state * slope + squares - state * penalty, np.inf)
        best = int(change.argmin())
        if not change[best] < -max(tolerance * objective, np.finfo(float).tiny):
            break
        step = state[best] * moved[:, best]
        left = left + step
        slope = slope + step @ moved / n
        state[best] = -state[best]
        objective += float(change[best])
    weights = np.where(state > 0, gradient, 0.0)
    bias = level - float(weights @ mean)
    fitted = responses @ weights + bias
    return Rationale(weights, bias, fitted, float(np.sqrt(np.square(fitted - scores).mean())))


def learn_tree(
    pieces: LinearPieces,
    settings: TreeSettings | None = None,
    *,
    others: LinearPieces | None = None,
    checkpoint: Path | None = None,
    quiet: bool = True,
) -> DecisionTree:
    """Merge the decision modes of single images to more and more general ones, as long as log E rises.

    Parameters
    ----------
    pieces : LinearPieces
        Of images of the category.
    settings : TreeSettings, optional
        How.
    others : LinearPieces, optional
        Of images that are not of the category, with the same scale. They become no leaves, but a mode that takes them
        for the category is the less likely. Without them log E does not mind modes that have nothing in common.
    checkpoint : path, optional
        A file in which mergers are kept, and from which one goes on.
    quiet : bool
        Whether to show no progress bar.

    Raises
    ------
    InputError
        If there are fewer than two images, the network does not take them for the category on average, or the other
        images have another number of filters or another scale.

    Notes
    -----
    Each image is a leaf with its own gradient and bias, so that the leaf's score is the network's. Two nodes of the
    second level are merged into one with the mean gradient ḡ of its images, the filters of it that give back their
    scores best, and a bias. That pair is merged for which Δ log E = 1 + γ Σ (h_new − h_old) + n log(Θ_old/Θ_new) is
    largest. The first sum is over the node's images; Θ is that of e^{γh} over all n images, and over the others, each
    by the node that it comes to; γ is one over the images' mean score. If none is above 0, the nodes that are left are
    the second level.

    References
    ----------
    Zhang, Yang, Ma, Wu: Interpreting CNNs via Decision Trees, CVPR 2019.
    """
    chosen = settings or TreeSettings()
    n = len(pieces)
    if n < 2:
        raise InputError(f"pieces: of {n} images; expected at least 2")
    if not pieces.scores.mean() > 0:
        raise InputError(
            "pieces: the network's scores of these images are not above 0 on average; expected images that it takes "
            "for the category"
        )
    if others is not None and not np.array_equal(others.scale, pieces.scale):
        raise InputError("others: have another scale; expected that of the images of the category")
    growth = _Growth(pieces, others, chosen)
    fingerprint = _fingerprint(pieces, others, chosen)
    kept = [] if checkpoint is None else _read_mergers(checkpoint, fingerprint)
    for one, other, gain in kept:
        growth.merge(one, other, gain)
    with progress("Merging nodes", n - 1, quiet=quiet) as bar:
        bar.advance(len(kept))
        while True:
            found = growth.best()
            if found is None:
                break
            growth.merge(*found)
            bar.advance()
            if checkpoint is not None and len(growth.mergers) % _MERGERS == 0:
                _write_mergers(checkpoint, fingerprint, growth.mergers)
        bar.advance(n - 1 - len(growth.mergers))
    return growth.tree()


@dataclass(frozen=True, eq=False)
class _Tried:
    """What merging two nodes would change.

    Attributes
    ----------
    scores : float
        The sum of scores of the node's images, by how much.
    theta : float
        Their share of Θ, by how much.
    likeness, others : ndarray of float, (others,)
        How like each other image's gradient is to the new rationale, and its score by it.
    """

    scores: float
    theta: float
    likeness: Floats
    others: Floats


class _Growth:
    """A tree while it grows."""

    def __init__(self, pieces: LinearPieces, others: LinearPieces | None, settings: TreeSettings) -> None:
        self.pieces, self.settings = pieces, settings
        self.others = pieces.subset(np.empty(0, dtype=np.int64)) if others is None else others
        self.gamma = 1 / float(pieces.scores.mean())
        n = len(pieces)
        self.parents: list[int] = [-1] * n
        self.members: list[Integers] = [np.array([row]) for row in range(n)]
        self.directions: list[Floats] = list(pieces.gradients)
        self.rationales = [
            Rationale(g, float(b), np.array([y]), 0.0)
            for g, b, y in zip(pieces.gradients, pieces.biases, pieces.scores, strict=True)
        ]
        self.open = list(range(n))
        self.mergers: list[tuple[int, int, float]] = []
        self.scores = pieces.scores.copy()
        self.shift = self.gamma * float(pieces.scores.max())
        self.tried: dict[tuple[int, int], _Tried] = {}
        # Between open nodes' directions, and of the other images to open nodes with their scores by these.
        self.alike = pieces.gradients @ pieces.gradients.T
        known = [self._of_others(rationale) for rationale in self.rationales]
        self.likeness = np.stack([likeness for likeness, _ in known], axis=1)
        self.told = np.stack([told for _, told in known], axis=1)

    def _of_others(self, rationale: Rationale) -> tuple[Floats, Floats]:
        length = float(np.linalg.norm(rationale.weights))
        told = self.others.responses @ rationale.weights + rationale.bias
        if length == 0:
            return np.full(len(told), -np.inf), told
        return self.others.gradients @ rationale.weights / length, told

    def _terms(self, scores: Floats) -> Floats:
        return np.exp(self.gamma * scores - self.shift)

    def _joined(self, nodes: Sequence[int]) -> tuple[Integers, Floats, Rationale]:
        rows = np.concatenate([self.members[node] for node in nodes])
        total = self.pieces.gradients[rows].sum(axis=0)
        length = float(np.linalg.norm(total))
        direction = total / length if length > SHORTEST else np.zeros_like(total)
        found = fit_rationale(
            direction,
            self.pieces.responses[rows],
            self.pieces.scores[rows],
            penalty=self.settings.penalty * len(rows) ** 0.5,
            tolerance=self.settings.least_gain(len(direction), len(rows)),
        )
        return rows, direction, found

    def _pairs(self) -> list[tuple[int, int]]:
        count = len(self.open)
        alike = self.alike.copy()
        np.fill_diagonal(alike, -np.inf)
        most = count - 1 if self.settings.neighbours is None else min(self.settings.neighbours, count - 1)
        nearest = np.argsort(-alike, axis=1, kind="stable")[:, :most]
        pairs = {
            (min(a, b), max(a, b))
            for place, a in enumerate(self.open)
            for other, b in ((number, self.open[number]) for number in nearest[place].tolist())
            # Rounding shall not part equal gradients, nor −1 leave anything out.
            if alike[place, other] >= self.settings.least_likeness - 1e-9
        }
        return sorted(pairs)

    def _try(self, pair: tuple[int, int]) -> _Tried:
        rows, _, found = self._joined(pair)
        before = self.scores[rows]
        likeness, told = self._of_others(found)
        return _Tried(
            float(found.fitted.sum() - before.sum()),
            float(self._terms(found.fitted).sum() - self._terms(before).sum()),
            likeness,
            told,
        )

    def _others_after(self, pairs: Sequence[tuple[int, int]]) -> Floats:
        """Return the other images' share of Θ after each merger, ``(pairs,)``."""
        if not len(self.others):
            return np.zeros(len(pairs))
        rows = np.arange(len(self.others))
        # Each image's three nearest nodes: whichever two are merged, one is left.
        order = np.argsort(-self.likeness, axis=1, kind="stable")[:, :3]
        near = [
            (order[:, k], self.likeness[rows, order[:, k]], self.told[rows, order[:, k]])
            for k in range(order.shape[1])
        ]
        place = {node: number for number, node in enumerate(self.open)}
        found = np.empty(len(pairs))
        at_once = max(1, _VALUES_AT_ONCE // len(rows))
        for start in range(0, len(pairs), at_once):
            some = pairs[start : start + at_once]
            one, other = (np.array([place[pair[k]] for pair in some])[:, None] for k in (0, 1))
            likeness = np.full((len(some), len(rows)), -np.inf)
            told = np.zeros_like(likeness)
            for number, value, score in reversed(near):
                stays = (number != one) & (number != other)
                likeness = np.where(stays, value, likeness)
                told = np.where(stays, score, told)
            new = np.stack([self.tried[pair].likeness for pair in some])
            by_new = np.stack([self.tried[pair].others for pair in some])
            # Where none is left, or none has a rationale, the new node takes all.
            told = np.where((new > likeness) | np.isneginf(likeness), by_new, told)
            found[start : start + at_once] = self._terms(told).sum(axis=1)
        return found

    def best(self) -> tuple[int, int, float] | None:
        """Return the pair to merge and by how much log E rises; None if it does not."""
        pairs = self._pairs()
        if not pairs:
            return None
        for pair in pairs:
            if pair not in self.tried:
                self.tried[pair] = self._try(pair)
        images = float(self._terms(self.scores).sum())
        nearest = self.likeness.argmax(axis=1)
        others = float(self._terms(self.told[np.arange(len(self.others)), nearest]).sum())
        # The rest of Θ is a sum of what is above 0, whatever rounding leaves of it.
        after = images + np.array([self.tried[pair].theta for pair in pairs])
        after = np.maximum(after, np.finfo(float).tiny) + self._others_after(pairs)
        changes = np.array([self.tried[pair].scores for pair in pairs])
        theta = np.log((images + others) / after)
        gains = self.settings.node_cost + self.gamma * changes + len(self.scores) * theta
        place = int(gains.argmax())
        return (*pairs[place], float(gains[place])) if gains[place] > 0 else None

    def merge(self, one: int, other: int, gain: float) -> None:
        """Put a new node above two of the second level."""
        rows, direction, found = self._joined((one, other))
        new = len(self.parents)
        self.parents[one] = self.parents[other] = new
        self.parents.append(-1)
        self.members.append(rows)
        self.directions.append(direction)
        self.rationales.append(found)
        self.scores[rows] = found.fitted
        self.mergers.append((one, other, gain))
        gone = {one, other}
        self.tried = {pair: value for pair, value in self.tried.items() if not gone & set(pair)}
        stay = [place for place, node in enumerate(self.open) if node not in gone]
        self.open = [self.open[place] for place in stay]
        to_new = np.array([self.directions[node] @ direction for node in self.open])
        self.open.append(new)
        grown = np.ones((len(self.open), len(self.open)))
        grown[:-1, :-1] = self.alike[np.ix_(stay, stay)]
        grown[-1, :-1] = grown[:-1, -1] = to_new
        self.alike = grown
        likeness, told = self._of_others(found)
        self.likeness = np.column_stack([self.likeness[:, stay], likeness])
        self.told = np.column_stack([self.told[:, stay], told])

    def tree(self) -> DecisionTree:
        """Return the tree, with a root above the second level."""
        _, direction, found = self._joined(self.open)
        root = len(self.parents)
        parents = [root if parent < 0 else parent for parent in self.parents] + [-1]
        rationales = [*self.rationales, found]
        return DecisionTree(
            parents=np.array(parents, dtype=np.int64),
            weights=np.stack([rationale.weights for rationale in rationales]),
            biases=np.array([rationale.bias for rationale in rationales]),
            gradients=np.stack([*self.directions, direction]),
            errors=np.array([rationale.error for rationale in rationales]),
            scale=self.pieces.scale,
            gains=np.array([gain for _, _, gain in self.mergers], dtype=np.float64),
            settings=self.settings,
        )


def _fingerprint(pieces: LinearPieces, others: LinearPieces | None, settings: TreeSettings) -> str:
    digest = hashlib.sha256(dump_json([_FORMAT, asdict(settings)]).encode())
    for some in (pieces, others):
        if some is not None:
            for array in (some.responses, some.gradients, some.scores):
                digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _write_mergers(path: Path, fingerprint: str, mergers: Sequence[tuple[int, int, float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as hidden, hidden.open("wb") as file:
        np.savez(
            file,
            fingerprint=np.array(fingerprint),
            pairs=np.array([pair[:2] for pair in mergers], dtype=np.int64).reshape(-1, 2),
            gains=np.array([pair[2] for pair in mergers], dtype=np.float64),
        )


def _read_mergers(path: Path, fingerprint: str) -> list[tuple[int, int, float]]:
    """Return the mergers that are kept; none if the file is missing, damaged, or of something else."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["fingerprint"]) != fingerprint:
                return []
            pairs, gains = file["pairs"].tolist(), file["gains"].tolist()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return []
    return [(int(one), int(other), float(gain)) for (one, other), gain in zip(pairs, gains, strict=True)]
