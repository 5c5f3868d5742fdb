"""What was said in a dialogue, line by line on the disk before anything is made of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from cnn_interp.disentangling.part_graph import Annotation, Answer, annotation_from
from interpretkit.errors import InputError
from interpretkit.runs.files import dump_json, held
from interpretkit.runs.folder import ResumableTable

FORMAT = 1
# The number of the line that says what the journal is about.
_ABOUT = -1
Act = Literal["answer", "skip", "undo"]


@dataclass(frozen=True)
class Entry:
    """One thing that was said.

    Attributes
    ----------
    number : int
        Which it is, counted from 0.
    act : str
        ``answer``; ``skip``, to say nothing of an image; ``undo``, which takes back the last that stands.
    image : int
        Which image; for ``undo`` that of what is taken back.
    answer : Answer, optional
        What was said to the parse; for ``answer`` alone.
    annotation : Annotation, optional
        What it says of the image, with the templates counted as they were then.
    expected : float, optional
        How far off the graph expected to be when it asked, over the diagonal; see ``Dialogue.expected_error``.
    """

    number: int
    act: Act
    image: int
    answer: Answer | None = None
    annotation: Annotation | None = None
    expected: float | None = None


class Log(Protocol):
    """Where entries go."""

    @property
    def entries(self) -> Sequence[Entry]:
        """All so far."""
        ...

    def append(self, entry: Entry) -> None:
        """Keep an entry."""
        ...


class Memory:
    """Keeps entries as long as the process lives."""

    def __init__(self, entries: Sequence[Entry] = ()) -> None:
        self.entries: list[Entry] = list(entries)

    def append(self, entry: Entry) -> None:
        """Keep an entry."""
        self.entries.append(entry)


class Journal:
    """Keeps entries in a file of JSON lines; made by :func:`open_journal`."""

    def __init__(self, table: ResumableTable) -> None:
        self._table = table
        self.path = table.path
        try:
            self.entries = [_entry(row) for row in table.rows if row["number"] != _ABOUT]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{table.path}: a damaged journal ({error}); expected entries as written"
            ) from error
        if [entry.number for entry in self.entries] != list(range(len(self.entries))):
            raise InputError(f"{table.path}: entries are missing; expected them numbered from 0")

    def append(self, entry: Entry) -> None:
        """Keep an entry; it is on the disk when this returns."""
        self._table.append(asdict(entry))
        self.entries.append(entry)


@contextmanager
def open_journal(
    path: Path | str, about: Mapping[str, Any], earlier: Sequence[Entry] = ()
) -> Iterator[Journal]:
    """Give the journal of a dialogue, with all that was said before; made if there is none.

    A last line torn by a crash was never answered for, and is dropped.

    Parameters
    ----------
    path : path
        The file.
    about : mapping
        What answers are about, such as the part and a digest of the images.
    earlier : sequence of Entry
        What a new journal begins with; one that is there must begin so.

    Raises
    ------
    InputError
        If the file is damaged, of a dialogue about something else, or held by another process.
    """
    place = Path(path)
    said = json.loads(dump_json({"format": FORMAT, **about}))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()
    with held(place) as ours:
        if ours is False:
            raise InputError(f"{place}: another process is at this dialogue; expected one at a time")
        with ResumableTable(place, key="number") as table:
            if _ABOUT not in table:
                if len(table):
                    raise InputError(f"{place}: says nothing of what it is about; expected a journal")
                table.append({"number": _ABOUT, "about": said})
            _check_about(place, table.rows[0].get("about", {}), said)
            journal = Journal(table)
            for number, entry in enumerate(earlier):
                if number == len(journal.entries):
                    journal.append(entry)
                elif journal.entries[number] != entry:
                    raise InputError(
                        f"{place}: its entry {number} is not that of the dialogue to go on from; move the file away"
                    )
            yield journal


def write_journal(path: Path, about: Mapping[str, Any], entries: Sequence[Entry]) -> None:
    """Write a whole journal, as :func:`open_journal` reads it."""
    with ResumableTable(path, key="number") as table:
        table.append({"number": _ABOUT, "about": json.loads(dump_json({"format": FORMAT, **about}))})
        for entry in entries:
            table.append(asdict(entry))


def read_journal(path: Path, about: Mapping[str, Any]) -> list[Entry]:
    """Return the entries of a finished journal.

    Raises
    ------
    InputError
        If there is none, it is damaged, or of a dialogue about something else.
    """
    _check_about(path, read_about(path), json.loads(dump_json({"format": FORMAT, **about})))
    with ResumableTable(path, key="number") as table:
        return Journal(table).entries


def _check_about(path: Path, kept: Mapping[str, Any], said: Mapping[str, Any]) -> None:
    for name in {**said, **kept}:
        if said.get(name) != kept.get(name):
            raise InputError(
                f"{path}: answers of another dialogue ({name} {kept.get(name)!r}, not {said.get(name)!r}); move the "
                "file away, or give --out another folder"
            )


def read_about(path: Path) -> dict[str, Any]:
    """Return what a journal is about.

    Raises
    ------
    InputError
        If there is no journal.
    """
    try:
        with path.open(encoding="utf-8") as file:
            row = json.loads(file.readline())
        about = row["about"]
        if row["number"] != _ABOUT or not isinstance(about, dict):
            raise ValueError("its first line is not what it is about")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no journal; expected a dialogue's result") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: a damaged journal ({error})") from error
    return about


def standing_entries(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries that were not taken back, in their order."""
    left: list[Entry] = []
    for entry in entries:
        if entry.act == "undo":
            left.pop()
        else:
            left.append(entry)
    return left


def _entry(row: Mapping[str, Any]) -> Entry:
    answer = row["answer"]
    if answer is not None:
        pairs = {
            name: None if answer[name] is None else tuple(map(float, answer[name]))
            for name in ("position", "size")
        }
        answer = Answer(**(answer | pairs))
    note = row["annotation"]
    if row["act"] not in ("answer", "skip", "undo"):
        raise ValueError(f"act {row['act']!r}")
    annotation = None if note is None else annotation_from(note)
    expected = None if row.get("expected") is None else float(row["expected"])
    return Entry(int(row["number"]), row["act"], int(row["image"]), answer, annotation, expected)
