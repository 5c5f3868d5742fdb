"""Numbers as people have them: right, or refused in one line; and what is worth a warning."""

import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mutual_info_score

from interpretkit.disentanglement import (
    beta_vae,
    dci,
    explicitness,
    factor_vae,
    infomec,
    irs,
    med,
    mig,
    modularity,
    sap,
    tc,
    udr,
)
from interpretkit.disentanglement.inputs import check_codes, check_factors
from interpretkit.disentanglement.table import score_table
from interpretkit.errors import InputError

# The tests are imported by path, so that the shared case must be found by hand.
sys.path.insert(0, str(Path(__file__).parent))
from metric_cases import planted

CODES, FACTORS = planted(300)


def refused(
    message: str, codes: Any = CODES, factors: Any = FACTORS, score: Callable[..., Any] = mig, **options: Any
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        score(codes, factors, **options)
    assert "\n" not in str(caught.value)


def test_masked_values_are_refused_and_a_mask_without_any_is_not():
    masked = np.ma.array(CODES, mask=np.zeros(CODES.shape, bool))
    assert mig(masked, np.ma.array(FACTORS)).value == mig(CODES, FACTORS).value
    masked[4, 2] = np.ma.masked
    refused("codes: 1 masked values, the first in row 4, column 2", masked)
    refused(
        "factors: 1 masked values", factors=np.ma.masked_where(np.arange(900).reshape(300, 3) == 5, FACTORS)
    )
    refused("masked", codes=list(masked))


def test_tables_of_pandas():
    frame = pd.DataFrame(FACTORS, columns=["a", "b", "c"]).astype({"a": "int8", "b": "float32"})
    assert mig(pd.DataFrame(CODES), frame).value == mig(CODES, FACTORS).value
    assert mig(CODES, frame.astype("Int64")).value == mig(CODES, FACTORS).value
    assert mig(CODES, frame.astype({"a": "category"})).value == mig(CODES, FACTORS).value
    missing = frame.astype("Int64")
    missing.iloc[3, 1] = pd.NA
    refused("factors: (nan|<NA>) in row 3, column 1; expected", factors=missing)
    refused("expected numbers", factors=frame.assign(b="word"))
    refused(r"shape \(300,\)", factors=frame["a"])
    refused("seconds", factors=frame.assign(b=pd.Timestamp("2026-01-01")))


def test_whole_numbers_beyond_the_precision_of_floats_are_kept_apart():
    for offset in (2**53, 2**62, -(2**62), 2**63 - 10):
        big = FACTORS.astype(np.int64) + offset
        assert [levels.max() + 1 for levels in check_factors(big).levels if levels is not None] == [4, 5, 6]
        assert sap(CODES, big).value == sap(CODES, FACTORS).value
    unsigned = FACTORS.astype(np.uint64) + np.uint64(2**64 - 10)
    assert mig(CODES, unsigned).value == mig(CODES, FACTORS).value
    beside = pd.DataFrame({"id": FACTORS[:, 0] + 2**60, "x": CODES[:, 2], "c": FACTORS[:, 2]})
    assert check_factors(beside).discrete.tolist() == [True, False, True]
    listed = [[int(value) + 2**60, 0.5 * other] for value, other in FACTORS[:, :2]]
    assert check_factors(np.array(listed, dtype=object)).discrete.tolist() == [True, True]
    assert [int(levels.max()) for levels in check_factors(listed).levels if levels is not None] == [3, 4]
    # The whole range of 64 bits at once.
    ends = np.where(FACTORS > 1, np.iinfo(np.int64).max, np.iinfo(np.int64).min)
    assert mig(CODES, ends).value == mig(CODES, FACTORS > 1).value
    # Codes of such numbers, and of differences that no signed number holds.
    codes = (1e17 * CODES).astype(np.int64)
    assert mig(codes + 2**62, FACTORS).value == pytest.approx(mig(CODES, FACTORS).value, abs=1e-9)
    refused("64 bits", factors=[[int(value) * 2**70 for value in row] for row in FACTORS])


def test_levels_that_differ_by_rounding_are_one():
    summed = np.array([0.1 + 0.2, 0.3, 0.7])[FACTORS % 3]
    assert check_factors(summed).levels[0].max() == 1  # type: ignore[union-attr]


def test_what_is_said_of_factors_is_true_or_false():
    two = FACTORS[:, :2]
    for said in ([0, 1], (1, 0), np.array([0, 1]), ["True", "False"]):
        refused("discrete: holds .*; expected True or False", factors=two, discrete=said)
    refused("discrete 'none': expected True or False", factors=two, discrete="none")
    refused("discrete 1: expected True or False", factors=two, discrete=1)
    as_array: Any = np.array([True, False])
    found = sap(CODES, two, discrete=as_array).details["discrete"]
    assert found.tolist() == [True, False]
    assert sap(CODES, two, discrete=[None, False]).details["discrete"].tolist() == [True, False]
    refused("discrete_codes: holds 0", discrete_codes=[0, 1, 0, 0, 0, 0])


def test_other_objects():
    assert mig(CODES, FACTORS > 1).value > 0
    assert mig(CODES, FACTORS.astype(object)).value == mig(CODES, FACTORS).value
    decimals = np.array([[Decimal(int(value)) for value in row] for row in FACTORS])
    assert mig(CODES, decimals).value == mig(CODES, FACTORS).value
    refused("expected numbers; np.unique", factors=FACTORS.astype(str))
    refused("None in row 0, column 0; expected numbers", factors=np.full(FACTORS.shape, None))
    refused("expected numbers that are real", codes=CODES.astype(complex))
    refused("rows of different lengths", codes=[[1.0, 2.0]] * 20 + [[1.0]])
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(CODES, requires_grad=True)
    assert mig(tensor, torch.tensor(FACTORS)).value == mig(CODES, FACTORS).value
    assert mig(tensor.bfloat16(), FACTORS).value > 0.5


@pytest.mark.parametrize("score", [mig, sap, dci, beta_vae, factor_vae, irs, infomec, explicitness, tc, udr])
def test_values_that_overflow_or_are_rounded_away_are_refused(score):
    arguments = (lambda codes: ([codes, codes],)) if score is udr else (lambda codes: (codes, FACTORS))
    for bad, message in {
        1e300: "at most 1e.150",
        np.inf: "expected finite",
        np.nan: "expected finite",
    }.items():
        codes = CODES.copy()
        codes[7, 2] = bad
        with pytest.raises(
            InputError, match=f"in row 7, column 2; .*{message}|in row 7, column 2; {message}"
        ):
            score(*arguments(codes))
    for offset, kind in ((1e16, np.float64), (3e7, np.float32)):
        with pytest.raises(InputError, match=r"its values were rounded away; subtract an offset"):
            score(*arguments((CODES + offset).astype(kind)))


def test_what_rounding_leaves_is_said():
    one = CODES.copy()
    one[:, 3] += 1e16
    score = mig(one, FACTORS)
    assert "codes: column 3 varies by" in score.warnings[0]
    assert "taken for constant" in score.warnings[0]
    assert (score.details["mutual_information"][3] == 0).all()
    factors = np.column_stack([FACTORS[:, 0], CODES[:, 2] + 1e16])
    refused("factors: column 1 varies by", factors=factors)
    assert "none of the 6 codes varies" in mig(0 * CODES + 1e17, FACTORS).warnings[0]
    coarse = mig((CODES + 1e6).astype(np.float32), FACTORS)
    assert "is stored in steps of" in coarse.warnings[0]
    assert not mig((CODES + 1e3).astype(np.float32), FACTORS).warnings


def test_classes_that_are_read_as_continuous_are_told():
    rng = np.random.default_rng(0)
    classes = rng.integers(150, size=(600, 1))
    factors = np.hstack([classes, rng.integers(3, size=(600, 1))])
    codes = rng.standard_normal((600, 4))
    line = next(line for line in mig(codes, factors).warnings if "whole numbers" in line)
    assert "column 0 holds 1" in line
    assert "read as continuous" in line
    for discrete in ([True, None], False):
        assert not any("whole numbers" in line for line in mig(codes, factors, discrete=discrete).warnings)


def outlying(share: float = 0.001) -> tuple[np.ndarray, np.ndarray]:
    codes, factors = planted(3000)
    codes[: int(share * 3000), 2] = 100.0
    return codes, factors


def test_outliers_that_empty_the_bins_are_told():
    codes, factors = outlying()
    wide, even = mig(codes, factors), mig(codes, factors, binning="quantile")
    assert even.value > wide.value + 0.2
    assert any(line.startswith("code 2: 95 % of the rows fall into") for line in wide.warnings)
    assert not any("code 2" in line for line in even.warnings)
    for score in (med, modularity):
        assert any("code 2" in line for line in score(codes, factors).warnings)
    others: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (sap, {}),
        (irs, {}),
        (beta_vae, {"points": 100}),
        (infomec, {}),
        (tc, {}),
    ]
    for score, options in others:
        assert any(line.startswith("code 2: 95 %") for line in score(codes, factors, **options).warnings)
    clean = planted(3000)
    assert dci(codes, factors, trees=3).value == pytest.approx(dci(*clean, trees=3).value, abs=0.02)
    for score in (mig, sap, irs, tc):
        assert not any("95 %" in line for line in score(*clean).warnings)


