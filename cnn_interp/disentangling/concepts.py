"""Concepts of a layer: directions that its positions are made of, by non-negative factors, sparse codes, PCA or ICA."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from cnn_interp.disentangling.features import LayerMaps
from interpretkit.errors import InputError
from interpretkit.training.batches import TensorBatches
from interpretkit.training.device import resolve_device
from interpretkit.training.loop import fit
from interpretkit.training.seeds import derive_seed, numpy_generator, torch_generator

Method = Literal["nmf", "sae", "pca", "ica"]
METHODS: tuple[Method, ...] = get_args(Method)
Floats = NDArray[np.float64]
# Positions are encoded so many at a time.
_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class SparseSettings:
    """How a sparse autoencoder is trained.

    Attributes
    ----------
    active : int
        How many codes of a position are not 0, at most.
    epochs, batch_size, learning_rate
        Of the training.
    patience : int
        A code that was 0 for so many batches is called dead meanwhile.
    revived : int
        How many dead codes are trained on what the others leave over, at most.
    revival : float
        Weight of that.

    References
    ----------
    Gao and others: Scaling and evaluating sparse autoencoders, 2024, for the top-k codes and the revival.
    """

    active: int = 16
    epochs: int = 8
    batch_size: int = 512
    learning_rate: float = 1e-3
    patience: int = 20
    revived: int = 32
    revival: float = 1 / 32


class Encoder(Protocol):
    """From responses to codes."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return the codes ``(m, concepts)`` of scaled responses ``(m, units)``."""
        ...

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what it holds besides the concepts' directions and mean, to be saved."""
        ...

    @classmethod
    def of(cls, directions: Floats, mean: Floats, own: Mapping[str, NDArray[Any]]) -> Self:
        """Return the encoder of concepts that were saved."""
        ...


