"""A cue planted in training images, found and taken out by a few answers; beside what else could be done with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnn_interp.disentangling.concepts import Method
from cnn_interp.disentangling.explanatory_graph import Patch
from cnn_interp.disentangling.features import LayerMaps, TrunkFeatures, trunk_features
from cnn_interp.images.batches import network_inputs
from cnn_interp.images.part_images import PartImages
from cnn_interp.images.planted_cue import CuedImages, CueKind, cue_goes_with, plant_cue
from cnn_interp.images.sets import Images, Picture
from cnn_interp.middle_to_end.editing import Above, Candidate, EditingSession, refitted, trained_head
from cnn_interp.middle_to_end.network_edit import Base, NetworkEdit
from cnn_interp.middle_to_end.patterns import Kind, find_patterns
from cnn_interp.networks.network import Network
from interpretkit.errors import InputError
from interpretkit.runs.progress import track
from interpretkit.training.seeds import numpy_generator

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Verdict = Literal["keep", "drop"]
# A patch shows the object where so much of its middle does.
_SHARE = 0.25
# What was done to the network.
PLAIN, DROPPED, REFIT = "as trained", "patterns dropped", "dropped and head refit"
RANDOM, HEAVIEST = "random patterns dropped", "patterns of the largest weight dropped"
ONLY_REFIT, COVERED = "head refit alone", "head refit on images with those patches covered"
CUELESS = "trained without the cue"
METHODS = (PLAIN, DROPPED, REFIT, RANDOM, HEAVIEST, ONLY_REFIT, COVERED, CUELESS)
_DRAWS = 5


@dataclass(frozen=True)
class CueSettings:
    """How a cue is planted and looked for.

    Attributes
    ----------
    kind : str
        What the cue is; see :func:`~cnn_interp.images.planted_cue.plant_cue`.
    size : float
        How wide it is, over its usual width.
    within, elsewhere : float
        Which share of the images of one category has it, and of the others; the other way round under shift.
    train, user, test : int
        How many images the head is trained on, the person has at hand, and accuracy is measured on.
    patterns : str
        Which kind of patterns.
    count : int, optional
        How many concepts, or nodes of each filter; see :func:`~cnn_interp.middle_to_end.patterns.find_patterns`.
    method : str
        How concepts are found.
    answers : int
        How many the person gives.
    patches : int
        How many of a pattern the person sees.
    errs : float
        In which share of the answers the person says the contrary.
    """

    kind: CueKind = "mark"
    size: float = 1.0
    within: float = 0.9
    elsewhere: float = 0.1
    train: int = 240
    user: int = 160
    test: int = 200
    patterns: Kind = "concepts"
    count: int | None = None
    method: Method = "nmf"
    answers: int = 10
    patches: int = 8
    errs: float = 0.0


class CuePool:
    """Images with and without a cue, and a layer's maps of them, each computed when it is asked for first.

    Parameters
    ----------
    network : Network
        Stays as it is.
    images : Images
        Any; with masks of parts, if a texture shall be the cue.
    labels : array_like of int, (n,)
        Their categories, from 0.
    names : sequence of str
        What these are called.
    kind : str
        Of the cue.
    layer : str
        The layer.
    size : float
        How wide the cue is, over its usual width.
    seed : int
        Of the cue's look and places.
    folder : path, optional
        Where maps are kept.
    """

    def __init__(
        self,
        network: Network,
        images: Images,
        labels: ArrayLike,
        names: Sequence[str],
        kind: CueKind,
        layer: str,
        *,
        size: float = 1.0,
        seed: int = 0,
        folder: Path | None = None,
        quiet: bool = True,
    ) -> None:
        self.network, self.layer, self.folder, self.quiet = network, layer, folder, quiet
        self.labels = np.asarray(labels, dtype=np.intp)
        self.names = tuple(names)
        self._given, self._seed = _held(images), seed
        self._kind: CueKind = kind
        self._size = size
        self._maps: list[LayerMaps | None] = [None, None]
        self._known = np.zeros((2, len(images)), dtype=bool)

    def images(self, rows: ArrayLike, has_cue: ArrayLike) -> CuedImages:
        """Return some of the images, with the cue in those that shall have it."""
        chosen = np.asarray(rows)
        some = self._given.subset(chosen)
        return plant_cue(
            some, self.labels[chosen], has_cue, kind=self._kind, category_names=self.names, size=self._size,
            seed=self._seed,
        )  # fmt: skip

    def maps(self, rows: ArrayLike, has_cue: ArrayLike) -> LayerMaps:
        """Return the layer's maps of those images."""
        chosen, cued = np.asarray(rows), np.asarray(has_cue, dtype=bool)
        for shown in (False, True):
            missing = np.unique(chosen[cued == shown])
            missing = missing[~self._known[int(shown), missing]]
            if len(missing):
                some = self.images(missing, np.full(len(missing), shown))
                found = trunk_features(
                    self.network, some, [self.layer], self.folder, precision="float16", quiet=self.quiet
                )[self.layer]
                held = self._maps[int(shown)]
                if held is None:
                    empty = np.empty((len(self._given), *found.maps.shape[1:]), dtype=np.float16)
                    held = self._maps[int(shown)] = replace(found, maps=empty)
                held.maps[missing] = found.maps
                self._known[int(shown), missing] = True
        held = next(maps for maps in self._maps if maps is not None)
        values = np.empty((len(chosen), *held.maps.shape[1:]), dtype=np.float16)
        for shown, maps in enumerate(self._maps):
            own = cued == bool(shown)
            if own.any():
                assert maps is not None
                values[own] = maps.maps[chosen[own]]
        return replace(held, maps=values)


