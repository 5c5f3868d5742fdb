"""Options that several commands share, so that one name means one thing everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Option(
        "--model", metavar="NAME", help="A network of torchvision, timm:NAME, or package.module:factory."
    ),
]
Weights = Annotated[
    str, typer.Option("--weights", metavar="pretrained|random|FILE", help="The network's weights.")
]
Convert = Annotated[
    bool, typer.Option("--convert", help="Turn CMYK, 16-bit and transparent images into plain RGB.")
]
