"""Which parts of objects a network's filters mix, and how they lie to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cnn_interp.commands._loading import ARTICULATED
from cnn_interp.commands._options import Model, Weights
from cnn_interp.commands.cnn.disentangle._one_kind import (
    Category,
    Count,
    OneKind,
    OneKindData,
    check_one_kind,
    load_one_kind,
)
from interpretkit.commandline import Column, Device, Finding, Quiet, Seed, command, listed
from interpretkit.commandline.caution import no_better
from interpretkit.commandline.finding import Here
from interpretkit.errors import InputError
from interpretkit.runs.folder import Run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnn_interp.disentangling.comparison import Scores, Units
    from cnn_interp.disentangling.explanatory_graph import (
        ExplanatoryGraph,
        GraphSettings,
        LayerNodes,
        NodePlaces,
    )
    from cnn_interp.disentangling.features import TrunkFeatures
    from cnn_interp.images.sets import Images
    from cnn_interp.metrics.location_instability import LocationInstability
    from cnn_interp.networks.network import Network

# Annotated images from which parts are located, and how often they are drawn.
_ANNOTATED, _DRAWS = 3, 5
# Nodes and images of each that are drawn.
_NODES, _BROWSED, _PATCHES, _IN_IMAGES = 8, 24, 8, 3
_UNIT_COLUMNS = {
    "layer": Column("the layer"),
    "units": Column("filters, or nodes of the graph", heading="what"),
    "located by": Column("how the place of a unit in an image is told"),
    "number": Column("how many units"),
    "instability": Column("location instability, mean of units and parts; less is steadier", format=".3f"),
    "moving": Column(
        "spread of the median unit's places over that of the part; 0 stands still", format=".2f"
    ),
    "median R²": Column("tracking R² of the median unit; 1 follows a part, 0 stands still", format="+.2f"),
    "best R²": Column("tracking R² of the best unit on these images", format="+.2f"),
    "chosen R²": Column("tracking R² of the unit that is best on the other half of them", format="+.2f"),
}
_PART_COLUMNS = {
    "layer": Column("the layer"),
    "units": Column("what tells where parts are", heading="located by"),
    "error": Column("mean distance to the landmark over the diagonal", format=".3f"),
    "baseline": Column("that of the mean of the annotated landmarks", format=".3f"),
}
_NODE_COLUMNS = {
    "layer": Column("the layer"),
    "node": Column("number of the node in its layer"),
    "filter": Column("the filter whose responses it explains"),
    "row": Column("row where it is on average", "px", format=".0f"),
    "column": Column("column where it is on average", "px", format=".0f"),
    "deviation": Column("spread of what it explains about its place, along an axis", "px", format=".0f"),
    "explained": Column("share of the filter's responses that it explains", format=".0%"),
    "parents": Column("nodes of the layer above that place it"),
    "children": Column("nodes of the layer below that it places"),
    "seen": Column("share of the images in which it is seen", format=".0%"),
    "part": Column("the part that it follows best"),
    "R²": Column("how well it follows that part", format="+.2f"),
}
_TRANSFER_COLUMNS = {
    "layer": Column("the layer"),
    "nodes": Column("how many nodes"),
    "seen here": Column("share of nodes seen in an image of the first set, mean", format=".0%"),
    "seen there": Column("share of nodes seen in a new image, mean", format=".0%"),
    "strength": Column("how strongly nodes are seen in new images, over the first set; median", format=".2f"),
}


@command(
    out="explanatory-graph",
    example=[
        "interpretkit cnn disentangle graph",
        "interpretkit cnn disentangle graph --data animal-part=animal-part --category horse --images 400",
        "interpretkit cnn disentangle graph --data images=horses --transfer zebras --model vgg16",
    ],
)
def graph(
    model: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    layer: Annotated[
        str,
        typer.Option(
            "--layer",
            metavar="NAME,...",
            help="Layers that give maps; by default the last of each of the two smallest sizes of maps.",
        ),
    ] = "",
    data: OneKindData = ARTICULATED,
    category: Category = "",
    images: Count = 120,
    nodes: Annotated[
        int | None,
        typer.Option(
            "--nodes", metavar="N", min=1, help="Nodes of each filter; 2 by default.", show_default=False
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            "--rounds",
            metavar="N",
            min=1,
            help="How often the highest layer is gone through, so that its nodes have parents; 4 by default.",
            show_default=False,
        ),
    ] = None,
    parents: Annotated[
        int | None,
        typer.Option(
            "--parents",
            metavar="N",
            min=1,
            help="Parents of a node, at most; 15 by default.",
            show_default=False,
        ),
    ] = None,
    learned: Annotated[
        Path | None,
        typer.Option(
            "--graph",
            metavar="DIR",
            help="An earlier result: its graph is taken, and nothing is learned.",
            show_default=False,
        ),
    ] = None,
    transfer: Annotated[
        Path | None,
        typer.Option(
            "--transfer",
            metavar="FOLDER",
            help="New images, in which the nodes are found as well.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    *,
    run: Run,
) -> Finding:
    """Take the filters of a network apart into parts of an object: an explanatory graph.

    Each filter's responses are divided among nodes, places relative to nodes of the layer above, by expectation
    maximisation and without annotations. Writes graph/ (GraphML and npz), nodes.csv, places.npz, patches and
    report.html; where parts are annotated, nodes stand beside filters and a unit that never moves. A run that was
    interrupted goes on when it is started again.
    """
    check_one_kind(data, category)
    check_transfer(transfer)
    given = {"--layer": layer or None, "--nodes": nodes, "--rounds": rounds, "--parents": parents}
    if learned is not None:
        for option, value in given.items():
            if value is not None:
                raise InputError(
                    f"{option} {value}: is that of the graph given by --graph; leave one of them out"
                )
    from cnn_interp.disentangling.explanatory_graph import GraphSettings, learn_graph, load_graph
    from cnn_interp.disentangling.features import trunk_features
    from cnn_interp.networks.loading import load_network

    known = (
        None
        if learned is None
        else load_graph(learned / "graph" if (learned / "graph").is_dir() else learned)
    )
    kind = load_one_kind(data, category, images, seed)
    network = load_network(model, weights=weights, device=device, seed=seed)
    if known is None:
        layers = graph_layers(network, layer)
        settings = GraphSettings()
        settings = GraphSettings(
            nodes_per_filter=nodes or settings.nodes_per_filter,
            rounds=rounds or settings.rounds,
            parents=parents or settings.parents,
        )
    else:
        layers, settings = list(dict.fromkeys(level.layer for level in known.levels)), known.settings
    files = [*kind.files, *([] if learned is None else [learned]), *([] if transfer is None else [transfer])]
    with run.kept(network.digest(), files=files, without=["device"]) as work:
        features = trunk_features(network, kind.images, layers, work / "features", quiet=quiet)
        found_graph = known or learn_graph(
            features, layers, rows=kind.learned, settings=settings, seed=seed, device=device, folder=work / "graph",
            quiet=quiet,
        )  # fmt: skip
        found_graph.save(run.path("graph/graph.json").parent)
        places = found_graph.locate(features, device=device, quiet=quiet)
        measured = (
            None if kind.parts is None else _measure(found_graph, features, kind, network, seed, device)
        )
        found = _headline(found_graph, kind, network.name, measured, known is not None).reads(*files)
        _add_measured(found, measured, kind)
        _add_nodes(found, found_graph, places, kind, measured)
        if transfer is not None:
            _add_transfer(found, found_graph, places, kind, network, transfer, work, device, quiet)
    _add_method(found, found_graph, kind, settings)
    same = [
        "--model",
        model,
        "--weights",
        weights,
        "--data",
        data,
        *(["--category", category] if category else []),
    ]
    found.next_step(
        "Find these nodes in images of your own:", "interpretkit cnn disentangle graph", *same, "--graph", Here(),
        "--transfer", "FOLDER",
    )  # fmt: skip
    return found.next_step(
        "Take the same layer apart into concepts:", "interpretkit cnn disentangle concepts --model", model, "--layer",
        layers[-1],
    )  # fmt: skip


def check_transfer(folder: Path | None) -> None:
    """Refuse a folder without images, before anything is loaded."""
    if folder is not None:
        from cnn_interp.images.folders import read_folder

        read_folder(folder)


def graph_layers(network: Network, text: str) -> list[str]:
    """Return the layers of a graph, the one nearest to the network's output first.

    Without names these are, of the network's stages, the last of each of the two smallest sizes of maps that have more
    than one position.

    Raises
    ------
    InputError
        If there is no layer of a name, or it gives no maps, or only of one position.
    """
    import torch

    from cnn_interp.diagnosis.layer_features import stages
    from interpretkit.networks.instrumentation import find_layer
    from interpretkit.networks.recording import map_layers

    names = list(dict.fromkeys(listed(text)))
    for name in names:
        find_layer(network.module, name)
    blank = torch.zeros(1, 3, network.size, network.size, device=network.device)
    shapes = map_layers(network.module, blank)
    maps = {name: shape[1:] for name, shape in shapes.items() if shape[1] * shape[2] > 1}
    for name in names:
        if name not in maps:
            raise InputError(f"layer {name}: gives no maps of several positions; expected a layer that does")
    if names:
        return [name for name in reversed(maps) if name in names]
    last = {maps[name]: name for name in stages(network.module, blank, most=len(shapes)) if name in maps}
    if not last:
        raise InputError(f"model {network.name}: has no layer that gives maps of several positions")
    return [last[size] for size in sorted(last, key=lambda size: size[0] * size[1])[:2]]


@dataclass(frozen=True)
class _Measured:
    """Filters and nodes of each layer, measured on annotated images.

    Attributes
    ----------
    scores : dict of str to list of Scores
        From layer to a row for each system and readout.
    constant : Scores
        Of a unit that is always in the middle.
    by_unit : dict of str to dict of str to LocationInstability
        From layer to system and readout to what was measured of each unit.
    errors : dict of str to dict of str to float
        From layer to the errors of parts located from a few annotations.
    """

    scores: dict[str, list[Scores]]
    constant: Scores
    by_unit: dict[str, dict[str, LocationInstability]]
    errors: dict[str, dict[str, float]]

    def row(self, layer: str, system: str, readout: str) -> Scores:
        """Return one row."""
        return next(row for row in self.scores[layer] if (row.system, row.readout) == (system, readout))


def _measure(
    graph: ExplanatoryGraph,
    features: TrunkFeatures,
    kind: OneKind,
    network: Network,
    seed: int,
    device: str,
) -> _Measured | None:
    """Measure filters and nodes against annotated parts; None if no part is shown by two images."""
    import numpy as np

    from cnn_interp.disentangling.comparison import constant_scores, filter_units, node_units, place_scores
    from cnn_interp.disentangling.part_localization import few_annotations
    from cnn_interp.metrics.location_instability import location_instability

    landmarks = kind.landmarks(network)
    if not landmarks.shape[1]:
        return None
    image = features.image
    scores: dict[str, list[Scores]] = {}
    by_unit: dict[str, dict[str, LocationInstability]] = {}
    errors: dict[str, dict[str, float]] = {}
    for layer in dict.fromkeys(level.layer for level in graph.levels):
        systems: list[Units] = [
            filter_units(
                features[layer], kind.measured, kind.learned, scale=graph.last(layer).scale,
                share=graph.settings.evidence,
            ),
            node_units(graph, layer, features, kind.measured, device=device),
        ]  # fmt: skip
        scores[layer] = [row for units in systems for row in place_scores(units, landmarks, image)]
        readouts = {
            f"{units.system}, {readout}": found
            for units in systems
            for readout, found in units.readouts.items()
        }
        by_unit[layer] = {
            name: location_instability(values, positions, landmarks, image, part_names=kind.part_names)
            for name, (values, positions) in readouts.items()
        }
        drawn = [
            few_annotations(readouts, landmarks, image, annotated=_ANNOTATED, seed=seed, draw=draw)
            for draw in range(_DRAWS)
        ]
        errors[layer] = {name: float(np.mean([one[name] for one in drawn])) for name in drawn[0]}
    return _Measured(scores, constant_scores(landmarks, image), by_unit, errors)


def _headline(
    graph: ExplanatoryGraph, kind: OneKind, network: str, measured: _Measured | None, given: bool
) -> Finding:
    """Say how large the graph is, and whether its nodes follow parts better than filters do."""
    from cnn_interp.disentangling.comparison import FILTERS, NODES, POSTERIOR, STRONGEST

    layers = list(dict.fromkeys(level.layer for level in graph.levels))
    last = {layer: graph.last(layer) for layer in layers}
    nodes, edges = sum(map(len, last.values())), sum(level.parents.size for level in last.values())
    learned = "an earlier run" if given else f"{len(kind.learned)} images"
    lead = f"{nodes} nodes in {', '.join(layers)}, learned from {learned} without annotations. "
    found = Finding(f"The parts of a {kind.category} in the filters of {network}", lead)
    found.number("nodes", nodes, note=f"of {sum(len(level.scale) for level in last.values())} filters")
    found.number("edges", edges, "edges to parents")
    if measured is None:
        found.lead += "Without annotated parts there is nothing to measure nodes by."
        return found
    layer = layers[-1]
    raw, node = measured.row(layer, FILTERS, STRONGEST), measured.row(layer, NODES, POSTERIOR)
    found.lead += (
        f"In {layer} the median node explains {_percent(node.median_tracking)} of the movement of a part, the median "
        f"filter {_percent(raw.median_tracking)}. Nodes keep their distance from parts to {node.instability:.3f} of "
        f"the diagonal, filters to {raw.instability:.3f}; a unit that never moves has "
        f"{measured.constant.instability:.3f}, so that steadiness alone says little."
    )
    at = "at their strongest positions"
    found.number("instability", node.instability, "instability of nodes", format=".3f", note=layer)
    found.number("instability_filters", raw.instability, "of filters", format=".3f", note=at)
    found.number(
        "instability_constant", measured.constant.instability, "always the centre", format=".3f",
        note="what a unit that never moves has",
    )  # fmt: skip
    found.number(
        "median_tracking_r2", node.median_tracking, "median tracking R² of nodes", format="+.2f",
        note="0 stands still",
    )  # fmt: skip
    found.number("median_tracking_r2_filters", raw.median_tracking, "of filters", format="+.2f", note=at)
    return found


def _percent(share: float) -> str:
    return f"{share:.0%}" if share > 0 else "nothing"


def _add_measured(found: Finding, measured: _Measured | None, kind: OneKind) -> None:
    """Set nodes beside filters and what never moves, and parts located by them beside the mean."""
    if measured is None:
        return
    from cnn_interp.disentangling.comparison import (
        CENTRE,
        DRAWN_IN,
        FILTERS,
        NODES,
        POSTERIOR,
        STRONGEST,
    )
    from cnn_interp.disentangling.part_localization import ANNOTATED_MEAN
    from cnn_interp.disentangling.pictures import tracking_boxes

    rows = []
    for layer, scores in measured.scores.items():
        rows += [_units_row(layer, row) for row in scores]
        node, raw = measured.row(layer, NODES, POSTERIOR), measured.row(layer, FILTERS, STRONGEST)
        still = measured.row(layer, FILTERS, DRAWN_IN)
        found.values[layer] = {
            **{f"{name}_instability": row.instability for name, row in (("nodes", node), ("filters", raw))},
            "instability_ratio": node.instability / raw.instability,
            "constant_instability": measured.constant.instability,
            **{
                f"{name}_{measure}": getattr(row, measure)
                for name, row in (("nodes", node), ("filters", raw), ("filters_drawn_in", still))
                for measure in ("median_tracking", "best_tracking", "chosen_tracking")
            },
            "part_errors": measured.errors[layer],
        }
        found.warn(
            *no_better(
                f"the instability of nodes in {layer}", node.instability, "that of a unit which never moves",
                measured.constant.instability, lower_is_better=True,
            ),
            *no_better(
                f"the median tracking R² of nodes in {layer}", node.median_tracking,
                "that of filters drawn to their means", still.median_tracking,
            ),
        )  # fmt: skip
    rows.append(_units_row("", measured.constant))
    section = found.section(
        "Nodes beside filters",
        "A filter is where it is strongest, as published; or at the centre of gravity of its responses, which is "
        "steadier by itself; or there, drawn to its mean as far as a node is drawn to where its parents expect it. "
        "What nodes have beyond the last comes from the edges of the graph. Measured on "
        f"{len(kind.measured)} images that a graph of these data is not learned from.",
    )
    section.table("units.csv", rows, _UNIT_COLUMNS, in_terminal=True)
    shown = {
        layer: {
            name: result.tracking[0].T.mean(axis=1).clip(-3, 1)
            for name, result in results.items()
            if name != f"{NODES}, {STRONGEST}" and name != f"{FILTERS}, {CENTRE}"
        }
        for layer, results in measured.by_unit.items()
    }
    section.figure(
        "tracking.png",
        tracking_boxes(
            shown, "tracking R² of a unit, mean over parts (below −3 as −3)", 0.0, "stands still: R² 0"
        ),
        "Boxes: quartiles of the units; whiskers: 5 % and 95 %.",
    )
    errors = [
        {"layer": layer, "units": name, "error": error, "baseline": one[ANNOTATED_MEAN]}
        for layer, one in measured.errors.items()
        if ANNOTATED_MEAN in one
        for name, error in one.items()
        if name != ANNOTATED_MEAN
    ]
    if not errors:
        return
    found.section(
        "Parts located by nodes",
        f"From {_ANNOTATED} annotated images those ten units are chosen that keep their offset from a part best; they "
        f"tell where it is in all others. Mean of {_DRAWS} draws and of the parts "
        f"{', '.join(kind.part_names)}.",
    ).table("localization.csv", errors, _PART_COLUMNS)
    for layer, one in measured.errors.items():
        if ANNOTATED_MEAN in one:
            found.warn(
                *no_better(
                    f"the error of parts located by nodes in {layer}", one[f"{NODES}, {POSTERIOR}"],
                    "that of the mean of the annotated", one[ANNOTATED_MEAN], lower_is_better=True,
                )
            )  # fmt: skip


def _units_row(layer: str, row: Scores) -> dict[str, object]:
    return {
        "layer": layer or "any",
        "units": row.system,
        "located by": row.readout,
        "number": row.units,
        "instability": row.instability,
        "moving": row.moving,
        "median R²": row.median_tracking,
        "best R²": row.best_tracking,
        "chosen R²": row.chosen_tracking,
    }


def _add_nodes(
    found: Finding,
    graph: ExplanatoryGraph,
    places: Mapping[str, NodePlaces],
    kind: OneKind,
    measured: _Measured | None,
) -> None:
    """Show nodes as patches, with their parents, and keep all of them in a table and arrays."""
    import numpy as np

    from cnn_interp.disentangling.comparison import NODES, POSTERIOR
    from cnn_interp.disentangling.pictures import layers_figure, node_strips, parents_figure, strips_figure
    from interpretkit.visualization.instruments import Gallery, Item

    layers = list(dict.fromkeys(level.layer for level in graph.levels))
    table = []
    for layer in layers:
        level, here = graph.last(layer), places[graph.last(layer).name]
        followed = None if measured is None else measured.by_unit[layer][f"{NODES}, {POSTERIOR}"]
        table += _nodes_rows(graph, level, here, followed)
        chosen = clearest_nodes(level, here, _BROWSED)
        section = found.section(f"Nodes of {layer}")
        if not chosen:
            section.note("No node is seen in any image.")
            continue
        titles = [f"node {node}\nfilter {level.filters[node]}" for node in chosen]
        strips = node_strips(graph, level, here, kind.images, chosen, count=_PATCHES)
        section.text(
            "Each node in the images in which it is seen most strongly, cut to the receptive field about its place (a "
            "third of the image at most)."
        ).instrument(
            Gallery(
                [
                    Item(
                        f"{layer} node {node}",
                        strip,
                        f"filter {level.filters[node]}",
                        numbers={"share of images": round(float((here.values[:, node] > 0).mean()), 3)},
                    )
                    for node, strip in zip(chosen, strips, strict=True)
                ],
                placeholder="a filter",
                side=26,
                label=f"Nodes of {layer}, to browse",
            )
        )
        section.figure(
            f"{layer}-patches.png",
            strips_figure(list(zip(titles, strips, strict=True))[:_NODES]),
            "Each row: a node in the images in which it is seen most strongly, cut to the receptive field about its "
            "place (a third of the image at most).",
            alt=f"Patches of nodes of {layer}.",
            on_page=False,
        )
        if level.parents.shape[1]:
            section.figure(
                f"{layer}-parents.png",
                parents_figure(graph, level, places, kind.images, chosen[:_IN_IMAGES]),
                "Ring: the node. Dots: its parents in the layer above, from which it is expected there.",
                alt=f"Nodes of {layer} with their parents in images.",
            )
    drawn = drawn_levels(graph)
    chosen = clearest_nodes(drawn[-1], places[drawn[-1].name], 6)
    if len(drawn) > 1 and chosen:
        found.section("The graph").figure(
            "graph.png",
            layers_figure(graph, drawn, places, kind.images, chosen),
            "Six nodes of the lowest layer, those of their parents that most of them share, and so on upwards.",
        )
    found.table("nodes.csv", table, _NODE_COLUMNS)
    found.arrays(
        "places.npz",
        **{
            f"{layer}.{name}": getattr(places[graph.last(layer).name], name).astype(np.float32)
            for layer in layers
            for name in ("values", "positions")
        },
        images=np.array(kind.images.ids),
    )


def drawn_levels(graph: ExplanatoryGraph) -> list[LayerNodes]:
    """Return the last level of each layer; of a single layer the last two rounds."""
    levels = [
        level
        for level, after in zip(graph.levels, [*graph.levels[1:], None], strict=True)
        if after is None or after.layer != level.layer
    ]
    return levels if len(levels) > 1 else list(graph.levels[-2:])


def clearest_nodes(level: LayerNodes, places: NodePlaces, count: int) -> list[int]:
    """Return the nodes that are seen most clearly, at most one of each filter, the clearest first."""
    import numpy as np

    clear = places.values.mean(axis=0) * level.explained
    order = np.argsort(-clear, kind="stable")
    order = order[clear[order] > 0]
    _, first = np.unique(level.filters[order], return_index=True)
    return order[np.sort(first)][:count].tolist()


def _nodes_rows(
    graph: ExplanatoryGraph, level: LayerNodes, places: NodePlaces, measured: LocationInstability | None
) -> list[dict[str, object]]:
    """Return a row for each node of a level."""
    import numpy as np

    below = graph.levels.index(level) + 1
    children = np.zeros(len(level), dtype=int)
    if below < len(graph.levels):
        np.add.at(children, graph.levels[below].parents, 1)
    seen = (places.values > 0).mean(axis=0)
    rows: list[dict[str, object]] = []
    for node in range(len(level)):
        row: dict[str, object] = {
            "layer": level.layer,
            "node": node,
            "filter": int(level.filters[node]),
            "row": float(level.homes[node, 0]),
            "column": float(level.homes[node, 1]),
            "deviation": float(level.deviations[node]),
            "explained": float(level.explained[node]),
            "parents": level.parents.shape[1],
            "children": int(children[node]),
            "seen": float(seen[node]),
        }
        if measured is not None:
            tracking = measured.tracking[0, :, node]
            known = not np.isnan(tracking).all()
            part = int(np.nanargmax(tracking)) if known else 0
            row |= {"part": measured.part_names[part] if known else None, "R²": float(tracking[part])}
        rows.append(row)
    return rows


def _add_transfer(
    found: Finding,
    graph: ExplanatoryGraph,
    places: Mapping[str, NodePlaces],
    kind: OneKind,
    network: Network,
    folder: Path,
    work: Path,
    device: str,
    quiet: bool,
) -> None:
    """Find the nodes in new images, and show them beside where they were learned."""
    import numpy as np

    from cnn_interp.disentangling.features import trunk_features
    from cnn_interp.disentangling.pictures import node_strips, strips_figure
    from cnn_interp.images.folders import read_folder

    images: Images = read_folder(folder)
    layers = list(dict.fromkeys(level.layer for level in graph.levels))
    features = trunk_features(network, images, layers, work / "features", quiet=quiet)
    new = graph.locate(features, device=device, quiet=quiet)
    section = found.section(
        f"The nodes in {images.name}",
        f"{len(images)} new images, in which the same nodes are looked for. Nothing is learned from them.",
    )
    rows = []
    for layer in layers:
        level = graph.last(layer)
        here, there = places[level.name], new[level.name]
        known = here.values.mean(axis=0)
        strength = there.values.mean(axis=0)[known > 0] / known[known > 0]
        rows.append(
            {
                "layer": layer,
                "nodes": len(level),
                "seen here": float((here.values > 0).mean()),
                "seen there": float((there.values > 0).mean()),
                "strength": float(np.median(strength)) if len(strength) else float("nan"),
            }
        )
        chosen = clearest_nodes(level, here, 5)
        if chosen:
            strips = [
                (f"node {node}\n{where}", strip)
                for node, pair in zip(
                    chosen,
                    zip(
                        node_strips(graph, level, here, kind.images, chosen, count=_PATCHES),
                        node_strips(graph, level, there, images, chosen, count=_PATCHES),
                        strict=True,
                    ),
                    strict=True,
                )
                for where, strip in zip(("learned", "new"), pair, strict=True)
            ]
            section.figure(
                f"{layer}-transfer.png",
                strips_figure(strips),
                "Each node in the images where it is seen most strongly: of the first set, and of the new ones.",
                alt=f"Patches of nodes of {layer} in images of both sets.",
            )
    section.table("transfer.csv", rows, _TRANSFER_COLUMNS)
    found.number(
        "seen_in_new_images", rows[-1]["seen there"], "nodes seen in a new image", format=".0%",
        note=f"of {layers[-1]}; {rows[-1]['seen here']:.0%} in those of the first set",
    )  # fmt: skip
    found.arrays(
        "transfer.npz",
        **{
            f"{layer}.{name}": getattr(new[graph.last(layer).name], name).astype(np.float32)
            for layer in layers
            for name in ("values", "positions")
        },
        images=np.array(images.ids),
    )


def _add_method(found: Finding, graph: ExplanatoryGraph, kind: OneKind, settings: GraphSettings) -> None:
    found.section(
        "How it is learned",
        "A filter's responses in an image, those above 0 over their standard deviation, say how often a position is "
        "seen. They are explained by a mixture of the filter's nodes and a uniform background: a node is normally "
        "distributed about the mean, over its parents, of where they are plus its offset from them. Expectation "
        "maximisation finds offsets and spreads, layer by layer from above; after each step a node gets the parents "
        f"that move most like what it explains. {settings.nodes_per_filter} nodes of each filter, at most "
        f"{settings.parents} parents, the highest layer {settings.rounds} times, {settings.iterations} steps each. A "
        f"node is between where its parents expect it and, with a weight of {settings.evidence:g}, the centre of "
        f"gravity of what it explains. Data: {kind.images.name}, {len(kind.images)} images. Zhang, Cao, Shi, Wu, Zhu, "
        "AAAI 2018; rounds and the last step are this project's.",
    ).text(
        "`graph/graph.graphml` opens in any program that reads GraphML (networkx, Gephi, Cytoscape); `load_graph` "
        f"reads the folder back. Its {len(graph.levels)} levels are the rounds of the highest layer and the others."
    )
