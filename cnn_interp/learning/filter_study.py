"""Networks with filters to be read beside ordinary ones: trained alike on half of the images, measured on the rest.

Whether a loss makes filters follow parts or stand still is asked of images that no training has seen: location
instability beside that of a position that never moves, how much of a part's movement the filters explain, part
interpretability where parts have masks, and what it all costs in accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Union, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor, nn

from cnn_interp.disentangling.features import LayerMaps, trunk_features
from cnn_interp.images.batches import PartMaskBatches, landmarks_in_inputs
from cnn_interp.images.part_images import PartImages
from cnn_interp.learning.competing_filters import (
    CompetingLayers,
    CompetingSettings,
    Gathering,
    train_competing,
)
from cnn_interp.learning.interpretable_network import PartLayers, Settings, accuracy, train_layers
from cnn_interp.learning.saved_network import assembled
from cnn_interp.metrics.location_instability import TOP, LocationInstability, Peaks, location_instability
from cnn_interp.metrics.part_interpretability import PartInterpretability, part_interpretability
from cnn_interp.networks.network import Network
from cnn_interp.units.positions import strongest_places
from interpretkit.errors import InputError
from interpretkit.training import History, derive_seed
from interpretkit.training.precision import Precision

Variant = Literal["ordinary", "published", "released", "competing", "unasked"]
"""What is trained: ``ordinary`` layers; the filter loss as ``published`` or as ``released``; ``competing`` filters, and
the same of which nothing is asked but the category."""
# So many images show how often regions are parts; each takes two passes through the whole network.
_WITH_MASKS = 100
READ_ALIKE = "read alike"
"""The ordinary layers whose filters' maps are read as those of competing filters are."""
LOSSES = ("published", "released", "competing")


@dataclass(frozen=True, eq=False)
class FilterTask:
    """Images whose categories are to be told, as maps of a frozen trunk.

    Attributes
    ----------
    images : PartImages
        All of them; with or without annotated parts.
    trunk : Network
        The frozen network.
    maps : LayerMaps
        Of one of its layers, for all images.
    labels : ndarray of int, (n,)
        From 0; with one category, −1 for images of anything else.
    categories : tuple of str
        Names of the labels.
    learn, validate, test : ndarray of int
        Numbers of the images to train on, to stop training by, and to measure on; relatives are on one side.
    """

    images: PartImages
    trunk: Network
    maps: LayerMaps
    labels: NDArray[np.int64]
    categories: tuple[str, ...]
    learn: NDArray[np.int64]
    validate: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TrainedFilters:
    """Trained layers, and what was measured of them on the test images.

    Attributes
    ----------
    variant : str
        See ``Variant``.
    seed : int
        Of the training.
    layers : PartLayers, CompetingLayers or ReadAlike
        In evaluation mode.
    history : History
        Of the training.
    accuracy : float
        Share of test images told rightly.
    peaks : Peaks
        Where the filters are strongest in the test images.
    alive : ndarray of bool, (filters,)
        Which filters respond at all in some test image of a category; the others are not measured, for what never
        responds never moves.
    of_category : ndarray of int, (filters,)
        The category whose training images excite each filter most.
    location : LocationInstability or None
        Of the filters that are alive; None where no part is annotated.
    parts : PartInterpretability or None
        Of the same, on at most 100 images; None where parts have no masks.
    chosen_tracking : ndarray of float, (categories, parts), or None
        Tracking R² on the test images of the filter that follows each part best on the images learned from: the best of
        many filters on the very images that chose it is better by chance.
    """

    variant: str
    seed: int
    layers: Layers
    history: History
    accuracy: float
    peaks: Peaks
    alive: NDArray[np.bool_]
    of_category: NDArray[np.int64]
    location: LocationInstability | None
    parts: PartInterpretability | None
    chosen_tracking: NDArray[np.float64] | None = None

    @property
    def own_instability(self) -> float:
        """Mean location instability of the filters, each on images of its own category alone."""
        if self.location is None:
            return float("nan")
        own = self.of_category[self.alive]
        values = self.location.instability[own, :, np.arange(len(own))]
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")

    def row(self) -> dict[str, object]:
        """Return the figures as a row of a table."""
        found: dict[str, object] = {
            "network": self.variant,
            "seed": self.seed,
            "accuracy": self.accuracy,
            "filters": int(self.alive.sum()),
            "silent": int((~self.alive).sum()),
        }
        if self.location is not None:
            best = self.location.best_tracking()[1]
            found |= {
                "instability": self.location.mean_instability,
                "own category": self.own_instability,
                "centre": self.location.mean_constant_centre,
                "constant": self.location.mean_best_constant,
                "best R²": float(np.nanmean(best)) if np.isfinite(best).any() else float("nan"),
                "chosen R²": _mean_known(self.chosen_tracking),
                "median R²": self.location.median_tracking_r2,
            }
        if self.parts is not None:
            found |= {"parts": self.parts.mean, "displaced": self.parts.mean_displaced}
        return found


