"""What a metric returns, and how its ceiling, floor and interval are found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from interpretkit.disentanglement.columns import Floats, Integers
from interpretkit.disentanglement.inputs import Codes, Factors, standardise
from interpretkit.errors import InputError, check_count

# Of a normal distribution, 95 % lies within so many standard deviations of its mean.
_NORMAL_95 = 1.959964
# A value further above its ceiling than this is explained; ceiling and floor nearer to each other tell nothing apart.
_ABOVE = 0.005
# How a warning begins that says so.
ABOVE = "above its ceiling, which is no bound"
_TOGETHER = 0.05


@dataclass(frozen=True)
class Score:
    """A metric's value beside what the same rows could have given.

    Attributes
    ----------
    value : float
        The metric, of the codes.
    ceiling : float
        The metric of perfect codes: the exact factors, standardised, with codes of noise beside them where there
        are more codes than factors. It is what to compare with, and no bound: where a value lies above it, the
        warnings say how that can be. NaN if it was not asked for.
    floor : float
        The metric of as many codes of Gaussian noise. NaN if it was not asked for.
    interval : (float, float) or None
        A 95 % confidence interval: the value plus and minus 1.96 standard deviations over bootstrap resamples;
        None without resamples. ``details["resampled"]`` says what was drawn anew.
    details : mapping
        How the value came about. Metrics of several parts hold the others here, each a score of its own.
        ``warnings``, a tuple of lines, says what to mind in this value.
    """

    value: float
    ceiling: float = float("nan")
    floor: float = float("nan")
    interval: tuple[float, float] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def __float__(self) -> float:
        return self.value

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to mind in this value, a line each."""
        return tuple(self.details.get("warnings", ()))


@dataclass(frozen=True)
class Measurement:
    """A metric of one set of codes.

    Attributes
    ----------
    values : mapping of str to float
        The parts of the metric, the headline first.
    details : mapping
        What goes into :attr:`Score.details`.
    resample : callable
        Given a generator, the same parts on one bootstrap resample.
    resampled : str
        What such a resample draws anew.
    bounds : (float, float)
        Between which the parts lie by definition.
    warnings : callable
        Returns what to mind in these values; called for the codes asked about alone.
    above : str
        How codes can score above the exact factors beside noise.
    """

    values: Mapping[str, float]
    details: Mapping[str, Any]
    resample: Callable[[np.random.Generator], Mapping[str, float]]
    resampled: str
    bounds: tuple[float, float] = (0.0, 1.0)
    warnings: Callable[[], Sequence[str]] = tuple
    above: str = ""


# Of codes, factors and a generator.
Measure = Callable[[Codes, Factors, np.random.Generator], Measurement]


def evaluate(
    measure: Measure, codes: Codes, factors: Factors, *, seed: int, resamples: int, bounds: bool
) -> Score:
    """Measure codes, and perfect and noise codes beside them.

    Parameters
    ----------
    measure : callable
        The metric.
    codes : Codes
        The codes.
    factors : Factors
        The factors of the same rows.
    seed : int
        The seed of all randomness.
    resamples : int
        The number of bootstrap resamples; 0 for no interval.
    bounds : bool
        Whether to find ceiling and floor.

    Returns
    -------
    Score
        Of the first part, with a score for each further part in its details.
    """
    check_resamples(resamples)
    check_count("seed", seed, 0)
    measured = measure(codes, factors, np.random.default_rng([seed, 0]))
    ceilings: Mapping[str, float] = {}
    floors: Mapping[str, float] = {}
    if bounds:
        perfect, noise = _perfect(codes, factors, seed), _noise(codes, seed)
        ceilings = measure(perfect, factors, np.random.default_rng([seed, 0])).values
        floors = measure(noise, factors, np.random.default_rng([seed, 0])).values
    intervals = bootstrap_intervals(measured, resamples, seed)
    scores = {
        part: Score(
            value, ceilings.get(part, float("nan")), floors.get(part, float("nan")), intervals.get(part)
        )
        for part, value in measured.values.items()
    }
    headline, *others = scores
    warnings = [*codes.warnings, *factors.warnings, *measured.warnings(), *_beside_bounds(scores, measured)]
    details: dict[str, Any] = {
        "part": headline,
        **measured.details,
        "warnings": tuple(dict.fromkeys(warnings)),
    }
    details.update({part: scores[part] for part in others})
    if resamples:
        details["resamples"] = resamples
        details["resampled"] = measured.resampled
    first = scores[headline]
    return Score(first.value, first.ceiling, first.floor, first.interval, details)


