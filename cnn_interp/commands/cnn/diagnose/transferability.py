"""How general the features of each layer are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cnn_interp.commands._loading import check_small_data, small_pictures
from cnn_interp.commands._options import SmallData
from interpretkit.commandline import Column, Device, Finding, Quiet, Seed, command, listed
from interpretkit.commandline.caution import no_better
from interpretkit.errors import InputError
from interpretkit.runs.folder import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cnn_interp.diagnosis.transferability import Transfer

_MEANINGS = {
    "AnB": "layers copied from the network of A and frozen",
    "BnB": "layers copied from the network of B and frozen",
    "AnB+": "copied from A, and trained on",
    "BnB+": "copied from B, and trained on",
}


@command(
    out="transferability",
    example=[
        "interpretkit cnn diagnose transferability",
        "interpretkit cnn diagnose transferability --data cifar10=cifar10.npz --repeats 4 --epochs 20",
    ],
)
def transferability(
    data: SmallData = "digits",
    train_images: Annotated[
        int, typer.Option("--train-images", min=4, help="Training images of a category, at most.")
    ] = 100,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Of every training.")] = 6,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="Splits of the categories into halves.")
    ] = 2,
    widths: Annotated[
        str, typer.Option("--widths", metavar="N,...", help="Channels of each layer of the network.")
    ] = "8,16,32",
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    *,
    run: Run,
) -> Finding:
    """Find out layer by layer how general features are, by transfer between halves of the categories.

    A run that is interrupted goes on where it stopped when it is started again.
    """
    numbers = listed(widths)
    if not numbers or not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise InputError(f"widths {widths!r}: expected whole numbers such as 8,16,32")
    check_small_data(data)
    from cnn_interp.diagnosis.transferability import TREATMENTS, transfer
    from interpretkit.training import resolve_device

    pictures, files = small_pictures(data)
    pictures = pictures.limited(train_images, 10**9)
    where = resolve_device(device)
    # More repeats may go on from fewer.
    with run.kept(where.type, files=files, without=["repeats", "device"]) as state:
        result = transfer(
            pictures,
            widths=[int(number) for number in numbers],
            epochs=epochs,
            repeats=repeats,
            seed=seed,
            device=where,
            state=state,
            quiet=quiet,
        )
    curves = {treatment: result.curve(treatment).tolist() for treatment in TREATMENTS}

    found = Finding(
        "How general is each layer?",
        f"With all layers copied and frozen the other half is told at {curves['AnB'][-1]:.1%}, by a network of its "
        f"own at {result.base:.1%}. A network of {result.depths} layers, trained on half of the categories of "
        f"{pictures.name}; its first layers copied into a network for the other half.",
    ).reads(*files)
    note = f"{result.test_images} test images, {repeats} split{'s' * (repeats != 1)}"
    found.number("base", result.base, "trained on B", format=".1%", note=note)
    found.number(
        "all_copied",
        {treatment: curve[-1] for treatment, curve in curves.items()},
        "all layers copied",
        format=".1%",
        note=_MEANINGS,
    )
    chance = 1 / len(result.categories_b[0])
    found.warn(*no_better("the network trained as a whole", result.base, "chance", chance, form=".1%"))
    found.values.update(curves)
    found.section(
        "Accuracy against the number of layers copied",
        "AnB: copied from the network of A and frozen. BnB: from that of B. With a plus they go on learning. AnB "
        "below BnB tells that features were made for A; BnB below the line, that layers had been fitted to each "
        "other. Pale dots are single splits: the distance between them is what chance does.",
    ).figure("transfer.png", _figure(result), "Means over splits of the categories.").table(
        "curves.csv",
        [
            {"layers copied": depth + 1} | {name: curve[depth] for name, curve in curves.items()}
            for depth in range(result.depths)
        ],
        {name: Column(f"accuracy on B: {text}", format=".3f") for name, text in _MEANINGS.items()},
    )
    found.section("The halves").table(
        "halves.csv",
        [
            {"split": number + 1, "A": ", ".join(a), "B": ", ".join(b)}
            for number, (a, b) in enumerate(zip(result.categories_a, result.categories_b, strict=True))
        ],
        {"A": Column("categories of the first half"), "B": Column("categories of the second half")},
    )
    found.next_step(
        "How general are the features of a pretrained network?",
        "interpretkit cnn diagnose probe --data",
        data,
    )
    return found.table("accuracies.csv", result.rows)


def _figure(found: Transfer) -> Figure:
    """Draw the accuracy on B against the number of copied layers."""
    import numpy as np

    from cnn_interp.diagnosis.transferability import TREATMENTS
    from interpretkit.visualization import colour_of, new_figure, style
    from interpretkit.visualization.style import MUTED

    with style():
        figure = new_figure(6.2, 4.2)
        axes = figure.subplots()
        depths = np.arange(1, found.depths + 1)
        axes.axhline(found.base, color=MUTED, linestyle=":", label="B trained as a whole")
        for index, treatment in enumerate(TREATMENTS):
            colour = colour_of(0 if treatment.startswith("B") else 1)
            dashes = "--" if treatment.endswith("+") else "-"
            axes.plot(
                depths, found.curve(treatment), dashes, marker="os^D"[index], color=colour, label=treatment
            )
            for depth in depths:
                values = found.accuracies(treatment, int(depth))
                axes.plot([depth] * len(values), values, ".", color=colour, alpha=0.35, markersize=4)
        axes.set_xticks(depths)
        axes.set(xlabel="layers copied", ylabel="accuracy on B", title="What is lost by copying layers")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure
