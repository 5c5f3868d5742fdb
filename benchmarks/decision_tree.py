"""Decision trees of a network: fidelity and accuracy by level, contributions against removal, planted filters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.nn.functional import leaky_relu

from cnn_interp.disentangling.category_score import category_rows, split, train_head
from cnn_interp.disentangling.contributions import filter_parts
from cnn_interp.disentangling.decision_tree import TreeSettings
from cnn_interp.disentangling.features import LayerMaps, trunk_features
from cnn_interp.disentangling.tree_evaluation import (
    EQUAL,
    OWN,
    CategoryTree,
    ContributionTest,
    category_tree,
    contribution_test,
    mean_error,
)
from cnn_interp.images.animal_part import read_animal_part
from cnn_interp.images.articulated import articulated_images
from cnn_interp.images.batches import landmarks_in_inputs
from cnn_interp.images.part_images import PartImages
from cnn_interp.networks.loading import load_network
from cnn_interp.units.positions import UnitGrid
from interpretkit.bench.evidence import Row, mean_interval
from interpretkit.networks.receptive_fields import ReceptiveField
from interpretkit.runs.progress import track
from interpretkit.training import resolve_device

KIND = "animal-part"
NETWORK, LAYER = "mobilenet_v2", "features.18"
BAR = "the project's bar"
# VGG-16 with a mask layer, birds of PASCAL-Part and CUB, 100 leaves, 100 birds and 100 other images; a different
# network on different images.
PORT = "github.com/giamdalessandro/neural_networks_project_2020, its results: the one public port, TensorFlow"
PORT_NOTE = "reference: VGG-16, birds, 100 leaves, network right on 88.5 %"


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes
    ----------
    categories : tuple of str
        Drawn objects.
    images : int or None
        Of each category with others to tell it from, at most.
    leaves : int
        Of a tree, at most.
    removed : int
        Images whose filters are removed one by one.
    seeds : int
        How many.
    hard : bool
        Whether a drawn object is also told from other objects, and trees are also grown by the published rule alone.
    """

    categories: tuple[str, ...]
    images: int | None
    leaves: int
    removed: int
    seeds: int
    hard: bool


QUICK = Size(("quadruped",), 120, 30, 5, 1, False)
FULL = Size(("quadruped", "bird"), None, 120, 8, 3, True)
_DRAWN = 300


