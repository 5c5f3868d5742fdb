"""What every metric of codes and factors must keep; a metric's test class says only what is its own."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

from interpretkit.disentanglement import Score
from interpretkit.errors import InputError

ROWS = 1200


def planted(rows: int = ROWS, seed: int = 0, blur: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Codes of which 0, 2 and 4 each carry one of three factors; the others are noise."""
    rng = np.random.default_rng(seed)
    factors = np.column_stack([rng.integers(size, size=rows) for size in (4, 5, 6)])
    codes = rng.standard_normal((rows, 6))
    exact = (factors - factors.mean(axis=0)) / factors.std(axis=0)
    codes[:, ::2] = exact + blur * codes[:, ::2]
    return codes, factors


class MetricCase:
    """The shared case; subclasses set the attributes."""

    metric: ClassVar[Callable[..., Score]]
    options: ClassVar[dict[str, Any]] = {}
    # How far a value may move where the metric claims that it does not.
    order_tolerance = 1e-9
    sign_tolerance: float | None = 1e-9
    scale_tolerance: float | None = 1e-9
    # Scores are compared with ceiling and floor on planted codes up to this.
    slack = 0.05
    # The least share of the way from floor to ceiling that planted codes must reach.
    found = 0.8
    several_factors = True
    widest_interval = 0.25
    # Of codes beside those that carry the continuous factors.
    noise_beside = 2

    def score(self, codes: Any, factors: Any, **options: Any) -> Score:
        return type(self).metric(codes, factors, **{"bounds": False, **self.options, **options})

    def test_planted_factors_are_found(self):
        score = self.score(*planted(), bounds=True)
        assert score.floor - self.slack <= score.value <= score.ceiling + self.slack
        assert (score.value - score.floor) / (score.ceiling - score.floor) > self.found

    def test_noise_is_near_the_floor(self):
        _, factors = planted()
        noise = np.random.default_rng(77).standard_normal((ROWS, 6))
        score = self.score(noise, factors, bounds=True)
        assert abs(score.value - score.floor) < 0.5 * (score.ceiling - score.floor)

    def test_the_order_of_codes_does_not_matter(self):
        codes, factors = planted()
        shuffled = codes[:, [3, 1, 5, 0, 4, 2]]
        assert self.score(shuffled, factors).value == pytest.approx(
            self.score(codes, factors).value, abs=self.order_tolerance
        )

    def test_the_signs_of_codes_do_not_matter(self):
        if self.sign_tolerance is None:
            pytest.skip("not claimed")
        codes, factors = planted()
        turned = codes * [1, -1, -1, 1, -1, 1]
        assert self.score(turned, factors).value == pytest.approx(
            self.score(codes, factors).value, abs=self.sign_tolerance
        )

    def test_the_scales_of_codes_do_not_matter(self):
        if self.scale_tolerance is None:
            pytest.skip("not claimed")
        codes, factors = planted()
        scaled = codes * [1, 4, 2, 8, 0.5, 16] + [0, 1, 2, 3, 4, 5]
        assert self.score(scaled, factors).value == pytest.approx(
            self.score(codes, factors).value, abs=self.scale_tolerance
        )

    def test_the_seed_decides(self):
        codes, factors = planted(400)
        first = self.score(codes, factors, bounds=True, resamples=4, seed=3)
        second = self.score(codes, factors, bounds=True, resamples=4, seed=3)
        assert (first.value, first.ceiling, first.floor) == (second.value, second.ceiling, second.floor)
        assert first.interval == second.interval

    def test_dead_codes_leave_the_score_finite(self):
        codes, factors = planted(400)
        codes[:, [1, 3]] = 0.0, 1e9
        assert np.isfinite(self.score(codes, factors, resamples=3).value)
        nothing = self.score(np.zeros((400, 3)), factors, resamples=3)
        assert np.isfinite(nothing.value)
        assert nothing.value <= self.score(*planted(400)).value

    def test_a_single_code_is_enough(self):
        codes, factors = planted(400)
        assert np.isfinite(self.score(codes[:, :1], factors, bounds=True).value)

    def test_continuous_factors_are_scored(self):
        rng = np.random.default_rng(1)
        factors = rng.uniform(size=(ROWS, 3))
        codes = np.column_stack([factors, rng.standard_normal((ROWS, self.noise_beside))])
        codes[:, :3] = (codes[:, :3] - 0.5) * np.sqrt(12)
        good, bad = self.score(codes, factors), self.score(rng.standard_normal((ROWS, 5)), factors)
        assert good.value > bad.value + 0.05

    def test_the_interval_holds_the_value(self):
        score = self.score(*planted(), resamples=20)
        assert score.interval is not None
        low, high = score.interval
        assert 0 <= low <= score.value <= high <= 1
        assert high - low < self.widest_interval
        assert score.details["resampled"]

    def test_degenerate_input_is_refused_in_one_line(self):
        codes, factors = planted(60)
        constant, missing, endless = factors.copy(), factors.astype(float), codes.copy()
        constant[:, 1] = 2
        missing[7, 0] = np.nan
        endless[3, 2] = np.inf
        cases = {
            "column 1 is 2 in every row": (codes, constant),
            "factors: nan in row 7, column 0": (codes, missing),
            "codes: inf in row 3, column 2": (endless, factors),
            r"codes: shape \(60,\)": (codes[:, 0], factors),
            r"factors: shape \(60,\)": (codes, factors[:, 0]),
            "codes have 60 rows and factors 59": (codes, factors[:-1]),
            "codes: 10 rows; expected at least 20": (codes[:10], factors[:10]),
            "expected numbers": (codes, factors.astype(str)),
            r"codes: shape \(60, 0\)": (codes[:, :0], factors),
        }
        for message, (bad_codes, bad_factors) in cases.items():
            with pytest.raises(InputError, match=message) as caught:
                self.score(bad_codes, bad_factors)
            assert "\n" not in str(caught.value)

    def test_options_are_checked(self):
        codes, factors = planted(60)
        with pytest.raises(InputError, match=r"discrete: 2 values; expected 3"):
            self.score(codes, factors, discrete=[True, False])
        with pytest.raises(InputError, match="resamples -1"):
            self.score(codes, factors, resamples=-1)
        with pytest.raises(InputError, match="said to be discrete"):
            self.score(codes, codes, discrete=True)

    def test_a_single_factor(self):
        codes, factors = planted(200)
        if self.several_factors:
            with pytest.raises(InputError, match="at least two"):
                self.score(codes, factors[:, :1])
        else:
            assert 0 <= self.score(codes, factors[:, :1]).value <= 1

    def test_the_arrays_given_are_left_alone(self):
        codes, factors = planted(200)
        before = codes.copy(), factors.copy()
        self.score(codes, factors, resamples=2)
        single = codes[:, :1].copy()
        again = [self.score(single, factors).value for _ in range(2)]
        assert again[0] == again[1]
        assert np.array_equal(single, codes[:, :1])
        assert np.array_equal(codes, before[0])
        assert np.array_equal(factors, before[1])
