"""Interpretation of convolutional networks: what they see, where they fail, what their parts stand for."""

# To show the list of commands none of the packages is imported, for most of them bring torch along.

from __future__ import annotations

import ast
import importlib
from typing import Any

from typer.main import get_command

from cnn_interp.visualization import cli as visualization
from interpretkit.command import application
from interpretkit.lazy import Deferred, LazyGroup, first_line, parse_module

# From a command to the module whose application has it, or is it.
ELSEWHERE = {
    "diagnose": "cnn_interp.diagnosis.cli",
    "dissect": "cnn_interp.metrics_cli",
    "instability": "cnn_interp.metrics_cli",
}


class Elsewhere(Deferred):
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
        """Return the first line on the function of the command's name, else on the module, without importing it."""
        tree = parse_module(self.module)
        if tree is None:
            return ""
        name = str(self.name).replace("-", "_")
        own = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
        return first_line([*own, tree][0])

    def load(self) -> Any:
        """Import the module and return the command, or the group if it has none of that name."""
        group: Any = get_command(importlib.import_module(self.module).app)
        return getattr(group, "commands", {}).get(self.name, group)


class Collected(LazyGroup):
    """The commands of this front end, those of other modules as placeholders."""

    def deferred(self) -> list[Deferred]:
        """Return a placeholder for every command of another module."""
        return [Elsewhere(name, module) for name, module in ELSEWHERE.items()]


app = application("Question a convolutional network.", cls=Collected)
visualization.register(app)
