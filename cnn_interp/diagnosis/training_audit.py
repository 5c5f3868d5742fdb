"""A training set questioned: which images made the worst predictions, and which are probably mislabelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cnn_interp.diagnosis.influence import Influence, influence, self_influence
from cnn_interp.diagnosis.linear_head import Scaling, fit_head, leave_one_out, rank_correlations
from cnn_interp.diagnosis.mislabels import falsify
from interpretkit.training import numpy_generator


@dataclass(frozen=True)
class LabelledFeatures:
    """Images as a linear classifier takes them and as people see them.

    Attributes
    ----------
    features : ndarray of float, (n, d)
        What it takes.
    labels : ndarray of int, (n,)
        From 0.
    names : sequence of str, (n,)
        What the images are called.
    pictures : sequence of ndarray of uint8, (h, w) or (h, w, 3)
        Small.
    """

    features: NDArray[np.floating]
    labels: NDArray[np.integer]
    names: Sequence[str]
    pictures: Sequence[NDArray[np.uint8]]

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, rows: NDArray[np.integer]) -> LabelledFeatures:
        """Return some of the images."""
        return LabelledFeatures(
            self.features[rows],
            self.labels[rows],
            [self.names[int(row)] for row in rows],
            [self.pictures[int(row)] for row in rows],
        )


@dataclass(frozen=True)
class TrainingAudit:
    """What a linear classifier owes to the images that it was trained on.

    Attributes
    ----------
    train, test : LabelledFeatures
        The n training images, with the labels that were trained on, and the test images.
    falsified : ndarray of bool, (n,)
        Whose label was falsified beforehand.
    said, test_said : ndarray of int
        What the classifier says of the training and of the test images.
    loss : ndarray, (n,)
        Losses of the training images.
    suspicion : ndarray, (n,)
        Their self-influence.
    explained : ndarray of int, (q,)
        The test images of most loss, the worst first.
    influence : Influence
        Influence of the training images on the losses of those.
    predicted, measured : ndarray, (q, m)
        The changes of those losses when each of m training images is left out; m may be 0.
    """

    train: LabelledFeatures
    test: LabelledFeatures
    falsified: NDArray[np.bool_]
    said: NDArray[np.integer]
    test_said: NDArray[np.integer]
    loss: NDArray[np.floating]
    suspicion: NDArray[np.floating]
    explained: NDArray[np.intp]
    influence: Influence
    predicted: NDArray[np.floating]
    measured: NDArray[np.floating]

    @property
    def accuracy(self) -> float:
        """The share of the test images that the classifier has right."""
        return float((self.test_said == self.test.labels).mean())

    @property
    def order(self) -> NDArray[np.intp]:
        """The training images ``(n,)``, the most suspect first."""
        return np.argsort(-self.suspicion, kind="stable")

    @property
    def correlation(self) -> float | None:
        """The mean rank correlation of predicted and measured changes; None if none were measured."""
        if not self.measured.shape[1]:
            return None
        return float(np.mean(rank_correlations(self.predicted, self.measured)))


def audit_training(
    train: LabelledFeatures,
    test: LabelledFeatures,
    *,
    classes: int,
    flip: float = 0.0,
    l2: float = 0.01,
    questions: int = 5,
    leave_out: int = 40,
    seed: int = 0,
    quiet: bool = True,
) -> TrainingAudit:
    """Train a linear classifier and ask by influence functions what each training image did to it.

    Follows Koh and Liang (ICML 2017); see :mod:`cnn_interp.diagnosis.influence`.

    Parameters
    ----------
    train, test : LabelledFeatures
        To train and to test on.
    classes : int
        How many labels there are.
    flip : float
        The share of the training labels to falsify at random beforehand, to see whether they are found.
    l2 : float
        Penalty on the classifier's weights, above 0.
    questions : int
        How many test images to explain, those of most loss.
    leave_out : int
        How many training images to leave out one by one, training again, as a check of the predictions.
    seed : int
        Seed of the falsified labels and of the images left out.
    quiet : bool
        Show no progress.

    Returns
    -------
    TrainingAudit
    """
    labels, falsified = falsify(train.labels, classes, flip, seed=seed)
    scaling = Scaling.of(train.features)
    features, unseen = scaling(train.features), scaling(test.features)
    head = fit_head(features, labels, classes=classes, l2=l2)
    risk = head.risk(features, labels)
    suspicion = self_influence(risk, quiet=quiet)
    explained = np.argsort(-head.losses(unseen, test.labels), kind="stable")[:questions]
    wanted = head.risk(unseen[explained], test.labels[explained])
    found = influence(risk, wanted.inputs, wanted.targets)
    predicted = measured = np.zeros((len(explained), 0))
    if leave_out:
        rows = numpy_generator(seed, "left out").permutation(len(labels))[:leave_out]
        measured = leave_one_out(
            head, features, labels, rows, unseen[explained], test.labels[explained], quiet=quiet
        )
        predicted = found.removal[:, rows]
    return TrainingAudit(
        train=replace(train, labels=labels),
        test=test,
        falsified=falsified,
        said=head.logits(features).argmax(1),
        test_said=head.logits(unseen).argmax(1),
        loss=head.losses(features, labels),
        suspicion=suspicion,
        explained=explained,
        influence=found,
        predicted=predicted,
        measured=measured,
    )
