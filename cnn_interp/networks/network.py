"""A network with all that is needed to show it images and to read its outputs."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from interpretkit.errors import InputError
from interpretkit.networks.instrumentation import instrumented
from interpretkit.runs.files import dump_json
from interpretkit.training import state_digest

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# How long-published networks see an image: the short side at 256, the middle 224 of it.
IMAGENET_RESIZE, IMAGENET_SIZE = 256, 224
SCORES = "expected one tensor of scores, (images, categories)"
"""What a network that classifies gives, in the words of every complaint."""
_INPUTS = "a network for images (n, 3, height, width); for another size, a cnn_interp.networks.Network"


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

    def run_blank(self, side: int | None = None) -> Any:
        """Return what the network gives for one grey image.

        Parameters
        ----------
        side : int, optional
            Side of the image, px; that of the network's inputs by default.

        Raises
        ------
        InputError
            If it cannot be run on such an image.
        """
        side = side or self.size
        inputs = self.normalise(torch.full((1, 3, side, side), 0.5))
        complaint = f"cannot be run on an image of {side} × {side} px"
        with instrumented(self.module, 0), torch.no_grad():
            return tried(self.name, complaint, _INPUTS, lambda: self.module(inputs))

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
        outputs = self.run_blank(side)
        if not isinstance(outputs, Tensor):
            raise InputError(f"network {self.name!r}: gives a {type(outputs).__name__}; {SCORES}")
        if outputs.ndim != 2 or outputs.shape[0] != 1:
            raise InputError(
                f"network {self.name!r}: gives outputs of shape {tuple(outputs.shape)} for one image; {SCORES}"
            )
        if not bool(torch.isfinite(outputs).all()):
            raise InputError(f"network {self.name!r}: gives NaN or infinite scores; expected finite ones")
        return outputs.shape[1]

    @staticmethod
    def _channelwise(values: Sequence[float], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device).reshape(1, -1, 1, 1)


def tried(name: str, complaint: str, expected: str, call: Callable[[], Any]) -> Any:
    """Call what a user wrote, and say in one line how it fails."""
    try:
        return call()
    except InputError:
        raise
    # A user's code may raise anything, and whatever it is, it is theirs to mend; it stays in the chain of causes.
    except Exception as error:
        raise InputError(
            f"network {name!r}: {complaint} ({type(error).__name__}: {first_line(error)}); expected {expected}"
        ) from error


def first_line(error: Exception) -> str:
    """Return what an error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
