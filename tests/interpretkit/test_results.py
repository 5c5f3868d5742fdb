import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from interpretkit.errors import InputError
from interpretkit.runs.files import held
from interpretkit.runs.folder import ResumableTable, kept_until_done, load_arrays, load_manifest, run_folder


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def make_result(out: Path, text: str = "first") -> None:
    with run_folder(out, command="test") as run:
        run.save_text("note.txt", text)


def test_a_run_writes_its_files_and_a_manifest(tmp_path: Path):
    data = tmp_path / "sites.csv"
    data.write_bytes(b"a,b\n1,2\n")
    out = tmp_path / "deep" / "result"
    with run_folder(out, "catalyst design", {"n": np.int64(3), "window": 0.1}, seed=7, data=[data]) as run:
        assert not out.exists()
        run.save_arrays("a.npz", x=np.arange(6).reshape(2, 3), names=["Ir", "Pd"])
        run.save_table("rows.csv", [{"id": 1, "e": np.float32(0.5)}, {"id": 2, "class": "top,1", "e": None}])
        run.save_table("columns.csv", {"x": np.array([1.5, 2.5]), "y": ["a", "b"]})
        run.save_tensors("m.safetensors", {"w": torch.ones(2, 3).T}, {"n": 3})
        run.save_figure("f.png", matplotlib.figure.Figure())
        run.save_json("v.json", {"nan": float("nan")})
        run.path("sub/own.txt").write_text("own")
        run.summary.update(mae_ev=np.float64(0.07))

    manifest = load_manifest(out)
    assert manifest["command"] == "catalyst design"
    assert manifest["arguments"] == {"n": 3, "window": 0.1}
    assert manifest["seed"] == 7
    assert manifest["summary"] == {"mae_ev": 0.07}
    # The digest by another way than the code's.
    assert manifest["data"] == [
        {"path": str(data), "bytes": 8, "sha256": hashlib.sha256(b"a,b\n1,2\n").hexdigest()}
    ]
    assert manifest["versions"]["numpy"] == np.__version__
    assert manifest["versions"]["torch"] == torch.__version__
    assert manifest["files"]["sub/own.txt"] == {"bytes": 3, "sha256": hashlib.sha256(b"own").hexdigest()}
    arrays = load_arrays(out / "a.npz")
    np.testing.assert_array_equal(arrays["x"], [[0, 1, 2], [3, 4, 5]])
    assert arrays["names"].tolist() == ["Ir", "Pd"]
    assert (out / "rows.csv").read_text().splitlines() == ["id,e,class", "1,0.5,", '2,,"top,1"']
    assert (out / "columns.csv").read_text().splitlines() == ["x,y", "1.5,a", "2.5,b"]
    assert load_file(out / "m.safetensors")["w"].shape == (3, 2)
    assert json.loads((out / "v.json").read_text()) == {"nan": None}
    assert names(out.parent) == {"result"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_run_that_fails_leaves_nothing(tmp_path: Path, error: type[BaseException]):
    out = tmp_path / "new" / "result"

    def work():
        with run_folder(out, command="test") as run:
            run.save_text("half.txt", "half")
            raise error

    with pytest.raises(error):
        work()
    assert names(tmp_path) == set()


def test_an_earlier_result_is_replaced_only_on_success(tmp_path: Path):
    out = tmp_path / "result"
    make_result(out)

    def fail():
        with run_folder(out, command="test") as run:
            run.save_text("other.txt", "second")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (out / "note.txt").read_text() == "first"
    with run_folder(out, command="test") as run:
        run.save_text("other.txt", "second")
        assert (out / "note.txt").read_text() == "first"
    assert names(out) == {"other.txt", "manifest.json"}
    assert names(tmp_path) == {"result"}


def test_an_empty_folder_is_used(tmp_path: Path):
    (tmp_path / "result").mkdir()
    make_result(tmp_path / "result")
    assert load_manifest(tmp_path / "result")["command"] == "test"


def test_what_is_not_a_result_is_refused_and_left_alone(tmp_path: Path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no earlier result"):
        make_result(folder)
    make_result(tmp_path / "result")
    (tmp_path / "result" / "my notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"'my notes\.txt', which is not part of it"):
        make_result(tmp_path / "result")
    assert (tmp_path / "result" / "my notes.txt").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        make_result(tmp_path / "file")
    with pytest.raises(InputError, match="current folder"):
        make_result(Path("."))


def test_a_place_that_cannot_be_written_to_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("")
    worked = False
    with pytest.raises(InputError, match=r"out .*file/result: .*expected a folder"):  # noqa: SIM117
        with run_folder(tmp_path / "file" / "result", command="test"):
            worked = True

    def deny(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", deny)
    with pytest.raises(InputError, match="Permission denied"):  # noqa: SIM117
        with run_folder(tmp_path / "result", command="test"):
            worked = True
    assert not worked


def test_missing_data_is_refused_before_the_work(tmp_path: Path):
    with pytest.raises(InputError, match=r"absent\.csv: no such file"):  # noqa: SIM117
        with run_folder(tmp_path / "result", command="test", data=[tmp_path / "absent.csv"]):
            pass
    assert names(tmp_path) == set()


@pytest.mark.parametrize("name", ["../x", "/etc/x", "", "manifest.json"])
def test_files_stay_within_the_folder(tmp_path: Path, name: str):
    with run_folder(tmp_path / "result", command="test") as run:
        with pytest.raises(ValueError, match=r"leads out|written by the run"):
            run.path(name)
        with pytest.raises(TypeError, match="Python objects"):
            run.save_arrays("a.npz", a=np.array([object()]))


def test_a_terminated_command_leaves_nothing(tmp_path: Path):
    script = tmp_path / "work.py"
    script.write_text(
        "import signal, sys, time\n"
        "from interpretkit import cli\n"
        "from interpretkit.runs.folder import run_folder\n"
        "signal.signal(signal.SIGTERM, cli._terminate)\n"
        "with run_folder(sys.argv[1], command='test') as run:\n"
        "    run.save_text('half.txt', '')\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
    )
    out = tmp_path / "result"
    process = subprocess.Popen([sys.executable, script, out], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.terminate()
    assert process.wait(timeout=20) == 143
    assert names(tmp_path) == {"work.py"}


@contextmanager
def another_process(tmp_path: Path, work: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process that does `work`, which ends in `wait()`, and kill it with SIGKILL at the end."""
    script = (
        "import os, sys, time\n"
        "from interpretkit.runs import folder as results\n"
        "from interpretkit.runs.folder import kept_until_done, run_folder\n"
        "def wait(*_, **__):\n"
        "    print('waiting', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script + work], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "waiting\n"
        yield process
    finally:
        process.kill()
        process.communicate()


WRITES = (
    "with run_folder('result', command='test') as run:\n    run.save_text('half.txt', 'half')\n    wait()\n"
)


def test_what_a_killed_run_left_vanishes_and_what_a_living_run_writes_stays(tmp_path: Path):
    with another_process(tmp_path, WRITES):
        (hidden,) = tmp_path.iterdir()
        make_result(tmp_path / "result")
        assert (hidden / "half.txt").read_text() == "half"
        assert names(tmp_path) == {"result", hidden.name}
    assert names(tmp_path) == {"result", hidden.name}
    make_result(tmp_path / "other")
    assert hidden.exists()
    make_result(tmp_path / "result")
    assert names(tmp_path) == {"result", "other"}


def test_leftovers_are_known_by_their_whole_name(tmp_path: Path):
    with another_process(tmp_path, WRITES):
        pass
    (hidden,) = tmp_path.iterdir()
    machine = hidden.name.split("-")[1]
    others = {
        # Of a run into "result.partial-x", of another machine, and of nobody.
        hidden.name.replace("result", "result.partial-x"),
        hidden.name.replace(machine, "0" * 8),
        f".result.partial-{machine}-my-notes",
        ".result.unfinished-0123456789ab",
    }
    for name in others:
        shutil.copytree(hidden, tmp_path / name)
    make_result(tmp_path / "result")
    assert names(tmp_path) == {"result"} | others


def test_a_result_set_aside_by_a_killed_run_is_put_back(tmp_path: Path):
    out = tmp_path / "result"
    make_result(out)
    # Killed when the earlier result has been set aside, before the new one takes its place.
    renames = (
        "rename = os.rename\n"
        "results.os.rename = lambda a, b: wait() if str(b).endswith('result') else rename(a, b)\n"
    )
    with another_process(tmp_path, renames + WRITES.replace("    wait()\n", "")):
        assert not out.exists()
        aside = next(tmp_path.glob(".result.replaced-*"))
        with pytest.raises(RuntimeError), run_folder(out, command="test"):
            raise RuntimeError
        assert aside.exists()
    with pytest.raises(RuntimeError), run_folder(out, command="test"):
        raise RuntimeError
    assert names(tmp_path) == {"result"}
    assert (out / "note.txt").read_text() == "first"
    # Killed while the old result was being removed: nobody wants the rest of it.
    shutil.copytree(out, aside)
    (aside / "note.txt").unlink()
    shutil.rmtree(out)
    with pytest.raises(RuntimeError), run_folder(out, command="test"):
        raise RuntimeError
    assert names(tmp_path) == set()


def test_where_locks_are_unknown_nothing_is_taken_for_a_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with another_process(tmp_path, WRITES):
        pass
    (hidden,) = tmp_path.iterdir()
    monkeypatch.setattr("interpretkit.runs.files.fcntl", None)
    make_result(tmp_path / "result")
    make_result(tmp_path / "result")
    assert names(tmp_path) == {"result", hidden.name}


def test_a_run_whose_folder_is_taken_before_it_is_held_takes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    taken: list[Path] = []

    @contextmanager
    def too_late(folder: Path) -> Iterator[bool | None]:
        if not taken:
            taken.append(folder)
            folder.rmdir()
        with held(folder) as ours:
            yield ours

    monkeypatch.setattr("interpretkit.runs.folder.held", too_late)
    make_result(tmp_path / "result")
    assert len(taken) == 1
    assert names(tmp_path) == {"result"}


KEPT = (
    "with kept_until_done('result', ['same', 1]) as work:\n    (work / 'row').write_text('1')\n    wait()\n"
)


def test_unfinished_work_waits_to_be_resumed(tmp_path: Path):
    out = tmp_path / "result"
    with another_process(tmp_path, KEPT):
        with pytest.raises(InputError, match="at work on it"), kept_until_done(out, ["same", 1]):
            pass
        (work,) = tmp_path.iterdir()
    make_result(out)
    with pytest.raises(InputError), kept_until_done(out, ["other", 1]):
        raise InputError("refused")
    assert names(tmp_path) == {"result", work.name}
    with kept_until_done(out, ["same", 1]) as again:
        assert (again / "row").read_text() == "1"
    assert names(tmp_path) == {"result"}


def test_work_that_nobody_will_go_on_with_vanishes_with_the_next_result(tmp_path: Path):
    out = tmp_path / "result"
    with another_process(tmp_path, KEPT):
        pass
    with another_process(tmp_path, KEPT.replace("'same', 1", "'living', 1")):
        living = {path for path in tmp_path.iterdir() if (path / "row").is_file()}
        assert len(living) == 2
        with kept_until_done(out, ["other", 1]):
            pass
        # What a living process is at stays.
        assert len(list(tmp_path.iterdir())) == 1
    with kept_until_done(out, ["other", 1]):
        pass
    assert names(tmp_path) == set()


@pytest.mark.parametrize("changed", ["work", "content", "version", "source"])
def test_work_goes_on_only_where_nothing_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
):
    image, out = tmp_path / "image.png", tmp_path / "out" / "result"
    image.write_bytes(b"one image")

    def interrupted(work: object) -> list[str]:
        found: list[str] = []
        with suppress(KeyboardInterrupt), kept_until_done(out, work, [image]) as folder:
            found += names(folder)
            (folder / "row").write_text("1")
            raise KeyboardInterrupt
        return found

    assert interrupted({"seed": 1}) == []
    stamp = image.stat()
    image.write_bytes(b"one image")
    assert interrupted({"seed": 1}) == ["row"]
    if changed == "content":  # of the same size, at the same time
        image.write_bytes(b"1no image")
        os.utime(image, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    elif changed == "version":
        monkeypatch.setattr("interpretkit.runs.dependencies.versions", lambda: {"torch": "99"})
    elif changed == "source":
        monkeypatch.setattr("interpretkit.runs.dependencies._project", lambda: {"interpretkit": "changed"})
    assert interrupted({"seed": 2 if changed == "work" else 1}) == []


def test_interrupted_work_stays_only_if_it_can_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def end(error: BaseException, text: str) -> None:
        with kept_until_done(tmp_path / "result", "same") as work:
            (work / "row").write_text(text)
            raise error

    for error, text in ((KeyboardInterrupt(), ""), (InputError("bad image"), "1")):
        with pytest.raises(type(error)):
            end(error, text)
        assert names(tmp_path) == set()
    assert capsys.readouterr().err == ""
    with pytest.raises(KeyboardInterrupt):
        end(KeyboardInterrupt(), "1")
    (work,) = tmp_path.iterdir()
    assert capsys.readouterr().err == f"what is done is kept in {work}; the same command goes on from it\n"


def test_manifests_of_others_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no such folder"):
        load_manifest(tmp_path / "absent")
    with pytest.raises(InputError, match="has no manifest"):
        load_manifest(tmp_path)
    for content in ("{", "[]", '{"format": "other"}'):
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(InputError, match="manifest"):
            load_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "interpretkit-run", "format_version": 99}')
    with pytest.raises(InputError, match="version 99"):
        load_manifest(tmp_path)


def test_array_files_that_cannot_be_used_are_named(tmp_path: Path):
    path = tmp_path / "a.npz"
    with pytest.raises(InputError, match="no such file"):
        load_arrays(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        load_arrays(path)
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot be read"):
        load_arrays(path)
    # Written here to see that it is refused: numpy pickles the object, load_arrays must not unpickle it.
    np.savez(path, a=np.array([{"code": "runs"}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read"):
        load_arrays(path)
    np.savez_compressed(path, a=np.random.default_rng(0).random(1000))
    content = bytearray(path.read_bytes())
    content[200:400] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        load_arrays(path)


def test_a_resumable_table_goes_on_after_a_torn_line(tmp_path: Path):
    path = tmp_path / "shards" / "0.jsonl"
    with ResumableTable(path, key="site") as table:
        table.append({"site": "a", "e": np.float64(0.5)})
        table.append({"site": "b", "e": float("nan")})
        with pytest.raises(ValueError, match="already has"):
            table.append({"site": "a", "e": 1})
        with pytest.raises(KeyError):
            table.append({"e": 1})
    with path.open("ab") as file:
        file.write(b'{"site": "c", "e"')
    with ResumableTable(path, key="site") as table:
        assert len(table) == 2
        assert "c" not in table
        table.append({"site": "c", "e": 2})
        assert table.rows == [{"site": "a", "e": 0.5}, {"site": "b", "e": None}, {"site": "c", "e": 2}]
    assert len(path.read_bytes().splitlines()) == 3


def test_a_damaged_line_within_a_table_is_named(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1}\nrubbish\n{"id": 3}\n')
    with pytest.raises(InputError, match=r"rows\.jsonl: line 2 is not a row with 'id'"):
        ResumableTable(path)


def test_a_killed_writer_loses_no_finished_row(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    script = (
        "import sys, itertools\n"
        "from interpretkit.runs.folder import ResumableTable\n"
        "with ResumableTable(sys.argv[1]) as table:\n"
        "    for i in itertools.count():\n"
        "        table.append({'id': i})\n"
        "        print(i, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while process.stdout.readline() != "20\n":
        time.sleep(0.001)
    process.kill()
    process.communicate()
    with ResumableTable(path) as table:
        assert len(table) > 20
        assert [row["id"] for row in table.rows] == list(range(len(table)))


def test_the_hash_of_a_folder_follows_names_and_contents(tmp_path: Path):
    from interpretkit.runs.files import sha256

    folder = tmp_path / "slabs"
    folder.mkdir()
    (folder / "b").write_text("2")
    (folder / "a").write_text("1")
    first = sha256(folder)
    os.utime(folder / "a", (0, 0))
    assert sha256(folder) == first
    (folder / "a").rename(folder / "c")
    assert sha256(folder) != first
