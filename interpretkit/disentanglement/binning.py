"""Continuous columns cut into bins, and what to know of those whose range is set by outliers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from interpretkit.disentanglement.columns import SAME_STEPS, Floats, Integers

# Outliers: this share of the rows, the middle one, lies within so small a part of the range.
_MIDDLE = 0.95
_NARROW = 0.25
_COARSE_BINS = 16


def equal_width_bins(values: Floats, bins: int, resolution: Floats | None = None) -> Integers:
    """Number the bins of equal width, over each column's range, that the values fall into.

    A value on the edge of two bins belongs to the upper one, as in a histogram. On the edge is what differs from it
    by rounding: by a millionth of a bin, or by the steps in which the values are stored.

    Parameters
    ----------
    values : ndarray of float, (n, d)
        The columns to cut.
    bins : int
        The number of bins. A column that never varies falls into the first.
    resolution : ndarray of float, (d,), optional
        The steps in which the values of each column are stored.

    Returns
    -------
    ndarray of intp, (d, n)
        A row per column, for the counts that follow go through one column at a time.
    """
    columns = np.array(values.T, order="C")
    low = columns.min(axis=1, keepdims=True)
    width = (columns.max(axis=1, keepdims=True) - low) / bins
    # The difference may underflow, or overflow for values near the largest float: then there is no range to cut.
    usable = np.isfinite(width) & (width > 0)
    width = np.where(usable, width, np.inf)
    tolerance = np.full(width.shape, 1e-6)
    if resolution is not None:
        tolerance = np.clip(SAME_STEPS * resolution[:, None] / width, tolerance, 0.25)
    columns -= low
    columns /= width
    columns += tolerance
    found = columns.astype(np.intp)
    np.minimum(found, bins - 1, out=found)
    return found


def equal_mass_bins(values: Floats, bins: int) -> Integers:
    """Number the bins that hold equally many rows; equal values share a bin.

    Parameters and result are those of :func:`equal_width_bins`.
    """
    found = np.empty(values.shape[::-1], dtype=np.intp)
    for column in range(values.shape[1]):
        distinct, inverse, counts = np.unique(values[:, column], return_inverse=True, return_counts=True)
        # Twice the number of rows below the middle of each value, so that nothing is rounded.
        middle = 2 * np.cumsum(counts) - counts
        of_distinct = np.minimum(middle * bins // (2 * len(values)), bins - 1)
        found[column] = of_distinct[inverse] if len(distinct) > 1 else 0
    return found


def outliers_drawn_in(columns: Floats) -> Floats:
    """Return columns ``(d, n)`` in which what lies far off is drawn in, with the middle of every one alike.

    The middle 95 % of the values are scaled to the range from 0 to 1; what lies beyond −1 or 2 is put there. A column
    whose middle values are equal keeps all others where they are.
    """
    n = columns.shape[1]
    beyond = max(1, int(np.ceil((1 - _MIDDLE) / 2 * n)))
    middle = np.partition(columns, (beyond, n - 1 - beyond), axis=1)
    low, high = middle[:, [beyond]], middle[:, [n - 1 - beyond]]
    span = high - low
    flat = span <= 0
    drawn = np.clip((columns - low) / np.where(flat, 1.0, span), -1.0, 2.0)
    return np.where(flat, columns, drawn)


def outlier_warnings(columns: Floats, kind: str, names: Sequence[int] | None = None) -> tuple[str, ...]:
    """Return a warning for every row of ``(d, n)`` whose range is set by a few values far off."""
    if len(columns) == 0:
        return ()
    # Cut coarsely, which is fast, few look as if they could be concerned.
    cells = equal_width_bins(columns.T, _COARSE_BINS)
    counts = np.array([np.bincount(cell, minlength=_COARSE_BINS) for cell in cells])
    suspects = np.flatnonzero(_middle_spans(counts)[1] < _NARROW * _COARSE_BINS + 2)
    columns = columns[suspects]
    n = columns.shape[1]
    beyond = max(1, int(np.ceil((1 - _MIDDLE) / 2 * n)))
    last = n - 1 - beyond
    ranges = np.ptp(columns, axis=1)
    middle = np.partition(columns, (beyond, last), axis=1)
    spans = middle[:, last] - middle[:, beyond]
    warnings = []
    for number in np.flatnonzero((ranges > 0) & (spans < _NARROW * ranges)).tolist():
        inside = middle[number, beyond : last + 1]
        # Where they are one value, the few others are what the code has to tell.
        if len(np.unique(inside)) > 1:
            place = int(suspects[number])
            name = names[place] if names is not None else place
            share = spans[number] / ranges[number]
            warnings.append(
                f"{kind} {name}: {100 * _MIDDLE:.0f} % of the rows lie within {_percent(share)} of its range, "
                "which a few rows far off set"
            )
    return tuple(warnings)


def bin_warnings(counts: Integers, cells: Integers, columns: Floats, kind: str) -> list[str]:
    """Return a warning for every column of which nearly all rows fall into few bins of equal width.

    Parameters
    ----------
    counts : ndarray of intp, (d, bins)
        How many rows fall into each bin.
    cells : ndarray of intp, (d, n)
        Every column's bins, numbered from 0.
    columns : ndarray of float, (d, n)
        The values.
    kind : str
        What the columns are.
    """
    warnings = []
    bins = counts.shape[1]
    firsts, spans = _middle_spans(counts)
    for number in np.flatnonzero(spans <= _NARROW * bins).tolist():
        first, spanned = firsts[number], spans[number]
        inside = columns[number, (cells[number] >= first) & (cells[number] < first + spanned)]
        # A code of few values has nothing to lose within so few bins.
        if len(np.unique(inside)) > spanned:
            warnings.append(
                f"{kind} {number}: {100 * _MIDDLE:.0f} % of the rows fall into {spanned} of {bins} bins of equal "
                "width, for a few rows lie far off; bins of equal mass do not mind them"
            )
    return warnings


def _middle_spans(counts: Integers) -> tuple[Integers, Integers]:
    """Return the first of the bins that hold the middle rows, and over how many bins they stretch, both (d,)."""
    beyond = (1 - _MIDDLE) / 2
    below = np.cumsum(counts, axis=1)
    below = below / below[:, -1:]
    first = (below <= beyond).sum(axis=1)
    last = (below < 1 - beyond - 1e-12).sum(axis=1)
    return first, last - first + 1


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
