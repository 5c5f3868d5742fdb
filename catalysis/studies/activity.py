"""What makes a site a good one: a window of adsorption energies, or a volcano, and their expected values.

An activity model says what a site is worth whose energy is known as a mean with a standard deviation. A new one is a
function, and an entry of `ACTIVITIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, ndtr

from interpretkit.errors import InputError

BOLTZMANN_EV = 8.617333262e-5
"""In eV per kelvin (CODATA 2018)."""


@dataclass(frozen=True)
class Target:
    """A window of wanted energies, in eV."""

    energy_ev: float
    window_ev: float

    def __post_init__(self) -> None:
        if not np.isfinite(self.energy_ev):
            raise InputError(f"--target-ev: {self.energy_ev}; expected a finite energy in eV")
        if not (np.isfinite(self.window_ev) and self.window_ev > 0):
            raise InputError(f"--window-ev: {self.window_ev}; expected a half-width above 0 eV")

    @property
    def low(self) -> float:
        """The lower edge in eV."""
        return self.energy_ev - self.window_ev

    @property
    def high(self) -> float:
        """The upper edge in eV."""
        return self.energy_ev + self.window_ev

    def holds(self, energies: np.ndarray) -> np.ndarray:
        """Tell which energies (n,) lie in the window."""
        return (energies >= self.low) & (energies <= self.high)

    def probability(self, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
        """Return the probability (n,) that normally distributed energies lie in the window."""
        deviation = np.maximum(deviation, 1e-6)
        return ndtr((self.high - mean) / deviation) - ndtr((self.low - mean) / deviation)


ActivityModel = Callable[[Target, float, np.ndarray, np.ndarray], np.ndarray]
"""From a target, a temperature in K, means and standard deviations in eV (n,) to the expected activity (n,), 0 to 1."""


def window_share(
    target: Target, temperature_k: float, mean_ev: np.ndarray, deviation_ev: np.ndarray
) -> np.ndarray:
    """Return the probability that the energy lies in the window; averaged over sites, the share of good sites."""
    del temperature_k
    return target.probability(mean_ev, deviation_ev)


def sabatier(
    target: Target, temperature_k: float, mean_ev: np.ndarray, deviation_ev: np.ndarray
) -> np.ndarray:
    """Return the expected rate relative to a site at the top of a Sabatier volcano, exp(−|E − target| / kT).

    Of two steps, one is limited by too strong and one by too weak adsorption, with barriers that rise by one eV per eV
    (Nørskov et al., J. Phys. Chem. B 108, 17886 (2004)). The width of the window plays no part.
    """
    width = BOLTZMANN_EV * temperature_k
    deviation = np.maximum(deviation_ev, 1e-6)
    off = mean_ev - target.energy_ev
    # The mean of exp(−|x|/s) over a normal distribution: two half-lines, each a shifted normal one.
    spread, reach = deviation / width, off / deviation
    rising = 0.5 * spread**2 + off / width + log_ndtr(-reach - spread)
    falling = 0.5 * spread**2 - off / width + log_ndtr(reach - spread)
    return np.exp(rising) + np.exp(falling)


@dataclass(frozen=True)
class Activity:
    """An entry of `ACTIVITIES`.

    Attributes
    ----------
    model
        The function.
    name
        What its mean over sites is called.
    uses_window, uses_temperature
        Whether it depends on the window's width, and on the temperature.
    """

    model: ActivityModel
    name: str
    uses_window: bool = False
    uses_temperature: bool = False


ACTIVITIES: Mapping[str, Activity] = {
    "window": Activity(window_share, "share of sites in the window", uses_window=True),
    "sabatier": Activity(sabatier, "mean rate relative to the best site", uses_temperature=True),
}
"""The activity models, by the name that the commands know them by."""


@dataclass(frozen=True)
class Goal:
    """What is wanted of sites: an activity model with its target.

    Attributes
    ----------
    target
        The window; of a volcano, its top.
    activity
        A key of `ACTIVITIES`.
    temperature_k
        In K.
    """

    target: Target
    activity: str = "window"
    temperature_k: float = 300.0

    def __post_init__(self) -> None:
        if self.activity not in ACTIVITIES:
            raise InputError(f"--activity {self.activity!r}: expected one of {', '.join(ACTIVITIES)}")
        if not (np.isfinite(self.temperature_k) and self.temperature_k > 0):
            raise InputError(f"--temperature: {self.temperature_k}; expected kelvins above 0")

    def __call__(self, mean_ev: np.ndarray, deviation_ev: np.ndarray | float) -> np.ndarray:
        """Return the expected activity of sites whose energies are normally distributed, same shape as the means."""
        mean = np.asarray(mean_ev, dtype=float)
        deviation = np.broadcast_to(np.asarray(deviation_ev, dtype=float), mean.shape)
        return ACTIVITIES[self.activity].model(self.target, self.temperature_k, mean, deviation)

    @property
    def name(self) -> str:
        """What the mean over sites is called."""
        return ACTIVITIES[self.activity].name