def bootstrap_intervals(
    measured: Measurement, resamples: int, seed: int
) -> dict[str, tuple[float, float] | None]:
    """Return a 95 % interval for every part.

    The interval is centred on the value: estimates of mutual information are biased upwards on resampled rows,
    so that their percentiles need not even hold the value, while their spread is what is wanted.
    """
    if resamples < 2:
        return {}
    rng = np.random.default_rng([seed, 2])
    drawn = [measured.resample(rng) for _ in range(resamples)]
    low, high = measured.bounds
    intervals: dict[str, tuple[float, float] | None] = {}
    for part, value in measured.values.items():
        if part not in drawn[0]:
            intervals[part] = None
            continue
        reach = _NORMAL_95 * float(np.std([one[part] for one in drawn], ddof=1))
        intervals[part] = (max(low, value - reach), min(high, value + reach))
    return intervals


def check_resamples(resamples: int) -> None:
    """Raise an InputError for a number of resamples that gives no interval, other than 0."""
    if check_count("resamples", resamples, 0) == 1:
        raise InputError("resamples 1: expected 0, or at least 2, for an interval needs several")


def _beside_bounds(scores: Mapping[str, Score], measured: Measurement) -> list[str]:
    """Say where values lie above their ceilings, and where ceiling and floor tell nothing apart."""
    found = []
    for part, score in scores.items():
        name = f"{part} " if len(scores) > 1 else ""
        if measured.bounds[1] < np.inf and abs(score.ceiling - score.floor) < _TOGETHER:
            found.append(
                f"{name}ceiling {score.ceiling:.3f} and floor {score.floor:.3f}: on these rows the score hardly tells "
                "perfect codes from noise"
            )
        elif measured.bounds[1] < np.inf and score.value > score.ceiling + _ABOVE:
            found.append(f"{name}{ABOVE}: {measured.above}")
    return found


def _perfect(codes: Codes, factors: Factors, seed: int) -> Codes:
    """Return the exact factors beside noise, as many as there are codes; discrete codes get discrete ones."""
    exact = perfect_codes(factors, codes.count, seed)
    if not any(levels is not None for levels in codes.levels):
        return standardise(exact)
    levels: list[Integers | None] = list(factors.levels)
    for number in range(factors.count, codes.count):
        own, exact[:, number] = _shuffled(codes, number, exact[:, number], seed)
        levels.append(own)
    return standardise(exact, tuple(levels))


def _noise(codes: Codes, seed: int) -> Codes:
    """Return as many codes of noise; instead of a discrete one, its own values in a random order."""
    noise = noise_codes(len(codes), codes.count, seed)
    levels: list[Integers | None] = []
    for number in range(codes.count):
        own, noise[:, number] = _shuffled(codes, number, noise[:, number], seed)
        levels.append(own)
    return standardise(noise, tuple(levels))


def _shuffled(codes: Codes, number: int, noise: Floats, seed: int) -> tuple[Integers | None, Floats]:
    """Return the levels and values of a discrete code in a random order; for a continuous one, None and `noise`."""
    levels = codes.levels[number]
    if levels is None:
        return None, noise
    order = np.random.default_rng([seed, 4, number]).permutation(len(codes))
    return levels[order], codes.columns[number, order]


def perfect_codes(factors: Factors, width: int, seed: int = 0) -> Floats:
    """Return the exact factors, standardised, and columns of standard Gaussian noise up to `width` codes.

    Returns
    -------
    ndarray of float, (n, max(k, width))
    """
    spare = max(0, width - factors.count)
    noise = np.random.default_rng([seed, 1]).standard_normal((len(factors), spare))
    return np.hstack([factors.as_codes(), noise])


def noise_codes(rows: int, width: int, seed: int = 0) -> Floats:
    """Return standard Gaussian noise, ``(rows, width)``."""
    return np.random.default_rng([seed, 3]).standard_normal((rows, width))


def drawn_weights(rng: np.random.Generator, rows: int) -> Floats:
    """Return how often each of `rows` rows occurs in a bootstrap resample, ``(rows,)``."""
    return np.bincount(rng.integers(rows, size=rows), minlength=rows).astype(float)


def split_rows(rng: np.random.Generator, rows: int, share: float = 1 / 3) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the rows to learn from and of those held out, in random order."""
    order = rng.permutation(rows)
    held_out = max(1, round(share * rows))
    return order[held_out:], order[:held_out]
