"""The one command, ``interpretkit``: it finds the front ends by their entry points, loads what is called."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.main import get_command

from interpretkit import __version__
from interpretkit.commandline.groups import commands_in
from interpretkit.commandline.lazy import Deferred, LazyGroup, first_line, parse_module
from interpretkit.runs.streams import steady_streams

ENTRY_POINTS = "interpretkit.commands"
# The package with the commands of the core.
COMMANDS = "interpretkit.commands"


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


class Root(LazyGroup):
    """The root command group: its own commands, and a placeholder for every front end."""

    def deferred(self) -> list[Deferred]:
        """Return what stands for the commands of the core, and for those of all front ends."""
        found: list[Any] = list(commands_in(COMMANDS))
        for entry_point in front_ends():
            # Named is a package of commands, or an application made otherwise.
            own = [] if entry_point.attr else list(commands_in(entry_point.value))
            found += own or [FrontEnd(entry_point)]
        return found


def front_ends() -> list[metadata.EntryPoint]:
    """Return the entry points of all front ends installed, by name."""
    return sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda entry_point: entry_point.name)


app = typer.Typer(
    cls=Root,
    help="Representations that people can read: catalytic sites designed to order, networks explained.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"interpretkit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit."),
    ] = False,
) -> None:
    # Makes the application a group even with a single command, and carries --version.
    return


def _terminate(number: int, frame: Any) -> None:
    # As an exception it lets a run remove what it has half written.
    sys.exit(128 + number)


def command_tree() -> Any:
    """Return the root group with all its commands, those of other files as placeholders."""
    return get_command(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Parameters
    ----------
    arguments : sequence of str, optional
        What follows ``interpretkit``; the program's own arguments by default.

    Raises
    ------
    SystemExit
        Always, with the exit code.
    """
    signal.signal(signal.SIGTERM, _terminate)
    with steady_streams():
        get_command(app).main(None if arguments is None else list(arguments), prog_name="interpretkit")


if __name__ == "__main__":
    main()
