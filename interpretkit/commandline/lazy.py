"""Commands that are imported when they are called, so that lists of commands and their help come at once."""

from __future__ import annotations

import ast
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from interpretkit.commandline.contract import Group, reporting


class Deferred(TyperCommand, ABC):
    """Stands for a command in a list until it is called.

    Attributes
    ----------
    kind : str
        What it is called in errors.
    """

    kind = "command"

    @abstractmethod
    def describe(self) -> str:
        """Return a line on what the command does, without importing it."""

    @abstractmethod
    def load(self) -> Any:
        """Import the command and return it."""


class LazyGroup(Group, ABC):
    """A command group some of whose commands are imported when they are called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for entry in self.deferred():
            self.commands.setdefault(str(entry.name), entry)

    @abstractmethod
    def deferred(self) -> Iterable[Deferred]:
        """Return what stands for the commands that are not imported yet."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names, with the help of what is deferred found out, for this is called when help is shown."""
        for entry in self.commands.values():
            if isinstance(entry, Deferred) and entry.help is None:
                entry.help = entry.describe()
        return super().list_commands(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command called, importing it if it is not in yet."""
        name, found, rest = super().resolve_command(ctx, args)
        if isinstance(found, Deferred):
            with reporting(debug="--debug" in rest, doing=f"loading the {found.kind} {name!r}"):
                found = found.load()
        return name, found, rest


def parse_module(name: str) -> ast.Module | None:
    """Return a module's syntax tree, importing nothing; None if its source cannot be had."""
    spec = find_module(name)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    try:
        return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None


def first_line(node: ast.Module | ast.FunctionDef) -> str:
    """Return the first line of a docstring; empty if there is none."""
    return (ast.get_docstring(node) or "").partition("\n")[0]


def find_module(name: str) -> ModuleSpec | None:
    """Return where a module is, importing neither it nor the packages it is in; None if there is none."""
    top, *inner = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    for part in inner:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    return spec
