"""Options that several commands share, so that one name means one thing everywhere."""

from __future__ import annotations

from pathlib import Path
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
Images = Annotated[
    list[Path] | None,
    typer.Argument(metavar="IMAGE|FOLDER", help="Images, or folders of images.", show_default=False),
]
Layers = Annotated[
    str, typer.Option("--layer", metavar="NAME,...", help="Dotted names; the network's stages by default.")
]
SmallData = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="digits|cifar10=FILE",
        help="Images to train a small network on: scikit-learn's digits, or an npz of JPEGs with train and test.",
    ),
]
UnitLayers = Annotated[
    str,
    typer.Option(
        "--layer",
        metavar="NAME,...",
        help="Layers that give maps; by default the last that gives more than one position.",
    ),
]
