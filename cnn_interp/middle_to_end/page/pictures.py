"""Pictures as pages get them."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Patches are sent so wide, px.
PATCH = 96


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Return a picture ``(h, w, 3)`` as JPEG."""
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "JPEG", quality=88)
    return held.getvalue()
