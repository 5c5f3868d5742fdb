"""Images: one reader of files, published sets that are labelled or annotated, and sets that are drawn on demand."""

# A file is imported when a name of it is asked for: most bring large packages along, and help must not wait for them.

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnn_interp.images.affnist import read_affnist
    from cnn_interp.images.animal_part import read_animal_part
    from cnn_interp.images.articulated import articulated_images
    from cnn_interp.images.broden import read_broden
    from cnn_interp.images.composed import composed_concepts
    from cnn_interp.images.concept_images import Concept, ConceptImages
    from cnn_interp.images.contact_sheets import contact_sheet
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

_HOMES = {
    "Concept": "concept_images",
    "ConceptImages": "concept_images",
    "Images": "sets",
    "KINDS": "reading",
    "LabelledImages": "sets",
    "PartImages": "part_images",
    "articulated_images": "articulated",
    "composed_concepts": "composed",
    "contact_sheet": "contact_sheets",
    "find_images": "files",
    "photograph": "files",
    "read": "reading",
    "read_affnist": "affnist",
    "read_animal_part": "animal_part",
    "read_broden": "broden",
    "read_cub": "cub",
    "read_folder": "folders",
    "read_image": "files",
    "read_jpeg_archive": "jpeg_archive",
    "read_labelled": "reading",
    "read_labelled_folders": "folders",
    "read_mnist": "mnist",
    "read_pascal_part": "pascal_part",
    "read_small_norb": "small_norb",
    "write_jpeg_archive": "jpeg_archive",
}


def __getattr__(name: str) -> Any:
    """Return what a file of the package offers under this name."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
