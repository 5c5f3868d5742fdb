"""What a person says of patterns: keep, drop, merge, rename; a line each, and what follows from all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from interpretkit.errors import InputError

What = Literal["keep", "drop", "merge", "rename"]
WHATS: tuple[What, ...] = get_args(What)
UNDO = "undo"
_FORMS = "`keep 3`, `drop 12`, `merge 3 7 as ear`, `rename 5 wheel` or `undo`"
# A name is shown in tables and figures, and typed.
_LONGEST = 60


@dataclass(frozen=True)
class Answer:
    """One thing said of patterns.

    Attributes
    ----------
    what : str
        One of ``WHATS``.
    patterns : tuple of str
        Of which: their numbers, or the names that they were given before.
    name : str
        What is renamed or merged is called from now on.
    """

    what: What
    patterns: tuple[str, ...]
    name: str = ""

    def line(self) -> str:
        """Return it as it is typed."""
        several = " ".join(self.patterns)
        if self.what == "merge":
            return f"merge {several} as {self.name}"
        return f"rename {several} {self.name}" if self.what == "rename" else f"{self.what} {several}"


def parse_answer(text: str) -> Answer | None:
    """Return what a line says; None for `undo`.

    Raises
    ------
    InputError
        If it is none of the forms.
    """
    words = text.split()
    what = words[0] if words else ""
    if what == UNDO and len(words) == 1:
        return None
    if what in ("keep", "drop") and len(words) > 1:
        return Answer(what, tuple(words[1:]))
    if what == "rename" and len(words) > 2:
        return Answer("rename", (words[1],), _name(" ".join(words[2:])))
    if what == "merge" and "as" in words:
        place = words.index("as")
        if place > 2 and len(words) > place + 1:
            return Answer("merge", tuple(words[1:place]), _name(" ".join(words[place + 1 :])))
    raise InputError(f"answer {text.strip()!r}: expected {_FORMS}")


def _name(text: str) -> str:
    if text.isdecimal() or len(text) > _LONGEST or not text.isprintable():
        raise InputError(
            f"answer: the name {text!r}; expected up to {_LONGEST} letters that are not a number alone"
        )
    return text


def replayed(lines: Iterable[str], count: int, before: Sequence[Answer] = ()) -> tuple[Answer, ...]:
    """Return the answers of some lines, after others; each is seen to make sense where it stands.

    Blank lines, and what follows a ``#`` at the beginning of a line or after a blank, are left out.

    Parameters
    ----------
    lines : iterable of str
        As a person types them, or as a file holds them.
    count : int
        How many patterns there are.
    before : sequence of Answer
        What was said already.

    Raises
    ------
    InputError
        In one line with the number of the line that makes no sense, counted from 1.
    """
    answers = list(before)
    for number, line in enumerate(lines, start=1):
        text = _bare(line)
        if not text:
            continue
        try:
            answer = parse_answer(text)
            if answer is not None:
                standing([*answers, answer], count)
                answers.append(answer)
            elif answers:
                answers.pop()
            else:
                raise InputError("answer 'undo': nothing was said before it")
        except InputError as error:
            raise InputError(f"line {number}: {error}") from error
    return tuple(answers)


def check_answers(path: Path) -> None:
    """Refuse a file of answers as far as can be told before it is known how many patterns there are.

    Raises
    ------
    InputError
        If it cannot be read as text, says nothing, or a line has none of the forms.
    """
    said = 0
    for number, line in enumerate(_lines(path), start=1):
        text = _bare(line)
        try:
            said += bool(text) and parse_answer(text) is not None
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from error
    if not said:
        raise InputError(f"{path}: says nothing; expected lines such as {_FORMS}")


def _bare(line: str) -> str:
    return f" {line}".partition(" #")[0].strip()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected a text file of answers") from error


def read_answers(path: Path, count: int, before: Sequence[Answer] = ()) -> tuple[Answer, ...]:
    """Return the answers of a file, after others; see :func:`replayed`.

    Raises
    ------
    InputError
        If the file cannot be read as text, or a line makes no sense.
    """
    lines = _lines(path)
    try:
        return replayed(lines, count, before)
    except InputError as error:
        raise InputError(f"{path}, {error}") from error


@dataclass(frozen=True)
class Standing:
    """What follows from all that was said.

    Attributes
    ----------
    members : dict of int to tuple of int
        Of each pattern that there is now, those that it was made of; a merged one bears its lowest number.
    names : dict of int to str
        What patterns were called.
    judged : dict of int to str
        ``keep`` or ``drop``, of those that were judged.
    """

    members: dict[int, tuple[int, ...]]
    names: dict[int, str]
    judged: dict[int, str]

    @property
    def dropped(self) -> tuple[int, ...]:
        """The numbers of all patterns to be taken out, merged ones by their members."""
        return tuple(
            sorted(
                member
                for number, verdict in self.judged.items()
                if verdict == "drop"
                for member in self.members[number]
            )
        )

    def called(self, number: int) -> str:
        """Return what a pattern is called: its name, or its number."""
        return self.names.get(number, str(number))


def standing(answers: Iterable[Answer], count: int) -> Standing:
    """Return what follows from answers on `count` patterns; of several judgements of one the last counts.

    Raises
    ------
    InputError
        If an answer is of a pattern that there is not, or not any more, or a name is given twice.
    """
    found = Standing({number: (number,) for number in range(count)}, {}, {})
    for answer in answers:
        numbers = [number_of(word, found, count, f"answer {answer.line()!r}: ") for word in answer.patterns]
        if len(set(numbers)) < len(numbers):
            raise InputError(f"answer {answer.line()!r}: names a pattern twice; expected different ones")
        if answer.what in ("keep", "drop"):
            found.judged.update(dict.fromkeys(numbers, answer.what))
            continue
        taken = {name: number for number, name in found.names.items() if number not in numbers}
        if answer.name in taken:
            raise InputError(
                f"answer {answer.line()!r}: pattern {taken[answer.name]} is called so already; expected another name"
            )
        first = min(numbers)
        if answer.what == "merge":
            verdicts = {found.judged[number] for number in numbers if number in found.judged}
            if len(verdicts) > 1:
                raise InputError(
                    f"answer {answer.line()!r}: some are kept and some dropped; expected patterns judged alike"
                )
            members = tuple(sorted(member for number in numbers for member in found.members[number]))
            for number in numbers:
                for each in (found.members, found.names, found.judged):
                    each.pop(number, None)
            found.members[first] = members
            if verdicts:
                found.judged[first] = next(iter(verdicts))
        found.names[first] = answer.name
    return found


def number_of(word: str, found: Standing, count: int, complaint: str = "") -> int:
    """Return the number of a pattern that is called by its number or its name.

    Raises
    ------
    InputError
        If there is none, or not any more; its line begins with `complaint`.
    """
    by_name = {name: number for number, name in found.names.items()}
    if word in by_name:
        return by_name[word]
    if not (word.isdecimal() and word.isascii()) or int(word) >= count:
        named = f", or {', '.join(by_name)}" if by_name else ""
        raise InputError(f"{complaint}there is no pattern {word!r}; expected 0 to {count - 1}{named}")
    number = int(word)
    if number not in found.members:
        into = next(key for key, members in found.members.items() if number in members)
        raise InputError(
            f"{complaint}pattern {number} was merged into {found.called(into)}; expected that one"
        )
    return number
