"""What the layers of a frozen network give for a set of images, computed once and kept for all that asks later."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from cnn_interp.images.batches import InputBatches
from cnn_interp.images.sets import Images
from cnn_interp.networks.network import Network
from cnn_interp.units.active_regions import expect_size, layer_maps
from cnn_interp.units.positions import UnitGrid, unit_grids
from interpretkit.errors import InputError
from interpretkit.networks.receptive_fields import ReceptiveField
from interpretkit.runs.files import atomic_path, dump_json
from interpretkit.runs.progress import track

Precision = Literal["float32", "float16"]
# Changes when what is kept changes, so that nothing older is read by mistake.
_FORMAT = 1
# Statistics go through so many values at once, about 64 MB.
_VALUES_AT_ONCE = 1 << 24


@dataclass(frozen=True, eq=False)
class LayerMaps:
    """The maps of one layer for all images of a set.

    Attributes
    ----------
    layer : str
        The layer's dotted name.
    maps : ndarray of float, (n, units, h, w)
        Raw responses, as the layer gives them; may lie on the disk and be read as it is asked for.
    grid : UnitGrid
        Where the units look: centres and sizes of their receptive fields.
    """

    layer: str
    maps: NDArray[Any]
    grid: UnitGrid

    def __len__(self) -> int:
        return len(self.maps)

    @property
    def units(self) -> int:
        """How many units the layer has."""
        return int(self.maps.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a map."""
        return int(self.maps.shape[2]), int(self.maps.shape[3])

    @property
    def positions(self) -> NDArray[np.float64]:
        """Row and column of the centres of the receptive fields, row by row, px, ``(h·w, 2)``."""
        return self.grid.centres(np.arange(self.shape[0] * self.shape[1]))

    def tensor(self, rows: ArrayLike | slice = slice(None), device: torch.device | str = "cpu") -> Tensor:
        """Return raw maps of images as a tensor in single precision, ``(m, units, h, w)``."""
        chosen = self.maps[rows if isinstance(rows, slice) else np.asarray(rows)]
        return torch.from_numpy(np.array(chosen, dtype=np.float32)).to(device)

    def subset(self, rows: ArrayLike) -> LayerMaps:
        """Return the maps of some images; those on the disk are read."""
        return dataclasses.replace(self, maps=self.maps[np.asarray(rows)])

    def unit_scale(self, rows: ArrayLike | None = None) -> NDArray[np.float64]:
        """Return the standard deviation of each unit's responses over positions and images, ``(units,)``.

        Parameters
        ----------
        rows : array_like of int, optional
            Over which images, such as those without any object; all by default.

        Returns
        -------
        ndarray of float, (units,)
            1 for a unit that never changes there, so that one can divide by it.
        """
        chosen = np.arange(len(self.maps)) if rows is None else np.asarray(rows)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        if len(chosen) == 0:
            raise InputError("rows: there are none; expected at least one image to measure the responses on")
        total, squares = np.zeros(self.units), np.zeros(self.units)
        at_once = max(1, _VALUES_AT_ONCE // int(np.prod(self.maps.shape[1:])))
        for start in range(0, len(chosen), at_once):
            some = np.asarray(self.maps[chosen[start : start + at_once]], dtype=np.float64)
            total += some.sum(axis=(0, 2, 3))
            squares += (some**2).sum(axis=(0, 2, 3))
        count = len(chosen) * self.shape[0] * self.shape[1]
        variance = squares / count - (total / count) ** 2
        # What is left of a constant by rounding is no scale.
        still = variance <= 1e-10 * squares / count
        return np.where(still, 1.0, np.sqrt(np.maximum(variance, np.finfo(float).tiny)))

    def normalised(
        self,
        scale: ArrayLike,
        rows: ArrayLike | slice = slice(None),
        units: slice = slice(None),
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Return responses divided by a scale per unit, those below 0 as 0, ``(m, units, h, w)``.

        Parameters
        ----------
        scale : array_like of float, (units of the layer,)
            As :meth:`unit_scale` returns it.
        rows : array_like of int or slice
            Which images.
        units : slice
            Which units.
        device : torch.device or str
            Where the tensor shall be.
        """
        chosen = self.maps[rows if isinstance(rows, slice) else np.asarray(rows)][:, units]
        values = torch.from_numpy(np.array(chosen, dtype=np.float32)).to(device)
        divisor = torch.as_tensor(np.asarray(scale)[units], dtype=torch.float32, device=device)
        return values.clamp_min(0) / divisor[:, None, None]


@dataclass(frozen=True, eq=False)
class TrunkFeatures:
    """What some layers of a frozen network give for a set of images.

    Attributes
    ----------
    layers : mapping of str to LayerMaps
        In the order in which they were asked for.
    image : (int, int)
        Height and width of the inputs, px: the frame of all positions.
    key : str
        Hash of the network, its weights and the images.
    network : str
        Hash of the network and its weights alone; empty if nothing is known of it.
    """

    layers: Mapping[str, LayerMaps]
    image: tuple[int, int]
    key: str
    network: str = ""

    def __len__(self) -> int:
        return len(next(iter(self.layers.values())))

    def __getitem__(self, layer: str) -> LayerMaps:
        if layer not in self.layers:
            raise InputError(
                f"layer {layer!r}: its maps are not here; expected one of {', '.join(self.layers)}"
            )
        return self.layers[layer]

    def subset(self, rows: ArrayLike) -> TrunkFeatures:
        """Return the features of some images, in that order."""
        kept = {name: maps.subset(rows) for name, maps in self.layers.items()}
        digest = hashlib.sha256(f"{self.key} {np.asarray(rows).tolist()}".encode()).hexdigest()
        return dataclasses.replace(self, layers=kept, key=digest[:32])


def trunk_features(
    network: Network,
    images: Images,
    layers: Sequence[str],
    folder: Path | str | None = None,
    *,
    precision: Precision = "float32",
    quiet: bool = True,
) -> TrunkFeatures:
    """Return the maps of layers for all images, from a folder where they were kept, else from the network.

    Images are resized to the network's square without keeping their proportions, as for location instability. A file
    is kept for each layer, below a folder named by a hash of the network's weights, its code's structure and
    preprocessing, and of the images' pixels as the network takes them; so a changed image or weight never meets old
    maps. A further layer costs one more pass, for that layer alone. Files appear whole or not at all.

    Parameters
    ----------
    network : Network
        Stays as it is.
    images : Images
        Any set.
    layers : sequence of str
        Dotted names of layers that give maps ``(n, units, h, w)``.
    folder : path, optional
        Where to keep maps; made if it is missing. By default they are kept in memory alone.
    precision : str
        Of the maps that are kept; half precision takes half the space, at three digits.
    quiet : bool
        Whether to show no progress bar.

    Raises
    ------
    InputError
        If there are no images or layers, or a layer is unknown or gives no maps.
    """
    names = list(dict.fromkeys(layers))
    if not names:
        raise InputError("layers: there are none; expected at least one name")
    if len(images) == 0:
        raise InputError(f"{images.name}: has no images; expected at least one")
    if precision not in ("float32", "float16"):
        raise InputError(f"precision {precision!r}: expected float32 or float16")
    which = network_hash(network)[:16]
    key = f"{which}{images_hash(network, images, quiet=quiet)[:16]}"
    if folder is None:
        found = _in_memory(network, which, images, names, precision, quiet)
        return TrunkFeatures(found, (network.size, network.size), key, which)
    home = Path(folder) / key
    home.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names if not _is_kept(home, name, precision, len(images))]
    if missing:
        _compute(network, which, images, missing, home, precision, quiet)
    found = {name: _kept(home, name, precision) for name in names}
    return TrunkFeatures(found, (network.size, network.size), key, which)


def network_hash(network: Network) -> str:
    """Return a hash of a network's structure, weights and preprocessing, as 64 hexadecimal digits.

    Two networks with the same hash give the same for the same images, but for code in their forward pass that neither
    their modules nor their tensors show; of a user's own network all code counts.
    """
    digest = hashlib.sha256(f"{network.module!r}{network.code}".encode())
    digest.update(repr((network.size, network.mean, network.std)).encode())
    for name, tensor in network.module.state_dict().items():
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(plain.shape)} {plain.dtype}".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def images_hash(network: Network, images: Images, *, quiet: bool = True) -> str:
    """Return a hash of the pixels of images as a network takes them, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for index in track(range(len(images)), "Reading images", quiet=quiet):
        picture = images.image(index)
        digest.update(repr(picture.shape).encode())
        digest.update(np.ascontiguousarray(picture).tobytes())
    digest.update(str(network.size).encode())
    return digest.hexdigest()


class _Sink:
    """Takes maps batch by batch into arrays that are made when the first shape is known."""

    def __init__(self, count: int, make: Callable[[str, tuple[int, ...]], NDArray[Any]]) -> None:
        self.count, self.make = count, make
        self.arrays: dict[str, NDArray[Any]] = {}
        self.done = 0

    def add(self, maps: Mapping[str, Tensor]) -> None:
        size = len(next(iter(maps.values())))
        for name, values in maps.items():
            if name not in self.arrays:
                self.arrays[name] = self.make(name, (self.count, *values.shape[1:]))
            self.arrays[name][self.done : self.done + size] = values.cpu().numpy()
        self.done += size


_MEASURED: dict[tuple[str, str, tuple[int, ...]], UnitGrid] = {}
"""Where units look, by hash of the network, layer and shape of an input."""


def _grids(which: str, module: nn.Module, names: Sequence[str], inputs: Tensor) -> dict[str, UnitGrid]:
    """Return where the units of layers look, measured once: it takes as long as a hundred images."""
    keys = {name: (which, name, tuple(inputs.shape[1:])) for name in names}
    if missing := [name for name, key in keys.items() if key not in _MEASURED]:
        found = unit_grids(module, missing, inputs)
        _MEASURED.update({keys[name]: grid for name, grid in found.items()})
    return {name: _MEASURED[key] for name, key in keys.items()}


def _run(
    network: Network, which: str, images: Images, names: Sequence[str], sink: _Sink, quiet: bool
) -> dict[str, UnitGrid]:
    grids: dict[str, UnitGrid] = {}
    pairs = _Alone(InputBatches(network, images))
    for inputs, _, maps in layer_maps(network.module, names, pairs, "Recording layers", quiet=quiet):
        grids = grids or _grids(which, network.module, names, inputs)
        expect_size(inputs, grids)
        sink.add(maps)
    return grids


@dataclass(frozen=True)
class _Alone:
    """Inputs with nothing beside them, as :func:`layer_maps` takes them."""

    batches: InputBatches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, None]]:
        return ((inputs, None) for inputs in self.batches)


