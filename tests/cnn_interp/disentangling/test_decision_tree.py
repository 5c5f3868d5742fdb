"""A decision tree says which filters a network's score rests on: planted filters, definitions, and what is removed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import networkx
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from cnn_interp.disentangling import decision_tree
from cnn_interp.disentangling.category_score import (
    CategoryHead,
    Margin,
    category_rows,
    own_score,
    split,
    train_head,
)
from cnn_interp.disentangling.contributions import (
    contribution_fitness,
    filter_parts,
    part_errors,
    score_drops,
)
from cnn_interp.disentangling.decision_tree import TreeSettings, fit_rationale, learn_tree, load_tree
from cnn_interp.disentangling.features import LayerMaps, trunk_features
from cnn_interp.disentangling.linear_pieces import LinearPieces, linear_pieces
from cnn_interp.disentangling.tree_evaluation import EQUAL, OWN, category_tree, contribution_test
from cnn_interp.images.sets import Images
from cnn_interp.networks.network import Network
from cnn_interp.units.positions import UnitGrid
from interpretkit.errors import InputError
from interpretkit.networks.instrumentation import instrumented
from interpretkit.networks.receptive_fields import ReceptiveField

FILTERS, SIDE = 12, 5
FIRST, SECOND, LEAK = (2, 5), (7, 9), 0.02


def layer_maps(values: np.ndarray, stride: float = 10.0) -> LayerMaps:
    shape = values.shape[2:]
    field = ReceptiveField("top", (stride, stride), (stride, stride), (stride / 2, stride / 2), shape)
    return LayerMaps("top", values.astype(np.float32), UnitGrid(field, (SIDE * 10, SIDE * 10)))


def planted_score(maps: Tensor) -> Tensor:
    """Rest on the first pair of filters where that is active, on the second where that is, on nothing else."""
    means = maps.mean(dim=(2, 3))
    one = leaky_relu(4 * means[:, FIRST[0]] + 2 * means[:, FIRST[1]] - 1, LEAK)
    other = leaky_relu(3 * means[:, SECOND[0]] + 3 * means[:, SECOND[1]] - 1, LEAK)
    return one + other - 0.5


def planted(n: int, seed: int) -> tuple[LayerMaps, np.ndarray, np.ndarray]:
    """Return maps, which kind each image is of (0, 1, or −1 for none), and which are of the category."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(-1, 2, n)
    # What has no say is as strong as what has.
    values = rng.gamma(2.0, 0.25, (n, FILTERS, SIDE, SIDE))
    values[:, [*FIRST, *SECOND]] *= 0.05
    for kind, pair in enumerate((FIRST, SECOND)):
        rows = np.flatnonzero(kinds == kind)
        values[np.ix_(rows, np.array(pair))] *= 20
    return layer_maps(values), kinds, kinds >= 0


def pieces_of(rng: np.random.Generator, n: int, filters: int) -> LinearPieces:
    x = rng.gamma(2.0, 1.0, (n, filters))
    g = rng.normal(0.4, 0.3, (n, filters))
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    return LinearPieces(x, g, (g * x).sum(axis=1) + rng.normal(1, 0.2, n), np.ones(n), np.ones(filters))


# ----------------------------------------------------------------------------------------------------- linear pieces


def test_an_image_s_linear_piece_is_the_network_there() -> None:
    torch.manual_seed(0)
    head = CategoryHead(FILTERS, 16, seed=3)
    maps, _, _ = planted(20, 0)
    found = linear_pieces(head, maps)
    raw = head(maps.tensor()).detach().numpy()
    assert found.scores * found.lengths == pytest.approx(raw, abs=1e-5)
    assert np.linalg.norm(found.gradients, axis=1) == pytest.approx(np.ones(20))
    # Within the piece, a little more of a filter everywhere changes the score by what its gradient says.
    step = 1e-3
    for number in (0, 7):
        more = maps.tensor().clone()
        more[:, number] += step
        responses = step * SIDE**2 / found.scale[number]
        expected = found.gradients[:, number] * found.lengths * responses
        change = (head.double()(more.double()) - head(maps.tensor().double())).detach().numpy()
        head.float()
        assert change == pytest.approx(expected, rel=0.05, abs=2e-6)


