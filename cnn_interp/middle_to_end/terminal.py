"""A dialogue in the terminal: a question, a letter for the answer, and numbers where a box is to be drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cnn_interp.disentangling.part_graph import Answer, Verdict
from cnn_interp.middle_to_end.dialogue import Dialogue, Question
from interpretkit.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The letter of each answer, and which need a place.
LETTERS: dict[str, Verdict] = {
    "r": "right",
    "b": "wrong box",
    "t": "wrong template",
    "n": "new template",
    "a": "absent",
    "f": "flipped",
}
_MEANINGS = {
    "r": "right",
    "b": "right template, wrong box",
    "t": "wrong template",
    "n": "new template",
    "a": "absent",
    "f": "flipped",
    "s": "skip",
    "u": "undo",
    "q": "stop",
}


class Stopped(Exception):
    """Nothing more is said."""


def converse(
    dialogue: Dialogue,
    draw: Callable[[Question], Figure],
    names: Callable[[int], str],
    picture: Path,
    read: Callable[[], str],
    say: Callable[[str], None],
    *,
    answers: int | None = None,
) -> None:
    """Ask questions until somebody says to stop, nothing is left, or the input ends.

    Parameters
    ----------
    dialogue : Dialogue
        What is asked, and where answers go.
    draw : callable
        From a question to its picture.
    names : callable
        From an image's number to what it is called.
    picture : path
        Where the picture of each question is written.
    read : callable
        Returns a line that was typed, with its end; empty at the end of input.
    say : callable
        Prints a line.
    answers : int, optional
        How many images are answered for in all, at most.
    """
    say(f"Where is the {dialogue.part}? Numbers are px, as on the picture's axes: row column [height width].")
    try:
        while dialogue.question is not None and (answers is None or len(dialogue.entries) < answers):
            _ask(dialogue, dialogue.question, draw, names, picture, read, say)
    except Stopped:
        pass
    say(f"{len(dialogue.entries)} answers.")


def _ask(
    dialogue: Dialogue,
    question: Question,
    draw: Callable[[Question], Figure],
    names: Callable[[int], str],
    picture: Path,
    read: Callable[[], str],
    say: Callable[[str], None],
) -> None:
    from interpretkit.runs.files import atomic_path

    with atomic_path(picture) as hidden:
        draw(question).savefig(hidden, dpi=110, format="png")
    error = dialogue.expected_error
    expected = "" if error is None else f"; expected error {error:.3f} of the diagonal"
    say(f"\nQuestion {len(dialogue.entries) + 1}: {names(question.image)}{expected}\n  picture: {picture}")
    if question.parse is None:
        offered = "nasuq"
        say(f"  Nothing is known of the {dialogue.part} yet.")
    else:
        row, column = question.parse.centres[0]
        count = 0 if dialogue.graph is None else len(dialogue.graph.templates)
        offered = (
            "rb" + ("t" if count > 1 else "") + "na" + "f" * (dialogue.settings.facing == "either") + "suq"
        )
        kind = f", template {question.parse.templates[0]} of {count}" if count > 1 else ""
        say(f"  Box about row {row:.0f}, column {column:.0f}{kind}.")
    prompt = "  " + ", ".join(f"{letter} {_MEANINGS[letter]}" for letter in offered)
    while True:
        letter = _line(prompt, read, say).lower()
        if letter == "q":
            raise Stopped
        try:
            if letter == "u":
                dialogue.undo(question.number)
            elif letter == "s":
                dialogue.skip(question.number)
            elif letter in LETTERS and letter in offered:
                dialogue.answer(_answer(LETTERS[letter], question, dialogue, read, say), question.number)
            else:
                say(f"  {letter!r}: expected one of {', '.join(offered)}")
                continue
        except InputError as error:
            say(f"  {error}")
            continue
        return


def _answer(
    verdict: Verdict,
    question: Question,
    dialogue: Dialogue,
    read: Callable[[], str],
    say: Callable[[str], None],
) -> Answer:
    if verdict in ("right", "absent"):
        return Answer(question.image, verdict)
    template = None
    if verdict == "wrong template":
        template = int(_numbers("  which template", (1,), read, say)[0])
    place = _numbers(f"  where is the {dialogue.part}: row column [height width]", (2, 4), read, say)
    size = (place[2], place[3]) if len(place) == 4 else None
    return Answer(question.image, verdict, (place[0], place[1]), size, template)


def _numbers(
    prompt: str, counts: tuple[int, ...], read: Callable[[], str], say: Callable[[str], None]
) -> list[float]:
    while True:
        text = _line(prompt, read, say)
        try:
            found = [float(word) for word in text.replace(",", " ").split()]
        except ValueError:
            found = []
        if len(found) in counts:
            return found
        say(f"  {text!r}: expected {' or '.join(map(str, counts))} numbers")


def _line(prompt: str, read: Callable[[], str], say: Callable[[str], None]) -> str:
    say(prompt)
    line = read()
    if not line:
        raise Stopped
    return line.strip()
