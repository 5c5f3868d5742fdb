"""InfoGAN: codes that come to stand for what varies in images, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.commands._loading import DIGITS, check_grey_data, grey_data
from cnn_interp.commands._options import PRECISIONS, Example, Precision, TrainedNetwork
from interpretkit.commandline import Column, Device, Finding, Here, Quiet, Seed, command, one_of
from interpretkit.errors import InputError
from interpretkit.runs.folder import Run

if TYPE_CHECKING:
    import numpy as np

    from cnn_interp.learning.grey_images import GreyImages
    from cnn_interp.learning.infogan import Assignment, Coverage, InfoGAN
    from interpretkit.disentanglement.table import ScoreTable
    from interpretkit.training import History

SPRITES = "sprites"
_SIZES = ("cpu", "paper")
_SIDE = {"sprites": 32}
# What is trained if nobody says: batches of all trainings are about as many, small sets are gone through more often.
_EPOCHS, _EPOCHS_OF_FEW, _FEW = 11, 60, 5000
_SPRITES_DRAWN = 20_000
# Images that codes are scored on, at most.
_SCORED = 5000
_CLASSIFIER_EPOCHS = 12
_SCORES_OF_LABELS = ("mig", "sap", "explicitness")
_SCORES_OF_FACTORS = ("mig", "sap", "dci", "factor_vae")
_SCORE_COLUMNS = {
    "metric": Column("the score"),
    "part": Column("which part of it"),
    "value": Column("of these codes", format=".3f"),
    "low": Column("lower end of the 95 % interval", heading="95 % from", format=".3f"),
    "high": Column("upper end of it", heading="95 % to", format=".3f"),
    "ceiling": Column("what codes that are the factors have on these data", format=".3f"),
    "floor": Column("what codes of noise have", format=".3f"),
}


@command(
    out="infogan",
    example=[
        "interpretkit cnn train infogan",
        "interpretkit cnn train infogan --example",
        "interpretkit cnn train infogan --data mnist=mnist",
        "interpretkit cnn train infogan --data sprites --categories 3 --continuous 4",
    ],
    together=True,
)
def infogan(
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="digits|sprites|KIND=PATH",
            help="Images, taken as grey: scikit-learn's digits, sprites that the project draws, mnist=FOLDER, "
            "affnist=PATH, or labelled-images=PATH.",
        ),
    ] = DIGITS,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="|".join(_SIZES),
            help="cpu (the default): a quarter of the article's widths, for one core; paper: the article's.",
        ),
    ] = None,
    categories: Annotated[
        int | None,
        typer.Option("--categories", metavar="N", min=2, help="Values of the categorical code; by the data."),
    ] = None,
    continuous: Annotated[
        int | None, typer.Option("--continuous", metavar="N", min=0, help="Continuous codes; by the data.")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", metavar="N", min=1, help="Of the training; by the number of images."),
    ] = None,
    images: Annotated[
        int | None, typer.Option("--images", metavar="N", min=200, help="Train on so many images at most.")
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
    """Train an InfoGAN, and find out what its codes stand for.

    No label is looked at in the training. Afterwards the codes that it tells of real test images are set beside their
    labels or factors, and a classifier that had no part in it counts what is drawn. Writes infogan.safetensors (loaded
    again by --network), traversals, assignment.csv, scores.csv, codes.npz (read by `interpretkit scores`) and
    report.html. A run that is interrupted goes on where it stopped.
    """
    kind, path = check_grey_data(data, (DIGITS, SPRITES))
    asked = {
        "size": size,
        "categories": categories,
        "continuous": continuous,
        "epochs": epochs,
        "images": images,
        "precision": precision,
    }
    idle = [name for name, value in asked.items() if value is not None]
    if example and network is not None:
        raise InputError("network: not with --example; expected one or the other")
    if (example or network is not None) and idle:
        raise InputError(
            f"{idle[0]}: nothing is trained with --{'example' if example else 'network'}; leave it out"
        )
    chosen = one_of(_SIZES, size or _SIZES[0], "size")
    exact = one_of(PRECISIONS, precision or "float32", "precision")
    from cnn_interp.learning.capsules import SIZES as CLASSIFIERS
    from cnn_interp.learning.capsules import Schedule as Classified
    from cnn_interp.learning.capsules import predict, train_network, trained_examples
    from cnn_interp.learning.infogan import (
        SIZES,
        SPRITE_CODES,
        InfoGANConfig,
        Schedule,
        load_infogan,
        mode_coverage,
        sprite_schedule,
        train_infogan,
        trained_example,
    )
    from interpretkit.training import resolve_device
    from interpretkit.training.distributed import training_together

    model: InfoGAN | None = None
    about: dict[str, Any] = {}
    if example or network is not None:
        model, about = trained_example(device) if network is None else load_infogan(network, device)
    side = model.config.side if model is not None else _SIDE.get(kind, 28)
    wanted, factors, names, files = _images(kind, path, side, seed)
    wanted = wanted.limited(images or len(wanted.train))
    history: History | None = None
    coverage: Coverage | None = None
    with (
        run.kept(files=[*files, *([network] if network else [])], without=["device"]) as place,
        training_together(resolve_device(device), place) as (where, state),
    ):
        if model is None:
            codes = dict(SPRITE_CODES) if kind == SPRITES else {"categories": len(wanted.categories)}
            asked_codes = {"categories": categories, "continuous": continuous}
            codes |= {name: value for name, value in asked_codes.items() if value is not None}
            config = InfoGANConfig(side=side, **codes, **SIZES[chosen])
            few = len(wanted.train) < _FEW
            make = sprite_schedule if kind == SPRITES else Schedule
            schedule = make(
                epochs=epochs or (_EPOCHS_OF_FEW if few else _EPOCHS),
                batch_size=64 if few else 128,
                precision=exact,  # type: ignore[arg-type]
            )
            model, history = train_infogan(
                wanted.train,
                config,
                schedule,
                seed=seed,
                device=where,
                checkpoint=state / "infogan",
                quiet=quiet,
            )
            about = {
                "data": wanted.name,
                "images": len(wanted.train),
                "epochs": schedule.epochs,
                "batch_size": schedule.batch_size,
                "seed": seed,
            }
        if factors is None:
            from dataclasses import replace

            few = len(wanted.train) < _FEW
            if about.get("data") == "MNIST" and (side, len(wanted.categories)) == (28, 10):
                classifier, _ = trained_examples()["ordinary"]
            else:
                classifier, _ = train_network(
                    "ordinary",
                    replace(CLASSIFIERS["cpu"], side=side, categories=wanted.categories),
                    wanted,
                    Classified(
                        epochs=_CLASSIFIER_EPOCHS if few else 2,
                        batch_size=64 if few else 128,
                        learning_rate=5e-3,
                    ),
                    seed=seed,
                    device=where,
                    checkpoint=state / "classifier",
                    quiet=quiet,
                )
            coverage = mode_coverage(
                model, lambda drawn: predict(classifier, drawn), wanted.train_labels, seed=seed
            )
            classified = float(
                (predict(classifier, wanted.test).argmax(1) == wanted.test_labels.numpy()).mean()
            )
        else:
            classified = None
    return _finding(
        model, history, wanted, factors, names, coverage, classified, about, history is None, seed
    ).reads(*files, *([network] if network else []))


def _images(
    kind: str, path: Path | None, side: int, seed: int
) -> tuple[GreyImages, np.ndarray | None, tuple[str, ...], list[Path]]:
    """Return images, the factors of the test images if these are known, their names, and what was read."""
    if kind != SPRITES:
        wanted, files = grey_data(kind, path, side, seed)
        return wanted, None, (), files
    from cnn_interp.learning.grey_images import sprite_images

    wanted, factors, names = sprite_images(_SPRITES_DRAWN, _SCORED, side=side, seed=seed)
    return wanted, factors, names, []


def _finding(
    model: InfoGAN,
    history: History | None,
    images: GreyImages,
    factors: np.ndarray | None,
    factor_names: tuple[str, ...],
    coverage: Coverage | None,
    classified: float | None,
    about: dict[str, Any],
    shown_only: bool,
    seed: int,
) -> Finding:
    import numpy as np

    from cnn_interp.learning.infogan import best_assignment, code_columns, information, save_infogan
    from interpretkit.disentanglement.table import score_table

    config = model.config
    told = model.tell(images.test)
    codes, discrete = code_columns(told)
    bound = information(model, seed=seed)
    held = model.tell(images.held_out).logits.argmax(1).numpy()
    labels = images.test_labels.numpy()
    kinds = len(images.categories)
    chosen = best_assignment(held, images.held_out_labels.numpy(), config.categories, kinds)
    tested = best_assignment(codes[:, 0].astype(int), labels, config.categories, kinds)
    read = chosen.read(codes[:, 0], labels)
    what = "shape" if factors is not None else "label"
    counts = np.bincount(labels, minlength=kinds)
    chance = float(counts.max() / counts.sum())
    found = Finding(
        f"Codes of {images.name} that nobody labelled",
        f"The categorical code of an InfoGAN, told of real images that it never saw, is the {what} of {read:.1%} of "
        f"{len(labels)}, by the assignment that fits images held out best; always saying the most frequent {what} "
        f"would be right for {chance:.1%}. {bound.category:.2f} of {bound.category_entropy:.2f} nats of the code are "
        "told again from drawn images.",
    )
    found.number(
        "agreement", read, f"code agrees with {what}", format=".1%", note="assigned on images held out"
    )
    found.number(
        "best_agreement", tested.accuracy, "with the assignment best for the test images", format=".1%",
        note="what articles report", on_card=False,
    )  # fmt: skip
    found.number(
        "category_information", bound.category, "information of the categorical code", unit="nats", format=".2f",
        note=f"lower bound; H(c) is {bound.category_entropy:.2f}",
    )  # fmt: skip
    if config.continuous:
        found.number(
            "continuous_information",
            {f"c{number + 1}": value for number, value in enumerate(bound.continuous)},
            "information of continuous codes",
            unit="nats",
            format=".2f",
            note=f"lower bound; H(c) is {bound.continuous_entropy:.2f}",
            on_card=False,
        )
    if coverage is not None:
        found.number(
            "covered", coverage.covered, f"categories drawn, of {kinds}", format=".0f",
            note="at least a tenth as often as in the data",
        )  # fmt: skip
    merged = chosen.merged()
    if merged:
        names = ", ".join(images.categories[label] for label in merged)
        found.warn(f"No value of the code stands mainly for {names}: it shares one with another {what}.")
    if shown_only and about.get("data") not in (None, images.name):
        found.warn(
            f"The network was trained on {about['data']} and is shown {images.name}, which are drawn otherwise: what "
            "it tells of these says little about what it tells of those."
        )
    if images.name.startswith("scikit") and not shown_only:
        found.warn("Some 1400 coarse digits are few for a GAN: use mnist=FOLDER for more than a first look.")
    _show_traversals(found, model, chosen, images, seed)
    _show_assignment(found, chosen, tested, images, what)
    if coverage is not None and classified is not None:
        _show_coverage(found, coverage, images, classified)
    rows = np.arange(min(len(codes), _SCORED))
    truth = factors[rows] if factors is not None else labels[rows, None]
    table = score_table(
        codes[rows],
        truth,
        list(_SCORES_OF_FACTORS if factors is not None else _SCORES_OF_LABELS),
        discrete=True,
        discrete_codes=discrete,
        bootstrap=20,
        seed=seed,
    )
    _show_scores(found, table, factor_names or (what,), len(rows))
    found.arrays(
        "codes.npz",
        codes=codes,
        factors=truth if factors is not None else labels[:, None],
        code_names=["category", *(f"c{number + 1}" for number in range(config.continuous))],
        factor_names=list(factor_names or (what,)),
    )
    if history is not None:
        _show_epochs(found, history)
        found.file("infogan.safetensors", lambda path: save_infogan(path, model, about, half=True))
        found.next_step(
            "Show the trained network on other images:",
            "interpretkit cnn train infogan --network",
            Here("infogan.safetensors"),
        )
    found.next_step("More scores of the codes:", "interpretkit scores", Here("codes.npz"))
    return found


def _show_traversals(
    found: Finding, model: InfoGAN, chosen: Assignment, images: GreyImages, seed: int
) -> None:
    import numpy as np

    from cnn_interp.learning.image_grids import image_grid
    from cnn_interp.learning.infogan import traversals
    from interpretkit.visualization.instruments import Frame, Frames

    steps = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
    by_category, by_code = traversals(model, steps=steps, seed=seed)
    names = [
        f"{number}: {images.categories[label]}" if label >= 0 else f"{number}: –"
        for number, label in enumerate(chosen.label_of)
    ]
    section = found.section(
        "What is drawn when one code changes",
        "Above every column stand the value of the categorical code and what it was assigned to; in a row the noise is "
        "the same. Continuous codes were trained between −1 and 1; beyond, the generator goes on by itself.",
    ).figure(
        "categories.png", image_grid(by_category, columns=names, limits=(0, 255)), "The categorical code."
    )
    ways = {
        f"continuous code {number + 1}": [
            Frame(np.concatenate(list(moved[:, place]), axis=1), f"code {number + 1} at {step:+.1f}: {shown}")
            for place, step in enumerate(steps)
        ]
        for number, moved in enumerate(by_code)
        for shown in (", ".join(names),)
    }
    if ways:
        section.instrument(
            Frames(ways, along="its value", enlarged=3, label="What is drawn along a continuous code")
        )
    for number in range(len(by_code)):
        section.figure(
            f"continuous-{number + 1}.png",
            image_grid(
                by_code[number], rows=names, columns=[f"{step:+.1f}" for step in steps], limits=(0, 255)
            ),
            f"Continuous code {number + 1}, for every category, with the same noise.",
        )


def _show_assignment(
    found: Finding, chosen: Assignment, tested: Assignment, images: GreyImages, what: str
) -> None:
    from interpretkit.visualization import heatmap

    counts = tested.counts
    shares = counts / counts.sum(1, keepdims=True).clip(min=1)
    order = sorted(range(len(counts)), key=lambda code: (chosen.label_of[code] < 0, chosen.label_of[code]))
    found.section(
        f"Which value of the code stands for which {what}",
        "Each value is assigned to one category at most, such that most of the images held out are right. The shares "
        "are those of test images.",
    ).figure(
        "assignment.png",
        heatmap(
            shares[order],
            [f"code {code}" for code in order],
            list(images.categories),
            label="share of the images with the code",
        ),
        "Test images by their code and their category.",
    ).table(
        "assignment.csv",
        [
            {
                "code": code,
                "assigned": images.categories[chosen.label_of[code]] if chosen.label_of[code] >= 0 else "",
                "images": int(counts[code].sum()),
                "mainly": images.categories[int(counts[code].argmax())],
                "share": float(shares[code].max()),
            }
            for code in range(len(counts))
        ],
        {
            "code": Column("value of the categorical code"),
            "assigned": Column(f"the {what} it was assigned to"),
            "images": Column("test images with it"),
            "mainly": Column(f"the {what} that most of these have"),
            "share": Column("how many of them have it", format=".1%"),
        },
    )


def _show_coverage(found: Finding, coverage: Coverage, images: GreyImages, classified: float) -> None:
    found.section(
        "What is drawn, as another network sees it",
        f"An ordinary network, trained with labels and no part of the InfoGAN, reads {classified:.1%} of the test "
        f"images rightly. It is at least 90 % sure of {coverage.sure:.1%} of 10 000 drawn images. The divergence of "
        f"what it sees from the data is {coverage.divergence:.3f} nats; of the images of one value of the code it "
        f"takes {coverage.purity:.1%} for the same category.",
    ).table(
        "coverage.csv",
        [
            {"category": name, "drawn": float(coverage.shares[row]), "data": float(coverage.expected[row])}
            for row, name in enumerate(images.categories)
        ],
        {
            "category": Column("what the classifier takes images for"),
            "drawn": Column("share of drawn images", format=".1%"),
            "data": Column("share of the images that were trained on", format=".1%"),
        },
    )


def _show_scores(found: Finding, table: ScoreTable, names: tuple[str, ...], count: int) -> None:
    from interpretkit.disentanglement.score import ABOVE
    from interpretkit.disentanglement.table import TITLES, score_title

    section = found.section(
        "How well the codes separate the factors",
        f"Scores of the codes of {count} real test images for {', '.join(names)}: the category and the means of the "
        "continuous codes. A score is to be read between its floor and its ceiling.",
    )
    columns = _SCORE_COLUMNS | {"metric": Column("the score", words=TITLES)}
    section.table("scores.csv", table.rows(), columns, shown=list(columns), in_terminal=True)
    for line, metrics in table.warnings().items():
        told = f"{', '.join(map(score_title, metrics))}: {line}"
        section.note(told) if ABOVE in line else section.warning(told)


def _show_epochs(found: Finding, history: History) -> None:
    from interpretkit.visualization import training_curves

    found.section(
        "The training",
        "A critic at 2 log 2 = 1.39 nats cannot tell drawn from real images at all.",
    ).figure(
        "epochs.png",
        training_curves(history.epochs, ylabel="nats"),
        "Losses of both players, and the information of the codes in drawn images, by epochs.",
    ).table(
        "epochs.csv",
        history.epochs,
        {
            "epoch": Column("counted from 1"),
            "train_loss": Column("both players' losses, added", "nats"),
            "train_critic": Column("loss of the critic", "nats"),
            "train_generator": Column("loss of the generator", "nats"),
            "train_missed_information": Column("−E log Q of all codes", "nats"),
            "category_information": Column("lower bound for the categorical code", "nats"),
            "continuous_information": Column("lower bound for the continuous codes, their sum", "nats"),
            "learning_rate": Column("of the generator"),
            "seconds": Column("of the epoch", "s"),
        },
        most=0,
    )
