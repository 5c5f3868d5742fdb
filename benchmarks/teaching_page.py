"""The page on which a part is taught: bad requests, many people at once, servers killed in mid-answer, and its speed.

Run as `python -m benchmarks.teaching_page [--full]`.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from cnn_interp.disentangling.features import LayerMaps, TrunkFeatures
from cnn_interp.disentangling.part_cells import part_cells
from cnn_interp.disentangling.part_graph import PartSettings
from cnn_interp.images.sets import Images
from cnn_interp.middle_to_end.dialogue import Dialogue
from cnn_interp.middle_to_end.journal import Log, open_journal, read_journal
from cnn_interp.middle_to_end.selection import largest_gain
from cnn_interp.units.positions import UnitGrid
from interpretkit.bench.evidence import Row, markdown
from interpretkit.networks.receptive_fields import ReceptiveField
from interpretkit.runs.progress import track

SYSTEM, DATA = "cnn teach --serve", "dialogues about noise, on loopback"
BAR = "the bar set for this benchmark"
ABOUT = {"part": "noise"}
TOKEN = "token-of-the-benchmark"
IMAGES, SIDE, UNITS = 80, 14, 8
# An answer is timed with so many images, which are so many drawn ones over and over, and the bar for it in seconds.
TIMED, DRAWN, ANSWERS, SOON = 500, 40, 12, 0.5
NETWORK, DEEP = "mobilenet_v2", "features.18"


@dataclass(frozen=True)
class Size:
    """How many requests, people and kills."""

    requests: int
    sessions: int
    kills: int


QUICK, FULL = Size(200, 10, 1), Size(200, 50, 20)


class Server:
    """A server in a process of its own."""

    def __init__(self, journal: Path) -> None:
        command = [sys.executable, __file__, "--serve", str(journal)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        parts = urlsplit(self.process.stdout.readline().strip())
        self.host, self.path = parts.netloc, parts.path

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Return status and body of a request."""
        link = http.client.HTTPConnection(self.host, timeout=120)
        with contextlib.closing(link):
            link.request(method, path, body, dict(headers or {}))
            answer = link.getresponse()
            return answer.status, answer.read()

    def state(self) -> dict[str, int]:
        """Return the dialogue's state."""
        return json.loads(self.ask("GET", f"{self.path}state")[1])

    def absent(self, number: int) -> int:
        """Say that the part is not in the image asked about; return the status."""
        said = json.dumps({"number": number, "verdict": "absent"}).encode()
        headers = {"Origin": f"http://{self.host}", "Content-Type": "application/json"}
        return self.ask("POST", f"{self.path}answer", said, headers)[0]

    def kill(self) -> str:
        """End the process at once; return what it said on stderr."""
        os.kill(self.process.pid, signal.SIGKILL)
        return self.process.communicate()[1]


def run(
    quick: bool = True, data: Mapping[str, Path] | None = None, seed: int = 0, device: str = "cpu"
) -> list[Row]:
    """Return the rows of evidence.

    Parameters
    ----------
    quick : bool
        Fewer people and kills.
    data : mapping of str to path, optional
        None is needed.
    seed : int
        Of requests and of when servers are killed.
    device : str
        Nothing is computed on it.
    """
    size = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        return [
            *request_rows(Path(folder), size, seed),
            kill_row(Path(folder), size, seed),
            timed_row(Path(folder), seed),
        ]


def request_rows(folder: Path, size: Size, seed: int) -> list[Row]:
    """Return what became of bad requests, and of many people who answer at once."""
    server = Server(folder / "requests.jsonl")
    before = server.state()
    let_in = 0
    for method, path, body, headers in bad_requests(server, size.requests, seed):
        status, said = server.ask(method, path, body, headers)
        let_in += status < 400 or status >= 500 or b"Traceback" in said
    changed = int(server.state() != before)
    taken: list[int] = []
    slowest: list[float] = []

    def person() -> None:
        for _ in range(3):
            clock = time.perf_counter()
            number = server.state()["number"]
            if server.absent(number) == 200:
                taken.append(number)
            slowest.append(time.perf_counter() - clock)

    people = [threading.Thread(target=person) for _ in range(size.sessions)]
    for one in people:
        one.start()
    for one in people:
        one.join()
    after = server.state()["number"]
    tracebacks = server.kill().count("Traceback")
    kept = len(read_journal(folder / "requests.jsonl", ABOUT))
    common = {"data": DATA, "seed": seed}
    return [
        Row(
            system=SYSTEM, name="bad requests that were let in or changed anything", value=let_in + changed,
            reference=0.0, source=BAR, notes=f"of {size.requests}: tokens, hosts, origins, paths, bodies", **common,
        ),
        Row(
            system=SYSTEM, name="tracebacks", value=tracebacks, reference=0.0, source=BAR,
            notes=f"after {size.requests} bad requests and {size.sessions} people at once", **common,
        ),
        Row(
            system=SYSTEM, name="answers taken twice, lost or out of turn with people answering at once",
            value=abs(len(taken) - len(set(taken))) + abs(after - len(taken)) + abs(kept - len(taken)), reference=0.0,
            source=BAR, notes=f"{size.sessions} people, three answers each; {len(taken)} were in time, the others were "
            f"told that they were late; the slowest waited {max(slowest):.1f} s", **common,
        ),
    ]  # fmt: skip


