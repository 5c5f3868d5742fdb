"""And-Or graph of a part of an object, grown from a few annotations on a network that stays as it is.

A part (OR) has templates, one for each way it looks; a template (AND) has latent patterns about it; a pattern (OR) is
at the best of a few cells of a feature map, where units of some layers, each with its weight, say how well it is seen.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cnn_interp.disentangling.part_cells import CellEncoder, LayerCode, PartCells, interpolation, mirrored
from cnn_interp.units.positions import UnitGrid
from interpretkit.errors import InputError
from interpretkit.networks.receptive_fields import ReceptiveField
from interpretkit.runs.files import atomic_path, dump_json

if TYPE_CHECKING:
    from networkx import DiGraph

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
FORMAT = 1
FILES = ("part.npz", "part.json", "part.graphml")
Verdict = Literal["right", "wrong box", "wrong template", "new template", "absent", "flipped"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
Facing = Literal["both", "either"]
# Images are parsed so many at a time: what stays in a CPU's cache is faster.
_IMAGES = 16
# Where a part is expected before anything is known: how far from the middle of the image, as a share of its sides, and
# how many annotations that is worth.
_SPREAD, _TRUST_SPREAD, _TRUST_MIDDLE = 0.27, 1.0, 0.5
# A part that nobody gave a size has this share of the image's sides.
_SIZE = 0.25
# Annotated images are turned so that they look alike, and the part is at like places: as far apart as this share of the
# image's sides weighs as much as looking half as alike.
_ALIGNED_WITHIN = 0.45
_TINY = 1e-12


@dataclass(frozen=True)
class PartSettings:
    """How a part graph is grown.

    Attributes
    ----------
    near : int
        Up to so many cells from the part, along each axis, there is a pattern on every cell.
    reach : int
        How far from the part patterns lie, along each axis, at most, in cells.
    step : int
        Beyond `near` they lie on every so many cells.
    decline : float
        How fast what patterns say counts less with their distance from the part: the standard deviation, in cells.
    deformation : int
        How far a pattern may be from its place along each axis, in cells.
    sharpness : float
        Weight of what is seen, against where a part is expected.
    expectation : float
        Weight of the latter: of the logarithm of a normal density about the annotated positions.
    rounds : int
        How often images without annotation are parsed, and learned from. 0 learns from annotated ones alone.
    share : float
        Share of the images without annotation to learn from, those parsed most surely, 0 to 1.
    worth : float
        How many parsed images an annotated one is worth.
    facing : str
        ``both``: a template looks the same both ways, and is learned from each image and its mirror image alike.
        ``either``: a template faces one way, and each image is found to face that way or the other.

    References
    ----------
    Zhang, Cao, Wu, Zhu: Growing interpretable part graphs on ConvNets via multi-shot learning, AAAI 2017. There a
    pattern is one unit, chosen by its response, its deformation and its relation to others, and all count alike; here
    it is a weighted sum of units, the weights being learned without further annotation.
    """

    near: int = 2
    reach: int = 4
    step: int = 2
    decline: float = 4.0
    deformation: int = 1
    sharpness: float = 1.0
    expectation: float = 1.0
    rounds: int = 2
    share: float = 0.5
    worth: float = 10.0
    facing: Facing = "both"

    def __post_init__(self) -> None:
        for name, least in (("near", 0), ("reach", 0), ("step", 1), ("deformation", 0), ("rounds", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} {getattr(self, name)}: expected at least {least}")
        for name in ("decline", "sharpness", "worth"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} {getattr(self, name)}: expected more than 0")
        if not self.expectation >= 0:
            raise InputError(f"expectation {self.expectation}: expected at least 0")
        if not 0 < self.share <= 1:
            raise InputError(f"share {self.share}: expected more than 0, and 1 at most")
        if self.facing not in get_args(Facing):
            raise InputError(f"facing {self.facing!r}: expected {' or '.join(get_args(Facing))}")

    def offsets(self) -> Integers:
        """Return where patterns are from the part, in rows and columns of cells, ``(patterns, 2)``."""
        reach = max(self.near, self.reach)
        along = np.arange(-reach, reach + 1)
        every = np.stack(np.meshgrid(along, along, indexing="ij"), axis=-1).reshape(-1, 2)
        close = np.abs(every).max(axis=1) <= self.near
        return every[close | (every % self.step == 0).all(axis=1)]


@dataclass(frozen=True)
class Annotation:
    """What somebody said of one image.

    Attributes
    ----------
    image : int
        Its number among the cells that the graph is grown on.
    position : (float, float), optional
        Row and column of the part's centre, px; None where the part is not to be seen.
    size : (float, float), optional
        Height and width of the part, px.
    template : int, optional
        Which template it is of; by default the one that it resembles most.
    flipped : bool, optional
        Whether it is seen the other way round than the template; by default what suits best. Of templates that look
        the same both ways there is nothing to say.
    """

    image: int
    position: tuple[float, float] | None
    size: tuple[float, float] | None = None
    template: int | None = None
    flipped: bool | None = None


@dataclass(frozen=True)
class Answer:
    """What somebody says to a parse of one image.

    Attributes
    ----------
    image : int
        Its number.
    verdict : str
        One of ``VERDICTS``: the parse is right; the template is right but the box is not; another template, which
        `template` names; a template that the graph does not have yet; the part is not to be seen; the template is
        right, but the other way round.
    position, size
        As in :class:`Annotation`; needed unless the parse is right or the part absent.
    template : int, optional
        For the verdict ``wrong template``.
    """

    image: int
    verdict: Verdict
    position: tuple[float, float] | None = None
    size: tuple[float, float] | None = None
    template: int | None = None

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise InputError(f"verdict {self.verdict!r}: expected one of {', '.join(VERDICTS)}")
        if self.position is None and self.verdict not in ("right", "absent"):
            raise InputError(f"verdict {self.verdict!r}: needs a position")
        if (self.template is None) == (self.verdict == "wrong template"):
            raise InputError(
                f"verdict {self.verdict!r}, template {self.template}: expected a template for "
                "'wrong template', and for no other"
            )


@dataclass(frozen=True, eq=False)
class PartTemplate:
    """One way in which a part looks.

    Attributes
    ----------
    offsets : ndarray of int, (patterns, 2)
        Where each pattern is from the part, in rows and columns of cells.
    weights : ndarray of float, (patterns, d)
        The direction of cells that each pattern looks for; the longer, the more it says.
    mean, deviation : ndarray of float, (2,)
        Row and column where the part is expected, px, in the orientation of the template, and how well.
    size : ndarray of float, (2,)
        Height and width of the part, px.
    annotated : tuple of (int, bool)
        The images that it was annotated in, and whether they are flipped.
    parsed : int
        From how many images without annotation it was learned.
    """

    offsets: Integers
    weights: Floats
    mean: Floats
    deviation: Floats
    size: Floats
    annotated: tuple[tuple[int, bool], ...]
    parsed: int

    @property
    def strengths(self) -> Floats:
        """How much each pattern says, ``(patterns,)``: shares of 1."""
        length = np.linalg.norm(self.weights, axis=1)
        return length / max(float(length.sum()), _TINY)


@dataclass(frozen=True, eq=False)
class PartGraph:
    """The graph of one part: a state that :func:`grow`, :func:`infer` and :func:`refine` never change.

    Attributes
    ----------
    part : str
        What the part is called.
    templates : tuple of PartTemplate
        At least one.
    annotations : tuple of Annotation
        All that was said so far, by image; those that show the part with the template that they are of.
    encoder : CellEncoder
        From maps to cells.
    settings : PartSettings
        How it was grown.
    threshold : float
        Score below which the part is not to be seen; minus infinity as long as nobody said of any image that it is
        not.
    """

    part: str
    templates: tuple[PartTemplate, ...]
    annotations: tuple[Annotation, ...]
    encoder: CellEncoder
    settings: PartSettings
    threshold: float

    def units(self, template: int, pattern: int, count: int = 5) -> list[tuple[str, int, float]]:
        """Return the units that say most in a pattern: layer, number, and weight against the largest one, signed."""
        found = [
            (layer, unit, float(weight))
            for layer, weights in self.encoder.units(self.templates[template].weights[pattern]).items()
            for unit, weight in enumerate(weights)
        ]
        found.sort(key=lambda entry: (-abs(entry[2]), entry[0], entry[1]))
        largest = abs(found[0][2]) or 1.0
        return [(layer, unit, weight / largest) for layer, unit, weight in found[:count]]

    def to_networkx(self, units: int = 5) -> DiGraph:
        """Return the graph as networkx has it: part, templates, patterns and units, with edges downwards.

        Nodes have the attribute kind (``or``, ``and``, ``unit``); patterns their place from the part (row and column,
        cells) and their strength, edges to units the weight. Of each pattern the units that say most are given.
        """
        from networkx import DiGraph

        graph = DiGraph(part=self.part, layers=",".join(self.encoder.layers))
        graph.add_node(self.part, kind="or", level="part")
        for number, template in enumerate(self.templates):
            name = f"template {number}"
            graph.add_node(
                name, kind="and", level="template", annotated=len(template.annotated), parsed=template.parsed,
                row=float(template.mean[0]), column=float(template.mean[1]),
                height=float(template.size[0]), width=float(template.size[1]),
            )  # fmt: skip
            graph.add_edge(self.part, name)
            for pattern, (offset, strength) in enumerate(
                zip(template.offsets, template.strengths, strict=True)
            ):
                below = f"{name}/pattern {pattern}"
                graph.add_node(
                    below, kind="or", level="pattern", row=int(offset[0]), column=int(offset[1]),
                    strength=float(strength), deformation=self.settings.deformation,
                )  # fmt: skip
                graph.add_edge(name, below)
                for layer, unit, weight in self.units(number, pattern, units) if strength > 0 else ():
                    leaf = f"{layer}/{unit}"
                    graph.add_node(leaf, kind="unit", level="unit", layer=layer, unit=unit)
                    graph.add_edge(below, leaf, weight=weight)
        return graph

    def save(self, folder: Path | str) -> None:
        """Write ``part.npz``, ``part.json`` and ``part.graphml``; :func:`load_part_graph` reads the first two."""
        home = Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            with atomic_path(home / name) as hidden:
                self._write(name, hidden)

    def write(self, path: Path) -> None:
        """Write one of the files of :meth:`save`, told by the path's last part, straight to its place."""
        self._write(path.name, path)

    def _write(self, name: str, path: Path) -> None:
        if name == "part.json":
            path.write_text(dump_json(self._note(), indent=2) + "\n", encoding="utf-8")
        elif name == "part.graphml":
            from networkx import write_graphml

            write_graphml(self.to_networkx(), path)
        else:
            with path.open("wb") as file:
                np.savez_compressed(file, **self._arrays())  # type: ignore[arg-type]

    def _arrays(self) -> dict[str, NDArray[np.generic]]:
        arrays: dict[str, NDArray[np.generic]] = {}
        for number, template in enumerate(self.templates):
            for name in ("offsets", "weights", "mean", "deviation", "size"):
                arrays[f"template-{number}-{name}"] = getattr(template, name)
        for number, code in enumerate(self.encoder.codes):
            arrays[f"layer-{number}-mean"], arrays[f"layer-{number}-projection"] = code.mean, code.projection
        return arrays

    def _note(self) -> dict[str, object]:
        field = self.encoder.grid.field
        return {
            "format": FORMAT, "part": self.part, "settings": asdict(self.settings),
            "threshold": self.threshold if np.isfinite(self.threshold) else None,
            "annotations": [asdict(annotation) for annotation in self.annotations],
            "templates": [{"annotated": t.annotated, "parsed": t.parsed} for t in self.templates],
            "layers": [{"name": code.layer, "rooted": code.rooted} for code in self.encoder.codes],
            "grid": {
                "layer": field.layer, "size": [s if np.isfinite(s) else None for s in field.size],
                "stride": field.stride, "start": field.start, "shape": field.shape, "image": self.encoder.grid.image,
            },
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Parses:
    """Where a part is in images.

    Attributes
    ----------
    centres : ndarray of float, (n, 2)
        Row and column of the part, px: the mean over all parses, each as likely as its score says.
    boxes : ndarray of float, (n, 4)
        Top, left, bottom and right, px, within the image.
    scores : ndarray of float, (n,)
        How well the part is seen: the logarithm of the sum of exp(score) over all parses.
    present : ndarray of bool, (n,)
        Whether the score reaches the graph's threshold.
    spread : ndarray of float, (n,)
        Standard deviation of the centre over all parses, px: how unsure it is.
    templates : ndarray of int, (n,)
        The best parse's template.
    flipped : ndarray of bool, (n,)
        Whether it is the other way round.
    places : ndarray of float, (n, 2)
        Row and column of the cell of the best parse, px.
    patterns : ndarray of float, (n, patterns, 2)
        Row and column of each pattern in the best parse, px; NaN for one outside the image.
    values : ndarray of float, (n, patterns)
        What each adds to its score.
    """

    centres: Floats
    boxes: Floats
    scores: Floats
    present: NDArray[np.bool_]
    spread: Floats
    templates: Integers
    flipped: NDArray[np.bool_]
    places: Floats
    patterns: Floats
    values: Floats

    def __len__(self) -> int:
        return len(self.centres)

    def subset(self, rows: ArrayLike) -> Parses:
        """Return the parses of some of these images, in that order."""
        chosen = np.asarray(rows, dtype=np.int64)
        return Parses(**{entry.name: getattr(self, entry.name)[chosen] for entry in fields(self)})


# -------------------------------------------------------------------------------------------------------------- growing


def grow(
    cells: PartCells,
    annotations: Sequence[Annotation],
    *,
    part: str = "part",
    graph: PartGraph | None = None,
    pool: ArrayLike | None = None,
    settings: PartSettings | None = None,
) -> PartGraph:
    """Grow the graph of a part from annotations, new or added to those of a graph.

    Each annotated image, or its mirror image, is laid on the others of its template, so that they look alike; the mean
    of their cells at each place about the part is what a pattern there looks for. Then images without annotation are
    parsed; those where the part is found most surely are learned from as if they were annotated, but each counts less.
    A graph that is given is learned anew from all that was said so far, so that no early mistake stays in it; the
    result does not depend on the order in which things were said, as long as templates are told or there is one.

    Parameters
    ----------
    cells : PartCells
        Of all images that annotations or `pool` name.
    annotations : sequence of Annotation
        What is known. Of an image that was annotated before, the new one counts.
    part : str
        What the part is called; a graph that is given knows.
    graph : PartGraph, optional
        To go on from: its annotations count as well.
    pool : array_like of int, optional
        Images without annotation to learn from; by default all that have none.
    settings : PartSettings, optional
        By default those of the graph given.

    Raises
    ------
    InputError
        If no annotation shows the part, an image or position is not there, or templates are not numbered from 0 on.
    """
    settings = settings or (graph.settings if graph else PartSettings())
    before = graph.annotations if graph else ()
    every = _by_image((*before, *annotations))
    _check(cells, every, [note for note in every if note.position is not None])
    if graph:
        every = merged(before, annotations)
    shown = [note for note in every if note.position is not None]
    unseen = np.arange(len(cells)) if pool is None else np.asarray(pool, dtype=np.int64)
    unseen = unseen[~np.isin(unseen, [note.image for note in every])]
    offsets = settings.offsets()
    contexts = torch.stack([_contexts(cells, note, offsets) for note in shown])
    known = np.array([note.position for note in shown], dtype=np.float64)
    placed = np.stack([known, mirrored(known, cells.image)], axis=1)
    count = 1 + max((note.template for note in shown if note.template is not None), default=0)
    which = _assigned(shown, contexts, count, settings, offsets)
    shown = [replace(note, template=int(number)) for note, number in zip(shown, which, strict=True)]
    every = tuple(
        sorted((*shown, *(note for note in every if note.position is None)), key=lambda note: note.image)
    )
    groups = [np.flatnonzero(which == number) for number in range(count)]
    if any(len(group) == 0 for group in groups):
        raise InputError(
            f"annotations: none is of template {[len(g) for g in groups].index(0)}; expected templates numbered from 0"
        )
    firsts, templates = [], []
    for group in groups:
        some = [shown[place] for place in group]
        if settings.facing == "both":
            turned = np.zeros(len(some), dtype=np.int64)
            mean = contexts[group].mean(dim=(0, 1))
        else:
            turned = _aligned(some, contexts[group], placed[group], cells.image, settings, offsets)
            mean = contexts[group, turned].mean(dim=0)
        firsts.append(mean)
        where = placed[group, turned]
        centre, deviation = expected_position(where, cells.image)
        sizes = [note.size for note in some if note.size is not None]
        size = np.exp(np.mean(np.log(sizes), axis=0)) if sizes else _SIZE * np.array(cells.image)
        notes = tuple((note.image, bool(turn)) for note, turn in zip(some, turned, strict=True))
        templates.append(
            PartTemplate(offsets, _weights(mean, settings, offsets), centre, deviation, size, notes, 0)
        )
    for _ in range(settings.rounds if len(unseen) else 0):
        templates = _learned(cells, unseen, templates, firsts, settings)
    found = PartGraph(
        graph.part if graph else part, tuple(templates), every, cells.encoder, settings, -np.inf
    )
    return replace(found, threshold=_threshold(found, cells, None if pool is None else unseen))


def infer(graph: PartGraph, cells: PartCells, rows: ArrayLike | None = None) -> Parses:
    """Parse images: where the part is, by which template and patterns.

    Bottom-up, every pattern takes the best cell near its place, every template the sum of its patterns, for each cell
    that the part may be at, in the image and in its mirror image; top-down, the best parse is followed back to its
    cells. The score of a parse is Σ over patterns of max over cells of weight · cell, plus the logarithm of the density
    of where the part is expected, as far as it depends on the place.

    Parameters
    ----------
    graph : PartGraph
        As :func:`grow` returns it.
    cells : PartCells
        Made by the graph's encoder.
    rows : array_like of int, optional
        Which images; all by default.

    Raises
    ------
    InputError
        If the cells are of another kind.
    """
    numbers = np.arange(len(cells)) if rows is None else np.asarray(rows, dtype=np.int64)
    _expect_cells(graph, cells)
    points = _points(cells)
    maps = score_maps(graph, cells, numbers)
    flat = maps.flatten(1)
    where, spread, shares = mean_places(maps, cells)
    # The first of equals, on every machine.
    best = (flat == flat.amax(dim=1, keepdim=True)).int().argmax(dim=1).numpy()
    template, flipped, cell = np.unravel_index(best, tuple(maps.shape[1:]))
    sizes = np.stack([one.size for one in graph.templates])
    size = (shares[:, :, None] * sizes).sum(axis=1)
    limit = np.array(cells.image) - 1.0
    boxes = np.concatenate([np.clip(where - size / 2, 0, limit), np.clip(where + size / 2, 0, limit)], axis=1)
    scores = torch.logsumexp(flat, dim=1).double().numpy()
    patterns, values = _traced(graph, cells, numbers, template, flipped, cell)
    return Parses(
        where, boxes, scores, scores >= graph.threshold, spread, template.astype(np.int64),
        flipped.astype(bool), points[flipped, cell], patterns, values,
    )  # fmt: skip


def refine(graph: PartGraph, cells: PartCells, answer: Answer, *, pool: ArrayLike | None = None) -> PartGraph:
    """Return the graph after an answer to its parse of an image.

    Parameters
    ----------
    graph : PartGraph
        Stays as it is.
    cells : PartCells
        Of all images.
    answer : Answer
        What was said.
    pool : array_like of int, optional
        See :func:`grow`.

    Raises
    ------
    InputError
        If the image or the template is not there.
    """
    if not 0 <= answer.image < len(cells):
        raise InputError(f"image {answer.image}: expected 0 to {len(cells) - 1}")
    check_answer(answer, len(graph.templates), graph.settings.facing)
    parse = infer(graph, cells, [answer.image])
    note = annotation_of(answer, parse, len(graph.templates), graph.settings.facing)
    return grow(cells, [note], graph=graph, pool=pool)


def check_answer(answer: Answer, templates: int, facing: Facing) -> None:
    """Refuse an answer that cannot be given to a parse by a graph of so many templates.

    Raises
    ------
    InputError
        If the template is not there, or templates look the same both ways and one is said to be flipped.
    """
    if answer.verdict == "flipped" and facing == "both":
        raise InputError(
            "verdict 'flipped': the templates of this graph look the same both ways; expected facing 'either'"
        )
    if answer.template is not None and not 0 <= answer.template < templates:
        raise InputError(f"template {answer.template}: expected 0 to {templates - 1}")


def annotation_of(answer: Answer, parse: Parses, templates: int, facing: Facing) -> Annotation:
    """Return what an answer to the parse of an image says of that image.

    Parameters
    ----------
    answer : Answer
        What was said.
    parse : Parses
        Of that image alone.
    templates : int
        How many the graph has that parsed it.
    facing : str
        See :class:`PartSettings`; ``both`` says nothing of which way round the part is.
    """
    template = int(parse.templates[0])
    flipped = bool(parse.flipped[0]) if facing == "either" else None
    own = parse.boxes[0, 2:] - parse.boxes[0, :2]
    size = answer.size or ((float(own[0]), float(own[1])) if answer.verdict == "right" else None)
    position = answer.position
    if answer.verdict == "right" and position is None:
        position = (float(parse.centres[0, 0]), float(parse.centres[0, 1]))
    return {
        "right": Annotation(answer.image, position, size, template, flipped),
        "wrong box": Annotation(answer.image, position, size, template, flipped),
        "wrong template": Annotation(answer.image, position, size, answer.template, None),
        "new template": Annotation(answer.image, position, size, templates, None),
        "flipped": Annotation(answer.image, position, size, template, flipped is False),
        "absent": Annotation(answer.image, None),
    }[answer.verdict]


def merged(before: Sequence[Annotation], annotations: Sequence[Annotation]) -> tuple[Annotation, ...]:
    """Return all that was said, by image; of one that was annotated before, the new annotation counts.

    A template whose last image is now said to be of another is no more, and those after it move up.
    """
    every = _by_image((*before, *annotations))
    left = sorted({note.template for note in every if note.position and note.template is not None})
    return tuple(
        note
        if note.template is None or note.position is None
        else replace(note, template=left.index(note.template))
        for note in every
    )


def annotation_from(entry: dict[str, object]) -> Annotation:
    """Return the annotation whose fields an object of JSON holds."""
    pairs = {
        name: None if entry[name] is None else tuple(map(float, entry[name]))  # type: ignore[arg-type]
        for name in ("position", "size")
    }
    return Annotation(**(entry | pairs))  # type: ignore[arg-type]


def expected_position(where: ArrayLike, image: tuple[int, int]) -> tuple[Floats, Floats]:
    """Return where a part is expected after some positions of it, and the deviation, px, ``(2,)`` each.

    Where few are known both are drawn to the middle of the image and to a spread of a quarter of its sides.

    Parameters
    ----------
    where : array_like of float, (k, 2)
        Rows and columns, px.
    image : (int, int)
        Height and width, px.
    """
    known, sides = np.asarray(where, dtype=np.float64), np.array(image, dtype=np.float64)
    count = len(known)
    mean = (known.sum(axis=0) + _TRUST_MIDDLE * (sides - 1) / 2) / (count + _TRUST_MIDDLE)
    square = ((known - mean) ** 2).sum(axis=0) + _TRUST_SPREAD * (_SPREAD * sides) ** 2
    return mean, np.sqrt(square / (count + _TRUST_SPREAD) * (1 + 1 / count))


def score_maps(graph: PartGraph, cells: PartCells, rows: ArrayLike | None = None) -> Tensor:
    """Return the score of every parse, ``(n, templates, 2, cells)``: in the image as it is, and in its mirror image."""
    numbers = np.arange(len(cells)) if rows is None else np.asarray(rows, dtype=np.int64)
    _expect_cells(graph, cells)
    return _scores(cells, numbers, graph.templates, graph.settings)


def mean_places(maps: Tensor, cells: PartCells) -> tuple[Floats, Floats, Floats]:
    """Return where a part is in the mean over all parses, each as likely as its score says.

    Parameters
    ----------
    maps : Tensor, (n, templates, 2, cells)
        As :func:`score_maps` returns them.
    cells : PartCells
        Of the images.

    Returns
    -------
    centres : ndarray of float, (n, 2)
        Row and column, px.
    spread : ndarray of float, (n,)
        Their standard deviation, px.
    shares : ndarray of float, (n, templates)
        How likely each template is.
    """
    chance = torch.softmax(maps.flatten(1), dim=1).double().reshape(*maps.shape[:2], -1)
    points = torch.from_numpy(_points(cells).reshape(-1, 2))
    by_place = chance.sum(dim=1)
    centres = by_place @ points
    spread = (by_place @ (points**2).sum(dim=1) - (centres**2).sum(dim=1)).clamp_min(0).sqrt()
    return centres.numpy(), spread.numpy(), chance.sum(dim=2).numpy()


def load_part_graph(folder: Path | str) -> PartGraph:
    """Return the graph that :meth:`PartGraph.save` wrote.

    Raises
    ------
    InputError
        If it is missing or damaged.
    """
    home = Path(folder)
    try:
        note = json.loads((home / "part.json").read_text(encoding="utf-8"))
        if note["format"] != FORMAT:
            raise InputError(f"{home}: a part graph of format {note['format']}; expected {FORMAT}")
        with np.load(home / "part.npz", allow_pickle=False) as arrays:
            templates = tuple(
                PartTemplate(
                    offsets=arrays[f"template-{number}-offsets"],
                    weights=arrays[f"template-{number}-weights"],
                    mean=arrays[f"template-{number}-mean"],
                    deviation=arrays[f"template-{number}-deviation"],
                    size=arrays[f"template-{number}-size"],
                    annotated=tuple((int(image), bool(turn)) for image, turn in entry["annotated"]),
                    parsed=int(entry["parsed"]),
                )
                for number, entry in enumerate(note["templates"])
            )
            codes = tuple(
                LayerCode(
                    str(entry["name"]), arrays[f"layer-{number}-mean"], arrays[f"layer-{number}-projection"],
                    bool(entry["rooted"]),
                )
                for number, entry in enumerate(note["layers"])
            )  # fmt: skip
        grid = note["grid"]
        field = ReceptiveField(
            str(grid["layer"]), _pair(grid["size"]), _pair(grid["stride"]), _pair(grid["start"]),
            _whole_pair(grid["shape"]),
        )  # fmt: skip
        image = _whole_pair(grid["image"])
        return PartGraph(
            str(note["part"]), templates, tuple(map(annotation_from, note["annotations"])),
            CellEncoder(codes, UnitGrid(field, image)), PartSettings(**note["settings"]),
            -np.inf if note["threshold"] is None else float(note["threshold"]),
        )  # fmt: skip
    except FileNotFoundError as error:
        raise InputError(f"{home}: no part graph; expected part.json and part.npz") from error
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{home}: a damaged part graph; expected part.json and part.npz as saved") from error


# --------------------------------------------------------------------------------------------------------------- within


def _pair(values: Sequence[float | None]) -> tuple[float, float]:
    """Return two numbers; JSON has no infinity, which is None there."""
    first, second = (float("inf") if value is None else float(value) for value in values)
    return first, second


def _whole_pair(values: Sequence[int]) -> tuple[int, int]:
    first, second = map(int, values)
    return first, second


def _by_image(annotations: Sequence[Annotation]) -> tuple[Annotation, ...]:
    said = {note.image: note for note in annotations}
    return tuple(said[image] for image in sorted(said))


def _check(cells: PartCells, every: Sequence[Annotation], shown: Sequence[Annotation]) -> None:
    if not shown:
        raise InputError(f"annotations: {len(every)}, none shows the part; expected at least one that does")
    for note in every:
        if not 0 <= note.image < len(cells):
            raise InputError(f"annotation of image {note.image}: expected 0 to {len(cells) - 1}")
        if note.template is not None and note.template < 0:
            raise InputError(
                f"annotation of image {note.image}: template {note.template}; expected at least 0"
            )
        numbers = (*(note.position or ()), *(note.size or ()))
        if not np.isfinite(numbers).all() or any(side <= 0 for side in note.size or ()):
            raise InputError(
                f"annotation of image {note.image}: position {note.position}, size {note.size}; expected finite "
                "numbers, sizes above 0"
            )


def _expect_cells(graph: PartGraph, cells: PartCells) -> None:
    own = graph.encoder
    if cells.vectors.shape[2:] != (int(np.prod(own.grid.field.shape)), own.dimensions):
        raise InputError(
            f"cells {tuple(cells.vectors.shape)}: expected (n, 2, {int(np.prod(own.grid.field.shape))}, "
            f"{own.dimensions}), as the graph was grown on"
        )


def _points(cells: PartCells) -> Floats:
    """Return where the cells of images and mirror images are in the image, px, ``(2, cells, 2)``."""
    return np.stack([cells.centres, mirrored(cells.centres, cells.image)])


def _contexts(cells: PartCells, note: Annotation, offsets: Integers) -> Tensor:
    """Return the cells about an annotated part in the image and in its mirror image, ``(2, patterns, d)``.

    What is outside the image is 0, the mean of all cells.
    """
    assert note.position is not None
    stride = np.array(cells.encoder.grid.field.stride)
    both = np.stack([note.position, mirrored(note.position, cells.image)])
    points = both[:, None] + offsets * stride
    inside = ((points > -stride / 2) & (points < np.array(cells.image) - 1 + stride / 2)).all(axis=2)
    weights = interpolation(cells.encoder.grid, points).reshape(2, len(offsets), -1)
    return (weights @ cells.vectors[note.image]) * torch.from_numpy(inside)[..., None]


def _decline(settings: PartSettings, offsets: Integers) -> Tensor:
    """Return how much the patterns count by their distance from the part, ``(patterns, 1)``."""
    square = (offsets**2).sum(axis=1)
    return torch.from_numpy(np.exp(-square / (2 * settings.decline**2))).float()[:, None]


def _weights(mean: Tensor, settings: PartSettings, offsets: Integers) -> Floats:
    """Return the weights of patterns: what of the mean cells counts, in units of the scatter of scores on any cell."""
    weights = _decline(settings, offsets) * mean
    length = float(weights.norm())
    return (settings.sharpness * weights / max(length, _TINY)).double().numpy()


def _assigned(
    shown: Sequence[Annotation], contexts: Tensor, count: int, settings: PartSettings, offsets: Integers
) -> Integers:
    """Return the template of each annotation: the one said, else the one whose annotations it is most like."""
    told = np.array([-1 if note.template is None else note.template for note in shown])
    if count == 1:
        return np.zeros(len(shown), dtype=np.int64)
    unit = _likeness(contexts, settings, offsets)
    found = told.copy()
    for place in np.flatnonzero(told < 0):
        alike = [
            max(
                (float(unit[place, a] @ unit[other, b]) for other in np.flatnonzero(told == number)
                 for a in (0, 1) for b in (0, 1)),
                # A template that nothing is said to be of begins with what is not said to be of another.
                default=np.inf,
            )
            for number in range(count)
        ]  # fmt: skip
        found[place] = int(np.argmax(alike))
    return found.astype(np.int64)


def _likeness(contexts: Tensor, settings: PartSettings, offsets: Integers) -> Tensor:
    """Return contexts as vectors of length 1, whose products say how alike they are, ``(k, 2, patterns · d)``."""
    return F.normalize((contexts * _decline(settings, offsets).sqrt()).flatten(2), dim=2)


def _aligned(
    some: Sequence[Annotation],
    contexts: Tensor,
    placed: Floats,
    image: tuple[int, int],
    settings: PartSettings,
    offsets: Integers,
) -> Integers:
    """Return for each annotation whether to take the mirror image, so that all look as alike as can be."""
    count = len(some)
    unit = _likeness(contexts, settings, offsets)
    alike = torch.einsum("isd,jtd->isjt", unit, unit).double().numpy()
    apart = ((placed[:, :, None, None] - placed) / np.array(image)) ** 2
    alike = alike - apart.sum(axis=-1) / (4 * _ALIGNED_WITHIN**2)
    told = np.array([-1 if note.flipped is None else int(note.flipped) for note in some])
    free = np.flatnonzero(told < 0)
    if not len(free):
        return told
    # Where nothing is said, all may be turned together; so the first stays as it is.
    if len(free) == count:
        told[0], free = 0, free[1:]
    best: tuple[float, Integers] | None = None
    for start in range(min(2 ** len(free), 16)):
        turned = told.copy()
        turned[free] = [(start >> place) & 1 for place in range(len(free))]
        for _ in range(count):
            before = turned.copy()
            for place in free:
                sums = [
                    sum(alike[place, way, other, turned[other]] for other in range(count) if other != place)
                    for way in (0, 1)
                ]
                turned[place] = int(sums[1] > sums[0] + 1e-9)
            if np.array_equal(before, turned):
                break
        value = float(
            sum(alike[a, turned[a], b, turned[b]] for a in range(count) for b in range(count) if a != b)
        )
        if best is None or value > best[0] + 1e-9:
            best = value, turned
    assert best is not None
    return best[1]


def _scores(
    cells: PartCells, rows: Integers, templates: Sequence[PartTemplate], settings: PartSettings
) -> Tensor:
    """Return the score of every parse, ``(n, templates, 2, cells)``."""
    height, width = cells.shape
    found = torch.empty(len(rows), len(templates), 2, height * width)
    # A template that faces one way expects the part where it is in the image that faces that way.
    points = _points(cells) if settings.facing == "both" else np.stack([cells.centres] * 2)
    for number, template in enumerate(templates):
        far = (points - template.mean) / template.deviation
        expected = torch.from_numpy(-settings.expectation / 2 * (far**2).sum(axis=2)).float()
        for some, values in _pattern_values(cells, rows, template, settings):
            total = torch.zeros(len(values), height, width)
            for pattern, (down, across) in enumerate(template.offsets):
                total += _shifted(values[:, pattern], int(down), int(across))
            found[some, number] = total.reshape(-1, 2, height * width) + expected
    return found


def _pattern_values(
    cells: PartCells, rows: Integers, template: PartTemplate, settings: PartSettings
) -> Iterator[tuple[slice, Tensor]]:
    """Give, some images at a time, the best of each pattern near every cell, ``(2 · some, patterns, h, w)``."""
    height, width = cells.shape
    weights = torch.from_numpy(template.weights).float()
    reach = settings.deformation
    for start in range(0, len(rows), _IMAGES):
        vectors = cells.vectors[torch.from_numpy(rows[start : start + _IMAGES])].flatten(0, 1)
        values = (weights @ vectors.transpose(1, 2)).reshape(len(vectors), -1, height, width)
        values = _best_near(values, reach)
        yield slice(start, start + len(vectors) // 2), values


def _best_near(maps: Tensor, reach: int) -> Tensor:
    """Return the largest value of maps ``(..., h, w)`` up to so many cells away along each axis.

    On small maps it is several times as fast as pooling, which looks at every cell of the window and keeps where it
    was.
    """
    for axis in (-1, -2):
        size = maps.shape[axis]
        best = maps.clone()
        for step in range(1, min(reach, size - 1) + 1):
            low, high = (torch.narrow(best, axis, start, size - step) for start in (0, step))
            before, after = (torch.narrow(maps, axis, start, size - step) for start in (0, step))
            torch.maximum(low, after, out=low)
            torch.maximum(high, before, out=high)
        maps = best
    return maps


def _shifted(maps: Tensor, down: int, across: int) -> Tensor:
    """Return maps ``(m, h, w)`` whose value at a place is that so far down and across; 0 beyond the border."""
    height, width = maps.shape[1:]
    found = torch.zeros_like(maps)
    rows, columns = (
        slice(max(0, -by), max(0, min(side, side - by))) for by, side in ((down, height), (across, width))
    )
    found[:, rows, columns] = maps[
        :, rows.start + down : rows.stop + down, columns.start + across : columns.stop + across
    ]
    return found


def _learned(
    cells: PartCells,
    pool: Integers,
    templates: Sequence[PartTemplate],
    firsts: Sequence[Tensor],
    settings: PartSettings,
) -> list[PartTemplate]:
    """Return templates learned from annotated images and from those of the pool that were parsed most surely."""
    maps = _scores(cells, pool, templates, settings)
    chance = torch.softmax(maps.flatten(1), dim=1).reshape(maps.shape)
    points = torch.from_numpy(_points(cells)).float().flatten(0, 1)
    by_place = chance.sum(dim=1).flatten(1)
    centres = by_place @ points
    scatter = by_place @ (points**2).sum(dim=1) - (centres**2).sum(dim=1)
    surest = torch.argsort(scatter, stable=True)[: max(1, round(settings.share * len(pool)))]
    height, width = cells.shape
    found = []
    sums = torch.zeros(len(templates), *firsts[0].shape)
    for start in range(0, len(surest), _IMAGES):
        some = surest[start : start + _IMAGES]
        vectors = cells.vectors[torch.from_numpy(pool)[some]].flatten(0, 2)
        for number, template in enumerate(templates):
            weights = chance[some, number].reshape(-1, height, width)
            shifted = torch.stack(
                [_shifted(weights, -int(down), -int(across)).flatten() for down, across in template.offsets]
            )
            sums[number] += shifted @ vectors
    for number, template in enumerate(templates):
        weight = float(chance[surest, number].sum())
        told = settings.worth * len(template.annotated)
        mean = (told * firsts[number] + sums[number]) / (told + weight)
        found.append(
            replace(
                template,
                weights=_weights(mean, settings, template.offsets),
                parsed=round(weight),
            )
        )
    return found


def _threshold(graph: PartGraph, cells: PartCells, pool: Integers | None) -> float:
    """Return the score half way between images that show the part and those that do not; −∞ if none of these is known.

    The former are all that are not said to be without it, for annotated ones have the graph's own cells; where there
    is a pool, those of it and the annotated ones.
    """
    absent = np.array([note.image for note in graph.annotations if note.position is None], dtype=np.int64)
    if not len(absent):
        return -np.inf
    said = [note.image for note in graph.annotations]
    every = np.arange(len(cells)) if pool is None else np.union1d(pool, said).astype(np.int64)
    scores = torch.logsumexp(score_maps(graph, cells, every).flatten(1), dim=1).double().numpy()
    without = np.isin(every, absent)
    # Many of the others may be without the part as well; so the median, not the mean.
    return float((np.median(scores[~without]) + scores[without].mean()) / 2)


def _traced(
    graph: PartGraph,
    cells: PartCells,
    rows: Integers,
    template: Integers,
    flipped: Integers,
    cell: Integers,
) -> tuple[Floats, Floats]:
    """Return where the patterns of the best parses are, px, ``(n, patterns, 2)``, and what they add."""
    height, width = cells.shape
    reach = graph.settings.deformation
    centres = cells.centres.reshape(height, width, 2)
    offsets = graph.templates[0].offsets
    positions = np.full((len(rows), len(offsets), 2), np.nan)
    values = np.zeros((len(rows), len(offsets)))
    for place, row in enumerate(rows):
        weights = torch.from_numpy(graph.templates[template[place]].weights).float()
        maps = (weights @ cells.vectors[row, flipped[place]].T).reshape(-1, height, width).numpy()
        y, x = divmod(int(cell[place]), width)
        for pattern, (down, across) in enumerate(offsets):
            if not (0 <= y + down < height and 0 <= x + across < width):
                continue
            top, left = max(0, y + down - reach), max(0, x + across - reach)
            window = maps[pattern, top : y + down + reach + 1, left : x + across + reach + 1]
            dy, dx = np.unravel_index(int(window.argmax()), window.shape)
            values[place, pattern] = window[dy, dx]
            positions[place, pattern] = centres[top + dy, left + dx]
        if flipped[place]:
            positions[place] = mirrored(positions[place], cells.image)
    return positions, values
