"""The multi-channel PGH-VAE: coordination and ligands in a latent space of their own each, and an energy head on both.

After Wang, Zheng, Wu, Li, Pan, npj Comput. Mater. (2025), with what keeps it from collapsing: elements are
categories decoded by cross-entropy, the ligand latent is wide enough to hold them, and the network sees fresh random
decorations of real geometries in every epoch, labelled by a teacher that was trained on the same sites only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from catalysis.fingerprints import coordination_curves
from catalysis.structure.occupations import Occupations, filled, occupations
from catalysis.structure.sites import Site
from catalysis.vae.channels import Channels, VAEConfig
from interpretkit.errors import InputError
from interpretkit.training import History, load_config, load_model, resolve_device, save_model

_KIND = "pgh-vae"


class Latent(NamedTuple):
    """The posterior of sites: means and logarithms of variances.

    Attributes
    ----------
    coordination, coordination_log_variance : Tensor
        Shape (n, dc).
    ligand, ligand_log_variance : Tensor
        Shape (n, dl).
    """

    coordination: Tensor
    coordination_log_variance: Tensor
    ligand: Tensor
    ligand_log_variance: Tensor


class Decoded(NamedTuple):
    """What is decoded from latents.

    Attributes
    ----------
    curves : Tensor
        Betti curves in counts, (n, 3, g).
    class_logits : Tensor
        Over classes, (n, classes).
    element_logits : Tensor
        Over elements by slot, (n, slots, elements).
    """

    curves: Tensor
    class_logits: Tensor
    element_logits: Tensor


def _mlp(*widths: int) -> nn.Sequential:
    """Return linear layers with a smooth activation between them, so that the output has all derivatives."""
    layers: list[nn.Module] = []
    for k, (a, b) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(a, b))
        if k < len(widths) - 2:
            layers.append(nn.SiLU())
    return nn.Sequential(*layers)


class _Direct(nn.Module):
    """A network beside a linear map: the sum of both."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.curved = _mlp(inputs, hidden, hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.curved(x)


