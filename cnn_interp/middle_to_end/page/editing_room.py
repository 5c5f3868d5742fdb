"""An editing session that several may talk to at once, in words and pictures that a page can show."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Callable
from typing import Any

from cnn_interp.disentangling.explanatory_graph import Patch, crop
from cnn_interp.images.sets import resized
from cnn_interp.middle_to_end.answers import UNDO, parse_answer
from cnn_interp.middle_to_end.dialogue import StaleAnswer
from cnn_interp.middle_to_end.edit_kept import KeptEdit
from cnn_interp.middle_to_end.editing import Candidate, EditingSession, Effect
from cnn_interp.middle_to_end.page.pictures import PATCH, jpeg
from interpretkit.errors import InputError

# Patches of a pattern, and patterns that nothing was said of, that are shown; so many more by a request.
PATCHES, _PATTERNS = 8, 12
# Images whose answer changes, and how wide they are sent, px.
_CHANGED, _WIDE = 12, 160


class EditingRoom:
    """One session behind a lock.

    Nothing of it is computed before somebody asks for it. What is said is on the disk before it is said to have been
    taken.

    Parameters
    ----------
    begin : callable
        Gives the session, when it is asked for first, with what was said in it before.
    kept : KeptEdit, optional
        Where what is said is kept.
    labelled : bool
        Whether the images' labels are known; else they are the network's own answers, and accuracy is the share of
        answers that stay.
    """

    def __init__(
        self, begin: Callable[[], EditingSession], *, kept: KeptEdit | None = None, labelled: bool = True
    ) -> None:
        self._begin = begin
        self._kept = kept
        self._labelled = labelled
        self._lock = threading.Lock()
        self._begun: EditingSession | None = None
        self._number = 0
        self._state: dict[str, Any] = {}
        self._patches: dict[tuple[tuple[int, ...], int], bytes] = {}
        self._more = 0

    # -------------------------------------------------------------------------------------------- what is said

    def _session(self) -> EditingSession:
        if self._begun is None:
            session = self._begin()
            self._state = self._told(session, session.effect())
            self._begun = session
        return self._begun

    def state(self) -> dict[str, Any]:
        """Return what a page shows; it changes with everything that is said."""
        with self._lock:
            self._session()
            return self._state

    def say(self, number: int, line: str) -> None:
        """Take a line as it is typed in a terminal, `undo` among them.

        Raises
        ------
        StaleAnswer
            If something else was said since `number`.
        InputError
            If the line makes no sense; nothing of it is taken then.
        """
        if len(line.splitlines()) != 1:
            raise InputError("line: expected one")
        with self._lock:
            session = self._numbered(number)
            edit = session.edit.undone() if parse_answer(line) is None else session.edit.said(line)
            if self._kept is not None:
                self._kept.keep(edit)
            session.edit = edit
            self._spoken(session)

    def undo(self, number: int) -> None:
        """Take back what was said last."""
        self.say(number, UNDO)

    def refit(self, number: int) -> None:
        """Train the network's last layer anew without what was dropped; see :meth:`EditingSession.refit`."""
        with self._lock:
            session = self._numbered(number)
            if not self._labelled:
                raise InputError("refit: nobody said what the images are; expected images with labels")
            session.refit()
            if self._kept is not None:
                self._kept.keep(session.edit)
            self._spoken(session)

    def more(self) -> None:
        """Show more of the patterns that nothing was said of."""
        with self._lock:
            session = self._session()
            self._more += _PATTERNS
            self._state = self._told(session, session.effect())

    def _numbered(self, number: int) -> EditingSession:
        session = self._session()
        if number != self._number:
            raise StaleAnswer(f"number {number}: the session is at {self._number}")
        return session

    def _spoken(self, session: EditingSession) -> None:
        self._number += 1
        self._state = self._told(session, session.effect())

    # ------------------------------------------------------------------------------------------- what is shown

    def _told(self, session: EditingSession, effect: Effect) -> dict[str, Any]:
        now = session.edit.standing
        left = session.candidates()
        judged = [number for number in now.members if number in now.judged]
        open_ones = [one.number for one in left if one.number not in now.judged]
        shown = [*open_ones[: _PATTERNS + self._more], *judged]
        by_number = {one.number: one for one in left}
        names = (*effect.names, "another category")
        changed = sorted(
            effect.changed.tolist(), key=lambda row: (effect.after[row] != effect.labels[row], row)
        )
        return {
            "number": self._number,
            "network": session.network.name,
            "layer": session.patterns.layer,
            "kind": session.patterns.kind,
            "labelled": self._labelled,
            "images": len(effect.labels),
            "accuracy": list(effect.accuracy),
            "changed": len(changed),
            "pictures": [
                {
                    "image": row,
                    "name": session.images.ids[row],
                    "before": names[effect.before[row]],
                    "after": names[effect.after[row]],
                    "right": bool(effect.after[row] == effect.labels[row]),
                }
                for row in changed[:_CHANGED]
            ],
            "categories": effect.rows(),
            "said": [answer.line() for answer in session.edit.answers],
            "refit": session.edit.refit is not None,
            "learned": session.measured_on_learned,
            "asked": open_ones[0] if open_ones else None,
            "left": max(len(open_ones) - _PATTERNS - self._more, 0),
            "count": len(session.patterns),
            "patterns": [self._pattern(session, number, by_number.get(number)) for number in shown],
        }

    def _pattern(self, session: EditingSession, number: int, one: Candidate | None) -> dict[str, Any]:
        now = session.edit.standing
        found: dict[str, Any] = {
            "pattern": number,
            "called": now.called(number),
            "judged": now.judged.get(number, ""),
            "members": list(now.members[number]),
            "patches": len(session.patches(number, PATCHES)),
        }
        if one is not None:
            found |= {
                "category": session.names[one.category],
                "influence": one.influence,
                "blame": one.blame,
                "apart": 1 - one.overlap,
            }
        return found

    def pattern(self, word: str) -> dict[str, Any]:
        """Return what is shown of a pattern that is called by number or name.

        Raises
        ------
        InputError
            If there is none, or not any more.
        """
        with self._lock:
            session = self._session()
            number = session.numbered(word)
            by_number = {one.number: one for one in session.candidates()}
            return self._pattern(session, number, by_number.get(number))

    def patch(self, number: int, rank: int) -> bytes:
        """Return one of the patches in which a pattern is strongest, JPEG; the strongest has rank 0.

        Raises
        ------
        InputError
            If there is no such pattern, or not any more, or it has fewer patches.
        """
        with self._lock:
            session = self._session()
            members = session.edit.standing.members.get(number)
            if members is None:
                raise InputError(
                    f"pattern {number}: there is none, or not any more; expected one that is shown"
                )
            if (members, rank) not in self._patches:
                found: list[Patch] = session.patches(number, PATCHES) if 0 <= rank < PATCHES else []
                if not 0 <= rank < len(found):
                    raise InputError(f"patch {rank} of pattern {number}: expected 0 to {len(found) - 1}")
                frame = session.maps.grid.image
                self._patches[members, rank] = jpeg(crop(session.images, found[rank], frame, PATCH))
            return self._patches[members, rank]

    def picture(self, image: int) -> bytes:
        """Return an image as the network sees it, small, JPEG.

        Raises
        ------
        InputError
            If there is none.
        """
        with self._lock:
            session = self._session()
            if not 0 <= image < len(session.images):
                raise InputError(f"image {image}: expected 0 to {len(session.images) - 1}")
            height, width = session.maps.grid.image
            scale = _WIDE / max(height, width)
            return jpeg(resized(session.images.image(image), round(height * scale), round(width * scale)))

    # ------------------------------------------------------------------------------------------- what is taken along

    def export(self) -> bytes:
        """Return the edit's files as a ZIP file."""
        with self._lock:
            files = self._session().edit.files()
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return held.getvalue()
