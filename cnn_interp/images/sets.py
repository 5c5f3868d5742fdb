"""What all sets of images share: pictures loaded one by one when asked for, and slices of the set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from interpretkit.errors import InputError

Picture = NDArray[np.uint8]
# Marks a field that holds one entry for each image, so that a slice of the set slices it too.
PER_IMAGE = MappingProxyType({"per_image": True})


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """Images in an order, each loaded when it is asked for.

    Attributes
    ----------
    name : str
        What the set is called in tables and figures.
    ids : tuple of str, (n,)
        What each image is called in its source, such as its path there.
    load : callable
        From an image's number in the source to uint8 ``(h, w, 3)``.
    load_size : callable, optional
        From an image's number in the source to its height and width, where they can be had for less.
    source : ndarray of int, (n,)
        The numbers that `load` takes; by default 0 … n − 1.
    split : ndarray of str, (n,), optional
        Which part of a published split each image belongs to, such as ``"train"`` and ``"test"``.
    groups : ndarray of int, (n,), optional
        Images with the same number are relatives (of one object, photograph or scene), which a split shall keep
        together.

    Raises
    ------
    InputError
        If a field that holds an entry for each image has another length than `ids`.
    """

    name: str
    ids: tuple[str, ...] = field(metadata=PER_IMAGE)
    load: Callable[[int], Picture] = field(repr=False)
    load_size: Callable[[int], tuple[int, int]] | None = field(default=None, repr=False)
    source: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp), metadata=PER_IMAGE)
    split: NDArray[np.str_] | None = field(default=None, metadata=PER_IMAGE)
    groups: NDArray[np.intp] | None = field(default=None, metadata=PER_IMAGE)

    def __post_init__(self) -> None:
        if len(self.source) == 0:
            object.__setattr__(self, "source", np.arange(len(self.ids)))
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if entry.metadata.get("per_image") and value is not None and len(value) != len(self.ids):
                raise InputError(
                    f"{self.name}: {len(value)} entries in {entry.name}; expected one for each of "
                    f"{len(self.ids)} images"
                )

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {len(self)} images>"

    def image(self, index: int) -> Picture:
        """Return image `index` as uint8 ``(h, w, 3)``, red, green and blue.

        Raises
        ------
        IndexError
            If there is no such image.
        InputError
            If its file is missing or is no picture.
        """
        return self.load(self.number(index))

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of image `index` in pixels."""
        if self.load_size is not None:
            return self.load_size(self.number(index))
        height, width = self.image(index).shape[:2]
        return height, width

    def __iter__(self) -> Iterator[Picture]:
        """Give the images one after another."""
        return (self.image(index) for index in range(len(self)))

    def number(self, index: int) -> int:
        """Return the number of image `index` in the source; negative indices count from the end."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name}: image {index} of {len(self)}")
        return int(self.source[index])

    def subset(self, indices: ArrayLike) -> Self:
        """Return the set of the images at `indices` only, in that order.

        Parameters
        ----------
        indices : array_like of int (m,) or of bool (n,)
            Such as ``images.split == "train"``.

        Raises
        ------
        InputError
            If an index is out of range, or a mask has another length.
        """
        chosen = np.asarray(indices)
        chosen = chosen.astype(np.intp) if chosen.size == 0 and chosen.dtype != bool else chosen
        right = chosen.ndim == 1 and (
            len(chosen) == len(self)
            if chosen.dtype == bool
            else chosen.dtype.kind in "iu" and bool(np.all((chosen >= -len(self)) & (chosen < len(self))))
        )
        if not right:
            raise InputError(
                f"{self.name}: indices {chosen.dtype} of shape {chosen.shape}; expected whole numbers below "
                f"{len(self)} or a mask of that length"
            )
        rows = np.arange(len(self))[chosen]
        changed: dict[str, Any] = {}
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if entry.metadata.get("per_image") and value is not None:
                changed[entry.name] = (
                    tuple(value[row] for row in rows) if isinstance(value, tuple) else value[rows]
                )
        return dataclasses.replace(self, **changed)

    def stack(self, side: int) -> Picture:
        """Return all images as one array ``(n, side, side, 3)``, each resized without keeping its proportions."""
        stacked = np.empty((len(self), side, side, 3), dtype=np.uint8)
        for index, picture in enumerate(self):
            stacked[index] = resized(picture, side, side)
        return stacked


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LabelledImages(Images):
    """Images with one label each.

    Attributes
    ----------
    labels : ndarray of int, (n,)
        Numbers of the categories.
    category_names : tuple of str
        What they are called; may be empty where the source gives no names.
    factors : ndarray of int, (n, k), optional
        Known factors of variation.
    factor_names : tuple of str, (k,)
        What they are called.
    """

    labels: NDArray[np.intp] = field(metadata=PER_IMAGE)
    category_names: tuple[str, ...] = ()
    factors: NDArray[np.intp] | None = field(default=None, metadata=PER_IMAGE)
    factor_names: tuple[str, ...] = ()


# -------------------------------------------------------------------------------------------- pictures


def resized(picture: Picture, height: int, width: int) -> Picture:
    """Return a picture ``(h, w, 3)`` at another size, bilinear with antialiasing."""
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))


def expect_folder(path: Path | str, kind: str) -> Path:
    """Return a folder's path.

    Raises
    ------
    InputError
        If there is no such folder.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected the folder of {kind}")
    return folder


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not blank.

    Raises
    ------
    InputError
        If there is no such file.
    """
    if not path.is_file():
        raise InputError(f"{path.parent}: no file {path.name} in it")
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def grey_to_rgb(grey: NDArray[np.uint8]) -> Picture:
    """Return a grey picture ``(h, w)`` with its value in all three channels."""
    return np.repeat(grey[..., None], 3, axis=2)
