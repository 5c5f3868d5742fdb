"""Designs judged anew by an interatomic potential: how far energies lie from what was predicted, and in which order.

A potential has a zero of its own. Where the data's zero is not known to be the same, sites of the data are put into
slabs and judged as well: what the potential says of them, less their known energies, is the shift between both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from scipy.stats import t

from catalysis.models.site_model import SiteModel
from catalysis.potentials.labelling import label_structures
from catalysis.structure.host_slabs import Host, host_site
from catalysis.studies.activity import Target
from catalysis.studies.atoms import rank_correlation
from catalysis.studies.design import Design
from interpretkit.errors import InputError

_RESAMPLES = 2000
_FEWEST_RANKED = 10


@dataclass(frozen=True, eq=False)
class Interval:
    """A number with its 95 % interval; NaN where too little is known."""

    value: float
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True, eq=False)
class Verification:
    """What an interatomic potential says of designs.

    Attributes
    ----------
    designs : list of Design
        Those that were judged, in their order, (n,).
    energy_ev : ndarray
        By the potential on the data's zero, (n,); of the relaxed adsorbate, wherever it ended.
    ends_as : list of str
        The kind of site on which each adsorbate ended.
    stayed : ndarray
        Which of them stayed on their site and came to rest, (n,).
    shift : Interval
        The potential's zero less that of the data, in eV; 0 where both are the same.
    target : Target
        The window.
    frames : list of Atoms
        The slabs with the relaxed adsorbates, the energy in `info`.
    """

    designs: list[Design]
    energy_ev: np.ndarray
    ends_as: list[str]
    stayed: np.ndarray
    shift: Interval
    target: Target
    frames: list[Atoms]

    @property
    def predicted_ev(self) -> np.ndarray:
        """What the teacher predicted, (n,)."""
        return np.array([design.energy_ev for design in self.designs])

    @property
    def deviation_ev(self) -> np.ndarray:
        """The standard deviation of each prediction, (n,)."""
        return np.array([design.deviation_ev for design in self.designs])

    @property
    def hits(self) -> np.ndarray:
        """Which designs keep their adsorbate and lie in the window, (n,)."""
        return self.stayed & self.target.holds(self.energy_ev)

    @property
    def bias(self) -> Interval:
        """The mean of the potential's energies less the predicted ones, in eV, of the designs that stayed.

        Its interval holds the uncertainty of the shift as well.
        """
        gaps = (self.energy_ev - self.predicted_ev)[self.stayed]
        found = mean_of(gaps)
        extra = (self.shift.high - self.shift.low) / 2 if np.isfinite(self.shift.low) else 0.0
        half = float(np.hypot((found.high - found.low) / 2, extra))
        return Interval(found.value, found.value - half, found.value + half)

    @property
    def spread(self) -> float:
        """Root mean square of residuals over predicted deviations, their mean taken off; 1 if these are right."""
        gaps = (self.energy_ev - self.predicted_ev)[self.stayed]
        if len(gaps) < 3:
            return float("nan")
        z = (gaps - gaps.mean()) / self.deviation_ev[self.stayed]
        return float(np.sqrt((z**2).sum() / (len(z) - 1)))

    def rank_correlation(self, seed: int = 0) -> Interval:
        """Return Spearman's correlation of both energies with its interval by bootstrap, of the designs that stayed."""
        return rank_interval(self.predicted_ev[self.stayed], self.energy_ev[self.stayed], seed)


def mean_of(values: np.ndarray) -> Interval:
    """Return a mean with its interval by Student's distribution."""
    if len(values) == 0:
        return Interval(float("nan"))
    if len(values) == 1:
        return Interval(float(values[0]))
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    mean = float(np.mean(values))
    return Interval(mean, mean - half, mean + half)


