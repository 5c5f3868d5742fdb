"""Tutorials as notebooks: each is made from its page, which stays the one source, and is offered at its top."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# Pages that stand beside this one on the site stand nowhere beside a notebook.
_NEIGHBOUR = re.compile(r"\[([^\]]+)\]\((?!https?:)[^)]*\)")
# Whatever shell a notebook starts, it is this Python's interpretkit that runs.
_FIRST_CELL = 'import sys\n\ninterpretkit = f"{sys.executable} -m interpretkit"'


def notebook_of(markdown: str) -> dict[str, Any]:
    """Return a page as a notebook of format 4.5: prose as it stands, Python as cells, commands as shell lines."""
    parts = list(_parts(_COMMENT.sub("", markdown)))
    if any(kind == "code" and text.startswith("!") for kind, text in parts):
        parts.insert(1, ("code", _FIRST_CELL))
    cells = [
        {
            "cell_type": kind,
            "id": f"cell-{number}",
            "metadata": {},
            "source": text,
            **({"execution_count": None, "outputs": []} if kind == "code" else {}),
        }
        for number, (kind, text) in enumerate(parts)
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def _parts(markdown: str) -> Iterator[tuple[str, str]]:
    """Give prose and code of a page in order; the first part is prose."""
    end = 0
    for fence in _FENCE.finditer(markdown):
        yield from _prose(markdown[end : fence.start()])
        end = fence.end()
        language, text = fence.groups()
        if language == "python":
            yield "code", text.rstrip()
        elif language or not all(_is_command(line) for line in _lines(text)):
            yield "markdown", fence[0]
        else:
            yield (
                "code",
                "\n".join(line.replace("interpretkit", "!{interpretkit}", 1) for line in _lines(text)),
            )
    yield from _prose(markdown[end:])


def _prose(text: str) -> Iterator[tuple[str, str]]:
    text = _NEIGHBOUR.sub(r"\1", text.strip())
    if text:
        yield "markdown", text


def _lines(text: str) -> list[str]:
    """Return the lines of a block of commands, those that go on put together."""
    return [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def _is_command(line: str) -> bool:
    return line.startswith("interpretkit ")


def _name(page: str) -> str | None:
    return page.removesuffix(".md") + ".ipynb" if page.startswith("tutorial-") else None


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a notebook for every tutorial."""
    for file in list(files.documentation_pages()):
        name = _name(file.src_uri)
        if name:
            content = json.dumps(notebook_of(file.content_string), ensure_ascii=False, indent=1)
            files.append(File.generated(config, name, content=content + "\n"))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Offer the notebook below a tutorial's title."""
    name = _name(page.file.src_uri)
    if name is None:
        return markdown
    title, _, rest = markdown.partition("\n")
    return f"{title}\n\n[This page as a notebook]({name}){{ download }}\n{rest}"
