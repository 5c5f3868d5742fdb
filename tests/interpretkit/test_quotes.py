"""Numbers on pages are those of the bench's results: found by name, shown as asked, refused where not certain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interpretkit.bench.quotes import QUOTES, names_in, quoted, read_quotes, refresh, refresh_pages
from interpretkit.errors import InputError

ROW: dict[str, Any] = {
    "system": "teacher", "data": "slabs", "name": "error", "value": 0.0578, "unit": "eV",
    "interval": [0.05, 0.07], "baseline": -0.5, "reference": None, "ratio": None,
}  # fmt: skip
RESULTS = {
    "adsorption": {
        "rows": [ROW, {**ROW, "name": "error of the head", "value": 2.0}, {**ROW, "system": "head"}]
    }
}
ENTRY = {"benchmark": "adsorption", "system": "teacher", "measured": "error", "show": "{value:.3f}"}


@pytest.mark.parametrize(
    ("show", "expected"),
    [
        ("{value:.3f}", "0.058"),
        ("{value:.0%}", "6 %"),
        ("{baseline:.1f}", "−0.5"),
        ("{low:.2f} to {high:.2f}", "0.05 to 0.07"),
        ("± {half:.2f}", "± 0.01"),
    ],
)
def test_numbers_are_shown_as_asked(show: str, expected: str) -> None:
    assert quoted({**ENTRY, "show": show}, RESULTS) == expected


def test_a_name_that_begins_another_is_meant_itself() -> None:
    assert quoted(ENTRY, RESULTS) == "0.058"
    assert quoted({**ENTRY, "measured": "error of"}, RESULTS) == "2.000"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"system": "nobody"}, "fits 0 rows"),
        ({"benchmark": "none"}, "fits 0 rows"),
        ({"measured": "err"}, "fits 2 rows"),
        ({"data": "clusters"}, "fits 0 rows"),
        ({"show": "{ratio:.2f}"}, "cannot be shown"),
        ({"show": "{other}"}, "cannot be shown"),
    ],
)
def test_what_is_not_certain_is_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        quoted({**ENTRY, **change}, RESULTS, "x")


def test_pages_are_brought_up_to_date(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    lines = [f'{key} = "{value}"' for key, value in ENTRY.items()]
    (folder / QUOTES).write_text("[teacher]\n" + "\n".join(lines))
    (tmp_path / "README.md").write_text("An error of <!-- result: teacher -->9<!-- /result --> eV; 9 others.")
    (folder / "other.md").write_text("Nothing is quoted here: 0.1.")
    assert refresh_pages(folder, RESULTS) == [tmp_path / "README.md"]
    text = (tmp_path / "README.md").read_text()
    assert text == "An error of <!-- result: teacher -->0.058<!-- /result --> eV; 9 others."
    assert names_in(text) == ["teacher"]
    assert refresh_pages(folder, RESULTS) == []
    (folder / "other.md").write_text("<!-- result: unknown -->0<!-- /result -->")
    with pytest.raises(InputError, match=r"has no \[unknown\]"):
        refresh_pages(folder, RESULTS)


def test_a_file_of_quotes_is_checked(tmp_path: Path) -> None:
    path = tmp_path / QUOTES
    full = '[a]\nbenchmark="b"\nsystem="s"\nmeasured="m"\nshow="x"\n'
    path.write_text(full)
    assert set(read_quotes(path)) == {"a"}
    for content in ("[a", "a = 1", '[a]\nbenchmark = "b"', full + 'more="y"'):
        path.write_text(content)
        with pytest.raises(InputError, match=QUOTES):
            read_quotes(path)
    with pytest.raises(InputError):
        read_quotes(tmp_path / "absent.toml")


def test_a_page_that_quotes_nothing_stays() -> None:
    assert refresh("text <!-- a comment --> 3", {}, {}) == "text <!-- a comment --> 3"
