"""Standard streams that no run is lost by: closed ones, broken pipes, full disks, and those of other encodings."""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

# What the project itself prints beyond ASCII, for terminals that cannot show it.
_PLAIN = {
    "…": "...", "–": "-", "—": "-", "−": "-", "×": "x", "·": ".", "“": '"', "”": '"', "‘": "'", "’": "'",
    "✓": "+", "✗": "x", "→": "->", "≥": ">=", "≤": "<=", "Å": "A", "±": "+-", "\u00a0": " ",
}  # fmt: skip
_HANDLER = "interpretkit.plain"
_SURROGATES = re.compile("[\ud800-\udfff]")
# All control characters but tab and line feed: a terminal takes them for commands.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    r"""Return a text that every encoding of Unicode takes.

    A file name that is not UTF-8 reaches Python with lone surrogates in it, which no file and no figure takes;
    they become ``\xe9``, the byte that stood there.
    """
    return _SURROGATES.sub(_escaped, text)


def harmless(text: str) -> str:
    """Return a text that a terminal shows and does not obey: control characters are spelled out."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", printable(text))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    # Python hides the bytes 0x80 to 0xff at U+DC80 to U+DCFF.
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    text = "".join(_PLAIN.get(character) or printable(character) for character in characters)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end


class _Patient:
    """A stream whose reader may be gone: what cannot be written is dropped, and the work goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def steady_streams() -> Iterator[None]:
    """Make the standard streams ones that no run is lost by, during the block.

    A closed descriptor is opened on nothing: else the next file opened would get its number, and a library that
    complains would write into it. Characters that a stream's encoding lacks are spelled out. What cannot be
    written to stderr is dropped; what cannot be written to stdout is an error still, for it is the result.
    """
    with suppress(LookupError):
        codecs.lookup_error(_HANDLER)
    codecs.register_error(_HANDLER, _plain)
    for descriptor in (0, 1, 2):
        _open_if_closed(descriptor)
    before = sys.stdout, sys.stderr
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or getattr(stream, "closed", False):
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            with suppress(OSError, ValueError):
                stream.reconfigure(errors=_HANDLER)
    sys.stderr = cast(TextIO, _Patient(sys.stderr))
    try:
        yield
    finally:
        sys.stderr.flush()
        # At its end the interpreter flushes the streams once more, and must not stumble over a closed one either.
        if before[0] is not None:
            sys.stdout = before[0]
        if before[1] is not None and before[1] is not sys.__stderr__:
            sys.stderr = before[1]


def _open_if_closed(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        # The lowest free number is taken, which is this one, for those below it have been filled before.
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)


def silence_stdout() -> None:
    """Lead stdout to nothing, after its reader has gone, so that the interpreter ends without a complaint."""
    with suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.close(nothing)
