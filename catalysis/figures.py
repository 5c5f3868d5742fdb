"""Pictures of sites: what stands where, seen from above and from the side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from catalysis.structure.elements import COVALENT_RADIUS
from catalysis.structure.ordering import tolerant_order
from catalysis.structure.sites import Site
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

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from catalysis.fingerprints import Bar

ELEMENT_COLOURS: dict[str, str] = {
    "H": "#ffffff", "O": "#e0352b", "C": "#3b3b3b", "N": "#3050f8", "S": "#f2d648",
    "Pt": "#56b4e9", "Pd": "#cc79a7", "Ir": "#009e73", "Rh": "#e69f00", "Ru": "#0072b2", "Cu": "#9dcf74",
    "Ni": "#65336c", "Au": "#8d1517", "Ag": "#4af1b7", "Co": "#9387fa", "Fe": "#4a31a0", "Zn": "#8f4e71",
    "Mo": "#749652", "W": "#a0e1f5", "Mn": "#635940", "Ti": "#ff7287", "Sn": "#d0d25e", "Re": "#ffa5d1",
    "Cr": "#ac2699", "V": "#397c0b", "Ga": "#c69948", "In": "#ff79e6", "Nb": "#7858cc", "Ta": "#7fb79c",
    "Zr": "#af78b6", "Os": "#912652", "Al": "#c33a55", "Bi": "#b75393", "Pb": "#2a4f1f", "Sc": "#df7d19",
    "Y": "#85ed98", "La": "#b24ebc", "Ce": "#7a1186", "Hf": "#f64f58", "Mg": "#f5cdd8", "Cd": "#a3b270",
    "Tl": "#926d77", "Ca": "#b60037", "Tc": "#c9e279", "Li": "#22575c", "Na": "#e2be42", "K": "#7c8739",
    "Be": "#d797c9",
}  # fmt: skip
"""One colour for each element, on every page and in every view.

Adsorbates have the colours that chemists expect, the five metals of the bundled data Okabe and Ito's. Every further
metal, the common ones first, has the colour that is furthest (CIE 1976) from all before it in the eyes of whichever
of four people tells them apart worst: with normal, protan, deutan and tritan vision (Machado et al. 2009).
"""
_OTHER_ELEMENT = "#b4b8bc"
# In covalent radii: discs of neighbours leave gaps through which the layer below is seen.
_DRAWN_RADIUS = 0.8
_DRAWN_ADSORBATE_RADIUS = 0.95
_PALE = np.array([1.0, 1.0, 1.0])


def element_colour(symbol: str) -> str:
    """Return the colour of an element, the same in every picture."""
    return ELEMENT_COLOURS.get(symbol, _OTHER_ELEMENT)


def site_gallery(
    sites: Sequence[Site], titles: Sequence[str] | None = None, *, columns: int = 4, title: str = ""
) -> Figure:
    """Draw sites as a sheet of pairs: seen from above, and along the surface beneath.

    Parameters
    ----------
    sites : sequence of Site
        Any number of sites, at least one.
    titles : sequence of str, optional
        A line or two over each.
    columns : int
        Sites in a row.
    title : str
        Of the sheet.

    Returns
    -------
    Figure
        Metals carry their symbols; deeper metals are paler; the contacts have a dark rim; the adsorbate is drawn
        in front of whatever stands between it and the eye, with its bonds to the contacts.
    """
    columns = min(columns, len(sites))
    rows = -(-len(sites) // columns)
    with style():
        figure = new_figure(2.9 * columns, 4.5 * rows + 0.3)
        axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[1.5, 1.0] * rows)
        for axis in axes.ravel():
            axis.set_axis_off()
        for number, site in enumerate(sites):
            row, column = divmod(number, columns)
            above, beside = axes[2 * row, column], axes[2 * row + 1, column]
            draw_site(above, site, view="above")
            draw_site(beside, site, view="beside")
            if titles is not None:
                above.set_title(titles[number], fontsize=9.5, loc="center")
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        return figure


def barcode_sheet(site: Site, bars: Sequence[Bar], grid: np.ndarray, curves: np.ndarray) -> Figure:
    """Draw a site beside its barcode and the Betti curves that count the bars.

    Parameters
    ----------
    site : Site
        The site.
    bars : sequence of Bar
        Of `catalysis.fingerprints.bars_with_atoms`.
    grid, curves : ndarray
        Thresholds (g,) in Å and Betti curves (3, g).
    """
    with style():
        figure = new_figure(11.0, 3.8)
        left, middle, right = figure.subplots(1, 3, width_ratios=[1.0, 1.25, 1.25])
        left.set_axis_off()
        draw_site(left, site)
        left.set_title(f"{site.site_class}, {site.contact_elements}", loc="center")
        end = float(grid[-1])
        ordered = sorted(bars, key=lambda bar: (bar.dimension, bar.birth_angstrom, bar.death_angstrom))
        for height, bar in enumerate(ordered):
            death = min(bar.death_angstrom, end)
            middle.hlines(height, bar.birth_angstrom, death, color=colour_of(bar.dimension), linewidth=1.6)
        middle.set_xlim(0, end)
        middle.set_yticks([])
        middle.set_title("Barcode")
        middle.set_xlabel("distance threshold (Å)")
        for dimension in range(3):
            right.step(
                grid, curves[dimension], where="post", color=colour_of(dimension), label=f"β{dimension}"
            )
        right.set_xlim(0, end)
        right.set_yscale("symlog", linthresh=1)
        most = max(10.0, float(np.max(curves)))
        right.set_ylim(-0.15, 1.3 * most)
        counts = [0, *(10**power for power in range(int(np.log10(most)) + 1))]
        right.set_yticks(counts, [str(count) for count in counts])
        right.set_title("Betti curves")
        right.set_xlabel("distance threshold (Å)")
        right.set_ylabel("bars alive")
        right.legend()
        return figure


def attribution_sheet(
    site: Site, values: Mapping[str, np.ndarray], *, unit: str = "eV", title: str = ""
) -> Figure:
    """Draw a site coloured by what each metal adds, a column for each set of values, from above and from the side.

    Parameters
    ----------
    site
        The site.
    values
        From a name to values by metal, (n,); all share one scale, white at 0.
    unit
        Of the values.
    title
        Of the sheet.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize, to_hex

    largest = max(float(np.abs(v).max(initial=0.0)) for v in values.values()) or 1.0
    scale = ScalarMappable(Normalize(-largest, largest), DIVERGING)
    with style():
        figure = new_figure(3.1 * len(values) + 1.0, 5.2)
        axes = figure.subplots(2, len(values), squeeze=False, height_ratios=[1.5, 1.0])
        for column, (name, given) in enumerate(values.items()):
            fills = [to_hex(colour) for colour in scale.to_rgba(np.asarray(given, float))]
            for axis, view in zip(axes[:, column], ("above", "beside"), strict=True):
                axis.set_axis_off()
                draw_site(axis, site, view=view, fills=fills)
            axes[0, column].set_title(name, fontsize=9.5, loc="center")
        figure.colorbar(scale, ax=axes, label=f"part of the energy ({unit})", shrink=0.7)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        return figure


