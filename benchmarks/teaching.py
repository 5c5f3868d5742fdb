"""Parts taught by answers: images chosen to be asked about against random ones, and an annotator who errs."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from cnn_interp.disentangling import part_baselines, part_cells, part_graph
from cnn_interp.disentangling.features import TrunkFeatures
from cnn_interp.disentangling.part_baselines import METHODS, Task, interval
from cnn_interp.images.animal_part import read_animal_part
from cnn_interp.images.articulated import articulated_images
from cnn_interp.images.batches import landmarks_in_inputs
from cnn_interp.images.part_images import PartImages
from cnn_interp.middle_to_end import annotators, dialogue, selection, simulation
from cnn_interp.middle_to_end.annotators import ErringAnnotator, TrueAnnotator, Truth
from cnn_interp.middle_to_end.dialogue import Dialogue
from cnn_interp.middle_to_end.selection import ACTIVE, SELECTIONS
from cnn_interp.middle_to_end.simulation import answers_to_reach, falling, taught
from cnn_interp.networks.loading import load_network
from cnn_interp.networks.network import Network
from interpretkit.bench.evidence import Row, ratio_interval
from interpretkit.runs.files import write_json
from interpretkit.runs.progress import track
from interpretkit.training.seeds import numpy_generator

NETWORK, DEEP = "mobilenet_v2", "features.18"
KIND = "animal-part"
# How images are chosen was chosen on the other animals.
CATEGORIES = ("horse", "tiger")
PARTS = ("head", "front legs")
DRAWN = "articulated objects"
# Of all images that may be asked about, so many show the part.
SHARES = (1.0, 0.33)
ERRING = "active, 10 % errors"
RATE = 0.1
BASELINES = ("ridge regression", "nearest neighbour", "fine-tuned head")
HALF, WORSE = 0.5, 1.3
BAR = "the bar set for this benchmark"
PUBLISHED = "published: fast R-CNN matched with 1/6 to 1/3 of its annotations (CVPR 2017)"


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes
    ----------
    answers : int
        How many are given.
    seeds : int
        How often images are drawn anew.
    shown : int
        Images that may be asked about and show the part, at most.
    test : int
        Images that the error is measured on, at most.
    shares : tuple of float
        See ``SHARES``.
    orders : tuple of str
        Of the table of selections, and ``ERRING``; for the least share. For others the first two alone.
    baselines : tuple of int
        After how many full annotations other methods are measured.
    """

    answers: int
    seeds: int
    shown: int
    test: int
    shares: tuple[float, ...]
    orders: tuple[str, ...]
    baselines: tuple[int, ...]

    def of(self, share: float) -> tuple[str, ...]:
        """Return the orders that are measured where so many images show the part."""
        return self.orders if share == min(self.shares) else self.orders[:2]


QUICK = Size(6, 2, 30, 15, (0.33,), (ACTIVE, "random", ERRING), (3, 6))
FULL = Size(12, 5, 48, 40, SHARES, (ACTIVE, "random", ERRING, "unsure"), (3, 6, 12, 24, 48))


@dataclass(frozen=True, eq=False)
class Subject:
    """One part of one kind of object.

    Attributes
    ----------
    data, name, part : str
        Of which set, kind and part.
    features : (TrunkFeatures, TrunkFeatures)
        Of all images and their mirror images.
    layers : tuple of str
        Whose cells are looked at.
    positions : ndarray of float, (n, 2)
        Row and column of the part, px; NaN where it is not annotated.
    absent : ndarray of bool, (n,)
        Images that are known not to show the part.
    groups : ndarray of int, (n,)
        Relatives.
    """

    data: str
    name: str
    part: str
    features: tuple[TrunkFeatures, TrunkFeatures]
    layers: tuple[str, ...]
    positions: NDArray[np.float64]
    absent: NDArray[np.bool_]
    groups: NDArray[np.intp]


