"""Options that commands share, so that one name means one thing everywhere, and what is read from their text."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from interpretkit.errors import InputError

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


def listed(text: str) -> list[str]:
    """Return the words of a text between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def one_of(known: Sequence[str], name: str, parameter: str) -> str:
    """Return a name if it is known.

    Raises
    ------
    InputError
        If it is not; the line names those that are nearest to it.
    """
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise InputError(f"{parameter} {name!r}: {hint}expected one of {', '.join(known)}")


def some_of(known: Sequence[str], text: str, parameter: str) -> list[str]:
    """Return the names in a text between commas, each once.

    Raises
    ------
    InputError
        If there is none, or one that is not known.
    """
    names = listed(text)
    if not names:
        raise InputError(f"{parameter} {text!r}: names none; expected some of {', '.join(known)}")
    return [one_of(known, name, parameter) for name in dict.fromkeys(names)]


def kind_and_path(
    text: str, kinds: Sequence[str], parameter: str, *, words: Sequence[str] = ()
) -> tuple[str, Path | None]:
    """Return what an option of the form ``KIND=PATH`` names.

    Parameters
    ----------
    text : str
        What was given.
    kinds : sequence of str
        The kinds of data that have a path; empty for any kind.
    parameter : str
        What is complained of.
    words : sequence of str
        What may stand alone, for data that need no path.

    Returns
    -------
    kind : str
        The kind, or the word.
    path : pathlib.Path or None
        Its path, which exists; None for a word.

    Raises
    ------
    InputError
        If the text has another form, or there is nothing at the path.
    """
    if text in words:
        return text, None
    kind, equals, path = text.partition("=")
    if not (kind and equals and path) or (kinds and kind not in kinds):
        expected = [*words, *(f"{kind}=PATH" for kind in kinds or ["KIND"])]
        raise InputError(f"{parameter} {text!r}: expected {' or '.join(expected)}")
    found = Path(path).expanduser()
    if not found.exists():
        raise InputError(f"{parameter} {text!r}: no such file or folder {path!r}")
    return kind, found


def kinds_and_paths(texts: Sequence[str], kinds: Sequence[str], parameter: str) -> dict[str, Path]:
    """Return what several options of the form ``KIND=PATH`` name, from kind to path.

    Raises
    ------
    InputError
        As :func:`kind_and_path`, or if a kind is given twice.
    """
    found: dict[str, Path] = {}
    for text in texts:
        kind, path = kind_and_path(text, kinds, parameter)
        if kind in found:
            raise InputError(f"{parameter}: {kind} is given twice; expected each kind once")
        assert path is not None
        found[kind] = path
    return found
