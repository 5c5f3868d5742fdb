"""The commands `cnn visualize` and `cnn layers`."""

# Heavy packages are imported inside the commands, so that the list of commands and their help come at once.

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cnn_interp.options import Convert, Model, Weights
from interpretkit.command import Device, Out, Quiet, Seed, command
from interpretkit.errors import InputError

DEFAULT_METHODS = "gradcam,integrated_gradients,guided_backprop,occlusion"


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    command(
        app,
        "visualize",
        example=[
            "interpretkit cnn visualize",
            "interpretkit cnn visualize photo.jpg --method gradcam,lrp,occlusion --target 'tabby'",
            "interpretkit cnn visualize photo.jpg --method occlusion,lime --set occlusion.window=48",
            "interpretkit cnn visualize photos/ --model resnet18 --layer layer3 --method top_patches",
        ],
    )(visualize)
    command(
        app,
        "layers",
        example=["interpretkit cnn layers", "interpretkit cnn layers --model resnet50 --weights random"],
        summary=_print_layers,
    )(layers)


def visualize(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE|FOLDER", help="What to show the network; by default a cat from scikit-image."
        ),
    ] = None,
    model: Model = "mobilenet_v2",
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="NAME,...",
            help="Attribution methods and systems, separated by commas; an unknown name lists them all.",
        ),
    ] = DEFAULT_METHODS,
    layer: Annotated[
        str, typer.Option("--layer", metavar="NAME", help="A layer's dotted name; see cnn layers.")
    ] = "",
    target: Annotated[
        str,
        typer.Option("--target", metavar="NAME|N", help="The output to explain; by default the largest."),
    ] = "",
    unit: Annotated[
        str,
        typer.Option(
            "--unit", metavar="N,...", help="Channels of the layer, for the systems that ask units."
        ),
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="METHOD.OPTION=VALUE",
            help="An option of an attribution method, such as occlusion.window=48; may be given again.",
        ),
    ] = None,
    images_per_forward: Annotated[
        int | None,
        typer.Option(
            "--images-per-forward",
            min=1,
            help="Images that go through the network at once, which bounds the memory; 8 on a CPU, else 64.",
        ),
    ] = None,
    weights: Weights = "pretrained",
    convert: Convert = False,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Take no more images than this; all by default.")
    ] = None,
    out: Out = Path("visualization"),
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Show what a network looks at in images, and what its units and layers respond to.

    Attribution methods are compared on every image: sheet.png, and the values in arrays/. The systems
    activation_maximization, inversion, decoder, plug_and_play, deconvnet_projection, receptive_fields and
    top_patches give a picture each; those that search or learn from photographs take the images given if there are
    at least three, else those that come with scikit-image. A run over a folder that is interrupted goes on where it
    stopped when it is started again in the same way.
    """
    from cnn_interp.images import check_images, find_images
    from cnn_interp.visualization.request import check_request

    # Before the import of what shows images to networks, which brings torch along.
    request = check_request(method, layer, unit, settings or [], images_per_forward)
    paths = find_images(images or [])[:limit]
    check_images(paths, convert=convert)
    if limit is not None and not images:
        raise InputError(f"--limit {limit}: there is one photograph only; expected images with it")
    from cnn_interp.visualization.command import run

    return run(
        images or [],
        paths,
        request,
        model=model,
        methods=method,
        layer=layer,
        target=target,
        units=unit,
        settings=settings or [],
        images_per_forward=images_per_forward,
        weights=weights,
        convert=convert,
        limit=limit,
        out=out,
        seed=seed,
        device=device,
        quiet=quiet,
    )


def layers(
    model: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    device: Device = "auto",
) -> dict[str, Any]:
    """List the layers of a network that give maps, with their types, shapes and strides."""
    import torch

    from cnn_interp.activations import map_layers
    from cnn_interp.models import load_network

    network = load_network(model, weights=weights, device=device)
    modules = dict(network.module.named_modules(remove_duplicate=False))
    inputs = torch.zeros(1, 3, network.size, network.size, device=network.device)
    found = [
        {
            "layer": name,
            "type": type(modules[name]).__name__,
            "channels": shape[0],
            "height": shape[1],
            "width": shape[2],
        }
        for name, shape in map_layers(network.module, inputs).items()
    ]
    return {"model": model, "weights": network.source, "input_px": network.size, "layers": found}


def _print_layers(result: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name, justify in (("layer", "left"), ("type", "left"), ("channels", "right"), ("map", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in result["layers"]:
        table.add_row(row["layer"], row["type"], str(row["channels"]), f"{row['height']} × {row['width']}")
    console = Console()
    console.print(
        f"{result['model']} ({result['weights']}), images of {result['input_px']} px", highlight=False
    )
    console.print(table)
