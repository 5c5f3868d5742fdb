"""Which filters and parts a network's decision rests on, as a tree of decision modes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnn_interp.commands._loading import (
    ARTICULATED,
    FOLDERS,
    PART_KINDS,
    check_given,
    chosen_layers,
    folders_as_parts,
)
from cnn_interp.commands._options import Convert, Images, Model, Weights
from interpretkit.commandline import (
    Column,
    Device,
    Finding,
    Quiet,
    Seed,
    command,
    kind_and_path,
    listed,
)
from interpretkit.commandline.caution import no_better
from interpretkit.errors import InputError
from interpretkit.runs.folder import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np

    from cnn_interp.disentangling.contributions import FilterParts
    from cnn_interp.disentangling.features import LayerMaps
    from cnn_interp.disentangling.linear_pieces import LinearPieces, ScoreOfMaps
    from cnn_interp.disentangling.tree_evaluation import CategoryTree, ContributionTest
    from cnn_interp.images.part_images import PartImages
    from cnn_interp.images.sets import Images as ImageSet
    from cnn_interp.networks.network import Network

# What is drawn if no category is named; told from pictures that show parts of nothing.
_DRAWN = "quadruped"
# Images whose filters are removed one by one, and images whose way is drawn if none are given.
_REMOVED, _WAYS = 12, 3
# With gradients so alike the network is one linear function of the layer.
_ALIKE = 0.9999
_FILTERS = 8
_LEVEL_COLUMNS = {
    "level": Column("1 is the root, one rationale for all; 2 the most general decision modes"),
    "nodes": Column("nodes that test images came to"),
    "agreement": Column("share of test images on which the level decides as the network", format=".1%"),
    "of positives": Column("the same of images that the network takes for the category", format=".1%"),
    "of negatives": Column("the same of all others", format=".1%"),
    "accuracy": Column("share of test images on which the level is right", format=".1%"),
    "error": Column("mean difference of scores over the range of the network's", format=".3f"),
    "R²": Column("of the level's scores: 1 gives back the network's, 0 their mean", format="+.3f"),
    "fitness": Column(
        "agreement of filters' contributions with the drops of the score without them", format=".3f"
    ),
    "part error": Column("error of parts' contributions over the mean score", format=".3f"),
}
_NODE_COLUMNS = {
    "node": Column("the node's number; leaves come first"),
    "level": Column("its level"),
    "parent": Column("the node above; −1 for the root"),
    "images": Column("how many images it was learned from"),
    "error": Column("root mean squared error of its scores of them", format=".3g"),
    "bias": Column("what its score is without any response", format="+.3g"),
    "filters used": Column("filters of its rationale"),
    "filters": Column("what contributes most on average: filter and share of all contributions"),
    "parts": Column("what each part's filters contribute: share of all"),
    "image": Column("of a leaf: the image"),
}
_IMAGE_COLUMNS = {
    "image": Column("the image"),
    "category": Column("whether it is of the category"),
    "network": Column("the network's score over the gradient's length", format="+.3g"),
    "second level": Column("the score by its node of the second level", format="+.3g"),
    "leaf": Column("the score by its leaf", format="+.3g"),
    "node": Column("its node of the second level"),
    "way": Column("the nodes from the root to its leaf"),
}
_FILTER_COLUMNS = {
    "node": Column("a node of the second level"),
    "filter": Column("number of the filter"),
    "part": Column("the part that it is strongest at"),
    "contribution": Column("what it adds to the node's score, mean over its images", format="+.4g"),
    "drop": Column(
        "by how much the network's score falls without it, mean over test images that are of the category",
        format="+.4g",
    ),
}


@command(
    out="tree",
    example=[
        "interpretkit cnn disentangle tree",
        "interpretkit cnn disentangle tree photo.jpg --data animal-part=animal-part --category cat --images 1000",
        "interpretkit cnn disentangle tree --data folders=pictures --category cats --target 'tabby,Egyptian cat'",
    ],
)
def tree(
    images: Images = None,
    model: Model = "mobilenet_v2",
    weights: Weights = "pretrained",
    layer: Annotated[
        str,
        typer.Option(
            "--layer",
            metavar="NAME",
            help="A layer that gives maps; by default the last that gives more than one position.",
        ),
    ] = "",
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="KIND=PATH",
            help=f"Images to learn from: {', '.join(PART_KINDS)} =FOLDER, folders=FOLDER with a subfolder for each "
            "category, or 'articulated', which the project draws itself.",
        ),
    ] = ARTICULATED,
    category: Annotated[
        str,
        typer.Option("--category", metavar="NAME", help="Whose decision is explained; by default the first."),
    ] = "",
    target: Annotated[
        str,
        typer.Option(
            "--target",
            metavar="NAME|INDEX,...",
            help="The network's own outputs that stand for the category; without it a head is trained on the frozen "
            "network.",
        ),
    ] = "",
    count: Annotated[
        int,
        typer.Option("--images", metavar="N", min=8, help="How many images, half of them of the category."),
    ] = 240,
    leaves: Annotated[
        int, typer.Option("--leaves", metavar="N", min=2, help="Images that become leaves, at most.")
    ] = 200,
    convert: Convert = False,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    *,
    run: Run,
) -> Finding:
    """Learn which filters and parts a network's decision for a category rests on, as a tree of decision modes.

    Every image is a leaf with the linear function that the network is there; leaves are merged to more and more
    general modes. Test images, and those given, go down the tree; what each filter contributes is held against the drop
    of the score without it. Writes tree.graphml, tree.npz, levels.csv, nodes.csv, filters.csv, images.csv, report.html
    and, where a head was trained, head.safetensors. A run that is interrupted goes on where it stopped.
    """
    paths = check_given(images, convert)
    if convert and not paths:
        raise InputError("convert: no image is given; expected images with it")
    _, folder = kind_and_path(data, [*PART_KINDS, FOLDERS], "data", words=[ARTICULATED])
    if len(listed(layer)) > 1:
        raise InputError(f"layer {layer!r}: expected one layer")
    from cnn_interp.disentangling.category_score import own_score, split, train_head
    from cnn_interp.disentangling.contributions import filter_parts
    from cnn_interp.disentangling.features import trunk_features
    from cnn_interp.disentangling.tree_evaluation import category_tree, contribution_test
    from cnn_interp.images.batches import landmarks_in_inputs, network_inputs
    from cnn_interp.networks.loading import load_network
    from interpretkit.networks.instrumentation import instrumented
    from interpretkit.training import resolve_device

    chosen, named = _load(data, folder, category, count, seed)
    of_category = chosen.categories == chosen.category_names.index(named)
    learn, test = split(of_category, chosen.groups, seed=seed)
    where = resolve_device(device)
    network = load_network(model, weights=weights, device=where, seed=seed)
    (name,) = chosen_layers(network, layer)
    outputs = [network.target(text) for text in listed(target)]
    files = [folder / "landmarks.csv"] if folder is not None and data.startswith("animal-part") else []

    with ExitStack() as stack:
        work = stack.enter_context(
            run.kept(network.digest(), where.type, files=[*files, *paths], without=["device"])
        )
        maps = trunk_features(network, chosen, [name], work / "features", quiet=quiet)[name]
        head = None
        score: ScoreOfMaps
        if outputs:
            stack.enter_context(instrumented(network.module, seed))
            score = own_score(network, name, outputs, network_inputs(network, chosen, test[:4].tolist()))
        else:
            head = train_head(
                maps,
                learn,
                of_category[learn],
                seed=seed,
                device=where,
                checkpoint=work / "head",
                quiet=quiet,
            )
            score = head
        learned = category_tree(
            score, maps, of_category, learn, test, leaves=leaves, device=where, checkpoint=work / "mergers.npz",
            quiet=quiet,
        )  # fmt: skip
        parts = None
        if chosen.part_names and chosen.annotated[learn].any():
            landmarks = landmarks_in_inputs(chosen, network.size)
            parts = filter_parts(
                maps, learn[of_category[learn]], landmarks, chosen.part_names, maps.grid.image
            )
        tried = contribution_test(learned, score, maps, parts, images=_REMOVED, device=where, quiet=quiet)
        found = _headline(learned, tried, network, name, named, chosen, head is None).reads(*files, *paths)
        _add_tree(found, learned, parts, network, chosen)
        _add_levels(found, learned, tried)
        _add_ways(found, learned, tried, parts, network, chosen, maps)
        if paths:
            _add_given(found, learned, parts, network, paths, name, score, convert, where, quiet)
        _add_files(found, learned, tried, parts, chosen)
    if head is not None:
        found.tensors("head.safetensors", head.state_dict(), {"layer": name, "network": network.name})
    found.section(
        "How it is measured",
        "In the neighbourhood of an image the network's score is g·x + b, where x holds each filter's response summed "
        "over positions and g the score's gradient. Each image is a leaf; two nodes are merged into one with the mean "
        "gradient ḡ of their images, those filters α of it that give back their scores, and a bias, as long as the log "
        "likelihood with a cost for each node rises. An image goes to the child whose w = α ∘ ḡ is most like its own "
        "gradient; its filters contribute w ∘ x. Scores are divided by the gradient's length. Zhang, Yang, Ma, Wu: "
        "Interpreting CNNs via Decision Trees, CVPR 2019. A filter enters or leaves α only if that pays more than "
        f"chance would. Data: {chosen.name}; {len(learned.learned_rows)} images became leaves, {len(test)} others "
        "were for tests.",
    )
    found.next_step(
        "See whether filters follow parts:", "interpretkit cnn instability --model", model, "--layer", name
    )
    return found.next_step(
        "See which concepts filters detect:", "interpretkit cnn dissect --model", model, "--layer", name
    )


def _load(data: str, folder: Path | None, category: str, count: int, seed: int) -> tuple[PartImages, str]:
    """Return images of a category and others, and the category's name.

    Raises
    ------
    InputError
        If there is no such category, or nothing to tell it from.
    """
    from cnn_interp.disentangling.category_score import category_rows
    from cnn_interp.images.articulated import articulated_images
    from cnn_interp.images.reading import read_parts

    if folder is None:
        found = articulated_images(
            count, seed=seed, side=224, negatives=0.5, categories=(category or _DRAWN,)
        )
    elif data.startswith(f"{FOLDERS}="):
        found = folders_as_parts(folder)
    else:
        found = read_parts(data.partition("=")[0], folder)
    name = category or found.category_names[0]
    if name not in found.category_names:
        known = ", ".join(found.category_names[:20])
        raise InputError(
            f"category {category!r}: {found.name} has none of that name; expected one of {known}"
        )
    rows = category_rows(found.categories, found.category_names.index(name), count)
    return found.subset(rows), name


def _headline(
    learned: CategoryTree,
    tried: ContributionTest,
    network: Network,
    layer: str,
    category: str,
    images: PartImages,
    own: bool,
) -> Finding:
    from cnn_interp.disentangling.tree_evaluation import EQUAL, OWN

    second, modes = learned.second, len(learned.tree.second_level)
    several = f"{modes} decision modes" if modes != 1 else "one decision mode"
    whose = "the network's own outputs" if own else "a head trained on the frozen network"
    found = Finding(
        f"What {network.name} takes for a {category}: {several}",
        f"{len(learned.learned_rows)} images merged to {several} of `{layer}` decide as {whose} on "
        f"{second.agreement:.1%} of {len(learned.tested_rows)} test images. They are right on {second.accuracy:.1%}, "
        f"the network itself on {learned.accuracy:.1%}.",
    )
    found.number(
        "agreement",
        second.agreement,
        "second level agrees with the network",
        format=".1%",
        note=f"always the same answer: {learned.majority:.1%}; regression without gradients: "
        f"{learned.regression.agreement:.1%}",
    )
    found.number(
        "accuracy",
        second.accuracy,
        "second level is right",
        format=".1%",
        note=f"the network: {learned.accuracy:.1%}",
    )
    found.number(
        "modes", modes, "decision modes", note=f"of {learned.tree.leaves} images, {learned.tree.depth} levels"
    )
    found.number(
        "fitness",
        tried.fitness["level 2"],
        "fitness of contributions",
        format=".2f",
        note=f"own gradient: {tried.fitness[OWN]:.2f}; equal shares: {tried.fitness[EQUAL]:.2f}",
    )
    found.values.update(
        layer=layer, category=category, network_accuracy=learned.accuracy, majority=learned.majority,
        regression_agreement=learned.regression.agreement, gradient_likeness=learned.likeness,
        agreement_by_level=[level.agreement for level in learned.levels],
        accuracy_by_level=[level.accuracy for level in learned.levels], n_leaves=learned.tree.leaves,
        n_test=len(learned.tested_rows),
    )  # fmt: skip
    found.warn(
        *no_better(
            "the second level's agreement",
            second.agreement,
            "always the same answer",
            learned.majority,
            form=".1%",
        ),
        *no_better(
            "the fitness of contributions",
            tried.fitness["level 2"],
            "equal shares",
            tried.fitness[EQUAL],
            form=".2f",
        ),
        *no_better("the network", learned.accuracy, "a coin", 0.5, form=".1%"),
    )
    if learned.likeness > _ALIKE:
        found.warn(
            f"All images have the same gradient at {layer}: from there on the network is linear, and a single "
            "rationale says all. A lower --layer has more to tell apart."
        )
    return found


def _add_tree(
    found: Finding, learned: CategoryTree, parts: FilterParts | None, network: Network, images: PartImages
) -> None:
    from cnn_interp.disentangling.tree_pictures import tree_figure

    section = found.section("The tree")
    section.figure(
        "tree.png",
        tree_figure(learned.tree, learned.learned, _pictures(images, learned.learned_rows, network), parts),
        "Each leaf is an image, each fork a merger, as high as it has images. Below: the images whose gradients are "
        "most like a node's rationale, and the shares of all contributions of "
        + ("the parts that its filters are strongest at." if parts else "its largest filters."),
    )
    rows = _node_rows(learned, parts, images)
    general = set(learned.tree.second_level) | {learned.tree.root}
    shown = [name for name in _NODE_COLUMNS if name not in ("parent", "image") and (parts or name != "parts")]
    section.table(
        None,
        sorted(
            (row for row in rows if row["node"] in general), key=lambda row: (row["level"], -row["images"])
        ),
        _NODE_COLUMNS,
        "The root and the second level; `nodes.csv` holds all nodes, `tree.graphml` the tree for networkx.",
        shown=shown,
        most=20,
    )
    found.table("nodes.csv", rows, _NODE_COLUMNS)


def _node_rows(learned: CategoryTree, parts: FilterParts | None, images: PartImages) -> list[dict[str, Any]]:
    import numpy as np

    from cnn_interp.disentangling.contributions import part_sums

    tree = learned.tree
    rows = []
    for node in range(len(tree)):
        own = tree.images(node)
        added = tree.rationale(node, learned.learned.responses[own])
        total = float(np.abs(added).sum()) or 1.0
        largest = np.argsort(-np.abs(added), kind="stable")[:_FILTERS]
        said = "" if parts is None else ", ".join(
            f"{name} {amount / total:+.1%}" for name, amount in part_sums(added, parts.of_filters).items()
        )  # fmt: skip
        rows.append(
            {
                "node": node,
                "level": int(tree.levels[node]),
                "parent": int(tree.parents[node]),
                "images": len(own),
                "error": float(tree.errors[node]),
                "bias": float(tree.biases[node]),
                "filters used": int(np.count_nonzero(tree.weights[node])),
                "filters": ", ".join(f"{number} {added[number] / total:+.1%}" for number in largest),
                "parts": said,
                "image": "" if tree.children[node] else images.ids[learned.learned_rows[node]],
            }
        )
    return rows


def _add_levels(found: Finding, learned: CategoryTree, tried: ContributionTest) -> None:
    from cnn_interp.disentangling.tree_evaluation import EQUAL, OWN, mean_error
    from cnn_interp.disentangling.tree_pictures import levels_figure

    rows = [
        {
            "level": level.level,
            "nodes": level.nodes,
            "agreement": level.agreement,
            "of positives": level.agreement_positive,
            "of negatives": level.agreement_negative,
            "accuracy": level.accuracy,
            "error": level.error,
            "R²": level.explained,
            "fitness": tried.fitness[f"level {level.level}"],
            "part error": mean_error(tried.part_errors.get(f"level {level.level}", ())),
        }
        for level in learned.levels
    ]
    section = found.section(
        "Level by level",
        f"Regression from the same responses to the same scores, without gradients: agreement "
        f"{learned.regression.agreement:.1%}, R² {learned.regression.explained:+.2f}. The image's own gradient: "
        f"fitness {tried.fitness[OWN]:.3f}"
        + (f", part error {mean_error(tried.part_errors[OWN]):.3f}" if tried.part_errors else "")
        + f". Equal shares for all active filters: fitness {tried.fitness[EQUAL]:.3f}"
        + (f", part error {mean_error(tried.part_errors[EQUAL]):.3f}" if tried.part_errors else "")
        + f". Contributions are compared on {len(tried.places)} test images of the category.",
    )
    section.figure(
        "levels.png",
        levels_figure(learned.levels, learned.accuracy, learned.majority),
        f"Of {len(learned.tested_rows)} test images.",
    )
    section.table(
        "levels.csv",
        rows,
        _LEVEL_COLUMNS,
        shown=[name for name in _LEVEL_COLUMNS if tried.part_errors or name != "part error"],
        most=12,
        in_terminal=False,
    )


def _add_ways(
    found: Finding,
    learned: CategoryTree,
    tried: ContributionTest,
    parts: FilterParts | None,
    network: Network,
    images: PartImages,
    maps: LayerMaps,
) -> None:
    """Show the way of a few test images, those whose filters were removed."""
    import numpy as np

    from cnn_interp.disentangling.tree_pictures import way_figure

    section = found.section(
        "The way of single images",
        "Filters with the largest contributions by the node of the second level, as a share of all contributions, and "
        "where they are active.",
    )
    some = np.unique(np.linspace(0, len(tried.places) - 1, _WAYS).astype(int))
    picture = _pictures(images, learned.tested_rows, network)
    for number, place in enumerate(some.tolist(), start=1):
        tested = int(tried.places[place])
        way = learned.way[tested]
        x = learned.tested.responses[[tested]]
        second, amounts = _amounts(learned, x, way, parts, tried.part_drops[place])
        row = int(learned.tested_rows[tested])
        title = (
            f"{images.ids[row]}: score {learned.tested.scores[tested]:+.3g}, by node {way[1]} "
            f"{learned.tree.scores(x, way[1:2])[0]:+.3g}, by leaf {way[-1]} {learned.tree.scores(x, way[-1:])[0]:+.3g}"
        )
        section.figure(
            f"way-{number}.png",
            way_figure(picture(tested), maps, row, second, amounts, title),
            f"Way of {images.ids[row]}: {_way(way)}.",
        )


def _add_given(
    found: Finding,
    learned: CategoryTree,
    parts: FilterParts | None,
    network: Network,
    paths: Sequence[Path],
    layer: str,
    score: ScoreOfMaps,
    convert: bool,
    device: Any,
    quiet: bool,
) -> None:
    """Show the way of the user's images."""
    import numpy as np

    from cnn_interp.disentangling.contributions import score_drops
    from cnn_interp.disentangling.features import trunk_features
    from cnn_interp.disentangling.linear_pieces import linear_pieces
    from cnn_interp.disentangling.tree_pictures import way_figure
    from cnn_interp.images.files import read_image
    from cnn_interp.images.sets import Images

    given = Images(
        name="images given",
        ids=tuple(path.name for path in paths),
        load=lambda number: np.asarray(read_image(paths[number], convert=convert)),
    )
    maps = trunk_features(network, given, [layer], quiet=quiet)[layer]
    pieces = linear_pieces(score, maps, scale=learned.learned.scale, device=device, quiet=quiet)
    way = learned.tree.descend(pieces.gradients)
    section = found.section("Images given")
    section.table(
        "given.csv",
        _image_rows(learned, pieces, way, given.ids, None),
        {key: column for key, column in _IMAGE_COLUMNS.items() if key != "category"},
        in_terminal=True,
    )
    picture = _pictures(given, np.arange(len(given)), network)
    for number in range(min(len(given), 12)):
        drops = np.empty(0)
        if parts is not None:
            drops = (
                score_drops(score, maps, [number], parts.groups, device=device)[0] / pieces.lengths[number]
            )
        second, amounts = _amounts(learned, pieces.responses[[number]], way[number], parts, drops)
        section.figure(
            f"given-{number + 1}.png",
            way_figure(
                picture(number),
                maps,
                number,
                second,
                amounts,
                f"{given.ids[number]}: score {pieces.scores[number]:+.3g}",
            ),
            f"Image {number + 1}, {given.ids[number]}: {_way(way[number])}.",
        )


