"""What a trained network does with sites: what it decodes, and how much of its latent spaces it uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from catalysis.structure.sites import Site
from catalysis.vae.channels import Channels
from catalysis.vae.network import PGHVAE
from interpretkit.variational import prior_divergence

ACTIVE_VARIANCE = 0.01
"""A latent dimension is active if the variance of its posterior mean over sites exceeds this (Burda et al. 2016)."""


@dataclass(frozen=True)
class VAEReport:
    """What a model does with given sites.

    Attributes
    ----------
    n_sites : int
        How many.
    active_coordination, active_ligand : int
        Latent dimensions whose posterior mean varies by more than 0.01 over the sites.
    variance_coordination, variance_ligand : tuple of float
        That variance by dimension.
    kl_coordination, kl_ligand : tuple of float
        Mean Kullback-Leibler divergence from the prior by dimension, in nats.
    element_recovery : float
        Share of all metals whose element is decoded correctly from the posterior mean.
    class_recovery : float
        Share of sites whose class is.
    betti_r2 : float
        Share of the variance of all values of the Betti curves that the decoded ones explain; NaN if they do not
        vary.
    betti_r2_by_dimension : tuple of float
        The same for β0, β1, β2; NaN where the curves do not vary.
    mae_ev : float
        Mean absolute error of the energy head in eV; NaN without energies.
    """

    n_sites: int
    active_coordination: int
    active_ligand: int
    variance_coordination: tuple[float, ...]
    variance_ligand: tuple[float, ...]
    kl_coordination: tuple[float, ...]
    kl_ligand: tuple[float, ...]
    element_recovery: float
    class_recovery: float
    betti_r2: float
    betti_r2_by_dimension: tuple[float, float, float]
    mae_ev: float


def report(model: PGHVAE, sites: Sequence[Site], energies_ev: np.ndarray | None = None) -> VAEReport:
    """Return what a model does with sites; without energies, `mae_ev` is NaN."""
    return report_of(model, model.channels(sites), energies_ev)


@torch.no_grad()
def report_of(model: PGHVAE, channels: Channels, energies: np.ndarray | None = None) -> VAEReport:
    """Return what a model does with sites of which it is given the channels; without energies, `mae_ev` is NaN."""
    latent = model.encode(channels)
    decoded = model.decode(latent.coordination, latent.ligand)
    present = channels.ligands >= 0
    right = (decoded.element_logits.argmax(-1) == channels.ligands)[present]
    true = channels.curves.double()
    gap = ((decoded.curves.double() - true) ** 2).sum((0, 2))
    total = ((true - true.mean(0)) ** 2).sum((0, 2))
    by_dimension = torch.where(total > 0, 1 - gap / total, torch.nan).tolist()
    predicted = model.energy(latent.coordination, latent.ligand).double().cpu().numpy()
    variances = [part.var(0, unbiased=False) for part in (latent.coordination, latent.ligand)]
    divergences = [
        prior_divergence(latent.coordination, latent.coordination_log_variance).mean(0),
        prior_divergence(latent.ligand, latent.ligand_log_variance).mean(0),
    ]
    return VAEReport(
        n_sites=len(predicted),
        active_coordination=int((variances[0] > ACTIVE_VARIANCE).sum()),
        active_ligand=int((variances[1] > ACTIVE_VARIANCE).sum()),
        variance_coordination=tuple(variances[0].tolist()),
        variance_ligand=tuple(variances[1].tolist()),
        kl_coordination=tuple(divergences[0].tolist()),
        kl_ligand=tuple(divergences[1].tolist()),
        element_recovery=float(right.double().mean()),
        class_recovery=float((decoded.class_logits.argmax(1) == channels.site_class).double().mean()),
        betti_r2=float(1 - gap.sum() / total.sum()) if total.sum() > 0 else float("nan"),
        betti_r2_by_dimension=(by_dimension[0], by_dimension[1], by_dimension[2]),
        mae_ev=float("nan") if energies is None else float(np.abs(predicted - energies).mean()),
    )
