"""One seed for a run, and independent streams of random numbers from it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a seed for one purpose of a run, unrelated to the seeds of its other purposes.

    Parameters
    ----------
    seed : int
        The run's seed.
    names : str or int
        What the numbers are for, such as ``"split", 3``.

    Returns
    -------
    int
        In 0 … 2**63 - 1; the same on every machine and in every release of Python.
    """
    digest = hashlib.sha256(repr((int(seed), *names)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def torch_generator(seed: int, *names: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a torch generator for one purpose of a run; see :func:`derive_seed`."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *names))


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return a NumPy generator for one purpose of a run; see :func:`derive_seed`."""
    return np.random.default_rng(derive_seed(seed, *names))


def seed_everything(seed: int, *, deterministic: bool = False) -> None:
    """Seed the global generators of Python, NumPy and torch (on all devices).

    Parameters
    ----------
    seed : int
        At least 0. The same seed gives the same bits on a CPU with the same number of threads.
    deterministic : bool
        Also ask CUDA for algorithms that give the same bits each time, which are slower; it warns of those
        that do not exist.
    """
    random.seed(seed)
    # Libraries that draw from NumPy's global generator can be seeded in no other way.
    np.random.seed(derive_seed(seed) % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)
    if deterministic:
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)


@contextmanager
def own_draws(seed: int, *names: str | int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Seed torch's global generators within the block, and give all global generators back as they were.

    Parameters
    ----------
    seed, names
        As for :func:`derive_seed`.
    device : str or torch.device
        Where numbers are drawn beside the CPU.
    """
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [device] if torch.device(device).type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(derive_seed(seed, *names))
            yield
    finally:
        # A resumed training sets these too.
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
