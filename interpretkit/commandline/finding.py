"""What a command found, in arrays, tables, structures, figures and words, before anything of it is written."""

# Nothing heavy is imported here, for every command's module imports this one.

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from interpretkit.runs.formatting import format_number

if TYPE_CHECKING:
    import numpy as np
    import torch
    from ase import Atoms
    from matplotlib.figure import Figure

    from interpretkit.visualization.instruments import Instrument


@dataclass(frozen=True)
class Column:
    """What a column of a table holds.

    Attributes
    ----------
    meaning : str
        A few words on what the values are.
    unit : str
        Their unit, such as ``eV``; empty for words and for numbers without one.
    heading : str
        What the column is called on the page; its name in the file by default.
    format : str
        How its numbers are written on the page, such as ``+.3f``; with four digits by default.
    between : (str, str)
        Two other columns, the bottom and the top of what can be expected of this one: it is drawn as a bar from 0
        with marks at them, and what is beyond says so.
    words : mapping of str to str
        What people call the names that the file holds, such as ``Grad-CAM`` for ``gradcam``.
    """

    meaning: str
    unit: str = ""
    heading: str = ""
    format: str = ""
    between: tuple[str, str] | tuple[()] = ()
    words: Mapping[str, str] = field(default_factory=dict)

    def said(self, value: Any) -> Any:
        """Return a value of the column as people are told it."""
        return self.words.get(value, value) if isinstance(value, str) else value

    def title(self, name: str) -> str:
        """Return the heading with its unit, of a column called `name` in the file."""
        heading = self.heading or spoken(name, self.unit)
        return f"{heading} ({self.unit})" if self.unit and f"({self.unit})" not in heading else heading


@dataclass(frozen=True)
class Number:
    """A figure that sums up what was found.

    Attributes
    ----------
    value : object
        A number, a word, or None where there is none; or a mapping of such, by layer or method, say.
    label : str
        What it is, for people.
    unit : str
        Its unit.
    note : str or mapping of str to str
        How to understand it, such as the value of a baseline; of a mapping one for each, or one for all.
    format : str
        How it is written, such as ``.1%``; with three digits by default.
    on_card : bool
        Whether it stands at the top of the page.
    words : mapping of str to str
        What people call the keys of a mapping, such as ``FGSM`` for ``fgsm``.
    """

    value: Any
    label: str
    unit: str = ""
    note: str | Mapping[str, str] = ""
    format: str = ""
    on_card: bool = True
    words: Mapping[str, str] = field(default_factory=dict)

    def single(self) -> Iterator[Number]:
        """Give the figure, or each one of a mapping, labelled by its key."""
        if not isinstance(self.value, Mapping):
            yield self
            return
        for key, value in self.value.items():
            note = self.note if isinstance(self.note, str) else self.note.get(key, "")
            told = self.words.get(key, key)
            yield Number(value, f"{self.label}: {told}", self.unit, note, self.format, self.on_card)

    def text(self) -> str:
        """Return the value with its unit, as people read it; of several, one after the other."""
        value = self.value
        if isinstance(value, Mapping):
            value = {self.words.get(key, key): item for key, item in value.items()}
        return _text(value, self.format, self.unit)


@dataclass(frozen=True)
class TableBlock:
    """A table of a section, and the file that holds all of it."""

    file: str | None
    rows: list[dict[str, Any]]
    columns: Mapping[str, Column]
    caption: str = ""
    shown: tuple[str, ...] | None = None
    most: int | None = None
    in_terminal: bool = False
    opens: bool = False

    def names(self) -> list[str]:
        """Return the columns shown to people: those chosen, else all in the order in which they appear."""
        if self.shown is not None:
            return list(self.shown)
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def rows_shown(self) -> list[dict[str, Any]]:
        """Return the rows shown to people."""
        return self.rows if self.most is None else self.rows[: self.most]

    def column(self, name: str) -> Column:
        """Return what is known of a column."""
        return self.columns.get(name, Column(""))


@dataclass(frozen=True)
class FigureBlock:
    """A figure of a section, and the file it is kept in."""

    file: str
    figure: Figure
    caption: str = ""
    alt: str = ""
    on_page: bool = True


@dataclass(frozen=True)
class InstrumentBlock:
    """A part of the page that is worked with; a table of the same section may open its items."""

    instrument: Instrument


@dataclass(frozen=True)
class TextBlock:
    """Prose of a section, or a remark that must not be missed."""

    text: str
    kind: str = "text"