@dataclass(frozen=True)
class Curve:
    """Errors of one dialogue.

    Attributes
    ----------
    data, name, part : str
        Of which set, kind and part.
    share : float
        Share of images that show the part.
    order : str
        How they were chosen, or who answered.
    seed : int
        Which draw.
    errors : list of float
        After each answer; of the other methods, after each number of annotations.
    shown : list of int
        How many of the images asked about showed the part.
    """

    data: str
    name: str
    part: str
    share: float
    order: str
    seed: int
    errors: list[float]
    shown: list[int]


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
        Drawn objects of one kind, six answers, two draws.
    data : mapping of str to path, optional
        ``animal-part``, its folder: measured there as well.
    seed : int
        Of drawn objects and of all draws.
    device : str
        Where the network runs.
    cache : path, optional
        A folder in which features and curves are kept, and from which one goes on.
    """
    size = QUICK if quick else FULL
    network = load_network(NETWORK, device=device, seed=seed)
    curves: list[Curve] = []
    every = list(subjects(network, size, data or {}, seed, cache))
    # Draw by draw, so that what is done is of use if it ends early.
    for draw in range(size.seeds):
        plans = [(subject, share) for subject in every for share in size.shares]
        for subject, share in track(plans, f"Draw {draw + 1} of {size.seeds}", quiet=False):
            curves += drawn_curves(subject, size, share, seed + draw, cache)
    return rows_of(curves, size, seed)


def subjects(
    network: Network, size: Size, data: Mapping[str, Path], seed: int, cache: Path | None
) -> Iterator[Subject]:
    """Give what is taught, one by one."""
    layers = part_cells.part_layers(network)

    def of(title: str, name: str, images: PartImages, absent: NDArray[np.bool_]) -> Iterator[Subject]:
        features = part_cells.mirrored_features(network, images, [*layers, DEEP], cache)
        landmarks = landmarks_in_inputs(images, network.size)
        groups = np.arange(len(images)) if images.groups is None else images.groups
        for part in PARTS if title == KIND else PARTS[:1]:
            where = landmarks[:, images.part_names.index(part)]
            yield Subject(title, name, part, features, tuple(layers), where, absent, groups)

    count = round((size.shown + size.test) * 1.35 + size.shown / min(size.shares))
    share = 1 - 1.35 * (size.shown + size.test) / count
    drawn = articulated_images(
        count, seed=seed, side=network.size, negatives=share, occlusion=0.0, categories=("quadruped",)
    ).cropped()
    yield from of(DRAWN, "quadruped", drawn, drawn.categories < 0)
    if KIND in data:
        found = read_animal_part(data[KIND])
        negatives = np.flatnonzero(found.categories < 0)
        for place, name in enumerate(CATEGORIES):
            told = np.flatnonzero(
                (found.categories == found.category_names.index(name)) & found.annotated.any(axis=1)
            )
            # Two animals never share an image without them.
            some = negatives[place :: len(CATEGORIES)][: round(size.shown * (1 / min(size.shares) - 1))]
            rows = np.concatenate([told, some])
            yield from of(KIND, name, found.subset(rows), np.arange(len(rows)) >= len(told))


@dataclass(frozen=True, eq=False)
class Draw:
    """Images drawn from those of a subject: first those that may be asked about, then those that are tested on.

    Attributes
    ----------
    features : (TrunkFeatures, TrunkFeatures)
        Of the images and their mirror images.
    cells : PartCells
        Of the images.
    positions : ndarray of float, (n, 2)
        Of the part, px.
    asked : int
        How many may be asked about.
    shown : ndarray of int
        Those of them that show the part, in the order in which other methods get them.
    """

    features: tuple[TrunkFeatures, TrunkFeatures]
    cells: part_cells.PartCells
    positions: NDArray[np.float64]
    asked: int
    shown: NDArray[np.intp]

    @property
    def rows(self) -> NDArray[np.intp]:
        """Those that are tested on."""
        return np.arange(self.asked, len(self.positions))


def drawn(subject: Subject, size: Size, share: float, seed: int) -> Draw:
    """Return a draw in which a share of the images that may be asked about show the part."""
    rng = numpy_generator(seed, subject.name, subject.part, "draw")
    shown = rng.permutation(np.flatnonzero(~np.isnan(subject.positions[:, 0])))
    asked, test = divided(shown, subject.groups, size)
    others = rng.permutation(np.flatnonzero(subject.absent))[: round(len(asked) * (1 / share - 1))]
    candidates = np.sort(np.concatenate([asked, others]))
    chosen = np.concatenate([candidates, test])
    features = (subject.features[0].subset(chosen), subject.features[1].subset(chosen))
    # Nothing is learned from the images that are tested on, not even what is common.
    cells = part_cells.part_cells(features, subject.layers, learn_rows=np.arange(len(candidates)))
    positions = subject.positions[chosen]
    order = rng.permutation(np.flatnonzero(~np.isnan(positions[: len(candidates), 0])))
    return Draw(features, cells, positions, len(candidates), order)


def drawn_curves(subject: Subject, size: Size, share: float, seed: int, cache: Path | None) -> list[Curve]:
    """Return the curves of all orders, and of other methods, for one draw of images.

    What is kept of either is told by the code that it comes of, so that a change to dialogues leaves other methods.
    """
    plans: list[
        tuple[str, Sequence[ModuleType], Callable[[Draw, Size], Iterator[tuple[str, list[float], list[int]]]]]
    ]
    told = (part_graph, part_cells, dialogue, selection, annotators, simulation)
    plans = [("orders", told, partial(order_errors, part=subject.part, share=share, seed=seed))]
    if share == size.shares[0]:
        plans.append(
            (
                "others",
                (part_cells, part_baselines),
                partial(baseline_errors, layers=subject.layers, seed=seed),
            )
        )
    found: list[Curve] = []
    draw: Draw | None = None
    for what, modules, errors_of in plans:
        kept = None if cache is None else cache / f"{what}-{stamp(subject, size, share, seed, modules)}.json"
        if kept is not None and kept.is_file():
            found += [Curve(**entry) for entry in json.loads(kept.read_text(encoding="utf-8"))]
            continue
        draw = drawn(subject, size, share, seed) if draw is None else draw
        curves = [
            Curve(subject.data, subject.name, subject.part, share, order, seed, errors, counts)
            for order, errors, counts in errors_of(draw, size)
        ]
        if kept is not None:
            write_json(kept, [asdict(curve) for curve in curves])
        found += curves
    return found


def stamp(subject: Subject, size: Size, share: float, seed: int, modules: Sequence[ModuleType]) -> str:
    """Return what tells curves from all others: data, sizes, and the code that they come of."""
    code = [inspect.getsource(module) for module in modules]
    told = [
        subject.features[0].key,
        subject.name,
        subject.part,
        asdict(replace(size, seeds=1)),
        share,
        seed,
        code,
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]


def order_errors(
    draw: Draw, size: Size, *, part: str, share: float, seed: int
) -> Iterator[tuple[str, list[float], list[int]]]:
    """Give each order, its errors after each answer, and how many images that were asked about showed the part."""
    places = np.arange(draw.asked)
    whole = np.stack([one[DEEP].tensor().mean(dim=(2, 3)).numpy() for one in draw.features], axis=1)
    truth = Truth(draw.positions)
    for order in size.of(share):
        select = SELECTIONS[ACTIVE if order == ERRING else order](draw.asked, seed)
        talk = Dialogue(draw.cells, whole, part=part, selection=select, candidates=places, seed=seed)
        annotator = TrueAnnotator(talk, truth)
        answers = ErringAnnotator(annotator, talk, RATE, seed) if order == ERRING else annotator
        steps = taught(talk, answers, size.answers, draw.rows, draw.positions)
        yield order, [step.error for step in steps], [step.shown for step in steps]


def baseline_errors(
    draw: Draw, size: Size, *, layers: Sequence[str], seed: int
) -> Iterator[tuple[str, list[float], list[int]]]:
    """Give each other method, and its errors after each number of full annotations."""
    task = Task(draw.features, draw.cells, DEEP, tuple(layers), draw.positions, np.arange(draw.asked))
    counts = [count for count in size.baselines if count <= len(draw.shown)]
    diagonal = float(np.hypot(*draw.cells.image))
    for method in BASELINES:
        errors = []
        for count in counts:
            where = METHODS[method](task, np.sort(draw.shown[:count]), draw.rows, seed)
            away = np.linalg.norm(where - draw.positions[draw.rows], axis=1)
            errors.append(float(away.mean()) / diagonal)
        yield method, errors, counts


def divided(
    shown: NDArray[np.intp], groups: NDArray[np.intp], size: Size
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return which images may be asked about and which are tested on; relatives stay together."""
    order = list(dict.fromkeys(groups[shown].tolist()))
    test: list[int] = []
    goal = min(size.test, len(shown) * size.test // (size.test + size.shown))
    for group in order:
        if len(test) >= goal:
            break
        test += shown[groups[shown] == group].tolist()
    asked = shown[~np.isin(shown, test)][: size.shown]
    return asked, np.array(test[: size.test], dtype=np.intp)


def rows_of(curves: Sequence[Curve], size: Size, seed: int) -> list[Row]:
    """Return the rows of all curves: for each set of images and share, and for each part of it."""
    rows: list[Row] = []
    for data in dict.fromkeys(curve.data for curve in curves):
        own = [curve for curve in curves if curve.data == data]
        kinds = " and ".join(dict.fromkeys(curve.name for curve in own))
        parts = list(dict.fromkeys(curve.part for curve in own))
        for share in dict.fromkeys(curve.share for curve in own):
            some = [curve for curve in own if curve.share == share]
            said = f"{data}, {kinds}, {' and '.join(parts)}"
            rows += share_rows(said, share, some, size, seed)
        rows += baseline_rows(f"{data}, {kinds}, {' and '.join(parts)}", own, size, seed)
    return rows


def by_seed(curves: Sequence[Curve], order: str) -> NDArray[np.float64]:
    """Return the errors of an order, means over parts and kinds, ``(seeds, answers)``."""
    some = [curve for curve in curves if curve.order == order]
    seeds = sorted({curve.seed for curve in some})
    return np.array([np.mean([curve.errors for curve in some if curve.seed == one], axis=0) for one in seeds])


def needed(curves: Sequence[Curve], order: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return after how many answers an order and random order have the error that the latter ends with, ``(seeds,)``.

    An order that does not get there counts with one answer more than were given.
    """
    own, chance = (by_seed(curves, name) for name in (order, "random"))
    goals = [float(falling(curve)[-1]) for curve in chance]
    own, chance = (
        np.array([answers_to_reach(curve, goal) for curve, goal in zip(some, goals, strict=True)])
        for some in (own, chance)
    )
    return np.minimum(own, len(curves[0].errors) + 1), chance


def share_rows(said: str, share: float, curves: Sequence[Curve], size: Size, seed: int) -> list[Row]:
    """Return the rows of one set in which a share of the images shows the part."""
    of = "every image shows the part" if share == 1 else f"{share:.0%} of the images show the part"
    data, draws = f"{said}; {of}", f"mean of {size.seeds} draws"
    rows: list[Row] = []
    for order in size.of(share):
        errors = by_seed(curves, order)
        rows += [
            Row(
                system=f"{NETWORK}: {order}", data=data, name=f"error after {count} answers",
                value=float(errors[:, count - 1].mean()), interval=interval(errors[:, count - 1]),
                baseline=float(by_seed(curves, "random")[:, count - 1].mean()), seed=seed,
                notes=f"mean distance over the diagonal of the object's box, {draws}; baseline: random order",
            )
            for count in sorted({size.answers // 3, size.answers})
        ]  # fmt: skip
        if order == ERRING:
            final = falling_end(errors), falling_end(by_seed(curves, ACTIVE))
            rows.append(
                Row(
                    system=f"{NETWORK}: {order}", data=data, name="error over that without errors",
                    value=float(final[0].mean() / final[1].mean()), interval=ratio_interval(*final),
                    baseline=1.0, reference=WORSE, source=BAR, seed=seed,
                    notes=f"after {size.answers} answers, {draws}; a wrong answer hides the part, puts it anywhere or "
                    "agrees with a wrong box",
                )
            )  # fmt: skip
        elif order != "random":
            own, chance = needed(curves, order)
            rows.append(
                Row(
                    system=f"{NETWORK}: {order}", data=data, name="answers for the same error, over random order",
                    value=float(own.mean() / chance.mean()), interval=ratio_interval(own, chance), baseline=1.0,
                    reference=HALF if order == ACTIVE else None, source=BAR if order == ACTIVE else "", seed=seed,
                    notes=f"{own.mean():.1f} answers against {chance.mean():.1f}; the error is the one that random "
                    f"order ends with after {size.answers}, {draws}",
                )
            )  # fmt: skip
    return rows


def falling_end(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the errors that curves ``(seeds, answers)`` end with, without what rises by chance, ``(seeds,)``."""
    return np.array([falling(curve)[-1] for curve in errors])


def baseline_rows(said: str, curves: Sequence[Curve], size: Size, seed: int) -> list[Row]:
    """Return how many full annotations other methods need for what the dialogue reaches."""
    full = [curve for curve in curves if curve.share == size.shares[0]]
    own = by_seed(full, ACTIVE)
    rows: list[Row] = []
    for method in BASELINES:
        errors = by_seed(full, method)
        counts = size.baselines[: errors.shape[1]]
        last = counts[-1]
        reached = np.array(
            [answers_to_reach(mine, end) for mine, end in zip(own, falling_end(errors), strict=True)]
        )
        within = np.minimum(reached, size.answers + 1)
        rows += [
            Row(
                system=f"{NETWORK}: {method}", data=said, name=f"error after {last} full annotations",
                value=float(errors[:, -1].mean()), interval=interval(errors[:, -1]),
                baseline=float(own[:, -1].mean()), seed=seed,
                notes=f"baseline: the dialogue after {size.answers} answers",
            ),
            Row(
                system=f"{NETWORK}: {ACTIVE}", data=said, name=f"annotations for the error of {method}, over its own",
                value=float(within.mean() / last), interval=interval(within / last), baseline=1.0, seed=seed,
                stand_in=True, reference=1 / 3, source="CVPR 2017, fast R-CNN",
                notes=f"{within.mean():.1f} answers against {last} full annotations; {PUBLISHED}; other data, network "
                "and supervised method",
            ),
        ]  # fmt: skip
    return rows
