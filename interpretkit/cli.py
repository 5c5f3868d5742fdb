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
from interpretkit.command import Device, Out, Quiet, Seed, application, command
from interpretkit.lazy import Deferred, LazyGroup, first_line, parse_module
from interpretkit.streams import steady_streams

ENTRY_POINTS = "interpretkit.commands"


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
        """Return a placeholder for every front end."""
        return [FrontEnd(entry_point) for entry_point in front_ends()]


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


def _print_doctor(result: Any) -> None:
    from interpretkit.doctor import print_report

    print_report(result)


@command(app, "doctor", example=["interpretkit doctor", "interpretkit doctor --json"], summary=_print_doctor)
def doctor() -> dict[str, Any]:
    """Say what is installed, which device will be used, and how to mend what is missing."""
    from interpretkit.doctor import examine

    return examine()


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


def _print_bench(result: Any) -> None:
    from interpretkit.bench import print_results

    print_results(result)


@command(
    app,
    "bench",
    example=[
        "interpretkit bench --list",
        "interpretkit bench path_homology disentanglement --quick",
        "interpretkit bench --data hea-oh=FOLDER dsprites=FILE.npz --out evidence --json",
    ],
    summary=_print_bench,
)
def bench(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Which benchmarks; all by default.")
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="Only list the benchmarks there are.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repetitions and smaller data.")] = False,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND=PATH", help="Data of your own, such as hea-oh=FOLDER; more of them may follow."
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run also what an interrupted bench has done already.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for results.json and results.md; docs of the checkout by default."
        ),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Measure the claims of the project anew: rows of evidence, in results.json and results.md.

    Rows of benchmarks that are not run stay as they are. An interrupted bench goes on when it is called again
    in the same way. If a benchmark fails, the others go on, and the exit code is 1.
    """
    from interpretkit.bench import bench as run
    from interpretkit.bench import list_benchmarks

    if listing:
        return list_benchmarks()
    result = run(
        names or (),
        quick=quick,
        data=data or (),
        out=out,
        fresh=fresh,
        seed=seed,
        device=device,
        quiet=quiet,
    )
    if result["failed"]:
        # The exit code is set at the very end, so that the summary is printed before.
        context.call_on_close(_exit_with_1)
    return result


def _exit_with_1() -> None:
    raise typer.Exit(1)


def _terminate(number: int, frame: Any) -> None:
    # As an exception it lets a run remove what it has half written.
    sys.exit(128 + number)


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