@dataclass(frozen=True)
class SimulatedPerson:
    """Says of patterns whether they are part of the object, and knows nothing else.

    Most of the patches that they see must show the object: at least a quarter of the middle half of a patch, along each
    side, while what was put into the image is not what the patch shows: less than half of it lies within, and it
    fills less than half of the patch.

    Attributes
    ----------
    images : CuedImages
        That the patches are of, with masks.
    frame : (int, int)
        Height and width of the frame in which patches lie, px.
    errs : float
        In which share of the answers the contrary is said.
    seed : int
        Of those answers.
    """

    images: CuedImages
    frame: tuple[int, int]
    errs: float = 0.0
    seed: int = 0

    def judge(self, patches: Sequence[Patch]) -> Verdict:
        """Say whether a pattern is part of the object by the patches in which it is strongest."""
        shown = [
            self._share(patch, self.images.object_mask(patch.image), middle=True) >= _SHARE
            and not self._filled(patch)
            for patch in patches
        ]
        part = sum(shown) * 2 >= len(shown) and bool(shown)
        if self.errs:
            number = patches[0].node if patches else 0
            part ^= bool(numpy_generator(self.seed, "errs", number).random() < self.errs)
        return "keep" if part else "drop"

    def shows_cue(self, patches: Sequence[Patch]) -> bool:
        """Tell whether half of the patches of a pattern show the cue, or more."""
        return bool(patches) and sum(self._filled(patch) for patch in patches) * 2 >= len(patches)

    def _filled(self, patch: Patch) -> bool:
        mask = self.images.cue_mask(patch.image)
        inside = mask[self._slices(patch.box, mask.shape)]
        return bool(inside.any()) and bool(2 * inside.sum() >= mask.sum() or 2 * inside.sum() >= inside.size)

    def _share(self, patch: Patch, mask: NDArray[np.bool_], *, middle: bool = False) -> float:
        """Return which share of a patch, or of its middle, a mask covers."""
        top, left, bottom, right = patch.box
        if middle:
            (row, column), height, width = patch.position, bottom - top, right - left
            top, bottom = max(top, row + 0.5 - height / 4), min(bottom, row + 0.5 + height / 4)
            left, right = max(left, column + 0.5 - width / 4), min(right, column + 0.5 + width / 4)
        inside = mask[self._slices((top, left, bottom, right), mask.shape)]
        return float(inside.mean()) if inside.size else 0.0

    def _slices(self, box: tuple[float, float, float, float], shape: tuple[int, ...]) -> tuple[slice, slice]:
        """Return the rows and columns of a box of the frame in an image, one of each at least."""
        down, across = shape[0] / self.frame[0], shape[1] / self.frame[1]
        row, column = round(box[0] * down), round(box[1] * across)
        return (
            slice(row, max(round(box[2] * down), row + 1)),
            slice(column, max(round(box[3] * across), column + 1)),
        )


