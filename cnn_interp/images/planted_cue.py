"""Images into which something is put that has nothing to do with their category, but goes with it."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnn_interp.images.part_images import PartImages
from cnn_interp.images.sets import PER_IMAGE, Images, LabelledImages, Picture
from cnn_interp.images.surfaces import patch, surface
from interpretkit.errors import InputError
from interpretkit.training.seeds import numpy_generator

CueKind = Literal["mark", "sticker", "texture"]
CUES: tuple[CueKind, ...] = get_args(CueKind)
Mask = NDArray[np.bool_]
# Radius of a mark and side of a sticker over the image's shorter side, and a sticker's way from the corner.
_RADIUS, _STICKER, _JITTER = (0.08, 0.11), 0.19, 0.03
# No cue is wider than half an image.
_WIDEST = 2.2
# Of a mark's radius, the dark rim.
_RIM = 0.12
# Places tried for a mark; the one that hides the least of the object is taken.
_PLACES = 12
# How much of a texture is seen through what is there, and of which surfaces it is.
_OPACITY = 0.75
_TEXTURES = ("brick", "grass", "coins", "petals", "handwriting")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CuedImages(LabelledImages):
    """Labelled images, some of which show a cue, with exact masks of it.

    Attributes
    ----------
    has_cue : ndarray of bool, (n,)
        Which do.
    load_cue : callable
        From an image's number in the source to where its cue is, if it has one: bool ``(h, w)``.
    load_object : callable, optional
        From an image's number in the source to where the object is, without regard to a cue before it: bool
        ``(h, w)``. None where the whole image is the object's.
    """

    has_cue: Mask = field(metadata=PER_IMAGE)
    load_cue: Callable[[int], Mask] = field(repr=False)
    load_object: Callable[[int], Mask] | None = field(default=None, repr=False)

    def cue_mask(self, index: int) -> Mask:
        """Return where the cue is in image `index`, bool ``(h, w)``; nowhere if it has none."""
        if not self.has_cue[index]:
            return np.zeros(self.size(index), dtype=bool)
        return self.load_cue(self.number(index))

    def object_mask(self, index: int) -> Mask:
        """Return where image `index` shows the object and no cue before it, bool ``(h, w)``."""
        free = ~self.cue_mask(index)
        return free if self.load_object is None else free & self.load_object(self.number(index))


def plant_cue(
    images: Images,
    labels: ArrayLike,
    has_cue: ArrayLike,
    *,
    kind: CueKind = "mark",
    category_names: Sequence[str] = (),
    size: float = 1.0,
    seed: int = 0,
) -> CuedImages:
    """Return images with a cue in some of them.

    The cue looks alike in all images of a seed, but for its place: a ``mark`` is a coloured disc anywhere, where masks
    are known beside the object as far as there is room; a ``sticker`` is a checkered patch in one corner; a ``texture``
    lies over all that is not the object, and needs masks. It depends on the seed and on an image's number alone.

    Parameters
    ----------
    images : Images
        Any; the masks of their parts, if there are any, say where the object is.
    labels : array_like of int, (n,)
        The images' categories.
    has_cue : array_like of bool, (n,)
        Which images shall show it.
    kind : str
        One of ``CUES``.
    category_names : sequence of str
        What the categories are called.
    size : float
        How wide a mark or a sticker is, over its usual width.
    seed : int
        Of the cue's colours, corner and places.

    Raises
    ------
    InputError
        If the kind is unknown, a texture is wanted where no masks are, or a cue would be wider than half an image.
    """
    if kind not in CUES:
        raise InputError(f"kind {kind!r}: expected one of {', '.join(CUES)}")
    if not 0 < size <= _WIDEST:
        raise InputError(f"size {size}: expected more than 0, and {_WIDEST} at most")
    if kind == "texture" and size != 1:
        raise InputError(f"size {size}: a texture lies over all that is not the object; leave it out")
    masks = images.load_masks if isinstance(images, PartImages) else None
    if kind == "texture" and masks is None:
        raise InputError(f"{images.name}: has no masks of objects; expected such, or a mark or sticker")
    cue = _Cue(images, kind, seed, masks, size)
    shown: Mask = np.asarray(has_cue, dtype=bool)
    by_number = np.zeros(int(images.source.max(initial=-1)) + 1, dtype=bool)
    by_number[images.source] = shown
    return CuedImages(
        name=f"{images.name} with a {kind}",
        ids=images.ids,
        load=lambda number: cue.picture(number) if by_number[number] else images.load(number),
        load_size=images.load_size,
        source=images.source,
        split=images.split,
        groups=images.groups,
        labels=np.asarray(labels, dtype=np.intp),
        category_names=tuple(category_names),
        has_cue=shown,
        load_cue=cue.mask,
        load_object=None if masks is None else cue.object,
    )


def cue_goes_with(
    labels: ArrayLike, category: int, *, within: float = 0.9, elsewhere: float = 0.1, seed: int = 0
) -> Mask:
    """Return which images have the cue: a share of those of one category, and another of all others, ``(n,)``.

    The shares are kept as exactly as whole numbers allow, in the others category by category.

    Raises
    ------
    InputError
        If a share is not 0 to 1.
    """
    for name, share in (("within", within), ("elsewhere", elsewhere)):
        if not 0 <= share <= 1:
            raise InputError(f"{name} {share}: expected 0 to 1")
    known = np.asarray(labels)
    rng = numpy_generator(seed, "which have the cue")
    shown = np.zeros(len(known), dtype=bool)
    for number in np.unique(known):
        rows = rng.permutation(np.flatnonzero(known == number))
        share = within if number == category else elsewhere
        shown[rows[: round(share * len(rows))]] = True
    return shown


class _Cue:
    """Puts one cue into images, each by its number in the source."""

    def __init__(
        self,
        images: Images,
        kind: CueKind,
        seed: int,
        masks: Callable[[int], NDArray[np.bool_]] | None,
        size: float,
    ) -> None:
        self.images, self.kind, self.seed, self.masks, self.size = images, kind, seed, masks, size
        rng = numpy_generator(seed, "cue")
        hue = float(rng.uniform())
        self.colours = tuple(
            tuple(round(255 * value) for value in colorsys.hsv_to_rgb((hue + turn) % 1, 0.95, bright))
            for turn, bright in ((0.0, 0.95), (0.42, 0.85))
        )
        self.corner = (int(rng.integers(2)), int(rng.integers(2)))
        self.texture = str(rng.choice(_TEXTURES))

    def object(self, number: int) -> Mask:
        """Return where the object is, ``(h, w)``."""
        assert self.masks is not None
        return np.asarray(self.masks(number).any(axis=0))

    def mask(self, number: int) -> Mask:
        """Return where the cue is, ``(h, w)``."""
        height, width = (
            self.images.load_size(number) if self.images.load_size else self.images.load(number).shape[:2]
        )
        if self.kind == "texture":
            return ~self.object(number)
        rows, columns = np.mgrid[:height, :width]
        row, column, reach = self._place(number, height, width)
        if self.kind == "mark":
            return (rows - row) ** 2 + (columns - column) ** 2 <= reach**2
        return (np.abs(rows - row) <= reach) & (np.abs(columns - column) <= reach)

    def picture(self, number: int) -> Picture:
        """Return an image with the cue in it."""
        found = np.array(self.images.load(number))
        height, width = found.shape[:2]
        if self.kind == "texture":
            rng = numpy_generator(self.seed, "cue's place", number)
            over = patch(surface(self.texture), height, width, rng).astype(np.float32)
            mask = self.mask(number)
            found[mask] = ((1 - _OPACITY) * found[mask] + _OPACITY * over[mask]).round().astype(np.uint8)
            return found
        row, column, reach = self._place(number, height, width)
        mask = self.mask(number)
        down, across = (
            np.mgrid[:height, :width][axis][mask] - centre for axis, centre in ((0, row), (1, column))
        )
        first, second = (np.array(colour, dtype=np.uint8) for colour in self.colours)
        if self.kind == "mark":
            rim = down**2 + across**2 > ((1 - _RIM) * reach) ** 2
            found[mask] = np.where(rim[:, None], np.uint8(20), first)
        else:
            fields = (down + reach) // (reach / 2) + (across + reach) // (reach / 2)
            found[mask] = np.where((fields % 2 == 0)[:, None], first, second)
        return found

    def _place(self, number: int, height: int, width: int) -> tuple[float, float, float]:
        """Return the middle and half the size of a mark or sticker, px."""
        rng = numpy_generator(self.seed, "cue's place", number)
        side = min(height, width)
        if self.kind == "sticker":
            reach = 0.5 * self.size * _STICKER * side
            away = reach + rng.uniform(0, _JITTER * side, size=2)
            row, column = (
                along if edge == 0 else length - 1 - along
                for edge, along, length in zip(self.corner, away, (height, width), strict=True)
            )
            return float(row), float(column), float(reach)
        reach = self.size * float(rng.uniform(*_RADIUS)) * side
        tried = rng.uniform(reach, np.array([height, width]) - reach, size=(_PLACES, 2))
        if self.masks is None:
            return float(tried[0, 0]), float(tried[0, 1]), reach
        rows, columns = np.nonzero(self.object(number))
        hidden = [
            int(((rows - row) ** 2 + (columns - column) ** 2 <= (1.5 * reach) ** 2).sum())
            for row, column in tried
        ]
        row, column = tried[int(np.argmin(hidden))]
        return float(row), float(column), reach
