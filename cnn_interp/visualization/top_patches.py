"""The pieces of images that a unit responds to most, found in one pass over any number of images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnn_interp.images.photographs import Photographs
from cnn_interp.networks.network import Network
from cnn_interp.units.positions import strongest_places
from cnn_interp.units.streaming import LargestValues
from cnn_interp.visualization.activation import check_channels
from interpretkit.errors import InputError
from interpretkit.networks.fast_passes import run_fast
from interpretkit.networks.instrumentation import instrumented
from interpretkit.networks.receptive_fields import ReceptiveField, receptive_field
from interpretkit.networks.truncated import UpTo
from interpretkit.runs.dependencies import dependencies
from interpretkit.runs.files import atomic_path, dump_json
from interpretkit.runs.folder import load_arrays
from interpretkit.runs.progress import progress

# A search that is to survive being killed is written to its file after so many forward passes.
_SAVE_EVERY = 16


@dataclass(frozen=True)
class UnitPatches:
    """The strongest patches of some units.

    Attributes
    ----------
    layer : str
        The layer.
    units : ndarray of int, (u,)
        The channels.
    values : ndarray of float32, (u, k)
        The activations, falling.
    images : ndarray of int, (u, k)
        Which photograph.
    positions : ndarray of int, (u, k, 2)
        Row and column of the strongest place on the layer's map.
    boxes : ndarray of int, (u, k, 4)
        The receptive field of that place within the network's input: top, left, bottom, right, px.
    field : ReceptiveField
        Receptive field of the layer's units.
    n_images : int
        How many photographs were searched.
    """

    layer: str
    units: NDArray[np.int64]
    values: NDArray[np.float32]
    images: NDArray[np.int64]
    positions: NDArray[np.int64]
    boxes: NDArray[np.int64]
    field: ReceptiveField
    n_images: int

    @property
    def silent(self) -> NDArray[np.bool_]:
        """Where even the strongest activation is not above zero, so that there is nothing to explain, ``(u, k)``."""
        return self.values <= 0


def top_patches(
    network: Network,
    layer: str,
    photographs: Photographs,
    *,
    units: Sequence[int] | None = None,
    k: int = 9,
    images_per_forward: int = 8,
    state: Path | None = None,
    seed: int = 0,
    quiet: bool = True,
) -> UnitPatches:
    """Search photographs for the patches to which units of a layer respond most.

    Parameters
    ----------
    network : Network
        Left as it was found.
    layer : str
        The dotted name of a layer that gives maps.
    photographs : Photographs
        Streamed; memory does not grow with their number.
    units : sequence of int, optional
        Channels; by default the eight whose strongest activations stand out most from their mean over photographs.
    k : int
        How many patches of each; fewer if there are fewer photographs.
    images_per_forward : int
        How many go through the network at once.
    state : path, optional
        A file that keeps the state of the search, so that a killed one goes on where it was. It belongs to the
        photographs, in their order, the layer, the network with its weights and its code, and all versions.
    seed : int
        For networks that draw random numbers even in evaluation mode.
    quiet : bool
        Show no progress.

    Raises
    ------
    InputError
        If there is no such layer or unit, the layer gives no maps or NaN, or `state` belongs to another search.
    """
    if not len(photographs):
        raise InputError("no photographs to search; expected at least 1")
    k = min(k, len(photographs))
    until = UpTo(network.module, layer)
    field = receptive_field(network.module, layer, photographs.inputs(network, [0]))
    label = "" if state is None else f"{layer} top {k} of {len(photographs)} {_digest(network, photographs)}"
    found = _read_state(state, label) if state is not None and state.is_file() else None
    with instrumented(network.module, seed), torch.no_grad():
        if found is None:
            maps = until(photographs.inputs(network, [0]))
            check_channels(maps, torch.tensor([] if units is None else list(units)), layer)
            found = LargestValues(maps.shape[1], k)
        with progress("Searching photographs", len(photographs), quiet=quiet) as bar:
            bar.advance(found.count)
            batches = photographs.batches(network, images_per_forward, found.count)
            for number, (rows, inputs) in enumerate(batches, 1):
                maps = run_fast(until, inputs, network.module)
                if bool(maps.isnan().any()):
                    raise InputError(f"layer {layer!r}: gives NaN for some image; expected numbers")
                add_maps(found, maps)
                bar.advance(len(rows))
                if state is not None and number % _SAVE_EVERY == 0:
                    _write_state(state, found, label)
    if state is not None:
        _write_state(state, found, label)
    chosen = np.array(_standing_out(found) if units is None else list(units), dtype=np.int64)
    size = (network.size, network.size)
    values, images, places = (
        kept.cpu().numpy()[chosen] for kept in (found.values, found.items, found.places)
    )
    positions = np.stack(np.divmod(places, field.shape[1]), axis=-1)
    boxes = [[field.box(position, size) for position in unit] for unit in positions]
    return UnitPatches(
        layer=layer,
        units=chosen,
        values=values,
        images=images,
        positions=positions,
        boxes=np.array(boxes, dtype=np.int64),
        field=field,
        n_images=found.count,
    )


def patch_crops(
    network: Network, photographs: Photographs, found: UnitPatches
) -> list[list[NDArray[np.float32]]]:
    """Return the patches as images ``(h, w, 3)`` in 0 … 1, a list for each unit; each photograph is read once."""
    crops: dict[tuple[int, int], NDArray[np.float32]] = {}
    for image in np.unique(found.images):
        pixels = np.asarray(network.crop(photographs.load(int(image)).convert("RGB")), dtype=np.float32)
        pixels /= 255
        for unit, place in zip(*np.nonzero(found.images == image), strict=True):
            top, left, bottom, right = found.boxes[unit, place]
            crops[int(unit), int(place)] = pixels[top:bottom, left:right]
    units, k = found.images.shape
    return [[crops[unit, place] for place in range(k)] for unit in range(units)]


def add_maps(found: LargestValues, maps: Tensor) -> None:
    """Add the maps ``(n, channels, h, w)`` of the next ``n`` images; of each image its strongest place counts.

    Raises
    ------
    InputError
        If a value is NaN, or there are other channels.
    """
    values, places = strongest_places(maps.float())
    numbers = found.count + torch.arange(len(maps))
    found.add(values.T, numbers, places.T)


def _write_state(path: Path, found: LargestValues, label: str) -> None:
    """Write how far a search is, atomically; `label` says what it belongs to."""
    arrays: dict[str, Any] = {"label": np.array(label), **found.state()}
    with atomic_path(path) as hidden, hidden.open("wb") as file:
        np.savez(file, **arrays)


def _read_state(path: Path, label: str) -> LargestValues:
    """Return how far a search was.

    Raises
    ------
    InputError
        If the file is damaged, or belongs to something else than `label`.
    """
    arrays = load_arrays(path)
    if str(arrays.pop("label", "")) != label or set(arrays) != set(LargestValues(1, 1).state()):
        raise InputError(f"{path}: belongs to another search; remove it to begin anew")
    return LargestValues.from_state(arrays)


def _digest(network: Network, photographs: Photographs) -> str:
    """Return what tells a network with its weights, and the photographs shown to it, from all others."""
    told = [network.digest(), photographs.source, photographs.names, photographs.digest(), dependencies()]
    return hashlib.sha256(dump_json(told).encode()).hexdigest()


def _standing_out(found: LargestValues, count: int = 8) -> Iterable[int]:
    """Return the channels whose best activation is largest beside the last one kept."""
    best, last = found.values[:, 0].cpu().numpy(), found.values[:, -1].cpu().numpy()
    contrast = (best - last) / (np.abs(best) + np.abs(last) + 1e-6)
    return np.sort(np.argsort(-contrast, kind="stable")[:count]).tolist()
