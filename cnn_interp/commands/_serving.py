"""What the commands with a page in the browser have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interpretkit.commandline import Finding
from interpretkit.errors import InputError

if TYPE_CHECKING:
    from cnn_interp.middle_to_end.network_edit import NetworkEdit

Serve = Annotated[
    bool,
    typer.Option("--serve", help="Ask on a page in the browser of this machine, instead of in the terminal."),
]
Port = Annotated[
    int,
    typer.Option("--port", metavar="N", min=0, max=65535, help="Port of the page; 0 takes one that is free."),
]


def check_port(port: int, *, serve: bool) -> None:
    """Refuse a port without a page."""
    if port and not serve:
        raise InputError(f"port {port}: is for a page; expected it with --serve")


def expect_server() -> None:
    """Load what a page takes, so that what is missing is said before anything long is computed."""
    import cnn_interp.middle_to_end.page.serving  # noqa: F401


def tell_address(address: str) -> None:
    """Say in the terminal where the page is."""
    print(
        f"Open {address}\nThe address lets in whoever has it, from this machine alone.",
        file=sys.stderr,
        flush=True,
    )


def add_edit(found: Finding, edit: NetworkEdit, below: str = "") -> None:
    """Keep an edit's two files in a result, in a folder of it if one is named."""

    def writer(content: bytes) -> Callable[[Path], None]:
        def write(path: Path) -> None:
            path.write_bytes(content)

        return write

    for name, content in edit.files().items():
        found.file(f"{below}{name}", writer(content))
