"""The pretrained weights there are."""

from __future__ import annotations

from typing import Annotated

import typer

from interpretkit.commandline import Column, Finding, command

_COLUMNS = {
    "network": Column("the network"),
    "weights": Column("what torchvision calls the weights"),
    "top1": Column("share of ImageNet's validation images classified rightly", "%", "top-1", ".1f"),
    "megabytes": Column("size of the file", "MB", "size", ".0f"),
    "present": Column("whether the file is at hand", heading="at hand"),
    "source": Column("where it can be had from", heading="from"),
}


@command(example=["interpretkit weights list", "interpretkit weights list --present --json"])
def list_(
    present: Annotated[bool, typer.Option("--present", help="Only those at hand.")] = False,
) -> Finding:
    """List the weights that torchvision knows, with their accuracy and size, and which are at hand."""
    from cnn_interp.networks.weights import checkpoint_folder, list_weights

    rows = list_weights()
    at_hand = [row for row in rows if row["present"]]
    found = Finding(f"{len(at_hand)} of {len(rows)} pretrained weights are at hand")
    found.number("n", len(rows), "known").number("n_present", len(at_hand), "at hand")
    found.number("folder", str(checkpoint_folder()), "folder")
    found.values["weights"] = at_hand if present else rows
    found.section("Weights").table(
        None, found.values["weights"], _COLUMNS, shown=list(_COLUMNS), in_terminal=True
    )
    return found.next_step("Get more:", "interpretkit weights add mobilenet_v2")
