"""Options of attribution methods, as text from the command line."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from interpretkit.errors import InputError

TABLE = Path(__file__).with_name("methods.json")
# From an option to the numbers that every method takes for it: the least, whether it is left out, and what is too
# much. A method may be stricter; what it refuses it refuses when it runs.
RANGES: Mapping[str, tuple[float, bool, float]] = {
    "window": (1, False, math.inf),
    "stride": (1, False, math.inf),
    "samples": (1, False, math.inf),
    "steps": (1, False, math.inf),
    "cells": (1, False, math.inf),
    "iterations": (1, False, math.inf),
    "coarseness": (1, False, math.inf),
    "noise": (0, False, math.inf),
    "deviation": (0, False, math.inf),
    "neuron": (0, False, math.inf),
    "epsilon": (0, False, math.inf),
    "keep": (0, True, 1),
    "kernel_width": (0, True, math.inf),
    "ridge": (0, False, math.inf),
    "rate": (0, True, math.inf),
    "sparsity": (0, False, math.inf),
    "smoothness": (0, False, math.inf),
    "power": (1, False, math.inf),
    "mask_blur": (0, True, math.inf),
    "image_blur": (0, True, math.inf),
}
_NUMBERS = {"bool": "true or false", "int": "a whole number", "float": "a number"}
_WORDS = {"true": True, "false": False}


def read_settings(texts: Sequence[str], methods: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    """Return the options given for each method, as :func:`interpretkit.attribution.attribute` takes them.

    Parameters
    ----------
    texts : sequence of str
        Texts of the form ``METHOD.OPTION=VALUE``, such as ``occlusion.window=48``. Values are numbers, ``true``,
        ``false`` or words.
    methods : sequence of str
        The attribution methods that are going to run.

    Raises
    ------
    InputError
        If a text has another form, its method does not run or lacks the option, or the value is of another kind.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        place, equals, value = text.partition("=")
        method, dot, option = place.strip().partition(".")
        if not (equals and dot and option and value.strip()):
            raise InputError(f"set {text!r}: expected METHOD.OPTION=VALUE, such as occlusion.window=48")
        if method not in methods:
            running = ", ".join(methods) or "none that has options"
            raise InputError(f"set {text!r}: {method} does not run; expected one of `method`, {running}")
        options = known_methods()["attributions"][method]["options"]
        if option not in options:
            near = difflib.get_close_matches(option, options, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}? " if near else ""
            known = (
                ", ".join(f"{name}={_shown(known['default'])}" for name, known in options.items()) or "none"
            )
            raise InputError(f"set {text!r}: {method} has no such option; {hint}expected one of {known}")
        if option in found.get(method, {}):
            raise InputError(f"set {text!r}: {method}.{option} is given twice; expected one value")
        kinds, words = options[option]["kinds"], options[option]["words"]
        found.setdefault(method, {})[option] = _value(text, value.strip(), option, kinds, words)
    return found


@cache
def known_methods() -> Mapping[str, Any]:
    """Return what the methods and systems take, from the table beside this file; nothing heavy is imported.

    Returns
    -------
    dict
        ``attributions``: from each method to ``layer`` (whether it takes one), ``requires`` (what must be given) and
        ``options`` (from each that a word or a number can set to its ``default``, its ``kinds`` and its ``words``);
        ``systems``, ``with_layer`` and ``of_units``: names.
    """
    return json.loads(TABLE.read_text(encoding="utf-8"))


def make_table() -> dict[str, Any]:
    """Return what :func:`known_methods` has to say, from the methods themselves; ``python -m`` writes it down."""
    from cnn_interp.visualization.systems import OF_UNITS, SYSTEMS
    from interpretkit.attribution import METHODS

    return {
        "attributions": {
            name: {
                "layer": method.takes_layer,
                "requires": list(method.requires),
                "options": _options(method.run, method.options),
            }
            for name, method in METHODS.items()
        },
        "systems": list(SYSTEMS),
        "with_layer": [name for name in SYSTEMS if name != "plug_and_play"],
        "of_units": list(OF_UNITS),
    }


def _options(run: Callable[..., Any], defaults: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the options of a method that a word or number can set, each with the kinds of value it takes."""
    hints = get_type_hints(run)
    found = {}
    for name, default in defaults.items():
        hint = hints[name]
        parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        plain = [part for part in parts if part in (bool, int, float, str)]
        words = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
        if {str, float} <= set(plain):
            plain = [float]  # what is an array in Python is a number here
        if plain or words:
            shown = default if isinstance(default, (bool, int, float, str)) else None
            found[name] = {"default": shown, "kinds": [kind.__name__ for kind in plain], "words": words}
    return found


def _value(text: str, value: str, name: str, kinds: Sequence[str], words: Sequence[str]) -> Any:
    if value in words or "str" in kinds:
        return value
    if "bool" in kinds and value.lower() in _WORDS:
        return _WORDS[value.lower()]
    for kind in (int, float):
        if kind.__name__ in kinds:
            try:
                number = kind(value)
            except ValueError:
                continue
            least, strictly, most = RANGES.get(name, (-math.inf, False, math.inf))
            if (
                math.isfinite(number)
                and (least < number or (least == number and not strictly))
                and number < most
            ):
                return number
            bounds = (
                [f"{'above' if strictly else 'at least'} {least:g}"] if math.isfinite(least) else ["finite"]
            )
            bounds += [f"below {most:g}"] if math.isfinite(most) else []
            raise InputError(f"set {text!r}: expected {_NUMBERS[kind.__name__]}, {' and '.join(bounds)}")
    expected = list(words) or [_NUMBERS[kind] for kind in ("bool", "int", "float") if kind in kinds]
    raise InputError(f"set {text!r}: expected {' or '.join(expected)}")


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


if __name__ == "__main__":
    from interpretkit.runs.files import write_json

    write_json(TABLE, make_table())
