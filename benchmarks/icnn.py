"""Interpretable CNNs: filters trained by each loss beside ordinary ones, on crops of animals, whole and shifted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from cnn_interp.disentangling.features import trunk_features
from cnn_interp.images.articulated import articulated_images
from cnn_interp.images.part_images import PartImages
from cnn_interp.images.reading import read_parts
from cnn_interp.learning.filter_study import (
    READ_ALIKE,
    FilterTask,
    TrainedFilters,
    filter_task,
    halves,
    read_alike,
    settings_of,
    train_filters,
)
from cnn_interp.networks.loading import load_network
from interpretkit.bench.evidence import Row, mean_interval
from interpretkit.runs.files import write_json
from interpretkit.runs.progress import track

KIND = "animal-part"
NETWORK, LAYER = "mobilenet_v2", "features.13"
# With every seed, on all images; and with the first seed alone, on those that are not shifted.
MAIN, ONCE = ("ordinary", "published", "competing"), ("released", "unasked")
WHOLE, SHIFTED = "crops", "crops shifted at random"
# Side of the window through which a shifted crop is seen.
WINDOW = 0.75
BAR = "the project's bar"
RATIO, COST = 0.75, 0.02
PUBLISHED = "Zhang, Wu, Zhu, CVPR 2018: VGG-16 on animal-part, mean of 30 categories, .144 ordinary, .085 interpretable"
CONSTANT = "a filter that never moves"
_SAID = {
    "ordinary": "the same two layers without masks and without filter loss",
    "published": "the filter loss of the article",
    "released": "masks at the centre of gravity with learned widths, as in the released code",
    "competing": "filters that share out every place, asked to be gathered, present, equivariant, and different",
    READ_ALIKE: "the ordinary filters, with maps read as those of competing filters are; nothing is trained anew",
    "unasked": "the layers of the competing filters, of which nothing is asked but the category",
}


@dataclass(frozen=True)
class Size:
    """How much is trained.

    Attributes
    ----------
    drawn : int
        Drawn images for each category, four of ten without any object.
    images : int
        Crops of each animal, and images without one, at most.
    categories : tuple of str
        Drawn objects.
    seeds : int
        How many halves and trainings.
    epochs : int or None
        Of each; by the variant without a number.
    """

    drawn: int
    images: int
    categories: tuple[str, ...]
    seeds: int
    epochs: int | None


QUICK = Size(160, 260, ("quadruped",), 1, None)
FULL = Size(400, 260, ("quadruped", "bird"), 3, None)


def run(
    quick: bool = True,
    data: Mapping[str, Path] | None = None,
    seed: int = 0,
    device: str = "cpu",
    cache: Path | None = None,
) -> list[Row]:
    """Return the rows of evidence.

    Parameters
    ----------
    quick : bool
        One seed, the main variants, crops that are not shifted.
    data : mapping of str to path, optional
        ``animal-part``, its folder; without it, drawn objects.
    seed : int
        The first seed.
    device : str
        Where to compute.
    cache : path, optional
        A folder in which maps and measurements are kept.
    """
    size = QUICK if quick else FULL
    network = load_network(NETWORK, device=device, seed=seed)
    every, names = read_images(size, data, seed, network.size)
    rows: list[Row] = []
    for where in (WHOLE,) if quick else (WHOLE, SHIFTED):
        seen = every if where == WHOLE else every.shifted(WINDOW, network.size, seed=seed)
        maps = trunk_features(
            network, seen, [LAYER], None if cache is None else cache / "maps", precision="float16"
        )[LAYER]
        found: list[dict[str, float | str | int]] = []
        for name in names:
            of_it = seen.categories == seen.category_names.index(name)
            chosen = np.flatnonzero(of_it | (seen.categories < 0))
            task = filter_task(seen.subset(chosen), network, LAYER, [name], maps=maps.subset(chosen))
            found += measure(task, where, size, seed, cache)
        told = f"{every.name}, {len(every)} images"
        rows += as_rows(found, f"{told}, {where}", seed)
    return rows


def read_images(
    size: Size, data: Mapping[str, Path] | None, seed: int, side: int
) -> tuple[PartImages, tuple[str, ...]]:
    """Return images of all categories and of none, and the categories; of crops, those with annotated parts first."""
    if not data or KIND not in data:
        count = size.drawn * len(size.categories)
        drawn = articulated_images(count, seed=seed, side=side, negatives=0.4, categories=size.categories)
        return drawn, size.categories
    every = read_parts(KIND, data[KIND], unannotated=True, negatives=True)
    told = np.asarray(every.annotated.any(axis=1))
    rows = []
    for number in range(-1, len(every.category_names)):
        own = np.flatnonzero(every.categories == number)
        first, rest = own[told[own]], own[~told[own]]
        more = min(max(size.images - len(first), 0), len(rest))
        rows.append(np.concatenate([first[: size.images], rest[np.arange(more) * len(rest) // max(more, 1)]]))
    return every.subset(np.sort(np.concatenate(rows))), every.category_names


def measure(
    task: FilterTask, where: str, size: Size, seed: int, cache: Path | None
) -> list[dict[str, float | str | int]]:
    """Train every variant with every seed on one category, and return what each reaches on the other half."""
    (name,) = task.categories
    found = []
    todo = [(number, variant) for number in range(seed, seed + size.seeds) for variant in MAIN]
    todo += [(seed, variant) for variant in ONCE if where == WHOLE and size.seeds > 1]
    for number, variant in track(todo, f"Training on {name}, {where}"):
        kept = None if cache is None else cache / f"{name}-{where}-{variant}-{number}.json".replace(" ", "-")
        if kept is not None and kept.is_file():
            found += json.loads(kept.read_text(encoding="utf-8"))
            continue
        some = split_again(task, number)
        trained = train_filters(some, variant, settings_of(variant, epochs=size.epochs), seed=number)
        new = [trained, read_alike(some, trained)] if variant == "ordinary" else [trained]
        told = [{"category": name, **figures(one)} for one in new]
        found += told
        if kept is not None:
            write_json(kept, told)
    return found


def split_again(task: FilterTask, seed: int) -> FilterTask:
    """Return the task with other halves."""
    learn, validate, test = halves(task.labels, task.images.groups, seed=seed)
    return replace(task, learn=learn, validate=validate, test=test)


def figures(trained: TrainedFilters) -> dict[str, float | str | int]:
    """Return what is reported of one training."""
    assert trained.location is not None
    result = trained.location
    best = result.best_tracking()[1][0]
    head = result.part_names.index("head") if "head" in result.part_names else int(np.nanargmax(best))
    return {
        "variant": trained.variant,
        "seed": trained.seed,
        "accuracy": trained.accuracy,
        "instability": result.mean_instability,
        "centre": result.mean_constant_centre,
        "constant": result.mean_best_constant,
        "best": float(np.nanmean(best)),
        "head": float(best[head]),
        "median": result.median_tracking_r2,
        "chosen": float(trained.row()["chosen R²"]),  # type: ignore[arg-type]
        "silent": int((~trained.alive).sum()),
    }


def as_rows(found: Sequence[Mapping[str, float | str | int]], data: str, seed: int) -> list[Row]:
    """Return averages over categories and seeds, and the categories one by one."""
    categories = list(dict.fromkeys(str(one["category"]) for one in found))
    common = {"data": f"{data}, half of the groups held out", "seed": seed}

    def by_seed(
        variant: str, name: str, category: str | None = None, *, as_often_as: str = ""
    ) -> list[float]:
        seeds = sorted({int(one["seed"]) for one in found if one["variant"] == (as_often_as or variant)})
        return [
            float(np.mean([
                float(one[name]) for one in found
                if one["variant"] == variant and one["seed"] == number and category in (None, one["category"])
            ]))
            for number in seeds
        ]  # fmt: skip

    def mean(variant: str, name: str, category: str | None = None, *, as_often_as: str = "") -> float:
        return float(np.mean(by_seed(variant, name, category, as_often_as=as_often_as)))

    system = f"{NETWORK} {LAYER}, {{}} filters"
    rows = [
        Row(
            system=system.format("ordinary"), name="location instability", value=mean("ordinary", "instability"),
            interval=mean_interval(by_seed("ordinary", "instability")), baseline=mean("ordinary", "centre"),
            reference=0.144, source=PUBLISHED, stand_in=True,
            notes=f"{_SAID['ordinary']}; another trunk, fewer categories; baseline: {CONSTANT}, at the centre; at the "
            f"best constant position {mean('ordinary', 'constant'):.3f}", **common,
        ),
        Row(
            system=system.format("ordinary"), name="accuracy", value=mean("ordinary", "accuracy"),
            interval=mean_interval(by_seed("ordinary", "accuracy")), notes=_SAID["ordinary"], **common,
        ),
        Row(
            system=system.format("ordinary"), name="best tracking R², mean of parts", value=mean("ordinary", "best"),
            interval=mean_interval(by_seed("ordinary", "best")), baseline=0.0, notes=f"baseline: {CONSTANT}", **common,
        ),
        Row(
            system=system.format("ordinary"), name="median tracking R²", value=mean("ordinary", "median"),
            interval=mean_interval(by_seed("ordinary", "median")), baseline=0.0, notes=f"baseline: {CONSTANT}",
            **common,
        ),
    ]  # fmt: skip
    for variant in dict.fromkeys(str(one["variant"]) for one in found if one["variant"] != "ordinary"):
        of = system.format(variant)
        ordinary = partial(mean, "ordinary", as_often_as=variant)
        trained = len(by_seed(variant, "accuracy"))
        times = f"{trained} seed{'s' * (trained > 1)}"
        ratios = [
            one / other
            for one, other in zip(
                by_seed(variant, "instability"),
                by_seed("ordinary", "instability", as_often_as=variant),
                strict=True,
            )
        ]
        lost = [
            other - one
            for one, other in zip(
                by_seed(variant, "accuracy"),
                by_seed("ordinary", "accuracy", as_often_as=variant),
                strict=True,
            )
        ]
        rows += [
            Row(
                system=of, name="location instability", value=mean(variant, "instability"),
                interval=mean_interval(by_seed(variant, "instability")), baseline=ordinary("instability"),
                reference=0.085, source=PUBLISHED, stand_in=True,
                notes=f"{times}; {_SAID[variant]}; another trunk, fewer categories; baseline: ordinary filters; "
                f"{CONSTANT} {mean(variant, 'centre'):.3f}", **common,
            ),
            Row(
                system=of, name="location instability over that of ordinary filters", value=float(np.mean(ratios)),
                interval=mean_interval(ratios), reference=RATIO, source=BAR, notes="less is better", **common,
            ),
            Row(
                system=of, name="best tracking R², mean of parts", value=mean(variant, "best"),
                interval=mean_interval(by_seed(variant, "best")), baseline=ordinary("best"),
                notes="baseline: ordinary filters; 1 follows, 0 stands still", **common,
            ),
            Row(
                system=of, name="tracking R² of the filter chosen on the other half", value=mean(variant, "chosen"),
                interval=mean_interval(by_seed(variant, "chosen")), baseline=ordinary("chosen"),
                notes="baseline: ordinary filters; for each part the filter that follows it best in the images learned "
                "from, so that more filters have no more luck", **common,
            ),
            Row(
                system=of, name="best tracking R² of the head", value=mean(variant, "head"),
                interval=mean_interval(by_seed(variant, "head")), baseline=ordinary("head"),
                notes="baseline: ordinary filters", **common,
            ),
            Row(
                system=of, name="median tracking R²", value=mean(variant, "median"),
                interval=mean_interval(by_seed(variant, "median")), baseline=ordinary("median"),
                notes=f"baseline: ordinary filters; {CONSTANT} has 0", **common,
            ),
            Row(
                system=of, name="accuracy lost to ordinary filters", value=float(np.mean(lost)),
                interval=mean_interval(lost), reference=COST, source=BAR,
                notes=f"{mean(variant, 'accuracy'):.3f} beside {mean('ordinary', 'accuracy'):.3f}; less is better",
                **common,
            ),
        ]  # fmt: skip
    if len(categories) == 1:
        return [row for row in rows if not np.isnan(row.value)]
    for variant in ("published", "competing"):
        for category in categories:
            rows += [
                Row(
                    system=system.format(variant), name=f"location instability, {category}",
                    value=mean(variant, "instability", category),
                    interval=mean_interval(by_seed(variant, "instability", category)),
                    baseline=mean("ordinary", "instability", category),
                    notes=f"baseline: ordinary filters; {CONSTANT} {mean(variant, 'centre', category):.3f}; accuracy "
                    f"{mean(variant, 'accuracy', category):.3f} beside {mean('ordinary', 'accuracy', category):.3f}",
                    **common,
                ),
                Row(
                    system=system.format(variant), name=f"best tracking R² of the head, {category}",
                    value=mean(variant, "head", category),
                    interval=mean_interval(by_seed(variant, "head", category)),
                    baseline=mean("ordinary", "head", category), notes="baseline: ordinary filters", **common,
                ),
            ]  # fmt: skip
    return [row for row in rows if not np.isnan(row.value)]
