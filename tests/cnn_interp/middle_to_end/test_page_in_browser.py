import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra `web` is not installed")
sys.path.insert(0, str(Path(__file__).parent))
import classroom
from edited_networks import BLUE, GREEN, RED
from pages import DRAWN, PATIENCE_MS
from test_page import Server

from cnn_interp.middle_to_end.journal import open_journal, read_journal
from cnn_interp.middle_to_end.page.editing_room import EditingRoom

pytestmark = pytest.mark.browser

# A page may be there before its script has run, and then knows no state at all.
SETTLED = "number => typeof state !== 'undefined' && state && state.number === number && !busy"


class Person:
    """Looks at the page, drags the box onto the part, and presses a key or a button."""

    def __init__(self, page, part):
        self.page = page
        self.part = part

    def settled(self, number):
        self.page.wait_for_function(SETTLED, arg=number)
        self.page.wait_for_function("() => document.getElementById('picture').complete")

    def seen(self):
        """Return where the part is in the asked image, px of the screen; None if it is not there."""
        image = self.page.evaluate("state.question.image")
        if np.isnan(self.part[image, 0]):
            return None
        stage = self.page.locator("#stage").bounding_box()
        scale = stage["width"] / 224
        return stage["x"] + self.part[image, 1] * scale, stage["y"] + self.part[image, 0] * scale

    def drag(self, place):
        box = self.page.locator("#box").bounding_box()
        self.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        self.page.mouse.down()
        self.page.mouse.move(*place, steps=4)
        self.page.mouse.up()

    def answer(self, by):
        """Answer the question; return what was said."""
        self.page.locator("#stage").scroll_into_view_if_needed()
        place = self.seen()
        known = self.page.evaluate("Boolean(state.question.box)")
        number = self.page.evaluate("state.number")
        if place is None:
            verdict, key = "absent", "a"
        else:
            self.drag(place)
            verdict, key = ("wrong box", "b") if known else ("new template", "n")
        if by == "key":
            self.page.keyboard.press(key)
        else:
            self.page.locator(f'#answers button[data-verdict="{verdict}"]').click()
        self.settled(number + 1)
        return verdict


@pytest.mark.parametrize("width", [1280, 390])
def test_a_person_teaches_a_part_in_ten_answers(view, width, tmp_path):
    part = classroom.planted()[1]
    path = tmp_path / "nose.jsonl"
    with open_journal(path, classroom.ABOUT) as log:
        server = Server(classroom.room(log, path))
        seen = view(server.address, width=width)
        person = Person(seen.page, part)
        person.settled(0)
        said = [person.answer("key" if number % 2 else "button") for number in range(10)]
        entries: list[Any] = log.entries
        assert [entry.answer.verdict for entry in entries] == said
        for entry in entries:
            if entry.answer.position is not None:
                # Dragged onto the square, to a pixel of the screen.
                assert np.hypot(*(np.array(entry.answer.position) - part[entry.image])) < 2.5
        seen.page.reload()
        person.settled(10)
        assert seen.page.locator("#said li").count() == 10
        asked = seen.page.evaluate("state.question.image")
        seen.page.keyboard.press("u")
        person.settled(11)
        assert seen.page.locator("#said li").count() == 9
        person.answer("key")
        assert seen.page.evaluate("state.question.image") == asked
        seen.page.wait_for_selector(".template .pattern img")
        seen.page.wait_for_function(
            "() => [...document.images].every(one => one.complete && one.naturalWidth)"
        )
        if width == 1280:
            assert seen.faults() == []
            assert seen.unreachable() == []
        assert seen.said == []
        seen.page.locator("#stop").click()
        server.thread.join(20)
        assert not server.thread.is_alive()
    entries = read_journal(path, classroom.ABOUT)
    with open_journal(path, classroom.ABOUT) as log:
        server = Server(classroom.room(log, path))
        again = view(server.address, width=width)
        person = Person(again.page, part)
        person.settled(len(entries))
        assert again.page.locator("#said li").count() == 10
        server.stop()


def test_by_the_keyboard_alone(view):
    part = classroom.planted()[1]
    server = Server(classroom.room())
    seen = view(server.address)
    person = Person(seen.page, part)
    person.settled(0)
    for _ in range(20):
        seen.page.keyboard.press("Tab")
        if seen.page.evaluate("document.activeElement.id") == "box":
            break
    before = seen.page.evaluate("box.slice()")
    for key in ("ArrowDown", "ArrowDown", "ArrowLeft", "Shift+ArrowRight"):
        seen.page.keyboard.press(key)
    after = seen.page.evaluate("box.slice()")
    assert after == [before[0] + 8, before[1] - 4, before[2], before[3] + 8]
    seen.page.keyboard.press("n")
    person.settled(1)
    assert seen.page.evaluate("state.said[0].place") == after[:2]
    # A letter typed with a control key is the browser's.
    seen.page.keyboard.press("Control+a")
    seen.page.keyboard.press("r")
    person.settled(2)
    assert seen.page.evaluate("state.said[1].verdict") == "right"
    server.stop()


