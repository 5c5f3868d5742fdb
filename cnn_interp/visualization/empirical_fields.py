"""How much of its theoretical receptive field a unit uses: fields measured by occlusion (Zhou et al., ICLR 2015)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnn_interp.images.photographs import Photographs
from cnn_interp.networks.network import Network
from cnn_interp.visualization.top_patches import UnitPatches
from interpretkit.errors import InputError
from interpretkit.networks.instrumentation import instrumented
from interpretkit.networks.receptive_fields import ReceptiveField
from interpretkit.networks.truncated import UpTo
from interpretkit.runs.progress import progress
from interpretkit.training import torch_generator

# Pixels whose occlusion changes the activation by less than this share of the strongest change do not count. An
# occluder blurs the border of a field to both sides alike, so that half the change is where the border was.
THRESHOLD = 0.5


@dataclass(frozen=True)
class EmpiricalFields:
    """Receptive fields as units use them.

    Attributes
    ----------
    layer : str
        The layer.
    units : ndarray of int, (u,)
        The channels.
    maps : ndarray of float32, (u, 2h − 1, 2w − 1)
        How far occlusion of a pixel changes the activation, averaged over images with the unit's own place in the
        middle; NaN where no image has a pixel. Images in which the unit is silent do not count.
    sizes : ndarray of float, (u,)
        The side of the square with the area in which the change is above half of the largest, px. A field
        narrower than the occluder comes out about as wide as the occluder. NaN of a unit that is silent in all
        images.
    theoretical : ReceptiveField
        What the layer's units could see.
    discrepancy : ndarray of float32, (u, k, h, w)
        The change for each image, before averaging; of the images searched, in their own places.
    occluder, stride : int
        Side of the occluder and the distance between its places, px.
    """

    layer: str
    units: NDArray[np.int64]
    maps: NDArray[np.float32]
    sizes: NDArray[np.float64]
    theoretical: ReceptiveField
    discrepancy: NDArray[np.float32]
    occluder: int
    stride: int

    @property
    def ratios(self) -> NDArray[np.float64]:
        """The sizes ``(u,)`` over the side of the theoretical field."""
        return self.sizes / float(np.sqrt(np.prod(self.theoretical.size)))


def empirical_receptive_fields(
    network: Network,
    photographs: Photographs,
    patches: UnitPatches,
    *,
    occluder: int = 11,
    stride: int = 3,
    images_per_forward: int = 16,
    seed: int = 0,
    quiet: bool = True,
) -> EmpiricalFields:
    """Measure receptive fields by sliding an occluder of random pixels over the images that units respond to most.

    Places from which the occluder cannot touch the theoretical field are left out, for there nothing can change. If
    the unit's activation can be had from the field's surroundings alone, only these go through the network.

    Parameters
    ----------
    network : Network
        Left as it was found.
    photographs : Photographs
        Those that were searched.
    patches : UnitPatches
        What :func:`~cnn_interp.visualization.top_patches.top_patches` found in them.
    occluder : int
        Its side, px.
    stride : int
        The distance between its places, px.
    images_per_forward : int
        How many go through the network at once.
    seed : int
        Seed of the occluder's pixels.
    quiet : bool
        Show no progress.

    Raises
    ------
    InputError
        If the occluder or the stride is below 1 px, or the occluder larger than the images.
    """
    side = network.size
    if not 1 <= occluder <= side or stride < 1:
        raise InputError(
            f"occluder {occluder}, stride {stride}: expected an occluder of 1 to {side} px and a stride of at least 1"
        )
    until = UpTo(network.module, patches.layer)
    colours = torch.rand(3, occluder, occluder, generator=torch_generator(seed, "occluder"))
    shape = patches.images.shape
    discrepancy = np.zeros((*shape, side, side), dtype=np.float32)
    with (
        instrumented(network.module, seed),
        torch.no_grad(),
        progress("Occluding", int(np.prod(shape)), quiet=quiet) as bar,
    ):
        patch = network.normalise(colours[None])
        for unit, rank in np.ndindex(*shape):
            image = photographs.inputs(network, [int(patches.images[unit, rank])])
            row, column = (int(n) for n in patches.positions[unit, rank])
            channel = int(patches.units[unit])
            corners = _corners(patches.boxes[unit, rank], side, occluder, stride)
            seen = _surroundings(until, image, patches, unit, rank)
            if seen is not None:
                image, row, column = image[:, :, seen.rows, seen.columns], seen.row, seen.column
            offset = (0, 0) if seen is None else (seen.rows.start, seen.columns.start)
            clean = until(image)[0, channel, row, column]
            changes: list[Tensor] = []
            for some in corners.split(images_per_forward):
                occluded = image.repeat(len(some), 1, 1, 1)
                for one, corner in zip(occluded, some.tolist(), strict=True):
                    _cover(one, patch[0], corner[0] - offset[0], corner[1] - offset[1])
                changes.append((until(occluded)[:, channel, row, column] - clean).abs().float().cpu())
            discrepancy[unit, rank] = _spread(corners.numpy(), torch.cat(changes).numpy(), side, occluder)
            bar.advance()
    # What an occluder does to a silent unit tells where it would be woken, not what it responds to.
    maps = np.stack(
        [
            _centred(discrepancy[unit, loud], patches.field.centres(patches.positions[unit, loud]))
            for unit, loud in enumerate(~patches.silent)
        ]
    )
    return EmpiricalFields(
        layer=patches.layer,
        units=patches.units,
        maps=maps,
        sizes=np.array([field_size(map_) for map_ in maps]),
        theoretical=patches.field,
        discrepancy=discrepancy,
        occluder=occluder,
        stride=stride,
    )


@dataclass(frozen=True)
class _Surroundings:
    """A piece of an image that tells a unit's activation, and the unit's place on the map of the piece alone."""

    rows: slice
    columns: slice
    row: int
    column: int


def _surroundings(
    until: UpTo, image: Tensor, patches: UnitPatches, unit: int, rank: int
) -> _Surroundings | None:
    """Return the piece around a unit's field in an image ``(1, 3, h, w)``; None if nothing less than all will do."""
    strides = [int(stride) for stride in patches.field.stride]
    if any(whole < 1 or whole != stride for whole, stride in zip(strides, patches.field.stride, strict=True)):
        return None
    box, position = patches.boxes[unit, rank].tolist(), patches.positions[unit, rank].tolist()
    pieces, places = [], []
    for axis, stride in enumerate(strides):
        # A piece that starts at a multiple of the stride meets the layers' grids as the image does.
        start = max(box[axis] // stride - 1, 0) * stride
        pieces.append(slice(start, min(-(-box[axis + 2] // stride) * stride + stride, image.shape[2 + axis])))
        places.append(position[axis] - start // stride)
    found = _Surroundings(pieces[0], pieces[1], places[0], places[1])
    piece = image[:, :, found.rows, found.columns]
    if piece.shape == image.shape:
        return None
    # Were anything else seen, by global pooling for one, the activation would be NaN here.
    alone = torch.full_like(image, torch.nan)
    alone[:, :, found.rows, found.columns] = piece
    channel = patches.units[unit]
    expected = until(alone)[0, channel, position[0], position[1]]
    try:
        maps = until(piece)
    except (RuntimeError, ValueError, AssertionError):
        # The network takes images of its own size only.
        return None
    if maps.shape[2] <= found.row or maps.shape[3] <= found.column:
        return None
    same = torch.isclose(maps[0, channel, found.row, found.column], expected, rtol=1e-4, atol=1e-5)
    return found if bool(same) else None


def _cover(image: Tensor, patch: Tensor, top: int, left: int) -> None:
    """Lay a patch ``(3, s, s)`` upon an image ``(3, h, w)`` in place; it may stick out."""
    down, across = max(-top, 0), max(-left, 0)
    shown = patch[:, down : image.shape[1] - top, across : image.shape[2] - left]
    image[:, top + down : top + down + shown.shape[1], left + across : left + across + shown.shape[2]] = shown


def field_size(change: NDArray[np.floating], threshold: float = THRESHOLD) -> float:
    """Return the side of the square with the area in which a map ``(h, w)`` is above a share of its largest value.

    NaN of a map that is nothing but NaN.
    """
    if np.isnan(change).all():
        return float("nan")
    largest = float(np.nanmax(change))
    return float(np.sqrt(np.nansum(change > threshold * largest))) if largest > 0 else 0.0


def _corners(box: NDArray[np.int64], side: int, occluder: int, stride: int) -> Tensor:
    """Return the corners ``(m, 2)`` of the places from which the occluder touches a box."""
    top, left, bottom, right = box.tolist()
    places = range(0, side - occluder + 1, stride)
    rows = [y for y in places if y + occluder > top and y < bottom]
    columns = [x for x in places if x + occluder > left and x < right]
    return torch.cartesian_prod(torch.tensor(rows), torch.tensor(columns))


def _spread(
    corners: NDArray[np.int64], changes: NDArray[np.floating], side: int, occluder: int
) -> NDArray[np.float32]:
    """Return the map ``(side, side)`` of changes: each pixel's mean over the occluders that covered it.

    Where none did, because none could touch the field, the change is zero.
    """
    total = np.zeros((side + 1, side + 1))
    count = np.zeros((side + 1, side + 1))
    # Sums over rectangles by their corners.
    for sums, values in ((total, changes.astype(np.float64)), (count, np.ones(len(changes)))):
        for down, across, sign in ((0, 0, 1), (occluder, 0, -1), (0, occluder, -1), (occluder, occluder, 1)):
            np.add.at(sums, (corners[:, 0] + down, corners[:, 1] + across), sign * values)
        sums[:] = sums.cumsum(0).cumsum(1)
    covered = count[:side, :side] > 0.5
    mean = total[:side, :side] / np.where(covered, count[:side, :side], 1)
    # What rounding leaves of a difference of sums is no change.
    return np.where(covered & (mean > 1e-12), mean, 0).astype(np.float32)


def _centred(changes: NDArray[np.float32], centres: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the mean ``(2h − 1, 2w − 1)`` of maps ``(k, h, w)`` shifted so that their centres meet in the middle."""
    _, height, width = changes.shape
    total = np.zeros((2 * height - 1, 2 * width - 1))
    count = np.zeros_like(total)
    for change, centre in zip(changes, centres, strict=True):
        y, x = (int(np.clip(round(c), 0, n - 1)) for c, n in zip(centre, (height, width), strict=True))
        part = np.s_[height - 1 - y : 2 * height - 1 - y, width - 1 - x : 2 * width - 1 - x]
        total[part] += change
        count[part] += 1
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
