"""What choosing by prediction does to predictions: their bias, seen out of fold, and how sure it is.

Sites that are chosen because a model puts them into a window are no fair sample: where the model errs, it errs in
favour of what was chosen (the winner's curse). The residuals of sites whose slabs the model did not see tell how far
energies lie from predictions of any given size. That bias is estimated as a smooth function of the prediction, shrunk
to what the data support, and taken off before anything is ranked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from catalysis.energies.protocol import Prediction
from catalysis.energies.teacher import Teacher
from catalysis.studies.atoms import training_influence
from interpretkit.errors import InputError

_NODES = 25
_SCALES = np.concatenate([[0.0], np.geomspace(0.02, 2.0, 13)])
"""How large the bias may be, in standard deviations of the residuals, one as likely as the other; none among them."""


@dataclass(frozen=True, eq=False)
class MeanBias:
    """By how much energies lie above their predictions, as a function of the prediction.

    Attributes
    ----------
    nodes_ev
        Predictions at which it is tabulated, ascending, (k,).
    bias_ev, deviation_ev
        The bias and its standard deviation there, in eV, (k,).
    n
        Sites that told it.
    """

    nodes_ev: np.ndarray
    bias_ev: np.ndarray
    deviation_ev: np.ndarray
    n: int

    def at(self, mean_ev: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Return bias and its standard deviation at some predictions, in eV; beyond the nodes, those of the last."""
        return (
            np.asarray(np.interp(mean_ev, self.nodes_ev, self.bias_ev)),
            np.asarray(np.interp(mean_ev, self.nodes_ev, self.deviation_ev)),
        )

    def corrected(self, judged: Prediction) -> Prediction:
        """Return predictions without the bias, their deviations widened by what is not known of it."""
        bias, deviation = self.at(judged.mean_ev)
        return Prediction(judged.mean_ev + bias, np.hypot(judged.std_ev, deviation))


NO_BIAS = MeanBias(np.zeros(1), np.zeros(1), np.zeros(1), 0)
"""Where nothing is known of it."""


def mean_bias(
    predicted_ev: np.ndarray, residual_ev: np.ndarray, deviation_ev: np.ndarray, groups: Sequence[str]
) -> MeanBias:
    """Estimate the bias of predictions for sites that the model has not seen.

    A Gaussian process over the prediction, averaged over how large the bias may be, weighed by marginal likelihood:
    where the residuals say nothing of it, it is near zero and its deviation tells how near. Its length is the spread of
    the predictions. Residuals of one group go together as much as they are seen to.

    Parameters
    ----------
    predicted_ev, residual_ev
        Predictions, and energies less predictions, in eV, (n,).
    deviation_ev
        Standard deviations of the predictions, (n,).
    groups
        Of the sites, such as their slabs, (n,).

    Raises
    ------
    InputError
        If there are fewer than ten sites.
    """
    n = len(predicted_ev)
    if n < 10:
        raise InputError(f"predicted_ev: {n} predictions; expected at least 10")
    length = max(float(np.std(predicted_ev)), 1e-6)
    scale = float(np.sqrt(np.mean(np.square(residual_ev))))
    nodes = np.linspace(predicted_ev.min() - length, predicted_ev.max() + length, _NODES)
    if scale == 0:
        return MeanBias(nodes, np.zeros(_NODES), np.zeros(_NODES), n)
    # A process on the nodes, interpolated between them.
    prior = np.exp(-0.5 * ((nodes[:, None] - nodes) / length) ** 2)
    place = np.clip(np.searchsorted(nodes, predicted_ev) - 1, 0, _NODES - 2)
    share = (predicted_ev - nodes[place]) / (nodes[1] - nodes[0])
    basis = np.zeros((n, _NODES))
    basis[np.arange(n), place], basis[np.arange(n), place + 1] = 1 - share, share
    # Residuals are whitened: within a group they are alike by a common part.
    index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
    z = residual_ev / deviation_ev
    size = float(np.mean(np.square(z)))
    together = _common_part(z, index, size)
    count = np.bincount(index)
    shrink = 1 - np.sqrt((1 - together) / (1 - together + together * count))

    def white(columns: np.ndarray) -> np.ndarray:
        scaled = columns / deviation_ev[:, None]
        means = np.zeros((len(count), columns.shape[1]))
        np.add.at(means, index, scaled)
        return (scaled - (shrink / count)[index, None] * means[index]) / np.sqrt(size * (1 - together))

    x, y = white(basis), white(residual_ev[:, None])[:, 0]
    gram, right = x.T @ x, x.T @ y
    weights, means, variances = [], [], []
    for multiple in _SCALES:
        covariance = prior * (multiple * scale) ** 2
        inner = np.eye(_NODES) + covariance @ gram
        posterior = np.linalg.solve(inner, covariance)
        mean = posterior @ right
        # What a bias explains of the whitened residuals, less what its freedom costs.
        weights.append(0.5 * right @ mean - 0.5 * np.linalg.slogdet(inner)[1])
        means.append(mean)
        variances.append(np.maximum(np.diag(posterior), 0))
    weight = np.exp(np.array(weights) - logsumexp(weights))
    mean = weight @ np.array(means)
    variance = weight @ (np.array(variances) + (np.array(means) - mean) ** 2)
    return MeanBias(nodes, mean, np.sqrt(variance), n)


def _common_part(z: np.ndarray, index: np.ndarray, size: float) -> float:
    """Return the correlation of residuals of one group, 0 to 0.9."""
    count = np.bincount(index)
    sums, squares = np.bincount(index, z), np.bincount(index, z * z)
    pairs = float((count * (count - 1)).sum())
    if pairs == 0:
        return 0.0
    return float(np.clip((sums**2 - squares).sum() / pairs / size, 0.0, 0.9))


def teacher_bias(teacher: Teacher, slabs: Sequence[str]) -> MeanBias:
    """Return the bias of a teacher's means, each of its training sites predicted without the sites of its slab.

    Parameters
    ----------
    teacher
        Trained on at most 3000 sites; of one that spans more, nothing can be said without training anew.
    slabs
        Of its training sites, in their order.
    """
    if any(member.left is not None for member in teacher.members) or len(set(slabs)) < 2:
        return NO_BIAS
    seen = training_influence(teacher, slabs, ())
    return mean_bias(teacher.energies - seen.residual_ev, seen.residual_ev, seen.deviation_ev, slabs)
