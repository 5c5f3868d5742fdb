"""What is no better than its baseline says so on the page and in the terminal."""

from __future__ import annotations

import pytest

from interpretkit.commandline.caution import no_better


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
