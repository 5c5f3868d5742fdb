"""Detectors on a frozen trunk whose regions are parsed by an And-Or grammar, or scored by a plain head.

The trunk's maps are computed once. Boxes that slide over the image are moved and stretched by one step of regression,
which is trained once and serves every head; a head does nothing but score the boxes that come out of it, so that two
heads differ in how they see a region and in nothing else.

References
----------
T. Wu et al., "Towards interpretable R-CNN by unfolding latent structures", arXiv 1711.05226; R. Girshick, "Fast
R-CNN", ICCV 2015.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cnn_interp.disentangling.features import LayerMaps, trunk_features
from cnn_interp.images.object_images import ObjectImages
from cnn_interp.learning.competing_filters import likeness, spread
from cnn_interp.learning.grammar import Grammar, Parses, parse, switch
from cnn_interp.learning.interpretable_network import check_number, measure_scale
from cnn_interp.learning.regions import (
    decoded,
    encoded,
    jittered,
    matched,
    region_maps,
    sliding_boxes,
    suppressed,
)
from cnn_interp.metrics.average_precision import Boxes
from cnn_interp.networks.network import Network
from cnn_interp.units.positions import strongest_places
from interpretkit.errors import InputError
from interpretkit.runs.progress import track
from interpretkit.training.batches import TensorBatches
from interpretkit.training.checkpoints import load_model, save_model
from interpretkit.training.loop import History, fit
from interpretkit.training.schedules import one_cycle
from interpretkit.training.seeds import seed_everything, torch_generator

Kind = Literal["parsing", "plain"]
# A region shows the object whose box it overlaps with so much.
_SHOWS = 0.5
# Of every image in training, so many boxes that slid, half of them near objects as far as there are such; and about
# every object so many that are moved and stretched at random.
_SLID, _NEAR, _ABOUT = 24, 0.2, 6
# Boxes that are nearly the same after refinement are one; of one category, those that overlap with a surer one go.
_SAME, _OTHER = 0.75, 0.45
# Surer than this, and so many of an image at most, as in COCO's counts but fewer.
_SURE, _MOST = 0.01, 20
_REFINEMENT_EPOCHS, _REFINEMENT_RATE, _REFINEMENT_WIDTH = 6, 2e-3, 32
_AT_ONCE = 256


@dataclass(frozen=True)
class Settings:
    """How a head is made and trained.

    Attributes
    ----------
    kind : {"parsing", "plain"}
        By the grammar, or by fully connected layers on the same cells.
    grid : int
        Cells along each side of a region.
    parts : int
        Kinds of parts that the tiles of a category may be, besides none.
    width : int
        Of the embedding of cells.
    depth : int
        Convolutions of 3 × 3 cells by which a cell is seen in its surroundings.
    folded : float
        Share of the epochs in which OR nodes take the mean of their children, so that all of them learn before any is
        chosen.
    cost : float
        What a tile costs at the beginning; learned for every category, part and size of a tile.
    sharpness : float
        By which responses are multiplied where parts share out the cells.
    gathered, present, moved, different : float
        Weights of what is asked of the parts' shares in regions of objects: to be gathered at one place, to be seen in
        every object, to stay with the object when the box moves, and to look for different things. See
        :mod:`cnn_interp.learning.competing_filters`.
    epochs, batch_size, learning_rate, weight_decay
        Of the training.
    """

    kind: Kind = "parsing"
    grid: int = 6
    parts: int = 6
    width: int = 64
    depth: int = 2
    folded: float = 0.2
    cost: float = 0.1
    sharpness: float = 3.0
    gathered: float = 0.5
    present: float = 0.5
    moved: float = 2.0
    different: float = 0.1
    epochs: int = 6
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"kind {self.kind!r}: expected one of {', '.join(get_args(Kind))}")
        for name in ("grid", "parts", "width", "epochs", "batch_size"):
            check_number(name, getattr(self, name), 1)
        for name in ("depth", "cost", "gathered", "present", "moved", "different", "weight_decay"):
            check_number(name, getattr(self, name), 0)
        check_number("folded", self.folded, 0, 1)
        for name in ("learning_rate", "sharpness"):
            check_number(name, getattr(self, name), 0, open_below=True)


# ------------------------------------------------------------------------------------------------ networks


class Refiner(nn.Module):
    """Says how a box is to be moved and stretched to fit the object that it shows some of, whatever its category."""

    def __init__(self, channels: int, grid: int) -> None:
        super().__init__()
        self.scale = nn.BatchNorm2d(channels, affine=False)
        self.embedding = nn.Conv2d(channels, _REFINEMENT_WIDTH, 1)
        self.step = nn.Linear(_REFINEMENT_WIDTH * grid * grid, 4)

    def forward(self, regions: Tensor) -> Tensor:
        """Return steps (n, 4), as :func:`~cnn_interp.learning.regions.encoded` has them, for regions (n, c, g, g)."""
        return self.step(functional.relu(self.embedding(self.scale(regions))).flatten(1))


def surroundings(settings: Settings) -> nn.Sequential:
    """Return the convolutions by which embedded cells (n, width, g, g) are seen with their neighbours; same shape."""
    return nn.Sequential(
        *(
            layer
            for _ in range(settings.depth)
            for layer in (nn.Conv2d(settings.width, settings.width, 3, padding=1), nn.ReLU())
        )
    )


class PlainHead(nn.Module):
    """Convolutions and fully connected layers on the cells of a region, as in Fast R-CNN."""

    def __init__(self, channels: int, categories: int, settings: Settings) -> None:
        super().__init__()
        self.scale = nn.BatchNorm2d(channels, affine=False)
        self.embedding = nn.Conv2d(channels, settings.width, 1)
        self.surroundings = surroundings(settings)
        self.hidden = nn.Linear(settings.width * settings.grid**2, 2 * settings.width)
        self.classifier = nn.Linear(2 * settings.width, categories + 1)

    def filter_maps(self, regions: Tensor) -> Tensor:
        """Return the responses of the embedding's filters, (n, width, g, g)."""
        return functional.relu(self.embedding(self.scale(regions)))

    def forward(self, regions: Tensor) -> Tensor:
        """Return scores (n, categories + 1), the last for no object, for regions (n, c, g, g)."""
        seen = self.surroundings(self.filter_maps(regions))
        return self.classifier(functional.relu(self.hidden(seen.flatten(1))))


