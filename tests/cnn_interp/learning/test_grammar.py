"""The grammar of rectangles: counted, enumerated by brute force, and seen to pass its gradient on to tiles alone."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from cnn_interp.learning.grammar import Grammar, ParseNode, parse, switch
from interpretkit.errors import InputError

GRAMMARS = [Grammar(1), Grammar(2), Grammar(3), Grammar(4, least=2), Grammar(5, least=2)]


def scores_of(grammar: Grammar, *lead: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*lead, len(grammar.tiles), generator=generator, dtype=torch.float64)


def all_trees(grammar: Grammar, box: tuple[int, int, int, int]) -> Iterator[tuple[int, ...]]:
    """Give the tiles of every parse tree of a rectangle, by the definition alone."""
    number = {tuple(map(int, tile)): place for place, tile in enumerate(grammar.tiles)}
    top, left, bottom, right = box
    yield (number[box],)
    for cut in range(top + grammar.least, bottom - grammar.least + 1):
        for first in all_trees(grammar, (top, left, cut, right)):
            for second in all_trees(grammar, (cut, left, bottom, right)):
                yield first + second
    for cut in range(left + grammar.least, right - grammar.least + 1):
        for first in all_trees(grammar, (top, left, bottom, cut)):
            for second in all_trees(grammar, (top, cut, bottom, right)):
                yield first + second


@pytest.mark.parametrize("grammar", GRAMMARS, ids=str)
def test_the_best_parse_is_the_best_of_all_trees(grammar: Grammar) -> None:
    whole = (0, 0, grammar.side, grammar.side)
    trees = list(all_trees(grammar, whole))
    assert len(trees) == grammar.n_trees()
    scores = scores_of(grammar, 4)
    found = parse(scores, grammar)
    used = found.used()
    for row in range(4):
        totals = [float(scores[row, list(tree)].sum()) for tree in trees]
        assert float(found.scores[row]) == pytest.approx(max(totals), abs=1e-9)
        best = trees[int(np.argmax(totals))]
        assert set(torch.nonzero(used[row])[:, 0].tolist()) == set(best)
        assert sorted(found.tree(row).leaves()) == sorted(best)


@pytest.mark.parametrize("side", range(1, 8))
@pytest.mark.parametrize("least", [1, 2, 3])
def test_the_number_of_nodes_is_the_closed_form(side: int, least: int) -> None:
    if least > side:
        with pytest.raises(InputError, match="least"):
            Grammar(side, least)
        return
    grammar = Grammar(side, least)
    extents = grammar.tiles[:, 2:] - grammar.tiles[:, :2]
    cuts = sum(len(list(grammar.cuts((int(h), int(w))))) for h, w in extents)
    expected = {"terminal": len(grammar.tiles), "or": len(grammar.tiles), "and": cuts}
    assert grammar.n_nodes() == expected
    assert len(np.unique(grammar.tiles, axis=0)) == len(grammar.tiles)
    assert extents.min() >= least


def test_known_counts() -> None:
    assert Grammar(3).n_nodes() == {"terminal": 36, "or": 36, "and": 48}
    # One tile; two halves, two ways, or one half cut again (4); all four cells, by rows or by columns first.
    assert Grammar(2).n_trees() == 1 + 2 * (1 + 2 + 1)


def test_the_tiles_of_a_parse_cover_every_cell_once_and_sum_to_its_score() -> None:
    grammar = Grammar(6)
    scores = scores_of(grammar, 3, 5)
    found = parse(scores, grammar)
    used = found.used().double()
    assert torch.equal(used @ torch.from_numpy(grammar.cells).double(), torch.ones(3, 5, 36).double())
    torch.testing.assert_close((used * scores).sum(-1), found.scores)
    tree = found.tree(2, 3)
    assert sorted(tree.leaves()) == torch.nonzero(used[2, 3])[:, 0].tolist()


def test_the_gradient_reaches_the_tiles_of_the_parse_alone() -> None:
    grammar = Grammar(4)
    scores = scores_of(grammar, 6).requires_grad_()
    found = parse(scores, grammar)
    found.scores.sum().backward()
    assert scores.grad is not None
    assert torch.equal(scores.grad, found.used().double())
    # Against differences: a small change of any one tile changes the score by itself if it is of the parse.
    step, at = 1e-6, scores.detach()
    for tile in range(len(grammar.tiles)):
        moved = at.clone()
        moved[:, tile] += step
        change = (parse(moved, grammar).scores - found.scores.detach()) / step
        torch.testing.assert_close(change, scores.grad[:, tile], atol=1e-4, rtol=0)


def test_equal_trees_are_chosen_among_by_their_order_and_not_by_rounding() -> None:
    grammar = Grammar(5)
    rng = torch.Generator().manual_seed(0)
    # All trees into single cells have the same tiles; their sums differ by rounding alone.
    scores = torch.where(
        torch.from_numpy(grammar.shapes == 0),
        torch.rand(200, len(grammar.tiles), generator=rng) / 3,
        torch.tensor(-100.0),
    )
    choices = parse(scores, grammar).choices
    assert torch.equal(choices, choices[:1].expand_as(choices))
    one_tile = torch.from_numpy(grammar.cells.sum(1)).float().expand(2, -1)
    assert parse(one_tile, grammar).tree(0) == ParseNode(len(grammar.tiles) - 1) or not (
        parse(one_tile, grammar).tree(0).children
    )


def test_folding_is_a_mean_and_cooling_it_unfolds() -> None:
    values = torch.tensor([[1.0, 2.0], [4.0, -2.0], [1.0, 6.0]], dtype=torch.float64)
    assert torch.equal(switch(values, math.inf)[0], values.mean(0))
    assert torch.equal(switch(values)[0], values.amax(0))
    torch.testing.assert_close(switch(values, 1e6)[0], values.mean(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(switch(values, 1e-3)[0], values.amax(0), atol=2e-3, rtol=0)
    grammar = Grammar(4)
    scores = scores_of(grammar, 8)
    hot, warm, cold = (parse(scores, grammar, t).scores for t in (math.inf, 1.0, 0.0))
    assert bool((hot < warm).all())
    assert bool((warm < cold).all())
    folded = scores.clone().requires_grad_()
    parse(folded, grammar, math.inf).scores.sum().backward()
    assert folded.grad is not None
    assert bool((folded.grad > 0).all())


def test_a_score_too_few_is_refused() -> None:
    with pytest.raises(InputError, match="expected 36 scores"):
        parse(torch.zeros(2, 35), Grammar(3))
