"""An And-Or grammar of the ways to cut a region into rectangular tiles, and the best parse of many regions at once.

A region is a grid of cells. An OR node stands for a rectangle of it and switches between a terminal, the rectangle as
one tile, and AND nodes, its horizontal and vertical cuts into two smaller rectangles. An AND node is the sum of its two
children, an OR node the largest of its own, so that the root is the score of the best parse tree: the sum of its tiles.
Rectangles are shared among all trees that hold them, so that the grammar is a graph without cycles, which is evaluated
once, from small rectangles to large ones, for all regions together.

References
----------
T. Wu et al., "Towards interpretable R-CNN by unfolding latent structures", arXiv 1711.05226.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interpretkit.errors import InputError

# Children of an OR node that differ by less, over the largest, are equals, of which the first is chosen: rounding must
# not choose between trees with the same tiles.
_EQUAL = 1e-6
Size = tuple[int, int]


@dataclass(frozen=True)
class Grammar:
    """The ways to cut a square of cells into rectangles, by one cut after another through a whole rectangle.

    Attributes
    ----------
    side : int
        Cells along each side of the region.
    least : int
        Cells along the shorter side of the smallest tile.

    Raises
    ------
    InputError
        If a tile would be larger than the region.
    """

    side: int = 6
    least: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.side:
            raise InputError(
                f"least {self.least}: expected 1 to {self.side}, the cells along a side of the region"
            )

    @cached_property
    def sizes(self) -> tuple[Size, ...]:
        """Heights and widths of the rectangles, every one after all that it can be cut into."""
        sides = range(self.least, self.side + 1)
        return tuple(sorted(((h, w) for h in sides for w in sides), key=lambda size: (sum(size), size)))

    @cached_property
    def slices(self) -> dict[Size, slice]:
        """Where the rectangles of a size stand among all."""
        found, start = {}, 0
        for height, width in self.sizes:
            count = (self.side - height + 1) * (self.side - width + 1)
            found[height, width] = slice(start, start + count)
            start += count
        return found

    @cached_property
    def tiles(self) -> NDArray[np.int64]:
        """First row, first column, last row and last column of all rectangles, the last excluded, ``(tiles, 4)``."""
        return np.array(
            [
                (top, left, top + height, left + width)
                for height, width in self.sizes
                for top in range(self.side - height + 1)
                for left in range(self.side - width + 1)
            ]
        )

    @cached_property
    def shapes(self) -> NDArray[np.int64]:
        """The place of each rectangle's size in `sizes`, ``(tiles,)``."""
        counts = [self.slices[size].stop - self.slices[size].start for size in self.sizes]
        return np.repeat(np.arange(len(self.sizes)), counts)

    @cached_property
    def cells(self) -> NDArray[np.bool_]:
        """Which cells, row by row, each rectangle holds, ``(tiles, side²)``."""
        places = np.arange(self.side)
        top, left, bottom, right = self.tiles.T[:, :, None]
        rows, columns = (places >= top) & (places < bottom), (places >= left) & (places < right)
        return (rows[:, :, None] & columns[:, None, :]).reshape(len(self.tiles), -1)

    def cuts(self, size: Size) -> Iterator[tuple[int, int]]:
        """Give the cuts of a rectangle as (axis, how many cells come before): across the rows first."""
        for axis in (0, 1):
            for place in range(self.least, size[axis] - self.least + 1):
                yield axis, place

    def children(self, size: Size, cut: tuple[int, int]) -> tuple[Size, Size]:
        """Return the sizes that a cut makes of a rectangle."""
        axis, place = cut
        first, second = list(size), list(size)
        first[axis], second[axis] = place, size[axis] - place
        return (first[0], first[1]), (second[0], second[1])

    def n_nodes(self) -> dict[str, int]:
        """Return how many terminal, OR and AND nodes there are, by the closed form.

        Of intervals of at least m of g cells there are C(g − m + 2, 2), of their cuts C(g − 2m + 3, 3); a rectangle is
        an interval of rows and one of columns, and is cut along one of them.
        """
        intervals = math.comb(self.side - self.least + 2, 2)
        cuts = math.comb(self.side - 2 * self.least + 3, 3) if self.side >= 2 * self.least else 0
        return {"terminal": intervals**2, "or": intervals**2, "and": 2 * cuts * intervals}

    def n_trees(self) -> int:
        """Return how many parse trees there are, exactly."""
        found: dict[Size, int] = {}
        for size in self.sizes:
            pairs = (self.children(size, cut) for cut in self.cuts(size))
            found[size] = 1 + sum(found[first] * found[second] for first, second in pairs)
        return found[self.side, self.side]