@dataclass(frozen=True, eq=False)
class Task:
    """A category to be told from other images.

    Attributes
    ----------
    images : PartImages
        All of them.
    maps : LayerMaps
        Of a layer.
    labels : ndarray of bool
        Which are of the category.
    side : int
        Of the network's inputs, px.
    """

    images: PartImages
    maps: LayerMaps
    labels: np.ndarray
    side: int


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
        One category, one seed, few images.
    data : mapping of str to path, optional
        ``animal-part``, its folder.
    seed : int
        The first seed.
    device : str
        Where to compute.
    cache : path, optional
        A folder in which features are kept.
    """
    size = QUICK if quick else FULL
    # `auto`, as the bench passes it on, is no device that torch knows.
    device = str(resolve_device(device))
    network = load_network(NETWORK, device=device, seed=seed)

    def tasks(images: PartImages, categories: Iterable[str]) -> list[Task]:
        found = []
        for name in categories:
            number = images.category_names.index(name)
            some = images.subset(category_rows(images.categories, number, size.images))
            maps = trunk_features(network, some, [LAYER], cache, precision="float16")[LAYER]
            found.append(Task(some, maps, some.categories == number, network.size))
        return found

    drawn = size.images or _DRAWN
    sets: dict[str, list[Task]] = {
        "articulated objects against images without one": [
            task
            for name in size.categories
            for task in tasks(
                articulated_images(drawn, seed=seed, side=network.size, negatives=0.5, categories=(name,)),
                [name],
            )
        ]
    }
    if size.hard:
        several = articulated_images(
            2 * drawn,
            seed=seed,
            side=network.size,
            negatives=0.0,
            categories=("quadruped", "bird", "person", "car"),
        )
        several = several.subset(category_rows(several.categories, 0, drawn))
        sets["quadrupeds against birds, persons and cars, all drawn"] = tasks(several, ["quadruped"])
    if data and KIND in data:
        animals = read_animal_part(data[KIND])
        names = animals.category_names[:1] if quick else animals.category_names
        sets[f"{KIND} against images without animals"] = tasks(animals, names)
    rows: list[Row] = []
    for name, some in sets.items():
        found: list[list[tuple[CategoryTree, ContributionTest]]] = []
        published: list[list[CategoryTree]] = []
        for number in track(range(seed, seed + size.seeds), name, quiet=False):
            found.append([measured(task, size, number, device) for task in some])
            if size.hard:
                published.append([by_the_published_rule(task, number, device) for task in some])
        rows += tree_rows(found, published, f"{name}, {sum(len(task.labels) for task in some)} images", seed)
    return rows + planted_rows(seed, 3 if not quick else 1)


def measured(task: Task, size: Size, seed: int, device: str) -> tuple[CategoryTree, ContributionTest]:
    """Train a head, grow its tree, and remove filters."""
    learn, test = split(task.labels, task.images.groups, seed=seed)
    head = train_head(task.maps, learn, task.labels[learn], seed=seed, device=device)
    tree = category_tree(head, task.maps, task.labels, learn, test, leaves=size.leaves, device=device)
    parts = filter_parts(
        task.maps,
        learn[task.labels[learn]],
        landmarks_in_inputs(task.images, task.side),
        task.images.part_names,
        task.maps.grid.image,
    )
    return tree, contribution_test(
        tree, head, task.maps, parts, images=size.removed, levels=[1, 2, tree.tree.depth], device=device
    )


def by_the_published_rule(task: Task, seed: int, device: str) -> CategoryTree:
    """Grow a tree of few leaves with α for the smallest error, and without a say of other images."""
    learn, test = split(task.labels, task.images.groups, seed=seed)
    head = train_head(task.maps, learn, task.labels[learn], seed=seed, device=device)
    settings = TreeSettings(least_likeness=-1.0, tolerance=1e-3)
    of_category = learn[task.labels[learn]]
    return category_tree(
        head, task.maps, task.labels, of_category, test, leaves=60, settings=settings, device=device
    )


def tree_rows(
    found: Sequence[Sequence[tuple[CategoryTree, ContributionTest]]],
    published: Sequence[Sequence[CategoryTree]],
    data: str,
    seed: int,
) -> list[Row]:
    """Return the rows of one set, means over categories with an interval over seeds."""
    trees = [[tree for tree, _ in some] for some in found]
    accuracy = mean([tree.accuracy for some in trees for tree in some])
    seeds = f"{len(found)} seed{'s' * (len(found) > 1)}, {len(found[0])} categor{'ies' if len(found[0]) > 1 else 'y'}"
    modes = mean([len(tree.tree.second_level) for some in trees for tree in some])
    alike = mean([tree.likeness for some in trees for tree in some])
    general = (
        f"{seeds}; network right on {accuracy:.1%}; {modes:.1f} modes, mean cosine of gradients {alike:.3f}"
    )
    system = f"{NETWORK} {LAYER}, head of three layers: decision tree"

    def row(
        name: str, values: Sequence[Sequence[float]], baseline: Sequence[Sequence[float]], **more: object
    ) -> Row:
        across = [mean(some) for some in values]
        notes = f"{more.pop('notes', '')}; {general}".removeprefix("; ")
        said = str(more.pop("system", system))
        return Row(
            system=said, data=data, name=name, value=mean(across), interval=mean_interval(across),
            baseline=mean([mean(some) for some in baseline]), seed=seed, notes=notes, **more,  # type: ignore[arg-type]
        )  # fmt: skip

    majority = [[tree.majority for tree in some] for some in trees]
    regression = [[tree.regression.agreement for tree in some] for some in trees]
    rows = [
        row(
            "agreement of the second level with the network",
            [[tree.second.agreement for tree in some] for some in trees],
            regression,
            reference=0.9,
            source=BAR,
            notes=f"test images; baseline: ridge regression from the same responses; always the same answer "
            f"{mean([mean(some) for some in majority]):.1%}",
        ),
        row(
            "agreement of the root with the network",
            [[tree.levels[0].agreement for tree in some] for some in trees],
            regression,
            notes="one rationale for all images",
        ),
        row(
            "agreement of the leaves with the network",
            [[tree.levels[-1].agreement for tree in some] for some in trees],
            regression,
        ),
        row(
            "accuracy of the second level",
            [[tree.second.accuracy for tree in some] for some in trees],
            [[tree.regression.accuracy for tree in some] for some in trees],
            reference=0.665,
            source=PORT,
            stand_in=True,
            notes=PORT_NOTE,
        ),
        row(
            "error of the second level's scores",
            [[tree.second.error for tree in some] for some in trees],
            [[tree.regression.error for tree in some] for some in trees],
            reference=0.353,
            source=PORT,
            stand_in=True,
            notes=f"over the range of the network's; {PORT_NOTE}",
        ),
        row(
            "fitness of contributions, second level",
            [[tried.fitness["level 2"] for _, tried in some] for some in found],
            [[tried.fitness[EQUAL] for _, tried in some] for some in found],
            reference=0.2575,
            source=PORT,
            stand_in=True,
            notes=f"baseline: equal shares; own gradient "
            f"{mean([mean([tried.fitness[OWN] for _, tried in some]) for some in found]):.2f}; {PORT_NOTE}",
        ),
        row(
            "error of parts' contributions, second level",
            [[mean_error(tried.part_errors["level 2"]) for _, tried in some] for some in found],
            [[mean_error(tried.part_errors[EQUAL]) for _, tried in some] for some in found],
            reference=0.338,
            source=PORT,
            stand_in=True,
            notes=f"baseline: equal shares; filters belong to the part they are strongest at, or to none; {PORT_NOTE}",
        ),
    ]
    if published:
        rows.append(
            row(
                "agreement of the second level with the network",
                [[tree.second.agreement for tree in some] for some in published],
                [[tree.regression.agreement for tree in some] for some in published],
                system=f"{system}, published rule alone",
                notes="filters chosen for the smallest error, merging blind to other images; 60 leaves at most",
            )
        )
    return rows


# ------------------------------------------------------------------------------------------------------------- planted


PAIRS = ((2, 5), (7, 9))


def planted_score(maps: Tensor) -> Tensor:
    """Rest on one pair of filters where that is active, on the other where that is, on nothing else."""
    means = maps.mean(dim=(2, 3))
    one = leaky_relu(4 * means[:, PAIRS[0][0]] + 2 * means[:, PAIRS[0][1]] - 1, 0.02)
    other = leaky_relu(3 * means[:, PAIRS[1][0]] + 3 * means[:, PAIRS[1][1]] - 1, 0.02)
    return one + other - 0.5


def planted_maps(n: int, seed: int) -> tuple[LayerMaps, np.ndarray]:
    """Return maps of 12 filters, and which pair is active in each image; −1 for none."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(-1, 2, n)
    values = rng.gamma(2.0, 0.25, (n, 12, 5, 5))
    values[:, [*PAIRS[0], *PAIRS[1]]] *= 0.05
    for kind, pair in enumerate(PAIRS):
        values[np.ix_(np.flatnonzero(kinds == kind), np.array(pair))] *= 20
    field = ReceptiveField("planted", (10.0, 10.0), (10.0, 10.0), (5.0, 5.0), (5, 5))
    return LayerMaps("planted", values.astype(np.float32), UnitGrid(field, (50, 50))), kinds


