import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from interpretkit.bench import benchmarks
from interpretkit.bench.benchmarks import GivenData, check_kinds, choose, find_benchmarks, find_folder
from interpretkit.bench.results import _number, read_results, results_page
from interpretkit.bench.running import bench
from interpretkit.cli import main
from interpretkit.commandline import kinds_and_paths
from interpretkit.commands.bench import names_and_data
from interpretkit.errors import InputError

ALPHA = '''"""Alpha: how a planted number comes out.

More about it.
"""
from __future__ import annotations

from dataclasses import dataclass

from interpretkit.bench.evidence import Row


@dataclass
class Holder:
    seed: int


def run(quick=True, data=None, seed=0, device="cpu"):
    """Take ``hea-oh``: a folder."""
    given = "hea-oh" in data if data else False
    return [
        Row(system="*OH | site", data="published" if given else "drawn", name="error", value=0.25, unit="eV",
            interval=(0.125, 0.5), baseline=1.5, reference=0.5, source="An article, table 2",
            seed=Holder(seed).seed, stand_in=not given, notes="" if given else "drawn in place of measured"),
        Row(system="count", data="drawn", name="sites", value=123456.0, seed=seed),
        Row(system=device, data="drawn", name="undefined here", value=float("nan"), seed=seed),
    ]
'''
BETA = '''"""Beta: one more."""
from interpretkit.bench.evidence import Row


def run(quick=True, data=None):
    return [Row(system="beta", data="none", name="mode", value=1.0 if quick else 2.0)]
'''
KEEPING = '''"""Keeping: what it has measured is there when it is called again."""
from interpretkit.bench.evidence import Row


def run(quick=True, data=None, cache=None):
    cache.mkdir(parents=True, exist_ok=True)
    kept = cache / "kept"
    if not kept.exists():
        kept.touch()
        raise ValueError("killed")
    return [Row(system="keeping", data="none", name="mode", value=1.0)]
'''
BROKEN = '''"""Broken: always fails."""


def run(quick=True, data=None):
    raise OSError("cannot read /somewhere/private")
'''


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with two benchmarks, and files beside them that are none; it is the current folder."""
    root = tmp_path / "checkout"
    (root / "benchmarks").mkdir(parents=True)
    (root / "pyproject.toml").write_text('[project]\nname = "interpretkit"\n')
    for name, text in (
        ("alpha", ALPHA),
        ("beta", BETA),
        ("helper", '"""No benchmark."""\nran = True\n'),
        ("_hidden", BETA),
    ):
        write(root, name, text)
    monkeypatch.chdir(root)
    return root


def write(root: Path, name: str, text: str) -> None:
    (root / "benchmarks" / f"{name}.py").write_text(text, encoding="utf-8")


def results(root: Path) -> dict:
    return read_results(root / "docs")


def rewrite(root: Path, **entries: dict) -> None:
    path = root / "docs" / "results.json"
    content = json.loads(path.read_text())
    for name, changes in entries.items():
        content["benchmarks"][name].update(changes)
    path.write_text(json.dumps(content))


# ------------------------------------------------------------------------------------ finding benchmarks


def test_benchmarks_are_found_without_being_imported(checkout: Path):
    write(checkout, "loud", '"""Loud."""\nraise RuntimeError("imported")\ndef run(quick=True): ...\n')
    write(checkout, "wrong", "def run(:\n")
    found = find_benchmarks(find_folder())
    assert [benchmark.name for benchmark in found] == ["alpha", "beta", "loud", "wrong"]
    assert found[0].title == "Alpha: how a planted number comes out."


def test_folder_is_found_from_inside_the_checkout_and_from_elsewhere(checkout: Path, tmp_path: Path):
    assert find_folder(checkout / "benchmarks") == checkout / "benchmarks"
    # Another project's benchmarks are never run: the one that is installed serves instead.
    other = tmp_path / "other"
    (other / "benchmarks").mkdir(parents=True)
    (other / "pyproject.toml").write_text('[project]\nname = "other"\n')
    assert find_folder(other) == Path(benchmarks.__file__).parents[2] / "benchmarks"


def test_absent_folder_is_said_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        benchmarks, "__file__", str(tmp_path / "site-packages" / "interpretkit" / "bench" / "benchmarks.py")
    )
    with pytest.raises(InputError, match="in a checkout of interpretkit"):
        find_folder(tmp_path)


def test_selection_keeps_order_and_lists_what_there_is(checkout: Path):
    found = find_benchmarks(find_folder())
    assert [b.name for b in choose(found, ["beta", "alpha", "beta"])] == ["beta", "alpha"]
    assert choose(found, []) == found
    with pytest.raises(InputError, match=r"gamma: no such benchmark; expected one of alpha, beta$"):
        choose(found, ["gamma"])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["hea-oh"], "expected KIND=PATH"),
        (["=benchmarks"], "expected KIND=PATH"),
        (["hea-oh="], "expected KIND=PATH"),
        (["hea-oh=absent"], "no such file or folder"),
        (["hea-oh=benchmarks", "hea-oh=."], "given twice"),
    ],
)
def test_bad_data_options_are_refused(checkout: Path, options: list[str], complaint: str):
    with pytest.raises(InputError, match=complaint):
        kinds_and_paths(options, (), "data")


# A name in the code is not the name of a kind, and neither is a word of its prose.
@pytest.mark.parametrize("kind", ["hea", "given", "folder"])
def test_data_that_no_benchmark_takes_are_refused(checkout: Path, kind: str):
    with pytest.raises(InputError, match="no benchmark takes"):
        check_kinds([kind], find_benchmarks(find_folder()))
    check_kinds(["hea-oh"], find_benchmarks(find_folder()))


def test_given_data_know_what_was_used(tmp_path: Path):
    data = GivenData({"a": tmp_path, "b": tmp_path, "c": tmp_path})
    assert "a" in data
    assert data.get("b") == tmp_path
    assert "d" not in data
    assert data.used == {"a", "b"}


# ------------------------------------------------------------------------------------------ whole benches


def test_rows_are_kept_with_what_made_them(checkout: Path):
    result = bench(
        quick=True,
        data={"hea-oh": Path("benchmarks")},
        seed=3,
        device="cuda",
        quiet=True,
        out=checkout / "docs",
    )
    assert (result["ran"], result["failed"], result["n_rows"]) == (["alpha", "beta"], [], 4)
    kept = results(checkout)
    alpha, beta = kept["alpha"], kept["beta"]
    assert (alpha["mode"], alpha["seed"], alpha["device"], alpha["data"]) == ("quick", 3, "cuda", ["hea-oh"])
    assert (beta["seed"], beta["device"], beta["data"]) == (None, None, [])
    assert alpha["rows"][0]["data"] == "published"
    assert alpha["rows"][0]["ratio"] == 0.5
    assert alpha["rows"][2]["system"] == "cuda"
    assert str(checkout) not in (checkout / "docs" / "results.json").read_text()
    assert sorted(p.name for p in (checkout / "docs").iterdir()) == ["results.json", "results.md"]
    assert "benchmarks.alpha" not in sys.modules


def test_data_may_follow_one_another_and_what_nobody_takes_is_said(
    checkout: Path, capsys: pytest.CaptureFixture[str]
):
    write(checkout, "gamma", BETA.replace('"beta"', 'str("cub" in data)'))
    (checkout / "docs").mkdir()
    names, data = names_and_data(["alpha", "cub=docs", "gamma"], ["hea-oh=benchmarks"])
    bench(names, data=data, out=checkout / "docs")
    kept = results(checkout)
    assert list(kept) == ["alpha", "gamma"]
    assert (kept["alpha"]["data"], kept["gamma"]["data"]) == (["hea-oh"], ["cub"])
    assert "no benchmark" not in capsys.readouterr().err
    bench(["beta", "gamma"], data={"hea-oh": Path("benchmarks"), "cub": Path("docs")}, out=checkout / "docs")
    assert "data that no benchmark of this call has taken: hea-oh\n" in capsys.readouterr().err


def test_rerun_of_one_keeps_the_rows_of_the_others(checkout: Path):
    bench(quick=True, quiet=True, out=checkout / "docs")
    before = results(checkout)
    bench(["beta"], quiet=True, out=checkout / "docs")
    after = results(checkout)
    assert after["alpha"] == before["alpha"]
    assert (after["beta"]["mode"], after["beta"]["rows"][0]["value"]) == ("full", 2.0)


def test_benchmark_that_fails_stops_no_other(checkout: Path, capsys: pytest.CaptureFixture[str]):
    write(checkout, "alpha_broken", BROKEN)
    write(checkout, "alpha_wrong", "def run(:\n")
    write(checkout, "alpha_rowless", "def run(quick=True, data=None):\n    return [{}]\n")
    result = bench(quiet=True, out=checkout / "docs")
    assert result["failed"] == ["alpha_broken", "alpha_rowless", "alpha_wrong"]
    assert result["ran"] == ["alpha", "beta"]
    assert list(results(checkout)) == ["alpha", "beta"]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "benchmark alpha_broken failed: OSError: cannot read /somewhere/private"
    assert len(lines) == 3


def test_a_long_benchmark_goes_on_from_what_it_has_kept(checkout: Path):
    write(checkout, "keeping", KEEPING)
    assert bench(["keeping"], out=checkout / "docs", quiet=True)["failed"] == ["keeping"]
    assert len(list((checkout / "docs").glob(".keeping-*/kept"))) == 1
    assert bench(["keeping"], out=checkout / "docs", quiet=True)["ran"] == ["keeping"]
    assert not list((checkout / "docs").glob(".keeping-*"))


def test_earlier_rows_of_a_benchmark_that_fails_are_marked(checkout: Path):
    bench(quiet=True, out=checkout / "docs")
    rows = results(checkout)["beta"]["rows"]
    write(checkout, "beta", BROKEN)
    bench(["beta"], quiet=True, out=checkout / "docs")
    entry = results(checkout)["beta"]
    assert entry["rows"] == rows
    text = (checkout / "docs" / "results.md").read_text(encoding="utf-8")
    assert "it failed (OSError); the rows are older" in text
    assert "private" not in text
    write(checkout, "beta", BETA)
    bench(["beta"], quiet=True, out=checkout / "docs")
    assert "failed" not in (checkout / "docs" / "results.md").read_text(encoding="utf-8")


def interrupted(root: Path, **options) -> None:
    """Run a bench that is interrupted in its second benchmark."""
    write(root, "beta", BETA.replace("    return", "    raise KeyboardInterrupt\n    return"))
    with pytest.raises(KeyboardInterrupt):
        bench(quiet=True, **options, out=root / "docs")
    write(root, "beta", BETA)


def test_interrupted_bench_goes_on(checkout: Path):
    interrupted(checkout, quick=True)
    assert list(results(checkout)) == ["alpha"]
    rewrite(checkout, alpha={"seconds": 77.0})
    result = bench(quick=True, quiet=True, out=checkout / "docs")
    assert (result["resumed"], result["ran"], result["n_rows"]) == (["alpha"], ["beta"], 4)
    assert results(checkout)["alpha"]["seconds"] == 77.0
    # Having ended, the same bench begins anew.
    assert bench(quick=True, quiet=True, out=checkout / "docs")["ran"] == ["alpha", "beta"]


@pytest.mark.parametrize("options", [{"quick": False}, {"seed": 1}, {"fresh": True}, {"names": ["alpha"]}])
def test_interrupted_bench_is_not_taken_for_another(checkout: Path, options: dict):
    interrupted(checkout, quick=True)
    assert bench(**{"quick": True, "quiet": True, **options}, out=checkout / "docs")["resumed"] == []


def test_file_changed_since_the_interruption_is_run_anew(checkout: Path):
    interrupted(checkout)
    write(checkout, "alpha", ALPHA.replace("0.25", "0.75"))
    assert bench(quiet=True, out=checkout / "docs")["ran"] == ["alpha", "beta"]
    assert results(checkout)["alpha"]["rows"][0]["value"] == 0.75


def test_rows_go_with_their_benchmark(checkout: Path, capsys: pytest.CaptureFixture[str]):
    bench(quiet=True, out=checkout / "docs")
    (checkout / "benchmarks" / "beta.py").unlink()
    bench(quiet=True, out=checkout / "docs")
    assert list(results(checkout)) == ["alpha"]
    assert "no longer there: beta" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text"), [("results.json", "{}"), ("results.json", "[1"), ("results.md", "# Mine\n")]
)
def test_files_of_others_are_left_alone(checkout: Path, name: str, text: str):
    out = checkout / "elsewhere"
    out.mkdir()
    (out / name).write_text(text)
    with pytest.raises(InputError, match="move it away"):
        bench(out=out, quiet=True)
    assert (out / name).read_text() == text


def test_out_that_is_a_file_is_refused(checkout: Path):
    with pytest.raises(InputError, match="out"):
        bench(out=checkout / "pyproject.toml", quiet=True)


# ------------------------------------------------------------------------------------------- the write-up


def test_page_shows_rows_stand_ins_and_sources(checkout: Path):
    bench(["alpha"], quick=True, seed=3, quiet=True, out=checkout / "docs")
    text = (checkout / "docs" / "results.md").read_text(encoding="utf-8")
    assert text == results_page(results(checkout))
    assert "`interpretkit bench alpha --quick --seed 3`" in text
    assert "data given: none; seed 3" in text
    assert "**Stand-ins: 1 of 3 rows, marked †.**" in text
    assert "**Data: drawn**" in text
    assert r"| \*OH \| site † | error, eV | 0.25 | 0.125 … 0.5 | 1.5 | 0.5 | 0.5 | [1] | (a) |" in text
    assert "- [1] An article, table 2" in text
    assert "- (a) drawn in place of measured" in text
    assert "| 123\u00a0456 |" in text
    assert "| undefined |" in text


def test_page_has_a_column_of_data_where_they_differ(checkout: Path):
    bench(["beta"], quiet=True, out=checkout / "docs")
    lines = (checkout / "docs" / "results.md").read_text(encoding="utf-8").splitlines()
    # A column that no row fills is left out.
    at = lines.index("| system | data | measured | value |")
    assert lines[at + 2] == "| beta | none | mode | 2 |"


def test_many_rows_on_the_same_data_have_a_table_of_their_own(checkout: Path):
    write(checkout, "alpha", ALPHA.replace('"published" if given else "drawn"', '"drawn"'))
    write(checkout, "beta", ALPHA)
    bench(quick=True, data={"hea-oh": Path("benchmarks")}, quiet=True, out=checkout / "docs")
    text = (checkout / "docs" / "results.md").read_text(encoding="utf-8")
    alpha, beta = text.split("\n## ")[1:]
    assert "**Data: drawn**" in alpha
    assert "| data |" not in alpha
    assert "**Data" not in beta
    assert r"| \*OH \| site | published | error, eV |" in beta


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0.0, "0"),
        (15000.0, "15\u00a0000"),
        (-1234567.8, "-1\u00a0234\u00a0568"),
        (0.123456, "0.1235"),
        (12.34567, "12.35"),
        (3.14159e-11, "3.1e-11"),
        (1.23456e12, "1.235e+12"),
        (math.inf, "undefined"),
    ],
)
def test_numbers_are_readable(value: float | None, text: str):
    assert _number(value) == text


# ---------------------------------------------------------------------------------------- the command line


def interpretkit(*arguments: str, cwd: Path, code: int) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", "from interpretkit.cli import main; main()", "bench", *arguments],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def test_command_prints_json_alone_and_ends_with_1_after_a_failure(checkout: Path):
    write(checkout, "broken", BROKEN)
    out, err = interpretkit("--quick", "--json", "--out", "evidence", cwd=checkout, code=1)
    result = json.loads(out)
    assert (result["ran"], result["failed"], result["n_rows"]) == (["alpha", "beta"], ["broken"], 4)
    assert result["out"] == "evidence"
    assert "benchmark broken failed: OSError" in err
    assert "Traceback" not in err
    assert (checkout / "evidence" / "results.md").is_file()


def test_command_lists(checkout: Path):
    before = sorted(path.name for path in checkout.iterdir())
    out, _ = interpretkit("--list", cwd=checkout, code=0)
    for words in ("alpha", "Alpha: how a planted number comes out.", "beta", "Beta: one more."):
        assert words in out
    assert sorted(path.name for path in checkout.iterdir()) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["gamma"],
        ["--data", "hea-oh"],
        ["--data", "hea-oh=absent"],
        ["--data", "hea-oh=docs", "hea-oh=benchmarks"],
        ["--data", "hea-oh=benchmarks", "cub=benchmarks"],
    ],
)
def test_command_refuses_in_one_line(checkout: Path, arguments: list[str]):
    out, err = interpretkit(*arguments, cwd=checkout, code=2)
    assert out == ""
    assert err.startswith("Error: ")
    assert err.count("\n") == 1


def test_docs_are_written_to_only_where_that_is_asked_for(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (checkout / "docs").mkdir()
    (checkout / "docs" / "results.md").write_text("as it was")
    # Within the checkout, and in a folder that is none.
    for place in (checkout, tmp_path / "elsewhere"):
        place.mkdir(exist_ok=True)
        monkeypatch.chdir(place)
        monkeypatch.setattr(
            benchmarks, "__file__", str(checkout / "interpretkit" / "bench" / "benchmarks.py")
        )
        with pytest.raises(SystemExit) as ended:
            main(["bench", "alpha", "--quick", "--quiet", "--out", str(tmp_path / f"rows-{place.name}")])
        assert ended.value.code == 0
        assert [path.name for path in (checkout / "docs").iterdir()] == ["results.md"]
        assert (checkout / "docs" / "results.md").read_text() == "as it was"
        assert sorted(read_results(tmp_path / f"rows-{place.name}")) == ["alpha"]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_core_of_the_bench_imports_no_front_end():
    code = "import sys, interpretkit.bench.benchmarks as b; b.list_benchmarks(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"catalysis", "cnn_interp", "torch", "numpy"} & set(loaded.split())
