import dataclasses
import enum
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from interpretkit.runs.files import atomic_path, dump_json, held, to_jsonable, write_table


class Colour(enum.StrEnum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: float
    where: Path


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (float("nan"), None),
        (np.float64("inf"), None),
        (np.array([[1.0, np.nan]]), [[1.0, None]]),
        (torch.tensor([1, 2]), [1, 2]),
        (torch.tensor(0.5, requires_grad=True), 0.5),
        (Path("a/b"), "a/b"),
        (Colour.RED, "red"),
        ({Colour.RED: (1, 2), 3: {"b", "a"}}, {"red": [1, 2], "3": ["a", "b"]}),
        (Point(1.0, Path("p")), {"x": 1.0, "where": "p"}),
        (None, None),
    ],
)
def test_everything_becomes_plain_json(value, expected):
    plain = to_jsonable(value)
    assert plain == expected
    assert json.loads(dump_json(value)) == expected
    assert type(plain) in (dict, list, str, int, float, bool, type(None))


def test_json_is_one_line_whatever_the_text_holds():
    assert "\n" not in dump_json({"text": "two\nlines", "separator": "\u2028"})


def test_an_atomic_path_leaves_the_old_file_when_writing_fails(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail():
        with atomic_path(path) as hidden:
            hidden.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    with atomic_path(path) as hidden:
        hidden.write_text("new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_table_columns_of_different_length_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="differ in length"):
        write_table(tmp_path / "t.csv", {"a": [1, 2], "b": [1]})
    assert not list(tmp_path.iterdir())


def test_table_keeps_full_precision(tmp_path: Path):
    write_table(tmp_path / "t.csv", [{"e": 0.1 + 0.2, "ok": True, "pair": ["Ir", "Pd"]}])
    assert (tmp_path / "t.csv").read_text().splitlines()[1] == '0.30000000000000004,True,"[""Ir"", ""Pd""]"'


def test_a_folder_is_held_by_one_until_the_block_ends(tmp_path: Path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with held(folder) as first:
        assert first is True
        with held(folder) as second:
            assert second is False
        folder.rename(tmp_path / "renamed")
        with held(tmp_path / "renamed") as third, held(folder) as gone:
            assert third is False
            assert gone is None
    with held(tmp_path / "renamed") as fourth:
        assert fourth is True
