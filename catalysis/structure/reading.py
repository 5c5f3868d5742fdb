"""Structures as people have them: files, folders, data bases and trajectories of slabs, one structure per calculation.

A file that a program writes while it relaxes a structure (`OUTCAR`, `vasprun.xml` …) counts once, by its last step.
So do consecutive frames of any other file that are steps of one path: the same elements in the same order in the same
cell, no atom moved by more than `LARGEST_STEP` from one frame to the next, and nothing in `info` that tells them apart
(an adsorption energy, a name of slab or site). Rows of a data base are calculations of their own.

Frames are read one after the other, so that a file may be larger than the memory.
"""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import json
import lzma
import re
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.geometry import complete_cell, find_mic
from ase.io import iread as ase_iread
from ase.io.extxyz import read_xyz
from ase.io.formats import UnknownFileTypeError, filetype, ioformats

from catalysis.structure.elements import METALS
from interpretkit.errors import InputError

ENERGY_KEY = "adsorption_energy_eV"
"""Where a frame's adsorption energy is looked for, in `info`."""

LARGEST_STEP = 0.5
"""Consecutive frames of one path differ by less than this, in Å and for every atom; optimizers take up to 0.2 Å."""

_METAL_NUMBERS = sorted(atomic_numbers[symbol] for symbol in METALS)
_SAME_SLAB = 0.5  # Å: frames of one file whose metals stand nearer than this are of one slab
_SAME_CELL = 1e-3  # Å
_LARGEST_UNPACKED = 8 * 1024**3  # bytes, of files that are not read as they are unpacked
_LARGEST_FRAME = 256 * 1024**2  # characters
_PART = 65536  # bytes that are read at a time

_COMPRESSED = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_DATA_BASES = frozenset({"db", "json"})
_ONE_CALCULATION = frozenset(
    {
        "abinit-out", "aims-output", "castep-castep", "castep-geom", "castep-md", "cp2k-dcd", "dmol-arc",
        "espresso-out", "gaussian-out", "gpaw-out", "lammps-dump-binary", "lammps-dump-text", "netcdftrajectory",
        "nwchem-out", "onetep-out", "orca-output", "turbomole-gradient", "vasp-out", "vasp-xdatcar", "vasp-xml",
    }
)  # fmt: skip
"""ASE's formats whose files hold the steps of one calculation and never anything else."""

_REFUSED_FORMATS = frozenset({"bundletrajectory"})  # its older files are pickles

_NOT_STRUCTURES = frozenset(
    {
        ".csv", ".txt", ".md", ".html", ".png", ".pdf", ".svg", ".jpg", ".npz", ".npy", ".jsonl", ".log", ".err", ".sh",
        ".py", ".ipynb", ".yaml", ".yml", ".toml", ".ini", ".slurm", ".lock", ".safetensors", ".dat", ".gpw", ".h5",
    }
)  # fmt: skip
"""Suffixes of files that may lie beside structures in a folder."""

# What VASP leaves in a folder, the most telling first: of one calculation only the first that is there is read.
_VASP_STRUCTURES = ("VASPRUN.XML", "OUTCAR", "CONTCAR", "XDATCAR", "POSCAR")
_VASP_REST = frozenset(
    {
        "INCAR", "KPOINTS", "POTCAR", "WAVECAR", "CHGCAR", "CHG", "DOSCAR", "EIGENVAL", "IBZKPT", "OSZICAR", "PCDAT",
        "PROCAR", "LOCPOT", "REPORT", "AECCAR0", "AECCAR1", "AECCAR2", "ELFCAR", "VASPOUT.H5", "VDW_KERNEL.BINDAT",
    }
)  # fmt: skip
# Of the files that a command of the toolkit left in a folder: (the one to read, what it replaces).
_OWN_RESULTS = (("sites.extxyz", "lost.extxyz"), ("slabs.extxyz", "designs.extxyz"))
_NAMES_OF_NOTHING = frozenset(
    {*_VASP_STRUCTURES, "VASPRUN", "POSCAR", "CONTCAR", "RELAX", "OPT", "INIT", "FINAL"}
)

# Entries of `info` by which frames are told apart whatever their kind; of the others only text counts, for numbers
# (a step, a force, a time) differ from step to step.
_NAMING_KEYS = frozenset(
    {
        "slab_id",
        "site_id",
        "site",
        "site_class",
        "facet",
        "contacts",
        "id",
        "uid",
        "unique_id",
        "name",
        "system",
    }
)


