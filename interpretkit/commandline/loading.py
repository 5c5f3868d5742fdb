"""A word on stderr before a large package is imported, for that takes seconds in which nothing else is seen."""

from __future__ import annotations

import importlib.abc
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType

# Packages that take more than a quarter of a second to import; no help and no refused option waits for them.
HEAVY = frozenset(
    {
        "ase", "captum", "chgnet", "e3nn", "gudhi", "h5py", "joblib", "matplotlib", "numba", "pymatgen", "scipy",
        "sevenn", "skimage", "sklearn", "timm", "torch", "torch_geometric", "torchvision",
    }
)  # fmt: skip
# One package brings another along at once; of these only the first is told.
AT_MOST_EVERY_SECONDS = 1.0


class _Announcer(importlib.abc.MetaPathFinder):
    """Finds no module, but says which heavy one is being looked for."""

    only_tells = True

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._last = float("-inf")

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in HEAVY and fullname not in self._told:
            self._told.add(fullname)
            now = time.monotonic()
            if now - self._last >= AT_MOST_EVERY_SECONDS:
                self._last = now
                print(f"loading {fullname} …", file=sys.stderr, flush=True)
        return None


@contextmanager
def announced_loading(*, quiet: bool = False) -> Iterator[None]:
    """Say on stderr which large packages are imported during the block, as each begins.

    Parameters
    ----------
    quiet : bool
        Say nothing.
    """
    if quiet:
        yield
        return
    announcer = _Announcer()
    sys.meta_path.insert(0, announcer)
    try:
        yield
    finally:
        sys.meta_path.remove(announcer)
