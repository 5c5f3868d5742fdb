"""PASCAL-Part: masks of objects and of their parts for the photographs of PASCAL VOC 2010."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from cnn_interp.images.files import ImageFiles
from cnn_interp.images.matlab import read_matlab
from cnn_interp.images.part_images import Masks, PartImages, box_of, centre_of
from cnn_interp.images.sets import expect_folder
from interpretkit.errors import InputError
from interpretkit.runs.progress import track


@dataclass(frozen=True)
class AnnotatedObject:
    """One object of a photograph.

    Attributes
    ----------
    category : str
        Such as ``bird``.
    mask : ndarray of bool, (h, w)
        Where it is.
    parts : dict
        From the part's name to where it is, bool ``(h, w)``.
    """

    category: str
    mask: np.ndarray
    parts: Mapping[str, np.ndarray]


def read_pascal_part(
    folder: Path | str,
    *,
    pictures: Path | str | None = None,
    categories: Sequence[str] | None = None,
    parts: Mapping[str, Sequence[str]] | None = None,
    quiet: bool = True,
) -> PartImages:
    """Read PASCAL-Part; every annotated object is one image of the set.

    An image is the whole photograph, its box that of the object's mask, and a landmark the centre of the box of the
    part's mask. ``read_pascal_part(...).cropped(224)`` gives the objects as interpretable CNNs are trained on.
    Objects without parts are kept; several objects of a photograph share its number in ``groups``.

    Parameters
    ----------
    folder : path
        Holds ``Annotations_Part/<id>.mat``, and ``JPEGImages/<id>.jpg`` unless `pictures` is given.
    pictures : path, optional
        The folder of the photographs.
    categories : sequence of str, optional
        Only objects of these; by default all.
    parts : mapping, optional
        Parts to make of the annotated ones, whose masks are joined, such as
        ``{"head": ["head"], "front legs": ["lfuleg", "lflleg", "rfuleg", "rflleg"]}``. By default the annotated
        ones as they are.
    quiet : bool
        Whether to show no progress bar; all annotations are read once, which takes minutes for all of VOC.

    Raises
    ------
    InputError
        If a folder or photograph is missing, or a file is not as expected.

    References
    ----------
    Chen, Mottaghi, Liu, Fidler, Urtasun, Yuille: Detect What You Can, CVPR 2014.
    """
    folder = expect_folder(folder, "PASCAL-Part")
    annotations = expect_folder(folder / "Annotations_Part", "PASCAL-Part's annotations")
    shelf = Path(pictures) if pictures is not None else folder / "JPEGImages"
    files = sorted(annotations.glob("*.mat"))
    entries: list[tuple[Path, int]] = []
    found: list[tuple[str, np.ndarray, dict[str, np.ndarray]]] = []
    groups: list[int] = []
    for group, file in enumerate(track(files, "Reading annotations", quiet=quiet)):
        for place, one in enumerate(read_objects(file)):
            if categories is None or one.category in categories:
                joined = _joined(one, parts)
                found.append((one.category, box_of(one.mask), {k: centre_of(m) for k, m in joined.items()}))
                entries.append((file, place))
                groups.append(group)
    if not found:
        raise InputError(f"{annotations}: no objects of {categories or 'any category'} in {len(files)} files")
    category_names = tuple(sorted({category for category, _, _ in found}))
    part_names = (
        tuple(parts) if parts is not None else tuple(sorted({name for *_, named in found for name in named}))
    )
    landmarks = np.full((len(found), len(part_names), 2), np.nan)
    for row, (*_, named) in enumerate(found):
        for column, part in enumerate(part_names):
            landmarks[row, column] = named.get(part, (np.nan, np.nan))
    paths = [shelf / f"{file.stem}.jpg" for file, _ in entries]
    missing = next((path for path in dict.fromkeys(paths) if not path.is_file()), None)
    if missing is not None:
        raise InputError(f"{missing}: no such file; expected the photograph of its annotations")
    photographs = ImageFiles(paths, upright=False)
    return PartImages(
        name="PASCAL-Part",
        ids=tuple(f"{file.stem}/{place}" for file, place in entries),
        load=photographs.pixels,
        load_size=photographs.size,
        groups=np.array(groups, dtype=np.intp),
        categories=np.array([category_names.index(category) for category, *_ in found], dtype=np.intp),
        category_names=category_names,
        part_names=part_names,
        landmarks=landmarks,
        absence_known=True,
        boxes=np.array([box for _, box, _ in found]),
        load_masks=partial(_masks, entries, part_names, parts),
    )


@lru_cache(maxsize=8)
def read_objects(file: Path) -> tuple[AnnotatedObject, ...]:
    """Read the objects of one annotation file ``<id>.mat``.

    Raises
    ------
    InputError
        If the file is missing or is not as expected.
    """
    return read_matlab(file, "anno", _objects, "an annotation of PASCAL-Part")


def _objects(content: Any) -> tuple[AnnotatedObject, ...]:
    return tuple(
        AnnotatedObject(
            category=str(one.__dict__["class"]),
            mask=np.atleast_2d(one.mask).astype(bool),
            parts={
                str(part.part_name): np.atleast_2d(part.mask).astype(bool)
                for part in np.atleast_1d(one.parts)
            },
        )
        for one in np.atleast_1d(content.objects)
    )


def _joined(one: AnnotatedObject, parts: Mapping[str, Sequence[str]] | None) -> dict[str, np.ndarray]:
    """Return the masks of the parts asked for that the object has."""
    if parts is None:
        return dict(one.parts)
    joined = {}
    for name, members in parts.items():
        masks = [one.parts[member] for member in members if member in one.parts]
        if masks:
            joined[name] = np.logical_or.reduce(masks)
    return joined


def _masks(
    entries: Sequence[tuple[Path, int]],
    part_names: Sequence[str],
    parts: Mapping[str, Sequence[str]] | None,
    number: int,
) -> Masks:
    file, place = entries[number]
    one = read_objects(file)[place]
    joined = _joined(one, parts)
    return np.stack([joined.get(name, np.zeros_like(one.mask)) for name in part_names])
