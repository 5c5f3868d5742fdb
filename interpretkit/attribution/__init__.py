"""Which inputs made an output: one :func:`attribute`, a file for each family of methods."""

from interpretkit.attribution.api import METHODS, Attribution, Method, attribute
from interpretkit.attribution.patterns import Patterns, fit_patterns
from interpretkit.attribution.target import Target
from interpretkit.attribution.titles import method_title

__all__ = [
    "METHODS",
    "Attribution",
    "Method",
    "Patterns",
    "Target",
    "attribute",
    "fit_patterns",
    "method_title",
]
