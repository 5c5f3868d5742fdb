"""Options of attribution methods, as text from the command line."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from interpretkit.attribution import METHODS
from interpretkit.errors import InputError

_WORDS = {"true": True, "false": False}


def read_settings(texts: Sequence[str], methods: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    """Return the options given for each method, as :func:`interpretkit.attribution.attribute` takes them.

    Parameters
    ----------
    texts : sequence of str
        Of the form ``METHOD.OPTION=VALUE``, such as ``occlusion.window=48``. Values are numbers, ``true``, ``false``
        or words.
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
            raise InputError(f"set {text!r}: {method} does not run; expected one of --method, {running}")
        kinds = _kinds(method)
        if option not in kinds:
            near = difflib.get_close_matches(option, kinds, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}? " if near else ""
            known = ", ".join(f"{name}={_shown(METHODS[method].options[name])}" for name in kinds) or "none"
            raise InputError(f"set {text!r}: {method} has no such option; {hint}expected one of {known}")
        found.setdefault(method, {})[option] = _value(text, value.strip(), kinds[option])
    return found


def _kinds(method: str) -> dict[str, tuple[Any, ...]]:
    """Return the options of a method that a word or number can set, each with the kinds of value it takes."""
    run = METHODS[method].run
    hints = get_type_hints(run)
    kinds = {}
    for name in METHODS[method].options:
        hint = hints[name]
        parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        plain = tuple(
            part for part in parts if part in (bool, int, float, str) or get_origin(part) is Literal
        )
        if plain:
            # What is an array in Python is a number here.
            kinds[name] = (float,) if {str, float} <= set(plain) else plain
    return kinds


def _value(text: str, value: str, kinds: tuple[Any, ...]) -> Any:
    words = [word for kind in kinds for word in get_args(kind)]
    if value in words or str in kinds:
        return value
    if bool in kinds and value.lower() in _WORDS:
        return _WORDS[value.lower()]
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(value)
            except ValueError:
                continue
    names = {bool: "true or false", int: "a whole number", float: "a number"}
    expected = words or [names[kind] for kind in (bool, int, float) if kind in kinds]
    raise InputError(f"set {text!r}: expected {' or '.join(expected)}")


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
