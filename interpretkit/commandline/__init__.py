"""What all commands share: the decorator, what a command finds, the options, the groups."""

from interpretkit.commandline.command import command
from interpretkit.commandline.finding import Column, Finding, Here
from interpretkit.commandline.options import (
    Device,
    Quiet,
    Seed,
    kind_and_path,
    kinds_and_paths,
    listed,
    one_of,
    some_of,
)

__all__ = [
    "Column",
    "Device",
    "Finding",
    "Here",
    "Quiet",
    "Seed",
    "command",
    "kind_and_path",
    "kinds_and_paths",
    "listed",
    "one_of",
    "some_of",
]
