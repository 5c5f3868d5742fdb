"""Labelled, part-annotated and segmented images: readers of published sets, and sets that are drawn on demand."""

from cnn_interp.datasets.affnist import read_affnist
from cnn_interp.datasets.animal_part import read_animal_part
from cnn_interp.datasets.articulated import articulated_images
from cnn_interp.datasets.broden import read_broden
from cnn_interp.datasets.composed import composed_concepts
from cnn_interp.datasets.concept_images import Concept, ConceptImages
from cnn_interp.datasets.contact_sheet import contact_sheet
from cnn_interp.datasets.cub import read_cub
from cnn_interp.datasets.folders import read_folder, read_labelled_folders
from cnn_interp.datasets.images import Images, LabelledImages
from cnn_interp.datasets.jpeg_archive import read_jpeg_archive, write_jpeg_archive
from cnn_interp.datasets.mnist import read_mnist
from cnn_interp.datasets.part_images import PartImages
from cnn_interp.datasets.pascal_part import read_pascal_part
from cnn_interp.datasets.reading import KINDS, read, read_labelled
from cnn_interp.datasets.small_norb import read_small_norb

__all__ = [
    "KINDS",
    "Concept",
    "ConceptImages",
    "Images",
    "LabelledImages",
    "PartImages",
    "articulated_images",
    "composed_concepts",
    "contact_sheet",
    "read",
    "read_affnist",
    "read_animal_part",
    "read_broden",
    "read_cub",
    "read_folder",
    "read_jpeg_archive",
    "read_labelled",
    "read_labelled_folders",
    "read_mnist",
    "read_pascal_part",
    "read_small_norb",
    "write_jpeg_archive",
]
