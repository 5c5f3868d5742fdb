"""What an instrument is, and how its data, its script and its libraries come into a page."""

from __future__ import annotations

import base64
import gzip
import json
from functools import cache
from importlib import resources
from typing import Any, ClassVar, Protocol

import jinja2
from markupsafe import Markup

from interpretkit.runs.streams import printable


class Instrument(Protocol):
    """A part of a page that is worked with.

    Attributes
    ----------
    script : str
        The file in `templates` that makes it work; one on a page, however many instruments of its kind there are.
    libraries : tuple of str
        Files in `vendored` that the script needs.
    """

    script: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]]

    def html(self, identifier: str) -> Markup:
        """Return what stands in the page; `identifier` is its element's."""
        ...


def rendered(template: str, **values: Any) -> Markup:
    """Return a template of the instruments, filled in; everything is escaped."""
    return Markup(_environment().get_template(template).render(**values))


def as_data(values: Any) -> Markup:
    """Return values as JSON that can stand within a page's script element."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(printable(text).replace("<", "\\u003c"))


def picture_data(webp: bytes) -> str:
    """Return a picture of the format WebP as an address that holds it."""
    return "data:image/webp;base64," + base64.b64encode(webp).decode()


@cache
def source(name: str) -> Markup:
    """Return a script or a sheet of styles that stands in `templates`."""
    text = (resources.files("interpretkit.visualization") / "templates" / name).read_text(encoding="utf-8")
    return Markup(text)


@cache
def packed(library: str) -> Markup:
    """Return a vendored library, compressed and in base 64, as a page carries it until it is needed."""
    content = (resources.files("interpretkit.visualization") / "vendored" / library).read_bytes()
    return Markup(base64.b64encode(gzip.compress(content, 9, mtime=0)).decode())


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("interpretkit.visualization"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