@dataclass
class Section:
    """A part of the page under a heading; what is added stands in the order in which it was added."""

    title: str
    blocks: list[TableBlock | FigureBlock | TextBlock | InstrumentBlock] = field(default_factory=list)

    def text(self, text: str) -> Self:
        """Add prose: blank lines part paragraphs, ``- `` begins an entry of a list, backquotes mark code."""
        self.blocks.append(TextBlock(text))
        return self

    def note(self, text: str) -> Self:
        """Add a remark that must not be missed."""
        self.blocks.append(TextBlock(text, "note"))
        return self

    def warning(self, text: str) -> Self:
        """Add a warning that concerns this part alone; one that concerns everything is the Finding's."""
        self.blocks.append(TextBlock(text, "warning"))
        return self

    def figure(
        self, file: str, figure: Figure, caption: str = "", *, alt: str = "", on_page: bool = True
    ) -> Self:
        """Add a figure.

        Parameters
        ----------
        file : str
            The file to keep it in, such as ``regret.png``; subfolders are made.
        figure : Figure
            The figure.
        caption : str
            What stands below it.
        alt : str
            What it shows, for people who cannot see it; the caption by default.
        on_page : bool
            Whether the page shows it; False where an instrument shows the same.
        """
        self.blocks.append(FigureBlock(file, figure, caption, alt, on_page))
        return self

    def instrument(self, instrument: Instrument) -> Self:
        """Add a part that is worked with: of :mod:`interpretkit.visualization.instruments`, or of your own."""
        self.blocks.append(InstrumentBlock(instrument))
        return self

    def table(
        self,
        file: str | None,
        rows: Iterable[Mapping[str, Any]],
        columns: Mapping[str, Column] | None = None,
        caption: str = "",
        *,
        shown: Sequence[str] | None = None,
        most: int | None = None,
        in_terminal: bool = False,
        opens: bool = False,
    ) -> Self:
        """Add a table.

        Parameters
        ----------
        file : str or None
            The CSV file to keep all of it in; None for a table that is on the page only.
        rows : iterable of mappings
            A mapping from column to value for each row.
        columns : mapping of str to Column, optional
            What the columns hold.
        caption : str
            What stands above it.
        shown : sequence of str, optional
            The columns on the page, in this order; all by default.
        most : int, optional
            The page shows so many rows at most.
        in_terminal : bool
            Whether the terminal shows it as well.
        opens : bool
            Whether a row opens the item of its first column in the page's first instrument.
        """
        self.blocks.append(
            TableBlock(
                file,
                [dict(row) for row in rows],
                dict(columns or {}),
                caption,
                None if shown is None else tuple(shown),
                most,
                in_terminal,
                opens,
            )
        )
        return self


@dataclass(frozen=True)
class Here:
    """Within a command to go on with, a file of the result: its path is known when that is written."""

    name: str = ""


@dataclass(frozen=True)
class NextStep:
    """Something that a reader may want to do now, and the command that does it."""

    text: str
    command: str
    arguments: tuple[str | Path | Here, ...] = ()

    def line(self, out: Path | str = "") -> str:
        """Return the command as a shell takes it, with the files of a result that stands at `out`."""
        words = [
            str(Path(out) / word.name if word.name else Path(out)) if isinstance(word, Here) else str(word)
            for word in self.arguments
        ]
        return " ".join([self.command, *map(shlex.quote, words)])


