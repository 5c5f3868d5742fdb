"""From a Finding to a result's folder: the files, the page and the manifest."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interpretkit.commandline.finding import FigureBlock, Finding, InstrumentBlock, TableBlock, TextBlock
from interpretkit.runs.folder import Run, run_folder
from interpretkit.runs.progress import progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from interpretkit.visualization import Report

REPORT = "report.html"
# Pixels to the inch of figures, in files and on the page.
_DPI = 160


def save(
    found: Finding,
    out: Path | str,
    command: str,
    arguments: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> None:
    """Write a Finding into a folder of its own, as a command does.

    Parameters
    ----------
    found : Finding
        What was found.
    out : path
        The folder; see :func:`interpretkit.runs.folder.run_folder`.
    command : str
        What found it, such as ``catalyst design``.
    arguments : mapping, optional
        What it was given.
    seed : int, optional
        The seed.
    """
    with run_folder(out, command, arguments, seed) as run:
        write(found, run, out, command=command, seed=seed)


def write(
    found: Finding,
    run: Run,
    out: Path | str,
    *,
    command: str,
    seed: int | None = None,
    quiet: bool = True,
) -> None:
    """Write a Finding's files and its page into the folder of a run, and sum it up for the manifest.

    Parameters
    ----------
    found : Finding
        What was found.
    run : Run
        The run under way.
    out : path
        Where the result will be, as it was typed.
    command : str
        The command as it is typed, without the program's name and options.
    seed : int, optional
        The seed.
    quiet : bool
        Show no progress: to draw many figures takes a while.

    Raises
    ------
    InputError
        If a file that was read is gone.
    ValueError
        If two things have the same file.
    """
    _check_files(found)
    run.read(found.inputs)
    for file, arrays in found.array_files.items():
        run.save_arrays(file, **arrays)
    for file, (tensors, metadata) in found.tensor_files.items():
        run.save_tensors(file, tensors, metadata)
    for file, structures in found.structure_files.items():
        from ase.io import write as write_structures

        write_structures(run.path(file), list(structures))
    for table in _tables(found):
        if table.file is not None:
            run.save_table(table.file, table.rows)
    for file, writer in found.other_files.items():
        writer(run.path(file))
    pictures: dict[str, bytes] = {}
    figures = found.blocks(FigureBlock)
    with progress("Writing the result", len(figures) + 1, quiet=quiet) as bar:
        for block in figures:
            bar.stage(block.file)
            if block.file.endswith(".png"):
                pictures[block.file] = _png(block.figure)
                run.path(block.file).write_bytes(pictures[block.file])
            else:
                run.save_figure(block.file, block.figure)
                if block.on_page:
                    pictures[block.file] = _png(block.figure)
            bar.advance()
        run.summary.update(found.summary())
        run.described.update(_described(found))
        bar.stage(REPORT)
        page(found, pictures, command=command, seed=seed, out=Path(out)).save(run.path(REPORT))
        bar.advance()


def page(
    found: Finding, pictures: Mapping[str, bytes], *, command: str, seed: int | None, out: Path
) -> Report:
    """Return the page of a Finding, with its figures as they were drawn for the files."""
    from interpretkit.visualization import Report

    report = Report(found.title, found.lead, kicker=f"interpretkit {command}")
    report.add_numbers(
        {
            single.label: (single.text(), str(single.note))
            for number in found.numbers.values()
            if number.on_card
            for single in number.single()
            # A card without a value would only ask what is missing; the manifest says that there is none.
            if single.text() != "–"
        }
    )
    for text in found.warnings:
        report.add_alarm(text)
    for section in found.sections:
        report.add_section(section.title)
        figures: list[Any] = []
        for block in section.blocks:
            if isinstance(block, FigureBlock):
                if not block.on_page:
                    continue
                figures.append((pictures[block.file], block.caption, *([block.alt] if block.alt else [])))
                continue
            if figures:
                report.add_figures(*figures)
                figures = []
            if isinstance(block, InstrumentBlock):
                report.add_instrument(block.instrument)
            elif isinstance(block, TextBlock):
                if block.kind == "text":
                    report.add_text(block.text)
                else:
                    report.add_note(block.text, kind="warning" if block.kind == "warning" else "note")
            else:
                _add_table(report, block)
        if figures:
            report.add_figures(*figures)
    for step in found.next_steps:
        report.add_next_step(step.text, step.line(out))
    return report.set_provenance(
        ["interpretkit", *command.split()], seed=seed, data=[Path(path) for path in found.inputs]
    )


def _add_table(report: Report, table: TableBlock) -> None:
    if not table.rows_shown():
        kept = (
            f"`{table.file}` holds {len(table.rows):,} rows.".replace(",", " ")
            if table.rows
            else "There are none."
        )
        report.add_text(f"{table.caption} {kept}".strip())
        return
    names = table.names()
    headings = {name: table.column(name).title(name) for name in names}
    caption = table.caption
    if table.most is not None and len(table.rows) > table.most and table.file is not None:
        caption = f"{caption} The first {table.most} of {len(table.rows)}; `{table.file}` holds all.".strip()
    report.add_table(
        [
            {headings[name]: table.column(name).said(row.get(name)) for name in names}
            for row in table.rows_shown()
        ],
        caption,
        formats={headings[name]: table.column(name).format for name in names if table.column(name).format},
        meanings={headings[name]: table.column(name).meaning for name in names},
        meters={
            headings[name]: (headings[ends[0]], headings[ends[1]])
            for name in names
            if (ends := table.column(name).between) and set(ends) <= set(headings)
        },
        opens=table.opens,
    )


def _described(found: Finding) -> dict[str, Any]:
    """Return what the manifest says of numbers and columns: their units and meanings."""
    return {
        "numbers": {
            name: {"label": number.label, **({"unit": number.unit} if number.unit else {})}
            for name, number in found.numbers.items()
        },
        "tables": {
            table.file: {
                name: {
                    "meaning": column.meaning,
                    **({"unit": column.unit} if column.unit else {}),
                }
                for name, column in table.columns.items()
            }
            for table in _tables(found)
            if table.file is not None and table.columns
        },
    }


def _tables(found: Finding) -> Iterator[TableBlock]:
    yield from found.table_files
    yield from found.blocks(TableBlock)


def _check_files(found: Finding) -> None:
    files = [*found.array_files, *found.tensor_files, *found.structure_files, *found.other_files]
    files += [table.file for table in _tables(found) if table.file is not None]
    files += [block.file for block in found.blocks(FigureBlock)]
    for file in files:
        if files.count(file) > 1 or file == REPORT:
            raise ValueError(f"{file!r} is written twice")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without the writer's version in it, the same figure gives the same bytes.
    figure.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()
