"""Broden: images with labels of colours, objects, parts, materials, scenes and textures, by pixel or as a whole."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from cnn_interp.images.concept_images import Concept, ConceptImages, Concepts, LabelMap
from cnn_interp.images.files import ImageFiles, open_image
from cnn_interp.images.sets import expect_folder
from interpretkit.errors import InputError
from interpretkit.runs.files import read_table

_LAYOUT = ("image", "split", "ih", "iw", "sh", "sw")


def read_broden(folder: Path | str) -> ConceptImages:
    """Read Broden, or any set in its format.

    Parameters
    ----------
    folder : path
        Holds ``index.csv`` (image, split, ih, iw, sh, sw and a column for each category, whose cells are lists
        parted by ``;``: a number labels the whole image, a name is a PNG with label red + 256 · green),
        ``category.csv``, ``label.csv``, ``c_<category>.csv`` where there are any, and ``images/``.

    Returns
    -------
    ConceptImages
        A label that ``label.csv`` gives to several categories is listed under the first; the maps of an image
        stand under the category of their column.

    Raises
    ------
    InputError
        If a file or column is missing, or a label is listed nowhere.

    References
    ----------
    Bau, Zhou, Khosla, Oliva, Torralba: Network Dissection, CVPR 2017.
    """
    folder = expect_folder(folder, "Broden")
    categories = tuple(row["name"] for row in read_table(folder / "category.csv", "name"))
    rows = read_table(folder / "index.csv", *_LAYOUT, *categories)
    labels = tuple(
        Concept(
            number=_whole(row["number"], folder / "label.csv"),
            name=row["name"],
            # "object(310);part(12)" with frequencies in brackets.
            category=re.split(r"[(;]", row["category"])[0].strip(),
        )
        for row in read_table(folder / "label.csv", "number", "name", "category", empty=True)
        if row["number"] != "0"
    )
    _check_codes(folder, categories, labels)
    files = ImageFiles([folder / "images" / row["image"] for row in rows], upright=False)
    cells = [{category: row[category] for category in categories if row[category]} for row in rows]
    height, width = (_whole(rows[0][key], folder / "index.csv") for key in ("sh", "sw"))
    return ConceptImages(
        name="Broden",
        ids=tuple(row["image"] for row in rows),
        load=files.pixels,
        load_size=files.size,
        split=np.array([row["split"] for row in rows]),
        labels=labels,
        categories=categories,
        load_concepts=partial(_concepts, folder / "images", cells),
        map_size=(height, width),
    )


def read_label_map(path: Path) -> LabelMap:
    """Read a PNG whose labels are red + 256 · green, as int32 ``(h, w)``.

    Raises
    ------
    InputError
        If the file is missing or is no picture.
    """
    pixels = np.asarray(open_image(path, upright=False).convert("RGB")).astype(np.int32)
    return pixels[..., 0] + 256 * pixels[..., 1]


def _concepts(images: Path, cells: Sequence[Mapping[str, str]], number: int) -> Concepts:
    return {
        category: tuple(
            int(word) if word.isdigit() else read_label_map(images / word) for word in cell.split(";") if word
        )
        for category, cell in cells[number].items()
    }


def _check_codes(folder: Path, categories: Sequence[str], labels: Sequence[Concept]) -> None:
    """Refuse a category's own table that speaks of labels which ``label.csv`` does not know."""
    known = {label.number for label in labels}
    for category in categories:
        path = folder / f"c_{category}.csv"
        if path.is_file():
            for row in read_table(path, "code", "number", "name", empty=True):
                if row["number"] != "0" and _whole(row["number"], path) not in known:
                    raise InputError(f"{path}: label {row['number']} is not in label.csv")


def _whole(word: str, path: Path) -> int:
    if not word.isdigit():
        raise InputError(f"{path}: {word!r}; expected a whole number")
    return int(word)
