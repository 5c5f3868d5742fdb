"""Instruments of pictures, worked by the keyboard alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pages import View
from PIL import Image

from interpretkit.visualization import Report
from interpretkit.visualization.instruments import (
    Frame,
    Frames,
    Gallery,
    Item,
    Map,
    MappedImage,
    MapViewer,
)

SIDE = 300


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    grey = Image.new("RGB", (400, SIDE), (128, 128, 128))
    left = np.zeros((SIDE, SIDE))
    left[:, : SIDE // 2] = 1
    maps = [
        Map(left, "cat", "first", top=0.25, meaning="(a part)"),
        Map(-left, "cat", "second", top=2.0),
        Map(left, "dog", "first", signed=False),
    ]
    viewer = MapViewer(
        [
            MappedImage("one.png", grey, maps, crop=(50, 0, SIDE, SIDE), note="Of one."),
            MappedImage("two.png", grey, maps[:1], note="Of two."),
        ]
    )
    gallery = Gallery(
        [
            Item(f"unit {k}", np.full((40, 60, 3), k / 60), f"sees {'wheels' if k % 2 else 'legs'}",
                 f"layer {k % 3}", {"IoU": None if k == 5 else k / 100})
            for k in range(50)
        ]
    )  # fmt: skip
    frames = Frames(
        {
            name: [Frame(np.full((8, 8), k / 4), f"{name} at {k - 2} σ") for k in range(5)]
            for name in ("size", "turn")
        },
        enlarged=10,
    )
    report = Report("Pictures", "To be worked with.")
    for title, one in (("Maps", viewer), ("Gallery", gallery), ("Way", frames)):
        report.add_section(title).add_instrument(one)
    path = tmp_path_factory.mktemp("pictures") / "report.html"
    report.save(path)
    return path


@pytest.fixture
def page(file: Path, view: Callable[..., View]) -> View:
    seen = view(file)
    seen.page.wait_for_selector(".maps[data-drawn]")
    return seen


def _colour(page: View, across: float, down: float) -> list[int]:
    """Return the colour of the map's canvas at a place, in shares of its width and height."""
    return page.page.evaluate(
        """([x, y]) => { const c = document.querySelector('.maps canvas');
        return [...c.getContext('2d').getImageData(x * c.width, y * c.height, 1, 1).data].slice(0, 3); }""",
        [across, down],
    )


def _drawn(page: View, what: str) -> None:
    page.page.wait_for_function("what => document.querySelector('.maps').dataset.drawn === what", arg=what)


@pytest.mark.browser
def test_its_page_has_no_fault(page: View) -> None:
    assert page.faults() == []
    assert page.unreachable() == []


@pytest.mark.browser
def test_a_map_lies_where_it_belongs_as_strongly_as_the_slider_says(page: View) -> None:
    _drawn(page, "one.png|cat|first|70|false")
    assert _colour(page, 0.2, 0.5)[0] > 150 > 90 > _colour(page, 0.2, 0.5)[2]
    assert _colour(page, 0.8, 0.5) == pytest.approx([128] * 3, abs=3)
    slider = page.page.get_by_label("strength of the map")
    slider.focus()
    page.page.keyboard.press("Home")
    _drawn(page, "one.png|cat|first|0|false")
    assert _colour(page, 0.2, 0.5) == pytest.approx([128] * 3, abs=3)
    page.page.keyboard.press("End")
    _drawn(page, "one.png|cat|first|100|false")
    assert _colour(page, 0.2, 0.5) == pytest.approx([214, 26, 13], abs=4)
    # On the whole image, of which the network saw the middle, the map begins an eighth from the left.
    page.page.get_by_label("the whole image").focus()
    page.page.keyboard.press("Space")
    _drawn(page, "one.png|cat|first|100|true")
    assert _colour(page, 0.08, 0.5) == pytest.approx([128] * 3, abs=3)
    assert _colour(page, 0.2, 0.5) == pytest.approx([214, 26, 13], abs=4)
    assert _colour(page, 0.7, 0.5) == pytest.approx([128] * 3, abs=3)


