"""The front ends that are installed, found by their entry points and not imported."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import typer
from typer.main import get_command

from interpretkit.commandline.lazy import Deferred, first_line, parse_module

ENTRY_POINTS = "interpretkit.commands"


def front_ends() -> list[metadata.EntryPoint]:
    """Return the entry points of all front ends installed, by name."""
    return sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda entry_point: entry_point.name)


class FrontEnd(Deferred):
    """Stands for a front end in the list of commands until it is called.

    Parameters
    ----------
    entry_point : importlib.metadata.EntryPoint
        Names the front end's typer application.
    """

    kind = "front end"

    def __init__(self, entry_point: metadata.EntryPoint) -> None:
        super().__init__(name=entry_point.name)
        self.entry_point = entry_point

    def describe(self) -> str:
        """Return the first line of the docstring of the front end's module, read without importing it."""
        tree = parse_module(self.entry_point.module)
        return "" if tree is None else first_line(tree)

    def load(self) -> Any:
        """Import the front end and return its command group.

        Raises
        ------
        TypeError
            If the entry point is no typer application.
        """
        loaded = self.entry_point.load()
        if isinstance(loaded, typer.Typer):
            return get_command(loaded)
        if hasattr(loaded, "make_context"):
            return loaded
        raise TypeError(f"the front end {self.entry_point.value!r} is {loaded!r}, not a typer application")
