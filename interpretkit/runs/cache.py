"""Arrays that are dear to compute, kept on disk by what they were computed from, so that nobody computes them twice."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from interpretkit.errors import InputError
from interpretkit.runs.files import atomic_path

if TYPE_CHECKING:
    import numpy as np

VARIABLE = "INTERPRETKIT_CACHE"
"""The environment variable that names another folder for what is kept between runs."""


def cache_folder() -> Path:
    """Return the folder for what is kept between runs; it need not exist yet.

    That is what INTERPRETKIT_CACHE names, else `interpretkit` in the system's folder for such things.
    """
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "interpretkit"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "interpretkit" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "interpretkit"


class RowCache:
    """Rows of numbers, each under a key of its content, in a folder of `.npz` files that several processes may share.

    Files are written whole or not at all and never changed, so that readers need no lock; rows that two processes
    computed at the same time are there twice, and alike. A file that cannot be read counts as absent.

    Parameters
    ----------
    folder : path
        Made when the first rows are written.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def read(self, keys: Iterable[str]) -> dict[str, np.ndarray]:
        """Return the rows that are there, by key, (width,) each."""
        import numpy as np

        wanted = set(keys)
        found: dict[str, np.ndarray] = {}
        for path in sorted(self.folder.glob("*.npz")):
            if len(found) == len(wanted):
                break
            if path.name.startswith("."):
                continue  # being written
            try:
                with np.load(path, allow_pickle=False) as file:
                    here = file["keys"].tolist()
                    if not wanted.isdisjoint(here):
                        rows = file["rows"]
                        found.update({key: rows[k] for k, key in enumerate(here) if key in wanted})
            except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile):
                continue  # torn by a full disk or another program: what it held is computed anew
        return found

    def write(self, rows: Mapping[str, np.ndarray]) -> None:
        """Keep rows of one width by their keys, in a file of their own.

        Raises
        ------
        InputError
            If the folder cannot be written to.
        """
        import numpy as np

        names = sorted(rows)
        name = hashlib.sha256("\n".join(names).encode()).hexdigest()[:32]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.folder / f"{name}.npz") as hidden, hidden.open("wb") as file:
                np.savez(file, keys=np.array(names), rows=np.stack([rows[key] for key in names]))
        except OSError as error:
            raise InputError(
                f"{self.folder}: cannot be written to ({error.strerror or error}); expected {VARIABLE} to name a "
                "folder that can"
            ) from error
