"""Structures as people have them: files, folders, data bases and trajectories of slabs, one structure per calculation.

A file that a program writes while it relaxes a structure (`OUTCAR`, `vasprun.xml` …) counts once, by its last step.
So do consecutive frames of any other file that are steps of one path: the same elements in the same order in the same
cell, no atom moved by more than `LARGEST_STEP` from one frame to the next, and nothing in `info` that tells them apart
(an adsorption energy, a name of slab or site). Rows of a data base are calculations of their own.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.geometry import complete_cell, find_mic
from ase.io import read as ase_read
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
_LARGEST_UNPACKED = 8 * 1024**3  # bytes

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
        frames, form = _read_frames(file)
        numbers = [int(atoms.info.pop("_row", number)) for number, atoms in enumerate(frames)]
        several = len(frames) > 1
        word = "row" if form in _DATA_BASES else "frame"
        kept = _last_steps(frames, form, energy_key)
        slabs = _same_slabs(frames, [last for last, _ in kept], form)
        for (last, steps), slab in zip(kept, slabs, strict=True):
            where = f"{file}, {word} {numbers[last]}" if several else str(file)
            alone = len(kept) == 1
            yield Structure(
                where,
                name if alone else f"{name}:{numbers[last]}",
                name if alone else f"{name}:{numbers[slab]}",
                frames[last],
                steps,
            )


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


def _unpacked(file: Path) -> bytes:
    """Return a file's bytes, decompressed once and forwards.

    Raises
    ------
    InputError
        If it is damaged, or unpacks to more than 8 GiB.
    """
    opener = _COMPRESSED.get(file.suffix.lower())
    if opener is None:
        return file.read_bytes()
    try:
        with cast("BinaryIO", opener(file, "rb")) as stream:
            content = stream.read(_LARGEST_UNPACKED + 1)
    except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
        raise InputError(f"{file}: a damaged {file.suffix} file ({error}); expected structures") from None
    if len(content) > _LARGEST_UNPACKED:
        raise InputError(f"{file}: unpacks to more than {_LARGEST_UNPACKED >> 30} GiB; expected less")
    return content


def _read_frames(file: Path) -> tuple[list[Atoms], str]:
    """Read every frame of a file and name its format; what a data base knows of its rows comes into `info`."""
    if file.stat().st_size == 0:
        raise InputError(f"{file}: an empty file; expected structures that ASE reads")
    content = _unpacked(file) if file.suffix.lower() in _COMPRESSED else None
    if content == b"":
        raise InputError(f"{file}: an empty file; expected structures that ASE reads")
    try:
        frames, form = _parsed(file, content)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  (ASE's readers raise whatever their parsers raise)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{file}: not a structure that ASE reads ({reason[:160]})") from None
    if not isinstance(frames, list) or not frames:
        raise InputError(f"{file}: no structures; expected at least one frame")
    return frames, form


def _parsed(file: Path, content: bytes | None) -> tuple[list[Atoms], str]:
    """Read frames from a file, or from its unpacked content."""
    form = _format_of(file, content)
    if form in _REFUSED_FORMATS:
        raise InputError(
            f"{file}: the format {form} may hold pickles, which are never read; expected extxyz or traj"
        )
    if form == "extxyz":
        text = (file.read_bytes() if content is None else content).decode("utf-8", errors="replace")
        return _ase_frames(io.StringIO(_without_blanks(text)), form), form
    if content is None:
        return (_data_base_rows(file) if form in _DATA_BASES else _ase_frames(str(file), form)), form
    # Other readers want a name, or go to and fro: a file of its own is as fast as memory.
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / _bare(file)
        copy.write_bytes(content)
        return (_data_base_rows(copy) if form in _DATA_BASES else _ase_frames(str(copy), form)), form


def _format_of(file: Path, content: bytes | None) -> str:
    if Path(_bare(file)).suffix.lower() in (".xyz", ".extxyz"):
        return "extxyz"
    if content is None:
        form = filetype(str(file))
    else:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / _bare(file)
            copy.write_bytes(content[:65536])
            form = filetype(str(copy))
    # A POSCAR kept as POSCAR_12 or slab.vasp is found by ASE; what it merely guesses from the suffix may be unknown.
    if form not in ioformats:
        raise UnknownFileTypeError("its format cannot be told")
    return form


def _ase_frames(source: Any, form: str) -> list[Atoms]:
    frames = ase_read(source, index=":", format=form)
    return frames if isinstance(frames, list) else [frames]


_BLANK_ENTRY = re.compile(r"""(?<=\s)[\w-]+=(?:""|''|\{\}|\[\])?(?=\s+[\w-]+\s*=|[ \t]*(?:\r?\n|$))""")


def _without_blanks(text: str) -> str:
    """Return the text of an extxyz file without empty entries, whose values ASE would take from the next entry."""
    if "= " not in text and '""' not in text and "=\n" not in text and "''" not in text:
        return text
    return "\n".join(
        _BLANK_ENTRY.sub("", " " + line).lstrip() if "=" in line else line for line in text.split("\n")
    )


def _data_base_rows(file: Path) -> list[Atoms]:
    from ase.db import connect

    frames = []
    for row in connect(str(file)).select():
        atoms = row.toatoms()
        for key, value in {**(row.data or {}), **row.key_value_pairs}.items():
            atoms.info.setdefault(str(key), value)
        atoms.info.update(row.key_value_pairs)
        atoms.info["_row"] = row.id
        frames.append(atoms)
    return frames


def _last_steps(frames: Sequence[Atoms], form: str, energy_key: str) -> list[tuple[int, int]]:
    """Return the number of the last frame of each path, and how many steps the path has."""
    if form in _DATA_BASES or len(frames) == 1:
        return [(number, 1) for number in range(len(frames))]
    if form in _ONE_CALCULATION:
        return [(len(frames) - 1, len(frames))]
    kept, steps = [], 1
    for number in range(1, len(frames) + 1):
        if number < len(frames) and _is_next_step(frames[number - 1], frames[number], energy_key):
            steps += 1
            continue
        kept.append((number - 1, steps))
        steps = 1
    return kept


def _is_next_step(first: Atoms, second: Atoms, energy_key: str) -> bool:
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


def _same_slabs(frames: Sequence[Atoms], kept: Sequence[int], form: str) -> list[int]:
    """Return for each kept frame the first kept frame of the same slab: same cell, metals in the same places."""
    slabs: list[int] = []
    known: dict[bytes, _Alike] = {}
    for number in kept:
        atoms = frames[number]
        if form in _DATA_BASES or "slab_id" in atoms.info:
            slabs.append(number)
            continue
        slab = atoms[np.isin(atoms.numbers, _METAL_NUMBERS)]
        assert isinstance(slab, Atoms)
        slabs.append(known.setdefault(slab.numbers.tobytes(), _Alike()).first(number, slab))
    return slabs


class _Alike:
    """Slabs of the same elements in the same order, to find again the first that is the same as another."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.slabs: list[Atoms] = []
        self.cells = np.zeros((8, 3, 3))

    def first(self, number: int, slab: Atoms) -> int:
        count = len(self.slabs)
        cell = slab.cell.array
        # Thousands of slabs may differ in nothing but their lattice constant: cells are compared all at once.
        for k in np.flatnonzero(np.abs(self.cells[:count] - cell).max((1, 2)) <= _SAME_CELL):
            if _largest_move(self.slabs[k], slab) < _SAME_SLAB:
                return self.numbers[k]
        if count == len(self.cells):
            self.cells = np.concatenate([self.cells, np.zeros_like(self.cells)])
        self.cells[count] = cell
        self.numbers.append(number)
        self.slabs.append(slab)
        return number
