"""Progress of long work, on stderr alone: a bar with the time left on a terminal, else rare plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Item = TypeVar("Item")

# Where nobody watches (a log file, a batch system), a line as rare as this tells that the work goes on.
PLAIN_INTERVAL_SECONDS = 60.0
# A stage that begins is told sooner.
STAGE_INTERVAL_SECONDS = 4.0

# The display on the terminal now. A bar opened inside another becomes a further line of the same display.
_display: Progress | None = None


class Bar:
    """One bar under way; made by :func:`progress`, never directly."""

    def advance(self, n: float = 1, note: str | None = None) -> None:
        """Count `n` more as done, and show `note` (such as ``"loss 0.12"``) beside the bar if it is given."""

    def stage(self, name: str) -> None:
        """Say what is being done now, before it is begun: beside the bar, or in a line if nothing was said for long."""

    def update(
        self, *, done: float | None = None, total: float | None = None, description: str | None = None
    ) -> None:
        """Set the number done, the total, or the description."""


class _RichBar(Bar):
    def __init__(self, display: Progress, task: TaskID) -> None:
        self._display = display
        self._task = task

    def advance(self, n: float = 1, note: str | None = None) -> None:
        if note is not None:
            self._display.update(self._task, note=note)
        self._display.advance(self._task, n)

    def stage(self, name: str) -> None:
        self._display.update(self._task, note=name)

    def update(
        self, *, done: float | None = None, total: float | None = None, description: str | None = None
    ) -> None:
        self._display.update(self._task, completed=done, total=total, description=description)


class _PlainBar(Bar):
    def __init__(self, description: str, total: float | None) -> None:
        self._description = description
        self._total = total
        self._done = 0.0
        self._note = ""
        self._started = self._printed = time.monotonic()

    def advance(self, n: float = 1, note: str | None = None) -> None:
        self._done += n
        if note is not None:
            self._note = note
        self._print_if_due()

    def stage(self, name: str) -> None:
        self._note = name
        self._print_if_due(STAGE_INTERVAL_SECONDS)

    def update(
        self, *, done: float | None = None, total: float | None = None, description: str | None = None
    ) -> None:
        self._done = self._done if done is None else done
        self._total = self._total if total is None else total
        self._description = self._description if description is None else description
        self._print_if_due()

    def _print_if_due(self, interval: float = PLAIN_INTERVAL_SECONDS) -> None:
        now = time.monotonic()
        if now - self._printed < interval:
            return
        self._printed = now
        line = f"{self._description}: {self._done:g}"
        if self._total:
            line += f" of {self._total:g}"
            if self._done:
                left = (now - self._started) * (self._total - self._done) / self._done
                line += f", about {_duration(left)} left"
        print(line + (f" ({self._note})" if self._note else ""), file=sys.stderr, flush=True)


@contextmanager
def progress(description: str, total: float | None = None, *, quiet: bool = False) -> Iterator[Bar]:
    """Show the progress of the work in the block.

    Parameters
    ----------
    description : str
        What is being done, such as ``"Relaxing sites"``.
    total : float, optional
        How much there is to do; without it no time left is shown.
    quiet : bool
        Show nothing.

    Yields
    ------
    Bar
        Call its ``advance()`` as the work goes on.

    Notes
    -----
    Nothing is ever written to stdout. Without a terminal a plain line appears once a minute.
    """
    global _display
    if quiet:
        yield Bar()
        return
    if not sys.stderr.isatty():
        yield _PlainBar(description, total)
        return
    if _display is not None:
        task = _display.add_task(description, total=total, note="")
        try:
            yield _RichBar(_display, task)
        finally:
            _display.remove_task(task)
        return
    display = _make_display()
    with display:
        _display = display
        try:
            yield _RichBar(display, display.add_task(description, total=total, note=""))
        finally:
            _display = None


@contextmanager
def at_work(description: str, *, quiet: bool = False) -> Iterator[None]:
    """Show on a terminal, from the beginning of the block to its end, that something is being done and for how long.

    Bars that are opened in the block stand below. Without a terminal nothing is shown.

    Parameters
    ----------
    description : str
        What is being done, such as the name of a command.
    quiet : bool
        Show nothing.
    """
    if quiet or not sys.stderr.isatty():
        yield
        return
    with progress(description):
        yield


@contextmanager
def stepping_aside() -> Iterator[None]:
    """Take what is shown off the terminal during the block, in which a person types."""
    display = _display
    if display is None:
        yield
        return
    display.stop()
    try:
        yield
    finally:
        display.start()


def track(
    iterable: Iterable[Item], description: str, total: float | None = None, quiet: bool = False
) -> Iterator[Item]:
    """Yield the items of `iterable`, showing how many have been worked on.

    Parameters
    ----------
    iterable : iterable
        What to go through.
    description : str
        What is being done, such as ``"Relaxing sites"``.
    total : float, optional
        The number of items; taken from ``len(iterable)`` if it has one.
    quiet : bool
        Show nothing.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with progress(description, total, quiet=quiet) as bar:
        for item in iterable:
            yield item
            bar.advance()


def _make_display() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeLeft
    from rich.text import Text

    # Of what has no known end there is neither a share nor a time left.
    class Done(MofNCompleteColumn):
        def render(self, task: Task) -> Text:
            return Text() if task.total is None else super().render(task)

    class Left(TimeLeft):
        def render(self, task: Task) -> Text:
            return Text() if task.total is None else Text("left ") + super().render(task)

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        Done(),
        TimeElapsedColumn(),
        Left(elapsed_when_finished=False),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
        console=Console(stderr=True),
        # The finished bar gives way to the summary that follows it.
        transient=True,
        redirect_stdout=False,
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