@dataclass(frozen=True, eq=False)
class Concepts:
    """Concepts found in the positions of a layer.

    A position's responses x, divided by a scale per unit, are about `mean` + codes · `directions`.

    Attributes
    ----------
    method : str
        One of ``METHODS``.
    layer : str
        The layer's name.
    directions : ndarray of float, (concepts, units)
        What each concept looks like.
    mean : ndarray of float, (units,)
        What belongs to no concept.
    scale : ndarray of float, (units,)
        What responses are divided by.
    encoder : Encoder
        From scaled responses ``(m, units)`` to codes ``(m, concepts)``, as tensors.
    dead : ndarray of bool, (concepts,)
        Which concepts are 0 at all positions that they were learned from.
    """

    method: Method
    layer: str
    directions: Floats
    mean: Floats
    scale: Floats
    encoder: Encoder
    dead: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.directions)

    def maps(self, features: LayerMaps, rows: ArrayLike | slice = slice(None)) -> Tensor:
        """Return the concepts' codes at every position of images, ``(m, concepts, h, w)``."""
        chosen = features.maps[rows if isinstance(rows, slice) else np.asarray(rows)]
        at_once = max(1, _AT_ONCE // (features.shape[0] * features.shape[1]))
        found = []
        for first in range(0, len(chosen), at_once):
            some = np.array(chosen[first : first + at_once], dtype=np.float32)
            codes = self.encoder(_positions(some, self.scale))
            found.append(codes.reshape(len(some), *features.shape, -1).permute(0, 3, 1, 2))
        return torch.cat(found).contiguous()

    def unexplained(self, features: LayerMaps, rows: ArrayLike | slice = slice(None)) -> float:
        """Return which share of the responses' variance over positions the concepts do not give back.

        Σ |x − x̂|² ÷ Σ |x − mean of x|² over positions and units, of scaled responses: 0 is perfect, 1 no better than
        the mean of these very images.
        """
        chosen = features.maps[rows if isinstance(rows, slice) else np.asarray(rows)]
        at_once = max(1, _AT_ONCE // (features.shape[0] * features.shape[1]))
        directions = torch.as_tensor(self.directions, dtype=torch.float32)
        mean = torch.as_tensor(self.mean, dtype=torch.float32)
        left, squares, count = 0.0, 0.0, 0
        total = np.zeros(features.units)
        for first in range(0, len(chosen), at_once):
            x = _positions(np.array(chosen[first : first + at_once], dtype=np.float32), self.scale)
            left += float((x - mean - self.encoder(x) @ directions).double().square().sum())
            squares += float(x.double().square().sum())
            total += x.double().sum(dim=0).numpy()
            count += len(x)
        return left / max(squares - float((total**2).sum()) / count, np.finfo(float).tiny)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all of it as arrays, to be saved; :func:`concepts_from` reads them back."""
        return {
            "method": np.array(self.method),
            "layer": np.array(self.layer),
            "directions": self.directions,
            "mean": self.mean,
            "scale": self.scale,
            "dead": self.dead,
            **{f"encoder_{name}": array for name, array in self.encoder.arrays().items()},
        }


def concepts_from(arrays: Mapping[str, NDArray[Any]]) -> Concepts:
    """Return the concepts of which :meth:`Concepts.arrays` were saved.

    Raises
    ------
    InputError
        If they are not whole.
    """
    try:
        method: Method = str(arrays["method"])  # type: ignore[assignment]
        directions, mean = arrays["directions"], arrays["mean"]
        own = {key.removeprefix("encoder_"): arrays[key] for key in arrays if key.startswith("encoder_")}
        encoder = _ENCODERS[method].of(directions, mean, own)
        return Concepts(
            method, str(arrays["layer"]), directions, mean, arrays["scale"], encoder, arrays["dead"]
        )
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"arrays: are no concepts ({error}); expected those that were saved") from error


def find_concepts(
    features: LayerMaps,
    method: Method,
    count: int,
    *,
    rows: ArrayLike | None = None,
    scale: ArrayLike | None = None,
    positions: int = 20_000,
    seed: int = 0,
    device: str | torch.device = "cpu",
    sparse: SparseSettings | None = None,
    checkpoint: Path | None = None,
) -> Concepts:
    """Find concepts in the positions of a layer.

    Parameters
    ----------
    features : LayerMaps
        The layer's maps.
    method : str
        ``nmf``: non-negative factors of responses, those below 0 taken as 0, as CRAFT finds them. ``sae``: a sparse
        autoencoder of which a position keeps its few largest codes. ``pca``, ``ica``: principal and independent
        components, each turned so that it is skewed upwards.
    count : int
        How many concepts.
    rows : array_like of int, optional
        From which images; all by default.
    scale : array_like of float, (units,), optional
        What responses are divided by; by default their standard deviation over these images.
    positions : int
        From how many positions at most, drawn by `seed`.
    seed : int
        Of all random numbers.
    device : str or torch.device
        Where the sparse autoencoder is trained.
    sparse : SparseSettings, optional
        Its settings.
    checkpoint : path, optional
        A folder from which its training is resumed.

    Raises
    ------
    InputError
        If the method is unknown, or more concepts are wanted than units or positions allow.

    References
    ----------
    Fel and others: CRAFT, CVPR 2023, for ``nmf``.
    """
    if method not in METHODS:
        raise InputError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    chosen = np.arange(len(features)) if rows is None else np.asarray(rows)
    divisor = features.unit_scale(chosen) if scale is None else np.asarray(scale, dtype=np.float64)
    sample = _sample(features, chosen, divisor, positions, seed)
    # A basis has no more members than its space has dimensions; sparse codes may be overcomplete.
    most = len(sample) if method == "sae" else min(features.units, len(sample))
    if not 1 <= count <= most:
        raise InputError(
            f"count {count}: expected 1 to {most} concepts by {method}, the units and positions given"
        )
    if method == "sae":
        found = _sparse(sample, count, sparse or SparseSettings(), seed, resolve_device(device), checkpoint)
    elif method == "nmf":
        found = _non_negative(sample, count, seed)
    else:
        found = _components(sample, method, count, seed)
    directions, mean, encoder = found
    codes = torch.cat([encoder(part) for part in sample.split(_AT_ONCE)])
    dead = (codes == 0).all(dim=0).numpy()
    return Concepts(method, features.layer, directions, mean, divisor, encoder, dead)


def _positions(maps: NDArray[np.float32], scale: Floats) -> Tensor:
    """Return the scaled responses of every position, ``(n·h·w, units)``."""
    flat = torch.from_numpy(maps).permute(0, 2, 3, 1).flatten(0, 2)
    return flat / torch.as_tensor(scale, dtype=torch.float32)


def _sample(features: LayerMaps, rows: NDArray[Any], scale: Floats, count: int, seed: int) -> Tensor:
    cells = features.shape[0] * features.shape[1]
    every = len(rows) * cells
    rng = numpy_generator(seed, "positions of concepts")
    drawn = np.sort(rng.choice(every, min(count, every), replace=False))
    images, places = np.divmod(drawn, cells)
    found = np.empty((len(drawn), features.units), dtype=np.float32)
    # Image by image, since maps may lie on the disk.
    for image in np.unique(images):
        mine = images == image
        flat = np.asarray(features.maps[rows[image]], dtype=np.float32).reshape(features.units, cells)
        found[mine] = flat[:, places[mine]].T
    return torch.from_numpy(found) / torch.as_tensor(scale, dtype=torch.float32)


Found = tuple[Floats, Floats, Encoder]


def _non_negative(sample: Tensor, count: int, seed: int) -> Found:
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    # Coordinate descent: batches of it end in worse minima.
    model = NMF(
        n_components=count,  # pyright: ignore[reportArgumentType]
        init="nndsvda",
        max_iter=300,
        tol=1e-4,
        random_state=derive_seed(seed, "nmf") % 2**32,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(sample.clamp_min(0).numpy())
    directions = np.asarray(model.components_, dtype=np.float64)
    # Directions of one length, so that codes of different concepts can be compared.
    length = np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    directions = directions / length
    return directions, np.zeros(directions.shape[1]), _NonNegative(directions)


class _NonNegative:
    """Codes by multiplicative steps towards the least squares with directions fixed."""

    def __init__(self, directions: Floats, steps: int = 60) -> None:
        self.directions = torch.as_tensor(directions, dtype=torch.float32)
        self.gram = self.directions @ self.directions.T
        self.steps = steps

    def __call__(self, x: Tensor) -> Tensor:
        towards = (x.clamp_min(0) @ self.directions.T).clamp_min(1e-9)
        codes = towards.clone()
        for _ in range(self.steps):
            codes = codes * towards / (codes @ self.gram).clamp_min(1e-9)
        # What a multiplicative step only ever brings near to 0 is 0.
        return torch.where(codes > 1e-6 * codes.amax(dim=1, keepdim=True).clamp_min(1e-9), codes, 0.0)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return how many steps there are."""
        return {"steps": np.array(self.steps)}

    @classmethod
    def of(cls, directions: Floats, mean: Floats, own: Mapping[str, NDArray[Any]]) -> Self:
        """Return the encoder of concepts that were saved."""
        return cls(directions, int(own["steps"]))


def _components(sample: Tensor, method: Method, count: int, seed: int) -> Found:
    from sklearn.decomposition import PCA, FastICA
    from sklearn.exceptions import ConvergenceWarning

    state = derive_seed(seed, method) % 2**32
    x = sample.double().numpy()
    if method == "pca":
        pca = PCA(count, random_state=state).fit(x)
        forward, back, mean = np.asarray(pca.components_), np.asarray(pca.components_), np.asarray(pca.mean_)
    else:
        rank = int(np.linalg.matrix_rank(np.cov(x.T), hermitian=True))
        if count > rank:
            raise InputError(
                f"count {count}: the responses vary in {rank} directions; expected no more concepts by ica"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            # Of directions in which nothing varies, which are left out.
            warnings.filterwarnings("ignore", "There are some small singular values", UserWarning)
            ica = FastICA(
                count,
                whiten="unit-variance",
                whiten_solver="eigh",
                random_state=state,
                max_iter=200,
                tol=1e-3,
            ).fit(x)
        forward, back, mean = np.asarray(ica.components_), np.asarray(ica.mixing_).T, np.asarray(ica.mean_)
    codes = (x - mean) @ forward.T
    # The sign of a component is anyone's choice; a concept is seen at few positions, strongly.
    sign = np.where(((codes - codes.mean(axis=0)) ** 3).mean(axis=0) < 0, -1.0, 1.0)
    linear = _Linear(
        np.asarray(forward * sign[:, None], dtype=np.float64), np.asarray(mean, dtype=np.float64)
    )
    return np.asarray(back * sign[:, None]), np.asarray(mean), linear


class _Linear:
    """Codes by a linear map of what differs from the mean."""

    def __init__(self, forward: Floats, mean: Floats) -> None:
        self.forward = torch.as_tensor(forward, dtype=torch.float32)
        self.mean = torch.as_tensor(mean, dtype=torch.float32)

    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.mean) @ self.forward.T

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the map."""
        return {"forward": self.forward.double().numpy()}

    @classmethod
    def of(cls, directions: Floats, mean: Floats, own: Mapping[str, NDArray[Any]]) -> Self:
        """Return the encoder of concepts that were saved."""
        return cls(own["forward"], mean)


class SparseAutoencoder(nn.Module):
    """Linear codes of which the largest few are kept, and directions of length 1 that give the input back.

    Parameters
    ----------
    mean : Tensor, (units,)
        Taken off before.
    count : int
        How many codes.
    active : int
        How many are kept.
    generator : torch.Generator
        Of the first directions.
    """

    def __init__(self, mean: Tensor, count: int, active: int, generator: torch.Generator) -> None:
        super().__init__()
        directions = torch.randn(count, len(mean), generator=generator)
        self.mean = nn.Parameter(mean.clone())
        self.directions = nn.Parameter(F.normalize(directions, dim=1))
        self.encoder = nn.Parameter(self.directions.detach().clone())
        self.bias = nn.Parameter(torch.zeros(count))
        self.active = active
        self.register_buffer("silent", torch.zeros(count, dtype=torch.int64))

    def before(self, x: Tensor) -> Tensor:
        """Return all codes before the largest are chosen, ``(m, codes)``."""
        return F.relu((x - self.mean) @ self.encoder.T + self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the codes ``(m, codes)``."""
        return _largest(self.before(x), self.active)

    def back(self, codes: Tensor) -> Tensor:
        """Return what codes stand for, without the mean, ``(m, units)``."""
        return codes @ F.normalize(self.directions, dim=1)


def _largest(values: Tensor, count: int) -> Tensor:
    kept = values.topk(min(count, values.shape[1]), dim=1)
    return torch.zeros_like(values).scatter(1, kept.indices, kept.values)


def _sparse(
    sample: Tensor,
    count: int,
    settings: SparseSettings,
    seed: int,
    device: torch.device,
    checkpoint: Path | None,
) -> Found:
    # Of length 1 on average, so that one learning rate does for every layer.
    middle = sample.mean(dim=0)
    unit = float((sample - middle).square().sum(dim=1).mean().sqrt().clamp_min(1e-12))
    model = SparseAutoencoder(middle / unit, count, settings.active, torch_generator(seed, "sae")).to(device)
    batches = TensorBatches({"x": sample / unit}, settings.batch_size, seed=derive_seed(seed, "sae batches"))
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)

    def loss(network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert isinstance(network, SparseAutoencoder)
        x = batch["x"]
        every = network.before(x)
        codes = _largest(every, network.active)
        rest = x - network.mean - network.back(codes)
        main = rest.square().sum(dim=1).mean()
        silent = network.get_buffer("silent")
        with torch.no_grad():
            silent.add_(1).masked_fill_((codes > 0).any(dim=0), 0)
        dead = silent >= settings.patience
        if not bool(dead.any()):
            return {"loss": main}
        # Without the ReLU that silenced them, dead codes feel a gradient again.
        linear = ((x - network.mean) @ network.encoder.T + network.bias).masked_fill(~dead, -torch.inf)
        revived = _largest(linear, min(settings.revived, int(dead.sum())))
        again = (rest.detach() - network.back(revived)).square().sum(dim=1).mean()
        return {"loss": main + settings.revival * again}

    fit(
        model, batches, loss, optimizer=optimizer, epochs=settings.epochs, precision="float32",
        checkpoint=checkpoint, quiet=True,
    )  # fmt: skip
    model = model.cpu()
    with torch.no_grad():
        directions = F.normalize(model.directions, dim=1).double().numpy()
        mean = model.mean.double().numpy() * unit
    return directions, mean, _Sparse(model, unit)


class _Sparse:
    """Codes of a trained sparse autoencoder, in the scale of its inputs."""

    def __init__(self, model: SparseAutoencoder, unit: float) -> None:
        self.model, self.unit = model, unit

    def __call__(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.model(x / self.unit) * self.unit

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the encoder's weights, how many codes are kept, and the scale that it was trained in."""
        model = self.model
        return {
            "weights": model.encoder.detach().numpy(),
            "bias": model.bias.detach().numpy(),
            "mean": model.mean.detach().numpy(),
            "active": np.array(model.active),
            "unit": np.array(self.unit),
        }

    @classmethod
    def of(cls, directions: Floats, mean: Floats, own: Mapping[str, NDArray[Any]]) -> Self:
        """Return the encoder of concepts that were saved."""
        middle = torch.as_tensor(own["mean"], dtype=torch.float32)
        model = SparseAutoencoder(middle, len(directions), int(own["active"]), torch.Generator())
        with torch.no_grad():
            model.directions.copy_(torch.as_tensor(directions))
            model.encoder.copy_(torch.as_tensor(own["weights"]))
            model.bias.copy_(torch.as_tensor(own["bias"]))
        return cls(model, float(own["unit"]))


_ENCODERS: Mapping[str, type[Encoder]] = {
    "nmf": _NonNegative,
    "sae": _Sparse,
    "pca": _Linear,
    "ica": _Linear,
}
