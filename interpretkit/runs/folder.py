"""A run's folder: written whole or not at all, with a manifest that says how it came about."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import platform
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from interpretkit.errors import InputError
from interpretkit.runs.dependencies import dependencies
from interpretkit.runs.environment import versions
from interpretkit.runs.files import Table, dump_json, held, here, sha256, to_jsonable, write_json, write_table
from interpretkit.runs.streams import printable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from matplotlib.figure import Figure

MANIFEST = "manifest.json"
FORMAT = "interpretkit-run"
FORMAT_VERSION = 1
_UNFINISHED = "unfinished"
# In bytes, of a file's name: file systems take 255, and a hidden name for writing is longer by a few.
LONGEST_NAME, LONGEST_ENDING = 200, 12
# Left behind by file browsers; they make a result no less ours.
_LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}


class Run:
    """A run under way: where its files are written, and what its manifest will say.

    Made by :func:`run_folder`, never directly.

    Attributes
    ----------
    out : pathlib.Path
        Where the result will be once the run has ended well.
    folder : pathlib.Path
        The hidden folder beside it that is written to meanwhile.
    work : dict
        What makes it the same work when it is run again: ``command``, ``arguments`` and ``seed``.
    summary : dict
        The run's headline figures; they end in the manifest.
    described : dict
        What the manifest says of figures and columns: units and meanings.
    inputs : list of dict
        The files and folders that were read, with their SHA-256.
    discarded : bool
        Whether nothing of it is wanted; an earlier result then stays as it is.
    """

    def __init__(self, out: Path, folder: Path, work: Mapping[str, Any]) -> None:
        self.out = out
        self.folder = folder
        self.work = work
        self.summary: dict[str, Any] = {}
        self.described: dict[str, Any] = {}
        self.inputs: list[dict[str, Any]] = []
        self.discarded = False
        self._afterwards: list[Callable[[], None]] = []

    def afterwards(self, action: Callable[[], None]) -> None:
        """Have something done once the result is in place, such as removing what kept it safe until then."""
        self._afterwards.append(action)

    def read(self, paths: Iterable[Path | str]) -> None:
        """Note files and folders that are read; their SHA-256 goes into the manifest.

        Raises
        ------
        InputError
            If one does not exist or cannot be read.
        """
        known = {entry["path"] for entry in self.inputs}
        self.inputs += [_describe_data(Path(path)) for path in paths if str(path) not in known]

    @contextmanager
    def kept(
        self, *depends_on: Any, files: Iterable[Path | str] = (), without: Iterable[str] = ()
    ) -> Iterator[Path]:
        """Give a hidden folder for long work, in which the same command goes on where it stopped.

        Parameters
        ----------
        depends_on
            What the work depends on besides command, arguments and seed, such as the digest of a network.
        files : iterable of paths
            Files and folders that are read, whose contents count.
        without : iterable of str
            Arguments that it does not depend on, such as how many repeats are wanted.

        Yields
        ------
        pathlib.Path
            See :func:`kept_until_done`.
        """
        left = set(without)
        arguments = {name: value for name, value in self.work["arguments"].items() if name not in left}
        with kept_until_done(self.out, [{**self.work, "arguments": arguments}, *depends_on], files) as folder:
            yield folder

    def path(self, name: str) -> Path:
        """Return the path to write the file `name` to, inside the hidden folder; subfolders are made.

        A name may come from a user's file: what no other system takes in it is spelled out, and what is too long
        for a file system is cut.

        Raises
        ------
        ValueError
            If `name` leads out of the folder, or is the manifest's.
        """
        name = "/".join(_portable(part) for part in name.split("/"))
        path = self.folder / name
        if path.resolve() == self.folder.resolve() or not path.resolve().is_relative_to(
            self.folder.resolve()
        ):
            raise ValueError(f"{name!r} leads out of the run's folder")
        if name == MANIFEST:
            raise ValueError(f"{MANIFEST} is written by the run itself")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def save_arrays(self, name: str, /, **arrays: np.ndarray | Sequence[Any] | float) -> Path:
        """Write named arrays as compressed ``.npz``; object arrays are refused, for they would be pickled.

        Raises
        ------
        TypeError
            If an array holds Python objects.
        """
        import numpy as np

        converted = {printable(key): np.asarray(value) for key, value in arrays.items()}
        for key, array in converted.items():
            if array.dtype.hasobject:
                raise TypeError(f"array {key!r} of {name} holds Python objects; give numbers or strings")
        path = self.path(name)
        with path.open("wb") as file:
            np.savez_compressed(file, **converted)  # type: ignore[arg-type]
        return path

    def save_table(self, name: str, rows: Table) -> Path:
        """Write rows (mappings) or columns (a mapping of sequences ``(n,)``) as CSV."""
        path = self.path(name)
        write_table(path, rows)
        return path

    def save_tensors(
        self, name: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any] | None = None
    ) -> Path:
        """Write named tensors as ``.safetensors``; what in `metadata` is not text is written as JSON."""
        from safetensors.torch import save_file

        path = self.path(name)
        text = {
            key: printable(value) if isinstance(value, str) else dump_json(value)
            for key, value in (metadata or {}).items()
        }
        save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, path, text)
        return path

    def save_figure(self, name: str, figure: Figure) -> Path:
        """Write a figure in the format of the name's ending."""
        path = self.path(name)
        figure.savefig(path, dpi=160, bbox_inches="tight")
        return path

    def save_text(self, name: str, text: str) -> Path:
        """Write text in UTF-8."""
        path = self.path(name)
        path.write_text(printable(text), encoding="utf-8")
        return path

    def save_json(self, name: str, value: Any) -> Path:
        """Write a value as JSON; NaN becomes null."""
        path = self.path(name)
        write_json(path, value)
        return path


