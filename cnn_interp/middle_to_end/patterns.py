"""Patterns of a layer that a person can judge: its filters, concepts found in it, or nodes of an explanatory graph.

What they have in common: how strongly each is seen at every position, what the layer gives without some of them, and
what each adds to a network's outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Protocol, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnn_interp.disentangling.concepts import Concepts, Method, concepts_from, find_concepts
from cnn_interp.disentangling.explanatory_graph import (
    ExplanatoryGraph,
    GraphSettings,
    LayerNodes,
    learn_graph,
)
from cnn_interp.disentangling.features import LayerMaps, TrunkFeatures
from cnn_interp.units.positions import UnitGrid
from interpretkit.errors import InputError
from interpretkit.networks.receptive_fields import ReceptiveField

Kind = Literal["filters", "concepts", "nodes"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Towards = Literal["mean", "zero"]
CONCEPTS, NODES = 16, 2
Floats = NDArray[np.float64]
Arrays = Mapping[str, NDArray[Any]]


class Patterns(Protocol):
    """Patterns of one layer."""

    @property
    def kind(self) -> Kind:
        """Which of ``KINDS`` they are."""
        ...

    @property
    def layer(self) -> str:
        """The layer's dotted name."""
        ...

    @property
    def rest(self) -> Tensor:
        """What units are set to where nothing of them shall be seen, ``(units,)``."""
        ...

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def maps(self, values: Tensor) -> Tensor:
        """Return how strongly each is seen, ``(n, patterns, h, w)``, where the layer gives ``(n, units, h, w)``."""
        ...

    def without(self, values: Tensor, taken: Sequence[int]) -> Tensor:
        """Return what the layer would give without some of them, ``(n, units, h, w)``."""
        ...

    def pull(self, values: Tensor, gradient: Tensor) -> Tensor:
        """Return what each adds to an output at every position, ``(n, patterns, h, w)``.

        It is the output's gradient by what the layer gives, ``(n, units, h, w)``, times what goes when that pattern
        alone is taken out: the fall of the output, to first order; exactly where the rest of the network is linear.
        """
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Return the numbers that they are made of, to be saved."""
        ...

    def description(self) -> dict[str, Any]:
        """Return all else of them, as JSON has it."""
        ...


def _checked(values: Tensor, units: int, layer: str) -> Tensor:
    if values.ndim != 4 or values.shape[1] != units:
        raise InputError(
            f"layer {layer!r}: gives values of shape {tuple(values.shape)}; expected maps of {units} units, as the "
            "patterns are of"
        )
    return values


def _rest(maps: LayerMaps, towards: Towards) -> Tensor:
    """Return what a unit is set to when nothing of it shall be seen, ``(units,)``."""
    if towards not in get_args(Towards):
        raise InputError(f"towards {towards!r}: expected one of {', '.join(get_args(Towards))}")
    if towards == "zero":
        return torch.zeros(maps.units)
    total = np.zeros(maps.units)
    for row in range(len(maps)):
        total += np.asarray(maps.maps[row], dtype=np.float64).mean(axis=(1, 2))
    return torch.from_numpy(total / len(maps)).float()


def _like(tensor: Tensor, values: Tensor) -> Tensor:
    return tensor.to(values.device, values.dtype)


@dataclass(frozen=True, eq=False)
class Filters:
    """The filters of a layer as they are; without one, its map is its mean everywhere.

    Attributes
    ----------
    layer : str
        The layer's name.
    rest : Tensor, (units,)
        What a filter's map is without it.
    """

    layer: str
    rest: Tensor
    kind: Kind = "filters"

    @classmethod
    def of(cls, maps: LayerMaps, *, towards: Towards = "mean") -> Self:
        """Return the filters of a layer, to be set to the mean of these maps or to zero."""
        return cls(maps.layer, _rest(maps, towards))

    def __len__(self) -> int:
        return len(self.rest)

    def maps(self, values: Tensor) -> Tensor:
        """Return the filters' responses, ``(n, filters, h, w)``."""
        return _checked(values, len(self), self.layer)

    def without(self, values: Tensor, taken: Sequence[int]) -> Tensor:
        """Return the layer's maps with some filters' at rest, ``(n, filters, h, w)``."""
        _checked(values, len(self), self.layer)
        out = torch.zeros(len(self), dtype=torch.bool, device=values.device)
        out[list(taken)] = True
        return torch.where(out[:, None, None], _like(self.rest, values)[:, None, None], values)

    def pull(self, values: Tensor, gradient: Tensor) -> Tensor:
        """See :meth:`Patterns.pull`."""
        return gradient * (values - _like(self.rest, values)[:, None, None])

    def tensors(self) -> dict[str, Tensor]:
        """Return the values at rest."""
        return {"rest": self.rest}

    def description(self) -> dict[str, Any]:
        """Return the kind and the layer."""
        return {"kind": self.kind, "layer": self.layer}


