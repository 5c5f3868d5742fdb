"""Images with any number of objects in boxes, as detectors learn from and are measured on."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cnn_interp.images.part_images import PartImages
from cnn_interp.images.sets import PER_IMAGE, Images, Picture, resized
from interpretkit.errors import InputError
from interpretkit.training.seeds import numpy_generator

# Pictures kept in memory, since those that are drawn are asked for again.
_HELD = 64
# Where the lines between the cells of a mosaic may be, as shares of its side.
_LINES = (0.36, 0.64)


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of one image.

    Attributes
    ----------
    boxes : ndarray of float, (objects, 4)
        Edges: top, left, bottom, right, px from the image's upper left corner, so that the first pixel is 0 to 1.
    categories : ndarray of int, (objects,)
        Numbers of their categories, from 0.
    landmarks : ndarray of float, (objects, parts, 2)
        Row and column of their parts, px, where 0 is the centre of the first pixel; NaN where one is not annotated.
    """

    boxes: NDArray[np.float64]
    categories: NDArray[np.intp]
    landmarks: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.boxes)

    def in_boxes(self) -> NDArray[np.float64]:
        """Return the landmarks as shares of their object's box, 0 at its first edge and 1 at its last."""
        corner, extent = self.boxes[:, None, :2], self.boxes[:, None, 2:] - self.boxes[:, None, :2]
        return (self.landmarks + 0.5 - corner) / extent


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ObjectImages(Images):
    """Square images of one size with the objects in them.

    Attributes
    ----------
    objects : tuple of Objects, (n,)
        Those of each image; there may be none.
    category_names, part_names : tuple of str
        What categories and parts are called.
    side : int
        Height and width of the images, px.
    """

    objects: tuple[Objects, ...] = field(metadata=PER_IMAGE)
    category_names: tuple[str, ...]
    part_names: tuple[str, ...]
    side: int

    @property
    def n_objects(self) -> int:
        """How many objects there are in all images."""
        return sum(len(one) for one in self.objects)


def whole_images(images: PartImages, side: int) -> ObjectImages:
    """Return images of one object, resized to squares without keeping their proportions, with its box.

    Parameters
    ----------
    images : PartImages
        With boxes; negatives are images without an object.
    side : int
        Height and width, px.

    Raises
    ------
    InputError
        If the set has no boxes.
    """
    if images.boxes is None:
        raise InputError(f"{images.name}: has no boxes; expected a set with the boxes of its objects")
    objects = []
    for index in range(len(images)):
        shown = images.categories[index] >= 0 and not np.isnan(images.boxes[index]).any()
        scale = side / np.array(images.size(index), dtype=np.float64)
        # Both ends of a box of pixels lie within; its edges lie around them.
        box = (images.boxes[index] + (0, 0, 1, 1)) * np.tile(scale, 2)
        where = (images.landmarks[index] + 0.5) * scale - 0.5
        rows = slice(0, 1 if shown else 0)
        objects.append(
            Objects(box[None][rows], images.categories[index : index + 1][rows], where[None][rows])
        )

    def load(number: int) -> Picture:
        picture = images.image(number)
        return picture if picture.shape[:2] == (side, side) else resized(picture, side, side)

    return ObjectImages(
        name=images.name,
        ids=images.ids,
        load=load,
        load_size=lambda number: (side, side),
        groups=images.groups,
        objects=tuple(objects),
        category_names=images.category_names,
        part_names=images.part_names,
        side=side,
    )