def _amounts(
    learned: CategoryTree,
    responses: np.ndarray,
    way: np.ndarray,
    parts: FilterParts | None,
    drops: np.ndarray,
) -> tuple[np.ndarray, dict[str, tuple[float, float, float]]]:
    """Return what filters contribute by the second level, and parts by it, by the leaf, and as their removal tells."""
    second, leaf = (learned.tree.contributions(responses, [node])[0] for node in (way[1], way[-1]))
    if parts is None:
        return second, {}
    return second, {
        parts.names[part]: (float(second[group].sum()), float(leaf[group].sum()), float(drops[part]))
        for part, group in enumerate(parts.groups)
        if group.any()
    }


def _way(nodes: np.ndarray) -> str:
    """Say which nodes an image comes to, from the root to its leaf."""
    return " → ".join(str(node) for node in dict.fromkeys(nodes.tolist()))


def _image_rows(
    learned: CategoryTree,
    pieces: LinearPieces,
    way: np.ndarray,
    names: Sequence[str],
    labels: np.ndarray | None,
) -> list[dict[str, Any]]:
    second, leaf = (learned.tree.scores(pieces.responses, way[:, place]) for place in (1, -1))
    return [
        {
            "image": names[place],
            **({} if labels is None else {"category": bool(labels[place])}),
            "network": float(pieces.scores[place]),
            "second level": float(second[place]),
            "leaf": float(leaf[place]),
            "node": int(way[place, 1]),
            "way": _way(way[place]),
        }
        for place in range(len(pieces))
    ]


