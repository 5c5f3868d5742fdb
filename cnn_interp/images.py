"""Images as files: read with care, found in folders, streamed in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from interpretkit.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# Below this there is nothing to see, and the scaling to a network's size makes up nearly all that it is shown.
SMALLEST_SIDE = 8
_READ_WHOLE = 8
# The photograph shown when none is named: scikit-image's cat, which comes with the package.
DEFAULT_PHOTOGRAPH = "chelsea"


def read_image(path: Path | str, *, convert: bool = False) -> Image.Image:
    """Return an image as 8-bit RGB, the right way up.

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
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an image")
    try:
        with Image.open(path) as opened:
            opened.load()
            image = ImageOps.exif_transpose(opened)
    except UnidentifiedImageError as error:
        raise InputError(
            f"{path}: is not an image that can be read; expected PNG, JPEG or the like"
        ) from error
    # Pillow says SyntaxError for a damaged PNG and Image.DecompressionBombError for one that would fill the memory.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path}: cannot be read as an image ({error}); expected an undamaged one"
        ) from error
    if min(image.size) < SMALLEST_SIDE:
        raise InputError(
            f"{path}: is {image.width} × {image.height} px; expected at least {SMALLEST_SIDE} px on each side"
        )
    return _as_rgb(image, str(path), convert=convert)


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
    if image.mode.startswith(("I", "F")):
        if not convert:
            raise _refusal(name, f"has more than 8 bits a channel (mode {image.mode})", "scale them to 8")
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
    return InputError(f"{name}: {what}; expected an opaque 8-bit RGB or grey image (--convert to {cure})")


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
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
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
                refused = not convert and (opened.mode == "CMYK" or opened.mode.startswith(("I", "F")))
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
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
        Of up to `size` images.

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
