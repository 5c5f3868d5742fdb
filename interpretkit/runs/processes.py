"""The processes that torchrun starts together, as their environment tells; nothing is imported to find out."""

from __future__ import annotations

import os
from dataclasses import dataclass

from interpretkit.errors import InputError


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes
    ----------
    rank : int
        This process, from 0.
    size : int
        How many there are.
    local_rank : int
        This process among those on the same machine, from 0.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints and saves."""
        return self.rank == 0


def world() -> World:
    """Return the processes as torchrun describes them in RANK, WORLD_SIZE and LOCAL_RANK.

    Raises
    ------
    InputError
        If one of the three is no number.
    """
    values = {}
    for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")):
        text = os.environ.get(name, default)
        if not text.isdigit():
            raise InputError(f"environment variable {name}={text!r}: expected a number, as torchrun sets it")
        values[name] = int(text)
    return World(values["RANK"], values["WORLD_SIZE"], values["LOCAL_RANK"])


def are_several() -> bool:
    """Tell whether torchrun started several processes."""
    told = all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"))
    return told and world().size > 1


def is_helper() -> bool:
    """Tell whether torchrun started this process beside the one that prints and saves."""
    return are_several() and not world().is_main
