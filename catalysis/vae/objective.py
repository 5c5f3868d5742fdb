"""What the network is trained by."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from catalysis.vae.channels import Channels
from catalysis.vae.disentangling import Penalty
from catalysis.vae.network import PGHVAE, Decoded, Latent
from interpretkit.variational import draw_codes

_CURVE_NOISE = 0.1  # standard deviation of the decoded curves, in units of each curve's own
_ENERGY_NOISE = 0.05  # of the standardised energies


def _single(values: Tensor) -> Tensor:
    """Return what layers computed in half the width in single precision: divergences are small differences."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def loss_of(
    model: PGHVAE,
    channels: Channels,
    energies: Tensor,
    noise: tuple[Tensor, Tensor],
    penalty: Penalty,
    divergence_weight: float,
) -> dict[str, Tensor]:
    """Return the negative evidence lower bound (β-weighted), in nats per site, and its parts.

    Parameters
    ----------
    model : PGHVAE
        The network.
    channels : Channels
        Sites, (n,).
    energies : Tensor
        In eV, (n,).
    noise : tuple of Tensor
        Standard normal numbers to draw codes with: coordination (n, dc), ligand (n, dl).
    penalty : Penalty
        In place of the Kullback-Leibler term, which it is at its plainest.
    divergence_weight : float
        Of that term, β.

    Returns
    -------
    dict of str to Tensor
        `loss`, and its parts before they are weighed: `curves`, `elements`, `classes`, `energy`, `divergence`; scalars.
    """
    latent = Latent(*map(_single, model.encode(channels)))
    coordination = draw_codes(latent.coordination, latent.coordination_log_variance, noise[0])
    ligand = draw_codes(latent.ligand, latent.ligand_log_variance, noise[1])
    decoded = Decoded(*map(_single, model.decode(coordination, ligand)))
    error = (decoded.curves - channels.curves) / model.curve_scale / _CURVE_NOISE
    curves = 0.5 * (error**2).flatten(1).mean(1)
    elements = functional.cross_entropy(
        decoded.element_logits.flatten(0, 1), channels.ligands.flatten(), ignore_index=-1, reduction="sum"
    ) / len(energies)
    classes = functional.cross_entropy(decoded.class_logits, channels.site_class, ignore_index=-1)
    target = (energies - model.energy_mean) / model.energy_scale
    at_mean = model.head(latent.coordination, latent.ligand) - target
    at_sample = model.head(coordination, ligand) - target
    # Absolute beyond one noise width: DFT energies have outliers.
    energy = functional.huber_loss(at_mean / _ENERGY_NOISE, torch.zeros_like(target), delta=3.0)
    energy = energy + 0.2 * functional.huber_loss(
        at_sample / _ENERGY_NOISE, torch.zeros_like(target), delta=3.0
    )
    parts = penalty(latent, coordination, ligand)
    total = curves.mean() + elements + 5 * classes + energy + divergence_weight * parts["penalty"]
    return {
        "loss": total,
        "curves": curves.mean(),
        "elements": elements,
        "classes": classes,
        "energy": energy,
        "divergence": parts["divergence"].detach(),
    }
