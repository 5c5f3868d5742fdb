"""Options that several checks have in common, and what is read from their text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from interpretkit.errors import InputError

Images = Annotated[
    list[Path] | None,
    typer.Argument(metavar="IMAGE|FOLDER", help="Images, or folders of images.", show_default=False),
]
Layers = Annotated[
    str, typer.Option("--layer", metavar="NAME,...", help="Dotted names; the network's stages by default.")
]
SmallData = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="digits|cifar10=FILE",
        help="Images to train a small network on: scikit-learn's digits, or an npz of JPEGs with train and test.",
    ),
]


def split(text: str) -> list[str]:
    """Return the parts of a text between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def some_of(known: Sequence[str], text: str, option: str) -> list[str]:
    """Return the names in an option's text, each once.

    Raises
    ------
    InputError
        If there is none, or one that is not known.
    """
    chosen = split(text)
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        raise InputError(f"{option} {text!r}: expected some of {', '.join(known)}")
    return list(dict.fromkeys(chosen))