@dataclass(frozen=True, eq=False)
class ConceptPatterns:
    """Concepts of a layer; without one, nothing of its direction is seen at any position.

    Responses are divided by the concepts' scale. What they are more than at rest is projected on the directions of
    the concepts that are taken out, and that is taken off: afterwards no linear function of what is left tells where
    they were.

    Attributes
    ----------
    concepts : Concepts
        Them.
    rest : Tensor, (units,)
        Towards what they are taken out.
    """

    concepts: Concepts
    rest: Tensor
    kind: Kind = "concepts"

    @classmethod
    def of(cls, concepts: Concepts, maps: LayerMaps, *, towards: Towards = "mean") -> Self:
        """Return concepts to be taken out towards the mean of these maps, or towards zero."""
        return cls(concepts, _rest(maps, towards))

    @property
    def layer(self) -> str:
        """The layer's name."""
        return self.concepts.layer

    def __len__(self) -> int:
        return len(self.concepts)

    def maps(self, values: Tensor) -> Tensor:
        """Return the concepts' codes, ``(n, concepts, h, w)``."""
        _checked(values, len(self.rest), self.layer)
        flat = values.detach().float().cpu().permute(0, 2, 3, 1).flatten(0, 2) / self._scale(self.rest)
        codes = self.concepts.encoder(flat)
        shape = (values.shape[0], *values.shape[2:], len(self))
        return codes.reshape(shape).permute(0, 3, 1, 2).to(values.device)

    def without(self, values: Tensor, taken: Sequence[int]) -> Tensor:
        """Return the layer's maps without some concepts, ``(n, units, h, w)``."""
        _checked(values, len(self.rest), self.layer)
        basis = self._basis(taken).to(values)
        scale = self._scale(values)[:, None, None]
        more = (values - _like(self.rest, values)[:, None, None]) / scale
        seen = torch.einsum("kd,ndhw->nkhw", basis, more)
        return values - scale * torch.einsum("kd,nkhw->ndhw", basis, seen)

    def pull(self, values: Tensor, gradient: Tensor) -> Tensor:
        """See :meth:`Patterns.pull`."""
        _checked(values, len(self.rest), self.layer)
        scale = self._scale(values)[:, None, None]
        length = np.linalg.norm(self.concepts.directions, axis=1, keepdims=True)
        unit = torch.from_numpy(self.concepts.directions / np.where(length > 0, length, 1.0)).to(values)
        seen = torch.einsum("kd,ndhw->nkhw", unit, (values - _like(self.rest, values)[:, None, None]) / scale)
        return seen * torch.einsum("kd,ndhw->nkhw", unit, gradient * scale)

    def tensors(self) -> dict[str, Tensor]:
        """Return directions, means and encoder."""
        arrays = {name: value for name, value in self.concepts.arrays().items() if value.dtype.kind != "U"}
        return {"rest": self.rest} | {
            name: torch.from_numpy(np.array(value, order="C")) for name, value in arrays.items()
        }

    def description(self) -> dict[str, Any]:
        """Return the kind, the layer, and how the concepts were found."""
        return {"kind": self.kind, "layer": self.layer, "method": self.concepts.method}

    def _scale(self, like: Tensor) -> Tensor:
        return torch.from_numpy(self.concepts.scale).to(like)

    def _basis(self, taken: Sequence[int]) -> Tensor:
        """Return an orthonormal basis of directions, ``(at most as many, units)``."""
        chosen = self.concepts.directions[list(taken)]
        if not len(chosen):
            return torch.zeros(0, self.concepts.directions.shape[1])
        _, sizes, basis = np.linalg.svd(chosen, full_matrices=False)
        return torch.from_numpy(basis[sizes > 1e-6 * max(float(sizes.max()), 1e-12)])