def _in_memory(
    network: Network, which: str, images: Images, names: Sequence[str], precision: Precision, quiet: bool
) -> dict[str, LayerMaps]:
    sink = _Sink(len(images), lambda _, shape: np.empty(shape, dtype=precision))
    grids = _run(network, which, images, names, sink, quiet)
    return {name: LayerMaps(name, sink.arrays[name], grids[name]) for name in names}


def _compute(
    network: Network,
    which: str,
    images: Images,
    names: Sequence[str],
    home: Path,
    precision: Precision,
    quiet: bool,
) -> None:
    with ExitStack() as stack:
        hidden = {name: stack.enter_context(atomic_path(_file(home, name, precision))) for name in names}
        sink = _Sink(
            len(images),
            lambda name, shape: open_memmap(hidden[name], mode="w+", dtype=precision, shape=shape),
        )
        grids = _run(network, which, images, names, sink, quiet)
        for name in names:
            # The description comes first: maps without it would be taken for nothing and computed anew.
            with atomic_path(_file(home, name, precision).with_suffix(".json")) as note:
                note.write_text(dump_json(_described(grids[name])), encoding="utf-8")
            array = sink.arrays[name]
            if isinstance(array, np.memmap):
                array.flush()
        sink.arrays.clear()


def _file(home: Path, layer: str, precision: Precision) -> Path:
    # Names of layers may hold what file systems do not like or do not tell apart, such as upper and lower case.
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in layer)
    mark = hashlib.sha256(layer.encode()).hexdigest()[:8]
    return home / f"{safe}-{mark}-{precision}.npy"


