"""How the page of every check begins and ends."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from interpretkit.caution import warn_loudly
from interpretkit.results import Run
from interpretkit.visualization import Report


def page(check: str, title: str, lead: str = "") -> Report:
    """Return the empty page of a check, called as its command is."""
    return Report(title, lead, kicker=f"interpretkit cnn diagnose {check}")


def save_page(
    report: Report, run: Run, *, seed: int, files: Iterable[Path] = (), warnings: Iterable[str] = ()
) -> None:
    """Say below a page how it came about, and write it into the run's folder.

    Parameters
    ----------
    report : Report
        What :func:`page` began.
    run : Run
        The run.
    seed : int
        The seed.
    files : iterable of pathlib.Path
        What was read.
    warnings : iterable of str
        What must not be missed, see :func:`interpretkit.caution.no_better`.
    """
    warn_loudly(warnings, report, run.summary)
    report.set_provenance(report.kicker, seed=seed, data=files)
    report.save(run.path("report.html"))
