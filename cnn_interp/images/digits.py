"""Handwritten digits that are at hand without a download: small ones, which come with scikit-learn."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnn_interp.images.sets import LabelledImages, Picture, grey_to_rgb

# Pixels that digits of 8 × 8 are drawn out to, and the side of the picture with its margin, as in MNIST.
_DRAWN, _SIDE = 20, 28


def bundled_digits() -> LabelledImages:
    """Return scikit-learn's 1797 digits, drawn out from 8 × 8 to 20 × 20 px in the middle of 28 × 28 px, as MNIST's.

    They stand in for MNIST where that is not at hand: fewer, coarser, by other hands.

    References
    ----------
    Alpaydin and Kaynak: Optical recognition of handwritten digits, UCI Machine Learning Repository, 1998.
    """
    from sklearn.datasets import load_digits

    values, targets = (np.asarray(array) for array in load_digits(return_X_y=True))
    grey = np.rint(values.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return LabelledImages(
        name="scikit-learn's digits",
        ids=tuple(f"digit {row}" for row in range(len(grey))),
        load=partial(_picture, grey),
        labels=targets.astype(np.intp),
        category_names=tuple(str(digit) for digit in range(10)),
    )


def _picture(grey: NDArray[np.uint8], number: int) -> Picture:
    drawn = Image.fromarray(grey[number]).resize((_DRAWN, _DRAWN), Image.Resampling.BICUBIC)
    picture = np.zeros((_SIDE, _SIDE), dtype=np.uint8)
    start = (_SIDE - _DRAWN) // 2
    picture[start : start + _DRAWN, start : start + _DRAWN] = np.asarray(drawn)
    return grey_to_rgb(picture)