@dataclass(frozen=True, eq=False)
class ParsedRegions:
    """Regions parsed as objects of given categories.

    Attributes
    ----------
    parses : Parses
        Their best parse trees, (n,).
    parts : Tensor of int64, (n, tiles)
        The kind of part that every rectangle would be as one tile; the last stands for none.
    scores : Tensor, (n, parts + 1, tiles)
        The score of every rectangle as one tile of each kind.
    place : Tensor, (n, tiles)
        What is told for the category, against no object, by what the tile's cells are at their places and in their
        surroundings; the same for every kind, and not within `scores`.
    """

    parses: Parses
    parts: Tensor
    scores: Tensor
    place: Tensor


class ParsingHead(nn.Module):
    """Scores a region by its best parse tree, for each category by a grammar with parts of its own.

    The score of a tile is the sum over its cells of two things, less what a tile costs: how much the cells look like
    the kind of part that the tile is, which is the same filter at every place; and what a cell tells at its place in
    the region, with filters of every place as in the article's terminal nodes; no object has such filters as well. The
    latter sums up alike over all parses, since each covers every cell once, so that the parse is chosen by the parts
    alone. A terminal is the best of all kinds of parts, of which one is none.

    Parts are seen in each cell by itself: seen with their neighbours, near the region's edges above all, cells know
    their place, and parts would stand still instead of following. At its place a cell is seen in its surroundings.

    Parameters
    ----------
    channels : int
        Of the trunk's maps.
    categories : int
        How many there are.
    settings : Settings
        How the head is made.
    """

    def __init__(self, channels: int, categories: int, settings: Settings) -> None:
        super().__init__()
        self.settings, self.categories = settings, categories
        self.grammar = Grammar(settings.grid)
        self.kinds = settings.parts + 1
        self.scale = nn.BatchNorm2d(channels, affine=False)
        self.embedding = nn.Conv2d(channels, settings.width, 1)
        self.surroundings = surroundings(settings)
        self.responses = nn.Conv2d(settings.width, categories * self.kinds, 1)
        with torch.no_grad():
            # The best of many random parses is large: parts begin small, or the score begins with what says nothing.
            for some in self.responses.parameters():
                some *= 0.1
        self.place = nn.Conv2d(settings.width, categories + 1, settings.grid)
        self.price = nn.Parameter(
            torch.full((categories, self.kinds, len(self.grammar.sizes)), -settings.cost)
        )
        cells = torch.from_numpy(self.grammar.cells).float()
        self.register_buffer("cells", cells / settings.grid, persistent=False)
        self.register_buffer("shapes", torch.from_numpy(self.grammar.shapes), persistent=False)
        self.cells: Tensor
        self.shapes: Tensor

    def embedded(self, regions: Tensor) -> Tensor:
        """Return the embedding of the cells, (n, width, g, g)."""
        return functional.relu(self.embedding(self.scale(regions)))

    def part_maps(self, embedded: Tensor) -> Tensor:
        """Return how much cells look like each kind of part of each category, (n, categories, parts + 1, g, g)."""
        return self.responses(embedded).unflatten(1, (self.categories, self.kinds))

    def shares(self, maps: Tensor) -> Tensor:
        """Return how the parts of one category, without none, share out the cells, for maps (n, parts + 1, g, g)."""
        return (self.settings.sharpness * maps).softmax(1)[:, :-1]

    def forward(self, regions: Tensor) -> Tensor:
        """Return scores (n, categories + 1), the last for no object, for regions (n, c, g, g)."""
        embedded = self.embedded(regions)
        return self.scores(embedded, self.part_maps(embedded))

    def scores(self, embedded: Tensor, maps: Tensor, temperature: float = 0.0) -> Tensor:
        """Return scores (n, categories + 1) by the parses; `temperature` is that of the OR nodes."""
        tiles = maps.flatten(-2) @ self.cells.T + self.price[..., self.shapes]
        best, _ = switch(tiles.movedim(2, 0), temperature)
        return self.place(self.surroundings(embedded))[..., 0, 0] + functional.pad(
            parse(best, self.grammar, temperature).scores, (0, 1)
        )

    @torch.no_grad()
    def explain(self, regions: Tensor, categories: Tensor) -> ParsedRegions:
        """Return the best parse trees of regions ``(n, c, g, g)`` as objects of categories ``(n,)``."""
        embedded = self.embedded(regions)
        maps = self.part_maps(embedded)[torch.arange(len(regions)), categories]
        scores = maps.flatten(-2) @ self.cells.T + self.price[categories][..., self.shapes]
        best, parts = switch(scores.movedim(1, 0))
        against = self.place.weight[categories] - self.place.weight[-1]
        here = torch.einsum("ncij,ncij->nij", self.surroundings(embedded), against).flatten(1)
        # In part_maps the cells are summed up with a factor; here they are not.
        place = here @ (self.cells.T * self.settings.grid)
        return ParsedRegions(parse(best, self.grammar), parts, scores, place)


