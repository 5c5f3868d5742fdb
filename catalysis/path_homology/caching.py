"""Where compiled code is kept: beside the source or in the user's home, else in a temporary folder, else nowhere.

Containers and clusters have packages that are read-only and homes that cannot be written to, or not written full.
Then numba refuses to begin, or fails when the first function has been compiled. Neither must keep anybody from a
result: without kept code a process compiles for some seconds at its start.
"""

from __future__ import annotations

import os
import pickle
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

__all__ = ["kept_compiled", "temporary_folder"]

Functions = tuple[Any, ...]


def kept_compiled(build: Callable[[str, bool], Functions], sources: str) -> tuple[Any, ...]:
    """Return functions that numba compiles and keeps compiled, wherever that can be done.

    Parameters
    ----------
    build : callable
        Takes `sources` and whether to keep what is compiled, and returns dispatchers of numba.
    sources : str
        A digest of the source; handed on.
    """
    try:
        return _patient(build, sources)
    except (RuntimeError, OSError):  # numba says RuntimeError where no folder of its own can be written to
        folder = temporary_folder()
    if folder is not None:
        before = numba.config.CACHE_DIR  # type: ignore[attr-defined]
        numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
        try:
            return _patient(build, sources)
        except (RuntimeError, OSError):
            pass
        finally:
            numba.config.CACHE_DIR = before  # type: ignore[attr-defined]
    return build(sources, False)


def temporary_folder() -> Path | None:
    """Return a folder for compiled code in the system's place for temporary files; None if there can be none.

    It belongs to this user, and nobody else may write to it: for what is in it will be run.
    """
    if not hasattr(os, "getuid"):
        return None  # on Windows a user's temporary folder lies in the home that could not be written to
    try:
        folder = Path(tempfile.gettempdir()) / f"interpretkit-numba-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return None
    private = stat.S_ISDIR(found.st_mode) and not found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    return folder if private and found.st_uid == os.getuid() else None


def _patient(build: Callable[[str, bool], Functions], sources: str) -> tuple[Any, ...]:
    kept = build(sources, True)
    return tuple(_unless_full(function, number, build, sources) for number, function in enumerate(kept))


def _unless_full(
    function: Callable[..., Any], number: int, build: Callable[[str, bool], Functions], sources: str
) -> Callable[..., Any]:
    """Return a function that is compiled anew, and not kept, where its folder cannot be read or is full."""
    chosen = [function]

    def call(*arguments: Any) -> Any:
        try:
            return chosen[0](*arguments)
        # Compiled code opens no file, so this is numba's: what is kept cannot be read or written, or is torn.
        except (OSError, EOFError, pickle.UnpicklingError):
            chosen[0] = build(sources, False)[number]
            return chosen[0](*arguments)

    return call
