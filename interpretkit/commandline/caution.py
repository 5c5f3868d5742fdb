"""What must not be missed in a result: a model no better than what it is to be held against."""

from __future__ import annotations

import math


def no_better(
    what: str,
    value: float | None,
    than: str,
    baseline: float | None,
    *,
    lower_is_better: bool = False,
    form: str = ".3g",
    unit: str = "",
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
    unit : str
        Their unit.

    Returns
    -------
    list of str
        One line or none, so that several of these can be added up.

    Examples
    --------
    >>> no_better("the probe", 0.5, "the most frequent label", 0.52, form=".0%")
    ['THE PROBE IS NO BETTER THAN THE MOST FREQUENT LABEL: 50% beside 52%']
    >>> no_better("the teacher", 0.3, "the mean", 0.2, lower_is_better=True, unit="eV")
    ['THE TEACHER IS NO BETTER THAN THE MEAN: 0.3 eV beside 0.2 eV']
    >>> no_better("the decoder", 0.1, "the mean image", 0.2, lower_is_better=True)
    []
    """
    if value is None or baseline is None or math.isnan(value) or math.isnan(baseline):
        return []
    if value < baseline if lower_is_better else value > baseline:
        return []
    told = " beside ".join(f"{number:{form}} {unit}".rstrip() for number in (value, baseline))
    return [f"{what.upper()} IS NO BETTER THAN {than.upper()}: {told}"]