class Finding:
    """What a command found; nothing of it is written or drawn before the whole is there.

    Parameters
    ----------
    title : str
        What was found or done, such as ``"100 sites for OH at +0.1 eV"``.
    lead : str
        A paragraph that a reader in a hurry can stop after.

    Attributes
    ----------
    numbers : dict of str to Number
        The headline figures, by the names that they have in the manifest and under ``--json``.
    values : dict
        More for the manifest and ``--json`` that is not for a person's eye.
    warnings : list of str
        What a reader must know before trusting any of it.
    inputs : list of path
        The files and folders that were read.
    exit_code : int
        The command's exit code, for one that fails in part and still has something to show.
    transient : bool
        Whether it is only printed: an answer to a question, of which no folder is made.

    Examples
    --------
    >>> found = Finding("What was learned", "A model of 919 sites.")
    >>> found.number("mae_ev", 0.058, "error of the teacher", unit="eV", note="baseline 0.078")   # doctest: +SKIP
    >>> part = found.section("By class", "Errors on slabs that were kept out.")                   # doctest: +SKIP
    >>> part.table("classes.csv", rows, {"mae_ev": Column("mean absolute error", "eV")})          # doctest: +SKIP
    """

    def __init__(self, title: str, lead: str = "") -> None:
        self.title = title
        self.lead = lead
        self.numbers: dict[str, Number] = {}
        self.values: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.sections: list[Section] = []
        self.next_steps: list[NextStep] = []
        self.inputs: list[Path | str] = []
        self.exit_code = 0
        self.transient = False
        self.array_files: dict[str, dict[str, np.ndarray | Sequence[Any] | float]] = {}
        self.tensor_files: dict[str, tuple[Mapping[str, torch.Tensor], Mapping[str, Any]]] = {}
        self.structure_files: dict[str, Sequence[Atoms]] = {}
        self.table_files: list[TableBlock] = []
        self.other_files: dict[str, Callable[[Path], None]] = {}

    # ---------------------------------------------------------------------------------- what sums it up

    def number(
        self,
        name: str,
        value: Any,
        label: str = "",
        *,
        unit: str = "",
        note: str | Mapping[str, str] = "",
        format: str = "",
        on_card: bool = True,
        words: Mapping[str, str] | None = None,
    ) -> Self:
        """Add a headline figure.

        Parameters
        ----------
        name : str
            Its name in the manifest and under ``--json``, such as ``mae_ev``.
        value : object
            A number or a word.
        label, unit, note, format, on_card, words
            See :class:`Number`; the label is the name by default.
        """
        self.numbers[name] = Number(
            value, label or spoken(name, unit), unit, note, format, on_card, words or {}
        )
        return self

    def warn(self, *lines: str) -> Self:
        """Add what a reader must know before trusting any of it: at the top of the page and in the terminal."""
        self.warnings += [" ".join(line.split()) for line in lines]
        return self

    def next_step(self, text: str, command: str, *arguments: str | Path | Here) -> Self:
        """Add something that a reader may want to do now.

        Parameters
        ----------
        text : str
            What it is good for.
        command : str
            The beginning of the command, as it is typed.
        arguments : str, path or Here
            What follows it; quoted, so that a shell takes each for one word whatever is in it.
        """
        self.next_steps.append(NextStep(text, command, arguments))
        return self

    def summary(self) -> dict[str, Any]:
        """Return the figures and values, as the manifest and ``--json`` have them."""
        found = {name: number.value for name, number in self.numbers.items()} | self.values
        return found | {"warnings": list(self.warnings)}

    # ------------------------------------------------------------------------------ what it is made of

    def section(self, title: str, text: str = "") -> Section:
        """Begin a part of the page, and return it."""
        section = Section(title)
        if text:
            section.text(text)
        self.sections.append(section)
        return section

    def arrays(self, file: str, **arrays: np.ndarray | Sequence[Any] | float) -> Self:
        """Keep named arrays in an ``.npz`` file."""
        self.array_files[file] = arrays
        return self

    def tensors(
        self, file: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any] | None = None
    ) -> Self:
        """Keep named tensors in a ``.safetensors`` file."""
        self.tensor_files[file] = (tensors, dict(metadata or {}))
        return self

    def structures(self, file: str, structures: Sequence[Atoms]) -> Self:
        """Keep structures in a file of any format that ASE tells by the name's ending."""
        self.structure_files[file] = structures
        return self

    def table(
        self, file: str, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Column] | None = None
    ) -> Self:
        """Keep a table in a CSV file that the page does not show."""
        self.table_files.append(TableBlock(file, [dict(row) for row in rows], dict(columns or {})))
        return self

    def file(self, file: str, write: Callable[[Path], None]) -> Self:
        """Keep a file of another kind, which `write` writes to the path it is given."""
        self.other_files[file] = write
        return self

    def reads(self, *paths: Path | str) -> Self:
        """Note files and folders that were read; their SHA-256 goes into manifest and page."""
        self.inputs += paths
        return self

    def blocks(self, kind: type[Any]) -> list[Any]:
        """Return the blocks of a kind, of all sections in their order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, kind)]


# How a unit ends the name of a column in a file, where it stands beside the heading for people.
_UNIT_ENDINGS = {
    "eV": "_ev",
    "meV": "_mev",
    "Å": "_angstrom",
    "nm": "_nm",
    "K": "_kelvin",
    "s": "_seconds",
    "px": "_px",
}


def spoken(name: str, unit: str = "") -> str:
    """Return a name from a file as people say it, without the unit that stands beside it: ``mae_ev`` is ``mae``."""
    return name.removesuffix(_UNIT_ENDINGS.get(unit, "\0")).replace("_", " ")


def _text(value: Any, format: str, unit: str = "") -> str:
    value = value.item() if getattr(value, "size", 0) == 1 and hasattr(value, "item") else value
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item, format, unit)}" for key, item in value.items()) or "–"
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(end, float) for end in value):
        return " … ".join(_text(end, format, unit) for end in value)  # an interval
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(_text(item, format, unit) for item in value) or "–"
    if isinstance(value, (bool, int, float)):
        text = format_number(value, digits=3, format=format or None)
        return f"{text} {unit}" if unit and text != "–" else text
    return "–" if value is None else str(value)