def mosaics(
    images: PartImages,
    *,
    seed: int = 0,
    side: int = 320,
    empty: float = 0.35,
    copies: int = 1,
    mirrored: bool = False,
) -> ObjectImages:
    """Put crops of objects and images without any together by fours, each crop as often as all others.

    The four cells of a mosaic meet where two lines cross that are drawn at random, so that every cell has another size
    and shape, and a crop fills its cell: the cell is the object's box. Seams run around objects and around cells
    without one alike, so that they tell where a box may be, but not whether there is an object in it.

    Parameters
    ----------
    images : PartImages
        Crops of objects, and negatives. Each mosaic draws upon one part of a split: give training and test crops apart.
    seed : int
        Of what stands where.
    side : int
        Height and width of the mosaics, px.
    empty : float
        Share of cells without an object, 0 to 1; they show negatives, again and again where there are few.
    copies : int
        How often each crop is shown, each time in another cell.
    mirrored : bool
        Whether half of the cells, drawn at random, show their image mirrored, landmarks and all.

    Raises
    ------
    InputError
        If there are no crops, no negatives where cells shall be without an object, or a number is out of range.
    """
    if not 0 <= empty < 1:
        raise InputError(f"empty {empty}: expected a share from 0 to below 1")
    if copies < 1:
        raise InputError(f"copies {copies}: expected at least 1")
    shown, negatives = np.flatnonzero(images.categories >= 0), np.flatnonzero(images.categories < 0)
    if len(shown) == 0 or (empty > 0 and len(negatives) == 0):
        raise InputError(f"{images.name}: expected crops of objects, and images without one for empty cells")
    rng, sides = numpy_generator(seed, "mosaics-of-objects"), numpy_generator(seed, "mirrored-crops")
    order = [row for _ in range(copies) for row in rng.permutation(shown)]
    cells: list[tuple[_Cell, ...]] = []
    objects = []
    while order:
        y, x = (round(side * share) for share in rng.uniform(*_LINES, size=2))
        boxes = [(0, 0, y, x), (0, x, y, side), (y, 0, side, x), (y, x, side, side)]
        bare = rng.random(4) < empty
        turned = (sides.random(4) < 0.5) & mirrored
        filled = [
            _Cell(
                int(rng.choice(negatives)) if bare[at] or not order else int(order.pop()),
                box,
                bool(turned[at]),
            )
            for at, box in enumerate(boxes)
            if len(negatives) or order
        ]
        cells.append(tuple(filled))
        objects.append(_objects(images, [cell for cell in filled if images.categories[cell.row] >= 0]))

    def load(number: int) -> Picture:
        canvas = np.zeros((side, side, 3), dtype=np.uint8)
        for row, (top, left, bottom, right), turned in cells[number]:
            picture = resized(images.image(row), bottom - top, right - left)
            canvas[top:bottom, left:right] = picture[:, ::-1] if turned else picture
        return canvas

    return ObjectImages(
        name=f"mosaics of {images.name}",
        ids=tuple(f"mosaic {number}" for number in range(len(cells))),
        load=lru_cache(maxsize=_HELD)(load),
        load_size=lambda number: (side, side),
        objects=tuple(objects),
        category_names=images.category_names,
        part_names=images.part_names,
        side=side,
    )


class _Cell(NamedTuple):
    """A cell of a mosaic: the image's number, the cell's edges in pixels, and whether the image is mirrored."""

    row: int
    box: tuple[int, int, int, int]
    turned: bool


def _objects(images: PartImages, filled: list[_Cell]) -> Objects:
    rows = np.array([cell.row for cell in filled], dtype=np.intp)
    boxes = np.array([cell.box for cell in filled], dtype=np.float64).reshape(-1, 4)
    sizes = np.array([images.size(int(row)) for row in rows], dtype=np.float64).reshape(-1, 1, 2)
    shares = (images.landmarks[rows] + 0.5) / sizes
    turned = np.array([cell.turned for cell in filled], dtype=bool)
    shares[turned, :, 1] = 1 - shares[turned, :, 1]
    extent = (boxes[:, 2:] - boxes[:, :2])[:, None]
    return Objects(boxes, images.categories[rows], shares * extent + boxes[:, None, :2] - 0.5)


def split_by_groups(images: PartImages, shares: tuple[float, ...], *, seed: int = 0) -> list[PartImages]:
    """Return parts of a set of about these shares; relatives stay together, and every part has its share of categories.

    Parameters
    ----------
    images : PartImages
        The set; images without groups are their own.
    shares : tuple of float
        Of each part, in sum 1.
    seed : int
        Of what goes where.
    """
    groups = np.arange(len(images)) if images.groups is None else images.groups
    names, first, of_image = np.unique(groups, return_index=True, return_inverse=True)
    told = np.zeros(len(names), dtype=bool)
    told[of_image[images.annotated.any(axis=1)]] = True
    rng = numpy_generator(seed, "split-by-groups")
    ends = np.cumsum(shares)
    part_of = np.empty(len(names), dtype=np.intp)
    kinds = images.categories[first]
    for kind in np.unique(kinds):
        # Groups with landmarks and others are spread by themselves, since there may be few with any.
        for known in (True, False):
            mixed = rng.permutation(np.flatnonzero((kinds == kind) & (told == known)))
            middle = (np.arange(len(mixed)) + 0.5) / max(len(mixed), 1)
            part_of[mixed] = np.searchsorted(ends[:-1], middle)
    return [images.subset(part_of[of_image] == part) for part in range(len(shares))]
