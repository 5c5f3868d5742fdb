"""Plain folders of pictures, with labels by subfolder or without."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cnn_interp.images.files import ImageFiles, image_files
from cnn_interp.images.sets import Images, LabelledImages, expect_folder
from interpretkit.errors import InputError


def read_folder(folder: Path | str) -> Images:
    """Read the pictures of a folder, sorted by name; subfolders are left out.

    Raises
    ------
    InputError
        If the folder is missing or holds no pictures.
    """
    folder = expect_folder(folder, "pictures")
    paths = image_files(folder)
    if not paths:
        raise InputError(f"{folder}: no pictures in it")
    files = ImageFiles(paths)
    return Images(
        name=folder.name,
        ids=tuple(path.name for path in paths),
        load=files.pixels,
        load_size=files.size,
    )


def read_labelled_folders(folder: Path | str) -> LabelledImages:
    """Read pictures whose label is the subfolder that they lie in.

    Subfolders count as categories in the order of their names; those whose names are all whole numbers are sorted
    as numbers, which are kept as the labels.

    Raises
    ------
    InputError
        If the folder is missing, or none of its subfolders holds pictures.
    """
    folder = expect_folder(folder, "labelled pictures")
    subfolders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    subfolders = [subfolder for subfolder in subfolders if image_files(subfolder)]
    if not subfolders:
        raise InputError(f"{folder}: no subfolders with pictures; expected one for each label")
    numbered = all(subfolder.name.isdecimal() for subfolder in subfolders)
    if numbered:
        subfolders.sort(key=lambda subfolder: int(subfolder.name))
        names: tuple[str, ...] = ()
    else:
        names = tuple(subfolder.name for subfolder in subfolders)
    paths: list[Path] = []
    labels: list[int] = []
    for place, subfolder in enumerate(subfolders):
        pictures = image_files(subfolder)
        paths += pictures
        labels += [int(subfolder.name) if numbered else place] * len(pictures)
    files = ImageFiles(paths)
    return LabelledImages(
        name=folder.name,
        ids=tuple(path.relative_to(folder).as_posix() for path in paths),
        load=files.pixels,
        load_size=files.size,
        labels=np.array(labels, dtype=np.intp),
        category_names=names,
    )
