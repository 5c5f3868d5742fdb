"""Compiled code where the package is read-only, the home cannot be written to, or the disk is full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import pytest
from numba.core import caching as numbas

from catalysis.path_homology import caching, fast

SOURCES = "a digest of its own"


def swept(functions: tuple[Any, ...]) -> float:
    """Return what the first function says of a triangle: the birth of its loop."""
    import numpy as np

    arrows, weights = np.array([[0, 1], [1, 2], [2, 0]]), np.array([1.0, 1.0, 2.5])
    bars, _, bad = functions[0](
        np.array([3]), np.array([0, 3]), arrows, weights, 1, 2, True, 0, 1, fast.ROOM_FOR_64
    )
    assert bad == -1
    return float(bars[-1, 0])


def refuse(*_: object) -> None:
    raise PermissionError(30, "Read-only file system")


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make every folder of numba's own refuse to be written to; the temporary folder is under tmp_path."""
    for locator in (numbas.InTreeCacheLocator, numbas.UserWideCacheLocator):
        monkeypatch.setattr(locator, "ensure_cache_path", refuse)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_read_only_package_is_kept_compiled_in_a_private_folder(read_only: Path) -> None:
    with pytest.raises(RuntimeError, match="cannot cache"):
        fast.entries(SOURCES)
    assert swept(caching.kept_compiled(fast.entries, SOURCES)) == 2.5
    (folder,) = read_only.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.rglob("*.nbi"))
    assert not numba.config.CACHE_DIR  # type: ignore[attr-defined]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="permissions of POSIX")
def test_what_others_may_write_to_is_not_run(read_only: Path) -> None:
    folder = caching.temporary_folder()
    assert folder is not None
    folder.chmod(0o777)
    assert caching.temporary_folder() is None
    folder.rmdir()
    (read_only / "elsewhere").mkdir()
    folder.symlink_to(read_only / "elsewhere")
    assert caching.temporary_folder() is None
    assert swept(caching.kept_compiled(fast.entries, SOURCES)) == 2.5
    assert list(read_only.rglob("*.nbi")) == []


def test_without_any_folder_nothing_is_kept(read_only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(read_only / "none"))
    assert caching.temporary_folder() is None
    assert swept(caching.kept_compiled(fast.entries, SOURCES)) == 2.5


def test_a_full_disk_loses_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = caching.kept_compiled(fast.entries, "another digest")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(numbas.IndexDataCacheFile, "save", full)
    assert swept(functions) == 2.5


def test_the_package_needs_no_home(tmp_path: Path) -> None:
    code = (
        "from numba.core import caching\n"
        "def refuse(*_): raise PermissionError(30, 'Read-only file system')\n"
        "caching.InTreeCacheLocator.ensure_cache_path = refuse\n"
        "caching.UserWideCacheLocator.ensure_cache_path = refuse\n"
        "from catalysis.path_homology import engines\n"
        "print(engines.compiled().__name__)\n"
    )
    environment = {**os.environ, "HOME": "/nonexistent", "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "catalysis.path_homology.fast", done.stderr
