"""What every command of the command line has in common, so that a front end writes only what is its own.

A front end makes an application with :func:`application`, adds functions to it with :func:`command`, and
offers the application under the entry point group ``interpretkit.commands``::

    from interpretkit.commandline.contract import Device, Out, Seed, application, command

    app = application("Inverse design of catalytic sites.")

    @command(app, "design", example="interpretkit catalyst design --target-ev 0.1 --out designs")
    def design(out: Out = Path("designs"), seed: Seed = 0, device: Device = "auto") -> dict:
        ...
        return {"n_designs": 100, "out": out}

The function returns what ``--json`` prints. The options ``--quiet``, ``--json`` and ``--debug`` are added to
every command; a function that wants to know of them declares a parameter of that name.
"""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import OptionInfo

from interpretkit.commandline.loading import announced_loading
from interpretkit.errors import InputError
from interpretkit.runs.environment import extra_of, install_command
from interpretkit.runs.files import dump_json, to_jsonable
from interpretkit.runs.folder import check_out
from interpretkit.runs.invocation import invoked
from interpretkit.runs.streams import harmless, silence_stdout

DEVICES = ("auto", "cpu", "cuda", "mps")


def _check_device(value: str) -> str:
    if value not in DEVICES:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(DEVICES)}.")
    return value


Out = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Folder for the results. An earlier result there is replaced when the run ends.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="|".join(DEVICES),
        callback=_check_device,
        help="Where to compute; auto takes a GPU if there is one.",
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, help="Seed of all randomness: same seed, same result on a CPU.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show neither progress nor a summary, only errors.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback when something goes wrong.")]

Result = Mapping[str, Any] | None
Function = TypeVar("Function", bound=Callable[..., Result])

# The options of every command, whether or not its function asks for them.
_COMMON: dict[str, Any] = {"quiet": Quiet, "json": Json, "debug": Debug}

# The class that the command-line parser's own complaints have in common. Depending on the release of typer it
# is typer's or click's, so it is found by way of one that typer has always offered.
_ParserError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


