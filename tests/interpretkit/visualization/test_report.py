import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from interpretkit.runs.invocation import invoked
from interpretkit.visualization import Report, new_figure
from interpretkit.visualization.report import format_number

EVIL = "<script>alert('x')</script> & \"quoted\""


class Page(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def page(tmp_path: Path) -> Page:
    data = tmp_path / "sites.csv"
    data.write_bytes(b"abc")
    figure = new_figure()
    figure.subplots().plot([1, 2])
    report = Report(f"Title {EVIL}", f"Lead {EVIL}", kicker=EVIL)
    report.add_numbers({f"name {EVIL}": ("3", EVIL), "error": 0.071234, "count": 12345, "unknown": None})
    report.add_section(
        f"Section {EVIL}", f"Prose {EVIL} with `code {EVIL}`.\n\n- one\n- two", figures=[figure]
    )
    report.add_figures((figure, f"Caption {EVIL}", f"Alt {EVIL}"))
    report.add_section("Table")
    report.add_table(
        [{"site": EVIL, "energy": -0.5, "n": 1}, {"site": None, "energy": float("nan"), "n": 2}],
        f"Table {EVIL}",
        formats={"energy": "+.3f"},
    )
    report.add_note(EVIL, "warning").add_next_step(EVIL, f"interpretkit {EVIL}")
    report.set_provenance(f"interpretkit {EVIL}", seed=0, data=[data])
    report.save(tmp_path / "report.html")
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_the_page_needs_nothing_but_itself(page: Page):
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "srcset", "data", "poster"):
            address = attributes.get(name)
            assert address is None or address.startswith(("data:", "#")), (tag, address)
    template = resources.files("interpretkit.visualization") / "templates" / "report.html.jinja"
    assert not re.search(r"https?://|@import|url\(", template.read_text(encoding="utf-8"))


def test_all_text_is_escaped(page: Page):
    assert len(page.attributes("script")) == 1
    shown = "".join(page.text)
    # Title twice, lead, kicker, number and note, heading and its link, prose, code, caption, table cell and caption,
    # warning, next step and its command, provenance.
    assert shown.count("<script>alert('x')</script>") >= 16
    assert page.attributes("img")[1]["alt"] == f"Alt {EVIL}"


def test_the_tags_are_balanced(page: Page):
    assert page.open == []


def test_figures_are_embedded_with_their_size(page: Page):
    images = page.attributes("img")
    assert len(images) == 2
    assert all(str(image["src"]).startswith("data:image/webp;base64,UklGR") for image in images)
    assert all(int(str(image["width"])) > 100 for image in images)


def test_tables_hold_formatted_text_and_the_values_to_sort_by(page: Page):
    keys = [cell["data-key"] for cell in page.attributes("td") if "data-key" in cell]
    assert keys == ["-0.5", "1", "", "2"]
    shown = "".join(page.text)
    assert "−0.500" in shown
    headings = [heading.get("class") for heading in page.attributes("th")]
    assert headings == [None, "number-cell", "number-cell"]


def test_numbers_and_provenance_are_shown(page: Page):
    shown = "".join(page.text)
    assert "0.0712" in shown
    assert "12 345" in shown
    assert f"numpy\xa0{np.__version__}" in shown
    # The SHA-256 of "abc", from FIPS 180-2, appendix B.1.
    assert "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" in shown


def test_sections_come_before_what_belongs_to_them():
    with pytest.raises(ValueError, match="add_section"):
        Report("x").add_text("y")


def test_a_short_report_has_no_contents_and_no_empty_parts():
    page = Page(Report("x").html())
    assert not page.attributes("nav")
    assert "How to go on" not in "".join(page.text)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0712345, "0.07123"),
        (-2, "−2"),
        (1234567, "1 234 567"),
        (1.5e-7, "1.5·10⁻⁷"),
        (float("nan"), "–"),
        (None, "–"),
        (True, "yes"),
        ("62 %", "62 %"),
        (3.0, "3"),
    ],
)
def test_numbers_are_written_for_people(value, shown):
    assert format_number(value) == shown


def test_within_a_command_the_page_shows_what_was_typed() -> None:
    report = Report("A page", "Something.")
    with invoked(["interpretkit", "cnn", "visualize", "photos/grey ü.png", "--weights", "random"]):
        page = report.set_provenance("interpretkit cnn visualize").html()
    assert "interpretkit cnn visualize &#39;photos/grey ü.png&#39; --weights random" in page
    assert "--weights" not in report.set_provenance("interpretkit cnn visualize").html()
