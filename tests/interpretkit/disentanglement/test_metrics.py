import sys
from pathlib import Path

import numpy as np
import pytest

from interpretkit.disentanglement import (
    Score,
    beta_vae,
    dci,
    dcimig,
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
from interpretkit.errors import InputError

# The tests are imported by path, so that the shared case must be found by hand.
sys.path.insert(0, str(Path(__file__).parent))
from metric_cases import MetricCase, planted


class TestMig(MetricCase):
    metric = mig
    several_factors = False

    def test_gaps_and_best_codes(self):
        codes, factors = planted()
        score = mig(codes, factors)
        assert score.details["best_codes"].tolist() == [0, 2, 4]
        assert score.value == pytest.approx(score.details["gaps"].mean())
        assert score.details["discretiser"] == "20 bins of equal width"

    def test_the_discretiser_changes_the_score_and_is_named(self):
        codes, factors = planted()
        codes[0] = 40.0
        wide = mig(codes, factors)
        even = mig(codes, factors, binning="equal mass", bins=30)
        # One outlier leaves equal width with one bin for nearly all rows.
        assert even.value > wide.value + 0.3
        assert even.details["discretiser"] == "30 bins of equal mass"
        with pytest.raises(InputError, match="bins 1"):
            mig(codes, factors, bins=1)
        with pytest.raises(InputError, match="binning 'odd'"):
            mig(codes, factors, binning="odd")  # type: ignore[arg-type]

    def test_two_codes_for_one_factor_have_no_gap(self):
        codes, factors = planted()
        assert mig(np.hstack([codes, codes]), factors).value == pytest.approx(0, abs=1e-12)

    def test_the_interval_is_as_wide_as_the_spread_over_fresh_rows(self):
        values = [mig(*planted(600, seed, blur=0.5), bounds=False).value for seed in range(40)]
        low, high = mig(*planted(600, 0, blur=0.5), bounds=False, resamples=200).interval or (0, 0)
        assert (high - low) / (2 * 1.96 * np.std(values)) == pytest.approx(1, abs=0.4)


class TestDcimig(MetricCase):
    metric = dcimig

    def test_a_code_that_two_factors_share_counts_for_neither(self):
        rng = np.random.default_rng(0)
        factors = rng.integers(2, size=(4000, 2))
        shared = factors.sum(axis=1, keepdims=True).astype(float)
        assert dcimig(shared, factors).value < 0.02


class TestModularity(MetricCase):
    metric = modularity
    # Codes of noise count, and have a modularity of their own.
    slack = 0.08
    found = 0.5

    def test_noise_counts(self):
        codes, factors = planted()
        of_codes = modularity(codes, factors).details["of_codes"]
        assert of_codes[::2].min() > 0.99
        assert of_codes[1::2].max() < 0.99

    def test_a_dead_code_counts_zero(self):
        codes, factors = planted()
        assert modularity(np.c_[codes[:, [0]], np.zeros(len(codes))], factors).value == pytest.approx(
            0.5, abs=0.01
        )


class TestMed(MetricCase):
    metric = med

    def test_completeness_falls_when_a_factor_is_spread(self):
        codes, factors = planted()
        spread = np.hstack([codes, codes[:, [0]]])
        assert (
            med(spread, factors).details["completeness"].value
            < med(codes, factors).details["completeness"].value
        )


class TestInfomec(MetricCase):
    metric = infomec
    # The noise that tells equal values apart is drawn code by code, and noise codes have chance estimates.
    order_tolerance = 0.02
    sign_tolerance = 0.02
    scale_tolerance = None
    slack = 0.25
    found = 0.2
    widest_interval = 0.6
    noise_beside = 0

    def test_codes_of_little_range_are_pruned(self):
        codes, factors = planted()
        codes[:, 1::2] *= 0.01
        score = infomec(codes, factors)
        assert score.details["active"].tolist() == [True, False] * 3
        assert score.value > 0.95
        assert score.details["infoc"].value > 0.95
        assert score.details["infoe"].value > 0.95

    def test_one_scale_for_all_codes_does_not_matter(self):
        codes, factors = planted()
        assert infomec(8 * codes, factors, bounds=False).value == pytest.approx(
            infomec(codes, factors, bounds=False).value, abs=1e-9
        )


class TestSap(MetricCase):
    metric = sap
    several_factors = False

    def test_the_kinds_of_factor_are_kept_apart(self):
        codes, factors = planted()
        mixed = np.column_stack([factors[:, 0], codes[:, 2] + 0.01 * codes[:, 1]])
        score = sap(codes, mixed)
        assert score.details["discrete"].tolist() == [True, False]
        assert score.details["of_continuous"] == pytest.approx(1, abs=0.01)
        assert 0 < score.details["of_discrete"] < 0.9
        assert score.value == pytest.approx(
            (score.details["of_discrete"] + score.details["of_continuous"]) / 2
        )

    def test_published_scores_know_the_scale(self):
        codes, factors = planted()
        raw = sap(codes * 1e-3, factors, standardise=False, bounds=False)
        assert raw.value < 0.5 * sap(codes * 1e-3, factors, bounds=False).value
        assert raw.details["standardised"] is False

    def test_r_squared_does_not_know_the_scale(self):
        codes, _ = planted()
        factors = codes[:, [0, 2]]
        assert sap(codes * 100, factors, bounds=False).value == pytest.approx(
            sap(codes, factors, bounds=False).value
        )


class TestDci(MetricCase):
    metric = dci
    options = {"trees": 5}  # noqa: RUF012
    # Random splits are drawn code by code.
    order_tolerance = 0.02
    sign_tolerance = 0.02
    scale_tolerance = 0.02

    def test_the_learner_is_named(self):
        codes, factors = planted(200)
        assert dci(codes, factors).details["learner"] == "extra trees, 10 trees"
        reference = dci(
            codes, factors[:, :2], learner="gradient boosting", trees=3, resamples=3, bounds=False
        )
        assert reference.details["learner"] == "gradient boosting, 3 rounds"
        assert reference.interval is None
        assert reference.details["informativeness"].interval is not None
        assert reference.value > 0.8
        with pytest.raises(InputError, match="learner 'lasso'"):
            dci(codes, factors, learner="lasso")  # type: ignore[arg-type]

    def test_informativeness_is_accuracy(self):
        codes, factors = planted()
        assert dci(codes, factors).details["informativeness"].value > 0.95
        noise = np.random.default_rng(5).standard_normal(codes.shape)
        chance = np.mean([1 / 4, 1 / 5, 1 / 6])
        assert dci(noise, factors).details["informativeness"].value == pytest.approx(chance, abs=0.06)

    def test_threads_do_not_change_the_result(self):
        codes, factors = planted(300)
        assert dci(codes, factors, threads=2).value == dci(codes, factors).value

    def test_disentanglement_and_completeness_part(self):
        codes, factors = planted()
        rng = np.random.default_rng(0)
        spread = np.hstack([codes[:, ::2], codes[:, ::2] + 0.01 * rng.standard_normal((len(codes), 3))])
        score = dci(spread, factors, bounds=False)
        assert score.value > 0.95
        assert score.details["completeness"].value < 0.95


class TestExplicitness(MetricCase):
    metric = explicitness
    order_tolerance = 1e-4
    sign_tolerance = 1e-4
    scale_tolerance = 1e-3
    several_factors = False

    def test_rotations_do_not_matter(self):
        codes, factors = planted()
        codes = (codes - codes.mean(axis=0)) / codes.std(axis=0)
        rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
        assert explicitness(codes @ rotation, factors, bounds=False).value == pytest.approx(
            explicitness(codes, factors, bounds=False).value, abs=0.01
        )

    def test_rescaled_chance_is_zero(self):
        _, factors = planted()
        noise = np.random.default_rng(5).standard_normal((len(factors), 6))
        plain, rescaled = explicitness(noise, factors), explicitness(noise, factors, rescale=True)
        assert plain.value == pytest.approx(0.5, abs=0.05)
        assert rescaled.value == pytest.approx(2 * plain.value - 1)


class TestBetaVae(MetricCase):
    metric = beta_vae
    options = {"points": 1000, "pairs": 32}  # noqa: RUF012
    order_tolerance = 0.005
    sign_tolerance = 1e-9
    scale_tolerance = 0.005

    def test_published_scores_know_the_scale(self):
        codes, factors = planted()
        options = {"standardise": False, "points": 400, "pairs": 16, "bounds": False}
        assert beta_vae(1e-3 * codes, factors, **options).value < 0.8
        assert beta_vae(codes + 1e6, factors, **options).value == beta_vae(codes, factors, **options).value


class TestFactorVae(MetricCase):
    metric = factor_vae
    options = {"votes": 1000, "batch": 32}  # noqa: RUF012

    def test_inactive_codes_do_not_vote(self):
        codes, factors = planted()
        codes[:, 3] *= 0.01
        score = factor_vae(codes, factors, votes=500)
        assert score.details["n_active"] == 5
        assert score.details["votes"][3].sum() == 0
        assert score.details["votes"].sum() == 500
        assert "codes 3 do not vote" in score.warnings[0]
        # Inactive is what varies little beside the others, not what is written in large units.
        assert factor_vae(0.01 * codes, factors, votes=500).value == score.value
        assert factor_vae(0 * codes, factors, votes=500).value == 0


class TestIrs(MetricCase):
    metric = irs
    scale_tolerance = None
    several_factors = False
    slack = 0.1
    found = 0.5

    def test_one_scale_for_all_codes_does_not_matter(self):
        codes, factors = planted()
        assert irs(3 * codes, factors, bounds=False).value == pytest.approx(
            irs(codes, factors, bounds=False).value
        )

    def test_against_loops(self):
        codes, factors = planted(300)
        matrix = np.zeros((6, 3))
        for code in range(6):
            z = codes[:, code]
            for factor in range(3):
                found = []
                for value in np.unique(factors[:, factor]):
                    group = z[factors[:, factor] == value]
                    found.append(np.percentile(np.abs(group - group.mean()), 99))
                matrix[code, factor] = 1 - np.mean(found) / np.abs(z - z.mean()).max()
        assert np.allclose(irs(codes, factors).details["robustness"], matrix, atol=1e-12)


class TestTc:
    def test_two_correlated_gaussians(self):
        rng = np.random.default_rng(0)
        codes = rng.standard_normal((200_000, 2))
        codes[:, 1] = 0.6 * codes[:, 0] + 0.8 * codes[:, 1]
        score = tc(codes, resamples=20)
        assert score.value == pytest.approx(-0.5 * np.log(1 - 0.36), abs=0.005)
        assert score.interval is not None
        assert score.interval[0] < 0.2231 < score.interval[1]
        assert score.floor == pytest.approx(0, abs=1e-3)
        assert np.isnan(score.ceiling)

    def test_sign_scale_and_order_do_not_matter(self):
        codes, factors = planted()
        score = tc(codes, factors)
        assert tc(codes[:, ::-1] * [1, -2, 3, -4, 5, -6], factors).value == pytest.approx(score.value)
        assert score.ceiling < 0.05

    def test_dependent_and_dead_codes_are_finite(self):
        codes, _ = planted()
        assert 5 < tc(np.hstack([codes, codes])).value < 200
        assert tc(np.hstack([codes, np.ones((len(codes), 2))])).value == pytest.approx(tc(codes).value)
        assert tc(np.zeros((50, 3))).value == 0

    def test_bad_input(self):
        codes, factors = planted(60)
        with pytest.raises(InputError, match="60 rows and factors 40"):
            tc(codes, factors[:40])


class TestUdr:
    @pytest.mark.parametrize("similarity", ["spearman", "lasso"])
    def test_models_that_agree_and_models_that_do_not(self, similarity):
        _, factors = planted(500)
        rng = np.random.default_rng(0)
        exact = (factors - factors.mean(axis=0)) / factors.std(axis=0)
        alike = [exact, -exact[:, [2, 0, 1]], exact[:, [1, 2, 0]] * [1, -1, 2]]
        rotated = [exact @ np.linalg.qr(rng.standard_normal((3, 3)))[0] for _ in range(3)]
        good, bad = (udr(models, similarity=similarity, resamples=5) for models in (alike, rotated))
        assert good.value > 0.75
        assert good.value == pytest.approx(good.ceiling, abs=0.02)
        assert bad.value < good.value - 0.15
        assert bad.floor < good.value
        assert good.interval is not None
        assert np.isnan(np.diag(good.details["of_pairs"])).all()

    def test_order_and_sign_do_not_matter(self):
        codes, _ = planted(300)
        other, _ = planted(300, seed=1)
        assert udr([codes[:, ::-1], -other]).value == pytest.approx(udr([codes, other]).value)

    def test_dead_codes_are_left_out(self):
        codes, _ = planted(300)
        dead = np.hstack([codes, np.zeros((300, 2))])
        assert udr([dead, codes]).value == pytest.approx(udr([codes, codes]).value)
        assert udr([dead, codes]).details["n_active"] == [6, 6]
        assert udr([np.zeros((300, 2)), codes]).value == 0

    def test_bad_input(self):
        codes, _ = planted(60)
        with pytest.raises(InputError, match="at least two arrays"):
            udr([codes])
        with pytest.raises(InputError, match="numbers of rows"):
            udr([codes, codes[:40]])
        with pytest.raises(InputError, match=r"models\[1\]: nan"):
            udr([codes, np.full_like(codes, np.nan)])


def test_a_score_is_frozen_and_a_number():
    score = mig(*planted(100))
    assert isinstance(score, Score)
    assert float(score) == score.value
    with pytest.raises(AttributeError):
        score.value = 1.0  # type: ignore[misc]


def test_factors_are_taken_for_discrete_by_how_often_values_recur():
    codes, factors = planted(400)
    many = np.column_stack([factors[:, 0], codes[:, 1], np.linspace(0, 1, 7)[factors[:, 1]]])
    assert sap(codes, many).details["discrete"].tolist() == [True, False, True]
    assert sap(codes, many, discrete=False).details["discrete"].tolist() == [False, False, False]
