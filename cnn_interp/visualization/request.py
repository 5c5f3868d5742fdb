"""What is asked of `cnn visualize`, checked as far as it can be before a network is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cnn_interp.visualization.settings import read_settings
from cnn_interp.visualization.systems import OF_UNITS, SYSTEMS
from interpretkit.attribution import METHODS
from interpretkit.commandline.options import listed, some_of
from interpretkit.errors import InputError


@dataclass(frozen=True)
class Request:
    """The options of a run, checked as far as they can be before the network is loaded."""

    attributions: tuple[str, ...]
    systems: tuple[str, ...]
    layer: str | None
    units: tuple[int, ...] | None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    images_per_forward: int | None = None


def check_request(
    methods: str,
    layer: str,
    units: str,
    settings: Sequence[str] = (),
    images_per_forward: int | None = None,
) -> Request:
    """Return what the options ask for.

    Raises
    ------
    InputError
        If a method or one of its settings is unknown, the units are no numbers, or an option is of no use to any
        method.
    """
    names = some_of([*METHODS, *SYSTEMS], methods, "method")
    attributions = tuple(name for name in names if name in METHODS)
    systems = tuple(name for name in names if name in SYSTEMS)
    able = [name for name in METHODS if METHODS[name].takes_layer]
    able += [name for name in SYSTEMS if name != "plug_and_play"]
    if layer and not set(names) & set(able):
        raise InputError(
            f"layer {layer}: {', '.join(names)} {'takes' if len(names) == 1 else 'take'} none; "
            f"expected with it one of {', '.join(able)}"
        )
    if units and not set(systems) & set(OF_UNITS):
        raise InputError(f"unit {units}: expected with it one of the methods {', '.join(OF_UNITS)}")
    numbers = listed(units)
    if not all(text.isdigit() for text in numbers):
        raise InputError(f"unit {units}: expected whole numbers of at least 0, separated by commas")
    return Request(
        attributions,
        systems,
        layer or None,
        tuple(map(int, numbers)) if numbers else None,
        read_settings(settings, attributions),
        images_per_forward,
    )