def switch(candidates: Tensor, temperature: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the value of OR nodes and which child each chose.

    Parameters
    ----------
    candidates : Tensor, (children, ...)
        The children's values.
    temperature : float
        0 takes the largest (unfolded). Above, T log mean exp(v / T), to which all children contribute; their mean
        where it is infinite (folded).

    Returns
    -------
    values : Tensor, (...)
        Of the largest child its own value, so that its gradient reaches that child alone.
    choices : Tensor of int64, (...)
        The largest child; of equals the first.
    """
    with torch.no_grad():
        largest = candidates.amax(0)
        near = candidates >= largest - _EQUAL * largest.abs().clamp_min(1.0)
        # The first of equals, on every device: by the largest rank, since argmax takes ten times as long.
        count = len(candidates)
        ranks = torch.arange(count, 0, -1, dtype=torch.int16, device=candidates.device)
        choices = count - (near * ranks.view(-1, *[1] * largest.ndim)).amax(0).long()
    if temperature == 0:
        return candidates.gather(0, choices[None])[0], choices
    if math.isinf(temperature):
        return candidates.mean(0), choices
    total = (candidates / temperature).logsumexp(0) - math.log(len(candidates))
    return temperature * total, choices


@dataclass(frozen=True, eq=False)
class ParseNode:
    """A node of a parse tree: a rectangle that is one tile, or is cut in two.

    Attributes
    ----------
    tile : int
        Its number among the grammar's rectangles.
    cut : (int, int) or None
        Axis and place of the cut; None for a tile.
    children : tuple of ParseNode
        Two, or none.
    """

    tile: int
    cut: tuple[int, int] | None = None
    children: tuple[ParseNode, ...] = ()

    def leaves(self) -> Iterator[int]:
        """Give the tiles, from left to right and from top to bottom as they are cut."""
        if not self.children:
            yield self.tile
        for child in self.children:
            yield from child.leaves()

    def depth(self) -> int:
        """Return how many cuts lie above the deepest tile."""
        return 1 + max(child.depth() for child in self.children) if self.children else 0


@dataclass(frozen=True, eq=False)
class Parses:
    """The parses of regions.

    Attributes
    ----------
    grammar : Grammar
        What they are parsed by.
    scores : Tensor, (...)
        Of the root nodes.
    choices : Tensor of int64, (..., tiles)
        Which child the OR node of each rectangle chose: 0 is the terminal, then come the cuts in their order.
    """

    grammar: Grammar
    scores: Tensor
    choices: Tensor

    def used(self) -> Tensor:
        """Return which rectangles are tiles of the best parse, bool (..., tiles)."""
        grammar = self.grammar
        side, lead = grammar.side, self.choices.shape[:-1]
        reached = {
            (h, w): torch.zeros(
                *lead, side - h + 1, side - w + 1, dtype=torch.bool, device=self.choices.device
            )
            for h, w in grammar.sizes
        }
        reached[side, side][...] = True
        found = torch.zeros_like(self.choices, dtype=torch.bool)
        for size in reversed(grammar.sizes):
            here = reached[size]
            height, width = here.shape[-2:]
            choice = self.choices[..., grammar.slices[size]].unflatten(-1, (height, width))
            found[..., grammar.slices[size]] = (here & (choice == 0)).flatten(-2)
            for number, cut in enumerate(grammar.cuts(size), start=1):
                chosen = here & (choice == number)
                (first, second), (axis, place) = grammar.children(size, cut), cut
                top, left = (place, 0) if axis == 0 else (0, place)
                reached[first][..., :height, :width] |= chosen
                reached[second][..., top : top + height, left : left + width] |= chosen
        return found

    def tree(self, *index: int) -> ParseNode:
        """Return the best parse tree of one region; `index` as of `scores`."""
        grammar = self.grammar
        choices = self.choices[index].cpu().numpy()

        def grow(size: Size, top: int, left: int) -> ParseNode:
            tile = grammar.slices[size].start + top * (grammar.side - size[1] + 1) + left
            choice = int(choices[tile])
            if choice == 0:
                return ParseNode(tile)
            cut = list(grammar.cuts(size))[choice - 1]
            first, second = grammar.children(size, cut)
            axis, place = cut
            below, beside = (place, 0) if axis == 0 else (0, place)
            return ParseNode(tile, cut, (grow(first, top, left), grow(second, top + below, left + beside)))

        return grow((grammar.side, grammar.side), 0, 0)


def parse(tiles: Tensor, grammar: Grammar, temperature: float = 0.0) -> Parses:
    """Parse regions by the scores of their tiles.

    Parameters
    ----------
    tiles : Tensor, (..., tiles)
        The score of every rectangle as one tile, in the order of ``grammar.tiles``.
    grammar : Grammar
        The ways to cut.
    temperature : float
        Of the OR nodes; see :func:`switch`. At 0 scores are those of the best parse trees.

    Returns
    -------
    Parses
        Scores with a gradient, and choices.

    Raises
    ------
    InputError
        If there is not one score for each rectangle.
    """
    if tiles.shape[-1] != len(grammar.tiles):
        raise InputError(
            f"tiles of shape {tuple(tiles.shape)}: expected {len(grammar.tiles)} scores in the last dimension"
        )
    side, lead = grammar.side, tiles.shape[:-1]
    # The regions come last: then every step runs along them in memory.
    flat = tiles.reshape(-1, len(grammar.tiles)).T.contiguous()
    values: dict[Size, Tensor] = {}
    choices: list[Tensor] = []
    for size in grammar.sizes:
        height, width = side - size[0] + 1, side - size[1] + 1
        candidates = [flat[grammar.slices[size]].unflatten(0, (height, width))]
        for cut in grammar.cuts(size):
            (first, second), (axis, place) = grammar.children(size, cut), cut
            top, left = (place, 0) if axis == 0 else (0, place)
            candidates.append(
                values[first][:height, :width] + values[second][top : top + height, left : left + width]
            )
        values[size], choice = switch(torch.stack(candidates), temperature)
        choices.append(choice.flatten(0, 1))
    chosen = torch.cat(choices).T.reshape(*lead, len(grammar.tiles))
    return Parses(grammar, values[side, side].reshape(lead), chosen)
