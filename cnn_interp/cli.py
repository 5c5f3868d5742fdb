"""Interpretation of convolutional networks: what they see, where they fail, what their parts stand for."""

# To show the list of commands none of the packages is imported, for most of them bring torch along.

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

from typer.core import TyperCommand
from typer.main import get_command

from cnn_interp.visualization import cli as visualization
from interpretkit.cli import find_module
from interpretkit.command import Group, application, reporting

# From a command to the module whose application has it, or is it.
ELSEWHERE = {
    "diagnose": "cnn_interp.diagnosis.cli",
    "dissect": "cnn_interp.metrics.cli",
    "instability": "cnn_interp.metrics.cli",
}


class Deferred(TyperCommand):
    """Stands for a command of another module until it is called.

    Parameters
    ----------
    name : str
        What it is called.
    module : str
        The module with an application ``app``, which has the command or is the group of that name.
    """

    def __init__(self, name: str, module: str) -> None:
        super().__init__(name=name)
        self.module = module

    def describe(self) -> str:
        """Return the first sentence on the command, read from its module without importing it.

        It is that of the function of the command's name, else that of the module.
        """
        spec = find_module(self.module)
        if spec is None or not spec.origin:
            return ""
        try:
            tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError):
            return ""
        functions = [
            node
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and node.name == str(self.name).replace("-", "_")
        ]
        return (ast.get_docstring([*functions, tree][0]) or "").partition("\n")[0]

    def load(self) -> Any:
        """Import the module and return the command, or the group if it has none of that name."""
        group: Any = get_command(importlib.import_module(self.module).app)
        return getattr(group, "commands", {}).get(self.name, group)


class Collected(Group):
    """The commands of this front end, those of other modules as placeholders."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, module in ELSEWHERE.items():
            self.commands.setdefault(name, Deferred(name, module))

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names, with the placeholders' help found out, for this is called when help is shown."""
        for entry in self.commands.values():
            if isinstance(entry, Deferred) and entry.help is None:
                entry.help = entry.describe()
        return super().list_commands(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command called, importing its module if it is not in yet."""
        name, found, rest = super().resolve_command(ctx, args)
        if isinstance(found, Deferred):
            with reporting(debug="--debug" in rest, doing=f"loading the command {name!r}"):
                found = found.load()
        return name, found, rest


app = application("Question a convolutional network.", cls=Collected)
visualization.register(app)