@dataclass(frozen=True)
class Asked:
    """A question and its answer.

    Attributes
    ----------
    number : int
        The pattern's.
    suspicion : float
        Why it was asked about.
    verdict : str
        What was said.
    cue : bool
        Whether it was the cue's pattern, as far as masks tell.
    """

    number: int
    suspicion: float
    verdict: Verdict
    cue: bool


def ask(session: EditingSession, person: SimulatedPerson, answers: int = 10, patches: int = 8) -> list[Asked]:
    """Ask a person about the most suspicious patterns, one after the other; the session's edit grows by the answers."""
    asked: list[Asked] = []
    while len(asked) < answers:
        judged = session.edit.standing.judged
        open_ones = [one for one in session.candidates() if one.number not in judged]
        if not open_ones:
            break
        number, shown = open_ones[0].number, session.patches(open_ones[0].number, patches)
        verdict = person.judge(shown)
        session.edit = session.edit.said(f"{verdict} {number}")
        asked.append(Asked(number, open_ones[0].suspicion, verdict, person.shows_cue(shown)))
    return asked


@dataclass(frozen=True)
class Accuracy:
    """How often a network is right.

    Attributes
    ----------
    same : float
        On new images in which the cue goes with the category as it did.
    shifted : float
        On the same with the cue in the other images instead.
    free : float
        On the same without any cue.
    others : float
        On images of the other categories, the cue as it was.
    """

    same: float
    shifted: float
    free: float
    others: float


@dataclass(frozen=True, eq=False)
class CueOutcome:
    """What became of a planted cue.

    Attributes
    ----------
    category : int
        The category that it went with.
    asked : tuple of Asked
        The questions and answers.
    accuracy : mapping of str to Accuracy
        By what was done.
    """

    category: int
    asked: tuple[Asked, ...]
    accuracy: Mapping[str, Accuracy]

    @property
    def found_at(self) -> float:
        """After how many answers the cue's pattern was dropped first; infinite if never."""
        places = [place for place, one in enumerate(self.asked, 1) if one.cue and one.verdict == "drop"]
        return float(places[0]) if places else float("inf")

    @property
    def lost(self) -> float:
        """By how much the accuracy of the network as trained falls under shift."""
        return self.accuracy[PLAIN].same - self.accuracy[PLAIN].shifted

    def recovered(self, method: str) -> float:
        """Return which share of that a method brings back; NaN if nothing was lost."""
        gained = self.accuracy[method].shifted - self.accuracy[PLAIN].shifted
        return gained / self.lost if self.lost > 0 else float("nan")

    def lost_elsewhere(self, method: str) -> float:
        """Return by how much a method lowers the accuracy on images without any cue."""
        return self.accuracy[PLAIN].free - self.accuracy[method].free

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "category": self.category,
            "asked": [asdict(one) for one in self.asked],
            "accuracy": {name: asdict(one) for name, one in self.accuracy.items()},
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> CueOutcome:
        """Return the outcome that :meth:`to_dict` gave."""
        accuracy = {name: Accuracy(**one) for name, one in content["accuracy"].items()}
        return CueOutcome(content["category"], tuple(Asked(**one) for one in content["asked"]), accuracy)


@dataclass(frozen=True, eq=False)
class CueTrial(CueOutcome):
    """What became of a planted cue, with all that it came of.

    Attributes
    ----------
    session : EditingSession
        With the edit, its linear layer refit.
    first : tuple of Candidate
        All patterns, the most suspicious first, before anything was said.
    """

    session: EditingSession
    first: tuple[Candidate, ...]


