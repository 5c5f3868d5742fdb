import contextlib
import http.client
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import zipfile
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("uvicorn", reason="the extra `web` is not installed")
sys.path.insert(0, str(Path(__file__).parent))
import classroom

from cnn_interp.middle_to_end.journal import open_journal, read_journal
from cnn_interp.middle_to_end.page.classroom import TRY_BYTES
from cnn_interp.middle_to_end.page.serving import serve
from interpretkit.errors import InputError


class Server:
    """A server in a thread of the test's own."""

    def __init__(self, room=None, editing=None):
        ready = threading.Event()
        self.address = ""

        def told(address):
            self.address = address
            ready.set()

        self.thread = threading.Thread(
            target=serve, args=(room,), kwargs={"editing": editing, "ready": told}, daemon=True
        )
        self.thread.start()
        assert ready.wait(30)
        parts = urlsplit(self.address)
        self.host, self.path = parts.netloc, parts.path

    def ask(self, method, path, body=None, *, own=True, headers=None):
        """Return status and body; with `own` the headers are those of the server's page."""
        link = http.client.HTTPConnection(self.host, timeout=30)
        given = {"Origin": f"http://{self.host}"} if own and method == "POST" else {}
        if isinstance(body, dict):
            body, given["Content-Type"] = json.dumps(body), "application/json"
        with contextlib.closing(link):
            link.request(method, path, body, given | (headers or {}))
            answer = link.getresponse()
            return answer.status, answer.read()

    def get(self, path):
        return self.ask("GET", self.path + path)

    def post(self, path, **body):
        status, content = self.ask("POST", self.path + path, body)
        return status, json.loads(content)

    def state(self):
        return json.loads(self.get("state")[1])

    def stop(self):
        with contextlib.suppress(OSError):
            self.post("stop", number=0)
        self.thread.join(20)


@pytest.fixture
def served(tmp_path):
    path = tmp_path / "nose.jsonl"
    with open_journal(path, classroom.ABOUT) as log:
        server = Server(classroom.room(log, path))
        yield server
        server.stop()
        assert not server.thread.is_alive()


@pytest.fixture(scope="module")
def planted():
    return classroom.planted()[1]


def true_answer(state, part):
    """Return what somebody who sees the square says."""
    place = part[state["question"]["image"]]
    if np.isnan(place[0]):
        return {"verdict": "absent", "box": None}
    verdict = "wrong box" if "box" in state["question"] else "new template"
    return {"verdict": verdict, "box": [float(place[0]), float(place[1]), 30.0, 30.0]}


def test_a_part_is_taught_on_the_page(served, planted, tmp_path):
    for file, kind in (("", b"<!doctype html>"), ("page.js", b'"use strict"'), ("page.css", b":root")):
        status, content = served.get(file)
        assert status == 200
        assert content.startswith(kind)
    state = served.state()
    for number in range(5):
        assert state["number"] == number
        status, state = served.post("answer", number=number, **true_answer(state, planted))
        assert status == 200
    assert state["templates"] == 1
    assert len(state["said"]) == 5
    assert state["expected"][-1] > 0
    graph = json.loads(served.get("graph")[1])
    assert graph["templates"][0]["annotated"] == sum(one["place"] is not None for one in state["said"])
    image, row, column, half = graph["templates"][0]["shown"][0]
    status, content = served.get(f"patch/{image}?row={row}&column={column}&half={half}")
    assert status == 200
    # The patch shows the square that was taught.
    assert np.asarray(Image.open(io.BytesIO(content)).convert("L"))[40:56, 40:56].mean() > 150
    assert Image.open(io.BytesIO(served.get("image/0")[1])).size == (448, 448)
    status, state = served.post("undo", number=5)
    assert (status, state["number"], len(state["said"])) == (200, 6, 4)
    status, state = served.post("skip", number=6)
    assert (status, state["said"][-1]["verdict"]) == (200, "skipped")
    with zipfile.ZipFile(io.BytesIO(served.get("export.zip")[1])) as archive:
        assert sorted(archive.namelist()) == [
            "journal.jsonl",
            "part/part.graphml",
            "part/part.json",
            "part/part.npz",
        ]
        assert archive.read("journal.jsonl") == (tmp_path / "nose.jsonl").read_bytes()
    # Whoever goes on from the journal is asked the same.
    entries = read_journal(tmp_path / "nose.jsonl", classroom.ABOUT)
    assert classroom.dialogue(classroom_log(entries)).question.image == state["question"]["image"]


