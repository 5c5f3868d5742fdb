import contextlib
import ctypes
import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import typer

from interpretkit.commandline import Device, Finding, Quiet, Seed, command
from interpretkit.commandline.command import as_command
from interpretkit.commandline.contract import Group
from interpretkit.errors import InputError
from interpretkit.runs.invocation import command_line


@command(example="interpretkit test work --n 3")
def work(
    n: Annotated[int, typer.Option(help="How many [of them].")] = 1,
    fail: Annotated[str, typer.Option(help="What to raise.")] = "",
    warn: Annotated[bool, typer.Option(help="Whether to warn.")] = False,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> Finding:
    """Do a little work [gently].

    More about it.

    Parameters
    ----------
    n : int
        Not for the help.
    """
    print("printed by a library")
    os.system("echo printed by a child")
    with contextlib.suppress(OSError, TypeError):
        ctypes.CDLL(None).printf(b"printed by compiled code\n")
    if warn:
        warnings.warn("something\nodd", UserWarning, stacklevel=1)
        warnings.warn("for programmers", DeprecationWarning, stacklevel=1)
    errors: dict[str, BaseException] = {
        "input": InputError("--n 3:\nexpected less"),
        "other": RuntimeError("broke"),
        "interrupt": KeyboardInterrupt(),
        "module": ModuleNotFoundError("No module named 'chgnet'", name="chgnet"),
    }
    if fail:
        raise errors[fail]
    found = Finding("Worked").number("n", np.int64(n)).number("nan", float("nan"))
    found.number("quiet", quiet).number("values", np.arange(2))
    return found


@command(example=["interpretkit test other", "interpretkit test other --quiet"])
def other() -> Finding:
    """Return nothing."""
    return Finding("Nothing")


@command(example="interpretkit test named")
def named(
    message: Annotated[str, typer.Option("--message")] = "",
    network: Annotated[str, typer.Option("--model", "-m")] = "",
    images_per_forward: Annotated[int, typer.Option()] = 1,
    files: Annotated[list[Path] | None, typer.Argument()] = None,
) -> Finding:
    """Complain."""
    raise InputError(message)


@command(example="interpretkit test line")
def line(words: Annotated[list[str] | None, typer.Argument()] = None) -> Finding:
    """Return what was typed."""
    return Finding("Line").number("line", command_line())


app = Group(
    name="test",
    help="A front end for the tests.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    commands={
        function.__name__: as_command(function, function.__name__) for function in (work, other, named, line)
    },
)


def run(*arguments: str, code: int = 0) -> tuple[str, str]:
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        pytest.raises(SystemExit) as end,
    ):
        app.main(list(arguments), prog_name="interpretkit")
    assert end.value.code == code, stdout.getvalue() + stderr.getvalue()
    return stdout.getvalue(), stderr.getvalue()


def test_json_is_the_only_line_on_stdout():
    stdout, stderr = run("work", "--json", "--n", "3")
    assert stdout.count("\n") == 1
    assert json.loads(stdout) == {"n": 3, "nan": None, "quiet": False, "values": [0, 1], "warnings": []}
    assert "printed by a library" in stderr
    assert json.loads(run("other", "--json")[0]) == {"warnings": []}


def test_even_children_print_elsewhere_under_json():
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from test_command import app; app.main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "work", "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["n"] == 1
    assert "printed by a child" in done.stderr
    assert "printed by compiled code" in done.stderr


def test_a_person_gets_a_summary_unless_quiet():
    assert "values" in run("work")[0]
    assert "values" not in run("work", "--quiet")[0]
    assert run("other", "--quiet") == ("", "")


def test_warnings_are_one_line():
    assert run("work", "--warn")[1] == "Warning: something odd\n"


@pytest.mark.parametrize(
    ("fail", "code", "line"),
    [
        ("input", 2, "Error: --n 3: expected less"),
        ("other", 1, "Error: RuntimeError: broke (run again with --debug for the traceback)"),
        ("interrupt", 130, "Error: interrupted"),
        (
            "module",
            1,
            "Error: No module named 'chgnet'; to install it, run in the checkout: "
            'pip install -c constraints.txt ".[mlip]"',
        ),
    ],
)
def test_what_goes_wrong_is_one_line_and_a_code(fail: str, code: int, line: str):
    stdout, stderr = run("work", "--json", "--fail", fail, code=code)
    assert stdout == ""
    assert stderr.splitlines()[-1] == line
    assert "Traceback" not in stderr
    assert "Traceback" in run("work", "--debug", "--fail", fail, code=code)[1]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("network 'x': expected a name", "--model 'x': expected a name"),
        ("model: expected a name", "--model: expected a name"),
        ("images_per_forward 0: expected more", "--images-per-forward 0: expected more"),
        ("images 'x': expected more", "images 'x': expected more"),
        ("files x.png: not an image", "files x.png: not an image"),
        (
            "a.png: small; expected `images_per_forward` or `x`",
            "a.png: small; expected --images-per-forward or `x`",
        ),
        ("model is not a word for it", "model is not a word for it"),
        ("/folder/model: none there", "/folder/model: none there"),
    ],
)
def test_errors_call_parameters_by_their_options(message: str, shown: str):
    assert run("named", "--message", message, code=2)[1] == f"Error: {shown}\n"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["work", "--n", "many"], ["--n", "many"]),
        (["work", "--device", "tpu"], ["--device", "tpu", "auto, cpu, cuda, mps"]),
        (["work", "--seed", "-1"], ["--seed", "-1"]),
        (["work", "--sed", "1"], ["--sed", "--seed"]),
        (["wrk"], ["wrk"]),
        (["work", "extra"], ["extra"]),
    ],
)
def test_a_usage_error_is_one_line(arguments: list[str], parts: list[str]):
    stdout, stderr = run(*arguments, code=2)
    assert stdout == ""
    assert stderr.count("\n") == 1
    assert stderr.startswith("Error: ")
    assert all(part in stderr for part in parts)


def test_help_shows_an_example_and_all_options_but_not_the_sections_of_the_docstring():
    text = run("work", "--help")[0]
    assert "interpretkit test work --n 3" in text
    assert "Do a little work [gently]." in text
    assert "More about it." in text
    assert "Not for the help" not in text
    for option in ("--device", "--seed", "--quiet", "--json", "--debug"):
        assert option in text


def test_a_group_without_a_command_shows_its_help():
    assert "A front end for the tests." in run()[0]


def test_a_command_knows_what_was_typed():
    stdout, _ = run("line", "a b", "--json")
    assert json.loads(stdout) == {"line": "interpretkit line 'a b' --json", "warnings": []}
    assert line().summary()["line"] is None


def test_python_code_calls_the_function_itself():
    with pytest.raises(InputError):
        work(fail="input")
    assert work(n=2).summary()["n"] == 2
