"""Networks, images and tables that several checks begin with."""

# Heavy packages are imported inside the functions, so that the list of commands and their help come at once.

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interpretkit.commandline import kind_and_path, listed
from interpretkit.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from cnn_interp.diagnosis.small_network import Pictures
    from cnn_interp.diagnosis.training_audit import LabelledFeatures
    from cnn_interp.images.concept_images import ConceptImages
    from cnn_interp.images.part_images import PartImages
    from cnn_interp.images.sets import LabelledImages
    from cnn_interp.learning.grey_images import GreyImages
    from cnn_interp.networks.network import Network

# Of the pictures of labelled images, at most, px.
_THUMBNAIL = 160
# Of rendered scenes, px; enough to see their parts.
SCENE_SIDE = 96
# Sets of images that the project makes itself, and kinds of sets with annotated parts.
COMPOSED, ARTICULATED = "composed", "articulated"
# A folder with a subfolder of pictures for each category.
FOLDERS = "folders"
PART_KINDS = ("animal-part", "cub", "pascal-part")
# Small labelled images: a word for those that need no path, and kinds of those that do.
DIGITS = "digits"
GREY_KINDS = ("mnist", "affnist", "labelled-images")


def classifier(name: str, weights: str, device: str, seed: int) -> Network:
    """Return a network that has been seen to classify images."""
    network = _network(name, weights, device, seed)
    network.check_scores()
    return network


def classifier_and_side(
    name: str, weights: str, device: str, seed: int, side: int | None, usual: int = SCENE_SIDE
) -> tuple[Network, int]:
    """Return a network, and the side of images that it has been seen to classify, px.

    Without one the usual side is taken, small and so cheap; or the network's own, if it takes no other, as many
    transformers do.
    """
    network = _network(name, weights, device, seed)
    if side is None:
        with suppress(InputError):
            network.check_scores(usual)
            return network, usual
        side = network.size
    network.check_scores(side)
    return network, side


def _network(name: str, weights: str, device: str, seed: int) -> Network:
    from cnn_interp.networks.loading import load_network
    from interpretkit.training import resolve_device

    return load_network(name, weights=weights, device=resolve_device(device), seed=seed)


def layers_in(network: Network, text: str) -> list[str]:
    """Return the layers that a list of names gives; the network's output may be among them.

    Raises
    ------
    InputError
        If the network has no layer of a name.
    """
    from cnn_interp.diagnosis.layer_features import OUTPUT
    from interpretkit.networks.instrumentation import find_layer

    names = listed(text)
    for name in names:
        if name != OUTPUT:
            find_layer(network.module, name)
    return names


def images_as_pixels(
    network: Network, images: Sequence[Path] | None, convert: bool
) -> tuple[Tensor, list[str], list[Path]]:
    """Return what the network sees of images, or of a photograph, what they are called, and their files."""
    import torch

    from cnn_interp.diagnosis.layer_features import photographs_as_pixels
    from cnn_interp.images.files import DEFAULT_PHOTOGRAPH, find_images, in_batches, photograph

    if not images:
        return photographs_as_pixels(network, [photograph()]).cpu(), [DEFAULT_PHOTOGRAPH], []
    paths = find_images(images)
    parts = [photographs_as_pixels(network, some).cpu() for _, some in in_batches(paths, 32, convert=convert)]
    return torch.cat(parts), [path.name for path in paths], paths


def check_given(images: Sequence[Path] | None, convert: bool) -> list[Path]:
    """Return the files of the images given, seen to be images, before the network is loaded that is shown them."""
    from cnn_interp.images.files import check_images, find_images

    paths = find_images(images or ())
    check_images(paths, convert=convert)
    return paths


def check_grey_data(data: str, words: Sequence[str] = (DIGITS,)) -> tuple[str, Path | None]:
    """Return the kind and the path of an option ``--data`` for :func:`grey_data`."""
    return kind_and_path(data, GREY_KINDS, "data", words=words)


def grey_data(kind: str, path: Path | None, side: int, seed: int) -> tuple[GreyImages, list[Path]]:
    """Return labelled images as grey ones of a side, in px, and what was read."""
    from cnn_interp.images.sets import LabelledImages
    from cnn_interp.learning.grey_images import grey_images

    if path is None:
        from cnn_interp.images.digits import bundled_digits

        return grey_images(bundled_digits(), side=side, seed=seed), []
    from cnn_interp.images.reading import read

    found = read(kind, path)
    if not isinstance(found, LabelledImages):
        raise InputError(f"data {kind}={path}: has no labels; expected images with one label each")
    return grey_images(found, side=side, seed=seed), [path]


def check_small_data(data: str) -> None:
    """Refuse an option ``--data`` that :func:`small_pictures` would refuse, as far as the file's header tells."""
    if data == "digits":
        return
    _, path = kind_and_path(data, ["cifar10"], "data")
    assert path is not None
    from interpretkit.runs.arrays import read_headers

    if not any(name.endswith("jpeg") for name in read_headers(path)):
        raise InputError(
            f"{path}: has no array of JPEGs; expected train_jpeg, train_offsets, train_labels and so on"
        )


def check_folders(*folders: Path | None) -> None:
    """Refuse folders of labelled images that :func:`read_labelled` would refuse."""
    for folder in folders:
        if folder is not None:
            _read_labels(folder)


def _read_labels(folder: Path) -> tuple[LabelledImages, NDArray[np.intp], tuple[str, ...]]:
    """Return the images in a folder's subfolders, their labels from 0, and what these are called."""
    import numpy as np

    from cnn_interp.images.folders import read_labelled_folders

    found = read_labelled_folders(folder)
    values, labels = np.unique(found.labels, return_inverse=True)
    if len(values) < 2:
        raise InputError(f"{folder}: one label only; expected a subfolder for each of two or more")
    return found, labels, tuple(found.category_names[v] if found.category_names else str(v) for v in values)