Head = ParsingHead | PlainHead


def make_head(channels: int, categories: int, settings: Settings) -> Head:
    """Return an untrained head."""
    return (ParsingHead if settings.kind == "parsing" else PlainHead)(channels, categories, settings)


class Detector(nn.Module):
    """A refinement of boxes and a head that scores them.

    Parameters
    ----------
    channels : int
        Of the trunk's maps.
    category_names : sequence of str
        What is detected.
    settings : Settings
        How the head is made.
    trunk, layer : str
        The network whose maps it takes, and the layer that gives them.
    """

    def __init__(
        self,
        channels: int,
        category_names: Sequence[str],
        settings: Settings,
        *,
        trunk: str = "",
        layer: str = "",
    ) -> None:
        super().__init__()
        self.channels, self.category_names, self.settings = channels, tuple(category_names), settings
        self.trunk, self.layer = trunk, layer
        self.refiner = Refiner(channels, settings.grid)
        self.head = make_head(channels, len(self.category_names), settings)

    def save(self, path: Path | str) -> None:
        """Write it as safetensors."""
        config = {
            "channels": self.channels,
            "category_names": self.category_names,
            "settings": dataclasses.asdict(self.settings),
            "trunk": self.trunk,
            "layer": self.layer,
        }
        save_model(path, self, config)