@contextmanager
def run_folder(
    out: Path | str,
    command: str,
    arguments: Mapping[str, Any] | None = None,
    seed: int | None = None,
    data: Iterable[Path | str] = (),
) -> Iterator[Run]:
    """Open a run whose files appear under `out` only if the block ends well.

    Everything is written into a hidden folder beside `out`, which is renamed into place at the end and
    removed after an exception or an interruption. What killed runs into `out` have left behind is removed
    before the block starts, and everything that could refuse the result later is checked.

    Parameters
    ----------
    out : path
        The result's folder. It may be absent, empty, or an earlier result, which is then replaced when the
        run ends.
    command : str
        The command as a user types it, such as ``catalyst design``.
    arguments : mapping, optional
        Its arguments; anything that :func:`interpretkit.runs.files.to_jsonable` can write.
    seed : int, optional
        The seed of all randomness in the run.
    data : iterable of paths
        The files or folders that the run reads; their SHA-256 goes into the manifest.

    Yields
    ------
    Run
        To save files with, and to put the headline figures into ``run.summary``.

    Raises
    ------
    InputError
        If `out` is a file, a folder with anything in it that is not an earlier result, the current folder, or
        cannot be written to; or if a path of `data` does not exist.
    """
    out = Path(out)
    final = _absolute(out)
    _check_replaceable(out, final)
    inputs = [_describe_data(Path(path)) for path in data]
    _clear_leftovers(final)
    made = [parent for parent in final.parents if not parent.exists()]
    with ExitStack() as holding:
        try:
            hidden = _make_hidden(final, holding)
        except OSError as error:
            _remove_empty(made)
            raise InputError(
                f"out {out}: cannot be made ({error.strerror or error}: {error.filename}); "
                "expected a folder that can be written to"
            ) from error

        started, clock = datetime.now(UTC), time.monotonic()
        run = Run(final, hidden, {"command": command, "arguments": dict(arguments or {}), "seed": seed})
        run.inputs = inputs
        try:
            yield run
            if run.discarded:
                return
            manifest = {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "command": command,
                "arguments": dict(arguments or {}),
                "seed": seed,
                "started": started.isoformat(timespec="seconds"),
                "duration_seconds": round(time.monotonic() - clock, 3),
                "versions": versions(),
                "data": run.inputs,
                "files": _describe_files(hidden),
                "summary": run.summary,
                **({"described": run.described} if run.described else {}),
            }
            write_json(hidden / MANIFEST, manifest)
            # Looked at again because hours may have passed since the first look.
            _check_replaceable(out, final)
            _move_into_place(hidden, final)
            for action in run._afterwards:
                action()
        finally:
            if hidden.exists():
                shutil.rmtree(hidden, ignore_errors=True)
                _remove_empty(made)


@contextmanager
def kept_until_done(out: Path | str, work: Any, files: Iterable[Path | str] = ()) -> Iterator[Path]:
    """Give a hidden folder beside `out` for long work, in which the same work goes on where it stopped.

    Work is the same if nothing is different that its result may depend on: `work`, the contents of `files`, and by
    themselves all versions and this project's source. A network belongs into `work` with its
    :meth:`~cnn_interp.networks.loading.Network.digest`, for its name says neither which weights nor whose code it has.

    The folder is removed when the block ends well, after an InputError, and when nothing is in it. It stays
    after any other exception, an interruption, or a kill. When the block ends well, what other work for `out` has
    left goes as well, unless a living process is at it: nobody will ask for it again.

    Parameters
    ----------
    out : path
        The folder of the result.
    work : object
        What makes it the same work: arguments, the seed, the digest of a network; anything that
        :func:`interpretkit.runs.files.to_jsonable` can write.
    files : iterable of paths
        Files and folders that are read.

    Yields
    ------
    pathlib.Path
        The folder, with what the same work left in it.

    Raises
    ------
    InputError
        If another process is doing the same work, or no folder can be made there.
    """
    final = _absolute(out)
    stamp = [work, [[str(path), _digest_of(path)] for path in files], dependencies()]
    digest = hashlib.sha256(dump_json(stamp).encode()).hexdigest()[:12]
    folder = final.with_name(f".{final.name}.{_UNFINISHED}-{digest}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"out {out}: cannot be made ({error.strerror or error}: {error.filename}); expected a folder that "
            "can be written to"
        ) from error
    with held(folder) as ours:
        if ours is False:
            raise InputError(f"out {out}: the same command is at work on it; expected one at a time")
        keep = False
        try:
            yield folder
            _clear_unfinished(final, folder)
        except InputError:
            raise
        except BaseException:
            keep = any(file.is_file() and file.stat().st_size for file in folder.rglob("*"))
            raise
        finally:
            if keep:
                print(f"what is done is kept in {folder}; the same command goes on from it", file=sys.stderr)
            else:
                shutil.rmtree(folder, ignore_errors=True)


def _digest_of(path: Path | str) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _clear_unfinished(final: Path, ours: Path) -> None:
    """Remove what other work for the same result has left, but for what a living process is at."""
    pattern = glob.escape(f".{final.name}.{_UNFINISHED}-") + "[0-9a-f]" * 12
    for folder in final.parent.glob(pattern):
        if folder == ours or not folder.is_dir():
            continue
        with held(folder) as free:
            if free:
                shutil.rmtree(folder, ignore_errors=True)


