"""The generated half of the reference: a page for each command, and one for each module with a public name."""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.main import get_command

from interpretkit.cli import app

_ROLE = re.compile(r":(?:func|class|mod|meth|attr|data):\s*<code>~?([^<]*)</code>")

ROOT = Path(__file__).parents[2]
PACKAGES = ("interpretkit", "catalysis", "cnn_interp")


def on_config(config: MkDocsConfig) -> None:
    """Fill the two places in the navigation that are folders with the pages generated."""
    _fill(config.nav, "reference/commands/", [name for name, _ in _command_pages()])
    _fill(config.nav, "reference/python/", _by_room([name for name, _ in _module_pages()]))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages generated."""
    for name, text in (*_command_pages(), *_module_pages()):
        files.append(File.generated(config, name, content=text))
    return files


def on_page_content(text: str, **_: Any) -> str:
    """Show what docstrings refer to by roles of reStructuredText as code, without the role."""
    return _ROLE.sub(lambda found: f"<code>{found[1].rpartition('.')[2]}</code>", text)


def _fill(nav: Any, place: str, pages: list[Any]) -> None:
    for entry in nav if isinstance(nav, list) else ():
        for title, inside in entry.items() if isinstance(entry, dict) else ():
            if inside == place:
                entry[title] = pages
            else:
                _fill(inside, place, pages)


def _by_room(pages: list[str]) -> list[Any]:
    rooms: dict[str, list[dict[str, str]]] = {}
    for page in pages:
        parts = page.rpartition("/")[2].removesuffix(".md").split(".")
        rooms.setdefault(".".join(parts[:2]), []).append({".".join(parts[2:]) or parts[-1]: page})
    return [{room: inside} for room, inside in rooms.items()]


def _command_pages() -> Iterator[tuple[str, str]]:
    """Give the path and the text of a page for every command, groups walked through in order."""
    yield from _walk(get_command(app), ["interpretkit"])


def _walk(command: Any, words: list[str]) -> Iterator[tuple[str, str]]:
    if hasattr(command, "list_commands"):
        context = command.context_class(command, info_name=words[-1])
        for name in command.list_commands(context):
            yield from _walk(command.get_command(context, name), [*words, name])
        return
    if hasattr(command, "load"):
        command = command.load()
    yield f"reference/commands/{'-'.join(words[1:])}.md", _command_page(command, words)


def _command_page(command: Any, words: list[str]) -> str:
    context = command.context_class(command, info_name=words[-1])
    lines = [
        f"# {' '.join(words[1:])}",
        "",
        "```",
        " ".join([*words, *command.collect_usage_pieces(context)]),
        "```",
    ]
    lines += ["", _plain(command.help or ""), "", *_examples(command.epilog or ""), ""]
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    lines += ["| option | meaning | default |", "|---|---|---|"]
    for parameter in shown:
        argument = parameter.param_type_name == "argument"
        name = (
            parameter.metavar or parameter.name
            if argument
            else ", ".join(parameter.opts + parameter.secondary_opts)
        )
        default = parameter.default
        default = "" if default in (None, "", False, (), []) or callable(default) else f"`{default}`"
        shown_name = html.escape(str(name)).replace("|", "&#124;")
        meaning = _cell(getattr(parameter, "help", None) or "")
        lines.append(f"| <code>{shown_name}</code> | {meaning} | {_cell(default)} |")
    return "\n".join([*lines, ""])


def _examples(epilog: str) -> list[str]:
    """Return the commands that the help ends with, as a block; the first paragraph is their heading."""
    shown = [line.strip().replace("\\[", "[") for line in epilog.split("\n\n")[1:]]
    return ["```", *shown, "```"] if shown else []


def _plain(text: str) -> str:
    return text.replace("\b\n", "").replace("[bold]", "**").replace("[/bold]", "**")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _module_pages() -> Iterator[tuple[str, str]]:
    """Give the path and the text of a page for every module that has something public in it, commands left out."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            if "commands" in parts or any(part.startswith("_") for part in parts):
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            public = [
                node
                for node in tree.body
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            ]
            if public:
                module = ".".join(parts)
                yield f"reference/python/{module}.md", f"# {module}\n\n::: {module}\n"
