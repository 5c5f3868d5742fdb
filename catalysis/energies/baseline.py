"""The yardstick of energy models: class and contact elements, linear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.preprocessing import OneHotEncoder

from catalysis.energies.protocol import Prediction
from catalysis.energies.training_data import check_training_data
from catalysis.structure.occupations import Occupations, occupations
from catalysis.structure.sites import Site


class LinearBaseline:
    """Class plus contact elements, linear: an `EnergyModel` that every other one is measured against.

    Features are the class (one-hot) and the unordered elements of the contacts (one-hot); least squares with a
    small ridge to make it unique. Unseen classes or pairs fall back on what is seen of the other.

    Parameters
    ----------
    ridge : float
        Weight of the squared coefficients, beside squared errors in eV².
    """

    geometry: Literal["ideal", "relaxed"] = "ideal"

    def __init__(self, ridge: float = 1e-3) -> None:
        self.encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        self.model = Ridge(ridge, fit_intercept=False, solver="cholesky")
        self.elements: tuple[str, ...] = ()

    def fit(
        self,
        sites: Sequence[Site],
        energies_ev: np.ndarray | None = None,
        groups: Sequence[str] | None = None,
    ) -> Self:
        """Train; see `check_training_data` for what is refused. Groups play no part."""
        del groups
        energies = check_training_data(sites, energies_ev)
        data = occupations(sites)
        self.elements, self.mean = data.elements, float(energies.mean())
        x = self.encoder.fit_transform(_class_and_contacts(data))
        self.model.fit(x, energies - self.mean)
        self.residual = float(np.std(energies - self.mean - self.model.predict(x)))
        return self

    def predict(self, sites: Sequence[Site]) -> Prediction:
        """Return means and the (constant) residual standard deviation of the training, in eV, (n,) each."""
        return self.predict_occupations(occupations(sites))

    def predict_occupations(self, data: Occupations) -> Prediction:
        """Return the same for occupations of templates."""
        return Prediction(self.predict_mean(data), np.full(len(data), self.residual))

    def predict_mean(self, data: Occupations) -> np.ndarray:
        """Return the means alone, in eV, shape (n,)."""
        return self.mean + self.model.predict(self.encoder.transform(_class_and_contacts(data)))


def _class_and_contacts(data: Occupations) -> np.ndarray:
    classes = np.array([geometry.site_class for geometry in data.geometries], dtype=object)
    return np.column_stack([classes[data.geometry], np.array(data.contact_elements, dtype=object)])
