"""What must not be missed in a result: a model no better than what it is to be held against."""

from __future__ import annotations

import math
from collections.abc import Iterable, MutableMapping
from typing import Any, Protocol


class Page(Protocol):
    """A page that can say something in large letters."""

    def add_alarm(self, text: str) -> Any:
        """Add a line in large letters."""


def no_better(
    what: str,
    value: float | None,
    than: str,
    baseline: float | None,
    *,
    lower_is_better: bool = False,
    form: str = ".3g",
) -> list[str]:
    """Return a line that says so if a value is no better than its baseline; nothing otherwise.

    Parameters
    ----------
    what, value : str, float
        What was measured; where it is None or NaN nothing can be said.
    than, baseline : str, float
        The simple method that it is held against, and what that reaches.
    lower_is_better : bool
        Whether it is an error or a distance.
    form : str
        How both numbers are written, such as ``.1%``.

    Returns
    -------
    list of str
        One line or none, so that several of these can be added up.

    Examples
    --------
    >>> no_better("the probe", 0.5, "the most frequent label", 0.52, form=".0%")
    ['THE PROBE IS NO BETTER THAN THE MOST FREQUENT LABEL: 50% beside 52%']
    >>> no_better("the decoder", 0.1, "the mean image", 0.2, lower_is_better=True)
    []
    """
    if value is None or baseline is None or math.isnan(value) or math.isnan(baseline):
        return []
    if value < baseline if lower_is_better else value > baseline:
        return []
    return [f"{what.upper()} IS NO BETTER THAN {than.upper()}: {value:{form}} beside {baseline:{form}}"]


def warn_loudly(lines: Iterable[str], page: Page, summary: MutableMapping[str, Any]) -> None:
    """Say lines in large letters on a page, and put them into a run's summary, which the terminal ends with.

    Parameters
    ----------
    lines : iterable of str
        May be empty, which changes nothing.
    page : Page
        The report.
    summary : mapping
        The run's summary; the lines are added to its ``warnings``.
    """
    told = list(lines)
    for line in told:
        page.add_alarm(line)
    if told:
        summary["warnings"] = [*summary.get("warnings", ()), *told]
