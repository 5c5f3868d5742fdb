"""One look for all figures: readable in a report and on paper, and told apart without seeing colours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter, LogFormatter

from interpretkit.runs.streams import printable

# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/), which people with any colour vision can tell
# apart, without its yellow, which is too faint on white; the last two are added darker and lighter.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#3B3B3B", "#A7A9AC")
# Neighbours in a legend differ in colour and in marker; only after 64 classes a pair of both comes again.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
SEQUENTIAL = "viridis"
DIVERGING = "RdBu_r"
INK = "#26303a"
MUTED = "#6b7682"

_SETTINGS: dict[Any, Any] = {
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.size": 10.5,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 10.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9aa4ae",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e9ec",
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
    "image.cmap": SEQUENTIAL,
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS),  # type: ignore[attr-defined]
    # Text in vector files stays text.
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


@contextmanager
def style() -> Iterator[None]:
    """Use the common look for figures made in the block; the user's own settings hold again after it."""
    with matplotlib.rc_context(_SETTINGS):
        yield


class PlainFigure(Figure):
    """A figure that draws every text as it stands, since names of files, factors and categories are anybody's.

    Two dollar signs in a text make no formula of it, and what no font takes is spelled out. Only the powers of
    ten at logarithmic axes, which matplotlib writes itself, are typeset.
    """

    def draw(self, renderer: RendererBase) -> None:
        """Draw the figure, its texts made plain first."""
        typeset: set[int] = set()
        for axis in (axis for axes in self.findobj(Axes) for axis in _axes_of(axes)):
            for formatter in (axis.get_major_formatter(), axis.get_minor_formatter()):
                if isinstance(formatter, FixedFormatter):
                    formatter.seq = [printable(str(text)) for text in formatter.seq]
                elif isinstance(formatter, FuncFormatter):
                    formatter.func = _printable_of(formatter.func)
                elif isinstance(formatter, LogFormatter):
                    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
                    typeset |= {id(label) for tick in ticks for label in (tick.label1, tick.label2)}
        for text in self.findobj(Text):
            assert isinstance(text, Text)
            if id(text) not in typeset:
                text.set_usetex(False)
                text.set_parse_math(False)
                shown = printable(text.get_text())
                if shown != text.get_text():
                    text.set_text(shown)
        super().draw(renderer)


def _axes_of(axes: Any) -> list[Axis]:
    return [axes.xaxis, axes.yaxis]


def _printable_of(write: Callable[..., str]) -> Callable[..., str]:
    """Return what writes a tick's label so that every font takes it; wrapped once, however often it is drawn."""
    if getattr(write, "is_printable", False):
        return write

    def written(*place: Any) -> str:
        return printable(str(write(*place)))

    written.is_printable = True  # type: ignore[attr-defined]
    return written


def new_figure(width: float = 5.4, height: float = 4.0) -> Figure:
    """Return an empty figure that belongs to no window and no backend.

    Parameters
    ----------
    width, height : float
        In inches.

    Notes ----- The figure is not known to ``pyplot``: it draws itself with Agg wherever it is, needs no
    display, and is freed when nothing refers to it any more. Call this, and whatever draws into the figure,
    within :func:`style`.
    """
    return PlainFigure(figsize=(width, height))


def colour_of(index: int) -> str:
    """Return the colour of the `index`-th class; after the last colour they begin again."""
    return COLOURS[index % len(COLOURS)]


def marker_of(index: int) -> str:
    """Return the marker of the `index`-th class: with its colour it is no other class's, up to 64 of them."""
    return MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]
