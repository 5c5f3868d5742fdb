"""How a learning rate changes over a training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.optim.lr_scheduler import OneCycleLR


def one_cycle(
    optimizer: torch.optim.Optimizer,
    learning_rate: float | Sequence[float],
    steps: int,
    *,
    rise: float = 0.3,
) -> OneCycleLR:
    """Return a schedule that raises the learning rate and lets it fall to almost nothing, for any number of steps.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Whose rate it is.
    learning_rate : float or sequence of float
        The largest; of several groups of parameters one for each, or one for all.
    steps : int
        All steps of the training, at least 1.
    rise : float
        The share of them in which the rate grows.
    """
    # torch divides by the number of steps of the rise less one, which a short training can make zero.
    if abs(rise * steps - 1) < 1e-9:
        rise = 1.5 / steps
    largest = list(learning_rate) if isinstance(learning_rate, Sequence) else learning_rate
    return OneCycleLR(optimizer, largest, total_steps=steps, pct_start=min(rise, 1.0))
