"""Batches of tensors that fit in memory, in an order that a seed and the number of the epoch determine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist

from interpretkit.training.distributed import is_joined
from interpretkit.training.seeds import torch_generator


class TensorBatches:
    """Goes through tensors in shuffled batches, anew each time it is iterated over.

    For tables of a few thousand rows this takes a small part of the time of torch's ``DataLoader``, and since
    the order of an epoch depends on nothing but the seed and the epoch's number, resumed training sees the
    same batches. Where several processes train together, each gets its share of every batch; a batch too small to be
    shared out is left out.

    Parameters
    ----------
    tensors : mapping of str to torch.Tensor
        Each ``(n, ...)``.
    batch_size : int
        Rows in a batch, of all processes together; the last one has what is left.
    seed : int
        Seed of the order.
    shuffle : bool
        Whether to shuffle at all.

    Raises
    ------
    ValueError
        If the tensors differ in length, there is none, or `batch_size` is below 1.
    """

    def __init__(
        self, tensors: Mapping[str, torch.Tensor], batch_size: int, *, seed: int = 0, shuffle: bool = True
    ) -> None:
        lengths = {name: len(tensor) for name, tensor in tensors.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"expected tensors of one length, not {lengths}")
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size}: expected at least 1")
        self.tensors = dict(tensors)
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.n = next(iter(lengths.values()))
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration follows."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def rows(self) -> Iterator[torch.Tensor]:
        """Give the rows of the epoch's batches, whole: the same in every process."""
        if self.shuffle:
            order = torch.randperm(self.n, generator=torch_generator(self.seed, "batches", self._epoch))
        else:
            order = torch.arange(self.n)
        size = dist.get_world_size() if is_joined() else 1
        return (batch for batch in order.split(self.batch_size) if len(batch) >= size)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for batch in self.rows():
            rows = shared_out(batch)
            yield {name: tensor[rows.to(tensor.device)] for name, tensor in self.tensors.items()}


def shared_out(batch: torch.Tensor) -> torch.Tensor:
    """Return this process's share of a batch ``(n, ...)``: every one of as many rows as processes train together."""
    return batch[dist.get_rank() :: dist.get_world_size()] if is_joined() else batch
