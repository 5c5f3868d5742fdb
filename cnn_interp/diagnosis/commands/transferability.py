"""The command ``transferability``: how general the features of each layer are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cnn_interp.diagnosis.commands.loading import check_small_data, small_pictures
from cnn_interp.diagnosis.commands.options import SmallData, split
from interpretkit.command import Device, Out, Quiet, Seed, command
from interpretkit.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the command to a group."""
    command(
        app,
        "transferability",
        example=[
            "interpretkit cnn diagnose transferability",
            "interpretkit cnn diagnose transferability --data cifar10=cifar10.npz --repeats 4 --epochs 20",
        ],
    )(transferability)


def transferability(
    out: Out = Path("transferability"),
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
) -> dict[str, Any]:
    """Find out layer by layer how general features are, by transfer between halves of the categories.

    A run that is interrupted goes on where it stopped when it is started again.
    """
    numbers = split(widths)
    if not numbers or not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise InputError(f"--widths {widths!r}: expected whole numbers such as 8,16,32")
    check_small_data(data)

    from cnn_interp.diagnosis.reports.page import save_page
    from cnn_interp.diagnosis.reports.transferability import transfer_figure, transferability_report
    from cnn_interp.diagnosis.transferability import TREATMENTS, transfer
    from interpretkit.caution import no_better
    from interpretkit.results import kept_until_done, run_folder
    from interpretkit.training import resolve_device

    pictures, files = small_pictures(data)
    pictures = pictures.limited(train_images, 10**9)
    arguments = {
        "data": data, "train_images": train_images, "epochs": epochs, "repeats": repeats, "widths": widths,
    }  # fmt: skip
    # More repeats may go on from fewer; whatever else differs begins a state of its own.
    same = {name: value for name, value in arguments.items() if name != "repeats"}
    where = resolve_device(device)
    with (
        run_folder(out, "cnn diagnose transferability", arguments, seed, files) as run,
        kept_until_done(out, [same, seed, where.type], files) as state,
    ):
        found = transfer(
            pictures,
            widths=[int(number) for number in numbers],
            epochs=epochs,
            repeats=repeats,
            seed=seed,
            device=where,
            state=state,
            quiet=quiet,
        )
        run.save_table("accuracies.csv", found.rows)
        figure = transfer_figure(found)
        run.save_figure("transfer.png", figure)
        run.summary.update(
            base=found.base, **{treatment: found.curve(treatment).tolist() for treatment in TREATMENTS}
        )
        report = transferability_report(found, figure, data=pictures.name, repeats=repeats)
        chance = 1 / len(found.categories_b[0])
        warnings = no_better("the network trained as a whole", found.base, "chance", chance, form=".1%")
        save_page(report, run, seed=seed, files=files, warnings=warnings)
    return {**run.summary, "out": out}