@dataclass(frozen=True)
class Structure:
    """A structure and where it is from.

    Attributes
    ----------
    where : str
        File and frame, for messages.
    label : str
        A short name that nothing else from the same source has.
    slab : str
        A name that it shares with the other structures of the same slab.
    atoms : Atoms
        The structure.
    steps : int
        Of how many steps of one path it is the last; 1 if it stands alone.
    """

    where: str
    label: str
    slab: str
    atoms: Atoms
    steps: int = 1


def read_structures(path: str | Path, *, energy_key: str = ENERGY_KEY) -> Iterator[tuple[str, str, Atoms]]:
    """Yield every structure of a file that ASE reads, or of a folder of such files.

    Parameters
    ----------
    path : str or Path
    energy_key : str
        As for `iterate_structures`.

    Yields
    ------
    tuple
        `where`, `label` and `atoms` of each `Structure`; where it shares a slab with others, `info` names both.

    Raises
    ------
    InputError
        If the path is missing, empty or unreadable.
    """
    for found in iterate_structures(path, energy_key=energy_key):
        if found.slab != found.label:
            # Whoever goes by the label alone would take the sites of one slab for slabs of their own.
            found.atoms.info.setdefault("slab_id", found.slab)
            found.atoms.info.setdefault("site_id", found.label)
        yield found.where, found.label, found.atoms


def iterate_structures(path: str | Path, *, energy_key: str = ENERGY_KEY) -> Iterator[Structure]:
    """Yield every structure of a file that ASE reads, or of a folder of such files, with its names.

    Parameters
    ----------
    path : str or Path
        extxyz, ASE db (also json), a trajectory, POSCAR/CONTCAR, OUTCAR, vasprun.xml, CIF …, also compressed by gzip,
        bzip2 or xz; or a folder of such files, at any depth. Hidden files and what is known to be no structure are
        passed over; of the files of one VASP calculation the most telling one is read.
    energy_key : str
        Frames that differ in this entry of `info` are no steps of one path.

    Raises
    ------
    InputError
        If the path is missing, empty or unreadable.
    """
    source = Path(path)
    if not source.exists():
        raise InputError(f"{source}: no such file or folder; expected structures that ASE reads")
    files = [source]
    if source.is_dir():
        files = _structure_files(source)
        if not files:
            raise InputError(f"{source}: an empty folder; expected structures that ASE reads")
    for file, name in zip(files, _names(files, source), strict=True):
        yield from _structures_of(file, name, energy_key)


def _structures_of(file: Path, name: str, energy_key: str) -> Iterator[Structure]:
    """Yield the structures of a file as its frames are read: each when the next frame shows that its path has ended."""
    form = _format_of(file)
    word = "row" if form in _DATA_BASES else "frame"
    slabs = _Slabs(form)
    held: tuple[int, Atoms, int] | None = None  # the last frame, its number, and how many steps lead to it
    alone, several = True, False

    def structure(number: int, atoms: Atoms, steps: int) -> Structure:
        slab = slabs.first(number, atoms)
        return Structure(
            f"{file}, {word} {number}" if several else str(file),
            name if alone else f"{name}:{number}",
            name if alone else f"{name}:{slab}",
            atoms,
            steps,
        )

    for count, atoms in enumerate(_frames(file, form, word)):
        number, steps = int(atoms.info.pop("_row", count)), 1
        if held is not None:
            several = True
            if _is_next_step(held[1], atoms, form, energy_key):
                steps += held[2]
            else:
                alone = False
                yield structure(*held)
        held = number, atoms, steps
    if held is None:
        raise InputError(f"{file}: no structures; expected at least one frame")
    yield structure(*held)


def read_energy(info: dict[str, Any], key: str, where: str) -> float | None:
    """Return the energy in eV that a frame's `info` holds under a key, None if there is none.

    Raises
    ------
    InputError
        If it is no finite number: text, a list, a truth value, NaN.
    """
    value = info.get(key)
    if value is None:
        return None
    number = np.asarray(value)
    real = number.ndim == 0 and number.dtype.kind in "iuf"
    if not real or not np.isfinite(number):
        shown = " ".join(
            repr(value.tolist() if isinstance(value, np.ndarray | np.generic) else value).split()
        )
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        raise InputError(f"{where}: {key} is {shown}; expected a finite energy in eV, as a number")
    return float(number)


