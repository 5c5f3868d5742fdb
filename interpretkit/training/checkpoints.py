"""A trained model in one file: safetensors, with the model's configuration as JSON in its header."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors
import safetensors.torch
import torch

from interpretkit.errors import InputError
from interpretkit.runs.files import atomic_path, dump_json

FORMAT = "interpretkit-model"

Model = TypeVar("Model", bound=torch.nn.Module)


def save_model(
    path: Path | str, model: torch.nn.Module, config: Mapping[str, Any], *, half: bool = False
) -> None:
    """Write a model's weights and configuration, atomically.

    Parameters
    ----------
    path : path
        The file, by custom ending in ``.safetensors``; its folder must exist.
    model : torch.nn.Module
        The model.
    config : mapping
        Whatever :func:`load_model`'s `build` needs to make an untrained model of this shape, and anything
        else worth keeping; it is written as JSON.
    half : bool
        Write floating-point weights in half precision, for a file of half the size; :func:`load_model` gives
        them back in the precision of the model.
    """
    metadata = {"format": FORMAT, "config": dump_json(config)}
    with atomic_path(path) as hidden:
        if half:
            weights = {
                name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
                for name, tensor in model.state_dict().items()
            }
            safetensors.torch.save_file(weights, str(hidden), metadata)
        else:
            safetensors.torch.save_model(model, str(hidden), metadata)


def load_config(path: Path | str) -> dict[str, Any]:
    """Return the configuration that :func:`save_model` wrote, without reading the weights.

    Raises
    ------
    InputError
        If the file is missing, damaged, or was not written by :func:`save_model`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a trained model (.safetensors)")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); expected a trained model (.safetensors)"
        ) from error
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path}: not a model of interpretkit; expected 'format': '{FORMAT}' in its header")
    return json.loads(metadata["config"])


def load_model(
    path: Path | str, build: Callable[[dict[str, Any]], Model], device: torch.device | str = "cpu"
) -> Model:
    """Return the model that :func:`save_model` wrote, in evaluation mode.

    Parameters
    ----------
    path : path
        The file.
    build : callable
        Makes an untrained model from the configuration.
    device : torch.device or str
        Where the model shall be.

    Raises
    ------
    InputError
        If the file cannot be used, or its weights do not fit what `build` makes.
    """
    model = build(load_config(path))
    try:
        safetensors.torch.load_model(model, str(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: the weights do not fit the model of its configuration ({reason})"
        ) from error
    return model.to(device).eval()


def state_digest(model: torch.nn.Module) -> str:
    """Return the SHA-256 of all that a model computes with beside its code, as 64 hexadecimal digits.

    That is its parameters and buffers, whether or not they are saved with it, and what its modules keep in plain
    attributes: tensors, arrays, numbers, texts, and collections of these.

    Parameters
    ----------
    model : torch.nn.Module
        On any device; its digest is the same on all of them.
    """
    digest = hashlib.sha256()
    for name, module in model.named_modules(remove_duplicate=False):
        digest.update(f"{name}\0{type(module).__module__}.{type(module).__qualname__}\0".encode())
        held = {**module._parameters, **module._buffers}
        # What begins with an underscore is torch's own bookkeeping, or a module's that it fills by itself.
        held |= {key: value for key, value in vars(module).items() if not key.startswith("_")}
        for key in sorted(held, key=str):
            digest.update(f"{key}\0".encode())
            for part in _bytes_of(held[key], 0):
                digest.update(part)
    return digest.hexdigest()


# Deeper than this no module keeps what it computes with, and a collection might hold itself.
_DEEPEST = 8


def _bytes_of(value: Any, depth: int) -> Iterator[bytes]:
    """Yield bytes that tell one plain value from another; nothing but the type for objects of other kinds."""
    yield type(value).__name__.encode() + b"\0"
    if isinstance(value, torch.Tensor):
        plain = value.detach()
        if plain.is_quantized:
            yield repr((plain.qscheme(), str(plain.dtype))).encode()
            plain = plain.dequantize()
        plain = plain.to_dense() if plain.layout != torch.strided else plain
        yield repr((str(plain.dtype), tuple(plain.shape))).encode()
        if plain.numel() and plain.device.type != "meta":
            # By bytes, for NumPy does not know all of torch's types.
            raw = torch.view_as_real(plain.resolve_conj()) if plain.is_complex() else plain
            yield raw.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield repr((str(value.dtype), value.shape)).encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.Size)):
        yield repr(value).encode(errors="backslashreplace")
    elif depth < _DEEPEST and isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield str(key).encode(errors="backslashreplace") + b"\0"
            yield from _bytes_of(value[key], depth + 1)
    elif depth < _DEEPEST and isinstance(value, (list, tuple)):
        for item in value:
            yield from _bytes_of(item, depth + 1)
    elif depth < _DEEPEST and isinstance(value, (set, frozenset)):
        yield repr(sorted(map(repr, value))).encode(errors="backslashreplace")
