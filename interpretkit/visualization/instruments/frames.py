"""Frames of a way, such as the traversal of a latent, gone along with a slider."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

from interpretkit.runs.formatting import with_minus_signs
from interpretkit.visualization.instruments.parts import as_data, picture_data, rendered

_DPI = 110


@dataclass(frozen=True)
class Frame:
    """A picture on the way.

    Attributes
    ----------
    picture : array_like, (h, w, 3) or (h, w), PIL image, or figure
        Floats in 0 … 1, or bytes.
    caption : str
        Where on the way it is, and what is to be seen.
    """

    picture: ArrayLike | Image.Image | Figure
    caption: str


class Frames:
    """One or several ways, gone along with a slider.

    Parameters
    ----------
    ways : mapping of str to sequence of Frame
        The name of each way, and its frames in their order.
    of_what, along : str
        What a choice of ways and the slider are called.
    first : int, optional
        The frame shown at first; the middle one by default.
    enlarged : int
        How many times as large small pictures are drawn, pixel by pixel.
    label : str
        What the whole is, for people who cannot see it.

    Raises
    ------
    ValueError
        If there is no way, or one without frames.
    """

    script: ClassVar[str] = "frames.js"
    libraries: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        ways: Mapping[str, Sequence[Frame]],
        *,
        of_what: str = "traversal of",
        along: str = "along it",
        first: int | None = None,
        enlarged: int = 1,
        label: str = "Frames along a way",
    ) -> None:
        if not ways or not all(ways.values()):
            raise ValueError("expected at least one way, and a frame on each")
        self.ways = {name: list(frames) for name, frames in ways.items()}
        self.of_what, self.along, self.first = of_what, along, first
        self.enlarged, self.label = enlarged, label

    def html(self, identifier: str) -> Markup:
        """Return what stands in the page."""
        ways = []
        for name, frames in self.ways.items():
            drawn = [
                {**_picture(frame.picture, self.enlarged), "caption": with_minus_signs(frame.caption)}
                for frame in frames
            ]
            first = len(frames) // 2 if self.first is None else min(self.first, len(frames) - 1)
            ways.append({"name": name, "first": first, "frames": drawn})
        return rendered(
            "frames.html.jinja",
            id=identifier,
            label=self.label,
            of_what=self.of_what,
            along=self.along,
            data=as_data({"ways": ways}),
        )


def _picture(picture: ArrayLike | Image.Image | Figure, enlarged: int) -> dict[str, object]:
    buffer = io.BytesIO()
    if isinstance(picture, Figure):
        drawn = io.BytesIO()
        picture.savefig(drawn, format="png", dpi=_DPI, metadata={"Software": None})
        picture = Image.open(drawn)
    elif not isinstance(picture, Image.Image):
        pixels = np.asarray(picture)
        if pixels.dtype != np.uint8:
            pixels = np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
        picture = Image.fromarray(pixels)
    picture = picture.convert("RGB")
    if enlarged > 1:
        picture = picture.resize(
            (picture.width * enlarged, picture.height * enlarged), Image.Resampling.NEAREST
        )
    picture.save(buffer, "WEBP", quality=88, method=4)
    return {"picture": picture_data(buffer.getvalue()), "width": picture.width, "height": picture.height}
