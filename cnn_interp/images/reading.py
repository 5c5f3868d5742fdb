"""Readers by kind, as ``interpretkit bench --data KIND=PATH`` names them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from cnn_interp.images.affnist import read_affnist
from cnn_interp.images.animal_part import read_animal_part
from cnn_interp.images.broden import read_broden
from cnn_interp.images.cub import read_cub
from cnn_interp.images.folders import read_folder, read_labelled_folders
from cnn_interp.images.jpeg_archive import read_jpeg_archive
from cnn_interp.images.mnist import read_mnist
from cnn_interp.images.part_images import PartImages
from cnn_interp.images.pascal_part import read_pascal_part
from cnn_interp.images.sets import Images, LabelledImages
from cnn_interp.images.small_norb import read_small_norb
from interpretkit.errors import InputError


def read_labelled(path: Path | str) -> LabelledImages:
    """Read labelled photographs: an npz of JPEGs if `path` is a file, else a folder with a subfolder for each label.

    Raises
    ------
    InputError
        As :func:`read_jpeg_archive` and :func:`read_labelled_folders` do.
    """
    return read_labelled_folders(path) if Path(path).is_dir() else read_jpeg_archive(path)


KINDS: Mapping[str, Callable[[Path | str], Images]] = MappingProxyType(
    {
        "affnist": read_affnist,
        "animal-part": read_animal_part,
        "broden": read_broden,
        "cifar10": read_labelled,
        "cub": read_cub,
        "imagenet-sample": read_labelled,
        "images": read_folder,
        "labelled-images": read_labelled,
        "mnist": read_mnist,
        "pascal-part": read_pascal_part,
        "small-norb": read_small_norb,
    }
)


def read(kind: str, path: Path | str) -> Images:
    """Read the images of one kind.

    Parameters
    ----------
    kind : str
        One of ``KINDS``.
    path : path
        The folder or file.

    Returns
    -------
    Images
        :class:`PartImages`, :class:`ConceptImages`, :class:`LabelledImages` or plain :class:`Images`, by the kind.

    Raises
    ------
    InputError
        If there is no such kind, or the data are not as expected.
    """
    if kind not in KINDS:
        raise InputError(f"kind {kind}: expected one of {', '.join(KINDS)}")
    return KINDS[kind](path)


def read_parts(
    kind: str, path: Path | str, *, unannotated: bool = False, negatives: bool = False
) -> PartImages:
    """Return the annotated images of a data set, cropped to the objects where these have boxes.

    Parameters
    ----------
    kind : str
        One of ``KINDS`` with annotated parts. The species of ``cub`` are one category, bird, as in the published
        evaluation.
    path : path
        Its folder.
    unannotated : bool
        Whether images of the categories without any annotated part are kept.
    negatives : bool
        Whether images of none of the categories are kept.

    Raises
    ------
    InputError
        If the folder is not as expected, or the data have no annotated parts.

    References
    ----------
    Zhang, Wu, Zhu: Interpretable Convolutional Neural Networks, CVPR 2018.
    """
    found = read_annotated(kind, path)
    found = found.cropped() if found.boxes is not None else found
    of_category = found.categories >= 0
    told = found.annotated.any(axis=1) | unannotated
    return found.subset((of_category & told) | (~of_category & negatives))


def read_annotated(kind: str, path: Path | str) -> PartImages:
    """Return all images of a data set with annotated parts, whole, negatives among them.

    Parameters
    ----------
    kind, path
        As in :func:`read_parts`.

    Raises
    ------
    InputError
        If the folder is not as expected, or the data have no annotated parts.
    """
    found = read(kind, path)
    if not isinstance(found, PartImages):
        raise InputError(
            f"{kind}={path}: has no annotated parts; expected a set with landmarks or masks of parts"
        )
    if kind == "cub":
        birds = found.categories.clip(max=0)
        found = dataclasses.replace(found, categories=birds, category_names=("bird",))
    return found