def load_manifest(folder: Path | str) -> dict[str, Any]:
    """Return the manifest of a result.

    Parameters
    ----------
    folder : path
        A folder that :func:`run_folder` wrote.

    Raises
    ------
    InputError
        If the folder or its manifest is missing, unreadable, or not of this project.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected a result of interpretkit, with its {MANIFEST}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{folder}: has no {MANIFEST}; expected a result of interpretkit") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected the manifest of a result") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{path}: not a manifest of interpretkit; expected 'format': '{FORMAT}' in it")
    if manifest.get("format_version", 0) > FORMAT_VERSION:
        raise InputError(
            f"{path}: format version {manifest['format_version']}; this release reads up to {FORMAT_VERSION}"
        )
    return manifest


def load_arrays(
    path: Path | str, names: Iterable[str] | None = None, *, most_bytes: int | None = None
) -> dict[str, np.ndarray]:
    """Return the arrays of an ``.npz`` file; nothing in it is ever unpickled.

    The headers are read first. What they announce is refused before a byte is unpacked if it does not fit the
    file or the memory: a few megabytes of zeros may unpack to more than a machine has.

    Parameters
    ----------
    path : path
        A file that :meth:`Run.save_arrays` or :func:`numpy.savez` wrote.
    names : iterable of str, optional
        Which arrays; those that are missing are left out. All by default.
    most_bytes : int, optional
        How much they may take in memory; see :func:`interpretkit.runs.arrays.most_bytes`.

    Returns
    -------
    dict
        From name to array, with the shapes as they were saved.

    Raises
    ------
    InputError
        If the file is missing, empty, no ``.npz`` file, corrupt, too large, or holds Python objects.
    """
    from interpretkit.runs.arrays import load_npz

    return load_npz(Path(path), names, most_bytes=most_bytes)


class ResumableTable:
    """Rows of long work, appended to a file of JSON lines, so that a killed run goes on where it stopped.

    Each row is on the disk when :meth:`append` returns. A last line torn by a crash is dropped when the file
    is opened again. One process may write to a file at a time; give each shard a file of its own.

    Parameters
    ----------
    path : path
        The file; made, with its folder, if it does not exist.
    key : str
        The column that identifies a row.

    Raises
    ------
    InputError
        If the file holds a line, other than a torn last one, that is not a row with `key`.

    Examples
    --------
    >>> with ResumableTable(path, key="site") as table:                            # doctest: +SKIP
    ...     for site in sites:
    ...         if site.name not in table:
    ...             table.append({"site": site.name, "energy_ev": relax(site)})
    """

    def __init__(self, path: Path | str, key: str = "id") -> None:
        self.path = Path(path)
        self.key = key
        self._rows: dict[Any, dict[str, Any]] = {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        self._read()

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._file.truncate(whole)
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                row = json.loads(line)
                self._rows[row[self.key]] = row
            except (ValueError, KeyError, TypeError) as error:
                self._file.close()
                raise InputError(
                    f"{self.path}: line {number} is not a row with {self.key!r}; {error}"
                ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __contains__(self, identity: object) -> bool:
        return identity in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows, in the order in which they were appended. NaN has become None."""
        return list(self._rows.values())

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row and wait until it is on the disk.

        Raises
        ------
        KeyError
            If the row lacks the key.
        ValueError
            If a row with the same key is there already.
        """
        plain = to_jsonable(row)
        identity = plain[self.key]
        if identity in self._rows:
            raise ValueError(f"{self.path} already has a row with {self.key} = {identity!r}")
        self._file.write(dump_json(plain).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._rows[identity] = plain

    def close(self) -> None:
        """Close the file; the rows stay readable."""
        self._file.close()


def _absolute(out: Path | str) -> Path:
    """Return where a result will be, which later changes of the current folder do not touch."""
    try:
        return Path(out).resolve()
    except (FileNotFoundError, RuntimeError) as error:
        why = "the current folder is gone" if here() is None else "leads round in a circle"
        raise InputError(f"out {out}: {why}; expected a folder that can be written to") from error


def _portable(name: str) -> str:
    """Return a file's name such that it can be written in UTF-8, and is not too long."""
    plain = "".join(c if c.isprintable() else _percent(c) for c in name)
    stem, dot, ending = plain.rpartition(".")
    if not (dot and stem and len(ending) <= LONGEST_ENDING):
        stem, dot, ending = plain, "", ""
    room = LONGEST_NAME - len((dot + ending).encode())
    return stem.encode()[:room].decode(errors="ignore") + dot + ending


