"""The layers of a network that give maps."""

from __future__ import annotations

from cnn_interp.commands._options import Model, Weights
from interpretkit.commandline import Column, Device, Finding, command

_COLUMNS = {
    "layer": Column("dotted name, as --layer takes it"),
    "type": Column("class of the module"),
    "channels": Column("maps that it gives"),
    "height": Column("height of a map", "px"),
    "width": Column("width of a map", "px"),
}


@command(example=["interpretkit cnn layers", "interpretkit cnn layers --model resnet50 --weights random"])
def layers(
    model: Model = "mobilenet_v2", weights: Weights = "pretrained", device: Device = "auto"
) -> Finding:
    """List the layers of a network that give maps, with their types and shapes."""
    import torch

    from cnn_interp.networks.loading import load_network
    from interpretkit.networks.recording import map_layers

    network = load_network(model, weights=weights, device=device)
    modules = dict(network.module.named_modules(remove_duplicate=False))
    inputs = torch.zeros(1, 3, network.size, network.size, device=network.device)
    rows = [
        {
            "layer": name,
            "type": type(modules[name]).__name__,
            "channels": shape[0],
            "height": shape[1],
            "width": shape[2],
        }
        for name, shape in map_layers(network.module, inputs).items()
    ]
    found = Finding(f"{len(rows)} layers of {model} give maps")
    found.number("model", model).number("weights", network.source)
    found.number("input_px", network.size, "side of its images", unit="px")
    found.values["layers"] = rows
    found.section("Layers").table(None, rows, _COLUMNS, in_terminal=True)
    return found.next_step(
        "What do units of one respond to?",
        "interpretkit cnn visualize --method top_patches --model",
        model,
        "--layer",
        rows[-1]["layer"] if rows else "NAME",
    )
