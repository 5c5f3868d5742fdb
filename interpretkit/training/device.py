"""Where to compute."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from interpretkit.errors import InputError

NAMES = ("auto", "cpu", "cuda", "mps")


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """Return the device that a name stands for.

    Parameters
    ----------
    name : str or torch.device
        ``auto`` (a CUDA GPU if there is one, else Apple's, else the CPU), ``cpu``, ``cuda``, ``cuda:1`` … or
        ``mps``.

    Raises
    ------
    InputError
        If the name is unknown or the machine has no such device.
    """
    if isinstance(name, torch.device):
        name = str(name)
    if name == "auto":
        for candidate in ("cuda", "mps"):
            if _count(candidate):
                return torch.device(candidate)
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind not in NAMES[1:] or (index and not index.isdigit()):
        raise InputError(f"device {name}: expected one of {', '.join(NAMES)}, or cuda:N")
    count = _count(kind)
    if count == 0:
        raise InputError(f"device {name}: this torch ({torch.__version__}) finds none; expected auto or cpu")
    if index and int(index) >= count:
        raise InputError(f"device {name}: there are {count}; expected {kind}:0 to {kind}:{count - 1}")
    return torch.device(name)


def describe_device(device: torch.device) -> str:
    """Return the device's name as its maker gives it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"Apple {platform.machine()}"
    return _cpu_name()


def set_threads(number: int | None = None) -> int:
    """Set the number of CPU threads that torch uses within an operation, and return it.

    Parameters
    ----------
    number : int, optional
        By default all the cores that this process may use, which in a container or a batch job are fewer than
        the machine has.

    Raises
    ------
    InputError
        If `number` is below 1.
    """
    if number is None:
        number = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if number < 1:
        raise InputError(f"{number} threads: expected at least 1")
    torch.set_num_threads(number)
    return number


def _count(kind: str) -> int:
    if kind == "cuda":
        return torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    return 1


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # no Linux
        pass
    return platform.processor() or platform.machine()