def test_outliers_of_continuous_factors_are_told():
    rng = np.random.default_rng(0)
    factors = rng.uniform(size=(1000, 2))
    factors[:3, 1] = 1000.0
    codes = np.column_stack([factors, rng.standard_normal(1000)])
    for score in (mig, irs, beta_vae, factor_vae, infomec, sap, dci):
        assert any(line.startswith("factor 1: 95 %") for line in score(codes, factors).warnings), score
    assert not any("factor 1" in line for line in irs(codes, factors, binning="equal mass").warnings)


def test_outliers_of_codes_of_few_values_are_told():
    codes = np.random.default_rng(0).integers(5, size=(500, 2)).astype(float)
    factors = codes.astype(int)
    codes[:2, 0] = 1000.0
    for score in (mig, sap, irs):
        assert any(line.startswith("code 0: 95 %") for line in score(codes, factors).warnings), score


def test_codes_of_few_values_and_of_clusters_are_no_outliers():
    codes, factors = planted(3000, blur=0.001)
    codes[:, 1] = np.arange(3000) < 10
    assert not any("95 %" in line for line in mig(codes, factors).warnings)
    assert not any("95 %" in line for line in irs(codes, factors).warnings)


def test_few_rows_are_told():
    codes, factors = planted(60)
    assert any("60 rows are few" in line for line in mig(codes, factors).warnings)
    assert any("60 rows are few for a learner" in line for line in dci(codes, factors).warnings)
    assert not any("few" in line for line in mig(*planted(3000)).warnings)
    assert not any("few" in line for line in dci(*planted(400), trees=2).warnings)


