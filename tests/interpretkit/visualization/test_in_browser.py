"""A page worked as people do: sorted, enlarged and copied from, with the keyboard alone."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pages import View
from PIL import Image

from interpretkit.visualization import Report, new_figure, style
from interpretkit.visualization.report import embedded

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page with all that makes a page hard to fit: many columns, long words, large and small pictures."""
    draws = np.random.default_rng(0)
    with style():
        plot, photograph = new_figure(9.0, 4.0), new_figure(4.0, 4.0)
        plot.subplots().plot([1, 3, 2])
        photograph.subplots().imshow(draws.integers(0, 255, (300, 300, 3), dtype=np.uint8))
    report = Report("A page that is hard to fit", "Of `words_that_cannot_be_broken_" + "x" * 60 + "`.")
    report.add_numbers({f"number {n}": (n * 0.1, "a note") for n in range(5)})
    report.add_alarm("Not to be trusted.")
    report.add_section("Pictures", figures=[(plot, "A line"), (photograph, "A line"), (photograph, "A line")])
    rows = [
        {f"column {n} (eV)": float(draws.normal()) for n in range(13)} | {"site": f"s{k}"} for k in range(30)
    ]
    report.add_section("Rows").add_table(rows, "Thirteen numbers", meanings={"column 0 (eV)": "the first"})
    report.add_table(
        [{"score": 0.9, "floor": 0.1, "ceiling": 0.8}, {"score": 0.0, "floor": 0.1, "ceiling": 0.8}],
        meters={"score": ("floor", "ceiling")},
    )
    report.add_next_step("Go on:", ["interpretkit", "catalyst", "design", "--data", "a" * 90 + ".extxyz"])
    path = tmp_path_factory.mktemp("page") / "report.html"
    report.save(path)
    return path


@pytest.fixture
def page(file: Path, view: Callable[..., View]) -> View:
    return view(file)


def test_nothing_is_cut_and_all_can_be_reached(page: View) -> None:
    assert page.faults() == []
    assert page.unreachable() == []


def test_the_check_sees_what_is_wrong(tmp_path: Path, view: Callable[..., View]) -> None:
    (tmp_path / "page.html").write_text(
        """<!doctype html><title>x</title><body style="margin: 0">
        <p style="color: #999; background: #fff">pale words</p>
        <div style="width: 2000px">wide</div>
        <div style="width: 50px; overflow: hidden"><div style="width: 200px">cut</div></div>
        <div><div class="box" style="width: 60px; overflow: auto"><div style="width: 200px">hidden</div></div></div>
        <div style="position: relative">words
        <button style="position: absolute; left: 0; outline: none">on</button></div>
        <img alt="" src="data:,"><button></button><img src="http://example.invalid/x.png" alt="far">
        <script>console.error("an error")</script>"""
    )
    faults = "\n".join(view(tmp_path / "page.html").faults())
    for kind in (
        "contrast", "px wide", "is cut", "not by keyboard", "without a word", "covers", "no text", "without a name",
        "example.invalid", "an error",
    ):  # fmt: skip
        assert kind in faults, kind
    unseen = "\n".join(view(tmp_path / "page.html").unreachable())
    assert "not seen when it has the focus" in unseen


def test_a_table_is_sorted_by_the_keyboard(page: View) -> None:
    heading = page.page.locator("th button").first
    heading.focus()
    for order in (1, -1):
        page.page.keyboard.press("Enter")
        keys = page.page.evaluate(
            "[...document.querySelector('table').tBodies[0].rows].map(r => +r.cells[0].dataset.key)"
        )
        assert keys == sorted(keys, reverse=order < 0)


def test_a_picture_is_seen_pixel_by_pixel_and_beyond(page: View) -> None:
    first = page.page.locator(".sheet").first
    first.focus()
    page.page.keyboard.press("Enter")
    image = page.page.locator("dialog img")
    page.page.wait_for_function("document.querySelector('dialog img')?.naturalWidth > 0")
    natural = image.evaluate("image => image.naturalWidth")
    assert natural > 1300
    page.page.keyboard.press("1")
    assert image.bounding_box()["width"] == pytest.approx(natural, abs=1)
    page.page.keyboard.press("+")
    assert image.bounding_box()["width"] == pytest.approx(1.5 * natural, abs=1)
    # The rest is moved into sight by arrows.
    before = page.page.locator(".zoom-stage").evaluate("stage => stage.scrollLeft")
    page.page.keyboard.press("ArrowRight")
    page.page.wait_for_function(
        "before => document.querySelector('.zoom-stage').scrollLeft > before", arg=before
    )
    page.page.keyboard.press("Escape")
    page.page.wait_for_function("!document.querySelector('dialog')")
    assert first.evaluate("sheet => sheet === document.activeElement")


def test_a_command_is_copied_whole_or_marked(page: View) -> None:
    button = page.page.locator(".copy").first
    button.focus()
    page.page.keyboard.press("Enter")
    page.page.wait_for_function("document.querySelector('.copy').textContent !== 'Copy'")
    assert button.text_content() in ("Copied", "Marked: Ctrl+C")


def test_a_score_beyond_its_marks_says_so(page: View) -> None:
    assert page.page.locator(".meter-note").all_text_contents() == ["above its ceiling", "below its floor"]


def test_a_drawing_is_kept_bit_for_bit_and_a_photograph_is_small() -> None:
    draws = np.random.default_rng(0)
    with style():
        plot = new_figure(5.0, 4.0)
        plot.subplots().plot([1, 3, 2])
    drawing = io.BytesIO()
    plot.savefig(drawing, format="png")
    photograph = io.BytesIO()
    Image.fromarray(draws.integers(0, 255, (300, 300, 3), dtype=np.uint8)).save(photograph, "PNG")
    for png, exact in ((drawing, True), (photograph, False)):
        width, height, data = embedded(png.getvalue())
        content = base64.b64decode(data)
        assert len(content) < len(png.getvalue())
        with Image.open(io.BytesIO(content)) as shown, Image.open(png) as given:
            assert (width, height) == shown.size == given.size
            same = np.array_equal(np.asarray(shown.convert("RGB")), np.asarray(given.convert("RGB")))
            assert same == exact