def cue_trial(
    pool: CuePool,
    settings: CueSettings,
    base: Base,
    *,
    category: int | None = None,
    seed: int = 0,
    methods: Sequence[str] = METHODS,
    quiet: bool = True,
) -> CueTrial:
    """Train a head on images with a cue, let a person judge patterns, and measure what that is good for.

    Parameters
    ----------
    pool : CuePool
        The images.
    settings : CueSettings
        How.
    base : Base
        Of the network of `pool`; its head is replaced by the one trained here.
    category : int, optional
        The category that the cue goes with; one after the other by the seed if it is not given.
    seed : int
        Of the division of images, of which have the cue, and of all else.
    methods : sequence of str
        What to measure, of ``METHODS``.
    quiet : bool
        Whether to show no progress bar.

    Raises
    ------
    InputError
        If the pool has too few images.
    """
    wanted = settings.train + settings.user + settings.test
    if wanted > len(pool.labels):
        raise InputError(
            f"images: {len(pool.labels)}; expected at least {wanted} for training, person and test"
        )
    chosen = seed % len(pool.names) if category is None else category
    order = _in_turn(pool.labels, seed)
    train, user, test = np.split(order[:wanted], [settings.train, settings.train + settings.user])

    def cue(rows: Integers, name: str, within: float, elsewhere: float) -> NDArray[np.bool_]:
        drawn = numpy_generator(seed, "cue in", name).integers(2**31)
        return cue_goes_with(pool.labels[rows], chosen, within=within, elsewhere=elsewhere, seed=int(drawn))

    with_cue = {
        "train": cue(train, "train", settings.within, settings.elsewhere),
        "user": cue(user, "user", settings.within, settings.elsewhere),
        "same": cue(test, "same", settings.within, settings.elsewhere),
        "shifted": cue(test, "shifted", 1 - settings.within, 1 - settings.elsewhere),
    }
    network, layer, classes = pool.network, pool.layer, len(pool.names)
    some = pool.images(user, with_cue["user"])
    above = Above(network, layer, network_inputs(network, some, range(2)))
    features = above.features(pool.maps(train, with_cue["train"]))
    head = trained_head(above.last, features, pool.labels[train], classes)
    headed, own = base.with_head(network, head, pool.names)
    maps = pool.maps(user, with_cue["user"])
    found = find_patterns(
        _alone(maps, network),
        layer,
        settings.patterns,
        count=settings.count,
        method=settings.method,
        seed=seed,
        quiet=quiet,
    )
    session = EditingSession(headed, NetworkEdit(own, found), some, np.arange(classes), maps)
    weights = np.abs(session.pull().margins).mean(axis=0)
    person = SimulatedPerson(some, maps.grid.image, settings.errs, seed)
    first = tuple(session.candidates())
    asked = ask(session, person, settings.answers, settings.patches)
    tests = {
        "same": pool.maps(test, with_cue["same"]),
        "shifted": pool.maps(test, with_cue["shifted"]),
        "free": pool.maps(test, np.zeros(len(test), dtype=bool)),
    }

    def measured(edit: NetworkEdit) -> Accuracy:
        session.edit, before = edit, session.edit
        told = {
            name: session.outputs(some_maps).argmax(axis=1) == pool.labels[test]
            for name, some_maps in tests.items()
        }
        session.edit = before
        others = pool.labels[test] != chosen
        return Accuracy(
            same=float(told["same"].mean()),
            shifted=float(told["shifted"].mean()),
            free=float(told["free"].mean()),
            others=float(told["same"][others].mean()),
        )

    edit, labels, targets = session.edit, pool.labels[user], np.arange(classes)
    dropped = edit.dropped

    def dropping(numbers: Sequence[int]) -> NetworkEdit:
        fresh = replace(edit, answers=(), refit=None)
        return fresh.said(f"drop {' '.join(map(str, numbers))}") if len(numbers) else fresh

    def random() -> list[NetworkEdit]:
        draws = numpy_generator(seed, "random patterns")
        return [
            dropping(draws.choice(len(found), len(dropped), replace=False).tolist()) for _ in range(_DRAWS)
        ]

    def refit() -> NetworkEdit:
        session.refit()
        return session.edit

    def only_refit() -> NetworkEdit:
        plain = session.above.features(maps)
        return replace(dropping([]), refit=refitted(session.above.head(), plain, labels, targets))

    def covered() -> NetworkEdit:
        shown = [
            patch
            for one in asked
            if one.verdict == "drop"
            for patch in session.patches(one.number, settings.patches)
        ]
        if not shown:
            return only_refit()
        hidden = covered_images(some, shown, maps.grid.image)
        more = trunk_features(network, hidden, [layer], quiet=True)[layer]
        both = np.concatenate([session.above.features(maps), session.above.features(more)])
        every = np.concatenate([labels, labels[[patch.image for patch in shown]]])
        return replace(dropping([]), refit=refitted(session.above.head(), both, every, targets))

    def cueless() -> NetworkEdit:
        free = session.above.features(pool.maps(train, np.zeros(len(train), dtype=bool)))
        clean = trained_head(above.last, free, pool.labels[train], classes)
        return replace(dropping([]), refit=clean)

    makers: Mapping[str, Callable[[], NetworkEdit | list[NetworkEdit]]] = {
        PLAIN: lambda: dropping([]),
        DROPPED: lambda: replace(edit, refit=None),
        REFIT: refit,
        RANDOM: random,
        HEAVIEST: lambda: dropping(np.argsort(-weights, kind="stable")[: len(dropped)].tolist()),
        ONLY_REFIT: only_refit,
        COVERED: covered,
        CUELESS: cueless,
    }
    accuracy: dict[str, Accuracy] = {}
    for name in track([one for one in METHODS if one in methods], "Measuring accuracy", quiet=quiet):
        made = makers[name]()
        each = [measured(one) for one in (made if isinstance(made, list) else [made])]
        accuracy[name] = Accuracy(
            same=float(np.mean([one.same for one in each])),
            shifted=float(np.mean([one.shifted for one in each])),
            free=float(np.mean([one.free for one in each])),
            others=float(np.mean([one.others for one in each])),
        )
    return CueTrial(chosen, tuple(asked), accuracy, session, first)


