"""What a person says of patterns, kept on the disk line by line, so that a session goes on where it was interrupted."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from cnn_interp.middle_to_end.answers import replayed
from cnn_interp.middle_to_end.editing import EditingSession
from cnn_interp.middle_to_end.network_edit import NetworkEdit
from interpretkit.errors import InputError
from interpretkit.runs.files import atomic_path

REFIT = "refit"


class KeptEdit:
    """The lines of an edit in a text file, as a person types them; the last is ``refit`` where a layer was trained.

    Parameters
    ----------
    path : path
        The file; made by the first :meth:`keep`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(self, edit: NetworkEdit) -> None:
        """Write what was said; it is on the disk when this returns, whole or as it was before."""
        lines = [answer.line() for answer in edit.answers]
        if edit.refit is not None:
            lines.append(REFIT)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.path) as hidden, hidden.open("w", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())

    def resume(self, session: EditingSession) -> int:
        """Say to a session what was kept, and return how many lines that is; 0 if nothing was kept.

        What the session's edit had before is replaced by it: it is the beginning of what was kept.

        Raises
        ------
        InputError
            If the file cannot be read, or a line makes no sense.
        """
        if not self.path.is_file():
            return 0
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{self.path}: cannot be read ({error}); expected the lines of a session"
            ) from error
        again = bool(lines) and lines[-1] == REFIT
        try:
            answers = replayed(lines[:-1] if again else lines, len(session.patterns))
        except InputError as error:
            raise InputError(f"{self.path}, {error}") from error
        session.edit = replace(session.edit, answers=answers, refit=None)
        if again:
            session.refit()
        return len(lines)
