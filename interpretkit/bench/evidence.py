"""A row of evidence: what was measured on what, beside the number that it is to be compared with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


@dataclass(frozen=True, kw_only=True)
class Row:
    """One claim and what supports it.

    Attributes
    ----------
    system : str
        What was tested, such as a model or a function.
    data : str
        What it was tested on, with the split.
    name : str
        What was measured, such as ``mean absolute error``.
    value : float
        The number measured.
    unit : str
        Its unit; empty for a pure number.
    interval : (float, float) or None
        The lower and upper end of its 95 % confidence interval.
    baseline : float or None
        The same measure for the simplest method that could serve.
    reference : float or None
        The same measure as published, or the bar to reach.
    source : str
        Where the reference comes from: an article with its table, or a document of the project.
    seed : int or None
        The seed; None where nothing is random.
    date : str
        The day of the measurement, as 2025-01-31; today by default.
    stand_in : bool
        Whether other data or another system had to stand in for those of the reference, so that the two
        numbers may be compared only with the reservation that `notes` gives.
    notes : str
        What a reader must know to judge the number.
    """

    system: str
    data: str
    name: str
    value: float
    unit: str = ""
    interval: tuple[float, float] | None = None
    baseline: float | None = None
    reference: float | None = None
    source: str = ""
    seed: int | None = None
    date: str = ""
    stand_in: bool = False
    notes: str = ""

    def __post_init__(self) -> None:
        if not self.date:
            object.__setattr__(self, "date", _today())
        date.fromisoformat(self.date)
        if self.reference is not None and not self.source:
            raise ValueError(f"the reference {self.reference} of {self.name!r} needs a source")
        if self.stand_in and not self.notes:
            raise ValueError(f"the row {self.name!r} has a stand-in: notes must say for what")

    @property
    def ratio(self) -> float | None:
        """The value over the reference; None without a reference, or with one of zero."""
        return self.value / self.reference if self.reference else None

    def to_dict(self) -> dict[str, Any]:
        """Return the row, with its ratio, as what JSON has."""
        return {**asdict(self), "ratio": self.ratio}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Row:
        """Return the row that :meth:`to_dict` wrote; the ratio is computed anew.

        Raises
        ------
        TypeError
            If a field is missing or unknown.
        ValueError
            If a field does not hold what it should.
        """
        known = {name: value for name, value in content.items() if name != "ratio"}
        if known.get("interval") is not None:
            low, high = known["interval"]
            known["interval"] = (float(low), float(high))
        return cls(**known)


def mean_interval(values: Iterable[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean by Student's distribution; None for fewer than two values that are no NaN."""
    import numpy as np
    from scipy.stats import t

    known = [value for value in values if not math.isnan(value)]
    if len(known) < 2:
        return None
    half = float(t.ppf(0.975, len(known) - 1) * np.std(known, ddof=1) / len(known) ** 0.5)
    return float(np.mean(known)) - half, float(np.mean(known)) + half


def ratio_interval(above: Iterable[float], below: Iterable[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean over another mean of the same repetitions, by Fieller's theorem.

    Parameters
    ----------
    above, below : iterable of float, (n,)
        What is measured in each repetition.

    Returns
    -------
    (float, float) or None
        None for fewer than two repetitions, and where it has no ends, for the mean below may be 0.

    References
    ----------
    Fieller: Some problems in interval estimation, Journal of the Royal Statistical Society B 16 (1954), 175-185.
    """
    import numpy as np
    from scipy.stats import t

    upper, lower = (np.array(list(values), dtype=np.float64) for values in (above, below))
    known = ~(np.isnan(upper) | np.isnan(lower))
    upper, lower = upper[known], lower[known]
    count = len(upper)
    if count < 2:
        return None
    # All ratios r for which the mean of upper - r lower is not told from 0.
    covariance = np.cov(upper, lower) * float(t.ppf(0.975, count - 1)) ** 2 / count
    square = lower.mean() ** 2 - covariance[1, 1]
    linear = upper.mean() * lower.mean() - covariance[0, 1]
    constant = upper.mean() ** 2 - covariance[0, 0]
    root = linear**2 - square * constant
    if square <= 0 or root < 0:
        return None
    return float((linear - root**0.5) / square), float((linear + root**0.5) / square)


def markdown(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table, in the order given; columns that no row fills are left out."""
    if not rows:
        return "No rows yet.\n"
    columns = {
        "system": [row.system for row in rows],
        "data": [row.data + (" †" if row.stand_in else "") for row in rows],
        "measured": [row.name for row in rows],
        "value": [_number(row.value, row.unit) for row in rows],
        "95 % interval": [
            "" if row.interval is None else f"{row.interval[0]:.4g} … {row.interval[1]:.4g}" for row in rows
        ],
        "baseline": [_number(row.baseline, row.unit) for row in rows],
        "reference": [_number(row.reference, row.unit) for row in rows],
        "ratio": ["" if row.ratio is None else f"{row.ratio:.3g}" for row in rows],
        "source": [row.source for row in rows],
        "seed": ["" if row.seed is None else str(row.seed) for row in rows],
        "date": [row.date for row in rows],
        "notes": [row.notes for row in rows],
    }
    filled = {name: column for name, column in columns.items() if any(column)}
    right = {"value", "95 % interval", "baseline", "reference", "ratio", "seed"}
    lines = [
        "| " + " | ".join(filled) + " |",
        "|" + "|".join("---:" if name in right else "---" for name in filled) + "|",
        *("| " + " | ".join(map(_cell, cells)) + " |" for cells in zip(*filled.values(), strict=True)),
    ]
    if any(row.stand_in for row in rows):
        lines += ["", "† Other data or another system stands in for those of the reference; see the notes."]
    return "\n".join(lines) + "\n"


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:.4g} {unit}".strip()


def _cell(text: str) -> str:
    """Keep a text within its cell."""
    return " ".join(text.replace("|", "\\|").split())
