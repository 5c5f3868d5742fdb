"""Unknown unknowns: where a network is wrong and sure of it (Lakkaraju, Kamar, Caruana and Horvitz, 2017).

Confident predictions are partitioned by patterns of attributes that people can read, and a bandit decides which part to
ask an oracle about next.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpretkit.errors import InputError
from interpretkit.training import numpy_generator

# From the row of an example to the label that a person, or the truth, gives it.
Oracle = Callable[[int], int | str]
# The parts of a partition's objective, with Lakkaraju's weights of one each.
OBJECTIVE: Mapping[str, float] = {
    "spread": 1.0, "overlap": 1.0, "confidence spread": 1.0, "confidence overlap": 1.0, "length": 1.0,
}  # fmt: skip
# Less than the theory's 2, for a hundred questions are too few to settle every part; chosen on other seeds than those
# of the evidence.
EXPLORATION = 0.05
EXPLORERS = ("bandit", "epsilon_greedy", "random", "uncertainty")


@dataclass(frozen=True)
class Pattern:
    """Attributes that some examples have in common.

    Attributes
    ----------
    attributes : tuple of int
        Places of the attributes, all of which an example must have; empty for the pattern of all examples.
    rows : ndarray of bool, (n,)
        The examples that have them.
    """

    attributes: tuple[int, ...]
    rows: NDArray[np.bool_]

    def describe(self, names: Sequence[str]) -> str:
        """Return the attributes' names, joined by ``and``."""
        return " and ".join(names[place] for place in self.attributes) or "everything"


@dataclass(frozen=True)
class Partition:
    """Confident predictions, each in one part.

    Attributes
    ----------
    patterns : tuple of Pattern
        One for each part, in the order in which they were chosen.
    part : ndarray of int, (n,)
        The part of each example.
    """

    patterns: tuple[Pattern, ...]
    part: NDArray[np.intp]

    def sizes(self) -> NDArray[np.intp]:
        """Return how many examples each part ``(parts,)`` holds."""
        return np.bincount(self.part, minlength=len(self.patterns))


