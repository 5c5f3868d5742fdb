"""What `cnn visualize` is asked for, checked before anything heavy is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cnn_interp.visualization.settings import known_methods, read_settings
from interpretkit.commandline import some_of
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
    table = known_methods()
    methods_known, systems_known, of_units = table["attributions"], table["systems"], table["of_units"]
    names = some_of([*methods_known, *systems_known], methods, "method")
    attributions = tuple(name for name in names if name in methods_known)
    for name in attributions:
        needed = " and ".join(methods_known[name]["requires"])
        if needed:
            raise InputError(
                f"method {name}: needs {needed}, which only Python gives it; expected "
                f"interpretkit.attribution.attribute(..., method={name!r}), or another method"
            )
    systems = tuple(name for name in names if name in systems_known)
    able = [name for name, method in methods_known.items() if method["layer"]] + table["with_layer"]
    if layer and not set(names) & set(able):
        raise InputError(
            f"layer {layer}: {', '.join(names)} {'takes' if len(names) == 1 else 'take'} none; "
            f"expected with it one of {', '.join(able)}"
        )
    if units and not set(systems) & set(of_units):
        raise InputError(f"unit {units}: expected with it one of the methods {', '.join(of_units)}")
    if images_per_forward is not None and not attributions:
        raise InputError(
            f"images_per_forward {images_per_forward}: is of no use to {', '.join(names)}; expected with it an "
            "attribution method"
        )
    numbers = [text.strip() for text in units.split(",") if text.strip()]
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