def load_detector(path: Path | str) -> Detector:
    """Return the detector that :meth:`Detector.save` wrote.

    Raises
    ------
    InputError
        If the file is missing, damaged, or holds something else.
    """

    def build(config: dict[str, Any]) -> Detector:
        try:
            return Detector(
                config["channels"],
                config["category_names"],
                Settings(**config["settings"]),
                trunk=config["trunk"],
                layer=config["layer"],
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}: not a detector ({error}); expected one that was saved here") from error

    return load_model(path, build)


# ------------------------------------------------------------------------------------------------- regions


@dataclass(frozen=True, eq=False)
class MappedImages:
    """Images with objects, and what a layer of the frozen trunk has for them.

    Attributes
    ----------
    maps : LayerMaps
        Of all images.
    images : ObjectImages
        The images.
    """

    maps: LayerMaps
    images: ObjectImages

    def cells(self, numbers: Tensor, boxes: Tensor, grid: int) -> Tensor:
        """Return what the maps of images ``(n,)`` have in regions ``(n, 4)``, (n, c, grid, grid)."""
        field = self.maps.grid.field
        return torch.cat(
            [
                region_maps(self.maps.tensor(some.numpy()), part, grid, field)
                for some, part in zip(numbers.split(_AT_ONCE), boxes.split(_AT_ONCE), strict=True)
            ]
        )

    def true_boxes(self, number: int) -> Tensor:
        """Return the boxes of the objects of an image, (objects, 4)."""
        return torch.from_numpy(self.images.objects[number].boxes).float()

    def objects(self) -> tuple[Tensor, Tensor, Tensor, NDArray[np.float64]]:
        """Return all objects: numbers of their images, boxes, categories, landmarks as shares of the boxes."""
        numbers = [torch.full((len(one),), place) for place, one in enumerate(self.images.objects)]
        kinds = [torch.from_numpy(one.categories).long() for one in self.images.objects]
        boxes = [self.true_boxes(place) for place in range(len(self.images))]
        marks = [one.in_boxes() for one in self.images.objects]
        return torch.cat(numbers), torch.cat(boxes), torch.cat(kinds), np.concatenate(marks)

    def truths(self) -> list[Boxes]:
        """Return what is there to find, as :func:`~cnn_interp.metrics.average_precision.detection_score` takes it."""
        return [Boxes.of(one.boxes, one.categories) for one in self.images.objects]


