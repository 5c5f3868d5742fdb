"""Patterns of a network judged by a person: planted cues found and taken out, beside other uses of the answers."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from cnn_interp.images.articulated import articulated_images
from cnn_interp.images.part_images import PartImages
from cnn_interp.images.reading import read_parts
from cnn_interp.middle_to_end import editing, patterns, spurious_cue
from cnn_interp.middle_to_end.network_edit import Base
from cnn_interp.middle_to_end.spurious_cue import (
    COVERED,
    CUELESS,
    DROPPED,
    HEAVIEST,
    ONLY_REFIT,
    PLAIN,
    RANDOM,
    REFIT,
    CueOutcome,
    CuePool,
    CueSettings,
    cue_trial,
)
from cnn_interp.networks.loading import load_network
from interpretkit.bench.evidence import Row, mean_interval, ratio_interval
from interpretkit.runs.files import write_json
from interpretkit.runs.progress import track

KIND = "animal-part"
NETWORK, LAYER = "mobilenet_v2", "features.18"
DRAWN, PHOTOGRAPHS = "drawn scenes", "photographs of animals"
BAR = "the project's bar"
CATEGORIES = ("quadruped", "bird", "person", "car")
# What is compared with the method, each given the same images or the same answers.
OTHERS = (RANDOM, HEAVIEST, ONLY_REFIT, COVERED)


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes
    ----------
    scenes, photographs : tuple of CueSettings
        Cues in drawn scenes, and in photographs: how many images, and what is asked.
    seeds : int
        How many of each.
    """

    scenes: tuple[CueSettings, ...]
    photographs: tuple[CueSettings, ...]
    seeds: int


