"""What can be told of an image from a layer: an up-convolutional decoder (Dosovitskiy & Brox, CVPR 2016)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cnn_interp.images.photographs import Photographs
from cnn_interp.networks.network import Network
from interpretkit.errors import InputError
from interpretkit.networks.fast_passes import run_fast
from interpretkit.networks.instrumentation import instrumented
from interpretkit.networks.truncated import UpTo
from interpretkit.training import History, TensorBatches, derive_seed, fit
from interpretkit.training.schedules import one_cycle

_WIDEST = 128
_NARROWEST = 24
# So few that the maps of early layers stay in a CPU's cache.
_IMAGES_AT_ONCE = 4


class UpConvolutionalDecoder(nn.Module):
    """From a layer's maps ``(n, c, h, w)`` to images ``(n, 3, side, side)``, doubling the side at each step.

    Parameters
    ----------
    channels, height : int
        Number of channels and height of the maps; outputs without places have a height of 1.
    side : int
        Side of the images, px.
    unit : float
        By which maps are divided first, so that what follows is suited to layers of large and of tiny values.

    Notes
    -----
    Enlarging by nearest neighbours before a convolution leaves no chequered pattern, as a transposed convolution
    does.
    """

    def __init__(self, channels: int, height: int, side: int, unit: float = 1.0) -> None:
        super().__init__()
        width = _WIDEST
        self.unit: Tensor
        self.register_buffer("unit", torch.tensor(unit))
        self.scale = nn.BatchNorm2d(channels)
        blocks: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(0.2)]
        size = height
        while size < side:
            # An odd step at the end, so that any side is reached.
            size = min(2 * size, side)
            narrower = max(width // 2, _NARROWEST) if size >= side / 4 else width
            blocks += [
                nn.Upsample(size=(size, size)),
                nn.Conv2d(width, narrower, 3, padding=1),
                nn.LeakyReLU(0.2),
            ]
            width = narrower
        self.body = nn.Sequential(*blocks, nn.Conv2d(width, 3, 3, padding=1))
        self.side = side

    def forward(self, features: Tensor) -> Tensor:
        """Return images ``(n, 3, side, side)`` with values in 0 … 1 for features ``(n, c[, h, w])``."""
        maps = features if features.ndim == 4 else features[:, :, None, None]
        images = self.body(self.scale(maps / self.unit)).sigmoid()
        return images if images.shape[-1] == self.side else F.adaptive_avg_pool2d(images, self.side)


@dataclass(frozen=True)
class TrainedDecoder:
    """A decoder and how well it reconstructs photographs that it has not seen.

    Attributes
    ----------
    model : UpConvolutionalDecoder
        In evaluation mode.
    layer : str
        What it decodes.
    error : float
        Mean square error of held-out images, of values in 0 … 1.
    mean_image_error : float
        The same for the mean of the training images, which needs no layer.
    originals, reconstructions : ndarray of float32, (m, 3, side, side)
        Originals and reconstructions of the first held-out images.
    n_train, n_held_out : int
        How many images.
    history : History
        History of the training; the weights are those of the epoch that was best on a part of the training photographs.
    """

    model: UpConvolutionalDecoder
    layer: str
    error: float
    mean_image_error: float
    originals: NDArray[np.float32]
    reconstructions: NDArray[np.float32]
    n_train: int
    n_held_out: int
    history: History


def train_decoder(
    network: Network,
    layer: str,
    photographs: Photographs | None = None,
    *,
    images: int = 480,
    side: int = 64,
    held_out: float = 0.2,
    epochs: int = 12,
    learning_rate: float = 2e-3,
    batch_size: int = 16,
    shown: int = 8,
    seed: int = 0,
    quiet: bool = True,
) -> TrainedDecoder:
    """Train a decoder for a layer on pieces of photographs, and test it on other photographs.

    Parameters
    ----------
    network : Network
        Left as it was found.
    layer : str
        A dotted name.
    photographs : Photographs, optional
        By default those that scikit-image brings. They are divided first and cut into pieces then, so that no two
        pieces of one photograph are on both sides.
    images : int
        How many pieces in all.
    side : int
        Side of the reconstructions, px.
    held_out : float
        The share of photographs to test on; as many again choose the epoch.
    epochs, learning_rate, batch_size
        Number of epochs, learning rate and batch size of Adam.
    shown : int
        How many held-out images to return with their reconstructions.
    seed : int
        Seed of the division, the pieces, the weights and the order.
    quiet : bool
        Show no progress.

    Raises
    ------
    InputError
        If there is no such layer, or fewer than three photographs.
    """
    source = photographs or Photographs.bundled()
    if len(source) < 3:
        raise InputError(
            f"{source.source}: {len(source)} in all; expected at least 3, to learn, to choose and to test"
        )
    rest, test = source.split(held_out, seed)
    train, validation = rest.split(held_out / (1 - held_out), seed)
    share = {"train": 1 - 2 * held_out, "validation": held_out, "test": held_out}
    parts = {"train": train, "validation": validation, "test": test}
    tensors: dict[str, dict[str, Tensor]] = {}
    unit: float | None = None
    for name, some in parts.items():
        count = max(round(images * share[name]), len(some), 2)
        # Only photographs to learn from may be cut into smaller pieces than a network is used to.
        large = some.crops(count, network.size, seed=derive_seed(seed, "pieces", name) % 2**31)
        # The part to learn from comes first, and all are kept in its unit.
        features, unit = _features(network, layer, large, seed, unit)
        tensors[name] = {
            "features": features,
            "images": F.interpolate(large, size=(side, side), mode="area"),
        }
    maps = tensors["train"]["features"]
    device = network.device
    assert unit is not None
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "decoder"))
        height = maps.shape[2] if maps.ndim == 4 else 1
        model = UpConvolutionalDecoder(maps.shape[1], height, side, unit).to(device)
        # Most pixels are near the mean image, which the decoder need not learn by steps.
        mean = tensors["train"]["images"].mean((0, 2, 3))
        last = model.body[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        with torch.no_grad():
            last.bias.copy_(torch.logit(mean.clamp(0.02, 0.98)))
        optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
        steps = epochs * -(-len(maps) // batch_size)
        history = fit(
            model,
            TensorBatches(tensors["train"], batch_size, seed=seed),
            lambda net, batch: {"loss": F.mse_loss(net(batch["features"].float() * unit), batch["images"])},
            optimizer=optimizer,
            epochs=epochs,
            scheduler=one_cycle(optimizer, learning_rate, steps),
            scheduler_steps="batch",
            validate=lambda net: {
                "validation_error": _error(
                    _decode(net, tensors["validation"]["features"], unit, device),
                    tensors["validation"]["images"],
                )
            },
            monitor="validation_error",
            precision="float32",
            description=f"Training a decoder of {layer}",
            quiet=quiet,
        )
    test_images = tensors["test"]["images"]
    decoded = _decode(model, tensors["test"]["features"], unit, device)
    average = tensors["train"]["images"].mean(0, keepdim=True).expand_as(test_images)
    return TrainedDecoder(
        model=model,
        layer=layer,
        error=_error(decoded, test_images),
        mean_image_error=_error(average, test_images),
        originals=test_images[:shown].numpy(),
        reconstructions=decoded[:shown].numpy(),
        n_train=len(maps),
        n_held_out=len(test_images),
        history=history,
    )


def _features(
    network: Network, layer: str, pixels: Tensor, seed: int, unit: float | None
) -> tuple[Tensor, float]:
    """Return what a layer gives for pixels ``(n, 3, h, w)``, in half precision to hold many, and its unit.

    The features are divided by the unit, for half precision ends at 65 504 and at 6e-8. Without one, it is the power
    of two, by which division is exact, at the largest absolute value of the first few images.
    """
    until = UpTo(network.module, layer)
    found: list[Tensor] = []
    with instrumented(network.module, seed), torch.no_grad():
        for some in pixels.split(_IMAGES_AT_ONCE):
            features = run_fast(until, network.normalise(some), network.module)
            if features.ndim not in (2, 4):
                raise InputError(
                    f"layer {layer!r}: gives outputs of shape {tuple(features.shape)}; expected (n, channels) or "
                    "(n, channels, height, width)"
                )
            if unit is None:
                unit = _power_of_two(float(features.abs().max()), layer)
            found.append((features.float() / unit).half().cpu().contiguous())
    assert unit is not None
    return torch.cat(found), unit


def _power_of_two(largest: float, layer: str) -> float:
    """Return the power of two just above a number, within single precision; 1 for zero."""
    if not math.isfinite(largest):
        raise InputError(f"layer {layer!r}: gives values that are not finite; expected numbers")
    return 2.0 ** min(max(math.frexp(largest)[1], -100), 100) if largest > 0 else 1.0


def _decode(model: nn.Module, features: Tensor, unit: float, device: torch.device) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(some.to(device).float() * unit).cpu() for some in features.split(32)])


def _error(images: Tensor, originals: Tensor) -> float:
    return float((images - originals).double().square().mean())
