"""Data-parallel training: one process per device, each with its share of every batch.

Start a script with ``torchrun --nproc-per-node N script.py``. Everything here also works in a single process,
where it does nothing, so that a script needs no second version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from interpretkit.runs.processes import World, world

__all__ = [
    "LostProcessError",
    "World",
    "average",
    "from_main",
    "further",
    "gather",
    "is_joined",
    "parallelize",
    "process_group",
    "sampler",
    "training_together",
    "unwrap",
    "world",
]

Value = TypeVar("Value")


class LostProcessError(RuntimeError):
    """A process that this one trains together with has ended, or does not answer."""


@contextmanager
def process_group(device: torch.device) -> Iterator[tuple[World, torch.device]]:
    """Join the other processes for the time of the block; a single process joins nothing.

    Parameters
    ----------
    device : torch.device
        The kind of device to train on. On ``cuda`` each process takes the GPU of its local rank.

    Yields
    ------
    World, torch.device
        The processes, and this process's own device.

    Raises
    ------
    LostProcessError
        If another process has ended in mid-training, or does not answer.
    """
    here = world()
    if here.size == 1:
        yield here, device
        return
    if device.type == "cuda":
        device = torch.device("cuda", here.local_rank)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=here.rank, world_size=here.size)
    try:
        yield here, device
    except RuntimeError as error:
        # Gloo has no exception of its own.
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            reason = str(error).split(". ")[0].rpartition("] ")[2].strip()
            raise LostProcessError(
                f"another of the {here.size} processes has ended, and says why, or does not answer ({reason})"
            ) from error
        raise
    finally:
        dist.destroy_process_group()


def is_joined() -> bool:
    """Return whether this process has joined others."""
    return dist.is_available() and dist.is_initialized()


def further() -> tuple[int, ...]:
    """Return this process's rank as a name for a seed of its own; nothing for the first, or one alone.

    What is drawn within a model, such as noise, would else be the same in every process. Weights that differ at first
    do no harm: :func:`parallelize` gives all the first process's.
    """
    return (dist.get_rank(),) if is_joined() and dist.get_rank() else ()


@contextmanager
def training_together(device: torch.device, folder: Path) -> Iterator[tuple[torch.device, Path]]:
    """Join the other processes, as :func:`process_group`, with one folder to go on from.

    Parameters
    ----------
    device : torch.device
        The kind of device to train on.
    folder : path
        Where this process would keep checkpoints.

    Yields
    ------
    torch.device, path
        This process's own device, and the first process's folder, since all must go on from the same epoch.
    """
    with process_group(device) as (_, where):
        yield where, Path(from_main(str(folder.absolute()), where))


def parallelize(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model wrapped so that its gradients are averaged over the processes, if there are several.

    The averaging happens in calls of the wrapped model, not of its methods: a loss must call ``model(...)``.
    """
    if not is_joined():
        return model
    device = next(model.parameters()).device
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)


def unwrap(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model inside the wrapper of :func:`parallelize`, or the model itself."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def sampler(dataset: Dataset[Any], *, seed: int = 0, shuffle: bool = True) -> DistributedSampler[Any] | None:
    """Return a sampler of this process's share of a data set, for a ``DataLoader``; None in a single process.

    The training loop tells it the epoch, so that the order changes from one to the next.
    """
    return DistributedSampler(dataset, seed=seed, shuffle=shuffle) if is_joined() else None


def average(figures: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Return each figure's mean over the processes, which must all call this with the same names."""
    if not is_joined():
        return dict(figures)
    # MPS has no float64; between processes there are only CPUs and CUDA.
    total = torch.tensor(list(figures.values()), dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return dict(zip(figures, (total / dist.get_world_size()).tolist(), strict=True))


def from_main(value: Value, device: torch.device) -> Value:
    """Return the main process's value in every process, so that all decide alike."""
    if not is_joined():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=device if device.type == "cuda" else None)
    return box[0]


def gather(value: Value) -> list[Value]:
    """Return the values of all processes in the order of their ranks."""
    if not is_joined():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
