"""How numbers are written for people."""

from __future__ import annotations

import math
import re


def format_number(value: str | float | int | None, *, digits: int = 4, format: str | None = None) -> str:
    """Return a value as text for people.

    Parameters
    ----------
    value : str, float, int or None
        Text is returned as it is; None and NaN become a dash.
    digits : int
        Significant digits of a number that is no integer.
    format : str, optional
        A format specification instead, such as ``+.3f``.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if format is not None:
        text = f"{value:{format}}"
        # What is rounded to zero has no sign.
        if not any(digit in text for digit in "123456789"):
            text = text.replace("-", "")
        return _with_power(text)
    if isinstance(value, int):
        return f"{value:,}".replace(",", " ").replace("-", "−")
    return _with_power(f"{value:.{digits}g}")


def _with_power(text: str) -> str:
    """Return a number as it was formatted, with a power of ten for a computer's exponent, and a minus sign."""
    mantissa, found, exponent = text.partition("e")
    if found:
        text = f"{mantissa}·10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    return text.replace("-", "−")


def with_minus_signs(text: str) -> str:
    """Return a text in which a hyphen before a number, where it can only be its sign, is a minus sign."""
    return _SIGN.sub("−", text)


_SIGN = re.compile(r"(?<![\w.)\]-])-(?=\d)")
_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
