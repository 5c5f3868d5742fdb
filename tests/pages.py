"""Pages as people see them: a browser, and what it finds wrong with a page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# A telephone held upright and the window of a small notebook, by day and by night.
WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
MOST_BYTES = 5_000_000
# A machine may have much else to do.
PATIENCE_MS = 120_000
# Three dimensions are drawn by the processor where there is no graphics card.
_ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
_FAULTS = Path(__file__).with_name("pages.js").read_text(encoding="utf-8")
# What follows a change of size is drawn a frame later.
DRAWN = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))"
# Of what can be reached by the keyboard, told apart by its place in the document.
_CONTROLS = """() => {
  const found = [...document.querySelectorAll(
    "button, input, select, textarea, a[href], [tabindex='0'], summary")].filter(element =>
    !element.disabled && element.tabIndex >= 0 && !element.closest("[data-foreign]") &&
    element.checkVisibility({ checkVisibilityCSS: true }));
  window.__controls = found;
  return found.map(e => `<${e.localName}> ${(e.getAttribute("aria-label") || e.textContent).trim().slice(0, 40)}`);
}"""
# Radio buttons of one name are one stop.
_FOCUSED = """() => {
  const at = document.activeElement, style = getComputedStyle(at);
  const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
  return [window.__controls.indexOf(at), ring];
}"""


def browser_path() -> str | None:
    """Return the Chromium of this machine, or None."""
    named = os.environ.get("CHROMIUM")
    return named or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )


@dataclass
class View:
    """A page that is open in the browser.

    Attributes
    ----------
    page
        Playwright's page.
    said : list of str
        Errors in the console, exceptions, and requests to anywhere, so far.
    """

    page: Any
    said: list[str] = field(default_factory=list)

    def faults(self) -> list[str]:
        """Return what is wrong with the page at each width, in each scheme."""
        found = []
        for width in WIDTHS:
            self.page.set_viewport_size({"width": width, "height": 800})
            for scheme in SCHEMES:
                self.page.emulate_media(color_scheme=scheme)
                self.page.evaluate(DRAWN)
                found += [f"{width} px, {scheme}: {fault}" for fault in self.page.evaluate(_FAULTS)]
        return [*self.said, *found]

    def unreachable(self) -> list[str]:
        """Return the controls that the tabulator does not reach, or reaches without its being seen."""
        controls = self.page.evaluate(_CONTROLS)
        self.page.evaluate("() => { document.activeElement?.blur(); scrollTo(0, 0); }")
        reached: dict[int, bool] = {}
        for _ in range(len(controls) + 5):
            self.page.keyboard.press("Tab")
            place, ring = self.page.evaluate(_FOCUSED)
            if place in reached:
                break
            if place >= 0:
                reached[place] = ring
        lost = [f"not reached by the keyboard: {name}" for i, name in enumerate(controls) if i not in reached]
        dim = [f"not seen when it has the focus: {controls[i]}" for i, ring in reached.items() if not ring]
        return lost + dim


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Give the one browser of all tests; without one they are skipped."""
    path = browser_path()
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture
def view(browser: Any) -> Iterator[Callable[..., View]]:
    """Give a function that opens a page: a file, or an address of a server of the test's own.

    Whatever else the page asks for is refused, and stands among what it `said`.
    """
    contexts = []

    def opened(where: Path | str, *, width: int = WIDTHS[0]) -> View:
        context = browser.new_context(viewport={"width": width, "height": 800}, accept_downloads=True)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        seen = View(page)
        address = where.as_uri() if isinstance(where, Path) else where
        own = (address, "data:", "blob:")

        def asked(route: Any) -> None:
            if route.request.url.startswith(own):
                route.continue_()
            else:
                seen.said.append(f"asks for {route.request.url[:100]}")
                route.abort()

        context.route("**/*", asked)
        page.on("pageerror", lambda error: seen.said.append(f"exception: {error}"))
        page.on(
            "console",
            lambda line: seen.said.append(f"console: {line.text}") if line.type == "error" else None,
        )
        page.goto(address, wait_until="load")
        return seen

    yield opened
    for context in contexts:
        context.close()
