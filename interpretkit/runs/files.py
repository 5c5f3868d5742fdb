"""Small tools for files: written whole or not at all, held, hashed, and JSON that every reader accepts."""

from __future__ import annotations

import csv
import dataclasses
import enum
import hashlib
import json
import math
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from interpretkit.errors import InputError
from interpretkit.runs.streams import printable

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

# Either one mapping per row, or one column (a sequence or array) per name.
Table = Iterable[Mapping[str, Any]] | Mapping[str, Iterable[Any]]


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a hidden path beside `path` to write to, and rename it into place when the block ends well.

    Parameters
    ----------
    path : path
        Where the file shall be; its folder must exist.

    Yields
    ------
    pathlib.Path
        The path to write to, with the same ending (some writers choose the format by it).

    Notes
    -----
    When the block raises, `path` is left as it was and the hidden file is removed.
    """
    path = Path(path)
    hidden = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    hidden.touch()
    mode = stat.S_IMODE(hidden.stat().st_mode)
    try:
        yield hidden
        hidden.chmod(mode)  # some writers make files that nobody else may read
        os.replace(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)


def here() -> Path | None:
    """Return the current folder; None if it has been removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


@contextmanager
def held(folder: Path | str) -> Iterator[bool | None]:
    """Hold a folder during the block, so that other processes can tell that somebody is at work in it.

    The system lets go of the folder when this process and those forked from it are gone, however they end.
    Renaming the folder changes nothing.

    Parameters
    ----------
    folder : path
        A folder that exists.

    Yields
    ------
    bool or None
        True if the folder is held now; False if somebody else holds it; None if that cannot be told, because
        the folder is gone, or the operating system or the file system knows no locks.
    """
    descriptor: int | None = None
    answer: bool | None = None
    if fcntl is not None:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # What was removed or replaced between the two steps is held, but it is not this folder any more.
            answer = os.path.samestat(os.fstat(descriptor), os.stat(folder)) or None
        except BlockingIOError:
            answer = False
        except OSError:
            answer = None
    try:
        yield answer
    finally:
        if descriptor is not None:
            os.close(descriptor)


def sha256(path: Path | str) -> str:
    """Return the SHA-256 of a file, or of a folder's files with their names, as 64 hexadecimal digits."""
    path = Path(path)
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        # A name need not be UTF-8; its bytes are what they are.
        name = file.relative_to(path).as_posix().encode("utf-8", "surrogateescape")
        digest.update(name + f"\0{sha256(file)}\n".encode())
    return digest.hexdigest()


def to_jsonable(value: Any) -> Any:
    """Turn a value into what JSON has: NaN and infinities become null, arrays become lists.

    Parameters
    ----------
    value : object
        Any nesting of mappings, sequences, sets, dataclasses, enumerations, paths, NumPy or torch scalars and
        arrays.

    Returns
    -------
    object
        The same in dict, list, str, int, float, bool and None. What is none of these is written as its
        ``str``; text as :func:`interpretkit.runs.streams.printable` returns it.
    """
    if value is None or (isinstance(value, (bool, int)) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        return printable(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, enum.Enum):
        return to_jsonable(value.value)
    # Arrays and scalars of NumPy and torch are known by their method, so that neither need be imported.
    if hasattr(value, "tolist"):
        return to_jsonable(value.tolist())
    if isinstance(value, Mapping):
        return {str(to_jsonable(key)): to_jsonable(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: to_jsonable(getattr(value, field.name)) for field in fields}
    if isinstance(value, (set, frozenset)):
        return sorted((to_jsonable(item) for item in value), key=str)
    if isinstance(value, (list, tuple)):
        return [to_jsonable(item) for item in value]
    return printable(str(value))


def dump_json(value: Any, *, indent: int | None = None) -> str:
    """Return `value` as JSON text after :func:`to_jsonable`; on one line unless `indent` is given."""
    return json.dumps(to_jsonable(value), indent=indent, ensure_ascii=False, allow_nan=False)


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_path(path) as hidden:
        hidden.write_text(dump_json(value, indent=2) + "\n", encoding="utf-8")


def write_table(path: Path | str, rows: Table) -> None:
    """Write a table as CSV, atomically.

    Parameters
    ----------
    path : path
        The file to write.
    rows : iterable of mappings, or mapping of columns
        Either one mapping per row, or one equally long sequence ``(n,)`` per column. The columns stand in the
        order in which they first appear; what a row lacks, and None, is left empty.

    Raises
    ------
    ValueError
        If columns differ in length.
    """
    table: list[dict[str, Any]]
    if isinstance(rows, Mapping):
        columns = {str(name): list(column) for name, column in rows.items()}
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of {Path(path).name} differ in length: {lengths}")
        table = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        names = list(columns)
    else:
        table = [dict(row) for row in cast(Iterable[Mapping[str, Any]], rows)]
        names = list(dict.fromkeys(name for row in table for name in row))
    with atomic_path(path) as hidden, hidden.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([_cell(name) for name in names])
        writer.writerows([_cell(row.get(name)) for name in names] for row in table)


def read_table(path: Path | str, *needed: str, empty: bool = False) -> list[dict[str, str]]:
    """Return the rows of a CSV file whose first line names the columns.

    Parameters
    ----------
    path : path
        The file, in UTF-8.
    *needed : str
        Columns that it must have; others may stand beside them.
    empty : bool
        Take a table without rows too.

    Raises
    ------
    InputError
        If it cannot be read, or lacks rows or a column that is needed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a table (CSV)")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, restval="", restkey="")
            rows, names = list(reader), reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table (CSV) ({error})") from error
    if not names or not (rows or empty):
        raise InputError(f"{path}: holds no rows; expected a table (CSV) with a line of column names")
    for name in needed:
        if name not in names:
            raise InputError(f"{path}: has no column {name!r}; expected {', '.join(needed)}")
    return [{key: value for key, value in row.items() if key} for row in rows]


def _cell(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") and getattr(value, "size", 1) == 1 else value
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, (bool, int)) or value is None:
        return value
    return dump_json(value)
