"""One self-contained HTML page: what was found, in figures and few words, and how to go on."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, cast

import jinja2
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from PIL import Image

from interpretkit.runs.environment import versions
from interpretkit.runs.files import Table, atomic_path, sha256, to_jsonable
from interpretkit.runs.formatting import format_number, with_minus_signs
from interpretkit.runs.invocation import command_line, quoted
from interpretkit.runs.streams import printable
from interpretkit.visualization.instruments.parts import Instrument, packed, source

# A figure, the bytes of a PNG, or the path of one; alone, with a caption, or with a caption and a text for
# people who cannot see it.
Picture = Figure | bytes | Path
Captioned = Picture | tuple[Picture, str] | tuple[Picture, str, str]
# A value, or a value and a line that says how to understand it.
Number = str | float | int | None | tuple[str | float | int | None, str]
# Writing of a figure with more pixels across could not be read in half of the page's width.
_HALF_PAGE = 1300
# Of a picture kept bit for bit: drawings stay far below.
_PHOTOGRAPHIC_BYTES_PER_PIXEL = 0.3


class Report:
    """A report, built up from the top to the bottom and saved as one HTML file.

    Every text is escaped. Within prose, blank lines separate paragraphs, lines that begin with ``- `` make a
    list, and backquotes mark code.

    Parameters
    ----------
    title : str
        What was found or done, such as ``"100 sites for OH at +0.1 eV"``.
    lead : str
        A paragraph that a reader in a hurry can stop after.
    kicker : str
        A few words above the title.

    Examples
    --------
    >>> report = Report("100 designed sites", "Most of them fall into the window.")       # doctest: +SKIP
    >>> report.add_numbers({"in the window": ("62 %", "random sites: 7 %")})              # doctest: +SKIP
    >>> report.add_section("Energies", "The window is yellow.", figures=[(figure, "…")])  # doctest: +SKIP
    >>> report.save("report.html")                                                        # doctest: +SKIP
    """

    def __init__(self, title: str, lead: str = "", *, kicker: str = "interpretkit") -> None:
        self.title = with_minus_signs(title)
        self.lead = lead
        self.kicker = kicker
        self._alarms: list[Markup] = []
        self._numbers: list[dict[str, str]] = []
        self._sections: list[dict[str, Any]] = []
        self._steps: list[dict[str, Any]] = []
        self._provenance: dict[str, Any] = {"command": "", "seed": None, "data": []}
        self._said: dict[str, int] = {}
        self._instruments: list[Instrument] = []

    def add_numbers(self, numbers: Mapping[str, Number]) -> Self:
        """Add headline numbers, each on a card.

        Parameters
        ----------
        numbers : mapping of str to value, or to (value, note)
            A value is text, with its unit, or a number, which is rounded to three digits. The note says how
            to understand it, such as the value of the baseline.
        """
        for name, number in numbers.items():
            value, note = number if isinstance(number, tuple) else (number, "")
            told = {"name": name, "value": format_number(value, digits=3), "note": note}
            self._numbers.append({key: with_minus_signs(text) for key, text in told.items()})
        return self

    def add_alarm(self, text: str) -> Self:
        """Add a reason not to trust the page, in large letters under its title."""
        self._alarms.append(_prose(text))
        return self

    def add_section(
        self,
        title: str,
        text: str = "",
        *,
        figures: Sequence[Captioned] = (),
        table: Table | None = None,
        table_caption: str = "",
        formats: Mapping[str, str] | None = None,
    ) -> Self:
        """Begin a section; what is added afterwards belongs to it.

        Parameters
        ----------
        title : str
            Its heading.
        text : str
            Its prose.
        figures : sequence
            See :meth:`add_figures`.
        table, table_caption, formats
            See :meth:`add_table`.
        """
        self._sections.append({"title": with_minus_signs(title), "blocks": []})
        if text:
            self.add_text(text)
        if figures:
            self.add_figures(*figures)
        if table is not None:
            self.add_table(table, table_caption, formats=formats)
        return self

    def add_text(self, text: str) -> Self:
        """Add prose to the section."""
        return self._add({"kind": "text", "html": _prose(text)})

    def add_note(self, text: str, kind: Literal["note", "warning"] = "note") -> Self:
        """Add a remark that must not be missed to the section."""
        return self._add({"kind": "note", "warning": kind == "warning", "html": _prose(text)})

    def add_figures(self, *figures: Captioned) -> Self:
        """Add figures to the section, side by side where the page is wide enough.

        Parameters
        ----------
        figures
            Each a matplotlib figure, the bytes of a PNG or the path of one; alone, or in a tuple with its
            caption, or with its caption and a description for people who cannot see it (by default the
            caption).

        Raises
        ------
        OSError
            If a path or bytes hold no image.
        """
        drawn = []
        for figure in figures:
            picture, caption, *alt = figure if isinstance(figure, tuple) else (figure, "")
            width, height, data = embedded(_png(picture))
            drawn.append(
                {
                    "data": data,
                    "caption": _inline(caption),
                    "alt": self._another(alt[0] if alt else caption or self._sections_title()),
                    "wide": width > _HALF_PAGE and width >= 2 * height,
                    "width": width,
                    "height": height,
                }
            )
        return self._add({"kind": "figures", "figures": drawn})

    def add_table(
        self,
        rows: Table,
        caption: str = "",
        *,
        formats: Mapping[str, str] | None = None,
        meanings: Mapping[str, str] | None = None,
        meters: Mapping[str, tuple[str, str]] | None = None,
        opens: bool = False,
    ) -> Self:
        """Add a table to the section, which a reader can sort by any column.

        Parameters
        ----------
        rows : iterable of mappings, or mapping of columns
            As for :func:`interpretkit.runs.files.write_table`. The names of the columns are the headings.
        caption : str
            Above it.
        formats : mapping of str to str, optional
            How to write the numbers of a column, such as ``{"energy (eV)": "+.3f"}``; by default with four
            digits.
        meanings : mapping of str to str, optional
            What a column holds: for whoever points at its heading, and in a list below the table.
        meters : mapping of str to (str, str), optional
            Columns of numbers that are drawn as bars as well, with marks at what two other columns hold: the
            bottom and the top of what can be expected.
        opens : bool
            Whether a row opens the item of its first column in the page's first instrument.
        """
        formats, meanings, meters = formats or {}, meanings or {}, meters or {}
        if isinstance(rows, Mapping):
            names = [str(name) for name in rows]
            records = [dict(zip(names, values, strict=True)) for values in zip(*rows.values(), strict=True)]
        else:
            records = [dict(row) for row in cast(Iterable[Mapping[str, Any]], rows)]
            names = list(dict.fromkeys(name for record in records for name in record))
        plain = [{name: to_jsonable(record.get(name)) for name in names} for record in records]
        numeric = {
            name: any(_is_number(record[name]) for record in plain)
            and all(_is_number(record[name]) or record[name] is None for record in plain)
            for name in names
        }
        return self._add(
            {
                "kind": "table",
                "caption": _inline(caption),
                "label": self._another(f"Table: {caption or self._sections_title()}"),
                "opens": "instrument-1" if opens else "",
                "columns": [
                    {"name": name, "numeric": numeric[name], "meaning": meanings.get(name, "")}
                    for name in names
                ],
                "rows": [
                    [
                        _cell(record[name], numeric[name], formats.get(name))
                        | {"extra": _meter(record, name, *meters[name]) if name in meters else ""}
                        for name in names
                    ]
                    for record in plain
                ],
            }
        )

    def add_instrument(self, instrument: Instrument) -> Self:
        """Add a part that is worked with to the section; see :mod:`interpretkit.visualization.instruments`."""
        self._instruments.append(instrument)
        return self._add(
            {"kind": "instrument", "html": instrument.html(f"instrument-{len(self._instruments)}")}
        )

    def add_next_step(self, text: str, command: str | Sequence[object]) -> Self:
        """Add something that a reader may want to do now, and the command that does it, to "How to go on".

        Parameters
        ----------
        text : str
            What it is good for.
        command : str or sequence
            A line that stands in the source as it is; or its words, which are quoted for a shell. Whatever holds
            a name, a path or an option that somebody gave must be given as words.
        """
        line = command if isinstance(command, str) else quoted(*command)
        self._steps.append({"text": _inline(text), "command": line})
        return self

    def set_provenance(
        self,
        command: str | Sequence[object],
        *,
        seed: int | None = None,
        data: Iterable[Path | str | Mapping[str, str]] = (),
    ) -> Self:
        """Say in the footer how the report came about; the versions and the date are added by themselves.

        Parameters
        ----------
        command : str or sequence
            Shown where Python code called the function of a command; of a running command, what was typed is. A
            line, or its words, which are quoted for a shell.
        seed : int, optional
            The seed.
        data : iterable of paths or mappings
            The files that were read, of which the SHA-256 is shown; or mappings with ``name`` and ``sha256``.
        """
        described = [
            dict(file) if isinstance(file, Mapping) else {"name": Path(file).name, "sha256": sha256(file)}
            for file in data
        ]
        line = command if isinstance(command, str) else quoted(*command)
        self._provenance = {"command": command_line() or line, "seed": seed, "data": described}
        return self

    def html(self) -> str:
        """Return the page."""
        now = datetime.now(UTC)
        provenance = {
            **self._provenance,
            "date": f"{now.day} {now:%B %Y, %H:%M} UTC",
            "versions": versions(),
        }
        page = _template().render(
            title=self.title,
            lead=_prose(self.lead),
            kicker=self.kicker,
            alarms=self._alarms,
            numbers=self._numbers,
            sections=self._sections,
            steps=self._steps,
            styles=[source("instruments.css")] if self._instruments else [],
            scripts=[
                source(name)
                for name in dict.fromkeys(
                    ["instruments.js"] * bool(self._instruments) + [one.script for one in self._instruments]
                )
            ],
            libraries={
                f"lib-{library.split('.')[0].split('-')[0].lower()}": packed(library)
                for library in dict.fromkeys(name for one in self._instruments for name in one.libraries)
            },
            provenance=provenance,
        )
        return printable(page)

    def save(self, path: Path | str) -> None:
        """Write the page, atomically."""
        with atomic_path(path) as hidden:
            hidden.write_text(self.html(), encoding="utf-8")

    def _add(self, block: dict[str, Any]) -> Self:
        if not self._sections:
            raise ValueError("begin a section with add_section first")
        self._sections[-1]["blocks"].append(block)
        return self

    def _another(self, text: str) -> str:
        """Return a text for who cannot see, told apart from those before it: by its section, then by a number."""
        text = text.replace("`", "").strip()
        if text in self._said and self._sections_title() not in text:
            text = f"{self._sections_title()}: {text}"
        self._said[text] = self._said.get(text, 0) + 1
        return text if self._said[text] == 1 else f"{text} ({self._said[text]})"

    def _sections_title(self) -> str:
        return self._sections[-1]["title"] if self._sections else self.title


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _cell(value: Any, numeric: bool, format: str | None) -> dict[str, Any]:
    if numeric:
        return {
            "text": format_number(value, format=format),
            "css": "number-cell",
            "key": "" if value is None else value,
        }
    if isinstance(value, (list, dict)):
        value = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = with_minus_signs(format_number(value))
    return {"text": text, "css": "long" if len(text) > 60 else "", "key": None}


def _meter(record: Mapping[str, Any], name: str, low: str, high: str) -> Markup:
    """Draw a number as a bar from 0 to 1 or further, with marks at its bottom and top, and say if it is beyond."""
    value, bottom, top = (_finite(record.get(column)) for column in (name, low, high))
    if value is None:
        return Markup()
    ends = [number for number in (bottom, top) if number is not None]
    span = max(1.0, value, *ends)
    bar = Markup('<rect class="bar" width="{:.1f}" height="8"/>').format(96 * max(value, 0) / span)
    marks = Markup().join(
        Markup('<line class="mark" x1="{0:.1f}" x2="{0:.1f}" y2="8"/>').format(96 * max(end, 0) / span)
        for end in ends
    )
    beyond = ""
    # Where small values are the better ones the top lies below the bottom.
    upwards = 1 if top is None or bottom is None or top >= bottom else -1
    if top is not None and upwards * (value - top) > 1e-9:
        beyond = f"{'above' if upwards > 0 else 'below'} its {high}"
    elif bottom is not None and upwards * (bottom - value) > 1e-9:
        beyond = f"{'below' if upwards > 0 else 'above'} its {low}"
    note = Markup('<span class="meter-note">{}</span>').format(beyond) if beyond else ""
    track = Markup('<rect class="track" width="96" height="8"/>')
    return Markup('<svg class="meter" viewBox="0 0 96 8" aria-hidden="true">{}{}{}</svg>{}').format(
        track, bar, marks, note
    )


def _finite(value: Any) -> float | None:
    return float(value) if _is_number(value) and math.isfinite(value) else None


def embedded(png: bytes) -> tuple[int, int, str]:
    """Return a picture for a page: its width and height, and its bytes as WebP in base 64.

    All are WebP, which is half as large as PNG: drawings bit for bit, photographs, of which bit for bit would fill
    pages, as they do on the web.
    """
    with Image.open(io.BytesIO(png)) as image:
        width, height = image.size
        kept = image.convert("RGBA")
        if kept.getchannel("A").getextrema() == (255, 255):
            kept = kept.convert("RGB")
        buffer = io.BytesIO()
        kept.save(buffer, "WEBP", lossless=True, quality=50, method=2)
        if buffer.tell() > _PHOTOGRAPHIC_BYTES_PER_PIXEL * width * height:
            buffer = io.BytesIO()
            kept.save(buffer, "WEBP", quality=86, method=4)
    return width, height, base64.b64encode(buffer.getvalue()).decode()


def _inline(text: str) -> Markup:
    """Escape a line, mark what stands in backquotes as code, and give the other numbers their minus signs."""
    parts = re.split(r"`([^`]+)`", str(escape(text)))
    return Markup(
        "".join(
            f"<code>{part}</code>" if place % 2 else with_minus_signs(part)
            for place, part in enumerate(parts)
        )
    )


def _prose(text: str) -> Markup:
    """Escape prose and mark its paragraphs, lists and code."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        items: list[str] = []
        lines: list[str] = []
        for line in (line.strip() for line in paragraph.splitlines()):
            if line.startswith("- "):
                items.append(line[2:])
            elif items:
                items[-1] += f" {line}"
            else:
                lines.append(line)
        if lines:
            parts.append(f"<p>{_inline(' '.join(lines))}</p>")
        if items:
            parts.append("<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>")
    return Markup("\n".join(parts))


def _png(picture: Picture) -> bytes:
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, Path):
        return picture.read_bytes()
    buffer = io.BytesIO()
    # Without the writer's version in it, the same figure gives the same bytes.
    picture.savefig(buffer, format="png", dpi=160, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("interpretkit.visualization"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja")
