"""A classifier on a frozen network's features: convex, so that it can be trained, and trained again, to the minimum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import minimize
from scipy.special import log_softmax
from scipy.stats import spearmanr
from torch import nn

from cnn_interp.diagnosis.influence import Risk, cross_entropy
from cnn_interp.networks.network import Network
from interpretkit.errors import InputError
from interpretkit.runs.progress import progress, track

DEFAULT_L2 = 0.01
# So far from their mean are scaled features typically; the default penalty is chosen for it.
TYPICAL_LENGTH = 5.0


@dataclass(frozen=True)
class Head:
    """Logistic regression on features, the mean cross-entropy + l2/2 · ‖weights and biases‖² being minimal.

    Attributes
    ----------
    weights : ndarray of float, (classes, d + 1)
        The last column holds the biases.
    l2 : float
        The penalty's weight.
    gradient : float
        The largest component of the objective's gradient that is left.
    """

    weights: NDArray[np.float64]
    l2: float
    gradient: float

    def module(self) -> nn.Linear:
        """Return the head as a layer in double precision, from features ``(n, d)`` to logits ``(n, classes)``."""
        weights = torch.from_numpy(self.weights)
        # Drawing the weights that are replaced would move the caller's random numbers.
        with torch.random.fork_rng(), torch.no_grad():
            layer = nn.Linear(weights.shape[1] - 1, weights.shape[0], dtype=torch.float64)
            layer.weight.copy_(weights[:, :-1])
            layer.bias.copy_(weights[:, -1])
        return layer.eval()

    def logits(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the logits ``(n, classes)`` of features ``(n, d)``."""
        return features @ self.weights[:, :-1].T + self.weights[:, -1]

    def losses(self, features: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return the cross-entropy ``(n,)`` of features ``(n, d)`` with labels ``(n,)``."""
        return -log_softmax(self.logits(features), axis=1)[np.arange(len(labels)), labels]

    def risk(self, features: NDArray[np.floating], labels: NDArray[np.integer]) -> Risk:
        """Return the head with its training data as :func:`~cnn_interp.diagnosis.influence.influence` takes it."""
        inputs = torch.from_numpy(np.asarray(features, dtype=np.float64))
        targets = torch.from_numpy(np.asarray(labels, dtype=np.int64))
        return Risk(self.module(), inputs, targets, cross_entropy, l2=self.l2, batch_size=4096)


def fit_head(
    features: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    classes: int | None = None,
    l2: float = DEFAULT_L2,
    left_out: int | None = None,
    start: Head | None = None,
    offset: NDArray[np.floating] | None = None,
) -> Head:
    """Train a head to convergence by L-BFGS in double precision.

    Parameters
    ----------
    features : ndarray of float, (n, d)
        The features.
    labels : ndarray of int, (n,)
        Classes, from 0.
    classes : int, optional
        How many there are; by default one more than the largest label.
    l2 : float
        Weight of the penalty, above 0, which makes the minimum unique.
    left_out : int, optional
        A training example whose loss does not count. The others keep their weight of 1/n, as in the definition of
        its influence.
    start : Head, optional
        Where to begin.
    offset : ndarray of float, (n, classes), optional
        Added to the logits and left as it is, such as those of another head, of which this one is then a correction.

    Raises
    ------
    InputError
        If the shapes do not fit, `l2` is not above 0, or a value is not finite.
    """
    features = np.asarray(features, dtype=np.float64)
    labels = np.asarray(labels)
    if features.ndim != 2 or labels.shape != (len(features),) or len(features) == 0:
        raise InputError(f"features {features.shape}, labels {labels.shape}: expected (n, d) and (n,)")
    if l2 <= 0:
        raise InputError(f"l2 {l2}: expected above 0, for the minimum is not unique without it")
    if not np.isfinite(features).all():
        raise InputError("features: hold NaN or infinite values; expected finite ones")
    count = int(labels.max()) + 1 if classes is None else classes
    n = len(features)
    keep = np.arange(n) != (-1 if left_out is None else left_out)
    rows = np.concatenate([features[keep], np.ones((int(keep.sum()), 1))], axis=1)
    wanted = np.eye(count)[labels[keep]]
    shape = (count, rows.shape[1])
    if offset is not None and np.shape(offset) != (n, count):
        raise InputError(f"offset {np.shape(offset)}: expected ({n}, {count}), logits of all examples")
    given = 0.0 if offset is None else np.asarray(offset, dtype=np.float64)[keep]

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(shape)
        logarithms = log_softmax(rows @ weights.T + given, axis=1)
        value = -(wanted * logarithms).sum() / n + 0.5 * l2 * (flat @ flat)
        slope = (np.exp(logarithms) - wanted).T @ rows / n + l2 * weights
        return float(value), slope.ravel()

    first = np.zeros(shape).ravel() if start is None else start.weights.ravel()
    found = minimize(
        objective,
        first,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 20000, "ftol": 0.0, "gtol": 1e-9, "maxcor": 20},
    )
    return Head(found.x.reshape(shape), l2, float(np.abs(found.jac).max()))


def leave_one_out(
    head: Head,
    features: NDArray[np.floating],
    labels: NDArray[np.integer],
    rows: Sequence[int] | NDArray[np.integer],
    test_features: NDArray[np.floating],
    test_labels: NDArray[np.integer],
    *,
    quiet: bool = True,
) -> NDArray[np.float64]:
    """Train again without each of some training examples, and return how the test losses change.

    Parameters
    ----------
    head : Head
        Trained on all of `features`.
    features, labels : ndarray, (n, d) and (n,)
        The training examples.
    rows : sequence of int, (r,)
        Those to leave out, one at a time.
    test_features, test_labels : ndarray, (m, d) and (m,)
        The test examples.
    quiet : bool
        Show no progress.

    Returns
    -------
    ndarray of float, (m, r)
    """
    before = head.losses(test_features, test_labels)
    changes = []
    for row in track(rows, "Training again without one example", quiet=quiet):
        again = fit_head(
            features, labels, classes=len(head.weights), l2=head.l2, left_out=int(row), start=head
        )
        changes.append(again.losses(test_features, test_labels) - before)
    return np.stack(changes, axis=1)


def rank_correlations(predicted: NDArray[np.floating], measured: NDArray[np.floating]) -> list[float]:
    """Return Spearman's rank correlation of each row of predictions ``(m, r)`` with that of measurements ``(m, r)``."""
    pairs = zip(predicted, measured, strict=True)
    return [float(spearmanr(one, other)[0]) for one, other in pairs]  # type: ignore[arg-type]


@dataclass(frozen=True)
class Scaling:
    """Brings features to a common scale, so that one penalty suits every network.

    Attributes
    ----------
    mean : ndarray of float, (d,)
        Subtracted from the features.
    length : float
        By which they are divided then, so that their typical distance from the mean is ``TYPICAL_LENGTH``.
    """

    mean: NDArray[np.float64]
    length: float

    @classmethod
    def of(cls, features: NDArray[np.floating]) -> Scaling:
        """Return the scaling that features ``(n, d)`` of the training examples ask for."""
        features = np.asarray(features, dtype=np.float64)
        mean = features.mean(0)
        spread = float(np.sqrt(np.square(features - mean).sum(1).mean()))
        return cls(mean, spread / TYPICAL_LENGTH if spread > 0 else 1.0)

    def __call__(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return features ``(n, d)`` on the common scale."""
        return (np.asarray(features, dtype=np.float64) - self.mean) / self.length


def penultimate_features(
    network: Network, images: Sequence[Image.Image], *, batch_size: int = 32, quiet: bool = True
) -> NDArray[np.float32]:
    """Return what a pretrained network's last linear layer is given, ``(n, d)``.

    Parameters
    ----------
    network : Network
        Whose outputs come from a linear layer.
    images : sequence of images
        Images of any size.
    batch_size : int
        Images that go through it at once.
    quiet : bool
        Show no progress.

    Raises
    ------
    InputError
        If the network has no linear layer that runs.
    """
    from interpretkit.networks.instrumentation import instrumented

    seen: list[torch.Tensor] = []
    linear = [module for module in network.module.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise InputError(
            f"network {network.name!r}: has no linear layer; expected one that classifies by such"
        )

    def keep(_: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        seen[:] = [given[0].detach().flatten(1).float().cpu()]

    rows = []
    handles = [module.register_forward_pre_hook(keep) for module in linear]
    try:
        with (
            instrumented(network.module, 0),
            torch.no_grad(),
            progress("Features", len(images), quiet=quiet) as bar,
        ):
            for start in range(0, len(images), batch_size):
                some = images[start : start + batch_size]
                network.module(network.prepare(some))
                if not seen:
                    raise InputError(f"network {network.name!r}: none of its linear layers runs")
                rows.append(seen[0].numpy())
                bar.advance(len(some))
    finally:
        for handle in handles:
            handle.remove()
    return np.concatenate(rows)
