"""Lines that a person says of patterns."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnn_interp.middle_to_end.answers import read_answers, replayed, standing
from interpretkit.errors import InputError


def test_what_follows_from_a_script(tmp_path: Path) -> None:
    script = tmp_path / "answers.txt"
    script.write_text(
        "# first\ndrop 3\n\nmerge 7 1 as ear  # both\nrename 5 left wheel\ndrop ear\nkeep 5\nundo\n"
    )
    answers = read_answers(script, 9)
    assert [one.line() for one in answers] == [
        "drop 3",
        "merge 7 1 as ear",
        "rename 5 left wheel",
        "drop ear",
    ]
    now = standing(answers, 9)
    assert now.dropped == (1, 3, 7)
    assert now.members[1] == (1, 7)
    assert 7 not in now.members
    assert now.names == {1: "ear", 5: "left wheel"}
    # What is written is what was read, and can be gone on from.
    assert replayed([one.line() for one in answers], 9) == answers
    assert standing(replayed(["keep 3", "undo", "undo"], 9, answers), 9).dropped == (3,)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("keep 1\ndrop 9", "line 2: answer 'drop 9': there is no pattern '9'; expected 0 to 8"),
        ("remove 3", "line 1: answer 'remove 3': expected `keep 3`"),
        ("merge 3 as ear", "line 1: answer"),
        ("rename 5", "line 1: answer"),
        ("rename 5 12", "the name '12'"),
        ("merge 3 4 as ear\ndrop 4", "line 2: answer 'drop 4': pattern 4 was merged into ear"),
        ("rename 1 ear\nrename 2 ear", "line 2: answer 'rename 2 ear': pattern 1 is called so already"),
        ("drop 1\nkeep 2\n\nmerge 1 2 as ear", "line 4: answer .* some are kept and some dropped"),
        ("keep 2 2", "names a pattern twice"),
        ("keep 1\nundo\nundo", "line 3: answer 'undo'"),
        ("drop -1", "no pattern '-1'"),
        ("drop ²", "no pattern"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_line(lines: str, complaint: str, tmp_path: Path) -> None:
    script = tmp_path / "answers.txt"
    script.write_text(lines, encoding="utf-8")
    with pytest.raises(InputError, match=complaint) as raised:
        read_answers(script, 9)
    assert str(script) in str(raised.value)
    assert "\n" not in str(raised.value)
