"""Figures that both front ends need, each from plain arrays."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from interpretkit.visualization.style import (
    DIVERGING,
    INK,
    MUTED,
    SEQUENTIAL,
    colour_of,
    marker_of,
    new_figure,
    style,
)

# Classes beyond these are drawn as one, or a legend would be longer than the figure.
MAX_CLASSES = 20


def parity(
    measured: ArrayLike,
    predicted: ArrayLike,
    *,
    groups: Sequence[str] | ArrayLike | None = None,
    uncertainty: ArrayLike | None = None,
    quantity: str = "energy",
    unit: str = "eV",
    title: str = "",
) -> Figure:
    """Draw predictions against measurements, with the residuals under them.

    Parameters
    ----------
    measured, predicted : array_like of float, (n,)
        The values, in `unit`.
    groups : sequence of str, (n,), optional
        A class for each point, which chooses its colour.
    uncertainty : array_like of float, (n,), optional
        A standard deviation for each prediction, in `unit`.
    quantity, unit : str
        For the axes.
    title : str
        Above the figure; the mean absolute error, root mean square error and R² stand in it anyway.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the arrays differ in length or are empty.
    """
    x, y = _same_length(measured=measured, predicted=predicted)
    error = y - x
    spread = float(((x - x.mean()) ** 2).sum())
    r2 = 1 - float((error**2).sum()) / spread if spread > 0 else float("nan")
    mae, rmse = np.abs(error).mean(), np.sqrt((error**2).mean())
    numbers = f"MAE {mae:.3g} {unit}    RMSE {rmse:.3g} {unit}    R² {r2:.3g}"
    with style():
        figure = new_figure(5.2, 5.8)
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
        low, high = min(x.min(), y.min()), max(x.max(), y.max())
        margin = 0.05 * (high - low) or 0.05
        top.axline((low, low), slope=1, color=MUTED, linewidth=1, linestyle="--", zorder=1)
        if uncertainty is not None:
            (deviation,) = _same_length(uncertainty=uncertainty)
            top.errorbar(x, y, yerr=deviation, fmt="none", ecolor="#c3cad1", elinewidth=0.8, zorder=1)
        _scatter_classes(top, x, y, groups, size=18)
        _scatter_classes(bottom, x, error, groups, size=12, legend=False)
        bottom.axhline(0, color=MUTED, linewidth=1, linestyle="--")
        top.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
        top.set_ylabel(f"predicted {quantity} ({unit})")
        top.text(0, 1.02, numbers, transform=top.transAxes, fontsize=9.5, color=MUTED)
        if title:
            top.set_title(title, pad=24)
        bottom.set(xlabel=f"{quantity} ({unit})", ylabel=f"residual ({unit})")
    return figure


def distributions(
    samples: Mapping[str, ArrayLike],
    *,
    window: tuple[float, float] | None = None,
    quantity: str = "energy",
    unit: str = "eV",
    bins: int = 40,
    title: str = "",
) -> Figure:
    """Draw how values are distributed, with the target window that they should fall in.

    Parameters
    ----------
    samples : mapping of str to array_like of float, (n,)
        Each drawn as a histogram of unit area over common bins. With a window, its share within it is in the
        legend.
    window : (float, float), optional
        The lower and upper end of the target window, in `unit`.
    quantity, unit : str
        For the axis.
    bins : int
        The number of bins over the range of all samples.
    title : str
        Above the figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there is no sample, or an empty one.
    """
    arrays = {
        name: _finite(np.asarray(values, dtype=float).ravel(), name) for name, values in samples.items()
    }
    if not arrays:
        raise ValueError("expected at least one sample")
    everything = np.concatenate([*arrays.values(), *([window] if window else [])])
    edges = np.linspace(everything.min() - 1e-9, everything.max() + 1e-9, bins + 1)
    with style():
        figure = new_figure(5.4, 4.2)
        axes = figure.subplots()
        if window is not None:
            axes.axvspan(*window, color="#F0E442", alpha=0.35, linewidth=0, label="target window", zorder=0)
        for index, (name, values) in enumerate(arrays.items()):
            label = f"{name} (n = {len(values)})"
            if window is not None:
                label += f", {np.mean((values >= window[0]) & (values <= window[1])):.0%} in the window"
            weights = np.full(len(values), 1 / (len(values) * (edges[1] - edges[0])))
            style_of = {"bins": edges, "weights": weights, "color": colour_of(index)}
            axes.hist(values, histtype="stepfilled", alpha=0.16, **style_of)
            axes.hist(values, histtype="step", linewidth=1.6, label=label, **style_of)
        axes.set(xlabel=f"{quantity} ({unit})" if unit else quantity, ylabel="density", title=title)
        axes.margins(x=0)
        axes.grid(axis="x", visible=False)
        figure.legend(loc="outside lower left")
    return figure


def latent_map(
    points: ArrayLike,
    colour: ArrayLike | Sequence[str] | None = None,
    *,
    label: str = "",
    axes_labels: tuple[str, str] = ("first component", "second component"),
    title: str = "",
) -> Figure:
    """Draw points of a two-dimensional map, coloured by a number or by a class.

    Parameters
    ----------
    points : array_like of float, (n, 2)
        Where the points are; project codes of more dimensions first.
    colour : array_like, (n,), optional
        Numbers give a colour bar, strings (and booleans) a legend. Beyond the most frequent classes, the rest
        are drawn as ``other``.
    label : str
        What the colour is, with its unit.
    axes_labels : (str, str)
        For the axes.
    title : str
        Above the figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If `points` is not ``(n, 2)`` or `colour` differs in length.
    """
    xy = np.asarray(points, dtype=float)
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise ValueError(f"expected points of shape (n, 2), not {xy.shape}")
    values = None if colour is None else np.asarray(colour)
    if values is not None and values.shape != (len(xy),):
        raise ValueError(f"expected {len(xy)} colours, one per point, not an array of shape {values.shape}")
    with style():
        figure = new_figure(5.6, 4.4)
        axes = figure.subplots()
        size = float(np.clip(9000 / max(len(xy), 1), 6, 36))
        if values is not None and values.dtype.kind in "iuf":
            # A few extreme values would leave one colour for all the others.
            low, high = np.nanpercentile(values.astype(float), [1, 99])
            outside = {
                (True, True): "both",
                (True, False): "min",
                (False, True): "max",
                (False, False): "neither",
            }
            extend = outside[bool(np.nanmin(values) < low), bool(np.nanmax(values) > high)]
            drawn = axes.scatter(
                *xy.T, c=values, s=size, cmap=SEQUENTIAL, vmin=low, vmax=high, alpha=0.9, linewidths=0
            )
            bar = figure.colorbar(drawn, ax=axes, pad=0.02, aspect=28, extend=extend)
            bar.set_label(label)
            bar.outline.set_visible(False)  # type: ignore[operator]
        else:
            _scatter_classes(axes, xy[:, 0], xy[:, 1], values, size=size, title=label, outside=True)
        axes.set(xlabel=axes_labels[0], ylabel=axes_labels[1], title=title)
    return figure


def training_curves(
    history: Mapping[str, Sequence[float]] | Sequence[Mapping[str, float]],
    *,
    names: Sequence[str] | None = None,
    best_epoch: int | None = None,
    ylabel: str = "loss",
    logarithmic: bool = False,
    title: str = "",
) -> Figure:
    """Draw the figures of a training against the epoch.

    Parameters
    ----------
    history : sequence of mappings, or mapping of columns
        ``History.epochs``, or one sequence ``(epochs,)`` per name.
    names : sequence of str, optional
        Which figures to draw; by default all but the epoch, the learning rate and the time.
    best_epoch : int, optional
        Marked by a line, counted from 1.
    ylabel : str
        For the axis, with the unit.
    logarithmic : bool
        Whether the axis is.
    title : str
        Above the figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there is no epoch.
    """
    if isinstance(history, Mapping):
        columns = {name: np.asarray(values, dtype=float) for name, values in history.items()}
    else:
        found = dict.fromkeys(name for row in history for name in row)
        columns = {name: np.array([row.get(name, np.nan) for row in history], dtype=float) for name in found}
    if not columns:
        raise ValueError("expected the figures of at least one epoch")
    apart = ("epoch", "learning_rate", "seconds")
    chosen = [name for name in columns if name not in apart] if names is None else list(names)
    with style():
        figure = new_figure(5.4, 3.9)
        axes = figure.subplots()
        for index, name in enumerate(chosen):
            epochs = columns.get("epoch", np.arange(1, len(columns[name]) + 1))
            dashes = "--" if name.startswith("train_") else "-"
            axes.plot(epochs, columns[name], dashes, color=colour_of(index), label=name.replace("_", " "))
        if best_epoch is not None:
            axes.axvline(
                best_epoch, color=MUTED, linewidth=1, linestyle=":", label=f"chosen: epoch {best_epoch}"
            )
        if logarithmic:
            axes.set_yscale("log")
        axes.set(xlabel="epoch", ylabel=ylabel, title=title)
        axes.margins(x=0.01)
        axes.legend()
    return figure


def heatmap(
    values: ArrayLike,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    label: str = "",
    annotate: bool | None = None,
    centre: float | None = None,
    title: str = "",
) -> Figure:
    """Draw a matrix as coloured cells.

    Parameters
    ----------
    values : array_like of float, (r, c)
        The matrix; NaN is left blank.
    rows, columns : sequence of str
        The names of its ``r`` rows and ``c`` columns.
    label : str
        What the values are, with their unit.
    annotate : bool, optional
        Whether each cell shows its number; by default where there are at most 150 cells.
    centre : float, optional
        A value with a meaning, such as 0: two colours then diverge from it, over equal ranges.
    title : str
        Above the figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the names do not fit the matrix.
    """
    matrix = np.asarray(values, dtype=float)
    if matrix.shape != (len(rows), len(columns)):
        raise ValueError(f"expected a matrix of {len(rows)} by {len(columns)}, not of shape {matrix.shape}")
    finite = matrix[np.isfinite(matrix)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if centre is not None:
        reach = max(abs(low - centre), abs(high - centre)) or 1.0
        low, high = centre - reach, centre + reach
    with style():
        width, height = 2.4 + 0.55 * len(columns), 1.4 + 0.36 * len(rows)
        # Few cells leave room for what is written beside and above them all the same.
        width = float(np.clip(width, max(4, 1.9 + 0.095 * len(title)), 12))
        height = float(np.clip(height, 2.8, 12))
        figure = new_figure(width, height)
        axes = figure.subplots()
        colours = DIVERGING if centre is not None else SEQUENTIAL
        image = axes.imshow(matrix, cmap=colours, vmin=low, vmax=high, aspect="auto")
        steep = max((len(name) for name in columns), default=0) > 4
        axes.set_xticks(
            range(len(columns)), columns, rotation=45 if steep else 0, ha="right" if steep else "center"
        )
        axes.set_yticks(range(len(rows)), rows)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_title(title)
        bar = figure.colorbar(image, ax=axes, pad=0.02)
        bar.set_label("\n".join(textwrap.wrap(label, max(12, int(8 * (height - 1))))))
        bar.outline.set_visible(False)  # type: ignore[operator]
        if matrix.size <= 150 if annotate is None else annotate:
            places = _places(matrix[np.isfinite(matrix)])
            for (row, column), value in np.ndenumerate(matrix):
                if np.isfinite(value):
                    shade = image.cmap(image.norm(value))
                    bright = float(np.dot(shade[:3], (0.299, 0.587, 0.114))) > 0.55
                    ink = INK if bright else "white"
                    text = f"{value:.{places}f}"
                    axes.text(column, row, text, ha="center", va="center", fontsize=8.5, color=ink)
    return figure


def _places(values: np.ndarray) -> int:
    """Return with how many decimal places numbers read alike: such as give the largest three digits, or fewer."""
    largest = np.abs(values).max(initial=0)
    most = int(np.clip(2 - np.floor(np.log10(largest)), 0, 6)) if largest else 0
    return next((n for n in range(most) if np.allclose(values, values.round(n), rtol=0, atol=1e-9)), most)


def _scatter_classes(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    classes: Sequence[str] | ArrayLike | None,
    *,
    size: float,
    legend: bool = True,
    title: str = "",
    outside: bool = False,
) -> None:
    """Draw points in the colours of their classes, the most frequent first so that it hides no other."""
    common = {"s": size, "alpha": 0.8, "linewidths": 0}
    if classes is None:
        axes.scatter(x, y, color=colour_of(0), **common)
        return
    names = np.asarray(classes).astype(str)
    if names.shape != x.shape:
        raise ValueError(f"expected {len(x)} classes, one per point, not an array of shape {names.shape}")
    found, counts = np.unique(names, return_counts=True)
    kept = set(found[np.argsort(-counts, kind="stable")][:MAX_CLASSES])
    # Alphabetic order fixes a class's colour, so that figures of the same classes agree.
    colours = {name: index for index, name in enumerate(sorted(kept))}
    rest = ~np.isin(names, list(kept))
    if rest.any():
        axes.scatter(x[rest], y[rest], color="#d5dade", label=f"other ({rest.sum()})", zorder=1, **common)
    for name in sorted(kept, key=lambda name: -counts[found == name][0]):
        chosen = names == name
        index = colours[name]
        axes.scatter(
            x[chosen],
            y[chosen],
            color=colour_of(index),
            marker=marker_of(index),
            label=name,
            zorder=2,
            **common,
        )
    if legend:
        handles, labels = axes.get_legend_handles_labels()
        order = np.argsort(labels)
        place: dict[str, Any] = (
            {"loc": "upper left", "bbox_to_anchor": (1.01, 1)} if outside else {"loc": "best"}
        )
        axes.legend(
            [handles[i] for i in order],
            [labels[i] for i in order],
            title=title or None,
            markerscale=1.6,
            **place,
        )


def _same_length(**arrays: ArrayLike) -> list[np.ndarray]:
    converted = {name: np.asarray(values, dtype=float).ravel() for name, values in arrays.items()}
    lengths = {name: len(values) for name, values in converted.items()}
    if len(set(lengths.values())) != 1 or not next(iter(lengths.values())):
        raise ValueError(f"expected arrays of one length above 0, not {lengths}")
    return list(converted.values())


def _finite(values: np.ndarray, name: str) -> np.ndarray:
    finite = values[np.isfinite(values)]
    if not len(finite):
        raise ValueError(f"sample {name!r} holds no finite value")
    return finite
