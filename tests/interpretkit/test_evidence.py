import json
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from interpretkit.bench.evidence import Row, markdown, mean_interval, ratio_interval
from interpretkit.runs.files import dump_json

ROW = Row(
    system="teacher",
    data="test | slabs",
    name="mean absolute error",
    value=0.07,
    unit="eV",
    interval=(0.06, 0.08),
    baseline=0.086,
    reference=0.056,
    source="an article, table 2",
    seed=0,
    date="2025-01-31",
    stand_in=True,
    notes="own split",
)


def test_rows_come_back_from_json():
    rows = [ROW, Row(system="a", data="b", name="c", value=1)]
    written = json.loads(dump_json([row.to_dict() for row in rows]))
    assert [Row.from_dict(content) for content in written] == rows
    assert written[0]["ratio"] == pytest.approx(1.25)


def test_a_row_is_fixed_and_complete():
    with pytest.raises(FrozenInstanceError):
        ROW.value = 0.01  # type: ignore[misc]
    with pytest.raises(ValueError, match="needs a source"):
        Row(system="a", data="b", name="c", value=1, reference=2)
    with pytest.raises(ValueError, match="stand-in"):
        Row(system="a", data="b", name="c", value=1, stand_in=True)
    with pytest.raises(ValueError, match="isoformat"):
        Row(system="a", data="b", name="c", value=1, date="yesterday")
    assert Row(system="a", data="b", name="c", value=1).ratio is None


def test_the_interval_of_a_mean_is_students():
    # By hand: mean 2, deviation 1, and the 97.5th percentile of Student's distribution with two degrees is 4.3027.
    assert mean_interval([1.0, float("nan"), 2.0, 3.0]) == pytest.approx((2 - 2.4841, 2 + 2.4841), abs=1e-3)
    assert mean_interval([1.0, float("nan")]) is None


def test_the_table_has_only_columns_that_hold_something():
    plain = Row(system="a", data="b", name="c", value=0.5, date="2025-01-31")
    assert markdown([plain]).splitlines() == [
        "| system | data | measured | value | date |",
        "|---|---|---|---:|---|",
        "| a | b | c | 0.5 | 2025-01-31 |",
    ]
    lines = markdown([ROW, plain]).splitlines()
    assert (
        r"| teacher | test \| slabs † | mean absolute error | 0.07 eV | 0.06 … 0.08 | 0.086 eV |" in lines[2]
    )
    assert lines[-1].startswith("† ")
    assert markdown([]) == "No rows yet.\n"


@pytest.mark.parametrize(
    "content", [{"system": "a"}, {**ROW.to_dict(), "more": 1}, {**ROW.to_dict(), "source": ""}]
)
def test_what_is_no_row_is_refused(content: dict[str, object]):
    with pytest.raises((TypeError, ValueError)):
        Row.from_dict(content)


def test_the_interval_of_a_ratio_holds_it_as_often_as_it_says() -> None:
    """Of means of few repetitions that belong together; over a constant it is that of the mean above."""
    low, high = mean_interval([1.0, 2.0, 4.0]) or (0, 0)
    assert ratio_interval([1.0, 2.0, 4.0], [2.0, 2.0, 2.0]) == pytest.approx((low / 2, high / 2))
    draws = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        below = draws.normal(10, 2, 5)
        found = ratio_interval(0.6 * below + draws.normal(0, 1, 5), below)
        held += found is not None and found[0] <= 0.6 <= found[1]
    # Twice a standard error of the count is 14.
    assert 925 <= held <= 975
    assert ratio_interval([1.0, 2.0, 3.0], [-1.0, 0.0, 1.0]) is None
    assert ratio_interval([1.0], [1.0]) is None