def _percent(character: str) -> str:
    code = printable(character).encode() if "\ud800" <= character < "\udc80" else b""
    return "".join(f"%{byte:02X}" for byte in code or character.encode("utf-8", "surrogateescape"))


def _check_replaceable(out: Path, final: Path) -> None:
    """Raise InputError unless `final` is absent, empty, or an earlier result with nothing added to it."""
    current = here()
    if current is not None and (final == current or final in current.parents):
        raise InputError(
            f"out {out}: is, or holds, the current folder; expected a folder of the result's own"
        )
    try:
        if not final.exists():
            return
        if not final.is_dir():
            raise InputError(f"out {out}: is a file; expected a folder, or a name that is still free")
        present = {p.relative_to(final).as_posix() for p in final.rglob("*") if not p.is_dir()}
    except OSError as error:
        raise InputError(f"out {out}: {error.strerror}; expected a folder that can be written to") from error
    present = {name for name in present if Path(name).name not in _LITTER}
    if not present:
        return
    try:
        manifest = load_manifest(final)
    except InputError as error:
        raise InputError(
            f"out {out}: the folder is not empty and holds no earlier result; expected a new, an empty or "
            "an earlier result's folder"
        ) from error
    foreign = sorted(present - set(manifest.get("files", {})) - {MANIFEST})
    if foreign:
        raise InputError(
            f"out {out}: holds an earlier result and {foreign[0]!r}, which is not part of it and would be "
            "lost; move it away or choose another folder"
        )


def _describe_data(path: Path) -> dict[str, Any]:
    try:
        files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        return {"path": str(path), "bytes": sum(f.stat().st_size for f in files), "sha256": sha256(path)}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in files
    }


def _hidden_name(final: Path, kind: str, token: str) -> str:
    # Locks may hold on one machine only, so leftovers are looked through on the machine that left them.
    machine = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
    return f".{final.name}.{kind}-{machine}-{token}"


def _make_hidden(final: Path, holding: ExitStack) -> Path:
    """Make the folder that a run writes to, and hold it as long as `holding` lasts."""
    while True:
        hidden = final.with_name(_hidden_name(final, "partial", secrets.token_hex(4)))
        hidden.mkdir(parents=True)
        ours = holding.enter_context(held(hidden))
        if ours or (ours is None and hidden.exists()):
            return hidden
        # Another run has taken it for a leftover in the moment before it was held.


def _clear_leftovers(final: Path) -> None:
    """Remove what killed runs into `final` have left beside it, and put back a result that they had set aside.

    What a living process holds stays, and so does what waits to be resumed.
    """
    for kind in ("partial", "replaced"):
        for folder in final.parent.glob(glob.escape(_hidden_name(final, kind, "")) + "[0-9a-f]" * 8):
            with held(folder) as ours:
                if not ours:
                    continue
                if kind == "replaced" and not final.exists() and _is_whole(folder):
                    with suppress(OSError):
                        os.rename(folder, final)
                else:
                    shutil.rmtree(folder, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    try:
        return all((folder / name).is_file() for name in load_manifest(folder).get("files", {}))
    except InputError:
        return False


def _move_into_place(hidden: Path, final: Path) -> None:
    """Rename `hidden` to `final`, setting an earlier result aside first and removing it last."""
    if not final.exists():
        os.rename(hidden, final)
        return
    aside = final.with_name(_hidden_name(final, "replaced", secrets.token_hex(4)))
    with held(final):
        os.rename(final, aside)
        try:
            os.rename(hidden, final)
        except BaseException:
            # Whatever interrupts the exchange, a whole result must stand under the name.
            os.rename(aside, final)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders, innermost first, as long as they are empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
