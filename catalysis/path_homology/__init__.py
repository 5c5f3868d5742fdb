"""Persistent path homology (GLMY) of weighted digraphs: barcodes, Betti curves, Betti numbers."""

from catalysis.path_homology.barcodes import Barcodes, Cycle
from catalysis.path_homology.batch import BatchBarcodes, persistence_batch
from catalysis.path_homology.curves import betti_curves
from catalysis.path_homology.engines import betti_numbers, persistence
from catalysis.path_homology.template import DigraphTemplate

__all__ = [
    "Barcodes",
    "BatchBarcodes",
    "Cycle",
    "DigraphTemplate",
    "betti_curves",
    "betti_numbers",
    "persistence",
    "persistence_batch",
]
