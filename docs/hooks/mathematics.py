"""Formulas between dollars become MathML while the site is built, so that a page needs no script for them."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)


def on_page_content(text: str, **_: Any) -> str:
    """Exchange what arithmatex has marked."""
    return _FORMULA.sub(lambda found: _mathml(found[1], found[2]), text)


def _mathml(tag: str, marked: str) -> str:
    latex = html.unescape(marked.strip())[2:-2]  # without the \( \) or \[ \] of arithmatex
    return convert(latex, display="inline" if tag == "span" else "block")
