"""CUB-200-2011: birds of 200 species with the centres of 15 parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cnn_interp.images.files import ImageFiles
from cnn_interp.images.part_images import PartImages
from cnn_interp.images.sets import expect_folder, read_lines
from interpretkit.errors import InputError


def read_cub(folder: Path | str) -> PartImages:
    """Read CUB-200-2011 from its unpacked folder.

    Coordinates are kept as published, column and row in pixels, and taken to count from 0; the data's own notes do
    not say. Parts that are marked as not visible are NaN. ``groups`` is not given: every image is a photograph of
    its own.

    Parameters
    ----------
    folder : path
        Holds ``images.txt``, ``classes.txt``, ``image_class_labels.txt``, ``train_test_split.txt``,
        ``bounding_boxes.txt``, ``parts/parts.txt``, ``parts/part_locs.txt`` and ``images/``.

    Raises
    ------
    InputError
        If a file is missing, or a line is not as expected.

    References
    ----------
    Wah, Branson, Welinder, Perona, Belongie: The Caltech-UCSD Birds-200-2011 Dataset, CNS-TR-2011-001.
    """
    folder = expect_folder(folder, "CUB-200-2011")
    files = _numbered(folder / "images.txt")
    names = _numbered(folder / "classes.txt")
    parts = _numbered(folder / "parts" / "parts.txt")
    row_of = {number: row for row, number in enumerate(files)}
    column_of = {number: column for column, number in enumerate(parts)}
    place_of = {number: place for place, number in enumerate(names)}

    n = len(files)
    categories = np.full(n, -1, dtype=np.intp)
    path = folder / "image_class_labels.txt"
    for image, label in _numbers(path, 2):
        categories[_known(row_of, image, path)] = _known(place_of, label, path)
    split = np.full(n, "test", dtype="U5")
    path = folder / "train_test_split.txt"
    for image, is_training in _numbers(path, 2):
        split[_known(row_of, image, path)] = "train" if is_training else "test"
    boxes = np.full((n, 4), np.nan)
    path = folder / "bounding_boxes.txt"
    for image, x, y, width, height in _numbers(path, 5):
        boxes[_known(row_of, image, path)] = (y, x, y + height - 1, x + width - 1)
    landmarks = np.full((n, len(parts), 2), np.nan)
    path = folder / "parts" / "part_locs.txt"
    for image, part, x, y, visible in _numbers(path, 5):
        if visible:
            landmarks[_known(row_of, image, path), _known(column_of, part, path)] = (y, x)

    photographs = ImageFiles([folder / "images" / file for file in files.values()], upright=False)
    return PartImages(
        name="CUB-200-2011",
        ids=tuple(files.values()),
        load=photographs.pixels,
        load_size=photographs.size,
        split=split,
        categories=categories,
        category_names=tuple(names.values()),
        part_names=tuple(parts.values()),
        landmarks=landmarks,
        absence_known=True,
        boxes=boxes,
    )


def _numbered(path: Path) -> dict[int, str]:
    """Read lines "number text"."""
    found = {}
    for line in read_lines(path):
        number, _, text = line.strip().partition(" ")
        if not number.isdigit() or not text:
            raise InputError(f"{path}: line {line!r}; expected a number and a text")
        found[int(number)] = text
    return found


def _numbers(path: Path, length: int) -> list[list[float]]:
    """Read lines of so many numbers."""
    rows = []
    for line in read_lines(path):
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            row = []
        if len(row) != length:
            raise InputError(f"{path}: line {line!r}; expected {length} numbers")
        rows.append(row)
    return rows


def _known(places: dict[int, int], number: float, path: Path) -> int:
    if int(number) not in places:
        raise InputError(f"{path}: number {number:g} is listed nowhere")
    return places[int(number)]
