"""How interpretable the units of a network are: network dissection, part interpretability, location instability."""

from cnn_interp.images.batches import ConceptBatches, InputBatches, PartMaskBatches, landmarks_in_inputs
from cnn_interp.metrics.dissection import Dissection, dissect
from cnn_interp.metrics.location_instability import (
    LocationInstability,
    Peaks,
    find_peaks,
    location_instability,
)
from cnn_interp.metrics.part_interpretability import PartInterpretability, part_interpretability

__all__ = [
    "ConceptBatches",
    "Dissection",
    "InputBatches",
    "LocationInstability",
    "PartInterpretability",
    "PartMaskBatches",
    "Peaks",
    "dissect",
    "find_peaks",
    "landmarks_in_inputs",
    "location_instability",
    "part_interpretability",
]