def planted_rows(seed: int, seeds: int) -> list[Row]:
    """Return how far the planted filters are found, and whether removing one does what the tree says."""
    named, shares, ratios, agreements = [], [], [], []
    for number in range(seed, seed + seeds):
        maps, kinds = planted_maps(200, number)
        found = category_tree(planted_score, maps, kinds >= 0, np.arange(100), np.arange(100, 200))
        tree = found.tree
        right, share = 0, 0.0
        for node in tree.second_level:
            own = tree.images(node)
            added = np.abs(tree.rationale(node, found.learned.responses[own]))
            pair = PAIRS[int(kinds[found.learned_rows[own[0]]])]
            right += set(np.argsort(-added)[:2].tolist()) == set(pair)
            share += float(added[list(pair)].sum() / added.sum()) / len(tree.second_level)
        tried = contribution_test(found, planted_score, maps, images=30, levels=[2])
        pieces = found.tested.subset(tried.places)
        told = tree.contributions(pieces.responses, found.way[tried.places, 1])
        strongest = tried.drops.argmax(axis=1)
        places = np.arange(len(told))
        named.append(right / len(tree.second_level))
        shares.append(share)
        ratios.append(float(np.median(tried.drops[places, strongest] / told[places, strongest])))
        agreements.append(found.second.agreement)
    system, data = "network with two planted pairs of 12 filters: decision tree", f"{seeds} × 200 made maps"
    return [
        Row(
            system=system,
            data=data,
            name="share of decision modes whose two largest filters are the planted ones",
            value=mean(named),
            baseline=1 / 66,
            reference=1.0,
            source=BAR,
            seed=seed,
            notes="baseline: two filters at random",
        ),
        Row(
            system=system,
            data=data,
            name="share of a mode's contributions that is the planted filters'",
            value=mean(shares),
            baseline=2 / 12,
            seed=seed,
            notes="baseline: equal shares",
        ),
        Row(
            system=system,
            data=data,
            name="drop of the score without the strongest filter, over its contribution",
            value=mean(ratios),
            reference=1.0,
            source="identity, unless the removal leaves the linear piece",
            seed=seed,
            notes="median over images",
        ),
        Row(
            system=system,
            data=data,
            name="agreement of the second level with the network",
            value=mean(agreements),
            baseline=2 / 3,
            reference=0.9,
            source=BAR,
            seed=seed,
            notes="baseline: always the same answer",
        ),
    ]


def mean(values: Iterable[float]) -> float:
    """Return the mean of those that are known."""
    return float(np.nanmean(np.array(list(values), dtype=np.float64)))