def _mean_known(values: NDArray[np.float64] | None) -> float:
    return float("nan") if values is None or np.isnan(values).all() else float(np.nanmean(values))


Layers = Union[PartLayers, CompetingLayers, "ReadAlike"]


def check_variant(variant: str) -> Variant:
    """Return the variant if it is known.

    Raises
    ------
    InputError
        If it is not.
    """
    if variant not in get_args(Variant):
        raise InputError(f"variant {variant!r}: expected one of {', '.join(get_args(Variant))}")
    return variant  # type: ignore[return-value]


def settings_of(
    variant: str,
    *,
    filters: int | None = None,
    epochs: int | None = None,
    beta: float | None = None,
) -> Settings | CompetingSettings:
    """Return how a variant is trained.

    Parameters
    ----------
    variant : str
        See ``Variant``.
    filters, epochs : int, optional
        How many; by default those of the variant.
    beta : float, optional
        How fast templates fall off, where there are templates.
    """
    check_variant(variant)
    changes: dict[str, object] = {}
    if filters is not None:
        changes["filters"] = filters
    if epochs is not None:
        changes["epochs"] = epochs
    if variant in ("competing", "unasked"):
        if variant == "unasked":
            changes |= {"gathered": 0.0, "present": 0.0, "moved": 0.0, "different": 0.0}
        return replace(CompetingSettings(), **changes)  # type: ignore[arg-type]
    if beta is not None:
        changes["beta"] = beta
    if variant == "ordinary":
        changes["kind"] = "ordinary"
    if variant == "released":
        changes |= {"centre": "centroid", "learn_beta": True}
    return replace(Settings(), **changes)  # type: ignore[arg-type]


