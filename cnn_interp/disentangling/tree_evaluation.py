"""A decision tree of a category learned from some images and held against the network on others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from cnn_interp.disentangling.contributions import FilterParts, contribution_fitness, part_errors, score_drops
from cnn_interp.disentangling.decision_tree import DecisionTree, Integers, TreeSettings, learn_tree
from cnn_interp.disentangling.features import LayerMaps
from cnn_interp.disentangling.linear_pieces import Floats, LinearPieces, ScoreOfMaps, linear_pieces
from cnn_interp.disentangling.tree_fidelity import Fidelity, fidelity, score_fidelity
from interpretkit.errors import InputError

OWN, EQUAL = "own gradient", "equal shares"


@dataclass(frozen=True, eq=False)
class CategoryTree:
    """A tree of one category, and how well it speaks for the network.

    Attributes
    ----------
    tree : DecisionTree
        Learned from images of the category.
    learned, tested : LinearPieces
        Of the images that it was learned from, and of those it was tested on.
    learned_rows, tested_rows : ndarray of int
        Their numbers.
    labels : ndarray of bool, (tested,)
        Which of the tested are of the category.
    way : ndarray of int, (tested, depth)
        Their nodes, level by level.
    levels : list of Fidelity
        Of the tested, level by level.
    regression : Fidelity
        Of ridge regression from the same responses to the same scores, which knows no gradients.
    """

    tree: DecisionTree
    learned: LinearPieces
    tested: LinearPieces
    learned_rows: Integers
    tested_rows: Integers
    labels: NDArray[np.bool_]
    way: Integers
    levels: list[Fidelity]
    regression: Fidelity

    @property
    def second(self) -> Fidelity:
        """Of the second level."""
        return self.levels[1]

    @property
    def accuracy(self) -> float:
        """The network's own."""
        return float(((self.tested.scores > 0) == self.labels).mean())

    @property
    def majority(self) -> float:
        """How often always the same answer agrees with the network."""
        positive = float((self.tested.scores > 0).mean())
        return max(positive, 1 - positive)

    @property
    def likeness(self) -> float:
        """Mean cosine between the gradients of the images that the tree was learned from; 1 is one linear function."""
        total = self.learned.gradients.sum(axis=0)
        n = len(self.learned)
        return float((total @ total - n) / (n * (n - 1))) if n > 1 else 1.0