class _EnergyHead(nn.Module):
    """Energy from both latents: linear, plus a network in which coordination weighs what the ligands do."""

    def __init__(self, coordination: int, ligand: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(coordination + ligand, 1)
        self.from_coordination = _mlp(coordination, 128, 2 * hidden)
        self.from_ligand = nn.Linear(ligand, hidden)
        self.joint = _mlp(hidden, hidden // 2, 1)
        self.weighed = nn.Linear(hidden, 1)

    def forward(self, coordination: Tensor, ligand: Tensor) -> Tensor:
        weight, shift = self.from_coordination(coordination).chunk(2, dim=-1)
        effects = self.from_ligand(ligand) * (1 + weight) + shift
        total = self.linear(torch.cat([coordination, ligand], -1)) + self.weighed(effects)
        return (total + self.joint(functional.silu(effects))).squeeze(-1)


class PGHVAE(nn.Module):
    """Variational auto-encoder of active sites with two channels and an energy head.

    Parameters
    ----------
    config : VAEConfig
        What it knows, and its widths.

    Notes
    -----
    `energy` is smooth in both latents, so that designs can be searched by gradient. All methods work on batches.
    """

    curve_mean: Tensor
    curve_scale: Tensor
    energy_mean: Tensor
    energy_scale: Tensor
    history: History | None = None
    """How the training went; not saved."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        kinds, slots, classes = len(config.elements), len(config.columns), len(config.classes)
        curve = 3 * len(config.grid)
        dc, dl, hidden = config.coordination_latent, config.ligand_latent, config.hidden
        self.coordination_encoder = _mlp(curve + classes, 128, 128, 2 * dc)
        self.ligand_encoder = _Direct(slots * kinds, hidden, 2 * dl)
        self.curve_decoder = _mlp(dc, 128, 128, curve)
        self.class_decoder = _mlp(dc, 64, classes)
        self.ligand_decoder = _Direct(dl, hidden, slots * kinds)
        self.head = _EnergyHead(dc, dl, 256)
        self.register_buffer("curve_mean", torch.zeros(3, len(config.grid)))
        self.register_buffer("curve_scale", torch.ones(3, 1))
        self.register_buffer("energy_mean", torch.zeros(()))
        self.register_buffer("energy_scale", torch.ones(()))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.curve_mean.device

    def channels(self, sites: Sequence[Site]) -> Channels:
        """Return sites as the network sees them.

        Raises
        ------
        InputError
            For an adsorbate or an element that the model does not know.
        """
        for site in sites:
            if site.adsorbate != self.config.adsorbate:
                raise InputError(
                    f"{site.site_id or 'site'}: adsorbate {site.adsorbate}; the model knows {self.config.adsorbate}"
                )
        curves = coordination_curves(sites, np.array(self.config.grid))
        return self.config.channels(occupations(sites, self.config.elements), curves, self.device)

    def encode(self, channels: Channels) -> Latent:
        """Return the posterior over both latents."""
        curves = ((channels.curves - self.curve_mean) / self.curve_scale).flatten(1)
        coordination, c = self.coordination_encoder(
            torch.cat([curves, _one_hot(channels.site_class, len(self.config.classes))], 1)
        ).chunk(2, dim=1)
        ligands = _one_hot(channels.ligands, len(self.config.elements)).flatten(1)
        ligand, v = self.ligand_encoder(ligands).chunk(2, dim=1)
        # Bounded log variances: the standard deviations stay between 0.002 and 3.
        return Latent(coordination, 7 * torch.tanh(c / 7) - 5, ligand, 7 * torch.tanh(v / 7) - 5)

    def decode(self, coordination: Tensor, ligand: Tensor) -> Decoded:
        """Return curves in counts, and logits over classes and over elements by slot."""
        shape = (len(coordination), 3, len(self.config.grid))
        curves = self.curve_decoder(coordination).reshape(shape) * self.curve_scale + self.curve_mean
        elements = self.ligand_decoder(ligand).reshape(len(ligand), -1, len(self.config.elements))
        return Decoded(curves, self.class_decoder(coordination), elements)

    def energy(self, coordination: Tensor, ligand: Tensor) -> Tensor:
        """Return the adsorption energy in eV, shape (n,): smooth in both latents."""
        return self.energy_mean + self.energy_scale * self.head(coordination, ligand)

    @torch.no_grad()
    def predict_channels(self, channels: Channels) -> np.ndarray:
        """Return the head's energies in eV at the posterior means, shape (n,)."""
        self.eval()
        latent = self.encode(channels)
        return self.energy(latent.coordination, latent.ligand).double().cpu().numpy()

    def predict(self, sites: Sequence[Site]) -> np.ndarray:
        """Return the head's energies of sites in eV, shape (n,)."""
        return self.predict_channels(self.channels(sites))

    def predict_occupations(self, data: Occupations) -> np.ndarray:
        """Return the same for occupations of templates."""
        known = data.with_elements(self.config.elements).canonical()
        return self.predict_channels(
            self.config.channels(known, self.config.ideal_curves(known), self.device)
        )

    @torch.no_grad()
    def decode_occupations(
        self,
        coordination: Tensor,
        ligand: Tensor,
        classes: Sequence[bool] | None = None,
        elements: Sequence[int] | None = None,
        *,
        costs: np.ndarray | None = None,
        max_cost: float = float("inf"),
    ) -> Occupations:
        """Return the likeliest class, and element in each of its slots, for each pair of latents.

        Parameters
        ----------
        coordination, ligand : Tensor
            Latents, (n, dc) and (n, dl).
        classes : sequence of bool, optional
            Which classes may be chosen; all that have a template by default.
        elements : sequence of int, optional
            Which elements, by their index; all by default.
        costs : ndarray, optional
            Of each element of the model, (elements,).
        max_cost : float
            The mean over a site's slots may be no larger; the likeliest such elements are taken.

        Returns
        -------
        Occupations
            Of the ideal geometries of the classes, (n,); symmetric copies stay as they were decoded.

        Raises
        ------
        InputError
            If none of the classes has a template, or every allowed element costs more than `max_cost`.
        """
        templates = [
            t if classes is None or classes[k] else None for k, t in enumerate(self.config.templates)
        ]
        may = [k for k, template in enumerate(templates) if template is not None]
        if not may:
            raise InputError("model: none of its classes has a template; sites cannot be decoded")
        decoded = self.decode(coordination, ligand)
        which = decoded.class_logits.cpu().numpy()[:, may].argmax(1)
        allowed = np.arange(len(self.config.elements)) if elements is None else np.array(elements)
        slots = [list(self.config.classes[k].slots) for k in may]
        logits = decoded.element_logits.cpu().numpy()[..., allowed]
        choice = logits.argmax(-1)
        if costs is not None:
            used = np.zeros((len(may), logits.shape[1]))
            for k, some in enumerate(slots):
                used[k, some] = 1 / len(some)
            choice = _affordable(logits, used[which], costs[allowed], max_cost)
        best = allowed[choice]
        contents = [best[row, slots[k]] for row, k in enumerate(which.tolist())]
        geometries = [template.geometry for template in templates if template is not None]
        return filled(
            geometries,
            which,
            self.config.elements,
            np.concatenate(contents) if contents else np.zeros(0, int),
        )

    def save(self, path: str | Path, *, half: bool = False) -> None:
        """Write weights, on request in half precision, and configuration to one safetensors file."""
        save_model(path, self, {"model": _KIND, **asdict(self.config)}, half=half)

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> PGHVAE:
        """Read a model that `save` wrote.

        Raises
        ------
        InputError
            If the file is missing, damaged, or something else.
        """
        if load_config(path).get("model") != _KIND:
            raise InputError(f"{path}: not a PGH-VAE; expected a file that `PGHVAE.save` wrote")
        return load_model(path, lambda config: cls(VAEConfig.from_plain(config)), resolve_device(device))


def _affordable(logits: np.ndarray, weights: np.ndarray, costs: np.ndarray, limit: float) -> np.ndarray:
    """Return the likeliest element of each slot such that a site costs no more than it may, (n, slots).

    Each site pays for cost in log probability, just as much per unit as it must (Lagrangian relaxation): with that
    multiplier no other choice of the same cost is likelier.

    Parameters
    ----------
    logits, weights
        By slot and element, (n, slots, k), and the share of each slot in the site's mean cost, (n, slots).
    costs, limit
        Of each element, (k,), and the largest mean.
    """
    if costs.min() > limit:
        raise InputError(
            f"max_cost: {limit:g}; expected at least {costs.min():g}, the cheapest allowed element"
        )
    choice = logits.argmax(-1)

    def too_dear(rows: np.ndarray) -> np.ndarray:
        return (costs[choice[rows]] * weights[rows]).sum(1) > limit * (1 + 1e-12) + 1e-12

    everyone = np.arange(len(logits))
    rows = everyone[too_dear(everyone)]
    if not len(rows):
        return choice
    scaled = costs / max(float(np.ptp(costs)), 1e-12)
    low, high = np.zeros(len(rows)), np.ones(len(rows))

    def take(multiplier: np.ndarray, some: np.ndarray) -> np.ndarray:
        choice[rows[some]] = (logits[rows[some]] - multiplier[some, None, None] * scaled).argmax(-1)
        return too_dear(rows[some])

    still = np.arange(len(rows))
    while len(still):
        dear = take(high, still)
        low[still[dear]], high[still[dear]] = high[still[dear]], 4 * high[still[dear]]
        still = still[dear]
    every = np.arange(len(rows))
    for _ in range(24):
        middle = (low + high) / 2
        dear = take(middle, every)
        low, high = np.where(dear, middle, low), np.where(dear, high, middle)
    take(high, every)
    return choice


def _one_hot(index: Tensor, count: int) -> Tensor:
    """Return one-hot rows, zeros where the index is -1."""
    return functional.one_hot(index + 1, count + 1)[..., 1:].float()
