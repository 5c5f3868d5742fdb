"""Fresh random decorations of known geometries: what the network sees beside the few real sites."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from catalysis.energies.protocol import EnergyModel
from catalysis.structure.occupations import Occupations
from catalysis.vae.channels import Channels, VAEConfig
from interpretkit.errors import InputError
from interpretkit.training import derive_seed, numpy_generator


class Decorations:
    """Batches of an epoch: the real sites, and fresh random decorations of their geometries with the teacher's labels.

    The decorations keep the curves and the filled slots of a real site (or of the ideal one of its class) and draw
    elements from a random composition, so that the two channels are independent of each other and every mixture of
    elements is seen.

    Parameters
    ----------
    config : VAEConfig
        Of the network.
    real : Channels
        The real sites as the network sees them, (n,).
    energies : ndarray
        Their energies in eV, (n,).
    data : Occupations
        The same sites as elements in slots, (n,).
    teacher : EnergyModel
        Labels the decorations.
    n_decorations : int
        How many in an epoch; a quarter of them of ideal geometries.
    batch_size : int
        How many in a batch, beside the real sites.
    real_share : float
        Real sites in a batch, as a share of its decorations.
    share : tuple of int
        Which part of every batch is given, and of how many: a process's, where several train together.
    seed : int
        Of everything random. Together the parts are the batches that one process is given.

    Raises
    ------
    InputError
        If a batch has fewer real sites than parts.
    """

    def __init__(
        self,
        config: VAEConfig,
        real: Channels,
        energies: np.ndarray,
        data: Occupations,
        teacher: EnergyModel,
        *,
        n_decorations: int,
        batch_size: int,
        real_share: float = 0.25,
        share: tuple[int, int] = (0, 1),
        seed: int,
    ) -> None:
        self.config, self.real, self.teacher, self.seed = config, real, teacher, seed
        self.device = real.curves.device
        self.energies = torch.as_tensor(energies, dtype=torch.float32, device=self.device)
        ideal = config.ideal_sites()
        self.bases = (data, real.curves.cpu().numpy()), (ideal, config.ideal_curves(ideal))
        # A quarter of ideal geometries, if the classes have any.
        self.counts = n_decorations - n_decorations // 4, n_decorations // 4 if len(ideal) else 0
        self.n_decorations, self.batch_size = sum(self.counts), batch_size
        self.n_real = max(1, round(real_share * batch_size))
        self.part, self.parts = share
        if self.n_real < self.parts:
            raise InputError(
                f"batch_size {batch_size}: has {self.n_real} real sites for {self.parts} processes; expected "
                f"at least {math.ceil(self.parts / real_share)}"
            )
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, which determines the decorations."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.n_decorations / self.batch_size)

    def decorate(self, epoch: int, wanted: np.ndarray | None = None) -> tuple[Channels, Tensor]:
        """Return the decorations of an epoch, and the energies in eV that the teacher gives them, (n,).

        Of all of them, or, which takes as much less time, of those alone that are `wanted` (n,), in order.
        """
        generator = numpy_generator(self.seed, "decorations", epoch)
        parts, energies, start = [], [], 0
        for (base, curves), count in zip(self.bases, self.counts, strict=True):
            if not count:
                continue
            # Half of them even over the classes, so that rare ones are learned as well.
            groups = [np.flatnonzero(base.geometry == g) for g in np.unique(base.geometry)]
            rows = generator.integers(0, len(base), count)
            even = generator.random(count) < 0.5
            picked = generator.integers(0, len(groups), count)
            rows = np.where(even, [groups[g][generator.integers(len(groups[g]))] for g in picked], rows)
            filled = base[rows]
            kinds = len(base.elements)
            shares = generator.dirichlet(np.full(kinds, 2.0), count)
            draws = (
                generator.random((count, filled.table.shape[1], 1)) > shares.cumsum(1)[:, None, :-1]
            ).sum(-1)
            table = np.where(filled.table >= 0, draws, -1).astype(np.int16)
            if wanted is not None:
                some = wanted[start : start + count]
                filled, table, rows = filled[some], table[some], rows[some]
            start += count
            decorated = replace(filled, table=table).canonical()
            parts.append(self.config.channels(decorated, curves[rows], self.device))
            energies.append(self.teacher.predict_mean(decorated))
        channels = Channels(*(torch.cat(part) for part in zip(*parts, strict=True)))
        labels = torch.as_tensor(np.concatenate(energies), dtype=torch.float32, device=self.device)
        return channels, labels

    def __iter__(self) -> Iterator[dict[str, Any]]:
        generator = numpy_generator(self.seed, "order", self.epoch)
        order = generator.permutation(self.n_decorations)
        place = np.arange(self.n_decorations)
        mine = place % self.batch_size % self.parts == self.part
        wanted = np.zeros(self.n_decorations, bool)
        wanted[order[mine]] = True
        channels, labels = self.decorate(self.epoch, None if self.parts == 1 else wanted)
        kept = torch.from_numpy(np.cumsum(wanted)[order] - 1)  # where each of them is among those wanted
        noise = torch.Generator().manual_seed(derive_seed(self.seed, "noise", self.epoch))
        own = slice(self.part, None, self.parts)
        for rows in kept.split(self.batch_size):
            some = torch.from_numpy(generator.integers(0, len(self.energies), self.n_real))
            count = len(rows) + len(some)
            normal = [
                torch.randn(count, width, generator=noise)
                for width in (self.config.coordination_latent, self.config.ligand_latent)
            ]
            which = torch.arange(count)
            which = torch.cat([which[: len(rows)][own], which[len(rows) :][own]])
            yield {
                "channels": channels.some(rows[own]) + self.real.some(some[own]),
                "energies": torch.cat([labels[rows[own]], self.energies[some[own]]]),
                "noise": (normal[0][which], normal[1][which]),
                "progress": self.epoch,
                # Parts of unequal size count by their size.
                "weight": len(which) * self.parts / count,
            }
