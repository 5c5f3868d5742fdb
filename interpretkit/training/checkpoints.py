"""A trained model in one file: safetensors, with the model's configuration as JSON in its header."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch

from interpretkit.errors import InputError
from interpretkit.files import atomic_path, dump_json

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
