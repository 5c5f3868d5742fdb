"""Where the units of a layer are active: maps gone through in batches, thresholds, and masks in an image's frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cnn_interp.units.positions import UnitGrid, unit_grids
from cnn_interp.units.streaming import CAPACITY, LargestValues, UpperQuantiles
from interpretkit.errors import InputError
from interpretkit.networks.fast_passes import run_fast
from interpretkit.networks.instrumentation import instrumented
from interpretkit.networks.recording import recording
from interpretkit.runs.progress import track

Beside = TypeVar("Beside")
# At which share of its positions, over all images, a unit counts as active.
SHARE = 0.005
# Masks are made for so many pixels at once: 64 MB in single precision.
_PIXELS_AT_ONCE = 1 << 24
# So much of what a pass gives is kept for the next one at most.
KEPT_BYTES = 1 << 29
# A CPU takes half the time for an image if the maps of all that run at once stay in its cache.
_IMAGES_AT_ONCE_ON_CPU = 4


@dataclass(frozen=True, eq=False)
class LayerUnits:
    """What one pass over the data tells of the units of a layer.

    Attributes
    ----------
    thresholds : Tensor, (units,)
        Above which they count as active.
    threshold_error : Tensor, (units,)
        How far the share of positions above may be from the one asked for, at most.
    strongest : LargestValues
        The units' largest values, one for each image.
    grid : UnitGrid
        Where they look.
    n_images : int
        How many images there were.
    """

    thresholds: Tensor
    threshold_error: Tensor
    strongest: LargestValues
    grid: UnitGrid
    n_images: int

    def image_masks(self, maps: Tensor, size: tuple[int, int]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Give where units are active in each image; see :func:`image_masks`."""
        rows, columns = (matrix.to(maps.device) for matrix in self.grid.interpolation(size))
        return image_masks(maps, self.thresholds, rows, columns)