@dataclass(frozen=True)
class Exploration:
    """What was asked and what came out.

    Attributes
    ----------
    explorer : str
        Who chose the questions; one of ``EXPLORERS``.
    queries : ndarray of int, (budget,)
        The examples asked about, in order.
    wrong : ndarray of bool, (budget,)
        Whether the network was wrong about each.
    utility : ndarray of float, (budget,)
        1 if it was wrong, less ``gamma`` times the cost of asking.
    """

    explorer: str
    queries: NDArray[np.intp]
    wrong: NDArray[np.bool_]
    utility: NDArray[np.float64]

    def regret(self, best: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return by how much the utility so far falls short of the best possible, after each query ``(budget,)``.

        Parameters
        ----------
        best : ndarray of float, (n,)
            The utility of asking about every example, in any order; known in hindsight only.
        """
        ideal = np.sort(np.asarray(best, dtype=float))[::-1][: len(self.utility)]
        return np.cumsum(ideal) - np.cumsum(self.utility)


def binary_attributes(columns: Mapping[str, Sequence[object]]) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Turn columns of categories into attributes that an example has or has not.

    Parameters
    ----------
    columns : mapping of str to sequence, (n,)
        Such as ``{"colour": ["red", "blue", …]}``. Columns of true and false give one attribute, others one for each
        value.

    Returns
    -------
    attributes : ndarray of bool, (n, a)
    names : tuple of str, (a,)
        Such as ``colour is red``.

    Raises
    ------
    InputError
        If there is no column, or they differ in length.
    """
    if not columns or len({len(values) for values in columns.values()}) != 1:
        lengths = {name: len(values) for name, values in columns.items()}
        raise InputError(f"attributes: {lengths or 'none'}; expected columns of one length, at least one")
    found: list[NDArray[np.bool_]] = []
    names: list[str] = []
    for name, values in columns.items():
        texts = np.array([str(value) for value in values])
        distinct = sorted(set(texts.tolist()))
        if set(distinct) <= {"True", "False"}:
            found.append(texts == "True")
            names.append(name)
            continue
        for value in distinct:
            found.append(texts == value)
            names.append(f"{name} is {value}")
    return np.stack(found, axis=1), tuple(names)


def frequent_patterns(
    attributes: NDArray[np.bool_], *, support: float = 0.04, longest: int = 3
) -> list[Pattern]:
    """Return the sets of attributes that many examples have together (Agrawal and Srikant's Apriori, 1994).

    Parameters
    ----------
    attributes : ndarray of bool, (n, a)
        Which example has which attribute.
    support : float
        The smallest share of the examples.
    longest : int
        The most attributes in a pattern.

    Returns
    -------
    list of Pattern
        Shorter ones first. Of patterns with the same examples only the first is kept, for the others say the same
        in more words. The pattern without attributes, which holds every example, stands at the end if the others
        leave any out.

    Raises
    ------
    InputError
        If an argument is out of range.
    """
    attributes = np.asarray(attributes, dtype=bool)
    if attributes.ndim != 2 or len(attributes) == 0:
        raise InputError(f"attributes: of shape {attributes.shape}; expected (n, attributes), n at least 1")
    if not 0 < support <= 1 or longest < 1:
        raise InputError(
            f"support {support}, longest {longest}: expected a share in 0 … 1, and at least 1 attribute"
        )
    least = max(1, int(np.ceil(support * len(attributes))))
    found: list[Pattern] = []
    seen: set[bytes] = set()
    level: dict[tuple[int, ...], NDArray[np.bool_]] = {
        (place,): column for place, column in enumerate(attributes.T) if column.sum() >= least
    }
    for length in range(1, longest + 1):
        for places, rows in level.items():
            key = rows.tobytes()
            if key not in seen:
                seen.add(key)
                found.append(Pattern(places, rows))
        if length == longest:
            break
        longer: dict[tuple[int, ...], NDArray[np.bool_]] = {}
        for (first, rows), (second, other) in itertools.combinations(level.items(), 2):
            # Two sets that differ in their last attribute alone join into a longer one; all of its subsets must be
            # frequent, or it cannot be.
            if first[:-1] != second[:-1]:
                continue
            joined = (*first, second[-1])
            if all(subset in level for subset in itertools.combinations(joined, length)):
                both = rows & other
                if both.sum() >= least:
                    longer[joined] = both
        level = longer
    covered = np.logical_or.reduce([pattern.rows for pattern in found]) if found else np.zeros(1, dtype=bool)
    if not covered.all():
        found.append(Pattern((), np.ones(len(attributes), dtype=bool)))
    return found


def partition(
    attributes: NDArray[np.bool_],
    confidence: ArrayLike,
    patterns: Sequence[Pattern],
    *,
    weights: Mapping[str, float] = OBJECTIVE,
) -> Partition:
    """Cover examples with patterns, by the greedy rule for the weighted set cover.

    A pattern is cheap if its examples are alike, unlike the others, of like confidence, of other confidence than the
    others', and if it is short. The next pattern is the one whose cost for each example that is not yet covered is
    least; the examples that it adds become a part.

    Parameters
    ----------
    attributes : ndarray of bool, (n, a)
        The examples.
    confidence : array_like of float, (n,)
        The network's probability of what it predicts.
    patterns : sequence of Pattern
        Candidates, which together must hold every example, as those of :func:`frequent_patterns` do.
    weights : mapping of str to float
        Weights of the objective's parts, by their names in ``OBJECTIVE``.

    Raises
    ------
    InputError
        If the shapes do not fit, a weight is unknown or negative, or an example is in no pattern.
    """
    attributes = np.asarray(attributes, dtype=bool)
    sure = np.asarray(confidence, dtype=float)
    if sure.shape != (len(attributes),):
        raise InputError(f"confidence: of shape {sure.shape}; expected ({len(attributes)},)")
    if set(weights) - set(OBJECTIVE) or any(weight < 0 for weight in weights.values()):
        raise InputError(f"weights {dict(weights)}: expected {', '.join(OBJECTIVE)}, none negative")
    if not patterns or not np.logical_or.reduce([pattern.rows for pattern in patterns]).all():
        raise InputError("patterns: leave some examples out; expected that each is in one of them at least")
    costs = _costs(attributes, sure, patterns, weights)
    part = np.full(len(attributes), -1, dtype=np.intp)
    members = np.stack([pattern.rows for pattern in patterns])
    chosen: list[Pattern] = []
    while (part < 0).any():
        gains = (members & (part < 0)).sum(1)
        with np.errstate(divide="ignore"):
            best = int(np.argmin(np.where(gains > 0, costs * members.sum(1) / gains, np.inf)))
        part[members[best] & (part < 0)] = len(chosen)
        chosen.append(patterns[best])
    return Partition(tuple(chosen), part)


def _costs(
    attributes: NDArray[np.bool_],
    confidence: NDArray[np.float64],
    patterns: Sequence[Pattern],
    weights: Mapping[str, float],
) -> NDArray[np.float64]:
    """Return the cost of each pattern ``(patterns,)`` for an example that has it, above 0.

    The distances to other patterns' centres, which the objective subtracts, count as what they lack to the largest,
    for the greedy rule needs costs above 0.
    """
    rows = attributes.astype(float)
    centres = np.stack([rows[pattern.rows].mean(0) for pattern in patterns])
    levels = np.array([confidence[pattern.rows].mean() for pattern in patterns])
    spread, apart, sure_spread, sure_apart = np.zeros((4, len(patterns)))
    for number, pattern in enumerate(patterns):
        own = rows[pattern.rows]
        spread[number] = np.sqrt(np.square(own - centres[number]).sum(1)).mean()
        squares = np.square(own).sum(1)[:, None] - 2 * own @ centres.T + np.square(centres).sum(1)[None]
        apart[number] = np.sqrt(np.clip(squares, 0, None)).mean()
        sure_spread[number] = np.abs(confidence[pattern.rows] - levels[number]).mean()
        sure_apart[number] = np.abs(confidence[pattern.rows][:, None] - levels[None]).mean()
    lengths = np.array([len(pattern.attributes) for pattern in patterns], dtype=float)
    terms = {
        "spread": spread,
        "overlap": apart.max() - apart,
        "confidence spread": sure_spread,
        "confidence overlap": sure_apart.max() - sure_apart,
        "length": lengths,
    }
    total = np.zeros(len(patterns))
    for name, term in terms.items():
        # Brought to 0 … 1, so that weights of one mean equal voices.
        total += weights.get(name, 0.0) * term / max(float(term.max()), 1e-12)
    return total + 1e-6


def utilities(wrong: ArrayLike, *, gamma: float = 0.0, cost: ArrayLike = 1.0) -> NDArray[np.float64]:
    """Return 1(wrong) − gamma · cost for each example ``(n,)``."""
    return np.asarray(wrong, dtype=float) - gamma * np.asarray(cost, dtype=float)


def explore(
    parts: Partition,
    predictions: Sequence[int | str] | NDArray[np.generic],
    oracle: Oracle,
    *,
    budget: int,
    explorer: str = "bandit",
    confidence: ArrayLike | None = None,
    discount: float = 0.99,
    exploration: float = EXPLORATION,
    epsilon: float = 0.1,
    gamma: float = 0.0,
    cost: ArrayLike = 1.0,
    seed: int = 0,
) -> Exploration:
    """Ask an oracle about confident predictions, one at a time, to find those that are wrong.

    Parameters
    ----------
    parts : Partition
        Parts of the ``n`` confident predictions.
    predictions : sequence, (n,)
        What the network says.
    oracle : callable
        From a row to the true label.
    budget : int
        Questions to ask; no example is asked about twice.
    explorer : {"bandit", "epsilon_greedy", "random", "uncertainty"}
        The discounted upper confidence bound over the parts (Garivier and Moulines, 2008), whose memory fades
        because a part's errors run out; the part of the best mean so far, but a random one with the chance
        `epsilon`; any example; the least confident example.
    confidence : array_like of float, (n,), optional
        For ``uncertainty``.
    discount : float
        What a past answer is worth after each further one, in the bandit.
    exploration : float
        The bandit adds √(exploration · log N / Nᵢ) to a part's mean; 2 is the value of the theory's proof.
    epsilon : float
        See above.
    gamma, cost : float, array_like of float (n,)
        Utility is 1 for an error, less gamma · cost.
    seed : int
        Seed of all choices.

    Raises
    ------
    InputError
        If an argument is out of range or `confidence` is missing.
    """
    n = len(parts.part)
    if explorer not in EXPLORERS:
        raise InputError(f"explorer {explorer!r}: expected one of {', '.join(EXPLORERS)}")
    if len(predictions) != n:
        raise InputError(f"predictions: {len(predictions)} for {n} examples; expected one each")
    if not 1 <= budget <= n:
        raise InputError(f"budget {budget}: expected 1 to {n}, the number of confident predictions")
    if not 0 < discount <= 1 or not 0 <= epsilon <= 1:
        raise InputError(f"discount {discount}, epsilon {epsilon}: expected both in 0 … 1")
    costs = np.broadcast_to(np.asarray(cost, dtype=float), (n,))
    generator = numpy_generator(seed, "explore", explorer)
    order: NDArray[np.intp]
    if explorer == "uncertainty":
        if confidence is None:
            raise InputError("confidence: none given; expected one for each example, to ask by uncertainty")
        order = np.argsort(np.asarray(confidence, dtype=float), kind="stable")
    else:
        order = generator.permutation(n)
    free = order if explorer in ("random", "uncertainty") else None
    waiting = [list(order[parts.part[order] == number]) for number in range(len(parts.patterns))]
    plays, gains = np.zeros(len(waiting)), np.zeros(len(waiting))
    queries, wrong, utility = [], [], []
    for step in range(budget):
        if free is not None:
            row = int(free[step])
            arm = int(parts.part[row])
        else:
            possible = np.array([bool(rows) for rows in waiting])
            arm = _choose(explorer, plays, gains, possible, exploration, epsilon, generator)
            row = int(waiting[arm].pop())
        mistaken = oracle(row) != predictions[row]
        value = float(mistaken) - gamma * float(costs[row])
        if explorer == "bandit":
            plays *= discount
            gains *= discount
        plays[arm] += 1
        gains[arm] += value
        queries.append(row)
        wrong.append(bool(mistaken))
        utility.append(value)
    return Exploration(explorer, np.array(queries, dtype=np.intp), np.array(wrong), np.array(utility))


def _choose(
    explorer: str,
    plays: NDArray[np.float64],
    gains: NDArray[np.float64],
    possible: NDArray[np.bool_],
    exploration: float,
    epsilon: float,
    generator: np.random.Generator,
) -> int:
    """Return the part to ask about next, of those that have examples left."""
    untried = np.flatnonzero(possible & (plays == 0))
    if len(untried):
        return int(untried[0])
    means = gains / np.maximum(plays, 1e-12)
    if explorer == "epsilon_greedy":
        if generator.random() < epsilon:
            return int(generator.choice(np.flatnonzero(possible)))
        bounds = means
    else:
        bounds = means + np.sqrt(exploration * np.log(max(plays.sum(), 1.0)) / np.maximum(plays, 1e-12))
    return int(np.argmax(np.where(possible, bounds, -np.inf)))


def part_table(
    parts: Partition, names: Sequence[str], found: Exploration, confidence: ArrayLike
) -> list[dict[str, object]]:
    """Return one row for each part: its pattern, its size, what was asked and found wrong, the most errors first."""
    sure = np.asarray(confidence, dtype=float)
    rows: list[dict[str, object]] = []
    for number, pattern in enumerate(parts.patterns):
        asked = parts.part[found.queries] == number
        errors = int(found.wrong[asked].sum())
        rows.append(
            {
                "pattern": pattern.describe(names),
                "examples": int((parts.part == number).sum()),
                "mean confidence": float(sure[parts.part == number].mean()),
                "asked": int(asked.sum()),
                "wrong": errors,
                "share wrong": errors / int(asked.sum()) if asked.any() else None,
            }
        )
    return sorted(rows, key=lambda row: (-int(str(row["wrong"])), str(row["pattern"])))
