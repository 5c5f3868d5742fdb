"""How far each level of a decision tree says what the network says."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnn_interp.disentangling.decision_tree import DecisionTree, Integers
from cnn_interp.disentangling.linear_pieces import Floats, LinearPieces


@dataclass(frozen=True)
class Fidelity:
    """How far a level of a tree says what the network says.

    Attributes
    ----------
    level : int
        1 is the root, which is one rationale for all images.
    nodes : int
        How many nodes of it the images came to.
    agreement : float
        Share of images that it takes for the category, or not, as the network does.
    agreement_positive, agreement_negative : float
        Of those that the network takes for the category, and of those that it does not; NaN where there are none.
    accuracy : float
        Share that it takes for the category, or not, rightly; NaN without labels.
    error : float
        Mean absolute difference of scores over the range of the network's.
    explained : float
        R² of its scores: 1 if they are the network's, 0 if as far off as the network's mean.
    """

    level: int
    nodes: int
    agreement: float
    agreement_positive: float
    agreement_negative: float
    accuracy: float
    error: float
    explained: float


def fidelity(
    tree: DecisionTree, pieces: LinearPieces, labels: ArrayLike | None = None, *, way: Integers | None = None
) -> list[Fidelity]:
    """Return how well each level of a tree gives back a network's scores, the root's first and the leaves' last.

    Parameters
    ----------
    tree : DecisionTree
        The tree.
    pieces : LinearPieces
        Of images, best such as the tree was not learned from; with the tree's scale.
    labels : array_like of bool, (n,), optional
        Which images are of the category.
    way : ndarray of int, (n, depth), optional
        As :meth:`DecisionTree.descend` gives it for these images.
    """
    nodes = tree.descend(pieces.gradients) if way is None else way
    found = []
    for level in range(nodes.shape[1]):
        told = tree.scores(pieces.responses, nodes[:, level])
        found.append(
            replace(
                score_fidelity(told, pieces, labels),
                level=level + 1,
                nodes=len(np.unique(nodes[:, level])),
            )
        )
    return found


def score_fidelity(told: Floats, pieces: LinearPieces, labels: ArrayLike | None = None) -> Fidelity:
    """Return how well scores ``(n,)``, of whatever simpler model, give back a network's."""
    same = (told > 0) == (pieces.scores > 0)
    positive = pieces.scores > 0
    span = float(np.ptp(pieces.scores))
    spread = float(np.square(pieces.scores - pieces.scores.mean()).sum())
    return Fidelity(
        level=0,
        nodes=1,
        agreement=float(same.mean()),
        agreement_positive=_share(same[positive]),
        agreement_negative=_share(same[~positive]),
        accuracy=float("nan") if labels is None else _share((told > 0) == np.asarray(labels, dtype=bool)),
        error=float(np.abs(told - pieces.scores).mean()) / span if span > 0 else float("nan"),
        explained=1 - float(np.square(told - pieces.scores).sum()) / spread if spread > 0 else float("nan"),
    )


def _share(right: NDArray[np.bool_]) -> float:
    return float(right.mean()) if len(right) else float("nan")