def draw_site(
    axes: Axes,
    site: Site,
    *,
    view: str = "above",
    fills: Sequence[str] | None = None,
) -> None:
    """Draw one site into `axes`, `view` being `"above"` (the surface's normal) or `"beside"`.

    With `fills`, a colour for each metal, (n,), these are drawn as they are, deeper metals no paler. The adsorbate
    lies over all metals, so that it is seen from every side.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Circle

    _, sideways, normal = site.frame
    along = np.cross(sideways, normal)
    horizontal, vertical, towards = (
        (along, sideways, normal) if view == "above" else (along, normal, -sideways)
    )
    centre = site.positions[: site.contacts].mean(0)
    positions = np.vstack([site.positions, site.adsorbate_positions]) - centre
    symbols = [*site.symbols, *site.adsorbate_symbols]
    depth = positions @ towards
    span = max(float(np.ptp(depth)), 1e-6)
    flat = positions @ np.array([horizontal, vertical]).T
    in_order = tolerant_order(depth).tolist()
    behind, front = ([i for i in in_order if (i < len(site)) == is_metal] for is_metal in (True, False))
    for first, second in adsorbate_bonds(site):
        # Short of the contact's symbol.
        end = flat[first] + (0.62 if second < len(site) else 1.0) * (flat[second] - flat[first])
        axes.plot(*np.array([flat[first], end]).T, color=INK, linewidth=1.4, zorder=3, solid_capstyle="round")
    for index in [*behind, *front]:
        symbol = symbols[index]
        is_metal = index < len(site)
        paleness = 0.62 * (depth.max() - depth[index]) / span if is_metal and fills is None else 0.0
        colour = element_colour(symbol)
        if is_metal and fills is not None:
            colour = str(fills[index])
        base = np.array(to_rgb(colour))
        radius = (_DRAWN_RADIUS if is_metal else _DRAWN_ADSORBATE_RADIUS) * COVALENT_RADIUS[symbol]
        x, y = flat[index].tolist()
        layer = 2 if is_metal else 4
        is_contact = index < site.contacts
        axes.add_patch(
            Circle(
                (x, y),
                radius,
                facecolor=tuple((1 - paleness) * base + paleness * _PALE),
                edgecolor=INK if is_contact or not is_metal else MUTED,
                linewidth=1.8 if is_contact else 1.1 if not is_metal else 0.6,
                zorder=layer,
            )
        )
        if radius > 0.5:
            dark = (base @ [0.3, 0.59, 0.11]) * (1 - paleness) + paleness < 0.6
            axes.text(
                x,
                y,
                symbol,
                ha="center",
                va="center",
                zorder=layer,
                fontsize=6.5,
                color="white" if dark else INK,
            )
    reach = np.abs(positions @ np.array([horizontal, vertical]).T).max(0) + 1.5
    axes.set_xlim(-reach[0], reach[0])
    bottom = float((positions @ vertical).min() - 1.5)
    axes.set_ylim(bottom, max(float((positions @ vertical).max()) + 1.2, 2.0))
    axes.set_aspect("equal")


def adsorbate_bonds(site: Site) -> list[tuple[int, int]]:
    """Return the bonds of an adsorbate's atoms to each other, and of those that touch the contacts to these."""
    n, symbols = len(site), [*site.symbols, *site.adsorbate_symbols]
    positions = np.vstack([site.positions, site.adsorbate_positions])

    def touch(i: int, j: int, stretch: float) -> bool:
        reach = stretch * (COVALENT_RADIUS[symbols[i]] + COVALENT_RADIUS[symbols[j]])
        return float(np.linalg.norm(positions[i] - positions[j])) < reach

    atoms = range(n, len(positions))
    within = [(i, j) for i in atoms for j in atoms if i < j and touch(i, j, 1.3)]
    return within + [(i, j) for i in atoms for j in range(site.contacts) if touch(i, j, 1.45)]


