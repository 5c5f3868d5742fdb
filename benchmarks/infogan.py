"""InfoGAN: whether its code finds the digits, what it draws, and how well its codes separate factors of sprites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cnn_interp.images.digits import bundled_digits
from cnn_interp.images.reading import read
from cnn_interp.images.sets import LabelledImages
from cnn_interp.learning import capsules
from cnn_interp.learning.grey_images import GreyImages, grey_images, sprite_images
from cnn_interp.learning.infogan import (
    SIZES,
    SPRITE_CODES,
    InfoGAN,
    InfoGANConfig,
    Schedule,
    best_assignment,
    code_columns,
    information,
    mode_coverage,
    sprite_schedule,
    train_infogan,
    trained_example,
)
from interpretkit.bench.evidence import Row, mean_interval
from interpretkit.disentanglement.table import score_table
from interpretkit.runs.progress import track
from interpretkit.training import resolve_device

# The article says that the code, taken for a classifier, errs on 5 % of MNIST.
PUBLISHED = 0.95
SOURCE = "Chen and others, InfoGAN, NeurIPS 2016, section 7.2 (5 % error)"


@dataclass(frozen=True)
class Scale:
    """How much is trained.

    Attributes
    ----------
    network : str
        A name of ``SIZES``.
    digits, sprites : Schedule
        Of the trainings.
    classifier : capsules.Schedule
        Of the network that counts what is drawn.
    seeds, sprite_seeds : int
        How many, for digits and for sprites.
    sprites_trained, sprites_scored : int
        Sprites to train on, and to score on.
    """

    network: str
    digits: Schedule
    sprites: Schedule
    classifier: capsules.Schedule
    seeds: int
    sprite_seeds: int = 1
    sprites_trained: int = 20_000
    sprites_scored: int = 5000


QUICK = Scale(
    "cpu",
    Schedule(epochs=6, batch_size=64),
    sprite_schedule(epochs=2, batch_size=64),
    capsules.Schedule(epochs=8, batch_size=64, learning_rate=5e-3),
    1,
    sprites_trained=3000,
    sprites_scored=1500,
)
SMALL = Scale(
    "cpu",
    Schedule(epochs=7, precision="bfloat16"),
    sprite_schedule(epochs=12, precision="bfloat16"),
    capsules.Schedule(epochs=3, learning_rate=5e-3, precision="bfloat16"),
    3,
)
FULL = Scale(
    "paper",
    Schedule(epochs=40),
    sprite_schedule(epochs=100),
    capsules.Schedule(epochs=10, learning_rate=5e-3),
    3,
    sprite_seeds=3,
)


def run(
    quick: bool = True,
    data: Mapping[str, Path] | None = None,
    seed: int = 0,
    device: str = "auto",
    cache: Path | None = None,
) -> list[Row]:
    """Return the rows of evidence.

    Parameters
    ----------
    quick : bool
        One seed and little training.
    data : mapping of str to path, optional
        ``mnist``, for which scikit-learn's digits stand in.
    seed : int
        The first seed.
    device : str
        On a GPU, what is not quick has the size of the article.
    cache : path, optional
        A folder in which every training is kept, and from which it goes on.
    """
    mnist = (data or {}).get("mnist")
    where = resolve_device(device).type
    scale = QUICK if quick or mnist is None else FULL if where == "cuda" else SMALL
    found = bundled_digits() if mnist is None else read("mnist", mnist)
    assert isinstance(found, LabelledImages)
    # The same images are held out for all seeds.
    images = grey_images(found)
    rows: list[Row] = []
    if mnist is not None:
        example, about = trained_example()
        steps = about["epochs"] * (about["images"] // about["batch_size"])
        made = f"seed {about['seed']}, {steps} batches of {about['batch_size']}; a network of a quarter of the widths"
        rows += digit_rows(
            [example],
            capsules.trained_examples()["ordinary"][0],
            images,
            "InfoGAN, as it comes along",
            made,
            True,
            0,
        )
    if quick and mnist is not None:
        images = images.limited(1500)
    seeds = list(range(seed, seed + scale.seeds))
    config = InfoGANConfig(side=images.side, categories=len(images.categories), **SIZES[scale.network])
    models = []
    for number in track(seeds, "InfoGANs"):
        model, _ = train_infogan(
            images.train,
            config,
            scale.digits,
            seed=number,
            device=where,
            checkpoint=None if cache is None else cache / f"digits-{number}",
            quiet=True,
        )
        models.append(model)
    if mnist is None:
        classifier, _ = capsules.train_network(
            "ordinary",
            replace(capsules.SIZES["cpu"], categories=images.categories),
            images,
            scale.classifier,
            seed=seed,
            device=where,
            checkpoint=None if cache is None else cache / "classifier",
            quiet=True,
        )
    else:
        classifier, _ = capsules.trained_examples()["ordinary"]
    steps = scale.digits.epochs * (len(images.train) // scale.digits.batch_size)
    made = (
        f"{scale.seeds} seed{'s' * (scale.seeds > 1)}, {steps} batches of {scale.digits.batch_size}"
        + ("" if mnist is not None else "; scikit-learn's digits stand in for MNIST")
        + ("" if scale.network == "paper" else "; a network of a quarter of the article's widths")
    )
    stand_in = scale.network != "paper" or mnist is None
    system = f"InfoGAN, size {scale.network}"
    rows += digit_rows(models, classifier, images, system, made, stand_in, seed)
    return [*rows, *sprite_rows(scale, seeds[: scale.sprite_seeds], where, cache)]


def digit_rows(
    models: list[InfoGAN],
    classifier: capsules.Network,
    images: GreyImages,
    system: str,
    notes: str,
    stand_in: bool,
    seed: int,
) -> list[Row]:
    """Return rows on codes and digits, on the bound, and on what is drawn as the classifier sees it."""
    labels, kinds = images.test_labels.numpy(), len(images.categories)
    best, held, merged, bounds, covered, divergence, purity, migs = [], [], [], [], [], [], [], []
    for model in models:
        codes, discrete = code_columns(model.tell(images.test))
        category = codes[:, 0].astype(int)
        best.append(best_assignment(category, labels, model.config.categories, kinds).accuracy)
        aside = model.tell(images.held_out).logits.argmax(1).numpy()
        chosen = best_assignment(aside, images.held_out_labels.numpy(), model.config.categories, kinds)
        held.append(chosen.read(category, labels))
        merged.append(", ".join(images.categories[label] for label in chosen.merged()) or "none")
        bounds.append(information(model, seed=seed).category)
        drawn = mode_coverage(
            model, lambda some: capsules.predict(classifier, some), images.train_labels, seed=seed
        )
        covered.append(drawn.covered)
        divergence.append(drawn.divergence)
        purity.append(drawn.purity)
        table = score_table(
            codes, labels[:, None], ["mig"], discrete=True, discrete_codes=discrete, bootstrap=0, seed=seed
        )
        migs.append(table["mig"])
    on = f"{images.name}, {len(labels)} test images"
    chance = float(np.bincount(labels).max() / len(labels))
    listed = ", ".join(f"{value:.3f}" for value in best)

    def row(name: str, values: list[float], extra: str, **more: object) -> Row:
        return Row(
            system=system,
            data=on,
            name=name,
            value=float(np.mean(values)),
            interval=mean_interval(values),
            seed=seed,
            notes=f"{notes}; {extra}",
            **more,  # type: ignore[arg-type]
        )

    return [
        row(
            "agreement of the categorical code with the digit, best assignment", best,
            f"by seed {listed}; digits without a code of their own: {'; '.join(merged)}; the baseline is the most "
            "frequent digit",
            baseline=chance, reference=PUBLISHED, source=SOURCE, stand_in=stand_in,
        ),
        row(
            "agreement of the categorical code with the digit, assigned on images held out", held,
            "the baseline is the most frequent digit",
            baseline=chance, reference=PUBLISHED, source=SOURCE, stand_in=stand_in,
        ),
        row(
            "information of the categorical code in drawn images, lower bound", bounds,
            "nats; the reference is the entropy of the code", reference=float(np.log(kinds)), source="H(c)",
        ),
        row(
            f"digits drawn at least a tenth as often as in the data, of {kinds}", [float(n) for n in covered],
            "10 000 drawn images, as an independent classifier sees them",
        ),
        row(
            "divergence of the digits drawn from those in the data", divergence,
            "nats; 10 000 drawn images, as an independent classifier sees them",
        ),
        row(
            "purity of the images of one code", purity,
            "share that the classifier takes for the same digit, mean of the codes; the baseline is chance",
            baseline=1 / kinds,
        ),
        row(
            "MIG of the codes for the digit", [score.value for score in migs],
            f"ceiling {migs[0].ceiling:.3f}; the baseline is the floor, of codes of noise",
            baseline=migs[0].floor,
        ),
    ]  # fmt: skip


def sprite_rows(scale: Scale, seeds: list[int], device: str, cache: Path | None) -> list[Row]:
    """Return scores of the codes that are told of rendered sprites, between floor and ceiling."""
    tables, told = [], []
    for number in track(seeds, "InfoGANs of sprites"):
        images, factors, _ = sprite_images(scale.sprites_trained, scale.sprites_scored, seed=number)
        model, _ = train_infogan(
            images.train,
            InfoGANConfig(side=images.side, **SPRITE_CODES, **SIZES[scale.network]),
            scale.sprites,
            seed=number,
            device=device,
            checkpoint=None if cache is None else cache / f"sprites-{number}",
            quiet=True,
        )
        codes, discrete = code_columns(model.tell(images.test))
        told.append(float(np.mean(information(model, seed=number).continuous)))
        tables.append(
            score_table(
                codes,
                factors,
                ["mig", "dci", "factor_vae", "sap"],
                discrete=True,
                discrete_codes=discrete,
                bootstrap=0,
                seed=number,
            )
        )
    steps = scale.sprites.epochs * (scale.sprites_trained // scale.sprites.batch_size)
    system = f"InfoGAN, size {scale.network}, 3 categories and 4 continuous codes"
    data = f"rendered sprites, {scale.sprites_scored} that were not trained on"
    made = f"{len(seeds)} seed{'s' * (len(seeds) > 1)}, {steps} batches of {scale.sprites.batch_size}"
    rows = [
        Row(
            system=system, data=data, name="information of a continuous code in drawn images, lower bound, mean",
            value=float(np.mean(told)), interval=mean_interval(told), baseline=0.0, unit="nats", seed=seeds[0],
            notes=f"{made}; the baseline is a code that is ignored; how well a code is told of drawn images says "
            "nothing of whether it stands for one factor",
        )
    ]  # fmt: skip
    for metric, name in (
        ("mig", "MIG"), ("dci", "DCI disentanglement"), ("factor_vae", "FactorVAE score"), ("sap", "SAP"),
    ):  # fmt: skip
        scores = [table[metric] for table in tables]
        values = [score.value for score in scores]
        rows.append(
            Row(
                system=system,
                data=data,
                name=name,
                value=float(np.mean(values)),
                interval=mean_interval(values),
                baseline=scores[0].floor,
                reference=scores[0].ceiling,
                source="ceiling: codes that are the factors",
                seed=seeds[0],
                notes=f"{made}; codes of real images; the baseline is the floor, of codes of noise",
            )
        )
    return rows
