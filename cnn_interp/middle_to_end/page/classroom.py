"""A dialogue that several may talk to at once, in words and pictures that a page can show."""

from __future__ import annotations

import base64
import io
import tempfile
import threading
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cnn_interp.disentangling.part_graph import FILES, Answer, PartGraph, infer
from cnn_interp.images.sets import Images, Picture, resized
from cnn_interp.middle_to_end.dialogue import Dialogue
from cnn_interp.middle_to_end.page.pictures import PATCH, jpeg
from interpretkit.errors import InputError

# Pictures are sent so wide, px.
WIDE = 448
# Of each template so many images it was shown in, and so many patterns with so many patches of each.
_SHOWN, _PATTERNS, _PATCHES = 8, 4, 5
# Images that it is least sure of.
_UNSURE = 6
# A picture to try the graph on has at most so many bytes and pixels.
TRY_BYTES, TRY_PIXELS = 12_000_000, 40_000_000
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

# From pixels ``(h, w, 3)`` to the cells of that one image.
Encode = Callable[[Picture], Any]


class Classroom:
    """One dialogue behind a lock.

    Parameters
    ----------
    dialogue : Dialogue
        Which is talked to.
    images : Images
        Its images.
    encode : callable, optional
        From a picture to its cells, to try the graph on others.
    journal : path, optional
        Where what was said is kept; it is part of the export.
    """

    def __init__(
        self, dialogue: Dialogue, images: Images, *, encode: Encode | None = None, journal: Path | None = None
    ) -> None:
        self._dialogue = dialogue
        self._images = images
        self._encode = encode
        self._journal = journal
        self._lock = threading.Lock()
        self._frame = dialogue.cells.image
        self._picture = lru_cache(maxsize=64)(self._drawn)
        self._state = self._told()
        self._graph_state: tuple[int, dict[str, Any]] | None = None

    # -------------------------------------------------------------------------------------------- what is said

    def state(self) -> dict[str, Any]:
        """Return what a page shows; it changes with everything that is said."""
        return self._state

    def answer(self, number: int, verdict: Any, box: tuple[float, ...] | None, template: int | None) -> None:
        """Take an answer to question `number`; `box` is row, column, height and width of the part, px.

        Raises
        ------
        StaleAnswer
            If another question is being asked.
        InputError
            If it does not fit.
        """
        with self._lock:
            question = self._dialogue.question
            image = -1 if question is None else question.image
            placed = verdict not in ("right", "absent")
            position = (box[0], box[1]) if box is not None and placed else None
            size = (box[2], box[3]) if box is not None and placed else None
            self._dialogue.answer(Answer(image, verdict, position, size, template), number)
            self._state = self._told()

    def skip(self, number: int) -> None:
        """Say nothing of the image that is asked about."""
        with self._lock:
            self._dialogue.skip(number)
            self._state = self._told()

    def undo(self, number: int) -> None:
        """Take back what was said last."""
        with self._lock:
            self._dialogue.undo(number)
            self._state = self._told()

    # ------------------------------------------------------------------------------------------- what is shown

    def _told(self) -> dict[str, Any]:
        talk = self._dialogue
        question, graph = talk.question, talk.graph
        asked: dict[str, Any] | None = None
        if question is not None:
            asked = {
                "image": question.image,
                "name": self._images.ids[question.image],
                "chance": question.chance,
            }
            if question.parse is not None:
                top, left, bottom, right = map(float, question.parse.boxes[0])
                asked["box"] = [(top + bottom) / 2, (left + right) / 2, bottom - top, right - left]
                asked["template"] = int(question.parse.templates[0])
        return {
            "part": talk.part,
            "number": len(talk.log),
            "frame": list(self._frame),
            "facing": talk.settings.facing,
            "question": asked,
            "templates": 0 if graph is None else len(graph.templates),
            "images": len(talk.candidates),
            "expected": [
                *(entry.expected for entry in talk.entries if entry.expected is not None),
                *([] if talk.expected_error is None else [talk.expected_error]),
            ],
            "said": [
                {
                    "image": entry.image,
                    "name": self._images.ids[entry.image],
                    "verdict": "skipped" if entry.answer is None else entry.answer.verdict,
                    "place": None
                    if entry.annotation is None or entry.annotation.position is None
                    else list(entry.annotation.position),
                }
                for entry in talk.entries
            ],
        }

    def graph(self) -> dict[str, Any]:
        """Return the graph as patches: where each template was shown, what its patterns look like, what is unsure."""
        with self._lock:
            number = len(self._dialogue.log)
            if self._graph_state is None or self._graph_state[0] != number:
                self._graph_state = number, self._grown()
            return self._graph_state[1]

    def _grown(self) -> dict[str, Any]:
        talk = self._dialogue
        graph = talk.graph
        found: dict[str, Any] = {"number": len(talk.log), "templates": [], "unsure": []}
        if graph is None:
            return found
        shown = [note for note in talk.annotations if note.position is not None]
        rows = np.unique([*(note.image for note in shown), *talk.pool.tolist()])
        parses = infer(graph, talk.cells, rows)
        half = float(max(self._frame)) / 7
        for number, template in enumerate(graph.templates):
            own = [note for note in shown if note.template == number]
            patterns = []
            for pattern in np.argsort(-template.strengths, kind="stable")[:_PATTERNS]:
                values = np.where(
                    np.isnan(parses.patterns[:, pattern, 0]) | (parses.templates != number),
                    -np.inf,
                    parses.values[:, pattern],
                )
                best = [int(place) for place in np.argsort(-values, kind="stable")[:_PATCHES]]
                patterns.append(
                    {
                        "strength": float(template.strengths[pattern]),
                        "offset": [int(step) for step in template.offsets[pattern]],
                        "patches": [
                            self._patch(int(rows[place]), parses.patterns[place, pattern], half)
                            for place in best
                            if np.isfinite(values[place])
                        ],
                    }
                )
            found["templates"].append(
                {
                    "annotated": len(own),
                    "parsed": template.parsed,
                    "shown": [self._patch(note.image, note.position, half) for note in own[-_SHOWN:]],
                    "patterns": patterns,
                }
            )
        doubt = np.where(talk.standing.closed, -np.inf, talk.standing.spread * talk.standing.chances)
        places = [
            int(place) for place in np.argsort(-doubt, kind="stable")[:_UNSURE] if np.isfinite(doubt[place])
        ]
        images = talk.candidates[places]
        least = infer(graph, talk.cells, images) if places else None
        for at, image in enumerate(images):
            assert least is not None
            found["unsure"].append(
                {
                    "image": int(image), "name": self._images.ids[int(image)],
                    "spread": float(least.spread[at]), "box": [float(edge) for edge in least.boxes[at]],
                }
            )  # fmt: skip
        return found

    def _patch(self, image: int, place: Any, half: float) -> list[float]:
        row, column = map(float, place)
        return [image, round(row, 1), round(column, 1), round(half, 1)]

    def _drawn(self, image: int) -> Picture:
        height, width = self._frame
        scale = WIDE / max(height, width)
        return resized(self._images.image(image), round(height * scale), round(width * scale))

    def picture(self, image: int) -> bytes:
        """Return an image as the network sees it, JPEG.

        Raises
        ------
        InputError
            If there is none.
        """
        return jpeg(self._picture(self._known(image)))

    def patch(self, image: int, row: float, column: float, half: float) -> bytes:
        """Return what of an image is about a place, JPEG; positions are px of the network's input."""
        height, width = self._frame
        if not (0 <= row < height and 0 <= column < width and 1 <= half <= max(height, width)):
            raise InputError(f"patch at {row}, {column}, half {half}: expected a place in {height} x {width}")
        drawn = self._picture(self._known(image))
        scale = drawn.shape[0] / height
        top, left = (
            int(np.clip((place - half) * scale, 0, max(side - 2 * half * scale, 0)))
            for place, side in ((row, drawn.shape[0]), (column, drawn.shape[1]))
        )
        cut = drawn[top : top + max(int(2 * half * scale), 1), left : left + max(int(2 * half * scale), 1)]
        return jpeg(resized(np.ascontiguousarray(cut), PATCH, PATCH))

    def _known(self, image: int) -> int:
        if not 0 <= image < len(self._images):
            raise InputError(f"image {image}: expected 0 to {len(self._images) - 1}")
        return image

    # ------------------------------------------------------------------------------------------- what is taken along

    def tried(self, content: bytes) -> dict[str, Any]:
        """Return where the part is in a picture of somebody's own, which is kept nowhere.

        Raises
        ------
        InputError
            If it is no picture, has too many pixels, or nothing was learned yet.
        """
        if self._encode is None or self._dialogue.graph is None:
            raise InputError("picture: nothing was learned yet; expected some answers first")
        pixels = decoded(content)
        with self._lock:
            graph = self._dialogue.graph
            assert graph is not None
            parse = infer(graph, self._encode(pixels))
        drawn = resized(pixels, *(round(side * WIDE / max(self._frame)) for side in self._frame))
        return {
            "box": [float(edge) for edge in parse.boxes[0]],
            "present": bool(parse.present[0]),
            "spread": float(parse.spread[0]),
            "picture": "data:image/jpeg;base64," + base64.b64encode(jpeg(drawn)).decode(),
        }

    def export(self) -> bytes:
        """Return the journal and the graph as a ZIP file."""
        with self._lock:
            graph: PartGraph | None = self._dialogue.graph
            journal = None if self._journal is None else self._journal.read_bytes()
        held = io.BytesIO()
        with (
            zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive,
            tempfile.TemporaryDirectory() as folder,
        ):
            if journal is not None:
                archive.writestr("journal.jsonl", journal)
            if graph is not None:
                graph.save(folder)
                for name in FILES:
                    archive.write(Path(folder) / name, f"part/{name}")
        return held.getvalue()


def decoded(content: bytes) -> Picture:
    """Return the pixels of a picture that came from anywhere, ``(h, w, 3)``.

    Raises
    ------
    InputError
        If it is none of the usual formats, is damaged, or has too many pixels.
    """
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            if picture.width * picture.height > TRY_PIXELS:
                raise InputError(
                    f"picture of {picture.width} x {picture.height}: expected {TRY_PIXELS:,} pixels at most"
                )
            return np.asarray(picture.convert("RGB"), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError, MemoryError) as error:
        raise InputError("picture: cannot be read; expected JPEG, PNG, WebP, GIF or BMP") from error
