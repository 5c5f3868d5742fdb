"""Maps laid over the images that they are of: one slider for how strongly, a choice of what and by which method."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from interpretkit.visualization.instruments.parts import as_data, picture_data, rendered

WARM, COLD = (214, 26, 13), (5, 77, 179)
# Of a map on the page, pixels: it is smooth, and what is in the files is whole.
_MOST_SIDE = 112
# Of an image on the page: on a screen of common size it is seen pixel by pixel.
_MOST_IMAGE_SIDE = 1200


@dataclass(frozen=True)
class Map:
    """A map of an image.

    Attributes
    ----------
    values : ndarray of float, (h, w)
        In −1 … 1; 1 is the strongest.
    target : str
        What it explains.
    method : str
        How it was made.
    top : float
        What 1 stands for, in the method's own unit.
    signed : bool
        Whether values below 0 mean the opposite; else only sizes count.
    meaning : str
        What the numbers are, for the colour bar.
    """

    values: NDArray[np.floating]
    target: str
    method: str
    top: float = 1.0
    signed: bool = True
    meaning: str = ""


@dataclass(frozen=True)
class MappedImage:
    """An image with its maps.

    Attributes
    ----------
    name : str
        What it is called.
    picture : PIL image
        The whole of it.
    maps : sequence of Map
        At least one.
    crop : (float, float, float, float), optional
        Left, top, width and height of what the maps are of, in pixels of the picture; the whole by default.
    note : str
        A line below it.
    """

    name: str
    picture: Image.Image
    maps: Sequence[Map]
    crop: tuple[float, float, float, float] | None = None
    note: str = ""


class MapViewer:
    """Images with maps over them, one at a time.

    Parameters
    ----------
    images : sequence of MappedImage
        At least one.
    of_what, by_what : str
        What a choice of targets and of methods is called.
    label : str
        What the whole is, for people who cannot see it.

    Raises
    ------
    ValueError
        If there is no image, or one without a map.
    """

    script: ClassVar[str] = "maps.js"
    libraries: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        images: Sequence[MappedImage],
        *,
        of_what: str = "explained",
        by_what: str = "method",
        label: str = "Maps over images",
    ) -> None:
        if not images or not all(image.maps for image in images):
            raise ValueError("expected at least one image, and a map of each")
        self.images = list(images)
        self.of_what, self.by_what, self.label = of_what, by_what, label

    def html(self, identifier: str) -> Markup:
        """Return what stands in the page."""
        data = {"warm": WARM, "cold": COLD, "images": [_image_data(image) for image in self.images]}
        return rendered(
            "maps.html.jinja",
            id=identifier,
            label=self.label,
            of_what=self.of_what,
            by_what=self.by_what,
            data=as_data(data),
        )


def _image_data(image: MappedImage) -> dict[str, object]:
    picture = image.picture.convert("RGB")
    scale = min(1.0, _MOST_IMAGE_SIDE / max(picture.size))
    if scale < 1:
        size = [max(1, round(side * scale)) for side in picture.size]
        picture = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=86, method=4)
    whole = (0.0, 0.0, float(image.picture.width), float(image.picture.height))
    crop = None
    if image.crop is not None and not np.allclose(image.crop, whole, atol=0.5):
        crop = [round(scale * side, 2) for side in image.crop]
    return {
        "name": image.name,
        "note": image.note,
        "picture": picture_data(buffer.getvalue()),
        "width": picture.width,
        "height": picture.height,
        "crop": crop,
        "maps": [_map_data(one) for one in image.maps],
    }


def _map_data(one: Map) -> dict[str, object]:
    values = np.clip(np.asarray(one.values, dtype=np.float32), -1, 1)
    if max(values.shape) > _MOST_SIDE:
        share = _MOST_SIDE / max(values.shape)
        height, width = (max(1, round(side * share)) for side in values.shape)
        values = np.asarray(Image.fromarray(values, "F").resize((width, height), Image.Resampling.BOX))
    packed = np.rint(127 * values).astype(np.int8)
    return {
        "target": one.target,
        "method": one.method,
        "top": float(f"{one.top:.3g}"),
        "signed": one.signed,
        "meaning": one.meaning,
        "height": packed.shape[0],
        "width": packed.shape[1],
        "values": base64.b64encode(packed.tobytes()).decode(),
    }
