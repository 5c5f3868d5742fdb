"""affNIST: MNIST's digits under random affine transformations, 40 × 40 pixels."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn_interp.images.matlab import read_matlab
from cnn_interp.images.sets import LabelledImages, Picture, grey_to_rgb
from interpretkit.errors import InputError

SIDE = 40


def read_affnist(path: Path | str) -> LabelledImages:
    """Read affNIST from one of its files, or from a folder of them (one after another, by name).

    Parameters
    ----------
    path : path
        A ``.mat`` file with the struct ``affNISTdata`` (image: uint8 ``(1600, n)``, each column a picture row by
        row; label_int: ``(n,)``), or a folder that holds such files, also in subfolders.

    Raises
    ------
    InputError
        If there is no such file, or it is not as expected.

    References
    ----------
    Tieleman: affNIST, https://www.cs.toronto.edu/~tijmen/affNIST/
    """
    path = Path(path)
    files = sorted(path.rglob("*.mat"), key=_order) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: no .mat files in it; expected those of affNIST")
    read = [_read(file) for file in files]
    grey = np.concatenate([pictures for pictures, _ in read])
    return LabelledImages(
        name="affNIST",
        ids=tuple(
            f"{file.stem}/{row}"
            for file, (rows, _) in zip(files, read, strict=True)
            for row in range(len(rows))
        ),
        load=partial(_picture, grey),
        labels=np.concatenate([labels for _, labels in read]),
        category_names=tuple(str(digit) for digit in range(10)),
    )


def _order(file: Path) -> tuple[str, int, str]:
    """Order 2.mat before 10.mat."""
    return str(file.parent), int(file.stem) if file.stem.isdigit() else -1, file.stem


def _read(file: Path) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    pictures, labels = read_matlab(file, "affNISTdata", _arrays, "a file of affNIST")
    if len(pictures) != len(labels):
        raise InputError(f"{file}: {len(labels)} labels; expected {len(pictures)}")
    return pictures, labels


def _arrays(content: Any) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    pictures = np.asarray(content.image, dtype=np.uint8).reshape(SIDE * SIDE, -1).T.reshape(-1, SIDE, SIDE)
    return pictures, np.atleast_1d(content.label_int).astype(np.intp)


def _picture(grey: NDArray[np.uint8], number: int) -> Picture:
    return grey_to_rgb(np.ascontiguousarray(grey[number]))
