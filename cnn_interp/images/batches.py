"""Sets of images as batches for a network, with their labels and landmarks in the same frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cnn_interp.images.concept_images import ConceptImages
from cnn_interp.images.part_images import PartImages
from cnn_interp.images.sets import Images, resized
from cnn_interp.networks.network import Network

Given = TypeVar("Given", covariant=True)
Set = TypeVar("Set", bound=Images, covariant=True)
BATCH = 16
# Labels at half the resolution of the usual input, as Broden has them, cost a quarter.
LABEL_SIDE = 112
# So many images and labels are kept at most, about 0.5 GB.
_HELD = 800


class Batches(Protocol[Given]):
    """What a set of images gives in batches, again and again."""

    @property
    def images(self) -> Images:
        """The set."""
        ...

    def __iter__(self) -> Iterator[Given]:
        """Give one batch after another."""
        ...


@dataclass(frozen=True)
class _Batched(Generic[Set]):
    """A set of images that a network is given in portions, again and again.

    Attributes
    ----------
    network : Network
        Which gives the size and the normalisation.
    images : Images
        The set.
    size : int
        How many images a batch holds.
    """

    network: Network
    images: Set
    size: int = BATCH

    def __len__(self) -> int:
        return -(-len(self.images) // self.size)

    def _portions(self) -> Iterator[range]:
        for start in range(0, len(self.images), self.size):
            yield range(start, min(start + self.size, len(self.images)))


class InputBatches(_Batched[Images]):
    """The images of a set as a network takes them, whole: resized to a square without keeping their proportions."""

    def __iter__(self) -> Iterator[Tensor]:
        """Give inputs ``(n, 3, side, side)``."""
        return (network_inputs(self.network, self.images, rows) for rows in self._portions())


@dataclass(frozen=True)
class ConceptBatches(_Batched[ConceptImages]):
    """The images of a set with labelled concepts, as :func:`cnn_interp.metrics.dissection.dissect` takes them.

    Attributes
    ----------
    side : int
        Height and width that the maps of labels are brought to, px.
    """

    side: int = LABEL_SIDE

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Give inputs ``(n, 3, s, s)`` and concepts' numbers ``(n, k, side, side)``."""
        for rows in self._portions():
            pictures, maps = [], []
            # Image and labels one after the other, since both may come out of one composition.
            for row in rows:
                found = self.images.label_maps(row, (self.side, self.side))
                maps.append(np.concatenate(list(found.values())))
                pictures.append(resized_to(self.images.image(row), self.network.size))
            labels = np.zeros((len(rows), max(1, *map(len, maps)), self.side, self.side), np.int32)
            for place, stacked in enumerate(maps):
                labels[place, : len(stacked)] = stacked
            yield _inputs(self.network, pictures), torch.from_numpy(labels)


@dataclass(frozen=True)
class PartMaskBatches(_Batched[PartImages]):
    """The images of a set with masks of parts, as :func:`part_interpretability` takes them.

    Attributes
    ----------
    side : int
        Height and width that the masks are brought to.
    """

    side: int = LABEL_SIDE

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Give inputs ``(n, 3, s, s)`` and masks bool ``(n, parts, side, side)``."""
        for rows in self._portions():
            pictures, masks = [], []
            for row in rows:
                masks.append(_small(self.images.masks(row), self.side))
                pictures.append(resized_to(self.images.image(row), self.network.size))
            yield _inputs(self.network, pictures), torch.from_numpy(np.stack(masks))


def held_if_few(batches: Batches[Given]) -> Batches[Given] | list[Given]:
    """Return batches as a list if they take little memory, for images may be slow to load or to compose.

    They serve other networks as well that take images of the same size and normalisation.
    """
    return list(batches) if len(batches.images) <= _HELD else batches


def part_batches(
    network: Network, images: PartImages
) -> tuple[Iterable[Tensor], Iterable[tuple[Tensor, Tensor]]]:
    """Return inputs alone, and with masks of parts; a small set is loaded once for both and kept.

    Returns
    -------
    inputs : iterable of Tensor
        As :class:`InputBatches` gives them.
    with_masks : iterable of (inputs, masks)
        As :class:`PartMaskBatches` gives them; empty if the set has no masks.
    """
    if not images.has_masks:
        return held_if_few(InputBatches(network, images)), []
    with_masks = held_if_few(PartMaskBatches(network, images))
    if isinstance(with_masks, list):
        return [inputs for inputs, _ in with_masks], with_masks
    return InputBatches(network, images), with_masks


def network_inputs(network: Network, images: Images, rows: Iterable[int]) -> Tensor:
    """Return images at `rows` as inputs ``(n, 3, side, side)``, whole, without keeping their proportions."""
    return _inputs(network, [resized_to(images.image(row), network.size) for row in rows])


def _inputs(network: Network, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    return network.normalise(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255)


def resized_to(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return a picture as a square; as it is if it has that size."""
    return picture if picture.shape[:2] == (side, side) else resized(picture, side, side)


def landmarks_in_inputs(images: PartImages, side: int) -> NDArray[np.float64]:
    """Return landmarks ``(n, parts, 2)`` in pixels of inputs that the images were resized to."""
    sizes = np.array([images.size(index) for index in range(len(images))], dtype=np.float64)
    # Edges of pixels, not centres, are what scales.
    return (images.landmarks + 0.5) * (side / sizes)[:, None] - 0.5


def _small(masks: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    small = np.zeros((len(masks), side, side), dtype=bool)
    for part, mask in enumerate(masks):
        if mask.any():
            picture = Image.fromarray(mask.astype(np.uint8))
            small[part] = np.asarray(picture.resize((side, side), Image.Resampling.NEAREST)).astype(bool)
    return small