def _add_files(
    found: Finding,
    learned: CategoryTree,
    tried: ContributionTest,
    parts: FilterParts | None,
    images: PartImages,
) -> None:
    """Keep the tree, what each image came to, and what each filter of a general mode contributes."""
    tree = learned.tree
    names = [images.ids[row] for row in learned.tested_rows]
    found.table(
        "images.csv", _image_rows(learned, learned.tested, learned.way, names, learned.labels), _IMAGE_COLUMNS
    )
    drops = tried.drops.mean(axis=0)
    found.table(
        "filters.csv",
        [
            {
                "node": node,
                "filter": number,
                "part": "" if parts is None else parts.of_filters[number],
                "contribution": float(amount),
                "drop": float(drops[number]),
            }
            for node in tree.second_level
            for number, amount in enumerate(
                tree.rationale(node, learned.learned.responses[tree.images(node)])
            )
            if amount != 0
        ],
        _FILTER_COLUMNS,
    )
    found.arrays("tree.npz", **tree.arrays())

    def graphml(path: Path) -> None:
        from networkx import write_graphml

        leaf_names = [images.ids[row] for row in learned.learned_rows]
        graph = tree.to_networkx(
            leaf_names, None if parts is None else parts.of_filters, learned.learned.responses
        )
        write_graphml(graph, path)

    found.file("tree.graphml", graphml)


def _pictures(images: ImageSet, rows: np.ndarray, network: Network) -> Callable[[int], np.ndarray]:
    """Return what gives the picture of an image as the network sees it, by its place among `rows`."""
    from cnn_interp.images.batches import resized_to

    return lambda place: resized_to(images.image(int(rows[place])), network.size)
