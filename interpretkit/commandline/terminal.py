"""What a person reads in the terminal when a command has ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interpretkit.commandline.finding import Finding, TableBlock


def show(found: Finding, places: Mapping[str, Path]) -> None:
    """Print a Finding's figures with their units, its tables for the terminal, its warnings, and where the page is.

    Parameters
    ----------
    found : Finding
        What was found.
    places : mapping
        ``report``, if there is one.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"[bold]{escape(found.title)}[/bold]")
    numbers = Table(show_header=False, box=None, pad_edge=False)
    numbers.add_column()
    numbers.add_column(overflow="fold")
    numbers.add_column(style="dim", overflow="fold")
    for number in found.numbers.values():
        for single in number.single() if number.on_card else [number]:
            note = single.note if isinstance(single.note, str) else ""
            numbers.add_row(escape(single.label), f"[bold]{escape(single.text())}[/bold]", escape(note))
    if numbers.row_count:
        console.print(numbers)
    for block in found.blocks(TableBlock):
        if block.in_terminal:
            console.print(_table(block))
    for text in found.warnings:
        console.print(f"[bold yellow]WARNING[/bold yellow] {escape(text)}", soft_wrap=True)
    if "report" in places:
        console.print(f"report: {escape(str(places['report']))}", soft_wrap=True)
    if found.next_steps:
        step = found.next_steps[0]
        console.print(
            f"[dim]{escape(step.text)}[/dim] {escape(step.line(places.get('out', '')))}", soft_wrap=True
        )


def _table(block: TableBlock) -> Any:
    from rich.markup import escape
    from rich.table import Table

    from interpretkit.runs.formatting import format_number

    names, rows = block.names(), block.rows_shown()
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for name in names:
        numeric = any(isinstance(row.get(name), (int, float)) for row in rows)
        shown.add_column(escape(block.column(name).title(name)), justify="right" if numeric else "left")
    for row in rows:
        cells = []
        for name in names:
            value: Any = block.column(name).said(row.get(name))
            value = value.item() if hasattr(value, "item") else value
            format = block.column(name).format or None
            cells.append(escape(format_number(value, format=format) if not isinstance(value, str) else value))
        shown.add_row(*cells)
    return shown
