import csv
import json

import numpy as np
import pytest

from interpretkit.cli import main
from interpretkit.disentanglement.table import METRICS, ORDER, score_table
from interpretkit.errors import InputError
from interpretkit.results import load_arrays, load_manifest

# Enough rows for every metric, few enough to be quick.
FAST = {
    "beta_vae": {"points": 200, "pairs": 8},
    "factor_vae": {"votes": 200, "batch": 8},
    "dci": {"trees": 2},
}


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    factors = np.column_stack([rng.integers(3, size=300), rng.integers(4, size=300), rng.uniform(size=300)])
    codes = np.column_stack([factors + 0.1 * rng.standard_normal((300, 3)), rng.standard_normal((300, 2))])
    return {"codes": codes, "factors": factors}


@pytest.fixture
def file(arrays, tmp_path):
    np.savez(tmp_path / "codes.npz", **arrays)
    return tmp_path / "codes.npz"


def scores(*arguments: object, code: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["scores", *map(str, arguments)])
    assert ended.value.code == code


def test_the_table_holds_every_metric(arrays):
    models = [arrays["codes"], arrays["codes"][:, ::-1]]
    table = score_table(**arrays, models=models, bootstrap=3, options=FAST)
    assert list(table) == list(ORDER)
    assert set(ORDER) == set(METRICS)
    rows = table.rows()
    parts = [f"{row['metric']} {row['part']}".strip() for row in rows]
    assert {"dci disentanglement", "dci completeness", "infomec infoe", "mig", "udr"} <= set(parts)
    assert all(np.isfinite(row["value"]) for row in rows)
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
    assert {row["better"] for row in rows if row["metric"] == "tc"} == {"lower"}
    assert table["dci"].details["learner"] == "extra trees, 2 trees"


def test_threads_do_not_change_the_table(arrays):
    some = ["mig", "sap", "dci", "infomec"]
    one = score_table(**arrays, metrics=some, threads=1, bootstrap=2, options={"dci": {"trees": 2}}).rows()
    two = score_table(**arrays, metrics=some, threads=3, bootstrap=2, options={"dci": {"trees": 2}}).rows()
    assert one == two


def test_bad_arguments_of_the_table(arrays):
    with pytest.raises(InputError, match="metric 'fid': expected one of beta_vae"):
        score_table(**arrays, metrics=["mig", "fid"])
    with pytest.raises(InputError, match="'udr': compares the codes of several models"):
        score_table(**arrays, metrics="udr")
    with pytest.raises(InputError, match="option 'trees' of metric 'mig'"):
        score_table(**arrays, options={"mig": {"trees": 1}})


def test_command_writes_table_figures_and_report(file, tmp_path, capsys):
    out = tmp_path / "out"
    scores(file, "--metrics", "mig,dci,tc", "--bootstrap", 3, "--seed", 2, "--out", out, "--json")
    printed = json.loads(capsys.readouterr().out)
    assert printed["n_rows"] == 300
    assert [factor["discrete"] for factor in printed["factors"]] == [True, True, False]
    assert [row["metric"] for row in printed["scores"]] == ["mig", "dci", "dci", "dci", "tc"]
    with (out / "scores.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert float(rows[0]["value"]) == printed["scores"][0]["value"]
    assert float(rows[0]["low"]) < float(rows[0]["value"]) < float(rows[0]["ceiling"])
    manifest = load_manifest(out)
    assert manifest["seed"] == 2
    assert manifest["summary"]["mig"] == printed["scores"][0]["value"]
    assert manifest["data"][0]["sha256"]
    matrices = load_arrays(out / "matrices.npz")
    assert matrices["mutual_information"].shape == (5, 3)
    assert matrices["importance"].shape == (5, 3)
    page = (out / "report.html").read_text()
    assert "data:image/png;base64" in page
    assert "dci completeness" in page
    assert {"mutual_information.png", "importance.png"} <= {path.name for path in out.iterdir()}


def test_command_prints_a_table_for_people(file, tmp_path, capsys):
    scores(file, "--metrics", "mig", "--bootstrap", 0, "--discrete", "0,1", "--out", tmp_path / "out")
    printed = capsys.readouterr().out
    assert "ceiling" in printed
    assert "mig" in printed


def test_udr_from_an_array_of_models(arrays, tmp_path, capsys):
    path = tmp_path / "models.npz"
    np.savez(path, **arrays, all=np.stack([arrays["codes"], -arrays["codes"]]), factor_names=["a", "b", "c"])
    scores(
        path, "--metrics", "udr", "--models-key", "all", "--bootstrap", 2, "--out", tmp_path / "out", "--json"
    )
    printed = json.loads(capsys.readouterr().out)
    assert printed["scores"][0]["value"] == pytest.approx(printed["scores"][0]["ceiling"], abs=1e-6)
    assert [factor["name"] for factor in printed["factors"]] == ["a", "b", "c"]


def _bad(tmp_path, arrays):
    """Files and options that must be refused, with what the line must say."""
    codes, factors = arrays["codes"], arrays["factors"]
    missing = codes.copy()
    missing[5, 1] = np.nan
    good = tmp_path / "good.npz"
    np.savez(good, **arrays)
    files = {
        "absent": None,
        "empty": b"",
        "corrupt": good.read_bytes()[:-200],
        "text": b"not an archive",
        "short": {"codes": codes, "factors": factors[:100]},
        "flat": {"codes": codes[:, 0], "factors": factors},
        "nan": {"codes": missing, "factors": factors},
        "constant": {"codes": codes, "factors": np.ones_like(factors)},
        "words": {"codes": codes, "factors": factors.astype(str)},
        "pickled": {"codes": np.array([{}] * 3), "factors": factors},
    }
    for name, content in files.items():
        if isinstance(content, bytes):
            (tmp_path / f"{name}.npz").write_bytes(content)
        elif content is not None:
            np.savez(tmp_path / f"{name}.npz", **content)
    yield from (
        (["absent.npz"], "no such file"),
        (["empty.npz"], "the file is empty"),
        (["corrupt.npz"], "cannot be read"),
        (["text.npz"], "cannot be read"),
        (["pickled.npz"], "cannot be read"),
        (["short.npz"], "'codes' has shape (300, 5) and 'factors' (100, 3)"),
        (["flat.npz"], "expected (n, d)"),
        (["nan.npz"], "nan in row 5, column 1"),
        (["constant.npz"], "in every row"),
        (["words.npz"], "expected numbers"),
        (["good.npz", "--codes-key", "z"], "no array 'z' (--codes-key); expected one of: codes, factors"),
        (["good.npz", "--metrics", "mig,fid"], "metric 'fid'"),
        (["good.npz", "--metrics", ","], "metrics: none"),
        (["good.npz", "--metrics", "udr"], "metric 'udr'"),
        (["good.npz", "--models-key", "codes"], "expected (models, 300, d)"),
        (["good.npz", "--discrete", "some"], "--discrete some"),
        (["good.npz", "--discrete", "7"], "from 0 to 2"),
        (["good.npz", "--bootstrap", "-1"], "--bootstrap"),
    )


def test_bad_input_is_one_line_and_exit_2(arrays, tmp_path, capsys):
    for (name, *options), message in _bad(tmp_path, arrays):
        scores(tmp_path / name, *options, "--out", tmp_path / "out", code=2)
        printed = capsys.readouterr()
        assert message in printed.err, (name, printed.err)
        assert printed.err.count("\n") == 1
        assert printed.out == ""
        assert not (tmp_path / "out").exists()
