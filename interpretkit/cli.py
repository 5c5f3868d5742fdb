"""The one command, ``interpretkit``: it finds the front ends by their entry points, loads what is called."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from typer.main import get_command

from interpretkit import __version__
from interpretkit.commandline.front_ends import FrontEnd, front_ends
from interpretkit.commandline.groups import File, commands_in
from interpretkit.commandline.lazy import Deferred, LazyGroup
from interpretkit.runs.streams import steady_streams

# The package with the commands of the core.
COMMANDS = "interpretkit.commands"


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


app = typer.Typer(
    cls=Root,
    help="Representations that people can read: catalytic sites designed to order, networks explained.",
    no_args_is_help=True,
    add_completion=True,
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


def every_command() -> Iterator[tuple[str, File]]:
    """Give every command of the installation that is a file, with the words that call it."""
    waiting: list[tuple[str, Any]] = [("", get_command(app))]
    while waiting:
        words, group = waiting.pop(0)
        for name, entry in group.commands.items():
            called = f"{words} {name}".strip()
            if isinstance(entry, File):
                yield called, entry
            elif isinstance(entry, FrontEnd):
                waiting.append((called, entry.load()))
            elif hasattr(entry, "commands"):
                waiting.append((called, entry))


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