class MapPasses(Generic[Beside]):
    """The maps of layers for batches of images, to be gone through twice.

    What the first pass gives is kept for the second if it takes little memory; else the network runs again.

    Parameters
    ----------
    module : Module
        Any network; it is left as it was.
    layers : sequence of str
        Dotted names of layers that give maps.
    batches : iterable of (inputs, anything)
        Can be gone through again; inputs ``(n, channels, height, width)``, all of one size.
    quiet : bool
        Whether to show no progress bar.
    kept_bytes : int
        How much memory maps, and the tensors that come with the inputs, may take in order to be kept.

    Raises
    ------
    InputError
        If the batches can be gone through only once.
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[str],
        batches: Iterable[tuple[Tensor, Beside]],
        *,
        quiet: bool = True,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        if iter(batches) is batches:
            raise InputError("batches: can be gone through only once; expected a list, a loader or the like")
        self.module = module
        self.layers = layers
        self.batches = batches
        self.quiet = quiet
        self.kept_bytes = kept_bytes
        self._kept: list[tuple[Beside, dict[str, Tensor]]] | None = None

    def grids(self, inputs: Tensor) -> dict[str, UnitGrid]:
        """Return where the positions of the maps are, for inputs of this size."""
        return unit_grids(self.module, self.layers, inputs)

    def first(self, description: str) -> Iterator[tuple[Tensor, Beside, dict[str, Tensor]]]:
        """Give what :func:`layer_maps` gives."""
        kept: list[tuple[Beside, dict[str, Tensor]]] | None = []
        self._kept, taken = None, 0
        for inputs, beside, maps in layer_maps(
            self.module, self.layers, self.batches, description, quiet=self.quiet
        ):
            if kept is not None:
                taken += sum(
                    tensor.nbytes for tensor in (beside, *maps.values()) if isinstance(tensor, Tensor)
                )
                if taken <= self.kept_bytes:
                    kept.append((beside, maps))
                else:
                    kept = None
            yield inputs, beside, maps
        self._kept = kept

    def again(self, description: str) -> Iterator[tuple[Beside, dict[str, Tensor]]]:
        """Give the same once more but for the inputs."""
        if self._kept is not None:
            yield from track(self._kept, description, quiet=self.quiet)
            return
        for _, beside, maps in layer_maps(
            self.module, self.layers, self.batches, description, quiet=self.quiet
        ):
            yield beside, maps


class StoredMaps(MapPasses[Beside]):
    """Maps that are at hand, such as concepts' or nodes', to be gone through as those of a network's layers are.

    Parameters
    ----------
    maps : mapping of str to callable
        From what the maps are called, to a function that returns those of some images, given by their numbers, as a
        tensor ``(m, units, h, w)``.
    grids : mapping of str to UnitGrid
        Where their positions are.
    batches : iterable of (numbers, anything)
        The images' numbers, ``(m,)`` int, and what comes with them; can be gone through again.
    quiet : bool
        Whether to show no progress bar.

    Raises
    ------
    InputError
        If the batches can be gone through only once.
    """

    def __init__(
        self,
        maps: Mapping[str, Callable[[NDArray[np.int64]], Tensor]],
        grids: Mapping[str, UnitGrid],
        batches: Iterable[tuple[NDArray[np.int64], Beside]],
        *,
        quiet: bool = True,
    ) -> None:
        super().__init__(nn.Identity(), tuple(maps), (), quiet=quiet)
        if iter(batches) is batches:
            raise InputError("batches: can be gone through only once; expected a list, a loader or the like")
        self._maps, self._grids, self._numbered = maps, grids, batches

    def grids(self, inputs: Tensor) -> dict[str, UnitGrid]:
        """Return where the positions of the maps are."""
        return dict(self._grids)

    def first(self, description: str) -> Iterator[tuple[Tensor, Beside, dict[str, Tensor]]]:
        """Give inputs without channels, what comes with them, and their maps."""
        image = next(iter(self._grids.values())).image
        for numbers, beside in track(self._numbered, description, quiet=self.quiet):
            maps = {name: make(numbers).float() for name, make in self._maps.items()}
            yield torch.empty(len(numbers), 0, *image), beside, maps

    def again(self, description: str) -> Iterator[tuple[Beside, dict[str, Tensor]]]:
        """Give the same once more but for the inputs."""
        for _, beside, maps in self.first(description):
            yield beside, maps


def measure_units(
    passes: MapPasses[Beside], *, share: float = SHARE, top: int = 10, capacity: int = CAPACITY
) -> dict[str, LayerUnits]:
    """Go through the data for the first time, for the thresholds of units and for the images that they like most.

    Parameters
    ----------
    passes : MapPasses
        The maps of the layers.
    share : float
        At which the thresholds are exceeded.
    top : int
        How many of each unit's strongest images to keep.
    capacity : int
        Capacity of the sketch of the quantiles, see :class:`UpperQuantiles`.

    Returns
    -------
    dict
        From layer to :class:`LayerUnits`.

    Raises
    ------
    InputError
        If there is no such layer, it gives no map or values that are not finite, there are no data, or the images
        differ in size.
    """
    if not 0 < share < 1:
        raise InputError(f"share {share}: expected more than 0 and less than 1")
    sketches: dict[str, UpperQuantiles] = {}
    strongest: dict[str, LargestValues] = {}
    grids: dict[str, UnitGrid] = {}
    n_images = 0
    for inputs, _, maps in passes.first("Finding thresholds"):
        grids = grids or passes.grids(inputs)
        expect_size(inputs, grids)
        items = torch.arange(n_images, n_images + len(inputs))
        n_images += len(inputs)
        for layer, values in maps.items():
            by_unit = values.transpose(0, 1).flatten(2)
            if layer not in sketches:
                sketches[layer] = UpperQuantiles(len(by_unit), capacity=capacity)
                strongest[layer] = LargestValues(len(by_unit), top)
            sketches[layer].add(by_unit.flatten(1))
            strongest[layer].add(by_unit.amax(dim=2), items)
    if n_images == 0:
        raise InputError("batches: there are none; expected at least one image")
    measured = {}
    for layer, sketch in sketches.items():
        values = sketch.threshold(share)
        error = sketch.rank_error(values)
        measured[layer] = LayerUnits(values, error, strongest[layer], grids[layer], n_images)
    return measured


def expect_size(inputs: Tensor, grids: Mapping[str, UnitGrid]) -> None:
    """Raise InputError unless inputs have the height and width for which the grids hold."""
    size, expected = tuple(inputs.shape[-2:]), next(iter(grids.values())).image
    if size != expected:
        raise InputError(
            f"images of {size[0]} × {size[1]} px after {expected[0]} × {expected[1]}: expected one size"
        )


def layer_maps(
    module: nn.Module,
    layers: Sequence[str],
    batches: Iterable[tuple[Tensor, Beside]],
    description: str,
    *,
    quiet: bool,
) -> Iterator[tuple[Tensor, Beside, dict[str, Tensor]]]:
    """Give the inputs of each batch, what comes with them, and the maps of layers ``(n, units, h, w)``.

    Raises
    ------
    InputError
        If a layer gives no map, or values that are not finite.
    """

    def recorded(some: Tensor) -> dict[str, Tensor]:
        with recording(module, layers) as outputs:
            module(some)
        return outputs

    for inputs, beside in track(batches, description, quiet=quiet):
        at_once = _IMAGES_AT_ONCE_ON_CPU if inputs.device.type == "cpu" else max(len(inputs), 1)
        portions: dict[str, list[Tensor]] = {layer: [] for layer in layers}
        with instrumented(module, 0), torch.no_grad():
            for some in inputs.split(at_once):
                outputs = run_fast(recorded, some, module)
                for layer in layers:
                    if layer not in outputs or outputs[layer].ndim != 4:
                        raise InputError(
                            f"layer {layer!r}: gives no map; expected (n, channels, height, width)"
                        )
                    portions[layer].append(outputs[layer].float().contiguous())
        maps = {layer: torch.cat(found) for layer, found in portions.items()}
        for layer, found in maps.items():
            if not bool(found.isfinite().all()):
                raise InputError(f"layer {layer!r}: gives values that are not finite")
        yield inputs, beside, maps


def image_masks(
    maps: Tensor, thresholds: Tensor, rows: Tensor, columns: Tensor
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Give for every image the units that are active in it, and where.

    Parameters
    ----------
    maps : Tensor, (n, units, h, w)
        Maps of a layer.
    thresholds : Tensor, (units,)
        Above which units are active.
    rows, columns : Tensor, (height, h) and (width, w)
        As :meth:`UnitGrid.interpolation` returns them.

    Yields
    ------
    image : int
        0 … n − 1, each once, in order.
    units : Tensor of int64, (m,)
        Those that are active somewhere, in ascending order.
    masks : Tensor of bool, (m, height, width)
        Where they are.
    """
    # Between positions a map is nowhere larger than at them, so that most pairs need not be enlarged.
    active = maps.amax(dim=(2, 3)) > thresholds
    height, width = len(rows), len(columns)
    at_once = max(1, _PIXELS_AT_ONCE // (height * width))
    for image in range(len(maps)):
        units = active[image].nonzero()[:, 0]
        masks = torch.empty(len(units), height, width, dtype=torch.bool, device=maps.device)
        for start in range(0, len(units), at_once):
            some = units[start : start + at_once]
            enlarged = rows @ maps[image, some] @ columns.T
            masks[start : start + at_once] = enlarged > thresholds[some][:, None, None]
        yield image, units, masks
