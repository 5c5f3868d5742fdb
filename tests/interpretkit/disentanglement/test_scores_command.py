import csv
import json
import subprocess
import sys

import numpy as np
import pytest

from interpretkit.cli import main
from interpretkit.disentanglement.table import COMPARE_FACTORS, METRICS, ORDER, score_table
from interpretkit.errors import InputError
from interpretkit.runs.folder import load_arrays, load_manifest

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
    assert "data:image/webp;base64" in page
    assert "DCI completeness" in page
    assert {"mutual_information.png", "importance.png"} <= {path.name for path in out.iterdir()}


def test_command_prints_a_table_for_people(file, tmp_path, capsys):
    scores(file, "--metrics", "mig", "--bootstrap", 0, "--discrete", "0,1", "--out", tmp_path / "out")
    printed = capsys.readouterr().out
    assert "ceiling" in printed
    assert "MIG" in printed


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
        "models": {"codes": codes, "factors": factors, "m": np.stack([codes, codes])},
        "huge": {"codes": codes * 1e300, "factors": factors},
        "rounded": {"codes": codes + 1e16, "factors": factors},
        "names": {"codes": codes, "factors": factors, "factor_names": np.array(["a", "b"])},
        "pickled": {"codes": np.full(codes.shape, None), "factors": factors},
    }
    for name, content in files.items():
        if isinstance(content, bytes):
            (tmp_path / f"{name}.npz").write_bytes(content)
        elif content is not None:
            np.savez(tmp_path / f"{name}.npz", **content)
    np.savetxt(tmp_path / "table.csv", codes, delimiter=",")
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
        (["good.npz", "--metrics", "mig,fid"], "--metrics 'fid': expected one of"),
        (["good.npz", "--metrics", ","], "names none"),
        (["good.npz", "--metrics", "udr"], "--metrics udr: needs the codes of several models"),
        (["good.npz", "--models-key", "codes"], "expected (m, n, d)"),
        (["good.npz", "--discrete", "some"], "--discrete some"),
        (["good.npz", "--discrete", "7"], "from 0 to 2"),
        (["good.npz", "--bootstrap", "-1"], "--bootstrap"),
        (["good.npz", "--bootstrap", "1"], "resamples 1: expected 0, or at least 2"),
        (["good.npz", "--binning", "odd"], "--binning odd: expected equal-width, or equal-mass"),
        (["good.npz", "--bins", "1"], "--bins 1: expected at least 2"),
        (["good.npz", "--metrics", "tc", "--bins", "9"], "--bins: none of the metrics tc uses it"),
        (["good.npz", "--metrics", "tc", "--binning", "quantile"], "--binning: none of the metrics"),
        (["good.npz", "--metrics", "mig", "--reference"], "--reference: is of use to dci only"),
        (["models.npz", "--metrics", "mig", "--models-key", "m"], "--models-key: none of the metrics"),
        (
            ["good.npz", "--metrics", "sap", "--discrete-codes", "all"],
            "--discrete-codes: none of the metrics",
        ),
        (["good.npz", "--discrete", "some"], "--discrete some"),
        (["good.npz", "--discrete-codes", "9"], "--discrete-codes 9: expected numbers of codes from 0 to 4"),
        (["good.npz", "--discrete-codes", "3"], "column 3 is said to be discrete and has 300 values"),
        (["huge.npz"], "numbers of at most 1e+150"),
        (["rounded.npz"], "its values were rounded away"),
        (["table.csv"], "table.csv"),
        (["names.npz"], "'factor_names' has shape (2,); expected (3,)"),
    )


def test_bad_input_is_one_line_and_exit_2(arrays, tmp_path, capsys):
    for (name, *options), message in _bad(tmp_path, arrays):
        scores(tmp_path / name, *options, "--out", tmp_path / "out", code=2)
        printed = capsys.readouterr()
        assert message in printed.err, (name, printed.err)
        assert printed.err.count("\n") == 1
        assert printed.out == ""
        assert not (tmp_path / "out").exists()


def test_what_to_mind_is_told_in_table_report_and_terminal(arrays, tmp_path, capsys):
    arrays["codes"][:2, 0] = 1000.0
    np.savez(tmp_path / "a $(b).npz", **arrays)
    out = tmp_path / "out"
    scores(tmp_path / "a $(b).npz", "--metrics", "mig,med", "--bootstrap", 0, "--out", out)
    printed = " ".join(capsys.readouterr().out.split())
    assert "WARNING code 0: 95 % of the rows fall into" in printed
    page = (out / "report.html").read_text()
    assert page.index("code 0: 95 %") < page.index("<section>")
    assert "code 0: 95 %" in page
    with (out / "scores.csv").open() as table:
        assert all("code 0: 95 %" in row["warnings"] for row in csv.DictReader(table))
    # Commands that the report offers to copy are quoted.
    assert "a $(b).npz&#x27;" in page or "a $(b).npz'" in page or "a $(b).npz&#39;" in page

    scores(
        tmp_path / "a $(b).npz",
        "--metrics",
        "mig",
        "--bins",
        10,
        "--binning",
        "quantile",
        "--out",
        out,
        "--json",
    )
    result = json.loads(capsys.readouterr().out)
    assert result["scores"][0]["method"] == "10 bins of equal mass"
    assert not any("bins" in line for line in result["warnings"])


def test_discrete_codes_of_the_command(tmp_path, capsys):
    rng = np.random.default_rng(0)
    factors = rng.integers(6, size=(500, 2))
    np.savez(tmp_path / "codes.npz", codes=rng.permutation(6)[factors], factors=factors)
    for said, least in (("all", 0.99), ("0,1", 0.99)):
        options = ["--metrics", "mig,sap", "--bootstrap", 0, "--out", tmp_path / "out", "--json"]
        scores(tmp_path / "codes.npz", "--discrete-codes", said, *options)
        assert json.loads(capsys.readouterr().out)["scores"][0]["value"] > least * 0.97


def test_errors_need_neither_torch_nor_scikit_learn(tmp_path):
    code = (
        "import sys\nfrom interpretkit.cli import main\n"
        f"try: main(['scores', {str(tmp_path / 'absent.npz')!r}])\n"
        "except SystemExit as ended: assert ended.code == 2\n"
        "assert not {'torch', 'sklearn', 'matplotlib'} & set(sys.modules), 'loaded'\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_of_a_single_factor_what_compares_factors_is_left_out_unless_it_was_asked_for(
    arrays, tmp_path, capsys
):
    one = tmp_path / "one.npz"
    np.savez(one, codes=arrays["codes"], factors=arrays["factors"][:, :1])
    scores(one, "--bootstrap", 0, "--out", tmp_path / "out", "--json")
    found = {row["metric"] for row in json.loads(capsys.readouterr().out)["scores"]}
    assert found == set(ORDER) - COMPARE_FACTORS - {"udr"}
    assert "Left out" in (tmp_path / "out" / "report.html").read_text()
    for metric in COMPARE_FACTORS:
        with pytest.raises(InputError, match="a single one"):
            METRICS[metric](arrays["codes"], arrays["factors"][:, :1])
