"""A dialogue about patterns in lines of text, with no face of its own: a terminal shows it, and so may a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cnn_interp.middle_to_end.answers import UNDO
from cnn_interp.middle_to_end.editing import Candidate, EditingSession, Effect
from interpretkit.errors import InputError

HELP = (
    "keep or drop this one; or keep 3, drop 12, merge 3 7 as ear, rename 5 wheel, undo; show 5 for a pattern's "
    "patches, "
    "refit to train the last layer anew, done to end"
)


def converse(
    session: EditingSession,
    ask: Callable[[str], str | None],
    tell: Callable[[str], None],
    patches: Callable[[int], Path | None],
    *,
    questions: int | None = None,
    said: Callable[[], None] = lambda: None,
) -> None:
    """Ask about patterns, the most suspicious first, until the person is done or all are judged.

    Parameters
    ----------
    session : EditingSession
        Its edit grows by what is said.
    ask : callable
        From a prompt to what the person types; None when there is no more.
    tell : callable
        Is given each line for the person.
    patches : callable
        Draws a pattern's patches and says where.
    questions : int, optional
        So many patterns are asked about at most.
    said : callable
        Is called whenever the edit has changed, to keep it.
    """
    tell(HELP)
    asked = 0
    while questions is None or asked < questions:
        judged = session.edit.standing.judged
        waiting = [one for one in session.candidates() if one.number not in judged]
        if not waiting:
            tell("all patterns are judged")
            return
        now = waiting[0]
        tell(described(session, now))
        where = patches(now.number)
        if where is not None:
            tell(f"  its patches: {where}")
        while True:
            line = ask("> ")
            words = (line or "").split()
            if line is None or words == ["done"]:
                return
            if not words:
                continue
            try:
                if words[0] == "show" and len(words) == 2:
                    number = session.numbered(words[1])
                    tell(
                        f"  {session.edit.standing.called(number)}: {patches(number) or 'is seen in no image'}"
                    )
                    continue
                if words == ["refit"]:
                    effect = session.refit()
                elif words == [UNDO]:
                    effect = session.undo()
                else:
                    one_word = words[0] if len(words) == 1 and words[0] in ("keep", "drop") else ""
                    effect = session.say(f"{one_word} {now.number}" if one_word else " ".join(words))
            except InputError as error:
                tell(f"  {error}")
                continue
            said()
            tell(f"  {summed_up(effect)}")
            break
        asked += 1


def described(session: EditingSession, one: Candidate) -> str:
    """Return a line on a pattern: what it is called, what it adds to, and why it is asked about."""
    called = session.edit.standing.called(one.number)
    return (
        f"pattern {called}: adds {one.influence:+.2f} to “{session.names[one.category]}” "
        f"where it is strongest, {one.blame:+.3f} to wrong answers, {1 - one.overlap:.0%} apart from all else"
    )


def summed_up(effect: Effect) -> str:
    """Return a line on what an edit does."""
    before, after = effect.accuracy
    return (
        f"accuracy {before:.1%} → {after:.1%}, {len(effect.changed)} of {len(effect.labels)} answers changed"
    )