def bad_requests(
    server: Server, count: int, seed: int
) -> Iterator[tuple[str, str, bytes | None, dict[str, str]]]:
    """Give requests that must be refused: each has one fault, drawn by chance."""
    rng = np.random.default_rng(seed)
    own = {"Origin": f"http://{server.host}", "Content-Type": "application/json"}
    good = json.dumps({"number": 0, "verdict": "absent"}).encode()
    token = server.path.strip("/")
    tokens = (
        "",
        token[:-1],
        token + "x",
        token.upper(),
        "..",
        "%00",
        f"..%2f{token}",
        f"./{token}",
        "favicon.ico",
    )
    hosts = ("evil.example", "127.0.0.1", f"{server.host}.evil.example", "localhost", "0.0.0.0", "")
    origins = ("http://evil.example", "null", "https://127.0.0.1", f"http://{server.host}.evil.example", "")
    paths = ("../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/guard.py", "guard.py", "image/-1", "image/9999",
             "image/x", "image/..%2f..", "patch/0?row=nan&column=1&half=3", "patch/0", "docs", "openapi.json",
             "patch/0?row=1e308&column=1&half=3", "image/99999999999999999999", "journal.jsonl")  # fmt: skip
    bodies = (b"", b"{", b"[]", b"null", b"[" * 9000, b"\xff\xfe", b"x" * 30_000, b'{"number": "0"}', b'{"number": 0}',
              b'{"number": 0, "verdict": "perhaps"}', b'{"number": 0, "verdict": "right"}',
              b'{"number": -1, "verdict": "absent"}', b'{"number": 5, "verdict": "absent"}',
              b'{"number": 0, "verdict": "new template", "box": [NaN, 1, 1, 1]}',
              b'{"number": 0, "verdict": "new template", "box": [1e9, 1, 1, 1]}',
              b'{"number": 0, "verdict": "absent", "more": 1}')  # fmt: skip
    methods = ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW")
    for _ in range(count):
        match int(rng.integers(6)):
            case 0:
                path = f"/{tokens[rng.integers(len(tokens))]}/"
                yield (
                    ("POST", path + "answer", good, own)
                    if rng.random() < 0.5
                    else ("GET", path + "state", None, {})
                )
            case 1:
                yield "POST", f"{server.path}answer", good, own | {"Host": hosts[rng.integers(len(hosts))]}
            case 2:
                yield (
                    "POST",
                    f"{server.path}answer",
                    good,
                    own | {"Origin": origins[rng.integers(len(origins))]},
                )
            case 3:
                yield "GET", server.path + paths[rng.integers(len(paths))], None, {}
            case 4:
                yield "POST", f"{server.path}answer", bodies[rng.integers(len(bodies))], own
            case _:
                yield methods[rng.integers(len(methods))], f"{server.path}answer", good, own


def kill_row(folder: Path, size: Size, seed: int) -> Row:
    """Return how many answers were lost by servers killed while they took one."""
    rng = np.random.default_rng(seed)
    lost = told = 0
    journal = folder / "killed.jsonl"
    for _ in track(range(size.kills), "Killing servers", quiet=False):
        server = Server(journal)
        number = server.state()["number"]
        taken: list[int] = []

        def go_on(server: Server = server, number: int = number, taken: list[int] = taken) -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                while server.absent(number) == 200:
                    taken.append(number)
                    number += 1

        thread = threading.Thread(target=go_on)
        thread.start()
        while not taken and thread.is_alive():
            thread.join(0.005)
        time.sleep(float(rng.random()) * 0.05)
        server.kill()
        thread.join()
        kept = {entry.number for entry in read_journal(journal, ABOUT)}
        lost += len(set(taken) - kept)
        told += len(taken)
        if len(kept) > IMAGES - 20:
            journal = folder / f"killed-{len(kept)}-{told}.jsonl"
    return Row(
        system=SYSTEM, data=DATA, name="answers lost by servers killed in mid-answer", value=lost, reference=0.0,
        source=BAR, seed=seed, notes=f"kill -9, {size.kills} times; {told} answers had been said to be taken",
    )  # fmt: skip


