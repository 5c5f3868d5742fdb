"""What is no better than its baseline says so on the page and in the terminal."""

from __future__ import annotations

from typing import Any

import pytest

from interpretkit.caution import no_better, warn_loudly
from interpretkit.command import print_summary
from interpretkit.visualization import Report


@pytest.mark.parametrize(
    ("value", "baseline", "lower", "told"),
    [
        (0.6, 0.5, False, False),
        (0.5, 0.5, False, True),
        (0.4, 0.5, False, True),
        (0.4, 0.5, True, False),
        (0.5, 0.5, True, True),
        (0.6, 0.5, True, True),
        (float("nan"), 0.5, False, False),
        (0.4, None, False, False),
        (None, 0.5, False, False),
    ],
)
def test_only_what_is_no_better_is_told(
    value: float | None, baseline: float | None, lower: bool, told: bool
) -> None:
    assert bool(no_better("it", value, "that", baseline, lower_is_better=lower)) == told


def test_both_numbers_are_told() -> None:
    (line,) = no_better("the student", 0.81, "labels alone", 0.825, form=".1%")
    assert line == "THE STUDENT IS NO BETTER THAN LABELS ALONE: 81.0% beside 82.5%"


def test_page_and_summary_get_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    report, summary = Report("Title"), {"accuracy": 0.5, "warnings": ["first"]}
    warn_loudly(["SECOND & LAST"], report, summary)
    assert summary["warnings"] == ["first", "SECOND & LAST"]
    page = report.html()
    assert 'class="alarm"' in page
    assert "SECOND &amp; LAST" in page
    assert page.index("</h1>") < page.index("SECOND &amp; LAST")
    print_summary(summary)
    shown = capsys.readouterr().out
    assert "WARNING" in shown
    assert shown.index("accuracy") < shown.index("first") < shown.index("SECOND")


def test_nothing_amiss_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    report, summary = Report("Title"), dict[str, Any](accuracy=0.5)
    warn_loudly([], report, summary)
    assert summary == {"accuracy": 0.5}
    assert 'role="alert"' not in report.html()
    print_summary(summary)
    assert "WARNING" not in capsys.readouterr().out