def classroom_log(entries):
    from cnn_interp.middle_to_end.journal import Memory

    return Memory(entries)


def test_of_several_at_once_one_is_heard(served, planted):
    state = served.state()
    said = true_answer(state, planted)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(served.post("answer", number=0, **said)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(status for status, _ in found) == [200, *[409] * 7]
    late = next(body for status, body in found if status == 409)
    assert late["state"]["number"] == 1
    assert served.post("undo", number=0)[0] == 409
    assert served.post("skip", number=7)[0] == 409
    assert len(served.state()["said"]) == 1


def _bomb():
    """Return the beginning of a PNG file of 900 million pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000))


def test_a_picture_of_somebodys_own_is_tried_and_others_are_refused(served, planted):
    held = io.BytesIO()
    Image.new("RGB", (50, 40)).save(held, "PNG")
    path = served.path + "try"
    status, content = served.ask("POST", path, held.getvalue())
    assert status == 400
    assert b"nothing was learned" in content
    served.post("answer", number=0, **true_answer(served.state(), planted))
    status, content = served.ask("POST", path, held.getvalue())
    assert status == 200
    assert json.loads(content)["picture"].startswith("data:image/jpeg;base64,")
    for wrong in (b"", b"no picture", _bomb(), held.getvalue()[:60], b"%PDF-1.4", b"<svg></svg>"):
        status, content = served.ask("POST", path, wrong)
        assert status == 400, wrong[:20]
        assert b"picture" in content
    assert served.ask("POST", path, b"x" * (TRY_BYTES + 1))[0] == 413


def bad_requests(host, path):
    """Give requests that must be refused: method, path, body, headers."""
    own = {"Origin": f"http://{host}", "Content-Type": "application/json"}
    good = json.dumps({"number": 0, "verdict": "absent", "box": None})
    token = path.strip("/")
    for wrong in ("", "/", "/state", f"/{token[:-1]}/state", f"/{token}x/state", f"/{token.upper()}/state", "//",
                  f"//{token}/state", "/%00/state", f"/?token={token}", f"/..{path}state"):  # fmt: skip
        yield "GET", wrong or "*", None, {}
        yield "POST", (wrong or "/") + "answer", good, own
    for climbing in (
        "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "..%2f..%2fetc%2fpasswd", "image/../../page.py",
        "image/..%5c..", "static/guard.py", "page.py", "guard.py", "image/%00", "image/1e3", "image/-1", "image/999",
        "image/abc", "image/99999999999999999999", "patch/0", "patch/0?row=nan&column=1&half=9",
        "patch/0?row=1&column=inf&half=9", "patch/0?row=1&column=1&half=1e300", "patch/0?row=-5&column=1&half=9",
        "docs", "openapi.json", "nothing",
    ):  # fmt: skip
        yield "GET", path + climbing, None, {}
    for headers in (
        {"Host": "evil.example"}, {"Host": "evil.example:80"}, {"Host": host + ".evil.example"}, {"Host": ""},
        {"Host": "127.0.0.1"}, {"Origin": "http://evil.example"}, {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    ):  # fmt: skip
        yield "GET", path + "state", None, headers
        yield "POST", path + "answer", good, own | headers
    yield "POST", path + "answer", good, {"Content-Type": "application/json"}
    for body in ("", "{", "[]", "null", '"x"', "[" * 8000, '{"number": 0}', '{"number": "0", "verdict": "absent"}',
                 '{"number": -1, "verdict": "absent"}', '{"number": 1e99, "verdict": "absent"}',
                 '{"number": 0, "verdict": "perhaps"}', '{"number": 0, "verdict": "right"}',
                 '{"number": 0, "verdict": "new template"}', '{"number": 0, "verdict": "new template", "box": [1, 2]}',
                 '{"number": 0, "verdict": "new template", "box": [NaN, 2, 3, 4]}',
                 '{"number": 0, "verdict": "new template", "box": [1e9, 2, 3, 4]}',
                 '{"number": 0, "verdict": "new template", "box": [500, 2, 3, 4]}',
                 '{"number": 0, "verdict": "new template", "box": [5, 2, -3, 4]}',
                 '{"number": 0, "verdict": "absent", "more": 1}', '{"number": 0, "verdict": "absent", "template": 3.5}',
                 '{"number": 9, "verdict": "absent"}', "\ud800".encode("utf-8", "surrogatepass"), b"\xff\xfe\x00",
                 "x" * 20_000):  # fmt: skip
        yield "POST", path + "answer", body, own
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
        yield method, path + "answer", good, own
    yield "GET", path + "answer", None, {}
    yield "POST", path + "state", good, own
    yield "POST", path + "undo", '{"number": 0}', own


def test_what_must_not_be_is_refused_and_changes_nothing(served, capfd):
    before = served.state()
    for method, path, body, headers in bad_requests(served.host, served.path):
        content = body.encode() if isinstance(body, str) else body
        status, said = served.ask(method, path, content, own=False, headers=headers)
        assert 400 <= status < 500, (method, path, body, headers, status)
        assert b"Traceback" not in said
        assert b"root:" not in said
    for noise in (b"\0" * 50, b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 90_000 + b"\r\n\r\n",
                  b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"\x16\x03\x01"):  # fmt: skip
        with (
            contextlib.suppress(OSError),
            socket.create_connection(served.host.split(":"), timeout=10) as link,
        ):
            link.sendall(noise)
            assert b" 200 " not in link.recv(4096)
    assert served.state() == before
    shown = capfd.readouterr()
    assert "Traceback" not in shown.err + shown.out


def test_headers_let_nothing_else_in(served):
    link = http.client.HTTPConnection(served.host, timeout=30)
    with contextlib.closing(link):
        link.request("GET", served.path)
        answer = link.getresponse()
        answer.read()
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers


def test_a_port_that_is_taken_is_said(served):
    with pytest.raises(InputError, match="port"):
        serve(classroom.room(), port=int(served.host.split(":")[1]))


def test_a_killed_server_loses_no_answer(planted, tmp_path):
    path = tmp_path / "nose.jsonl"
    told: list[dict] = []
    command = [sys.executable, str(Path(classroom.__file__)), str(path), "known-token"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        server = Server.__new__(Server)
        parts = urlsplit(process.stdout.readline().strip())
        server.host, server.path = parts.netloc, parts.path
        state = server.state()

        def go_on(state):
            with contextlib.suppress(OSError, http.client.HTTPException):
                while True:
                    said = true_answer(state, planted)
                    status, after = server.post("answer", number=state["number"], **said)
                    assert status == 200
                    told.append({"image": state["question"]["image"], "verdict": said["verdict"]})
                    state = after

        thread = threading.Thread(target=go_on, args=(state,))
        thread.start()
        while len(told) < 3:
            thread.join(0.01)
        os.kill(process.pid, signal.SIGKILL)
        thread.join()
    entries: list[Any] = read_journal(path, classroom.ABOUT)
    assert [{"image": e.image, "verdict": e.answer.verdict} for e in entries[: len(told)]] == told
    # The one in mid-answer may have been kept as well, and no more.
    assert len(told) <= len(entries) <= len(told) + 1
    with open_journal(path, classroom.ABOUT) as log:
        assert len(classroom.dialogue(log).entries) == len(entries)