def describe_entries(atoms: Atoms) -> str:
    """Return, for a message, what a frame's `info` holds and which total energy is not an adsorption energy."""
    keys = sorted(str(key) for key in atoms.info)
    shown = ", ".join(keys[:12]) + (", …" if len(keys) > 12 else "")
    text = f"the frame has {shown}" if keys else "the frame has no entries"
    results = getattr(atoms.calc, "results", None) or {}
    if "energy" in results or "free_energy" in results:
        text += "; a calculator's total energy is never taken for an adsorption energy"
    return text


def _structure_files(folder: Path) -> list[Path]:
    """Return the files of a folder that are to be read, in the order of their names."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not _is_hidden(p, folder))
    by_folder: dict[Path, list[Path]] = {}
    for file in files:
        by_folder.setdefault(file.parent, []).append(file)
    passed: set[Path] = set()
    for members in by_folder.values():
        vasp = [
            name
            for name in _VASP_STRUCTURES
            for file in members
            if _bare(file).upper() == name and _size(file)
        ]
        for file in members:
            name = _bare(file).upper()
            if name in _VASP_REST or (name in _VASP_STRUCTURES and vasp and name != vasp[0]):
                passed.add(file)
        names = {file.name: file for file in members}
        if "manifest.json" in names:
            passed.update(names[other] for first, other in _OWN_RESULTS if first in names and other in names)
    return [file for file in files if file not in passed and _may_be_structure(file)]


def _size(file: Path) -> int:
    return file.stat().st_size


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _may_be_structure(file: Path) -> bool:
    suffix = Path(_bare(file)).suffix.lower()
    if suffix == ".json":
        return _is_json_db(file)
    return suffix not in _NOT_STRUCTURES


def _is_json_db(file: Path) -> bool:
    """Tell whether a json file is a data base of ASE: rows by their numbers, and the next number."""
    try:
        content = json.loads(_unpacked(file))
    except (ValueError, InputError, OSError):
        return False
    return isinstance(content, dict) and "ids" in content and "nextid" in content


def _bare(file: Path) -> str:
    """Return a file's name without the suffix of its compression."""
    return file.stem if file.suffix.lower() in _COMPRESSED else file.name


def _names(files: Sequence[Path], source: Path) -> list[str]:
    """Return for each file what distinguishes it from the others: its own name, else its folder's, else both.

    Names that say nothing (`POSCAR`, `relax`) give way to the folder's.
    """
    stems = [Path(_bare(file)).stem for file in files]
    if not source.is_dir():
        parent = files[0].resolve().parent.name
        return [parent if stems[0].upper() in _NAMES_OF_NOTHING and parent else stems[0]]
    folders = [file.parent.relative_to(source).as_posix() for file in files]
    folders = [source.resolve().name if folder == "." else folder for folder in folders]
    count = Counter(stems)
    alone = [count[stem] == 1 and stem.upper() not in _NAMES_OF_NOTHING for stem in stems]
    crowded = Counter(folder for folder, own in zip(folders, alone, strict=True) if not own)
    names = [
        stem if own else folder if crowded[folder] == 1 else f"{folder}/{stem}"
        for stem, folder, own in zip(stems, folders, alone, strict=True)
    ]
    repeated = Counter(names)
    paths = [file.relative_to(source).as_posix() for file in files]
    return [path if repeated[name] > 1 else name for name, path in zip(names, paths, strict=True)]


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """Open a file to read what it holds, decompressed forwards.

    Raises
    ------
    InputError
        If it is damaged, here or wherever in the block it is read.
    """
    opener = _COMPRESSED.get(file.suffix.lower())
    try:
        with cast("BinaryIO", file.open("rb") if opener is None else opener(file, "rb")) as stream:
            yield stream
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        what = f"a damaged {file.suffix} file" if opener is not None else "cannot be read"
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{file}: {what} ({reason}); expected structures") from None


def _unpack(file: Path, target: BinaryIO) -> None:
    """Write what a file holds, decompressed.

    Raises
    ------
    InputError
        If it is damaged, or unpacks to more than 8 GiB.
    """
    with _opened(file) as stream:
        while part := stream.read(_PART):
            if target.tell() + len(part) > _LARGEST_UNPACKED:
                raise InputError(f"{file}: unpacks to more than {_LARGEST_UNPACKED >> 30} GiB; expected less")
            target.write(part)


