"""Arrays out of ``.npz`` files that anybody may have made: looked at by their headers, then unpacked."""

from __future__ import annotations

import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from interpretkit.errors import InputError

LIMIT_VARIABLE = "INTERPRETKIT_MOST_GB"
# What is read from a user's file without being asked for, unless the machine has less to spare.
USUAL_MOST_BYTES = 4 * 2**30
_EXPECTED = "expected an .npz file with named arrays, as numpy.savez writes it"
# What NumPy and zipfile raise for a damaged archive: the damage may be in its directory, in a member's compressed
# bytes, or in a member's header, which NumPy reads with Python's own tokenizer.
_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    SyntaxError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
)


@dataclass(frozen=True)
class Header:
    """What an archive says of one of its arrays.

    Attributes
    ----------
    shape : tuple of int
        Its shape.
    dtype : dtype
        Its type.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def bytes(self) -> int:
        """How much the array takes in memory."""
        return prod(self.shape) * self.dtype.itemsize


def load_npz(
    path: Path, names: Iterable[str] | None = None, *, most_bytes: int | None = None
) -> dict[str, np.ndarray]:
    """Return arrays of a file; see :func:`interpretkit.runs.folder.load_arrays`."""
    most = allowed_bytes() if most_bytes is None else most_bytes
    headers = read_headers(path)
    wanted = list(headers) if names is None else [name for name in dict.fromkeys(names) if name in headers]
    for name in wanted:
        if headers[name].dtype.hasobject:
            raise InputError(
                f"{path}: cannot be read (array {name!r} holds Python objects); expected numbers or strings"
            )
    total = sum(headers[name].bytes for name in wanted)
    if total > most:
        largest = max(wanted, key=lambda name: headers[name].bytes)
        raise InputError(
            f"{path}: would take {_size(total)} in memory ({largest!r} has shape {headers[largest].shape}); "
            f"expected at most {_size(most)}, or another limit in {LIMIT_VARIABLE}"
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in wanted}
    except MemoryError as error:
        raise InputError(f"{path}: does not fit into memory; it takes {_size(total)}") from error
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def read_headers(path: Path) -> dict[str, Header]:
    """Return what a file says of its arrays, in their order; none of them is unpacked.

    Raises
    ------
    InputError
        If the file is missing, empty, no ``.npz`` file, or damaged.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; {_EXPECTED}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; {_EXPECTED}")
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if not start:
                raise InputError(f"{path}: the file is empty; {_EXPECTED}")
            if start.startswith(b"\x93NUMPY"):
                raise InputError(f"{path}: holds a single array (.npy); {_EXPECTED}")
            if not start.startswith(b"PK"):
                raise InputError(f"{path}: cannot be read, it is no .npz file; {_EXPECTED}")
            with zipfile.ZipFile(file) as archive:
                return {
                    member.filename.removesuffix(".npy"): _header(path, archive, member)
                    for member in archive.infolist()
                    if not member.is_dir()
                }
    except InputError:
        raise
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def allowed_bytes() -> int:
    """Return how much an array file may take in memory.

    Half of what the machine has to spare, and 4 GiB at most; or what the environment variable
    ``INTERPRETKIT_MOST_GB`` says.

    Raises
    ------
    InputError
        If that variable holds anything but a number above 0.
    """
    said = os.environ.get(LIMIT_VARIABLE)
    if said:
        with suppress(ValueError, OverflowError):
            if float(said) > 0:
                return int(float(said) * 1e9)
        raise InputError(f"{LIMIT_VARIABLE} {said!r}: expected a number of gigabytes above 0")
    spare = spare_memory()
    return USUAL_MOST_BYTES if spare is None else min(USUAL_MOST_BYTES, spare // 2)


def spare_memory() -> int | None:
    """Return how many bytes of memory can be had now: by the machine, the container and the process's limit.

    None where none of them can be read.
    """
    found: list[int] = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        found.append(limit - int((group / "memory.current").read_text(encoding="ascii")))
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            found.append(soft)
    if not found:
        with suppress(AttributeError, OSError, ValueError):  # macOS has no /proc, Windows no sysconf
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return max(0, min(found)) if found else None


def _header(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Header:
    if not member.filename.endswith(".npy"):
        raise InputError(f"{path}: holds {member.filename!r}, which is no array; {_EXPECTED}")
    if member.flag_bits & 0x1:
        raise InputError(f"{path}: is encrypted; {_EXPECTED}")
    with archive.open(member) as file:
        shape, dtype, length = _read_header(file)
    header = Header(shape, dtype)
    # A header may promise anything. What is behind it can be no larger than the archive's directory says.
    if not dtype.hasobject and header.bytes != member.file_size - length:
        raise InputError(
            f"{path}: damaged; array {member.filename.removesuffix('.npy')!r} has shape {shape} and {dtype}, "
            f"which is {header.bytes} bytes, and holds {member.file_size - length}"
        )
    return header


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return an array's shape and type, and how long its header is in bytes."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version in ((2, 0), (3, 0)):
        # Version 3 differs in the encoding of the names of fields only, of which there are none in plain arrays.
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"an array has the format {version}")
    if any(side < 0 for side in shape):
        raise ValueError(f"an array has the shape {shape}")
    return shape, dtype, file.tell()


def _damaged(path: Path, error: Exception) -> InputError:
    words = (str(error) or type(error).__name__).splitlines()[0]
    return InputError(f"{path}: cannot be read ({words}); {_EXPECTED}")


def _size(count: int) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
