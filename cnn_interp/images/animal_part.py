"""Animal-part: crops of animals from ImageNet's detection set with landmarks of head and front legs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cnn_interp.images.files import ImageFiles, image_files
from cnn_interp.images.part_images import PartImages
from cnn_interp.images.sets import expect_folder
from interpretkit.errors import InputError
from interpretkit.runs.files import read_table

PARTS = {"head": "head", "front legs": "frontlegs"}
# Crops of one photograph have nearly always adjacent indices; which ones they are is not published.
_BLOCK = 20


def read_animal_part(folder: Path | str, *, negatives: bool = True) -> PartImages:
    """Read animal-part from a folder of crops with ``landmarks.csv`` and ``negatives/``.

    The published coordinates count from 1; here they count from 0, as everywhere. A landmark is the centre of a
    rectangle drawn around the part, all front legs together. **A blank is no absence**: annotators stopped after
    about 200 heads of each category, so that ``absence_known`` is False. Every crop is the object's box, so that
    boxes are not given.

    Parameters
    ----------
    folder : path
        Holds ``landmarks.csv`` with the columns file, category, wnid, head_row, head_col, frontlegs_row,
        frontlegs_col, the crops that it names, and ``negatives/``.
    negatives : bool
        Whether images without any of the animals shall follow the crops, with category −1.

    Returns
    -------
    PartImages
        ``groups`` are blocks of 20 consecutive crops of a category, since crops of one photograph follow each
        other; each negative is a group of its own.

    Raises
    ------
    InputError
        If the folder or the table is missing, or the table is not as expected.

    References
    ----------
    Zhang, Wu, Zhu: Interpretable Convolutional Neural Networks, CVPR 2018.
    """
    folder = expect_folder(folder, "animal-part")
    table = folder / "landmarks.csv"
    columns = ["file", "category", *(f"{key}_{axis}" for key in PARTS.values() for axis in ("row", "col"))]
    rows = read_table(table, *columns)
    names = tuple(dict.fromkeys(row["category"] for row in rows))
    category_of = {name: number for number, name in enumerate(names)}
    landmarks = np.full((len(rows), len(PARTS), 2), np.nan)
    for index, row in enumerate(rows):
        for part, key in enumerate(PARTS.values()):
            cells = (row[f"{key}_row"], row[f"{key}_col"])
            if all(cells):
                try:
                    landmarks[index, part] = [float(cell) - 1 for cell in cells]
                except ValueError as error:
                    raise InputError(f"{table}: {key} {cells} of {row['file']}; expected numbers") from error
    categories = np.array([category_of[row["category"]] for row in rows], dtype=np.intp)
    ids = [row["file"] for row in rows]
    groups = _blocks(categories)
    if negatives and (folder / "negatives").is_dir():
        more = [f"negatives/{path.name}" for path in image_files(folder / "negatives")]
        ids += more
        categories = np.concatenate([categories, np.full(len(more), -1)])
        landmarks = np.concatenate([landmarks, np.full((len(more), len(PARTS), 2), np.nan)])
        start = int(groups.max(initial=-1)) + 1
        groups = np.concatenate([groups, np.arange(start, start + len(more))])
    files = ImageFiles([folder / name for name in ids], upright=False)
    return PartImages(
        name="animal-part",
        ids=tuple(ids),
        load=files.pixels,
        load_size=files.size,
        groups=groups,
        categories=categories,
        category_names=names,
        part_names=tuple(PARTS),
        landmarks=landmarks,
        absence_known=False,
    )


def _blocks(categories: np.ndarray) -> np.ndarray:
    """Number blocks of consecutive images of each category."""
    groups = np.empty(len(categories), dtype=np.intp)
    start = 0
    for category in np.unique(categories):
        rows = np.flatnonzero(categories == category)
        blocks = np.arange(len(rows)) // _BLOCK
        groups[rows] = start + blocks
        start += int(blocks[-1]) + 1
    return groups