def ternary_maps(
    shares: np.ndarray,
    values: np.ndarray,
    corners: Sequence[str],
    titles: Sequence[str],
    *,
    label: str,
    marked: np.ndarray | None = None,
) -> Figure:
    """Draw values over the compositions of three elements, a triangle for each of several quantities.

    Parameters
    ----------
    shares
        Of the three elements, (n, 3), rows that sum to one.
    values
        (triangles, n); NaN is left out.
    corners
        What stands at the corners, (3,).
    titles
        Of the triangles.
    label
        What the values are.
    marked
        A composition to mark in every triangle, (3,).

    Returns
    -------
    Figure
        One scale of colours for all triangles.
    """
    places = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])
    points = shares @ places
    finite = values[np.isfinite(values)]
    high = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    columns = min(3, len(titles))
    rows = -(-len(titles) // columns)
    with style():
        figure = new_figure(3.0 * columns + 0.8, 2.9 * rows + 0.4)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.ravel():
            axes.set_axis_off()
            axes.set_aspect("equal")
        drawn = None
        for axes, one, title in zip(grid.ravel(), values, titles, strict=False):
            kept = np.isfinite(one)
            drawn = axes.scatter(
                *points[kept].T,
                c=one[kept],
                cmap=SEQUENTIAL,
                vmin=0,
                vmax=high,
                s=200 * 91 / len(shares),
                marker="h",
                linewidths=0,
            )
            axes.plot(*places[[0, 1, 2, 0]].T, color=INK, linewidth=0.8)
            for corner, name, shift in zip(
                places, corners, ((-0.07, -0.08), (0.07, -0.08), (0, 0.07)), strict=True
            ):
                axes.text(*(corner + shift), name, ha="center", va="center", fontsize=9)
            if marked is not None:
                axes.plot(*(marked @ places), marker="o", markersize=9, fillstyle="none", color="#d1495b")
            axes.set_title(title, fontsize=10, loc="center")
            axes.set(xlim=(-0.15, 1.15), ylim=(-0.15, 1.0))
        if drawn is not None:
            bar = figure.colorbar(drawn, ax=grid, shrink=0.7, pad=0.03)
            bar.set_label(label)
        return figure


def composition_lines(
    shares: np.ndarray, values: np.ndarray, names: Sequence[str], *, element: str, label: str
) -> Figure:
    """Draw values over the share of one of two elements, a line each.

    Parameters
    ----------
    shares
        Of the element, (n,).
    values
        (lines, n).
    names
        Of the lines.
    element, label
        What is on the axes.
    """
    with style():
        figure = new_figure(5.4, 3.8)
        axes = figure.subplots()
        for k, (line, name) in enumerate(zip(values, names, strict=True)):
            axes.plot(100 * shares, line, color=colour_of(k), marker=marker_of(k), markersize=3, label=name)
        axes.set(xlabel=f"{element} (at%)", ylabel=label)
        axes.legend(frameon=False)
        return figure


def pareto_figure(
    compared: np.ndarray, front: np.ndarray, *, label: str, price_label: str, colour_label: str
) -> Figure:
    """Draw compromises: an aim over the price, coloured by a third aim, the front with a rim.

    Parameters
    ----------
    compared, front
        Price, aim and third aim of everything compared, (n, 3), and of the front, (k, 3).
    label, price_label, colour_label
        What they are.
    """
    with style():
        figure = new_figure(6.0, 4.2)
        axes = figure.subplots()
        axes.scatter(compared[:, 0], compared[:, 1], s=9, color="#c3cad1", label="compared", linewidths=0)
        drawn = axes.scatter(
            front[:, 0], front[:, 1], c=front[:, 2], cmap=SEQUENTIAL, s=34, edgecolors=INK, linewidths=0.5,
            label="Pareto front",
        )  # fmt: skip
        axes.set(xlabel=price_label, ylabel=label)
        axes.legend(frameon=False)
        bar = figure.colorbar(drawn, ax=axes)
        bar.set_label(colour_label)
        return figure