@dataclass(frozen=True, eq=False)
class Nodes:
    """Nodes of an explanatory graph of one layer; without one, its filter is at rest about where the node is.

    How far it is at rest falls with the distance from the node's place in that image, as the node's density does.

    Attributes
    ----------
    graph : ExplanatoryGraph
        All its levels are of one layer.
    rest : Tensor, (units,)
        What the filters are at rest.
    """

    graph: ExplanatoryGraph
    rest: Tensor
    kind: Kind = "nodes"

    def __post_init__(self) -> None:
        several = list(dict.fromkeys(level.layer for level in self.graph.levels))
        if len(several) > 1:
            raise InputError(f"graph: is of the layers {', '.join(several)}; expected a graph of one layer")

    @classmethod
    def of(cls, graph: ExplanatoryGraph, maps: LayerMaps, *, towards: Towards = "mean") -> Self:
        """Return the nodes of a graph, with filters that are at rest at the mean of these maps or at zero."""
        return cls(graph, _rest(maps, towards))

    @property
    def level(self) -> LayerNodes:
        """The level whose nodes they are."""
        return self.graph.levels[-1]

    @property
    def layer(self) -> str:
        """The layer's name."""
        return self.level.layer

    def __len__(self) -> int:
        return len(self.level)

    def maps(self, values: Tensor) -> Tensor:
        """Return responses over their scale times the nodes' densities about where they are, ``(n, nodes, h, w)``."""
        seen = self._windows(values) * values.clamp_min(0)[:, self._filters]
        return seen / torch.from_numpy(self.level.scale).to(values)[self._filters][:, None, None]

    def without(self, values: Tensor, taken: Sequence[int]) -> Tensor:
        """Return the layer's maps with the filters of some nodes at rest about where these are."""
        windows = self._windows(values)
        left = torch.ones_like(values)
        for node in taken:
            left[:, int(self.level.filters[node])] *= 1 - windows[:, node]
        rest = _like(self.rest, values)[:, None, None]
        return rest + left * (values - rest)

    def pull(self, values: Tensor, gradient: Tensor) -> Tensor:
        """See :meth:`Patterns.pull`."""
        more = gradient * (values - _like(self.rest, values)[:, None, None])
        return self._windows(values) * more[:, self._filters]

    @property
    def _filters(self) -> list[int]:
        return self.level.filters.tolist()

    def _windows(self, values: Tensor) -> Tensor:
        """Return how far each node's place takes in each position, 1 at the place itself, ``(n, nodes, h, w)``."""
        _checked(values, len(self.rest), self.layer)
        grid = self.level.grid
        if tuple(values.shape[2:]) != tuple(grid.field.shape):
            raise InputError(
                f"layer {self.layer!r}: gives maps of {values.shape[2]} × {values.shape[3]} positions; expected those "
                "of the images that the graph was learned from"
            )
        maps = LayerMaps(self.layer, values.detach().float().cpu().numpy(), grid)
        located = self.graph.locate(TrunkFeatures({self.layer: maps}, self.graph.image, ""))
        places = located[self.level.name].positions
        # Between positions nothing is known, so that a window reaches one at least.
        wide = np.maximum(self.level.deviations, 0.5 * max(grid.field.stride))
        away = ((maps.positions[None, None] - places[:, :, None]) ** 2).sum(axis=3) / wide[None, :, None] ** 2
        windows = torch.from_numpy(np.exp(-0.5 * away)).to(values)
        return windows.reshape(*windows.shape[:2], *values.shape[2:])

    def tensors(self) -> dict[str, Tensor]:
        """Return the levels' numbers."""
        found = {"rest": self.rest}
        for number, level in enumerate(self.graph.levels):
            for entry in fields(level):
                value = getattr(level, entry.name)
                if isinstance(value, np.ndarray):
                    found[f"level_{number}_{entry.name}"] = torch.from_numpy(np.array(value, order="C"))
        field, image = self.level.grid.field, self.level.grid.image
        grid = (*field.size, *field.stride, *field.start, *field.shape, *image)
        return found | {"grid": torch.tensor(grid, dtype=torch.float64)}

    def description(self) -> dict[str, Any]:
        """Return the kind, the layer, and how the graph was learned."""
        return {
            "kind": self.kind,
            "layer": self.layer,
            "levels": list(self.graph.names),
            "settings": asdict(self.graph.settings),
            "seed": self.graph.seed,
            "image": list(self.graph.image),
            "key": self.graph.key,
        }


