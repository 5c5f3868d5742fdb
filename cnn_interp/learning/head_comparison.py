"""A parsing head beside a plain one: how well they detect, and whether parse nodes stay with parts of the objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnn_interp.learning.detection import (
    Detector,
    MappedImages,
    ParsingHead,
    PlainHead,
    Settings,
    detect,
    draw_regions,
    part_places,
    proposals,
    strongest_cells,
    train_head,
    train_refiner,
)
from cnn_interp.learning.regions import matched
from cnn_interp.metrics.average_precision import Boxes, DetectionScore, detection_score
from cnn_interp.metrics.location_instability import LocationInstability, location_instability
from interpretkit.runs.progress import track
from interpretkit.training.loop import History

NODES, TRUNK, PLAIN = "parse nodes", "filters of the trunk", "filters of the plain head"
# The side of the frame in which places in a box are told, and the cells at which the trunk's filters are read.
FRAME, FINE = 224, 14


@dataclass(frozen=True, eq=False)
class Comparison:
    """What was measured of detectors on test images.

    Attributes
    ----------
    detectors : mapping of str to Detector
        The parsing one, and the plain one if there is one.
    found : mapping of str to list of Boxes
        What each found in every test image.
    scores : mapping of str to DetectionScore
        How well.
    tracking : mapping of str to LocationInstability
        Of parse nodes, of the trunk's filters and of the plain head's, in the objects' true boxes.
    recall : float
        Share of the test objects that some proposed box overlaps with by half.
    proposed : float
        Boxes proposed in an image, mean.
    used : float
        Tiles of a best parse, mean over the test objects.
    histories : mapping of str to History
        Of the trainings.
    """

    detectors: Mapping[str, Detector]
    found: Mapping[str, list[Boxes]]
    scores: Mapping[str, DetectionScore]
    tracking: Mapping[str, LocationInstability]
    recall: float
    proposed: float
    used: float
    histories: Mapping[str, History]

    @property
    def parsing(self) -> ParsingHead:
        """The parsing head."""
        head = self.detectors["parsing"].head
        assert isinstance(head, ParsingHead)
        return head


def train_detectors(
    train: MappedImages,
    settings: Settings,
    *,
    kinds: Sequence[str] = ("parsing", "plain"),
    seed: int = 0,
    device: str | torch.device = "cpu",
    folder: Path | None = None,
    trunk: str = "",
    quiet: bool = True,
) -> tuple[dict[str, Detector], dict[str, History]]:
    """Train one refinement of boxes, and heads on the same regions, from the same seed and for as long.

    Parameters
    ----------
    train : MappedImages
        Training images.
    settings : Settings
        Of the heads, whatever their kind.
    kinds : sequence of str
        Which heads.
    seed : int
        Of everything.
    device : str or torch.device
        Where to train the heads.
    folder : path, optional
        Where trainings are kept, to go on from.
    trunk : str
        The network's name, which the detectors keep.
    quiet : bool
        Whether to show no progress bars.
    """
    refiner = train_refiner(
        train,
        settings.grid,
        seed=seed,
        checkpoint=None if folder is None else folder / "refinement",
        quiet=quiet,
    )
    regions = draw_regions(train, refiner, settings.grid, seed=seed, quiet=quiet)
    detectors, histories = {}, {}
    for kind in kinds:
        chosen = replace(settings, kind=kind)  # type: ignore[arg-type]
        head, histories[kind] = train_head(
            regions,
            len(train.images.category_names),
            chosen,
            seed=seed,
            device=device,
            checkpoint=None if folder is None else folder / kind,
            quiet=quiet,
        )
        detector = Detector(
            train.maps.units, train.images.category_names, chosen, trunk=trunk, layer=train.maps.layer
        )
        detector.refiner.load_state_dict(refiner.state_dict())
        detector.head = head
        detectors[kind] = detector.eval()
    return detectors, histories


def compare(
    detectors: Mapping[str, Detector],
    test: MappedImages,
    *,
    histories: Mapping[str, History] | None = None,
    quiet: bool = True,
) -> Comparison:
    """Measure detectors with the same refinement of boxes on test images.

    Parameters
    ----------
    detectors : mapping of str to Detector
        As :func:`train_detectors` gives them; ``parsing`` is among them.
    test : MappedImages
        Images that they were not trained on.
    histories : mapping of str to History, optional
        Of their trainings.
    quiet : bool
        Whether to show no progress bars.
    """
    first = detectors["parsing"]
    grid = first.settings.grid
    places = track(range(len(test.images)), "Proposing boxes", quiet=quiet)
    proposed = [proposals(first.refiner, test, number, grid) for number in places]
    overlaps = [
        matched(test.true_boxes(number), boxes)[0]
        for number, boxes in enumerate(proposed)
        if len(test.true_boxes(number))
    ]
    found = {
        kind: detect(detector.head, test, proposed, grid, quiet=quiet) for kind, detector in detectors.items()
    }
    truths = test.truths()
    scores = {kind: detection_score(some, truths, len(first.category_names)) for kind, some in found.items()}
    tracking, used = follow_parts(detectors, test)
    return Comparison(
        detectors,
        found,
        scores,
        tracking,
        float((torch.cat(overlaps) >= 0.5).double().mean()),
        float(np.mean([len(boxes) for boxes in proposed])),
        used,
        dict(histories or {}),
    )


@torch.no_grad()
def follow_parts(
    detectors: Mapping[str, Detector], data: MappedImages
) -> tuple[dict[str, LocationInstability], float]:
    """Return how parse nodes and filters follow the parts of objects in their true boxes, and the tiles of a parse.

    Places are told within the box, so that a place that stands still there has an R² of 0. In the image even the box's
    middle follows every part, since the whole object moves. Where no part is annotated in two objects of a category,
    there is nothing to follow, and the mapping is empty.
    """
    numbers, boxes, categories, marks = data.objects()
    head = detectors["parsing"].head
    assert isinstance(head, ParsingHead)
    cells = data.cells(numbers, boxes, detectors["parsing"].settings.grid)
    used = float(head.explain(cells, categories).parses.used().sum(1).double().mean())
    tracking: dict[str, LocationInstability] = {}
    known = np.asarray(~np.isnan(marks).any(2))
    kinds = range(len(data.images.category_names))
    if max((int(known[categories.numpy() == kind].sum(0).max(initial=0)) for kind in kinds), default=0) < 2:
        return tracking, used

    def measure(name: str, found: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
        values, places = found
        tracking[name] = location_instability(
            values,
            places * FRAME - 0.5,
            marks * FRAME - 0.5,
            (FRAME, FRAME),
            categories=categories.numpy(),
            category_names=data.images.category_names,
            part_names=data.images.part_names,
        )

    measure(NODES, part_places(head, cells, categories))
    measure(TRUNK, strongest_cells(_fine(data, numbers, boxes)))
    plain = detectors["plain"].head if "plain" in detectors else None
    if isinstance(plain, PlainHead):
        measure(PLAIN, strongest_cells(plain.filter_maps(cells)))
    return tracking, used


def _fine(data: MappedImages, numbers: Tensor, boxes: Tensor) -> Tensor:
    return data.cells(numbers, boxes, FINE)


def pairs(values: LocationInstability) -> NDArray[np.float64]:
    """Return all R² of pairs of category and part that enough images show, (pairs · units,)."""
    return values.tracking[values.enough].ravel()