def map_images(
    network: Network,
    images: ObjectImages,
    layer: str,
    folder: Path | None = None,
    *,
    quiet: bool = True,
) -> MappedImages:
    """Compute a layer's maps for images at their own size, or read them from a folder where they were kept."""
    sized = dataclasses.replace(network, size=images.side)
    found = trunk_features(sized, images, [layer], folder, precision="float16", quiet=quiet)
    return MappedImages(found[layer], images)


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions to train a head on.

    Attributes
    ----------
    cells : Tensor of float16, (n, c, g, g)
        What the trunk has for them.
    boxes : Tensor, (n, 4)
        Where they are.
    labels : Tensor of int64, (n,)
        Their categories; as many as there are categories stands for no object.
    twins : Tensor of int64, (n,)
        For a region of an object the number of another region of it, drawn at random; −1 for others.
    twin_cells, twin_boxes : Tensor
        What the trunk has for those, and where they are.
    """

    cells: Tensor
    boxes: Tensor
    labels: Tensor
    twins: Tensor
    twin_cells: Tensor
    twin_boxes: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@torch.no_grad()
def refined(refiner: Refiner, data: MappedImages, number: int, boxes: Tensor, grid: int) -> Tensor:
    """Return boxes of one image after one step of refinement, cut off at its edges."""
    maps = data.maps.tensor([number]).expand(len(boxes), -1, -1, -1)
    return decoded(boxes, refiner(region_maps(maps, boxes, grid, data.maps.grid.field)), data.images.side)


def proposals(refiner: Refiner, data: MappedImages, number: int, grid: int) -> Tensor:
    """Return where to look for objects in an image: all sliding boxes, refined, each but once; (n, 4)."""
    boxes = refined(refiner, data, number, sliding_boxes(data.images.side), grid)
    return boxes[suppressed(boxes, torch.zeros(len(boxes)), _SAME)]


def draw_regions(
    data: MappedImages, refiner: Refiner, grid: int, *, seed: int = 0, quiet: bool = True
) -> Regions:
    """Draw regions to train heads on: refined boxes that slid, and boxes about the objects.

    A region is of the object that it overlaps with by half or more, and of none otherwise.

    Parameters
    ----------
    data : MappedImages
        Training images.
    refiner : Refiner
        Trained on them.
    grid : int
        Cells along each side of a region.
    seed : int
        Of the draws.
    quiet : bool
        Whether to show no progress bar.
    """
    generator = torch_generator(seed, "regions")
    slid, side, none = sliding_boxes(data.images.side), data.images.side, len(data.images.category_names)
    boxes, labels, numbers, twin_boxes, twin_numbers, twins = [], [], [], [], [], []
    count = 0
    for number in track(range(len(data.images)), "Drawing regions", quiet=quiet):
        truths = data.true_boxes(number)
        order = torch.randperm(len(slid), generator=generator)[: 3 * _SLID]
        some = refined(refiner, data, number, slid[order], grid)
        overlap, _ = matched(some, truths)
        near = torch.nonzero(overlap > _NEAR)[:, 0][: _SLID // 2]
        far = torch.nonzero(overlap <= _NEAR)[:, 0][: _SLID - len(near)]
        about = [jittered(truth.expand(_ABOUT, 4), generator).clamp(0, side) for truth in truths]
        some = torch.cat([some[near], some[far], *about])
        overlap, which = matched(some, truths)
        shows = overlap >= _SHOWS
        label = torch.full((len(some),), none)
        twin = torch.full((len(some),), -1)
        if bool(shows.any()):
            label[shows] = torch.from_numpy(data.images.objects[number].categories).long()[which[shows]]
            again = jittered(truths[which[shows]], generator).clamp(0, side)
            twin[shows] = count + torch.arange(len(again))
            count += len(again)
            twin_boxes.append(again)
            twin_numbers.append(torch.full((len(again),), number))
        boxes.append(some)
        labels.append(label)
        twins.append(twin)
        numbers.append(torch.full((len(some),), number))
    if not count:
        raise InputError(f"{data.images.name}: shows no objects; expected images of some")
    every, again = torch.cat(boxes), torch.cat(twin_boxes)
    return Regions(
        data.cells(torch.cat(numbers), every, grid).half(),
        every,
        torch.cat(labels),
        torch.cat(twins),
        data.cells(torch.cat(twin_numbers), again, grid).half(),
        again,
    )


# ------------------------------------------------------------------------------------------------ training


def train_refiner(
    data: MappedImages,
    grid: int,
    *,
    epochs: int = _REFINEMENT_EPOCHS,
    seed: int = 0,
    checkpoint: Path | None = None,
    quiet: bool = True,
) -> Refiner:
    """Train the refinement of boxes on sliding boxes that see some of an object, and on boxes about objects.

    Parameters
    ----------
    data : MappedImages
        Training images.
    grid : int
        Cells along each side of a region.
    epochs : int
        How often to go through the boxes.
    seed : int
        Of boxes, weights and batches.
    checkpoint : path, optional
        A folder to go on from; see :func:`interpretkit.training.loop.fit`.
    quiet : bool
        Whether to show no progress bar.

    Raises
    ------
    InputError
        If the images show no objects.
    """
    generator = torch_generator(seed, "refinement")
    slid = sliding_boxes(data.images.side)
    boxes, goals, numbers = [], [], []
    for number in range(len(data.images)):
        truths = data.true_boxes(number)
        overlap, which = matched(slid, truths)
        near = torch.nonzero(overlap > 0.3)[:, 0]
        near = near[torch.randperm(len(near), generator=generator)[: _SLID * max(len(truths), 1)]]
        about = truths.repeat_interleave(_ABOUT, 0)
        moved = jittered(about, generator, shift=0.25, growth=0.4)
        boxes.append(torch.cat([slid[near], moved]))
        goals.append(torch.cat([truths[which[near]], about]))
        numbers.append(torch.full((len(near) + len(moved),), number))
    every = torch.cat(boxes)
    if len(every) == 0:
        raise InputError(f"{data.images.name}: shows no objects; expected images of some")
    rows = {
        "cells": data.cells(torch.cat(numbers), every, grid).half(),
        "steps": encoded(every, torch.cat(goals)),
    }
    seed_everything(seed)
    refiner = Refiner(data.maps.units, grid)
    measure_scale(refiner.scale, rows["cells"])
    batches = TensorBatches(rows, 64, seed=seed)
    optimizer = torch.optim.AdamW(refiner.parameters(), lr=_REFINEMENT_RATE, weight_decay=1e-3)

    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert isinstance(model, Refiner)
        model.scale.eval()
        return {"loss": functional.smooth_l1_loss(model(batch["cells"].float()), batch["steps"], beta=0.1)}

    fit(
        refiner,
        batches,
        loss,
        optimizer=optimizer,
        epochs=epochs,
        scheduler=one_cycle(optimizer, _REFINEMENT_RATE, epochs * len(batches), rise=0.1),
        scheduler_steps="batch",
        checkpoint=checkpoint,
        precision="float32",
        description="Training the refinement of boxes",
        quiet=quiet,
    )
    return refiner


def train_head(
    regions: Regions,
    categories: int,
    settings: Settings | None = None,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
    quiet: bool = True,
) -> tuple[Head, History]:
    """Train a head on regions.

    Parameters
    ----------
    regions : Regions
        As :func:`draw_regions` draws them.
    categories : int
        How many there are.
    settings : Settings, optional
        How the head is made and trained.
    seed : int
        Of weights and batches.
    device : str or torch.device
        Where to train.
    checkpoint : path, optional
        A folder to go on from; see :func:`interpretkit.training.loop.fit`.
    quiet : bool
        Whether to show no progress bar.

    Returns
    -------
    ParsingHead or PlainHead
        On the CPU, in evaluation mode.
    History
        ``train_loss`` of every epoch; of a parsing head also ``train_task`` and what is asked of its parts, unweighted.
    """
    settings = settings or Settings()
    seed_everything(seed)
    head = make_head(regions.cells.shape[1], categories, settings)
    measure_scale(head.scale, regions.cells)
    head.to(device)
    rows = {"cells": regions.cells, "boxes": regions.boxes, "labels": regions.labels, "twins": regions.twins}
    batches = _Phases(TensorBatches(rows, settings.batch_size, seed=seed), settings)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )

    def loss(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        assert isinstance(model, (ParsingHead, PlainHead))
        model.scale.eval()
        if isinstance(model, PlainHead):
            return {"loss": functional.cross_entropy(model(batch["cells"].float()), batch["labels"])}
        return _parsing_loss(model, batch, regions)

    history = fit(
        head,
        batches,
        loss,
        optimizer=optimizer,
        epochs=settings.epochs,
        scheduler=one_cycle(optimizer, settings.learning_rate, settings.epochs * len(batches), rise=0.1),
        scheduler_steps="batch",
        clip_norm=5.0,
        checkpoint=checkpoint,
        precision="float32",
        description=f"Training the {settings.kind} head",
        quiet=quiet,
    )
    return head.cpu(), history


class _Phases:
    """Batches that know whether their epoch is one of folded or of unfolded OR nodes."""

    def __init__(self, batches: TensorBatches, settings: Settings) -> None:
        self.batches = batches
        self.folded = round(settings.folded * settings.epochs)
        self.temperature = 0.0

    def set_epoch(self, epoch: int) -> None:
        self.temperature = math.inf if epoch < self.folded else 0.0
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Any:
        return (batch | {"temperature": self.temperature} for batch in self.batches)


def _parsing_loss(head: ParsingHead, batch: Mapping[str, Any], regions: Regions) -> dict[str, Tensor]:
    settings, cells, labels = head.settings, batch["cells"].float(), batch["labels"]
    embedded = head.embedded(cells)
    maps = head.part_maps(embedded)
    task = functional.cross_entropy(head.scores(embedded, maps, batch["temperature"]), labels)
    shown = torch.nonzero(batch["twins"] >= 0)[:, 0]
    if len(shown) == 0:
        return {"loss": task, "task": task.detach()}
    kinds, twins = labels[shown], batch["twins"][shown].cpu()
    twin_cells = regions.twin_cells[twins].to(cells.device).float()
    twin_boxes = regions.twin_boxes[twins].to(cells.device)
    shares = head.shares(maps[shown, kinds])
    again = head.part_maps(head.embedded(twin_cells))
    others = head.shares(again[torch.arange(len(shown), device=cells.device), kinds])
    asked = asked_of_parts(shares, others, batch["boxes"][shown], twin_boxes)
    gathered = torch.einsum("nkij,ncij->nkc", shares, head.scale(cells[shown]))
    asked["different"] = likeness(gathered / shares.sum((2, 3))[..., None].clamp_min(1e-3))
    total = task + sum(getattr(settings, name) * value for name, value in asked.items())
    return {"loss": total, "task": task.detach(), **{name: value.detach() for name, value in asked.items()}}


def asked_of_parts(shares: Tensor, others: Tensor, boxes: Tensor, other_boxes: Tensor) -> dict[str, Tensor]:
    """Return what the parts of objects lack, each a scalar.

    Parameters
    ----------
    shares, others : Tensor, (n, parts, g, g)
        How the parts share out the cells of a region, and of another region of the same object.
    boxes, other_boxes : Tensor, (n, 4)
        Where the regions are.

    Returns
    -------
    dict of str to Tensor
        ``gathered``, the spread about the centre of gravity over that of an even share; ``present``, what is missing to
        fill two by two cells of each region; ``moved``, the squared difference of the shares where both regions look.
    """
    side = shares.shape[-1]
    present = functional.avg_pool2d(shares, min(2, side), 1).amax((2, 3))
    places = (torch.arange(side, device=shares.device, dtype=shares.dtype) + 0.5) / side
    points = boxes[:, None, :2] + (boxes[:, None, 2:] - boxes[:, None, :2]) * places[None, :, None]
    there = (points - other_boxes[:, None, :2]) / (other_boxes[:, None, 2:] - other_boxes[:, None, :2])
    rows, columns = 2 * there[..., 0] - 1, 2 * there[..., 1] - 1
    grid = torch.stack([columns[:, None, :].expand(-1, side, -1), rows[:, :, None].expand(-1, -1, side)], -1)
    moved = functional.grid_sample(others, grid, align_corners=False, padding_mode="border")
    both = (grid.abs() <= 1).all(-1).to(shares.dtype)
    differ = ((shares - moved).square().sum(1) * both).sum() / both.sum().clamp_min(1)
    return {
        "gathered": spread(shares).mean() / (side**2 / 6),
        "present": (1 - present).mean(),
        "moved": differ,
    }


# --------------------------------------------------------------------------------------------- detecting


@torch.no_grad()
def detect(
    head: Head, data: MappedImages, proposed: Sequence[Tensor], grid: int, *, quiet: bool = True
) -> list[Boxes]:
    """Return what a head finds in images among proposed boxes, the surest first.

    Parameters
    ----------
    head : ParsingHead or PlainHead
        Trained.
    data : MappedImages
        The images.
    proposed : sequence of Tensor, (n, 4)
        Boxes of each image, as :func:`proposals` gives them.
    grid : int
        Cells along each side of a region.
    quiet : bool
        Whether to show no progress bar.

    Returns
    -------
    list of Boxes
        Of each image; scores are probabilities of the category. A box that overlaps with a surer one of its category is
        left out.
    """
    found = []
    for number in track(range(len(data.images)), "Detecting", quiet=quiet):
        boxes = proposed[number]
        maps = data.maps.tensor([number]).expand(len(boxes), -1, -1, -1)
        cells = region_maps(maps, boxes, grid, data.maps.grid.field)
        sure = torch.cat([head(some) for some in cells.split(_AT_ONCE)]).softmax(1)[:, :-1]
        rows, kinds = [], []
        for category in range(sure.shape[1]):
            able = torch.nonzero(sure[:, category] > _SURE)[:, 0]
            kept = able[suppressed(boxes[able], sure[able, category], _OTHER)]
            rows.append(kept)
            kinds.append(torch.full((len(kept),), category))
        row, kind = torch.cat(rows), torch.cat(kinds)
        scores = sure[row, kind]
        best = scores.argsort(descending=True, stable=True)[:_MOST]
        found.append(Boxes.of(boxes[row[best]].numpy(), kind[best].numpy(), scores[best].numpy()))
    return found


def part_places(
    head: ParsingHead, cells: Tensor, categories: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where the parts of the best parses are, and how strong.

    Parameters
    ----------
    head : ParsingHead
        Trained.
    cells : Tensor, (n, c, g, g)
        Of regions.
    categories : Tensor of int64, (n,)
        As what they are parsed.

    Returns
    -------
    strengths : ndarray of float, (n, parts)
        The score of the strongest tile that is this part; below all others where the parse has none, and then that of
        the rectangle that would be it best.
    places : ndarray of float, (n, parts, 2)
        The centre of that tile as shares of the region's height and width.
    """
    found = head.explain(cells, categories)
    parts = head.kinds - 1
    mine = found.parses.used()[:, None] & (found.parts[:, None] == torch.arange(parts)[None, :, None])
    there = mine.any(2)
    scores = torch.where(mine | ~there[..., None], found.scores[:, :parts], -torch.inf)
    strengths, tiles = scores.max(2)
    # What is in no parse comes after all that is in one.
    below = float(strengths.max() - strengths.min()) + 1.0
    edges = torch.from_numpy(head.grammar.tiles).double() / head.grammar.side
    centres = (edges[:, :2] + edges[:, 2:]) / 2
    return torch.where(there, strengths, strengths - below).double().numpy(), centres[tiles].numpy()


def strongest_cells(maps: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how strong filters are in regions, and where: values (n, f) and places (n, f, 2) as shares of the region.

    Parameters
    ----------
    maps : Tensor, (n, filters, g, g)
        Responses of filters to the cells.
    """
    values, places = strongest_places(maps)
    rows, columns = np.divmod(places.numpy(), maps.shape[3])
    shares = np.stack([(rows + 0.5) / maps.shape[2], (columns + 0.5) / maps.shape[3]], -1)
    return values.double().numpy(), shares
