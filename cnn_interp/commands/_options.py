"""Options that several commands share, so that one name means one thing everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from cnn_interp.networks.checks import check_network, check_weights
from interpretkit.errors import InputError


def checked(check: Callable[[str], None]) -> Callable[[str], str]:
    """Return a callback by which the parser refuses a value, before the command loads anything."""

    def callback(value: str) -> str:
        try:
            check(value)
        except InputError as error:
            raise typer.BadParameter(str(error)) from error
        return value

    return callback


Model = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="NAME",
        callback=checked(check_network),
        help="A network of torchvision, timm:NAME, package.module:factory, a file that cnn train saved, or the "
        "edit.json of an edit.",
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        metavar="pretrained|random|FILE",
        callback=checked(check_weights),
        help="The network's weights.",
    ),
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
PRECISIONS = ("auto", "float32", "bfloat16")
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="auto|float32|bfloat16",
        help="Of convolutions in training, float32 by default; bfloat16 halves the time where it is computed in.",
    ),
]
GreyData = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="digits|KIND=PATH",
        help="Labelled images, taken as grey: scikit-learn's digits, or mnist=, affnist=, labelled-images=PATH.",
    ),
]
TrainedNetwork = Annotated[
    Path | None,
    typer.Option("--network", metavar="FILE", help="Train nothing: show a network that was trained before."),
]
Example = Annotated[
    bool,
    typer.Option("--example", help="Train nothing: show the network that comes along, trained on MNIST."),
]
