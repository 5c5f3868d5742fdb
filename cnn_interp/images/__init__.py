"""Images: one reader of files, published sets that are labelled or annotated, and sets that are drawn on demand."""

from cnn_interp.images.affnist import read_affnist
from cnn_interp.images.animal_part import read_animal_part
from cnn_interp.images.articulated import articulated_images
from cnn_interp.images.broden import read_broden
from cnn_interp.images.composed import composed_concepts
from cnn_interp.images.concept_images import Concept, ConceptImages
from cnn_interp.images.contact_sheet import contact_sheet
from cnn_interp.images.cub import read_cub
from cnn_interp.images.files import find_images, photograph, read_image
from cnn_interp.images.folders import read_folder, read_labelled_folders
from cnn_interp.images.jpeg_archive import read_jpeg_archive, write_jpeg_archive
from cnn_interp.images.mnist import read_mnist
from cnn_interp.images.part_images import PartImages
from cnn_interp.images.pascal_part import read_pascal_part
from cnn_interp.images.reading import KINDS, read, read_labelled
from cnn_interp.images.sets import Images, LabelledImages
from cnn_interp.images.small_norb import read_small_norb

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
    "find_images",
    "photograph",
    "read",
    "read_affnist",
    "read_animal_part",
    "read_broden",
    "read_cub",
    "read_folder",
    "read_image",
    "read_jpeg_archive",
    "read_labelled",
    "read_labelled_folders",
    "read_mnist",
    "read_pascal_part",
    "read_small_norb",
    "write_jpeg_archive",
]