def check_trained(path: Path) -> None:
    """Refuse a trained network that is missing or damaged."""
    from cnn_interp.networks.checks import check_file

    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a trained model (.safetensors)")
    try:
        check_file(path)
    except InputError as error:
        # The file was given by an option of the command's own, not as a network's weights.
        raise InputError(str(error).removeprefix("weights ")) from error


def scenes_as_pixels(side: int) -> tuple[Tensor, Any, Any]:
    """Return rendered scenes as pixels ``(n, 3, side, side)``, their factors, and the images as they were rendered."""
    import torch

    from cnn_interp.diagnosis.feature_distributions import render_scenes
    from cnn_interp.diagnosis.layer_features import resize

    images, factors = render_scenes()
    return resize(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, side), factors, images


def small_pictures(data: str) -> tuple[Pictures, list[Path]]:
    """Return what the option ``--data`` names, and its files.

    Raises
    ------
    InputError
        If it is neither ``digits`` nor ``cifar10=FILE``, or the file is not as expected.
    """
    from cnn_interp.diagnosis.small_network import digits, read_cifar10

    _, path = kind_and_path(data, ["cifar10"], "data", words=["digits"])
    return (digits(), []) if path is None else (read_cifar10(path), [path])


def read_labelled(
    folder: Path, network: str, device: str, quiet: bool
) -> tuple[LabelledFeatures, tuple[str, ...]]:
    """Return images with a network's features and labels from 0, and what the labels are called.

    Raises
    ------
    InputError
        If the folder does not hold images in a subfolder for each of two or more labels.
    """
    import numpy as np
    from PIL import Image

    from cnn_interp.diagnosis.linear_head import penultimate_features
    from cnn_interp.diagnosis.training_audit import LabelledFeatures
    from cnn_interp.networks.loading import load_network

    found, labels, categories = _read_labels(folder)
    loaded = load_network(network, device=device)
    loaded.check_scores()
    images = [Image.fromarray(image) for image in found]
    features = penultimate_features(loaded, images, quiet=quiet)
    for image in images:
        image.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    return LabelledFeatures(features, labels, found.ids, [np.asarray(image) for image in images]), categories


def load_concepts(data: str, images: int, seed: int) -> tuple[ConceptImages, list[Path]]:
    """Return images with labelled concepts, and the files that say what they are.

    Raises
    ------
    InputError
        If the option is neither ``composed`` nor ``broden=FOLDER``, or the folder is not as expected.
    """
    _, path = kind_and_path(data, ["broden"], "data", words=[COMPOSED])
    if path is None:
        from cnn_interp.images.composed import composed_concepts

        return composed_concepts(images, seed=seed), []
    from cnn_interp.images.broden import read_broden

    found = read_broden(path)
    return found.subset(spread(len(found), images)), [path / "index.csv", path / "label.csv"]


def load_parts(data: str, images: int, seed: int) -> tuple[PartImages, list[Path]]:
    """Return images with annotated parts as the networks see them, and the files that say what they are.

    Raises
    ------
    InputError
        If the option is neither ``articulated`` nor ``KIND=FOLDER``, or the folder is not as expected.
    """
    kind, path = kind_and_path(data, PART_KINDS, "data", words=[ARTICULATED])
    if path is None:
        from cnn_interp.images.articulated import articulated_images

        drawn = articulated_images(
            images, seed=seed, side=224, negatives=0.0, categories=("quadruped", "bird", "person", "car")
        )
        return drawn, []
    from cnn_interp.images.reading import read_parts

    found = read_parts(kind, path)
    files = [path / "landmarks.csv"] if kind == "animal-part" else []
    return found.subset(spread(len(found), images)), files


def folders_as_parts(folder: Path) -> PartImages:
    """Return the pictures of a folder's subfolders, one for each category, as images without any annotated part."""
    import numpy as np

    from cnn_interp.images.folders import read_labelled_folders
    from cnn_interp.images.part_images import PartImages

    labelled = read_labelled_folders(folder)
    values, numbers = np.unique(labelled.labels, return_inverse=True)
    return PartImages(
        name=labelled.name,
        ids=labelled.ids,
        load=labelled.load,
        load_size=labelled.load_size,
        categories=numbers.astype(np.intp),
        category_names=labelled.category_names or tuple(map(str, values)),
        part_names=(),
        landmarks=np.empty((len(labelled), 0, 2)),
        absence_known=False,
    )


def spread(total: int, wanted: int) -> list[int]:
    """Return so many of the numbers 0 … total − 1, evenly spread; all if there are no more."""
    return [place * total // wanted for place in range(wanted)] if wanted < total else list(range(total))


def chosen_layers(network: Network, text: str) -> list[str]:
    """Return the layers that a list of names gives, or the last layer whose map has more than one position."""
    import torch

    from interpretkit.networks.instrumentation import find_layer
    from interpretkit.networks.recording import map_layers

    names = listed(text)
    for name in names:
        find_layer(network.module, name)
    if names:
        return list(dict.fromkeys(names))
    blank = torch.zeros(1, 3, network.size, network.size, device=network.device)
    maps = [name for name, shape in map_layers(network.module, blank).items() if shape[1] * shape[2] > 1]
    if not maps:
        raise InputError(f"--model {network.name}: has no layer that gives maps")
    # Of a row of blocks, the last: it gives the same, and bears the name that people know it by.
    last = network.module.get_submodule(maps[-1])
    if isinstance(last, torch.nn.Sequential) and len(last):
        return [f"{maps[-1]}.{list(last._modules)[-1]}"]
    return [maps[-1]]