def test_by_touch(browser):
    part = classroom.planted()[1]
    server = Server(classroom.room())
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(server.address)
    person = Person(page, part)
    person.settled(0)
    page.locator("#stage").scroll_into_view_if_needed()
    # What a finger may do is told from the frame drawn last: before the image is in it, a finger scrolls.
    page.evaluate(DRAWN)
    stage = page.locator("#stage").bounding_box()
    # Chromium turns these into pointer events of kind touch, as from a finger.
    session = context.new_cdp_session(page)
    for kind, share in (("touchStart", 0.5), ("touchMove", 0.6), ("touchMove", 0.7), ("touchEnd", None)):
        points = (
            []
            if share is None
            else [{"x": stage["x"] + stage["width"] * share, "y": stage["y"] + stage["height"] * share}]
        )
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    # The page is told of moves once for each frame, after the browser was.
    page.wait_for_function(
        "() => drag === null && moved && Math.max(...box.slice(0, 2).map(x => Math.abs(x - 0.7 * 224))) < 3"
    )
    page.locator('#answers button[data-verdict="new template"]').tap()
    person.settled(1)
    context.close()
    server.stop()


def test_whoever_is_late_is_told(view):
    part = classroom.planted()[1]
    server = Server(classroom.room())
    first, second = view(server.address), view(server.address)
    one, other = Person(first.page, part), Person(second.page, part)
    one.settled(0)
    other.settled(0)
    one.answer("key")
    second.page.keyboard.press("s")
    other.settled(1)
    assert "meanwhile" in second.page.locator("#status").text_content()
    assert second.page.locator("#said li").count() == 1
    server.stop()


def said_on(page, number):
    """Wait until so many things were said, and return all lines."""
    page.wait_for_function(SETTLED, arg=number)
    return page.locator("#said li").all_text_contents()


def test_patterns_are_judged_and_the_effect_is_seen_at_once(view):
    server = Server(classroom.room(), EditingRoom(classroom.editing_session))
    seen = view(server.address)
    page = seen.page
    Person(page, None).settled(0)
    assert seen.faults() == []
    page.get_by_role("link", name="Edit the network").click()
    page.wait_for_selector("#keep")
    assert said_on(page, 0) == []
    asked = page.evaluate("state.asked")
    before = page.locator("#effect").text_content()
    page.keyboard.press("d")
    assert said_on(page, 1) == [f"drop {asked}"]
    assert page.locator("#effect").text_content() != before
    assert page.locator("#pictures figure").count() == page.evaluate("Math.min(state.changed, 12)") > 0
    page.keyboard.press("u")
    said_on(page, 2)
    assert page.locator("#effect").text_content() == before
    page.get_by_label(f"A name for pattern {GREEN}", exact=True).fill("leaf")
    # Letters that are typed are no answers.
    page.get_by_label(f"A name for pattern {GREEN}", exact=True).press("Enter")
    assert said_on(page, 3) == [f"rename {GREEN} leaf"]
    for name in ("leaf", str(BLUE)):
        page.get_by_label(f"Pattern {name}", exact=True).check()
    page.locator("#merged").fill("colour")
    page.locator("#merge-them").click()
    assert said_on(page, 4)[-1] == f"merge {GREEN} {BLUE} as colour"
    page.get_by_label(f"Drop pattern {RED}", exact=True).click()
    said_on(page, 5)
    page.locator("#line").fill("drop nothing")
    page.locator("#say").click()
    page.wait_for_function("() => document.getElementById('status').className === 'wrong'")
    assert "no pattern 'nothing'" in page.locator("#status").text_content()
    page.locator("#refit").click()
    said_on(page, 6)
    assert "trained without it" in page.locator("#effect-note").text_content()
    page.locator("#word").fill("colour")
    page.locator("#word").press("Enter")
    page.wait_for_function("() => document.activeElement.type === 'checkbox'")
    assert page.evaluate("document.activeElement.value") == str(GREEN)
    # What is refused stands in the console as well.
    refused = [line for line in seen.said if "400" in line]
    assert seen.said == refused
    seen.said.clear()
    assert seen.faults() == []
    assert seen.unreachable() == []
    page.reload()
    assert len(said_on(page, 6)) == 3
    page.wait_for_function(
        "() => [...document.images].every(one => one.loading === 'lazy' || one.naturalWidth)"
    )
    assert seen.said == []
    page.locator("#stop").click()
    server.thread.join(20)
    assert not server.thread.is_alive()
