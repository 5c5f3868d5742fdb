"""Explanatory graph: the parts that are mixed in the filters of a trained network, and how they lie to each other.

A filter of a deep layer answers to several parts of an object. Each becomes a node here: a place where the filter's
responses gather, relative to nodes of the layer above, found by expectation maximisation without any annotation.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cnn_interp.disentangling.features import LayerMaps, TrunkFeatures
from cnn_interp.images.sets import Images, Picture
from cnn_interp.images.sets import resized as picture_resized
from cnn_interp.units.positions import UnitGrid
from interpretkit.errors import InputError
from interpretkit.runs.files import atomic_path, dump_json
from interpretkit.runs.progress import track
from interpretkit.training.device import resolve_device
from interpretkit.training.seeds import torch_generator

if TYPE_CHECKING:
    from networkx import DiGraph

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
FORMAT = 2
# So many values of images × nodes × positions are worked on at once: what stays in a CPU's cache is twice as fast.
_VALUES_AT_ONCE = 1 << 22
_VALUES_AT_ONCE_ON_GPU = 1 << 27
# So many responses are located in at once, 256 MB.
_RESPONSES_AT_ONCE = 1 << 26
_TINY = 1e-12
# Steps of k-means before expectation maximisation.
_MEANS = 10


@dataclass(frozen=True)
class GraphSettings:
    """How a graph is learned. Lengths are shares of the image's longer side.

    Attributes
    ----------
    nodes_per_filter : int or tuple of int
        How many parts a filter may mix; one number for every layer, or one for each, the highest first.
    rounds : int
        How often the highest layer is gone through. From the second time on, its nodes of the time before are the
        layer above, so that nodes of the highest layer have parents as well.
    parents : int
        By how many nodes of the layer above a node is placed, at most.
    iterations : int
        Of expectation maximisation, for each layer.
    spread : float
        Standard deviation of a filter's nodes when learning begins, for a single one; of k it is the kth of that in
        area.
    least_spread : float
        Standard deviation below which none falls, in strides of the layer: what lies between positions is not known.
    search : float
        How far from its expected place a node is looked for along each axis, at most; and never farther than three
        standard deviations.
    background : float
        Weight of the background, a uniform density over the image; a node's weight is 1.
    border : float
        Nodes expected nearer to the border of the layer's field of view than this share of it are no parents.
    still : float
        Share of the possible parents that move least and are left out, since what never moves places nothing.
    place : str
        Where a node is said to be in an image. ``strongest``: at the position with the largest product of response
        and density, as published. ``posterior``: between the place that its parents expect and the centre of gravity
        of the responses that it explains.
    evidence : float
        Weight of that centre of gravity, 0 to 1, for ``posterior``.

    References
    ----------
    Zhang, Cao, Shi, Wu, Zhu: Interpreting CNN knowledge via an explanatory graph, AAAI 2018. ``rounds``,
    ``least_spread`` and ``posterior`` are this project's.
    """

    nodes_per_filter: int | tuple[int, ...] = 2
    rounds: int = 4
    parents: int = 15
    iterations: int = 6
    spread: float = 0.3
    least_spread: float = 0.5
    search: float = 1.0
    background: float = 0.1
    border: float = 0.1
    still: float = 0.5
    place: Literal["posterior", "strongest"] = "posterior"
    evidence: float = 0.4

    def __post_init__(self) -> None:
        counts = (
            self.nodes_per_filter if isinstance(self.nodes_per_filter, tuple) else (self.nodes_per_filter,)
        )
        for name, numbers in (
            ("nodes_per_filter", counts), ("rounds", (self.rounds,)), ("parents", (self.parents,)),
        ):  # fmt: skip
            if not numbers or min(numbers) < 1:
                raise InputError(f"{name} {numbers}: expected at least 1")
        if self.iterations < 2:
            raise InputError(
                f"iterations {self.iterations}: expected at least 2, for the first finds no parents"
            )
        for name in ("spread", "least_spread", "search"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} {getattr(self, name)}: expected more than 0")
        for name in ("border", "still", "evidence"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} {getattr(self, name)}: expected 0 to 1")
        if not self.background >= 0:
            raise InputError(f"background {self.background}: expected at least 0")
        if self.place not in ("posterior", "strongest"):
            raise InputError(f"place {self.place!r}: expected posterior or strongest")


# As in the article's code, but for the number of nodes, which there is 40 for layers of 28 × 28 and 20 for 14 × 14.
PUBLISHED = GraphSettings(
    nodes_per_filter=20, rounds=1, iterations=20, spread=0.15 * 20**0.5, search=0.15, place="strongest"
)


@dataclass(frozen=True, eq=False)
class LayerNodes:
    """The nodes that one layer's filters were taken apart into.

    Attributes
    ----------
    name : str
        The layer's name, with the number of the round for a layer that is gone through several times.
    layer : str
        The layer's name.
    filters : ndarray of int, (nodes,)
        The filter of each node.
    means : ndarray of float, (nodes, 2)
        Row and column where a node is expected if its parents are at their homes, px.
    homes : ndarray of float, (nodes, 2)
        Mean of the places where it was found, weighted by what it explained, px.
    deviations : ndarray of float, (nodes,)
        Standard deviation along an axis of the responses that it explains about its expected place, px.
    parents : ndarray of int, (nodes, at most `parents`)
        Its parents' numbers in the layer above; no columns in the highest layer.
    scale : ndarray of float, (filters of the layer,)
        What responses are divided by.
    explained : ndarray of float, (nodes,)
        Which share of the filter's responses the node explains.
    grid : UnitGrid
        Where the layer's units look.
    """

    name: str
    layer: str
    filters: Integers
    means: Floats
    homes: Floats
    deviations: Floats
    parents: Integers
    scale: Floats
    explained: Floats
    grid: UnitGrid

    def __len__(self) -> int:
        return len(self.filters)


@dataclass(frozen=True, eq=False)
class NodePlaces:
    """Where the nodes of a layer are in each image.

    Attributes
    ----------
    values : ndarray of float, (n, nodes)
        How strongly a node is seen: its largest product of normalised response and density, the density being 1
        at the expected place. 0 if nothing was found.
    positions : ndarray of float, (n, nodes, 2)
        Row and column, px; the expected place if nothing was found.
    expected : ndarray of float, (n, nodes, 2)
        Row and column where its parents expect it, px: what it would be without its own responses.
    cells : ndarray of int, (n, nodes)
        Where on the map that largest product is, counted row by row.
    """

    values: Floats
    positions: Floats
    expected: Floats
    cells: Integers


@dataclass(frozen=True)
class Patch:
    """A place in an image where a node is seen.

    Attributes
    ----------
    node : int
        Its number in its layer.
    image : int
        The image's number.
    value : float
        How strongly it is seen.
    position : (float, float)
        Row and column, px.
    box : (int, int, int, int)
        Top, left, bottom and right of the receptive field, the last two exclusive, px.
    """

    node: int
    image: int
    value: float
    position: tuple[float, float]
    box: tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class ExplanatoryGraph:
    """Nodes of several layers and the edges between them.

    Attributes
    ----------
    levels : tuple of LayerNodes
        From the highest to the lowest; each level's parents are in the one before.
    settings : GraphSettings
        How it was learned.
    seed : int
        With which random numbers.
    image : (int, int)
        Height and width of the images, px.
    key : str
        Of the features it was learned from.
    network : str
        Hash of the network that they are of; empty if nothing is known of it.
    """

    levels: tuple[LayerNodes, ...]
    settings: GraphSettings
    seed: int
    image: tuple[int, int]
    key: str
    network: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The levels' names."""
        return tuple(level.name for level in self.levels)

    def last(self, layer: str) -> LayerNodes:
        """Return the level of a layer; the last one if it was gone through several times.

        Raises
        ------
        InputError
            If there is no such layer.
        """
        found = [level for level in self.levels if layer in (level.layer, level.name)]
        if not found:
            raise InputError(
                f"layer {layer!r}: the graph has none of that name; expected one of {', '.join(self.names)}"
            )
        return found[-1]

    def locate(
        self, features: TrunkFeatures, *, device: str | torch.device = "cpu", quiet: bool = True
    ) -> dict[str, NodePlaces]:
        """Return where all nodes are in images, which may be new ones.

        Parameters
        ----------
        features : TrunkFeatures
            Of the network that the graph was learned from.
        device : str or torch.device
            Where to compute.
        quiet : bool
            Whether to show no progress bar.

        Returns
        -------
        dict
            From a level's name to its :class:`NodePlaces`.

        Raises
        ------
        InputError
            If they are of another network, or a layer is missing, or has another number of units or another frame.
        """
        if self.network and features.network and self.network != features.network:
            raise InputError(
                "features: are of another network; expected the one that the graph was learned from"
            )
        where = resolve_device(device)
        largest = max(len(level.scale) * math.prod(level.grid.field.shape) for level in self.levels)
        # Images are nothing to each other, so that memory need not grow with their number.
        at_once = max(1, _RESPONSES_AT_ONCE // largest)
        parts: dict[str, list[NodePlaces]] = {name: [] for name in self.names}
        portions = range(0, len(features), at_once)
        steps = [(first, level) for first in portions for level in self.levels]
        above: _Above | None = None
        for first, level in track(steps, "Locating nodes", quiet=quiet):
            above = None if level is self.levels[0] else above
            rows = slice(first, first + at_once)
            responses = _responses(features, level, self.image, where, rows)
            state = _located(responses, level, above, self.settings, self.image)
            parts[level.name].append(state.places(self.image))
            above = state.above(level, self.image)
        return {
            name: NodePlaces(
                *(
                    np.concatenate([getattr(one, entry.name) for one in some])
                    for entry in dataclass_fields(NodePlaces)
                )
            )
            for name, some in parts.items()
        }

    def node_maps(
        self,
        level: LayerNodes,
        features: TrunkFeatures,
        places: NodePlaces,
        rows: ArrayLike,
        nodes: ArrayLike | None = None,
    ) -> Tensor:
        """Return what of its filter's responses each node explains, at every position, ``(m, nodes, h, w)``.

        Parameters
        ----------
        level : LayerNodes
            One of the graph's.
        features : TrunkFeatures
            Of the images.
        places : NodePlaces
            As :meth:`locate` returns them for the level and all images of `features`.
        rows : array_like of int, (m,)
            Which images.
        nodes : array_like of int, optional
            Which nodes; all by default. What a filter's other nodes explain is taken from all of them.
        """
        chosen = np.arange(len(level)) if nodes is None else np.asarray(nodes)
        numbers = np.asarray(rows)
        per_filter = len(level) // len(level.scale)
        # All nodes of a filter share its responses.
        filters, own = np.unique(chosen // per_filter, return_inverse=True)
        maps = features[level.layer]
        scale = torch.as_tensor(level.scale[filters], dtype=torch.float32)
        responses = maps.tensor(numbers)[:, filters].clamp_min(0).flatten(2) / scale[:, None]
        of_filters = (filters[:, None] * per_filter + np.arange(per_filter)).ravel()
        frame = _Frame(self.image)
        expected = frame.inward(places.expected[numbers][:, of_filters])
        spread = torch.as_tensor(level.deviations[of_filters] / frame.side, dtype=torch.float32)
        found = torch.empty(len(numbers), len(of_filters), responses.shape[2])
        mixture = _Mixture.of(responses, level.grid, self.settings, self.image)
        for some, _, explained in mixture.explained(expected, spread):
            found[:, some] = explained.flatten(1, 2)
        place = own * per_filter + chosen % per_filter
        return found[:, place].reshape(len(numbers), len(chosen), *maps.shape)

    def patches(
        self,
        level: LayerNodes,
        places: NodePlaces,
        nodes: ArrayLike,
        *,
        count: int = 8,
        side: float | None = None,
    ) -> list[list[Patch]]:
        """Return the images in which nodes are seen most strongly, and where, the strongest first.

        Parameters
        ----------
        level : LayerNodes
            One of the graph's.
        places : NodePlaces
            As :meth:`locate` returns them for the level.
        nodes : array_like of int, (m,)
            Which nodes.
        count : int
            How many images for each node, at most; images in which it is not seen are left out.
        side : float, optional
            Height and width of a patch, px; by default as :func:`patch_box` has it.

        Returns
        -------
        list of list of Patch, m
        """
        found: list[list[Patch]] = []
        for node in np.asarray(nodes, dtype=np.int64):
            values = places.values[:, node]
            best = np.argsort(-values, kind="stable")[:count]
            found.append([
                Patch(
                    int(node), int(image), float(values[image]),
                    (float(places.positions[image, node, 0]), float(places.positions[image, node, 1])),
                    patch_box(level.grid, places.positions[image, node], side),
                )
                for image in best
                if values[image] > 0
            ])  # fmt: skip
        return found

    def to_networkx(self) -> DiGraph:
        """Return the graph as networkx has it, with edges from parents to children.

        Nodes are called ``LEVEL/NUMBER`` and have the attributes level, layer, filter, row, column (the home, px),
        deviation (px) and explained.
        """
        from networkx import DiGraph

        graph = DiGraph(height=self.image[0], width=self.image[1], seed=self.seed, features=self.key)
        above: LayerNodes | None = None
        for level in self.levels:
            for node in range(len(level)):
                graph.add_node(
                    f"{level.name}/{node}",
                    level=level.name,
                    layer=level.layer,
                    filter=int(level.filters[node]),
                    row=float(level.homes[node, 0]),
                    column=float(level.homes[node, 1]),
                    deviation=float(level.deviations[node]),
                    explained=float(level.explained[node]),
                )
            if above is not None:
                for node, parents in enumerate(level.parents):
                    graph.add_edges_from((f"{above.name}/{p}", f"{level.name}/{node}") for p in parents)
            above = level
        return graph

    def save(self, folder: Path | str) -> None:
        """Write ``graph.graphml`` and, for each level, an npz that :func:`load_graph` reads; each file atomically."""
        from networkx import write_graphml

        home = Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        for number, level in enumerate(self.levels):
            print_ = _fingerprint(self.key, self.settings, self.seed, self.image, self.names[: number + 1])
            _write_level(_level_file(home, number), level, print_)
        note = {
            "format": FORMAT, "levels": len(self.levels), "settings": asdict(self.settings), "seed": self.seed,
            "image": self.image, "key": self.key, "network": self.network,
        }  # fmt: skip
        with atomic_path(home / "graph.graphml") as hidden:
            write_graphml(self.to_networkx(), hidden)
        with atomic_path(home / "graph.json") as hidden:
            hidden.write_text(dump_json(note, indent=2) + "\n", encoding="utf-8")


def patch_box(grid: UnitGrid, position: ArrayLike, side: float | None = None) -> tuple[int, int, int, int]:
    """Return the box of a patch about a place in an image: top, left, bottom and right, the last two exclusive, px.

    Parameters
    ----------
    grid : UnitGrid
        Of the layer.
    position : array_like of float, (2,)
        Row and column, px.
    side : float, optional
        Height and width of the patch, px. By default that of the layer's receptive field, but a third of the image at
        most, for a deep unit answers mostly to the middle of a field that may be larger than the image.
    """
    limit = max(grid.image) / 3 if side is None else side
    size = (limit, limit) if side is not None else tuple(min(limit, length) for length in grid.field.size)
    around = replace(grid.field, start=(0.0, 0.0), stride=(1.0, 1.0), size=(size[0], size[1]))
    return around.box(np.asarray(position), grid.image)


def crop(images: Images, patch: Patch, image: tuple[int, int], side: int = 64) -> Picture:
    """Return the picture of a patch, ``(side, side, 3)``.

    Parameters
    ----------
    images : Images
        The set that the patch's image is of.
    patch : Patch
        The place.
    image : (int, int)
        Height and width that images were resized to before the network saw them, px.
    side : int
        Of the picture wanted, px.
    """
    whole = picture_resized(images.image(patch.image), *image)
    top, left, bottom, right = patch.box
    return picture_resized(np.ascontiguousarray(whole[top:bottom, left:right]), side, side)


def learn_graph(
    features: TrunkFeatures,
    layers: Sequence[str],
    *,
    rows: ArrayLike | None = None,
    scale_rows: ArrayLike | None = None,
    settings: GraphSettings | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    folder: Path | str | None = None,
    quiet: bool = True,
) -> ExplanatoryGraph:
    """Learn an explanatory graph of some layers from images of one kind of object, without annotations.

    The responses F of a filter in an image, divided by their standard deviation and taken as 0 where negative, say
    how often its positions p are seen. They are explained by a mixture of the filter's nodes V and a background:
    p ~ N(μ_V + mean over V's parents V' of (p_V' − μ_V'), σ_V²), which is the published product of the parents'
    densities with exponents that sum to 1. Expectation maximisation finds μ_V and σ_V. After each step parents are
    chosen anew: those whose displacements differ least from that of the responses that V explains, over all
    images. A node's place p_V in an image is found from above downwards.

    Parameters
    ----------
    features : TrunkFeatures
        Maps of the layers for all images.
    layers : sequence of str
        From the highest, which sees most, to the lowest.
    rows : array_like of int or bool, optional
        The images to learn from, of one kind of object; all by default.
    scale_rows : array_like of int or bool, optional
        The images over which responses have their standard deviation, such as images without the object; those of
        `rows` by default.
    settings : GraphSettings, optional
        The project's own by default.
    seed : int
        Of the places where learning begins. The same seed gives the same graph on a CPU with as many threads.
    device : str or torch.device
        Where to compute.
    folder : path, optional
        Where each level is kept when it is done. A level that is there, of the same features, images, settings and
        seed, is not learned again.
    quiet : bool
        Whether to show no progress bar.

    Raises
    ------
    InputError
        If there are no layers or fewer than two images, a layer is missing, or no response of a layer is above 0.

    References
    ----------
    Zhang, Cao, Shi, Wu, Zhu: Interpreting CNN knowledge via an explanatory graph, AAAI 2018.
    """
    settings = settings or GraphSettings()
    where = resolve_device(device)
    names = list(layers)
    if not names or len(set(names)) < len(names):
        raise InputError(f"layers {', '.join(names) or 'none'}: expected different names, at least one")
    numbers = _numbers(rows, len(features), "rows")
    scaled = numbers if scale_rows is None else _numbers(scale_rows, len(features), "scale_rows")
    if len(numbers) < 2:
        raise InputError(f"rows: {len(numbers)} images; expected at least 2 to learn a graph from")
    counts = settings.nodes_per_filter
    counts = counts if isinstance(counts, tuple) else (counts,) * len(names)
    if len(counts) != len(names):
        raise InputError(f"nodes_per_filter {counts}: expected one number for each of {len(names)} layers")
    stages = [
        (layer, layer if last else f"{layer} round {turn + 1}", count)
        for number, (layer, count) in enumerate(zip(names, counts, strict=True))
        for turn in range(settings.rounds if number == 0 else 1)
        for last in [number > 0 or turn == settings.rounds - 1]
    ]
    key = hashlib.sha256(f"{features.key} {numbers.tolist()} {scaled.tolist()}".encode()).hexdigest()[:32]
    home = None if folder is None else Path(folder)
    if home is not None:
        home.mkdir(parents=True, exist_ok=True)
    levels: list[LayerNodes] = []
    above: _Above | None = None
    scales: dict[str, Floats] = {}
    for number, (layer, name, count) in enumerate(track(stages, "Learning the graph", quiet=quiet)):
        so_far = (*(level.name for level in levels), name)
        print_ = _fingerprint(key, settings, seed, features.image, so_far)
        level = None if home is None else _read_level(_level_file(home, number), print_)
        maps = features[layer]
        if layer not in scales:
            scales[layer] = maps.unit_scale(scaled) if level is None else level.scale
        responses = maps.normalised(scales[layer], numbers, device=where).flatten(2)
        if level is None:
            level = _learned(
                responses, maps, name, count, above, settings, features.image, scales[layer],
                torch_generator(seed, "explanatory graph", name),
            )  # fmt: skip
            if home is not None:
                _write_level(_level_file(home, number), level, print_)
        levels.append(level)
        if number < len(stages) - 1:
            above = _located(responses, level, above, settings, features.image).above(level, features.image)
    return ExplanatoryGraph(tuple(levels), settings, seed, features.image, key, features.network)


def load_graph(folder: Path | str) -> ExplanatoryGraph:
    """Return the graph that :meth:`ExplanatoryGraph.save` wrote.

    Raises
    ------
    InputError
        If it is missing or damaged.
    """
    home = Path(folder)
    file = home / "graph.json"
    if not file.is_file():
        raise InputError(f"{home}: no graph.json in it; expected the folder of an explanatory graph")
    try:
        note = json.loads(file.read_text(encoding="utf-8"))
        if note["format"] != FORMAT:
            raise ValueError(f"format {note['format']}")
        counts = note["settings"]["nodes_per_filter"]
        counts = tuple(counts) if isinstance(counts, list) else counts
        settings = GraphSettings(**{**note["settings"], "nodes_per_filter": counts})
        levels = [_read_level(_level_file(home, number), None) for number in range(note["levels"])]
        found = [level for level in levels if level is not None]
        if len(found) < len(levels):
            raise ValueError("a level is missing or damaged")
        image = (int(note["image"][0]), int(note["image"][1]))
        return ExplanatoryGraph(
            tuple(found), settings, int(note["seed"]), image, str(note["key"]), str(note["network"])
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{home}: cannot be read as an explanatory graph ({error})") from error


# ------------------------------------------------------------------------------------------ expectation maximisation


@dataclass(frozen=True)
class _Frame:
    """Positions within, in sides of the image from its middle, so that single precision is enough."""

    image: tuple[int, int]

    @property
    def side(self) -> float:
        return float(max(self.image))

    @property
    def area(self) -> float:
        return self.image[0] * self.image[1] / self.side**2

    def inward(self, pixels: ArrayLike) -> Tensor:
        """Return pixels ``(..., 2)`` as positions within."""
        middle = (np.array(self.image) - 1) / 2
        return torch.from_numpy((np.asarray(pixels, dtype=np.float64) - middle) / self.side).float()

    def outward(self, within: Tensor) -> Floats:
        """Return positions within ``(..., 2)`` as pixels."""
        return within.cpu().double().numpy() * self.side + (np.array(self.image) - 1) / 2


@dataclass(frozen=True, eq=False)
class _Above:
    """Of the layer above: where its nodes are from their homes ``(n, nodes, 2)``, their homes, and their filters."""

    layer: str
    displacements: Tensor
    homes: Tensor
    filters: Tensor
    grid: UnitGrid


@dataclass(frozen=True, eq=False)
class _Mixture:
    """Responses ``(n, filters, rows · columns)`` that nodes and a background are to explain."""

    responses: Tensor
    rows: Tensor
    columns: Tensor
    settings: GraphSettings
    frame: _Frame

    @classmethod
    def of(
        cls, responses: Tensor, grid: UnitGrid, settings: GraphSettings, image: tuple[int, int]
    ) -> _Mixture:
        """Return the mixture for a layer whose positions are laid out in rows and columns."""
        frame = _Frame(image)
        height, width = grid.field.shape
        places = frame.inward(grid.centres(np.arange(height * width))).to(responses.device)
        return cls(responses, places[::width, 0], places[:width, 1], settings, frame)

    @property
    def positions(self) -> Tensor:
        """Rows and columns, position by position, ``(positions, 2)``."""
        return torch.cartesian_prod(self.rows, self.columns)

    def explained(self, expected: Tensor, spread: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Give portion by portion what nodes explain of responses.

        Parameters
        ----------
        expected : Tensor, (n, nodes, 2)
            Filter by filter.
        spread : Tensor, (nodes,)
            Standard deviations.

        Yields
        ------
        slice
            Of nodes.
        relative : Tensor, (n, some filters, nodes per filter, positions)
            Their densities, 1 at the expected place.
        explained : Tensor, of the same shape
            The share of the responses that is each node's.
        """
        n, filters, positions = self.responses.shape
        per_filter = expected.shape[1] // filters
        budget = _VALUES_AT_ONCE if self.responses.device.type == "cpu" else _VALUES_AT_ONCE_ON_GPU
        at_once = max(1, budget // (n * per_filter * positions))
        for first in range(0, filters, at_once):
            last = min(first + at_once, filters)
            nodes = slice(first * per_filter, last * per_filter)
            where = expected[:, nodes].unflatten(1, (last - first, per_filter))
            sigma = spread[nodes].unflatten(0, (last - first, per_filter))[None, :, :, None]
            reach = (3 * sigma).clamp_max(self.settings.search)
            # The density of rows times that of columns: 14 exponentials rather than 49 for a map of 7 × 7.
            along = []
            for axis, places in enumerate((self.rows, self.columns)):
                away = places - where[..., axis, None]
                near = away.abs() <= reach
                along.append(torch.exp(away.square() / (-2 * sigma.square())) * near)
            relative = (along[0][..., :, None] * along[1][..., None, :]).flatten(3)
            density = relative / (2 * torch.pi * sigma.square())
            total = density.sum(dim=2, keepdim=True) + self.settings.background / self.frame.area
            share = density.div_(total.clamp_min(_TINY)).mul_(self.responses[:, first:last, None])
            yield nodes, relative, share

    def moments(self, expected: Tensor, spread: Tensor) -> Tensor:
        """Return sums over positions of what nodes explain: of itself, times row, column and their squares.

        Returns
        -------
        Tensor, (n, nodes, 4)
        """
        p = self.positions
        powers = torch.stack([torch.ones_like(p[:, 0]), p[:, 0], p[:, 1], p.square().sum(dim=1)], dim=1)
        found = torch.empty(*expected.shape[:2], 4, device=p.device)
        for nodes, _, share in self.explained(expected, spread):
            found[:, nodes] = (share @ powers).flatten(1, 2)
        return found


@dataclass(frozen=True, eq=False)
class _Located:
    """Where nodes are, in positions within."""

    values: Tensor
    cells: Tensor
    expected: Tensor
    found: Tensor
    weights: Tensor

    def places(self, image: tuple[int, int]) -> NodePlaces:
        frame = _Frame(image)
        return NodePlaces(
            self.values.cpu().double().numpy(),
            frame.outward(self.found),
            frame.outward(self.expected),
            self.cells.cpu().numpy(),
        )

    def above(self, level: LayerNodes, image: tuple[int, int]) -> _Above:
        device = self.found.device
        homes = _Frame(image).inward(level.homes).to(device)
        # A node that is not seen tells nothing of where the others are.
        seen = (self.values > 0)[..., None]
        moved = torch.where(seen, self.found - homes, torch.zeros((), device=device))
        return _Above(level.layer, moved, homes, torch.as_tensor(level.filters, device=device), level.grid)


def _learned(
    responses: Tensor,
    maps: LayerMaps,
    name: str,
    per_filter: int,
    above: _Above | None,
    settings: GraphSettings,
    image: tuple[int, int],
    scale: Floats,
    generator: torch.Generator,
) -> LayerNodes:
    """Return the nodes of a layer by expectation maximisation."""
    frame, device = _Frame(image), responses.device
    n, filters, _ = responses.shape
    if not bool((responses > 0).any()):
        raise InputError(f"layer {maps.layer!r}: no response is above 0 in any image; expected some")
    mixture = _Mixture.of(responses, maps.grid, settings, image)
    positions = mixture.positions
    stride = max(maps.grid.field.stride) / frame.side
    means = _beginning(responses, positions, per_filter, stride, generator)
    filter_of = torch.arange(filters, device=device).repeat_interleave(per_filter)
    spread = torch.full((len(means),), settings.spread / per_filter**0.5, device=device)
    least = settings.least_spread * stride
    candidates = None if above is None else _candidates(above, settings, frame)
    displaced = torch.zeros(n, len(means), 2, device=device)
    parents = torch.zeros(len(means), 0, dtype=torch.int64, device=device)
    moments = torch.zeros(n, len(means), 4, device=device)
    for step in range(settings.iterations):
        moments = mixture.moments(means + displaced, spread)
        weights = moments[..., 0]
        total = weights.sum(dim=0)
        known = (total > _TINY)[:, None]
        moved = (moments[..., 1:3] - weights[..., None] * displaced).sum(dim=0) / total.clamp_min(_TINY)[
            :, None
        ]
        means = torch.where(known, moved, means)
        expected = means + displaced
        about = moments[..., 3] - 2 * (moments[..., 1:3] * expected).sum(dim=2)
        about = (about + weights * expected.square().sum(dim=2)).sum(dim=0)
        wider = (about / total.clamp_min(_TINY) / 2).clamp_min(least**2).sqrt()
        spread = torch.where(known[:, 0], wider, spread)
        # Parents of the last step would have no step left to fit the means to them.
        if (
            above is not None
            and candidates is not None
            and len(candidates)
            and step < settings.iterations - 1
        ):
            same = filter_of if above.layer == maps.layer else None
            parents = _chosen_parents(moments, above, candidates, settings.parents, same)
            displaced = _mean_displacement(above.displacements, parents)
    level = LayerNodes(
        name=name,
        layer=maps.layer,
        filters=filter_of.cpu().numpy(),
        means=frame.outward(means),
        homes=frame.outward(means),
        deviations=spread.double().cpu().numpy() * frame.side,
        parents=parents.cpu().numpy(),
        scale=scale,
        explained=_shares(moments[..., 0].sum(dim=0), responses, per_filter),
        grid=maps.grid,
    )
    state = _located(responses, level, above, settings, image)
    weights = state.weights
    total = weights.sum(dim=0)[:, None]
    homes = (state.found * weights[..., None]).sum(dim=0) / total.clamp_min(_TINY)
    return replace(level, homes=frame.outward(torch.where(total > _TINY, homes, means)))


def _shares(explained: Tensor, responses: Tensor, per_filter: int) -> Floats:
    """Return which share of its filter's responses each node explains, ``(nodes,)``."""
    whole = responses.sum(dim=(0, 2)).repeat_interleave(per_filter)
    return (explained / whole.clamp_min(_TINY)).double().cpu().numpy()


def _beginning(
    responses: Tensor, positions: Tensor, per_filter: int, stride: float, generator: torch.Generator
) -> Tensor:
    """Return where the nodes of each filter begin: a single one at the centre of gravity, several far apart."""
    # Drawn on the CPU, so that a seed means the same on every device.
    weights = responses.sum(dim=0).cpu().double()
    weights = torch.where(weights.sum(dim=1, keepdim=True) > 0, weights, torch.ones_like(weights))
    places = positions.cpu().double()
    if per_filter == 1:
        means = (weights @ places / weights.sum(dim=1, keepdim=True))[:, None]
    else:
        # As k-means++ does: each with a chance that grows with the squared distance to those before.
        means = torch.empty(len(weights), per_filter, 2, dtype=torch.float64)
        far = torch.ones_like(weights)
        for node in range(per_filter):
            chance = weights * far
            chance = torch.where(chance.sum(dim=1, keepdim=True) > 0, chance, torch.ones_like(chance))
            drawn = torch.multinomial(chance, 1, generator=generator)[:, 0]
            means[:, node] = places[drawn]
            distance = (places - means[:, node, None]).square().sum(dim=2)
            far = distance if node == 0 else torch.minimum(far, distance)
        for _ in range(_MEANS):
            nearest = (places[None, :, None] - means[:, None]).square().sum(dim=3).argmin(dim=2)
            member = torch.nn.functional.one_hot(nearest, per_filter).double() * weights[..., None]
            total = member.sum(dim=1)[..., None]
            means = torch.where(total > 0, member.transpose(1, 2) @ places / total.clamp_min(_TINY), means)
        # Nodes that begin at one position, for want of others, would stay together.
        means += (torch.rand(means.shape, generator=generator, dtype=torch.float64) - 0.5) * stride
    return means.flatten(0, 1).float().to(responses.device)


def _candidates(above: _Above, settings: GraphSettings, frame: _Frame) -> Tensor:
    """Return the numbers of the nodes above that may be parents: not at the border, and moving."""
    edges = frame.inward(above.grid.centres([0, above.grid.field.shape[0] * above.grid.field.shape[1] - 1]))
    edges = edges.to(above.homes.device)
    margin = settings.border * (edges[1] - edges[0])
    inner = ((above.homes >= edges[0] + margin) & (above.homes <= edges[1] - margin)).all(dim=1)
    spread = above.displacements.var(dim=0).sum(dim=1)
    numbers = torch.nonzero(inner & (spread > 0))[:, 0]
    kept = len(numbers) - int(settings.still * len(numbers))
    # Of those that move equally, the earlier ones.
    order = torch.argsort(spread[numbers], descending=True, stable=True)
    return numbers[order[:kept]].sort().values


def _chosen_parents(
    moments: Tensor, above: _Above, candidates: Tensor, count: int, same: Tensor | None
) -> Tensor:
    """Return for each node the parents whose displacements fit its responses best, ``(nodes, parents)``.

    The misfit of a parent is the weighted variance over images of the difference between the centre of gravity of
    what the node explains and the parent's displacement. Nodes of a filter are no parents of the same filter's.
    """
    moved = above.displacements[:, candidates]
    squares = moved.square().sum(dim=2)
    forbidden = 0 if same is None else int(torch.bincount(above.filters[candidates]).max())
    count = min(count, len(candidates) - forbidden)
    found = torch.empty(moments.shape[1], max(count, 0), dtype=torch.int64, device=moments.device)
    if count < 1:
        return found
    at_once = max(1, _VALUES_AT_ONCE // len(candidates))
    for first in range(0, moments.shape[1], at_once):
        some = slice(first, first + at_once)
        weights, sums = moments[:, some, 0], moments[:, some, 1:3]
        misfit = weights.T @ squares
        total = weights.sum(dim=0).clamp_min(_TINY)[:, None]
        for axis in (0, 1):
            misfit -= 2 * sums[..., axis].T @ moved[..., axis]
            difference = sums[..., axis].sum(dim=0)[:, None] - weights.T @ moved[..., axis]
            misfit -= difference.square() / total
        if same is not None:
            misfit = misfit.masked_fill(same[some, None] == above.filters[candidates][None], torch.inf)
        found[some] = candidates[misfit.topk(count, dim=1, largest=False).indices.sort(dim=1).values]
    return found


def _mean_displacement(displacements: Tensor, parents: Tensor) -> Tensor:
    """Return the mean displacement of each node's parents, ``(n, nodes, 2)``."""
    n, nodes = len(displacements), len(parents)
    found = torch.zeros(n, nodes, 2, device=displacements.device)
    for column in range(parents.shape[1]):
        found += displacements[:, parents[:, column]]
    return found / max(parents.shape[1], 1)


def _located(
    responses: Tensor,
    level: LayerNodes,
    above: _Above | None,
    settings: GraphSettings,
    image: tuple[int, int],
) -> _Located:
    """Return where the nodes of a layer are."""
    frame, device = _Frame(image), responses.device
    n, filters, _ = responses.shape
    expected = frame.inward(level.means).to(device).expand(n, -1, -1)
    if above is not None and level.parents.shape[1]:
        parents = torch.as_tensor(level.parents, device=device)
        expected = expected + _mean_displacement(above.displacements, parents)
    spread = torch.as_tensor(level.deviations / frame.side, dtype=torch.float32, device=device)
    mixture = _Mixture.of(responses, level.grid, settings, image)
    positions = mixture.positions
    values = torch.empty(n, len(level), device=device)
    strongest = torch.empty(n, len(level), dtype=torch.int64, device=device)
    powers = torch.cat([torch.ones_like(positions[:, :1]), positions], dim=1)
    sums = torch.empty(n, len(level), 3, device=device)
    per_filter = len(level) // filters
    for nodes, relative, share in mixture.explained(expected, spread):
        some = slice(nodes.start // per_filter, nodes.stop // per_filter)
        product = (relative * responses[:, some, None]).flatten(1, 2)
        largest = product.amax(dim=2, keepdim=True)
        values[:, nodes] = largest[..., 0]
        # The first of equals, on every device.
        strongest[:, nodes] = (product == largest).int().argmax(dim=2)
        sums[:, nodes] = (share @ powers).flatten(1, 2)
    weights = sums[..., 0]
    seen = ((values > 0) & (weights > _TINY))[..., None]
    if settings.place == "strongest":
        place = positions[strongest]
    else:
        centre = sums[..., 1:3] / weights.clamp_min(_TINY)[..., None]
        # A node without parents has nothing but its own responses.
        own = settings.evidence if level.parents.shape[1] else 1.0
        place = expected + own * (centre - expected)
    return _Located(values, strongest, expected, torch.where(seen, place, expected), weights)


def _responses(
    features: TrunkFeatures, level: LayerNodes, image: tuple[int, int], device: torch.device, rows: slice
) -> Tensor:
    maps = features[level.layer]
    if features.image != image or maps.units != len(level.scale) or maps.shape != level.grid.field.shape:
        raise InputError(
            f"layer {level.layer!r}: {maps.units} maps of {maps.shape} for images of {features.image} px; expected "
            f"{len(level.scale)} of {level.grid.field.shape} for {image} px, as the graph was learned from"
        )
    return maps.normalised(level.scale, rows, device=device).flatten(2)


def _numbers(rows: ArrayLike | None, count: int, name: str) -> Integers:
    chosen = np.arange(count) if rows is None else np.asarray(rows)
    if chosen.dtype == bool and chosen.shape == (count,):
        chosen = np.flatnonzero(chosen)
    if (
        chosen.ndim != 1
        or chosen.dtype.kind not in "iu"
        or (len(chosen) and not 0 <= chosen.min() <= chosen.max() < count)
    ):
        raise InputError(
            f"{name} {chosen.dtype} of shape {chosen.shape}: expected numbers below {count} or a mask"
        )
    return chosen.astype(np.int64)


# -------------------------------------------------------------------------------------------------------------- files


def _fingerprint(
    key: str, settings: GraphSettings, seed: int, image: tuple[int, int], names: Sequence[str]
) -> str:
    said = dump_json([FORMAT, key, asdict(settings), seed, list(image), list(names)])
    return hashlib.sha256(said.encode()).hexdigest()


def _level_file(home: Path, number: int) -> Path:
    return home / f"level-{number:02}.npz"


def _write_level(path: Path, level: LayerNodes, fingerprint: str) -> None:
    field = level.grid.field
    with atomic_path(path) as hidden, hidden.open("wb") as file:
        np.savez_compressed(
            file,
            fingerprint=np.array(fingerprint),
            name=np.array(level.name),
            layer=np.array(level.layer),
            filters=level.filters,
            means=level.means,
            homes=level.homes,
            deviations=level.deviations,
            parents=level.parents,
            scale=level.scale,
            explained=level.explained,
            field=np.array([field.size, field.stride, field.start]),
            shape=np.array(field.shape),
            image=np.array(level.grid.image),
        )


def _read_level(path: Path, fingerprint: str | None) -> LayerNodes | None:
    """Return a level; None if it is missing, damaged, or not the one of the fingerprint, where one is given."""
    from interpretkit.networks.receptive_fields import ReceptiveField

    try:
        with np.load(path, allow_pickle=False) as file:
            if fingerprint is not None and str(file["fingerprint"]) != fingerprint:
                return None
            size, stride, start = ((float(a), float(b)) for a, b in file["field"])
            height, width = map(int, file["shape"])
            layer = str(file["layer"])
            field = ReceptiveField(layer, size, stride, start, (height, width))
            image = tuple(map(int, file["image"]))
            return LayerNodes(
                str(file["name"]), layer, file["filters"], file["means"], file["homes"], file["deviations"],
                file["parents"], file["scale"], file["explained"], UnitGrid(field, (image[0], image[1])),
            )  # fmt: skip
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
