"""MNIST and whatever else comes as IDX files: handwritten digits of 28 × 28 pixels."""

from __future__ import annotations

import gzip
import math
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnn_interp.images.sets import LabelledImages, Picture, expect_folder, grey_to_rgb
from interpretkit.errors import InputError
from interpretkit.runs.arrays import allowed_bytes

IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049
_PREFIX = {"train": "train", "test": "t10k"}


def read_mnist(folder: Path | str) -> LabelledImages:
    """Read MNIST from a folder of IDX files, packed by gzip or not.

    Parameters
    ----------
    folder : path
        Holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the two of ``t10k``, or one pair of them;
        ``.gz`` may follow, and a dot stand before ``idx``.

    Returns
    -------
    LabelledImages
        Training images first. Grey values stand in all three channels.

    Raises
    ------
    InputError
        If there is no pair of files, or a file is not as expected.

    References
    ----------
    LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, 1998.
    """
    folder = expect_folder(folder, "MNIST")
    pixels, labels, split = [], [], []
    for name, prefix in _PREFIX.items():
        image_file = _find(folder, f"{prefix}-images", "idx3-ubyte")
        label_file = _find(folder, f"{prefix}-labels", "idx1-ubyte")
        if image_file is None and label_file is None:
            continue
        if image_file is None or label_file is None:
            raise InputError(f"{folder}: only one file of {prefix}; expected images and labels")
        images, numbers = read_idx(image_file, IMAGES_MAGIC), read_idx(label_file, LABELS_MAGIC)
        if len(images) != len(numbers):
            raise InputError(f"{label_file}: {len(numbers)} labels; expected {len(images)}")
        pixels.append(images)
        labels.append(numbers)
        split += [name] * len(images)
    if not pixels:
        raise InputError(f"{folder}: no train-images-idx3-ubyte or t10k-images-idx3-ubyte in it")
    grey = np.concatenate(pixels)
    return LabelledImages(
        name="MNIST",
        ids=tuple(f"{name}/{row}" for row, name in enumerate(split)),
        load=partial(_picture, grey),
        split=np.array(split),
        labels=np.concatenate(labels).astype(np.intp),
        category_names=tuple(str(digit) for digit in range(10)),
    )


def read_idx(path: Path | str, magic: int) -> NDArray[np.uint8]:
    """Read an IDX file of bytes.

    Parameters
    ----------
    path : path
        The file; packed by gzip if it ends in ``.gz``.
    magic : int
        What it must begin with: 2051 for images ``(n, h, w)``, 2049 for labels ``(n,)``. The last byte is the
        number of dimensions.

    Raises
    ------
    InputError
        If the file begins otherwise, is shorter or longer than it says, or says that it is larger than memory allows.
    """
    path = Path(path)
    dimensions = magic % 256
    start = 4 + 4 * dimensions
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(start)
            found = int.from_bytes(header[:4], "big")
            if found != magic:
                raise InputError(f"{path}: begins with {found}; expected {magic}")
            shape = tuple(int(size) for size in np.frombuffer(header[4 : len(header) // 4 * 4], dtype=">u4"))
            told = math.prod(shape)
            # A few megabytes of gzip may unpack to more than a machine has: no more is read than the header tells.
            if len(shape) == dimensions and told > allowed_bytes():
                raise InputError(
                    f"{path}: tells of {told} bytes, more than the memory of this machine allows"
                )
            content = file.read(told + 1) if len(shape) == dimensions else b""
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if len(shape) != dimensions or len(content) != told:
        more = "or more " if len(content) > told else ""
        raise InputError(f"{path}: {len(content)} {more}bytes of data; expected an array of shape {shape}")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _find(folder: Path, prefix: str, kind: str) -> Path | None:
    names = (f"{prefix}{joint}{kind}{packed}" for joint in "-." for packed in ("", ".gz"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _picture(grey: NDArray[np.uint8], number: int) -> Picture:
    return grey_to_rgb(grey[number])