def category_tree(
    score: ScoreOfMaps,
    maps: LayerMaps,
    labels: ArrayLike,
    learn: ArrayLike,
    test: ArrayLike,
    *,
    leaves: int | None = None,
    settings: TreeSettings | None = None,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    quiet: bool = True,
) -> CategoryTree:
    """Learn the tree of a category, and test it on other images.

    Parameters
    ----------
    score : callable
        From maps to scores; see :func:`~cnn_interp.disentangling.linear_pieces.linear_pieces`.
    maps : LayerMaps
        Of all images.
    labels : array_like of bool, (n,)
        Which images are of the category.
    learn, test : array_like of int
        Numbers of the images to learn from, of which those of the category become leaves, and of those to test on.
    leaves : int, optional
        Learn from so many images at most, evenly spread.
    settings, device, checkpoint, quiet
        See :func:`~cnn_interp.disentangling.decision_tree.learn_tree`.

    Raises
    ------
    InputError
        If fewer than two images of the category are there to learn from, or the network does not know it.
    """
    of_category: NDArray[np.bool_] = np.asarray(labels, dtype=bool)
    given = np.asarray(learn, dtype=np.int64)
    rows = given[of_category[given]]
    other_rows = given[~of_category[given]]
    if len(rows) < 2:
        raise InputError(f"images of the category: {len(rows)} to learn from; expected at least 2")
    if leaves is not None and leaves < len(rows):
        rows = rows[np.arange(leaves) * len(rows) // leaves]
    tested_rows = np.asarray(test, dtype=np.int64)
    learned = linear_pieces(score, maps, rows, device=device, quiet=quiet)
    others = None
    if len(other_rows):
        others = linear_pieces(score, maps, other_rows, scale=learned.scale, device=device, quiet=quiet)
    tested = linear_pieces(score, maps, tested_rows, scale=learned.scale, device=device, quiet=quiet)
    tree = learn_tree(learned, settings, others=others, checkpoint=checkpoint, quiet=quiet)
    way = tree.descend(tested.gradients)
    tested_labels = of_category[tested_rows]
    return CategoryTree(
        tree,
        learned,
        tested,
        rows,
        tested_rows,
        tested_labels,
        way,
        fidelity(tree, tested, tested_labels, way=way),
        score_fidelity(_regressed(learned, tested), tested, tested_labels),
    )


def _regressed(learned: LinearPieces, tested: LinearPieces) -> Floats:
    from sklearn.linear_model import RidgeCV

    model = RidgeCV(np.logspace(-3, 6, 19)).fit(learned.responses, learned.scores)
    return np.asarray(model.predict(tested.responses), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class ContributionTest:
    """Contributions that were told, against what happens when filters are removed, on images of the category.

    Attributes
    ----------
    places : ndarray of int, (m,)
        Which of the tested images.
    drops : ndarray of float, (m, filters)
        By how much the score falls without each filter, over the length of the gradient.
    part_drops : ndarray of float, (m, parts)
        The same without all filters of each part.
    fitness : dict of str to float
        See :func:`~cnn_interp.disentangling.contributions.contribution_fitness`, by what told the contributions: a
        level (``level 2``), the image's own gradient, equal shares of the score.
    part_errors : dict of str to ndarray of float, (parts,)
        See :func:`~cnn_interp.disentangling.contributions.part_errors`; empty without parts.
    """

    places: Integers
    drops: Floats
    part_drops: Floats
    fitness: dict[str, float]
    part_errors: dict[str, Floats]


def contribution_test(
    found: CategoryTree,
    score: ScoreOfMaps,
    maps: LayerMaps,
    parts: FilterParts | None = None,
    *,
    images: int = 20,
    levels: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
    quiet: bool = True,
) -> ContributionTest:
    """Remove filters one by one, and parts' filters together, and compare with what the tree said they contribute.

    Parameters
    ----------
    found : CategoryTree
        With its tested images; those count that are of the category and that the network takes for it, or else all of
        the category.
    score, maps : callable, LayerMaps
        As the tree was learned from.
    parts : FilterParts, optional
        Of the filters.
    images : int
        So many at most, evenly spread.
    levels : sequence of int, optional
        Which levels; all by default.
    device, quiet
        Where to compute, and whether to show no progress bar.

    Raises
    ------
    InputError
        If no tested image counts.
    """
    right = np.flatnonzero(found.labels & (found.tested.scores > 0))
    if not len(right):
        raise InputError(
            "images of the category: the network takes none of those tested for it; expected some"
        )
    places = right[np.arange(min(images, len(right))) * len(right) // min(images, len(right))]
    rows = found.tested_rows[places]
    pieces = found.tested.subset(places)
    drops = score_drops(score, maps, rows, np.eye(maps.units, dtype=bool), device=device, quiet=quiet)
    drops /= pieces.lengths[:, None]
    part_drops = np.empty((len(places), 0))
    if parts is not None:
        part_drops = score_drops(score, maps, rows, parts.groups, device=device, quiet=quiet)
        part_drops /= pieces.lengths[:, None]
    told: dict[str, Floats] = {}
    for level in levels or range(1, found.way.shape[1] + 1):
        nodes = found.way[places, min(level, found.way.shape[1]) - 1]
        told[f"level {level}"] = found.tree.contributions(pieces.responses, nodes)
    told[OWN] = pieces.contributions
    active = pieces.responses != 0
    told[EQUAL] = active * (pieces.scores / np.maximum(active.sum(axis=1), 1))[:, None]
    errors: dict[str, Floats] = {}
    if parts is not None:
        errors = {
            name: part_errors(rho @ parts.groups.T, part_drops, pieces.scores) for name, rho in told.items()
        }
    return ContributionTest(
        places,
        drops,
        part_drops,
        {name: contribution_fitness(rho, drops) for name, rho in told.items()},
        errors,
    )


def mean_error(errors: Iterable[float]) -> float:
    """Return the mean over parts; NaN without any."""
    values = np.array(list(errors), dtype=np.float64)
    return float(values.mean()) if len(values) else float("nan")
