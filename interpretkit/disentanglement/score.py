"""What a metric returns, and how its ceiling, floor and interval are found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from interpretkit.disentanglement.inputs import Factors, Floats, check_count

# Of a normal distribution, 95 % lies within so many standard deviations of its mean.
_NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Score:
    """A metric's value beside what the same rows could have given.

    Attributes
    ----------
    value : float
        The metric, of the codes.
    ceiling : float
        The metric of perfect codes: the exact factors, standardised, with codes of noise beside them where there
        are more codes than factors. NaN if it was not asked for.
    floor : float
        The metric of as many codes of Gaussian noise. NaN if it was not asked for.
    interval : (float, float) or None
        A 95 % confidence interval: the value plus and minus 1.96 standard deviations over bootstrap resamples;
        None without resamples. ``details["resampled"]`` says what was drawn anew.
    details : mapping
        How the value came about. Metrics of several parts hold the others here, each a score of its own.
    """

    value: float
    ceiling: float = float("nan")
    floor: float = float("nan")
    interval: tuple[float, float] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def __float__(self) -> float:
        return self.value


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
    """

    values: Mapping[str, float]
    details: Mapping[str, Any]
    resample: Callable[[np.random.Generator], Mapping[str, float]]
    resampled: str
    bounds: tuple[float, float] = (0.0, 1.0)


# Of codes (n, d), factors and a generator.
Measure = Callable[[Floats, Factors, np.random.Generator], Measurement]


def evaluate(
    measure: Measure, codes: Floats, factors: Factors, *, seed: int, resamples: int, bounds: bool
) -> Score:
    """Measure codes, and perfect and noise codes beside them.

    Parameters
    ----------
    measure : callable
        The metric.
    codes : ndarray of float, (n, d)
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
    check_count("resamples", resamples, 0)
    check_count("seed", seed, 0)
    measured = measure(codes, factors, np.random.default_rng([seed, 0]))
    ceilings: Mapping[str, float] = {}
    floors: Mapping[str, float] = {}
    if bounds:
        width = codes.shape[1]
        ceilings = measure(
            perfect_codes(factors, width, seed), factors, np.random.default_rng([seed, 0])
        ).values
        floors = measure(
            noise_codes(len(codes), width, seed), factors, np.random.default_rng([seed, 0])
        ).values
    intervals = bootstrap_intervals(measured, resamples, seed)
    scores = {
        part: Score(
            value, ceilings.get(part, float("nan")), floors.get(part, float("nan")), intervals.get(part)
        )
        for part, value in measured.values.items()
    }
    headline, *others = scores
    details: dict[str, Any] = {"part": headline, **measured.details}
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