def _described(grid: UnitGrid) -> dict[str, Any]:
    field = grid.field
    # JSON has no infinity; a unit that sees everything is described by no size.
    size = [None if np.isinf(s) else float(s) for s in field.size]
    return {
        "format": _FORMAT, "layer": field.layer, "size": size, "stride": field.stride, "start": field.start,
        "shape": field.shape, "image": grid.image,
    }  # fmt: skip


def _grid(path: Path) -> UnitGrid:
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["format"] != _FORMAT:
        raise ValueError(f"format {content['format']}")

    def pair(name: str, kind: Callable[[Any], Any]) -> Any:
        first, second = (float("inf") if value is None else value for value in content[name])
        return kind(first), kind(second)

    field = ReceptiveField(
        content["layer"], pair("size", float), pair("stride", float), pair("start", float), pair("shape", int)
    )
    return UnitGrid(field, pair("image", int))


def _is_kept(home: Path, layer: str, precision: Precision, count: int) -> bool:
    try:
        return len(_kept(home, layer, precision)) == count
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _kept(home: Path, layer: str, precision: Precision) -> LayerMaps:
    file = _file(home, layer, precision)
    maps = np.load(file, mmap_mode="r", allow_pickle=False)
    grid = _grid(file.with_suffix(".json"))
    if maps.ndim != 4 or grid.field.shape != maps.shape[2:] or grid.field.layer != layer:
        raise ValueError(f"{file} does not fit its description")
    return LayerMaps(layer, maps, grid)
