"""How numbers are written for people."""

from __future__ import annotations

import math


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
        return text.replace("-", "−")
    if isinstance(value, int):
        return f"{value:,}".replace(",", " ").replace("-", "−")
    text = f"{value:.{digits}g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        text = f"{mantissa}·10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    return text.replace("-", "−")


_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
