"""The view on which patterns are judged: what is said there is what is said anywhere, and nothing else gets in."""

import io
import json
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("uvicorn", reason="the extra `web` is not installed")
sys.path.insert(0, str(Path(__file__).parent))
import classroom
from edited_networks import BLUE, GREEN, LAYER, RED, colour_network, squares
from test_page import Server

from cnn_interp.images.sets import Images
from cnn_interp.middle_to_end.edit_kept import KeptEdit
from cnn_interp.middle_to_end.editing import EditingSession
from cnn_interp.middle_to_end.network_edit import Base, load_edit
from cnn_interp.middle_to_end.page.editing_room import EditingRoom
from interpretkit.errors import InputError


@pytest.fixture
def kept(tmp_path):
    return KeptEdit(tmp_path / "said.txt")


@pytest.fixture
def served(kept):
    server = Server(editing=EditingRoom(classroom.editing_session, kept=kept))
    yield server
    server.stop()
    assert not server.thread.is_alive()


def state_of(server):
    status, content = server.get("edit/state")
    assert status == 200
    return json.loads(content)


def test_patterns_are_judged_on_the_page(served, kept, tmp_path):
    for file, kind in (("", b"<!doctype html>"), ("edit", b"<!doctype html>"), ("edit.js", b'"use strict"')):
        status, content = served.get(file)
        assert status == 200
        assert content.startswith(kind)
    assert served.get("teach")[0] == served.get("state")[0] == 404
    state = state_of(served)
    # The same is asked and said as in a session without a page.
    alone = classroom.editing_session()
    lines = [f"drop {RED}", f"rename {GREEN} leaf", "keep leaf", f"merge leaf {BLUE} as colour"]
    assert state["asked"] == alone.question()
    for number, line in enumerate(lines):
        status, state = served.post("edit/say", number=number, line=line)
        effect = alone.say(line)
        assert (status, state["number"]) == (200, number + 1)
        assert state["said"] == [answer.line() for answer in alone.edit.answers]
        assert state["accuracy"] == list(effect.accuracy)
        assert state["changed"] == len(effect.changed)
        assert state["asked"] == alone.question()
        # On the disk before it was answered for: whoever is killed now goes on from here.
        again = classroom.editing_session()
        assert kept.resume(again) == number + 1
        assert again.edit.answers == alone.edit.answers
    merged = next(one for one in state["patterns"] if one["pattern"] == GREEN)
    assert (merged["called"], merged["members"], merged["judged"]) == ("colour", [GREEN, BLUE], "keep")
    dropped = next(one for one in state["patterns"] if one["judged"] == "drop")
    assert "influence" not in dropped
    status, content = served.get(f"edit/patch/{GREEN}/0?of={GREEN}-{BLUE}")
    assert status == 200
    assert Image.open(io.BytesIO(content)).size == (96, 96)
    assert served.get(f"edit/patch/{BLUE}/0")[0] == 400
    assert json.loads(served.get("edit/pattern?word=colour")[1])["pattern"] == GREEN
    assert served.get("edit/image/3")[0] == 200
    with zipfile.ZipFile(io.BytesIO(served.get("edit/edit.zip")[1])) as archive:
        archive.extractall(tmp_path)
    assert load_edit(tmp_path).answers == alone.edit.answers
    status, state = served.post("edit/refit", number=4)
    assert (status, state["refit"], state["learned"]) == (200, True, False)
    assert state["accuracy"] == list(alone.refit().accuracy)
    again = classroom.editing_session()
    kept.resume(again)
    assert again.edit.refit is not None
    status, state = served.post("edit/undo", number=5)
    assert (status, state["refit"], len(state["said"])) == (200, False, 3)
    for number in range(6, 9):
        status, state = served.post("edit/say", number=number, line="undo")
        assert status == 200
    assert state["said"] == []
    assert served.post("edit/undo", number=9)[0] == 400
    assert state["accuracy"][0] == state["accuracy"][1]


