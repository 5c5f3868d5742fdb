import numpy as np
import pytest

from interpretkit.disentanglement import irs, mig, modularity
from interpretkit.disentanglement.anchors import ANCHORS, NAMES, anchor_codes, measure_anchors, tolerance
from interpretkit.errors import InputError


@pytest.mark.parametrize(("data", "kind"), list(ANCHORS))
def test_anchors(data, kind):
    measured = measure_anchors(data, kind)
    for name, expected in zip(NAMES, ANCHORS[data, kind], strict=True):
        assert measured[name] == pytest.approx(expected, abs=tolerance(name)), name


@pytest.mark.parametrize(("data", "kind"), list(ANCHORS))
def test_anchors_lie_within_the_scatter_of_draws_that_nobody_chose(data, kind):
    measured = np.array([list(measure_anchors(data, kind, seed).values()) for seed in range(6)])
    spread = np.hypot(measured.std(axis=0, ddof=1), [tolerance(name) for name in NAMES])
    deviations = np.abs(np.array(ANCHORS[data, kind]) - measured.mean(axis=0)) / spread
    assert deviations.max() < 3, dict(zip(NAMES, deviations.round(1), strict=True))


@pytest.mark.parametrize("data", ["dsprites", "shapes3d"])
@pytest.mark.parametrize("seed", [0, 1])
def test_anchors_that_do_not_depend_on_the_draw_hold_for_other_seeds(data, seed):
    codes, factors = anchor_codes(data, "perfect", seed, rows=10_000)
    expected = dict(zip(NAMES, ANCHORS[data, "perfect"], strict=True))
    for bins in (10, 20, 100):
        value = mig(codes, factors, bins=bins, bounds=False).value
        assert value == pytest.approx(expected[f"MIG, {bins} bins"], abs=0.02)
    assert irs(codes, factors, bounds=False).value == pytest.approx(expected["IRS"], abs=0.03)
    assert modularity(codes, factors, bounds=False).value == pytest.approx(expected["modularity"], abs=0.03)


def test_a_rotated_code_beats_a_perfect_one_beside_noise_on_modularity():
    rotated = np.mean(
        [modularity(*anchor_codes("dsprites", "rotated", s, 4000), bounds=False).value for s in range(8)]
    )
    perfect = np.mean(
        [modularity(*anchor_codes("dsprites", "perfect", s, 4000), bounds=False).value for s in range(8)]
    )
    assert rotated > perfect


def test_the_ceiling_of_mig_on_dsprites():
    score = mig(*anchor_codes("dsprites", "rotated", 0, 10_000))
    assert score.ceiling == pytest.approx(0.896, abs=0.005)
    assert score.floor == pytest.approx(0, abs=0.002)


def test_unknown_names():
    with pytest.raises(InputError, match="data 'mnist'"):
        anchor_codes("mnist", "perfect")
    with pytest.raises(InputError, match="kind 'odd'"):
        anchor_codes("dsprites", "odd")  # type: ignore[arg-type]
