"""Groups of commands: a folder is a group, a file in it a command, imported when it is called."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from interpretkit.commandline.command import as_command, declared_in
from interpretkit.commandline.lazy import Deferred, LazyGroup, find_module, first_line, parse_module


class File(Deferred):
    """Stands for the command of a file.

    Parameters
    ----------
    module : str
        The module, named like the command with ``_`` for ``-``.
    """

    def __init__(self, module: str) -> None:
        super().__init__(name=_called(module))
        self.module = module

    def describe(self) -> str:
        """Return the first line on the function that is the command, without importing it."""
        tree = parse_module(self.module)
        functions = [] if tree is None else [n for n in tree.body if isinstance(n, ast.FunctionDef)]
        return next((first_line(function) for function in functions if _is_command(function)), "")

    def load(self) -> Any:
        """Import the file and return its command."""
        return as_command(declared_in(importlib.import_module(self.module)), str(self.name))


class Folder(LazyGroup):
    """The commands of a folder, and the groups of the folders in it.

    Parameters
    ----------
    package : str
        The package, whose docstring says what the commands are for.
    name : str, optional
        What the group is called; as the folder by default.
    """

    def __init__(self, package: str, name: str = "", **attributes: Any) -> None:
        self.package = package
        tree = parse_module(package)
        help = "" if tree is None else (ast.get_docstring(tree) or "")
        super().__init__(
            name=name or _called(package),
            help=help,
            no_args_is_help=True,
            rich_markup_mode="rich",
            **attributes,
        )

    def deferred(self) -> Iterable[Any]:
        """Return what stands for the commands and groups in the folder, by name."""
        return commands_in(self.package)


def commands_in(package: str) -> Iterator[File | Folder]:
    """Give the commands of a package and the groups of the packages in it, by name, importing none.

    Files whose names begin with an underscore are what the others share.
    """
    spec = find_module(package)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for module in sorted(pkgutil.iter_modules([str(Path(folder))]), key=lambda module: module.name):
            if not module.name.startswith("_"):
                inside = f"{package}.{module.name}"
                yield Folder(inside) if module.ispkg else File(inside)


def _called(module: str) -> str:
    return module.rpartition(".")[2].replace("_", "-")


def _is_command(function: ast.FunctionDef) -> bool:
    return any(
        isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Name)
        and decorator.func.id == "command"
        for decorator in function.decorator_list
    )
