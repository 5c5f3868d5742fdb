"""The line that was typed, for reports that say how they came about."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_line: ContextVar[str | None] = ContextVar("line", default=None)


@contextmanager
def invoked(words: Sequence[str]) -> Iterator[None]:
    """Remember during the block that these words were typed."""
    token = _line.set(shlex.join(words))
    try:
        yield
    finally:
        _line.reset(token)


def command_line() -> str | None:
    """Return the line that a shell would take to run the present command again; None outside of a command."""
    return _line.get()