def timed_row(folder: Path, seed: int) -> Row:
    """Return how long it takes from an answer to the next question with many images, on a server of this process."""
    import torch

    from cnn_interp.disentangling.part_cells import part_layers
    from cnn_interp.images.articulated import articulated_images
    from cnn_interp.images.batches import landmarks_in_inputs
    from cnn_interp.middle_to_end.lesson import prepare_lesson
    from cnn_interp.middle_to_end.page.classroom import Classroom
    from cnn_interp.middle_to_end.page.serving import serve
    from cnn_interp.networks.loading import load_network

    network = load_network(NETWORK, seed=seed)
    drawn = articulated_images(
        DRAWN, seed=seed, side=network.size, negatives=0.3, occlusion=0.0, categories=("quadruped",)
    ).cropped()
    rows = np.resize(np.arange(DRAWN), TIMED)
    images = drawn.subset(rows)
    where = landmarks_in_inputs(drawn, network.size)[rows, drawn.part_names.index("head")]
    lesson = prepare_lesson(network, drawn, part_layers(network), DEEP)
    # No two images are quite alike.
    noise = np.random.default_rng(seed).normal(size=(TIMED, 1, lesson.features.shape[2]))
    features = lesson.features[rows] + 0.1 * lesson.features.std() * noise
    wall, work = [], []
    with open_journal(folder / "timed.jsonl", ABOUT) as log:
        talk = Dialogue(
            lesson.cells.subset(rows), features, part="head", selection=largest_gain, log=log, seed=seed
        )
        address: queue.Queue[str] = queue.Queue()
        room = Classroom(talk, images, journal=folder / "timed.jsonl")
        thread = threading.Thread(target=serve, args=(room,), kwargs={"ready": address.put}, daemon=True)
        thread.start()
        parts = urlsplit(address.get(timeout=60))
        headers = {"Origin": f"http://{parts.netloc}", "Content-Type": "application/json"}
        link = http.client.HTTPConnection(parts.netloc, timeout=120)
        with contextlib.closing(link):
            state = room.state()
            for _ in range(ANSWERS):
                place = where[state["question"]["image"]]
                shown = not np.isnan(place[0])
                kind = "wrong box" if "box" in state["question"] else "new template"
                said = {"number": state["number"], "verdict": kind if shown else "absent",
                        "box": [*map(float, place), 50.0, 50.0] if shown else None}  # fmt: skip
                clock, processor = time.perf_counter(), time.process_time()
                link.request("POST", f"{parts.path}answer", json.dumps(said), headers)
                state = json.loads(link.getresponse().read())
                wall.append(time.perf_counter() - clock)
                work.append(time.process_time() - processor)
            link.request("POST", f"{parts.path}stop", json.dumps({"number": 0}), headers)
            link.getresponse().read()
        thread.join(20)
    # The first answers build less than those that come after.
    return Row(
        system=f"{NETWORK}, {SYSTEM}", data=f"{TIMED} images of drawn animals, on loopback",
        name="processor time from an answer to the next question", value=float(np.median(work[2:])), unit="s",
        reference=SOON, source=BAR, seed=seed,
        notes=f"median of {len(work) - 2} answers, {np.min(work[2:]):.2f} to {np.max(work[2:]):.2f} s over all threads "
        f"({torch.get_num_threads()}), so that it takes no longer on an idle machine; by the clock "
        f"{np.median(wall[2:]):.2f} s, beside whatever else the machine did",
    )  # fmt: skip


def dialogue(log: Log) -> tuple[Dialogue, Images]:
    """Return a dialogue about maps of noise, and its images."""
    rng = np.random.default_rng(0)
    field = ReceptiveField("noise", (40.0, 40.0), (16.0, 16.0), (7.5, 7.5), (SIDE, SIDE))
    grid = UnitGrid(field, (16 * SIDE, 16 * SIDE))
    maps = rng.random((IMAGES, UNITS, SIDE, SIDE)).astype(np.float32)
    features = tuple(
        TrunkFeatures({"noise": LayerMaps("noise", np.ascontiguousarray(one), grid)}, grid.image, "noise")
        for one in (maps, maps[..., ::-1])
    )
    images = Images(
        name="noise", ids=tuple(f"{number}.png" for number in range(IMAGES)),
        load=lambda number: np.random.default_rng(number).integers(0, 256, (*grid.image, 3), dtype=np.uint8),
    )  # fmt: skip
    talk = Dialogue(
        part_cells((features[0], features[1]), ["noise"]), rng.normal(size=(IMAGES, 16)), part="noise",
        selection=largest_gain, log=log, settings=PartSettings(near=1, reach=1), learned_from=10,
    )  # fmt: skip
    return talk, images


def main() -> None:
    """Print the rows as a table, or be the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="all people and kills")
    parser.add_argument("--seed", type=int, default=0, help="of requests and kills")
    parser.add_argument("--serve", type=Path, metavar="JOURNAL", help="be the server, until killed")
    options = parser.parse_args()
    if options.serve is None:
        print(markdown(run(not options.full, seed=options.seed)))
        return
    from cnn_interp.middle_to_end.page.classroom import Classroom
    from cnn_interp.middle_to_end.page.serving import serve

    with open_journal(options.serve, ABOUT) as log:
        talk, images = dialogue(log)
        room = Classroom(talk, images, journal=options.serve)
        serve(room, token=TOKEN, ready=lambda address: print(address, flush=True))


if __name__ == "__main__":
    main()