def rank_interval(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Interval:
    """Return Spearman's rank correlation with its 95 % interval by bootstrap; NaN where one does not vary.

    Of fewer than ten it has no interval: resamples of so few repeat the same order.
    """
    if len(first) < 4:
        return Interval(float("nan"))
    if len(first) < _FEWEST_RANKED:
        return Interval(rank_correlation(first, second))
    generator = np.random.default_rng(seed)
    draws = [
        rank_correlation(first[rows], second[rows])
        for rows in generator.integers(0, len(first), (_RESAMPLES, len(first)))
    ]
    if np.isnan(draws).all():
        return Interval(float("nan"))
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return Interval(rank_correlation(first, second), float(low), float(high))


def known_hosts(model: SiteModel, n: int, seed: int = 0) -> tuple[list[Host], np.ndarray]:
    """Put sites of the data into slabs, drawn at random among those that fill a template.

    Parameters
    ----------
    model
        Whose data.
    n
        How many; fewer if there are fewer.
    seed
        Of the draw and of what fills the slabs.

    Returns
    -------
    hosts
        The slabs.
    energies
        The known energies of the sites in eV, (n,).
    """
    config = model.vae.config
    hosts: list[Host] = []
    energies: list[float] = []
    for row in np.random.default_rng(seed).permutation(len(model.sites)).tolist():
        if len(hosts) == n:
            break
        k = int(model.sites.class_index[row])
        template = config.templates[k]
        contents = model.sites.ligands[row, list(config.classes[k].slots)]
        if template is None or (contents < 0).any() or len(contents) != len(template):
            continue
        name = f"known-{len(hosts) + 1:03d}"
        symbols = [config.elements[code] for code in contents.tolist()]
        hosts.append(
            host_site(
                template, symbols, adsorbate=model.adsorbate, seed=seed + row, site_id=name, slab_id=name
            )
        )
        energies.append(float(model.sites.energy_ev[row]))
    return hosts, np.array(energies)


def verify(
    designs: Sequence[Design],
    target: Target,
    calculator: Calculator,
    *,
    journal: Path,
    reference_ev: float = 0.0,
    known: tuple[Sequence[Host], np.ndarray] | None = None,
    quiet: bool = False,
) -> Verification:
    """Relax the adsorbates of designs with an interatomic potential, on slabs that are held.

    Parameters
    ----------
    designs
        To judge, the likeliest first.
    target
        The window.
    calculator
        Of the potential.
    journal
        File of finished labels; what stands there is not computed again.
    reference_ev
        The potential's energy of the data's zero, in eV, subtracted from all.
    known
        Sites of the data in slabs and their energies, see `known_hosts`: the shift between both zeros is then
        measured on them, and taken off.
    quiet
        No progress bar.

    Raises
    ------
    InputError
        If there is nothing to judge, or too few of the known sites keep their adsorbate to tell the shift.
    """
    if not designs:
        raise InputError("designs: none; expected at least one to verify")
    hosts = [design.host for design in designs]
    if known is not None:
        hosts += list(known[0])
    frames = [(host.site.slab_id, host.site.slab_id, host.with_adsorbate) for host in hosts]
    atoms, _, rows = label_structures(
        frames, calculator, reference_ev=reference_ev, journal=journal, quiet=quiet
    )
    energies = np.array([row["energy_ev"] for row in rows], dtype=float)
    stayed = np.array([row["usable"] for row in rows], dtype=bool)
    n, shift = len(designs), Interval(0.0)
    if known is not None:
        usable = stayed[n:]
        if usable.sum() < 2:
            raise InputError(
                f"known sites: the adsorbate stayed on {int(usable.sum())} of {len(usable)}; expected two at least "
                "to tell the potential's zero"
            )
        shift = mean_of((energies[n:] - known[1])[usable])
    return Verification(
        list(designs),
        energies[:n] - shift.value,
        [str(row["ends_as"]) for row in rows[:n]],
        stayed[:n],
        shift,
        target,
        atoms[:n],
    )
