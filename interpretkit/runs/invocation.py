"""The line that was typed, for reports that say how they came about."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_line: ContextVar[str | None] = ContextVar("line", default=None)
# What cannot be shown between plain quotes: control characters, and bytes of file names that are not UTF-8.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def quoted(*words: object) -> str:
    r"""Return a line that a shell takes as exactly these words, whatever is in them.

    Every command that is offered to be copied goes through here: a file may be named ``a$(reboot).npz``.

    Parameters
    ----------
    *words
        The words; what is no text, such as a path, is written as its ``str``.

    Returns
    -------
    str
        Printable text. What cannot be shown stands as ``$'…\xe9…'``, which bash, zsh, ksh and dash since 2024
        understand.

    Examples
    --------
    >>> quoted("interpretkit", "scores", "a$(reboot).npz")
    "interpretkit scores 'a$(reboot).npz'"
    """
    return " ".join(_quoted_word(str(word)) for word in words)


def _quoted_word(word: str) -> str:
    if not _UNSEEN.search(word):
        return shlex.quote(word)
    parts = []
    for character in word:
        if character in "\\'":
            parts.append("\\" + character)
        elif _UNSEEN.match(character):
            # Surrogates stand for bytes; those that do not cannot come from a file name.
            known = character < "\ud800" or "\udc80" <= character <= "\udcff"
            code = character.encode("utf-8", "surrogateescape" if known else "replace")
            parts += [f"\\x{byte:02x}" for byte in code]
        else:
            parts.append(character)
    return "$'" + "".join(parts) + "'"


@contextmanager
def invoked(words: Sequence[str]) -> Iterator[None]:
    """Remember during the block that these words were typed."""
    token = _line.set(quoted(*words))
    try:
        yield
    finally:
        _line.reset(token)


def command_line() -> str | None:
    """Return the line that a shell would take to run the present command again; None outside of a command."""
    return _line.get()