@pytest.mark.parametrize(("rows", "least"), [(20, 0.5), (50, 0.9), (100, 0.95), (199, 0.97)])
def test_dci_of_few_rows_tells_perfect_codes_from_noise(rows, least):
    scores = [dci(*planted(rows, seed)) for seed in range(4)]
    assert np.mean([score.ceiling for score in scores]) > least
    assert np.mean([score.value for score in scores]) > least - 0.15
    assert np.mean([score.floor for score in scores]) < 0.25
    assert np.mean([score.details["informativeness"].value for score in scores]) > least - 0.1


def test_dci_without_a_split_is_zero():
    assert dci(np.zeros((40, 3)), FACTORS[:40], bounds=False).value == 0


def test_rows_that_are_alone_with_their_value_are_left_out():
    codes, factors = planted(400)
    lonely = factors.copy()
    # Half of the rows have a value of their own; a pair of such a row with itself would give the factor away.
    lonely[:200, 0] = 1000 + np.arange(200)
    noise = np.random.default_rng(3).standard_normal(codes.shape)
    discrete = [False, True, True]
    pairs: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (beta_vae, {"points": 400}),
        (factor_vae, {"votes": 400}),
    ]
    for score, options in pairs:
        found = score(noise, lonely, discrete=discrete, bins=1000, bounds=False, **options)
        assert found.value < 0.6
        assert any("share their value with no other" in line for line in found.warnings)
        alone = np.column_stack([np.arange(400), factors[:, 1]])
        refused("no two rows share a value", codes, alone, score, discrete=[False, True], bins=100_000)


