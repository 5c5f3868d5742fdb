"""Pictures to browse, to search by words and to sort by numbers: units, concepts, images that stand out."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike
from PIL import Image

from interpretkit.runs.formatting import format_number
from interpretkit.visualization.instruments.parts import as_data, picture_data, rendered

# More would leave the reader with a wall.
_AT_ONCE = 24
_LEAST_SIDE = 96


@dataclass(frozen=True)
class Item:
    """A picture with what is known of it.

    Attributes
    ----------
    title : str
        What it is; each item's own.
    picture : array_like, (h, w, 3) or (h, w), or PIL image
        Floats in 0 … 1, or bytes.
    text : str
        A line on it, found by the search.
    group : str
        What it belongs to, such as its layer.
    numbers : mapping of str to float
        To sort by, and shown; the same names for all.
    """

    title: str
    picture: ArrayLike | Image.Image
    text: str = ""
    group: str = ""
    numbers: Mapping[str, float | None] = field(default_factory=dict)


class Gallery:
    """Pictures to browse, search and sort.

    Parameters
    ----------
    items : sequence of Item
        At least one, with different titles.
    placeholder : str
        What can be searched for.
    side : float
        The least width of a picture on the page, in rem.
    label : str
        What the whole is, for people who cannot see it.

    Raises
    ------
    ValueError
        If there is no item, or two have one title.
    """

    script: ClassVar[str] = "gallery.js"
    libraries: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        items: Sequence[Item],
        *,
        placeholder: str = "words",
        side: float = 15,
        label: str = "Pictures to browse",
    ) -> None:
        titles = [item.title for item in items]
        if not items or len(set(titles)) < len(titles):
            raise ValueError("expected at least one item, and a title of its own for each")
        self.items = list(items)
        self.placeholder, self.side, self.label = placeholder, side, label

    def html(self, identifier: str) -> Markup:
        """Return what stands in the page."""
        numbers = list(dict.fromkeys(name for item in self.items for name in item.numbers))
        shown = []
        for item in self.items:
            width, height, webp = _small(item.picture)
            told = [
                f"{name} {format_number(value, digits=3)}"
                for name, value in item.numbers.items()
                if value is not None
            ]
            text = ", ".join([*([item.text] if item.text else []), *told])
            shown.append(
                {
                    "title": item.title,
                    "text": text,
                    "words": " ".join([item.title, item.text, item.group]),
                    "group": item.group,
                    "sortable": json.dumps([_number(item.numbers.get(name)) for name in numbers]),
                    "picture": picture_data(webp),
                    "width": width,
                    "height": height,
                    "alt": f"{item.title}: {text}" if text else item.title,
                }
            )
        return rendered(
            "gallery.html.jinja",
            id=identifier,
            label=self.label,
            placeholder=self.placeholder,
            side=self.side,
            items=shown,
            data=as_data({"numbers": numbers, "most": _AT_ONCE}),
        )


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def _small(picture: ArrayLike | Image.Image) -> tuple[int, int, bytes]:
    if not isinstance(picture, Image.Image):
        pixels = np.asarray(picture)
        if pixels.dtype != np.uint8:
            pixels = np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
        picture = Image.fromarray(pixels)
    # Small pictures are drawn larger, pixel by pixel, or a browser would blur them.
    larger = -(-_LEAST_SIDE // min(picture.size)) if min(picture.size) < _LEAST_SIDE // 2 else 1
    if larger > 1:
        size = (picture.width * larger, picture.height * larger)
        picture = picture.convert("RGB").resize(size, Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "WEBP", quality=84, method=4)
    return picture.width, picture.height, buffer.getvalue()
