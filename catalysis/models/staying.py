"""Whether an adsorbate stays where it is put, or leaves for another site when it is relaxed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from sklearn.metrics import roc_auc_score

from catalysis.energies.teacher import Teacher
from catalysis.structure.occupations import Occupations, occupations
from catalysis.structure.sites import Site
from interpretkit.errors import InputError

_LEAST = 0.01  # no site is given up for certain


class StayingClassifier:
    """Classifier of sites by class and elements: 1 where the adsorbate stays, 0 where it leaves.

    Least-squares classification (Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, section 6.5): the
    Gaussian processes of the teacher, fitted to the labels.

    Parameters
    ----------
    seed : int
        As for `catalysis.energies.teacher.Teacher`.
    """

    def __init__(self, seed: int = 0) -> None:
        self.regression = Teacher(seed=seed)

    def fit(self, sites: Sequence[Site], stays: np.ndarray) -> Self:
        """Train.

        Parameters
        ----------
        sites : sequence of Site
            At least 20 with one adsorbate, (n,).
        stays : ndarray
            Which of them the adsorbate stayed on, bool, (n,); both must occur.

        Raises
        ------
        InputError
            If the adsorbate stayed on all of them or on none, and as
            `catalysis.energies.training_data.check_training_data`.
        """
        labels = np.asarray(stays, bool)
        if labels.all() or not labels.any():
            raise InputError(f"stays: all are {bool(labels.all())}; expected sites of both kinds")
        self.regression.fit(sites, labels.astype(float))
        return self

    def decision_function(self, data: Occupations) -> np.ndarray:
        """Return a score that is the larger the likelier the adsorbate stays, (n,)."""
        return self.regression.predict_mean(data)

    def predict_probability(self, data: Occupations) -> np.ndarray:
        """Return the probability that the adsorbate stays on each site, between 0.01 and 1, (n,)."""
        return np.clip(self.decision_function(data), _LEAST, 1.0)

    def save(self, path: str | Path) -> None:
        """Write the classifier to one safetensors file."""
        self.regression.save(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a classifier that `save` wrote.

        Raises
        ------
        InputError
            If the file is missing, damaged, or something else.
        """
        found = cls()
        found.regression = Teacher.load(path)
        return found


def area_under_curve(
    sites: Sequence[Site], stays: np.ndarray, train: np.ndarray, test: np.ndarray, seed: int = 0
) -> float:
    """Return the area under the receiver operating characteristic of a classifier on sites that it has not seen.

    Parameters
    ----------
    sites : sequence of Site
        All of them, (n,).
    stays : ndarray
        Which of them the adsorbate stayed on, bool, (n,).
    train, test : ndarray
        Which to learn from and which to measure on, bool, (n,) each.
    seed : int
        As for `StayingClassifier`.

    Returns
    -------
    float
        NaN where the sites to learn from, or those to measure on, are all of one kind.
    """
    if any(len(np.unique(stays[part])) < 2 for part in (train, test)):
        return float("nan")
    model = StayingClassifier(seed).fit([sites[k] for k in np.flatnonzero(train).tolist()], stays[train])
    unseen = occupations([sites[k] for k in np.flatnonzero(test).tolist()])
    return float(roc_auc_score(stays[test], model.decision_function(unseen)))
