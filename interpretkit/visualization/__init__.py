"""Figures, maps and the self-contained report."""

from interpretkit.visualization.figures import distributions, heatmap, latent_map, parity, training_curves
from interpretkit.visualization.report import Report
from interpretkit.visualization.style import COLOURS, colour_of, marker_of, new_figure, style

__all__ = [
    "COLOURS",
    "Report",
    "colour_of",
    "distributions",
    "heatmap",
    "latent_map",
    "marker_of",
    "new_figure",
    "parity",
    "style",
    "training_curves",
]