def _unpacked(file: Path) -> bytes:
    """Return what a file holds, decompressed."""
    target = io.BytesIO()
    _unpack(file, target)
    return target.getvalue()


def _format_of(file: Path) -> str:
    """Return what ASE calls the format of a file.

    Raises
    ------
    InputError
        If the file is empty, its format cannot be told, or is one that is never read.
    """
    with _opened(file) as stream:
        head = stream.read(_PART)
    if not head:
        raise InputError(f"{file}: an empty file; expected structures that ASE reads")
    if Path(_bare(file)).suffix.lower() in (".xyz", ".extxyz"):
        return "extxyz"
    with _told_of(file):
        if file.suffix.lower() not in _COMPRESSED:
            form = filetype(str(file))
        else:
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / _bare(file)
                copy.write_bytes(head)
                form = filetype(str(copy))
        # A POSCAR kept as POSCAR_12 or slab.vasp is found by ASE; what it merely guesses from the suffix may be
        # unknown.
        if form not in ioformats:
            raise UnknownFileTypeError("its format cannot be told")
    if form in _REFUSED_FORMATS:
        raise InputError(
            f"{file}: the format {form} may hold pickles, which are never read; expected extxyz or traj"
        )
    return form


@contextmanager
def _told_of(where: Path | str) -> Iterator[None]:
    """Say in one line, and where, what ASE's readers raise: whatever their parsers raise."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  (they raise whatever their parsers raise)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{where}: cannot be read ({reason[:160]}); expected a structure that ASE reads"
        ) from None


def _frames(file: Path, form: str, word: str) -> Iterator[Atoms]:
    """Yield the frames of a file one after the other; what a data base knows of its rows comes into `info`."""
    if form == "extxyz":
        frames = _extxyz_frames(file)
    elif file.suffix.lower() in _COMPRESSED:
        frames = _frames_of_copy(file, form)
    else:
        frames = _stored_frames(file, form)
    for count in itertools.count():
        with _told_of(f"{file}, {word} {count}" if count else file):
            atoms = next(frames, None)
        if atoms is None:
            return
        yield atoms


def _stored_frames(file: Path, form: str) -> Iterator[Atoms]:
    if form in _DATA_BASES:
        return _data_base_rows(file)
    # A file may have an @ in its name.
    return iter(ase_iread(str(file), index=":", format=form, do_not_split_by_at_sign=True))


def _frames_of_copy(file: Path, form: str) -> Iterator[Atoms]:
    # Most readers want a name, or go to and fro: a file of its own is as fast as memory.
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / _bare(file)
        with copy.open("wb") as target:
            _unpack(file, target)
        yield from _stored_frames(copy, form)


def _extxyz_frames(file: Path) -> Iterator[Atoms]:
    """Yield the frames of an extxyz file, of which one at a time is in memory."""
    # What the parser raises is raised out of the reach of `_opened`, for it may look like a damaged file.
    for text in _extxyz_texts(file):
        yield from read_xyz(io.StringIO(_without_blanks(text)), cast("int", slice(None)))


def _extxyz_texts(file: Path) -> Iterator[str]:
    """Yield the lines of one frame after the other; empty lines between them, at which ASE would stop, are left out.

    Whatever is no frame is given as it stands, for the parser to refuse.
    """
    with _opened(file) as binary:
        stream = io.TextIOWrapper(binary, "utf-8", errors="replace", newline="\n")
        line = stream.readline(_LARGEST_FRAME)
        while line:
            if line.isspace():
                line = stream.readline(_LARGEST_FRAME)
                continue
            lines, left = [line], _LARGEST_FRAME - len(line)
            try:
                count = int(line)
            except ValueError:
                count = None  # the parser says so
            if count is not None and count < 0:
                raise ValueError(f"a frame of {count} atoms")
            for _ in range(0 if count is None else count + 1):
                lines.append(stream.readline(left + 1))
                left -= len(lines[-1])
                if left < 0:
                    raise ValueError(f"a frame of more than {_LARGEST_FRAME} characters")
                if not lines[-1]:
                    break
            line = stream.readline(_LARGEST_FRAME)
            while line.lstrip().startswith("VEC"):
                lines.append(line)
                line = stream.readline(_LARGEST_FRAME)
            yield "".join(lines)


_BLANK_ENTRY = re.compile(r"""(?<=\s)[\w-]+=(?:""|''|\{\}|\[\])?(?=\s+[\w-]+\s*=|[ \t]*(?:\r?\n|$))""")


def _without_blanks(text: str) -> str:
    """Return the text of an extxyz file without empty entries, whose values ASE would take from the next entry."""
    if "= " not in text and '""' not in text and "=\n" not in text and "''" not in text:
        return text
    return "\n".join(
        _BLANK_ENTRY.sub("", " " + line).lstrip() if "=" in line else line for line in text.split("\n")
    )


def _data_base_rows(file: Path) -> Iterator[Atoms]:
    from ase.db import connect

    for row in connect(str(file)).select():
        atoms = row.toatoms()
        for key, value in {**(row.data or {}), **row.key_value_pairs}.items():
            atoms.info.setdefault(str(key), value)
        atoms.info.update(row.key_value_pairs)
        atoms.info["_row"] = row.id
        yield atoms


def _is_next_step(first: Atoms, second: Atoms, form: str, energy_key: str) -> bool:
    """Tell whether a frame is the next step of the path that the one before it belongs to."""
    if form in _DATA_BASES:
        return False
    if form in _ONE_CALCULATION:
        return True
    if not np.array_equal(first.numbers, second.numbers):
        return False
    if any(
        _tells_apart(key, first.info, second.info, energy_key)
        for key in first.info.keys() | second.info.keys()
    ):
        return False
    return _largest_move(first, second) < LARGEST_STEP


def _tells_apart(key: str, first: dict[str, Any], second: dict[str, Any], energy_key: str) -> bool:
    a, b = first.get(key), second.get(key)
    if key == energy_key or key in _NAMING_KEYS or (isinstance(a, str) and isinstance(b, str)):
        return repr(a) != repr(b)
    return False


def _largest_move(first: Atoms, second: Atoms) -> float:
    """Return how far the atom that moved most has moved, in Å; infinite if the cells differ."""
    cells = first.cell.array, second.cell.array
    if np.abs(cells[0] - cells[1]).max() > _SAME_CELL or np.any(first.pbc != second.pbc):
        return float("inf")
    moved = second.positions - first.positions
    if not np.all(np.isfinite(moved)):
        return float("inf")
    if np.abs(moved).max(initial=0.0) > LARGEST_STEP and first.pbc.any():
        # An atom that has crossed the boundary has not moved far.
        moved, _ = find_mic(moved, complete_cell(cells[0]), first.pbc)  # type: ignore[arg-type]
    return float(np.linalg.norm(moved, axis=1).max(initial=0.0))


class _Slabs:
    """The slabs that structures of a file stand on, each known by the first structure on it.

    Of one slab are structures in the same cell whose metals stand in the same places, if they do not say otherwise.
    """

    def __init__(self, form: str) -> None:
        self._apart = form in _DATA_BASES
        self._known: dict[bytes, _Alike] = {}

    def first(self, number: int, atoms: Atoms) -> int:
        """Return the number of the first structure on the same slab, which may be this one."""
        if self._apart or "slab_id" in atoms.info:
            return number
        slab = atoms[np.isin(atoms.numbers, _METAL_NUMBERS)]
        assert isinstance(slab, Atoms)
        key = slab.numbers.astype(np.uint8).tobytes()
        if key not in self._known:
            self._known[key] = _Alike()
        return self._known[key].first(number, slab)


class _Alike:
    """Slabs of the same elements in the same order, to find again the first that is the same as another.

    Of each only what is compared is kept, for there may be a hundred thousand.
    """

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.places: list[
            tuple[np.ndarray, np.ndarray]
        ] = []  # positions, and along which vectors they repeat
        self.cells = np.zeros((1, 3, 3))

    def first(self, number: int, slab: Atoms) -> int:
        count = len(self.numbers)
        cell = slab.cell.array
        # Thousands of slabs may differ in nothing but their lattice constant: cells are compared all at once.
        for k in np.flatnonzero(np.abs(self.cells[:count] - cell).max((1, 2)) <= _SAME_CELL):
            positions, pbc = self.places[k]
            if _largest_move(Atoms(slab.numbers, positions, cell=self.cells[k], pbc=pbc), slab) < _SAME_SLAB:
                return self.numbers[k]
        if count == len(self.cells):
            self.cells = np.concatenate([self.cells, np.zeros_like(self.cells)])
        self.cells[count] = cell
        self.numbers.append(number)
        self.places.append((slab.positions.astype(np.float32), slab.pbc.copy()))
        return number
