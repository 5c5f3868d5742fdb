"""An npz of JPEGs: many photographs in one file, each as its compressed bytes."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnn_interp.images.files import ImageFiles
from cnn_interp.images.sets import LabelledImages
from interpretkit.errors import InputError
from interpretkit.runs.files import atomic_path
from interpretkit.runs.folder import load_arrays


def read_jpeg_archive(path: Path | str) -> LabelledImages:
    """Read an npz of JPEGs.

    Parameters
    ----------
    path : path
        An npz with the arrays ``jpeg`` (uint8, all files one after another), ``offsets`` (``(n + 1,)``: file i is
        ``jpeg[offsets[i]:offsets[i + 1]]``) and ``labels`` ``(n,)``; or the same three with a prefix for each part
        of a split, such as ``train_jpeg`` and ``test_jpeg``. ``names`` (text) may name the labels.

    Raises
    ------
    InputError
        If the file is missing, is no npz or lacks an array, or the arrays do not fit together.

    See Also
    --------
    write_jpeg_archive
    """
    path = Path(path)
    arrays = load_arrays(path)
    prefixes = [name.removesuffix("jpeg") for name in arrays if name == "jpeg" or name.endswith("_jpeg")]
    if not prefixes:
        raise InputError(f"{path}: has {', '.join(arrays)}; expected jpeg, offsets, labels")
    files: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.intp]] = []
    split: list[str] = []
    for prefix in prefixes:
        missing = [key for key in ("offsets", "labels") if prefix + key not in arrays]
        if missing:
            raise InputError(f"{path}: no array {prefix}{missing[0]} beside {prefix}jpeg")
        content, offsets, numbers = (arrays[prefix + key] for key in ("jpeg", "offsets", "labels"))
        for key, array, kinds in (
            ("jpeg", content, "u"),
            ("offsets", offsets, "iu"),
            ("labels", numbers, "iu"),
        ):
            if array.ndim != 1 or array.dtype.kind not in kinds:
                raise InputError(
                    f"{path}: {prefix}{key} is {array.dtype} of shape {array.shape}; expected a row of "
                    f"{'bytes' if key == 'jpeg' else 'whole numbers'}"
                )
        if len(numbers) and numbers.min() < 0:
            raise InputError(f"{path}: {prefix}labels go down to {numbers.min()}; expected 0 and up")
        if (
            len(offsets) != len(numbers) + 1
            or offsets[0] != 0
            or offsets[-1] != len(content)
            or (np.diff(offsets.astype(np.int64)) < 0).any()
        ):
            raise InputError(
                f"{path}: {len(offsets)} offsets for {len(numbers)} labels and {len(content)} bytes; expected "
                "one more than labels, from 0 up to the number of bytes"
            )
        files += [content[start:end] for start, end in pairwise(offsets)]
        labels.append(numbers.astype(np.intp))
        split += [prefix.removesuffix("_")] * len(numbers)
    return LabelledImages(
        name=path.stem,
        ids=tuple(f"{part}/{row}" if part else str(row) for row, part in enumerate(split)),
        load=ImageFiles(files, name=path.name).pixels,
        split=np.array(split) if any(split) else None,
        labels=np.concatenate(labels),
        category_names=tuple(str(name) for name in arrays.get("names", ())),
    )


def write_jpeg_archive(path: Path | str, images: LabelledImages, *, quality: int = 90) -> None:
    """Write images with their labels as an npz of JPEGs, atomically; a split is not kept.

    Parameters
    ----------
    path : path
        The file to write.
    images : LabelledImages
        What to write.
    quality : int
        Quality of the compression, 1 to 95.
    """
    files = []
    for picture in images:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, format="JPEG", quality=quality)
        files.append(buffer.getvalue())
    arrays: dict[str, NDArray[np.generic]] = {
        "jpeg": np.frombuffer(b"".join(files), dtype=np.uint8),
        "offsets": np.cumsum([0, *map(len, files)], dtype=np.int64),
        "labels": images.labels,
    }
    if images.category_names:
        arrays["names"] = np.array(images.category_names, dtype=np.str_)
    with atomic_path(path) as hidden, hidden.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
