"""Images of one kind of object, as a graph or concepts are learned from, and how they are divided."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cnn_interp.commands._loading import ARTICULATED, PART_KINDS, spread
from interpretkit.commandline import kind_and_path, one_of
from interpretkit.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from cnn_interp.images.part_images import PartImages
    from cnn_interp.images.sets import Images
    from cnn_interp.networks.network import Network

FOLDER = "images"
OneKindData = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="KIND=PATH",
        help=f"Images of one kind of object: {FOLDER}=FOLDER of your own; with annotated parts {', '.join(PART_KINDS)} "
        "=FOLDER, or 'articulated', which the project draws itself.",
    ),
]
Category = Annotated[
    str,
    typer.Option(
        "--category", metavar="NAME", help="Of data with several; the first by default.", show_default=False
    ),
]
Count = Annotated[
    int, typer.Option("--images", metavar="N", min=4, help="How many images, spread over the data.")
]


@dataclass(frozen=True)
class OneKind:
    """Images of one kind of object.

    Attributes
    ----------
    images : Images
        The set.
    category : str
        What it shows; the set's name if it does not say.
    files : list of path
        That say what they are.
    learned, measured : ndarray of int
        Which to learn from, and which to measure on: the first and the second half. Without annotated parts there is
        nothing to measure, and all are learned from.
    """

    images: Images
    category: str
    files: list[Path]
    learned: np.ndarray
    measured: np.ndarray

    @property
    def parts(self) -> PartImages | None:
        """The images with their parts; None without any."""
        from cnn_interp.images.part_images import PartImages

        return self.images if isinstance(self.images, PartImages) else None

    def landmarks(self, network: Network) -> np.ndarray:
        """Return the landmarks of the images that are measured on, px of the network's inputs ``(m, parts, 2)``."""
        from cnn_interp.images.batches import landmarks_in_inputs

        assert self.parts is not None
        found = landmarks_in_inputs(self.parts, network.size)[self.measured]
        return found[:, self.shown_parts]

    @property
    def shown_parts(self) -> np.ndarray:
        """The numbers of the parts that two or more of the images measured on show."""
        import numpy as np

        assert self.parts is not None
        return np.flatnonzero(self.parts.annotated[self.measured].sum(axis=0) > 1)

    @property
    def part_names(self) -> list[str]:
        """What those parts are called."""
        assert self.parts is not None
        return [self.parts.part_names[part] for part in self.shown_parts]


def check_one_kind(data: str, category: str) -> None:
    """Refuse options that :func:`load_one_kind` would refuse, as far as can be seen before anything is read.

    Raises
    ------
    InputError
        If the data have another form or are not there, or have no categories or none of that name.
    """
    kind, _ = kind_and_path(data, (*PART_KINDS, FOLDER), "data", words=[ARTICULATED])
    if not category:
        return
    if kind == FOLDER:
        raise InputError(f"category {category!r}: a folder of images has no categories; leave it out")
    if kind == ARTICULATED:
        from cnn_interp.images.articulated import CATEGORIES

        one_of(CATEGORIES, category, "category")


def load_one_kind(data: str, category: str, images: int, seed: int) -> OneKind:
    """Return images of one kind of object, at most `images` of them.

    Raises
    ------
    InputError
        If the folder is not as expected, or has no such category or too few images of it.
    """
    import numpy as np

    kind, path = kind_and_path(data, (*PART_KINDS, FOLDER), "data", words=[ARTICULATED])
    if path is None:
        from cnn_interp.images.articulated import CATEGORIES, articulated_images

        name = category or CATEGORIES[0]
        drawn = articulated_images(images, seed=seed, side=224, negatives=0.0, categories=(name,))
        return _halved(drawn, name, [])
    if kind == FOLDER:
        from cnn_interp.images.folders import read_folder

        found = read_folder(path)
        found = found.subset(spread(len(found), images))
        _expect_enough(found, found.name, 2)
        every = np.arange(len(found))
        return OneKind(found, found.name, [path / name for name in found.ids], every, every[:0])
    from cnn_interp.images.reading import read_parts

    annotated = read_parts(kind, path)
    name = category or annotated.category_names[int(annotated.categories.min(initial=0))]
    chosen = annotated.of_category(one_of(annotated.category_names, name, "category"))
    files = [path / "landmarks.csv"] if kind == "animal-part" else []
    return _halved(chosen.subset(spread(len(chosen), images)), name, files)


def _halved(images: PartImages, name: str, files: list[Path]) -> OneKind:
    import numpy as np

    # Two to learn from and two to measure on.
    _expect_enough(images, name, 4)
    # Relatives follow each other, so that halves are in one piece.
    half = len(images) // 2
    return OneKind(images, name, files, np.arange(half), np.arange(half, len(images)))


def _expect_enough(images: Images, name: str, least: int) -> None:
    if len(images) < least:
        raise InputError(f"data: {len(images)} images of {name}; expected at least {least}")