def test_the_unit_of_a_filter_s_responses_does_not_matter() -> None:
    maps, _, of_category = planted(60, 1)
    rows = np.flatnonzero(of_category)
    factors = np.geomspace(0.01, 100, FILTERS)
    scaled = layer_maps(np.asarray(maps.maps) * factors[:, None, None])
    back = torch.from_numpy(factors).float()[:, None, None]
    one = linear_pieces(planted_score, maps, rows)
    other = linear_pieces(lambda values: planted_score(values / back), scaled, rows)
    assert other.contributions == pytest.approx(one.contributions, rel=1e-3, abs=1e-4)
    assert other.scale == pytest.approx(one.scale * factors, rel=1e-4)


def test_a_filter_that_is_never_active_and_a_score_that_never_changes_are_harmless() -> None:
    values = np.random.default_rng(0).random((4, 3, 2, 2))
    values[:, 1] = 0
    found = linear_pieces(lambda maps: maps[:, 0].mean(dim=(1, 2)) * 0 + 2, layer_maps(values))
    assert found.scale[1] == 1
    assert np.array_equal(found.gradients, np.zeros((4, 3)))
    assert found.scores == pytest.approx(np.full(4, 2.0))
    with pytest.raises(InputError, match="finite"):
        linear_pieces(lambda maps: maps.sum(dim=(1, 2, 3)) * np.nan, layer_maps(values))


# ------------------------------------------------------------------------------------------------------------ learning


@pytest.mark.parametrize("seed", range(3))
def test_planted_filters_are_the_rationales_and_removing_them_does_what_the_tree_says(seed: int) -> None:
    maps, kinds, of_category = planted(160, seed)
    learn, test = np.arange(80), np.arange(80, 160)
    found = category_tree(planted_score, maps, of_category, learn, test)
    tree = found.tree
    learned_kinds = kinds[found.learned_rows]
    # The modes of the network are the nodes of the second level, each of images of one kind.
    modes = {}
    for node in tree.second_level:
        own = learned_kinds[tree.images(node)]
        assert len(set(own)) == 1
        modes.setdefault(int(own[0]), []).append(node)
    assert set(modes) == {0, 1}
    for kind, pair in enumerate((FIRST, SECOND)):
        for node in modes[kind]:
            added = np.abs(tree.rationale(node, found.learned.responses[tree.images(node)]))
            assert set(np.argsort(-added)[:2]) == set(pair)
            assert added[list(pair)].sum() > 0.98 * added.sum()
    assert found.accuracy == 1
    assert found.second.agreement >= 0.97
    assert found.majority < 0.8
    tried = contribution_test(found, planted_score, maps, images=30)
    for place, number in enumerate(tried.places):
        told = tree.contributions(found.tested.responses[[number]], found.way[[number], 1])[0]
        pair = (FIRST, SECOND)[kinds[found.tested_rows[number]]]
        others = np.setdiff1d(np.arange(FILTERS), pair)
        assert np.abs(tried.drops[place, others]).max() < 0.02 * tried.drops[place].max()
        assert np.abs(told[others]).max() < 0.02 * np.abs(told[list(pair)]).sum()
        # Removing one of the pair may silence the other as well, but never more than there is.
        assert (tried.drops[place, list(pair)] > 0).all()
        assert (tried.drops[place, list(pair)] <= told[list(pair)] + 1e-4).all()
    assert tried.fitness["level 2"] > 0.8 > 0.5 > tried.fitness[EQUAL]
    assert tried.fitness["level 2"] == pytest.approx(tried.fitness[OWN], abs=0.1)