class _OneLineErrors:
    """Gives a typer command or group a ``main`` that prints a usage error as one line instead of a panel."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        inherited = super().main  # type: ignore[misc]
        given = (args, prog_name, complete_var, False, windows_expand_args)
        if not standalone_mode:
            return inherited(*given, **extra)
        words = sys.argv[1:] if args is None else args
        try:
            with invoked(["interpretkit", *words]):
                code = inherited(*given, **extra)
        except _ParserError as error:
            _exit_for_parser_error(error)
        except typer.Abort:
            _complain("interrupted")
            sys.exit(130)
        sys.exit(code if isinstance(code, int) else 0)


class Command(_OneLineErrors, TyperCommand):
    """A typer command whose usage errors are one line."""


class Group(_OneLineErrors, TyperGroup):
    """A typer group whose usage errors are one line."""


def application(help: str, *, cls: type[TyperGroup] = Group) -> typer.Typer:
    r"""Return a typer application for the commands of a front end.

    Parameters
    ----------
    help : str
        One sentence on what the commands are for. Rich markup is understood: write ``\[`` for an opening
        bracket.
    cls : type
        The class of the command group.
    """
    return typer.Typer(
        cls=cls,
        help=help,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
    )


def command(
    app: typer.Typer,
    name: str,
    *,
    example: str | Sequence[str],
    summary: Callable[[Mapping[str, Any]], None] | None = None,
) -> Callable[[Function], Function]:
    """Add a function to an application as a command that keeps the contract of the command line.

    The contract: exit 0; or 2 with one line on stderr for an :class:`~interpretkit.errors.InputError` and for
    a usage error; 1 with one line for anything else that goes wrong; 130 after Ctrl-C; a traceback only with
    ``--debug``. With ``--json`` the mapping that the function returns is the only line on stdout.

    Parameters
    ----------
    app : typer.Typer
        The application.
    name : str
        The command's name.
    example : str or sequence of str
        One or more command lines, shown at the end of the help.
    summary : callable, optional
        Prints the result for a person; a table of its plain values by default. Not called under ``--quiet``
        or ``--json``.

    Returns
    -------
    callable
        A decorator that returns the function as it was, so that Python code can call it and see its
        exceptions. The help is the function's docstring up to its first section (Parameters, Returns …).
    """
    examples = [example] if isinstance(example, str) else list(example)

    def register(function: Function) -> Function:
        signature = inspect.signature(function, eval_str=True)
        declared = list(signature.parameters.values())
        added = [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
            for option, annotation in _COMMON.items()
            if option not in signature.parameters
        ]

        names = _option_names(declared)
        # Where a result cannot go is said before anything is loaded for it.
        results = [parameter.name for parameter in declared if parameter.annotation == Out]

        def run(**options: Any) -> None:
            quiet, as_json, debug = (bool(options[option]) for option in _COMMON)
            own = {parameter.name: options[parameter.name] for parameter in declared}
            with (
                reporting(debug=debug),
                announced_loading(quiet=quiet),
                _called_by_option(names),
                _reserved_stdout(as_json) as stdout,
            ):
                for name in results:
                    check_out(own[name])
                result = to_jsonable(function(**own) or {})
                try:
                    if as_json:
                        print(dump_json(result), file=stdout, flush=True)
                    elif not quiet:
                        (summary or print_summary)(result)
                        sys.stdout.flush()
                except OSError as error:
                    _told_unprinted(error, result, as_json=as_json, debug=debug)

        run.__name__ = function.__name__
        run.__annotations__ = {p.name: p.annotation for p in [*declared, *added]}
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*declared, *added]]
        )
        app.command(
            name,
            cls=Command,
            help=_help_of(function),
            epilog="\n\n".join(["[bold]Example[/bold]", *(f"  {_escape(line)}" for line in examples)]),
        )(run)
        return function

    return register


@contextlib.contextmanager
def reporting(*, debug: bool = False, doing: str = "") -> Iterator[None]:
    """Turn what the block raises into one line on stderr and the exit code of the contract.

    Parameters
    ----------
    debug : bool
        Show the traceback before the line.
    doing : str
        What the block does, such as ``"loading the front end 'catalyst'"``; begins the line of an unexpected
        error.

    Raises
    ------
    typer.Exit
        With 2 for an :class:`InputError`, 130 after Ctrl-C, 1 for anything else.
    """
    prefix = f"{doing}: " if doing else ""
    with _short_warnings(enabled=not debug):
        try:
            yield
        except (typer.Exit, typer.Abort, _ParserError, BrokenPipeError):
            raise  # the parser's own signals, and a closed pipe, which typer ends quietly
        except InputError as error:
            _fail(error, str(error), code=2, debug=debug)
        except KeyboardInterrupt as error:
            _fail(error, "interrupted", code=130, debug=debug)
        except ModuleNotFoundError as error:
            extra = extra_of(error.name or "")
            cure = f"; to install it, run in the checkout: {install_command(extra)}" if extra else ""
            _fail(error, f"{prefix}{error}{cure}", code=1, debug=debug)
        # The one place where every exception is caught: whoever types a command must read one line and not a
        # traceback, whatever failed, and --debug shows all of it. Nothing continues after it.
        except Exception as error:  # noqa: BLE001
            hint = "" if debug else " (run again with --debug for the traceback)"
            _fail(error, f"{prefix}{type(error).__name__}: {error}{hint}", code=1, debug=debug)


def _told_unprinted(error: OSError, result: Mapping[str, Any], *, as_json: bool, debug: bool) -> None:
    """Say that a result stands in its folder though stdout did not take it; whoever reads on stops in silence."""
    silence_stdout()
    if isinstance(error, BrokenPipeError) and not as_json:
        raise typer.Exit(1) from error  # the reader of a table, such as head, has seen enough
    where = f"; the result itself is whole, in {result['out']}" if result.get("out") else ""
    _fail(error, f"stdout cannot be written to ({error.strerror}){where}", code=1, debug=debug)


def _option_names(parameters: Sequence[inspect.Parameter]) -> dict[str, str]:
    """Return the options of a command by what Python calls them: the parameter's name, and the option's own."""
    names: dict[str, str] = {}
    for parameter in parameters:
        for known in getattr(parameter.annotation, "__metadata__", ()):
            if isinstance(known, OptionInfo):
                # Within Annotated, typer keeps the first of an option's names where it keeps defaults elsewhere.
                words = [str(word).split("/")[0] for word in (known.default, *(known.param_decls or ()))]
                default = "--" + parameter.name.replace("_", "-")
                option = next((word for word in words if word.startswith("--")), default)
                names |= {parameter.name: option, option[2:].replace("-", "_"): option}
    return names


@contextlib.contextmanager
def _called_by_option(names: Mapping[str, str]) -> Iterator[None]:
    """Let an error that begins with the name of a parameter begin with its option, for whoever typed that."""
    try:
        yield
    except InputError as error:
        message = str(error)
        first = re.match(r"[a-z][a-z0-9_]*(?=: | .*: )", message)
        if first is None or first[0] not in names:
            raise
        raise InputError(names[first[0]] + message[first.end() :]) from error


def print_summary(result: Mapping[str, Any]) -> None:
    """Print the plain values of a command's result as two columns on stdout, and how much the others hold.

    What stands under ``warnings`` comes last and in a frame, a line for each.
    """
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    told = [str(line) for line in result.get("warnings") or ()]
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in result.items():
        if name == "warnings":
            continue
        table.add_row(name.replace("_", " "), _escape(_shown(value)))
    if table.row_count:
        Console().print(table)
    if told:
        lines = Text("\n\n".join(told), style="bold")
        Console().print(Panel(lines, title="WARNING", border_style="bold red", padding=(1, 2)))


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        if len(value) <= 8 and not any(isinstance(item, (Mapping, list)) for item in value.values()):
            return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
        return f"{len(value)} entries"
    if isinstance(value, list):
        if len(value) <= 8 and not any(isinstance(item, (Mapping, list)) for item in value):
            return ", ".join(_shown(item) for item in value)
        return f"{len(value)} entries"
    return str(value)


def _help_of(function: Callable[..., Any]) -> str:
    """Return the docstring up to its first section, for the rest is for readers of the code."""
    text = inspect.getdoc(function) or ""
    prose = re.split(r"\n\s*\n?[A-Z][A-Za-z ]+\n-{3,}", text)[0].strip()
    # The terminal breaks the lines of a paragraph, not the source.
    return _escape(re.sub(r"(?<!\n)\n(?!\n)", " ", prose))


def _escape(text: str) -> str:
    """Keep rich from reading square brackets as markup."""
    return re.sub(r"(\\*)(\[[a-z#/@])", r"\1\1\\\2", text)


def _one_line(text: str) -> str:
    return harmless(" ".join(text.split()))


def _complain(message: str) -> None:
    print(f"Error: {_one_line(message)}", file=sys.stderr, flush=True)


def _fail(error: BaseException, message: str, *, code: int, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exception(error)
    _complain(message)
    raise typer.Exit(code) from error


def _exit_for_parser_error(error: Exception) -> NoReturn:
    message = error.format_message()  # type: ignore[attr-defined]
    if type(error).__name__ == "NoArgsIsHelpError":
        # A group called without a command: the help is what was wanted. Rich has printed it already.
        if message:
            print(message)
        sys.exit(0)
    # The parser names the option; the value is only in the complaint of the library that checked it.
    found = getattr(error.__cause__, "errors", None)
    if callable(found):
        given: Any = found()
        message = message.replace("Invalid value for", f"Invalid value {given[0]['input']!r} for", 1)
    context = getattr(error, "ctx", None)
    hint = f" (see: {context.command_path} --help)" if context is not None else ""
    _complain(f"{_one_line(message)}{hint}")
    sys.exit(error.exit_code)  # type: ignore[attr-defined]


@contextlib.contextmanager
def _reserved_stdout(reserved: bool) -> Iterator[TextIO]:
    """Yield the real stdout; while `reserved`, whatever else is printed there goes to stderr.

    Libraries print, and some of them from compiled code or in child processes, so the file descriptor itself
    is turned round too.
    """
    stdout = sys.stdout
    if not reserved:
        yield stdout
        return
    with contextlib.ExitStack() as stack:
        if _is_descriptor(stdout, 1) and _is_descriptor(sys.stderr, 2):
            stdout.flush()
            kept = os.dup(1)
            stdout = os.fdopen(kept, "w", encoding="utf-8", errors="backslashreplace")
            stack.callback(_close, stdout)
            os.dup2(2, 1)
            stack.callback(os.dup2, kept, 1)
            stack.callback(_flush_c_library)
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield stdout


def _close(stream: TextIO) -> None:
    # What it did not take has been complained of; closing it, it tries once more.
    with contextlib.suppress(OSError):
        stream.close()


def _flush_c_library() -> None:
    """Write out what compiled code has printed, while the descriptor still leads to stderr."""
    # On Windows there is no C library under that name.
    with contextlib.suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL(None).fflush(None)


def _is_descriptor(stream: TextIO, number: int) -> bool:
    try:
        return stream.fileno() == number
    except (OSError, ValueError):  # a stream in memory, as in tests and notebooks, or a closed one
        return False


@contextlib.contextmanager
def _short_warnings(*, enabled: bool) -> Iterator[None]:
    """Print a warning as one line, and leave out those that are meant for programmers."""
    if not enabled:
        yield
        return

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"Warning: {_one_line(str(message))}", file=sys.stderr, flush=True)

    with warnings.catch_warnings():
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        warnings.showwarning = show
        yield