# A cue that goes with a category nearly always, and one that always does and is larger: in photographs, whose animals
# the network knows well, the former is hardly learned, so that the bar is for the latter.
_SMALL = CueSettings(kind="sticker")
_LARGE = CueSettings(kind="sticker", size=1.5, within=1.0, elsewhere=0.0)
QUICK = Size(
    (CueSettings(train=80, user=60, test=80),), (replace(_LARGE, train=80, user=60, test=80),), 2
)  # fmt: skip
FULL = Size(
    (CueSettings(train=200, user=120, test=200),),
    (replace(_LARGE, train=120, user=120, test=200), replace(_SMALL, train=200, user=120, test=200)),
    5,
)


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
        One cue, two seeds, few images.
    data : mapping of str to path, optional
        ``animal-part``, its folder: judged there as well.
    seed : int
        Of the images and the cues' looks, and the first of the divisions.
    device : str
        Where the network runs.
    cache : path, optional
        A folder in which maps are kept.
    """
    size = QUICK if quick else FULL
    network = load_network(NETWORK, device=device, seed=seed)
    base = Base.of(network)

    def drawn(count: int) -> PartImages:
        return articulated_images(count, seed=seed, side=network.size, negatives=0.0, categories=CATEGORIES)

    planned = [(DRAWN, settings, drawn) for settings in size.scenes]
    if data and KIND in data:
        every = read_parts(KIND, data[KIND], unannotated=True)
        planned += [(PHOTOGRAPHS, settings, partial(evenly, every)) for settings in size.photographs]
    rows: list[Row] = []
    for title, settings, given in planned:
        count = settings.train + settings.user + settings.test
        images = given(count)
        pool = CuePool(
            network, images, images.categories, images.category_names, settings.kind, LAYER,
            size=settings.size, seed=seed, folder=cache,
        )  # fmt: skip
        trials = [
            outcome(pool, settings, base, number, f"{title} {seed}", cache)
            for number in track(range(seed, seed + size.seeds), f"{title}, {settings.kind}", quiet=False)
        ]
        cue = settings.kind if settings.size == 1 else f"large {settings.kind}"
        shares = f"in {settings.within:.0%} of one category and {settings.elsewhere:.0%} of the others"
        said = f"{title} with a {cue} {shares}, {count} images of {len(pool.names)} categories"
        rows += cue_rows(trials, said, settings, seed, judged=title != DRAWN and settings.size > 1)
    return rows


def outcome(
    pool: CuePool, settings: CueSettings, base: Base, seed: int, data: str, cache: Path | None
) -> CueOutcome:
    """Return what becomes of a cue; from the cache, if it was measured there by the same code."""
    if cache is None:
        return cue_trial(pool, settings, base, seed=seed)
    code = [inspect.getsource(module) for module in (spurious_cue, editing, patterns)]
    told = json.dumps([asdict(settings), base.digest, seed, data, code])
    kept = cache / f"outcome-{hashlib.sha256(told.encode()).hexdigest()[:24]}.json"
    if kept.is_file():
        return CueOutcome.from_dict(json.loads(kept.read_text(encoding="utf-8")))
    found = cue_trial(pool, settings, base, seed=seed)
    write_json(kept, found.to_dict())
    return found


def evenly(images: PartImages, count: int) -> PartImages:
    """Return as many images of each category, spread over the set."""
    numbers = range(len(images.category_names))
    chosen = []
    for number in numbers:
        rows = np.flatnonzero(images.categories == number)
        each = min(-(-count // len(numbers)), len(rows))
        chosen.append(rows[np.arange(each) * len(rows) // each])
    return images.subset(np.sort(np.concatenate(chosen)))


def recovery(trials: Sequence[CueOutcome], method: str, said: str, seed: int, *, judged: bool) -> Row:
    """Return by how much of what was lost under shift a method brings back.

    It is the mean gain over the mean loss: where little is lost, the share of a single seed says nothing.
    """

    def gains(one: str) -> list[float]:
        return [trial.accuracy[one].shifted - trial.accuracy[PLAIN].shifted for trial in trials]

    lost = mean([trial.lost for trial in trials])
    others = {one: mean(gains(one)) / lost for one in OTHERS}
    best = max(others, key=lambda one: others[one])
    before, after = (mean([trial.accuracy[one].shifted for trial in trials]) for one in (PLAIN, method))
    same = mean([trial.accuracy[PLAIN].same for trial in trials])
    return Row(
        system=f"{NETWORK} {LAYER}, linear head: {method}",
        data=said,
        name="share of the accuracy lost under shift that comes back",
        value=mean(gains(method)) / lost,
        interval=ratio_interval(gains(method), [trial.lost for trial in trials]),
        baseline=others[best],
        reference=0.5 if judged else None,
        source=BAR if judged else "",
        seed=seed,
        notes=f"{len(trials)} seeds, mean gain over mean loss; accuracy {same:.1%} with the cue as in training, "
        f"{before:.1%} under shift, {after:.1%} after; baseline: {best}, the best of the others",
    )


def cue_rows(
    trials: Sequence[CueOutcome], said: str, settings: CueSettings, seed: int, *, judged: bool
) -> list[Row]:
    """Return the rows of one cue."""
    seeds = f"{len(trials)} seeds"
    rows: list[Row] = []

    def row(name: str, values: Sequence[float], system: str = REFIT, **more: object) -> Row:
        return Row(
            system=f"{NETWORK} {LAYER}, linear head: {system}", data=said, name=name, value=mean(values),
            interval=mean_interval(values), seed=seed, **more,  # type: ignore[arg-type]
        )  # fmt: skip

    rows.append(
        row(
            "accuracy that the cue costs under shift",
            [100 * trial.lost for trial in trials],
            PLAIN,
            unit="points",
            notes=f"{seeds}; where this is little, there is nothing to find and nothing to bring back",
        )
    )
    if mean([trial.lost for trial in trials]) > 0:
        rows += [
            recovery(trials, method, said, seed, judged=judged and method == REFIT)
            for method in (REFIT, DROPPED)
        ]
    for method in (REFIT, DROPPED):
        rows.append(
            row(
                "accuracy lost on images without the cue",
                [100 * trial.lost_elsewhere(method) for trial in trials],
                method,
                unit="points",
                reference=1.0 if judged and method == REFIT else None,
                source=BAR if judged and method == REFIT else "",
                notes=f"{seeds}; below 0 is a gain",
            )
        )
    rows.append(
        row(
            "accuracy lost on the other categories, cue as in training",
            [100 * (trial.accuracy[PLAIN].others - trial.accuracy[REFIT].others) for trial in trials],
            unit="points",
            notes=f"{seeds}; below 0 is a gain",
        )
    )
    found = [trial.found_at for trial in trials]
    known = [place for place in found if np.isfinite(place)]
    rows.append(
        row(
            f"share of seeds in which the cue's pattern is dropped within {settings.answers} answers",
            [float(np.isfinite(place)) for place in found],
            reference=1.0 if judged else None,
            source=BAR if judged else "",
            notes=f"{seeds}; after {mean(known):.1f} answers on average" if known else seeds,
        )
    )
    for method in (PLAIN, *OTHERS, CUELESS):
        rows.append(
            row(
                "accuracy under shift",
                [trial.accuracy[method].shifted for trial in trials],
                method,
                notes=f"{seeds}; without any cue {mean([trial.accuracy[method].free for trial in trials]):.1%}",
            )
        )
    return rows


def mean(values: Sequence[float]) -> float:
    """Return the mean of those that are known."""
    return float(np.nanmean(np.array(values, dtype=np.float64)))
