import io
import sys

import pytest

from interpretkit.runs import progress as module
from interpretkit.runs.progress import at_work, progress, stepping_aside, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_items_pass_unchanged_and_nothing_is_printed_without_a_terminal(capsys: pytest.CaptureFixture[str]):
    assert list(track(iter("abc"), "Letters", total=3)) == ["a", "b", "c"]
    assert list(track(range(3), "Numbers", quiet=True)) == [0, 1, 2]
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_rare_plain_line_tells_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    clock = iter(range(0, 10_000, 50))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    with progress("Relaxing", total=4) as bar:
        for _ in range(4):
            bar.advance(note="E -1.0")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "Relaxing: 2 of 4, about 2 min left (E -1.0)",
        "Relaxing: 4 of 4, about 0 s left (E -1.0)",
    ]


def test_a_bar_is_drawn_on_a_terminal_with_one_inside_another(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress("Outer", total=2) as outer:
        for _ in track(range(2), "Inner"):
            outer.advance(note="half")
        outer.update(done=2, description="Done")
    assert "Outer" in terminal.getvalue()
    assert module._display is None
    assert capsys.readouterr().out == ""


def test_an_interrupted_bar_leaves_the_terminal_usable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(KeyboardInterrupt), progress("Outer"):
        raise KeyboardInterrupt
    assert module._display is None
    assert list(track([1], "Again")) == [1]


def test_a_stage_is_told_when_it_begins_unless_something_was_just_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with progress("Designing", total=3) as bar:
        for seconds, stage in ((1, "moving"), (6, "sampling"), (8, "decoding"), (15, "choosing")):
            clock[0] = float(seconds)
            bar.stage(stage)
    assert capsys.readouterr().err.splitlines() == [
        "Designing: 0 of 3 (sampling)",
        "Designing: 0 of 3 (choosing)",
    ]


def test_a_command_at_work_is_seen_on_a_terminal_and_nowhere_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    with at_work("catalyst design"):
        pass
    assert capsys.readouterr().err == ""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with at_work("catalyst design"):
        with progress("Inner", total=2) as bar:
            bar.advance()
        assert module._display is not None
    said = terminal.getvalue()
    assert "catalyst design" in said
    assert "Inner" in said
    # Nothing is known of its end, so that nothing is said of what is left.
    assert "/?" not in said
    assert module._display is None


def test_a_person_types_on_a_terminal_of_their_own(monkeypatch: pytest.MonkeyPatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with at_work("teach"):
        with stepping_aside():
            before = terminal.getvalue()
            assert module._display is not None
            assert not module._display.live.is_started
            terminal.write("head? ")
            # What is written now reaches the terminal as it stands, with nothing drawn over it.
            assert terminal.getvalue() == before + "head? "
        assert module._display.live.is_started
    with stepping_aside():
        pass
