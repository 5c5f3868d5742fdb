"""Networks that the project trained itself, loaded by the file that they were saved in.

A file says in its header of which kind it is. How each kind is built again stands in a closed table, so that a file
never decides what code runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from interpretkit.errors import InputError
from interpretkit.training import load_config

if TYPE_CHECKING:
    from cnn_interp.networks.network import Network

Builder = Callable[[Path, Mapping[str, Any], str, int], "Network"]

BUILDERS: Mapping[str, str] = MappingProxyType(
    {"interpretable-network": "cnn_interp.learning.saved_network:build"}
)
"""From the kind that a file's header names to ``module:function``.

The function takes the file, its configuration, ``pretrained`` or ``random``, and a seed, and returns the network on
the CPU.
"""


def load_saved(path: Path | str, *, weights: str = "pretrained", seed: int = 0) -> Network:
    """Return a network that was trained and saved here.

    Parameters
    ----------
    path : path
        The file, as :func:`interpretkit.training.save_model` wrote it, with ``kind`` in its configuration.
    weights : str
        ``random`` for the same network as it was before any training.
    seed : int
        Of random weights.

    Raises
    ------
    InputError
        If the file is missing, damaged, or of no known kind; or what it stands on cannot be had as it was.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"network {str(path)!r}: no such file; expected one that a command of cnn train saved"
        )
    config = load_config(path)
    kind = str(config.get("kind"))
    if kind not in BUILDERS:
        raise InputError(f"network {str(path)!r}: is of kind {kind!r}; expected one of {', '.join(BUILDERS)}")
    module, _, name = BUILDERS[kind].partition(":")
    build: Builder = getattr(importlib.import_module(module), name)
    return build(path, config, weights, seed)