def _held(images: Images) -> Images:
    """Return images that are kept once they were loaded, for each is asked for several times."""
    kept = replace(images, load=lru_cache(maxsize=None)(images.load))
    if isinstance(kept, PartImages) and kept.load_masks is not None:
        kept = replace(kept, load_masks=lru_cache(maxsize=None)(kept.load_masks))
    return kept


def _alone(maps: LayerMaps, network: Network) -> TrunkFeatures:
    return TrunkFeatures({maps.layer: maps}, (network.size, network.size), "")


def _in_turn(labels: NDArray[np.intp], seed: int) -> Integers:
    """Return the images' numbers in a random order in which categories take turns, as far as they last."""
    rng = numpy_generator(seed, "division")
    rank = np.empty(len(labels))
    for number in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == number))
        rank[rows] = np.arange(len(rows)) + rng.uniform(0, 0.5)
    return np.argsort(rank, kind="stable")


def covered_images(images: CuedImages, patches: Sequence[Patch], frame: tuple[int, int]) -> Images:
    """Return for each patch its image with the patch painted over in the image's mean colour."""

    def load(number: int) -> Picture:
        patch = patches[number]
        picture = np.array(images.image(patch.image))
        down, across = picture.shape[0] / frame[0], picture.shape[1] / frame[1]
        top, left, bottom, right = patch.box
        rows = slice(round(top * down), round(bottom * down))
        columns = slice(round(left * across), round(right * across))
        picture[rows, columns] = picture.mean(axis=(0, 1)).round().astype(np.uint8)
        return picture

    return Images(
        name=f"{images.name}, patches covered",
        ids=tuple(f"{images.ids[patch.image]}, {place}" for place, patch in enumerate(patches)),
        load=load,
    )