def test_of_several_at_once_one_is_heard(served):
    state_of(served)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(served.post("edit/say", number=0, line=f"drop {RED}")))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(status for status, _ in found) == [200, *[409] * 5]
    assert next(body for status, body in found if status == 409)["state"]["number"] == 1


def test_what_must_not_be_is_refused_and_changes_nothing(served, kept, capfd):
    before = state_of(served)
    own = {"Origin": f"http://{served.host}", "Content-Type": "application/json"}
    good = json.dumps({"number": 0, "line": "drop 1"})
    for headers in (
        {"Origin": "http://evil.example"},
        {"Host": "evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        assert served.ask("POST", served.path + "edit/say", good, own=False, headers=own | headers)[0] >= 400
    assert served.ask("POST", "/edit/say", good, headers=own)[0] == 403
    assert served.ask("POST", "/wrong/edit/say", good, headers=own)[0] == 403
    for body in ("{", "[]", '{"number": 0}', '{"number": 0, "line": 3}', '{"number": "0", "line": "drop 1"}',
                 '{"number": 0, "line": ""}', '{"number": 0, "line": "drop 9"}', '{"number": 0, "line": "burn 1"}',
                 '{"number": 0, "line": "drop 1\\ndrop 2"}', '{"number": 0, "line": "undo"}',
                 '{"number": 4, "line": "drop 1"}', '{"number": 0, "line": "rename 1 \\u0000"}',
                 json.dumps({"number": 0, "line": "drop " + "1 " * 600}), "x" * 20_000):  # fmt: skip
        status, said = served.ask("POST", served.path + "edit/say", body, own=False, headers=own)
        assert 400 <= status < 500, body
        assert b"Traceback" not in said
    for path in ("edit/patch/9/0", "edit/patch/0/99", "edit/patch/0/-1", "edit/patch/x/0", "edit/image/48",
                 "edit/image/-1", "edit/pattern?word=nothing", "edit/pattern", "edit/../guard.py", "edit/nothing",
                 "edit/edit.js", "edit/patch/0/0/0", f"edit/pattern?word={'1' * 200}"):  # fmt: skip
        assert 400 <= served.get(path)[0] < 500, path
    assert state_of(served) == before
    assert not kept.path.exists()
    shown = capfd.readouterr()
    assert "Traceback" not in shown.err + shown.out


def test_one_server_has_both_views_and_each_is_linked_from_the_other():
    server = Server(classroom.room(), EditingRoom(classroom.editing_session))
    opened, teaching, editing = (server.get(path)[1].decode() for path in ("", "teach", "edit"))
    assert opened == teaching
    assert 'href="teach" aria-current="page"' in teaching
    assert 'href="edit" aria-current="page"' in editing
    assert 'href="edit"' in teaching
    assert server.post("edit/say", number=0, line=f"drop {RED}")[0] == 200
    status, body = server.post("edit/say", number=0, line=f"drop {GREEN}")
    assert (status, body["state"]["layer"]) == (409, LAYER)
    assert server.state()["number"] == 0
    server.stop()


def test_without_labels_the_networks_answers_stand_for_them():
    network, given = colour_network(), squares(30)
    images = Images(name=given.name, ids=given.ids, load=given.load)
    session = EditingSession.unlabelled(network, Base.of(network), images, LAYER, "filters")
    assert session.effect().accuracy == (1.0, 1.0)
    room = EditingRoom(lambda: session, labelled=False)
    assert not room.state()["labelled"]
    room.say(0, f"drop {GREEN}")
    state = room.state()
    effect = session.effect()
    assert state["accuracy"][1] == 1 - state["changed"] / 30
    assert np.array_equal(effect.before, session.images.labels)
    with pytest.raises(InputError, match="labels"):
        room.refit(1)


def test_what_was_kept_and_makes_no_sense_is_named(kept):
    kept.path.write_text("drop 1\nburn 2\n")
    with pytest.raises(InputError, match=r"said.txt, line 2: .*burn"):
        kept.resume(classroom.editing_session())
