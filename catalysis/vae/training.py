"""Training the PGH-VAE on few labelled sites and many decorations that a teacher labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from catalysis.energies.protocol import EnergyModel
from catalysis.energies.training_data import check_training_data, group_folds, slab_groups
from catalysis.fingerprints import coordination_curves
from catalysis.structure.occupations import occupations
from catalysis.structure.sites import Site
from catalysis.vae.channels import VAEConfig
from catalysis.vae.decorations import Decorations
from catalysis.vae.disentangling import Penalty
from catalysis.vae.network import PGHVAE
from catalysis.vae.objective import loss_of
from catalysis.vae.report import VAEReport, report_of
from interpretkit.errors import InputError
from interpretkit.training import derive_seed, fit, resolve_device, seed_everything
from interpretkit.training.distributed import is_joined, parallelize, world
from interpretkit.training.precision import Precision
from interpretkit.training.schedules import one_cycle
from interpretkit.variational import BetaVAE, FactorVAE, Objective


def one_class_note(sites: Sequence[Site]) -> str | None:
    """Return what to know if all sites are of one class on one facet, else None."""
    found = sorted({(site.facet, site.site_class) for site in sites})
    if len(found) != 1:
        return None
    return (
        f"all sites are {found[0][1] or 'of one class'}: the coordination channel has nothing to learn from one class "
        "of sites; energies and designs rest on the ligand channel, the elements in the slots"
    )


class _Training(nn.Module):
    """The loss as a call of one module, which is what gradients are averaged over processes in."""

    def __init__(self, model: PGHVAE, penalty: Penalty) -> None:
        super().__init__()
        self.model, self.penalty = model, penalty

    def forward(self, batch: dict[str, Any], divergence_weight: float) -> dict[str, Tensor]:
        found = loss_of(
            self.model, batch["channels"], batch["energies"], batch["noise"], self.penalty, divergence_weight
        )
        return found if batch["weight"] == 1 else {**found, "loss": batch["weight"] * found["loss"]}


def train_vae(
    sites: Sequence[Site],
    energies_ev: np.ndarray | None,
    teacher: EnergyModel,
    *,
    groups: Sequence[str] | None = None,
    epochs: int = 50,
    decorations_per_epoch: int | None = None,
    batch_size: int = 256,
    learning_rate: float = 2e-3,
    divergence_weight: float = 0.01,
    objective: Objective | None = None,
    validation_share: float = 0.1,
    coordination_latent: int = 8,
    ligand_latent: int = 128,
    hidden: int = 384,
    precision: Precision = "float32",
    seed: int = 0,
    device: str = "cpu",
    quiet: bool = True,
) -> tuple[PGHVAE, VAEReport]:
    """Train a PGH-VAE.

    Parameters
    ----------
    sites : sequence of Site
        At least 20 with one adsorbate.
    energies_ev : ndarray, optional
        In eV, (n,); by default the sites' own.
    teacher : EnergyModel
        Labels the decorations. Fit it on the same sites and no others.
    groups : sequence of str, optional
        Sites of one group stay on one side of the split; by default the `slab_id`.
    epochs, decorations_per_epoch, batch_size : int
    learning_rate : float
        Each epoch draws so many fresh decorations; by default 8192, of one class of sites half as many, which brought
        the same errors.
    divergence_weight : float
        Of the Kullback-Leibler term (β). A uniformly random element costs as many nats to store as it saves, so the
        weight has to be well below 1.
    objective : Objective, optional
        What takes the place of that term, such as `disentangling("beta-tc")`: asked of each channel by itself, and
        weighed by `divergence_weight` as well, so that its own weight counts beside a plain divergence of 1.
    validation_share : float
        Share of the groups that are kept out of the gradient and choose the epoch.
    coordination_latent, ligand_latent, hidden : int
        Widths.
    precision : {"auto", "float32", "bfloat16"}
        Of the forward pass, see `interpretkit.training.precision.autocast`.
    seed : int
        Of everything random.
    device : str
        Such as `"cpu"`.
    quiet : bool
        No progress bar.

    Returns
    -------
    model : PGHVAE
        In evaluation mode.
    report : VAEReport
        For the sites that were kept out. The teacher has seen them, which flatters the head: judge it by other sites.

    Raises
    ------
    InputError
        As `catalysis.energies.training_data.check_training_data`; and if the teacher uses relaxed geometry, which
        random decorations do not have; for an objective with critics where several processes train together.

    Notes
    -----
    Within `interpretkit.training.distributed.process_group` every process labels and learns its share of each batch,
    which together are the batches of a single process: the same weights come of it, but for rounding. The total
    correlation of β-TC is estimated from each share.

    Sites of one class train the ligand channel and the head; the coordination channel then has nothing to learn, see
    `one_class_note`.
    """
    energies = check_training_data(sites, energies_ev)
    if teacher.geometry != "ideal":
        raise InputError(
            "teacher: it uses relaxed geometry; expected one of ideal geometry to label decorations"
        )
    names = slab_groups(sites) if groups is None else list(groups)
    n_folds = max(2, min(round(1 / validation_share), len(set(names))))
    held_out = group_folds(names, n_folds, derive_seed(seed, "validation") % 2**32) == 0
    if held_out.all():  # one group only: nothing can be kept out without emptying the training
        held_out = np.zeros(len(sites), bool)
        held_out[:: n_folds * 5] = True
    if decorations_per_epoch is None:
        decorations_per_epoch = 8192 if one_class_note(sites) is None else 4096
    seed_everything(seed)
    data = occupations(sites, teacher.elements)
    config = VAEConfig.of(
        data,
        sites[0].adsorbate,
        coordination_latent=coordination_latent,
        ligand_latent=ligand_latent,
        hidden=hidden,
    )
    model = PGHVAE(config).to(resolve_device(device))
    curves = coordination_curves(sites)
    train, test = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    model.curve_mean.copy_(torch.as_tensor(curves[train].mean(0), dtype=torch.float32))
    spread = np.sqrt(curves[train].var(0).mean(1)) + 0.05
    model.curve_scale.copy_(torch.as_tensor(spread[:, None], dtype=torch.float32))
    model.energy_mean.fill_(float(energies[train].mean()))
    model.energy_scale.fill_(float(energies[train].std()))
    every = config.channels(data, curves, model.device)
    kept = every.some(test)
    batches = Decorations(
        config,
        every.some(train),
        energies[train],
        data[train],
        teacher,
        n_decorations=decorations_per_epoch,
        batch_size=batch_size,
        share=(world().rank, world().size) if is_joined() else (0, 1),
        seed=seed,
    )
    if is_joined() and isinstance(objective, FactorVAE):
        raise InputError(
            "objective: FactorVAE's critics train in one process; expected another, or no torchrun"
        )
    penalty = Penalty(objective or BetaVAE(1.0), model, len(train) + decorations_per_epoch)
    fresh, fresh_energies = batches.decorate(-1)
    fresh = fresh.some(slice(512))
    fresh_energies = fresh_energies[:512].cpu().numpy()

    def loss(network: nn.Module, batch: dict[str, Any]) -> dict[str, Tensor]:
        warm = min(1.0, (batch["progress"] + 1) / (0.2 * epochs))
        return network(batch, divergence_weight * warm)

    def validate(network: nn.Module) -> dict[str, float]:
        del network  # the model and its wrappings
        measured = report_of(model, kept, energies[test])
        drawn = report_of(model, fresh, fresh_energies)
        return {
            "mae_ev": measured.mae_ev,
            "decorated_mae_ev": drawn.mae_ev,
            "element_recovery": measured.element_recovery,
            "decorated_recovery": drawn.element_recovery,
            "betti_r2": measured.betti_r2,
            # Energies in units of 0.1 eV; the head is judged by kept-out sites and by fresh decorations.
            "score": 10 * (measured.mae_ev + drawn.mae_ev)
            + 2 * (1 - min(measured.element_recovery, drawn.element_recovery))
            # Curves that do not vary, as on one class of ideal sites, have nothing to be explained.
            + (1 - max(measured.betti_r2, 0.0) if np.isfinite(measured.betti_r2) else 0.0),
        }

    weights: list[dict[str, Any]] = [{"params": list(model.parameters()), "weight_decay": 1e-5}]
    rates = [learning_rate]
    if isinstance(penalty.objective, FactorVAE):
        weights.append({"params": penalty.parameters(), "weight_decay": 0.0})
        rates.append(penalty.objective.learning_rate)
    optimizer = torch.optim.AdamW(weights, lr=learning_rate)
    scheduler = one_cycle(optimizer, rates, epochs * len(batches), rise=0.1)
    history = fit(
        parallelize(_Training(model, penalty)),
        batches,
        loss,
        optimizer=optimizer,
        epochs=epochs,
        scheduler=scheduler,
        scheduler_steps="batch",
        validate=validate,
        monitor="score",
        clip_norm=5.0,
        precision=precision,
        description="PGH-VAE",
        quiet=quiet,
    )
    model.history = history
    return model, report_of(model, kept, energies[test])
