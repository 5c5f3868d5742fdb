"""What an energy model has to be able to do, for whoever trains, measures or uses one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, Self

import numpy as np

from catalysis.structure.occupations import Occupations
from catalysis.structure.sites import Site


class Prediction(NamedTuple):
    """Energies in eV: means (n,) and standard deviations (n,)."""

    mean_ev: np.ndarray
    std_ev: np.ndarray


class EnergyModel(Protocol):
    """What trains on sites and predicts their adsorption energies.

    It may serve wherever a teacher does: `catalysis.vae` has decorations labelled by one, `catalysis.models` measures
    one, `catalysis.studies` rank by one.

    Attributes
    ----------
    geometry : {"ideal", "relaxed"}
        Whether it looks at class and elements only, or at relaxed positions as well.
    elements : tuple of str
        The metals that it was trained on.
    """

    geometry: Literal["ideal", "relaxed"]

    @property
    def elements(self) -> tuple[str, ...]:
        """The metals that it was trained on."""
        ...

    def fit(
        self,
        sites: Sequence[Site],
        energies_ev: np.ndarray | None = None,
        groups: Sequence[str] | None = None,
    ) -> Self:
        """Train, and return the model itself.

        Parameters
        ----------
        sites : sequence of Site
            Of one adsorbate, (n,).
        energies_ev : ndarray, optional
            In eV, shape (n,); by default the sites' own.
        groups : sequence of str, optional
            Sites of one group are relatives, (n,); by default those of one slab.
        """
        ...

    def predict(self, sites: Sequence[Site]) -> Prediction:
        """Return mean and standard deviation for each site, in eV."""
        ...

    def predict_occupations(self, data: Occupations) -> Prediction:
        """Return mean and standard deviation in eV for sites that are no more than elements in slots."""
        ...

    def predict_mean(self, data: Occupations) -> np.ndarray:
        """Return the means alone, in eV, shape (n,): what is asked for by the hundred thousand."""
        ...
