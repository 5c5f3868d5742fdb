"""The decorator that makes a function a command: options from its signature, its Finding into a folder."""

from __future__ import annotations

import inspect
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.main import get_command

from interpretkit.commandline.contract import (
    Command,
    called_by_option,
    escape,
    help_of,
    option_names,
    reporting,
    reserved_stdout,
    told_unprinted,
)
from interpretkit.commandline.finding import Finding
from interpretkit.commandline.loading import announced_loading
from interpretkit.commandline.options import Debug, Json, Out, Quiet
from interpretkit.errors import InputError
from interpretkit.runs.files import dump_json
from interpretkit.runs.processes import are_several, is_helper, world

Function = TypeVar("Function", bound=Callable[..., Finding])

_MARK = "__interpretkit_command__"
# What a function may ask for under these names without its being an option.
_RUN = "run"


@dataclass(frozen=True)
class Declared:
    """What the decorator was told."""

    out: str | None
    examples: tuple[str, ...]
    together: bool


def command(
    *, example: str | Sequence[str], out: str | None = None, together: bool = False
) -> Callable[[Function], Function]:
    """Make a function a command that keeps the contract of the command line.

    The function returns a :class:`~interpretkit.commandline.finding.Finding`. Its parameters are the options, typed
    as typer has it. The house adds ``--out``, ``--quiet``, ``--json`` and ``--debug``, opens the result's folder
    before the function is called, writes the Finding, and prints its summary. A parameter ``run`` gets the
    :class:`~interpretkit.runs.folder.Run` under way, for what is too large to be held, or done in steps that are kept.

    The contract: exit 0; or 2 with one line on stderr for an :class:`~interpretkit.errors.InputError` and for
    a usage error; 1 with one line for anything else that goes wrong; 130 after Ctrl-C; a traceback only with
    ``--debug``. With ``--json`` one object is the only line on stdout.

    Parameters
    ----------
    example : str or sequence of str
        One or more command lines, shown at the end of the help.
    out : str, optional
        The result's folder by default. A command without one writes nothing.
    together : bool
        Whether several processes that torchrun starts share the work; any other command is refused there, for each of
        them would do all of it.

    Returns
    -------
    callable
        A decorator that returns the function as it was, so that Python code can call it and see its
        exceptions. The help is the function's docstring up to its first section (Parameters, Returns …).
    """
    examples = (example,) if isinstance(example, str) else tuple(example)

    def declare(function: Function) -> Function:
        setattr(function, _MARK, Declared(out, examples, together))
        return function

    return declare


def declared_in(module: Any) -> Callable[..., Finding]:
    """Return the one function of a module that is a command.

    Raises
    ------
    TypeError
        If it has none, or several.
    """
    found: list[Any] = [
        value
        for value in vars(module).values()
        if callable(value) and hasattr(value, _MARK) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__name__}: {len(found)} commands; expected one in each file")
    return found[0]


def as_command(function: Callable[..., Finding], name: str) -> Command:
    """Return the command that a decorated function makes, for a group of commands."""
    declared: Declared = getattr(function, _MARK)
    signature = inspect.signature(function, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != _RUN]
    wants_run = _RUN in signature.parameters
    common: dict[str, Any] = {"quiet": Quiet, "json": Json, "debug": Debug}
    if declared.out is not None:
        common = {"out": Out, **common}
    added = [
        inspect.Parameter(
            option,
            inspect.Parameter.KEYWORD_ONLY,
            default=Path(declared.out or "") if option == "out" else False,
            annotation=annotation,
        )
        for option, annotation in common.items()
        if option not in signature.parameters
    ]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*own, *added]]
    names = option_names(parameters)

    def call(context: typer.Context, **options: Any) -> None:
        given = {parameter.name: options[parameter.name] for parameter in own}
        quiet, as_json, debug = (bool(options[option]) for option in ("quiet", "json", "debug"))
        title = context.command_path.removeprefix("interpretkit ")
        helping = is_helper()
        if helping:  # beside the process that prints and saves
            quiet, as_json = True, False
            given |= {"quiet": True} if "quiet" in given else {}
            if not declared.together:
                raise typer.Exit(2)  # the other process says why
        with (
            reporting(debug=debug, doing=f"process {world().rank}" if helping else ""),
            announced_loading(quiet=quiet),
            called_by_option(names),
            reserved_stdout(as_json) as stdout,
        ):
            if are_several() and not declared.together:
                raise InputError(f"torchrun: `{title}` works in one process; expected it to be started alone")
            if declared.out is None:
                found, places = function(**given), {}
            else:
                place = options["out"]
                with tempfile.TemporaryDirectory() if helping else nullcontext() as nowhere:
                    place = place if nowhere is None else Path(nowhere) / "out"
                    found, places = _in_folder(function, given, place, title, wants_run, quiet)
            try:
                if as_json:
                    print(dump_json(found.summary() | places), file=stdout, flush=True)
                elif not quiet:
                    from interpretkit.commandline.terminal import show

                    show(found, places)
                    sys.stdout.flush()
            except OSError as error:
                told_unprinted(error, places, as_json=as_json, debug=debug)
        if found.exit_code:
            raise typer.Exit(found.exit_code)

    call.__name__ = function.__name__
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    call.__annotations__ = {p.name: p.annotation for p in [context, *parameters]}
    call.__signature__ = inspect.Signature([context, *parameters])  # type: ignore[attr-defined]
    application = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    application.command(
        name,
        cls=Command,
        help=help_of(function),
        epilog="\n\n".join(["[bold]Example[/bold]", *(f"  {escape(line)}" for line in declared.examples)]),
    )(call)
    built = get_command(application)
    assert isinstance(built, Command)
    return built


def _in_folder(
    function: Callable[..., Finding],
    given: Mapping[str, Any],
    out: Path,
    title: str,
    wants_run: bool,
    quiet: bool,
) -> tuple[Finding, dict[str, Path]]:
    """Call a command's function within a run, and write what it found."""
    from interpretkit.commandline.writing import REPORT, write
    from interpretkit.runs.folder import run_folder
    from interpretkit.runs.progress import at_work

    # What only says how to go about it is no part of what a result depends on.
    arguments = {name: value for name, value in given.items() if name not in ("quiet", "seed")}
    seed = given.get("seed")
    with run_folder(out, title, arguments, seed) as run, at_work(title, quiet=quiet):
        found = function(**given, **({_RUN: run} if wants_run else {}))
        if found.transient:
            run.discarded = True
            return found, {}
        write(found, run, out, command=title, seed=seed, quiet=quiet)
    return found, {"out": out, "report": out / REPORT}