def test_removing_the_planted_filter_turns_the_prediction_around() -> None:
    """The whole way: a network with filters for colours, seen through images."""

    class Colours(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pick = nn.Conv2d(3, 4, 1, bias=False)
            with torch.no_grad():
                # Red, green, blue and grey, each against the mean of the others.
                self.pick.weight[:, :, 0, 0] = torch.tensor(
                    [[2.0, -1, -1], [-1, 2, -1], [-1, -1, 2], [0.4, 0.3, 0.3]]
                )
            self.active = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            means = self.active(self.pick(x)).mean(dim=(2, 3))
            warm = torch.relu(6 * means[:, 0] - 0.5)
            return torch.stack([warm, 0.3 + means[:, 2], 0.2 * means[:, 1]], dim=1)

    rng = np.random.default_rng(0)
    pictures = rng.integers(60, 120, (60, 16, 16, 3)).astype(np.uint8)
    of_category = np.arange(60) % 2 == 0
    for number, red in enumerate(of_category):
        place = rng.integers(0, 8)
        pictures[number, place : place + 8, place : place + 8] = (250, 20, 20) if red else (20, 20, 250)
    images = Images(name="squares", ids=tuple(map(str, range(60))), load=lambda i: pictures[i])
    network = Network(
        "colours", Colours().eval(), size=16, resize=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    maps = trunk_features(network, images, ["active"])["active"]
    learn, test = split(of_category, seed=0)
    inputs = torch.from_numpy(pictures[:4]).permute(0, 3, 1, 2).float() / 255
    with instrumented(network.module, 0):
        score = own_score(network, "active", [0], inputs)
        found = category_tree(score, maps, of_category, learn, test)
        tried = contribution_test(found, score, maps, images=8)
        own = score(maps.tensor(found.tested_rows[tried.places])).numpy()
    assert found.accuracy == 1
    assert found.second.agreement >= 0.95
    (node, *_) = found.tree.second_level
    added = found.tree.rationale(node, found.learned.responses[found.tree.images(node)])
    assert int(np.abs(added).argmax()) == 0
    # Without red the network says something else; without grey, on which nothing rests, it says the same.
    lengths = found.tested.lengths[tried.places]
    assert (own - tried.drops[:, 0] * lengths < 0).all()
    assert tried.drops[:, 3] == pytest.approx(np.zeros(len(tried.places)), abs=1e-6)
    assert found.tree.weights[node, 3] == 0


@pytest.mark.parametrize("seed", range(4))
def test_a_rationale_is_the_best_choice_of_filters(seed: int) -> None:
    """Where filters vary independently greedy choice is exact; else no single filter more or less is better."""
    rng = np.random.default_rng(seed)
    n, filters, penalty = 16, 6, 0.01
    columns = np.linalg.qr(np.column_stack([np.ones(n), rng.normal(size=(n, filters))]))[0][:, 1:] * 4
    for independent in (True, False):
        x = columns if independent else rng.gamma(2.0, 1.0, (n, filters))
        g = rng.normal(size=filters)
        y = x @ (g * rng.integers(0, 2, filters)) + rng.normal(0, 0.3, n) + 5

        def objective(alpha: np.ndarray, x: np.ndarray = x, y: np.ndarray = y, g: np.ndarray = g) -> float:
            left = y - x @ (alpha * g)
            return float(np.square(left - left.mean()).mean() + penalty * alpha.sum())

        found = fit_rationale(g, x, y, penalty=penalty, tolerance=0.0)
        alpha = (found.weights != 0).astype(float)
        assert found.weights == pytest.approx(alpha * g)
        assert found.fitted == pytest.approx(x @ found.weights + found.bias)
        assert found.fitted.mean() == pytest.approx(y.mean())
        if independent:
            best = min(objective(np.array(a)) for a in itertools.product((0.0, 1.0), repeat=filters))
            assert objective(alpha) == pytest.approx(best)
        for number in range(filters):
            other = alpha.copy()
            other[number] = 1 - other[number]
            assert objective(other) >= objective(alpha) - 1e-12


def test_noise_alone_throws_no_filter_out() -> None:
    """By default a filter leaves only for more than chance: with scores that all filters make, and noise, none does."""
    kept = {None: 0, 0.0: 0}
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x = rng.gamma(2.0, 1.0, (40, 200))
        g = np.full(200, 200**-0.5)
        y = x @ g + rng.normal(0, 1.0, 40)
        for tolerance in kept:
            share = TreeSettings(tolerance=tolerance).least_gain(200, 40)
            found = fit_rationale(g, x, y, penalty=1e-6, tolerance=share)
            kept[tolerance] += int(np.count_nonzero(found.weights))
    assert kept[None] >= 0.99 * 2000
    assert kept[0.0] < 0.95 * 2000


@pytest.mark.parametrize("with_others", [False, True])
def test_the_gains_are_those_of_the_definition_and_the_best_pair_is_merged(with_others: bool) -> None:
    pieces = pieces_of(np.random.default_rng(1), 9, 7)
    others = pieces_of(np.random.default_rng(2), 15, 7) if with_others else None
    settings = TreeSettings(neighbours=None, least_likeness=-1, node_cost=1.0, tolerance=0.01)
    tree = learn_tree(pieces, settings, others=others)
    n = len(pieces)
    gamma = 1 / pieces.scores.mean()

    def mode(rows: tuple[int, ...]) -> tuple[np.ndarray, float, np.ndarray]:
        """Return w, b and the scores of its images."""
        if len(rows) == 1:
            return pieces.gradients[rows[0]], pieces.biases[rows[0]], pieces.scores[list(rows)]
        total = pieces.gradients[list(rows)].sum(axis=0)
        found = fit_rationale(
            total / np.linalg.norm(total),
            pieces.responses[list(rows)],
            pieces.scores[list(rows)],
            penalty=1e-6 * len(rows) ** 0.5,
            tolerance=0.01,
        )
        return found.weights, found.bias, found.fitted

    def log_e(nodes: list[tuple[int, ...]]) -> float:
        modes = [mode(rows) for rows in nodes]
        scores = np.concatenate([fitted for _, _, fitted in modes])
        theta = np.exp(gamma * scores).sum()
        pairs = [] if others is None else zip(others.gradients, others.responses, strict=True)
        for g, x in pairs:
            w, b, _ = max(modes, key=lambda m: g @ m[0] / np.linalg.norm(m[0]))
            theta += np.exp(gamma * (w @ x + b))
        return float(gamma * scores.sum() - n * np.log(theta) - len(nodes))

    open_nodes = {leaf: (leaf,) for leaf in range(n)}
    for step, gain in enumerate([*tree.gains, None]):
        before = log_e(list(open_nodes.values()))
        possible = {}
        for one, other in itertools.combinations(sorted(open_nodes), 2):
            left = [rows for node, rows in open_nodes.items() if node not in (one, other)]
            possible[one, other] = log_e([*left, open_nodes[one] + open_nodes[other]]) - before
        if gain is None:
            assert all(value <= 1e-9 for value in possible.values())
            break
        pair = max(possible, key=lambda key: possible[key])
        assert tuple(tree.children[n + step]) == pair
        assert gain == pytest.approx(possible[pair], abs=1e-9)
        joined = open_nodes[pair[0]] + open_nodes[pair[1]]
        open_nodes = {k: v for k, v in open_nodes.items() if k not in pair} | {n + step: joined}
    assert set(tree.children[tree.root]) == set(open_nodes)


def test_a_leaf_says_what_the_network_says_and_its_image_comes_to_it() -> None:
    pieces = pieces_of(np.random.default_rng(2), 30, 20)
    tree = learn_tree(pieces)
    leaves = np.arange(30)
    assert tree.scores(pieces.responses, leaves) == pytest.approx(pieces.scores)
    assert np.array_equal(tree.images(tree.root), leaves)
    assert (tree.parents[:-1] > np.arange(len(tree) - 1)).all()
    way = tree.descend(pieces.gradients)
    assert (way[:, 0] == tree.root).all()
    for before, after in itertools.pairwise(way.T):
        stays, moves = after == before, tree.parents[after] == before
        assert (stays | moves).all()
        assert all(not tree.children[node] for node in before[stays])
    with pytest.raises(InputError, match="gradients"):
        tree.descend(pieces.gradients[:, :5])


def test_few_candidates_give_nearly_the_same_tree() -> None:
    maps, kinds, of_category = planted(60, 5)
    rows = np.flatnonzero(of_category)
    pieces = linear_pieces(planted_score, maps, rows)
    for neighbours in (3, None):
        tree = learn_tree(pieces, TreeSettings(neighbours=neighbours))
        for node in tree.second_level:
            assert len(set(kinds[rows[tree.images(node)]])) == 1


def test_learning_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = pieces_of(np.random.default_rng(4), 40, 10)
    whole = learn_tree(pieces)
    kept = tmp_path / "mergers.npz"
    monkeypatch.setattr(decision_tree, "_MERGERS", 3)
    calls = 0
    merge = decision_tree._Growth.merge

    def killed(self: decision_tree._Growth, one: int, other: int, gain: float) -> None:
        nonlocal calls
        calls += 1
        if calls == 11:
            raise KeyboardInterrupt
        merge(self, one, other, gain)

    monkeypatch.setattr(decision_tree._Growth, "merge", killed)
    with pytest.raises(KeyboardInterrupt):
        learn_tree(pieces, checkpoint=kept)
    calls = -10_000
    searched = 0
    best = decision_tree._Growth.best

    def counted(self: decision_tree._Growth) -> tuple[int, int, float] | None:
        nonlocal searched
        searched += 1
        return best(self)

    monkeypatch.setattr(decision_tree._Growth, "best", counted)
    again = learn_tree(pieces, checkpoint=kept)
    assert searched == len(whole.gains) + 1 - 9
    for name, value in whole.arrays().items():
        assert np.array_equal(value, again.arrays()[name]), name
    # What is kept of other images is none of this tree's.
    other = pieces_of(np.random.default_rng(5), 40, 10)
    assert np.array_equal(learn_tree(other, checkpoint=kept).weights, learn_tree(other).weights)
    kept.write_bytes(b"damaged")
    assert np.array_equal(learn_tree(pieces, checkpoint=kept).weights, whole.weights)


def test_a_tree_is_kept_and_read_again(tmp_path: Path) -> None:
    pieces = pieces_of(np.random.default_rng(6), 12, 5)
    tree = learn_tree(pieces)
    tree.save(tmp_path / "tree.npz")
    again = load_tree(tmp_path / "tree.npz")
    assert np.array_equal(tree.descend(pieces.gradients), again.descend(pieces.gradients))
    assert again.settings == tree.settings
    parts = ["head", "head", "legs", "legs", "elsewhere"]
    graph = tree.to_networkx([f"{n}.jpg" for n in range(12)], parts, pieces.responses)
    networkx.write_graphml(graph, tmp_path / "tree.graphml")
    read = networkx.read_graphml(tmp_path / "tree.graphml", node_type=int)
    assert networkx.is_arborescence(read)
    assert set(read.edges) == {(int(p), n) for n, p in enumerate(tree.parents) if p >= 0}
    for node in range(len(tree)):
        added = tree.rationale(node, pieces.responses[tree.images(node)])
        assert read.nodes[node]["part head"] == pytest.approx(added[:2].sum())
        assert read.nodes[node]["images"] == len(tree.images(node))
    assert read.nodes[3]["image"] == "3.jpg"
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(InputError, match=r"other\.npz"):
        load_tree(tmp_path / "other.npz")


@pytest.mark.parametrize(
    "field",
    [{"neighbours": 0}, {"least_likeness": 2.0}, {"penalty": -1.0}, {"tolerance": -0.1}, {"node_cost": -1.0}],
)
def test_settings_out_of_range_are_refused(field: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(field))):
        TreeSettings(**field)  # type: ignore[arg-type]


def test_images_that_the_network_does_not_take_for_the_category_are_refused() -> None:
    pieces = pieces_of(np.random.default_rng(0), 6, 4)
    with pytest.raises(InputError, match="not above 0"):
        learn_tree(
            LinearPieces(pieces.responses, pieces.gradients, -pieces.scores, pieces.lengths, pieces.scale)
        )
    with pytest.raises(InputError, match="at least 2"):
        learn_tree(pieces.subset([0]))


# ------------------------------------------------------------------------------------------------------- contributions


def test_contributions_of_a_linear_score_are_exactly_the_drops() -> None:
    maps, _, _ = planted(12, 3)
    weights = torch.linspace(-1, 1, FILTERS)

    def linear(values: Tensor) -> Tensor:
        return values.sum(dim=(2, 3)) @ weights + 100

    pieces = linear_pieces(linear, maps)
    tree = learn_tree(pieces)
    assert len(tree.second_level) == 1
    told = tree.contributions(pieces.responses, np.full(12, tree.second_level[0]))
    drops = score_drops(linear, maps, np.arange(12), np.eye(FILTERS, dtype=bool)) / pieces.lengths[:, None]
    assert told == pytest.approx(drops, rel=1e-3, abs=1e-4)
    assert contribution_fitness(told, drops) == pytest.approx(1, abs=1e-3)
    groups = np.zeros((2, FILTERS), dtype=bool)
    groups[0, :4], groups[1, 4:] = True, True
    together = score_drops(linear, maps, np.arange(12), groups) / pieces.lengths[:, None]
    assert part_errors(told @ groups.T, together, pieces.scores) == pytest.approx([0, 0], abs=1e-4)


def test_measures_of_contributions_have_the_values_of_their_definitions() -> None:
    # Σ min = 1 + 2 + 0, Σ max = 3 + 2 + 1; what has the other sign counts for nothing.
    assert contribution_fitness([[1.0, -2.0, 5.0]], [[3.0, -2.0, -1.0]]) == pytest.approx(3 / 6)
    assert contribution_fitness([[0.0, 0.0]], [[0.0, 0.0]]) == 1
    assert part_errors([[1.0, 0.0], [3.0, 1.0]], [[2.0, 0.0], [2.0, 3.0]], [4.0, -4.0]) == pytest.approx(
        [0.25, 0.25]
    )


def test_filters_belong_to_the_parts_that_they_are_strongest_at() -> None:
    rng = np.random.default_rng(0)
    n = 30
    values = rng.random((n, 4, SIDE, SIDE)) * 0.1
    values[:, 3] = 0
    cells = rng.integers(0, SIDE, (n, 2, 2))
    # The first filter follows the head, the second the legs, the third the corner that is far from both.
    cells[:, :, 0] = np.minimum(cells[:, :, 0], 3)
    cells[:, :, 1] = np.maximum(cells[:, :, 1], 2)
    cells[:, 1, 0], cells[:, 0, 0] = 3, np.minimum(cells[:, 0, 0], 1)
    for number in range(n):
        for filter_number in (0, 1):
            values[number, filter_number, *cells[number, filter_number]] = 5
        values[number, 2, 4, 0] = 5
    landmarks = cells * 10.0 + 5
    landmarks[::3, 1] = np.nan
    found = filter_parts(layer_maps(values), np.arange(n), landmarks, ("head", "legs"), (50, 50))
    assert found.of_filters == ["head", "legs", "elsewhere", "elsewhere"]
    assert found.groups.sum(axis=0).tolist() == [1, 1, 1, 1]


def test_the_benchmark_finds_what_it_planted(load_benchmark: Callable[[str], ModuleType]) -> None:
    named, share, ratio, agreement = load_benchmark("decision_tree").planted_rows(0, 1)
    assert named.value == 1
    assert share.value > 0.98 > 0.5 > share.baseline
    assert ratio.value == pytest.approx(1, abs=0.1)
    assert agreement.value >= 0.95


# --------------------------------------------------------------------------------------------------------------- score


def test_the_margin_is_above_0_where_the_network_answers_with_a_target() -> None:
    outputs = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    margin = Margin(nn.Identity(), [1, 4])
    assert torch.equal(margin(outputs) > 0, torch.isin(outputs.argmax(dim=1), torch.tensor([1, 4])))
    assert torch.equal(Margin(nn.Identity(), [0])(outputs[:, :1]), outputs[:, 0])
    for targets, said in (([6], "no such output"), (list(range(6)), "all outputs"), ([1, 1], "different")):
        with pytest.raises(InputError, match=said):
            Margin(nn.Identity(), targets)(outputs)


def test_a_head_learns_a_category_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    of_category = rng.random(120) < 0.5
    values = rng.gamma(2.0, 0.25, (120, FILTERS, SIDE, SIDE))
    values[of_category, 3] *= 4
    maps = layer_maps(values)
    learn, test = split(of_category, seed=1)
    head = train_head(maps, learn, of_category[learn], seed=1, epochs=6, learning_rate=0.01)
    right = (head(maps.tensor(test)) > 0).numpy() == of_category[test]
    assert right.mean() > 0.9
    folder = tmp_path / "head"
    train_head(maps, learn, of_category[learn], seed=1, epochs=6, learning_rate=0.01, checkpoint=folder)
    again = train_head(
        maps, learn, of_category[learn], seed=1, epochs=6, learning_rate=0.01, checkpoint=folder
    )
    assert torch.equal(again(maps.tensor(test)), head(maps.tensor(test)))
    with pytest.raises(InputError, match="others"):
        train_head(maps, learn[:3], np.ones(3, dtype=bool))


def test_relatives_stay_on_one_side_and_both_sides_have_both_kinds() -> None:
    labels = np.arange(100) % 3 == 0
    groups = np.arange(100) // 7
    learn, test = split(labels, groups, seed=3)
    assert sorted([*learn, *test]) == list(range(100))
    for wanted in (True, False):
        sides = [set(groups[rows[labels[rows] == wanted]]) for rows in (learn, test)]
        assert sides[0]
        assert sides[1]
        assert not sides[0] & sides[1]
    with pytest.raises(InputError, match="relatives"):
        split(labels, np.zeros(100))


def test_a_category_is_told_from_images_of_none_if_there_are_any() -> None:
    categories = np.array([0, 1, 0, 2, -1, 0, -1, 1, 0, 2])
    assert category_rows(categories, 0).tolist() == [0, 2, 4, 5, 6, 8]
    assert category_rows(categories[categories >= 0], 1).tolist() == list(range(8))
    assert category_rows(categories, 0, 4).tolist() == [0, 4, 5, 6]
