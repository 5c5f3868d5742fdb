"""The one command, ``interpretkit``: it finds the front ends by their entry points, loads what is called."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from interpretkit import __version__
from interpretkit.command import Out, Quiet, Seed, application, command
from interpretkit.commandline.groups import commands_in
from interpretkit.lazy import Deferred, LazyGroup, first_line, parse_module
from interpretkit.streams import steady_streams

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


app = application(
    "Representations that people can read: catalytic sites designed to order, networks explained.",
    cls=Root,
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


def _print_scores(result: Any) -> None:
    from interpretkit.disentanglement.command import print_table

    print_table(result)


@command(
    app,
    "scores",
    example=[
        "interpretkit scores codes.npz",
        "interpretkit scores codes.npz --metrics mig,sap,dci --bootstrap 200 --out scores --json",
    ],
    summary=_print_scores,
)
def scores(
    file: Annotated[Path, typer.Argument(metavar="FILE.npz", help="Holds the codes and the factors.")],
    metrics: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Which scores, separated by commas; all by default."),
    ] = None,
    codes_key: Annotated[str, typer.Option(help="The array (n, d) of codes in the file.")] = "codes",
    factors_key: Annotated[str, typer.Option(help="The array (n, k) of factors in the file.")] = "factors",
    models_key: Annotated[
        str | None, typer.Option(help="An array (m, n, d) of the codes of m models, for udr.")
    ] = None,
    discrete: Annotated[
        str | None,
        typer.Option(help="Which factors are discrete: all, none, or 0,2,...; inferred by default."),
    ] = None,
    discrete_codes: Annotated[
        str | None,
        typer.Option(help="Which codes are discrete: all, none, or 0,2,...; none by default."),
    ] = None,
    bins: Annotated[
        int | None,
        typer.Option(help="Into how many bins continuous codes and factors are cut; each score's own."),
    ] = None,
    binning: Annotated[
        str | None,
        typer.Option(
            metavar="equal-width|equal-mass",
            help="How they are cut; equal-mass, also called quantile, minds no outliers. Each score's own.",
        ),
    ] = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Let DCI learn by gradient boosting; takes minutes.")
    ] = False,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples for the 95 % intervals; 0 for none.")] = 50,
    out: Out = Path("scores"),
    seed: Seed = 0,
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Score how well codes separate factors, each score beside its floor and its ceiling."""
    from interpretkit.checks import check_scores

    check_scores(
        file,
        metrics,
        codes=codes_key,
        factors=factors_key,
        models=models_key,
        discrete=discrete,
        reference=reference,
    )
    from interpretkit.disentanglement.command import run

    return run(
        file,
        metrics=metrics,
        codes_key=codes_key,
        factors_key=factors_key,
        models_key=models_key,
        discrete=discrete,
        discrete_codes=discrete_codes,
        bins=bins,
        binning=binning,
        reference=reference,
        bootstrap=bootstrap,
        out=out,
        seed=seed,
        quiet=quiet,
    )


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
