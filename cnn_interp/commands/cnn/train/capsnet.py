"""Capsules with dynamic routing, beside an ordinary network of as many parameters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.commands._loading import DIGITS, check_grey_data, grey_data
from cnn_interp.commands._options import PRECISIONS, Example, GreyData, Precision, TrainedNetwork
from interpretkit.commandline import (
    Column,
    Device,
    Finding,
    Here,
    Quiet,
    Seed,
    command,
    kind_and_path,
    one_of,
)
from interpretkit.commandline.caution import no_better
from interpretkit.errors import InputError
from interpretkit.runs.folder import Run

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from cnn_interp.learning.capsules import CapsuleNetwork, Network, PerturbedSheet
    from cnn_interp.learning.grey_images import GreyImages
    from interpretkit.training import History

_SIDE = 28
_SIZES = ("cpu", "paper")
# What is trained if nobody says: small sets are gone through more often.
_EPOCHS, _EPOCHS_OF_FEW, _FEW = 20, 30, 5000
_LEARNING_RATE = 5e-3
# Images in the sheets, and of those that are misread in the table.
_SHEETS, _ROUTED, _MISREAD = 2, 5, 200
CAPSULES, ORDINARY = "capsules", "ordinary"
_COLUMNS = {
    "network": Column("what was trained"),
    "routings": Column("how often couplings are used; none in an ordinary network"),
    "parameters": Column("numbers that decide about the category; the decoder of capsules does not count"),
    "error": Column("share of the test images read wrongly", format=".2%"),
    "low": Column(
        "lower end of its 95 % interval, by Clopper and Pearson", heading="95 % from", format=".2%"
    ),
    "high": Column("upper end of it", heading="95 % to", format=".2%"),
    "moved": Column(
        "the same for test images that were turned, sheared, scaled and put anywhere on the square",
        format=".2%",
    ),
    "held out": Column("the same for the images held out, by which the epoch was chosen", format=".2%"),
    "epoch": Column("the epoch whose weights were taken"),
}


@command(
    out="capsnet",
    example=[
        "interpretkit cnn train capsnet",
        "interpretkit cnn train capsnet --example",
        "interpretkit cnn train capsnet --data mnist=mnist --routings 3,1",
        "interpretkit cnn train capsnet --data mnist=mnist --size paper --device cuda --epochs 100",
        "interpretkit cnn train capsnet --data mnist=mnist --canvas 40 --test affnist=affnist/test",
    ],
    together=True,
)
def capsnet(
    data: GreyData = DIGITS,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="|".join(_SIZES),
            help="cpu (the default): small convolutions, for one core; paper: the article's, for a GPU.",
        ),
    ] = None,
    routings: Annotated[
        str | None,
        typer.Option("--routings", metavar="N,...", help="A capsule network for each; 3,1 by default."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", metavar="N", min=1, help="Of every training; by the number of images."),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience",
            metavar="N",
            min=1,
            help="Stop after so many epochs without a smaller loss on images held out.",
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option("--images", metavar="N", min=100, help="Train on so many images at most.")
    ] = None,
    canvas: Annotated[
        int | None,
        typer.Option(
            "--canvas",
            metavar="PX",
            min=_SIDE,
            help="Train on images put anywhere on a black square of this side, as for affNIST (40).",
        ),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(
            "--test",
            metavar="affnist=PATH",
            help="Moved test images; by default the project moves the data's own as those of affNIST were.",
        ),
    ] = None,
    baseline: Annotated[
        bool | None,
        typer.Option(
            "--baseline/--no-baseline", help="Train an ordinary network of as many parameters as well."
        ),
    ] = None,
    network: TrainedNetwork = None,
    example: Example = False,
    precision: Precision = None,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    *,
    run: Run,
) -> Finding:
    """Train capsules with dynamic routing, and show what their numbers stand for and what is routed where.

    Writes capsules.safetensors (loaded again by --network), errors.csv, epochs.csv, misread.csv, sheets of perturbed
    numbers, couplings.png, couplings.npz and report.html. A run that is interrupted goes on where it stopped.
    """
    kind, path = check_grey_data(data)
    counts = _counts(routings)
    asked = {
        "size": size, "routings": routings, "epochs": epochs, "patience": patience, "images": images,
        "canvas": canvas, "baseline": baseline, "precision": precision,
    }  # fmt: skip
    idle = [name for name, value in asked.items() if value is not None]
    if example and network is not None:
        raise InputError("network: not with --example; expected one or the other")
    if (example or network is not None) and idle:
        raise InputError(
            f"{idle[0]}: nothing is trained with --{'example' if example else 'network'}; leave it out"
        )
    chosen = one_of(_SIZES, size or _SIZES[0], "size")
    exact = one_of(PRECISIONS, precision or "float32", "precision")
    moved_path = None if test is None else kind_and_path(test, ["affnist"], "test")[1]
    from cnn_interp.learning.capsules import (
        SIZES,
        CapsuleNetwork,
        Schedule,
        load_network,
        train_network,
        trained_examples,
    )
    from interpretkit.training import resolve_device
    from interpretkit.training.distributed import training_together

    trained: dict[str, tuple[Network, History | None]] = {}
    about: dict[str, Any] = {}
    if example or network is not None:
        found = trained_examples() if network is None else {CAPSULES: load_network(network, device)}
        shown, about = found[CAPSULES]
        if not isinstance(shown, CapsuleNetwork):
            raise InputError(f"network {network}: an ordinary network; expected one of capsules")
        for kept, _ in found.values():
            trained[_name(kept.kind, kept.config.routings)] = kept, None
        wanted, files = grey_data(kind, path, _SIDE, seed)
        if len(wanted.categories) != len(shown.config.categories):
            raise InputError(
                f"data {data}: {len(wanted.categories)} categories; the network has {len(shown.config.categories)}"
            )
        wanted = wanted.on_canvas(shown.config.side)
        files = [*files, *([network] if network is not None else [])]
    else:
        wanted, files = grey_data(kind, path, _SIDE, seed)
        wanted = wanted.limited(images or len(wanted.train))
        side = canvas or _SIDE
        plain = wanted
        wanted = wanted.on_canvas(side)
        few = len(wanted.train) < _FEW
        schedule = Schedule(
            epochs=epochs or (_EPOCHS_OF_FEW if few else _EPOCHS),
            batch_size=64 if few else 128,
            learning_rate=_LEARNING_RATE if chosen == "cpu" else 1e-3,
            # Small digits on a large square are put anywhere on it, else moved a little.
            shift=2 if side == plain.side else (side - plain.side) // 2,
            patience=patience,
            precision=exact,  # type: ignore[arg-type]
        )
        base = replace(SIZES[chosen], side=side, categories=wanted.categories)
        plans = [(CAPSULES, replace(base, routings=count)) for count in counts]
        plans += [(ORDINARY, base)] if baseline is not False else []
        with (
            run.kept(files=files, without=["device", "test"]) as place,
            training_together(resolve_device(device), place) as (where, state),
        ):
            for what, config in plans:
                name = _name(what, config.routings)
                trained[name] = train_network(
                    what,
                    config,
                    wanted,
                    schedule,
                    seed=seed,
                    device=where,
                    checkpoint=state / name.replace(" ", "-"),
                    quiet=quiet,
                )
            about = {
                "data": wanted.name,
                "images": len(wanted.train),
                "epochs": schedule.epochs,
                "seed": seed,
            }
    moved, moved_labels, moved_name = _moved(wanted, moved_path, seed)
    if moved_path is not None:
        files = [*files, moved_path]
    return _finding(trained, wanted, moved, moved_labels, moved_name, about).reads(*files)


def _counts(text: str | None) -> list[int]:
    words = (text if text is not None else "3,1").split(",")
    if not all(word.strip().isdigit() and 0 < int(word) <= 20 for word in words):
        raise InputError(f"routings {text!r}: expected whole numbers from 1 to 20, such as 3,1")
    return list(dict.fromkeys(int(word) for word in words))


def _name(kind: str, routings: int) -> str:
    return f"capsules {routings}" if kind == CAPSULES else "ordinary"


def _moved(images: GreyImages, path: Path | None, seed: int) -> tuple[Tensor, Tensor, str]:
    """Return moved test images, their labels, and what they are."""
    from cnn_interp.learning.grey_images import affine_test, grey_images

    if path is None:
        moved = affine_test(images.test, side=images.side, seed=seed)
        return moved, images.test_labels, "the project's own, changed as those of affNIST were"
    from cnn_interp.images import read_affnist

    if len(images.categories) != 10:
        raise InputError(
            f"test affnist={path}: ten digits; the data have {len(images.categories)} categories"
        )
    found = grey_images(read_affnist(path), side=images.side, held_out=0.01, seed=seed)
    import torch

    parts = ("train", "held_out", "test")
    pixels = torch.cat([getattr(found, part) for part in parts])
    return pixels, torch.cat([getattr(found, f"{part}_labels") for part in parts]), "affNIST"


def _finding(
    trained: dict[str, tuple[Network, History | None]],
    images: GreyImages,
    moved: Tensor,
    moved_labels: Tensor,
    moved_name: str,
    about: dict[str, Any],
) -> Finding:
    from cnn_interp.learning.capsules import (
        CapsuleNetwork,
        coupling_entropy,
        perturbed_sheet,
        predict,
        save_network,
    )

    rows, scores = [], {}
    for name, (network, history) in trained.items():
        scores[name] = predict(network, images.test)
        wrong = int((scores[name].argmax(1) != images.test_labels.numpy()).sum())
        elsewhere = predict(network, moved).argmax(1) != moved_labels.numpy()
        rows.append(_row(name, network, history, wrong, len(images.test), float(elsewhere.mean())))
    first = next(iter(trained))
    network = trained[first][0]
    assert isinstance(network, CapsuleNetwork)
    by_name = {row["name"]: row for row in rows}
    error = by_name[first]["error"]
    beside = by_name.get(ORDINARY)
    told = f"; an ordinary network of as many parameters {beside['error']:.2%}" if beside else ""
    where = f"{images.name}, {len(images.test)} test images"
    found = Finding(
        f"Capsules on {images.name}",
        f"Capsules with {network.config.routings} routings read {error:.2%} of {where}, wrongly{told}.",
    )
    count = len(images.train)
    made = about.get("data", "unknown data")
    just_trained = trained[first][1] is not None
    note = f"trained on {count} images" if just_trained else f"trained on {made}"
    found.number("error", error, "test error of the capsules", format=".2%", note=note)
    for row in rows[1:]:
        label = (
            f"test error, {row['network']}, {row['routings']} routings"
            if row["routings"]
            else "test error, ordinary"
        )
        found.number(f"error_{row['name'].replace(' ', '_')}", row["error"], label, format=".2%")
    found.number(
        "moved_error", by_name[first]["moved"], "error on moved images", format=".2%", note=moved_name
    )
    found.warn(
        *no_better(
            "the capsule network", error, "the ordinary network", beside["error"] if beside else None,
            lower_is_better=True, form=".2%",
        )
    )  # fmt: skip
    if not just_trained and images.name != made:
        found.warn(
            f"The network was trained on {made} and is shown {images.name}, which are drawn otherwise: its error here "
            "says little about its error there."
        )
    found.section(
        "Errors",
        "All networks have the same convolutions, and were trained alike: the same images, shifts, batches, epochs, "
        f"optimizer and seed; the epoch was chosen on images held out. Moved test images: {moved_name}. With one "
        "routing the couplings stay even.",
    ).table(
        "errors.csv", rows, _COLUMNS, shown=[name for name in _COLUMNS if name in rows[0]], in_terminal=True
    )
    chosen = _one_of_each(images, scores[first])
    sheets = perturbed_sheet(network, images.test[chosen[:_SHEETS]], images.test_labels[chosen[:_SHEETS]])
    _show_sheets(found, sheets, images)
    entropy = coupling_entropy(network, images.test[:1000])
    _show_couplings(found, network, images, chosen[:_ROUTED], entropy)
    _show_misread(found, images, scores[first])
    histories = {name: history for name, (_, history) in trained.items() if history is not None}
    if histories:
        _show_epochs(found, histories)
        found.file("capsules.safetensors", lambda path: save_network(path, network, about, half=True))
        found.next_step(
            "Show the trained network on other images:",
            "interpretkit cnn train capsnet --network",
            Here("capsules.safetensors"),
        )
    else:
        found.next_step("Train one on the digits at hand:", "interpretkit cnn train capsnet")
    return found


def _row(
    name: str, network: Network, history: History | None, wrong: int, count: int, moved: float
) -> dict[str, Any]:
    from scipy.stats import binomtest

    interval = binomtest(wrong, count).proportion_ci()
    kind = network.kind
    row = {
        "name": name,
        "network": kind,
        "routings": network.config.routings if kind == CAPSULES else None,
        "parameters": network.decision_parameters(),
        "error": wrong / count,
        "low": float(interval.low),
        "high": float(interval.high),
        "moved": moved,
    }
    if history is not None and history.best_epoch is not None:
        best = history.epochs[history.best_epoch - 1]
        row |= {"held out": best["held_out_error"], "epoch": history.best_epoch}
    return row


def _one_of_each(images: GreyImages, scores: np.ndarray) -> list[int]:
    """Return the first test image of each category that is read rightly, else the first."""
    labels = images.test_labels.numpy()
    right = scores.argmax(1) == labels
    found = []
    for category in range(len(images.categories)):
        rows = (labels == category).nonzero()[0]
        if len(rows):
            good = rows[right[rows]]
            found.append(int((good if len(good) else rows)[0]))
    # Digits of different shape first.
    return found[2:] + found[:2] if len(found) > 4 else found


def _show_sheets(found: Finding, sheets: PerturbedSheet, images: GreyImages) -> None:
    import numpy as np

    from cnn_interp.learning.image_grids import image_grid
    from interpretkit.visualization.instruments import Frame, Frames

    section = found.section(
        "What the numbers of a capsule stand for",
        "The capsule of the category that was read draws the image again; in every row one of its numbers is moved. "
        "Rows whose drawings hardly change stand for nothing that matters to this image.",
    )
    change = sheets.change()
    drawn = np.clip(np.asarray(sheets.moved), 0, 1)
    ways = {
        f"image {row + 1}, read as {images.categories[int(sheets.read[row])]}": [
            Frame(
                np.concatenate(list(drawn[row][:, place]), axis=1),
                f"each number in turn moved by {step:+.2f}",
            )
            for place, step in enumerate(sheets.steps)
        ]
        for row in range(len(sheets.images))
    }
    if ways:
        section.instrument(
            Frames(
                ways,
                of_what="capsule of",
                along="moved by",
                enlarged=2,
                label="What a capsule draws when moved",
            )
        )
    for row in range(len(sheets.images)):
        name = images.categories[int(sheets.read[row])]
        grid = sheets.moved[row][:, :, :, :]
        section.figure(
            f"perturbed-{row}.png",
            image_grid(
                grid,
                rows=[f"{number}" for number in range(grid.shape[0])],
                columns=[f"{step:+.2f}" for step in sheets.steps],
                limits=(0.0, 1.0),
            ),
            f"Capsule of {name}: its numbers moved by {sheets.steps[0]:+.2f} to {sheets.steps[-1]:+.2f}.",
        )
    section.table(
        "numbers.csv",
        [
            {
                "read as": images.categories[int(sheets.read[row])],
                "number": number,
                "change": float(change[row, number]),
            }
            for row in range(len(change))
            for number in range(change.shape[1])
        ],
        {
            "read as": Column("what the image was taken for"),
            "number": Column("which number of the capsule"),
            "change": Column("mean absolute change of a pixel when it is moved to either end", format=".4f"),
        },
        most=0,
    )


def _show_couplings(
    found: Finding, network: CapsuleNetwork, images: GreyImages, chosen: list[int], entropy: float
) -> None:
    import numpy as np

    from cnn_interp.learning.capsules import coupling_maps
    from cnn_interp.learning.image_grids import image_grid

    config = network.config
    maps = coupling_maps(network, images.test[chosen])
    even = float(np.log(len(config.categories)))
    found.number(
        "coupling_entropy", entropy, "entropy of couplings", unit="nats", format=".2f",
        note=f"{even:.2f} if all are even", on_card=False,
    )  # fmt: skip
    scale = -(-images.side // config.grid)
    size = scale * config.grid
    pictures = np.full((len(chosen), 1 + maps.shape[1], size, size), np.nan, dtype=np.float32)
    start = (size - images.side) // 2
    for row, place in enumerate(chosen):
        # The image is drawn in the same colours: white as the strongest coupling.
        pictures[row, 0] = 0.0
        stop = start + images.side
        pictures[row, 0, start:stop, start:stop] = images.test[place].numpy() / 255 * float(maps.max())
        pictures[row, 1:] = maps[row].repeat(scale, 1).repeat(scale, 2)
    found.section(
        "What is routed where",
        "Every primary capsule shares itself out among the categories; its couplings add up to 1. The maps show, at "
        f"every position, what share of what is there goes to each category: {1 / len(config.categories):.2f} if "
        f"shared evenly. Their mean entropy is {entropy:.2f} nats; {even:.2f} would be no routing at all.",
    ).figure(
        "couplings.png",
        image_grid(
            pictures,
            rows=[f"read {images.categories[int(images.test_labels[place])]}" for place in chosen],
            columns=["image", *images.categories],
            label="share of what is there",
            colours="viridis",
            limits=(0.0, float(maps.max())),
        ),
        "The image, and the couplings to each category.",
    )
    found.arrays("couplings.npz", couplings=maps, images=images.test[chosen].numpy())


def _show_misread(found: Finding, images: GreyImages, scores: np.ndarray) -> None:
    from interpretkit.visualization.instruments import Gallery, Item

    labels, read = images.test_labels.numpy(), scores.argmax(1)
    wrong = (read != labels).nonzero()[0][:_MISREAD]
    section = found.section("Misread", "Test images that the capsules take for another category.")
    items = [
        Item(
            f"image {row}",
            images.test[int(row)].numpy(),
            text=f"{images.categories[int(labels[row])]}, read as {images.categories[int(read[row])]}",
            group=f"{images.categories[int(labels[row])]} read as {images.categories[int(read[row])]}",
            numbers={
                "length": float(scores[row, read[row]]),
                "length of the category": float(scores[row, labels[row]]),
            },
        )
        for row in wrong
    ]
    if items:
        label = "Misread images, to browse by what was taken for what"
        section.instrument(Gallery(items, placeholder="a category", side=9, label=label))
    section.table(
        "misread.csv",
        [
            {
                "image": int(row),
                "category": images.categories[int(labels[row])],
                "read as": images.categories[int(read[row])],
                "length": float(scores[row, read[row]]),
                "length of the category": float(scores[row, labels[row]]),
            }
            for row in wrong
        ],
        {
            "image": Column("which test image"),
            "category": Column("what it is"),
            "read as": Column("what it was taken for"),
            "length": Column("length of that capsule", format=".2f"),
            "length of the category": Column("length of the right one", format=".2f"),
        },
        most=12,
    )


def _show_epochs(found: Finding, histories: dict[str, History]) -> None:
    from interpretkit.visualization import training_curves

    columns = {
        f"{name}: held out": [100 * value for value in history.column("held_out_error")]
        for name, history in histories.items()
    }
    found.section("The trainings").figure(
        "epochs.png",
        training_curves(columns, ylabel="error on images held out (%)", logarithmic=False),
        "Error on images held out, by epochs.",
    ).table(
        "epochs.csv",
        [{"network": name} | row for name, history in histories.items() for row in history.epochs],
        {
            "network": Column("which training"),
            "epoch": Column("counted from 1"),
            "train_loss": Column("mean loss of the batches"),
            "train_margin": Column("margin loss"),
            "train_reconstruction": Column("squared error of the drawing, sum over pixels"),
            "held_out_loss": Column(
                "margin loss, or cross-entropy of an ordinary network, on images held out"
            ),
            "held_out_error": Column("share of images held out that are misread", format=".2%"),
            "learning_rate": Column("at the end of the epoch"),
            "seconds": Column("of the epoch", "s"),
        },
        most=0,
    )
