"""Array files of others: refused by their headers, before a byte is unpacked."""

from __future__ import annotations

import io
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from interpretkit.errors import InputError
from interpretkit.runs import arrays
from interpretkit.runs.folder import load_arrays


def header(shape: tuple[int, ...], descr: str = "<f8") -> bytes:
    """Return the beginning of a .npy file that promises this."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


def bomb(path: Path, size: int) -> None:
    """Write an archive whose one array is `size` zeros of 8 bytes."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("codes.npy", "w", force_zip64=True) as member,
    ):
        member.write(header((size,)))
        zeros = bytes(2**23)
        for _ in range(size * 8 // len(zeros)):
            member.write(zeros)


def refused(path: Path, match: str) -> None:
    """See that a file is refused quickly, in one line, without memory."""
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(InputError, match=match) as raised:
        load_arrays(path)
    seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "\n" not in str(raised.value)
    assert path.name in str(raised.value)
    assert seconds < 0.5
    assert peak < 3e6


def test_what_unpacks_to_too_much_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.npz"
    bomb(path, 2**25)
    assert path.stat().st_size < 2**28 / 500
    monkeypatch.setattr(arrays, "USUAL_MOST_BYTES", 2**27)
    refused(path, r"would take 268 MB in memory \('codes' has shape \(33554432,\)\); expected at most 134 MB")
    # What is not asked for does not count.
    with zipfile.ZipFile(path, "a") as archive, archive.open("small.npy", "w") as member:
        member.write(header((1,)) + bytes(8))
    np.testing.assert_array_equal(load_arrays(path, ["small", "absent"])["small"], [0.0])
    monkeypatch.setenv(arrays.LIMIT_VARIABLE, "0.3")
    assert load_arrays(path)["codes"].shape == (2**25,)
    monkeypatch.setenv(arrays.LIMIT_VARIABLE, "plenty")
    with pytest.raises(InputError, match="expected a number of gigabytes above 0"):
        load_arrays(path)


def test_little_memory_lowers_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", codes=np.zeros(1000))
    monkeypatch.setattr(arrays, "spare_memory", lambda: 10_000)
    refused(tmp_path / "a.npz", "would take 8000 bytes in memory")
    monkeypatch.setattr(arrays, "spare_memory", lambda: None)
    assert arrays.allowed_bytes() == arrays.USUAL_MOST_BYTES


def test_memory_can_be_told_here() -> None:
    spare = arrays.spare_memory()
    assert spare is None or 0 <= spare < 2**46


@pytest.mark.parametrize(
    ("shape", "descr"),
    [((2_500_000_000_000,), "<f8"), ((2**40, 2**40), "<f8"), ((10**30,), "|u1"), ((4,), "<U2147483647")],
)
def test_a_header_may_promise_anything(tmp_path: Path, shape: tuple[int, ...], descr: str) -> None:
    path = tmp_path / "promise.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("codes.npy", header(shape, descr) + bytes(800))
    refused(path, "damaged|cannot be read")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.npy", header((2,)) + bytes(16), r"holds a single array \(\.npy\); expected an \.npz file"),
        ("a.csv", b"code,factor\n1,2\n", "is no .npz file"),
        ("a.npz", b"", "the file is empty"),
        ("a.npz", b"PK\x03\x04 cut short", "cannot be read"),
        ("a.npz", b"\x80\x04\x95pickle", "is no .npz file"),
    ],
)
def test_files_of_other_kinds_get_one_line(tmp_path: Path, name: str, content: bytes, match: str) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, match)


def test_archives_of_other_things_get_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<a/>")
    refused(path, "holds 'word/document.xml', which is no array")
    with pytest.raises(InputError, match="is a folder"):
        load_arrays(tmp_path)


def test_arrays_of_all_plain_kinds_come_back(tmp_path: Path) -> None:
    kinds = {
        "empty": np.zeros((0, 3)),
        "number": np.array(1.5),
        "text": np.array(["a", "ä"]),
        "by column": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big-endian": np.arange(3, dtype=">i4"),
        "fields": np.zeros(2, dtype=[("a", "f4"), ("ä", "i8")]),
    }
    np.savez_compressed(tmp_path / "a.npz", **kinds)  # type: ignore[arg-type]
    found = load_arrays(tmp_path / "a.npz")
    assert list(found) == list(kinds)
    for name, array in kinds.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
