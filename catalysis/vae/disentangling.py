"""Objectives that press the dimensions of each channel to stand for one thing each."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from catalysis.vae.network import PGHVAE, Latent
from interpretkit.errors import InputError
from interpretkit.variational import BetaTCVAE, BetaVAE, FactorVAE, Objective, Posterior, State

OBJECTIVES: dict[str, tuple[Callable[..., Objective], str]] = {
    "beta": (BetaVAE, "beta"),
    "beta-tc": (BetaTCVAE, "beta"),
    "factor": (FactorVAE, "gamma"),
}
"""The objectives by their names on the command line, and what their weights are called."""


def disentangling(name: str, strength: float | None = None) -> Objective:
    """Return an objective of `OBJECTIVES`.

    Parameters
    ----------
    name : str
        One of them.
    strength : float, optional
        Its weight: β, or γ of FactorVAE; by default that of its article.

    Raises
    ------
    InputError
        If there is none of that name, or the weight is no number of at least 0.
    """
    if name not in OBJECTIVES:
        raise InputError(f"objective: {name!r}; expected one of {', '.join(OBJECTIVES)}")
    kind, weight = OBJECTIVES[name]
    return kind() if strength is None else kind(**{weight: strength})


class Penalty:
    """An objective asked of each channel by itself, with a critic for each where it needs one.

    Parameters
    ----------
    objective : Objective
        What is asked.
    model : PGHVAE
        Gives the widths of the channels and the device.
    n_sites : int
        How many sites the batches are drawn from.
    """

    def __init__(self, objective: Objective, model: PGHVAE, n_sites: int) -> None:
        self.objective, self.n_sites, self.step = objective, n_sites, 0
        widths = model.config.coordination_latent, model.config.ligand_latent
        made = [objective.critic(width) for width in widths]
        self.critics = [None if critic is None else critic.to(model.device) for critic in made]

    def parameters(self) -> list[nn.Parameter]:
        """Return what the critics learn by."""
        return [weight for critic in self.critics if critic is not None for weight in critic.parameters()]

    def __call__(self, latent: Latent, coordination: Tensor, ligand: Tensor) -> dict[str, Tensor]:
        """Return `penalty` and `divergence`, the sums over both channels, from the latents and draws of them."""
        posteriors = (
            Posterior(latent.coordination, latent.coordination_log_variance, coordination),
            Posterior(latent.ligand, latent.ligand_log_variance, ligand),
        )
        parts = [
            self.objective.penalty(posterior, State(self.step, self.n_sites, critic))
            for posterior, critic in zip(posteriors, self.critics, strict=True)
        ]
        self.step += 1
        return {name: parts[0][name] + parts[1][name] for name in ("penalty", "divergence")}