def halves(
    labels: NDArray[np.int64], groups: NDArray[np.intp] | None, *, seed: int = 0, validation: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of images to train on, to stop by and to test on; relatives stay together.

    Half of the groups of each category are for tests; with `validation` a fifth of the others tells when to stop.

    Raises
    ------
    InputError
        If a category has fewer than two groups of relatives.
    """
    relatives = np.arange(len(labels)) if groups is None else np.asarray(groups)
    for label in np.unique(labels):
        if len(np.unique(relatives[labels == label])) < 2:
            raise InputError(
                f"images: those of category {label} are all relatives of each other; expected two that are none"
            )

    def parted(rows: NDArray[np.int64], folds: int, part: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        draw = StratifiedGroupKFold(
            folds, shuffle=True, random_state=derive_seed(seed, "filter study", part) % 2**32
        )
        most, few = next(draw.split(rows, labels[rows], relatives[rows]))
        return np.sort(rows[most]), np.sort(rows[few])

    learn, test = parted(np.arange(len(labels)), 2, "test")
    if not validation:
        return learn, np.empty(0, dtype=np.int64), test
    learn, validate = parted(learn, 5, "validation")
    return learn, validate, test


def filter_task(
    images: PartImages,
    trunk: Network,
    layer: str,
    categories: Sequence[str],
    *,
    maps: LayerMaps | None = None,
    folder: Path | None = None,
    validation: bool = False,
    seed: int = 0,
    quiet: bool = True,
) -> FilterTask:
    """Return images of categories with the maps of a trunk, which are computed once, parted into halves.

    Parameters
    ----------
    images : PartImages
        Of one category, those of all others, or with category −1, are what it is told from; of several, these alone
        are taken.
    trunk : Network
        Stays as it is.
    layer : str
        Whose maps the layers are trained on.
    categories : sequence of str
        One or more of the images' categories.
    maps : LayerMaps, optional
        The layer's maps of all the images, if they are at hand.
    folder : path, optional
        Where the maps are kept.
    validation : bool
        Whether images are kept aside to stop training by.
    seed : int
        Of the halves.
    quiet : bool
        Whether to show no progress bar.

    Raises
    ------
    InputError
        If there is no such category, or nothing to tell it from.
    """
    unknown = [name for name in categories if name not in images.category_names]
    if unknown or not categories:
        raise InputError(
            f"category {', '.join(unknown) or 'none'!r}: expected some of {', '.join(images.category_names[:20])}"
        )
    numbers = [images.category_names.index(name) for name in categories]
    # −1 for all others: what a single category is told from.
    labels = np.full(len(images), -1, dtype=np.int64)
    for label, number in enumerate(numbers):
        labels[images.categories == number] = label
    if len(categories) > 1:
        rows = np.flatnonzero(labels >= 0)
        images, labels = images.subset(rows), labels[rows]
        maps = None if maps is None else maps.subset(rows)
    if len(np.unique(labels)) < 2:
        raise InputError(
            f"{images.name}: images of {categories[0]} only; expected others to tell it from, or a second category"
        )
    parts = halves(labels, images.groups, seed=seed, validation=validation)
    if maps is None:
        maps = trunk_features(trunk, images, [layer], folder, precision="float16", quiet=quiet)[layer]
    return FilterTask(images, trunk, maps, labels, tuple(categories), *parts)


def train_filters(
    task: FilterTask,
    variant: str,
    settings: Settings | CompetingSettings | None = None,
    *,
    seed: int = 0,
    patience: int | None = None,
    precision: Precision = "float32",
    checkpoint: Path | None = None,
    top: int = TOP,
    quiet: bool = True,
) -> TrainedFilters:
    """Train a variant on the images to learn from, and measure it on the others.

    Parameters
    ----------
    task : FilterTask
        What is to be told, on the trunk's device.
    variant : str
        See ``Variant``.
    settings : Settings or CompetingSettings, optional
        How; :func:`settings_of` the variant by default.
    seed : int
        Of the training.
    patience, precision, checkpoint, quiet
        See :func:`~cnn_interp.learning.interpretable_network.train_layers`.
    top : int
        How many images count for each filter and part.
    """
    settings = settings or settings_of(variant)
    maps, labels = task.maps.maps, torch.from_numpy(task.labels)

    def some(rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(np.array(maps[rows])), labels[torch.from_numpy(rows)]

    common = {
        "categories": len(task.categories),
        "validation": some(task.validate) if len(task.validate) else None,
        "patience": patience,
        "seed": seed,
        "device": task.trunk.device,
        "precision": precision,
        "checkpoint": checkpoint,
        "quiet": quiet,
    }
    layers: PartLayers | CompetingLayers
    if isinstance(settings, CompetingSettings):
        layers, history = train_competing(*some(task.learn), settings, **common)
    else:
        layers, history = train_layers(*some(task.learn), settings, **common)
    return measure_filters(task, layers, variant, seed=seed, history=history, top=top, quiet=quiet)


def measure_filters(
    task: FilterTask,
    layers: Layers,
    variant: str,
    *,
    seed: int = 0,
    history: History | None = None,
    top: int = TOP,
    quiet: bool = True,
) -> TrainedFilters:
    """Measure trained layers on the test images of a task; see :class:`TrainedFilters`."""
    images, rows = task.images.subset(task.test), task.test
    labels = task.labels[rows]
    values, places = _strongest(layers, task.maps, rows)
    learned, learned_places = _strongest(layers, task.maps, task.learn)
    of_category = np.stack(
        [learned[task.labels[task.learn] == label].mean(axis=0) for label in range(len(task.categories))]
    ).argmax(axis=0)
    peaks = Peaks(layers.filter_layer, values, places, task.maps.grid)
    alive: NDArray[np.bool_] = np.asarray((values[labels >= 0] > 0).any(axis=0))
    location = parts = chosen = None

    def located(found: Peaks, some: PartImages, of: NDArray[np.int64]) -> LocationInstability | None:
        if not alive.any() or not _measurable(some, of):
            return None
        return location_instability(
            found.values[:, alive],
            found.positions[:, alive],
            landmarks_in_inputs(some, task.trunk.size),
            task.maps.grid.image,
            categories=of,
            category_names=task.categories,
            part_names=some.part_names,
            top=top,
        )

    location = located(peaks, images, labels)
    before = located(
        replace(peaks, values=learned, places=learned_places),
        task.images.subset(task.learn),
        task.labels[task.learn],
    )
    if location is not None and before is not None:
        units = before.best_tracking()[0]
        found = np.take_along_axis(location.tracking, units.clip(0)[..., None], axis=2)[..., 0]
        chosen = np.where((units < 0) | ~location.enough, np.nan, found)
    if alive.any() and images.has_masks:
        network = assembled(task.trunk, task.maps.layer, layers, task.categories)
        layer = f"layers.{layers.filter_layer}"
        few = np.arange(min(len(rows), _WITH_MASKS)) * len(rows) // min(len(rows), _WITH_MASKS)
        told = part_interpretability(
            network.module,
            [layer],
            PartMaskBatches(network, images.subset(few)),
            categories=labels[few],
            category_names=task.categories,
            part_names=images.part_names,
            quiet=quiet,
        )[layer]
        parts = replace(told, probability=told.probability[..., alive], displaced=told.displaced[..., alive])
    test = torch.from_numpy(np.array(task.maps.maps[rows]))
    right = accuracy(layers, test, torch.from_numpy(labels))
    return TrainedFilters(
        variant, seed, layers, history or History(), right, peaks, alive, of_category, location, parts, chosen
    )


class ReadAlike(nn.Module):
    """Layers whose filters' maps are gathered over squares as those of competing filters are; nothing is trained anew.

    Parameters
    ----------
    layers : PartLayers
        Any.
    share : float
        See :class:`~cnn_interp.learning.competing_filters.Gathering`.
    """

    def __init__(self, layers: PartLayers, share: float) -> None:
        super().__init__()
        self.layers, self.filters = layers, Gathering(share)
        self.filter_layer = "filters"
        self.channels, self.categories = layers.channels, layers.categories

    def forward(self, maps: Tensor) -> Tensor:
        """Return the layers' scores."""
        scores, _, second = self.layers.responses(maps)
        self.filters(second)
        return scores

    def filter_maps(self, maps: Tensor) -> Tensor:
        """Return gathered maps (images, filters, h, w)."""
        return self.filters(self.layers.filter_maps(maps))


def read_alike(
    task: FilterTask, ordinary: TrainedFilters, *, top: int = TOP, quiet: bool = True
) -> TrainedFilters:
    """Measure ordinary layers once more, with maps that are read as those of competing filters are.

    What this alone brings is no merit of the filters.
    """
    assert isinstance(ordinary.layers, PartLayers)
    layers = ReadAlike(ordinary.layers, CompetingSettings().reading).eval()
    return measure_filters(
        task, layers, READ_ALIKE, seed=ordinary.seed, history=ordinary.history, top=top, quiet=quiet
    )


def _measurable(images: PartImages, labels: NDArray[np.int64]) -> bool:
    """Return whether some part is annotated in two images of a category."""
    if not images.part_names:
        return False
    told = images.annotated
    return any(
        int(told[labels == label].sum(axis=0).max(initial=0)) > 1 for label in np.unique(labels) if label >= 0
    )


@torch.no_grad()
def _strongest(
    layers: Layers, maps: LayerMaps, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the largest value of each filter in images ``(n, filters)``, and where on the map it is."""
    device = next(layers.parameters()).device
    found = [
        strongest_places(layers.filter_maps(maps.tensor(rows[start : start + 128], device)))
        for start in range(0, len(rows), 128)
    ]
    values = torch.cat([value.cpu() for value, _ in found]).double().numpy()
    return values, torch.cat([place.cpu() for _, place in found]).numpy()
