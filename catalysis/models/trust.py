"""When a model of adsorption energies is not to be trusted, and how to say so that nobody misses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import chi2, norm

from interpretkit.commandline.caution import no_better

TOO_NARROW = 1.5
"""Residuals this many times as large as predicted make intervals too narrow."""

_HEAD = "the head of the VAE, which proposes designs,"


def rms_z(residual_ev: np.ndarray, deviation_ev: np.ndarray) -> float:
    """Return the root mean square of residuals over predicted standard deviations: 1 if calibrated, NaN of none."""
    if not len(residual_ev):
        return float("nan")
    return float(np.sqrt(np.mean((np.asarray(residual_ev) / np.asarray(deviation_ev)) ** 2)))


def coverage(residual_ev: np.ndarray, deviation_ev: np.ndarray, share: float) -> float:
    """Return the share of residuals within the central intervals that should hold `share` of them; NaN of none."""
    if not len(residual_ev):
        return float("nan")
    reach = norm.ppf(0.5 + share / 2)
    return float(np.mean(np.abs(residual_ev) <= reach * np.asarray(deviation_ev)))


def trust_warnings(numbers: Mapping[str, Any]) -> list[str]:
    """Return why the energies of a model are not to be trusted, a sentence each; empty where nothing is amiss.

    Parameters
    ----------
    numbers : mapping of str to Any
        Measured on unseen sites: `mae_ev`, `vae_mae_ev`, `baseline_mae_ev`, `r2`, `teacher_rms_z` and `n_test`. What
        is absent, None or NaN is passed over.

    Returns
    -------
    list of str
        The teacher is no better than the mean energy, or than the baseline; the VAE's head is not; the predicted
        deviations are too small: by 1.5 and by more than the scatter of so few test sites explains.
    """
    r2 = _number(numbers, "r2")
    found = [
        *no_better("the teacher", r2, "the mean energy", 0.0, form=".2f"),
        *(
            line
            for model, error in (("the teacher, which ranks designs,", "mae_ev"), (_HEAD, "vae_mae_ev"))
            for line in no_better(
                model,
                numbers.get(error),
                "its baseline",
                numbers.get("baseline_mae_ev"),
                lower_is_better=True,
                form=".3f",
                unit="eV",
            )
        ),
    ]
    ratio, count = _number(numbers, "teacher_rms_z"), _number(numbers, "n_test")
    # Of so few sites, calibrated ones would exceed this once in a thousand cases.
    scatter = float(np.sqrt(chi2.ppf(0.999, count) / count)) if count > 0 else TOO_NARROW
    if ratio > max(TOO_NARROW, scatter):
        found.append(
            f"THE INTERVALS ARE TOO NARROW: residuals on unseen sites are {ratio:.1f} times as large as the predicted "
            "deviations say"
        )
    return found


def _number(numbers: Mapping[str, Any], name: str) -> float:
    value = numbers.get(name)
    return float("nan") if value is None else float(value)