def patterns_from(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Patterns:
    """Return the patterns of which description and tensors were saved.

    Raises
    ------
    InputError
        If they are not whole.
    """
    try:
        kind, layer, rest = description["kind"], str(description["layer"]), tensors["rest"].float()
        if rest.ndim != 1 or not bool(rest.isfinite().all()):
            raise ValueError("values at rest that are not finite")
        if kind == "filters":
            return Filters(layer, rest)
        if kind == "concepts":
            arrays = {name: value.numpy() for name, value in tensors.items() if name != "rest"}
            named = {"method": np.array(str(description["method"])), "layer": np.array(layer)}
            concepts = concepts_from(arrays | named)
            if concepts.directions.ndim != 2 or concepts.directions.shape[1] != len(rest):
                raise ValueError(f"directions of shape {concepts.directions.shape} for {len(rest)} units")
            return ConceptPatterns(concepts, rest)
        if kind == "nodes":
            return Nodes(_graph(description, tensors, layer), rest)
        raise ValueError(f"kind {kind!r}")
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"patterns: are damaged ({error}); expected those that were saved") from error


def _graph(description: Mapping[str, Any], tensors: Mapping[str, Tensor], layer: str) -> ExplanatoryGraph:
    size = tensors["grid"].tolist()
    pairs = [tuple(size[place : place + 2]) for place in range(0, 10, 2)]
    image = (int(pairs[4][0]), int(pairs[4][1]))
    shape = (int(pairs[3][0]), int(pairs[3][1]))
    grid = UnitGrid(ReceptiveField(layer, pairs[0], pairs[1], pairs[2], shape), image)  # type: ignore[arg-type]
    named = [entry.name for entry in fields(LayerNodes) if entry.name not in ("name", "layer", "grid")]
    levels = tuple(
        LayerNodes(
            name=str(name), layer=layer, grid=grid,
            **{one: tensors[f"level_{number}_{one}"].numpy() for one in named},
        )
        for number, name in enumerate(description["levels"])
    )  # fmt: skip
    counts = description["settings"]["nodes_per_filter"]
    counts = tuple(counts) if isinstance(counts, list) else counts
    settings = GraphSettings(**{**description["settings"], "nodes_per_filter": counts})
    return ExplanatoryGraph(levels, settings, int(description["seed"]), image, str(description["key"]))


def find_patterns(
    features: TrunkFeatures,
    layer: str,
    kind: Kind,
    *,
    count: int | None = None,
    method: Method = "nmf",
    towards: Towards = "mean",
    rows: Sequence[int] | None = None,
    seed: int = 0,
    quiet: bool = True,
) -> Patterns:
    """Return the patterns of a layer, found in a user's images.

    Parameters
    ----------
    features : TrunkFeatures
        Of the images.
    layer : str
        The layer.
    kind : str
        One of ``KINDS``.
    count : int, optional
        How many concepts, by default 16 or as many as the layer has units; or how many nodes for each filter, by
        default 2.
    method : str
        How concepts are found; see :func:`~cnn_interp.disentangling.concepts.find_concepts`.
    towards : str
        Whether patterns are taken out towards the ``mean`` of the images, or towards ``zero``.
    rows : sequence of int, optional
        From which images; all by default.
    seed : int
        Of all random numbers.
    quiet : bool
        Whether to show no progress bar.

    Raises
    ------
    InputError
        If the kind is unknown, or as :func:`find_concepts` and :func:`learn_graph` do.
    """
    if kind not in KINDS:
        raise InputError(f"kind {kind!r}: expected one of {', '.join(KINDS)}")
    some = features if rows is None else features.subset(rows)
    maps = some[layer]
    if kind == "filters":
        return Filters.of(maps, towards=towards)
    if count is None:
        count = min(CONCEPTS, maps.units) if kind == "concepts" else NODES
    if kind == "concepts":
        return ConceptPatterns.of(find_concepts(maps, method, count, seed=seed), maps, towards=towards)
    graph = learn_graph(
        some, [layer], settings=replace(GraphSettings(), nodes_per_filter=count), seed=seed, quiet=quiet
    )
    return Nodes.of(graph, maps, towards=towards)


def strongest(patterns: Patterns, maps: LayerMaps, *, at_once: int = 16) -> tuple[Floats, NDArray[np.int64]]:
    """Return how strongly each pattern is seen in each image at most, and at which position, ``(n, patterns)`` each."""
    from cnn_interp.units.positions import strongest_places

    values, places = [], []
    for start in range(0, len(maps), at_once):
        some = patterns.maps(maps.tensor(slice(start, start + at_once)))
        value, place = strongest_places(some)
        values.append(value.double().numpy())
        places.append(place.numpy())
    return np.concatenate(values), np.concatenate(places)
