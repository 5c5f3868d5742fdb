"""Reports to open beside the pictures of the gallery, where they were made.

A picture of the gallery at ``images/reports/NAME.webp`` stands for the report of the command below it. Where
``.cache/gallery/NAME`` holds that report, the page lets one open it. ``make gallery`` makes them: this file, run as a
script, calls the commands that the page shows, and with ``--pictures`` takes their pictures anew.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "gallery.md"
MADE = ROOT / ".cache" / "gallery"
_BROWSER = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
_SHOWN = re.compile(
    r"!\[[^\]]*\]\(images/reports/(\w+)\.webp\)\n+(?:<!--[^\n]*\n)?```\n(interpretkit .*?)\n```", re.DOTALL
)


def reports(text: str) -> Iterator[tuple[str, list[str]]]:
    """Give the name of each report on the page, and the words of the command that makes it."""
    for found in _SHOWN.finditer(text):
        yield found[1], shlex.split(found[2].replace("\\\n", " "))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reports that were made."""
    for name, _ in reports(PAGE.read_text(encoding="utf-8")):
        report = MADE / name / "report.html"
        if report.is_file():
            files.append(File.generated(config, f"gallery/{name}.html", abs_src_path=str(report)))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Make the pictures doors to their reports."""
    if page.file.src_uri != "gallery.md":
        return markdown
    for name, _words in reports(markdown):
        if files.get_file_from_path(f"gallery/{name}.html") is not None:
            picture = re.compile(rf"!\[[^\]]*\]\(images/reports/{name}\.webp\)")
            door = (
                rf"[\g<0>](gallery/{name}.html)"
                + f"\n\n[Open this report](gallery/{name}.html){{ .md-button }}"
            )
            markdown = picture.sub(door, markdown, count=1)
    return markdown


def make() -> int:
    """Make the reports that are not there yet, and return the exit code of the command that failed, else 0."""
    MADE.mkdir(parents=True, exist_ok=True)
    for name, words in reports(PAGE.read_text(encoding="utf-8")):
        if not (MADE / name / "report.html").is_file():
            print(f"{name}: {shlex.join(words)}", flush=True)
            # Where the reports lie, so that one may be made of another's files and nothing else is written to.
            done = subprocess.run([sys.executable, "-m", *words, "--out", name], cwd=MADE, check=False)
            if done.returncode:
                return done.returncode
    return 0


def photograph() -> None:
    """Take the pictures anew that the gallery shows of its reports (needs Chromium and playwright)."""
    import io
    import shutil

    from PIL import Image
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=_BROWSER)
        view = browser.new_page(viewport={"width": 1280, "height": 1400})
        for name, _ in reports(PAGE.read_text(encoding="utf-8")):
            view.goto((MADE / name / "report.html").as_uri(), wait_until="load")
            view.wait_for_timeout(4000)  # what is drawn in three dimensions
            picture = Image.open(io.BytesIO(view.screenshot())).convert("RGB")
            picture.thumbnail((860, 940))
            picture.save(PAGE.parent / "images" / "reports" / f"{name}.webp", "WEBP", quality=62, method=6)
        browser.close()


if __name__ == "__main__":
    code = make()
    if "--pictures" in sys.argv and not code:
        photograph()
    sys.exit(code)
