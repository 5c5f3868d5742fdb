"""Images as files: read with care, found in folders, streamed in batches."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from interpretkit.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# Below this there is nothing to see, and the scaling to a network's size makes up nearly all that it is shown.
SMALLEST_SIDE = 8
_READ_WHOLE = 8
_ORIENTATION = 0x0112
# The photograph shown when none is named: scikit-image's cat, which comes with the package.
DEFAULT_PHOTOGRAPH = "chelsea"
# Pillow says SyntaxError for a damaged PNG and Image.DecompressionBombError for one that would fill the memory.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def read_image(path: Path | str, *, convert: bool = False) -> Image.Image:
    """Return an image that a network is to be shown as 8-bit RGB, the right way up.

    Parameters
    ----------
    path : path
        A file in any format that Pillow reads. Of an animation the first frame is taken.
    convert : bool
        Turn CMYK into RGB, 16 bits into 8 (the image's own range becoming 0 … 255) and lay transparent images on
        white. Without it they are refused, for a network's answer would depend on how this is done.

    Raises
    ------
    InputError
        If the file is missing, no image, damaged, smaller than 8 pixels on a side, or of a kind that must be
        converted.
    """
    image = open_image(path, upright=True)
    if min(image.size) < SMALLEST_SIDE:
        raise InputError(
            f"{path}: is {image.width} × {image.height} px; expected at least {SMALLEST_SIDE} px on each side"
        )
    return _as_rgb(image, str(path), convert=convert)


@dataclass(frozen=True)
class ImageFiles:
    """The images of a set, in files or in the bytes of files, each read when it is asked for.

    Grey becomes grey in all three channels, CMYK becomes RGB, and transparent images are laid on white.

    Attributes
    ----------
    files : sequence of paths, or of uint8 arrays
        Where the images are.
    upright : bool
        Turn photographs as their camera says that they were taken. Not for images that are annotated by pixel: the
        annotations count the rows and columns of the file.
    name : str
        What the images without a path are called in errors.
    """

    files: Sequence[Path] | Sequence[NDArray[np.uint8]]
    upright: bool = True
    name: str = ""

    def pixels(self, number: int) -> NDArray[np.uint8]:
        """Return image `number`, ``(h, w, 3)``.

        Raises
        ------
        InputError
            If its file is missing, no image, damaged, or has more than 8 bits a channel.
        """
        name = self._name(number)
        image = open_image(self._file(number), name=name, upright=self.upright)
        if _is_deep(image):
            # An image's own range would become 0 … 255, and images of one set would not be alike any more.
            raise InputError(f"{name}: {_depth(image)}; expected 8 bits a channel, scale them")
        return np.asarray(_as_rgb(image, name, convert=True))

    def size(self, number: int) -> tuple[int, int]:
        """Return height and width of image `number`, px, read from its header."""
        try:
            with Image.open(self._file(number)) as image:
                turned = self.upright and image.getexif().get(_ORIENTATION, 1) >= 5
                return (image.width, image.height) if turned else (image.height, image.width)
        except _DAMAGED as error:
            raise _unreadable(self._name(number), error) from error

    def _file(self, number: int) -> Path | IO[bytes]:
        file = self.files[number]
        return file if isinstance(file, Path) else io.BytesIO(file.tobytes())

    def _name(self, number: int) -> str:
        file = self.files[number]
        return str(file) if isinstance(file, Path) else f"{self.name}: image {number}"


def open_image(file: Path | str | IO[bytes], *, name: str = "", upright: bool) -> Image.Image:
    """Return an image in the colour mode of its file, whole in memory.

    Parameters
    ----------
    file : path or binary file
        Of an animation the first frame is taken.
    name : str
        What the image is called in errors; by default its path.
    upright : bool
        Turn it as the camera says that it was taken.

    Raises
    ------
    InputError
        If the file is missing, no image or damaged.
    """
    name = name or str(file)
    try:
        with Image.open(file) as opened:
            opened.load()
            return ImageOps.exif_transpose(opened) if upright else opened.copy()
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file; expected an image") from error
    except _DAMAGED as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> InputError:
    if isinstance(error, UnidentifiedImageError):
        return InputError(f"{name}: is not an image that can be read; expected PNG, JPEG or the like")
    return InputError(f"{name}: cannot be read as an image ({error}); expected an undamaged one")


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith(("I", "F"))


def _depth(image: Image.Image) -> str:
    return f"has more than 8 bits a channel (mode {image.mode})"


def _as_rgb(image: Image.Image, name: str, *, convert: bool) -> Image.Image:
    if image.mode in ("RGB", "L", "1"):
        return image.convert("RGB")
    if image.mode == "P" and "transparency" not in image.info:
        return image.convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "P"):
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() == (255, 255):
            return rgba.convert("RGB")
        if not convert:
            raise _refusal(name, "is transparent in places", "lay it on white")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    if image.mode == "CMYK":
        if not convert:
            raise _refusal(name, "has CMYK colours, made for printing", "turn them into RGB")
        return image.convert("RGB")
    if _is_deep(image):
        if not convert:
            raise _refusal(name, _depth(image), "scale them to 8")
        return _to_8_bits(image, name)
    raise InputError(f"{name}: has the colour mode {image.mode}; expected RGB or grey, 8 bits a channel")


def _to_8_bits(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"{name}: holds NaN or infinite values; expected finite ones")
    low, high = values.min(), values.max()
    scaled = (values - low) / (high - low) * 255 if high > low else np.zeros_like(values)
    return Image.fromarray(scaled.round().astype(np.uint8)).convert("RGB")


def _refusal(name: str, what: str, cure: str) -> InputError:
    return InputError(f"{name}: {what}; expected an opaque 8-bit RGB or grey image (`convert` to {cure})")


def image_files(folder: Path, *, deep: bool = False) -> list[Path]:
    """Return the image files of a folder, and if `deep` of all folders below it, in the order of their paths.

    Hidden files, and those in hidden folders, are left out: programs keep previews there.
    """
    inside = folder.rglob("*") if deep else folder.iterdir()
    return sorted(
        path
        for path in inside
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def find_images(paths: Iterable[Path | str]) -> list[Path]:
    """Return the image files that paths stand for, those of a folder in the order of their names.

    Parameters
    ----------
    paths : iterable of paths
        Files, and folders that are searched to their depths for files whose endings are those of images.

    Raises
    ------
    InputError
        If a path is empty or does not exist, or a folder holds no image.
    """
    found: list[Path] = []
    for given in paths:
        path = Path(given)
        # An empty name, as an unset variable of the shell leaves it, would stand for the current folder.
        if str(given) == "":
            raise InputError("'': is no name; expected an image or a folder of images")
        if path.is_dir():
            inside = image_files(path, deep=True)
            if not inside:
                raise InputError(f"{path}: holds no images; expected files such as photo.jpg")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(f"{path}: no such file or folder; expected an image or a folder of images")
    return found


def check_images(paths: Iterable[Path], *, convert: bool = False) -> None:
    """Refuse what cannot be shown to a network, before the network is loaded.

    The first few images are read whole; of the others only what their headers say is looked at, which takes less than
    a millisecond each.

    Raises
    ------
    InputError
        See :func:`read_image`.
    """
    for number, path in enumerate(paths):
        if number < _READ_WHOLE:
            read_image(path, convert=convert)
            continue
        try:
            with Image.open(path) as opened:
                small = min(opened.size) < SMALLEST_SIDE
                refused = not convert and (opened.mode == "CMYK" or _is_deep(opened))
        except _DAMAGED:
            small = refused = True
        if small or refused:
            read_image(path, convert=convert)  # which says why


def in_batches(
    paths: Sequence[Path], size: int, *, convert: bool = False
) -> Iterator[tuple[Sequence[Path], list[Image.Image]]]:
    """Read images some at a time, so that a folder of any length needs no more memory than a batch.

    Yields
    ------
    paths, images
        Paths and images of up to `size` images.

    Raises
    ------
    InputError
        See :func:`read_image`.
    """
    for start in range(0, len(paths), size):
        some = paths[start : start + size]
        yield some, [read_image(path, convert=convert) for path in some]


def photograph(name: str = DEFAULT_PHOTOGRAPH) -> Image.Image:
    """Return a photograph that comes with scikit-image, such as ``chelsea`` (a cat), ``coffee`` or ``rocket``.

    Raises
    ------
    InputError
        If the package holds no photograph of that name.
    """
    from skimage import data

    folder = Path(data.__file__).parent
    for suffix in (".png", ".jpg"):
        if (folder / f"{name}{suffix}").is_file():
            return read_image(folder / f"{name}{suffix}", convert=True)
    known = ", ".join(sorted(p.stem for p in folder.iterdir() if p.suffix in (".png", ".jpg")))
    raise InputError(f"photograph {name!r}: scikit-image brings none of that name; expected one of {known}")
