"""smallNORB: photographs of toys from all sides, with known elevation, azimuth and lighting."""

from __future__ import annotations

import gzip
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnn_interp.images.sets import LabelledImages, Picture, expect_folder, grey_to_rgb
from interpretkit.errors import InputError

CATEGORIES = ("animal", "human", "airplane", "truck", "car")
FACTORS = ("category", "instance", "elevation", "azimuth", "lighting")
# What the first four bytes say of the numbers that follow, all with the lowest byte first.
_TYPES = {
    0x1E3D4C51: np.dtype("<f4"),
    0x1E3D4C53: np.dtype("<f8"),
    0x1E3D4C54: np.dtype("<i4"),
    0x1E3D4C55: np.dtype("u1"),
    0x1E3D4C56: np.dtype("<i2"),
}


def read_small_norb(folder: Path | str, *, camera: int = 0) -> LabelledImages:
    """Read smallNORB from a folder of its binary files, packed by gzip or not.

    Parameters
    ----------
    folder : path
        Holds files that end in ``-training-dat.mat``, ``-cat.mat``, ``-info.mat`` and the same with ``-testing``,
        or one set of three; ``.gz`` may follow.
    camera : int
        0 or 1: which picture of each stereo pair.

    Returns
    -------
    LabelledImages
        ``factors`` are category 0–4, instance 0–9, elevation 0–8 (30° to 70° by 5°), azimuth 0–17 (by 20°) and
        lighting 0–5; ``groups`` tell the toys apart.

    Raises
    ------
    InputError
        If there are no such files, they are not as expected, or `camera` is neither 0 nor 1.

    References
    ----------
    LeCun, Huang, Bottou: Learning methods for generic object recognition, CVPR 2004.
    """
    if camera not in (0, 1):
        raise InputError(f"camera {camera}: expected 0 or 1")
    folder = expect_folder(folder, "smallNORB")
    pixels, factors, split = [], [], []
    for name, infix in (("train", "training"), ("test", "testing")):
        files = {kind: _find(folder, f"-{infix}-{kind}.mat") for kind in ("dat", "cat", "info")}
        if not any(files.values()):
            continue
        arrays = {}
        for kind, file in files.items():
            if file is None:
                raise InputError(f"{folder}: no file that ends in -{infix}-{kind}.mat")
            arrays[kind] = read_norb_matrix(file)
        pictures, info = arrays["dat"], arrays["info"]
        n = len(pictures)
        if pictures.ndim != 4 or pictures.shape[1] != 2 or info.shape != (n, 4) or len(arrays["cat"]) != n:
            shapes = ", ".join(f"{kind} {array.shape}" for kind, array in arrays.items())
            raise InputError(f"{folder}: {shapes}; expected (n, 2, h, w), (n,) and (n, 4)")
        pixels.append(pictures[:, camera])
        # Azimuths are published as 0, 2, …, 34.
        factors.append(np.column_stack([arrays["cat"], info // (1, 1, 2, 1)]).astype(np.intp))
        split += [name] * n
    if not pixels:
        raise InputError(f"{folder}: no file that ends in -training-dat.mat or -testing-dat.mat")
    table = np.concatenate(factors)
    return LabelledImages(
        name="smallNORB",
        ids=tuple(f"{name}/{row}" for row, name in enumerate(split)),
        load=partial(_picture, pixels, np.cumsum([0, *map(len, pixels)])),
        split=np.array(split),
        groups=table[:, 0] * 10 + table[:, 1],
        labels=table[:, 0],
        category_names=CATEGORIES,
        factors=table,
        factor_names=FACTORS,
    )


def read_norb_matrix(path: Path | str) -> NDArray[np.generic]:
    """Read a matrix in NORB's binary format; a file that is not packed stays on the disk and is mapped.

    The file begins with four bytes for the type, four for the number of dimensions and four for each dimension,
    at least three of them.

    Raises
    ------
    InputError
        If the file begins otherwise, or is shorter or longer than it says.
    """
    path = Path(path)
    packed = path.suffix == ".gz"
    try:
        if packed:
            content: NDArray[np.uint8] = np.frombuffer(gzip.decompress(path.read_bytes()), dtype=np.uint8)
        else:
            content = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    head = np.frombuffer(content[: len(content[:1024]) // 4 * 4].tobytes(), dtype="<i4")
    if len(head) < 5 or int(head[0]) not in _TYPES or not 1 <= head[1] <= 64:
        raise InputError(f"{path}: does not begin as a matrix of NORB should")
    dimensions = int(head[1])
    shape = tuple(int(size) for size in head[2 : 2 + dimensions])
    start = 4 * (2 + max(3, dimensions))
    kind = _TYPES[int(head[0])]
    if len(content) - start != np.prod(shape, dtype=np.int64) * kind.itemsize:
        raise InputError(f"{path}: {len(content) - start} bytes of data; expected {kind} of shape {shape}")
    return content[start:].view(kind).reshape(shape)


def _find(folder: Path, ending: str) -> Path | None:
    return next((p for p in sorted(folder.iterdir()) if p.name.endswith((ending, ending + ".gz"))), None)


def _picture(pixels: list[NDArray[np.uint8]], starts: NDArray[np.intp], number: int) -> Picture:
    part = int(np.searchsorted(starts, number, side="right")) - 1
    return grey_to_rgb(np.asarray(pixels[part][number - starts[part]]))