def test_scores_above_their_ceiling_are_explained():
    rng = np.random.default_rng(0)
    factors = rng.integers(5, size=(2000, 2))
    # Noise beside the exact factors lowers the ceiling; codes that are dead, or repeat a factor, do not.
    codes = np.hstack([factors, factors, np.zeros((2000, 2))]).astype(float)
    score = irs(codes, factors)
    assert score.value > score.ceiling + 0.05
    assert any("above its ceiling, which is no bound" in line for line in score.warnings)
    assert not any("above" in line for line in mig(*planted()).warnings)


def test_ceiling_and_floor_that_tell_nothing_apart_are_said():
    rng = np.random.default_rng(0)
    # One value to nearly every row: there is nothing to be found in so few.
    score = mig(rng.standard_normal((20, 3)), rng.integers(10, size=(20, 2)), discrete=True, bins=1000)
    assert any("hardly tells perfect codes from noise" in line for line in score.warnings)


def test_dependent_codes_and_few_rows_of_tc():
    codes, _ = planted(300)
    assert any(
        "3 of 9 codes follow from the others" in line for line in tc(np.c_[codes, codes[:, :3]]).warnings
    )
    with pytest.raises(InputError, match="20 rows of 24 codes; tc expected more rows than codes"):
        tc(np.random.default_rng(0).standard_normal((20, 24)))


def test_discrete_codes_are_classes():
    rng = np.random.default_rng(0)
    factors = rng.integers(6, size=(2000, 2))
    # Labels whose order and size mean nothing.
    shuffled = rng.permutation(6)[factors]
    codes = np.column_stack([10.0**shuffled, rng.integers(4, size=2000)])
    score = mig(codes, factors, discrete_codes=True)
    assert score.ceiling == pytest.approx(1, abs=0.02)
    assert score.value == pytest.approx(score.ceiling, abs=0.02)
    assert mig(codes, factors).value < score.value - 0.2
    expected = [[mutual_info_score(code, factor) for factor in factors.T] for code in codes.T]
    assert np.allclose(score.details["mutual_information"], expected, atol=1e-9)
    information = infomec(codes, factors, discrete_codes=True)
    normalised = np.array(expected) / score.details["entropies"]
    assert np.allclose(information.details["normalised_information"], normalised, atol=1e-9)
    # A regression on columns for the values predicts what one on the numbers cannot.
    assert information.details["infoe"].value > 0.99
    assert infomec(codes, factors).details["infoe"].value < 0.95
    assert infomec(codes, factors, discrete_codes=[True, False, True], resamples=3).interval is not None
    continuous = np.column_stack([factors[:, 0] + 0.1 * rng.standard_normal(2000), factors[:, 1]])
    assert infomec(codes, continuous, discrete_codes=True).details["normalised_information"][0, 0] > 0.5
    refused("column 0 is said to be discrete and has 300 values", discrete_codes=True)


def test_one_kind_of_bins_for_all_scores_of_a_table():
    codes, factors = outlying()
    options = {"beta_vae": {"points": 100}, "factor_vae": {"votes": 100}, "dci": {"trees": 2}}
    table = score_table(codes, factors, bootstrap=0, binning="equal mass", bins=10, options=options)
    assert {table[name].details["discretiser"] for name in ("mig", "dcimig", "med", "modularity")} == {
        "10 bins of equal mass"
    }
    assert not any("bins" in line for line in table.warnings())
    told = score_table(codes, factors, ["mig", "med"], bootstrap=0).warnings()
    assert next(metrics for line, metrics in told.items() if "code 2" in line) == ["mig", "med"]
    with pytest.raises(InputError, match="binning 'odd'"):
        score_table(codes, factors, binning="odd")  # type: ignore[arg-type]


def test_a_single_resample_gives_no_interval_and_is_refused():
    refused("resamples 1: expected 0, or at least 2", resamples=1)


def test_the_arrays_given_are_not_written_to():
    by_column = np.asfortranarray(CODES)
    before = by_column.copy()
    check_codes(by_column)
    check_codes(by_column.T.copy().T)
    assert (by_column == before).all()
