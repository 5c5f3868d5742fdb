"""Images of objects whose parts are annotated by landmarks, and where there are any, by masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnn_interp.images.sets import PER_IMAGE, Images, Picture, resized
from interpretkit.errors import InputError
from interpretkit.training.seeds import numpy_generator

Masks = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PartImages(Images):
    """Images of objects with annotated parts.

    Attributes
    ----------
    categories : ndarray of int, (n,)
        Numbers of the objects' categories; −1 is a negative, an image of none of them.
    category_names : tuple of str
        What the categories are called.
    part_names : tuple of str, (parts,)
        What the parts are called.
    landmarks : ndarray of float, (n, parts, 2)
        Row and column of each part in pixels of the image, where 0 is the centre of the first pixel; NaN where
        it is not annotated.
    absence_known : bool
        Whether NaN says that the part is not to be seen. Where it is False, NaN may also mean that nobody
        annotated it.
    boxes : ndarray of float, (n, 4), optional
        Boxes of the object: first row, first column, last row, last column, in the same pixels, both ends within;
        NaN where there is none.
    load_masks : callable, optional
        From an image's number in the source to bool ``(parts, h, w)``.
    """

    categories: NDArray[np.intp] = field(metadata=PER_IMAGE)
    category_names: tuple[str, ...]
    part_names: tuple[str, ...]
    landmarks: NDArray[np.float64] = field(metadata=PER_IMAGE)
    absence_known: bool
    boxes: NDArray[np.float64] | None = field(default=None, metadata=PER_IMAGE)
    load_masks: Callable[[int], Masks] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = (len(self), len(self.part_names), 2)
        if self.landmarks.shape != expected:
            raise InputError(
                f"{self.name}: landmarks of shape {self.landmarks.shape}; expected {expected} for "
                f"{len(self.part_names)} parts"
            )

    @property
    def annotated(self) -> NDArray[np.bool_]:
        """Which parts have a landmark in which images, ``(n, parts)``."""
        return np.asarray(~np.isnan(self.landmarks).any(axis=2))

    @property
    def has_masks(self) -> bool:
        """Whether the parts have masks."""
        return self.load_masks is not None

    def masks(self, index: int) -> Masks:
        """Return where each part is seen in image `index`, bool ``(parts, h, w)``.

        Raises
        ------
        InputError
            If the set has no masks.
        IndexError
            If there is no such image.
        """
        if self.load_masks is None:
            raise InputError(f"{self.name}: has landmarks only; expected a set with masks")
        return self.load_masks(self.number(index))

    def of_category(self, name: str) -> PartImages:
        """Return the images of one category; ``"negative"`` returns those of none.

        Raises
        ------
        InputError
            If there is no such category.
        """
        known = {**{n: number for number, n in enumerate(self.category_names)}, "negative": -1}
        if name not in known:
            raise InputError(f"category {name}: expected one of {', '.join(known)}")
        return self.subset(self.categories == known[name])

    def cropped(self, side: int = 224, *, margin: float = 0.0) -> PartImages:
        """Return the objects cut out by their boxes and resized to squares, as interpretable CNNs are trained on.

        Proportions are not kept. Images without a box are resized whole. Landmarks and masks follow; a landmark
        outside the crop is NaN.

        Parameters
        ----------
        side : int
            Height and width of the crops in pixels.
        margin : float
            By how much of its height and width the box is widened on every side, where the image has room.

        Raises
        ------
        InputError
            If the set has no boxes.
        """
        if self.boxes is None:
            raise InputError(f"{self.name}: has no boxes to crop by")
        crop = Crop(self, side, margin)
        landmarks = np.full_like(self.landmarks, np.nan)
        for index in range(len(self)):
            height, width = self.size(index)
            first_row, first_column, last_row, last_column = crop.box(index, height, width)
            scale = side / np.array([last_row - first_row, last_column - first_column])
            # Edges of pixels, not centres, are what scales.
            moved = (self.landmarks[index] + 0.5 - (first_row, first_column)) * scale - 0.5
            outside = ((moved < -0.5) | (moved > side - 0.5)).any(axis=1)
            landmarks[index] = np.where(outside[:, None], np.nan, moved)
        return dataclasses.replace(
            self,
            load=crop.picture,
            load_size=crop.size,
            load_masks=crop.masks if self.has_masks else None,
            landmarks=landmarks,
            boxes=np.tile([0.0, 0.0, side - 1.0, side - 1.0], (len(self), 1)),
            source=np.arange(len(self)),
        )

    def shifted(self, share: float, side: int = 224, *, seed: int = 0) -> PartImages:
        """Return each image seen through a window at a random place, resized to a square: objects are off the centre.

        Parameters
        ----------
        share : float
            Height and width of the window as a share of the image's, above 0; 1 is the whole image.
        side : int
            Height and width of the results in pixels.
        seed : int
            Of the places, each anywhere in the image with equal probability.

        Returns
        -------
        PartImages
            Landmarks and masks follow; a landmark outside the window is NaN.

        Raises
        ------
        InputError
            If the share is none.
        """
        if not 0 < share <= 1:
            raise InputError(f"share {share}: expected above 0, and at most 1")
        sizes = np.array([self.size(index) for index in range(len(self))])
        windows = np.maximum(1, np.rint(sizes * share)).astype(np.intp)
        corners = numpy_generator(seed, "shifted").integers(0, sizes - windows + 1)
        boxes = np.concatenate([corners, corners + windows - 1], axis=1).astype(np.float64)
        return dataclasses.replace(self, boxes=boxes).cropped(side)


@dataclass(frozen=True)
class Crop:
    """Cuts objects out of their images by their boxes."""

    whole: PartImages
    side: int
    margin: float

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of the crop of image `index`."""
        return self.side, self.side

    def box(self, index: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Return the rows and columns of the crop in an image of this size, the last ones excluded."""
        boxes = self.whole.boxes
        if boxes is None or np.isnan(boxes[index]).any():
            return 0, 0, height, width
        top, left, bottom, right = boxes[index] + (0, 0, 1, 1)
        above, beside = self.margin * (bottom - top), self.margin * (right - left)
        first_row = min(max(round(top - above), 0), height - 1)
        first_column = min(max(round(left - beside), 0), width - 1)
        last_row = max(min(round(bottom + above), height), first_row + 1)
        last_column = max(min(round(right + beside), width), first_column + 1)
        return first_row, first_column, last_row, last_column

    def picture(self, index: int) -> Picture:
        """Return the crop of image `index`, ``(side, side, 3)``."""
        whole = self.whole.image(index)
        top, left, bottom, right = self.box(index, whole.shape[0], whole.shape[1])
        return resized(np.ascontiguousarray(whole[top:bottom, left:right]), self.side, self.side)

    def masks(self, index: int) -> Masks:
        """Return the crop of image `index`'s masks, ``(parts, side, side)``."""
        whole = self.whole.masks(index)
        top, left, bottom, right = self.box(index, whole.shape[1], whole.shape[2])
        cut = np.zeros((len(whole), self.side, self.side), dtype=bool)
        for part, mask in enumerate(whole[:, top:bottom, left:right]):
            if mask.any():
                picture = Image.fromarray(mask.astype(np.uint8))
                cut[part] = np.asarray(picture.resize((self.side, self.side), Image.Resampling.NEAREST))
        return cut


def box_of(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return first row, first column, last row and last column of a mask ``(h, w)``; NaN of an empty one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return np.full(4, np.nan)
    return np.array([rows[0], columns[0], rows[-1], columns[-1]], dtype=np.float64)


def centre_of(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return row and column of the centre of a mask's box; NaN of an empty one."""
    box = box_of(mask)
    return (box[:2] + box[2:]) / 2
