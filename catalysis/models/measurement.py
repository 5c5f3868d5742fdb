"""The one place where models of sites are measured: fitted on some, they predict others that they have not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

import numpy as np
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from catalysis.energies.baseline import LinearBaseline
from catalysis.energies.teacher import Teacher
from catalysis.models.trust import coverage, rms_z
from catalysis.structure.sites import Site
from catalysis.vae.network import PGHVAE
from catalysis.vae.report import VAEReport, report_of
from catalysis.vae.training import train_vae
from interpretkit.variational import Objective

QUICK = {"epochs": 4, "decorations_per_epoch": 1024, "hidden": 64}
"""Options of `catalysis.vae.training.train_vae` for a test run: the numbers mean nothing."""

ERRORS = {"mae_ev": "teacher_ev", "vae_mae_ev": "vae_ev", "baseline_mae_ev": "baseline_ev"}
"""Mean absolute errors, and the predictions that they are of."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What models predict for sites that they have not seen, in eV, shape (n,) each.

    Attributes
    ----------
    true_ev : ndarray
        Given energies.
    teacher_ev, teacher_std_ev : ndarray
        Of the teacher, which ranks designs, with its standard deviation.
    vae_ev : ndarray
        Of the VAE's head, which proposes designs; NaN where a site holds an element that training did not, and
        everywhere if the VAE was left out.
    baseline_ev : ndarray
        Of `catalysis.energies.baseline.LinearBaseline`.
    """

    true_ev: np.ndarray
    teacher_ev: np.ndarray
    teacher_std_ev: np.ndarray
    vae_ev: np.ndarray
    baseline_ev: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[Predictions]) -> Self:
        """Return the predictions of several sets of sites in one."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def __getitem__(self, rows: np.ndarray) -> Predictions:
        """Return those of some of the sites."""
        return Predictions(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def errors(self) -> dict[str, float | None]:
        """The three mean absolute errors in eV: `mae_ev`, `vae_mae_ev`, `baseline_mae_ev`; None without any site."""
        found: dict[str, float | None] = {}
        for name, column in ERRORS.items():
            values = getattr(self, column)
            known = np.isfinite(values)
            found[name] = (
                float(mean_absolute_error(self.true_ev[known], values[known])) if known.any() else None
            )
        return found

    @property
    def numbers(self) -> dict[str, Any]:
        """The errors, and of the teacher `rmse_ev`, `r2` (None if all energies are alike), and how its deviations hold.

        `teacher_rms_z`, and `coverage_68` and `coverage_95`, the shares of sites within what should hold so many.
        """
        true, teacher = self.true_ev, self.teacher_ev
        return {
            **self.errors,
            "rmse_ev": float(root_mean_squared_error(true, teacher)),
            "r2": float(r2_score(true, teacher)) if np.ptp(true) > 0 else None,
            "teacher_rms_z": rms_z(teacher - true, self.teacher_std_ev),
            "coverage_68": coverage(teacher - true, self.teacher_std_ev, 0.68),
            "coverage_95": coverage(teacher - true, self.teacher_std_ev, 0.95),
            "n_test": len(true),
        }


def measure(
    train: Sequence[Site],
    test: Sequence[Site],
    *,
    geometry: Literal["ideal", "relaxed"] = "ideal",
    embeddings: str | Sequence[str] = (),
    seed: int = 0,
    objective: Objective | None = None,
    quick: bool = False,
    device: str = "cpu",
    quiet: bool = True,
) -> tuple[Predictions, VAEReport | None, PGHVAE]:
    """Fit teacher, baseline and VAE on some sites, and let them predict others.

    Parameters
    ----------
    train : sequence of Site
        At least 20 with energies. Nothing else is seen by the models.
    test : sequence of Site
        With energies, at least one.
    geometry : {"ideal", "relaxed"}
        What the measured teacher looks at. Decorations for the VAE are labelled by one of ideal geometry in any case.
    embeddings : str or sequence of str
        Of a potential, which the measured teacher looks at as well; see `catalysis.energies.teacher.Teacher`.
    seed : int
        Of teacher and VAE.
    objective : Objective, optional
        Of the VAE, see `catalysis.vae.training.train_vae`.
    quick : bool
        Train the VAE for a few short epochs, to see that everything runs.
    device : str
        For the VAE.
    quiet : bool
        No progress bar.

    Returns
    -------
    predictions : Predictions
        For the test sites.
    report : VAEReport or None
        What the VAE does with the test sites whose elements it knows; None if there is none.
    model : PGHVAE
        The trained VAE.
    """
    teacher = Teacher(seed=seed).fit(train)
    options: dict[str, Any] = QUICK if quick else {}
    model, _ = train_vae(
        train, None, teacher, objective=objective, seed=seed, device=device, quiet=quiet, **options
    )
    if geometry == "relaxed" or embeddings:
        teacher = Teacher(seed=seed, geometry="relaxed", embeddings=embeddings).fit(train)
    found = _measured(teacher, train, test)
    known = np.array([set(site.symbols) <= set(model.config.elements) for site in test])
    head = np.full(len(test), np.nan)
    report = None
    if known.any():
        channels = model.channels([test[k] for k in np.flatnonzero(known).tolist()])
        head[known] = model.predict_channels(channels)
        report = report_of(model, channels, found.true_ev[known])
    return replace(found, vae_ev=head), report, model


def measure_teacher(
    train: Sequence[Site],
    test: Sequence[Site],
    *,
    geometry: Literal["ideal", "relaxed"] = "ideal",
    embeddings: str | Sequence[str] = (),
    seed: int = 0,
) -> Predictions:
    """Fit teacher and baseline on some sites, and let them predict others; without the VAE, which takes the time.

    Parameters
    ----------
    train, test, geometry, embeddings, seed
        As for `measure`.
    """
    return _measured(Teacher(seed=seed, geometry=geometry, embeddings=embeddings).fit(train), train, test)


def _measured(teacher: Teacher, train: Sequence[Site], test: Sequence[Site]) -> Predictions:
    true = np.array([site.energy_ev for site in test], dtype=float)
    mean, std = teacher.predict(test)
    baseline = LinearBaseline().fit(train).predict(test).mean_ev
    return Predictions(true, mean, std, np.full(len(test), np.nan), baseline)


def vae_numbers(reports: Sequence[VAEReport | None]) -> dict[str, Any]:
    """Return what VAEs do with test sites: the smallest number of active dimensions, and means weighted by sites.

    Returns
    -------
    dict
        `active_coordination`, `active_ligand`, `element_recovery`, `class_recovery`, `betti_r2` (None if the curves do
        not vary); empty where there is no report.
    """
    known = [report for report in reports if report is not None]
    if not known:
        return {}
    numbers: dict[str, Any] = {
        name: min(getattr(report, name) for report in known)
        for name in ("active_coordination", "active_ligand")
    }
    for name in ("element_recovery", "class_recovery", "betti_r2"):
        values = [getattr(report, name) for report in known]
        value = float(np.average(values, weights=[report.n_sites for report in known]))
        numbers[name] = value if np.isfinite(value) else None
    return numbers
