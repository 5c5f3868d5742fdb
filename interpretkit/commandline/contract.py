"""The contract of the command line: exit codes, one line for what goes wrong, stdout for the result alone."""

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
from typing import Any, NoReturn, TextIO

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import OptionInfo

from interpretkit.errors import InputError
from interpretkit.runs.environment import extra_of, install_command
from interpretkit.runs.invocation import invoked
from interpretkit.runs.streams import harmless, silence_stdout

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


def told_unprinted(error: OSError, result: Mapping[str, Any], *, as_json: bool, debug: bool) -> None:
    """Say that a result stands in its folder though stdout did not take it; whoever reads on stops in silence."""
    silence_stdout()
    if isinstance(error, BrokenPipeError) and not as_json:
        raise typer.Exit(1) from error  # the reader of a table, such as head, has seen enough
    where = f"; the result itself is whole, in {result['out']}" if result.get("out") else ""
    _fail(error, f"stdout cannot be written to ({error.strerror}){where}", code=1, debug=debug)


def option_names(parameters: Sequence[inspect.Parameter]) -> dict[str, str]:
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
def called_by_option(names: Mapping[str, str]) -> Iterator[None]:
    """Let an error call parameters by their options, for whoever typed those.

    The name of a parameter stands at the beginning of an error, or in backticks: ``layer 'x': none; expected `layer```.
    """
    try:
        yield
    except InputError as error:
        message = re.sub(r"`([a-z][a-z0-9_]*)`", lambda found: names.get(found[1], found[0]), str(error))
        first = re.match(r"[a-z][a-z0-9_]*(?=: | .*: )", message)
        if first is not None and first[0] in names:
            message = names[first[0]] + message[first.end() :]
        if message == str(error):
            raise
        raise InputError(message) from error


def help_of(function: Callable[..., Any]) -> str:
    """Return the docstring up to its first section, for the rest is for readers of the code."""
    text = inspect.getdoc(function) or ""
    prose = re.split(r"\n\s*\n?[A-Z][A-Za-z ]+\n-{3,}", text)[0].strip()
    # The terminal breaks the lines of a paragraph, not the source.
    return escape(re.sub(r"(?<!\n)\n(?!\n)", " ", prose))


def escape(text: str) -> str:
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
def reserved_stdout(reserved: bool) -> Iterator[TextIO]:
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