@pytest.mark.browser
def test_method_target_and_image_are_chosen(page: View) -> None:
    maps = page.page.locator(".maps")
    maps.locator("[data-choice=method]").select_option(label="second")
    _drawn(page, "one.png|cat|second|70|false")
    assert _colour(page, 0.2, 0.5)[2] > _colour(page, 0.2, 0.5)[0]
    assert "−2" in str(maps.locator(".legend").text_content())
    maps.locator("[data-choice=target]").select_option(label="dog")
    _drawn(page, "one.png|dog|first|70|false")
    # Nothing speaks against it where only sizes count.
    assert "against" not in str(maps.locator(".legend").text_content())
    maps.locator("[data-choice=image]").select_option(label="two.png")
    _drawn(page, "two.png|cat|first|70|false")
    assert not maps.locator("[data-choice=whole]").is_visible()


@pytest.mark.browser
def test_the_value_at_a_place_is_told(page: View) -> None:
    canvas = page.page.locator(".maps canvas")
    canvas.focus()
    page.page.keyboard.press("ArrowLeft")
    status = page.page.locator(".maps .status")
    page.page.wait_for_function("document.querySelector('.maps .status').textContent.includes('Here')")
    assert "100 % of the strongest, for it" in str(status.text_content())
    for _ in range(3):
        page.page.keyboard.press("ArrowRight")
    page.page.wait_for_function("document.querySelector('.maps .status').textContent.includes(' 0 %')")


@pytest.mark.browser
def test_a_gallery_is_searched_and_sorted(page: View) -> None:
    gallery = page.page.locator(".gallery")
    status, shown = gallery.locator(".status"), gallery.locator("li:not([hidden]) strong")
    assert status.text_content() == "24 of 50 shown"
    gallery.locator("[data-choice=order]").select_option(label="IoU, largest first")
    assert shown.first.text_content() == "unit 49"
    gallery.locator("[data-choice=search]").fill("WHEELS unit 4")
    assert set(shown.all_text_contents()) == {f"unit {k}" for k in (41, 43, 45, 47, 49)}
    gallery.locator("[data-choice=group]").select_option("layer 1")
    assert shown.all_text_contents() == ["unit 49", "unit 43"]
    gallery.locator("[data-choice=search]").fill("")
    gallery.locator("[data-choice=group]").select_option("")
    gallery.locator("[data-choice=order]").select_option(label="IoU, smallest first")
    more = gallery.get_by_role("button", name="Show more")
    for _ in range(2):
        more.focus()
        page.page.keyboard.press("Enter")
    # What has no number comes last.
    assert shown.last.text_content() == "unit 5"
    assert status.text_content() == "50 of 50 shown"
    assert not more.is_visible()
    gallery.locator("li button").first.focus()
    page.page.keyboard.press("Enter")
    assert page.page.locator("dialog img").get_attribute("alt") == "unit 0: sees legs, IoU 0"


@pytest.mark.browser
def test_a_slider_goes_along_a_way(page: View) -> None:
    frames = page.page.locator(".frames")
    caption = frames.locator(".caption")
    assert caption.text_content() == "size at 0 σ"
    frames.locator("[data-choice=place]").focus()
    page.page.keyboard.press("ArrowRight")
    assert caption.text_content() == "size at 1 σ"
    frames.locator("[data-choice=way]").select_option(label="turn")
    page.page.keyboard.press("Tab")
    assert caption.text_content() == "turn at 0 σ"
    frames.get_by_role("button", name="Play").click()
    page.page.wait_for_function("document.querySelector('.frames .caption').textContent !== 'turn at 0 σ'")


def test_hostile_names_stay_words(tmp_path: Path) -> None:
    evil = "</script><script>alert('x')</script>"
    report = Report("x")
    gallery = Gallery([Item(evil, np.zeros((4, 4)), evil, evil, {evil: 1.0})], placeholder=evil, label=evil)
    report.add_section("x").add_instrument(gallery)
    page = report.html()
    assert evil not in page
    data = page.split('class="data">')[1].split("</script>")[0]
    assert json.loads(data)["numbers"] == [evil]


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        MapViewer([])
    with pytest.raises(ValueError, match="title of its own"):
        Gallery([Item("a", np.zeros((2, 2))), Item("a", np.zeros((2, 2)))])
    with pytest.raises(ValueError, match="at least one way"):
        Frames({"a": []})
