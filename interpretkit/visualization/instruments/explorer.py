"""Items on a map of any two of their properties, each linked to its structure in three dimensions."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from interpretkit.visualization.instruments.parts import as_data, rendered
from interpretkit.visualization.style import COLOURS, MARKERS

# Of positions, Å: what a file shows is rounded to it.
_STEP_ANGSTROM = 0.001


@dataclass(frozen=True)
class Property:
    """What is known of every item.

    Attributes
    ----------
    label : str
        What it is, for people.
    values : sequence of float, str or None, (n,)
        All numbers or all words; None where it is not known.
    unit : str
        The unit of numbers.
    lowest, highest : str
        What the item with the least and the largest number is called, such as ``"Weakest binding"``: a button of
        that name goes there. None without a name.
    """

    label: str
    values: Sequence[float | str | None]
    unit: str = ""
    lowest: str = ""
    highest: str = ""

    def numeric(self) -> bool:
        """Tell whether it is numbers."""
        known = [value for value in self.values if value is not None]
        return bool(known) and not any(isinstance(value, str) for value in known)


@dataclass(frozen=True)
class Structure:
    """The atoms of an item.

    Attributes
    ----------
    symbols : sequence of str, (n,)
        Elements: a host's atoms, then those of what sits on it.
    positions : ndarray, (n, 3)
        In Å.
    host_size : int
        How many are the host's.
    frame : ndarray, (3, 3)
        Axes, as rows, that are shown to the right, upwards and towards the eye from above.
    highlighted : sequence of int
        Atoms that carry their symbol.
    bonds : sequence of (int, int)
        Bonds to draw.
    info : mapping
        What the saved file says of it beside its properties.
    """

    symbols: Sequence[str]
    positions: NDArray[np.floating]
    host_size: int
    frame: NDArray[np.floating] = field(default_factory=lambda: np.eye(3))
    highlighted: Sequence[int] = ()
    bonds: Sequence[tuple[int, int]] = ()
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AtomValues:
    """A number for each atom, such as what it adds to an energy; colours the structures.

    Attributes
    ----------
    label, unit : str
        What it is.
    values : sequence of sequence of float, one for each item
        For the first atoms of each structure; the rest is drawn grey.
    """

    label: str
    values: Sequence[Sequence[float]]
    unit: str = ""


class StructureExplorer:
    """A map of items, coloured by any property, linked to their structures, with filters and files to save.

    Parameters
    ----------
    names : sequence of str, (n,)
        Of the items, each once.
    properties : mapping of str to Property
        By the name that they have in a saved file; at least one of numbers.
    structures : sequence of Structure, (n,)
        Of the items.
    element_colours : mapping of str to str
        A colour for each element.
    radii : mapping of str to float
        In Å, as they are drawn.
    x, y, colour : str
        The properties shown at first.
    groups : sequence of str, (n,)
        What each item is, such as ``"design"`` or ``"data"``.
    marked : str
        The group that is marked among the others.
    atom_values : mapping of str to AtomValues
        By the name of the column in a saved file.
    first : str
        The item shown at first; the first by default.
    file : str
        How the name of a saved file begins.
    label : str
        What the whole is, for people who cannot see it.

    Raises
    ------
    ValueError
        If lengths differ, names repeat, or `x` or `y` is no property of numbers.
    """

    script: ClassVar[str] = "explorer.js"
    libraries: ClassVar[tuple[str, ...]] = ("3Dmol-min.js",)

    def __init__(
        self,
        names: Sequence[str],
        properties: Mapping[str, Property],
        structures: Sequence[Structure],
        *,
        element_colours: Mapping[str, str],
        radii: Mapping[str, float],
        x: str,
        y: str,
        colour: str,
        groups: Sequence[str],
        marked: str = "",
        atom_values: Mapping[str, AtomValues] | None = None,
        first: str = "",
        file: str = "structures",
        label: str = "Map of items and their structures",
    ) -> None:
        count = len(names)
        lengths = {
            "names": len(set(names)),
            "structures": len(structures),
            "groups": len(groups),
            **{key: len(one.values) for key, one in properties.items()},
            **{key: len(one.values) for key, one in (atom_values or {}).items()},
        }
        for what, length in lengths.items():
            if length != count:
                raise ValueError(f"{what}: {length} different ones for {count} items")
        for axis in (x, y):
            if axis not in properties or not properties[axis].numeric():
                raise ValueError(f"{axis!r} is no property of numbers")
        if colour not in properties:
            raise ValueError(f"{colour!r} is no property")
        self.names = list(names)
        self.properties = dict(properties)
        self.structures = list(structures)
        self.element_colours = element_colours
        self.radii = radii
        self.x, self.y, self.colour = x, y, colour
        self.groups = list(groups)
        self.marked = marked
        self.atom_values = dict(atom_values or {})
        self.first = self.names.index(first) if first else 0
        self.file = file
        self.label = label

    def html(self, identifier: str) -> Markup:
        """Return what stands in the page."""
        return rendered("explorer.html.jinja", id=identifier, label=self.label, data=as_data(self._data()))

    def _data(self) -> dict[str, Any]:
        elements = sorted({symbol for one in self.structures for symbol in one.symbols})
        place = {symbol: k for k, symbol in enumerate(elements)}
        centres = [np.round(np.asarray(one.positions, float).mean(0), 3) for one in self.structures]
        moved = [
            np.asarray(one.positions, float) - c for one, c in zip(self.structures, centres, strict=True)
        ]
        furthest = max((float(np.abs(one).max(initial=0)) for one in moved), default=0.0)
        step = max(_STEP_ANGSTROM, furthest / 32_000)
        packed = np.concatenate([np.rint(one / step).astype("<i2").ravel() for one in moved])
        kinds = bytes(place[symbol] for one in self.structures for symbol in one.symbols)
        return {
            "names": self.names,
            "groups": self.groups,
            "marked": [group == self.marked for group in self.groups],
            "markedName": self.marked,
            "properties": [
                {
                    "key": key,
                    "label": one.label,
                    "unit": one.unit,
                    "lowest": one.lowest,
                    "highest": one.highest,
                    "numeric": one.numeric(),
                    "values": [_plain(value) for value in one.values],
                }
                for key, one in self.properties.items()
            ],
            "x": self.x,
            "y": self.y,
            "colour": self.colour,
            "first": self.first,
            "file": self.file,
            "colours": list(COLOURS),
            "markers": list(MARKERS),
            "elements": elements,
            "elementColours": {symbol: self.element_colours[symbol] for symbol in elements},
            "radii": {symbol: round(self.radii[symbol], 3) for symbol in elements},
            "sizes": [len(one.symbols) for one in self.structures],
            "hostSizes": [one.host_size for one in self.structures],
            "positions": base64.b64encode(packed.tobytes()).decode(),
            "kinds": base64.b64encode(kinds).decode(),
            "step": step,
            "centres": [centre.round(3).tolist() for centre in centres],
            "frames": [np.round(one.frame, 4).tolist() for one in self.structures],
            "highlighted": [list(map(int, one.highlighted)) for one in self.structures],
            "bonds": [[list(map(int, bond)) for bond in one.bonds] for one in self.structures],
            "info": [{key: _plain(value) for key, value in one.info.items()} for one in self.structures],
            "atomValues": [
                {
                    "key": key,
                    "label": one.label,
                    "unit": one.unit,
                    "reach": max((abs(v) for values in one.values for v in values), default=0.0) or 1.0,
                    "values": [[_plain(float(v)) for v in values] for values in one.values],
                }
                for key, one in self.atom_values.items()
            ],
        }


def _plain(value: Any) -> float | int | str | None:
    """Return a value for the page: numbers with six digits, None for what is not known."""
    value = value.item() if hasattr(value, "item") else value
    if value is None or isinstance(value, (str, int)):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None
